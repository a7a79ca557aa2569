#ifndef SKEIN_DISCOVERY_DISCOVERY_H
#define SKEIN_DISCOVERY_DISCOVERY_H

/* Finding the other nodes: DNS-SD `_skein._tcp.local` over mDNS (RFC 6762, 6763) on every usable
 * interface, and a list of seeds (--peer). Discovery yields addresses only; who is really there is
 * decided by the authenticated link. */
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "proto/base/base.h"

enum {
    DISCOVERY_ID_BYTES = 32,         /* node id: X25519 public key */
    DISCOVERY_FINGERPRINT_BYTES = 8, /* of the cluster key */
    DISCOVERY_MAX_INTERFACES = 16,
    DISCOVERY_MAX_PEERS = 64,
    DISCOVERY_MAX_ADDRESSES = 8,
    DISCOVERY_PROTOCOL_VERSION = 1
};

/* What goes into the TXT record, and what is read from others'. Keys: id, cl, v, engine, mem,
 * run. */
struct discovery_card {
    uint8_t node_id[DISCOVERY_ID_BYTES];
    uint8_t fingerprint[DISCOVERY_FINGERPRINT_BYTES];
    uint32_t protocol_version;
    char name[64];   /* instance name: the host's name, made unique by the id */
    char engine[16]; /* native, openblas */
    uint64_t memory_bytes;
    uint16_t port; /* TCP port of the mesh listener */
    uint32_t run;  /* another at each start; made by discovery_start, not by the caller */
};

/* A node seen by mDNS. Addresses are what it announced on the interface where it was heard. */
struct discovery_peer {
    struct discovery_card card;
    uint32_t n_addresses;
    struct sockaddr_storage addresses[DISCOVERY_MAX_ADDRESSES]; /* with the port filled in */
    char interface[IF_NAMESIZE];
};

struct discovery_events {
    /* Found, or changed (memory, address), or started again. Never for our own node id. Nodes of
     * foreign clusters are reported once through on_foreign and not here. */
    void (*on_peer)(void *owner, const struct discovery_peer *peer);
    /* Said goodbye, or its record expired. Only a hint: the link decides. */
    void (*on_gone)(void *owner, const uint8_t node_id[static DISCOVERY_ID_BYTES]);
    /* Another cluster's node, or another protocol version: for the log and for `skein peers`. */
    void (*on_foreign)(void *owner, const struct discovery_peer *peer);
    /* An interface came, went, or cannot be used (the sentence says why). */
    void (*on_interface)(void *owner, const char *interface, bool usable, const char *why);
    void (*on_closed)(void *owner); /* after discovery_close: the last callback */
    void *owner;
};

struct discovery_options {
    const char *const *interfaces; /* names; NULL or none: every up, multicast-capable, not lo */
    size_t n_interfaces;
    struct discovery_card card;
};

struct discovery;
struct uv_loop_s;

/* Starts announcing and browsing on the loop. Copies the options. An interface that cannot be used
 * is reported through on_interface and tried again when the system's interfaces change; discovery
 * as a whole fails only for lack of memory. Loop thread only, as all calls here. */
enum status discovery_start(struct uv_loop_s *loop, const struct discovery_options *options,
                            const struct discovery_events *events, struct discovery **out,
                            struct fault *fault) MUST_USE;
/* Announces a changed card (memory). */
void discovery_update(struct discovery *discovery, const struct discovery_card *card);
/* A link to this node failed: asks for it at once, and calls on_gone where it does not answer
 * within three seconds. A node that answers stays, and nothing is called. */
void discovery_doubt(struct discovery *discovery, const uint8_t node_id[static DISCOVERY_ID_BYTES]);
/* Sends goodbyes, closes all sockets, then on_closed; the memory is gone after that callback. */
void discovery_close(struct discovery *discovery);

/* A seed as written by the user: HOST, HOST:PORT, IPv4, [IPv6], [IPv6]:PORT. */
struct discovery_seed {
    char host[256];
    uint16_t port;
};
enum status discovery_seed_parse(const char *text, uint16_t default_port,
                                 struct discovery_seed *out, struct fault *fault) MUST_USE;

#endif
