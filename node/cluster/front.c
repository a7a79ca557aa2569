/* The front's side of a request: from this node's API to whichever node heads the model, and back.
 *
 *   EVENT_REQUEST ─► SUBMITTED ──ACCEPTED──► RUNNING ──DONE──► DONE
 *                        │                      │               ▲
 *                        └── cancel, head lost, time, memory ───┘
 *
 * Happy path: the name becomes a hash, a head is chosen (who heads an instance of the model
 * already; else this node, if it has the file; else the node with the file and the most free
 * memory), the prompt goes there, token ids and text come back in order, DONE ends it. The own head
 * is spoken to by plain calls, others by messages; the rest is the same.
 *
 * A head that cannot hold even its own part (NO_ROOM, before it has accepted) may still be a fine
 * front: the request moves on, once, to the node with the file and more memory than any other.
 *
 * The journal holds what is needed to go on elsewhere (DESIGN I1): prompt ids, emitted ids,
 * sampling parameters, seed. A seed of 0 is replaced here, so that the seed is known before any
 * token is.
 *
 * ACTION_DONE comes exactly once, whatever happens: DONE is a state without a way out, and every
 * path there goes through front_end. What fails: unknown model, head lost (LOST, says which node),
 * no ACCEPTED within the limit (the head's own limits are shorter, and it ends the request itself;
 * this is for a head that forgets). */
#include "node/cluster/inner.h"

#include <string.h>

#define ACCEPT_LIMIT_US (1500 * SECOND_US) /* a model may have to be loaded first */

static const char *const front_names[] = {"submitted", "running", "done"};
static const uint32_t front_allowed[] = {
    [FRONT_SUBMITTED] = SM_TO(FRONT_RUNNING) | SM_TO(FRONT_DONE),
    [FRONT_RUNNING] = SM_TO(FRONT_DONE),
    [FRONT_DONE] = 0,
};
static const struct sm_table front_table = {"front", front_names, front_allowed,
                                            COUNT_OF(front_names)};

/* ---------------------------------------------------------------- the end */

static void act_done(struct control *c, uint64_t handle, const struct message_done *done)
{
    struct control_action *action = action_add(c, ACTION_DONE);

    if (!action)
        return;
    action->done.handle = handle;
    action->done.done = *done;
}

static void act_fault(struct control *c, uint64_t handle, const struct fault *fault)
{
    struct message_done done = {.end = REQUEST_END_ERROR, .status = fault->status};

    text_set(done.text, sizeof done.text, "%s", fault->text);
    act_done(c, handle, &done);
}

static void front_end(struct control *c, struct front *front, const struct message_done *done)
{
    if (front->state == FRONT_DONE)
        return;
    sm_move(&front_table, &front->state, FRONT_DONE);
    mem_free(front->body);
    front->body = NULL;
    act_done(c, front->handle, done);
}

static void front_fault(struct control *c, struct front *front, const struct fault *fault)
{
    struct message_done done = {.end = REQUEST_END_ERROR, .status = fault->status};

    text_set(done.text, sizeof done.text, "%s", fault->text);
    done.n_prompt = front->n_prompt;
    done.n_generated = front->n_tokens - front->n_prompt;
    front_end(c, front, &done);
}

/* The head need not go on. */
static void front_call_off(struct control *c, struct front *front)
{
    struct message *message;

    if (front->local) {
        work_cancel(c, (struct origin){.link = NULL, .request = front->number});
    } else if (front->head) {
        message = message_new(MESSAGE_CANCEL);
        if (message)
            message->request = front->number;
        mesh_send(c, front->head, message);
    }
}

static void front_give_up(struct control *c, struct front *front, enum status status,
                          const char *why)
{
    struct fault fault = {0};

    (void)fault_set(&fault, status, "%s", why);
    front_fault(c, front, &fault);
    front_call_off(c, front);
}

/* ---------------------------------------------------------------- the beginning */

static bool card_heads(const struct node_card *card, const uint8_t *hash)
{
    for (uint32_t i = 0; i < card->n_instances; i++)
        if (hash_equal(card->instances[i], hash))
            return true;
    return false;
}

/* The head of an instance that this node holds a stage of: known before any card tells it. */
static struct mesh_link *head_of_stage_here(const struct control *c, const uint8_t *hash)
{
    for (uint32_t i = 0; i < c->n_stages; i++) {
        const struct stage *stage = c->stages[i];

        if (stage->state != STAGE_WAITING && stage->state != STAGE_CLOSED &&
            hash_equal(stage->prepare.model_hash, hash) && mesh_is_up(stage->head))
            return stage->head;
    }
    return NULL;
}

/* Who shall head the model: NULL for this node. */
static struct mesh_link *choose_head(struct control *c, const uint8_t *hash)
{
    struct member *heads = NULL, *holds = NULL;
    struct mesh_link *link;

    if (card_heads(&c->card, hash))
        return NULL;
    link = head_of_stage_here(c, hash);
    if (link)
        return link;
    for (uint32_t i = 0; i < c->n_members; i++) {
        struct member *m = c->members[i];

        if (!mesh_is_up(m->link) || !card_has(&m->card, hash))
            continue;
        if (card_heads(&m->card, hash) && (!heads || memcmp(m->id, heads->id, PROTO_ID_BYTES) < 0))
            heads = m;
        if (!holds || m->card.memory_free_bytes > holds->card.memory_free_bytes)
            holds = m;
    }
    if (heads)
        return heads->link;
    return card_has(&c->card, hash) || !holds ? NULL : holds->link;
}

static void front_submit(struct control *c, struct front *front)
{
    struct origin origin = {.link = NULL, .request = front->number};
    struct message *message;
    uint8_t *payload = NULL;

    if (front->local) {
        work_submit(c, origin, &front->spec, front->body, front->body_bytes);
        return;
    }
    message = message_new(MESSAGE_SUBMIT);
    if (message && front->body_bytes)
        payload = mem_aligned(64, front->body_bytes, 1);
    if (!message || (front->body_bytes && !payload)) {
        message_free(&message);
        front_give_up(c, front, STATUS_NO_MEMORY, "out of memory; try again");
        return;
    }
    message->submit.request = front->number;
    message->submit.spec = front->spec;
    message->payload = payload;
    message->payload_bytes = front->body_bytes;
    if (payload)
        memcpy(payload, front->body, front->body_bytes);
    mesh_send(c, front->head, message);
}

static void front_address(struct control *c, struct front *front, struct mesh_link *head)
{
    front->local = head == NULL;
    front->head = head;
    text_set(front->head_name, sizeof front->head_name, "%s",
             head ? mesh_name(head) : c->card.name);
}

static enum status front_begin(struct control *c, const struct control_event *event,
                               struct front *front, struct fault *fault)
{
    front->handle = event->request.handle;
    front->number = ++c->last_request;
    front->deadline_us = c->now_us + ACCEPT_LIMIT_US;
    front->spec = event->request.spec;
    if (spec_check(&front->spec, fault) != STATUS_OK)
        return fault->status;
    if (event->request.body_bytes > PROTO_MAX_PROMPT_BYTES)
        return fault_set(fault, STATUS_LIMIT, "the prompt has %zu bytes, at most %d can be sent",
                         event->request.body_bytes, PROTO_MAX_PROMPT_BYTES);
    while (front->spec.seed == 0)
        front->spec.seed = control_random(c);
    front->seed = front->spec.seed;
    if (model_resolve(c, front->spec.model, false, front->hash, fault) != STATUS_OK)
        return fault->status;
    bytes_to_hex(front->hash, PROTO_HASH_BYTES, front->spec.model); /* beyond doubt for the head */
    front->body = mem_text_n(event->request.body, event->request.body_bytes);
    front->body_bytes = event->request.body_bytes;
    if (!front->body)
        return fault_set(fault, STATUS_NO_MEMORY, "out of memory; try again");
    front_address(c, front, choose_head(c, front->hash));
    return STATUS_OK;
}

void front_request(struct control *c, const struct control_event *event)
{
    struct fault fault = {0};
    struct front *front = NULL;

    if (c->n_fronts == MAX_REQUESTS) {
        (void)fault_set(&fault, STATUS_BUSY, "%u requests are running here; try again",
                        c->n_fronts);
        act_fault(c, event->request.handle, &fault);
        return;
    }
    front = MEM_NEW(struct front);
    if (!front)
        (void)fault_set(&fault, STATUS_NO_MEMORY, "out of memory; try again");
    if (!front || front_begin(c, event, front, &fault) != STATUS_OK) {
        mem_free(front);
        act_fault(c, event->request.handle, &fault);
        return;
    }
    c->fronts[c->n_fronts++] = front;
    front_submit(c, front);
}

/* The head has no room: is there a node with the file and more memory? True: it is being asked. */
static bool front_move_on(struct control *c, struct front *front)
{
    uint64_t most = front->local ? c->card.memory_bytes : front->head->member->card.memory_bytes;
    struct member *best = NULL;

    if (front->moved_on || front->state != FRONT_SUBMITTED)
        return false;
    for (uint32_t i = 0; i < c->n_members; i++) {
        struct member *m = c->members[i];

        if (mesh_is_up(m->link) && card_has(&m->card, front->hash) && m->card.memory_bytes > most) {
            most = m->card.memory_bytes;
            best = m;
        }
    }
    if (!best)
        return false;
    front->moved_on = true;
    front_address(c, front, best->link);
    front_submit(c, front);
    return true;
}

void front_cancel(struct control *c, uint64_t handle)
{
    for (uint32_t i = 0; i < c->n_fronts; i++) {
        struct front *front = c->fronts[i];
        struct message_done done = {.end = REQUEST_END_CANCELLED};

        if (front->handle != handle || front->state == FRONT_DONE)
            continue;
        done.n_prompt = front->n_prompt;
        done.n_generated = front->n_tokens - front->n_prompt;
        front_end(c, front, &done);
        front_call_off(c, front);
    }
}

/* ---------------------------------------------------------------- what the head says */

static struct front *front_find(struct control *c, const struct mesh_link *link, uint64_t number)
{
    for (uint32_t i = 0; i < c->n_fronts; i++) {
        struct front *front = c->fronts[i];

        if (front->number == number && front->head == link && front->state != FRONT_DONE)
            return front;
    }
    return NULL;
}

/* Appends ids (little endian, unaligned) to the journal. */
static bool journal_add(struct front *front, const uint8_t *ids, uint32_t n)
{
    uint32_t need = front->n_tokens + n;

    if (need > MAX_CTX_TOKENS)
        return false;
    if (need > front->capacity) {
        uint32_t capacity = need + need / 2 + 64;
        uint32_t *tokens = mem_resize(front->tokens, capacity, sizeof *tokens);

        if (!tokens)
            return false;
        front->tokens = tokens;
        front->capacity = capacity;
    }
    for (uint32_t i = 0; i < n; i++)
        front->tokens[front->n_tokens++] = bytes_get_u32(ids + 4 * (size_t)i);
    return true;
}

void front_accepted(struct control *c, struct mesh_link *link,
                    const struct message_accepted *accepted, const uint8_t *payload)
{
    struct front *front = front_find(c, link, accepted->request);
    struct control_action *action;

    if (!front || front->state != FRONT_SUBMITTED)
        return;
    if (accepted->n_prompt > MAX_CTX_TOKENS || !journal_add(front, payload, accepted->n_prompt)) {
        front_give_up(c, front, STATUS_NO_MEMORY, "out of memory; try again");
        return;
    }
    front->n_prompt = front->n_tokens;
    mem_free(front->body);
    front->body = NULL;
    sm_move(&front_table, &front->state, FRONT_RUNNING);
    action = action_add(c, ACTION_STARTED);
    if (!action)
        return;
    action->started.handle = front->handle;
    action->started.n_prompt = front->n_prompt;
    action->started.seed = front->seed;
}

void front_tokens(struct control *c, struct mesh_link *link, const struct message_tokens *tokens,
                  uint8_t *payload, size_t payload_bytes)
{
    struct front *front = front_find(c, link, tokens->request);
    struct control_action *action = NULL;

    if (!front)
        goto out;
    if (front->state != FRONT_RUNNING || tokens->index != front->n_tokens - front->n_prompt) {
        front_give_up(c, front, STATUS_FORMAT, "the head sent tokens out of order; ask again");
        goto out;
    }
    if (tokens->n_tokens > MAX_CTX_TOKENS || !journal_add(front, payload, tokens->n_tokens)) {
        front_give_up(c, front, STATUS_NO_MEMORY, "out of memory; ask again");
        goto out;
    }
    if (payload_bytes)
        action = action_add(c, ACTION_TEXT);
    if (action) {
        action->text.handle = front->handle;
        action->text.n_tokens = tokens->n_tokens;
        action->text.payload = payload;
        action->text.payload_bytes = payload_bytes;
        payload = NULL;
    }
out:
    mem_free(payload);
}

void front_done(struct control *c, struct mesh_link *link, const struct message_done *done)
{
    struct front *front = front_find(c, link, done->request);

    if (front && !(done->status == STATUS_NO_ROOM && front_move_on(c, front)))
        front_end(c, front, done);
}

/* ---------------------------------------------------------------- ends and time */

void fronts_link_lost(struct control *c, struct mesh_link *link)
{
    for (uint32_t i = 0; i < c->n_fronts; i++) {
        struct front *front = c->fronts[i];
        struct fault fault = {0};

        if (front->head != link)
            continue;
        (void)fault_set(&fault, STATUS_LOST, "node %s was lost while it answered; ask again",
                        front->head_name);
        if (front->state != FRONT_DONE)
            front_fault(c, front, &fault);
        front->head = NULL;
    }
}

void fronts_settle(struct control *c)
{
    for (uint32_t i = 0; i < c->n_fronts; i++) {
        struct front *front = c->fronts[i];
        char why[PROTO_MAX_TEXT];

        if (front->state != FRONT_SUBMITTED || c->now_us < front->deadline_us)
            continue;
        text_set(why, sizeof why, "node %s has not begun to answer within %u s; ask again",
                 front->head_name, (unsigned)(ACCEPT_LIMIT_US / SECOND_US));
        front_give_up(c, front, STATUS_TIMEOUT, why);
    }
}

void front_free(struct front **front)
{
    mem_free((*front)->tokens);
    mem_free((*front)->body);
    mem_free(*front);
    *front = NULL;
}

void fronts_sweep(struct control *c)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->n_fronts; i++) {
        if (c->fronts[i]->state == FRONT_DONE)
            front_free(&c->fronts[i]);
        else
            c->fronts[n++] = c->fronts[i];
    }
    c->n_fronts = n;
}

uint64_t fronts_wake(const struct control *c)
{
    uint64_t wake_us = NEVER_US;

    for (uint32_t i = 0; i < c->n_fronts; i++)
        if (c->fronts[i]->state == FRONT_SUBMITTED && c->fronts[i]->deadline_us < wake_us)
            wake_us = c->fronts[i]->deadline_us;
    return wake_us;
}
