#ifndef SKEIN_PROTO_BASE_LOG_H
#define SKEIN_PROTO_BASE_LOG_H

#include <stdbool.h>

#include "proto/base/status.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Receives one finished line without newline. May be called from any thread. */
typedef void log_sink(void *owner, enum log_level level, const char *line);

/* The sink and the level are the program's only mutable globals beside the kernel table. Set them
 * once, before threads start. The default writes lines of LOG_INFO and above to standard error. */
void log_to(log_sink *sink, void *owner);
void log_level_set(enum log_level level);
enum log_level log_level_get(void);
bool log_level_parse(const char *word, enum log_level *out);

/* "subsystem event key=value …". Never a secret, a prompt or a token. Control bytes become '?'. */
void log_event(enum log_level level, const char *subsystem, const char *format, ...)
    PRINTF_LIKE(3, 4);

#endif
