/* The send queue of a link: a ring of messages and a count of their bytes.
 *
 * Bounded in two steps. Large messages are refused first, while there is still room for the small
 * ones: pings, cancels and releases must reach a peer that is slow to take activations, or nobody
 * learns that it is slow. What is half sent still counts, because its memory is still held. */
#include "node/net/queue.h"

#include "node/net/link.h"

static size_t message_bytes(const struct message *message)
{
    return message->payload_bytes + sizeof *message;
}

static enum status queue_grow(struct message_queue *queue)
{
    size_t capacity = queue->capacity ? 2 * queue->capacity : 8;
    struct message **items = MEM_NEW_N(struct message *, capacity);

    if (!items)
        return STATUS_NO_MEMORY;
    for (size_t i = 0; i < queue->n; i++)
        items[i] = queue->items[(queue->first + i) % queue->capacity];
    mem_free(queue->items);
    queue->items = items;
    queue->capacity = capacity;
    queue->first = 0;
    return STATUS_OK;
}

enum status message_queue_put(struct message_queue *queue, struct message *message)
{
    size_t bytes;

    if (message->payload_bytes > PROTO_MAX_PAYLOAD_BYTES)
        return STATUS_LIMIT;
    bytes = message_bytes(message);
    if (queue->bytes + bytes > LINK_QUEUE_BYTES ||
        (bytes > LINK_BULK_BYTES && queue->bytes > LINK_BULK_QUEUE_BYTES))
        return STATUS_BUSY;
    if (queue->n == queue->capacity && queue_grow(queue) != STATUS_OK)
        return STATUS_NO_MEMORY;
    queue->items[(queue->first + queue->n) % queue->capacity] = message;
    queue->n++;
    queue->bytes += bytes;
    return STATUS_OK;
}

struct message *message_queue_take(struct message_queue *queue)
{
    struct message *message;

    if (queue->n == 0)
        return NULL;
    message = queue->items[queue->first];
    queue->first = (queue->first + 1) % queue->capacity;
    queue->n--;
    return message;
}

void message_queue_drop(struct message_queue *queue, struct message **message)
{
    if (!*message)
        return;
    queue->bytes -= message_bytes(*message);
    message_free(message);
}

void message_queue_free(struct message_queue *queue)
{
    struct message *message;

    while ((message = message_queue_take(queue)))
        message_queue_drop(queue, &message);
    mem_free(queue->items);
    *queue = (struct message_queue){0};
}
