/* TXT records: there and back, and what a stranger may send. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "discovery/txt.h"

#define ID "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

struct text {
    uint8_t bytes[2048];
    size_t n;
};

static void add(struct text *t, const char *string)
{
    size_t n = strlen(string);
    t->bytes[t->n++] = (uint8_t)n;
    memcpy(t->bytes + t->n, string, n);
    t->n += n;
}

static struct text text_of(const char *const *strings, size_t n)
{
    struct text t = {.n = 0};
    for (size_t i = 0; i < n; i++)
        add(&t, strings[i]);
    return t;
}

static enum status decode(const struct text *t, struct discovery_card *card)
{
    *card = (struct discovery_card){.port = 7, .name = "kept"};
    return txt_decode(t->bytes, t->n, card);
}

static void there_and_back(void **state)
{
    (void)state;
    struct discovery_card in = {.protocol_version = UINT32_MAX,
                                .engine = "abcdefghijklmno",
                                .memory_bytes = UINT64_MAX,
                                .run = UINT32_MAX};
    for (size_t i = 0; i < sizeof in.node_id; i++)
        in.node_id[i] = (uint8_t)(i * 37);
    memset(in.fingerprint, 0xf0, sizeof in.fingerprint);
    struct text t;
    t.n = txt_encode(&in, t.bytes);
    assert_true(t.n <= TXT_WRITE_MAX_BYTES);
    struct discovery_card out;
    assert_int_equal(decode(&t, &out), STATUS_OK);
    assert_memory_equal(out.node_id, in.node_id, sizeof in.node_id);
    assert_memory_equal(out.fingerprint, in.fingerprint, sizeof in.fingerprint);
    assert_int_equal(out.protocol_version, UINT32_MAX);
    assert_int_equal(out.run, UINT32_MAX);
    assert_string_equal(out.engine, in.engine);
    assert_true(out.memory_bytes == UINT64_MAX);
    assert_string_equal(out.name, "kept");
    assert_int_equal(out.port, 7);
}

static void keys_by_the_rfc(void **state)
{
    (void)state;
    static const char *const strings[] = {
        "unknown=1", "flag", "",      "=x",    ("ID=" ID),        "Cl=0011223344556677",
        "v=3",       "v=9",  "mem=1", "mem=2", "engine=openblas", "id=junk"};
    struct text t = text_of(strings, COUNT_OF(strings));
    struct discovery_card card;
    assert_int_equal(decode(&t, &card), STATUS_OK);
    assert_int_equal(card.protocol_version, 3); /* the first of two counts */
    assert_int_equal(card.memory_bytes, 1);
    assert_string_equal(card.engine, "openblas");
}

static void identity_is_needed(void **state)
{
    (void)state;
    static const char *const all[] = {("id=" ID), "cl=0011223344556677", "v=1"};
    for (size_t left_out = 0; left_out < COUNT_OF(all); left_out++) {
        struct text t = {.n = 0};
        for (size_t i = 0; i < COUNT_OF(all); i++) {
            if (i != left_out)
                add(&t, all[i]);
        }
        struct discovery_card card;
        assert_int_equal(decode(&t, &card), STATUS_FORMAT);
    }
}

static void malformed_identity_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "id=",
        "id=00",
        ("id=" ID "00"),
        "id=x0112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        "cl=00112233445566",
        "cl=001122334455667788",
        "cl=zz11223344556677",
        "v=",
        "v=-1",
        "v=1 ",
        "v=0x1",
        "v=4294967296",
        "v=99999999999999999999999"};
    static const char *const good[] = {("id=" ID), "cl=0011223344556677", "v=1"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct text t = text_of(&bad[i], 1);
        for (size_t k = 0; k < COUNT_OF(good); k++)
            add(&t, good[k]);
        struct discovery_card card;
        assert_int_equal(decode(&t, &card), STATUS_FORMAT);
        assert_int_equal(card.protocol_version, 0); /* untouched */
    }
}

static void shown_values_may_be_odd(void **state)
{
    (void)state;
    static const char *const odd[][2] = {
        {"engine=Native", "mem=1"}, {"engine=0123456789abcdef", "mem=18446744073709551616"},
        {"engine=a b", "mem=-3"},   {"engine=", "mem="},
        {"engine", "mem"},          {"engine=\x1b[2J", "mem=12k"},
    };
    for (size_t i = 0; i < COUNT_OF(odd); i++) {
        const char *strings[] = {("id=" ID), "cl=0011223344556677", "v=1", odd[i][0], odd[i][1]};
        struct text t = text_of(strings, COUNT_OF(strings));
        struct discovery_card card;
        assert_int_equal(decode(&t, &card), STATUS_OK);
        assert_string_equal(card.engine, "");
        assert_int_equal(card.memory_bytes, i == 0 ? 1 : 0);
    }
}

static void nul_in_a_value_is_not_its_end(void **state)
{
    (void)state;
    static const char *const strings[] = {("id=" ID), "cl=0011223344556677"};
    struct text t = text_of(strings, COUNT_OF(strings));
    memcpy(t.bytes + t.n, "\5v=1\0x", 6);
    t.n += 6;
    struct discovery_card card;
    assert_int_equal(decode(&t, &card), STATUS_FORMAT);
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    struct discovery_card card = {.protocol_version = 1, .engine = "native", .memory_bytes = 5};
    struct text t;
    t.n = txt_encode(&card, t.bytes);
    size_t identity = 1 + 67 + 1 + 19 + 1 + 3;
    for (size_t n = 0; n < t.n; n++) {
        struct discovery_card out = {0};
        uint8_t *exact = mem_copy(t.bytes, n ? n : 1); /* so that ASan sees a read past the end */
        enum status status = txt_decode(exact, n, &out);
        if (n < identity)
            assert_int_not_equal(status, STATUS_OK);
        mem_free(exact);
    }
}

static void limits_hold(void **state)
{
    (void)state;
    static const char *const good[] = {("id=" ID), "cl=0011223344556677", "v=1"};
    struct text t = text_of(good, COUNT_OF(good));
    struct discovery_card card;
    while (t.n < 200)
        add(&t, "");
    assert_int_equal(decode(&t, &card), STATUS_LIMIT);
    t = text_of(good, COUNT_OF(good));
    char big[256];
    memset(big, 'x', 255);
    big[255] = '\0';
    while (t.n <= TXT_READ_MAX_BYTES)
        add(&t, big);
    assert_int_equal(decode(&t, &card), STATUS_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(keys_by_the_rfc),
        cmocka_unit_test(identity_is_needed),
        cmocka_unit_test(malformed_identity_is_refused),
        cmocka_unit_test(shown_values_may_be_odd),
        cmocka_unit_test(nul_in_a_value_is_not_its_end),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(limits_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
