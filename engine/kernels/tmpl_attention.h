/* Attention over a page of keys and values (attend.h) with online softmax (Milakov and
 * Gimelshein, 2018; FlashAttention, Dao et al., 2022), over the same primitives.
 *
 * Scores: a lane is a key, its sum runs over the values of a head in order. Output: a lane is a
 * value, its sum runs over the tokens in order. So nothing is added across lanes but the weights,
 * once, at the end; and a query's result is the same bits in a tile of one and in a tile of 32.
 * Several queries share each key and value that was loaded, and the conversion from its type.
 *
 * After a page, sums and outputs refer to the largest score so far; when a page raises it, they are
 * multiplied by exp(old − new) first. Tokens that a query does not see have the score −INFINITY and
 * are not added: memory behind the last token may hold anything. */

/* LANES elements of a type from element `at`; codes without their scale. */
INLINE vf kv_load(enum kv_type type, const uint8_t *p, size_t at)
{
    if (type == KV_F16)
        return vf_half(p + 2 * at);
    if (type == KV_Q8_0)
        return vf_of_vi(vi_s8(p + at));
    return vf_load((const float *)(const void *)p + at);
}

/* With few queries memory sets the pace, and the prefetcher's stream would stop while weights are
 * computed: what comes next in memory is asked for this much ahead. */
enum { FEW_QUERIES = 4, AHEAD_BYTES = 4096 };

INLINE void kv_prefetch(enum kv_type type, const uint8_t *p, size_t at, size_t n)
{
    size_t size = type == KV_F32 ? 4 : type == KV_F16 ? 2 : 1;
    UNROLL for (size_t i = 0; i < n * size; i += 64)
        __builtin_prefetch(p + at * size + AHEAD_BYTES + i);
}

/* ---------------------------------------------------------------- scores */

/* nq queries from `q`, nv registers of keys from token `t`. */
INLINE void score_keys(struct attend_tile *a, enum kv_type type, const uint8_t *keys, size_t q,
                       int nq, size_t t, int nv)
{
    vf sum[8][4], k[4], scale[4];
    size_t ldq = a->n_queries;
    const float *x = a->queries + q;
    UNROLL for (int i = 0; i < nq; i++) UNROLL for (int j = 0; j < nv; j++) sum[i][j] =
        vf_set(0.0f);
    for (size_t d = 0; d < a->head_k; d += KV_BLOCK) {
        size_t n = a->head_k - d < KV_BLOCK ? a->head_k - d : KV_BLOCK;
        const uint8_t *block = keys;
        size_t at = d * ATTEND_TOKENS + t;
        if (type == KV_Q8_0) {
            block = keys + d * ATTEND_TOKENS + d / KV_BLOCK * 2 * ATTEND_TOKENS;
            UNROLL for (int j = 0; j < nv; j++) scale[j] =
                vf_half(block + 2 * (t + (size_t)j * LANES));
            block += 2 * ATTEND_TOKENS;
            at = t;
        }
        for (size_t i = 0; i < n; i++, at += ATTEND_TOKENS, x += ldq) {
            if (nq <= FEW_QUERIES)
                kv_prefetch(type, block, at, (size_t)nv * LANES);
            UNROLL for (int j = 0; j < nv; j++)
            {
                k[j] = kv_load(type, block, at + (size_t)j * LANES);
                if (type == KV_Q8_0)
                    k[j] = vf_mul(k[j], scale[j]);
            }
            UNROLL for (int u = 0; u < nq; u++)
            {
                vf one = vf_dup(x + u);
                UNROLL for (int j = 0; j < nv; j++) sum[u][j] = vf_fma(one, k[j], sum[u][j]);
            }
        }
    }
    UNROLL for (int i = 0; i < nq; i++) UNROLL for (int j = 0; j < nv; j++)
        vf_store(a->scores[q + (size_t)i] + t + j * LANES, sum[i][j]);
}

/* Few queries take a whole page at once, to have enough sums under way. */
INLINE void score_page(struct attend_tile *a, enum kv_type type, const uint8_t *keys, size_t q,
                       int nq)
{
    enum { WHOLE = ATTEND_TOKENS / LANES };
    int nv = nq <= 2 ? WHOLE : 2;
    for (size_t t = 0; t < ATTEND_TOKENS; t += (size_t)nv * LANES)
        score_keys(a, type, keys, q, nq, t, nv);
}

/* ---------------------------------------------------------------- softmax */

INLINE vf vf_tanh(vf x)
{
    vf one = vf_set(1.0f), e = vf_exp(vf_add(x, x));
    return vf_div(vf_sub(e, one), vf_add(e, one));
}

_Static_assert(ATTEND_TOKENS == 32, "the tables below have an entry for each token");
#define EIGHT(x) x, x, x, x, x, x, x, x
#define PAGE(x)  EIGHT(x), EIGHT(x), EIGHT(x), EIGHT(x)
/* Read from a place before or behind its middle: what is not seen has no more than −INFINITY. */
static const float score_limits[3 * ATTEND_TOKENS] = {PAGE(-INFINITY), PAGE(INFINITY),
                                                      PAGE(-INFINITY)};
static const float token_numbers[ATTEND_TOKENS] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                                   11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                                   22, 23, 24, 25, 26, 27, 28, 29, 30, 31};

/* The scores of a query as they count, −INFINITY where it does not see; the largest. */
INLINE float shape_scores(struct attend_tile *a, size_t q, uint32_t first)
{
    bool whole = a->from[q] == 0 && a->to[q] == ATTEND_TOKENS;
    vf most = vf_set(-INFINITY), scale = vf_set(a->scale);
    vf own = vf_set((float)(int32_t)(a->end[q] - 1 - first)), slope = vf_set(a->slope[q]);
    for (size_t t = 0; t < ATTEND_TOKENS; t += LANES) {
        vf s = vf_mul(vf_load(a->scores[q] + t), scale);
        if (a->cap > 0)
            s = vf_mul(vf_tanh(vf_div(s, vf_set(a->cap))), vf_set(a->cap));
        if (a->slope[q] > 0)
            s = vf_sub(s, vf_mul(slope, vf_sub(own, vf_load(token_numbers + t))));
        if (!whole) {
            s = vf_min(s, vf_load(score_limits + ATTEND_TOKENS - a->from[q] + t));
            s = vf_min(s, vf_load(score_limits + 2 * ATTEND_TOKENS - a->to[q] + t));
        }
        vf_store(a->scores[q] + t, s);
        most = vf_max(s, most);
    }
    return vf_largest(most);
}

INLINE void see_page(struct attend_tile *a, size_t q, uint32_t first)
{
    uint32_t last = a->end[q] > first ? a->end[q] - first : 0;
    a->from[q] = a->begin[q] > first ? a->begin[q] - first : 0;
    a->to[q] = last < ATTEND_TOKENS ? last : ATTEND_TOKENS;
    if (a->from[q] > a->to[q])
        a->from[q] = a->to[q];
}

/* From scores to weights exp(score − most); sums and `factor` follow. */
INLINE void weigh_page(struct attend_tile *a, uint32_t first)
{
    size_t n = a->n_queries;
    for (size_t q = 0; q < n; q++) {
        float old = a->most[q];
        see_page(a, q, first);
        if (a->from[q] == a->to[q])
            continue;
        float most = shape_scores(a, q, first);
        a->most[q] = most > old ? most : old;
        a->factor[q] = old - a->most[q];
    }
    for (size_t q = 0; q < n; q += LANES)
        vf_store(a->factor + q, vf_exp(vf_load(a->factor + q)));
    for (size_t q = 0; q < n; q++) {
        if (a->from[q] == a->to[q])
            continue;
        vf most = vf_set(a->most[q]);
        vf sum = vf_mul(vf_load(a->sums[q]), vf_set(a->factor[q]));
        for (size_t t = 0; t < ATTEND_TOKENS; t += LANES) {
            vf e = vf_exp(vf_sub(vf_load(a->scores[q] + t), most));
            vf_store(a->scores[q] + t, e);
            sum = vf_add(sum, e);
        }
        vf_store(a->sums[q], sum);
    }
}

/* ---------------------------------------------------------------- values */

/* nv registers of values from value `d`, for nq queries that see the same tokens. */
INLINE void mix_values(struct attend_tile *a, enum kv_type type, const uint8_t *values, size_t q,
                       int nq, size_t d, int nv)
{
    vf sum[8][8], weight[8];
    size_t cols = a->value_cols, blocks = cols / KV_BLOCK;
    const uint8_t *codes = type == KV_Q8_0 ? values + blocks * 2 * ATTEND_TOKENS : values;
    UNROLL for (int i = 0; i < nq; i++)
    {
        const float *out = a->out + (q + (size_t)i) * a->head_v + d;
        vf factor = vf_set(a->factor[q + (size_t)i]);
        UNROLL for (int j = 0; j < nv; j++) sum[i][j] = vf_mul(vf_load(out + j * LANES), factor);
    }
    for (size_t t = a->from[q]; t < a->to[q]; t++) {
        if (nq <= FEW_QUERIES)
            kv_prefetch(type, codes, t * cols + d, (size_t)nv * LANES);
        UNROLL for (int i = 0; i < nq; i++) weight[i] = vf_dup(&a->scores[q + (size_t)i][t]);
        UNROLL for (int j = 0; j < nv; j++)
        {
            size_t at = d + (size_t)j * LANES;
            vf v = kv_load(type, codes, t * cols + at);
            if (type == KV_Q8_0)
                v = vf_mul(v, vf_dup(a->value_scales + t * blocks + at / KV_BLOCK));
            UNROLL for (int i = 0; i < nq; i++) sum[i][j] = vf_fma(weight[i], v, sum[i][j]);
        }
    }
    UNROLL for (int i = 0; i < nq; i++)
    {
        float *out = a->out + (q + (size_t)i) * a->head_v + d;
        UNROLL for (int j = 0; j < nv; j++) vf_store(out + j * LANES, sum[i][j]);
    }
}

/* The last values of a head, fewer than a register holds: through buffers, of one query. */
static void mix_rest(struct attend_tile *a, enum kv_type type, const uint8_t *values, size_t q,
                     size_t d)
{
    float buffer[LANES] = {0}, *out = a->out + q * a->head_v + d;
    size_t n = a->head_v - d, size = type == KV_F16 ? 2 : 4;
    memcpy(buffer, out, n * sizeof *buffer);
    vf sum = vf_mul(vf_load(buffer), vf_set(a->factor[q]));
    for (size_t t = a->from[q]; t < a->to[q]; t++) {
        uint8_t row[4 * LANES] = {0};
        memcpy(row, values + (t * a->value_cols + d) * size, n * size);
        sum = vf_fma(vf_set(a->scores[q][t]),
                     type == KV_F16 ? kv_load(KV_F16, row, 0) : kv_load(KV_F32, row, 0), sum);
    }
    vf_store(buffer, sum);
    memcpy(out, buffer, n * sizeof *buffer);
}

INLINE void mix_page(struct attend_tile *a, enum kv_type type, const uint8_t *values, size_t q,
                     int nq)
{
    size_t d = 0, n = a->head_v;
    if (8 * nq <= ATTEND_SUMS)
        for (; d + 8 * LANES <= n; d += 8 * LANES)
            mix_values(a, type, values, q, nq, d, 8);
    if (4 * nq <= ATTEND_SUMS)
        for (; d + 4 * LANES <= n; d += 4 * LANES)
            mix_values(a, type, values, q, nq, d, 4);
    for (; d + 2 * LANES <= n; d += 2 * LANES)
        mix_values(a, type, values, q, nq, d, 2);
    for (; d + LANES <= n; d += LANES)
        mix_values(a, type, values, q, nq, d, 1);
    for (int i = 0; d < n && i < nq; i++)
        mix_rest(a, type, values, q + (size_t)i, d);
}

/* ---------------------------------------------------------------- pages */

/* Calls step(a, type, part, q, count) with constants for all three. */
#define WITH_COUNT(step, type)                                                                     \
    switch (count) {                                                                               \
    case 8:                                                                                        \
        if (ATTEND_BLOCK == 8)                                                                     \
            step(a, type, part, q, ATTEND_BLOCK);                                                  \
        break;                                                                                     \
    case 4:                                                                                        \
        step(a, type, part, q, 4);                                                                 \
        break;                                                                                     \
    case 3:                                                                                        \
        step(a, type, part, q, 3);                                                                 \
        break;                                                                                     \
    case 2:                                                                                        \
        step(a, type, part, q, 2);                                                                 \
        break;                                                                                     \
    default:                                                                                       \
        step(a, type, part, q, 1);                                                                 \
        break;                                                                                     \
    }
#define WITH_TYPE(step, type)                                                                      \
    if ((type) == KV_F16)                                                                          \
        WITH_COUNT(step, KV_F16)                                                                   \
    else if ((type) == KV_Q8_0)                                                                    \
        WITH_COUNT(step, KV_Q8_0)                                                                  \
    else                                                                                           \
        WITH_COUNT(step, KV_F32)

static void score_queries(struct attend_tile *a, enum kv_type type, const uint8_t *part)
{
    for (size_t q = 0, count; q < a->n_queries; q += count) {
        count = tile_rows(a->n_queries - q, ATTEND_BLOCK);
        WITH_TYPE(score_page, type)
    }
}

/* Queries that see the same tokens go together. */
static void mix_queries(struct attend_tile *a, const uint8_t *part)
{
    for (size_t q = 0, end; q < a->n_queries; q = end) {
        end = q + 1;
        while (end < a->n_queries && a->from[end] == a->from[q] && a->to[end] == a->to[q])
            end++;
        if (a->from[q] == a->to[q])
            continue;
        for (size_t count; q < end; q += count) {
            count = tile_rows(end - q, ATTEND_BLOCK);
            WITH_TYPE(mix_page, a->value_type)
        }
    }
}

static void load_scales(const uint8_t *part, size_t n, float *out)
{
    for (size_t i = 0; i < n; i += LANES)
        vf_store(out + i, vf_half(part + 2 * i));
}

/* LANES keys that lie by token as floats; past the end of the row zeros. */
INLINE void load_key(const struct attend_tile *a, enum kv_type type, const uint8_t *codes, size_t t,
                     size_t d, float *out)
{
    size_t n = a->head_k, size = type == KV_F16 ? 2 : 4;
    uint8_t row[4 * LANES] = {0};
    vf v;
    if (d + LANES <= n) {
        v = kv_load(type, codes, t * n + d);
    } else {
        memcpy(row, codes + (t * n + d) * size, (n - d) * size);
        v = kv_load(type, row, 0);
    }
    if (type == KV_Q8_0)
        v = vf_mul(v, vf_set(a->value_scales[t * (n / KV_BLOCK) + d / KV_BLOCK]));
    vf_store(out, v);
}

/* Turned, a few values of all tokens at a time: what is written stays in the nearest cache. */
INLINE void turn_keys(struct attend_tile *a, enum kv_type type, const uint8_t *codes)
{
    for (size_t d = 0; d < a->head_k; d += LANES) {
        size_t n = a->head_k - d < LANES ? a->head_k - d : LANES;
        float *out = a->keys + d * ATTEND_TOKENS;
        for (size_t t = 0; t < ATTEND_TOKENS; t++) {
            float x[LANES];
            load_key(a, type, codes, t, d, x);
            for (size_t i = 0; i < n; i++)
                out[i * ATTEND_TOKENS + t] = x[i];
        }
    }
}

static void load_keys(struct attend_tile *a, const uint8_t *part)
{
    size_t blocks = a->head_k / KV_BLOCK;
    if (a->key_type == KV_Q8_0) {
        load_scales(part, blocks * ATTEND_TOKENS, a->value_scales);
        turn_keys(a, KV_Q8_0, part + 2 * blocks * ATTEND_TOKENS);
    } else if (a->key_type == KV_F16) {
        turn_keys(a, KV_F16, part);
    } else {
        turn_keys(a, KV_F32, part);
    }
}

static void op_attend_page(struct attend_tile *a, const uint8_t *keys, const uint8_t *values,
                           uint32_t first)
{
    if (a->keys_by_token) {
        load_keys(a, keys);
        score_queries(a, KV_F32, (const uint8_t *)a->keys);
    } else {
        score_queries(a, a->key_type, keys);
    }
    weigh_page(a, first);
    if (a->value_type == KV_Q8_0 && !a->keys_by_token)
        load_scales(values, a->value_cols, a->value_scales);
    mix_queries(a, values);
}

/* ---------------------------------------------------------------- storing */

static void store_strided(const void *x, size_t size, size_t n, uint32_t token, uint8_t *part)
{
    const uint8_t *from = x;
    for (size_t i = 0; i < n; i++)
        memcpy(part + (i * ATTEND_TOKENS + token) * size, from + i * size, size);
}

/* 32 values to codes; the scale as a half. The largest is divided by the scale as it is kept. */
static void kv_quantize(const float *x, uint8_t *codes, uint8_t *scale)
{
    vf most = vf_set(0.0f), odd = vf_set(0.0f);
    uint8_t half[2 * LANES];
    float kept[LANES];
    for (int i = 0; i < KV_BLOCK; i += LANES) {
        most = vf_max(vf_abs(vf_load(x + i)), most);
        odd = vf_fma(vf_load(x + i), vf_set(0.0f), odd);
    }
    vf_store_half(half, vf_set(vf_largest(most) / 127.0f));
    vf_store(kept, vf_half(half));
    if (!(vf_fold_sum(odd) == 0.0f)) { /* NaN */
        half[0] = 0;
        half[1] = 0x7e;
        kept[0] = 0.0f;
    }
    memcpy(scale, half, 2);
    vf inverse = vf_set(kept[0] > 0.0f ? 1.0f / kept[0] : 0.0f);
    for (int i = 0; i < KV_BLOCK; i += LANES) {
        vf code = vf_min(vf_set(127.0f), vf_mul(vf_load(x + i), inverse));
        vi_store_bytes(codes + i, vi_round(vf_max(vf_set(-127.0f), code)));
    }
}

static void store_q8_0(bool by_token, const float *x, size_t n, uint32_t token, uint8_t *part)
{
    size_t blocks = n / KV_BLOCK;
    uint8_t codes[KV_BLOCK], scale[2];
    for (size_t b = 0; b < blocks; b++) {
        kv_quantize(x + b * KV_BLOCK, codes, scale);
        if (by_token) {
            memcpy(part + (token * blocks + b) * 2, scale, 2);
            memcpy(part + blocks * 2 * ATTEND_TOKENS + token * n + b * KV_BLOCK, codes, KV_BLOCK);
        } else {
            uint8_t *block = part + b * (KV_BLOCK + 2) * ATTEND_TOKENS;
            memcpy(block + 2 * token, scale, 2);
            store_strided(codes, 1, KV_BLOCK, token, block + 2 * ATTEND_TOKENS);
        }
    }
}

static void store_f16(bool by_token, const float *x, size_t n, uint32_t token, uint8_t *part)
{
    for (size_t d = 0; d < n; d += LANES) {
        size_t count = n - d < LANES ? n - d : LANES;
        float in[LANES] = {0};
        uint8_t half[2 * LANES];
        memcpy(in, x + d, count * sizeof *in);
        vf_store_half(half, vf_load(in));
        if (by_token)
            memcpy(part + 2 * (token * n + d), half, 2 * count);
        else
            store_strided(half, 2, count, token, part + 2 * d * ATTEND_TOKENS);
    }
}

static void op_kv_store(enum kv_type type, bool by_token, const float *x, size_t n, uint32_t token,
                        uint8_t *part)
{
    if (type == KV_Q8_0)
        store_q8_0(by_token, x, n, token, part);
    else if (type == KV_F16)
        store_f16(by_token, x, n, token, part);
    else if (by_token)
        memcpy(part + token * n * sizeof *x, x, n * sizeof *x);
    else
        store_strided(x, sizeof *x, n, token, part);
}
