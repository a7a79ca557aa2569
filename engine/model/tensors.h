#ifndef SKEIN_ENGINE_MODEL_TENSORS_H
#define SKEIN_ENGINE_MODEL_TENSORS_H

/* Which tensor of the file stands in which place of the model. */
#include "engine/model/hparams.h"

struct layer_tensors { /* NULL where the architecture has none, or an optional one is missing */
    const struct gguf_tensor *weight[SLOT_COUNT];
    const struct gguf_tensor *bias[SLOT_COUNT];
};

struct model_tensors {
    const struct gguf_tensor *weight[MODEL_SLOT_COUNT];
    const struct gguf_tensor *bias[MODEL_SLOT_COUNT];
    struct layer_tensors *layers; /* [n_layers], owned */
};

/* Finds every tensor the architecture asks for, checks its shape, and refuses files that hold
 * others. Errors: UNSUPPORTED (missing or unknown tensor), FORMAT (shape), NO_MEMORY; the tensor is
 * named. */
enum status tensors_bind(const struct gguf *gguf, const struct arch *arch,
                         const struct hparams *hparams, struct model_tensors *out,
                         struct fault *fault) MUST_USE;
void tensors_free(struct model_tensors *tensors);

/* N of "blk.N.…", or -1. */
int64_t tensor_layer(const struct gguf_tensor *tensor);

#endif
