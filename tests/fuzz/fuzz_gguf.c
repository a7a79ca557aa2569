/* Links: skein_engine.
 *
 * Any bytes as a GGUF file: the parser, the vocabulary, the architecture's binding, and what may be
 * asked of a model that opened; then the same bytes as the parts of a split model, cut wherever
 * another file seems to begin. Nothing may crash, read outside the bytes or hold on to memory.
 *
 * Memory: at most 64 MiB. */
#include <stdlib.h>
#include <string.h>

#include "engine/file/split.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_PARTS = 8 };

static void fuzz_parts(const uint8_t *data, size_t size)
{
    struct bytes_view parts[MAX_PARTS] = {{data, size}};
    struct gguf *gguf = NULL;
    uint32_t n = 1;

    for (size_t i = 4; i + 4 <= size && n < MAX_PARTS; i++) {
        if (memcmp(data + i, "GGUF", 4) != 0)
            continue;
        parts[n - 1].size_bytes = (size_t)(data + i - (const uint8_t *)parts[n - 1].data);
        parts[n++] = (struct bytes_view){data + i, size - i};
    }
    if (n > 1 && split_parse(parts, n, &gguf, NULL) == STATUS_OK) {
        for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
            const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
            const uint8_t *at = tensor->data;

            if (at && (at < data || tensor->n_bytes > (uint64_t)(data + size - at)))
                abort();
        }
    }
    gguf_free(&gguf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model *model = NULL;
    struct fault fault = {0};
    void *copy = calloc(1, size ? size : 1);

    if (!copy)
        return 0;
    if (size)
        memcpy(copy, data, size);
    if (model_open_memory(copy, size, "fuzz", &model, &fault) == STATUS_OK) {
        const struct model_info *info = model_info(model);
        uint64_t bytes = 0;

        for (uint32_t il = 0; il < info->n_layers; il++)
            bytes += info->layer_bytes[il];
        if (model_runnable(model, ENGINE_NATIVE, &fault) == STATUS_OK && bytes == 0)
            abort();
    }
    model_free(&model);
    fuzz_parts(copy, size);
    free(copy);
    return 0;
}
