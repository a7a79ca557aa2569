/* Shards as their callers see them: what a shard needs, which requests are refused, that a pass
 * which fails changes nothing, that KV pages come back, and contexts that are repeated. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "engine/engine.h"
#include "tests/unit/engine/shard_rig.h"

static void test_bad_requests(void **state)
{
    static const struct {
        size_t field;
        uint32_t v;
    } cases[] = {
        {offsetof(struct shard_spec, layer_end), 9},
        {offsetof(struct shard_spec, layer_begin), 9},
        {offsetof(struct shard_spec, n_slots), 0},
        {offsetof(struct shard_spec, n_ctx_tokens), 0},
        {offsetof(struct shard_spec, n_ctx_tokens), UINT32_MAX},
        {offsetof(struct shard_spec, n_kv_blocks), 0},
        {offsetof(struct shard_spec, max_rows), 0},
        {offsetof(struct shard_spec, max_rows), SHARD_MAX_ROWS + 1},
        {offsetof(struct shard_spec, n_threads), 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct shard_spec spec = whole();
        struct fault fault = {0};
        struct shard *shard = NULL;

        memcpy((char *)&spec + cases[i].field, &cases[i].v, sizeof cases[i].v);
        assert_int_equal(shard_open(model, &spec, &shard, &fault), STATUS_INVALID);
        assert_null(shard);
        assert_string_not_equal(fault.text, "");
    }
}

static void test_need(void **state)
{
    struct shard_spec spec = whole();
    struct shard_spec middle = whole();
    struct shard_need all;
    struct shard_need part;
    struct shard_need more;

    (void)state;
    shard_need(model, &spec, &all);
    assert_int_equal(all.kv_bytes, 5 * SHARD_KV_BLOCK_TOKENS * 8 * 2 * 4 * 32 * sizeof(float));
    middle.layer_begin = 2;
    middle.layer_end = 4;
    middle.embed = middle.head = false;
    shard_need(model, &middle, &part);
    assert_int_equal(part.kv_bytes, all.kv_bytes / 4);
    assert_int_equal(part.weight_bytes,
                     model_info(model)->layer_bytes[2] + model_info(model)->layer_bytes[3]);
    assert_true(part.scratch_bytes > 0);
    spec.max_rows = 512;
    shard_need(model, &spec, &more);
    assert_true(more.scratch_bytes > all.scratch_bytes);
}

static void test_rows_out_of_order(void **state)
{
    struct shard *shard = opened(whole());
    struct shard_row twice[2] = {{0, 0}, {0, 0}};
    struct shard_row gap[2] = {{0, 0}, {0, 2}};
    struct shard_row slot[1] = {{2, 0}};
    struct shard_row many[65] = {{0, 0}};

    (void)state;
    memset(hidden, 0, 2 * 256 * sizeof(float));
    assert_int_equal(forward(shard, 0, 1, 1), STATUS_INVALID);
    assert_int_equal(shard_forward(shard, twice, 2, hidden), STATUS_INVALID);
    assert_int_equal(shard_forward(shard, gap, 2, hidden), STATUS_INVALID);
    assert_int_equal(shard_forward(shard, slot, 1, hidden), STATUS_INVALID);
    assert_int_equal(shard_forward(shard, many, 65, hidden), STATUS_INVALID);
    assert_int_equal(shard_forward(shard, many, 0, hidden), STATUS_OK);
    assert_int_equal(forward(shard, 0, 0, 2), STATUS_OK);
    assert_int_equal(forward(shard, 0, 0, 1), STATUS_INVALID);
    assert_int_equal(forward(shard, 0, 2, 1), STATUS_OK);
    shard_free(&shard);
    assert_null(shard);
}

static void test_tokens_out_of_range(void **state)
{
    struct shard *shard = opened(whole());
    uint32_t tokens[2] = {0, 2048};

    (void)state;
    assert_int_equal(shard_embed(shard, tokens, 2, hidden), STATUS_INVALID);
    shard_free(&shard);
}

static void test_parts_that_are_not_there(void **state)
{
    struct shard_spec spec = whole();
    uint32_t token = 1;
    struct shard *shard;

    (void)state;
    spec.embed = spec.head = false;
    shard = opened(spec);
    assert_int_equal(shard_embed(shard, &token, 1, hidden), STATUS_INVALID);
    assert_int_equal(shard_logits(shard, hidden, 1, logits), STATUS_INVALID);
    shard_free(&shard);
}

/* A head without layers, on a box too small for one. */
static void test_no_layers(void **state)
{
    struct shard_spec spec = whole();
    uint32_t token = 1;
    struct shard_row row = {0, 0};
    struct shard *shard;

    (void)state;
    spec.layer_end = 0;
    shard = opened(spec);
    assert_int_equal(shard_embed(shard, &token, 1, hidden), STATUS_OK);
    assert_int_equal(shard_forward(shard, &row, 1, hidden), STATUS_OK);
    assert_int_equal(shard_logits(shard, hidden, 1, logits), STATUS_OK);
    shard_free(&shard);
}

static void test_context_and_room(void **state)
{
    struct shard *shard = opened(whole());

    (void)state;
    assert_int_equal(forward(shard, 0, 0, 60), STATUS_OK);
    assert_int_equal(forward(shard, 0, 60, 40), STATUS_OK); /* 4 pages of 5 */
    assert_int_equal(forward(shard, 0, 100, 1), STATUS_CONTEXT);
    assert_int_equal(forward(shard, 1, 0, 33), STATUS_NO_ROOM);
    assert_int_equal(forward(shard, 1, 0, 32), STATUS_OK); /* nothing was taken before */
    assert_int_equal(forward(shard, 1, 32, 1), STATUS_NO_ROOM);
    shard_truncate(shard, 0, 64);
    assert_int_equal(forward(shard, 1, 32, 1), STATUS_OK);
    shard_truncate(shard, 0, 0);
    shard_truncate(shard, 1, 0);
    assert_int_equal(forward(shard, 0, 0, 64), STATUS_OK);
    shard_truncate(shard, 0, 100);
    shard_truncate(shard, 99, 0);
    assert_int_equal(forward(shard, 0, 64, 1), STATUS_OK);
    shard_free(&shard);
}

/* A refused pass leaves the sequence such that it goes on with the same result. */
static void test_failure_changes_nothing(void **state)
{
    struct shard *shard = opened(whole());
    float before[256];
    struct shard_row rows[3] = {{0, 20}, {1, 0}, {1, 5}};

    (void)state;
    assert_int_equal(forward(shard, 0, 0, 20), STATUS_OK);
    assert_int_equal(forward(shard, 0, 20, 1), STATUS_OK);
    memcpy(before, hidden, sizeof before);
    shard_truncate(shard, 0, 20);
    assert_int_equal(shard_forward(shard, rows, 3, hidden), STATUS_INVALID);
    assert_int_equal(forward(shard, 0, 20, 1), STATUS_OK);
    assert_memory_equal(before, hidden, sizeof before);
    shard_free(&shard);
}

static void test_allocation_failures(void **state)
{
    struct shard_spec spec = whole();
    struct shard *shard = NULL;
    enum status status = STATUS_NO_MEMORY;
    unsigned long n = 1;

    (void)state;
    spec.n_threads = 2;
    for (; status && n < 100000; n++) {
        mem_fail_after(n);
        status = shard_open(model, &spec, &shard, NULL);
        mem_fail_after(0);
        assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
        if (status)
            assert_null(shard);
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 20);
    shard_free(&shard);
}

/* Once open, a pass asks for no memory: every allocation would fail. */
static void test_pass_allocates_nothing(void **state)
{
    struct shard *shard = opened(whole());

    (void)state;
    mem_fail_after(1);
    assert_int_equal(forward(shard, 0, 0, 40), STATUS_OK);
    assert_int_equal(forward(shard, 0, 40, 1), STATUS_OK);
    assert_int_equal(shard_logits(shard, hidden, 1, logits), STATUS_OK);
    assert_null(mem_zeroed(1, 1)); /* the countdown is still waiting for its first call */
    mem_fail_after(0);
    shard_free(&shard);
}

/* Bytes that this process has locked. */
static size_t locked_bytes(void)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    size_t kb = 0;

    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        sscanf(line, "VmLck: %zu", &kb);
    fclose(file);
    return kb * 1024;
}

/* Address sanitizers make mlock a call that does nothing. */
static bool mlock_works(void)
{
    size_t before = locked_bytes();
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool works;

    assert_true(page != MAP_FAILED);
    works = mlock(page, 4096) != 0 || locked_bytes() > before;
    munmap(page, 4096);
    return works;
}

static void test_lock(void **state)
{
    struct shard_spec spec = whole();
    struct shard *shard = NULL;
    struct shard_need need;
    struct fault fault = {0};
    size_t before = locked_bytes();

    (void)state;
    if (!mlock_works())
        skip();
    shard_need(model, &spec, &need);
    spec.lock = true;
    if (shard_open(model, &spec, &shard, &fault) == STATUS_PERMISSION)
        skip();
    assert_non_null(shard);
    assert_true(locked_bytes() >= before + (size_t)(need.weight_bytes + need.kv_bytes) * 9 / 10);
    assert_int_equal(forward(shard, 0, 0, 40), STATUS_OK);
    shard_free(&shard);
    assert_int_equal(locked_bytes(), before);
}

/* In a process of its own, because what is given up does not come back. */
static int open_without_right(void)
{
    struct rlimit none = {0, 0};
    struct shard_spec spec = whole();
    struct shard *shard = NULL;
    struct fault fault = {0};

    spec.lock = true;
    if (setrlimit(RLIMIT_MEMLOCK, &none) || (geteuid() == 0 && setuid(65534)))
        return 77;
    if (shard_open(model, &spec, &shard, &fault) != STATUS_PERMISSION || shard)
        return 1;
    return strstr(fault.text, "ulimit -l") && strstr(fault.text, "LimitMEMLOCK") ? 0 : 2;
}

static void test_lock_is_refused(void **state)
{
    int status = 0;
    pid_t child;

    (void)state;
    if (!mlock_works())
        skip();
    child = fork();
    if (child == 0)
        _exit(open_without_right());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* What a shard takes is what the planner was told, to the byte. */
static void test_kv_types(void **state)
{
    static const struct {
        enum kv_type type;
        uint64_t head_bytes;
    } cases[] = {{KV_F32, 128}, {KV_F16, 64}, {KV_Q8_0, 34}};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct shard_spec spec = whole();
        struct model_costs costs;
        struct shard_need need;
        uint64_t sum = 0;

        spec.form.kv_type = cases[i].type;
        shard_need(model, &spec, &need);
        assert_int_equal(model_costs(model, &spec.form, &costs), STATUS_OK);
        for (uint32_t il = 0; il < 8; il++)
            sum += costs.layer_kv_bytes[il];
        assert_int_equal(sum, 8 * 2 * 4 * cases[i].head_bytes);
        assert_int_equal(need.kv_bytes, 5 * SHARD_KV_BLOCK_TOKENS * sum);
        model_costs_free(&costs);
    }
}

enum { LONG_CONTEXT = 200 }; /* which 5 pages do not fill */

static struct shard_spec long_context(enum kv_type kv_type)
{
    struct shard_spec spec = whole();

    spec.n_ctx_tokens = LONG_CONTEXT;
    spec.n_threads = 2;
    spec.form.kv_type = kv_type;
    return spec;
}

static void test_repeat_lengthens(void **state)
{
    static const enum kv_type types[] = {KV_F32, KV_F16, KV_Q8_0};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        struct shard *shard = opened(long_context(types[i]));

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
    struct shard *shard = opened(long_context(KV_F16));
    float first[256];

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
    struct shard *shard = opened(long_context(KV_F32));

    (void)state;
    assert_int_equal(shard_repeat(shard, 0, 64), STATUS_INVALID);
    assert_int_equal(forward(shard, 0, 0, 31), STATUS_OK);
    assert_int_equal(shard_repeat(shard, 0, 64), STATUS_INVALID);
    assert_int_equal(forward(shard, 0, 31, 5), STATUS_OK);
    assert_int_equal(shard_repeat(shard, 0, 35), STATUS_INVALID);
    assert_int_equal(shard_repeat(shard, 2, 64), STATUS_INVALID);
    assert_int_equal(shard_repeat(shard, 0, LONG_CONTEXT + 1), STATUS_CONTEXT);
    assert_int_equal(shard_repeat(shard, 0, 5 * SHARD_KV_BLOCK_TOKENS + 1), STATUS_NO_ROOM);
    mem_fail_after(1);
    assert_int_equal(shard_repeat(shard, 0, 64), STATUS_NO_MEMORY);
    mem_fail_after(0);
    assert_int_equal(forward(shard, 0, 36, 1), STATUS_OK);
    shard_free(&shard);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_need),
        cmocka_unit_test(test_rows_out_of_order),
        cmocka_unit_test(test_tokens_out_of_range),
        cmocka_unit_test(test_parts_that_are_not_there),
        cmocka_unit_test(test_no_layers),
        cmocka_unit_test(test_context_and_room),
        cmocka_unit_test(test_failure_changes_nothing),
        cmocka_unit_test(test_allocation_failures),
        cmocka_unit_test(test_pass_allocates_nothing),
        cmocka_unit_test(test_lock),
        cmocka_unit_test(test_lock_is_refused),
        cmocka_unit_test(test_kv_types),
        cmocka_unit_test(test_repeat_lengthens),
        cmocka_unit_test(test_repeat_fills_every_page),
        cmocka_unit_test(test_repeat_refuses),
    };

    return cmocka_run_group_tests(tests, rig_open, rig_close);
}
