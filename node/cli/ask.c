/* One answer, from the request's JSON to the last line of statistics.
 *
 * Only options that the user gave are sent, so that defaults live in one place, the node. On a
 * terminal, control bytes of the answer are replaced: a model's text must not move the cursor. */
#include "node/cli/run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct answer {
    struct ask *ask;
    struct buffer *text; /* NULL: not gathered */
    double began, first; /* seconds; first 0: no text yet */
    bool on_terminal, broken;
    json_int_t n_tokens, n_stages;
    char notice[PROTO_MAX_TEXT];
    const char *key; /* "delta" or "text" */
};

static double now_seconds(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---------------------------------------------------------------- the request */

static bool given(const struct ask *ask, const char *name)
{
    return config_given(&spec_run, ask->config, name);
}

/* A field is called as its option, with _ for -. */
static bool put_if(const struct ask *ask, json_t *body, const char *option, json_t *value)
{
    char field[32];

    if (!given(ask, option)) {
        json_decref(value);
        return true;
    }
    (void)snprintf(field, sizeof field, "%s", option);
    for (char *at = field; *at; at++)
        *at = *at == '-' ? '_' : *at;
    return json_object_set_new(body, field, value) == 0;
}

static bool put_stops(const struct ask *ask, json_t *body)
{
    json_t *list = json_array();
    bool good = true;

    for (size_t i = 0; i < ask->run->stops.n; i++)
        good = good && json_array_append_new(list, json_string(ask->run->stops.items[i])) == 0;
    if (json_array_size(list) == 0) {
        json_decref(list);
        return good;
    }
    return json_object_set_new(body, "stop", list) == 0 && good;
}

enum status ask_biases(const struct run *run, json_t **out, struct fault *fault)
{
    *out = run->biases.n ? json_object() : NULL;
    for (size_t i = 0; i < run->biases.n; i++) {
        const char *text = run->biases.items[i];
        size_t n_digits = strspn(text, "0123456789");
        char id[16], *end = NULL;
        double value;

        value = text[n_digits] == '=' ? strtod(text + n_digits + 1, &end) : 0;
        if (n_digits < 1 || n_digits > 10 || !end || end == text + n_digits + 1 || *end ||
            !(value >= -100 && value <= 100))
            return fault_set(fault, STATUS_INVALID,
                             "--logit-bias: \"%.60s\" is not a token's number, = and a number from "
                             "-100 to 100, such as 17=-100",
                             text);
        memcpy(id, text, n_digits);
        id[n_digits] = '\0';
        if (json_object_set_new(*out, id, json_real(value)) != 0)
            return fault_set(fault, STATUS_NO_MEMORY, "no memory for the biases");
    }
    return STATUS_OK;
}

static bool put_sampling(const struct ask *ask, json_t *body)
{
    const struct run *run = ask->run;
    const struct {
        const char *option;
        json_t *value;
    } settings[] = {
        {"temperature", json_real(run->temperature)},
        {"top-p", json_real(run->top_p)},
        {"min-p", json_real(run->min_p)},
        {"typical-p", json_real(run->typical_p)},
        {"repeat-penalty", json_real(run->repeat_penalty)},
        {"frequency-penalty", json_real(run->frequency_penalty)},
        {"presence-penalty", json_real(run->presence_penalty)},
        {"dry-multiplier", json_real(run->dry_multiplier)},
        {"dry-base", json_real(run->dry_base)},
        {"xtc-probability", json_real(run->xtc_probability)},
        {"xtc-threshold", json_real(run->xtc_threshold)},
        {"top-k", json_integer(run->top_k)},
        {"repeat-last-n", json_integer(run->repeat_last_n)},
        {"dry-allowed-length", json_integer(run->dry_allowed_length)},
        {"dry-last-n", json_integer(run->dry_last_n)},
    };
    bool good = !ask->biases || json_object_set(body, "logit_bias", ask->biases) == 0;

    for (size_t i = 0; i < COUNT_OF(settings); i++)
        good = put_if(ask, body, settings[i].option, settings[i].value) && good;
    return good;
}

static json_t *request_body(const struct ask *ask, json_t *messages, const char *prompt)
{
    const struct run *run = ask->run;
    json_t *body = json_pack("{s:s, s:b, s:{s:b}}", "model", ask->model, "stream", 1,
                             "stream_options", "include_usage", 1);
    bool good = body != NULL;

    good = good && (messages ? json_object_set(body, "messages", messages)
                             : json_object_set_new(body, "prompt", json_string(prompt))) == 0;
    /* a raw completion's own default is short, as OpenAI's is */
    if (good && !messages && !given(ask, "max-tokens"))
        good = json_object_set_new(body, "max_tokens", json_integer(1 << 30)) == 0;
    good = good && put_if(ask, body, "max-tokens", json_integer(run->max_tokens));
    good = good && put_sampling(ask, body);
    good = good && put_if(ask, body, "seed", json_integer((json_int_t)run->seed));
    good = good && put_stops(ask, body);
    if (good && run->ignore_end)
        good = json_object_set_new(body, "ignore_eos", json_true()) == 0;
    if (!good) {
        json_decref(body);
        return NULL;
    }
    return body;
}

/* ---------------------------------------------------------------- the plan */

static void show_plan(struct ask *ask)
{
    struct caller caller = ask->session.caller;
    json_t *answer = NULL, *instance;
    struct fault fault;
    size_t i;

    ask->plan_shown = true;
    if (caller_json(&caller, "/skein/instances", NULL, &answer, &fault) != STATUS_OK)
        return;
    json_array_foreach(json_object_get(answer, "instances"), i, instance)
    {
        const char *state = json_string_value(json_object_get(instance, "state"));
        json_t *stage;
        size_t k;

        const char *model = json_string_value(json_object_get(instance, "model"));
        const char *head = json_string_value(json_object_get(instance, "head_name"));

        if (!state || strcmp(state, "ready") != 0 || !model || strcmp(model, ask->model) != 0)
            continue;
        (void)fprintf(stderr, "%s, headed by %s:", model, head ? head : "?");
        json_array_foreach(json_object_get(instance, "stages"), k, stage)(void)
            fprintf(stderr, "%s %s layers %lld to %lld", k ? "," : "",
                    json_string_value(json_object_get(stage, "node")),
                    (long long)json_integer_value(json_object_get(stage, "layer_begin")),
                    (long long)json_integer_value(json_object_get(stage, "layer_end")) - 1);
        (void)fputc('\n', stderr);
    }
    json_decref(answer);
}

/* ---------------------------------------------------------------- the answer */

static void put_text(struct answer *answer, const char *text, size_t n_bytes)
{
    if (answer->first <= 0)
        answer->first = now_seconds();
    if (answer->on_terminal) {
        for (size_t at = 0; at < n_bytes;) {
            size_t n = 0;
            while (at + n < n_bytes && text[at + n] != '\n' && text[at + n] != '\t')
                n++;
            cli_put_safe(stdout, text + at, n);
            if (at + n < n_bytes)
                (void)fputc(text[at + n], stdout);
            at += n + 1;
        }
    } else {
        (void)fwrite(text, 1, n_bytes, stdout);
    }
    if (fflush(stdout) != 0)
        answer->broken = true;
    if (answer->text && buffer_put(answer->text, text, n_bytes) != STATUS_OK)
        answer->broken = true;
}

static bool on_event(void *owner, const json_t *event)
{
    struct answer *answer = owner;
    const json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
    const json_t *text = json_object_get(choice, "text"), *usage, *skein;

    if (answer->ask->run->plan && !answer->ask->plan_shown)
        show_plan(answer->ask);
    if (!text)
        text = json_object_get(json_object_get(choice, "delta"), "content");
    if (json_is_string(text) && json_string_length(text) > 0)
        put_text(answer, json_string_value(text), json_string_length(text));
    skein = json_object_get(event, "skein");
    if (skein) {
        const char *notice = json_string_value(json_object_get(skein, "notice"));

        answer->n_stages = json_integer_value(json_object_get(skein, "stages"));
        (void)snprintf(answer->notice, sizeof answer->notice, "%s", notice ? notice : "");
    }
    usage = json_object_get(event, "usage");
    if (usage)
        answer->n_tokens = json_integer_value(json_object_get(usage, "completion_tokens"));
    return !answer->broken;
}

/* tokens/s counts what came after the first token, as does everyone who quotes decode speed. */
static void show_statistics(const struct answer *answer)
{
    double end = now_seconds(), total = end - answer->began;
    double first = answer->first > 0 ? answer->first - answer->began : total;
    double rate = answer->n_tokens > 1 && total > first
                      ? (double)(answer->n_tokens - 1) / (total - first)
                      : 0;

    (void)fprintf(
        stderr, "%lld token%s in %.*f s: %.1f tokens/s, first token after %.0f ms, %lld stage%s\n",
        (long long)answer->n_tokens, answer->n_tokens == 1 ? "" : "s", total < 1 ? 2 : 1, total,
        rate, first * 1000, (long long)answer->n_stages, answer->n_stages == 1 ? "" : "s");
}

enum status ask_stream(struct ask *ask, json_t *messages, const char *prompt, struct buffer *text,
                       struct fault *fault)
{
    struct answer answer = {.ask = ask, .text = text, .on_terminal = isatty(STDOUT_FILENO) == 1};
    json_t *body = request_body(ask, messages, prompt);
    enum status status;

    if (!body)
        return fault_set(fault, STATUS_FORMAT, "an option's text is not UTF-8");
    answer.began = now_seconds();
    status =
        caller_stream(&ask->session.caller, messages ? "/v1/chat/completions" : "/v1/completions",
                      body, on_event, &answer, fault);
    json_decref(body);
    if (answer.first > 0)
        (void)fputc('\n', stdout);
    if (fflush(stdout) != 0 || answer.broken)
        return fault_set(fault, STATUS_IO, "cannot write the answer: %s", strerror(errno));
    if (answer.notice[0]) {
        cli_put_safe(stderr, answer.notice, strlen(answer.notice));
        (void)fputc('\n', stderr);
    }
    if (status == STATUS_OK && !ask->run->quiet)
        show_statistics(&answer);
    return status;
}
