#ifndef SKEIN_TESTS_UNIT_ENGINE_GGUF_MAKE_H
#define SKEIN_TESTS_UNIT_ENGINE_GGUF_MAKE_H

/* Writes GGUF files for tests, whole or broken on purpose. Values go to `values`, table entries to
 * `tensors`, both counted; gguf_finish puts header, both, padding and `data` together. */
#include "engine/file/gguf.h"

struct gguf_maker { /* zero-initialise; gguf_maker_free */
    struct buffer values;
    struct buffer tensors;
    struct buffer file;
    uint64_t n_values, n_tensors;
    uint64_t data_bytes;
};

void make_u32(struct gguf_maker *m, const char *key, uint32_t v);
void make_f32(struct gguf_maker *m, const char *key, float v);
void make_text(struct gguf_maker *m, const char *key, const char *v);
/* Key, then kind; the caller writes the value into m->values. */
void make_key(struct gguf_maker *m, const char *key, uint32_t kind);
void make_string(struct buffer *b, const char *text);
/* A table entry at an offset of the caller's choice. */
void make_tensor_at(struct gguf_maker *m, const char *name, uint32_t type, uint32_t n_dims,
                    const uint64_t *dims, uint64_t offset);
/* An F32 tensor behind those before it; its data is zero. */
void make_tensor(struct gguf_maker *m, const char *name, uint64_t d0, uint64_t d1);
/* A small llama: 2 layers, width 32, 2 heads, 1 KV head, vocabulary of 8. */
void make_llama(struct gguf_maker *m);
/* The whole file; valid until the maker is freed. */
struct gguf_text make_file(struct gguf_maker *m, uint32_t version);
void gguf_maker_free(struct gguf_maker *m);

#endif
