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

/* Where a tile's weights are: groups `stride` bytes apart; `sub` is the first of the LANES rows. */
struct panel {
    const uint8_t *weights;
    size_t stride, n_cols, sub;
};

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

/* Weights that are read once come from memory: ask for what will be needed a microsecond from now,
 * into the second-level cache (the first has too few places for lines on their way). Behind a
 * group's last block lies the next group. */
INLINE void fetch_ahead(const uint8_t *q, int n_lines, int nt)
{
    enum { AHEAD_BYTES = 1024 };
    if (nt > 4)
        return;
    UNROLL for (int i = 0; i < n_lines; i++) __builtin_prefetch(q + AHEAD_BYTES + 64 * i, 0, 2);
}

INLINE void tile_q4_0(const struct panel *p, const uint8_t *rec, int nt, int ng, vf *acc)
{
    size_t n_blocks = p->n_cols / 32;
    const uint8_t *d = p->weights + p->sub * 2, *q = p->weights + n_blocks * 32 + p->sub * 4;
    for (size_t b = 0; b < n_blocks; b++, d += 32, q += 256, rec += ACT_BYTES * nt) {
        UNROLL for (int g = 0; g < ng; g++)
        {
            vi c[8];
            fetch_ahead(q + (size_t)g * p->stride, 4, nt);
            split_nibbles(c, q + (size_t)g * p->stride);
            add_u4(acc + g * nt, nt, c, vf_half(d + (size_t)g * p->stride), 3, rec);
        }
    }
}

INLINE void tile_q8_0(const struct panel *p, const uint8_t *rec, int nt, int ng, vf *acc)
{
    size_t n_blocks = p->n_cols / 32;
    const uint8_t *d = p->weights + p->sub * 2, *q = p->weights + n_blocks * 32 + p->sub * 4;
    for (size_t b = 0; b < n_blocks; b++, d += 32, q += 512, rec += ACT_BYTES * nt) {
        UNROLL for (int g = 0; g < ng; g++)
        {
            const uint8_t *codes = q + (size_t)g * p->stride;
            vi c[8];
            fetch_ahead(codes, 8, nt);
            UNROLL for (int u = 0; u < 8; u++) c[u] = vi_signed_codes(vi_load(codes + 64 * u));
            add_signed(acc + g * nt, nt, c, vf_half(d + (size_t)g * p->stride), rec);
        }
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

/* Two times 32 columns, the low and the high nibbles of 32 bytes a row. */
INLINE void pair_q4_k(const uint8_t *q, const uint8_t *s, int pair, vf d, vf minus_min,
                      const uint8_t *rec, int nt, vf *acc)
{
    vi low[8], high[8], scale, min;
    fetch_ahead(q, 8, nt);
    UNROLL for (int u = 0; u < 8; u++)
    {
        vi raw = vi_load(q + 64 * u);
        low[u] = vi_shr_bytes(raw, 0, 15);
        high[u] = vi_shr_bytes(raw, 4, 15);
    }
    unpack_scale_min(s, 2 * pair, &scale, &min);
    add_u4(acc, nt, low, vf_mul(d, vf_of_vi(scale)), -1, rec);
    add_minimum(acc, nt, vf_mul(minus_min, vf_of_vi(min)), rec);
    rec += ACT_BYTES * nt;
    unpack_scale_min(s, 2 * pair + 1, &scale, &min);
    add_u4(acc, nt, high, vf_mul(d, vf_of_vi(scale)), -1, rec);
    add_minimum(acc, nt, vf_mul(minus_min, vf_of_vi(min)), rec);
}

INLINE void tile_q4_k(const struct panel *p, const uint8_t *rec, int nt, int ng, vf *acc)
{
    size_t n_blocks = p->n_cols / 256;
    const uint8_t *d = p->weights + p->sub * 2, *s = p->weights + n_blocks * 64 + p->sub;
    const uint8_t *q = p->weights + n_blocks * 256 + p->sub * 4;
    for (size_t b = 0; b < n_blocks; b++, d += 32, s += 192, q += 2048, rec += 8 * ACT_BYTES * nt) {
        UNROLL for (int pair = 0; pair < 4; pair++)
        {
            UNROLL for (int g = 0; g < ng; g++)
            {
                size_t at = (size_t)g * p->stride;
                vf scale = vf_half(d + at);
                vf minus_min = vf_sub(vf_set(0.0f), vf_half(d + at + n_blocks * 32));
                pair_q4_k(q + at + 512 * pair, s + at, pair, scale, minus_min,
                          rec + 2 * pair * ACT_BYTES * nt, nt, acc + g * nt);
            }
        }
    }
}

/* 32 columns, number `part` of 8. */
INLINE void part_q6_k(const uint8_t *ql, const uint8_t *qh, const uint8_t *s, int part, vf d,
                      const uint8_t *rec, int nt, vf *acc)
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
    vf first = vf_mul(d, vf_of_vi(vi_s8(s + 16 * (2 * part))));
    vf second = vf_mul(d, vf_of_vi(vi_s8(s + 16 * (2 * part + 1))));
    add_u6(acc, nt, c, first, second, rec);
}

INLINE void tile_q6_k(const struct panel *p, const uint8_t *rec, int nt, int ng, vf *acc)
{
    size_t n_blocks = p->n_cols / 256;
    const uint8_t *ql = p->weights + p->sub * 4, *qh = ql + n_blocks * 2048;
    const uint8_t *s = p->weights + n_blocks * 3072 + p->sub;
    const uint8_t *d = p->weights + n_blocks * 3328 + p->sub * 2;
    for (size_t b = 0; b < n_blocks; b++, ql += 2048, qh += 1024, s += 256, d += 32) {
        UNROLL for (int part = 0; part < 8; part++)
        {
            UNROLL for (int g = 0; g < ng; g++)
            {
                size_t at = (size_t)g * p->stride;
                fetch_ahead(ql + at + 256 * part, 4, nt);
                fetch_ahead(qh + at + 128 * part, 2, nt);
                part_q6_k(ql + at, qh + at, s + at, part, vf_half(d + at), rec, nt, acc + g * nt);
            }
            rec += ACT_BYTES * nt;
        }
    }
}

/* ------------------------------------------------ whole groups */

/* ng groups and nt rows as constants; several groups at once where rows are few: more sums to keep
 * the units busy, and more streams from memory, which a core reads faster than one. */
#define TILE_CASE(tile, rows, groups)                                                              \
    case rows: {                                                                                   \
        vf acc[(rows) * (groups)];                                                                 \
        for (; n_groups >= (groups); n_groups -= (groups), p.weights += (groups)*p.stride) {       \
            UNROLL for (int i = 0; i < (rows) * (groups); i++) acc[i] = vf_set(0.0f);              \
            tile(&p, rec, rows, groups, acc);                                                      \
            UNROLL for (int i = 0; i < (rows) * (groups); i++)                                     \
                vf_store(y + (size_t)(i % (rows)) * ldy + i / (rows)*GROUP_ROWS, acc[i]);          \
            y += (groups)*GROUP_ROWS;                                                              \
        }                                                                                          \
        for (; n_groups > 0; n_groups--, p.weights += p.stride, y += GROUP_ROWS) {                 \
            UNROLL for (int i = 0; i < (rows); i++) acc[i] = vf_set(0.0f);                         \
            tile(&p, rec, rows, 1, acc);                                                           \
            UNROLL for (int i = 0; i < (rows); i++) vf_store(y + (size_t)i * ldy, acc[i]);         \
        }                                                                                          \
        break;                                                                                     \
    }
#if QUANT_TILE >= 16
#define LARGE_TILES(tile) TILE_CASE(tile, 16, 1) TILE_CASE(tile, 8, 1)
#elif QUANT_TILE >= 8
#define LARGE_TILES(tile) TILE_CASE(tile, 8, 1)
#else
#define LARGE_TILES(tile)
#endif

typedef void tiles_of_groups(struct panel p, size_t n_groups, const uint8_t *rec, size_t nt,
                             float *y, size_t ldy);

/* Weights come from memory once: while they are in the cache, all tiles pass over them. */
static void quant_panel(tiles_of_groups *tiles, struct panel p, size_t n_groups,
                        const uint8_t *acts, size_t n, float *y, size_t ldy)
{
    size_t rec_row_bytes = p.n_cols / ACT_BLOCK * ACT_BYTES, step;
    for (; n_groups > 0; n_groups -= step, p.weights += step * p.stride, y += step * GROUP_ROWS) {
        step = n_groups < 4 || n > 4 ? 1 : 4;
        size_t nt;
        for (size_t r = 0; r < n; r += nt) {
            nt = tile_rows(n - r, QUANT_TILE);
            for (size_t sub = 0; sub < GROUP_ROWS; sub += LANES) {
                struct panel part = p;
                part.sub = sub;
                tiles(part, step, acts + r * rec_row_bytes, nt, y + r * ldy + sub, ldy);
            }
        }
    }
}

#define QUANT_PANEL(name, type_bytes, type_values)                                                 \
    static __attribute__((noinline)) void tiles_##name(                                            \
        struct panel p, size_t n_groups, const uint8_t *rec, size_t nt, float *y, size_t ldy)      \
    {                                                                                              \
        switch (nt) {                                                                              \
            LARGE_TILES(tile_##name)                                                               \
            TILE_CASE(tile_##name, 4, 2)                                                           \
            TILE_CASE(tile_##name, 2, 4)                                                           \
        default:                                                                                   \
            TILE_CASE(tile_##name, 1, 4)                                                           \
        }                                                                                          \
    }                                                                                              \
    static void panel_##name(const uint8_t *weights, size_t n_groups, size_t n_cols,               \
                             const void *acts, size_t n, float *y, size_t ldy)                     \
    {                                                                                              \
        size_t stride = n_cols / (type_values) * (type_bytes)*GROUP_ROWS;                          \
        quant_panel(tiles_##name, (struct panel){weights, stride, n_cols, 0}, n_groups, acts, n,   \
                    y, ldy);                                                                       \
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
