/* Types that are walked 32 columns at a time: how each unpacks its codes and what scales them.
 *
 * A strip of 8 blocks is walked once for all of them (walk_blocks); a type is a row of BLOCK_PANEL
 * in tmpl_quant.h and a function here that is given one block of LANES rows. NVFP4's own blocks
 * are 64 columns with a scale for each 16: two blocks here. */

/* One block: plane i of the strip's heads, and the codes. */
struct block {
    const uint8_t *heads, *body;
    size_t strip, at, sub; /* blocks of the strip, which one, the first of the LANES rows */
};

INLINE vf block_half(const struct block *b, size_t plane)
{
    return vf_half(b->heads + 32 * (plane * b->strip + b->at) + 2 * b->sub);
}

typedef void add_block(const struct block *b, const uint8_t *rec, int nt, vf *acc);

/* head_bytes and body_bytes are those of a block of 16 rows. */
INLINE void walk_blocks(const struct panel *p, const uint8_t *rec, int nt, vf *acc, int head_bytes,
                        int body_bytes, add_block *add)
{
    struct block b = {.heads = p->weights, .sub = p->sub};
    size_t strip_blocks = STRIP_COLS / ACT_BLOCK;
    int block_bytes = head_bytes + body_bytes; /* of the strip, a block's share is fetched ahead */
    for (size_t left = p->n_cols / ACT_BLOCK; left > 0; left -= b.strip) {
        b.strip = left < strip_blocks ? left : strip_blocks;
        touch_heads(b.heads, b.strip * (size_t)head_bytes, nt);
        b.body = b.heads + b.strip * (size_t)head_bytes + 4 * p->sub;
        for (b.at = 0; b.at < b.strip; b.at++, b.body += body_bytes, rec += ACT_BYTES * nt) {
            fetch_ahead(b.heads + b.at * (size_t)block_bytes, block_bytes, 0, 1, nt);
            add(&b, rec, nt, acc);
        }
        b.heads += b.strip * (size_t)block_bytes;
    }
}

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

/* The same, as indices into a table of 16. */
INLINE void look_up_nibbles(vi c[8], const uint8_t *q, vi table)
{
    split_nibbles(c, q);
    UNROLL for (int u = 0; u < 8; u++) c[u] = vi_lookup(table, c[u]);
}

/* Nibbles and a fifth bit, which packing has sorted by register: bit u of a byte is register u's.
 */
INLINE void split_fives(vi c[8], const uint8_t *q)
{
    vi high = vi_load(q);
    split_nibbles(c, q + 64);
    UNROLL for (int u = 0; u < 8; u++)
    {
        vi bit = u < 4 ? vi_shl_bytes(high, 4 - u, 16) : vi_shr_bytes(high, u - 4, 16);
        c[u] = vi_or(c[u], bit);
    }
}

INLINE void block_q4_0(const struct block *b, const uint8_t *rec, int nt, vf *acc)
{
    vi c[8];
    split_nibbles(c, b->body);
    add_codes(acc, nt, CODES_U4, c, block_half(b, 0), 3, rec);
}

INLINE void block_q4_1(const struct block *b, const uint8_t *rec, int nt, vf *acc)
{
    vi c[8];
    split_nibbles(c, b->body);
    add_codes(acc, nt, CODES_U4, c, block_half(b, 0), NO_BIAS, rec);
    add_minimum(acc, nt, block_half(b, 1), rec);
}

INLINE void block_q5_0(const struct block *b, const uint8_t *rec, int nt, vf *acc)
{
    vi c[8];
    split_fives(c, b->body);
    add_codes(acc, nt, CODES_U6, c, block_half(b, 0), 4, rec);
}

INLINE void block_q5_1(const struct block *b, const uint8_t *rec, int nt, vf *acc)
{
    vi c[8];
    split_fives(c, b->body);
    add_codes(acc, nt, CODES_U6, c, block_half(b, 0), NO_BIAS, rec);
    add_minimum(acc, nt, block_half(b, 1), rec);
}

INLINE void block_q8_0(const struct block *b, const uint8_t *rec, int nt, vf *acc)
{
    vi c[8];
    UNROLL for (int u = 0; u < 8; u++) c[u] = vi_signed_codes(vi_load(b->body + 64 * u));
    add_codes(acc, nt, CODES_SIGNED, c, block_half(b, 0), NO_BIAS, rec);
}

INLINE void block_iq4_nl(const struct block *b, const uint8_t *rec, int nt, vf *acc)
{
    vi c[8];
    look_up_nibbles(c, b->body, vi_signed_codes(vi_table(codes_iq4)));
    add_codes(acc, nt, CODES_SIGNED, c, block_half(b, 0), NO_BIAS, rec);
}

/* 2^(e − 128) for 0 ≤ e ≤ 255, as two factors that are both plain numbers. */
INLINE vf vf_power_of_e8m0(const uint8_t *e)
{
    vi all = vi_u8(e), some = vi_sar(all, 1), rest = vi_sub(all, some);
    vf a = vf_of_bits(vi_shl(vi_add(some, vi_set(63)), 23));
    return vf_mul(a, vf_of_bits(vi_shl(vi_add(rest, vi_set(63)), 23)));
}

/* Codes of E2M1, doubled, plus 16. */
static const int8_t codes_fp4_16[16] = {16, 17, 18, 19, 20, 22, 24, 28,
                                        16, 15, 14, 13, 12, 10, 8,  4};

INLINE void block_mxfp4(const struct block *b, const uint8_t *rec, int nt, vf *acc)
{
    vi c[8];
    look_up_nibbles(c, b->body, vi_table(codes_fp4_16));
    add_codes(acc, nt, CODES_U6, c, vf_power_of_e8m0(b->heads + 16 * b->at + b->sub), 4, rec);
}

/* Half of an unsigned float of 4 and 3 bits, whose exponent gets the bias of a float. Below the
 * smallest normal one that makes c (1 + m / 8) of what is c m / 4: twice as much less 2 c, which is
 * the larger of the two for all others. */
INLINE vf vf_half_of_e4m3(const uint8_t *e)
{
    vi bits = vi_shl(vi_shr_bytes(vi_u8(e), 0, 127), 20);
    vf a = vf_of_bits(vi_add(bits, vi_set(119 << 23)));
    return vf_min(a, vf_fma(a, vf_set(2.0f), vf_set(-0x1p-7f)));
}

/* Every 16 columns have 8 bytes of nibbles, low ones first. */
INLINE void block_nvfp4(const struct block *b, const uint8_t *rec, int nt, vf *acc)
{
    vi c[8], table = vi_table(codes_fp4_16);
    const uint8_t *e = b->heads + 32 * b->at + b->sub;
    UNROLL for (int u = 0; u < 4; u++)
    {
        vi raw = vi_load(b->body + 64 * u);
        int first = u / 2 * 4 + u % 2;
        c[first] = vi_lookup(table, vi_shr_bytes(raw, 0, 15));
        c[first + 2] = vi_lookup(table, vi_shr_bytes(raw, 4, 15));
    }
    vf scale[2] = {vf_half_of_e4m3(e), vf_half_of_e4m3(e + 16)};
    add_halves(acc, nt, CODES_U6, c, scale, NULL, 4, rec);
}
