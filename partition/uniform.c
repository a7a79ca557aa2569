/* Plans where every layer weighs and costs the same.
 *
 * Then only the number of layers per node matters, not which ones, and behind the head the order of
 * the stages is free: they are taken in the order given. For each possible head a dynamic programme
 * goes over the other nodes,
 *
 *   best[l] = cheapest way to have l layers on the nodes seen so far,
 *   best'[l] = min(best[l], min over 1 <= k <= room: best[l - k] + k * layer + fixed),
 *
 * whose inner minimum slides along l, so a monotone queue makes it O(nodes^2 * layers) in all.
 * Exact: every count per node is considered. Nothing fails but memory. */
#include "partition/problem.h"

#include <string.h>

struct uniform {
    const struct problem *p;
    const struct aim *aim;
    int64_t *best;   /* [n_layers + 1] */
    int64_t *next;   /* [n_layers + 1] */
    uint16_t *queue; /* [n_layers + 1] */
    uint16_t *take;  /* [n_nodes, n_layers + 1] layers that node takes on the best way to l */
};

bool uniform_covers(const struct problem *p)
{
    int64_t all = 0;

    for (uint32_t i = 0; i < p->n_nodes; i++)
        all += p->nodes[i].reach[0];
    for (uint32_t i = 0; i < p->n_nodes; i++) {
        const struct problem_node *n = &p->nodes[i];

        if (n->head_reach >= 0 && all - n->reach[0] + n->head_reach >= p->n_layers)
            return true;
    }
    return false;
}

static int64_t fixed_key(const struct problem_node *n, const struct aim *aim)
{
    return aim->weight_latency * (n->pass_ps + n->hop_ps) + aim->weight_stages;
}

static void head_row(struct uniform *u, uint32_t head)
{
    const struct problem_node *n = &u->p->nodes[head];
    int64_t key = fixed_key(n, u->aim) + u->aim->weight_latency * n->head_ps;

    for (uint32_t l = 0; l <= u->p->n_layers; l++)
        u->best[l] = (int32_t)l <= n->head_reach ? key + u->aim->weight_latency * n->cost_ps[l]
                                                 : PLAN_NO_KEY;
}

static void node_row(struct uniform *u, uint32_t node)
{
    const struct problem_node *n = &u->p->nodes[node];
    uint16_t *take = u->take + (size_t)node * (u->p->n_layers + 1);
    int64_t layer = u->aim->weight_latency * n->cost_ps[1];
    int64_t fixed = fixed_key(n, u->aim);
    uint32_t first = 0, last = 0;

    for (uint32_t l = 0; l <= u->p->n_layers; l++) {
        bool skip = u->best[l] != PLAN_NO_KEY;

        take[l] = 0;
        u->next[l] = skip ? u->best[l] : PLAN_NO_KEY;
        if (l > 0 && u->best[l - 1] != PLAN_NO_KEY) {
            int64_t value = u->best[l - 1] - layer * (l - 1);

            while (last > first && u->best[u->queue[last - 1]] - layer * u->queue[last - 1] > value)
                last--;
            u->queue[last++] = (uint16_t)(l - 1);
        }
        while (first < last && u->queue[first] + (uint32_t)n->reach[0] < l)
            first++;
        if (first < last) {
            uint32_t from = u->queue[first];
            int64_t key = u->best[from] + layer * (l - from) + fixed;

            if (key < u->next[l]) {
                u->next[l] = key;
                take[l] = (uint16_t)(l - from);
            }
        }
    }
    memcpy(u->best, u->next, (u->p->n_layers + 1) * sizeof *u->best);
}

static void read_choice(const struct uniform *u, uint32_t head, struct choice *out)
{
    uint32_t counts[PLAN_MAX_NODES] = {0}, left = u->p->n_layers, at;

    for (uint32_t i = u->p->n_nodes; i-- > 0;) {
        if (i == head)
            continue;
        counts[i] = u->take[(size_t)i * (u->p->n_layers + 1) + left];
        left -= counts[i];
    }
    out->key = u->best[u->p->n_layers];
    out->n_stages = 1;
    out->node[0] = head;
    out->end[0] = at = left;
    for (uint32_t i = 0; i < u->p->n_nodes; i++) {
        if (counts[i] == 0)
            continue;
        at += counts[i];
        out->node[out->n_stages] = i;
        out->end[out->n_stages++] = at;
    }
}

enum status uniform_solve(const struct problem *p, const struct aim *aim, struct choice *best)
{
    size_t width = p->n_layers + 1;
    struct uniform u = {.p = p, .aim = aim};
    enum status status = STATUS_NO_MEMORY;

    u.best = MEM_NEW_N(int64_t, width);
    u.next = MEM_NEW_N(int64_t, width);
    u.queue = MEM_NEW_N(uint16_t, width);
    u.take = MEM_NEW_N(uint16_t, width * PLAN_MAX_NODES);
    if (!u.best || !u.next || !u.queue || !u.take)
        goto out;
    for (uint32_t head = 0; head < p->n_nodes; head++) {
        if (p->nodes[head].head_reach < 0)
            continue;
        head_row(&u, head);
        for (uint32_t i = 0; i < p->n_nodes; i++) {
            if (i != head)
                node_row(&u, i);
        }
        if (u.best[p->n_layers] < best->key)
            read_choice(&u, head, best);
    }
    status = STATUS_OK;
out:
    mem_free(u.best);
    mem_free(u.next);
    mem_free(u.queue);
    mem_free(u.take);
    return status;
}
