#ifndef SKEIN_NODE_CLI_LOCAL_H
#define SKEIN_NODE_CLI_LOCAL_H

/* A node inside this process, for commands that find none running: alone, nothing kept on disk, its
 * API on a free loopback port, on a thread of its own. */
#include "node/cli/choice.h"

struct local;

/* Returns when it is ready. Errors: those of node_choice_apply and of starting a node. */
enum status local_start(const struct node_choice *choice, struct local **out,
                        struct fault *fault) MUST_USE;
uint16_t local_port(const struct local *local);
void local_stop(struct local **local); /* waits for its end */

#endif
