#ifndef SKEIN_NODE_CLUSTER_INNER_H
#define SKEIN_NODE_CLUSTER_INNER_H

/* Private to node/cluster: the parts of one control and what they may ask of each other.
 *
 * Two rules keep the parts apart. Handlers never free: they set states and flags, `settle` acts on
 * the flags after every event until nothing is left to do, and `sweep` frees at the very end of the
 * step. And nothing is bound to a member but to a link: when a link goes, all that went over it is
 * lost, whether or not the same node is reached again over another one. */
#include "node/cluster/control.h"
#include "node/flow/scheduler.h"
#include "node/flow/stream.h"

#define SECOND_US 1000000ull
#define NEVER_US  UINT64_MAX

enum {
    MAX_MEMBERS = 64,
    MAX_SEEDS = 32,
    MAX_LINKS = 256,
    MAX_ADDRESSES = 8,
    MAX_STAGES_HERE = 32,
    MAX_LEAVING = 64,     /* live stages and instances, and shards that are ending, together */
    MAX_DIALS = 16,       /* at once */
    MAX_REQUESTS = 1024,  /* of this node's API at once */
    MAX_SEQUENCES = 2048, /* at this head at once */
    MAX_CTX_TOKENS = 1 << 24
};

/* ---------------------------------------------------------------- links and members */

/* Tries the addresses of one node, or of a seed, in turn. */
struct dialler {
    uint32_t n_addresses, at, n_dials;
    uint32_t n_tries; /* since it was last reached */
    struct control_address addresses[MAX_ADDRESSES];
    uint64_t next_us, backoff_us;
    bool refused;    /* in this round */
    bool backed_off; /* all addresses were tried in vain, at least once */
    bool proven;     /* addresses[0] led to the right node once: it is not pushed out */
};

enum link_state { LINK_DIALLING, LINK_GREETING, LINK_UP, LINK_CLOSING, LINK_GONE };

struct mesh_link {
    uint32_t id;
    unsigned state;
    bool outbound, doomed;
    char why[PROTO_MAX_TEXT]; /* of doomed */
    struct control_address address;
    struct dialler *dialler; /* whose dial it is, until it is UP or has failed */
    struct member *member;   /* of an open link; for a dial: whom we hope to find, or NULL */
    struct seed *seed;
    uint64_t since_us, heard_us, ping_us;
};

struct member {
    uint8_t id[PROTO_ID_BYTES];
    unsigned state;
    struct node_card card; /* the last one heard */
    struct dialler dialler;
    struct mesh_link *link; /* the UP one; NULL unless ALIVE */
    uint64_t rtt_us, seen_us, lost_us;
    bool met; /* a link of its own once proved who it is; before, it is hearsay */
    char note[PROTO_MAX_TEXT];
};

struct seed {
    struct dialler dialler;
    bool bound, refused, self;
    bool told;                  /* that it does not answer */
    uint8_t id[PROTO_ID_BYTES]; /* who was found there */
    char note[PROTO_MAX_TEXT];
};

/* ---------------------------------------------------------------- requests */

/* Where a prompt came from: over a link, or from this node's own API (link NULL). */
struct origin {
    struct mesh_link *link;
    uint64_t request; /* unique at the front */
};

enum front_state { FRONT_SUBMITTED, FRONT_RUNNING, FRONT_DONE };

/* The front's journal of one request. */
struct front {
    uint64_t handle, number;
    unsigned state;
    bool local, moved_on;
    uint8_t hash[PROTO_HASH_BYTES]; /* of the model */
    char *body;                     /* until the head has accepted it */
    size_t body_bytes;
    struct mesh_link *head; /* NULL when local */
    char head_name[PROTO_MAX_NAME];
    uint64_t deadline_us; /* for ACCEPTED */
    struct request_spec spec;
    uint64_t seed;
    uint32_t *tokens; /* prompt, then what was emitted */
    uint32_t n_prompt, n_tokens, capacity;
};

enum work_state { WORK_QUEUED, WORK_TOKENIZING, WORK_TOKENIZED, WORK_RUNNING, WORK_DONE };

/* The head's side of one request: a sequence with its origin. */
struct work {
    struct sequence sequence;
    unsigned state;
    struct origin origin;
    struct instance *instance;
    struct request_spec spec;
    struct sample_bias biases[PROTO_MAX_BIASES]; /* of the sequence's params */
    char *body;                                  /* until it is tokenized */
    size_t body_bytes;
    struct stream stream;
    bool has_text_state; /* the shell keeps a detokenizer for it */
    uint64_t admitted_us, first_us;
    uint32_t n_generated;
};

/* ---------------------------------------------------------------- instances and stages */

struct pass_slot {   /* a pass on its way round the ring */
    uint64_t number; /* 0: free */
    uint32_t n_rows;
    uint64_t sent_us;
    struct control_pass *pass; /* NULL while the shell has it */
};

struct instance_stage {
    uint8_t node_id[PROTO_ID_BYTES];
    char name[PROTO_MAX_NAME];
    struct mesh_link *link; /* NULL for the head itself */
    bool answered;          /* the current question */
};

struct refusal { /* what a node said in an earlier round of planning */
    uint8_t node_id[PROTO_ID_BYTES];
    bool excluded;
    uint64_t memory_free_bytes;
    char why[160];
};

struct instance {
    struct instance_ref ref;
    unsigned state;
    bool failed; /* settle closes it */
    struct fault fault;
    uint8_t hash[PROTO_HASH_BYTES];
    char name[PROTO_MAX_MODEL_NAME];
    struct control_model *model;
    struct plan plan;
    uint32_t n_nodes; /* that were planned over: the plan's node indices mean these names */
    char node_names[PLAN_MAX_NODES][PROTO_MAX_NAME];
    uint32_t n_stages;
    struct instance_stage stages[PROTO_MAX_STAGES];
    uint32_t n_ctx_tokens, n_kv_tokens, max_rows, n_slots;
    uint64_t reserved_bytes, deadline_us, idle_us;
    uint32_t n_rounds, n_refusals;
    struct refusal refusals[PLAN_MAX_NODES];
    bool loading_here; /* ACTION_LOAD_SHARD was given */
    uint64_t plan_us;  /* PREPARING: plan (again) at this time; NEVER_US: answers are awaited */
    uint64_t room_since_us, room_asked_us; /* room.c; 0: it does not wait */
    bool restart; /* a node was lost on the way to READY: settle plans with who is left */
    char why[PROTO_MAX_TEXT]; /* of restart */
    struct model_form form;
    char notice[PROTO_MAX_TEXT]; /* about the context; told with the first answer */
    bool notice_told;
    uint64_t slowest_row_us; /* of the passes so far */
    struct scheduler *scheduler;
    struct pass_slot flights[PROTO_MAX_STAGES];
    uint64_t n_passes;
    struct control_pass *spare[PROTO_MAX_STAGES]; /* with message and payload, for the next ones */
    uint32_t n_spare;
};

enum stage_state { STAGE_WAITING, STAGE_RESERVED, STAGE_LOADING, STAGE_READY, STAGE_CLOSED };

struct stage {
    struct message_prepare prepare;
    unsigned state;
    struct mesh_link *head, *previous, *next; /* head: also previous of stage 1, next of the last */
    uint64_t deadline_us;
    bool counted; /* its memory; before, it waits for what ending shards give back */
    bool shard_asked;
    bool broken; /* a pass is lost: those behind it must not run */
};

struct leaving { /* a shard that ends, and holds its memory until it has ended */
    struct instance_ref ref;
    uint64_t bytes;
    bool asked;
};

/* ---------------------------------------------------------------- the whole */

struct control {
    struct control_options options; /* its card is the shell's latest */
    struct node_card card;          /* as others see it: free memory and instances filled in */
    uint64_t now_us, wake_us, random;
    struct control_actions pending;
    bool short_of_memory, again;

    uint32_t n_links, n_members, n_seeds;
    struct mesh_link *links[MAX_LINKS];
    struct member *members[MAX_MEMBERS];
    struct seed *seeds[MAX_SEEDS];
    uint32_t last_dial;
    bool card_dirty;
    uint64_t card_due_us, card_idle_due_us;

    uint32_t n_fronts, n_works, n_instances, n_stages;
    struct front *fronts[MAX_REQUESTS];
    struct work *works[MAX_SEQUENCES];
    struct instance *instances[PROTO_MAX_INSTANCES];
    struct stage *stages[MAX_STAGES_HERE];
    uint32_t n_leaving;
    struct leaving leaving[MAX_LEAVING];
    uint64_t last_request, last_sequence;
};

/* control.c */
uint64_t control_random(struct control *c);
bool id_equal(const uint8_t a[static PROTO_ID_BYTES], const uint8_t b[static PROTO_ID_BYTES]);
bool hash_equal(const uint8_t a[static PROTO_HASH_BYTES], const uint8_t b[static PROTO_HASH_BYTES]);
bool ref_equal(const struct instance_ref *a, const struct instance_ref *b); /* epoch too */
void text_set(char *out, size_t size, const char *format, ...) PRINTF_LIKE(3, 4);
bool card_has(const struct node_card *card, const uint8_t hash[static PROTO_HASH_BYTES]);

/* actions.c */
bool actions_room(struct control *c); /* grows the list ahead of an event */
bool actions_deliver(struct control *c, struct control_actions *out);
/* A slot is always there unless memory is short twice in a row; then the action is lost,
 * control_step says NO_MEMORY, and NULL comes back. */
struct control_action *action_add(struct control *c, enum control_action_kind kind);
void action_free(struct control_action *action);
/* Frees the pass and says false where the action was lost. */
bool act_pass(struct control *c, enum control_action_kind kind, const struct instance_ref *ref,
              struct control_pass *pass) MUST_USE;
bool act_free_shard(struct control *c, const struct instance_ref *ref) MUST_USE;
void act_notice(struct control *c, const char *format, ...) PRINTF_LIKE(2, 3);

/* memory.c: the books */
uint64_t memory_free(const struct control *c);
uint64_t memory_leaving(const struct control *c);
/* Whether the end of one stage or instance more could be written down. */
bool memory_can_begin(const struct control *c);
void memory_leave(struct control *c, const struct instance_ref *ref, uint64_t bytes);
bool memory_is_leaving(struct control *c, const struct instance_ref *ref);
void memory_freed(struct control *c, const struct instance_ref *ref);
void memory_settle(struct control *c);
void memory_holdings(const struct control *c, struct node_card *card); /* into the own card */
bool same_instance(const struct instance_ref *a, const struct instance_ref *b); /* any epoch */
uint64_t holding_bytes(const struct node_card *card, const struct instance_ref *ref);

/* room.c */
/* NO_ROOM was found: waits, asks, or fails the instance. */
void room_wait(struct control *c, struct instance *instance, const struct fault *why);
void room_close_idle(struct control *c, struct mesh_link *link, const struct message_close_idle *m);
void room_idle_closed(struct control *c, struct mesh_link *link,
                      const struct message_outcome *outcome);

/* check.c: bounds of every field of a message from a peer; strings are ended by force. */
enum status message_check(struct message *message) MUST_USE;
enum status card_check(struct node_card *card) MUST_USE;
enum status spec_check(struct request_spec *spec, struct fault *fault) MUST_USE;

/* mesh.c */
void mesh_opened(struct control *c, const struct control_event *event);
void mesh_closed(struct control *c, const struct control_event *event);
void mesh_message(struct control *c, struct mesh_link *link, struct message *message);
struct mesh_link *mesh_find(struct control *c, uint32_t id);
void mesh_heard(struct control *c, struct mesh_link *link); /* link may be NULL */
struct mesh_link *mesh_dial(struct control *c, const struct control_address *address);
void mesh_fail(struct mesh_link *link, const char *format, ...) PRINTF_LIKE(2, 3);
/* Takes the message in every case; NULL (no memory for it) or no slot dooms the link. */
void mesh_send(struct control *c, struct mesh_link *link, struct message *message);
bool mesh_is_up(const struct mesh_link *link);
const char *mesh_name(const struct mesh_link *link); /* of the node at its end */
void mesh_settle(struct control *c);
void mesh_sweep(struct control *c);
uint64_t mesh_wake(const struct control *c);

/* dialler.c */
#define STAGGER_US     (SECOND_US / 4) /* between two dials of one dialler */
#define BACKOFF_MIN_US (SECOND_US / 4)
bool dialler_add(struct dialler *d, const char *text); /* false: known */
void dialler_prove(struct dialler *d, const char *text);
void dialler_reset(struct dialler *d);
void dialler_failed(struct control *c, struct dialler *d);
bool dialler_due(const struct control *c, const struct dialler *d);
uint64_t dialler_wake(const struct dialler *d);
uint64_t jittered(struct control *c, uint64_t us);

/* members.c */
struct member *member_find(struct control *c, const uint8_t id[static PROTO_ID_BYTES]);
struct member *member_met(struct control *c, const uint8_t id[static PROTO_ID_BYTES]); /* proved */
void member_seen(struct control *c, const uint8_t id[static PROTO_ID_BYTES], uint32_t n,
                 const struct control_address *addresses);
void member_seed(struct control *c, const struct control_address *address);
void member_alive(struct control *c, struct member *member, struct mesh_link *link);
void member_lost(struct control *c, struct member *member, const char *why);
void member_peers(struct control *c, const struct message *message);
void member_address(const struct member *m, const struct mesh_link *link, char *out, size_t size);
void dial_ended(struct control *c, struct mesh_link *link, enum status status, const char *why);
void members_settle(struct control *c);
void members_sweep(struct control *c);
uint64_t members_wake(const struct control *c);
void card_changed(struct control *c);
void card_idle_changed(struct control *c);
void card_ready(struct control *c);

/* models.c */
/* The hash behind a name, or NOT_FOUND / INVALID with what there is. */
enum status model_resolve(struct control *c, const char *name, bool here_only,
                          uint8_t hash[static PROTO_HASH_BYTES], struct fault *fault) MUST_USE;
const char *model_name_of(struct control *c, const uint8_t hash[static PROTO_HASH_BYTES]);

/* front.c */
void front_request(struct control *c, const struct control_event *event);
void front_cancel(struct control *c, uint64_t handle);
/* From the head, local (link NULL) or not. front_tokens takes the payload. */
void front_accepted(struct control *c, struct mesh_link *link,
                    const struct message_accepted *accepted, const uint8_t *payload);
void front_tokens(struct control *c, struct mesh_link *link, const struct message_tokens *tokens,
                  uint8_t *payload, size_t payload_bytes);
void front_done(struct control *c, struct mesh_link *link, const struct message_done *done);
void fronts_link_lost(struct control *c, struct mesh_link *link);
void fronts_settle(struct control *c);
void fronts_sweep(struct control *c);
void front_free(struct front **front);
uint64_t fronts_wake(const struct control *c);

/* work.c */
void work_submit(struct control *c, struct origin origin, const struct request_spec *spec,
                 const char *body, size_t body_bytes);
void work_cancel(struct control *c, struct origin origin);
void work_prompt(struct control *c, const struct control_event *event);
void work_sampled(struct control *c, struct instance *instance, const struct sampled *sampled);
/* Ends all work of an instance that failed or closed. */
void works_fail(struct control *c, struct instance *instance, const struct fault *fault);
void works_link_lost(struct control *c, struct mesh_link *link);
void works_settle(struct control *c);
void works_sweep(struct control *c);
void work_free(struct work **work);
uint32_t works_of(const struct control *c, const struct instance *instance, uint32_t *n_waiting);

/* instance.c */
struct instance *instance_for(struct control *c, const uint8_t hash[static PROTO_HASH_BYTES],
                              const char *name, struct fault *fault);
void instance_fail(struct instance *instance, enum status status, const char *format, ...)
    PRINTF_LIKE(3, 4);
void instance_model(struct control *c, const struct control_event *event);
bool instance_shard(struct control *c, const struct control_event *event); /* false: not ours */
void instance_outcome(struct control *c, struct mesh_link *link, const struct message *message);
void instance_probed(struct control *c, struct instance *instance);
void instances_link_lost(struct control *c, struct mesh_link *link);
void instances_settle(struct control *c);
void instances_sweep(struct control *c);
uint64_t instances_wake(const struct control *c);
void instance_free(struct instance **instance);
bool instance_is_idle(const struct control *c, const struct instance *instance);

/* instance_plan.c */
/* Plans over self and the living with the memory that is free now; fills plan, stages (names,
 * links) and the context of the instance. */
enum status instance_plan(struct control *c, struct instance *instance,
                          struct fault *fault) MUST_USE;
void instance_refused(struct instance *instance, const uint8_t id[static PROTO_ID_BYTES],
                      const struct message_outcome *outcome);

/* ring.c: passes, at the head */
void ring_dispatch(struct control *c, struct instance *instance);
void ring_probe(struct control *c, struct instance *instance);
bool ring_stage_done(struct control *c, struct control_pass *pass, const struct fault *fault);
void ring_head_done(struct control *c, const struct control_event *event);
void ring_pass(struct control *c, struct mesh_link *link, struct message *message);
void ring_clear(struct instance *instance);
/* When the first pass that is away should be back; NEVER_US: none is. */
uint64_t ring_due_us(const struct instance *instance);
void ring_overdue(struct control *c, struct instance *instance);
struct instance *ring_instance(struct control *c, const struct instance_ref *ref);
struct control_pass *pass_new(uint32_t max_rows, uint32_t n_slots, uint32_t n_ctx_tokens);

/* stage.c */
void stage_prepare(struct control *c, struct mesh_link *link,
                   const struct message_prepare *prepare);
void stage_load(struct control *c, struct mesh_link *link, const struct instance_ref *ref);
void stage_release(struct control *c, struct mesh_link *link, const struct instance_ref *ref);
void stage_pass(struct control *c, struct mesh_link *link, struct message *message);
bool stage_shard(struct control *c, const struct control_event *event);
bool stage_done(struct control *c, struct control_pass *pass, const struct fault *fault);
void stages_link_lost(struct control *c, struct mesh_link *link);
void stages_settle(struct control *c);
void stages_sweep(struct control *c);
uint64_t stages_wake(const struct control *c);

#endif
