#ifndef SKEIN_NODE_NODE_H
#define SKEIN_NODE_NODE_H

/* One running node: the control plane with its sockets, discovery, model store and stage threads.
 * All functions: loop thread only, unless they say otherwise. */
#include "engine/engine.h"
#include "node/cluster/control.h"
#include "proto/proto.h"

struct uv_loop_s;
struct node;

struct node_options {
    char name[PROTO_MAX_NAME];
    const char *state_folder;     /* node.key, cluster.key, caches; locked while the node runs */
    const char *cluster_key_path; /* NULL: state_folder/cluster.key */
    const char *join; /* join text of another node's cluster, stored as the key; or NULL */
    const char *const *model_folders; /* searched for *.gguf */
    size_t n_model_folders;
    const char *const *model_files; /* opened by path beside them */
    size_t n_model_files;
    uint16_t mesh_port; /* 0: any free one; */
    bool
        mesh_port_fixed; /* the user asked for it: in use is an error; else any free one is taken */
    const char *mesh_address;      /* to listen on; NULL: all */
    const char *const *interfaces; /* for discovery; also the only ones listened on, where given */
    size_t n_interfaces;
    bool no_discovery; /* alone: no mDNS, no listener */
    const struct discovery_seed *seeds;
    size_t n_seeds;
    uint64_t memory_bytes; /* 0: what the box has available, less a reserve */
    uint32_t n_threads;    /* 0: all cores */
    enum engine_kind engine;
    uint32_t n_ctx_tokens, n_slots, max_rows, max_queue;
    enum plan_objective objective;
    struct model_form form; /* of the instances that this node heads */
    bool lock;              /* weights and KV held here may not be swapped out */
};

struct node_events {
    void (*on_ready)(void *owner); /* listening, models listed, speed measured */
    void (*on_closed)(void *owner);
    void *owner;
};

enum status node_start(struct uv_loop_s *loop, const struct node_options *options,
                       const struct node_events *events, struct node **out,
                       struct fault *fault) MUST_USE;
void node_close(struct node *node); /* finishes with on_closed; goodbyes are sent */

/* ---------------------------------------------------------------- requests */

struct request_result {
    enum request_end end;
    struct fault fault; /* status OK unless REQUEST_END_ERROR */
    uint32_t n_prompt, n_generated, n_stages;
    double prefill_seconds, decode_seconds;
    char notice[PROTO_MAX_TEXT]; /* what the client should know although all went well; or empty */
};

struct request_events {
    void (*on_started)(void *owner, uint32_t n_prompt, uint64_t seed);
    void (*on_text)(void *owner, const char *text, size_t n_bytes,
                    uint32_t n_tokens);                                /* whole UTF-8 */
    void (*on_done)(void *owner, const struct request_result *result); /* the last, exactly once */
};

/* body: see struct request_spec; copied. Callbacks come later, never from inside. The handle is
 * good until on_done. A seed of 0 in spec asks for a random one. */
enum status node_submit(struct node *node, const struct request_spec *spec, const char *body,
                        size_t body_bytes, const struct request_events *events, void *owner,
                        uint64_t *out_handle) MUST_USE;
void node_cancel(struct node *node, uint64_t handle); /* on_done still comes */

/* ---------------------------------------------------------------- views */

size_t node_members(const struct node *node, struct member_view *out, size_t max);
size_t node_instances(const struct node *node, struct instance_view *out, size_t max);
/* Those that other nodes head, as their cards tell. */
size_t node_instances_elsewhere(const struct node *node, struct instance_view *out, size_t max);
uint16_t node_mesh_port(const struct node *node);
const uint8_t *node_id(const struct node *node);
/* The join text of the cluster key (PROTO_JOIN_TEXT bytes), and whether the key was made just now.
 */
void node_join_text(const struct node *node, char *out, bool *made);

/* Models that somebody in the cluster has. */
struct node_model {
    struct model_card card;
    bool here;
    uint32_t n_nodes; /* that have the file */
};
/* Makes a file known to this node (skein run FILE): opened, checked and hashed on the thread pool,
 * then on_added once, with the name to ask for. */
typedef void node_on_added(void *owner, const struct model_card *card, const struct fault *fault);
enum status node_add_model(struct node *node, const char *path, node_on_added *on_added,
                           void *owner) MUST_USE;
size_t node_models(const struct node *node, struct node_model *out, size_t max);
/* Files of live nodes that cannot be run, and why. */
struct node_refused {
    char node[PROTO_MAX_NAME];
    struct refused_model model;
};
size_t node_refused(const struct node *node, struct node_refused *out, size_t max);
/* The model that a request with this name gets; errors as control_find_model. */
enum status node_find_model(const struct node *node, const char *name,
                            uint8_t out[static PROTO_HASH_BYTES], struct fault *fault) MUST_USE;

/* What would be done for a model; opens the file on the thread pool, then on_plan once (view NULL
 * on failure, info NULL where the file did not open). Where the model runs and the file is on other
 * nodes only, on_plan comes from inside. Errors at once: as control_find_model. */
typedef void node_on_plan(void *owner, const struct control_plan_view *view,
                          const struct model_info *info, const struct fault *fault);
enum status node_plan(struct node *node, const char *model, enum plan_objective objective,
                      node_on_plan *on_plan, void *owner, struct fault *fault) MUST_USE;

/* Nodes of other clusters and unusable interfaces, for `skein peers`. */
struct node_notice {
    char text[PROTO_MAX_TEXT];
};
size_t node_notices(const struct node *node, struct node_notice *out, size_t max);

#endif
