#ifndef SKEIN_DISCOVERY_NETIF_H
#define SKEIN_DISCOVERY_NETIF_H

/* The box's network interfaces, and word when they change. */
#include "discovery/mdns.h"

struct netif {
    char name[IF_NAMESIZE];
    unsigned index;
    bool up;      /* administratively */
    bool carrier; /* a cable, or an access point */
    bool loopback;
    bool multicast;
    size_t n_addresses;
    struct mdns_address addresses[DISCOVERY_MAX_ADDRESSES]; /* IPv4 first */
};

enum { NETIF_MAX = 64 };

/* Reads up to NETIF_MAX interfaces. */
enum status netif_read(struct netif out[static NETIF_MAX], size_t *n) MUST_USE;

struct netif_watch;
struct uv_loop_s;

/* Calls back soon after links or addresses changed (many changes at once make one call), and every
 * few seconds in any case. Without netlink (a container that forbids it) only the latter. */
enum status netif_watch_start(struct uv_loop_s *loop, void (*on_change)(void *owner), void *owner,
                              struct netif_watch **out) MUST_USE;
/* Then on_closed, once; the memory is gone after it. */
void netif_watch_close(struct netif_watch *watch, void (*on_closed)(void *owner));

#endif
