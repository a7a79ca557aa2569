/* Numbers of a model from its metadata.
 *
 * Keys are "<architecture>.<suffix>". The reader keeps the first thing that went wrong and goes on
 * with harmless values, so that reading looks like a list of what there is and is checked once.
 * Every number has bounds before anything is computed from it; products of bounded numbers fit 64
 * bits. Files give some numbers per layer (an array) and some once; both forms are read the same
 * way. */
#include "engine/model/hparams.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct keys {
    const struct gguf *gguf;
    const struct arch *arch;
    struct fault *fault;
    enum status status;
    char key[128];
};

static const char *key_of(struct keys *keys, const char *suffix)
{
    snprintf(keys->key, sizeof keys->key, "%s.%s", keys->arch->name, suffix);
    return keys->key;
}

static void keys_fail(struct keys *keys, enum status status, const char *key, const char *words)
{
    if (!keys->status)
        keys->status = fault_set(keys->fault, status, "%s %s", key, words);
}

static uint32_t key_u32_at(struct keys *keys, const char *suffix, uint32_t i, uint32_t fallback,
                           uint32_t min, uint32_t max)
{
    const char *key = key_of(keys, suffix);
    const struct gguf_value *value = gguf_find(keys->gguf, key);
    uint32_t v = fallback;

    if (value && !gguf_value_u32(value, value->is_array ? i : 0, &v)) {
        keys_fail(keys, STATUS_FORMAT, key, "is not a whole number for every layer");
        return min;
    }
    if (!value && fallback == UINT32_MAX) {
        keys_fail(keys, STATUS_FORMAT, key, "is missing");
        return min;
    }
    if (v < min || v > max) {
        keys_fail(keys, v > max ? STATUS_LIMIT : STATUS_FORMAT, key, "is out of range");
        return min;
    }
    return v;
}

enum { REQUIRED = -1 };

static uint32_t key_u32(struct keys *keys, const char *suffix, int64_t fallback, uint32_t min,
                        uint32_t max)
{
    return key_u32_at(keys, suffix, 0, fallback < 0 ? UINT32_MAX : (uint32_t)fallback, min, max);
}

static bool key_is_there(struct keys *keys, const char *suffix)
{
    return gguf_find(keys->gguf, key_of(keys, suffix)) != NULL;
}

/* A finite number with min <= |x| <= max. */
static float key_f32(struct keys *keys, const char *suffix, float fallback, float min, float max)
{
    const char *key = key_of(keys, suffix);
    float v = fallback;

    if (gguf_find(keys->gguf, key) && !gguf_get_f32(keys->gguf, key, &v)) {
        keys_fail(keys, STATUS_FORMAT, key, "is not a number");
        return fallback;
    }
    if (!isfinite(v) || fabsf(v) < min || fabsf(v) > max) {
        keys_fail(keys, STATUS_FORMAT, key, "is out of range");
        return fallback;
    }
    return v;
}

static void read_vocab(struct keys *keys, struct hparams *hp)
{
    const struct gguf_tensor *embd = gguf_tensor_find(keys->gguf, "token_embd.weight");
    const struct gguf_value *tokens = gguf_find(keys->gguf, "tokenizer.ggml.tokens");
    uint64_t n = embd ? embd->dims[1] : tokens ? tokens->n : 0;

    if (n < 1 || n > MODEL_MAX_VOCAB)
        keys_fail(keys, STATUS_FORMAT, "token_embd.weight", "has no usable number of tokens");
    else
        hp->n_vocab = (uint32_t)n;
}

/* ---------------------------------------------------------------- rope */

static void read_yarn(struct keys *keys, struct rope_shape *rope)
{
    float log_factor = logf(1.0f / rope->position_scale);

    rope->yarn = true;
    rope->yarn_beta_fast = key_f32(keys, "rope.scaling.yarn_beta_fast", 32, 0.001f, 1e6f);
    rope->yarn_beta_slow = key_f32(keys, "rope.scaling.yarn_beta_slow", 1, 0.001f, 1e6f);
    rope->magnitude *= log_factor > 0 ? 1 + 0.1f * log_factor : 1;
}

static void read_rope(struct keys *keys, uint32_t head_k, uint32_t n_ctx_train,
                      struct rope_shape *rope)
{
    struct gguf_text type = {0};
    float factor;

    rope->n_values = key_u32(keys, "rope.dimension_count", head_k, 2, head_k);
    if (rope->n_values % 2)
        keys_fail(keys, STATUS_FORMAT, key_of(keys, "rope.dimension_count"), "is odd");
    rope->base = key_f32(keys, "rope.freq_base", 10000, 1e-3f, 1e12f);
    rope->position_scale = 1;
    rope->magnitude = key_f32(keys, "rope.scaling.attn_factor", 1, 1e-3f, 1e3f);
    rope->n_ctx_original =
        key_u32(keys, "rope.scaling.original_context_length", n_ctx_train, 1, MODEL_MAX_CONTEXT);
    factor = key_f32(keys, "rope.scale_linear", 1, 1e-3f, 1e6f);
    factor = key_f32(keys, "rope.scaling.factor", factor, 0, 1e6f);
    (void)gguf_get_text(keys->gguf, key_of(keys, "rope.scaling.type"), &type);
    if (type.n_bytes == 4 && memcmp(type.data, "none", 4) == 0)
        return;
    if (factor > 0)
        rope->position_scale = 1 / factor;
    if (type.n_bytes == 4 && memcmp(type.data, "yarn", 4) == 0)
        read_yarn(keys, rope);
    else if (type.n_bytes && !(type.n_bytes == 6 && memcmp(type.data, "linear", 6) == 0))
        keys_fail(keys, STATUS_UNSUPPORTED, keys->key, "names a scaling that skein does not know");
}

/* ---------------------------------------------------------------- layers */

static void read_heads(struct keys *keys, const struct hparams *hp, uint32_t il,
                       struct layer_shape *layer)
{
    layer->n_heads = key_u32_at(keys, "attention.head_count", il, UINT32_MAX, 1, MODEL_MAX_HEADS);
    layer->n_kv_heads =
        key_u32_at(keys, "attention.head_count_kv", il, layer->n_heads, 1, MODEL_MAX_HEADS);
    if (layer->n_heads % layer->n_kv_heads)
        keys_fail(keys, STATUS_FORMAT, key_of(keys, "attention.head_count"),
                  "is no multiple of the number of KV heads");
    if (!key_is_there(keys, "attention.key_length") && hp->n_embd % layer->n_heads)
        keys_fail(keys, STATUS_FORMAT, key_of(keys, "attention.head_count"),
                  "does not divide embedding_length");
    layer->head_k = key_u32(keys, "attention.key_length", hp->n_embd / layer->n_heads, 1,
                            MODEL_MAX_HEAD_VALUES);
    layer->head_v =
        key_u32(keys, "attention.value_length", layer->head_k, 1, MODEL_MAX_HEAD_VALUES);
}

static void read_layer(struct keys *keys, const struct hparams *hp, uint32_t il,
                       struct layer_shape *layer)
{
    read_heads(keys, hp, il, layer);
    layer->has_rope = keys->arch->rope != ROPE_NONE;
    layer->experts = hp->n_experts > 0;
    if (!layer->experts)
        layer->n_ff = key_u32_at(keys, "feed_forward_length", il, UINT32_MAX, 1, MODEL_MAX_FF);
}

static void read_experts(struct keys *keys, struct hparams *hp)
{
    if (!keys->arch->experts)
        return;
    hp->n_experts = key_u32(keys, "expert_count", 0, 0, MODEL_MAX_EXPERTS);
    if (hp->n_experts == 0)
        return;
    hp->n_experts_used = key_u32(keys, "expert_used_count", REQUIRED, 1, hp->n_experts);
    hp->n_expert_ff =
        key_u32(keys, "expert_feed_forward_length",
                key_u32(keys, "feed_forward_length", 0, 0, MODEL_MAX_FF), 1, MODEL_MAX_FF);
    hp->n_shared_ff = key_u32(
        keys, "expert_shared_feed_forward_length",
        hp->n_expert_ff * (int64_t)key_u32(keys, "expert_shared_count", 0, 0, 64), 0, MODEL_MAX_FF);
    hp->expert_weight_scale = key_f32(keys, "expert_weights_scale", 1, 1e-6f, 1e6f);
}

enum status hparams_read(const struct gguf *gguf, const struct arch *arch, struct hparams *out,
                         struct fault *fault)
{
    struct keys keys = {.gguf = gguf, .arch = arch, .fault = fault};
    const char *eps = arch->norm == NORM_RMS ? "attention.layer_norm_rms_epsilon"
                                             : "attention.layer_norm_epsilon";
    uint32_t n_layers = key_u32(&keys, "block_count", REQUIRED, 1, MODEL_MAX_LAYERS);

    *out = (struct hparams){0};
    out->n_embd = key_u32(&keys, "embedding_length", REQUIRED, 1, MODEL_MAX_EMBD);
    out->n_ctx_train = key_u32(&keys, "context_length", REQUIRED, 1, MODEL_MAX_CONTEXT);
    out->norm_eps = key_f32(&keys, eps, 1e-5f, 0, 1);
    read_vocab(&keys, out);
    read_experts(&keys, out);
    if (keys.status)
        return keys.status;
    out->layers = MEM_NEW_N(struct layer_shape, n_layers);
    if (!out->layers)
        return fault_set(fault, STATUS_NO_MEMORY, "out of memory");
    out->n_layers = n_layers;
    for (uint32_t il = 0; il < n_layers && !keys.status; il++)
        read_layer(&keys, out, il, &out->layers[il]);
    if (!keys.status) {
        if (arch->rope != ROPE_NONE)
            read_rope(&keys, out->layers[0].head_k, out->n_ctx_train, &out->rope[0]);
        out->attention_scale = key_f32(&keys, "attention.scale", 0, 0, 1e9f);
        if (out->attention_scale == 0)
            out->attention_scale = 1.0f / sqrtf((float)out->layers[0].head_k);
    }
    if (keys.status)
        hparams_free(out);
    return keys.status;
}

void hparams_free(struct hparams *hparams)
{
    mem_free(hparams->layers);
    *hparams = (struct hparams){0};
}

/* ---------------------------------------------------------------- shapes */

uint32_t layer_key_floats(const struct layer_shape *layer)
{
    return layer->n_kv_heads * layer->head_k;
}

uint32_t layer_value_floats(const struct layer_shape *layer)
{
    return layer->n_kv_heads * layer->head_v;
}

static uint64_t layer_dim(const struct hparams *hp, const struct layer_shape *layer, enum dim dim,
                          bool gate_in_up)
{
    uint64_t q = (uint64_t)layer->n_heads * layer->head_k;

    switch (dim) {
    case DIM_Q:
        return q;
    case DIM_K:
        return layer_key_floats(layer);
    case DIM_V:
        return layer_value_floats(layer);
    case DIM_QKV:
        return q + layer_key_floats(layer) + layer_value_floats(layer);
    case DIM_ATT:
        return (uint64_t)layer->n_heads * layer->head_v;
    case DIM_HEADS:
        return layer->n_heads;
    case DIM_FF:
        return layer->n_ff;
    case DIM_UP:
        return gate_in_up ? 2 * (uint64_t)layer->n_ff : layer->n_ff;
    case DIM_EXPERTS:
        return hp->n_experts;
    case DIM_EXPERT_FF:
        return hp->n_expert_ff;
    case DIM_SHARED_FF:
        return hp->n_shared_ff;
    default:
        return 0;
    }
}

uint64_t hparams_dim(const struct hparams *hparams, const struct layer_shape *layer, enum dim dim,
                     bool gate_in_up)
{
    switch (dim) {
    case DIM_ONE:
        return 1;
    case DIM_EMBD:
        return hparams->n_embd;
    case DIM_VOCAB:
        return hparams->n_vocab;
    case DIM_CONTEXT:
        return hparams->n_ctx_train;
    case DIM_ROPE_PAIRS:
        return hparams->rope[0].n_values / 2;
    default:
        return layer ? layer_dim(hparams, layer, dim, gate_in_up) : 0;
    }
}
