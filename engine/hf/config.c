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
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- members */

static json_t *member_at(const json_t *object, char *path)
{
    char *dot = strchr(path, '.');

    if (!dot)
        return json_object_get(object, path);
    *dot = '\0';
    return json_object_get(json_object_get(object, path), dot + 1);
}

json_t *hf_member(const json_t *object, const char *names)
{
    char name[64];

    while (*names) {
        size_t n = strcspn(names, "|");
        json_t *value;

        (void)snprintf(name, sizeof name, "%.*s", (int)n, names);
        value = member_at(object, name);
        if (value && !json_is_null(value))
            return value;
        names += n + (names[n] == '|');
    }
    return NULL;
}

/* A list that says the same for every layer is its first value. */
static const json_t *uniform(const json_t *value)
{
    const json_t *first = json_array_get(value, 0);

    for (size_t i = 1; i < json_array_size(value); i++)
        first = first && json_equal(first, json_array_get(value, i)) ? first : NULL;
    return json_is_array(value) && first ? first : value;
}

bool hf_u32(struct hf_build *build, const json_t *object, const char *names, uint32_t *out)
{
    const json_t *value = uniform(hf_member(object, names));
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
    {"rms_norm_eps|layer_norm_epsilon|norm_eps", "attention.layer_norm_rms_epsilon", true},
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
    {"first_k_dense_replace", "leading_dense_block_count", false},
    {"num_nextn_predict_layers", "nextn_predict_layers", false},
};

static void write_key(struct hf_build *build, const struct hf_key *key)
{
    uint32_t whole;
    float number;
    char name[96];

    if (key->kind == GGUF_F32 && hf_f32(build, build->config, key->from, &number))
        hf_key_f32(build, key->to, number);
    else if (key->kind == GGUF_U32 && hf_u32(build, build->config, key->from, &whole))
        hf_key_u32(build, key->to, whole);
    else if (key->kind == GGUF_BOOL && hf_member(build->config, key->from))
        gguf_write_bool(&build->writer, key_of(build, key->to, name),
                        hf_bool(build->config, key->from, false));
}

static void write_plain(struct hf_build *build)
{
    for (const struct hf_key *key = build->row->keys; key && key->from; key++)
        write_key(build, key);
    for (size_t i = 0; i < COUNT_OF(plain); i++) {
        uint32_t whole;
        float number;

        if (plain[i].is_float && hf_f32(build, build->config, plain[i].names, &number))
            hf_key_f32(build, plain[i].suffix, number);
        else if (!plain[i].is_float && hf_u32(build, build->config, plain[i].names, &whole))
            hf_key_u32(build, plain[i].suffix, whole);
    }
}

/* What keys are called in files with attention over all, and in those that mix it with other kinds
 * of layers. */
static void write_kv_heads(struct hf_build *build)
{
    const json_t *kinds = hf_member(build->config, "layer_types");
    const json_t *full = hf_member(build->config, "full_attn_idxs");
    char key[96];

    if (!(build->row->flags & HF_CONV)) {
        hf_key_u32(build, "attention.head_count_kv", build->n_kv_heads);
        return;
    }
    gguf_write_array(&build->writer, key_of(build, "attention.head_count_kv", key), GGUF_U32,
                     build->n_layers);
    for (uint32_t i = 0; i < build->n_layers; i++) {
        const char *kind = json_string_value(json_array_get(kinds, i));
        bool attends = kind && strcmp(kind, "full_attention") == 0;

        for (size_t k = 0; k < json_array_size(full); k++)
            attends = attends || json_integer_value(json_array_get(full, k)) == (json_int_t)i;
        if (kind && !attends && strcmp(kind, "conv") != 0)
            hf_fail(build, STATUS_UNSUPPORTED, "layer %u is of type `%.40s`, which skein lacks", i,
                    kind);
        gguf_write_item_u32(&build->writer, attends ? build->n_kv_heads : 0);
    }
}

static void write_heads(struct hf_build *build, uint32_t n_embd)
{
    bool one_kv = (build->row->flags & HF_MULTI_QUERY) &&
                  hf_bool(build->config, "multi_query", false) &&
                  !hf_bool(build->config, "new_decoder_architecture", false);

    build->n_heads = required(build, "num_attention_heads|n_head|n_heads");
    build->n_kv_heads = one_kv ? 1 : build->n_heads;
    if (!one_kv)
        (void)hf_u32(build, build->config,
                     "num_key_value_heads|num_kv_heads|n_head_kv|attn_config.kv_n_heads",
                     &build->n_kv_heads);
    build->head_dim = build->n_heads ? n_embd / build->n_heads : 0;
    (void)hf_u32(build, build->config, "head_dim", &build->head_dim);
    if (build->head_dim == 0 || build->head_dim > 1 << 12 || build->n_kv_heads == 0 ||
        build->n_heads > HF_MAX_HEADS || build->n_heads % build->n_kv_heads)
        hf_fail(build, STATUS_FORMAT, "config.json: heads have no usable size or number");
    hf_key_u32(build, "attention.head_count", build->n_heads);
    if (build->row->flags & HF_LATENT)
        return;
    write_kv_heads(build);
    hf_key_u32(build, "attention.key_length", build->head_dim);
    hf_key_u32(build, "attention.value_length", build->head_dim);
}

/* One KV head, whose key is the latent and the part that turns. */
static void write_latent(struct hf_build *build)
{
    uint32_t rank, n_rope, q_rank;

    if (!(build->row->flags & HF_LATENT))
        return;
    rank = required(build, "kv_lora_rank");
    n_rope = required(build, "qk_rope_head_dim");
    build->nope_dim = required(build, "qk_nope_head_dim");
    build->value_dim = required(build, "v_head_dim");
    if (rank > 1 << 16 || n_rope > 1 << 12 || build->nope_dim > 1 << 12 ||
        build->value_dim > 1 << 12)
        hf_fail(build, STATUS_LIMIT, "config.json: heads are too large");
    build->head_dim = n_rope;
    hf_key_u32(build, "attention.head_count_kv", 1);
    hf_key_u32(build, "attention.kv_lora_rank", rank);
    if (hf_u32(build, build->config, "q_lora_rank", &q_rank))
        hf_key_u32(build, "attention.q_lora_rank", q_rank);
    hf_key_u32(build, "attention.key_length", rank + n_rope);
    hf_key_u32(build, "attention.value_length", rank);
    hf_key_u32(build, "attention.key_length_mla", build->nope_dim + n_rope);
    hf_key_u32(build, "attention.value_length_mla", build->value_dim);
}

static void write_delta(struct hf_build *build)
{
    const json_t *kinds = hf_member(build->config, "layer_types");
    uint64_t inner;
    char key[96];

    if (!(build->row->flags & HF_DELTA))
        return;
    build->delta_keys = required(build, "linear_num_key_heads");
    build->delta_values = required(build, "linear_num_value_heads");
    build->delta_k_dim = required(build, "linear_key_head_dim");
    build->delta_v_dim = required(build, "linear_value_head_dim");
    inner = (uint64_t)build->delta_values * build->delta_v_dim;
    if (build->status || build->delta_k_dim != build->delta_v_dim || inner > 1 << 24 ||
        build->delta_values % build->delta_keys) {
        hf_fail(build, STATUS_UNSUPPORTED,
                "config.json: linear attention with keys and values of different width, or an "
                "uneven number of heads, is not supported");
        return;
    }
    hf_key_u32(build, "ssm.inner_size", (uint32_t)inner);
    if (json_array_size(kinds) < build->n_layers)
        return;
    gguf_write_array(&build->writer, key_of(build, "attention.recurrent_layers", key), GGUF_BOOL,
                     build->n_layers);
    for (uint32_t i = 0; i < build->n_layers; i++) {
        const char *kind = json_string_value(json_array_get(kinds, i));

        gguf_write_item_bool(&build->writer, kind && strcmp(kind, "linear_attention") == 0);
    }
}

static void write_scales(struct hf_build *build)
{
    static const struct hf_key granite[] = {
        {"embedding_multiplier", "embedding_scale", GGUF_F32},
        {"residual_multiplier", "residual_scale", GGUF_F32},
        {"attention_multiplier", "attention.scale", GGUF_F32},
        {"logits_scaling", "logit_scale", GGUF_F32},
    };
    bool depth = build->row->flags & HF_DEPTH_SCALES;
    float v;

    for (size_t i = 0; (build->row->flags & HF_GRANITE) && i < COUNT_OF(granite); i++)
        write_key(build, &granite[i]);
    if (depth && hf_f32(build, build->config, "scale_emb", &v))
        hf_key_f32(build, "embedding_scale", v);
    if (depth && hf_f32(build, build->config, "scale_depth", &v))
        hf_key_f32(build, "residual_scale", v / sqrtf((float)build->n_layers));
    if (depth && hf_f32(build, build->config, "dim_model_base", &v) && v > 0)
        hf_key_f32(build, "logit_scale", (float)required(build, "hidden_size") / v);
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
    uint32_t n =
        required(build, "max_position_embeddings|n_positions|n_ctx|max_seq_len|seq_length");

    if (window && !(build->row->flags & HF_WINDOW) && window < n)
        n = window;
    hf_key_u32(build, "context_length", n);
}

/* ---------------------------------------------------------------- what must be as expected */

/* How experts are scored and picked: of the best groups only, where there are groups. */
static void write_expert_choice(struct hf_build *build)
{
    const char *score = json_string_value(hf_member(build->config, "scoring_func"));
    const char *method = json_string_value(hf_member(build->config, "topk_method"));
    uint32_t n_groups = 0, n_used = 0;

    if (score && strcmp(score, "sigmoid") != 0 && strcmp(score, "softmax") != 0)
        hf_fail(build, STATUS_UNSUPPORTED, "config.json: the scoring_func `%.40s` is not known",
                score);
    if (score)
        hf_key_u32(build, "expert_gating_func", strcmp(score, "sigmoid") == 0 ? 2 : 1);
    (void)hf_u32(build, build->config, "n_group", &n_groups);
    (void)hf_u32(build, build->config, "topk_group", &n_used);
    if (n_groups <= 1 || (method && strcmp(method, "greedy") == 0))
        return;
    if (method && strcmp(method, "noaux_tc") != 0)
        hf_fail(build, STATUS_UNSUPPORTED, "config.json: the topk_method `%.40s` is not supported",
                method);
    hf_key_u32(build, "expert_group_count", n_groups);
    hf_key_u32(build, "expert_group_used_count", n_used);
}

static void check_experts(struct hf_build *build)
{
    unsigned flags = build->row->flags;
    uint32_t step = 1;
    char key[96];

    if (!hf_member(build->config, "num_local_experts|num_experts|n_routed_experts|moe_num_experts"))
        return;
    write_expert_choice(build);
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

/* 8-bit floats and MXFP4 are read as they are; other quantised forms are not. */
static void check_quantization(struct hf_build *build)
{
    const json_t *quant = hf_member(build->root, "quantization_config");
    const json_t *block = hf_member(quant, "weight_block_size");
    const char *method = json_string_value(hf_member(quant, "quant_method"));
    const char *format = json_string_value(hf_member(quant, "format"));
    bool known = method && (strcmp(method, "fp8") == 0 || strcmp(method, "fbgemm_fp8") == 0 ||
                            strcmp(method, "mxfp4") == 0 ||
                            (strcmp(method, "compressed-tensors") == 0 && format &&
                             strcmp(format, "float-quantized") == 0));

    build->block_rows = build->block_cols = 128;
    if (json_array_size(block) == 2) {
        build->block_rows = (uint64_t)json_integer_value(json_array_get(block, 0));
        build->block_cols = (uint64_t)json_integer_value(json_array_get(block, 1));
    }
    if (build->block_rows - 1 >= 1 << 20 || build->block_cols - 1 >= 1 << 20)
        hf_fail(build, STATUS_FORMAT, "config.json: weight_block_size is out of range");
    if (quant && !known)
        hf_fail(build, STATUS_UNSUPPORTED,
                "the weights are quantised with `%.40s`; skein reads folders of F32, F16, BF16, "
                "FP8 and MXFP4, and other quantised models as GGUF files",
                method ? method : "an unnamed method");
}

static void check_must(struct hf_build *build)
{
    json_t *must = build->row->must ? json_loads(build->row->must, 0, NULL) : NULL, *wanted;
    const char *name;

    json_object_foreach(must, name, wanted)
    {
        const json_t *value = hf_member(build->config, name);
        char *text = value && !json_equal(value, wanted)
                         ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT)
                         : NULL;

        if (text)
            hf_fail(build, STATUS_UNSUPPORTED,
                    "config.json: %s is %.40s, which skein does not support for %s", name, text,
                    build->row->name);
        free(text);
    }
    json_decref(must);
}

/* Some files give a width that is cut to two thirds and rounded up, as gated ones are. */
static uint32_t feed_forward_width(struct hf_build *build, uint32_t n_embd)
{
    uint32_t n_ff, multiple = 256, ratio = 4;
    float factor = 1;

    (void)hf_u32(build, build->config, "expansion_ratio", &ratio);
    if (__builtin_mul_overflow(n_embd, ratio, &n_ff))
        n_ff = 0;
    (void)hf_u32(build, build->config,
                 "intermediate_size_mlp|intermediate_size|n_inner|ffn_hidden_size|block_ff_dim",
                 &n_ff);
    if (!(build->row->flags & HF_CONV) || n_ff > 1 << 24 ||
        !hf_bool(build->config, "block_auto_adjust_ff_dim", false))
        return n_ff;
    (void)hf_f32(build, build->config, "block_ffn_dim_multiplier", &factor);
    (void)hf_u32(build, build->config, "block_multiple_of", &multiple);
    if (!(factor > 0 && factor <= 16) || multiple == 0 || multiple > 1 << 20) {
        hf_fail(build, STATUS_FORMAT, "config.json: the feed-forward's width is out of range");
        return 0;
    }
    n_ff = 2 * n_ff / 3;
    n_ff = (uint32_t)((double)factor * (double)n_ff);
    return (n_ff + multiple - 1) / multiple * multiple;
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
    check_must(build);
    check_experts(build);
    n_embd = required(build, "hidden_size|n_embd|n_embed|d_model");
    build->n_layers = required(build, "num_hidden_layers|n_layer|num_layers|n_layers");
    if (build->n_layers > HF_MAX_LAYERS)
        hf_fail(build, STATUS_LIMIT, "config.json: %u layers, more than %d", build->n_layers,
                HF_MAX_LAYERS);
    if (build->status)
        return;
    n_ff = feed_forward_width(build, n_embd);
    window = window_of(build);
    hf_key_u32(build, "block_count", build->n_layers);
    hf_key_u32(build, "embedding_length", n_embd);
    hf_key_u32(build, "feed_forward_length", n_ff);
    if (hf_u32(build, build->config, "vocab_size", &build->n_vocab))
        hf_key_u32(build, "vocab_size", build->n_vocab);
    write_context(build, window);
    if (!hf_member(build->config, "rms_norm_eps|layer_norm_epsilon|norm_eps"))
        hf_key_f32(build, "attention.layer_norm_rms_epsilon", 1e-6f);
    write_heads(build, n_embd);
    write_latent(build);
    write_delta(build);
    write_plain(build);
    write_scales(build);
    write_window(build, window);
}
