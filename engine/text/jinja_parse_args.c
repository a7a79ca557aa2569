/* The arguments of a call, a filter or a test: by position, by name, and spread by * and **, in
 * that order. */
#include "engine/text/jinja_ast.h"

#include <string.h>

static enum status named_arg_parse(struct jinja_parser *p, struct jinja_args *args)
{
    size_t n = args->named.n;
    if (n == args->names_capacity) {
        size_t capacity = n == 0 ? 4 : 2 * n;
        const char **names = jinja_take(p->j, capacity, sizeof *names);
        if (names == NULL) {
            return jinja_failure(p->j);
        }
        if (n > 0) {
            memcpy(names, args->names, n * sizeof *names);
        }
        args->names = names;
        args->names_capacity = capacity;
    }
    struct jinja_node *value;
    JINJA_TRY(jinja_expect_name(p, &args->names[n]));
    p->at++;
    JINJA_TRY(jinja_parse_expression(p, &value));
    return jinja_nodes_add(p->j, &args->named, value);
}

static enum status arg_parse(struct jinja_parser *p, struct jinja_args *args)
{
    struct jinja_node *value;
    if (args->star_star != NULL) {
        return jinja_unexpected(p);
    }
    if (p->at->kind == JT_POW) {
        p->at++;
        return jinja_parse_expression(p, &args->star_star);
    }
    if (p->at->kind == JT_MUL && args->star == NULL) {
        p->at++;
        return jinja_parse_expression(p, &args->star);
    }
    if (p->at->kind == JT_NAME && p->at[1].kind == JT_ASSIGN) {
        return named_arg_parse(p, args);
    }
    if (args->star != NULL || args->named.n > 0) {
        return jinja_unexpected(p);
    }
    JINJA_TRY(jinja_parse_expression(p, &value));
    return jinja_nodes_add(p->j, &args->positional, value);
}

enum status jinja_parse_args(struct jinja_parser *p, struct jinja_args **out)
{
    struct jinja_args *args = jinja_take(p->j, 1, sizeof *args);
    if (args == NULL) {
        return jinja_failure(p->j);
    }
    *out = args;
    JINJA_TRY(jinja_expect(p, JT_LPAREN));
    JINJA_TRY(jinja_enter(p->j));
    for (bool first = true; p->at->kind != JT_RPAREN; first = false) {
        if (!first) {
            JINJA_TRY(jinja_expect(p, JT_COMMA));
            if (p->at->kind == JT_RPAREN) {
                break;
            }
        }
        JINJA_TRY(arg_parse(p, args));
    }
    p->at++;
    jinja_leave(p->j);
    return STATUS_OK;
}
