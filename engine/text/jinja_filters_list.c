/* Filters over sequences and dictionaries. */
#include "engine/text/jinja_ast.h"
#include "engine/text/utf8.h"

#include <string.h>

#define FILTER(name)                                                                               \
    static enum status filter_##name(                                                              \
        __attribute__((unused)) struct jinja *j, __attribute__((unused)) struct jinja_value self,  \
        __attribute__((unused)) const struct jinja_value *args,                                    \
        __attribute__((unused)) const struct jinja_call *call, struct jinja_value *out)

static bool flag(struct jinja_value value)
{
    return jinja_given(value) && jinja_truth(value);
}

static bool absent(struct jinja_value value)
{
    return !jinja_given(value) || value.kind == JINJA_NONE;
}

/* What an element is ordered or told apart by: its attribute, and strings in lower case. */
static enum status key_of(struct jinja *j, struct jinja_value item, struct jinja_value attribute,
                          bool case_sensitive, struct jinja_value *out)
{
    *out = item;
    if (!absent(attribute)) {
        JINJA_TRY(jinja_path(j, item, attribute, out));
    }
    return out->kind == JINJA_STRING && !case_sensitive ? jinja_lower(j, out->text, out)
                                                        : STATUS_OK;
}

FILTER(length)
{
    size_t n;
    JINJA_TRY(jinja_length(j, self, &n));
    *out = jinja_int((int64_t)n);
    return STATUS_OK;
}

FILTER(list)
{
    struct jinja_list *list;
    JINJA_TRY(jinja_walk(j, self, &list));
    JINJA_TRY(jinja_list_new(j, JINJA_LIST, list->n, out));
    if (list->n > 0) {
        memcpy(out->list->items, list->items, list->n * sizeof *list->items);
    }
    out->list->n = list->n;
    return jinja_work(j, list->n / 8);
}

FILTER(first)
{
    struct jinja_list *list;
    if (self.kind == JINJA_ITERATOR) {
        bool some = self.list->at < self.list->n;
        *out = some ? self.list->items[self.list->at++] : jinja_undefined("first", 5);
        return STATUS_OK;
    }
    JINJA_TRY(jinja_walk(j, self, &list));
    *out = list->n > 0 ? list->items[0] : jinja_undefined("first", 5);
    return STATUS_OK;
}

FILTER(last)
{
    struct jinja_list *list;
    if (self.kind == JINJA_ITERATOR) {
        return jinja_fail(j, STATUS_INVALID, "'generator' object is not reversible");
    }
    JINJA_TRY(jinja_walk(j, self, &list));
    *out = list->n > 0 ? list->items[list->n - 1] : jinja_undefined("last", 4);
    return STATUS_OK;
}

FILTER(reverse)
{
    struct jinja_list *list;
    JINJA_TRY(jinja_walk(j, self, &list));
    JINJA_TRY(jinja_list_new(j, JINJA_ITERATOR, list->n, out));
    for (size_t i = list->n; i-- > 0;) {
        JINJA_TRY(jinja_list_add(j, out->list, list->items[i]));
    }
    if (self.kind != JINJA_STRING) {
        return STATUS_OK;
    }
    struct jinja_builder b = {0};
    for (size_t i = 0; i < out->list->n; i++) {
        JINJA_TRY(jinja_show(j, &b, out->list->items[i]));
    }
    *out = jinja_built(&b);
    return STATUS_OK;
}

FILTER(join)
{
    struct jinja_list *list;
    struct jinja_text separator = {"", 0};
    struct jinja_builder b = {0};
    if (!absent(args[0])) {
        JINJA_TRY(jinja_to_text(j, args[0], &separator));
    }
    JINJA_TRY(jinja_walk(j, self, &list));
    for (size_t i = 0; i < list->n; i++) {
        struct jinja_value item = list->items[i];
        if (!absent(args[1])) {
            JINJA_TRY(jinja_path(j, item, args[1], &item));
        }
        JINJA_TRY(jinja_put(j, &b, separator.data, i > 0 ? separator.n : 0));
        JINJA_TRY(jinja_show(j, &b, item));
        JINJA_TRY(jinja_work(j, 1));
    }
    *out = jinja_built(&b);
    return STATUS_OK;
}

/* sort(attribute="a,b") orders by several attributes. */
static enum status sort_key(struct jinja *j, struct jinja_value item, struct jinja_value attribute,
                            bool case_sensitive, struct jinja_value *out)
{
    bool several = attribute.kind == JINJA_STRING &&
                   jinja_find(attribute.text, (struct jinja_text){",", 1}) != SIZE_MAX;
    if (!several) {
        return key_of(j, item, attribute, case_sensitive, out);
    }
    struct jinja_text rest = attribute.text;
    JINJA_TRY(jinja_list_new(j, JINJA_TUPLE, 2, out));
    for (bool more = true; more;) {
        struct jinja_value part;
        size_t comma = jinja_find(rest, (struct jinja_text){",", 1});
        more = comma != SIZE_MAX;
        size_t n = more ? comma : rest.n;
        JINJA_TRY(key_of(j, item, jinja_string(rest.data, n), case_sensitive, &part));
        JINJA_TRY(jinja_list_add(j, out->list, part));
        rest.data += n + more;
        rest.n -= n + more;
    }
    return STATUS_OK;
}

static enum status sorted(struct jinja *j, struct jinja_value items, struct jinja_value attribute,
                          bool case_sensitive, bool reverse, struct jinja_value *keys,
                          struct jinja_value *out)
{
    struct jinja_call none = {0};
    JINJA_TRY(filter_list(j, items, NULL, &none, out));
    JINJA_TRY(jinja_list_new(j, JINJA_LIST, out->list->n, keys));
    for (size_t i = 0; i < out->list->n; i++) {
        struct jinja_value key;
        JINJA_TRY(sort_key(j, out->list->items[i], attribute, case_sensitive, &key));
        JINJA_TRY(jinja_list_add(j, keys->list, key));
    }
    return jinja_sort(j, keys->list->items, out->list->items, out->list->n, reverse);
}

FILTER(sort)
{
    struct jinja_value keys;
    return sorted(j, self, args[2], flag(args[1]), flag(args[0]), &keys, out);
}

FILTER(dictsort)
{
    struct jinja_value items, keys, by = jinja_int(0);
    if (self.kind != JINJA_DICT) {
        return jinja_fail(j, STATUS_INVALID, "dictsort needs a dict, not '%s'",
                          jinja_type_name(self));
    }
    if (jinja_given(args[1])) {
        bool value = args[1].kind == JINJA_STRING && jinja_text_is(args[1].text, "value");
        if (!value && !(args[1].kind == JINJA_STRING && jinja_text_is(args[1].text, "key"))) {
            return jinja_fail(j, STATUS_INVALID,
                              "You can only sort by either \"key\" or "
                              "\"value\"");
        }
        by = jinja_int(value);
    }
    JINJA_TRY(jinja_list_new(j, JINJA_LIST, self.dict->n, &items));
    for (size_t i = 0; i < self.dict->n; i++) {
        struct jinja_value pair;
        const struct jinja_pair *from = &self.dict->pairs[i];
        JINJA_TRY(jinja_pair_new(j, from->key, from->value, &pair));
        JINJA_TRY(jinja_list_add(j, items.list, pair));
    }
    return sorted(j, items, by, flag(args[0]), flag(args[2]), &keys, out);
}

FILTER(items)
{
    JINJA_TRY(jinja_list_new(j, JINJA_ITERATOR, 0, out));
    if (self.kind != JINJA_DICT && self.kind != JINJA_UNDEFINED) {
        return jinja_fail(j, STATUS_INVALID, "Can only get item pairs from a mapping.");
    }
    for (size_t i = 0; self.kind == JINJA_DICT && i < self.dict->n; i++) {
        struct jinja_value pair;
        const struct jinja_pair *from = &self.dict->pairs[i];
        JINJA_TRY(jinja_pair_new(j, from->key, from->value, &pair));
        JINJA_TRY(jinja_list_add(j, out->list, pair));
    }
    return STATUS_OK;
}

FILTER(unique)
{
    struct jinja_list *list;
    struct jinja_value seen, key, *found;
    JINJA_TRY(jinja_walk(j, self, &list));
    JINJA_TRY(jinja_list_new(j, JINJA_ITERATOR, 0, out));
    JINJA_TRY(jinja_dict_new(j, &seen));
    for (size_t i = 0; i < list->n; i++) {
        JINJA_TRY(key_of(j, list->items[i], args[1], flag(args[0]), &key));
        JINJA_TRY(jinja_dict_get(j, seen.dict, key, &found));
        if (found == NULL) {
            JINJA_TRY(jinja_dict_set(j, seen.dict, key, jinja_none()));
            JINJA_TRY(jinja_list_add(j, out->list, list->items[i]));
        }
    }
    return STATUS_OK;
}

FILTER(sum)
{
    struct jinja_list *list;
    struct jinja_value total = jinja_given(args[1]) ? args[1] : jinja_int(0);
    JINJA_TRY(jinja_walk(j, self, &list));
    for (size_t i = 0; i < list->n; i++) {
        struct jinja_value item = list->items[i];
        if (!absent(args[0])) {
            JINJA_TRY(jinja_path(j, item, args[0], &item));
        }
        JINJA_TRY(jinja_work(j, 1));
        JINJA_TRY(jinja_binary(j, JT_ADD, total, item, &total));
    }
    *out = total;
    return STATUS_OK;
}

static enum status extreme(struct jinja *j, struct jinja_value self, const struct jinja_value *args,
                           int wanted, struct jinja_value *out)
{
    struct jinja_list *list;
    struct jinja_value best, key;
    JINJA_TRY(jinja_walk(j, self, &list));
    *out = jinja_undefined("empty sequence", 14);
    for (size_t i = 0; i < list->n; i++) {
        int order = wanted;
        JINJA_TRY(key_of(j, list->items[i], args[1], flag(args[0]), &key));
        if (i > 0) {
            JINJA_TRY(jinja_compare(j, key, best, &order));
        }
        if (order == wanted) {
            best = key;
            *out = list->items[i];
        }
    }
    return STATUS_OK;
}

FILTER(min)
{
    return extreme(j, self, args, -1, out);
}

FILTER(max)
{
    return extreme(j, self, args, 1, out);
}

FILTER(groupby)
{
    struct jinja_value keys, items, group = {.kind = JINJA_ABSENT};
    JINJA_TRY(sorted(j, self, args[0], flag(args[2]), false, &keys, &items));
    JINJA_TRY(jinja_list_new(j, JINJA_LIST, 0, out));
    for (size_t i = 0; i < items.list->n; i++) {
        bool same = false;
        if (i > 0) {
            JINJA_TRY(jinja_equal(j, keys.list->items[i - 1], keys.list->items[i], &same));
        }
        if (!same) {
            struct jinja_value grouper, members;
            JINJA_TRY(jinja_path(j, items.list->items[i], args[0], &grouper));
            if (grouper.kind == JINJA_UNDEFINED && !absent(args[1])) {
                grouper = args[1];
            }
            JINJA_TRY(jinja_list_new(j, JINJA_LIST, 0, &members));
            JINJA_TRY(jinja_pair_new(j, grouper, members, &group));
            group.list->flavor = JINJA_GROUP;
            JINJA_TRY(jinja_list_add(j, out->list, group));
        }
        JINJA_TRY(jinja_list_add(j, group.list->items[1].list, items.list->items[i]));
    }
    return STATUS_OK;
}

FILTER(batch)
{
    struct jinja_list *list;
    struct jinja_value row = {.kind = JINJA_ABSENT};
    int64_t count;
    JINJA_TRY(jinja_want_int(j, args[0], "the argument of batch", &count));
    JINJA_TRY(jinja_walk(j, self, &list));
    JINJA_TRY(jinja_list_new(j, JINJA_ITERATOR, 0, out));
    for (size_t i = 0; i < list->n; i++) {
        if (!jinja_given(row) || (int64_t)row.list->n == count) {
            JINJA_TRY(jinja_list_new(j, JINJA_LIST, 0, &row));
            JINJA_TRY(jinja_list_add(j, out->list, row));
        }
        JINJA_TRY(jinja_list_add(j, row.list, list->items[i]));
    }
    while (!absent(args[1]) && jinja_given(row) && (int64_t)row.list->n < count) {
        JINJA_TRY(jinja_list_add(j, row.list, args[1]));
    }
    return STATUS_OK;
}

FILTER(slice)
{
    struct jinja_list *list;
    int64_t slices;
    JINJA_TRY(jinja_want_int(j, args[0], "the argument of slice", &slices));
    if (slices <= 0) {
        return jinja_fail(j, STATUS_INVALID, "slice needs a positive number of slices");
    }
    JINJA_TRY(jinja_walk(j, self, &list));
    JINJA_TRY(jinja_list_new(j, JINJA_ITERATOR, 0, out));
    size_t each = list->n / (size_t)slices, more = list->n % (size_t)slices, at = 0;
    for (size_t i = 0; i < (size_t)slices; i++) {
        struct jinja_value row;
        size_t end = at + each + (i < more);
        JINJA_TRY(jinja_list_new(j, JINJA_LIST, 0, &row));
        for (; at < end; at++) {
            JINJA_TRY(jinja_list_add(j, row.list, list->items[at]));
        }
        if (!absent(args[1]) && i >= more && more > 0) {
            JINJA_TRY(jinja_list_add(j, row.list, args[1]));
        }
        JINJA_TRY(jinja_list_add(j, out->list, row));
    }
    return STATUS_OK;
}

const struct jinja_builtin jinja_filters_list[] = {
    {"batch", "linecount ?fill_with", filter_batch},
    {"count", "", filter_length},
    {"dictsort", "?case_sensitive ?by ?reverse", filter_dictsort},
    {"first", "", filter_first},
    {"groupby", "attribute ?default ?case_sensitive", filter_groupby},
    {"items", "", filter_items},
    {"join", "?d ?attribute", filter_join},
    {"last", "", filter_last},
    {"length", "", filter_length},
    {"list", "", filter_list},
    {"max", "?case_sensitive ?attribute", filter_max},
    {"min", "?case_sensitive ?attribute", filter_min},
    {"reverse", "", filter_reverse},
    {"slice", "slices ?fill_with", filter_slice},
    {"sort", "?reverse ?case_sensitive ?attribute", filter_sort},
    {"sum", "?attribute ?start", filter_sum},
    {"unique", "?case_sensitive ?attribute", filter_unique},
    {NULL, NULL, NULL},
};
