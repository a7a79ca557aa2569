/* Expressions: one function a level of precedence, loosest first, as the language has them:
 * if-else, or, and, not, comparisons (chained), + -, ~, * / // %, **, unary, postfix, filters. */
#include "engine/text/jinja_ast.h"

#include <string.h>

static enum status or_parse(struct jinja_parser *p, struct jinja_node **out);
static enum status unary_parse(struct jinja_parser *p, bool with_filters, struct jinja_node **out);

static enum status binary_node(struct jinja_parser *p, enum jinja_node_kind kind,
                               struct jinja_node *a, struct jinja_node **out)
{
    JINJA_TRY(jinja_node_new(p, kind, out));
    (*out)->op = (int)p->at->kind;
    (*out)->a = a;
    p->at++;
    return STATUS_OK;
}

enum status jinja_parse_expression(struct jinja_parser *p, struct jinja_node **out)
{
    JINJA_TRY(jinja_enter(p->j));
    JINJA_TRY(or_parse(p, out));
    while (jinja_at_name(p, "if")) {
        struct jinja_node *node;
        JINJA_TRY(binary_node(p, JN_CONDITION, *out, &node));
        JINJA_TRY(or_parse(p, &node->b));
        if (jinja_skip_name(p, "else")) {
            JINJA_TRY(jinja_parse_expression(p, &node->c));
        }
        *out = node;
    }
    jinja_leave(p->j);
    return STATUS_OK;
}

static enum status concat_parse(struct jinja_parser *p, struct jinja_node **out);

static enum status sum_parse(struct jinja_parser *p, struct jinja_node **out)
{
    JINJA_TRY(concat_parse(p, out));
    while (p->at->kind == JT_ADD || p->at->kind == JT_SUB) {
        struct jinja_node *node;
        JINJA_TRY(binary_node(p, JN_BINARY, *out, &node));
        JINJA_TRY(concat_parse(p, &node->b));
        *out = node;
    }
    return STATUS_OK;
}

static enum status ops_add(struct jinja *j, struct jinja_node *node, enum jinja_token_kind op)
{
    size_t n = node->list.n;
    if ((n & (n - 1)) == 0) { /* room for the next power of two */
        enum jinja_token_kind *ops = jinja_take(j, n == 0 ? 1 : 2 * n, sizeof *ops);
        if (ops == NULL) {
            return jinja_failure(j);
        }
        if (n > 0) {
            memcpy(ops, node->ops, n * sizeof *ops);
        }
        node->ops = ops;
    }
    node->ops[n] = op;
    return STATUS_OK;
}

static bool comparison_take(struct jinja_parser *p, enum jinja_token_kind *op)
{
    *op = p->at->kind;
    if (*op >= JT_EQ && *op <= JT_GE) {
        p->at++;
        return true;
    }
    if (jinja_skip_name(p, "in")) {
        *op = JT_IN;
        return true;
    }
    if (jinja_at_name(p, "not") && p->at[1].kind == JT_NAME && jinja_text_is(p->at[1].text, "in")) {
        p->at += 2;
        *op = JT_NOT_IN;
        return true;
    }
    return false;
}

static enum status compare_parse(struct jinja_parser *p, struct jinja_node **out)
{
    struct jinja_node *node = NULL;
    enum jinja_token_kind op;
    JINJA_TRY(sum_parse(p, out));
    while (comparison_take(p, &op)) {
        struct jinja_node *right;
        if (node == NULL) {
            JINJA_TRY(jinja_node_new(p, JN_COMPARE, &node));
            node->a = *out;
            *out = node;
        }
        JINJA_TRY(sum_parse(p, &right));
        JINJA_TRY(ops_add(p->j, node, op));
        JINJA_TRY(jinja_nodes_add(p->j, &node->list, right));
    }
    return STATUS_OK;
}

static enum status not_parse(struct jinja_parser *p, struct jinja_node **out)
{
    if (!jinja_at_name(p, "not")) {
        return compare_parse(p, out);
    }
    JINJA_TRY(jinja_enter(p->j));
    JINJA_TRY(binary_node(p, JN_NOT, NULL, out));
    JINJA_TRY(not_parse(p, &(*out)->a));
    jinja_leave(p->j);
    return STATUS_OK;
}

static enum status logic_parse(struct jinja_parser *p, const char *word, enum jinja_node_kind kind,
                               enum status (*part)(struct jinja_parser *p, struct jinja_node **out),
                               struct jinja_node **out)
{
    JINJA_TRY(part(p, out));
    while (jinja_at_name(p, word)) {
        struct jinja_node *node;
        JINJA_TRY(binary_node(p, kind, *out, &node));
        JINJA_TRY(part(p, &node->b));
        *out = node;
    }
    return STATUS_OK;
}

static enum status and_parse(struct jinja_parser *p, struct jinja_node **out)
{
    return logic_parse(p, "and", JN_AND, not_parse, out);
}

static enum status or_parse(struct jinja_parser *p, struct jinja_node **out)
{
    return logic_parse(p, "or", JN_OR, and_parse, out);
}

static enum status power_parse(struct jinja_parser *p, struct jinja_node **out)
{
    JINJA_TRY(unary_parse(p, true, out));
    while (p->at->kind == JT_POW) {
        struct jinja_node *node;
        JINJA_TRY(binary_node(p, JN_BINARY, *out, &node));
        JINJA_TRY(unary_parse(p, true, &node->b));
        *out = node;
    }
    return STATUS_OK;
}

static enum status product_parse(struct jinja_parser *p, struct jinja_node **out)
{
    JINJA_TRY(power_parse(p, out));
    while (p->at->kind >= JT_MUL && p->at->kind <= JT_MOD) {
        struct jinja_node *node;
        JINJA_TRY(binary_node(p, JN_BINARY, *out, &node));
        JINJA_TRY(power_parse(p, &node->b));
        *out = node;
    }
    return STATUS_OK;
}

static enum status concat_parse(struct jinja_parser *p, struct jinja_node **out)
{
    JINJA_TRY(product_parse(p, out));
    if (p->at->kind != JT_TILDE) {
        return STATUS_OK;
    }
    struct jinja_node *node;
    JINJA_TRY(jinja_node_new(p, JN_CONCAT, &node));
    JINJA_TRY(jinja_nodes_add(p->j, &node->list, *out));
    while (jinja_skip(p, JT_TILDE)) {
        JINJA_TRY(product_parse(p, out));
        JINJA_TRY(jinja_nodes_add(p->j, &node->list, *out));
    }
    *out = node;
    return STATUS_OK;
}

/* Elements up to the closing bracket; a comma may stand behind the last one. */
static enum status elements_parse(struct jinja_parser *p, enum jinja_token_kind end, bool pairs,
                                  struct jinja_nodes *out)
{
    p->at++;
    while (p->at->kind != end) {
        struct jinja_node *node;
        if (out->n > 0) {
            JINJA_TRY(jinja_expect(p, JT_COMMA));
        }
        if (p->at->kind == end) {
            break;
        }
        JINJA_TRY(jinja_parse_expression(p, &node));
        JINJA_TRY(jinja_nodes_add(p->j, out, node));
        if (pairs) {
            JINJA_TRY(jinja_expect(p, JT_COLON));
            JINJA_TRY(jinja_parse_expression(p, &node));
            JINJA_TRY(jinja_nodes_add(p->j, out, node));
        }
    }
    p->at++;
    return STATUS_OK;
}

static enum status name_parse(struct jinja_parser *p, struct jinja_node *node)
{
    struct jinja_text word = p->at->text;
    node->kind = JN_CONST;
    if (jinja_text_is(word, "true") || jinja_text_is(word, "True")) {
        node->value = jinja_bool(true);
    } else if (jinja_text_is(word, "false") || jinja_text_is(word, "False")) {
        node->value = jinja_bool(false);
    } else if (jinja_text_is(word, "none") || jinja_text_is(word, "None")) {
        node->value = jinja_none();
    } else {
        node->kind = JN_NAME;
        if (p->macro != NULL) {
            p->macro->uses_varargs |= jinja_text_is(word, "varargs");
            p->macro->uses_kwargs |= jinja_text_is(word, "kwargs");
            p->macro->uses_caller |= jinja_text_is(word, "caller");
        }
        return jinja_expect_name(p, &node->name);
    }
    p->at++;
    return STATUS_OK;
}

static enum status string_parse(struct jinja_parser *p, struct jinja_node *node)
{
    struct jinja_builder b = {0};
    node->value = jinja_string(p->at->text.data, p->at->text.n);
    if (p->at[1].kind != JT_STRING) {
        p->at++;
        return STATUS_OK;
    }
    for (; p->at->kind == JT_STRING; p->at++) {
        JINJA_TRY(jinja_put(p->j, &b, p->at->text.data, p->at->text.n));
    }
    node->value = jinja_built(&b);
    return STATUS_OK;
}

static enum status primary_parse(struct jinja_parser *p, struct jinja_node **out)
{
    JINJA_TRY(jinja_node_new(p, JN_CONST, out));
    struct jinja_node *node = *out;
    switch (p->at->kind) {
    case JT_NAME:
        return name_parse(p, node);
    case JT_STRING:
        return string_parse(p, node);
    case JT_INTEGER:
    case JT_FLOAT:
        node->value = p->at->value;
        p->at++;
        return STATUS_OK;
    case JT_LPAREN:
        p->at++;
        JINJA_TRY(jinja_parse_tuple(p, JE_PARENTHESES, NULL, out));
        return jinja_expect(p, JT_RPAREN);
    case JT_LBRACKET:
        node->kind = JN_LIST;
        return elements_parse(p, JT_RBRACKET, false, &node->list);
    case JT_LBRACE:
        node->kind = JN_DICT;
        return elements_parse(p, JT_RBRACE, true, &node->list);
    default:
        return jinja_unexpected(p);
    }
}

static bool tuple_ends(const struct jinja_parser *p, const char *end_name)
{
    return p->at->kind == JT_VARIABLE_END || p->at->kind == JT_BLOCK_END ||
           p->at->kind == JT_RPAREN || (end_name != NULL && jinja_at_name(p, end_name));
}

enum status jinja_parse_tuple(struct jinja_parser *p, unsigned flags, const char *end_name,
                              struct jinja_node **out)
{
    struct jinja_node *tuple = NULL, *item = NULL;
    JINJA_TRY(jinja_enter(p->j));
    while (!tuple_ends(p, end_name)) {
        JINJA_TRY((flags & JE_NO_CONDITION) != 0 ? or_parse(p, &item)
                                                 : jinja_parse_expression(p, &item));
        if (tuple == NULL && p->at->kind == JT_COMMA) {
            JINJA_TRY(jinja_node_new(p, JN_TUPLE, &tuple));
        }
        if (tuple != NULL) {
            JINJA_TRY(jinja_nodes_add(p->j, &tuple->list, item));
        }
        if (!jinja_skip(p, JT_COMMA)) {
            break;
        }
    }
    jinja_leave(p->j);
    *out = tuple != NULL ? tuple : item;
    if (*out == NULL && (flags & JE_PARENTHESES) != 0) {
        return jinja_node_new(p, JN_TUPLE, out);
    }
    return *out == NULL ? jinja_unexpected(p) : STATUS_OK;
}

static enum status target_item_parse(struct jinja_parser *p, bool with_namespace,
                                     struct jinja_node **out)
{
    if (jinja_skip(p, JT_LPAREN)) {
        JINJA_TRY(jinja_enter(p->j));
        JINJA_TRY(jinja_parse_target(p, with_namespace, NULL, out));
        jinja_leave(p->j);
        return jinja_expect(p, JT_RPAREN);
    }
    JINJA_TRY(primary_parse(p, out));
    if ((*out)->kind != JN_NAME) {
        p->j->line = (*out)->line;
        return jinja_fail(p->j, STATUS_FORMAT, "this cannot be assigned to");
    }
    if (with_namespace && jinja_skip(p, JT_DOT)) {
        const char *attribute;
        (*out)->kind = JN_NAMESPACED;
        JINJA_TRY(jinja_expect_name(p, &attribute));
        (*out)->text = (struct jinja_text){attribute, strlen(attribute)};
    }
    return STATUS_OK;
}

enum status jinja_parse_target(struct jinja_parser *p, bool with_namespace, const char *end_name,
                               struct jinja_node **out)
{
    struct jinja_node *tuple = NULL, *item;
    do {
        if (tuple != NULL && (tuple_ends(p, end_name) || p->at->kind == JT_ASSIGN)) {
            break;
        }
        JINJA_TRY(target_item_parse(p, with_namespace, &item));
        *out = tuple == NULL ? item : tuple;
        if (tuple == NULL && p->at->kind == JT_COMMA) {
            JINJA_TRY(jinja_node_new(p, JN_TUPLE, &tuple));
            *out = tuple;
        }
        if (tuple != NULL) {
            JINJA_TRY(jinja_nodes_add(p->j, &tuple->list, item));
        }
    } while (jinja_skip(p, JT_COMMA));
    return STATUS_OK;
}

static bool slice_ends(const struct jinja_parser *p)
{
    return p->at->kind == JT_RBRACKET || p->at->kind == JT_COMMA || p->at->kind == JT_COLON;
}

static enum status slice_parse(struct jinja_parser *p, struct jinja_node *first,
                               struct jinja_node **out)
{
    JINJA_TRY(jinja_node_new(p, JN_SLICE, out));
    JINJA_TRY(jinja_nodes_add(p->j, &(*out)->list, first));
    for (int i = 1; i < 3; i++) {
        struct jinja_node *bound = NULL;
        if (jinja_skip(p, JT_COLON) && !slice_ends(p)) {
            JINJA_TRY(jinja_parse_expression(p, &bound));
        }
        JINJA_TRY(jinja_nodes_add(p->j, &(*out)->list, bound));
    }
    return STATUS_OK;
}

static enum status subscript_parse(struct jinja_parser *p, struct jinja_node *box,
                                   struct jinja_node **out)
{
    struct jinja_node *key = NULL;
    p->at++;
    if (p->at->kind != JT_COLON) {
        JINJA_TRY(jinja_parse_expression(p, &key));
    }
    if (p->at->kind == JT_COLON) {
        JINJA_TRY(slice_parse(p, key, out));
    } else {
        JINJA_TRY(jinja_node_new(p, JN_ITEM, out));
        (*out)->b = key;
    }
    (*out)->a = box;
    return jinja_expect(p, JT_RBRACKET);
}

static enum status attribute_parse(struct jinja_parser *p, struct jinja_node *box,
                                   struct jinja_node **out)
{
    JINJA_TRY(binary_node(p, JN_ATTRIBUTE, box, out));
    if (p->at->kind == JT_INTEGER) {
        (*out)->kind = JN_ITEM;
        JINJA_TRY(jinja_node_new(p, JN_CONST, &(*out)->b));
        (*out)->b->value = p->at->value;
        p->at++;
        return STATUS_OK;
    }
    return jinja_expect_name(p, &(*out)->name);
}

static enum status calling_parse(struct jinja_parser *p, struct jinja_node *callee,
                                 struct jinja_node **out)
{
    JINJA_TRY(jinja_node_new(p, JN_CALLING, out));
    (*out)->a = callee;
    return jinja_parse_args(p, &(*out)->args);
}

static enum status postfix_parse(struct jinja_parser *p, struct jinja_node **out)
{
    for (unsigned n = 0;; n++) {
        if (n > p->j->limits.depth) {
            return jinja_unexpected(p);
        }
        if (p->at->kind == JT_DOT) {
            JINJA_TRY(attribute_parse(p, *out, out));
        } else if (p->at->kind == JT_LBRACKET) {
            JINJA_TRY(subscript_parse(p, *out, out));
        } else if (p->at->kind == JT_LPAREN) {
            JINJA_TRY(calling_parse(p, *out, out));
        } else {
            return STATUS_OK;
        }
    }
}

static enum status dotted_name(struct jinja_parser *p, const char **out)
{
    JINJA_TRY(jinja_expect_name(p, out));
    while (jinja_skip(p, JT_DOT)) {
        const char *more;
        struct jinja_builder b = {0};
        JINJA_TRY(jinja_expect_name(p, &more));
        JINJA_TRY(jinja_put_text(p->j, &b, *out));
        JINJA_TRY(jinja_put_c(p->j, &b, '.'));
        JINJA_TRY(jinja_put_text(p->j, &b, more));
        *out = jinja_intern(p->j, b.data, b.n);
        if (*out == NULL) {
            return jinja_failure(p->j);
        }
    }
    return STATUS_OK;
}

enum status jinja_parse_filters(struct jinja_parser *p, struct jinja_node *node, bool inline_first,
                                struct jinja_node **out)
{
    *out = node;
    while (inline_first || p->at->kind == JT_PIPE) {
        p->at += !inline_first;
        inline_first = false;
        JINJA_TRY(jinja_node_new(p, JN_FILTER, &node));
        node->a = *out;
        JINJA_TRY(dotted_name(p, &node->name));
        if (p->at->kind == JT_LPAREN) {
            JINJA_TRY(jinja_parse_args(p, &node->args));
        }
        *out = node;
    }
    return STATUS_OK;
}

static bool test_argument_follows(const struct jinja_parser *p)
{
    switch (p->at->kind) {
    case JT_NAME:
        return !jinja_at_name(p, "else") && !jinja_at_name(p, "or") && !jinja_at_name(p, "and");
    case JT_STRING:
    case JT_INTEGER:
    case JT_FLOAT:
    case JT_LBRACKET:
    case JT_LBRACE:
        return true;
    default:
        return false;
    }
}

static enum status test_parse(struct jinja_parser *p, struct jinja_node *value,
                              struct jinja_node **out)
{
    struct jinja_node *node;
    p->at++;
    bool negated = jinja_skip_name(p, "not");
    JINJA_TRY(jinja_node_new(p, JN_TEST, &node));
    node->a = value;
    *out = node;
    JINJA_TRY(dotted_name(p, &node->name));
    if (jinja_at_name(p, "is")) {
        return jinja_unexpected(p); /* tests cannot be chained */
    }
    if (p->at->kind == JT_LPAREN) {
        JINJA_TRY(jinja_parse_args(p, &node->args));
    } else if (test_argument_follows(p)) {
        struct jinja_node *arg;
        node->args = jinja_take(p->j, 1, sizeof *node->args);
        if (node->args == NULL) {
            return jinja_failure(p->j);
        }
        JINJA_TRY(primary_parse(p, &arg));
        JINJA_TRY(postfix_parse(p, &arg));
        JINJA_TRY(jinja_nodes_add(p->j, &node->args->positional, arg));
    }
    if (negated) {
        JINJA_TRY(jinja_node_new(p, JN_NOT, out));
        (*out)->a = node;
    }
    return STATUS_OK;
}

static enum status unary_parse(struct jinja_parser *p, bool with_filters, struct jinja_node **out)
{
    JINJA_TRY(jinja_enter(p->j));
    if (p->at->kind == JT_SUB || p->at->kind == JT_ADD) {
        enum jinja_node_kind kind = p->at->kind == JT_SUB ? JN_NEGATE : JN_POSITIVE;
        struct jinja_node *node;
        JINJA_TRY(binary_node(p, kind, NULL, &node));
        JINJA_TRY(unary_parse(p, false, &node->a));
        *out = node;
    } else {
        JINJA_TRY(primary_parse(p, out));
    }
    JINJA_TRY(postfix_parse(p, out));
    while (with_filters) {
        if (p->at->kind == JT_PIPE) {
            JINJA_TRY(jinja_parse_filters(p, *out, false, out));
        } else if (jinja_at_name(p, "is")) {
            JINJA_TRY(test_parse(p, *out, out));
        } else if (p->at->kind == JT_LPAREN) {
            JINJA_TRY(calling_parse(p, *out, out));
        } else {
            break;
        }
    }
    jinja_leave(p->j);
    return STATUS_OK;
}
