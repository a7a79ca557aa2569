#ifndef SKEIN_ENGINE_FILE_GGUF_H
#define SKEIN_ENGINE_FILE_GGUF_H

/* GGUF v2 and v3: metadata and tensor table of a byte range, checked, without copying values.
 * Every key, string, array and tensor stays a view into the bytes, which must outlive the gguf. */
#include "engine/kernels/kernels.h"

enum gguf_kind {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
};

struct gguf_text { /* not NUL-terminated */
    const char *data;
    size_t n_bytes;
};

struct gguf_value {
    struct gguf_text key;
    enum gguf_kind kind; /* of the value, or of the elements where is_array */
    bool is_array;       /* nested arrays are refused by the parser */
    uint64_t n;          /* elements; 1 for a scalar */
    const uint8_t *data; /* first element; strings are length-prefixed */
    size_t data_bytes;
    const uint64_t *string_offsets; /* arrays of strings: [n] offsets into data */
};

struct gguf_tensor {
    struct gguf_text name;
    uint32_t type;    /* ≤ TENSOR_TYPE_LIMIT where it is known */
    uint32_t n_dims;  /* 1..4 */
    uint64_t dims[4]; /* dims[0] runs fastest; unused ones are 1 */
    uint64_t n_values;
    const void *data; /* NULL for a type whose size is not known, and where there is a source */
    uint64_t n_bytes;
    const struct tensor_source *source; /* source.h; NULL: the values are at data */
};

struct gguf;
enum status gguf_parse(const void *data, size_t size_bytes, struct gguf **out,
                       struct fault *fault) MUST_USE;
/* A header alone: tensor i of its table has its values from sources[i], and offsets mean nothing.
 * The sources must outlive the gguf. */
enum status gguf_parse_header(const void *data, size_t size_bytes,
                              const struct tensor_source *sources, struct gguf **out,
                              struct fault *fault) MUST_USE;
void gguf_free(struct gguf **gguf);

/* Appends the tensors of other files to the first one's; the others' bytes must outlive it, the
 * others themselves need not. Errors: FORMAT (a tensor is there twice), LIMIT, NO_MEMORY. */
enum status gguf_join(struct gguf *gguf, struct gguf *const *others, size_t n_others,
                      struct fault *fault) MUST_USE;

size_t gguf_value_count(const struct gguf *gguf);
const struct gguf_value *gguf_value_at(const struct gguf *gguf, size_t i);
const struct gguf_value *gguf_find(const struct gguf *gguf, const char *key);
size_t gguf_tensor_count(const struct gguf *gguf);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *gguf, size_t i);
const struct gguf_tensor *gguf_tensor_find(const struct gguf *gguf, const char *name);
uint64_t gguf_data_offset(const struct gguf *gguf);

/* false where the key is missing or of another kind (integers of any width convert when in range).
 */
bool gguf_get_u32(const struct gguf *gguf, const char *key, uint32_t *out);
bool gguf_get_f32(const struct gguf *gguf, const char *key, float *out);
bool gguf_get_bool(const struct gguf *gguf, const char *key, bool *out);
bool gguf_get_text(const struct gguf *gguf, const char *key, struct gguf_text *out);
/* Element i of an array (or the scalar for i = 0). */
bool gguf_value_u32(const struct gguf_value *value, uint64_t i, uint32_t *out);
bool gguf_value_f32(const struct gguf_value *value, uint64_t i, float *out);
bool gguf_value_text(const struct gguf_value *value, uint64_t i, struct gguf_text *out);

#endif
