/* What AVX2 and AVX-512 have in common: intrinsics that differ in the width in their names only.
 * Included by simd_avx2.h and simd_avx512.h once they have their registers (vi, vf), the names
 * (MM(op), VI(op)), vi_with_sign and, where the instruction set has it, DPBUSD(acc, w, x)
 * with the four bytes at x for all lanes.
 *
 * VPMADDUBSW adds two products in 16 bits with saturation. Codes of 4 bits leave room for the sums
 * of a whole block (8 · 2 · 15 · 128 = 30,720), codes of 6 bits for two (2 · 2 · 63 · 128 =
 * 32,256), codes of 7 for none, so only then are they widened. Signed codes go in as |w| and x ·
 * sign(w): at most 2 · 128 · 127, which fits. VPDPBUSD adds four products in 32 bits; its first
 * factor is unsigned, so signed codes get 128 added (their top bit flipped), which the sum of x
 * takes off again through SIGNED_BIAS. */

INLINE vi vi_load(const void *p)
{
    return VI(loadu)(p);
}
INLINE vi vi_dup(const void *p)
{
    int32_t x;
    memcpy(&x, p, 4);
    return MM(set1_epi32)(x);
}
INLINE vi vi_set(int32_t x)
{
    return MM(set1_epi32)(x);
}
INLINE vi vi_zero(void)
{
    return VI(setzero)();
}
INLINE void vi_keep(vi *a)
{
    __asm__ volatile("" : "+v"(*a));
}
INLINE vi vi_or(vi a, vi b)
{
    return VI(or)(a, b);
}
INLINE vi vi_add(vi a, vi b)
{
    return MM(add_epi32)(a, b);
}
INLINE vi vi_add_bytes(vi a, vi b)
{
    return MM(add_epi8)(a, b);
}
INLINE vi vi_sub(vi a, vi b)
{
    return MM(sub_epi32)(a, b);
}
INLINE vi vi_lookup(vi table, vi index)
{
    return MM(shuffle_epi8)(table, index);
}

#ifdef DPBUSD
#define SIGNED_BIAS 7 /* the sum's shift: 128 */
INLINE vi vi_signed_codes(vi a)
{
    return VI(xor)(a, MM(set1_epi8)((char)0x80));
}
INLINE vi dot_unsigned(vi acc, const vi *w, int n, const uint8_t *x)
{
    for (int u = 0; u < n; u++)
        acc = DPBUSD(acc, w[u], x + 4 * u);
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
INLINE vi dot_u7(vi acc, const vi *w, int n, const uint8_t *x)
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
    return MM(add_epi32)(acc, MM(madd_epi16)(sums16, MM(set1_epi16)(1)));
}
INLINE vi dot_u4(vi acc, const vi *w, int n, const uint8_t *x)
{
    vi sum = MM(maddubs_epi16)(w[0], vi_dup(x));
    for (int u = 1; u < n; u++)
        sum = MM(add_epi16)(sum, MM(maddubs_epi16)(w[u], vi_dup(x + 4 * u)));
    return widen(acc, sum);
}
INLINE vi dot_u6(vi acc, const vi *w, int n, const uint8_t *x)
{
    for (int u = 0; u < n; u += 2) {
        vi a = MM(maddubs_epi16)(w[u], vi_dup(x + 4 * u));
        vi b = MM(maddubs_epi16)(w[u + 1], vi_dup(x + 4 * u + 4));
        acc = widen(acc, MM(add_epi16)(a, b));
    }
    return acc;
}
INLINE vi dot_u7(vi acc, const vi *w, int n, const uint8_t *x)
{
    for (int u = 0; u < n; u++)
        acc = widen(acc, MM(maddubs_epi16)(w[u], vi_dup(x + 4 * u)));
    return acc;
}
INLINE vi dot_signed(vi acc, const vi *w, int n, const uint8_t *x)
{
    for (int u = 0; u < n; u++) {
        vi size = MM(abs_epi8)(w[u]);
        acc = widen(acc, MM(maddubs_epi16)(size, vi_with_sign(vi_dup(x + 4 * u), w[u])));
    }
    return acc;
}
#endif

INLINE vf vf_load(const float *p)
{
    return MM(loadu_ps)(p);
}
INLINE void vf_store(float *p, vf a)
{
    MM(storeu_ps)(p, a);
}
INLINE vf vf_set(float x)
{
    return MM(set1_ps)(x);
}
INLINE vf vf_add(vf a, vf b)
{
    return MM(add_ps)(a, b);
}
INLINE vf vf_sub(vf a, vf b)
{
    return MM(sub_ps)(a, b);
}
INLINE vf vf_mul(vf a, vf b)
{
    return MM(mul_ps)(a, b);
}
INLINE vf vf_div(vf a, vf b)
{
    return MM(div_ps)(a, b);
}
INLINE vf vf_fma(vf a, vf b, vf c)
{
    return MM(fmadd_ps)(a, b, c);
}
INLINE vf vf_max(vf a, vf b)
{
    return MM(max_ps)(a, b);
}
INLINE vf vf_min(vf a, vf b)
{
    return MM(min_ps)(a, b);
}
INLINE vf vf_of_vi(vi a)
{
    return MM(cvtepi32_ps)(a);
}

/* The halves of four added, then the rest. */
INLINE float sum_of_four(__m128 a)
{
    a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
}
