/* Rotation: rope_theta, rope_scaling and rope_parameters of config.json.
 *
 * Newer files put base and scaling into one object (rope_parameters), per kind of layer where kinds
 * differ; older ones have rope_theta beside rope_scaling. Kinds of scaling: linear and yarn are
 * keys; llama3 and longrope are divisors per pair of dimensions, which GGUF has as small tensors,
 * so they are computed here; dynamic changes nothing within the trained context, which is all that
 * skein runs.
 *
 * Sources: Su et al. 2021 (RoPE); Peng et al. 2023 (YaRN); Ding et al. 2024 (LongRoPE); the
 * published Llama 3.1 model card for its smoothing of frequencies. */
#include "engine/hf/inner.h"

#include <math.h>
#include <string.h>

static float *vector_new(struct hf_build *build, uint32_t n)
{
    struct hf *hf = build->hf;
    float **grown = mem_resize(hf->vectors, hf->n_vectors + 1, sizeof *grown);
    float *values = MEM_NEW_N(float, n);

    if (grown)
        hf->vectors = grown;
    if (!grown || !values) {
        mem_free(values);
        hf_fail(build, STATUS_NO_MEMORY, "out of memory");
        return NULL;
    }
    hf->vectors[hf->n_vectors++] = values;
    return values;
}

/* Slow pairs turn `factor` times slower, fast ones as they are, those between in between. */
static void write_llama3(struct hf_build *build, const json_t *scaling, float base, uint32_t n_rot)
{
    float factor = 8, low = 1, high = 4, original = 8192;
    float *divisors = vector_new(build, n_rot / 2);

    (void)hf_f32(build, scaling, "factor", &factor);
    (void)hf_f32(build, scaling, "low_freq_factor", &low);
    (void)hf_f32(build, scaling, "high_freq_factor", &high);
    (void)hf_f32(build, scaling, "original_max_position_embeddings", &original);
    if (!(factor > 0) || !(high > low) || !(original > 0))
        hf_fail(build, STATUS_FORMAT, "config.json: the llama3 scaling has unusable numbers");
    for (uint32_t i = 0; divisors && i < n_rot / 2; i++) {
        double period = 2 * M_PI * pow(base, 2.0 * i / n_rot);
        double turns = original / period;
        double part = (turns - low) / (high - low);

        part = part < 0 ? 0 : part > 1 ? 1 : part;
        divisors[i] = (float)(1 / ((1 - part) / factor + part));
    }
    build->rope_freqs = divisors;
}

static float *read_factors(struct hf_build *build, const json_t *scaling, const char *name)
{
    const json_t *list = hf_member(scaling, name);
    float *out;

    if (json_array_size(list) != build->n_rope_pairs) {
        hf_fail(build, STATUS_FORMAT, "config.json: %s has not %u numbers", name,
                build->n_rope_pairs);
        return NULL;
    }
    out = vector_new(build, build->n_rope_pairs);
    for (uint32_t i = 0; out && i < build->n_rope_pairs; i++) {
        double factor = json_number_value(json_array_get(list, i));

        if (!(factor > 1e-6) || !(factor < 1e9)) {
            hf_fail(build, STATUS_FORMAT, "config.json: %s has a number out of range", name);
            return NULL;
        }
        out[i] = (float)factor;
    }
    return out;
}

static void write_longrope(struct hf_build *build, const json_t *scaling)
{
    uint32_t n_ctx = 1, original = 0;
    float factor, magnitude;

    (void)hf_u32(build, build->config, "max_position_embeddings", &n_ctx);
    if (!hf_u32(build, scaling, "original_max_position_embeddings", &original))
        (void)hf_u32(build, build->config, "original_max_position_embeddings", &original);
    if (original < 2) {
        hf_fail(build, STATUS_FORMAT,
                "config.json: longrope without original_max_position_embeddings");
        return;
    }
    factor = (float)n_ctx / (float)original;
    magnitude = factor > 1 ? sqrtf(1 + logf(factor) / logf((float)original)) : 1;
    (void)hf_f32(build, scaling, "attention_factor", &magnitude);
    hf_key_u32(build, "rope.scaling.original_context_length", original);
    hf_key_f32(build, "rope.scaling.attn_factor", magnitude);
    build->rope_long = read_factors(build, scaling, "long_factor");
    build->rope_short = read_factors(build, scaling, "short_factor");
}

static float yarn_magnitude(float factor, float weight)
{
    return factor > 1 ? 1 + 0.1f * weight * logf(factor) : 1;
}

/* The engine multiplies YaRN's usual magnitude by attn_factor. */
static void write_yarn(struct hf_build *build, const json_t *scaling)
{
    float factor = 1, wanted, weight, weight_all, beta;
    uint32_t original = 0;

    (void)hf_f32(build, scaling, "factor", &factor);
    hf_key_text(build, "rope.scaling.type", "yarn");
    hf_key_f32(build, "rope.scaling.factor", factor);
    if (!hf_u32(build, scaling, "original_max_position_embeddings", &original))
        (void)hf_u32(build, build->config, "max_position_embeddings", &original);
    hf_key_u32(build, "rope.scaling.original_context_length", original);
    wanted = yarn_magnitude(factor, 1);
    if (hf_f32(build, scaling, "mscale", &weight) &&
        hf_f32(build, scaling, "mscale_all_dim", &weight_all) && weight > 0 && weight_all > 0)
        wanted = yarn_magnitude(factor, weight) / yarn_magnitude(factor, weight_all);
    (void)hf_f32(build, scaling, "attention_factor", &wanted);
    if (build->row->flags & HF_LATENT) { /* there the magnitude goes to the scores */
        float log_weight = 0;

        (void)hf_f32(build, scaling, "mscale_all_dim", &log_weight);
        hf_key_f32(build, "rope.scaling.attn_factor", wanted);
        hf_key_f32(build, "rope.scaling.yarn_log_multiplier", 0.1f * log_weight);
    } else {
        hf_key_f32(build, "rope.scaling.attn_factor", wanted / yarn_magnitude(factor, 1));
    }
    if (hf_f32(build, scaling, "beta_fast", &beta))
        hf_key_f32(build, "rope.scaling.yarn_beta_fast", beta);
    if (hf_f32(build, scaling, "beta_slow", &beta))
        hf_key_f32(build, "rope.scaling.yarn_beta_slow", beta);
}

static void write_scaling(struct hf_build *build, const json_t *scaling, float base, uint32_t n_rot)
{
    const char *kind = json_string_value(hf_member(scaling, "rope_type|type"));
    float factor = 1;

    if (!kind || strcmp(kind, "default") == 0 || strcmp(kind, "dynamic") == 0)
        return;
    if (strcmp(kind, "linear") == 0) {
        (void)hf_f32(build, scaling, "factor", &factor);
        hf_key_text(build, "rope.scaling.type", "linear");
        hf_key_f32(build, "rope.scaling.factor", factor);
    } else if (strcmp(kind, "llama3") == 0) {
        write_llama3(build, scaling, base, n_rot);
    } else if (strcmp(kind, "longrope") == 0 || strcmp(kind, "su") == 0) {
        write_longrope(build, scaling);
    } else if (strcmp(kind, "yarn") == 0) {
        write_yarn(build, scaling);
    } else {
        hf_fail(build, STATUS_UNSUPPORTED, "config.json: the rope scaling `%.40s` is not supported",
                kind);
    }
}

void hf_write_rope(struct hf_build *build)
{
    const json_t *config = build->config;
    const json_t *both = hf_member(config, "rope_parameters");
    const json_t *windowed = hf_member(both, "sliding_attention");
    const json_t *scaling = hf_member(both, "full_attention");
    float base = 10000, share = 1;
    uint32_t n_rot;

    scaling = scaling ? scaling : both ? both : hf_member(config, "rope_scaling");
    if (!hf_f32(build, both ? scaling : config, "rope_theta", &base))
        (void)hf_f32(build, config, "rope_theta|rotary_emb_base", &base);
    if (!hf_f32(build, config, "partial_rotary_factor|rope_pct|rotary_pct", &share))
        (void)hf_f32(build, scaling, "partial_rotary_factor", &share);
    n_rot = (uint32_t)((float)build->head_dim * (share > 0 && share <= 1 ? share : 1));
    (void)hf_u32(build, config, "rotary_dim", &n_rot);
    build->n_rope_pairs = n_rot / 2;
    hf_key_u32(build, "rope.dimension_count", n_rot);
    hf_key_f32(build, "rope.freq_base", base);
    if (scaling)
        write_scaling(build, scaling, base, n_rot);
    if (windowed && hf_f32(build, windowed, "rope_theta", &base))
        hf_key_f32(build, "rope.freq_base_swa", base);
}
