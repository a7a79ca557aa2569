/* The guard: sound packets pass, each kind of unsound one does not. Bytes are written by hand, so
 * that no builder of ours can be wrong in the same way. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "discovery/packet.h"

struct packet {
    uint8_t bytes[12000];
    size_t n;
};

static void put(struct packet *p, const void *bytes, size_t n)
{
    memcpy(p->bytes + p->n, bytes, n);
    p->n += n;
}

#define PUT(p, literal) put(p, literal, sizeof(literal) - 1)

static struct packet packet_of(uint8_t questions, uint8_t answers)
{
    struct packet p = {.n = 12};
    p.bytes[5] = questions;
    p.bytes[7] = answers;
    return p;
}

/* Checks a copy of exactly the packet's size, so that a sanitizer sees a read past its end. */
static enum status check(const struct packet *p)
{
    uint8_t *exact = mem_copy(p->bytes, p->n ? p->n : 1);
    enum status status = packet_check(exact, p->n);
    mem_free(exact);
    return status;
}

static struct packet sound_answer(void)
{
    struct packet p = packet_of(0, 5);
    /* at 12 */
    PUT(&p, "\6_skein\4_tcp\5local\0\0\14\0\1\0\0\0\x78\0\4\1a\xc0\x0c");
    /* a._skein… is at 41 */
    PUT(&p, "\xc0\x29\0\x21\0\1\0\0\0\x78\0\12\0\0\0\0\x1b\x58\1a\xc0\x18");
    PUT(&p, "\xc0\x29\0\x10\0\1\0\0\0\x78\0\4\3v=1");
    PUT(&p, "\1a\xc0\x18\0\1\0\1\0\0\0\x78\0\4\x0a\0\0\1");
    PUT(&p, "\1a\xc0\x18\0\x1c\0\1\0\0\0\x78\0\x10"
            "0123456789abcdef");
    return p;
}

static void sound_packets_pass(void **state)
{
    (void)state;
    struct packet p = sound_answer();
    assert_int_equal(check(&p), STATUS_OK);
    PUT(&p, "behind the end");
    assert_int_equal(check(&p), STATUS_OK);
    struct packet q = packet_of(2, 0);
    PUT(&q, "\6_skein\4_tcp\5local\0\0\14\0\1");
    PUT(&q, "\xc0\x0c\0\xff\x80\1");
    assert_int_equal(check(&q), STATUS_OK);
    struct packet empty = packet_of(0, 0);
    assert_int_equal(check(&empty), STATUS_OK);
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    struct packet p = sound_answer();
    for (size_t n = 0, full = p.n; n < full; n++) {
        p.n = n;
        assert_int_equal(check(&p), STATUS_TRUNCATED);
    }
}

static void flush_bits_are_set_on_unique_answers_only(void **state)
{
    (void)state;
    struct packet p = sound_answer();
    struct packet before = p;
    packet_mark_unique(p.bytes, p.n);
    static const size_t classes[] = {45 + 4, 67 + 4, 83 + 6, 101 + 6};
    size_t changed = 0;
    for (size_t i = 0; i < p.n; i++)
        changed += p.bytes[i] != before.bytes[i];
    assert_int_equal(changed, COUNT_OF(classes));
    assert_int_equal(p.bytes[12 + 19 + 2], 0); /* the PTR's class stays shared */
    assert_int_equal(check(&p), STATUS_OK);
}

static void pointers_must_go_back(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t n;
    } bad[] = {
        {"\xc0\x0c", 2},                     /* to itself */
        {"\xc0\x0d", 2},                     /* into itself */
        {"\1a\xc0\x0c", 4},                  /* round and round */
        {"\1a\xc0\x0e", 4},                  /* to itself, behind a label */
        {"\xc0\x20", 2},                     /* forward */
        {"\xff\xff", 2},                     /* far forward */
        {"\xc0\x00", 2},                     /* into the header */
        {"\xc0\x0b", 2},                     /* into the header's last byte */
        {"\x40xx\0", 4},                     /* label types that do not exist */
        {"\x80xx\0", 4},    {"\3a\0b\0", 5}, /* a NUL in a label */
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct packet p = packet_of(1, 0);
        put(&p, bad[i].name, bad[i].n);
        PUT(&p, "\0\14\0\1padding that a wild pointer could land on\0\0\0\0");
        assert_int_not_equal(check(&p), STATUS_OK);
    }
}

static void pointer_to_an_empty_name_is_refused(void **state)
{
    (void)state;
    struct packet p = packet_of(2, 0);
    PUT(&p, "\0\0\14\0\1");
    PUT(&p, "\xc0\x0c\0\14\0\1");
    assert_int_equal(check(&p), STATUS_FORMAT);
}

static void pointer_past_the_parsers_reach_is_refused(void **state)
{
    (void)state;
    struct packet p = packet_of(0, 2);
    PUT(&p, "\1a\0\0\x10\0\1\0\0\0\1\x20\0");
    memset(p.bytes + p.n, 1, 0x2000);
    size_t target = p.n + 0x1f00;
    memcpy(p.bytes + target, "\1b", 3);
    p.n += 0x2000;
    uint8_t name[] = {(uint8_t)(0xc0 | target >> 8), (uint8_t)target};
    put(&p, name, 2);
    PUT(&p, "\0\x10\0\1\0\0\0\1\0\0");
    assert_int_equal(check(&p), STATUS_LIMIT);
}

static void names_have_a_longest(void **state)
{
    (void)state;
    for (unsigned labels = 3; labels <= 5; labels++) {
        struct packet p = packet_of(1, 0);
        for (unsigned i = 0; i < labels; i++) {
            p.bytes[p.n] = 63;
            memset(p.bytes + p.n + 1, 'a', 63);
            p.n += 64;
        }
        PUT(&p, "\0\0\14\0\1");
        assert_int_equal(check(&p), labels <= 3 ? STATUS_OK : STATUS_LIMIT);
    }
}

static void rdata_must_have_its_length(void **state)
{
    (void)state;
    static const struct {
        const char *record;
        size_t n;
    } bad[] = {
        {"\1a\0\0\1\0\1\0\0\0\1\0\3abc", 16},            /* A of 3 bytes */
        {"\1a\0\0\1\0\1\0\0\0\1\0\5abcde", 18},          /* A of 5 bytes */
        {"\1a\0\0\x1c\0\1\0\0\0\1\0\4abcd", 17},         /* AAAA of 4 */
        {"\1a\0\0\x21\0\1\0\0\0\1\0\6\0\0\0\0\0\1", 19}, /* SRV without a target */
        {"\1a\0\0\x21\0\1\0\0\0\1\0\0", 13},             /* SRV without anything */
        {"\1a\0\0\14\0\1\0\0\0\1\0\0", 13},              /* PTR without a name */
        {"\1a\0\0\14\0\1\0\0\0\1\0\4\1b\0x", 17},        /* PTR with a byte behind the name */
        {"\1a\0\0\14\0\1\0\0\0\1\0\2\1b\0", 16},         /* PTR whose name runs past its end */
        {"\1a\0\0\x10\0\1\0\0\0\1\xff\xff", 13},         /* TXT longer than the packet */
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct packet p = packet_of(0, 1);
        put(&p, bad[i].record, bad[i].n);
        assert_int_not_equal(check(&p), STATUS_OK);
    }
}

static void counts_and_sizes_are_bounded(void **state)
{
    (void)state;
    struct packet p = packet_of(0, 0);
    p.bytes[4] = 0xff;
    p.bytes[5] = 0xff;
    assert_int_equal(check(&p), STATUS_LIMIT);
    p = packet_of(0, 0);
    p.bytes[8] = 1;
    p.bytes[10] = 1; /* 256 + 256 in two sections */
    assert_int_equal(check(&p), STATUS_LIMIT);
    p = packet_of(0, 0);
    p.n = PACKET_MAX_BYTES + 1;
    assert_int_equal(check(&p), STATUS_LIMIT);
    p = packet_of(0, 0);
    p.bytes[2] = 0x28; /* opcode 5, update */
    assert_int_equal(check(&p), STATUS_FORMAT);
}

/* 256 records that each name a 255-character name through one pointer would fill the parser's block
 * though the packet is small. */
static void expansion_is_bounded(void **state)
{
    (void)state;
    struct packet p = packet_of(0, 0);
    p.bytes[6] = 1; /* 256 answers */
    for (unsigned i = 0; i < 256; i++) {
        if (i == 0) {
            for (unsigned k = 0; k < 3; k++) {
                p.bytes[p.n] = 63;
                memset(p.bytes + p.n + 1, 'a', 63);
                p.n += 64;
            }
            PUT(&p, "\0");
        } else {
            PUT(&p, "\xc0\x0c");
        }
        PUT(&p, "\0\x10\0\1\0\0\0\1\0\0");
    }
    assert_int_equal(check(&p), STATUS_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_packets_pass),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(flush_bits_are_set_on_unique_answers_only),
        cmocka_unit_test(pointers_must_go_back),
        cmocka_unit_test(pointer_to_an_empty_name_is_refused),
        cmocka_unit_test(pointer_past_the_parsers_reach_is_refused),
        cmocka_unit_test(names_have_a_longest),
        cmocka_unit_test(rdata_must_have_its_length),
        cmocka_unit_test(counts_and_sizes_are_bounded),
        cmocka_unit_test(expansion_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
