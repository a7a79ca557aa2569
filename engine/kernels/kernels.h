#ifndef SKEIN_ENGINE_KERNELS_KERNELS_H
#define SKEIN_ENGINE_KERNELS_KERNELS_H

/* Arithmetic: tensor types, matrix products, the vector operations of a transformer, threads.
 * A `compute` is one engine kind with its threads and scratch. Formats and instruction sets are
 * chosen at run time through a table of function pointers (dispatch). */
#include "engine/kernels/attend.h"

/* GGUF's numbers of tensor types. */
enum tensor_type {
    TENSOR_F32 = 0,
    TENSOR_F16 = 1,
    TENSOR_Q4_0 = 2,
    TENSOR_Q4_1 = 3,
    TENSOR_Q5_0 = 6,
    TENSOR_Q5_1 = 7,
    TENSOR_Q8_0 = 8,
    TENSOR_Q8_1 = 9,
    TENSOR_Q2_K = 10,
    TENSOR_Q3_K = 11,
    TENSOR_Q4_K = 12,
    TENSOR_Q5_K = 13,
    TENSOR_Q6_K = 14,
    TENSOR_Q8_K = 15,
    TENSOR_IQ2_XXS = 16,
    TENSOR_IQ2_XS = 17,
    TENSOR_IQ3_XXS = 18,
    TENSOR_IQ1_S = 19,
    TENSOR_IQ4_NL = 20,
    TENSOR_IQ3_S = 21,
    TENSOR_IQ2_S = 22,
    TENSOR_IQ4_XS = 23,
    TENSOR_I8 = 24,
    TENSOR_I16 = 25,
    TENSOR_I32 = 26,
    TENSOR_I64 = 27,
    TENSOR_F64 = 28,
    TENSOR_IQ1_M = 29,
    TENSOR_BF16 = 30,
    TENSOR_TQ1_0 = 34,
    TENSOR_TQ2_0 = 35,
    TENSOR_MXFP4 = 39,
    TENSOR_NVFP4 = 40,
    TENSOR_Q1_0 = 41,
    TENSOR_Q2_0 = 42,
    TENSOR_BF16_DOT = 63, /* ours, in no file: BF16 for products with activations rounded to it */
    TENSOR_TYPE_LIMIT = 64
};

struct tensor_type_info {
    const char *name;      /* "Q4_K"; NULL for a number that is not a type */
    uint32_t block_values; /* values of a block: 1, 2, 32, 64, 128, 256 */
    uint32_t block_bytes;
    bool runnable; /* there are kernels for it */
};
const struct tensor_type_info *tensor_type_info(uint32_t type); /* never NULL */
/* Reference decoding of n values (a multiple of the block) to float32, exact. */
void tensor_decode(enum tensor_type type, const void *blocks, float *out, size_t n_values);

/* A matrix [n_rows, n_cols] of a tensor, row-major in blocks; the bytes are borrowed. */
struct matrix {
    enum tensor_type type;
    uint32_t n_rows;  /* outputs */
    uint32_t n_cols;  /* inputs; a multiple of the type's block */
    const void *data; /* aligned to 32 bytes in files, not more */
    size_t row_bytes;
    bool
        mapped; /* data lies in a read-only file mapping: weight_new may drop pages it has copied */
};

/* ---------------------------------------------------------------- compute */

struct compute; /* one caller at a time */
enum status compute_new(enum engine_kind kind, uint32_t n_threads, struct compute **out,
                        struct fault *fault) MUST_USE;
void compute_free(struct compute **compute);
uint32_t compute_threads(const struct compute *compute);

/* Grows the scratch so that products of up to max_rows rows and max_cols columns allocate nothing.
 */
enum status compute_reserve(struct compute *compute, size_t max_rows, size_t max_cols) MUST_USE;
/* Bytes that compute_reserve will hold for these sizes. */
uint64_t compute_scratch_bytes(enum engine_kind kind, size_t max_rows, size_t max_cols);
/* Makes resident what products of the weights there are will use of the scratch. */
void compute_touch(struct compute *compute);

/* A weight made ready for products: the seam where repacking lives. Today it may just borrow. */
struct weight;
enum status weight_new(struct compute *compute, const struct matrix *matrix,
                       struct weight **out) MUST_USE;
/* The same without a copy: the bytes stay the caller's and are read for every product, each group
 * of rows being brought into the kernels' layout then, in a thread's scratch. Same results to the
 * bit; made for files that do not fit into memory. */
enum status weight_borrow(struct compute *compute, const struct matrix *matrix,
                          struct weight **out) MUST_USE;
/* The same as weight_new from rows that are made as they are packed; matrix->data is not used. rows
 * writes rows [first, first + n), n <= 16, to out, one behind the other; scratch has n_cols floats.
 * It is called from all threads at once. */
typedef void weight_rows(void *ctx, uint32_t first, uint32_t n, float *scratch, void *out);
enum status weight_make(struct compute *compute, const struct matrix *matrix, weight_rows *rows,
                        void *ctx, struct weight **out) MUST_USE;
void weight_free(struct weight **weight);
/* Where its numbers lie: memory of its own, or of the file. */
void weight_memory(const struct weight *weight, const void **data, size_t *n_bytes);

/* y[n, m] = x[n, k] · Wᵀ for W [m, k]; ldy is the row stride of y in floats (≥ m), ldx that of x.
 * Every y is a function of its own x row and W row only: the reduction order is fixed per row,
 * whatever n, the threads, or the other rows (native: bit for bit). x is not changed. n ≤ the
 * reserved rows. */
void compute_matmul(struct compute *compute, const struct weight *w, const float *x, size_t ldx,
                    size_t n, float *y, size_t ldy);
/* Several products with the same x in one go (q, k, v; gate, up): same results as one by one. */
void compute_matmul_many(struct compute *compute, const struct weight *const *w, size_t n_weights,
                         const float *x, size_t ldx, size_t n, float *const *y, const size_t *ldy);
/* Several products, each with rows of its own, in one go (the experts of a layer): same results as
 * one by one. All have the same number of columns. Rows that are those of the product before (x,
 * ldx and n) count once; all in all n ≤ the reserved rows. */
enum { COMPUTE_MAX_PRODUCTS = 64 };
struct product {
    const struct weight *w;
    const float *x; /* [n, n_cols] */
    size_t ldx, n;
    float *y; /* [n, n_rows] */
    size_t ldy;
};
void compute_matmul_each(struct compute *compute, const struct product *products,
                         size_t n_products);
/* One row of a matrix as floats (token embedding). */
void weight_row(const struct weight *w, uint32_t row, float *out);

/* Splits [0, n_items) over the threads: fn(ctx, begin, end, thread). Returns when all are done. */
void compute_parallel(struct compute *compute, size_t n_items,
                      void (*fn)(void *ctx, size_t begin, size_t end, uint32_t thread), void *ctx);

/* Vector operations of the chosen instruction set. Each has one fixed reduction order. */
struct vector_ops {
    float (*dot)(const float *a, const float *b, size_t n);
    void (*axpy)(float a, const float *x, float *y, size_t n); /* y += a x */
    void (*scale)(float *x, float a, size_t n);
    void (*add)(float *y, const float *x, size_t n); /* y += x */
    void (*rms_norm)(float *out, const float *x, const float *weight, size_t n, float eps);
    void (*silu_mul)(float *gate, const float *up, size_t n); /* gate = silu(gate) · up */
    void (*softmax)(float *x, size_t n);
    attend_page *attend_page; /* attend.h */
    kv_store *kv_store;
};
const struct vector_ops *compute_ops(const struct compute *compute);

#endif
