/* What everything stands on: status table, faults, log, memory that can be made to fail, bounded
 * reading and growing, text checks, sizes, checked state machines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/base/base.h"

/* ---------------------------------------------------------------- status */

static void test_every_status_has_its_columns(void **state)
{
    (void)state;
    for (int i = 0; i < STATUS_COUNT; i++) {
        enum status s = (enum status)i;

        assert_true(strlen(status_name(s)) > 1 && strlen(status_words(s)) > 1);
        assert_true((status_exit_code(s) == 0) == (s == STATUS_OK));
        assert_true((status_http(s) == 200) == (s == STATUS_OK));
        assert_int_equal(status_from_number((unsigned)i), s);
        for (int k = 0; k < i; k++)
            assert_string_not_equal(status_name(s), status_name((enum status)k));
    }
    assert_int_equal(status_from_number(STATUS_COUNT), STATUS_INTERNAL);
    assert_int_equal(status_from_number(~0u), STATUS_INTERNAL);
    assert_string_equal(status_name((enum status)999), "?");
}

static void test_numbers_that_travel_stay(void **state)
{
    (void)state;
    assert_int_equal(STATUS_OK, 0);
    assert_int_equal(STATUS_NO_MEMORY, 1);
    assert_int_equal(STATUS_AUTH, 11);
    assert_int_equal(STATUS_INTERNAL, 20);
}

static void test_status_of_errno(void **state)
{
    (void)state;
    assert_int_equal(status_from_errno(0), STATUS_OK);
    assert_int_equal(status_from_errno(ENOENT), STATUS_NOT_FOUND);
    assert_int_equal(status_from_errno(EACCES), STATUS_PERMISSION);
    assert_int_equal(status_from_errno(EADDRINUSE), STATUS_IN_USE);
    assert_int_equal(status_from_errno(ECONNREFUSED), STATUS_UNREACHABLE);
    assert_int_equal(status_from_errno(EIO), STATUS_IO);
}

static void test_faults(void **state)
{
    struct fault fault;
    char big[2000];

    (void)state;
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = 0;
    assert_int_equal(fault_set(&fault, STATUS_LIMIT, "%d of %s", 3, "these"), STATUS_LIMIT);
    assert_string_equal(fault.text, "3 of these");
    assert_int_equal(fault_prefix(&fault, "file %s", "a"), STATUS_LIMIT);
    assert_string_equal(fault.text, "file a: 3 of these");
    assert_int_equal(fault_set(NULL, STATUS_IO, "nobody listens"), STATUS_IO);
    assert_int_equal(fault_prefix(NULL, "nobody"), STATUS_INTERNAL);
    assert_int_equal(fault_set(&fault, STATUS_IO, "%s", big), STATUS_IO);
    assert_int_equal(strlen(fault.text), sizeof fault.text - 1);
    assert_int_equal(fault_prefix(&fault, "%s", big), STATUS_IO);
    assert_int_equal(strlen(fault.text), sizeof fault.text - 1);
}

/* ---------------------------------------------------------------- log */

struct seen {
    char line[2048];
    unsigned n;
    enum log_level level;
};

static void see(void *owner, enum log_level level, const char *line)
{
    struct seen *seen = owner;

    seen->n++;
    seen->level = level;
    (void)snprintf(seen->line, sizeof seen->line, "%s", line);
}

static void test_log(void **state)
{
    struct seen seen = {.n = 0};
    enum log_level level, before = log_level_get();
    char big[3000];

    (void)state;
    memset(big, 'y', sizeof big);
    big[sizeof big - 1] = 0;
    log_to(see, &seen);
    log_level_set(LOG_INFO);
    log_event(LOG_DEBUG, "net", "not seen");
    assert_int_equal(seen.n, 0);
    log_event(LOG_WARN, "net", "peer lost name=%s", "a\x1b[2J\nb\x7f");
    assert_int_equal(seen.n, 1);
    assert_string_equal(seen.line, "net peer lost name=a?[2J?b?");
    assert_int_equal(seen.level, LOG_WARN);
    log_event(LOG_ERROR, "net", "%s", big);
    assert_true(seen.n == 2 && strlen(seen.line) < sizeof big);
    assert_true(log_level_parse("debug", &level) && level == LOG_DEBUG);
    assert_false(log_level_parse("loud", &level));
    log_to(NULL, NULL);
    log_level_set(before);
}

/* ---------------------------------------------------------------- memory */

static void test_memory(void **state)
{
    uint8_t *p = mem_zeroed(4, 8);

    (void)state;
    for (int i = 0; i < 32; i++)
        assert_int_equal(p[i], 0);
    p = mem_resize(p, 100, 8);
    assert_non_null(p);
    mem_free(p);
    for (size_t alignment = 16; alignment <= 4096; alignment *= 2) {
        p = mem_aligned(alignment, 3, 7);
        assert_int_equal((uintptr_t)p % alignment, 0);
        memset(p, 1, 21);
        mem_free(p);
    }
    p = mem_zeroed(0, 5);
    assert_non_null(p);
    mem_free(p);
    mem_free(NULL);
    p = (uint8_t *)mem_text("abc");
    assert_string_equal(p, "abc");
    mem_free(p);
    p = (uint8_t *)mem_text_n("abcdef", 3);
    assert_string_equal(p, "abc");
    mem_free(p);
}

static void test_sizes_that_overflow(void **state)
{
    volatile size_t huge = SIZE_MAX; /* the compiler would warn of a constant */

    (void)state;
    assert_null(mem_zeroed(huge, 2));
    assert_null(mem_zeroed(huge / 2 + 1, 2));
    assert_null(mem_resize(NULL, huge, 2));
    assert_null(mem_aligned(64, huge, 1));
    assert_null(mem_aligned(64, huge / 2, 3));
    assert_null(mem_text_n("x", huge));
}

static void test_the_nth_allocation_fails_once(void **state)
{
    (void)state;
    for (unsigned long n = 1; n < 5; n++) {
        unsigned long n_failed = 0, at = 0;

        mem_fail_after(n);
        for (unsigned long i = 1; i < 8; i++) {
            void *p = i % 2 ? mem_zeroed(1, 1) : mem_aligned(64, 1, 1);

            if (!p) {
                n_failed++;
                at = i;
            }
            mem_free(p);
        }
        assert_true(n_failed == 1 && at == n);
    }
}

/* ---------------------------------------------------------------- bytes */

static void test_reader(void **state)
{
    static const uint8_t data[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    struct reader r = reader_of(data, sizeof data);

    (void)state;
    assert_int_equal(reader_u8(&r), 1);
    assert_int_equal(reader_u16(&r), 0x0302);
    assert_int_equal(reader_u32(&r), 0x07060504);
    assert_int_equal(reader_u64(&r), 0x0f0e0d0c0b0a0908);
    assert_int_equal(reader_left(&r), 1);
    assert_ptr_equal(reader_take(&r, 1), data + 15);
    assert_non_null(reader_take(&r, 0));
    assert_false(r.bad);
    assert_null(reader_take(&r, 1));
    assert_true(r.bad);
    assert_null(reader_take(&r, 0)); /* stays bad */
    assert_int_equal(reader_left(&r), 0);
    r = reader_of(data, 3);
    assert_int_equal(reader_u32(&r), 0);
    assert_true(r.bad);
    assert_int_equal(reader_u8(&r), 0);
    r = reader_of(data, 3);
    assert_null(reader_take(&r, SIZE_MAX));
}

static void test_buffer_grows_to_its_limit(void **state)
{
    struct buffer b = {.max_bytes = 1000};
    uint8_t bytes[300];

    (void)state;
    memset(bytes, 'z', sizeof bytes);
    for (int i = 0; i < 3; i++)
        assert_int_equal(buffer_put(&b, bytes, sizeof bytes), STATUS_OK);
    assert_int_equal(buffer_put(&b, bytes, 101), STATUS_LIMIT);
    assert_int_equal(b.len, 900);
    assert_int_equal(b.data[900], 0);
    assert_int_equal(buffer_put(&b, bytes, 100), STATUS_OK);
    assert_int_equal(buffer_put_u8(&b, 1), STATUS_LIMIT);
    assert_int_equal(buffer_reserve(&b, SIZE_MAX), STATUS_LIMIT);
    buffer_drop_front(&b, 999);
    assert_int_equal(b.len, 1);
    assert_string_equal(b.data, "z");
    buffer_free(&b);
    assert_null(b.data);
    buffer_free(&b);
}

static void test_buffer_writes(void **state)
{
    struct buffer b = {0};
    static const uint8_t expected[] = {0xaa, 4, 3, 2, 1, 8, 7, 6, 5, 4, 3, 2, 1, 'h', 'i', '7'};

    (void)state;
    assert_int_equal(buffer_put(&b, NULL, 0), STATUS_OK);
    assert_int_equal(buffer_put_u8(&b, 0xaa), STATUS_OK);
    assert_int_equal(buffer_put_u32(&b, 0x01020304), STATUS_OK);
    assert_int_equal(buffer_put_u64(&b, 0x0102030405060708), STATUS_OK);
    assert_int_equal(buffer_put_text(&b, "hi"), STATUS_OK);
    assert_int_equal(buffer_printf(&b, "%d", 7), STATUS_OK);
    assert_int_equal(b.len, sizeof expected);
    assert_memory_equal(b.data, expected, sizeof expected);
    for (int i = 0; i < 200; i++)
        assert_int_equal(buffer_printf(&b, "%s", "0123456789"), STATUS_OK);
    assert_int_equal(b.len, sizeof expected + 2000);
    buffer_free(&b);
}

static void test_buffer_without_memory_is_unchanged(void **state)
{
    struct buffer b = {0};
    uint8_t bytes[500] = {0};

    (void)state;
    mem_fail_after(1);
    assert_int_equal(buffer_put(&b, "abc", 3), STATUS_NO_MEMORY);
    assert_true(b.len == 0 && !b.data);
    assert_int_equal(buffer_put(&b, "abc", 3), STATUS_OK);
    mem_fail_after(1);
    assert_int_equal(buffer_put(&b, bytes, sizeof bytes), STATUS_NO_MEMORY);
    mem_fail_after(1);
    assert_int_equal(buffer_printf(&b, "%500d", 1), STATUS_NO_MEMORY);
    mem_fail_after(0);
    assert_string_equal(b.data, "abc");
    buffer_free(&b);
}

static void test_hexadecimal(void **state)
{
    uint8_t bytes[256], back[256];
    char hex[513];

    (void)state;
    for (int i = 0; i < 256; i++)
        bytes[i] = (uint8_t)i;
    bytes_to_hex(bytes, sizeof bytes, hex);
    assert_int_equal(strlen(hex), 512);
    assert_int_equal(strncmp(hex + 2 * 0xab, "ab", 2), 0);
    assert_true(bytes_from_hex(hex, back, sizeof back));
    assert_memory_equal(bytes, back, sizeof bytes);
    assert_true(bytes_from_hex("aBcD", back, 2));
    assert_false(bytes_from_hex("abc", back, 2));
    assert_false(bytes_from_hex("abcde", back, 2));
    assert_false(bytes_from_hex("abcg", back, 2));
    assert_false(bytes_from_hex("", back, 1));
    assert_true(bytes_from_hex("", back, 0));
}

static void test_text_is_utf8(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        bool good;
    } cases[] = {
        {"", 0, true},
        {"plain", 5, true},
        {"a\0b", 3, false},
        {"\xc2\x80", 2, true},
        {"\xdf\xbf", 2, true},
        {"\xe0\xa0\x80", 3, true},
        {"\xed\x9f\xbf", 3, true},
        {"\xee\x80\x80", 3, true},
        {"\xf0\x90\x80\x80", 4, true},
        {"\xf4\x8f\xbf\xbf", 4, true},
        {"\x80", 1, false},             /* a continuation alone */
        {"\xc1\xbf", 2, false},         /* overlong */
        {"\xe0\x9f\xbf", 3, false},     /* overlong */
        {"\xf0\x8f\xbf\xbf", 4, false}, /* overlong */
        {"\xed\xa0\x80", 3, false},     /* a surrogate */
        {"\xed\xbf\xbf", 3, false},     /* a surrogate */
        {"\xf4\x90\x80\x80", 4, false}, /* over U+10FFFF */
        {"\xf5\x80\x80\x80", 4, false},
        {"\xff", 1, false},
        {"\xc2", 1, false},         /* cut */
        {"\xe2\x82", 2, false},     /* cut */
        {"\xf0\x9f\xa6", 3, false}, /* cut */
        {"\xe2\x28\xa1", 3, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint8_t *exact = malloc(cases[i].n + 1); /* a read past the end is seen by ASan */

        memcpy(exact, cases[i].bytes, cases[i].n);
        exact = realloc(exact, cases[i].n ? cases[i].n : 1);
        assert_int_equal(bytes_are_text(exact, cases[i].n), cases[i].good);
        free(exact);
    }
}

static void test_sizes_as_people_write_them(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"512", 512},     {"0", 0},           {"64K", 65536},
        {"64k", 65536},   {"1.5G", 3u << 29}, {"16GiB", 16ull << 30},
        {"2MB", 2 << 20}, {"1t", 1ull << 40}, {"7B", 7},
        {".5K", 512},
    };
    static const char *const bad[] = {"",    "G",     "-1",   "1 G", "1GG",   "1Gi",      "nan",
                                      "inf", "0x10q", "1e99", " 1",  "1KiBx", "99999999T"};
    uint64_t bytes;
    char text[32];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        assert_true(bytes_parse_size(good[i].text, &bytes));
        assert_int_equal(bytes, good[i].bytes);
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(bytes_parse_size(bad[i], &bytes));
    assert_string_equal(bytes_format_size(0, text, sizeof text), "0 B");
    assert_string_equal(bytes_format_size(3ull << 29, text, sizeof text), "1.5 GB");
    assert_true(strlen(bytes_format_size(UINT64_MAX, text, sizeof text)) < 16);
}

/* ---------------------------------------------------------------- state machines */

static const struct sm_table lamp = {
    .name = "lamp",
    .states = (const char *const[]){"off", "on", "broken"},
    .allowed = (const uint32_t[]){SM_TO(1), SM_TO(0) | SM_TO(2), 0},
    .n_states = 3,
};

static void test_allowed_transitions(void **state)
{
    unsigned now = 0;

    (void)state;
    sm_move(&lamp, &now, 1);
    sm_move(&lamp, &now, 0);
    sm_move(&lamp, &now, 1);
    sm_move(&lamp, &now, 2);
    assert_int_equal(now, 2);
}

static void test_other_transitions_end_the_process(void **state)
{
    static const unsigned bad[][2] = {{0, 2}, {0, 0}, {2, 0}, {2, 2}, {3, 0}, {1, 3}, {1, 77}};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        int code = 0;

        if (fork() == 0) {
            unsigned now = bad[i][0];

            (void)signal(SIGABRT, SIG_DFL);
            if (!freopen("/dev/null", "w", stderr))
                _exit(1);
            sm_move(&lamp, &now, bad[i][1]);
            _exit(0);
        }
        assert_true(wait(&code) > 0);
        assert_true(WIFSIGNALED(code) && WTERMSIG(code) == SIGABRT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_status_has_its_columns),
        cmocka_unit_test(test_numbers_that_travel_stay),
        cmocka_unit_test(test_status_of_errno),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_sizes_that_overflow),
        cmocka_unit_test(test_the_nth_allocation_fails_once),
        cmocka_unit_test(test_reader),
        cmocka_unit_test(test_buffer_grows_to_its_limit),
        cmocka_unit_test(test_buffer_writes),
        cmocka_unit_test(test_buffer_without_memory_is_unchanged),
        cmocka_unit_test(test_hexadecimal),
        cmocka_unit_test(test_text_is_utf8),
        cmocka_unit_test(test_sizes_as_people_write_them),
        cmocka_unit_test(test_allowed_transitions),
        cmocka_unit_test(test_other_transitions_end_the_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
