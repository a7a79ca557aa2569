/* Room for a model whose plan found none.
 *
 *   no plan ─► would it fit with what is coming back? ──────────► wait
 *           ─► and with what idle instances hold? ──────────────► ask their heads to close, wait
 *           ─► and with all memory there is? then others work ──► wait in the queue, up to a bound
 *           ─► no: it fails at once, with the numbers
 *
 * Idle instances are known from the cards: every head says of each of its instances how long nobody
 * has used it. The longest idle ones are chosen until the model fits, then those that turned out to
 * be superfluous are left alone. An own one is closed; the head of another one is asked
 * (CLOSE_IDLE), closes only if it is still idle, and answers what it did. The bytes then come back
 * by the cards; nothing is granted to whoever asked, so the next plan may find that somebody else
 * was faster, and waits again. Waiting holds no memory, so two who wait never wait for each other;
 * the time between two attempts has jitter, so that they do not run into each other for ever.
 *
 * What fails: the bound. The sentence says which models hold how much on which nodes. */
#include "node/cluster/planning.h"

#include <string.h>

#define ROOM_RETRY_US (3 * SECOND_US / 10)
#define ROOM_SHORT_US (3 * SECOND_US)  /* nobody holds it: a card may be late */
#define ROOM_LONG_US  (60 * SECOND_US) /* somebody does */
#define ASK_AGAIN_US  (2 * SECOND_US)

/* ---------------------------------------------------------------- who is idle */

static void idle_add(struct idle_list *list, const struct holding *holding, const char *head,
                     struct mesh_link *link)
{
    struct idle idle = {.ref = holding->instance, .link = link};
    uint32_t at = list->n;

    idle.idle_seconds = holding->idle_seconds;
    memcpy(idle.hash, holding->model_hash, sizeof idle.hash);
    text_set(idle.head, sizeof idle.head, "%s", head);
    while (at > 0 && list->items[at - 1].idle_seconds < idle.idle_seconds)
        at--;
    if (at == MAX_IDLE)
        return;
    list->n += list->n < MAX_IDLE;
    memmove(&list->items[at + 1], &list->items[at], (list->n - 1 - at) * sizeof list->items[0]);
    list->items[at] = idle;
}

static void idle_of_card(struct idle_list *list, const struct node_card *card, const uint8_t *id,
                         struct mesh_link *link)
{
    for (uint32_t i = 0; i < card->n_holdings; i++)
        if (card->holdings[i].idle_seconds && card->holdings[i].ready &&
            id_equal(card->holdings[i].instance.head, id))
            idle_add(list, &card->holdings[i], card->name, link);
}

static void idle_collect(const struct control *c, struct idle_list *list)
{
    list->n = 0;
    idle_of_card(list, &c->card, c->options.self_id, NULL);
    for (uint32_t i = 0; i < c->n_members; i++)
        if (mesh_is_up(c->members[i]->link))
            idle_of_card(list, &c->members[i]->card, c->members[i]->id, c->members[i]->link);
}

static const struct node_card *card_of(const struct control *c, const struct member *m)
{
    return m ? &m->card : &c->card;
}

uint64_t idle_bytes(const struct control *c, const struct idle *idle)
{
    uint64_t sum = holding_bytes(&c->card, &idle->ref);

    for (uint32_t i = 0; i < c->n_members; i++)
        if (mesh_is_up(c->members[i]->link) &&
            __builtin_add_overflow(sum, holding_bytes(&c->members[i]->card, &idle->ref), &sum))
            return UINT64_MAX;
    return sum;
}

/* Gives what an instance holds to the nodes of the plan, or takes it away again. */
static void planning_choose(const struct control *c, struct planning *p, struct idle *idle,
                            bool chosen)
{
    idle->chosen = chosen;
    for (uint32_t i = 0; i < p->n; i++) {
        const struct node_card *card = card_of(c, p->members[i]);
        uint64_t bytes = holding_bytes(card, &idle->ref), *memory = &p->nodes[i].memory_bytes;

        if (bytes > card->memory_bytes) /* a lie */
            continue;
        *memory = chosen ? *memory + bytes : *memory - bytes;
    }
}

enum status room_find(struct control *c, const uint8_t *hash, const struct instance *instance,
                      const struct control_model *model, enum plan_objective objective,
                      struct idle_list *list, struct planning *p, struct plan *plan,
                      struct context *context)
{
    enum status status;

    idle_collect(c, list);
    planning_collect(c, hash, instance, MEMORY_COMING, p);
    status = plan_context(c, p, model, objective, plan, context, NULL);
    for (uint32_t i = 0; i < list->n && status == STATUS_NO_ROOM; i++) {
        planning_choose(c, p, &list->items[i], true);
        status = plan_context(c, p, model, objective, plan, context, NULL);
    }
    for (uint32_t i = 0; i < list->n && status == STATUS_OK; i++) {
        if (!list->items[i].chosen)
            continue;
        planning_choose(c, p, &list->items[i], false);
        if (plan_context(c, p, model, objective, plan, context, NULL) != STATUS_OK)
            planning_choose(c, p, &list->items[i], true);
    }
    if (status == STATUS_OK) /* the last attempt may have been one without */
        status = plan_context(c, p, model, objective, plan, context, NULL);
    return status;
}

/* ---------------------------------------------------------------- asking */

static struct instance *own_instance(struct control *c, const struct instance_ref *ref)
{
    for (uint32_t i = 0; i < c->n_instances; i++)
        if (same_instance(&c->instances[i]->ref, ref) && !c->instances[i]->failed &&
            c->instances[i]->state != INSTANCE_CLOSED)
            return c->instances[i];
    return NULL;
}

static void room_ask(struct control *c, struct instance *instance, const struct idle_list *list)
{
    if (c->now_us < instance->room_asked_us + ASK_AGAIN_US && instance->room_asked_us)
        return;
    instance->room_asked_us = c->now_us;
    for (uint32_t i = 0; i < list->n; i++) {
        const struct idle *idle = &list->items[i];
        struct message *message;

        if (!idle->chosen)
            continue;
        if (!idle->link) {
            struct instance *own = own_instance(c, &idle->ref);

            if (own && instance_is_idle(c, own))
                instance_fail(own, STATUS_CLOSED, "closed to make room for %s", instance->name);
            continue;
        }
        message = message_new(MESSAGE_CLOSE_IDLE);
        if (message) {
            message->close_idle.instance = idle->ref;
            message->close_idle.want_bytes = idle_bytes(c, idle);
            text_set(message->close_idle.for_model, sizeof message->close_idle.for_model, "%s",
                     instance->name);
        }
        mesh_send(c, idle->link, message);
    }
    c->again = true;
}

void room_close_idle(struct control *c, struct mesh_link *link, const struct message_close_idle *m)
{
    struct instance *instance = own_instance(c, &m->instance);
    struct message *message = message_new(MESSAGE_IDLE_CLOSED);
    enum status status = STATUS_OK;

    if (!instance)
        status = STATUS_NOT_FOUND;
    else if (!instance_is_idle(c, instance))
        status = STATUS_BUSY;
    else
        instance_fail(instance, STATUS_CLOSED, "closed to make room for %s, asked by node %s",
                      m->for_model, mesh_name(link));
    if (message) {
        message->outcome.instance = m->instance;
        message->outcome.status = status;
        message->outcome.memory_free_bytes = memory_free(c);
    }
    mesh_send(c, link, message);
    c->again = true;
}

/* A no means that the card was late: the next attempt may ask again at once. */
void room_idle_closed(struct control *c, struct mesh_link *link,
                      const struct message_outcome *outcome)
{
    log_event(LOG_INFO, "instance", "idle.asked node=%s status=%s", mesh_name(link),
              status_name(outcome->status));
    for (uint32_t i = 0; i < c->n_instances && outcome->status != STATUS_OK; i++)
        c->instances[i]->room_asked_us = 0;
}

/* ---------------------------------------------------------------- waiting */

/* "model x holds 3 GB on node a, …" over all cards, as far as it fits; how many there are. */
static uint32_t holders_say(struct control *c, const struct instance *instance, char *out,
                            size_t size)
{
    uint32_t n = 0;

    out[0] = '\0';
    for (uint32_t i = 0; i <= c->n_members; i++) {
        const struct member *m = i ? c->members[i - 1] : NULL;
        const struct node_card *card = card_of(c, m);

        for (uint32_t k = 0; k < card->n_holdings && (!m || mesh_is_up(m->link)); k++) {
            const struct holding *holding = &card->holdings[k];
            size_t len = strlen(out);
            char bytes[24];

            if (!holding->bytes || (instance && same_instance(&holding->instance, &instance->ref)))
                continue;
            if (n++ < 4 && len < size)
                text_set(out + len, size - len, "%smodel %.60s holds %s on node %.30s",
                         len ? ", " : "", model_name_of(c, holding->model_hash),
                         bytes_format_size(holding->bytes, bytes, sizeof bytes), card->name);
        }
    }
    return n;
}

static void room_gone(struct control *c, struct instance *instance, const struct fault *fault)
{
    char holders[300];
    uint32_t n = holders_say(c, instance, holders, sizeof holders);

    if (!n)
        instance_fail(instance, fault->status, "%s", fault->text);
    else
        instance_fail(instance, STATUS_NO_ROOM,
                      "no room for %.60s: %s%s; ask again when they are not in use, or give nodes "
                      "more memory (--memory)",
                      instance->name, holders, n > 4 ? " and others" : "");
}

/* What may come back, and for how long that is worth waiting for; 0: never. */
static uint64_t room_hope_us(struct control *c, struct instance *instance, struct fault *fault)
{
    struct idle_list list;
    struct planning p;
    struct plan plan;
    struct context context;
    struct fault final = {0};
    char holders[64];
    enum status status = room_find(c, instance->hash, instance, instance->model,
                                   c->options.objective, &list, &p, &plan, &context);

    if (status == STATUS_OK) {
        room_ask(c, instance, &list);
        return ROOM_LONG_US;
    }
    planning_collect(c, instance->hash, instance, MEMORY_ALL, &p);
    status = plan_context(c, &p, instance->model, c->options.objective, &plan, &context, &final);
    if (status == STATUS_OK)
        return holders_say(c, instance, holders, sizeof holders) || memory_leaving(c)
                   ? ROOM_LONG_US
                   : ROOM_SHORT_US;
    context_no_room(c, &p, instance->model, &final);
    *fault = final;
    return 0;
}

static uint64_t retry_us(struct control *c)
{
    return c->now_us + ROOM_RETRY_US * 3 / 4 + control_random(c) % (ROOM_RETRY_US / 2);
}

void room_wait(struct control *c, struct instance *instance, const struct fault *why)
{
    struct fault fault = *why;
    uint64_t hope_us = room_hope_us(c, instance, &fault);
    uint32_t n_waiting, n = 0;

    if (!instance->room_since_us)
        instance->room_since_us = c->now_us;
    for (uint32_t i = 0; i < instance->n_refusals; i++) /* the cards will know by the next time */
        if (instance->refusals[i].excluded)
            instance->refusals[n++] = instance->refusals[i];
    instance->n_refusals = n;
    instance->n_rounds = 0;
    if (!hope_us)
        instance_fail(instance, fault.status, "%s", fault.text);
    else if (c->now_us - instance->room_since_us > hope_us)
        room_gone(c, instance, &fault);
    else if (works_of(c, instance, &n_waiting) == 0)
        instance_fail(instance, STATUS_CANCELLED, "nobody waits for it any more");
    else
        instance->plan_us = retry_us(c);
}
