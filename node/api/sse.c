/* Server-sent events (WHATWG HTML, 9.2): "data: …" and an empty line, over a bounded buffer.
 *
 * The buffer stands between the node, which makes text at its own pace, and a client that may read
 * at another. Where it is full the client is too far behind, and the stream ends: nothing else
 * waits for it. A comment line (":") is what tells a dead client from a silent model. */
#include "node/api/http.h"

#include <string.h>

/* Bytes that the client took are dropped once they outweigh what is left, so that taking a large
 * buffer in small pieces does not move it each time. */
static void sse_compact(struct sse *sse)
{
    if (sse->taken == 0 || sse->taken * 2 < sse->out.len)
        return;
    buffer_drop_front(&sse->out, sse->taken);
    sse->taken = 0;
}

static enum status sse_put(struct sse *sse, const char *lead, const json_t *value, const char *text)
{
    size_t before;
    enum status status;

    sse_compact(sse);
    before = sse->out.len;
    status = buffer_put_text(&sse->out, lead);
    if (status == STATUS_OK)
        status = value ? json_write(value, &sse->out) : buffer_put_text(&sse->out, text);
    if (status == STATUS_OK)
        status = buffer_put_text(&sse->out, "\n\n");
    if (status != STATUS_OK && sse->out.data) { /* never half an event */
        sse->out.len = before;
        sse->out.data[before] = 0;
    }
    return status;
}

enum status sse_event(struct sse *sse, const json_t *value)
{
    return value ? sse_put(sse, "data: ", value, NULL) : STATUS_NO_MEMORY;
}

enum status sse_text(struct sse *sse, const char *line)
{
    return sse_put(sse, "data: ", NULL, line);
}

enum status sse_comment(struct sse *sse)
{
    return sse_put(sse, ":", NULL, "");
}

size_t sse_waiting(const struct sse *sse)
{
    return sse->out.len - sse->taken;
}

size_t sse_take(struct sse *sse, char *out, size_t max)
{
    size_t n = sse_waiting(sse) < max ? sse_waiting(sse) : max;

    if (n)
        memcpy(out, sse->out.data + sse->taken, n);
    sse->taken += n;
    sse_compact(sse);
    return n;
}

void sse_free(struct sse *sse)
{
    buffer_free(&sse->out);
    sse->taken = 0;
}
