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

void activate_row(const struct shard *shard, float *gate, const float *up, size_t n)
{
    switch (shard->model->arch->activation) {
    case ACTIVATION_SILU:
        if (up) {
            shard->ops->silu_mul(gate, up, n);
            return;
        }
        for (size_t i = 0; i < n; i++)
            gate[i] = gate[i] / (1 + expf(-gate[i]));
        break;
    case ACTIVATION_GELU:
        for (size_t i = 0; i < n; i++)
            gate[i] = gelu(gate[i]);
        break;
    case ACTIVATION_RELU_SQUARED:
        for (size_t i = 0; i < n; i++)
            gate[i] = gate[i] > 0 ? gate[i] * gate[i] : 0;
        break;
    }
    for (size_t i = 0; up && i < n; i++)
        gate[i] *= up[i];
}

static void activate_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct pass *pass = ctx;
    const struct scratch *scratch = &pass->shard->scratch;
    const struct layer_weights *w = pass->weights;
    size_t n_ff = pass->shape->n_ff;
    bool gated = w->matrix[SLOT_FFN_GATE] != NULL || pass->arch->gate_in_up;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        float *gate = scratch->ff + r * scratch->ld_ff;
        float *up = gate + n_ff;

        if (w->bias[SLOT_FFN_GATE])
            pass->shard->ops->add(gate, w->bias[SLOT_FFN_GATE], n_ff);
        if (w->bias[SLOT_FFN_UP])
            pass->shard->ops->add(gated ? up : gate, w->bias[SLOT_FFN_UP], n_ff);
        activate_row(pass->shard, gate, gated ? up : NULL, n_ff);
    }
}

void ffn_run(struct pass *pass, const float *in, float *branch)
{
    struct compute *compute = pass->shard->compute;
    const struct scratch *scratch = &pass->shard->scratch;
    struct weight *const *m = pass->weights->matrix;
    size_t n_embd = pass->hparams->n_embd;

    if (m[SLOT_FFN_GATE]) {
        const struct weight *w[2] = {m[SLOT_FFN_GATE], m[SLOT_FFN_UP]};
        float *y[2] = {scratch->ff, scratch->ff + pass->shape->n_ff};
        size_t ldy[2] = {scratch->ld_ff, scratch->ld_ff};

        compute_matmul_many(compute, w, 2, in, n_embd, pass->n_rows, y, ldy);
    } else {
        compute_matmul(compute, m[SLOT_FFN_UP], in, n_embd, pass->n_rows, scratch->ff,
                       scratch->ld_ff);
    }
    compute_parallel(compute, pass->n_rows, activate_rows, pass);
    compute_matmul(compute, m[SLOT_FFN_DOWN], scratch->ff, scratch->ld_ff, pass->n_rows, branch,
                   n_embd);
}
