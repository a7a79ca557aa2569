/* The books of this node's memory: what is given to whom, and what is on its way back.
 *
 *   reserved = stages for others (once they are counted) + own instances' first stages + leaving
 *
 * Memory is given back in the books when it is given back in fact. A shard that is let go may still
 * be loading, or be in the middle of a pass, on a thread that nothing can stop; until the shell
 * reports EVENT_FREED for it, its bytes are `leaving`: not free, but worth waiting for. Cards tell
 * both numbers, and what the rest is given to (holdings), so that any node can plan with what would
 * be free, ask the right head to close an idle instance, and say who holds what.
 *
 * There is always a place for one more leaving shard: a stage or an instance begins only where its
 * end could be written down. An order to free that could not be handed over is given again at the
 * next settling. */
#include "node/cluster/inner.h"

#include <string.h>

uint64_t control_reserved_bytes(const struct control *c)
{
    uint64_t sum = memory_leaving(c);

    for (uint32_t i = 0; i < c->n_stages; i++)
        if (c->stages[i]->state != STAGE_CLOSED && c->stages[i]->counted)
            sum += c->stages[i]->prepare.need_bytes;
    for (uint32_t i = 0; i < c->n_instances; i++)
        sum += c->instances[i]->reserved_bytes;
    return sum;
}

uint64_t memory_free(const struct control *c)
{
    uint64_t reserved = control_reserved_bytes(c);

    return c->options.card.memory_bytes > reserved ? c->options.card.memory_bytes - reserved : 0;
}

/* ---------------------------------------------------------------- leaving */

uint64_t memory_leaving(const struct control *c)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < c->n_leaving; i++)
        sum += c->leaving[i].bytes;
    return sum;
}

bool memory_can_begin(const struct control *c)
{
    return c->n_leaving + c->n_stages + c->n_instances < MAX_LEAVING;
}

static struct leaving *leaving_find(struct control *c, const struct instance_ref *ref)
{
    for (uint32_t i = 0; i < c->n_leaving; i++)
        if (ref_equal(&c->leaving[i].ref, ref))
            return &c->leaving[i];
    return NULL;
}

bool memory_is_leaving(struct control *c, const struct instance_ref *ref)
{
    return leaving_find(c, ref) != NULL;
}

void memory_settle(struct control *c)
{
    for (uint32_t i = 0; i < c->n_leaving; i++)
        if (!c->leaving[i].asked)
            c->leaving[i].asked = act_free_shard(c, &c->leaving[i].ref);
}

void memory_leave(struct control *c, const struct instance_ref *ref, uint64_t bytes)
{
    struct leaving *leaving = &c->leaving[c->n_leaving++];

    *leaving = (struct leaving){.ref = *ref, .bytes = bytes};
    leaving->asked = act_free_shard(c, ref);
    card_changed(c);
}

void memory_freed(struct control *c, const struct instance_ref *ref)
{
    struct leaving *leaving = leaving_find(c, ref);

    if (!leaving)
        return;
    *leaving = c->leaving[--c->n_leaving];
    card_changed(c);
    c->again = true;
}

/* ---------------------------------------------------------------- holdings */

bool instance_is_idle(const struct control *c, const struct instance *instance)
{
    uint32_t n_waiting;

    return instance->state == INSTANCE_READY && !instance->failed &&
           works_of(c, instance, &n_waiting) == 0;
}

static void holding_of_instance(const struct control *c, const struct instance *instance,
                                struct holding *out)
{
    const struct plan_stage *stage = &instance->plan.stages[0];

    *out = (struct holding){.instance = instance->ref, .bytes = instance->reserved_bytes};
    memcpy(out->model_hash, instance->hash, sizeof out->model_hash);
    out->n_ctx_tokens = instance->n_ctx_tokens;
    out->ready = instance->state == INSTANCE_READY;
    if (instance->n_stages) {
        out->layer_begin = stage->layer_begin;
        out->layer_end = stage->layer_end;
    }
    if (instance_is_idle(c, instance)) {
        uint64_t seconds = (c->now_us - instance->idle_us) / SECOND_US + 1;

        out->idle_seconds = seconds < UINT32_MAX ? (uint32_t)seconds : UINT32_MAX;
    }
}

static void holding_of_stage(const struct stage *s, struct holding *out)
{
    const struct message_prepare *p = &s->prepare;

    *out = (struct holding){.instance = p->instance, .bytes = p->need_bytes};
    memcpy(out->model_hash, p->model_hash, sizeof out->model_hash);
    out->n_ctx_tokens = p->n_ctx_tokens;
    out->layer_begin = p->stages[p->stage].layer_begin;
    out->layer_end = p->stages[p->stage].layer_end;
    out->ready = s->state == STAGE_READY;
}

void memory_holdings(const struct control *c, struct node_card *card)
{
    card->memory_free_bytes = memory_free(c);
    card->memory_leaving_bytes = memory_leaving(c);
    card->n_holdings = 0;
    for (uint32_t i = 0; i < c->n_instances && card->n_holdings < PROTO_MAX_HOLDINGS; i++)
        if (c->instances[i]->state != INSTANCE_CLOSED && !c->instances[i]->failed)
            holding_of_instance(c, c->instances[i], &card->holdings[card->n_holdings++]);
    for (uint32_t i = 0; i < c->n_stages && card->n_holdings < PROTO_MAX_HOLDINGS; i++)
        if (c->stages[i]->state != STAGE_CLOSED && c->stages[i]->counted)
            holding_of_stage(c->stages[i], &card->holdings[card->n_holdings++]);
}

bool same_instance(const struct instance_ref *a, const struct instance_ref *b)
{
    return a->number == b->number && id_equal(a->head, b->head);
}

uint64_t holding_bytes(const struct node_card *card, const struct instance_ref *ref)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < card->n_holdings; i++)
        if (same_instance(&card->holdings[i].instance, ref) &&
            __builtin_add_overflow(sum, card->holdings[i].bytes, &sum))
            return UINT64_MAX;
    return sum;
}
