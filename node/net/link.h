#ifndef SKEIN_NODE_NET_LINK_H
#define SKEIN_NODE_NET_LINK_H

/* Links over TCP: proto's channel with a socket, a clock and a bounded send queue. Loop thread
 * only.
 *
 * Life: link_dial or the listener makes one; on_open comes at most once, when the peer has proved
 * the cluster key; on_closed comes exactly once for every link, opened or not, always later and
 * never from inside a call to this interface. The link is good until on_closed returns. The process
 * must ignore SIGPIPE. */
#include "node/net/address.h"
#include "proto/proto.h"

struct uv_loop_s;
struct link;
struct listener;

enum {
    LINK_CONNECT_MS = 3000,
    LINK_HANDSHAKE_MS = 3000,
    LINK_STALL_MS = 10000,                    /* bytes wait and the peer reads none of them */
    LINK_QUEUE_BYTES = 256 * 1024 * 1024,     /* plain bytes waiting to be sent */
    LINK_BULK_BYTES = 64 * 1024,              /* a message above it is refused while … */
    LINK_BULK_QUEUE_BYTES = 96 * 1024 * 1024, /* … more than this waits */
    LISTENER_MAX_HALF_OPEN = 64,              /* inbound links that have proved nothing yet */
    LISTENER_MAX_HALF_OPEN_PER_HOST = 16
};

struct link_events {
    void (*on_open)(void *owner, struct link *link, const uint8_t peer_id[static PROTO_ID_BYTES]);
    /* The receiver owns the message. */
    void (*on_message)(void *owner, struct link *link, struct message *message);
    /* Bytes came on an open link: at most once a second, so that a large message on a slow network
     * is not taken for silence. May be NULL. */
    void (*on_heard)(void *owner, struct link *link);
    /* status OK: link_close was called. CLOSED: the peer closed. AUTH: another cluster key (both
     * ends get it). TIMEOUT, UNREACHABLE, FORMAT, LIMIT, IO, NO_MEMORY as their words say. The last
     * call. */
    void (*on_closed)(void *owner, struct link *link, enum status status, const char *sentence);
    void *owner;
};

/* What every link of a node is made from; borrowed for the life of the link or listener. */
struct link_keys {
    const struct proto_identity *identity;
    const uint8_t *cluster_key; /* [PROTO_KEY_BYTES] */
};

/* Connects to a numeric "ip:port". On OK everything else is told by events; on failure (INVALID,
 * NO_MEMORY) there is no link and no event. */
enum status link_dial(struct uv_loop_s *loop, uint32_t id, const char *address,
                      const struct link_keys *keys, const struct link_events *events,
                      struct link **out, struct fault *fault) MUST_USE;

/* Takes the message in every case and frees it. Sent in order. CLOSED: not open (any more),
 * dropped. BUSY: the queue is over its bound, dropped, the link lives on. A message that breaks
 * proto's limits is our bug: it is dropped and logged. */
enum status link_send(struct link *link, struct message *message) MUST_USE;
size_t link_queued_bytes(const struct link *link);

/* Closes now; what waits to be sent is dropped. on_closed comes later, with status OK unless the
 * link was already failing. Calling again does nothing. */
void link_close(struct link *link);
/* As link_close, but gives what waits to be sent up to flush_ms to leave. */
void link_finish(struct link *link, uint32_t flush_ms);

uint32_t link_number(const struct link *link); /* 0 for an inbound link until link_set_id */
void link_set_id(struct link *link, uint32_t id);
bool link_is_outbound(const struct link *link);
bool link_is_open(const struct link *link);
/* The node at the other end, [PROTO_ID_BYTES]; zeros before on_open. */
const uint8_t *link_peer_id(const struct link *link);
/* As dialled, or where the inbound peer comes from: "ip:port". */
const char *link_remote(const struct link *link);

/* ---------------------------------------------------------------- listening */

struct listener_options {
    const char
        *address;  /* numeric, port ignored; NULL: all, IPv6 and IPv4 on one socket where can be */
    uint16_t port; /* 0: any free one */
    bool fixed;    /* the port was asked for by the user: in use is an error; else any free one */
};

/* Inbound links report to `events` with link_id 0: on_open is the place for link_set_id. Errors:
 * IN_USE (names the port), INVALID, PERMISSION, NO_MEMORY, IO. */
enum status listener_start(struct uv_loop_s *loop, const struct listener_options *options,
                           const struct link_keys *keys, const struct link_events *events,
                           struct listener **out, struct fault *fault) MUST_USE;
uint16_t listener_port(const struct listener *listener);
size_t listener_half_open(const struct listener *listener);
/* Stops accepting and closes inbound links that are not open yet; open ones live on and are closed
 * by their owner. on_closed comes once, after the listener's last half-open link is gone. */
void listener_close(struct listener *listener, void (*on_closed)(void *owner), void *owner);

#endif
