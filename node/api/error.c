/* Errors in the shape that OpenAI's clients read: {"error": {message, type, param, code}}, with the
 * HTTP status of our own status. The sentence is the same that the command line shows. */
#include "node/api/http.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum status api_error_set(struct api_error *error, enum status status, const char *param,
                          const char *code, const char *format, ...)
{
    va_list args;

    memset(error, 0, sizeof *error);
    error->fault.status = status;
    error->code = code;
    if (param)
        (void)snprintf(error->param, sizeof error->param, "%s", param);
    va_start(args, format);
    (void)vsnprintf(error->fault.text, sizeof error->fault.text, format, args);
    va_end(args);
    return status;
}

int api_error_http(const struct api_error *error)
{
    return error->http ? error->http : status_http(error->fault.status);
}

static const char *error_type(int http)
{
    if (http == 401)
        return "authentication_error";
    if (http == 403)
        return "permission_error";
    return http < 500 ? "invalid_request_error" : "server_error";
}

/* Codes that OpenAI's clients know; every other status is its own name in small letters. */
static const struct {
    enum status status;
    const char *code;
} known_codes[] = {
    {STATUS_CONTEXT, "context_length_exceeded"}, {STATUS_AUTH, "invalid_api_key"},
    {STATUS_NOT_FOUND, "model_not_found"},       {STATUS_BUSY, "overloaded"},
    {STATUS_INVALID, "invalid_value"},           {STATUS_FORMAT, "invalid_json"},
};

static const char *error_code(const struct api_error *error, char out[static 32])
{
    enum status status = error->fault.status;
    size_t i = 0;

    if (error->code)
        return error->code;
    if (status == STATUS_CONTEXT || status == STATUS_AUTH || status == STATUS_BUSY)
        for (size_t k = 0; k < COUNT_OF(known_codes); k++)
            if (known_codes[k].status == status)
                return known_codes[k].code;
    for (const char *name = status_name(status); name[i] && i < 31; i++)
        out[i] = (char)tolower((unsigned char)name[i]);
    out[i] = '\0';
    return out;
}

enum status api_error_status(const char *code, int http)
{
    for (size_t i = 0; code && i < COUNT_OF(known_codes); i++)
        if (strcmp(known_codes[i].code, code) == 0)
            return known_codes[i].status;
    for (unsigned s = 0; code && s < STATUS_COUNT; s++)
        if (strcasecmp(status_name((enum status)s), code) == 0)
            return (enum status)s;
    for (unsigned s = 1; s < STATUS_COUNT; s++)
        if (status_http((enum status)s) == http && s != STATUS_NO_MEMORY)
            return (enum status)s;
    return http < 500 ? STATUS_INVALID : STATUS_INTERNAL;
}

/* The nodes' sentences begin with the field that they are about: "tools: …", "logit_bias names …".
 */
static bool names_field(const char *text, const char *field)
{
    size_t n = strlen(field);

    return strncmp(text, field, n) == 0 && (text[n] == ':' || text[n] == ' ');
}

void api_error_place(struct api_error *error, bool chat)
{
    static const char *const fields[] = {
        "tools",          "logit_bias",    "messages",   "temperature",       "top_p",
        "repeat_penalty", "repeat_last_n", "typical_p",  "frequency_penalty", "presence_penalty",
        "dry_multiplier", "dry_base",      "dry_last_n", "xtc_probability",   "xtc_threshold"};

    if (error->fault.status == STATUS_NOT_FOUND) {
        api_error_no_model(error);
        return;
    }
    if (error->fault.status == STATUS_CONTEXT)
        (void)snprintf(error->param, sizeof error->param, "%s", chat ? "messages" : "prompt");
    for (size_t i = 0; !*error->param && i < COUNT_OF(fields); i++)
        if (names_field(error->fault.text, fields[i]))
            (void)snprintf(error->param, sizeof error->param, "%s", fields[i]);
    if (*error->param && error->fault.status == STATUS_UNSUPPORTED)
        error->code = "unsupported_parameter";
    if (*error->param && error->fault.status == STATUS_INVALID)
        error->code = "invalid_value";
}

void api_error_no_model(struct api_error *error)
{
    (void)snprintf(error->param, sizeof error->param, "model");
    error->code = "model_not_found";
}

json_t *json_text(const char *text, size_t n_bytes)
{
    json_t *value = json_stringn(text, n_bytes);
    char *plain;

    if (value)
        return value;
    plain = mem_text_n(text, n_bytes);
    for (size_t i = 0; plain && i < n_bytes; i++)
        if ((unsigned char)plain[i] >= 0x80)
            plain[i] = '?';
    value = plain ? json_stringn(plain, n_bytes) : NULL;
    mem_free(plain);
    return value;
}

json_t *api_error_json(const struct api_error *error)
{
    const char *text = *error->fault.text ? error->fault.text : status_words(error->fault.status);
    char word[32];

    return json_pack("{s:{s:o, s:s, s:o, s:s}}", "error", "message", json_text(text, strlen(text)),
                     "type", error_type(api_error_http(error)), "param",
                     *error->param ? json_text(error->param, strlen(error->param)) : json_null(),
                     "code", error_code(error, word));
}
