/* What tests of OpenAI bodies say of one: taken, or refused by name. */
#include "tests/unit/node/openai_body.h"

#include <string.h>

enum status parse(enum request_kind kind, const char *json, struct openai_request *out,
                  struct api_error *error)
{
    memset(out, 0, sizeof *out);
    memset(error, 0, sizeof *error);
    return openai_request_parse(kind, json, strlen(json), out, error);
}

void accepted(enum request_kind kind, const char *json, struct openai_request *out)
{
    struct api_error error;

    if (parse(kind, json, out, &error) != STATUS_OK)
        fail_msg("%s: %s", json, error.fault.text);
}

void refused(enum request_kind kind, const char *json, int http, const char *param)
{
    struct openai_request request;
    struct api_error error;

    if (parse(kind, json, &request, &error) == STATUS_OK)
        fail_msg("taken: %s", json);
    if (api_error_http(&error) != http || strcmp(error.param, param) != 0)
        fail_msg("%s: %d \"%s\": %s", json, api_error_http(&error), error.param, error.fault.text);
    assert_true(error.fault.text[0] != '\0');
    openai_request_free(&request);
}
