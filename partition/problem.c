/* The planning problem in integers.
 *
 * plan_make() gets doubles and byte counts; the solvers want prefix sums, exact arithmetic and one
 * table per node that says how far a range starting at layer l may reach. This file makes them:
 * problem_build() once, problem_limit() again for every bound on a stage's time that the throughput
 * objective tries. Reach folds memory and time into one number, so the solvers know neither.
 *
 * What fails: inputs out of range (INVALID), sums that overflow (INVALID), memory. */
#include "partition/problem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bool number_is_sane(double v)
{
    return isfinite(v) && v >= 0;
}

static bool seconds_to_ps(double seconds, int64_t *out)
{
    if (!(seconds * 1e12 < (double)PLAN_MAX_PS))
        return false;
    *out = llround(seconds * 1e12);
    return true;
}

static enum status input_check(const struct plan_node *nodes, uint32_t n_nodes,
                               const struct plan_model *model, const struct plan_request *request,
                               struct fault *fault)
{
    if (n_nodes > PLAN_MAX_NODES)
        return fault_set(fault, STATUS_INVALID, "a plan is made over at most %d nodes, not %u",
                         PLAN_MAX_NODES, n_nodes);
    if (model->n_layers == 0 || model->n_layers > PLAN_MAX_LAYERS)
        return fault_set(fault, STATUS_INVALID, "a model of %u layers cannot be planned (1 to %d)",
                         model->n_layers, PLAN_MAX_LAYERS);
    if (request->head >= 0 && (uint32_t)request->head >= n_nodes)
        return fault_set(fault, STATUS_INVALID, "the wanted head is node %d of %u", request->head,
                         n_nodes);
    if (request->objective != PLAN_LATENCY && request->objective != PLAN_THROUGHPUT)
        return fault_set(fault, STATUS_INVALID, "unknown objective %d", (int)request->objective);
    for (uint32_t i = 0; i < n_nodes; i++) {
        const struct plan_node *n = &nodes[i];

        if (!number_is_sane(n->decode_seconds_per_byte) ||
            !number_is_sane(n->prefill_seconds_per_flop) || !number_is_sane(n->pass_seconds) ||
            !number_is_sane(n->hop_seconds) || !number_is_sane(n->hop_seconds_per_byte))
            return fault_set(fault, STATUS_INVALID, "%s reports a speed that is no number",
                             n->name);
    }
    return STATUS_OK;
}

static enum status sum_layers(struct problem *p, const struct plan_model *model,
                              const struct plan_request *request, struct fault *fault)
{
    uint64_t ends;

    p->uniform = true;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        uint64_t kv, layer, *sum = p->bytes_sum + l;

        if (__builtin_mul_overflow(model->layer_kv_bytes[l], (uint64_t)request->n_ctx_tokens,
                                   &kv) ||
            __builtin_add_overflow(model->layer_bytes[l], kv, &layer) ||
            __builtin_add_overflow(sum[0], layer, &sum[1]) || sum[1] > INT64_MAX)
            return fault_set(fault, STATUS_INVALID, "the bytes of layer %u are out of range", l);
        p->active_sum[l + 1] = p->active_sum[l] + (double)model->layer_active_bytes[l];
        if (layer != sum[0] / (l ? l : 1) && l > 0)
            p->uniform = false;
        if (model->layer_active_bytes[l] != model->layer_active_bytes[0])
            p->uniform = false;
    }
    if (__builtin_add_overflow(model->embed_bytes, model->head_bytes, &ends) || ends > INT64_MAX ||
        model->scratch_bytes > INT64_MAX)
        return fault_set(fault, STATUS_INVALID, "the bytes of the embedding are out of range");
    return STATUS_OK;
}

/* False where the node is too slow for its times to be kept. */
static bool node_times(struct problem *p, struct problem_node *out, const struct plan_node *node,
                       const struct plan_model *model)
{
    double hop = node->hop_seconds + 4.0 * model->n_embd * node->hop_seconds_per_byte;
    double rate = node->decode_seconds_per_byte;

    if (!seconds_to_ps(node->pass_seconds, &out->pass_ps) || !seconds_to_ps(hop, &out->hop_ps) ||
        !seconds_to_ps((double)model->head_active_bytes * rate, &out->head_ps))
        return false;
    out->ps_per_byte = rate * 1e12;
    for (uint32_t l = 0; l < p->n_layers; l++) {
        int64_t ps;

        if (!seconds_to_ps((double)model->layer_active_bytes[l] * rate, &ps))
            return false;
        out->cost_ps[l + 1] = out->cost_ps[l] + ps;
        if (out->cost_ps[l + 1] > PLAN_MAX_PS)
            return false;
    }
    return out->cost_ps[p->n_layers] + out->pass_ps + out->hop_ps + out->head_ps <= PLAN_MAX_PS;
}

static void node_room(struct problem_node *out, const struct plan_node *node,
                      const struct plan_model *model, const struct plan_request *request)
{
    uint64_t ends = model->embed_bytes + model->head_bytes;

    if (node->memory_bytes < model->scratch_bytes)
        return;
    out->room = node->memory_bytes - model->scratch_bytes;
    if (out->room < ends || (request->head >= 0 && (uint32_t)request->head != out->index))
        return;
    out->head_room = out->room - ends;
    out->can_head = true;
}

enum status problem_build(struct problem *p, const struct plan_node *nodes, uint32_t n_nodes,
                          const struct plan_model *model, const struct plan_request *request,
                          char why_left[PLAN_MAX_NODES][200], struct fault *fault)
{
    enum status status;

    memset(p, 0, sizeof *p);
    status = input_check(nodes, n_nodes, model, request, fault);
    if (status != STATUS_OK)
        return status;
    p->n_layers = model->n_layers;
    p->bytes_sum = MEM_NEW_N(uint64_t, p->n_layers + 1);
    p->active_sum = MEM_NEW_N(double, p->n_layers + 1);
    if (!p->bytes_sum || !p->active_sum)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory to plan");
    status = sum_layers(p, model, request, fault);
    if (status != STATUS_OK)
        return status;
    for (uint32_t i = 0; i < n_nodes; i++) {
        struct problem_node *out = &p->nodes[p->n_nodes];

        why_left[i][0] = 0;
        if (!nodes[i].can_run) {
            (void)snprintf(why_left[i], sizeof why_left[i], "%s is left out: %.120s", nodes[i].name,
                           nodes[i].why_not[0] ? nodes[i].why_not : "it cannot run this model");
            continue;
        }
        out->index = i;
        out->cost_ps = out->cost_ps ? out->cost_ps : MEM_NEW_N(int64_t, p->n_layers + 1);
        out->reach = out->reach ? out->reach : MEM_NEW_N(uint16_t, p->n_layers + 1);
        if (!out->cost_ps || !out->reach) {
            p->n_nodes++;
            return fault_set(fault, STATUS_NO_MEMORY, "no memory to plan");
        }
        if (!node_times(p, out, &nodes[i], model)) {
            (void)snprintf(
                why_left[i], sizeof why_left[i],
                "%s is left out: at the speed it reports a token would take over an hour",
                nodes[i].name);
            continue;
        }
        node_room(out, &nodes[i], model, request);
        p->n_nodes++;
    }
    return STATUS_OK;
}

void problem_free(struct problem *p)
{
    for (uint32_t i = 0; i < PLAN_MAX_NODES; i++) {
        mem_free(p->nodes[i].cost_ps);
        mem_free(p->nodes[i].reach);
    }
    mem_free(p->bytes_sum);
    mem_free(p->active_sum);
    memset(p, 0, sizeof *p);
}

int64_t problem_stage_ps(const struct problem *p, uint32_t node, uint32_t begin, uint32_t end,
                         bool head)
{
    const struct problem_node *n = &p->nodes[node];

    return n->pass_ps + n->cost_ps[end] - n->cost_ps[begin] + (head ? n->head_ps : 0);
}

/* Furthest end of a range from `begin`, known to reach `end` at least. */
static uint32_t reach_from(const struct problem *p, uint32_t node, uint32_t begin, uint32_t end,
                           uint64_t room, int64_t limit_ps, bool head)
{
    while (end < p->n_layers && p->bytes_sum[end + 1] - p->bytes_sum[begin] <= room &&
           problem_stage_ps(p, node, begin, end + 1, head) <= limit_ps)
        end++;
    return end;
}

void problem_limit(struct problem *p, int64_t limit_ps)
{
    for (uint32_t i = 0; i < p->n_nodes; i++) {
        struct problem_node *n = &p->nodes[i];
        uint32_t end = 0;

        for (uint32_t l = 0; l <= p->n_layers; l++) {
            end = reach_from(p, i, l, end > l ? end : l, n->room, limit_ps, false);
            n->reach[l] = (uint16_t)end;
        }
        n->head_reach = -1;
        if (n->can_head && problem_stage_ps(p, i, 0, 0, true) <= limit_ps)
            n->head_reach = (int32_t)reach_from(p, i, 0, 0, n->head_room, limit_ps, true);
    }
}

void problem_single(const struct problem *p, const struct aim *aim, struct choice *best)
{
    for (uint32_t i = 0; i < p->n_nodes; i++) {
        int64_t key;

        if (p->nodes[i].head_reach != (int32_t)p->n_layers)
            continue;
        key =
            aim->weight_latency * problem_stage_ps(p, i, 0, p->n_layers, true) + aim->weight_stages;
        if (key >= best->key)
            continue;
        best->key = key;
        best->n_stages = 1;
        best->node[0] = i;
        best->end[0] = p->n_layers;
    }
}

enum status problem_solve(const struct problem *p, const struct aim *aim, struct choice *best)
{
    best->key = PLAN_NO_KEY;
    problem_single(p, aim, best);
    return p->uniform ? uniform_solve(p, aim, best) : search_solve(p, aim, best);
}

enum status problem_covers(const struct problem *p, uint32_t *out_stages)
{
    if (!p->uniform)
        return search_covers(p, out_stages);
    *out_stages = uniform_covers(p) ? PLAN_MAX_NODES : 0;
    return STATUS_OK;
}
