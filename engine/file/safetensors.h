#ifndef SKEIN_ENGINE_FILE_SAFETENSORS_H
#define SKEIN_ENGINE_FILE_SAFETENSORS_H

/* One .safetensors file: its tensor table, checked, as views into the file's bytes. */
#include "engine/kernels/kernels.h"

enum { SAFETENSORS_MAX_DIMS = 4, SAFETENSORS_MAX_HEADER_BYTES = 32 << 20 };

struct safetensor {
    const char *name;
    const char *dtype; /* as the file has it, "BF16" */
    uint32_t type;     /* of enum tensor_type; TENSOR_TYPE_LIMIT where the engine has none */
    uint32_t n_dims;
    uint64_t dims[SAFETENSORS_MAX_DIMS]; /* the slowest first, as in the file; unused ones are 1 */
    const uint8_t *data;
    uint64_t n_bytes;
};

struct safetensors;
/* The bytes must outlive the result. Errors: TRUNCATED, FORMAT, LIMIT (the header is over 32 MB, or
 * a shape overflows), NO_MEMORY. A tensor of a type that the engine lacks is not an error here. */
enum status safetensors_parse(const void *data, size_t size_bytes, struct safetensors **out,
                              struct fault *fault) MUST_USE;
void safetensors_free(struct safetensors **file);
size_t safetensors_count(const struct safetensors *file);
const struct safetensor *safetensors_at(const struct safetensors *file, size_t i);

#endif
