/* Products of quantised weights with int8 activations, written once over a few primitives.
 *
 * A file of an instruction set includes its simd_*.h (LANES lanes of 32 bits: vi, vf and what can
 * be done with them) and then this. Each type is one function that, for LANES rows of a group and
 * nt rows of x, walks the blocks: unpack the codes of 32 columns into 8 registers (register u holds
 * columns 4u…4u+3 of every lane's row), multiply them with every x row of the tile, scale, add. nt
 * is a constant wherever it is inlined, so a tile lives in registers; the arithmetic of an output
 * is the same for every nt.
 *
 * With s the block's scale, d the activations' and codes c = w + bias: y += d · s · (Σ c·q − bias ·
 * Σ q), the bracket in exact integers; types with minima also add −min · d · Σ q.
 *
 * The primitives: dot_u4/dot_u6/dot_signed(acc, w, n, x) add to each lane Σ over n registers of 4
 * products with the 4 n bytes at x; codes ≤ 15, codes ≤ 63, and signed ones that went through
 * vi_signed_codes and need bias 2^SIGNED_BIAS (none where it is 0). */
#include "engine/kernels/inline.h"
#include "engine/kernels/table.h"

/* ------------------------------------------------ the record of a tile (table.h) */

INLINE const uint8_t *act_codes(const uint8_t *rec, int t)
{
    return rec + ACT_BLOCK * t;
}

INLINE vf act_scale(const uint8_t *rec, int nt, int t)
{
    return vf_dup(rec + ACT_BLOCK * nt + 4 * t);
}

/* −Σ q · 2^shift; part 0: all 32, 1: the first 16, 2: the last 16. */
INLINE vi act_bias(const uint8_t *rec, int nt, int t, int part, int shift)
{
    return vi_shl(vi_dup(rec + (ACT_BLOCK + 4 + 4 * part) * nt + 4 * t), shift);
}

INLINE vf act_scaled_sum(const uint8_t *rec, int nt, int t)
{
    return vf_dup(rec + (ACT_BLOCK + 16) * nt + 4 * t);
}

/* ------------------------------------------------ 32 columns with one scale */

INLINE void add_u4(vf *acc, int nt, const vi c[8], vf scale, int bias, const uint8_t *rec)
{
    UNROLL for (int t = 0; t < nt; t++)
    {
        vi start = bias < 0 ? vi_zero() : act_bias(rec, nt, t, 0, bias);
        vf sum = vf_mul(vf_of_vi(dot_u4(start, c, 8, act_codes(rec, t))), scale);
        acc[t] = vf_fma(sum, act_scale(rec, nt, t), acc[t]);
    }
}

INLINE void add_signed(vf *acc, int nt, const vi c[8], vf scale, const uint8_t *rec)
{
    UNROLL for (int t = 0; t < nt; t++)
    {
        vi start = SIGNED_BIAS == 0 ? vi_zero() : act_bias(rec, nt, t, 0, SIGNED_BIAS);
        vf sum = vf_mul(vf_of_vi(dot_signed(start, c, 8, act_codes(rec, t))), scale);
        acc[t] = vf_fma(sum, act_scale(rec, nt, t), acc[t]);
    }
}

INLINE void add_minimum(vf *acc, int nt, vf minus_min, const uint8_t *rec)
{
    UNROLL for (int t = 0; t < nt; t++) acc[t] =
        vf_fma(minus_min, act_scaled_sum(rec, nt, t), acc[t]);
}

/* 32 columns whose halves have scales of their own, codes ≤ 63 with a bias of 32. */
INLINE void add_u6(vf *acc, int nt, const vi c[8], vf scale_low, vf scale_high, const uint8_t *rec)
{
    UNROLL for (int t = 0; t < nt; t++)
    {
        const uint8_t *q = act_codes(rec, t);
        vf low = vf_of_vi(dot_u6(act_bias(rec, nt, t, 1, 5), c, 4, q));
        vf high = vf_of_vi(dot_u6(act_bias(rec, nt, t, 2, 5), c + 4, 4, q + 16));
        vf sum = vf_fma(high, scale_high, vf_mul(low, scale_low));
        acc[t] = vf_fma(sum, act_scale(rec, nt, t), acc[t]);
    }
}

/* ------------------------------------------------ types */

/* Registers 0…3 and 4…7 of 32 columns from 16 bytes of nibbles a row. */
INLINE void split_nibbles(vi c[8], const uint8_t *q)
{
    UNROLL for (int u = 0; u < 4; u++)
    {
        vi raw = vi_load(q + 64 * u);
        c[u] = vi_shr_bytes(raw, 0, 15);
        c[u + 4] = vi_shr_bytes(raw, 4, 15);
    }
}

INLINE void tile_q4_0(const uint8_t *w, size_t n_cols, const uint8_t *rec, int nt, int sub, vf *acc)
{
    size_t n_blocks = n_cols / 32;
    const uint8_t *d = w + (size_t)sub * LANES * 2;
    const uint8_t *q = w + n_blocks * 32 + (size_t)sub * LANES * 4;
    for (size_t b = 0; b < n_blocks; b++, d += 32, q += 256, rec += ACT_BYTES * nt) {
        vi c[8];
        split_nibbles(c, q);
        add_u4(acc, nt, c, vf_half(d), 3, rec);
    }
}

INLINE void tile_q8_0(const uint8_t *w, size_t n_cols, const uint8_t *rec, int nt, int sub, vf *acc)
{
    size_t n_blocks = n_cols / 32;
    const uint8_t *d = w + (size_t)sub * LANES * 2;
    const uint8_t *q = w + n_blocks * 32 + (size_t)sub * LANES * 4;
    for (size_t b = 0; b < n_blocks; b++, d += 32, q += 512, rec += ACT_BYTES * nt) {
        vi c[8];
        UNROLL for (int u = 0; u < 8; u++) c[u] = vi_signed_codes(vi_load(q + 64 * u));
        add_signed(acc, nt, c, vf_half(d), rec);
    }
}

/* Scale and minimum j of 8, 6 bits each in 12 bytes a row. */
INLINE void unpack_scale_min(const uint8_t *s, int j, vi *scale, vi *min)
{
    if (j < 4) {
        *scale = vi_shr_bytes(vi_u8(s + 16 * j), 0, 63);
        *min = vi_shr_bytes(vi_u8(s + 16 * (j + 4)), 0, 63);
        return;
    }
    vi both = vi_u8(s + 16 * (j + 4));
    *scale = vi_or(vi_shr_bytes(both, 0, 15),
                   vi_shl_bytes(vi_shr_bytes(vi_u8(s + 16 * (j - 4)), 6, 3), 4, 0x30));
    *min = vi_or(vi_shr_bytes(both, 4, 15),
                 vi_shl_bytes(vi_shr_bytes(vi_u8(s + 16 * j), 6, 3), 4, 0x30));
}

INLINE void tile_q4_k(const uint8_t *w, size_t n_cols, const uint8_t *rec, int nt, int sub, vf *acc)
{
    size_t n_blocks = n_cols / 256;
    const uint8_t *d = w + (size_t)sub * LANES * 2, *min = d + n_blocks * 32;
    const uint8_t *s = w + n_blocks * 64 + (size_t)sub * LANES;
    const uint8_t *q = w + n_blocks * 256 + (size_t)sub * LANES * 4;
    for (size_t b = 0; b < n_blocks; b++, d += 32, min += 32, s += 192, q += 2048) {
        vf vd = vf_half(d), vmin = vf_sub(vf_set(0.0f), vf_half(min));
        for (int pair = 0; pair < 4; pair++) {
            vi low[8], high[8], scale, m;
            UNROLL for (int u = 0; u < 8; u++)
            {
                vi raw = vi_load(q + 512 * pair + 64 * u);
                low[u] = vi_shr_bytes(raw, 0, 15);
                high[u] = vi_shr_bytes(raw, 4, 15);
            }
            unpack_scale_min(s, 2 * pair, &scale, &m);
            add_u4(acc, nt, low, vf_mul(vd, vf_of_vi(scale)), -1, rec);
            add_minimum(acc, nt, vf_mul(vmin, vf_of_vi(m)), rec);
            rec += ACT_BYTES * nt;
            unpack_scale_min(s, 2 * pair + 1, &scale, &m);
            add_u4(acc, nt, high, vf_mul(vd, vf_of_vi(scale)), -1, rec);
            add_minimum(acc, nt, vf_mul(vmin, vf_of_vi(m)), rec);
            rec += ACT_BYTES * nt;
        }
    }
}

INLINE void tile_q6_k(const uint8_t *w, size_t n_cols, const uint8_t *rec, int nt, int sub, vf *acc)
{
    size_t n_blocks = n_cols / 256;
    const uint8_t *ql = w + (size_t)sub * LANES * 4, *qh = ql + n_blocks * 2048;
    const uint8_t *s = w + n_blocks * 3072 + (size_t)sub * LANES;
    const uint8_t *d = w + n_blocks * 3328 + (size_t)sub * LANES * 2;
    for (size_t b = 0; b < n_blocks; b++, ql += 2048, qh += 1024, s += 256, d += 32) {
        vf vd = vf_half(d);
        UNROLL for (int part = 0; part < 8; part++)
        {
            int half = part / 4, plane = part % 4;
            vi c[8];
            UNROLL for (int u = 0; u < 8; u++)
            {
                vi high = vi_load(qh + 512 * half + 64 * u);
                vi low = vi_load(ql + 1024 * half + 512 * (plane % 2) + 64 * u);
                vi top = plane < 2 ? vi_shl_bytes(high, 4 - 2 * plane, 0x30)
                                   : vi_shr_bytes(high, 2 * plane - 4, 0x30);
                c[u] = vi_or(vi_shr_bytes(low, 4 * (plane / 2), 15), top);
            }
            vf first = vf_mul(vd, vf_of_vi(vi_s8(s + 16 * (2 * part))));
            vf second = vf_mul(vd, vf_of_vi(vi_s8(s + 16 * (2 * part + 1))));
            add_u6(acc, nt, c, first, second, rec);
            rec += ACT_BYTES * nt;
        }
    }
}

/* ------------------------------------------------ whole groups */

/* Runs `tile` with nt as a constant and stores its lanes. */
#define TILE_CASE(tile, count)                                                                     \
    case count: {                                                                                  \
        vf acc[count];                                                                             \
        UNROLL for (int t = 0; t < (count); t++) acc[t] = vf_set(0.0f);                            \
        tile(group, n_cols, rec, count, sub, acc);                                                 \
        UNROLL for (int t = 0; t < (count); t++) vf_store(out + (size_t)t * ldy, acc[t]);          \
        break;                                                                                     \
    }
#if QUANT_TILE >= 16
#define LARGE_TILES(tile) TILE_CASE(tile, 16) TILE_CASE(tile, 8)
#elif QUANT_TILE >= 8
#define LARGE_TILES(tile) TILE_CASE(tile, 8)
#else
#define LARGE_TILES(tile)
#endif

#define QUANT_PANEL(name, type_bytes, type_values)                                                 \
    static __attribute__((noinline)) void tiles_##name(const uint8_t *group, size_t n_cols,        \
                                                       const uint8_t *rec, size_t nt, int sub,     \
                                                       float *out, size_t ldy)                     \
    {                                                                                              \
        switch (nt) {                                                                              \
            LARGE_TILES(tile_##name)                                                               \
            TILE_CASE(tile_##name, 4)                                                              \
            TILE_CASE(tile_##name, 2)                                                              \
        default:                                                                                   \
            TILE_CASE(tile_##name, 1)                                                              \
        }                                                                                          \
    }                                                                                              \
    static void panel_##name(const uint8_t *weights, size_t n_groups, size_t n_cols,               \
                             const void *acts, size_t n, float *y, size_t ldy)                     \
    {                                                                                              \
        quant_panel(tiles_##name, weights, n_groups, n_cols / (type_values) * (type_bytes),        \
                    n_cols, acts, n, y, ldy);                                                      \
    }

typedef void tiles_of_group(const uint8_t *group, size_t n_cols, const uint8_t *rec, size_t nt,
                            int sub, float *out, size_t ldy);

static void quant_panel(tiles_of_group *tiles, const uint8_t *weights, size_t n_groups,
                        size_t row_bytes, size_t n_cols, const uint8_t *acts, size_t n, float *y,
                        size_t ldy)
{
    size_t rec_row_bytes = n_cols / ACT_BLOCK * ACT_BYTES;
    for (size_t g = 0; g < n_groups; g++, weights += GROUP_ROWS * row_bytes) {
        size_t nt;
        for (size_t r = 0; r < n; r += nt) {
            nt = tile_rows(n - r, QUANT_TILE);
            float *out = y + r * ldy + g * GROUP_ROWS;
            for (int sub = 0; sub < GROUP_ROWS / LANES; sub++)
                tiles(weights, n_cols, acts + r * rec_row_bytes, nt, sub, out + sub * LANES, ldy);
        }
    }
}

QUANT_PANEL(q4_0, 18, 32)
QUANT_PANEL(q8_0, 34, 32)
QUANT_PANEL(q4_k, 144, 256)
QUANT_PANEL(q6_k, 210, 256)

/* ------------------------------------------------ activations */

/* Rounds to the nearest integer, ties to even, for |x| < 2^22. */
INLINE vi vi_round(vf x)
{
    vf magic = vf_set(12582912.0f);
    return vi_sub(vi_of_bits(vf_add(x, magic)), vi_of_bits(magic));
}

/* One row and 32 columns into place t of the record. */
static void quantize_block(const float *x, uint8_t *rec, size_t nt, size_t t)
{
    vf v[ACT_BLOCK / LANES], most = vf_set(0.0f);
    float lanes[LANES], largest = 0.0f;
    for (int i = 0; i < ACT_BLOCK / LANES; i++) {
        v[i] = vf_load(x + i * LANES);
        most = vf_max(most, vf_abs(v[i]));
    }
    vf_store(lanes, most);
    for (int i = 0; i < LANES; i++)
        largest = lanes[i] > largest ? lanes[i] : largest;
    float scale = largest / 127.0f;
    float inverse = largest > 0x1p-120f ? 127.0f / largest : 0.0f;
    uint8_t *q = rec + ACT_BLOCK * t;
    for (int i = 0; i < ACT_BLOCK / LANES; i++)
        vi_store_bytes(q + i * LANES, vi_round(vf_mul(v[i], vf_set(inverse))));
    int32_t low = 0, high = 0;
    for (int i = 0; i < 16; i++) {
        low += (int8_t)q[i];
        high += (int8_t)q[i + 16];
    }
    int32_t all = -(low + high);
    float scaled = scale * (float)(low + high);
    low = -low;
    high = -high;
    uint8_t *tail = rec + ACT_BLOCK * nt + 4 * t;
    memcpy(tail, &scale, 4);
    memcpy(tail + 4 * nt, &all, 4);
    memcpy(tail + 8 * nt, &low, 4);
    memcpy(tail + 12 * nt, &high, 4);
    memcpy(tail + 16 * nt, &scaled, 4);
}

static void quantize(const float *x, size_t ldx, size_t nt, size_t n_cols, uint8_t *out)
{
    for (size_t b = 0; b < n_cols / ACT_BLOCK; b++, out += ACT_BYTES * nt)
        for (size_t t = 0; t < nt; t++)
            quantize_block(x + t * ldx + b * ACT_BLOCK, out, nt, t);
}
