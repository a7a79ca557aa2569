/* A short gated convolution in place of attention (LFM2): out(c · conv(b · x)).
 *
 * One product gives b, c and x; the convolution runs over the last taps of b · x, channel by
 * channel. The taps before this pass are the slot's state, [taps - 1, n_embd], the oldest first.
 * Work is divided by channels, and a channel goes through the rows in their order, so the result
 * does not depend on how a sequence was cut into passes. */
#include "engine/shard/shard.h"

#include <string.h>

float convolve(float *state, size_t ld_state, const float *taps, uint32_t n_taps, float x)
{
    float sum = 0;

    for (uint32_t j = 0; j + 1 < n_taps; j++)
        sum += taps[j] * state[j * ld_state];
    sum += taps[n_taps - 1] * x;
    for (uint32_t j = 0; j + 2 < n_taps; j++)
        state[j * ld_state] = state[(j + 1) * ld_state];
    state[(n_taps - 2) * ld_state] = x;
    return sum;
}

static void channels(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct pass *pass = ctx;
    const struct scratch *scratch = &pass->shard->scratch;
    size_t n = pass->hparams->n_embd;
    uint32_t n_taps = pass->hparams->conv_taps;
    const float *taps = pass->weights->vector[SLOT_CONV];

    (void)thread;
    for (size_t r = 0; r < pass->n_rows; r++) {
        float *state = kv_state(pass->shard->kv, pass->layer, pass->rows[r].slot);
        const float *b = scratch->qkv + r * scratch->ld_qkv;
        const float *c = b + n;
        const float *x = c + n;
        float *out = scratch->attended + r * scratch->ld_attended;

        for (size_t i = begin; i < end; i++)
            out[i] = c[i] * convolve(state + i, n, taps + i * n_taps, n_taps, b[i] * x[i]);
    }
}

void conv_run(struct pass *pass, const float *in, float *branch)
{
    struct compute *compute = pass->shard->compute;
    const struct scratch *scratch = &pass->shard->scratch;
    struct weight *const *m = pass->weights->matrix;
    size_t n = pass->hparams->n_embd;

    compute_matmul(compute, m[SLOT_CONV_IN], in, n, pass->n_rows, scratch->qkv, scratch->ld_qkv);
    compute_parallel(compute, n, channels, pass);
    compute_matmul(compute, m[SLOT_CONV_OUT], scratch->attended, scratch->ld_attended, pass->n_rows,
                   branch, n);
}
