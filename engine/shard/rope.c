/* Rotary position embedding (Su et al., RoFormer, 2021) and its stretched forms.
 *
 * Pair i of a head turns by position · base^(-2i/n). Linear scaling divides the position; YaRN
 * (Peng et al., 2023) does so for the slow pairs only, with a ramp between the pairs that turn
 * beta_fast and beta_slow times within the original context; Llama 3 and the long-context forms of
 * other models ship a divisor for every pair. All of them are a factor on the turn per position, so
 * they are folded into one table when the shard is opened. Angles are computed in double precision:
 * at position 100,000 a float angle is wrong by a hundredth of a radian. */
#include "engine/shard/rope.h"

#include <math.h>

/* The pair that makes `turns` full turns within the original context, as a real number. */
static double yarn_pair(const struct rope_shape *shape, double turns)
{
    return shape->n_values * log(shape->n_ctx_original / (turns * 2 * M_PI)) /
           (2 * log((double)shape->base));
}

/* 1 for pairs that keep their speed, 0 for those that are stretched, between them a ramp. */
static double yarn_keep(const struct rope_shape *shape, uint32_t i)
{
    double low = fmax(0, floor(yarn_pair(shape, (double)shape->yarn_beta_fast)));
    double high = fmin(shape->n_values - 1, ceil(yarn_pair(shape, (double)shape->yarn_beta_slow)));

    return 1 - fmin(1, fmax(0, (i - low) / fmax(0.001, high - low)));
}

enum status rope_table_fill(struct rope_table *table, const struct rope_shape *shape,
                            const float *factors)
{
    uint32_t n = shape->n_values / 2;

    table->turn = MEM_NEW_N(double, n);
    if (!table->turn)
        return STATUS_NO_MEMORY;
    table->n_values = shape->n_values;
    table->magnitude = shape->magnitude;
    for (uint32_t i = 0; i < n; i++) {
        double full = pow((double)shape->base, -2.0 * i / shape->n_values);
        double keep = shape->yarn ? yarn_keep(shape, i) : 0;

        if (factors)
            full /= (double)factors[i];
        table->turn[i] = full * ((1 - keep) * (double)shape->position_scale + keep);
    }
    return STATUS_OK;
}

void rope_table_free(struct rope_table *table)
{
    mem_free(table->turn);
    *table = (struct rope_table){0};
}

void rope_angles(const struct rope_table *table, uint32_t pos, float *out)
{
    uint32_t n = table->n_values / 2;

    for (uint32_t i = 0; i < n; i++) {
        double angle = pos * table->turn[i];

        out[i] = (float)(cos(angle) * (double)table->magnitude);
        out[n + i] = (float)(sin(angle) * (double)table->magnitude);
    }
}

void rope_turn(enum rope_kind kind, float *x, const float *angles, uint32_t n_values)
{
    uint32_t n = n_values / 2;
    uint32_t step = kind == ROPE_PAIRS ? 2 : 1;
    uint32_t apart = kind == ROPE_PAIRS ? 1 : n;

    for (uint32_t i = 0; i < n; i++) {
        float *a = x + (size_t)i * step;
        float *b = a + apart;
        float turned = *a * angles[i] - *b * angles[n + i];

        *b = *a * angles[n + i] + *b * angles[i];
        *a = turned;
    }
}
