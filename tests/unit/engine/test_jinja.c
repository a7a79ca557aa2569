/* The template engine against what jinja2 makes of the same templates (tests/data/jinja), and
 * against templates that mean harm. */
#include "engine/text/jinja.h"
#include "tests/unit/engine/text_load.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char *data_read(const char *name, size_t *n_bytes)
{
    char path[512];
    const char *folder = getenv("SKEIN_DATA");
    (void)snprintf(path, sizeof path, "%s/jinja/%s", folder == NULL ? "tests/data" : folder, name);
    return file_read(path, n_bytes);
}

static enum status render(const char *template, size_t n, const char *variables, struct buffer *out,
                          struct fault *fault)
{
    return jinja_render(template, n, NULL, 0, variables, 1760000000, NULL, out, fault);
}

/* Returns whether the case came out as recorded. */
static bool case_check(const json_t *entry, const char *template, size_t n, const char *variables)
{
    struct buffer out = {0};
    struct fault fault = {0};
    const json_t *text = json_object_get(entry, "text");
    enum status status = render(template, n, variables, &out, &fault);
    bool good = text == NULL
                    ? status != STATUS_OK && fault.text[0] != '\0'
                    : status == STATUS_OK && out.len == json_string_length(text) &&
                          (out.len == 0 || memcmp(out.data, json_string_value(text), out.len) == 0);
    if (!good) {
        print_message("%s: %.100s\n  wanted: %.200s\n  got: %.200s%.200s\n",
                      json_string_value(json_object_get(entry, "name")), template,
                      text == NULL ? "an error" : json_string_value(text),
                      out.data == NULL ? "" : (const char *)out.data, fault.text);
    }
    buffer_free(&out);
    return good;
}

static void recorded_cases_are_exact(void **state)
{
    size_t n, bad = 0;
    json_error_t error;
    (void)state;
    char *bytes = data_read("cases.json", &n);
    assert_non_null(bytes);
    json_t *file = json_loadb(bytes, n, JSON_ALLOW_NUL, &error);
    assert_non_null(file);
    char *common = json_dumps(json_object_get(file, "variables"), JSON_ENSURE_ASCII);
    const json_t *cases = json_object_get(file, "cases");
    assert_true(json_array_size(cases) > 900);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *entry = json_array_get(cases, i);
        const json_t *own = json_object_get(entry, "variables");
        const json_t *template = json_object_get(entry, "template");
        char *variables = own == NULL ? NULL : json_dumps(own, JSON_ENSURE_ASCII);
        char name[128];
        size_t n_template = json_string_length(template);
        (void)snprintf(name, sizeof name, "%.100s.jinja", json_string_value(template));
        char *text = own == NULL ? NULL : data_read(name, &n_template);
        bad += !case_check(entry, text == NULL ? json_string_value(template) : text, n_template,
                           own == NULL ? common : variables);
        mem_free(text);
        free(variables);
    }
    free(common);
    json_decref(file);
    mem_free(bytes);
    assert_int_equal(bad, 0);
}

/* What a template's whole share of steps takes here where it is spent on the plainest of loops: the
 * unit in which others are measured, so that neither the machine nor a sanitizer is. */
static double share_seconds(void)
{
    static const char loop[] = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}"
                               "{% endfor %}";
    static double share;
    if (share == 0.0) {
        struct buffer out = {0};
        struct fault fault = {0};
        double begin = processor_seconds();
        assert_int_equal(render(loop, sizeof loop - 1, NULL, &out, &fault), STATUS_LIMIT);
        share = processor_seconds() - begin;
    }
    return share;
}

/* No template takes more than a few times as long for its share as another: work that is not
 * charged in steps would. The dearest steps known are those that build lists, at five or six. */
static void fails(const char *template, enum status wanted, const char *words)
{
    struct buffer out = {0};
    struct fault fault = {0};
    double begin = processor_seconds();
    enum status status = render(template, strlen(template), "{\"s\": \"abc\"}", &out, &fault);
    double took = processor_seconds() - begin;
    if (status != wanted || strstr(fault.text, words) == NULL) {
        fail_msg("%.60s: %s: %s", template, status_name(status), fault.text);
    }
    assert_int_equal(out.len, 0);
    if (took > 20 * share_seconds()) {
        fail_msg("%.60s: %.3f s; a plain loop takes %.3f s for as many steps", template, took,
                 share_seconds());
    }
    buffer_free(&out);
}

static void harmful_templates_run_into_limits(void **state)
{
    (void)state;
    fails("{% set r = range(9999) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}",
          STATUS_LIMIT, "steps");
    fails("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
          STATUS_LIMIT, "");
    fails("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", STATUS_LIMIT, "deep");
    fails("{% macro f(n) %}{% for i in range(9) %}{{ f(n - 1) if n > 0 }}{% endfor %}{% endmacro %}"
          "{{ f(50) }}",
          STATUS_LIMIT, "");
    fails("{{ 'x' * 1000000000 }}", STATUS_LIMIT, "bytes");
    fails("{{ [0] * 1000000000 }}", STATUS_LIMIT, "");
    fails("{{ 'x' * 9223372036854775807 }}", STATUS_LIMIT, "");
    fails("{{ 'x'.center(9223372036854775807) }}", STATUS_LIMIT, "");
    fails("{{ '%999999999d' % 1 }}", STATUS_LIMIT, "400");
    fails("{{ '{:999999999}'.format(1) }}", STATUS_UNSUPPORTED, "");
    fails("{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}"
          "{% endfor %}",
          STATUS_LIMIT, "");
    fails("{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
          "{% endfor %}{{ ns.x }}",
          STATUS_LIMIT, "");
    fails("{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}"
          "{% endfor %}{{ ns.x | tojson }}",
          STATUS_LIMIT, "deep");
    fails("{{ range(0, 100000000) }}", STATUS_LIMIT, "range");
    fails("{{ 2 ** 64 }}", STATUS_UNSUPPORTED, "64 bits");
    fails("{{ -9223372036854775807 - 2 }}", STATUS_UNSUPPORTED, "64 bits");
    fails("{{ s.replace('', s * 100000) }}{{ s.replace('', s * 100000).replace('', s * 100000) }}",
          STATUS_LIMIT, "");
}

static void looking_up_names_costs_steps(void **state)
{
    enum { NAMES = 12000 };
    char *template = mem_zeroed(24 * NAMES + 256, 1), *to = template;
    (void)state;
    assert_non_null(template);
    for (int i = 0; i < NAMES; i++) {
        to += sprintf(to, "{%% set v%d = 1 %%}", i);
    }
    (void)sprintf(to,
                  "{%% for a in range(9999) %%}{%% for b in range(9999) %%}{{ v%d }}"
                  "{%% endfor %%}{%% endfor %%}",
                  NAMES - 1);
    fails(template, STATUS_LIMIT, "steps");
    mem_free(template);
}

static void keywords_may_hold_any_byte(void **state)
{
    static const char template[] =
        "{% macro f(a) %}{{ a }}{{ kwargs | length }}{% endmacro %}"
        "{% for x in range(300) %}{{ f(**{'a': 1, 'a\0' ~ 'long' * 99 ~ x: 2}) }}{% endfor %}";
    struct buffer out = {0};
    struct fault fault = {0};
    (void)state;
    assert_int_equal(render(template, sizeof template - 1, NULL, &out, &fault), STATUS_OK);
    assert_int_equal(out.len, 600);
    for (size_t i = 0; i < out.len; i++) {
        assert_int_equal(out.data[i], '1');
    }
    buffer_free(&out);
}

static void nested_text_does_not_exhaust_the_stack(void **state)
{
    static const char *const units[] = {"(",  "[",  "not ",         "-",   "{'a':", "s.a",
                                        "f(", "s[", "1 if 1 else ", "s|f("};
    enum { TIMES = 20000 };
    char *template = mem_zeroed(16 * TIMES + 64, 1);
    (void)state;
    assert_non_null(template);
    for (size_t i = 0; i < COUNT_OF(units); i++) {
        struct buffer out = {0};
        struct fault fault = {0};
        char *to = stpcpy(template, "{{ ");
        for (int k = 0; k < TIMES; k++) {
            to = stpcpy(to, units[i]);
        }
        (void)stpcpy(to, " 1 }}");
        enum status status = render(template, strlen(template), NULL, &out, &fault);
        assert_true(status == STATUS_LIMIT || status == STATUS_FORMAT || status == STATUS_INVALID);
        buffer_free(&out);
    }
    char *to = template;
    for (int k = 0; k < TIMES; k++) {
        to = stpcpy(to, "{% if 1 %}");
    }
    fails(template, STATUS_LIMIT, "deep");
    mem_free(template);
}

static void errors_say_what_and_where(void **state)
{
    (void)state;
    fails("a\n\n{{ s|nosuch }}", STATUS_UNSUPPORTED, "line 3: the filter 'nosuch'");
    fails("a\n{{ s is nosuch }}", STATUS_UNSUPPORTED, "line 2: the test 'nosuch'");
    fails("\n{% include 'x' %}", STATUS_UNSUPPORTED, "line 2: the tag 'include'");
    fails("{{ raise_exception('roles must alternate') }}", STATUS_INVALID, "roles must alternate");
    fails("{{ nobody.name }}", STATUS_INVALID, "'nobody' is undefined");
    fails("{% if s %}", STATUS_FORMAT, "ends too early");
    fails("\n\n{{ s s }}", STATUS_FORMAT, "line 3: unexpected 's'");
    fails("{{ [].append(1) }}", STATUS_INVALID, "append");
    fails("{{ 'a' + 1 }}", STATUS_INVALID, "'str' and 'int'");
}

static void bad_variables_are_refused(void **state)
{
    struct buffer out = {0};
    struct fault fault = {0};
    (void)state;
    assert_int_equal(render("x", 1, "{", &out, &fault), STATUS_INVALID);
    assert_int_equal(render("x", 1, "[1]", &out, &fault), STATUS_INVALID);
    assert_int_equal(render("x", 1, "{\"a\": 1e999}", &out, &fault), STATUS_INVALID);
    assert_int_equal(render("x", 1, "{\"a\": 99999999999999999999}", &out, &fault), STATUS_INVALID);
    assert_int_equal(out.len, 0);
    assert_int_equal(render("{{ a }}", 7, "{\"a\": \"\\u0000\"}", &out, &fault), STATUS_OK);
    assert_int_equal(out.len, 1);
    buffer_free(&out);
}

static void broken_bytes_pass_through(void **state)
{
    static const char template[] = "\xff{{ '\xc3' }}\xe2\x82{% set \xff = 1 %}{{ \xff }}";
    struct buffer out = {0};
    struct fault fault = {0};
    (void)state;
    assert_int_equal(render(template, sizeof template - 1, NULL, &out, &fault), STATUS_OK);
    assert_string_equal((const char *)out.data, "\xff\xc3\xe2\x82"
                                                "1");
    buffer_free(&out);
}

static void running_out_of_memory_is_an_error(void **state)
{
    static const char template[] =
        "{% macro m(a) %}{{ a|tojson }}{% endmacro %}{% for x in [1, 2] %}{{ m({'k': x}) }}"
        "{% endfor %}{{ 'x' * 70000 }}";
    enum status status = STATUS_NO_MEMORY;
    (void)state;
    for (unsigned long n = 1; status == STATUS_NO_MEMORY; n++) {
        struct buffer out = {0};
        struct fault fault = {0};
        mem_fail_after(n);
        status = render(template, sizeof template - 1, NULL, &out, &fault);
        mem_fail_after(0);
        assert_true(status == STATUS_OK ? out.len > 70000 : out.len == 0);
        buffer_free(&out);
    }
    assert_int_equal(status, STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_cases_are_exact),
        cmocka_unit_test(harmful_templates_run_into_limits),
        cmocka_unit_test(looking_up_names_costs_steps),
        cmocka_unit_test(keywords_may_hold_any_byte),
        cmocka_unit_test(nested_text_does_not_exhaust_the_stack),
        cmocka_unit_test(errors_say_what_and_where),
        cmocka_unit_test(bad_variables_are_refused),
        cmocka_unit_test(broken_bytes_pass_through),
        cmocka_unit_test(running_out_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
