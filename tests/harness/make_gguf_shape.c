/* Shapes of well-known models, and shapes by numbers. */
#include "make_gguf_shape.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/base.h"

static const struct shape shapes[] = {
    {"llama-1b", "llama", 16, 2048, 32, 8, 64, 8192, 0, 0, 0, 128256, 131072, 5e5f, true, false},
    {"llama-8b", "llama", 32, 4096, 32, 8, 128, 14336, 0, 0, 0, 128256, 131072, 5e5f, false, false},
    {"qwen3-0.6b", "qwen3", 28, 1024, 16, 8, 128, 3072, 0, 0, 0, 151936, 40960, 1e6f, true, true},
    {"qwen3-8b", "qwen3", 36, 4096, 32, 8, 128, 12288, 0, 0, 0, 151936, 40960, 1e6f, false, true},
    {"qwen3-30b-a3b", "qwen3moe", 48, 2048, 32, 4, 128, 6144, 128, 8, 768, 151936, 40960, 1e6f,
     false, true},
    {"small", "llama", 12, 512, 8, 4, 64, 2048, 0, 0, 0, 4096, 2048, 1e4f, true, false},
};

const struct shape *shape_find(const char *preset)
{
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        if (strcmp(shapes[i].preset, preset) == 0)
            return &shapes[i];
    }
    return NULL;
}

static const struct {
    const char *name;
    size_t offset;
} numbers[] = {
    {"layers", offsetof(struct shape, layers)},
    {"embd", offsetof(struct shape, embd)},
    {"heads", offsetof(struct shape, heads)},
    {"kv-heads", offsetof(struct shape, kv_heads)},
    {"head-dim", offsetof(struct shape, head_dim)},
    {"ffn", offsetof(struct shape, ffn)},
    {"experts", offsetof(struct shape, experts)},
    {"experts-used", offsetof(struct shape, experts_used)},
    {"expert-ffn", offsetof(struct shape, expert_ffn)},
    {"vocab", offsetof(struct shape, vocab)},
    {"context", offsetof(struct shape, context)},
};

bool shape_set(struct shape *shape, const char *name, const char *value)
{
    if (strcmp(name, "arch") == 0) {
        shape->arch = value;
        shape->head_norms = strncmp(value, "qwen3", 5) == 0;
        return true;
    }
    if (strcmp(name, "tied") == 0) {
        shape->tied = strcmp(value, "yes") == 0;
        return shape->tied || strcmp(value, "no") == 0;
    }
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        char *end;
        unsigned long number = strtoul(value, &end, 10);

        if (strcmp(numbers[i].name, name) != 0)
            continue;
        if (*end || end == value || number > 1u << 24)
            return false;
        *(uint32_t *)((char *)shape + numbers[i].offset) = (uint32_t)number;
        return true;
    }
    return false;
}
