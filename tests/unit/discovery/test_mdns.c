/* Packets between two ends of libmdnsd without a network: what one sends, the other reads. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>

#include "discovery/mdns.h"
#include "discovery/txt.h"

enum { NOW_MS = 5000 };

/* The wall clock of this program, which libmdnsd reads itself; it stands still unless a test turns
 * it. The program's own function comes before the library's. */
static struct timeval wall = {.tv_sec = 1760000000};

static void wall_turn_us(unsigned us)
{
    wall.tv_usec += us;
    wall.tv_sec += wall.tv_usec / 1000000;
    wall.tv_usec %= 1000000;
}

__attribute__((visibility("default"))) int gettimeofday(struct timeval *restrict out,
                                                        void *restrict zone)
{
    (void)zone;
    *out = wall;
    return 0;
}

static struct discovery_card card_of(uint8_t id)
{
    struct discovery_card card = {
        .protocol_version = 1, .port = 7333, .engine = "native", .name = "box"};
    memset(card.node_id, id, sizeof card.node_id);
    return card;
}

static const struct mdns_address addresses[] = {
    {.family = AF_INET, .bytes = {10, 0, 0, 1}},
    {.family = AF_INET, .bytes = {10, 0, 0, 2}},
    {.family = AF_INET6, .bytes = {0xfe, 0x80, [15] = 1}},
};

static struct mdns *node(uint8_t id)
{
    struct mdns *mdns = NULL;
    struct discovery_card card = card_of(id);
    assert_int_equal(mdns_new(&mdns), STATUS_OK);
    assert_int_equal(mdns_publish(mdns, &card, addresses, COUNT_OF(addresses), NOW_MS), STATUS_OK);
    return mdns;
}

/* Drops what is due now. */
static size_t drain(struct mdns *mdns)
{
    uint8_t out[MDNS_SEND_MAX_BYTES];
    size_t n = 0;
    while (mdns_out(mdns, NOW_MS, out) > 0)
        n++;
    return n;
}

static size_t count(const struct record *records, size_t n, enum record_kind kind)
{
    size_t found = 0;
    for (size_t i = 0; i < n; i++)
        found += records[i].kind == kind;
    return found;
}

static void announcement_carries_everything(void **state)
{
    (void)state;
    struct mdns *a = node(1), *b = node(2);
    uint8_t packet[MDNS_SEND_MAX_BYTES];
    struct record r[MDNS_MAX_RECORDS];
    size_t size = mdns_out(a, NOW_MS, packet);
    assert_true(size > 0);
    assert_int_equal(mdns_out(a, NOW_MS, packet + size), 0);
    size_t n = mdns_in(b, packet, size, NOW_MS, r);
    assert_int_equal(n, 6);
    assert_int_equal(count(r, n, RECORD_PTR), 1);
    assert_int_equal(count(r, n, RECORD_SRV), 1);
    assert_int_equal(count(r, n, RECORD_TXT), 1);
    assert_int_equal(count(r, n, RECORD_ADDRESS), 3);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(r[i].ttl_s, MDNS_TTL_S);
        assert_int_equal(r[i].flush, r[i].kind != RECORD_PTR);
        assert_string_equal(r[i].name,
                            r[i].kind == RECORD_ADDRESS ? "box-01010101.local." : "box-01010101");
        struct discovery_card card = {0};
        if (r[i].kind == RECORD_TXT)
            assert_int_equal(txt_decode(r[i].text, r[i].text_bytes, &card), STATUS_OK);
        if (r[i].kind == RECORD_TXT)
            assert_int_equal(card.node_id[31], 1);
        if (r[i].kind == RECORD_SRV)
            assert_int_equal(r[i].port, 7333);
        if (r[i].kind == RECORD_SRV)
            assert_string_equal(r[i].host, "box-01010101.local.");
    }
    mdns_free(&a);
    mdns_free(&b);
}

/* Gives `to` the packet, and returns how many records its answer has; the answer may wait a moment.
 */
static size_t answered(struct mdns *to, const uint8_t *packet, size_t size)
{
    struct record r[MDNS_MAX_RECORDS];
    uint8_t out[MDNS_SEND_MAX_BYTES];
    struct mdns *reader = node(99);
    assert_int_equal(mdns_in(to, packet, size, NOW_MS, r), 0);
    size_t n = 0;
    for (unsigned i = 0; i < 1000 && n == 0; i++) {
        wall_turn_us(200);
        size_t n_out = mdns_out(to, NOW_MS, out);
        n = n_out ? mdns_in(reader, out, n_out, NOW_MS, r) : 0;
    }
    mdns_free(&reader);
    return n;
}

static void browsing_is_answered_with_everything(void **state)
{
    (void)state;
    struct mdns *a = node(1), *b = node(2);
    drain(a);
    uint8_t question[MDNS_SEND_MAX_BYTES];
    size_t size = mdns_browse(b, NULL, 0, question);
    assert_int_equal(answered(a, question, size), 6);
    /* whoever knows us gets no answer, unless that knowledge is old */
    struct peers_known known = {.label = "box-01010101", .ttl_s = 100};
    size = mdns_browse(b, &known, 1, question);
    assert_int_equal(answered(a, question, size), 0);
    known.ttl_s = 30;
    size = mdns_browse(b, &known, 1, question);
    assert_int_equal(answered(a, question, size), 6);
    mdns_free(&a);
    mdns_free(&b);
}

static void own_question_is_not_answered(void **state)
{
    (void)state;
    struct mdns *a = node(1);
    drain(a);
    uint8_t question[MDNS_SEND_MAX_BYTES];
    size_t size = mdns_browse(a, NULL, 0, question);
    assert_int_equal(answered(a, question, size), 0);
    mdns_free(&a);
}

static void single_instances_are_answered(void **state)
{
    (void)state;
    struct mdns *a = node(1), *b = node(2);
    drain(a);
    uint8_t question[MDNS_SEND_MAX_BYTES];
    struct peers_question q[2] = {{.label = "other-02020202"},
                                  {.label = "box-01010101", .host = "box-01010101.local."}};
    size_t n = 2;
    size_t size = mdns_ask(b, q, &n, question);
    assert_int_equal(n, 2);
    assert_true(answered(a, question, size) >= 5);
    n = 1;
    size = mdns_ask(b, q, &n, question);
    assert_int_equal(answered(a, question, size), 0);
    mdns_free(&a);
    mdns_free(&b);
}

/* A question as other programs write it: upper case, unicast wanted, any type. */
static void odd_questions_are_understood(void **state)
{
    (void)state;
    struct mdns *a = node(1);
    drain(a);
    static const uint8_t any[] = "\0\0\0\0\0\1\0\0\0\0\0\0\14BOX-01010101\6_SKEIN\4_tcp\5LOCAL\0"
                                 "\0\xff\x80\1";
    assert_true(answered(a, any, sizeof any - 1) >= 2);
    static const uint8_t unicast[] = "\0\0\0\0\0\1\0\0\0\0\0\0\6_skein\4_tcp\5local\0\0\14\x80\1";
    assert_int_equal(answered(a, unicast, sizeof unicast - 1), 6);
    static const uint8_t chaos[] = "\0\0\0\0\0\1\0\0\0\0\0\0\6_skein\4_tcp\5local\0\0\14\0\3";
    assert_int_equal(answered(a, chaos, sizeof chaos - 1), 0);
    mdns_free(&a);
}

/* "Which kinds of service are there?" gets one PTR, and other answers come as before. */
static void service_types_are_answered(void **state)
{
    (void)state;
    struct mdns *a = node(1);
    drain(a);
    static const uint8_t types[] =
        "\0\0\0\0\0\1\0\0\0\0\0\0\11_services\7_dns-sd\4_udp\5local\0\0\14\0\1";
    struct record r[MDNS_MAX_RECORDS];
    uint8_t out[MDNS_SEND_MAX_BYTES];
    assert_int_equal(mdns_in(a, types, sizeof types - 1, NOW_MS, r), 0);
    size_t n = mdns_out(a, NOW_MS, out);
    assert_true(n > 12 && memmem(out, n, "\6_skein\4_tcp", 12));
    assert_int_equal(out[7], 1);
    uint8_t question[MDNS_SEND_MAX_BYTES];
    struct mdns *b = node(2);
    size_t size = mdns_browse(b, NULL, 0, question);
    assert_int_equal(answered(a, question, size), 6);
    mdns_free(&a);
    mdns_free(&b);
}

static void questions_are_answered_at_a_bounded_rate(void **state)
{
    (void)state;
    struct mdns *a = node(1), *b = node(2);
    for (unsigned i = 0; i < 10; i++) { /* all announcements, so that only answers come */
        drain(a);
        wall_turn_us(5000000);
    }
    uint8_t question[MDNS_SEND_MAX_BYTES];
    size_t size = mdns_browse(b, NULL, 0, question);
    size_t n = 0;
    for (unsigned i = 0; i < 100; i++)
        n += answered(a, question, size) > 0;
    assert_int_equal(n, 20); /* none of our time passes, so that is the burst alone */
    mdns_free(&a);
    mdns_free(&b);
}

static void goodbye_ends_every_record(void **state)
{
    (void)state;
    struct mdns *a = node(1), *b = node(2);
    uint8_t packet[MDNS_SEND_MAX_BYTES];
    struct record r[MDNS_MAX_RECORDS];
    size_t size = mdns_goodbye(a, packet);
    size_t n = mdns_in(b, packet, size, NOW_MS, r);
    assert_int_equal(n, 6);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(r[i].ttl_s, 0);
    assert_int_equal(mdns_goodbye(a, packet), 0);
    assert_int_equal(mdns_out(a, NOW_MS, packet), 0);
    size = mdns_browse(b, NULL, 0, packet);
    assert_int_equal(answered(a, packet, size), 0);
    mdns_free(&a);
    mdns_free(&b);
}

static void most_addresses_fit_one_packet(void **state)
{
    (void)state;
    struct mdns *a = NULL, *b = node(2);
    struct mdns_address many[DISCOVERY_MAX_ADDRESSES + 5];
    for (size_t i = 0; i < COUNT_OF(many); i++) {
        many[i] = (struct mdns_address){.family = AF_INET6};
        memset(many[i].bytes, (int)i + 1, 16);
    }
    struct discovery_card card = card_of(1);
    memset(card.name, 'x', sizeof card.name - 1);
    card.memory_bytes = UINT64_MAX;
    assert_int_equal(mdns_new(&a), STATUS_OK);
    assert_int_equal(mdns_publish(a, &card, many, COUNT_OF(many), NOW_MS), STATUS_OK);
    uint8_t packet[MDNS_SEND_MAX_BYTES];
    struct record r[MDNS_MAX_RECORDS];
    size_t size = mdns_out(a, NOW_MS, packet);
    assert_int_equal(mdns_in(b, packet, size, NOW_MS, r), 3 + DISCOVERY_MAX_ADDRESSES);
    size = mdns_goodbye(a, packet);
    assert_int_equal(mdns_in(b, packet, size, NOW_MS, r), 3 + DISCOVERY_MAX_ADDRESSES);
    mdns_free(&a);
    mdns_free(&b);
}

static void many_questions_are_split(void **state)
{
    (void)state;
    struct mdns *a = node(1);
    static struct peers_question q[DISCOVERY_MAX_PEERS];
    for (size_t i = 0; i < COUNT_OF(q); i++) {
        char label[NAMES_LABEL_MAX];
        snprintf(label, sizeof label, "a-label-of-nearly-all-the-length-that-there-is-%08zx", i);
        memcpy(q[i].label, label, sizeof q[i].label);
        snprintf(q[i].host, sizeof q[i].host, "%s.local.", label);
    }
    uint8_t packet[MDNS_SEND_MAX_BYTES];
    size_t packets = 0;
    for (size_t done = 0; done < COUNT_OF(q); packets++) {
        size_t n = COUNT_OF(q) - done;
        assert_true(mdns_ask(a, q + done, &n, packet) > 0);
        assert_true(n > 0);
        done += n;
    }
    assert_in_range(packets, 2, 20);
    static struct peers_known known[DISCOVERY_MAX_PEERS];
    for (size_t i = 0; i < COUNT_OF(known); i++)
        memcpy(known[i].label, q[i].label, sizeof known[i].label);
    assert_true(mdns_browse(a, known, COUNT_OF(known), packet) > 0);
    mdns_free(&a);
}

static void garbage_gives_nothing(void **state)
{
    (void)state;
    struct mdns *a = node(1), *b = node(2);
    uint8_t packet[MDNS_SEND_MAX_BYTES];
    struct record r[MDNS_MAX_RECORDS];
    size_t size = mdns_out(a, NOW_MS, packet);
    uint32_t seed = 1;
    for (unsigned i = 0; i < 20000; i++) {
        uint8_t bad[MDNS_SEND_MAX_BYTES];
        memcpy(bad, packet, size);
        for (unsigned k = 0; k < 1 + i % 4; k++) {
            seed = seed * 1664525 + 1013904223;
            bad[(seed >> 8) % size] = (uint8_t)(seed >> 24);
        }
        size_t n = mdns_in(b, bad, size - i % 7, NOW_MS, r);
        assert_true(n <= MDNS_MAX_RECORDS);
        for (size_t k = 0; k < n; k++) {
            char label[NAMES_LABEL_MAX + 32];
            if (r[k].kind != RECORD_ADDRESS) {
                snprintf(label, sizeof label, "%s.%s", r[k].name, NAMES_SERVICE);
                assert_true(strlen(r[k].name) < NAMES_LABEL_MAX);
                assert_true(names_label_of(label, label));
            }
        }
    }
    assert_int_equal(mdns_in(b, packet, 0, NOW_MS, r), 0);
    mdns_free(&a);
    mdns_free(&b);
}

static void jump_of_the_clock_announces_again(void **state)
{
    (void)state;
    struct mdns *a = node(1);
    uint8_t out[MDNS_SEND_MAX_BYTES];
    assert_int_equal(drain(a), 1);
    /* as if the loop's clock had stood still for an hour: the wall clock went ahead of it */
    assert_true(mdns_out(a, NOW_MS + 3600 * 1000, out) > 0);
    assert_true(mdns_next_ms(a, NOW_MS) <= NOW_MS + 3000);
    mdns_free(&a);
}

static void no_memory(void **state)
{
    (void)state;
    struct mdns *mdns = NULL;
    mem_fail_after(1);
    assert_int_equal(mdns_new(&mdns), STATUS_NO_MEMORY);
    mem_fail_after(0);
    mdns_free(&mdns);
    assert_null(mdns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(announcement_carries_everything),
        cmocka_unit_test(browsing_is_answered_with_everything),
        cmocka_unit_test(own_question_is_not_answered),
        cmocka_unit_test(single_instances_are_answered),
        cmocka_unit_test(odd_questions_are_understood),
        cmocka_unit_test(service_types_are_answered),
        cmocka_unit_test(questions_are_answered_at_a_bounded_rate),
        cmocka_unit_test(goodbye_ends_every_record),
        cmocka_unit_test(most_addresses_fit_one_packet),
        cmocka_unit_test(many_questions_are_split),
        cmocka_unit_test(garbage_gives_nothing),
        cmocka_unit_test(jump_of_the_clock_announces_again),
        cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
