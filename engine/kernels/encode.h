#ifndef SKEIN_ENGINE_KERNELS_ENCODE_H
#define SKEIN_ENGINE_KERNELS_ENCODE_H

/* Floats into the blocks of a tensor type: the inverse of tensor_decode. */
#include "engine/kernels/kernels.h"

/* Whether the type can be written. */
bool tensor_encodes(enum tensor_type type);
/* n values, a multiple of the type's block. F32, F16 and BF16 round to nearest even; block types
 * choose the scale of each block from its own values. Values that are not numbers stay so in plain
 * types and become 0 in blocks. */
void tensor_encode(enum tensor_type type, const float *values, void *out, size_t n_values);
/* The type of a name in either case, "q8_0"; false where there is none that can be written. */
bool tensor_type_parse(const char *name, enum tensor_type *out);

#endif
