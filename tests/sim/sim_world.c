/* Virtual time: a heap of what is to happen, and the nodes it happens to. */
#include "tests/sim/sim.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

enum happening_kind { HAPPEN_PUMP, HAPPEN_EVENT, HAPPEN_TICK };

struct happening {
    uint64_t at_us, order;
    enum happening_kind kind;
    int node, wire, end;
    uint32_t incarnation;
    struct control_event *event; /* owned */
};

struct sim {
    struct sim_options options;
    uint64_t now_us, order, random;
    struct happening *heap;
    size_t n_heap, heap_capacity;
    struct sim_node nodes[SIM_MAX_NODES];
    struct sim_model models[SIM_MAX_MODELS];
    struct sim_wire *wires;
    int n_wires;
    bool cut[SIM_MAX_NODES][SIM_MAX_NODES], faults;
    struct sim_request *requests;
    uint32_t n_requests;
    char fault[512];
};

/* ---------------------------------------------------------------- chance */

uint64_t sim_random(struct sim *sim)
{
    return sim_mix(sim->options.seed, sim->random++);
}

uint64_t sim_below(struct sim *sim, uint64_t n)
{
    return n ? sim_random(sim) % n : 0;
}

bool sim_chance(struct sim *sim, double p)
{
    return (double)(sim_random(sim) >> 11) / 9007199254740992.0 < p;
}

/* ---------------------------------------------------------------- the heap */

static bool earlier(const struct happening *a, const struct happening *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void heap_add(struct sim *sim, struct happening h)
{
    size_t i = sim->n_heap++;

    if (sim->n_heap > sim->heap_capacity) {
        sim->heap_capacity = 2 * sim->heap_capacity + 256;
        sim->heap = mem_resize(sim->heap, sim->heap_capacity, sizeof *sim->heap);
        assert(sim->heap);
    }
    h.order = sim->order++;
    h.at_us = h.at_us < sim->now_us ? sim->now_us : h.at_us;
    for (; i && earlier(&h, &sim->heap[(i - 1) / 2]); i = (i - 1) / 2)
        sim->heap[i] = sim->heap[(i - 1) / 2];
    sim->heap[i] = h;
}

static struct happening heap_take(struct sim *sim)
{
    struct happening first = sim->heap[0], last = sim->heap[--sim->n_heap];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= sim->n_heap)
            break;
        if (child + 1 < sim->n_heap && earlier(&sim->heap[child + 1], &sim->heap[child]))
            child++;
        if (!earlier(&sim->heap[child], &last))
            break;
        sim->heap[i] = sim->heap[child];
        i = child;
    }
    sim->heap[i] = last;
    return first;
}

void sim_pump_at(struct sim *sim, uint64_t at_us, int wire, int end)
{
    heap_add(sim,
             (struct happening){.at_us = at_us, .kind = HAPPEN_PUMP, .wire = wire, .end = end});
}

void sim_later(struct sim *sim, uint64_t in_us, int node, struct control_event *event)
{
    struct happening h = {.at_us = sim->now_us + in_us, .kind = HAPPEN_EVENT, .node = node};

    h.incarnation = sim->nodes[node].incarnation;
    h.event = mem_copy(event, sizeof *event);
    assert(h.event);
    heap_add(sim, h);
}

/* ---------------------------------------------------------------- beginning and end */

struct sim *sim_new(const struct sim_options *options)
{
    struct sim *sim = MEM_NEW(struct sim);

    assert(sim);
    sim->options = *options;
    sim->faults = true;
    sim->wires = MEM_NEW_N(struct sim_wire, SIM_MAX_WIRES);
    sim->requests = MEM_NEW_N(struct sim_request, SIM_MAX_REQUESTS);
    assert(sim->wires && sim->requests);
    for (int i = 0; i < SIM_MAX_MODELS; i++) {
        memset(sim->models[i].hash, 0x11 * (i + 1), PROTO_HASH_BYTES);
        (void)snprintf(sim->models[i].name, sizeof sim->models[i].name, "model-%c", 'a' + i);
        sim->models[i].n_layers = SIM_LAYERS - 2 * (uint32_t)i;
        sim->models[i].layer_bytes = 1000000;
    }
    for (int i = 0; i < options->n_nodes; i++) {
        struct sim_node *node = &sim->nodes[i];

        (void)snprintf(node->name, sizeof node->name, "n%d", i);
        (void)snprintf(node->address, sizeof node->address, "10.0.0.%d:8471", i + 1);
        memset(node->id, (int)(sim_mix(options->seed, 1000 + (uint64_t)i) & 0xff), PROTO_ID_BYTES);
        node->id[1] = (uint8_t)i;
        node->memory_bytes = 1000000000;
        node->models = 1;
        node->speed = 1;
    }
    return sim;
}

void sim_free(struct sim *sim)
{
    for (int i = 0; i < sim->options.n_nodes; i++)
        sim_shell_free(sim, i);
    sim_net_free(sim);
    while (sim->n_heap) {
        struct happening h = heap_take(sim);

        if (h.event)
            sim_shell_event_free(h.event);
        mem_free(h.event);
    }
    mem_free(sim->heap);
    mem_free(sim->wires);
    mem_free(sim->requests);
    mem_free(sim);
}

/* ---------------------------------------------------------------- getters */

uint64_t sim_now(const struct sim *sim)
{
    return sim->now_us;
}

struct sim_node *sim_node(struct sim *sim, int i)
{
    return &sim->nodes[i];
}

int sim_n_nodes(const struct sim *sim)
{
    return sim->options.n_nodes;
}

const struct sim_model *sim_model(const struct sim *sim, int i)
{
    return &sim->models[i];
}

const struct sim_options *sim_options_of(const struct sim *sim)
{
    return &sim->options;
}

struct sim_wire *sim_wires(struct sim *sim, int **n)
{
    *n = &sim->n_wires;
    return sim->wires;
}

bool sim_faults_on(const struct sim *sim)
{
    return sim->faults;
}

bool sim_is_cut(const struct sim *sim, int a, int b)
{
    return sim->cut[a][b];
}

uint32_t sim_n_requests(const struct sim *sim)
{
    return sim->n_requests;
}

struct sim_request *sim_request(struct sim *sim, uint32_t i)
{
    return &sim->requests[i];
}

const char *sim_fault(const struct sim *sim)
{
    return sim->fault;
}

void sim_fail(struct sim *sim, const char *format, ...)
{
    va_list args;

    if (sim->fault[0])
        return;
    va_start(args, format);
    (void)vsnprintf(sim->fault, sizeof sim->fault, format, args);
    va_end(args);
    sim_trace(sim, -1, "FAULT %s", sim->fault);
}

void sim_trace(struct sim *sim, int node, const char *format, ...)
{
    FILE *to = sim->options.trace_to ? sim->options.trace_to : stdout;
    va_list args;

    if (!sim->options.trace)
        return;
    (void)fprintf(to, "%9.3f %s ", (double)sim->now_us / 1e6,
                  node < 0 ? "--" : sim->nodes[node].name);
    va_start(args, format);
    (void)vfprintf(to, format, args);
    va_end(args);
    (void)fputc('\n', to);
}

/* ---------------------------------------------------------------- nodes */

static void make_card(struct sim *sim, int index, struct node_card *card)
{
    struct sim_node *node = &sim->nodes[index];

    memset(card, 0, sizeof *card);
    (void)snprintf(card->name, sizeof card->name, "%s", node->name);
    card->memory_bytes = card->memory_free_bytes = node->memory_bytes;
    card->read_bytes_per_second = 1e10 / node->speed;
    card->flops_per_second = 1e11 / node->speed;
    card->mesh_port = 8471;
    for (int i = 0; i < sim->options.n_models; i++) {
        struct model_card *model = &card->models[card->n_models];

        if (!(node->models >> i & 1))
            continue;
        card->n_models++;
        memcpy(model->hash, sim->models[i].hash, PROTO_HASH_BYTES);
        (void)snprintf(model->name, sizeof model->name, "%s", sim->models[i].name);
    }
}

void sim_start(struct sim *sim, int index)
{
    struct sim_node *node = &sim->nodes[index];
    struct control_options options = {
        .n_ctx_tokens = SIM_CTX,
        .n_slots = SIM_SLOTS,
        .max_rows = 64,
        .max_queue = 32,
        .idle_close_us = sim->options.idle_close_us ? sim->options.idle_close_us : 12 * SIM_SECOND,
        .objective = PLAN_LATENCY};
    struct control_event tick = {.kind = EVENT_TICK};

    assert(!node->alive);
    node->alive = true;
    node->incarnation++;
    node->wake_us = 0;
    node->n_texts = 0;
    memcpy(options.self_id, node->id, PROTO_ID_BYTES);
    make_card(sim, index, &options.card);
    options.seed = sim_random(sim);
    sim_trace(sim, index, "start");
    if (control_new(&options, sim->now_us, &node->control) != STATUS_OK) {
        sim_fail(sim, "control_new failed");
        node->alive = false;
        return;
    }
    sim_event(sim, index, &tick);
}

void sim_crash(struct sim *sim, int index, bool silently)
{
    struct sim_node *node = &sim->nodes[index];

    if (!node->alive)
        return;
    sim_trace(sim, index, silently ? "power lost" : "crash");
    sim_shell_free(sim, index);
    node->alive = false;
    sim_net_crash(sim, index, silently);
    for (uint32_t i = 0; i < sim->n_requests; i++)
        if (sim->requests[i].node == index && sim->requests[i].incarnation == node->incarnation)
            sim->requests[i].lost = true;
    node->incarnation++;
}

void sim_see(struct sim *sim, int index, int other)
{
    struct control_event event = {.kind = EVENT_SEEN};

    if (!sim->nodes[index].alive)
        return;
    memcpy(event.seen.node_id, sim->nodes[other].id, PROTO_ID_BYTES);
    event.seen.n_addresses = 1;
    (void)snprintf(event.seen.addresses[0].text, sizeof event.seen.addresses[0].text, "%s",
                   sim->nodes[other].address);
    sim_event(sim, index, &event);
}

void sim_see_all(struct sim *sim)
{
    for (int i = 0; i < sim->options.n_nodes; i++)
        for (int k = 0; k < sim->options.n_nodes; k++)
            if (i != k && sim->nodes[k].alive)
                sim_see(sim, i, k);
}

void sim_seed_at(struct sim *sim, int index, const char *address)
{
    struct control_event event = {.kind = EVENT_SEED};

    (void)snprintf(event.seed.text, sizeof event.seed.text, "%s", address);
    sim_event(sim, index, &event);
}

void sim_cut(struct sim *sim, int a, int b, bool cut)
{
    sim_trace(sim, a, "%s %s", cut ? "cut off from" : "joined to", sim->nodes[b].name);
    sim->cut[a][b] = sim->cut[b][a] = cut;
}

void sim_heal(struct sim *sim)
{
    sim_trace(sim, -1, "faults end");
    memset(sim->cut, 0, sizeof sim->cut);
    sim->faults = false;
}

struct sim_request *sim_ask(struct sim *sim, int index, int model, const char *body,
                            const struct request_spec *spec)
{
    struct sim_request *r = &sim->requests[sim->n_requests];
    struct control_event event = {.kind = EVENT_REQUEST};

    if (sim->n_requests == SIM_MAX_REQUESTS || !sim->nodes[index].alive)
        return NULL;
    memset(r, 0, sizeof *r);
    r->node = index;
    r->incarnation = sim->nodes[index].incarnation;
    r->handle = ++sim->n_requests;
    r->begun_us = sim->now_us;
    r->model = &sim->models[model];
    r->spec = *spec;
    (void)snprintf(r->spec.model, sizeof r->spec.model, "%s", r->model->name);
    (void)snprintf(r->body, sizeof r->body, "%s", body);
    event.request.handle = r->handle;
    event.request.spec = r->spec;
    event.request.body = r->body;
    event.request.body_bytes = strlen(r->body);
    sim_trace(sim, index, "request %u %s", (unsigned)r->handle, r->spec.model);
    sim_event(sim, index, &event);
    return r;
}

void sim_cancel(struct sim *sim, struct sim_request *r)
{
    struct control_event event = {.kind = EVENT_CANCEL, .cancel = r->handle};

    if (r->done || r->lost)
        return;
    r->cancelled = true;
    sim_trace(sim, r->node, "cancel %u", (unsigned)r->handle);
    sim_event(sim, r->node, &event);
}

/* ---------------------------------------------------------------- steps */

/* One timer a node; like real ones it may fire a little early. */
static void set_timer(struct sim *sim, int index, uint64_t wake_us)
{
    struct sim_node *node = &sim->nodes[index];
    uint64_t early_us = sim->options.delay_us && sim_chance(sim, 0.2) ? sim_below(sim, 5000) : 0;

    if (wake_us <= sim->now_us)
        sim_fail(sim, "%s asks to be woken in the past", node->name);
    else if (early_us > wake_us - sim->now_us - 1)
        early_us = wake_us - sim->now_us - 1;
    node->wake_us = wake_us - early_us;
    heap_add(sim, (struct happening){.at_us = node->wake_us,
                                     .kind = HAPPEN_TICK,
                                     .node = index,
                                     .incarnation = node->incarnation});
}

static void act_all(struct sim *sim, int index)
{
    struct sim_node *node = &sim->nodes[index];
    struct control_actions *actions = &node->actions;

    for (size_t i = 0; i < actions->n; i++) {
        struct control_action *action = &actions->items[i];

        if (action->kind == ACTION_WAKE) {
            set_timer(sim, index, action->wake_us);
        } else {
            sim_shell_act(sim, index, action);
        }
    }
    actions->n = 0;
}

void sim_event(struct sim *sim, int index, struct control_event *event)
{
    struct sim_node *node = &sim->nodes[index];
    enum status status;

    if (node->stepping) { /* the shell was asked by an action; it reports after the step */
        sim_later(sim, 0, index, event);
        return;
    }
    node->stepping = true;
    if (sim->faults && sim->options.memory_fails > 0 && sim_chance(sim, sim->options.memory_fails))
        mem_fail_after(1 + sim_below(sim, 5));
    status = control_step(node->control, event, sim->now_us, &node->actions);
    mem_fail_after(0);
    if (status != STATUS_OK && status != STATUS_NO_MEMORY)
        sim_fail(sim, "%s: control_step says %s", node->name, status_name(status));
    if (control_reserved_bytes(node->control) > node->memory_bytes)
        sim_fail(sim, "%s reserves more than its memory", node->name);
    act_all(sim, index);
    node->stepping = false;
}

static void happen(struct sim *sim, struct happening *h)
{
    struct sim_node *node = &sim->nodes[h->node];
    struct control_event tick = {.kind = EVENT_TICK};

    if (h->kind == HAPPEN_PUMP) {
        sim_net_pump(sim, h->wire, h->end);
    } else if (!node->alive || node->incarnation != h->incarnation) {
        if (h->event)
            sim_shell_event_free(h->event);
    } else if (h->kind == HAPPEN_TICK) {
        if (node->wake_us == h->at_us)
            sim_event(sim, h->node, &tick);
    } else {
        if (h->event->kind == EVENT_FREED)
            sim_shell_freed(sim, h->node, &h->event->freed);
        sim_event(sim, h->node, h->event);
        if (h->event->kind == EVENT_PROMPT)
            mem_free((void *)h->event->prompt.tokens);
        if (h->event->kind == EVENT_HEAD_DONE)
            mem_free((void *)h->event->head_done.sampled);
    }
    mem_free(h->event);
}

bool sim_run_until(struct sim *sim, uint64_t time_us)
{
    while (sim->n_heap && sim->heap[0].at_us <= time_us && !sim->fault[0]) {
        struct happening h = heap_take(sim);

        sim->now_us = h.at_us;
        happen(sim, &h);
    }
    sim->now_us = time_us;
    return !sim->fault[0];
}

/* ---------------------------------------------------------------- at rest */

bool sim_check_members(struct sim *sim)
{
    struct member_view *views = MEM_NEW_N(struct member_view, 80);

    assert(views);
    for (int i = 0; i < sim->options.n_nodes; i++) {
        size_t n = sim->nodes[i].alive ? control_members(sim->nodes[i].control, views, 80) : 0;

        for (int k = 0; k < sim->options.n_nodes && sim->nodes[i].alive; k++) {
            bool alive = false;

            for (size_t v = 0; v < n; v++)
                alive |= memcmp(views[v].node_id, sim->nodes[k].id, PROTO_ID_BYTES) == 0 &&
                         views[v].state == MEMBER_ALIVE;
            if (i != k && sim->nodes[i].foreign == sim->nodes[k].foreign &&
                alive != sim->nodes[k].alive)
                sim_fail(sim, "%s thinks that %s is %s", sim->nodes[i].name, sim->nodes[k].name,
                         alive ? "alive" : "not alive");
        }
    }
    mem_free(views);
    return !sim->fault[0];
}

static void check_text(struct sim *sim, const struct sim_request *r)
{
    char truth[SIM_MAX_TEXT];
    enum request_end end;
    uint32_t n_tokens;
    size_t len = sim_truth(r, truth, sizeof truth, &end, &n_tokens, SIM_CTX);

    if (r->end.end != end || len != r->text_bytes || memcmp(truth, r->text, len) != 0 ||
        r->n_tokens != n_tokens || r->end.n_generated != n_tokens)
        sim_fail(sim, "request %u: got '%.*s' (%u tokens, end %d), the model says '%.*s' (%u, %d)",
                 (unsigned)r->handle, (int)r->text_bytes, r->text, r->n_tokens, (int)r->end.end,
                 (int)len, truth, n_tokens, (int)end);
}

bool sim_check_requests(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->n_requests; i++) {
        const struct sim_request *r = &sim->requests[i];

        if (r->lost)
            continue;
        if (!r->done)
            sim_fail(sim, "request %u at n%d has not ended", (unsigned)r->handle, r->node);
        else if (r->end.status == STATUS_OK && r->end.end != REQUEST_END_CANCELLED)
            check_text(sim, r);
        else if (r->must_succeed)
            sim_fail(sim, "request %u at n%d failed: %s %s", (unsigned)r->handle, r->node,
                     status_name(r->end.status), r->end.text);
    }
    return !sim->fault[0];
}

bool sim_check_empty(struct sim *sim)
{
    for (int i = 0; i < sim->options.n_nodes; i++) {
        struct sim_node *node = &sim->nodes[i];

        if (!node->alive)
            continue;
        if (control_reserved_bytes(node->control) || control_open_requests(node->control))
            sim_fail(sim, "%s still reserves %llu bytes for %zu requests", node->name,
                     (unsigned long long)control_reserved_bytes(node->control),
                     control_open_requests(node->control));
        for (struct sim_shard *shard = node->shards; shard; shard = shard->next)
            if (!shard->gone)
                sim_fail(sim, "%s still has a shard", node->name);
        if (node->n_texts)
            sim_fail(sim, "%s still keeps %u detokenizers", node->name, node->n_texts);
    }
    return !sim->fault[0];
}
