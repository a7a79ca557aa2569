/* The planner: which node runs which layers.
 *
 * A stage costs a fixed time per pass, the time to read its weights, and on the head the output
 * head. A token of one stream visits all stages and crosses every link of the ring, the return to
 * the head included; a single stage has no link. So
 *
 *   latency    = sum of stages + sum of the hops of the nodes in use
 *   throughput = slowest stage
 *
 * Latency is solved directly (uniform.c, search.c). For throughput the smallest bound T on a
 * stage's time under which everything still fits is found by bisection over whole picoseconds, and
 * among the plans within T the fewest stages win, then the lowest latency. Both are exact, so a
 * node more can only widen the choice. Whether the memory suffices at all is asked first, because
 * the answer "no" deserves numbers and advice (explain.c).
 *
 * Nodes that differ, layers that differ, memory that binds: see problem.c for how these become one
 * table per node. */
#include "partition/problem.h"

#include <stdio.h>
#include <string.h>

enum { LATENCY_WEIGHT = PLAN_MAX_NODES * 2 };

static enum status smallest_limit(struct problem *p, int64_t *out_limit, uint32_t *out_stages)
{
    int64_t low = -1, high = PLAN_MAX_PS;
    enum status status = STATUS_OK;

    problem_limit(p, high);
    status = problem_covers(p, out_stages);
    while (status == STATUS_OK && high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        uint32_t n_stages;

        problem_limit(p, middle);
        status = problem_covers(p, &n_stages);
        if (status == STATUS_OK && n_stages > 0) {
            high = middle;
            *out_stages = n_stages;
        } else {
            low = middle;
        }
    }
    *out_limit = high;
    return status;
}

static enum status solve(struct problem *p, enum plan_objective objective, struct choice *best)
{
    struct aim aim = {
        .weight_latency = LATENCY_WEIGHT, .weight_stages = 1, .max_stages = PLAN_MAX_NODES};

    if (objective == PLAN_THROUGHPUT) {
        int64_t limit;
        enum status status = smallest_limit(p, &limit, &aim.max_stages);

        if (status != STATUS_OK)
            return status;
        /* Any stage outweighs any latency: fewer stages first. */
        aim.weight_latency = 1;
        aim.weight_stages = p->uniform ? (int64_t)1 << 57 : 0;
        problem_limit(p, limit);
    }
    return problem_solve(p, &aim, best);
}

static void write_stages(const struct problem *p, const struct choice *best,
                         const struct plan_model *model, struct plan *out)
{
    uint32_t begin = 0;

    out->n_stages = best->n_stages;
    for (uint32_t i = 0; i < best->n_stages; i++) {
        struct plan_stage *stage = &out->stages[i];

        stage->node = p->nodes[best->node[i]].index;
        stage->layer_begin = begin;
        stage->layer_end = best->end[i];
        stage->need_bytes = p->bytes_sum[best->end[i]] - p->bytes_sum[begin] + model->scratch_bytes;
        if (i == 0)
            stage->need_bytes += model->embed_bytes + model->head_bytes;
        begin = best->end[i];
    }
}

static enum status no_node(const struct plan_node *nodes, uint32_t n_nodes,
                           char why_left[PLAN_MAX_NODES][200], struct fault *fault)
{
    (void)nodes;
    if (n_nodes == 0)
        return fault_set(fault, STATUS_NOT_FOUND, "there is no node to run the model on");
    return fault_set(fault, STATUS_NOT_FOUND, "no node can run the model: %s", why_left[0]);
}

enum status plan_make(const struct plan_node *nodes, uint32_t n_nodes,
                      const struct plan_model *model, const struct plan_request *request,
                      struct plan *out, struct fault *fault)
{
    char why_left[PLAN_MAX_NODES][200];
    struct problem p;
    struct choice best;
    uint32_t n_stages = 0;
    enum status status;

    memset(out, 0, sizeof *out);
    status = problem_build(&p, nodes, n_nodes, model, request, why_left, fault);
    if (status != STATUS_OK)
        goto out;
    if (p.n_nodes == 0) {
        status = no_node(nodes, n_nodes, why_left, fault);
        goto out;
    }
    problem_limit(&p, PLAN_MAX_PS);
    status = problem_covers(&p, &n_stages);
    if (status == STATUS_OK && n_stages == 0) {
        status = explain_no_room(nodes, n_nodes, model, request, &p, fault);
        goto out;
    }
    if (status == STATUS_OK)
        status = solve(&p, request->objective, &best);
    if (status != STATUS_OK) {
        status = fault_set(fault, status, "no memory to plan");
        goto out;
    }
    write_stages(&p, &best, model, out);
    plan_predict(out, nodes, model, request);
    explain_left_out(&p, nodes, n_nodes, model, request, &best, why_left, out);
out:
    problem_free(&p);
    return status;
}
