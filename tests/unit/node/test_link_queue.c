/* The send queue: order, bounds by bytes, what still counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/net/link.h"
#include "node/net/queue.h"

/* A message that says it is that long; nobody looks at its payload here. */
static struct message *sized(size_t payload_bytes, uint64_t number)
{
    struct message *m = message_new(MESSAGE_PASS);

    m->payload_bytes = payload_bytes;
    m->pass.pass = number;
    return m;
}

static void test_first_in_first_out(void **state)
{
    struct message_queue queue = {0};
    uint64_t in = 0, out = 0;

    (void)state;
    for (unsigned round = 0; round < 50; round++) { /* grows and wraps */
        for (unsigned i = 0; i < 7; i++)
            assert_int_equal(message_queue_put(&queue, sized(100, in++)), STATUS_OK);
        for (unsigned i = 0; i < 5; i++) {
            struct message *m = message_queue_take(&queue);

            assert_int_equal(m->pass.pass, out++);
            message_queue_drop(&queue, &m);
            assert_null(m);
        }
    }
    assert_int_equal(queue.n, in - out);
    message_queue_free(&queue);
    assert_int_equal(queue.bytes, 0);
    assert_null(message_queue_take(&queue));
    message_queue_free(&queue);
}

static void test_bulk_is_refused_before_the_rest(void **state)
{
    struct message_queue queue = {0};
    struct message *bulk = sized(PROTO_MAX_PAYLOAD_BYTES, 0), *small = sized(100, 0);
    unsigned n = 0;

    (void)state;
    while (queue.bytes <= LINK_BULK_QUEUE_BYTES) {
        assert_int_equal(message_queue_put(&queue, sized(PROTO_MAX_PAYLOAD_BYTES, 0)), STATUS_OK);
        n++;
    }
    assert_int_equal(n, 2);
    assert_int_equal(message_queue_put(&queue, bulk), STATUS_BUSY);
    while (message_queue_put(&queue, small) == STATUS_OK)
        small = sized(LINK_BULK_BYTES / 2, 0);
    assert_true(queue.bytes <= LINK_QUEUE_BYTES);
    assert_true(queue.bytes > LINK_QUEUE_BYTES - LINK_BULK_BYTES);
    message_free(&bulk);
    message_free(&small);
    message_queue_free(&queue);
}

static void test_what_was_taken_still_counts(void **state)
{
    struct message_queue queue = {0};
    struct message *m;

    (void)state;
    assert_int_equal(message_queue_put(&queue, sized(1000, 0)), STATUS_OK);
    m = message_queue_take(&queue);
    assert_true(queue.bytes > 1000);
    message_queue_drop(&queue, &m);
    assert_int_equal(queue.bytes, 0);
    message_queue_drop(&queue, &m);
    message_queue_free(&queue);
}

static void test_refused_messages_stay_the_callers(void **state)
{
    struct message_queue queue = {0};
    struct message *m = sized(SIZE_MAX, 0);

    (void)state;
    assert_int_equal(message_queue_put(&queue, m), STATUS_LIMIT);
    m->payload_bytes = 0;
    mem_fail_after(1);
    assert_int_equal(message_queue_put(&queue, m), STATUS_NO_MEMORY);
    mem_fail_after(0);
    assert_int_equal(queue.bytes, 0);
    message_free(&m);
    message_queue_free(&queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_in_first_out),
        cmocka_unit_test(test_bulk_is_refused_before_the_rest),
        cmocka_unit_test(test_what_was_taken_still_counts),
        cmocka_unit_test(test_refused_messages_stay_the_callers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
