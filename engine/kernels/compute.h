#ifndef SKEIN_ENGINE_KERNELS_COMPUTE_H
#define SKEIN_ENGINE_KERNELS_COMPUTE_H

/* Private parts of a compute, shared by its two kinds of products. */
#include "engine/kernels/arena.h"
#include "engine/kernels/pack.h"
#include "engine/kernels/pool.h"
#include "engine/kernels/table.h"

struct weight {
    struct matrix matrix; /* data is valid only where packed is NULL */
    uint8_t *packed;      /* interleaved groups */
    size_t packed_bytes;
    struct arena_run *run; /* holds packed, or data where it is the weight's own */
};

struct compute {
    enum engine_kind kind;
    enum isa isa;
    const struct kernel_table *table;
    struct pool *pool;
    struct arena arena; /* of weights */
    size_t max_rows, max_cols;
    size_t quant_cols, float_cols; /* most columns of its weights that are multiplied so */
    bool uses_panels;
    uint8_t *quants; /* activations as tiles of int8 records */
    float *floats;   /* as tiles of floats */
    float *panels;   /* panel_rows(kind) · max_cols for each thread: weights decoded or packed */
};

/* Rows of floats that a thread needs room for: openblas multiplies panels of them; native packs a
 * group of rows of any type, made from one of floats where they are made. */
enum { BLAS_PANEL_ROWS = 64, NATIVE_PANEL_ROWS = GROUP_ROWS + 1 };

/* gemm_blas.c */
void blas_start(void);
void blas_product(struct compute *compute, const struct product *product);

#endif
