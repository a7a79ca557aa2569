/* The primitives of the kernel templates in plain C: 16 lanes in a struct, loops that a compiler
 * may vectorise. The words for each primitive are in tmpl_quant.h. */
#include <math.h>
#include <string.h>

#define NO_UNROLL
#include "engine/kernels/inline.h"
#include "engine/kernels/quant_ref.h"

#define LANES       16
#define QUANT_TILE  4
#define FLOAT_TILE  4
#define SIGNED_BIAS 0 /* signed codes are multiplied as they are */

typedef struct {
    uint8_t b[64];
} vi;
typedef struct {
    float f[16];
} vf;

#define EACH(i, n) for (int i = 0; i < (n); i++)

INLINE vi vi_load(const void *p)
{
    vi r;
    memcpy(r.b, p, sizeof r.b);
    return r;
}
INLINE vi vi_dup(const void *p)
{
    vi r;
    EACH(i, 16)
    memcpy(r.b + 4 * i, p, 4);
    return r;
}
INLINE void vi_keep(vi *a)
{
    (void)a;
}
INLINE vi vi_zero(void)
{
    return (vi){{0}};
}
INLINE int32_t lane_get(const vi *v, int i)
{
    int32_t x;
    memcpy(&x, v->b + 4 * i, 4);
    return x;
}
INLINE void lane_set(vi *v, int i, int32_t x)
{
    memcpy(v->b + 4 * i, &x, 4);
}
INLINE vi vi_shl(vi a, int n)
{
    vi r;
    EACH(i, 16)
    lane_set(&r, i, (int32_t)((uint32_t)lane_get(&a, i) << n));
    return r;
}
INLINE vi vi_shr_bytes(vi a, int n, uint8_t mask)
{
    vi r;
    EACH(i, 64)
    r.b[i] = (uint8_t)(a.b[i] >> n & mask);
    return r;
}
INLINE vi vi_shl_bytes(vi a, int n, uint8_t mask)
{
    vi r;
    EACH(i, 64)
    r.b[i] = (uint8_t)(a.b[i] << n & mask);
    return r;
}
INLINE vi vi_or(vi a, vi b)
{
    EACH(i, 64)
    a.b[i] |= b.b[i];
    return a;
}
INLINE vi vi_add_bytes(vi a, vi b)
{
    EACH(i, 64)
    a.b[i] = (uint8_t)(a.b[i] + b.b[i]);
    return a;
}
/* 3 (b + 128) / 256 of each signed byte: 0, 1 or 2. */
INLINE vi vi_thirds(vi a)
{
    EACH(i, 64)
    a.b[i] = (uint8_t)((a.b[i] ^ 0x80) * 3 >> 8);
    return a;
}
INLINE vi vi_add(vi a, vi b)
{
    vi r;
    EACH(i, 16)
    lane_set(&r, i, (int32_t)((uint32_t)lane_get(&a, i) + (uint32_t)lane_get(&b, i)));
    return r;
}
INLINE vi vi_u8(const uint8_t *p)
{
    vi r;
    EACH(i, 16)
    lane_set(&r, i, p[i]);
    return r;
}
INLINE vi vi_s8(const uint8_t *p)
{
    vi r;
    EACH(i, 16)
    lane_set(&r, i, (int8_t)p[i]);
    return r;
}
INLINE vi vi_table(const int8_t codes[16])
{
    vi r;
    EACH(i, 64)
    r.b[i] = (uint8_t)codes[i % 16];
    return r;
}
INLINE vi vi_lookup(vi table, vi index)
{
    vi r;
    EACH(i, 64)
    r.b[i] = table.b[index.b[i] & 15];
    return r;
}
INLINE vi vi_signed_codes(vi a)
{
    return a;
}
INLINE vi dot_signed(vi acc, const vi *w, int n, const uint8_t *x)
{
    EACH(i, 16)
    {
        int32_t sum = lane_get(&acc, i);
        EACH(u, n)
        EACH(j, 4)
        sum += (int8_t)w[u].b[4 * i + j] * (int8_t)x[4 * u + j];
        lane_set(&acc, i, sum);
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

INLINE vf vf_load(const float *p)
{
    vf r;
    memcpy(r.f, p, sizeof r.f);
    return r;
}
INLINE void vf_store(float *p, vf a)
{
    memcpy(p, a.f, sizeof a.f);
}
INLINE vf vf_set(float x)
{
    vf r;
    EACH(i, 16)
    r.f[i] = x;
    return r;
}
INLINE vf vf_dup(const void *p)
{
    float x;
    memcpy(&x, p, 4);
    return vf_set(x);
}
INLINE vf vf_add(vf a, vf b)
{
    EACH(i, 16)
    a.f[i] += b.f[i];
    return a;
}
INLINE vf vf_sub(vf a, vf b)
{
    EACH(i, 16)
    a.f[i] -= b.f[i];
    return a;
}
INLINE vf vf_mul(vf a, vf b)
{
    EACH(i, 16)
    a.f[i] *= b.f[i];
    return a;
}
INLINE vf vf_div(vf a, vf b)
{
    EACH(i, 16)
    a.f[i] /= b.f[i];
    return a;
}
/* Rounded twice: a fused one would be a library call per lane here. */
INLINE vf vf_fma(vf a, vf b, vf c)
{
    EACH(i, 16)
    a.f[i] = a.f[i] * b.f[i] + c.f[i];
    return a;
}
INLINE vf vf_max(vf a, vf b)
{
    EACH(i, 16)
    a.f[i] = a.f[i] > b.f[i] ? a.f[i] : b.f[i];
    return a;
}
INLINE vf vf_min(vf a, vf b)
{
    EACH(i, 16)
    a.f[i] = a.f[i] < b.f[i] ? a.f[i] : b.f[i];
    return a;
}
INLINE vf vf_abs(vf a)
{
    EACH(i, 16)
    a.f[i] = fabsf(a.f[i]);
    return a;
}
INLINE vf vf_of_vi(vi a)
{
    vf r;
    EACH(i, 16)
    r.f[i] = (float)lane_get(&a, i);
    return r;
}
INLINE vi vi_of_bits(vf a)
{
    vi r;
    memcpy(r.b, a.f, sizeof r.b);
    return r;
}
INLINE vf vf_of_bits(vi a)
{
    vf r;
    memcpy(r.f, a.b, sizeof r.f);
    return r;
}
INLINE vi vi_sar(vi a, int n)
{
    vi r;
    EACH(i, 16)
    lane_set(&r, i, lane_get(&a, i) >> n);
    return r;
}
INLINE vi vi_set(int32_t x)
{
    return vi_dup(&x);
}
INLINE vi vi_sub(vi a, vi b)
{
    vi r;
    EACH(i, 16)
    lane_set(&r, i, (int32_t)((uint32_t)lane_get(&a, i) - (uint32_t)lane_get(&b, i)));
    return r;
}
INLINE vf vf_half(const uint8_t *p)
{
    vf r;
    EACH(i, 16)
    r.f[i] = load_half(p + 2 * i);
    return r;
}
INLINE vf vf_bfloat(const uint8_t *p)
{
    vf r;
    EACH(i, 16)
    r.f[i] = bfloat_to_float(load_u16(p + 2 * i));
    return r;
}
/* The low bytes of the lanes. */
INLINE void vi_store_bytes(uint8_t *p, vi a)
{
    EACH(i, 16)
    p[i] = a.b[4 * i];
}

/* Over the lanes. */
INLINE float vf_largest(vf a)
{
    for (int step = 8; step > 0; step /= 2) {
        EACH(i, step)
        a.f[i] = a.f[i] > a.f[i + step] ? a.f[i] : a.f[i + step];
    }
    return a.f[0];
}
INLINE uint32_t vi_sum(vi a)
{
    uint32_t sum = 0;
    EACH(i, 16)
    sum += (uint32_t)lane_get(&a, i);
    return sum;
}

/* ---- for tmpl_attention.h */

#define ATTEND_BLOCK 4
#define ATTEND_SUMS  8

/* The halves added, then their halves, down to one. */
INLINE float vf_fold_sum(vf a)
{
    for (int step = 8; step > 0; step /= 2) {
        EACH(i, step)
        a.f[i] += a.f[i + step];
    }
    return a.f[0];
}
INLINE void vf_store_half(uint8_t *p, vf a)
{
    EACH(i, 16)
    {
        uint16_t half = float_to_half(a.f[i]);
        memcpy(p + 2 * i, &half, 2);
    }
}
#undef EACH
