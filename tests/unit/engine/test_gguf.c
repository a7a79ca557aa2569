/* The GGUF parser on good files, on files cut off anywhere, and on files made to harm: every fault
 * is a status with a sentence, nothing is read outside the bytes, and memory stays in proportion.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/engine/gguf_make.h"

/* Parses a copy that ends where the heap block ends, so that a read past it is seen. */
static enum status parse(struct gguf_text file, struct gguf **out, struct fault *fault)
{
    static uint8_t *copy;

    free(copy);
    copy = malloc(file.n_bytes ? file.n_bytes : 1);
    if (file.n_bytes)
        memcpy(copy, file.data, file.n_bytes);
    return gguf_parse(copy, file.n_bytes, out, fault);
}

static void check_refused(struct gguf_maker *m, enum status want, const char *words)
{
    struct gguf *gguf = NULL;
    struct fault fault = {0};

    assert_int_equal(parse(make_file(m, 3), &gguf, &fault), want);
    assert_null(gguf);
    assert_int_equal(fault.status, want);
    if (!strstr(fault.text, words))
        fail_msg("\"%s\" does not say \"%s\"", fault.text, words);
    gguf_maker_free(m);
}

static void put_array(struct gguf_maker *m, const char *key, uint32_t kind, uint64_t n)
{
    make_key(m, key, GGUF_ARRAY);
    assert_int_equal(buffer_put_u32(&m->values, kind), STATUS_OK);
    assert_int_equal(buffer_put_u64(&m->values, n), STATUS_OK);
}

static void test_values(void **state)
{
    struct gguf_maker m = {0};
    struct gguf *gguf;
    struct gguf_text text;
    const struct gguf_value *array;
    uint32_t u;
    float f;
    bool b;

    (void)state;
    make_u32(&m, "a.number", 7);
    make_f32(&m, "a.float", 1.5f);
    make_text(&m, "a.text", "words");
    make_key(&m, "a.yes", GGUF_BOOL);
    assert_int_equal(buffer_put_u8(&m.values, 1), STATUS_OK);
    make_key(&m, "a.negative", GGUF_I32);
    assert_int_equal(buffer_put_u32(&m.values, (uint32_t)-3), STATUS_OK);
    make_key(&m, "a.wide", GGUF_U64);
    assert_int_equal(buffer_put_u64(&m.values, UINT64_C(1) << 32), STATUS_OK);
    make_key(&m, "a.small", GGUF_I64);
    assert_int_equal(buffer_put_u64(&m.values, 9), STATUS_OK);
    put_array(&m, "a.list", GGUF_STRING, 2);
    make_string(&m.values, "one");
    make_string(&m.values, "");
    assert_int_equal(parse(make_file(&m, 2), &gguf, NULL), STATUS_OK);
    assert_int_equal(gguf_value_count(gguf), 8);
    assert_true(gguf_get_u32(gguf, "a.number", &u) && u == 7);
    assert_true(gguf_get_u32(gguf, "a.small", &u) && u == 9);
    assert_false(gguf_get_u32(gguf, "a.negative", &u));
    assert_false(gguf_get_u32(gguf, "a.wide", &u));
    assert_false(gguf_get_u32(gguf, "a.float", &u));
    assert_false(gguf_get_u32(gguf, "a.missing", &u));
    assert_true(gguf_get_f32(gguf, "a.float", &f) && f == 1.5f);
    assert_false(gguf_get_f32(gguf, "a.number", &f));
    assert_true(gguf_get_bool(gguf, "a.yes", &b) && b);
    assert_true(gguf_get_text(gguf, "a.text", &text));
    assert_int_equal(text.n_bytes, 5);
    assert_memory_equal(text.data, "words", 5);
    array = gguf_find(gguf, "a.list");
    assert_non_null(array);
    assert_true(gguf_value_text(array, 0, &text) && text.n_bytes == 3);
    assert_true(gguf_value_text(array, 1, &text) && text.n_bytes == 0);
    assert_false(gguf_value_text(array, 2, &text));
    gguf_free(&gguf);
    assert_null(gguf);
    gguf_maker_free(&m);
}

static void test_tensors(void **state)
{
    struct gguf_maker m = {0};
    struct gguf_text file;
    struct gguf *gguf;
    const struct gguf_tensor *tensor;

    (void)state;
    make_llama(&m);
    file = make_file(&m, 3);
    assert_int_equal(parse(file, &gguf, NULL), STATUS_OK);
    tensor = gguf_tensor_find(gguf, "blk.1.attn_k.weight");
    assert_non_null(tensor);
    assert_int_equal(tensor->dims[0], 32);
    assert_int_equal(tensor->dims[1], 16);
    assert_int_equal(tensor->dims[3], 1);
    assert_int_equal(tensor->n_values, 512);
    assert_int_equal(tensor->n_bytes, 2048);
    assert_int_equal(gguf_data_offset(gguf) % 32, 0);
    assert_null(gguf_tensor_find(gguf, "blk.2.attn_k.weight"));
    gguf_free(&gguf);
    gguf_maker_free(&m);
}

static void test_every_truncation(void **state)
{
    struct gguf_maker m = {0};
    struct gguf_text file;
    struct gguf *gguf;

    (void)state;
    make_llama(&m);
    file = make_file(&m, 3);
    for (size_t n = 0; n < file.n_bytes; n += n < 4096 ? 1 : 509) {
        struct fault fault = {0};

        assert_int_not_equal(parse((struct gguf_text){file.data, n}, &gguf, &fault), STATUS_OK);
        assert_int_equal(fault.status, STATUS_TRUNCATED);
        assert_string_not_equal(fault.text, "");
    }
    gguf_maker_free(&m);
}

static void test_versions(void **state)
{
    static const struct {
        uint32_t version;
        const char *words;
    } cases[] = {{1, "version 1"}, {4, "version 4"}, {0, "version 0"}, {0x03000000, "big endian"}};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct gguf_maker m = {0};
        struct fault fault = {0};
        struct gguf *gguf;

        assert_int_equal(parse(make_file(&m, cases[i].version), &gguf, &fault), STATUS_UNSUPPORTED);
        assert_non_null(strstr(fault.text, cases[i].words));
        gguf_maker_free(&m);
    }
}

static void test_other_files(void **state)
{
    struct fault fault = {0};
    struct gguf *gguf;

    (void)state;
    assert_int_equal(parse((struct gguf_text){"PK\3\4 a zip", 10}, &gguf, &fault), STATUS_FORMAT);
    assert_non_null(strstr(fault.text, "not a GGUF file"));
    assert_int_equal(parse((struct gguf_text){"", 0}, &gguf, &fault), STATUS_TRUNCATED);
}

static void test_vocabulary_only(void **state)
{
    struct gguf_maker m = {0};
    struct gguf *gguf;

    (void)state;
    make_text(&m, "general.architecture", "llama");
    assert_int_equal(parse(make_file(&m, 3), &gguf, NULL), STATUS_OK);
    assert_int_equal(gguf_tensor_count(gguf), 0);
    assert_null(gguf_tensor_at(gguf, 0));
    gguf_free(&gguf);
    gguf_maker_free(&m);
}

static void test_huge_counts(void **state)
{
    static const uint64_t counts[] = {UINT64_MAX, UINT64_MAX / 13, UINT32_MAX, 1 << 20, 60000};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        struct gguf_maker keys = {.n_values = counts[i]};
        struct gguf_maker tensors = {.n_tensors = counts[i]};
        struct gguf_maker array = {0};
        enum status want = counts[i] > 65536 ? STATUS_LIMIT : STATUS_TRUNCATED;

        check_refused(&keys, want, "metadata keys");
        check_refused(&tensors, want, "tensors");
        put_array(&array, "a.list", GGUF_STRING, counts[i]);
        check_refused(&array, counts[i] > (16u << 20) ? STATUS_LIMIT : STATUS_TRUNCATED, "a.list");
    }
}

static void test_bad_values(void **state)
{
    struct gguf_maker nested = {0};
    struct gguf_maker kind = {0};
    struct gguf_maker twice = {0};
    struct gguf_maker name = {0};
    struct gguf_maker length = {0};
    struct gguf_maker inner = {0};

    (void)state;
    put_array(&nested, "a.nested", GGUF_ARRAY, 1);
    put_array(&nested, "", GGUF_ARRAY, 1);
    check_refused(&nested, STATUS_FORMAT, "a.nested");
    make_key(&kind, "a.kind", 99);
    assert_int_equal(buffer_put_u64(&kind.values, 0), STATUS_OK);
    check_refused(&kind, STATUS_FORMAT, "a.kind");
    make_u32(&twice, "a.twice", 1);
    make_u32(&twice, "b.other", 1);
    make_u32(&twice, "a.twice", 2);
    check_refused(&twice, STATUS_FORMAT, "a.twice is there twice");
    make_u32(&name, "a.\x1b[31mred", 1);
    check_refused(&name, STATUS_FORMAT, "not a name");
    make_key(&length, "a.long", GGUF_STRING);
    assert_int_equal(buffer_put_u64(&length.values, UINT64_MAX), STATUS_OK);
    check_refused(&length, STATUS_TRUNCATED, "a.long");
    put_array(&inner, "a.inner", GGUF_STRING, 2);
    make_string(&inner.values, "fine");
    assert_int_equal(buffer_put_u64(&inner.values, UINT64_MAX - 8), STATUS_OK);
    check_refused(&inner, STATUS_TRUNCATED, "a.inner");
}

static void test_bad_tensors(void **state)
{
    static const struct {
        uint32_t type, n_dims;
        uint64_t dims[4];
        uint64_t offset;
        enum status want;
        const char *words;
    } cases[] = {
        {TENSOR_F32, 0, {0}, 0, STATUS_FORMAT, "dimensions"},
        {TENSOR_F32, 5, {1, 1, 1, 1}, 0, STATUS_FORMAT, "dimensions"},
        {TENSOR_F32, 2, {4, 0}, 0, STATUS_FORMAT, "dimension of 0"},
        {TENSOR_F32, 2, {1u << 31, 1u << 29}, 0, STATUS_TRUNCATED, "beyond the file"},
        {TENSOR_F32, 2, {UINT64_C(1) << 61, 2}, 0, STATUS_LIMIT, "overflows"},
        {TENSOR_F32, 4, {1u << 31, 1u << 31, 1u << 31, 2}, 0, STATUS_LIMIT, "overflows"},
        {TENSOR_F32, 1, {UINT64_MAX}, 0, STATUS_LIMIT, "overflows"},
        {TENSOR_Q4_0, 1, {33}, 0, STATUS_FORMAT, "no multiple of 32"},
        {TENSOR_Q4_K, 2, {128, 2}, 0, STATUS_FORMAT, "no multiple of 256"},
        {TENSOR_BF16_DOT, 1, {64}, 0, STATUS_FORMAT, "no file can have"},
        {TENSOR_F32, 1, {8}, 8, STATUS_FORMAT, "unaligned"},
        {TENSOR_F32, 1, {8}, 64, STATUS_TRUNCATED, "beyond the file"},
        {TENSOR_F32, 1, {8}, UINT64_MAX - 31, STATUS_TRUNCATED, "beyond the file"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct gguf_maker m = {.data_bytes = 32};
        uint64_t dims[5] = {1, 1, 1, 1, 1};

        memcpy(dims, cases[i].dims, sizeof cases[i].dims);
        make_tensor_at(&m, "t", cases[i].type, cases[i].n_dims, dims, cases[i].offset);
        check_refused(&m, cases[i].want, cases[i].words);
    }
}

static void test_tensor_twice(void **state)
{
    struct gguf_maker m = {0};

    (void)state;
    make_tensor(&m, "b", 8, 1);
    make_tensor(&m, "a", 8, 1);
    make_tensor(&m, "b", 8, 1);
    check_refused(&m, STATUS_FORMAT, "b is there twice");
}

static void test_unknown_type_has_no_data(void **state)
{
    struct gguf_maker m = {.data_bytes = 32};
    uint64_t dims[1] = {8};
    struct gguf *gguf;

    (void)state;
    make_tensor_at(&m, "t", 1000, 1, dims, 0);
    assert_int_equal(parse(make_file(&m, 3), &gguf, NULL), STATUS_OK);
    assert_null(gguf_tensor_find(gguf, "t")->data);
    assert_int_equal(gguf_tensor_find(gguf, "t")->n_bytes, 0);
    gguf_free(&gguf);
    gguf_maker_free(&m);
}

static void test_alignment(void **state)
{
    static const uint32_t bad[] = {0, 1, 33, 1u << 21, UINT32_MAX};
    struct gguf_maker good = {0};
    struct gguf *gguf;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct gguf_maker m = {0};

        make_u32(&m, "general.alignment", bad[i]);
        check_refused(&m, STATUS_FORMAT, "general.alignment");
    }
    make_u32(&good, "general.alignment", 4096);
    assert_int_equal(parse(make_file(&good, 3), &gguf, NULL), STATUS_OK);
    assert_int_equal(gguf_data_offset(gguf), 4096);
    gguf_free(&gguf);
    gguf_maker_free(&good);
}

static void test_allocation_failures(void **state)
{
    struct gguf_maker m = {0};
    struct gguf *gguf = NULL;
    unsigned long n = 1;
    enum status status = STATUS_NO_MEMORY;
    struct gguf_text file;

    (void)state;
    make_llama(&m);
    file = make_file(&m, 3);
    for (; status && n < 100; n++) {
        mem_fail_after(n);
        status = parse(file, &gguf, NULL);
        mem_fail_after(0);
        assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 5);
    gguf_free(&gguf);
    gguf_maker_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_other_files),
        cmocka_unit_test(test_vocabulary_only),
        cmocka_unit_test(test_huge_counts),
        cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_bad_tensors),
        cmocka_unit_test(test_tensor_twice),
        cmocka_unit_test(test_unknown_type_has_no_data),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_allocation_failures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
