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

/* api_given: the user named the node, so there is no other way out. Says on standard error when
 * this box answers alone. */
enum status session_open(struct session *session, const struct client_options *options,
                         bool api_given, const struct node_choice *choice,
                         struct fault *fault) MUST_USE;
void session_close(struct session *session);
/* A name stays as it is; a path of an existing file is made known to the node and becomes its hash.
 * Errors: NOT_FOUND for a path without a file, PERMISSION for a node on another box, and what the
 * node says of the file. */
enum status session_model(const struct session *session, const char *model, char *out, size_t size,
                          struct fault *fault) MUST_USE;

#endif
