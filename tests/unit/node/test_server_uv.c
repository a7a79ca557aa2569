/* The HTTP server over real sockets and a scripted node: statuses, streams, errors, limits of one
 * request. Clients that leave or lag are in test_server_clients_uv.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server_rig.h"

/* What waits for the server's tick, every half second, ends with one, so the next attempt starts
 * right behind a tick and waits for all of the next: of several attempts in a row, then, none but
 * the first is fast. What waits for nothing is fast once, however busy the machine is at other
 * times. */
static void waits_for_no_tick(void (*attempt)(void))
{
    double least = 1.0;

    attempt();
    for (int i = 0; i < 5 && least > 0.2; i++) {
        double began = client_now(), took;

        attempt();
        took = client_now() - began;
        least = took < least ? took : least;
    }
    assert_true(least < 0.2);
}

/* ---------------------------------------------------------------- answers */

static void test_plain_chat(void **state)
{
    char body[256];

    (void)state;
    assert_int_equal(post("/v1/chat/completions", CHAT("ok", ",\"seed\":7")), 200);
    has("Content-Type: application/json");
    has("\"object\":\"chat.completion\"");
    has("\"content\":\"Hello \xc3\xa9\\\"\\n\"");
    has("\"finish_reason\":\"stop\"");
    has("\"total_tokens\":8");
    has("\"stages\":2");
    has("\"seed\":7");
    fake_body(body, sizeof body);
    assert_string_equal(body, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
}

static void stream_chat(void)
{
    assert_int_equal(
        post("/v1/chat/completions",
             CHAT("ok", ",\"stream\":true,\"stream_options\":{\"include_usage\":true}")),
        200);
}

static void test_streamed_chat(void **state)
{
    (void)state;
    waits_for_no_tick(stream_chat); /* a millisecond between pieces */
    has("Content-Type: text/event-stream");
    has("data: {\"id\":\"chatcmpl-");
    has("\"delta\":{\"role\":\"assistant\",\"content\":\"\"}");
    has("\"delta\":{\"content\":\"Hel\"}");
    has("\"finish_reason\":\"stop\"}],\"skein\":{\"stages\":2");
    has("\"choices\":[],\"usage\":");
    has("data: [DONE]\n\n");
    assert_true(strstr(answer, "[DONE]") > strstr(answer, "\"usage\""));
}

static void test_streamed_text(void **state)
{
    (void)state;
    assert_int_equal(post("/v1/completions", "{\"model\":\"ok\",\"prompt\":\"x\",\"stream\":true}"),
                     200);
    has("\"object\":\"text_completion\"");
    has("\"text\":\"Hel\"");
    assert_null(strstr(answer, "usage"));
    assert_null(strstr(answer, "role"));
}

static void begin_stream(void)
{
    char text[4096];
    int fd = client_dial(port, 0);
    const char body[] = CHAT("silent", ",\"stream\":true");

    (void)snprintf(text, sizeof text,
                   "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                   "application/json\r\nContent-Length: %zu\r\n\r\n%s",
                   strlen(body), body);
    client_put(fd, text, strlen(text));
    client_read_until(fd, "\"role\":\"assistant\"", text, sizeof text);
    (void)close(fd);
}

static void test_stream_begins_at_once(void **state)
{
    (void)state;
    waits_for_no_tick(begin_stream);
    wait_for(&fake_n_open, 0);
}

/* For text completions there is no first event: the headers alone must come. */
static void begin_completion(void)
{
    char text[4096];
    int fd = client_dial(port, 0);
    const char body[] = "{\"model\":\"silent\",\"prompt\":\"x\",\"stream\":true}";

    (void)snprintf(
        text, sizeof text,
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%s",
        strlen(body), body);
    client_put(fd, text, strlen(text));
    client_read_until(fd, "\r\n\r\n", text, sizeof text);
    (void)close(fd);
}

static void test_headers_do_not_wait_for_text(void **state)
{
    (void)state;
    waits_for_no_tick(begin_completion);
    wait_for(&fake_n_open, 0);
}

static void test_keep_alive(void **state)
{
    char text[8192];
    int fd = client_dial(port, 0);

    (void)state;
    for (int i = 0; i < 3; i++) {
        const char *request = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
        client_put(fd, request, strlen(request));
        client_read_until(fd, "\"ok\"", text, sizeof text);
    }
    (void)close(fd);
}

static void test_views(void **state)
{
    (void)state;
    assert_int_equal(ask("GET", "/health", "", NULL), 200);
    assert_int_equal(ask("HEAD", "/health", "", NULL), 200);
    assert_int_equal(ask("GET", "/v1/models", "", NULL), 200);
    has("\"object\":\"list\"");
    has("\"id\":\"tiny\"");
    assert_int_equal(ask("GET", "/v1/models/tiny", "", NULL), 200);
    assert_int_equal(ask("GET", "/v1/models", "", NULL), 200);
    has("\"cannot_run\":[{\"id\":\"odd\",\"node\":\"bridge\",\"bytes\":5,"
        "\"why\":\"its type is not known\"}]");
    assert_int_equal(ask("GET", "/v1/models/TINY", "", NULL), 200); /* as a request's model */
    has("\"id\":\"tiny\"");
    assert_int_equal(ask("GET", "/v1/models/nosuch", "", NULL), 404);
    has("\"model_not_found\"");
    assert_int_equal(ask("GET", "/skein/peers", "", NULL), 200);
    has("att?ic");
    has("eth1 cannot be used");
    has("\"state\":\"refused\"");
    assert_int_equal(ask("GET", "/skein/node", "", NULL), 200);
    has("\"name\":\"bridge\"");
    has("\"mesh_port\":8471");
    assert_int_equal(ask("GET", "/skein/instances", "", NULL), 200);
    has("\"layer_end\":6");
    has("\"kv\":\"f16\"");
    has("\"quantize\":\"Q4_K\"");
    has("\"mapped\":true");
    assert_int_equal(ask("GET", "/skein/plan?model=tiny&objective=throughput", "", NULL), 200);
    has("\"tokens_per_second\":10.0");
    has("\"objective\":\"throughput\"");
    assert_int_equal(ask("GET", "/skein/plan", "", NULL), 400);
    assert_int_equal(ask("GET", "/skein/plan?model=tiny&objective=x", "", NULL), 400);
    assert_int_equal(ask("GET", "/skein/plan?model=nosuch", "", NULL), 404);
    assert_int_equal(post("/skein/models", "{\"path\":\"/some/file\"}"), 200);
    has("\"model\":\"added\"");
    assert_int_equal(post("/skein/models", "{\"path\":\"relative\"}"), 400);
    assert_int_equal(post("/skein/models", ""), 400);
}

/* ---------------------------------------------------------------- refusals */

static void test_errors_before_the_stream(void **state)
{
    (void)state;
    assert_int_equal(post("/v1/chat/completions", CHAT("nosuch", ",\"stream\":true")), 404);
    has("\"param\":\"model\"");
    has("\"code\":\"model_not_found\"");
    assert_int_equal(post("/v1/chat/completions", CHAT("long", "")), 400);
    has("context_length_exceeded");
    assert_int_equal(post("/v1/chat/completions", CHAT("busy", "")), 503);
    has("Retry-After: 1");
    assert_int_equal(post("/v1/chat/completions", "{\"model\":"), 400);
    has("not valid JSON");
    assert_int_equal(post("/v1/chat/completions", CHAT("ok", ",\"n\":2")), 400);
    has("\"param\":\"n\"");
    wait_for(&fake_n_open, 0);
}

static void test_error_in_the_stream(void **state)
{
    (void)state;
    assert_int_equal(post("/v1/chat/completions", CHAT("late", ",\"stream\":true")), 200);
    has("\"content\":\"one\"");
    has("data: {\"error\":{\"message\":\"node attic was lost\"");
    assert_null(strstr(answer, "[DONE]"));
    assert_int_equal(post("/v1/chat/completions", CHAT("late", "")), 502);
    has("node attic was lost");
}

static void test_paths_methods_headers(void **state)
{
    (void)state;
    assert_int_equal(ask("GET", "/nothing", "", NULL), 404);
    has("\"error\":{\"message\"");
    assert_int_equal(ask("GET", "/v1/completions", "", NULL), 405);
    has("Allow: POST");
    assert_int_equal(ask("GET", "/health", "Origin: https://evil.example\r\n", NULL), 403);
    assert_int_equal(ask("POST", "/v1/completions",
                         "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", NULL),
                     415);
    assert_null(strstr(answer, "Access-Control"));
}

static void test_foreign_host(void **state)
{
    char text[2048];
    int fd = client_dial(port, 0);
    const char *request =
        "GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";

    (void)state;
    client_put(fd, request, strlen(request));
    (void)client_read_all(fd, text, sizeof text);
    assert_non_null(strstr(text, "HTTP/1.1 403"));
    (void)close(fd);
}

/* What a proxy could read differently is refused, and the connection ends with it. */
static void test_two_readings(void **state)
{
    static const char *const requests[] = {
        "GET /health HTTP/1.1\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
        "Content-Length: 2\r\n\r\n{}GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
        "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
    };
    char text[2048];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(requests); i++) {
        int fd = client_dial(port, 0);

        client_put(fd, requests[i], strlen(requests[i]));
        (void)client_read_all(fd, text, sizeof text); /* to the end of the connection */
        assert_memory_equal(text, "HTTP/1.1 400", 12);
        assert_non_null(strstr(text, "{\"error\":"));
        assert_null(strstr(text + 1, "HTTP/1.1"));
        (void)close(fd);
    }
}

/* More silent connections than there are places: those who ask are answered all the same. */
static void test_idle_connections_give_way(void **state)
{
    enum { N = HTTP_MAX_CONNECTIONS + 40 };
    double began = client_now();
    int fds[N];

    (void)state;
    for (size_t i = 0; i < N; i++)
        fds[i] = client_dial(port, 0);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(ask("GET", "/health", "", NULL), 200);
    assert_true(client_now() - began < 5);
    for (size_t i = 0; i < N; i++)
        (void)close(fds[i]);
}

static void test_oversized_bodies(void **state)
{
    char *body = malloc(MAX_BODY + 2);
    char head[300], chunk[64];
    int fd;

    (void)state;
    assert_non_null(body);
    memset(body, ' ', MAX_BODY + 1);
    body[MAX_BODY + 1] = '\0';
    assert_int_equal(post("/v1/chat/completions", body),
                     413); /* sent whole, answered all the same */
    has("body_too_large");
    body[MAX_BODY] = '\0';
    assert_int_equal(post("/v1/chat/completions", body), 400); /* just within */
    /* announced far too large: answered before a byte of it is sent */
    assert_int_equal(
        ask("POST", "/v1/chat/completions", "Content-Length: 99999999999999\r\n", NULL), 413);
    assert_int_equal(ask("POST", "/v1/chat/completions",
                         "Expect: 100-continue\r\nContent-Length: 30000\r\n", NULL),
                     413);
    /* chunked: no length is announced */
    fd = client_dial(port, 0);
    (void)snprintf(head, sizeof head,
                   "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                   "Transfer-Encoding: chunked\r\n\r\n");
    client_put(fd, head, strlen(head));
    for (int i = 0; i < 3; i++) {
        (void)snprintf(chunk, sizeof chunk, "%x\r\n", MAX_BODY / 2);
        client_put(fd, chunk, strlen(chunk));
        client_put(fd, body, MAX_BODY / 2);
        client_put(fd, "\r\n", 2);
    }
    client_put(fd, "0\r\n\r\n", 5);
    (void)client_read_all(fd, answer, sizeof answer);
    assert_non_null(strstr(answer, "HTTP/1.1 413"));
    (void)close(fd);
    free(body);
}

static void test_hostile_requests(void **state)
{
    static const char *const requests[] = {
        "\r\n\r\n",
        "GET\r\n\r\n",
        "GET /health HTTP/9.9\r\n\r\n",
        "GET /health HTTP/1.1\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: "
        "6\r\n\r\nabcdef",
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: "
        "chunked\r\n\r\nZZ\r\n",
        "GET /%00%ff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"};
    char *big = malloc(200000);
    int fd;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(requests); i++) {
        fd = client_dial(port, 0);
        client_put(fd, requests[i], strlen(requests[i]));
        (void)shutdown(fd, SHUT_WR);
        (void)client_read_all(fd, answer, sizeof answer);
        assert_null(strstr(answer, "HTTP/1.1 200"));
        (void)close(fd);
    }
    assert_non_null(big);
    memset(big, 'a', 199999);
    memcpy(big, "GET /", 5);
    fd = client_dial(port, 0);
    (void)send(fd, big, 199999, MSG_NOSIGNAL);
    (void)client_read_all(fd, answer, sizeof answer);
    assert_null(strstr(answer, "HTTP/1.1 200"));
    (void)close(fd);
    free(big);
    assert_int_equal(ask("GET", "/health", "", NULL), 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_chat),
        cmocka_unit_test(test_streamed_chat),
        cmocka_unit_test(test_streamed_text),
        cmocka_unit_test(test_stream_begins_at_once),
        cmocka_unit_test(test_headers_do_not_wait_for_text),
        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_errors_before_the_stream),
        cmocka_unit_test(test_error_in_the_stream),
        cmocka_unit_test(test_paths_methods_headers),
        cmocka_unit_test(test_foreign_host),
        cmocka_unit_test(test_two_readings),
        cmocka_unit_test(test_idle_connections_give_way),
        cmocka_unit_test(test_oversized_bodies),
        cmocka_unit_test(test_hostile_requests),
    };

    return cmocka_run_group_tests(tests, server_start, server_join);
}
