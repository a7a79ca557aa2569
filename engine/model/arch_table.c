/* The architectures, one row each.
 *
 * A row is written from the model's published definition: which tensors its layers have, which
 * norm, rotation, activation and residual form. Sizes and constants are not here; they are in the
 * file. Sets of tensors that many rows share have names, so that a row shows what is special about
 * it. */
#include "engine/model/arch_table.h"

#include <stdio.h>
#include <string.h>

#define ATTN_SPLIT (SLOT(ATTN_Q) | SLOT(ATTN_K) | SLOT(ATTN_V) | SLOT(ATTN_OUT))
#define ATTN_FUSED (SLOT(ATTN_QKV) | SLOT(ATTN_OUT))
#define QKV        (SLOT(ATTN_Q) | SLOT(ATTN_K) | SLOT(ATTN_V))
#define QK_NORMS   (SLOT(ATTN_Q_NORM) | SLOT(ATTN_K_NORM))
#define PRE_NORMS  (SLOT(ATTN_NORM) | SLOT(FFN_NORM))
#define POST_NORMS (SLOT(POST_ATTN_NORM) | SLOT(POST_FFN_NORM))
#define FFN_GATED  (SLOT(FFN_GATE) | SLOT(FFN_UP) | SLOT(FFN_DOWN))
#define FFN_PLAIN  (SLOT(FFN_UP) | SLOT(FFN_DOWN))
#define EXPERTS    (SLOT(ROUTER) | SLOT(EXPERT_GATE) | SLOT(EXPERT_UP) | SLOT(EXPERT_DOWN))
#define SHARED     (SLOT(SHARED_GATE) | SLOT(SHARED_UP) | SLOT(SHARED_DOWN))
#define MODEL_BASE (MODEL_SLOT(TOKEN_EMBD) | MODEL_SLOT(OUTPUT_NORM))

static const struct arch arches[] = {
    {
        .name = "llama",
        .rope = ROPE_PAIRS,
        .layer = ATTN_SPLIT | PRE_NORMS,
        .dense = FFN_GATED,
        .experts = EXPERTS,
        .optional_biases = ATTN_SPLIT | FFN_GATED,
        .model = MODEL_BASE,
        .model_optional = MODEL_SLOT(ROPE_FREQS),
    },
    {
        .name = "mistral3",
        .rope = ROPE_PAIRS,
        .layer = ATTN_SPLIT | PRE_NORMS,
        .dense = FFN_GATED,
        .experts = EXPERTS,
        .optional_biases = ATTN_SPLIT | FFN_GATED,
        .model = MODEL_BASE,
        .model_optional = MODEL_SLOT(ROPE_FREQS),
    },
    {
        .name = "qwen2",
        .rope = ROPE_HALVES,
        .layer = ATTN_SPLIT | PRE_NORMS,
        .dense = FFN_GATED,
        .biases = QKV,
        .model = MODEL_BASE,
    },
    {
        .name = "qwen2moe",
        .rope = ROPE_HALVES,
        .layer = ATTN_SPLIT | PRE_NORMS,
        .dense = FFN_GATED,
        .experts = EXPERTS | SHARED | SLOT(SHARED_ROUTER),
        .biases = QKV,
        .model = MODEL_BASE,
        .expert_sum = EXPERT_SUM_FREE,
    },
    {
        .name = "qwen3",
        .rope = ROPE_HALVES,
        .layer = ATTN_SPLIT | PRE_NORMS | QK_NORMS,
        .dense = FFN_GATED,
        .model = MODEL_BASE,
    },
    {
        .name = "qwen3moe",
        .rope = ROPE_HALVES,
        .layer = ATTN_SPLIT | PRE_NORMS | QK_NORMS,
        .dense = FFN_GATED,
        .experts = EXPERTS,
        .model = MODEL_BASE,
    },
    {
        .name = "gemma",
        .rope = ROPE_HALVES,
        .activation = ACTIVATION_GELU,
        .layer = ATTN_SPLIT | PRE_NORMS,
        .dense = FFN_GATED,
        .model = MODEL_BASE,
        .embedding_times_root = true,
    },
    {
        .name = "gemma2",
        .rope = ROPE_HALVES,
        .activation = ACTIVATION_GELU,
        .layer = ATTN_SPLIT | PRE_NORMS | POST_NORMS,
        .dense = FFN_GATED,
        .model = MODEL_BASE,
        .window_period = 2,
        .embedding_times_root = true,
        .width_scale_layers = 46,
    },
    {
        .name = "gemma3",
        .rope = ROPE_HALVES,
        .activation = ACTIVATION_GELU,
        .layer = ATTN_SPLIT | PRE_NORMS | POST_NORMS | QK_NORMS,
        .dense = FFN_GATED,
        .model = MODEL_BASE,
        .window_period = 6,
        .window_rope_base = 10000,
        .embedding_times_root = true,
        .width_scale_layers = 62,
    },
    {
        .name = "phi3",
        .rope = ROPE_HALVES,
        .layer = ATTN_FUSED | PRE_NORMS,
        .dense = FFN_PLAIN,
        .model = MODEL_BASE,
        .model_optional = MODEL_SLOT(ROPE_LONG) | MODEL_SLOT(ROPE_SHORT),
        .gate_in_up = true,
    },
    {
        .name = "gpt-oss",
        .rope = ROPE_HALVES,
        .activation = ACTIVATION_SWIGLU_CLAMPED,
        .layer = ATTN_SPLIT | SLOT(ATTN_NORM) | SLOT(POST_ATTN_NORM) | SLOT(ATTN_SINKS),
        .experts = EXPERTS,
        .biases = ATTN_SPLIT | EXPERTS,
        .model = MODEL_BASE,
        .post_attn_norm_is_ffns = true,
        .window_period = 2,
    },
    {
        .name = "gpt2",
        .norm = NORM_LAYER,
        .activation = ACTIVATION_GELU,
        .layer = ATTN_FUSED | PRE_NORMS,
        .dense = FFN_PLAIN,
        .biases = ATTN_FUSED | PRE_NORMS | FFN_PLAIN,
        .model = MODEL_BASE | MODEL_SLOT(POSITION_EMBD),
        .model_biases = MODEL_SLOT(OUTPUT_NORM),
    },
    {
        .name = "glm4",
        .rope = ROPE_PAIRS,
        .layer = ATTN_SPLIT | PRE_NORMS | POST_NORMS,
        .dense = FFN_PLAIN,
        .optional_biases = QKV,
        .model = MODEL_BASE,
        .gate_in_up = true,
    },
    {
        .name = "glm4moe",
        .rope = ROPE_HALVES,
        .layer = ATTN_SPLIT | SLOT(ATTN_NORM) | SLOT(POST_ATTN_NORM) | QK_NORMS,
        .dense = FFN_GATED,
        .experts = EXPERTS | SHARED | SLOT(ROUTER_PICK),
        .optional = QK_NORMS | SHARED,
        .biases = SLOT(ROUTER_PICK),
        .optional_biases = QKV,
        .model = MODEL_BASE,
        .post_attn_norm_is_ffns = true,
        .expert_gate = EXPERT_GATE_SIGMOID,
        .expert_sum = EXPERT_SUM_BY_KEY,
    },
    {
        .name = "granite",
        .rope = ROPE_PAIRS,
        .layer = ATTN_SPLIT | PRE_NORMS,
        .dense = FFN_GATED,
        .optional_biases = ATTN_SPLIT | FFN_GATED,
        .model = MODEL_BASE,
        .model_optional = MODEL_SLOT(ROPE_FREQS),
        .logit_scale = LOGITS_OVER_SCALE,
    },
    {
        .name = "granitemoe",
        .rope = ROPE_PAIRS,
        .layer = ATTN_SPLIT | PRE_NORMS,
        .dense = FFN_GATED,
        .experts = EXPERTS | SHARED,
        .optional = SHARED,
        .model = MODEL_BASE,
        .logit_scale = LOGITS_OVER_SCALE,
    },
    {
        .name = "smollm3",
        .rope = ROPE_PAIRS,
        .layer = ATTN_SPLIT | PRE_NORMS,
        .dense = FFN_GATED,
        .model = MODEL_BASE,
        .no_rope_period = 4,
    },
    {
        .name = "olmo",
        .norm = NORM_LAYER,
        .norms_without_weights = true,
        .rope = ROPE_PAIRS,
        .layer = ATTN_SPLIT,
        .dense = FFN_GATED,
        .model = MODEL_SLOT(TOKEN_EMBD),
    },
    {
        .name = "olmo2",
        .rope = ROPE_HALVES,
        .layer = ATTN_SPLIT | POST_NORMS | QK_NORMS,
        .dense = FFN_GATED,
        .model = MODEL_BASE,
        .window_period = 4,
        .window_rope_plain = true,
    },
    {
        .name = "olmoe",
        .rope = ROPE_HALVES,
        .layer = ATTN_SPLIT | PRE_NORMS | QK_NORMS,
        .experts = EXPERTS,
        .model = MODEL_BASE,
        .expert_sum = EXPERT_SUM_FREE,
    },
    {
        .name = "starcoder",
        .norm = NORM_LAYER,
        .activation = ACTIVATION_GELU,
        .layer = ATTN_FUSED | PRE_NORMS,
        .dense = FFN_PLAIN,
        .biases = ATTN_FUSED | PRE_NORMS | FFN_PLAIN,
        .model = MODEL_BASE | MODEL_SLOT(POSITION_EMBD),
        .model_biases = MODEL_SLOT(OUTPUT_NORM),
    },
    {
        .name = "starcoder2",
        .norm = NORM_LAYER,
        .rope = ROPE_HALVES,
        .activation = ACTIVATION_GELU,
        .layer = ATTN_SPLIT | PRE_NORMS,
        .dense = FFN_PLAIN,
        .biases = PRE_NORMS | FFN_PLAIN,
        .optional_biases = ATTN_SPLIT,
        .model = MODEL_BASE,
        .model_biases = MODEL_SLOT(OUTPUT_NORM),
    },
    {
        .name = "phi2",
        .norm = NORM_LAYER,
        .rope = ROPE_HALVES,
        .activation = ACTIVATION_GELU,
        .residual = RESIDUAL_PARALLEL,
        .layer = ATTN_FUSED | SLOT(ATTN_NORM),
        .dense = FFN_PLAIN,
        .biases = ATTN_FUSED | SLOT(ATTN_NORM) | FFN_PLAIN,
        .model = MODEL_BASE,
        .model_biases = MODEL_SLOT(OUTPUT_NORM) | MODEL_SLOT(OUTPUT),
    },
    {
        .name = "stablelm",
        .norm = NORM_LAYER,
        .rope = ROPE_HALVES,
        .residual = RESIDUAL_BY_FFN_NORM,
        .layer = ATTN_SPLIT | PRE_NORMS | QK_NORMS,
        .dense = FFN_GATED,
        .optional = SLOT(FFN_NORM) | QK_NORMS,
        .biases = SLOT(ATTN_NORM),
        .optional_biases = QKV | SLOT(FFN_NORM),
        .model = MODEL_BASE,
        .model_biases = MODEL_SLOT(OUTPUT_NORM),
    },
    {
        .name = "gptneox",
        .norm = NORM_LAYER,
        .rope = ROPE_HALVES,
        .activation = ACTIVATION_GELU,
        .residual = RESIDUAL_BY_KEY,
        .layer = ATTN_FUSED | PRE_NORMS,
        .dense = FFN_PLAIN,
        .biases = ATTN_FUSED | PRE_NORMS | FFN_PLAIN,
        .model = MODEL_BASE,
        .model_biases = MODEL_SLOT(OUTPUT_NORM),
    },
    {
        .name = "falcon",
        .norm = NORM_LAYER,
        .rope = ROPE_HALVES,
        .activation = ACTIVATION_GELU,
        .residual = RESIDUAL_PARALLEL,
        .layer = ATTN_FUSED | SLOT(ATTN_NORM) | SLOT(ATTN_NORM_2),
        .dense = FFN_PLAIN,
        .optional = SLOT(ATTN_NORM_2),
        .biases = SLOT(ATTN_NORM),
        .optional_biases = SLOT(ATTN_NORM_2),
        .model = MODEL_BASE,
        .model_biases = MODEL_SLOT(OUTPUT_NORM),
    },
    {
        .name = "command-r",
        .norm = NORM_LAYER,
        .rope = ROPE_PAIRS,
        .residual = RESIDUAL_PARALLEL,
        .layer = ATTN_SPLIT | SLOT(ATTN_NORM) | QK_NORMS,
        .dense = FFN_GATED,
        .optional = QK_NORMS,
        .optional_biases = QKV,
        .model = MODEL_BASE,
        .logit_scale = LOGITS_TIMES_SCALE,
    },
    {
        .name = "cohere2",
        .norm = NORM_LAYER,
        .rope = ROPE_PAIRS,
        .residual = RESIDUAL_PARALLEL,
        .layer = ATTN_SPLIT | SLOT(ATTN_NORM),
        .dense = FFN_GATED,
        .optional_biases = QKV,
        .model = MODEL_BASE,
        .window_period = 4,
        .rope_in_window_only = true,
        .logit_scale = LOGITS_TIMES_SCALE,
    },
    {
        .name = "internlm2",
        .rope = ROPE_PAIRS,
        .layer = ATTN_SPLIT | PRE_NORMS,
        .dense = FFN_GATED,
        .optional_biases = ATTN_SPLIT,
        .model = MODEL_BASE,
    },
    {
        .name = "exaone",
        .rope = ROPE_HALVES,
        .layer = ATTN_SPLIT | PRE_NORMS,
        .dense = FFN_GATED,
        .model = MODEL_BASE,
        .model_optional = MODEL_SLOT(ROPE_FREQS),
    },
    {
        .name = "exaone4",
        .rope = ROPE_HALVES,
        .layer = ATTN_SPLIT | POST_NORMS | QK_NORMS,
        .dense = FFN_GATED,
        .model = MODEL_BASE,
        .model_optional = MODEL_SLOT(ROPE_FREQS),
        .window_period = 4,
        .rope_in_window_only = true,
    },
    {
        .name = "ernie4_5",
        .rope = ROPE_PAIRS,
        .layer = ATTN_SPLIT | PRE_NORMS,
        .dense = FFN_GATED,
        .optional_biases = ATTN_SPLIT,
        .model = MODEL_BASE,
    },
    {
        .name = "ernie4_5-moe",
        .rope = ROPE_PAIRS,
        .layer = ATTN_SPLIT | PRE_NORMS,
        .dense = FFN_GATED,
        .experts = EXPERTS | SHARED | SLOT(ROUTER_PICK),
        .optional = SHARED,
        .optional_biases = ATTN_SPLIT | SLOT(ROUTER_PICK),
        .model = MODEL_BASE,
    },
    {
        .name = "hunyuan-dense",
        .rope = ROPE_HALVES,
        .layer = ATTN_SPLIT | PRE_NORMS | QK_NORMS,
        .dense = FFN_GATED,
        .model = MODEL_BASE,
        .qk_norm_after_rope = true,
    },
    {
        .name = "hunyuan-moe",
        .rope = ROPE_HALVES,
        .layer = ATTN_SPLIT | PRE_NORMS | QK_NORMS,
        .experts = EXPERTS | SHARED,
        .model = MODEL_BASE,
        .qk_norm_after_rope = true,
    },
    {
        .name = "seed_oss",
        .rope = ROPE_HALVES,
        .layer = ATTN_SPLIT | SLOT(ATTN_NORM) | SLOT(POST_ATTN_NORM),
        .dense = FFN_GATED,
        .optional_biases = QKV,
        .model = MODEL_BASE,
        .post_attn_norm_is_ffns = true,
    },
    {
        .name = "nemotron",
        .norm = NORM_LAYER,
        .rope = ROPE_HALVES,
        .activation = ACTIVATION_RELU_SQUARED,
        .layer = ATTN_SPLIT | PRE_NORMS,
        .dense = FFN_PLAIN,
        .biases = PRE_NORMS,
        .optional_biases = ATTN_SPLIT | FFN_PLAIN,
        .model = MODEL_BASE,
        .model_biases = MODEL_SLOT(OUTPUT_NORM),
    },
    {
        .name = "arcee",
        .rope = ROPE_PAIRS,
        .activation = ACTIVATION_RELU_SQUARED,
        .layer = ATTN_SPLIT | PRE_NORMS,
        .dense = FFN_PLAIN,
        .model = MODEL_BASE,
        .model_optional = MODEL_SLOT(ROPE_FREQS),
    },
    {
        .name = "minicpm",
        .rope = ROPE_PAIRS,
        .layer = ATTN_SPLIT | PRE_NORMS,
        .dense = FFN_GATED,
        .optional_biases = ATTN_SPLIT | FFN_GATED,
        .model = MODEL_BASE,
        .model_optional = MODEL_SLOT(ROPE_FREQS) | MODEL_SLOT(ROPE_LONG) | MODEL_SLOT(ROPE_SHORT),
        .logit_scale = LOGITS_OVER_SCALE,
    },
    {
        .name = "minimax-m2",
        .rope = ROPE_HALVES,
        .layer = ATTN_SPLIT | PRE_NORMS | QK_NORMS,
        .experts = EXPERTS | SLOT(ROUTER_PICK),
        .biases = SLOT(ROUTER_PICK),
        .model = MODEL_BASE,
        .expert_gate = EXPERT_GATE_SIGMOID,
    },
    {
        .name = "bloom",
        .norm = NORM_LAYER,
        .activation = ACTIVATION_GELU,
        .layer = ATTN_FUSED | PRE_NORMS,
        .dense = FFN_PLAIN,
        .biases = ATTN_FUSED | PRE_NORMS | FFN_PLAIN,
        .model = MODEL_BASE | MODEL_SLOT(TOKEN_EMBD_NORM),
        .model_biases = MODEL_SLOT(OUTPUT_NORM) | MODEL_SLOT(TOKEN_EMBD_NORM),
        .alibi = true,
        .alibi_bias = 8,
    },
    {
        .name = "mpt",
        .norm = NORM_LAYER,
        .activation = ACTIVATION_GELU,
        .layer = ATTN_FUSED | PRE_NORMS,
        .dense = FFN_PLAIN,
        .optional_biases = ATTN_FUSED | PRE_NORMS | FFN_PLAIN,
        .model = MODEL_BASE,
        .alibi = true,
        .alibi_bias = 0,
    },
};

const struct arch *arch_at(size_t i)
{
    return i < COUNT_OF(arches) ? &arches[i] : NULL;
}

const struct arch *arch_find(struct gguf_text name)
{
    for (size_t i = 0; i < COUNT_OF(arches); i++) {
        if (strlen(arches[i].name) == name.n_bytes &&
            memcmp(arches[i].name, name.data, name.n_bytes) == 0)
            return &arches[i];
    }
    return NULL;
}

const char *arch_names(char *out, size_t out_size)
{
    size_t len = 0;

    out[0] = '\0';
    for (size_t i = 0; i < COUNT_OF(arches) && len < out_size; i++) {
        int n = snprintf(out + len, out_size - len, "%s%s", i ? ", " : "", arches[i].name);

        len += n > 0 ? (size_t)n : 0;
    }
    return out;
}
