/* The vector operations of a transformer over the same primitives. Sums run in four registers over
 * the whole vectors, then the rest one by one, and are folded in one order: a result depends on the
 * input and the instruction set only.
 *
 * exp: x = n ln 2 + r, |r| ≤ ln 2 / 2, a polynomial of degree 7 in r (Taylor's, whose error there
 * is 1e-8), times 2^n in two steps so that results near overflow and below the smallest normal come
 * out right. */

static float op_dot(const float *a, const float *b, size_t n)
{
    vf sum[4];
    size_t i = 0;
    UNROLL for (int j = 0; j < 4; j++) sum[j] = vf_set(0.0f);
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        UNROLL for (int j = 0; j < 4; j++) sum[j] =
            vf_fma(vf_load(a + i + j * LANES), vf_load(b + i + j * LANES), sum[j]);
    for (; i + LANES <= n; i += LANES)
        sum[0] = vf_fma(vf_load(a + i), vf_load(b + i), sum[0]);
    float total = vf_fold_sum(vf_add(vf_add(sum[0], sum[1]), vf_add(sum[2], sum[3])));
    for (; i < n; i++)
        total += a[i] * b[i];
    return total;
}

static void op_axpy(float a, const float *x, float *y, size_t n)
{
    size_t i = 0;
    vf va = vf_set(a);
    for (; i + LANES <= n; i += LANES)
        vf_store(y + i, vf_fma(va, vf_load(x + i), vf_load(y + i)));
    for (; i < n; i++)
        y[i] += a * x[i];
}

static void op_scale(float *x, float a, size_t n)
{
    size_t i = 0;
    vf va = vf_set(a);
    for (; i + LANES <= n; i += LANES)
        vf_store(x + i, vf_mul(vf_load(x + i), va));
    for (; i < n; i++)
        x[i] *= a;
}

static void op_add(float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store(y + i, vf_add(vf_load(y + i), vf_load(x + i)));
    for (; i < n; i++)
        y[i] += x[i];
}

static void op_rms_norm(float *out, const float *x, const float *weight, size_t n, float eps)
{
    float factor = 1.0f / sqrtf(op_dot(x, x, n) / (float)n + eps);
    size_t i = 0;
    vf vfactor = vf_set(factor);
    for (; i + LANES <= n; i += LANES)
        vf_store(out + i, vf_mul(vf_mul(vf_load(x + i), vfactor), vf_load(weight + i)));
    for (; i < n; i++)
        out[i] = x[i] * factor * weight[i];
}

/* 2^n for −127 < n < 128. */
INLINE vf power_of_two(vi n)
{
    return vf_of_bits(vi_shl(vi_add(n, vi_set(127)), 23));
}

/* The order of min and max keeps a NaN: each returns its second argument then. */
INLINE vf vf_exp(vf x)
{
    static const float c[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24,
                              1.0f / 6,    0.5f,       1.0f,       1.0f};
    vf magic = vf_set(12582912.0f);
    x = vf_min(vf_set(89.0f), vf_max(vf_set(-105.0f), x));
    vf shifted = vf_fma(x, vf_set(1.44269504f), magic);
    vi n = vi_sub(vi_of_bits(shifted), vi_of_bits(magic));
    vf whole = vf_sub(shifted, magic);
    vf r = vf_fma(whole, vf_set(-0.693359375f), x);
    r = vf_fma(whole, vf_set(2.12194440e-4f), r);
    vf p = vf_set(c[0]);
    UNROLL for (int i = 1; i < 8; i++) p = vf_fma(p, r, vf_set(c[i]));
    vi half = vi_sar(n, 1);
    return vf_mul(vf_mul(p, power_of_two(half)), power_of_two(vi_sub(n, half)));
}

INLINE vf silu_mul(vf gate, vf up)
{
    vf one = vf_set(1.0f), minus = vf_sub(vf_set(0.0f), gate);
    return vf_mul(vf_div(gate, vf_add(one, vf_exp(minus))), up);
}

static void op_silu_mul(float *gate, const float *up, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store(gate + i, silu_mul(vf_load(gate + i), vf_load(up + i)));
    if (i < n) {
        float g[LANES] = {0}, u[LANES] = {0};
        memcpy(g, gate + i, (n - i) * sizeof *g);
        memcpy(u, up + i, (n - i) * sizeof *u);
        vf_store(g, silu_mul(vf_load(g), vf_load(u)));
        memcpy(gate + i, g, (n - i) * sizeof *g);
    }
}

static float largest_of(const float *x, size_t n)
{
    size_t i = 0;
    float most;
    vf v = vf_set(-INFINITY);
    for (; i + LANES <= n; i += LANES)
        v = vf_max(vf_load(x + i), v);
    most = vf_largest(v);
    for (; i < n; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

static void op_softmax(float *x, size_t n)
{
    vf most = vf_set(largest_of(x, n)), sum = vf_set(0.0f);
    float rest = 0.0f;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf e = vf_exp(vf_sub(vf_load(x + i), most));
        vf_store(x + i, e);
        sum = vf_add(sum, e);
    }
    if (i < n) {
        float e[LANES] = {0};
        memcpy(e, x + i, (n - i) * sizeof *e);
        vf_store(e, vf_exp(vf_sub(vf_load(e), most)));
        memcpy(x + i, e, (n - i) * sizeof *e);
        for (size_t j = 0; j < n - i; j++)
            rest += e[j];
    }
    op_scale(x, 1.0f / (vf_fold_sum(sum) + rest), n);
}
