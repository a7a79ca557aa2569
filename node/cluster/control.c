/* The control plane of one node: events in, actions out.
 *
 * One step: the event goes to the machine that it concerns, which changes its state and sets flags.
 * Then everything settles: links that are doomed are closed, members dialled, stages, work and
 * instances moved on, until a round changes nothing. Then what has ended is swept away, and the
 * actions are handed over. So a machine never frees what another one still looks at, and the order
 * of events, not of calls, decides what happens.
 *
 *   mesh.c    connections, cards, heartbeats        members.c  who is where, dialling
 *   models.c   names and who has which file          front.c    requests of this node's API
 *   work.c     requests at their head                instance.c one model on a ring of stages
 *   ring.c     passes at the head                    stage.c    layers run for other heads
 *   memory.c   what is given to whom                 room.c     memory that others could give back
 *
 * Time comes with each event and never runs backwards here. Randomness is one seeded generator.
 * What fails: memory only. It costs the link, request or instance that wanted it; the rest goes on,
 * and control_step says NO_MEMORY only when an action could not be handed over yet or was lost. */
#include "node/cluster/inner.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MAX_ROUNDS_OF_SETTLING = 1000, DEFAULT_QUEUE = 64, DEFAULT_ROWS = 256, DEFAULT_SLOTS = 8 };
#define IDLE_CLOSE_US (600 * SECOND_US)

/* splitmix64 (Steele, Lea, Flood 2014). */
uint64_t control_random(struct control *c)
{
    uint64_t z = c->random += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

bool id_equal(const uint8_t a[static PROTO_ID_BYTES], const uint8_t b[static PROTO_ID_BYTES])
{
    return memcmp(a, b, PROTO_ID_BYTES) == 0;
}

bool hash_equal(const uint8_t a[static PROTO_HASH_BYTES], const uint8_t b[static PROTO_HASH_BYTES])
{
    return memcmp(a, b, PROTO_HASH_BYTES) == 0;
}

bool ref_equal(const struct instance_ref *a, const struct instance_ref *b)
{
    return a->number == b->number && a->epoch == b->epoch && id_equal(a->head, b->head);
}

void text_set(char *out, size_t size, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(out, size, format, args);
    va_end(args);
}

bool card_has(const struct node_card *card, const uint8_t hash[static PROTO_HASH_BYTES])
{
    for (uint32_t i = 0; i < card->n_models; i++)
        if (hash_equal(card->models[i].hash, hash))
            return true;
    return false;
}

void control_model_free(struct control_model **model)
{
    if (!*model)
        return;
    mem_free((*model)->layer_bytes);
    mem_free((*model)->layer_active_bytes);
    mem_free((*model)->layer_kv_bytes);
    mem_free((*model)->layer_flops);
    mem_free(*model);
    *model = NULL;
}

/* ---------------------------------------------------------------- beginning and end */

static uint32_t clamped(uint32_t value, uint32_t standard, uint32_t max)
{
    value = value ? value : standard;
    return value < max ? value : max;
}

enum status control_new(const struct control_options *options, uint64_t now_us,
                        struct control **out)
{
    struct control *c = MEM_NEW(struct control);

    if (!c)
        return STATUS_NO_MEMORY;
    c->options = *options;
    c->options.n_slots = clamped(options->n_slots, DEFAULT_SLOTS, SCHEDULER_MAX_SLOTS);
    c->options.max_rows = clamped(options->max_rows, DEFAULT_ROWS, PROTO_MAX_ROWS);
    c->options.max_queue = clamped(options->max_queue, DEFAULT_QUEUE, MAX_SEQUENCES / 2);
    if (!c->options.idle_close_us)
        c->options.idle_close_us = IDLE_CLOSE_US;
    c->random = options->seed;
    c->now_us = now_us;
    c->wake_us = c->card_idle_due_us = NEVER_US;
    c->card = options->card;
    c->card.memory_free_bytes = memory_free(c);
    if (card_check(&c->card) != STATUS_OK || !actions_room(c)) {
        control_free(&c);
        return STATUS_NO_MEMORY;
    }
    *out = c;
    return STATUS_OK;
}

void control_free(struct control **control)
{
    struct control *c = *control;

    if (!c)
        return;
    for (uint32_t i = 0; i < c->n_fronts; i++)
        front_free(&c->fronts[i]);
    for (uint32_t i = 0; i < c->n_works; i++)
        work_free(&c->works[i]);
    for (uint32_t i = 0; i < c->n_instances; i++)
        instance_free(&c->instances[i]);
    for (uint32_t i = 0; i < c->n_stages; i++)
        mem_free(c->stages[i]);
    for (uint32_t i = 0; i < c->n_links; i++)
        mem_free(c->links[i]);
    for (uint32_t i = 0; i < c->n_members; i++)
        mem_free(c->members[i]);
    for (uint32_t i = 0; i < c->n_seeds; i++)
        mem_free(c->seeds[i]);
    control_actions_free(&c->pending);
    mem_free(c);
    *control = NULL;
}

/* ---------------------------------------------------------------- one step */

static void take_self(struct control *c, const struct node_card *card)
{
    struct node_card checked = *card;

    if (card_check(&checked) != STATUS_OK)
        return;
    c->options.card = checked;
    c->card = checked;
    card_changed(c);
}

static void take_stage_done(struct control *c, struct control_event *event)
{
    struct control_pass *pass = event->stage_done.pass;

    if (!ring_stage_done(c, pass, &event->stage_done.fault) &&
        !stage_done(c, pass, &event->stage_done.fault))
        control_pass_free(&pass);
}

static void take_event(struct control *c, struct control_event *event)
{
    switch (event->kind) {
    case EVENT_TICK:
        break;
    case EVENT_SELF:
        take_self(c, &event->self);
        break;
    case EVENT_SEEN:
        member_seen(c, event->seen.node_id, event->seen.n_addresses, event->seen.addresses);
        break;
    case EVENT_SEED:
        member_seed(c, &event->seed);
        break;
    case EVENT_LINK_OPEN:
        mesh_opened(c, event);
        break;
    case EVENT_LINK_CLOSED:
        mesh_closed(c, event);
        break;
    case EVENT_MESSAGE:
        mesh_message(c, mesh_find(c, event->message.link), event->message.message);
        break;
    case EVENT_REQUEST:
        front_request(c, event);
        break;
    case EVENT_CANCEL:
        front_cancel(c, event->cancel);
        break;
    case EVENT_MODEL:
        instance_model(c, event);
        break;
    case EVENT_SHARD:
        if (!instance_shard(c, event))
            (void)stage_shard(c, event);
        break;
    case EVENT_FREED:
        memory_freed(c, &event->freed);
        break;
    case EVENT_PROMPT:
        work_prompt(c, event);
        break;
    case EVENT_STAGE_DONE:
        take_stage_done(c, event);
        break;
    case EVENT_HEARD:
        mesh_heard(c, mesh_find(c, event->heard));
        break;
    case EVENT_HEAD_DONE:
        ring_head_done(c, event);
        break;
    }
}

static void settle(struct control *c)
{
    for (int round = 0; round < MAX_ROUNDS_OF_SETTLING; round++) {
        c->again = false;
        mesh_settle(c);
        memory_settle(c);
        stages_settle(c);
        fronts_settle(c);
        works_settle(c);
        instances_settle(c);
        members_settle(c);
        for (uint32_t i = 0; i < c->n_links; i++)
            c->again |= c->links[i]->doomed && c->links[i]->state < LINK_CLOSING;
        for (uint32_t i = 0; i < c->n_instances; i++)
            c->again |= (c->instances[i]->failed || c->instances[i]->restart) &&
                        c->instances[i]->state != INSTANCE_CLOSED;
        if (!c->again)
            break;
    }
    works_sweep(c);
    instances_sweep(c);
    stages_sweep(c);
    fronts_sweep(c);
    mesh_sweep(c);
    members_sweep(c);
}

/* Asks for the next tick, unless an earlier one is on its way. */
static void ask_for_wake(struct control *c)
{
    uint64_t wakes[] = {mesh_wake(c), members_wake(c), fronts_wake(c), stages_wake(c),
                        instances_wake(c)};
    uint64_t wake_us = NEVER_US;
    struct control_action *action;

    for (size_t i = 0; i < COUNT_OF(wakes); i++)
        wake_us = wakes[i] < wake_us ? wakes[i] : wake_us;
    if (wake_us <= c->now_us)
        wake_us = c->now_us + 1;
    if (wake_us == NEVER_US || (c->wake_us > c->now_us && c->wake_us <= wake_us))
        return;
    action = action_add(c, ACTION_WAKE);
    if (!action)
        return;
    action->wake_us = wake_us;
    c->wake_us = wake_us;
}

enum status control_step(struct control *c, struct control_event *event, uint64_t now_us,
                         struct control_actions *actions)
{
    c->now_us = now_us > c->now_us ? now_us : c->now_us;
    c->short_of_memory = false;
    if (event->kind == EVENT_TICK) /* the one that was on its way; timers may be early */
        c->wake_us = NEVER_US;
    (void)actions_room(c);
    take_event(c, event);
    settle(c);
    ask_for_wake(c);
    if (!actions_deliver(c, actions))
        c->short_of_memory = true;
    return c->short_of_memory ? STATUS_NO_MEMORY : STATUS_OK;
}
