/* The template engine on random templates and random variables: whatever they are, it ends in a
 * second, either with text within the limit or with words that say why not, and the same input
 * gives the same result. Templates come from a grammar, so that most get past the parser, and a
 * share of them is damaged afterwards. What the result should be is test_jinja.c's to say. */
#include "engine/text/jinja.h"
#include "tests/unit/engine/text_load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

struct maker {
    uint64_t random;
    char text[16384];
    size_t n;
};

static uint32_t below(struct maker *m, uint32_t n)
{
    return random_below(&m->random, n);
}

static void put(struct maker *m, const char *text)
{
    size_t n = strlen(text);
    if (m->n + n < sizeof m->text) {
        memcpy(m->text + m->n, text, n + 1);
        m->n += n;
    }
}

#define PUT_ONE_OF(m, list) put(m, (list)[below(m, COUNT_OF(list))])

static const char *const names[] = {"messages", "s",      "l", "d", "n",
                                    "f",        "nobody", "a", "b", "loop"};
static const char *const atoms[] = {"0",     "1",    "-3",         "7",          "2.5",
                                    "'x'",   "''",   "'\xc3\xa9'", "\"a b\\n\"", "true",
                                    "false", "none", "[]",         "{}",         "range(4)"};
static const char *const operators[] = {
    " + ",  " - ",  " * ", " / ",  " // ", " % ",   " ** ", " ~ ",
    " == ", " != ", " < ", " >= ", " in ", " and ", " or ", " not in "};
static const char *const filters[] = {"length",
                                      "upper",
                                      "trim",
                                      "tojson",
                                      "list",
                                      "first",
                                      "last",
                                      "join(',')",
                                      "string",
                                      "int",
                                      "float",
                                      "sort",
                                      "unique",
                                      "reverse",
                                      "items",
                                      "default('d')",
                                      "title",
                                      "safe",
                                      "indent(2)",
                                      "tojson(2)",
                                      "sum",
                                      "abs",
                                      "round(1)",
                                      "replace('a', 'b')",
                                      "batch(2) | list",
                                      "map('upper') | list",
                                      "selectattr('k') | list",
                                      "dictsort",
                                      "wordcount",
                                      "max",
                                      "min",
                                      "center(9)",
                                      "e",
                                      "count",
                                      "capitalize"};
static const char *const tests[] = {"defined",  "none",      "string",         "mapping",
                                    "iterable", "odd",       "number",         "true",
                                    "sequence", "undefined", "divisibleby(3)", "in [1, 2]"};
static const char *const tails[] = {
    ".k",       "['k']",    "[0]",      "[-1]",     "[1:]",
    "[::-1]",   ".role",    ".strip()", ".split()", ".get('k')",
    ".items()", ".upper()", ".index0",  "[:2]",     ".startswith('a')"};

static void expression(struct maker *m, int depth)
{
    switch (depth <= 0 ? below(m, 2) : below(m, 9)) {
    case 0:
        PUT_ONE_OF(m, names);
        break;
    case 1:
        PUT_ONE_OF(m, atoms);
        break;
    case 2:
        put(m, "(");
        expression(m, depth - 1);
        PUT_ONE_OF(m, operators);
        expression(m, depth - 1);
        put(m, ")");
        break;
    case 3:
        expression(m, depth - 1);
        put(m, " | ");
        PUT_ONE_OF(m, filters);
        break;
    case 4:
        put(m, "(");
        expression(m, depth - 1);
        put(m, below(m, 2) ? " is " : " is not ");
        PUT_ONE_OF(m, tests);
        put(m, ")");
        break;
    case 5:
        expression(m, depth - 1);
        PUT_ONE_OF(m, tails);
        break;
    case 6:
        put(m, "[");
        expression(m, depth - 1);
        put(m, ", ");
        expression(m, depth - 1);
        put(m, "]");
        break;
    case 7:
        put(m, "{'k': ");
        expression(m, depth - 1);
        put(m, "}");
        break;
    default:
        put(m, "(");
        expression(m, depth - 1);
        put(m, " if ");
        expression(m, depth - 1);
        put(m, " else ");
        expression(m, depth - 1);
        put(m, ")");
        break;
    }
}

static void body(struct maker *m, int depth, bool in_loop);

static void tag(struct maker *m, const char *words)
{
    put(m, below(m, 4) ? "{% " : "{%- ");
    put(m, words);
}

static void tag_end(struct maker *m)
{
    put(m, below(m, 4) ? " %}" : " -%}\n");
}

static void loop(struct maker *m, int depth)
{
    tag(m, below(m, 3) ? "for a in " : "for a, b in ");
    expression(m, 1);
    if (below(m, 4) == 0) {
        put(m, " if ");
        expression(m, 1);
    }
    tag_end(m);
    body(m, depth - 1, true);
    if (below(m, 4) == 0) {
        put(m, "{% else %}");
        body(m, depth - 1, false);
    }
    put(m, "{% endfor %}");
}

static void macro(struct maker *m, int depth)
{
    put(m, "{% macro f(a, b=2) %}");
    body(m, depth - 1, false);
    put(m, "{{ caller() if caller else a }}{{ kwargs }}{% endmacro %}");
    if (below(m, 2)) {
        put(m, "{% call f(");
        expression(m, 1);
        put(m, ", c=1) %}");
        body(m, depth - 1, false);
        put(m, "{% endcall %}");
    } else {
        put(m, "{{ f(**{'a': ");
        expression(m, 1);
        put(m, ", 'k\\x00k': 1}) }}");
    }
}

static void statement(struct maker *m, int depth, bool in_loop)
{
    switch (below(m, depth > 0 ? 10 : 3)) {
    case 0:
        put(m, " text\n  \xe2\x82\xac ");
        break;
    case 1:
    case 2:
        put(m, "{{ ");
        expression(m, 3);
        put(m, " }}");
        break;
    case 3:
        loop(m, depth);
        break;
    case 4:
        tag(m, "if ");
        expression(m, 2);
        tag_end(m);
        body(m, depth - 1, in_loop);
        put(m, "{% else %}");
        body(m, depth - 1, in_loop);
        put(m, "{% endif %}");
        break;
    case 5:
        tag(m, below(m, 2) ? "set a = " : "set b = ");
        expression(m, 3);
        tag_end(m);
        break;
    case 6:
        put(m, "{% set b %}");
        body(m, depth - 1, false);
        put(m, "{% endset %}");
        break;
    case 7:
        macro(m, depth);
        break;
    case 8:
        put(m, "{% set ns = namespace(x=1) %}{% set ns.x = ");
        expression(m, 2);
        put(m, " %}{{ ns.x }}");
        break;
    default:
        put(m, in_loop ? "{% if a %}{% break %}{% endif %}" : "{% filter upper %}q{% endfilter %}");
        break;
    }
}

static void body(struct maker *m, int depth, bool in_loop)
{
    for (uint32_t n = 1 + below(m, 3); n > 0; n--) {
        statement(m, depth, in_loop);
    }
}

static void json(struct maker *m, int depth)
{
    static const char *const leaves[] = {"1",       "-7",   "2.5",   "true", "null",
                                         "\"a b\"", "\"\"", "\"0\"", "[]",   "\"\\u00e9\\u0000\"",
                                         "{}"};
    uint32_t kind = depth <= 0 ? 2 : below(m, 3);
    if (kind == 2) {
        PUT_ONE_OF(m, leaves);
        return;
    }
    put(m, kind == 0 ? "[" : "{\"k\": ");
    json(m, depth - 1);
    put(m, kind == 0 ? ", " : ", \"role\": ");
    json(m, depth - 1);
    put(m, kind == 0 ? "]" : "}");
}

static void variables(struct maker *m)
{
    static const char *const keys[] = {
        "{\"messages\": ", ", \"s\": ", ", \"l\": ", ", \"d\": ", ", \"n\": "};
    m->n = 0;
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        put(m, keys[i]);
        json(m, i == 0 ? 3 : 2);
    }
    put(m, "}");
}

static bool checked_render(const struct maker *template, const char *more)
{
    const struct jinja_limits limits = {.steps = 100000,
                                        .memory_bytes = (size_t)8 << 20,
                                        .output_bytes = (size_t)1 << 20,
                                        .depth = 100};
    struct buffer out[2] = {{0}, {0}};
    struct fault fault[2] = {{0}, {0}};
    enum status status[2];
    for (int i = 0; i < 2; i++) {
        double begin = processor_seconds();
        status[i] = jinja_render(template->text, template->n, NULL, 0, more, 1760000000, &limits,
                                 &out[i], &fault[i]);
        if (processor_seconds() - begin > 1.0) {
            fail_msg("more than a second: %s", template->text);
        }
        if (out[i].len > limits.output_bytes || (status[i] != STATUS_OK && out[i].len > 0)) {
            fail_msg("%zu bytes, %s: %s", out[i].len, status_name(status[i]), template->text);
        }
        if (status[i] != STATUS_OK && fault[i].text[0] == '\0') {
            fail_msg("%s without words: %s", status_name(status[i]), template->text);
        }
    }
    if (status[0] != status[1] || out[0].len != out[1].len ||
        (out[0].len > 0 && memcmp(out[0].data, out[1].data, out[0].len) != 0) ||
        strcmp(fault[0].text, fault[1].text) != 0) {
        fail_msg("another result the second time: %s", template->text);
    }
    buffer_free(&out[0]);
    buffer_free(&out[1]);
    return status[0] == STATUS_OK;
}

enum { ROUNDS = 6000 };

static void random_templates_keep_to_the_rules(void **state)
{
    static struct maker template, more;
    int good = 0;
    (void)state;
    template.random = 11;
    more.random = 12;
    for (int i = 0; i < ROUNDS; i++) {
        template.n = 0;
        body(&template, 3, false);
        variables(&more);
        good += checked_render(&template, more.text);
    }
    assert_true(good > ROUNDS / 10); /* else only errors are tested */
}

static void damaged_templates_keep_to_the_rules(void **state)
{
    static const char marks[] = "{}%#-|([\"'\\.,=~\n\xc3";
    static struct maker template, more;
    (void)state;
    template.random = 21;
    more.random = 22;
    for (int i = 0; i < ROUNDS; i++) {
        template.n = 0;
        body(&template, 3, false);
        for (uint32_t k = 1 + below(&template, 4); k > 0; k--) {
            size_t at = below(&template, (uint32_t) template.n);
            size_t cut = below(&template, 12);
            if (below(&template, 2)) {
                template.text[at] = marks[below(&template, sizeof marks - 1)];
            } else if (at + cut < template.n) {
                memmove(template.text + at, template.text + at + cut, template.n - at - cut + 1);
                template.n -= cut;
            }
        }
        variables(&more);
        (void)checked_render(&template, more.text);
    }
}

int main(void)
{
    const struct CMUnitTest all[] = {
        cmocka_unit_test(random_templates_keep_to_the_rules),
        cmocka_unit_test(damaged_templates_keep_to_the_rules),
    };
    return cmocka_run_group_tests(all, NULL, NULL);
}
