/* What a given plan costs, and whether it is one.
 *
 * plan_predict() is the cost model in the open, in seconds, apart from the solvers' integers.
 * plan_check() trusts nothing: plans also come from peers. It recomputes each stage's memory and
 * refuses gaps, overlaps, repeated nodes, nodes that cannot run the model, and stages that do not
 * fit, each with its numbers. */
#include "partition/partition.h"

#include <stdio.h>

static double decode_seconds_of(const struct plan *plan, uint32_t i, const struct plan_node *nodes,
                                const struct plan_model *model)
{
    const struct plan_stage *stage = &plan->stages[i];
    const struct plan_node *node = &nodes[stage->node];
    double bytes = i == 0 ? (double)model->head_active_bytes : 0;

    for (uint32_t l = stage->layer_begin; l < stage->layer_end; l++)
        bytes += (double)model->layer_active_bytes[l];
    return node->pass_seconds + bytes * node->decode_seconds_per_byte;
}

/* A pass of n_rows: bound by the multiply-adds, or, where they are few, by reading the weights. */
static double prefill_seconds_of(const struct plan *plan, uint32_t i, const struct plan_node *nodes,
                                 const struct plan_model *model, uint32_t n_rows)
{
    const struct plan_stage *stage = &plan->stages[i];
    const struct plan_node *node = &nodes[stage->node];
    double flops = i == 0 ? model->head_flops : 0, seconds;

    for (uint32_t l = stage->layer_begin; l < stage->layer_end; l++)
        flops += model->layer_flops[l] * n_rows;
    seconds = node->pass_seconds + flops * node->prefill_seconds_per_flop;
    return seconds > stage->decode_seconds ? seconds : stage->decode_seconds;
}

static double hop_seconds_of(const struct plan_node *node, const struct plan_model *model,
                             uint32_t n_rows)
{
    return node->hop_seconds + 4.0 * model->n_embd * n_rows * node->hop_seconds_per_byte;
}

void plan_predict(struct plan *plan, const struct plan_node *nodes, const struct plan_model *model,
                  const struct plan_request *request)
{
    uint32_t n_rows = request->n_prompt_rows ? request->n_prompt_rows : 1;

    plan->latency_seconds = plan->slowest_stage_seconds = plan->first_token_seconds = 0;
    for (uint32_t i = 0; i < plan->n_stages; i++) {
        struct plan_stage *stage = &plan->stages[i];
        const struct plan_node *node = &nodes[stage->node];

        stage->decode_seconds = decode_seconds_of(plan, i, nodes, model);
        plan->latency_seconds += stage->decode_seconds;
        plan->first_token_seconds += prefill_seconds_of(plan, i, nodes, model, n_rows);
        if (stage->decode_seconds > plan->slowest_stage_seconds)
            plan->slowest_stage_seconds = stage->decode_seconds;
        if (plan->n_stages == 1)
            continue;
        plan->latency_seconds += hop_seconds_of(node, model, 1);
        /* Only the last row of a prompt goes back to the head. */
        plan->first_token_seconds +=
            hop_seconds_of(node, model, i + 1 < plan->n_stages ? n_rows : 1);
    }
    plan->tokens_per_second = plan->latency_seconds > 0 ? 1 / plan->latency_seconds : 0;
}

/* What the stage needs by the model's numbers; INVALID where the sum overflows. */
static enum status stage_need(const struct plan *plan, uint32_t i, const struct plan_model *model,
                              const struct plan_request *request, uint64_t *out)
{
    const struct plan_stage *stage = &plan->stages[i];
    uint64_t need = model->scratch_bytes, kv;
    bool bad = false;

    if (i == 0) {
        bad |= __builtin_add_overflow(need, model->embed_bytes, &need);
        bad |= __builtin_add_overflow(need, model->head_bytes, &need);
    }
    for (uint32_t l = stage->layer_begin; l < stage->layer_end; l++) {
        bad |=
            __builtin_mul_overflow(model->layer_kv_bytes[l], (uint64_t)request->n_ctx_tokens, &kv);
        bad |= __builtin_add_overflow(need, kv, &need);
        bad |= __builtin_add_overflow(need, model->layer_bytes[l], &need);
    }
    *out = need;
    return bad ? STATUS_INVALID : STATUS_OK;
}

static enum status stage_check(const struct plan *plan, uint32_t i, const struct plan_node *nodes,
                               uint32_t n_nodes, const struct plan_model *model,
                               const struct plan_request *request, struct fault *fault)
{
    const struct plan_stage *stage = &plan->stages[i];
    uint32_t begin = i == 0 ? 0 : plan->stages[i - 1].layer_end;
    char needs[32], offers[32];
    uint64_t need;

    if (stage->node >= n_nodes)
        return fault_set(fault, STATUS_INVALID, "stage %u names node %u of %u", i, stage->node,
                         n_nodes);
    if (!nodes[stage->node].can_run)
        return fault_set(fault, STATUS_INVALID, "stage %u is on %s, which cannot run this model", i,
                         nodes[stage->node].name);
    for (uint32_t j = 0; j < i; j++) {
        if (plan->stages[j].node == stage->node)
            return fault_set(fault, STATUS_INVALID, "%s has stage %u and stage %u",
                             nodes[stage->node].name, j, i);
    }
    if (stage->layer_begin != begin || stage->layer_end > model->n_layers ||
        stage->layer_end < begin || (stage->layer_end == begin && i > 0))
        return fault_set(fault, STATUS_INVALID,
                         "stage %u has layers %u to %u after %u of %u are placed", i,
                         stage->layer_begin, stage->layer_end, begin, model->n_layers);
    if (stage_need(plan, i, model, request, &need) != STATUS_OK)
        return fault_set(fault, STATUS_INVALID, "the bytes of stage %u are out of range", i);
    if (stage->need_bytes != need)
        return fault_set(fault, STATUS_INVALID, "stage %u says it needs %llu bytes and needs %llu",
                         i, (unsigned long long)stage->need_bytes, (unsigned long long)need);
    if (need > nodes[stage->node].memory_bytes)
        return fault_set(fault, STATUS_NO_ROOM, "stage %u needs %s and %s offers %s", i,
                         bytes_format_size(need, needs, sizeof needs), nodes[stage->node].name,
                         bytes_format_size(nodes[stage->node].memory_bytes, offers, sizeof offers));
    return STATUS_OK;
}

enum status plan_check(const struct plan *plan, const struct plan_node *nodes, uint32_t n_nodes,
                       const struct plan_model *model, const struct plan_request *request,
                       struct fault *fault)
{
    if (plan->n_stages == 0 || plan->n_stages > PLAN_MAX_NODES)
        return fault_set(fault, STATUS_INVALID, "a plan of %u stages", plan->n_stages);
    if (model->n_layers == 0 || model->n_layers > PLAN_MAX_LAYERS)
        return fault_set(fault, STATUS_INVALID, "a model of %u layers cannot be planned (1 to %d)",
                         model->n_layers, PLAN_MAX_LAYERS);
    for (uint32_t i = 0; i < plan->n_stages; i++) {
        enum status status = stage_check(plan, i, nodes, n_nodes, model, request, fault);

        if (status != STATUS_OK)
            return status;
    }
    if (plan->stages[plan->n_stages - 1].layer_end != model->n_layers)
        return fault_set(fault, STATUS_INVALID, "%u of %u layers are placed",
                         plan->stages[plan->n_stages - 1].layer_end, model->n_layers);
    if (request->head >= 0 && plan->stages[0].node != (uint32_t)request->head)
        return fault_set(fault, STATUS_INVALID, "%s is the head and not the wanted node %d",
                         nodes[plan->stages[0].node].name, request->head);
    return STATUS_OK;
}
