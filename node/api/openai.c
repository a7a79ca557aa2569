/* OpenAI's requests into a request_spec and a prompt body.
 *
 * One table names every field we know: each is taken, harmless (it changes bookkeeping, never the
 * answer), or allowed only at the value that changes nothing ("n": 1, "logprobs": false). Anything
 * else is refused by name, a misspelt field too: an option that is silently not honoured is a wrong
 * answer that looks right. null counts as absent everywhere.
 *
 * A sampling setting that the request does not have stays open, and the model's makers choose it at
 * the head (struct request_spec).
 *
 * Happy path: bounded parse, one pass over the table's fields, then messages or prompt into the
 * body that travels to the head. Errors set `param` to the path of the field, e.g.
 * messages[2].role.
 *
 * Source: OpenAI API reference, chat/create and completions/create (2025). top_k, min_p, typical_p,
 * repeat_penalty, repeat_last_n, dry_*, xtc_*, ignore_eos, chat_template_kwargs are the extensions
 * that other local servers share. */
#include "node/api/openai.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPENAI_MAX_MESSAGES = 10000, OPENAI_TEXT_DEFAULT_TOKENS = 16 };

#define OPENAI_XTC_THRESHOLD 0.1f

struct parse {
    enum request_kind kind;
    struct openai_request *request;
    struct api_error *error;
    const json_t *messages, *prompt, *tools, *kwargs;
    bool tools_off;
};

struct field {
    const char *name;
    enum status (*take)(struct parse *p, const char *name, const json_t *value);
    bool chat, text; /* where it exists */
};

static enum status refuse(struct parse *p, const char *name, const char *why)
{
    return api_error_set(p->error, STATUS_UNSUPPORTED, name, "unsupported_parameter", "%s: %s",
                         name, why);
}

static enum status wrong(struct parse *p, const char *name, const char *wanted)
{
    return api_error_set(p->error, STATUS_INVALID, name, "invalid_value", "%s must be %s", name,
                         wanted);
}

/* ---------------------------------------------------------------- numbers */

static enum status take_ignored(struct parse *p, const char *name, const json_t *value)
{
    (void)p;
    (void)name;
    (void)value;
    return STATUS_OK;
}

static enum status number_in(struct parse *p, const char *name, const json_t *value, double min,
                             double max, float *out)
{
    char wanted[80];
    double v = json_number_value(value);

    (void)snprintf(wanted, sizeof wanted, "a number from %g to %g", min, max);
    if (!json_is_number(value) || !(v >= min && v <= max))
        return wrong(p, name, wanted);
    *out = (float)v;
    return STATUS_OK;
}

static enum status integer_in(struct parse *p, const char *name, const json_t *value,
                              json_int_t min, json_int_t max, uint32_t *out)
{
    char wanted[80];
    json_int_t v = json_integer_value(value);

    (void)snprintf(wanted, sizeof wanted, "a whole number from %lld to %lld", (long long)min,
                   (long long)max);
    if (!json_is_integer(value) || v < min || v > max)
        return wrong(p, name, wanted);
    *out = (uint32_t)(v < 0 ? 0 : v);
    return STATUS_OK;
}

/* Numbers that go into the spec as they are. */
#define SPEC(field) offsetof(struct request_spec, field)
static const struct number {
    const char *name;
    size_t at;
    double min, max;
    uint32_t setting; /* which the model may no longer choose; 0: it never does */
} numbers[] = {
    {"temperature", SPEC(temperature), 0, 2, SAMPLE_TEMPERATURE},
    {"top_p", SPEC(top_p), 0, 1, SAMPLE_TOP_P},
    {"min_p", SPEC(min_p), 0, 1, SAMPLE_MIN_P},
    {"typical_p", SPEC(typical_p), 0, 1, SAMPLE_TYPICAL_P},
    {"repeat_penalty", SPEC(repeat_penalty), 0.01, 10, SAMPLE_REPEAT_PENALTY},
    {"repetition_penalty", SPEC(repeat_penalty), 0.01, 10, SAMPLE_REPEAT_PENALTY},
    {"frequency_penalty", SPEC(frequency_penalty), -2, 2, 0},
    {"presence_penalty", SPEC(presence_penalty), -2, 2, 0},
    {"dry_multiplier", SPEC(dry_multiplier), 0, 100, 0},
    {"dry_base", SPEC(dry_base), 0, 100, 0},
    {"xtc_probability", SPEC(xtc_probability), 0, 1, SAMPLE_XTC_PROBABILITY},
    {"xtc_threshold", SPEC(xtc_threshold), 0, 1, SAMPLE_XTC_THRESHOLD},
};

static void setting_said(struct parse *p, uint32_t setting)
{
    p->request->spec.open_settings &= ~setting;
}

static enum status take_number(struct parse *p, const char *name, const json_t *value)
{
    const struct number *number = numbers;
    float v = 0;
    enum status status;

    while (strcmp(number->name, name) != 0)
        number++;
    status = number_in(p, name, value, number->min, number->max, &v);
    if (status != STATUS_OK)
        return status;
    memcpy((char *)&p->request->spec + number->at, &v, sizeof v);
    setting_said(p, number->setting);
    return STATUS_OK;
}

static enum status take_repeat_last_n(struct parse *p, const char *name, const json_t *value)
{
    setting_said(p, SAMPLE_REPEAT_LAST_N);
    return integer_in(p, name, value, 0, PROTO_MAX_HISTORY, &p->request->spec.repeat_last_n);
}

/* -1 is what several servers call "as far as possible". */
static enum status take_dry_last_n(struct parse *p, const char *name, const json_t *value)
{
    return integer_in(p, name, value, -1, PROTO_MAX_HISTORY, &p->request->spec.dry_last_n);
}

static enum status take_dry_allowed_length(struct parse *p, const char *name, const json_t *value)
{
    return integer_in(p, name, value, 0, 1 << 20, &p->request->spec.dry_allowed_length);
}

/* The id of a token as JSON's member names have it: decimal digits and nothing else. */
static bool token_id(const char *text, uint32_t *out)
{
    uint64_t id = 0;
    size_t n = strlen(text);

    if (n == 0 || n > 10)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        id = id * 10 + (uint64_t)(text[i] - '0');
    }
    *out = (uint32_t)id;
    return id <= UINT32_MAX;
}

static enum status take_logit_bias(struct parse *p, const char *name, const json_t *value)
{
    struct request_spec *spec = &p->request->spec;
    char wanted[80], path[32];
    const char *key;
    json_t *item;

    (void)snprintf(wanted, sizeof wanted, "an object of at most %d token ids, each with a number",
                   PROTO_MAX_BIASES);
    if (!json_is_object(value) || json_object_size(value) > PROTO_MAX_BIASES)
        return wrong(p, name, wanted);
    spec->n_biases = 0;
    json_object_foreach((json_t *)(uintptr_t)value, key, item)
    {
        struct token_bias *bias = &spec->biases[spec->n_biases];
        enum status status;

        if (!token_id(key, &bias->id))
            return wrong(p, name, wanted);
        (void)snprintf(path, sizeof path, "logit_bias.%u", bias->id);
        status = number_in(p, path, item, -100, 100, &bias->bias);
        if (status != STATUS_OK)
            return status;
        spec->n_biases++;
    }
    return STATUS_OK;
}

/* -1 is what several servers call "off". */
static enum status take_top_k(struct parse *p, const char *name, const json_t *value)
{
    setting_said(p, SAMPLE_TOP_K);
    return integer_in(p, name, value, -1, 1 << 20, &p->request->spec.top_k);
}

static enum status take_max_tokens(struct parse *p, const char *name, const json_t *value)
{
    return integer_in(p, name, value, 1, 1 << 30, &p->request->spec.max_tokens);
}

static enum status take_seed(struct parse *p, const char *name, const json_t *value)
{
    uint64_t seed = (uint64_t)json_integer_value(value);
    char *end = NULL;

    if (json_is_string(value)) {
        const char *text = json_string_value(value);

        errno = 0;
        seed = strtoull(text, &end, 10);
        if (*text < '0' || *text > '9' || *end || errno)
            return wrong(p, name,
                         "a whole number from -9223372036854775808 to "
                         "18446744073709551615");
    } else if (!json_is_integer(value)) {
        return wrong(p, name, "a whole number");
    }
    p->request->spec.seed = seed ? seed : OPENAI_SEED_FOR_ZERO;
    return STATUS_OK;
}

static enum status take_one(struct parse *p, const char *name, const json_t *value)
{
    if (!json_is_integer(value))
        return wrong(p, name, "a whole number");
    return json_integer_value(value) == 1 ? STATUS_OK
                                          : refuse(p, name, "only 1 answer per request");
}

/* ---------------------------------------------------------------- switches and texts */

static enum status flag(struct parse *p, const char *name, const json_t *value, bool *out)
{
    if (!json_is_boolean(value))
        return wrong(p, name, "true or false");
    *out = json_is_true(value);
    return STATUS_OK;
}

static enum status take_stream(struct parse *p, const char *name, const json_t *value)
{
    return flag(p, name, value, &p->request->stream);
}

static enum status take_ignore_end(struct parse *p, const char *name, const json_t *value)
{
    return flag(p, name, value, &p->request->spec.ignore_end);
}

/* logprobs is a boolean for chats and a number, 0 included, for texts. */
static enum status take_logprobs(struct parse *p, const char *name, const json_t *value)
{
    if (p->kind == REQUEST_CHAT && !json_is_boolean(value))
        return wrong(p, name, "true or false");
    return json_is_false(value) ? STATUS_OK
                                : refuse(p, name, "log probabilities are not supported");
}

static enum status take_echo(struct parse *p, const char *name, const json_t *value)
{
    if (!json_is_boolean(value))
        return wrong(p, name, "true or false");
    return json_is_false(value) ? STATUS_OK : refuse(p, name, "not supported");
}

/* Anything but nothing: empty containers, empty strings and 0 change no answer. */
static enum status take_empty(struct parse *p, const char *name, const json_t *value)
{
    bool empty = (json_is_object(value) && json_object_size(value) == 0) ||
                 (json_is_array(value) && json_array_size(value) == 0) ||
                 (json_is_string(value) && json_string_length(value) == 0) ||
                 (json_is_integer(value) && json_integer_value(value) == 0);

    return empty ? STATUS_OK : refuse(p, name, "not supported");
}

static enum status take_stream_options(struct parse *p, const char *name, const json_t *value)
{
    const json_t *usage = json_object_get(value, "include_usage");

    if (!json_is_object(value))
        return wrong(p, name, "an object");
    if (!usage || json_is_null(usage))
        return STATUS_OK;
    return flag(p, "stream_options.include_usage", usage, &p->request->include_usage);
}

static enum status take_response_format(struct parse *p, const char *name, const json_t *value)
{
    const char *type = json_string_value(json_object_get(value, "type"));

    if (!type)
        return wrong(p, name, "an object with a type");
    return strcmp(type, "text") == 0 ? STATUS_OK
                                     : refuse(p, name, "only {\"type\": \"text\"} is supported");
}

static enum status take_tool_choice(struct parse *p, const char *name, const json_t *value)
{
    const char *word = json_string_value(value);

    p->tools_off = word && strcmp(word, "none") == 0;
    if (p->tools_off || (word && strcmp(word, "auto") == 0))
        return STATUS_OK;
    return refuse(p, name, "a tool cannot be forced; use \"auto\" or \"none\"");
}

static enum status take_modalities(struct parse *p, const char *name, const json_t *value)
{
    const char *word = json_string_value(json_array_get(value, 0));

    if (!json_is_array(value))
        return wrong(p, name, "an array");
    return json_array_size(value) == 1 && word && strcmp(word, "text") == 0
               ? STATUS_OK
               : refuse(p, name, "only text is supported");
}

static enum status take_model(struct parse *p, const char *name, const json_t *value)
{
    struct request_spec *spec = &p->request->spec;
    size_t n = json_string_length(value);

    if (!json_is_string(value) || n == 0 || n >= sizeof spec->model)
        return wrong(p, name, "the name of a model; see GET /v1/models");
    memcpy(spec->model, json_string_value(value), n + 1);
    return STATUS_OK;
}

static enum status stop_add(struct parse *p, const char *name, const json_t *value)
{
    struct request_spec *spec = &p->request->spec;
    size_t n = json_string_length(value);
    char wanted[64];

    (void)snprintf(wanted, sizeof wanted, "a text of 1 to %d bytes", PROTO_MAX_STOP_BYTES - 1);
    if (!json_is_string(value) || n == 0 || n >= PROTO_MAX_STOP_BYTES)
        return wrong(p, name, wanted);
    memcpy(spec->stops[spec->n_stops++], json_string_value(value), n + 1);
    return STATUS_OK;
}

static enum status take_stop(struct parse *p, const char *name, const json_t *value)
{
    char path[32], wanted[80];

    (void)snprintf(wanted, sizeof wanted, "a text or an array of at most %d texts",
                   PROTO_MAX_STOPS);
    if (json_is_string(value))
        return json_string_length(value) ? stop_add(p, name, value) : STATUS_OK;
    if (!json_is_array(value) || json_array_size(value) > PROTO_MAX_STOPS)
        return wrong(p, name, wanted);
    for (size_t i = 0; i < json_array_size(value); i++) {
        enum status status;
        (void)snprintf(path, sizeof path, "stop[%zu]", i);
        status = stop_add(p, path, json_array_get(value, i));
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static enum status take_tools(struct parse *p, const char *name, const json_t *value)
{
    if (!json_is_array(value))
        return wrong(p, name, "an array");
    for (size_t i = 0; i < json_array_size(value); i++)
        if (!json_is_object(json_array_get(value, i)))
            return wrong(p, name, "an array of objects");
    p->tools = json_array_size(value) ? value : NULL;
    return STATUS_OK;
}

static enum status take_kwargs(struct parse *p, const char *name, const json_t *value)
{
    if (!json_is_object(value))
        return wrong(p, name, "an object");
    p->kwargs = value;
    return STATUS_OK;
}

static enum status take_messages(struct parse *p, const char *name, const json_t *value)
{
    if (!json_is_array(value) || json_array_size(value) == 0 ||
        json_array_size(value) > OPENAI_MAX_MESSAGES)
        return wrong(p, name, "an array of messages, with at least one");
    p->messages = value;
    return STATUS_OK;
}

static enum status take_prompt(struct parse *p, const char *name, const json_t *value)
{
    if (json_is_array(value)) {
        if (json_array_size(value) != 1 || !json_is_string(json_array_get(value, 0)))
            return refuse(p, name, "only one text; several prompts or token ids are not supported");
        value = json_array_get(value, 0);
    }
    if (!json_is_string(value))
        return wrong(p, name, "a text");
    p->prompt = value;
    return STATUS_OK;
}

static const struct field fields[] = {
    {"model", take_model, true, true},
    {"messages", take_messages, true, false},
    {"prompt", take_prompt, false, true},
    {"stream", take_stream, true, true},
    {"stream_options", take_stream_options, true, true},
    {"max_tokens", take_max_tokens, true, true},
    {"max_completion_tokens", take_max_tokens, true, false},
    {"temperature", take_number, true, true},
    {"top_p", take_number, true, true},
    {"top_k", take_top_k, true, true},
    {"min_p", take_number, true, true},
    {"typical_p", take_number, true, true},
    {"repeat_penalty", take_number, true, true},
    {"repetition_penalty", take_number, true, true},
    {"repeat_last_n", take_repeat_last_n, true, true},
    {"frequency_penalty", take_number, true, true},
    {"presence_penalty", take_number, true, true},
    {"dry_multiplier", take_number, true, true},
    {"dry_base", take_number, true, true},
    {"dry_allowed_length", take_dry_allowed_length, true, true},
    {"dry_last_n", take_dry_last_n, true, true},
    {"xtc_probability", take_number, true, true},
    {"xtc_threshold", take_number, true, true},
    {"logit_bias", take_logit_bias, true, true},
    {"seed", take_seed, true, true},
    {"stop", take_stop, true, true},
    {"ignore_eos", take_ignore_end, true, true},
    {"tools", take_tools, true, false},
    {"tool_choice", take_tool_choice, true, false},
    {"chat_template_kwargs", take_kwargs, true, false},
    /* only at the value that changes nothing */
    {"n", take_one, true, true},
    {"best_of", take_one, false, true},
    {"echo", take_echo, false, true},
    {"suffix", take_empty, false, true},
    {"logprobs", take_logprobs, true, true},
    {"top_logprobs", take_empty, true, false},
    {"response_format", take_response_format, true, true},
    {"modalities", take_modalities, true, false},
    {"audio", take_empty, true, false},
    {"functions", take_empty, true, false},
    {"function_call", take_empty, true, false},
    {"web_search_options", take_empty, true, false},
    {"grammar", take_empty, true, true},
    {"guided_json", take_empty, true, true},
    {"images", take_empty, true, true},
    /* bookkeeping and hints */
    {"user", take_ignored, true, true},
    {"metadata", take_ignored, true, true},
    {"store", take_ignored, true, true},
    {"service_tier", take_ignored, true, true},
    {"safety_identifier", take_ignored, true, true},
    {"prompt_cache_key", take_ignored, true, true},
    {"prompt_cache_retention", take_ignored, true, true},
    {"parallel_tool_calls", take_ignored, true, false},
    {"prediction", take_ignored, true, false},
    {"reasoning_effort", take_ignored, true, false},
    {"verbosity", take_ignored, true, false},
    {"cache_prompt", take_ignored, true, true},
    {"keep_alive", take_ignored, true, true},
    {"timings_per_token", take_ignored, true, true},
};

static enum status take_fields(struct parse *p, const json_t *root)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)root, name, value)
    {
        const struct field *field = NULL;
        enum status status;

        for (size_t i = 0; i < COUNT_OF(fields) && !field; i++)
            if (strcmp(fields[i].name, name) == 0 &&
                (p->kind == REQUEST_CHAT ? fields[i].chat : fields[i].text))
                field = &fields[i];
        if (!field)
            return api_error_set(p->error, STATUS_INVALID, name, "unknown_parameter",
                                 "\"%.80s\" is not a field of this request", name);
        if (json_is_null(value))
            continue;
        status = field->take(p, name, value);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* ---------------------------------------------------------------- the whole */

static enum status write_chat(struct parse *p)
{
    json_t *messages = NULL, *body = NULL;
    enum status status = openai_messages(p->messages, &messages, p->error);

    if (status != STATUS_OK)
        return status;
    body = json_pack("{s:o}", "messages", messages);
    status = body ? STATUS_OK : STATUS_NO_MEMORY;
    if (status == STATUS_OK && p->tools && !p->tools_off &&
        json_object_set(body, "tools", (json_t *)(uintptr_t)p->tools) != 0)
        status = STATUS_NO_MEMORY;
    if (status == STATUS_OK && p->kwargs &&
        json_object_set(body, "kwargs", (json_t *)(uintptr_t)p->kwargs) != 0)
        status = STATUS_NO_MEMORY;
    if (status == STATUS_OK)
        status = json_write(body, &p->request->body);
    json_decref(body);
    if (status != STATUS_OK)
        return api_error_set(p->error, status, "messages", NULL, "the messages are too long");
    return STATUS_OK;
}

static enum status write_text(struct parse *p)
{
    enum status status =
        buffer_put(&p->request->body, json_string_value(p->prompt), json_string_length(p->prompt));

    if (status != STATUS_OK)
        return api_error_set(p->error, status, "prompt", NULL, "the prompt is too long");
    return STATUS_OK;
}

static void defaults(struct openai_request *out, enum request_kind kind)
{
    struct sample_params params;

    sample_defaults(&params);
    out->spec.kind = kind;
    out->spec.temperature = params.temperature;
    out->spec.top_k = params.top_k;
    out->spec.top_p = params.top_p;
    out->spec.min_p = params.min_p;
    out->spec.repeat_penalty = params.repeat_penalty;
    out->spec.repeat_last_n = params.repeat_last_n;
    out->spec.xtc_threshold = OPENAI_XTC_THRESHOLD; /* waits for xtc_probability */
    out->spec.open_settings = SAMPLE_SETTINGS;
    out->spec.max_tokens = kind == REQUEST_TEXT ? OPENAI_TEXT_DEFAULT_TOKENS : 0;
    out->body.max_bytes = PROTO_MAX_PROMPT_BYTES;
}

enum status openai_request_parse(enum request_kind kind, const char *json, size_t n_bytes,
                                 struct openai_request *out, struct api_error *error)
{
    struct parse p = {.kind = kind, .request = out, .error = error};
    json_t *root = NULL;
    enum status status;

    defaults(out, kind);
    status = openai_json_parse(json, n_bytes, &root, error);
    if (status != STATUS_OK)
        return status;
    if (!json_is_object(root))
        status = api_error_set(error, STATUS_INVALID, NULL, "invalid_json",
                               "the body must be a JSON object");
    if (status == STATUS_OK)
        status = take_fields(&p, root);
    if (status == STATUS_OK && !*out->spec.model)
        status = api_error_set(error, STATUS_INVALID, "model", "missing_parameter",
                               "model is missing; see GET /v1/models");
    if (status == STATUS_OK && !(kind == REQUEST_CHAT ? p.messages : p.prompt))
        status = api_error_set(error, STATUS_INVALID, kind == REQUEST_CHAT ? "messages" : "prompt",
                               "missing_parameter", "%s is missing",
                               kind == REQUEST_CHAT ? "messages" : "prompt");
    if (status == STATUS_OK)
        status = kind == REQUEST_CHAT ? write_chat(&p) : write_text(&p);
    json_decref(root);
    return status;
}

void openai_request_free(struct openai_request *request)
{
    buffer_free(&request->body);
    memset(request, 0, sizeof *request);
}
