#ifndef SKEIN_ENGINE_KERNELS_QUANT_REF_H
#define SKEIN_ENGINE_KERNELS_QUANT_REF_H

/* Shared by the reference decoders. */
#include <string.h>

#include "engine/kernels/kernels.h"

/* IEEE half and bfloat16 to float, exact for every bit pattern. */
static inline float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 31u, mantissa = h & 1023u, bits;
    if (exponent == 31) {
        bits = sign | 0x7f800000u | mantissa << 13;
    } else if (exponent != 0) {
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    } else {
        float tiny = (float)mantissa * 0x1p-24f;
        return sign ? -tiny : tiny;
    }
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Rounded to nearest, ties to even. */
static inline uint16_t float_to_half(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t shift, mantissa, half;

    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
    if (magnitude >= 0x477ff000u) /* rounds to 65520 or more */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x33000000u) /* less than half of the smallest */
        return (uint16_t)sign;
    if (magnitude >= 0x38800000u) { /* normal: rebias, round */
        half = magnitude - 0x38000000u;
        return (uint16_t)(sign | ((half + 0xfff + (half >> 13 & 1)) >> 13));
    }
    shift = 126 - (magnitude >> 23); /* 14..24 bits fall off */
    mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    half = mantissa >> shift;
    mantissa &= (1u << shift) - 1;
    if (mantissa > 1u << (shift - 1) || (mantissa == 1u << (shift - 1) && (half & 1)))
        half++;
    return (uint16_t)(sign | half);
}

static inline float bfloat_to_float(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* To the nearest, ties to even; what is not a number stays so. */
static inline uint16_t bfloat_of(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline uint16_t load_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline float load_half(const uint8_t *p)
{
    return half_to_float(load_u16(p));
}

/* The power of two of an E8M0 exponent, halved (MXFP4's codes are doubled). */
static inline float e8m0_half_to_float(uint8_t e)
{
    uint32_t bits = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* An unsigned float of 4 and 3 bits, halved for the same reason; its one NaN counts as 0 (NVFP4).
 */
static inline float e4m3_half_to_float(uint8_t e)
{
    uint32_t exponent = (e >> 3) & 15u, mantissa = e & 7u;
    uint32_t bits = (exponent + 119u) << 23 | mantissa << 20;
    float f;
    if (e == 0x7f)
        return 0;
    if (exponent == 0)
        return (float)mantissa * 0x1p-10f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* The 6-bit scale and minimum number j of the 12 bytes that Q4_K and Q5_K share. */
static inline void scale_min_k4(const uint8_t *s, int j, uint8_t *scale, uint8_t *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (uint8_t)((s[j + 4] & 15) | (s[j - 4] >> 6) << 4);
        *min = (uint8_t)((s[j + 4] >> 4) | (s[j] >> 6) << 4);
    }
}

extern const int8_t codes_iq4[16]; /* IQ4_NL, IQ4_XS */
extern const int8_t codes_fp4[16]; /* E2M1, doubled */

/* One block to floats. */
typedef void decode_block(const uint8_t *block, float *out);
decode_block decode_iq2_xxs, decode_iq2_xs, decode_iq2_s, decode_iq3_xxs, decode_iq3_s,
    decode_iq1_s, decode_iq1_m, decode_tq1_0, decode_tq2_0;

#endif
