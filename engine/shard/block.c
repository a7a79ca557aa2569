/* One layer, as the architecture's row describes it.
 *
 * Sequential: x += attention(norm(x)), then x += ffn(norm(x)). Parallel: both read x and are added
 * together. Norms may stand before a branch, after it, or both; a branch without a norm of its own
 * reads what the row says. A third branch, where there is one, reads what the token gives to the
 * layer (input.c). Prefill and decode are the same code with different numbers of rows. */
#include "engine/shard/shard.h"

enum { NO_SLOT = SLOT_COUNT };

struct norm_step {
    const struct pass *pass;
    const float *weight;
    const float *bias;
    const float *in;
    float *out;
};

static void norm_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct norm_step *step = ctx;
    size_t n = step->pass->hparams->n_embd;

    (void)thread;
    for (size_t r = begin; r < end; r++)
        norm_row(step->pass->shard, step->out + r * n, step->in + r * n, step->weight, step->bias,
                 n);
}

static bool has_norm(const struct pass *pass, uint32_t slot)
{
    return pass->weights->vector[slot] != NULL;
}

/* The input of a branch: normed into scratch, or `in` itself where the layer has no such norm. */
static const float *norm_in(const struct pass *pass, uint32_t slot, const float *in)
{
    struct norm_step step = {.pass = pass,
                             .weight = pass->weights->vector[slot],
                             .bias = pass->weights->bias[slot],
                             .in = in,
                             .out = pass->shard->scratch.normed};

    if (!has_norm(pass, slot) && !pass->arch->norms_without_weights)
        return in;
    compute_parallel(pass->shard->compute, pass->n_rows, norm_rows, &step);
    return step.out;
}

struct add_step {
    const struct pass *pass;
    const float *bias; /* of the branch's last product, or NULL */
    const float *norm; /* after the branch, or NULL */
    const float *norm_bias;
    float *branch;
};

static void add_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct add_step *step = ctx;
    const struct shard *shard = step->pass->shard;
    size_t n = step->pass->hparams->n_embd;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        float *row = step->branch + r * n;

        if (step->bias)
            shard->ops->add(row, step->bias, n);
        if (step->norm)
            norm_row(shard, row, row, step->norm, step->norm_bias, n);
        if (step->pass->hparams->residual_scale != 1)
            shard->ops->scale(row, step->pass->hparams->residual_scale, n);
        shard->ops->add(step->pass->hidden + r * n, row, n);
    }
}

/* hidden += scale · norm(branch + bias) */
static void add_branch(const struct pass *pass, float *branch, uint32_t bias_slot,
                       uint32_t norm_slot)
{
    struct add_step step = {.pass = pass, .bias = pass->weights->bias[bias_slot], .branch = branch};

    if (norm_slot != NO_SLOT) {
        step.norm = pass->weights->vector[norm_slot];
        step.norm_bias = pass->weights->bias[norm_slot];
    }
    compute_parallel(pass->shard->compute, pass->n_rows, add_rows, &step);
}

static void scale_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct pass *pass = ctx;
    size_t n = pass->hparams->n_embd;

    (void)thread;
    pass->shard->ops->scale(pass->hidden + begin * n, pass->weights->vector[SLOT_LAYER_SCALE][0],
                            (end - begin) * n);
}

static void mix_tokens(struct pass *pass, const float *in, float *branch)
{
    switch (pass->shape->kind) {
    case LAYER_ATTENTION:
        attention_run(pass, in, branch);
        break;
    case LAYER_LATENT:
        latent_run(pass, in, branch);
        break;
    case LAYER_CONV:
        conv_run(pass, in, branch);
        break;
    case LAYER_DELTA:
        delta_run(pass, in, branch);
        break;
    }
}

static void feed_forward(struct pass *pass, const float *in, float *branch)
{
    if (pass->shape->experts)
        moe_run(pass, in, branch);
    else
        ffn_run(pass, in, branch);
}

/* Both branches read the rows as they were. The feed-forward shares the attention's norm, or has
 * one of its own; where attention has a second one, the first is the feed-forward's. */
static const float *parallel_in(const struct pass *pass, const float *attention_in)
{
    if (has_norm(pass, SLOT_ATTN_NORM_2))
        return norm_in(pass, SLOT_ATTN_NORM, pass->hidden);
    return has_norm(pass, SLOT_FFN_NORM) ? norm_in(pass, SLOT_FFN_NORM, pass->hidden)
                                         : attention_in;
}

void block_run(struct pass *pass)
{
    float *branch = pass->shard->scratch.branch;
    const struct arch *arch = pass->arch;
    bool parallel = pass->hparams->parallel ||
                    (arch->residual == RESIDUAL_BY_FFN_NORM && !has_norm(pass, SLOT_FFN_NORM));
    uint32_t first = has_norm(pass, SLOT_ATTN_NORM_2) ? SLOT_ATTN_NORM_2 : SLOT_ATTN_NORM;
    uint32_t second = arch->post_attn_norm_is_ffns ? SLOT_POST_ATTN_NORM : SLOT_FFN_NORM;
    uint32_t after = arch->post_attn_norm_is_ffns ? NO_SLOT : SLOT_POST_ATTN_NORM;
    const float *in = norm_in(pass, first, pass->hidden);

    mix_tokens(pass, in, branch);
    if (parallel)
        in = parallel_in(pass, in);
    add_branch(pass, branch, SLOT_ATTN_OUT, after);
    if (!parallel)
        in = norm_in(pass, second, pass->hidden);
    feed_forward(pass, in, branch);
    add_branch(pass, branch, SLOT_FFN_DOWN, SLOT_POST_FFN_NORM);
    if (pass->hparams->n_layer_input) {
        layer_input_run(pass, branch);
        add_branch(pass, branch, SLOT_INPUT_OUT, SLOT_INPUT_NORM);
    }
    if (pass->weights->vector[SLOT_LAYER_SCALE])
        compute_parallel(pass->shard->compute, pass->n_rows, scale_rows, pass);
}
