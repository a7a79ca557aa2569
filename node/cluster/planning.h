#ifndef SKEIN_NODE_CLUSTER_PLANNING_H
#define SKEIN_NODE_CLUSTER_PLANNING_H

/* Private to the three files that plan: nodes (instance_plan.c), context (context.c) and room that
 * others could make (room.c). */
#include "node/cluster/inner.h"

/* Which memory counts. */
enum plan_memory {
    MEMORY_FREE,   /* what is free now */
    MEMORY_SOON,   /* of other nodes also what ending shards give back: asked, they wait for it */
    MEMORY_COMING, /* of all */
    MEMORY_ALL     /* everything, as if nothing else ran */
};

struct planning {
    struct plan_node nodes[PLAN_MAX_NODES];
    const struct member *members[PLAN_MAX_NODES]; /* NULL: self */
    uint32_t n;
};

struct context { /* how much context, and KV memory for how many tokens in all */
    uint32_t n_ctx_tokens, n_kv_tokens;
};

/* instance_plan.c: this node first, then the living. instance may be NULL. */
void planning_collect(const struct control *c, const uint8_t *hash, const struct instance *instance,
                      enum plan_memory memory, struct planning *p);
void planning_node(struct plan_node *node, const struct node_card *card);
struct plan_model planning_model(const struct control_model *model);
void planning_names(const struct planning *p, uint32_t *n, char names[][PROTO_MAX_NAME]);

/* context.c */
struct context context_wanted(const struct control *c, const struct control_model *model);
/* The best plan with the longest context that fits; NO_ROOM where none does. */
enum status plan_context(const struct control *c, const struct planning *p,
                         const struct control_model *model, enum plan_objective objective,
                         struct plan *plan, struct context *chosen, struct fault *fault) MUST_USE;
/* One sentence where the context is shorter than asked for; empty otherwise. */
void context_notice(const struct control *c, const struct planning *p,
                    const struct control_model *model, uint32_t n_ctx_tokens, char *out,
                    size_t size);
/* Adds to a NO_ROOM the smaller forms in which there would be room. */
void context_no_room(const struct control *c, const struct planning *p,
                     const struct control_model *model, struct fault *fault);

/* room.c: idle instances, here or headed elsewhere, whose end would make room. */
enum { MAX_IDLE = 16 };
struct idle {
    struct instance_ref ref;
    struct instance *instance; /* NULL: headed by another node */
    struct mesh_link *link;    /* to that node */
    uint8_t hash[PROTO_HASH_BYTES];
    char head[PROTO_MAX_NAME];
    uint32_t idle_seconds;
    bool chosen;
};
struct idle_list {
    uint32_t n;
    struct idle items[MAX_IDLE];
};
/* Chooses as few as needed, the longest idle first. NO_ROOM: all of them would not do. */
enum status room_find(struct control *c, const uint8_t *hash, const struct instance *instance,
                      const struct control_model *model, enum plan_objective objective,
                      struct idle_list *list, struct planning *p, struct plan *plan,
                      struct context *context) MUST_USE;
/* What the chosen one holds on all nodes together. */
uint64_t idle_bytes(const struct control *c, const struct idle *idle);

#endif
