/* Any bytes as an mDNS packet, from the guard through libmdnsd's parser to the table of nodes and
 * to what is answered. links: skein_discovery
 *
 * The input is one packet, or several behind each other, each after a length of two bytes, where
 * its first byte is 0xff. Whatever comes in, what goes out must be a sound packet, the table stays
 * bounded, and time runs to its end.
 *
 * Memory: at most 32 MiB. */
#include <stdlib.h>
#include <string.h>

#include "discovery/mdns.h"

enum { ROUNDS_MAX = 100000, PACKETS_MAX = 32, OUT_MAX = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct world {
    struct mdns *mdns;
    struct peers *peers;
    uint64_t now_ms;
};

static void take_events(struct world *w)
{
    struct peers_event event;
    char label[NAMES_LABEL_MAX];
    unsigned n = 0;
    while (peers_take(w->peers, &event)) {
        if (event.peer.n_addresses > DISCOVERY_MAX_ADDRESSES || n++ > 4 * DISCOVERY_MAX_PEERS)
            abort();
    }
    (void)peers_take_twin(w->peers, label);
}

static void check_out(const uint8_t *packet, size_t n)
{
    if (n > 0 && packet_check(packet, n) != STATUS_OK)
        abort();
}

static void send_all(struct world *w)
{
    uint8_t out[MDNS_SEND_MAX_BYTES];
    unsigned n = 0;
    for (size_t size; (size = mdns_out(w->mdns, w->now_ms, out)) > 0; n++) {
        check_out(out, size);
        if (n > OUT_MAX)
            abort();
    }
    struct peers_question questions[DISCOVERY_MAX_PEERS];
    size_t n_questions = peers_questions(w->peers, 1, w->now_ms, questions, DISCOVERY_MAX_PEERS);
    for (size_t done = 0, taken; done < n_questions; done += taken) {
        taken = n_questions - done;
        check_out(out, mdns_ask(w->mdns, questions + done, &taken, out));
        if (taken == 0)
            abort();
    }
    struct peers_known known[DISCOVERY_MAX_PEERS];
    size_t n_known = peers_known(w->peers, 1, w->now_ms, known, DISCOVERY_MAX_PEERS);
    check_out(out, mdns_browse(w->mdns, known, n_known, out));
}

static void hear(struct world *w, const uint8_t *data, size_t size)
{
    struct record records[MDNS_MAX_RECORDS];
    size_t n = mdns_in(w->mdns, data, size, w->now_ms, records);
    if (n > MDNS_MAX_RECORDS)
        abort();
    peers_hear(w->peers, 1, "eth0", records, n, w->now_ms);
    take_events(w);
    send_all(w);
}

static void hear_all(struct world *w, const uint8_t *data, size_t size)
{
    if (size == 0 || data[0] != 0xff) {
        hear(w, data, size);
        return;
    }
    data++;
    size--;
    for (unsigned i = 0; i < PACKETS_MAX && size >= 2; i++) {
        size_t n = (size_t)(data[0] << 8 | data[1]);
        n = n < size - 2 ? n : size - 2;
        hear(w, data + 2, n);
        data += 2 + n;
        size -= 2 + n;
        w->now_ms += 700;
    }
}

/* Until nothing is left to ask or to expire. */
static void run_out(struct world *w)
{
    unsigned rounds = 0;
    for (uint64_t next; (next = peers_next_ms(w->peers)) != UINT64_MAX; rounds++) {
        struct peers_question questions[DISCOVERY_MAX_PEERS];
        w->now_ms = next > w->now_ms ? next : w->now_ms + 1;
        peers_tick(w->peers, w->now_ms);
        (void)peers_questions(w->peers, 1, w->now_ms, questions, DISCOVERY_MAX_PEERS);
        take_events(w);
        if (rounds > ROUNDS_MAX)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct mdns_address address = {.family = AF_INET, .bytes = {10, 0, 0, 1}};
    struct discovery_card card = {.name = "own", .protocol_version = 1, .port = 7333};
    struct world w = {.now_ms = 1000, .peers = peers_new(&card)};
    uint8_t out[MDNS_SEND_MAX_BYTES];
    if (mdns_new(&w.mdns) == STATUS_OK && w.peers &&
        mdns_publish(w.mdns, &card, &address, 1, w.now_ms) == STATUS_OK) {
        hear_all(&w, data, size);
        run_out(&w);
        check_out(out, mdns_goodbye(w.mdns, out));
    }
    mdns_free(&w.mdns);
    peers_free(&w.peers);
    return 0;
}
