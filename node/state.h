#ifndef SKEIN_NODE_STATE_H
#define SKEIN_NODE_STATE_H

/* What a node keeps on disk: its folder with a lock, its identity, the cluster key. Blocking. */
#include "proto/proto.h"

struct node_state {
    char *folder; /* NULL: nothing is kept, keys are for this run only */
    int lock_fd;  /* -1 where there is no folder */
    struct proto_identity identity;
    uint8_t cluster_key[PROTO_KEY_BYTES];
    bool key_made;
};

/* folder NULL: fresh keys that are not kept (key_path is then still read where it is given). join
 * NULL or a join text that becomes the key. Errors: IN_USE where another node runs on the folder
 * (its process id named), PERMISSION, FORMAT, INVALID, IO. node_state_close in every case. */
enum status node_state_open(const char *folder, const char *key_path, const char *join,
                            struct node_state *out, struct fault *fault) MUST_USE;
void node_state_close(struct node_state *state); /* unlocks, wipes */
/* folder/name, or NULL without folder or memory. mem_free. */
char *node_state_path(const struct node_state *state, const char *name);

#endif
