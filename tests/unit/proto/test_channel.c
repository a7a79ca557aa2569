/* The channel without sockets: two ends and the bytes between them, which the tests cut, change,
 * repeat and reorder. */
#include "messages.h"
#include "proto/frame.h"

enum { MAX_RECEIVED = 64 };

struct end {
    struct channel *channel;
    unsigned n_open, n_messages;
    uint8_t peer_id[PROTO_ID_BYTES];
    struct message *messages[MAX_RECEIVED];
    struct channel_events events;
    struct proto_identity identity;
};

static void on_open(void *owner, const uint8_t peer_id[static PROTO_ID_BYTES])
{
    struct end *end = owner;

    end->n_open++;
    memcpy(end->peer_id, peer_id, PROTO_ID_BYTES);
}

static void on_message(void *owner, struct message *message)
{
    struct end *end = owner;

    assert_true(end->n_open == 1 && end->n_messages < MAX_RECEIVED);
    end->messages[end->n_messages++] = message;
}

static void count_up(void *owner, uint8_t *out, size_t n)
{
    static uint8_t seed;

    (void)owner;
    memset(out, ++seed, n);
}

static enum status end_new(struct end *end, bool initiator, uint8_t key)
{
    uint8_t cluster_key[PROTO_KEY_BYTES];

    memset(end, 0, sizeof *end);
    memset(cluster_key, key, sizeof cluster_key);
    end->identity.secret_key[0] = initiator ? 1 : 2;
    proto_identity_complete(&end->identity);
    end->events = (struct channel_events){on_open, on_message, end};
    return channel_new(initiator, &end->identity, cluster_key, count_up, NULL, &end->channel);
}

static void end_free(struct end *end)
{
    for (unsigned i = 0; i < end->n_messages; i++)
        message_free(&end->messages[i]);
    channel_free(&end->channel);
}

static struct buffer take_output(struct end *end)
{
    struct buffer out = {0};

    assert_int_equal(channel_output(end->channel, &out), STATUS_OK);
    return out;
}

static enum status give(struct end *end, const uint8_t *bytes, size_t n, struct fault *fault)
{
    return channel_receive(end->channel, bytes, n, &end->events, fault);
}

/* Carries what waits from one end to the other. */
static enum status carry(struct end *from, struct end *to, struct fault *fault)
{
    struct buffer wire = take_output(from);
    enum status status = give(to, wire.data, wire.len, fault);

    buffer_free(&wire);
    return status;
}

/* a initiates, b responds; both open. */
static void open_pair(struct end *a, struct end *b)
{
    assert_int_equal(end_new(a, true, 5), STATUS_OK);
    assert_int_equal(end_new(b, false, 5), STATUS_OK);
    for (int i = 0; i < 4; i++)
        assert_int_equal(i % 2 ? carry(b, a, NULL) : carry(a, b, NULL), STATUS_OK);
    assert_int_equal(a->n_open + b->n_open, 2);
}

static void send_kind(struct end *end, enum message_kind kind)
{
    struct message *m = message_full(kind);

    assert_int_equal(channel_send(end->channel, m), STATUS_OK);
    message_free(&m);
}

/* ---------------------------------------------------------------- opening */

static void test_both_ends_open(void **state)
{
    struct end a, b;
    uint8_t x[32], y[32];

    (void)state;
    open_pair(&a, &b);
    assert_memory_equal(a.peer_id, b.identity.public_key, 32);
    assert_memory_equal(b.peer_id, a.identity.public_key, 32);
    channel_binding(a.channel, x);
    channel_binding(b.channel, y);
    assert_memory_equal(x, y, 32);
    end_free(&a);
    end_free(&b);
}

static void test_responder_is_sure_first(void **state)
{
    struct end a, b;
    struct message *m = message_new(MESSAGE_PING);

    (void)state;
    assert_int_equal(end_new(&a, true, 5), STATUS_OK);
    assert_int_equal(end_new(&b, false, 5), STATUS_OK);
    assert_int_equal(channel_send(a.channel, m), STATUS_CLOSED);
    assert_int_equal(carry(&a, &b, NULL), STATUS_OK);
    assert_int_equal(channel_send(b.channel, m), STATUS_CLOSED);
    assert_false(channel_handshake_done(a.channel));
    assert_int_equal(carry(&b, &a, NULL), STATUS_OK);
    assert_true(channel_handshake_done(a.channel) && !channel_handshake_done(b.channel));
    assert_int_equal(channel_send(a.channel, m), STATUS_CLOSED);
    assert_int_equal(a.n_open, 0);
    assert_int_equal(carry(&a, &b, NULL), STATUS_OK);
    assert_int_equal(b.n_open, 1);
    assert_int_equal(channel_send(b.channel, m), STATUS_OK);
    assert_int_equal(carry(&b, &a, NULL), STATUS_OK); /* confirmation and message in one piece */
    assert_true(a.n_open == 1 && a.n_messages == 1);
    message_free(&m);
    end_free(&a);
    end_free(&b);
}

static void test_another_cluster_key(void **state)
{
    struct end a, b;
    struct fault fault = {0};

    (void)state;
    assert_int_equal(end_new(&a, true, 5), STATUS_OK);
    assert_int_equal(end_new(&b, false, 6), STATUS_OK);
    assert_int_equal(carry(&a, &b, NULL), STATUS_OK);
    assert_int_equal(carry(&b, &a, NULL), STATUS_OK);
    assert_int_equal(carry(&a, &b, &fault), STATUS_AUTH);
    assert_string_equal(fault.text, CHANNEL_OTHER_KEY);
    assert_true(channel_handshake_done(a.channel)); /* what the link tells it by */
    assert_int_equal(a.n_open + b.n_open, 0);
    assert_int_equal(give(&b, (const uint8_t *)"x", 1, &fault), STATUS_CLOSED);
    assert_int_equal(take_output(&b).len, 0);
    end_free(&a);
    end_free(&b);
}

static void test_every_flip_in_the_handshake(void **state)
{
    static const size_t lengths[] = {50, 98, 66, 18};

    (void)state;
    for (unsigned turn = 0; turn < 4; turn++) {
        for (size_t bit = 0; bit < 8 * lengths[turn]; bit += 3) {
            struct end a, b, *from, *to;
            struct buffer wire;
            struct fault fault = {0};

            assert_int_equal(end_new(&a, true, 5), STATUS_OK);
            assert_int_equal(end_new(&b, false, 5), STATUS_OK);
            for (unsigned i = 0; i < turn; i++)
                assert_int_equal(i % 2 ? carry(&b, &a, NULL) : carry(&a, &b, NULL), STATUS_OK);
            from = turn % 2 ? &b : &a;
            to = turn % 2 ? &a : &b;
            wire = take_output(from);
            assert_int_equal(wire.len, lengths[turn]);
            wire.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(give(to, wire.data, wire.len, &fault),
                             bit < 16 ? STATUS_FORMAT : STATUS_AUTH);
            assert_int_equal(to->n_open, 0);
            assert_true(fault.text[0] != 0);
            buffer_free(&wire);
            end_free(&a);
            end_free(&b);
        }
    }
}

static void test_strangers_are_refused_at_two_bytes(void **state)
{
    static const char *const words[] = {"GET / HTTP/1.1", "\x16\x03\x01", "SSH-",    "\x00\x00",
                                        "\x00\x2f",       "\x00\x31",     "\xff\xff"};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        struct end b;
        struct fault fault = {0};

        assert_int_equal(end_new(&b, false, 5), STATUS_OK);
        assert_int_equal(give(&b, (const uint8_t *)words[i], 2, &fault), STATUS_FORMAT);
        assert_non_null(strstr(fault.text, "does not speak"));
        end_free(&b);
    }
}

/* ---------------------------------------------------------------- messages */

static void test_every_kind_travels(void **state)
{
    struct end a, b;

    (void)state;
    open_pair(&a, &b);
    for (int kind = 1; kind < MESSAGE_KIND_LIMIT; kind++) {
        struct message *m = message_full((enum message_kind)kind);

        assert_int_equal(channel_send(a.channel, m), STATUS_OK);
        assert_int_equal(carry(&a, &b, NULL), STATUS_OK);
        assert_int_equal(b.n_messages, kind);
        assert_same_message(m, b.messages[kind - 1]);
        if (m->payload_bytes)
            assert_int_equal((uintptr_t)b.messages[kind - 1]->payload % 64, 0);
        message_free(&m);
    }
    end_free(&a);
    end_free(&b);
}

static struct message *pass_bytes(size_t n_bytes)
{
    struct message *m = message_new(MESSAGE_PASS);

    assert_non_null(m);
    m->pass.n_rows = 1;
    fill_payload(m, n_bytes);
    return m;
}

/* Every size around the place where a payload stops sharing the first record, and around multiples
 * of a record. */
static void test_payloads_around_record_limits(void **state)
{
    struct end a, b;
    size_t around[] = {4, FRAME_RECORD_BYTES - 60, FRAME_RECORD_BYTES, 2 * FRAME_RECORD_BYTES};

    (void)state;
    open_pair(&a, &b);
    for (size_t i = 0; i < COUNT_OF(around); i++) {
        for (size_t n = around[i] & ~(size_t)3, k = 0; k < 24; k++, n += 4) {
            struct message *m = pass_bytes(n);

            assert_int_equal(channel_send(a.channel, m), STATUS_OK);
            assert_int_equal(carry(&a, &b, NULL), STATUS_OK);
            assert_int_equal(b.n_messages, 1);
            assert_same_message(m, b.messages[0]);
            message_free(&b.messages[0]);
            b.n_messages = 0;
            message_free(&m);
        }
    }
    end_free(&a);
    end_free(&b);
}

static void test_the_largest_payload(void **state)
{
    struct end a, b;
    struct message *m = pass_bytes(PROTO_MAX_PAYLOAD_BYTES);

    (void)state;
    open_pair(&a, &b);
    assert_int_equal(channel_send(a.channel, m), STATUS_OK);
    assert_int_equal(carry(&a, &b, NULL), STATUS_OK);
    assert_int_equal(b.n_messages, 1);
    assert_same_message(m, b.messages[0]);
    m->payload_bytes += 4;
    assert_int_equal(channel_send(a.channel, m), STATUS_LIMIT);
    m->payload_bytes -= 4;
    assert_int_equal(take_output(&a).len, 0); /* nothing of it went out */
    message_free(&m);
    send_kind(&a, MESSAGE_PING); /* and the channel lives on */
    assert_int_equal(carry(&a, &b, NULL), STATUS_OK);
    assert_int_equal(b.n_messages, 2);
    end_free(&a);
    end_free(&b);
}

static void test_slices_make_the_same_stream(void **state)
{
    struct end a, b;
    struct message *m = pass_bytes(400000);
    unsigned n_calls = 0;
    bool done = false;

    (void)state;
    open_pair(&a, &b);
    assert_int_equal(channel_send_begin(a.channel, m), STATUS_OK);
    while (!done) {
        struct buffer wire;

        assert_int_equal(channel_send_more(a.channel, 70000, &done), STATUS_OK);
        wire = take_output(&a);
        assert_true(wire.len <= 3 * (PROTO_RECORD_BYTES + 2));
        assert_int_equal(give(&b, wire.data, wire.len, NULL), STATUS_OK);
        assert_int_equal(b.n_messages, done);
        buffer_free(&wire);
        n_calls++;
    }
    assert_in_range(n_calls, 3, 6);
    assert_same_message(m, b.messages[0]);
    message_free(&m);
    end_free(&a);
    end_free(&b);
}

static void test_byte_by_byte_and_all_at_once(void **state)
{
    for (size_t step = 1; step < 300000; step = step * 7 + 1) {
        struct end a, b;
        struct buffer wire;

        (void)state;
        open_pair(&a, &b);
        for (int kind = 1; kind < MESSAGE_KIND_LIMIT; kind++)
            if (kind != MESSAGE_SUBMIT) /* 8 MB: too long byte by byte */
                send_kind(&a, (enum message_kind)kind);
        wire = take_output(&a);
        for (size_t at = 0; at < wire.len; at += step)
            assert_int_equal(
                give(&b, wire.data + at, wire.len - at < step ? wire.len - at : step, NULL),
                STATUS_OK);
        assert_int_equal(b.n_messages, MESSAGE_KIND_LIMIT - 2);
        buffer_free(&wire);
        end_free(&a);
        end_free(&b);
    }
}

/* ---------------------------------------------------------------- attacks on records */

static bool lies_in_length(const struct buffer *wire, size_t at)
{
    size_t i = 0;

    while (i + 2 <= at)
        i += 2 + ((size_t)wire->data[i] << 8 | wire->data[i + 1]);
    return i <= at && at < i + 2;
}

static void test_flips_in_records(void **state)
{
    struct end probe, other;
    struct buffer wire;
    size_t n;

    (void)state;
    open_pair(&probe, &other);
    send_kind(&probe, MESSAGE_ACCEPTED); /* several records */
    wire = take_output(&probe);
    n = wire.len;
    buffer_free(&wire);
    end_free(&probe);
    end_free(&other);
    for (size_t bit = 0; bit < 8 * n; bit += bit < 1000 ? 1 : 50021) {
        struct end a, b;
        struct fault fault = {0};
        enum status status;
        bool in_length;

        open_pair(&a, &b);
        send_kind(&a, MESSAGE_ACCEPTED);
        wire = take_output(&a);
        in_length = lies_in_length(&wire, bit / 8);
        wire.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        status = give(&b, wire.data, wire.len, &fault);
        if (in_length) /* it may also make the end wait for bytes that do not come */
            assert_true(status == STATUS_AUTH || status == STATUS_FORMAT || status == STATUS_OK);
        else
            assert_int_equal(status, STATUS_AUTH);
        assert_int_equal(b.n_messages, 0);
        buffer_free(&wire);
        end_free(&a);
        end_free(&b);
    }
}

static void test_replayed_lost_and_swapped_records(void **state)
{
    static const int orders[][3] = {{0, 0, 1}, {1, 0, 2}, {0, 2, 1}, {2, 1, 0}, {0, 1, 1}};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(orders); i++) {
        struct end a, b;
        struct buffer wires[3];
        enum status status = STATUS_OK;
        unsigned good = 0;

        open_pair(&a, &b);
        for (int k = 0; k < 3; k++) {
            send_kind(&a, MESSAGE_PING);
            wires[k] = take_output(&a);
        }
        for (int k = 0; k < 3 && status == STATUS_OK; k++) {
            const struct buffer *wire = &wires[orders[i][k]];

            status = give(&b, wire->data, wire->len, NULL);
            good += status == STATUS_OK;
        }
        assert_int_equal(status, STATUS_AUTH);
        assert_int_equal(b.n_messages, good);
        for (int k = 0; k < 3; k++)
            buffer_free(&wires[k]);
        end_free(&a);
        end_free(&b);
    }
}

static void test_records_sent_back(void **state)
{
    struct end a, b;

    (void)state;
    open_pair(&a, &b);
    send_kind(&a, MESSAGE_PING);
    assert_int_equal(carry(&a, &a, NULL), STATUS_AUTH);
    end_free(&a);
    end_free(&b);
}

static void test_truncated_stream_delivers_nothing(void **state)
{
    struct end a, b;
    struct buffer wire;

    (void)state;
    open_pair(&a, &b);
    send_kind(&a, MESSAGE_TOKENS);
    wire = take_output(&a);
    for (size_t i = 0; i + 1 < wire.len; i++) {
        assert_int_equal(give(&b, wire.data + i, 1, NULL), STATUS_OK);
        assert_int_equal(b.n_messages, 0);
    }
    assert_int_equal(give(&b, wire.data + wire.len - 1, 1, NULL), STATUS_OK);
    assert_int_equal(b.n_messages, 1);
    buffer_free(&wire);
    end_free(&a);
    end_free(&b);
}

/* ---------------------------------------------------------------- memory */

static void test_every_allocation_may_fail(void **state)
{
    unsigned n_ok = 0;

    (void)state;
    for (unsigned long n = 1; n < 40; n++) {
        struct end a = {0}, b = {0};
        enum status status;
        struct message *m = pass_bytes(200000);

        mem_fail_after(n);
        status = end_new(&a, true, 5);
        if (status == STATUS_OK)
            status = end_new(&b, false, 5);
        for (int i = 0; i < 4 && status == STATUS_OK; i++)
            status = i % 2 ? carry(&b, &a, NULL) : carry(&a, &b, NULL);
        if (status == STATUS_OK)
            status = channel_send(a.channel, m);
        if (status == STATUS_OK)
            status = carry(&a, &b, NULL);
        mem_fail_after(0);
        assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
        n_ok += status == STATUS_OK;
        message_free(&m);
        end_free(&a);
        end_free(&b);
    }
    assert_in_range(n_ok, 1, 38); /* some failed, and in the end all allocations were passed */
}

static void test_output_appends(void **state)
{
    struct end a, b;
    struct buffer wire = {0};
    struct message *m = message_new(MESSAGE_PING);

    (void)state;
    open_pair(&a, &b);
    for (unsigned i = 0; i < 5; i++) {
        m->stamp_us = i;
        assert_int_equal(channel_send(a.channel, m), STATUS_OK);
        assert_int_equal(channel_output(a.channel, &wire), STATUS_OK);
    }
    assert_int_equal(give(&b, wire.data, wire.len, NULL), STATUS_OK);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(b.messages[i]->stamp_us, i);
    wire.len = 0;
    wire.max_bytes = 10;
    assert_int_equal(channel_send(a.channel, m), STATUS_OK);
    assert_int_equal(channel_output(a.channel, &wire), STATUS_LIMIT);
    wire.max_bytes = 0;
    assert_int_equal(channel_output(a.channel, &wire), STATUS_OK); /* nothing was lost */
    assert_int_equal(give(&b, wire.data, wire.len, NULL), STATUS_OK);
    assert_int_equal(b.n_messages, 6);
    buffer_free(&wire);
    message_free(&m);
    end_free(&a);
    end_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ends_open),
        cmocka_unit_test(test_responder_is_sure_first),
        cmocka_unit_test(test_another_cluster_key),
        cmocka_unit_test(test_every_flip_in_the_handshake),
        cmocka_unit_test(test_strangers_are_refused_at_two_bytes),
        cmocka_unit_test(test_every_kind_travels),
        cmocka_unit_test(test_payloads_around_record_limits),
        cmocka_unit_test(test_the_largest_payload),
        cmocka_unit_test(test_slices_make_the_same_stream),
        cmocka_unit_test(test_byte_by_byte_and_all_at_once),
        cmocka_unit_test(test_flips_in_records),
        cmocka_unit_test(test_replayed_lost_and_swapped_records),
        cmocka_unit_test(test_records_sent_back),
        cmocka_unit_test(test_truncated_stream_delivers_nothing),
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_output_appends),
    };

    if (proto_init() != STATUS_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
