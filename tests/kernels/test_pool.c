/* The thread pool: every item once, in every split, over and over, with sleeps that let the workers
 * park in between; and jobs of several pools at once. Meant for the thread sanitizer as well. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/kernels/cores.h"
#include "engine/kernels/pool.h"

enum { ITEMS = 1000 };

struct tally {
    uint32_t plain[ITEMS]; /* written without atomics: pieces must not overlap */
    _Atomic uint32_t calls;
    uint32_t n_threads;
    size_t chunk;
};

static void count(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    struct tally *t = ctx;
    atomic_fetch_add(&t->calls, 1);
    if (begin >= end || end - begin > t->chunk || thread >= t->n_threads)
        abort();
    for (size_t i = begin; i < end; i++)
        t->plain[i]++;
}

static void pause_us(long us)
{
    nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
}

static void hammer(uint32_t n_threads, int rounds)
{
    struct pool *pool = NULL;
    static _Thread_local struct tally t;
    assert_int_equal(pool_new(n_threads, &pool), STATUS_OK);
    assert_int_equal(pool_threads(pool), n_threads);
    for (int i = 0; i < rounds; i++) {
        size_t n = (size_t)(i * 37) % ITEMS + (i % 5 == 0 ? 0 : 1);
        size_t chunk = (size_t)i % 9 + 1;
        t = (struct tally){.n_threads = n_threads, .chunk = chunk};
        pool_run(pool, n, chunk, count, &t);
        for (size_t j = 0; j < ITEMS; j++)
            if (t.plain[j] != (j < n))
                fail_msg("%zu items in chunks of %zu: item %zu ran %u times", n, chunk, j,
                         t.plain[j]);
        if (i % 101 == 0)
            pause_us(i % 202 == 0 ? 1000 : 50); /* around the time after which they sleep */
    }
    pool_free(&pool);
    assert_null(pool);
    pool_free(&pool);
}

static void every_item_runs_once(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 5; n++)
        hammer(n, 1500);
}

static void *hammer_thread(void *arg)
{
    (void)arg;
    hammer(3, 700);
    return NULL;
}

static void pools_live_side_by_side(void **state)
{
    (void)state;
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer_thread, NULL), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
}

static void pools_start_and_stop(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++) {
        struct pool *pool = NULL;
        assert_int_equal(pool_new(1 + (uint32_t)i % 6, &pool), STATUS_OK);
        if (i % 3 == 0)
            pause_us(200);
        pool_free(&pool);
    }
}

static pthread_t worker;
static _Atomic bool worker_came, worker_held;
static int gate[2];

/* The caller stays in its first piece until the worker has come for one of its own. */
static void meet(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    count(ctx, begin, end, thread);
    if (thread == 1) {
        worker = pthread_self();
        atomic_store(&worker_came, true);
    }
    while (!atomic_load(&worker_came))
        sched_yield();
}

static void hold(int signal)
{
    char c;
    (void)signal;
    atomic_store(&worker_held, true);
    if (read(gate[0], &c, 1) != 1)
        abort();
}

/* A worker that does not come keeps nobody waiting, and what lies in its span is done by others; it
 * is stopped outside of any job. A caller that waits for it hangs, until the alarm. */
static void a_late_worker_holds_nobody_up(void **state)
{
    (void)state;
    struct pool *pool = NULL;
    struct tally t = {.n_threads = 2, .chunk = 1};
    struct sigaction action = {.sa_handler = hold}, before;
    atomic_store(&worker_came, false);
    assert_int_equal(pipe(gate), 0);
    assert_int_equal(sigaction(SIGUSR1, &action, &before), 0);
    assert_int_equal(pool_new(2, &pool), STATUS_OK);
    alarm(30);
    pool_run(pool, 4, 1, meet, &t);
    assert_int_equal(pthread_kill(worker, SIGUSR1), 0);
    for (;;) {
        pause_us(20000);
        if (atomic_load(&worker_held))
            break;
        pool_run(pool, 4, 1, count, &t); /* the thread sanitizer delivers signals to the awake */
    }
    for (int i = 0; i < 100; i++) {
        t = (struct tally){.n_threads = 1, .chunk = 1};
        pool_run(pool, ITEMS, 1, count, &t);
        for (size_t j = 0; j < ITEMS; j++)
            assert_int_equal(t.plain[j], 1);
    }
    assert_int_equal(write(gate[1], "", 1), 1);
    atomic_store(&worker_came, false);
    t.n_threads = 2;
    pool_run(pool, 4, 1, meet, &t);
    alarm(0);
    pool_free(&pool);
    assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
    close(gate[0]);
    close(gate[1]);
}

static void the_better_processors_are_picked(void **state)
{
    (void)state;
    /* two fast cores of two threads, two slow ones; as a system may number them */
    static const struct core box[] = {{0, 0, 900}, {1, 0, 1000}, {2, 0, 400},
                                      {3, 0, 400}, {4, 1, 900},  {5, 1, 1000}};
    static const uint32_t order[] = {1, 0, 2, 3, 5, 4};
    for (uint32_t n = 1; n <= 6; n++) {
        struct core cores[6];
        cpu_set_t set;
        memcpy(cores, box, sizeof box);
        assert_int_equal(cores_pick(cores, 6, n, &set), n < 6);
        for (uint32_t i = 0; n < 6 && i < 6; i++)
            assert_int_equal(CPU_ISSET(order[i], &set) != 0, i < n);
    }
}

static void only_allowed_processors_are_chosen(void **state)
{
    (void)state;
    cpu_set_t before, one, set;
    size_t first = 0;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    while (!CPU_ISSET(first, &before))
        first++;
    if (CPU_COUNT(&before) > 1) {
        assert_true(cores_choose(1, &set));
        CPU_AND(&one, &set, &before);
        assert_true(CPU_EQUAL(&one, &set) && CPU_COUNT(&set) == 1);
    }
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_false(cores_choose(1, &set));
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_false(cores_choose((uint32_t)CPU_COUNT(&before), &set));
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void idle_workers_sleep(void **state)
{
    (void)state;
    struct pool *pool = NULL;
    struct tally t = {.n_threads = 4, .chunk = 10};
    assert_int_equal(pool_new(4, &pool), STATUS_OK);
    pool_run(pool, ITEMS, 10, count, &t);
    pause_us(20000);
    double before = cpu_seconds();
    pause_us(200000);
    assert_true(cpu_seconds() - before < 0.02);
    pool_free(&pool);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    for (unsigned long at = 1; at <= 2; at++) {
        struct pool *pool = NULL;
        mem_fail_after(at);
        assert_int_equal(pool_new(3, &pool), STATUS_NO_MEMORY);
        mem_fail_after(0);
        assert_null(pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_runs_once),
        cmocka_unit_test(pools_live_side_by_side),
        cmocka_unit_test(pools_start_and_stop),
        cmocka_unit_test(idle_workers_sleep),
        cmocka_unit_test(memory_may_run_out),
        cmocka_unit_test(a_late_worker_holds_nobody_up),
        cmocka_unit_test(the_better_processors_are_picked),
        cmocka_unit_test(only_allowed_processors_are_chosen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
