/* The listener: accepts connections and bounds what strangers can cost.
 *
 * Until a connection has proved the cluster key it is half open: it has a small struct, a time
 * limit and a place among LISTENER_MAX_HALF_OPEN, of which one host can hold only some. Past either
 * bound a connection is accepted and closed at once, so that the kernel's queue does not fill up
 * with them and nodes of the cluster get through as soon as a place is free. Once proved, a link
 * belongs to the owner alone and the listener forgets it.
 *
 * The socket is made with plain calls before libuv takes it over, because a failed bind can then be
 * tried again with another port, and because "all addresses" means one IPv6 socket that takes IPv4
 * too, or IPv4 alone on a kernel without IPv6.
 *
 * What fails: the port is taken (IN_USE, or any other port where the user asked for none), the
 * address is not of this box, no rights. Without memory for a link, the connection is closed with a
 * handle that is kept in reserve. */
#include "node/net/link_uv.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 128 };

struct listener {
    uv_tcp_t tcp;
    uv_tcp_t reserve; /* closes connections that there is no memory for */
    bool reserve_open, more_wait;
    unsigned n_handles;
    bool closing;
    uint16_t port;
    struct link_keys keys;
    struct link_events events;
    struct link *half_open[LISTENER_MAX_HALF_OPEN];
    size_t n_half_open;
    size_t n_refused; /* links that are closing unheard */
    bool crowded;     /* refusing, and said so */
    void (*on_closed)(void *owner);
    void *closed_owner;
};

/* ---------------------------------------------------------------- accepting */

static void listener_end(struct listener *listener)
{
    if (!listener->closing || listener->n_handles || listener->n_half_open || listener->n_refused)
        return;
    if (listener->on_closed)
        listener->on_closed(listener->closed_owner);
    mem_free(listener);
}

static void on_settled(void *owner, struct link *link)
{
    struct listener *listener = owner;
    size_t i = 0;

    while (i < listener->n_half_open && listener->half_open[i] != link)
        i++;
    if (i < listener->n_half_open)
        listener->half_open[i] = listener->half_open[--listener->n_half_open];
    else
        listener->n_refused--;
    if (listener->n_half_open < LISTENER_MAX_HALF_OPEN_PER_HOST / 2)
        listener->crowded = false;
    listener_end(listener);
}

static size_t from_same_host(const struct listener *listener, const struct link *link)
{
    size_t n = 0;

    for (size_t i = 0; i < listener->n_half_open; i++)
        n += net_address_same_host(link_address(listener->half_open[i]), link_address(link));
    return n;
}

static void listener_refuse(struct listener *listener);

static void on_reserve_closed(uv_handle_t *handle)
{
    struct listener *listener = handle->data;

    listener->reserve_open = false;
    listener->n_handles--;
    if (listener->more_wait && !listener->closing)
        listener_refuse(listener);
    listener_end(listener);
}

/* One line a crowd, not one a connection. */
static void log_crowd(struct listener *listener, const char *why)
{
    if (!listener->crowded)
        log_event(LOG_WARN, "net", "refusing connections because=%s half_open=%zu", why,
                  listener->n_half_open);
    listener->crowded = true;
}

/* libuv asks for nothing more until the connection that waits is accepted. */
static void listener_refuse(struct listener *listener)
{
    listener->more_wait = listener->reserve_open;
    if (listener->reserve_open || uv_tcp_init(listener->tcp.loop, &listener->reserve) != 0)
        return;
    listener->reserve.data = listener;
    listener->reserve_open = true;
    listener->n_handles++;
    (void)uv_accept((uv_stream_t *)&listener->tcp, (uv_stream_t *)&listener->reserve);
    uv_close((uv_handle_t *)&listener->reserve, on_reserve_closed);
}

static void on_connection(uv_stream_t *server, int error)
{
    struct listener *listener = server->data;
    struct link_watch watch = {on_settled, listener};
    struct link *link;

    if (listener->closing)
        return;
    if (error) {
        log_event(LOG_WARN, "net", "accept failed error=%s", uv_err_name(error));
        return;
    }
    if (listener->n_half_open == LISTENER_MAX_HALF_OPEN ||
        listener->n_refused == LISTENER_MAX_HALF_OPEN) {
        log_crowd(listener, "too_many_unproved");
        listener_refuse(listener);
        return;
    }
    if (link_accept(&listener->tcp, &listener->keys, &listener->events, &watch, &link) !=
        STATUS_OK) {
        log_crowd(listener, "no_memory");
        listener_refuse(listener);
        return;
    }
    if (from_same_host(listener, link) < LISTENER_MAX_HALF_OPEN_PER_HOST) {
        listener->half_open[listener->n_half_open++] = link;
        return;
    }
    log_crowd(listener, "too_many_unproved_of_one_host");
    listener->n_refused++;
    link_refuse(link);
}

/* ---------------------------------------------------------------- the socket */

/* A bound, listening socket; an errno on failure. */
static int socket_listen(const struct net_address *address, bool dual, int *out_fd)
{
    bool v4 = address->any.sa_family == AF_INET;
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1, v6_only = !dual, error = 0;

    if (fd < 0)
        return errno;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        (!v4 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof v6_only) != 0) ||
        bind(fd, &address->any, v4 ? sizeof address->v4 : sizeof address->v6) != 0 ||
        listen(fd, BACKLOG) != 0)
        error = errno;
    if (error)
        (void)close(fd);
    else
        *out_fd = fd;
    return error;
}

/* The wanted address with a port; all addresses fall back to IPv4. */
static int socket_open(const struct net_address *address, uint16_t port, int *out_fd)
{
    struct net_address at = *address;
    int error;

    if (at.any.sa_family == AF_INET) {
        at.v4.sin_port = htons(port);
        return socket_listen(&at, false, out_fd);
    }
    at.v6.sin6_port = htons(port);
    error = socket_listen(&at, net_address_is_any(&at), out_fd);
    if ((error != EAFNOSUPPORT && error != EADDRNOTAVAIL) || !net_address_is_any(&at))
        return error;
    memset(&at, 0, sizeof at);
    at.v4.sin_family = AF_INET;
    at.v4.sin_port = htons(port);
    return socket_listen(&at, false, out_fd);
}

static enum status socket_fail(struct fault *fault, const struct net_address *address,
                               uint16_t port, int error)
{
    char text[NET_ADDRESS_TEXT];
    struct net_address at = *address;

    if (error == EADDRINUSE)
        return fault_set(fault, STATUS_IN_USE,
                         "port %u is in use by another program; stop it or choose another with "
                         "--port",
                         port);
    if (error == EACCES)
        return fault_set(fault, STATUS_PERMISSION,
                         "this user may not listen on port %u; choose one above 1023 with --port",
                         port);
    if (at.any.sa_family == AF_INET)
        at.v4.sin_port = htons(port);
    else
        at.v6.sin6_port = htons(port);
    net_address_format(&at, text);
    return fault_set(fault, error == EADDRNOTAVAIL ? STATUS_INVALID : status_from_errno(error),
                     "cannot listen on %s: %s", text, strerror(error));
}

static enum status socket_make(const struct listener_options *options, int *out_fd,
                               struct fault *fault)
{
    struct net_address address;
    enum status status = net_address_parse(options->address ? options->address : "[::]",
                                           options->port, &address, fault);
    int error;

    if (status != STATUS_OK)
        return status;
    error = socket_open(&address, options->port, out_fd);
    if (error == EADDRINUSE && options->port && !options->fixed)
        error = socket_open(&address, 0, out_fd);
    return error ? socket_fail(fault, &address, options->port, error) : STATUS_OK;
}

static enum status port_of(int fd, uint16_t *out, struct fault *fault)
{
    struct sockaddr_storage name;
    struct net_address address;
    socklen_t n = sizeof name;

    if (getsockname(fd, (struct sockaddr *)&name, &n) != 0 ||
        net_address_from((struct sockaddr *)&name, &address) != STATUS_OK)
        return fault_set(fault, STATUS_IO, "cannot learn the port of a listening socket");
    *out = net_address_port(&address);
    return STATUS_OK;
}

/* ---------------------------------------------------------------- life */

static void on_handle_closed(uv_handle_t *handle)
{
    struct listener *listener = handle->data;

    listener->n_handles--;
    listener_end(listener);
}

enum status listener_start(struct uv_loop_s *loop, const struct listener_options *options,
                           const struct link_keys *keys, const struct link_events *events,
                           struct listener **out, struct fault *fault)
{
    struct listener *listener;
    uint16_t port = 0;
    int fd = -1, error;
    enum status status = socket_make(options, &fd, fault);

    *out = NULL;
    if (status != STATUS_OK)
        return status;
    status = port_of(fd, &port, fault);
    if (status != STATUS_OK) {
        (void)close(fd);
        return status;
    }
    listener = MEM_NEW(struct listener);
    if (!listener || uv_tcp_init(loop, &listener->tcp) != 0) {
        (void)close(fd);
        mem_free(listener);
        return fault_set(fault, STATUS_NO_MEMORY, "out of memory for a listener");
    }
    listener->tcp.data = listener;
    listener->n_handles = 1;
    listener->port = port;
    listener->keys = *keys;
    listener->events = *events;
    error = uv_tcp_open(&listener->tcp, fd);
    if (error)
        (void)close(fd);
    else
        error = uv_listen((uv_stream_t *)&listener->tcp, BACKLOG, on_connection);
    if (error) {
        listener_close(listener, NULL, NULL);
        return fault_set(fault, status_from_errno(-error), "cannot listen on port %u: %s", port,
                         uv_strerror(error));
    }
    *out = listener;
    return STATUS_OK;
}

uint16_t listener_port(const struct listener *listener)
{
    return listener->port;
}

size_t listener_half_open(const struct listener *listener)
{
    return listener->n_half_open;
}

void listener_close(struct listener *listener, void (*on_closed)(void *owner), void *owner)
{
    assert(!listener->closing);
    listener->closing = true;
    listener->on_closed = on_closed;
    listener->closed_owner = owner;
    uv_close((uv_handle_t *)&listener->tcp, on_handle_closed);
    for (size_t i = 0; i < listener->n_half_open; i++)
        link_close(listener->half_open[i]);
}
