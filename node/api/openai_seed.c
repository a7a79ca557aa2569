/* Seeds up to 2^64 - 1 in a request's JSON.
 *
 * Samplers take 64 bits and clients send them, but jansson's numbers end at 2^63 - 1 and it refuses
 * a body that goes beyond. So the root's member "seed" is found in the text first, and where its
 * digits say more than that, they are put into quotation marks before jansson reads the body. The
 * walk knows strings and nesting and nothing else of JSON: what is malformed stays so. */
#include "node/api/openai.h"

#include <string.h>

struct walk {
    const char *text;
    size_t n, at;
};

static void skip_blank(struct walk *w)
{
    while (w->at < w->n && strchr(" \t\r\n", w->text[w->at]) && w->text[w->at])
        w->at++;
}

/* From the opening quotation mark to behind the closing one; the length of what is between. */
static size_t skip_string(struct walk *w)
{
    size_t begin = ++w->at;

    while (w->at < w->n && w->text[w->at] != '"')
        w->at += w->text[w->at] == '\\' ? 2 : 1;
    w->at = w->at < w->n ? w->at : w->n;
    begin = w->at - begin;
    w->at += w->at < w->n;
    return begin;
}

/* Digits of the root's "seed" that are a whole number above 2^63 - 1. */
static bool seed_find(const char *text, size_t n_bytes, size_t *at, size_t *n_digits)
{
    static const char most[] = "9223372036854775807";
    struct walk w = {.text = text, .n = n_bytes};
    size_t depth = 0;

    while (w.at < w.n) {
        char c = text[w.at];

        if (c == '"') {
            size_t n = skip_string(&w);
            bool named = depth == 1 && n == 4 && memcmp(text + w.at - 5, "seed", 4) == 0;

            skip_blank(&w);
            if (!named || w.at >= w.n || text[w.at] != ':')
                continue;
            w.at++;
            skip_blank(&w);
            *at = w.at;
            while (w.at < w.n && text[w.at] >= '0' && text[w.at] <= '9')
                w.at++;
            *n_digits = w.at - *at;
            return (*n_digits == 20 && text[*at] != '0') ||
                   (*n_digits == 19 && memcmp(text + *at, most, 19) > 0);
        }
        depth += c == '{' || c == '[';
        depth -= (c == '}' || c == ']') && depth > 0;
        w.at++;
    }
    return false;
}

enum status openai_json_parse(const char *json, size_t n_bytes, json_t **out,
                              struct api_error *error)
{
    struct buffer text = {0};
    size_t at, n_digits;
    enum status status;

    if (!seed_find(json, n_bytes, &at, &n_digits))
        return json_parse(json, n_bytes, out, error);
    status = buffer_put(&text, json, at);
    if (status == STATUS_OK)
        status = buffer_put_u8(&text, '"');
    if (status == STATUS_OK)
        status = buffer_put(&text, json + at, n_digits);
    if (status == STATUS_OK)
        status = buffer_put_u8(&text, '"');
    if (status == STATUS_OK)
        status = buffer_put(&text, json + at + n_digits, n_bytes - at - n_digits);
    if (status == STATUS_OK)
        status = json_parse((const char *)text.data, text.len, out, error);
    else
        (void)api_error_set(error, status, NULL, NULL, "no memory for the body");
    buffer_free(&text);
    return status;
}
