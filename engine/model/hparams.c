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

static bool text_is(struct gguf_text text, const char *word)
{
    return text.n_bytes == strlen(word) && memcmp(text.data, word, text.n_bytes) == 0;
}

static float yarn_magnitude(float factor, float weight)
{
    return factor > 1 ? 1 + 0.1f * weight * logf(factor) : 1;
}

/* A log multiplier says that the attention scale has a part of the magnitude already. */
static void read_yarn(struct keys *keys, float factor, struct rope_shape *rope)
{
    float log_multiplier = key_f32(keys, "rope.scaling.yarn_log_multiplier", 0, 0, 100);

    rope->yarn = true;
    rope->yarn_beta_fast = key_f32(keys, "rope.scaling.yarn_beta_fast", 32, 0.001f, 1e6f);
    rope->yarn_beta_slow = key_f32(keys, "rope.scaling.yarn_beta_slow", 1, 0.001f, 1e6f);
    if (keys->arch->yarn_in_scores)
        return;
    rope->magnitude *= yarn_magnitude(factor, 1);
    if (log_multiplier > 0)
        rope->magnitude /= yarn_magnitude(factor, log_multiplier);
}

static void read_scaling(struct keys *keys, struct rope_shape *rope)
{
    struct gguf_text type = {0};
    float factor = key_f32(keys, "rope.scale_linear", 1, 0, 1e6f);

    factor = key_f32(keys, "rope.scaling.factor", factor, 0, 1e6f);
    rope->magnitude = key_f32(keys, "rope.scaling.attn_factor", 1, 1e-3f, 1e3f);
    (void)gguf_get_text(keys->gguf, key_of(keys, "rope.scaling.type"), &type);
    if (text_is(type, "none") || text_is(type, "longrope"))
        return;
    if (type.n_bytes && !text_is(type, "linear") && !text_is(type, "yarn")) {
        keys_fail(keys, STATUS_UNSUPPORTED, keys->key, "names a scaling that skein does not know");
        return;
    }
    if (factor > 0)
        rope->position_scale = 1 / factor;
    if (text_is(type, "yarn"))
        read_yarn(keys, factor, rope);
}

/* Layers with a window, where they turn at another speed, and may have heads of another length. */
static void read_window_rope(struct keys *keys, uint32_t head, const struct rope_shape *common,
                             struct rope_shape *out)
{
    *out = *common;
    if (keys->arch->window_rope_base > 0)
        out->base = key_f32(keys, "rope.freq_base_swa", keys->arch->window_rope_base, 1e-3f, 1e12f);
    out->n_values = key_u32(keys, "rope.dimension_count_swa",
                            common->n_values < head ? common->n_values : head, 2, head);
    if (out->n_values % 2)
        keys_fail(keys, STATUS_FORMAT, keys->key, "is odd");
}

static void read_ropes(struct keys *keys, const uint32_t heads[MODEL_MAX_ROPES], struct hparams *hp)
{
    const struct arch *arch = keys->arch;
    struct rope_shape *rope = &hp->rope[0];
    uint32_t head = heads[0];

    if (arch->rope == ROPE_NONE)
        return;
    rope->n_values = key_u32(keys, "rope.dimension_count", head, 2, head);
    if (rope->n_values % 2)
        keys_fail(keys, STATUS_FORMAT, keys->key, "is odd");
    rope->base = key_f32(keys, "rope.freq_base", 10000, 1e-3f, 1e12f);
    rope->position_scale = 1;
    rope->magnitude = 1;
    rope->n_ctx_original = key_u32(keys, "rope.scaling.original_context_length", hp->n_ctx_train, 1,
                                   MODEL_MAX_CONTEXT);
    if (arch->window_rope_base > 0 || arch->window_rope_plain)
        read_window_rope(keys, heads[1], rope, &hp->rope[1]);
    read_scaling(keys, rope);
}

/* ---------------------------------------------------------------- layers */

/* Layers of another kind than the architecture's own. */
static bool layer_is_other(struct keys *keys, uint32_t il)
{
    const struct gguf_value *recurrent =
        gguf_find(keys->gguf, key_of(keys, "attention.recurrent_layers"));
    uint32_t interval;

    if (keys->arch->other_kind == LAYER_CONV)
        return key_u32_at(keys, "attention.head_count_kv", il, 1, 0, MODEL_MAX_HEADS) == 0;
    if (keys->arch->other_kind != LAYER_DELTA)
        return false;
    if (recurrent && recurrent->is_array && recurrent->kind == GGUF_BOOL)
        return il < recurrent->n && recurrent->data[il];
    interval = key_u32(keys, "full_attention_interval", 4, 1, MODEL_MAX_LAYERS);
    return (il + 1) % interval != 0;
}

/* Multi-head latent attention: one KV head, whose key is the latent and the part that turns. */
static void read_latent(struct keys *keys, struct layer_shape *layer)
{
    uint32_t n_rope = key_u32(keys, "rope.dimension_count", REQUIRED, 2, MODEL_MAX_HEAD_VALUES);

    layer->kv_rank =
        key_u32(keys, "attention.kv_lora_rank", REQUIRED, 1, MODEL_MAX_HEAD_VALUES - n_rope);
    layer->q_rank = key_u32(keys, "attention.q_lora_rank", 0, 0, MODEL_MAX_EMBD);
    layer->head_q =
        key_u32(keys, "attention.key_length_mla", REQUIRED, n_rope + 1, MODEL_MAX_HEAD_VALUES);
    layer->head_out =
        key_u32(keys, "attention.value_length_mla", REQUIRED, 1, MODEL_MAX_HEAD_VALUES);
    layer->n_kv_heads = 1;
    layer->head_k = layer->kv_rank + n_rope;
    layer->head_v = layer->kv_rank;
}

static void read_heads(struct keys *keys, const struct hparams *hp, uint32_t il,
                       struct layer_shape *layer)
{
    layer->n_heads = key_u32_at(keys, "attention.head_count", il, UINT32_MAX, 1, MODEL_MAX_HEADS);
    if (layer->kind == LAYER_LATENT) {
        read_latent(keys, layer);
        return;
    }
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
    if (layer->window) {
        layer->head_k =
            key_u32(keys, "attention.key_length_swa", layer->head_k, 1, MODEL_MAX_HEAD_VALUES);
        layer->head_v =
            key_u32(keys, "attention.value_length_swa", layer->head_v, 1, MODEL_MAX_HEAD_VALUES);
    }
    layer->head_q = layer->head_k;
    layer->head_out = layer->head_v;
}

/* 0 where the layer sees everything. A file may give the pattern itself: a period, or a truth value
 * per layer. */
static uint32_t read_window(struct keys *keys, uint32_t il)
{
    const struct gguf_value *pattern =
        gguf_find(keys->gguf, key_of(keys, "attention.sliding_window_pattern"));
    uint32_t window = key_u32(keys, "attention.sliding_window", 0, 0, MODEL_MAX_CONTEXT);
    uint32_t period = keys->arch->window_period;

    if (period == 0 || window == 0)
        return 0;
    if (pattern && pattern->is_array && pattern->kind == GGUF_BOOL)
        return il < pattern->n && pattern->data[il] ? window : 0;
    if (pattern && !pattern->is_array)
        period = key_u32(keys, "attention.sliding_window_pattern", period, 1, MODEL_MAX_LAYERS);
    return il % period < period - 1 ? window : 0;
}

static void read_positions(struct keys *keys, uint32_t il, struct layer_shape *layer)
{
    const struct arch *arch = keys->arch;
    const struct gguf_value *window =
        gguf_find(keys->gguf, key_of(keys, "attention.sliding_window"));
    bool all_see_all = key_u32(keys, "attention.sliding_window", 0, 0, MODEL_MAX_CONTEXT) == 0;
    bool chunked = arch->chunk && !(window && all_see_all); /* 0 turns the chunks off */
    bool skips =
        arch->no_rope_period && (il + 1) % arch->no_rope_period == 0 && !(arch->chunk && !chunked);

    layer->window = read_window(keys, il);
    layer->has_rope = arch->rope != ROPE_NONE && !skips &&
                      !(arch->rope_in_window_only && !all_see_all && !layer->window);
    layer->rope = layer->window && (arch->window_rope_base > 0 || arch->window_rope_plain);
    layer->chunk = chunked && layer->has_rope ? arch->chunk : 0;
    layer->temperature = arch->temperature > 0 ? chunked && !layer->has_rope : true;
}

static void read_layer(struct keys *keys, const struct hparams *hp, uint32_t il,
                       struct layer_shape *layer)
{
    const struct arch *arch = keys->arch;
    uint32_t n_dense = key_u32(keys, "leading_dense_block_count", 0, 0, MODEL_MAX_LAYERS);
    uint32_t step = key_u32(keys, "interleave_moe_layer_step", 1, 1, MODEL_MAX_LAYERS);

    layer->kind = layer_is_other(keys, il) ? arch->other_kind : arch->kind;
    layer->owner = il;
    read_positions(keys, il, layer);
    if (layer->kind == LAYER_CONV)
        layer->state_floats = (hp->conv_taps - 1) * hp->n_embd;
    else if (layer->kind == LAYER_DELTA)
        layer->state_floats = (hp->conv_taps - 1) * delta_channels(hp) +
                              hp->delta_value_heads * hp->delta_head * hp->delta_head;
    else
        read_heads(keys, hp, il, layer);
    layer->experts = hp->n_experts > 0 && il >= n_dense && (il + 1) % step == 0;
    if (!layer->experts && !arch->dense)
        keys_fail(keys, STATUS_FORMAT, key_of(keys, "expert_count"),
                  "leaves a layer without a feed-forward");
    if (!layer->experts)
        layer->n_ff = key_u32_at(keys, "feed_forward_length", il, UINT32_MAX, 1, MODEL_MAX_FF);
}

/* Convolutions and delta nets; the bounds keep every product below 32 bits. */
static void read_recurrence(struct keys *keys, struct hparams *hp)
{
    uint32_t inner;

    if (keys->arch->other_kind == LAYER_CONV)
        hp->conv_taps = key_u32(keys, "shortconv.l_cache", REQUIRED, 2, 64);
    if (keys->arch->other_kind != LAYER_DELTA)
        return;
    hp->conv_taps = key_u32(keys, "ssm.conv_kernel", REQUIRED, 2, 64);
    hp->delta_head = key_u32(keys, "ssm.state_size", REQUIRED, 1, 512);
    hp->delta_key_heads = key_u32(keys, "ssm.group_count", REQUIRED, 1, 1024);
    hp->delta_value_heads = key_u32(keys, "ssm.time_step_rank", REQUIRED, 1, 1024);
    inner = key_u32(keys, "ssm.inner_size", REQUIRED, 1, MODEL_MAX_FF);
    if (hp->delta_value_heads % hp->delta_key_heads)
        keys_fail(keys, STATUS_FORMAT, key_of(keys, "ssm.time_step_rank"),
                  "is no multiple of ssm.group_count");
    if (inner != hp->delta_value_heads * hp->delta_head)
        keys_fail(keys, STATUS_FORMAT, key_of(keys, "ssm.inner_size"),
                  "is not the width of all heads together");
}

static void read_expert_gate(struct keys *keys, struct hparams *hp)
{
    const struct arch *arch = keys->arch;
    uint32_t gate = arch->expert_gate ? (uint32_t)arch->expert_gate : EXPERT_GATE_SOFTMAX;
    bool sum = false;

    gate = key_u32(keys, "expert_gating_func", gate, 0, 3);
    if (gate == 3) { /* softmax over the chosen alone: the same as dividing by their sum */
        hp->expert_gate = EXPERT_GATE_SOFTMAX;
        hp->expert_sum_one = true;
        return;
    }
    hp->expert_gate = gate == EXPERT_GATE_SIGMOID ? EXPERT_GATE_SIGMOID : EXPERT_GATE_SOFTMAX;
    (void)gguf_get_bool(keys->gguf, key_of(keys, "expert_weights_norm"), &sum);
    hp->expert_sum_one =
        arch->expert_sum == EXPERT_SUM_ONE || (arch->expert_sum == EXPERT_SUM_BY_KEY && sum);
}

static void read_experts(struct keys *keys, struct hparams *hp)
{
    uint32_t n_shared;

    if (!keys->arch->experts)
        return;
    hp->n_experts = key_u32(keys, "expert_count", 0, 0, MODEL_MAX_EXPERTS);
    if (hp->n_experts == 0)
        return;
    hp->n_experts_used = key_u32(keys, "expert_used_count", REQUIRED, 1, hp->n_experts);
    hp->n_expert_ff =
        key_u32(keys, "expert_feed_forward_length",
                key_u32(keys, "feed_forward_length", 0, 0, MODEL_MAX_FF), 1, MODEL_MAX_FF);
    n_shared = key_u32(keys, "expert_shared_count", 1, 0, 64);
    hp->n_shared_ff = key_u32(keys, "expert_shared_feed_forward_length",
                              (int64_t)hp->n_expert_ff * n_shared, 0, MODEL_MAX_FF);
    hp->expert_weight_scale = key_f32(keys, "expert_weights_scale", 1, 0, 1e6f);
    if (hp->expert_weight_scale == 0)
        hp->expert_weight_scale = 1;
    hp->n_expert_groups = key_u32(keys, "expert_group_count", 0, 0, hp->n_experts);
    hp->n_groups_used = key_u32(keys, "expert_group_used_count", 0, 0, hp->n_expert_groups);
    if (hp->n_expert_groups <= 1 || hp->n_groups_used == 0)
        hp->n_expert_groups = 0;
    else if (hp->n_experts % hp->n_expert_groups)
        keys_fail(keys, STATUS_FORMAT, key_of(keys, "expert_group_count"),
                  "does not divide expert_count");
    read_expert_gate(keys, hp);
}

/* ---------------------------------------------------------------- scales */

static void read_scales(struct keys *keys, struct hparams *hp)
{
    const struct arch *arch = keys->arch;
    float logits = key_f32(keys, "logit_scale", 1, 1e-9f, 1e9f);
    float root = arch->embedding_times_root ? sqrtf((float)hp->n_embd) : 1;

    hp->embedding_scale = key_f32(keys, "embedding_scale", root, 1e-9f, 1e9f);
    hp->residual_scale = key_f32(keys, "residual_scale", 1, 1e-9f, 1e9f);
    hp->logit_scale = arch->logit_scale == LOGITS_TIMES_SCALE  ? logits
                      : arch->logit_scale == LOGITS_OVER_SCALE ? 1 / logits
                                                               : 1;
    hp->logit_cap = key_f32(keys, "final_logit_softcapping", 0, 0, 1e6f);
    hp->attention_cap = key_f32(keys, "attn_logit_softcapping", 0, 0, 1e6f);
    hp->qkv_clamp = key_f32(keys, "attention.clamp_kqv", 0, 0, 1e9f);
    if (arch->alibi)
        hp->alibi_bias = key_f32(keys, "attention.max_alibi_bias", arch->alibi_bias, 0, 1e3f);
    (void)gguf_get_bool(keys->gguf, key_of(keys, "use_parallel_residual"), &hp->parallel);
    hp->qk_bare_norm = arch->qk_bare_norm_experts && hp->n_experts != arch->qk_bare_norm_experts;
    hp->parallel =
        arch->residual == RESIDUAL_PARALLEL || (arch->residual == RESIDUAL_BY_KEY && hp->parallel);
}

/* The square of YaRN's magnitude, for queries and keys that do not have it themselves. Files of
 * such models give the weight of the logarithm with the 0.1 in it. */
static float yarn_score_scale(struct keys *keys)
{
    float factor = key_f32(keys, "rope.scaling.factor", 1, 0, 1e6f);
    float weight = key_f32(keys, "rope.scaling.yarn_log_multiplier", 0, 0, 100);
    float magnitude = yarn_magnitude(factor, 10 * weight);
    struct gguf_text type = {0};

    (void)gguf_get_text(keys->gguf, key_of(keys, "rope.scaling.type"), &type);
    return text_is(type, "yarn") ? magnitude * magnitude : 1;
}

/* Scales and rotation are the same in all layers that share a rotation, so their heads must have
 * one length. Finds it for each, and the first layer that attends: NULL where none does. */
static const struct layer_shape *attending_layer(struct keys *keys, const struct hparams *hp,
                                                 uint32_t heads[MODEL_MAX_ROPES])
{
    const struct layer_shape *first = NULL;

    for (uint32_t il = 0; il < hp->n_layers; il++) {
        const struct layer_shape *layer = &hp->layers[il];
        uint32_t *head = &heads[layer->rope];

        if (layer->head_k && *head && layer->head_k != *head)
            keys_fail(keys, STATUS_FORMAT, key_of(keys, "attention.head_count"),
                      "makes heads of different lengths");
        *head = layer->head_k ? layer->head_k : *head;
        first = layer->head_k && !first ? layer : first;
    }
    for (int i = 0; i < MODEL_MAX_ROPES; i++)
        heads[i] = heads[i] || !first ? heads[i] : first->head_k;
    return first;
}

/* ---------------------------------------------------------------- what rows carry along */

/* A layer without keys and values uses those of the last layer of its kind that has them. */
static void borrow_kv(struct keys *keys, struct hparams *hp, uint32_t il, uint32_t n_own)
{
    struct layer_shape *layer = &hp->layers[il], *owner = NULL;

    for (uint32_t i = 0; i < n_own; i++) {
        if (hp->layers[i].kind == layer->kind && !hp->layers[i].window == !layer->window)
            owner = &hp->layers[i];
    }
    if (!owner || owner->kind != LAYER_ATTENTION || owner->n_kv_heads != layer->n_kv_heads ||
        owner->head_k != layer->head_k || owner->head_v != layer->head_v) {
        keys_fail(keys, STATUS_FORMAT, key_of(keys, "attention.shared_kv_layers"),
                  "leaves a layer without keys and values");
        return;
    }
    if (!owner->lends) {
        owner->lends = true;
        owner->kv_at = hp->n_extra;
        hp->n_extra += layer_key_floats(owner) + layer_value_floats(owner);
    }
    layer->borrows = true;
    layer->owner = owner->owner;
    layer->kv_at = owner->kv_at;
}

/* Two layers lend at most, one with a window and one without, so the sum stays far below 32 bits.
 */
static void read_extras(struct keys *keys, struct hparams *hp)
{
    uint32_t n_shared = 0;

    if (keys->arch->layer & LAYER_INPUT_SLOTS) {
        hp->n_layer_input =
            key_u32(keys, "embedding_length_per_layer_input", 0, 0, MODEL_MAX_LAYER_INPUT);
        n_shared = key_u32(keys, "attention.shared_kv_layers", 0, 0, hp->n_layers - 1);
    }
    hp->n_extra = hp->n_layer_input * hp->n_layers;
    for (uint32_t il = hp->n_layers - n_shared; il < hp->n_layers && !keys->status; il++)
        borrow_kv(keys, hp, il, hp->n_layers - n_shared);
}

static void read_attention_scale(struct keys *keys, const struct layer_shape *layer,
                                 struct hparams *hp)
{
    float head = (float)layer->head_q;

    if (hp->n_layers == keys->arch->width_scale_layers)
        head = (float)hp->n_embd / (float)layer->n_heads;
    hp->attention_scale = key_f32(keys, "attention.scale", keys->arch->attention_scale, 0, 1e9f);
    if (hp->attention_scale == 0)
        hp->attention_scale = 1 / sqrtf(head);
    if (keys->arch->yarn_in_scores)
        hp->attention_scale *= yarn_score_scale(keys);
    hp->temperature = key_f32(keys, "attention.temperature_scale", 0, 0, 1e3f);
    hp->temperature_floor = key_u32(keys, "rope.scaling.original_context_length", hp->n_ctx_train,
                                    1, MODEL_MAX_CONTEXT);
    if (keys->arch->temperature > 0) {
        hp->temperature = keys->arch->temperature;
        hp->temperature_offset = keys->arch->temperature_offset;
        hp->temperature_floor = keys->arch->temperature_floor;
    }
}

enum status hparams_read(const struct gguf *gguf, const struct arch *arch, struct hparams *out,
                         struct fault *fault)
{
    struct keys keys = {.gguf = gguf, .arch = arch, .fault = fault};
    const char *eps = arch->norm == NORM_RMS ? "attention.layer_norm_rms_epsilon"
                                             : "attention.layer_norm_epsilon";
    const struct layer_shape *attends;
    uint32_t heads[MODEL_MAX_ROPES] = {0};
    uint32_t n_layers = key_u32(&keys, "block_count", REQUIRED, 1, MODEL_MAX_LAYERS);

    n_layers -= key_u32(&keys, "nextn_predict_layers", 0, 0, n_layers - 1);
    *out = (struct hparams){0};
    out->n_embd = key_u32(&keys, "embedding_length", REQUIRED, 1, MODEL_MAX_EMBD);
    out->n_ctx_train = key_u32(&keys, "context_length", REQUIRED, 1, MODEL_MAX_CONTEXT);
    out->query_gate = arch->query_gate;
    out->norm_eps = key_f32(&keys, eps, 1e-5f, 0, 1);
    read_vocab(&keys, out);
    read_experts(&keys, out);
    read_scales(&keys, out);
    read_recurrence(&keys, out);
    if (keys.status)
        return keys.status;
    out->layers = MEM_NEW_N(struct layer_shape, n_layers);
    if (!out->layers)
        return fault_set(fault, STATUS_NO_MEMORY, "out of memory");
    out->n_layers = n_layers;
    for (uint32_t il = 0; il < n_layers && !keys.status; il++)
        read_layer(&keys, out, il, &out->layers[il]);
    if (!keys.status)
        read_extras(&keys, out);
    attends = attending_layer(&keys, out, heads);
    if (!keys.status && attends) {
        read_ropes(&keys, heads, out);
        read_attention_scale(&keys, attends, out);
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
