/* Status codes and faults.
 *
 * One enum for the whole program, as an X-macro, so that the name, the exit code, the HTTP status
 * and the words of a failure can never drift apart. A fault adds a sentence for a person. Text that
 * does not fit is cut, never overflowed; a NULL fault is allowed everywhere so that fast paths and
 * tests need not carry one. */
#include "proto/base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int exit_code;
    int http;
    const char *words;
} statuses[STATUS_COUNT] = {
#define X(name, exit_code, http, words) {#name, exit_code, http, words},
    STATUS_MAP(X)
#undef X
};

const char *status_name(enum status status)
{
    return (unsigned)status < STATUS_COUNT ? statuses[status].name : "?";
}

const char *status_words(enum status status)
{
    return (unsigned)status < STATUS_COUNT ? statuses[status].words : "?";
}

int status_exit_code(enum status status)
{
    return (unsigned)status < STATUS_COUNT ? statuses[status].exit_code : 70;
}

int status_http(enum status status)
{
    return (unsigned)status < STATUS_COUNT ? statuses[status].http : 500;
}

enum status status_from_number(unsigned number)
{
    return number < STATUS_COUNT ? (enum status)number : STATUS_INTERNAL;
}

enum status status_from_errno(int error_number)
{
    switch (error_number) {
    case 0:
        return STATUS_OK;
    case ENOMEM:
        return STATUS_NO_MEMORY;
    case ENOENT:
    case ENOTDIR:
        return STATUS_NOT_FOUND;
    case EACCES:
    case EPERM:
        return STATUS_PERMISSION;
    case EADDRINUSE:
    case EEXIST:
        return STATUS_IN_USE;
    case ETIMEDOUT:
        return STATUS_TIMEOUT;
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH:
        return STATUS_UNREACHABLE;
    default:
        return STATUS_IO;
    }
}

enum status fault_set(struct fault *fault, enum status status, const char *format, ...)
{
    if (fault) {
        va_list args;
        fault->status = status;
        va_start(args, format);
        (void)vsnprintf(fault->text, sizeof fault->text, format, args);
        va_end(args);
    }
    return status;
}

enum status fault_prefix(struct fault *fault, const char *format, ...)
{
    char text[2 * sizeof fault->text];
    va_list args;
    size_t n;

    if (!fault)
        return STATUS_INTERNAL;
    va_start(args, format);
    (void)vsnprintf(text, sizeof fault->text - 2, format, args);
    va_end(args);
    n = strlen(text);
    memcpy(text + n, ": ", 2);
    memcpy(text + n + 2, fault->text, sizeof fault->text);
    memcpy(fault->text, text, sizeof fault->text - 1);
    return fault->status;
}
