/* Inputs that the token gives to every layer.
 *
 * Beside its embedding a token has a vector per layer: a row of one large table, and a projection
 * of the embedding, normed, added and halved in power. They depend on the token and on nothing
 * before it, so the stage that embeds makes them all, and they travel behind the hidden row to the
 * stages that use them: a boundary between any two layers is one like every other. In its layer the
 * input is the factor of a gate from the hidden row; what comes out is a branch like attention's.
 *
 * Nothing fails here. Source: the published definition of Gemma 4. */
#include "engine/shard/shard.h"

#include <math.h>
#include <string.h>

struct making {
    struct shard *shard;
    float *extra;
};

static void norm_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct making *making = ctx;
    const struct shard *shard = making->shard;
    const struct hparams *hp = &shard->model->hparams;
    size_t n = hp->n_layer_input;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        float *row = making->extra + r * hp->n_extra;

        shard->ops->scale(row, 1 / sqrtf((float)hp->n_embd), n * hp->n_layers);
        for (uint32_t il = 0; il < hp->n_layers; il++)
            norm_row(shard, row + il * n, row + il * n,
                     shard->model_vector[MODEL_SLOT_INPUT_EMBD_NORM], NULL, n);
    }
}

void layer_inputs_make(struct shard *shard, const uint32_t *tokens, size_t n_rows,
                       const float *hidden, float *extra)
{
    const struct hparams *hp = &shard->model->hparams;
    size_t n = (size_t)hp->n_layer_input * hp->n_layers;
    struct making making = {shard, extra};
    float *table = shard->scratch.input_row;

    memset(extra, 0, n_rows * hp->n_extra * sizeof *extra);
    if (n == 0)
        return;
    compute_matmul(shard->compute, shard->input_projection, hidden, hp->n_embd, n_rows, extra,
                   hp->n_extra);
    compute_parallel(shard->compute, n_rows, norm_rows, &making);
    for (size_t r = 0; r < n_rows; r++) {
        float *row = extra + r * hp->n_extra;

        weight_row(shard->input_embd, tokens[r], table);
        shard->ops->axpy(sqrtf((float)hp->n_layer_input), table, row, n);
        shard->ops->scale(row, 1 / sqrtf(2), n);
    }
}

static void gate_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct pass *pass = ctx;
    const struct scratch *scratch = &pass->shard->scratch;
    const struct hparams *hp = pass->hparams;
    size_t at = (size_t)(pass->shard->spec.layer_begin + pass->layer) * hp->n_layer_input;

    (void)thread;
    for (size_t r = begin; r < end; r++)
        activate_gated(pass->shard, scratch->ff + r * scratch->ld_ff,
                       pass->extra + r * hp->n_extra + at, hp->n_layer_input);
}

void layer_input_run(struct pass *pass, float *branch)
{
    const struct scratch *scratch = &pass->shard->scratch;
    struct weight *const *m = pass->weights->matrix;
    size_t n_embd = pass->hparams->n_embd;

    compute_matmul(pass->shard->compute, m[SLOT_INPUT_GATE], pass->hidden, n_embd, pass->n_rows,
                   scratch->ff, scratch->ld_ff);
    compute_parallel(pass->shard->compute, pass->n_rows, gate_rows, pass);
    compute_matmul(pass->shard->compute, m[SLOT_INPUT_OUT], scratch->ff, scratch->ld_ff,
                   pass->n_rows, branch, n_embd);
}
