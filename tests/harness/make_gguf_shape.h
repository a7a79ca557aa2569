#ifndef SKEIN_TESTS_MAKE_GGUF_SHAPE_H
#define SKEIN_TESTS_MAKE_GGUF_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

/* The shape of a model to make. Zero means "not there" for experts and head_norms. */
struct shape {
    const char *preset; /* NULL for a shape given by numbers */
    const char *arch;
    uint32_t layers, embd, heads, kv_heads, head_dim, ffn, experts, experts_used, expert_ffn, vocab;
    uint32_t context;
    float rope_base;
    bool tied;
    bool head_norms; /* RMS norms of each query and key head */
};

/* NULL for a name that is not known. */
const struct shape *shape_find(const char *preset);
/* Sets the field of --NAME; false for a name or value that is not known. */
bool shape_set(struct shape *shape, const char *name, const char *value);

#endif
