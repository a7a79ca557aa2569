/* Multi-head latent attention (DeepSeek-V2, 2024), in its absorbed form.
 *
 * What is kept per token is one short vector, the latent, and a key of a few dimensions that turns
 * with the position. A head's key would be K_b · latent; instead of expanding every key, K_bᵀ is
 * applied to the query once, and all heads attend over the latents as if they were the keys and the
 * values of one KV head. What comes out is a mixture of latents per head, which V_b turns into the
 * head's output. So the rest is ordinary attention with many query heads and one KV head.
 *
 * A row of `latent`: per head [kv_rank + n_rope], the absorbed query and its turning part. A kept
 * key: latent, turning part; the value is the same floats without the latter. */
#include "engine/shard/shard.h"

#include <string.h>

struct latent {
    struct pass *pass;
    float *queries; /* [n_rows, n_heads, head_q] in qkv, with the latent and key behind them */
    size_t ld;
    size_t key_at;
    uint32_t n_rope;
};

static void finish_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct latent *l = ctx;
    const struct pass *pass = l->pass;
    const struct layer_shape *shape = pass->shape;
    const struct kv *kv = pass->shard->kv;
    const struct kv_layer *layer = &kv->layers[pass->layer];
    const struct scratch *scratch = &pass->shard->scratch;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        const struct shard_row *row = &pass->rows[r];
        const float *angles = scratch->angles[0] + r * l->n_rope;
        float *key = l->queries + r * l->ld + l->key_at;
        uint8_t *kept = kv_keys(layer, kv_page(kv, layer, row->slot, row->pos), 0);

        norm_row(pass->shard, key, key, pass->weights->vector[SLOT_LATENT_KV_A_NORM], NULL,
                 shape->kv_rank);
        rope_turn(pass->arch->rope, key + shape->kv_rank, angles, l->n_rope);
        pass->shard->ops->kv_store(layer->key_type, true, key, shape->head_k,
                                   row->pos % SHARD_KV_BLOCK_TOKENS, kept);
        for (uint32_t h = 0; h < shape->n_heads; h++) {
            float *turning = scratch->latent + r * scratch->ld_latent + (size_t)h * shape->head_k +
                             shape->kv_rank;
            const float *query = l->queries + r * l->ld + (size_t)h * shape->head_q;

            memcpy(turning, query + shape->head_q - l->n_rope, l->n_rope * sizeof *query);
            rope_turn(pass->arch->rope, turning, angles, l->n_rope);
        }
        heat_query(pass, scratch->latent + r * scratch->ld_latent,
                   (size_t)shape->n_heads * shape->head_k, row->pos);
    }
}

static void norm_rank_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct latent *l = ctx;
    const struct scratch *scratch = &l->pass->shard->scratch;
    uint32_t n = l->pass->shape->q_rank;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        float *row = scratch->q_rank + r * scratch->ld_q_rank;

        norm_row(l->pass->shard, row, row, l->pass->weights->vector[SLOT_LATENT_Q_A_NORM], NULL, n);
    }
}

/* Queries of all heads, and the latent with its key, into qkv. */
static void project(struct latent *l, const float *in)
{
    struct pass *pass = l->pass;
    struct compute *compute = pass->shard->compute;
    struct weight *const *m = pass->weights->matrix;
    const struct scratch *scratch = &pass->shard->scratch;
    size_t n_embd = pass->hparams->n_embd;

    if (pass->shape->q_rank) {
        compute_matmul(compute, m[SLOT_LATENT_Q_A], in, n_embd, pass->n_rows, scratch->q_rank,
                       scratch->ld_q_rank);
        compute_parallel(compute, pass->n_rows, norm_rank_rows, l);
        compute_matmul(compute, m[SLOT_LATENT_Q_B], scratch->q_rank, scratch->ld_q_rank,
                       pass->n_rows, l->queries, l->ld);
    } else {
        compute_matmul(compute, m[SLOT_ATTN_Q], in, n_embd, pass->n_rows, l->queries, l->ld);
    }
    compute_matmul(compute, m[SLOT_LATENT_KV_A], in, n_embd, pass->n_rows, l->queries + l->key_at,
                   l->ld);
}

void latent_run(struct pass *pass, const float *in, float *branch)
{
    struct compute *compute = pass->shard->compute;
    const struct scratch *scratch = &pass->shard->scratch;
    const struct layer_shape *shape = pass->shape;
    struct weight **const *heads = pass->weights->heads;
    size_t ld_out = (size_t)shape->n_heads * shape->kv_rank;
    struct latent l = {.pass = pass,
                       .queries = scratch->qkv,
                       .ld = scratch->ld_qkv,
                       .key_at = (size_t)shape->n_heads * shape->head_q,
                       .n_rope = shape->head_k - shape->kv_rank};

    project(&l, in);
    for (uint32_t h = 0; h < shape->n_heads; h++)
        compute_matmul(compute, heads[HEAD_MATRIX_K_B][h], l.queries + (size_t)h * shape->head_q,
                       l.ld, pass->n_rows, scratch->latent + (size_t)h * shape->head_k,
                       scratch->ld_latent);
    compute_parallel(compute, pass->n_rows, finish_rows, &l);
    attend(pass, scratch->latent, scratch->ld_latent, scratch->latent_out, ld_out);
    for (uint32_t h = 0; h < shape->n_heads; h++)
        compute_matmul(compute, heads[HEAD_MATRIX_V_B][h],
                       scratch->latent_out + (size_t)h * shape->kv_rank, ld_out, pass->n_rows,
                       scratch->attended + (size_t)h * shape->head_out, scratch->ld_attended);
    compute_matmul(compute, pass->weights->matrix[SLOT_ATTN_OUT], scratch->attended,
                   scratch->ld_attended, pass->n_rows, branch, pass->hparams->n_embd);
}
