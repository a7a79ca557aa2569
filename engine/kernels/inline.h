#ifndef SKEIN_ENGINE_KERNELS_INLINE_H
#define SKEIN_ENGINE_KERNELS_INLINE_H

/* The templates live on inlining: counts and shifts that are arguments must become constants. */
#define INLINE static inline __attribute__((always_inline))
#if defined(NO_UNROLL)
#define UNROLL
#elif defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

/* The compiler forgets what it knows to lie at p: a load is cheaper than a register kept and spilt.
 */
#define READ_AGAIN(p) __asm__ volatile("" : "+r"(p))

#endif
