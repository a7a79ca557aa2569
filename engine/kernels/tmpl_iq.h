/* Products of the types that name lattice points (IQ1, IQ2, IQ3) with int8 activations.
 *
 * Looking up entries of a code book takes longer than multiplying them with a row of x, so a block
 * of 16 rows and 256 columns is unpacked once (iq_block.c: nibbles, which a register's table
 * translates), and all rows of x are multiplied with it while it is in the nearest cache. Their
 * sums wait in y from block to block: a store and a load change no bit. Included after
 * tmpl_quant.h. */
#include "engine/kernels/iq_block.h"

/* 32 columns, number j of 8. */
INLINE void part_of_iq(const struct iq_block *w, size_t sub, size_t j, vi table, vf d, bool halves,
                       const uint8_t *rec, int nt, vf *acc)
{
    vi c[8];
    vf scale[2];
    UNROLL for (int u = 0; u < 4; u++)
    {
        vi raw = vi_load(&w->words[4 * j + (size_t)u][sub]);
        c[2 * u] = vi_lookup(table, vi_shr_bytes(raw, 0, 15));
        c[2 * u + 1] = vi_lookup(table, vi_shr_bytes(raw, 4, 15));
    }
    vi both = vi_u8(&w->scales[j][sub]), one = vi_set(1);
    for (int i = 0; i < (halves ? 2 : 1); i++)
        scale[i] = vf_mul(d, vf_of_vi(vi_add(vi_shl(vi_shr_bytes(both, 4 * i, 15), 1), one)));
    if (halves)
        add_halves(acc, nt, CODES_U7, c, scale, NULL, IQ_BIAS_BITS, rec);
    else
        add_codes(acc, nt, CODES_U7, c, scale[0], IQ_BIAS_BITS, rec);
}

/* nt rows of x and a block; y has the sums of the blocks before it, if any. */
INLINE void rows_of_iq(const struct iq_block *w, const struct iq_form *form, bool halves,
                       bool first, const uint8_t *rec, int nt, float *y, size_t ldy)
{
    vi table = vi_table(form->codes);
    for (size_t sub = 0; sub < GROUP_ROWS; sub += LANES) {
        vf d = vf_mul(vf_half(w->d + 2 * sub), vf_set(form->unit)), acc[QUANT_TILE];
        const uint8_t *at = rec;
        UNROLL for (int i = 0; i < nt; i++) acc[i] =
            first ? vf_set(0.0f) : vf_load(y + (size_t)i * ldy + sub);
        for (size_t j = 0; j < IQ_COLS / ACT_BLOCK; j++, at += ACT_BYTES * nt)
            part_of_iq(w, sub, j, table, d, halves, at, nt, acc);
        UNROLL for (int i = 0; i < nt; i++) vf_store(y + (size_t)i * ldy + sub, acc[i]);
    }
}

typedef void iq_rows(const struct iq_block *w, const struct iq_form *form, bool first,
                     const uint8_t *rec, size_t nt, float *y, size_t ldy);

#define IQ_CASE(halves, rows)                                                                      \
    case rows:                                                                                     \
        rows_of_iq(w, form, halves, first, rec, rows, y, ldy);                                     \
        break;
#if QUANT_TILE >= 16
#define IQ_LARGE(halves) IQ_CASE(halves, 16) IQ_CASE(halves, 8)
#elif QUANT_TILE >= 8
#define IQ_LARGE(halves) IQ_CASE(halves, 8)
#else
#define IQ_LARGE(halves)
#endif
#define IQ_ROWS(name, halves)                                                                      \
    static __attribute__((noinline)) void name(                                                    \
        const struct iq_block *w, const struct iq_form *form, bool first, const uint8_t *rec,      \
        size_t nt, float *y, size_t ldy)                                                           \
    {                                                                                              \
        switch (nt) {                                                                              \
            IQ_LARGE(halves)                                                                       \
            IQ_CASE(halves, 4)                                                                     \
            IQ_CASE(halves, 3)                                                                     \
            IQ_CASE(halves, 2)                                                                     \
        default:                                                                                   \
            IQ_CASE(halves, 1)                                                                     \
        }                                                                                          \
    }
IQ_ROWS(iq_rows_32, false)
IQ_ROWS(iq_rows_16, true)

/* As quant_panel, with blocks of columns between groups and tiles. */
static void iq_panel(const struct iq_form *form, iq_rows *rows, const uint8_t *weights,
                     size_t n_groups, size_t n_cols, const uint8_t *acts, size_t n, float *y,
                     size_t ldy)
{
    size_t rec_row_bytes = n_cols / ACT_BLOCK * ACT_BYTES, block = rows_of_block(n_cols), last;
    for (size_t first = 0; first < n; first = last) {
        const uint8_t *at = weights;
        last = n - first < block ? n : first + block;
        for (size_t g = 0; g < n_groups; g++)
            for (size_t k = 0; k < n_cols; k += IQ_COLS, at += GROUP_ROWS * form->block_bytes) {
                struct iq_block w;
                for (size_t i = 0; i < GROUP_ROWS * form->block_bytes; i += 64)
                    __builtin_prefetch(at + GROUP_ROWS * form->block_bytes + i);
                form->unpack(at, &w);
                for (size_t r = first, nt; r < last; r += nt) {
                    nt = tile_rows(n - r, QUANT_TILE);
                    rows(&w, form, k == 0,
                         acts + r * rec_row_bytes + k / ACT_BLOCK * ACT_BYTES * nt, nt,
                         y + r * ldy + g * GROUP_ROWS, ldy);
                }
            }
    }
}

#define IQ_PANEL(name, rows)                                                                       \
    static void panel_##name(const uint8_t *weights, size_t n_groups, size_t n_cols,               \
                             const void *acts, size_t n, float *y, size_t ldy)                     \
    {                                                                                              \
        iq_panel(&form_##name, rows, weights, n_groups, n_cols, acts, n, y, ldy);                  \
    }
IQ_PANEL(iq2_xxs, iq_rows_32)
IQ_PANEL(iq2_xs, iq_rows_16)
IQ_PANEL(iq2_s, iq_rows_16)
IQ_PANEL(iq3_xxs, iq_rows_32)
IQ_PANEL(iq3_s, iq_rows_32)
IQ_PANEL(iq1_s, iq_rows_32)
IQ_PANEL(iq1_m, iq_rows_16)
