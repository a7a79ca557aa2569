/* Instances: one model on a ring of stages, from the first request for it to the last.
 *
 *   OPENING ──model──► PREPARING ──all PREPARED──► LOADING ──all LOADED──► PROBING ──a token──►
 * READY │               │  ▲  ▲ └ refused: plan again  │                      │     came round │ │
 * └──┘  └─────────── a node was lost: plan again ────────┘                    │
 *      └───────────────┴─────────── instance_fail ─────┴──────────────────────┴────► CLOSED
 * ◄──────┘
 *
 * Happy path: the file is opened, a plan is made, each other stage reserves what it needs
 * (PREPARE), all load at once, one row goes through all of them, and the waiting work begins.
 *
 * A stage that refuses for lack of memory tells how much it has, and the next plan counts with
 * that; one that refuses for another reason, or does not answer in 5 s, is left out of the next
 * plan. Each round has its own epoch, so late answers to an older one are recognised. Where memory
 * is short, room.c waits, or has idle instances closed. A node that is lost before the instance is
 * READY costs only time: all let go, and the plan is made again with who is left.
 *
 * Everything else that goes wrong closes the instance: a stage that cannot load (1200 s), a probe
 * that does not come back (10 s, and the time to read the weights once), a link lost under way, a
 * pass that failed or is overdue (ring.c). All stages are released and whoever waits gets the
 * sentence; the next request for the model plans anew with whoever is left. An instance without
 * work for idle_close_us is closed too: its memory belongs to other people. */
#include "node/cluster/inner.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define OPEN_LIMIT_US    (60 * SECOND_US)
#define PREPARE_LIMIT_US (5 * SECOND_US)
#define LOAD_LIMIT_US                                                                              \
    (1200 * SECOND_US) /* 100 GB from a slow disk; a dead node is noticed by its link */
#define PROBE_LIMIT_US (10 * SECOND_US)
#define PROBE_BYTES_PER_SECOND                                                                     \
    50000000u /* the first row may have to read all weights from a disk */
#define CLEAR_AFTER_US (SECOND_US / 10)
enum { MAX_ROUNDS = 8 };

static const char *const instance_names[] = {"opening", "preparing", "loading",
                                             "probing", "ready",     "closed"};
static const uint32_t instance_allowed[] = {
    [INSTANCE_OPENING] = SM_TO(INSTANCE_PREPARING) | SM_TO(INSTANCE_CLOSED),
    [INSTANCE_PREPARING] = SM_TO(INSTANCE_LOADING) | SM_TO(INSTANCE_CLOSED),
    [INSTANCE_LOADING] =
        SM_TO(INSTANCE_PROBING) | SM_TO(INSTANCE_PREPARING) | SM_TO(INSTANCE_CLOSED),
    [INSTANCE_PROBING] = SM_TO(INSTANCE_READY) | SM_TO(INSTANCE_PREPARING) | SM_TO(INSTANCE_CLOSED),
    [INSTANCE_READY] = SM_TO(INSTANCE_CLOSED),
    [INSTANCE_CLOSED] = 0,
};
static const struct sm_table instance_table = {"instance", instance_names, instance_allowed,
                                               COUNT_OF(instance_names)};

void instance_fail(struct instance *instance, enum status status, const char *format, ...)
{
    va_list args;

    if (instance->failed || instance->state == INSTANCE_CLOSED)
        return;
    instance->failed = true;
    instance->fault.status = status;
    va_start(args, format);
    (void)vsnprintf(instance->fault.text, sizeof instance->fault.text, format, args);
    va_end(args);
}

/* ---------------------------------------------------------------- opening */

struct instance *instance_for(struct control *c, const uint8_t hash[static PROTO_HASH_BYTES],
                              const char *name, struct fault *fault)
{
    struct instance *instance = NULL;
    struct control_action *action;

    for (uint32_t i = 0; i < c->n_instances; i++)
        if (hash_equal(c->instances[i]->hash, hash) && !c->instances[i]->failed &&
            c->instances[i]->state != INSTANCE_CLOSED)
            return c->instances[i];
    if (c->n_instances == PROTO_MAX_INSTANCES || !memory_can_begin(c)) {
        (void)fault_set(fault, STATUS_BUSY, "%u models are in use on node %s; try again",
                        c->n_instances, c->card.name);
        return NULL;
    }
    instance = MEM_NEW(struct instance);
    action = instance ? action_add(c, ACTION_OPEN_MODEL) : NULL;
    if (!action) {
        mem_free(instance);
        (void)fault_set(fault, STATUS_NO_MEMORY, "out of memory; try again");
        return NULL;
    }
    memcpy(action->open_model.hash, hash, PROTO_HASH_BYTES);
    memcpy(instance->hash, hash, PROTO_HASH_BYTES);
    memcpy(instance->ref.head, c->options.self_id, PROTO_ID_BYTES);
    instance->ref.number = control_random(c) | 1;
    text_set(instance->name, sizeof instance->name, "%s", name);
    instance->state = INSTANCE_OPENING;
    instance->deadline_us = c->now_us + OPEN_LIMIT_US;
    instance->plan_us = NEVER_US;
    instance->idle_us = c->now_us;
    instance->form = c->options.form;
    c->instances[c->n_instances++] = instance;
    card_changed(c);
    return instance;
}

static bool model_is_sound(const struct control_model *m)
{
    return m->n_layers >= 1 && m->n_layers <= PLAN_MAX_LAYERS && m->n_vocab >= 1 &&
           m->n_embd >= 1 && m->n_embd <= PROTO_MAX_PAYLOAD_BYTES / sizeof(float);
}

void instance_model(struct control *c, const struct control_event *event)
{
    struct control_model *model = event->model.model;
    const struct fault *fault = &event->model.fault;
    struct instance *instance = NULL;

    for (uint32_t i = 0; i < c->n_instances; i++)
        if (c->instances[i]->state == INSTANCE_OPENING && !c->instances[i]->failed &&
            hash_equal(c->instances[i]->hash, event->model.hash))
            instance = c->instances[i];
    if (!instance || !model || !model_is_sound(model)) {
        control_model_free(&model);
        if (instance)
            instance_fail(instance, fault->status ? fault->status : STATUS_FORMAT, "%s",
                          fault->text[0] ? fault->text : "the model file cannot be used");
        return;
    }
    instance->model = model;
    instance->n_slots = c->options.n_slots;
    instance->max_rows = PROTO_MAX_PAYLOAD_BYTES / sizeof(float) / model->n_embd;
    if (instance->max_rows > c->options.max_rows)
        instance->max_rows = c->options.max_rows;
    sm_move(&instance_table, &instance->state, INSTANCE_PREPARING);
    instance->plan_us = c->now_us;
    instance->deadline_us = NEVER_US;
    c->again = true;
}

/* ---------------------------------------------------------------- preparing */

static void tell_stages(struct control *c, struct instance *instance, enum message_kind kind)
{
    for (uint32_t i = 1; i < instance->n_stages; i++) {
        struct message *message;

        if (!mesh_is_up(instance->stages[i].link))
            continue;
        message = message_new(kind);
        if (message)
            message->instance = instance->ref;
        mesh_send(c, instance->stages[i].link, message);
        instance->stages[i].answered = false;
    }
}

static void send_prepare(struct control *c, struct instance *instance, uint32_t stage)
{
    struct message *message = message_new(MESSAGE_PREPARE);
    struct message_prepare *p = message ? &message->prepare : NULL;

    if (p) {
        p->instance = instance->ref;
        memcpy(p->model_hash, instance->hash, PROTO_HASH_BYTES);
        memcpy(p->model_name, instance->name, sizeof p->model_name);
        p->stage = stage;
        p->n_stages = instance->n_stages;
        for (uint32_t i = 0; i < instance->n_stages; i++) {
            memcpy(p->stages[i].node_id, instance->stages[i].node_id, PROTO_ID_BYTES);
            p->stages[i].layer_begin = instance->plan.stages[i].layer_begin;
            p->stages[i].layer_end = instance->plan.stages[i].layer_end;
        }
        p->n_slots = instance->n_slots;
        p->n_ctx_tokens = instance->n_ctx_tokens;
        p->n_kv_blocks = instance->n_kv_tokens / SHARD_KV_BLOCK_TOKENS;
        p->max_rows = instance->max_rows;
        p->need_bytes = instance->plan.stages[stage].need_bytes;
        p->n_embd = instance->model->n_embd;
        p->n_layers = instance->model->n_layers;
        p->kv_type = (uint32_t)instance->form.kv_type;
        p->quantize = instance->form.quantize;
        p->mapped = instance->form.mapped;
    }
    mesh_send(c, instance->stages[stage].link, message);
}

static void instance_prepare(struct control *c, struct instance *instance)
{
    struct fault fault = {0};
    enum status status;

    instance->plan_us = NEVER_US;
    status = instance_plan(c, instance, &fault);
    if (status != STATUS_OK) {
        instance->n_stages = 0;
        if (status == STATUS_NO_ROOM)
            room_wait(c, instance, &fault);
        else
            instance_fail(instance, status, "%s", fault.text);
        return;
    }
    instance->ref.epoch++;
    instance->n_rounds++;
    instance->reserved_bytes = instance->plan.stages[0].need_bytes;
    instance->deadline_us = c->now_us + PREPARE_LIMIT_US;
    instance->stages[0].answered = true;
    card_changed(c);
    for (uint32_t i = 1; i < instance->n_stages; i++)
        send_prepare(c, instance, i);
    c->again = true;
}

/* Somebody said no, or nothing: all let go, and the next plan knows it. */
static void instance_replan(struct control *c, struct instance *instance, const char *why)
{
    tell_stages(c, instance, MESSAGE_RELEASE);
    instance->n_stages = 0;
    instance->reserved_bytes = 0;
    instance->deadline_us = NEVER_US;
    card_changed(c);
    if (instance->n_rounds >= MAX_ROUNDS)
        instance_fail(instance, STATUS_NO_ROOM,
                      "no plan was accepted in %d rounds; the last no: %s", MAX_ROUNDS, why);
    else
        instance->plan_us = c->now_us;
    c->again = true;
}

static bool all_answered(const struct instance *instance)
{
    for (uint32_t i = 0; i < instance->n_stages; i++)
        if (!instance->stages[i].answered)
            return false;
    return true;
}

/* ---------------------------------------------------------------- loading, probing, ready */

static void instance_load(struct control *c, struct instance *instance)
{
    struct control_action *action = action_add(c, ACTION_LOAD_SHARD);

    if (!action) {
        instance_fail(instance, STATUS_NO_MEMORY, "out of memory; try again");
        return;
    }
    sm_move(&instance_table, &instance->state, INSTANCE_LOADING);
    instance->room_since_us = 0;
    instance->deadline_us = c->now_us + LOAD_LIMIT_US;
    tell_stages(c, instance, MESSAGE_LOAD);
    instance->stages[0].answered = false;
    instance->loading_here = true;
    action->load_shard.instance = instance->ref;
    memcpy(action->load_shard.hash, instance->hash, PROTO_HASH_BYTES);
    action->load_shard.spec = (struct shard_spec){
        .layer_begin = instance->plan.stages[0].layer_begin,
        .layer_end = instance->plan.stages[0].layer_end,
        .embed = true,
        .head = true,
        .n_slots = instance->n_slots,
        .n_ctx_tokens = instance->n_ctx_tokens,
        .n_kv_blocks = instance->n_kv_tokens / SHARD_KV_BLOCK_TOKENS,
        .max_rows = instance->max_rows,
        .form = instance->form,
    };
}

/* Twice the bytes, read slowly, and one stage after the other. */
static uint64_t probe_limit_us(const struct instance *instance)
{
    uint64_t n_bytes = 0;

    for (uint32_t i = 0; i < instance->n_stages; i++)
        n_bytes += instance->plan.stages[i].need_bytes;
    return PROBE_LIMIT_US + n_bytes / PROBE_BYTES_PER_SECOND * SECOND_US;
}

static void instance_begin(struct control *c, struct instance *instance)
{
    struct scheduler_options options = {
        .n_slots = instance->n_slots,
        .n_kv_blocks = instance->n_kv_tokens / SHARD_KV_BLOCK_TOKENS,
        .max_rows = instance->max_rows,
        .n_stages = instance->n_stages,
        .clear_after_us = CLEAR_AFTER_US,
    };

    if (scheduler_new(&options, &instance->scheduler) != STATUS_OK) {
        instance_fail(instance, STATUS_NO_MEMORY, "out of memory; try again");
        return;
    }
    sm_move(&instance_table, &instance->state, INSTANCE_PROBING);
    instance->deadline_us = c->now_us + probe_limit_us(instance);
    ring_probe(c, instance);
}

void instance_probed(struct control *c, struct instance *instance)
{
    sm_move(&instance_table, &instance->state, INSTANCE_READY);
    instance->deadline_us = NEVER_US;
    instance->idle_us = c->now_us;
    scheduler_clear_slot(instance->scheduler, 0, c->now_us);
    card_ready(c);
    log_event(LOG_INFO, "instance", "ready model=%s stages=%u context=%u", instance->name,
              instance->n_stages, instance->n_ctx_tokens);
    if (instance->notice[0])
        act_notice(c, "%s", instance->notice);
}

bool instance_shard(struct control *c, const struct control_event *event)
{
    const struct fault *fault = &event->shard.fault;
    struct instance *instance = ring_instance(c, &event->shard.instance);

    if (!id_equal(event->shard.instance.head, c->options.self_id))
        return false;
    if (!instance || instance->state != INSTANCE_LOADING)
        return true;
    if (fault->status != STATUS_OK)
        instance_fail(instance, fault->status, "node %s could not load its layers: %s",
                      c->card.name, fault->text);
    instance->stages[0].answered = true;
    c->again = true;
    return true;
}

void instance_outcome(struct control *c, struct mesh_link *link, const struct message *message)
{
    const struct message_outcome *outcome = &message->outcome;
    struct instance *instance = ring_instance(c, &outcome->instance);
    struct instance_stage *stage = NULL;

    for (uint32_t i = 1; instance && i < instance->n_stages; i++)
        if (instance->stages[i].link == link)
            stage = &instance->stages[i];
    if (!stage)
        return;
    c->again = true;
    if (message->kind == MESSAGE_PASS_FAILED)
        instance_fail(instance, outcome->status ? outcome->status : STATUS_INTERNAL, "node %s: %s",
                      stage->name, outcome->text);
    else if (message->kind == MESSAGE_PREPARED && instance->state == INSTANCE_PREPARING &&
             outcome->status != STATUS_OK) {
        instance_refused(instance, stage->node_id, outcome);
        instance_replan(c, instance, outcome->text);
    } else if (message->kind == MESSAGE_LOADED && instance->state == INSTANCE_LOADING &&
               outcome->status != STATUS_OK)
        instance_fail(instance, outcome->status, "node %s could not load its layers: %s",
                      stage->name, outcome->text);
    else if (instance->state ==
             (message->kind == MESSAGE_PREPARED ? INSTANCE_PREPARING : INSTANCE_LOADING))
        stage->answered = true;
}

/* ---------------------------------------------------------------- ends and time */

void instances_link_lost(struct control *c, struct mesh_link *link)
{
    for (uint32_t i = 0; i < c->n_instances; i++) {
        struct instance *instance = c->instances[i];

        for (uint32_t k = 1; k < instance->n_stages; k++) {
            if (instance->stages[k].link != link)
                continue;
            instance->stages[k].link = NULL;
            if (instance->state == INSTANCE_READY) {
                instance_fail(instance, STATUS_LOST, "node %s was lost; ask again",
                              instance->stages[k].name);
            } else {
                instance->restart = true;
                text_set(instance->why, sizeof instance->why, "node %s was lost",
                         instance->stages[k].name);
            }
        }
    }
}

/* The own shard ends; its memory is counted until it has ended. */
static void instance_let_go(struct control *c, struct instance *instance)
{
    uint64_t bytes = instance->reserved_bytes;

    instance->reserved_bytes = 0;
    if (instance->loading_here)
        memory_leave(c, &instance->ref, bytes);
    instance->loading_here = false;
}

/* Back to PREPARING: nothing of what was begun is of use, because a lost node's layers change the
 * layers of all. No work has been admitted yet. */
static void instance_restart(struct control *c, struct instance *instance)
{
    log_event(LOG_INFO, "instance", "restart model=%s why=\"%s\"", instance->name, instance->why);
    instance->restart = false;
    instance_let_go(c, instance);
    ring_clear(instance);
    scheduler_free(&instance->scheduler);
    if (instance->state != INSTANCE_PREPARING)
        sm_move(&instance_table, &instance->state, INSTANCE_PREPARING);
    instance_replan(c, instance, instance->why);
}

static void instance_close(struct control *c, struct instance *instance)
{
    log_event(LOG_INFO, "instance", "closed model=%s why=\"%s\"", instance->name,
              instance->fault.text);
    tell_stages(c, instance, MESSAGE_RELEASE);
    instance_let_go(c, instance);
    works_fail(c, instance, &instance->fault);
    ring_clear(instance);
    sm_move(&instance_table, &instance->state, INSTANCE_CLOSED);
    card_changed(c);
    c->again = true;
}

static void instance_overdue(struct control *c, struct instance *instance)
{
    struct instance_stage *silent = NULL;
    struct message_outcome outcome = {.status = STATUS_TIMEOUT};

    for (uint32_t i = 0; i < instance->n_stages && !silent; i++)
        if (!instance->stages[i].answered)
            silent = &instance->stages[i];
    if (instance->state == INSTANCE_PREPARING && silent) {
        text_set(outcome.text, sizeof outcome.text, "node %s did not answer within 5 s",
                 silent->name);
        instance_refused(instance, silent->node_id, &outcome);
        instance_replan(c, instance, outcome.text);
    } else if (instance->state == INSTANCE_LOADING && silent) {
        instance_fail(instance, STATUS_TIMEOUT, "node %s did not load its layers within %u s",
                      silent->name, (unsigned)(LOAD_LIMIT_US / SECOND_US));
    } else if (instance->state == INSTANCE_PROBING) {
        instance_fail(instance, STATUS_TIMEOUT, "no token came through all stages within %u s",
                      (unsigned)(probe_limit_us(instance) / SECOND_US));
    } else {
        instance_fail(instance, STATUS_TIMEOUT, "the model file could not be opened within %u s",
                      (unsigned)(OPEN_LIMIT_US / SECOND_US));
    }
}

static uint64_t instance_wake(const struct control *c, const struct instance *instance)
{
    uint64_t due_us = instance->deadline_us, wake_us;
    uint32_t n_waiting;

    if (instance->state == INSTANCE_PREPARING && instance->plan_us < due_us)
        due_us = instance->plan_us;
    if (instance->state != INSTANCE_READY)
        return due_us;
    wake_us = scheduler_wake_us(instance->scheduler);
    due_us = ring_due_us(instance);
    wake_us = due_us < wake_us ? due_us : wake_us;
    if (works_of(c, instance, &n_waiting) == 0) {
        uint64_t idle_us = instance->idle_us + c->options.idle_close_us;

        wake_us = idle_us < wake_us ? idle_us : wake_us;
    }
    return wake_us;
}

static void instance_settle(struct control *c, struct instance *instance)
{
    uint32_t n_waiting;

    if (!instance->failed && instance->restart)
        instance_restart(c, instance);
    if (!instance->failed && c->now_us >= instance->deadline_us)
        instance_overdue(c, instance);
    if (!instance->failed && instance->state == INSTANCE_PREPARING &&
        c->now_us >= instance->plan_us)
        instance_prepare(c, instance);
    if (!instance->failed && instance->state == INSTANCE_PREPARING && instance->n_stages &&
        all_answered(instance))
        instance_load(c, instance);
    if (!instance->failed && instance->state == INSTANCE_LOADING && all_answered(instance))
        instance_begin(c, instance);
    if (!instance->failed && instance->state == INSTANCE_READY) {
        if (works_of(c, instance, &n_waiting) == 0 &&
            c->now_us - instance->idle_us >= c->options.idle_close_us)
            instance_fail(instance, STATUS_CLOSED, "nobody used it for a while");
        if (c->now_us >= ring_due_us(instance))
            ring_overdue(c, instance);
        ring_dispatch(c, instance);
    }
    if (instance->failed && instance->state != INSTANCE_CLOSED)
        instance_close(c, instance);
}

void instances_settle(struct control *c)
{
    for (uint32_t i = 0; i < c->n_instances; i++)
        instance_settle(c, c->instances[i]);
}

void instance_free(struct instance **instance)
{
    ring_clear(*instance);
    scheduler_free(&(*instance)->scheduler);
    control_model_free(&(*instance)->model);
    mem_free(*instance);
    *instance = NULL;
}

void instances_sweep(struct control *c)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->n_instances; i++) {
        if (c->instances[i]->state == INSTANCE_CLOSED)
            instance_free(&c->instances[i]);
        else
            c->instances[n++] = c->instances[i];
    }
    c->n_instances = n;
}

uint64_t instances_wake(const struct control *c)
{
    uint64_t wake_us = NEVER_US;

    for (uint32_t i = 0; i < c->n_instances; i++) {
        uint64_t due_us = instance_wake(c, c->instances[i]);

        wake_us = due_us < wake_us ? due_us : wake_us;
    }
    return wake_us;
}
