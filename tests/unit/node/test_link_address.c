/* Numeric addresses as text: what is taken, what is refused, and back again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "node/net/address.h"

static void test_what_is_taken(void **state)
{
    static const struct {
        const char *text, *shown;
    } cases[] = {
        {"192.168.1.7:8471", "192.168.1.7:8471"},
        {"192.168.1.7", "192.168.1.7:99"},
        {"0.0.0.0:65535", "0.0.0.0:65535"},
        {"[fe80::1%1]:8471", "[fe80::1%1]:8471"},
        {"fe80::1%lo", "[fe80::1%1]:99"},
        {"[2001:db8::7]", "[2001:db8::7]:99"},
        {"2001:DB8:0:0::7", "[2001:db8::7]:99"},
        {"::1", "[::1]:99"},
        {"[::]:1", "[::]:1"},
        {"[::ffff:10.0.0.1]:5", "10.0.0.1:5"},
        {"::ffff:10.0.0.1", "10.0.0.1:99"},
        {"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%1]:65535",
         "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%1]:65535"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct net_address address, again;
        char text[NET_ADDRESS_TEXT];

        assert_int_equal(net_address_parse(cases[i].text, 99, &address, NULL), STATUS_OK);
        net_address_format(&address, text);
        assert_string_equal(text, cases[i].shown);
        assert_int_equal(net_address_parse(text, 0, &again, NULL), STATUS_OK);
        assert_true(net_address_same_host(&address, &again));
        assert_int_equal(net_address_port(&address), net_address_port(&again));
    }
}

static void test_what_is_refused(void **state)
{
    static const char *const cases[] = {
        "",
        ":",
        ":80",
        "1.2.3",
        "1.2.3.4:",
        "1.2.3.4:0",
        "1.2.3.4:65536",
        "1.2.3.4:-1",
        "1.2.3.4: 80",
        "1.2.3.4:80x",
        "1.2.3.4:00000000000000000080x",
        "[1.2.3.4]:80",
        "[::1",
        "::1]",
        "[::1]80",
        "[::1]:",
        "[]:80",
        "localhost:80",
        "fe80::1%nosuchif0",
        "fe80::1%0",
        "fe80::1%",
        "1.2.3.4%lo:80",
        "1.2.3.4 ",
        "%",
        "[:::1]:8",
        "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]:1",
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct net_address address;
        struct fault fault = {0};

        assert_int_equal(net_address_parse(cases[i], 99, &address, &fault), STATUS_INVALID);
        assert_int_equal(fault.status, STATUS_INVALID);
    }
}

static void test_kinds(void **state)
{
    static const struct {
        const char *text;
        bool loopback, any;
    } cases[] = {
        {"127.0.0.1", true, false}, {"127.9.9.9", true, false}, {"::1", true, false},
        {"0.0.0.0", false, true},   {"::", false, true},        {"10.0.0.1", false, false},
        {"fe80::1", false, false},
    };
    struct net_address a, b;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        assert_int_equal(net_address_parse(cases[i].text, 1, &a, NULL), STATUS_OK);
        assert_int_equal(net_address_is_loopback(&a), cases[i].loopback);
        assert_int_equal(net_address_is_any(&a), cases[i].any);
    }
    assert_int_equal(net_address_parse("[fe80::1%1]:5", 0, &a, NULL), STATUS_OK);
    assert_int_equal(net_address_parse("[fe80::1%2]:5", 0, &b, NULL), STATUS_OK);
    assert_false(net_address_same_host(&a, &b));
    assert_int_equal(net_address_parse("10.0.0.1:5", 0, &a, NULL), STATUS_OK);
    assert_false(net_address_same_host(&a, &b));
    assert_int_equal(net_address_parse("10.0.0.1:6", 0, &b, NULL), STATUS_OK);
    assert_true(net_address_same_host(&a, &b));
}

static void test_other_families(void **state)
{
    struct sockaddr unix_socket = {.sa_family = AF_UNIX};
    struct net_address address;

    (void)state;
    assert_int_equal(net_address_from(&unix_socket, &address), STATUS_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_taken),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_other_families),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
