#ifndef SKEIN_NODE_NET_LINK_UV_H
#define SKEIN_NODE_NET_LINK_UV_H

/* Between link_uv.c and listen_uv.c: how a listener makes and watches its inbound links. */
#include <uv.h>

#include "node/net/link.h"

struct link_watch {
    /* The link has proved the key, or its memory is about to go unproved. Once a link. */
    void (*on_settled)(void *owner, struct link *link);
    void *owner;
};

/* Accepts the connection that waits at server and greets. Without memory (or a handle) nothing was
 * accepted and *out is NULL. */
enum status link_accept(uv_tcp_t *server, const struct link_keys *keys,
                        const struct link_events *events, const struct link_watch *watch,
                        struct link **out) MUST_USE;
/* Closes without a word to its owner: never announced, so never reported. */
void link_refuse(struct link *link);
const struct net_address *link_address(const struct link *link);

#endif
