#ifndef SKEIN_ENGINE_MODEL_HPARAMS_H
#define SKEIN_ENGINE_MODEL_HPARAMS_H

/* The numbers of a model, read from its metadata and checked. Everything that differs between
 * layers is resolved here, once, into struct layer_shape. */
#include "engine/model/arch_table.h"

enum { /* bounds of what a file may ask for */
       MODEL_MAX_LAYERS = 1024,
       MODEL_MAX_EMBD = 1 << 17,
       MODEL_MAX_HEADS = 1 << 12,
       MODEL_MAX_HEAD_VALUES = 1 << 12, /* key or value length of one head */
       MODEL_MAX_FF = 1 << 20,
       MODEL_MAX_VOCAB = 1 << 24,
       MODEL_MAX_CONTEXT = 1 << 26,
       MODEL_MAX_EXPERTS = 1 << 12,
       MODEL_MAX_LAYER_INPUT = 1 << 14,
       MODEL_MAX_ROPES = 2
};

/* One way of turning positions into angles. */
struct rope_shape {
    uint32_t n_values; /* dimensions of a head that turn; even */
    float base;
    float position_scale; /* 1 / the scaling factor of linear and YaRN scaling */
    bool yarn;            /* fast pairs keep their speed */
    float yarn_beta_fast;
    float yarn_beta_slow;
    float magnitude; /* factor of cosines and sines */
    uint32_t n_ctx_original;
};

struct layer_shape {
    enum layer_kind kind;
    bool experts;  /* feed-forward of experts instead of a dense one */
    bool has_rope; /* rope[rope] applies to q and k */
    uint8_t rope;  /* index into hparams.rope */
    uint32_t n_heads;
    uint32_t n_kv_heads;
    uint32_t head_k; /* floats of one head's key and value, as they are kept */
    uint32_t head_v;
    uint32_t head_q; /* of one head's query and output; the same but in latent layers */
    uint32_t head_out;
    uint32_t q_rank;  /* latent layers: width of the queries' bottleneck, or 0 */
    uint32_t kv_rank; /* and of what is kept: the first of a key's floats, which is its value */
    uint32_t n_ff;    /* width of the dense feed-forward; 0 where there is none */
    uint32_t window;  /* keys at a distance < window are seen; 0: all */
    uint32_t chunk;   /* keys since the last multiple of chunk are seen; 0: all */
    bool temperature;
    bool borrows, lends;   /* its keys and values are those of layer `owner`; others use its own */
    uint32_t owner;        /* of its keys and values: itself, or an earlier layer */
    uint32_t kv_at;        /* where they travel among a row's extra floats */
    uint32_t state_floats; /* of a sequence, whatever its length: convolutions and delta nets */
};

struct hparams {
    uint32_t n_layers, n_embd, n_vocab, n_ctx_train;
    float norm_eps;
    bool parallel; /* attention and feed-forward read the same rows */

    float embedding_scale;
    float residual_scale; /* of what a branch adds */
    float logit_scale;
    float logit_cap; /* logits = cap · tanh(logits / cap); 0: none */

    float attention_scale; /* factor of q · k */
    float attention_cap;   /* as logit_cap, for the scores */
    float qkv_clamp;       /* queries, keys and values are cut at ± this; 0: not */
    float alibi_bias;      /* 0: no ALiBi */
    float temperature;     /* queries grow with the logarithm of the position; 0: not */
    float temperature_offset;
    uint32_t temperature_floor;
    bool qk_bare_norm;
    bool query_gate;
    uint32_t conv_taps;
    uint32_t delta_key_heads, delta_value_heads, delta_head; /* heads are delta_head wide */
    struct rope_shape rope[MODEL_MAX_ROPES];

    /* What a row carries from stage to stage behind its n_embd floats: the inputs of all layers,
     * then keys and values that later layers use. */
    uint32_t n_layer_input; /* floats of one layer's input; 0: there are none */
    uint32_t n_extra;       /* floats in all */

    uint32_t n_experts, n_experts_used, n_expert_ff, n_shared_ff;
    uint32_t n_expert_groups, n_groups_used; /* 0: experts have no groups */
    enum expert_gate expert_gate;
    bool expert_sum_one; /* weights of the chosen are divided by their sum */
    float expert_weight_scale;

    struct layer_shape *layers; /* [n_layers], owned */
};

/* Errors: FORMAT (a key is missing, of another kind, or contradicts another), LIMIT, UNSUPPORTED (a
 * kind of scaling), NO_MEMORY. n_vocab comes from token_embd, or from the vocabulary. */
enum status hparams_read(const struct gguf *gguf, const struct arch *arch, struct hparams *out,
                         struct fault *fault) MUST_USE;
void hparams_free(struct hparams *hparams);

/* The number behind a symbol of a shape. layer may be NULL for symbols of the whole model. */
uint64_t hparams_dim(const struct hparams *hparams, const struct layer_shape *layer, enum dim dim,
                     bool gate_in_up);
/* Channels of a delta net's convolution: keys for queries, keys, values. */
uint32_t delta_channels(const struct hparams *hparams);
/* Floats of one token's keys and values. */
uint32_t layer_key_floats(const struct layer_shape *layer);
uint32_t layer_value_floats(const struct layer_shape *layer); /* 0 where keys are values too */
/* The types that a layer keeps them in where `wanted` is asked for. Q8_0 has blocks of 32: heads of
 * another width are kept in F16, and so are latents if their key or their value is one. */
enum kv_type layer_key_type(const struct layer_shape *layer, enum kv_type wanted);
enum kv_type layer_value_type(const struct layer_shape *layer, enum kv_type wanted);
/* Bytes of n values, and of a token's keys and values in all heads. */
uint64_t kv_row_bytes(enum kv_type type, uint32_t n);
uint64_t layer_kv_bytes(const struct layer_shape *layer, enum kv_type wanted);

#endif
