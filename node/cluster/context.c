/* How much context an instance gets.
 *
 * What the options want, capped by the model. KV memory is wanted for several full contexts at once
 * (sequences are let in by what they may become); if the model does not fit that way, the KV budget
 * is halved down to one context, and then the context down to MIN_CTX_TOKENS, before NO_ROOM is
 * said. Between the half that fits and the whole that does not, the longest context is searched in
 * steps of STEP_TOKENS, so that nobody is given 2048 tokens where 4000 would fit.
 *
 * Who gets less than they asked for is told so once, in one sentence with what would help: the
 * context that a smaller form of weights or of keys and values would allow is planned for, not
 * guessed. So is it said to who gets no room at all. */
#include "node/cluster/planning.h"

#include <string.h>

enum {
    MIN_CTX_TOKENS = 512,
    DEFAULT_CTX_TOKENS = 4096,
    FULL_CONTEXTS = 4,
    PROMPT_ROWS = 256,
    STEP_TOKENS = 256
};

#define WORTH_LESS_KV 0.9 /* a plan with less KV memory must be so much faster */

static uint32_t round_to_blocks(uint32_t n_tokens)
{
    uint32_t rest = n_tokens % SHARD_KV_BLOCK_TOKENS;

    return rest ? n_tokens + SHARD_KV_BLOCK_TOKENS - rest : n_tokens;
}

static uint32_t context_asked(const struct control *c)
{
    uint32_t n_ctx = c->options.n_ctx_tokens ? c->options.n_ctx_tokens : DEFAULT_CTX_TOKENS;

    return n_ctx < MAX_CTX_TOKENS / FULL_CONTEXTS ? n_ctx : MAX_CTX_TOKENS / FULL_CONTEXTS;
}

struct context context_wanted(const struct control *c, const struct control_model *model)
{
    uint32_t n_ctx = context_asked(c);
    uint32_t n_full = c->options.n_slots < FULL_CONTEXTS ? c->options.n_slots : FULL_CONTEXTS;

    if (model->n_ctx_train && n_ctx > model->n_ctx_train)
        n_ctx = model->n_ctx_train;
    return (struct context){n_ctx, n_ctx * n_full};
}

/* The next smaller one; false after the smallest. */
static bool context_shrink(struct context *context)
{
    uint32_t n_ctx = context->n_ctx_tokens, half = context->n_kv_tokens / 2;

    if (context->n_kv_tokens > n_ctx) {
        context->n_kv_tokens = half > n_ctx ? half : n_ctx;
        return true;
    }
    if (n_ctx <= MIN_CTX_TOKENS)
        return false;
    half = half > MIN_CTX_TOKENS ? half : MIN_CTX_TOKENS;
    *context = (struct context){half, half};
    return true;
}

static enum status plan_with(const struct planning *p, const struct plan_model *model,
                             enum plan_objective objective, uint32_t n_kv_tokens, struct plan *plan,
                             struct fault *fault)
{
    struct plan_request request = {.objective = objective,
                                   .n_ctx_tokens = round_to_blocks(n_kv_tokens),
                                   .n_prompt_rows = PROMPT_ROWS,
                                   .head = 0};

    return plan_make(p->nodes, p->n, model, &request, plan, fault);
}

/* The context was halved: how much of the half that was given up fits after all? */
static void context_stretch(const struct planning *p, const struct plan_model *model,
                            enum plan_objective objective, uint32_t too_long, struct plan *plan,
                            struct context *chosen)
{
    uint32_t low = chosen->n_ctx_tokens / STEP_TOKENS, high = too_long / STEP_TOKENS;
    struct plan next;

    high += too_long % STEP_TOKENS != 0;
    while (low + 1 < high) {
        uint32_t middle = low + (high - low) / 2, n_tokens = middle * STEP_TOKENS;

        if (plan_with(p, model, objective, n_tokens, &next, NULL) == STATUS_OK) {
            *plan = next;
            *chosen = (struct context){n_tokens, n_tokens};
            low = middle;
        } else {
            high = middle;
        }
    }
}

/* Of the KV budgets from the largest that fits down to one full context, the largest that does not
 * cost a single stream a good part of its speed by calling for one more node. */
static enum status plan_longest(const struct planning *p, const struct plan_model *model,
                                enum plan_objective objective, struct context context,
                                struct plan *plan, struct context *chosen, struct fault *fault)
{
    uint32_t wanted = context.n_ctx_tokens, before = wanted;
    struct plan next;
    bool found = false;

    do {
        enum status status = plan_with(p, model, objective, context.n_kv_tokens, &next, fault);

        if (status != STATUS_OK && status != STATUS_NO_ROOM)
            return status;
        if (status == STATUS_OK &&
            (!found || (objective == PLAN_LATENCY &&
                        next.latency_seconds < WORTH_LESS_KV * plan->latency_seconds))) {
            *plan = next;
            *chosen = (struct context){context.n_ctx_tokens, round_to_blocks(context.n_kv_tokens)};
            found = true;
        }
        before = found ? before : context.n_ctx_tokens;
    } while (!(found && context.n_kv_tokens == context.n_ctx_tokens) && context_shrink(&context));
    if (!found)
        return STATUS_NO_ROOM;
    if (chosen->n_ctx_tokens < wanted)
        context_stretch(p, model, objective, before, plan, chosen);
    if (fault) /* what larger ones lacked does not matter any more */
        *fault = (struct fault){0};
    return STATUS_OK;
}

enum status plan_context(const struct control *c, const struct planning *p,
                         const struct control_model *model, enum plan_objective objective,
                         struct plan *plan, struct context *chosen, struct fault *fault)
{
    struct plan_model plan_model = planning_model(model);

    return plan_longest(p, &plan_model, objective, context_wanted(c, model), plan, chosen, fault);
}

/* ---------------------------------------------------------------- the sentence */

static uint64_t part_of(uint64_t n_bytes, double part)
{
    return (uint64_t)((double)n_bytes * part);
}

/* The context that a saving would allow; 0: none. How fast it would be is not asked. */
static uint32_t context_with(const struct control *c, const struct planning *p,
                             const struct control_model *model, const struct control_saving *saving)
{
    struct plan_model plan_model = planning_model(model);
    uint64_t *weights = MEM_NEW_N(uint64_t, model->n_layers);
    uint64_t *kv = MEM_NEW_N(uint64_t, model->n_layers);
    struct plan *plan = MEM_NEW(struct plan);
    struct context chosen = {0};

    for (uint32_t i = 0; weights && kv && i < model->n_layers; i++) {
        weights[i] = part_of(model->layer_bytes[i], saving->weights);
        kv[i] = part_of(model->layer_kv_bytes[i], saving->kv);
    }
    plan_model.layer_bytes = plan_model.layer_active_bytes = weights;
    plan_model.layer_kv_bytes = kv;
    plan_model.embed_bytes = part_of(model->embed_bytes, saving->weights);
    plan_model.head_bytes = part_of(model->head_bytes, saving->weights);
    if (!weights || !kv || !plan ||
        plan_longest(p, &plan_model, c->options.objective, context_wanted(c, model), plan, &chosen,
                     NULL) != STATUS_OK)
        chosen.n_ctx_tokens = 0;
    mem_free(weights);
    mem_free(kv);
    mem_free(plan);
    return chosen.n_ctx_tokens;
}

/* Adds to out "run it with --kv f16 (3072 tokens)", with the words around it, of each saving that
 * allows more than n_ctx_tokens. */
static void savings_say(const struct control *c, const struct planning *p,
                        const struct control_model *model, uint32_t n_ctx_tokens,
                        const char *before, const char *after, char *out, size_t size)
{
    for (uint32_t i = 0; i < model->n_savings; i++) {
        uint32_t fits = context_with(c, p, model, &model->savings[i]);
        size_t n = strlen(out);

        if (fits > n_ctx_tokens && n < size)
            text_set(out + n, size - n, "%srun it with %s (%u tokens)%s", before,
                     model->savings[i].option, fits, after);
    }
}

void context_no_room(const struct control *c, const struct planning *p,
                     const struct control_model *model, struct fault *fault)
{
    savings_say(c, p, model, 0, ", or ", "", fault->text, sizeof fault->text);
}

void context_notice(const struct control *c, const struct planning *p,
                    const struct control_model *model, uint32_t n_ctx_tokens, char *out,
                    size_t size)
{
    uint32_t asked = context_asked(c), wanted = context_wanted(c, model).n_ctx_tokens;
    size_t n;

    out[0] = '\0';
    if (n_ctx_tokens >= wanted) {
        if (wanted < asked && asked > DEFAULT_CTX_TOKENS) /* not merely the default */
            text_set(out, size,
                     "%s has a context of %u tokens, fewer than the %u asked for: it was made for "
                     "no more",
                     model->name, wanted, asked);
        return;
    }
    text_set(out, size,
             "%s has a context of %u tokens instead of %u: the memory holds no more; to get more, ",
             model->name, n_ctx_tokens, wanted);
    savings_say(c, p, model, n_ctx_tokens, "", ", ", out, size);
    n = strlen(out);
    if (n < size)
        text_set(out + n, size - n, "raise --memory or add a node; to be content, --context %u",
                 n_ctx_tokens);
}
