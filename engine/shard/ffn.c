/* The dense feed-forward: down(activation(gate x) · up x), or down(activation(up x)) without a
 * gate.
 *
 * Gate and up stand side by side in one scratch row, whether the file has them as two matrices or
 * as one, so that the step between the products is the same for all. */
#include "engine/shard/shard.h"

#include <math.h>

static float gelu(float x)
{
    return 0.5f * x * (1 + tanhf(0.79788456080286536f * x * (1 + 0.044715f * x * x)));
}

static void activate(enum activation activation, float *x, size_t n)
{
    switch (activation) {
    case ACTIVATION_SILU:
    case ACTIVATION_SWIGLU_CLAMPED: /* only with a gate: see there */
        for (size_t i = 0; i < n; i++)
            x[i] = x[i] / (1 + expf(-x[i]));
        break;
    case ACTIVATION_GELU:
        for (size_t i = 0; i < n; i++)
            x[i] = gelu(x[i]);
        break;
    case ACTIVATION_RELU_SQUARED:
        for (size_t i = 0; i < n; i++)
            x[i] = x[i] > 0 ? x[i] * x[i] : 0;
        break;
    }
}

/* gpt-oss: both sides are cut at 7, the gate's sigmoid is steeper, up is around 1. */
static void swiglu_clamped(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float x = fminf(gate[i], 7);
        float y = fmaxf(fminf(up[i], 7), -7);

        gate[i] = x / (1 + expf(-1.702f * x)) * (y + 1);
    }
}

void activate_gated(const struct shard *shard, float *gate, const float *up, size_t n)
{
    enum activation activation = shard->model->arch->activation;

    if (activation == ACTIVATION_SILU) {
        shard->ops->silu_mul(gate, up, n);
        return;
    }
    if (activation == ACTIVATION_SWIGLU_CLAMPED) {
        swiglu_clamped(gate, up, n);
        return;
    }
    activate(activation, gate, n);
    for (size_t i = 0; i < n; i++)
        gate[i] *= up[i];
}

struct ffn { /* one feed-forward: which slots, and its width */
    struct pass *pass;
    uint32_t gate, up, down;
    size_t n_ff;
    bool gated;
};

static void activate_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct ffn *ffn = ctx;
    const struct shard *shard = ffn->pass->shard;
    float *const *bias = ffn->pass->weights->bias;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        float *gate = shard->scratch.ff + r * shard->scratch.ld_ff;
        float *up = gate + (ffn->gated ? ffn->n_ff : 0);

        if (bias[ffn->gate])
            shard->ops->add(gate, bias[ffn->gate], ffn->n_ff);
        if (bias[ffn->up])
            shard->ops->add(up, bias[ffn->up], ffn->n_ff);
        if (ffn->gated)
            activate_gated(shard, gate, up, ffn->n_ff);
        else
            activate(shard->model->arch->activation, gate, ffn->n_ff);
    }
}

static void run(struct ffn *ffn, const float *in, float *branch)
{
    const struct pass *pass = ffn->pass;
    struct compute *compute = pass->shard->compute;
    const struct scratch *scratch = &pass->shard->scratch;
    struct weight *const *m = pass->weights->matrix;
    size_t n_embd = pass->hparams->n_embd;

    ffn->gated = m[ffn->gate] != NULL || pass->arch->gate_in_up;
    if (m[ffn->gate]) {
        const struct weight *w[2] = {m[ffn->gate], m[ffn->up]};
        float *y[2] = {scratch->ff, scratch->ff + ffn->n_ff};
        size_t ldy[2] = {scratch->ld_ff, scratch->ld_ff};

        compute_matmul_many(compute, w, 2, in, n_embd, pass->n_rows, y, ldy);
    } else {
        compute_matmul(compute, m[ffn->up], in, n_embd, pass->n_rows, scratch->ff, scratch->ld_ff);
    }
    compute_parallel(compute, pass->n_rows, activate_rows, ffn);
    compute_matmul(compute, m[ffn->down], scratch->ff, scratch->ld_ff, pass->n_rows, branch,
                   n_embd);
}

void ffn_run(struct pass *pass, const float *in, float *branch)
{
    struct ffn ffn = {.pass = pass,
                      .gate = SLOT_FFN_GATE,
                      .up = SLOT_FFN_UP,
                      .down = SLOT_FFN_DOWN,
                      .n_ff = pass->shape->n_ff};

    run(&ffn, in, branch);
}

void ffn_run_shared(struct pass *pass, const float *in, float *branch)
{
    struct ffn ffn = {.pass = pass,
                      .gate = SLOT_SHARED_GATE,
                      .up = SLOT_SHARED_UP,
                      .down = SLOT_SHARED_DOWN,
                      .n_ff = pass->hparams->n_shared_ff};

    run(&ffn, in, branch);
}
