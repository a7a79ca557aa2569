#ifndef SKEIN_ENGINE_SHARD_SHARD_H
#define SKEIN_ENGINE_SHARD_SHARD_H

/* Inside the engine: a shard, and what one pass through a layer works on. */
#include "engine/model/model.h"
#include "engine/shard/kv.h"
#include "engine/shard/rope.h"

enum expert_matrix { EXPERT_MATRIX_GATE, EXPERT_MATRIX_UP, EXPERT_MATRIX_DOWN, EXPERT_MATRICES };

enum head_matrix { HEAD_MATRIX_K_B, HEAD_MATRIX_V_B, HEAD_MATRICES };

enum { TILE_KV_HEADS = 8 }; /* that a thread takes over the pages together, at most */

struct layer_weights { /* NULL where the layer has none */
    struct weight *matrix[SLOT_COUNT];
    float *vector[SLOT_COUNT]; /* norms and other tensors that are not multiplied as matrices */
    float *bias[SLOT_COUNT];
    struct weight **experts[EXPERT_MATRICES]; /* [n_experts] each */
    struct weight **heads[HEAD_MATRICES];     /* [n_heads] each */
};

/* A row of x at an expert; so many of them, of several experts, go in one step at least. */
enum { EXPERT_SLOTS = 128 };
struct expert_slot {
    uint32_t row, expert;
    float weight;
};

/* Work memory for max_rows rows, one allocation. */
struct scratch {
    void *memory;
    float *normed;                  /* [max_rows, n_embd] */
    float *qkv;                     /* [max_rows, ld_qkv]: queries, keys, values */
    float *attended;                /* [max_rows, ld_attended] */
    float *branch;                  /* [max_rows, n_embd]: what is added to the residual */
    float *ff;                      /* [scratch_max_rows, ld_ff]: gate, up */
    float *latent;                  /* [max_rows, ld_latent]: queries over the latent, per head */
    float *latent_out;              /* [max_rows, ld_latent] */
    float *q_rank;                  /* [max_rows, ld_q_rank] */
    struct attend_tile *tiles;      /* [n_threads, TILE_KV_HEADS] */
    uint32_t *tile_rows;            /* [max_rows + 1]: the first row of each tile, and the end */
    float *angles[MODEL_MAX_ROPES]; /* [max_rows, rope.n_values] */
    float *router;                  /* [max_rows, n_experts] */
    uint32_t *chosen;               /* [max_rows, n_experts_used], ascending */
    float *chosen_weights;          /* [max_rows, n_experts_used] */
    uint32_t *chosen_slots;         /* [max_rows, n_experts_used] */
    struct expert_slot *slots;      /* [scratch_max_rows] */
    float *expert_in;               /* [scratch_max_rows, n_embd] */
    float *expert_out;              /* [scratch_max_rows, n_embd] */
    float *input_row;               /* [n_layers, n_layer_input]: of one token */
    size_t ld_qkv, ld_attended, ld_ff, ld_latent, ld_q_rank;
};

struct shard {
    const struct model *model;
    struct shard_spec spec;
    struct compute *compute;
    const struct vector_ops *ops;
    bool releases;                /* load.c: copied parts of the file leave the page cache */
    struct layer_weights *layers; /* [layer_end - layer_begin] */
    struct weight *token_embd;
    struct weight *separate_head; /* NULL where the head is the embedding */
    const struct weight *embed;   /* NULL: this shard does not embed */
    const struct weight *output;  /* NULL: this shard has no head */
    float *model_vector[MODEL_SLOT_COUNT];
    float *model_bias[MODEL_SLOT_COUNT];
    struct weight *input_embd, *input_projection; /* inputs of layers, where this shard embeds */
    struct weight *positions;                     /* learned positions, where layer 0 is here */
    struct rope_table rope[MODEL_MAX_ROPES];
    struct kv *kv;
    struct scratch scratch;
};

/* Rows on their way through one layer. */
struct pass {
    struct shard *shard;
    const struct arch *arch;
    const struct hparams *hparams;
    const struct shard_row *rows;
    size_t n_rows;
    float *hidden;  /* [n_rows, n_embd] */
    float *extra;   /* [n_rows, n_extra] behind them */
    uint32_t layer; /* index within the shard */
    const struct layer_shape *shape;
    const struct layer_weights *weights;
};

/* block.c: one layer, in place. */
void block_run(struct pass *pass);
/* attention.c: from normed input [n_rows, n_embd] to branch [n_rows, n_embd]. */
void attention_run(struct pass *pass, const float *in, float *branch);
/* attend.c: all rows over the pages of their slots. */
void attend(const struct pass *pass, const float *queries, size_t ld_queries, float *out,
            size_t ld_out); /* queries [n_rows, n_heads, head_k], out [n_rows, n_heads, head_v] */
void heat_query(const struct pass *pass, float *query, size_t n, uint32_t pos);
/* input.c: the inputs of all layers from embedded rows, and a layer's use of its own. */
void layer_inputs_make(struct shard *shard, const uint32_t *tokens, size_t n_rows,
                       const float *hidden, float *extra);
void layer_input_run(struct pass *pass, float *branch);
/* latent.c, conv.c, delta.c: the same for the other kinds of layers. */
void latent_run(struct pass *pass, const float *in, float *branch);
void conv_run(struct pass *pass, const float *in, float *branch);
void delta_run(struct pass *pass, const float *in, float *branch);
/* conv.c: one channel, one step. state [n_taps - 1] with a stride, moved on by x. */
float convolve(float *state, size_t ld_state, const float *taps, uint32_t n_taps, float x);
/* ffn.c, moe.c: the same for a dense feed-forward and for one of experts. */
void ffn_run(struct pass *pass, const float *in, float *branch);
void ffn_run_shared(struct pass *pass, const float *in, float *branch); /* the shared expert */
void moe_run(struct pass *pass, const float *in, float *branch);

/* norm.c: one row; bias may be NULL, weight too. out may be x. */
void norm_row(const struct shard *shard, float *out, const float *x, const float *weight,
              const float *bias, size_t n);
/* ffn.c: gate = activation(gate) · up. */
void activate_gated(const struct shard *shard, float *gate, const float *up, size_t n);

/* scratch.c: sizes and places. */
uint64_t scratch_bytes(const struct hparams *hparams, const struct shard_spec *spec);
enum status scratch_new(const struct hparams *hparams, const struct shard_spec *spec,
                        struct scratch *out) MUST_USE;
void scratch_free(struct scratch *scratch);
/* Most columns and rows of a product of this shard. */
size_t scratch_max_cols(const struct hparams *hparams, const struct shard_spec *spec);
size_t scratch_max_rows(const struct hparams *hparams, const struct shard_spec *spec);

/* lock.c: weights and KV stay in memory. Errors: PERMISSION, NO_MEMORY. */
enum status shard_lock(struct shard *shard, struct fault *fault) MUST_USE;
void shard_unlock(struct shard *shard);

/* load.c: weights of the shard from the model's tensors. */
enum status shard_load(struct shard *shard) MUST_USE;
void shard_unload(struct shard *shard);
/* Of its weights: in memory of its own, and used in the file. */
void shard_weight_bytes(const struct model *model, const struct shard_spec *spec, uint64_t *own,
                        uint64_t *mapped);

#endif
