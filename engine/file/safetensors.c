/* The safetensors format: a length of 8 bytes, a JSON object, then the tensors' bytes.
 *
 * Each member of the object is a tensor: its type, its shape and where its bytes begin and end
 * behind the header; `__metadata__` is for people. The length is bounded before the JSON is read,
 * shapes are multiplied with overflow checks and must fit the offsets exactly, and the offsets must
 * lie within the file. Tensors may overlap or leave gaps: reading is all we do. Types that the
 * engine cannot compute with (integers, 8-bit floats) keep their name, so that a message can say
 * it.
 *
 * Source: the format's description in the safetensors project. */
#include "engine/file/safetensors.h"

#include <jansson.h>
#include <string.h>

enum { MAX_NAME_BYTES = 256 };

struct safetensors {
    json_t *header; /* owns the names */
    struct safetensor *tensors;
    size_t n;
};

static const struct {
    const char *name;
    uint32_t type, bytes;
} dtypes[] = {
    {"F32", TENSOR_F32, 4},
    {"F16", TENSOR_F16, 2},
    {"BF16", TENSOR_BF16, 2},
    {"F64", TENSOR_TYPE_LIMIT, 8},
    {"I64", TENSOR_TYPE_LIMIT, 8},
    {"U64", TENSOR_TYPE_LIMIT, 8},
    {"I32", TENSOR_TYPE_LIMIT, 4},
    {"U32", TENSOR_TYPE_LIMIT, 4},
    {"I16", TENSOR_TYPE_LIMIT, 2},
    {"U16", TENSOR_TYPE_LIMIT, 2},
    {"I8", TENSOR_TYPE_LIMIT, 1},
    {"U8", TENSOR_TYPE_LIMIT, 1},
    {"BOOL", TENSOR_TYPE_LIMIT, 1},
    {"F8_E4M3", TENSOR_TYPE_LIMIT, 1},
    {"F8_E5M2", TENSOR_TYPE_LIMIT, 1},
    {"F8_E8M0", TENSOR_TYPE_LIMIT, 1},
};

static bool whole_number(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static enum status read_dtype(const json_t *entry, struct safetensor *out, uint64_t *n_bytes,
                              struct fault *fault)
{
    const char *name = json_string_value(json_object_get(entry, "dtype"));

    for (size_t i = 0; name && i < COUNT_OF(dtypes); i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            out->dtype = dtypes[i].name;
            out->type = dtypes[i].type;
            *n_bytes = dtypes[i].bytes;
            return STATUS_OK;
        }
    }
    return fault_set(fault, STATUS_FORMAT, "tensor %.100s has the type %.20s, which is not known",
                     out->name, name ? name : "(none)");
}

/* *n_bytes comes as the size of one value and goes as that of all. */
static enum status read_shape(const json_t *entry, struct safetensor *out, uint64_t *n_bytes,
                              struct fault *fault)
{
    const json_t *shape = json_object_get(entry, "shape");

    if (!json_is_array(shape) || json_array_size(shape) > SAFETENSORS_MAX_DIMS)
        return fault_set(fault, STATUS_FORMAT, "tensor %.100s has no shape of up to %d dimensions",
                         out->name, SAFETENSORS_MAX_DIMS);
    out->n_dims = (uint32_t)json_array_size(shape);
    for (uint32_t d = 0; d < SAFETENSORS_MAX_DIMS; d++) {
        out->dims[d] = 1;
        if (d < out->n_dims && !whole_number(json_array_get(shape, d), &out->dims[d]))
            return fault_set(fault, STATUS_FORMAT,
                             "tensor %.100s has a dimension that is not a whole number", out->name);
        if (__builtin_mul_overflow(*n_bytes, out->dims[d], n_bytes))
            return fault_set(fault, STATUS_LIMIT, "tensor %.100s has a shape that overflows",
                             out->name);
    }
    return STATUS_OK;
}

static enum status read_tensor(const json_t *entry, const uint8_t *data, uint64_t data_bytes,
                               struct safetensor *out, struct fault *fault)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    uint64_t begin, end, n_bytes = 0;
    enum status status = read_dtype(entry, out, &n_bytes, fault);

    if (!status)
        status = read_shape(entry, out, &n_bytes, fault);
    if (status)
        return status;
    if (json_array_size(offsets) != 2 || !whole_number(json_array_get(offsets, 0), &begin) ||
        !whole_number(json_array_get(offsets, 1), &end) || begin > end)
        return fault_set(fault, STATUS_FORMAT, "tensor %.100s has no proper data_offsets",
                         out->name);
    if (end > data_bytes)
        return fault_set(
            fault, STATUS_TRUNCATED,
            "tensor %.100s ends %llu bytes beyond the file: the file is cut off or damaged",
            out->name, (unsigned long long)(end - data_bytes));
    if (end - begin != n_bytes)
        return fault_set(fault, STATUS_FORMAT,
                         "tensor %.100s has %llu bytes, but its shape and type need %llu",
                         out->name, (unsigned long long)(end - begin), (unsigned long long)n_bytes);
    out->data = data + begin;
    out->n_bytes = n_bytes;
    return STATUS_OK;
}

/* Names go into messages: printable ASCII only. */
static bool name_is_proper(const char *name)
{
    size_t n = 0;

    for (; name[n] > 0x20 && name[n] < 0x7f; n++)
        ;
    return n > 0 && n <= MAX_NAME_BYTES && name[n] == 0;
}

static enum status read_tensors(struct safetensors *file, const uint8_t *data, uint64_t data_bytes,
                                struct fault *fault)
{
    const char *name;
    json_t *entry;

    json_object_foreach(file->header, name, entry)
    {
        enum status status;

        if (strcmp(name, "__metadata__") == 0)
            continue;
        if (!name_is_proper(name))
            return fault_set(fault, STATUS_FORMAT, "a tensor has no proper name");
        file->tensors[file->n].name = name;
        status = read_tensor(entry, data, data_bytes, &file->tensors[file->n], fault);
        if (status)
            return status;
        file->n++;
    }
    return STATUS_OK;
}

static enum status read_header(struct safetensors *file, const char *text, size_t n_bytes,
                               struct fault *fault)
{
    json_error_t error;

    file->header = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(file->header))
        return fault_set(fault, STATUS_FORMAT,
                         "the safetensors header is not a JSON object: %.160s",
                         file->header ? "it is something else" : error.text);
    file->tensors = MEM_NEW_N(struct safetensor, json_object_size(file->header));
    return file->tensors ? STATUS_OK : fault_set(fault, STATUS_NO_MEMORY, "out of memory");
}

enum status safetensors_parse(const void *data, size_t size_bytes, struct safetensors **out,
                              struct fault *fault)
{
    struct reader r = reader_of(data, size_bytes);
    uint64_t n_bytes = reader_u64(&r);
    struct safetensors *file;
    enum status status;

    *out = NULL;
    if (r.bad)
        return fault_set(fault, STATUS_TRUNCATED, "the file ends within its header");
    if (n_bytes > SAFETENSORS_MAX_HEADER_BYTES)
        return fault_set(fault, STATUS_LIMIT,
                         "a header of %llu bytes, more than %d: this is not a safetensors file",
                         (unsigned long long)n_bytes, SAFETENSORS_MAX_HEADER_BYTES);
    if (n_bytes > reader_left(&r))
        return fault_set(fault, STATUS_TRUNCATED, "the file ends within its header");
    file = MEM_NEW(struct safetensors);
    if (!file)
        return fault_set(fault, STATUS_NO_MEMORY, "out of memory");
    status = read_header(file, (const char *)r.data + r.at, (size_t)n_bytes, fault);
    if (!status)
        status = read_tensors(file, r.data + r.at + n_bytes, reader_left(&r) - n_bytes, fault);
    if (status) {
        safetensors_free(&file);
        return status;
    }
    *out = file;
    return STATUS_OK;
}

void safetensors_free(struct safetensors **file)
{
    if (!*file)
        return;
    json_decref((*file)->header);
    mem_free((*file)->tensors);
    mem_free(*file);
    *file = NULL;
}

size_t safetensors_count(const struct safetensors *file)
{
    return file->n;
}

const struct safetensor *safetensors_at(const struct safetensors *file, size_t i)
{
    return i < file->n ? &file->tensors[i] : NULL;
}
