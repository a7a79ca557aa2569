/* The kernel table of AVX-512 F, BW, VL and DQ. Compiled with the flags of that instruction set and
 * reached only through dispatch.c, after cpu.c has found the processor to have it. */
#include <math.h>

#include "engine/kernels/simd_avx512.h"

#define KERNELS kernels_avx512
#include "engine/kernels/tmpl_table.h"
