/* config.json as GGUF metadata.
 *
 * The same numbers have two or three names among the families, so a member is looked up under
 * several. What is here becomes a key; the bounds are checked where all models are checked
 * (engine/model/hparams.c). What a setting asks for and the engine does not do (another activation,
 * experts in some layers only) is refused by name, because ignoring it would give wrong numbers. A
 * sliding window that the engine lacks for a family is no obstacle within the window, so there the
 * context ends with it. */
#include "engine/hf/inner.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- members */

json_t *hf_member(const json_t *object, const char *names)
{
    char name[64];

    while (*names) {
        size_t n = strcspn(names, "|");
        json_t *value;

        (void)snprintf(name, sizeof name, "%.*s", (int)n, names);
        value = json_object_get(object, name);
        if (value && !json_is_null(value))
            return value;
        names += n + (names[n] == '|');
    }
    return NULL;
}

bool hf_u32(struct hf_build *build, const json_t *object, const char *names, uint32_t *out)
{
    const json_t *value = hf_member(object, names);
    json_int_t v;

    if (!value)
        return false;
    v = json_is_integer(value) ? json_integer_value(value) : -1;
    if (json_is_real(value) && json_real_value(value) >= 0 && json_real_value(value) < 4e9 &&
        floor(json_real_value(value)) == json_real_value(value))
        v = (json_int_t)json_real_value(value);
    if (v < 0 || v > UINT32_MAX) {
        hf_fail(build, STATUS_FORMAT, "config.json: %s is not a whole number in range", names);
        return false;
    }
    *out = (uint32_t)v;
    return true;
}

bool hf_f32(struct hf_build *build, const json_t *object, const char *names, float *out)
{
    const json_t *value = hf_member(object, names);

    if (!value)
        return false;
    if (!json_is_number(value) || !(fabs(json_number_value(value)) < 3e38)) {
        hf_fail(build, STATUS_FORMAT, "config.json: %s is not a number in range", names);
        return false;
    }
    *out = (float)json_number_value(value);
    return true;
}

bool hf_bool(const json_t *object, const char *names, bool fallback)
{
    const json_t *value = hf_member(object, names);

    return json_is_boolean(value) ? json_boolean_value(value) : fallback;
}

static const char *key_of(const struct hf_build *build, const char *suffix, char out[static 96])
{
    (void)snprintf(out, 96, "%s.%s", build->row->arch, suffix);
    return out;
}

void hf_key_u32(struct hf_build *build, const char *suffix, uint32_t v)
{
    char key[96];

    gguf_write_u32(&build->writer, key_of(build, suffix, key), v);
}

void hf_key_f32(struct hf_build *build, const char *suffix, float v)
{
    char key[96];

    gguf_write_f32(&build->writer, key_of(build, suffix, key), v);
}

void hf_key_text(struct hf_build *build, const char *suffix, const char *text)
{
    char key[96];

    gguf_write_text(&build->writer, key_of(build, suffix, key), text, strlen(text));
}

/* ---------------------------------------------------------------- sizes */

static uint32_t required(struct hf_build *build, const char *names)
{
    uint32_t v = 0;

    if (!hf_u32(build, build->config, names, &v) || v == 0)
        hf_fail(build, STATUS_FORMAT, "config.json: %s is missing or 0", names);
    return v;
}

/* Members that go over as they are. */
static const struct {
    const char *names, *suffix;
    bool is_float;
} plain[] = {
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon", true},
    {"layer_norm_eps|layer_norm_epsilon|norm_epsilon|norm_eps", "attention.layer_norm_epsilon",
     true},
    {"attn_logit_softcapping", "attn_logit_softcapping", true},
    {"final_logit_softcapping", "final_logit_softcapping", true},
    {"rope_local_base_freq", "rope.freq_base_swa", true},
    {"clip_qkv", "attention.clamp_kqv", true},
    {"logit_scale", "logit_scale", true},
    {"num_local_experts|num_experts|n_routed_experts", "expert_count", false},
    {"num_experts_per_tok", "expert_used_count", false},
    {"moe_intermediate_size", "expert_feed_forward_length", false},
    {"shared_expert_intermediate_size", "expert_shared_feed_forward_length", false},
    {"n_shared_experts", "expert_shared_count", false},
    {"routed_scaling_factor", "expert_weights_scale", true},
    {"n_group", "expert_group_count", false},
    {"topk_group", "expert_group_used_count", false},
    {"first_k_dense_replace", "leading_dense_block_count", false},
    {"num_nextn_predict_layers", "nextn_predict_layers", false},
};

static void write_plain(struct hf_build *build)
{
    for (size_t i = 0; i < COUNT_OF(plain); i++) {
        uint32_t whole;
        float number;

        if (plain[i].is_float && hf_f32(build, build->config, plain[i].names, &number))
            hf_key_f32(build, plain[i].suffix, number);
        else if (!plain[i].is_float && hf_u32(build, build->config, plain[i].names, &whole))
            hf_key_u32(build, plain[i].suffix, whole);
    }
}

static void write_heads(struct hf_build *build, uint32_t n_embd)
{
    build->n_heads = required(build, "num_attention_heads|n_head");
    build->n_kv_heads = build->n_heads;
    (void)hf_u32(build, build->config, "num_key_value_heads", &build->n_kv_heads);
    build->head_dim = build->n_heads ? n_embd / build->n_heads : 0;
    (void)hf_u32(build, build->config, "head_dim", &build->head_dim);
    if (build->head_dim == 0 || build->head_dim > 1 << 12 || build->n_kv_heads == 0)
        hf_fail(build, STATUS_FORMAT, "config.json: heads have no usable size");
    hf_key_u32(build, "attention.head_count", build->n_heads);
    hf_key_u32(build, "attention.head_count_kv", build->n_kv_heads);
    hf_key_u32(build, "attention.key_length", build->head_dim);
    hf_key_u32(build, "attention.value_length", build->head_dim);
}

static void write_scales(struct hf_build *build)
{
    static const struct hf_name granite[] = {
        {"embedding_multiplier", "embedding_scale"},
        {"residual_multiplier", "residual_scale"},
        {"attention_multiplier", "attention.scale"},
        {"logits_scaling", "logit_scale"},
    };
    float v;

    for (size_t i = 0; (build->row->flags & HF_GRANITE) && i < COUNT_OF(granite); i++) {
        if (hf_f32(build, build->config, granite[i].from, &v))
            hf_key_f32(build, granite[i].to, v);
    }
    if ((build->row->flags & HF_QUERY_SCALAR) &&
        hf_f32(build, build->config, "query_pre_attn_scalar", &v) && v > 0)
        hf_key_f32(build, "attention.scale", 1 / sqrtf(v));
}

/* ---------------------------------------------------------------- windows */

/* 0: none. */
static uint32_t window_of(struct hf_build *build)
{
    uint32_t window = 0;

    if (hf_bool(build->config, "use_sliding_window", true))
        (void)hf_u32(build, build->config, "sliding_window", &window);
    return window;
}

static void write_window(struct hf_build *build, uint32_t window)
{
    const json_t *layers = hf_member(build->config, "layer_types");
    char key[96];

    if (!(build->row->flags & HF_WINDOW) || window == 0)
        return;
    hf_key_u32(build, "attention.sliding_window", window);
    if (json_array_size(layers) < build->n_layers)
        return;
    gguf_write_array(&build->writer, key_of(build, "attention.sliding_window_pattern", key),
                     GGUF_BOOL, build->n_layers);
    for (uint32_t i = 0; i < build->n_layers; i++) {
        const char *kind = json_string_value(json_array_get(layers, i));

        if (!kind ||
            (strcmp(kind, "sliding_attention") != 0 && strcmp(kind, "full_attention") != 0))
            hf_fail(build, STATUS_UNSUPPORTED, "layer %u is of type `%.40s`, which skein lacks", i,
                    kind ? kind : "(none)");
        gguf_write_item_bool(&build->writer, kind && strcmp(kind, "sliding_attention") == 0);
    }
}

static void write_context(struct hf_build *build, uint32_t window)
{
    uint32_t n = required(build, "max_position_embeddings|n_positions|n_ctx");

    if (window && !(build->row->flags & HF_WINDOW) && window < n)
        n = window;
    hf_key_u32(build, "context_length", n);
}

/* ---------------------------------------------------------------- what must be as expected */

static void check_experts(struct hf_build *build)
{
    unsigned flags = build->row->flags;
    uint32_t step = 1;
    char key[96];

    if (!hf_member(build->config, "num_local_experts|num_experts|n_routed_experts"))
        return;
    (void)hf_u32(build, build->config, "decoder_sparse_step", &step);
    if (step != 1 || json_array_size(hf_member(build->config, "mlp_only_layers")) > 0)
        hf_fail(build, STATUS_UNSUPPORTED,
                "config.json: experts in some layers only (decoder_sparse_step, mlp_only_layers) "
                "are not supported");
    if (hf_member(build->config, "norm_topk_prob")) {
        bool one = hf_bool(build->config, "norm_topk_prob", false);

        if ((one && (flags & HF_SUM_FREE)) || (!one && (flags & HF_SUM_ONE)))
            hf_fail(build, STATUS_UNSUPPORTED,
                    "config.json: norm_topk_prob is %s, but %s models "
                    "have it otherwise",
                    one ? "true" : "false", build->row->arch);
        gguf_write_bool(&build->writer, key_of(build, "expert_weights_norm", key), one);
    }
}

static void check_activation(struct hf_build *build)
{
    const char *name = json_string_value(
        hf_member(build->config, "hidden_activation|hidden_act|activation_function"));

    if (name && strncmp(name, build->row->activation, strlen(build->row->activation)) != 0)
        hf_fail(build, STATUS_UNSUPPORTED,
                "config.json: the activation `%.40s` is not what %s models use (%s)", name,
                build->row->name, build->row->activation);
}

static void check_quantization(struct hf_build *build)
{
    const json_t *quant = hf_member(build->root, "quantization_config");
    const char *method = json_string_value(hf_member(quant, "quant_method"));

    if (quant)
        hf_fail(build, STATUS_UNSUPPORTED,
                "the weights are quantised with `%.40s`; skein reads folders of F32, F16 and BF16, "
                "and quantised models as GGUF files",
                method ? method : "an unnamed method");
}

void hf_write_config(struct hf_build *build)
{
    const char *slash, *end = build->folder + strlen(build->folder);
    uint32_t n_embd, n_ff, window;

    while (end > build->folder + 1 && end[-1] == '/')
        end--;
    for (slash = end; slash > build->folder && slash[-1] != '/'; slash--)
        ;
    gguf_write_text(&build->writer, "general.architecture", build->row->arch,
                    strlen(build->row->arch));
    gguf_write_text(&build->writer, "general.name", slash, (size_t)(end - slash));
    check_quantization(build);
    check_activation(build);
    check_experts(build);
    n_embd = required(build, "hidden_size|n_embd");
    build->n_layers = required(build, "num_hidden_layers|n_layer");
    if (build->n_layers > HF_MAX_LAYERS)
        hf_fail(build, STATUS_LIMIT, "config.json: %u layers, more than %d", build->n_layers,
                HF_MAX_LAYERS);
    if (build->status)
        return;
    n_ff = n_embd <= UINT32_MAX / 4 ? 4 * n_embd : 0;
    (void)hf_u32(build, build->config, "intermediate_size|n_inner", &n_ff);
    window = window_of(build);
    hf_key_u32(build, "block_count", build->n_layers);
    hf_key_u32(build, "embedding_length", n_embd);
    hf_key_u32(build, "feed_forward_length", n_ff);
    if (hf_u32(build, build->config, "vocab_size", &build->n_vocab))
        hf_key_u32(build, "vocab_size", build->n_vocab);
    write_context(build, window);
    if (!hf_member(build->config, "rms_norm_eps"))
        hf_key_f32(build, "attention.layer_norm_rms_epsilon", 1e-6f);
    write_heads(build, n_embd);
    write_plain(build);
    write_scales(build);
    write_window(build, window);
}
