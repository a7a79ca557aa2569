/* The safetensors reader: what a good file gives, and that no damaged one is read past its end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/file/safetensors.h"

/* The bytes in memory of exactly their length, so that a read past the end is seen. */
static enum status parse(const char *header, size_t n_data, struct fault *fault,
                         struct safetensors **out, uint8_t **bytes)
{
    uint64_t n = strlen(header);

    *bytes = calloc(1, 8 + (size_t)n + n_data);
    memcpy(*bytes, &n, 8);
    memcpy(*bytes + 8, header, (size_t)n);
    return safetensors_parse(*bytes, 8 + (size_t)n + n_data, out, fault);
}

static void test_reads(void **state)
{
    struct safetensors *file = NULL;
    const struct safetensor *t;
    struct fault fault = {0};
    uint8_t *bytes;

    (void)state;
    assert_int_equal(parse("{\"__metadata__\":{\"format\":\"pt\"},"
                           "\"a.weight\":{\"dtype\":\"BF16\",\"shape\":[2,3],"
                           "\"data_offsets\":[4,16]},"
                           "\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
                           "\"c\":{\"dtype\":\"F8_E4M3\",\"shape\":[4],\"data_offsets\":[12,16]}}",
                           16, &fault, &file, &bytes),
                     STATUS_OK);
    assert_int_equal(safetensors_count(file), 3);
    for (size_t i = 0; i < 3; i++) {
        t = safetensors_at(file, i);
        if (strcmp(t->name, "a.weight") == 0) {
            assert_int_equal(t->type, TENSOR_BF16);
            assert_int_equal(t->n_dims, 2);
            assert_int_equal(t->dims[0], 2);
            assert_int_equal(t->dims[1], 3);
            assert_int_equal(t->n_bytes, 12);
            assert_ptr_equal(t->data + 12, bytes + 8 + bytes[0] + 256 * bytes[1] + 16);
        } else if (strcmp(t->name, "b") == 0) {
            assert_int_equal(t->n_dims, 0);
        } else {
            assert_int_equal(t->type, TENSOR_TYPE_LIMIT);
            assert_string_equal(t->dtype, "F8_E4M3");
        }
    }
    assert_null(safetensors_at(file, 3));
    safetensors_free(&file);
    assert_null(file);
    free(bytes);
}

static void refuses(const char *header, size_t n_data, enum status wanted)
{
    struct safetensors *file = NULL;
    struct fault fault = {0};
    uint8_t *bytes;
    enum status status = parse(header, n_data, &fault, &file, &bytes);

    if (status != wanted)
        fail_msg("%s: %s instead of %s", header, status_name(status), status_name(wanted));
    assert_null(file);
    assert_int_not_equal(fault.text[0], 0);
    free(bytes);
}

static void test_refuses(void **state)
{
    (void)state;
    refuses("", 0, STATUS_FORMAT);
    refuses("[]", 0, STATUS_FORMAT);
    refuses("{\"a\":1}", 0, STATUS_FORMAT);
    refuses("{\"a\":{\"dtype\":\"Q1\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, STATUS_FORMAT);
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, STATUS_FORMAT);
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4, STATUS_FORMAT);
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
            STATUS_FORMAT);
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}",
            4, STATUS_LIMIT);
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, STATUS_FORMAT);
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7,
            STATUS_TRUNCATED);
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 8, STATUS_FORMAT);
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 8, STATUS_FORMAT);
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],"
            "\"data_offsets\":[9223372036854775804,9223372036854775807]}}",
            8, STATUS_TRUNCATED);
    refuses("{\"a\\u001b[2J\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
            STATUS_FORMAT);
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
            "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
            4, STATUS_FORMAT);
}

static void test_lengths(void **state)
{
    struct safetensors *file = NULL;
    uint8_t bytes[16] = {2, 0, 0, 0, 0, 0, 0, 0, '{', '}'};

    (void)state;
    assert_int_equal(safetensors_parse(bytes, 10, &file, NULL), STATUS_OK);
    assert_int_equal(safetensors_count(file), 0);
    safetensors_free(&file);
    assert_int_equal(safetensors_parse(bytes, 7, &file, NULL), STATUS_TRUNCATED);
    assert_int_equal(safetensors_parse(bytes, 9, &file, NULL), STATUS_TRUNCATED);
    bytes[4] = 1; /* four gigabytes of header */
    assert_int_equal(safetensors_parse(bytes, 10, &file, NULL), STATUS_LIMIT);
    memset(bytes, 0xff, 8);
    assert_int_equal(safetensors_parse(bytes, 10, &file, NULL), STATUS_LIMIT);
    assert_null(file);
}

/* Deep nesting is refused by the JSON reader, not by the stack. */
static void test_depth(void **state)
{
    enum { DEPTH = 200000 };
    char *header = malloc(DEPTH + 8);

    (void)state;
    memcpy(header, "{\"a\":", 5);
    memset(header + 5, '[', DEPTH);
    header[DEPTH + 5] = 0;
    refuses(header, 0, STATUS_FORMAT);
    free(header);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_depth),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
