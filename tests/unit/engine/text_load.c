/* See text_load.h. */
#include "tests/unit/engine/text_load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

const char *conformance_folder(void)
{
    const char *folder = getenv("SKEIN_CONFORMANCE");
    return folder == NULL || folder[0] == '\0' ? NULL : folder;
}

char *file_read(const char *path, size_t *n_bytes)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return NULL;
    }
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long size = ftell(file);
    rewind(file);
    char *data = mem_zeroed((size_t)size + 1, 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, (size_t)size, file), size);
    assert_int_equal(fclose(file), 0);
    *n_bytes = (size_t)size;
    return data;
}

static void load(struct loaded *l, const void *data, size_t n_bytes)
{
    struct fault fault = {0};
    assert_int_equal(gguf_parse(data, n_bytes, &l->gguf, &fault), STATUS_OK);
    assert_int_equal(text_new(l->gguf, &l->text, &fault), STATUS_OK);
}

void loaded_from_file(struct loaded *l, const char *path)
{
    size_t n_bytes = 0;
    *l = (struct loaded){0};
    l->bytes = file_read(path, &n_bytes);
    assert_non_null(l->bytes);
    load(l, l->bytes, n_bytes);
}

void loaded_demo(struct loaded *l)
{
    const void *data;
    size_t n_bytes;
    *l = (struct loaded){0};
    model_demo(&data, &n_bytes);
    load(l, data, n_bytes);
}

enum status loaded_from_maker(struct loaded *l, struct fault *fault)
{
    struct gguf_text file = make_file(&l->maker, 3);
    assert_int_equal(gguf_parse(file.data, file.n_bytes, &l->gguf, fault), STATUS_OK);
    return text_new(l->gguf, &l->text, fault);
}

void loaded_free(struct loaded *l)
{
    text_free(&l->text);
    gguf_free(&l->gguf);
    mem_free(l->bytes);
    gguf_maker_free(&l->maker);
}

static void put(struct gguf_maker *m, const void *data, size_t n)
{
    assert_int_equal(buffer_put(&m->values, data, n), STATUS_OK);
}

static void array_begin(struct gguf_maker *m, const char *key, uint32_t kind, uint64_t n)
{
    make_key(m, key, GGUF_ARRAY);
    assert_int_equal(buffer_put_u32(&m->values, kind), STATUS_OK);
    assert_int_equal(buffer_put_u64(&m->values, n), STATUS_OK);
}

void make_bool(struct gguf_maker *m, const char *key, bool v)
{
    uint8_t byte = v;
    make_key(m, key, GGUF_BOOL);
    put(m, &byte, 1);
}

void make_texts(struct gguf_maker *m, const char *key, const char *const *texts, size_t n)
{
    array_begin(m, key, GGUF_STRING, n);
    for (size_t i = 0; i < n; i++) {
        make_string(&m->values, texts[i]);
    }
}

void make_i32s(struct gguf_maker *m, const char *key, const int32_t *values, size_t n)
{
    array_begin(m, key, GGUF_I32, n);
    put(m, values, n * sizeof *values);
}

void make_f32s(struct gguf_maker *m, const char *key, const float *values, size_t n)
{
    array_begin(m, key, GGUF_F32, n);
    put(m, values, n * sizeof *values);
}

void make_spm(struct gguf_maker *m, const char *const *words, const float *scores, size_t n)
{
    enum { MOST = 400 };
    static char bytes[256][8];
    const char *texts[MOST] = {"<unk>", "<s>", "</s>"};
    int32_t types[MOST] = {2, 3, 3};
    float values[MOST] = {0};
    assert_true(n + 259 <= MOST);
    for (unsigned i = 0; i < 256; i++) {
        (void)snprintf(bytes[i], sizeof bytes[i], "<0x%02X>", i);
        texts[3 + i] = bytes[i];
        types[3 + i] = 6;
    }
    for (size_t i = 0; i < n; i++) {
        texts[259 + i] = words[i];
        types[259 + i] = 1;
        values[259 + i] = scores[i];
    }
    make_text(m, "tokenizer.ggml.model", "llama");
    make_texts(m, "tokenizer.ggml.tokens", texts, n + 259);
    make_i32s(m, "tokenizer.ggml.token_type", types, n + 259);
    make_f32s(m, "tokenizer.ggml.scores", values, n + 259);
}
