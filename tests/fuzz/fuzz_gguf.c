/* Links: skein_engine.
 *
 * Any bytes as a GGUF file: the parser, the vocabulary, the architecture's binding, and what may be
 * asked of a model that opened. Nothing may crash, read outside the bytes or hold on to memory. */
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model *model = NULL;
    struct fault fault = {0};
    void *copy = malloc(size ? size : 1);

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
    free(copy);
    return 0;
}
