/* What others may see of control: members, instances, counts. Copies, so that nobody holds on to
 * anything inside. Seeds whose owner is not known yet are shown as members without an id, so that
 * `skein peers` can say why an address given by hand does not answer. */
#include "node/cluster/inner.h"

#include <string.h>

static void view_self(const struct control *c, struct member_view *view)
{
    memset(view, 0, sizeof *view);
    memcpy(view->node_id, c->options.self_id, PROTO_ID_BYTES);
    view->state = MEMBER_SELF;
    view->card = c->card;
    view->card.memory_free_bytes = memory_free(c);
    view->seen_us = c->now_us;
}

static void view_member(const struct member *m, struct member_view *view)
{
    const struct dialler *d = &m->dialler;

    memset(view, 0, sizeof *view);
    memcpy(view->node_id, m->id, PROTO_ID_BYTES);
    view->state = (enum member_state)m->state;
    view->card = m->card;
    if (m->link)
        member_address(m, m->link, view->address, sizeof view->address);
    else if (d->n_addresses)
        memcpy(view->address, d->addresses[d->n_addresses - 1].text, sizeof view->address);
    view->rtt_us = m->rtt_us;
    view->seen_us = m->seen_us;
    memcpy(view->note, m->note, sizeof view->note);
}

static void view_seed(const struct seed *seed, struct member_view *view)
{
    memset(view, 0, sizeof *view);
    view->state = seed->refused ? MEMBER_REFUSED : MEMBER_DIALLING;
    memcpy(view->address, seed->dialler.addresses[0].text, sizeof view->address);
    memcpy(view->note, seed->note, sizeof view->note);
}

size_t control_members(const struct control *c, struct member_view *out, size_t max)
{
    size_t n = 0;

    if (max)
        view_self(c, &out[n++]);
    for (uint32_t i = 0; i < c->n_members && n < max; i++)
        view_member(c->members[i], &out[n++]);
    for (uint32_t i = 0; i < c->n_seeds && n < max; i++)
        if (!c->seeds[i]->bound && !c->seeds[i]->self)
            view_seed(c->seeds[i], &out[n++]);
    return n;
}

size_t control_instances(const struct control *c, struct instance_view *out, size_t max)
{
    size_t n = 0;

    for (uint32_t i = 0; i < c->n_instances && n < max; i++) {
        const struct instance *instance = c->instances[i];
        struct instance_view *view = &out[n++];
        uint32_t n_all;

        memset(view, 0, sizeof *view);
        view->ref = instance->ref;
        view->state = (enum instance_state)instance->state;
        memcpy(view->model, instance->name, sizeof view->model);
        view->plan = instance->plan;
        for (uint32_t k = 0; k < instance->n_stages; k++)
            memcpy(view->stage_names[k], instance->stages[k].name, sizeof view->stage_names[k]);
        view->n_ctx_tokens = instance->n_ctx_tokens;
        view->form = instance->form;
        memcpy(view->head, c->card.name, sizeof view->head);
        memcpy(view->notice, instance->notice, sizeof view->notice);
        n_all = works_of(c, instance, &view->n_waiting);
        view->n_running = n_all - view->n_waiting;
    }
    return n;
}

size_t control_open_requests(const struct control *c)
{
    return c->n_fronts;
}
