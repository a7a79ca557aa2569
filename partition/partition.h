#ifndef SKEIN_PARTITION_PARTITION_H
#define SKEIN_PARTITION_PARTITION_H

/* The planner: which node runs which layers. Pure functions over plain structs; no I/O, no clock,
 * no globals. All times are seconds, all sizes bytes. */
#include "proto/base/base.h"

enum { PLAN_MAX_NODES = 16, PLAN_MAX_LAYERS = 1024 };

enum plan_objective {
    PLAN_LATENCY,   /* one stream: the sum of all stages and hops per token */
    PLAN_THROUGHPUT /* many streams: the slowest stage */
};

/* What a node offers. */
struct plan_node {
    char name[64];
    uint64_t memory_bytes;           /* what skein may use there now, shards of others subtracted */
    double decode_seconds_per_byte;  /* 1 / measured read bandwidth of weights */
    double prefill_seconds_per_flop; /* 1 / measured multiply-add rate */
    double pass_seconds;             /* fixed cost of one pass on the node, kernels not counted */
    double hop_seconds;              /* fixed cost of one message to the next node of the ring */
    double hop_seconds_per_byte;     /* 1 / bandwidth of its links */
    bool can_run;                    /* false: its engine cannot run this model */
    char why_not[160];               /* the sentence for can_run == false */
};

/* What a model asks for. Arrays are [n_layers]; borrowed for the call. */
struct plan_model {
    uint32_t n_layers;
    uint32_t n_embd;
    const uint64_t *layer_bytes;        /* weights */
    const uint64_t *layer_active_bytes; /* weights read per decoded token (MoE: only the experts) */
    const uint64_t *layer_kv_bytes;     /* KV cache per token */
    const double *layer_flops;          /* per row */
    uint64_t embed_bytes;               /* resident on the head's node */
    uint64_t head_bytes;                /* output head, resident there too; 0 where tied */
    uint64_t head_active_bytes;         /* read per decoded token by the output head */
    double head_flops;
    uint64_t scratch_bytes; /* per node, beside weights and KV */
};

struct plan_request {
    enum plan_objective objective;
    uint32_t n_ctx_tokens;  /* KV budget: tokens in all, over all sequences at once */
    uint32_t n_prompt_rows; /* for the predicted time to first token */
    int32_t head;           /* index of the node that must be the head (stage 0), or -1 for any */
};

struct plan_stage {
    uint32_t node; /* index into the nodes given */
    uint32_t layer_begin;
    uint32_t layer_end;
    uint64_t need_bytes; /* weights + KV + scratch, embedding and head included on stage 0 */
    double decode_seconds;
};

struct plan {
    uint32_t n_stages; /* stage 0 is the head; a head may hold no layer when it alone cannot */
    struct plan_stage stages[PLAN_MAX_NODES];
    double latency_seconds;       /* one token of one stream, every hop of the ring included */
    double slowest_stage_seconds; /* per token */
    double tokens_per_second;     /* of one stream: 1 / latency_seconds */
    double first_token_seconds;   /* for n_prompt_rows */
    uint32_t n_left_out;
    struct {
        uint32_t node;
        char why[200];
    } left_out[PLAN_MAX_NODES];
};

/* The best plan over every ordered choice of at most PLAN_MAX_NODES nodes. Exact: no plan over
 * these nodes has a better objective (ties: fewer stages, then the nodes' order as given). Adding a
 * node never makes the objective worse. Errors: NO_ROOM when the model does not fit on all nodes
 * together, with the numbers (needed, offered, what to change) in the sentence; INVALID for inputs
 * out of range; NOT_FOUND for no usable node. */
enum status plan_make(const struct plan_node *nodes, uint32_t n_nodes,
                      const struct plan_model *model, const struct plan_request *request,
                      struct plan *out, struct fault *fault) MUST_USE;

/* Checks that a plan covers all layers once, in order, within memory; for tests and for plans that
 * come from elsewhere. */
enum status plan_check(const struct plan *plan, const struct plan_node *nodes, uint32_t n_nodes,
                       const struct plan_model *model, const struct plan_request *request,
                       struct fault *fault) MUST_USE;

/* Fills latency_seconds … first_token_seconds of a plan whose stages are set. */
void plan_predict(struct plan *plan, const struct plan_node *nodes, const struct plan_model *model,
                  const struct plan_request *request);

#endif
