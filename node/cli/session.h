#ifndef SKEIN_NODE_CLI_SESSION_H
#define SKEIN_NODE_CLI_SESSION_H

/* The node that a command works with: the one at --api, or, where none was named and none runs, one
 * inside this process. And the model that the user meant, there. */
#include "node/cli/client.h"
#include "node/cli/local.h"

struct session { /* zero-initialise; session_close */
    struct caller caller;
    struct local *local;
};

enum session_node {
    SESSION_NODE_ANY,   /* the one at --api, else one in here */
    SESSION_NODE_NAMED, /* the user named it: there is no other way out */
    SESSION_NODE_INSIDE /* in here, whatever runs outside */
};
/* Says on standard error when this box answers alone though nobody asked for it. */
enum status session_open(struct session *session, const struct client_options *options,
                         enum session_node wanted, const struct node_choice *choice,
                         struct fault *fault) MUST_USE;
void session_close(struct session *session);
/* A name stays as it is; a path of an existing file is made known to the node and becomes its hash.
 * Errors: NOT_FOUND for a path without a file, PERMISSION for a node on another box, and what the
 * node says of the file. */
enum status session_model(const struct session *session, const char *model, char *out, size_t size,
                          struct fault *fault) MUST_USE;

#endif
