/* Filters that keep no prefix of the candidates.
 *
 * Typical sampling (Meister et al., "Locally typical sampling", 2022) keeps the tokens whose
 * surprise -log p is nearest to the entropy, until they hold typical_p of the probability. XTC
 * ("exclude top choices") removes, when its die says so, every token that is likely enough but
 * the least likely of them, which makes a text leave its beaten track and stay sensible. */
#include "engine/sample/sample.h"

#include <math.h>
#include <string.h>

double sample_weight(float logit, float best)
{
    return logit == best ? 1.0 : sample_exp((double)logit - (double)best);
}

size_t filter_typical(struct sampler *sampler, size_t n, float best, float typical_p)
{
    double total = 0.0, sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sampler->weights[i] = sample_weight(sampler->kept[i].logit, best);
        total += sampler->weights[i];
    }
    /* The entropy is log(total) - (sum of weight x (logit - best)) / total. */
    for (size_t i = 0; i < n; i++) {
        if (sampler->weights[i] > 0.0) {
            sum += sampler->weights[i] * ((double)sampler->kept[i].logit - (double)best);
        }
    }
    double entropy = sample_log(total) - (isfinite(sum) ? sum : 0.0) / total;
    size_t n_list = 0;
    for (size_t i = 0; i < n; i++) {
        double logit =
            sampler->kept[i].logit == best ? 0.0 : (double)sampler->kept[i].logit - (double)best;
        double distance = fabs(sample_log(total) - logit - entropy);
        sampler->list[n_list++] = (struct candidate){.logit = (float)-distance, .id = (uint32_t)i};
    }
    candidates_heap(sampler->list, n_list);
    sample_stamp(sampler);
    double held = 0.0;
    for (size_t i = 0; i < n && (i == 0 || held < (double)typical_p * total); i++) {
        uint32_t place = candidates_pop(sampler->list, n - i).id;
        sampler->seen[place] = sampler->stamp;
        held += sampler->weights[place];
    }
    size_t to = 0;
    for (size_t i = 0; i < n; i++) {
        if (sampler->seen[i] == sampler->stamp) {
            sampler->kept[to++] = sampler->kept[i];
        }
    }
    return to;
}

size_t filter_xtc(struct sampler *sampler, size_t n, float best, float threshold)
{
    double total = 0.0;
    for (size_t i = 0; i < n; i++) {
        sampler->weights[i] = sample_weight(sampler->kept[i].logit, best);
        total += sampler->weights[i];
    }
    size_t least = n; /* of those above the threshold */
    for (size_t i = 0; i < n; i++) {
        bool above = sampler->weights[i] >= (double)threshold * total;
        if (above && (least == n || candidate_before(sampler->kept[least], sampler->kept[i]))) {
            least = i;
        }
    }
    size_t to = 0;
    for (size_t i = 0; i < n; i++) {
        if (i == least || sampler->weights[i] < (double)threshold * total) {
            sampler->kept[to++] = sampler->kept[i];
        }
    }
    return to;
}
