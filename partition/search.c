/* Plans where layers differ, as in files that mix tensor types or in models whose first layers are
 * dense and whose others have experts.
 *
 * Then it matters which range lands on which node. Two searches over sets of nodes:
 *
 * search_covers() asks whether stages within the limits can cover all layers. Being further along
 * with the same nodes used is never worse (any continuation from l also serves from l' > l, with
 * ranges that only shrink), so one number per set is enough: the furthest layer,
 *   far[S] = max over i in S of reach_i(far[S - i]),    2^n sets, n steps each.
 *
 * search_solve() minimises the cost. Its states are (set of nodes used, layers covered); how the
 * set got there is of no matter. A* with an admissible bound: the layers that remain, as if they
 * could be cut anywhere, poured into the unused nodes in the order of their cost per byte, the
 * fixed cost of a stage spread over the most that the node can hold. States from which the unused
 * nodes cannot reach the last layer (the mirror image of `far`) are dropped. The bound is off by
 * the rounding to whole layers only, so few states are opened; in the worst case there are 2^n *
 * layers of them. The first plan whose cost is at most every bound left is optimal.
 *
 * A first run with the bound raised by two percent finds a good plan soon; the second, exact one
 * then opens and queues nothing that cannot beat it. Past half a million states the second run
 * stops and the best plan known is taken: this was seen with 16 nodes and a thousand layers of
 * dozens of sizes, and then the plan is within two percent of the best.
 *
 * Fails only for want of memory. */
#include "partition/problem.h"

#include <stdlib.h>
#include <string.h>

enum { NO_STATE = UINT32_MAX, MAX_STATES = 1 << 19 };

/* The first run's factor on the bound. */
static const double GREED = 1.02;

struct state {
    int64_t key;  /* cheapest way here that is known */
    uint32_t tie; /* and of equal ones the least sum of ranks */
    uint32_t parent;
    uint16_t set;
    uint16_t layers;
};

struct entry {
    int64_t bound;
    int64_t key; /* of the state when it was pushed: another value now means a stale entry */
    uint32_t tie;
    uint32_t state;
};

struct search {
    const struct problem *p;
    const struct aim *aim;
    struct choice *best;
    uint32_t best_state;
    double greed;    /* factor on the bound: 1 is exact, more finds some good plan soon */
    uint16_t *least; /* [2^n] first layer from which exactly these nodes may reach the end */
    uint16_t *back;  /* [n, n_layers + 1] first begin of a range that ends there */
    uint32_t order[PLAN_MAX_NODES]; /* by rate */
    double rate[PLAN_MAX_NODES];    /* ps per byte with the fixed cost spread */
    uint32_t rank[PLAN_MAX_NODES];  /* by speed alone */
    double most[PLAN_MAX_NODES];    /* bytes read per token by the largest range that fits */
    struct state *states;
    size_t n_states, max_states;
    uint32_t *table; /* hash of (set, layers) to state + 1 */
    size_t table_size;
    struct entry *heap;
    size_t n_heap, max_heap;
};

enum status search_covers(const struct problem *p, uint32_t *out_stages)
{
    uint32_t n_sets = 1u << p->n_nodes;
    uint16_t *far = MEM_NEW_N(uint16_t, n_sets); /* layers + 1; 0: no head among them */

    *out_stages = 0;
    if (!far)
        return STATUS_NO_MEMORY;
    for (uint32_t set = 1; set < n_sets; set++) {
        uint32_t n_stages = (uint32_t)__builtin_popcount(set), furthest = 0;

        for (uint32_t i = 0; i < p->n_nodes; i++) {
            uint32_t rest = set & ~(1u << i), to = 0;

            if (rest == set)
                continue;
            if (rest == 0)
                to = (uint32_t)(p->nodes[i].head_reach + 1);
            else if (far[rest] > 0)
                to = p->nodes[i].reach[far[rest] - 1] + 1u;
            furthest = to > furthest ? to : furthest;
        }
        far[set] = (uint16_t)furthest;
        if (furthest == p->n_layers + 1 && (*out_stages == 0 || n_stages < *out_stages))
            *out_stages = n_stages;
    }
    mem_free(far);
    return STATUS_OK;
}

/* back and least: what search_covers() computes, from the last layer to the first, for the nodes
 * behind the head. */
static void fill_least(struct search *s)
{
    const struct problem *p = s->p;
    uint32_t width = p->n_layers + 1;

    for (uint32_t i = 0; i < p->n_nodes; i++) {
        uint32_t begin = 0;

        for (uint32_t end = 0; end < width; end++) {
            while (p->nodes[i].reach[begin] < end)
                begin++;
            s->back[i * width + end] = (uint16_t)begin;
        }
    }
    s->least[0] = (uint16_t)p->n_layers;
    for (uint32_t set = 1; set < 1u << p->n_nodes; set++) {
        uint32_t least = p->n_layers;

        for (uint32_t i = 0; i < p->n_nodes; i++) {
            uint32_t rest = set & ~(1u << i), begin;

            if (rest == set)
                continue;
            begin = s->back[i * width + s->least[rest]];
            least = begin < least ? begin : least;
        }
        s->least[set] = (uint16_t)least;
    }
}

static void fill_ranks(struct search *s)
{
    for (uint32_t i = 0; i < s->p->n_nodes; i++) {
        for (uint32_t j = 0; j < s->p->n_nodes; j++) {
            double a = s->p->nodes[i].ps_per_byte, b = s->p->nodes[j].ps_per_byte;

            s->rank[i] += b < a || (b <= a && j < i);
        }
    }
}

static void fill_rates(struct search *s)
{
    const struct problem *p = s->p;

    for (uint32_t i = 0; i < p->n_nodes; i++) {
        const struct problem_node *n = &p->nodes[i];
        uint32_t at = i;

        for (uint32_t l = 0; l < p->n_layers; l++) {
            double bytes = p->active_sum[n->reach[l]] - p->active_sum[l];

            s->most[i] = bytes > s->most[i] ? bytes : s->most[i];
        }
        s->rate[i] = n->ps_per_byte;
        if (s->most[i] > 0)
            s->rate[i] += (double)(n->pass_ps + n->hop_ps) / s->most[i];
        for (; at > 0 && s->rate[s->order[at - 1]] > s->rate[i]; at--)
            s->order[at] = s->order[at - 1];
        s->order[at] = i;
    }
}

/* A lower bound of what the layers from l on cost on the nodes outside the set. */
static int64_t bound_of(const struct search *s, uint32_t set, uint32_t l)
{
    double left = s->p->active_sum[s->p->n_layers] - s->p->active_sum[l], ps = 0;

    if (l == s->p->n_layers)
        return 0;
    for (uint32_t at = 0; at < s->p->n_nodes && left > 0; at++) {
        uint32_t i = s->order[at];
        double bytes = left < s->most[i] ? left : s->most[i];

        if (set & 1u << i)
            continue;
        ps += bytes * s->rate[i];
        left -= bytes;
    }
    /* Half a picosecond per layer was rounded, and doubles round too. */
    ps = s->greed * ps * (1 - 1e-12) - (double)s->p->n_layers;
    return s->aim->weight_latency * (ps > 0 ? (int64_t)ps : 0) + s->aim->weight_stages;
}

static bool heap_before(const struct search *s, const struct entry *a, const struct entry *b)
{
    if (a->bound != b->bound)
        return a->bound < b->bound;
    return s->states[a->state].layers > s->states[b->state].layers;
}

static enum status heap_push(struct search *s, struct entry e)
{
    size_t at = s->n_heap;

    if (s->n_heap == s->max_heap) {
        size_t more = s->max_heap ? s->max_heap * 2 : 1024;
        struct entry *heap = mem_resize(s->heap, more, sizeof *heap);

        if (!heap)
            return STATUS_NO_MEMORY;
        s->heap = heap;
        s->max_heap = more;
    }
    s->n_heap++;
    for (; at > 0 && heap_before(s, &e, &s->heap[(at - 1) / 2]); at = (at - 1) / 2)
        s->heap[at] = s->heap[(at - 1) / 2];
    s->heap[at] = e;
    return STATUS_OK;
}

static struct entry heap_pop(struct search *s)
{
    struct entry top = s->heap[0], e = s->heap[--s->n_heap];
    size_t at = 0;

    for (;;) {
        size_t child = 2 * at + 1;

        if (child + 1 < s->n_heap && heap_before(s, &s->heap[child + 1], &s->heap[child]))
            child++;
        if (child >= s->n_heap || !heap_before(s, &s->heap[child], &e))
            break;
        s->heap[at] = s->heap[child];
        at = child;
    }
    s->heap[at] = e;
    return top;
}

static size_t slot_of(const struct search *s, uint32_t set, uint32_t layers)
{
    uint64_t mixed = ((uint64_t)set << 11 | layers) * 0x9e3779b97f4a7c15u;
    size_t slot = (size_t)(mixed >> 32) & (s->table_size - 1);

    while (s->table[slot]) {
        const struct state *st = &s->states[s->table[slot] - 1];

        if (st->set == set && st->layers == layers)
            break;
        slot = (slot + 1) & (s->table_size - 1);
    }
    return slot;
}

/* Room for one more state: the table stays at most half full. */
static enum status states_reserve(struct search *s)
{
    size_t more = s->max_states ? s->max_states * 2 : 1024;
    struct state *states;

    if (s->table && s->n_states < s->max_states)
        return STATUS_OK;
    states = mem_resize(s->states, more, sizeof *states);
    if (!states)
        return STATUS_NO_MEMORY;
    s->states = states;
    s->max_states = more;
    mem_free(s->table);
    s->table_size = more * 2;
    s->table = MEM_NEW_N(uint32_t, s->table_size);
    if (!s->table)
        return STATUS_NO_MEMORY;
    for (size_t i = 0; i < s->n_states; i++)
        s->table[slot_of(s, states[i].set, states[i].layers)] = (uint32_t)i + 1;
    return STATUS_OK;
}

/* A way to a state was found: keep it where it is the best, and queue it. */
static enum status reach_state(struct search *s, struct state way, int64_t bound)
{
    enum status status = states_reserve(s);
    uint32_t index;
    size_t slot;

    if (status != STATUS_OK)
        return status;
    slot = slot_of(s, way.set, way.layers);
    if (s->table[slot] == 0) {
        s->states[s->n_states++] = (struct state){
            .key = PLAN_NO_KEY, .parent = NO_STATE, .set = way.set, .layers = way.layers};
        s->table[slot] = (uint32_t)s->n_states;
    }
    index = s->table[slot] - 1;
    if (s->states[index].key < way.key ||
        (s->states[index].key == way.key && s->states[index].tie <= way.tie))
        return STATUS_OK;
    s->states[index] = way;
    if (way.layers == s->p->n_layers) {
        s->best->key = way.key;
        s->best_state = index;
        return STATUS_OK;
    }
    return heap_push(s, (struct entry){bound, way.key, way.tie, index});
}

/* One more node: its ends from `last` down to `first`, behind the state `from`. The bound is convex
 * in the end of the range: once it is too high and rising, so are the rest. */
static enum status extend(struct search *s, const struct state *from, uint32_t node, uint32_t first,
                          uint32_t last)
{
    const struct problem_node *n = &s->p->nodes[node];
    uint32_t others = ((1u << s->p->n_nodes) - 1) & ~(from->set | 1u << node);
    bool final = (uint32_t)__builtin_popcount(from->set) + 1 >= s->aim->max_stages;
    int64_t before = PLAN_NO_KEY;

    for (uint32_t end = last + 1; end-- > first;) {
        struct state way = *from;
        int64_t bound;
        enum status status;

        if (end < s->least[others] || (final && end < s->p->n_layers))
            break;
        way.key += s->aim->weight_latency * (n->cost_ps[end] - n->cost_ps[from->layers]);
        way.tie += s->rank[node] * (end - from->layers);
        way.set = (uint16_t)(from->set | 1u << node);
        way.layers = (uint16_t)end;
        bound = way.key + bound_of(s, way.set, end);
        if (bound >= s->best->key && bound > before)
            break;
        before = bound;
        if (bound >= s->best->key)
            continue;
        status = reach_state(s, way, bound);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* The node whose range ends at the state, and whether that range could be longer. */
static uint32_t last_node_of(const struct search *s, const struct state *st, bool *could_be_longer)
{
    const struct state *parent = st->parent == NO_STATE ? NULL : &s->states[st->parent];
    uint32_t node = (uint32_t)__builtin_ctz(st->set & ~(parent ? parent->set : 0u));
    uint32_t reach =
        parent ? s->p->nodes[node].reach[parent->layers] : (uint32_t)s->p->nodes[node].head_reach;

    *could_be_longer = st->layers < reach;
    return node;
}

static enum status expand(struct search *s)
{
    struct entry e = heap_pop(s);
    struct state st = s->states[e.state];
    enum status status = STATUS_OK;
    bool could_be_longer;
    uint32_t before;

    if (st.key != e.key || st.tie != e.tie || st.layers == s->p->n_layers)
        return STATUS_OK;
    before = last_node_of(s, &st, &could_be_longer);
    st.parent = e.state;
    for (uint32_t i = 0; i < s->p->n_nodes && status == STATUS_OK; i++) {
        const struct problem_node *n = &s->p->nodes[i];
        bool faster = s->rank[i] < s->rank[before];
        uint32_t first = st.layers + 1u;
        struct state from = st;

        if (st.set & 1u << i || (could_be_longer && !faster))
            continue;
        if (faster && st.layers > 0 && n->reach[st.layers - 1] >= first)
            first = n->reach[st.layers - 1] + 1u;
        from.key += s->aim->weight_latency * (n->pass_ps + n->hop_ps) + s->aim->weight_stages;
        status = extend(s, &from, i, first, n->reach[st.layers]);
    }
    return status;
}

static void read_states(struct search *s)
{
    struct choice *best = s->best;
    uint32_t at = s->best_state;

    if (at == NO_STATE)
        return;
    best->n_stages = (uint32_t)__builtin_popcount(s->states[at].set);
    for (uint32_t stage = best->n_stages; stage-- > 0; at = s->states[at].parent) {
        uint32_t parent = s->states[at].parent;
        uint32_t before = parent == NO_STATE ? 0 : s->states[parent].set;

        best->node[stage] = (uint32_t)__builtin_ctz(s->states[at].set & ~before);
        best->end[stage] = s->states[at].layers;
    }
}

static enum status search_run(struct search *s, double greed)
{
    enum status status = STATUS_OK;

    s->greed = greed;
    s->best_state = NO_STATE;
    s->n_heap = s->n_states = 0;
    if (s->table)
        memset(s->table, 0, s->table_size * sizeof *s->table);
    for (uint32_t i = 0; i < s->p->n_nodes && status == STATUS_OK; i++) {
        const struct problem_node *n = &s->p->nodes[i];
        struct state from = {.parent = NO_STATE};

        from.key =
            s->aim->weight_latency * (n->pass_ps + n->hop_ps + n->head_ps) + s->aim->weight_stages;
        if (n->head_reach >= 0)
            status = extend(s, &from, i, 0, (uint32_t)n->head_reach);
    }
    while (status == STATUS_OK && s->n_heap > 0 && s->heap[0].bound < s->best->key &&
           (s->n_states < MAX_STATES || s->best->key == PLAN_NO_KEY))
        status = expand(s);
    if (status == STATUS_OK)
        read_states(s);
    return status;
}

enum status search_solve(const struct problem *p, const struct aim *aim, struct choice *best)
{
    struct search s = {.p = p, .aim = aim, .best = best};
    enum status status = STATUS_NO_MEMORY;

    s.least = MEM_NEW_N(uint16_t, (size_t)1 << p->n_nodes);
    s.back = MEM_NEW_N(uint16_t, (size_t)p->n_nodes * (p->n_layers + 1));
    if (s.least && s.back) {
        fill_least(&s);
        fill_ranks(&s);
        fill_rates(&s);
        status = search_run(&s, GREED);
        if (status == STATUS_OK)
            status = search_run(&s, 1);
    }
    mem_free(s.least);
    mem_free(s.back);
    mem_free(s.states);
    mem_free(s.table);
    mem_free(s.heap);
    return status;
}
