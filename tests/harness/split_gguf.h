#ifndef SKEIN_TESTS_HARNESS_SPLIT_GGUF_H
#define SKEIN_TESTS_HARNESS_SPLIT_GGUF_H

/* Cuts a GGUF file into parts as gguf-split does, and lies about it where a test wants. */
#include "proto/base/base.h"

/* parts [n_parts], zeroed buffers: whole tensors, about as many in each. header_first: the first
 * part has none. */
void gguf_split(const void *data, size_t size_bytes, uint32_t n_parts, bool header_first,
                struct buffer *parts);
void gguf_split_free(struct buffer *parts, uint32_t n_parts);
/* Overwrites a number of a header in place. */
void gguf_patch_u32(struct buffer *part, const char *key, uint32_t v);
/* STEM-00001-of-0000N.gguf and so on. */
void gguf_split_write(const struct buffer *parts, uint32_t n_parts, const char *stem);
void gguf_split_path(const char *stem, uint32_t number, uint32_t n_parts, char *out, size_t size);

#endif
