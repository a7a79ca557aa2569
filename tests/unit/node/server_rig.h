#ifndef SKEIN_TESTS_SERVER_RIG_H
#define SKEIN_TESTS_SERVER_RIG_H

/* The HTTP server over a scripted node on a second thread, and a client that speaks plain TCP. */
#include "fake_node.h"
#include "http_client.h"
#include "node/api/http.h"

enum { MAX_BODY = 20000, ANSWER_BYTES = 256 * 1024 };

extern struct api *api;
extern uint16_t port;
extern char answer[ANSWER_BYTES]; /* the last one, with its headers */

int server_start(void **state); /* setup of a group */
int server_join(void **state);  /* its teardown; closes the server */
void server_close(void);        /* sooner, under live clients */
/* One request on a connection of its own; the status. headers: whole lines. body may be NULL. */
int ask(const char *method, const char *path, const char *headers, const char *body);
int post(const char *path, const char *body);
void has(const char *words);                    /* in the answer */
void wait_for(atomic_int *counter, int wanted); /* at most 5 s */
/* A chat whose answer is not read yet; the connection. receive_bytes: of its buffer, 0: as is. */
int begin(const char *body, int receive_bytes);

#define CHAT(model, more)                                                                          \
    "{\"model\":\"" model "\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]" more "}"

#endif
