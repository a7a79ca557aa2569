#ifndef SKEIN_ENGINE_SHARD_ROPE_H
#define SKEIN_ENGINE_SHARD_ROPE_H

/* Rotary positions: the angle per position of every pair of dimensions, and the rotation itself. */
#include "engine/model/hparams.h"

struct rope_table {
    uint32_t n_values; /* dimensions that turn; 0: no rope */
    float magnitude;
    double *turn; /* [n_values / 2], radians per position */
};

/* factors: [n_values / 2] divisors of the angles, or NULL. */
enum status rope_table_fill(struct rope_table *table, const struct rope_shape *shape,
                            const float *factors) MUST_USE;
void rope_table_free(struct rope_table *table);

/* Cosines, then sines, of one position: [2, n_values / 2]. */
void rope_angles(const struct rope_table *table, uint32_t pos, float *out);
/* Turns the first n_values of x by angles from rope_angles. */
void rope_turn(enum rope_kind kind, float *x, const float *angles, uint32_t n_values);

#endif
