#ifndef SKEIN_ENGINE_KERNELS_TABLE_H
#define SKEIN_ENGINE_KERNELS_TABLE_H

/* Between the kernels and their caller: how weights and activations lie in memory, and the table of
 * functions that an instruction set exports.
 *
 * Weights. Rows (outputs) come in groups of GROUP_ROWS, interleaved, so that a vector register
 * holds the same column of several rows and a lane is one output: its sum runs over the columns in
 * order, whatever else is computed beside it (DESIGN I2). A type's block is cut into segments of
 * equal units (pack.c). A group is a sequence of strips of STRIP_COLS columns (twice that for Q6_K;
 * the last may be shorter). In a strip the small segments of all blocks (scales) come first, a
 * plane each, then the codes block by block; a segment holds, unit after unit, the units of the 16
 * rows. The last group of a matrix is filled up with zero bytes.
 *
 * Activations. Rows of x are taken in tiles of nt rows (tile_rows). For quantised weights every 32
 * columns become int8 with a float scale (ACT_BLOCK); a tile is one record per 32 columns, of
 *   int8 q[nt][32] · float scale[nt] · int32 minus_sum[nt] · int32 minus_sum_low[nt] ·
 *   int32 minus_sum_high[nt] · float scaled_sum[nt]
 * where the sums run over q, over its first and its last 16. For float weights a tile has a record
 * of FLOAT_BYTES in each row for every 16 columns, float x[nt][16]. Weights in BF16_DOT want x
 * rounded to bfloat16: as floats in such records too, or, for instructions that take bfloat16, in
 * records of 32 columns, uint16 x[nt][32]. */
#include "engine/kernels/cpu.h"
#include "engine/kernels/kernels.h"

enum {
    GROUP_ROWS = 16,
    STRIP_COLS = 256,
    ACT_BLOCK = 32,
    ACT_BYTES = 52, /* of a record and row */
    FLOAT_COLS = 16,
    FLOAT_BYTES = 64, /* of a record and row */
    TILE_PIECE = 48   /* a multiple of every kernel's largest tile */
};

/* y[n, 16 · n_groups] for whole groups; acts is all tiles of the n rows. */
typedef void panel_kernel(const uint8_t *weights, size_t n_groups, size_t n_cols, const void *acts,
                          size_t n, float *y, size_t ldy);
/* One tile of nt rows. */
typedef void quantize_tile(const float *x, size_t ldx, size_t nt, size_t n_cols, uint8_t *out);
typedef void float_records(const float *x, size_t ldx, size_t nt, size_t n_cols, float *out);

struct kernel_table {
    uint32_t quant_tile, float_tile; /* most rows of a tile */
    quantize_tile *quantize;
    float_records *copy, *round; /* to records of floats, and for BF16_DOT */
    panel_kernel *panel[TENSOR_TYPE_LIMIT];
    struct vector_ops ops;
};

/* The rows of the next tile where `left` rows are left: three go together, or they would take
 * longer than four. */
static inline size_t tile_rows(size_t left, size_t most)
{
    if (left >= most)
        return most;
    if (left == 3)
        return 3;
    size_t rows = 1;
    while (rows * 2 <= left)
        rows *= 2;
    return rows;
}

extern const struct kernel_table kernels_generic;
#if defined(__x86_64__)
extern const struct kernel_table kernels_avx2, kernels_avx_vnni, kernels_avx512,
    kernels_avx512_vnni, kernels_avx512_bf16;
#elif defined(__aarch64__)
extern const struct kernel_table kernels_neon, kernels_neon_dot, kernels_neon_i8mm;
#endif

/* dispatch.c: the instruction set's functions, the generic ones where it has none. */
const struct kernel_table *kernel_table_of(enum isa isa);

static inline bool type_is_float(enum tensor_type type)
{
    return type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_BF16;
}

/* Multiplied with int8 activations. */
static inline bool type_is_quantised(enum tensor_type type)
{
    return !type_is_float(type) && type != TENSOR_BF16_DOT;
}

/* Floats of a row of x in tiles of floats. */
static inline size_t float_row(size_t n_cols)
{
    return (n_cols + FLOAT_COLS - 1) / FLOAT_COLS * FLOAT_COLS;
}

#endif
