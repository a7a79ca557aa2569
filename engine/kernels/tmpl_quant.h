/* Products of quantised weights with int8 activations, written once over a few primitives.
 *
 * A file of an instruction set includes its simd_*.h (LANES lanes of 32 bits: vi, vf and what can
 * be done with them) and then this. Each type is one function that, for LANES rows of a group and
 * nt rows of x, walks the blocks: unpack the codes of 32 columns into 8 registers (register u holds
 * columns 4u…4u+3 of every lane's row), multiply them with every x row of the tile, scale, add. nt
 * is a constant wherever it is inlined, so a tile lives in registers; the arithmetic of an output
 * is the same for every nt. */
#include "engine/kernels/inline.h"
#include "engine/kernels/table.h"

/* Where a group is; the next is `stride` bytes on. `sub` is the first of the LANES rows. */
struct panel {
    const uint8_t *weights;
    size_t stride, n_cols, sub;
};

/* The heads of a strip are touched first and in order: a core's prefetcher gives up a stream that
 * jumps, and then reads at a third of the speed. */
INLINE void touch_heads(const uint8_t *w, size_t bytes, int nt)
{
    for (size_t i = 0; nt <= 4 && i < bytes; i += 64)
        __builtin_prefetch(w + i);
}

/* Where several rows of x share a block, a core computes too long on it for its own prefetcher to
 * have the next ones on their way; with fewer, fetching ahead only takes places that it needs.
 * Measured: 16 rows of Q8_0 207 -> 300 Gop/s, 2 rows 105 -> 72. A core fetches 18 to 20 GB/s in
 * this way, so with 4 rows it is for the types that need no more: Q4_K 204 -> 258 Gop/s, Q5_K 159
 * -> 230, but Q8_0 191 -> 142 and Q6_K 146 -> 126. */
enum { FETCH_AHEAD = 3072, FETCH_FROM = QUANT_TILE < 8 ? QUANT_TILE : 8, FETCH_FEW = 352 };

/* bytes: of 32 columns. */
INLINE bool fetches_ahead(int bytes, int nt)
{
    return nt >= FETCH_FROM || (nt >= 4 && bytes <= FETCH_FEW);
}

/* Share i of n of the lines at `at`: many at once would keep the loads of now waiting. */
INLINE void fetch_ahead(const uint8_t *at, int bytes, int i, int n, int nt)
{
    int lines = (bytes + 63) / 64, from = lines * i / n, to = lines * (i + 1) / n;
    if (!fetches_ahead(bytes / n, nt))
        return;
    UNROLL for (int line = from; line < to; line++)
        __builtin_prefetch(at + FETCH_AHEAD + 64 * line);
}

#include "engine/kernels/tmpl_acts.h"
#include "engine/kernels/tmpl_blocks.h"
#include "engine/kernels/tmpl_k.h"
#include "engine/kernels/tmpl_bits.h"

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

/* The rows of x go in blocks whose records stay in the second cache, and a group comes from memory
 * once for all tiles of a block. Blocks are of whole tiles, as they were prepared. */
enum { BLOCK_BYTES = 384 << 10 };

static size_t rows_of_block(size_t n_cols)
{
    return (BLOCK_BYTES / (n_cols / ACT_BLOCK * ACT_BYTES) / TILE_PIECE + 1) * TILE_PIECE;
}

static void quant_panel(tile_of_group *tile, struct panel p, size_t n_groups, const uint8_t *acts,
                        size_t n, float *y, size_t ldy)
{
    size_t rec_row_bytes = p.n_cols / ACT_BLOCK * ACT_BYTES;
    size_t block = rows_of_block(p.n_cols), last;
    const uint8_t *weights = p.weights;
    for (size_t first = 0; first < n; first = last) {
        last = n - first < block ? n : first + block;
        p.weights = weights;
        for (size_t g = 0; g < n_groups; g++, p.weights += p.stride) {
            size_t nt;
            for (size_t r = first; r < last; r += nt) {
                nt = tile_rows(n - r, QUANT_TILE);
                for (p.sub = 0; p.sub < GROUP_ROWS; p.sub += LANES)
                    tile(p, acts + r * rec_row_bytes, nt, y + r * ldy + g * GROUP_ROWS + p.sub,
                         ldy);
            }
        }
    }
}

/* group_bytes is what type_values columns of 16 rows take. */
#define GROUP_PANEL(name, group_bytes, type_values)                                                \
    static __attribute__((noinline)) void rows_##name(struct panel p, const uint8_t *rec,          \
                                                      size_t nt, float *y, size_t ldy)             \
    {                                                                                              \
        switch (nt) {                                                                              \
            LARGE_TILES(tile_##name)                                                               \
            TILE_CASE(tile_##name, 4)                                                              \
            TILE_CASE(tile_##name, 3)                                                              \
            TILE_CASE(tile_##name, 2)                                                              \
        default:                                                                                   \
            TILE_CASE(tile_##name, 1)                                                              \
        }                                                                                          \
    }                                                                                              \
    static void panel_##name(const uint8_t *weights, size_t n_groups, size_t n_cols,               \
                             const void *acts, size_t n, float *y, size_t ldy)                     \
    {                                                                                              \
        size_t stride = n_cols / (type_values) * (group_bytes);                                    \
        quant_panel(rows_##name, (struct panel){weights, stride, n_cols, 0}, n_groups, acts, n, y, \
                    ldy);                                                                          \
    }

#define QUANT_PANEL(name, type_bytes, type_values)                                                 \
    GROUP_PANEL(name, (type_bytes)*GROUP_ROWS, type_values)

/* Types of tmpl_blocks.h: bytes of 16 rows in their heads and body. */
#define BLOCK_PANEL(name, head_bytes, body_bytes)                                                  \
    INLINE void tile_##name(const struct panel *p, const uint8_t *rec, int nt, vf *acc)            \
    {                                                                                              \
        walk_blocks(p, rec, nt, acc, head_bytes, body_bytes, block_##name);                        \
    }                                                                                              \
    GROUP_PANEL(name, (head_bytes) + (body_bytes), ACT_BLOCK)

BLOCK_PANEL(q4_0, 32, 256)
BLOCK_PANEL(q4_1, 64, 256)
BLOCK_PANEL(q5_0, 32, 320)
BLOCK_PANEL(q5_1, 64, 320)
BLOCK_PANEL(q8_0, 32, 512)
BLOCK_PANEL(iq4_nl, 32, 256)
BLOCK_PANEL(mxfp4, 16, 256)
BLOCK_PANEL(nvfp4, 32, 256)
QUANT_PANEL(q2_k, 84, 256)
QUANT_PANEL(q3_k, 110, 256)
QUANT_PANEL(q4_k, 144, 256)
QUANT_PANEL(q5_k, 176, 256)
QUANT_PANEL(q6_k, 210, 256)
QUANT_PANEL(iq4_xs, 136, 256)
QUANT_PANEL(q1_0, 18, 128)
QUANT_PANEL(q2_0, 18, 64)
QUANT_PANEL(tq1_0, 54, 256)
QUANT_PANEL(tq2_0, 66, 256)
