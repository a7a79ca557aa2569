/* Links: skein_engine.
 *
 * Any bytes as a chat template; behind the first NUL, if there is one, as the JSON of its
 * variables. Nothing may crash or go on past the limits, and a failure must have words.
 *
 * Memory: at most 48 MiB. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/jinja.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char usual[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi \xc3\xa9\"}, {\"role\": \"assistant\", "
    "\"content\": null, \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {\"a\": "
    "1.5}}}]}], \"tools\": [{\"a\": [1, 2]}], \"s\": \"abc\", \"l\": [3, 1, 2], \"d\": {\"k\": 1}}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct jinja_limits limits = {.steps = 200000,
                                  .memory_bytes = (size_t)16 << 20,
                                  .output_bytes = (size_t)4 << 20,
                                  .depth = 200};
    struct buffer out = {0};
    struct fault fault = {0};
    char *copy = malloc(size + 1);

    if (!copy)
        return 0;
    memcpy(copy, data, size);
    copy[size] = '\0';
    size_t n = strlen(copy);
    const char *variables = n < size ? copy + n + 1 : usual;
    enum status status =
        jinja_render(copy, n, NULL, 0, variables, 1760000000, &limits, &out, &fault);
    if (status != STATUS_OK && (fault.text[0] == '\0' && strstr(copy, "raise_exception") == NULL))
        abort();
    if (status != STATUS_OK && out.len > 0)
        abort();
    buffer_free(&out);
    free(copy);
    return 0;
}
