/* Types whose blocks are 256 columns with scales of their own for every 32 or 16 of them.
 *
 * Scales are unpacked once for a block, as bytes of 16 rows side by side; then 32 columns at a time
 * are multiplied. Where a register of codes takes its bits from several places, the places are read
 * again for every 32 columns: they are in the nearest cache. */

enum { K_COLS = 256, K_BLOCKS = K_COLS / ACT_BLOCK };

/* Whole registers over the bytes of 4 planes of 16 rows. */
#define EACH_OF_64(at) for (size_t at = 0; at < 64; at += sizeof(vi))

INLINE void vi_save(uint8_t *p, vi a)
{
    memcpy(p, &a, sizeof a);
}

/* The 8 scales and minima of 6 bits each that Q4_K and Q5_K have in 12 bytes. */
struct scales_min {
    uint8_t scale[8 * GROUP_ROWS], min[8 * GROUP_ROWS];
};

INLINE void unpack_scales_min(const uint8_t *s, struct scales_min *out)
{
    EACH_OF_64(i)
    {
        vi a = vi_load(s + i), b = vi_load(s + 64 + i), both = vi_load(s + 128 + i);
        vi_save(out->scale + i, vi_shr_bytes(a, 0, 63));
        vi_save(out->min + i, vi_shr_bytes(b, 0, 63));
        vi_save(out->scale + 64 + i, vi_or(vi_shr_bytes(both, 0, 15), vi_shr_bytes(a, 2, 0x30)));
        vi_save(out->min + 64 + i, vi_or(vi_shr_bytes(both, 4, 15), vi_shr_bytes(b, 2, 0x30)));
    }
}

/* 32 columns, number j of 8: nibbles j % 2 of 32 bytes a row, and bit j of 32 more where Q5_K has
 * them. */
INLINE void part_of_k(const struct scales_min *s, size_t sub, int j, const uint8_t *q,
                      const uint8_t *high, bool fives, vf d, vf minus_min, const uint8_t *rec,
                      int nt, vf *acc)
{
    vi c[8];
    if (fives && nt > 4)
        READ_AGAIN(high);
    UNROLL for (int u = 0; u < 8; u++)
    {
        c[u] = vi_shr_bytes(vi_load(q + 64 * u), 4 * (j % 2), 15);
        if (!fives)
            continue;
        vi raw = vi_load(high + 64 * u);
        vi bit = j < 4 ? vi_shl_bytes(raw, 4 - j, 16) : vi_shr_bytes(raw, j - 4, 16);
        c[u] = vi_or(c[u], bit);
    }
    vf scale = vf_mul(d, vf_of_vi(vi_u8(s->scale + 16 * j + sub)));
    add_codes(acc, nt, fives ? CODES_U6 : CODES_U4, c, scale, NO_BIAS, rec);
    add_minimum(acc, nt, vf_mul(minus_min, vf_of_vi(vi_u8(s->min + 16 * j + sub))), rec);
}

/* high_bytes is what the fifth bits take in a block of 16 rows. */
INLINE void tile_k_with_min(const struct panel *p, const uint8_t *rec, int nt, vf *acc,
                            int high_bytes)
{
    const uint8_t *w = p->weights;
    for (size_t left = p->n_cols / K_COLS; left > 0; left--, w += 2304 + high_bytes) {
        struct scales_min s;
        touch_heads(w, 256 + (size_t)high_bytes, nt);
        vf d = vf_half(w + p->sub * 2), zero = vf_set(0.0f);
        vf minus_min = vf_sub(zero, vf_half(w + 32 + p->sub * 2));
        const uint8_t *high = w + 256 + p->sub * 4, *q = high + high_bytes;
        unpack_scales_min(w + 64, &s);
        UNROLL for (int j = 0; j < K_BLOCKS; j++, rec += ACT_BYTES * nt)
        {
            fetch_ahead(w, 2304 + high_bytes, j, K_BLOCKS, nt);
            part_of_k(&s, p->sub, j, q + 512 * (j / 2), high, high_bytes > 0, d, minus_min, rec, nt,
                      acc);
        }
    }
}

INLINE void tile_q4_k(const struct panel *p, const uint8_t *rec, int nt, vf *acc)
{
    tile_k_with_min(p, rec, nt, acc, 0);
}

INLINE void tile_q5_k(const struct panel *p, const uint8_t *rec, int nt, vf *acc)
{
    tile_k_with_min(p, rec, nt, acc, 512);
}

/* Four times 32 columns, the planes, are in 24 units: planes 0 and 2 in the low and high nibbles of
 * the first of three, 1 and 3 in those of the second, their upper bits in the third. */
INLINE vi codes_q6_k(vi low, vi high, int plane)
{
    vi top = plane < 2 ? vi_shl_bytes(high, 4 - 2 * plane, 0x30)
                       : vi_shr_bytes(high, 2 * plane - 4, 0x30);
    return vi_or(vi_shr_bytes(low, 4 * (plane / 2), 15), top);
}

INLINE void plane_q6_k(const uint8_t *q, const uint8_t *s, int plane, vf d, const uint8_t *rec,
                       int nt, vf *acc)
{
    vi c[8];
    READ_AGAIN(q);
    UNROLL for (int u = 0; u < 8; u++) c[u] =
        codes_q6_k(vi_load(q + 192 * u + 64 * (plane % 2)), vi_load(q + 192 * u + 128), plane);
    vf scale[2] = {vf_mul(d, vf_of_vi(vi_s8(s))), vf_mul(d, vf_of_vi(vi_s8(s + 16)))};
    add_halves(acc, nt, CODES_U6, c, scale, NULL, 5, rec);
}

/* The same sums for few rows of x, every unit read once and in order: 28 instead of 20 GB/s. The
 * first 16 columns of all planes wait in `part` for the others. */
INLINE void planes_q6_k(const uint8_t *q, const uint8_t *s, vf d, const uint8_t *rec, int nt,
                        vf *acc)
{
    vf part[16];
    UNROLL for (int half = 0; half < 2; half++)
    {
        vi raw[12];
        UNROLL for (int i = 0; i < 12; i++)
        {
            raw[i] = vi_load(q + 768 * half + 64 * i);
            vi_keep(&raw[i]);
        }
        UNROLL for (int plane = 0; plane < 4; plane++)
        {
            const uint8_t *r = rec + plane * ACT_BYTES * nt;
            vf scale = vf_mul(d, vf_of_vi(vi_s8(s + 32 * plane + 16 * half)));
            vi c[4];
            UNROLL for (int u = 0; u < 4; u++) c[u] =
                codes_q6_k(raw[3 * u + plane % 2], raw[3 * u + 2], plane);
            UNROLL for (int t = 0; t < nt; t += AT_ONCE(nt))
            {
                vf sum[DOT_ROWS];
                sum_part(sum, CODES_U6, c, 5, 1 + half, r, nt, t);
                for (int i = t; i < t + AT_ONCE(nt); i++) {
                    vf *kept = &part[4 * i + plane];
                    *kept =
                        half == 0 ? vf_mul(sum[i - t], scale) : vf_fma(sum[i - t], scale, *kept);
                    if (half == 1)
                        acc[i] = vf_fma(*kept, act_scale(r, nt, i), acc[i]);
                }
            }
        }
    }
}

INLINE void tile_q6_k(const struct panel *p, const uint8_t *rec, int nt, vf *acc)
{
    const uint8_t *w = p->weights;
    for (size_t left = p->n_cols / K_COLS, n; left > 0; left -= n, w += n * 3360) {
        n = left < 2 ? left : 2;
        touch_heads(w, n * 288, nt);
        for (size_t b = 0; b < n; b++) {
            const uint8_t *q = w + n * 288 + b * 3072 + p->sub * 4, *s = w + b * 256 + p->sub;
            vf d = vf_half(w + n * 256 + b * 32 + p->sub * 2);
            for (int half = 0; half < 2; half++, q += 1536, s += 128) {
                if (nt <= 4)
                    planes_q6_k(q, s, d, rec, nt, acc);
                UNROLL for (int plane = 0; nt > 4 && plane < 4; plane++)
                {
                    fetch_ahead(q, 1536, plane, 4, nt);
                    plane_q6_k(q, s + 32 * plane, plane, d, rec + plane * ACT_BYTES * nt, nt, acc);
                }
                rec += 4 * ACT_BYTES * nt;
            }
        }
    }
}

/* The 16 scales of 6 bits that Q3_K has in 12 bytes. */
INLINE void unpack_scales_q3_k(const uint8_t *s, uint8_t out[16 * GROUP_ROWS])
{
    EACH_OF_64(i)
    {
        vi a = vi_load(s + i), b = vi_load(s + 64 + i), high = vi_load(s + 128 + i);
        vi_save(out + i, vi_or(vi_shr_bytes(a, 0, 15), vi_shl_bytes(high, 4, 0x30)));
        vi_save(out + 64 + i, vi_or(vi_shr_bytes(b, 0, 15), vi_shl_bytes(high, 2, 0x30)));
        vi_save(out + 128 + i, vi_or(vi_shr_bytes(a, 4, 15), vi_shr_bytes(high, 0, 0x30)));
        vi_save(out + 192 + i, vi_or(vi_shr_bytes(b, 4, 15), vi_shr_bytes(high, 2, 0x30)));
    }
}

/* 32 columns, number j of 8: bits 2 (j % 4) of 32 bytes a row (q) and bit j of 32 more (high). */
INLINE void part_of_q3_k(const uint8_t *s, int j, const uint8_t *q, const uint8_t *high, vf d,
                         const uint8_t *rec, int nt, vf *acc)
{
    vi c[8];
    if (nt > 4)
        READ_AGAIN(high);
    UNROLL for (int u = 0; u < 8; u++)
    {
        vi raw = vi_load(high + 64 * u);
        vi bit = j < 2 ? vi_shl_bytes(raw, 2 - j, 4) : vi_shr_bytes(raw, j - 2, 4);
        c[u] = vi_or(vi_shr_bytes(vi_load(q + 64 * u), 2 * (j % 4), 3), bit);
    }
    vi bias = vi_set(32);
    vf scale[2] = {vf_mul(d, vf_of_vi(vi_sub(vi_u8(s), bias))),
                   vf_mul(d, vf_of_vi(vi_sub(vi_u8(s + 16), bias)))};
    add_halves(acc, nt, CODES_U4, c, scale, NULL, 2, rec);
}

INLINE void tile_q3_k(const struct panel *p, const uint8_t *rec, int nt, vf *acc)
{
    const uint8_t *w = p->weights;
    for (size_t left = p->n_cols / K_COLS, n; left > 0; left -= n, w += n * 1760) {
        n = left < 2 ? left : 2;
        touch_heads(w, n * 224, nt);
        for (size_t b = 0; b < n; b++) {
            uint8_t s[16 * GROUP_ROWS];
            const uint8_t *high = w + n * 224 + b * 1536 + p->sub * 4, *q = high + 512;
            vf d = vf_half(w + n * 192 + b * 32 + p->sub * 2);
            unpack_scales_q3_k(w + b * 192, s);
            touch_heads(high, 1024, nt);
            UNROLL for (int j = 0; j < K_BLOCKS; j++, rec += ACT_BYTES * nt)
            {
                fetch_ahead(high, 1536, j, K_BLOCKS, nt);
                part_of_q3_k(s + 32 * j + p->sub, j, q + 512 * (j / 4), high, d, rec, nt, acc);
            }
        }
    }
}

/* 32 columns: bits 2 (j % 4) of 32 bytes a row, with a scale and a minimum for each 16. */
INLINE void part_of_q2_k(const uint8_t *s, int j, const uint8_t *q, vf d, vf min,
                         const uint8_t *rec, int nt, vf *acc)
{
    vi c[8];
    UNROLL for (int u = 0; u < 8; u++) c[u] = vi_shr_bytes(vi_load(q + 64 * u), 2 * (j % 4), 3);
    vf scales[2], minima[2];
    UNROLL for (int half = 0; half < 2; half++)
    {
        vi both = vi_u8(s + 16 * half);
        scales[half] = vf_mul(d, vf_of_vi(vi_shr_bytes(both, 0, 15)));
        minima[half] = vf_mul(min, vf_of_vi(vi_shr_bytes(both, 4, 15)));
    }
    add_halves(acc, nt, CODES_U4, c, scales, minima, NO_BIAS, rec);
}

INLINE void tile_q2_k(const struct panel *p, const uint8_t *rec, int nt, vf *acc)
{
    const uint8_t *w = p->weights;
    for (size_t left = p->n_cols / K_COLS; left > 0; left--, w += 1344) {
        const uint8_t *s = w + 64 + p->sub, *q = w + 320 + p->sub * 4;
        touch_heads(w, 320, nt);
        vf d = vf_half(w + p->sub * 2), min = vf_half(w + 32 + p->sub * 2);
        UNROLL for (int j = 0; j < K_BLOCKS; j++, rec += ACT_BYTES * nt)
        {
            fetch_ahead(w, 1344, j, K_BLOCKS, nt);
            part_of_q2_k(s + 32 * j, j, q + 512 * (j / 4), d, min, rec, nt, acc);
        }
    }
}

/* Scale j: a nibble of 4 bytes and two bits of 2 more, less 32. */
INLINE vf scale_iq4_xs(const uint8_t *s, int j, vf d)
{
    vi low = vi_shr_bytes(vi_u8(s + 32 + 16 * (j / 2)), 4 * (j % 2), 15);
    vi raw = vi_u8(s + 16 * (j / 4));
    vi high = j % 4 < 2 ? vi_shl_bytes(raw, 4 - 2 * (j % 4), 0x30)
                        : vi_shr_bytes(raw, 2 * (j % 4) - 4, 0x30);
    return vf_mul(d, vf_of_vi(vi_sub(vi_or(low, high), vi_set(32))));
}

INLINE void tile_iq4_xs(const struct panel *p, const uint8_t *rec, int nt, vf *acc)
{
    const uint8_t *w = p->weights;
    vi table = vi_signed_codes(vi_table(codes_iq4));
    for (size_t left = p->n_cols / K_COLS; left > 0; left--, w += 2176) {
        const uint8_t *q = w + 128 + p->sub * 4;
        touch_heads(w, 128, nt);
        vf d = vf_half(w + p->sub * 2);
        UNROLL for (int j = 0; j < K_BLOCKS; j++, q += 256, rec += ACT_BYTES * nt)
        {
            vi c[8];
            fetch_ahead(w, 2176, j, K_BLOCKS, nt);
            look_up_nibbles(c, q, table);
            add_codes(acc, nt, CODES_SIGNED, c, scale_iq4_xs(w + 32 + p->sub, j, d), NO_BIAS, rec);
        }
    }
}
