/* Any bytes as a message's header, as an authenticated peer could send it. links: skein_proto
 *
 * The first four bytes are the announced size of the payload. A header that was taken must be
 * within every bound, so it can be packed, and packing must be read back as the same message.
 *
 * Memory: at most 64 MiB. */
#include <stdlib.h>
#include <string.h>

#include "proto/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct message_arena arena;
    static uint8_t header[PROTO_MAX_HEADER_BYTES];
    struct message *message, *again;
    struct fault fault;
    size_t n, payload_bytes;

    if (size < 4)
        return 0;
    payload_bytes = bytes_get_u32(data);
    fault.text[0] = 0;
    if (message_unpack(data + 4, size - 4, payload_bytes, &arena, &message, &fault) != STATUS_OK) {
        if (message || !fault.text[0])
            abort();
        return 0;
    }
    message->payload_bytes = payload_bytes; /* announced, not there */
    if (message_pack(message, header, sizeof header, &n) != STATUS_OK ||
        message_unpack(header, n, payload_bytes, &arena, &again, &fault) != STATUS_OK)
        abort();
    again->payload_bytes = payload_bytes;
    if (memcmp(message, again, sizeof *message) != 0)
        abort();
    message_free(&message);
    message_free(&again);
    return 0;
}
