#ifndef SKEIN_ENGINE_KERNELS_CPU_H
#define SKEIN_ENGINE_KERNELS_CPU_H

/* What the processor can do, and which instruction set's kernels are used. */
#include "proto/base/base.h"

/* In the order of preference within one architecture. */
enum isa {
    ISA_GENERIC,
    ISA_AVX2,
    ISA_AVX_VNNI,
    ISA_AVX512,
    ISA_AVX512_VNNI,
    ISA_AVX512_BF16, /* and VNNI */
    ISA_NEON,
    ISA_NEON_DOT,
    ISA_NEON_I8MM,
    ISA_COUNT
};

bool cpu_has(enum isa isa);
enum isa cpu_best(void);
const char *isa_name(enum isa isa);  /* "avx512-vnni": what SKEIN_ISA takes */
const char *isa_words(enum isa isa); /* "AVX-512 VNNI" */
/* The instruction set to use: the best, or the one that the environment variable SKEIN_ISA forces.
 * INVALID for an unknown name, UNSUPPORTED for one that this processor lacks. */
enum status isa_choose(enum isa *out, struct fault *fault) MUST_USE;
/* The processor's name as the system gives it. */
void cpu_name(char *out, size_t size);

#endif
