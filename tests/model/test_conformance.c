/* Reference logits of random models, one per architecture and tensor type.
 *
 * test_conformance ENGINE FOLDER: every case in FOLDER ("arch", "quant", "hf") of the conformance
 * data becomes one test: the prompt's logits against the reference, whole and cut into two and
 * three stages, prefilled at once and in pieces, and the greedy continuation token by token. With
 * the native engine all ways give the same bits. Every case must run; none is left out by name. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <dirent.h>
#include <jansson.h>

#include "tests/model/stages.h"

enum { MAX_CASES = 256, MAX_TOKENS = 128 };

/* What one thread does is nothing to ThreadSanitizer: two stages have two threads each, and of the
 * rest it runs what those are compared with. */
#ifdef __SANITIZE_THREAD__
enum { ONLY_THREADS = 1, MAX_STAGES = 2 };
#else
enum { ONLY_THREADS = 0, MAX_STAGES = 3 };
#endif

struct reference {
    uint32_t n_tokens;
    uint32_t tokens[MAX_TOKENS];
    float *logits; /* [n_tokens, n_vocab] */
    uint32_t n_greedy;
    uint32_t greedy[MAX_TOKENS];
    double margin[MAX_TOKENS];
};

static const char *root;
static const char *folder;
static enum engine_kind engine;

/* ---------------------------------------------------------------- reading */

/* The Hugging Face folders hold the weights of the cases in "arch", whose results count. */
static const char *results_folder(void)
{
    return strcmp(folder, "hf") == 0 ? "arch" : folder;
}

static void model_path(const char *name, char *out, size_t out_size)
{
    snprintf(out, out_size, "%s/%s/%s%s", root, folder, name,
             strcmp(folder, "hf") == 0 ? "" : "/model.gguf");
}

static json_t *read_json(const char *name, const char *file)
{
    char path[512];
    json_t *json;

    snprintf(path, sizeof path, "%s/%s/%s/%s", root, results_folder(), name, file);
    json = json_load_file(path, 0, NULL);
    assert_non_null(json);
    return json;
}

static uint32_t read_ids(const json_t *array, uint32_t *out)
{
    uint32_t n = (uint32_t)json_array_size(array);

    assert_in_range(n, 1, MAX_TOKENS);
    for (uint32_t i = 0; i < n; i++)
        out[i] = (uint32_t)json_integer_value(json_array_get(array, i));
    return n;
}

static void read_reference(const char *name, uint32_t n_vocab, struct reference *out)
{
    json_t *tokens = read_json(name, "tokens.json");
    json_t *greedy = read_json(name, "greedy.json");
    char path[512];
    size_t n;
    FILE *file;

    out->n_tokens = read_ids(json_object_get(tokens, "tokens"), out->tokens);
    out->n_greedy = read_ids(json_object_get(greedy, "greedy"), out->greedy);
    for (uint32_t i = 0; i < out->n_greedy; i++)
        out->margin[i] =
            json_number_value(json_array_get(json_object_get(greedy, "margin_to_second"), i));
    json_decref(tokens);
    json_decref(greedy);
    n = (size_t)out->n_tokens * n_vocab;
    out->logits = malloc(n * sizeof(float));
    snprintf(path, sizeof path, "%s/%s/%s/logits.f32", root, results_folder(), name);
    file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fread(out->logits, sizeof(float), n, file), n);
    fclose(file);
}

/* ---------------------------------------------------------------- comparing */

static double nmse(const float *a, const float *reference, size_t n, double *spread)
{
    double error = 0;
    double power = 0;

    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)reference[i];

        error += d * d;
        power += (double)reference[i] * (double)reference[i];
    }
    *spread = sqrt(power / (double)n);
    return error / power;
}

/* Float kernels reach 1e-8; int8 activations have the limits of the data's README. */
static double limit_of(const struct model *model)
{
    const char *types = model_info(model)->types;

    if (engine == ENGINE_OPENBLAS)
        return 1e-8;
    if (strstr(types, "_K") || strstr(types, "TQ") || strstr(types, "IQ1") ||
        strstr(types, "IQ2") || strstr(types, "IQ3") || strstr(types, "IQ4_XS"))
        return 5e-3;
    if (strchr(types, 'Q') || strstr(types, "FP4"))
        return 2e-3;
    return 1e-8;
}

static void check_greedy(struct stages *stages, const struct reference *ref, double error,
                         double spread)
{
    uint32_t n_vocab = model_info(stages->model)->n_vocab;
    float *logits = malloc(MAX_TOKENS * (size_t)n_vocab * sizeof(float));
    uint32_t pos = ref->n_tokens;

    /* A model that cannot go back forgets everything, wherever it is cut. */
    stages_forget(stages, 0, model_info(stages->model)->rewinds ? 0 : ref->n_tokens / 2);
    assert_int_equal(stages_run(stages, 0, 0, ref->tokens, ref->n_tokens, 64, logits), STATUS_OK);
    memmove(logits, logits + (size_t)(ref->n_tokens - 1) * n_vocab, n_vocab * sizeof(float));
    for (uint32_t i = 0; i < ref->n_greedy; i++) {
        uint32_t got = best_token(logits, n_vocab);

        if (got != ref->greedy[i] && ref->margin[i] > 6 * sqrt(error) * spread)
            fail_msg("continuation %u: token %u instead of %u, margin %g", i, got, ref->greedy[i],
                     ref->margin[i]);
        assert_int_equal(stages_run(stages, 0, pos++, &ref->greedy[i], 1, 1, logits), STATUS_OK);
    }
    free(logits);
}

static void check_split(const struct model *model, uint32_t n_stages, struct model_form form,
                        const struct reference *ref, float *whole)
{
    bool rounded = form.quantize != 0, has_experts = model_info(model)->n_experts > 0;
    double limit = !rounded ? limit_of(model) : has_experts ? 5e-2 : 1e-3;
    struct stages_config config = {.engine = engine,
                                   .n_stages = n_stages,
                                   .n_threads = n_stages == 2 ? 2 : 1,
                                   .n_ctx_tokens = 256,
                                   .form = form};
    size_t n = (size_t)ref->n_tokens * model_info(model)->n_vocab;
    float *logits = malloc(n * sizeof(float));
    struct stages stages;
    struct fault fault = {0};
    double error;
    double spread;

    if (stages_open(model, &config, &stages, &fault))
        fail_msg("%s", fault.text);
    assert_int_equal(
        stages_run(&stages, 0, 0, ref->tokens, ref->n_tokens, n_stages == 3 ? 7 : 64, logits),
        STATUS_OK);
    error = nmse(logits, ref->logits, n, &spread);
    if (n_stages == 1)
        print_message("           nmse %.1e\n", error);
    if (rounded && error < 1e-6)
        fail_msg("%u stages: nmse %g, so nothing was rounded", n_stages, error);
    if (!(error < limit))
        fail_msg("%u stages: nmse %g, limit %g", n_stages, error, limit);
    if (n_stages == 1)
        memcpy(whole, logits, n * sizeof(float));
    else if (engine == ENGINE_NATIVE)
        assert_memory_equal(logits, whole, n * sizeof(float));
    if (!ONLY_THREADS || config.n_threads > 1)
        if (!rounded || !has_experts)
            check_greedy(&stages, ref, error, spread);
    stages_close(&stages);
    free(logits);
}

/* Float weights as bfloat16, with activations rounded to it: the data's limit is 5e-4 for the
 * activations alone. In random models of experts a rounding may make a router choose others, so
 * there only splits are compared; the products themselves are in test_matmul. */
static void check_rounded(const struct model *model, const struct reference *ref, float *whole)
{
    struct model_form form;

    assert_int_equal(model_form_parse(NULL, "bf16_dot", &form, NULL), STATUS_OK);
    for (uint32_t n = 1; n <= 2 && n <= model_info(model)->n_layers; n++)
        check_split(model, n, form, ref, whole);
}

static void test_case(void **state)
{
    const char *name = *state;
    struct reference ref = {0};
    struct model *model;
    struct fault fault = {0};
    char path[512];
    float *whole;

    model_path(name, path, sizeof path);
    model = model_at(path);
    if (model_computable(model, engine, &fault))
        fail_msg("%s", fault.text);
    read_reference(name, model_info(model)->n_vocab, &ref);
    whole = malloc((size_t)ref.n_tokens * model_info(model)->n_vocab * sizeof(float));
    for (uint32_t n = 1; n <= MAX_STAGES && n <= model_info(model)->n_layers; n++)
        check_split(model, n, (struct model_form){0}, &ref, whole);
    /* Weights in their file give the same for every type and instruction set (test_matmul), so here
     * one instruction set is enough for what the architectures do with them. */
    if (!getenv("SKEIN_ISA") && model_info(model)->n_layers > 1)
        check_split(model, 2, (struct model_form){.mapped = true}, &ref, whole);
    if (engine == ENGINE_NATIVE && limit_of(model) == 1e-8)
        check_rounded(model, &ref, whole);
    free(whole);
    free(ref.logits);
    model_free(&model);
}

static void test_no_data(void **state)
{
    (void)state;
    skip();
}

static size_t list_cases(struct CMUnitTest *tests)
{
    struct dirent **entries;
    char path[512];
    size_t n_tests = 0;
    int n;

    snprintf(path, sizeof path, "%s/%s", root, folder);
    n = root && *root ? scandir(path, &entries, NULL, alphasort) : 0;
    for (int i = 0; i < n; i++) {
        model_path(entries[i]->d_name, path, sizeof path);
        if (entries[i]->d_name[0] != '.' && n_tests < MAX_CASES && access(path, R_OK) == 0)
            tests[n_tests++] = (struct CMUnitTest){.name = strdup(entries[i]->d_name),
                                                   .test_func = test_case,
                                                   .initial_state = strdup(entries[i]->d_name)};
        free(entries[i]);
    }
    if (n > 0)
        free(entries);
    if (n_tests == 0)
        tests[n_tests++] =
            (struct CMUnitTest){"no conformance data", test_no_data, NULL, NULL, NULL};
    return n_tests;
}

int main(int argc, char **argv)
{
    static struct CMUnitTest tests[MAX_CASES];
    struct fault fault = {0};

    root = getenv("SKEIN_CONFORMANCE");
    folder = argc > 2 ? argv[2] : "arch";
    if (argc > 3)
        cmocka_set_test_filter(argv[3]);
    if (engine_choose(argc > 1 ? argv[1] : "native", &engine, &fault)) {
        fprintf(stderr, "%s\n", fault.text);
        return 77;
    }
    return _cmocka_run_group_tests(folder, tests, list_cases(tests), NULL, NULL);
}
