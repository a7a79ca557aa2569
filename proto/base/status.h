#ifndef SKEIN_PROTO_BASE_STATUS_H
#define SKEIN_PROTO_BASE_STATUS_H

#include <stddef.h>

#define MUST_USE               __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

/* Every way in which something can fail. The columns: name, process exit code, HTTP status, words.
 * The numbers of the enum travel between nodes (mesh.proto, field `status`): append only. */
#define STATUS_MAP(X)                                                                              \
    X(OK, 0, 200, "ok")                                                                            \
    X(NO_MEMORY, 70, 503, "out of memory")                                                         \
    X(INVALID, 64, 400, "invalid argument")                                                        \
    X(FORMAT, 65, 400, "malformed data")                                                           \
    X(TRUNCATED, 65, 400, "truncated data")                                                        \
    X(LIMIT, 65, 413, "over a limit")                                                              \
    X(UNSUPPORTED, 69, 400, "not supported")                                                       \
    X(NOT_FOUND, 66, 404, "not found")                                                             \
    X(IO, 74, 500, "input/output error")                                                           \
    X(PERMISSION, 77, 403, "permission denied")                                                    \
    X(IN_USE, 75, 409, "already in use")                                                           \
    X(AUTH, 77, 401, "authentication failed")                                                      \
    X(TIMEOUT, 75, 504, "timed out")                                                               \
    X(CLOSED, 75, 502, "closed")                                                                   \
    X(CANCELLED, 75, 499, "cancelled")                                                             \
    X(BUSY, 75, 503, "busy")                                                                       \
    X(NO_ROOM, 69, 503, "does not fit in memory")                                                  \
    X(UNREACHABLE, 68, 502, "unreachable")                                                         \
    X(CONTEXT, 65, 400, "longer than the context")                                                 \
    X(LOST, 75, 502, "a node was lost")                                                            \
    X(INTERNAL, 70, 500, "internal error")

enum status {
#define X(name, exit_code, http, words) STATUS_##name,
    STATUS_MAP(X)
#undef X
        STATUS_COUNT
};

const char *status_name(enum status status);  /* "NOT_FOUND" */
const char *status_words(enum status status); /* "not found" */
int status_exit_code(enum status status);     /* sysexits-like, 0 for OK */
int status_http(enum status status);
enum status status_from_number(unsigned number); /* unknown numbers become STATUS_INTERNAL */
enum status status_from_errno(int error_number);

/* A failure with a sentence that the user can act on: what was wrong, with its name and numbers,
 * and what to change. No trailing full stop, no newline. */
struct fault {
    enum status status;
    char text[512];
};

/* Fills `fault` (which may be NULL) and returns `status`, so that a return takes one line. */
enum status fault_set(struct fault *fault, enum status status, const char *format, ...)
    PRINTF_LIKE(3, 4);
/* Puts "context: " before the text that is there. Returns fault->status. */
enum status fault_prefix(struct fault *fault, const char *format, ...) PRINTF_LIKE(2, 3);

#endif
