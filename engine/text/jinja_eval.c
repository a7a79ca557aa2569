/* Expressions: the tree walked, one case a kind of node. Every level counts towards the depth limit
 * and every node towards the step limit. */
#include "engine/text/jinja_ast.h"

#include <string.h>

static enum status items_eval(struct jinja *j, struct jinja_scope *scope,
                              const struct jinja_node *node, enum jinja_kind kind,
                              struct jinja_value *out)
{
    JINJA_TRY(jinja_list_new(j, kind, node->list.n, out));
    for (size_t i = 0; i < node->list.n; i++) {
        struct jinja_value item;
        JINJA_TRY(jinja_eval(j, scope, node->list.items[i], &item));
        JINJA_TRY(jinja_list_add(j, out->list, item));
    }
    return STATUS_OK;
}

static enum status dict_eval(struct jinja *j, struct jinja_scope *scope,
                             const struct jinja_node *node, struct jinja_value *out)
{
    JINJA_TRY(jinja_dict_new(j, out));
    for (size_t i = 0; i < node->list.n; i += 2) {
        struct jinja_value key, value;
        JINJA_TRY(jinja_eval(j, scope, node->list.items[i], &key));
        JINJA_TRY(jinja_eval(j, scope, node->list.items[i + 1], &value));
        JINJA_TRY(jinja_dict_set(j, out->dict, key, value));
    }
    return STATUS_OK;
}

static enum status concat_eval(struct jinja *j, struct jinja_scope *scope,
                               const struct jinja_node *node, struct jinja_value *out)
{
    struct jinja_builder b = {0};
    for (size_t i = 0; i < node->list.n; i++) {
        struct jinja_value part;
        JINJA_TRY(jinja_eval(j, scope, node->list.items[i], &part));
        JINJA_TRY(jinja_show(j, &b, part));
    }
    *out = jinja_built(&b);
    return STATUS_OK;
}

static enum status compare_one(struct jinja *j, enum jinja_token_kind op, struct jinja_value a,
                               struct jinja_value b, bool *out)
{
    int order = 0;
    if (op == JT_EQ || op == JT_NE) {
        JINJA_TRY(jinja_equal(j, a, b, out));
        *out = *out == (op == JT_EQ);
        return STATUS_OK;
    }
    if (op == JT_IN || op == JT_NOT_IN) {
        JINJA_TRY(jinja_contains(j, b, a, out));
        *out = *out == (op == JT_IN);
        return STATUS_OK;
    }
    JINJA_TRY(jinja_compare(j, a, b, &order));
    *out = order != 2 && (op == JT_LT   ? order < 0
                          : op == JT_LE ? order <= 0
                          : op == JT_GT ? order > 0
                                        : order >= 0);
    return STATUS_OK;
}

static enum status compare_eval(struct jinja *j, struct jinja_scope *scope,
                                const struct jinja_node *node, struct jinja_value *out)
{
    struct jinja_value left, right;
    bool truth = true;
    JINJA_TRY(jinja_eval(j, scope, node->a, &left));
    for (size_t i = 0; i < node->list.n && truth; i++) {
        JINJA_TRY(jinja_eval(j, scope, node->list.items[i], &right));
        j->line = node->line;
        JINJA_TRY(compare_one(j, node->ops[i], left, right, &truth));
        left = right;
    }
    *out = jinja_bool(truth);
    return STATUS_OK;
}

static enum status sign_eval(struct jinja *j, struct jinja_scope *scope,
                             const struct jinja_node *node, struct jinja_value *out)
{
    struct jinja_value value;
    int64_t integer;
    JINJA_TRY(jinja_eval(j, scope, node->a, &value));
    bool negate = node->kind == JN_NEGATE;
    if (jinja_as_int(value, &integer)) {
        if (negate && __builtin_sub_overflow((int64_t)0, integer, &integer)) {
            return jinja_fail(j, STATUS_UNSUPPORTED, "an integer past 64 bits");
        }
        *out = jinja_int(integer);
        return STATUS_OK;
    }
    if (value.kind != JINJA_FLOAT) {
        return jinja_fail(j, STATUS_INVALID, "bad operand type for unary %c: '%s'",
                          negate ? '-' : '+', jinja_type_name(value));
    }
    *out = jinja_float(negate ? -value.real : value.real);
    return STATUS_OK;
}

static enum status condition_eval(struct jinja *j, struct jinja_scope *scope,
                                  const struct jinja_node *node, struct jinja_value *out)
{
    struct jinja_value condition;
    JINJA_TRY(jinja_eval(j, scope, node->b, &condition));
    if (jinja_truth(condition)) {
        return jinja_eval(j, scope, node->a, out);
    }
    if (node->c != NULL) {
        return jinja_eval(j, scope, node->c, out);
    }
    *out = jinja_undefined("inline if without else", 22);
    return STATUS_OK;
}

static enum status slice_eval(struct jinja *j, struct jinja_scope *scope,
                              const struct jinja_node *node, struct jinja_value *out)
{
    struct jinja_value box, bounds[3] = {jinja_none(), jinja_none(), jinja_none()};
    JINJA_TRY(jinja_eval(j, scope, node->a, &box));
    for (size_t i = 0; i < 3; i++) {
        if (node->list.items[i] != NULL) {
            JINJA_TRY(jinja_eval(j, scope, node->list.items[i], &bounds[i]));
        }
    }
    return jinja_slice(j, box, bounds, out);
}

static enum status star_eval(struct jinja *j, struct jinja_scope *scope,
                             const struct jinja_args *args, struct jinja_list *positional)
{
    struct jinja_value value;
    struct jinja_list *more;
    if (args->star == NULL) {
        return STATUS_OK;
    }
    JINJA_TRY(jinja_eval(j, scope, args->star, &value));
    JINJA_TRY(jinja_walk(j, value, &more));
    for (size_t i = 0; i < more->n; i++) {
        JINJA_TRY(jinja_list_add(j, positional, more->items[i]));
    }
    return STATUS_OK;
}

struct named_args {
    const char **names;
    struct jinja_value *values;
    size_t n;
};

/* extra: one more named argument, or NULL (the caller of a call block). */
static enum status named_eval(struct jinja *j, struct jinja_scope *scope,
                              const struct jinja_args *args, const char *extra_name,
                              const struct jinja_value *extra, struct named_args *out)
{
    struct jinja_value more = {.kind = JINJA_NONE};
    if (args->star_star != NULL) {
        JINJA_TRY(jinja_eval(j, scope, args->star_star, &more));
        if (more.kind != JINJA_DICT) {
            return jinja_fail(j, STATUS_INVALID, "the argument behind ** must be a dict, not '%s'",
                              jinja_type_name(more));
        }
    }
    size_t n_more = more.kind == JINJA_DICT ? more.dict->n : 0;
    size_t n = args->named.n + n_more + (extra != NULL);
    if (n == 0) {
        return STATUS_OK;
    }
    out->names = jinja_take(j, n, sizeof *out->names);
    out->values = jinja_take(j, n, sizeof *out->values);
    if (out->names == NULL || out->values == NULL) {
        return jinja_failure(j);
    }
    for (size_t i = 0; i < args->named.n; i++, out->n++) {
        out->names[out->n] = args->names[i];
        JINJA_TRY(jinja_eval(j, scope, args->named.items[i], &out->values[out->n]));
    }
    for (size_t i = 0; i < n_more; i++, out->n++) {
        struct jinja_value key = more.dict->pairs[i].key;
        if (key.kind != JINJA_STRING) {
            return jinja_fail(j, STATUS_INVALID, "keywords must be strings");
        }
        out->names[out->n] = jinja_intern(j, key.text.data, key.text.n);
        out->values[out->n] = more.dict->pairs[i].value;
        if (out->names[out->n] == NULL) {
            return jinja_failure(j);
        }
    }
    if (extra != NULL) {
        out->names[out->n] = extra_name;
        out->values[out->n++] = *extra;
    }
    return STATUS_OK;
}

static enum status args_eval(struct jinja *j, struct jinja_scope *scope,
                             const struct jinja_node *node, const char *extra_name,
                             const struct jinja_value *extra, struct jinja_call *out)
{
    static const struct jinja_args none;
    const struct jinja_args *args = node->args != NULL ? node->args : &none;
    struct jinja_value list;
    struct named_args named = {0};
    *out = (struct jinja_call){.line = node->line};
    if (args->positional.n > 0 || args->star != NULL) {
        JINJA_TRY(jinja_list_new(j, JINJA_LIST, args->positional.n, &list));
        for (size_t i = 0; i < args->positional.n; i++) {
            struct jinja_value value;
            JINJA_TRY(jinja_eval(j, scope, args->positional.items[i], &value));
            JINJA_TRY(jinja_list_add(j, list.list, value));
        }
        JINJA_TRY(star_eval(j, scope, args, list.list));
        out->args = list.list->items;
        out->n = list.list->n;
    }
    JINJA_TRY(named_eval(j, scope, args, extra_name, extra, &named));
    out->names = named.names;
    out->named = named.values;
    out->n_named = named.n;
    j->line = node->line;
    return STATUS_OK;
}

enum status jinja_eval_calling(struct jinja *j, struct jinja_scope *scope,
                               const struct jinja_node *node, const char *extra_name,
                               const struct jinja_value *extra, struct jinja_value *out)
{
    struct jinja_value callee;
    struct jinja_call call;
    JINJA_TRY(jinja_eval(j, scope, node->a, &callee));
    JINJA_TRY(args_eval(j, scope, node, extra_name, extra, &call));
    return jinja_call_value(j, callee, &call, out);
}

static enum status filter_eval(struct jinja *j, struct jinja_scope *scope,
                               const struct jinja_node *node, struct jinja_value *out)
{
    struct jinja_value value;
    struct jinja_call call;
    struct jinja_text name = {node->name, strlen(node->name)};
    JINJA_TRY(jinja_eval(j, scope, node->a, &value));
    JINJA_TRY(args_eval(j, scope, node, NULL, NULL, &call));
    if (node->kind == JN_FILTER) {
        return jinja_apply_filter(j, name, value, &call, out);
    }
    bool truth;
    JINJA_TRY(jinja_apply_test(j, name, value, &call, &truth));
    *out = jinja_bool(truth);
    return STATUS_OK;
}

static enum status pair_eval(struct jinja *j, struct jinja_scope *scope,
                             const struct jinja_node *node, struct jinja_value *out)
{
    struct jinja_value a, b;
    JINJA_TRY(jinja_eval(j, scope, node->a, &a));
    if (node->kind == JN_AND || node->kind == JN_OR) {
        if (jinja_truth(a) == (node->kind == JN_OR)) {
            *out = a;
            return STATUS_OK;
        }
        return jinja_eval(j, scope, node->b, out);
    }
    JINJA_TRY(jinja_eval(j, scope, node->b, &b));
    j->line = node->line;
    return node->kind == JN_BINARY ? jinja_binary(j, node->op, a, b, out)
                                   : jinja_item(j, a, b, out);
}

static enum status name_eval(struct jinja *j, struct jinja_scope *scope,
                             const struct jinja_node *node, struct jinja_value *out)
{
    const struct jinja_value *found = jinja_scope_find(j, scope, node->name);
    *out = found != NULL ? *found : jinja_undefined(node->name, strlen(node->name));
    return STATUS_OK;
}

static enum status attribute_eval(struct jinja *j, struct jinja_scope *scope,
                                  const struct jinja_node *node, struct jinja_value *out)
{
    struct jinja_value box;
    JINJA_TRY(jinja_eval(j, scope, node->a, &box));
    j->line = node->line;
    return jinja_attribute(j, box, node->name, out);
}

static enum status not_eval(struct jinja *j, struct jinja_scope *scope,
                            const struct jinja_node *node, struct jinja_value *out)
{
    struct jinja_value value;
    JINJA_TRY(jinja_eval(j, scope, node->a, &value));
    *out = jinja_bool(!jinja_truth(value));
    return STATUS_OK;
}

static enum status node_eval(struct jinja *j, struct jinja_scope *scope,
                             const struct jinja_node *node, struct jinja_value *out)
{
    switch (node->kind) {
    case JN_CONST:
        *out = node->value;
        return STATUS_OK;
    case JN_NAME:
    case JN_BODY:
        return name_eval(j, scope, node, out);
    case JN_LIST:
        return items_eval(j, scope, node, JINJA_LIST, out);
    case JN_TUPLE:
        return items_eval(j, scope, node, JINJA_TUPLE, out);
    case JN_DICT:
        return dict_eval(j, scope, node, out);
    case JN_AND:
    case JN_OR:
    case JN_BINARY:
    case JN_ITEM:
        return pair_eval(j, scope, node, out);
    case JN_NOT:
        return not_eval(j, scope, node, out);
    case JN_NEGATE:
    case JN_POSITIVE:
        return sign_eval(j, scope, node, out);
    case JN_CONCAT:
        return concat_eval(j, scope, node, out);
    case JN_COMPARE:
        return compare_eval(j, scope, node, out);
    case JN_CONDITION:
        return condition_eval(j, scope, node, out);
    case JN_ATTRIBUTE:
        return attribute_eval(j, scope, node, out);
    case JN_SLICE:
        return slice_eval(j, scope, node, out);
    case JN_CALLING:
        return jinja_eval_calling(j, scope, node, NULL, NULL, out);
    case JN_FILTER:
    case JN_TEST:
        return filter_eval(j, scope, node, out);
    default:
        return jinja_fail(j, STATUS_FORMAT, "this is no expression");
    }
}

enum status jinja_eval(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                       struct jinja_value *out)
{
    j->line = node->line;
    JINJA_TRY(jinja_enter(j));
    JINJA_TRY(node_eval(j, scope, node, out));
    jinja_leave(j);
    return STATUS_OK;
}
