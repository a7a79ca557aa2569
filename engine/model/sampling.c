/* The sampling that a model's makers recommend.
 *
 * GGUF files say it in general.sampling.*, Hugging Face folders in generation_config.json, which
 * engine/hf turns into the same keys. It takes the place of skein's own defaults, setting by
 * setting, and gives way to whatever a request says. A value out of range is left out: it is advice
 * of a file, and the model runs as well without it.
 *
 * Source: the keys' names and meaning as in the GGUF files of published models; -1 of a count is
 * "all there is", of top_k "off". */
#include "engine/model/model.h"
#include "engine/sample/sample.h"

#include <string.h>

static const struct number {
    const char *key;
    enum sample_setting setting;
    size_t at; /* of the float in struct sample_params */
    double min, max;
} numbers[] = {
    {"general.sampling.temp", SAMPLE_TEMPERATURE, offsetof(struct sample_params, temperature), 0,
     10},
    {"general.sampling.top_p", SAMPLE_TOP_P, offsetof(struct sample_params, top_p), 0, 1},
    {"general.sampling.min_p", SAMPLE_MIN_P, offsetof(struct sample_params, min_p), 0, 1},
    {"general.sampling.typical_p", SAMPLE_TYPICAL_P, offsetof(struct sample_params, typical_p), 0,
     1},
    {"general.sampling.penalty_repeat", SAMPLE_REPEAT_PENALTY,
     offsetof(struct sample_params, repeat_penalty), 0.01, 10},
    {"general.sampling.xtc_probability", SAMPLE_XTC_PROBABILITY,
     offsetof(struct sample_params, xtc_probability), 0, 1},
    {"general.sampling.xtc_threshold", SAMPLE_XTC_THRESHOLD,
     offsetof(struct sample_params, xtc_threshold), 0, 1},
};

static bool number_read(const struct gguf *gguf, const char *key, double *out)
{
    const struct gguf_value *value = gguf_find(gguf, key);
    uint32_t whole;
    float v;

    if (!value || value->is_array)
        return false;
    if (gguf_value_f32(value, 0, &v))
        *out = (double)v;
    else if (gguf_value_u32(value, 0, &whole))
        *out = whole;
    else
        return false;
    return true;
}

/* A whole number; below zero it is `below`. */
static bool count_read(const struct gguf *gguf, const char *key, uint32_t below, uint32_t max,
                       uint32_t *out)
{
    const struct gguf_value *value = gguf_find(gguf, key);
    uint32_t v = 0;

    if (!value || value->is_array)
        return false;
    if (!gguf_value_u32(value, 0, &v)) {
        if (value->kind != GGUF_I8 && value->kind != GGUF_I16 && value->kind != GGUF_I32)
            return false;
        v = below; /* these fit but for the sign */
    }
    *out = v < max ? v : max;
    return true;
}

void sampling_read(const struct gguf *gguf, struct sample_params *out, unsigned *settings)
{
    memset(out, 0, sizeof *out);
    *settings = 0;
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        double v;
        float narrow;

        if (!number_read(gguf, numbers[i].key, &v) || !(v >= numbers[i].min && v <= numbers[i].max))
            continue;
        narrow = (float)v;
        memcpy((char *)out + numbers[i].at, &narrow, sizeof narrow);
        *settings |= numbers[i].setting;
    }
    if (count_read(gguf, "general.sampling.top_k", 0, 1 << 20, &out->top_k))
        *settings |= SAMPLE_TOP_K;
    if (count_read(gguf, "general.sampling.penalty_last_n", SAMPLE_DRY_TOKENS, SAMPLE_DRY_TOKENS,
                   &out->repeat_last_n))
        *settings |= SAMPLE_REPEAT_LAST_N;
}

unsigned model_sampling(const struct model *model, struct sample_params *out)
{
    sample_take(out, &model->sampling, model->sampling_settings);
    return model->sampling_settings;
}

const uint32_t *model_dry_breakers(const struct model *model, size_t *n)
{
    *n = model->n_dry_breakers;
    return model->dry_breakers;
}
