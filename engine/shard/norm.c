/* Normalisation of one row: RMS (Zhang and Sennrich, 2019) by the kernels, or mean and variance
 * (layer norm) here in double precision, in one fixed order. */
#include "engine/shard/shard.h"

#include <math.h>

static void layer_norm(float *out, const float *x, size_t n, float eps)
{
    double sum = 0;
    double squares = 0;
    float mean;
    float scale;

    for (size_t i = 0; i < n; i++)
        sum += (double)x[i];
    mean = (float)(sum / (double)n);
    for (size_t i = 0; i < n; i++)
        squares += (double)(x[i] - mean) * (double)(x[i] - mean);
    scale = (float)(1 / sqrt(squares / (double)n + (double)eps));
    for (size_t i = 0; i < n; i++)
        out[i] = (x[i] - mean) * scale;
}

static void rms_norm_bare(float *out, const float *x, size_t n, float eps)
{
    double squares = 0;
    float scale;

    for (size_t i = 0; i < n; i++)
        squares += (double)x[i] * (double)x[i];
    scale = (float)(1 / sqrt(squares / (double)n + (double)eps));
    for (size_t i = 0; i < n; i++)
        out[i] = x[i] * scale;
}

void norm_row(const struct shard *shard, float *out, const float *x, const float *weight,
              const float *bias, size_t n)
{
    float eps = shard->model->hparams.norm_eps;

    if (shard->model->arch->norm == NORM_RMS && weight) {
        shard->ops->rms_norm(out, x, weight, n, eps);
    } else if (shard->model->arch->norm == NORM_RMS) {
        rms_norm_bare(out, x, n, eps);
    } else {
        layer_norm(out, x, n, eps);
        for (size_t i = 0; weight && i < n; i++)
            out[i] *= weight[i];
    }
    if (bias)
        shard->ops->add(out, bias, n);
}
