/* One completion between the node and a client: POST /v1/chat/completions and /v1/completions.
 *
 *   parse → node_submit → on_started → headers, then an event per piece of text → on_done → end
 *
 * Nothing is sent before on_started, so that everything that can fail before the first token
 * (unknown model, prompt too long, no room) has its own HTTP status; what fails later is an error
 * event, after which the stream ends. A plain answer gathers the text and is sent at on_done.
 *
 * Three parties hold the object: the exchange (until libmicrohttpd has closed it), the response's
 * reader, and the node (until on_done, which always comes). The last one frees it. A client that
 * goes away cancels the request at the node; one that reads more slowly than the model writes is
 * cut off when its buffer is full, and nobody else notices. */
#include "node/api/openai.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

struct completion {
    unsigned n_holders;
    struct exchange *exchange; /* NULL: the client is gone */
    struct node *node;
    uint64_t handle;
    bool at_node; /* on_done is to come */
    bool stream, include_usage;
    bool started;  /* headers may go out */
    bool finished; /* nothing will be added */
    bool broken;   /* the stream ends without its end marker */
    struct openai_answer answer;
    struct sse sse;     /* stream */
    struct buffer text; /* plain answer */
};

static void completion_drop(struct completion *c)
{
    if (--c->n_holders > 0)
        return;
    sse_free(&c->sse);
    buffer_free(&c->text);
    mem_free(c);
}

static void completion_cancel(struct completion *c)
{
    if (c->at_node)
        node_cancel(c->node, c->handle);
}

static void completion_wake(struct completion *c)
{
    if (c->exchange)
        exchange_resume(c->exchange);
}

/* The client is too slow or there is no memory for it: it loses its stream, the others go on. */
static void completion_cut(struct completion *c)
{
    c->finished = c->broken = true;
    sse_free(&c->sse);
    completion_cancel(c);
    if (c->exchange && c->exchange->client)
        (void)shutdown(c->exchange->client->fd, SHUT_RDWR);
    completion_wake(c);
}

static void completion_push(struct completion *c, json_t *event)
{
    enum status status = sse_event(&c->sse, event);

    json_decref(event);
    if (status != STATUS_OK) {
        completion_cut(c);
        return;
    }
    if (c->exchange)
        c->sse.last_us = c->exchange->http->now_us;
    completion_wake(c);
}

/* ---------------------------------------------------------------- from the node */

static void on_started(void *owner, uint32_t n_prompt, uint64_t seed)
{
    struct completion *c = owner;

    (void)n_prompt;
    c->answer.seed = seed;
    c->started = true;
    if (!c->stream || !c->exchange)
        return;
    c->sse.last_us = c->exchange->http->now_us;
    if (c->answer.kind == REQUEST_CHAT)
        completion_push(c, openai_chunk_start(&c->answer));
    else
        completion_wake(c);
}

static void on_text(void *owner, const char *text, size_t n_bytes, uint32_t n_tokens)
{
    struct completion *c = owner;

    (void)n_tokens;
    if (!c->exchange || c->finished || n_bytes == 0)
        return;
    if (c->stream)
        completion_push(c, openai_chunk_text(&c->answer, text, n_bytes));
    else if (buffer_put(&c->text, text, n_bytes) != STATUS_OK) {
        struct fault fault;
        (void)fault_set(&fault, STATUS_LIMIT, "the answer is too long to be sent in one piece");
        completion_end(c, &fault);
    }
}

static void finish_well(struct completion *c, const struct request_result *result)
{
    c->finished = true;
    c->started = true; /* whatever was lost on the way, this is an answer */
    if (!c->stream) {
        exchange_reply_json(
            c->exchange, MHD_HTTP_OK,
            openai_reply(&c->answer, (const char *)(c->text.data ? c->text.data : (uint8_t *)""),
                         c->text.len, result));
        return;
    }
    completion_push(c, openai_chunk_end(&c->answer, result));
    if (!c->broken && c->include_usage)
        completion_push(c, openai_chunk_usage(&c->answer, result));
    if (!c->broken && sse_text(&c->sse, "[DONE]") != STATUS_OK)
        completion_cut(c);
}

static void fail(struct completion *c, const struct fault *fault)
{
    struct api_error error = {.fault = *fault};

    c->finished = true;
    api_error_place(&error, c->answer.kind == REQUEST_CHAT);
    if (c->stream && c->started)
        completion_push(c, api_error_json(&error));
    else
        exchange_fail(c->exchange, &error);
}

static void on_done(void *owner, const struct request_result *result)
{
    struct completion *c = owner;

    c->at_node = false;
    if (c->exchange && !c->finished) {
        struct fault cancelled;
        (void)fault_set(&cancelled, STATUS_CANCELLED, "the request was cancelled");
        if (result->end == REQUEST_END_ERROR)
            fail(c, &result->fault);
        else if (result->end == REQUEST_END_CANCELLED)
            fail(c, &cancelled);
        else
            finish_well(c, result);
    }
    completion_drop(c);
}

/* ---------------------------------------------------------------- towards the client */

bool completion_streams(const struct completion *c)
{
    return c->stream && c->started;
}

static ssize_t on_read(void *owner, uint64_t position, char *out, size_t max)
{
    struct completion *c = owner;
    size_t n = sse_take(&c->sse, out, max);

    (void)position;
    if (n > 0)
        return (ssize_t)n;
    if (c->finished || !c->exchange || c->exchange->gone)
        return c->broken || !c->finished ? MHD_CONTENT_READER_END_WITH_ERROR
                                         : MHD_CONTENT_READER_END_OF_STREAM;
    exchange_suspend(c->exchange);
    return 0;
}

static void on_response_freed(void *owner)
{
    completion_drop(owner);
}

struct MHD_Response *completion_response(struct completion *c)
{
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, 16 * 1024, on_read, c, on_response_freed);

    if (!response)
        return NULL;
    c->n_holders++;
    (void)MHD_add_response_header(response, "Content-Type", "text/event-stream; charset=utf-8");
    (void)MHD_add_response_header(response, "Cache-Control", "no-store");
    (void)MHD_add_response_header(response, "X-Accel-Buffering", "no");
    (void)MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    return response;
}

void completion_detach(struct completion *c)
{
    c->exchange->completion = NULL;
    c->exchange = NULL;
    completion_cancel(c);
    completion_drop(c);
}

void completion_tick(struct completion *c)
{
    uint64_t now_us = c->exchange->http->now_us;

    if (!completion_streams(c) || c->finished || sse_waiting(&c->sse) > 0 ||
        now_us - c->sse.last_us < HTTP_COMMENT_SECONDS * 1000000ull)
        return;
    c->sse.last_us = now_us;
    if (sse_comment(&c->sse) != STATUS_OK)
        completion_cut(c);
    else
        completion_wake(c);
}

void completion_end(struct completion *c, const struct fault *fault)
{
    if (c->finished)
        return;
    completion_cancel(c);
    fail(c, fault);
}

/* ---------------------------------------------------------------- beginning */

static struct completion *completion_new(struct exchange *exchange,
                                         const struct openai_request *request)
{
    struct completion *c = MEM_NEW(struct completion);
    struct http *http = exchange->http;

    if (!c)
        return NULL;
    c->n_holders = 1;
    c->node = http->node;
    c->exchange = exchange;
    c->stream = request->stream;
    c->include_usage = request->include_usage;
    c->sse.out.max_bytes = HTTP_STREAM_BYTES;
    c->text.max_bytes = HTTP_TEXT_BYTES;
    c->answer.kind = request->spec.kind;
    c->answer.created = (int64_t)time(NULL);
    (void)snprintf(c->answer.model, sizeof c->answer.model, "%s", request->spec.model);
    (void)snprintf(c->answer.id, sizeof c->answer.id, "%s-%016llx%08llx",
                   request->spec.kind == REQUEST_CHAT ? "chatcmpl" : "cmpl",
                   (unsigned long long)http->id_high, (unsigned long long)++http->n_ids);
    exchange->completion = c;
    return c;
}

/* A seed that survives JavaScript's numbers, so that it can be sent again. */
static uint64_t seed_random(void)
{
    uint64_t seed;

    randombytes_buf(&seed, sizeof seed);
    seed &= (1ull << 53) - 1;
    return seed ? seed : 1;
}

static void completion_begin(struct exchange *exchange, enum request_kind kind)
{
    static const struct request_events events = {on_started, on_text, on_done};
    struct openai_request request = {0};
    struct completion *c = NULL;
    struct api_error error;
    enum status status;

    status =
        openai_request_parse(kind, exchange->body.data ? (const char *)exchange->body.data : "",
                             exchange->body.len, &request, &error);
    buffer_free(&exchange->body);
    if (status == STATUS_OK) {
        c = completion_new(exchange, &request);
        if (!c)
            status =
                api_error_set(&error, STATUS_NO_MEMORY, NULL, NULL, "no memory for the request");
    }
    if (status == STATUS_OK) {
        if (request.spec.seed == 0)
            request.spec.seed = seed_random();
        status = node_submit(exchange->http->node, &request.spec, (const char *)request.body.data,
                             request.body.len, &events, c, &c->handle);
        if (status != STATUS_OK)
            (void)api_error_set(&error, status, status == STATUS_NOT_FOUND ? "model" : NULL, NULL,
                                "the request was not taken: %s", status_words(status));
    }
    if (status == STATUS_OK) {
        c->at_node = true;
        c->n_holders++;
    } else {
        if (c)
            completion_detach(c);
        exchange_fail(exchange, &error);
    }
    openai_request_free(&request);
}

void completion_chat(struct exchange *exchange)
{
    completion_begin(exchange, REQUEST_CHAT);
}

void completion_text(struct exchange *exchange)
{
    completion_begin(exchange, REQUEST_TEXT);
}
