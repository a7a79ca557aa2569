/* Names: unique by id, only characters that survive libmdnsd, and back again. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "discovery/names.h"

static struct names made(const char *name, uint8_t id)
{
    struct discovery_card card = {0};
    struct names names;
    snprintf(card.name, sizeof card.name, "%s", name);
    memset(card.node_id, id, sizeof card.node_id);
    names_make(&card, &names);
    return names;
}

static void name_gets_the_id(void **state)
{
    (void)state;
    struct names n = made("box1", 0xab);
    assert_string_equal(n.label, "box1-abababab");
    assert_string_equal(n.instance, "box1-abababab._skein._tcp.local.");
    assert_string_equal(n.host, "box1-abababab.local.");
}

static void id_is_not_added_twice(void **state)
{
    (void)state;
    assert_string_equal(made("box1-abababab", 0xab).label, "box1-abababab");
    assert_string_equal(made("box1-abababab", 0xac).label, "box1-abababab-acacacac");
}

static void hosts_become_host_names(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"Box1.lan.example", "box1-01010101"},
        {"my box_2", "my-box-2-01010101"},
        {"", "node-01010101"},
        {"...", "node-01010101"},
        {"-a-", "a-01010101"},
        {"k\xc3\xbc"
         "che",
         "k-che-01010101"},
        {"\xe7\x8e\x8b", "node-01010101"},
    };
    for (size_t i = 0; i < COUNT_OF(pairs); i++)
        assert_string_equal(made(pairs[i][0], 1).label, pairs[i][1]);
}

static void longest_host_keeps_its_id(void **state)
{
    (void)state;
    char name[64];
    memset(name, 'x', sizeof name - 1);
    name[63] = '\0';
    struct names n = made(name, 1);
    assert_int_equal(strlen(n.label), 63);
    assert_string_equal(n.label + 54, "-01010101");
    char label[NAMES_LABEL_MAX];
    assert_true(names_label_of(n.instance, label));
    assert_string_equal(label, n.label);
}

static void foreign_names_have_no_label(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      ".",
                                      NAMES_SERVICE,
                                      ("." NAMES_SERVICE),
                                      "box1",
                                      "box1._skein._tcp.local",
                                      "box1._http._tcp.local.",
                                      "a.b._skein._tcp.local.",
                                      "a b._skein._tcp.local.",
                                      "A._skein._tcp.local.",
                                      "a\xff._skein._tcp.local."};
    char label[NAMES_LABEL_MAX];
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(names_label_of(bad[i], label));
    char huge[300];
    memset(huge, 'a', sizeof huge);
    memcpy(huge + 64, ("." NAMES_SERVICE), sizeof("." NAMES_SERVICE));
    assert_false(names_label_of(huge, label));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(name_gets_the_id),
        cmocka_unit_test(id_is_not_added_twice),
        cmocka_unit_test(hosts_become_host_names),
        cmocka_unit_test(longest_host_keeps_its_id),
        cmocka_unit_test(foreign_names_have_no_label),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
