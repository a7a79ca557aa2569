/* What changes logits before any candidate is left out.
 *
 * Biases are added. The three penalties look at the last repeat_last_n tokens: repetition divides a
 * positive logit and multiplies a negative one (Keskar et al., CTRL, 2019), frequency takes a bit
 * for every occurrence, presence once.
 *
 * DRY ("don't repeat yourself") looks for tokens that would make the text go on as it once did:
 * where the last k tokens also stand earlier, followed by t, then t loses multiplier x base ^ (k -
 * allowed length). With the history reversed, "the last k tokens stand earlier" means that the
 * reversed text begins like itself from some place on, which the Z algorithm finds for all places
 * in linear time. */
#include "engine/sample/sample.h"

static void biases_apply(const struct sampler *sampler, const struct sample_params *params,
                         float *logits)
{
    for (size_t i = 0; i < params->n_biases; i++) {
        if (params->biases[i].id < sampler->n_vocab) {
            logits[params->biases[i].id] += params->biases[i].bias;
        }
    }
}

static void repetition_apply(struct sampler *sampler, const struct sample_params *params,
                             float *logits, const uint32_t *last, size_t n)
{
    float penalty = params->repeat_penalty;
    sample_stamp(sampler);
    for (size_t i = 0; i < n; i++) {
        if (last[i] < sampler->n_vocab) {
            (void)sample_first(sampler, last[i]);
            sampler->weights[last[i]] += 1.0;
        }
    }
    sample_stamp(sampler); /* the counts stay in weights until the token is met again */
    for (size_t i = 0; i < n; i++) {
        uint32_t id = last[i];
        if (id >= sampler->n_vocab || sampler->seen[id] == sampler->stamp) {
            continue;
        }
        double count = sampler->weights[id];
        sampler->seen[id] = sampler->stamp;
        if (penalty != 1.0f) {
            logits[id] = logits[id] > 0.0f ? logits[id] / penalty : logits[id] * penalty;
        }
        logits[id] -= (float)count * params->frequency_penalty + params->presence_penalty;
    }
}

static bool is_breaker(const struct sample_params *params, uint32_t id)
{
    size_t low = 0, high = params->n_dry_breakers;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (params->dry_breakers[middle] == id) {
            return true;
        }
        if (params->dry_breakers[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return false;
}

/* z[i]: how many tokens from place i of the reversed text on agree with its beginning. Token i of
 * the reversed text is last[n - 1 - i]. */
static void z_lengths(const uint32_t *last, size_t n, uint32_t *z)
{
    size_t left = 0, right = 0;
    z[0] = (uint32_t)n;
    for (size_t i = 1; i < n; i++) {
        size_t length = i < right ? z[i - left] : 0;
        length = i < right && length > right - i ? right - i : length;
        while (i + length < n && last[n - 1 - length] == last[n - 1 - i - length]) {
            length++;
        }
        z[i] = (uint32_t)length;
        if (i + length > right) {
            left = i;
            right = i + length;
        }
    }
}

static double power(double base, uint32_t exponent)
{
    double result = 1.0;
    for (uint32_t i = 0; i < exponent && result < 1e30; i++) {
        result *= base;
    }
    return result;
}

static void dry_apply(struct sampler *sampler, const struct sample_params *params, float *logits,
                      const uint32_t *history, size_t n_history)
{
    size_t most = params->dry_last_n > 0 && params->dry_last_n < SAMPLE_DRY_TOKENS
                      ? params->dry_last_n
                      : SAMPLE_DRY_TOKENS;
    size_t n = n_history < most ? n_history : most;
    const uint32_t *last = history + (n_history - n);
    uint32_t allowed = params->dry_allowed_length > 0 ? params->dry_allowed_length : 2;
    double base = params->dry_base > 0.0f ? (double)params->dry_base : 1.75;
    size_t reach = 0; /* tokens since the last breaker: no match counts more */
    while (reach < n && !is_breaker(params, last[n - 1 - reach])) {
        reach++;
    }
    if (reach < allowed || n < 2) {
        return;
    }
    z_lengths(last, n, sampler->matches);
    sample_stamp(sampler);
    for (size_t i = 1; i < n; i++) {
        uint32_t id = last[n - i]; /* what followed the earlier occurrence */
        size_t length = sampler->matches[i] < reach ? sampler->matches[i] : reach;
        if (length < allowed || id >= sampler->n_vocab) {
            continue;
        }
        (void)sample_first(sampler, id);
        double before = sampler->weights[id];
        double loss = (double)params->dry_multiplier * power(base, (uint32_t)length - allowed);
        if (loss > before) {
            logits[id] -= (float)(loss - before);
            sampler->weights[id] = loss;
        }
    }
}

void penalties_apply(struct sampler *sampler, const struct sample_params *params, float *logits,
                     const uint32_t *history, size_t n_history)
{
    bool repetition = params->repeat_penalty != 1.0f || params->frequency_penalty != 0.0f ||
                      params->presence_penalty != 0.0f;
    size_t n = n_history < params->repeat_last_n ? n_history : params->repeat_last_n;
    biases_apply(sampler, params, logits);
    if (repetition && n > 0) {
        repetition_apply(sampler, params, logits, history + (n_history - n), n);
    }
    if (params->dry_multiplier > 0.0f && n_history > 0) {
        dry_apply(sampler, params, logits, history, n_history);
    }
}
