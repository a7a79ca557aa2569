#ifndef SKEIN_PARTITION_PROBLEM_H
#define SKEIN_PARTITION_PROBLEM_H

/* Private to the planner: the problem in integers, as both solvers read it. */
#include "partition/partition.h"

/* Times inside the solvers are whole picoseconds, so that sums are exact, ties are ties, and no
 * order of addition can change a plan. A node that needs longer than PLAN_MAX_PS for all layers is
 * left out; below it no sum of sixteen stages overflows an objective key. */
#define PLAN_MAX_PS ((int64_t)1 << 52)
#define PLAN_NO_KEY INT64_MAX

struct problem_node {
    uint32_t index;     /* in the nodes given to plan_make */
    int64_t pass_ps;    /* fixed cost of a stage */
    int64_t hop_ps;     /* its link to the next stage, one decoded row */
    int64_t head_ps;    /* output head, on stage 0 */
    uint64_t room;      /* memory less scratch: what layers may take */
    uint64_t head_room; /* the same less embedding and output head */
    bool can_head;      /* head_room is meaningful, and the request allows it */
    double ps_per_byte; /* weights read at decode */
    int64_t *cost_ps;   /* [n_layers + 1] sum of the layers before, on this node */
    uint16_t *reach;    /* [n_layers + 1] furthest end of a range that begins there */
    int32_t head_reach; /* furthest end of stage 0 on this node, -1 where it cannot be head */
};

struct problem {
    uint32_t n_nodes;
    uint32_t n_layers;
    bool uniform;        /* every layer costs and weighs the same */
    uint64_t *bytes_sum; /* [n_layers + 1] weights and KV of the layers before */
    double *active_sum;  /* [n_layers + 1] bytes read per decoded token by the layers before */
    struct problem_node nodes[PLAN_MAX_NODES];
};

/* What a solver minimises: weight_latency * picoseconds + weight_stages * stages, over plans of at
 * most max_stages stages. */
struct aim {
    int64_t weight_latency;
    int64_t weight_stages;
    uint32_t max_stages;
};

struct choice {
    int64_t key; /* PLAN_NO_KEY: nothing found */
    uint32_t n_stages;
    uint32_t node[PLAN_MAX_NODES]; /* index into problem.nodes */
    uint32_t end[PLAN_MAX_NODES];
};

/* why_left[i] is set for each node that takes no part, "" for the others. The problem is freed by
 * problem_free() in any case. */
enum status problem_build(struct problem *p, const struct plan_node *nodes, uint32_t n_nodes,
                          const struct plan_model *model, const struct plan_request *request,
                          char why_left[PLAN_MAX_NODES][200], struct fault *fault) MUST_USE;
void problem_free(struct problem *p);
/* Sets reach and head_reach for stages of at most limit_ps. */
void problem_limit(struct problem *p, int64_t limit_ps);
/* Picoseconds of one stage. */
int64_t problem_stage_ps(const struct problem *p, uint32_t node, uint32_t begin, uint32_t end,
                         bool head);
/* The best plan of a single stage, or PLAN_NO_KEY. */
void problem_single(const struct problem *p, const struct aim *aim, struct choice *best);

/* The solvers. Both assume problem_limit() was called; *best comes in with the best plan known so
 * far and is replaced by a strictly better one. */
enum status uniform_solve(const struct problem *p, const struct aim *aim,
                          struct choice *best) MUST_USE;
bool uniform_covers(const struct problem *p);
enum status search_solve(const struct problem *p, const struct aim *aim,
                         struct choice *best) MUST_USE;
/* *out_stages: fewest stages that cover every layer, 0 where none do. */
enum status search_covers(const struct problem *p, uint32_t *out_stages) MUST_USE;

/* Either of the two, by the problem's kind. */
enum status problem_solve(const struct problem *p, const struct aim *aim,
                          struct choice *best) MUST_USE;
enum status problem_covers(const struct problem *p, uint32_t *out_stages) MUST_USE;

/* Sentences. */
enum status explain_no_room(const struct plan_node *nodes, uint32_t n_nodes,
                            const struct plan_model *model, const struct plan_request *request,
                            struct problem *p, struct fault *fault) MUST_USE;
void explain_left_out(const struct problem *p, const struct plan_node *nodes, uint32_t n_nodes,
                      const struct plan_model *model, const struct plan_request *request,
                      const struct choice *chosen, char why_left[PLAN_MAX_NODES][200],
                      struct plan *plan);

#endif
