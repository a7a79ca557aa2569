/* skein-tiny says, token by token, what plain float32 arithmetic says (tests/data/golden.json): its
 * prompts are split into the recorded tokens, and the greedy continuation is the recorded one, in
 * one piece and cut into two, three and eight stages. The engine is the first argument. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/model/stages.h"

enum { MAX_IDS = 512 };

static struct model *model;
static json_t *golden;
static enum engine_kind engine;

static uint32_t ids_of(const json_t *item, const char *key, uint32_t *out)
{
    const json_t *array = json_object_get(item, key);
    uint32_t n = (uint32_t)json_array_size(array);

    assert_in_range(n, 1, MAX_IDS);
    for (uint32_t i = 0; i < n; i++)
        out[i] = (uint32_t)json_integer_value(json_array_get(array, i));
    return n;
}

static void test_prompts_become_tokens(void **state)
{
    json_t *items = json_object_get(golden, "items");

    (void)state;
    assert_true(json_array_size(items) > 0);
    for (size_t i = 0; i < json_array_size(items); i++) {
        const json_t *item = json_array_get(items, i);
        const char *prompt = json_string_value(json_object_get(item, "prompt"));
        struct token_list list = {0};
        struct fault fault = {0};
        uint32_t want[MAX_IDS];
        uint32_t n = ids_of(item, "prompt_ids", want);

        assert_non_null(prompt);
        if (model_tokenize(model, prompt, strlen(prompt), TOKENS_PARSE_SPECIAL, &list, &fault))
            fail_msg("%s", fault.text);
        assert_int_equal(list.n, n);
        assert_memory_equal(list.ids, want, n * sizeof *want);
        token_list_free(&list);
    }
}

/* The best logits after the prompt are the recorded ones, to the precision they are recorded with.
 */
static void check_top(const json_t *item, const float *logits)
{
    json_t *top = json_object_get(item, "top5");

    for (size_t i = 0; i < json_array_size(top); i++) {
        const json_t *pair = json_array_get(top, i);
        json_int_t id = json_integer_value(json_array_get(pair, 0));
        double want = json_number_value(json_array_get(pair, 1));

        if (fabs((double)logits[id] - want) > 2e-3)
            fail_msg("logit of token %d: %g instead of %g", (int)id, (double)logits[id], want);
    }
}

/* The continuation in one pass: each token must be the best after those before it. For the
 * reference engine, which decodes every weight in every pass. */
static void check_item_at_once(struct stages *stages, const json_t *item, float *logits)
{
    uint32_t n_vocab = model_info(model)->n_vocab;
    uint32_t ids[2 * MAX_IDS];
    uint32_t n = ids_of(item, "prompt_ids", ids);
    uint32_t n_want = ids_of(item, "greedy_ids", ids + n);

    assert_true(n + n_want <= MAX_IDS);
    stages_forget(stages, 0, 0);
    assert_int_equal(stages_run(stages, 0, 0, ids, n + n_want, 64, logits), STATUS_OK);
    check_top(item, logits + (size_t)(n - 1) * n_vocab);
    for (uint32_t i = 0; i < n_want; i++)
        assert_int_equal(best_token(logits + (size_t)(n + i - 1) * n_vocab, n_vocab), ids[n + i]);
}

static void check_item(struct stages *stages, const json_t *item, float *logits)
{
    uint32_t n_vocab = model_info(model)->n_vocab;
    uint32_t prompt[MAX_IDS];
    uint32_t want[MAX_IDS];
    uint32_t n = ids_of(item, "prompt_ids", prompt);
    uint32_t n_want = ids_of(item, "greedy_ids", want);

    stages_forget(stages, 0, 0);
    assert_int_equal(stages_run(stages, 0, 0, prompt, n, 64, logits), STATUS_OK);
    memmove(logits, logits + (size_t)(n - 1) * n_vocab, n_vocab * sizeof *logits);
    check_top(item, logits);
    for (uint32_t i = 0; i < n_want; i++) {
        assert_int_equal(best_token(logits, n_vocab), want[i]);
        assert_int_equal(stages_run(stages, 0, n + i, &want[i], 1, 1, logits), STATUS_OK);
    }
}

static void check_stages(uint32_t n_stages)
{
    struct stages_config config = {
        .engine = engine, .n_stages = n_stages, .n_threads = 1, .n_ctx_tokens = 512};
    float *logits = malloc(MAX_IDS * (size_t)model_info(model)->n_vocab * sizeof(float));
    json_t *items = json_object_get(golden, "items");
    struct stages stages;
    struct fault fault = {0};

    if (stages_open(model, &config, &stages, &fault))
        fail_msg("%s", fault.text);
    for (size_t i = 0; i < json_array_size(items); i++) {
        if (engine == ENGINE_OPENBLAS)
            check_item_at_once(&stages, json_array_get(items, i), logits);
        else
            check_item(&stages, json_array_get(items, i), logits);
    }
    stages_close(&stages);
    free(logits);
}

static void test_one_stage(void **state)
{
    (void)state;
    check_stages(1);
}

static void test_two_stages(void **state)
{
    (void)state;
    check_stages(2);
}

static void test_three_stages(void **state)
{
    (void)state;
    check_stages(3);
}

static void test_eight_stages(void **state)
{
    (void)state;
    check_stages(8);
}

static int open_all(void **state)
{
    char path[512];

    (void)state;
    snprintf(path, sizeof path, "%s/golden.json", getenv("SKEIN_DATA"));
    golden = json_load_file(path, 0, NULL);
    model = model_tiny();
    return golden ? 0 : -1;
}

static int close_all(void **state)
{
    (void)state;
    model_free(&model);
    json_decref(golden);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts_become_tokens),
        cmocka_unit_test(test_one_stage),
        cmocka_unit_test(test_two_stages),
        cmocka_unit_test(test_three_stages),
        cmocka_unit_test(test_eight_stages),
    };
    struct fault fault = {0};

    if (engine_choose(argc > 1 ? argv[1] : "native", &engine, &fault)) {
        fprintf(stderr, "%s\n", fault.text);
        return 77;
    }
    return cmocka_run_group_tests(tests, open_all, close_all);
}
