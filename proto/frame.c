/* Framing: messages cut into records and put together again.
 *
 * The reader tells beforehand how long the next record may be and where its plain text belongs: a
 * scratch place for the first record of a message, the message's own payload after that. So the
 * channel decrypts straight to the final place, and a 4 MB activation is not copied again. A
 * payload buffer is made only when the header was parsed and its size fits the message's kind.
 *
 * What fails: lengths that contradict each other or the bounds (FORMAT, LIMIT), no memory for the
 * payload. All of it is final for the link. */
#include "proto/frame.h"

#include <assert.h>
#include <string.h>

_Static_assert(FRAME_PREFIX_BYTES + PROTO_MAX_HEADER_BYTES <= FRAME_RECORD_BYTES,
               "a header fits the first record");

enum status frame_write(const struct message *message, uint8_t *out, size_t *out_bytes,
                        size_t *payload_bytes_written)
{
    size_t header_bytes, whole;
    enum status status =
        message_pack(message, out + FRAME_PREFIX_BYTES, PROTO_MAX_HEADER_BYTES, &header_bytes);

    if (status != STATUS_OK)
        return status;
    bytes_put_u32(out, (uint32_t)(4 + header_bytes + message->payload_bytes));
    bytes_put_u32(out + 4, (uint32_t)header_bytes);
    *out_bytes = FRAME_PREFIX_BYTES + header_bytes;
    *payload_bytes_written = 0;
    whole = *out_bytes + message->payload_bytes;
    if (message->payload_bytes && whole <= FRAME_RECORD_BYTES) {
        memcpy(out + *out_bytes, message->payload, message->payload_bytes);
        *out_bytes = whole;
        *payload_bytes_written = message->payload_bytes;
    }
    return STATUS_OK;
}

void frame_reader_bounds(const struct frame_reader *reader, size_t *min_bytes, size_t *max_bytes)
{
    size_t left;

    if (!reader->message) {
        *min_bytes = FRAME_PREFIX_BYTES;
        *max_bytes = FRAME_RECORD_BYTES;
        return;
    }
    left = reader->message->payload_bytes - reader->payload_at_bytes;
    *min_bytes = *max_bytes = left < FRAME_RECORD_BYTES ? left : FRAME_RECORD_BYTES;
}

uint8_t *frame_reader_place(struct frame_reader *reader)
{
    return reader->message ? reader->message->payload + reader->payload_at_bytes : reader->first;
}

static enum status first_record(struct frame_reader *reader, size_t n_bytes, struct fault *fault)
{
    struct reader in = reader_of(reader->first, n_bytes);
    uint32_t length = reader_u32(&in), header_bytes = reader_u32(&in);
    const uint8_t *header = reader_take(&in, header_bytes);
    size_t payload_bytes = (size_t)length - 4 - header_bytes;
    struct message *message;
    enum status status;

    if (in.bad || length < 4 || length - 4 < header_bytes)
        return fault_set(fault, STATUS_FORMAT, "a message's lengths contradict each other");
    if (reader_left(&in) != (in.at + payload_bytes <= FRAME_RECORD_BYTES ? payload_bytes : 0))
        return fault_set(fault, STATUS_FORMAT, "a message's first record has the wrong length");
    status = message_unpack(header, header_bytes, payload_bytes, &reader->arena, &message, fault);
    if (status != STATUS_OK)
        return status;
    if (payload_bytes) {
        message->payload = mem_aligned(64, payload_bytes, 1);
        if (!message->payload) {
            message_free(&message);
            return fault_set(fault, STATUS_NO_MEMORY, "out of memory for a message of %zu bytes",
                             payload_bytes);
        }
        message->payload_bytes = payload_bytes;
        reader->payload_at_bytes = reader_left(&in);
        memcpy(message->payload, reader->first + in.at, reader->payload_at_bytes);
    } else {
        reader->payload_at_bytes = 0;
    }
    reader->message = message;
    return STATUS_OK;
}

enum status frame_reader_take(struct frame_reader *reader, size_t n_bytes, struct message **out,
                              struct fault *fault)
{
    enum status status = STATUS_OK;

    *out = NULL;
    if (reader->message) {
        assert(n_bytes <= reader->message->payload_bytes - reader->payload_at_bytes);
        reader->payload_at_bytes += n_bytes;
    } else {
        status = first_record(reader, n_bytes, fault);
    }
    if (status == STATUS_OK && reader->message &&
        reader->payload_at_bytes == reader->message->payload_bytes) {
        *out = reader->message;
        reader->message = NULL;
    }
    return status;
}

void frame_reader_clear(struct frame_reader *reader)
{
    message_free(&reader->message);
}
