/* Chat templates: the part of Jinja that they are written in.
 *
 * A model's file carries a template that turns a conversation into the text it was trained on. It
 * was written for Python's jinja2 with the settings of Hugging Face's transformers, so that is what
 * has to be reproduced to the byte: one wrong space is another prompt.
 *
 * The way: text -> tokens (jinja_lex.c; white space is decided there) -> tree (jinja_parse*.c) ->
 * walk (jinja_exec.c for statements, jinja_eval.c and jinja_ops.c for expressions, jinja_call.c for
 * calls; built-ins are tables in jinja_filters*.c, jinja_tests.c, jinja_methods.c,
 * jinja_globals.c). Values and their arena: jinja_value.h.
 *
 * Templates come from strangers. They reach nothing but the variables given, and are bounded in
 * steps, memory, output and depth (jinja_mem.c). What Jinja has and this interpreter has not is an
 * error that names it with its line, never a guess.
 *
 * Source: the template documentation at jinja.palletsprojects.com, and the observable behaviour of
 * jinja2 3.1, which tests/unit/engine/jinja holds as recorded cases. */
#include "engine/text/jinja_ast.h"

#include <string.h>

static enum status globals_set(struct jinja *j, struct jinja_scope *scope)
{
    for (const struct jinja_builtin *row = jinja_globals; row->name != NULL; row++) {
        const char *name = jinja_intern(j, row->name, strlen(row->name));
        if (name == NULL) {
            return jinja_failure(j);
        }
        struct jinja_value value = {.kind = JINJA_FUNCTION, .function = row};
        JINJA_TRY(jinja_scope_set(j, scope, name, value));
    }
    return STATUS_OK;
}

static enum status variables_set(struct jinja *j, struct jinja_scope *scope,
                                 const struct jinja_variable *variables, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct jinja_value value = jinja_none();
        const char *name = jinja_intern(j, variables[i].name, strlen(variables[i].name));
        if (name == NULL) {
            return jinja_failure(j);
        }
        if (variables[i].json != NULL) {
            JINJA_TRY(jinja_from_json(j, name, variables[i].json, &value));
        } else if (variables[i].text != NULL) {
            value = jinja_string(variables[i].text, variables[i].text_bytes);
        }
        JINJA_TRY(jinja_scope_set(j, scope, name, value));
    }
    return STATUS_OK;
}

static enum status more_set(struct jinja *j, struct jinja_scope *scope, const char *json)
{
    struct jinja_value more;
    if (json == NULL) {
        return STATUS_OK;
    }
    JINJA_TRY(jinja_from_json(j, "the template's further variables", json, &more));
    if (more.kind != JINJA_DICT) {
        (void)fault_set(&j->fault, STATUS_INVALID,
                        "the template's further variables must be a JSON object");
        return STATUS_INVALID;
    }
    for (size_t i = 0; i < more.dict->n; i++) {
        struct jinja_text key = more.dict->pairs[i].key.text;
        const char *name = jinja_intern(j, key.data, key.n);
        if (name == NULL) {
            return jinja_failure(j);
        }
        JINJA_TRY(jinja_scope_set(j, scope, name, more.dict->pairs[i].value));
    }
    return STATUS_OK;
}

static enum status template_run(struct jinja *j, const char *text, size_t n_bytes)
{
    struct jinja_token *tokens;
    struct jinja_nodes body = {0};
    JINJA_TRY(jinja_lex(j, text, n_bytes, &tokens));
    JINJA_TRY(jinja_parse(j, tokens, &body));
    return jinja_exec(j, j->root, &body);
}

static enum status render(struct jinja *j, const char *text, size_t n_bytes,
                          const struct jinja_variable *variables, size_t n_variables,
                          const char *more_json)
{
    struct jinja_scope *given;
    JINJA_TRY(jinja_scope_new(j, NULL, &given));
    JINJA_TRY(jinja_scope_new(j, given, &j->root));
    JINJA_TRY(globals_set(j, given));
    JINJA_TRY(variables_set(j, given, variables, n_variables));
    JINJA_TRY(more_set(j, given, more_json));
    return template_run(j, text, n_bytes);
}

enum status jinja_render(const char *text, size_t n_bytes, const struct jinja_variable *variables,
                         size_t n_variables, const char *more_json, int64_t now_unix_seconds,
                         const struct jinja_limits *limits, struct buffer *out, struct fault *fault)
{
    struct jinja_builder written = {0};
    struct jinja j = {.out = &written, .now_unix_seconds = now_unix_seconds};
    jinja_limits_default(&j.limits);
    if (limits != NULL) {
        j.limits = *limits;
    }
    enum status status = render(&j, text, n_bytes, variables, n_variables, more_json);
    if (status == STATUS_OK) {
        status = buffer_put(out, written.n > 0 ? written.data : "", written.n);
        if (status != STATUS_OK) {
            (void)fault_set(&j.fault, status, "the prompt is too long");
        }
    }
    if (status != STATUS_OK && fault != NULL) {
        *fault = j.fault;
    }
    jinja_release(&j);
    return status;
}
