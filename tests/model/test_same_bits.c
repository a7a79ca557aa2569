/* Invariant I2: with the native engine, the logits of a position are the same bits whatever the
 * number of threads, the pieces the prompt came in, the sequences it shared its passes with, and
 * the cuts between stages, for each type of keys and values. Each test compares with one thread,
 * one piece, alone, in one stage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/model/stages.h"

enum { N_TOKENS = 100, N_OTHERS = 3 };

static struct model *model;
static enum kv_type kv_type; /* of the group of tests that runs */
static uint32_t n_vocab;
static uint32_t tokens[N_TOKENS];
static float *expected; /* [N_TOKENS, n_vocab] */

static void open_stages(struct stages *stages, uint32_t n_stages, uint32_t n_threads,
                        uint32_t n_slots)
{
    struct stages_config config = {.engine = ENGINE_NATIVE,
                                   .n_stages = n_stages,
                                   .n_threads = n_threads,
                                   .n_ctx_tokens = 128,
                                   .n_slots = n_slots,
                                   .form = {.kv_type = kv_type}};
    struct fault fault = {0};

    if (stages_open(model, &config, stages, &fault))
        fail_msg("%s", fault.text);
}

static void check_run(uint32_t n_stages, uint32_t n_threads, size_t chunk)
{
    float *logits = malloc(N_TOKENS * (size_t)n_vocab * sizeof(float));
    struct stages stages;

    open_stages(&stages, n_stages, n_threads, 1);
    assert_int_equal(stages_run(&stages, 0, 0, tokens, N_TOKENS, chunk, logits), STATUS_OK);
    assert_memory_equal(logits, expected, N_TOKENS * (size_t)n_vocab * sizeof(float));
    stages_close(&stages);
    free(logits);
}

static void test_threads(void **state)
{
    (void)state;
    check_run(1, 2, 64);
    check_run(1, 3, 64);
    check_run(1, 2, 1);
}

static void test_chunks(void **state)
{
    (void)state;
    check_run(1, 1, 1);
    check_run(1, 1, 7);
    check_run(1, 1, 33);
}

static void test_splits(void **state)
{
    (void)state;
    check_run(2, 1, 64);
    check_run(3, 1, 7);
    check_run(8, 1, 64);
}

/* The sequence in slot 1, mixed row by row with three others that go at their own pace. */
static void test_company(void **state)
{
    float *logits = malloc(64 * (size_t)n_vocab * sizeof(float));
    uint32_t at[N_OTHERS + 1] = {0};
    struct shard_row rows[64];
    uint32_t ids[64];
    struct stages stages;

    (void)state;
    open_stages(&stages, 2, 2, N_OTHERS + 1);
    while (at[1] < N_TOKENS) {
        size_t n = 0;

        for (uint32_t slot = 0; slot <= N_OTHERS; slot++) {
            uint32_t pace = slot == 1 ? 1 + at[1] % 5 : slot * 3;

            for (uint32_t i = 0; i < pace && at[slot] < N_TOKENS; i++, n++) {
                rows[n] = (struct shard_row){slot, at[slot]};
                ids[n] = slot == 1 ? tokens[at[1]] : (tokens[at[slot]] * 7 + slot) % n_vocab;
                at[slot]++;
            }
        }
        assert_int_equal(stages_pass(&stages, rows, ids, n, logits), STATUS_OK);
        for (size_t i = 0; i < n; i++) {
            if (rows[i].slot == 1)
                assert_memory_equal(logits + i * n_vocab, expected + (size_t)rows[i].pos * n_vocab,
                                    n_vocab * sizeof(float));
        }
    }
    stages_close(&stages);
    free(logits);
}

/* Taking tokens back and giving them again leaves no trace. */
static void test_truncation(void **state)
{
    float *logits = malloc(N_TOKENS * (size_t)n_vocab * sizeof(float));
    uint32_t other[40];
    struct stages stages;

    (void)state;
    for (uint32_t i = 0; i < 40; i++)
        other[i] = (i * 31 + 5) % n_vocab;
    open_stages(&stages, 2, 1, 1);
    assert_int_equal(stages_run(&stages, 0, 0, tokens, 50, 64, logits), STATUS_OK);
    assert_int_equal(stages_run(&stages, 0, 50, other, 40, 64, logits), STATUS_OK);
    stages_forget(&stages, 0, 50);
    assert_int_equal(stages_run(&stages, 0, 50, tokens + 50, N_TOKENS - 50, 64, logits), STATUS_OK);
    assert_memory_equal(logits, expected + (size_t)50 * n_vocab,
                        (N_TOKENS - 50) * (size_t)n_vocab * sizeof(float));
    stages_close(&stages);
    free(logits);
}

static int open_all(void **state)
{
    struct stages stages;

    (void)state;
    model = model_tiny();
    n_vocab = model_info(model)->n_vocab;
    for (uint32_t i = 0; i < N_TOKENS; i++)
        tokens[i] = (i * i * 13 + 17) % n_vocab;
    expected = malloc(N_TOKENS * (size_t)n_vocab * sizeof(float));
    open_stages(&stages, 1, 1, 1);
    if (stages_run(&stages, 0, 0, tokens, N_TOKENS, 64, expected))
        return -1;
    stages_close(&stages);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    model_free(&model);
    free(expected);
    return 0;
}

int main(void)
{
    static const char *const names[] = {"kv f32", "kv f16", "kv q8_0"};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),    cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_splits),     cmocka_unit_test(test_company),
        cmocka_unit_test(test_truncation),
    };

    int n_failed = 0;

    for (int i = 0; i < KV_TYPE_COUNT; i++) {
        kv_type = (enum kv_type)i;
        n_failed += cmocka_run_group_tests_name(names[i], tests, open_all, close_all);
    }
    return n_failed;
}
