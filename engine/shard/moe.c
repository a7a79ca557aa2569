/* Mixture of experts.
 *
 * A router scores all experts per row; the best few feed-forwards run and their outputs are summed
 * with weights. Rows are grouped by expert, so that an expert's matrices are read once for all rows
 * that chose it, and experts are grouped in waves that are one list of products: for a single row
 * each matrix is so small that the threads would mostly wait for each other between them. A row
 * adds its experts in ascending order of their number, in every pass, which keeps its result
 * independent of the rows beside it. */
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

enum { WAVE_EXPERTS = COMPUTE_MAX_PRODUCTS / 2 };

/* Experts that run together: their rows stand one after another in slots. */
struct wave {
    const struct pass *pass;
    const float *in; /* [n_rows, n_embd] */
    float *branch;
    uint32_t first, end; /* experts are from [first, end) */
    size_t n_experts, n_slots;
    size_t starts[WAVE_EXPERTS + 1]; /* slots before each */
};

/* Gives slots to the rows that chose expert e; false, and nothing, where there is no room. */
static bool add_expert(struct wave *wave, uint32_t e)
{
    const struct scratch *s = &wave->pass->shard->scratch;
    uint32_t n_used = wave->pass->hparams->n_experts_used;
    size_t most = scratch_max_rows(wave->pass->hparams, &wave->pass->shard->spec);
    size_t n = wave->n_slots;

    for (size_t r = 0; r < wave->pass->n_rows; r++) {
        for (uint32_t k = 0; k < n_used; k++) {
            size_t at = r * n_used + k;

            if (s->chosen[at] != e)
                continue;
            if (n == most)
                return false;
            s->slots[n] = (struct expert_slot){(uint32_t)r, e, s->chosen_weights[at]};
            s->chosen_slots[at] = (uint32_t)n++;
            break;
        }
    }
    if (n > wave->n_slots)
        wave->starts[++wave->n_experts] = n;
    wave->n_slots = n;
    return true;
}

/* As many experts as there is room for, from `first` on. One alone always fits. */
static void gather_wave(struct wave *wave, uint32_t first)
{
    wave->first = wave->end = first;
    wave->n_experts = wave->n_slots = 0;
    while (wave->end < wave->pass->hparams->n_experts && wave->n_experts < WAVE_EXPERTS &&
           add_expert(wave, wave->end))
        wave->end++;
}

static void copy_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct wave *wave = ctx;
    const struct shard *shard = wave->pass->shard;
    size_t n_embd = wave->pass->hparams->n_embd;

    (void)thread;
    for (size_t i = begin; i < end; i++) {
        struct expert_slot *slot = &shard->scratch.slots[i];
        float *to = shard->scratch.expert_in + i * n_embd;

        memcpy(to, wave->in + slot->row * n_embd, n_embd * sizeof *to);
        if (!wave->pass->arch->expert_weights_first)
            continue;
        shard->ops->scale(to, slot->weight, n_embd);
        slot->weight = 1;
    }
}

static const float *expert_bias(const struct pass *pass, uint32_t slot, uint32_t e, size_t n)
{
    return pass->weights->bias[slot] ? pass->weights->bias[slot] + e * n : NULL;
}

static void activate_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct wave *wave = ctx;
    const struct shard *shard = wave->pass->shard;
    size_t n_ff = wave->pass->hparams->n_expert_ff;

    (void)thread;
    for (size_t i = begin; i < end; i++) {
        float *gate = shard->scratch.ff + i * shard->scratch.ld_ff;
        uint32_t e = shard->scratch.slots[i].expert;
        const float *gate_bias = expert_bias(wave->pass, SLOT_EXPERT_GATE, e, n_ff);
        const float *up_bias = expert_bias(wave->pass, SLOT_EXPERT_UP, e, n_ff);

        if (gate_bias)
            shard->ops->add(gate, gate_bias, n_ff);
        if (up_bias)
            shard->ops->add(gate + n_ff, up_bias, n_ff);
        activate_gated(shard, gate, gate + n_ff, n_ff);
    }
}

/* Each row takes its experts of the wave in ascending order. */
static void add_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct wave *wave = ctx;
    const struct scratch *s = &wave->pass->shard->scratch;
    const struct vector_ops *ops = wave->pass->shard->ops;
    uint32_t n_used = wave->pass->hparams->n_experts_used;
    size_t n_embd = wave->pass->hparams->n_embd;

    (void)thread;
    for (size_t at = begin * n_used; at < end * n_used; at++) {
        uint32_t e = s->chosen[at];
        const float *bias = expert_bias(wave->pass, SLOT_EXPERT_DOWN, e, n_embd);
        size_t i = s->chosen_slots[at];

        if (e < wave->first || e >= wave->end)
            continue;
        if (bias)
            ops->add(s->expert_out + i * n_embd, bias, n_embd);
        ops->axpy(s->slots[i].weight, s->expert_out + i * n_embd,
                  wave->branch + at / n_used * n_embd, n_embd);
    }
}

/* One list of products for all experts of the wave, so that the threads never wait for one. A
 * single row needs no copies, and is made ready for the products once for all experts. */
static void run_wave(struct wave *wave)
{
    const struct scratch *s = &wave->pass->shard->scratch;
    struct weight **const *m = wave->pass->weights->experts;
    struct compute *compute = wave->pass->shard->compute;
    size_t n_embd = wave->pass->hparams->n_embd;
    size_t n_ff = wave->pass->hparams->n_expert_ff;
    bool copy = wave->pass->n_rows > 1 || wave->pass->arch->expert_weights_first;
    struct product in[COMPUTE_MAX_PRODUCTS];
    struct product out[WAVE_EXPERTS];

    if (copy)
        compute_parallel(compute, wave->n_slots, copy_rows, wave);
    for (size_t i = 0; i < wave->n_experts; i++) {
        size_t first = wave->starts[i];
        size_t n = wave->starts[i + 1] - first;
        uint32_t e = s->slots[first].expert;
        const float *x = copy ? s->expert_in + first * n_embd : wave->in;
        float *ff = s->ff + first * s->ld_ff;

        in[2 * i] = (struct product){m[EXPERT_MATRIX_GATE][e], x, n_embd, n, ff, s->ld_ff};
        in[2 * i + 1] = (struct product){m[EXPERT_MATRIX_UP][e], x, n_embd, n, ff + n_ff, s->ld_ff};
        out[i] = (struct product){m[EXPERT_MATRIX_DOWN][e],       ff,    s->ld_ff, n,
                                  s->expert_out + first * n_embd, n_embd};
    }
    compute_matmul_each(compute, in, 2 * wave->n_experts);
    compute_parallel(compute, wave->n_slots, activate_rows, wave);
    compute_matmul_each(compute, out, wave->n_experts);
    compute_parallel(compute, wave->pass->n_rows, add_rows, wave);
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
    struct wave wave = {.pass = pass, .in = in, .branch = branch};
    struct shared_step step = {
        .pass = pass, .in = in, .shared = scratch->expert_out, .branch = branch};

    compute_matmul(pass->shard->compute, pass->weights->matrix[SLOT_ROUTER], in, hp->n_embd,
                   pass->n_rows, scratch->router, hp->n_experts);
    compute_parallel(pass->shard->compute, pass->n_rows, route_rows, pass);
    memset(branch, 0, pass->n_rows * hp->n_embd * sizeof *branch);
    while (wave.end < hp->n_experts) {
        gather_wave(&wave, wave.end);
        run_wave(&wave);
    }
    if (!pass->weights->matrix[SLOT_SHARED_UP])
        return;
    ffn_run_shared(pass, in, scratch->expert_out);
    compute_parallel(pass->shard->compute, pass->n_rows, add_shared_rows, &step);
}
