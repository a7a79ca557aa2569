#ifndef SKEIN_ENGINE_MODEL_ARCH_TABLE_H
#define SKEIN_ENGINE_MODEL_ARCH_TABLE_H

/* What is particular to an architecture, as data. One row says which tensors a layer has and how
 * the block executor (engine/shard/block.c) puts them together; numbers come from the file's
 * metadata (hparams.h). A model that needs a branch on its name needs a new column instead. */
#include "engine/file/gguf.h"

/* Tensors of one layer: identifier, name in the file after "blk.N.", shape with the fastest
 * dimension first (symbols of enum dim). A bias has the shape without its first dimension. */
#define LAYER_SLOTS(X)                                                                             \
    X(ATTN_NORM, "attn_norm", EMBD, ONE, ONE)                                                      \
    X(ATTN_NORM_2, "attn_norm_2", EMBD, ONE, ONE)                                                  \
    X(ATTN_Q, "attn_q", EMBD, Q_PROJECTION, ONE)                                                   \
    X(ATTN_K, "attn_k", EMBD, K, ONE)                                                              \
    X(ATTN_V, "attn_v", EMBD, V, ONE)                                                              \
    X(ATTN_QKV, "attn_qkv", EMBD, QKV, ONE)                                                        \
    X(ATTN_OUT, "attn_output", ATT, EMBD, ONE)                                                     \
    X(ATTN_Q_NORM, "attn_q_norm", Q_NORM, ANY, ONE)                                                \
    X(ATTN_K_NORM, "attn_k_norm", K_NORM, ANY, ONE)                                                \
    X(ATTN_SINKS, "attn_sinks", HEADS, ONE, ONE)                                                   \
    X(POST_ATTN_NORM, "post_attention_norm", EMBD, ONE, ONE)                                       \
    X(FFN_NORM, "ffn_norm", EMBD, ONE, ONE)                                                        \
    X(FFN_GATE, "ffn_gate", EMBD, FF, ONE)                                                         \
    X(FFN_UP, "ffn_up", EMBD, UP, ONE)                                                             \
    X(FFN_DOWN, "ffn_down", FF, EMBD, ONE)                                                         \
    X(POST_FFN_NORM, "post_ffw_norm", EMBD, ONE, ONE)                                              \
    X(ROUTER, "ffn_gate_inp", EMBD, EXPERTS, ONE)                                                  \
    X(ROUTER_PICK, "exp_probs_b", ONE, EXPERTS, ONE)                                               \
    X(EXPERT_GATE, "ffn_gate_exps", EMBD, EXPERT_FF, EXPERTS)                                      \
    X(EXPERT_UP, "ffn_up_exps", EMBD, EXPERT_FF, EXPERTS)                                          \
    X(EXPERT_DOWN, "ffn_down_exps", EXPERT_FF, EMBD, EXPERTS)                                      \
    X(SHARED_ROUTER, "ffn_gate_inp_shexp", EMBD, ONE, ONE)                                         \
    X(SHARED_GATE, "ffn_gate_shexp", EMBD, SHARED_FF, ONE)                                         \
    X(SHARED_UP, "ffn_up_shexp", EMBD, SHARED_FF, ONE)                                             \
    X(SHARED_DOWN, "ffn_down_shexp", SHARED_FF, EMBD, ONE)                                         \
    X(LATENT_Q_A, "attn_q_a", EMBD, Q_RANK, ONE)                                                   \
    X(LATENT_Q_A_NORM, "attn_q_a_norm", Q_RANK, ONE, ONE)                                          \
    X(LATENT_Q_B, "attn_q_b", Q_RANK, Q, ONE)                                                      \
    X(LATENT_KV_A, "attn_kv_a_mqa", EMBD, K, ONE)                                                  \
    X(LATENT_KV_A_NORM, "attn_kv_a_norm", KV_RANK, ONE, ONE)                                       \
    X(LATENT_K_B, "attn_k_b", NOPE, KV_RANK, HEADS)                                                \
    X(LATENT_V_B, "attn_v_b", KV_RANK, HEAD_OUT, HEADS)                                            \
    X(CONV, "shortconv.conv", KERNEL, EMBD, ONE)                                                   \
    X(CONV_IN, "shortconv.in_proj", EMBD, EMBD_3, ONE)                                             \
    X(CONV_OUT, "shortconv.out_proj", EMBD, EMBD, ONE)                                             \
    X(DELTA_GATE, "attn_gate", EMBD, DELTA_V, ONE)                                                 \
    X(DELTA_CONV, "ssm_conv1d", KERNEL, QKV, ONE)                                                  \
    X(DELTA_STEP, "ssm_dt", ONE, DELTA_HEADS, ONE)                                                 \
    X(DELTA_DECAY, "ssm_a", DELTA_HEADS, ONE, ONE)                                                 \
    X(DELTA_BETA_ALPHA, "ssm_ba", EMBD, DELTA_HEADS_2, ONE)                                        \
    X(DELTA_BETA, "ssm_beta", EMBD, DELTA_HEADS, ONE)                                              \
    X(DELTA_ALPHA, "ssm_alpha", EMBD, DELTA_HEADS, ONE)                                            \
    X(DELTA_NORM, "ssm_norm", DELTA_HEAD, ONE, ONE)                                                \
    X(DELTA_OUT, "ssm_out", DELTA_V, EMBD, ONE)                                                    \
    X(INPUT_GATE, "inp_gate", EMBD, LAYER_INPUT, ONE)                                              \
    X(INPUT_OUT, "proj", LAYER_INPUT, EMBD, ONE)                                                   \
    X(INPUT_NORM, "post_norm", EMBD, ONE, ONE)                                                     \
    X(LAYER_SCALE, "layer_output_scale", ONE, ONE, ONE)

enum slot {
#define X(id, name, d0, d1, d2) SLOT_##id,
    LAYER_SLOTS(X)
#undef X
        SLOT_COUNT
};

/* Tensors beside the layers. */
#define MODEL_SLOTS(X)                                                                             \
    X(TOKEN_EMBD, "token_embd", EMBD, VOCAB)                                                       \
    X(TOKEN_EMBD_NORM, "token_embd_norm", EMBD, ONE)                                               \
    X(POSITION_EMBD, "position_embd", EMBD, CONTEXT)                                               \
    X(OUTPUT_NORM, "output_norm", EMBD, ONE)                                                       \
    X(OUTPUT, "output", EMBD, VOCAB)                                                               \
    X(ROPE_FREQS, "rope_freqs", ROPE_PAIRS, ONE)                                                   \
    X(ROPE_LONG, "rope_factors_long", ROPE_PAIRS, ONE)                                             \
    X(ROPE_SHORT, "rope_factors_short", ROPE_PAIRS, ONE)                                           \
    X(INPUT_EMBD, "per_layer_token_embd", LAYER_INPUTS, VOCAB)                                     \
    X(INPUT_PROJECTION, "per_layer_model_proj", EMBD, LAYER_INPUTS)                                \
    X(INPUT_EMBD_NORM, "per_layer_proj_norm", LAYER_INPUT, ONE)

enum model_slot {
#define X(id, name, d0, d1) MODEL_SLOT_##id,
    MODEL_SLOTS(X)
#undef X
        MODEL_SLOT_COUNT
};

/* Symbols of the shapes above; hparams.c gives them numbers, per layer. */
enum dim {
    DIM_ONE,
    DIM_ANY,
    DIM_EMBD,
    DIM_VOCAB,
    DIM_CONTEXT,
    DIM_EMBD_3,
    DIM_Q,            /* heads · length of a query */
    DIM_Q_PROJECTION, /* Q, or 2 Q where queries bring a gate */
    DIM_K,            /* KV heads · key length */
    DIM_V,            /* KV heads · value length */
    DIM_QKV,          /* Q + K + V; of a delta net: 2 keys' heads + values' heads */
    DIM_ATT,          /* heads · output length */
    DIM_Q_RANK,
    DIM_KV_RANK,
    DIM_NOPE, /* the part of a latent layer's query that does not turn */
    DIM_HEAD_OUT,
    DIM_KERNEL, /* taps of a convolution */
    DIM_DELTA_V,
    DIM_DELTA_HEADS,
    DIM_DELTA_HEADS_2,
    DIM_DELTA_HEAD,
    DIM_HEADS,
    DIM_Q_NORM, /* one head, or all of them: the file decides */
    DIM_K_NORM,
    DIM_FF,
    DIM_UP, /* FF, or 2 FF where gate and up are one matrix */
    DIM_EXPERTS,
    DIM_EXPERT_FF,
    DIM_SHARED_FF,
    DIM_LAYER_INPUT,  /* what a token gives to one layer beside its embedding */
    DIM_LAYER_INPUTS, /* to all of them */
    DIM_ROPE_PAIRS
};

#define SLOT(id)       (UINT64_C(1) << SLOT_##id)
#define MODEL_SLOT(id) (1u << MODEL_SLOT_##id)

/* Slots of models that give every layer an input of its own, by the token. */
#define LAYER_INPUT_SLOTS (SLOT(INPUT_GATE) | SLOT(INPUT_OUT) | SLOT(INPUT_NORM))
#define MODEL_INPUT_SLOTS                                                                          \
    (MODEL_SLOT(INPUT_EMBD) | MODEL_SLOT(INPUT_PROJECTION) | MODEL_SLOT(INPUT_EMBD_NORM))

/* Slots that are a bias without a weight. */
#define BIAS_ONLY_SLOTS (SLOT(ROUTER_PICK) | SLOT(DELTA_STEP))
/* Slots whose name in the file has no ".weight". */
#define BARE_SLOTS SLOT(DELTA_DECAY)

enum norm_kind { NORM_RMS, NORM_LAYER };
enum rope_kind {
    ROPE_NONE,
    ROPE_PAIRS, /* dimensions 2i and 2i + 1 turn together */
    ROPE_HALVES /* dimensions i and i + n/2 turn together */
};
enum activation {
    ACTIVATION_SILU,
    ACTIVATION_GELU, /* by tanh */
    ACTIVATION_RELU_SQUARED,
    ACTIVATION_SWIGLU_CLAMPED /* gpt-oss: clamped at 7, sigmoid of 1.702 x, up + 1 */
};
enum residual_kind {
    RESIDUAL_SEQUENTIAL, /* x += attention(norm x); x += ffn(norm x) */
    RESIDUAL_PARALLEL,   /* x += attention(norm x) + ffn(norm x) */
    RESIDUAL_BY_KEY,     /* use_parallel_residual says which */
    RESIDUAL_BY_FFN_NORM /* parallel where the layers have no ffn_norm */
};
/* How a layer mixes tokens. */
enum layer_kind {
    LAYER_ATTENTION,
    LAYER_LATENT, /* attention over a compressed KV (MLA) */
    LAYER_CONV,   /* a short gated convolution */
    LAYER_DELTA   /* linear attention: gated delta net */
};
enum expert_gate { EXPERT_GATE_SOFTMAX = 1, EXPERT_GATE_SIGMOID = 2 };
enum expert_sum {                   /* are the chosen experts' weights divided by their sum? */
                  EXPERT_SUM_ONE,   /* yes */
                  EXPERT_SUM_FREE,  /* no */
                  EXPERT_SUM_BY_KEY /* expert_weights_norm says */
};
enum logit_scale { LOGITS_PLAIN, LOGITS_TIMES_SCALE, LOGITS_OVER_SCALE };

struct arch {
    const char *name; /* general.architecture */
    enum norm_kind norm;
    bool norms_without_weights; /* both norms of a layer, and the last one, are bare */
    enum rope_kind rope;
    enum activation activation;
    enum residual_kind residual;

    /* Tensors, as sets of SLOT(): those of every layer, of a dense feed-forward, of a feed-forward
     * of experts, and those that may be missing. MODEL_SLOT() sets likewise; a missing `output`
     * means that the head is the embedding, in every architecture. */
    enum layer_kind kind;
    uint64_t layer;
    enum layer_kind other_kind; /* of layers without KV heads, or beside full_attention_interval */
    uint64_t other_layer;       /* their tensors, in place of `layer` */
    uint64_t dense;
    uint64_t experts;
    uint64_t optional;
    uint64_t biases;          /* slots that have a bias */
    uint64_t optional_biases; /* slots that may have one */
    uint32_t model;
    uint32_t model_biases;
    uint32_t model_optional;

    bool gate_in_up;             /* ffn_up holds the gate's rows, then its own */
    bool post_attn_norm_is_ffns; /* post_attention_norm stands before the feed-forward */
    bool qk_norm_after_rope;
    uint32_t qk_bare_norm_experts; /* heads that turn are normed without weights, but not in models
                                    * with so many experts; 0: never */
    bool value_bare_norm;          /* values are normed without weights */
    bool query_gate;               /* every query head brings a gate for its output */
    bool final_norm_is_token_embd_norm;
    bool delta_heads_tiled; /* value head h goes with key head h mod n, not h div n */

    /* Positions. Layer il sees a window only where il % window_period < window_period - 1. */
    uint32_t window_period;
    float window_rope_base;   /* of layers with a window, without scaling; 0: as the others */
    bool window_rope_plain;   /* layers with a window have the common base without scaling */
    bool rope_in_window_only; /* layers that see everything have none */
    uint32_t no_rope_period;  /* every n-th layer has none */
    bool alibi;               /* a slope per head instead of rope */
    float alibi_bias;         /* where the file does not give attention.max_alibi_bias */

    uint32_t chunk;    /* layers with rope see the keys of their own chunk of so many tokens */
    float temperature; /* of layers without rope: queries grow with the position */
    float temperature_offset;
    uint32_t temperature_floor;

    /* Scales. */
    bool yarn_in_scores;       /* YaRN's magnitude goes to the scores instead of the angles */
    bool embedding_times_root; /* embeddings are multiplied by the root of their width */
    enum logit_scale logit_scale;
    float attention_scale;       /* where the file gives none; 0: 1 / root of a head's length */
    uint32_t width_scale_layers; /* models with so many layers scale scores by the width per head */

    enum expert_gate expert_gate; /* 0: softmax; expert_gating_func of the file goes before */
    enum expert_sum expert_sum;
    bool expert_weights_first; /* an expert's input is scaled, not its output */
};

/* NULL where the name is not known. */
const struct arch *arch_find(struct gguf_text name);
/* "llama, qwen3": for messages. Returns out. */
const char *arch_names(char *out, size_t out_size);

#endif
