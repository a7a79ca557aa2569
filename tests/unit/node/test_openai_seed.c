/* Seeds of 64 bits, settings that nobody named, and texts that no prompt can hold. */
#include "tests/unit/node/openai_body.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void test_seeds_have_64_bits(void **state)
{
    static const struct {
        const char *digits;
        uint64_t seed;
    } cases[] = {
        {"9223372036854775807", INT64_MAX},
        {"9223372036854775808", (uint64_t)INT64_MAX + 1},
        {"18446744073709551615", UINT64_MAX},
        {"\"18446744073709551615\"", UINT64_MAX},
        {"\"7\"", 7},
    };
    struct openai_request request;
    char json[300];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        (void)snprintf(json, sizeof json, "{\"user\":\"a\\\"{\", \"seed\" : %s ," TEXT "}",
                       cases[i].digits);
        accepted(REQUEST_TEXT, json, &request);
        assert_true(request.spec.seed == cases[i].seed);
        openai_request_free(&request);
    }
    refused(REQUEST_TEXT, "{\"seed\":18446744073709551616," TEXT "}", 400, "seed");
    refused(REQUEST_TEXT, "{\"seed\":\"-5\"," TEXT "}", 400, "seed");
    refused(REQUEST_TEXT, "{\"seed\":\"\"," TEXT "}", 400, "seed");
    refused(REQUEST_TEXT, "{\"seed\":99999999999999999999999," TEXT "}", 400, "");
    /* only the root's own seed, and only its value */
    refused(REQUEST_TEXT, "{\"user\":{\"seed\":18446744073709551615}," TEXT "}", 400, "");
    refused(REQUEST_TEXT, "{\"seed\":18446744073709551615", 400, "");
    refused(REQUEST_TEXT, "{\"seed", 400, "");
    refused(REQUEST_TEXT, "{\"seed\"", 400, "");
    refused(REQUEST_TEXT, "{\"seed\":", 400, "");
}

static void test_what_is_not_said_stays_open(void **state)
{
    static const struct {
        const char *json;
        unsigned setting;
    } cases[] = {
        {"\"temperature\":0.8", SAMPLE_TEMPERATURE},
        {"\"top_k\":40", SAMPLE_TOP_K},
        {"\"top_p\":1", SAMPLE_TOP_P},
        {"\"min_p\":0", SAMPLE_MIN_P},
        {"\"typical_p\":1", SAMPLE_TYPICAL_P},
        {"\"repeat_penalty\":1", SAMPLE_REPEAT_PENALTY},
        {"\"repetition_penalty\":1", SAMPLE_REPEAT_PENALTY},
        {"\"repeat_last_n\":64", SAMPLE_REPEAT_LAST_N},
        {"\"xtc_probability\":0", SAMPLE_XTC_PROBABILITY},
        {"\"xtc_threshold\":0", SAMPLE_XTC_THRESHOLD},
        {"\"presence_penalty\":1", 0},
        {"\"temperature\":null", 0},
    };
    struct openai_request request;
    char json[200];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        (void)snprintf(json, sizeof json, "{" TEXT ",%s}", cases[i].json);
        accepted(REQUEST_TEXT, json, &request);
        assert_int_equal(request.spec.open_settings, SAMPLE_SETTINGS & ~cases[i].setting);
        openai_request_free(&request);
    }
}

static void test_a_zero_character_is_told(void **state)
{
    struct openai_request request;
    struct api_error error;

    (void)state;
    assert_int_equal(
        parse(REQUEST_TEXT, "{\"model\":\"tiny\",\"prompt\":\"a\\u0000b\"}", &request, &error),
        STATUS_FORMAT);
    assert_non_null(strstr(error.fault.text, "\\u0000"));
    assert_null(strstr(error.fault.text, "JSON_ALLOW_NUL"));
    openai_request_free(&request);
    openai_request_free(&request);
}

static void test_answers_say_the_seed_again(void **state)
{
    const struct request_result none = {.end = REQUEST_END_STOP};
    const struct openai_answer text = {.kind = REQUEST_TEXT, .id = "cmpl-1", .model = "tiny"};
    struct openai_answer zero = text, large = text;
    json_t *value;

    (void)state;
    zero.seed = OPENAI_SEED_FOR_ZERO; /* is what a client's 0 became */
    value = openai_reply(&zero, "", 0, &none);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(value, "skein"), "seed")),
                     0);
    assert_true(json_is_integer(json_object_get(json_object_get(value, "skein"), "seed")));
    json_decref(value);
    large.seed = UINT64_MAX;
    value = openai_reply(&large, "", 0, &none);
    assert_string_equal(json_string_value(json_object_get(json_object_get(value, "skein"), "seed")),
                        "18446744073709551615");
    json_decref(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeds_have_64_bits),
        cmocka_unit_test(test_what_is_not_said_stays_open),
        cmocka_unit_test(test_a_zero_character_is_told),
        cmocka_unit_test(test_answers_say_the_seed_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
