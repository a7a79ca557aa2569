/* What `skein plan` shows, and instances that other nodes head.
 *
 * A model that runs is shown as it runs, whoever heads it: each node's card says which layers of
 * which instance it holds, so any node can put the ring together again. It may be incomplete for a
 * moment, while a card is on its way; then it is not shown. A model that does not run is planned
 * with the memory that would be free: what is coming back, and what idle instances would give up if
 * they were asked (room.c), which is then said. What fails: NO_ROOM with the numbers of the plan.
 */
#include "node/cluster/planning.h"

#include <string.h>

struct ring_view { /* an instance as the cards have it */
    uint32_t n_nodes, n_ctx_tokens;
    const struct member *members[PLAN_MAX_NODES]; /* NULL: self */
    struct plan_stage stages[PLAN_MAX_NODES];     /* in the order of their layers, head first */
};

static const struct node_card *card_at(const struct control *c, uint32_t i)
{
    if (i == 0)
        return &c->card;
    return mesh_is_up(c->members[i - 1]->link) ? &c->members[i - 1]->card : NULL;
}

static bool stage_before(const struct plan_stage *a, bool a_is_head, const struct plan_stage *b)
{
    return a_is_head || a->layer_begin < b->layer_begin;
}

static void ring_add(struct ring_view *ring, const struct holding *holding,
                     const struct member *member, bool is_head)
{
    struct plan_stage stage = {.layer_begin = holding->layer_begin,
                               .layer_end = holding->layer_end,
                               .need_bytes = holding->bytes};
    uint32_t at = ring->n_nodes;

    if (ring->n_nodes == PLAN_MAX_NODES)
        return;
    while (at > 0 && stage_before(&stage, is_head, &ring->stages[at - 1])) {
        ring->stages[at] = ring->stages[at - 1];
        ring->members[at] = ring->members[at - 1];
        at--;
    }
    ring->stages[at] = stage;
    ring->members[at] = member;
    ring->n_nodes++;
}

/* False: not all layers are there (yet). */
static bool ring_gather(const struct control *c, const struct holding *head, struct ring_view *ring)
{
    uint32_t end = 0;

    *ring = (struct ring_view){.n_ctx_tokens = head->n_ctx_tokens};
    for (uint32_t i = 0; i <= c->n_members; i++) {
        const struct node_card *card = card_at(c, i);
        const struct member *m = i ? c->members[i - 1] : NULL;

        for (uint32_t k = 0; card && k < card->n_holdings; k++)
            if (same_instance(&card->holdings[k].instance, &head->instance))
                ring_add(ring, &card->holdings[k], m,
                         id_equal(m ? m->id : c->options.self_id, head->instance.head));
    }
    for (uint32_t i = 0; i < ring->n_nodes; i++) {
        if (ring->stages[i].layer_begin != end)
            return false;
        end = ring->stages[i].layer_end;
        ring->stages[i].node = i;
    }
    return end > 0;
}

/* The next ready instance that another node heads; its head's holding. */
static const struct holding *next_elsewhere(const struct control *c, uint32_t *member, uint32_t *at)
{
    for (; *member < c->n_members; (*member)++, *at = 0) {
        const struct member *m = c->members[*member];

        while (mesh_is_up(m->link) && *at < m->card.n_holdings) {
            const struct holding *holding = &m->card.holdings[(*at)++];

            if (holding->ready && id_equal(holding->instance.head, m->id))
                return holding;
        }
    }
    return NULL;
}

static const char *node_name(const struct control *c, const struct member *m)
{
    return m ? m->card.name : c->card.name;
}

size_t control_instances_elsewhere(const struct control *c, struct instance_view *out, size_t max)
{
    const struct holding *head;
    struct ring_view ring;
    uint32_t member = 0, at = 0;
    size_t n = 0;

    while (n < max && (head = next_elsewhere(c, &member, &at))) {
        struct instance_view *view = &out[n];

        if (!ring_gather(c, head, &ring))
            continue;
        memset(view, 0, sizeof *view);
        view->ref = head->instance;
        view->state = INSTANCE_READY;
        view->elsewhere = true;
        text_set(view->model, sizeof view->model, "%s",
                 model_name_of((struct control *)c, head->model_hash));
        text_set(view->head, sizeof view->head, "%s", c->members[member]->card.name);
        view->n_ctx_tokens = ring.n_ctx_tokens;
        view->plan.n_stages = ring.n_nodes;
        memcpy(view->plan.stages, ring.stages, sizeof view->plan.stages);
        for (uint32_t i = 0; i < ring.n_nodes; i++)
            text_set(view->stage_names[i], sizeof view->stage_names[i], "%s",
                     node_name(c, ring.members[i]));
        n++;
    }
    return n;
}

/* ---------------------------------------------------------------- plans */

static bool plan_of_own(const struct control *c, const uint8_t *hash, struct control_plan_view *out)
{
    for (uint32_t i = 0; i < c->n_instances; i++) {
        const struct instance *instance = c->instances[i];

        if (!hash_equal(instance->hash, hash) || instance->n_stages == 0 ||
            instance->state == INSTANCE_CLOSED || instance->failed)
            continue;
        out->plan = instance->plan;
        out->n_nodes = instance->n_nodes;
        memcpy(out->names, instance->node_names, sizeof out->names);
        out->n_ctx_tokens = instance->n_ctx_tokens;
        out->form = instance->form;
        text_set(out->notice, sizeof out->notice, "%s", instance->notice);
        text_set(out->head, sizeof out->head, "%s", c->card.name);
        out->running = true;
        return true;
    }
    return false;
}

static bool plan_of_other(const struct control *c, const uint8_t *hash, struct ring_view *ring,
                          struct control_plan_view *out)
{
    const struct holding *head;
    uint32_t member = 0, at = 0;

    while ((head = next_elsewhere(c, &member, &at))) {
        if (!hash_equal(head->model_hash, hash) || !ring_gather(c, head, ring))
            continue;
        text_set(out->head, sizeof out->head, "%s", c->members[member]->card.name);
        out->running = out->elsewhere = true;
        out->n_ctx_tokens = ring->n_ctx_tokens;
        out->plan.n_stages = out->n_nodes = ring->n_nodes;
        memcpy(out->plan.stages, ring->stages, sizeof out->plan.stages);
        for (uint32_t i = 0; i < ring->n_nodes; i++)
            text_set(out->names[i], sizeof out->names[i], "%s", node_name(c, ring->members[i]));
        return true;
    }
    return false;
}

bool control_plan_running(const struct control *c, const uint8_t hash[static PROTO_HASH_BYTES],
                          struct control_plan_view *out)
{
    struct ring_view ring;

    memset(out, 0, sizeof *out);
    return plan_of_own(c, hash, out) || plan_of_other(c, hash, &ring, out);
}

static void predict(const struct control *c, const struct control_model *model,
                    const struct ring_view *ring, struct plan *plan)
{
    struct plan_node nodes[PLAN_MAX_NODES];
    struct plan_model plan_model = planning_model(model);
    struct plan_request request = {.n_ctx_tokens = ring->n_ctx_tokens, .n_prompt_rows = 256};

    if (ring->stages[ring->n_nodes - 1].layer_end != model->n_layers)
        return;
    for (uint32_t i = 0; i < ring->n_nodes; i++) {
        const struct member *m = ring->members[i];

        planning_node(&nodes[i], m ? &m->card : &c->card);
        if (m && m->rtt_us)
            nodes[i].hop_seconds = (double)m->rtt_us / 2e6;
    }
    plan_predict(plan, nodes, &plan_model, &request);
}

static void say_closing(struct control *c, const struct idle_list *list,
                        struct control_plan_view *out)
{
    for (uint32_t i = 0; i < list->n && out->n_closing < COUNT_OF(out->closing); i++) {
        const struct idle *idle = &list->items[i];

        if (!idle->chosen)
            continue;
        text_set(out->closing[out->n_closing].model, sizeof out->closing[0].model, "%s",
                 model_name_of(c, idle->hash));
        text_set(out->closing[out->n_closing].head, sizeof out->closing[0].head, "%s", idle->head);
        out->closing[out->n_closing++].bytes = idle_bytes(c, idle);
    }
}

enum status control_plan(struct control *c, const struct control_model *model,
                         enum plan_objective objective, struct control_plan_view *out,
                         struct fault *fault)
{
    struct planning p;
    struct ring_view ring;
    struct idle_list list = {.n = 0};
    struct context context = {0};
    enum status status;

    memset(out, 0, sizeof *out);
    if (plan_of_own(c, model->hash, out))
        return STATUS_OK;
    if (plan_of_other(c, model->hash, &ring, out)) {
        predict(c, model, &ring, &out->plan);
        return STATUS_OK;
    }
    planning_collect(c, model->hash, NULL, MEMORY_FREE, &p);
    status = plan_context(c, &p, model, objective, &out->plan, &context, fault);
    if (status == STATUS_NO_ROOM && room_find(c, model->hash, NULL, model, objective, &list, &p,
                                              &out->plan, &context) == STATUS_OK) {
        say_closing(c, &list, out);
        *fault = (struct fault){0};
        status = STATUS_OK;
    }
    if (status == STATUS_NO_ROOM)
        context_no_room(c, &p, model, fault);
    planning_names(&p, &out->n_nodes, out->names);
    out->n_ctx_tokens = context.n_ctx_tokens;
    out->form = c->options.form;
    if (status == STATUS_OK)
        context_notice(c, &p, model, context.n_ctx_tokens, out->notice, sizeof out->notice);
    return status;
}
