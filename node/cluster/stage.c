/* Stages: layers that this node runs for another node's instance.
 *
 *   PREPARE ─► WAITING ──links to both neighbours──► RESERVED ──LOAD──► LOADING ──shard──► READY
 *                 │ 2 s, 4 s                             │ 30 s            │ failed           │
 *                 └──────────── refusal, RELEASE, head lost, newer epoch ──┴──────────────────┴─►
 * CLOSED
 *
 * Happy path: memory is reserved and PREPARED says so, LOAD makes the shard, then passes come from
 * the previous stage, go through the own layers and on to the next stage; the last sends back to
 * the head. Nothing is relayed by the head, so a stage needs a link to its neighbours before it
 * says yes; just after a start those may still be on their way, hence the short wait. Nor does it
 * say no at once where memory that ending shards are giving back would do.
 *
 * A pass is checked in full before it costs anything: instance and epoch (older ones are dropped),
 * who sends it, the number of rows, every slot and position, the size of the payload. What is wrong
 * with one is told to the head (PASS_FAILED), as are failed layers and a lost neighbour; nothing
 * behind it is run, and the head closes the instance. A stage lives no longer than the link to its
 * head.
 */
#include "node/cluster/inner.h"

#include <string.h>

#define NEIGHBOUR_LIMIT_US (2 * SECOND_US)
#define LOAD_WAIT_US       (30 * SECOND_US)
#define ROOM_LIMIT_US      (4 * SECOND_US) /* a head waits 5 s for the answer */

static const char *const stage_names[] = {"waiting", "reserved", "loading", "ready", "closed"};
static const uint32_t stage_allowed[] = {
    [STAGE_WAITING] = SM_TO(STAGE_RESERVED) | SM_TO(STAGE_CLOSED),
    [STAGE_RESERVED] = SM_TO(STAGE_LOADING) | SM_TO(STAGE_CLOSED),
    [STAGE_LOADING] = SM_TO(STAGE_READY) | SM_TO(STAGE_CLOSED),
    [STAGE_READY] = SM_TO(STAGE_CLOSED),
    [STAGE_CLOSED] = 0,
};
static const struct sm_table stage_table = {"stage", stage_names, stage_allowed,
                                            COUNT_OF(stage_names)};

/* The live stage of this instance, whatever its epoch. */
static struct stage *stage_find(struct control *c, const struct instance_ref *ref)
{
    for (uint32_t i = 0; i < c->n_stages; i++) {
        struct stage *s = c->stages[i];

        if (s->state != STAGE_CLOSED && s->prepare.instance.number == ref->number &&
            id_equal(s->prepare.instance.head, ref->head))
            return s;
    }
    return NULL;
}

static struct stage *stage_exact(struct control *c, const struct instance_ref *ref)
{
    struct stage *s = stage_find(c, ref);

    return s && s->prepare.instance.epoch == ref->epoch ? s : NULL;
}

/* PREPARED, LOADED or PASS_FAILED to the head. */
static void stage_tell(struct control *c, struct mesh_link *head, enum message_kind kind,
                       const struct instance_ref *ref, enum status status, const char *text)
{
    struct message *message;

    if (!head)
        return;
    message = message_new(kind);
    if (message) {
        message->outcome.instance = *ref;
        message->outcome.status = status;
        message->outcome.memory_free_bytes = memory_free(c);
        text_set(message->outcome.text, sizeof message->outcome.text, "%s", text);
    }
    mesh_send(c, head, message);
}

static void stage_close(struct control *c, struct stage *s)
{
    if (s->state == STAGE_CLOSED)
        return;
    sm_move(&stage_table, &s->state, STAGE_CLOSED);
    if (s->shard_asked)
        memory_leave(c, &s->prepare.instance, s->prepare.need_bytes);
    s->head = s->previous = s->next = NULL;
    card_changed(c);
}

/* ---------------------------------------------------------------- preparing */

static struct mesh_link *link_to(struct control *c, const uint8_t *id)
{
    struct member *m = member_find(c, id);

    return m && mesh_is_up(m->link) ? m->link : NULL;
}

/* Finds the links to both neighbours; with both, says yes. */
static void stage_meet(struct control *c, struct stage *s)
{
    const struct message_prepare *p = &s->prepare;
    uint32_t next = p->stage + 1 < p->n_stages ? p->stage + 1 : 0;

    if (!s->counted)
        return;
    s->previous = p->stage == 1 ? s->head : link_to(c, p->stages[p->stage - 1].node_id);
    s->next = next == 0 ? s->head : link_to(c, p->stages[next].node_id);
    if (!s->previous || !s->next)
        return;
    sm_move(&stage_table, &s->state, STAGE_RESERVED);
    s->deadline_us = c->now_us + LOAD_WAIT_US;
    stage_tell(c, s->head, MESSAGE_PREPARED, &p->instance, STATUS_OK, "");
}

/* Takes the memory as soon as it is there. */
static void stage_count(struct control *c, struct stage *s)
{
    if (s->counted || s->prepare.need_bytes > memory_free(c))
        return;
    s->counted = true;
    s->deadline_us = c->now_us + NEIGHBOUR_LIMIT_US;
    card_changed(c);
}

static enum status stage_lacks_room(struct control *c, const struct message_prepare *p,
                                    struct fault *fault)
{
    char need[24], have[24];

    return fault_set(fault, STATUS_NO_ROOM, "needs %s, has %s free",
                     bytes_format_size(p->need_bytes, need, sizeof need),
                     bytes_format_size(memory_free(c), have, sizeof have));
}

/* The reason for a no, or OK. What ending shards give back is worth waiting for. */
static enum status stage_refuses(struct control *c, const struct message_prepare *p,
                                 struct fault *fault)
{
    uint64_t coming = memory_free(c) + memory_leaving(c);

    if (!card_has(&c->card, p->model_hash))
        return fault_set(fault, STATUS_NOT_FOUND, "it does not have the model file");
    if (c->n_stages == MAX_STAGES_HERE || !memory_can_begin(c))
        return fault_set(fault, STATUS_BUSY, "it runs %u stages already", c->n_stages);
    return p->need_bytes > coming ? stage_lacks_room(c, p, fault) : STATUS_OK;
}

void stage_prepare(struct control *c, struct mesh_link *link, const struct message_prepare *p)
{
    struct stage *s = stage_find(c, &p->instance);
    struct fault fault = {0};

    if (!id_equal(p->instance.head, link->member->id) ||
        !id_equal(p->stages[0].node_id, link->member->id) ||
        !id_equal(p->stages[p->stage].node_id, c->options.self_id)) {
        mesh_fail(link, "%s asked for a stage that is not ours", mesh_name(link));
        return;
    }
    if ((s && s->prepare.instance.epoch >= p->instance.epoch) || memory_is_leaving(c, &p->instance))
        return;
    if (s)
        stage_close(c, s);
    s = NULL;
    if (stage_refuses(c, p, &fault) == STATUS_OK) {
        s = MEM_NEW(struct stage);
        if (!s)
            (void)fault_set(&fault, STATUS_NO_MEMORY, "out of memory");
    }
    if (!s) {
        stage_tell(c, link, MESSAGE_PREPARED, &p->instance, fault.status, fault.text);
        return;
    }
    s->prepare = *p;
    s->state = STAGE_WAITING;
    s->head = link;
    s->deadline_us = c->now_us + ROOM_LIMIT_US;
    c->stages[c->n_stages++] = s;
    stage_count(c, s);
    stage_meet(c, s);
}

/* ---------------------------------------------------------------- loading */

void stage_load(struct control *c, struct mesh_link *link, const struct instance_ref *ref)
{
    struct stage *s = stage_exact(c, ref);
    const struct message_prepare *p;
    struct control_action *action;

    if (!s || s->head != link || s->state != STAGE_RESERVED)
        return;
    p = &s->prepare;
    action = action_add(c, ACTION_LOAD_SHARD);
    if (!action) {
        stage_tell(c, link, MESSAGE_LOADED, ref, STATUS_NO_MEMORY, "out of memory");
        stage_close(c, s);
        return;
    }
    sm_move(&stage_table, &s->state, STAGE_LOADING);
    s->deadline_us = NEVER_US;
    s->shard_asked = true;
    action->load_shard.instance = *ref;
    memcpy(action->load_shard.hash, p->model_hash, PROTO_HASH_BYTES);
    action->load_shard.spec = (struct shard_spec){
        .layer_begin = p->stages[p->stage].layer_begin,
        .layer_end = p->stages[p->stage].layer_end,
        .n_slots = p->n_slots,
        .n_ctx_tokens = p->n_ctx_tokens,
        .n_kv_blocks = p->n_kv_blocks,
        .max_rows = p->max_rows,
        .form = {.kv_type = (enum kv_type)p->kv_type, .quantize = p->quantize, .mapped = p->mapped},
    };
}

bool stage_shard(struct control *c, const struct control_event *event)
{
    const struct fault *fault = &event->shard.fault;
    struct stage *s = stage_exact(c, &event->shard.instance);

    if (!s || s->state != STAGE_LOADING)
        return false;
    stage_tell(c, s->head, MESSAGE_LOADED, &s->prepare.instance, fault->status, fault->text);
    if (fault->status == STATUS_OK)
        sm_move(&stage_table, &s->state, STAGE_READY);
    else
        stage_close(c, s);
    return true;
}

void stage_release(struct control *c, struct mesh_link *link, const struct instance_ref *ref)
{
    struct stage *s = stage_find(c, ref);

    if (s && s->head == link && s->prepare.instance.epoch <= ref->epoch)
        stage_close(c, s);
}

/* ---------------------------------------------------------------- passes */

static bool pass_fits(const struct stage *s, const struct message *m)
{
    const struct message_prepare *p = &s->prepare;
    const struct message_pass *pass = &m->pass;

    if (pass->stage != p->stage || pass->n_rows > p->max_rows ||
        m->payload_bytes != (size_t)pass->n_rows * p->n_embd * sizeof(float))
        return false;
    for (uint32_t i = 0; i < pass->n_rows; i++)
        if (pass->rows[i].slot >= p->n_slots || pass->rows[i].pos >= p->n_ctx_tokens)
            return false;
    for (uint32_t i = 0; i < pass->n_clears; i++)
        if (pass->clears[i].slot >= p->n_slots)
            return false;
    return true;
}

static void stage_pass_failed(struct control *c, struct stage *s, enum status status,
                              const char *text)
{
    s->broken = true;
    stage_tell(c, s->head, MESSAGE_PASS_FAILED, &s->prepare.instance, status, text);
}

void stage_pass(struct control *c, struct mesh_link *link, struct message *message)
{
    struct stage *s = stage_exact(c, &message->pass.instance);
    struct control_pass *pass = NULL;

    if (!s || s->state != STAGE_READY || s->previous != link || s->broken)
        goto out;
    if (!pass_fits(s, message)) {
        stage_pass_failed(c, s, STATUS_FORMAT, "a pass came that does not fit the stage");
        goto out;
    }
    pass = pass_new(0, 0, 0);
    if (pass) {
        pass->message = message;
        message = NULL;
    }
    if (!pass || !act_pass(c, ACTION_RUN_STAGE, &s->prepare.instance, pass))
        stage_pass_failed(c, s, STATUS_NO_MEMORY, "out of memory for a pass");
out:
    message_free(&message);
}

bool stage_done(struct control *c, struct control_pass *pass, const struct fault *fault)
{
    struct stage *s = stage_exact(c, &pass->message->pass.instance);
    struct message *message;

    if (!s || s->state != STAGE_READY)
        return false;
    if (fault->status != STATUS_OK) {
        stage_pass_failed(c, s, fault->status, fault->text);
    } else if (s->next) {
        message = pass->message;
        pass->message = NULL;
        message->pass.stage = s->prepare.stage + 1 < s->prepare.n_stages ? s->prepare.stage + 1 : 0;
        mesh_send(c, s->next, message);
    }
    control_pass_free(&pass);
    return true;
}

/* ---------------------------------------------------------------- ends and time */

void stages_link_lost(struct control *c, struct mesh_link *link)
{
    for (uint32_t i = 0; i < c->n_stages; i++) {
        struct stage *s = c->stages[i];
        char why[PROTO_MAX_TEXT];

        if (s->state == STAGE_CLOSED)
            continue;
        if (s->head == link) {
            stage_close(c, s);
            continue;
        }
        if (s->previous != link && s->next != link)
            continue;
        text_set(why, sizeof why, "it lost its link to node %s", mesh_name(link));
        if (s->state != STAGE_WAITING)
            stage_pass_failed(c, s, STATUS_LOST, why);
        s->previous = s->previous == link ? NULL : s->previous;
        s->next = s->next == link ? NULL : s->next;
    }
}

void stages_settle(struct control *c)
{
    for (uint32_t i = 0; i < c->n_stages; i++) {
        struct stage *s = c->stages[i];

        struct fault fault = {0};

        if (s->state == STAGE_WAITING) {
            stage_count(c, s);
            stage_meet(c, s);
        }
        if (s->state == STAGE_CLOSED || c->now_us < s->deadline_us)
            continue;
        (void)stage_lacks_room(c, &s->prepare, &fault);
        if (s->state == STAGE_WAITING && !s->counted)
            stage_tell(c, s->head, MESSAGE_PREPARED, &s->prepare.instance, fault.status,
                       fault.text);
        else if (s->state == STAGE_WAITING)
            stage_tell(c, s->head, MESSAGE_PREPARED, &s->prepare.instance, STATUS_UNREACHABLE,
                       "it has no link to its neighbour in the ring");
        if (s->state == STAGE_WAITING || s->state == STAGE_RESERVED)
            stage_close(c, s);
    }
}

void stages_sweep(struct control *c)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->n_stages; i++) {
        if (c->stages[i]->state == STAGE_CLOSED)
            mem_free(c->stages[i]);
        else
            c->stages[n++] = c->stages[i];
    }
    c->n_stages = n;
}

uint64_t stages_wake(const struct control *c)
{
    uint64_t wake_us = NEVER_US;

    for (uint32_t i = 0; i < c->n_stages; i++)
        if (c->stages[i]->state != STAGE_CLOSED && c->stages[i]->deadline_us < wake_us)
            wake_us = c->stages[i]->deadline_us;
    return wake_us;
}
