/* Discovery as a whole: which interfaces are in use, one timer, and the events for the owner.
 *
 *   netif_uv: links and addresses ──> refresh: open, reopen, close ifaces
 *   mdns_uv:  packets ──> peers.c ──> on_peer, on_gone, on_foreign
 *   one timer, at the earliest deadline of all ──> drive: expire, send what is due, deliver
 *
 * Interfaces are kept in slots. With --interface the slots are the names given, for good; without
 * it, a slot belongs to each interface that is up, has a carrier, multicast and an address, and is
 * not a loopback. Each slot is on its own: what happens on one never delays another. A slot tells
 * its owner only what changed, so an interface that stays unusable is told once, however often it
 * is tried.
 *
 * A changed address means that the sockets are opened anew and everything is announced again; what
 * was heard there stays. An interface that went takes with it what was heard there.
 *
 * Callbacks may call discovery_update, _doubt and _close: those only set the timer or the closing
 * flag, which every loop here looks at after each callback. */
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "discovery/mdns_uv.h"

enum {
    UPDATE_PAUSE_MS = 1000, /* RFC 6762 section 6: a record is not multicast more often */
    PEERS_PAUSE_MS = 50,    /* the table's questions have a bounded rate; see mdns_uv.c */
    IDLE_MS = 60000
};

struct slot {
    bool used;
    char name[IF_NAMESIZE];
    struct iface *iface;
    bool told;
    bool usable;
    char why[sizeof((struct fault *)0)->text];
};

struct discovery {
    uv_loop_t *loop;
    uv_timer_t timer;
    struct netif_watch *watch;
    struct discovery_events events;
    struct discovery_card card;
    struct peers *peers;
    bool by_name; /* the owner named the interfaces */
    bool closing;
    bool told_too_many;
    unsigned n_open;    /* timer, watch and ifaces that are not closed yet */
    uint64_t update_ms; /* when to announce the changed card; UINT64_MAX: it has not changed */
    uint64_t updated_ms;
    struct slot slots[DISCOVERY_MAX_INTERFACES];
};

static void drive(struct discovery *d);

static void on_timer(uv_timer_t *timer)
{
    drive(timer->data);
}

static void wake(struct discovery *d, uint64_t in_ms)
{
    if (!d->closing)
        uv_timer_start(&d->timer, on_timer, in_ms, 0);
}

static void on_part_closed(void *owner)
{
    struct discovery *d = owner;
    if (--d->n_open > 0)
        return;
    struct discovery_events events = d->events;
    peers_free(&d->peers);
    mem_free(d);
    events.on_closed(events.owner);
}

static void on_timer_closed(uv_handle_t *handle)
{
    on_part_closed(handle->data);
}

static void slot_tell(struct discovery *d, struct slot *slot, bool usable, const char *why)
{
    if (slot->told && slot->usable == usable && strcmp(slot->why, why) == 0)
        return;
    slot->told = true;
    slot->usable = usable;
    snprintf(slot->why, sizeof slot->why, "%s", why);
    d->events.on_interface(d->events.owner, slot->name, usable, slot->why);
}

/* What changed in the table since it was last looked at. */
static void deliver(struct discovery *d)
{
    struct peers_event event;
    char label[NAMES_LABEL_MAX];
    while (!d->closing && peers_take(d->peers, &event)) {
        if (event.kind == PEERS_FOUND)
            d->events.on_peer(d->events.owner, &event.peer);
        else if (event.kind == PEERS_FOREIGN)
            d->events.on_foreign(d->events.owner, &event.peer);
        else
            d->events.on_gone(d->events.owner, event.peer.card.node_id);
    }
    if (!d->closing && peers_take_twin(d->peers, label))
        log_event(
            LOG_WARN, "discovery",
            "twin name=%s: another node has this node's identity; was its state folder copied? "
            "Remove the copy's identity so that it makes its own",
            label);
}

static struct slot *slot_of(struct discovery *d, const struct iface *iface)
{
    for (size_t i = 0; i < DISCOVERY_MAX_INTERFACES; i++) {
        if (d->slots[i].used && d->slots[i].iface == iface)
            return &d->slots[i];
    }
    return NULL;
}

static void on_records(void *owner, struct iface *iface, const struct record *records, size_t n)
{
    struct discovery *d = owner;
    const struct netif *netif = iface_netif(iface);
    peers_hear(d->peers, netif->index, netif->name, records, n, uv_now(d->loop));
    deliver(d);
}

static void on_work(void *owner, struct iface *iface)
{
    (void)iface;
    drive(owner);
}

static void on_usable(void *owner, struct iface *iface, bool usable, const char *why)
{
    struct discovery *d = owner;
    struct slot *slot = slot_of(d, iface);
    if (slot)
        slot_tell(d, slot, usable, why);
}

static void slot_close(struct discovery *d, struct slot *slot, bool goodbye, bool forget)
{
    struct iface *iface = slot->iface;
    if (!iface)
        return;
    slot->iface = NULL;
    if (forget)
        peers_drop_interface(d->peers, iface_netif(iface)->index);
    iface_close(iface, goodbye);
}

static const char *netif_problem(const struct netif *netif)
{
    if (!netif)
        return "there is no such interface";
    if (!netif->up)
        return netif->loopback ? "it is down (ip link set lo up)" : "it is down";
    if (!netif->carrier)
        return "it has no carrier (cable or wireless network)";
    if (netif->n_addresses == 0)
        return "it has no IPv4 or IPv6 address";
    return NULL;
}

static bool same_netif(const struct netif *a, const struct netif *b)
{
    if (a->index != b->index || a->n_addresses != b->n_addresses)
        return false;
    for (size_t i = 0; i < a->n_addresses; i++) {
        if (a->addresses[i].family != b->addresses[i].family ||
            memcmp(a->addresses[i].bytes, b->addresses[i].bytes, sizeof a->addresses[i].bytes) != 0)
            return false;
    }
    return true;
}

static void slot_open(struct discovery *d, struct slot *slot, const struct netif *netif)
{
    struct iface_events events = {.on_records = on_records,
                                  .on_work = on_work,
                                  .on_usable = on_usable,
                                  .on_closed = on_part_closed,
                                  .owner = d};
    struct fault fault = {0};
    if (iface_open(d->loop, netif, &events, &slot->iface, &fault) != STATUS_OK) {
        slot_tell(d, slot, false, fault.text);
        return;
    }
    d->n_open++;
    iface_publish(slot->iface, &d->card, uv_now(d->loop));
}

/* Brings one slot in line with the interface as it is now. */
static void slot_refresh(struct discovery *d, struct slot *slot, const struct netif *netif)
{
    const char *problem = netif_problem(netif);
    if (problem) {
        slot_close(d, slot, true, true);
        slot_tell(d, slot, false, problem);
        return;
    }
    if (slot->iface) {
        const struct netif *old = iface_netif(slot->iface);
        if (same_netif(old, netif)) {
            iface_retry(slot->iface, uv_now(d->loop));
            return;
        }
        slot_close(d, slot, false, old->index != netif->index);
    }
    slot_open(d, slot, netif);
}

static const struct netif *find_netif(const struct netif *all, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(all[i].name, name) == 0)
            return &all[i];
    }
    return NULL;
}

static struct slot *find_slot(struct discovery *d, const char *name)
{
    for (size_t i = 0; i < DISCOVERY_MAX_INTERFACES; i++) {
        if (d->slots[i].used && strcmp(d->slots[i].name, name) == 0)
            return &d->slots[i];
    }
    return NULL;
}

/* A slot for an interface that nobody named but that can be used. */
static void adopt(struct discovery *d, const struct netif *netif)
{
    if (netif->loopback || !netif->multicast || netif_problem(netif) || find_slot(d, netif->name))
        return;
    for (size_t i = 0; i < DISCOVERY_MAX_INTERFACES; i++) {
        struct slot *slot = &d->slots[i];
        if (slot->used)
            continue;
        *slot = (struct slot){.used = true};
        memcpy(slot->name, netif->name, sizeof slot->name);
        return;
    }
    if (d->told_too_many)
        return;
    d->told_too_many = true;
    d->events.on_interface(d->events.owner, netif->name, false,
                           "there are more interfaces than are used without being named; "
                           "--interface picks them");
}

static void refresh(struct discovery *d)
{
    struct netif all[NETIF_MAX];
    size_t n = 0;
    if (netif_read(all, &n) != STATUS_OK)
        return;
    for (size_t i = 0; i < n && !d->by_name && !d->closing; i++)
        adopt(d, &all[i]);
    for (size_t i = 0; i < DISCOVERY_MAX_INTERFACES && !d->closing; i++) {
        struct slot *slot = &d->slots[i];
        if (!slot->used)
            continue;
        const struct netif *netif = find_netif(all, n, slot->name);
        slot_refresh(d, slot, netif);
        if (!netif && !d->by_name)
            slot->used = false;
    }
    deliver(d);
}

static void on_netif_change(void *owner)
{
    struct discovery *d = owner;
    refresh(d);
    if (!d->closing)
        drive(d);
}

static void announce_update(struct discovery *d, uint64_t now)
{
    if (now < d->update_ms)
        return;
    d->update_ms = UINT64_MAX;
    d->updated_ms = now;
    for (size_t i = 0; i < DISCOVERY_MAX_INTERFACES; i++) {
        if (d->slots[i].used && d->slots[i].iface)
            iface_update(d->slots[i].iface, &d->card, now);
    }
}

static void drive(struct discovery *d)
{
    uint64_t now = uv_now(d->loop);
    announce_update(d, now);
    peers_tick(d->peers, now);
    deliver(d);
    uint64_t next = now + IDLE_MS;
    for (size_t i = 0; i < DISCOVERY_MAX_INTERFACES && !d->closing; i++) {
        if (!d->slots[i].used || !d->slots[i].iface)
            continue;
        uint64_t at = iface_drive(d->slots[i].iface, d->peers, now);
        next = at < next ? at : next;
    }
    if (d->closing)
        return;
    uint64_t peers_ms = peers_next_ms(d->peers);
    peers_ms = peers_ms < now + PEERS_PAUSE_MS ? now + PEERS_PAUSE_MS : peers_ms;
    next = peers_ms < next ? peers_ms : next;
    next = d->update_ms < next ? d->update_ms : next;
    wake(d, next > now ? next - now : 0);
}

static enum status take_options(struct discovery *d, const struct discovery_options *options,
                                struct fault *fault)
{
    d->card = options->card;
    if (uv_random(NULL, NULL, &d->card.run, sizeof d->card.run, 0, NULL) != 0)
        d->card.run = (uint32_t)uv_hrtime();
    d->by_name = options->interfaces && options->n_interfaces > 0;
    if (d->by_name && options->n_interfaces > DISCOVERY_MAX_INTERFACES)
        return fault_set(fault, STATUS_LIMIT, "at most %d interfaces can be named",
                         DISCOVERY_MAX_INTERFACES);
    for (size_t i = 0; d->by_name && i < options->n_interfaces; i++) {
        const char *name = options->interfaces[i];
        if (strlen(name) == 0 || strlen(name) >= IF_NAMESIZE)
            return fault_set(fault, STATUS_INVALID, "'%.60s' cannot be an interface's name", name);
        if (find_slot(d, name))
            continue;
        d->slots[i].used = true;
        memcpy(d->slots[i].name, name, strlen(name) + 1);
    }
    return STATUS_OK;
}

enum status discovery_start(struct uv_loop_s *loop, const struct discovery_options *options,
                            const struct discovery_events *events, struct discovery **out,
                            struct fault *fault)
{
    struct discovery *d = MEM_NEW(struct discovery);
    if (!d)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory for discovery");
    d->loop = loop;
    d->events = *events;
    d->update_ms = UINT64_MAX;
    enum status status = take_options(d, options, fault);
    if (status == STATUS_OK) {
        d->peers = peers_new(&options->card);
        if (!d->peers || netif_watch_start(loop, on_netif_change, d, &d->watch) != STATUS_OK)
            status = fault_set(fault, STATUS_NO_MEMORY, "no memory for discovery");
    }
    if (status != STATUS_OK) {
        peers_free(&d->peers);
        mem_free(d);
        return status;
    }
    uv_timer_init(loop, &d->timer);
    d->timer.data = d;
    d->n_open = 2;
    *out = d;
    return STATUS_OK;
}

void discovery_update(struct discovery *discovery, const struct discovery_card *card)
{
    struct discovery *d = discovery;
    if (d->closing)
        return;
    uint32_t run = d->card.run;
    d->card = *card;
    d->card.run = run;
    uint64_t now = uv_now(d->loop);
    uint64_t at = d->updated_ms + UPDATE_PAUSE_MS;
    d->update_ms = at > now ? at : now;
    wake(d, d->update_ms - now);
}

void discovery_doubt(struct discovery *discovery, const uint8_t node_id[static DISCOVERY_ID_BYTES])
{
    if (discovery->closing)
        return;
    peers_doubt(discovery->peers, node_id, uv_now(discovery->loop));
    wake(discovery, 0);
}

void discovery_close(struct discovery *discovery)
{
    struct discovery *d = discovery;
    if (d->closing)
        return;
    d->closing = true;
    for (size_t i = 0; i < DISCOVERY_MAX_INTERFACES; i++) {
        if (d->slots[i].used)
            slot_close(d, &d->slots[i], true, false);
    }
    netif_watch_close(d->watch, on_part_closed);
    uv_close((uv_handle_t *)&d->timer, on_timer_closed);
}
