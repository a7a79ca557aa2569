#ifndef SKEIN_PROTO_FRAME_H
#define SKEIN_PROTO_FRAME_H

/* Private to proto and its tests: messages as the plain text of records.
 *
 *   first record:  u32 length · u32 header length · header [· payload, where all of it fits]
 *   more records:  payload, every record full but the last
 *
 * length counts what follows it. A message begins with its own record, so large payloads can be
 * decrypted to where they are used; there is one valid way to cut a message into records. */
#include "proto/message.h"

enum {
    FRAME_RECORD_BYTES = PROTO_RECORD_BYTES - 16, /* plain text of a full record */
    FRAME_PREFIX_BYTES = 8
};

/* The first record's plain text into out [FRAME_RECORD_BYTES] and how much of the payload it holds
 * (all or nothing). Errors as message_pack. */
enum status frame_write(const struct message *message, uint8_t *out, size_t *out_bytes,
                        size_t *payload_bytes_written) MUST_USE;

/* Puts records together to messages. Zero-initialise all but the big arrays. */
struct frame_reader {
    struct message *message; /* whose payload is being read */
    size_t payload_at_bytes;
    struct message_arena arena;
    uint8_t first[FRAME_RECORD_BYTES];
};

/* What the next record must have as plain text; anything else is an error before it is read. */
void frame_reader_bounds(const struct frame_reader *reader, size_t *min_bytes, size_t *max_bytes);
/* Where the next record's plain text goes. */
uint8_t *frame_reader_place(struct frame_reader *reader);
/* n_bytes, within the bounds, lie at the place now. *out is the message where it is whole, else
 * NULL. */
enum status frame_reader_take(struct frame_reader *reader, size_t n_bytes, struct message **out,
                              struct fault *fault) MUST_USE;
void frame_reader_clear(struct frame_reader *reader); /* drops a message under way */

#endif
