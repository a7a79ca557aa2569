/* What benchmarks stand on: measured limits that can be true, and contexts that are repeated. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/engine.h"

enum { N_EMBD = 256, CONTEXT = 200, BLOCKS = 5 };

static struct model *model;
static float hidden[64 * N_EMBD];

static struct shard *opened(enum kv_type kv_type)
{
    struct shard_spec spec = {.layer_end = 8,
                              .embed = true,
                              .head = true,
                              .n_slots = 2,
                              .n_ctx_tokens = CONTEXT,
                              .n_kv_blocks = BLOCKS,
                              .max_rows = 64,
                              .n_threads = 2,
                              .form = {.kv_type = kv_type}};
    struct shard *shard = NULL;
    struct fault fault = {0};

    if (shard_open(model, &spec, &shard, &fault))
        fail_msg("%s", fault.text);
    return shard;
}

static enum status forward(struct shard *shard, uint32_t slot, uint32_t pos, uint32_t n)
{
    struct shard_row rows[64];
    uint32_t tokens[64];

    for (uint32_t i = 0; i < n; i++) {
        rows[i] = (struct shard_row){slot, pos + i};
        tokens[i] = (pos + i) * 11 % 2048;
    }
    assert_int_equal(shard_embed(shard, tokens, n, hidden), STATUS_OK);
    return shard_forward(shard, rows, n, hidden);
}

static void test_repeat_lengthens(void **state)
{
    static const enum kv_type types[] = {KV_F32, KV_F16, KV_Q8_0};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        struct shard *shard = opened(types[i]);

        assert_int_equal(forward(shard, 0, 0, 40), STATUS_OK);
        assert_int_equal(shard_repeat(shard, 0, 130), STATUS_OK);
        assert_int_equal(forward(shard, 0, 129, 1), STATUS_INVALID);
        assert_int_equal(forward(shard, 0, 130, 1), STATUS_OK);
        shard_free(&shard);
    }
}

/* The repeated keys and values are there and are read: a page that was used for something else
 * before does not show. */
static void test_repeat_fills_every_page(void **state)
{
    struct shard *shard = opened(KV_F16);
    float first[N_EMBD];

    (void)state;
    assert_int_equal(forward(shard, 0, 0, 32), STATUS_OK);
    assert_int_equal(shard_repeat(shard, 0, 160), STATUS_OK);
    shard_truncate(shard, 0, 32);
    assert_int_equal(shard_repeat(shard, 0, 129), STATUS_OK);
    assert_int_equal(forward(shard, 0, 129, 1), STATUS_OK);
    memcpy(first, hidden, sizeof first);
    shard_truncate(shard, 0, 32);
    assert_int_equal(forward(shard, 0, 32, 64), STATUS_OK);
    assert_int_equal(forward(shard, 0, 96, 64), STATUS_OK);
    shard_truncate(shard, 0, 32);
    assert_int_equal(shard_repeat(shard, 0, 129), STATUS_OK);
    assert_int_equal(forward(shard, 0, 129, 1), STATUS_OK);
    assert_memory_equal(first, hidden, sizeof first);
    shard_free(&shard);
}

static void test_repeat_refuses(void **state)
{
    struct shard *shard = opened(KV_F32);

    (void)state;
    assert_int_equal(shard_repeat(shard, 0, 64), STATUS_INVALID);
    assert_int_equal(forward(shard, 0, 0, 31), STATUS_OK);
    assert_int_equal(shard_repeat(shard, 0, 64), STATUS_INVALID);
    assert_int_equal(forward(shard, 0, 31, 5), STATUS_OK);
    assert_int_equal(shard_repeat(shard, 0, 35), STATUS_INVALID);
    assert_int_equal(shard_repeat(shard, 2, 64), STATUS_INVALID);
    assert_int_equal(shard_repeat(shard, 0, CONTEXT + 1), STATUS_CONTEXT);
    assert_int_equal(shard_repeat(shard, 0, BLOCKS * SHARD_KV_BLOCK_TOKENS + 1), STATUS_NO_ROOM);
    mem_fail_after(1);
    assert_int_equal(shard_repeat(shard, 0, 64), STATUS_NO_MEMORY);
    mem_fail_after(0);
    assert_int_equal(forward(shard, 0, 36, 1), STATUS_OK);
    shard_free(&shard);
}

struct told {
    uint64_t done, total;
    unsigned n;
};

static void on_load(void *owner, uint64_t done, uint64_t total)
{
    struct told *told = owner;

    assert_true(done >= told->done && done <= total);
    assert_true(told->n == 0 || total == told->total);
    *told = (struct told){done, total, told->n + 1};
}

static void test_load_says_how_far_it_is(void **state)
{
    struct told told = {0};
    struct shard_spec spec = {.layer_begin = 2,
                              .layer_end = 7,
                              .embed = true,
                              .n_slots = 1,
                              .n_ctx_tokens = CONTEXT,
                              .n_kv_blocks = BLOCKS,
                              .max_rows = 8,
                              .n_threads = 1,
                              .on_load = on_load,
                              .on_load_owner = &told};
    struct shard_need need;
    struct shard *shard = NULL;

    (void)state;
    shard_need(model, &spec, &need);
    assert_int_equal(shard_open(model, &spec, &shard, NULL), STATUS_OK);
    assert_true(told.n > 5);
    assert_true(told.done == told.total && told.total == need.weight_bytes);
    shard_free(&shard);
}

static void test_limits(void **state)
{
    struct engine_peak peak;
    double read = 0;

    (void)state;
    assert_int_equal(engine_measure_read(2, &read), STATUS_OK);
    assert_true(read > 1e8 && read < 1e13);
    assert_int_equal(engine_measure_peak(2, &peak), STATUS_OK);
    assert_true(peak.f32_per_second >= 0 && peak.f32_per_second < 1e14);
    assert_true(peak.bf16_per_second >= 0 && peak.bf16_per_second < 1e15);
    assert_true(peak.int8_per_second >= 0 && peak.int8_per_second < 1e15);
    mem_fail_after(1);
    assert_int_equal(engine_measure_read(2, &read), STATUS_NO_MEMORY);
    mem_fail_after(0);
    assert_true(read == 0);
}

static int open_model(void **state)
{
    const void *data;
    size_t size;

    (void)state;
    model_demo(&data, &size);
    return model_open_memory(data, size, "tiny", &model, NULL) ? -1 : 0;
}

static int close_model(void **state)
{
    (void)state;
    model_free(&model);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_repeat_lengthens), cmocka_unit_test(test_repeat_fills_every_page),
        cmocka_unit_test(test_repeat_refuses),   cmocka_unit_test(test_load_says_how_far_it_is),
        cmocka_unit_test(test_limits),
    };

    return cmocka_run_group_tests(tests, open_model, close_model);
}
