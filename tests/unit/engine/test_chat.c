/* Conversations into prompts: the model's own template, ChatML where its marks are known, errors.
 */
#include "tests/unit/engine/text_load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static const char hello[] = "[{\"role\": \"user\", \"content\": \"Hello\"}]";

static void renders(const struct text *text, const struct chat_request *request,
                    const char *expected)
{
    struct buffer out = {0};
    struct fault fault = {0};
    if (text_chat_render(text, request, &out, &fault) != STATUS_OK) {
        fail_msg("%s", fault.text);
    }
    assert_string_equal((const char *)out.data, expected);
    buffer_free(&out);
}

static void fails(const struct text *text, const struct chat_request *request, enum status wanted,
                  const char *words)
{
    struct buffer out = {0};
    struct fault fault = {0};
    assert_int_equal(text_chat_render(text, request, &out, &fault), wanted);
    assert_non_null(strstr(fault.text, words));
    assert_int_equal(out.len, 0);
}

static void the_models_own_template_is_used(void **state)
{
    struct loaded l;
    (void)state;
    loaded_demo(&l);
    struct chat_request request = {.messages_json = hello};
    renders(l.text, &request, "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n");
    request.no_generation_prompt = true;
    renders(l.text, &request, "<|im_start|>user\nHello<|im_end|>\n");
    loaded_free(&l);
}

static void templates_see_all_variables(void **state)
{
    struct loaded l;
    struct chat_request request = {
        .messages_json = hello,
        .tools_json = "[{\"b\": 1, \"a\": [2.0]}]",
        .kwargs_json = "{\"enable_thinking\": false, \"documents\": [7]}",
        .template_text =
            "{{ bos_token }}|{{ eos_token }}|{{ tools | tojson }}|{{ enable_thinking }}|"
            "{{ documents }}|{{ add_generation_prompt }}|{{ strftime_now('%Y-%m-%d') }}",
        .now_unix_seconds = 86400,
    };
    (void)state;
    loaded_demo(&l);
    renders(l.text, &request,
            "<|endoftext|>|<|im_end|>|[{\"b\": 1, \"a\": [2.0]}]|False|[7]|True|1970-01-02");
    loaded_free(&l);
    request.kwargs_json = NULL;
    request.tools_json = NULL;
    renders(NULL, &request, "||null||None|True|1970-01-02");
}

static void chatml_stands_in_where_its_marks_are_known(void **state)
{
    static const char *const marked[] = {"a", "<|im_start|>", "<|im_end|>"};
    struct chat_request request = {.messages_json = hello};
    struct loaded l = {0};
    (void)state;
    make_text(&l.maker, "tokenizer.ggml.model", "llama");
    make_texts(&l.maker, "tokenizer.ggml.tokens", marked, 3);
    assert_int_equal(loaded_from_maker(&l, NULL), STATUS_OK);
    renders(l.text, &request, "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n");
    loaded_free(&l);
    l = (struct loaded){0};
    make_text(&l.maker, "tokenizer.ggml.model", "llama");
    make_texts(&l.maker, "tokenizer.ggml.tokens", marked, 1);
    assert_int_equal(loaded_from_maker(&l, NULL), STATUS_OK);
    fails(l.text, &request, STATUS_UNSUPPORTED, "no chat template");
    loaded_free(&l);
    fails(NULL, &request, STATUS_UNSUPPORTED, "no chat template");
}

static void messages_of_a_wrong_shape_are_refused(void **state)
{
    struct chat_request request = {.template_text = "x"};
    (void)state;
    fails(NULL, &request, STATUS_INVALID, "missing");
    request.messages_json = "[";
    fails(NULL, &request, STATUS_INVALID, "JSON");
    request.messages_json = "{}";
    fails(NULL, &request, STATUS_INVALID, "array");
    request.messages_json = "[1]";
    fails(NULL, &request, STATUS_INVALID, "messages[0]");
    request.messages_json = "[{\"role\": \"user\"}, {\"role\": 1}]";
    fails(NULL, &request, STATUS_INVALID, "messages[1].role");
    request.messages_json = hello;
    request.tools_json = "[";
    fails(NULL, &request, STATUS_INVALID, "tools");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_models_own_template_is_used),
        cmocka_unit_test(templates_see_all_variables),
        cmocka_unit_test(chatml_stands_in_where_its_marks_are_known),
        cmocka_unit_test(messages_of_a_wrong_shape_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
