/* Writes a GGUF file of random weights: any shape, any type, at the speed of the disk.
 *
 *   make_gguf --preset llama-1b --type Q4_K_M --out FILE [--NAME VALUE …]
 *
 * For benchmarks and for tests that need a model of a certain size. The model is nonsense but
 * sound: weights have the deviation that keeps activations near 1, logits are finite, the tokenizer
 * (256 bytes, a few merges, numbered words, three control tokens) and the chat template work. Two
 * passes over the same list of tensors: the first counts and lays out, the second writes.
 *
 * --type is one type for all matrices or Q4_K_M (Q4_K with Q6_K in half of the attn_v and ffn_down
 * matrices). The output head and the embedding get --head-type, Q6_K unless the type is wider. Rows
 * that a type's blocks do not divide fall back to Q8_0 or F16. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "make_gguf_shape.h"
#include "proto/base/base.h"
#include "random_blocks.h"

enum { FIRST_WORD = 256 + 5, N_CONTROL = 3, ALIGNMENT = 32 };
enum kind {
    KIND_U32 = 4,
    KIND_I32 = 5,
    KIND_F32 = 6,
    KIND_BOOL = 7,
    KIND_TEXT = 8,
    KIND_ARRAY = 9
};

struct maker {
    struct shape shape;
    const char *type;
    const char *head_type;
    struct random random;
    struct buffer header;
    FILE *out; /* NULL in the pass that lays out */
    uint64_t n_tensors;
    uint64_t offset;
    enum status status;
};

/* ---------------------------------------------------------------- metadata */

static void put(struct maker *m, enum status status)
{
    m->status = m->status ? m->status : status;
}

static void put_text(struct maker *m, const char *text)
{
    put(m, buffer_put_u64(&m->header, strlen(text)));
    put(m, buffer_put_text(&m->header, text));
}

static void put_key(struct maker *m, const char *prefix, const char *key, enum kind kind)
{
    put(m, buffer_put_u64(&m->header, strlen(prefix) + strlen(key)));
    put(m, buffer_put_text(&m->header, prefix));
    put(m, buffer_put_text(&m->header, key));
    put(m, buffer_put_u32(&m->header, kind));
}

static void key_text(struct maker *m, const char *key, const char *text)
{
    put_key(m, "", key, KIND_TEXT);
    put_text(m, text);
}

static void key_u32(struct maker *m, const char *key, uint32_t value)
{
    char prefix[40];

    (void)snprintf(prefix, sizeof prefix, "%.30s.", m->shape.arch);
    put_key(m, strncmp(key, "tokenizer.", 10) == 0 ? "" : prefix, key, KIND_U32);
    put(m, buffer_put_u32(&m->header, value));
}

static void key_f32(struct maker *m, const char *key, float value)
{
    char prefix[40];
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    (void)snprintf(prefix, sizeof prefix, "%.30s.", m->shape.arch);
    put_key(m, prefix, key, KIND_F32);
    put(m, buffer_put_u32(&m->header, bits));
}

static void key_array(struct maker *m, const char *key, enum kind kind, uint64_t n)
{
    put_key(m, "", key, KIND_ARRAY);
    put(m, buffer_put_u32(&m->header, kind));
    put(m, buffer_put_u64(&m->header, n));
}

/* GPT-2's byte alphabet: printable bytes stand for themselves, the others for U+0100 onwards. */
static void byte_token(unsigned byte, char out[4])
{
    unsigned code = byte, shift = 0;

    for (unsigned b = 0; b < byte; b++)
        shift += !((b > 32 && b < 127) || (b > 160 && b != 173));
    if (!((byte > 32 && byte < 127) || (byte > 160 && byte != 173)))
        code = 256 + shift;
    memset(out, 0, 4);
    if (code < 128) {
        out[0] = (char)code;
    } else {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 63));
    }
}

static const char *const merges[] = {"\xc4\xa0 t", "h e", "\xc4\xa0t he", "i n", "e r"};

static void token_text(const struct maker *m, uint32_t id, char *out, size_t size)
{
    static const char *const merged[] = {"\xc4\xa0t", "he", "\xc4\xa0the", "in", "er"};
    static const char *const control[N_CONTROL] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};

    if (id < 256)
        byte_token(id, out);
    else if (id < FIRST_WORD)
        (void)snprintf(out, size, "%s", merged[id - 256]);
    else if (id >= m->shape.vocab - N_CONTROL)
        (void)snprintf(out, size, "%s", control[id - (m->shape.vocab - N_CONTROL)]);
    else
        (void)snprintf(out, size, "\xc4\xa0w%u", id);
}

static void put_tokenizer(struct maker *m)
{
    uint32_t n = m->shape.vocab;
    char text[32];

    key_text(m, "tokenizer.ggml.model", "gpt2");
    key_text(m, "tokenizer.ggml.pre", "gpt-2");
    key_array(m, "tokenizer.ggml.tokens", KIND_TEXT, n);
    for (uint32_t i = 0; i < n; i++) {
        token_text(m, i, text, sizeof text);
        put_text(m, text);
    }
    key_array(m, "tokenizer.ggml.token_type", KIND_I32, n);
    for (uint32_t i = 0; i < n; i++)
        put(m, buffer_put_u32(&m->header, i >= n - N_CONTROL ? 3 : 1));
    key_array(m, "tokenizer.ggml.merges", KIND_TEXT, COUNT_OF(merges));
    for (size_t i = 0; i < COUNT_OF(merges); i++)
        put_text(m, merges[i]);
    key_u32(m, "tokenizer.ggml.bos_token_id", n - 3);
    key_u32(m, "tokenizer.ggml.eos_token_id", n - 1);
    put_key(m, "", "tokenizer.ggml.add_bos_token", KIND_BOOL);
    put(m, buffer_put_u8(&m->header, 0));
    key_text(m, "tokenizer.chat_template",
             "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
             "message['content'] + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}"
             "{{ '<|im_start|>assistant\\n' }}{% endif %}");
}

/* Returns the number of keys. */
static uint64_t put_metadata(struct maker *m, const char *name)
{
    const struct shape *s = &m->shape;
    const struct {
        const char *key;
        uint32_t value;
    } numbers[] = {
        {"context_length", s->context},
        {"embedding_length", s->embd},
        {"block_count", s->layers},
        {"feed_forward_length", s->ffn},
        {"attention.head_count", s->heads},
        {"attention.head_count_kv", s->kv_heads},
        {"attention.key_length", s->head_dim},
        {"attention.value_length", s->head_dim},
        {"rope.dimension_count", s->head_dim},
        {"vocab_size", s->vocab},
        {"expert_count", s->experts},
        {"expert_used_count", s->experts_used},
        {"expert_feed_forward_length", s->expert_ffn},
    };
    size_t n_numbers = COUNT_OF(numbers) - (s->experts ? 0 : 3);

    key_text(m, "general.architecture", s->arch);
    key_text(m, "general.name", name);
    for (size_t i = 0; i < n_numbers; i++)
        key_u32(m, numbers[i].key, numbers[i].value);
    key_f32(m, "rope.freq_base", s->rope_base);
    key_f32(m, "attention.layer_norm_rms_epsilon", 1e-6f);
    put_tokenizer(m);
    return 4 + n_numbers + 9;
}

/* ---------------------------------------------------------------- tensors */

static const struct block_type *fitting_type(const char *name, uint64_t row)
{
    const struct block_type *type = block_type_find(name);

    if (type && row % type->values)
        type = block_type_find(row % 32 == 0 ? "Q8_0" : "F16");
    return type;
}

static void tensor(struct maker *m, const char *name, const char *type_name, float deviation,
                   uint64_t d0, uint64_t d1, uint64_t d2)
{
    float mean = strstr(name, "norm") ? 1 : 0;
    const struct block_type *type = fitting_type(type_name, d0);
    uint64_t n_values = d0 * d1 * d2, bytes, dims[3] = {d0, d1, d2};
    uint32_t n_dims = d2 > 1 ? 3 : d1 > 1 ? 2 : 1;
    static const char zeros[ALIGNMENT];
    size_t padding;

    if (!type) {
        put(m, STATUS_NOT_FOUND);
        return;
    }
    bytes = n_values / type->values * type->bytes;
    padding = (ALIGNMENT - bytes % ALIGNMENT) % ALIGNMENT;
    if (m->out) {
        if (!random_blocks_write(m->out, type, n_values, mean, deviation, &m->random) ||
            fwrite(zeros, 1, padding, m->out) != padding)
            put(m, STATUS_IO);
        return;
    }
    put_text(m, name);
    put(m, buffer_put_u32(&m->header, n_dims));
    for (uint32_t i = 0; i < n_dims; i++)
        put(m, buffer_put_u64(&m->header, dims[i]));
    put(m, buffer_put_u32(&m->header, type->number));
    put(m, buffer_put_u64(&m->header, m->offset));
    m->offset += bytes + padding;
    m->n_tensors++;
}

static void layer_tensor(struct maker *m, uint32_t layer, const char *name, uint64_t d0,
                         uint64_t d1, uint64_t d2)
{
    bool norm = strstr(name, "norm") != NULL;
    bool down = strstr(name, "output") || strstr(name, "down");
    float deviation = norm ? 0.1f : 1 / sqrtf((float)d0);
    const char *type = norm || strstr(name, "gate_inp") ? "F32" : m->type;
    char full[64];

    if (strcmp(type, "Q4_K_M") == 0) {
        uint32_t n = m->shape.layers;
        bool more = layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
        bool wide = strstr(name, "attn_v") || strstr(name, "ffn_down");

        type = more && wide ? "Q6_K" : "Q4_K";
    }
    if (down)
        deviation /= sqrtf(2 * (float)m->shape.layers);
    (void)snprintf(full, sizeof full, "blk.%u.%s.weight", layer, name);
    tensor(m, full, type, deviation, d0, d1, d2);
}

static void layer_tensors(struct maker *m, uint32_t layer)
{
    const struct shape *s = &m->shape;
    uint64_t q = (uint64_t)s->heads * s->head_dim, kv = (uint64_t)s->kv_heads * s->head_dim;

    layer_tensor(m, layer, "attn_norm", s->embd, 1, 1);
    layer_tensor(m, layer, "attn_q", s->embd, q, 1);
    layer_tensor(m, layer, "attn_k", s->embd, kv, 1);
    layer_tensor(m, layer, "attn_v", s->embd, kv, 1);
    layer_tensor(m, layer, "attn_output", q, s->embd, 1);
    if (s->head_norms) {
        layer_tensor(m, layer, "attn_q_norm", s->head_dim, 1, 1);
        layer_tensor(m, layer, "attn_k_norm", s->head_dim, 1, 1);
    }
    layer_tensor(m, layer, "ffn_norm", s->embd, 1, 1);
    if (s->experts) {
        layer_tensor(m, layer, "ffn_gate_inp", s->embd, s->experts, 1);
        layer_tensor(m, layer, "ffn_gate_exps", s->embd, s->expert_ffn, s->experts);
        layer_tensor(m, layer, "ffn_up_exps", s->embd, s->expert_ffn, s->experts);
        layer_tensor(m, layer, "ffn_down_exps", s->expert_ffn, s->embd, s->experts);
        return;
    }
    layer_tensor(m, layer, "ffn_gate", s->embd, s->ffn, 1);
    layer_tensor(m, layer, "ffn_up", s->embd, s->ffn, 1);
    layer_tensor(m, layer, "ffn_down", s->ffn, s->embd, 1);
}

static void all_tensors(struct maker *m)
{
    const struct shape *s = &m->shape;
    float deviation = 1 / sqrtf((float)s->embd);

    tensor(m, "token_embd.weight", m->head_type, deviation, s->embd, s->vocab, 1);
    tensor(m, "output_norm.weight", "F32", 0.1f, s->embd, 1, 1);
    if (!s->tied)
        tensor(m, "output.weight", m->head_type, deviation, s->embd, s->vocab, 1);
    for (uint32_t layer = 0; layer < s->layers; layer++)
        layer_tensors(m, layer);
}

/* ---------------------------------------------------------------- file */

static enum status write_header(struct maker *m, const char *name, FILE *out)
{
    struct buffer tensors;
    uint64_t n_keys;
    uint8_t start[24] = "GGUF\x03";

    all_tensors(m);
    tensors = m->header;
    m->header = (struct buffer){0};
    n_keys = put_metadata(m, name);
    bytes_put_u32(start + 8, (uint32_t)m->n_tensors);
    bytes_put_u32(start + 16, (uint32_t)n_keys);
    put(m, buffer_put(&m->header, tensors.data, tensors.len));
    while ((sizeof start + m->header.len) % ALIGNMENT)
        put(m, buffer_put_u8(&m->header, 0));
    if (!m->status && (fwrite(start, sizeof start, 1, out) != 1 ||
                       fwrite(m->header.data, m->header.len, 1, out) != 1))
        put(m, STATUS_IO);
    buffer_free(&tensors);
    buffer_free(&m->header);
    return m->status;
}

static enum status write_file(struct maker *m, const char *path)
{
    const char *slash = strrchr(path, '/');
    FILE *out = fopen(path, "wb");
    char name[128];

    if (!out)
        return STATUS_IO;
    (void)snprintf(name, sizeof name, "%s", slash ? slash + 1 : path);
    if (strlen(name) > 5 && strcmp(name + strlen(name) - 5, ".gguf") == 0)
        name[strlen(name) - 5] = 0;
    if (write_header(m, name, out) == STATUS_OK) {
        m->out = out;
        all_tensors(m);
    }
    if (fclose(out) != 0)
        put(m, STATUS_IO);
    return m->status;
}

static bool is_narrow(const char *type)
{
    return strncmp(type, "Q8", 2) != 0 && type[0] == 'Q';
}

static int usage(const char *why)
{
    (void)fprintf(stderr,
                  "make_gguf: %s\n"
                  "make_gguf --preset llama-1b|llama-8b|qwen3-0.6b|qwen3-8b|qwen3-30b-a3b|small\n"
                  "          --type F32|F16|BF16|Q8_0|Q4_0|Q4_K|Q6_K|Q4_K_M|... --out FILE\n"
                  "          [--head-type T] [--seed N] [--arch A] [--layers N] [--embd N]\n"
                  "          [--heads N] [--kv-heads N] [--head-dim N] [--ffn N] [--experts N]\n"
                  "          [--experts-used N] [--expert-ffn N] [--vocab N] [--context N]\n"
                  "          [--tied yes|no]\n",
                  why);
    return 64;
}

static bool option(struct maker *m, const char *name, const char *value, const char **path)
{
    if (strcmp(name, "preset") == 0 && shape_find(value))
        m->shape = *shape_find(value);
    else if (strcmp(name, "type") == 0)
        m->type = value;
    else if (strcmp(name, "head-type") == 0)
        m->head_type = value;
    else if (strcmp(name, "out") == 0)
        *path = value;
    else if (strcmp(name, "seed") == 0)
        m->random.state = strtoull(value, NULL, 10);
    else
        return shape_set(&m->shape, name, value);
    return true;
}

int main(int argc, char **argv)
{
    struct maker m = {.shape = *shape_find("small"), .type = "Q8_0"};
    const char *path = NULL;
    enum status status;

    for (int i = 1; i < argc; i += 2) {
        if (strncmp(argv[i], "--", 2) != 0 || i + 1 == argc ||
            !option(&m, argv[i] + 2, argv[i + 1], &path))
            return usage(argv[i]);
    }
    if (!path || m.shape.vocab < FIRST_WORD + N_CONTROL || m.shape.layers == 0)
        return usage("--out is missing, or the shape is too small");
    if (!m.head_type)
        m.head_type = is_narrow(m.type) ? "Q6_K" : m.type;
    status = write_file(&m, path);
    if (status != STATUS_OK)
        (void)fprintf(stderr, "make_gguf: %s: %s\n", path, status_words(status));
    return status_exit_code(status);
}
