/* Calling: macros, built-in functions, methods, filters and tests.
 *
 * A built-in is a table row: name, parameters ("old new ?count"), function. Arguments by position
 * and by name are bound here, so the functions see a fixed array. Names that Jinja has and this
 * interpreter has not are rows without a function; both those and unknown ones are UNSUPPORTED,
 * when they are used. */
#include "engine/text/jinja_ast.h"

#include <string.h>

const struct jinja_builtin *jinja_builtin_find(const struct jinja_builtin *table,
                                               struct jinja_text name)
{
    for (; table->name != NULL; table++) {
        if (jinja_text_is(name, table->name)) {
            return table;
        }
    }
    return NULL;
}

struct param {
    struct jinja_text name;
    bool optional;
};

static size_t params_split(const char *params, struct param out[static JINJA_MAX_PARAMS])
{
    size_t n = 0;
    while (*params != '\0') {
        size_t length = strcspn(params, " ");
        bool optional = *params == '?';
        out[n++] = (struct param){{params + optional, length - optional}, optional};
        params += length + (params[length] == ' ');
    }
    return n;
}

static enum status args_bind(struct jinja *j, const struct jinja_builtin *builtin,
                             const struct jinja_call *call,
                             struct jinja_value args[static JINJA_MAX_PARAMS])
{
    struct param params[JINJA_MAX_PARAMS];
    size_t n = params_split(builtin->params, params);
    if (call->n > n) {
        return jinja_fail(j, STATUS_INVALID, "'%s' takes not more than %zu arguments",
                          builtin->name, n);
    }
    for (size_t i = 0; i < JINJA_MAX_PARAMS; i++) {
        args[i] = i < call->n ? call->args[i] : (struct jinja_value){.kind = JINJA_ABSENT};
    }
    for (size_t k = 0; k < call->n_named; k++) {
        size_t i = 0;
        while (i < n && !jinja_text_is(params[i].name, call->names[k])) {
            i++;
        }
        if (i == n || jinja_given(args[i])) {
            return jinja_fail(j, STATUS_INVALID, "'%s' does not take '%.80s' here", builtin->name,
                              call->names[k]);
        }
        args[i] = call->named[k];
    }
    for (size_t i = 0; i < n; i++) {
        if (!params[i].optional && !jinja_given(args[i])) {
            return jinja_fail(j, STATUS_INVALID, "'%s' needs the argument '%.*s'", builtin->name,
                              (int)params[i].name.n, params[i].name.data);
        }
    }
    return STATUS_OK;
}

static enum status call_builtin(struct jinja *j, const struct jinja_builtin *builtin,
                                struct jinja_value self, const struct jinja_call *call,
                                struct jinja_value *out)
{
    struct jinja_value args[JINJA_MAX_PARAMS];
    if (builtin->run == NULL) {
        return jinja_fail(j, STATUS_UNSUPPORTED, "'%s' is not supported in chat templates",
                          builtin->name);
    }
    JINJA_TRY(jinja_work(j, 1));
    if (strcmp(builtin->params, "*") != 0) {
        JINJA_TRY(args_bind(j, builtin, call, args));
    }
    return builtin->run(j, self, args, call, out);
}

static enum status joiner_call(struct jinja_cycler *joiner, struct jinja_value *out)
{
    *out = joiner->position == 0 ? jinja_string("", 0) : joiner->items[0];
    joiner->position = 1;
    return STATUS_OK;
}

enum status jinja_call_value(struct jinja *j, struct jinja_value callee,
                             const struct jinja_call *call, struct jinja_value *out)
{
    switch (callee.kind) {
    case JINJA_MACRO:
        return jinja_run_macro(j, callee.macro, call, out);
    case JINJA_METHOD:
        return call_builtin(j, callee.method->builtin, callee.method->self, call, out);
    case JINJA_FUNCTION:
        return call_builtin(j, callee.function, jinja_none(), call, out);
    case JINJA_JOINER:
        return joiner_call(callee.cycler, out);
    case JINJA_LOOP:
        if (call->n == 1 && call->n_named == 0) {
            return jinja_run_loop_again(j, callee.loop, call->args[0], out);
        }
        return jinja_fail(j, STATUS_INVALID, "loop(...) takes one argument");
    case JINJA_UNDEFINED:
        return jinja_fail(j, STATUS_INVALID, "'%.*s' is undefined, or not allowed in a template",
                          (int)(callee.text.n < 80 ? callee.text.n : 80), callee.text.data);
    default:
        return jinja_fail(j, STATUS_INVALID, "'%s' object is not callable",
                          jinja_type_name(callee));
    }
}

static const struct jinja_builtin *filter_find(struct jinja_text name)
{
    const struct jinja_builtin *const tables[] = {jinja_filters_text, jinja_filters_list,
                                                  jinja_filters_pick, NULL};
    const struct jinja_builtin *found = NULL;
    for (size_t i = 0; tables[i] != NULL && found == NULL; i++) {
        found = jinja_builtin_find(tables[i], name);
    }
    return found;
}

enum status jinja_apply_filter(struct jinja *j, struct jinja_text name, struct jinja_value value,
                               const struct jinja_call *call, struct jinja_value *out)
{
    const struct jinja_builtin *filter = filter_find(name);
    if (filter == NULL) {
        return jinja_fail(j, STATUS_UNSUPPORTED, "the filter '%.*s'",
                          (int)(name.n < 80 ? name.n : 80), name.data);
    }
    return call_builtin(j, filter, value, call, out);
}

enum status jinja_apply_test(struct jinja *j, struct jinja_text name, struct jinja_value value,
                             const struct jinja_call *call, bool *out)
{
    struct jinja_value result;
    if (jinja_text_is(name, "filter") || jinja_text_is(name, "test")) {
        bool text = value.kind == JINJA_STRING;
        *out = text && (name.n == 6 ? filter_find(value.text) != NULL
                                    : jinja_builtin_find(jinja_tests, value.text) != NULL);
        return STATUS_OK;
    }
    const struct jinja_builtin *test = jinja_builtin_find(jinja_tests, name);
    if (test == NULL) {
        return jinja_fail(j, STATUS_UNSUPPORTED, "the test '%.*s'",
                          (int)(name.n < 80 ? name.n : 80), name.data);
    }
    JINJA_TRY(call_builtin(j, test, value, call, &result));
    *out = jinja_truth(result);
    return STATUS_OK;
}

enum status jinja_path(struct jinja *j, struct jinja_value value, struct jinja_value path,
                       struct jinja_value *out)
{
    *out = value;
    if (path.kind != JINJA_STRING) {
        return jinja_item(j, value, path, out);
    }
    size_t at = 0;
    do {
        const char *rest = path.text.data + at;
        const char *dot = memchr(rest, '.', path.text.n - at);
        size_t n = dot != NULL ? (size_t)(dot - rest) : path.text.n - at;
        int64_t index = 0;
        bool digits = n > 0 && n < 18;
        for (size_t i = 0; i < n && digits; i++) {
            digits = rest[i] >= '0' && rest[i] <= '9';
            index = index * 10 + (rest[i] - '0');
        }
        JINJA_TRY(jinja_item(j, *out, digits ? jinja_int(index) : jinja_string(rest, n), out));
        at += n + 1;
    } while (at <= path.text.n);
    return STATUS_OK;
}
