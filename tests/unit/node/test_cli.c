/* What the commands share: the tables of all commands, addresses, key files, JSON files, the news
 * of `skein up`. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/cli/choice.h"
#include "node/cli/inspect.h"
#include "node/cli/watch.h"

static void test_every_table_is_sound(void **state)
{
    (void)state;
    for (size_t c = 0; c < cli_n_specs; c++) {
        const struct command_spec *spec = cli_specs[c];
        struct buffer help = {0};
        struct config config;
        struct fault fault = {0};
        struct config_world world = {.specs = cli_specs, .n_specs = cli_n_specs};
        char values[8192];
        char *none[] = {NULL};
        enum status status;

        assert_true(spec->n_options <= CONFIG_MAX_OPTIONS);
        assert_true(spec->max_arguments <= CONFIG_MAX_ARGUMENTS);
        for (size_t i = 0; i < spec->n_options; i++) {
            const struct option *option = &spec->options[i];
            assert_true(option->offset + sizeof(struct option_list) <= sizeof values ||
                        option->kind != OPTION_LIST);
            assert_true((option->value == NULL) == (option->kind == OPTION_FLAG));
            assert_true(option->kind != OPTION_CHOICE || option->choices);
            for (size_t k = 0; k < i; k++)
                assert_string_not_equal(option->name, spec->options[k].name);
        }
        /* defaults parse as if the user had written them */
        status = config_parse(spec, &world, 0, none, values, sizeof values, &config, &fault);
        assert_int_equal(status, spec->min_arguments ? STATUS_INVALID : STATUS_OK);
        if (status != STATUS_OK)
            assert_non_null(strstr(fault.text, "usage"));
        config_free(&config);
        assert_int_equal(config_help(spec, &help), STATUS_OK);
        assert_non_null(strstr((const char *)help.data, spec->name));
        buffer_free(&help);
    }
}

/* One key of the file means one thing, whichever command reads it. */
static void test_keys_mean_one_thing(void **state)
{
    (void)state;
    for (size_t a = 0; a < cli_n_specs; a++)
        for (size_t b = 0; b < a; b++)
            for (size_t i = 0; i < cli_specs[a]->n_options; i++)
                for (size_t k = 0; k < cli_specs[b]->n_options; k++) {
                    const struct option *x = &cli_specs[a]->options[i];
                    const struct option *y = &cli_specs[b]->options[k];
                    if (strcmp(x->name, y->name) == 0 && !x->flag_only && !y->flag_only)
                        assert_int_equal(x->kind, y->kind);
                }
}

static void test_addresses(void **state)
{
    static const struct {
        const char *text, *host;
        uint16_t port;
    } good[] = {{"127.0.0.1:8470", "127.0.0.1", 8470},
                {"[::1]:0", "::1", 0},
                {"box.local:65535", "box.local", 65535}};
    static const char *const bad[] = {"",     ":1",   "a",      "a:",      "a:65536", "a:-1",
                                      "a:1x", "a: 1", "::1:80", "[::1]80", "[]:1"};
    struct cli_address address;
    struct fault fault;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        assert_int_equal(cli_address_parse(good[i].text, &address, &fault), STATUS_OK);
        assert_string_equal(address.host, good[i].host);
        assert_int_equal(address.port, good[i].port);
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_int_equal(cli_address_parse(bad[i], &address, &fault), STATUS_INVALID);
    assert_true(cli_address_is_loopback("127.0.0.1"));
    assert_true(cli_address_is_loopback("127.9.9.9"));
    assert_true(cli_address_is_loopback("::1"));
    assert_true(cli_address_is_loopback("localhost"));
    assert_false(cli_address_is_loopback("192.168.1.1"));
    assert_false(cli_address_is_loopback("127.0.0.1.evil.example"));
}

static char path[] = "/tmp/skein-cli-XXXXXX";

static void put_file(const char *text, size_t n, mode_t mode)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static enum status secret(const char *text, mode_t mode, char out[static 64])
{
    struct fault fault = {0};
    enum status status;

    put_file(text, strlen(text), mode);
    status = cli_read_secret(path, out, 64, &fault);
    assert_true(status == STATUS_OK || fault.text[0]);
    return status;
}

static void test_key_files(void **state)
{
    struct fault fault;
    char out[64], longest[80];

    (void)state;
    assert_int_equal(secret("0123456789abcdef\n", 0600, out), STATUS_OK);
    assert_string_equal(out, "0123456789abcdef");
    assert_int_equal(secret("0123456789abcdef", 0640, out), STATUS_PERMISSION);
    assert_int_equal(secret("0123456789abcdef", 0604, out), STATUS_PERMISSION);
    assert_int_equal(secret("", 0600, out), STATUS_FORMAT);
    assert_int_equal(secret("0123456789abcde\n\n\n", 0600, out), STATUS_FORMAT);
    assert_int_equal(secret("0123456789 abcdef", 0600, out), STATUS_FORMAT);
    memset(longest, 'x', sizeof longest);
    longest[79] = '\0';
    assert_int_equal(secret(longest, 0600, out), STATUS_FORMAT);
    assert_int_equal(cli_read_secret("/nonexistent", out, sizeof out, &fault), STATUS_NOT_FOUND);
}

static void test_files_are_bounded(void **state)
{
    struct buffer out = {0};
    struct fault fault;

    (void)state;
    put_file("ab\0cd", 5, 0600);
    assert_int_equal(cli_read(path, 5, &out, &fault), STATUS_OK);
    assert_int_equal(out.len, 5);
    assert_memory_equal(out.data, "ab\0cd", 5);
    buffer_free(&out);
    assert_int_equal(cli_read(path, 4, &out, &fault), STATUS_LIMIT);
    buffer_free(&out);
    put_file("", 0, 0600);
    assert_int_equal(cli_read(path, 4, &out, &fault), STATUS_OK);
    assert_non_null(out.data);
    buffer_free(&out);
}

static enum status ids(const char *json, struct token_list *out)
{
    struct fault fault = {0};

    put_file(json, strlen(json), 0600);
    return inspect_ids(path, 100, out, &fault);
}

static void test_token_ids(void **state)
{
    static const char *const bad[] = {"[100]",
                                      "[-1]",
                                      "[1.5]",
                                      "[\"1\"]",
                                      "{}",
                                      "5",
                                      "[1",
                                      "",
                                      "[1]x",
                                      "{\"tokens\":5}",
                                      "[99999999999999999999]"};
    struct token_list list = {0};

    (void)state;
    assert_int_equal(ids("[0, 7, 99]", &list), STATUS_OK);
    assert_int_equal(list.n, 3);
    assert_int_equal(list.ids[2], 99);
    token_list_free(&list);
    assert_int_equal(ids("{\"tokens\":[4]}", &list), STATUS_OK);
    assert_int_equal(list.n, 1);
    token_list_free(&list);
    assert_int_equal(ids("[]", &list), STATUS_OK);
    assert_int_equal(list.n, 0);
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_int_not_equal(ids(bad[i], &list), STATUS_OK);
        token_list_free(&list);
    }
}

/* ---------------------------------------------------------------- watch */

static char said[4096];

static void say(void *owner, const char *line)
{
    size_t at = strlen(said);

    (void)owner;
    (void)snprintf(said + at, sizeof said - at, "%s\n", line);
}

static const char *step(struct watch *watch, const struct watch_views *views)
{
    said[0] = '\0';
    watch_step(watch, views, say, NULL);
    return said;
}

static void test_watch_members(void **state)
{
    static struct member_view members[2];
    struct watch_views views = {.members = members, .n_members = 2};
    struct watch *watch;

    (void)state;
    memset(members, 0, sizeof members);
    assert_int_equal(watch_new(&watch), STATUS_OK);
    members[0].state = MEMBER_SELF;
    members[1].node_id[0] = 1;
    members[1].state = MEMBER_DIALLING;
    assert_string_equal(step(watch, &views), "");
    members[1].state = MEMBER_ALIVE; /* the card has not come yet */
    assert_string_equal(step(watch, &views), "");
    strcpy(members[1].card.name, "attic");
    strcpy(members[1].card.engine, "native");
    strcpy(members[1].address, "10.0.0.2:8471");
    members[1].card.memory_free_bytes = 2ull << 30;
    assert_non_null(strstr(step(watch, &views), "found attic at 10.0.0.2:8471: native, 2"));
    assert_string_equal(step(watch, &views), "");
    members[1].state = MEMBER_LOST;
    strcpy(members[1].note, "silent for 3 s");
    assert_string_equal(step(watch, &views), "lost attic: silent for 3 s\n");
    assert_string_equal(step(watch, &views), "");
    members[1].state = MEMBER_ALIVE;
    assert_non_null(strstr(step(watch, &views), "found attic"));
    members[1].state = MEMBER_REFUSED;
    strcpy(members[1].note, "other cluster key");
    assert_string_equal(step(watch, &views), "refused attic: other cluster key\n");
    assert_string_equal(step(watch, &views), "");
    watch_free(&watch);
}

static void test_watch_notices_and_instances(void **state)
{
    static struct instance_view instance;
    struct node_notice notice = {"eth1 cannot be used"};
    struct watch_views views = {.notices = &notice, .n_notices = 1, .instances = &instance};
    struct watch *watch;

    (void)state;
    memset(&instance, 0, sizeof instance);
    assert_int_equal(watch_new(&watch), STATUS_OK);
    assert_string_equal(step(watch, &views), "eth1 cannot be used\n");
    assert_string_equal(step(watch, &views), "");
    views.n_instances = 1;
    strcpy(instance.model, "tiny");
    strcpy(instance.stage_names[0], "bridge");
    strcpy(instance.stage_names[1], "attic");
    instance.plan.n_stages = 2;
    instance.plan.stages[0].layer_end = 3;
    instance.plan.stages[1].layer_begin = 3;
    instance.plan.stages[1].layer_end = 6;
    instance.state = INSTANCE_LOADING;
    assert_string_equal(step(watch, &views), "");
    instance.state = INSTANCE_READY;
    assert_string_equal(step(watch, &views),
                        "tiny is ready: bridge layers 0-2, attic layers 3-5\n");
    assert_string_equal(step(watch, &views), "");
    instance.ref.epoch = 1; /* planned again */
    assert_non_null(strstr(step(watch, &views), "tiny is ready"));
    views.n_instances = 0;
    assert_string_equal(step(watch, &views), "tiny was closed\n");
    assert_string_equal(step(watch, &views), "");
    watch_free(&watch);
}

static void test_watch_is_bounded(void **state)
{
    struct member_view *members = calloc(WATCH_MAX_MEMBERS + 10, sizeof *members);
    struct watch_views views = {.members = members, .n_members = WATCH_MAX_MEMBERS + 10};
    struct watch *watch;

    (void)state;
    assert_non_null(members);
    for (size_t i = 0; i < views.n_members; i++) {
        members[i].node_id[0] = (uint8_t)i;
        members[i].state = MEMBER_ALIVE;
        strcpy(members[i].card.name, "n");
    }
    assert_int_equal(watch_new(&watch), STATUS_OK);
    (void)step(watch, &views);
    (void)step(watch, &views);
    watch_free(&watch);
    free(members);
}

static int setup(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_table_is_sound),
        cmocka_unit_test(test_keys_mean_one_thing),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_key_files),
        cmocka_unit_test(test_files_are_bounded),
        cmocka_unit_test(test_token_ids),
        cmocka_unit_test(test_watch_members),
        cmocka_unit_test(test_watch_notices_and_instances),
        cmocka_unit_test(test_watch_is_bounded),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
