/* Reading single values of a GGUF file's metadata.
 *
 * The parser (gguf.c) has checked that every value lies inside the file; here they become numbers
 * and text. Files are not consistent about integer widths, so integers of any width convert where
 * they are in range; floats and integers do not convert into each other. Bytes are put together one
 * by one, because nothing in the metadata is aligned. */
#include "engine/file/gguf.h"

#include <string.h>

static size_t kind_width(enum gguf_kind kind)
{
    switch (kind) {
    case GGUF_U8:
    case GGUF_I8:
    case GGUF_BOOL:
        return 1;
    case GGUF_U16:
    case GGUF_I16:
        return 2;
    case GGUF_U32:
    case GGUF_I32:
    case GGUF_F32:
        return 4;
    case GGUF_U64:
    case GGUF_I64:
    case GGUF_F64:
        return 8;
    case GGUF_STRING:
    case GGUF_ARRAY:
        break;
    }
    return 0;
}

/* The bytes of element i as a little-endian number; the caller knows the kind. */
static uint64_t element_bits(const struct gguf_value *value, uint64_t i)
{
    size_t width = kind_width(value->kind);
    const uint8_t *at = value->data + (size_t)i * width;
    uint64_t bits = 0;

    for (size_t b = 0; b < width; b++)
        bits |= (uint64_t)at[b] << (8 * b);
    return bits;
}

bool gguf_value_u32(const struct gguf_value *value, uint64_t i, uint32_t *out)
{
    uint64_t bits;
    bool is_signed = false;

    if (!value || i >= value->n)
        return false;
    switch (value->kind) {
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        is_signed = true;
        break;
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
        break;
    default:
        return false;
    }
    bits = element_bits(value, i);
    if (bits > UINT32_MAX || (is_signed && bits >> (8 * kind_width(value->kind) - 1)))
        return false;
    *out = (uint32_t)bits;
    return true;
}

bool gguf_value_f32(const struct gguf_value *value, uint64_t i, float *out)
{
    uint64_t bits;

    if (!value || i >= value->n || (value->kind != GGUF_F32 && value->kind != GGUF_F64))
        return false;
    bits = element_bits(value, i);
    if (value->kind == GGUF_F32) {
        uint32_t half = (uint32_t)bits;

        memcpy(out, &half, sizeof *out);
    } else {
        double wide;

        memcpy(&wide, &bits, sizeof wide);
        if (wide > 3.4e38 || wide < -3.4e38)
            return false;
        *out = (float)wide;
    }
    return true;
}

bool gguf_value_text(const struct gguf_value *value, uint64_t i, struct gguf_text *out)
{
    struct reader r;
    size_t at;

    if (!value || i >= value->n || value->kind != GGUF_STRING)
        return false;
    at = value->is_array ? (size_t)value->string_offsets[i] : 0;
    r = reader_of(value->data + at, value->data_bytes - at);
    out->n_bytes = (size_t)reader_u64(&r);
    out->data = (const char *)reader_take(&r, out->n_bytes);
    return !r.bad;
}

bool gguf_get_u32(const struct gguf *gguf, const char *key, uint32_t *out)
{
    const struct gguf_value *value = gguf_find(gguf, key);

    return value && !value->is_array && gguf_value_u32(value, 0, out);
}

bool gguf_get_f32(const struct gguf *gguf, const char *key, float *out)
{
    const struct gguf_value *value = gguf_find(gguf, key);

    return value && !value->is_array && gguf_value_f32(value, 0, out);
}

bool gguf_get_bool(const struct gguf *gguf, const char *key, bool *out)
{
    const struct gguf_value *value = gguf_find(gguf, key);

    if (!value || value->is_array || value->kind != GGUF_BOOL)
        return false;
    *out = value->data[0] != 0;
    return true;
}

bool gguf_get_text(const struct gguf *gguf, const char *key, struct gguf_text *out)
{
    const struct gguf_value *value = gguf_find(gguf, key);

    return value && !value->is_array && gguf_value_text(value, 0, out);
}
