/* Links: skein_engine.
 *
 * Any bytes as a safetensors file: the header's JSON, shapes and offsets. Every byte of every
 * tensor that the reader accepts is read, so that one outside the file is found.
 *
 * Memory: at most 32 MiB. */
#include <stdlib.h>
#include <string.h>

#include "engine/file/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors *file = NULL;
    struct fault fault = {0};
    uint8_t *copy = malloc(size ? size : 1);
    unsigned sum = 0;

    if (!copy)
        return 0;
    if (size)
        memcpy(copy, data, size);
    if (safetensors_parse(copy, size, &file, &fault) == STATUS_OK) {
        for (size_t i = 0; i < safetensors_count(file) && i < 1000; i++) {
            const struct safetensor *t = safetensors_at(file, i);

            for (uint64_t b = 0; b < t->n_bytes; b++)
                sum += t->data[b];
            if (strlen(t->name) > 256 || t->n_dims > SAFETENSORS_MAX_DIMS)
                abort();
        }
    } else if (file || !fault.text[0]) {
        abort();
    }
    safetensors_free(&file);
    free(copy);
    return (int)(sum & 0);
}
