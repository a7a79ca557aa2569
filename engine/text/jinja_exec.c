/* Statements, scopes, loops and macros.
 *
 * A scope is a short list of names with a parent. As in Jinja, loops (each turn), macros, with,
 * call, set and filter blocks open one; if does not. An assignment always goes to the innermost
 * scope, so a variable set in a loop is gone after the turn, which is what namespace() is for.
 * Macros see the scope in which they were defined, at the time of the call. */
#include "engine/text/jinja_ast.h"

#include <string.h>

const char jinja_body_name[] = "the block's text"; /* no template can write such a name */

enum status jinja_scope_new(struct jinja *j, struct jinja_scope *parent, struct jinja_scope **out)
{
    *out = jinja_take(j, 1, sizeof **out);
    if (*out == NULL) {
        return jinja_failure(j);
    }
    (*out)->parent = parent;
    return STATUS_OK;
}

enum status jinja_scope_set(struct jinja *j, struct jinja_scope *scope, const char *name,
                            struct jinja_value value)
{
    for (size_t i = 0; i < scope->n; i++) {
        if (scope->slots[i].name == name) {
            scope->slots[i].value = value;
            return jinja_work(j, i / 8);
        }
    }
    if (scope->n == scope->capacity) {
        size_t capacity = scope->capacity == 0 ? 4 : 2 * scope->capacity;
        struct jinja_variable_slot *slots = jinja_take(j, capacity, sizeof *slots);
        if (slots == NULL) {
            return jinja_failure(j);
        }
        if (scope->n > 0) {
            memcpy(slots, scope->slots, scope->n * sizeof *slots);
        }
        scope->slots = slots;
        scope->capacity = capacity;
    }
    scope->slots[scope->n++] = (struct jinja_variable_slot){.name = name, .value = value};
    return jinja_work(j, scope->n / 8);
}

struct jinja_value *jinja_scope_find(struct jinja *j, struct jinja_scope *scope, const char *name)
{
    for (; scope != NULL; scope = scope->parent) {
        for (size_t i = 0; i < scope->n; i++) {
            if (scope->slots[i].name == name) {
                j->steps += i / 8; /* seen by the next jinja_work */
                return &scope->slots[i].value;
            }
        }
        j->steps += scope->n / 8;
    }
    return NULL;
}

static enum status assign(struct jinja *j, struct jinja_scope *scope,
                          const struct jinja_node *target, struct jinja_value value)
{
    if (target->kind == JN_NAME) {
        return jinja_scope_set(j, scope, target->name, value);
    }
    if (target->kind == JN_NAMESPACED) {
        struct jinja_value *space = jinja_scope_find(j, scope, target->name);
        if (space == NULL || space->kind != JINJA_NAMESPACE) {
            j->line = target->line;
            return jinja_fail(j, STATUS_INVALID, "cannot assign attribute on non-namespace object");
        }
        return jinja_dict_set(j, space->dict, jinja_string(target->text.data, target->text.n),
                              value);
    }
    struct jinja_list *list;
    JINJA_TRY(jinja_walk(j, value, &list));
    if (list->n != target->list.n) {
        j->line = target->line;
        return jinja_fail(j, STATUS_INVALID, "%zu values where %zu are to be unpacked", list->n,
                          target->list.n);
    }
    JINJA_TRY(jinja_enter(j));
    for (size_t i = 0; i < list->n; i++) {
        JINJA_TRY(assign(j, scope, target->list.items[i], list->items[i]));
    }
    jinja_leave(j);
    return STATUS_OK;
}

/* Runs the body with its output taken as a string. */
static enum status capture(struct jinja *j, struct jinja_scope *scope,
                           const struct jinja_nodes *body, struct jinja_value *out)
{
    struct jinja_builder text = {0};
    struct jinja_builder *before = j->out;
    j->out = &text;
    enum status status = jinja_exec(j, scope, body);
    j->out = before;
    *out = jinja_built(&text);
    return status;
}

/* The elements for which the loop's condition holds. */
static enum status loop_select(struct jinja *j, struct jinja_scope *scope,
                               const struct jinja_node *node, struct jinja_list **list)
{
    struct jinja_value kept, truth;
    struct jinja_scope *inner;
    JINJA_TRY(jinja_list_new(j, JINJA_LIST, 0, &kept));
    JINJA_TRY(jinja_scope_new(j, scope, &inner));
    for (size_t i = 0; i < (*list)->n; i++) {
        inner->n = 0;
        JINJA_TRY(assign(j, inner, node->a, (*list)->items[i]));
        JINJA_TRY(jinja_eval(j, inner, node->c, &truth));
        if (jinja_truth(truth)) {
            JINJA_TRY(jinja_list_add(j, kept.list, (*list)->items[i]));
        }
    }
    *list = kept.list;
    return STATUS_OK;
}

static enum status loop_turns(struct jinja *j, const struct jinja_node *node,
                              struct jinja_loop *loop)
{
    struct jinja_value self = {.kind = JINJA_LOOP, .loop = loop};
    struct jinja_scope *scope = NULL;
    const char *name = jinja_intern(j, "loop", 4);
    if (name == NULL) {
        return jinja_failure(j);
    }
    for (; loop->index < loop->list->n; loop->index++) {
        if (scope == NULL || scope->captured) {
            JINJA_TRY(jinja_scope_new(j, loop->scope, &scope));
        }
        scope->n = 0;
        JINJA_TRY(jinja_work(j, 1));
        JINJA_TRY(jinja_scope_set(j, scope, name, self));
        JINJA_TRY(assign(j, scope, node->a, loop->list->items[loop->index]));
        JINJA_TRY(jinja_exec(j, scope, &node->list));
        bool leave = j->flow == JINJA_BREAK;
        j->flow = JINJA_NEXT;
        if (leave) {
            break;
        }
    }
    return STATUS_OK;
}

static enum status loop_exec(struct jinja *j, struct jinja_scope *scope,
                             const struct jinja_node *node, struct jinja_value items, size_t depth)
{
    struct jinja_list *list;
    struct jinja_scope *inner;
    JINJA_TRY(jinja_walk(j, items, &list));
    if (node->c != NULL) {
        JINJA_TRY(loop_select(j, scope, node, &list));
    }
    if (list->n == 0) {
        JINJA_TRY(jinja_scope_new(j, scope, &inner));
        return jinja_exec(j, inner, &node->other);
    }
    struct jinja_loop *loop = jinja_take(j, 1, sizeof *loop);
    if (loop == NULL) {
        return jinja_failure(j);
    }
    *loop = (struct jinja_loop){.list = list,
                                .depth = depth,
                                .node = node->op != 0 ? node : NULL,
                                .scope = scope,
                                .changed = {.kind = JINJA_ABSENT}};
    return loop_turns(j, node, loop);
}

enum status jinja_run_loop_again(struct jinja *j, const struct jinja_loop *loop,
                                 struct jinja_value items, struct jinja_value *out)
{
    if (loop->node == NULL) {
        return jinja_fail(j, STATUS_INVALID, "loop(...) needs a loop marked 'recursive'");
    }
    struct jinja_builder text = {0};
    struct jinja_builder *before = j->out;
    j->out = &text;
    JINJA_TRY(jinja_enter(j));
    JINJA_TRY(loop_exec(j, loop->scope, loop->node, items, loop->depth + 1));
    jinja_leave(j);
    j->out = before;
    *out = jinja_built(&text);
    return STATUS_OK;
}

static enum status macro_new(struct jinja *j, struct jinja_scope *scope,
                             const struct jinja_node *node, struct jinja_value *out)
{
    struct jinja_macro *macro = jinja_take(j, 1, sizeof *macro);
    if (macro == NULL) {
        return jinja_failure(j);
    }
    *macro = (struct jinja_macro){.node = node, .scope = scope};
    *out = (struct jinja_value){.kind = JINJA_MACRO, .macro = macro};
    for (; scope != NULL && !scope->captured; scope = scope->parent) {
        scope->captured = true;
    }
    return STATUS_OK;
}

static enum status rest_bind(struct jinja *j, struct jinja_scope *scope,
                             const struct jinja_params *params, const struct jinja_call *call,
                             const bool *used)
{
    struct jinja_value rest, named;
    JINJA_TRY(jinja_list_new(j, JINJA_TUPLE, 0, &rest));
    for (size_t i = params->n; i < call->n; i++) {
        JINJA_TRY(jinja_list_add(j, rest.list, call->args[i]));
    }
    JINJA_TRY(jinja_dict_new(j, &named));
    for (size_t i = 0; i < call->n_named; i++) {
        if (used[i]) {
            continue;
        }
        if (params->uses_caller && strcmp(call->names[i], "caller") == 0) {
            JINJA_TRY(jinja_scope_set(j, scope, call->names[i], call->named[i]));
            continue;
        }
        if (!params->uses_kwargs) {
            return jinja_fail(j, STATUS_INVALID, "the macro takes no keyword argument '%.80s'",
                              call->names[i]);
        }
        JINJA_TRY(jinja_dict_set(j, named.dict, jinja_string_c(call->names[i]), call->named[i]));
    }
    if (rest.list->n > 0 && !params->uses_varargs) {
        return jinja_fail(j, STATUS_INVALID, "the macro takes not more than %zu arguments",
                          params->n);
    }
    if (params->uses_varargs) {
        const char *name = jinja_intern(j, "varargs", 7);
        JINJA_TRY(name == NULL ? jinja_failure(j) : jinja_scope_set(j, scope, name, rest));
    }
    if (params->uses_kwargs) {
        const char *name = jinja_intern(j, "kwargs", 6);
        JINJA_TRY(name == NULL ? jinja_failure(j) : jinja_scope_set(j, scope, name, named));
    }
    return STATUS_OK;
}

static enum status params_bind(struct jinja *j, struct jinja_scope *scope,
                               const struct jinja_params *params, const struct jinja_call *call)
{
    bool *used = jinja_take(j, call->n_named + 1, sizeof *used);
    if (used == NULL) {
        return jinja_failure(j);
    }
    size_t first_default = params->n - params->defaults.n;
    for (size_t i = 0; i < params->n; i++) {
        struct jinja_value value = {.kind = JINJA_ABSENT};
        if (i < call->n) {
            value = call->args[i];
        }
        for (size_t k = 0; k < call->n_named; k++) {
            if (call->names[k] == params->names[i] && !jinja_given(value)) {
                value = call->named[k];
                used[k] = true;
            }
        }
        if (!jinja_given(value) && i >= first_default) {
            JINJA_TRY(jinja_eval(j, scope, params->defaults.items[i - first_default], &value));
        }
        if (!jinja_given(value)) {
            value = jinja_undefined(params->names[i], strlen(params->names[i]));
        }
        JINJA_TRY(jinja_scope_set(j, scope, params->names[i], value));
    }
    return rest_bind(j, scope, params, call, used);
}

enum status jinja_run_macro(struct jinja *j, const struct jinja_macro *macro,
                            const struct jinja_call *call, struct jinja_value *out)
{
    struct jinja_scope *scope;
    JINJA_TRY(jinja_enter(j));
    JINJA_TRY(jinja_scope_new(j, macro->scope, &scope));
    JINJA_TRY(params_bind(j, scope, macro->node->params, call));
    JINJA_TRY(capture(j, scope, &macro->node->list, out));
    jinja_leave(j);
    return STATUS_OK;
}

static enum status macro_exec(struct jinja *j, struct jinja_scope *scope,
                              const struct jinja_node *node)
{
    struct jinja_value macro, text;
    JINJA_TRY(macro_new(j, scope, node, &macro));
    if (node->kind == JN_MACRO) {
        return jinja_scope_set(j, scope, node->name, macro);
    }
    JINJA_TRY(jinja_eval_calling(j, scope, node->a, node->name, &macro, &text));
    return jinja_show(j, j->out, text);
}

/* A set or filter block: its text, through its filters. */
static enum status filtered_exec(struct jinja *j, struct jinja_scope *scope,
                                 const struct jinja_node *node)
{
    struct jinja_scope *inner;
    struct jinja_value text;
    JINJA_TRY(jinja_scope_new(j, scope, &inner));
    JINJA_TRY(capture(j, inner, &node->list, &text));
    if (node->b != NULL) {
        JINJA_TRY(jinja_scope_new(j, scope, &inner));
        JINJA_TRY(jinja_scope_set(j, inner, jinja_body_name, text));
        JINJA_TRY(jinja_eval(j, inner, node->b, &text));
    }
    return node->kind == JN_SET_BLOCK ? assign(j, scope, node->a, text)
                                      : jinja_show(j, j->out, text);
}

static enum status with_exec(struct jinja *j, struct jinja_scope *scope,
                             const struct jinja_node *node)
{
    struct jinja_scope *inner;
    struct jinja_value value;
    JINJA_TRY(jinja_scope_new(j, node->op != 0 ? j->root : scope, &inner));
    for (size_t i = 0; i < node->other.n; i += 2) {
        JINJA_TRY(jinja_eval(j, scope, node->other.items[i + 1], &value));
        JINJA_TRY(assign(j, inner, node->other.items[i], value));
    }
    return jinja_exec(j, inner, &node->list);
}

static enum status if_exec(struct jinja *j, struct jinja_scope *scope,
                           const struct jinja_node *node)
{
    struct jinja_value truth;
    for (;;) {
        JINJA_TRY(jinja_eval(j, scope, node->a, &truth));
        if (jinja_truth(truth)) {
            return jinja_exec(j, scope, &node->list);
        }
        if (node->other.n != 1 || node->other.items[0]->kind != JN_IF) {
            return jinja_exec(j, scope, &node->other);
        }
        node = node->other.items[0];
    }
}

static enum status statement_exec(struct jinja *j, struct jinja_scope *scope,
                                  const struct jinja_node *node)
{
    struct jinja_value value;
    switch (node->kind) {
    case JN_DATA:
        return jinja_put(j, j->out, node->text.data, node->text.n);
    case JN_PRINT:
        JINJA_TRY(jinja_eval(j, scope, node->a, &value));
        return jinja_show(j, j->out, value);
    case JN_FOR:
        JINJA_TRY(jinja_eval(j, scope, node->b, &value));
        return loop_exec(j, scope, node, value, 0);
    case JN_IF:
        return if_exec(j, scope, node);
    case JN_SET:
        JINJA_TRY(jinja_eval(j, scope, node->b, &value));
        return assign(j, scope, node->a, value);
    case JN_SET_BLOCK:
    case JN_FILTER_BLOCK:
        return filtered_exec(j, scope, node);
    case JN_MACRO:
    case JN_CALL:
        return macro_exec(j, scope, node);
    case JN_WITH:
    case JN_SCOPE:
        return with_exec(j, scope, node);
    case JN_BREAK:
    case JN_CONTINUE:
        j->flow = node->kind == JN_BREAK ? JINJA_BREAK : JINJA_CONTINUE;
        return STATUS_OK;
    default:
        return jinja_fail(j, STATUS_FORMAT, "this is no statement");
    }
}

enum status jinja_exec(struct jinja *j, struct jinja_scope *scope, const struct jinja_nodes *body)
{
    JINJA_TRY(jinja_enter(j));
    for (size_t i = 0; i < body->n && j->flow == JINJA_NEXT; i++) {
        j->line = body->items[i]->line;
        JINJA_TRY(jinja_work(j, 1));
        JINJA_TRY(statement_exec(j, scope, body->items[i]));
    }
    jinja_leave(j);
    return STATUS_OK;
}
