/* Methods of strings, lists and dictionaries, as Python has them. Rows without a function would
 * change their value, which the sandbox of Hugging Face forbids; such names hide keys of a
 * dictionary behind a dot, as they do there. */
#include "engine/text/jinja_value.h"
#include "engine/text/utf8.h"

#include <string.h>

#define METHOD(name)                                                                               \
    static enum status method_##name(                                                              \
        __attribute__((unused)) struct jinja *j, __attribute__((unused)) struct jinja_value self,  \
        __attribute__((unused)) const struct jinja_value *args,                                    \
        __attribute__((unused)) const struct jinja_call *call, struct jinja_value *out)

static bool absent(struct jinja_value value)
{
    return !jinja_given(value) || value.kind == JINJA_NONE;
}

static enum status strip(struct jinja *j, struct jinja_value self, struct jinja_value set,
                         bool left, bool right, struct jinja_value *out)
{
    struct jinja_text characters = {NULL, 0};
    if (!absent(set)) {
        JINJA_TRY(jinja_want_text(j, set, "the argument of strip", &characters));
        characters.data = characters.n == 0 ? "" : characters.data;
    }
    JINJA_TRY(jinja_work(j, self.text.n / 64));
    struct jinja_text text = jinja_strip(self.text, characters, left, right);
    *out = jinja_string(text.data, text.n);
    return STATUS_OK;
}

METHOD(strip)
{
    return strip(j, self, args[0], true, true, out);
}

METHOD(lstrip)
{
    return strip(j, self, args[0], true, false, out);
}

METHOD(rstrip)
{
    return strip(j, self, args[0], false, true, out);
}

static bool affix_is(struct jinja_text text, struct jinja_text affix, bool at_start)
{
    return affix.n <= text.n &&
           (affix.n == 0 ||
            memcmp(at_start ? text.data : text.data + text.n - affix.n, affix.data, affix.n) == 0);
}

/* The part [start, end) by characters, as the optional arguments of find and its like; false where
 * it lies outside of the text, in which not even "" is found. */
static enum status part_of(struct jinja *j, struct jinja_text text, struct jinja_value start,
                           struct jinja_value end, struct jinja_text *out, size_t *offset,
                           bool *inside)
{
    struct jinja_value bounds[3] = {absent(start) ? jinja_none() : start,
                                    absent(end) ? jinja_none() : end, jinja_none()};
    struct jinja_value part;
    int64_t from = 0;
    *out = text;
    *offset = 0;
    *inside = true;
    if (absent(start) && absent(end)) {
        return STATUS_OK;
    }
    size_t length = utf8_count(text.data, text.n);
    if (!absent(start)) {
        JINJA_TRY(jinja_want_int(j, start, "a start", &from));
    }
    *inside = from <= (int64_t)length;
    from = from < 0 ? from + (int64_t)length : from;
    *offset = from < 0 ? 0 : (size_t)from;
    JINJA_TRY(jinja_slice(j, jinja_string(text.data, text.n), bounds, &part));
    *out = part.text;
    return STATUS_OK;
}

static enum status affix_test(struct jinja *j, struct jinja_value self,
                              const struct jinja_value *args, bool at_start,
                              struct jinja_value *out)
{
    struct jinja_text part, affix;
    size_t offset;
    bool inside, found = false;
    JINJA_TRY(part_of(j, self.text, args[1], args[2], &part, &offset, &inside));
    if (args[0].kind != JINJA_TUPLE) {
        JINJA_TRY(jinja_want_text(j, args[0], "the argument of startswith and endswith", &affix));
        *out = jinja_bool(inside && affix_is(part, affix, at_start));
        return STATUS_OK;
    }
    for (size_t i = 0; i < args[0].list->n && !found; i++) {
        JINJA_TRY(jinja_want_text(j, args[0].list->items[i], "an affix", &affix));
        found = inside && affix_is(part, affix, at_start);
    }
    *out = jinja_bool(found);
    return STATUS_OK;
}

METHOD(startswith)
{
    return affix_test(j, self, args, true, out);
}

METHOD(endswith)
{
    return affix_test(j, self, args, false, out);
}

METHOD(removeprefix)
{
    struct jinja_text affix;
    JINJA_TRY(jinja_want_text(j, args[0], "the prefix", &affix));
    size_t n = affix_is(self.text, affix, true) ? affix.n : 0;
    *out = jinja_string(self.text.data + n, self.text.n - n);
    return STATUS_OK;
}

METHOD(removesuffix)
{
    struct jinja_text affix;
    JINJA_TRY(jinja_want_text(j, args[0], "the suffix", &affix));
    size_t n = affix_is(self.text, affix, false) ? affix.n : 0;
    *out = jinja_string(self.text.data, self.text.n - n);
    return STATUS_OK;
}

static enum status find(struct jinja *j, struct jinja_value self, const struct jinja_value *args,
                        bool last, int64_t *out)
{
    struct jinja_text part, wanted;
    size_t offset;
    bool inside;
    JINJA_TRY(jinja_want_text(j, args[0], "the argument of find", &wanted));
    JINJA_TRY(part_of(j, self.text, args[1], args[2], &part, &offset, &inside));
    JINJA_TRY(jinja_work(j, part.n / 16));
    size_t at = last ? jinja_find_last(part, wanted) : jinja_find(part, wanted);
    *out = at == SIZE_MAX || !inside ? -1 : (int64_t)(offset + utf8_count(part.data, at));
    return STATUS_OK;
}

METHOD(find)
{
    *out = jinja_int(0);
    return find(j, self, args, false, &out->integer);
}

METHOD(rfind)
{
    *out = jinja_int(0);
    return find(j, self, args, true, &out->integer);
}

static enum status index_of(struct jinja *j, struct jinja_value self,
                            const struct jinja_value *args, bool last, struct jinja_value *out)
{
    *out = jinja_int(0);
    JINJA_TRY(find(j, self, args, last, &out->integer));
    return out->integer < 0 ? jinja_fail(j, STATUS_INVALID, "substring not found") : STATUS_OK;
}

METHOD(index)
{
    return index_of(j, self, args, false, out);
}

METHOD(rindex)
{
    return index_of(j, self, args, true, out);
}

METHOD(count)
{
    struct jinja_text part, wanted;
    size_t offset;
    bool inside;
    int64_t count = 0;
    JINJA_TRY(jinja_want_text(j, args[0], "the argument of count", &wanted));
    JINJA_TRY(part_of(j, self.text, args[1], args[2], &part, &offset, &inside));
    JINJA_TRY(jinja_work(j, part.n / 16));
    if (wanted.n == 0) {
        count = inside ? (int64_t)utf8_count(part.data, part.n) + 1 : 0;
    }
    for (size_t at; wanted.n > 0 && (at = jinja_find(part, wanted)) != SIZE_MAX; count++) {
        part.data += at + wanted.n;
        part.n -= at + wanted.n;
        JINJA_TRY(jinja_work(j, 1));
    }
    *out = jinja_int(count);
    return STATUS_OK;
}

METHOD(replace)
{
    struct jinja_text old, replacement;
    int64_t most = -1;
    JINJA_TRY(jinja_want_text(j, args[0], "the first argument of replace", &old));
    JINJA_TRY(jinja_want_text(j, args[1], "the second argument of replace", &replacement));
    if (jinja_given(args[2])) {
        JINJA_TRY(jinja_want_int(j, args[2], "the count of replace", &most));
    }
    return jinja_replace(j, self.text, old, replacement, most, out);
}

METHOD(join)
{
    struct jinja_list *list;
    struct jinja_builder b = {0};
    JINJA_TRY(jinja_walk(j, args[0], &list));
    for (size_t i = 0; i < list->n; i++) {
        struct jinja_text item;
        JINJA_TRY(jinja_want_text(j, list->items[i], "an item of join", &item));
        JINJA_TRY(jinja_put(j, &b, self.text.data, i > 0 ? self.text.n : 0));
        JINJA_TRY(jinja_put(j, &b, item.data, item.n));
    }
    *out = jinja_built(&b);
    return STATUS_OK;
}

/* Words between white space; what is left after `most` splits stays whole. */
static enum status split_space(struct jinja *j, struct jinja_text text, int64_t most, bool right,
                               struct jinja_list *list)
{
    const struct jinja_text space = {NULL, 0};
    text = jinja_strip(text, space, !right || most < 0, right || most < 0);
    while (text.n > 0) {
        uint32_t code;
        size_t at = right ? text.n : 0;
        bool whole = most >= 0 && (int64_t)list->n == most;
        while (!whole && (right ? at > 0 : at < text.n)) {
            size_t step = right ? 1 : utf8_decode(text.data + at, text.n - at, &code);
            while (right && step < at && step < 4 &&
                   ((uint8_t)text.data[at - step] & 0xc0) == 0x80) {
                step++;
            }
            if (right) {
                (void)utf8_decode(text.data + at - step, step, &code);
            }
            if (utf8_is_space(code)) {
                break;
            }
            at = right ? at - step : at + step;
        }
        JINJA_TRY(jinja_work(j, 1 + text.n / 256));
        if (whole) {
            return jinja_list_add(j, list, jinja_string(text.data, text.n));
        }
        struct jinja_text word = right ? (struct jinja_text){text.data + at, text.n - at}
                                       : (struct jinja_text){text.data, at};
        text = right ? (struct jinja_text){text.data, at}
                     : (struct jinja_text){text.data + at, text.n - at};
        text = jinja_strip(text, space, !right, right);
        JINJA_TRY(jinja_list_add(j, list, jinja_string(word.data, word.n)));
    }
    return STATUS_OK;
}

static enum status split_text(struct jinja *j, struct jinja_text text, struct jinja_text separator,
                              int64_t most, bool right, struct jinja_list *list)
{
    while (most < 0 || (int64_t)list->n < most) {
        size_t at = right ? jinja_find_last(text, separator) : jinja_find(text, separator);
        if (at == SIZE_MAX) {
            break;
        }
        size_t behind = at + separator.n;
        struct jinja_text word = right ? (struct jinja_text){text.data + behind, text.n - behind}
                                       : (struct jinja_text){text.data, at};
        text = right ? (struct jinja_text){text.data, at}
                     : (struct jinja_text){text.data + behind, text.n - behind};
        JINJA_TRY(jinja_list_add(j, list, jinja_string(word.data, word.n)));
    }
    return jinja_list_add(j, list, jinja_string(text.data, text.n));
}

static enum status split(struct jinja *j, struct jinja_value self, const struct jinja_value *args,
                         bool right, struct jinja_value *out)
{
    int64_t most = -1;
    struct jinja_text separator;
    if (jinja_given(args[1])) {
        JINJA_TRY(jinja_want_int(j, args[1], "the maxsplit of split", &most));
    }
    JINJA_TRY(jinja_list_new(j, JINJA_LIST, 0, out));
    JINJA_TRY(jinja_work(j, self.text.n / 16));
    if (absent(args[0])) {
        JINJA_TRY(split_space(j, self.text, most, right, out->list));
    } else {
        JINJA_TRY(jinja_want_text(j, args[0], "the separator of split", &separator));
        if (separator.n == 0) {
            return jinja_fail(j, STATUS_INVALID, "empty separator");
        }
        JINJA_TRY(split_text(j, self.text, separator, most, right, out->list));
    }
    for (size_t i = 0; right && i < out->list->n / 2; i++) {
        struct jinja_value swap = out->list->items[i];
        out->list->items[i] = out->list->items[out->list->n - 1 - i];
        out->list->items[out->list->n - 1 - i] = swap;
    }
    return STATUS_OK;
}

METHOD(split)
{
    return split(j, self, args, false, out);
}

METHOD(rsplit)
{
    return split(j, self, args, true, out);
}

static bool ends_line(uint32_t code)
{
    return (code >= 0x0a && code <= 0x0d) || (code >= 0x1c && code <= 0x1e) || code == 0x85 ||
           code == 0x2028 || code == 0x2029;
}

METHOD(splitlines)
{
    bool keep = jinja_given(args[0]) && jinja_truth(args[0]);
    struct jinja_text text = self.text;
    size_t start = 0;
    JINJA_TRY(jinja_list_new(j, JINJA_LIST, 0, out));
    JINJA_TRY(jinja_work(j, text.n / 16));
    for (size_t at = 0; at < text.n;) {
        uint32_t code;
        size_t length = utf8_decode(text.data + at, text.n - at, &code);
        if (ends_line(code)) {
            size_t end = at + length;
            end += code == '\r' && end < text.n && text.data[end] == '\n';
            size_t n = (keep ? end : at) - start;
            JINJA_TRY(jinja_list_add(j, out->list, jinja_string(text.data + start, n)));
            start = end;
            length = end - at;
        }
        at += length;
    }
    if (start < text.n) {
        return jinja_list_add(j, out->list, jinja_string(text.data + start, text.n - start));
    }
    return STATUS_OK;
}

static enum status partition(struct jinja *j, struct jinja_value self,
                             const struct jinja_value *args, bool right, struct jinja_value *out)
{
    struct jinja_text separator, text = self.text;
    JINJA_TRY(jinja_want_text(j, args[0], "the separator of partition", &separator));
    if (separator.n == 0) {
        return jinja_fail(j, STATUS_INVALID, "empty separator");
    }
    JINJA_TRY(jinja_work(j, text.n / 16));
    size_t at = right ? jinja_find_last(text, separator) : jinja_find(text, separator);
    struct jinja_value none = jinja_string("", 0);
    struct jinja_value parts[3] = {self, none, none};
    if (at == SIZE_MAX && right) {
        parts[0] = none;
        parts[2] = self;
    } else if (at != SIZE_MAX) {
        size_t behind = at + separator.n;
        parts[0] = jinja_string(text.data, at);
        parts[1] = jinja_string(text.data + at, separator.n);
        parts[2] = jinja_string(text.data + behind, text.n - behind);
    }
    JINJA_TRY(jinja_list_new(j, JINJA_TUPLE, 3, out));
    for (size_t i = 0; i < 3; i++) {
        JINJA_TRY(jinja_list_add(j, out->list, parts[i]));
    }
    return STATUS_OK;
}

METHOD(partition)
{
    return partition(j, self, args, false, out);
}

METHOD(rpartition)
{
    return partition(j, self, args, true, out);
}

METHOD(format)
{
    return jinja_brace(j, self.text, call, out);
}

static enum status list_find(struct jinja *j, struct jinja_value self, struct jinja_value wanted,
                             int64_t *index, int64_t *count)
{
    *index = -1;
    *count = 0;
    for (size_t i = 0; i < self.list->n; i++) {
        bool same;
        JINJA_TRY(jinja_equal(j, self.list->items[i], wanted, &same));
        *index = same && *index < 0 ? (int64_t)i : *index;
        *count += same;
    }
    return STATUS_OK;
}

METHOD(list_index)
{
    int64_t count;
    *out = jinja_int(0);
    JINJA_TRY(list_find(j, self, args[0], &out->integer, &count));
    return out->integer < 0 ? jinja_fail(j, STATUS_INVALID, "the element is not in the list")
                            : STATUS_OK;
}

METHOD(list_count)
{
    int64_t index;
    *out = jinja_int(0);
    return list_find(j, self, args[0], &index, &out->integer);
}

METHOD(copy)
{
    *out = self;
    return STATUS_OK;
}

METHOD(get)
{
    struct jinja_value *found;
    JINJA_TRY(jinja_dict_get(j, self.dict, args[0], &found));
    *out = found != NULL ? *found : jinja_given(args[1]) ? args[1] : jinja_none();
    return STATUS_OK;
}

static enum status view(struct jinja *j, struct jinja_value self, enum jinja_flavor flavor,
                        struct jinja_value *out)
{
    JINJA_TRY(jinja_list_new(j, JINJA_LIST, self.dict->n, out));
    out->list->flavor = flavor;
    for (size_t i = 0; i < self.dict->n; i++) {
        const struct jinja_pair *pair = &self.dict->pairs[i];
        struct jinja_value item = flavor == JINJA_KEYS ? pair->key : pair->value;
        if (flavor == JINJA_ITEMS) {
            JINJA_TRY(jinja_pair_new(j, pair->key, pair->value, &item));
        }
        JINJA_TRY(jinja_list_add(j, out->list, item));
    }
    return STATUS_OK;
}

METHOD(items)
{
    return view(j, self, JINJA_ITEMS, out);
}

METHOD(keys)
{
    return view(j, self, JINJA_KEYS, out);
}

METHOD(values)
{
    return view(j, self, JINJA_VALUES, out);
}

const struct jinja_builtin jinja_methods_string[] = {
    {"count", "sub ?start ?end", method_count},
    {"endswith", "suffix ?start ?end", method_endswith},
    {"find", "sub ?start ?end", method_find},
    {"format", "*", method_format},
    {"index", "sub ?start ?end", method_index},
    {"join", "iterable", method_join},
    {"lstrip", "?chars", method_lstrip},
    {"partition", "sep", method_partition},
    {"removeprefix", "prefix", method_removeprefix},
    {"removesuffix", "suffix", method_removesuffix},
    {"replace", "old new ?count", method_replace},
    {"rfind", "sub ?start ?end", method_rfind},
    {"rindex", "sub ?start ?end", method_rindex},
    {"rpartition", "sep", method_rpartition},
    {"rsplit", "?sep ?maxsplit", method_rsplit},
    {"rstrip", "?chars", method_rstrip},
    {"split", "?sep ?maxsplit", method_split},
    {"splitlines", "?keepends", method_splitlines},
    {"startswith", "prefix ?start ?end", method_startswith},
    {"strip", "?chars", method_strip},
    {NULL, NULL, NULL},
};

const struct jinja_builtin jinja_methods_list[] = {
    {"count", "value", method_list_count},
    {"index", "value", method_list_index},
    {"copy", "", method_copy},
    {"append", "*", NULL},
    {"clear", "*", NULL},
    {"extend", "*", NULL},
    {"insert", "*", NULL},
    {"pop", "*", NULL},
    {"remove", "*", NULL},
    {"reverse", "*", NULL},
    {"sort", "*", NULL},
    {NULL, NULL, NULL},
};

const struct jinja_builtin jinja_methods_dict[] = {
    {"get", "key ?default", method_get},
    {"items", "", method_items},
    {"keys", "", method_keys},
    {"values", "", method_values},
    {"copy", "", method_copy},
    {"clear", "*", NULL},
    {"pop", "*", NULL},
    {"popitem", "*", NULL},
    {"setdefault", "*", NULL},
    {"update", "*", NULL},
    {NULL, NULL, NULL},
};
