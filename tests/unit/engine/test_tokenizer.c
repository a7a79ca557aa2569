/* Tokenizers: the reference ids of whole vocabularies and of every pre-tokenizer name, decoding as
 * the inverse of encoding, special tokens, long and broken input, hostile vocabularies. */
#include "tests/unit/engine/text_load.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

static const char *const vocabularies[] = {"baichuan", "deepseek-coder", "deepseek-llm", "falcon",
                                           "gpt-2",    "gpt-neox",       "llama-spm",    "mpt",
                                           "phi-3",    "refact",         "starcoder"};

static json_t *json_of(const char *folder, const char *format, const char *name)
{
    char path[512], rest[256];
    json_error_t error;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    (void)snprintf(rest, sizeof rest, format, name);
#pragma GCC diagnostic pop
    (void)snprintf(path, sizeof path, "%s/tokenizer/%s", folder, rest);
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (json == NULL) {
        fail_msg("%s: %s", path, error.text);
    }
    return json;
}

static void ids_add(struct token_list *list, const json_t *ids)
{
    for (size_t i = 0; i < json_array_size(ids); i++) {
        uint32_t id = (uint32_t)json_integer_value(json_array_get(ids, i));
        assert_int_equal(token_list_add(list, id), STATUS_OK);
    }
}

static bool encodes_to(const struct text *text, const char *data, size_t n, unsigned flags,
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

static bool decodes_to(const struct text *text, const struct token_list *ids, unsigned flags,
                       const char *data, size_t n)
{
    struct buffer got = {0};
    decode(text, ids, flags, &got);
    bool same = got.len == n && (n == 0 || memcmp(got.data, data, n) == 0);
    buffer_free(&got);
    return same;
}

/* Returns how many comparisons failed. header NULL: only the ids count (several names share a
 * file). */
static int item_check(const struct text *text, const json_t *header, const json_t *item)
{
    const json_t *string = json_object_get(item, "text");
    const char *data = json_string_value(string);
    size_t n = json_string_length(string);
    struct token_list plain = {0}, special = {0}, framed = {0};
    ids_add(&plain, json_object_get(item, "ids"));
    ids_add(&special, json_object_get(item, "ids_parse_special"));
    if (header != NULL) {
        ids_add(&framed, json_object_get(header, "add_special_prefix"));
        ids_add(&framed, json_object_get(item, "ids"));
        ids_add(&framed, json_object_get(header, "add_special_suffix"));
    }
    int bad = !encodes_to(text, data, n, 0, &plain);
    bad += !encodes_to(text, data, n, TOKENS_PARSE_SPECIAL, &special);
    bad += header != NULL && !encodes_to(text, data, n, TOKENS_ADD_SPECIAL, &framed);
    const json_t *decoded = json_object_get(item, "detok");
    decoded = decoded == NULL ? string : decoded;
    if (header != NULL) {
        bad += !decodes_to(text, &plain, DETOK_CLEAN | DETOK_RAW, json_string_value(decoded),
                           json_string_length(decoded));
    }
    const json_t *written = json_object_get(item, "detok_special");
    if (written != NULL) {
        framed.n = 0;
        ids_add(&framed, json_object_get(header, "add_special_prefix"));
        ids_add(&framed, json_object_get(item, "ids_parse_special"));
        ids_add(&framed, json_object_get(header, "add_special_suffix"));
        bad += !decodes_to(text, &framed, DETOK_SPECIAL | DETOK_CLEAN | DETOK_RAW,
                           json_string_value(written), json_string_length(written));
    }
    if (bad > 0) {
        print_message("%d wrong: %.60s\n", bad, data);
    }
    token_list_free(&plain);
    token_list_free(&special);
    token_list_free(&framed);
    return bad;
}

static int expectations_check(const struct text *text, const json_t *expected, bool whole)
{
    int bad = 0;
    const json_t *items = json_object_get(expected, "items");
    assert_true(json_array_size(items) > 60);
    for (size_t i = 0; i < json_array_size(items); i++) {
        const json_t *header = whole ? json_object_get(expected, "header") : NULL;
        bad += item_check(text, header, json_array_get(items, i));
    }
    return bad;
}

static void reference_vocabularies_are_exact(void **state)
{
    const char *folder = conformance_folder();
    (void)state;
    if (folder == NULL) {
        skip();
    }
    int bad = 0;
    for (size_t i = 0; i < COUNT_OF(vocabularies); i++) {
        char path[512];
        struct loaded l;
        json_t *expected = json_of(folder, "expect-%s.json", vocabularies[i]);
        (void)snprintf(path, sizeof path, "%s/tokenizer/ggml-vocab-%s.gguf", folder,
                       vocabularies[i]);
        loaded_from_file(&l, path);
        int wrong = expectations_check(l.text, expected, true);
        if (wrong > 0) {
            print_message("%s: %d wrong\n", vocabularies[i], wrong);
        }
        bad += wrong;
        loaded_free(&l);
        json_decref(expected);
    }
    assert_int_equal(bad, 0);
}

/* The vocabulary is that of one file with another pre-tokenizer put in. */
static void pre_replace(struct text *text, const char *name)
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

static void every_pre_tokenizer_name_is_exact(void **state)
{
    const char *folder = conformance_folder(), *name;
    json_t *file;
    int bad = 0;
    (void)state;
    if (folder == NULL) {
        skip();
    }
    json_t *index = json_of(folder, "pre/%s.json", "index");
    assert_true(json_object_size(json_object_get(index, "files")) >= 59);
    json_object_foreach(json_object_get(index, "files"), name, file)
    {
        char path[512];
        struct loaded l;
        json_t *expected = json_of(folder, "pre/%s", json_string_value(file));
        (void)snprintf(path, sizeof path, "%s/tokenizer/pre/vocab-bytepairs.gguf", folder);
        loaded_from_file(&l, path);
        pre_replace(l.text, name);
        int wrong = expectations_check(l.text, expected, false);
        if (wrong > 0) {
            print_message("%s: %d wrong\n", name, wrong);
        }
        bad += wrong;
        loaded_free(&l);
        json_decref(expected);
    }
    json_decref(index);
    assert_int_equal(bad, 0);
}

static const char separator[] = "\n__ggml_vocab_test__\n";

static int upstream_check(const struct text *text, const char *in, const char *out)
{
    int bad = 0;
    while (*out != '\0') {
        struct token_list wanted = {0};
        const char *end = strstr(in, separator);
        size_t n = end == NULL ? strlen(in) : (size_t)(end - in);
        const char *line_end = strchr(out, '\n');
        for (char *rest; line_end != NULL && out < line_end; out = rest) {
            unsigned long id = strtoul(out, &rest, 10);
            if (rest == out || rest > line_end) {
                break;
            }
            assert_int_equal(token_list_add(&wanted, (uint32_t)id), STATUS_OK);
        }
        bad += !encodes_to(text, in, n, 0, &wanted);
        token_list_free(&wanted);
        if (end == NULL || line_end == NULL) {
            break;
        }
        in = end + sizeof separator - 1;
        out = line_end + 1;
    }
    return bad;
}

static void upstream_vectors_are_exact(void **state)
{
    static const char *const folders[] = {"upstream", "upstream-ik"};
    const char *folder = conformance_folder();
    int bad = 0, files = 0;
    (void)state;
    if (folder == NULL) {
        skip();
    }
    for (size_t i = 0; i < COUNT_OF(vocabularies) * COUNT_OF(folders); i++) {
        const char *name = vocabularies[i / 2];
        char path[512];
        size_t n;
        (void)snprintf(path, sizeof path, "%s/tokenizer/%s/ggml-vocab-%s.gguf.inp", folder,
                       folders[i % 2], name);
        char *in = file_read(path, &n);
        (void)snprintf(path, sizeof path, "%s/tokenizer/%s/ggml-vocab-%s.gguf.out", folder,
                       folders[i % 2], name);
        char *out = file_read(path, &n);
        if (in != NULL && out != NULL) {
            struct loaded l;
            (void)snprintf(path, sizeof path, "%s/tokenizer/ggml-vocab-%s.gguf", folder, name);
            loaded_from_file(&l, path);
            bad += upstream_check(l.text, in, out);
            files++;
            loaded_free(&l);
        }
        mem_free(in);
        mem_free(out);
    }
    assert_true(files > 15);
    assert_int_equal(bad, 0);
}

static uint32_t random_below(uint64_t *state, uint32_t n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) % n;
}

/* Valid UTF-8 of all lengths, with runs, blanks and texts that look like special tokens. */
static size_t random_text(uint64_t *state, char *out, size_t room)
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

static void identity_check(const struct text *text, int rounds)
{
    uint64_t state = 1;
    for (int i = 0; i < rounds; i++) {
        char data[512];
        size_t n = random_text(&state, data, sizeof data);
        for (unsigned flags = 0; flags <= TOKENS_PARSE_SPECIAL; flags += TOKENS_PARSE_SPECIAL) {
            struct token_list ids = {0};
            assert_int_equal(text_tokenize(text, data, n, flags, &ids, NULL), STATUS_OK);
            assert_true(decodes_to(text, &ids, DETOK_SPECIAL, data, n));
            token_list_free(&ids);
        }
    }
}

static void decoding_undoes_encoding(void **state)
{
    const char *folder = conformance_folder();
    struct loaded l;
    (void)state;
    loaded_demo(&l);
    identity_check(l.text, 2000);
    loaded_free(&l);
    for (size_t i = 0; i < COUNT_OF(vocabularies) && folder != NULL; i++) {
        char path[512];
        (void)snprintf(path, sizeof path, "%s/tokenizer/ggml-vocab-%s.gguf", folder,
                       vocabularies[i]);
        loaded_from_file(&l, path);
        bool bytes = l.text->kind == TEXT_BPE;
        for (unsigned byte = 0; byte < 0xf5; byte++) { /* a letter for every byte of UTF-8 */
            bool used = byte != 0xc0 && byte != 0xc1;
            bytes = bytes && (!used || l.text->byte_symbol[byte] < l.text->n_tokens);
        }
        if (bytes) {
            identity_check(l.text, 200);
        }
        loaded_free(&l);
    }
}

static void any_bytes_come_back(void **state)
{
    struct loaded l;
    uint64_t random = 9;
    (void)state;
    loaded_demo(&l);
    for (int i = 0; i < 500; i++) {
        char data[200];
        size_t n = random_below(&random, sizeof data);
        for (size_t k = 0; k < n; k++) {
            data[k] = (char)random_below(&random, 256);
        }
        struct token_list ids = {0};
        assert_int_equal(text_tokenize(l.text, data, n, 0, &ids, NULL), STATUS_OK);
        assert_true(decodes_to(l.text, &ids, DETOK_RAW, data, n));
        token_list_free(&ids);
    }
    loaded_free(&l);
}

static void special_tokens_are_parsed_where_wanted(void **state)
{
    struct loaded l;
    struct token_list ids = {0};
    static const char text[] = "<|im_start|>user\nhi<|im_end|>";
    (void)state;
    loaded_demo(&l);
    assert_int_equal(text_tokenize(l.text, text, strlen(text), TOKENS_PARSE_SPECIAL, &ids, NULL),
                     STATUS_OK);
    assert_int_equal(ids.ids[0], 2045);
    assert_int_equal(ids.ids[ids.n - 1], 2046);
    size_t before = ids.n;
    assert_int_equal(text_tokenize(l.text, text, strlen(text), 0, &ids, NULL), STATUS_OK);
    for (size_t i = before; i < ids.n; i++) {
        assert_true(ids.ids[i] < 2044);
    }
    assert_true(text_token_ends(l.text, 2046)); /* <|im_end|> */
    assert_true(text_token_ends(l.text, 2044)); /* <|endoftext|> */
    assert_false(text_token_ends(l.text, 2045));
    assert_false(text_token_ends(l.text, 5));
    assert_false(text_token_ends(l.text, 1u << 30));
    token_list_free(&ids);
    loaded_free(&l);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void long_check(const struct text *text, const char *what)
{
    enum { SIZE = 1 << 20 };
    static const char *const units[] = {"a",  " ",    "7", "\n",           "!",
                                        "a ", "\xff", "<", "\xe4\xb8\xad", "<|im_start|>"};
    char *data = mem_zeroed(SIZE, 1);
    assert_non_null(data);
    for (size_t i = 0; i < COUNT_OF(units); i++) {
        struct token_list ids = {0};
        size_t unit = strlen(units[i]);
        for (size_t at = 0; at < SIZE; at++) {
            data[at] = units[i][at % unit];
        }
        double start = seconds();
        assert_int_equal(text_tokenize(text, data, SIZE, 0, &ids, NULL), STATUS_OK);
        double took = seconds() - start;
        if (took > 15.0) {
            fail_msg("%s: 1 MB of '%s' took %.1f s", what, units[i], took);
        }
        token_list_free(&ids);
    }
    mem_free(data);
}

static void a_megabyte_of_anything_is_no_problem(void **state)
{
    static const char *const names[] = {"gpt-2",    "llama-bpe", "deepseek-v3", "gpt-4o",
                                        "superbpe", "afmoe",     "exaone-moe",  "kimi-k2"};
    struct loaded l;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        loaded_demo(&l);
        pre_replace(l.text, names[i]);
        long_check(l.text, names[i]);
        loaded_free(&l);
    }
}

static void spm_make(struct loaded *l)
{
    static const char *const words[] = {"\xe2\x96\x81",
                                        "a",
                                        "b",
                                        "\xe2\x96\x81"
                                        "a",
                                        "ab",
                                        "aa"};
    static const float scores[] = {-1, -2, -3, -4, -5, -6};
    *l = (struct loaded){0};
    make_spm(&l->maker, words, scores, COUNT_OF(words));
}

static void spm_merges_by_score_and_falls_back_to_bytes(void **state)
{
    struct loaded l;
    (void)state;
    spm_make(&l);
    assert_int_equal(loaded_from_maker(&l, NULL), STATUS_OK);
    struct token_list wanted = {.ids = (uint32_t[]){262, 261}, .n = 2};
    assert_true(encodes_to(l.text, "ab", 2, 0, &wanted));
    wanted = (struct token_list){.ids = (uint32_t[]){1, 262, 3 + 0xc3, 3 + 0xa9}, .n = 4};
    assert_true(encodes_to(l.text, "a\xc3\xa9", 3, TOKENS_ADD_SPECIAL, &wanted));
    wanted = (struct token_list){.ids = (uint32_t[]){1, 262, 2, 262}, .n = 4};
    assert_true(encodes_to(l.text, "<s>a</s>a", 9, TOKENS_PARSE_SPECIAL, &wanted));
    loaded_free(&l);
}

static void what_is_not_supported_is_named(void **state)
{
    static const char *const tokens[] = {"a", "b"};
    struct loaded l = {0};
    struct fault fault = {0};
    (void)state;
    make_text(&l.maker, "tokenizer.ggml.model", "bert");
    make_texts(&l.maker, "tokenizer.ggml.tokens", tokens, 2);
    assert_int_equal(loaded_from_maker(&l, &fault), STATUS_OK);
    assert_int_equal(text_runnable(l.text, &fault), STATUS_UNSUPPORTED);
    assert_non_null(strstr(fault.text, "bert"));
    struct token_list ids = {0};
    assert_int_equal(text_tokenize(l.text, "a", 1, 0, &ids, &fault), STATUS_UNSUPPORTED);
    loaded_free(&l);
    l = (struct loaded){0};
    make_text(&l.maker, "tokenizer.ggml.model", "gpt2");
    make_text(&l.maker, "tokenizer.ggml.pre", "never-heard-of");
    make_texts(&l.maker, "tokenizer.ggml.tokens", tokens, 2);
    assert_int_equal(loaded_from_maker(&l, &fault), STATUS_OK);
    assert_int_equal(text_runnable(l.text, &fault), STATUS_UNSUPPORTED);
    assert_non_null(strstr(fault.text, "never-heard-of"));
    loaded_free(&l);
    l = (struct loaded){0};
    make_u32(&l.maker, "general.alignment", 32);
    assert_int_equal(loaded_from_maker(&l, &fault), STATUS_OK);
    assert_int_equal(text_runnable(l.text, &fault), STATUS_UNSUPPORTED);
    assert_int_equal(text_token_count(l.text), 0);
    loaded_free(&l);
}

static void hostile_vocabularies_are_survived(void **state)
{
    static const char *const tokens[] = {"", "a", "a", "b", "ab", "\xff\xfe", "<s>", "<s>"};
    static const char *const merges[] = {"",    " ",     "a",   "a ",   " b",
                                         "a b", "ab ab", "x y", "a  b", "abab abab"};
    static const int32_t types[] = {3, 1, 4, -7, 99, 1, 3, 3};
    struct loaded l = {0};
    struct fault fault = {0};
    struct token_list ids = {0};
    (void)state;
    make_text(&l.maker, "tokenizer.ggml.model", "gpt2");
    make_text(&l.maker, "tokenizer.ggml.pre", "gpt-2");
    make_texts(&l.maker, "tokenizer.ggml.tokens", tokens, COUNT_OF(tokens));
    make_texts(&l.maker, "tokenizer.ggml.merges", merges, COUNT_OF(merges));
    make_i32s(&l.maker, "tokenizer.ggml.token_type", types, COUNT_OF(types));
    make_u32(&l.maker, "tokenizer.ggml.bos_token_id", 4000000000u);
    make_bool(&l.maker, "tokenizer.ggml.add_bos_token", true);
    assert_int_equal(loaded_from_maker(&l, &fault), STATUS_OK);
    assert_int_equal(text_tokenize(l.text, "ababab<s>xyz\xff", 13, 3, &ids, NULL), STATUS_OK);
    assert_true(ids.n > 0);
    token_list_free(&ids);
    loaded_free(&l);
    l = (struct loaded){0};
    make_text(&l.maker, "tokenizer.ggml.model", "gpt2");
    make_texts(&l.maker, "tokenizer.ggml.tokens", tokens, COUNT_OF(tokens));
    make_i32s(&l.maker, "tokenizer.ggml.token_type", types, 3); /* fewer than tokens */
    assert_int_equal(loaded_from_maker(&l, &fault), STATUS_FORMAT);
    assert_null(l.text);
    loaded_free(&l);
    l = (struct loaded){0};
    make_text(&l.maker, "tokenizer.ggml.model", "gpt2");
    make_u32(&l.maker, "tokenizer.ggml.tokens", 7);
    assert_int_equal(loaded_from_maker(&l, &fault), STATUS_FORMAT);
    loaded_free(&l);
}

static void running_out_of_memory_is_an_error(void **state)
{
    struct loaded l;
    (void)state;
    spm_make(&l);
    struct gguf_text file = make_file(&l.maker, 3);
    assert_int_equal(gguf_parse(file.data, file.n_bytes, &l.gguf, NULL), STATUS_OK);
    enum status status = STATUS_NO_MEMORY;
    unsigned long n = 0;
    while (status == STATUS_NO_MEMORY) {
        mem_fail_after(++n);
        status = text_new(l.gguf, &l.text, NULL);
        mem_fail_after(0);
        assert_true((status == STATUS_OK) == (l.text != NULL));
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 4);
    status = STATUS_NO_MEMORY;
    for (n = 1; status == STATUS_NO_MEMORY; n++) {
        struct token_list ids = {0};
        mem_fail_after(n);
        status = text_tokenize(l.text, "ab<s>ab", 7, TOKENS_PARSE_SPECIAL, &ids, NULL);
        mem_fail_after(0);
        assert_true(status == STATUS_OK || ids.n == 0);
        token_list_free(&ids);
    }
    assert_int_equal(status, STATUS_OK);
    loaded_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_vocabularies_are_exact),
        cmocka_unit_test(every_pre_tokenizer_name_is_exact),
        cmocka_unit_test(upstream_vectors_are_exact),
        cmocka_unit_test(decoding_undoes_encoding),
        cmocka_unit_test(any_bytes_come_back),
        cmocka_unit_test(special_tokens_are_parsed_where_wanted),
        cmocka_unit_test(a_megabyte_of_anything_is_no_problem),
        cmocka_unit_test(spm_merges_by_score_and_falls_back_to_bytes),
        cmocka_unit_test(what_is_not_supported_is_named),
        cmocka_unit_test(hostile_vocabularies_are_survived),
        cmocka_unit_test(running_out_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
