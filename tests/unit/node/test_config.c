/* Options: the order of sources, every kind of value, and the sentence of every mistake. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/config.h"

struct values {
    const char *name;
    uint32_t count;
    uint64_t size, seed;
    double number;
    int choice;
    bool flag;
    struct option_list list;
};

static const char *const words[] = {"latency", "throughput", NULL};
#define AT(field) offsetof(struct values, field)
static const struct option options[] = {
    OPTION("name", OPTION_TEXT, AT(name), "NAME", "A name", .fallback = "none"),
    OPTION("count", OPTION_COUNT, AT(count), "N", "A count", .fallback = "4", .min = 1, .max = 64),
    OPTION("memory", OPTION_SIZE, AT(size), "SIZE", "A size"),
    OPTION("seed", OPTION_SEED, AT(seed), "N", "A seed"),
    OPTION("heat", OPTION_NUMBER, AT(number), "X", "A number", .fallback = "0.5", .max = 2),
    OPTION("objective", OPTION_CHOICE, AT(choice), "WORD", "A word", .choices = words),
    OPTION("no-discovery", OPTION_FLAG, AT(flag), NULL, "A flag", .letter = 'n'),
    OPTION("peer", OPTION_LIST, AT(list), "HOST", "A host"),
    OPTION("json", OPTION_FLAG, AT(flag), NULL, "Another flag", .flag_only = true),
};
static const struct command_spec spec = {"up", "FILE", "Test.", NULL, options, COUNT_OF(options),
                                         0,    1};
static const struct option other_options[] = {
    OPTION("top-k", OPTION_COUNT, 0, "N", "Of another command"),
};
static const struct command_spec other = {"run", "", "Other.", NULL, other_options, 1, 0, 0};
static const struct command_spec *const specs[] = {&spec, &other};

/* The environment of a test: NAME=value texts. */
static const char *from_list(void *owner, const char *name)
{
    const char *const *list = owner;
    size_t n = strlen(name);

    for (; list && *list; list++)
        if (strncmp(*list, name, n) == 0 && (*list)[n] == '=')
            return *list + n + 1;
    return NULL;
}

static char file_path[64];

static void file_write(const char *text)
{
    FILE *file = fopen(file_path, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int setup(void **state)
{
    int fd;

    (void)state;
    (void)snprintf(file_path, sizeof file_path, "/tmp/skein-config-XXXXXX");
    fd = mkstemp(file_path);
    return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(file_path);
}

struct outcome {
    enum status status;
    struct values values;
    struct config config;
    struct fault fault;
};

static void parse(struct outcome *o, const char *const *environment, const char *file,
                  const char *const *arguments)
{
    struct config_world world = {.specs = specs,
                                 .n_specs = 2,
                                 .environment = from_list,
                                 .owner = (void *)(uintptr_t)environment,
                                 .file_path = file ? file_path : NULL};
    char *argv[16];
    int argc = 0;

    memset(o, 0, sizeof *o);
    if (file)
        file_write(file);
    for (; arguments && arguments[argc]; argc++)
        argv[argc] = (char *)(uintptr_t)arguments[argc];
    o->status = config_parse(&spec, &world, argc, argv, &o->values, sizeof o->values, &o->config,
                             &o->fault);
}

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void refused(const char *const *environment, const char *file, const char *const *arguments,
                    const char *words_of_it)
{
    struct outcome o;

    parse(&o, environment, file, arguments);
    assert_int_equal(o.status, STATUS_INVALID);
    if (!strstr(o.fault.text, words_of_it))
        fail_msg("\"%s\" does not say \"%s\"", o.fault.text, words_of_it);
    assert_null(strchr(o.fault.text, '\n'));
    config_free(&o.config);
}

static void test_defaults(void **state)
{
    struct outcome o;

    (void)state;
    parse(&o, NULL, NULL, NULL);
    assert_int_equal(o.status, STATUS_OK);
    assert_string_equal(o.values.name, "none");
    assert_int_equal(o.values.count, 4);
    assert_true(o.values.number > 0.49 && o.values.number < 0.51);
    assert_false(o.values.flag);
    assert_false(config_given(&spec, &o.config, "count"));
    config_free(&o.config);
}

static void test_order_of_sources(void **state)
{
    struct outcome o;

    (void)state;
    parse(&o, ARGS("SKEIN_COUNT=20", "SKEIN_NAME=env"), "count = 10\nname = file\nmemory = 1G\n",
          ARGS("--count", "30"));
    assert_int_equal(o.status, STATUS_OK);
    assert_int_equal(o.values.count, 30);
    assert_string_equal(o.values.name, "env");
    assert_int_equal(o.values.size, 1u << 30);
    assert_true(config_given(&spec, &o.config, "memory"));
    config_free(&o.config);
}

static void test_file_alone(void **state)
{
    struct outcome o;

    (void)state;
    parse(&o, NULL,
          "# comment\n\n  no-discovery = yes  \npeer = a\npeer = b:1\nobjective=throughput\n"
          "top-k = 5\nseed = 18446744073709551615",
          NULL);
    assert_int_equal(o.status, STATUS_OK);
    assert_true(o.values.flag);
    assert_int_equal(o.values.list.n, 2);
    assert_string_equal(o.values.list.items[1], "b:1");
    assert_int_equal(o.values.choice, 1);
    assert_true(o.values.seed == UINT64_MAX);
    config_free(&o.config);
}

static void test_stronger_source_replaces_a_list(void **state)
{
    struct outcome o;

    (void)state;
    parse(&o, ARGS("SKEIN_PEER=c, d"), "peer = a\npeer = b\n", NULL);
    assert_int_equal(o.status, STATUS_OK);
    assert_int_equal(o.values.list.n, 2);
    assert_string_equal(o.values.list.items[0], "c");
    assert_string_equal(o.values.list.items[1], "d");
    config_free(&o.config);
    parse(&o, ARGS("SKEIN_PEER=c,d"), NULL, ARGS("--peer", "e", "--peer=f", "--peer", "g"));
    assert_int_equal(o.values.list.n, 3);
    assert_string_equal(o.values.list.items[2], "g");
    config_free(&o.config);
}

static void test_flags_forms(void **state)
{
    struct outcome o;

    (void)state;
    parse(&o, NULL, NULL, ARGS("-n", "--heat=1.25", "--", "--count"));
    assert_int_equal(o.status, STATUS_OK);
    assert_true(o.values.flag);
    assert_true(o.values.number > 1.2);
    assert_int_equal(o.config.n_arguments, 1);
    assert_string_equal(o.config.arguments[0], "--count");
    config_free(&o.config);
    parse(&o, NULL, "no-discovery = on\n", ARGS("--no-discovery=false"));
    assert_false(o.values.flag);
    config_free(&o.config);
}

static void test_empty_variable_is_unset(void **state)
{
    struct outcome o;

    (void)state;
    parse(&o, ARGS("SKEIN_COUNT=", "SKEIN_JSON=yes"), NULL, NULL);
    assert_int_equal(o.status, STATUS_OK);
    assert_int_equal(o.values.count, 4);
    assert_false(o.values.flag); /* json is for flags only */
    config_free(&o.config);
}

static void test_mistakes_are_named(void **state)
{
    (void)state;
    refused(NULL, NULL, ARGS("--cuont", "3"), "did you mean --count?");
    refused(NULL, NULL, ARGS("--zzzzzzzz"), "unknown option --zzzzzzzz");
    refused(NULL, NULL, ARGS("-x"), "unknown option -x");
    refused(NULL, NULL, ARGS("--count"), "--count needs a value: N");
    refused(NULL, NULL, ARGS("--count", "--json"), "--count needs a value");
    refused(NULL, NULL, ARGS("--count="), "--count= needs a value");
    refused(NULL, NULL, ARGS("--count", "65"), "from 1 to 64");
    refused(NULL, NULL, ARGS("--count", "-1"), "--count: \"-1\"");
    refused(NULL, NULL, ARGS("--count", "3x"), "--count");
    refused(NULL, NULL, ARGS("--memory", "12Q"), "is not a size");
    refused(NULL, NULL, ARGS("--heat", "nan"), "from 0 to 2");
    refused(NULL, NULL, ARGS("--heat", "2.1"), "from 0 to 2");
    refused(NULL, NULL, ARGS("--seed", "18446744073709551616"), "2^64");
    refused(NULL, NULL, ARGS("--objective", "fast"), "latency, throughput");
    refused(NULL, NULL, ARGS("--json=maybe"), "is not yes or no");
    refused(NULL, NULL, ARGS("a", "b"), "unexpected \"b\"");
    refused(ARGS("SKEIN_MEMORY=much"), NULL, NULL, "SKEIN_MEMORY: \"much\"");
}

static void test_file_mistakes_name_the_line(void **state)
{
    char where[120];

    (void)state;
    (void)snprintf(where, sizeof where, "%s:3: unknown key \"cuont\"; did you mean \"count\"?",
                   file_path);
    refused(NULL, "\n# x\ncuont = 3\n", NULL, where);
    (void)snprintf(where, sizeof where, "%s:2: count: \"99\"", file_path);
    refused(NULL, "name = x\ncount = 99\n", NULL, where);
    (void)snprintf(where, sizeof where, "%s:1: expected", file_path);
    refused(NULL, "count 3\n", NULL, where);
    refused(NULL, "name =\n", NULL, "name needs a value");
    refused(NULL, "json = yes\n", NULL, "unknown key \"json\"");
}

static void test_file_limits(void **state)
{
    struct outcome o;
    FILE *file;

    (void)state;
    parse(&o, NULL, "", NULL);
    assert_int_equal(o.status, STATUS_OK);
    config_free(&o.config);
    file = fopen(file_path, "w");
    assert_non_null(file);
    for (int i = 0; i < CONFIG_MAX_FILE_BYTES + 1; i++)
        (void)fputc('#', file);
    (void)fclose(file);
    {
        struct config_world world = {.specs = specs, .n_specs = 2, .file_path = file_path};
        o.status =
            config_parse(&spec, &world, 0, NULL, &o.values, sizeof o.values, &o.config, &o.fault);
        assert_int_equal(o.status, STATUS_LIMIT);
        config_free(&o.config);
        world.file_path = "/tmp";
        o.status =
            config_parse(&spec, &world, 0, NULL, &o.values, sizeof o.values, &o.config, &o.fault);
        assert_int_equal(o.status, STATUS_IO);
        config_free(&o.config);
        world.file_path = "/nonexistent/config";
        o.status =
            config_parse(&spec, &world, 0, NULL, &o.values, sizeof o.values, &o.config, &o.fault);
        assert_int_equal(o.status, STATUS_OK);
        config_free(&o.config);
    }
}

static void test_help_skips_checks(void **state)
{
    struct outcome o;

    (void)state;
    parse(&o, NULL, "nonsense\n", ARGS("--unknown", "--help"));
    assert_int_equal(o.status, STATUS_OK);
    assert_true(o.config.help);
    config_free(&o.config);
    parse(&o, NULL, NULL, ARGS("--", "--help"));
    assert_false(o.config.help);
    config_free(&o.config);
}

static void test_help_text(void **state)
{
    struct buffer out = {0};

    (void)state;
    assert_int_equal(config_help(&spec, &out), STATUS_OK);
    for (size_t i = 0; i < COUNT_OF(options); i++) {
        char flag[40];
        (void)snprintf(flag, sizeof flag, "--%s", options[i].name);
        assert_non_null(strstr((const char *)out.data, flag));
    }
    assert_non_null(strstr((const char *)out.data, "latency|throughput"));
    assert_non_null(strstr((const char *)out.data, "(default 4)"));
    assert_non_null(strstr((const char *)out.data, "usage: skein up [OPTIONS] FILE"));
    for (const char *line = (const char *)out.data; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        assert_true(strcspn(line, "\n") <= 80);
    }
    buffer_free(&out);
}

static void test_variable_names(void **state)
{
    char name[64];

    (void)state;
    config_variable("no-discovery", name);
    assert_string_equal(name, "SKEIN_NO_DISCOVERY");
}

static void test_nearest(void **state)
{
    static const char *const commands[] = {"up", "run", "peers", "plan", "engines"};

    (void)state;
    assert_string_equal(config_nearest("pers", commands, 5), "peers");
    assert_string_equal(config_nearest("rnu", commands, 5), "run");
    assert_null(config_nearest("destroy", commands, 5));
    assert_null(config_nearest("a-word-that-is-longer-than-thirty-one-letters", commands, 5));
}

static void test_folders(void **state)
{
    char path[CONFIG_MAX_PATH];
    struct fault fault;
    struct config_world world = {.environment = from_list};

    (void)state;
    world.owner =
        (void *)(uintptr_t)ARGS("HOME=/h/x", "XDG_STATE_HOME=/s", "XDG_DATA_HOME=relative");
    assert_int_equal(config_folder(&world, CONFIG_FOLDER_STATE, path, &fault), STATUS_OK);
    assert_string_equal(path, "/s/skein");
    assert_int_equal(config_folder(&world, CONFIG_FOLDER_CONFIG, path, &fault), STATUS_OK);
    assert_string_equal(path, "/h/x/.config/skein");
    /* the standard says to ignore a relative one */
    assert_int_equal(config_folder(&world, CONFIG_FOLDER_DATA, path, &fault), STATUS_OK);
    assert_string_equal(path, "/h/x/.local/share/skein");
    world.owner = NULL;
    assert_int_equal(config_folder(&world, CONFIG_FOLDER_DATA, path, &fault), STATUS_NOT_FOUND);
}

static void test_folder_make(void **state)
{
    char root[] = "/tmp/skein-folder-XXXXXX", path[80];
    struct fault fault;
    struct stat st;

    (void)state;
    assert_non_null(mkdtemp(root));
    (void)snprintf(path, sizeof path, "%s/a/b", root);
    assert_int_equal(config_folder_make(path, &fault), STATUS_OK);
    assert_int_equal(config_folder_make(path, &fault), STATUS_OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_not_equal(config_folder_make(file_path, &fault), STATUS_OK);
    assert_int_equal(rmdir(path), 0);
    (void)snprintf(path, sizeof path, "%s/a", root);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(rmdir(root), 0);
}

static void test_no_memory(void **state)
{
    struct outcome o;

    (void)state;
    for (unsigned long i = 1; i <= 3; i++) {
        mem_fail_after(i);
        parse(&o, ARGS("SKEIN_PEER=a,b"), "name = x\n", NULL);
        mem_fail_after(0);
        assert_int_equal(o.status, STATUS_NO_MEMORY);
        config_free(&o.config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_order_of_sources),
        cmocka_unit_test(test_file_alone),
        cmocka_unit_test(test_stronger_source_replaces_a_list),
        cmocka_unit_test(test_flags_forms),
        cmocka_unit_test(test_empty_variable_is_unset),
        cmocka_unit_test(test_mistakes_are_named),
        cmocka_unit_test(test_file_mistakes_name_the_line),
        cmocka_unit_test(test_file_limits),
        cmocka_unit_test(test_help_skips_checks),
        cmocka_unit_test(test_help_text),
        cmocka_unit_test(test_variable_names),
        cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_folder_make),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
