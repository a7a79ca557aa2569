/* How fast this box reads weights and multiplies.
 *
 * The planner divides layers by two numbers, measured in about 0.2 s, so they are taken the way the
 * engine works: reads by all threads over memory in huge pages, pushed out of every cache before
 * each sweep, and a product of a Q8_0 matrix with as many rows as a prefill chunk. Weights that
 * stay in their file are a third: the same matrix without a copy and one row, which arithmetic
 * binds, so that caches do not matter. Flushing keeps
 * the buffer small: a node measures while it starts, and its peak memory is a promise. The best of
 * several short runs counts: what disturbs a run on a shared box only ever makes it slower.
 *
 * A benchmark sets its figures beside the same reads of more memory than any cache holds; there the
 * median of the sweeps counts, because a share of it is quoted as a median too. All memory is given
 * back. What fails: memory, and a thread that cannot be started. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/kernels/pack.h"
#include "engine/kernels/pool.h"

enum {
    FLUSHED_BYTES = 32 << 20,
    UNCACHED_BYTES = 256 << 20,
    UNCACHED_SWEEPS = 5,
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

/* ---------------------------------------------------------------- memory */

/* Memory that all threads of a pool read. */
struct sweep {
    struct pool *pool;
    float *data;
    size_t n_bytes;
    float (*dot)(const float *a, const float *b, size_t n);
    _Atomic float sum; /* keeps the reads from being optimised away */
};

static void fill_pieces(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct sweep *sweep = ctx;
    (void)thread;
    memset(sweep->data + begin * PIECE_FLOATS, 0, (end - begin) * PIECE_BYTES);
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

static void read_pieces(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    struct sweep *sweep = ctx;
    (void)thread;
    const float *p = sweep->data + begin * PIECE_FLOATS;
    sweep->sum = sweep->dot(p, p, (end - begin) * PIECE_FLOATS);
}

static void each_piece(struct sweep *sweep, pool_work *work)
{
    pool_run(sweep->pool, sweep->n_bytes / PIECE_BYTES, 1, work, sweep);
}

/* To be closed on failure too. */
static enum status sweep_open(struct sweep *sweep, const struct compute *c, uint32_t n_threads,
                              size_t n_bytes)
{
    *sweep = (struct sweep){.n_bytes = n_bytes, .dot = compute_ops(c)->dot};
    sweep->data = pages_new(n_bytes);
    if (sweep->data == NULL)
        return STATUS_NO_MEMORY;
    enum status status = pool_new(n_threads, &sweep->pool);
    if (status == STATUS_OK)
        each_piece(sweep, fill_pieces);
    return status;
}

static void sweep_close(struct sweep *sweep)
{
    pool_free(&sweep->pool);
    pages_free(sweep->data, sweep->n_bytes);
}

/* Bytes per second. */
static double sweep_rate(struct sweep *sweep)
{
    double start = now_seconds();
    each_piece(sweep, read_pieces);
    return (double)sweep->n_bytes / (now_seconds() - start);
}

static enum status measure_read(const struct compute *c, double seconds, double *out)
{
    struct sweep sweep;
    enum status status = sweep_open(&sweep, c, compute_threads(c), FLUSHED_BYTES);
    double end = now_seconds() + seconds;
    while (status == STATUS_OK && (*out == 0 || now_seconds() < end)) {
        each_piece(&sweep, flush_pieces);
        double rate = sweep_rate(&sweep);
        *out = rate > *out ? rate : *out;
    }
    sweep_close(&sweep);
    return status;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

enum status engine_measure_read(uint32_t n_threads, double *out)
{
    *out = 0;
    struct compute *c = NULL;
    struct sweep sweep;
    double rates[UNCACHED_SWEEPS];
    enum status status = compute_new(ENGINE_NATIVE, 1, &c, NULL);
    if (status != STATUS_OK)
        return status;
    status = sweep_open(&sweep, c, n_threads, UNCACHED_BYTES);
    if (status == STATUS_OK) {
        for (int i = 0; i < UNCACHED_SWEEPS; i++)
            rates[i] = sweep_rate(&sweep);
        qsort(rates, UNCACHED_SWEEPS, sizeof *rates, by_value);
        *out = rates[UNCACHED_SWEEPS / 2];
    }
    sweep_close(&sweep);
    compute_free(&c);
    return status;
}

/* ---------------------------------------------------------------- products */

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

/* Products of n rows for about so many seconds; the least time that one took. */
static double product_seconds(struct compute *c, const struct weight *w, const float *x, size_t n,
                              float *y, double seconds)
{
    double best = 0, start = now_seconds(), end = start + seconds;
    while (start < end || best == 0) {
        compute_matmul(c, w, x, COLS, n, y, OUTPUTS);
        double now = now_seconds();
        best = best == 0 || now - start < best ? now - start : best;
        start = now;
    }
    return best;
}

/* Of one matrix: prefill with a copy in the kernels' layout, decode without it. */
static enum status measure_products(struct compute *c, double seconds, struct engine_speed *out)
{
    size_t row_bytes = COLS / 32 * 34;
    uint8_t *data = matrix_new(row_bytes);
    float *x = MEM_NEW_N(float, ROWS *COLS), *y = MEM_NEW_N(float, ROWS *OUTPUTS);
    struct weight *w = NULL, *mapped = NULL;
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
    if (status == STATUS_OK)
        status = weight_borrow(c, &m, &mapped);
    if (status != STATUS_OK)
        goto out;
    out->flops_per_second =
        2.0 * ROWS * OUTPUTS * COLS / product_seconds(c, w, x, ROWS, y, seconds);
    out->mapped_bytes_per_second =
        (double)(OUTPUTS * row_bytes) / product_seconds(c, mapped, x, 1, y, seconds / 3);
    if (out->mapped_bytes_per_second > out->read_bytes_per_second)
        out->mapped_bytes_per_second = out->read_bytes_per_second;
out:
    weight_free(&w);
    weight_free(&mapped);
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
        status = measure_products(c, 0.06, out);
    compute_free(&c);
    return status;
}
