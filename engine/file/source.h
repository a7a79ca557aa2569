#ifndef SKEIN_ENGINE_FILE_SOURCE_H
#define SKEIN_ENGINE_FILE_SOURCE_H

/* Tensors whose values do not lie in their file as the engine wants them: matrices that are apart,
 * joined, transposed, with rows in another order, of another type. A tensor with a source has the
 * type and the shape that the engine sees; its source says where the values come from. */
#include "engine/file/gguf.h"

enum source_code {               /* how the bytes of a piece hold its values */
                   SOURCE_PLAIN, /* as a tensor type does */
                   SOURCE_E4M3,  /* 8-bit floats, times a scale per block */
                   SOURCE_E5M2,
                   SOURCE_FP4 /* pairs of 4-bit floats, and an exponent of 32 values beside them */
};

/* A stored matrix, or a part of its rows. */
struct source_piece {
    const uint8_t *data; /* row-major, borrowed */
    uint64_t n_bytes;
    const uint8_t *scales; /* NULL: none */
    uint64_t first;        /* stored row (of a vector: value) where the piece begins */
    uint64_t n_rows;       /* of the tensor */
};

/* Of every `rows` stored rows those from `offset` on. */
struct source_section {
    uint64_t offset, rows;
};

struct tensor_source {
    enum source_code code;
    enum tensor_type type;             /* SOURCE_PLAIN: of the bytes */
    uint32_t n_matrices;               /* dims[2] · dims[3] of the tensor */
    uint32_t n_joined;                 /* pieces of one matrix, one below the other */
    const struct source_piece *pieces; /* [n_matrices · n_joined], borrowed */
    uint64_t stored_cols;              /* values from a stored row to the next */
    bool transposed;                   /* stored as [columns, rows] */
    bool vector;                       /* pieces and groups are of values within a row */
    uint32_t half_rows; /* 0, or: of each group of 2 · half_rows rows, the file has the even
                         * ones first, then the odd ones */
    /* Stored rows come in groups of group_rows, of which the tensor has first all that lie in
     * section 0, then those in section 1, … n_groups 0: rows are in order. Applies after half_rows.
     */
    uint64_t group_rows, n_groups;
    uint32_t n_sections;
    struct source_section sections[3];
    /* Scales, where the code has them: one for scale_rows × scale_cols values. */
    enum tensor_type scale_type;
    uint64_t scale_rows, scale_cols, scales_per_row;
    float add;           /* to every value */
    bool minus_exponent; /* then x becomes -exp(x) */
};

/* Matrix i of a tensor, where its bytes can be used as they lie; else NULL: its rows are made. */
const void *tensor_matrix_bytes(const struct gguf_tensor *tensor, uint64_t i);
uint64_t tensor_matrix_size(const struct gguf_tensor *tensor); /* bytes of one matrix */
uint64_t tensor_matrix_count(const struct gguf_tensor *tensor);
/* Row `row` of matrix i as floats, [dims[0]]. */
void tensor_row(const struct gguf_tensor *tensor, uint64_t i, uint64_t row, float *out);
/* The same row in a type that tensor_encodes, or in the tensor's own; scratch has dims[0] floats.
 */
void tensor_row_as(const struct gguf_tensor *tensor, uint64_t i, uint64_t row,
                   enum tensor_type type, float *scratch, void *out);
/* All values as floats, [n_values]. */
void tensor_values(const struct gguf_tensor *tensor, float *out);

/* Calls fn for every stretch of bytes that the tensor is read from. */
void tensor_each_bytes(const struct gguf_tensor *tensor,
                       void (*fn)(void *ctx, const void *data, uint64_t n_bytes), void *ctx);

#endif
