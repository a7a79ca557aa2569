/* The virtual network: connections that keep order in each direction and promise nothing else.
 *
 * Every message has its own random delay but never overtakes an earlier one of the same direction.
 * Messages over a cut wait until it heals or the link is given up. Closing sends an end behind what
 * was sent before; a crash sends it at once, or nothing at all. A dial is answered by the listener
 * first and is known to the dialler with the listener's first parcel, as the handshake has it. */
#include "tests/sim/sim.h"

#include <string.h>

static struct sim_wire *wire_of(struct sim *sim, int node, uint32_t link, int *end, int *index)
{
    int *n;
    struct sim_wire *wires = sim_wires(sim, &n);

    for (int i = *n - 1; i >= 0; i--)
        for (int k = 0; k < 2; k++)
            if (wires[i].node[k] == node && wires[i].link[k] == link && !wires[i].gone[k] &&
                wires[i].incarnation[k] == sim_node(sim, node)->incarnation) {
                *end = k;
                if (index)
                    *index = i;
                return &wires[i];
            }
    return NULL;
}

static uint64_t some_delay(struct sim *sim)
{
    uint64_t most = sim_options_of(sim)->delay_us;
    uint64_t delay = 50 + sim_below(sim, most);

    if (most == 0) /* a golden trace wants no chance */
        return 1000;
    return sim_below(sim, 50) == 0 ? delay * 10 : delay;
}

/* Puts a parcel on its way towards node[end]. */
static void wire_post(struct sim *sim, int index, int end, enum sim_parcel_kind kind,
                      struct message *message)
{
    int *n;
    struct sim_wire *wire = &sim_wires(sim, &n)[index];
    struct sim_parcel *parcel = MEM_NEW(struct sim_parcel);
    uint64_t due_us = sim_now(sim) + some_delay(sim);

    if (due_us < wire->due_us[end])
        due_us = wire->due_us[end];
    wire->due_us[end] = due_us;
    parcel->due_us = due_us;
    parcel->kind = kind;
    parcel->message = message;
    if (!wire->first[end])
        sim_pump_at(sim, due_us, index, end);
    if (!wire->last[end] || !wire->first[end])
        wire->last[end] = &wire->first[end];
    *wire->last[end] = parcel;
    wire->last[end] = &parcel->next;
}

static void wire_drop(struct sim_wire *wire, int end)
{
    while (wire->first[end]) {
        struct sim_parcel *parcel = wire->first[end];

        wire->first[end] = parcel->next;
        message_free(&parcel->message);
        mem_free(parcel);
    }
    wire->last[end] = NULL;
}

static void tell_closed(struct sim *sim, struct sim_wire *wire, int end, enum status status,
                        const char *text)
{
    struct control_event event = {.kind = EVENT_LINK_CLOSED};

    if (wire->gone[end])
        return;
    wire->gone[end] = true;
    event.link_closed.link = wire->link[end];
    event.link_closed.status = status;
    (void)snprintf(event.link_closed.text, sizeof event.link_closed.text, "%s", text);
    if (sim_node(sim, wire->node[end])->incarnation == wire->incarnation[end])
        sim_event(sim, wire->node[end], &event);
}

static int node_at(struct sim *sim, const char *address)
{
    for (int i = 0; i < sim_n_nodes(sim); i++)
        if (strcmp(sim_node(sim, i)->address, address) == 0)
            return i;
    return -1;
}

void sim_net_dial(struct sim *sim, int node, uint32_t link, const char *address)
{
    int *n, other = node_at(sim, address);
    struct sim_wire *wires = sim_wires(sim, &n), *wire;

    if (*n == SIM_MAX_WIRES) {
        sim_fail(sim, "too many dials");
        return;
    }
    wire = &wires[(*n)++];
    memset(wire, 0, sizeof *wire);
    wire->node[0] = node;
    wire->node[1] = other < 0 ? node : other;
    wire->link[0] = link;
    wire->incarnation[0] = sim_node(sim, node)->incarnation;
    wire->gone[1] = true;
    if (other >= 0 && sim_is_cut(sim, node, other))
        return; /* nobody answers */
    if (other < 0 || !sim_node(sim, other)->alive ||
        (sim_faults_on(sim) && sim_chance(sim, sim_options_of(sim)->dial_fails))) {
        wire_post(sim, *n - 1, 0, PARCEL_END, NULL);
        return;
    }
    if (sim_node(sim, other)->foreign != sim_node(sim, node)->foreign) {
        wire->refused = true;
        wire_post(sim, *n - 1, 0, PARCEL_END, NULL);
        return;
    }
    wire->incarnation[1] = sim_node(sim, other)->incarnation;
    wire->gone[1] = false;
    wire_post(sim, *n - 1, 1, PARCEL_OPEN, NULL);
}

void sim_net_send(struct sim *sim, int node, uint32_t link, struct message *message)
{
    int end, index;
    struct sim_wire *wire = wire_of(sim, node, link, &end, &index);

    if (!wire || !wire->open[end]) {
        sim_fail(sim, "%s sends on link %x, which is not open", sim_node(sim, node)->name, link);
        message_free(&message);
        return;
    }
    if (wire->gone[1 - end] || wire->silent) {
        message_free(&message);
        return;
    }
    wire_post(sim, index, 1 - end, PARCEL_MESSAGE, message);
}

void sim_net_close(struct sim *sim, int node, uint32_t link)
{
    int end, index;
    struct sim_wire *wire = wire_of(sim, node, link, &end, &index);

    if (!wire) {
        sim_fail(sim, "%s closes link %x, which it does not have", sim_node(sim, node)->name, link);
        return;
    }
    wire_drop(wire, end);
    if (!wire->gone[1 - end] && !wire->silent)
        wire_post(sim, index, 1 - end, PARCEL_END, NULL);
    tell_closed(sim, wire, end, STATUS_CLOSED, "");
}

void sim_net_crash(struct sim *sim, int node, bool silently)
{
    int *n;
    struct sim_wire *wires = sim_wires(sim, &n);

    for (int i = 0; i < *n; i++)
        for (int end = 0; end < 2; end++) {
            struct sim_wire *wire = &wires[i];

            if (wire->node[end] != node || wire->gone[end])
                continue;
            wire->gone[end] = true;
            wire_drop(wire, end);
            if (silently)
                wire->silent = true;
            else if (!wire->gone[1 - end])
                wire_post(sim, i, 1 - end, PARCEL_END, NULL);
        }
}

void sim_cut_link(struct sim *sim, int a, int b)
{
    int *n;
    struct sim_wire *wires = sim_wires(sim, &n);

    for (int i = 0; i < *n; i++) {
        struct sim_wire *wire = &wires[i];

        if (!((wire->node[0] == a && wire->node[1] == b) ||
              (wire->node[0] == b && wire->node[1] == a)))
            continue;
        for (int end = 0; end < 2; end++)
            if (!wire->gone[end]) {
                wire_drop(wire, end);
                wire_post(sim, i, end, PARCEL_END, NULL);
            }
    }
}

static void parcel_open(struct sim *sim, int index, int end)
{
    int *n;
    struct sim_wire *wire = &sim_wires(sim, &n)[index];
    struct sim_node *node = sim_node(sim, wire->node[end]);
    struct sim_node *other = sim_node(sim, wire->node[1 - end]);
    struct control_event event = {.kind = EVENT_LINK_OPEN};

    if (end == 1)
        wire->link[1] = ++node->last_inbound;
    wire->open[end] = true;
    event.link_open.link = wire->link[end];
    event.link_open.outbound = end == 0;
    memcpy(event.link_open.node_id, other->id, PROTO_ID_BYTES);
    (void)snprintf(event.link_open.remote.text, sizeof event.link_open.remote.text, "%s",
                   other->address);
    if (end == 1) { /* an ephemeral port */
        char *colon = strchr(event.link_open.remote.text, ':');

        if (colon)
            (void)snprintf(colon, 8, ":%u", 40000 + (unsigned)index % 20000);
        wire_post(sim, index, 0, PARCEL_OPEN, NULL);
    }
    sim_event(sim, wire->node[end], &event);
}

void sim_net_pump(struct sim *sim, int index, int end)
{
    int *n;
    struct sim_wire *wire = &sim_wires(sim, &n)[index];
    struct sim_parcel *parcel = wire->first[end];
    struct control_event event = {.kind = EVENT_MESSAGE};

    if (!parcel)
        return;
    if (sim_is_cut(sim, wire->node[0], wire->node[1])) {
        sim_pump_at(sim, sim_now(sim) + 100000, index, end);
        return;
    }
    if (parcel->due_us > sim_now(sim)) {
        sim_pump_at(sim, parcel->due_us, index, end);
        return;
    }
    wire->first[end] = parcel->next;
    if (parcel->next)
        sim_pump_at(sim, parcel->next->due_us, index, end);
    if (wire->gone[end] || wire->incarnation[end] != sim_node(sim, wire->node[end])->incarnation) {
        message_free(&parcel->message);
    } else if (parcel->kind == PARCEL_OPEN) {
        parcel_open(sim, index, end);
    } else if (parcel->kind == PARCEL_END) {
        wire_drop(wire, end);
        tell_closed(sim, wire, end, wire->refused ? STATUS_AUTH : STATUS_CLOSED,
                    wire->refused ? "another cluster key" : "closed by the other end");
    } else {
        event.message.link = wire->link[end];
        event.message.message = parcel->message;
        sim_event(sim, wire->node[end], &event);
    }
    mem_free(parcel);
}

void sim_net_free(struct sim *sim)
{
    int *n;
    struct sim_wire *wires = sim_wires(sim, &n);

    for (int i = 0; i < *n; i++) {
        wire_drop(&wires[i], 0);
        wire_drop(&wires[i], 1);
    }
}
