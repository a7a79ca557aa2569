#ifndef SKEIN_ENGINE_TEXT_JINJA_AST_H
#define SKEIN_ENGINE_TEXT_JINJA_AST_H

/* Tokens and the tree of a template. */
#include "engine/text/jinja_value.h"

enum jinja_token_kind {
    JT_END,
    JT_DATA,
    JT_VARIABLE_BEGIN,
    JT_VARIABLE_END,
    JT_BLOCK_BEGIN,
    JT_BLOCK_END,
    JT_NAME,
    JT_STRING,
    JT_INTEGER,
    JT_FLOAT,
    JT_ADD,
    JT_SUB,
    JT_MUL,
    JT_DIV,
    JT_FLOORDIV,
    JT_MOD,
    JT_POW,
    JT_TILDE,
    JT_EQ,
    JT_NE,
    JT_LT,
    JT_LE,
    JT_GT,
    JT_GE,
    JT_IN,     /* made by the parser */
    JT_NOT_IN, /* likewise */
    JT_ASSIGN,
    JT_DOT,
    JT_COLON,
    JT_COMMA,
    JT_SEMICOLON,
    JT_PIPE,
    JT_LPAREN,
    JT_RPAREN,
    JT_LBRACKET,
    JT_RBRACKET,
    JT_LBRACE,
    JT_RBRACE
};

struct jinja_token {
    enum jinja_token_kind kind;
    unsigned line;
    struct jinja_text text;   /* of data, names, strings (escapes undone); else as written */
    struct jinja_value value; /* of numbers */
};

enum jinja_node_kind {
    /* statements */
    JN_DATA,      /* text */
    JN_PRINT,     /* a */
    JN_FOR,       /* a: target, b: what is walked, c: condition or NULL, list: body, other: else */
    JN_IF,        /* a: condition, list: body, other: a single JN_IF, or the else branch */
    JN_SET,       /* a: target, b: value */
    JN_SET_BLOCK, /* a: target, b: filter chain over JN_BODY or NULL, list: body */
    JN_MACRO,     /* name, params, list: body */
    JN_CALL,      /* a: JN_CALLING, params of the caller, list: body */
    JN_FILTER_BLOCK, /* b: filter chain, list: body */
    JN_WITH,         /* args: names and values, list: body */
    JN_SCOPE,        /* list: body */
    JN_BREAK,
    JN_CONTINUE,
    /* expressions */
    JN_CONST,      /* value */
    JN_NAME,       /* name */
    JN_BODY,       /* the captured text of a set or filter block */
    JN_NAMESPACED, /* target `name.text` of set */
    JN_LIST,       /* list */
    JN_TUPLE,      /* list */
    JN_DICT,       /* list: keys and values in turn */
    JN_AND,        /* a, b */
    JN_OR,
    JN_NOT, /* a */
    JN_NEGATE,
    JN_POSITIVE,
    JN_BINARY,    /* op, a, b */
    JN_CONCAT,    /* list */
    JN_COMPARE,   /* a, list: right sides, ops */
    JN_CONDITION, /* a if b else c; c NULL: undefined */
    JN_ATTRIBUTE, /* a, name */
    JN_ITEM,      /* a, b */
    JN_SLICE,     /* a[list of 3, NULL where left out] */
    JN_CALLING,   /* a, args */
    JN_FILTER,    /* a, name, args */
    JN_TEST       /* a, name, args */
};

struct jinja_nodes {
    struct jinja_node **items;
    size_t n, capacity;
};

struct jinja_args {
    struct jinja_nodes positional;
    struct jinja_nodes named;
    const char **names; /* [named.n] */
    size_t names_capacity;
    struct jinja_node *star, *star_star;
};

struct jinja_params {
    const char **names;
    struct jinja_nodes defaults; /* of the last ones */
    size_t n, capacity;
    bool uses_varargs, uses_kwargs, uses_caller;
};

struct jinja_node {
    enum jinja_node_kind kind;
    unsigned line;
    int op; /* a token kind */
    const char *name;
    struct jinja_node *a, *b, *c;
    struct jinja_nodes list, other;
    enum jinja_token_kind *ops; /* [list.n] */
    struct jinja_args *args;
    struct jinja_params *params;
    struct jinja_value value;
    struct jinja_text text;
};

/* ---- jinja_lex.c: the whole template at once; the last token is JT_END */
enum status jinja_lex(struct jinja *j, const char *text, size_t n_bytes,
                      struct jinja_token **out) MUST_USE;

/* ---- jinja_parse.c, jinja_parse_expr.c */
struct jinja_parser {
    struct jinja *j;
    const struct jinja_token *at;
    unsigned n_loops;           /* loops around, in this macro */
    struct jinja_params *macro; /* being parsed: notes what its body uses */
};

enum status jinja_parse(struct jinja *j, const struct jinja_token *tokens,
                        struct jinja_nodes *out) MUST_USE;

enum { JE_NO_CONDITION = 1, JE_PARENTHESES = 2 };
enum status jinja_parse_expression(struct jinja_parser *p, struct jinja_node **out) MUST_USE;
/* A tuple without parentheses, or one expression. end_name: a name that ends it too, or NULL. */
enum status jinja_parse_tuple(struct jinja_parser *p, unsigned flags, const char *end_name,
                              struct jinja_node **out) MUST_USE;
enum status jinja_parse_target(struct jinja_parser *p, bool with_namespace, const char *end_name,
                               struct jinja_node **out) MUST_USE;
/* filters applied to `node`; the first one stands without its pipe where inline_first. */
enum status jinja_parse_filters(struct jinja_parser *p, struct jinja_node *node, bool inline_first,
                                struct jinja_node **out) MUST_USE;
/* From "(" to behind ")". */
enum status jinja_parse_args(struct jinja_parser *p, struct jinja_args **out) MUST_USE;
enum status jinja_node_new(struct jinja_parser *p, enum jinja_node_kind kind,
                           struct jinja_node **out) MUST_USE;
enum status jinja_nodes_add(struct jinja *j, struct jinja_nodes *list,
                            struct jinja_node *node) MUST_USE;
bool jinja_at_name(const struct jinja_parser *p, const char *word);
bool jinja_skip_name(struct jinja_parser *p, const char *word);
bool jinja_skip(struct jinja_parser *p, enum jinja_token_kind kind);
enum status jinja_expect(struct jinja_parser *p, enum jinja_token_kind kind) MUST_USE;
enum status jinja_expect_name(struct jinja_parser *p, const char **out) MUST_USE;
enum status jinja_unexpected(struct jinja_parser *p); /* FORMAT: says what stands there */

/* ---- jinja_eval.c */
enum status jinja_eval(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                       struct jinja_value *out) MUST_USE;
/* A JN_CALLING node; extra: one more named argument, or NULL. */
enum status jinja_eval_calling(struct jinja *j, struct jinja_scope *scope,
                               const struct jinja_node *node, const char *extra_name,
                               const struct jinja_value *extra, struct jinja_value *out) MUST_USE;
/* ---- jinja_exec.c */
/* The name under which a set or filter block's text is bound for its filters (JN_BODY). */
extern const char jinja_body_name[];
enum status jinja_exec(struct jinja *j, struct jinja_scope *scope,
                       const struct jinja_nodes *body) MUST_USE;
enum status jinja_scope_new(struct jinja *j, struct jinja_scope *parent,
                            struct jinja_scope **out) MUST_USE;
enum status jinja_scope_set(struct jinja *j, struct jinja_scope *scope, const char *name,
                            struct jinja_value value) MUST_USE;
struct jinja_value *jinja_scope_find(struct jinja *j, struct jinja_scope *scope, const char *name);
enum status jinja_run_macro(struct jinja *j, const struct jinja_macro *macro,
                            const struct jinja_call *call, struct jinja_value *out) MUST_USE;
/* loop(...) of a recursive loop. */
enum status jinja_run_loop_again(struct jinja *j, const struct jinja_loop *loop,
                                 struct jinja_value items, struct jinja_value *out) MUST_USE;

#endif
