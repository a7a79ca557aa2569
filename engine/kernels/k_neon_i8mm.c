/* The kernel table of NEON with dot products and the 8-bit matrix products of I8MM. Compiled with
 * the flags of that instruction set and reached only through dispatch.c, after cpu.c has found the
 * processor to have it. */
#include <math.h>

#include "engine/kernels/simd_neon.h"

#define KERNELS kernels_neon_i8mm
#include "engine/kernels/tmpl_table.h"
