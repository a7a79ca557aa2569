/* The primitives of the kernel templates for NEON: 8 lanes in two q registers, so that an x row's
 * scale serves more sums. With dotprod a dot product is SDOT, where codes and x are both signed;
 * codes of up to 7 bits are small enough to be read as signed. Without it, widening multiplies and
 * pairwise adds. With i8mm, two rows of x at once. */
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "engine/kernels/inline.h"
#include "engine/kernels/quant_ref.h"

#define LANES       8
#define QUANT_TILE  4
#define FLOAT_TILE  6
#define SIGNED_BIAS 0

typedef struct {
    int32x4_t a, b;
} vi;
typedef struct {
    float32x4_t a, b;
} vf;

#define BYTES(v)  vreinterpretq_s8_s32(v)
#define UBYTES(v) vreinterpretq_u8_s32(v)
#define WORDS(v)  vreinterpretq_s32_s8(v)
#define UWORDS(v) vreinterpretq_s32_u8(v)
#define FLOATS(v) vreinterpretq_f32_s32(v)
#define PAIR(t, x, y)                                                                              \
    (t)                                                                                            \
    {                                                                                              \
        x, y                                                                                       \
    }

INLINE vi vi_load(const void *p)
{
    const uint8_t *bytes = p;
    return PAIR(vi, UWORDS(vld1q_u8(bytes)), UWORDS(vld1q_u8(bytes + 16)));
}
INLINE vi vi_set(int32_t x)
{
    return PAIR(vi, vdupq_n_s32(x), vdupq_n_s32(x));
}
INLINE vi vi_dup(const void *p)
{
    int32_t x;
    memcpy(&x, p, 4);
    return vi_set(x);
}
INLINE void vi_keep(vi *v)
{
    __asm__ volatile("" : "+w"(v->a), "+w"(v->b));
}
INLINE vi vi_zero(void)
{
    return vi_set(0);
}
INLINE vi vi_shl(vi v, int n)
{
    int32x4_t count = vdupq_n_s32(n);
    return PAIR(vi, vshlq_s32(v.a, count), vshlq_s32(v.b, count));
}
INLINE vi vi_sar(vi v, int n)
{
    return vi_shl(v, -n);
}
INLINE int32x4_t shift_bytes(int32x4_t v, int n, uint8_t mask)
{
    return UWORDS(vandq_u8(vshlq_u8(UBYTES(v), vdupq_n_s8((int8_t)n)), vdupq_n_u8(mask)));
}
INLINE vi vi_shr_bytes(vi v, int n, uint8_t mask)
{
    return PAIR(vi, shift_bytes(v.a, -n, mask), shift_bytes(v.b, -n, mask));
}
INLINE vi vi_shl_bytes(vi v, int n, uint8_t mask)
{
    return PAIR(vi, shift_bytes(v.a, n, mask), shift_bytes(v.b, n, mask));
}
INLINE vi vi_or(vi x, vi y)
{
    return PAIR(vi, vorrq_s32(x.a, y.a), vorrq_s32(x.b, y.b));
}
INLINE vi vi_add(vi x, vi y)
{
    return PAIR(vi, vaddq_s32(x.a, y.a), vaddq_s32(x.b, y.b));
}
INLINE vi vi_add_bytes(vi x, vi y)
{
    return PAIR(vi, WORDS(vaddq_s8(BYTES(x.a), BYTES(y.a))),
                WORDS(vaddq_s8(BYTES(x.b), BYTES(y.b))));
}
INLINE int32x4_t thirds(int32x4_t v)
{
    uint8x16_t some = vcgtq_s8(BYTES(v), vdupq_n_s8(-43)), two = vcgtq_s8(BYTES(v), vdupq_n_s8(42));
    return UWORDS(vsubq_u8(vsubq_u8(vdupq_n_u8(0), some), two));
}
/* 3 (b + 128) / 256 of each signed byte: 0, 1 or 2. */
INLINE vi vi_thirds(vi v)
{
    return PAIR(vi, thirds(v.a), thirds(v.b));
}
INLINE vi vi_sub(vi x, vi y)
{
    return PAIR(vi, vsubq_s32(x.a, y.a), vsubq_s32(x.b, y.b));
}
INLINE vi vi_u8(const uint8_t *p)
{
    uint16x8_t wide = vmovl_u8(vld1_u8(p));
    return PAIR(vi, vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(wide))),
                vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(wide))));
}
INLINE vi vi_s8(const uint8_t *p)
{
    int16x8_t wide = vmovl_s8(vreinterpret_s8_u8(vld1_u8(p)));
    return PAIR(vi, vmovl_s16(vget_low_s16(wide)), vmovl_s16(vget_high_s16(wide)));
}
INLINE vi vi_table(const int8_t codes[16])
{
    int32x4_t table = WORDS(vld1q_s8(codes));
    return PAIR(vi, table, table);
}
INLINE vi vi_lookup(vi table, vi index)
{
    return PAIR(vi, WORDS(vqtbl1q_s8(BYTES(table.a), UBYTES(index.a))),
                WORDS(vqtbl1q_s8(BYTES(table.b), UBYTES(index.b))));
}
INLINE vi vi_signed_codes(vi v)
{
    return v;
}
INLINE int32x4_t dot_step(int32x4_t sum, int32x4_t w, int32x4_t x)
{
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(sum, BYTES(w), BYTES(x));
#else
    int16x8_t low = vmull_s8(vget_low_s8(BYTES(w)), vget_low_s8(BYTES(x)));
    int16x8_t high = vmull_s8(vget_high_s8(BYTES(w)), vget_high_s8(BYTES(x)));
    return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#endif
}
INLINE vi dot_signed(vi acc, const vi *w, int n, const uint8_t *x)
{
    for (int u = 0; u < n; u++) {
        vi dup = vi_dup(x + 4 * u);
        acc.a = dot_step(acc.a, w[u].a, dup.a);
        acc.b = dot_step(acc.b, w[u].b, dup.b);
    }
    return acc;
}
INLINE vi dot_u4(vi acc, const vi *w, int n, const uint8_t *x)
{
    return dot_signed(acc, w, n, x);
}
INLINE vi dot_u6(vi acc, const vi *w, int n, const uint8_t *x)
{
    return dot_signed(acc, w, n, x);
}
INLINE vi dot_u7(vi acc, const vi *w, int n, const uint8_t *x)
{
    return dot_signed(acc, w, n, x);
}

#ifdef __ARM_FEATURE_MATMUL_INT8
/* SMMLA: two rows of 8 columns by two rows of x, four sums. Registers u and u + 1 zipped are two
 * rows with 8 columns each; the sums of a row of x are every other one of what comes out. */
#define DOT_PAIR
INLINE void pair_step(int32x4_t sum[2], int32x4_t w0, int32x4_t w1, int8x16_t x)
{
    sum[0] = vmmlaq_s32(sum[0], BYTES(vzip1q_s32(w0, w1)), x);
    sum[1] = vmmlaq_s32(sum[1], BYTES(vzip2q_s32(w0, w1)), x);
}
INLINE void dot_pair(vi sum[2], const vi *w, int n, const uint8_t *x0, const uint8_t *x1)
{
    int32x4_t a[2] = {vzip1q_s32(sum[0].a, sum[1].a), vzip2q_s32(sum[0].a, sum[1].a)};
    int32x4_t b[2] = {vzip1q_s32(sum[0].b, sum[1].b), vzip2q_s32(sum[0].b, sum[1].b)};
    for (int u = 0; u < n; u += 2) {
        int8x16_t x = vreinterpretq_s8_u8(vcombine_u8(vld1_u8(x0 + 4 * u), vld1_u8(x1 + 4 * u)));
        pair_step(a, w[u].a, w[u + 1].a, x);
        pair_step(b, w[u].b, w[u + 1].b, x);
    }
    sum[0] = PAIR(vi, vuzp1q_s32(a[0], a[1]), vuzp1q_s32(b[0], b[1]));
    sum[1] = PAIR(vi, vuzp2q_s32(a[0], a[1]), vuzp2q_s32(b[0], b[1]));
}
#endif

INLINE vf vf_load(const float *p)
{
    return PAIR(vf, vld1q_f32(p), vld1q_f32(p + 4));
}
INLINE void vf_store(float *p, vf v)
{
    vst1q_f32(p, v.a);
    vst1q_f32(p + 4, v.b);
}
INLINE vf vf_set(float x)
{
    return PAIR(vf, vdupq_n_f32(x), vdupq_n_f32(x));
}
INLINE vf vf_dup(const void *p)
{
    float x;
    memcpy(&x, p, 4);
    return vf_set(x);
}
INLINE vf vf_add(vf x, vf y)
{
    return PAIR(vf, vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b));
}
INLINE vf vf_sub(vf x, vf y)
{
    return PAIR(vf, vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b));
}
INLINE vf vf_mul(vf x, vf y)
{
    return PAIR(vf, vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b));
}
INLINE vf vf_div(vf x, vf y)
{
    return PAIR(vf, vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b));
}
INLINE vf vf_fma(vf x, vf y, vf z)
{
    return PAIR(vf, vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b));
}
/* As on x86, the second argument where either is no number. */
INLINE vf vf_max(vf x, vf y)
{
    return PAIR(vf, vbslq_f32(vcgtq_f32(x.a, y.a), x.a, y.a),
                vbslq_f32(vcgtq_f32(x.b, y.b), x.b, y.b));
}
INLINE vf vf_min(vf x, vf y)
{
    return PAIR(vf, vbslq_f32(vcltq_f32(x.a, y.a), x.a, y.a),
                vbslq_f32(vcltq_f32(x.b, y.b), x.b, y.b));
}
INLINE vf vf_abs(vf x)
{
    return PAIR(vf, vabsq_f32(x.a), vabsq_f32(x.b));
}
INLINE vf vf_of_vi(vi v)
{
    return PAIR(vf, vcvtq_f32_s32(v.a), vcvtq_f32_s32(v.b));
}
INLINE vi vi_of_bits(vf v)
{
    return PAIR(vi, vreinterpretq_s32_f32(v.a), vreinterpretq_s32_f32(v.b));
}
INLINE vf vf_of_bits(vi v)
{
    return PAIR(vf, FLOATS(v.a), FLOATS(v.b));
}
INLINE vf vf_half(const uint8_t *p)
{
    float16x8_t h = vreinterpretq_f16_u8(vld1q_u8(p));
    return PAIR(vf, vcvt_f32_f16(vget_low_f16(h)), vcvt_f32_f16(vget_high_f16(h)));
}
INLINE vf vf_bfloat(const uint8_t *p)
{
    uint16x8_t h = vreinterpretq_u16_u8(vld1q_u8(p));
    return PAIR(vf, vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(h), 16)),
                vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(h), 16)));
}
INLINE void vi_store_bytes(uint8_t *p, vi v)
{
    int16x8_t narrow = vcombine_s16(vqmovn_s32(v.a), vqmovn_s32(v.b));
    vst1_s8((int8_t *)p, vqmovn_s16(narrow));
}

/* Over the lanes. */
INLINE float vf_largest(vf v)
{
    return vmaxvq_f32(vmaxq_f32(v.a, v.b));
}
INLINE uint32_t vi_sum(vi v)
{
    return (uint32_t)vaddvq_s32(vaddq_s32(v.a, v.b));
}

/* ---- for tmpl_attention.h */

#define ATTEND_BLOCK 4 /* queries that share a load */
#define ATTEND_SUMS  8 /* pairs of registers of sums */

/* The halves added, then their halves, down to one. */
INLINE float vf_fold_sum(vf v)
{
    float32x4_t all = vaddq_f32(v.a, v.b);
    float32x2_t half = vadd_f32(vget_low_f32(all), vget_high_f32(all));
    return vget_lane_f32(vpadd_f32(half, half), 0);
}
INLINE void vf_store_half(uint8_t *p, vf v)
{
    float16x8_t h = vcombine_f16(vcvt_f16_f32(v.a), vcvt_f16_f32(v.b));
    vst1q_u8(p, vreinterpretq_u8_f16(h));
}
