/* A GGUF writer for tests: small, and willing to write nonsense. */
#include "tests/unit/engine/gguf_make.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(enum status status)
{
    if (status)
        abort();
}

void make_string(struct buffer *b, const char *text)
{
    must(buffer_put_u64(b, strlen(text)));
    must(buffer_put(b, text, strlen(text)));
}

void make_key(struct gguf_maker *m, const char *key, uint32_t kind)
{
    make_string(&m->values, key);
    must(buffer_put_u32(&m->values, kind));
    m->n_values++;
}

void make_u32(struct gguf_maker *m, const char *key, uint32_t v)
{
    make_key(m, key, GGUF_U32);
    must(buffer_put_u32(&m->values, v));
}

void make_f32(struct gguf_maker *m, const char *key, float v)
{
    make_key(m, key, GGUF_F32);
    must(buffer_put(&m->values, &v, sizeof v));
}

void make_text(struct gguf_maker *m, const char *key, const char *v)
{
    make_key(m, key, GGUF_STRING);
    make_string(&m->values, v);
}

void make_tensor_at(struct gguf_maker *m, const char *name, uint32_t type, uint32_t n_dims,
                    const uint64_t *dims, uint64_t offset)
{
    make_string(&m->tensors, name);
    must(buffer_put_u32(&m->tensors, n_dims));
    for (uint32_t d = 0; d < n_dims; d++)
        must(buffer_put_u64(&m->tensors, dims[d]));
    must(buffer_put_u32(&m->tensors, type));
    must(buffer_put_u64(&m->tensors, offset));
    m->n_tensors++;
}

void make_tensor(struct gguf_maker *m, const char *name, uint64_t d0, uint64_t d1)
{
    uint64_t dims[2] = {d0, d1};

    make_tensor_at(m, name, TENSOR_F32, d1 > 1 ? 2 : 1, dims, m->data_bytes);
    m->data_bytes = (m->data_bytes + d0 * d1 * sizeof(float) + 31) / 32 * 32;
}

void make_llama(struct gguf_maker *m)
{
    static const char *const tokens[8] = {"<unk>", "<s>", "</s>", "a", "b", "c", "ab", "abc"};

    make_text(m, "general.architecture", "llama");
    make_text(m, "general.name", "test");
    make_u32(m, "llama.block_count", 2);
    make_u32(m, "llama.embedding_length", 32);
    make_u32(m, "llama.context_length", 64);
    make_u32(m, "llama.feed_forward_length", 32);
    make_u32(m, "llama.attention.head_count", 2);
    make_u32(m, "llama.attention.head_count_kv", 1);
    make_f32(m, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    make_text(m, "tokenizer.ggml.model", "llama");
    make_key(m, "tokenizer.ggml.tokens", GGUF_ARRAY);
    must(buffer_put_u32(&m->values, GGUF_STRING));
    must(buffer_put_u64(&m->values, 8));
    for (int i = 0; i < 8; i++)
        make_string(&m->values, tokens[i]);
    make_key(m, "tokenizer.ggml.scores", GGUF_ARRAY);
    must(buffer_put_u32(&m->values, GGUF_F32));
    must(buffer_put_u64(&m->values, 8));
    for (int i = 0; i < 8; i++) {
        float score = (float)-i;

        must(buffer_put(&m->values, &score, sizeof score));
    }
    make_tensor(m, "token_embd.weight", 32, 8);
    make_tensor(m, "output_norm.weight", 32, 1);
    for (unsigned il = 0; il < 2; il++) {
        static const struct {
            const char *name;
            uint64_t d0, d1;
        } tensors[] = {{"attn_norm", 32, 1}, {"attn_q", 32, 32},      {"attn_k", 32, 16},
                       {"attn_v", 32, 16},   {"attn_output", 32, 32}, {"ffn_norm", 32, 1},
                       {"ffn_gate", 32, 32}, {"ffn_up", 32, 32},      {"ffn_down", 32, 32}};

        for (size_t i = 0; i < COUNT_OF(tensors); i++) {
            char name[64];

            snprintf(name, sizeof name, "blk.%u.%s.weight", il, tensors[i].name);
            make_tensor(m, name, tensors[i].d0, tensors[i].d1);
        }
    }
}

struct gguf_text make_file(struct gguf_maker *m, uint32_t version)
{
    static const uint8_t zero[4096];
    struct buffer *f = &m->file;

    buffer_free(f);
    must(buffer_put(f, "GGUF", 4));
    must(buffer_put_u32(f, version));
    must(buffer_put_u64(f, m->n_tensors));
    must(buffer_put_u64(f, m->n_values));
    if (m->values.len)
        must(buffer_put(f, m->values.data, m->values.len));
    if (m->tensors.len)
        must(buffer_put(f, m->tensors.data, m->tensors.len));
    must(buffer_put(f, zero, (32 - f->len % 32) % 32));
    for (uint64_t left = m->data_bytes; left;) {
        size_t n = left < sizeof zero ? (size_t)left : sizeof zero;

        must(buffer_put(f, zero, n));
        left -= n;
    }
    return (struct gguf_text){(const char *)f->data, f->len};
}

void gguf_maker_free(struct gguf_maker *m)
{
    buffer_free(&m->values);
    buffer_free(&m->tensors);
    buffer_free(&m->file);
}
