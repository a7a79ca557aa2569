#ifndef SKEIN_DISCOVERY_MDNS_H
#define SKEIN_DISCOVERY_MDNS_H

/* One interface's mDNS: packets in, packets out, no sockets. */
#include "discovery/packet.h"
#include "discovery/peers.h"

enum {
    MDNS_PORT = 5353,
    MDNS_SEND_MAX_BYTES = 1400, /* what is sent fits one Ethernet frame */
    MDNS_TTL_S = 120,           /* RFC 6762 section 10, records with a host name in them */
    MDNS_MAX_RECORDS = 64       /* taken from one packet */
};

struct mdns_address {
    sa_family_t family;
    uint8_t bytes[16];
};

struct mdns;

enum status mdns_new(struct mdns **out) MUST_USE;
void mdns_free(struct mdns **mdns);

/* Sets what is announced, and announces it: now and after 2, 4 and 6 seconds. Addresses beyond
 * DISCOVERY_MAX_ADDRESSES are left out. On failure nothing is announced any more. */
enum status mdns_publish(struct mdns *mdns, const struct discovery_card *card,
                         const struct mdns_address *addresses, size_t n_addresses,
                         uint64_t now_ms) MUST_USE;

/* Takes a datagram. Questions for us are queued to be answered (mdns_out). Fills `records` with
 * what the packet says about nodes, and returns how many; their texts are good until the next call.
 * A packet that is not sound, or has nothing for us, gives 0. */
size_t mdns_in(struct mdns *mdns, const uint8_t *data, size_t size_bytes, uint64_t now_ms,
               struct record records[static MDNS_MAX_RECORDS]);

/* The next packet that is due, or 0. To be called until 0 after every mdns_in and at mdns_next_ms.
 */
size_t mdns_out(struct mdns *mdns, uint64_t now_ms, uint8_t out[static MDNS_SEND_MAX_BYTES]);
uint64_t mdns_next_ms(struct mdns *mdns, uint64_t now_ms);

/* The question for all instances, with those that are known. */
size_t mdns_browse(struct mdns *mdns, const struct peers_known *known, size_t n_known,
                   uint8_t out[static MDNS_SEND_MAX_BYTES]);
/* Questions about single instances; takes the first *n that fit, and sets *n. */
size_t mdns_ask(struct mdns *mdns, const struct peers_question *questions, size_t *n,
                uint8_t out[static MDNS_SEND_MAX_BYTES]);
/* All our records with a life of 0; 0 bytes where nothing was published. Nothing is announced or
 * answered after it. */
size_t mdns_goodbye(struct mdns *mdns, uint8_t out[static MDNS_SEND_MAX_BYTES]);

#endif
