#ifndef SKEIN_ENGINE_KERNELS_IQ_GRIDS_H
#define SKEIN_ENGINE_KERNELS_IQ_GRIDS_H

#include <stdint.h>

/* Code books: 8 values of an entry, or 4 of iq3, in a nibble each. */
extern const uint32_t grid_iq2_xxs[256], grid_iq2_xs[512], grid_iq2_s[1024], grid_iq3_xxs[256],
    grid_iq3_s[512], grid_iq1[2048];

/* Value i of an entry: columns 0 to 3 are the low nibbles of the bytes, 4 to 7 the high ones. */
static inline unsigned grid_value(uint32_t entry, int i)
{
    return entry >> (i < 4 ? 8 * i : 8 * i - 28) & 15;
}

#endif
