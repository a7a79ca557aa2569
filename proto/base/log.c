/* Logging: one line an event, `subsystem event key=value`, to a sink that can be replaced.
 *
 * Lines are built in a fixed buffer and cut when longer; control bytes are replaced, because values
 * may come from a peer or a file and a log must not be able to move a terminal's cursor. */
#include "proto/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const level_names[] = {"error", "warn", "info", "debug"};

static void log_to_stderr(void *owner, enum log_level level, const char *line)
{
    (void)owner;
    (void)fprintf(stderr, "%s %s\n", level_names[level], line);
}

static log_sink *log_sink_now = log_to_stderr;
static void *log_sink_owner;
static enum log_level log_level_now = LOG_INFO;

void log_to(log_sink *sink, void *owner)
{
    log_sink_now = sink ? sink : log_to_stderr;
    log_sink_owner = owner;
}

void log_level_set(enum log_level level)
{
    log_level_now = level;
}

enum log_level log_level_get(void)
{
    return log_level_now;
}

bool log_level_parse(const char *word, enum log_level *out)
{
    for (unsigned i = 0; i < sizeof level_names / sizeof *level_names; i++)
        if (strcmp(word, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return true;
        }
    return false;
}

void log_event(enum log_level level, const char *subsystem, const char *format, ...)
{
    char line[1024];
    va_list args;
    int n;

    if (level > log_level_now)
        return;
    n = snprintf(line, sizeof line, "%s ", subsystem);
    if (n < 0 || (size_t)n >= sizeof line)
        return;
    va_start(args, format);
    (void)vsnprintf(line + n, sizeof line - (size_t)n, format, args);
    va_end(args);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    log_sink_now(log_sink_owner, level, line);
}
