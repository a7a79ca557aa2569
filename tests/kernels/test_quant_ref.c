/* The reference decoders against recorded blocks, bit for bit, and the table of types. The vectors
 * are not ours: SKEIN_CONFORMANCE names their folder, and without it those tests are skipped by
 * name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/kernels/quant_ref.h"

enum { ROWS = 4, COLS = 1024 };

static void *file_read(const char *name, const char *suffix, size_t size)
{
    const char *folder = getenv("SKEIN_CONFORMANCE");
    if (folder == NULL || folder[0] == '\0')
        return NULL;
    char path[512];
    snprintf(path, sizeof path, "%s/quant/dequant/%s%s", folder, name, suffix);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    void *data = mem_zeroed(size, 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, size, file), size);
    assert_int_equal(fgetc(file), EOF);
    fclose(file);
    return data;
}

static void decoding_is_exact(void **state)
{
    enum tensor_type type = *(const enum tensor_type *)*state;
    const struct tensor_type_info *info = tensor_type_info(type);
    size_t row_bytes = COLS / info->block_values * info->block_bytes;
    const char *name = type == TENSOR_BF16_DOT ? "BF16" : info->name; /* the same bytes */
    uint8_t *blocks = file_read(name, ".bin", ROWS * row_bytes);
    if (blocks == NULL)
        skip();
    float *expected = file_read(name, ".f32", ROWS * COLS * sizeof(float));
    float *got = MEM_NEW_N(float, ROWS *COLS);
    assert_non_null(got);
    for (size_t r = 0; r < ROWS; r++)
        tensor_decode(type, blocks + r * row_bytes, got + r * COLS, COLS);
    for (size_t i = 0; i < ROWS * COLS; i++)
        if (memcmp(&got[i], &expected[i], sizeof *got) != 0)
            fail_msg("%s value %zu: %.9g, expected %.9g", info->name, i, (double)got[i],
                     (double)expected[i]);
    mem_free(blocks);
    mem_free(expected);
    mem_free(got);
}

static void halves_are_exact(void **state)
{
    (void)state;
    assert_true(half_to_float(0x0001) == 0x1p-24f);
    assert_true(half_to_float(0x03ff) == 1023 * 0x1p-24f);
    assert_true(half_to_float(0x0400) == 0x1p-14f);
    assert_true(half_to_float(0x7bff) == 65504.0f);
    assert_true(half_to_float(0xc000) == -2.0f);
    assert_true(half_to_float(0x7c00) > 3e38f);
    assert_true(half_to_float(0x7e00) != half_to_float(0x7e00));
    assert_true(bfloat_to_float(0x3f80) == 1.0f);
    assert_true(e4m3_half_to_float(0x38) == 0.5f);
    assert_true(e4m3_half_to_float(0x01) == 0x1p-10f);
    assert_true(e4m3_half_to_float(0x7e) == 224.0f);
    assert_true(e4m3_half_to_float(0x7f) == 0.0f);
}

static void unknown_types_have_no_name(void **state)
{
    (void)state;
    static const uint32_t numbers[] = {4, 5, 31, 33, 36, 38, 62, 64, 1000, UINT32_MAX};
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        assert_null(tensor_type_info(numbers[i])->name);
        assert_false(tensor_type_info(numbers[i])->runnable);
        assert_true(tensor_type_info(numbers[i])->block_values > 0);
    }
    assert_string_equal(tensor_type_info(TENSOR_Q4_K)->name, "Q4_K");
    assert_int_equal(tensor_type_info(TENSOR_Q6_K)->block_bytes, 210);
    assert_false(tensor_type_info(TENSOR_I32)->runnable);
}

static enum tensor_type types[] = {
    TENSOR_F32,   TENSOR_F16,     TENSOR_BF16,   TENSOR_Q4_0,  TENSOR_Q4_1,     TENSOR_Q5_0,
    TENSOR_Q5_1,  TENSOR_Q8_0,    TENSOR_Q2_K,   TENSOR_Q3_K,  TENSOR_Q4_K,     TENSOR_Q5_K,
    TENSOR_Q6_K,  TENSOR_IQ4_NL,  TENSOR_IQ4_XS, TENSOR_MXFP4, TENSOR_IQ2_XXS,  TENSOR_IQ2_XS,
    TENSOR_IQ2_S, TENSOR_IQ3_XXS, TENSOR_IQ3_S,  TENSOR_IQ1_S, TENSOR_IQ1_M,    TENSOR_TQ1_0,
    TENSOR_TQ2_0, TENSOR_NVFP4,   TENSOR_Q1_0,   TENSOR_Q2_0,  TENSOR_BF16_DOT,
};

int main(void)
{
    struct CMUnitTest tests[COUNT_OF(types) + 2];
    size_t n = 0;
    for (size_t i = 0; i < COUNT_OF(types); i++)
        tests[n++] = (struct CMUnitTest){.name = tensor_type_info(types[i])->name,
                                         .test_func = decoding_is_exact,
                                         .initial_state = &types[i]};
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(halves_are_exact);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(unknown_types_have_no_name);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
