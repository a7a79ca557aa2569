/* Reading tensors through their sources.
 *
 * The engine computes with GGUF's layout. Other formats keep the same numbers otherwise: one matrix
 * per expert, transposed matrices, query rows ordered for another form of rotation, norms without
 * the 1 that belongs to them. Instead of a converted copy of the model there is a description per
 * tensor, and a row is put together when it is asked for. Where the description changes nothing the
 * bytes are used in place. Everything that is made is made row by row: decoded, moved, encoded;
 * types that hold the values exactly give them back exactly.
 *
 * Nothing here is checked: who makes a source has seen that its parts are as long as the tensor's
 * shape says. Nothing fails. */
#include "engine/file/source.h"

#include "engine/kernels/encode.h"

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

/* Numbers of 2 and 4 bytes must be aligned to be used in place. */
static bool source_is_plain(const struct gguf_tensor *tensor, const void *data)
{
    const struct tensor_source *s = tensor->source;
    const struct tensor_type_info *info = tensor_type_info((uint32_t)s->type);
    uintptr_t align = info->block_values == 1 ? info->block_bytes : 2;

    return (uint32_t)s->type == tensor->type && !s->transposed && !s->half_rows && s->add == 0 &&
           (uintptr_t)data % align == 0;
}

const void *tensor_matrix_bytes(const struct gguf_tensor *tensor, uint64_t i)
{
    if (!tensor->source)
        return (const uint8_t *)tensor->data + (size_t)(i * tensor_matrix_size(tensor));
    return source_is_plain(tensor, tensor->source->parts[i]) ? tensor->source->parts[i] : NULL;
}

/* Where the file has row (or value) number `row` of the tensor. */
static uint64_t stored_at(const struct tensor_source *s, uint64_t row)
{
    uint64_t group = 2 * (uint64_t)s->half_rows;
    uint64_t in_group;

    if (group == 0)
        return row;
    in_group = row % group;
    return row - in_group + in_group / 2 + (in_group % 2) * s->half_rows;
}

static void source_row(const struct gguf_tensor *tensor, uint64_t i, uint64_t row, float *out)
{
    const struct tensor_source *s = tensor->source;
    uint64_t n = tensor->dims[0];
    bool scattered = s->half_rows && tensor->dims[1] == 1;

    if (s->transposed || scattered) {
        for (uint64_t k = 0; k < n; k++) {
            uint64_t at = scattered ? stored_at(s, k) : k * tensor->dims[1] + stored_at(s, row);

            tensor_decode(s->type, s->parts[i] + stored_bytes(s->type, at), &out[k], 1);
        }
    } else {
        tensor_decode(s->type, s->parts[i] + stored_bytes(s->type, n * stored_at(s, row)), out,
                      (size_t)n);
    }
    for (uint64_t k = 0; s->add != 0 && k < n; k++)
        out[k] += s->add;
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
    for (uint32_t i = 0; s && i < s->n_parts; i++)
        fn(ctx, s->parts[i], stored_bytes(s->type, tensor->dims[0] * tensor->dims[1]));
}
