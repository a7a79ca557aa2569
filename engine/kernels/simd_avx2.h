/* The primitives of the kernel templates for AVX2 with FMA and F16C: 8 lanes in a ymm register.
 * AVX-VNNI has VPDPBUSD, with the same ways as AVX-512's. */
#include <immintrin.h>
#include <string.h>

#include "engine/kernels/inline.h"
#include "engine/kernels/quant_ref.h"

#define LANES      8
#define QUANT_TILE 4
#define FLOAT_TILE 6

typedef __m256i vi;
typedef __m256 vf;

#define MM(op) _mm256_##op
#define VI(op) _mm256_##op##_si256
#ifdef __AVXVNNI__
#define DPBUSD(acc, w, x) _mm256_dpbusd_avx_epi32(acc, w, vi_dup(x))
#endif

/* Turned where `sign` is negative; anything where it is 0. */
INLINE vi vi_with_sign(vi a, vi sign)
{
    return _mm256_sign_epi8(a, sign);
}

#include "engine/kernels/simd_x86.h"

INLINE vi vi_shl(vi a, int n)
{
    return _mm256_slli_epi32(a, n);
}
INLINE vi vi_sar(vi a, int n)
{
    return _mm256_srai_epi32(a, n);
}
INLINE vi vi_shr_bytes(vi a, int n, uint8_t mask)
{
    return _mm256_and_si256(_mm256_srli_epi16(a, n), _mm256_set1_epi8((char)mask));
}
INLINE vi vi_shl_bytes(vi a, int n, uint8_t mask)
{
    return _mm256_and_si256(_mm256_slli_epi16(a, n), _mm256_set1_epi8((char)mask));
}
/* 3 (b + 128) / 256 of each signed byte: 0, 1 or 2. */
INLINE vi vi_thirds(vi a)
{
    vi some = _mm256_cmpgt_epi8(a, _mm256_set1_epi8(-43));
    vi two = _mm256_cmpgt_epi8(a, _mm256_set1_epi8(42));
    return _mm256_sub_epi8(_mm256_sub_epi8(_mm256_setzero_si256(), some), two);
}
INLINE vi vi_u8(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i_u *)p));
}
INLINE vi vi_s8(const uint8_t *p)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i_u *)p));
}
INLINE vi vi_table(const int8_t codes[16])
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i_u *)codes));
}

INLINE vf vf_dup(const void *p)
{
    return _mm256_castsi256_ps(vi_dup(p));
}
INLINE vf vf_abs(vf a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
INLINE vi vi_of_bits(vf a)
{
    return _mm256_castps_si256(a);
}
INLINE vf vf_of_bits(vi a)
{
    return _mm256_castsi256_ps(a);
}
INLINE vf vf_half(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i_u *)p));
}
INLINE vf vf_bfloat(const uint8_t *p)
{
    vi wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i_u *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
INLINE void vi_store_bytes(uint8_t *p, vi a)
{
    __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storel_epi64((__m128i_u *)p, _mm_packs_epi16(half, half));
}

/* Over the lanes. */
INLINE float vf_largest(vf a)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
INLINE uint32_t vi_sum(vi a)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/* ---- for tmpl_attention.h */

#define ATTEND_BLOCK 4 /* queries that share a load */
#define ATTEND_SUMS  8 /* registers of sums */

/* The halves added, then their halves, down to one. */
INLINE float vf_fold_sum(vf a)
{
    return sum_of_four(_mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1)));
}
INLINE void vf_store_half(uint8_t *p, vf a)
{
    _mm_storeu_si128((__m128i_u *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
