/* mDNS on one interface, over libmdnsd, whose headers are included here and nowhere else (their
 * macros leak). The library is a protocol engine without sockets: it parses and builds packets
 * (1035.h), and its daemon announces and answers. Both are used; the other half of the daemon, its
 * cache and its queries, is not, for what it does in version 0.12 (Debian 12):
 *
 *   - removing a query indexes its table of 109 with a hash modulo 1009, so a query can never be
 *     removed, and each node that was ever seen would need one;
 *   - its cache takes every record of every packet and forgets none for a day;
 *   - a query is repeated three times and never again, records end at half their life, additional
 *     records are not read, and known answers go out malformed where the sender's address is kept.
 *
 * So answers go to our own table (peers.c), which is bounded and runs on virtual time in tests, and
 * the daemon sees only questions about our own records. What else has to be known about the daemon:
 *
 *   - Records are published as `shared`, for `unique` ones are probed for 750 ms before the first
 *     announcement. Our names need no probing (names.c). The cache-flush bit, which shared records
 *     do not get, is set on the finished packet.
 *   - mdnsd_done and mdnsd_shutdown link one record into several lists through one pointer.
 * Instead, goodbyes are built here, and a changed set of records means a new daemon.
 *   - It wants a question's class to be exactly IN and names in the very same case; questions are
 *     therefore translated to the names that were published, which also lets the answer to a
 *     question for all instances carry SRV, TXT and addresses: one packet instead of three rounds.
 *   - Service enumeration (RFC 6763 section 9) sets a flag that only mdnsd_step clears and that
 *     makes it drop other answers; that one record is answered here.
 *   - It reads the wall clock. When that jumps (a box without a battery clock gets the time),
 * planned announcements would wait for years: the daemon is made anew.
 *
 * Every packet is checked (packet.c) before the library's parser sees it, and so is every packet
 * that the library built, before it is sent. The library allocates with malloc; what it cannot
 * allocate makes a malformed packet, which is then not sent. */
#include "discovery/mdns.h"

#include <string.h>
#include <time.h>

#include <libmdnsd/mdnsd.h>

#include "discovery/txt.h"

enum {
    CLASS_IN = 1,
    CLASS_UNIQUE = 0x8001, /* IN with the cache-flush bit; in a question: unicast wanted */
    CLASS_FLUSH = 0x8000,
    TYPE_ANY = 255,
    CLOCK_JUMP_MS = 1000,
    ANSWER_MS = 100,          /* ten packets of answers per second … */
    ANSWERS_BURST_MS = 2000,  /* … and twenty at once */
    QUESTION_FIXED_BYTES = 32 /* types, classes and pointers of the four questions about a node */
};

/* The questions for us that one packet can hold. */
enum {
    ASKED_PTR = 1,
    ASKED_SRV = 2,
    ASKED_TXT = 4,
    ASKED_A = 8,
    ASKED_AAAA = 16,
    ASKED_TYPES = 32
};

struct mdns {
    mdns_daemon_t *daemon; /* NULL: nothing published */
    struct names names;
    struct discovery_card card;
    struct mdns_address addresses[DISCOVERY_MAX_ADDRESSES];
    size_t n_addresses;
    int64_t clock_offset_ms;
    uint64_t answer_tokens_ms;
    bool types_asked;
    struct question ours[5];               /* at most one for each of the bits above */
    struct message message;                /* of the call that runs */
    uint8_t packet[PACKET_MAX_BYTES + 64]; /* with zeros behind it, as the parser wants */
};

static int64_t clock_offset_ms(uint64_t now_ms)
{
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    return (int64_t)wall.tv_sec * 1000 + wall.tv_nsec / 1000000 - (int64_t)now_ms;
}

enum status mdns_new(struct mdns **out)
{
    *out = MEM_NEW(struct mdns);
    return *out ? STATUS_OK : STATUS_NO_MEMORY;
}

static void unpublish(struct mdns *mdns)
{
    mdnsd_free(mdns->daemon);
    mdns->daemon = NULL;
}

void mdns_free(struct mdns **mdns)
{
    if (!*mdns)
        return;
    unpublish(*mdns);
    mem_free(*mdns);
    *mdns = NULL;
}

static bool publish_addresses(struct mdns *mdns)
{
    for (size_t i = 0; i < mdns->n_addresses; i++) {
        const struct mdns_address *a = &mdns->addresses[i];
        unsigned short type = a->family == AF_INET ? QTYPE_A : QTYPE_AAAA;
        mdns_record_t *r = mdnsd_shared(mdns->daemon, mdns->names.host, type, MDNS_TTL_S);
        if (!r)
            return false;
        mdnsd_set_raw(mdns->daemon, r, (const char *)a->bytes, a->family == AF_INET ? 4 : 16);
    }
    return true;
}

static bool publish_records(struct mdns *mdns)
{
    uint8_t text[TXT_WRITE_MAX_BYTES];
    size_t n_text = txt_encode(&mdns->card, text);
    mdns_daemon_t *d = mdns->daemon;
    mdns_record_t *ptr = mdnsd_shared(d, NAMES_SERVICE, QTYPE_PTR, MDNS_TTL_S);
    mdns_record_t *srv = mdnsd_shared(d, mdns->names.instance, QTYPE_SRV, MDNS_TTL_S);
    mdns_record_t *txt = mdnsd_shared(d, mdns->names.instance, QTYPE_TXT, MDNS_TTL_S);
    if (!ptr || !srv || !txt || !publish_addresses(mdns))
        return false;
    mdnsd_set_host(d, ptr, mdns->names.instance);
    mdnsd_set_srv(d, srv, 0, 0, mdns->card.port, mdns->names.host);
    mdnsd_set_raw(d, txt, (const char *)text, (unsigned short)n_text);
    return true;
}

static enum status republish(struct mdns *mdns, uint64_t now_ms)
{
    unpublish(mdns);
    mdns->clock_offset_ms = clock_offset_ms(now_ms);
    mdns->daemon = mdnsd_new(QCLASS_IN, MDNS_SEND_MAX_BYTES);
    if (mdns->daemon && publish_records(mdns))
        return STATUS_OK;
    unpublish(mdns);
    return STATUS_NO_MEMORY;
}

enum status mdns_publish(struct mdns *mdns, const struct discovery_card *card,
                         const struct mdns_address *addresses, size_t n_addresses, uint64_t now_ms)
{
    mdns->card = *card;
    names_make(card, &mdns->names);
    mdns->n_addresses =
        n_addresses < DISCOVERY_MAX_ADDRESSES ? n_addresses : DISCOVERY_MAX_ADDRESSES;
    memcpy(mdns->addresses, addresses, mdns->n_addresses * sizeof *addresses);
    return republish(mdns, now_ms);
}

/* One record of a parsed packet as peers.c wants it; false where it says nothing about nodes. The
 * label is written over the name, in the packet's own memory. */
static bool to_record(const struct resource *rr, struct record *out)
{
    char label[NAMES_LABEL_MAX];
    char *name = rr->type == QTYPE_PTR ? rr->known.ptr.name : rr->name;
    *out = (struct record){.ttl_s = rr->ttl > UINT32_MAX ? UINT32_MAX : (uint32_t)rr->ttl,
                           .flush = (rr->class & CLASS_FLUSH) != 0};
    if ((rr->class & ~CLASS_FLUSH) != CLASS_IN)
        return false;
    names_lower(rr->name);
    names_lower(name);
    out->name = name;
    switch (rr->type) {
    case QTYPE_A:
    case QTYPE_AAAA:
        out->kind = RECORD_ADDRESS;
        out->family = rr->type == QTYPE_A ? AF_INET : AF_INET6;
        memcpy(out->address, rr->rdata, rr->type == QTYPE_A ? 4 : 16);
        return true;
    case QTYPE_PTR:
        out->kind = RECORD_PTR;
        return strcmp(rr->name, NAMES_SERVICE) == 0 && names_label_of(name, label);
    case QTYPE_SRV:
        out->kind = RECORD_SRV;
        out->host = rr->known.srv.name;
        out->port = rr->known.srv.port;
        names_lower(rr->known.srv.name);
        return names_label_of(name, label);
    case QTYPE_TXT:
        out->kind = RECORD_TXT;
        out->text = rr->rdata;
        out->text_bytes = rr->rdlength;
        return names_label_of(name, label);
    default:
        return false;
    }
}

static size_t read_records(struct resource *from, size_t n_from, struct record *records, size_t n)
{
    for (size_t i = 0; i < n_from && n < MDNS_MAX_RECORDS; i++) {
        if (to_record(&from[i], &records[n]))
            n++;
    }
    return n;
}

/* Names are shared within the parsed packet, so they are cut to labels only when all were compared;
 * an instance's name is cut at its first dot, and cutting twice does no harm. */
static void cut_labels(struct record *records, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (records[i].kind != RECORD_ADDRESS) {
            char *name = (char *)(uintptr_t)records[i].name;
            name[strcspn(name, ".")] = '\0';
        }
    }
}

static unsigned asked_by(const struct mdns *mdns, const struct question *q)
{
    bool any = q->type == TYPE_ANY;
    if ((q->class & ~CLASS_FLUSH) != CLASS_IN)
        return 0;
    if (strcmp(q->name, NAMES_ENUMERATION) == 0)
        return any || q->type == QTYPE_PTR ? ASKED_TYPES : 0;
    if (strcmp(q->name, NAMES_SERVICE) == 0)
        return any || q->type == QTYPE_PTR ? ASKED_PTR : 0;
    if (strcmp(q->name, mdns->names.instance) == 0)
        return (any || q->type == QTYPE_SRV ? ASKED_SRV : 0u) |
               (any || q->type == QTYPE_TXT ? ASKED_TXT : 0u);
    if (strcmp(q->name, mdns->names.host) == 0)
        return (any || q->type == QTYPE_A ? ASKED_A : 0u) |
               (any || q->type == QTYPE_AAAA ? ASKED_AAAA : 0u);
    return 0;
}

/* Whoever asks for all instances says which it knows (RFC 6762 section 7.1); we are silent where we
 * are among them, unless our record's life there is more than half over. */
static bool knows_us(const struct mdns *mdns, const struct message *m)
{
    for (size_t i = 0; i < m->ancount; i++) {
        const struct resource *rr = &m->an[i];
        if (rr->type != QTYPE_PTR || rr->ttl < MDNS_TTL_S / 2)
            continue;
        names_lower(rr->known.ptr.name);
        if (strcmp(rr->known.ptr.name, mdns->names.instance) == 0)
            return true;
    }
    return false;
}

static bool may_answer(struct mdns *mdns, uint64_t now_ms)
{
    if (mdns->answer_tokens_ms < now_ms)
        mdns->answer_tokens_ms = now_ms;
    if (mdns->answer_tokens_ms + ANSWER_MS > now_ms + ANSWERS_BURST_MS)
        return false;
    mdns->answer_tokens_ms += ANSWER_MS;
    return true;
}

static void take_questions(struct mdns *mdns, uint64_t now_ms)
{
    struct message *m = &mdns->message;
    unsigned asked = 0;
    for (size_t i = 0; i < m->qdcount; i++) {
        names_lower(m->qd[i].name);
        asked |= asked_by(mdns, &m->qd[i]);
    }
    if ((asked & ASKED_PTR) && knows_us(mdns, m))
        asked &= ~(unsigned)ASKED_PTR;
    if (asked & ASKED_PTR)
        asked |= ASKED_SRV | ASKED_TXT | ASKED_A | ASKED_AAAA;
    if (!asked || !may_answer(mdns, now_ms))
        return;
    mdns->types_asked = mdns->types_asked || (asked & ASKED_TYPES);

    struct names *names = &mdns->names;
    struct {
        unsigned bit;
        struct question question;
    } all[] = {{ASKED_PTR, {(char[]){NAMES_SERVICE}, QTYPE_PTR, QCLASS_IN}},
               {ASKED_SRV, {names->instance, QTYPE_SRV, QCLASS_IN}},
               {ASKED_TXT, {names->instance, QTYPE_TXT, QCLASS_IN}},
               {ASKED_A, {names->host, QTYPE_A, QCLASS_IN}},
               {ASKED_AAAA, {names->host, QTYPE_AAAA, QCLASS_IN}}};
    memset(m, 0, sizeof *m);
    m->qd = mdns->ours;
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        if (asked & all[i].bit)
            mdns->ours[m->qdcount++] = all[i].question;
    }
    if (m->qdcount > 0)
        mdnsd_in(mdns->daemon, m, (struct in_addr){0}, MDNS_PORT);
}

size_t mdns_in(struct mdns *mdns, const uint8_t *data, size_t size_bytes, uint64_t now_ms,
               struct record records[static MDNS_MAX_RECORDS])
{
    if (packet_check(data, size_bytes) != STATUS_OK)
        return 0;
    memset(mdns->packet, 0, sizeof mdns->packet);
    memcpy(mdns->packet, data, size_bytes);
    memset(&mdns->message, 0, sizeof mdns->message);
    struct message *m = &mdns->message;
    if (message_parse(m, mdns->packet) != 0)
        return 0;
    if (!m->header.qr) {
        if (mdns->daemon)
            take_questions(mdns, now_ms);
        return 0;
    }
    size_t n = read_records(m->an, m->ancount, records, 0);
    n = read_records(m->ar, m->arcount, records, n);
    cut_labels(records, n);
    return n;
}

/* The finished packet, if it is sound and fits. */
static size_t finish(struct mdns *mdns, uint8_t *out)
{
    int n = message_packet_len(&mdns->message);
    uint8_t *packet = message_packet(&mdns->message);
    if (n <= PACKET_HEADER_BYTES || n > MDNS_SEND_MAX_BYTES ||
        packet_check(packet, (size_t)n) != STATUS_OK)
        return 0;
    memcpy(out, packet, (size_t)n);
    return (size_t)n;
}

static void begin(struct mdns *mdns, bool answer)
{
    memset(&mdns->message, 0, sizeof mdns->message);
    mdns->message.header.qr = answer;
    mdns->message.header.aa = answer;
}

static void add_ptr(struct mdns *mdns, const char *name, unsigned long ttl, const char *target)
{
    message_an(&mdns->message, (char *)(uintptr_t)name, QTYPE_PTR, CLASS_IN, ttl);
    message_rdata_name(&mdns->message, (char *)(uintptr_t)target);
}

size_t mdns_out(struct mdns *mdns, uint64_t now_ms, uint8_t out[static MDNS_SEND_MAX_BYTES])
{
    if (!mdns->daemon)
        return 0;
    if (mdns->types_asked) {
        mdns->types_asked = false;
        begin(mdns, true);
        add_ptr(mdns, NAMES_ENUMERATION, MDNS_TTL_S, NAMES_SERVICE);
        return finish(mdns, out);
    }
    int64_t jump = clock_offset_ms(now_ms) - mdns->clock_offset_ms;
    if ((jump > CLOCK_JUMP_MS || jump < -CLOCK_JUMP_MS) && republish(mdns, now_ms) != STATUS_OK)
        return 0;
    struct in_addr to;
    unsigned short port;
    if (mdnsd_out(mdns->daemon, &mdns->message, &to, &port) <= 0)
        return 0;
    size_t n = finish(mdns, out);
    if (n > 0)
        packet_mark_unique(out, n);
    return n;
}

uint64_t mdns_next_ms(struct mdns *mdns, uint64_t now_ms)
{
    if (!mdns->daemon)
        return UINT64_MAX;
    const struct timeval *wait = mdnsd_sleep(mdns->daemon);
    if (wait->tv_sec < 0 || wait->tv_usec < 0)
        return now_ms + 1;
    /* rounded up, and never at once: a loop that has just drained mdns_out must not spin */
    return now_ms + 1 + (uint64_t)wait->tv_sec * 1000 + (uint64_t)wait->tv_usec / 1000;
}

size_t mdns_browse(struct mdns *mdns, const struct peers_known *known, size_t n_known,
                   uint8_t out[static MDNS_SEND_MAX_BYTES])
{
    begin(mdns, false);
    message_qd(&mdns->message, (char[]){NAMES_SERVICE}, QTYPE_PTR, CLASS_IN);
    /* we know ourselves, so that our own question, which comes back to us, is not answered */
    if (mdns->daemon)
        add_ptr(mdns, NAMES_SERVICE, MDNS_TTL_S, mdns->names.instance);
    char instance[NAMES_TEXT_MAX];
    for (size_t i = 0; i < n_known; i++) {
        size_t n = (size_t)message_packet_len(&mdns->message);
        if (n + NAMES_LABEL_MAX + sizeof NAMES_SERVICE + 16 > MDNS_SEND_MAX_BYTES)
            break;
        names_instance_of(known[i].label, instance);
        add_ptr(mdns, NAMES_SERVICE, known[i].ttl_s, instance);
    }
    return finish(mdns, out);
}

size_t mdns_ask(struct mdns *mdns, const struct peers_question *questions, size_t *n,
                uint8_t out[static MDNS_SEND_MAX_BYTES])
{
    begin(mdns, false);
    size_t taken = 0;
    for (; taken < *n; taken++) {
        const struct peers_question *q = &questions[taken];
        size_t wanted = QUESTION_FIXED_BYTES + 2 * sizeof q->label + strlen(q->host);
        if ((size_t)message_packet_len(&mdns->message) + wanted > MDNS_SEND_MAX_BYTES)
            break;
        char name[NAMES_TEXT_MAX];
        names_instance_of(q->label, name);
        message_qd(&mdns->message, name, QTYPE_SRV, CLASS_IN);
        message_qd(&mdns->message, name, QTYPE_TXT, CLASS_IN);
        if (!q->host[0])
            continue;
        message_qd(&mdns->message, (char *)(uintptr_t)q->host, QTYPE_A, CLASS_IN);
        message_qd(&mdns->message, (char *)(uintptr_t)q->host, QTYPE_AAAA, CLASS_IN);
    }
    *n = taken;
    return taken > 0 ? finish(mdns, out) : 0;
}

size_t mdns_goodbye(struct mdns *mdns, uint8_t out[static MDNS_SEND_MAX_BYTES])
{
    if (!mdns->daemon)
        return 0;
    unpublish(mdns);
    begin(mdns, true);
    struct message *m = &mdns->message;
    struct names *names = &mdns->names;
    uint8_t text[TXT_WRITE_MAX_BYTES];
    size_t n_text = txt_encode(&mdns->card, text);
    add_ptr(mdns, NAMES_SERVICE, 0, names->instance);
    message_an(m, names->instance, QTYPE_SRV, CLASS_UNIQUE, 0);
    message_rdata_srv(m, 0, 0, mdns->card.port, names->host);
    message_an(m, names->instance, QTYPE_TXT, CLASS_UNIQUE, 0);
    message_rdata_raw(m, text, (unsigned short)n_text);
    for (size_t i = 0; i < mdns->n_addresses; i++) {
        const struct mdns_address *a = &mdns->addresses[i];
        bool v4 = a->family == AF_INET;
        message_an(m, names->host, v4 ? QTYPE_A : QTYPE_AAAA, CLASS_UNIQUE, 0);
        message_rdata_raw(m, (unsigned char *)(uintptr_t)a->bytes, v4 ? 4 : 16);
    }
    return finish(mdns, out);
}
