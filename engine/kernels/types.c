/* Tensor types: names and block sizes, by GGUF's numbers.
 *
 * A type is a block of `block_values` numbers in `block_bytes` bytes; 1 for plain numbers. The
 * table is what the file reader checks sizes with, so it also has types that no kernel runs
 * (integers, Q8_1): those have runnable = false and are refused by name.
 *
 * Source: the GGUF specification and ggml's published block layouts. */
#include "engine/kernels/kernels.h"

#define TYPE(number, values, bytes, run) [TENSOR_##number] = {#number, values, bytes, run}

static const struct tensor_type_info types[TENSOR_TYPE_LIMIT] = {
    TYPE(F32, 1, 4, true),        TYPE(F16, 1, 2, true),        TYPE(Q4_0, 32, 18, true),
    TYPE(Q4_1, 32, 20, true),     TYPE(Q5_0, 32, 22, true),     TYPE(Q5_1, 32, 24, true),
    TYPE(Q8_0, 32, 34, true),     TYPE(Q8_1, 32, 36, false),    TYPE(Q2_K, 256, 84, true),
    TYPE(Q3_K, 256, 110, true),   TYPE(Q4_K, 256, 144, true),   TYPE(Q5_K, 256, 176, true),
    TYPE(Q6_K, 256, 210, true),   TYPE(Q8_K, 256, 292, false),  TYPE(IQ2_XXS, 256, 66, true),
    TYPE(IQ2_XS, 256, 74, true),  TYPE(IQ3_XXS, 256, 98, true), TYPE(IQ1_S, 256, 50, true),
    TYPE(IQ4_NL, 32, 18, true),   TYPE(IQ3_S, 256, 110, true),  TYPE(IQ2_S, 256, 82, true),
    TYPE(IQ4_XS, 256, 136, true), TYPE(I8, 1, 1, false),        TYPE(I16, 1, 2, false),
    TYPE(I32, 1, 4, false),       TYPE(I64, 1, 8, false),       TYPE(F64, 1, 8, false),
    TYPE(IQ1_M, 256, 56, true),   TYPE(BF16, 1, 2, true),       TYPE(TQ1_0, 256, 54, true),
    TYPE(TQ2_0, 256, 66, true),   TYPE(MXFP4, 32, 17, true),    TYPE(NVFP4, 64, 36, true),
    TYPE(Q1_0, 128, 18, true),    TYPE(Q2_0, 64, 18, true),     TYPE(BF16_DOT, 2, 4, true),
};

const struct tensor_type_info *tensor_type_info(uint32_t type)
{
    static const struct tensor_type_info unknown = {NULL, 1, 1, false};
    if (type >= TENSOR_TYPE_LIMIT || types[type].name == NULL)
        return &unknown;
    return &types[type];
}
