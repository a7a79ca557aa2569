#ifndef SKEIN_NODE_CLI_SERVE_UV_H
#define SKEIN_NODE_CLI_SERVE_UV_H

/* A node and its API on a loop of their own: the body of `skein up`, and of the node that `skein
 * run` starts inside its own process. */
#include "node/api/api.h"

struct serve;

struct serve_options {
    struct node_options node;
    struct api_options api;
    bool signals; /* SIGINT and SIGTERM stop it; a second one ends the process at once */
};

struct serve_events { /* all on the thread of serve_run */
    void (*on_ready)(void *owner, struct node *node, uint16_t api_port);
    void (*on_tick)(void *owner, struct node *node); /* four times a second from then on; or NULL */
    void *owner;
};

enum status serve_new(struct serve **out, struct fault *fault) MUST_USE;
/* Blocks until stopped and everything is closed. Errors: those of node_start and api_start. Once.
 */
enum status serve_run(struct serve *serve, const struct serve_options *options,
                      const struct serve_events *events, struct fault *fault) MUST_USE;
void serve_stop(struct serve *serve); /* any thread, any time between new and free */
void serve_free(struct serve **serve);

#endif
