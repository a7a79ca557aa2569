/* Membership: dialling, the one link of a pair, life and death, and what is learnt from whom. */
#include "tests/unit/node/rig.h"

#include <stdio.h>

static struct node_card own, other;

static int setup(void **state)
{
    static struct rig rig;

    rig_card(&own, "own", 1000);
    rig_card(&other, "other", 2000);
    rig_new(&rig, &own, NULL);
    *state = &rig;
    return 0;
}

static int teardown(void **state)
{
    rig_free(*state);
    return 0;
}

static void the_smaller_id_dials_at_once_and_the_larger_a_little_later(void **state)
{
    struct rig *rig = *state;

    rig_seen(rig, 0x90, "10.0.0.1:8471");
    assert_int_equal(rig_count(rig, ACTION_DIAL), 1);
    assert_string_equal(rig_action(rig, ACTION_DIAL, 0)->dial.address.text, "10.0.0.1:8471");
    assert_true(rig_action(rig, ACTION_DIAL, 0)->dial.link & LINK_OUTBOUND);
    rig_seen(rig, 0x10, "10.0.0.2:8471");
    assert_int_equal(rig_count(rig, ACTION_DIAL), 0);
    rig_tick(rig, 300000);
    assert_int_equal(rig_count(rig, ACTION_DIAL), 1);
}

static void a_failing_dial_is_tried_again_ever_more_slowly(void **state)
{
    struct rig *rig = *state;
    uint64_t gap_us = 0, last_us, longest_us = 0;
    uint32_t link;

    rig_seen(rig, 0x90, "10.0.0.1:8471");
    for (int i = 0; i < 10; i++) {
        link = rig_action(rig, ACTION_DIAL, 0)->dial.link;
        last_us = rig->now_us;
        rig_closed(rig, link, STATUS_UNREACHABLE, "no route");
        assert_int_equal(rig_count(rig, ACTION_DIAL), 0);
        while (!rig_count(rig, ACTION_DIAL)) {
            rig_tick(rig, 10000);
            assert_true(rig->now_us - last_us < 13 * RIG_SECOND);
        }
        gap_us = rig->now_us - last_us;
        if (i == 0)
            assert_true(gap_us >= 180000 && gap_us <= 330000);
        longest_us = gap_us > longest_us ? gap_us : longest_us;
    }
    assert_true(gap_us >= 7 * RIG_SECOND && longest_us <= 13 * RIG_SECOND);
}

static void several_addresses_are_tried_two_at_once_a_quarter_second_apart(void **state)
{
    struct rig *rig = *state;
    struct control_event event = {.kind = EVENT_SEEN};

    rig_id(event.seen.node_id, 0x90);
    event.seen.n_addresses = 3;
    strcpy(event.seen.addresses[0].text, "10.0.0.1:1");
    strcpy(event.seen.addresses[1].text, "10.0.0.2:2");
    strcpy(event.seen.addresses[2].text, "10.0.0.3:3");
    rig_step(rig, &event);
    assert_int_equal(rig_count(rig, ACTION_DIAL), 1);
    uint32_t first = rig_action(rig, ACTION_DIAL, 0)->dial.link;
    rig_tick(rig, 249000);
    assert_int_equal(rig_count(rig, ACTION_DIAL), 0);
    rig_tick(rig, 1000);
    assert_int_equal(rig_count(rig, ACTION_DIAL), 1);
    uint32_t second = rig_action(rig, ACTION_DIAL, 0)->dial.link;
    rig_tick(rig, 400000); /* two are under way */
    assert_int_equal(rig_count(rig, ACTION_DIAL), 0);
    rig_closed(rig, first, STATUS_UNREACHABLE, "no");
    assert_int_equal(rig_count(rig, ACTION_DIAL), 1); /* the next at once */
    assert_string_equal(rig_action(rig, ACTION_DIAL, 0)->dial.address.text, "10.0.0.3:3");
    uint32_t third = rig_action(rig, ACTION_DIAL, 0)->dial.link;
    rig_opened(rig, second, 0x90);
    assert_non_null(rig_sent(rig, second, MESSAGE_CARD));
    rig_send_card(rig, second, &other);
    assert_int_equal(rig_count(rig, ACTION_CLOSE_LINK), 1); /* the third is not needed */
    assert_int_equal(rig_action(rig, ACTION_CLOSE_LINK, 0)->close_link, third);
}

static void a_dial_that_never_answers_is_given_up(void **state)
{
    struct rig *rig = *state;

    rig_seen(rig, 0x90, "10.0.0.1:8471");
    uint32_t link = rig_action(rig, ACTION_DIAL, 0)->dial.link;
    rig_tick(rig, 5 * RIG_SECOND);
    assert_int_equal(rig_action(rig, ACTION_CLOSE_LINK, 0)->close_link, link);
}

/* Both dialled. self is 0x50. */
static void the_link_dialled_by_the_smaller_id_stays(void **state)
{
    struct rig *rig = *state;
    struct member_view view;
    uint32_t in, out;

    /* We are the smaller one: ours stays although theirs was up first. */
    rig_seen(rig, 0x90, "10.0.0.1:8471");
    out = rig_action(rig, ACTION_DIAL, 0)->dial.link;
    rig_opened(rig, out, 0x90);
    in = rig_inbound(rig, 0x90);
    rig_send_card(rig, in, &other);
    assert_int_equal(rig_count(rig, ACTION_CLOSE_LINK), 0);
    rig_send_card(rig, out, &other);
    assert_int_equal(rig_count(rig, ACTION_CLOSE_LINK), 1);
    assert_int_equal(rig_action(rig, ACTION_CLOSE_LINK, 0)->close_link, in);
    assert_true(rig_view(rig, 0x90, &view));
    assert_int_equal(view.state, MEMBER_ALIVE);
    rig_closed(rig, in, STATUS_CLOSED, "");
    assert_true(rig_view(rig, 0x90, &view) && view.state == MEMBER_ALIVE);

    /* We are the larger one: theirs stays. */
    rig_seen(rig, 0x10, "10.0.0.2:8471");
    rig_tick(rig, 300000);
    out = rig_action(rig, ACTION_DIAL, 0)->dial.link;
    rig_opened(rig, out, 0x10);
    rig_send_card(rig, out, &other);
    in = rig_inbound(rig, 0x10);
    assert_int_equal(rig_count(rig, ACTION_CLOSE_LINK), 0); /* not before it is good */
    rig_send_card(rig, in, &other);
    assert_int_equal(rig_action(rig, ACTION_CLOSE_LINK, 0)->close_link, out);
    assert_true(rig_view(rig, 0x10, &view) && view.state == MEMBER_ALIVE);
}

static void a_dial_that_comes_too_late_is_closed_without_a_word(void **state)
{
    struct rig *rig = *state;
    uint32_t out, in;

    rig_seen(rig, 0x90, "10.0.0.1:8471");
    out = rig_action(rig, ACTION_DIAL, 0)->dial.link;
    in = rig_member(rig, 0x90, &other);
    assert_int_equal(rig_action(rig, ACTION_CLOSE_LINK, 0)->close_link, out);
    rig_opened(rig, out, 0x90); /* it had opened just before it was closed */
    assert_null(rig_sent(rig, out, MESSAGE_CARD));
    assert_true(in != 0);
}

static void a_restarted_peer_is_believed_over_an_old_link(void **state)
{
    struct rig *rig = *state;
    struct member_view view;
    uint32_t old, new;

    rig_seen(rig, 0x90, "10.0.0.1:8471");
    old = rig_action(rig, ACTION_DIAL, 0)->dial.link;
    rig_opened(rig, old, 0x90);
    rig_send_card(rig, old, &other);
    rig_pass_time(rig, 20 * RIG_SECOND, &old, 1);
    new = rig_member(rig, 0x90, &other);
    assert_int_equal(rig_action(rig, ACTION_CLOSE_LINK, 0)->close_link, old);
    rig_closed(rig, old, STATUS_CLOSED, "");
    assert_true(rig_view(rig, 0x90, &view) && view.state == MEMBER_ALIVE);
    assert_true(new != old);
}

static void a_link_without_a_card_is_closed(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_inbound(rig, 0x90);

    rig_tick(rig, 2900000);
    assert_int_equal(rig_count(rig, ACTION_CLOSE_LINK), 0);
    rig_tick(rig, 100000);
    assert_int_equal(rig_action(rig, ACTION_CLOSE_LINK, 0)->close_link, link);
    link = rig_inbound(rig, 0x91);
    rig_message(rig, link, message_new(MESSAGE_PING)); /* no card first */
    assert_int_equal(rig_action(rig, ACTION_CLOSE_LINK, 0)->close_link, link);
}

static void silence_for_three_seconds_is_death(void **state)
{
    struct rig *rig = *state;
    struct member_view view;
    uint32_t link = rig_member(rig, 0x90, &other);

    rig_pass_time(rig, 10 * RIG_SECOND, &link, 1);
    assert_true(rig_view(rig, 0x90, &view) && view.state == MEMBER_ALIVE);
    assert_in_range(view.rtt_us, 1900, 2100);
    rig_tick(rig, 2900000);
    assert_int_equal(rig_count(rig, ACTION_CLOSE_LINK), 0);
    rig_tick(rig, 200000);
    assert_int_equal(rig_action(rig, ACTION_CLOSE_LINK, 0)->close_link, link);
    assert_true(rig_view(rig, 0x90, &view) && view.state == MEMBER_LOST);
    assert_string_equal(view.note, "silent for 3 s");
}

static void pings_are_answered_and_sent_each_second(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &other);
    struct message *ping = message_new(MESSAGE_PING);

    ping->stamp_us = 777;
    rig_message(rig, link, ping);
    assert_int_equal(rig_sent(rig, link, MESSAGE_PONG)->stamp_us, 777);
    rig_tick(rig, RIG_SECOND);
    assert_int_equal(rig_sent(rig, link, MESSAGE_PING)->stamp_us, rig->now_us);
}

static void a_closed_link_is_death_at_once_and_dialled_again(void **state)
{
    struct rig *rig = *state;
    struct member_view view;
    uint32_t link = rig_member(rig, 0x90, &other);

    rig_closed(rig, link, STATUS_CLOSED, "reset by peer");
    assert_true(rig_view(rig, 0x90, &view) && view.state == MEMBER_LOST);
    assert_string_equal(view.note, "reset by peer");
    rig_tick(rig, 400000); /* the address comes from the link and the card's port */
    assert_string_equal(rig_action(rig, ACTION_DIAL, 0)->dial.address.text, "10.0.0.144:8471");
}

static void another_cluster_key_is_refused_for_a_good_while(void **state)
{
    struct rig *rig = *state;
    struct member_view view;

    rig_seen(rig, 0x90, "10.0.0.1:8471");
    rig_closed(rig, rig_action(rig, ACTION_DIAL, 0)->dial.link, STATUS_AUTH, "another cluster key");
    assert_true(rig_view(rig, 0x90, &view) && view.state == MEMBER_REFUSED);
    assert_string_equal(view.note, "another cluster key");
    for (int i = 0; i < 99; i++) {
        rig_seen(rig, 0x90, "10.0.0.1:8471");
        rig_tick(rig, 100000);
        assert_int_equal(rig_count(rig, ACTION_DIAL), 0);
    }
    rig_tick(rig, 10 * RIG_SECOND);
    assert_int_equal(rig_count(rig, ACTION_DIAL), 1);
    rig_opened(rig, rig_action(rig, ACTION_DIAL, 0)->dial.link, 0x90);
}

static void a_seed_that_is_ourselves_is_forgotten(void **state)
{
    struct rig *rig = *state;
    struct control_event event = {.kind = EVENT_SEED};
    uint32_t link;

    strcpy(event.seed.text, "127.0.0.1:8471");
    rig_step(rig, &event);
    link = rig_action(rig, ACTION_DIAL, 0)->dial.link;
    rig_opened(rig, link, 0x50);
    assert_int_equal(rig_action(rig, ACTION_CLOSE_LINK, 0)->close_link, link);
    rig_closed(rig, link, STATUS_CLOSED, "");
    for (int i = 0; i < 100; i++) {
        rig_tick(rig, RIG_SECOND);
        assert_int_equal(rig_count(rig, ACTION_DIAL), 0);
    }
}

static void a_seed_is_tried_for_ever_and_shown(void **state)
{
    struct rig *rig = *state;
    struct control_event event = {.kind = EVENT_SEED};
    struct member_view views[4];
    uint32_t link;
    int n_dials = 0;

    strcpy(event.seed.text, "10.0.0.9:8471");
    rig_step(rig, &event);
    for (int i = 0; i < 2000; i++) {
        if (rig_count(rig, ACTION_DIAL)) {
            n_dials++;
            rig_closed(rig, rig_action(rig, ACTION_DIAL, 0)->dial.link, STATUS_UNREACHABLE, "down");
        }
        rig_tick(rig, RIG_SECOND / 10);
    }
    assert_in_range(n_dials, 18, 40);
    assert_int_equal(control_members(rig->control, views, 4), 2);
    assert_string_equal(views[1].address, "10.0.0.9:8471");
    assert_string_equal(views[1].note, "down");
    while (!rig_count(rig, ACTION_DIAL))
        rig_tick(rig, RIG_SECOND / 10);
    link = rig_action(rig, ACTION_DIAL, 0)->dial.link;
    rig_opened(rig, link, 0x90);
    rig_send_card(rig, link, &other);
    assert_int_equal(control_members(rig->control, views, 4), 2);
    assert_int_equal(views[1].state, MEMBER_ALIVE);
    rig_closed(rig, link, STATUS_CLOSED, ""); /* and again after it was lost */
    rig_tick(rig, RIG_SECOND);
    assert_true(rig_count(rig, ACTION_DIAL) >= 1);
}

static void members_tell_each_other_whom_they_know(void **state)
{
    struct rig *rig = *state;
    struct message *peers;
    uint32_t a = rig_member(rig, 0x90, &other), b;

    b = rig_inbound(rig, 0x91);
    rig_send_card(rig, b, &other);
    peers = rig_sent(rig, b, MESSAGE_PEERS); /* all to the new one */
    assert_non_null(peers);
    assert_int_equal(peers->peers.n, 1);
    assert_int_equal(peers->peers.items[0].node_id[0], 0x90);
    assert_string_equal(peers->peers.items[0].addresses[0], "10.0.0.144:8471");
    peers = rig_sent(rig, a, MESSAGE_PEERS); /* the new one to all */
    assert_non_null(peers);
    assert_int_equal(peers->peers.items[0].node_id[0], 0x91);

    peers = message_new(MESSAGE_PEERS);
    peers->peers.n = 2;
    rig_id(peers->peers.items[0].node_id, 0x50); /* ourselves: ignored */
    peers->peers.items[0].n_addresses = 1;
    strcpy(peers->peers.items[0].addresses[0], "10.0.0.80:8471");
    rig_id(peers->peers.items[1].node_id, 0x92);
    peers->peers.items[1].n_addresses = 1;
    strcpy(peers->peers.items[1].addresses[0], "10.0.0.77:8471");
    rig_message(rig, a, peers);
    assert_int_equal(rig_count(rig, ACTION_DIAL), 1);
    assert_string_equal(rig_action(rig, ACTION_DIAL, 0)->dial.address.text, "10.0.0.77:8471");
}

static void a_changed_card_goes_to_all_but_not_too_often(void **state)
{
    struct rig *rig = *state;
    struct control_event event = {.kind = EVENT_SELF};
    uint32_t link = rig_member(rig, 0x90, &other);
    int n = 0;

    event.self = own;
    for (int i = 0; i < 100; i++) {
        event.self.n_threads = (uint32_t)i;
        rig->now_us += 10000;
        rig_step(rig, &event);
        n += rig_sent(rig, link, MESSAGE_CARD) != NULL;
    }
    assert_in_range(n, 4, 6);
    rig_tick(rig, 200000);
    assert_int_equal(rig_sent(rig, link, MESSAGE_CARD)->card.n_threads,
                     99); /* the last one counts */
}

static void seed(struct rig *rig, const char *address)
{
    struct control_event event = {.kind = EVENT_SEED};

    (void)snprintf(event.seed.text, sizeof event.seed.text, "%s", address);
    rig_step(rig, &event);
}

static void seen_at(struct rig *rig, uint8_t id, uint8_t number, const char *address)
{
    struct control_event event = {.kind = EVENT_SEEN};

    rig_id(event.seen.node_id, id);
    event.seen.node_id[1] = number;
    event.seen.n_addresses = 1;
    (void)snprintf(event.seen.addresses[0].text, sizeof event.seen.addresses[0].text, "%s",
                   address);
    rig_step(rig, &event);
}

/* Records of nodes that do not exist, from all over the network. */
static int forge(struct rig *rig, int n)
{
    char address[64];
    int n_dials = 0;

    for (int i = 0; i < n; i++) {
        (void)snprintf(address, sizeof address, "10.1.%d.%d:8471", i / 200, i % 200);
        seen_at(rig, 0x91, (uint8_t)i, address);
        n_dials += rig_count(rig, ACTION_DIAL);
        rig->now_us += 1000;
    }
    return n_dials;
}

static void forged_records_keep_nobody_out(void **state)
{
    struct rig *rig = *state;
    struct member_view view;
    uint32_t links[40];

    (void)forge(rig, 200);
    for (uint8_t i = 0; i < 40; i++)
        links[i] = rig_member(rig, (uint8_t)(0x92 + i), &other);
    for (uint8_t i = 0; i < 40; i++)
        assert_true(rig_view(rig, (uint8_t)(0x92 + i), &view) && view.state == MEMBER_ALIVE);
    (void)forge(rig, 200);
    for (uint8_t i = 0; i < 40; i++)
        assert_true(rig_view(rig, (uint8_t)(0x92 + i), &view) && view.state == MEMBER_ALIVE);
    rig_closed(rig, links[7], STATUS_CLOSED, "");
    assert_true(rig_view(rig, 0x99, &view) && view.state == MEMBER_LOST);
    (void)forge(rig, 200); /* nor is anybody forgotten for them */
    assert_true(rig_view(rig, 0x99, &view));
}

static void the_dials_of_a_flood_are_bounded(void **state)
{
    struct rig *rig = *state;
    static const char known[] = "10.9.0.1:8471";
    int n = forge(rig, 200);

    for (int i = 0; i < 10; i++) {
        rig_tick(rig, RIG_SECOND / 10);
        n += rig_count(rig, ACTION_DIAL);
    }
    assert_in_range(n, 1, 12);
    seed(rig, known); /* what a person asked for is dialled all the same */
    assert_int_equal(rig_count(rig, ACTION_DIAL), 1);
    assert_string_equal(rig_action(rig, ACTION_DIAL, 0)->dial.address.text, known);
}

static void one_address_is_not_believed_to_be_many_nodes(void **state)
{
    struct rig *rig = *state;
    static struct member_view views[100];
    char address[64];

    for (int i = 0; i < 60; i++) {
        (void)snprintf(address, sizeof address, "10.0.0.66:%d", 1000 + i);
        seen_at(rig, 0x90, (uint8_t)i, address);
    }
    assert_int_equal(control_members(rig->control, views, 100), 17);
}

static void the_address_where_a_node_was_met_is_not_pushed_out(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &other); /* at 10.0.0.144:8471 */
    char address[64];
    bool again = false;

    for (int i = 0; i < 30; i++) {
        (void)snprintf(address, sizeof address, "10.1.1.%d:8471", i);
        rig_seen(rig, 0x90, address);
    }
    rig_closed(rig, link, STATUS_CLOSED, "");
    for (int i = 0; i < 10 && !again; i++) {
        rig_tick(rig, RIG_SECOND / 10);
        again = rig_action(rig, ACTION_DIAL, 0) &&
                strcmp(rig_action(rig, ACTION_DIAL, 0)->dial.address.text, "10.0.0.144:8471") == 0;
    }
    assert_true(again);
}

static void a_peer_that_does_not_answer_is_told_once(void **state)
{
    struct rig *rig = *state;
    uint32_t link;

    seed(rig, "10.0.0.9:8471");
    link = rig_action(rig, ACTION_DIAL, 0)->dial.link;
    rig_closed(rig, link, STATUS_UNREACHABLE, "connection refused");
    assert_int_equal(rig_count(rig, ACTION_NOTICE), 1);
    assert_non_null(strstr(rig_action(rig, ACTION_NOTICE, 0)->notice, "10.0.0.9:8471"));
    assert_non_null(strstr(rig_action(rig, ACTION_NOTICE, 0)->notice, "connection refused"));
    rig_tick(rig, RIG_SECOND);
    link = rig_action(rig, ACTION_DIAL, 0)->dial.link;
    rig_closed(rig, link, STATUS_UNREACHABLE, "connection refused");
    assert_int_equal(rig_count(rig, ACTION_NOTICE), 0);
}

static void hearsay_is_bounded_and_the_living_stay(void **state)
{
    struct rig *rig = *state;
    struct member_view view;
    static struct member_view views[100];
    uint32_t link = rig_member(rig, 0x10, &other);

    for (int i = 0; i < 120; i++) {
        struct control_event event = {.kind = EVENT_SEEN};

        rig_id(event.seen.node_id, 0x90);
        event.seen.node_id[1] = (uint8_t)i;
        rig_step(rig, &event);
        rig->now_us += 1000;
    }
    assert_int_equal(control_members(rig->control, views, 100), 34); /* own, living, hearsay */
    assert_true(rig_view(rig, 0x10, &view) && view.state == MEMBER_ALIVE);
    assert_true(link != 0);
}

static void nonsense_on_a_link_closes_only_that_link(void **state)
{
    struct rig *rig = *state;
    struct member_view view;
    uint32_t a = rig_member(rig, 0x90, &other), b = rig_member(rig, 0x91, &other);
    struct message *bad = message_new(MESSAGE_PEERS);

    bad->peers.n = 1000;
    rig_message(rig, b, bad);
    assert_int_equal(rig_count(rig, ACTION_CLOSE_LINK), 1);
    assert_int_equal(rig_action(rig, ACTION_CLOSE_LINK, 0)->close_link, b);
    assert_true(rig_view(rig, 0x90, &view) && view.state == MEMBER_ALIVE);
    rig_message(rig, b, message_new(MESSAGE_PING)); /* what was under way is ignored */
    assert_int_equal(rig_count(rig, ACTION_SEND), 0);
    rig_message(rig, 999, message_new(MESSAGE_PING));
    assert_true(a != b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
        T(the_smaller_id_dials_at_once_and_the_larger_a_little_later),
        T(a_failing_dial_is_tried_again_ever_more_slowly),
        T(several_addresses_are_tried_two_at_once_a_quarter_second_apart),
        T(a_dial_that_never_answers_is_given_up),
        T(the_link_dialled_by_the_smaller_id_stays),
        T(a_dial_that_comes_too_late_is_closed_without_a_word),
        T(a_restarted_peer_is_believed_over_an_old_link),
        T(a_link_without_a_card_is_closed),
        T(silence_for_three_seconds_is_death),
        T(pings_are_answered_and_sent_each_second),
        T(a_closed_link_is_death_at_once_and_dialled_again),
        T(another_cluster_key_is_refused_for_a_good_while),
        T(a_seed_that_is_ourselves_is_forgotten),
        T(a_seed_is_tried_for_ever_and_shown),
        T(members_tell_each_other_whom_they_know),
        T(a_changed_card_goes_to_all_but_not_too_often),
        T(forged_records_keep_nobody_out),
        T(the_dials_of_a_flood_are_bounded),
        T(one_address_is_not_believed_to_be_many_nodes),
        T(the_address_where_a_node_was_met_is_not_pushed_out),
        T(a_peer_that_does_not_answer_is_told_once),
        T(hearsay_is_bounded_and_the_living_stay),
        T(nonsense_on_a_link_closes_only_that_link),
    };

    log_level_set(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
