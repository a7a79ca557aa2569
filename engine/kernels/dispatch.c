/* From an instruction set to its table of kernels.
 *
 * Every set exports one complete table, so there is nothing to fill in at run time and no state: a
 * compute keeps the table that it was made with. */
#include "engine/kernels/table.h"

const struct kernel_table *kernel_table_of(enum isa isa)
{
    switch (isa) {
#if defined(__x86_64__)
    case ISA_AVX2:
        return &kernels_avx2;
    case ISA_AVX_VNNI:
        return &kernels_avx_vnni;
    case ISA_AVX512:
        return &kernels_avx512;
    case ISA_AVX512_VNNI:
        return &kernels_avx512_vnni;
    case ISA_AVX512_BF16:
        return &kernels_avx512_bf16;
#elif defined(__aarch64__)
    case ISA_NEON:
        return &kernels_neon;
    case ISA_NEON_DOT:
        return &kernels_neon_dot;
    case ISA_NEON_I8MM:
        return &kernels_neon_i8mm;
#endif
    default:
        return &kernels_generic;
    }
}
