/* GGUF v2 and v3: the metadata and tensor table of a model file.
 *
 * The parser walks the header once with a bounded cursor, remembers where each value lies and
 * copies nothing: values are read from the bytes when somebody asks. Every count is checked against
 * the bytes that are left before memory is asked for, so a hostile header cannot make us allocate
 * more than a small multiple of its own length. Names are indexed by a sorted permutation, which
 * finds duplicates on the way and is independent of what an attacker chooses as names.
 *
 * Happy path: magic, version, counts, key-values, tensor table, padding, tensor data. What fails: a
 * file that ends early (TRUNCATED), a shape or offset that contradicts the file (FORMAT), more than
 * the limits below (LIMIT), a version or byte order that is not ours (UNSUPPORTED). Tensors may
 * overlap: reading is all we do. A tensor of an unknown type has no size, so its data is NULL.
 *
 * Source: the GGUF specification, docs/gguf.md of the ggml project. */
#include "engine/file/source.h"

#include <string.h>

enum {
    GGUF_MAX_VALUES = 1 << 16,
    GGUF_MAX_TENSORS = 1 << 16,
    GGUF_MAX_NAME_BYTES = 1 << 10,    /* keys and tensor names */
    GGUF_MAX_STRING_BYTES = 16 << 20, /* values */
    GGUF_MAX_ELEMENTS = 16 << 20,     /* of an array */
    GGUF_MAX_DIMS = 4,
    GGUF_MIN_ALIGNMENT = 8,
    GGUF_MAX_ALIGNMENT = 1 << 20,
    GGUF_DEFAULT_ALIGNMENT = 32,
    GGUF_MIN_VALUE_BYTES = 8 + 4 + 1,          /* empty key, kind, one byte */
    GGUF_MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8, /* empty name, dims, type, offset */
    GGUF_TYPE_COUNT = GGUF_F64 + 1
};

static const uint8_t kind_bytes[GGUF_TYPE_COUNT] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
};

struct gguf {
    struct gguf_value *values;           /* [n_values], file order */
    struct gguf_tensor *tensors;         /* [n_tensors], file order */
    uint32_t *values_by_name;            /* [n_values], indices sorted by key */
    uint32_t *tensors_by_name;           /* [n_tensors] */
    const struct tensor_source *sources; /* [n_tensors], or NULL */
    size_t n_values;
    size_t n_tensors;
    size_t data_offset;
};

/* ---------------------------------------------------------------- names */

static int text_order(struct gguf_text a, struct gguf_text b)
{
    size_t n = a.n_bytes < b.n_bytes ? a.n_bytes : b.n_bytes;
    int order = n ? memcmp(a.data, b.data, n) : 0;

    if (order)
        return order;
    return a.n_bytes < b.n_bytes ? -1 : a.n_bytes > b.n_bytes;
}

/* The name of element i of an array of values or of tensors. */
typedef struct gguf_text name_at(const void *array, uint32_t i);

static struct gguf_text value_name(const void *array, uint32_t i)
{
    return ((const struct gguf_value *)array)[i].key;
}

static struct gguf_text tensor_name(const void *array, uint32_t i)
{
    return ((const struct gguf_tensor *)array)[i].name;
}

static void index_sift(uint32_t *index, size_t root, size_t n, const void *array, name_at *name)
{
    for (size_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n &&
            text_order(name(array, index[child]), name(array, index[child + 1])) < 0)
            child++;
        if (text_order(name(array, index[root]), name(array, index[child])) >= 0)
            return;
        uint32_t swap = index[root];
        index[root] = index[child];
        index[child] = swap;
    }
}

/* A heap sort: n log n whatever the names are, and no memory of its own. */
static uint32_t *index_new(const void *array, size_t n, name_at *name)
{
    uint32_t *index = MEM_NEW_N(uint32_t, n);

    if (!index)
        return NULL;
    for (size_t i = 0; i < n; i++)
        index[i] = (uint32_t)i;
    for (size_t i = n / 2; i-- > 0;)
        index_sift(index, i, n, array, name);
    for (size_t end = n; end > 1; end--) {
        uint32_t swap = index[0];
        index[0] = index[end - 1];
        index[end - 1] = swap;
        index_sift(index, 0, end - 1, array, name);
    }
    return index;
}

static enum status index_check(const uint32_t *index, size_t n, const void *array, name_at *name,
                               const char *what, struct fault *fault)
{
    for (size_t i = 1; i < n; i++) {
        struct gguf_text text = name(array, index[i]);

        if (text_order(name(array, index[i - 1]), text) == 0)
            return fault_set(fault, STATUS_FORMAT, "%s %.*s is there twice", what,
                             (int)text.n_bytes, text.data);
    }
    return STATUS_OK;
}

/* Position in `array`, or n where no element has that name. */
static size_t index_find(const uint32_t *index, size_t n, const void *array, name_at *name,
                         const char *wanted)
{
    struct gguf_text text = {wanted, strlen(wanted)};
    size_t low = 0;
    size_t high = n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = text_order(name(array, index[middle]), text);

        if (order == 0)
            return index[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return n;
}

/* ---------------------------------------------------------------- metadata */

static struct gguf_text read_text(struct reader *r, size_t max_bytes)
{
    uint64_t n = reader_u64(r);

    if (n > max_bytes || n > reader_left(r)) {
        r->bad = true;
        return (struct gguf_text){0};
    }
    return (struct gguf_text){(const char *)reader_take(r, (size_t)n), (size_t)n};
}

/* Names go into messages, so they are printable ASCII; anything else is not a name. */
static struct gguf_text read_name(struct reader *r)
{
    struct gguf_text name = read_text(r, GGUF_MAX_NAME_BYTES);

    for (size_t i = 0; i < name.n_bytes; i++) {
        if (name.data[i] < 0x20 || name.data[i] > 0x7e)
            name.n_bytes = 0;
    }
    return name;
}

static enum status read_strings(struct reader *r, struct gguf_value *value)
{
    size_t begin = r->at;
    uint64_t *offsets = NULL;

    if (value->n > reader_left(r) / 8)
        return STATUS_TRUNCATED;
    offsets = MEM_NEW_N(uint64_t, (size_t)value->n);
    if (!offsets)
        return STATUS_NO_MEMORY;
    value->string_offsets = offsets;
    for (uint64_t i = 0; i < value->n && !r->bad; i++) {
        offsets[i] = r->at - begin;
        (void)read_text(r, GGUF_MAX_STRING_BYTES);
    }
    value->data_bytes = r->at - begin;
    return r->bad ? STATUS_TRUNCATED : STATUS_OK;
}

/* The bytes of a value whose kind and count are known. */
static enum status read_elements(struct reader *r, struct gguf_value *value)
{
    size_t n_bytes;

    value->data = r->data + r->at;
    if (value->kind == GGUF_STRING && value->is_array)
        return read_strings(r, value);
    if (value->kind == GGUF_STRING) {
        size_t begin = r->at;

        (void)read_text(r, GGUF_MAX_STRING_BYTES);
        value->data_bytes = r->at - begin;
        return r->bad ? STATUS_TRUNCATED : STATUS_OK;
    }
    n_bytes = (size_t)value->n * kind_bytes[value->kind];
    value->data_bytes = n_bytes;
    return reader_take(r, n_bytes) || n_bytes == 0 ? STATUS_OK : STATUS_TRUNCATED;
}

static enum status read_value(struct reader *r, struct gguf_value *value, struct fault *fault)
{
    uint32_t kind;
    enum status status;

    value->key = read_name(r);
    kind = reader_u32(r);
    value->n = 1;
    if (!r->bad && kind == GGUF_ARRAY) {
        value->is_array = true;
        kind = reader_u32(r);
        value->n = reader_u64(r);
    }
    if (r->bad || value->key.n_bytes == 0)
        return fault_set(fault, r->bad ? STATUS_TRUNCATED : STATUS_FORMAT,
                         "the metadata is cut off or a key is not a name");
    if (kind >= GGUF_TYPE_COUNT || kind == GGUF_ARRAY)
        return fault_set(fault, STATUS_FORMAT, "key %.*s has %s of kind %u",
                         (int)value->key.n_bytes, value->key.data,
                         value->is_array ? "an array" : "a value", kind);
    if (value->n > GGUF_MAX_ELEMENTS)
        return fault_set(fault, STATUS_LIMIT, "key %.*s has %llu elements, more than %d",
                         (int)value->key.n_bytes, value->key.data, (unsigned long long)value->n,
                         GGUF_MAX_ELEMENTS);
    value->kind = (enum gguf_kind)kind;
    status = read_elements(r, value);
    if (status)
        return fault_set(fault, status, "key %.*s: %s", (int)value->key.n_bytes, value->key.data,
                         status == STATUS_NO_MEMORY
                             ? "out of memory"
                             : "the value is longer than the file or than the limit");
    return STATUS_OK;
}

static enum status read_values(struct reader *r, struct gguf *gguf, uint64_t n, struct fault *fault)
{
    if (n > GGUF_MAX_VALUES)
        return fault_set(fault, STATUS_LIMIT, "%llu metadata keys, more than %d",
                         (unsigned long long)n, GGUF_MAX_VALUES);
    if (n > reader_left(r) / GGUF_MIN_VALUE_BYTES)
        return fault_set(fault, STATUS_TRUNCATED, "%llu metadata keys do not fit into the file",
                         (unsigned long long)n);
    gguf->values = MEM_NEW_N(struct gguf_value, (size_t)n);
    if (!gguf->values)
        return fault_set(fault, STATUS_NO_MEMORY, "out of memory");
    gguf->n_values = (size_t)n;
    for (size_t i = 0; i < gguf->n_values; i++) {
        enum status status = read_value(r, &gguf->values[i], fault);

        if (status)
            return status;
    }
    gguf->values_by_name = index_new(gguf->values, gguf->n_values, value_name);
    if (!gguf->values_by_name)
        return fault_set(fault, STATUS_NO_MEMORY, "out of memory");
    return index_check(gguf->values_by_name, gguf->n_values, gguf->values, value_name, "key",
                       fault);
}

/* ---------------------------------------------------------------- tensors */

static enum status tensor_fault(struct fault *fault, enum status status,
                                const struct gguf_tensor *tensor, const char *words)
{
    return fault_set(fault, status, "tensor %.*s %s", (int)tensor->name.n_bytes, tensor->name.data,
                     words);
}

/* n_values and n_bytes from dims and type. */
static enum status tensor_measure(struct gguf_tensor *tensor, struct fault *fault)
{
    const struct tensor_type_info *info = tensor_type_info(tensor->type);

    tensor->n_values = 1;
    for (uint32_t d = 0; d < GGUF_MAX_DIMS; d++) {
        if (tensor->dims[d] == 0)
            return tensor_fault(fault, STATUS_FORMAT, tensor, "has a dimension of 0");
        if (__builtin_mul_overflow(tensor->n_values, tensor->dims[d], &tensor->n_values) ||
            tensor->n_values > INT64_MAX)
            return tensor_fault(fault, STATUS_LIMIT, tensor, "has a shape that overflows");
    }
    if (tensor->type == TENSOR_BF16_DOT)
        return tensor_fault(fault, STATUS_FORMAT, tensor, "has a type that no file can have");
    if (!info->name)
        return STATUS_OK;
    if (tensor->dims[0] % info->block_values)
        return fault_set(fault, STATUS_FORMAT,
                         "tensor %.*s has rows of %llu values, no multiple of %u as %s wants",
                         (int)tensor->name.n_bytes, tensor->name.data,
                         (unsigned long long)tensor->dims[0], info->block_values, info->name);
    if (__builtin_mul_overflow(tensor->n_values / info->block_values, (uint64_t)info->block_bytes,
                               &tensor->n_bytes))
        return tensor_fault(fault, STATUS_LIMIT, tensor, "has a shape that overflows");
    return STATUS_OK;
}

static enum status read_tensor(struct reader *r, struct gguf_tensor *tensor, uint64_t *offset,
                               struct fault *fault)
{
    tensor->name = read_name(r);
    tensor->n_dims = reader_u32(r);
    if (r->bad || tensor->name.n_bytes == 0)
        return fault_set(fault, r->bad ? STATUS_TRUNCATED : STATUS_FORMAT,
                         "the tensor table is cut off or a tensor has no proper name");
    if (tensor->n_dims < 1 || tensor->n_dims > GGUF_MAX_DIMS)
        return tensor_fault(fault, STATUS_FORMAT, tensor, "has not 1 to 4 dimensions");
    for (uint32_t d = 0; d < GGUF_MAX_DIMS; d++)
        tensor->dims[d] = d < tensor->n_dims ? reader_u64(r) : 1;
    tensor->type = reader_u32(r);
    *offset = reader_u64(r);
    if (r->bad)
        return fault_set(fault, STATUS_TRUNCATED, "the tensor table is cut off");
    return tensor_measure(tensor, fault);
}

static enum status tensor_locate(const struct gguf *gguf, struct gguf_tensor *tensor,
                                 uint64_t offset, uint32_t alignment, const struct reader *r,
                                 struct fault *fault)
{
    uint64_t begin;
    uint64_t end;

    if (offset % alignment)
        return tensor_fault(fault, STATUS_FORMAT, tensor, "begins at an unaligned offset");
    if (__builtin_add_overflow((uint64_t)gguf->data_offset, offset, &begin) ||
        __builtin_add_overflow(begin, tensor->n_bytes, &end) || end > r->size_bytes)
        return fault_set(
            fault, STATUS_TRUNCATED,
            "tensor %.*s ends beyond the file's %llu bytes: the file is cut off or damaged",
            (int)tensor->name.n_bytes, tensor->name.data, (unsigned long long)r->size_bytes);
    if (tensor->n_bytes)
        tensor->data = r->data + begin;
    return STATUS_OK;
}

static enum status read_alignment(const struct gguf *gguf, uint32_t *out, struct fault *fault)
{
    *out = GGUF_DEFAULT_ALIGNMENT;
    if (!gguf_find(gguf, "general.alignment"))
        return STATUS_OK;
    if (!gguf_get_u32(gguf, "general.alignment", out) || *out < GGUF_MIN_ALIGNMENT ||
        *out > GGUF_MAX_ALIGNMENT || (*out & (*out - 1)))
        return fault_set(fault, STATUS_FORMAT,
                         "general.alignment is not a power of two from %d to %d",
                         GGUF_MIN_ALIGNMENT, GGUF_MAX_ALIGNMENT);
    return STATUS_OK;
}

static enum status index_tensors(struct gguf *gguf, struct fault *fault)
{
    mem_free(gguf->tensors_by_name);
    gguf->tensors_by_name = index_new(gguf->tensors, gguf->n_tensors, tensor_name);
    if (!gguf->tensors_by_name)
        return fault_set(fault, STATUS_NO_MEMORY, "out of memory");
    return index_check(gguf->tensors_by_name, gguf->n_tensors, gguf->tensors, tensor_name, "tensor",
                       fault);
}

static enum status read_tensor_table(struct reader *r, struct gguf *gguf, uint64_t *offsets,
                                     struct fault *fault)
{
    uint32_t alignment;
    enum status status;

    for (size_t i = 0; i < gguf->n_tensors; i++) {
        status = read_tensor(r, &gguf->tensors[i], &offsets[i], fault);
        if (status)
            return status;
    }
    status = read_alignment(gguf, &alignment, fault);
    if (status)
        return status;
    gguf->data_offset = r->at + (alignment - r->at % alignment) % alignment;
    for (size_t i = 0; i < gguf->n_tensors && !gguf->sources; i++) {
        status = tensor_locate(gguf, &gguf->tensors[i], offsets[i], alignment, r, fault);
        if (status)
            return status;
    }
    for (size_t i = 0; i < gguf->n_tensors && gguf->sources; i++)
        gguf->tensors[i].source = &gguf->sources[i];
    return index_tensors(gguf, fault);
}

static enum status read_tensors(struct reader *r, struct gguf *gguf, uint64_t n,
                                struct fault *fault)
{
    uint64_t *offsets;
    enum status status;

    if (n > GGUF_MAX_TENSORS)
        return fault_set(fault, STATUS_LIMIT, "%llu tensors, more than %d", (unsigned long long)n,
                         GGUF_MAX_TENSORS);
    if (n > reader_left(r) / GGUF_MIN_TENSOR_BYTES)
        return fault_set(fault, STATUS_TRUNCATED,
                         "a table of %llu tensors does not fit into the file",
                         (unsigned long long)n);
    gguf->tensors = MEM_NEW_N(struct gguf_tensor, (size_t)n);
    offsets = MEM_NEW_N(uint64_t, (size_t)n);
    if (gguf->tensors && offsets) {
        gguf->n_tensors = (size_t)n;
        status = read_tensor_table(r, gguf, offsets, fault);
    } else {
        status = fault_set(fault, STATUS_NO_MEMORY, "out of memory");
    }
    mem_free(offsets);
    return status;
}

/* ---------------------------------------------------------------- the file */

static enum status read_version(struct reader *r, struct fault *fault)
{
    const uint8_t *magic = reader_take(r, 4);
    uint32_t version = reader_u32(r);

    if (!magic || memcmp(magic, "GGUF", 4) != 0)
        return fault_set(fault, magic ? STATUS_FORMAT : STATUS_TRUNCATED,
                         "this is not a GGUF file: it does not begin with the letters GGUF");
    if (r->bad)
        return fault_set(fault, STATUS_TRUNCATED, "the file ends within its header");
    if (version != 0 && (version & 0xffff) == 0)
        return fault_set(fault, STATUS_UNSUPPORTED,
                         "the GGUF file is big endian; skein reads little-endian files");
    if (version == 1)
        return fault_set(fault, STATUS_UNSUPPORTED,
                         "the GGUF file is of version 1; convert the model again to version 3");
    if (version < 2 || version > 3)
        return fault_set(fault, STATUS_UNSUPPORTED,
                         "the GGUF file is of version %u; skein reads versions 2 and 3", version);
    return STATUS_OK;
}

enum status gguf_parse_header(const void *data, size_t size_bytes,
                              const struct tensor_source *sources, struct gguf **out,
                              struct fault *fault)
{
    struct reader r = reader_of(data, size_bytes);
    struct gguf *gguf;
    uint64_t n_tensors;
    uint64_t n_values;
    enum status status = read_version(&r, fault);

    *out = NULL;
    if (status)
        return status;
    n_tensors = reader_u64(&r);
    n_values = reader_u64(&r);
    if (r.bad)
        return fault_set(fault, STATUS_TRUNCATED, "the file ends within its header");
    gguf = MEM_NEW(struct gguf);
    if (!gguf)
        return fault_set(fault, STATUS_NO_MEMORY, "out of memory");
    gguf->sources = sources;
    status = read_values(&r, gguf, n_values, fault);
    if (!status)
        status = read_tensors(&r, gguf, n_tensors, fault);
    if (status) {
        gguf_free(&gguf);
        return status;
    }
    *out = gguf;
    return STATUS_OK;
}

enum status gguf_parse(const void *data, size_t size_bytes, struct gguf **out, struct fault *fault)
{
    return gguf_parse_header(data, size_bytes, NULL, out, fault);
}

enum status gguf_join(struct gguf *gguf, struct gguf *const *others, size_t n_others,
                      struct fault *fault)
{
    struct gguf_tensor *all;
    size_t n = gguf->n_tensors;

    for (size_t i = 0; i < n_others; i++)
        n += others[i]->n_tensors;
    if (n > GGUF_MAX_TENSORS)
        return fault_set(fault, STATUS_LIMIT, "%zu tensors, more than %d", n, GGUF_MAX_TENSORS);
    all = mem_resize(gguf->tensors, n, sizeof *all);
    if (!all)
        return fault_set(fault, STATUS_NO_MEMORY, "out of memory");
    gguf->tensors = all;
    for (size_t i = 0; i < n_others; i++) {
        if (others[i]->n_tensors)
            memcpy(all + gguf->n_tensors, others[i]->tensors, others[i]->n_tensors * sizeof *all);
        gguf->n_tensors += others[i]->n_tensors;
    }
    return index_tensors(gguf, fault);
}

void gguf_free(struct gguf **gguf_in)
{
    struct gguf *gguf = *gguf_in;

    if (!gguf)
        return;
    for (size_t i = 0; i < gguf->n_values; i++)
        mem_free((void *)(uintptr_t)gguf->values[i].string_offsets);
    mem_free(gguf->values);
    mem_free(gguf->tensors);
    mem_free(gguf->values_by_name);
    mem_free(gguf->tensors_by_name);
    mem_free(gguf);
    *gguf_in = NULL;
}

size_t gguf_value_count(const struct gguf *gguf)
{
    return gguf->n_values;
}

const struct gguf_value *gguf_value_at(const struct gguf *gguf, size_t i)
{
    return i < gguf->n_values ? &gguf->values[i] : NULL;
}

const struct gguf_value *gguf_find(const struct gguf *gguf, const char *key)
{
    return gguf_value_at(
        gguf, index_find(gguf->values_by_name, gguf->n_values, gguf->values, value_name, key));
}

size_t gguf_tensor_count(const struct gguf *gguf)
{
    return gguf->n_tensors;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *gguf, size_t i)
{
    return i < gguf->n_tensors ? &gguf->tensors[i] : NULL;
}

const struct gguf_tensor *gguf_tensor_find(const struct gguf *gguf, const char *name)
{
    return gguf_tensor_at(
        gguf, index_find(gguf->tensors_by_name, gguf->n_tensors, gguf->tensors, tensor_name, name));
}

uint64_t gguf_data_offset(const struct gguf *gguf)
{
    return gguf->data_offset;
}
