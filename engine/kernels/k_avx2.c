/* The kernel table of AVX2, FMA and F16C. Compiled with the flags of that instruction set and
 * reached only through dispatch.c, after cpu.c has found the processor to have it. */
#include <math.h>

#include "engine/kernels/simd_avx2.h"

#define KERNELS kernels_avx2
#include "engine/kernels/tmpl_table.h"
