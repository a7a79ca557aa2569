/* Statements: from tokens to the tree.
 *
 * A recursive-descent parser with one token of look-ahead; the tree lies in the arena. The tags
 * that are known are those of Jinja and of Hugging Face (loop controls, {% generation %}). A tag
 * that needs other template files, or that is not known, is UNSUPPORTED with its line; anything
 * else that does not parse is FORMAT. */
#include "engine/text/jinja_ast.h"

#include <string.h>

static enum status body_parse(struct jinja_parser *p, const char *const *ends,
                              struct jinja_nodes *out);

enum status jinja_node_new(struct jinja_parser *p, enum jinja_node_kind kind,
                           struct jinja_node **out)
{
    *out = jinja_take(p->j, 1, sizeof **out);
    if (*out == NULL) {
        return jinja_failure(p->j);
    }
    (*out)->kind = kind;
    (*out)->line = p->at->line;
    return STATUS_OK;
}

enum status jinja_nodes_add(struct jinja *j, struct jinja_nodes *list, struct jinja_node *node)
{
    if (list->n == list->capacity) {
        size_t capacity = list->capacity == 0 ? 4 : 2 * list->capacity;
        /* An array of pointers, which is what the check takes for a slip, here and below.
         * NOLINTNEXTLINE(bugprone-sizeof-expression) */
        struct jinja_node **items = jinja_take(j, capacity, sizeof *items);
        if (items == NULL) {
            return jinja_failure(j);
        }
        if (list->n > 0) {
            /* NOLINTNEXTLINE(bugprone-sizeof-expression) */
            memcpy(items, list->items, list->n * sizeof *items);
        }
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->n++] = node;
    return jinja_work(j, 1);
}

bool jinja_at_name(const struct jinja_parser *p, const char *word)
{
    return p->at->kind == JT_NAME && jinja_text_is(p->at->text, word);
}

bool jinja_skip_name(struct jinja_parser *p, const char *word)
{
    bool found = jinja_at_name(p, word);
    p->at += found;
    return found;
}

bool jinja_skip(struct jinja_parser *p, enum jinja_token_kind kind)
{
    bool found = p->at->kind == kind;
    p->at += found && kind != JT_END;
    return found;
}

enum status jinja_unexpected(struct jinja_parser *p)
{
    p->j->line = p->at->line;
    if (p->at->kind == JT_END) {
        return jinja_fail(p->j, STATUS_FORMAT, "the template ends too early");
    }
    size_t n = p->at->text.n < 40 ? p->at->text.n : 40;
    return jinja_fail(p->j, STATUS_FORMAT, "unexpected '%.*s'", (int)n, p->at->text.data);
}

enum status jinja_expect(struct jinja_parser *p, enum jinja_token_kind kind)
{
    return jinja_skip(p, kind) ? STATUS_OK : jinja_unexpected(p);
}

enum status jinja_expect_name(struct jinja_parser *p, const char **out)
{
    if (p->at->kind != JT_NAME) {
        return jinja_unexpected(p);
    }
    *out = jinja_intern(p->j, p->at->text.data, p->at->text.n);
    p->at++;
    return *out == NULL ? jinja_failure(p->j) : STATUS_OK;
}

/* The rest of a tag, then statements up to a tag whose name is one of `ends`, where it stops. */
static enum status block_parse(struct jinja_parser *p, const char *const *ends,
                               struct jinja_nodes *out)
{
    (void)jinja_skip(p, JT_COLON);
    JINJA_TRY(jinja_expect(p, JT_BLOCK_END));
    JINJA_TRY(jinja_enter(p->j));
    JINJA_TRY(body_parse(p, ends, out));
    jinja_leave(p->j);
    return STATUS_OK;
}

static enum status block_parse_to(struct jinja_parser *p, const char *end, struct jinja_nodes *out)
{
    const char *ends[] = {end, NULL};
    JINJA_TRY(block_parse(p, ends, out));
    p->at++;
    return STATUS_OK;
}

static enum status for_parse(struct jinja_parser *p, struct jinja_node **out)
{
    struct jinja_node *node;
    JINJA_TRY(jinja_node_new(p, JN_FOR, &node));
    *out = node;
    JINJA_TRY(jinja_parse_target(p, false, "in", &node->a));
    if (!jinja_skip_name(p, "in")) {
        return jinja_unexpected(p);
    }
    JINJA_TRY(jinja_parse_tuple(p, JE_NO_CONDITION, "recursive", &node->b));
    if (jinja_skip_name(p, "if")) {
        JINJA_TRY(jinja_parse_expression(p, &node->c));
    }
    node->op = jinja_skip_name(p, "recursive");
    p->n_loops++;
    JINJA_TRY(block_parse(p, (const char *const[]){"endfor", "else", NULL}, &node->list));
    p->n_loops--;
    if (jinja_skip_name(p, "else")) {
        return block_parse_to(p, "endfor", &node->other);
    }
    p->at++;
    return STATUS_OK;
}

static enum status if_parse(struct jinja_parser *p, struct jinja_node **out)
{
    struct jinja_node *node;
    JINJA_TRY(jinja_node_new(p, JN_IF, &node));
    *out = node;
    for (;;) {
        JINJA_TRY(jinja_parse_tuple(p, JE_NO_CONDITION, NULL, &node->a));
        JINJA_TRY(
            block_parse(p, (const char *const[]){"elif", "else", "endif", NULL}, &node->list));
        if (!jinja_skip_name(p, "elif")) {
            break;
        }
        struct jinja_node *next;
        JINJA_TRY(jinja_node_new(p, JN_IF, &next));
        JINJA_TRY(jinja_nodes_add(p->j, &node->other, next));
        node = next;
    }
    if (jinja_skip_name(p, "else")) {
        return block_parse_to(p, "endif", &node->other);
    }
    p->at++;
    return STATUS_OK;
}

static enum status set_parse(struct jinja_parser *p, struct jinja_node **out)
{
    struct jinja_node *node;
    JINJA_TRY(jinja_node_new(p, JN_SET, &node));
    *out = node;
    JINJA_TRY(jinja_parse_target(p, true, NULL, &node->a));
    if (jinja_skip(p, JT_ASSIGN)) {
        return jinja_parse_tuple(p, 0, NULL, &node->b);
    }
    node->kind = JN_SET_BLOCK;
    if (p->at->kind == JT_PIPE) {
        struct jinja_node *body;
        JINJA_TRY(jinja_node_new(p, JN_BODY, &body));
        body->name = jinja_body_name;
        JINJA_TRY(jinja_parse_filters(p, body, false, &node->b));
    }
    return block_parse_to(p, "endset", &node->list);
}

static enum status params_add(struct jinja_parser *p, struct jinja_params *params)
{
    if (params->n == params->capacity) {
        size_t capacity = params->capacity == 0 ? 4 : 2 * params->capacity;
        const char **names = jinja_take(p->j, capacity, sizeof *names);
        if (names == NULL) {
            return jinja_failure(p->j);
        }
        if (params->n > 0) {
            memcpy(names, params->names, params->n * sizeof *names);
        }
        params->names = names;
        params->capacity = capacity;
    }
    JINJA_TRY(jinja_expect_name(p, &params->names[params->n]));
    params->n++;
    if (jinja_skip(p, JT_ASSIGN)) {
        struct jinja_node *value;
        JINJA_TRY(jinja_parse_expression(p, &value));
        return jinja_nodes_add(p->j, &params->defaults, value);
    }
    if (params->defaults.n > 0) {
        p->j->line = p->at->line;
        return jinja_fail(p->j, STATUS_FORMAT, "a parameter without default behind one with");
    }
    return STATUS_OK;
}

static enum status signature_parse(struct jinja_parser *p, struct jinja_params *params)
{
    JINJA_TRY(jinja_expect(p, JT_LPAREN));
    while (p->at->kind != JT_RPAREN) {
        if (params->n > 0) {
            JINJA_TRY(jinja_expect(p, JT_COMMA));
        }
        JINJA_TRY(params_add(p, params));
    }
    p->at++;
    return STATUS_OK;
}

/* The body of a macro or of a call block, noting which of its implicit names it uses. */
static enum status macro_body_parse(struct jinja_parser *p, struct jinja_node *node,
                                    const char *end)
{
    struct jinja_params *outer = p->macro;
    unsigned n_loops = p->n_loops;
    p->macro = node->params;
    p->n_loops = 0;
    JINJA_TRY(block_parse_to(p, end, &node->list));
    p->macro = outer;
    p->n_loops = n_loops;
    return STATUS_OK;
}

static enum status macro_node(struct jinja_parser *p, enum jinja_node_kind kind,
                              struct jinja_node **out)
{
    JINJA_TRY(jinja_node_new(p, kind, out));
    (*out)->params = jinja_take(p->j, 1, sizeof *(*out)->params);
    return (*out)->params == NULL ? jinja_failure(p->j) : STATUS_OK;
}

static enum status macro_parse(struct jinja_parser *p, struct jinja_node **out)
{
    JINJA_TRY(macro_node(p, JN_MACRO, out));
    JINJA_TRY(jinja_expect_name(p, &(*out)->name));
    JINJA_TRY(signature_parse(p, (*out)->params));
    return macro_body_parse(p, *out, "endmacro");
}

static enum status call_parse(struct jinja_parser *p, struct jinja_node **out)
{
    JINJA_TRY(macro_node(p, JN_CALL, out));
    struct jinja_node *node = *out;
    node->name = jinja_intern(p->j, "caller", 6);
    if (node->name == NULL) {
        return jinja_failure(p->j);
    }
    if (p->at->kind == JT_LPAREN) {
        JINJA_TRY(signature_parse(p, node->params));
    }
    JINJA_TRY(jinja_parse_expression(p, &node->a));
    if (node->a->kind != JN_CALLING) {
        p->j->line = node->line;
        return jinja_fail(p->j, STATUS_FORMAT, "expected a call behind 'call'");
    }
    return macro_body_parse(p, node, "endcall");
}

static enum status with_parse(struct jinja_parser *p, struct jinja_node **out)
{
    JINJA_TRY(jinja_node_new(p, JN_WITH, out));
    struct jinja_node *node = *out;
    while (p->at->kind != JT_BLOCK_END) {
        struct jinja_node *target, *value;
        if (node->other.n > 0) {
            JINJA_TRY(jinja_expect(p, JT_COMMA));
        }
        JINJA_TRY(jinja_parse_target(p, false, NULL, &target));
        JINJA_TRY(jinja_expect(p, JT_ASSIGN));
        JINJA_TRY(jinja_parse_expression(p, &value));
        JINJA_TRY(jinja_nodes_add(p->j, &node->other, target));
        JINJA_TRY(jinja_nodes_add(p->j, &node->other, value));
    }
    return block_parse_to(p, "endwith", &node->list);
}

static enum status filter_block_parse(struct jinja_parser *p, struct jinja_node **out)
{
    struct jinja_node *body;
    JINJA_TRY(jinja_node_new(p, JN_FILTER_BLOCK, out));
    JINJA_TRY(jinja_node_new(p, JN_BODY, &body));
    body->name = jinja_body_name;
    JINJA_TRY(jinja_parse_filters(p, body, true, &(*out)->b));
    return block_parse_to(p, "endfilter", &(*out)->list);
}

/* Without inheritance a block is its own content, seen from the top of the template. */
static enum status named_block_parse(struct jinja_parser *p, struct jinja_node **out)
{
    JINJA_TRY(jinja_node_new(p, JN_SCOPE, out));
    JINJA_TRY(jinja_expect_name(p, &(*out)->name));
    (*out)->op = !jinja_skip_name(p, "scoped"); /* 1: does not see the names around it */
    (void)jinja_skip_name(p, "required");
    JINJA_TRY(block_parse_to(p, "endblock", &(*out)->list));
    (void)jinja_skip_name(p, (*out)->name);
    return STATUS_OK;
}

static enum status generation_parse(struct jinja_parser *p, struct jinja_node **out)
{
    JINJA_TRY(jinja_node_new(p, JN_SCOPE, out));
    return block_parse_to(p, "endgeneration", &(*out)->list);
}

static enum status loop_control_parse(struct jinja_parser *p, struct jinja_node **out)
{
    bool leaves = jinja_text_is(p->at[-1].text, "break");
    JINJA_TRY(jinja_node_new(p, leaves ? JN_BREAK : JN_CONTINUE, out));
    if (p->n_loops == 0) {
        p->j->line = p->at->line;
        return jinja_fail(p->j, STATUS_FORMAT, "'%s' outside of a loop",
                          leaves ? "break" : "continue");
    }
    return STATUS_OK;
}

static enum status print_parse(struct jinja_parser *p, struct jinja_node **out)
{
    JINJA_TRY(jinja_node_new(p, JN_SCOPE, out));
    while (p->at->kind != JT_BLOCK_END) {
        struct jinja_node *print;
        if ((*out)->list.n > 0) {
            JINJA_TRY(jinja_expect(p, JT_COMMA));
        }
        JINJA_TRY(jinja_node_new(p, JN_PRINT, &print));
        JINJA_TRY(jinja_parse_expression(p, &print->a));
        JINJA_TRY(jinja_nodes_add(p->j, &(*out)->list, print));
    }
    return STATUS_OK;
}

static enum status statement_parse(struct jinja_parser *p, struct jinja_node **out)
{
    static const struct {
        const char *name;
        enum status (*parse)(struct jinja_parser *p, struct jinja_node **out);
    } statements[] = {
        {"for", for_parse},
        {"if", if_parse},
        {"set", set_parse},
        {"macro", macro_parse},
        {"call", call_parse},
        {"with", with_parse},
        {"filter", filter_block_parse},
        {"block", named_block_parse},
        {"generation", generation_parse},
        {"break", loop_control_parse},
        {"continue", loop_control_parse},
        {"print", print_parse},
    };
    if (p->at->kind != JT_NAME) {
        return jinja_unexpected(p);
    }
    struct jinja_text word = p->at->text;
    for (size_t i = 0; i < COUNT_OF(statements); i++) {
        if (jinja_text_is(word, statements[i].name)) {
            p->at++;
            return statements[i].parse(p, out);
        }
    }
    p->j->line = p->at->line;
    if (word.n > 3 && memcmp(word.data, "end", 3) == 0) {
        return jinja_unexpected(p);
    }
    return jinja_fail(p->j, STATUS_UNSUPPORTED, "the tag '%.*s'", (int)(word.n < 40 ? word.n : 40),
                      word.data);
}

static bool at_end(const struct jinja_parser *p, const char *const *ends)
{
    for (; ends != NULL && *ends != NULL; ends++) {
        if (jinja_at_name(p, *ends)) {
            return true;
        }
    }
    return false;
}

static enum status data_node(struct jinja_parser *p, struct jinja_node **out)
{
    bool data = p->at->kind == JT_DATA;
    JINJA_TRY(jinja_node_new(p, data ? JN_DATA : JN_PRINT, out));
    (*out)->text = p->at->text;
    p->at++;
    if (data) {
        return STATUS_OK;
    }
    JINJA_TRY(jinja_parse_tuple(p, 0, NULL, &(*out)->a));
    return jinja_expect(p, JT_VARIABLE_END);
}

/* Statements up to the end of the template, or to a tag in `ends`, with the tag's name current. */
static enum status body_parse(struct jinja_parser *p, const char *const *ends,
                              struct jinja_nodes *out)
{
    while (p->at->kind != JT_END) {
        struct jinja_node *node;
        if (p->at->kind != JT_BLOCK_BEGIN) {
            JINJA_TRY(data_node(p, &node));
        } else {
            p->at++;
            if (at_end(p, ends)) {
                return STATUS_OK;
            }
            JINJA_TRY(statement_parse(p, &node));
            JINJA_TRY(jinja_expect(p, JT_BLOCK_END));
        }
        JINJA_TRY(jinja_nodes_add(p->j, out, node));
    }
    return ends == NULL ? STATUS_OK : jinja_unexpected(p);
}

enum status jinja_parse(struct jinja *j, const struct jinja_token *tokens, struct jinja_nodes *out)
{
    struct jinja_parser p = {.j = j, .at = tokens};
    return body_parse(&p, NULL, out);
}
