/* Any bytes as the body of POST /v1/chat/completions and /v1/completions. links: skein_node
 *
 * The first byte chooses the endpoint. A body that was refused says why and with a client's error;
 * one that was taken names a model, keeps every bound, and its chat body is JSON again.
 *
 * Memory: at most 64 MiB. */
#include <stdlib.h>
#include <string.h>

#include "node/api/openai.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_refusal(const struct api_error *error)
{
    json_t *json = api_error_json(error);
    int http = api_error_http(error);

    if (!json || http < 400 || http >= 500 || !error->fault.text[0])
        abort();
    json_decref(json);
}

static void check_request(const struct openai_request *request)
{
    const struct request_spec *spec = &request->spec;
    json_t *body;

    if (!spec->model[0] || !memchr(spec->model, 0, sizeof spec->model))
        abort();
    if (spec->n_stops > PROTO_MAX_STOPS || request->body.len > PROTO_MAX_PROMPT_BYTES)
        abort();
    for (uint32_t i = 0; i < spec->n_stops; i++)
        if (!spec->stops[i][0] || !memchr(spec->stops[i], 0, sizeof spec->stops[i]))
            abort();
    if (!(spec->temperature >= 0 && spec->temperature <= 2 && spec->top_p >= 0 &&
          spec->top_p <= 1 && spec->min_p >= 0 && spec->min_p <= 1 && spec->repeat_penalty > 0))
        abort();
    if (!(spec->typical_p >= 0 && spec->typical_p <= 1 && spec->frequency_penalty >= -2 &&
          spec->frequency_penalty <= 2 && spec->presence_penalty >= -2 &&
          spec->presence_penalty <= 2 && spec->dry_multiplier >= 0 && spec->xtc_probability >= 0 &&
          spec->xtc_probability <= 1 && spec->dry_last_n <= PROTO_MAX_HISTORY &&
          spec->repeat_last_n <= PROTO_MAX_HISTORY && spec->n_biases <= PROTO_MAX_BIASES))
        abort();
    for (uint32_t i = 0; i < spec->n_biases; i++)
        if (!(spec->biases[i].bias >= -100 && spec->biases[i].bias <= 100))
            abort();
    if (spec->kind != REQUEST_CHAT)
        return;
    body = json_loadb((const char *)request->body.data, request->body.len, 0, NULL);
    if (!body || json_array_size(json_object_get(body, "messages")) == 0)
        abort();
    json_decref(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct openai_request request = {.stream = false};
    struct api_error error;
    enum request_kind kind;

    if (size == 0)
        return 0;
    kind = data[0] & 1 ? REQUEST_TEXT : REQUEST_CHAT;
    memset(&error, 0, sizeof error);
    if (openai_request_parse(kind, (const char *)data + 1, size - 1, &request, &error) == STATUS_OK)
        check_request(&request);
    else
        check_refusal(&error);
    openai_request_free(&request);
    return 0;
}
