/* A conversation into the prompt text that the model was trained on: its own template, rendered
 * with the variables that Hugging Face's apply_chat_template gives.
 *
 * A model without a template gets ChatML where its vocabulary has that format's marks: such models
 * were trained on it. For any other, a guess would silently give worse answers, so it is an error
 * that says what to do. */
#include "engine/text/jinja.h"
#include "engine/text/vocab.h"

#include <jansson.h>
#include <string.h>
#include <time.h>

static const char chatml[] = "{% for message in messages %}"
                             "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
                             "'<|im_end|>' + '\\n' }}"
                             "{% endfor %}"
                             "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
                             "{% endif %}";

static enum status template_choose(const struct text *text, const struct chat_request *request,
                                   struct gguf_text *out, struct fault *fault)
{
    if (request->template_text != NULL) {
        *out = (struct gguf_text){request->template_text, strlen(request->template_text)};
        return STATUS_OK;
    }
    if (text != NULL && text->chat_template.data != NULL) {
        *out = text->chat_template;
        return STATUS_OK;
    }
    if (text != NULL && text->map.size > 0 &&
        string_map_find(&text->map, text->tokens, "<|im_start|>", 12) != TOKEN_NONE) {
        *out = (struct gguf_text){chatml, sizeof chatml - 1};
        return STATUS_OK;
    }
    return fault_set(fault, STATUS_UNSUPPORTED,
                     "the model has no chat template; use the completions interface, or give a "
                     "template file");
}

/* The messages' shape is the template's business but for this: a list of objects with roles. */
static enum status messages_check(const char *json, struct fault *fault)
{
    json_error_t error;
    json_t *messages = json == NULL ? NULL : json_loads(json, JSON_ALLOW_NUL, &error);
    if (messages == NULL) {
        return json == NULL
                   ? fault_set(fault, STATUS_INVALID, "messages are missing")
                   : fault_set(fault, STATUS_INVALID, "messages: not valid JSON: line %d: %.200s",
                               error.line, error.text);
    }
    enum status status = STATUS_OK;
    if (!json_is_array(messages)) {
        status = fault_set(fault, STATUS_INVALID, "messages must be an array");
    }
    for (size_t i = 0; status == STATUS_OK && i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        if (!json_is_object(message)) {
            status = fault_set(fault, STATUS_INVALID, "messages[%zu] must be an object", i);
        } else if (!json_is_string(json_object_get(message, "role"))) {
            status = fault_set(fault, STATUS_INVALID, "messages[%zu].role must be a string", i);
        }
    }
    json_decref(messages);
    return status;
}

static struct jinja_variable token_variable(const struct text *text, const char *name, uint32_t id)
{
    bool known = text != NULL && id < text->n_tokens;
    return (struct jinja_variable){.name = name,
                                   .text = known ? text->tokens[id].data : "",
                                   .text_bytes = known ? text->tokens[id].n_bytes : 0};
}

enum status text_chat_render(const struct text *text, const struct chat_request *request,
                             struct buffer *out, struct fault *fault)
{
    struct gguf_text template = {NULL, 0};
    enum status status = messages_check(request->messages_json, fault);
    if (status == STATUS_OK) {
        status = template_choose(text, request, &template, fault);
    }
    if (status != STATUS_OK) {
        return status;
    }
    const struct jinja_variable variables[] = {
        {.name = "messages", .json = request->messages_json},
        {.name = "tools", .json = request->tools_json},
        {.name = "documents"},
        {.name = "add_generation_prompt", .json = request->no_generation_prompt ? "false" : "true"},
        token_variable(text, "bos_token", text != NULL ? text->bos : TOKEN_NONE),
        token_variable(text, "eos_token", text != NULL ? text->eos : TOKEN_NONE),
    };
    return jinja_render(template.data, template.n_bytes, variables, COUNT_OF(variables),
                        request->kwargs_json, request->now_unix_seconds, NULL, out, fault);
}

enum status chat_render(const struct model *model, const struct chat_request *request,
                        struct buffer *out, struct fault *fault)
{
    return text_chat_render(model != NULL ? model_text(model) : NULL, request, out, fault);
}

int64_t chat_local_seconds(int64_t unix_seconds)
{
    time_t moment = (time_t)unix_seconds;
    struct tm tm;

    return localtime_r(&moment, &tm) != NULL ? (int64_t)timegm(&tm) : unix_seconds;
}
