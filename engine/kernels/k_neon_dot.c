/* The kernel table of NEON with the dot product instructions. Compiled with the flags of that
 * instruction set and reached only through dispatch.c, after cpu.c has found the processor to have
 * it. */
#include <math.h>

#include "engine/kernels/simd_neon.h"

#define KERNELS kernels_neon_dot
#include "engine/kernels/tmpl_table.h"
