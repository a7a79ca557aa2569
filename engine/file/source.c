/* Reading tensors through their sources.
 *
 * The engine computes with GGUF's layout. Other formats keep the same numbers otherwise: one matrix
 * per expert or one for all, projections joined or apart, transposed, rows ordered for another form
 * of rotation, norms without the 1 that belongs to them, 8-bit floats with scales beside them.
 * Instead of a converted copy of the model there is a description per tensor, and a row is put
 * together when it is asked for: which piece has it, where it is stored there, how its bytes are
 * decoded. Where the description changes nothing the bytes are used in place. Types that hold the
 * values exactly give them back exactly.
 *
 * Nothing here is checked and nothing fails: who makes a source has seen that its pieces are as
 * long as the shapes say. Sources: the OCP 8-bit floating point and microscaling specifications for
 * E4M3, E5M2 and FP4. */
#include "engine/file/source.h"

#include <math.h>
#include <string.h>

#include "engine/kernels/encode.h"

enum { FP4_VALUES = 32, FP4_BYTES = 16 };

uint64_t tensor_matrix_count(const struct gguf_tensor *tensor)
{
    return tensor->dims[2] * tensor->dims[3];
}

uint64_t tensor_matrix_size(const struct gguf_tensor *tensor)
{
    return tensor->n_bytes / tensor_matrix_count(tensor);
}

static size_t stored_bytes(enum tensor_type type, uint64_t n_values)
{
    const struct tensor_type_info *info = tensor_type_info((uint32_t)type);

    return (size_t)(n_values / info->block_values * info->block_bytes);
}

/* ---------------------------------------------------------------- 8-bit floats */

/* Exponent and mantissa where a float has them, but with the wrong bias: a product with a power of
 * two sets that right, for subnormals too. */
static float small_float(uint8_t code, int shift, float scale)
{
    uint32_t bits = (uint32_t)(code & 0x7f) << shift;
    float value;

    memcpy(&value, &bits, sizeof value);
    return code & 0x80 ? -value * scale : value * scale;
}

/* An 8-bit float's value, exact; what is no number is NAN. */
static float value_e4m3(uint8_t code)
{
    return (code & 0x7f) == 0x7f ? NAN : small_float(code, 20, 0x1p120f);
}

static float value_e5m2(uint8_t code)
{
    if ((code & 0x7f) > 0x7c)
        return NAN;
    if ((code & 0x7f) == 0x7c)
        return code & 0x80 ? -INFINITY : INFINITY;
    return small_float(code, 21, 0x1p112f);
}

/* Values [col, col + n) of a stored row. */
static void decode_values(const struct tensor_source *s, const struct source_piece *piece,
                          uint64_t row, uint64_t col, uint64_t n, float *out)
{
    const uint8_t *data = piece->data + row * s->stored_cols;
    uint64_t scales = s->scale_rows ? row / s->scale_rows * s->scales_per_row : 0;
    uint64_t end;

    if (s->code == SOURCE_PLAIN) {
        tensor_decode(s->type, piece->data + stored_bytes(s->type, row * s->stored_cols + col), out,
                      (size_t)n);
        return;
    }
    for (uint64_t k = col; k < col + n; k = end) {
        float scale = 1;

        end = piece->scales ? (k / s->scale_cols + 1) * s->scale_cols : col + n;
        end = end < col + n ? end : col + n;
        if (piece->scales)
            tensor_decode(s->scale_type,
                          piece->scales + stored_bytes(s->scale_type, scales + k / s->scale_cols),
                          &scale, 1);
        for (uint64_t at = k; at < end; at++)
            *out++ = scale * (s->code == SOURCE_E4M3 ? value_e4m3(data[at]) : value_e5m2(data[at]));
    }
}

/* A row of MXFP4 blocks: the exponent, then value j beside value j + 16. Stored are the exponents
 * apart, and neighbours side by side. */
static void fp4_blocks(const struct tensor_source *s, const struct source_piece *piece,
                       uint64_t row, uint64_t n, uint8_t *out)
{
    uint64_t n_blocks = s->stored_cols / FP4_VALUES;
    const uint8_t *data = piece->data + row * n_blocks * FP4_BYTES;
    const uint8_t *scales = piece->scales + row * n_blocks;

    for (uint64_t b = 0; b < n / FP4_VALUES; b++, data += FP4_BYTES, out += 1 + FP4_BYTES) {
        out[0] = scales[b];
        for (int j = 0; j < FP4_BYTES; j++) {
            int shift = 4 * (j % 2);

            out[1 + j] = (uint8_t)((data[j / 2] >> shift & 15) |
                                   (data[FP4_BYTES / 2 + j / 2] >> shift & 15) << 4);
        }
    }
}

static void decode_fp4(const struct tensor_source *s, const struct source_piece *piece,
                       uint64_t row, uint64_t n, float *out)
{
    struct tensor_source one = *s;
    uint64_t n_blocks = s->stored_cols / FP4_VALUES;

    one.stored_cols = FP4_VALUES;
    for (uint64_t b = 0; b < n / FP4_VALUES; b++) {
        uint8_t block[1 + FP4_BYTES];

        fp4_blocks(&one, piece, row * n_blocks + b, FP4_VALUES, block);
        tensor_decode(TENSOR_MXFP4, block, out + b * FP4_VALUES, FP4_VALUES);
    }
}

/* ---------------------------------------------------------------- rows */

/* The piece that has row *row of matrix i; *row becomes the row in the piece. */
static const struct source_piece *piece_of(const struct tensor_source *s, uint64_t i, uint64_t *row)
{
    const struct source_piece *piece = s->pieces + i * s->n_joined;

    for (uint32_t k = 1; k < s->n_joined && *row >= piece->n_rows; k++)
        *row -= (piece++)->n_rows;
    return piece;
}

/* Where a row of the piece is stored, counted from the piece's first. */
static uint64_t stored_at(const struct tensor_source *s, uint64_t row)
{
    const struct source_section *section = s->sections;

    if (s->half_rows) {
        uint64_t in_group = row % (2 * (uint64_t)s->half_rows);

        row = row - in_group + in_group / 2 + (in_group % 2) * s->half_rows;
    }
    if (!s->n_groups)
        return row;
    for (uint32_t k = 1; k < s->n_sections && row >= s->n_groups * section->rows; k++)
        row -= s->n_groups * (section++)->rows;
    return row / section->rows * s->group_rows + section->offset + row % section->rows;
}

static void source_row(const struct gguf_tensor *tensor, uint64_t i, uint64_t row, float *out)
{
    const struct tensor_source *s = tensor->source;
    uint64_t n = tensor->dims[0];

    for (uint64_t k = 0; s->vector && k < n; k++) {
        uint64_t at = k;
        const struct source_piece *piece = piece_of(s, i, &at);

        decode_values(s, piece, row, piece->first + stored_at(s, at), 1, &out[k]);
    }
    if (!s->vector) {
        const struct source_piece *piece = piece_of(s, i, &row);
        uint64_t at = stored_at(s, row);

        for (uint64_t k = 0; s->transposed && k < n; k++)
            decode_values(s, piece, piece->first + k, at, 1, &out[k]);
        if (s->code == SOURCE_FP4)
            decode_fp4(s, piece, piece->first + at, n, out);
        else if (!s->transposed)
            decode_values(s, piece, piece->first + at, 0, n, out);
    }
    for (uint64_t k = 0; s->add != 0 && k < n; k++)
        out[k] += s->add;
    for (uint64_t k = 0; s->minus_exponent && k < n; k++)
        out[k] = -expf(out[k]);
}

/* Numbers of 2 and 4 bytes must be aligned to be used in place. */
static const void *plain_bytes(const struct gguf_tensor *tensor, uint64_t i)
{
    const struct tensor_source *s = tensor->source;
    const struct source_piece *piece = s->pieces + i * s->n_joined;
    const struct tensor_type_info *info = tensor_type_info((uint32_t)s->type);
    uintptr_t align = info->block_values == 1 ? info->block_bytes : 2;
    const uint8_t *data;

    if (s->code != SOURCE_PLAIN || (uint32_t)s->type != tensor->type || s->n_joined != 1 ||
        s->transposed || s->half_rows || s->n_groups || s->add != 0 || s->minus_exponent ||
        (s->stored_cols != tensor->dims[0] && tensor->dims[1] > 1) || (s->vector && piece->first))
        return NULL;
    data = piece->data + stored_bytes(s->type, piece->first * s->stored_cols);
    return (uintptr_t)data % align ? NULL : data;
}

const void *tensor_matrix_bytes(const struct gguf_tensor *tensor, uint64_t i)
{
    if (tensor->source)
        return plain_bytes(tensor, i);
    return (const uint8_t *)tensor->data + (size_t)(i * tensor_matrix_size(tensor));
}

void tensor_row(const struct gguf_tensor *tensor, uint64_t i, uint64_t row, float *out)
{
    const uint8_t *bytes;

    if (tensor->source) {
        source_row(tensor, i, row, out);
        return;
    }
    bytes = tensor_matrix_bytes(tensor, i);
    tensor_decode((enum tensor_type)tensor->type,
                  bytes + stored_bytes((enum tensor_type)tensor->type, tensor->dims[0] * row), out,
                  (size_t)tensor->dims[0]);
}

void tensor_row_as(const struct gguf_tensor *tensor, uint64_t i, uint64_t row,
                   enum tensor_type type, float *scratch, void *out)
{
    if (tensor->source && tensor->source->code == SOURCE_FP4 && type == TENSOR_MXFP4) {
        const struct source_piece *piece = piece_of(tensor->source, i, &row);

        fp4_blocks(tensor->source, piece, piece->first + stored_at(tensor->source, row),
                   tensor->dims[0], out);
        return;
    }
    tensor_row(tensor, i, row, scratch);
    tensor_encode(type, scratch, out, (size_t)tensor->dims[0]);
}

void tensor_values(const struct gguf_tensor *tensor, float *out)
{
    for (uint64_t i = 0; i < tensor_matrix_count(tensor); i++) {
        for (uint64_t r = 0; r < tensor->dims[1]; r++, out += tensor->dims[0])
            tensor_row(tensor, i, r, out);
    }
}

void tensor_each_bytes(const struct gguf_tensor *tensor,
                       void (*fn)(void *ctx, const void *data, uint64_t n_bytes), void *ctx)
{
    const struct tensor_source *s = tensor->source;

    if (!s && tensor->data)
        fn(ctx, tensor->data, tensor->n_bytes);
    for (uint64_t i = 0; s && i < (uint64_t)s->n_matrices * s->n_joined; i++)
        fn(ctx, s->pieces[i].data, s->pieces[i].n_bytes);
}
