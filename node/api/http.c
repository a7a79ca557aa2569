/* One HTTP request through libmicrohttpd.
 *
 * libmicrohttpd calls http_on_access several times for one request: once with the headers, then
 * with pieces of the body, then with none. Headers are judged at the first call (guard, router); a
 * refused request with a moderate body is read to its end and thrown away, because closing a socket
 * with unread data resets it and the client would never see the refusal. At the last call the
 * handler runs. What cannot be answered yet suspends the connection; exchange_resume makes
 * libmicrohttpd call again, and then the answer is queued.
 *
 * A suspended connection is watched by nobody, so http_tick asks the kernel twice a second whether
 * the client has closed. Everything runs on the loop thread. */
#include "node/api/http.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

static const char *header(struct MHD_Connection *connection, const char *name)
{
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

const char *exchange_query(const struct exchange *exchange, const char *name)
{
    return MHD_lookup_connection_value(exchange->connection, MHD_GET_ARGUMENT_KIND, name);
}

void exchange_suspend(struct exchange *exchange)
{
    if (exchange->suspended)
        return;
    exchange->suspended = true;
    MHD_suspend_connection(exchange->connection);
}

void exchange_resume(struct exchange *exchange)
{
    if (!exchange->suspended)
        return;
    exchange->suspended = false;
    MHD_resume_connection(exchange->connection);
    exchange->http->wake(exchange->http);
}

/* ---------------------------------------------------------------- replies */

void exchange_reply_json(struct exchange *exchange, int http, json_t *value)
{
    struct reply *reply = &exchange->reply;

    reply->http = http;
    reply->body.len = 0;
    if (json_write(value, &reply->body) != STATUS_OK ||
        buffer_put_u8(&reply->body, '\n') != STATUS_OK) {
        reply->http = MHD_HTTP_SERVICE_UNAVAILABLE; /* no memory even for the error's words */
        reply->body.len = 0;
    }
    json_decref(value);
    exchange_resume(exchange);
}

void exchange_fail(struct exchange *exchange, const struct api_error *error)
{
    enum status status = error->fault.status;

    /* a model that does not fit is 503, too, but waiting does not help it */
    exchange->reply.retry_after_seconds = status == STATUS_BUSY || status == STATUS_NO_MEMORY;
    exchange_reply_json(exchange, api_error_http(error), api_error_json(error));
}

void exchange_fail_with(struct exchange *exchange, const struct fault *fault)
{
    struct api_error error = {.fault = *fault};

    exchange_fail(exchange, &error);
}

static struct MHD_Response *plain_response(const struct reply *reply)
{
    /* the cast: libmicrohttpd copies, but its prototype takes a plain pointer */
    struct MHD_Response *response = MHD_create_response_from_buffer(
        reply->body.len, reply->body.len ? (void *)reply->body.data : (void *)"",
        MHD_RESPMEM_MUST_COPY);
    char number[16];

    if (!response)
        return NULL;
    (void)MHD_add_response_header(response, "Content-Type",
                                  reply->type ? reply->type : "application/json");
    if (*reply->allow)
        (void)MHD_add_response_header(response, "Allow", reply->allow);
    if (reply->http == MHD_HTTP_UNAUTHORIZED)
        (void)MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
    if (reply->retry_after_seconds) {
        (void)snprintf(number, sizeof number, "%u", reply->retry_after_seconds);
        (void)MHD_add_response_header(response, "Retry-After", number);
    }
    if (reply->close)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    (void)MHD_add_response_header(response, "Cache-Control", "no-store");
    (void)MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    return response;
}

static enum MHD_Result exchange_queue(struct exchange *exchange)
{
    struct MHD_Response *response = exchange->completion && exchange->reply.http == 0
                                        ? completion_response(exchange->completion)
                                        : plain_response(&exchange->reply);
    unsigned http = exchange->reply.http ? (unsigned)exchange->reply.http : MHD_HTTP_OK;
    enum MHD_Result result;

    if (!response)
        return MHD_NO;
    result = MHD_queue_response(exchange->connection, http, response);
    MHD_destroy_response(response); /* the connection holds it now */
    return result;
}

/* ---------------------------------------------------------------- beginning */

static struct exchange *exchange_new(struct http *http, struct MHD_Connection *connection,
                                     const char *url)
{
    struct exchange *exchange = MEM_NEW(struct exchange);

    if (!exchange)
        return NULL;
    exchange->url = mem_text(url);
    if (!exchange->url) {
        mem_free(exchange);
        return NULL;
    }
    exchange->http = http;
    exchange->connection = connection;
    exchange->body.max_bytes = http->max_body_bytes;
    exchange->client =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    exchange->next = http->exchanges;
    if (http->exchanges)
        http->exchanges->previous = exchange;
    http->exchanges = exchange;
    return exchange;
}

static void exchange_refuse(struct exchange *exchange, const struct api_error *error)
{
    exchange->refused = true;
    exchange_fail(exchange, error);
}

static enum MHD_Result on_header(void *owner, enum MHD_ValueKind kind, const char *name,
                                 const char *value)
{
    struct guard_headers *headers = owner;

    (void)kind;
    (void)value;
    headers->n_hosts += strcasecmp(name, MHD_HTTP_HEADER_HOST) == 0;
    headers->n_lengths += strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0;
    headers->n_encodings += strcasecmp(name, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0;
    return MHD_YES;
}

static void exchange_judge(struct exchange *exchange, const char *method, const char *version)
{
    struct MHD_Connection *connection = exchange->connection;
    struct http *http = exchange->http;
    struct guard_headers headers = {
        .host = header(connection, MHD_HTTP_HEADER_HOST),
        .origin = header(connection, "Origin"),
        .fetch_site = header(connection, "Sec-Fetch-Site"),
        .authorization = header(connection, MHD_HTTP_HEADER_AUTHORIZATION),
        .content_type = header(connection, MHD_HTTP_HEADER_CONTENT_TYPE),
        .content_length = header(connection, MHD_HTTP_HEADER_CONTENT_LENGTH),
        .transfer_encoding = header(connection, MHD_HTTP_HEADER_TRANSFER_ENCODING),
        .wants_host = strcasecmp(version, MHD_HTTP_VERSION_1_1) == 0};
    struct api_error error, no_route;
    enum status found, status;

    (void)MHD_get_connection_values(connection, MHD_HEADER_KIND, on_header, &headers);
    found = route_find(http->routes, http->n_routes, method, exchange->url, &exchange->route,
                       &exchange->argument, exchange->reply.allow, &no_route);
    status = guard_check(&http->guard, &headers, exchange->route, http->max_body_bytes, &error);
    if (status != STATUS_OK) { /* strangers do not learn which paths exist */
        exchange->reply.allow[0] = '\0';
        exchange->reply.close = status == STATUS_FORMAT; /* where its body ends is not certain */
        exchange_refuse(exchange, &error);
    } else if (found != STATUS_OK) {
        exchange_refuse(exchange, &no_route);
    } else if (!http->ready && !exchange->route->starting) {
        (void)api_error_set(&error, STATUS_BUSY, NULL, "starting", "the node is still starting");
        exchange_refuse(exchange, &error);
    } else if (http->closing) {
        (void)api_error_set(&error, STATUS_BUSY, NULL, "closing", "the node is shutting down");
        exchange_refuse(exchange, &error);
    }
}

/* A client that waits for "100 Continue", or that wants to send very much, is answered at once. */
static bool refuse_at_once(const struct exchange *exchange)
{
    const char *length = header(exchange->connection, MHD_HTTP_HEADER_CONTENT_LENGTH);

    if (exchange->reply.close || header(exchange->connection, MHD_HTTP_HEADER_EXPECT))
        return true;
    return length && (strlen(length) > 9 || strtoull(length, NULL, 10) > HTTP_DRAIN_BYTES);
}

static void exchange_take_body(struct exchange *exchange, const char *data, size_t n_bytes)
{
    struct api_error error;
    enum status status;

    if (exchange->refused) {
        exchange->discarded_bytes += n_bytes;
        if (exchange->discarded_bytes > HTTP_DRAIN_BYTES)
            exchange->gone = true;
        return;
    }
    status = buffer_put(&exchange->body, data, n_bytes);
    if (status == STATUS_OK)
        return;
    buffer_free(&exchange->body);
    if (status == STATUS_LIMIT)
        (void)api_error_set(&error, status, NULL, "body_too_large",
                            "the body has more than %zu bytes", exchange->http->max_body_bytes);
    else
        (void)api_error_set(&error, status, NULL, NULL, "no memory for the body");
    exchange_refuse(exchange, &error);
}

enum MHD_Result http_on_access(void *cls, struct MHD_Connection *connection, const char *url,
                               const char *method, const char *version, const char *upload,
                               size_t *upload_bytes, void **context)
{
    struct exchange *exchange = *context;

    if (!exchange) {
        exchange = exchange_new(cls, connection, url);
        if (!exchange)
            return MHD_NO;
        *context = exchange;
        if (exchange->client)
            exchange->client->in_request = true;
        exchange_judge(exchange, method, version);
        return exchange->refused && refuse_at_once(exchange) ? exchange_queue(exchange) : MHD_YES;
    }
    if (*upload_bytes) {
        exchange_take_body(exchange, upload, *upload_bytes);
        *upload_bytes = 0;
        return exchange->gone ? MHD_NO : MHD_YES;
    }
    if (exchange->client)
        exchange->client->busy = true;
    if (!exchange->refused && !exchange->dispatched) {
        exchange->dispatched = true;
        exchange->route->handle(exchange);
    }
    if (exchange->gone)
        return MHD_NO;
    if (exchange->reply.http || (exchange->completion && completion_streams(exchange->completion)))
        return exchange_queue(exchange);
    exchange_suspend(exchange);
    return MHD_YES;
}

/* ---------------------------------------------------------------- ending */

void http_on_completed(void *cls, struct MHD_Connection *connection, void **context,
                       enum MHD_RequestTerminationCode code)
{
    struct exchange *exchange = *context;
    struct http *http = cls;

    (void)connection;
    (void)code;
    if (!exchange)
        return;
    *context = NULL;
    if (exchange->completion)
        completion_detach(exchange->completion);
    if (exchange->pending)
        pending_detach(exchange->pending);
    if (exchange->client) {
        exchange->client->busy = exchange->client->in_request = false;
        exchange->client->since_us = http->now_us;
    }
    if (exchange->next)
        exchange->next->previous = exchange->previous;
    if (exchange->previous)
        exchange->previous->next = exchange->next;
    else
        http->exchanges = exchange->next;
    buffer_free(&exchange->body);
    buffer_free(&exchange->reply.body);
    mem_free(exchange->url);
    mem_free(exchange);
}

/* ---------------------------------------------------------------- connections */

static void socket_prepare(int fd)
{
    int on = 1, silence_ms = HTTP_IDLE_SECONDS * 1000;

    /* failures leave the kernel's defaults, which are slower and not wrong */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms, sizeof silence_ms);
}

/* Clients that only hold a connection open must not keep others out: when few places are left, the
 * one that has been idle longest goes. libmicrohttpd sees the end and tidies up. */
static void make_room(struct http *http)
{
    struct client *oldest = NULL;

    if (http->n_clients < HTTP_MAX_CONNECTIONS - HTTP_SPARE_CONNECTIONS)
        return;
    for (struct client *client = http->clients; client; client = client->next)
        if (!client->in_request && !client->shut &&
            (!oldest || client->since_us <= oldest->since_us))
            oldest = client;
    if (!oldest)
        return;
    oldest->shut = true;
    (void)shutdown(oldest->fd, SHUT_RDWR);
}

void http_on_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
                        enum MHD_ConnectionNotificationCode code)
{
    struct http *http = cls;
    struct client *client = *socket_context;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        client = MEM_NEW(struct client);
        *socket_context = client;
        if (!client)
            return; /* served all the same, without the deadline */
        client->fd =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        client->since_us = http->now_us;
        make_room(http);
        http->n_clients++;
        client->next = http->clients;
        if (http->clients)
            http->clients->previous = client;
        http->clients = client;
        socket_prepare(client->fd);
    } else if (client) {
        *socket_context = NULL;
        http->n_clients--;
        if (client->next)
            client->next->previous = client->previous;
        if (client->previous)
            client->previous->next = client->next;
        else
            http->clients = client->next;
        mem_free(client);
    }
}

static bool client_left(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};

    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

void http_tick(struct http *http)
{
    for (struct client *client = http->clients; client; client = client->next) {
        uint64_t waited_us = http->now_us - client->since_us;
        uint64_t most_us =
            (client->in_request ? HTTP_REQUEST_SECONDS : HTTP_HEADER_SECONDS) * 1000000ull;

        if (!client->busy && (waited_us > most_us || client_left(client->fd)))
            (void)shutdown(client->fd, SHUT_RDWR); /* libmicrohttpd sees the end and tidies up */
    }
    for (struct exchange *exchange = http->exchanges; exchange; exchange = exchange->next) {
        if (exchange->suspended && exchange->client && client_left(exchange->client->fd)) {
            exchange->gone = true;
            (void)shutdown(exchange->client->fd, SHUT_RDWR);
            exchange_resume(exchange);
        } else if (exchange->completion) {
            completion_tick(exchange->completion);
        }
    }
}

void http_end_all(struct http *http)
{
    struct fault fault;

    (void)fault_set(&fault, STATUS_CLOSED, "the node is shutting down");
    http->closing = true;
    for (struct exchange *exchange = http->exchanges; exchange; exchange = exchange->next) {
        if (exchange->completion)
            completion_end(exchange->completion, &fault);
        else if (exchange->suspended)
            exchange_fail_with(exchange, &fault);
    }
}
