/* The primitives of the kernel templates for AVX-512 (F, BW, VL, DQ): 16 lanes in a zmm register.
 * With VNNI a dot product is VPDPBUSD, whose first factor is unsigned: signed codes get 128 added
 * (their top bit flipped), which the sum of x takes off again through SIGNED_BIAS. Without it, as
 * AVX2. */
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

INLINE vi vi_load(const void *p)
{
    return _mm512_loadu_si512(p);
}
INLINE vi vi_dup(const void *p)
{
    int32_t x;
    memcpy(&x, p, 4);
    return _mm512_set1_epi32(x);
}
INLINE vi vi_set(int32_t x)
{
    return _mm512_set1_epi32(x);
}
INLINE void vi_keep(vi *a)
{
    __asm__ volatile("" : "+v"(*a));
}
INLINE vi vi_zero(void)
{
    return _mm512_setzero_si512();
}
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
INLINE vi vi_or(vi a, vi b)
{
    return _mm512_or_si512(a, b);
}
INLINE vi vi_add(vi a, vi b)
{
    return _mm512_add_epi32(a, b);
}
INLINE vi vi_sub(vi a, vi b)
{
    return _mm512_sub_epi32(a, b);
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
INLINE vi vi_lookup(vi table, vi index)
{
    return _mm512_shuffle_epi8(table, index);
}

#ifdef __AVX512VNNI__
#define SIGNED_BIAS 7 /* the sum's shift: 128 */
INLINE vi vi_signed_codes(vi a)
{
    return _mm512_xor_si512(a, _mm512_set1_epi8((char)0x80));
}
INLINE vi dot_unsigned(vi acc, const vi *w, int n, const uint8_t *x)
{
    for (int u = 0; u < n; u++)
        acc = _mm512_dpbusd_epi32(acc, w[u], vi_dup(x + 4 * u));
    return acc;
}
INLINE vi dot_u4(vi acc, const vi *w, int n, const uint8_t *x)
{
    return dot_unsigned(acc, w, n, x);
}
INLINE vi dot_u6(vi acc, const vi *w, int n, const uint8_t *x)
{
    return dot_unsigned(acc, w, n, x);
}
INLINE vi dot_signed(vi acc, const vi *w, int n, const uint8_t *x)
{
    return dot_unsigned(acc, w, n, x);
}
#else
#define SIGNED_BIAS 0
INLINE vi vi_signed_codes(vi a)
{
    return a;
}
INLINE vi widen(vi acc, vi sums16)
{
    return _mm512_add_epi32(acc, _mm512_madd_epi16(sums16, _mm512_set1_epi16(1)));
}
INLINE vi dot_u4(vi acc, const vi *w, int n, const uint8_t *x)
{
    vi sum = _mm512_maddubs_epi16(w[0], vi_dup(x));
    for (int u = 1; u < n; u++)
        sum = _mm512_add_epi16(sum, _mm512_maddubs_epi16(w[u], vi_dup(x + 4 * u)));
    return widen(acc, sum);
}
INLINE vi dot_u6(vi acc, const vi *w, int n, const uint8_t *x)
{
    for (int u = 0; u < n; u += 2) {
        vi a = _mm512_maddubs_epi16(w[u], vi_dup(x + 4 * u));
        vi b = _mm512_maddubs_epi16(w[u + 1], vi_dup(x + 4 * u + 4));
        acc = widen(acc, _mm512_add_epi16(a, b));
    }
    return acc;
}
INLINE vi dot_signed(vi acc, const vi *w, int n, const uint8_t *x)
{
    for (int u = 0; u < n; u++) {
        vi dup = vi_dup(x + 4 * u);
        __mmask64 negative = _mm512_movepi8_mask(w[u]);
        vi turned = _mm512_mask_sub_epi8(dup, negative, _mm512_setzero_si512(), dup);
        acc = widen(acc, _mm512_maddubs_epi16(_mm512_abs_epi8(w[u]), turned));
    }
    return acc;
}
#endif

INLINE vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
INLINE void vf_store(float *p, vf a)
{
    _mm512_storeu_ps(p, a);
}
INLINE vf vf_set(float x)
{
    return _mm512_set1_ps(x);
}
INLINE vf vf_dup(const void *p)
{
    return _mm512_castsi512_ps(vi_dup(p));
}
INLINE vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
INLINE vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
INLINE vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
INLINE vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
INLINE vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
INLINE vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
INLINE vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}
INLINE vf vf_abs(vf a)
{
    return _mm512_abs_ps(a);
}
INLINE vf vf_of_vi(vi a)
{
    return _mm512_cvtepi32_ps(a);
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
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
INLINE void vf_store_half(uint8_t *p, vf a)
{
    _mm256_storeu_si256((__m256i_u *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
