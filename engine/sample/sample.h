#ifndef SKEIN_ENGINE_SAMPLE_SAMPLE_H
#define SKEIN_ENGINE_SAMPLE_SAMPLE_H

/* Inside the sampler: candidates, and the arithmetic that is the same on every machine. */
#include "engine/engine.h"

/* e^x for x <= 0, from additions, multiplications and bit patterns only, so that every machine gets
 * the same bits whatever its libm is; within 2 ulp. 0 below -708; NaN is our bug. */
double sample_exp(double x);
/* Natural logarithm for x > 0, likewise. */
double sample_log(double x);

enum random_purpose { RANDOM_DRAW = 0, RANDOM_XTC = 1 };

/* Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). */
void random_philox(const uint32_t counter[static 4], const uint32_t key[static 2],
                   uint32_t out[static 4]);
/* Uniform in [0, 1) with 53 bits: a pure function of its arguments. */
double random_unit(uint64_t seed, uint64_t position, enum random_purpose purpose);

struct candidate {
    float logit;
    uint32_t id;
};

enum { SAMPLE_DRY_TOKENS = 16384 };

struct sampler {
    uint32_t n_vocab;
    uint32_t stamp;         /* of the present use, in seen */
    uint32_t *seen;         /* [n_vocab] */
    struct candidate *list; /* [n_vocab] */
    struct candidate *kept; /* [n_vocab] */
    double *weights;        /* [n_vocab], of kept; before that whatever is kept per token */
    uint32_t *matches;      /* [SAMPLE_DRY_TOKENS] */
};

/* Total order: the larger logit first, the lower id among equals. */
static inline bool candidate_before(struct candidate a, struct candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* list[0..n) becomes a heap whose top is the best candidate. */
void candidates_heap(struct candidate *list, size_t n);
/* Takes the best one out of a heap of n; the heap then has n - 1. */
struct candidate candidates_pop(struct candidate *list, size_t n);
/* The k best of logits [n_vocab], sorted, into list [k]. Returns how many there are. */
size_t candidates_top(const float *logits, uint32_t n_vocab, size_t k, struct candidate *list);

/* A new use of seen and weights: true where id is met for the first time since, weights[id] is then
 * 0. */
void sample_stamp(struct sampler *sampler);
bool sample_first(struct sampler *sampler, uint32_t id);

/* ---- penalties.c: what changes logits [n_vocab] */
void penalties_apply(struct sampler *sampler, const struct sample_params *params, float *logits,
                     const uint32_t *history, size_t n_history);

/* ---- filters.c: what leaves candidates out. Both keep the order of kept [n] and return how many
 * are left, at least one. */
size_t filter_typical(struct sampler *sampler, size_t n, float best, float typical_p);
size_t filter_xtc(struct sampler *sampler, size_t n, float best, float threshold);
double sample_weight(float logit, float best); /* e^(logit - best), 1 for equal ones */

#endif
