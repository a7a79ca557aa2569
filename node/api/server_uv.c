/* The API's place in the node's loop: the only file here that knows libuv.
 *
 * libmicrohttpd runs without threads of its own. Its epoll descriptor is polled by the loop, which
 * also works off its time-out, and MHD_run does the rest. A connection that is resumed wakes
 * nothing by itself (libmicrohttpd does that only with its own threads), so http.c calls `wake`,
 * and the timer runs MHD_run in the loop's next turn: once for all that was resumed in this one.
 *
 *   api_start: listen (errors are named here) → MHD_start_daemon → poll + timer + tick
 *   api_close: no new connections → streams end with an error event → when all connections are idle
 *              or after a second, stop the daemon → close the handles → on_closed
 *
 * What fails: the port in use, an address that is not this box's, an address beyond loopback
 * without a key. Source: libmicrohttpd's manual, "Using in an application with its own event loop".
 */
#include "node/api/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <sodium.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

enum { TICK_MS = 500, CLOSING_TICK_MS = 20, CLOSING_TICKS = 50 };

struct api {
    struct http http;
    uv_loop_t *loop;
    uv_poll_t poll;
    uv_timer_t timer; /* libmicrohttpd's time-out */
    uv_timer_t tick;
    unsigned n_open;        /* handles */
    unsigned closing_ticks; /* left */
    bool stopping;
    void (*on_closed)(void *owner);
    void *owner;
};

/* ---------------------------------------------------------------- running */

static void on_timer(uv_timer_t *timer);

static void api_run(struct api *api)
{
    MHD_UNSIGNED_LONG_LONG wait_ms;

    if (api->stopping)
        return;
    api->http.now_us = uv_hrtime() / 1000;
    (void)MHD_run(api->http.daemon);
    if (MHD_get_timeout(api->http.daemon, &wait_ms) == MHD_YES)
        (void)uv_timer_start(&api->timer, on_timer, wait_ms, 0);
    else
        (void)uv_timer_stop(&api->timer);
}

static void on_timer(uv_timer_t *timer)
{
    api_run(timer->data);
}

static void on_wake(struct http *http)
{
    struct api *api = (struct api *)(void *)http; /* its first member */

    if (!api->stopping)
        (void)uv_timer_start(&api->timer, on_timer, 0, 0);
}

_Static_assert(offsetof(struct api, http) == 0, "on_wake finds the api by its first member");

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    api_run(poll->data);
}

static void on_tick(uv_timer_t *tick)
{
    struct api *api = tick->data;

    api->http.now_us = uv_hrtime() / 1000;
    http_tick(&api->http);
    api_run(api);
}

/* ---------------------------------------------------------------- closing */

static void on_handle_closed(uv_handle_t *handle)
{
    struct api *api = handle->data;
    void (*on_closed)(void *owner) = api->on_closed;
    void *owner = api->owner;

    if (--api->n_open > 0)
        return;
    if (api->http.key)
        sodium_memzero(api->http.key, strlen(api->http.key));
    mem_free(api->http.key);
    mem_free(api);
    if (on_closed)
        on_closed(owner);
}

static void api_stop(struct api *api)
{
    api->stopping = true;
    (void)uv_poll_stop(&api->poll);
    for (struct exchange *exchange = api->http.exchanges; exchange; exchange = exchange->next) {
        exchange->gone = true;
        exchange_resume(exchange); /* libmicrohttpd does not stop over suspended ones */
    }
    MHD_stop_daemon(api->http.daemon); /* completes every exchange */
    uv_close((uv_handle_t *)&api->poll, on_handle_closed);
    uv_close((uv_handle_t *)&api->timer, on_handle_closed);
    uv_close((uv_handle_t *)&api->tick, on_handle_closed);
}

static void on_closing_tick(uv_timer_t *tick)
{
    struct api *api = tick->data;

    api_run(api);
    if (!api->http.exchanges || api->closing_ticks-- == 0)
        api_stop(api);
}

void api_close(struct api *api, void (*on_closed)(void *owner), void *owner)
{
    MHD_socket listener;

    api->on_closed = on_closed;
    api->owner = owner;
    api->closing_ticks = CLOSING_TICKS;
    listener = MHD_quiesce_daemon(api->http.daemon);
    if (listener != MHD_INVALID_SOCKET)
        (void)close(listener);
    http_end_all(&api->http);
    (void)uv_timer_start(&api->tick, on_closing_tick, 0, CLOSING_TICK_MS);
}

/* ---------------------------------------------------------------- starting */

static enum status listen_fault(const struct api_options *options, int error, struct fault *fault)
{
    if (error == EADDRINUSE)
        return fault_set(fault, STATUS_IN_USE,
                         "port %u is in use; another skein up may be running here; choose another "
                         "with --api %s:PORT",
                         options->port, options->address);
    if (error == EADDRNOTAVAIL)
        return fault_set(fault, STATUS_INVALID, "%s is not an address of this box",
                         options->address);
    return fault_set(fault, status_from_errno(error), "cannot listen on %s port %u: %s",
                     options->address, options->port, strerror(error));
}

static int socket_listen(const struct addrinfo *info)
{
    int on = 1, fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (info->ai_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, 128) == 0)
        return fd;
    on = errno;
    (void)close(fd);
    errno = on;
    return -1;
}

static bool is_loopback(const struct sockaddr *address)
{
    struct sockaddr_in6 six;
    struct sockaddr_in four;

    if (address->sa_family == AF_INET) {
        memcpy(&four, address, sizeof four);
        return ntohl(four.sin_addr.s_addr) >> 24 == 127;
    }
    memcpy(&six, address, sizeof six);
    return memcmp(&six.sin6_addr, &in6addr_loopback, sizeof six.sin6_addr) == 0;
}

/* The address as bound and its port, for the Host check and for api_port. */
static enum status listener_describe(struct http *http, int fd, struct fault *fault)
{
    struct sockaddr_storage bound = {0};
    socklen_t size = sizeof bound;
    char port[16] = "";

    if (getsockname(fd, (struct sockaddr *)&bound, &size) != 0 ||
        getnameinfo((struct sockaddr *)&bound, size, http->guard.address,
                    sizeof http->guard.address, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return fault_set(fault, STATUS_IO, "the API's own address cannot be read");
    http->port = (uint16_t)strtoul(port, NULL, 10);
    http->guard.loopback = is_loopback((struct sockaddr *)&bound);
    return STATUS_OK;
}

static enum status listener_open(struct http *http, const struct api_options *options, int *out,
                                 struct fault *fault)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *info = NULL;
    enum status status = STATUS_OK;
    char port[8];
    int rc;

    (void)snprintf(port, sizeof port, "%u", options->port);
    rc = getaddrinfo(options->address, port, &hints, &info);
    if (rc != 0)
        return fault_set(fault, STATUS_INVALID, "\"%.100s\" is not an address: %s",
                         options->address, gai_strerror(rc));
    if (!is_loopback(info->ai_addr) && !options->key) {
        status =
            fault_set(fault, STATUS_INVALID,
                      "on %s, which is not loopback, the API needs a key: give --api-key-file FILE",
                      options->address);
        goto out;
    }
    *out = socket_listen(info);
    if (*out < 0)
        status = listen_fault(options, errno, fault);
    else
        status = listener_describe(http, *out, fault);
out:
    freeaddrinfo(info);
    return status;
}

/* Strict but for a missing Host, which guard.c refuses: libmicrohttpd 0.9.75 would write the header
 * block of its own refusal twice. */
static struct MHD_Daemon *daemon_start(struct http *http, int listener)
{
    return MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, http_on_access, http,
        MHD_OPTION_LISTEN_SOCKET, listener, MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, http,
        MHD_OPTION_NOTIFY_CONNECTION, http_on_connection, http, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)HTTP_MAX_CONNECTIONS, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
        http->guard.loopback ? 0u : (unsigned)HTTP_MAX_PER_HOST, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)HTTP_MEMORY_PER_CONNECTION, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)HTTP_IDLE_SECONDS, MHD_OPTION_STRICT_FOR_CLIENT, 0, MHD_OPTION_END);
}

static enum status api_prepare(struct api *api, struct node *node,
                               const struct api_options *options, struct fault *fault)
{
    struct http *http = &api->http;

    http->node = node;
    http->wake = on_wake;
    http->routes = api_routes;
    http->n_routes = api_n_routes;
    http->max_body_bytes = options->max_body_bytes ? options->max_body_bytes : HTTP_BODY_BYTES;
    http->now_us = uv_hrtime() / 1000;
    randombytes_buf(&http->id_high, sizeof http->id_high);
    if (options->key) {
        http->key = mem_text(options->key);
        if (!http->key)
            return fault_set(fault, STATUS_NO_MEMORY, "no memory for the API");
        http->guard.key = http->key;
    }
    return STATUS_OK;
}

static enum status handles_open(struct api *api, struct fault *fault)
{
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(api->http.daemon, MHD_DAEMON_INFO_EPOLL_FD);

    if (!info || uv_poll_init(api->loop, &api->poll, info->epoll_fd) != 0)
        return fault_set(fault, STATUS_IO, "the API's descriptor cannot be polled");
    (void)uv_timer_init(api->loop, &api->timer); /* these two cannot fail */
    (void)uv_timer_init(api->loop, &api->tick);
    api->poll.data = api->timer.data = api->tick.data = api;
    api->n_open = 3;
    (void)uv_poll_start(&api->poll, UV_READABLE, on_readable);
    (void)uv_timer_start(&api->tick, on_tick, TICK_MS, TICK_MS);
    return STATUS_OK;
}

enum status api_start(struct uv_loop_s *loop, struct node *node, const struct api_options *options,
                      struct api **out, struct fault *fault)
{
    struct api_options own = *options;
    struct api *api = MEM_NEW(struct api);
    enum status status;
    int listener = -1;

    if (!api)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory for the API");
    own.address = options->address ? options->address : "127.0.0.1";
    api->loop = loop;
    status = api_prepare(api, node, &own, fault);
    if (status == STATUS_OK)
        status = listener_open(&api->http, &own, &listener, fault);
    if (status != STATUS_OK)
        goto fail;
    api->http.daemon = daemon_start(&api->http, listener);
    if (!api->http.daemon) {
        status = fault_set(fault, STATUS_IO, "the HTTP server cannot start");
        goto fail;
    }
    status = handles_open(api, fault);
    if (status != STATUS_OK)
        goto fail;
    *out = api;
    return STATUS_OK;
fail:
    if (api->http.daemon)
        MHD_stop_daemon(api->http.daemon); /* closes the listener, too */
    else if (listener >= 0)
        (void)close(listener);
    mem_free(api->http.key);
    mem_free(api);
    return status;
}

void api_ready(struct api *api)
{
    api->http.ready = true;
}

uint16_t api_port(const struct api *api)
{
    return api->http.port;
}
