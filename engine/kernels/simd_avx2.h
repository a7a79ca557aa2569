/* The primitives of the kernel templates for AVX2 with FMA and F16C: 8 lanes in a ymm register.
 *
 * VPMADDUBSW adds two products in 16 bits with saturation. Codes of 4 bits leave room for the sums
 * of a whole block (8 · 2 · 15 · 128 = 30,720), codes of 6 bits for two (2 · 2 · 63 · 128 =
 * 32,256), so only then are they widened. Signed codes go in as |w| and x · sign(w): at most 2 ·
 * 128 · 127, which fits. AVX-VNNI has VPDPBUSD, with the same ways as AVX-512's. */
#include <immintrin.h>
#include <string.h>

#include "engine/kernels/inline.h"
#include "engine/kernels/quant_ref.h"

#define LANES      8
#define QUANT_TILE 4
#define FLOAT_TILE 6

typedef __m256i vi;
typedef __m256 vf;

INLINE vi vi_load(const void *p)
{
    return _mm256_loadu_si256((const __m256i_u *)p);
}
INLINE vi vi_dup(const void *p)
{
    int32_t x;
    memcpy(&x, p, 4);
    return _mm256_set1_epi32(x);
}
INLINE vi vi_set(int32_t x)
{
    return _mm256_set1_epi32(x);
}
INLINE void vi_keep(vi *a)
{
    __asm__ volatile("" : "+x"(*a));
}
INLINE vi vi_zero(void)
{
    return _mm256_setzero_si256();
}
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
INLINE vi vi_or(vi a, vi b)
{
    return _mm256_or_si256(a, b);
}
INLINE vi vi_add(vi a, vi b)
{
    return _mm256_add_epi32(a, b);
}
INLINE vi vi_sub(vi a, vi b)
{
    return _mm256_sub_epi32(a, b);
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
INLINE vi vi_lookup(vi table, vi index)
{
    return _mm256_shuffle_epi8(table, index);
}

#ifdef __AVXVNNI__
#define SIGNED_BIAS 7 /* the sum's shift: 128 */
INLINE vi vi_signed_codes(vi a)
{
    return _mm256_xor_si256(a, _mm256_set1_epi8((char)0x80));
}
INLINE vi dot_unsigned(vi acc, const vi *w, int n, const uint8_t *x)
{
    for (int u = 0; u < n; u++)
        acc = _mm256_dpbusd_avx_epi32(acc, w[u], vi_dup(x + 4 * u));
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
    return _mm256_add_epi32(acc, _mm256_madd_epi16(sums16, _mm256_set1_epi16(1)));
}
INLINE vi dot_u4(vi acc, const vi *w, int n, const uint8_t *x)
{
    vi sum = _mm256_maddubs_epi16(w[0], vi_dup(x));
    for (int u = 1; u < n; u++)
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(w[u], vi_dup(x + 4 * u)));
    return widen(acc, sum);
}
INLINE vi dot_u6(vi acc, const vi *w, int n, const uint8_t *x)
{
    for (int u = 0; u < n; u += 2) {
        vi a = _mm256_maddubs_epi16(w[u], vi_dup(x + 4 * u));
        vi b = _mm256_maddubs_epi16(w[u + 1], vi_dup(x + 4 * u + 4));
        acc = widen(acc, _mm256_add_epi16(a, b));
    }
    return acc;
}
INLINE vi dot_signed(vi acc, const vi *w, int n, const uint8_t *x)
{
    for (int u = 0; u < n; u++) {
        vi size = _mm256_abs_epi8(w[u]);
        acc = widen(acc, _mm256_maddubs_epi16(size, _mm256_sign_epi8(vi_dup(x + 4 * u), w[u])));
    }
    return acc;
}
#endif

INLINE vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
INLINE void vf_store(float *p, vf a)
{
    _mm256_storeu_ps(p, a);
}
INLINE vf vf_set(float x)
{
    return _mm256_set1_ps(x);
}
INLINE vf vf_dup(const void *p)
{
    return _mm256_castsi256_ps(vi_dup(p));
}
INLINE vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}
INLINE vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}
INLINE vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}
INLINE vf vf_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}
INLINE vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
INLINE vf vf_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}
INLINE vf vf_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}
INLINE vf vf_abs(vf a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
INLINE vf vf_of_vi(vi a)
{
    return _mm256_cvtepi32_ps(a);
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
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
INLINE void vf_store_half(uint8_t *p, vf a)
{
    _mm_storeu_si128((__m128i_u *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
