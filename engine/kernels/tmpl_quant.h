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

/* Where several rows of x share a block, a core computes too long on it for its own prefetcher to
 * have the next ones on their way; with fewer, fetching ahead only takes places that it needs.
 * Measured: 16 rows of Q8_0 207 -> 300 Gop/s, 2 rows 105 -> 72. */
enum { FETCH_AHEAD = 3072, FETCH_FROM = QUANT_TILE < 8 ? QUANT_TILE : 8 };

INLINE void fetch_ahead(const uint8_t *at, size_t bytes, int nt)
{
    for (size_t i = 0; nt >= FETCH_FROM && i < bytes; i += 64)
        __builtin_prefetch(at + FETCH_AHEAD + i);
}

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

/* 16 columns with one scale, codes ≤ 63 with a bias of 32; half 0 or 1 of the record's 32. */
INLINE void add_u6(vf *acc, int nt, const vi c[4], vf scale, int half, const uint8_t *rec)
{
    UNROLL for (int t = 0; t < nt; t++)
    {
        vi start = act_bias(rec, nt, t, 1 + half, 5);
        vf sum = vf_mul(vf_of_vi(dot_u6(start, c, 4, act_codes(rec, t) + 16 * half)), scale);
        acc[t] = vf_fma(sum, act_scale(rec, nt, t), acc[t]);
    }
}

/* ------------------------------------------------ types */

/* Where a group is; the next is `stride` bytes on. `sub` is the first of the LANES rows. */
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

/* The heads of a strip are touched first and in order: a core's prefetcher gives up a stream that
 * jumps, and then reads at a third of the speed. */
INLINE void touch_heads(const uint8_t *w, size_t bytes, int nt)
{
    for (size_t i = 0; nt <= 4 && i < bytes; i += 64)
        __builtin_prefetch(w + i);
}

INLINE void tile_q4_0(const struct panel *p, const uint8_t *rec, int nt, vf *acc)
{
    const uint8_t *w = p->weights;
    for (size_t left = p->n_cols / 32, n; left > 0; left -= n, w += n * 288) {
        n = left < 8 ? left : 8;
        touch_heads(w, n * 32, nt);
        const uint8_t *d = w + p->sub * 2, *q = w + n * 32 + p->sub * 4;
        for (size_t b = 0; b < n; b++, d += 32, q += 256, rec += ACT_BYTES * nt) {
            vi c[8];
            fetch_ahead(q, 256, nt);
            split_nibbles(c, q);
            add_u4(acc, nt, c, vf_half(d), 3, rec);
        }
    }
}

INLINE void tile_q8_0(const struct panel *p, const uint8_t *rec, int nt, vf *acc)
{
    const uint8_t *w = p->weights;
    for (size_t left = p->n_cols / 32, n; left > 0; left -= n, w += n * 544) {
        n = left < 8 ? left : 8;
        touch_heads(w, n * 32, nt);
        const uint8_t *d = w + p->sub * 2, *q = w + n * 32 + p->sub * 4;
        for (size_t b = 0; b < n; b++, d += 32, q += 512, rec += ACT_BYTES * nt) {
            vi c[8];
            fetch_ahead(q, 512, nt);
            UNROLL for (int u = 0; u < 8; u++) c[u] = vi_signed_codes(vi_load(q + 64 * u));
            add_signed(acc, nt, c, vf_half(d), rec);
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
    fetch_ahead(q, 512, nt);
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

INLINE void tile_q4_k(const struct panel *p, const uint8_t *rec, int nt, vf *acc)
{
    const uint8_t *w = p->weights;
    for (size_t left = p->n_cols / 256; left > 0; left--, w += 2304) {
        touch_heads(w, 256, nt);
        vf d = vf_half(w + p->sub * 2), zero = vf_set(0.0f);
        vf minus_min = vf_sub(zero, vf_half(w + 32 + p->sub * 2));
        UNROLL for (int pair = 0; pair < 4; pair++)
        {
            pair_q4_k(w + 256 + 512 * pair + p->sub * 4, w + 64 + p->sub, pair, d, minus_min, rec,
                      nt, acc);
            rec += 2 * ACT_BYTES * nt;
        }
    }
}

/* Half `side` of the four times 32 columns that 24 units hold: plane 0 and 2 in the low and high
 * nibbles of the first of three, 1 and 3 in those of the second, their upper bits in the third. */
INLINE void side_q6_k(const uint8_t *q, const uint8_t *s, int side, vf d, const uint8_t *rec,
                      int nt, vf *acc)
{
    vi raw[12];
    fetch_ahead(q, 768, nt);
    UNROLL for (int u = 0; u < 12; u++)
    {
        raw[u] = vi_load(q + 64 * u);
        if (nt <= 4)
            vi_keep(&raw[u]);
    }
    UNROLL for (int plane = 0; plane < 4; plane++)
    {
        vi c[4];
        UNROLL for (int u = 0; u < 4; u++)
        {
            vi low = raw[3 * u + plane % 2], high = raw[3 * u + 2];
            vi top = plane < 2 ? vi_shl_bytes(high, 4 - 2 * plane, 0x30)
                               : vi_shr_bytes(high, 2 * plane - 4, 0x30);
            c[u] = vi_or(vi_shr_bytes(low, 4 * (plane / 2), 15), top);
        }
        vf scale = vf_mul(d, vf_of_vi(vi_s8(s + 32 * plane)));
        add_u6(acc, nt, c, scale, side, rec + plane * ACT_BYTES * nt);
    }
}

INLINE void tile_q6_k(const struct panel *p, const uint8_t *rec, int nt, vf *acc)
{
    const uint8_t *w = p->weights;
    for (size_t left = p->n_cols / 256, n; left > 0; left -= n, w += n * 3360) {
        n = left < 2 ? left : 2;
        touch_heads(w, n * 288, nt);
        for (size_t b = 0; b < n; b++, rec += 8 * ACT_BYTES * nt) {
            const uint8_t *q = w + n * 288 + b * 3072 + p->sub * 4, *s = w + b * 256 + p->sub;
            vf d = vf_half(w + n * 256 + b * 32 + p->sub * 2);
            for (int i = 0; i < 4; i++)
                side_q6_k(q + 768 * i, s + 128 * (i / 2) + 16 * (i % 2), i % 2, d,
                          rec + 4 * (i / 2) * ACT_BYTES * nt, nt, acc);
        }
    }
}

/* ------------------------------------------------ whole groups */

/* nt rows as a constant, so that their sums live in registers. */
#define TILE_CASE(tile, rows)                                                                      \
    case rows: {                                                                                   \
        vf acc[rows];                                                                              \
        UNROLL for (int i = 0; i < (rows); i++) acc[i] = vf_set(0.0f);                             \
        tile(&p, rec, rows, acc);                                                                  \
        UNROLL for (int i = 0; i < (rows); i++) vf_store(y + (size_t)i * ldy, acc[i]);             \
        break;                                                                                     \
    }
#if QUANT_TILE >= 16
#define LARGE_TILES(tile) TILE_CASE(tile, 16) TILE_CASE(tile, 8)
#elif QUANT_TILE >= 8
#define LARGE_TILES(tile) TILE_CASE(tile, 8)
#else
#define LARGE_TILES(tile)
#endif

typedef void tile_of_group(struct panel p, const uint8_t *rec, size_t nt, float *y, size_t ldy);

/* A group comes from memory once: while it is in the cache, all tiles pass over it. */
static void quant_panel(tile_of_group *tile, struct panel p, size_t n_groups, const uint8_t *acts,
                        size_t n, float *y, size_t ldy)
{
    size_t rec_row_bytes = p.n_cols / ACT_BLOCK * ACT_BYTES;
    for (; n_groups > 0; n_groups--, p.weights += p.stride, y += GROUP_ROWS) {
        size_t nt;
        for (size_t r = 0; r < n; r += nt) {
            nt = tile_rows(n - r, QUANT_TILE);
            for (p.sub = 0; p.sub < GROUP_ROWS; p.sub += LANES)
                tile(p, acts + r * rec_row_bytes, nt, y + r * ldy + p.sub, ldy);
        }
    }
}

#define QUANT_PANEL(name, type_bytes, type_values)                                                 \
    static __attribute__((noinline)) void rows_##name(struct panel p, const uint8_t *rec,          \
                                                      size_t nt, float *y, size_t ldy)             \
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
        size_t stride = n_cols / (type_values) * (type_bytes)*GROUP_ROWS;                          \
        quant_panel(rows_##name, (struct panel){weights, stride, n_cols, 0}, n_groups, acts, n, y, \
                    ldy);                                                                          \
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
