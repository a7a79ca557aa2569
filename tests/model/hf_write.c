/* The way from GGUF to a Hugging Face folder, for tests.
 *
 * Values are decoded to float32 and moved to where the families' published code has them; every op
 * is a plain loop over the target's indices. Nothing is shared with engine/hf, so that the two have
 * to agree. */
#include "tests/model/hf_write.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/file/source.h"

struct values { /* [mats, rows, cols] */
    uint64_t mats, rows, cols;
    float *v;
};

struct writing {
    const struct gguf *gguf;
    const struct hf_family *family;
    const char *arch;
    struct hf_file file;
};

/* ---------------------------------------------------------------- the file */

void hf_put(struct hf_file *file, const char *name, const char *dtype, uint32_t n_dims,
            const uint64_t *dims, const void *bytes, size_t n_bytes)
{
    json_t *shape = json_array();
    json_int_t begin = (json_int_t)file->data.len;

    if (!file->header)
        file->header = json_object();
    for (uint32_t d = 0; d < n_dims; d++)
        json_array_append_new(shape, json_integer((json_int_t)dims[d]));
    json_object_set_new(file->header, name,
                        json_pack("{s:s,s:o,s:[I,I]}", "dtype", dtype, "shape", shape,
                                  "data_offsets", begin, begin + (json_int_t)n_bytes));
    assert_int_equal(buffer_put(&file->data, bytes, n_bytes), STATUS_OK);
}

void hf_close(struct hf_file *file, const char *path)
{
    char *text = json_dumps(file->header, JSON_COMPACT);
    uint64_t n = strlen(text);
    FILE *out = fopen(path, "wb");

    assert_non_null(out);
    fwrite(&n, 8, 1, out);
    fwrite(text, 1, n, out);
    assert_int_equal(fwrite(file->data.data, 1, file->data.len, out), file->data.len);
    assert_int_equal(fclose(out), 0);
    free(text);
    json_decref(file->header);
    buffer_free(&file->data);
    file->header = NULL;
}

static void put_values(struct writing *w, const char *name, uint32_t n_dims, const uint64_t *dims,
                       const float *v)
{
    uint64_t n = 1;

    for (uint32_t d = 0; d < n_dims; d++)
        n *= dims[d];
    hf_put(&w->file, name, "F32", n_dims, dims, v, n * sizeof(float));
}

/* ---------------------------------------------------------------- values */

static uint32_t number(const struct writing *w, const char *suffix, uint32_t fallback)
{
    char key[128];
    uint32_t v = fallback;

    snprintf(key, sizeof key, "%s.%s", w->arch, suffix);
    (void)gguf_get_u32(w->gguf, key, &v);
    return v;
}

static const struct gguf_tensor *find(const struct writing *w, int layer, const char *part,
                                      const char *suffix)
{
    char name[128];
    const struct gguf_tensor *tensor;

    snprintf(name, sizeof name, "blk.%d.%s%s", layer, part, suffix);
    tensor = gguf_tensor_find(w->gguf, name);
    if (!tensor)
        fail_msg("no tensor %s", name);
    return tensor;
}

static struct values values_of(const struct gguf_tensor *t)
{
    struct values a = {t->dims[2], t->dims[1], t->dims[0], malloc(t->n_values * sizeof(float))};

    tensor_values(t, a.v);
    return a;
}

static struct values part_of(const struct writing *w, int layer, const char *part,
                             const char *suffix)
{
    return values_of(find(w, layer, part, suffix));
}

static uint32_t head_dim(const struct writing *w)
{
    return number(w, "attention.key_length",
                  number(w, "embedding_length", 0) / number(w, "attention.head_count", 1));
}

/* Rows of pairs (of a bias: values) become halves. */
static void unpair(const struct writing *w, struct values *a, bool vector)
{
    uint64_t head = head_dim(w), cols = vector ? 1 : a->cols;
    uint64_t rows = vector ? a->cols : a->rows;
    float *out = malloc(rows * cols * sizeof(float));

    for (uint64_t r = 0; r < rows; r++) {
        uint64_t h = r / head, i = r % head;
        uint64_t from = h * head + (i < head / 2 ? 2 * i : 2 * (i - head / 2) + 1);

        memcpy(out + r * cols, a->v + from * cols, cols * sizeof(float));
    }
    free(a->v);
    a->v = out;
}

/* ---------------------------------------------------------------- ops */

static void put_each(struct writing *w, const char *pattern, const struct values *a, bool vectors)
{
    uint64_t n = vectors ? a->rows : a->mats, each = vectors ? a->cols : a->rows * a->cols;
    uint64_t dims[2] = {vectors ? a->cols : a->rows, a->cols};

    for (uint64_t i = 0; i < n; i++) {
        char name[160];
        const char *at = strstr(pattern, "%u");

        snprintf(name, sizeof name, "%.*s%u%s", (int)(at - pattern), pattern, (unsigned)i, at + 2);
        put_values(w, name, vectors ? 1 : 2, dims, a->v + i * each);
    }
}

static void put_transposed(struct writing *w, const char *name, const struct values *a, bool three)
{
    float *out = malloc(a->mats * a->rows * a->cols * sizeof(float));
    uint64_t dims[3] = {a->mats, a->cols, a->rows};

    for (uint64_t m = 0; m < a->mats; m++)
        for (uint64_t c = 0; c < a->cols; c++)
            for (uint64_t r = 0; r < a->rows; r++)
                out[(m * a->cols + c) * a->rows + r] = a->v[(m * a->rows + r) * a->cols + c];
    put_values(w, name, three ? 3 : 2, three ? dims : dims + 1, out);
    free(out);
}

/* queries, keys, values: [rows, cols] each, for a bias cols = 1 → by KV head. */
static void put_grouped(struct writing *w, const char *name, const float *q, const float *k,
                        const float *v, uint64_t cols, bool vector)
{
    uint64_t kv = number(w, "attention.head_count_kv", 1), head = head_dim(w);
    uint64_t group = number(w, "attention.head_count", 1) / kv;
    uint64_t dims[2] = {kv * (group + 2) * head, cols};
    float *out = malloc(dims[0] * cols * sizeof(float)), *at = out;

    for (uint64_t g = 0; g < kv; g++) {
        memcpy(at, q + g * group * head * cols, group * head * cols * sizeof(float));
        at += group * head * cols;
        memcpy(at, k + g * head * cols, head * cols * sizeof(float));
        at += head * cols;
        memcpy(at, v + g * head * cols, head * cols * sizeof(float));
        at += head * cols;
    }
    put_values(w, name, vector ? 1 : 2, dims, out);
    free(out);
}

static void put_fused_qkv(struct writing *w, const char *name, const struct values *a, bool vector,
                          bool split)
{
    uint64_t head = head_dim(w), cols = vector ? 1 : a->cols;
    uint64_t n_q = number(w, "attention.head_count", 1) * head;
    uint64_t n_k = number(w, "attention.head_count_kv", 1) * head;
    const float *v[3] = {a->v, a->v + n_q * cols, a->v + (n_q + n_k) * cols};

    if (!split) {
        put_grouped(w, name, v[0], v[1], v[2], cols, vector);
        return;
    }
    for (int i = 0; i < 3; i++) {
        uint64_t dims[2] = {i ? n_k : n_q, cols};
        char one[160];

        snprintf(one, sizeof one, "%s", name);
        *strchr(one, '%') = "qkv"[i];
        put_values(w, one, vector ? 1 : 2, dims, v[i]);
    }
}

/* gate above up, or both in turn. */
static struct values both_of(const struct values *gate, const struct values *up, bool in_turn)
{
    struct values a = {gate->mats, 2 * gate->rows, gate->cols, NULL};

    a.v = malloc(a.mats * a.rows * a.cols * sizeof(float));
    for (uint64_t m = 0; m < a.mats; m++) {
        for (uint64_t r = 0; r < gate->rows; r++) {
            uint64_t from = (m * gate->rows + r) * a.cols, to = m * a.rows;

            memcpy(a.v + (to + (in_turn ? 2 * r : r)) * a.cols, gate->v + from,
                   a.cols * sizeof(float));
            memcpy(a.v + (to + (in_turn ? 2 * r + 1 : gate->rows + r)) * a.cols, up->v + from,
                   a.cols * sizeof(float));
        }
    }
    return a;
}

static void put_both(struct writing *w, int layer, const char *part, const char *suffix,
                     const char *name, enum hf_op op)
{
    bool bias = strcmp(suffix, ".bias") == 0;
    char other[64];
    struct values gate = part_of(w, layer, part, suffix), up, a;
    uint64_t dims[3];

    snprintf(other, sizeof other, "ffn_up%s", part + strlen("ffn_gate"));
    up = part_of(w, layer, other, suffix);
    if (bias) { /* [experts, values] as matrices of one column */
        gate = (struct values){gate.rows, gate.cols, 1, gate.v};
        up = (struct values){up.rows, up.cols, 1, up.v};
    }
    a = both_of(&gate, &up, op == EVEN_ODD);
    dims[0] = a.mats;
    dims[1] = a.rows;
    dims[2] = a.cols;
    if (op == HALVES_T)
        put_transposed(w, name, &a, true);
    else if (bias)
        put_values(w, name, 2, dims, a.v);
    else if (a.mats > 1)
        put_values(w, name, 3, dims, a.v);
    else
        put_values(w, name, 2, dims + 1, a.v);
    free(gate.v);
    free(up.v);
    free(a.v);
}

/* A row of MXFP4 blocks as codes side by side, and exponents. */
static void split_fp4(const uint8_t *blocks, uint64_t n_blocks, uint8_t *codes, uint8_t *exponents)
{
    for (uint64_t b = 0; b < n_blocks; b++, blocks += 17, codes += 16) {
        uint8_t values[32];

        exponents[b] = blocks[0];
        for (int j = 0; j < 16; j++) {
            values[j] = blocks[1 + j] & 15;
            values[j + 16] = blocks[1 + j] >> 4;
        }
        for (int j = 0; j < 16; j++)
            codes[j] = (uint8_t)(values[2 * j] | values[2 * j + 1] << 4);
    }
}

static void put_fp4(struct writing *w, int layer, const char *part, const char *name, bool both)
{
    const struct gguf_tensor *one = find(w, layer, part, ".weight");
    const struct gguf_tensor *two = both ? find(w, layer, "ffn_up_exps", ".weight") : NULL;
    uint64_t n_blocks = one->dims[0] / 32, rows = one->dims[1] * (both ? 2 : 1);
    uint64_t dims[4] = {one->dims[2], rows, n_blocks, 16};
    uint64_t n = dims[0] * rows * n_blocks;
    uint8_t *codes = malloc(n * 16), *exponents = malloc(n);
    char other[168];

    assert_int_equal(one->type, TENSOR_MXFP4);
    for (uint64_t r = 0; r < dims[0] * rows; r++) {
        const struct gguf_tensor *from = both && r % 2 ? two : one;
        uint64_t row = both ? r / 2 : r;

        split_fp4((const uint8_t *)from->data + row * n_blocks * 17, n_blocks,
                  codes + r * n_blocks * 16, exponents + r * n_blocks);
    }
    snprintf(other, sizeof other, "%s_blocks", name);
    hf_put(&w->file, other, "U8", 4, dims, codes, n * 16);
    snprintf(other, sizeof other, "%s_scales", name);
    hf_put(&w->file, other, "U8", 3, dims, exponents, n);
    free(codes);
    free(exponents);
}

/* Per head the rows of k_b, which GGUF has transposed, then those of v_b. */
static void put_latent(struct writing *w, int layer, const char *name)
{
    struct values k = part_of(w, layer, "attn_k_b", ".weight");
    struct values v = part_of(w, layer, "attn_v_b", ".weight");
    uint64_t rank = k.rows, nope = k.cols, n_v = v.rows;
    uint64_t dims[2] = {k.mats * (nope + n_v), rank};
    float *out = malloc(dims[0] * rank * sizeof(float)), *at = out;

    for (uint64_t h = 0; h < k.mats; h++) {
        for (uint64_t d = 0; d < nope; d++)
            for (uint64_t r = 0; r < rank; r++)
                *at++ = k.v[(h * rank + r) * nope + d];
        memcpy(at, v.v + h * n_v * rank, n_v * rank * sizeof(float));
        at += n_v * rank;
    }
    put_values(w, name, 2, dims, out);
    free(k.v);
    free(v.v);
    free(out);
}

/* Per key head its query and key, then values and gates of the value heads that go with it. */
static void put_delta(struct writing *w, int layer, const char *name)
{
    struct values qkv = part_of(w, layer, "attn_qkv", ".weight");
    struct values z = part_of(w, layer, "attn_gate", ".weight");
    uint64_t keys = number(w, "ssm.group_count", 1), head = number(w, "ssm.state_size", 1);
    uint64_t per = number(w, "ssm.time_step_rank", 1) / keys * head, cols = qkv.cols;
    uint64_t dims[2] = {qkv.rows + z.rows, cols};
    float *out = malloc(dims[0] * cols * sizeof(float)), *at = out;

    for (uint64_t h = 0; h < keys; h++) {
        const struct {
            const float *from;
            uint64_t rows;
        } parts[4] = {{qkv.v + h * head * cols, head},
                      {qkv.v + (keys + h) * head * cols, head},
                      {qkv.v + (2 * keys * head + h * per) * cols, per},
                      {z.v + h * per * cols, per}};

        for (int i = 0; i < 4; i++) {
            memcpy(at, parts[i].from, parts[i].rows * cols * sizeof(float));
            at += parts[i].rows * cols;
        }
    }
    put_values(w, name, 2, dims, out);
    free(qkv.v);
    free(z.v);
    free(out);
}

static void put_apart(struct writing *w, int layer, const char *name)
{
    struct values q = part_of(w, layer, "attn_q", ".weight");
    struct values k = part_of(w, layer, "attn_k", ".weight");
    struct values v = part_of(w, layer, "attn_v", ".weight");

    if (w->family->flags & HF_UNPAIR) {
        unpair(w, &q, false);
        unpair(w, &k, false);
    }
    put_grouped(w, name, q.v, k.v, v.v, q.cols, false);
    free(q.v);
    free(k.v);
    free(v.v);
}

/* ---------------------------------------------------------------- tensors */

static const struct hf_rule common[] = {
    {"attn_norm", "input_layernorm", PLAIN},
    {"attn_q", "self_attn.q_proj", PLAIN},
    {"attn_k", "self_attn.k_proj", PLAIN},
    {"attn_v", "self_attn.v_proj", PLAIN},
    {"attn_output", "self_attn.o_proj", PLAIN},
    {"attn_q_norm", "self_attn.q_norm", PLAIN},
    {"attn_k_norm", "self_attn.k_norm", PLAIN},
    {"ffn_norm", "post_attention_layernorm", PLAIN},
    {"ffn_gate", "mlp.gate_proj", PLAIN},
    {"ffn_up", "mlp.up_proj", PLAIN},
    {"ffn_down", "mlp.down_proj", PLAIN},
    {"ffn_gate_inp", "mlp.gate", PLAIN},
    {"ffn_gate_exps", "mlp.experts.%u.gate_proj", EXPERTS},
    {"ffn_up_exps", "mlp.experts.%u.up_proj", EXPERTS},
    {"ffn_down_exps", "mlp.experts.%u.down_proj", EXPERTS},
    {"ffn_gate_shexp", "mlp.shared_experts.gate_proj", PLAIN},
    {"ffn_up_shexp", "mlp.shared_experts.up_proj", PLAIN},
    {"ffn_down_shexp", "mlp.shared_experts.down_proj", PLAIN},
    {"exp_probs_b.bias", "mlp.gate.e_score_correction_bias", PLAIN},
    {"token_embd", "model.embed_tokens", PLAIN},
    {"output_norm", "model.norm", PLAIN},
    {"output", "lm_head", PLAIN},
    {NULL, NULL, PLAIN},
};

static const struct hf_rule *rule_in(const struct hf_rule *rules, const char *part,
                                     const char *suffix)
{
    char whole[128];

    snprintf(whole, sizeof whole, "%s%s", part, suffix);
    for (; rules && rules->from; rules++) {
        if (strcmp(rules->from, whole) == 0 || strcmp(rules->from, part) == 0)
            return rules;
    }
    return NULL;
}

static void put_one(struct writing *w, const struct gguf_tensor *t, const char *part,
                    const char *name, enum hf_op op)
{
    struct values a = values_of(t);
    bool vector = t->n_dims == 1;
    uint64_t dims[3] = {a.mats, a.rows, a.cols}, middle[3] = {a.rows, 1, a.cols};

    if ((w->family->flags & HF_UNPAIR) && (!strcmp(part, "attn_q") || !strcmp(part, "attn_k")))
        unpair(w, &a, vector);
    for (uint64_t i = 0; i < t->n_values; i++) {
        if ((w->family->flags & HF_MINUS_ONE) && strcmp(part, "ssm_norm") != 0 && vector &&
            strlen(part) > 4 && strcmp(part + strlen(part) - 4, "norm") == 0 &&
            !strstr(name, ".bias"))
            a.v[i] -= 1;
        if (op == LOG_MINUS)
            a.v[i] = logf(-a.v[i]);
    }
    if (op == EXPERTS)
        put_each(w, name, &a, false);
    else if (op == HEAD_ROWS)
        put_each(w, name, &a, true);
    else if (op == FUSED_T || op == TRANSPOSE)
        put_transposed(w, name, &a, op == FUSED_T);
    else if (op == SPLIT_QKV || op == GROUP_QKV)
        put_fused_qkv(w, name, &a, vector, op == SPLIT_QKV);
    else if (op == MIDDLE_1)
        put_values(w, name, 3, middle, a.v);
    else if (op == FRONT_1)
        put_values(w, name, 2, (uint64_t[]){1, a.cols}, a.v);
    else
        put_values(w, name, t->n_dims, dims + 3 - t->n_dims, a.v);
    free(a.v);
}

static void put_tensor(struct writing *w, const struct gguf_tensor *t)
{
    char text[96], name[160] = "", *part = text, *suffix;
    const struct hf_rule *rule;
    int layer = -1, n = 0;

    snprintf(text, sizeof text, "%.*s", (int)t->name.n_bytes, t->name.data);
    if (sscanf(text, "blk.%d.%n", &layer, &n) == 1) {
        part = text + n;
        snprintf(name, sizeof name, "%s%d.", w->family->layers, layer);
    }
    suffix = strrchr(part, '.');
    if (suffix) {
        const char *copy = strcmp(suffix, ".bias") ? ".weight" : ".bias";

        *suffix = '\0';
        suffix = (char *)(uintptr_t)copy;
    } else {
        suffix = (char *)(uintptr_t) "";
    }
    rule = rule_in(w->family->rules, part, suffix);
    rule = rule ? rule : rule_in(common, part, suffix);
    if (!rule) {
        fail_msg("%s: no rule for %s%s", w->family->name, part, suffix);
        return;
    }
    snprintf(name + strlen(name), sizeof name - strlen(name), "%s%s", rule->to ? rule->to : "",
             strcmp(rule->from, part) == 0 ? suffix : "");
    switch (rule->op) {
    case NOT_WRITTEN:
        break;
    case HALVES:
    case HALVES_T:
    case EVEN_ODD:
        put_both(w, layer, part, suffix, name, rule->op);
        break;
    case EVEN_ODD_FP4:
    case FUSED_FP4:
        put_fp4(w, layer, part, name, rule->op == EVEN_ODD_FP4);
        break;
    case LATENT:
        put_latent(w, layer, name);
        break;
    case DELTA:
        put_delta(w, layer, name);
        break;
    case GROUP_APART:
        put_apart(w, layer, name);
        break;
    default:
        put_one(w, t, part, name, rule->op);
    }
}

/* ---------------------------------------------------------------- config.json */

static const struct hf_setting settings[] = {
    {"hidden_size", "embedding_length"},
    {"num_hidden_layers", "block_count"},
    {"intermediate_size", "feed_forward_length"},
    {"num_attention_heads", "attention.head_count"},
    {"num_key_value_heads", "attention.head_count_kv"},
    {"head_dim", "attention.key_length"},
    {"max_position_embeddings", "context_length"},
    {"vocab_size", "vocab_size"},
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon"},
    {"layer_norm_eps", "attention.layer_norm_epsilon"},
    {"rope_theta", "rope.freq_base"},
    {"num_experts", "expert_count"},
    {"num_experts_per_tok", "expert_used_count"},
    {"moe_intermediate_size", "expert_feed_forward_length"},
    {"sliding_window", "attention.sliding_window"},
};

static void set_member(const struct writing *w, json_t *config, const struct hf_setting *setting)
{
    const struct gguf_value *value;
    char key[128];
    uint32_t whole;
    float v;

    if (!setting->from) {
        json_object_del(config, setting->to);
        return;
    }
    snprintf(key, sizeof key, "%s.%s", w->arch, setting->from);
    value = gguf_find(w->gguf, key);
    if (!value || value->is_array)
        return;
    if (value->kind == GGUF_F32 && gguf_get_f32(w->gguf, key, &v))
        json_object_set_new(config, setting->to, json_real((double)v));
    else if (value->kind == GGUF_BOOL)
        json_object_set_new(config, setting->to, json_boolean(value->data[0]));
    else if (gguf_get_u32(w->gguf, key, &whole))
        json_object_set_new(config, setting->to, json_integer(whole));
}

static void write_config(const struct writing *w, const char *path)
{
    json_t *config =
        json_pack("{s:[s],s:b}", "architectures", w->family->name, "tie_word_embeddings",
                  gguf_tensor_find(w->gguf, "output.weight") == NULL);
    json_t *more = w->family->more ? json_loads(w->family->more, 0, NULL) : json_object();
    uint32_t n_rot = number(w, "rope.dimension_count", 0);

    for (size_t i = 0; i < COUNT_OF(settings); i++)
        set_member(w, config, &settings[i]);
    if (n_rot && n_rot < head_dim(w))
        json_object_set_new(config, "partial_rotary_factor",
                            json_real((double)n_rot / head_dim(w)));
    for (const struct hf_setting *s = w->family->settings; s && s->to; s++)
        set_member(w, config, s);
    assert_non_null(more);
    json_object_update(config, more);
    json_decref(more);
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(config);
}

void hf_write_folder(const struct gguf *gguf, const struct hf_family *family, const char *folder)
{
    struct writing w = {.gguf = gguf, .family = family};
    struct gguf_text text;
    char arch[64], path[512];

    assert_true(gguf_get_text(gguf, "general.architecture", &text));
    snprintf(arch, sizeof arch, "%.*s", (int)text.n_bytes, text.data);
    w.arch = arch;
    for (size_t i = 0; i < gguf_tensor_count(gguf); i++)
        put_tensor(&w, gguf_tensor_at(gguf, i));
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    hf_close(&w.file, path);
    snprintf(path, sizeof path, "%s/config.json", folder);
    write_config(&w, path);
}
