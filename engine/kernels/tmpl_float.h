/* Products of float weights (F32, F16, BF16) with float activations, in float32 fused
 * multiply-adds.
 *
 * A lane is a weight row and its sum runs over the columns in order. Several groups of rows go side
 * by side, so that there are always enough independent sums to keep the multiply-add units busy: a
 * sum's next addition waits for the one before. Included after simd_*.h and tmpl_quant.h. */

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

/* ng groups, nt rows of x; x is float [n_cols][nt]. */
#define FLOAT_CASE(load, bytes, count, groups)                                                     \
    case count:                                                                                    \
        for (; n_groups >= (groups); n_groups -= (groups)) {                                       \
            float_tile(load, bytes, w, stride, n_cols, x, count, groups, y, ldy);                  \
            w += (groups)*stride;                                                                  \
            y += (groups)*GROUP_ROWS;                                                              \
        }                                                                                          \
        for (; n_groups > 0; n_groups--, w += stride, y += GROUP_ROWS)                             \
            float_tile(load, bytes, w, stride, n_cols, x, count, 1, y, ldy);                       \
        break;

typedef vf load_weight(const uint8_t *p);

INLINE void float_tile(load_weight *load, size_t bytes, const uint8_t *w, size_t stride,
                       size_t n_cols, const float *x, int nt, int ng, float *y, size_t ldy)
{
    for (int sub = 0; sub < GROUP_ROWS / LANES; sub++) {
        const uint8_t *at = w + (size_t)sub * LANES * bytes;
        const float *xk = x;
        vf acc[4 * FLOAT_TILE];
        UNROLL for (int i = 0; i < ng * nt; i++) acc[i] = vf_set(0.0f);
        for (size_t k = 0; k < n_cols; k++, at += GROUP_ROWS * bytes, xk += nt) {
            vf row[4];
            UNROLL for (int g = 0; g < ng; g++) row[g] = load(at + (size_t)g * stride);
            UNROLL for (int t = 0; t < nt; t++)
            {
                vf value = vf_dup(xk + t);
                UNROLL for (int g = 0; g < ng; g++) acc[g * nt + t] =
                    vf_fma(row[g], value, acc[g * nt + t]);
            }
        }
        UNROLL for (int g = 0; g < ng; g++)
        {
            UNROLL for (int t = 0; t < nt; t++)
                vf_store(y + (size_t)t * ldy + g * GROUP_ROWS + sub * LANES, acc[g * nt + t]);
        }
    }
}

#if FLOAT_TILE == 12
#define FLOAT_LARGE(load, bytes) FLOAT_CASE(load, bytes, 12, 2) FLOAT_CASE(load, bytes, 8, 2)
#elif FLOAT_TILE == 6
#define FLOAT_LARGE(load, bytes) FLOAT_CASE(load, bytes, 6, 2)
#else
#define FLOAT_LARGE(load, bytes)
#endif

#define FLOAT_PANEL(name, load, bytes)                                                             \
    static __attribute__((noinline)) void tiles_##name(const uint8_t *w, size_t n_groups,          \
                                                       size_t n_cols, const float *x, size_t nt,   \
                                                       float *y, size_t ldy)                       \
    {                                                                                              \
        size_t stride = GROUP_ROWS * (bytes)*n_cols;                                               \
        switch (nt) {                                                                              \
            FLOAT_LARGE(load, bytes)                                                               \
            FLOAT_CASE(load, bytes, 4, 2)                                                          \
            FLOAT_CASE(load, bytes, 3, 2)                                                          \
            FLOAT_CASE(load, bytes, 2, 4)                                                          \
        default:                                                                                   \
            FLOAT_CASE(load, bytes, 1, 4)                                                          \
        }                                                                                          \
    }                                                                                              \
    static void panel_##name(const uint8_t *weights, size_t n_groups, size_t n_cols,               \
                             const void *acts, size_t n, float *y, size_t ldy)                     \
    {                                                                                              \
        const float *x = acts;                                                                     \
        size_t nt;                                                                                 \
        for (size_t r = 0; r < n; r += nt) {                                                       \
            nt = tile_rows(n - r, FLOAT_TILE);                                                     \
            tiles_##name(weights, n_groups, n_cols, x + r * n_cols, nt, y + r * ldy, ldy);         \
        }                                                                                          \
    }

FLOAT_PANEL(f32, weight_f32, 4)
FLOAT_PANEL(f16, weight_f16, 2)
FLOAT_PANEL(bf16, weight_bf16, 2)
