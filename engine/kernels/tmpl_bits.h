/* Types of two bits or less for a column: codes of 0 to 3, less 1, with one scale for a block of
 * 64, 128 or 256 columns. So the products of a block are added up before the scale is applied.
 *
 * A type is a function that makes the codes of 32 columns, number j of the block. Q1_0 has a bit
 * for each, Q2_0 and TQ2_0 have two. TQ1_0 has five digits in a byte, a fraction of 256 in base 3:
 * three times a byte is the next digit and, in the byte itself, the fraction that is left. */

/* `kept` is what it keeps from 32 columns to the next. */
typedef void make_codes(vi c[8], const uint8_t *body, int j, vi kept[8]);

/* share is how many times 32 columns have one scale, body_bytes what their codes take. */
INLINE void walk_bits(const struct panel *p, const uint8_t *rec, int nt, vf *acc, int share,
                      int body_bytes, make_codes *make)
{
    size_t strip = share == 8 ? 2 : 8 / (size_t)share;
    const uint8_t *w = p->weights;
    for (size_t left = p->n_cols / ACT_BLOCK / (size_t)share, n; left > 0; left -= n) {
        n = left < strip ? left : strip;
        const uint8_t *heads = w + 2 * p->sub;
        touch_heads(w, 32 * n, nt);
        w += 32 * n;
        for (size_t b = 0; b < n; b++, w += body_bytes) {
            vi c[8], kept[8];
            vf part[QUANT_TILE], d = vf_half(heads + 32 * b);
            UNROLL for (int t = 0; t < nt; t++) part[t] = vf_set(0.0f);
            UNROLL for (int j = 0; j < share; j++, rec += ACT_BYTES * nt)
            {
                fetch_ahead(w, body_bytes, j, share, nt);
                make(c, w + 4 * p->sub, j, kept);
                add_scaled(part, nt, CODES_U4, c, NULL, 0, rec);
            }
            UNROLL for (int t = 0; t < nt; t++) acc[t] = vf_fma(part[t], d, acc[t]);
        }
    }
}

#define BITS_TILE(name, share, body_bytes)                                                         \
    INLINE void tile_##name(const struct panel *p, const uint8_t *rec, int nt, vf *acc)            \
    {                                                                                              \
        walk_bits(p, rec, nt, acc, share, body_bytes, codes_##name);                               \
    }

/* A bit is 2 or 0. */
INLINE void codes_q1_0(vi c[8], const uint8_t *body, int j, vi kept[8])
{
    vi raw = vi_load(body + 64 * j);
    (void)kept;
    vi_keep(&raw);
    c[0] = vi_shl_bytes(raw, 1, 2);
    UNROLL for (int u = 1; u < 8; u++) c[u] = vi_shr_bytes(raw, u - 1, 2);
}

INLINE void codes_q2_0(vi c[8], const uint8_t *body, int j, vi kept[8])
{
    (void)kept;
    UNROLL for (int u = 0; u < 8; u++) c[u] =
        vi_shr_bytes(vi_load(body + 64 * (2 * j + u / 4)), 2 * (u % 4), 3);
}

INLINE void codes_tq2_0(vi c[8], const uint8_t *body, int j, vi kept[8])
{
    (void)kept;
    UNROLL for (int u = 0; u < 8; u++) c[u] =
        vi_shr_bytes(vi_load(body + 512 * (j / 4) + 64 * u), 2 * (j % 4), 3);
}

/* The next digit of n registers of fractions, which are less 128 throughout: tripling keeps that,
 * and not every instruction set compares unsigned bytes. */
INLINE void next_digits(vi *c, vi *fraction, int n)
{
    UNROLL for (int u = 0; u < n; u++)
    {
        c[u] = vi_thirds(fraction[u]);
        fraction[u] = vi_add_bytes(vi_add_bytes(fraction[u], fraction[u]), fraction[u]);
    }
}

/* 32 bytes have 5 digits for 32 columns each, 16 have 5 for 16, 4 have 4 for 4. */
INLINE void codes_tq1_0(vi c[8], const uint8_t *body, int j, vi fraction[8])
{
    vi offset = vi_set((int32_t)0x80808080);
    for (int u = 0; (j == 0 && u < 8) || (j == 5 && u < 5); u++)
        fraction[u] = vi_add_bytes(vi_load(body + (j == 0 ? 0 : 512) + 64 * u), offset);
    next_digits(c, fraction, j < 5 ? 8 : 4);
    if (j == 5 || j == 6)
        next_digits(c + 4, fraction, 4);
    for (int i = 4; j == 7 && i < 8; i++)
        next_digits(c + i, fraction + 4, 1);
}

BITS_TILE(q1_0, 4, 256)
BITS_TILE(q2_0, 2, 256)
BITS_TILE(tq1_0, 8, 832)
BITS_TILE(tq2_0, 8, 1024)
