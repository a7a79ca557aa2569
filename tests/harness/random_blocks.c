/* Random weights in the block formats of GGUF files.
 *
 * A block is random bits with its scales overwritten, so any pattern is valid and values come out
 * with mean 0 and the wanted deviation; how a format packs its scales is the only thing to know
 * (llama.cpp's ggml-common.h describes them). Blocks are made once into a pool of eight megabytes
 * and written from random places in it: gigabytes in seconds, and nothing that reads the file in
 * order can profit from the repetition. */
#include "random_blocks.h"

#include <math.h>
#include <string.h>

#include "proto/base/base.h"

enum { POOL_BYTES = 8 << 20 };

static const struct block_type types[] = {
    {"F32", 0, 1, 4},       {"F16", 1, 1, 2},       {"BF16", 30, 1, 2},     {"Q4_0", 2, 32, 18},
    {"Q4_1", 3, 32, 20},    {"Q5_0", 6, 32, 22},    {"Q5_1", 7, 32, 24},    {"Q8_0", 8, 32, 34},
    {"Q2_K", 10, 256, 84},  {"Q3_K", 11, 256, 110}, {"Q4_K", 12, 256, 144}, {"Q5_K", 13, 256, 176},
    {"Q6_K", 14, 256, 210},
};

uint64_t random_next(struct random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

const struct block_type *block_type_find(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        if (strcmp(types[i].name, name) == 0)
            return &types[i];
    }
    return NULL;
}

/* Finite values only. */
static uint16_t half_of(float value)
{
    uint32_t bits, sign;
    int32_t exponent;

    memcpy(&bits, &value, sizeof bits);
    sign = bits >> 16 & 0x8000;
    exponent = (int32_t)(bits >> 23 & 0xff) - 127 + 15;
    if (exponent <= 0) /* subnormal: multiples of 2^-24 */
        return (uint16_t)(sign | (uint32_t)lrintf(fabsf(value) * 0x1p24f));
    if (exponent >= 31)
        return (uint16_t)(sign | 0x7bff);
    return (uint16_t)(sign | (uint32_t)exponent << 10 | (bits >> 13 & 0x3ff));
}

static void put_half(uint8_t *at, float value)
{
    uint16_t half = half_of(value);

    memcpy(at, &half, sizeof half);
}

/* Uniform in a width that gives the deviation. */
static float random_value(struct random *random, float deviation)
{
    float unit = (float)(random_next(random) >> 40) * 0x1p-24f - 0.5f;

    return unit * deviation * sqrtf(12);
}

static void put_float(const struct block_type *type, uint8_t *at, float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    if (type->bytes == 4)
        memcpy(at, &bits, 4);
    else if (type->number == 1)
        put_half(at, value);
    else
        memcpy(at, (const uint8_t *)&bits + 2, 2);
}

/* Deviation of a whole number drawn evenly from `n` neighbours. */
static float deviation_of(float n)
{
    return sqrtf((n * n - 1) / 12);
}

/* The 12 packed bytes of Q4_K and Q5_K, with every 6-bit scale and minimum 32. */
static void put_scales_32(uint8_t *at)
{
    memset(at, 32 | 2 << 6, 8);
    memset(at + 8, 0, 4);
}

static void set_scales(const struct block_type *type, uint8_t *block, float deviation)
{
    switch (type->number) {
    case 2: /* d, 16 bytes of q - 8 */
        put_half(block, deviation / deviation_of(16));
        break;
    case 3: /* d, m: d * q + m */
        put_half(block, deviation / deviation_of(16));
        put_half(block + 2, deviation / deviation_of(16) * -7.5f);
        break;
    case 6: /* d, 5-bit q - 16 */
        put_half(block, deviation / deviation_of(32));
        break;
    case 7:
        put_half(block, deviation / deviation_of(32));
        put_half(block + 2, deviation / deviation_of(32) * -15.5f);
        break;
    case 8:
        put_half(block, deviation / deviation_of(256));
        break;
    case 10: /* 16 bytes of 4-bit scale and minimum, 64 of 2-bit q, d, dmin: d * 8 * q - dmin * 12
              */
        memset(block, 8 | 12 << 4, 16);
        put_half(block + 80, deviation / deviation_of(4) / 8);
        put_half(block + 82, deviation / deviation_of(4) * 1.5f / 12);
        break;
    case 11: /* hmask 32, q 64, scales 12 (6 bits less 32: all 0b110000 = 16 over), d */
        memset(block + 96, 0, 8);
        memset(block + 104, 0xff, 4);
        put_half(block + 108, deviation / deviation_of(8) / 16);
        break;
    case 12:
        put_half(block, deviation / deviation_of(16) / 32);
        put_half(block + 2, deviation / deviation_of(16) / 32 * 7.5f);
        put_scales_32(block + 4);
        break;
    case 13:
        put_half(block, deviation / deviation_of(32) / 32);
        put_half(block + 2, deviation / deviation_of(32) / 32 * 15.5f);
        put_scales_32(block + 4);
        break;
    default: /* Q6_K: 192 bytes of q - 32, 16 scales of 8 bits, d */
        memset(block + 192, 8, 16);
        put_half(block + 208, deviation / deviation_of(64) / 8);
        break;
    }
}

/* Where zero lies above the middle of the range (q - 8 of 0..15 has mean -0.5), the smallest value
 * becomes the middle: that is half a step on average, and the mean is 0. Weights with a common mean
 * would drown what the tokens say. */
static void centre(const struct block_type *type, uint8_t *block)
{
    for (size_t at = 0; at < type->bytes; at++) {
        if (type->number == 8 && block[at] == 0x80)
            block[at] = 0;
        if (type->number == 11 && at >= 32 && at < 96)
            block[at] |= (uint8_t)((~(block[at] | block[at] >> 1) & 0x55) << 1);
        if (type->number != 2 && type->number != 6 && type->number != 14)
            continue;
        block[at] = (uint8_t)(block[at] | (block[at] & 0x0f ? 0 : 0x08));
        block[at] = (uint8_t)(block[at] | (block[at] & 0xf0 ? 0 : 0x80));
    }
}

static void fill_pool(uint8_t *pool, const struct block_type *type, size_t n_blocks, float mean,
                      float deviation, struct random *random)
{
    for (size_t i = 0; i < n_blocks; i++) {
        uint8_t *block = pool + i * type->bytes;

        if (type->values == 1) {
            put_float(type, block, mean + random_value(random, deviation));
            continue;
        }
        for (size_t at = 0; at < type->bytes; at += 8) {
            uint64_t bits = random_next(random);

            memcpy(block + at, &bits, type->bytes - at < 8 ? type->bytes - at : 8);
        }
        centre(type, block);
        set_scales(type, block, deviation);
    }
}

bool random_blocks_write(FILE *out, const struct block_type *type, uint64_t n_values, float mean,
                         float deviation, struct random *random)
{
    size_t n_pool = POOL_BYTES / type->bytes;
    uint64_t left = n_values / type->values;
    uint8_t *pool;
    bool ok = true;

    n_pool = left < n_pool ? (size_t)left : n_pool;
    pool = mem_zeroed(n_pool, type->bytes);
    if (!pool)
        return false;
    fill_pool(pool, type, n_pool, mean, deviation, random);
    while (ok && left > 0) {
        size_t from = (size_t)(random_next(random) % n_pool), n = n_pool - from;

        n = n < left ? n : (size_t)left;
        ok = fwrite(pool + from * type->bytes, type->bytes, n, out) == n;
        left -= n;
    }
    mem_free(pool);
    return ok;
}
