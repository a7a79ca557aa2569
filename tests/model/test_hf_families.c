/* Hugging Face folders of every family: the recorded GGUF of an architecture is written as a folder
 * in that family's layout (hf_layouts.c and hf_write.c, which know nothing of engine/hf), opened,
 * and must give the GGUF's logits. Values go over as float32, so what differs is the order of a few
 * sums. Weights as 8-bit floats are in test_hf_eighths. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/file/gguf_write.h"
#include "engine/file/map.h"
#include "engine/file/source.h"
#include "tests/model/hf_write.h"
#include "tests/model/stages.h"

enum { N_TOKENS = 40 };

static char folder[] = "/tmp/skein-families-XXXXXX";

/* ---------------------------------------------------------------- comparing */

static const char *in_folder(const char *name, char out[static 256])
{
    snprintf(out, 256, "%s/%s", folder, name);
    return out;
}

static struct model *open_model(const char *path)
{
    struct model *model = model_at(path);
    struct fault fault = {0};

    if (model_computable(model, ENGINE_OPENBLAS, &fault))
        fail_msg("%s", fault.text);
    return model;
}

static double difference(const struct model *a, const struct model *b)
{
    struct stages_config config = {
        .engine = ENGINE_OPENBLAS, .n_stages = 1, .n_threads = 1, .n_ctx_tokens = 64};
    float *x = stages_logits(a, &config, N_TOKENS, 64),
          *y = stages_logits(b, &config, N_TOKENS, 64);
    double nmse;

    assert_int_equal(model_info(a)->n_vocab, model_info(b)->n_vocab);
    nmse = logits_nmse(x, y, (size_t)N_TOKENS * model_info(a)->n_vocab);
    free(x);
    free(y);
    return nmse;
}

/* A copy of the file without the divisors that no config.json can ask for. */
static void copy_without(const struct gguf *gguf, const char *left_out, const char *path)
{
    struct gguf_writer w = {0};
    struct buffer header = {0};
    FILE *file = fopen(path, "wb");
    static const uint8_t zeros[GGUF_WRITE_ALIGNMENT];

    assert_non_null(file);
    for (size_t i = 0; i < gguf_value_count(gguf); i++)
        gguf_write_copy(&w, gguf_value_at(gguf, i));
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
            const struct gguf_tensor *t = gguf_tensor_at(gguf, i);

            if (t->name.n_bytes == strlen(left_out) &&
                memcmp(t->name.data, left_out, t->name.n_bytes) == 0)
                continue;
            if (pass == 0) {
                gguf_write_tensor(&w, t->name.data, t->name.n_bytes, t->n_dims, t->dims,
                                  (enum tensor_type)t->type, t->n_bytes);
            } else {
                fwrite(t->data, 1, t->n_bytes, file);
                fwrite(zeros, 1, (size_t)(-t->n_bytes % GGUF_WRITE_ALIGNMENT), file);
            }
        }
        if (pass == 0) {
            assert_int_equal(gguf_write_finish(&w, &header), STATUS_OK);
            fwrite(header.data, 1, header.len, file);
        }
    }
    assert_int_equal(fclose(file), 0);
    buffer_free(&header);
    gguf_write_free(&w);
}

static void open_gguf(const char *path, struct file_map *map, struct gguf **gguf)
{
    assert_int_equal(file_map_open(path, map, NULL), STATUS_OK);
    assert_int_equal(gguf_parse(map->data, map->size_bytes, gguf, NULL), STATUS_OK);
}

static void test_family(void **state)
{
    const struct hf_family *family = *state;
    const char *root = getenv("SKEIN_CONFORMANCE");
    struct file_map map = {0};
    struct gguf *gguf = NULL;
    struct model *wanted, *got;
    char path[512], copy[256];
    double error;

    if (!root || !*root)
        skip();
    snprintf(path, sizeof path, "%s/arch/%s/model.gguf", root, family->data);
    open_gguf(path, &map, &gguf);
    if (gguf_tensor_find(gguf, "rope_freqs.weight")) {
        copy_without(gguf, "rope_freqs.weight", in_folder("plain.gguf", copy));
        gguf_free(&gguf);
        file_map_close(&map);
        snprintf(path, sizeof path, "%s", copy);
        open_gguf(path, &map, &gguf);
    }
    hf_write_folder(gguf, family, folder);
    wanted = open_model(path);
    got = open_model(folder);
    assert_string_equal(model_info(got)->architecture, model_info(wanted)->architecture);
    assert_int_equal(model_info(got)->n_parameters, model_info(wanted)->n_parameters);
    error = difference(got, wanted);
    print_message("           nmse %.1e\n", error);
    if (!(error < 1e-9))
        fail_msg("openblas: nmse %g", error);
    model_free(&got);
    model_free(&wanted);
    gguf_free(&gguf);
    file_map_close(&map);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    static const char *const names[] = {"model.safetensors", "config.json", "plain.gguf"};
    char path[256];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        (void)unlink(in_folder(names[i], path));
    return rmdir(folder);
}

int main(int argc, char **argv)
{
    static struct CMUnitTest tests[HF_FAMILIES];

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    for (size_t i = 0; i < HF_FAMILIES; i++)
        tests[i] = (struct CMUnitTest){.name = hf_families[i].data,
                                       .test_func = test_family,
                                       .initial_state = (void *)(uintptr_t)&hf_families[i]};
    return _cmocka_run_group_tests("families", tests, HF_FAMILIES, make_folder, drop_folder);
}
