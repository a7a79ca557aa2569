#ifndef SKEIN_NODE_CLI_INSPECT_H
#define SKEIN_NODE_CLI_INSPECT_H

#include "engine/engine.h"
#include "node/cli/cli.h"

/* A file's path, or `tiny` for the model in the program where no such file exists. */
enum status inspect_open(const char *path, struct model **out, struct fault *fault) MUST_USE;
/* Token ids of a JSON array (or of {"tokens": […]}), each below n_vocab. path NULL: standard input.
 */
enum status inspect_ids(const char *path, uint32_t n_vocab, struct token_list *out,
                        struct fault *fault) MUST_USE;

#endif
