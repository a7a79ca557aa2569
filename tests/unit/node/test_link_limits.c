/* Links against strangers and peers that misbehave: noise, silence, too many at once, a peer that
 * stops reading, a port that is taken. Some of these wait for the real time limits. */
#include <poll.h>
#include <stdlib.h>

#include "link_harness.h"

struct node {
    uv_loop_t loop;
    struct end b;
    struct listener *listener;
};

static void node_open(struct node *n)
{
    assert_int_equal(uv_loop_init(&n->loop), 0);
    end_init(&n->b, 2, 5);
    n->listener = end_listen(&n->loop, &n->b);
}

static void node_end(struct node *n)
{
    if (n->b.link)
        link_close(n->b.link);
    listener_close(n->listener, end_on_listener_closed, &n->b);
    loop_end(&n->loop);
    assert_true(n->b.listener_closed);
    end_clear(&n->b);
}

/* Whether the other side has hung up. */
static bool hung_up(int fd)
{
    char byte;
    struct pollfd p = {fd, POLLIN, 0};

    return poll(&p, 1, 0) == 1 && recv(fd, &byte, 1, MSG_DONTWAIT) <= 0;
}

static void test_noise_is_refused_at_once(void **state)
{
    static const char *const words[] = {"GET / HTTP/1.1\r\n\r\n", "SSH-2.0-x\r\n", "\x16\x03\x01"};
    struct node n;

    (void)state;
    node_open(&n);
    for (unsigned i = 0; i < COUNT_OF(words); i++) {
        int fd = stranger(listener_port(n.listener), 1);

        assert_true(send(fd, words[i], strlen(words[i]), 0) > 0);
        RUN_UNTIL(&n.loop, n.b.n_closed == i + 1, 1);
        assert_int_equal(n.b.status, STATUS_FORMAT);
        assert_non_null(strstr(n.b.sentence, "does not speak"));
        assert_true(hung_up(fd));
        (void)close(fd);
    }
    assert_int_equal(n.b.n_opened, 0);
    node_end(&n);
}

static void test_silence_ends_and_strangers_leave_room(void **state)
{
    struct node n;
    struct end a;
    int fds[6 * 20];
    unsigned refused = 0;

    (void)state;
    node_open(&n);
    for (unsigned i = 0; i < COUNT_OF(fds); i++) {
        fds[i] = stranger(listener_port(n.listener), (uint8_t)(10 + i / 20));
        (void)uv_run(&n.loop, UV_RUN_NOWAIT);
    }
    for (int i = 0; i < 50; i++)
        (void)uv_run(&n.loop, UV_RUN_NOWAIT);
    assert_int_equal(listener_half_open(n.listener), LISTENER_MAX_HALF_OPEN);
    for (unsigned i = 0; i < COUNT_OF(fds); i++)
        refused += hung_up(fds[i]);
    assert_int_equal(refused, COUNT_OF(fds) - LISTENER_MAX_HALF_OPEN);
    for (unsigned host = 0; host < 4; host++) /* the first hosts hold no more than their share */
        for (unsigned i = 0; i < 20; i++)
            assert_int_equal(hung_up(fds[20 * host + i]), i >= LISTENER_MAX_HALF_OPEN_PER_HOST);
    assert_int_equal(n.b.n_closed, 0); /* what was refused is not reported */
    RUN_UNTIL(&n.loop, n.b.n_closed == LISTENER_MAX_HALF_OPEN, 5);
    assert_int_equal(n.b.status, STATUS_TIMEOUT);
    end_init(&a, 1, 5);
    end_dial(&n.loop, &a, listener_port(n.listener));
    RUN_UNTIL(&n.loop, a.n_opened && n.b.n_opened, 2);
    link_close(a.link);
    for (unsigned i = 0; i < COUNT_OF(fds); i++)
        (void)close(fds[i]);
    node_end(&n);
}

static void test_a_node_gets_through_beside_one_strangers_crowd(void **state)
{
    struct node n;
    struct end a;
    int fds[100];

    (void)state;
    node_open(&n);
    for (unsigned i = 0; i < COUNT_OF(fds); i++)
        fds[i] = stranger(listener_port(n.listener), 77);
    end_init(&a, 1, 5);
    end_dial(&n.loop, &a, listener_port(n.listener));
    RUN_UNTIL(&n.loop, a.n_opened && n.b.n_opened, 2);
    link_close(a.link);
    for (unsigned i = 0; i < COUNT_OF(fds); i++)
        (void)close(fds[i]);
    node_end(&n);
}

static void test_closing_a_listener_with_half_open_links(void **state)
{
    struct node n;
    struct end a;
    int fd;

    (void)state;
    node_open(&n);
    end_init(&a, 1, 5);
    end_dial(&n.loop, &a, listener_port(n.listener));
    RUN_UNTIL(&n.loop, a.n_opened && n.b.n_opened, 2);
    fd = stranger(listener_port(n.listener), 1);
    RUN_UNTIL(&n.loop, listener_half_open(n.listener) == 1, 1);
    listener_close(n.listener, end_on_listener_closed, &n.b);
    RUN_UNTIL(&n.loop, n.b.listener_closed, 1);
    assert_true(hung_up(fd));
    assert_int_equal(n.b.n_closed, 1);
    assert_true(link_is_open(a.link)); /* the open link lives on */
    assert_int_equal(link_send(n.b.link, message_new(MESSAGE_PING)), STATUS_OK);
    RUN_UNTIL(&n.loop, a.n_messages == 1, 1);
    link_close(a.link);
    link_close(n.b.link);
    loop_end(&n.loop);
    end_clear(&a);
    (void)close(fd);
}

static void fill_random(void *owner, uint8_t *out, size_t n)
{
    (void)owner;
    memset(out, 0x5a, n);
}

static void ignore_open(void *owner, const uint8_t peer_id[static PROTO_ID_BYTES])
{
    (void)peer_id;
    *(bool *)owner = true;
}

static void ignore_message(void *owner, struct message *message)
{
    (void)owner;
    message_free(&message);
}

/* A peer with the key that opens a link over a plain socket and then reads nothing more. */
static int deaf_peer(struct node *n, const struct end *a)
{
    int fd = stranger(listener_port(n->listener), 1);
    bool open = false;
    struct channel_events events = {ignore_open, ignore_message, &open};
    struct channel *channel;
    struct buffer out = {0};

    assert_int_equal(channel_new(true, &a->identity, a->key, fill_random, NULL, &channel),
                     STATUS_OK);
    while (!open) {
        uint8_t in[256];
        ssize_t got;

        assert_int_equal(channel_output(channel, &out), STATUS_OK);
        assert_int_equal(send(fd, out.data, out.len, 0), out.len);
        out.len = 0;
        (void)uv_run(&n->loop, UV_RUN_NOWAIT);
        got = recv(fd, in, sizeof in, MSG_DONTWAIT);
        if (got > 0)
            assert_int_equal(channel_receive(channel, in, (size_t)got, &events, NULL), STATUS_OK);
    }
    buffer_free(&out);
    channel_free(&channel);
    return fd;
}

static struct message *bulk(size_t bytes)
{
    struct message *m = message_new(MESSAGE_PASS);

    m->pass.n_rows = 1;
    m->payload_bytes = bytes;
    m->payload = mem_zeroed(bytes, 1);
    return m;
}

static void test_a_peer_that_does_not_read(void **state)
{
    struct node n;
    struct end a;
    int fd;
    unsigned n_sent = 0;
    uint64_t before;

    (void)state;
    node_open(&n);
    end_init(&a, 1, 5);
    fd = deaf_peer(&n, &a);
    RUN_UNTIL(&n.loop, n.b.n_opened, 2);
    before = uv_hrtime();
    while (link_send(n.b.link, bulk(16 * 1024 * 1024)) == STATUS_OK)
        n_sent++;
    assert_in_range(n_sent, 4, 8); /* bulk is refused past LINK_BULK_QUEUE_BYTES … */
    assert_true(link_is_open(n.b.link));
    assert_int_equal(link_send(n.b.link, message_new(MESSAGE_PING)), STATUS_OK); /* … that alone */
    RUN_UNTIL(&n.loop, n.b.n_closed, 14);
    assert_int_equal(n.b.status, STATUS_TIMEOUT);
    assert_non_null(strstr(n.b.sentence, "has not read"));
    assert_in_range((uv_hrtime() - before) / 1000000000, LINK_STALL_MS / 1000 - 1, 13);
    (void)close(fd);
    node_end(&n);
}

/* A port whose queue is full drops what comes: nobody ever answers. */
static void test_a_host_that_does_not_answer(void **state)
{
    uv_loop_t loop;
    struct end a;
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fill[4];

    (void)state;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(fd, 0), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    for (unsigned i = 0; i < COUNT_OF(fill); i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(fill[i], (struct sockaddr *)&at, sizeof at);
    }
    assert_int_equal(uv_loop_init(&loop), 0);
    end_init(&a, 1, 5);
    end_dial(&loop, &a, ntohs(at.sin_port));
    RUN_UNTIL(&loop, a.n_closed, 5);
    assert_int_equal(a.status, STATUS_TIMEOUT);
    assert_non_null(strstr(a.sentence, "did not answer"));
    loop_end(&loop);
    for (unsigned i = 0; i < COUNT_OF(fill); i++)
        (void)close(fill[i]);
    (void)close(fd);
}

static void test_a_port_in_use(void **state)
{
    struct node n;
    struct listener *second = NULL;
    struct fault fault = {0};
    struct listener_options options = {.address = "127.0.0.1", .fixed = true};
    char port[16];

    (void)state;
    node_open(&n);
    options.port = listener_port(n.listener);
    (void)snprintf(port, sizeof port, "%u", options.port);
    assert_int_equal(listener_start(&n.loop, &options, &n.b.keys, &n.b.events, &second, &fault),
                     STATUS_IN_USE);
    assert_null(second);
    assert_non_null(strstr(fault.text, port));
    options.fixed = false;
    assert_int_equal(listener_start(&n.loop, &options, &n.b.keys, &n.b.events, &second, &fault),
                     STATUS_OK);
    assert_int_not_equal(listener_port(second), options.port);
    listener_close(second, NULL, NULL);
    options.address = "203.0.113.1";
    assert_int_equal(listener_start(&n.loop, &options, &n.b.keys, &n.b.events, &second, &fault),
                     STATUS_INVALID);
    options.address = "localhost";
    assert_int_equal(listener_start(&n.loop, &options, &n.b.keys, &n.b.events, &second, &fault),
                     STATUS_INVALID);
    node_end(&n);
}

static void test_all_addresses_take_ipv4(void **state)
{
    uv_loop_t loop;
    struct end a, b;
    struct listener *listener;
    struct fault fault = {0};
    struct listener_options options = {0};

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    end_init(&a, 1, 5);
    end_init(&b, 2, 5);
    assert_int_equal(listener_start(&loop, &options, &b.keys, &b.events, &listener, &fault),
                     STATUS_OK);
    end_dial(&loop, &a, listener_port(listener));
    RUN_UNTIL(&loop, a.n_opened && b.n_opened, 2);
    assert_int_equal(strncmp(link_remote(b.link), "127.0.0.1:", 10), 0);
    link_close(a.link);
    link_close(b.link);
    listener_close(listener, NULL, NULL);
    loop_end(&loop);
}

static void test_ipv6(void **state)
{
    uv_loop_t loop;
    struct end a, b;
    struct listener *listener;
    struct listener_options options = {.address = "[::1]"};
    char address[64];
    struct fault fault = {0};

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    end_init(&a, 1, 5);
    end_init(&b, 2, 5);
    if (listener_start(&loop, &options, &b.keys, &b.events, &listener, &fault) != STATUS_OK) {
        loop_end(&loop);
        skip(); /* a kernel without IPv6 */
    }
    (void)snprintf(address, sizeof address, "[::1]:%u", listener_port(listener));
    assert_int_equal(link_dial(&loop, 7, address, &a.keys, &a.events, &a.link, &fault), STATUS_OK);
    RUN_UNTIL(&loop, a.n_opened && b.n_opened, 2);
    assert_int_equal(strncmp(link_remote(b.link), "[::1]:", 6), 0);
    assert_string_equal(link_remote(a.link), address);
    link_close(a.link);
    link_close(b.link);
    listener_close(listener, NULL, NULL);
    loop_end(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_noise_is_refused_at_once),
        cmocka_unit_test(test_silence_ends_and_strangers_leave_room),
        cmocka_unit_test(test_a_node_gets_through_beside_one_strangers_crowd),
        cmocka_unit_test(test_closing_a_listener_with_half_open_links),
        cmocka_unit_test(test_a_peer_that_does_not_read),
        cmocka_unit_test(test_a_host_that_does_not_answer),
        cmocka_unit_test(test_a_port_in_use),
        cmocka_unit_test(test_all_addresses_take_ipv4),
        cmocka_unit_test(test_ipv6),
    };

    (void)signal(SIGPIPE, SIG_IGN); /* as the program does; libuv wants it */
    if (proto_init() != STATUS_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
