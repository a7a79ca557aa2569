#ifndef SKEIN_ENGINE_KERNELS_IQ_GRIDS_H
#define SKEIN_ENGINE_KERNELS_IQ_GRIDS_H

#include <stdint.h>

/* Code books: 8 values of 2 bits (iq1, iq2) or 4 of 3 bits (iq3), the first in the lowest bits. */
extern const uint16_t grid_iq2_xxs[256], grid_iq2_xs[512], grid_iq2_s[1024], grid_iq3_xxs[256],
    grid_iq3_s[512], grid_iq1[2048];

#endif
