/* What a node shows of itself: members, instances, models, plans and notices, for the API and the
 * command line. Plans need the model's table, so the file is opened on the thread pool first. */
#include "node/node_uv.h"

#include <stdio.h>
#include <string.h>

size_t node_members(const struct node *node, struct member_view *out, size_t max)
{
    return control_members(node->control, out, max);
}

size_t node_instances(const struct node *node, struct instance_view *out, size_t max)
{
    return control_instances(node->control, out, max);
}

size_t node_instances_elsewhere(const struct node *node, struct instance_view *out, size_t max)
{
    return control_instances_elsewhere(node->control, out, max);
}

uint16_t node_mesh_port(const struct node *node)
{
    return node->card.mesh_port;
}

const uint8_t *node_id(const struct node *node)
{
    return node->state.identity.public_key;
}

void node_join_text(const struct node *node, char *out, bool *made)
{
    proto_cluster_key_to_text(node->state.cluster_key, out);
    *made = node->state.key_made;
}

size_t node_notices(const struct node *node, struct node_notice *out, size_t max)
{
    size_t n = node->n_notices < max ? node->n_notices : max;

    memcpy(out, node->notices, n * sizeof *out);
    return n;
}

/* ---------------------------------------------------------------- models */

static void models_merge(struct node_model *out, size_t *n, size_t max,
                         const struct model_card *card, bool here)
{
    size_t i = 0;

    while (i < *n && memcmp(out[i].card.hash, card->hash, sizeof card->hash) != 0)
        i++;
    if (i == max)
        return;
    if (i == *n)
        out[(*n)++] = (struct node_model){.card = *card};
    out[i].here = out[i].here || here;
    out[i].n_nodes++;
}

/* This node and the living ones; the caller's. Without memory there are none. */
static struct member_view *living_members(const struct node *node, size_t *n)
{
    struct member_view *members = MEM_NEW_N(struct member_view, 64);
    size_t n_all = members ? control_members(node->control, members, 64) : 0;

    *n = 0;
    for (size_t i = 0; i < n_all; i++)
        if (members[i].state == MEMBER_SELF || members[i].state == MEMBER_ALIVE)
            members[(*n)++] = members[i];
    return members;
}

size_t node_models(const struct node *node, struct node_model *out, size_t max)
{
    size_t n = 0, n_members;
    struct member_view *members = living_members(node, &n_members);

    for (size_t i = 0; i < n_members; i++)
        for (uint32_t j = 0; j < members[i].card.n_models; j++)
            models_merge(out, &n, max, &members[i].card.models[j], members[i].state == MEMBER_SELF);
    mem_free(members);
    return n;
}

size_t node_refused(const struct node *node, struct node_refused *out, size_t max)
{
    size_t n = 0, n_members;
    struct member_view *members = living_members(node, &n_members);

    for (size_t i = 0; i < n_members; i++) {
        const struct node_card *card = &members[i].card;

        for (uint32_t j = 0; j < card->n_refused && n < max; j++, n++) {
            out[n].model = card->refused[j];
            memcpy(out[n].node, card->name, sizeof out[n].node);
        }
    }
    mem_free(members);
    return n;
}

enum status node_find_model(const struct node *node, const char *name,
                            uint8_t out[static PROTO_HASH_BYTES], struct fault *fault)
{
    return control_find_model(node->control, name, out, fault);
}

struct adding {
    struct node *node;
    node_on_added *on_added;
    void *owner;
};

static void adding_on_added(void *owner, const struct model_card *card, const struct fault *fault)
{
    struct adding *adding = owner;

    adding->on_added(adding->owner, card, fault);
    mem_free(adding);
}

enum status node_add_model(struct node *node, const char *path, node_on_added *on_added,
                           void *owner)
{
    struct adding *adding = node->closing ? NULL : MEM_NEW(struct adding);
    enum status status = STATUS_NO_MEMORY;

    if (adding) {
        *adding = (struct adding){.node = node, .on_added = on_added, .owner = owner};
        status = store_add(node->store, path, adding_on_added, adding);
    }
    if (status != STATUS_OK)
        mem_free(adding);
    return status;
}

/* ---------------------------------------------------------------- plans */

struct planning {
    struct node *node;
    enum plan_objective objective;
    node_on_plan *on_plan;
    void *owner;
};

static void planning_on_open(void *owner, const uint8_t hash[static PROTO_HASH_BYTES],
                             const struct model *model, const struct fault *fault)
{
    struct planning *planning = owner;
    struct node *node = planning->node;
    struct control_plan_view *view = MEM_NEW(struct control_plan_view);
    struct control_model *table = model ? node_control_model(node, model, hash) : NULL;
    struct fault failed = *fault;

    if (model && (!view || !table))
        (void)fault_set(&failed, STATUS_NO_MEMORY, "no memory for a plan");
    if (view && table)
        failed.status = control_plan(node->control, table, planning->objective, view, &failed);
    planning->on_plan(planning->owner, failed.status == STATUS_OK ? view : NULL,
                      model ? model_info(model) : NULL, &failed);
    control_model_free(&table);
    mem_free(view);
    if (model)
        store_release(node->store, hash);
    mem_free(planning);
}

/* "a, b" of the living nodes that have the file. */
static void holders_of(const struct node *node, const uint8_t *hash, char *out, size_t size)
{
    size_t n, len = 0;
    struct member_view *members = living_members(node, &n);

    out[0] = '\0';
    for (size_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < members[i].card.n_models && len < size; k++)
            if (memcmp(members[i].card.models[k].hash, hash, PROTO_HASH_BYTES) == 0)
                len += (size_t)snprintf(out + len, size - len, "%s%s", len ? ", " : "",
                                        members[i].card.name);
    mem_free(members);
}

/* The file is not here: how it runs can be told, how it would run only by who has it. */
static enum status plan_elsewhere(struct node *node, const char *model, const uint8_t *hash,
                                  node_on_plan *on_plan, void *owner, struct fault *fault)
{
    struct control_plan_view *view = MEM_NEW(struct control_plan_view);
    struct fault none = {0};
    char names[200];

    if (!view)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory for a plan");
    if (control_plan_running(node->control, hash, view)) {
        on_plan(owner, view, NULL, &none);
        mem_free(view);
        return STATUS_OK;
    }
    mem_free(view);
    holders_of(node, hash, names, sizeof names);
    return fault_set(fault, STATUS_NOT_FOUND,
                     "the model %s is on other nodes only (%s); ask for the plan there", model,
                     names);
}

enum status node_plan(struct node *node, const char *model, enum plan_objective objective,
                      node_on_plan *on_plan, void *owner, struct fault *fault)
{
    struct planning *planning;
    uint8_t hash[PROTO_HASH_BYTES];
    enum status status = control_find_model(node->control, model, hash, fault);

    if (status != STATUS_OK)
        return status;
    planning = MEM_NEW(struct planning);
    if (!planning)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory for a plan");
    *planning =
        (struct planning){.node = node, .objective = objective, .on_plan = on_plan, .owner = owner};
    status = store_open(node->store, hash, planning_on_open, planning);
    if (status != STATUS_OK)
        mem_free(planning);
    if (status == STATUS_NOT_FOUND)
        return plan_elsewhere(node, model, hash, on_plan, owner, fault);
    return status == STATUS_OK ? STATUS_OK
                               : fault_set(fault, status, "the model %s cannot be opened", model);
}
