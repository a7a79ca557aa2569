/* The kernel table of NEON. Compiled with the flags of that instruction set and
 * reached only through dispatch.c, after cpu.c has found the processor to have it. */
#include <math.h>

#include "engine/kernels/simd_neon.h"

#define KERNELS kernels_neon
#include "engine/kernels/tmpl_table.h"
