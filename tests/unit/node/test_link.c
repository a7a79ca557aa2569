/* Links over real loopback sockets: opening, both ends' words on failure, order, large messages,
 * closing at every moment, memory that runs out. */
#include "link_harness.h"

enum { OPEN_SECONDS = 2 };

struct pair {
    uv_loop_t loop;
    struct end a, b; /* a dials, b listens */
    struct listener *listener;
};

static void pair_start(struct pair *p, uint8_t key_b)
{
    assert_int_equal(uv_loop_init(&p->loop), 0);
    end_init(&p->a, 1, 5);
    end_init(&p->b, 2, key_b);
    p->listener = end_listen(&p->loop, &p->b);
    end_dial(&p->loop, &p->a, listener_port(p->listener));
}

static void pair_open(struct pair *p)
{
    pair_start(p, 5);
    RUN_UNTIL(&p->loop, p->a.n_opened && p->b.n_opened, OPEN_SECONDS);
}

static void pair_end(struct pair *p)
{
    if (p->a.link)
        link_close(p->a.link);
    if (p->b.link)
        link_close(p->b.link);
    listener_close(p->listener, end_on_listener_closed, &p->b);
    loop_end(&p->loop);
    assert_true(p->b.listener_closed);
    assert_int_equal(p->a.n_closed, 1);
    end_clear(&p->a);
    end_clear(&p->b);
}

static struct message *pass_of(uint32_t number, uint32_t n_rows, size_t n_embd)
{
    struct message *m = message_new(MESSAGE_PASS);

    m->pass.pass = number;
    m->pass.n_rows = n_rows;
    m->payload_bytes = n_rows * n_embd * 4;
    m->payload = mem_aligned(64, m->payload_bytes, 1);
    for (size_t i = 0; i < m->payload_bytes; i++)
        m->payload[i] = (uint8_t)(i * 31 + i / 65519 + number);
    return m;
}

static void check_pass(const struct message *m, uint32_t number, uint32_t n_rows, size_t n_embd)
{
    struct message *expected = pass_of(number, n_rows, n_embd);

    assert_int_equal(m->kind, MESSAGE_PASS);
    assert_int_equal(m->pass.pass, number);
    assert_int_equal(m->payload_bytes, expected->payload_bytes);
    assert_int_equal((uintptr_t)m->payload % 64, 0);
    assert_true(memcmp(m->payload, expected->payload, m->payload_bytes) == 0);
    message_free(&expected);
}

static void test_both_ends_open_and_know_each_other(void **state)
{
    struct pair p;

    (void)state;
    pair_open(&p);
    assert_memory_equal(p.a.peer_id, p.b.identity.public_key, PROTO_ID_BYTES);
    assert_memory_equal(p.b.peer_id, p.a.identity.public_key, PROTO_ID_BYTES);
    assert_true(link_is_outbound(p.a.link) && !link_is_outbound(p.b.link));
    assert_true(link_is_open(p.a.link) && link_is_open(p.b.link));
    assert_int_equal(link_number(p.a.link), 7);
    assert_int_equal(link_number(p.b.link), 0);
    link_set_id(p.b.link, 9);
    assert_int_equal(link_number(p.b.link), 9);
    assert_int_equal(strncmp(link_remote(p.b.link), "127.0.0.1:", 10), 0);
    assert_int_equal(listener_half_open(p.listener), 0);
    pair_end(&p);
    assert_int_equal(p.a.status, STATUS_OK);
    assert_int_equal(p.b.n_closed, 1);
}

static void test_closing_one_end_closes_the_other(void **state)
{
    struct pair p;

    (void)state;
    pair_open(&p);
    link_close(p.b.link);
    link_close(p.b.link);
    assert_int_equal(p.b.n_closed, 0); /* later, never inside */
    RUN_UNTIL(&p.loop, p.a.n_closed && p.b.n_closed, OPEN_SECONDS);
    assert_int_equal(p.b.status, STATUS_OK);
    assert_int_equal(p.a.status, STATUS_CLOSED);
    assert_non_null(strstr(p.a.sentence, "closed the connection"));
    pair_end(&p);
    assert_int_equal(p.b.n_closed, 1);
}

static void test_another_key_is_told_at_both_ends(void **state)
{
    struct pair p;

    (void)state;
    for (int round = 0; round < 20; round++) {
        pair_start(&p, 6);
        RUN_UNTIL(&p.loop, p.a.n_closed && p.b.n_closed, OPEN_SECONDS);
        assert_int_equal(p.a.n_opened + p.b.n_opened, 0);
        assert_int_equal(p.a.status, STATUS_AUTH);
        assert_int_equal(p.b.status, STATUS_AUTH);
        assert_non_null(strstr(p.a.sentence, "another cluster key"));
        assert_string_equal(p.a.sentence, p.b.sentence);
        pair_end(&p);
    }
}

static void test_a_thousand_messages_keep_their_order(void **state)
{
    struct pair p;

    (void)state;
    pair_open(&p);
    for (uint32_t i = 0; i < 1000; i++)
        assert_int_equal(link_send(p.a.link, pass_of(i, 1, 1 + i % 97)), STATUS_OK);
    RUN_UNTIL(&p.loop, p.b.n_messages == 1000, 5);
    for (uint32_t i = 0; i < 1000; i++)
        check_pass(p.b.messages[i], i, 1, 1 + i % 97);
    assert_int_equal(link_queued_bytes(p.a.link), 0);
    pair_end(&p);
}

static void test_large_messages_cross(void **state)
{
    /* around a record's length, and megabytes */
    static const size_t sizes[] = {1, 16000, 16377, 16378, 16379, 16380, 32760, 700000, 3000000};
    struct pair p;
    uint32_t n = (uint32_t)COUNT_OF(sizes);

    (void)state;
    pair_open(&p);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(link_send(p.a.link, pass_of(i, 1, sizes[i])), STATUS_OK);
        assert_int_equal(link_send(p.b.link, pass_of(100 + i, 1, sizes[n - 1 - i])), STATUS_OK);
    }
    assert_true(link_queued_bytes(p.a.link) > 0); /* the loop was not held for all of it */
    RUN_UNTIL(&p.loop, p.a.n_messages == n && p.b.n_messages == n, 10);
    for (uint32_t i = 0; i < n; i++) {
        check_pass(p.b.messages[i], i, 1, sizes[i]);
        check_pass(p.a.messages[i], 100 + i, 1, sizes[n - 1 - i]);
    }
    assert_true(p.a.n_heard > 0 && p.b.n_heard > 0);
    assert_true(p.a.n_heard < n && p.b.n_heard < n); /* at most once a second */
    RUN_UNTIL(&p.loop, !link_queued_bytes(p.a.link) && !link_queued_bytes(p.b.link), OPEN_SECONDS);
    pair_end(&p);
}

static void test_finish_sends_what_waits(void **state)
{
    struct pair p;

    (void)state;
    pair_open(&p);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(link_send(p.a.link, pass_of(i, 1, 250000)), STATUS_OK);
    link_finish(p.a.link, 5000);
    assert_int_equal(link_send(p.a.link, pass_of(20, 1, 1)), STATUS_CLOSED);
    RUN_UNTIL(&p.loop, p.a.n_closed && p.b.n_closed, 6);
    assert_int_equal(p.a.status, STATUS_OK);
    assert_int_equal(p.b.n_messages, 20);
    pair_end(&p);
}

static void test_closing_at_every_turn_is_reported_once(void **state)
{
    (void)state;
    for (int turn = 0; turn < 12; turn++) {
        struct pair p;

        pair_start(&p, 5);
        for (int i = 0; i < turn; i++)
            (void)uv_run(&p.loop, UV_RUN_NOWAIT);
        if (turn % 2 && p.a.link && link_is_open(p.a.link))
            assert_int_equal(link_send(p.a.link, pass_of(1, 1, 500000)), STATUS_OK);
        link_close(p.a.link);
        RUN_UNTIL(&p.loop, p.a.n_closed, OPEN_SECONDS);
        assert_int_equal(p.a.status, STATUS_OK);
        pair_end(&p);
        assert_true(p.b.n_closed <= 1 && p.b.n_closed >= p.b.n_opened);
    }
}

static void test_sending_on_a_link_that_is_not_open(void **state)
{
    struct pair p;

    (void)state;
    pair_start(&p, 5);
    assert_int_equal(link_send(p.a.link, pass_of(0, 1, 1)), STATUS_CLOSED);
    RUN_UNTIL(&p.loop, p.a.n_opened && p.b.n_opened, OPEN_SECONDS);
    link_close(p.a.link);
    assert_int_equal(link_send(p.a.link, pass_of(0, 1, 1)), STATUS_CLOSED);
    pair_end(&p);
}

static void test_nobody_listens(void **state)
{
    uv_loop_t loop;
    struct end a;
    struct fault fault = {0};
    struct link *link;

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    end_init(&a, 1, 5);
    end_dial(&loop, &a, 1);
    RUN_UNTIL(&loop, a.n_closed, OPEN_SECONDS);
    assert_int_equal(a.status, STATUS_UNREACHABLE);
    assert_non_null(strstr(a.sentence, "127.0.0.1:1"));
    assert_int_equal(link_dial(&loop, 1, "example.org:80", &a.keys, &a.events, &link, &fault),
                     STATUS_INVALID);
    assert_int_equal(link_dial(&loop, 1, "127.0.0.1", &a.keys, &a.events, &link, &fault),
                     STATUS_INVALID);
    assert_null(link);
    assert_int_equal(a.n_closed, 1);
    loop_end(&loop);
}

/* Whatever allocation fails, both ends end in order: open, or closed with a reason. */
static void test_memory_that_runs_out(void **state)
{
    (void)state;
    for (unsigned long n = 1; n < 60; n++) {
        struct pair p;
        struct fault fault = {0};
        char address[64];

        assert_int_equal(uv_loop_init(&p.loop), 0);
        end_init(&p.a, 1, 5);
        end_init(&p.b, 2, 5);
        p.listener = end_listen(&p.loop, &p.b);
        (void)snprintf(address, sizeof address, "127.0.0.1:%u", listener_port(p.listener));
        mem_fail_after(n);
        if (link_dial(&p.loop, 7, address, &p.a.keys, &p.a.events, &p.a.link, &fault) !=
            STATUS_OK) {
            assert_int_equal(fault.status, STATUS_NO_MEMORY);
            p.a.n_closed = 1;
        } else {
            RUN_UNTIL(&p.loop, (p.a.n_opened && p.b.n_opened) || p.a.n_closed, 5);
            if (p.a.link && link_is_open(p.a.link)) {
                struct message *m = message_new(MESSAGE_PING);

                if (m && link_send(p.a.link, m) == STATUS_OK)
                    RUN_UNTIL(&p.loop, p.b.n_messages || p.a.n_closed, 5);
            }
        }
        mem_fail_after(0);
        pair_end(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ends_open_and_know_each_other),
        cmocka_unit_test(test_closing_one_end_closes_the_other),
        cmocka_unit_test(test_another_key_is_told_at_both_ends),
        cmocka_unit_test(test_a_thousand_messages_keep_their_order),
        cmocka_unit_test(test_large_messages_cross),
        cmocka_unit_test(test_finish_sends_what_waits),
        cmocka_unit_test(test_closing_at_every_turn_is_reported_once),
        cmocka_unit_test(test_sending_on_a_link_that_is_not_open),
        cmocka_unit_test(test_nobody_listens),
        cmocka_unit_test(test_memory_that_runs_out),
    };

    (void)signal(SIGPIPE, SIG_IGN); /* as the program does; libuv wants it */
    if (proto_init() != STATUS_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
