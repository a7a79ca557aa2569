#ifndef SKEIN_PROTO_KEYFILE_H
#define SKEIN_PROTO_KEYFILE_H

/* Private to proto and its tests: one short secret text in one file. */
#include "proto/proto.h"

enum { KEYFILE_BYTES = 256 }; /* text and its NUL */

/* The text without its last newline. NOT_FOUND, PERMISSION (unreadable, or open to others), FORMAT
 * (too long, not a plain file, NUL bytes), IO. The caller wipes `out`. */
enum status keyfile_read(const char *path, char out[static KEYFILE_BYTES],
                         struct fault *fault) MUST_USE;
/* Writes text and a newline so that the file appears whole or not at all, 0600; missing folders are
 * made, 0700. *made is false, and nothing has changed, where the file exists already. */
enum status keyfile_make(const char *path, const char *text, bool *made,
                         struct fault *fault) MUST_USE;

#endif
