/* Products of float weights (F32, F16, BF16) with float activations, in float32 fused
 * multiply-adds; and of BF16_DOT, whose activations are rounded to bfloat16 as its weights are.
 *
 * A lane is a weight row and its sum runs over the columns in order. Several groups of rows go side
 * by side, so that there are always enough independent sums to keep the multiply-add units busy: a
 * sum's next addition waits for the one before. A row's values for 16 columns lie together in a
 * record, so that a tile is made by copying and its rows are read at constant distances. Included
 * after simd_*.h and tmpl_quant.h. */

typedef vf load_weight(const uint8_t *p);

INLINE vf weight_f32(const uint8_t *p)
{
    vf r;
    memcpy(&r, p, sizeof r);
    return r;
}

INLINE vf weight_f16(const uint8_t *p)
{
    return vf_half(p);
}

INLINE vf weight_bf16(const uint8_t *p)
{
    return vf_bfloat(p);
}

/* What a tile multiplies. */
struct float_part {
    const uint8_t *w; /* a group; the next is `stride` bytes on */
    size_t stride, n_cols;
    const float *x; /* records */
    float *y;
    size_t ldy;
};

INLINE void store_sums(const vf *acc, const struct float_part *p, int nt, int ng, int sub)
{
    UNROLL for (int g = 0; g < ng; g++)
    {
        UNROLL for (int t = 0; t < nt; t++)
            vf_store(p->y + (size_t)t * p->ldy + g * GROUP_ROWS + sub * LANES, acc[g * nt + t]);
    }
}

/* One step of ng groups at w with nt rows of x, whose records follow each other: a column, or two.
 */
typedef void float_step(const uint8_t *w, size_t stride, const uint8_t *x, int nt, int ng, vf *acc);

/* w_bytes, x_bytes: of a step, for one row. One row of x has nothing between its records. */
INLINE void float_tile(float_step *step, size_t w_bytes, size_t x_bytes, size_t n_steps,
                       const struct float_part *p, int nt, int ng)
{
    size_t in_record = nt == 1 ? n_steps : FLOAT_BYTES / x_bytes;
    for (int sub = 0; sub < GROUP_ROWS / LANES; sub++) {
        const uint8_t *at = p->w + (size_t)sub * LANES * w_bytes;
        const uint8_t *record = (const void *)p->x;
        vf acc[4 * FLOAT_TILE];
        UNROLL for (int i = 0; i < ng * nt; i++) acc[i] = vf_set(0.0f);
        for (size_t s = 0; s < n_steps; s += in_record, record += nt * FLOAT_BYTES) {
            size_t n = n_steps - s < in_record ? n_steps - s : in_record;
            const uint8_t *end = record + n * x_bytes;
            for (const uint8_t *x = record; x < end; x += x_bytes, at += GROUP_ROWS * w_bytes)
                step(at, p->stride, x, nt, ng, acc);
        }
        store_sums(acc, p, nt, ng, sub);
    }
}

INLINE void multiply_column(load_weight *load, const uint8_t *w, size_t stride, const uint8_t *x,
                            int nt, int ng, vf *acc)
{
    vf row[4];
    UNROLL for (int g = 0; g < ng; g++) row[g] = load(w + (size_t)g * stride);
    UNROLL for (int t = 0; t < nt; t++)
    {
        vf value = vf_dup(x + t * FLOAT_BYTES);
        UNROLL for (int g = 0; g < ng; g++) acc[g * nt + t] =
            vf_fma(row[g], value, acc[g * nt + t]);
    }
}

#define FLOAT_TILE_OF(name, bytes)                                                                 \
    INLINE void step_##name(const uint8_t *w, size_t stride, const uint8_t *x, int nt, int ng,     \
                            vf *acc)                                                               \
    {                                                                                              \
        multiply_column(weight_##name, w, stride, x, nt, ng, acc);                                 \
    }                                                                                              \
    INLINE void tile_##name(const struct float_part *p, int nt, int ng)                            \
    {                                                                                              \
        float_tile(step_##name, bytes, 4, p->n_cols, p, nt, ng);                                   \
    }
FLOAT_TILE_OF(f32, 4)
FLOAT_TILE_OF(f16, 2)
FLOAT_TILE_OF(bf16, 2)

/* Weights in pairs of columns, multiplied as floats. */
INLINE void step_bf16_dot(const uint8_t *w, size_t stride, const uint8_t *x, int nt, int ng,
                          vf *acc)
{
    UNROLL for (int g = 0; g < ng; g++)
    {
        vi pair = vi_load(w + (size_t)g * stride);
        vf first = vf_of_bits(vi_shl(pair, 16));
        vf second = vf_of_bits(vi_shl(vi_sar(pair, 16), 16));
        UNROLL for (int t = 0; t < nt; t++)
        {
            vf *sum = &acc[g * nt + t];
            *sum = vf_fma(first, vf_dup(x + t * FLOAT_BYTES), *sum);
            *sum = vf_fma(second, vf_dup(x + t * FLOAT_BYTES + 4), *sum);
        }
    }
}

INLINE void tile_bf16_dot(const struct float_part *p, int nt, int ng)
{
    float_tile(step_bf16_dot, 4, 8, p->n_cols / 2, p, nt, ng);
}

/* ---------------------------------------------------------------- whole groups */

#define FLOAT_CASE(tile, count, groups)                                                            \
    case count:                                                                                    \
        for (; n_groups >= (groups); n_groups -= (groups)) {                                       \
            tile(&p, count, groups);                                                               \
            p.w += (groups)*p.stride;                                                              \
            p.y += (groups)*GROUP_ROWS;                                                            \
        }                                                                                          \
        for (; n_groups > 0; n_groups--, p.w += p.stride, p.y += GROUP_ROWS)                       \
            tile(&p, count, 1);                                                                    \
        break;

#if FLOAT_TILE == 12
#define FLOAT_LARGE(tile) FLOAT_CASE(tile, 12, 2) FLOAT_CASE(tile, 8, 2)
#elif FLOAT_TILE == 6
#define FLOAT_LARGE(tile) FLOAT_CASE(tile, 6, 2)
#else
#define FLOAT_LARGE(tile)
#endif

/* bytes: of a weight; target: attributes of the function that the tiles are compiled into. */
#define FLOAT_PANEL(name, bytes, target)                                                           \
    static target __attribute__((noinline)) void tiles_##name(struct float_part p,                 \
                                                              size_t n_groups, size_t nt)          \
    {                                                                                              \
        switch (nt) {                                                                              \
            FLOAT_LARGE(tile_##name)                                                               \
            FLOAT_CASE(tile_##name, 4, 2)                                                          \
            FLOAT_CASE(tile_##name, 3, 2)                                                          \
            FLOAT_CASE(tile_##name, 2, 4)                                                          \
        default:                                                                                   \
            FLOAT_CASE(tile_##name, 1, 4)                                                          \
        }                                                                                          \
    }                                                                                              \
    static void panel_##name(const uint8_t *weights, size_t n_groups, size_t n_cols,               \
                             const void *acts, size_t n, float *y, size_t ldy)                     \
    {                                                                                              \
        struct float_part part = {weights, GROUP_ROWS * (bytes)*n_cols, n_cols, acts, y, ldy};     \
        for (size_t r = 0, nt; r < n; r += nt) {                                                   \
            nt = tile_rows(n - r, FLOAT_TILE);                                                     \
            tiles_##name(part, n_groups, nt);                                                      \
            part.x += nt * float_row(n_cols);                                                      \
            part.y += nt * ldy;                                                                    \
        }                                                                                          \
    }

FLOAT_PANEL(f32, 4, )
FLOAT_PANEL(f16, 2, )
FLOAT_PANEL(bf16, 2, )
FLOAT_PANEL(bf16_dot, 2, )

/* ---------------------------------------------------------------- rows of x */

static void copy_records(const float *x, size_t ldx, size_t nt, size_t n_cols, float *out)
{
    for (size_t k = 0; k < n_cols; k += FLOAT_COLS)
        for (size_t t = 0; t < nt; t++, out += FLOAT_COLS) {
            size_t left = n_cols - k;
            if (left >= FLOAT_COLS)
                memcpy(out, x + t * ldx + k, FLOAT_BYTES);
            else
                memcpy(out, x + t * ldx + k, left * sizeof *out);
        }
}

static void round_records(const float *x, size_t ldx, size_t nt, size_t n_cols, float *out)
{
    for (size_t k = 0; k < n_cols; k += FLOAT_COLS)
        for (size_t t = 0; t < nt; t++, out += FLOAT_COLS)
            for (size_t i = 0; i < FLOAT_COLS && k + i < n_cols; i++)
                out[i] = bfloat_to_float(bfloat_of(x[t * ldx + k + i]));
}
