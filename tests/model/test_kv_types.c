/* Keys and values in half precision and in 8 bits against float32, through whole models: skein-tiny
 * and, where the conformance data is at hand, architectures that use the cache in different ways
 * (groups of heads, one head, heads that are no multiple of 32, latents, windows, slopes, sinks,
 * shared layers). Weights and engine are the same in both runs, so the difference is the rounding
 * of keys and values alone. Measured: F16 5e-8 to 5e-7, Q8_0 2e-5 to 3e-4, and with experts 2e-6
 * and 2e-3. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/model/stages.h"

enum { N_TOKENS = 96 };

/* Of dense models and of those with experts, where a router near a tie multiplies the rounding. */
static const double limits[2][KV_TYPE_COUNT] = {{[KV_F16] = 2e-6, [KV_Q8_0] = 1.5e-3},
                                                {[KV_F16] = 5e-6, [KV_Q8_0] = 5e-3}};
static const struct {
    const char *name;
    bool experts;
} cases[] = {
    {"llama", false},    {"llama-bf16", false}, {"llama-headdim", false}, {"llama-yarn", false},
    {"qwen3", false},    {"phi3", false},       {"gemma2", false},        {"gemma3", false},
    {"gemma4", false},   {"cohere2", false},    {"bloom", false},         {"mpt", false},
    {"gpt2", false},     {"falcon-7b", false},  {"qwen3next", false},     {"gpt-oss", true},
    {"deepseek2", true},
};

/* Logits of pseudo-random tokens: prefill in two pieces, the last ones one by one. */
static float *logits_of(const struct model *model, enum engine_kind engine, enum kv_type type)
{
    size_t n_vocab = model_info(model)->n_vocab;
    struct stages_config config = {.engine = engine,
                                   .n_stages = 2,
                                   .n_threads = 2,
                                   .n_ctx_tokens = 128,
                                   .form = {.kv_type = type}};
    float *logits = malloc(N_TOKENS * n_vocab * sizeof(float));
    uint32_t tokens[N_TOKENS];
    struct stages stages;
    struct fault fault = {0};

    for (uint32_t i = 0; i < N_TOKENS; i++)
        tokens[i] = (uint32_t)((i * i * 13 + i * 5 + 17) % n_vocab);
    if (stages_open(model, &config, &stages, &fault))
        fail_msg("%s", fault.text);
    assert_int_equal(stages_run(&stages, 0, 0, tokens, 80, 50, logits), STATUS_OK);
    assert_int_equal(
        stages_run(&stages, 0, 80, tokens + 80, N_TOKENS - 80, 1, logits + 80 * n_vocab),
        STATUS_OK);
    stages_close(&stages);
    return logits;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Of the rows' errors the one in the middle: where a router is near a tie, a row may take another
 * expert, and its error says nothing about rounding. */
static double nmse(const float *a, const float *reference, size_t n_vocab)
{
    double errors[N_TOKENS];

    for (size_t t = 0; t < N_TOKENS; t++)
        errors[t] = logits_nmse(a + t * n_vocab, reference + t * n_vocab, n_vocab);
    qsort(errors, N_TOKENS, sizeof *errors, by_value);
    return errors[N_TOKENS / 2];
}

static void check_model(const struct model *model, const char *name, bool experts,
                        enum engine_kind engine)
{
    float *reference = logits_of(model, engine, KV_F32);

    for (int type = KV_F16; type < KV_TYPE_COUNT; type++) {
        float *logits = logits_of(model, engine, (enum kv_type)type);
        double error = nmse(logits, reference, model_info(model)->n_vocab);

        print_message("           %s, %s, %s: nmse %.1e\n", name, engine_name(engine),
                      kv_type_name((enum kv_type)type), error);
        if (!(error < limits[experts][type]) || error == 0)
            fail_msg("%s, KV in %s: nmse %g, limit %g", name, kv_type_name((enum kv_type)type),
                     error, limits[experts][type]);
        free(logits);
    }
    free(reference);
}

static void test_tiny(void **state)
{
    struct model *model = model_tiny();

    (void)state;
    check_model(model, "tiny", false, ENGINE_NATIVE);
    check_model(model, "tiny", false, ENGINE_OPENBLAS);
    model_free(&model);
}

static void test_architectures(void **state)
{
    const char *root = getenv("SKEIN_CONFORMANCE");

    (void)state;
    if (!root || !*root)
        skip();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct model *model;
        char path[512];

        snprintf(path, sizeof path, "%s/arch/%s/model.gguf", root, cases[i].name);
        model = model_at(path);
        check_model(model, cases[i].name, cases[i].experts, ENGINE_OPENBLAS);
        model_free(&model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny),
        cmocka_unit_test(test_architectures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
