/* Any bytes as the plain text of records, as an authenticated peer could send them.
 * links: skein_proto
 *
 * The input is a row of records, each a little-endian u16 length and that many bytes; lengths are
 * brought within the bounds that the reader announces, since the channel holds them. A message that
 * comes out is framed again and must come out the same.
 *
 * Memory: at most 66 MiB, one payload of the largest size and its message. */
#include <stdlib.h>
#include <string.h>

#include "proto/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct message *put_together(struct frame_reader *reader, const uint8_t *record, size_t n,
                                    const uint8_t *payload)
{
    struct message *out = NULL;
    size_t min, max;

    memcpy(frame_reader_place(reader), record, n);
    while (frame_reader_take(reader, n, &out, NULL) == STATUS_OK && !out) {
        frame_reader_bounds(reader, &min, &max);
        n = max;
        memcpy(frame_reader_place(reader), payload, n);
        payload += n;
    }
    return out;
}

static void check_again(const struct message *message)
{
    static struct frame_reader reader;
    static uint8_t record[FRAME_RECORD_BYTES];
    struct message *again;
    size_t n, with;

    if (frame_write(message, record, &n, &with) != STATUS_OK)
        abort();
    again = put_together(&reader, record, n, message->payload);
    if (!again || again->payload_bytes != message->payload_bytes ||
        (again->payload_bytes &&
         memcmp(again->payload, message->payload, again->payload_bytes) != 0))
        abort();
    message_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct frame_reader reader;
    enum status status = STATUS_OK;

    while (size >= 2 && status == STATUS_OK) {
        size_t n = (size_t)data[0] | (size_t)data[1] << 8, min, max, have;
        struct message *message;

        data += 2;
        size -= 2;
        frame_reader_bounds(&reader, &min, &max);
        n = n < min ? min : n > max ? max : n;
        have = n < size ? n : size;
        memset(frame_reader_place(&reader), 0, n);
        memcpy(frame_reader_place(&reader), data, have);
        data += have;
        size -= have;
        status = frame_reader_take(&reader, n, &message, NULL);
        if (message) {
            check_again(message);
            message_free(&message);
        }
    }
    frame_reader_clear(&reader);
    return 0;
}
