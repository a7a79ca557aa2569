/* The table of nodes on virtual time: what is told, when it is asked, when it ends. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "discovery/peers.h"
#include "discovery/txt.h"

enum { ETH = 2, WLAN = 3, TTL = 120, START_MS = 1000000 };

static struct peers *table(void)
{
    struct discovery_card own = {.name = "own", .protocol_version = 1};
    struct peers *peers = peers_new(&own);
    assert_non_null(peers);
    return peers;
}

/* A node's announcement: all its records in one packet. Node n has id n, n, n, … */
struct packet {
    struct discovery_card card;
    struct names names;
    uint8_t text[TXT_WRITE_MAX_BYTES];
    struct record records[4];
    size_t n;
};

static void fill(struct packet *p, uint32_t ttl)
{
    names_make(&p->card, &p->names);
    size_t n_text = txt_encode(&p->card, p->text);
    /* the address first: the order within a packet must not matter */
    p->records[0] = (struct record){.kind = RECORD_ADDRESS,
                                    .ttl_s = ttl,
                                    .flush = true,
                                    .name = p->names.host,
                                    .family = AF_INET,
                                    .address = {10, 0, 0, p->card.node_id[0]}};
    p->records[1] = (struct record){.kind = RECORD_TXT,
                                    .ttl_s = ttl,
                                    .name = p->names.label,
                                    .text = p->text,
                                    .text_bytes = n_text};
    p->records[2] = (struct record){.kind = RECORD_SRV,
                                    .ttl_s = ttl,
                                    .name = p->names.label,
                                    .host = p->names.host,
                                    .port = p->card.port};
    p->records[3] = (struct record){.kind = RECORD_PTR, .ttl_s = ttl, .name = p->names.label};
    p->n = 4;
}

static struct packet *announcement(uint8_t id)
{
    static struct packet p;
    p = (struct packet){.card = {.protocol_version = 1, .port = 7333, .engine = "native"}};
    snprintf(p.card.name, sizeof p.card.name, "box%u", id);
    memset(p.card.node_id, id, sizeof p.card.node_id);
    fill(&p, TTL);
    return &p;
}

static void hear(struct peers *peers, unsigned if_index, const struct packet *p, uint64_t now)
{
    peers_hear(peers, if_index, if_index == ETH ? "eth0" : "wlan0", p->records, p->n, now);
}

static void expect_event(struct peers *peers, enum peers_event_kind kind, uint8_t id,
                         struct peers_event *out)
{
    struct peers_event event;
    assert_true(peers_take(peers, &event));
    assert_int_equal(event.kind, kind);
    assert_int_equal(event.peer.card.node_id[0], id);
    if (out)
        *out = event;
}

static void expect_silence(struct peers *peers)
{
    struct peers_event event;
    assert_false(peers_take(peers, &event));
}

static size_t asked(struct peers *peers, unsigned if_index, uint64_t now)
{
    struct peers_question questions[DISCOVERY_MAX_PEERS];
    return peers_questions(peers, if_index, now, questions, COUNT_OF(questions));
}

static void one_packet_makes_one_event(void **state)
{
    (void)state;
    struct peers *peers = table();
    hear(peers, ETH, announcement(7), START_MS);
    struct peers_event e;
    expect_event(peers, PEERS_FOUND, 7, &e);
    expect_silence(peers);
    assert_string_equal(e.peer.card.name, "box7-07070707");
    assert_int_equal(e.peer.card.port, 7333);
    assert_string_equal(e.peer.interface, "eth0");
    assert_int_equal(e.peer.n_addresses, 1);
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&e.peer.addresses[0];
    assert_int_equal(v4->sin_family, AF_INET);
    assert_int_equal(ntohs(v4->sin_port), 7333);
    assert_int_equal(ntohl(v4->sin_addr.s_addr), 0x0a000007);
    assert_int_equal(asked(peers, ETH, START_MS), 0);
    /* the same again is nothing new */
    hear(peers, ETH, announcement(7), START_MS + 1000);
    expect_silence(peers);
    peers_free(&peers);
}

static void pieces_are_asked_for_and_joined(void **state)
{
    (void)state;
    struct peers *peers = table();
    struct packet p = *announcement(7);
    struct record all[4];
    memcpy(all, p.records, sizeof all);
    peers_hear(peers, ETH, "eth0", &all[3], 1, START_MS);
    expect_silence(peers);
    struct peers_question q[4];
    assert_int_equal(peers_questions(peers, ETH, START_MS, q, 4), 1);
    assert_string_equal(q[0].label, "box7-07070707");
    assert_string_equal(q[0].host, "");
    assert_int_equal(asked(peers, ETH, START_MS), 0); /* not again at once */
    assert_int_equal(asked(peers, WLAN, START_MS + 1000), 0);
    assert_int_equal(asked(peers, ETH, START_MS + 999), 0);
    assert_int_equal(asked(peers, ETH, START_MS + 1000), 1);
    peers_hear(peers, ETH, "eth0", &all[2], 1, START_MS + 1001);
    assert_int_equal(peers_questions(peers, ETH, START_MS + 3000, q, 4), 1);
    assert_string_equal(q[0].host, p.names.host);
    peers_hear(peers, ETH, "eth0", &all[1], 1, START_MS + 3001);
    expect_silence(peers);
    peers_hear(peers, ETH, "eth0", &all[0], 1, START_MS + 3002);
    expect_event(peers, PEERS_FOUND, 7, NULL);
    peers_free(&peers);
}

static void incomplete_is_forgotten(void **state)
{
    (void)state;
    struct peers *peers = table();
    peers_hear(peers, ETH, "eth0", &announcement(7)->records[3], 1, START_MS);
    size_t questions = 0;
    uint64_t now = START_MS;
    while (peers_next_ms(peers) != UINT64_MAX) {
        uint64_t next = peers_next_ms(peers);
        assert_true(next >= now);
        now = next;
        peers_tick(peers, now);
        questions += asked(peers, ETH, now);
    }
    assert_int_equal(questions, 4);
    assert_int_equal(now, START_MS + 15000);
    expect_silence(peers);
    peers_free(&peers);
}

static void life_is_asked_for_four_times_and_ends(void **state)
{
    (void)state;
    struct peers *peers = table();
    hear(peers, ETH, announcement(7), START_MS);
    expect_event(peers, PEERS_FOUND, 7, NULL);
    size_t questions = 0;
    uint64_t first = 0;
    uint64_t now = START_MS;
    while (peers_next_ms(peers) != UINT64_MAX) {
        now = peers_next_ms(peers);
        peers_tick(peers, now);
        size_t n = asked(peers, ETH, now);
        first = n && !first ? now : first;
        questions += n;
        if (questions < 4)
            expect_silence(peers);
    }
    assert_int_equal(questions, 4);
    assert_int_equal(first, START_MS + TTL * 800);
    assert_int_equal(now, START_MS + TTL * 1000);
    expect_event(peers, PEERS_GONE, 7, NULL);
    expect_silence(peers);
    peers_free(&peers);
}

static void answers_keep_a_node_for_ever(void **state)
{
    (void)state;
    struct peers *peers = table();
    hear(peers, ETH, announcement(7), START_MS);
    expect_event(peers, PEERS_FOUND, 7, NULL);
    uint64_t now = START_MS;
    for (unsigned i = 0; i < 1000; i++) {
        now = peers_next_ms(peers);
        peers_tick(peers, now);
        if (asked(peers, ETH, now) > 0 && i % 3 != 0) /* every third answer is lost */
            hear(peers, ETH, announcement(7), now + 5);
        expect_silence(peers);
    }
    assert_true(now > START_MS + 3600 * 1000);
    peers_free(&peers);
}

static void goodbye_is_at_once(void **state)
{
    (void)state;
    for (size_t which = 1; which < 4; which++) { /* of TXT, SRV or PTR */
        struct peers *peers = table();
        struct packet *p = announcement(7);
        hear(peers, ETH, p, START_MS);
        expect_event(peers, PEERS_FOUND, 7, NULL);
        p->records[which].ttl_s = 0;
        peers_hear(peers, ETH, "eth0", &p->records[which], 1, START_MS + 10);
        expect_event(peers, PEERS_GONE, 7, NULL);
        expect_silence(peers);
        hear(peers, ETH, announcement(7), START_MS + 20);
        expect_event(peers, PEERS_FOUND, 7, NULL);
        peers_free(&peers);
    }
}

static void goodbye_of_an_unknown_is_nothing(void **state)
{
    (void)state;
    struct peers *peers = table();
    struct packet *p = announcement(7);
    fill(p, 0);
    hear(peers, ETH, p, START_MS);
    expect_silence(peers);
    assert_true(peers_next_ms(peers) == UINT64_MAX);
    peers_free(&peers);
}

static void changes_are_told(void **state)
{
    (void)state;
    struct peers *peers = table();
    hear(peers, ETH, announcement(7), START_MS);
    expect_event(peers, PEERS_FOUND, 7, NULL);
    struct peers_event e;
    struct packet *p = announcement(7);
    p->card.memory_bytes = 99;
    fill(p, TTL);
    hear(peers, ETH, p, START_MS + 10);
    expect_event(peers, PEERS_FOUND, 7, &e);
    assert_int_equal(e.peer.card.memory_bytes, 99);
    p->card.run = 5; /* killed and started again, all else the same */
    fill(p, TTL);
    hear(peers, ETH, p, START_MS + 15);
    expect_event(peers, PEERS_FOUND, 7, NULL);
    p->card.port = 7444; /* and on another port */
    fill(p, TTL);
    hear(peers, ETH, p, START_MS + 20);
    expect_event(peers, PEERS_FOUND, 7, &e);
    assert_int_equal(e.peer.card.port, 7444);
    assert_int_equal(ntohs(((struct sockaddr_in *)&e.peer.addresses[0])->sin_port), 7444);
    expect_silence(peers);
    peers_free(&peers);
}

static void addresses_come_and_go(void **state)
{
    (void)state;
    struct peers *peers = table();
    struct packet *p = announcement(7);
    hear(peers, ETH, p, START_MS);
    struct peers_event e;
    expect_event(peers, PEERS_FOUND, 7, NULL);
    struct record v6 = p->records[0];
    v6.family = AF_INET6;
    inet_pton(AF_INET6, "fe80::7", v6.address);
    peers_hear(peers, ETH, "eth0", &v6, 1, START_MS + 10);
    expect_event(peers, PEERS_FOUND, 7, &e);
    assert_int_equal(e.peer.n_addresses, 2);
    assert_int_equal(e.peer.addresses[0].ss_family, AF_INET);
    const struct sockaddr_in6 *local = (const struct sockaddr_in6 *)&e.peer.addresses[1];
    assert_int_equal(local->sin6_scope_id, ETH);
    /* a flush within a second keeps what the same answer brought; a later one replaces it */
    struct record other = p->records[0];
    other.address[3] = 99;
    peers_hear(peers, ETH, "eth0", &other, 1, START_MS + 500);
    expect_event(peers, PEERS_FOUND, 7, &e);
    assert_int_equal(e.peer.n_addresses, 3);
    peers_hear(peers, ETH, "eth0", &other, 1, START_MS + 5000);
    expect_event(peers, PEERS_FOUND, 7, &e);
    assert_int_equal(e.peer.n_addresses, 2);
    assert_int_equal(ntohl(((struct sockaddr_in *)&e.peer.addresses[0])->sin_addr.s_addr) & 255,
                     99);
    v6.ttl_s = 0;
    peers_hear(peers, ETH, "eth0", &v6, 1, START_MS + 5001);
    expect_event(peers, PEERS_FOUND, 7, &e);
    assert_int_equal(e.peer.n_addresses, 1);
    /* on another interface, or of another host, it is not ours */
    peers_hear(peers, WLAN, "wlan0", &p->records[0], 1, START_MS + 5002);
    v6.name = "box8-08080808.local.";
    peers_hear(peers, ETH, "eth0", &v6, 1, START_MS + 5003);
    expect_silence(peers);
    peers_free(&peers);
}

static void more_addresses_than_fit(void **state)
{
    (void)state;
    struct peers *peers = table();
    struct packet *p = announcement(7);
    hear(peers, ETH, p, START_MS);
    for (uint8_t i = 0; i < 100; i++) {
        struct record r = p->records[0];
        r.flush = false;
        r.address[2] = i;
        peers_hear(peers, ETH, "eth0", &r, 1, START_MS + 1u + i);
    }
    struct peers_event e;
    expect_event(peers, PEERS_FOUND, 7, &e);
    assert_int_equal(e.peer.n_addresses, DISCOVERY_MAX_ADDRESSES);
    peers_free(&peers);
}

static void two_interfaces_are_one_node(void **state)
{
    (void)state;
    struct peers *peers = table();
    hear(peers, ETH, announcement(7), START_MS);
    hear(peers, WLAN, announcement(7), START_MS);
    struct peers_event e;
    expect_event(peers, PEERS_FOUND, 7, &e);
    assert_string_equal(e.peer.interface, "eth0");
    expect_event(peers, PEERS_FOUND, 7, &e);
    assert_string_equal(e.peer.interface, "wlan0");
    peers_drop_interface(peers, ETH);
    expect_silence(peers);
    peers_drop_interface(peers, WLAN);
    expect_event(peers, PEERS_GONE, 7, NULL);
    expect_silence(peers);
    peers_free(&peers);
}

static void own_records_are_not_peers(void **state)
{
    (void)state;
    struct peers *peers = table();
    struct packet *p = announcement(0); /* own id and, below, own name */
    snprintf(p->card.name, sizeof p->card.name, "own");
    fill(p, TTL);
    hear(peers, ETH, p, START_MS);
    expect_silence(peers);
    char label[NAMES_LABEL_MAX];
    assert_false(peers_take_twin(peers, label));
    assert_true(peers_next_ms(peers) == UINT64_MAX);
    peers_free(&peers);
}

static void twin_is_named_once_and_is_no_peer(void **state)
{
    (void)state;
    struct peers *peers = table();
    for (unsigned i = 0; i < 3; i++) {
        hear(peers, ETH, announcement(0), START_MS + i);
        expect_silence(peers);
    }
    char label[NAMES_LABEL_MAX];
    assert_true(peers_take_twin(peers, label));
    assert_string_equal(label, "box0-00000000");
    hear(peers, ETH, announcement(0), START_MS + 10);
    assert_false(peers_take_twin(peers, label));
    peers_free(&peers);
}

static void foreign_is_told_once(void **state)
{
    (void)state;
    struct peers *peers = table();
    struct packet *p = announcement(7);
    p->card.fingerprint[0] = 1;
    fill(p, TTL);
    hear(peers, ETH, p, START_MS);
    expect_event(peers, PEERS_FOREIGN, 7, NULL);
    p->card.memory_bytes = 5;
    fill(p, TTL);
    hear(peers, ETH, p, START_MS + 10);
    hear(peers, WLAN, p, START_MS + 10);
    expect_silence(peers);
    p = announcement(8);
    p->card.protocol_version = 2;
    fill(p, TTL);
    hear(peers, ETH, p, START_MS);
    expect_event(peers, PEERS_FOREIGN, 8, NULL);
    fill(p, 0);
    hear(peers, ETH, p, START_MS + 20);
    expect_silence(peers); /* was never a peer, so it is not gone either */
    peers_free(&peers);
}

static void peer_that_changes_its_cluster_is_gone(void **state)
{
    (void)state;
    struct peers *peers = table();
    struct packet *p = announcement(7);
    hear(peers, ETH, p, START_MS);
    expect_event(peers, PEERS_FOUND, 7, NULL);
    p->card.fingerprint[0] = 1;
    fill(p, TTL);
    hear(peers, ETH, p, START_MS + 10);
    expect_event(peers, PEERS_GONE, 7, NULL);
    expect_event(peers, PEERS_FOREIGN, 7, NULL);
    expect_silence(peers);
    peers_free(&peers);
}

static void doubt_ends_the_dead_and_keeps_the_living(void **state)
{
    (void)state;
    struct peers *peers = table();
    hear(peers, ETH, announcement(7), START_MS);
    hear(peers, ETH, announcement(8), START_MS);
    expect_event(peers, PEERS_FOUND, 7, NULL);
    expect_event(peers, PEERS_FOUND, 8, NULL);
    uint64_t doubt = START_MS + 10000;
    for (uint8_t id = 7; id <= 8; id++) {
        uint8_t node_id[DISCOVERY_ID_BYTES];
        memset(node_id, id, sizeof node_id);
        peers_doubt(peers, node_id, doubt);
    }
    assert_int_equal(asked(peers, ETH, doubt), 2);
    hear(peers, ETH, announcement(8), doubt + 2);
    assert_int_equal(asked(peers, ETH, doubt + 999), 0);
    assert_int_equal(asked(peers, ETH, doubt + 1000), 1);
    assert_int_equal(asked(peers, ETH, doubt + 2000), 1);
    assert_int_equal(peers_next_ms(peers), doubt + 3000);
    peers_tick(peers, doubt + 2999);
    expect_silence(peers);
    peers_tick(peers, doubt + 3000);
    expect_event(peers, PEERS_GONE, 7, NULL);
    expect_silence(peers);
    peers_free(&peers);
}

static void numbered(struct packet *p, unsigned number, bool foreign)
{
    *p = (struct packet){.card = {.protocol_version = 1, .port = 7333}};
    p->card.node_id[0] = (uint8_t)(number >> 8);
    p->card.node_id[1] = (uint8_t)number;
    p->card.node_id[2] = 0xff;
    p->card.fingerprint[0] = foreign;
    snprintf(p->card.name, sizeof p->card.name, "n%u", number);
    fill(p, TTL);
}

static void flood_of_strangers_keeps_our_own(void **state)
{
    (void)state;
    struct peers *peers = table();
    hear(peers, ETH, announcement(7), START_MS);
    expect_event(peers, PEERS_FOUND, 7, NULL);
    size_t told = 0;
    for (unsigned i = 0; i < 5000; i++) {
        struct packet p;
        struct peers_event e;
        numbered(&p, i, true);
        if (i % 2)
            p.n = 2; /* an address and a TXT only */
        hear(peers, ETH, &p, START_MS + i);
        while (peers_take(peers, &e)) {
            assert_int_equal(e.kind, PEERS_FOREIGN);
            told++;
        }
    }
    assert_in_range(told, 1, 16 + 5);
    hear(peers, ETH, announcement(7), START_MS + 6000);
    for (struct peers_event e; peers_take(peers, &e);) /* it is there still, so it is not new */
        assert_int_equal(e.kind, PEERS_FOREIGN);
    peers_free(&peers);
}

static void oldest_of_our_own_makes_room(void **state)
{
    (void)state;
    struct peers *peers = table();
    struct packet p;
    struct peers_event e;
    for (unsigned i = 0; i < DISCOVERY_MAX_PEERS; i++) {
        numbered(&p, i, false);
        hear(peers, ETH, &p, START_MS + i);
        assert_true(peers_take(peers, &e));
    }
    numbered(&p, 0, false);
    hear(peers, ETH, &p, START_MS + 500); /* now number 1 is the oldest */
    numbered(&p, 500, false);
    hear(peers, ETH, &p, START_MS + 501);
    assert_true(peers_take(peers, &e));
    assert_int_equal(e.kind, PEERS_GONE);
    assert_int_equal(e.peer.card.node_id[1], 1);
    assert_true(peers_take(peers, &e));
    assert_int_equal(e.kind, PEERS_FOUND);
    expect_silence(peers);
    struct peers_known known[DISCOVERY_MAX_PEERS + 1];
    assert_int_equal(peers_known(peers, ETH, START_MS + 502, known, COUNT_OF(known)),
                     DISCOVERY_MAX_PEERS);
    assert_int_equal(peers_known(peers, WLAN, START_MS + 502, known, COUNT_OF(known)), 0);
    peers_free(&peers);
}

static void hostile_records_do_no_harm(void **state)
{
    (void)state;
    struct peers *peers = table();
    struct packet *p = announcement(7);
    p->records[2].port = 0;
    hear(peers, ETH, p, START_MS);
    p = announcement(8);
    p->records[2].host = "";
    hear(peers, ETH, p, START_MS);
    p = announcement(9);
    p->records[1].text_bytes = 3;
    hear(peers, ETH, p, START_MS);
    p = announcement(10);
    char host[400];
    memset(host, 'a', sizeof host - 1);
    host[sizeof host - 1] = '\0';
    p->records[2].host = host;
    hear(peers, ETH, p, START_MS);
    expect_silence(peers);
    p = announcement(11);
    fill(p, UINT32_MAX);
    hear(peers, ETH, p, START_MS);
    expect_event(peers, PEERS_FOUND, 11, NULL);
    for (uint64_t now = START_MS; peers_next_ms(peers) != UINT64_MAX;) {
        now = peers_next_ms(peers);
        assert_true(now <= START_MS + 75 * 60 * 1000);
        peers_tick(peers, now);
        asked(peers, ETH, now);
    }
    expect_event(peers, PEERS_GONE, 11, NULL);
    peers_free(&peers);
}

static void browsing_slows_down(void **state)
{
    (void)state;
    struct peers_browse browse;
    peers_browse_start(&browse, START_MS);
    static const uint64_t at_s[] = {0, 1, 3, 7, 15, 31, 63, 123, 183};
    size_t n = 0;
    for (uint64_t ms = 0; ms <= 183000; ms += 100) {
        if (peers_browse_due(&browse, START_MS + ms))
            assert_int_equal(ms, at_s[n++] * 1000);
    }
    assert_int_equal(n, COUNT_OF(at_s));
}

static void no_memory(void **state)
{
    (void)state;
    struct discovery_card own = {0};
    mem_fail_after(1);
    assert_null(peers_new(&own));
    mem_fail_after(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_packet_makes_one_event),
        cmocka_unit_test(pieces_are_asked_for_and_joined),
        cmocka_unit_test(incomplete_is_forgotten),
        cmocka_unit_test(life_is_asked_for_four_times_and_ends),
        cmocka_unit_test(answers_keep_a_node_for_ever),
        cmocka_unit_test(goodbye_is_at_once),
        cmocka_unit_test(goodbye_of_an_unknown_is_nothing),
        cmocka_unit_test(changes_are_told),
        cmocka_unit_test(addresses_come_and_go),
        cmocka_unit_test(more_addresses_than_fit),
        cmocka_unit_test(two_interfaces_are_one_node),
        cmocka_unit_test(own_records_are_not_peers),
        cmocka_unit_test(twin_is_named_once_and_is_no_peer),
        cmocka_unit_test(foreign_is_told_once),
        cmocka_unit_test(peer_that_changes_its_cluster_is_gone),
        cmocka_unit_test(doubt_ends_the_dead_and_keeps_the_living),
        cmocka_unit_test(flood_of_strangers_keeps_our_own),
        cmocka_unit_test(oldest_of_our_own_makes_room),
        cmocka_unit_test(hostile_records_do_no_harm),
        cmocka_unit_test(browsing_slows_down),
        cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
