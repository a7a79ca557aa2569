/* Blocks of the types that name lattice points, 16 rows at a time, as words of nibbles.
 *
 * An entry of a code book is looked up once for all rows of x, and with plain loads: a gather of 16
 * is no faster where there is one. Its 8 values are nibbles, so one exclusive or sets all eight
 * signs (IQ1: one says which way they are moved), and a kernel's table of 16 makes codes of them
 * (tmpl_iq.h): what a column costs here is an eighth of a load, or a quarter with signs. A
 * block of 16 rows comes to 2.3 KB, which stays in the nearest cache while rows of x pass by.
 *
 * The layouts are iq_ref.c's. Any bits are a valid block; nothing fails. */
#include "engine/kernels/iq_block.h"

#include "engine/kernels/inline.h"
#include "engine/kernels/iq_grids.h"
#include "engine/kernels/quant_ref.h"

/* Bit i of s at the top of nibble i (grid_value), and the same for 7 bits whose parity is the
 * eighth. */
#define FLIP(s)                                                                                    \
    (((s)&1u) << 3 | ((s)&2u) << 10 | ((s)&4u) << 17 | ((s)&8u) << 24 | ((s)&16u) << 3 |           \
     ((s)&32u) << 10 | ((s)&64u) << 17 | ((s)&128u) << 24)
#define EVEN(s)                                                                                    \
    FLIP((s) | (((s) ^ (s) >> 1 ^ (s) >> 2 ^ (s) >> 3 ^ (s) >> 4 ^ (s) >> 5 ^ (s) >> 6) & 1u) << 7)
#define FOUR(f, s)    f(s), f((s) + 1u), f((s) + 2u), f((s) + 3u)
#define SIXTEEN(f, s) FOUR(f, s), FOUR(f, (s) + 4u), FOUR(f, (s) + 8u), FOUR(f, (s) + 12u)
#define ALL_OF_64(f, s)                                                                            \
    SIXTEEN(f, s), SIXTEEN(f, (s) + 16u), SIXTEEN(f, (s) + 32u), SIXTEEN(f, (s) + 48u)
static const uint32_t flips_of_7[128] = {ALL_OF_64(EVEN, 0u), ALL_OF_64(EVEN, 64u)};
static const uint32_t flips_of_8[256] = {ALL_OF_64(FLIP, 0u), ALL_OF_64(FLIP, 64u),
                                         ALL_OF_64(FLIP, 128u), ALL_OF_64(FLIP, 192u)};

static inline uint64_t load_u64(const uint8_t *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* One row; r is its place. */
typedef void unpack_row(const uint8_t *restrict b, struct iq_block *restrict out, size_t r);

INLINE void unpack_rows(const uint8_t *rows, size_t block_bytes, unpack_row *row,
                        struct iq_block *out)
{
    for (size_t r = 0; r < GROUP_ROWS; r++)
        row(rows + r * block_bytes, out, r);
}

INLINE void put_d(struct iq_block *out, size_t r, const uint8_t *half)
{
    memcpy(out->d + 2 * r, half, 2);
}

INLINE void row_iq2_xxs(const uint8_t *restrict b, struct iq_block *restrict out, size_t r)
{
    put_d(out, r, b);
    UNROLL for (size_t j = 0; j < 8; j++)
    {
        const uint8_t *q = b + 2 + 8 * j;
        uint32_t signs = load_u32(q + 4);
        UNROLL for (size_t l = 0; l < 4; l++) out->words[4 * j + l][r] =
            grid_iq2_xxs[q[l]] ^ flips_of_7[signs >> 7 * l & 127];
        out->scales[j][r] = (uint8_t)(signs >> 28);
    }
}

INLINE void row_iq2_xs(const uint8_t *restrict b, struct iq_block *restrict out, size_t r)
{
    put_d(out, r, b);
    UNROLL for (size_t j = 0; j < 8; j++)
    {
        uint64_t q = load_u64(b + 2 + 8 * j);
        UNROLL for (size_t l = 0; l < 4; l++) out->words[4 * j + l][r] =
            grid_iq2_xs[q >> 16 * l & 511] ^ flips_of_7[q >> (16 * l + 9) & 127];
        out->scales[j][r] = b[66 + j];
    }
}

INLINE void row_iq2_s(const uint8_t *restrict b, struct iq_block *restrict out, size_t r)
{
    put_d(out, r, b);
    UNROLL for (size_t j = 0; j < 8; j++)
    {
        const uint8_t *q = b + 2 + 4 * j;
        uint32_t high = (uint32_t)b[66 + j] << 8;
        UNROLL for (size_t l = 0; l < 4; l++) out->words[4 * j + l][r] =
            grid_iq2_s[q[l] | (high >> 2 * l & 0x300)] ^ flips_of_8[q[32 + l]];
        out->scales[j][r] = b[74 + j];
    }
}

INLINE void row_iq3_xxs(const uint8_t *restrict b, struct iq_block *restrict out, size_t r)
{
    put_d(out, r, b);
    UNROLL for (size_t j = 0; j < 8; j++)
    {
        const uint8_t *q = b + 2 + 8 * j;
        uint32_t signs = load_u32(b + 66 + 4 * j);
        UNROLL for (size_t l = 0; l < 4; l++) out->words[4 * j + l][r] =
            (grid_iq3_xxs[q[2 * l]] | grid_iq3_xxs[q[2 * l + 1]] << 4) ^
            flips_of_7[signs >> 7 * l & 127];
        out->scales[j][r] = (uint8_t)(signs >> 28);
    }
}

INLINE void row_iq3_s(const uint8_t *restrict b, struct iq_block *restrict out, size_t r)
{
    put_d(out, r, b);
    UNROLL for (size_t j = 0; j < 8; j++)
    {
        const uint8_t *q = b + 2 + 8 * j, *signs = b + 74 + 4 * j;
        uint32_t high = (uint32_t)b[66 + j] << 8;
        UNROLL for (size_t l = 0; l < 4; l++)
        {
            uint32_t first = grid_iq3_s[q[2 * l] | (high >> 2 * l & 256)];
            uint32_t second = grid_iq3_s[q[2 * l + 1] | (high >> (2 * l + 1) & 256)];
            out->words[4 * j + l][r] = (first | second << 4) ^ flips_of_8[signs[l]];
        }
        out->scales[j][r] = b[106 + j / 2] >> 4 * (j % 2) & 15;
    }
}

INLINE void row_iq1_s(const uint8_t *restrict b, struct iq_block *restrict out, size_t r)
{
    put_d(out, r, b);
    UNROLL for (size_t j = 0; j < 8; j++)
    {
        const uint8_t *q = b + 2 + 4 * j;
        uint32_t word = load_u16(b + 34 + 2 * j), high = word << 8;
        uint32_t down = (word >> 15) * 0x88888888u;
        UNROLL for (size_t l = 0; l < 4; l++) out->words[4 * j + l][r] =
            grid_iq1[q[l] | (high >> 3 * l & 0x700)] ^ down;
        out->scales[j][r] = word >> 12 & 7;
    }
}

/* Three high bits of an entry and the direction. */
#define NIBBLE(n)                                                                                  \
    {                                                                                              \
        (n & 7u) << 8, (n >> 3) * 0x88888888u                                                      \
    }
static const struct nibble {
    uint32_t high, flip;
} nibbles[16] = {NIBBLE(0u),  NIBBLE(1u),  NIBBLE(2u),  NIBBLE(3u), NIBBLE(4u),  NIBBLE(5u),
                 NIBBLE(6u),  NIBBLE(7u),  NIBBLE(8u),  NIBBLE(9u), NIBBLE(10u), NIBBLE(11u),
                 NIBBLE(12u), NIBBLE(13u), NIBBLE(14u), NIBBLE(15u)};

INLINE void row_iq1_m(const uint8_t *restrict b, struct iq_block *restrict out, size_t r)
{
    uint64_t s = load_u64(b + 48);
    uint16_t d =
        (uint16_t)((s >> 12 & 15) | (s >> 24 & 0xf0) | (s >> 36 & 0xf00) | (s >> 48 & 0xf000));
    memcpy(out->d + 2 * r, &d, 2);
    UNROLL for (size_t j = 0; j < 8; j++)
    {
        const uint8_t *q = b + 4 * j, *high = b + 32 + 2 * j;
        UNROLL for (size_t l = 0; l < 4; l++)
        {
            const struct nibble *n = &nibbles[l % 2 == 0 ? high[l / 2] & 15 : high[l / 2] >> 4];
            out->words[4 * j + l][r] = grid_iq1[q[l] | n->high] ^ n->flip;
        }
        uint64_t both = s >> (16 * (j / 2) + 6 * (j % 2));
        out->scales[j][r] = (uint8_t)((both & 7) | (both & 0x38) << 1);
    }
}

#define FORM(name, bytes, of_one, ...)                                                             \
    static void unpack_##name(const uint8_t *rows, struct iq_block *out)                           \
    {                                                                                              \
        unpack_rows(rows, bytes, row_##name, out);                                                 \
    }                                                                                              \
    const struct iq_form form_##name = {unpack_##name, bytes, of_one, {__VA_ARGS__}}
/* Magnitudes, then the same with a minus, around IQ_BIAS. */
#define BOTH(a, b, c, d, e, f, g, h)                                                               \
    IQ_BIAS + (a), IQ_BIAS + (b), IQ_BIAS + (c), IQ_BIAS + (d), IQ_BIAS + (e), IQ_BIAS + (f),      \
        IQ_BIAS + (g), IQ_BIAS + (h), IQ_BIAS - (a), IQ_BIAS - (b), IQ_BIAS - (c), IQ_BIAS - (d),  \
        IQ_BIAS - (e), IQ_BIAS - (f), IQ_BIAS - (g), IQ_BIAS - (h)
/* −1, 0 and 1, moved up or down by an eighth. */
#define EIGHTHS                                                                                    \
    IQ_BIAS - 7, IQ_BIAS + 1, IQ_BIAS + 9, 0, 0, 0, 0, 0, IQ_BIAS - 9, IQ_BIAS - 1, IQ_BIAS + 7

FORM(iq2_xxs, 66, 0.125f, BOTH(8, 25, 43, 0, 0, 0, 0, 0));
FORM(iq2_xs, 74, 0.125f, BOTH(8, 25, 43, 0, 0, 0, 0, 0));
FORM(iq2_s, 82, 0.125f, BOTH(8, 25, 43, 0, 0, 0, 0, 0));
FORM(iq3_xxs, 98, 0.25f, BOTH(4, 12, 20, 28, 36, 44, 52, 62));
FORM(iq3_s, 110, 1.0f, BOTH(1, 3, 5, 7, 9, 11, 13, 15));
FORM(iq1_s, 50, 0.125f, EIGHTHS);
FORM(iq1_m, 56, 0.125f, EIGHTHS);
