/* The fixed cost of one hop over loopback, encryption included, beside what plain TCP costs in the
 * same run.
 *
 * Two threads, each with its own loop, joined by a real link: one sends a pass and the other sends
 * it back, which is two hops; the table shows half of the round trip. The stream column sends 64 MB
 * one way. Plain TCP does the same with blocking sockets and no framing at all: the floor. Medians,
 * since other programs run too.
 *
 *   bench_hop [ROUNDS]
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <uv.h>

#include "node/net/link.h"

enum { STREAM_BYTES = 64 * 1024 * 1024, MAX_ROUNDS = 20000 };
enum verb { VERB_ECHO, VERB_SINK, VERB_SINK_LAST }; /* in message_pass.stage */

static double now_us(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double quantile(double *values, size_t n, double q)
{
    qsort(values, n, sizeof *values, compare);
    return values[(size_t)((double)(n - 1) * q)];
}

static void check(bool good, const char *what)
{
    if (good)
        return;
    (void)fprintf(stderr, "bench_hop: %s failed\n", what);
    exit(1);
}

/* ---------------------------------------------------------------- plain TCP */

struct plain {
    int fd;
    size_t bytes, rounds, stream_bytes;
    uint8_t *buffer;
};

static void move_all(int fd, uint8_t *data, size_t n, bool out)
{
    while (n) {
        ssize_t done = out ? send(fd, data, n, MSG_NOSIGNAL) : recv(fd, data, n, 0);

        check(done > 0, "plain TCP");
        data += done;
        n -= (size_t)done;
    }
}

static void *plain_echo(void *arg)
{
    struct plain *p = arg;
    uint8_t *buffer = malloc(p->bytes);

    for (size_t i = 0; i < p->rounds; i++) {
        move_all(p->fd, buffer, p->bytes, false);
        move_all(p->fd, buffer, p->bytes, true);
    }
    for (size_t i = 0; i < p->stream_bytes; i += p->bytes)
        move_all(p->fd, buffer, p->bytes, false);
    if (p->stream_bytes)
        move_all(p->fd, buffer, 1, true);
    free(buffer);
    return NULL;
}

static void plain_connect(int fds[2])
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t n = sizeof at;
    int on = 1, server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    check(bind(server, (struct sockaddr *)&at, sizeof at) == 0 && listen(server, 1) == 0 &&
              getsockname(server, (struct sockaddr *)&at, &n) == 0,
          "listen");
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(connect(fds[0], (struct sockaddr *)&at, sizeof at) == 0, "connect");
    fds[1] = accept(server, NULL, NULL);
    for (int i = 0; i < 2; i++)
        (void)setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)close(server);
}

static void plain_run(size_t bytes, size_t rounds, double *hops, double *stream_us)
{
    int fds[2];
    struct plain p = {.bytes = bytes, .rounds = rounds};
    uint8_t *buffer = calloc(1, bytes);
    pthread_t thread;
    double start;

    if (stream_us)
        p.stream_bytes = STREAM_BYTES / bytes * bytes;
    plain_connect(fds);
    p.fd = fds[1];
    check(pthread_create(&thread, NULL, plain_echo, &p) == 0, "thread");
    for (size_t i = 0; i < rounds; i++) {
        start = now_us();
        move_all(fds[0], buffer, bytes, true);
        move_all(fds[0], buffer, bytes, false);
        hops[i] = (now_us() - start) / 2;
    }
    start = now_us();
    for (size_t i = 0; i < p.stream_bytes; i += bytes)
        move_all(fds[0], buffer, bytes, true);
    if (stream_us) {
        move_all(fds[0], buffer, 1, false);
        *stream_us = now_us() - start;
    }
    (void)pthread_join(thread, NULL);
    (void)close(fds[0]);
    (void)close(fds[1]);
    free(buffer);
}

/* ---------------------------------------------------------------- links */

static struct proto_identity identities[2];
static const uint8_t cluster_key[PROTO_KEY_BYTES] = {42};

struct server {
    uv_loop_t loop;
    uv_async_t stop;
    struct listener *listener;
};

static void server_on_open(void *owner, struct link *link,
                           const uint8_t peer_id[static PROTO_ID_BYTES])
{
    (void)owner;
    (void)link;
    (void)peer_id;
}

static void server_on_message(void *owner, struct link *link, struct message *message)
{
    (void)owner;
    if (message->pass.stage == VERB_SINK_LAST) {
        message_free(&message);
        message = message_new(MESSAGE_PING);
    }
    if (message->kind == MESSAGE_PASS && message->pass.stage == VERB_SINK)
        message_free(&message);
    else
        check(link_send(link, message) == STATUS_OK, "answer");
}

static void on_closed(void *owner, struct link *link, enum status status, const char *sentence)
{
    (void)owner;
    (void)link;
    if (status != STATUS_OK && status != STATUS_CLOSED)
        check(false, sentence);
}

static void server_on_stop(uv_async_t *async)
{
    struct server *server = async->data;

    listener_close(server->listener, NULL, NULL);
    uv_close((uv_handle_t *)async, NULL);
}

static void *server_run(void *arg)
{
    (void)uv_run(&((struct server *)arg)->loop, UV_RUN_DEFAULT);
    return NULL;
}

struct client {
    uv_loop_t loop;
    struct link *link;
    size_t bytes, rounds, done;
    double start, *hops, *stream_us;
};

static struct message *pass_of(size_t bytes, enum verb verb)
{
    struct message *m = message_new(MESSAGE_PASS);
    uint32_t n_rows = bytes > 65536 ? 512 : 1;

    m->pass.n_rows = n_rows;
    m->pass.stage = verb;
    m->payload_bytes = bytes;
    m->payload = mem_aligned(64, bytes, 1);
    memset(m->payload, 1, bytes);
    return m;
}

static void client_stream(struct client *c)
{
    size_t n = STREAM_BYTES / c->bytes;

    c->start = now_us();
    for (size_t i = 0; i < n; i++)
        check(link_send(c->link, pass_of(c->bytes, i + 1 < n ? VERB_SINK : VERB_SINK_LAST)) ==
                  STATUS_OK,
              "stream");
}

static void client_on_open(void *owner, struct link *link,
                           const uint8_t peer_id[static PROTO_ID_BYTES])
{
    struct client *c = owner;

    (void)peer_id;
    c->link = link;
    c->start = now_us();
    check(link_send(link, pass_of(c->bytes, VERB_ECHO)) == STATUS_OK, "send");
}

static void client_on_message(void *owner, struct link *link, struct message *message)
{
    struct client *c = owner;

    if (message->kind == MESSAGE_PING) {
        *c->stream_us = now_us() - c->start;
        message_free(&message);
        link_close(link);
        return;
    }
    c->hops[c->done++] = (now_us() - c->start) / 2;
    if (c->done < c->rounds) {
        c->start = now_us();
        check(link_send(link, message) == STATUS_OK, "send");
        return;
    }
    message_free(&message);
    if (c->stream_us)
        client_stream(c);
    else
        link_close(link);
}

static void link_run(uint16_t port, size_t bytes, size_t rounds, double *hops, double *stream_us)
{
    struct link_keys keys = {&identities[0], cluster_key};
    struct client c = {.bytes = bytes, .rounds = rounds, .hops = hops, .stream_us = stream_us};
    struct link_events events = {client_on_open, client_on_message, NULL, on_closed, &c};
    char address[32];

    (void)snprintf(address, sizeof address, "127.0.0.1:%u", port);
    check(uv_loop_init(&c.loop) == 0, "loop");
    check(link_dial(&c.loop, 1, address, &keys, &events, &c.link, NULL) == STATUS_OK, "dial");
    (void)uv_run(&c.loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&c.loop);
}

/* Sealing and opening alone, both ends in this thread: what of a hop is arithmetic. */
static void on_codec_open(void *owner, const uint8_t peer_id[static PROTO_ID_BYTES])
{
    (void)owner;
    (void)peer_id;
}

static void on_codec_message(void *owner, struct message *message)
{
    (void)owner;
    message_free(&message);
}

static void count_up(void *owner, uint8_t *out, size_t n)
{
    memset(out, ++*(uint8_t *)owner, n);
}

static double codec_us(size_t bytes, size_t rounds, double *values)
{
    struct channel_events events = {on_codec_open, on_codec_message, NULL};
    struct channel *ends[2];
    struct buffer wire = {0};
    struct message *m = pass_of(bytes, VERB_ECHO);
    uint8_t seed = 0;

    for (int i = 0; i < 2; i++)
        check(channel_new(i == 0, &identities[i], cluster_key, count_up, &seed, &ends[i]) ==
                  STATUS_OK,
              "channel");
    for (int i = 0; i < 4; i++) {
        wire.len = 0;
        check(channel_output(ends[i % 2], &wire) == STATUS_OK &&
                  channel_receive(ends[(i + 1) % 2], wire.data, wire.len, &events, NULL) ==
                      STATUS_OK,
              "handshake");
    }
    for (size_t i = 0; i < rounds; i++) {
        double start = now_us();

        wire.len = 0;
        check(channel_send(ends[0], m) == STATUS_OK &&
                  channel_output(ends[0], &wire) == STATUS_OK &&
                  channel_receive(ends[1], wire.data, wire.len, &events, NULL) == STATUS_OK,
              "codec");
        values[i] = now_us() - start;
    }
    for (int i = 0; i < 2; i++)
        channel_free(&ends[i]);
    buffer_free(&wire);
    message_free(&m);
    return quantile(values, rounds, 0.5);
}

/* ---------------------------------------------------------------- the table */

static void run_size(uint16_t port, const char *what, size_t bytes, size_t rounds, bool stream)
{
    static double linked[MAX_ROUNDS], plain[MAX_ROUNDS], codec[MAX_ROUNDS];
    double linked_stream = 0, plain_stream = 0;

    link_run(port, bytes, rounds, linked, stream ? &linked_stream : NULL);
    plain_run(bytes, rounds, plain, stream ? &plain_stream : NULL);
    (void)printf("%-12s %9zu  %8.1f %8.1f  %8.1f %8.1f  %8.1f", what, bytes,
                 quantile(linked, rounds, 0.5), quantile(linked, rounds, 0.99),
                 quantile(plain, rounds, 0.5), quantile(plain, rounds, 0.99),
                 codec_us(bytes, rounds, codec));
    if (stream)
        (void)printf("  %6.2f %6.2f", STREAM_BYTES / linked_stream / 1e3,
                     STREAM_BYTES / plain_stream / 1e3);
    (void)printf("\n");
}

int main(int argc, char **argv)
{
    size_t rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 4000;
    struct link_keys keys = {&identities[1], cluster_key};
    struct link_events events = {server_on_open, server_on_message, NULL, on_closed, NULL};
    struct listener_options options = {.address = "127.0.0.1"};
    struct server server;
    pthread_t thread;

    check(rounds > 0 && rounds <= MAX_ROUNDS, "reading ROUNDS (1 to 20000)");
    check(proto_init() == STATUS_OK && uv_loop_init(&server.loop) == 0, "start");
    for (uint8_t i = 0; i < 2; i++) {
        identities[i].secret_key[0] = (uint8_t)(i + 1);
        proto_identity_complete(&identities[i]);
    }
    check(listener_start(&server.loop, &options, &keys, &events, &server.listener, NULL) ==
              STATUS_OK,
          "listen");
    server.stop.data = &server;
    (void)uv_async_init(&server.loop, &server.stop, server_on_stop);
    check(pthread_create(&thread, NULL, server_run, &server) == 0, "thread");
    (void)printf("%-12s %9s  %17s  %17s  %8s  %13s\n", "", "", "link us/hop", "plain TCP us/hop",
                 "crypto", "stream GB/s");
    (void)printf("%-12s %9s  %8s %8s  %8s %8s  %8s  %6s %6s\n", "pass", "bytes", "median", "p99",
                 "median", "p99", "us", "link", "plain");
    run_size(listener_port(server.listener), "1 x 1", 4, rounds, false);
    run_size(listener_port(server.listener), "1 x 2048", 8192, rounds, true);
    run_size(listener_port(server.listener), "512 x 2048", 4194304, rounds / 40 + 1, true);
    (void)uv_async_send(&server.stop);
    (void)pthread_join(thread, NULL);
    (void)uv_loop_close(&server.loop);
    return 0;
}
