/* Encoders of the types whose blocks have blocks: Q4_K, Q5_K, Q6_K, and of IQ4_NL's curve.
 *
 * A block of 256 has 8 parts with a step and a minimum each (Q6_K: 16 with a step), which are
 * themselves whole numbers times a half of the block. Each part is fitted on its own first: a few
 * steps around the one that spans its values are tried, the codes that follow from each are taken
 * as given, and step and minimum come from least squares over them; the least squared error wins.
 * Then steps and minima are rounded to what the block can hold, and the codes are taken again with
 * the numbers that will be decoded.
 *
 * Nothing fails: values that are not numbers count as 0, as in the other block types. Sources:
 * ggml's published block layouts; least squares for fixed codes is textbook (Lloyd 1982). */
#include "engine/kernels/encode_k.h"

#include <math.h>
#include <string.h>

#include "engine/kernels/quant_ref.h"

enum { VALUES = 256, PART = 32, PARTS = 8, PART_6 = 16, PARTS_6 = 16 };
enum { TRIES = 15, MIDDLE = 7 }; /* steps tried on a part; the middle one spans it */

struct fit {
    float step, min; /* value = step · code - min, min >= 0 */
    float error;
};

static void store_half(uint8_t *p, float v)
{
    uint16_t half = float_to_half(v);

    p[0] = (uint8_t)half;
    p[1] = (uint8_t)(half >> 8);
}

static void copy_finite(const float *x, float *out, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = isfinite(x[i]) ? x[i] : 0;
}

static int code_in(float code, int low, int high)
{
    code = roundf(code);
    return code <= (float)low ? low : code >= (float)high ? high : (int)code;
}

/* ---------------------------------------------------------------- step and minimum */

static float error_of(const float *x, float step, float min, int max_code)
{
    float inverse = step > 0 ? 1 / step : 0, error = 0;

    for (int i = 0; i < PART; i++) {
        float d = step * (float)code_in((x[i] + min) * inverse, 0, max_code) - min - x[i];

        error += d * d;
    }
    return error;
}

/* Step and minimum that fit the codes best which come from those given. */
static struct fit refit(const float *x, float step, float min, int max_code)
{
    float inverse = 1 / step, sum_c = 0, sum_cc = 0, sum_x = 0, sum_cx = 0, det;
    struct fit fit = {step, min, 0};

    for (int i = 0; i < PART; i++) {
        float c = (float)code_in((x[i] + min) * inverse, 0, max_code);

        sum_c += c;
        sum_cc += c * c;
        sum_x += x[i];
        sum_cx += c * x[i];
    }
    det = PART * sum_cc - sum_c * sum_c;
    if (det > 0) {
        fit.step = (PART * sum_cx - sum_c * sum_x) / det;
        fit.min = (sum_c * sum_cx - sum_cc * sum_x) / det;
        if (fit.min < 0) { /* minima have no sign */
            fit.min = 0;
            fit.step = sum_cc > 0 ? sum_cx / sum_cc : 0;
        }
    }
    fit.error = fit.step > 0 ? error_of(x, fit.step, fit.min, max_code) : INFINITY;
    return fit;
}

static struct fit fit_part(const float *x, int max_code)
{
    float low = 0, high = x[0];
    struct fit best;

    for (int i = 0; i < PART; i++) {
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
    }
    best = (struct fit){(high - low) / (float)max_code, -low, 0};
    if (!(best.step > 0))
        return (struct fit){0, -low, 0};
    best.error = error_of(x, best.step, best.min, max_code);
    for (int t = 0; t < TRIES; t++) {
        float codes = (float)max_code + 0.15f * (float)(t - MIDDLE);
        struct fit fit = refit(x, (high - low) / codes, -low, max_code);

        best = fit.error < best.error ? fit : best;
    }
    return best;
}

/* The inverse of scale_min_k4. */
static void store_k4(const uint8_t *steps, const uint8_t *mins, uint8_t *out)
{
    memset(out, 0, 12);
    for (int j = 0; j < 4; j++) {
        out[j] = (uint8_t)(steps[j] | (steps[j + 4] >> 4) << 6);
        out[j + 4] = (uint8_t)(mins[j] | (mins[j + 4] >> 4) << 6);
        out[j + 8] = (uint8_t)((steps[j + 4] & 15) | (mins[j + 4] & 15) << 4);
    }
}

/* Writes the 16 bytes that Q4_K and Q5_K begin with, and the codes of all values. */
static void encode_parts(const float *x, int max_code, uint8_t *head, uint8_t *codes)
{
    struct fit fits[PARTS];
    float step = 0, min = 0;
    uint8_t steps[PARTS], mins[PARTS];

    for (int j = 0; j < PARTS; j++) {
        fits[j] = fit_part(x + j * PART, max_code);
        step = fmaxf(step, fits[j].step);
        min = fmaxf(min, fits[j].min);
    }
    store_half(head, step / 63);
    store_half(head + 2, min / 63);
    step = load_half(head);
    min = load_half(head + 2);
    for (int j = 0; j < PARTS; j++) {
        float inverse;

        steps[j] = (uint8_t)code_in(step > 0 ? fits[j].step / step : 0, 0, 63);
        mins[j] = (uint8_t)code_in(min > 0 ? fits[j].min / min : 0, 0, 63);
        inverse = steps[j] && step > 0 ? 1 / (step * (float)steps[j]) : 0;
        for (int i = j * PART; i < (j + 1) * PART; i++)
            codes[i] = (uint8_t)code_in((x[i] + min * (float)mins[j]) * inverse, 0, max_code);
    }
    store_k4(steps, mins, head + 4);
}

/* Low four bits, parts 2j and 2j + 1 in the halves of a byte. */
static void store_nibbles(const uint8_t *codes, uint8_t *out)
{
    for (int j = 0; j < PARTS / 2; j++) {
        for (int i = 0; i < PART; i++)
            out[j * PART + i] = (uint8_t)((codes[2 * j * PART + i] & 15) |
                                          (codes[(2 * j + 1) * PART + i] & 15) << 4);
    }
}

void encode_q4_k(const float *values, uint8_t *out)
{
    float x[VALUES];
    uint8_t codes[VALUES];

    copy_finite(values, x, VALUES);
    encode_parts(x, 15, out, codes);
    store_nibbles(codes, out + 16);
}

void encode_q5_k(const float *values, uint8_t *out)
{
    float x[VALUES];
    uint8_t codes[VALUES];

    copy_finite(values, x, VALUES);
    encode_parts(x, 31, out, codes);
    for (int i = 0; i < PART; i++) {
        out[16 + i] = 0;
        for (int j = 0; j < PARTS; j++)
            out[16 + i] |= (uint8_t)((codes[j * PART + i] >> 4) << j);
    }
    store_nibbles(codes, out + 48);
}

/* ---------------------------------------------------------------- a step alone */

/* The step of 16 values whose codes are in [-32, 31]. */
static float fit_step(const float *x)
{
    float extreme = 0, best = 0, best_gain = 0;

    for (int i = 0; i < PART_6; i++)
        extreme = fabsf(x[i]) > fabsf(extreme) ? x[i] : extreme;
    for (int t = 0; t < TRIES && extreme != 0; t++) {
        float inverse = -(32 + 0.15f * (float)(t - MIDDLE)) / extreme;
        float sum_cx = 0, sum_cc = 0;

        for (int i = 0; i < PART_6; i++) {
            float c = (float)code_in(x[i] * inverse, -32, 31);

            sum_cx += c * x[i];
            sum_cc += c * c;
        }
        if (sum_cc > 0 && sum_cx * sum_cx > best_gain * sum_cc) {
            best_gain = sum_cx * sum_cx / sum_cc;
            best = sum_cx / sum_cc;
        }
    }
    return best;
}

void encode_q6_k(const float *values, uint8_t *out)
{
    float x[VALUES], fits[PARTS_6], extreme = 0, step;
    uint8_t codes[VALUES], *high = out + VALUES / 2, *steps = high + VALUES / 4;

    copy_finite(values, x, VALUES);
    for (int j = 0; j < PARTS_6; j++) {
        fits[j] = fit_step(x + j * PART_6);
        extreme = fabsf(fits[j]) > fabsf(extreme) ? fits[j] : extreme;
    }
    store_half(steps + PARTS_6, extreme / -128);
    step = load_half(steps + PARTS_6);
    for (int j = 0; j < PARTS_6; j++) {
        int n = code_in(step != 0 ? fits[j] / step : 0, -128, 127);
        float inverse = n && step != 0 ? 1 / (step * (float)n) : 0;

        steps[j] = (uint8_t)(int8_t)n;
        for (int i = j * PART_6; i < (j + 1) * PART_6; i++)
            codes[i] = (uint8_t)(code_in(x[i] * inverse, -32, 31) + 32);
    }
    for (int half = 0; half < 2; half++) {
        const uint8_t *c = codes + half * 128;

        for (int i = 0; i < 32; i++) {
            out[half * 64 + i] = (uint8_t)((c[i] & 15) | (c[i + 64] & 15) << 4);
            out[half * 64 + 32 + i] = (uint8_t)((c[i + 32] & 15) | (c[i + 96] & 15) << 4);
            high[half * 32 + i] = (uint8_t)(c[i] >> 4 | (c[i + 32] >> 4) << 2 |
                                            (c[i + 64] >> 4) << 4 | (c[i + 96] >> 4) << 6);
        }
    }
}

/* ---------------------------------------------------------------- a curve */

/* The curve rises, so the nearest of its values is beside the first that is not below. */
static uint8_t nearest_iq4(float v)
{
    uint8_t code = 0;

    while (code < 15 && (float)codes_iq4[code] < v)
        code++;
    if (code > 0 && v - (float)codes_iq4[code - 1] < (float)codes_iq4[code] - v)
        code--;
    return code;
}

void encode_iq4_nl(const float *values, uint8_t *out)
{
    float x[PART], extreme = 0, best = 0, best_gain = 0, inverse;

    copy_finite(values, x, PART);
    for (int i = 0; i < PART; i++)
        extreme = fabsf(x[i]) > fabsf(extreme) ? x[i] : extreme;
    for (int t = 0; t < TRIES && extreme != 0; t++) {
        float sum_cx = 0, sum_cc = 0;

        inverse = ((float)codes_iq4[0] + 3 * (float)(t - MIDDLE)) / extreme;
        for (int i = 0; i < PART; i++) {
            float c = (float)codes_iq4[nearest_iq4(x[i] * inverse)];

            sum_cx += c * x[i];
            sum_cc += c * c;
        }
        if (sum_cc > 0 && sum_cx * sum_cx > best_gain * sum_cc) {
            best_gain = sum_cx * sum_cx / sum_cc;
            best = sum_cx / sum_cc;
        }
    }
    store_half(out, best);
    best = load_half(out);
    inverse = best != 0 ? 1 / best : 0;
    for (int i = 0; i < PART / 2; i++)
        out[2 + i] =
            (uint8_t)(nearest_iq4(x[i] * inverse) | nearest_iq4(x[i + PART / 2] * inverse) << 4);
}
