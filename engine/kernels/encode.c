/* Encoders: floats to blocks.
 *
 * Plain types round to the nearest number they have, ties to even. The block types of 32 values
 * take their scale from the largest magnitude (symmetric ones) or from the range (those with a
 * minimum), as the formats' authors do, so that a file made here is as good as one made with their
 * tools. They differ in a few lines, so each is one short function beside its neighbours. Types
 * that are worth a search are in encode_k.c.
 *
 * Nothing fails: any floats encode to something. Source: ggml's published block layouts. */
#include "engine/kernels/encode.h"
#include "engine/kernels/encode_k.h"
#include "engine/kernels/quant_ref.h"

#include <assert.h>
#include <math.h>
#include <string.h>
#include <strings.h>

static void store_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void encode_f32(const float *x, uint8_t *out)
{
    memcpy(out, x, 4);
}

static void encode_f16(const float *x, uint8_t *out)
{
    store_u16(out, float_to_half(*x));
}

static void encode_bf16(const float *x, uint8_t *out)
{
    store_u16(out, bfloat_of(*x));
}

static void encode_bf16_dot(const float *x, uint8_t *out)
{
    encode_bf16(x, out);
    encode_bf16(x + 1, out + 2);
}

/* ---------------------------------------------------------------- blocks of 32 */

enum { BLOCK = 32 };

/* The value of the largest magnitude, with its sign. */
static float extreme_of(const float *x)
{
    float extreme = 0;

    for (int i = 0; i < BLOCK; i++)
        extreme = fabsf(x[i]) > fabsf(extreme) ? x[i] : extreme;
    return isfinite(extreme) ? extreme : 0;
}

static void range_of(const float *x, float *min, float *max)
{
    *min = *max = isfinite(x[0]) ? x[0] : 0;
    for (int i = 1; i < BLOCK; i++) {
        *min = x[i] < *min && isfinite(x[i]) ? x[i] : *min;
        *max = x[i] > *max && isfinite(x[i]) ? x[i] : *max;
    }
}

/* x / step + offset as a whole number in [0, max]; what is not a number becomes 0's code. */
static uint32_t code_of(float x, float inverse, float offset, int max)
{
    float code = (isfinite(x) ? x : 0) * inverse + offset;

    return code <= 0 ? 0 : code >= (float)max ? (uint32_t)max : (uint32_t)code;
}

static void encode_q8_0(const float *x, uint8_t *out)
{
    float step = fabsf(extreme_of(x)) / 127;
    float inverse = step > 0 ? 1 / step : 0;

    store_u16(out, float_to_half(step));
    for (int i = 0; i < BLOCK; i++) {
        float code = roundf((isfinite(x[i]) ? x[i] : 0) * inverse);

        out[2 + i] = (uint8_t)(int8_t)(code > 127 ? 127 : code < -127 ? -127 : code);
    }
}

/* The extreme gets the code of largest magnitude, which is negative. */
static void encode_q4_0(const float *x, uint8_t *out)
{
    float step = extreme_of(x) / -8;
    float inverse = step != 0 ? 1 / step : 0;

    store_u16(out, float_to_half(step));
    for (int i = 0; i < BLOCK / 2; i++)
        out[2 + i] = (uint8_t)(code_of(x[i], inverse, 8.5f, 15) |
                               code_of(x[i + BLOCK / 2], inverse, 8.5f, 15) << 4);
}

static void encode_q4_1(const float *x, uint8_t *out)
{
    float min, max, step, inverse;

    range_of(x, &min, &max);
    step = (max - min) / 15;
    inverse = step > 0 ? 1 / step : 0;
    store_u16(out, float_to_half(step));
    store_u16(out + 2, float_to_half(min));
    for (int i = 0; i < BLOCK / 2; i++)
        out[4 + i] = (uint8_t)(code_of(x[i] - min, inverse, 0.5f, 15) |
                               code_of(x[i + BLOCK / 2] - min, inverse, 0.5f, 15) << 4);
}

/* Low nibbles as in the types of 4 bits; the fifth bits in a word before them. */
static void store_q5(const float *x, float minus, float inverse, float offset, uint8_t *out)
{
    uint32_t high = 0;

    for (int i = 0; i < BLOCK / 2; i++) {
        uint32_t a = code_of(x[i] - minus, inverse, offset, 31);
        uint32_t b = code_of(x[i + BLOCK / 2] - minus, inverse, offset, 31);

        out[4 + i] = (uint8_t)((a & 15) | (b & 15) << 4);
        high |= (a >> 4) << i | (b >> 4) << (i + BLOCK / 2);
    }
    store_u16(out, (uint16_t)high);
    store_u16(out + 2, (uint16_t)(high >> 16));
}

static void encode_q5_0(const float *x, uint8_t *out)
{
    float step = extreme_of(x) / -16;

    store_u16(out, float_to_half(step));
    store_q5(x, 0, step != 0 ? 1 / step : 0, 16.5f, out + 2);
}

static void encode_q5_1(const float *x, uint8_t *out)
{
    float min, max, step;

    range_of(x, &min, &max);
    step = (max - min) / 31;
    store_u16(out, float_to_half(step));
    store_u16(out + 2, float_to_half(min));
    store_q5(x, min, step > 0 ? 1 / step : 0, 0.5f, out + 4);
}

/* ---------------------------------------------------------------- the table */

typedef void encode_block(const float *values, uint8_t *out);

static encode_block *const encoders[TENSOR_TYPE_LIMIT] = {
    [TENSOR_F32] = encode_f32,           [TENSOR_F16] = encode_f16,
    [TENSOR_BF16] = encode_bf16,         [TENSOR_Q8_0] = encode_q8_0,
    [TENSOR_Q4_0] = encode_q4_0,         [TENSOR_Q4_1] = encode_q4_1,
    [TENSOR_Q5_0] = encode_q5_0,         [TENSOR_Q5_1] = encode_q5_1,
    [TENSOR_Q4_K] = encode_q4_k,         [TENSOR_Q5_K] = encode_q5_k,
    [TENSOR_Q6_K] = encode_q6_k,         [TENSOR_IQ4_NL] = encode_iq4_nl,
    [TENSOR_BF16_DOT] = encode_bf16_dot,
};

bool tensor_encodes(enum tensor_type type)
{
    return (unsigned)type < TENSOR_TYPE_LIMIT && encoders[type];
}

void tensor_encode(enum tensor_type type, const float *values, void *out, size_t n_values)
{
    const struct tensor_type_info *info = tensor_type_info((uint32_t)type);
    uint8_t *at = out;

    assert(tensor_encodes(type) && n_values % info->block_values == 0);
    for (size_t i = 0; i < n_values; i += info->block_values, at += info->block_bytes)
        encoders[type](values + i, at);
}

bool tensor_type_parse(const char *name, enum tensor_type *out)
{
    for (uint32_t type = 0; type < TENSOR_TYPE_LIMIT; type++) {
        const char *known = tensor_type_info(type)->name;

        if (known && strcasecmp(known, name) == 0 && encoders[type]) {
            *out = (enum tensor_type)type;
            return true;
        }
    }
    return false;
}
