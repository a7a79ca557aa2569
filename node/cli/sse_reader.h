#ifndef SKEIN_NODE_CLI_SSE_READER_H
#define SKEIN_NODE_CLI_SSE_READER_H

/* The receiving end of server-sent events: bytes in any pieces in, the data of whole events out. */
#include "proto/base/base.h"

enum { SSE_READER_MAX_BYTES = 4 * 1024 * 1024 };

struct sse_reader { /* zero-initialise */
    struct buffer line, data;
    bool has_data, after_cr;
};

/* on_data gets the joined data lines of one event, NUL-terminated. It returns false to stop.
 * Errors: LIMIT for an event over SSE_READER_MAX_BYTES, NO_MEMORY, CANCELLED where on_data said
 * stop. */
enum status sse_reader_feed(struct sse_reader *reader, const char *bytes, size_t n_bytes,
                            bool (*on_data)(void *owner, const char *data, size_t n_bytes),
                            void *owner) MUST_USE;
void sse_reader_free(struct sse_reader *reader);

#endif
