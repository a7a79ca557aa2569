/* Products of one weight matrix, as fast as they go: GB/s of weights for one row, Gop/s for many.
 *
 *   bench_kernels [threads] [type|all] [rows] [cols] [MB]
 *
 * For every type and every number of rows of x, the best of several runs (neighbours only ever slow
 * one) over so many matrices that no cache holds them (MB in all; 0: one matrix, which a cache may
 * hold). Beside it the read bandwidth of the same process, over memory of the same kind, taken
 * before and after. One thread is timed by its own clock, which stands while others run. Random
 * weights; correctness is tests/kernels' business. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/kernels/kernels.h"

enum { RUNS = 7, MAX_WEIGHTS = 512, MAX_N = 512 };

static size_t working_set = 192 << 20;

static clockid_t clock_used = CLOCK_MONOTONIC;

static double now(void)
{
    struct timespec t;
    clock_gettime(clock_used, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void random_bytes(uint8_t *data, size_t n)
{
    uint64_t state = 88172645463325252u;
    for (size_t i = 0; i + 8 <= n; i += 8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        uint64_t word = state & 0xbfbfbfbfbfbfbfbfu; /* no half becomes infinite */
        memcpy(data + i, &word, 8);
    }
}

struct bench {
    struct compute *c;
    struct weight *w[MAX_WEIGHTS];
    size_t n_weights;
    uint32_t rows, cols;
    double bytes;
    float *x, *y;
};

static double run(struct bench *b, size_t n, size_t n_weights)
{
    double seconds[RUNS];
    for (int i = 0; i < RUNS; i++) {
        double start = now();
        for (size_t j = 0; j < n_weights; j++)
            compute_matmul(b->c, b->w[j], b->x, b->cols, n, b->y, b->rows);
        seconds[i] = (now() - start) / (double)n_weights;
    }
    qsort(seconds, RUNS, sizeof *seconds, by_value);
    return seconds[0];
}

static void bench_type(enum tensor_type type, uint32_t threads, uint32_t rows, uint32_t cols)
{
    static const size_t counts[] = {1, 2, 4, 8, 16, 64, 512};
    const struct tensor_type_info *info = tensor_type_info(type);
    struct bench b = {.rows = rows, .cols = cols};
    size_t row_bytes = cols / info->block_values * info->block_bytes, bytes = rows * row_bytes;
    uint8_t *data = mem_aligned(64, bytes + 8, 1);
    b.x = MEM_NEW_N(float, (size_t)MAX_N *cols);
    b.y = MEM_NEW_N(float, (size_t)MAX_N *rows);
    if (data == NULL || b.x == NULL || b.y == NULL ||
        compute_new(ENGINE_NATIVE, threads, &b.c, NULL) != STATUS_OK ||
        compute_reserve(b.c, MAX_N, cols) != STATUS_OK)
        exit(1);
    random_bytes(data, bytes);
    for (size_t i = 0; i < (size_t)MAX_N * cols; i++)
        b.x[i] = (float)(i * 2654435761u % 2048) / 1024.0f - 1.0f;
    struct matrix m = {
        .type = type, .n_rows = rows, .n_cols = cols, .data = data, .row_bytes = row_bytes};
    size_t wanted = working_set / bytes + 1;
    for (; b.n_weights < wanted && b.n_weights < MAX_WEIGHTS; b.n_weights++)
        if (weight_new(b.c, &m, &b.w[b.n_weights]) != STATUS_OK)
            exit(1);
    printf("%-8s", info->name);
    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        size_t few = 64 / counts[i] + 1;
        double s = run(&b, counts[i], few < b.n_weights ? few : b.n_weights);
        if (i == 0)
            s = run(&b, 1, b.n_weights);
        if (counts[i] == 1)
            printf("  1: %5.1f GB/s", (double)bytes / s * 1e-9);
        else
            printf("  %zu: %4.0f", counts[i], 2.0 * (double)counts[i] * rows * cols / s * 1e-9);
    }
    printf("  Gop/s\n");
    fflush(stdout);
    for (size_t i = 0; i < b.n_weights; i++)
        weight_free(&b.w[i]);
    compute_free(&b.c);
    mem_free(data);
    mem_free(b.x);
    mem_free(b.y);
}

static void print_speed(uint32_t threads)
{
    struct engine_speed speed;
    if (engine_measure(ENGINE_NATIVE, threads, &speed) == STATUS_OK)
        printf("read %.1f GB/s, Q8_0 product %.0f Gop/s, %u threads\n",
               speed.read_bytes_per_second * 1e-9, speed.flops_per_second * 1e-9, threads);
}

int main(int argc, char **argv)
{
    static const enum tensor_type usual[] = {
        TENSOR_Q4_0,  TENSOR_Q4_1, TENSOR_Q5_0, TENSOR_Q5_1, TENSOR_Q8_0,   TENSOR_Q2_K,
        TENSOR_Q3_K,  TENSOR_Q4_K, TENSOR_Q5_K, TENSOR_Q6_K, TENSOR_IQ4_NL, TENSOR_IQ4_XS,
        TENSOR_MXFP4, TENSOR_F16,  TENSOR_BF16, TENSOR_F32};
    uint32_t threads = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1;
    const char *name = argc > 2 ? argv[2] : "usual";
    uint32_t rows = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 2048;
    uint32_t cols = argc > 4 ? (uint32_t)strtoul(argv[4], NULL, 10) : 2048;
    if (threads == 1)
        clock_used = CLOCK_THREAD_CPUTIME_ID;
    if (argc > 5)
        working_set = (size_t)strtoul(argv[5], NULL, 10) << 20;
    print_speed(threads);
    if (strcmp(name, "usual") == 0) {
        for (size_t i = 0; i < COUNT_OF(usual); i++)
            bench_type(usual[i], threads, rows, cols);
    } else {
        for (uint32_t t = 0; t < TENSOR_TYPE_LIMIT; t++) {
            const struct tensor_type_info *info = tensor_type_info(t);
            if (info->runnable && (strcmp(name, "all") == 0 || strcmp(name, info->name) == 0))
                bench_type((enum tensor_type)t, threads, rows, cols);
        }
    }
    print_speed(threads);
    return 0;
}
