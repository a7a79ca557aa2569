/* Every reference model with bytes of its header changed: whatever comes out is refused in words,
 * or runs without touching memory that is not its own (this is what the sanitizer builds look at).
 * A mutation sets a metadata number or a table entry to a value that tends to hurt. Deterministic.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>

#include "engine/file/gguf.h"
#include "tests/model/stages.h"

enum { MUTATIONS = 60 };

static uint32_t chance_state;

static uint32_t chance(uint32_t n)
{
    chance_state = chance_state * 1664525u + 1013904223u;
    return (chance_state >> 8) % n;
}

static uint8_t *read_file(const char *path, size_t *n_bytes)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data;

    if (!file)
        return NULL;
    fseek(file, 0, SEEK_END);
    *n_bytes = (size_t)ftell(file);
    rewind(file);
    data = malloc(*n_bytes);
    assert_int_equal(fread(data, 1, *n_bytes, file), *n_bytes);
    fclose(file);
    return data;
}

/* One number of the metadata, other than the vocabulary's, becomes another. */
static void mutate_value(uint8_t *copy, const struct gguf *gguf, const uint8_t *original)
{
    static const uint32_t values[] = {0,  1,  2,    3,     5,          8,
                                      64, 97, 1024, 65535, 0x7fffffff, 0xffffffff};
    const struct gguf_value *value = gguf_value_at(gguf, chance((uint32_t)gguf_value_count(gguf)));
    uint32_t v = values[chance(COUNT_OF(values))];

    if (memmem(value->key.data, value->key.n_bytes, "tokenizer", 9) || value->kind == GGUF_STRING)
        return;
    memcpy(copy + (value->data - original), &v, value->data_bytes < 4 ? value->data_bytes : 4);
}

/* Bytes anywhere before the tensor data, among them names, shapes, types and offsets. */
static void mutate_header(uint8_t *copy, size_t header_bytes)
{
    for (uint32_t i = 0; i <= chance(3); i++)
        copy[header_bytes - 1 - chance((uint32_t)(header_bytes < 6000 ? header_bytes : 6000))] =
            (uint8_t)chance(256);
}

static void run_if_possible(const struct model *model)
{
    struct stages_config config = {.engine = ENGINE_NATIVE, .n_stages = 1, .n_ctx_tokens = 64};
    const struct model_info *info = model_info(model);
    uint32_t tokens[40];
    struct stages stages;
    struct fault fault = {0};
    float *logits;

    if (model_runnable(model, ENGINE_NATIVE, &fault)) {
        assert_string_not_equal(fault.text, "");
        return;
    }
    for (uint32_t i = 0; i < 40; i++)
        tokens[i] = i * 7 % info->n_vocab;
    if (stages_open(model, &config, &stages, &fault)) {
        assert_string_not_equal(fault.text, "");
        return;
    }
    logits = malloc((size_t)40 * info->n_vocab * sizeof(float));
    assert_int_equal(stages_run(&stages, 0, 0, tokens, 40, 33, logits), STATUS_OK);
    free(logits);
    stages_close(&stages);
}

static void check_file(const char *path)
{
    size_t n_bytes;
    uint8_t *original = read_file(path, &n_bytes);
    uint8_t *copy;
    struct gguf *gguf;

    if (!original)
        return;
    copy = malloc(n_bytes);
    assert_int_equal(gguf_parse(original, n_bytes, &gguf, NULL), STATUS_OK);
    for (int i = 0; i < MUTATIONS; i++) {
        struct model *model;
        struct fault fault = {0};

        memcpy(copy, original, n_bytes);
        if (chance(3))
            mutate_value(copy, gguf, original);
        else
            mutate_header(copy, (size_t)gguf_data_offset(gguf));
        if (model_open_memory(copy, n_bytes, "mutated", &model, &fault))
            assert_string_not_equal(fault.text, "");
        else
            run_if_possible(model);
        model_free(&model);
    }
    gguf_free(&gguf);
    free(copy);
    free(original);
}

static void test_mutations(void **state)
{
    const char *root = getenv("SKEIN_CONFORMANCE");
    struct dirent **entries = NULL;
    char path[512];
    int n;

    (void)state;
    snprintf(path, sizeof path, "%s/arch", root ? root : "");
    n = root && *root ? scandir(path, &entries, NULL, alphasort) : 0;
    if (n <= 0)
        skip();
    for (int i = 0; i < n; i++) {
        chance_state = (uint32_t)i + 1;
        snprintf(path, sizeof path, "%s/arch/%s/model.gguf", root, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            check_file(path);
        free(entries[i]);
    }
    free(entries);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mutations)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
