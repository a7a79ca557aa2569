/* Tokenizers against reference data: the ids of whole vocabularies and of every pre-tokenizer name,
 * decoding as the inverse of encoding for the byte-level ones, and no half characters from any.
 * Skipped where the data is absent. */
#include "tests/unit/engine/text_load.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static void texts_come_back_and_characters_whole(void **state)
{
    const char *folder = conformance_folder();
    (void)state;
    if (folder == NULL) {
        skip();
    }
    for (size_t i = 0; i < COUNT_OF(vocabularies); i++) {
        char path[512];
        struct loaded l;
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
        stream_check(l.text, 300);
        loaded_free(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_vocabularies_are_exact),
        cmocka_unit_test(every_pre_tokenizer_name_is_exact),
        cmocka_unit_test(upstream_vectors_are_exact),
        cmocka_unit_test(texts_come_back_and_characters_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
