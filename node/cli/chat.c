/* A chat on the terminal: lines in, answers out, the whole conversation sent each time.
 *
 * Ctrl-C stops the answer that is coming (what there is of it stays in the conversation) or clears
 * the line; Ctrl-D and /bye end. Lines are read with read(2), so that Ctrl-C is seen at once. */
#include "node/cli/run.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { CHAT_MAX_LINE = 64 * 1024 };

enum line_end { LINE_READ, LINE_INTERRUPTED, LINE_CLOSED };

static enum line_end line_read(struct buffer *pending, struct buffer *line)
{
    for (;;) {
        uint8_t *end = pending->len ? memchr(pending->data, '\n', pending->len) : NULL;
        char chunk[1024];
        ssize_t n;

        if (end) {
            size_t taken = (size_t)(end - pending->data);
            line->len = 0;
            if (buffer_put(line, pending->data, taken) != STATUS_OK)
                return LINE_CLOSED;
            buffer_drop_front(pending, taken + 1);
            return LINE_READ;
        }
        n = read(STDIN_FILENO, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR) {
            pending->len = 0;
            return LINE_INTERRUPTED;
        }
        if (n <= 0 || buffer_put(pending, chunk, (size_t)n) != STATUS_OK)
            return LINE_CLOSED;
    }
}

static bool say(json_t *messages, const char *role, const char *text, size_t n_bytes)
{
    json_t *content = json_stringn(text, n_bytes);

    return content && json_array_append_new(
                          messages, json_pack("{s:s, s:o}", "role", role, "content", content)) == 0;
}

/* One turn. False: the chat cannot go on. */
static bool turn(struct ask *ask, json_t *messages, const struct buffer *line, struct fault *fault)
{
    struct buffer answer = {0};
    enum status status;
    bool good = true;

    if (!say(messages, "user", (const char *)line->data, line->len)) {
        (void)fputs("that line is not UTF-8\n", stderr);
        return true;
    }
    status = ask_stream(ask, messages, NULL, &answer, fault);
    if (status == STATUS_OK || (status == STATUS_CANCELLED && answer.len > 0)) {
        good = say(messages, "assistant", answer.data ? (const char *)answer.data : "", answer.len);
        if (!good)
            (void)fault_set(fault, STATUS_NO_MEMORY, "no memory for the conversation");
    } else {
        (void)json_array_remove(messages, json_array_size(messages) - 1);
        if (status == STATUS_IO || status == STATUS_UNREACHABLE)
            good = false;
        else if (status != STATUS_CANCELLED)
            (void)cli_fail(fault); /* told; the next line may do better */
        if (strstr(fault->text, "context"))
            (void)fputs("/clear starts the chat again\n", stderr);
    }
    run_stop = 0;
    buffer_free(&answer);
    return good;
}

enum status ask_chat(struct ask *ask, struct fault *fault)
{
    struct buffer pending = {.max_bytes = CHAT_MAX_LINE}, line = {0};
    json_t *messages = json_array();
    enum line_end end = LINE_READ;
    bool good = messages != NULL;

    fault->status = STATUS_OK;
    if (good && ask->run->system)
        good = say(messages, "system", ask->run->system, strlen(ask->run->system));
    if (!ask->run->quiet)
        (void)fputs("/bye or Ctrl-D ends, /clear starts again, Ctrl-C stops an answer\n", stderr);
    while (good && end != LINE_CLOSED) {
        if (!ask->run->quiet)
            (void)fputs("> ", stderr);
        end = line_read(&pending, &line);
        run_stop = 0;
        if (end != LINE_READ && !ask->run->quiet)
            (void)fputc('\n', stderr);
        if (end != LINE_READ || line.len == 0)
            continue;
        if (strcmp((const char *)line.data, "/bye") == 0)
            break;
        if (strcmp((const char *)line.data, "/clear") == 0) {
            while (json_array_size(messages) > (ask->run->system ? 1u : 0u))
                (void)json_array_remove(messages, json_array_size(messages) - 1);
            continue;
        }
        good = turn(ask, messages, &line, fault);
    }
    json_decref(messages);
    buffer_free(&pending);
    buffer_free(&line);
    return good ? STATUS_OK : fault->status != STATUS_OK ? fault->status : STATUS_NO_MEMORY;
}
