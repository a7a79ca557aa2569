/* The thread pool: workers that spin a little, then sleep.
 *
 * A transformer layer is some ten parallel steps of 20 µs to 2 ms each, so a wake through the
 * kernel for every step would cost more than small steps take. Workers therefore watch the job
 * number for a bounded time before they sleep in a futex; so does the caller at the end of a job.
 * The spin is short and its second half yields the core, because several nodes may share a box: a
 * thread that spins where another wants to compute makes both slow.
 *
 * A job is cut into pieces, and each thread has a span of them, which it takes from the front: so
 * it reads memory straight on, which is what a processor fetches ahead, and the same part in every
 * pass. Who is done takes from the ends of others' spans: a slow core does less. A quarter of what
 * is left is taken at a time, since an atomic step lets no read pass it and leaves memory idle for
 * a moment, in all threads together where they are equally fast. Results cannot depend on that,
 * since a piece's work is a function of its items only. Nor is a worker waited for that has not
 * come: on a busy box it may be a time slice away. So workers enter a job and leave it, and only
 * those inside count.
 *
 * All of that is one word, `state`: the number of the job, whether it is open, how many are inside.
 *
 *      closed --caller writes the job, opens--> open --no piece left, caller closes--> closed
 *      open: a worker that has not seen this number may enter (inside + 1); it leaves (inside - 1)
 *      closed and nobody inside: the caller may write the next job
 *
 * So a job's fields are never written while someone may read them. Workers keep off the second
 * threads of a core and the small cores where the process has enough others (cores.c). Nothing can
 * fail after pool_new. */
#include <assert.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine/kernels/cores.h"
#include "engine/kernels/pool.h"

enum { SPIN_PAUSES = 400, SPIN_YIELDS = 40, SPIN_MAX_NS = 40000 };
/* state: inside in the low bits, then open, then the number. */
enum { INSIDE = (1 << 11) - 1, OPEN = INSIDE + 1 };

struct worker {
    struct pool *pool;
    uint32_t index;
    pthread_t thread;
};

/* Pieces that nobody has taken: the first in the high half, the one behind the last in the low. */
struct span {
    _Alignas(64) _Atomic uint64_t pieces;
};

struct pool {
    uint32_t n_threads;
    uint32_t n_started;
    struct worker *workers;
    struct span *spans; /* [n_threads] */
    pool_work *work;
    void *ctx;
    size_t n_items, chunk;
    _Atomic bool stop;
    _Alignas(64) _Atomic uint32_t state;
    _Alignas(64) _Atomic uint32_t sleepers;
    _Atomic uint32_t caller_sleeps;
    _Atomic uint32_t left; /* changes when the last one leaves while the caller sleeps */
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

/* A worker waits for a job that is open and not the one it has seen (the state without who is
 * inside); the caller for the last one to leave. */
static bool is_awaited(uint32_t state, bool caller, uint32_t seen)
{
    if (caller)
        return (state & INSIDE) == 0;
    return (state & OPEN) != 0 && (state & ~(uint32_t)INSIDE) != seen;
}

/* Waits a bounded time; returns what it saw last. */
static uint32_t spin(struct pool *pool, bool caller, uint32_t seen)
{
    uint32_t state = 0;
    for (int i = 0; i < SPIN_PAUSES; i++) {
        state = atomic_load_explicit(&pool->state, memory_order_acquire);
        if (is_awaited(state, caller, seen))
            return state;
        spin_pause();
    }
    uint64_t deadline = now_ns() + SPIN_MAX_NS;
    for (int i = 0; i < SPIN_YIELDS && now_ns() < deadline; i++) {
        sched_yield();
        for (int j = 0; j < 20; j++) {
            state = atomic_load_explicit(&pool->state, memory_order_acquire);
            if (is_awaited(state, caller, seen))
                return state;
            spin_pause();
        }
    }
    return state;
}

/* A quarter of what is left, from the front of the own span or from the end of another's. */
static bool take_share(struct span *span, bool own, uint32_t *begin, uint32_t *end)
{
    uint64_t seen = atomic_load_explicit(&span->pieces, memory_order_relaxed), left;
    do {
        uint32_t first = (uint32_t)(seen >> 32), last = (uint32_t)seen;
        if (first >= last)
            return false;
        uint32_t n = (last - first + 3) / 4;
        *begin = own ? first : last - n;
        *end = *begin + n;
        left = own ? seen + ((uint64_t)n << 32) : seen - n;
    } while (!atomic_compare_exchange_weak_explicit(&span->pieces, &seen, left,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

static void run_piece(const struct pool *pool, size_t piece, uint32_t thread)
{
    size_t begin = piece * pool->chunk, left = pool->n_items - begin;
    pool->work(pool->ctx, begin, begin + (left < pool->chunk ? left : pool->chunk), thread);
}

static void take_pieces(struct pool *pool, uint32_t thread)
{
    uint32_t first, last;
    for (uint32_t i = 0; i < pool->n_threads; i++) {
        uint32_t owner = thread + i < pool->n_threads ? thread + i : thread + i - pool->n_threads;
        while (take_share(&pool->spans[owner], i == 0, &first, &last))
            for (size_t piece = first; piece < last; piece++)
                run_piece(pool, piece, thread);
    }
}

/* The sleeper counts itself before it looks again; the caller opens before it looks at the count.
 * Both are sequentially consistent, so one of them sees the other. */
static uint32_t await_job(struct pool *pool, uint32_t seen)
{
    uint32_t state = spin(pool, false, seen);
    while (!is_awaited(state, false, seen)) {
        atomic_fetch_add(&pool->sleepers, 1);
        state = atomic_load(&pool->state);
        if (!is_awaited(state, false, seen))
            futex_wait(&pool->state, state);
        atomic_fetch_sub(&pool->sleepers, 1);
        state = atomic_load(&pool->state);
    }
    return state;
}

/* False where the job was closed first. */
static bool enter(struct pool *pool, uint32_t state)
{
    uint32_t number = state & ~(uint32_t)INSIDE;
    while ((state & ~(uint32_t)INSIDE) == number)
        if (atomic_compare_exchange_weak(&pool->state, &state, state + 1))
            return true;
    return false;
}

static void leave(struct pool *pool)
{
    uint32_t before = atomic_fetch_sub(&pool->state, 1);
    if ((before & INSIDE) == 1 && atomic_load(&pool->caller_sleeps) != 0) {
        atomic_fetch_add(&pool->left, 1);
        futex_wake(&pool->left);
    }
}

static void *worker_main(void *arg)
{
    struct worker *self = arg;
    struct pool *pool = self->pool;
    uint32_t seen = 0;
    for (;;) {
        uint32_t state = await_job(pool, seen);
        if (atomic_load(&pool->stop))
            return NULL;
        seen = state & ~(uint32_t)INSIDE;
        if (!enter(pool, state))
            continue;
        take_pieces(pool, self->index);
        leave(pool);
    }
}

static void open_job(struct pool *pool)
{
    atomic_fetch_add(&pool->state, OPEN);
    if (atomic_load(&pool->sleepers) != 0)
        futex_wake(&pool->state);
}

/* Adding OPEN to an open state carries into the number. */
static void close_job(struct pool *pool)
{
    atomic_fetch_add(&pool->state, OPEN);
    while ((spin(pool, true, 0) & INSIDE) != 0) {
        atomic_store(&pool->caller_sleeps, 1);
        uint32_t left = atomic_load(&pool->left);
        if ((atomic_load(&pool->state) & INSIDE) != 0)
            futex_wait(&pool->left, left);
        atomic_store(&pool->caller_sleeps, 0);
    }
}

/* The caller's span comes first and is never empty. */
static void share_pieces(struct pool *pool, size_t n_pieces)
{
    uint32_t n = pool->n_threads;
    assert(n_pieces <= UINT32_MAX / 2);
    for (uint64_t i = 0, begin = 0; i < n; i++) {
        uint64_t end = ((i + 1) * n_pieces + n - 1) / n;
        atomic_store_explicit(&pool->spans[i].pieces, begin << 32 | end, memory_order_relaxed);
        begin = end;
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
    share_pieces(pool, (n_items + chunk - 1) / chunk);
    open_job(pool);
    take_pieces(pool, 0);
    close_job(pool);
}

enum status pool_new(uint32_t n_threads, struct pool **out)
{
    *out = NULL;
    struct pool *pool = mem_aligned(64, 1, sizeof *pool);
    if (pool == NULL)
        return STATUS_NO_MEMORY;
    *pool = (struct pool){.n_threads = n_threads == 0 ? 1 : n_threads};
    assert(pool->n_threads <= INSIDE);
    cpu_set_t cores;
    bool some = cores_choose(pool->n_threads, &cores);
    pool->workers = MEM_NEW_N(struct worker, pool->n_threads);
    pool->spans = mem_aligned(64, pool->n_threads, sizeof *pool->spans);
    if (pool->workers == NULL || pool->spans == NULL) {
        mem_free(pool->workers);
        mem_free(pool->spans);
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
        if (some)
            pthread_setaffinity_np(w->thread, sizeof cores, &cores);
    }
    *out = pool;
    return STATUS_OK;
}

void pool_free(struct pool **pool)
{
    struct pool *p = *pool;
    if (p == NULL)
        return;
    atomic_store(&p->stop, true);
    open_job(p);
    for (uint32_t i = 1; i <= p->n_started; i++)
        pthread_join(p->workers[i].thread, NULL);
    mem_free(p->workers);
    mem_free(p->spans);
    mem_free(p);
    *pool = NULL;
}

uint32_t pool_threads(const struct pool *pool)
{
    return pool->n_threads;
}
