/* JSON from a client, bounded before it is built.
 *
 * jansson builds a tree whose nodes are many times larger than the text "[[],[],…": a body within
 * its limit could ask for hundreds of megabytes. So one pass over the bytes counts depth and values
 * first, outside of strings; it need not understand JSON, because jansson checks that afterwards
 * and no valid text has more values than commas, colons and opening brackets. */
#include "node/api/http.h"

static enum status json_bounds(const char *text, size_t n_bytes, struct api_error *error)
{
    size_t depth = 0, n_values = 1;
    bool in_string = false;

    for (size_t i = 0; i < n_bytes; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        in_string = c == '"';
        if (c == '[' || c == '{')
            depth++;
        if ((c == ']' || c == '}') && depth > 0)
            depth--;
        n_values += c == '[' || c == '{' || c == ',' || c == ':';
        if (depth > JSON_MAX_DEPTH)
            return api_error_set(error, STATUS_LIMIT, NULL, "invalid_json",
                                 "the body is nested deeper than %d levels", JSON_MAX_DEPTH);
        if (n_values > JSON_MAX_VALUES)
            return api_error_set(error, STATUS_LIMIT, NULL, "invalid_json",
                                 "the body holds more than %d values", JSON_MAX_VALUES);
    }
    return STATUS_OK;
}

enum status json_parse(const char *text, size_t n_bytes, json_t **out, struct api_error *error)
{
    enum status status = json_bounds(text, n_bytes, error);
    json_error_t where;

    if (status != STATUS_OK) {
        error->http = 400;
        return status;
    }
    *out = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &where);
    if (*out)
        return STATUS_OK;
    if (json_error_code(&where) == json_error_out_of_memory)
        return api_error_set(error, STATUS_NO_MEMORY, NULL, NULL, "no memory for the body");
    if (json_error_code(&where) == json_error_null_character)
        return api_error_set(error, STATUS_FORMAT, NULL, "invalid_json",
                             "line %d of the body has the character \\u0000 in a text, which no "
                             "prompt can hold; leave it out",
                             where.line);
    return api_error_set(error, STATUS_FORMAT, NULL, "invalid_json",
                         "the body is not valid JSON: line %d, column %d: %s", where.line,
                         where.column, where.text);
}

static int put_chunk(const char *data, size_t n, void *owner)
{
    return buffer_put(owner, data, n) == STATUS_OK ? 0 : -1;
}

enum status json_write(const json_t *value, struct buffer *out)
{
    size_t before = out->len;

    if (!value)
        return STATUS_NO_MEMORY;
    if (json_dump_callback(value, put_chunk, out,
                           JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_ENCODE_ANY) == 0)
        return STATUS_OK;
    out->len = before;
    if (out->data)
        out->data[before] = 0;
    return out->max_bytes && before + 64 > out->max_bytes ? STATUS_LIMIT : STATUS_NO_MEMORY;
}
