#ifndef SKEIN_ENGINE_FILE_GGUF_WRITE_H
#define SKEIN_ENGINE_FILE_GGUF_WRITE_H

/* The header of a GGUF v3 file, put together in memory: key-values in the order in which they are
 * put, then the tensor table. The first failure is kept in `status` and what follows does nothing,
 * so that a list of puts is checked once, by gguf_write_finish. */
#include "engine/file/gguf.h"

enum { GGUF_WRITE_ALIGNMENT = 32 };

struct gguf_writer { /* zero-initialise; gguf_write_free */
    struct buffer values, tensors;
    uint64_t n_values, n_tensors;
    uint64_t offset_bytes; /* of the next tensor, from the beginning of the tensor data */
    enum status status;
};

void gguf_write_u32(struct gguf_writer *w, const char *key, uint32_t v);
void gguf_write_f32(struct gguf_writer *w, const char *key, float v);
void gguf_write_bool(struct gguf_writer *w, const char *key, bool v);
void gguf_write_text(struct gguf_writer *w, const char *key, const char *data, size_t n_bytes);
/* An array of n elements; the caller puts them right after: gguf_write_item_*. */
void gguf_write_array(struct gguf_writer *w, const char *key, enum gguf_kind kind, uint64_t n);
void gguf_write_item_u32(struct gguf_writer *w, uint32_t v);
void gguf_write_item_f32(struct gguf_writer *w, float v);
void gguf_write_item_bool(struct gguf_writer *w, bool v);
void gguf_write_item_bytes(struct gguf_writer *w, const void *data, size_t n_bytes); /* n of U8 */
void gguf_write_item_text(struct gguf_writer *w, const char *data, size_t n_bytes);
/* A value as a file has it. */
void gguf_write_copy(struct gguf_writer *w, const struct gguf_value *value);

/* dims[n_dims], the fastest first; the tensor's offset follows from those before it. */
void gguf_write_tensor(struct gguf_writer *w, const char *name, size_t name_bytes, uint32_t n_dims,
                       const uint64_t *dims, enum tensor_type type, uint64_t n_bytes);

/* The header's bytes, padded to where tensor data begin. Errors: NO_MEMORY, LIMIT. */
enum status gguf_write_finish(struct gguf_writer *w, struct buffer *out) MUST_USE;
void gguf_write_free(struct gguf_writer *w);

#endif
