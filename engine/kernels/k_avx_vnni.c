/* The kernel table of AVX2 with the 256-bit dot products of AVX-VNNI (client processors without
 * AVX-512). Compiled with the flags of that instruction set and reached only through dispatch.c,
 * after cpu.c has found the processor to have it. */
#include <math.h>

#include "engine/kernels/simd_avx2.h"

#define KERNELS kernels_avx_vnni
#include "engine/kernels/tmpl_table.h"
