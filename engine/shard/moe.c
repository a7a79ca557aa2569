/* Mixture of experts.
 *
 * A router scores all experts per row; the best few feed-forwards run and their outputs are summed
 * with weights. Rows are grouped by expert, so that an expert's matrices are read once for all rows
 * that chose it. A row adds its experts in ascending order of their number, in every pass, which
 * keeps its result independent of the rows beside it. */
#include "engine/shard/shard.h"

#include <math.h>
#include <string.h>

static void score_experts(const struct pass *pass, float *scores)
{
    size_t n = pass->hparams->n_experts;

    if (pass->weights->bias[SLOT_ROUTER])
        pass->shard->ops->add(scores, pass->weights->bias[SLOT_ROUTER], n);
    switch (pass->hparams->expert_gate) {
    case EXPERT_GATE_SOFTMAX:
        pass->shard->ops->softmax(scores, n);
        break;
    case EXPERT_GATE_SIGMOID:
        for (size_t e = 0; e < n; e++)
            scores[e] = 1 / (1 + expf(-scores[e]));
        break;
    }
}

/* The numbers of the n_used highest scores, ascending; equal scores: the lower number first. A
 * score of minus infinity is out of the question. */
static void choose(const float *scores, uint32_t n, uint32_t n_used, uint32_t *chosen)
{
    for (uint32_t k = 0; k < n_used; k++) {
        uint32_t best = UINT32_MAX;
        uint32_t at = k;

        for (uint32_t e = 0, c = 0; e < n; e++) {
            if (c < k && chosen[c] == e) {
                c++;
                continue;
            }
            if (best == UINT32_MAX || scores[e] > scores[best])
                best = e;
        }
        for (; at > 0 && chosen[at - 1] > best; at--)
            chosen[at] = chosen[at - 1];
        chosen[at] = best;
    }
}

/* Groups are ranked by the sum of their two best experts; experts of the others are ruled out. */
static void rule_out_groups(const struct hparams *hp, float *picks)
{
    uint32_t size = hp->n_experts / hp->n_expert_groups;
    float rank[MODEL_MAX_EXPERTS];
    uint32_t chosen[MODEL_MAX_EXPERTS];

    for (uint32_t g = 0; g < hp->n_expert_groups; g++) {
        float best = -INFINITY;
        float second = -INFINITY;

        for (uint32_t e = g * size; e < (g + 1) * size; e++) {
            second = fmaxf(second, fminf(best, picks[e]));
            best = fmaxf(best, picks[e]);
        }
        rank[g] = best + (size > 1 ? second : 0);
    }
    choose(rank, hp->n_expert_groups, hp->n_groups_used, chosen);
    for (uint32_t g = 0, c = 0; g < hp->n_expert_groups; g++) {
        if (c < hp->n_groups_used && chosen[c] == g) {
            c++;
            continue;
        }
        for (uint32_t e = g * size; e < (g + 1) * size; e++)
            picks[e] = -INFINITY;
    }
}

/* A bias may shift the choice; it does not shift the weights. */
static void choose_experts(const struct pass *pass, const float *scores, uint32_t *chosen)
{
    const struct hparams *hp = pass->hparams;
    const float *bias = pass->weights->bias[SLOT_ROUTER_PICK];
    float picks[MODEL_MAX_EXPERTS];

    memcpy(picks, scores, hp->n_experts * sizeof *picks);
    if (bias)
        pass->shard->ops->add(picks, bias, hp->n_experts);
    if (hp->n_expert_groups)
        rule_out_groups(hp, picks);
    choose(picks, hp->n_experts, hp->n_experts_used, chosen);
}

static void weigh_experts(const struct pass *pass, const float *scores, const uint32_t *chosen,
                          float *weights)
{
    const struct hparams *hp = pass->hparams;
    float sum = 0;

    for (uint32_t k = 0; k < hp->n_experts_used; k++) {
        weights[k] = scores[chosen[k]];
        sum += weights[k];
    }
    for (uint32_t k = 0; k < hp->n_experts_used; k++) {
        if (hp->expert_sum_one)
            weights[k] /= sum;
        weights[k] *= hp->expert_weight_scale;
    }
}

static void route_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct pass *pass = ctx;
    const struct hparams *hp = pass->hparams;
    const struct scratch *s = &pass->shard->scratch;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        float *scores = s->router + r * hp->n_experts;
        uint32_t *chosen = s->chosen + r * hp->n_experts_used;

        score_experts(pass, scores);
        choose_experts(pass, scores, chosen);
        weigh_experts(pass, scores, chosen, s->chosen_weights + r * hp->n_experts_used);
    }
}

/* Rows that chose expert e, with their weights for it. */
static size_t rows_of_expert(const struct pass *pass, uint32_t e)
{
    const struct scratch *s = &pass->shard->scratch;
    uint32_t n_used = pass->hparams->n_experts_used;
    size_t n = 0;

    for (size_t r = 0; r < pass->n_rows; r++) {
        for (uint32_t k = 0; k < n_used; k++) {
            if (s->chosen[r * n_used + k] != e)
                continue;
            s->expert_rows[n] = (uint32_t)r;
            s->expert_weights[n++] = s->chosen_weights[r * n_used + k];
            break;
        }
    }
    return n;
}

struct expert_step {
    const struct pass *pass;
    const float *gate_bias; /* [n_expert_ff], or NULL */
    const float *up_bias;
};

static void activate_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct expert_step *step = ctx;
    const struct shard *shard = step->pass->shard;
    size_t n_ff = step->pass->hparams->n_expert_ff;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        float *gate = shard->scratch.ff + r * shard->scratch.ld_ff;

        if (step->gate_bias)
            shard->ops->add(gate, step->gate_bias, n_ff);
        if (step->up_bias)
            shard->ops->add(gate + n_ff, step->up_bias, n_ff);
        activate_gated(shard, gate, gate + n_ff, n_ff);
    }
}

static const float *expert_bias(const struct pass *pass, uint32_t slot, uint32_t e, size_t n)
{
    return pass->weights->bias[slot] ? pass->weights->bias[slot] + e * n : NULL;
}

static void run_expert(const struct pass *pass, uint32_t e, const float *in, size_t n, float *out)
{
    const struct scratch *s = &pass->shard->scratch;
    struct weight **const *m = pass->weights->experts;
    size_t n_embd = pass->hparams->n_embd;
    size_t n_ff = pass->hparams->n_expert_ff;
    const struct weight *w[2] = {m[EXPERT_MATRIX_GATE][e], m[EXPERT_MATRIX_UP][e]};
    float *y[2] = {s->ff, s->ff + n_ff};
    size_t ldy[2] = {s->ld_ff, s->ld_ff};
    struct expert_step step = {.pass = pass,
                               .gate_bias = expert_bias(pass, SLOT_EXPERT_GATE, e, n_ff),
                               .up_bias = expert_bias(pass, SLOT_EXPERT_UP, e, n_ff)};

    compute_matmul_many(pass->shard->compute, w, 2, in, n_embd, n, y, ldy);
    compute_parallel(pass->shard->compute, n, activate_rows, &step);
    compute_matmul(pass->shard->compute, m[EXPERT_MATRIX_DOWN][e], s->ff, s->ld_ff, n, out, n_embd);
}

static void add_expert(const struct pass *pass, uint32_t e, const float *in, float *branch)
{
    const struct scratch *s = &pass->shard->scratch;
    const struct vector_ops *ops = pass->shard->ops;
    size_t n_embd = pass->hparams->n_embd;
    const float *bias = expert_bias(pass, SLOT_EXPERT_DOWN, e, n_embd);
    size_t n = rows_of_expert(pass, e);

    if (n == 0)
        return;
    for (size_t i = 0; i < n; i++)
        memcpy(s->expert_in + i * n_embd, in + s->expert_rows[i] * n_embd, n_embd * sizeof *in);
    for (size_t i = 0; pass->arch->expert_weights_first && i < n; i++) {
        ops->scale(s->expert_in + i * n_embd, s->expert_weights[i], n_embd);
        s->expert_weights[i] = 1;
    }
    run_expert(pass, e, s->expert_in, n, s->expert_out);
    for (size_t i = 0; i < n; i++) {
        float *out = s->expert_out + i * n_embd;

        if (bias)
            ops->add(out, bias, n_embd);
        ops->axpy(s->expert_weights[i], out, branch + s->expert_rows[i] * n_embd, n_embd);
    }
}

struct shared_step {
    const struct pass *pass;
    const float *in;
    const float *shared; /* [n_rows, n_embd] */
    float *branch;
};

/* The shared expert runs for every row; it may have a router of its own, one number per row. */
static void add_shared_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct shared_step *step = ctx;
    const struct vector_ops *ops = step->pass->shard->ops;
    const float *router = step->pass->weights->vector[SLOT_SHARED_ROUTER];
    size_t n = step->pass->hparams->n_embd;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        float weight = 1;

        if (router)
            weight = 1 / (1 + expf(-ops->dot(router, step->in + r * n, n)));
        ops->axpy(weight, step->shared + r * n, step->branch + r * n, n);
    }
}

void moe_run(struct pass *pass, const float *in, float *branch)
{
    const struct hparams *hp = pass->hparams;
    struct scratch *scratch = &pass->shard->scratch;
    struct shared_step step = {
        .pass = pass, .in = in, .shared = scratch->expert_out, .branch = branch};

    compute_matmul(pass->shard->compute, pass->weights->matrix[SLOT_ROUTER], in, hp->n_embd,
                   pass->n_rows, scratch->router, hp->n_experts);
    compute_parallel(pass->shard->compute, pass->n_rows, route_rows, pass);
    memset(branch, 0, pass->n_rows * hp->n_embd * sizeof *branch);
    for (uint32_t e = 0; e < hp->n_experts; e++)
        add_expert(pass, e, in, branch);
    if (!pass->weights->matrix[SLOT_SHARED_UP])
        return;
    ffn_run_shared(pass, in, scratch->expert_out);
    compute_parallel(pass->shard->compute, pass->n_rows, add_shared_rows, &step);
}
