/* Sums of codes and int8 activations: what every quantised type is multiplied with.
 *
 * With s the block's scale, d the activations' and codes c = w + bias: y += d · s · (Σ c·q − bias ·
 * Σ q), the bracket in exact integers; types with minima also add −min · d · Σ q. Two halves with a
 * scale each are added up before d is applied, which saves a multiplication.
 *
 * The primitives: dot_u4/dot_u6/dot_u7/dot_signed(acc, w, n, x) add to each lane Σ over n registers
 * of 4 products with the 4 n bytes at x; codes ≤ 15, ≤ 63, ≤ 127, and signed ones that went through
 * vi_signed_codes and need bias 2^SIGNED_BIAS (none where it is 0). Included by tmpl_quant.h. */

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

/* ------------------------------------------------ sums */

/* How codes are multiplied, and the bias that they have. */
enum codes { CODES_U4, CODES_U6, CODES_U7, CODES_SIGNED };
enum { NO_BIAS = -1 };

/* Rows of x whose sums are made side by side: two where an instruction set has instructions for
 * that, or as many as it takes to hide how long one dot product takes (DOT_ROWS of simd_*.h). */
#ifdef DOT_PAIR
#define DOT_ROWS 2
#elif !defined(DOT_ROWS)
#define DOT_ROWS 1
#endif
#define AT_ONCE(nt) ((nt) % DOT_ROWS == 0 ? DOT_ROWS : (nt) < DOT_ROWS ? (nt) : 1)

INLINE vi start_of(enum codes codes, int bias, const uint8_t *rec, int nt, int t, int part)
{
    if (codes == CODES_SIGNED)
        return SIGNED_BIAS == 0 ? vi_zero() : act_bias(rec, nt, t, part, SIGNED_BIAS);
    return bias == NO_BIAS ? vi_zero() : act_bias(rec, nt, t, part, bias);
}

INLINE vi dot_codes(vi sum, enum codes codes, const vi *c, int n, const uint8_t *x)
{
    return codes == CODES_U4   ? dot_u4(sum, c, n, x)
           : codes == CODES_U6 ? dot_u6(sum, c, n, x)
           : codes == CODES_U7 ? dot_u7(sum, c, n, x)
                               : dot_signed(sum, c, n, x);
}

#ifdef DOT_PAIR
INLINE void dot_rows(vi *sum, int rows, enum codes codes, const vi *c, int n, const uint8_t *x)
{
    if (rows == 2)
        dot_pair(sum, c, n, x, x + ACT_BLOCK);
    else
        sum[0] = dot_codes(sum[0], codes, c, n, x);
}
#elif DOT_ROWS > 1
/* Register by register, the rows in turn: each waits for its own last sum only, and with one or two
 * rows there are two sums of each. One row after the other took up to 11 % longer. */
INLINE void dot_rows(vi *sum, int rows, enum codes codes, const vi *c, int n, const uint8_t *x)
{
    vi odd[DOT_ROWS];
    bool two = 2 * rows <= DOT_ROWS;
    for (int i = 0; i < rows; i++)
        odd[i] = vi_zero();
    UNROLL for (int u = 0; u < n; u++) UNROLL for (int i = 0; i < rows; i++)
    {
        vi *to = two && u % 2 == 1 ? &odd[i] : &sum[i];
        *to = dot_codes(*to, codes, c + u, 1, x + ACT_BLOCK * i + 4 * u);
    }
    for (int i = 0; two && i < rows; i++)
        sum[i] = vi_add(sum[i], odd[i]);
}
#else
INLINE void dot_rows(vi *sum, int rows, enum codes codes, const vi *c, int n, const uint8_t *x)
{
    (void)rows;
    sum[0] = dot_codes(sum[0], codes, c, n, x);
}
#endif

/* A part of the record (act_bias), whose codes are c, for AT_ONCE rows from t on. */
INLINE void sum_part(vf out[DOT_ROWS], enum codes codes, const vi *c, int bias, int part,
                     const uint8_t *rec, int nt, int t)
{
    vi sum[DOT_ROWS];
    for (int i = 0; i < AT_ONCE(nt); i++)
        sum[i] = start_of(codes, bias, rec, nt, t + i, part);
    dot_rows(sum, AT_ONCE(nt), codes, c, part == 0 ? 8 : 4,
             act_codes(rec, t) + (part == 2 ? 16 : 0));
    for (int i = 0; i < AT_ONCE(nt); i++)
        out[i] = vf_of_vi(sum[i]);
}

/* 32 columns with one scale, none where it is NULL; the codes' bias is 2^bias. */
INLINE void add_scaled(vf *acc, int nt, enum codes codes, const vi c[8], const vf *scale, int bias,
                       const uint8_t *rec)
{
    READ_AGAIN(rec);
    UNROLL for (int t = 0; t < nt; t += AT_ONCE(nt))
    {
        vf sum[DOT_ROWS];
        sum_part(sum, codes, c, bias, 0, rec, nt, t);
        for (int i = 0; i < AT_ONCE(nt); i++)
            acc[t + i] = vf_fma(scale == NULL ? sum[i] : vf_mul(sum[i], *scale),
                                act_scale(rec, nt, t + i), acc[t + i]);
    }
}

INLINE void add_codes(vf *acc, int nt, enum codes codes, const vi c[8], vf scale, int bias,
                      const uint8_t *rec)
{
    add_scaled(acc, nt, codes, c, &scale, bias, rec);
}

INLINE void add_minimum(vf *acc, int nt, vf minus_min, const uint8_t *rec)
{
    UNROLL for (int t = 0; t < nt; t++) acc[t] =
        vf_fma(minus_min, act_scaled_sum(rec, nt, t), acc[t]);
}

/* 32 columns with a scale for each 16, and a minimum where min is not NULL. */
INLINE void add_halves(vf *acc, int nt, enum codes codes, const vi c[8], const vf scale[2],
                       const vf *min, int bias, const uint8_t *rec)
{
    READ_AGAIN(rec);
    UNROLL for (int t = 0; t < nt; t += AT_ONCE(nt))
    {
        vf low[DOT_ROWS], high[DOT_ROWS];
        sum_part(low, codes, c, bias, 1, rec, nt, t);
        sum_part(high, codes, c + 4, bias, 2, rec, nt, t);
        for (int i = 0; i < AT_ONCE(nt); i++) {
            vf sum = vf_fma(high[i], scale[1], vf_mul(low[i], scale[0]));
            if (min != NULL) {
                sum = vf_fma(vf_of_vi(act_bias(rec, nt, t + i, 1, 0)), min[0], sum);
                sum = vf_fma(vf_of_vi(act_bias(rec, nt, t + i, 2, 0)), min[1], sum);
            }
            acc[t + i] = vf_fma(sum, act_scale(rec, nt, t + i), acc[t + i]);
        }
    }
}

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
    enum { REGISTERS = ACT_BLOCK / LANES };
    vf v[REGISTERS], most = vf_set(0.0f);
    UNROLL for (int i = 0; i < REGISTERS; i++)
    {
        v[i] = vf_load(x + i * LANES);
        most = vf_max(vf_abs(v[i]), most);
    }
    float largest = vf_largest(most), scale = largest / 127.0f;
    float inverse = largest > 0x1p-120f ? 127.0f / largest : 0.0f;
    vi half[2] = {vi_zero(), vi_zero()};
    UNROLL for (int i = 0; i < REGISTERS; i++)
    {
        vi q = vi_round(vf_mul(v[i], vf_set(inverse)));
        vi_store_bytes(rec + ACT_BLOCK * t + (size_t)i * LANES, q);
        half[2 * i / REGISTERS] = vi_add(half[2 * i / REGISTERS], q);
    }
    uint32_t low = vi_sum(half[0]), high = vi_sum(half[1]);
    float scaled = scale * (float)(int32_t)(low + high);
    uint32_t sums[3] = {-(low + high), -low, -high};
    uint8_t *tail = rec + ACT_BLOCK * nt + 4 * t;
    memcpy(tail, &scale, 4);
    for (size_t i = 0; i < 3; i++)
        memcpy(tail + 4 * nt * (i + 1), &sums[i], 4);
    memcpy(tail + 16 * nt, &scaled, 4);
}

static void quantize(const float *x, size_t ldx, size_t nt, size_t n_cols, uint8_t *out)
{
    for (size_t b = 0; b < n_cols / ACT_BLOCK; b++, out += ACT_BYTES * nt)
        for (size_t t = 0; t < nt; t++)
            quantize_block(x + t * ldx + b * ACT_BLOCK, out, nt, t);
}
