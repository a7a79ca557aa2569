/* Types of three values, −1, 0 and 1, with one scale for 256 columns.
 *
 * TQ2_0 has two bits for each. TQ1_0 has five of them in a byte, a fraction of 256 in base 3: three
 * times a byte is the next digit and, in the byte itself, the fraction that is left. Both give the
 * columns of a register the same place in the bytes of a unit, so that digits come out by whole
 * registers. Fractions are less 128 throughout: tripling keeps that, and not every instruction set
 * compares unsigned bytes. */

typedef void add_ternary(const uint8_t *q, vf d, int body_bytes, const uint8_t *rec, int nt,
                         vf *acc);

/* body_bytes is what the codes of a block of 16 rows take. */
INLINE void walk_ternary(const struct panel *p, const uint8_t *rec, int nt, vf *acc, int body_bytes,
                         add_ternary *add)
{
    const uint8_t *w = p->weights;
    for (size_t left = p->n_cols / K_COLS, n; left > 0; left -= n) {
        n = left < 2 ? left : 2;
        const uint8_t *heads = w + p->sub * 2;
        touch_heads(w, n * 32, nt);
        w += n * 32;
        for (size_t b = 0; b < n; b++, w += body_bytes, rec += K_BLOCKS * ACT_BYTES * nt)
            add(w + p->sub * 4, vf_half(heads + b * 32), body_bytes, rec, nt, acc);
    }
}

INLINE void add_tq2_0(const uint8_t *q, vf d, int body_bytes, const uint8_t *rec, int nt, vf *acc)
{
    UNROLL for (int j = 0; j < K_BLOCKS; j++, rec += ACT_BYTES * nt)
    {
        vi c[8];
        fetch_ahead(q, body_bytes, j, K_BLOCKS, nt);
        UNROLL for (int u = 0; u < 8; u++) c[u] =
            vi_shr_bytes(vi_load(q + 512 * (j / 4) + 64 * u), 2 * (j % 4), 3);
        add_codes(acc, nt, CODES_U4, c, d, 0, rec);
    }
}

INLINE void tile_tq2_0(const struct panel *p, const uint8_t *rec, int nt, vf *acc)
{
    walk_ternary(p, rec, nt, acc, 1024, add_tq2_0);
}

/* The next digit of n registers of fractions. */
INLINE void next_digits(vi *c, vi *fraction, int n)
{
    UNROLL for (int u = 0; u < n; u++)
    {
        c[u] = vi_thirds(fraction[u]);
        fraction[u] = vi_add_bytes(vi_add_bytes(fraction[u], fraction[u]), fraction[u]);
    }
}

/* 32 bytes have 5 digits for 32 columns each, 16 have 5 for 16, 4 have 4 for 4. */
INLINE void add_tq1_0(const uint8_t *q, vf d, int body_bytes, const uint8_t *rec, int nt, vf *acc)
{
    vi fraction[8], offset = vi_set((int32_t)0x80808080);
    UNROLL for (int j = 0; j < K_BLOCKS; j++, rec += ACT_BYTES * nt)
    {
        vi c[8];
        fetch_ahead(q, body_bytes, j, K_BLOCKS, nt);
        for (int u = 0; (j == 0 && u < 8) || (j == 5 && u < 5); u++)
            fraction[u] = vi_add_bytes(vi_load(q + (j == 0 ? 0 : 512) + 64 * u), offset);
        next_digits(c, fraction, j < 5 ? 8 : 4);
        if (j == 5 || j == 6)
            next_digits(c + 4, fraction, 4);
        for (int i = 4; j == 7 && i < 8; i++)
            next_digits(c + i, fraction + 4, 1);
        add_codes(acc, nt, CODES_U4, c, d, 0, rec);
    }
}

INLINE void tile_tq1_0(const struct panel *p, const uint8_t *rec, int nt, vf *acc)
{
    walk_ternary(p, rec, nt, acc, 832, add_tq1_0);
}
