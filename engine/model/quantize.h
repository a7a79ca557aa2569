#ifndef SKEIN_ENGINE_MODEL_QUANTIZE_H
#define SKEIN_ENGINE_MODEL_QUANTIZE_H

/* Which tensors are turned into another type, the same for files written and for shards loaded. */
#include "engine/kernels/encode.h"
#include "engine/model/model.h"

/* What a tensor becomes where matrices are wanted in `type`, which tensor_encodes. F32 means every
 * matrix in F32; any other type leaves alone what it would not make smaller. */
enum tensor_type quantized_type(const struct gguf_tensor *tensor, enum tensor_type type);
/* The same for a form, in which 0 leaves everything as it is. */
enum tensor_type form_type(const struct gguf_tensor *tensor, const struct model_form *form);
uint64_t form_bytes(const struct gguf_tensor *tensor, const struct model_form *form);
/* Whether the form uses the tensor where the file has it. */
bool form_maps(const struct gguf_tensor *tensor, const struct model_form *form);
uint64_t type_bytes(enum tensor_type type, uint64_t n_values);

/* Bytes of weights in a form, added to *out by layer and end; its arrays are there. */
void costs_count(const struct model *model, const struct model_form *form, struct model_costs *out);
/* The part of a tensor that one token uses. */
double tensor_active_share(const struct model *model, const struct gguf_tensor *tensor);

/* Names of the types that matrices can be turned into, with a comma between. Returns out. */
const char *quantized_names(bool with_f32, char *out, size_t out_size);

#endif
