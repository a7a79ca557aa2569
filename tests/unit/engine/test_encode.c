/* Encoders: exact where the type holds the value, else the nearest; blocks within half a step. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/kernels/encode.h"

/* Every bit pattern of a 16-bit type decodes and encodes to itself; NaNs to some NaN. */
static void check_all_patterns(enum tensor_type type)
{
    for (uint32_t bits = 0; bits < 1 << 16; bits++) {
        uint16_t in = (uint16_t)bits, out;
        float value, again;

        tensor_decode(type, &in, &value, 1);
        tensor_encode(type, &value, &out, 1);
        tensor_decode(type, &out, &again, 1);
        if (isnan(value))
            assert_true(isnan(again));
        else if (in != out)
            fail_msg("%04x became %04x", in, out);
    }
}

static void test_exact(void **state)
{
    (void)state;
    check_all_patterns(TENSOR_F16);
    check_all_patterns(TENSOR_BF16);
}

static float round_trip(enum tensor_type type, float value)
{
    uint32_t bits = 0;

    tensor_encode(type, &value, &bits, 1);
    tensor_decode(type, &bits, &value, 1);
    return value;
}

/* Between neighbours the nearer one is taken, and of equally near ones the even one. */
static void test_nearest(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits + 1 < 0x7c00; bits++) {
        uint16_t low = (uint16_t)bits, high = (uint16_t)(bits + 1);
        float a, b, middle;

        tensor_decode(TENSOR_F16, &low, &a, 1);
        tensor_decode(TENSOR_F16, &high, &b, 1);
        middle = a + (b - a) / 2;
        assert_true(round_trip(TENSOR_F16, middle) == (bits % 2 ? b : a));
        assert_true(round_trip(TENSOR_F16, nextafterf(middle, 0)) == a);
        assert_true(round_trip(TENSOR_F16, nextafterf(middle, 1e9f)) == b);
    }
    assert_true(isinf(round_trip(TENSOR_F16, 65520)));
    assert_true(round_trip(TENSOR_F16, 65519.9f) == 65504);
    assert_true(isinf(round_trip(TENSOR_BF16, 3.4e38f)));
}

static void test_blocks(void **state)
{
    static const struct {
        enum tensor_type type;
        float steps; /* over the range of a block */
    } cases[] = {{TENSOR_Q8_0, 254},
                 {TENSOR_Q5_1, 31},
                 {TENSOR_Q5_0, 31},
                 {TENSOR_Q4_1, 15},
                 {TENSOR_Q4_0, 15}};
    float in[64], out[64];
    uint8_t blocks[128];

    (void)state;
    srand(1);
    for (size_t c = 0; c < COUNT_OF(cases); c++) {
        for (int trial = 0; trial < 200; trial++) {
            float scale = ldexpf(1, trial % 20 - 10);

            for (int i = 0; i < 64; i++)
                in[i] = ((float)rand() / (float)RAND_MAX * 2 - 1) * scale;
            tensor_encode(cases[c].type, in, blocks, 64);
            tensor_decode(cases[c].type, blocks, out, 64);
            for (int i = 0; i < 64; i++) {
                /* The side without the extreme reaches one step less far in symmetric types. */
                if (!(fabsf(in[i] - out[i]) < 2.1f * scale / cases[c].steps))
                    fail_msg("%s: %g became %g", tensor_type_info(cases[c].type)->name,
                             (double)in[i], (double)out[i]);
            }
        }
    }
}

static void test_odd_values(void **state)
{
    float in[32] = {NAN, INFINITY, -INFINITY, 1, -1}, out[32];
    uint8_t block[64];
    enum tensor_type type;

    (void)state;
    for (uint32_t t = 0; t < TENSOR_TYPE_LIMIT; t++) {
        if (!tensor_encodes((enum tensor_type)t) || tensor_type_info(t)->block_values != 32)
            continue;
        tensor_encode((enum tensor_type)t, in, block, 32);
        tensor_decode((enum tensor_type)t, block, out, 32);
        for (int i = 0; i < 32; i++)
            assert_true(isfinite(out[i]));
    }
    assert_true(tensor_type_parse("q4_0", &type) && type == TENSOR_Q4_0);
    assert_false(tensor_type_parse("Q4_0x", &type));
    assert_false(tensor_type_parse("", &type));
}

/* The error of a type on values as weights have them, over their power. */
static double nmse_of(enum tensor_type type, float scale, float offset)
{
    enum { N = 64 * 256 };
    static float in[N], out[N];
    static uint8_t blocks[N * 4];
    double error = 0, power = 0;

    srand(7);
    for (int i = 0; i < N; i++) {
        float sum = 0;

        for (int k = 0; k < 12; k++)
            sum += (float)rand() / (float)RAND_MAX;
        in[i] = (sum - 6) * scale * (1 + (float)(i / 512 % 3)) + offset;
    }
    tensor_encode(type, in, blocks, N);
    tensor_decode(type, blocks, out, N);
    for (int i = 0; i < N; i++) {
        error += pow((double)in[i] - (double)out[i], 2);
        power += pow((double)in[i], 2);
    }
    return error / power;
}

static void test_error(void **state)
{
    static const struct {
        enum tensor_type type, other;
        double factor; /* of the other's error */
    } cases[] = {{TENSOR_IQ4_NL, TENSOR_Q4_0, 0.9}, {TENSOR_Q4_K, TENSOR_Q4_0, 0.9},
                 {TENSOR_Q5_K, TENSOR_Q5_0, 0.9},   {TENSOR_Q5_K, TENSOR_Q4_K, 0.3},
                 {TENSOR_Q6_K, TENSOR_Q5_K, 0.4},   {TENSOR_Q8_0, TENSOR_Q6_K, 0.2}};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        for (int exponent = -12; exponent <= 0; exponent += 6) {
            float scale = ldexpf(1, exponent);
            double a = nmse_of(cases[i].type, scale, 0), b = nmse_of(cases[i].other, scale, 0);

            print_message("           %s %.2e, %s %.2e\n", tensor_type_info(cases[i].type)->name, a,
                          tensor_type_info(cases[i].other)->name, b);
            if (!(a <= cases[i].factor * b))
                fail_msg("%s: %g, %s: %g", tensor_type_info(cases[i].type)->name, a,
                         tensor_type_info(cases[i].other)->name, b);
        }
    }
    /* Minima reach below zero and not above. */
    assert_true(nmse_of(TENSOR_Q4_K, 0.01f, -0.05f) < nmse_of(TENSOR_Q4_K, 0.01f, 0.05f));
    assert_true(nmse_of(TENSOR_Q4_K, 0.01f, 0.05f) < 3e-3);
}

/* Blocks of one value, of zeros, of what is no number, and with one value far out. */
static void test_odd_blocks(void **state)
{
    static const enum tensor_type types[] = {TENSOR_Q4_K, TENSOR_Q5_K, TENSOR_Q6_K, TENSOR_IQ4_NL};
    static const float fills[] = {0, 1, -1, 0.37f, NAN, INFINITY, 1e-30f, 6e4f};

    (void)state;
    for (size_t t = 0; t < COUNT_OF(types); t++) {
        for (size_t f = 0; f < COUNT_OF(fills); f++) {
            float in[256], out[256], want = isfinite(fills[f]) ? fills[f] : 0;
            uint8_t block[512];

            for (int i = 0; i < 256; i++)
                in[i] = fills[f];
            in[200] = f % 2 ? fills[f] : -1000;
            tensor_encode(types[t], in, block, 256);
            tensor_decode(types[t], block, out, 256);
            for (int i = 0; i < 256; i++)
                assert_true(isfinite(out[i]));
            if (f % 2 && !(fabsf(out[9] - want) <= 0.02f * fabsf(want) + 1e-6f))
                fail_msg("%s: %g became %g", tensor_type_info(types[t])->name, (double)want,
                         (double)out[9]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),  cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_blocks), cmocka_unit_test(test_odd_values),
        cmocka_unit_test(test_error),  cmocka_unit_test(test_odd_blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
