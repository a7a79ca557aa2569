/* Links: authenticated connections to other nodes, from the dial to the last byte.
 *
 *   ACTION_DIAL ─► DIALLING ──LINK_OPEN──► GREETING ──CARD──► UP
 *                     │   inbound LINK_OPEN ─►│                │
 *                     │                       ├────doomed──────┤
 *                     ▼                       ▼                ▼
 *                    GONE ◄──LINK_CLOSED── CLOSING ◄─ACTION_CLOSE_LINK
 *
 * Happy path: both ends send their CARD first; with the other's CARD the link is UP and becomes the
 * one link of the pair. A PING each second keeps the round-trip time and proves life.
 *
 * One link per pair. Both ends may dial at once and must keep the same link, without talking about
 * it: the one dialled by the node with the smaller id stays. A dialler that already has a link when
 * its dial succeeds closes the new one before it says a word, and a link without a CARD is never
 * UP, so the other end forgets it too. A node never dials while it has a link, so a dial from a
 * node to which our link has stood for long means that the link is dead at the other end: the new
 * one wins.
 *
 * What fails: no CARD within 3 s, silence for 3 s, anything else as first message, an impossible
 * field, a message that could not be allocated: the link is doomed, and settle closes it. Closing
 * is the universal cure: the other end sees it, and everything bound to the link is lost on both.
 */
#include "node/cluster/inner.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define DIAL_LIMIT_US    (5 * SECOND_US)
#define CARD_LIMIT_US    (3 * SECOND_US)
#define SILENCE_LIMIT_US (3 * SECOND_US)
#define PING_EVERY_US    (1 * SECOND_US)
#define SETTLED_AFTER_US                                                                           \
    (8 * SECOND_US) /* no dial of before the link was up is under way still                        \
                     */

static const char *const link_names[] = {"dialling", "greeting", "up", "closing", "gone"};
static const uint32_t link_allowed[] = {
    [LINK_DIALLING] = SM_TO(LINK_GREETING) | SM_TO(LINK_CLOSING) | SM_TO(LINK_GONE),
    [LINK_GREETING] = SM_TO(LINK_UP) | SM_TO(LINK_CLOSING) | SM_TO(LINK_GONE),
    [LINK_UP] = SM_TO(LINK_CLOSING) | SM_TO(LINK_GONE),
    [LINK_CLOSING] = SM_TO(LINK_GONE),
    [LINK_GONE] = 0,
};
static const struct sm_table link_table = {"link", link_names, link_allowed, COUNT_OF(link_names)};

struct mesh_link *mesh_find(struct control *c, uint32_t id)
{
    for (uint32_t i = 0; i < c->n_links; i++)
        if (c->links[i]->id == id && c->links[i]->state != LINK_GONE)
            return c->links[i];
    return NULL;
}

bool mesh_is_up(const struct mesh_link *link)
{
    return link && link->state == LINK_UP && !link->doomed;
}

const char *mesh_name(const struct mesh_link *link)
{
    return link->member ? link->member->card.name : "?";
}

void mesh_fail(struct mesh_link *link, const char *format, ...)
{
    va_list args;

    if (link->doomed || link->state >= LINK_CLOSING)
        return;
    link->doomed = true;
    va_start(args, format);
    (void)vsnprintf(link->why, sizeof link->why, format, args);
    va_end(args);
}

void mesh_send(struct control *c, struct mesh_link *link, struct message *message)
{
    struct control_action *action = NULL;

    if (!message)
        mesh_fail(link, "out of memory");
    else if ((link->state == LINK_UP || link->state == LINK_GREETING) && !link->doomed)
        action = action_add(c, ACTION_SEND);
    if (!action) {
        message_free(&message);
        return;
    }
    action->send.link = link->id;
    action->send.message = message;
}

static struct mesh_link *link_new(struct control *c, uint32_t id, enum link_state state)
{
    struct mesh_link *link = c->n_links < MAX_LINKS ? MEM_NEW(struct mesh_link) : NULL;

    if (!link)
        return NULL;
    link->id = id;
    link->state = state;
    link->since_us = link->heard_us = c->now_us;
    c->links[c->n_links++] = link;
    return link;
}

struct mesh_link *mesh_dial(struct control *c, const struct control_address *address)
{
    struct mesh_link *link = link_new(c, (c->last_dial + 1) | LINK_OUTBOUND, LINK_DIALLING);
    struct control_action *action = link ? action_add(c, ACTION_DIAL) : NULL;

    if (!link)
        return NULL;
    if (!action) {
        sm_move(&link_table, &link->state, LINK_GONE);
        return NULL;
    }
    c->last_dial = link->id;
    link->outbound = true;
    link->address = *address;
    action->dial.link = link->id;
    action->dial.address = *address;
    return link;
}

static void send_card(struct control *c, struct mesh_link *link)
{
    struct message *message = message_new(MESSAGE_CARD);

    if (message)
        message->card = c->card;
    mesh_send(c, link, message);
}

/* ---------------------------------------------------------------- opening */

/* The dial found this very node, or someone else than we hoped. */
static void sort_address(struct control *c, struct mesh_link *link, const uint8_t *id)
{
    struct seed *seed = link->seed;
    bool self = id_equal(id, c->options.self_id);

    if (seed) {
        seed->bound = !self;
        seed->self = self;
        seed->refused = false;
        memcpy(seed->id, id, PROTO_ID_BYTES);
    }
    if (link->member && !id_equal(link->member->id, id)) {
        struct dialler *d = &link->member->dialler;

        for (uint32_t i = 0; i < d->n_addresses; i++)
            if (strcmp(d->addresses[i].text, link->address.text) == 0) {
                d->addresses[i] = d->addresses[--d->n_addresses];
                d->at = d->at > d->n_addresses ? d->n_addresses : d->at;
            }
    }
}

static bool has_own_link(const struct control *c, const struct member *member,
                         const struct mesh_link *but)
{
    for (uint32_t i = 0; i < c->n_links; i++) {
        const struct mesh_link *link = c->links[i];

        if (link != but && link->member == member && !link->doomed &&
            (link->state == LINK_UP || (link->state == LINK_GREETING && link->outbound)))
            return true;
    }
    return false;
}

void mesh_opened(struct control *c, const struct control_event *event)
{
    const uint8_t *id = event->link_open.node_id;
    struct mesh_link *link = mesh_find(c, event->link_open.link);
    struct control_action *action;

    if (link && link->state != LINK_DIALLING)
        return;
    if (!link && !event->link_open.outbound)
        link = link_new(c, event->link_open.link, LINK_DIALLING);
    if (!link) {
        action = action_add(c, ACTION_CLOSE_LINK);
        if (action)
            action->close_link = event->link_open.link;
        return;
    }
    if (!link->outbound)
        link->address = event->link_open.remote;
    link->address.text[sizeof link->address.text - 1] = '\0';
    sort_address(c, link, id);
    sm_move(&link_table, &link->state, LINK_GREETING);
    link->since_us = link->heard_us = c->now_us;
    link->ping_us = c->now_us + PING_EVERY_US;
    link->member = id_equal(id, c->options.self_id) ? NULL : member_met(c, id);
    if (!link->member)
        mesh_fail(link, "own address, or too many nodes");
    else if (link->outbound && has_own_link(c, link->member, link))
        mesh_fail(link, "already linked");
    else
        send_card(c, link);
}

/* The pair has two links: which one goes? Both ends come to the same answer. */
static struct mesh_link *link_to_drop(const struct control *c, struct mesh_link *old,
                                      struct mesh_link *new)
{
    bool smaller = memcmp(c->options.self_id, new->member->id, PROTO_ID_BYTES) < 0;

    if (old->outbound == new->outbound || c->now_us - old->since_us > SETTLED_AFTER_US)
        return old;
    return new->outbound == smaller ? old : new;
}

static void link_greeted(struct control *c, struct mesh_link *link, const struct node_card *card)
{
    struct member *member = link->member;
    struct mesh_link *old = member->link;

    if (old && !old->doomed && old != link) {
        struct mesh_link *drop = link_to_drop(c, old, link);

        mesh_fail(drop, "another link is kept");
        if (drop == link)
            return;
    }
    sm_move(&link_table, &link->state, LINK_UP);
    link->since_us = c->now_us;
    dial_ended(c, link, STATUS_OK, "");
    member->card = *card;
    member_alive(c, member, link);
    for (uint32_t i = 0; i < c->n_links; i++)
        if (c->links[i]->state == LINK_DIALLING && c->links[i]->member == member)
            mesh_fail(c->links[i], "not needed any more");
}

/* ---------------------------------------------------------------- messages */

static void link_pong(struct control *c, struct mesh_link *link, uint64_t stamp_us)
{
    struct member *member = link->member;
    uint64_t rtt_us;

    if (stamp_us > c->now_us || c->now_us - stamp_us > SILENCE_LIMIT_US)
        return;
    rtt_us = c->now_us - stamp_us;
    rtt_us += rtt_us == 0;
    member->rtt_us = member->rtt_us ? (7 * member->rtt_us + rtt_us) / 8 : rtt_us;
}

static void link_ping(struct control *c, struct mesh_link *link, enum message_kind kind,
                      uint64_t stamp)
{
    struct message *message = message_new(kind);

    if (message)
        message->stamp_us = stamp;
    mesh_send(c, link, message);
}

/* What belongs to one of the machines. Returns with the message still to be freed, unless taken. */
static struct message *link_deliver(struct control *c, struct mesh_link *link, struct message *m)
{
    struct origin origin = {.link = link, .request = m->request};

    switch (m->kind) {
    case MESSAGE_PEERS:
        member_peers(c, m);
        break;
    case MESSAGE_PREPARE:
        stage_prepare(c, link, &m->prepare);
        break;
    case MESSAGE_LOAD:
        stage_load(c, link, &m->instance);
        break;
    case MESSAGE_RELEASE:
        stage_release(c, link, &m->instance);
        break;
    case MESSAGE_PREPARED:
    case MESSAGE_LOADED:
    case MESSAGE_PASS_FAILED:
        instance_outcome(c, link, m);
        break;
    case MESSAGE_CLOSE_IDLE:
        room_close_idle(c, link, &m->close_idle);
        break;
    case MESSAGE_IDLE_CLOSED:
        room_idle_closed(c, link, &m->outcome);
        break;
    case MESSAGE_PASS:
        if (m->pass.stage == 0)
            ring_pass(c, link, m);
        else
            stage_pass(c, link, m);
        return NULL;
    case MESSAGE_SUBMIT:
        origin.request = m->submit.request;
        work_submit(c, origin, &m->submit.spec, (const char *)m->payload, m->payload_bytes);
        break;
    case MESSAGE_ACCEPTED:
        front_accepted(c, link, &m->accepted, m->payload);
        break;
    case MESSAGE_TOKENS:
        front_tokens(c, link, &m->tokens, m->payload, m->payload_bytes);
        m->payload = NULL;
        break;
    case MESSAGE_DONE:
        front_done(c, link, &m->done);
        break;
    case MESSAGE_CANCEL:
        work_cancel(c, origin);
        break;
    default:
        break;
    }
    return m;
}

void mesh_heard(struct control *c, struct mesh_link *link)
{
    if (link && !link->doomed && link->state == LINK_UP)
        link->heard_us = link->member->seen_us = c->now_us;
}

void mesh_message(struct control *c, struct mesh_link *link, struct message *m)
{
    if (!link || link->doomed || (link->state != LINK_GREETING && link->state != LINK_UP)) {
        message_free(&m);
        return;
    }
    link->heard_us = link->member->seen_us = c->now_us;
    if (message_check(m) != STATUS_OK) {
        mesh_fail(link, "%s sent a malformed message of kind %d", mesh_name(link), (int)m->kind);
    } else if (link->state == LINK_GREETING) {
        if (m->kind == MESSAGE_CARD)
            link_greeted(c, link, &m->card);
        else
            mesh_fail(link, "the first message was no card");
    } else if (m->kind == MESSAGE_CARD) {
        link->member->card = m->card;
    } else if (m->kind == MESSAGE_PING) {
        link_ping(c, link, MESSAGE_PONG, m->stamp_us);
    } else if (m->kind == MESSAGE_PONG) {
        link_pong(c, link, m->stamp_us);
    } else {
        m = link_deliver(c, link, m);
    }
    message_free(&m);
}

/* ---------------------------------------------------------------- ends and time */

/* Everything that was bound to an open link is lost. */
static void link_down(struct control *c, struct mesh_link *link, const char *why)
{
    if (link->member && link->member->link == link)
        member_lost(c, link->member, why);
    fronts_link_lost(c, link);
    works_link_lost(c, link);
    instances_link_lost(c, link);
    stages_link_lost(c, link);
    c->again = true;
}

void mesh_closed(struct control *c, const struct control_event *event)
{
    struct mesh_link *link = mesh_find(c, event->link_closed.link);
    char why[PROTO_MAX_TEXT];
    unsigned before;

    if (!link)
        return;
    text_set(why, sizeof why, "%.*s", (int)sizeof why - 1,
             event->link_closed.text[0] ? event->link_closed.text : "the link was closed");
    before = link->state;
    sm_move(&link_table, &link->state, LINK_GONE);
    dial_ended(c, link, event->link_closed.status ? event->link_closed.status : STATUS_CLOSED, why);
    if (before == LINK_GREETING || before == LINK_UP)
        link_down(c, link, why);
}

static void link_time(struct control *c, struct mesh_link *link)
{
    uint64_t age_us = c->now_us - link->since_us, silence_us = c->now_us - link->heard_us;

    if (link->state == LINK_DIALLING && age_us >= DIAL_LIMIT_US)
        mesh_fail(link, "no answer");
    else if (link->state == LINK_GREETING && age_us >= CARD_LIMIT_US)
        mesh_fail(link, "no card came");
    else if (link->state == LINK_UP && silence_us >= SILENCE_LIMIT_US)
        mesh_fail(link, "silent for 3 s");
    if (link->state != LINK_UP || link->doomed || c->now_us < link->ping_us)
        return;
    link->ping_us = c->now_us + PING_EVERY_US;
    link_ping(c, link, MESSAGE_PING, c->now_us);
}

void mesh_settle(struct control *c)
{
    for (uint32_t i = 0; i < c->n_links; i++) {
        struct mesh_link *link = c->links[i];
        struct control_action *action;
        unsigned before = link->state;

        if (before >= LINK_CLOSING)
            continue;
        link_time(c, link);
        if (!link->doomed)
            continue;
        action = action_add(c, ACTION_CLOSE_LINK);
        if (action)
            action->close_link = link->id;
        sm_move(&link_table, &link->state, LINK_CLOSING);
        dial_ended(c, link, STATUS_TIMEOUT, link->why);
        if (before != LINK_DIALLING)
            link_down(c, link, link->why);
    }
}

void mesh_sweep(struct control *c)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->n_links; i++) {
        if (c->links[i]->state == LINK_GONE)
            mem_free(c->links[i]);
        else
            c->links[n++] = c->links[i];
    }
    c->n_links = n;
}

uint64_t mesh_wake(const struct control *c)
{
    uint64_t wake_us = NEVER_US;

    for (uint32_t i = 0; i < c->n_links; i++) {
        const struct mesh_link *link = c->links[i];
        uint64_t due_us = NEVER_US;

        if (link->state == LINK_DIALLING)
            due_us = link->since_us + DIAL_LIMIT_US;
        else if (link->state == LINK_GREETING)
            due_us = link->since_us + CARD_LIMIT_US;
        else if (link->state == LINK_UP)
            due_us = link->ping_us < link->heard_us + SILENCE_LIMIT_US
                         ? link->ping_us
                         : link->heard_us + SILENCE_LIMIT_US;
        wake_us = due_us < wake_us ? due_us : wake_us;
    }
    return wake_us;
}
