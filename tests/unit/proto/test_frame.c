/* Framing on its own: the cutting of messages into records, and first records whose lengths lie. */
#include "messages.h"
#include "proto/frame.h"

static struct frame_reader reader;

static void start(void)
{
    frame_reader_clear(&reader);
    reader.payload_at_bytes = 0;
}

/* A first record with these two lengths, the header of a ping or of a pass, and extra bytes. */
static enum status first(uint32_t length, uint32_t header_length, const struct message *m,
                         size_t extra, struct message **out)
{
    uint8_t header[256];
    size_t n;

    start();
    assert_int_equal(message_pack(m, header, sizeof header, &n), STATUS_OK);
    bytes_put_u32(reader.first, length);
    bytes_put_u32(reader.first + 4, header_length);
    memcpy(reader.first + 8, header, n);
    memset(reader.first + 8 + n, 0x55, extra);
    return frame_reader_take(&reader, 8 + n + extra, out, NULL);
}

static size_t header_bytes_of(const struct message *m)
{
    uint8_t header[256];
    size_t n;

    assert_int_equal(message_pack(m, header, sizeof header, &n), STATUS_OK);
    return n;
}

static void test_lengths_that_lie(void **state)
{
    struct message *m = message_full(MESSAGE_PING), *out = NULL;
    uint32_t n = (uint32_t)header_bytes_of(m);

    (void)state;
    assert_int_equal(first(4 + n, n, m, 0, &out), STATUS_OK);
    message_free(&out);
    assert_int_equal(first(0, n, m, 0, &out), STATUS_FORMAT);
    assert_int_equal(first(3, 0, m, 0, &out), STATUS_FORMAT);
    assert_int_equal(first(3 + n, n, m, 0, &out), STATUS_FORMAT);
    assert_int_equal(first(5 + n, n, m, 0, &out), STATUS_FORMAT);
    assert_int_equal(first(4 + n, n + 1, m, 0, &out), STATUS_FORMAT);
    assert_int_equal(first(4 + n, n - 1, m, 0, &out), STATUS_FORMAT);
    assert_int_equal(first(UINT32_MAX, n, m, 0, &out), STATUS_LIMIT);
    assert_int_equal(first(UINT32_MAX, UINT32_MAX, m, 0, &out), STATUS_FORMAT);
    assert_int_equal(first(4 + n, UINT32_MAX, m, 0, &out), STATUS_FORMAT);
    assert_int_equal(first(4 + n, n, m, 1, &out), STATUS_FORMAT);
    assert_int_equal(first(5 + n, n, m, 1, &out), STATUS_FORMAT); /* a ping has no payload */
    assert_null(out);
    message_free(&m);
}

static void test_there_is_one_way_to_cut(void **state)
{
    struct message *m = message_new(MESSAGE_PASS), *out = NULL;
    uint32_t n, max;

    (void)state;
    m->pass.n_rows = 1;
    fill_payload(m, 4);
    n = (uint32_t)header_bytes_of(m);
    max = FRAME_RECORD_BYTES - 8 - n;
    max &= ~3u;
    assert_int_equal(first(4 + n + 8, n, m, 8, &out), STATUS_OK);
    message_free(&out);
    assert_int_equal(first(4 + n + 8, n, m, 0, &out), STATUS_FORMAT); /* would have fitted */
    assert_int_equal(first(4 + n + 8, n, m, 4, &out), STATUS_FORMAT);
    assert_int_equal(first(4 + n + max, n, m, max, &out), STATUS_OK);
    message_free(&out);
    assert_int_equal(first(4 + n + max + 4, n, m, max, &out), STATUS_FORMAT);
    assert_int_equal(first(4 + n + max + 4, n, m, 0, &out), STATUS_OK); /* begins */
    assert_null(out);
    start();
    assert_int_equal(first(4 + n + PROTO_MAX_PAYLOAD_BYTES, n, m, 0, &out), STATUS_OK);
    start();
    assert_int_equal(first(4 + n + PROTO_MAX_PAYLOAD_BYTES + 4, n, m, 0, &out), STATUS_LIMIT);
    message_free(&m);
}

static void test_payload_goes_to_its_place(void **state)
{
    struct message *m = message_new(MESSAGE_PASS), *out = NULL;
    uint8_t record[FRAME_RECORD_BYTES];
    size_t n, with, min, max, at = 0;

    (void)state;
    start();
    m->pass.n_rows = 1;
    fill_payload(m, 2 * FRAME_RECORD_BYTES + 2);
    assert_int_equal(frame_write(m, record, &n, &with), STATUS_OK);
    assert_int_equal(with, 0);
    frame_reader_bounds(&reader, &min, &max);
    assert_true(min == FRAME_PREFIX_BYTES && max == FRAME_RECORD_BYTES);
    memcpy(frame_reader_place(&reader), record, n);
    assert_int_equal(frame_reader_take(&reader, n, &out, NULL), STATUS_OK);
    while (!out) {
        frame_reader_bounds(&reader, &min, &max);
        assert_int_equal(min, max);
        memcpy(frame_reader_place(&reader), m->payload + at, max);
        at += max;
        assert_int_equal(frame_reader_take(&reader, max, &out, NULL), STATUS_OK);
    }
    assert_int_equal(at, m->payload_bytes);
    assert_same_message(m, out);
    message_free(&out);
    message_free(&m);
}

static void test_no_memory_for_the_payload(void **state)
{
    struct message *m = message_new(MESSAGE_PASS), *out = NULL;
    uint32_t n;

    (void)state;
    m->pass.n_rows = 1;
    fill_payload(m, 8);
    n = (uint32_t)header_bytes_of(m);
    for (unsigned long k = 1; k <= 2; k++) {
        mem_fail_after(k);
        assert_int_equal(first(4 + n + 8, n, m, 8, &out), STATUS_NO_MEMORY);
        assert_null(out);
    }
    mem_fail_after(0);
    message_free(&m);
}

static int finish(void **state)
{
    (void)state;
    start();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_lengths_that_lie, finish),
        cmocka_unit_test_teardown(test_there_is_one_way_to_cut, finish),
        cmocka_unit_test_teardown(test_payload_goes_to_its_place, finish),
        cmocka_unit_test_teardown(test_no_memory_for_the_payload, finish),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
