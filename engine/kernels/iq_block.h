#ifndef SKEIN_ENGINE_KERNELS_IQ_BLOCK_H
#define SKEIN_ENGINE_KERNELS_IQ_BLOCK_H

/* What a kernel multiplies of the types that name lattice points: a block of GROUP_ROWS rows with
 * every entry looked up. */
#include "engine/kernels/table.h"

enum { IQ_COLS = 256 };

struct iq_block {
    /* Of 8 columns each: nibbles as in a code book (iq_grids.h), which codes[] translates. */
    uint32_t words[IQ_COLS / 8][GROUP_ROWS];
    uint8_t scales[IQ_COLS / 32][GROUP_ROWS]; /* the second 16 columns' in the high nibble */
    uint8_t d[2 * GROUP_ROWS];                /* halves */
};

/* A value is d · unit · (2 scale + 1) · (code − IQ_BIAS). */
enum { IQ_BIAS_BITS = 6, IQ_BIAS = 1 << IQ_BIAS_BITS };
struct iq_form {
    void (*unpack)(const uint8_t *rows, struct iq_block *out); /* 16 blocks, one behind the other */
    size_t block_bytes;
    float unit;
    int8_t codes[16];
};
extern const struct iq_form form_iq2_xxs, form_iq2_xs, form_iq2_s, form_iq3_xxs, form_iq3_s,
    form_iq1_s, form_iq1_m;

#endif
