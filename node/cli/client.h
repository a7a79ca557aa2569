#ifndef SKEIN_NODE_CLI_CLIENT_H
#define SKEIN_NODE_CLI_CLIENT_H

/* Speaking to a node's HTTP API. */
#include <signal.h>

#include "node/cli/cli.h"

struct client_options { /* in the struct of each command that asks a node */
    const char *api, *api_key_file;
};
#define CLIENT_OPTIONS(type, field)                                                                \
    OPTION("api", OPTION_TEXT, offsetof(type, field.api), "ADDRESS:PORT", "The node to ask",       \
           .fallback = "127.0.0.1:8470"),                                                          \
        OPTION("api-key-file", OPTION_TEXT, offsetof(type, field.api_key_file), "FILE",            \
               "File with that node's API key")

struct caller {
    struct cli_address address;
    char key[256]; /* "" for none */
    volatile sig_atomic_t
        *stop; /* set by a signal handler: the call ends with CANCELLED; or NULL */
};

enum status caller_init(struct caller *caller, const struct client_options *options,
                        struct fault *fault) MUST_USE;

/* One call; body NULL: GET, else POST of JSON (borrowed). *out is the answer's JSON, the caller's.
 * Errors: UNREACHABLE where nothing listens; the node's own status and sentence where it answered
 * with an error; FORMAT where it is no node. A node that is still starting is waited for. */
enum status caller_json(const struct caller *caller, const char *path, const json_t *body,
                        json_t **out, struct fault *fault) MUST_USE;
/* POST whose answer is a stream: on_event for each JSON event; it returns false to stop. Errors as
 * above, and those that an error event carries. */
enum status caller_stream(const struct caller *caller, const char *path, const json_t *body,
                          bool (*on_event)(void *owner, const json_t *event), void *owner,
                          struct fault *fault) MUST_USE;
/* "/skein/plan?model=" + escaped value + rest, into out. */
enum status caller_path(const char *before, const char *value, const char *after, char *out,
                        size_t size, struct fault *fault) MUST_USE;

/* A string of an answer, "" where it is not there; a size in words, into out. */
const char *answer_text(const json_t *object, const char *name);
const char *answer_size(const json_t *object, const char *name, char out[static 24]);

#endif
