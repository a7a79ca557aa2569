/* A link: proto's channel on a TCP socket of the libuv loop.
 *
 *   dial ──► CONNECTING ──connected──► GREETING ──peer proved the key──► OPEN
 *   accept ────────────────────────────►┘                                 │ link_finish
 *                                                                         ▼
 *   any ──link_close, error, end of stream──► CLOSING ◄──all sent────── FINISHING
 *
 * Sending: messages wait in a queue as plain text and are sealed in slices when the socket has
 * room, so a large message is on its way while its end is still being encrypted, and the loop is
 * never held for longer than a slice. What was just sealed is written at once (uv_try_write); only
 * what the kernel does not take waits for a write request, and there is at most one of those.
 *
 * Receiving: into a small buffer inside the struct until the peer has proved the key, then into a
 * large one; the channel decrypts from it straight into the messages.
 *
 * One timer serves the time-outs of the phases: connecting, greeting, a peer that does not read,
 * finishing. What fails, fails the link: it closes, and on_closed tells why, once, from the last
 * close callback, which also frees the memory. An initiator whose peer hangs up right after the
 * third handshake message has met another cluster key. */
#include "node/net/link_uv.h"
#include "node/net/queue.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

enum {
    READ_BYTES = 128 * 1024,
    GREETING_READ_BYTES = 512,
    SLICE_BYTES = 256 * 1024, /* sealed at once */
    TURN_BYTES = 512 * 1024,  /* sealed, and about as many opened, in one turn of the loop */
    STALL_TICK_MS = 1000,
    HEARD_MS = 1000,
    KEEPALIVE_SECONDS = 10
};

enum link_state { LINK_CONNECTING, LINK_GREETING, LINK_OPEN, LINK_FINISHING, LINK_CLOSING };

static const struct sm_table link_table = {
    .name = "link",
    .states = (const char *const[]){"connecting", "greeting", "open", "finishing", "closing"},
    .allowed =
        (const uint32_t[]){
            [LINK_CONNECTING] = SM_TO(LINK_GREETING) | SM_TO(LINK_CLOSING),
            [LINK_GREETING] = SM_TO(LINK_OPEN) | SM_TO(LINK_CLOSING),
            [LINK_OPEN] = SM_TO(LINK_FINISHING) | SM_TO(LINK_CLOSING),
            [LINK_FINISHING] = SM_TO(LINK_CLOSING),
            [LINK_CLOSING] = 0,
        },
    .n_states = 5,
};

struct link {
    unsigned state; /* enum link_state */
    uint32_t id;
    bool outbound;
    uv_tcp_t tcp;
    uv_timer_t timer;
    unsigned n_handles; /* open ones */
    uv_connect_t connect;
    uv_write_t write;
    uv_shutdown_t shutdown;
    struct channel *channel;
    struct link_events events;
    struct link_watch watch;
    struct net_address address;
    char remote[NET_ADDRESS_TEXT];
    uint8_t peer_id[PROTO_ID_BYTES]; /* once open */
    struct fault end;                /* what on_closed will say */
    struct message_queue queue;
    struct message *sending; /* half sealed */
    struct buffer sealed;    /* being written, where `writing` */
    bool writing;
    size_t stall_bytes, stall_ms;
    uint8_t *read_bytes; /* [READ_BYTES], once open */
    size_t read_turn_bytes;
    uint64_t heard_ms; /* when on_heard was last called */
    uint8_t greeting_bytes[GREETING_READ_BYTES];
};

static void link_pump(struct link *link);

/* ---------------------------------------------------------------- the end */

static void link_free(struct link *link)
{
    message_queue_drop(&link->queue, &link->sending);
    message_queue_free(&link->queue);
    channel_free(&link->channel);
    buffer_free(&link->sealed);
    mem_free(link->read_bytes);
    mem_free(link);
}

static void link_settle(struct link *link)
{
    struct link_watch watch = link->watch;

    link->watch.on_settled = NULL;
    if (watch.on_settled)
        watch.on_settled(watch.owner, link);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct link *link = handle->data;

    if (--link->n_handles)
        return;
    if (link->events.on_closed)
        link->events.on_closed(link->events.owner, link, link->end.status, link->end.text);
    link_settle(link);
    link_free(link);
}

void link_close(struct link *link)
{
    if (link->state == LINK_CLOSING)
        return;
    sm_move(&link_table, &link->state, LINK_CLOSING);
    uv_close((uv_handle_t *)&link->tcp, on_handle_closed);
    uv_close((uv_handle_t *)&link->timer, on_handle_closed);
}

void link_refuse(struct link *link)
{
    memset(&link->events, 0, sizeof link->events);
    link_close(link);
}

static void link_fail(struct link *link, enum status status, const char *sentence)
{
    if (link->state == LINK_CLOSING)
        return;
    if (link->state != LINK_FINISHING) /* the owner is through with it: how it ends is no matter */
        (void)fault_set(&link->end, status, "%s", sentence);
    link_close(link);
}

/* The socket failed or ended; error is libuv's. */
static void link_lost(struct link *link, int error)
{
    enum status status = status_from_errno(-error);
    bool ended = error == UV_EOF || error == UV_ECONNRESET || error == UV_EPIPE;
    char text[sizeof link->end.text];

    if (ended && link->state == LINK_GREETING && link->outbound &&
        channel_handshake_done(link->channel)) {
        bool self = channel_peer_is_self(link->channel);

        link_fail(link, self ? STATUS_CLOSED : STATUS_AUTH,
                  self
                      ? "that address is this node's own, or a node with a copy of its state folder"
                      : CHANNEL_OTHER_KEY);
    } else if (ended) {
        (void)snprintf(text, sizeof text, "%s closed the connection", link->remote);
        link_fail(link, STATUS_CLOSED, text);
    } else if (link->state == LINK_CONNECTING) {
        (void)snprintf(text, sizeof text, "cannot connect to %s: %s", link->remote,
                       uv_strerror(error));
        link_fail(link, status == STATUS_IO ? STATUS_UNREACHABLE : status, text);
    } else {
        (void)snprintf(text, sizeof text, "the connection to %s failed: %s", link->remote,
                       uv_strerror(error));
        link_fail(link, status, text);
    }
}

/* ---------------------------------------------------------------- time */

static void stall_tick(struct link *link)
{
    size_t waiting = uv_stream_get_write_queue_size((uv_stream_t *)&link->tcp);
    char text[sizeof link->end.text];

    link->stall_ms = waiting < link->stall_bytes ? 0 : link->stall_ms + STALL_TICK_MS;
    link->stall_bytes = waiting;
    if (link->stall_ms < LINK_STALL_MS)
        return;
    (void)snprintf(text, sizeof text, "%s has not read anything for %d s", link->remote,
                   LINK_STALL_MS / 1000);
    link_fail(link, STATUS_TIMEOUT, text);
}

static void on_timer(uv_timer_t *timer)
{
    struct link *link = timer->data;
    char text[sizeof link->end.text];

    switch ((enum link_state)link->state) {
    case LINK_CONNECTING:
        (void)snprintf(text, sizeof text, "%s did not answer within %d s", link->remote,
                       LINK_CONNECT_MS / 1000);
        link_fail(link, STATUS_TIMEOUT, text);
        break;
    case LINK_GREETING:
        (void)snprintf(text, sizeof text, "%s did not finish the handshake within %d s",
                       link->remote, LINK_HANDSHAKE_MS / 1000);
        link_fail(link, STATUS_TIMEOUT, text);
        break;
    case LINK_OPEN:
        stall_tick(link);
        break;
    case LINK_FINISHING:
        link_close(link);
        break;
    case LINK_CLOSING:
        break;
    }
}

static void timer_set(struct link *link, uint64_t ms, uint64_t repeat_ms)
{
    if (link->state != LINK_CLOSING)
        (void)uv_timer_start(&link->timer, on_timer, ms, repeat_ms);
}

/* ---------------------------------------------------------------- sending */

static void on_shutdown(uv_shutdown_t *request, int error)
{
    (void)request;
    (void)error; /* the peer's end of stream or the timer closes the link */
}

static void on_written(uv_write_t *request, int error)
{
    struct link *link = request->data;

    link->writing = false;
    link->sealed.len = 0;
    link->stall_ms = 0;
    if (link->state == LINK_CLOSING)
        return;
    if (error)
        link_lost(link, error);
    else
        link_pump(link);
}

/* Everything has gone. */
static void link_drained(struct link *link)
{
    if (link->state == LINK_FINISHING) {
        if (!uv_is_closing((uv_handle_t *)&link->tcp) && link->shutdown.data == NULL) {
            link->shutdown.data = link;
            (void)uv_shutdown(&link->shutdown, (uv_stream_t *)&link->tcp, on_shutdown);
        }
        return;
    }
    if (link->state == LINK_OPEN)
        (void)uv_timer_stop(&link->timer);
}

/* Seals up to about a slice of what waits; how much is returned through *bytes. */
static enum status link_seal(struct link *link, size_t *bytes)
{
    enum status status = STATUS_OK;
    bool done;

    while (*bytes < SLICE_BYTES && status == STATUS_OK) {
        if (!link->sending) {
            link->sending = message_queue_take(&link->queue);
            if (!link->sending)
                break;
            status = channel_send_begin(link->channel, link->sending);
            if (status == STATUS_LIMIT || status == STATUS_FORMAT) {
                log_event(LOG_ERROR, "net", "message refused link=%u status=%s", link->id,
                          status_name(status));
                message_queue_drop(&link->queue, &link->sending);
                status = STATUS_OK;
                continue;
            }
        }
        if (status == STATUS_OK)
            status = channel_send_more(link->channel, SLICE_BYTES - *bytes, &done);
        if (status != STATUS_OK)
            break;
        *bytes += link->sending->payload_bytes < SLICE_BYTES ? link->sending->payload_bytes + 256
                                                             : SLICE_BYTES;
        if (done)
            message_queue_drop(&link->queue, &link->sending);
    }
    return status;
}

/* Hands link->sealed to the kernel. At once where it takes all of it, unless `later`. */
static int link_write(struct link *link, bool later)
{
    uv_buf_t buf = uv_buf_init((char *)link->sealed.data, (unsigned)link->sealed.len);
    int n = later ? 0 : uv_try_write((uv_stream_t *)&link->tcp, &buf, 1);
    int error;

    if (n < 0 && n != UV_EAGAIN)
        return n;
    n = n < 0 ? 0 : n;
    if ((size_t)n == link->sealed.len) {
        link->sealed.len = 0;
        return 0;
    }
    buf = uv_buf_init((char *)link->sealed.data + n, (unsigned)(link->sealed.len - (size_t)n));
    link->write.data = link;
    error = uv_write(&link->write, (uv_stream_t *)&link->tcp, &buf, 1, on_written);
    if (error)
        return error;
    link->writing = true;
    if (link->state == LINK_OPEN && !uv_is_active((uv_handle_t *)&link->timer)) {
        link->stall_ms = 0;
        link->stall_bytes = SIZE_MAX;
        timer_set(link, STALL_TICK_MS, STALL_TICK_MS);
    }
    return 0;
}

static void link_pump(struct link *link)
{
    size_t turn_bytes = 0;
    bool may_seal = link->state == LINK_OPEN || link->state == LINK_FINISHING;

    if (link->state == LINK_CONNECTING || link->state == LINK_CLOSING)
        return;
    while (!link->writing) {
        size_t bytes = 0;
        enum status status = may_seal ? link_seal(link, &bytes) : STATUS_OK;
        int error;

        if (status == STATUS_OK)
            status = channel_output(link->channel, &link->sealed);
        if (status != STATUS_OK) {
            link_fail(link, status, status_words(status));
            return;
        }
        if (link->sealed.len == 0) {
            link_drained(link);
            return;
        }
        turn_bytes += bytes;
        error = link_write(link, turn_bytes > TURN_BYTES);
        if (error) {
            link_lost(link, error);
            return;
        }
    }
}

enum status link_send(struct link *link, struct message *message)
{
    enum status status =
        link->state == LINK_OPEN ? message_queue_put(&link->queue, message) : STATUS_CLOSED;

    if (status == STATUS_OK)
        link_pump(link);
    else
        message_free(&message);
    return status;
}

void link_finish(struct link *link, uint32_t flush_ms)
{
    if (link->state != LINK_OPEN) {
        link_close(link);
        return;
    }
    sm_move(&link_table, &link->state, LINK_FINISHING);
    timer_set(link, flush_ms, 0);
    link_pump(link);
}

/* ---------------------------------------------------------------- receiving */

static void on_channel_open(void *owner, const uint8_t peer_id[static PROTO_ID_BYTES])
{
    struct link *link = owner;

    if (link->state != LINK_GREETING)
        return;
    link->read_bytes = MEM_NEW_N(uint8_t, READ_BYTES);
    if (!link->read_bytes) {
        link_fail(link, STATUS_NO_MEMORY, "out of memory for a link");
        return;
    }
    sm_move(&link_table, &link->state, LINK_OPEN);
    (void)uv_timer_stop(&link->timer);
    link_settle(link);
    memcpy(link->peer_id, peer_id, sizeof link->peer_id);
    link->events.on_open(link->events.owner, link, peer_id);
}

static void on_channel_message(void *owner, struct message *message)
{
    struct link *link = owner;

    if (link->state == LINK_OPEN)
        link->events.on_message(link->events.owner, link, message);
    else
        message_free(&message);
}

/* libuv reads on while the socket has more, which can be megabytes of decryption in one go. An
 * empty buffer ends that: it comes back as UV_ENOBUFS, and the rest comes in the loop's next turn.
 */
static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct link *link = handle->data;

    (void)suggested;
    *buf = link->read_bytes ? uv_buf_init((char *)link->read_bytes, READ_BYTES)
                            : uv_buf_init((char *)link->greeting_bytes, GREETING_READ_BYTES);
    if (link->read_turn_bytes < TURN_BYTES)
        return;
    link->read_turn_bytes = 0;
    *buf = uv_buf_init(NULL, 0);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct link *link = stream->data;
    struct channel_events events = {on_channel_open, on_channel_message, link};
    struct fault fault = {0};
    enum status status;

    if (n == 0 || n == UV_ENOBUFS || link->state == LINK_CLOSING)
        return;
    if (n < 0) {
        link_lost(link, (int)n);
        return;
    }
    link->read_turn_bytes = (size_t)n == buf->len ? link->read_turn_bytes + (size_t)n : 0;
    status = channel_receive(link->channel, (const uint8_t *)buf->base, (size_t)n, &events, &fault);
    if (status != STATUS_OK) {
        link_fail(link, status, fault.text);
        return;
    }
    if (link->state == LINK_OPEN && link->events.on_heard &&
        uv_now(stream->loop) - link->heard_ms >= HEARD_MS) {
        link->heard_ms = uv_now(stream->loop);
        link->events.on_heard(link->events.owner, link);
    }
    link_pump(link);
}

/* ---------------------------------------------------------------- making */

static void random_fill(void *owner, uint8_t *out, size_t n)
{
    (void)owner;
    randombytes_buf(out, n);
}

static enum status link_new(struct uv_loop_s *loop, bool outbound, const struct link_keys *keys,
                            const struct link_events *events, struct link **out)
{
    struct link *link = MEM_NEW(struct link);
    enum status status = STATUS_NO_MEMORY;

    *out = NULL;
    if (link)
        status = channel_new(outbound, keys->identity, keys->cluster_key, random_fill, NULL,
                             &link->channel);
    if (status == STATUS_OK && uv_tcp_init(loop, &link->tcp) != 0)
        status = STATUS_IO;
    if (status != STATUS_OK) {
        if (link)
            link_free(link);
        return status;
    }
    (void)uv_timer_init(loop, &link->timer);
    link->n_handles = 2;
    link->tcp.data = link->timer.data = link;
    link->outbound = outbound;
    link->state = outbound ? LINK_CONNECTING : LINK_GREETING;
    link->events = *events;
    *out = link;
    return STATUS_OK;
}

/* The socket is connected: greet within a time. */
static void link_greet(struct link *link)
{
    int error;

    (void)uv_tcp_nodelay(&link->tcp, 1);
    (void)uv_tcp_keepalive(&link->tcp, 1, KEEPALIVE_SECONDS);
    timer_set(link, LINK_HANDSHAKE_MS, 0);
    error = uv_read_start((uv_stream_t *)&link->tcp, on_alloc, on_read);
    if (error)
        link_lost(link, error);
    else
        link_pump(link);
}

static void on_connected(uv_connect_t *request, int error)
{
    struct link *link = request->data;

    if (link->state == LINK_CLOSING)
        return;
    if (error) {
        link_lost(link, error);
        return;
    }
    sm_move(&link_table, &link->state, LINK_GREETING);
    link_greet(link);
}

enum status link_dial(struct uv_loop_s *loop, uint32_t id, const char *address,
                      const struct link_keys *keys, const struct link_events *events,
                      struct link **out, struct fault *fault)
{
    struct net_address to;
    struct link *link;
    enum status status = net_address_parse(address, 0, &to, fault);
    int error;

    *out = NULL;
    if (status == STATUS_OK && net_address_port(&to) == 0)
        status = fault_set(fault, STATUS_INVALID, "the address %.80s has no port", address);
    if (status != STATUS_OK)
        return status;
    status = link_new(loop, true, keys, events, &link);
    if (status != STATUS_OK)
        return fault_set(fault, status, "cannot make a link: %s", status_words(status));
    link->id = id;
    link->address = to;
    net_address_format(&to, link->remote);
    link->connect.data = link;
    timer_set(link, LINK_CONNECT_MS, 0);
    error = uv_tcp_connect(&link->connect, &link->tcp, &to.any, on_connected);
    if (error)
        link_lost(link, error);
    *out = link;
    return STATUS_OK;
}

enum status link_accept(uv_tcp_t *server, const struct link_keys *keys,
                        const struct link_events *events, const struct link_watch *watch,
                        struct link **out)
{
    struct sockaddr_storage from = {0};
    int n = sizeof from;
    struct link *link;
    enum status status = link_new(server->loop, false, keys, events, &link);

    *out = link;
    if (status != STATUS_OK)
        return status;
    link->watch = *watch;
    if (uv_accept((uv_stream_t *)server, (uv_stream_t *)&link->tcp) != 0 ||
        uv_tcp_getpeername(&link->tcp, (struct sockaddr *)&from, &n) != 0 ||
        net_address_from((struct sockaddr *)&from, &link->address) != STATUS_OK) {
        link_refuse(link); /* gone before it came */
        return STATUS_OK;
    }
    net_address_format(&link->address, link->remote);
    link_greet(link);
    return STATUS_OK;
}

/* ---------------------------------------------------------------- views */

size_t link_queued_bytes(const struct link *link)
{
    return link->queue.bytes;
}

uint32_t link_number(const struct link *link)
{
    return link->id;
}

void link_set_id(struct link *link, uint32_t id)
{
    link->id = id;
}

bool link_is_outbound(const struct link *link)
{
    return link->outbound;
}

bool link_is_open(const struct link *link)
{
    return link->state == LINK_OPEN;
}

const uint8_t *link_peer_id(const struct link *link)
{
    return link->peer_id;
}

const char *link_remote(const struct link *link)
{
    return link->remote;
}

const struct net_address *link_address(const struct link *link)
{
    return &link->address;
}
