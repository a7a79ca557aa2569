#ifndef SKEIN_NODE_FLOW_STREAM_H
#define SKEIN_NODE_FLOW_STREAM_H

/* Stop strings over a text that arrives in pieces. */
#include "proto/proto.h"

struct stream {
    char stops[PROTO_MAX_STOPS][PROTO_MAX_STOP_BYTES];
    size_t stop_bytes[PROTO_MAX_STOPS];
    uint32_t n_stops;
    struct buffer held; /* the end of the text so far that may be the beginning of a stop string */
    bool stopped;
};

/* Empty stop strings are left out. */
void stream_init(struct stream *stream, const struct request_spec *spec);
void stream_free(struct stream *stream);
/* Takes the next piece; appends to `out` what can no longer be part of a stop string. Once a stop
 * string is whole, `stream->stopped` is set, the text before it is out and all the rest is dropped.
 * NO_MEMORY: nothing taken. */
enum status stream_push(struct stream *stream, const char *text, size_t n_bytes,
                        struct buffer *out) MUST_USE;
/* The text ended without a stop string: what was held back comes out. */
enum status stream_flush(struct stream *stream, struct buffer *out) MUST_USE;

#endif
