#ifndef SKEIN_ENGINE_TEXT_JINJA_H
#define SKEIN_ENGINE_TEXT_JINJA_H

/* The template engine, seen from the rest of the text folder. */
#include "engine/engine.h"

struct jinja_limits {
    uint64_t steps;      /* evaluation steps; 0: as below */
    size_t memory_bytes; /* everything that a rendering holds */
    size_t output_bytes;
    unsigned depth; /* nesting of expressions, blocks and macro calls together */
};

/* 20 million steps, 256 MiB, 64 MiB, 400 levels: what one rendering may cost at most. */
void jinja_limits_default(struct jinja_limits *out);

struct jinja_variable {
    const char *name;
    const char *json; /* a JSON value, or NULL: `text` is a string */
    const char *text; /* or NULL: none */
    size_t text_bytes;
};

/* Renders template with the variables (the keys of the JSON object more_json, which may be NULL,
 * come on top of them) and appends the result to `out`, which is unchanged on failure. Errors:
 * INVALID (JSON of a wrong shape, an error raised by the template or by an operation in it), FORMAT
 * (the template is malformed), UNSUPPORTED, LIMIT, NO_MEMORY; all with the template's line. */
enum status jinja_render(const char *text, size_t n_bytes, const struct jinja_variable *variables,
                         size_t n_variables, const char *more_json, int64_t now_unix_seconds,
                         const struct jinja_limits *limits, struct buffer *out,
                         struct fault *fault) MUST_USE;

#endif
