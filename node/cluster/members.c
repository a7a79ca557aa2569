/* Members: who is out there, how to reach them, and who is alive.
 *
 *            seen, learnt                UP link
 *   (none) ──────────────► DIALLING ───────────────► ALIVE
 *                             │  ▲                   │  ▲
 *                 other key   ▼  │ seen again   gone ▼  │ UP link
 *                          REFUSED ◄───────────── LOST ─┘
 *
 * Addresses come from discovery, from --peer (seeds: an address whose owner is not known yet) and
 * from other members (PEERS); truth comes only from the authenticated link. How the addresses of
 * one are tried: dialler.c. The node with the larger id starts a little later, so that two nodes
 * that see each other at once seldom dial twice.
 *
 * PEERS go out when a link comes up (everyone alive, to the new one) and when somebody new is alive
 * (the new one, to everyone). The own card goes to all when it changes, at most every 200 ms.
 *
 * Discovery and PEERS are hearsay: anybody on the network can claim any id at any address. So those
 * who have never been met are few (MAX_HEARSAY in all, MAX_PER_HOST behind one address), make room
 * for one another only once each had its try, and always make room for a node that has proved who
 * it is by a link. At most MAX_DIALS are under way, MAX_HEARSAY_DIALS of them to hearsay; whoever
 * was tried least comes first. The address that a node was once reached at stays when others are
 * pushed out. Of those who were met the longest lost makes room, at MAX_MEMBERS.
 *
 * Nothing here fails loudly: no memory for a member means that it is met later. A --peer that does
 * not answer is told once. */
#include "node/cluster/inner.h"

#include <stdio.h>
#include <string.h>

#define LARGER_WAITS_US (3 * SECOND_US / 10)
#define CARD_EVERY_US   (SECOND_US / 5)
#define CARD_IDLE_US    SECOND_US
#define FORGET_AFTER_US (600 * SECOND_US)
enum { MAX_HEARSAY = 32, MAX_PER_HOST = 16, MAX_HEARSAY_DIALS = 12 };

static const char *const member_names[] = {"self", "dialling", "alive", "lost", "refused"};
static const uint32_t member_allowed[] = {
    [MEMBER_SELF] = 0,
    [MEMBER_DIALLING] = SM_TO(MEMBER_ALIVE) | SM_TO(MEMBER_REFUSED),
    [MEMBER_ALIVE] = SM_TO(MEMBER_LOST),
    [MEMBER_LOST] = SM_TO(MEMBER_ALIVE) | SM_TO(MEMBER_REFUSED),
    [MEMBER_REFUSED] = SM_TO(MEMBER_ALIVE),
};
static const struct sm_table member_table = {"member", member_names, member_allowed,
                                             COUNT_OF(member_names)};

/* ---------------------------------------------------------------- dials */

static void dialler_go(struct control *c, struct dialler *d, struct member *member,
                       struct seed *seed)
{
    struct mesh_link *link = mesh_dial(c, &d->addresses[d->at]);

    d->next_us = c->now_us + STAGGER_US;
    if (!link)
        return;
    d->at++;
    d->n_dials++;
    d->n_tries++;
    link->dialler = d;
    link->member = member;
    link->seed = seed;
}

/* A dial became the link of the pair (OK) or failed, at whatever point. */
void dial_ended(struct control *c, struct mesh_link *link, enum status status, const char *why)
{
    struct dialler *d = link->dialler;

    if (!d)
        return;
    link->dialler = NULL;
    d->n_dials--;
    if (status == STATUS_OK) {
        dialler_reset(d);
        d->next_us = c->now_us + BACKOFF_MIN_US;
        return;
    }
    d->refused |= status == STATUS_AUTH;
    if (link->seed) {
        link->seed->refused = status == STATUS_AUTH;
        text_set(link->seed->note, sizeof link->seed->note, "%s", why);
        if (!link->seed->told)
            act_notice(c, "--peer %s does not answer: %s; it is tried again", link->address.text,
                       why);
        link->seed->told = true;
    } else if (link->member && link->member->state != MEMBER_ALIVE) {
        struct member *m = link->member;

        text_set(m->note, sizeof m->note, "%s", why);
        if (status == STATUS_AUTH && m->state != MEMBER_REFUSED) {
            sm_move(&member_table, &m->state, MEMBER_REFUSED);
            log_event(LOG_WARN, "cluster", "refused node=%s address=%s", m->card.name,
                      link->address.text);
        }
    }
    dialler_failed(c, d);
}

/* ---------------------------------------------------------------- knowing */

struct member *member_find(struct control *c, const uint8_t id[static PROTO_ID_BYTES])
{
    for (uint32_t i = 0; i < c->n_members; i++)
        if (id_equal(c->members[i]->id, id))
            return c->members[i];
    return NULL;
}

static bool member_in_use(const struct control *c, const struct member *m)
{
    for (uint32_t i = 0; i < c->n_links; i++)
        if (c->links[i]->member == m || c->links[i]->dialler == &m->dialler)
            return true;
    return m->state == MEMBER_ALIVE;
}

/* Nothing but its own dials knows of somebody who was never met. */
static void member_forget(struct control *c, uint32_t at)
{
    struct member *m = c->members[at];

    for (uint32_t i = 0; i < c->n_links; i++) {
        struct mesh_link *link = c->links[i];

        if (link->member != m && link->dialler != &m->dialler)
            continue;
        link->member = NULL;
        link->dialler = NULL;
        if (link->state == LINK_DIALLING) /* else it found somebody else there, who is welcome */
            mesh_fail(link, "not needed any more");
    }
    mem_free(m);
    c->members[at] = c->members[--c->n_members];
}

/* The one not heard of for longest of those who were never met (and, unless proof wants the place,
 * were tried), or of those who were and are not in use; MAX_MEMBERS: there is none. */
static uint32_t member_oldest(const struct control *c, bool met, bool for_proof)
{
    uint32_t oldest = MAX_MEMBERS;

    for (uint32_t i = 0; i < c->n_members; i++) {
        const struct member *m = c->members[i];

        if (m->met != met || (met && member_in_use(c, m)) ||
            (!met && !for_proof && m->dialler.n_addresses && !m->dialler.backed_off))
            continue;
        if (oldest == MAX_MEMBERS || m->seen_us < c->members[oldest]->seen_us)
            oldest = i;
    }
    return oldest;
}

/* Room for one more. A link is proof of an id; without it, it is hearsay. */
static bool members_make_room(struct control *c, bool proof)
{
    uint32_t n_hearsay = 0, at;

    for (uint32_t i = 0; i < c->n_members; i++)
        n_hearsay += !c->members[i]->met;
    if (c->n_members < MAX_MEMBERS && (proof || n_hearsay < MAX_HEARSAY))
        return true;
    at = member_oldest(c, false, proof);
    if (at == MAX_MEMBERS && proof)
        at = member_oldest(c, true, proof);
    if (at == MAX_MEMBERS)
        return false;
    member_forget(c, at);
    return true;
}

static struct member *member_new(struct control *c, const uint8_t id[static PROTO_ID_BYTES],
                                 bool proof)
{
    struct member *m = members_make_room(c, proof) ? MEM_NEW(struct member) : NULL;
    char hex[9];

    if (!m)
        return NULL;
    memcpy(m->id, id, PROTO_ID_BYTES);
    m->state = MEMBER_DIALLING;
    m->seen_us = c->now_us;
    bytes_to_hex(id, 4, hex);
    text_set(m->card.name, sizeof m->card.name, "%s", hex); /* until its card comes */
    dialler_reset(&m->dialler);
    m->dialler.next_us = memcmp(c->options.self_id, id, PROTO_ID_BYTES) < 0
                             ? c->now_us
                             : c->now_us + LARGER_WAITS_US;
    c->members[c->n_members++] = m;
    return m;
}

struct member *member_met(struct control *c, const uint8_t id[static PROTO_ID_BYTES])
{
    struct member *m = member_find(c, id);

    if (!m)
        m = member_new(c, id, true);
    if (m)
        m->met = true;
    return m;
}

/* "10.0.0.7" of "10.0.0.7:8471". */
static size_t host_length(const char *address)
{
    const char *colon = strrchr(address, ':');

    return colon ? (size_t)(colon - address) : strlen(address);
}

/* One address that claims to be many nodes. */
static bool host_is_crowded(const struct control *c, const char *address)
{
    size_t n = host_length(address);
    uint32_t n_there = 0;

    for (uint32_t i = 0; i < c->n_members; i++) {
        const struct member *m = c->members[i];
        bool there = false;

        for (uint32_t k = 0; k < m->dialler.n_addresses && !m->met; k++) {
            const char *other = m->dialler.addresses[k].text;

            there |= host_length(other) == n && memcmp(other, address, n) == 0;
        }
        n_there += there;
    }
    return n_there >= MAX_PER_HOST;
}

static struct member *member_heard_of(struct control *c, const uint8_t id[static PROTO_ID_BYTES],
                                      uint32_t n, const struct control_address *addresses)
{
    struct member *m = member_find(c, id);

    if (m || id_equal(id, c->options.self_id))
        return m;
    for (uint32_t i = 0; i < n && i < MAX_ADDRESSES; i++)
        if (host_is_crowded(c, addresses[i].text))
            return NULL;
    return member_new(c, id, false);
}

void member_seen(struct control *c, const uint8_t id[static PROTO_ID_BYTES], uint32_t n,
                 const struct control_address *addresses)
{
    struct member *m = member_heard_of(c, id, n, addresses);
    bool news = false;

    if (!m)
        return;
    m->seen_us = c->now_us;
    for (uint32_t i = 0; i < n && i < MAX_ADDRESSES; i++) {
        char text[sizeof addresses[i].text];

        text_set(text, sizeof text, "%.*s", (int)sizeof text - 1, addresses[i].text);
        if (text[0])
            news |= dialler_add(&m->dialler, text);
    }
    if (news && m->state != MEMBER_REFUSED && m->dialler.next_us > c->now_us + LARGER_WAITS_US)
        m->dialler.next_us = c->now_us + LARGER_WAITS_US;
}

void member_seed(struct control *c, const struct control_address *address)
{
    struct seed *seed;
    char text[sizeof address->text];

    text_set(text, sizeof text, "%.*s", (int)sizeof text - 1, address->text);
    for (uint32_t i = 0; i < c->n_seeds; i++)
        if (strcmp(c->seeds[i]->dialler.addresses[0].text, text) == 0)
            return;
    seed = c->n_seeds < MAX_SEEDS && text[0] ? MEM_NEW(struct seed) : NULL;
    if (!seed)
        return;
    dialler_reset(&seed->dialler);
    (void)dialler_add(&seed->dialler, text);
    c->seeds[c->n_seeds++] = seed;
}

void member_peers(struct control *c, const struct message *message)
{
    struct control_address addresses[PROTO_MAX_ADDRESSES];

    for (uint32_t i = 0; i < message->peers.n; i++) {
        const struct peer_address *peer = &message->peers.items[i];

        for (uint32_t k = 0; k < peer->n_addresses; k++)
            memcpy(addresses[k].text, peer->addresses[k], sizeof addresses[k].text);
        if (peer->n_addresses)
            member_seen(c, peer->node_id, peer->n_addresses, addresses);
    }
}

/* ---------------------------------------------------------------- coming and going */

/* Where the node at the end of a link listens: as it was dialled, or for an inbound link the peer's
 * address with the port of its card. Empty where that is not known. */
void member_address(const struct member *m, const struct mesh_link *link, char *out, size_t size)
{
    const char *text = link->address.text, *colon = strrchr(text, ':');

    if (link->outbound)
        text_set(out, size, "%s", text);
    else if (colon && m->card.mesh_port)
        text_set(out, size, "%.*s:%u", (int)(colon - text), text, m->card.mesh_port);
    else
        out[0] = '\0';
}

static void learn_address(struct member *m, const struct mesh_link *link)
{
    char address[sizeof link->address.text];

    member_address(m, link, address, sizeof address);
    if (address[0])
        dialler_prove(&m->dialler, address);
}

static void peers_add(struct message *message, const struct member *m)
{
    struct peer_address *peer = &message->peers.items[message->peers.n];

    uint32_t n = m->dialler.n_addresses;

    memcpy(peer->node_id, m->id, PROTO_ID_BYTES);
    for (uint32_t i = 0; i < n && peer->n_addresses < PROTO_MAX_ADDRESSES; i++) {
        uint32_t at = m->dialler.proven && i == 0 ? 0 : n - 1 - i + m->dialler.proven;

        memcpy(peer->addresses[peer->n_addresses++], m->dialler.addresses[at].text,
               sizeof peer->addresses[0]);
    }
    message->peers.n += peer->n_addresses > 0;
}

static void tell_peers(struct control *c, struct member *newcomer)
{
    struct message *message = NULL;

    for (uint32_t i = 0; i < c->n_members; i++) {
        struct member *m = c->members[i];
        struct message *note;

        if (m == newcomer || !mesh_is_up(m->link))
            continue;
        note = message_new(MESSAGE_PEERS);
        if (note)
            peers_add(note, newcomer);
        if (!note || note->peers.n)
            mesh_send(c, m->link, note);
        else
            message_free(&note);
        message = message ? message : message_new(MESSAGE_PEERS);
        if (message)
            peers_add(message, m);
        if (message && message->peers.n == PROTO_MAX_PEERS) {
            mesh_send(c, newcomer->link, message);
            message = NULL;
        }
    }
    if (message && message->peers.n)
        mesh_send(c, newcomer->link, message);
    else
        message_free(&message);
}

void member_alive(struct control *c, struct member *m, struct mesh_link *link)
{
    bool news = m->state != MEMBER_ALIVE;

    m->link = link;
    m->note[0] = '\0';
    m->rtt_us = 0;
    dialler_reset(&m->dialler);
    learn_address(m, link);
    if (!news)
        return;
    sm_move(&member_table, &m->state, MEMBER_ALIVE);
    log_event(LOG_INFO, "cluster", "alive node=%s address=%s", m->card.name, link->address.text);
    tell_peers(c, m);
}

void member_lost(struct control *c, struct member *m, const char *why)
{
    m->link = NULL;
    m->lost_us = c->now_us;
    text_set(m->note, sizeof m->note, "%s", why);
    sm_move(&member_table, &m->state, MEMBER_LOST);
    dialler_reset(&m->dialler);
    m->dialler.next_us = c->now_us + jittered(c, BACKOFF_MIN_US);
    log_event(LOG_INFO, "cluster", "lost node=%s why=\"%s\"", m->card.name, why);
}

/* ---------------------------------------------------------------- the own card */

static void card_refresh(struct control *c)
{
    memory_holdings(c, &c->card);
    c->card.n_instances = 0;
    for (uint32_t i = 0; i < c->n_instances; i++)
        if (c->instances[i]->state != INSTANCE_CLOSED && !c->instances[i]->failed)
            memcpy(c->card.instances[c->card.n_instances++], c->instances[i]->hash,
                   PROTO_HASH_BYTES);
}

void card_changed(struct control *c)
{
    c->card_dirty = true;
    card_refresh(c);
}

/* Whether an instance is idle changes with every request: told within a second, unless something
 * else is told before. */
void card_idle_changed(struct control *c)
{
    card_refresh(c);
    if (c->card_idle_due_us == NEVER_US)
        c->card_idle_due_us = c->now_us + CARD_IDLE_US;
}

/* An instance is READY: told in this step, so that on any link it comes before the first token, and
 * who has seen an answer never plans anew what gave it. */
void card_ready(struct control *c)
{
    card_changed(c);
    c->card_due_us = c->now_us;
}

/* Links that have not been answered yet have had the old card, so they get the new one too. */
static void card_tell(struct control *c)
{
    card_refresh(c);
    c->card_dirty = false;
    c->card_idle_due_us = NEVER_US;
    c->card_due_us = c->now_us + CARD_EVERY_US;
    for (uint32_t i = 0; i < c->n_links; i++) {
        struct message *message;

        if ((c->links[i]->state != LINK_UP && c->links[i]->state != LINK_GREETING) ||
            c->links[i]->doomed)
            continue;
        message = message_new(MESSAGE_CARD);
        if (message)
            message->card = c->card;
        mesh_send(c, c->links[i], message);
    }
    (void)action_add(c, ACTION_CARD);
}

/* ---------------------------------------------------------------- time */

static bool seed_rests(struct control *c, const struct seed *seed)
{
    const struct member *m = seed->bound ? member_find(c, seed->id) : NULL;

    return seed->self || (m && m->state == MEMBER_ALIVE);
}

/* How many dials are under way: all, and those to hearsay. */
static uint32_t dials_count(const struct control *c, uint32_t *n_hearsay)
{
    uint32_t n = 0;

    *n_hearsay = 0;
    for (uint32_t i = 0; i < c->n_links; i++) {
        const struct mesh_link *link = c->links[i];

        if (link->state != LINK_DIALLING)
            continue;
        n++;
        *n_hearsay += link->member && !link->member->met;
    }
    return n;
}

/* Who is due and was tried least; the known and the seeds before hearsay. False: nobody. */
static bool dial_next(struct control *c)
{
    struct member *member = NULL;
    uint32_t n_hearsay;

    if (dials_count(c, &n_hearsay) >= MAX_DIALS)
        return false;
    for (uint32_t i = 0; i < c->n_seeds; i++) {
        struct seed *seed = c->seeds[i];

        if (seed_rests(c, seed) || !dialler_due(c, &seed->dialler))
            continue;
        dialler_go(c, &seed->dialler, NULL, seed);
        return true;
    }
    for (uint32_t i = 0; i < c->n_members; i++) {
        struct member *m = c->members[i];

        if (m->state == MEMBER_ALIVE || !dialler_due(c, &m->dialler) ||
            (!m->met && n_hearsay >= MAX_HEARSAY_DIALS))
            continue;
        if (!member || m->met > member->met ||
            (m->met == member->met && m->dialler.n_tries < member->dialler.n_tries))
            member = m;
    }
    if (member)
        dialler_go(c, &member->dialler, member, NULL);
    return member != NULL;
}

void members_settle(struct control *c)
{
    while (dial_next(c)) {}
    if ((c->card_dirty && c->now_us >= c->card_due_us) || c->now_us >= c->card_idle_due_us)
        card_tell(c);
}

/* Who has been lost for ten minutes and whom nobody mentions any more is forgotten. */
void members_sweep(struct control *c)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->n_members; i++) {
        struct member *m = c->members[i];

        if (c->now_us - m->seen_us > FORGET_AFTER_US && !member_in_use(c, m))
            mem_free(m);
        else
            c->members[n++] = m;
    }
    c->n_members = n;
}

uint64_t members_wake(const struct control *c)
{
    uint64_t wake_us = c->card_dirty ? c->card_due_us : NEVER_US;
    uint32_t n_hearsay, n_dials = dials_count(c, &n_hearsay);

    wake_us = c->card_idle_due_us < wake_us ? c->card_idle_due_us : wake_us;
    if (n_dials >= MAX_DIALS) /* the end of one of them is an event */
        return wake_us;
    for (uint32_t i = 0; i < c->n_members; i++) {
        const struct member *m = c->members[i];
        uint64_t due_us = dialler_wake(&m->dialler);

        if (m->state != MEMBER_ALIVE && (m->met || n_hearsay < MAX_HEARSAY_DIALS) &&
            due_us < wake_us)
            wake_us = due_us;
    }
    for (uint32_t i = 0; i < c->n_seeds; i++) {
        uint64_t due_us = dialler_wake(&c->seeds[i]->dialler);

        if (!seed_rests((struct control *)c, c->seeds[i]) && due_us < wake_us)
            wake_us = due_us;
    }
    return wake_us;
}
