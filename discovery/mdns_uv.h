#ifndef SKEIN_DISCOVERY_MDNS_UV_H
#define SKEIN_DISCOVERY_MDNS_UV_H

/* One interface in use: its sockets (IPv4 and IPv6) around its struct mdns. */
#include "discovery/netif.h"

struct iface;

struct iface_events {
    /* What a packet said about nodes. */
    void (*on_records)(void *owner, struct iface *iface, const struct record *records, size_t n);
    /* A packet was taken: answers may be due. */
    void (*on_work)(void *owner, struct iface *iface);
    /* Sending began to fail (the sentence says why), or works (again). Told on change only. */
    void (*on_usable)(void *owner, struct iface *iface, bool usable, const char *why);
    void (*on_closed)(void *owner);
    void *owner;
};

/* Opens at least one of the two sockets, or says why not. Nothing is sent yet. */
enum status iface_open(struct uv_loop_s *loop, const struct netif *netif,
                       const struct iface_events *events, struct iface **out,
                       struct fault *fault) MUST_USE;
const struct netif *iface_netif(const struct iface *iface);
/* Announces the card with the interface's addresses, and asks who is there. */
void iface_publish(struct iface *iface, const struct discovery_card *card, uint64_t now_ms);
/* Announces a changed card. */
void iface_update(struct iface *iface, const struct discovery_card *card, uint64_t now_ms);
/* Something about the interface changed: what could not be sent is tried again without waiting. */
void iface_retry(struct iface *iface, uint64_t now_ms);
/* Sends what is due, and returns when to call again. */
uint64_t iface_drive(struct iface *iface, struct peers *peers, uint64_t now_ms);
/* Sends goodbyes, closes the sockets, then on_closed; the memory is gone after it. */
void iface_close(struct iface *iface, bool goodbye);

#endif
