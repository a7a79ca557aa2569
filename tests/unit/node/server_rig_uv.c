/* The server's loop runs on a second thread, so that tests can wait like any client. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "server_rig.h"

struct api *api;
static uv_async_t stop_async;
static pthread_t server;
static bool closed;
uint16_t port;

static void on_api_closed(void *owner)
{
    (void)owner;
    uv_close((uv_handle_t *)&stop_async, NULL);
}

static void on_stop(uv_async_t *async)
{
    (void)async;
    api_close(api, on_api_closed, NULL);
}

static void *server_main(void *unused)
{
    (void)unused;
    (void)uv_run(&fake_loop, UV_RUN_DEFAULT);
    return NULL;
}

int server_start(void **state)
{
    struct api_options options = {.port = 0, .max_body_bytes = MAX_BODY};
    struct fault fault;

    (void)state;
    (void)signal(SIGPIPE, SIG_IGN);
    if (uv_loop_init(&fake_loop) != 0 || uv_async_init(&fake_loop, &stop_async, on_stop) != 0)
        return -1;
    if (api_start(&fake_loop, NULL, &options, &api, &fault) != STATUS_OK)
        return -1;
    api_ready(api);
    port = api_port(api);
    return pthread_create(&server, NULL, server_main, NULL);
}

void server_close(void)
{
    if (!closed)
        (void)uv_async_send(&stop_async);
    closed = true;
}

int server_join(void **state)
{
    (void)state;
    server_close();
    (void)pthread_join(server, NULL);
    return uv_loop_close(&fake_loop);
}

/* ---------------------------------------------------------------- a client */

char answer[ANSWER_BYTES];

int ask(const char *method, const char *path, const char *headers, const char *body)
{
    char head[4096];
    int fd = client_dial(port, 0), http = 0;
    int n =
        snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s",
                 method, path, headers);

    if (body)
        n += snprintf(head + n, sizeof head - (size_t)n,
                      "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    client_put(fd, head, (size_t)n);
    if (body)
        client_put(fd, body, strlen(body));
    (void)client_read_all(fd, answer, sizeof answer);
    (void)close(fd);
    (void)sscanf(answer, "HTTP/1.1 %d", &http);
    return http;
}

int post(const char *path, const char *body)
{
    return ask("POST", path, "", body);
}

void has(const char *words)
{
    if (!strstr(answer, words))
        fail_msg("no \"%s\" in \"%.2000s\"", words, answer);
}

void wait_for(atomic_int *counter, int wanted)
{
    double end = client_now() + 5;

    while (atomic_load(counter) != wanted && client_now() < end)
        (void)usleep(5000);
    assert_int_equal(atomic_load(counter), wanted);
}

int begin(const char *body, int receive_bytes)
{
    char text[1024];
    int fd = client_dial(port, receive_bytes);

    (void)snprintf(
        text, sizeof text,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%s",
        strlen(body), body);
    client_put(fd, text, strlen(text));
    return fd;
}
