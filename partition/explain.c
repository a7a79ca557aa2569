/* Why the plan is as it is, in sentences that a user can act on.
 *
 * A node that takes no part either cannot, has no room, or would make things worse; the last is not
 * asserted but computed, by planning again over the nodes in use and this one with the condition
 * that it gets work. A model that does not fit gets the sum of what it needs and what is offered,
 * and, where a shorter context would help, the longest one that fits (by bisection over the same
 * question). */
#include "partition/problem.h"

#include <stdio.h>
#include <string.h>

static const char *format_seconds(double seconds, char *out, size_t size)
{
    if (seconds >= 10)
        (void)snprintf(out, size, "%.4g s", seconds);
    else
        (void)snprintf(out, size, "%.4g ms", seconds * 1e3);
    return out;
}

/* Bytes of the smallest layer with its KV. */
static uint64_t smallest_layer(const struct problem *p)
{
    uint64_t least = UINT64_MAX;

    for (uint32_t l = 0; l < p->n_layers; l++) {
        uint64_t bytes = p->bytes_sum[l + 1] - p->bytes_sum[l];

        least = bytes < least ? bytes : least;
    }
    return least;
}

/* The longest context that everything fits with, 0 for none. */
static enum status longest_context(const struct plan_node *nodes, uint32_t n_nodes,
                                   const struct plan_model *model,
                                   const struct plan_request *request, uint32_t *out)
{
    struct plan_request shorter = *request;
    uint32_t fits = 0, fails = request->n_ctx_tokens;
    enum status status = STATUS_OK;

    while (status == STATUS_OK && fails - fits > 1) {
        char why[PLAN_MAX_NODES][200];
        struct problem p;
        uint32_t n_stages = 0;

        shorter.n_ctx_tokens = fits + (fails - fits) / 2;
        status = problem_build(&p, nodes, n_nodes, model, &shorter, why, NULL);
        if (status == STATUS_OK) {
            problem_limit(&p, PLAN_MAX_PS);
            status = problem_covers(&p, &n_stages);
        }
        problem_free(&p);
        if (n_stages > 0)
            fits = shorter.n_ctx_tokens;
        else
            fails = shorter.n_ctx_tokens;
    }
    *out = fits;
    return status;
}

static void no_room_numbers(const struct plan_node *nodes, const struct plan_model *model,
                            const struct plan_request *request, const struct problem *p, char *out,
                            size_t size)
{
    uint64_t ends = model->embed_bytes + model->head_bytes, weights = ends, offered = 0,
             largest = 0;
    uint64_t scratch = model->scratch_bytes * p->n_nodes, needed;
    char needs[32], has[32], kv[32], work[32], offers[32];
    bool any_head = false;

    for (uint32_t i = 0; i < p->n_nodes; i++) {
        uint64_t memory = nodes[p->nodes[i].index].memory_bytes;

        any_head = any_head || p->nodes[i].can_head;
        if (request->head < 0 || p->nodes[i].index == (uint32_t)request->head)
            largest = memory > largest ? memory : largest;
        if (__builtin_add_overflow(offered, memory, &offered))
            offered = UINT64_MAX;
    }
    for (uint32_t l = 0; l < p->n_layers; l++)
        weights += model->layer_bytes[l];
    needed = ends + p->bytes_sum[p->n_layers] + scratch;
    if (!any_head) {
        (void)snprintf(out, size,
                       "%s %s for the embedding and output head (%s with working memory)",
                       request->head >= 0 ? nodes[request->head].name : "no node",
                       request->head >= 0 ? "does not have room" : "has room",
                       bytes_format_size(ends + model->scratch_bytes, needs, sizeof needs));
        (void)snprintf(out + strlen(out), size - strlen(out), "; it offers %s",
                       bytes_format_size(largest, offers, sizeof offers));
        return;
    }
    (void)snprintf(
        out, size,
        "the model needs %s (weights %s, KV cache of %u tokens %s, working memory %s) and %u "
        "node%s %s %s",
        bytes_format_size(needed, needs, sizeof needs), bytes_format_size(weights, has, sizeof has),
        request->n_ctx_tokens, bytes_format_size(needed - scratch - weights, kv, sizeof kv),
        bytes_format_size(scratch, work, sizeof work), p->n_nodes, p->n_nodes == 1 ? "" : "s",
        p->n_nodes == 1 ? "offers" : "together offer",
        bytes_format_size(offered, offers, sizeof offers));
    if (needed <= offered)
        (void)snprintf(out + strlen(out), size - strlen(out),
                       ", but cut into whole layers it does not fit");
}

enum status explain_no_room(const struct plan_node *nodes, uint32_t n_nodes,
                            const struct plan_model *model, const struct plan_request *request,
                            struct problem *p, struct fault *fault)
{
    char numbers[380];
    uint32_t context;
    enum status status = longest_context(nodes, n_nodes, model, request, &context);

    if (status != STATUS_OK)
        return fault_set(fault, status, "no memory to plan");
    no_room_numbers(nodes, model, request, p, numbers, sizeof numbers);
    if (context > 0)
        return fault_set(fault, STATUS_NO_ROOM, "%s; it fits with a context of %u tokens", numbers,
                         context);
    return fault_set(fault, STATUS_NO_ROOM,
                     "%s; add a node, raise --memory or take a smaller model", numbers);
}

/* Latency of the plan when the node takes layers [begin, end) from the stage; 0 where it cannot. */
static double latency_taking(const struct problem *p, const struct problem_node *n,
                             const struct choice *chosen, uint32_t stage, uint32_t begin,
                             uint32_t end, double latency)
{
    const struct problem_node *old = &p->nodes[chosen->node[stage]];
    int64_t change = n->cost_ps[end] - n->cost_ps[begin] - old->cost_ps[end] + old->cost_ps[begin];

    if (p->bytes_sum[end] - p->bytes_sum[begin] > n->room)
        return 0;
    change += n->pass_ps + n->hop_ps + (chosen->n_stages == 1 ? old->hop_ps : 0);
    return latency + (double)change * 1e-12;
}

/* The least latency with some layers of one stage on this node; 0 where it can take none. */
static double latency_with(const struct problem *p, const struct problem_node *n,
                           const struct choice *chosen, double latency)
{
    double least = 0;
    uint32_t begin = 0;

    for (uint32_t stage = 0; stage < chosen->n_stages; begin = chosen->end[stage++]) {
        uint32_t end = chosen->end[stage], most = end - begin - (stage > 0 && end > begin);

        for (uint32_t k = 1; k <= most; k++) {
            double front = latency_taking(p, n, chosen, stage, begin, begin + k, latency);
            double back = latency_taking(p, n, chosen, stage, end - k, end, latency);

            if (stage > 0 && front > 0 && (least <= 0 || front < least))
                least = front;
            if (back > 0 && (least <= 0 || back < least))
                least = back;
        }
    }
    return least;
}

/* The sentence for one node that could run the model and takes no part. */
static void explain_node(const struct problem *p, const struct problem_node *n,
                         const struct plan_node *nodes, const struct plan_model *model,
                         const struct plan_request *request, const struct choice *chosen,
                         const struct plan *plan, char *out, size_t size)
{
    const struct plan_node *node = &nodes[n->index];
    uint64_t layer = smallest_layer(p) + model->scratch_bytes;
    bool throughput = request->objective == PLAN_THROUGHPUT;
    double now = throughput ? plan->slowest_stage_seconds : plan->latency_seconds, with;
    char a[32], b[32];

    if (node->memory_bytes < layer && !n->can_head) {
        (void)snprintf(out, size,
                       "%s is left out: it does not have room for one layer (offers %s, a layer "
                       "with its KV takes %s)",
                       node->name, bytes_format_size(node->memory_bytes, a, sizeof a),
                       bytes_format_size(layer, b, sizeof b));
        return;
    }
    if (throughput) {
        (void)snprintf(out, size, "%s is left out: with it the slowest stage would not be below %s",
                       node->name, format_seconds(now, a, sizeof a));
        return;
    }
    with = latency_with(p, n, chosen, now);
    (void)format_seconds(with, a, sizeof a);
    (void)format_seconds(now, b, sizeof b);
    if (with <= 0)
        (void)snprintf(out, size, "%s is left out: no layer is left for it", node->name);
    else if (strcmp(a, b) == 0)
        (void)snprintf(out, size, "%s is left out: with it a token would take as long (%s)",
                       node->name, b);
    else
        (void)snprintf(out, size, "%s is left out: with it a token would take %s instead of %s",
                       node->name, a, b);
}

void explain_left_out(const struct problem *p, const struct plan_node *nodes, uint32_t n_nodes,
                      const struct plan_model *model, const struct plan_request *request,
                      const struct choice *chosen, char why_left[PLAN_MAX_NODES][200],
                      struct plan *plan)
{
    for (uint32_t i = 0; i < p->n_nodes; i++) {
        bool used = false;

        for (uint32_t s = 0; s < chosen->n_stages; s++)
            used = used || chosen->node[s] == i;
        if (!used)
            explain_node(p, &p->nodes[i], nodes, model, request, chosen, plan,
                         why_left[p->nodes[i].index], sizeof why_left[0]);
    }
    for (uint32_t i = 0; i < n_nodes; i++) {
        if (!why_left[i][0])
            continue;
        plan->left_out[plan->n_left_out].node = i;
        (void)snprintf(plan->left_out[plan->n_left_out++].why, sizeof plan->left_out[0].why, "%s",
                       why_left[i]);
    }
}
