/* Sums of codes and int8 activations: what every quantised type is multiplied with.
 *
 * With s the block's scale, d the activations' and codes c = w + bias: y += d · s · (Σ c·q − bias ·
 * Σ q), the bracket in exact integers; types with minima also add −min · d · Σ q. Two halves with a
 * scale each are added up before d is applied, which saves a multiplication.
 *
 * The primitives: dot_u4/dot_u6/dot_signed(acc, w, n, x) add to each lane Σ over n registers of 4
 * products with the 4 n bytes at x; codes ≤ 15, codes ≤ 63, and signed ones that went through
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
enum codes { CODES_U4, CODES_U6, CODES_SIGNED };
enum { NO_BIAS = -1 };

INLINE vi dot_codes(enum codes codes, vi start, const vi *c, int n, const uint8_t *x)
{
    return codes == CODES_U4   ? dot_u4(start, c, n, x)
           : codes == CODES_U6 ? dot_u6(start, c, n, x)
                               : dot_signed(start, c, n, x);
}

INLINE vi start_of(enum codes codes, int bias, const uint8_t *rec, int nt, int t, int part)
{
    if (codes == CODES_SIGNED)
        return SIGNED_BIAS == 0 ? vi_zero() : act_bias(rec, nt, t, part, SIGNED_BIAS);
    return bias == NO_BIAS ? vi_zero() : act_bias(rec, nt, t, part, bias);
}

/* 32 columns with one scale; the codes' bias is 2^bias. */
INLINE void add_codes(vf *acc, int nt, enum codes codes, const vi c[8], vf scale, int bias,
                      const uint8_t *rec)
{
    READ_AGAIN(rec);
    UNROLL for (int t = 0; t < nt; t++)
    {
        vi start = start_of(codes, bias, rec, nt, t, 0);
        vf sum = vf_mul(vf_of_vi(dot_codes(codes, start, c, 8, act_codes(rec, t))), scale);
        acc[t] = vf_fma(sum, act_scale(rec, nt, t), acc[t]);
    }
}

INLINE void add_minimum(vf *acc, int nt, vf minus_min, const uint8_t *rec)
{
    UNROLL for (int t = 0; t < nt; t++) acc[t] =
        vf_fma(minus_min, act_scaled_sum(rec, nt, t), acc[t]);
}

/* The sum of 16 columns, the first or the last of a record. */
INLINE vf sum_half(enum codes codes, const vi c[4], int bias, int half, const uint8_t *rec, int nt,
                   int t)
{
    vi start = start_of(codes, bias, rec, nt, t, 1 + half);
    return vf_of_vi(dot_codes(codes, start, c, 4, act_codes(rec, t) + 16 * half));
}

/* 32 columns with a scale for each 16. */
INLINE void add_halves(vf *acc, int nt, enum codes codes, const vi c[8], const vf scale[2],
                       int bias, const uint8_t *rec)
{
    READ_AGAIN(rec);
    UNROLL for (int t = 0; t < nt; t++)
    {
        vf sum = vf_mul(sum_half(codes, c, bias, 0, rec, nt, t), scale[0]);
        sum = vf_fma(sum_half(codes, c + 4, bias, 1, rec, nt, t), scale[1], sum);
        acc[t] = vf_fma(sum, act_scale(rec, nt, t), acc[t]);
    }
}

/* The same with a minimum for each 16 as well. */
INLINE void add_halves_min(vf *acc, int nt, const vi c[8], const vf scale[2], const vf min[2],
                           const uint8_t *rec)
{
    READ_AGAIN(rec);
    UNROLL for (int t = 0; t < nt; t++)
    {
        vf sum = vf_mul(sum_half(CODES_U4, c, NO_BIAS, 0, rec, nt, t), scale[0]);
        sum = vf_fma(sum_half(CODES_U4, c + 4, NO_BIAS, 1, rec, nt, t), scale[1], sum);
        sum = vf_fma(vf_of_vi(act_bias(rec, nt, t, 1, 0)), min[0], sum);
        sum = vf_fma(vf_of_vi(act_bias(rec, nt, t, 2, 0)), min[1], sum);
        acc[t] = vf_fma(sum, act_scale(rec, nt, t), acc[t]);
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
