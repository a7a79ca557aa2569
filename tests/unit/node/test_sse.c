/* Event streams: what is written can be read in any pieces, bounds hold, nothing is half sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "node/api/http.h"
#include "node/cli/sse_reader.h"

struct got {
    char text[4096];
    int n, stop_at;
};

static bool on_data(void *owner, const char *data, size_t n_bytes)
{
    struct got *got = owner;

    assert_int_equal(strlen(data), n_bytes);
    (void)strncat(got->text, "[", sizeof got->text - strlen(got->text) - 1);
    (void)strncat(got->text, data, sizeof got->text - strlen(got->text) - 1);
    (void)strncat(got->text, "]", sizeof got->text - strlen(got->text) - 1);
    return ++got->n != got->stop_at;
}

static enum status feed(struct sse_reader *reader, const char *text, struct got *got)
{
    return sse_reader_feed(reader, text, strlen(text), on_data, got);
}

static void test_writes_events(void **state)
{
    struct sse sse = {.out.max_bytes = 1000};
    json_t *value = json_pack("{s:s}", "a", "x\ny");
    char out[200];
    size_t n;

    (void)state;
    assert_int_equal(sse_event(&sse, value), STATUS_OK);
    assert_int_equal(sse_comment(&sse), STATUS_OK);
    assert_int_equal(sse_text(&sse, "[DONE]"), STATUS_OK);
    n = sse_take(&sse, out, sizeof out - 1);
    out[n] = '\0';
    assert_string_equal(out, "data: {\"a\":\"x\\ny\"}\n\n:\n\ndata: [DONE]\n\n");
    assert_int_equal(sse_waiting(&sse), 0);
    json_decref(value);
    sse_free(&sse);
}

static void test_bound_keeps_whole_events(void **state)
{
    struct sse sse = {.out.max_bytes = 64};
    char out[100];
    size_t n;

    (void)state;
    assert_int_equal(sse_text(&sse, "0123456789"), STATUS_OK);
    assert_int_equal(sse_text(&sse, "0123456789"), STATUS_OK);
    assert_int_equal(sse_text(&sse, "0123456789"), STATUS_OK);
    assert_int_equal(sse_text(&sse, "0123456789"), STATUS_LIMIT);
    n = sse_take(&sse, out, 20);
    assert_int_equal(n, 20);
    n += sse_take(&sse, out + n, 80);
    assert_int_equal(n, 3 * 18);
    /* what was taken makes room */
    assert_int_equal(sse_text(&sse, "0123456789"), STATUS_OK);
    sse_free(&sse);
}

static void test_taking_in_small_pieces(void **state)
{
    struct sse sse = {.out.max_bytes = 4096};
    char all[4096];
    size_t n = 0;

    (void)state;
    for (int i = 0; i < 50; i++) {
        char line[16];
        (void)snprintf(line, sizeof line, "%d", i);
        assert_int_equal(sse_text(&sse, line), STATUS_OK);
        for (int k = 0; k < 3; k++)
            n += sse_take(&sse, all + n, 1);
    }
    while (n < sizeof all && sse_take(&sse, all + n, 1))
        n++;
    for (int i = 0, at = 0; i < 50; i++) {
        char line[32];
        (void)snprintf(line, sizeof line, "data: %d\n\n", i);
        assert_memory_equal(all + at, line, strlen(line));
        at += (int)strlen(line);
    }
    sse_free(&sse);
}

static void test_event_without_memory(void **state)
{
    struct sse sse = {.out.max_bytes = 1000};
    json_t *value = json_string("x");

    (void)state;
    assert_int_equal(sse_event(&sse, NULL), STATUS_NO_MEMORY);
    mem_fail_after(1);
    assert_int_equal(sse_event(&sse, value), STATUS_NO_MEMORY);
    mem_fail_after(0);
    assert_int_equal(sse_waiting(&sse), 0);
    assert_int_equal(sse_event(&sse, value), STATUS_OK);
    json_decref(value);
    sse_free(&sse);
}

static void test_reads_in_any_pieces(void **state)
{
    static const char text[] = ": hello\n\ndata: one\n\nevent: x\ndata:two\r\ndata: lines\r\n\r\n"
                               "data: [DONE]\r\rdata: unfinished";
    (void)state;
    for (size_t step = 1; step < sizeof text; step++) {
        struct sse_reader reader = {0};
        struct got got = {.text = ""};
        for (size_t at = 0; at < sizeof text - 1; at += step) {
            size_t n = sizeof text - 1 - at < step ? sizeof text - 1 - at : step;
            assert_int_equal(sse_reader_feed(&reader, text + at, n, on_data, &got), STATUS_OK);
        }
        assert_string_equal(got.text, "[one][two\nlines][[DONE]]");
        sse_reader_free(&reader);
    }
}

static void test_reader_stops(void **state)
{
    struct sse_reader reader = {0};
    struct got got = {.text = "", .stop_at = 2};

    (void)state;
    assert_int_equal(feed(&reader, "data: a\n\ndata: b\n\ndata: c\n\n", &got), STATUS_CANCELLED);
    assert_string_equal(got.text, "[a][b]");
    sse_reader_free(&reader);
}

static void test_reader_is_bounded(void **state)
{
    struct sse_reader reader = {0};
    struct got got = {.text = ""};
    char chunk[4096];
    enum status status = STATUS_OK;

    (void)state;
    memset(chunk, 'x', sizeof chunk);
    for (int i = 0; i <= SSE_READER_MAX_BYTES / 4096 && status == STATUS_OK; i++)
        status = sse_reader_feed(&reader, chunk, sizeof chunk, on_data, &got);
    assert_int_equal(status, STATUS_LIMIT);
    sse_reader_free(&reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writes_events),
        cmocka_unit_test(test_bound_keeps_whole_events),
        cmocka_unit_test(test_taking_in_small_pieces),
        cmocka_unit_test(test_event_without_memory),
        cmocka_unit_test(test_reads_in_any_pieces),
        cmocka_unit_test(test_reader_stops),
        cmocka_unit_test(test_reader_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
