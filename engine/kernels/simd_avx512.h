/* The primitives of the kernel templates for AVX-512 (F, BW, VL, DQ): 16 lanes in a zmm register,
 * and with VNNI VPDPBUSD. */
#include <immintrin.h>
#include <string.h>

#include "engine/kernels/inline.h"
#include "engine/kernels/quant_ref.h"

#define LANES      16
#define QUANT_TILE 16
#define FLOAT_TILE 12

/* The compilers differ in the type of this argument. */
#if defined(__clang__)
#define COUNT(n) ((unsigned)(n))
#else
#define COUNT(n) (n)
#endif

typedef __m512i vi;
typedef __m512 vf;

#define MM(op) _mm512_##op
#define VI(op) _mm512_##op##_si512
#ifdef __AVX512VNNI__
#define DOT_ROWS 4 /* an instruction takes 4 cycles, and one starts in each */
#define DPBUSD   dot_of_four
/* One instruction that spreads the four bytes at x itself, which compilers make two of: up to 7 %
 * faster, since more of them fit into what a core looks ahead. */
INLINE vi dot_of_four(vi acc, vi w, const uint8_t *x)
{
    typedef int32_t __attribute__((aligned(1), may_alias)) word;
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*(const word *)x));
    return acc;
}
#endif

/* Turned where `sign` is negative; anything where it is 0. */
INLINE vi vi_with_sign(vi a, vi sign)
{
    return _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(sign), _mm512_setzero_si512(), a);
}

#include "engine/kernels/simd_x86.h"

INLINE vi vi_shl(vi a, int n)
{
    return _mm512_slli_epi32(a, (unsigned)n);
}
INLINE vi vi_sar(vi a, int n)
{
    return _mm512_srai_epi32(a, (unsigned)n);
}
INLINE vi vi_shr_bytes(vi a, int n, uint8_t mask)
{
    return _mm512_and_si512(_mm512_srli_epi16(a, COUNT(n)), _mm512_set1_epi8((char)mask));
}
INLINE vi vi_shl_bytes(vi a, int n, uint8_t mask)
{
    return _mm512_and_si512(_mm512_slli_epi16(a, COUNT(n)), _mm512_set1_epi8((char)mask));
}
/* 3 (b + 128) / 256 of each signed byte: 0, 1 or 2. */
INLINE vi vi_thirds(vi a)
{
    __mmask64 some = _mm512_cmpgt_epi8_mask(a, _mm512_set1_epi8(-43));
    __mmask64 two = _mm512_cmpgt_epi8_mask(a, _mm512_set1_epi8(42));
    vi one = _mm512_maskz_mov_epi8(some, _mm512_set1_epi8(1));
    return _mm512_mask_mov_epi8(one, two, _mm512_set1_epi8(2));
}
INLINE vi vi_u8(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i_u *)p));
}
INLINE vi vi_s8(const uint8_t *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i_u *)p));
}

/* 16 bytes, which indices below 16 pick from. */
INLINE vi vi_table(const int8_t codes[16])
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i_u *)codes));
}

INLINE vf vf_dup(const void *p)
{
    return _mm512_castsi512_ps(vi_dup(p));
}
INLINE vf vf_abs(vf a)
{
    return _mm512_abs_ps(a);
}
INLINE vi vi_of_bits(vf a)
{
    return _mm512_castps_si512(a);
}
INLINE vf vf_of_bits(vi a)
{
    return _mm512_castsi512_ps(a);
}
INLINE vf vf_half(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i_u *)p));
}
INLINE vf vf_bfloat(const uint8_t *p)
{
    vi wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i_u *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
INLINE void vi_store_bytes(uint8_t *p, vi a)
{
    _mm_storeu_si128((__m128i_u *)p, _mm512_cvtsepi32_epi8(a));
}

/* Over the lanes. */
INLINE float vf_largest(vf a)
{
    return _mm512_reduce_max_ps(a);
}
INLINE uint32_t vi_sum(vi a)
{
    return (uint32_t)_mm512_reduce_add_epi32(a);
}

/* ---- for tmpl_attention.h */

#define ATTEND_BLOCK 8  /* queries that share a load */
#define ATTEND_SUMS  16 /* registers of sums */

/* The halves added, then their halves, down to one. */
INLINE float vf_fold_sum(vf a)
{
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    return sum_of_four(_mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1)));
}
INLINE void vf_store_half(uint8_t *p, vf a)
{
    _mm256_storeu_si256((__m256i_u *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
