/* See text_load.h. */
#include "tests/unit/engine/text_load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

const char *conformance_folder(void)
{
    const char *folder = getenv("SKEIN_CONFORMANCE");
    return folder == NULL || folder[0] == '\0' ? NULL : folder;
}

double processor_seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
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

bool encodes_to(const struct text *text, const char *data, size_t n, unsigned flags,
                const struct token_list *wanted)
{
    struct token_list got = {0};
    struct fault fault = {0};
    assert_int_equal(text_tokenize(text, data, n, flags, &got, &fault), STATUS_OK);
    bool same = got.n == wanted->n &&
                (got.n == 0 || memcmp(got.ids, wanted->ids, got.n * sizeof *got.ids) == 0);
    token_list_free(&got);
    return same;
}

static void decode(const struct text *text, const struct token_list *ids, unsigned flags,
                   struct buffer *out)
{
    struct detok *detok;
    assert_int_equal(text_detok_new(text, flags, &detok), STATUS_OK);
    for (size_t i = 0; i < ids->n; i++) {
        assert_int_equal(detok_push(detok, ids->ids[i], out), STATUS_OK);
    }
    assert_int_equal(detok_finish(detok, (flags & DETOK_RAW) != 0, out), STATUS_OK);
    detok_free(&detok);
}

bool decodes_to(const struct text *text, const struct token_list *ids, unsigned flags,
                const char *data, size_t n)
{
    struct buffer got = {0};
    decode(text, ids, flags, &got);
    bool same = got.len == n && (n == 0 || memcmp(got.data, data, n) == 0);
    buffer_free(&got);
    return same;
}

uint32_t random_below(uint64_t *state, uint32_t n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) % n;
}

/* Valid UTF-8 of all lengths, with runs, blanks and texts that look like special tokens. */
size_t random_text(uint64_t *state, char *out, size_t room)
{
    static const char *const words[] = {"<|im_start|>", "<|endoftext|>", " the", "don't", "\r\n",
                                        "    ",         "1234567",       "\t",   "<0x41>"};
    size_t n = 0, wanted = random_below(state, (uint32_t)room - 16);
    while (n < wanted) {
        uint32_t kind = random_below(state, 8), code = random_below(state, 0x80);
        if (kind == 0) {
            const char *word = words[random_below(state, COUNT_OF(words))];
            memcpy(out + n, word, strlen(word));
            n += strlen(word);
            continue;
        }
        code = kind == 1 ? random_below(state, 0x800) : code;
        code = kind == 2 ? random_below(state, 0x10000) : code;
        code = kind == 3 ? random_below(state, 0x110000) : code;
        code = code >= 0xd800 && code < 0xe000 ? 'x' : code;
        if (code < 0x80) {
            out[n++] = (char)code;
        } else if (code < 0x800) {
            out[n++] = (char)(0xc0 | code >> 6);
            out[n++] = (char)(0x80 | (code & 0x3f));
        } else if (code < 0x10000) {
            out[n++] = (char)(0xe0 | code >> 12);
            out[n++] = (char)(0x80 | (code >> 6 & 0x3f));
            out[n++] = (char)(0x80 | (code & 0x3f));
        } else {
            out[n++] = (char)(0xf0 | code >> 18);
            out[n++] = (char)(0x80 | (code >> 12 & 0x3f));
            out[n++] = (char)(0x80 | (code >> 6 & 0x3f));
            out[n++] = (char)(0x80 | (code & 0x3f));
        }
    }
    return n;
}

/* Written for the tests, so that they do not judge the detokenizer by its own decoder. */
static bool is_utf8(const uint8_t *s, size_t n)
{
    for (size_t at = 0; at < n;) {
        uint32_t code = s[at];
        size_t more = code < 0x80 ? 0 : code < 0xe0 ? 1 : code < 0xf0 ? 2 : 3;
        static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        if ((code >= 0x80 && code < 0xc2) || code > 0xf4 || more > n - at - 1) {
            return false;
        }
        code = more == 0 ? code : code & (0x3fu >> more);
        for (size_t i = 1; i <= more; i++) {
            if ((s[at + i] & 0xc0) != 0x80) {
                return false;
            }
            code = code << 6 | (s[at + i] & 0x3fu);
        }
        if (code < least[more] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
            return false;
        }
        at += more + 1;
    }
    return true;
}

static void prefixes_check(const struct text *text, const struct token_list *ids, const char *data,
                           size_t n)
{
    struct detok *detok;
    struct buffer out = {0};
    assert_int_equal(text_detok_new(text, DETOK_SPECIAL, &detok), STATUS_OK);
    for (size_t i = 0; i < ids->n; i++) {
        assert_int_equal(detok_push(detok, ids->ids[i], &out), STATUS_OK);
        assert_true(out.len <= n && (out.len == 0 || memcmp(out.data, data, out.len) == 0));
        assert_true(out.len == n || ((uint8_t)data[out.len] & 0xc0) != 0x80);
    }
    buffer_free(&out);
    detok_free(&detok);
}

void stream_check(const struct text *text, int rounds)
{
    uint64_t state = 2;
    for (int i = 0; i < rounds; i++) {
        struct detok *detok;
        unsigned flags = random_below(&state, 2) != 0 ? DETOK_SPECIAL : 0;
        assert_int_equal(text_detok_new(text, flags, &detok), STATUS_OK);
        for (uint32_t k = random_below(&state, 60); k > 0; k--) {
            struct buffer out = {0};
            assert_int_equal(detok_push(detok, random_below(&state, text->n_tokens), &out),
                             STATUS_OK);
            assert_true(is_utf8(out.data, out.len));
            buffer_free(&out);
        }
        struct buffer rest = {0};
        assert_int_equal(detok_finish(detok, false, &rest), STATUS_OK);
        assert_true(is_utf8(rest.data, rest.len));
        buffer_free(&rest);
        detok_free(&detok);
    }
}

void identity_check(const struct text *text, int rounds)
{
    uint64_t state = 1;
    for (int i = 0; i < rounds; i++) {
        char data[512];
        size_t n = random_text(&state, data, sizeof data);
        for (unsigned flags = 0; flags <= TOKENS_PARSE_SPECIAL; flags += TOKENS_PARSE_SPECIAL) {
            struct token_list ids = {0};
            assert_int_equal(text_tokenize(text, data, n, flags, &ids, NULL), STATUS_OK);
            assert_true(decodes_to(text, &ids, DETOK_SPECIAL, data, n));
            prefixes_check(text, &ids, data, n);
            token_list_free(&ids);
        }
    }
}

/* The vocabulary is that of one file with another pre-tokenizer put in. */
void pre_replace(struct text *text, const char *name)
{
    struct fault fault = {0};
    text->pre = pre_find((struct gguf_text){name, strlen(name)});
    if (text->pre == NULL) {
        fail_msg("the pre-tokenizer %s is missing", name);
    }
    splitter_free(&text->splitter);
    assert_int_equal(splitter_new(text->pre->patterns, &text->splitter, &fault), STATUS_OK);
    for (unsigned byte = 0; byte < 256 && (text->pre->flags & PRE_RAW) != 0; byte++) {
        text->byte_symbol[byte] = TOKEN_NONE; /* this vocabulary has no <0x..> tokens */
    }
}
