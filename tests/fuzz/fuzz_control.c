/* One control plane and three hostile peers that hold the cluster key: any message with any values,
 * in any order and at any time, while the control heads an instance and runs stages. It must not
 * crash, not leak, and never reserve more than its memory.
 *
 * links: skein_control skein_proto skein_partition
 *
 * The input is a list of operations: time, links that open and close, messages (raw bytes over the
 * fields, some with the right names put in so that they get further), requests and cancels. The
 * shell's side answers each action at once.
 *
 * Memory: at most 64 MiB. */
#include <stdlib.h>
#include <string.h>

#include "node/cluster/control.h"

enum { N_PEERS = 3, MEMORY = 4000000, LAYERS = 4 };

struct world {
    struct control *control;
    struct reader in;
    uint64_t now_us, n_requests;
    uint32_t links[N_PEERS], last_link;
    struct instance_ref refs[4]; /* names that were seen in actions */
    uint32_t n_refs;
    uint8_t self[PROTO_ID_BYTES];
    struct control_event queue[64];
    uint32_t n_queue;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t some_tokens[8] = {1, 2, 3, 4, 5, 6, 7, 8};
static struct sampled some_samples[64];

static void queue_event(struct world *w, const struct control_event *event)
{
    if (w->n_queue < 64)
        w->queue[w->n_queue++] = *event;
    else
        abort();
}

static struct control_model *some_model(void)
{
    struct control_model *m = MEM_NEW(struct control_model);

    if (!m)
        abort();
    memset(m->hash, 0xaa, PROTO_HASH_BYTES);
    m->n_layers = LAYERS;
    m->n_embd = 4;
    m->n_vocab = 100;
    m->layer_bytes = MEM_NEW_N(uint64_t, LAYERS);
    m->layer_active_bytes = MEM_NEW_N(uint64_t, LAYERS);
    m->layer_kv_bytes = MEM_NEW_N(uint64_t, LAYERS);
    m->layer_flops = MEM_NEW_N(double, LAYERS);
    if (!m->layer_bytes || !m->layer_active_bytes || !m->layer_kv_bytes || !m->layer_flops)
        abort();
    for (int i = 0; i < LAYERS; i++)
        m->layer_bytes[i] = m->layer_active_bytes[i] = 1000000;
    m->embed_bytes = 1000;
    return m;
}

static void sample(struct control_event *event, struct control_pass *pass)
{
    event->kind = EVENT_HEAD_DONE;
    event->head_done.pass = pass;
    event->head_done.n_sampled = pass->n_samples < 64 ? pass->n_samples : 64;
    event->head_done.sampled = some_samples;
    for (uint32_t i = 0; i < event->head_done.n_sampled; i++)
        some_samples[i] = (struct sampled){.sequence = pass->samples[i].sequence,
                                           .token = (uint32_t)i,
                                           .text = "xy",
                                           .text_bytes = 2};
}

/* What the shell answers. */
static void answer(struct world *w, struct control_action *action)
{
    struct control_event event = {.kind = EVENT_TICK};

    switch (action->kind) {
    case ACTION_CLOSE_LINK:
    case ACTION_DIAL:
        event.kind = EVENT_LINK_CLOSED;
        event.link_closed.link =
            action->kind == ACTION_DIAL ? action->dial.link : action->close_link;
        event.link_closed.status = STATUS_UNREACHABLE;
        for (int i = 0; i < N_PEERS; i++)
            if (w->links[i] == event.link_closed.link)
                w->links[i] = 0;
        break;
    case ACTION_OPEN_MODEL:
        event.kind = EVENT_MODEL;
        memcpy(event.model.hash, action->open_model.hash, PROTO_HASH_BYTES);
        event.model.model = some_model();
        break;
    case ACTION_LOAD_SHARD:
        event.kind = EVENT_SHARD;
        event.shard.instance = action->load_shard.instance;
        w->refs[w->n_refs++ % 4] = action->load_shard.instance;
        break;
    case ACTION_FREE_SHARD:
        event.kind = EVENT_FREED;
        event.freed = action->free_shard;
        break;
    case ACTION_TOKENIZE:
        event.kind = EVENT_PROMPT;
        event.prompt.sequence = action->tokenize.sequence;
        event.prompt.tokens = some_tokens;
        event.prompt.n_tokens = (uint32_t)(action->tokenize.body_bytes % 8);
        break;
    case ACTION_RUN_STAGE:
        event.kind = EVENT_STAGE_DONE;
        event.stage_done.pass = action->run.pass;
        action->run.pass = NULL;
        break;
    case ACTION_RUN_HEAD:
        sample(&event, action->run.pass);
        action->run.pass = NULL;
        break;
    case ACTION_SEND:
        if (action->send.message->kind == MESSAGE_PREPARE)
            w->refs[w->n_refs++ % 4] = action->send.message->prepare.instance;
        break;
    default:
        break;
    }
    if (event.kind != EVENT_TICK)
        queue_event(w, &event);
}

static void step(struct world *w, struct control_event *first)
{
    struct control_actions actions = {0};
    struct control_event event = *first;

    /* Answers to answers, for a while: a sequence of 4 tokens needs some dozens. */
    for (int round = 0; round < 200; round++) {
        if (control_step(w->control, &event, w->now_us, &actions) != STATUS_OK)
            abort();
        if (control_reserved_bytes(w->control) > MEMORY)
            abort();
        for (size_t i = 0; i < actions.n; i++)
            answer(w, &actions.items[i]);
        control_actions_free(&actions);
        if (w->n_queue == 0)
            return;
        event = w->queue[0];
        memmove(w->queue, w->queue + 1, --w->n_queue * sizeof *w->queue);
    }
    abort(); /* it keeps itself busy */
}

static void peer_card(const struct world *w, struct node_card *card)
{
    memset(card, 0, sizeof *card);
    strcpy(card->name, "peer");
    card->memory_bytes = card->memory_free_bytes = MEMORY;
    card->read_bytes_per_second = 1e10;
    card->n_models = 1;
    memset(card->models[0].hash, 0xaa, PROTO_HASH_BYTES);
    strcpy(card->models[0].name, "toy");
    (void)w;
}

static void peer_id(uint32_t peer, uint8_t id[PROTO_ID_BYTES])
{
    memset(id, (int)(0x40 + 0x20 * peer), PROTO_ID_BYTES);
}

static void open_link(struct world *w, uint32_t peer)
{
    struct control_event event = {.kind = EVENT_LINK_OPEN};
    struct message *card = message_new(MESSAGE_CARD);

    if (!card)
        abort();
    w->links[peer] = ++w->last_link;
    event.link_open.link = w->links[peer];
    peer_id(peer, event.link_open.node_id);
    step(w, &event);
    peer_card(w, &card->card);
    memset(&event, 0, sizeof event);
    event.kind = EVENT_MESSAGE;
    event.message.link = w->last_link;
    event.message.message = card;
    step(w, &event);
}

/* The right names at the right places, so that the message is not dropped at once. */
static void put_names(struct world *w, struct message *m, uint32_t peer, uint8_t how)
{
    if (how & 1)
        m->outcome.instance = w->refs[how >> 1 & 3];
    if (m->kind == MESSAGE_PREPARE && how & 8) {
        struct message_prepare *p = &m->prepare;

        peer_id(peer, p->instance.head);
        peer_id(peer, p->stages[0].node_id);
        memcpy(p->stages[1].node_id, w->self, PROTO_ID_BYTES);
        memset(p->model_hash, 0xaa, PROTO_HASH_BYTES);
        p->stage = 1;
        p->n_stages = 2;
        p->stages[1].layer_end = p->n_layers = 2;
        p->stages[0].layer_end = p->stages[1].layer_begin = 1;
        p->n_slots = p->n_kv_blocks = p->max_rows = p->n_embd = 2;
        p->n_ctx_tokens = 64;
    }
    if (m->kind == MESSAGE_SUBMIT)
        m->submit.spec.ignore_end = how & 16; /* the codec only makes true booleans */
    for (size_t i = 0; m->kind == MESSAGE_CARD && i < COUNT_OF(m->card.holdings); i++)
        m->card.holdings[i].ready = how & 16;
    if (m->kind == MESSAGE_SUBMIT && how & 8)
        strcpy(m->submit.spec.model, "toy");
}

static void send_message(struct world *w, uint32_t peer)
{
    struct control_event event = {.kind = EVENT_MESSAGE};
    struct message *m = message_new(MESSAGE_PING);
    uint8_t kind = reader_u8(&w->in) % (MESSAGE_KIND_LIMIT + 1);
    size_t n = reader_u8(&w->in), offset = reader_u8(&w->in), payload = reader_u8(&w->in) % 80;
    uint8_t how = reader_u8(&w->in);
    const uint8_t *bytes = reader_take(&w->in, n);

    if (!m)
        abort();
    m->kind = (enum message_kind)kind;
    if (bytes && n)
        memcpy((uint8_t *)&m->card + offset * 4, bytes, n);
    if (payload) {
        m->payload = mem_aligned(64, payload, 1);
        if (!m->payload)
            abort();
        memset(m->payload, how, payload);
        m->payload_bytes = payload;
    }
    put_names(w, m, peer, how);
    event.message.link = w->links[peer];
    event.message.message = m;
    step(w, &event);
}

static void operation(struct world *w)
{
    uint8_t op = reader_u8(&w->in);
    uint32_t peer = op / 16u % N_PEERS;
    struct control_event event = {.kind = EVENT_TICK};

    w->now_us += 1000;
    if (op % 16 == 0) {
        w->now_us += 100000u * reader_u8(&w->in);
        step(w, &event);
    } else if (!w->links[peer]) {
        open_link(w, peer);
    } else if (op % 16 == 1) {
        event.kind = EVENT_LINK_CLOSED;
        event.link_closed.link = w->links[peer];
        w->links[peer] = 0;
        step(w, &event);
    } else if (op % 16 == 2) {
        event.kind = EVENT_REQUEST;
        event.request.handle = ++w->n_requests;
        event.request.spec.kind = REQUEST_TEXT;
        event.request.spec.repeat_penalty = 1;
        event.request.spec.max_tokens = 1 + reader_u8(&w->in) % 4u;
        strcpy(event.request.spec.model, "toy");
        event.request.body = "hello";
        event.request.body_bytes = 5;
        step(w, &event);
    } else if (op % 16 == 3) {
        event.kind = EVENT_CANCEL;
        event.cancel = w->n_requests;
        step(w, &event);
    } else {
        send_message(w, peer);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world w;
    struct control_options options = {
        .seed = 1, .n_ctx_tokens = 64, .n_slots = 2, .max_rows = 4, .max_queue = 4};

    log_level_set(LOG_ERROR);
    memset(&w, 0, sizeof w);
    w.in = reader_of(data, size);
    w.now_us = 1000000;
    memset(w.self, 0x50, PROTO_ID_BYTES);
    memcpy(options.self_id, w.self, PROTO_ID_BYTES);
    peer_card(&w, &options.card);
    if (control_new(&options, w.now_us, &w.control) != STATUS_OK)
        abort();
    for (int i = 0; i < 200 && reader_left(&w.in); i++)
        operation(&w);
    control_free(&w.control);
    return 0;
}
