/* Writing GGUF v3 headers.
 *
 * The counts stand before what they count, so key-values and the tensor table grow in buffers of
 * their own and are joined at the end. Tensors are laid out in the order in which they are named,
 * each at the next multiple of the alignment. Nothing fails here but memory.
 *
 * Source: the GGUF specification, docs/gguf.md of the ggml project. */
#include "engine/file/gguf_write.h"

#include <string.h>

static void put(struct gguf_writer *w, struct buffer *to, const void *data, size_t n_bytes)
{
    if (!w->status)
        w->status = buffer_put(to, data, n_bytes);
}

static void put_u32(struct gguf_writer *w, struct buffer *to, uint32_t v)
{
    if (!w->status)
        w->status = buffer_put_u32(to, v);
}

static void put_u64(struct gguf_writer *w, struct buffer *to, uint64_t v)
{
    if (!w->status)
        w->status = buffer_put_u64(to, v);
}

static void put_text(struct gguf_writer *w, struct buffer *to, const char *data, size_t n_bytes)
{
    put_u64(w, to, n_bytes);
    put(w, to, data, n_bytes);
}

static void put_key(struct gguf_writer *w, const char *key, enum gguf_kind kind)
{
    put_text(w, &w->values, key, strlen(key));
    put_u32(w, &w->values, (uint32_t)kind);
    w->n_values++;
}

void gguf_write_item_u32(struct gguf_writer *w, uint32_t v)
{
    put_u32(w, &w->values, v);
}

void gguf_write_item_f32(struct gguf_writer *w, float v)
{
    uint32_t bits;

    memcpy(&bits, &v, sizeof bits);
    put_u32(w, &w->values, bits);
}

void gguf_write_item_bool(struct gguf_writer *w, bool v)
{
    put(w, &w->values, v ? "\1" : "\0", 1);
}

void gguf_write_item_bytes(struct gguf_writer *w, const void *data, size_t n_bytes)
{
    put(w, &w->values, data, n_bytes);
}

void gguf_write_item_text(struct gguf_writer *w, const char *data, size_t n_bytes)
{
    put_text(w, &w->values, data, n_bytes);
}

void gguf_write_u32(struct gguf_writer *w, const char *key, uint32_t v)
{
    put_key(w, key, GGUF_U32);
    gguf_write_item_u32(w, v);
}

void gguf_write_f32(struct gguf_writer *w, const char *key, float v)
{
    put_key(w, key, GGUF_F32);
    gguf_write_item_f32(w, v);
}

void gguf_write_bool(struct gguf_writer *w, const char *key, bool v)
{
    put_key(w, key, GGUF_BOOL);
    gguf_write_item_bool(w, v);
}

void gguf_write_text(struct gguf_writer *w, const char *key, const char *data, size_t n_bytes)
{
    put_key(w, key, GGUF_STRING);
    gguf_write_item_text(w, data, n_bytes);
}

void gguf_write_array(struct gguf_writer *w, const char *key, enum gguf_kind kind, uint64_t n)
{
    put_key(w, key, GGUF_ARRAY);
    put_u32(w, &w->values, (uint32_t)kind);
    put_u64(w, &w->values, n);
}

void gguf_write_copy(struct gguf_writer *w, const struct gguf_value *value)
{
    put_text(w, &w->values, value->key.data, value->key.n_bytes);
    if (value->is_array)
        put_u32(w, &w->values, GGUF_ARRAY);
    put_u32(w, &w->values, (uint32_t)value->kind);
    if (value->is_array)
        put_u64(w, &w->values, value->n);
    put(w, &w->values, value->data, value->data_bytes);
    w->n_values++;
}

static uint64_t aligned(uint64_t offset)
{
    return (offset + GGUF_WRITE_ALIGNMENT - 1) / GGUF_WRITE_ALIGNMENT * GGUF_WRITE_ALIGNMENT;
}

void gguf_write_tensor(struct gguf_writer *w, const char *name, size_t name_bytes, uint32_t n_dims,
                       const uint64_t *dims, enum tensor_type type, uint64_t n_bytes)
{
    put_text(w, &w->tensors, name, name_bytes);
    put_u32(w, &w->tensors, n_dims);
    for (uint32_t d = 0; d < n_dims; d++)
        put_u64(w, &w->tensors, dims[d]);
    put_u32(w, &w->tensors, (uint32_t)type);
    put_u64(w, &w->tensors, w->offset_bytes);
    w->n_tensors++;
    if (n_bytes > (UINT64_C(1) << 62) - w->offset_bytes)
        w->status = w->status ? w->status : STATUS_LIMIT;
    else
        w->offset_bytes = aligned(w->offset_bytes + n_bytes);
}

enum status gguf_write_finish(struct gguf_writer *w, struct buffer *out)
{
    static const uint8_t zeros[GGUF_WRITE_ALIGNMENT];

    put(w, out, "GGUF", 4);
    put_u32(w, out, 3);
    put_u64(w, out, w->n_tensors);
    put_u64(w, out, w->n_values);
    put(w, out, w->values.data, w->values.len);
    put(w, out, w->tensors.data, w->tensors.len);
    put(w, out, zeros, (size_t)(aligned(out->len) - out->len));
    return w->status;
}

void gguf_write_free(struct gguf_writer *w)
{
    buffer_free(&w->values);
    buffer_free(&w->tensors);
    *w = (struct gguf_writer){0};
}
