#ifndef SKEIN_ENGINE_FILE_SOURCE_H
#define SKEIN_ENGINE_FILE_SOURCE_H

/* Tensors whose values do not lie in their file as the engine wants them: matrices that are apart,
 * transposed, with rows in another order, of another type. A tensor with a source has the type and
 * the shape that the engine sees; its source says where the values come from. */
#include "engine/file/gguf.h"

struct tensor_source {
    enum tensor_type type;       /* of the bytes in parts */
    uint32_t n_parts;            /* matrices: dims[2] · dims[3] of the tensor */
    const uint8_t *const *parts; /* [n_parts] row-major, borrowed */
    bool transposed;             /* stored as [columns, rows] */
    uint32_t half_rows; /* 0, or: of each group of 2 · half_rows rows, the file has the even
                         * ones first, then the odd ones; of a vector's values likewise */
    float add;          /* to every value */
};

/* Matrix i of a tensor, where its bytes can be used as they lie; else NULL: its rows
 * are made. */
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

/* Calls fn for every stretch of bytes that matrix i is read from. */
void tensor_each_bytes(const struct gguf_tensor *tensor,
                       void (*fn)(void *ctx, const void *data, uint64_t n_bytes), void *ctx);

#endif
