#ifndef SKEIN_NODE_NET_QUEUE_H
#define SKEIN_NODE_NET_QUEUE_H

/* The messages that wait on one link, in order, bounded by bytes. Zero-initialise. */
#include "proto/proto.h"

struct message_queue {
    struct message **items; /* a ring */
    size_t capacity, first, n;
    size_t bytes; /* of all that were put and not yet dropped, see message_queue_drop */
};

/* The queue owns the message on OK. BUSY past the bounds of link.h, LIMIT, NO_MEMORY. */
enum status message_queue_put(struct message_queue *queue, struct message *message) MUST_USE;
/* The oldest, NULL where none waits. Its bytes count until message_queue_drop. */
struct message *message_queue_take(struct message_queue *queue);
/* Frees a message that was taken, NULL is fine. */
void message_queue_drop(struct message_queue *queue, struct message **message);
void message_queue_free(struct message_queue *queue); /* with what waits */

#endif
