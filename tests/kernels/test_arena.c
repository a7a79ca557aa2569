/* Memory of weights: pieces one behind the other that do not overlap, whole runs given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "engine/kernels/arena.h"
#include "proto/base/base.h"

enum { HUGE = 2 << 20, RUN = 1 << 30 };

static bool is_mapped(const void *at)
{
    unsigned char resident;
    return mincore((void *)((uintptr_t)at & ~(uintptr_t)4095), 4096, &resident) == 0;
}

static void pieces_follow_one_another(void **state)
{
    static const size_t sizes[] = {1, 64, 100, 4096, 737280, HUGE - 1, HUGE, 3 * HUGE + 5};
    struct arena arena = {0};
    struct arena_run *runs[COUNT_OF(sizes)];
    uint8_t *pieces[COUNT_OF(sizes)];
    (void)state;
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        pieces[i] = arena_take(&arena, sizes[i], &runs[i]);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 64, 0);
        assert_int_equal(pieces[i][sizes[i] - 1], 0);
        if (i > 0)
            assert_ptr_equal(pieces[i], pieces[i - 1] + (sizes[i - 1] + 63) / 64 * 64);
        memset(pieces[i], (int)i + 1, sizes[i]);
    }
    assert_int_equal((uintptr_t)pieces[0] % HUGE, 0);
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        for (size_t k = 0; k < sizes[i]; k++)
            if (pieces[i][k] != i + 1)
                fail_msg("byte %zu of piece %zu is another's", k, i);
    arena_close(&arena);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        assert_true(is_mapped(pieces[0])); /* others are still there */
        arena_give(runs[i]);
    }
    assert_false(is_mapped(pieces[0]));
    arena_give(NULL);
}

/* What does not fit starts anew; a run goes with the last that uses it, in any order. */
static void runs_come_and_go(void **state)
{
    struct arena arena = {0};
    struct arena_run *runs[4];
    uint8_t *a = arena_take(&arena, HUGE, &runs[0]);
    uint8_t *b = arena_take(&arena, RUN - HUGE + 1, &runs[1]); /* one byte too many for a's */
    uint8_t *c = arena_take(&arena, (size_t)RUN + 1, &runs[2]);
    (void)state;
    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(c);
    assert_ptr_not_equal(runs[0], runs[1]);
    assert_ptr_not_equal(runs[1], runs[2]);
    c[RUN] = 1;
    assert_true(is_mapped(a));
    arena_give(runs[0]);
    assert_false(is_mapped(a));
    arena_give(runs[2]);
    assert_true(is_mapped(c)); /* the arena fills it */
    uint8_t *d = arena_take(&arena, 64, &runs[3]);
    assert_non_null(d);
    d[63] = 1;
    arena_give(runs[1]);
    assert_false(is_mapped(b));
    arena_close(&arena);
    assert_true(is_mapped(d));
    arena_give(runs[3]);
    assert_false(is_mapped(d));
    arena_close(&arena);
}

static void memory_may_run_out(void **state)
{
    struct arena arena = {0};
    struct arena_run *run = NULL;
    (void)state;
    assert_null(arena_take(&arena, SIZE_MAX, &run));
    assert_null(arena_take(&arena, SIZE_MAX / 4, &run)); /* more than there are addresses */
    mem_fail_after(1);
    assert_null(arena_take(&arena, 64, &run));
    mem_fail_after(0);
    assert_null(arena.run);
    assert_null(run);
    arena_close(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_follow_one_another),
        cmocka_unit_test(runs_come_and_go),
        cmocka_unit_test(memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
