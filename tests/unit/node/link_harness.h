#ifndef SKEIN_TESTS_UNIT_NODE_LINK_HARNESS_H
#define SKEIN_TESTS_UNIT_NODE_LINK_HARNESS_H

/* Two ends of links on one loop, over real loopback sockets. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <uv.h>

#include "node/net/link.h"

enum { END_MAX_MESSAGES = 1024 };

/* One node's view: what its links told it. */
struct end {
    struct proto_identity identity;
    uint8_t key[PROTO_KEY_BYTES];
    struct link_keys keys;
    struct link_events events;
    struct link *link; /* the last that opened or was dialled; NULL after on_closed */
    unsigned n_opened, n_closed, n_heard, n_messages;
    uint8_t peer_id[PROTO_ID_BYTES];
    enum status status; /* of the last on_closed */
    char sentence[512];
    struct message *messages[END_MAX_MESSAGES];
    bool listener_closed;
};

static inline void end_on_open(void *owner, struct link *link,
                               const uint8_t peer_id[static PROTO_ID_BYTES])
{
    struct end *end = owner;

    end->n_opened++;
    end->link = link;
    memcpy(end->peer_id, peer_id, PROTO_ID_BYTES);
}

static inline void end_on_message(void *owner, struct link *link, struct message *message)
{
    struct end *end = owner;

    (void)link;
    assert_true(end->n_messages < END_MAX_MESSAGES);
    end->messages[end->n_messages++] = message;
}

static inline void end_on_heard(void *owner, struct link *link)
{
    (void)link;
    ((struct end *)owner)->n_heard++;
}

static inline void end_on_closed(void *owner, struct link *link, enum status status,
                                 const char *sentence)
{
    struct end *end = owner;

    end->n_closed++;
    end->status = status;
    (void)snprintf(end->sentence, sizeof end->sentence, "%s", sentence);
    if (end->link == link)
        end->link = NULL;
}

static inline void end_on_listener_closed(void *owner)
{
    ((struct end *)owner)->listener_closed = true;
}

static inline void end_init(struct end *end, uint8_t number, uint8_t key)
{
    char folder[] = "/tmp/skein-test-XXXXXX", path[64];

    memset(end, 0, sizeof *end);
    (void)number;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/node.key", folder);
    assert_int_equal(proto_identity_load(path, &end->identity, NULL), STATUS_OK);
    (void)unlink(path);
    (void)rmdir(folder);
    memset(end->key, key, sizeof end->key);
    end->keys = (struct link_keys){&end->identity, end->key};
    end->events =
        (struct link_events){end_on_open, end_on_message, end_on_heard, end_on_closed, end};
}

static inline void end_clear(struct end *end)
{
    for (unsigned i = 0; i < end->n_messages; i++)
        message_free(&end->messages[i]);
    end->n_messages = 0;
}

static inline struct listener *end_listen(uv_loop_t *loop, struct end *end)
{
    struct listener_options options = {.address = "127.0.0.1"};
    struct listener *listener;
    struct fault fault = {0};

    assert_int_equal(listener_start(loop, &options, &end->keys, &end->events, &listener, &fault),
                     STATUS_OK);
    return listener;
}

static inline void end_dial(uv_loop_t *loop, struct end *end, uint16_t port)
{
    char address[64];
    struct fault fault = {0};

    (void)snprintf(address, sizeof address, "127.0.0.1:%u", port);
    assert_int_equal(link_dial(loop, 7, address, &end->keys, &end->events, &end->link, &fault),
                     STATUS_OK);
}

static inline void guard_fired(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

/* Turns the loop until the expression holds; fails after so many seconds. */
#define RUN_UNTIL(loop, condition, seconds)                                                        \
    do {                                                                                           \
        uv_timer_t guard_timer;                                                                    \
        bool guard_late = false;                                                                   \
        (void)uv_timer_init((loop), &guard_timer);                                                 \
        guard_timer.data = &guard_late;                                                            \
        (void)uv_timer_start(&guard_timer, guard_fired, (seconds)*1000, 0);                        \
        while (!(condition) && !guard_late)                                                        \
            (void)uv_run((loop), UV_RUN_ONCE);                                                     \
        (void)uv_timer_stop(&guard_timer);                                                         \
        uv_close((uv_handle_t *)&guard_timer, NULL);                                               \
        (void)uv_run((loop), UV_RUN_NOWAIT);                                                       \
        assert_false(guard_late && !(condition));                                                  \
    } while (0)

/* Everything must have been closed. */
static inline void loop_end(uv_loop_t *loop)
{
    (void)uv_run(loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(loop), 0);
}

/* A plain blocking socket to a port of this box, as a stranger would open it; from 127.0.0.host. */
static inline int stranger(uint16_t port, uint8_t host)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)}, from = to;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    from.sin_port = 0;
    from.sin_addr.s_addr = htonl(0x7f000000u | host);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof from), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

#endif
