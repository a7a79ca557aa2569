/* Stop strings over a text that arrives in pieces.
 *
 * A stop string may be split over any number of tokens, and the client must never see its first
 * half. So the end of the text is held back for as long as it is a proper prefix of some stop
 * string; everything before it goes out at once. The held part is at most one stop string long, and
 * stop strings are short, so a plain search is as good as an automaton.
 *
 * Happy path: push, push, … flush. With a match: the text before the earliest match goes out,
 * `stopped` is set, later pieces are dropped. What can fail is memory; then the piece is not taken.
 */
#include "node/flow/stream.h"

#include <string.h>

void stream_init(struct stream *stream, const struct request_spec *spec)
{
    memset(stream, 0, sizeof *stream);
    for (uint32_t i = 0; i < spec->n_stops && i < PROTO_MAX_STOPS; i++) {
        size_t n = strnlen(spec->stops[i], PROTO_MAX_STOP_BYTES);

        if (n == 0)
            continue;
        memcpy(stream->stops[stream->n_stops], spec->stops[i], n);
        stream->stop_bytes[stream->n_stops++] = n;
    }
}

void stream_free(struct stream *stream)
{
    buffer_free(&stream->held);
}

/* The first place where a whole stop string stands, or len. */
static size_t stream_first_match(const struct stream *stream, const uint8_t *text, size_t len)
{
    size_t first = len;

    for (uint32_t i = 0; i < stream->n_stops; i++) {
        const uint8_t *hit = memmem(text, len, stream->stops[i], stream->stop_bytes[i]);

        if (hit && (size_t)(hit - text) < first)
            first = (size_t)(hit - text);
    }
    return first;
}

/* How many bytes at the end are a proper prefix of a stop string: the longest such. */
static size_t stream_open_end(const struct stream *stream, const uint8_t *text, size_t len)
{
    size_t longest = 0;

    for (uint32_t i = 0; i < stream->n_stops; i++) {
        size_t n = stream->stop_bytes[i] - 1;

        for (n = n < len ? n : len; n > longest; n--) {
            if (memcmp(text + len - n, stream->stops[i], n) == 0) {
                longest = n;
                break;
            }
        }
    }
    return longest;
}

enum status stream_push(struct stream *stream, const char *text, size_t n_bytes, struct buffer *out)
{
    enum status status;
    size_t final_bytes;

    if (stream->stopped)
        return STATUS_OK;
    if (stream->n_stops == 0)
        return buffer_put(out, text, n_bytes);
    status = buffer_reserve(out, stream->held.len + n_bytes);
    if (status != STATUS_OK)
        return status;
    status = buffer_put(&stream->held, text, n_bytes);
    if (status != STATUS_OK)
        return status;
    if (stream->held.len == 0)
        return STATUS_OK;
    final_bytes = stream_first_match(stream, stream->held.data, stream->held.len);
    if (final_bytes < stream->held.len)
        stream->stopped = true;
    else
        final_bytes -= stream_open_end(stream, stream->held.data, stream->held.len);
    status = buffer_put(out, stream->held.data, final_bytes);
    buffer_drop_front(&stream->held, stream->stopped ? stream->held.len : final_bytes);
    return status;
}

enum status stream_flush(struct stream *stream, struct buffer *out)
{
    enum status status = STATUS_OK;

    if (stream->held.len)
        status = buffer_put(out, stream->held.data, stream->held.len);
    if (status == STATUS_OK && stream->held.len)
        buffer_drop_front(&stream->held, stream->held.len);
    return status;
}
