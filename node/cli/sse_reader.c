/* Server-sent events, received: WHATWG HTML, 9.2.6. Lines end in LF, CR or CR LF; "data:" lines of
 * one event are joined by LF; an empty line ends the event; comments and other fields are skipped.
 */
#include "node/cli/sse_reader.h"

#include <string.h>

static enum status line_end(struct sse_reader *reader,
                            bool (*on_data)(void *owner, const char *data, size_t n_bytes),
                            void *owner)
{
    const char *line = reader->line.data ? (const char *)reader->line.data : "";
    enum status status = STATUS_OK;

    if (reader->line.len == 0) {
        if (reader->has_data &&
            !on_data(owner, reader->data.data ? (const char *)reader->data.data : "",
                     reader->data.len))
            status = STATUS_CANCELLED;
        reader->has_data = false;
        reader->data.len = 0;
    } else if (strncmp(line, "data:", 5) == 0) {
        const char *value = line + 5 + (line[5] == ' ');
        if (reader->has_data)
            status = buffer_put_u8(&reader->data, '\n');
        if (status == STATUS_OK)
            status = buffer_put(&reader->data, value, reader->line.len - (size_t)(value - line));
        reader->has_data = true;
    }
    reader->line.len = 0;
    return status;
}

enum status sse_reader_feed(struct sse_reader *reader, const char *bytes, size_t n_bytes,
                            bool (*on_data)(void *owner, const char *data, size_t n_bytes),
                            void *owner)
{
    enum status status = STATUS_OK;
    size_t at = 0;

    reader->line.max_bytes = reader->data.max_bytes = SSE_READER_MAX_BYTES;
    while (at < n_bytes && status == STATUS_OK) {
        size_t n = 0;

        if (reader->after_cr && bytes[at] == '\n') {
            reader->after_cr = false;
            at++;
            continue;
        }
        reader->after_cr = false;
        while (at + n < n_bytes && bytes[at + n] != '\n' && bytes[at + n] != '\r')
            n++;
        status = buffer_put(&reader->line, bytes + at, n);
        at += n;
        if (status == STATUS_OK && at < n_bytes) {
            reader->after_cr = bytes[at++] == '\r';
            status = line_end(reader, on_data, owner);
        }
    }
    return status;
}

void sse_reader_free(struct sse_reader *reader)
{
    buffer_free(&reader->line);
    buffer_free(&reader->data);
}
