/* --peer: every form that is promised, and a sentence with the text for every other. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "discovery/discovery.h"

static void every_form(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host;
        uint16_t port;
    } good[] = {
        {"box1", "box1", 7333},
        {"box1:80", "box1", 80},
        {"box-1.example.org:65535", "box-1.example.org", 65535},
        {"my_box.local", "my_box.local", 7333},
        {"10.0.0.7", "10.0.0.7", 7333},
        {"10.0.0.7:1", "10.0.0.7", 1},
        {"[::1]", "::1", 7333},
        {"[fe80::1%eth0]:9", "fe80::1%eth0", 9},
        {"[2001:db8::7]:07", "2001:db8::7", 7},
        {"2001:db8::7", "2001:db8::7", 7333},
        {"::1", "::1", 7333},
        {"fe80::1%wlan0", "fe80::1%wlan0", 7333},
    };
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        struct discovery_seed seed;
        struct fault fault = {0};
        assert_int_equal(discovery_seed_parse(good[i].text, 7333, &seed, &fault), STATUS_OK);
        assert_string_equal(seed.host, good[i].host);
        assert_int_equal(seed.port, good[i].port);
    }
}

static void refusals_name_the_text(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      ":",
                                      ":80",
                                      "box:",
                                      "box:0",
                                      "box:65536",
                                      "box:99999999999",
                                      "box:-1",
                                      "box:8a",
                                      "box: 8",
                                      "box 1",
                                      "b\303\274ro",
                                      "http://box",
                                      "box/",
                                      "a..b",
                                      ".a",
                                      "10.0.0",
                                      "10.0.0.256",
                                      "1234",
                                      "[::1",
                                      "[::1]80",
                                      "[::1]:",
                                      "[::1]:70000",
                                      "[box]",
                                      "[]",
                                      "[10.0.0.1]",
                                      "[fe80::1%]",
                                      "[fe80::1%an-interface-name-too-long]",
                                      "1:2:3",
                                      "::1::2",
                                      "box:80:90"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct discovery_seed seed = {.port = 5, .host = "kept"};
        struct fault fault = {0};
        assert_int_equal(discovery_seed_parse(bad[i], 7333, &seed, &fault), STATUS_INVALID);
        assert_non_null(strstr(fault.text, bad[i]));
        assert_string_equal(seed.host, "kept");
    }
}

static void lengths(void **state)
{
    (void)state;
    struct discovery_seed seed;
    char text[700];
    /* 253 characters in labels of 63, 63, 63 and 61 */
    memset(text, 'a', sizeof text);
    text[63] = text[127] = text[191] = '.';
    text[253] = '\0';
    assert_int_equal(discovery_seed_parse(text, 1, &seed, NULL), STATUS_OK);
    text[253] = 'a';
    text[254] = '\0';
    assert_int_equal(discovery_seed_parse(text, 1, &seed, NULL), STATUS_INVALID);
    memset(text, 'a', sizeof text);
    text[64] = '\0';
    assert_int_equal(discovery_seed_parse(text, 1, &seed, NULL), STATUS_INVALID);
    static const char *const ends[] = {"", ":80", "]:80", "::"};
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        memset(text, i == 2 ? '[' : 'a', 600);
        memcpy(text + 600, ends[i], strlen(ends[i]) + 1);
        struct fault fault;
        assert_int_equal(discovery_seed_parse(text, 1, &seed, &fault), STATUS_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form),
        cmocka_unit_test(refusals_name_the_text),
        cmocka_unit_test(lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
