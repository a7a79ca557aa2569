#ifndef SKEIN_NODE_CLUSTER_CONTROL_H
#define SKEIN_NODE_CLUSTER_CONTROL_H

/* The control plane of one node as a pure state machine: membership, instances (as head and as
 * stage), scheduling, requests (as front and as head). control_step(event, now) → actions. No I/O,
 * no clock, no threads, no model: the shell (node_uv) does what the actions say and reports what
 * came of it as events. tests/sim runs whole clusters of these on virtual time.
 *
 * Ownership: pointers in an event belong to the caller, except `message` and `pass`, which pass to
 * control. Pointers in an action belong to the shell once the action is taken out. */
#include "engine/engine.h"
#include "partition/partition.h"
#include "proto/proto.h"

/* A link's number: never reused, 0 is no link. Inbound links are numbered by the shell, below
 * LINK_OUTBOUND; dials by control (ACTION_DIAL), with that bit set. */
#define LINK_OUTBOUND 0x80000000u

/* What a smaller form than the own would make of a model; the shell knows the forms. */
struct control_saving {
    char option[24];    /* "--kv f16" */
    double weights, kv; /* what is left of the bytes of both, 0 to 1 */
};
enum { CONTROL_MAX_SAVINGS = 5 };

/* What control must know of a model to plan and schedule: a copy of model_info's numbers. */
struct control_model {
    uint8_t hash[PROTO_HASH_BYTES];
    char name[PROTO_MAX_MODEL_NAME];
    uint32_t n_layers, n_vocab, n_ctx_train;
    uint32_t n_embd; /* floats of a row between stages: model_info.row_floats */
    uint64_t *layer_bytes, *layer_active_bytes, *layer_kv_bytes; /* [n_layers], owned */
    double *layer_flops;
    uint64_t embed_bytes, head_bytes, head_active_bytes, scratch_bytes;
    double head_flops;
    uint32_t n_savings;
    struct control_saving savings[CONTROL_MAX_SAVINGS];
    struct sample_params sampling; /* what the makers recommend, of the settings named here: */
    unsigned sampling_settings;
};
void control_model_free(struct control_model **model);

/* A pass on its way through this node. Head only: tokens and samples. */
struct sample_job {
    uint32_t row;      /* of the pass */
    uint64_t sequence; /* control's key of the sequence; names the detokenizer in the shell */
    struct sample_params params;
    uint64_t position;          /* length of the sequence */
    uint32_t n_history;         /* the last tokens of it, as many as the penalties look back on */
    uint32_t *history;          /* owned by the pass, as is what params.biases points to */
    struct sample_bias *biases; /* [PROTO_MAX_BIASES] */
    uint32_t token;             /* the outcome, filled by the shell */
};
struct control_pass {
    struct message *
        message; /* MESSAGE_PASS with rows; payload = hidden [n_rows, n_embd], room for it allocated
                  * by whoever makes the message; at the head's first stage it is not filled yet */
    uint32_t *tokens; /* [n_rows]: embed these first; NULL on later stages */
    uint32_t n_samples;
    struct sample_job *samples;
    uint32_t *history; /* what the jobs' pointers lead into */
    struct sample_bias *biases;
};
void control_pass_free(struct control_pass **pass);

/* ---------------------------------------------------------------- events */

enum control_event_kind {
    EVENT_TICK,        /* time passed; also sent at the time of ACTION_WAKE */
    EVENT_SELF,        /* the own card changed (speed measured, models found) */
    EVENT_SEEN,        /* discovery saw a node */
    EVENT_SEED,        /* --peer: an address without an id; tried again for ever, with back-off */
    EVENT_LINK_OPEN,   /* an authenticated link is up */
    EVENT_LINK_CLOSED, /* any link that was opened, or a dial that failed */
    EVENT_MESSAGE,     /* from an open link */
    EVENT_REQUEST,     /* from this node's API: this node is the front */
    EVENT_CANCEL,      /* of such a request: the client went away */
    EVENT_MODEL,       /* outcome of ACTION_OPEN_MODEL */
    EVENT_SHARD,       /* outcome of ACTION_LOAD_SHARD */
    EVENT_FREED,       /* ACTION_FREE_SHARD is done: the memory is really there again */
    EVENT_PROMPT,      /* outcome of ACTION_TOKENIZE */
    EVENT_STAGE_DONE,  /* outcome of ACTION_RUN_STAGE */
    EVENT_HEAD_DONE,   /* outcome of ACTION_RUN_HEAD */
    EVENT_HEARD        /* part of a message came over a link: a large one on a slow network */
};

struct control_address { /* numeric "ip:port" */
    char text[64];
};

struct sampled {
    uint64_t sequence;
    uint32_t token;
    bool ends;        /* an end token; its text is empty */
    const char *text; /* UTF-8 that became whole with this token; may be empty */
    size_t text_bytes;
};

struct control_event {
    enum control_event_kind kind;
    union {
        struct node_card self;
        struct {
            uint8_t node_id[PROTO_ID_BYTES];
            uint32_t n_addresses;
            struct control_address addresses[8];
        } seen;
        struct control_address seed;
        struct {
            uint32_t link;
            uint8_t node_id[PROTO_ID_BYTES];
            bool outbound;
            struct control_address remote; /* as dialled, or the peer's address */
        } link_open;
        struct {
            uint32_t link;      /* as given by ACTION_DIAL for outbound ones */
            enum status status; /* AUTH: other cluster key */
            char text[PROTO_MAX_TEXT];
        } link_closed;
        struct {
            uint32_t link;
            struct message *message;
        } message;
        struct {
            uint64_t handle; /* the shell's name for it, unique */
            struct request_spec spec;
            const char *body;
            size_t body_bytes;
        } request;
        uint64_t cancel; /* handle */
        uint32_t heard;  /* link */
        struct {
            uint8_t hash[PROTO_HASH_BYTES]; /* as asked */
            struct control_model *model;    /* passes to control; NULL on failure */
            struct fault fault;
        } model;
        struct {
            struct instance_ref instance;
            struct fault fault; /* status OK: loaded */
        } shard;
        struct instance_ref freed;
        struct {
            uint64_t sequence;
            uint32_t n_tokens;
            const uint32_t *tokens; /* borrowed */
            struct fault fault;
        } prompt;
        struct {
            struct control_pass *pass;
            struct fault fault;
        } stage_done;
        struct {
            struct control_pass *pass;
            uint32_t n_sampled;
            const struct sampled *sampled; /* borrowed */
            struct fault fault;
        } head_done;
    };
};

/* ---------------------------------------------------------------- actions */

enum control_action_kind {
    ACTION_DIAL,       /* connect; reports LINK_OPEN or LINK_CLOSED with this link id */
    ACTION_CLOSE_LINK, /* LINK_CLOSED is still reported */
    ACTION_SEND,       /* message on link; frees it */
    ACTION_OPEN_MODEL, /* map and check a model that the own card lists → EVENT_MODEL */
    ACTION_LOAD_SHARD, /* → EVENT_SHARD */
    ACTION_FREE_SHARD, /* after passes under way → EVENT_FREED, always, exactly once */
    ACTION_TOKENIZE, /* template + tokenizer + a detokenizer kept by `sequence` → EVENT_PROMPT */
    ACTION_FREE_SEQUENCE, /* the detokenizer of `sequence` */
    ACTION_RUN_STAGE, /* clears, embed if tokens, own layers → EVENT_STAGE_DONE. In order of asking
                         per instance. */
    ACTION_RUN_HEAD,  /* norm, logits, sample → EVENT_HEAD_DONE */
    ACTION_STARTED,   /* to the API: prompt taken, n_prompt known */
    ACTION_TEXT,      /* to the API */
    ACTION_DONE,      /* to the API: the last word on a request, always exactly once */
    ACTION_NOTICE,    /* something a person should know: say it once */
    ACTION_CARD,      /* the announced card changed (free memory): tell discovery */
    ACTION_WAKE       /* send EVENT_TICK at wake_us at the latest */
};

struct control_action {
    enum control_action_kind kind;
    union {
        struct {
            uint32_t link;
            struct control_address address;
        } dial;
        uint32_t close_link;
        struct {
            uint32_t link;
            struct message *message;
        } send;
        struct {
            uint8_t hash[PROTO_HASH_BYTES];
        } open_model;
        struct {
            struct instance_ref instance;
            uint8_t hash[PROTO_HASH_BYTES];
            struct shard_spec spec; /* n_threads, engine and lock are left to the shell */
        } load_shard;
        struct instance_ref free_shard;
        struct {
            uint64_t sequence;
            uint8_t hash[PROTO_HASH_BYTES];
            enum request_kind kind;
            char *body; /* owned by the shell, NUL-terminated, body_bytes long */
            size_t body_bytes;
        } tokenize;
        uint64_t free_sequence;
        struct {
            struct instance_ref instance;
            struct control_pass *pass;
        } run; /* RUN_STAGE, RUN_HEAD */
        struct {
            uint64_t handle;
            uint32_t n_prompt;
            uint64_t seed;
        } started;
        struct {
            uint64_t handle;
            uint32_t n_tokens;
            uint8_t *payload; /* owned: n_tokens u32 ids, then text */
            size_t payload_bytes;
        } text;
        struct {
            uint64_t handle;
            struct message_done done;
        } done;
        char notice[PROTO_MAX_TEXT];
        uint64_t wake_us;
    };
};

/* Actions in order. Take each out and carry it out before the next step. */
struct control_actions {
    struct control_action *items;
    size_t n, capacity;
};
void control_actions_free(struct control_actions *actions); /* with what the rest still owns */

/* ---------------------------------------------------------------- the machine */

struct control_options {
    uint8_t self_id[PROTO_ID_BYTES];
    struct node_card card; /* to begin with */
    uint64_t seed;         /* for instance numbers, request seeds, back-off jitter */
    uint32_t n_ctx_tokens; /* wanted context of an instance; capped by the model and by memory */
    uint32_t n_slots;      /* sequences at once */
    uint32_t max_rows;     /* row budget of a pass */
    uint32_t max_queue;    /* requests waiting; past it BUSY */
    enum plan_objective objective;
    struct model_form form; /* of the instances that this node heads */
    uint64_t idle_close_us; /* an instance without work for so long is closed; 0: ten minutes */
};

struct control;
enum status control_new(const struct control_options *options, uint64_t now_us,
                        struct control **out) MUST_USE;
void control_free(struct control **control);
/* One event. Never blocks; total over all inputs: whatever a peer sends is answered, ignored or
 * closes its link. NO_MEMORY leaves control consistent. */
enum status control_step(struct control *control, struct control_event *event, uint64_t now_us,
                         struct control_actions *actions) MUST_USE;

/* ---------------------------------------------------------------- views (for API, CLI and tests)
 */

enum member_state { MEMBER_SELF, MEMBER_DIALLING, MEMBER_ALIVE, MEMBER_LOST, MEMBER_REFUSED };
struct member_view {
    uint8_t node_id[PROTO_ID_BYTES];
    enum member_state state;
    struct node_card card;
    char address[64];
    uint64_t rtt_us;           /* smoothed; 0: unknown */
    uint64_t seen_us;          /* when last heard */
    char note[PROTO_MAX_TEXT]; /* why refused or lost */
};
size_t control_members(const struct control *control, struct member_view *out, size_t max);

enum instance_state {
    INSTANCE_OPENING,
    INSTANCE_PREPARING,
    INSTANCE_LOADING,
    INSTANCE_PROBING,
    INSTANCE_READY,
    INSTANCE_CLOSED
};
struct instance_view {
    struct instance_ref ref;
    enum instance_state state;
    char model[PROTO_MAX_MODEL_NAME];
    struct plan plan;
    char stage_names[PROTO_MAX_STAGES][PROTO_MAX_NAME];
    uint32_t n_ctx_tokens, n_running, n_waiting;
    struct model_form form;      /* where this node is the head */
    char head[PROTO_MAX_NAME];   /* the name of the node that heads it */
    bool elsewhere;              /* another one */
    char notice[PROTO_MAX_TEXT]; /* why the context is shorter than asked for; or empty */
};
size_t control_instances(const struct control *control, struct instance_view *out, size_t max);
/* Those that other nodes head and are READY, as far as cards tell: neither speeds nor counts. */
size_t control_instances_elsewhere(const struct control *control, struct instance_view *out,
                                   size_t max);

/* What would be done for a model now (skein plan). model is filled by the shell from the file. */
struct control_plan_view {
    struct plan plan;
    uint32_t n_nodes;
    char names[PLAN_MAX_NODES][PROTO_MAX_NAME];
    uint32_t n_ctx_tokens;
    bool running;                /* an instance runs or is on the way: its plan, not a new one */
    char head[PROTO_MAX_NAME];   /* who heads it then */
    bool elsewhere;              /* another node */
    struct model_form form;      /* of a new one, or of an own one */
    char notice[PROTO_MAX_TEXT]; /* why the context is shorter than asked for; or empty */
    uint32_t n_closing;          /* idle instances that would be closed for it */
    struct {
        char model[PROTO_MAX_MODEL_NAME], head[PROTO_MAX_NAME];
        uint64_t bytes;
    } closing[16];
};
/* The running instance of the model, here or headed by another node; false: there is none. */
bool control_plan_running(const struct control *control,
                          const uint8_t hash[static PROTO_HASH_BYTES],
                          struct control_plan_view *out);
enum status control_plan(struct control *control, const struct control_model *model,
                         enum plan_objective objective, struct control_plan_view *out,
                         struct fault *fault) MUST_USE;

/* A model by what the user wrote: exact name, name in any case, unique prefix, hash of 8 digits or
 * more, `tiny`; among all models of live nodes. NOT_FOUND (the sentence lists what there is and
 * where), INVALID where several match. */
enum status control_find_model(struct control *control, const char *name,
                               uint8_t out[static PROTO_HASH_BYTES], struct fault *fault) MUST_USE;

/* For invariants in tests: what the node believes is reserved. */
uint64_t control_reserved_bytes(const struct control *control);
size_t control_open_requests(const struct control *control);

#endif
