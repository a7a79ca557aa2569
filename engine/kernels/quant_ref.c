/* The reference: every tensor type decoded to float32, a value at a time, as its definition reads.
 *
 * Nothing here is fast and nothing here is clever: this is what every kernel of every instruction
 * set is tested against, what the openblas engine multiplies, and what an embedding row is read
 * with. A block is a few scales (halves) and packed codes; a value is scale · code, or scale · code
 * − minimum, with products rounded in the order that the format's authors round them, so that
 * results are equal to the bit.
 *
 * Nothing fails: any bytes decode to something. Source: ggml's published block layouts. */
#include <assert.h>
#include <stdlib.h>

#include "engine/kernels/quant_ref.h"

const int8_t codes_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                              1,    13,   25,  38,  53,  69,  89,  113};
const int8_t codes_fp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static void decode_f32(const uint8_t *block, float *out)
{
    memcpy(out, block, 4);
}

static void decode_f16(const uint8_t *block, float *out)
{
    *out = load_half(block);
}

static void decode_bf16(const uint8_t *block, float *out)
{
    *out = bfloat_to_float(load_u16(block));
}

static void decode_bf16_dot(const uint8_t *block, float *out)
{
    decode_bf16(block, out);
    decode_bf16(block + 2, out + 1);
}

/* 32 values, low nibbles first, then high ones. */
static void decode_q4_0(const uint8_t *b, float *out)
{
    float d = load_half(b);
    for (int i = 0; i < 16; i++) {
        out[i] = (float)((b[2 + i] & 15) - 8) * d;
        out[i + 16] = (float)((b[2 + i] >> 4) - 8) * d;
    }
}

static void decode_q4_1(const uint8_t *b, float *out)
{
    float d = load_half(b), m = load_half(b + 2);
    for (int i = 0; i < 16; i++) {
        out[i] = (float)(b[4 + i] & 15) * d + m;
        out[i + 16] = (float)(b[4 + i] >> 4) * d + m;
    }
}

/* The fifth bits stand apart in a 32-bit word. */
static void decode_q5_0(const uint8_t *b, float *out)
{
    float d = load_half(b);
    uint32_t high = load_u32(b + 2);
    for (int i = 0; i < 16; i++) {
        out[i] = (float)((int)((b[6 + i] & 15u) | ((high >> i) & 1u) << 4) - 16) * d;
        out[i + 16] = (float)((int)(b[6 + i] >> 4 | ((high >> (i + 16)) & 1u) << 4) - 16) * d;
    }
}

static void decode_q5_1(const uint8_t *b, float *out)
{
    float d = load_half(b), m = load_half(b + 2);
    uint32_t high = load_u32(b + 4);
    for (int i = 0; i < 16; i++) {
        out[i] = (float)((b[8 + i] & 15u) | ((high >> i) & 1u) << 4) * d + m;
        out[i + 16] = (float)(b[8 + i] >> 4 | ((high >> (i + 16)) & 1u) << 4) * d + m;
    }
}

static void decode_q8_0(const uint8_t *b, float *out)
{
    float d = load_half(b);
    for (int i = 0; i < 32; i++)
        out[i] = (float)(int8_t)b[2 + i] * d;
}

static void decode_codes4(const uint8_t *b, const int8_t codes[16], float d, float *out)
{
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)codes[b[i] & 15];
        out[i + 16] = d * (float)codes[b[i] >> 4];
    }
}

static void decode_iq4_nl(const uint8_t *b, float *out)
{
    decode_codes4(b + 2, codes_iq4, load_half(b), out);
}

static void decode_mxfp4(const uint8_t *b, float *out)
{
    decode_codes4(b + 1, codes_fp4, e8m0_half_to_float(b[0]), out);
}

/* 4 scales, then 8 bytes of nibbles for each 16 values, low nibbles first. */
static void decode_nvfp4(const uint8_t *b, float *out)
{
    for (int i = 0; i < 64; i++) {
        int code = b[4 + 8 * (i / 16) + i % 8] >> 4 * (i / 8 % 2) & 15;
        out[i] = (float)codes_fp4[code] * e4m3_half_to_float(b[i / 16]);
    }
}

/* d, then a bit for each value: set is d, clear is -d. */
static void decode_q1_0(const uint8_t *b, float *out)
{
    float d = load_half(b);
    for (int i = 0; i < 128; i++)
        out[i] = b[2 + i / 8] >> i % 8 & 1 ? d : -d;
}

/* d, then 2-bit codes, 0 for -1. */
static void decode_q2_0(const uint8_t *b, float *out)
{
    float d = load_half(b);
    for (int i = 0; i < 64; i++)
        out[i] = (float)((b[2 + i / 4] >> 2 * (i % 4) & 3) - 1) * d;
}

/* d, 16 bits of high scale parts, 4 bytes of low ones (6-bit scales less 32), 128 bytes of nibbles.
 */
static void decode_iq4_xs(const uint8_t *b, float *out)
{
    float d = load_half(b);
    uint16_t high = load_u16(b + 2);
    for (int j = 0; j < 8; j++) {
        int low = (b[4 + j / 2] >> 4 * (j % 2)) & 15;
        int scale = low | ((high >> 2 * j) & 3) << 4;
        decode_codes4(b + 8 + 16 * j, codes_iq4, d * (float)(scale - 32), out + 32 * j);
    }
}

/* 16 scales (low nibble) and minima (high), 64 bytes of 2-bit codes, d, dmin. */
static void decode_q2_k(const uint8_t *b, float *out)
{
    const uint8_t *q = b + 16;
    float d = load_half(b + 80), min = load_half(b + 82);
    for (int i = 0; i < 256; i++) {
        int half = i / 128, plane = i % 128 / 32, at = i % 32;
        uint8_t s = b[i / 16];
        int code = (q[32 * half + at] >> 2 * plane) & 3;
        out[i] = d * (float)(s & 15) * (float)code - min * (float)(s >> 4);
    }
}

/* 32 bytes of third bits, 64 bytes of low 2 bits, 12 bytes of 6-bit scales, d. */
static void decode_q3_k(const uint8_t *b, float *out)
{
    const uint8_t *q = b + 32, *s = b + 96;
    float d = load_half(b + 108);
    for (int i = 0; i < 256; i++) {
        int half = i / 128, plane = i % 128 / 32, at = i % 32, j = i / 16;
        int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
        int scale = (low | ((s[8 + j % 4] >> 2 * (j / 4)) & 3) << 4) - 32;
        int code = (q[32 * half + at] >> 2 * plane) & 3;
        int high = (b[at] >> (4 * half + plane)) & 1;
        out[i] = d * (float)scale * (float)(code - (high ? 0 : 4));
    }
}

static void decode_q4_k(const uint8_t *b, float *out)
{
    float d = load_half(b), min = load_half(b + 2);
    for (int j = 0; j < 8; j++) {
        uint8_t scale, m;
        scale_min_k4(b + 4, j, &scale, &m);
        float ds = d * (float)scale, dm = min * (float)m;
        const uint8_t *q = b + 16 + 32 * (j / 2);
        for (int i = 0; i < 32; i++)
            out[32 * j + i] = ds * (float)((q[i] >> 4 * (j % 2)) & 15) - dm;
    }
}

static void decode_q5_k(const uint8_t *b, float *out)
{
    float d = load_half(b), min = load_half(b + 2);
    for (int j = 0; j < 8; j++) {
        uint8_t scale, m;
        scale_min_k4(b + 4, j, &scale, &m);
        float ds = d * (float)scale, dm = min * (float)m;
        const uint8_t *high = b + 16, *q = b + 48 + 32 * (j / 2);
        for (int i = 0; i < 32; i++) {
            int code = ((q[i] >> 4 * (j % 2)) & 15) | ((high[i] >> j) & 1) << 4;
            out[32 * j + i] = ds * (float)code - dm;
        }
    }
}

/* 128 bytes of low nibbles, 64 of high 2 bits, 16 int8 scales, d. */
static void decode_q6_k(const uint8_t *b, float *out)
{
    float d = load_half(b + 208);
    for (int i = 0; i < 256; i++) {
        int half = i / 128, plane = i % 128 / 32, at = i % 32;
        int low = b[64 * half + 32 * (plane % 2) + at] >> 4 * (plane / 2) & 15;
        int high = b[128 + 32 * half + at] >> 2 * plane & 3;
        int8_t scale = (int8_t)b[192 + i / 16];
        out[i] = d * (float)scale * (float)((low | high << 4) - 32);
    }
}

static decode_block *const decoders[TENSOR_TYPE_LIMIT] = {
    [TENSOR_F32] = decode_f32,           [TENSOR_F16] = decode_f16,
    [TENSOR_BF16] = decode_bf16,         [TENSOR_Q4_0] = decode_q4_0,
    [TENSOR_Q4_1] = decode_q4_1,         [TENSOR_Q5_0] = decode_q5_0,
    [TENSOR_Q5_1] = decode_q5_1,         [TENSOR_Q8_0] = decode_q8_0,
    [TENSOR_Q2_K] = decode_q2_k,         [TENSOR_Q3_K] = decode_q3_k,
    [TENSOR_Q4_K] = decode_q4_k,         [TENSOR_Q5_K] = decode_q5_k,
    [TENSOR_Q6_K] = decode_q6_k,         [TENSOR_IQ4_NL] = decode_iq4_nl,
    [TENSOR_IQ4_XS] = decode_iq4_xs,     [TENSOR_MXFP4] = decode_mxfp4,
    [TENSOR_IQ2_XXS] = decode_iq2_xxs,   [TENSOR_IQ2_XS] = decode_iq2_xs,
    [TENSOR_IQ2_S] = decode_iq2_s,       [TENSOR_IQ3_XXS] = decode_iq3_xxs,
    [TENSOR_IQ3_S] = decode_iq3_s,       [TENSOR_IQ1_S] = decode_iq1_s,
    [TENSOR_IQ1_M] = decode_iq1_m,       [TENSOR_TQ1_0] = decode_tq1_0,
    [TENSOR_TQ2_0] = decode_tq2_0,       [TENSOR_NVFP4] = decode_nvfp4,
    [TENSOR_Q1_0] = decode_q1_0,         [TENSOR_Q2_0] = decode_q2_0,
    [TENSOR_BF16_DOT] = decode_bf16_dot,
};

void tensor_decode(enum tensor_type type, const void *blocks, float *out, size_t n_values)
{
    const struct tensor_type_info *info = tensor_type_info((uint32_t)type);
    decode_block *decode = (unsigned)type < TENSOR_TYPE_LIMIT ? decoders[type] : NULL;
    assert(n_values % info->block_values == 0);
    if (decode == NULL)
        abort(); /* our own bug: model_runnable names such a type before any work */
    const uint8_t *at = blocks;
    for (size_t i = 0; i < n_values; i += info->block_values, at += info->block_bytes)
        decode(at, out + i);
}
