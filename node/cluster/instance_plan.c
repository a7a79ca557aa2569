/* Planning an instance: from cards and the model's numbers to plan_make, and back to links.
 *
 * Who takes part: this node, which is the head, and every living node that has the file and has
 * measured its speed. The others get a sentence that says why they are left out. What a node
 * refused in an earlier round counts more than its card: its true free memory, or its no.
 *
 * Memory that is free now comes first; then what other nodes are about to get back, because a stage
 * waits for it a little. What this node itself gets back, and what idle instances hold, is for
 * room.c to wait for or to ask for. How much context: context.c. */
#include "node/cluster/planning.h"

#include <string.h>

/* For what was not measured: a slow old box, a 1 Gbit/s wire. */
#define DEFAULT_READ_BYTES_PER_SECOND 5e9
#define DEFAULT_FLOPS                 2e10
#define DEFAULT_HOP_SECONDS           5e-4
#define WIRE_SECONDS_PER_BYTE         (1.0 / 117e6)
#define PASS_SECONDS                  1e-4

void planning_node(struct plan_node *node, const struct node_card *card)
{
    double read = card->read_bytes_per_second, flops = card->flops_per_second;

    memset(node, 0, sizeof *node);
    text_set(node->name, sizeof node->name, "%s", card->name);
    node->decode_seconds_per_byte = 1 / (read > 0 ? read : DEFAULT_READ_BYTES_PER_SECOND);
    node->prefill_seconds_per_flop = 1 / (flops > 0 ? flops : DEFAULT_FLOPS);
    node->pass_seconds = PASS_SECONDS;
    node->hop_seconds = DEFAULT_HOP_SECONDS;
    node->hop_seconds_per_byte = WIRE_SECONDS_PER_BYTE;
    node->can_run = true;
}

static const struct refusal *refusal_of(const struct instance *instance, const uint8_t *id)
{
    for (uint32_t i = 0; instance && i < instance->n_refusals; i++)
        if (id_equal(instance->refusals[i].node_id, id))
            return &instance->refusals[i];
    return NULL;
}

void instance_refused(struct instance *instance, const uint8_t id[static PROTO_ID_BYTES],
                      const struct message_outcome *outcome)
{
    struct refusal *refusal = (struct refusal *)refusal_of(instance, id);

    if (!refusal) {
        if (instance->n_refusals == PLAN_MAX_NODES)
            return;
        refusal = &instance->refusals[instance->n_refusals++];
        memcpy(refusal->node_id, id, PROTO_ID_BYTES);
    }
    refusal->excluded = outcome->status != STATUS_NO_ROOM;
    refusal->memory_free_bytes = outcome->memory_free_bytes;
    text_set(refusal->why, sizeof refusal->why, "%s", outcome->text);
}

static bool takes_part(const struct member *m, const uint8_t *hash)
{
    return card_has(&m->card, hash) && m->card.read_bytes_per_second > 0;
}

static uint64_t memory_of(const struct node_card *card, enum plan_memory memory)
{
    uint64_t bytes = card->memory_free_bytes;

    if (memory == MEMORY_ALL)
        return card->memory_bytes;
    if (memory != MEMORY_FREE && __builtin_add_overflow(bytes, card->memory_leaving_bytes, &bytes))
        bytes = card->memory_bytes;
    return bytes < card->memory_bytes ? bytes : card->memory_bytes;
}

/* One living member as a node of the plan. */
static void planning_add(struct planning *p, const struct member *m, const uint8_t *hash,
                         const struct instance *instance, enum plan_memory memory)
{
    struct plan_node *node = &p->nodes[p->n];
    const struct refusal *refusal = refusal_of(instance, m->id);

    planning_node(node, &m->card);
    node->memory_bytes = memory_of(&m->card, memory);
    if (m->rtt_us)
        node->hop_seconds = (double)m->rtt_us / 2e6;
    if (refusal && !refusal->excluded && memory <= MEMORY_SOON &&
        refusal->memory_free_bytes < node->memory_bytes)
        node->memory_bytes = refusal->memory_free_bytes;
    if (!takes_part(m, hash)) {
        node->can_run = false;
        text_set(node->why_not, sizeof node->why_not, "%s",
                 card_has(&m->card, hash) ? "it has not measured its speed yet"
                                          : "it does not have the model file");
    } else if (refusal && refusal->excluded) {
        node->can_run = false;
        text_set(node->why_not, sizeof node->why_not, "%s", refusal->why);
    }
    p->members[p->n++] = m;
}

static bool is_planned(const struct planning *p, const struct member *m)
{
    for (uint32_t i = 1; i < p->n; i++)
        if (p->members[i] == m)
            return true;
    return false;
}

/* Self first, then those who can take part, most memory first, then the others for their sentence.
 */
void planning_collect(const struct control *c, const uint8_t *hash, const struct instance *instance,
                      enum plan_memory memory, struct planning *p)
{
    double hops = 0;

    planning_node(&p->nodes[0], &c->card);
    p->nodes[0].memory_bytes = memory_of(&c->card, memory == MEMORY_SOON ? MEMORY_FREE : memory);
    p->members[0] = NULL;
    p->n = 1;
    for (int part = 1; part >= 0; part--) {
        while (p->n < PLAN_MAX_NODES) {
            const struct member *best = NULL;

            for (uint32_t i = 0; i < c->n_members; i++) {
                const struct member *m = c->members[i];

                if (mesh_is_up(m->link) && takes_part(m, hash) == part && !is_planned(p, m) &&
                    (!best || m->card.memory_free_bytes > best->card.memory_free_bytes))
                    best = m;
            }
            if (!best)
                break;
            planning_add(p, best, hash, instance, memory);
        }
    }
    for (uint32_t i = 1; i < p->n; i++)
        hops += p->nodes[i].hop_seconds / (p->n - 1);
    if (p->n > 1)
        p->nodes[0].hop_seconds = hops;
}

struct plan_model planning_model(const struct control_model *m)
{
    return (struct plan_model){
        .n_layers = m->n_layers,
        .n_embd = m->n_embd,
        .layer_bytes = m->layer_bytes,
        .layer_active_bytes = m->layer_active_bytes,
        .layer_kv_bytes = m->layer_kv_bytes,
        .layer_flops = m->layer_flops,
        .embed_bytes = m->embed_bytes,
        .head_bytes = m->head_bytes,
        .head_active_bytes = m->head_active_bytes,
        .head_flops = m->head_flops,
        .scratch_bytes = m->scratch_bytes,
    };
}

void planning_names(const struct planning *p, uint32_t *n, char names[][PROTO_MAX_NAME])
{
    *n = p->n;
    for (uint32_t i = 0; i < p->n; i++)
        text_set(names[i], PROTO_MAX_NAME, "%s", p->nodes[i].name);
}

enum status instance_plan(struct control *c, struct instance *instance, struct fault *fault)
{
    struct planning p;
    struct context context = {0};
    enum status status;

    planning_collect(c, instance->hash, instance, MEMORY_FREE, &p);
    status = plan_context(c, &p, instance->model, c->options.objective, &instance->plan, &context,
                          fault);
    if (status == STATUS_NO_ROOM) {
        planning_collect(c, instance->hash, instance, MEMORY_SOON, &p);
        status = plan_context(c, &p, instance->model, c->options.objective, &instance->plan,
                              &context, fault);
    }
    if (status != STATUS_OK)
        return status;
    context_notice(c, &p, instance->model, context.n_ctx_tokens, instance->notice,
                   sizeof instance->notice);
    instance->n_ctx_tokens = context.n_ctx_tokens;
    instance->n_kv_tokens = context.n_kv_tokens;
    instance->n_stages = instance->plan.n_stages;
    planning_names(&p, &instance->n_nodes, instance->node_names);
    for (uint32_t i = 0; i < instance->n_stages; i++) {
        const struct member *m = p.members[instance->plan.stages[i].node];
        struct instance_stage *stage = &instance->stages[i];

        memset(stage, 0, sizeof *stage);
        memcpy(stage->node_id, m ? m->id : c->options.self_id, PROTO_ID_BYTES);
        text_set(stage->name, sizeof stage->name, "%s", m ? m->card.name : c->card.name);
        stage->link = m ? m->link : NULL;
    }
    return STATUS_OK;
}
