/* The kernel tables of AVX-512 with VNNI, and with BF16 besides. Compiled with the flags of that
 * instruction set and reached only through dispatch.c, after cpu.c has found the processor to have
 * it. */
#include <math.h>

#include "engine/kernels/simd_avx512.h"

#define KERNELS kernels_avx512_vnni
#include "engine/kernels/tmpl_table.h"
#include "engine/kernels/tmpl_dot_bf16.h"

const struct kernel_table kernels_avx512_bf16 = TABLE(panel_bf16_pairs, pair_records);
