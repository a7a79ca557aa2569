/* Clients of the HTTP server that leave, lag or come in crowds; starting and closing it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server_rig.h"

static void test_leaving_cancels(void **state)
{
    int before = atomic_load(&fake_n_cancelled);
    int streaming = begin(CHAT("silent", ",\"stream\":true"), 0);
    int waiting = begin(CHAT("silent", ""), 0);

    (void)state;
    wait_for(&fake_n_open, 2);
    (void)usleep(50000);
    (void)close(streaming);
    wait_for(&fake_n_cancelled, before + 1);
    (void)close(waiting);
    wait_for(&fake_n_cancelled, before + 2);
    wait_for(&fake_n_open, 0);
}

static void test_a_reset_cancels(void **state)
{
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    int before = atomic_load(&fake_n_cancelled);
    int fd = begin(CHAT("silent", ",\"stream\":true"), 0);

    (void)state;
    wait_for(&fake_n_open, 1);
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    (void)close(fd);
    wait_for(&fake_n_cancelled, before + 1);
    wait_for(&fake_n_open, 0);
}

static void test_a_slow_reader_is_cut_and_others_go_on(void **state)
{
    int before = atomic_load(&fake_n_cancelled);
    int fd = begin(CHAT("flood", ",\"stream\":true"), 4096);

    (void)state;
    wait_for(&fake_n_open, 1);
    for (int i = 0; i < 5; i++) {
        double began = client_now();
        assert_int_equal(ask("GET", "/health", "", NULL), 200);
        assert_true(client_now() - began < 1);
    }
    wait_for(&fake_n_cancelled, before + 1);
    wait_for(&fake_n_open, 0);
    (void)close(fd);
}

static void test_a_fast_reader_gets_everything(void **state)
{
    int fd = begin(CHAT("flood", ",\"stream\":true"), 0);
    size_t total = 0;
    char text[65536];

    (void)state;
    while (total < 8u << 20) {
        ssize_t n = recv(fd, text, sizeof text, 0);
        assert_true(n > 0);
        total += (size_t)n;
    }
    assert_int_equal(atomic_load(&fake_n_open), 1);
    (void)close(fd);
    wait_for(&fake_n_open, 0);
}

static void test_silence_is_commented(void **state)
{
    int fd = begin(CHAT("silent", ",\"stream\":true"), 0);
    char text[4096];

    (void)state;
    client_read_until(fd, "\n:\n\n", text, sizeof text);
    (void)close(fd);
    wait_for(&fake_n_open, 0);
}

static void test_many_at_once(void **state)
{
    int fds[100];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        fds[i] = begin(CHAT("ok", ",\"stream\":true"), 0);
    for (size_t i = 0; i < COUNT_OF(fds); i++) {
        client_read_until(fds[i], "[DONE]", answer, sizeof answer);
        (void)close(fds[i]);
    }
    wait_for(&fake_n_open, 0);
}

/* The last test of a server: it stops under live clients, and each of them is told. */
static void test_closing_tells_streams(void **state)
{
    int streaming = begin(CHAT("silent", ",\"stream\":true"), 0);
    int waiting = begin(CHAT("silent", ""), 0);
    int idle = client_dial(port, 0);

    (void)state;
    wait_for(&fake_n_open, 2);
    (void)usleep(100000);
    server_close();
    (void)client_read_all(streaming, answer, sizeof answer);
    has("data: {\"error\":{\"message\":\"the node is shutting down\"");
    client_read_until(waiting, "}}", answer, sizeof answer);
    has("HTTP/1.1 502");
    assert_int_equal(client_read_all(idle, answer, sizeof answer), 0);
    (void)close(streaming);
    (void)close(waiting);
    (void)close(idle);
}

/* ---------------------------------------------------------------- starting */

static enum status start_once(const char *address, uint16_t at_port, const char *key,
                              struct fault *fault)
{
    struct api_options options = {.address = address, .port = at_port, .key = key};
    struct api *other = NULL;
    uv_loop_t loop;
    enum status status;

    assert_int_equal(uv_loop_init(&loop), 0);
    status = api_start(&loop, NULL, &options, &other, fault);
    if (status == STATUS_OK)
        api_close(other, NULL, NULL);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    return status;
}

static void test_start_errors(void **state)
{
    struct fault fault = {0};
    char number[8];

    (void)state;
    assert_int_equal(start_once("127.0.0.1", port, NULL, &fault), STATUS_IN_USE);
    (void)snprintf(number, sizeof number, "%u", port);
    assert_non_null(strstr(fault.text, number));
    assert_non_null(strstr(fault.text, "--api"));
    assert_int_equal(start_once("0.0.0.0", 0, NULL, &fault), STATUS_INVALID);
    assert_non_null(strstr(fault.text, "--api-key-file"));
    assert_int_equal(start_once("0.0.0.0", 0, "0123456789abcdef", &fault), STATUS_OK);
    assert_int_equal(start_once("203.0.113.9", 0, "0123456789abcdef", &fault), STATUS_INVALID);
    assert_int_equal(start_once("not an address", 0, NULL, &fault), STATUS_INVALID);
    assert_int_equal(start_once("::1", 0, NULL, &fault), STATUS_OK);
    for (unsigned long i = 1; i <= 1; i++) {
        mem_fail_after(i);
        assert_int_equal(start_once("127.0.0.1", 0, NULL, &fault), STATUS_NO_MEMORY);
        mem_fail_after(0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start_errors),
        cmocka_unit_test(test_leaving_cancels),
        cmocka_unit_test(test_a_reset_cancels),
        cmocka_unit_test(test_a_slow_reader_is_cut_and_others_go_on),
        cmocka_unit_test(test_a_fast_reader_gets_everything),
        cmocka_unit_test(test_silence_is_commented),
        cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_closing_tells_streams),
    };

    return cmocka_run_group_tests(tests, server_start, server_join);
}
