/* The client of the HTTP server's tests: what it is told to send, it sends, byte by byte as given.
 */
#include "http_client.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

double client_now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int client_dial(uint16_t port, int receive_bytes)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval wait = {.tv_sec = 10};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    if (receive_bytes)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

void client_put(int fd, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, text, n, MSG_NOSIGNAL);
        assert_true(sent > 0);
        text += sent;
        n -= (size_t)sent;
    }
}

size_t client_read_all(int fd, char *out, size_t size)
{
    size_t at = 0;
    ssize_t n;

    while (at < size - 1 && (n = recv(fd, out + at, size - 1 - at, 0)) > 0)
        at += (size_t)n;
    out[at] = '\0';
    return at;
}

void client_read_until(int fd, const char *words, char *out, size_t size)
{
    size_t at = 0;

    out[0] = '\0';
    while (!strstr(out, words)) {
        ssize_t n = recv(fd, out + at, size - 1 - at, 0);
        if (n <= 0)
            fail_msg("no \"%s\" in \"%s\"", words, out);
        at += (size_t)n;
        out[at] = '\0';
    }
}
