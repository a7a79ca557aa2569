#ifndef SKEIN_TESTS_SIM_H
#define SKEIN_TESTS_SIM_H

/* A virtual cluster: several controls, a network between them, fake compute, virtual time and one
 * seeded generator. The same seed gives the same history, event for event. */
#include <stdio.h>

#include "node/cluster/control.h"

enum {
    SIM_MAX_NODES = 8,
    SIM_MAX_WIRES = 4096,
    SIM_MAX_REQUESTS = 256,
    SIM_MAX_SHARDS = 64,
    SIM_MAX_MODELS = 3,
    SIM_MAX_TEXT = 4096,
    SIM_LAYERS = 8,
    SIM_SLOTS = 4,
    SIM_CTX = 256,
    SIM_EMBD = 4, /* 16 bytes: the 64-bit state of a row and a check */
    SIM_VOCAB = 61
};

#define SIM_SECOND 1000000ull

struct sim_model {
    uint8_t hash[PROTO_HASH_BYTES];
    char name[32];
    uint32_t n_layers;
    uint64_t layer_bytes;
};

/* A shard in a fake shell: per layer and slot the running state of the sequence. */
struct sim_shard {
    struct instance_ref ref;
    struct shard_spec spec;
    const struct sim_model *model;
    bool loaded, freed, gone; /* gone: its memory too */
    uint64_t busy_until_us, bytes;
    uint32_t n_kv[64];
    uint64_t chain[64][SIM_LAYERS]; /* after n_kv positions */
    struct sim_shard *next;
};

struct sim_request {
    int node;
    uint32_t incarnation;
    uint64_t handle, begun_us;
    const struct sim_model *model;
    struct request_spec spec;
    char body[600];
    bool must_succeed, cancelled, started, done, lost; /* lost: its front crashed */
    uint64_t seed;
    struct message_done end;
    char text[SIM_MAX_TEXT];
    size_t text_bytes;
    uint32_t n_tokens;
};

struct sim_node {
    char name[16], address[32];
    uint8_t id[PROTO_ID_BYTES];
    bool alive, foreign, stepping;
    bool hangs; /* layers that are run now never come back; their threads end after 500 s */
    uint32_t incarnation;
    uint64_t memory_bytes, wake_us;
    uint32_t models; /* bit per model */
    struct control *control;
    struct control_actions actions;
    struct sim_shard *shards;
    uint32_t last_inbound, n_texts;
    double speed; /* of its compute: factor on delays */
};

/* One direction of a connection: what was sent and has not arrived, in order. */
enum sim_parcel_kind { PARCEL_OPEN, PARCEL_MESSAGE, PARCEL_END };
struct sim_parcel {
    uint64_t due_us;
    enum sim_parcel_kind kind;
    struct message *message;
    struct sim_parcel *next;
};

struct sim_wire {
    int node[2]; /* [0] dialled */
    uint32_t incarnation[2];
    uint32_t link[2];
    bool open[2];                           /* the control there knows it as open */
    bool gone[2];                           /* the control there was told that it is closed */
    bool silent;                            /* the other end died without a word */
    bool refused;                           /* the other end holds another cluster key */
    struct sim_parcel *first[2], **last[2]; /* towards node[i] */
    uint64_t due_us[2];
};

struct sim_options {
    uint64_t seed;
    int n_nodes, n_models;
    uint64_t delay_us; /* of a message, at most */
    double dial_fails, load_fails, stage_fails;
    double memory_fails; /* chance that one allocation of a step of a control fails */
    bool slow_loads;
    uint64_t idle_close_us; /* 0: 12 s */
    bool trace;
    FILE *trace_to;
};

struct sim;

struct sim *sim_new(const struct sim_options *options);
void sim_free(struct sim *sim);
uint64_t sim_now(const struct sim *sim);
uint64_t sim_random(struct sim *sim);
uint64_t sim_below(struct sim *sim, uint64_t n);
bool sim_chance(struct sim *sim, double p);
struct sim_node *sim_node(struct sim *sim, int i);
int sim_n_nodes(const struct sim *sim);
const struct sim_model *sim_model(const struct sim *sim, int i);
/* Runs all that happens up to then. False: an invariant broke (see sim_fault). */
bool sim_run_until(struct sim *sim, uint64_t time_us);
const char *sim_fault(const struct sim *sim);
void sim_fail(struct sim *sim, const char *format, ...) PRINTF_LIKE(2, 3);
void sim_trace(struct sim *sim, int node, const char *format, ...) PRINTF_LIKE(3, 4);

void sim_start(struct sim *sim, int node);
void sim_crash(struct sim *sim, int node, bool silently);
void sim_see(struct sim *sim, int node, int other); /* discovery at node finds other */
void sim_see_all(struct sim *sim);
void sim_seed_at(struct sim *sim, int node, const char *address);
void sim_cut(struct sim *sim, int a, int b, bool cut);
void sim_cut_link(struct sim *sim, int a, int b); /* closes what is there, at both ends */
void sim_heal(struct sim *sim);                   /* no cuts, no more random failures */
/* NULL: too many. */
struct sim_request *sim_ask(struct sim *sim, int node, int model, const char *body,
                            const struct request_spec *spec);
void sim_cancel(struct sim *sim, struct sim_request *request);
uint32_t sim_n_requests(const struct sim *sim);
struct sim_request *sim_request(struct sim *sim, uint32_t i);
void sim_hostile(struct sim *sim); /* a random open link carries a random message */

/* What must be true once all is quiet; false and sim_fault otherwise. */
bool sim_check_members(struct sim *sim);
bool sim_check_requests(struct sim *sim);
bool sim_check_empty(struct sim *sim); /* nothing reserved, no shard, no text state */

/* ---------------------------------------------------------------- inside */

void sim_event(struct sim *sim, int node, struct control_event *event);
/* A result of the shell for a node, later; dropped if the node has been restarted by then. */
void sim_later(struct sim *sim, uint64_t in_us, int node, struct control_event *event);
/* net */
void sim_net_dial(struct sim *sim, int node, uint32_t link, const char *address);
void sim_net_send(struct sim *sim, int node, uint32_t link, struct message *message);
void sim_net_close(struct sim *sim, int node, uint32_t link);
void sim_net_crash(struct sim *sim, int node, bool silently);
void sim_net_pump(struct sim *sim, int wire, int end);
void sim_net_free(struct sim *sim);
void sim_pump_at(struct sim *sim, uint64_t at_us, int wire, int end);
bool sim_is_cut(const struct sim *sim, int a, int b);
/* shell */
void sim_shell_act(struct sim *sim, int node, struct control_action *action);
void sim_shell_free(struct sim *sim, int node);
void sim_shell_freed(struct sim *sim, int node, const struct instance_ref *ref);
void sim_shell_event_free(struct control_event *event);
/* truth */
uint64_t sim_mix(uint64_t a, uint64_t b);
uint32_t sim_token_of(uint64_t state, uint64_t seed, uint64_t position);
const char *sim_text_of(uint32_t token);
uint32_t sim_prompt_tokens(const char *body, uint32_t *out, uint32_t max);
/* The whole text and end of a request, from the model's definition alone. */
size_t sim_truth(const struct sim_request *request, char *out, size_t size, enum request_end *end,
                 uint32_t *n_tokens, uint32_t n_ctx);
const struct sim_options *sim_options_of(const struct sim *sim);
struct sim_wire *sim_wires(struct sim *sim, int **n);
bool sim_faults_on(const struct sim *sim);

#endif
