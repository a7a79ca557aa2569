/* Filters that apply another filter or a test to every element: map, select, reject and their like.
 */
#include "engine/text/jinja_value.h"

#include <string.h>

static enum status run_attr(struct jinja *j, struct jinja_value self,
                            const struct jinja_value *args, const struct jinja_call *call,
                            struct jinja_value *out)
{
    struct jinja_text name;
    (void)call;
    JINJA_TRY(jinja_want_text(j, args[0], "the argument of attr", &name));
    *out = jinja_undefined(name.data, name.n);
    if (self.kind == JINJA_DICT || self.kind == JINJA_UNDEFINED) {
        return STATUS_OK; /* the keys of a dict are no attributes */
    }
    return jinja_item(j, self, args[0], out);
}

/* These filters take anything false (none, 0) for an empty sequence. */
static enum status walk_true(struct jinja *j, struct jinja_value self, struct jinja_list **out)
{
    return jinja_walk(j, jinja_truth(self) ? self : jinja_string("", 0), out);
}

static const struct jinja_value *named_arg(const struct jinja_call *call, const char *name)
{
    for (size_t i = 0; i < call->n_named; i++) {
        if (strcmp(call->names[i], name) == 0) {
            return &call->named[i];
        }
    }
    return NULL;
}

static enum status attribute_or(struct jinja *j, struct jinja_value item,
                                const struct jinja_value *attribute,
                                const struct jinja_value *fallback, struct jinja_value *out)
{
    if (fallback == NULL || fallback->kind == JINJA_NONE) {
        return jinja_path(j, item, *attribute, out);
    }
    if (item.kind == JINJA_UNDEFINED) {
        *out = *fallback;
        return STATUS_OK;
    }
    JINJA_TRY(jinja_path(j, item, *attribute, out));
    *out = out->kind == JINJA_UNDEFINED ? *fallback : *out;
    return STATUS_OK;
}

static enum status run_map(struct jinja *j, struct jinja_value self, const struct jinja_value *args,
                           const struct jinja_call *call, struct jinja_value *out)
{
    struct jinja_list *list;
    struct jinja_text name = {NULL, 0};
    struct jinja_call rest = *call;
    const struct jinja_value *attribute = call->n == 0 ? named_arg(call, "attribute") : NULL;
    (void)args;
    if (call->n > 0) {
        JINJA_TRY(jinja_want_text(j, call->args[0], "the filter of map", &name));
        rest.args++;
        rest.n--;
    } else if (attribute == NULL) {
        return jinja_fail(j, STATUS_INVALID, "map requires a filter argument");
    }
    JINJA_TRY(walk_true(j, self, &list));
    JINJA_TRY(jinja_list_new(j, JINJA_ITERATOR, list->n, out));
    for (size_t i = 0; i < list->n; i++) {
        struct jinja_value item = list->items[i];
        JINJA_TRY(attribute != NULL
                      ? attribute_or(j, item, attribute, named_arg(call, "default"), &item)
                      : jinja_apply_filter(j, name, item, &rest, &item));
        JINJA_TRY(jinja_list_add(j, out->list, item));
    }
    return STATUS_OK;
}

/* skip: how many arguments stand before the test's name (the attribute, or none). */
static enum status pick(struct jinja *j, struct jinja_value self, const struct jinja_call *call,
                        size_t skip, bool keep, struct jinja_value *out)
{
    struct jinja_list *list;
    struct jinja_text test = {NULL, 0};
    struct jinja_call rest = *call;
    if (call->n < skip) {
        return jinja_fail(j, STATUS_INVALID, "this filter needs the name of an attribute");
    }
    if (call->n > skip) {
        JINJA_TRY(jinja_want_text(j, call->args[skip], "the name of a test", &test));
        rest.args += skip + 1;
        rest.n -= skip + 1;
    }
    JINJA_TRY(walk_true(j, self, &list));
    JINJA_TRY(jinja_list_new(j, JINJA_ITERATOR, 0, out));
    for (size_t i = 0; i < list->n; i++) {
        struct jinja_value item = list->items[i];
        if (skip > 0) {
            JINJA_TRY(jinja_path(j, item, call->args[0], &item));
        }
        bool truth = jinja_truth(item);
        if (test.data != NULL) {
            JINJA_TRY(jinja_apply_test(j, test, item, &rest, &truth));
        }
        if (truth == keep) {
            JINJA_TRY(jinja_list_add(j, out->list, list->items[i]));
        }
    }
    return STATUS_OK;
}

#define PICK(name, skip, keep)                                                                     \
    static enum status run_##name(struct jinja *j, struct jinja_value self,                        \
                                  const struct jinja_value *args, const struct jinja_call *call,   \
                                  struct jinja_value *out)                                         \
    {                                                                                              \
        (void)args;                                                                                \
        return pick(j, self, call, skip, keep, out);                                               \
    }

PICK(select, 0, true)
PICK(reject, 0, false)
PICK(selectattr, 1, true)
PICK(rejectattr, 1, false)

const struct jinja_builtin jinja_filters_pick[] = {
    {"attr", "name", run_attr},  {"map", "*", run_map},
    {"reject", "*", run_reject}, {"rejectattr", "*", run_rejectattr},
    {"select", "*", run_select}, {"selectattr", "*", run_selectattr},
    {NULL, NULL, NULL},
};
