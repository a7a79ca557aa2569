/* What several built-ins share: searching and replacing bytes, case, sorting, argument checks. */
#include "engine/text/jinja_value.h"
#include "engine/text/utf8.h"

#include <string.h>
#include <utf8proc.h>

enum status jinja_want_text(struct jinja *j, struct jinja_value value, const char *what,
                            struct jinja_text *out)
{
    if (value.kind != JINJA_STRING) {
        return jinja_fail(j, STATUS_INVALID, "%s must be a string, not '%s'", what,
                          jinja_type_name(value));
    }
    *out = value.text;
    return STATUS_OK;
}

enum status jinja_want_int(struct jinja *j, struct jinja_value value, const char *what,
                           int64_t *out)
{
    if (!jinja_as_int(value, out)) {
        return jinja_fail(j, STATUS_INVALID, "%s must be an integer, not '%s'", what,
                          jinja_type_name(value));
    }
    return STATUS_OK;
}

size_t jinja_find(struct jinja_text text, struct jinja_text part)
{
    if (part.n == 0) {
        return 0;
    }
    const char *found = text.n < part.n ? NULL : memmem(text.data, text.n, part.data, part.n);
    return found == NULL ? SIZE_MAX : (size_t)(found - text.data);
}

size_t jinja_find_last(struct jinja_text text, struct jinja_text part)
{
    for (size_t at = text.n + 1; at-- > 0;) {
        if (part.n <= text.n - at &&
            (part.n == 0 || memcmp(text.data + at, part.data, part.n) == 0)) {
            return at;
        }
    }
    return SIZE_MAX;
}

/* An empty `old` stands before every character and at the end. */
static enum status replace_between(struct jinja *j, struct jinja_text text,
                                   struct jinja_text replacement, int64_t most,
                                   struct jinja_builder *b)
{
    uint32_t code;
    for (size_t at = 0; at < text.n;) {
        size_t length = utf8_decode(text.data + at, text.n - at, &code);
        if (most != 0) {
            JINJA_TRY(jinja_put(j, b, replacement.data, replacement.n));
            most--;
        }
        JINJA_TRY(jinja_work(j, 1));
        JINJA_TRY(jinja_put(j, b, text.data + at, length));
        at += length;
    }
    return most != 0 ? jinja_put(j, b, replacement.data, replacement.n) : STATUS_OK;
}

enum status jinja_replace(struct jinja *j, struct jinja_text text, struct jinja_text old,
                          struct jinja_text replacement, int64_t most, struct jinja_value *out)
{
    struct jinja_builder b = {0};
    if (old.n == 0) {
        JINJA_TRY(replace_between(j, text, replacement, most, &b));
        *out = jinja_built(&b);
        return STATUS_OK;
    }
    JINJA_TRY(jinja_work(j, text.n / 32));
    size_t found = 0;
    bool changed = false;
    while (most != 0 && (found = jinja_find(text, old)) != SIZE_MAX) {
        JINJA_TRY(jinja_work(j, 1));
        JINJA_TRY(jinja_put(j, &b, text.data, found));
        JINJA_TRY(jinja_put(j, &b, replacement.data, replacement.n));
        text.data += found + old.n;
        text.n -= found + old.n;
        most--;
        changed = true;
    }
    if (!changed) {
        *out = jinja_string(text.data, text.n);
        return STATUS_OK;
    }
    JINJA_TRY(jinja_put(j, &b, text.data, text.n));
    *out = jinja_built(&b);
    return STATUS_OK;
}

static bool in_set(struct jinja_text set, const char *character, size_t length, uint32_t code)
{
    if (set.data == NULL) {
        return utf8_is_space(code);
    }
    uint32_t other;
    for (size_t at = 0; at < set.n;) {
        size_t n = utf8_decode(set.data + at, set.n - at, &other);
        if (n == length && memcmp(set.data + at, character, n) == 0) {
            return true;
        }
        at += n;
    }
    return false;
}

struct jinja_text jinja_strip(struct jinja_text text, struct jinja_text set, bool left, bool right)
{
    uint32_t code;
    while (left && text.n > 0) {
        size_t length = utf8_decode(text.data, text.n, &code);
        if (!in_set(set, text.data, length, code)) {
            break;
        }
        text.data += length;
        text.n -= length;
    }
    while (right && text.n > 0) {
        size_t at = text.n - 1;
        while (at > 0 && text.n - at < 4 && ((uint8_t)text.data[at] & 0xc0) == 0x80) {
            at--;
        }
        size_t length = utf8_decode(text.data + at, text.n - at, &code);
        if (length != text.n - at) { /* not one character: a stray byte */
            at = text.n - 1;
            length = 1;
            code = UTF8_BAD;
        }
        if (!in_set(set, text.data + at, length, code)) {
            break;
        }
        text.n = at;
    }
    return text;
}

static enum status map_case(struct jinja *j, struct jinja_text text,
                            utf8proc_int32_t (*map)(utf8proc_int32_t), bool upper,
                            struct jinja_value *out)
{
    struct jinja_builder b = {0};
    JINJA_TRY(jinja_work(j, text.n / 4));
    for (size_t at = 0; at < text.n;) {
        uint32_t code;
        size_t length = utf8_decode(text.data + at, text.n - at, &code);
        if (code == UTF8_BAD) {
            JINJA_TRY(jinja_put(j, &b, text.data + at, length));
        } else if (upper && code == 0xdf) { /* the one common letter whose capital is two */
            JINJA_TRY(jinja_put_text(j, &b, "SS"));
        } else {
            JINJA_TRY(jinja_put_code(j, &b, (uint32_t)map((utf8proc_int32_t)code)));
        }
        at += length;
    }
    *out = jinja_built(&b);
    return STATUS_OK;
}

enum status jinja_lower(struct jinja *j, struct jinja_text text, struct jinja_value *out)
{
    return map_case(j, text, utf8proc_tolower, false, out);
}

enum status jinja_upper(struct jinja *j, struct jinja_text text, struct jinja_value *out)
{
    return map_case(j, text, utf8proc_toupper, true, out);
}

/* Merge sort, bottom up: stable, n log n, and the comparison may fail. */
static enum status merge(struct jinja *j, const struct jinja_value *keys,
                         const struct jinja_value *items, struct jinja_value *out_keys,
                         struct jinja_value *out_items, size_t begin, size_t middle, size_t end,
                         bool reverse)
{
    size_t a = begin, b = middle;
    for (size_t to = begin; to < end; to++) {
        bool second = a == middle;
        if (a < middle && b < end) {
            int order;
            JINJA_TRY(jinja_compare(j, keys[b], keys[a], &order));
            second = reverse ? order == 1 : order < 0;
        }
        size_t from = second ? b++ : a++;
        out_keys[to] = keys[from];
        out_items[to] = items[from];
    }
    return STATUS_OK;
}

enum status jinja_sort(struct jinja *j, struct jinja_value *keys, struct jinja_value *items,
                       size_t n, bool reverse)
{
    struct jinja_value *spare = jinja_take(j, 2 * n, sizeof *spare);
    if (spare == NULL) {
        return jinja_failure(j);
    }
    struct jinja_value *from[2] = {keys, items}, *to[2] = {spare, spare + n};
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t begin = 0; begin < n; begin += 2 * width) {
            size_t middle = begin + width < n ? begin + width : n;
            size_t end = begin + 2 * width < n ? begin + 2 * width : n;
            JINJA_TRY(merge(j, from[0], from[1], to[0], to[1], begin, middle, end, reverse));
        }
        for (int i = 0; i < 2; i++) {
            struct jinja_value *swap = from[i];
            from[i] = to[i];
            to[i] = swap;
        }
    }
    if (from[0] != keys && n > 0) {
        memcpy(keys, from[0], n * sizeof *keys);
        memcpy(items, from[1], n * sizeof *items);
    }
    return STATUS_OK;
}
