/* Planning an instance: from cards and the model's numbers to plan_make, and back to links.
 *
 * Who takes part: this node, which is the head, and every living node that has the file and has
 * measured its speed. The others get a sentence that says why they are left out. What a node
 * refused in an earlier round counts more than its card: its true free memory, or its no.
 *
 * The context: what the options want, capped by the model. KV memory is wanted for several full
 * contexts at once (sequences are let in by what they may become); if the model does not fit that
 * way, the KV budget is halved down to one context, and then the context down to MIN_CTX_TOKENS,
 * before NO_ROOM is said. NO_ROOM is final (hopeless) only if the model would not fit even with all
 * memory that the nodes have; otherwise something may be given back any moment. */
#include "node/cluster/inner.h"

#include <stdio.h>
#include <string.h>

enum { MIN_CTX_TOKENS = 512, DEFAULT_CTX_TOKENS = 4096, FULL_CONTEXTS = 4, PROMPT_ROWS = 256 };

/* For what was not measured: a slow old box, a 1 Gbit/s wire. */
#define DEFAULT_READ_BYTES_PER_SECOND 5e9
#define DEFAULT_FLOPS                 2e10
#define DEFAULT_HOP_SECONDS           5e-4
#define WIRE_SECONDS_PER_BYTE         (1.0 / 117e6)
#define WORTH_LESS_KV                 0.9 /* a plan with less KV memory must be so much faster */
#define PASS_SECONDS                  1e-4

struct planning {
    struct plan_node nodes[PLAN_MAX_NODES];
    const struct member *members[PLAN_MAX_NODES]; /* NULL: self */
    uint32_t n;
};

static void node_from_card(struct plan_node *node, const struct node_card *card)
{
    double read = card->read_bytes_per_second, flops = card->flops_per_second;

    memset(node, 0, sizeof *node);
    text_set(node->name, sizeof node->name, "%s", card->name);
    node->decode_seconds_per_byte = 1 / (read > 0 ? read : DEFAULT_READ_BYTES_PER_SECOND);
    node->prefill_seconds_per_flop = 1 / (flops > 0 ? flops : DEFAULT_FLOPS);
    node->pass_seconds = PASS_SECONDS;
    node->hop_seconds = DEFAULT_HOP_SECONDS;
    node->hop_seconds_per_byte = WIRE_SECONDS_PER_BYTE;
    node->can_run = true;
}

static const struct refusal *refusal_of(const struct instance *instance, const uint8_t *id)
{
    for (uint32_t i = 0; instance && i < instance->n_refusals; i++)
        if (id_equal(instance->refusals[i].node_id, id))
            return &instance->refusals[i];
    return NULL;
}

void instance_refused(struct instance *instance, const uint8_t id[static PROTO_ID_BYTES],
                      const struct message_outcome *outcome)
{
    struct refusal *refusal = (struct refusal *)refusal_of(instance, id);

    if (!refusal) {
        if (instance->n_refusals == PLAN_MAX_NODES)
            return;
        refusal = &instance->refusals[instance->n_refusals++];
        memcpy(refusal->node_id, id, PROTO_ID_BYTES);
    }
    refusal->excluded = outcome->status != STATUS_NO_ROOM;
    refusal->memory_free_bytes = outcome->memory_free_bytes;
    text_set(refusal->why, sizeof refusal->why, "%s", outcome->text);
}

static bool takes_part(const struct member *m, const uint8_t *hash)
{
    return card_has(&m->card, hash) && m->card.read_bytes_per_second > 0;
}

/* One living member as a node of the plan. */
static void planning_add(struct planning *p, const struct member *m, const uint8_t *hash,
                         const struct instance *instance, bool all_memory)
{
    struct plan_node *node = &p->nodes[p->n];
    const struct refusal *refusal = refusal_of(instance, m->id);

    node_from_card(node, &m->card);
    node->memory_bytes = all_memory ? m->card.memory_bytes : m->card.memory_free_bytes;
    if (m->rtt_us)
        node->hop_seconds = (double)m->rtt_us / 2e6;
    if (refusal && !refusal->excluded && !all_memory &&
        refusal->memory_free_bytes < node->memory_bytes)
        node->memory_bytes = refusal->memory_free_bytes;
    if (!takes_part(m, hash)) {
        node->can_run = false;
        text_set(node->why_not, sizeof node->why_not, "%s",
                 card_has(&m->card, hash) ? "it has not measured its speed yet"
                                          : "it does not have the model file");
    } else if (refusal && refusal->excluded) {
        node->can_run = false;
        text_set(node->why_not, sizeof node->why_not, "%s", refusal->why);
    }
    p->members[p->n++] = m;
}

static bool is_planned(const struct planning *p, const struct member *m)
{
    for (uint32_t i = 1; i < p->n; i++)
        if (p->members[i] == m)
            return true;
    return false;
}

/* Self first, then those who can take part, most memory first, then the others for their sentence.
 */
static void planning_collect(const struct control *c, const uint8_t *hash,
                             const struct instance *instance, bool all_memory, struct planning *p)
{
    double hops = 0;

    node_from_card(&p->nodes[0], &c->card);
    p->nodes[0].memory_bytes = all_memory ? c->card.memory_bytes : memory_free(c);
    p->members[0] = NULL;
    p->n = 1;
    for (int part = 1; part >= 0; part--) {
        while (p->n < PLAN_MAX_NODES) {
            const struct member *best = NULL;

            for (uint32_t i = 0; i < c->n_members; i++) {
                const struct member *m = c->members[i];

                if (mesh_is_up(m->link) && takes_part(m, hash) == part && !is_planned(p, m) &&
                    (!best || m->card.memory_free_bytes > best->card.memory_free_bytes))
                    best = m;
            }
            if (!best)
                break;
            planning_add(p, best, hash, instance, all_memory);
        }
    }
    for (uint32_t i = 1; i < p->n; i++)
        hops += p->nodes[i].hop_seconds / (p->n - 1);
    if (p->n > 1)
        p->nodes[0].hop_seconds = hops;
}

static struct plan_model model_for_plan(const struct control_model *m)
{
    return (struct plan_model){
        .n_layers = m->n_layers,
        .n_embd = m->n_embd,
        .layer_bytes = m->layer_bytes,
        .layer_active_bytes = m->layer_active_bytes,
        .layer_kv_bytes = m->layer_kv_bytes,
        .layer_flops = m->layer_flops,
        .embed_bytes = m->embed_bytes,
        .head_bytes = m->head_bytes,
        .head_active_bytes = m->head_active_bytes,
        .head_flops = m->head_flops,
        .scratch_bytes = m->scratch_bytes,
    };
}

static uint32_t round_to_blocks(uint32_t n_tokens)
{
    uint32_t rest = n_tokens % SHARD_KV_BLOCK_TOKENS;

    return rest ? n_tokens + SHARD_KV_BLOCK_TOKENS - rest : n_tokens;
}

struct context { /* how much context, and KV memory for how many tokens in all */
    uint32_t n_ctx_tokens, n_kv_tokens;
};

static struct context context_wanted(const struct control *c, const struct control_model *model)
{
    uint32_t n_ctx = c->options.n_ctx_tokens ? c->options.n_ctx_tokens : DEFAULT_CTX_TOKENS;
    uint32_t n_full = c->options.n_slots < FULL_CONTEXTS ? c->options.n_slots : FULL_CONTEXTS;

    n_ctx = n_ctx < MAX_CTX_TOKENS / FULL_CONTEXTS ? n_ctx : MAX_CTX_TOKENS / FULL_CONTEXTS;
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

/* The best plan with the longest context that fits; and of the KV budgets from there down to one
 * full context, the largest that does not cost a single stream a good part of its speed by calling
 * for one more node. */
static enum status plan_context(const struct control *c, const struct planning *p,
                                const struct control_model *model, enum plan_objective objective,
                                struct plan *plan, struct context *chosen, struct fault *fault)
{
    struct plan_model plan_model = model_for_plan(model);
    struct context context = context_wanted(c, model);
    struct plan next;
    bool found = false;

    do {
        struct plan_request request = {.objective = objective,
                                       .n_ctx_tokens = round_to_blocks(context.n_kv_tokens),
                                       .n_prompt_rows = PROMPT_ROWS,
                                       .head = 0};
        enum status status = plan_make(p->nodes, p->n, &plan_model, &request, &next, fault);

        if (status != STATUS_OK && status != STATUS_NO_ROOM)
            return status;
        if (status == STATUS_OK &&
            (!found || (objective == PLAN_LATENCY &&
                        next.latency_seconds < WORTH_LESS_KV * plan->latency_seconds))) {
            *plan = next;
            *chosen = (struct context){context.n_ctx_tokens, request.n_ctx_tokens};
            found = true;
        }
    } while (!(found && context.n_kv_tokens == context.n_ctx_tokens) && context_shrink(&context));
    if (!found)
        return STATUS_NO_ROOM;
    if (fault) /* what larger ones lacked does not matter any more */
        *fault = (struct fault){0};
    return STATUS_OK;
}

enum status instance_plan(struct control *c, struct instance *instance, bool *hopeless,
                          struct fault *fault)
{
    struct planning p;
    const struct control_model *model = instance->model;
    struct context context = {0};
    enum status status;

    *hopeless = true;
    planning_collect(c, instance->hash, instance, false, &p);
    status = plan_context(c, &p, model, c->options.objective, &instance->plan, &context, fault);
    if (status == STATUS_NO_ROOM) {
        struct planning all;
        struct plan plan;
        struct fault final = {0};

        planning_collect(c, instance->hash, instance, true, &all);
        *hopeless = plan_context(c, &all, model, c->options.objective, &plan, &context, &final) !=
                    STATUS_OK;
        if (*hopeless && final.status == STATUS_NO_ROOM)
            *fault = final;
    }
    if (status != STATUS_OK)
        return status;
    instance->n_ctx_tokens = context.n_ctx_tokens;
    instance->n_kv_tokens = context.n_kv_tokens;
    instance->n_stages = instance->plan.n_stages;
    instance->n_nodes = p.n;
    for (uint32_t i = 0; i < p.n; i++)
        text_set(instance->node_names[i], sizeof instance->node_names[i], "%s", p.nodes[i].name);
    for (uint32_t i = 0; i < instance->n_stages; i++) {
        const struct member *m = p.members[instance->plan.stages[i].node];
        struct instance_stage *stage = &instance->stages[i];

        memset(stage, 0, sizeof *stage);
        memcpy(stage->node_id, m ? m->id : c->options.self_id, PROTO_ID_BYTES);
        text_set(stage->name, sizeof stage->name, "%s", m ? m->card.name : c->card.name);
        stage->link = m ? m->link : NULL;
    }
    return STATUS_OK;
}

static void plan_of_instance(const struct instance *instance, struct control_plan_view *out)
{
    out->plan = instance->plan;
    out->n_nodes = instance->n_nodes;
    memcpy(out->names, instance->node_names, sizeof out->names);
    out->n_ctx_tokens = instance->n_ctx_tokens;
    out->running = true;
}

enum status control_plan(const struct control *c, const struct control_model *model,
                         enum plan_objective objective, struct control_plan_view *out,
                         struct fault *fault)
{
    struct planning p;
    struct context context = {0};
    enum status status;

    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < c->n_instances; i++)
        if (hash_equal(c->instances[i]->hash, model->hash) && c->instances[i]->n_stages > 0 &&
            c->instances[i]->state != INSTANCE_CLOSED) {
            plan_of_instance(c->instances[i], out);
            return STATUS_OK;
        }
    planning_collect(c, model->hash, NULL, false, &p);
    out->n_nodes = p.n;
    for (uint32_t i = 0; i < p.n; i++)
        text_set(out->names[i], sizeof out->names[i], "%s", p.nodes[i].name);
    status = plan_context(c, &p, model, objective, &out->plan, &context, fault);
    out->n_ctx_tokens = context.n_ctx_tokens;
    return status;
}
