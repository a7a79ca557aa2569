/* The channel: one end of a link without its socket.
 *
 *   initiator:  GREETING ──3 messages──► CONFIRMING ──first record──► OPEN
 *   responder:  GREETING ──3 messages──────────────────────────────► OPEN
 *               any ──error──► BROKEN
 *
 * Handshake and records have the same outer form, u16 big-endian length and that many bytes. In the
 * handshake the three lengths are known (empty payloads), so a stranger's first two bytes decide
 * whether it speaks our language, and what it can make us keep is under a hundred bytes. The big
 * buffers are made when the peer has proved the cluster key.
 *
 * With psk3 the key enters at the very end of message 3: the responder learns there that the peer
 * holds it, the initiator learns nothing. So the responder answers with one empty record, the
 * confirmation; the initiator is open when that record verifies. An initiator whose socket closes
 * in between met another cluster key.
 *
 * Receiving decrypts straight from the socket's buffer where a record lies whole in it and collects
 * it otherwise. Which lengths are valid is known before a record has come (frame.h), so there is no
 * waiting for 64 KB that would be refused. Sending seals straight into the output buffer.
 *
 * What fails: a bad tag or degenerate key (AUTH), lengths (FORMAT, LIMIT), memory. Every failure is
 * final. A replayed, dropped or reordered record is a bad tag, because both ends count. */
#include <assert.h>
#include <sodium.h>
#include <string.h>

#include "proto/frame.h"
#include "proto/noise.h"

enum { LENGTH_BYTES = 2, GREETING_BYTES = 96 /* the longest of the handshake */ };

enum channel_state { CHANNEL_GREETING, CHANNEL_CONFIRMING, CHANNEL_OPEN, CHANNEL_BROKEN };

static const struct sm_table channel_table = {
    .name = "channel",
    .states = (const char *const[]){"greeting", "confirming", "open", "broken"},
    .allowed =
        (const uint32_t[]){
            [CHANNEL_GREETING] =
                SM_TO(CHANNEL_CONFIRMING) | SM_TO(CHANNEL_OPEN) | SM_TO(CHANNEL_BROKEN),
            [CHANNEL_CONFIRMING] = SM_TO(CHANNEL_OPEN) | SM_TO(CHANNEL_BROKEN),
            [CHANNEL_OPEN] = SM_TO(CHANNEL_BROKEN),
            [CHANNEL_BROKEN] = 0,
        },
    .n_states = 4,
};

/* What only a peer with the key makes us allocate. */
struct channel_records {
    struct frame_reader frame;
    uint8_t collected[LENGTH_BYTES + PROTO_RECORD_BYTES];
};

struct channel {
    bool initiator;
    unsigned state; /* enum channel_state */
    struct noise_handshake handshake;
    struct noise_cipher send, receive;
    void (*random)(void *owner, uint8_t *out, size_t n);
    void *random_owner;
    struct channel_records *records;
    size_t n_collected;
    uint8_t greeting[LENGTH_BYTES + GREETING_BYTES];
    struct buffer out;
    const struct message *sending; /* whose payload is under way */
    size_t sending_at_bytes;
};

static enum status channel_break(struct channel *c, enum status status)
{
    if (c->state != CHANNEL_BROKEN)
        sm_move(&channel_table, &c->state, CHANNEL_BROKEN);
    c->sending = NULL;
    noise_wipe(&c->handshake);
    sodium_memzero(&c->send, sizeof c->send);
    sodium_memzero(&c->receive, sizeof c->receive);
    return status;
}

static void put_length(uint8_t out[static LENGTH_BYTES], size_t n)
{
    out[0] = (uint8_t)(n >> 8);
    out[1] = (uint8_t)n;
}

/* ---------------------------------------------------------------- handshake */

static enum status greeting_write(struct channel *c)
{
    uint8_t ephemeral[PROTO_KEY_BYTES], *out;
    size_t n = noise_overhead(&c->handshake);
    enum status status = buffer_reserve(&c->out, LENGTH_BYTES + n);

    if (status != STATUS_OK)
        return status;
    out = c->out.data + c->out.len;
    put_length(out, n);
    c->random(c->random_owner, ephemeral, sizeof ephemeral);
    status = noise_write(&c->handshake, ephemeral, NULL, 0, out + LENGTH_BYTES);
    sodium_memzero(ephemeral, sizeof ephemeral);
    if (status == STATUS_OK)
        c->out.len += LENGTH_BYTES + n;
    return status;
}

enum status channel_new(bool initiator, const struct proto_identity *self,
                        const uint8_t cluster_key[static PROTO_KEY_BYTES],
                        void (*random)(void *owner, uint8_t *out, size_t n), void *random_owner,
                        struct channel **out)
{
    static const char prologue[] = "skein/1";
    struct channel *c = MEM_NEW(struct channel);
    enum status status = STATUS_OK;

    *out = NULL;
    if (!c)
        return STATUS_NO_MEMORY;
    c->initiator = initiator;
    c->random = random;
    c->random_owner = random_owner;
    noise_start(&c->handshake, NOISE_XX_PSK3, initiator, prologue, sizeof prologue - 1, self, NULL,
                cluster_key);
    if (initiator)
        status = greeting_write(c);
    if (status != STATUS_OK)
        channel_free(&c);
    *out = c;
    return status;
}

void channel_free(struct channel **channel)
{
    struct channel *c = *channel;

    if (!c)
        return;
    if (c->records) {
        frame_reader_clear(&c->records->frame);
        sodium_memzero(c->records, sizeof *c->records);
        mem_free(c->records);
    }
    buffer_free(&c->out);
    sodium_memzero(c, sizeof *c);
    mem_free(c);
    *channel = NULL;
}

/* Seals n_bytes at `in` into the output as one record; room was reserved. */
static enum status record_write(struct channel *c, const uint8_t *in, size_t n_bytes)
{
    uint8_t *out = c->out.data + c->out.len;
    enum status status = noise_seal(&c->send, NULL, 0, in, n_bytes, out + LENGTH_BYTES);

    if (status != STATUS_OK)
        return channel_break(c, status);
    put_length(out, n_bytes + NOISE_TAG_BYTES);
    c->out.len += LENGTH_BYTES + n_bytes + NOISE_TAG_BYTES;
    return STATUS_OK;
}

/* All three messages are done: keys for records, and the responder's confirmation. */
static enum status greeting_end(struct channel *c, const struct channel_events *events)
{
    enum status status = buffer_reserve(&c->out, LENGTH_BYTES + NOISE_TAG_BYTES);

    c->records = MEM_NEW(struct channel_records);
    if (!c->records || status != STATUS_OK)
        return STATUS_NO_MEMORY;
    noise_split(&c->handshake, &c->send, &c->receive);
    if (c->initiator) {
        sm_move(&channel_table, &c->state, CHANNEL_CONFIRMING);
        return STATUS_OK;
    }
    status = record_write(c, NULL, 0);
    if (status != STATUS_OK)
        return status;
    sm_move(&channel_table, &c->state, CHANNEL_OPEN);
    events->on_open(events->owner, c->handshake.remote);
    return STATUS_OK;
}

static enum status greeting_read(struct channel *c, const uint8_t *in, size_t n_bytes,
                                 const struct channel_events *events, struct fault *fault)
{
    uint8_t nothing[1];
    unsigned step = c->handshake.step;
    enum status status = noise_read(&c->handshake, in, n_bytes, nothing);

    if (status != STATUS_OK && step == 2)
        return fault_set(fault, STATUS_AUTH, CHANNEL_OTHER_KEY);
    if (status != STATUS_OK)
        return fault_set(fault, STATUS_AUTH,
                         "the other node speaks another version of skein's protocol than %d, or "
                         "bytes were changed on the way",
                         PROTO_VERSION);
    if (noise_my_turn(&c->handshake))
        status = greeting_write(c);
    if (status == STATUS_OK && noise_finished(&c->handshake))
        status = greeting_end(c, events);
    return status == STATUS_OK
               ? status
               : fault_set(fault, status, "a handshake failed: %s", status_words(status));
}

/* ---------------------------------------------------------------- receiving */

/* Lengths that the next u16 may have. */
static void receive_bounds(const struct channel *c, size_t *min_bytes, size_t *max_bytes)
{
    if (c->state == CHANNEL_GREETING) {
        *min_bytes = *max_bytes = noise_overhead(&c->handshake);
        return;
    }
    if (c->state == CHANNEL_CONFIRMING)
        *min_bytes = *max_bytes = 0;
    else
        frame_reader_bounds(&c->records->frame, min_bytes, max_bytes);
    *min_bytes += NOISE_TAG_BYTES;
    *max_bytes += NOISE_TAG_BYTES;
}

static enum status receive_length(const struct channel *c, const uint8_t in[static LENGTH_BYTES],
                                  size_t *out_bytes, struct fault *fault)
{
    size_t n = (size_t)in[0] << 8 | in[1], min, max;

    receive_bounds(c, &min, &max);
    if (n < min || n > max)
        return fault_set(fault, STATUS_FORMAT,
                         c->state == CHANNEL_GREETING
                             ? "the other side does not speak skein's protocol"
                             : "a record of %zu bytes came where %zu to %zu were due",
                         n, min, max);
    *out_bytes = n;
    return STATUS_OK;
}

static enum status record_read(struct channel *c, const uint8_t *in, size_t n_bytes,
                               const struct channel_events *events, struct fault *fault)
{
    struct frame_reader *frame = &c->records->frame;
    struct message *message;
    enum status status = noise_unseal(&c->receive, NULL, 0, in, n_bytes, frame_reader_place(frame));

    if (status == STATUS_AUTH)
        return fault_set(fault, status, "a record was changed, lost or repeated on the way");
    if (status != STATUS_OK)
        return fault_set(fault, status, "a record cannot be read: %s", status_words(status));
    if (c->state == CHANNEL_CONFIRMING) {
        sm_move(&channel_table, &c->state, CHANNEL_OPEN);
        events->on_open(events->owner, c->handshake.remote);
        return STATUS_OK;
    }
    status = frame_reader_take(frame, n_bytes - NOISE_TAG_BYTES, &message, fault);
    if (message)
        events->on_message(events->owner, message);
    return status;
}

static enum status receive_one(struct channel *c, const uint8_t *in, size_t n_bytes,
                               const struct channel_events *events, struct fault *fault)
{
    return c->state == CHANNEL_GREETING ? greeting_read(c, in, n_bytes, events, fault)
                                        : record_read(c, in, n_bytes, events, fault);
}

/* Adds to a length or record that came in pieces, and handles it when it is whole. Returns through
 * *taken how many bytes it used. */
static enum status receive_piece(struct channel *c, const uint8_t *bytes, size_t n_bytes,
                                 const struct channel_events *events, size_t *taken,
                                 struct fault *fault)
{
    uint8_t *collected = c->state == CHANNEL_GREETING ? c->greeting : c->records->collected;
    size_t want = LENGTH_BYTES, length = 0;
    enum status status = STATUS_OK;

    if (c->n_collected >= LENGTH_BYTES)
        status = receive_length(c, collected, &length, fault);
    want = LENGTH_BYTES + length - c->n_collected;
    *taken = n_bytes < want ? n_bytes : want;
    if (status != STATUS_OK)
        return status;
    memcpy(collected + c->n_collected, bytes, *taken);
    c->n_collected += *taken;
    if (*taken < want)
        return STATUS_OK;
    if (length == 0) /* the two bytes of the length just came */
        return receive_length(c, collected, &length, fault);
    c->n_collected = 0;
    return receive_one(c, collected + LENGTH_BYTES, length, events, fault);
}

enum status channel_receive(struct channel *c, const uint8_t *bytes, size_t n_bytes,
                            const struct channel_events *events, struct fault *fault)
{
    enum status status = STATUS_OK;

    if (c->state == CHANNEL_BROKEN)
        return fault_set(fault, STATUS_CLOSED, "the channel has failed before");
    while (n_bytes && status == STATUS_OK) {
        size_t taken = 0, length = 0;

        if (c->n_collected || n_bytes < LENGTH_BYTES) {
            status = receive_piece(c, bytes, n_bytes, events, &taken, fault);
        } else if ((status = receive_length(c, bytes, &length, fault)) == STATUS_OK) {
            if (n_bytes - LENGTH_BYTES < length) {
                status = receive_piece(c, bytes, n_bytes, events, &taken, fault);
            } else {
                status = receive_one(c, bytes + LENGTH_BYTES, length, events, fault);
                taken = LENGTH_BYTES + length;
            }
        }
        bytes += taken;
        n_bytes -= taken;
    }
    return status == STATUS_OK ? status : channel_break(c, status);
}

/* ---------------------------------------------------------------- sending */

/* Room for plain_bytes as records, and one record more. */
static enum status reserve_records(struct channel *c, size_t plain_bytes)
{
    size_t n = plain_bytes / FRAME_RECORD_BYTES + 1;

    return buffer_reserve(&c->out, plain_bytes + n * (LENGTH_BYTES + NOISE_TAG_BYTES));
}

enum status channel_send_begin(struct channel *c, const struct message *message)
{
    size_t n_bytes, payload_bytes, small;
    uint8_t *plain;
    enum status status;

    if (c->state != CHANNEL_OPEN)
        return STATUS_CLOSED;
    assert(!c->sending);
    small = FRAME_PREFIX_BYTES + PROTO_MAX_HEADER_BYTES;
    if (message->payload_bytes <= FRAME_RECORD_BYTES - FRAME_PREFIX_BYTES)
        small = FRAME_RECORD_BYTES;
    status = reserve_records(c, small);
    if (status != STATUS_OK)
        return status;
    plain = c->out.data + c->out.len + LENGTH_BYTES;
    status = frame_write(message, plain, &n_bytes, &payload_bytes);
    if (status == STATUS_OK)
        status = record_write(c, plain, n_bytes);
    if (status == STATUS_OK && payload_bytes < message->payload_bytes) {
        c->sending = message;
        c->sending_at_bytes = payload_bytes;
    }
    return status;
}

enum status channel_send_more(struct channel *c, size_t max_bytes, bool *done)
{
    enum status status = STATUS_OK;

    *done = true;
    if (c->state != CHANNEL_OPEN)
        return STATUS_CLOSED;
    while (c->sending && status == STATUS_OK) {
        size_t left = c->sending->payload_bytes - c->sending_at_bytes;
        size_t n = left < FRAME_RECORD_BYTES ? left : FRAME_RECORD_BYTES;

        status = reserve_records(c, n);
        if (status == STATUS_OK)
            status = record_write(c, c->sending->payload + c->sending_at_bytes, n);
        if (status != STATUS_OK)
            return channel_break(c, status); /* half a message is out */
        c->sending_at_bytes += n;
        if (n == left)
            c->sending = NULL;
        if (n >= max_bytes)
            break;
        max_bytes -= n;
    }
    *done = c->sending == NULL;
    return status;
}

enum status channel_send(struct channel *c, const struct message *message)
{
    enum status status = message_check_payload(message, message->payload_bytes, NULL);
    bool done;

    if (status == STATUS_OK)
        status = reserve_records(c, FRAME_RECORD_BYTES + message->payload_bytes);
    else
        status = STATUS_LIMIT;
    if (status == STATUS_OK)
        status = channel_send_begin(c, message);
    return status == STATUS_OK ? channel_send_more(c, SIZE_MAX, &done) : status;
}

enum status channel_output(struct channel *c, struct buffer *out)
{
    enum status status = STATUS_OK;

    if (out->len == 0 && (out->max_bytes == 0 || c->out.len <= out->max_bytes)) {
        struct buffer empty = *out;

        out->data = c->out.data;
        out->len = c->out.len;
        out->capacity = c->out.capacity;
        c->out.data = empty.data;
        c->out.capacity = empty.capacity;
    } else {
        status = buffer_put(out, c->out.data, c->out.len);
    }
    if (status == STATUS_OK)
        c->out.len = 0;
    return status;
}

bool channel_handshake_done(const struct channel *c)
{
    return c->state == CHANNEL_CONFIRMING || c->state == CHANNEL_OPEN;
}

bool channel_peer_is_self(const struct channel *c)
{
    return channel_handshake_done(c) &&
           sodium_memcmp(c->handshake.remote, c->handshake.self.public_key, PROTO_KEY_BYTES) == 0;
}

void channel_binding(const struct channel *c, uint8_t out[static 32])
{
    memcpy(out, c->handshake.hash, 32);
}
