#ifndef SKEIN_PROTO_MESSAGE_H
#define SKEIN_PROTO_MESSAGE_H

/* Private to proto and its tests: message headers as protobuf bytes. */
#include "proto/proto.h"

/* Where protobuf-c unpacks into: it cannot grow, so no header can make a node allocate. Starts
 * empty at every message_unpack. */
enum { MESSAGE_ARENA_BYTES = 128 * 1024 };
struct message_arena {
    size_t used_bytes;
    bool full; /* something did not fit */
    _Alignas(16) uint8_t bytes[MESSAGE_ARENA_BYTES];
};

/* The header into out [max_bytes]. Text for people that is not UTF-8 gets '?' in the bad places.
 * LIMIT: over a bound of proto.h, or its payload does not fit its kind. FORMAT: text that must not
 * change is not UTF-8, or a number is not finite. */
enum status message_pack(const struct message *message, uint8_t *out, size_t max_bytes,
                         size_t *out_bytes) MUST_USE;

/* A message without its payload yet, from header bytes of a peer and the announced size of the
 * payload, which is checked against the kind. FORMAT, LIMIT, NO_MEMORY, with a sentence. */
enum status message_unpack(const uint8_t *header, size_t n_bytes, size_t payload_bytes,
                           struct message_arena *arena, struct message **out,
                           struct fault *fault) MUST_USE;

/* Whether that many bytes may follow a message of this kind and content. */
enum status message_check_payload(const struct message *message, size_t payload_bytes,
                                  struct fault *fault) MUST_USE;

const char *message_kind_name(enum message_kind kind); /* "card" */

#endif
