#ifndef SKEIN_NODE_API_API_H
#define SKEIN_NODE_API_API_H

/* The HTTP side of a node: OpenAI's API and skein's own endpoints, on libmicrohttpd driven by the
 * node's loop. */
#include "node/node.h"

struct api;

struct api_options {
    const char *address; /* numeric or name; default 127.0.0.1 */
    uint16_t port;       /* 0: any free one */
    const char *key;     /* bearer key; NULL: none. Required where the address is not loopback. */
    size_t max_body_bytes;
};

/* Errors: IN_USE (port named, and what to do), INVALID (not loopback without a key), NO_MEMORY. */
enum status api_start(struct uv_loop_s *loop, struct node *node, const struct api_options *options,
                      struct api **out, struct fault *fault) MUST_USE;
/* The node is ready: until this is called, all but /health answer 503 with Retry-After, and /health
 * does, too. */
void api_ready(struct api *api);
uint16_t api_port(const struct api *api);
/* Ends running streams with an error event, then calls on_closed once; the memory is gone after. */
void api_close(struct api *api, void (*on_closed)(void *owner), void *owner);

#endif
