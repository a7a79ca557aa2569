/* The vector operations of every instruction set against libm in double: odd lengths, ends of the
 * range, NaN and infinities. Buffers are exactly as long as they say (the sanitizer build checks
 * that). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/kernels/table.h"

enum { MOST = 300 };

static const size_t lengths[] = {1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 200, MOST};

static float *vector_new(size_t n)
{
    float *v = mem_zeroed(n, sizeof *v);
    assert_non_null(v);
    for (size_t i = 0; i < n; i++)
        v[i] = (float)((i * 2654435761u + n * 40503u) % 20011) / 10005.0f - 1.0f;
    return v;
}

static void each_table(void (*test)(const struct vector_ops *ops))
{
    for (int i = 0; i < ISA_COUNT; i++)
        if (cpu_has((enum isa)i))
            test(&kernel_table_of((enum isa)i)->ops);
}

static void close_to(double got, double expected, double limit)
{
    if (!(fabs(got - expected) <= limit))
        fail_msg("%.9g, expected %.9g", got, expected);
}

static void check_linear(const struct vector_ops *ops)
{
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        size_t n = lengths[i];
        float *a = vector_new(n), *b = vector_new(n), *y = vector_new(n);
        for (size_t j = 0; j < n; j++)
            b[j] = b[j] * 3.0f + 0.5f;
        double sum = 0, size = 0;
        for (size_t j = 0; j < n; j++) {
            sum += (double)a[j] * (double)b[j];
            size += fabs((double)a[j] * (double)b[j]);
        }
        close_to((double)ops->dot(a, b, n), sum, size * 1e-6);
        ops->axpy(2.5f, b, y, n);
        for (size_t j = 0; j < n; j++)
            close_to((double)y[j], (double)a[j] + 2.5 * (double)b[j], 2e-6);
        ops->add(y, b, n);
        ops->scale(y, 0.5f, n);
        for (size_t j = 0; j < n; j++)
            close_to((double)y[j], ((double)a[j] + 3.5 * (double)b[j]) * 0.5, 2e-6);
        ops->rms_norm(y, a, b, n, 1e-5f);
        double squares = 0;
        for (size_t j = 0; j < n; j++)
            squares += (double)a[j] * (double)a[j];
        double factor = 1.0 / sqrt(squares / (double)n + 1e-5);
        for (size_t j = 0; j < n; j++)
            close_to((double)y[j], (double)a[j] * factor * (double)b[j], 1e-6 * factor);
        mem_free(a);
        mem_free(b);
        mem_free(y);
    }
}

static void linear_operations(void **state)
{
    (void)state;
    each_table(check_linear);
}

static double silu(double x)
{
    return x / (1.0 + exp(-x));
}

static void check_silu(const struct vector_ops *ops)
{
    for (double from = -110; from < 110; from += 0.37) {
        float gate[19], up[19];
        for (int i = 0; i < 19; i++) {
            gate[i] = (float)(from + i * 0.013);
            up[i] = 1.0f;
        }
        ops->silu_mul(gate, up, 19);
        for (int i = 0; i < 19; i++) {
            double expected = silu((double)(float)(from + i * 0.013));
            /* Below −88.7 exp(−x) is infinite in float32 and the result 0. */
            close_to((double)gate[i], expected, fabs(expected) * 3e-7 + 3e-37);
        }
    }
    float gate[4] = {NAN, INFINITY, 0.0f, -0.0f}, up[4] = {1, 1, 1, 1};
    ops->silu_mul(gate, up, 4);
    assert_true(isnan(gate[0]));
    assert_true(isinf(gate[1]) && gate[1] > 0);
    assert_true(gate[2] == 0.0f && gate[3] == 0.0f);
}

static void silu_is_accurate_everywhere(void **state)
{
    (void)state;
    each_table(check_silu);
}

static void check_softmax(const struct vector_ops *ops)
{
    static const float spreads[] = {0.0f, 1.0f, 20.0f, 88.0f, 120.0f, 1e30f};
    for (size_t s = 0; s < COUNT_OF(spreads); s++) {
        for (size_t i = 0; i < COUNT_OF(lengths); i++) {
            size_t n = lengths[i];
            float *x = vector_new(n), *raw = vector_new(n);
            double most = -HUGE_VAL, sum = 0, total = 0;
            for (size_t j = 0; j < n; j++) {
                x[j] = raw[j] = raw[j] * spreads[s];
                most = fmax(most, (double)x[j]);
            }
            for (size_t j = 0; j < n; j++)
                sum += exp((double)raw[j] - most);
            ops->softmax(x, n);
            for (size_t j = 0; j < n; j++) {
                double expected = exp((double)raw[j] - most) / sum;
                close_to((double)x[j], expected, expected * 6e-6 + 1e-40);
                total += (double)x[j];
            }
            close_to(total, 1.0, 1e-5);
            mem_free(x);
            mem_free(raw);
        }
    }
    float masked[5] = {1.0f, -INFINITY, 2.0f, -INFINITY, -INFINITY};
    ops->softmax(masked, 5);
    assert_true(masked[1] == 0.0f && masked[3] == 0.0f && masked[4] == 0.0f);
    close_to((double)masked[2], 1.0 / (1.0 + exp(-1.0)), 1e-6);
    float poisoned[3] = {1.0f, NAN, 2.0f};
    ops->softmax(poisoned, 3);
    assert_true(isnan(poisoned[1]));
}

static void softmax_is_accurate(void **state)
{
    (void)state;
    each_table(check_softmax);
}

/* Activations with infinities or NaN must not trap, and zeros must stay zeros. */
static void check_odd_activations(const struct kernel_table *table)
{
    float x[64] = {0};
    uint8_t rec[2 * ACT_BYTES];
    table->quantize(x, 64, 1, 64, rec);
    for (size_t i = 0; i < sizeof rec; i++)
        assert_int_equal(rec[i], 0);
    x[3] = INFINITY;
    x[5] = NAN;
    x[40] = 1e-42f;
    table->quantize(x, 64, 1, 64, rec);
    for (int i = 0; i < 32; i++)
        assert_int_equal(rec[ACT_BYTES + i], 0);
}

static void odd_activations(void **state)
{
    (void)state;
    for (int i = 0; i < ISA_COUNT; i++)
        if (cpu_has((enum isa)i))
            check_odd_activations(kernel_table_of((enum isa)i));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_operations),
        cmocka_unit_test(silu_is_accurate_everywhere),
        cmocka_unit_test(softmax_is_accurate),
        cmocka_unit_test(odd_activations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
