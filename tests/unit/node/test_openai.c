/* OpenAI bodies: every field is honoured, harmless, or refused by name; answers have OpenAI's
 * shape. */
#include "tests/unit/node/openai_body.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHAT "\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static void test_chat_with_everything(void **state)
{
    struct openai_request request;
    json_t *body;

    (void)state;
    accepted(REQUEST_CHAT,
             "{" CHAT ",\"stream\":true,\"stream_options\":{\"include_usage\":true},"
             "\"max_completion_tokens\":7,\"temperature\":0.5,\"top_p\":0.25,\"top_k\":3,\"min_p\":"
             "0.125,"
             "\"repeat_penalty\":1.5,\"repeat_last_n\":9,\"seed\":42,\"stop\":[\"a\",\"bc\"],"
             "\"tools\":[{\"type\":\"function\"}],\"chat_template_kwargs\":{\"x\":1},"
             "\"n\":1,\"logprobs\":false,\"response_format\":{\"type\":\"text\"},\"user\":\"me\","
             "\"metadata\":{},\"store\":false,\"logit_bias\":{},\"presence_penalty\":0.0,"
             "\"tool_choice\":\"auto\",\"modalities\":[\"text\"],\"reasoning_effort\":\"low\"}",
             &request);
    assert_true(request.stream && request.include_usage);
    assert_int_equal(request.spec.kind, REQUEST_CHAT);
    assert_string_equal(request.spec.model, "tiny");
    assert_int_equal(request.spec.max_tokens, 7);
    assert_int_equal((int)(request.spec.temperature * 1000), 500);
    assert_int_equal((int)(request.spec.top_p * 1000), 250);
    assert_int_equal((int)(request.spec.min_p * 1000), 125);
    assert_int_equal((int)(request.spec.repeat_penalty * 1000), 1500);
    assert_int_equal(request.spec.top_k, 3);
    assert_int_equal(request.spec.repeat_last_n, 9);
    assert_int_equal(request.spec.seed, 42);
    assert_int_equal(request.spec.n_stops, 2);
    assert_string_equal(request.spec.stops[1], "bc");
    body = json_loadb((const char *)request.body.data, request.body.len, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(body, "messages")), 1);
    assert_int_equal(json_array_size(json_object_get(body, "tools")), 1);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(body, "kwargs"), "x")), 1);
    json_decref(body);
    openai_request_free(&request);
}

static void test_defaults(void **state)
{
    struct openai_request request;
    struct sample_params params;

    (void)state;
    sample_defaults(&params);
    accepted(REQUEST_CHAT, "{" CHAT "}", &request);
    assert_false(request.stream);
    assert_int_equal(request.spec.max_tokens, 0);
    assert_int_equal(request.spec.top_k, params.top_k);
    assert_int_equal(request.spec.seed, 0);
    openai_request_free(&request);
    accepted(REQUEST_TEXT, "{" TEXT "}", &request);
    assert_int_equal(request.spec.max_tokens, 16);
    assert_int_equal(request.body.len, 2);
    assert_memory_equal(request.body.data, "hi", 2);
    openai_request_free(&request);
    /* null is absent */
    accepted(REQUEST_CHAT, "{" CHAT ",\"temperature\":null,\"stop\":null,\"n\":null,\"seed\":null}",
             &request);
    assert_int_equal(request.spec.n_stops, 0);
    openai_request_free(&request);
}

static void test_seed_zero_is_a_seed(void **state)
{
    struct openai_request request;

    (void)state;
    accepted(REQUEST_TEXT, "{" TEXT ",\"seed\":0}", &request);
    assert_true(request.spec.seed != 0);
    openai_request_free(&request);
    accepted(REQUEST_TEXT, "{" TEXT ",\"seed\":-1}", &request);
    assert_true(request.spec.seed == UINT64_MAX);
    openai_request_free(&request);
}

static void test_text_forms(void **state)
{
    struct openai_request request;

    (void)state;
    accepted(REQUEST_TEXT,
             "{\"model\":\"m\",\"prompt\":[\"one\"],\"echo\":false,\"best_of\":1,\"suffix\":\"\"}",
             &request);
    assert_memory_equal(request.body.data, "one", 3);
    openai_request_free(&request);
    accepted(REQUEST_TEXT, "{\"model\":\"m\",\"prompt\":\"\",\"ignore_eos\":true,\"stop\":\"x\"}",
             &request);
    assert_int_equal(request.body.len, 0);
    assert_true(request.spec.ignore_end);
    assert_int_equal(request.spec.n_stops, 1);
    openai_request_free(&request);
    refused(REQUEST_TEXT, "{\"model\":\"m\",\"prompt\":[\"a\",\"b\"]}", 400, "prompt");
    refused(REQUEST_TEXT, "{\"model\":\"m\",\"prompt\":[1,2]}", 400, "prompt");
    refused(REQUEST_TEXT, "{\"model\":\"m\",\"prompt\":5}", 400, "prompt");
    refused(REQUEST_TEXT, "{" TEXT ",\"logprobs\":0}", 400, "logprobs");
    refused(REQUEST_TEXT, "{" TEXT ",\"echo\":true}", 400, "echo");
    refused(REQUEST_TEXT, "{" TEXT ",\"messages\":[]}", 400, "messages");
}

static void test_messages_become_plain(void **state)
{
    struct openai_request request;

    (void)state;
    accepted(REQUEST_CHAT,
             "{\"model\":\"m\",\"messages\":["
             "{\"role\":\"developer\",\"content\":\"d\"},"
             "{\"role\":\"user\",\"name\":\"n\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
             "{\"type\":\"text\",\"text\":\"b\"}]},"
             "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{}]},"
             "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"t\"}]}",
             &request);
    assert_string_equal((const char *)request.body.data,
                        "{\"messages\":[{\"role\":\"system\",\"content\":\"d\"},"
                        "{\"role\":\"user\",\"name\":\"n\",\"content\":\"ab\"},"
                        "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{}]},"
                        "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"t\"}]}");
    openai_request_free(&request);
}

#define MESSAGE(m) "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}," m "]}"

static void test_wrong_messages(void **state)
{
    (void)state;
    refused(REQUEST_CHAT, "{\"model\":\"m\"}", 400, "messages");
    refused(REQUEST_CHAT, "{\"model\":\"m\",\"messages\":[]}", 400, "messages");
    refused(REQUEST_CHAT, "{\"model\":\"m\",\"messages\":\"hi\"}", 400, "messages");
    refused(REQUEST_CHAT, MESSAGE("5"), 400, "messages[1]");
    refused(REQUEST_CHAT, MESSAGE("{\"content\":\"x\"}"), 400, "messages[1].role");
    refused(REQUEST_CHAT, MESSAGE("{\"role\":\"god\",\"content\":\"x\"}"), 400, "messages[1].role");
    refused(REQUEST_CHAT, MESSAGE("{\"role\":\"user\"}"), 400, "messages[1].content");
    refused(REQUEST_CHAT, MESSAGE("{\"role\":\"user\",\"content\":7}"), 400, "messages[1].content");
    refused(REQUEST_CHAT, MESSAGE("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}"),
            400, "messages[1].content[0]");
    refused(REQUEST_CHAT, MESSAGE("{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}"), 400,
            "messages[1].content[0]");
    refused(REQUEST_CHAT, MESSAGE("{\"role\":\"user\",\"content\":[3]}"), 400,
            "messages[1].content[0]");
}

static void test_fields_that_matter_are_refused(void **state)
{
    static const struct {
        const char *json, *param;
    } cases[] = {
        {"\"n\":2", "n"},
        {"\"n\":\"1\"", "n"},
        {"\"logprobs\":true", "logprobs"},
        {"\"logprobs\":1", "logprobs"},
        {"\"top_logprobs\":2", "top_logprobs"},
        {"\"response_format\":{\"type\":\"json_object\"}", "response_format"},
        {"\"response_format\":\"json\"", "response_format"},
        {"\"tool_choice\":\"required\"", "tool_choice"},
        {"\"tool_choice\":{\"type\":\"function\"}", "tool_choice"},
        {"\"modalities\":[\"text\",\"audio\"]", "modalities"},
        {"\"audio\":{\"voice\":\"x\"}", "audio"},
        {"\"functions\":[{}]", "functions"},
        {"\"temprature\":1", "temprature"},
        {"\"prompt\":\"x\"", "prompt"},
        {"\"temperature\":\"hot\"", "temperature"},
        {"\"temperature\":2.5", "temperature"},
        {"\"temperature\":-1", "temperature"},
        {"\"temperature\":true", "temperature"},
        {"\"top_p\":1.5", "top_p"},
        {"\"top_k\":1.5", "top_k"},
        {"\"top_k\":-2", "top_k"},
        {"\"min_p\":[]", "min_p"},
        {"\"repeat_penalty\":0", "repeat_penalty"},
        {"\"max_tokens\":0", "max_tokens"},
        {"\"max_tokens\":-5", "max_tokens"},
        {"\"max_tokens\":1.5", "max_tokens"},
        {"\"max_tokens\":99999999999", "max_tokens"},
        {"\"max_tokens\":\"7\"", "max_tokens"},
        {"\"seed\":1.5", "seed"},
        {"\"stream\":\"yes\"", "stream"},
        {"\"stream\":1", "stream"},
        {"\"stream_options\":3", "stream_options"},
        {"\"stream_options\":{\"include_usage\":1}", "stream_options.include_usage"},
        {"\"stop\":5", "stop"},
        {"\"stop\":[\"\"]", "stop[0]"},
        {"\"stop\":[\"a\",5]", "stop[1]"},
        {"\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"]", "stop"},
        {"\"tools\":{}", "tools"},
        {"\"tools\":[1]", "tools"},
        {"\"chat_template_kwargs\":[]", "chat_template_kwargs"},
    };
    char json[400];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        (void)snprintf(json, sizeof json, "{" CHAT ",%s}", cases[i].json);
        refused(REQUEST_CHAT, json, 400, cases[i].param);
    }
    refused(REQUEST_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", 400, "model");
    refused(REQUEST_CHAT, "{\"model\":5}", 400, "model");
    refused(REQUEST_CHAT, "{\"model\":\"\"}", 400, "model");
}

static void test_sampling_extras(void **state)
{
    struct openai_request request;

    (void)state;
    accepted(REQUEST_TEXT,
             "{" TEXT ",\"frequency_penalty\":-2,\"presence_penalty\":1.5,\"typical_p\":0.25,"
             "\"dry_multiplier\":0.5,\"dry_base\":1.25,\"dry_allowed_length\":3,"
             "\"dry_last_n\":77,\"xtc_probability\":0.75,\"xtc_threshold\":0.125,"
             "\"repetition_penalty\":1.5,\"logit_bias\":{\"5\":-100,\"4294967295\":0.5}}",
             &request);
    assert_int_equal((int)(request.spec.frequency_penalty * 1000), -2000);
    assert_int_equal((int)(request.spec.presence_penalty * 1000), 1500);
    assert_int_equal((int)(request.spec.typical_p * 1000), 250);
    assert_int_equal((int)(request.spec.dry_multiplier * 1000), 500);
    assert_int_equal((int)(request.spec.dry_base * 1000), 1250);
    assert_int_equal(request.spec.dry_allowed_length, 3);
    assert_int_equal(request.spec.dry_last_n, 77);
    assert_int_equal((int)(request.spec.xtc_probability * 1000), 750);
    assert_int_equal((int)(request.spec.xtc_threshold * 1000), 125);
    assert_int_equal((int)(request.spec.repeat_penalty * 1000), 1500);
    assert_int_equal(request.spec.n_biases, 2);
    for (uint32_t i = 0; i < 2; i++) {
        const struct token_bias *bias = &request.spec.biases[i];

        assert_int_equal((int)(bias->bias * 10), bias->id == 5 ? -1000 : 5);
        assert_true(bias->id == 5 || bias->id == UINT32_MAX);
    }
    openai_request_free(&request);
    accepted(REQUEST_CHAT, "{" CHAT ",\"dry_last_n\":-1,\"logit_bias\":{}}", &request);
    assert_int_equal(request.spec.dry_last_n, 0);
    assert_int_equal(request.spec.n_biases, 0);
    openai_request_free(&request);
    /* off where they are not named */
    accepted(REQUEST_CHAT, "{" CHAT ",\"logit_bias\":null}", &request);
    assert_true(request.spec.frequency_penalty == 0 && request.spec.presence_penalty == 0 &&
                request.spec.typical_p == 0 && request.spec.dry_multiplier == 0 &&
                request.spec.xtc_probability == 0 && request.spec.n_biases == 0);
    openai_request_free(&request);
}

static void test_sampling_extras_are_checked(void **state)
{
    static const struct {
        const char *json, *param;
    } cases[] = {
        {"\"frequency_penalty\":2.5", "frequency_penalty"},
        {"\"frequency_penalty\":\"1\"", "frequency_penalty"},
        {"\"presence_penalty\":-3", "presence_penalty"},
        {"\"presence_penalty\":true", "presence_penalty"},
        {"\"typical_p\":1.5", "typical_p"},
        {"\"typical_p\":[]", "typical_p"},
        {"\"dry_multiplier\":-1", "dry_multiplier"},
        {"\"dry_base\":{}", "dry_base"},
        {"\"dry_allowed_length\":1.5", "dry_allowed_length"},
        {"\"dry_last_n\":-2", "dry_last_n"},
        {"\"dry_last_n\":16385", "dry_last_n"},
        {"\"repeat_last_n\":16385", "repeat_last_n"},
        {"\"xtc_probability\":2", "xtc_probability"},
        {"\"xtc_threshold\":\"x\"", "xtc_threshold"},
        {"\"logit_bias\":5", "logit_bias"},
        {"\"logit_bias\":[1]", "logit_bias"},
        {"\"logit_bias\":{\"hello\":1}", "logit_bias"},
        {"\"logit_bias\":{\"\":1}", "logit_bias"},
        {"\"logit_bias\":{\"-1\":1}", "logit_bias"},
        {"\"logit_bias\":{\"4294967296\":1}", "logit_bias"},
        {"\"logit_bias\":{\"1\":101}", "logit_bias.1"},
        {"\"logit_bias\":{\"7\":\"1\"}", "logit_bias.7"},
        {"\"logit_bias\":{\"7\":null}", "logit_bias.7"},
    };
    char json[4000];
    size_t n;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        (void)snprintf(json, sizeof json, "{" CHAT ",%s}", cases[i].json);
        refused(REQUEST_CHAT, json, 400, cases[i].param);
    }
    n = (size_t)snprintf(json, sizeof json, "{" CHAT ",\"logit_bias\":{\"0\":1");
    for (int i = 1; i <= PROTO_MAX_BIASES; i++)
        n += (size_t)snprintf(json + n, sizeof json - n, ",\"%d\":1", i);
    (void)snprintf(json + n, sizeof json - n, "}}");
    refused(REQUEST_CHAT, json, 400, "logit_bias");
}

static void test_tool_choice_none_drops_tools(void **state)
{
    struct openai_request request;

    (void)state;
    accepted(REQUEST_CHAT, "{" CHAT ",\"tools\":[{}],\"tool_choice\":\"none\"}", &request);
    assert_null(strstr((const char *)request.body.data, "tools"));
    openai_request_free(&request);
}

static void test_broken_json(void **state)
{
    static const char *const texts[] = {"",
                                        "{",
                                        "[]",
                                        "5",
                                        "null",
                                        "{\"a\":1,}",
                                        "{\"model\":\"\\u0000\"}",
                                        "{\"model\":\"\xff\"}",
                                        "{\"model\":\"a\",\"model\":\"b\"}",
                                        "{} x",
                                        "{\"temperature\":NaN}",
                                        "{\"temperature\":1e999}"};
    struct openai_request request;
    struct api_error error;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        refused(REQUEST_CHAT, texts[i], 400, "");
    assert_int_not_equal(parse(REQUEST_CHAT, "{\n\"a\": tru}", &request, &error), STATUS_OK);
    assert_non_null(strstr(error.fault.text, "line 2"));
    openai_request_free(&request);
}

static void test_bounds_before_building(void **state)
{
    size_t n = 4 * 1024 * 1024;
    char *text = malloc(n + 1);
    struct openai_request request = {0};
    struct api_error error;

    (void)state;
    assert_non_null(text);
    memset(text, '[', n);
    assert_int_equal(openai_request_parse(REQUEST_CHAT, text, n, &request, &error), STATUS_LIMIT);
    assert_int_equal(api_error_http(&error), 400);
    openai_request_free(&request);
    for (size_t i = 0; i + 1 < n; i += 2)
        memcpy(text + i, "1,", 2);
    text[0] = '[';
    assert_int_equal(openai_request_parse(REQUEST_CHAT, text, n, &request, &error), STATUS_LIMIT);
    openai_request_free(&request);
    /* brackets and commas inside of strings are text */
    (void)memcpy(text, "{" TEXT, strlen("{" TEXT));
    memset(text + strlen("{" TEXT) - 1, '[', n - strlen("{" TEXT) - 1);
    memcpy(text + n - 2, "\"}", 2);
    assert_int_equal(openai_request_parse(REQUEST_TEXT, text, n, &request, &error), STATUS_OK);
    openai_request_free(&request);
    free(text);
}

static void test_no_memory_anywhere(void **state)
{
    static const char json[] = "{" CHAT ",\"stop\":[\"a\"],\"tools\":[{}]}";
    struct openai_request request;
    struct api_error error;
    enum status status = STATUS_NO_MEMORY;

    (void)state;
    for (unsigned long i = 1; i < 400 && status != STATUS_OK; i++) {
        mem_fail_after(i);
        status = parse(REQUEST_CHAT, json, &request, &error);
        mem_fail_after(0);
        assert_true(status == STATUS_OK || error.fault.text[0] != '\0');
        openai_request_free(&request);
    }
    assert_int_equal(status, STATUS_OK);
}

/* ---------------------------------------------------------------- answers */

static const struct openai_answer chat = {
    .kind = REQUEST_CHAT, .id = "chatcmpl-1", .model = "tiny", .created = 5, .seed = 9};
static const struct openai_answer text = {
    .kind = REQUEST_TEXT, .id = "cmpl-1", .model = "tiny", .created = 5, .seed = 9};
static const struct request_result result = {.end = REQUEST_END_LENGTH,
                                             .n_prompt = 3,
                                             .n_generated = 5,
                                             .n_stages = 2,
                                             .prefill_seconds = 0.5,
                                             .decode_seconds = 2};

static void equals(json_t *value, const char *wanted)
{
    struct buffer out = {0};

    assert_non_null(value);
    assert_int_equal(json_write(value, &out), STATUS_OK);
    assert_string_equal((const char *)out.data, wanted);
    buffer_free(&out);
    json_decref(value);
}

static void test_chunks(void **state)
{
    (void)state;
    equals(openai_chunk_start(&chat),
           "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":5,\"model\":"
           "\"tiny\","
           "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
           "\"logprobs\":null,\"finish_reason\":null}]}");
    assert_null(openai_chunk_start(&text));
    equals(openai_chunk_text(&chat, "a\"", 2),
           "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":5,\"model\":"
           "\"tiny\","
           "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\\\"\"},\"logprobs\":null,"
           "\"finish_reason\":null}]}");
    equals(openai_chunk_text(&text, "a", 1),
           "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":5,\"model\":\"tiny\","
           "\"choices\":[{\"index\":0,\"text\":\"a\",\"logprobs\":null,\"finish_reason\":null}]}");
    equals(
        openai_chunk_end(&text, &result),
        "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":5,\"model\":\"tiny\","
        "\"choices\":[{\"index\":0,\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"length\"}],"
        "\"skein\":{\"stages\":2,\"prefill_seconds\":0.5,\"decode_seconds\":2.0,"
        "\"tokens_per_second\":2.0,\"seed\":9}}");
    equals(openai_chunk_usage(&chat, &result),
           "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":5,\"model\":"
           "\"tiny\","
           "\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5,\"total_tokens\":"
           "8}}");
}

static void test_replies(void **state)
{
    struct request_result none = {.end = REQUEST_END_STOP};

    (void)state;
    equals(openai_reply(&chat, "hi", 2, &result),
           "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":5,\"model\":\"tiny\","
           "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"hi\","
           "\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"length\"}],"
           "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5,\"total_tokens\":8},"
           "\"skein\":{\"stages\":2,\"prefill_seconds\":0.5,\"decode_seconds\":2.0,"
           "\"tokens_per_second\":2.0,\"seed\":9}}");
    equals(openai_reply(&text, "", 0, &none),
           "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":5,\"model\":\"tiny\","
           "\"choices\":[{\"index\":0,\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"stop\"}],"
           "\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0},"
           "\"skein\":{\"stages\":0,\"prefill_seconds\":0.0,\"decode_seconds\":0.0,"
           "\"tokens_per_second\":0.0,\"seed\":9}}");
}

static void *counted_malloc(size_t size)
{
    return mem_zeroed(1, size);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat_with_everything),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_seed_zero_is_a_seed),
        cmocka_unit_test(test_text_forms),
        cmocka_unit_test(test_messages_become_plain),
        cmocka_unit_test(test_wrong_messages),
        cmocka_unit_test(test_fields_that_matter_are_refused),
        cmocka_unit_test(test_sampling_extras),
        cmocka_unit_test(test_sampling_extras_are_checked),
        cmocka_unit_test(test_tool_choice_none_drops_tools),
        cmocka_unit_test(test_broken_json),
        cmocka_unit_test(test_bounds_before_building),
        cmocka_unit_test(test_no_memory_anywhere),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_replies),
    };

    json_set_alloc_funcs(counted_malloc, mem_free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
