/* Who is there, as far as mDNS says. One entry is one node on one interface; a node that is heard
 * on two interfaces has two entries, and is gone when the last one is.
 *
 *            PTR, SRV or TXT of a new instance
 *                          v
 *        incomplete: asked at 0, 1, 3 and 7 s ── 15 s ──> forgotten
 *                          | SRV + TXT + an address
 *                          v
 *   ┌────────────────> complete: told to the owner, again when something in it changes
 *   │ heard again          | at 80, 85, 90 and 95 % of its life (RFC 6762 section 5.2)
 *   └───────────────── asked again
 *                          | goodbye, or end of life, or no answer to a doubt
 *                          v
 *                        gone
 *
 * A packet is taken as a whole before anything is told, so that an announcement of all records
 * makes one event. Addresses belong to host names; they are matched to entries after the packet's
 * SRV records were taken, whatever their order in the packet.
 *
 * Anyone on the network can send anything, so the table is fixed: DISCOVERY_MAX_PEERS entries. When
 * it is full, a new instance takes the place of the oldest entry of the least worth (incomplete,
 * then foreign, then ours), so a flood of made-up names cannot push out a node of our cluster as
 * long as it does not claim to be of our cluster itself. Foreign nodes are told at a bounded rate.
 */
#include "discovery/peers.h"

#include <string.h>

#include "discovery/txt.h"

enum {
    LIFE_MAX_S = 75 * 60, /* longer lives than DNS-SD's usual ones are cut to this */
    FORGET_INCOMPLETE_MS = 15000,
    DOUBT_MS = 3000,
    FLUSH_GRACE_MS = 1000, /* RFC 6762 section 10.2 */
    BROWSE_FIRST_MS = 1000,
    BROWSE_MAX_MS = 60000,
    FOREIGN_MS = 1000,        /* one foreign node told per second … */
    FOREIGN_BURST_MS = 16000, /* … and sixteen at once */
    N_GONE = 2 * DISCOVERY_MAX_PEERS,
    PERMILLE = 1000
};

/* From when until when a record is good. until_ms 0: there is none. */
struct life {
    uint64_t from_ms;
    uint64_t until_ms;
};

struct known_address {
    struct life life;
    sa_family_t family;
    uint8_t bytes[16];
};

struct entry {
    bool used;
    bool told;         /* on_peer was called, so on_gone is owed */
    bool told_foreign; /* on_foreign was called */
    bool changed;
    bool touched; /* by the packet that is being taken */
    unsigned if_index;
    char if_name[IF_NAMESIZE];
    char label[NAMES_LABEL_MAX];
    char host[NAMES_TEXT_MAX];
    struct life srv;
    struct life txt;
    struct discovery_card card;
    struct known_address addresses[DISCOVERY_MAX_ADDRESSES];
    uint64_t heard_ms;
    uint64_t incomplete_since_ms;
    uint64_t doubt_ms; /* 0: none */
    uint64_t asked_ms; /* 0: not yet */
};

struct peers {
    struct discovery_card own;
    struct names names;
    uint64_t now_ms; /* of the latest call */
    uint64_t foreign_tokens_ms;
    unsigned
        spread_permille; /* nodes ask at slightly different times, so that one answer serves all */
    bool twin_told;
    char twin[NAMES_LABEL_MAX];
    size_t n_gone;
    uint8_t gone[N_GONE][DISCOVERY_ID_BYTES];
    struct entry entries[DISCOVERY_MAX_PEERS];
};

struct peers *peers_new(const struct discovery_card *own)
{
    struct peers *peers = MEM_NEW(struct peers);
    if (!peers)
        return NULL;
    peers->own = *own;
    peers->spread_permille = own->node_id[DISCOVERY_ID_BYTES - 1] % 20u;
    names_make(own, &peers->names);
    return peers;
}

void peers_free(struct peers **peers)
{
    mem_free(*peers);
    *peers = NULL;
}

static bool is_complete(const struct entry *e)
{
    if (!e->srv.until_ms || !e->txt.until_ms)
        return false;
    for (size_t i = 0; i < DISCOVERY_MAX_ADDRESSES; i++) {
        if (e->addresses[i].life.until_ms)
            return true;
    }
    return false;
}

static bool is_foreign(const struct peers *peers, const struct entry *e)
{
    return e->txt.until_ms &&
           (e->card.protocol_version != peers->own.protocol_version ||
            memcmp(e->card.fingerprint, peers->own.fingerprint, DISCOVERY_FINGERPRINT_BYTES) != 0);
}

static bool is_told_elsewhere(const struct peers *peers, const struct entry *than)
{
    for (size_t i = 0; i < DISCOVERY_MAX_PEERS; i++) {
        const struct entry *e = &peers->entries[i];
        if (e != than && e->used && e->told &&
            memcmp(e->card.node_id, than->card.node_id, DISCOVERY_ID_BYTES) == 0)
            return true;
    }
    return false;
}

/* The owner hears that the node of this entry is gone, if it was told of it and has no other. */
static void untell(struct peers *peers, struct entry *e)
{
    if (e->told && !is_told_elsewhere(peers, e) && peers->n_gone < N_GONE)
        memcpy(peers->gone[peers->n_gone++], e->card.node_id, DISCOVERY_ID_BYTES);
    e->told = false;
}

static void drop(struct peers *peers, struct entry *e)
{
    untell(peers, e);
    memset(e, 0, sizeof *e);
}

static struct entry *find(struct peers *peers, unsigned if_index, const char *label)
{
    for (size_t i = 0; i < DISCOVERY_MAX_PEERS; i++) {
        struct entry *e = &peers->entries[i];
        if (e->used && e->if_index == if_index && strcmp(e->label, label) == 0)
            return e;
    }
    return NULL;
}

static unsigned worth(const struct peers *peers, const struct entry *e)
{
    if (!e->used)
        return 0;
    if (!is_complete(e))
        return 1;
    return is_foreign(peers, e) ? 2 : 3;
}

static struct entry *make_room(struct peers *peers)
{
    struct entry *least = &peers->entries[0];
    for (size_t i = 1; i < DISCOVERY_MAX_PEERS; i++) {
        struct entry *e = &peers->entries[i];
        unsigned a = worth(peers, e);
        unsigned b = worth(peers, least);
        if (a < b || (a == b && e->heard_ms < least->heard_ms))
            least = e;
    }
    if (least->used)
        drop(peers, least);
    return least;
}

static struct life life_of(uint32_t ttl_s, uint64_t now_ms)
{
    uint64_t s = ttl_s < LIFE_MAX_S ? ttl_s : LIFE_MAX_S;
    return (struct life){.from_ms = now_ms, .until_ms = now_ms + s * 1000};
}

static void take_txt(struct peers *peers, struct entry *e, const struct record *r)
{
    struct discovery_card card = e->card;
    if (txt_decode(r->text, r->text_bytes, &card) != STATUS_OK)
        return;
    bool had = e->txt.until_ms != 0;
    e->txt = life_of(r->ttl_s, peers->now_ms);
    if (had && memcmp(card.node_id, e->card.node_id, DISCOVERY_ID_BYTES) != 0) {
        untell(peers, e);
        e->told_foreign = false;
    }
    if (!had || memcmp(card.node_id, e->card.node_id, DISCOVERY_ID_BYTES) != 0 ||
        memcmp(card.fingerprint, e->card.fingerprint, DISCOVERY_FINGERPRINT_BYTES) != 0 ||
        card.protocol_version != e->card.protocol_version || card.run != e->card.run ||
        strcmp(card.engine, e->card.engine) != 0 || card.memory_bytes != e->card.memory_bytes)
        e->changed = true;
    e->card = card;
}

static void take_srv(struct peers *peers, struct entry *e, const struct record *r)
{
    if (r->port == 0 || !r->host[0] || strlen(r->host) >= sizeof e->host)
        return;
    if (strcmp(r->host, e->host) != 0)
        memset(e->addresses, 0, sizeof e->addresses);
    if (strcmp(r->host, e->host) != 0 || r->port != e->card.port)
        e->changed = true;
    memcpy(e->host, r->host, strlen(r->host) + 1);
    e->card.port = r->port;
    e->srv = life_of(r->ttl_s, peers->now_ms);
    e->doubt_ms = 0;
}

/* PTR, SRV or TXT. */
static void take_instance(struct peers *peers, unsigned if_index, const char *if_name,
                          const struct record *r)
{
    struct entry *e = find(peers, if_index, r->name);
    if (r->ttl_s == 0) {
        if (e)
            drop(peers, e);
        return;
    }
    if (!e) {
        e = make_room(peers);
        e->used = true;
        e->if_index = if_index;
        e->incomplete_since_ms = peers->now_ms;
        memcpy(e->if_name, if_name, strnlen(if_name, IF_NAMESIZE - 1));
        memcpy(e->label, r->name, strnlen(r->name, sizeof e->label - 1));
        memcpy(e->card.name, e->label, sizeof e->card.name);
    }
    e->heard_ms = peers->now_ms;
    if (r->kind == RECORD_SRV)
        take_srv(peers, e, r);
    else if (r->kind == RECORD_TXT)
        take_txt(peers, e, r);
}

/* The place of this address in the entry, or one for it: free, or else the oldest. */
static struct known_address *address_place(struct entry *e, const struct record *r, bool *known)
{
    struct known_address *place = &e->addresses[0];
    for (size_t i = 0; i < DISCOVERY_MAX_ADDRESSES; i++) {
        struct known_address *a = &e->addresses[i];
        *known = a->life.until_ms && a->family == r->family &&
                 memcmp(a->bytes, r->address, sizeof a->bytes) == 0;
        if (*known)
            return a;
        if (a->life.from_ms < place->life.from_ms)
            place = a;
    }
    return place;
}

static void take_address(struct peers *peers, struct entry *e, const struct record *r)
{
    bool known = false;
    struct known_address *a = address_place(e, r, &known);
    if (r->ttl_s == 0) {
        e->changed = e->changed || known;
        if (known)
            memset(a, 0, sizeof *a);
        return;
    }
    e->changed = e->changed || !known;
    a->family = r->family;
    memcpy(a->bytes, r->address, sizeof a->bytes);
    a->life = life_of(r->ttl_s, peers->now_ms);
    for (size_t i = 0; r->flush && i < DISCOVERY_MAX_ADDRESSES; i++) {
        struct known_address *old = &e->addresses[i];
        if (old->life.until_ms && old->family == r->family &&
            old->life.from_ms + FLUSH_GRACE_MS < peers->now_ms) {
            memset(old, 0, sizeof *old);
            e->changed = true;
        }
    }
}

/* Another node with our id: a copied state folder. It must not be found as a peer, but be named. */
static bool is_twin(struct peers *peers, const struct record *r)
{
    struct discovery_card card = {0};
    if (r->kind != RECORD_TXT || r->ttl_s == 0 ||
        txt_decode(r->text, r->text_bytes, &card) != STATUS_OK ||
        memcmp(card.node_id, peers->own.node_id, DISCOVERY_ID_BYTES) != 0)
        return false;
    if (!peers->twin_told && !peers->twin[0])
        memcpy(peers->twin, r->name, strnlen(r->name, sizeof peers->twin - 1));
    return true;
}

void peers_hear(struct peers *peers, unsigned if_index, const char *if_name,
                const struct record *records, size_t n_records, uint64_t now_ms)
{
    peers->now_ms = now_ms;
    for (size_t i = 0; i < n_records; i++) {
        const struct record *r = &records[i];
        if (r->kind == RECORD_ADDRESS || strcmp(r->name, peers->names.label) == 0)
            continue;
        if (is_twin(peers, r)) {
            struct entry *e = find(peers, if_index, r->name);
            if (e)
                drop(peers, e);
            continue;
        }
        take_instance(peers, if_index, if_name, r);
    }
    for (size_t i = 0; i < n_records; i++) {
        if (records[i].kind != RECORD_ADDRESS)
            continue;
        for (size_t k = 0; k < DISCOVERY_MAX_PEERS; k++) {
            struct entry *e = &peers->entries[k];
            if (e->used && e->if_index == if_index && strcmp(e->host, records[i].name) == 0)
                take_address(peers, e, &records[i]);
        }
    }
}

void peers_drop_interface(struct peers *peers, unsigned if_index)
{
    for (size_t i = 0; i < DISCOVERY_MAX_PEERS; i++) {
        if (peers->entries[i].used && peers->entries[i].if_index == if_index)
            drop(peers, &peers->entries[i]);
    }
}

void peers_doubt(struct peers *peers, const uint8_t node_id[static DISCOVERY_ID_BYTES],
                 uint64_t now_ms)
{
    for (size_t i = 0; i < DISCOVERY_MAX_PEERS; i++) {
        struct entry *e = &peers->entries[i];
        if (e->used && is_complete(e) && !e->doubt_ms &&
            memcmp(e->card.node_id, node_id, DISCOVERY_ID_BYTES) == 0) {
            e->doubt_ms = now_ms;
            e->asked_ms = 0;
        }
    }
}

static uint64_t min_ms(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The record of a complete entry that ends first. */
static struct life soonest(const struct entry *e)
{
    struct life first = e->srv.until_ms <= e->txt.until_ms ? e->srv : e->txt;
    for (size_t i = 0; i < DISCOVERY_MAX_ADDRESSES; i++) {
        struct life life = e->addresses[i].life;
        if (life.until_ms && life.until_ms < first.until_ms)
            first = life;
    }
    return first;
}

static uint64_t end_ms(const struct entry *e)
{
    if (!is_complete(e))
        return e->incomplete_since_ms + FORGET_INCOMPLETE_MS;
    uint64_t end = min_ms(e->srv.until_ms, e->txt.until_ms);
    return e->doubt_ms ? min_ms(end, e->doubt_ms + DOUBT_MS) : end;
}

/* When to ask next: the first planned moment after the latest question. */
static uint64_t ask_ms(const struct peers *peers, const struct entry *e)
{
    static const uint64_t incomplete_ms[] = {0, 1000, 3000, 7000};
    static const uint64_t doubt_ms[] = {0, 1000, 2000};
    static const uint64_t life_permille[] = {800, 850, 900, 950};
    if (!is_complete(e)) {
        for (size_t i = 0; i < COUNT_OF(incomplete_ms); i++) {
            uint64_t at = e->incomplete_since_ms + incomplete_ms[i];
            if (at > e->asked_ms || (i == 0 && !e->asked_ms))
                return at;
        }
        return UINT64_MAX;
    }
    for (size_t i = 0; e->doubt_ms && i < COUNT_OF(doubt_ms); i++) {
        uint64_t at = e->doubt_ms + doubt_ms[i];
        if (at > e->asked_ms)
            return at;
    }
    struct life life = soonest(e);
    for (size_t i = 0; i < COUNT_OF(life_permille); i++) {
        uint64_t at = life.from_ms + (life.until_ms - life.from_ms) *
                                         (life_permille[i] + peers->spread_permille) / PERMILLE;
        if (at > e->asked_ms)
            return at;
    }
    return UINT64_MAX;
}

void peers_tick(struct peers *peers, uint64_t now_ms)
{
    peers->now_ms = now_ms;
    for (size_t i = 0; i < DISCOVERY_MAX_PEERS; i++) {
        struct entry *e = &peers->entries[i];
        if (!e->used)
            continue;
        bool was_complete = is_complete(e);
        if (end_ms(e) <= now_ms) {
            drop(peers, e);
            continue;
        }
        for (size_t k = 0; k < DISCOVERY_MAX_ADDRESSES; k++) {
            struct known_address *a = &e->addresses[k];
            if (a->life.until_ms && a->life.until_ms <= now_ms) {
                memset(a, 0, sizeof *a);
                e->changed = true;
            }
        }
        if (was_complete && !is_complete(e))
            drop(peers, e);
    }
}

uint64_t peers_next_ms(const struct peers *peers)
{
    uint64_t next = UINT64_MAX;
    for (size_t i = 0; i < DISCOVERY_MAX_PEERS; i++) {
        const struct entry *e = &peers->entries[i];
        if (!e->used)
            continue;
        next = min_ms(next, min_ms(end_ms(e), ask_ms(peers, e)));
        if (is_complete(e))
            next = min_ms(next, soonest(e).until_ms);
    }
    return next;
}

size_t peers_questions(struct peers *peers, unsigned if_index, uint64_t now_ms,
                       struct peers_question *out, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; i < DISCOVERY_MAX_PEERS && n < max; i++) {
        struct entry *e = &peers->entries[i];
        if (!e->used || e->if_index != if_index || ask_ms(peers, e) > now_ms)
            continue;
        memcpy(out[n].label, e->label, sizeof out[n].label);
        memcpy(out[n].host, e->host, sizeof out[n].host);
        e->asked_ms = now_ms;
        n++;
    }
    return n;
}

size_t peers_known(const struct peers *peers, unsigned if_index, uint64_t now_ms,
                   struct peers_known *out, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; i < DISCOVERY_MAX_PEERS && n < max; i++) {
        const struct entry *e = &peers->entries[i];
        if (!e->used || e->if_index != if_index || !is_complete(e) || e->srv.until_ms <= now_ms)
            continue;
        memcpy(out[n].label, e->label, sizeof out[n].label);
        out[n].ttl_s = (uint32_t)((e->srv.until_ms - now_ms) / 1000);
        n++;
    }
    return n;
}

static void put_address(const struct entry *e, const struct known_address *a,
                        struct discovery_peer *out)
{
    struct sockaddr_storage *to = &out->addresses[out->n_addresses++];
    if (a->family == AF_INET) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)to;
        v4->sin_family = AF_INET;
        v4->sin_port = htons(e->card.port);
        memcpy(&v4->sin_addr, a->bytes, sizeof v4->sin_addr);
        return;
    }
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(e->card.port);
    memcpy(&v6->sin6_addr, a->bytes, sizeof v6->sin6_addr);
    if (IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr))
        v6->sin6_scope_id = e->if_index;
}

/* IPv4 first: every node listens there. */
static void put_peer(const struct entry *e, struct discovery_peer *out)
{
    *out = (struct discovery_peer){.card = e->card};
    memcpy(out->interface, e->if_name, sizeof out->interface);
    static const sa_family_t order[] = {AF_INET, AF_INET6};
    for (size_t f = 0; f < COUNT_OF(order); f++) {
        for (size_t i = 0; i < DISCOVERY_MAX_ADDRESSES; i++) {
            if (e->addresses[i].life.until_ms && e->addresses[i].family == order[f])
                put_address(e, &e->addresses[i], out);
        }
    }
}

/* Foreign nodes are told once each, over all interfaces, and at a bounded rate. */
static bool may_tell_foreign(struct peers *peers, struct entry *e)
{
    if (e->told_foreign)
        return false;
    for (size_t i = 0; i < DISCOVERY_MAX_PEERS; i++) {
        const struct entry *other = &peers->entries[i];
        if (other->used && other->told_foreign &&
            memcmp(other->card.node_id, e->card.node_id, DISCOVERY_ID_BYTES) == 0) {
            e->told_foreign = true;
            return false;
        }
    }
    if (peers->foreign_tokens_ms < peers->now_ms)
        peers->foreign_tokens_ms = peers->now_ms;
    if (peers->foreign_tokens_ms + FOREIGN_MS > peers->now_ms + FOREIGN_BURST_MS)
        return false;
    peers->foreign_tokens_ms += FOREIGN_MS;
    e->told_foreign = true;
    return true;
}

bool peers_take(struct peers *peers, struct peers_event *out)
{
    if (peers->n_gone > 0) {
        *out = (struct peers_event){.kind = PEERS_GONE};
        memcpy(out->peer.card.node_id, peers->gone[--peers->n_gone], DISCOVERY_ID_BYTES);
        return true;
    }
    for (size_t i = 0; i < DISCOVERY_MAX_PEERS; i++) {
        struct entry *e = &peers->entries[i];
        if (!e->used || !is_complete(e))
            continue;
        if (is_foreign(peers, e)) {
            if (e->told) {
                untell(peers, e);
                return peers_take(peers, out);
            }
            if (!may_tell_foreign(peers, e))
                continue;
            out->kind = PEERS_FOREIGN;
            put_peer(e, &out->peer);
            return true;
        }
        if (e->told && !e->changed)
            continue;
        e->told = true;
        e->changed = false;
        out->kind = PEERS_FOUND;
        put_peer(e, &out->peer);
        return true;
    }
    return false;
}

bool peers_take_twin(struct peers *peers, char label[static NAMES_LABEL_MAX])
{
    if (peers->twin_told || !peers->twin[0])
        return false;
    memcpy(label, peers->twin, NAMES_LABEL_MAX);
    peers->twin_told = true;
    return true;
}

void peers_browse_start(struct peers_browse *browse, uint64_t now_ms)
{
    *browse = (struct peers_browse){.next_ms = now_ms, .interval_ms = BROWSE_FIRST_MS};
}

bool peers_browse_due(struct peers_browse *browse, uint64_t now_ms)
{
    if (now_ms < browse->next_ms)
        return false;
    browse->next_ms = now_ms + browse->interval_ms;
    browse->interval_ms =
        browse->interval_ms * 2 < BROWSE_MAX_MS ? browse->interval_ms * 2 : BROWSE_MAX_MS;
    return true;
}
