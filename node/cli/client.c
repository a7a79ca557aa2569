/* HTTP from the command line, through libcurl.
 *
 * The transfer runs in curl's multi interface with short waits, so that Ctrl-C ends it within a
 * tenth of a second: curl_easy_perform would notice a second later. Proxies from the environment
 * are not used: a node is on this box or on the local network. */
#include "node/cli/client.h"

#include <curl/curl.h>
#include <string.h>
#include <time.h>

#include "node/api/http.h"
#include "node/cli/sse_reader.h"

enum { CLIENT_WAIT_MS = 100, CLIENT_MAX_BYTES = 64 * 1024 * 1024, CLIENT_STARTING_TRIES = 100 };

struct call {
    CURL *curl;
    long http;
    struct buffer body; /* of a plain answer */
    struct sse_reader events;
    bool (*on_event)(void *owner, const json_t *event);
    void *owner;
    enum status status; /* of what on_write did */
    struct fault *fault;
};

enum status caller_init(struct caller *caller, const struct client_options *options,
                        struct fault *fault)
{
    enum status status;

    memset(caller, 0, sizeof *caller);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return fault_set(fault, STATUS_NO_MEMORY, "libcurl cannot start");
    status = cli_address_parse(options->api, &caller->address, fault);
    if (status != STATUS_OK)
        (void)fault_prefix(fault, "--api");
    else if (options->api_key_file)
        status = cli_read_secret(options->api_key_file, caller->key, sizeof caller->key, fault);
    return status;
}

enum status caller_path(const char *before, const char *value, const char *after, char *out,
                        size_t size, struct fault *fault)
{
    char *escaped = curl_easy_escape(NULL, value, (int)strlen(value));
    int n;

    if (!escaped)
        return fault_set(fault, STATUS_NO_MEMORY, "out of memory");
    n = snprintf(out, size, "%s%s%s", before, escaped, after);
    curl_free(escaped);
    return n >= 0 && (size_t)n < size
               ? STATUS_OK
               : fault_set(fault, STATUS_LIMIT, "\"%.60s…\" is too long", value);
}

/* ---------------------------------------------------------------- answers */

/* The fault that an error object tells. */
static enum status fault_of(const json_t *error, long http, struct fault *fault)
{
    const char *message = json_string_value(json_object_get(error, "message"));
    const char *code = json_string_value(json_object_get(error, "code"));

    return fault_set(fault, api_error_status(code, (int)http), "%s",
                     message ? message : "the node answered with an error without words");
}

static bool on_data(void *owner, const char *data, size_t n_bytes)
{
    struct call *call = owner;
    json_t *event, *error;
    bool go_on = true;

    if (strcmp(data, "[DONE]") == 0)
        return true;
    event = json_loadb(data, n_bytes, 0, NULL);
    if (!event) {
        call->status =
            fault_set(call->fault, STATUS_FORMAT, "the node sent an event that is no JSON");
        return false;
    }
    error = json_object_get(event, "error");
    if (error) {
        call->status = fault_of(error, 500, call->fault);
        go_on = false;
    } else if (!call->on_event(call->owner, event)) {
        call->status = fault_set(call->fault, STATUS_CANCELLED, "stopped");
        go_on = false;
    }
    json_decref(event);
    return go_on;
}

static size_t on_write(char *bytes, size_t size, size_t n, void *owner)
{
    struct call *call = owner;
    enum status status;

    n *= size;
    if (call->http == 0)
        (void)curl_easy_getinfo(call->curl, CURLINFO_RESPONSE_CODE, &call->http);
    if (call->on_event && call->http == 200)
        status = sse_reader_feed(&call->events, bytes, n, on_data, call);
    else
        status = buffer_put(&call->body, bytes, n);
    if (status == STATUS_OK)
        return n;
    if (call->status == STATUS_OK)
        call->status =
            fault_set(call->fault, status, "the node's answer: %s", status_words(status));
    return 0;
}

/* ---------------------------------------------------------------- the transfer */

static enum status transfer(const struct caller *caller, struct call *call)
{
    CURLM *multi = curl_multi_init();
    CURLcode code = CURLE_OUT_OF_MEMORY;
    int running = 1, left;
    CURLMsg *message;

    if (!multi || curl_multi_add_handle(multi, call->curl) != CURLM_OK)
        goto out;
    while (running && curl_multi_perform(multi, &running) == CURLM_OK && running) {
        if (caller->stop && *caller->stop) {
            call->status = fault_set(call->fault, STATUS_CANCELLED, "stopped");
            break;
        }
        (void)curl_multi_poll(multi, NULL, 0, CLIENT_WAIT_MS, NULL);
    }
    while ((message = curl_multi_info_read(multi, &left)) != NULL)
        if (message->msg == CURLMSG_DONE)
            code = message->data.result;
    (void)curl_multi_remove_handle(multi, call->curl);
out:
    (void)curl_multi_cleanup(multi);
    if (call->status != STATUS_OK)
        return call->status;
    if (code == CURLE_OK)
        return STATUS_OK;
    if (code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST)
        return fault_set(call->fault, STATUS_UNREACHABLE,
                         "no node answers at %s port %u; start one with `skein up`",
                         caller->address.host, caller->address.port);
    return fault_set(call->fault, STATUS_CLOSED, "the connection to %s port %u broke: %s",
                     caller->address.host, caller->address.port, curl_easy_strerror(code));
}

static struct curl_slist *headers_of(const struct caller *caller)
{
    struct curl_slist *list = curl_slist_append(NULL, "Content-Type: application/json"), *more;
    char line[300];

    if (list) /* no waiting for "100 Continue" */
        list = (more = curl_slist_append(list, "Expect:")) ? more : list;
    if (list && caller->key[0]) {
        (void)snprintf(line, sizeof line, "Authorization: Bearer %s", caller->key);
        list = (more = curl_slist_append(list, line)) ? more : list;
        explicit_bzero(line, sizeof line);
    }
    return list;
}

static void set_options(CURL *curl, struct call *call, const char *url, struct curl_slist *headers,
                        const struct buffer *body)
{
    (void)curl_easy_setopt(curl, CURLOPT_URL, url);
    (void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    (void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http");
    (void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 5L);
    (void)curl_easy_setopt(curl, CURLOPT_TCP_NODELAY, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_write);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, call);
    if (body) {
        (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->len);
        (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body->data);
    }
}

/* The call as a whole. call->http and call->body are set where the node answered. */
static enum status call_run(const struct caller *caller, const char *path, const json_t *body,
                            struct call *call)
{
    bool six = strchr(caller->address.host, ':') != NULL;
    struct curl_slist *headers = headers_of(caller);
    struct buffer text = {0};
    enum status status = STATUS_NO_MEMORY;
    char url[2048];

    (void)snprintf(url, sizeof url, "http://%s%s%s:%u%s", six ? "[" : "", caller->address.host,
                   six ? "]" : "", caller->address.port, path);
    call->body.max_bytes = CLIENT_MAX_BYTES;
    call->curl = curl_easy_init();
    if (call->curl && headers && (!body || json_write(body, &text) == STATUS_OK)) {
        set_options(call->curl, call, url, headers, body ? &text : NULL);
        status = transfer(caller, call);
        (void)curl_easy_getinfo(call->curl, CURLINFO_RESPONSE_CODE, &call->http);
    } else {
        (void)fault_set(call->fault, status, "out of memory");
    }
    curl_easy_cleanup(call->curl);
    curl_slist_free_all(headers);
    buffer_free(&text);
    return status;
}

static bool is_starting(const json_t *answer)
{
    const char *code = json_string_value(json_object_get(json_object_get(answer, "error"), "code"));

    return code && strcmp(code, "starting") == 0;
}

/* One try. *starting: ask again later. */
static enum status call_once(const struct caller *caller, const char *path, const json_t *body,
                             struct call *call, json_t **out, bool *starting)
{
    enum status status = call_run(caller, path, body, call);
    json_t *answer = NULL;

    *starting = false;
    if (status == STATUS_OK && !(call->on_event && call->http == 200)) {
        answer = json_loadb((const char *)(call->body.data ? call->body.data : (uint8_t *)""),
                            call->body.len, JSON_DECODE_ANY, NULL);
        if (!answer)
            status =
                fault_set(call->fault, STATUS_FORMAT, "what answers at %s port %u is not skein",
                          caller->address.host, caller->address.port);
        else if (call->http >= 400)
            status = fault_of(json_object_get(answer, "error"), call->http, call->fault);
        *starting = status != STATUS_OK && is_starting(answer);
    }
    if (status == STATUS_OK && out)
        *out = answer;
    else
        json_decref(answer);
    buffer_free(&call->body);
    sse_reader_free(&call->events);
    return status;
}

static enum status call_until_started(const struct caller *caller, const char *path,
                                      const json_t *body, struct call *call, json_t **out)
{
    struct timespec pause = {.tv_nsec = CLIENT_WAIT_MS * 1000000L};
    struct call fresh = *call;
    enum status status = STATUS_BUSY;
    bool starting = true;

    for (int i = 0; i < CLIENT_STARTING_TRIES && starting; i++) {
        *call = fresh;
        status = call_once(caller, path, body, call, out, &starting);
        if (starting)
            (void)nanosleep(&pause, NULL);
        if (caller->stop && *caller->stop)
            break;
    }
    return status;
}

enum status caller_json(const struct caller *caller, const char *path, const json_t *body,
                        json_t **out, struct fault *fault)
{
    struct call call = {.fault = fault};

    *out = NULL;
    return call_until_started(caller, path, body, &call, out);
}

enum status caller_stream(const struct caller *caller, const char *path, const json_t *body,
                          bool (*on_event)(void *owner, const json_t *event), void *owner,
                          struct fault *fault)
{
    struct call call = {.fault = fault, .on_event = on_event, .owner = owner};

    return call_until_started(caller, path, body, &call, NULL);
}

const char *answer_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text ? text : "";
}

const char *answer_size(const json_t *object, const char *name, char out[static 24])
{
    json_int_t bytes = json_integer_value(json_object_get(object, name));

    return bytes_format_size(bytes > 0 ? (uint64_t)bytes : 0, out, 24);
}
