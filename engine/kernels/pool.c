/* The thread pool: workers that spin a little, then sleep.
 *
 * A transformer layer is some ten parallel steps of 20 µs to 2 ms each, so a wake through the
 * kernel for every step would cost more than small steps take. Workers therefore watch the job
 * number for a bounded time before they sleep in a futex; so does the caller at the end of a job.
 * The spin is short and its second half yields the core, because several nodes may share a box: a
 * thread that spins where another wants to compute makes both slow.
 *
 * A job is cut into chunks that threads take from one counter: a slow core takes fewer. Results
 * cannot depend on that, since a chunk's work is a function of its items only.
 *
 * Happy path: the caller writes the job, raises `job`, wakes sleepers, works itself, waits until
 * `busy` is 0. Every worker passes through every job, if only to lower `busy`; so a job's fields
 * are never rewritten while someone may read them. Nothing can fail after pool_new. */
#include <assert.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine/kernels/pool.h"

enum { SPIN_PAUSES = 400, SPIN_YIELDS = 40, SPIN_MAX_NS = 40000 };

struct worker {
    struct pool *pool;
    uint32_t index;
    pthread_t thread;
};

struct pool {
    uint32_t n_threads;
    uint32_t n_started;
    struct worker *workers;
    pool_work *work;
    void *ctx;
    size_t n_items, chunk;
    bool stop;
    _Alignas(64) _Atomic uint32_t job;
    _Alignas(64) _Atomic size_t next;
    _Alignas(64) _Atomic uint32_t busy;
    _Alignas(64) _Atomic uint32_t sleepers;
    _Atomic uint32_t caller_sleeps;
};

static void futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void spin_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Waits a bounded time for *word to differ from `seen`; returns what it saw last. */
static uint32_t spin_while(_Atomic uint32_t *word, uint32_t seen)
{
    uint32_t value = seen;
    for (int i = 0; i < SPIN_PAUSES; i++) {
        value = atomic_load_explicit(word, memory_order_acquire);
        if (value != seen)
            return value;
        spin_pause();
    }
    uint64_t deadline = now_ns() + SPIN_MAX_NS;
    for (int i = 0; i < SPIN_YIELDS && now_ns() < deadline; i++) {
        sched_yield();
        for (int j = 0; j < 20; j++) {
            value = atomic_load_explicit(word, memory_order_acquire);
            if (value != seen)
                return value;
            spin_pause();
        }
    }
    return value;
}

static void take_chunks(struct pool *pool, uint32_t thread)
{
    for (;;) {
        size_t begin = atomic_fetch_add_explicit(&pool->next, pool->chunk, memory_order_relaxed);
        if (begin >= pool->n_items)
            return;
        size_t left = pool->n_items - begin;
        pool->work(pool->ctx, begin, begin + (left < pool->chunk ? left : pool->chunk), thread);
    }
}

/* The sleeper counts itself before it looks again; the caller raises the number before it looks at
 * the count. Both are sequentially consistent, so one of them sees the other. */
static uint32_t await_job(struct pool *pool, uint32_t seen)
{
    uint32_t job = spin_while(&pool->job, seen);
    while (job == seen) {
        atomic_fetch_add(&pool->sleepers, 1);
        if (atomic_load(&pool->job) == seen)
            futex_wait(&pool->job, seen);
        atomic_fetch_sub(&pool->sleepers, 1);
        job = atomic_load(&pool->job);
    }
    return job;
}

static void *worker_main(void *arg)
{
    struct worker *self = arg;
    struct pool *pool = self->pool;
    uint32_t seen = 0;
    for (;;) {
        seen = await_job(pool, seen);
        if (pool->stop)
            return NULL;
        take_chunks(pool, self->index);
        if (atomic_fetch_sub(&pool->busy, 1) == 1 && atomic_load(&pool->caller_sleeps) != 0)
            futex_wake(&pool->busy);
    }
}

static void announce(struct pool *pool)
{
    atomic_fetch_add(&pool->job, 1);
    if (atomic_load(&pool->sleepers) != 0)
        futex_wake(&pool->job);
}

static void await_workers(struct pool *pool)
{
    uint32_t busy = atomic_load(&pool->busy);
    while (busy != 0) {
        busy = spin_while(&pool->busy, busy);
        if (busy == 0)
            return;
        atomic_store(&pool->caller_sleeps, 1);
        busy = atomic_load(&pool->busy);
        if (busy != 0)
            futex_wait(&pool->busy, busy);
        atomic_store(&pool->caller_sleeps, 0);
        busy = atomic_load(&pool->busy);
    }
}

void pool_run(struct pool *pool, size_t n_items, size_t chunk, pool_work *work, void *ctx)
{
    assert(chunk > 0);
    if (n_items == 0)
        return;
    if (pool->n_threads == 1 || n_items <= chunk) {
        for (size_t at = 0; at < n_items; at += chunk)
            work(ctx, at, n_items - at < chunk ? n_items : at + chunk, 0);
        return;
    }
    pool->work = work;
    pool->ctx = ctx;
    pool->n_items = n_items;
    pool->chunk = chunk;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->busy, pool->n_threads - 1, memory_order_relaxed);
    announce(pool);
    take_chunks(pool, 0);
    await_workers(pool);
}

enum status pool_new(uint32_t n_threads, struct pool **out)
{
    *out = NULL;
    struct pool *pool = mem_aligned(64, 1, sizeof *pool);
    if (pool == NULL)
        return STATUS_NO_MEMORY;
    *pool = (struct pool){.n_threads = n_threads == 0 ? 1 : n_threads};
    pool->workers = MEM_NEW_N(struct worker, pool->n_threads);
    if (pool->workers == NULL) {
        mem_free(pool);
        return STATUS_NO_MEMORY;
    }
    for (uint32_t i = 1; i < pool->n_threads; i++) {
        struct worker *w = &pool->workers[i];
        *w = (struct worker){.pool = pool, .index = i};
        int error = pthread_create(&w->thread, NULL, worker_main, w);
        if (error != 0) {
            pool_free(&pool);
            return status_from_errno(error);
        }
        pool->n_started++;
    }
    *out = pool;
    return STATUS_OK;
}

void pool_free(struct pool **pool)
{
    struct pool *p = *pool;
    if (p == NULL)
        return;
    p->stop = true;
    announce(p);
    for (uint32_t i = 1; i <= p->n_started; i++)
        pthread_join(p->workers[i].thread, NULL);
    mem_free(p->workers);
    mem_free(p);
    *pool = NULL;
}

uint32_t pool_threads(const struct pool *pool)
{
    return pool->n_threads;
}
