#ifndef SKEIN_TESTS_UNIT_NODE_HTTP_CLIENT_H
#define SKEIN_TESTS_UNIT_NODE_HTTP_CLIENT_H

/* A client that knows nothing of HTTP: bytes over TCP to loopback, none of which waits over 10 s.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

double client_now(void);                           /* seconds */
int client_dial(uint16_t port, int receive_bytes); /* receive_bytes: of the socket's buffer, or 0 */
void client_put(int fd, const char *text, size_t n);
/* Everything until the server closes; the length. */
size_t client_read_all(int fd, char *out, size_t size);
/* Until `words` are there. */
void client_read_until(int fd, const char *words, char *out, size_t size);

#endif
