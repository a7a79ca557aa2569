/* The head's side of a request: a sequence, where it came from, and what goes back there.
 *
 *   work_submit ─► QUEUED ──model open──► TOKENIZING ──► TOKENIZED ──instance ready──► RUNNING
 *                    └──────────────────────┴───── end ─────┴──────────────────────────┴─► DONE
 *
 * Happy path: the text becomes tokens while the instance is still being made; once it is READY the
 * length is checked, ACCEPTED tells the front the prompt's ids, and the scheduler takes the
 * sequence. Each sampled token goes back with the text that became final; an end token, a stop
 * string or the length ends it with DONE. A sequence that has ended may still have passes on their
 * way (DRAINING); its memory goes when they are back.
 *
 * What fails: a prompt as long as the context (CONTEXT, with the numbers), too many waiting (BUSY),
 * whatever the template or the tokenizer refuse, and everything that befalls the instance. Whoever
 * asked gets the sentence; if their link is gone, the work ends quietly. */
#include "node/cluster/inner.h"

#include <string.h>

static const char *const work_names[] = {"queued", "tokenizing", "tokenized", "running", "done"};
static const uint32_t work_allowed[] = {
    [WORK_QUEUED] = SM_TO(WORK_TOKENIZING) | SM_TO(WORK_DONE),
    [WORK_TOKENIZING] = SM_TO(WORK_TOKENIZED) | SM_TO(WORK_DONE),
    [WORK_TOKENIZED] = SM_TO(WORK_RUNNING) | SM_TO(WORK_DONE),
    [WORK_RUNNING] = SM_TO(WORK_DONE),
    [WORK_DONE] = 0,
};
static const struct sm_table work_table = {"work", work_names, work_allowed, COUNT_OF(work_names)};

/* ---------------------------------------------------------------- back to the front */

static void reply_done(struct control *c, const struct origin *origin, struct message_done *done)
{
    struct message *message;

    done->request = origin->request;
    if (!origin->link) {
        front_done(c, NULL, done);
        return;
    }
    message = message_new(MESSAGE_DONE);
    if (message)
        message->done = *done;
    mesh_send(c, origin->link, message);
}

static void reply_fault(struct control *c, const struct origin *origin, const struct fault *fault)
{
    struct message_done done = {.end = REQUEST_END_ERROR, .status = fault->status};

    text_set(done.text, sizeof done.text, "%s", fault->text);
    reply_done(c, origin, &done);
}

/* n token ids, then text, as one payload. */
static uint8_t *reply_payload(const uint32_t *ids, uint32_t n, const struct buffer *text,
                              size_t *out_bytes)
{
    size_t text_bytes = text ? text->len : 0;
    uint8_t *payload = mem_aligned(64, 4 * (size_t)n + text_bytes, 1);

    if (!payload)
        return NULL;
    for (uint32_t i = 0; i < n; i++)
        bytes_put_u32(payload + 4 * (size_t)i, ids[i]);
    if (text_bytes)
        memcpy(payload + 4 * (size_t)n, text->data, text_bytes);
    *out_bytes = 4 * (size_t)n + text_bytes;
    return payload;
}

static bool reply_tokens(struct control *c, struct work *w, const uint32_t *ids, uint32_t n,
                         uint32_t index, const struct buffer *text)
{
    struct message_tokens tokens = {.request = w->origin.request, .index = index, .n_tokens = n};
    struct message *message = NULL;
    size_t n_bytes = 0;
    uint8_t *payload = reply_payload(ids, n, text, &n_bytes);

    if (!payload)
        return false;
    if (!w->origin.link) {
        front_tokens(c, NULL, &tokens, payload, n_bytes);
        return true;
    }
    message = message_new(MESSAGE_TOKENS);
    if (!message) {
        mem_free(payload);
        return false;
    }
    message->tokens = tokens;
    message->payload = payload;
    message->payload_bytes = n_bytes;
    mesh_send(c, w->origin.link, message);
    return true;
}

static bool reply_accepted(struct control *c, struct work *w)
{
    struct message_accepted accepted = {
        .request = w->origin.request, .n_prompt = w->sequence.n_prompt, .seed = w->spec.seed};
    size_t n_bytes = 0;
    uint8_t *payload = reply_payload(w->sequence.tokens, w->sequence.n_prompt, NULL, &n_bytes);
    struct message *message = NULL;

    if (!payload)
        return false;
    if (!w->origin.link) {
        front_accepted(c, NULL, &accepted, payload);
        mem_free(payload);
        return true;
    }
    message = message_new(MESSAGE_ACCEPTED);
    if (!message) {
        mem_free(payload);
        return false;
    }
    message->accepted = accepted;
    message->payload = payload;
    message->payload_bytes = n_bytes;
    mesh_send(c, w->origin.link, message);
    return true;
}

/* ---------------------------------------------------------------- the end */

/* Without a word to the front. */
static void work_finish(struct control *c, struct work *w)
{
    struct instance *instance = w->instance;

    if (w->state == WORK_DONE)
        return;
    sm_move(&work_table, &w->state, WORK_DONE);
    if (w->has_text_state) {
        struct control_action *action = action_add(c, ACTION_FREE_SEQUENCE);

        if (action)
            action->free_sequence = w->sequence.key;
    }
    if (instance) {
        instance->idle_us = c->now_us;
        if (instance_is_idle(c, instance)) /* from now on it may be asked to make room */
            card_idle_changed(c);
        if (instance->scheduler)
            (void)scheduler_remove(instance->scheduler, &w->sequence, c->now_us);
    }
}

static void work_end(struct control *c, struct work *w, enum request_end end,
                     const struct fault *fault)
{
    struct message_done done = {.end = end};
    uint64_t first_us = w->first_us ? w->first_us : c->now_us;

    if (w->state == WORK_DONE)
        return;
    if (fault) {
        done.status = fault->status;
        text_set(done.text, sizeof done.text, "%s", fault->text);
    }
    done.n_prompt = w->sequence.n_prompt;
    done.n_generated = w->n_generated;
    done.n_stages = w->instance ? w->instance->n_stages : 0;
    if (w->instance && w->admitted_us && !fault && !w->instance->notice_told) {
        w->instance->notice_told = true;
        text_set(done.notice, sizeof done.notice, "%s", w->instance->notice);
    }
    if (w->admitted_us) {
        done.prefill_seconds = (double)(first_us - w->admitted_us) / 1e6;
        done.decode_seconds = (double)(c->now_us - first_us) / 1e6;
    }
    work_finish(c, w);
    reply_done(c, &w->origin, &done);
}

static void work_fault(struct control *c, struct work *w, enum status status, const char *text)
{
    struct fault fault = {0};

    (void)fault_set(&fault, status, "%s", text);
    work_end(c, w, REQUEST_END_ERROR, &fault);
}

/* ---------------------------------------------------------------- the beginning */

uint32_t works_of(const struct control *c, const struct instance *instance, uint32_t *n_waiting)
{
    uint32_t n = 0;

    *n_waiting = 0;
    for (uint32_t i = 0; i < c->n_works; i++) {
        const struct work *w = c->works[i];

        if (w->instance != instance || w->state == WORK_DONE)
            continue;
        n++;
        *n_waiting += w->state < WORK_RUNNING || w->sequence.state == SEQUENCE_WAITING;
    }
    return n;
}

static void work_shape(struct work *w)
{
    const struct request_spec *spec = &w->spec;

    w->sequence.params = (struct sample_params){
        .temperature = spec->temperature,
        .top_k = spec->top_k,
        .top_p = spec->top_p,
        .min_p = spec->min_p,
        .repeat_penalty = spec->repeat_penalty,
        .repeat_last_n = spec->repeat_last_n,
        .seed = spec->seed,
        .typical_p = spec->typical_p,
        .frequency_penalty = spec->frequency_penalty,
        .presence_penalty = spec->presence_penalty,
        .dry_multiplier = spec->dry_multiplier,
        .dry_base = spec->dry_base,
        .dry_allowed_length = spec->dry_allowed_length,
        .dry_last_n = spec->dry_last_n,
        .xtc_probability = spec->xtc_probability,
        .xtc_threshold = spec->xtc_threshold,
        .biases = w->biases,
        .n_biases = spec->n_biases,
    };
    for (uint32_t i = 0; i < spec->n_biases; i++)
        w->biases[i] = (struct sample_bias){spec->biases[i].id, spec->biases[i].bias};
}

static struct work *work_new(const struct request_spec *spec, const char *body, size_t body_bytes)
{
    struct work *w = MEM_NEW(struct work);

    if (!w)
        return NULL;
    w->body = mem_text_n(body, body_bytes);
    if (!w->body) {
        mem_free(w);
        return NULL;
    }
    w->body_bytes = body_bytes;
    w->spec = *spec;
    stream_init(&w->stream, spec);
    work_shape(w);
    return w;
}

void work_submit(struct control *c, struct origin origin, const struct request_spec *spec_in,
                 const char *body, size_t body_bytes)
{
    struct request_spec spec = *spec_in;
    struct fault fault = {0};
    uint8_t hash[PROTO_HASH_BYTES];
    struct instance *instance = NULL;
    struct work *w = NULL;
    uint32_t n_waiting, n;
    bool was_idle = false;

    if (spec_check(&spec, &fault) != STATUS_OK ||
        model_resolve(c, spec.model, true, hash, &fault) != STATUS_OK)
        goto out;
    instance = instance_for(c, hash, model_name_of(c, hash), &fault);
    if (!instance)
        goto out;
    n = works_of(c, instance, &n_waiting);
    if (c->n_works == MAX_SEQUENCES || n >= c->options.n_slots + c->options.max_queue) {
        (void)fault_set(&fault, STATUS_BUSY, "%u requests are waiting; try again", n_waiting);
        goto out;
    }
    w = work_new(&spec, body, body_bytes);
    if (!w) {
        (void)fault_set(&fault, STATUS_NO_MEMORY, "out of memory; try again");
        goto out;
    }
    w->origin = origin;
    w->instance = instance;
    w->sequence.key = ++c->last_sequence;
    if (instance_is_idle(c, instance))
        was_idle = true;
    c->works[c->n_works++] = w;
    if (was_idle)
        card_idle_changed(c);
    c->again = true;
out:
    if (fault.status != STATUS_OK)
        reply_fault(c, &origin, &fault);
}

/* The model is open: what the request left to it is as its makers say. XTC wants both its numbers:
 * a threshold of 0 would leave the least likely of all tokens. */
static void work_settle_params(struct work *w)
{
    const struct control_model *model = w->instance->model;
    struct sample_params *params = &w->sequence.params;

    sample_take(params, &model->sampling, model->sampling_settings & w->spec.open_settings);
    if (params->xtc_threshold <= 0)
        params->xtc_probability = 0;
}

/* The model is open, so it is known which tokens there are. */
static bool work_biases_exist(struct control *c, struct work *w)
{
    struct fault fault = {0};

    for (uint32_t i = 0; i < w->spec.n_biases; i++) {
        if (w->biases[i].id < w->instance->model->n_vocab)
            continue;
        (void)fault_set(&fault, STATUS_INVALID, "logit_bias names token %u; %s has %u tokens",
                        w->biases[i].id, w->instance->name, w->instance->model->n_vocab);
        work_end(c, w, REQUEST_END_ERROR, &fault);
        return false;
    }
    return true;
}

static void work_tokenize(struct control *c, struct work *w)
{
    struct control_action *action;

    if (!work_biases_exist(c, w))
        return;
    work_settle_params(w);
    action = action_add(c, ACTION_TOKENIZE);
    if (!action)
        return;
    action->tokenize.sequence = w->sequence.key;
    memcpy(action->tokenize.hash, w->instance->hash, PROTO_HASH_BYTES);
    action->tokenize.kind = w->spec.kind;
    action->tokenize.body = w->body;
    action->tokenize.body_bytes = w->body_bytes;
    w->body = NULL;
    w->has_text_state = true;
    sm_move(&work_table, &w->state, WORK_TOKENIZING);
}

void work_prompt(struct control *c, const struct control_event *event)
{
    struct work *w = NULL;

    for (uint32_t i = 0; i < c->n_works; i++)
        if (c->works[i]->sequence.key == event->prompt.sequence)
            w = c->works[i];
    if (!w || w->state != WORK_TOKENIZING)
        return;
    if (event->prompt.fault.status != STATUS_OK) {
        work_end(c, w, REQUEST_END_ERROR, &event->prompt.fault);
        return;
    }
    if (event->prompt.n_tokens == 0 || event->prompt.n_tokens > MAX_CTX_TOKENS) {
        work_fault(c, w, STATUS_INVALID,
                   event->prompt.n_tokens ? "the prompt is too long" : "the prompt is empty");
        return;
    }
    w->sequence.tokens =
        mem_copy(event->prompt.tokens, event->prompt.n_tokens * sizeof *w->sequence.tokens);
    if (!w->sequence.tokens) {
        work_fault(c, w, STATUS_NO_MEMORY, "out of memory; try again");
        return;
    }
    w->sequence.n_prompt = w->sequence.n_tokens = event->prompt.n_tokens;
    sm_move(&work_table, &w->state, WORK_TOKENIZED);
    c->again = true;
}

/* What to do about a prompt that is too long depends on what made the context as long as it is. */
static void context_fault(const struct control *c, const struct work *w, struct fault *fault)
{
    const struct instance *instance = w->instance;
    uint32_t n = instance->n_ctx_tokens, most = instance->model ? instance->model->n_ctx_train : 0;

    if (most && n >= most)
        (void)fault_set(fault, STATUS_CONTEXT,
                        "the prompt has %u tokens; %s was made for %u, the answer included: "
                        "shorten the prompt",
                        w->sequence.n_prompt, instance->name, n);
    else if (instance->notice[0])
        (void)fault_set(fault, STATUS_CONTEXT, "the prompt has %u tokens, and %s",
                        w->sequence.n_prompt, instance->notice);
    else
        (void)fault_set(fault, STATUS_CONTEXT,
                        "the prompt has %u tokens; %s runs with a context of %u, the answer "
                        "included: shorten the prompt, or start %s with --context, up to %u",
                        w->sequence.n_prompt, instance->name, n, c->card.name, most);
}

/* The instance is READY: its context is known. */
static void work_admit(struct control *c, struct work *w)
{
    struct instance *instance = w->instance;
    struct sequence *q = &w->sequence;
    uint32_t room, *tokens;
    struct fault fault = {0};

    if (q->n_prompt >= instance->n_ctx_tokens) {
        context_fault(c, w, &fault);
        work_end(c, w, REQUEST_END_ERROR, &fault);
        return;
    }
    room = instance->n_ctx_tokens - q->n_prompt;
    if (w->spec.max_tokens && w->spec.max_tokens < room)
        room = w->spec.max_tokens;
    tokens = mem_resize(q->tokens, q->n_prompt + room, sizeof *tokens);
    if (tokens) {
        q->tokens = tokens;
        q->capacity = q->n_prompt + room;
    }
    if (!tokens || !reply_accepted(c, w)) {
        work_fault(c, w, STATUS_NO_MEMORY, "out of memory; try again");
        return;
    }
    if (w->state == WORK_DONE) /* the front had enough of it just now */
        return;
    sm_move(&work_table, &w->state, WORK_RUNNING);
    w->admitted_us = c->now_us;
    if (scheduler_add(instance->scheduler, q) != STATUS_OK)
        work_fault(c, w, STATUS_NO_ROOM, "the KV memory of the model cannot hold this request");
}

/* ---------------------------------------------------------------- the tokens */

void work_sampled(struct control *c, struct instance *instance, const struct sampled *sampled)
{
    struct work *w = NULL;
    struct buffer text = {0};
    enum request_end end = REQUEST_END_STOP;
    enum status status = STATUS_OK;
    bool ends = false, has_token = true;

    for (uint32_t i = 0; i < c->n_works; i++)
        if (c->works[i]->sequence.key == sampled->sequence && c->works[i]->instance == instance)
            w = c->works[i];
    if (!w || w->state != WORK_RUNNING || w->sequence.state != SEQUENCE_DECODE ||
        w->sequence.n_placed != w->sequence.n_tokens)
        return;
    if (!w->first_us)
        w->first_us = c->now_us;
    if (sampled->ends && !w->spec.ignore_end) {
        ends = true;
        has_token = false;
    } else {
        scheduler_push(instance->scheduler, &w->sequence, sampled->token);
        status = stream_push(&w->stream, sampled->text, sampled->text_bytes, &text);
        ends = w->stream.stopped;
        if (!ends && w->sequence.n_tokens == w->sequence.capacity) {
            ends = true;
            end = REQUEST_END_LENGTH;
        }
    }
    if (status == STATUS_OK && ends && !w->stream.stopped)
        status = stream_flush(&w->stream, &text);
    if (status == STATUS_OK && (has_token || text.len) &&
        !reply_tokens(c, w, &sampled->token, has_token, w->n_generated, &text))
        status = STATUS_NO_MEMORY;
    buffer_free(&text);
    w->n_generated += has_token;
    if (status != STATUS_OK)
        work_fault(c, w, status, "out of memory; ask again");
    else if (ends)
        work_end(c, w, end, NULL);
    c->again = true;
}

/* ---------------------------------------------------------------- others' ends */

void work_cancel(struct control *c, struct origin origin)
{
    for (uint32_t i = 0; i < c->n_works; i++) {
        struct work *w = c->works[i];

        if (w->origin.link == origin.link && w->origin.request == origin.request)
            work_finish(c, w);
    }
    c->again = true;
}

void works_link_lost(struct control *c, struct mesh_link *link)
{
    for (uint32_t i = 0; i < c->n_works; i++) {
        struct work *w = c->works[i];

        if (w->origin.link != link)
            continue;
        work_finish(c, w);
        w->origin = (struct origin){0};
    }
}

void works_fail(struct control *c, struct instance *instance, const struct fault *fault)
{
    for (uint32_t i = 0; i < c->n_works; i++) {
        struct work *w = c->works[i];

        if (w->instance != instance)
            continue;
        work_end(c, w, REQUEST_END_ERROR, fault);
        w->instance = NULL;
    }
}

void works_settle(struct control *c)
{
    for (uint32_t i = 0; i < c->n_works; i++) {
        struct work *w = c->works[i];

        if (w->state == WORK_DONE || w->instance->failed)
            continue;
        if (w->state == WORK_QUEUED && w->instance->model)
            work_tokenize(c, w);
        else if (w->state == WORK_TOKENIZED && w->instance->state == INSTANCE_READY)
            work_admit(c, w);
    }
}

void work_free(struct work **work)
{
    struct work *w = *work;

    stream_free(&w->stream);
    mem_free(w->body);
    mem_free(w->sequence.tokens);
    mem_free(w);
    *work = NULL;
}

void works_sweep(struct control *c)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->n_works; i++) {
        struct work *w = c->works[i];
        bool in_passes = w->instance && w->sequence.state == SEQUENCE_DRAINING;

        if (w->state != WORK_DONE || in_passes)
            c->works[n++] = w;
        else
            work_free(&w);
    }
    c->n_works = n;
}
