#ifndef SKEIN_NODE_NODE_UV_H
#define SKEIN_NODE_NODE_UV_H

/* Inside a node: the one struct that its shell files share, and what they offer one another. */
#include <uv.h>

#include "discovery/discovery.h"
#include "node/flow/stage.h"
#include "node/net/link.h"
#include "node/node.h"
#include "node/state.h"
#include "node/store/store.h"

enum {
    NODE_MAX_NOTICES = 32,
    NODE_DEFAULT_PORT = 8471,
    NODE_SEED_RETRY_MS = 5000,
    NODE_READY_MS = 3000, /* most time that `ready` waits for files to be hashed */
    NODE_FLUSH_MS = 200,
    NODE_MAX_FREED = 128 /* more than control lets end at once */
};

struct node_request { /* a request of this node's API */
    struct node_request *next;
    uint64_t handle;
    struct request_events events;
    void *owner;
};

struct node_sequence { /* the text side of a sequence at the head */
    struct node_sequence *next;
    struct node *node;
    uint64_t sequence;
    uint8_t hash[PROTO_HASH_BYTES]; /* one use of the model is held */
    const struct model *model;
    struct detok *detok;
    bool working; /* the thread pool has it */
    bool freed;   /* not wanted any more; goes when the work is done */
    /* the work: */
    uv_work_t work;
    enum request_kind kind;
    char *body;
    size_t body_bytes;
    struct token_list tokens;
    struct fault fault;
};

struct node_loading { /* a shard that waits for its model to be mapped */
    struct node_loading *next;
    struct node *node;
    struct instance_ref instance;
    uint8_t hash[PROTO_HASH_BYTES];
    struct shard_spec spec;
    bool dropped;
};

struct node_seed {
    struct node *node;
    struct discovery_seed seed;
    uv_getaddrinfo_t lookup;
    uv_timer_t retry;
    bool looking;
    bool told; /* that it does not resolve */
};

struct node_later { /* an event that comes up while actions are being carried out */
    struct node_later *next;
    struct control_event event;
    char *body; /* of EVENT_REQUEST */
};

struct node {
    uv_loop_t *loop;
    struct node_events events;
    struct node_state state;
    enum engine_kind engine;
    uint32_t n_threads;
    uint32_t n_slots, max_rows;
    struct model_form form;
    bool lock;
    struct node_card card;
    struct discovery_card announced;

    struct control *control;
    struct control_actions actions;
    struct node_later *later, **later_tail;
    struct instance_ref freed[NODE_MAX_FREED]; /* EVENT_FREED to come; never lost for memory */
    uint32_t n_freed;
    bool stepping;

    struct listener *listener;
    struct link_keys keys;
    struct link **links;
    size_t n_links, links_capacity;
    uint32_t last_inbound;

    struct discovery *discovery;
    struct node_seed *seeds;
    size_t n_seeds;

    struct store *store;
    struct stages *stages;
    struct node_loading *loading;
    bool opened; /* one use of a model between OPEN_MODEL and LOAD_SHARD */
    uint8_t opened_hash[PROTO_HASH_BYTES];

    struct node_request *requests;
    uint64_t last_handle;
    struct node_sequence *sequences;

    struct node_notice notices[NODE_MAX_NOTICES];
    size_t n_notices;

    uv_timer_t tick;
    uv_timer_t ready_timer;
    uv_async_t wake; /* drains `later` from a clean stack */
    bool ready_told;

    bool closing;
    bool store_closing;
    unsigned n_open; /* parts that still have a close callback to come */
};

/* ---- node_uv.c */
/* Feeds one event to the control plane and carries out what it says. Takes what the event owns. */
void node_step(struct node *node, struct control_event *event);
/* The same, from the loop, with a clean stack. Copies the event. body goes with it, or NULL. */
enum status node_later(struct node *node, const struct control_event *event, char *body) MUST_USE;
uint64_t node_now_us(void);
void node_freed(struct node *node, const struct instance_ref *instance); /* EVENT_FREED, later */
void node_part_closed(struct node *node);                                /* one of n_open */
void node_notice(struct node *node, const char *text);

/* ---- node_actions_uv.c */
void node_act(struct node *node, struct control_action *action);

/* ---- node_links_uv.c */
enum status node_listen(struct node *node, const struct node_options *options,
                        struct fault *fault) MUST_USE;
void node_dial(struct node *node, uint32_t id, const char *address);
struct link *node_link(const struct node *node, uint32_t id);
enum status node_discover(struct node *node, const struct node_options *options,
                          struct fault *fault) MUST_USE;
void node_close_links(struct node *node);
enum status node_seed_all(struct node *node, const struct node_options *options) MUST_USE;

/* ---- node_models_uv.c */
const struct stages_events *node_stages_events(struct node *node, struct stages_events *out);
const struct store_events *node_store_events(struct node *node, struct store_events *out);
void node_open_model(struct node *node, const uint8_t *hash);
void node_load_shard(struct node *node, const struct instance_ref *instance, const uint8_t *hash,
                     const struct shard_spec *spec);
void node_free_shard(struct node *node, const struct instance_ref *instance);
void node_refresh_card(struct node *node); /* models listed anew → EVENT_SELF */
void node_release_opened(struct node *node);
struct control_model *node_control_model(const struct node *node, const struct model *model,
                                         const uint8_t *hash);

/* ---- node_text_uv.c */
void node_tokenize(struct node *node, uint64_t sequence, const uint8_t *hash,
                   enum request_kind kind, char *body, size_t body_bytes);
void node_free_sequence(struct node *node, uint64_t sequence);
struct node_sequence *node_find_sequence(struct node *node, uint64_t sequence);
void node_free_sequences(struct node *node);

/* ---- node_requests_uv.c */
void node_requests_end(struct node *node); /* the node stops: the last word to each */
void node_request_started(struct node *node, uint64_t handle, uint32_t n_prompt, uint64_t seed);
void node_request_text(struct node *node, uint64_t handle, const uint8_t *payload,
                       size_t payload_bytes, uint32_t n_tokens);
void node_request_done(struct node *node, uint64_t handle, const struct message_done *done);

#endif
