/* From logits to the next token.
 *
 * The order is fixed (engine.h): what changes logits, then what leaves candidates out, then the
 * temperature and the draw. The filters look at the probabilities before the
 * temperature, so that a high temperature never lets in what they exclude; this is the default
 * order of llama.cpp, whose settings users bring along.
 *
 * top-k, top-p and min-p each keep a prefix of the candidates sorted by (logit, id), so the
 * three together keep the shortest of the three prefixes: candidates are taken out best first and
 * the walk ends at the first filter that says stop. At least one candidate always stays. The draw
 * walks the same prefix with one random number that depends on (seed, position) only.
 *
 * What a broken model gives: NaN counts as -infinity, +infinity as the largest float; where
 * nothing finite is left, every token is equally good and the lowest ids win by the order above. */
#include "engine/sample/sample.h"

#include <float.h>
#include <math.h>
#include <string.h>

void sample_defaults(struct sample_params *out)
{
    *out = (struct sample_params){.temperature = 0.8f,
                                  .top_k = 40,
                                  .top_p = 0.95f,
                                  .min_p = 0.05f,
                                  .repeat_penalty = 1.0f,
                                  .repeat_last_n = 64,
                                  .seed = 0};
}

static enum status range_check(const char *name, double value, double low, double high,
                               struct fault *fault)
{
    if (value >= low && value <= high) { /* false for NaN */
        return STATUS_OK;
    }
    return fault_set(fault, STATUS_INVALID, "%s is %g; it must be between %g and %g", name, value,
                     low, high);
}

enum status sample_check(const struct sample_params *params, struct fault *fault)
{
    const struct {
        const char *name;
        double value, low, high;
    } ranges[] = {
        {"temperature", (double)params->temperature, 0.0, 100.0},
        {"top_p", (double)params->top_p, 0.0, 1.0},
        {"min_p", (double)params->min_p, 0.0, 1.0},
        {"repeat_penalty", (double)params->repeat_penalty, 0.01, 100.0},
        {"typical_p", (double)params->typical_p, 0.0, 1.0},
        {"frequency_penalty", (double)params->frequency_penalty, -100.0, 100.0},
        {"presence_penalty", (double)params->presence_penalty, -100.0, 100.0},
        {"dry_multiplier", (double)params->dry_multiplier, 0.0, 100.0},
        {"dry_base", (double)params->dry_base, 0.0, 100.0},
        {"xtc_probability", (double)params->xtc_probability, 0.0, 1.0},
        {"xtc_threshold", (double)params->xtc_threshold, 0.0, 1.0},
    };
    for (size_t i = 0; i < COUNT_OF(ranges); i++) {
        enum status status =
            range_check(ranges[i].name, ranges[i].value, ranges[i].low, ranges[i].high, fault);
        if (status != STATUS_OK) {
            return status;
        }
    }
    for (size_t i = 0; i < params->n_biases; i++) {
        if (isnan(params->biases[i].bias)) {
            return fault_set(fault, STATUS_INVALID, "logit_bias of token %u is not a number",
                             params->biases[i].id);
        }
    }
    return STATUS_OK;
}

enum status sampler_new(uint32_t n_vocab, struct sampler **out)
{
    *out = NULL;
    if (n_vocab == 0) {
        return STATUS_INVALID;
    }
    struct sampler *sampler = MEM_NEW(struct sampler);
    if (sampler == NULL) {
        return STATUS_NO_MEMORY;
    }
    sampler->n_vocab = n_vocab;
    sampler->seen = MEM_NEW_N(uint32_t, n_vocab);
    sampler->list = MEM_NEW_N(struct candidate, n_vocab);
    sampler->kept = MEM_NEW_N(struct candidate, n_vocab);
    sampler->weights = MEM_NEW_N(double, n_vocab);
    sampler->matches = MEM_NEW_N(uint32_t, SAMPLE_DRY_TOKENS);
    if (sampler->seen == NULL || sampler->list == NULL || sampler->kept == NULL ||
        sampler->weights == NULL || sampler->matches == NULL) {
        sampler_free(&sampler);
        return STATUS_NO_MEMORY;
    }
    *out = sampler;
    return STATUS_OK;
}

void sampler_free(struct sampler **sampler)
{
    if (*sampler == NULL) {
        return;
    }
    mem_free((*sampler)->seen);
    mem_free((*sampler)->list);
    mem_free((*sampler)->kept);
    mem_free((*sampler)->weights);
    mem_free((*sampler)->matches);
    mem_free(*sampler);
    *sampler = NULL;
}

void sample_stamp(struct sampler *sampler)
{
    if (++sampler->stamp == 0) {
        memset(sampler->seen, 0, sampler->n_vocab * sizeof *sampler->seen);
        sampler->stamp = 1;
    }
}

bool sample_first(struct sampler *sampler, uint32_t id)
{
    if (sampler->seen[id] == sampler->stamp) {
        return false;
    }
    sampler->seen[id] = sampler->stamp;
    sampler->weights[id] = 0.0;
    return true;
}

static void logits_clean(float *logits, uint32_t n_vocab)
{
    for (uint32_t i = 0; i < n_vocab; i++) {
        float x = logits[i];
        x = x > -INFINITY ? x : -INFINITY; /* NaN compares false */
        logits[i] = x < FLT_MAX ? x : FLT_MAX;
    }
}

static uint32_t arg_max(const float *logits, uint32_t n_vocab)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n_vocab; i++) {
        if (logits[i] > logits[best]) {
            best = i;
        }
    }
    return best;
}

/* list gets every one of kept [n] that min-p allows. Returns how many; the total is the weight of
 * all of kept. */
static size_t collect(struct sampler *sampler, const struct sample_params *params, size_t n,
                      float best, double *total)
{
    size_t n_list = 0;
    for (size_t i = 0; i < n; i++) {
        double weight = sample_weight(sampler->kept[i].logit, best);
        *total += weight;
        if (weight >= (double)params->min_p) {
            sampler->list[n_list++] = sampler->kept[i];
        }
    }
    return n_list;
}

/* Of n candidates (sorted in kept, or a heap in list) kept gets the prefix that top-p and min-p
 * leave. Returns its length. */
static size_t prefix_take(struct sampler *sampler, const struct sample_params *params, bool sorted,
                          size_t n, double total)
{
    double wanted = params->top_p < 1.0f ? (double)params->top_p * total : INFINITY;
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        struct candidate next = sorted ? sampler->kept[i] : candidates_pop(sampler->list, n - i);
        double weight = i == 0 ? 1.0 : sample_weight(next.logit, sampler->kept[0].logit);
        if (i > 0 && (weight < (double)params->min_p || sum >= wanted)) {
            return i;
        }
        sampler->kept[i] = next;
        sum += weight;
    }
    return n;
}

static float best_of(const struct candidate *list, size_t n)
{
    float best = list[0].logit;
    for (size_t i = 1; i < n; i++) {
        best = list[i].logit > best ? list[i].logit : best;
    }
    return best;
}

/* Fills kept with what top-k and typical leave: best first with top-k, by id without. */
static size_t candidates_choose(struct sampler *sampler, const struct sample_params *params,
                                const float *logits, float *best)
{
    size_t n = params->top_k;
    if (params->top_k > 0 && params->top_k < sampler->n_vocab) {
        n = candidates_top(logits, sampler->n_vocab, n, sampler->kept);
    } else {
        n = sampler->n_vocab;
        for (uint32_t i = 0; i < sampler->n_vocab; i++) {
            sampler->kept[i] = (struct candidate){.logit = logits[i], .id = i};
        }
    }
    if (params->typical_p > 0.0f && params->typical_p < 1.0f) {
        n = filter_typical(sampler, n, *best, params->typical_p);
        *best = best_of(sampler->kept, n); /* typical may drop the likeliest ones */
    }
    return n;
}

/* Leaves in kept what all filters up to min-p leave; *best becomes the largest logit among them. */
static size_t filters_apply(struct sampler *sampler, const struct sample_params *params,
                            const float *logits, float *best)
{
    double total = 0.0;
    size_t n = candidates_choose(sampler, params, logits, best);
    if (params->top_k > 0 && params->top_k < sampler->n_vocab) {
        for (size_t i = 0; i < n; i++) {
            total += sample_weight(sampler->kept[i].logit, *best);
        }
        return prefix_take(sampler, params, true, n, total);
    }
    n = collect(sampler, params, n, *best, &total);
    if (params->top_p >= 1.0f) {
        memcpy(sampler->kept, sampler->list, n * sizeof *sampler->kept);
        return n;
    }
    candidates_heap(sampler->list, n);
    return prefix_take(sampler, params, false, n, total);
}

static uint32_t draw(struct sampler *sampler, const struct sample_params *params, size_t n,
                     float best, uint64_t position)
{
    double inverse = 1.0 / (double)params->temperature;
    double total = 0.0;
    for (size_t i = 0; i < n; i++) {
        float logit = sampler->kept[i].logit;
        double x = ((double)logit - (double)best) * inverse;
        sampler->weights[i] = logit == best ? 1.0 : sample_exp(x);
        total += sampler->weights[i];
    }
    double left = random_unit(params->seed, position, RANDOM_DRAW) * total;
    size_t last = 0;
    for (size_t i = 0; i < n; i++) {
        left -= sampler->weights[i];
        if (left < 0.0) {
            return sampler->kept[i].id;
        }
        last = sampler->weights[i] > 0.0 ? i : last;
    }
    return sampler->kept[last].id; /* rounding left a hair over */
}

uint32_t sample_token(struct sampler *sampler, const struct sample_params *params, float *logits,
                      const uint32_t *history, size_t n_history, uint64_t position)
{
    penalties_apply(sampler, params, logits, history, n_history);
    logits_clean(logits, sampler->n_vocab);
    uint32_t top = arg_max(logits, sampler->n_vocab);
    if (params->temperature <= 0.0f) {
        return top;
    }
    float best = logits[top];
    size_t n = filters_apply(sampler, params, logits, &best);
    if (n > 1 && params->xtc_probability > 0.0f &&
        random_unit(params->seed, position, RANDOM_XTC) < (double)params->xtc_probability) {
        n = filter_xtc(sampler, n, best, params->xtc_threshold);
    }
    return n == 1 ? sampler->kept[0].id : draw(sampler, params, n, best, position);
}
