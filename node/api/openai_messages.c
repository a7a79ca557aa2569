/* A chat's messages, checked and made plain for templates.
 *
 * Templates expect `content` to be a text, while clients may send an array of parts; text parts are
 * joined, any other part (images, audio, files) is refused by name. "developer" is what OpenAI now
 * calls "system"; templates know only the latter. */
#include "node/api/openai.h"

#include <stdio.h>
#include <string.h>

static enum status wrong(struct api_error *error, const char *param, const char *wanted)
{
    return api_error_set(error, STATUS_INVALID, param, "invalid_value", "%s must be %s", param,
                         wanted);
}

static enum status part_add(const json_t *part, const char *path, size_t i, struct buffer *text,
                            struct api_error *error)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *words = json_object_get(part, "text");
    char param[80];

    (void)snprintf(param, sizeof param, "%s[%zu]", path, i);
    if (!type)
        return wrong(error, param, "an object with a type");
    if (strcmp(type, "text") != 0)
        return api_error_set(error, STATUS_UNSUPPORTED, param, "unsupported_parameter",
                             "%s: parts of type \"%.40s\" are not supported, only text", param,
                             type);
    if (!json_is_string(words))
        return wrong(error, param, "a part with a text");
    if (buffer_put(text, json_string_value(words), json_string_length(words)) != STATUS_OK)
        return api_error_set(error, STATUS_NO_MEMORY, param, NULL, "no memory for the message");
    return STATUS_OK;
}

/* The content of one message as a new JSON text (or null). */
static enum status content_plain(const json_t *content, const char *path, json_t **out,
                                 struct api_error *error)
{
    struct buffer text = {0};
    enum status status = STATUS_OK;

    if (!content || json_is_null(content)) {
        *out = json_null();
        return STATUS_OK;
    }
    if (json_is_string(content)) {
        *out = json_incref((json_t *)(uintptr_t)content);
        return STATUS_OK;
    }
    if (!json_is_array(content))
        return wrong(error, path, "a text or an array of parts");
    for (size_t i = 0; i < json_array_size(content) && status == STATUS_OK; i++)
        status = part_add(json_array_get(content, i), path, i, &text, error);
    if (status == STATUS_OK) {
        *out = json_stringn_nocheck(text.data ? (const char *)text.data : "", text.len);
        if (!*out)
            status =
                api_error_set(error, STATUS_NO_MEMORY, path, NULL, "no memory for the message");
    }
    buffer_free(&text);
    return status;
}

static enum status role_check(const json_t *message, size_t i, const char **out,
                              struct api_error *error)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
    const char *role = json_string_value(json_object_get(message, "role"));
    char param[48];

    (void)snprintf(param, sizeof param, "messages[%zu].role", i);
    for (size_t k = 0; role && k < COUNT_OF(roles); k++)
        if (strcmp(role, roles[k]) == 0) {
            *out = strcmp(role, "developer") == 0 ? "system" : role;
            return STATUS_OK;
        }
    return wrong(error, param, "one of system, developer, user, assistant, tool");
}

static enum status message_plain(const json_t *message, size_t i, json_t *list,
                                 struct api_error *error)
{
    json_t *copy = NULL, *content = NULL;
    const char *role = NULL;
    char path[48];
    enum status status;

    (void)snprintf(path, sizeof path, "messages[%zu]", i);
    if (!json_is_object(message))
        return wrong(error, path, "an object");
    status = role_check(message, i, &role, error);
    if (status != STATUS_OK)
        return status;
    (void)snprintf(path, sizeof path, "messages[%zu].content", i);
    status = content_plain(json_object_get(message, "content"), path, &content, error);
    if (status != STATUS_OK)
        return status;
    if (json_is_null(content) && !json_is_array(json_object_get(message, "tool_calls"))) {
        json_decref(content);
        return wrong(error, path, "a text");
    }
    if (json_is_null(content)) { /* a call of tools; templates join the content to text */
        json_decref(content);
        content = json_string("");
    }
    copy = json_copy((json_t *)(uintptr_t)message);
    if (!copy || json_object_set_new(copy, "role", json_string(role)) != 0 || !content ||
        json_object_set(copy, "content", content) != 0 || json_array_append(list, copy) != 0)
        status = api_error_set(error, STATUS_NO_MEMORY, path, NULL, "no memory for the message");
    json_decref(content);
    json_decref(copy);
    return status;
}

enum status openai_messages(const json_t *messages, json_t **out, struct api_error *error)
{
    json_t *list = json_array();
    enum status status = STATUS_OK;

    if (!list)
        return api_error_set(error, STATUS_NO_MEMORY, "messages", NULL,
                             "no memory for the messages");
    for (size_t i = 0; i < json_array_size(messages) && status == STATUS_OK; i++)
        status = message_plain(json_array_get(messages, i), i, list, error);
    if (status == STATUS_OK)
        *out = list;
    else
        json_decref(list);
    return status;
}
