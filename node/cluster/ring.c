/* Passes at the head: out of the scheduler, once round the ring of stages, back to the scheduler.
 *
 *   scheduler_fill ─► RUN_STAGE (embed, own layers) ─► link to stage 1 … last stage ─► link ─┐
 *        ▲                                │ one stage only                                   │
 *        │                                ▼                                                  ▼
 *   scheduler_pass_done ◄── samples ◄── RUN_HEAD ◄──────────── hidden rows ◄────────── MESSAGE_PASS
 *
 * While a pass is away, its tokens and sample jobs stay here (struct pass_slot) and only the
 * message travels; it comes back as another message with the same number. What comes back is
 * believed only if it is expected: from the last stage, of this epoch, with a number that is away,
 * of the same size. Anything else from a ring's member closes the instance; from others it is
 * dropped.
 *
 * Passes are reused with their message and payload, so that a single node's decode step allocates
 * nothing here. What fails: memory, a stage, a node, and a pass that does not come back although
 * all links live (a stage that hangs); each closes the instance with a sentence. */
#include "node/cluster/inner.h"

#include <assert.h>
#include <string.h>

/* A pass that takes so much longer than the slowest row so far lets expect is lost. */
#define PASS_LIMIT_MIN_US (60 * SECOND_US)
#define PASS_LIMIT_MAX_US (1200 * SECOND_US)
enum { PATIENCE = 20 };

void control_pass_free(struct control_pass **pass)
{
    struct control_pass *p = *pass;

    if (!p)
        return;
    message_free(&p->message);
    mem_free(p->tokens);
    mem_free(p->samples);
    mem_free(p->history);
    mem_free(p->biases);
    mem_free(p);
    *pass = NULL;
}

struct control_pass *pass_new(uint32_t max_rows, uint32_t n_slots, uint32_t n_ctx_tokens)
{
    size_t n_history = n_ctx_tokens < PROTO_MAX_HISTORY ? n_ctx_tokens : PROTO_MAX_HISTORY;
    struct control_pass *pass = MEM_NEW(struct control_pass);

    if (!pass || !max_rows)
        return pass;
    pass->tokens = MEM_NEW_N(uint32_t, max_rows);
    pass->samples = MEM_NEW_N(struct sample_job, n_slots);
    pass->history = MEM_NEW_N(uint32_t, n_slots * n_history);
    pass->biases = MEM_NEW_N(struct sample_bias, (size_t)n_slots * PROTO_MAX_BIASES);
    if (!pass->tokens || !pass->samples || !pass->history || !pass->biases) {
        control_pass_free(&pass);
        return NULL;
    }
    for (uint32_t i = 0; i < n_slots; i++) {
        pass->samples[i].history = pass->history + i * n_history;
        pass->samples[i].biases = pass->biases + (size_t)i * PROTO_MAX_BIASES;
    }
    return pass;
}

struct instance *ring_instance(struct control *c, const struct instance_ref *ref)
{
    for (uint32_t i = 0; i < c->n_instances; i++) {
        struct instance *instance = c->instances[i];

        if (ref_equal(&instance->ref, ref) && !instance->failed &&
            instance->state != INSTANCE_CLOSED)
            return instance;
    }
    return NULL;
}

static struct pass_slot *flight_of(struct instance *instance, uint64_t number)
{
    for (uint32_t i = 0; i < PROTO_MAX_STAGES; i++)
        if (instance->flights[i].number == number)
            return &instance->flights[i];
    return NULL;
}

/* ---------------------------------------------------------------- out */

/* A pass with its message, ready to be filled; NULL without memory. */
static struct control_pass *ring_draft(struct instance *instance)
{
    struct control_pass *pass = NULL;
    struct message_pass *m;

    if (instance->n_spare)
        pass = instance->spare[--instance->n_spare];
    else
        pass = pass_new(instance->max_rows, instance->n_slots, instance->n_ctx_tokens);
    if (pass && !pass->message)
        pass->message = message_new(MESSAGE_PASS);
    if (!pass || !pass->message) {
        control_pass_free(&pass);
        return NULL;
    }
    m = &pass->message->pass;
    m->instance = instance->ref;
    m->pass = instance->n_passes + 1;
    m->stage = m->n_rows = m->n_clears = pass->n_samples = 0;
    return pass;
}

static void ring_keep(struct instance *instance, struct control_pass *pass)
{
    if (instance->n_spare < PROTO_MAX_STAGES)
        instance->spare[instance->n_spare++] = pass;
    else
        control_pass_free(&pass);
}

static void ring_send(struct control *c, struct instance *instance, struct control_pass *pass)
{
    struct message *m = pass->message;
    size_t n_bytes = (size_t)m->pass.n_rows * instance->model->n_embd * sizeof(float);
    struct pass_slot *flight = flight_of(instance, 0);

    assert(flight);
    if (m->payload_bytes != n_bytes) {
        mem_free(m->payload);
        m->payload = n_bytes ? mem_aligned(64, n_bytes, 1) : NULL;
        m->payload_bytes = m->payload ? n_bytes : 0;
    }
    if (m->payload_bytes != n_bytes) {
        control_pass_free(&pass);
        instance_fail(instance, STATUS_NO_MEMORY, "out of memory for a pass; try again");
        return;
    }
    instance->n_passes++;
    *flight =
        (struct pass_slot){.number = m->pass.pass, .n_rows = m->pass.n_rows, .sent_us = c->now_us};
    if (!act_pass(c, ACTION_RUN_STAGE, &instance->ref, pass))
        instance_fail(instance, STATUS_NO_MEMORY, "out of memory; try again");
}

void ring_dispatch(struct control *c, struct instance *instance)
{
    while (instance->state == INSTANCE_READY && !instance->failed &&
           scheduler_n_flights(instance->scheduler) < instance->n_stages &&
           !scheduler_idle(instance->scheduler)) {
        struct control_pass *pass = ring_draft(instance);

        if (!pass) {
            instance_fail(instance, STATUS_NO_MEMORY, "out of memory for a pass; try again");
            return;
        }
        if (!scheduler_fill(instance->scheduler, c->now_us, pass)) {
            ring_keep(instance, pass);
            return;
        }
        ring_send(c, instance, pass);
    }
}

/* One row through all stages: what proves that the instance is ready. */
void ring_probe(struct control *c, struct instance *instance)
{
    struct control_pass *pass = ring_draft(instance);

    if (!pass) {
        instance_fail(instance, STATUS_NO_MEMORY, "out of memory for a pass; try again");
        return;
    }
    pass->tokens[0] = 0;
    pass->message->pass.rows[0] = (struct pass_row){.slot = 0, .pos = 0};
    pass->message->pass.n_rows = 1;
    ring_send(c, instance, pass);
}

/* ---------------------------------------------------------------- time */

static uint32_t rows_of(const struct pass_slot *flight)
{
    return flight->n_rows ? flight->n_rows : 1;
}

static uint64_t flight_limit_us(const struct instance *instance, const struct pass_slot *flight)
{
    uint64_t limit_us;

    if (__builtin_mul_overflow(instance->slowest_row_us, (uint64_t)PATIENCE * rows_of(flight),
                               &limit_us))
        return PASS_LIMIT_MAX_US;
    limit_us = limit_us > PASS_LIMIT_MIN_US ? limit_us : PASS_LIMIT_MIN_US;
    return limit_us < PASS_LIMIT_MAX_US ? limit_us : PASS_LIMIT_MAX_US;
}

uint64_t ring_due_us(const struct instance *instance)
{
    uint64_t due_us = NEVER_US;

    for (uint32_t i = 0; i < PROTO_MAX_STAGES; i++) {
        const struct pass_slot *flight = &instance->flights[i];
        uint64_t end_us = flight->sent_us + flight_limit_us(instance, flight);

        if (flight->number && end_us < due_us)
            due_us = end_us;
    }
    return due_us;
}

/* A node whose link lives but whose layers hang: who has the pass is all that can be said. */
void ring_overdue(struct control *c, struct instance *instance)
{
    char names[200] = "";

    for (uint32_t i = 0; i < PROTO_MAX_STAGES; i++) {
        const struct pass_slot *flight = &instance->flights[i];
        uint64_t limit_us = flight_limit_us(instance, flight);

        if (!flight->number || c->now_us < flight->sent_us + limit_us)
            continue;
        if (!flight->pass)
            text_set(names, sizeof names, "%s", c->card.name);
        for (uint32_t k = 1; k < instance->n_stages && flight->pass; k++) {
            size_t n = strlen(names);

            if (n < sizeof names)
                text_set(names + n, sizeof names - n, "%s%s", n ? " or " : "",
                         instance->stages[k].name);
        }
        instance_fail(
            instance, STATUS_TIMEOUT,
            "a pass of %u rows did not come back from node %s within %u s; ask again, and "
            "if it happens again, restart that node",
            flight->n_rows, names, (unsigned)(limit_us / SECOND_US));
        return;
    }
}

/* ---------------------------------------------------------------- back */

static void ring_finished(struct control *c, struct instance *instance, struct control_pass *pass)
{
    uint64_t number = pass->message->pass.pass;
    struct pass_slot *flight = flight_of(instance, number);

    if (flight) {
        uint64_t row_us = (c->now_us - flight->sent_us) / rows_of(flight);

        if (row_us > instance->slowest_row_us)
            instance->slowest_row_us = row_us;
        *flight = (struct pass_slot){0};
    }
    if (instance->state == INSTANCE_PROBING)
        instance_probed(c, instance);
    else
        scheduler_pass_done(instance->scheduler, number, c->now_us);
    ring_keep(instance, pass);
    c->again = true;
}

static void ring_back(struct control *c, struct instance *instance, struct control_pass *pass)
{
    if (!pass->n_samples)
        ring_finished(c, instance, pass);
    else if (!act_pass(c, ACTION_RUN_HEAD, &instance->ref, pass))
        instance_fail(instance, STATUS_NO_MEMORY, "out of memory; try again");
}

bool ring_stage_done(struct control *c, struct control_pass *pass, const struct fault *fault)
{
    struct instance *instance;
    struct pass_slot *flight;
    struct message *message;

    if (!id_equal(pass->message->pass.instance.head, c->options.self_id))
        return false;
    instance = ring_instance(c, &pass->message->pass.instance);
    flight = instance ? flight_of(instance, pass->message->pass.pass) : NULL;
    if (!flight || flight->pass) {
        control_pass_free(&pass);
    } else if (fault->status != STATUS_OK) {
        instance_fail(instance, fault->status, "node %s could not run its layers: %s", c->card.name,
                      fault->text);
        control_pass_free(&pass);
    } else if (instance->n_stages == 1) {
        ring_back(c, instance, pass);
    } else {
        message = pass->message;
        pass->message = NULL;
        message->pass.stage = 1;
        flight->pass = pass;
        mesh_send(c, instance->stages[1].link, message);
    }
    return true;
}

void ring_pass(struct control *c, struct mesh_link *link, struct message *message)
{
    struct instance *instance = ring_instance(c, &message->pass.instance);
    struct pass_slot *flight;
    struct control_pass *pass;

    if (!instance || instance->n_stages < 2 ||
        instance->stages[instance->n_stages - 1].link != link) {
        message_free(&message);
        return;
    }
    flight = message->pass.pass ? flight_of(instance, message->pass.pass) : NULL;
    if (!flight || !flight->pass || message->pass.n_rows != flight->n_rows ||
        message->payload_bytes !=
            (size_t)flight->n_rows * instance->model->n_embd * sizeof(float)) {
        instance_fail(instance, STATUS_FORMAT, "node %s sent back a pass that nobody awaits",
                      mesh_name(link));
        message_free(&message);
        return;
    }
    pass = flight->pass;
    flight->pass = NULL;
    pass->message = message;
    ring_back(c, instance, pass);
}

void ring_head_done(struct control *c, const struct control_event *event)
{
    struct control_pass *pass = event->head_done.pass;
    struct instance *instance = ring_instance(c, &pass->message->pass.instance);

    if (!instance || !flight_of(instance, pass->message->pass.pass)) {
        control_pass_free(&pass);
        return;
    }
    if (event->head_done.fault.status != STATUS_OK) {
        instance_fail(instance, event->head_done.fault.status,
                      "node %s could not run the output head: %s", c->card.name,
                      event->head_done.fault.text);
        control_pass_free(&pass);
        return;
    }
    ring_finished(c, instance, pass);
    for (uint32_t i = 0; i < event->head_done.n_sampled; i++)
        work_sampled(c, instance, &event->head_done.sampled[i]);
}

/* Forgets all passes; those at the shell come back and find nobody. */
void ring_clear(struct instance *instance)
{
    for (uint32_t i = 0; i < PROTO_MAX_STAGES; i++) {
        control_pass_free(&instance->flights[i].pass);
        instance->flights[i].number = 0;
    }
    while (instance->n_spare)
        control_pass_free(&instance->spare[--instance->n_spare]);
}
