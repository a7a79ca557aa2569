/* Any bytes as what a stranger sends to a channel, alone or mixed into an honest exchange.
 * links: skein_proto
 *
 * Byte 0: which end receives, and how many honest messages come first. Byte 1: whether the rest is
 * sent as it is or laid over the next honest message (exclusive or), and in pieces of what size. A
 * channel must open only where every byte of the handshake was honest, and deliver a message only
 * where the record was.
 *
 * Memory: at most 32 MiB. */
#include <stdlib.h>
#include <string.h>

#include "proto/proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct end {
    struct channel *channel;
    unsigned n_open, n_messages;
};

static void on_open(void *owner, const uint8_t peer_id[static PROTO_ID_BYTES])
{
    (void)peer_id;
    ((struct end *)owner)->n_open++;
}

static void on_message(void *owner, struct message *message)
{
    ((struct end *)owner)->n_messages++;
    message_free(&message);
}

static void fill(void *owner, uint8_t *out, size_t n)
{
    memset(out, *(const uint8_t *)owner, n);
}

static enum status feed(struct end *end, const uint8_t *data, size_t n, size_t piece)
{
    struct channel_events events = {on_open, on_message, end};
    enum status status = STATUS_OK;

    for (size_t at = 0; at < n && status == STATUS_OK; at += piece)
        status = channel_receive(end->channel, data + at, n - at < piece ? n - at : piece, &events,
                                 NULL);
    return status;
}

static void take(struct end *end, struct buffer *wire)
{
    wire->len = 0;
    if (channel_output(end->channel, wire) != STATUS_OK)
        abort();
}

/* The honest bytes of the given turn, which end 0 sends on even ones. Turn 4 is a message. */
static void honest(struct end ends[2], unsigned turn, struct buffer *wire)
{
    if (turn == 4) {
        struct message *ping = message_new(MESSAGE_PING);

        if (!ping || channel_send(ends[0].channel, ping) != STATUS_OK)
            abort();
        message_free(&ping);
    }
    take(&ends[turn % 2], wire);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[PROTO_KEY_BYTES] = {1}, seeds[2] = {1, 2};
    struct proto_identity self[2] = {{.secret_key = {3}}, {.secret_key = {4}}};
    struct end ends[2] = {0}, *to;
    struct buffer wire = {0};
    unsigned turn, expect_open;
    bool overlay, changed = false;

    if (size < 3 || proto_init() != STATUS_OK)
        return 0;
    turn = data[0] % 5;
    overlay = data[1] & 1;
    for (int i = 0; i < 2; i++) {
        proto_identity_complete(&self[i]);
        if (channel_new(i == 0, &self[i], key, fill, (void *)(uintptr_t)&seeds[i],
                        &ends[i].channel) != STATUS_OK)
            abort();
    }
    for (unsigned i = 0; i < turn; i++) {
        honest(ends, i, &wire);
        if (feed(&ends[(i + 1) % 2], wire.data, wire.len, SIZE_MAX / 2) != STATUS_OK)
            abort();
    }
    to = &ends[(turn + 1) % 2];
    expect_open = to->n_open;
    honest(ends, turn, &wire);
    if (overlay) {
        for (size_t i = 2; i < size && i - 2 < wire.len; i++) {
            wire.data[i - 2] ^= data[i];
            changed = changed || data[i];
        }
        (void)feed(to, wire.data, wire.len, 1 + (size_t)(data[1] >> 1));
    } else {
        changed = size - 2 < wire.len || memcmp(data + 2, wire.data, wire.len) != 0;
        (void)feed(to, data + 2, size - 2, 1 + (size_t)(data[1] >> 1));
    }
    if (changed && (to->n_open != expect_open || to->n_messages))
        abort();
    if (!changed && turn >= 2 && to->n_open != 1)
        abort();
    for (int i = 0; i < 2; i++)
        channel_free(&ends[i].channel);
    buffer_free(&wire);
    return 0;
}
