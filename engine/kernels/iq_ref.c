/* The reference decoding of the types that name lattice points: IQ1, IQ2, IQ3, and the ternary TQ
 * ones.
 *
 * A group of 8 (or 4) magnitudes is an entry of a code book; signs stand beside it, as 7 bits whose
 * parity is the eighth, or as 8. Scales are a half for the block and a few bits for every 16 or 32.
 * As in quant_ref.c nothing is fast and nothing fails. Source: ggml's published block layouts. */
#include "engine/kernels/iq_grids.h"
#include "engine/kernels/quant_ref.h"

static const uint8_t values_iq2[4] = {8, 25, 43, 0};
static const uint8_t values_iq3_xxs[8] = {4, 12, 20, 28, 36, 44, 52, 62};

/* The eighth sign makes the number of minus signs even. */
static uint8_t signs_of_7(uint32_t bits)
{
    bits &= 127;
    return (uint8_t)(bits | (uint32_t)__builtin_parity(bits) << 7);
}

static float with_sign(float value, unsigned signs, int i)
{
    return signs >> i & 1 ? -value : value;
}

static void put_iq2(float *out, float scale, uint32_t entry, unsigned signs)
{
    for (int i = 0; i < 8; i++)
        out[i] = with_sign(scale * (float)values_iq2[grid_value(entry, i)], signs, i);
}

/* d, then for every 32: four entries and a word of four times 7 sign bits and a 4-bit scale. */
void decode_iq2_xxs(const uint8_t *b, float *out)
{
    float d = load_half(b);
    for (int j = 0; j < 8; j++) {
        const uint8_t *q = b + 2 + 8 * j;
        uint32_t word = load_u32(q + 4);
        float scale = d * (0.5f + (float)(word >> 28)) * 0.25f;
        for (int l = 0; l < 4; l++)
            put_iq2(out + 32 * j + 8 * l, scale, grid_iq2_xxs[q[l]], signs_of_7(word >> 7 * l));
    }
}

/* d, 32 words of a 9-bit entry and 7 signs, 8 bytes of two 4-bit scales. */
void decode_iq2_xs(const uint8_t *b, float *out)
{
    float d = load_half(b);
    for (int l = 0; l < 32; l++) {
        uint16_t word = load_u16(b + 2 + 2 * l);
        int s = b[66 + l / 4] >> 4 * (l / 2 % 2) & 15;
        float scale = d * (0.5f + (float)s) * 0.25f;
        put_iq2(out + 8 * l, scale, grid_iq2_xs[word & 511], signs_of_7(word >> 9));
    }
}

/* d, 32 low bytes of entries, 32 bytes of signs, 8 bytes of high bits, 8 of scales. */
void decode_iq2_s(const uint8_t *b, float *out)
{
    float d = load_half(b);
    for (int l = 0; l < 32; l++) {
        int s = b[74 + l / 4] >> 4 * (l / 2 % 2) & 15;
        float scale = d * (0.5f + (float)s) * 0.25f;
        int entry = b[2 + l] | (b[66 + l / 4] >> 2 * (l % 4) & 3) << 8;
        put_iq2(out + 8 * l, scale, grid_iq2_s[entry], b[34 + l]);
    }
}

/* d, 64 entries of 4 values, for every 32 a word of signs and scale as in IQ2_XXS. */
void decode_iq3_xxs(const uint8_t *b, float *out)
{
    float d = load_half(b);
    for (int i = 0; i < 256; i++) {
        uint32_t word = load_u32(b + 66 + 4 * (i / 32));
        float scale = d * (0.5f + (float)(word >> 28)) * 0.5f;
        uint32_t entry = grid_iq3_xxs[b[2 + i / 4]];
        float value = (float)values_iq3_xxs[grid_value(entry, i % 4)];
        out[i] = with_sign(scale * value, signs_of_7(word >> 7 * (i / 8 % 4)), i % 8);
    }
}

/* d, 64 low bytes of entries, 8 bytes of ninth bits, 32 of signs, 4 of two scales. */
void decode_iq3_s(const uint8_t *b, float *out)
{
    float d = load_half(b);
    for (int i = 0; i < 256; i++) {
        int s = b[106 + i / 64] >> 4 * (i / 32 % 2) & 15;
        int entry = b[2 + i / 4] | (b[66 + i / 32] >> (i / 4 % 8) & 1) << 8;
        float value = (float)(1 + 2 * grid_value(grid_iq3_s[entry], i % 4));
        out[i] = with_sign(d * (float)(1 + 2 * s) * value, b[74 + i / 8], i % 8);
    }
}

/* Entries of −1, 0, 1, all moved by an eighth up or down. */
static void put_iq1(float *out, float scale, int entry, bool down)
{
    float delta = down ? -0.125f : 0.125f;
    for (int i = 0; i < 8; i++)
        out[i] = scale * ((float)grid_value(grid_iq1[entry], i) - 1.0f + delta);
}

/* d, 32 low bytes of entries, for every 32 a word: four times 3 high bits, 3 of scale, direction.
 */
void decode_iq1_s(const uint8_t *b, float *out)
{
    float d = load_half(b);
    for (int l = 0; l < 32; l++) {
        uint16_t word = load_u16(b + 34 + 2 * (l / 4));
        float scale = d * (float)(2 * (word >> 12 & 7) + 1);
        int entry = b[2 + l] | (word >> 3 * (l % 4) & 7) << 8;
        put_iq1(out + 8 * l, scale, entry, word & 0x8000);
    }
}

/* 32 low bytes of entries, 16 of high bits and directions, four words of 3-bit scales whose top
 * nibbles make up d. */
void decode_iq1_m(const uint8_t *b, float *out)
{
    const uint8_t *s = b + 48;
    uint16_t half = (uint16_t)(load_u16(s) >> 12 | (load_u16(s + 2) >> 8 & 0xf0) |
                               (load_u16(s + 4) >> 4 & 0xf00) | (load_u16(s + 6) & 0xf000));
    float d = half_to_float(half);
    for (int l = 0; l < 32; l++) {
        int high = b[32 + l / 2] >> 4 * (l % 2);
        int bits = load_u16(s + 2 * (l / 8)) >> 3 * (l / 2 % 4) & 7;
        put_iq1(out + 8 * l, d * (float)(2 * bits + 1), b[l] | (high & 7) << 8, high & 8);
    }
}

/* Five ternary digits a byte, as a fraction of 256 whose leading digit comes out by multiplying. */
static float trit(uint8_t byte, int digit)
{
    static const uint8_t powers[5] = {1, 3, 9, 27, 81};
    uint8_t shifted = (uint8_t)(byte * powers[digit]);
    return (float)((shifted * 3 >> 8) - 1);
}

/* 32 bytes of 5 digits, 16 of 5, 4 of 4, d; digit by digit over each stretch of bytes. */
void decode_tq1_0(const uint8_t *b, float *out)
{
    float d = load_half(b + 52);
    for (int i = 0; i < 160; i++)
        out[i] = trit(b[i % 32], i / 32) * d;
    for (int i = 0; i < 80; i++)
        out[160 + i] = trit(b[32 + i % 16], i / 16) * d;
    for (int i = 0; i < 16; i++)
        out[240 + i] = trit(b[48 + i % 4], i / 4) * d;
}

void decode_tq2_0(const uint8_t *b, float *out)
{
    float d = load_half(b + 64);
    for (int i = 0; i < 256; i++)
        out[i] = (float)((b[32 * (i / 128) + i % 32] >> 2 * (i / 32 % 4) & 3) - 1) * d;
}
