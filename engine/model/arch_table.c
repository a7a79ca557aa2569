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
#define QK_NORMS   (SLOT(ATTN_Q_NORM) | SLOT(ATTN_K_NORM))
#define PRE_NORMS  (SLOT(ATTN_NORM) | SLOT(FFN_NORM))
#define FFN_GATED  (SLOT(FFN_GATE) | SLOT(FFN_UP) | SLOT(FFN_DOWN))
#define EXPERTS    (SLOT(ROUTER) | SLOT(EXPERT_GATE) | SLOT(EXPERT_UP) | SLOT(EXPERT_DOWN))
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
        .expert_weights_sum_to_one = true,
    },
    {
        .name = "qwen3",
        .rope = ROPE_HALVES,
        .layer = ATTN_SPLIT | PRE_NORMS | QK_NORMS,
        .dense = FFN_GATED,
        .model = MODEL_BASE,
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
