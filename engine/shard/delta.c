/* Linear attention with the gated delta rule (Yang et al., 2024; Qwen3-Next).
 *
 * Queries, keys and values go through a short convolution and SiLU; queries and keys are brought to
 * length 1. A head keeps a matrix S [head, head]. A token first lets it fade by exp(decay), then
 * corrects what S answers to its key towards its value, by beta: S += beta (v - S k) kᵀ, and reads
 * o = S q. The output is normed per head, gated by SiLU(z), and projected.
 *
 * A slot's state: the convolution's last taps [taps - 1, channels], then S of every value head.
 * Work is divided by channels, then by heads; each goes through the rows in their order. */
#include "engine/shard/shard.h"

#include <math.h>
#include <string.h>

struct delta {
    struct pass *pass;
    float *mixed; /* [n_rows, ld]: channels, gates z, betas, alphas */
    size_t ld;
    size_t n_channels;
    size_t gate_at, beta_at, alpha_at;
};

static float silu(float x)
{
    return x / (1 + expf(-x));
}

static void convolve_channels(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct delta *d = ctx;
    const struct pass *pass = d->pass;
    uint32_t n_taps = pass->hparams->conv_taps;
    const float *taps = pass->weights->vector[SLOT_DELTA_CONV];

    (void)thread;
    for (size_t r = 0; r < pass->n_rows; r++) {
        float *state = kv_state(pass->shard->kv, pass->layer, pass->rows[r].slot);
        float *row = d->mixed + r * d->ld;

        for (size_t i = begin; i < end; i++)
            row[i] = silu(convolve(state + i, d->n_channels, taps + i * n_taps, n_taps, row[i]));
    }
}

static void to_length_one(const struct pass *pass, float *x, float scale)
{
    size_t n = pass->hparams->delta_head;
    float length = sqrtf(pass->shard->ops->dot(x, x, n));

    pass->shard->ops->scale(x, scale / fmaxf(length, pass->hparams->norm_eps), n);
}

static void norm_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct delta *d = ctx;
    const struct hparams *hp = d->pass->hparams;
    size_t n_keys = (size_t)hp->delta_key_heads * hp->delta_head;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        for (size_t h = 0; h < hp->delta_key_heads; h++) {
            float *query = d->mixed + r * d->ld + h * hp->delta_head;

            to_length_one(d->pass, query, 1 / sqrtf((float)hp->delta_head));
            to_length_one(d->pass, query + n_keys, 1);
        }
    }
}

/* beta and the factor by which S fades, of one head. The two may come interleaved by key head. */
static void gates_of(const struct delta *d, const float *row, uint32_t head, float *beta,
                     float *fade)
{
    const struct pass *pass = d->pass;
    const struct hparams *hp = pass->hparams;
    uint32_t share = hp->delta_value_heads / hp->delta_key_heads;
    float b = row[d->beta_at + head];
    float a = row[d->alpha_at + head];

    if (pass->weights->matrix[SLOT_DELTA_BETA_ALPHA]) {
        const float *pair = row + d->beta_at + (size_t)(head / share) * 2 * share;

        b = pair[head % share];
        a = pair[share + head % share];
    }
    a += pass->weights->bias[SLOT_DELTA_STEP][head];
    a = a > 20 ? a : log1pf(expf(a));
    *beta = 1 / (1 + expf(-b));
    *fade = expf(a * pass->weights->vector[SLOT_DELTA_DECAY][head]);
}

static void step_head(const struct delta *d, float *state, const float *row, uint32_t head,
                      float *out)
{
    const struct hparams *hp = d->pass->hparams;
    const struct vector_ops *ops = d->pass->shard->ops;
    size_t n = hp->delta_head;
    uint32_t share = hp->delta_value_heads / hp->delta_key_heads;
    uint32_t key_head =
        d->pass->arch->delta_heads_tiled ? head % hp->delta_key_heads : head / share;
    const float *query = row + key_head * n;
    const float *key = query + hp->delta_key_heads * n;
    const float *value = row + (2 * hp->delta_key_heads + head) * n;
    float beta;
    float fade;

    gates_of(d, row, head, &beta, &fade);
    for (size_t i = 0; i < n; i++) {
        float *answers = state + i * n;

        ops->scale(answers, fade, n);
        ops->axpy(beta * (value[i] - ops->dot(answers, key, n)), key, answers, n);
        out[i] = ops->dot(answers, query, n);
    }
}

static void step_heads(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct delta *d = ctx;
    const struct pass *pass = d->pass;
    const struct scratch *scratch = &pass->shard->scratch;
    size_t n = pass->hparams->delta_head;
    size_t taps_floats = (pass->hparams->conv_taps - 1) * d->n_channels;

    (void)thread;
    for (size_t r = 0; r < pass->n_rows; r++) {
        float *state = kv_state(pass->shard->kv, pass->layer, pass->rows[r].slot) + taps_floats;
        const float *row = d->mixed + r * d->ld;

        for (size_t h = begin; h < end; h++) {
            float *out = scratch->attended + r * scratch->ld_attended + h * n;
            const float *gate = row + d->gate_at + h * n;

            step_head(d, state + h * n * n, row, (uint32_t)h, out);
            norm_row(pass->shard, out, out, pass->weights->vector[SLOT_DELTA_NORM], NULL, n);
            for (size_t i = 0; i < n; i++)
                out[i] *= silu(gate[i]);
        }
    }
}

static void project(const struct delta *d, const float *in)
{
    const struct pass *pass = d->pass;
    struct weight *const *m = pass->weights->matrix;
    bool paired = m[SLOT_DELTA_BETA_ALPHA] != NULL;
    const struct weight *w[4] = {m[SLOT_ATTN_QKV], m[SLOT_DELTA_GATE],
                                 paired ? m[SLOT_DELTA_BETA_ALPHA] : m[SLOT_DELTA_BETA],
                                 m[SLOT_DELTA_ALPHA]};
    float *y[4] = {d->mixed, d->mixed + d->gate_at, d->mixed + d->beta_at, d->mixed + d->alpha_at};
    size_t ldy[4] = {d->ld, d->ld, d->ld, d->ld};

    compute_matmul_many(pass->shard->compute, w, paired ? 3 : 4, in, pass->hparams->n_embd,
                        pass->n_rows, y, ldy);
}

void delta_run(struct pass *pass, const float *in, float *branch)
{
    struct compute *compute = pass->shard->compute;
    const struct hparams *hp = pass->hparams;
    const struct scratch *scratch = &pass->shard->scratch;
    struct delta d = {.pass = pass, .mixed = scratch->qkv, .ld = scratch->ld_qkv};

    d.n_channels = delta_channels(hp);
    d.gate_at = d.n_channels;
    d.beta_at = d.gate_at + (size_t)hp->delta_value_heads * hp->delta_head;
    d.alpha_at = d.beta_at + hp->delta_value_heads;
    project(&d, in);
    compute_parallel(compute, d.n_channels, convolve_channels, &d);
    compute_parallel(compute, pass->n_rows, norm_rows, &d);
    compute_parallel(compute, hp->delta_value_heads, step_heads, &d);
    compute_matmul(compute, pass->weights->matrix[SLOT_DELTA_OUT], scratch->attended,
                   scratch->ld_attended, pass->n_rows, branch, hp->n_embd);
}
