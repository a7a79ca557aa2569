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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),
        cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_odd_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
