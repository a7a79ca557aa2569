/* How fast this box reads weights and multiplies, measured in about 0.2 s.
 *
 * The planner divides layers by these two numbers, so they are taken the way the engine works:
 * reads by all threads over memory in huge pages, pushed out of every cache before each sweep, and
 * a product of a Q8_0 matrix with as many rows as a prefill chunk. Flushing keeps the buffer small:
 * a node measures while it starts, and its peak memory is a promise. The best of several short runs
 * counts: what disturbs a run on a shared box only ever makes it slower. All memory is given back.
 */
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "engine/kernels/pack.h"
#include "engine/kernels/pool.h"

enum {
    READ_BYTES = 32 << 20,
    LINE_BYTES = 64,
    PIECE_BYTES = 1 << 20,
    PIECE_FLOATS = PIECE_BYTES / 4,
    ROWS = 64,
    OUTPUTS = 1024,
    COLS = 2048
};

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

struct sweep {
    const float *data;
    float (*dot)(const float *a, const float *b, size_t n);
    _Atomic float sum; /* keeps the reads from being optimised away */
};

static void fill(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    (void)thread;
    memset((uint8_t *)ctx + begin * PIECE_BYTES, 0, (end - begin) * PIECE_BYTES);
}

/* Out of all caches, so that the next sweep reads memory. */
static void flush_pieces(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const uint8_t *data = (const uint8_t *)((const struct sweep *)ctx)->data;

    (void)thread;
    for (size_t at = begin * PIECE_BYTES; at < end * PIECE_BYTES; at += LINE_BYTES) {
#if defined __x86_64__
        __builtin_ia32_clflush(data + at);
#elif defined __aarch64__
        __asm__ volatile("dc civac, %0" : : "r"(data + at) : "memory");
#endif
    }
    atomic_thread_fence(memory_order_seq_cst);
}

static void sweep_pieces(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    struct sweep *sweep = ctx;
    (void)thread;
    const float *p = sweep->data + begin * PIECE_FLOATS;
    sweep->sum = sweep->dot(p, p, (end - begin) * PIECE_FLOATS);
}

static enum status measure_read(const struct compute *c, double seconds, double *out)
{
    struct pool *pool = NULL;
    float *data = pages_new(READ_BYTES);
    enum status status = data == NULL ? STATUS_NO_MEMORY : pool_new(compute_threads(c), &pool);
    if (status == STATUS_OK) {
        struct sweep sweep = {.data = data, .dot = compute_ops(c)->dot};
        double best = 0, end = now_seconds() + seconds;
        pool_run(pool, READ_BYTES / PIECE_BYTES, 1, fill, data);
        do {
            pool_run(pool, READ_BYTES / PIECE_BYTES, 1, flush_pieces, &sweep);
            double start = now_seconds();
            pool_run(pool, READ_BYTES / PIECE_BYTES, 1, sweep_pieces, &sweep);
            double rate = READ_BYTES / (now_seconds() - start);
            best = rate > best ? rate : best;
        } while (now_seconds() < end);
        *out = best;
    }
    pool_free(&pool);
    pages_free(data, READ_BYTES);
    return status;
}

/* A matrix of random codes with scales of 1. */
static uint8_t *matrix_new(size_t row_bytes)
{
    uint8_t *data = mem_aligned(64, OUTPUTS, row_bytes);
    uint32_t state = 1;
    for (size_t i = 0; data != NULL && i < OUTPUTS * row_bytes; i++) {
        state = state * 1664525u + 1013904223u;
        data[i] = i % 34 == 0 ? 0 : i % 34 == 1 ? 0x3c : (uint8_t)(state >> 24);
    }
    return data;
}

static enum status measure_flops(struct compute *c, double seconds, double *out)
{
    size_t row_bytes = COLS / 32 * 34;
    uint8_t *data = matrix_new(row_bytes);
    float *x = MEM_NEW_N(float, ROWS *COLS), *y = MEM_NEW_N(float, ROWS *OUTPUTS);
    struct weight *w = NULL;
    enum status status = STATUS_NO_MEMORY;
    if (data == NULL || x == NULL || y == NULL)
        goto out;
    for (size_t i = 0; i < ROWS * COLS; i++)
        x[i] = (float)(i % 17) - 8.0f;
    struct matrix m = {.type = TENSOR_Q8_0,
                       .n_rows = OUTPUTS,
                       .n_cols = COLS,
                       .data = data,
                       .row_bytes = row_bytes};
    status = compute_reserve(c, ROWS, COLS);
    if (status == STATUS_OK)
        status = weight_new(c, &m, &w);
    if (status != STATUS_OK)
        goto out;
    double best = 0, end = now_seconds() + seconds;
    do {
        double start = now_seconds();
        compute_matmul(c, w, x, COLS, ROWS, y, OUTPUTS);
        double rate = 2.0 * ROWS * OUTPUTS * COLS / (now_seconds() - start);
        best = rate > best ? rate : best;
    } while (now_seconds() < end);
    *out = best;
out:
    weight_free(&w);
    mem_free(data);
    mem_free(x);
    mem_free(y);
    return status;
}

enum status engine_measure(enum engine_kind kind, uint32_t n_threads, struct engine_speed *out)
{
    *out = (struct engine_speed){0};
    struct compute *c = NULL;
    enum status status = compute_new(kind, n_threads, &c, NULL);
    if (status == STATUS_OK)
        status = measure_read(c, 0.06, &out->read_bytes_per_second);
    if (status == STATUS_OK)
        status = measure_flops(c, 0.06, &out->flops_per_second);
    compute_free(&c);
    return status;
}
