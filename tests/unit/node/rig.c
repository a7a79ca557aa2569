/* One control on a bench. */
#include "tests/unit/node/rig.h"

#include <stdio.h>

struct node_card rig_own, rig_other;

int rig_setup(void **state)
{
    static struct rig rig;

    rig_card(&rig_own, "own", 3 * RIG_LAYER - RIG_LAYER / 2);
    rig_model(&rig_own, RIG_MODEL, "toy");
    rig_card(&rig_other, "other", 3 * RIG_LAYER - RIG_LAYER / 2);
    rig_model(&rig_other, RIG_MODEL, "toy");
    rig_new(&rig, &rig_own, NULL);
    *state = &rig;
    return 0;
}

int rig_teardown(void **state)
{
    rig_free(*state);
    return 0;
}

void rig_id(uint8_t id[static PROTO_ID_BYTES], uint8_t first)
{
    memset(id, 0xee, PROTO_ID_BYTES);
    id[0] = first;
}

void rig_card(struct node_card *card, const char *name, uint64_t memory_bytes)
{
    memset(card, 0, sizeof *card);
    (void)snprintf(card->name, sizeof card->name, "%s", name);
    card->memory_bytes = card->memory_free_bytes = memory_bytes;
    card->read_bytes_per_second = 1e10;
    card->flops_per_second = 1e11;
    card->mesh_port = 8471;
}

void rig_model(struct node_card *card, uint8_t hash, const char *name)
{
    struct model_card *model = &card->models[card->n_models++];

    memset(model->hash, hash, PROTO_HASH_BYTES);
    (void)snprintf(model->name, sizeof model->name, "%s", name);
}

void rig_new(struct rig *rig, const struct node_card *card, const struct control_options *options)
{
    struct control_options own = {
        .n_ctx_tokens = 128, .n_slots = 2, .max_rows = 32, .max_queue = 2};

    memset(rig, 0, sizeof *rig);
    if (options)
        own = *options;
    rig_id(rig->self_id, 0x50);
    memcpy(own.self_id, rig->self_id, PROTO_ID_BYTES);
    own.card = *card;
    own.seed = 42;
    rig->now_us = 1000 * RIG_SECOND;
    assert_int_equal(control_new(&own, rig->now_us, &rig->control), STATUS_OK);
}

void rig_free(struct rig *rig)
{
    control_actions_free(&rig->actions);
    control_free(&rig->control);
}

void rig_step(struct rig *rig, struct control_event *event)
{
    control_actions_free(&rig->actions);
    assert_int_equal(control_step(rig->control, event, rig->now_us, &rig->actions), STATUS_OK);
}

void rig_tick(struct rig *rig, uint64_t by_us)
{
    struct control_event event = {.kind = EVENT_TICK};

    rig->now_us += by_us;
    rig_step(rig, &event);
}

void rig_seen(struct rig *rig, uint8_t id, const char *address)
{
    struct control_event event = {.kind = EVENT_SEEN};

    rig_id(event.seen.node_id, id);
    event.seen.n_addresses = 1;
    (void)snprintf(event.seen.addresses[0].text, sizeof event.seen.addresses[0].text, "%s",
                   address);
    rig_step(rig, &event);
}

static void rig_open(struct rig *rig, uint32_t link, uint8_t id, bool outbound)
{
    struct control_event event = {.kind = EVENT_LINK_OPEN};

    event.link_open.link = link;
    rig_id(event.link_open.node_id, id);
    event.link_open.outbound = outbound;
    (void)snprintf(event.link_open.remote.text, sizeof event.link_open.remote.text, "10.0.0.%u:%s",
                   id, outbound ? "8471" : "50123");
    rig_step(rig, &event);
}

uint32_t rig_inbound(struct rig *rig, uint8_t id)
{
    rig_open(rig, ++rig->last_inbound, id, false);
    return rig->last_inbound;
}

void rig_opened(struct rig *rig, uint32_t link, uint8_t id)
{
    rig_open(rig, link, id, true);
}

void rig_closed(struct rig *rig, uint32_t link, enum status status, const char *text)
{
    struct control_event event = {.kind = EVENT_LINK_CLOSED};

    event.link_closed.link = link;
    event.link_closed.status = status;
    (void)snprintf(event.link_closed.text, sizeof event.link_closed.text, "%s", text);
    rig_step(rig, &event);
}

void rig_message(struct rig *rig, uint32_t link, struct message *message)
{
    struct control_event event = {.kind = EVENT_MESSAGE};

    assert_non_null(message);
    event.message.link = link;
    event.message.message = message;
    rig_step(rig, &event);
}

void rig_send_card(struct rig *rig, uint32_t link, const struct node_card *card)
{
    struct message *message = message_new(MESSAGE_CARD);

    message->card = *card;
    rig_message(rig, link, message);
}

uint32_t rig_member(struct rig *rig, uint8_t id, const struct node_card *card)
{
    uint32_t link = rig_inbound(rig, id);

    rig_send_card(rig, link, card);
    return link;
}

struct control_action *rig_action(struct rig *rig, enum control_action_kind kind, int nth)
{
    for (size_t i = 0; i < rig->actions.n; i++)
        if (rig->actions.items[i].kind == kind && nth-- == 0)
            return &rig->actions.items[i];
    return NULL;
}

int rig_count(struct rig *rig, enum control_action_kind kind)
{
    int n = 0;

    while (rig_action(rig, kind, n))
        n++;
    return n;
}

struct message *rig_sent(struct rig *rig, uint32_t link, enum message_kind kind)
{
    for (size_t i = 0; i < rig->actions.n; i++) {
        struct control_action *action = &rig->actions.items[i];

        if (action->kind == ACTION_SEND && action->send.link == link &&
            action->send.message->kind == kind)
            return action->send.message;
    }
    return NULL;
}

bool rig_view(struct rig *rig, uint8_t id, struct member_view *out)
{
    static struct member_view views[100];
    uint8_t node_id[PROTO_ID_BYTES];
    size_t n = control_members(rig->control, views, 100);

    rig_id(node_id, id);
    for (size_t i = 0; i < n; i++) {
        if (memcmp(views[i].node_id, node_id, PROTO_ID_BYTES) == 0) {
            *out = views[i];
            return true;
        }
    }
    return false;
}

void rig_pass_time(struct rig *rig, uint64_t us, const uint32_t *links, size_t n)
{
    uint64_t end_us = rig->now_us + us;

    while (rig->now_us < end_us) {
        rig_tick(rig,
                 end_us - rig->now_us < RIG_SECOND / 2 ? end_us - rig->now_us : RIG_SECOND / 2);
        for (size_t i = 0; i < n; i++) {
            struct message *pong = message_new(MESSAGE_PONG);

            pong->stamp_us = rig->now_us - 2000;
            rig_message(rig, links[i], pong);
        }
    }
}

struct control_model *rig_control_model(uint8_t hash, uint32_t n_layers, uint64_t layer_bytes)
{
    struct control_model *m = MEM_NEW(struct control_model);

    assert_non_null(m);
    memset(m->hash, hash, PROTO_HASH_BYTES);
    m->n_layers = n_layers;
    m->n_embd = 4;
    m->n_vocab = 100;
    m->layer_bytes = MEM_NEW_N(uint64_t, n_layers);
    m->layer_active_bytes = MEM_NEW_N(uint64_t, n_layers);
    m->layer_kv_bytes = MEM_NEW_N(uint64_t, n_layers);
    m->layer_flops = MEM_NEW_N(double, n_layers);
    for (uint32_t i = 0; i < n_layers; i++) {
        m->layer_bytes[i] = m->layer_active_bytes[i] = layer_bytes;
        m->layer_kv_bytes[i] = 10;
        m->layer_flops[i] = 1e6;
    }
    m->embed_bytes = 1000;
    m->head_flops = 1e6;
    return m;
}

void rig_request(struct rig *rig, uint64_t handle, const char *model)
{
    struct control_event event = {.kind = EVENT_REQUEST};

    event.request.handle = handle;
    event.request.spec.kind = REQUEST_TEXT;
    event.request.spec.repeat_penalty = 1;
    event.request.spec.top_p = 1;
    event.request.spec.max_tokens = 4;
    (void)snprintf(event.request.spec.model, sizeof event.request.spec.model, "%s", model);
    event.request.body = "hello";
    event.request.body_bytes = 5;
    rig_step(rig, &event);
}

void rig_cancel(struct rig *rig, uint64_t handle)
{
    struct control_event event = {.kind = EVENT_CANCEL};

    event.cancel = handle;
    rig_step(rig, &event);
}

void rig_model_opens(struct rig *rig, uint8_t hash, struct control_model *model)
{
    struct control_event event = {.kind = EVENT_MODEL};

    memset(event.model.hash, hash, PROTO_HASH_BYTES);
    event.model.model = model;
    rig_step(rig, &event);
}

struct instance_ref rig_ready_alone(struct rig *rig, struct control_model *model)
{
    struct instance_ref ref;

    rig_request(rig, 1, "toy");
    rig_model_opens(rig, RIG_MODEL, model);
    ref = rig_action(rig, ACTION_LOAD_SHARD, 0)->load_shard.instance;
    rig_shard_loads(rig, &ref, STATUS_OK);
    rig_stage_done(rig, rig_pass_of(rig, ACTION_RUN_STAGE));
    return ref;
}

void rig_shard_loads(struct rig *rig, const struct instance_ref *ref, enum status status)
{
    struct control_event event = {.kind = EVENT_SHARD};

    event.shard.instance = *ref;
    event.shard.fault.status = status;
    if (status != STATUS_OK)
        strcpy(event.shard.fault.text, "no memory for it");
    rig_step(rig, &event);
}

void rig_freed(struct rig *rig, const struct instance_ref *ref)
{
    struct control_event event = {.kind = EVENT_FREED};

    event.freed = *ref;
    rig_step(rig, &event);
}

void rig_stage_done(struct rig *rig, struct control_pass *pass)
{
    struct control_event event = {.kind = EVENT_STAGE_DONE};

    event.stage_done.pass = pass;
    rig_step(rig, &event);
}

/* Takes the pass out of the last step's action. */
struct control_pass *rig_pass_of(struct rig *rig, enum control_action_kind kind)
{
    struct control_action *action = rig_action(rig, kind, 0);
    struct control_pass *pass;

    assert_non_null(action);
    pass = action->run.pass;
    action->run.pass = NULL;
    return pass;
}
