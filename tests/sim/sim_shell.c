/* The fake shell of a node: does what actions ask, with delays, and fails when it is told to.
 *
 * It is strict where the real one is forgiving: an action about a shard, a link or a request that
 * it does not know breaks the history, as does a row that does not follow the last one of its slot.
 */
#include "tests/sim/sim.h"

#include <assert.h>
#include <string.h>

static struct sim_shard *shard_of(struct sim_node *node, const struct instance_ref *ref)
{
    for (struct sim_shard *s = node->shards; s; s = s->next)
        if (!s->freed && s->ref.number == ref->number && s->ref.epoch == ref->epoch &&
            memcmp(s->ref.head, ref->head, PROTO_ID_BYTES) == 0)
            return s;
    return NULL;
}

static const struct sim_model *model_of(struct sim *sim, const uint8_t *hash)
{
    for (int i = 0; i < SIM_MAX_MODELS; i++)
        if (memcmp(sim_model(sim, i)->hash, hash, PROTO_HASH_BYTES) == 0)
            return sim_model(sim, i);
    return NULL;
}

static uint64_t work_time(struct sim *sim, int node, uint64_t us)
{
    if (sim_options_of(sim)->delay_us == 0)
        return us;
    return (uint64_t)((double)(us / 2 + sim_below(sim, us)) * sim_node(sim, node)->speed) + 1;
}

/* ---------------------------------------------------------------- models, text */

static struct control_model *control_model_of(const struct sim_model *model)
{
    struct control_model *m = MEM_NEW(struct control_model);

    assert(m);
    memcpy(m->hash, model->hash, PROTO_HASH_BYTES);
    (void)snprintf(m->name, sizeof m->name, "%s", model->name);
    m->n_layers = model->n_layers;
    m->n_embd = SIM_EMBD;
    m->n_vocab = SIM_VOCAB;
    m->n_ctx_train = 4096;
    m->layer_bytes = MEM_NEW_N(uint64_t, m->n_layers);
    m->layer_active_bytes = MEM_NEW_N(uint64_t, m->n_layers);
    m->layer_kv_bytes = MEM_NEW_N(uint64_t, m->n_layers);
    m->layer_flops = MEM_NEW_N(double, m->n_layers);
    assert(m->layer_bytes && m->layer_active_bytes && m->layer_kv_bytes && m->layer_flops);
    for (uint32_t i = 0; i < m->n_layers; i++) {
        m->layer_bytes[i] = m->layer_active_bytes[i] = model->layer_bytes;
        m->layer_kv_bytes[i] = 1000;
        m->layer_flops[i] = 1e6;
    }
    m->embed_bytes = model->layer_bytes / 2;
    m->head_active_bytes = model->layer_bytes / 2;
    m->scratch_bytes = 1000;
    m->head_flops = 1e6;
    return m;
}

static void open_model(struct sim *sim, int node, const struct control_action *action)
{
    struct control_event event = {.kind = EVENT_MODEL};
    const struct sim_model *model = model_of(sim, action->open_model.hash);

    memcpy(event.model.hash, action->open_model.hash, PROTO_HASH_BYTES);
    if (!model) {
        sim_fail(sim, "a model is opened that nobody has");
        return;
    }
    if (sim_faults_on(sim) && sim_chance(sim, sim_options_of(sim)->load_fails))
        (void)fault_set(&event.model.fault, STATUS_FORMAT, "the file is broken");
    else
        event.model.model = control_model_of(model);
    sim_later(sim, work_time(sim, node, 2000), node, &event);
}

static void tokenize(struct sim *sim, int node, struct control_action *action)
{
    struct control_event event = {.kind = EVENT_PROMPT};
    uint32_t *tokens = MEM_NEW_N(uint32_t, 1024);

    assert(tokens);
    event.prompt.sequence = action->tokenize.sequence;
    event.prompt.tokens = tokens;
    event.prompt.n_tokens = sim_prompt_tokens(action->tokenize.body, tokens, 1024);
    if (action->tokenize.body_bytes && action->tokenize.body[0] == '!')
        (void)fault_set(&event.prompt.fault, STATUS_INVALID, "the template refuses");
    sim_node(sim, node)->n_texts++;
    sim_later(sim, work_time(sim, node, 1000), node, &event);
    mem_free(action->tokenize.body);
}

/* ---------------------------------------------------------------- shards */

/* What the planner counts, from the model alone. */
static uint64_t shard_bytes(const struct sim_shard *shard)
{
    uint64_t n_layers = shard->spec.layer_end - shard->spec.layer_begin;
    uint64_t kv = 1000ull * shard->spec.n_kv_blocks * SHARD_KV_BLOCK_TOKENS;

    return n_layers * (shard->model->layer_bytes + kv) +
           (shard->spec.embed ? shard->model->layer_bytes / 2 : 0) + 1000;
}

static uint64_t held_bytes(const struct sim_node *node)
{
    uint64_t sum = 0;

    for (const struct sim_shard *s = node->shards; s; s = s->next)
        sum += s->gone ? 0 : s->bytes;
    return sum;
}

static void load_shard(struct sim *sim, int index, const struct control_action *action)
{
    struct sim_node *node = sim_node(sim, index);
    struct sim_shard *shard;
    struct control_event event = {.kind = EVENT_SHARD};
    uint64_t in_us = work_time(sim, index, 300000);

    if (shard_of(node, &action->load_shard.instance)) {
        sim_fail(sim, "%s loads a shard twice", node->name);
        return;
    }
    shard = MEM_NEW(struct sim_shard);
    assert(shard);
    shard->ref = action->load_shard.instance;
    shard->spec = action->load_shard.spec;
    shard->model = model_of(sim, action->load_shard.hash);
    shard->bytes = shard_bytes(shard);
    if (held_bytes(node) + shard->bytes > node->memory_bytes)
        sim_fail(sim, "%s loads %llu bytes into %llu, of which %llu are still held", node->name,
                 (unsigned long long)shard->bytes, (unsigned long long)node->memory_bytes,
                 (unsigned long long)held_bytes(node));
    shard->next = node->shards;
    node->shards = shard;
    event.shard.instance = shard->ref;
    if (sim_faults_on(sim) && sim_chance(sim, sim_options_of(sim)->load_fails))
        (void)fault_set(&event.shard.fault, STATUS_NO_MEMORY, "no memory for the weights");
    else
        shard->loaded = true;
    if (sim_faults_on(sim) && sim_options_of(sim)->slow_loads && sim_chance(sim, 0.1))
        in_us = 130 * SIM_SECOND;
    shard->busy_until_us = sim_now(sim) + in_us;
    sim_later(sim, in_us, index, &event);
}

/* The thread first ends what it does, loading or a pass; then the memory is given back. */
static void free_shard(struct sim *sim, int index, const struct instance_ref *ref)
{
    struct sim_shard *shard = shard_of(sim_node(sim, index), ref);
    struct control_event event = {.kind = EVENT_FREED};
    uint64_t in_us = work_time(sim, index, 2000);

    if (!shard) {
        sim_fail(sim, "%s frees a shard that it does not have", sim_node(sim, index)->name);
        return;
    }
    shard->freed = true;
    if (shard->busy_until_us > sim_now(sim))
        in_us += shard->busy_until_us - sim_now(sim);
    event.freed = *ref;
    sim_later(sim, in_us, index, &event);
}

/* The event is about to be delivered: from now on the memory is there. */
void sim_shell_freed(struct sim *sim, int index, const struct instance_ref *ref)
{
    for (struct sim_shard *s = sim_node(sim, index)->shards; s; s = s->next)
        if (s->freed && !s->gone && s->ref.number == ref->number && s->ref.epoch == ref->epoch &&
            memcmp(s->ref.head, ref->head, PROTO_ID_BYTES) == 0) {
            s->gone = true;
            return;
        }
    sim_fail(sim, "a shard is freed that was not there");
}

static void run_row(struct sim *sim, struct sim_shard *shard, const struct pass_row *row,
                    uint64_t *state)
{
    if (row->slot >= shard->spec.n_slots || row->pos != shard->n_kv[row->slot] ||
        row->pos >= shard->spec.n_ctx_tokens) {
        sim_fail(sim, "a row at %u of slot %u comes after position %u", row->pos, row->slot,
                 shard->n_kv[row->slot % 64]);
        return;
    }
    shard->n_kv[row->slot]++;
    for (uint32_t layer = shard->spec.layer_begin; layer < shard->spec.layer_end; layer++) {
        uint64_t *chain = &shard->chain[row->slot][layer];

        *state = *chain = sim_mix(sim_mix(*chain, *state), layer);
    }
}

static uint32_t blocks_in_use(const struct sim_shard *shard)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < shard->spec.n_slots; i++)
        n += (shard->n_kv[i] + SHARD_KV_BLOCK_TOKENS - 1) / SHARD_KV_BLOCK_TOKENS;
    return n;
}

static void run_stage(struct sim *sim, int index, struct control_action *action)
{
    struct sim_node *node = sim_node(sim, index);
    struct sim_shard *shard = shard_of(node, &action->run.instance);
    struct control_pass *pass = action->run.pass;
    struct message_pass *m = &pass->message->pass;
    struct control_event event = {.kind = EVENT_STAGE_DONE};

    if (!shard || !shard->loaded ||
        pass->message->payload_bytes != (size_t)m->n_rows * SIM_EMBD * sizeof(float) ||
        m->n_rows > shard->spec.max_rows || shard->spec.embed != (pass->tokens != NULL)) {
        sim_fail(sim, "%s runs a pass that does not fit a shard", node->name);
        control_pass_free(&pass);
        return;
    }
    for (uint32_t i = 0; i < m->n_clears; i++) {
        uint32_t slot = m->clears[i].slot;

        if (slot < shard->spec.n_slots && m->clears[i].from == 0) {
            shard->n_kv[slot] = 0;
            memset(shard->chain[slot], 0, sizeof shard->chain[slot]);
        } else {
            sim_fail(sim, "%s clears a slot that is not there", node->name);
        }
    }
    for (uint32_t i = 0; i < m->n_rows; i++) {
        uint8_t *row = pass->message->payload + (size_t)i * SIM_EMBD * sizeof(float);
        uint64_t state;

        memcpy(&state, row, sizeof state);
        if (pass->tokens)
            state = sim_mix(pass->tokens[i], 77);
        run_row(sim, shard, &m->rows[i], &state);
        memcpy(row, &state, sizeof state);
        memset(row + 8, 0x5a, 8);
    }
    if (blocks_in_use(shard) > shard->spec.n_kv_blocks)
        sim_fail(sim, "%s uses more KV blocks than were reserved", node->name);
    if (sim_faults_on(sim) && sim_chance(sim, sim_options_of(sim)->stage_fails))
        (void)fault_set(&event.stage_done.fault, STATUS_INTERNAL, "the kernel failed");
    event.stage_done.pass = pass;
    if (node->hangs) {
        shard->busy_until_us = sim_now(sim) + 500 * SIM_SECOND;
        control_pass_free(&pass);
        return;
    }
    if (shard->busy_until_us < sim_now(sim))
        shard->busy_until_us = sim_now(sim);
    shard->busy_until_us += work_time(sim, index, 1000 + 50 * m->n_rows);
    sim_later(sim, shard->busy_until_us - sim_now(sim), index, &event);
}

/* What only a real sampler would look at: the history ends with the sampled row's token, the biases
 * are those of test_sim.c. */
static void check_job(struct sim *sim, const struct control_pass *pass,
                      const struct sample_job *job)
{
    const struct sample_params *params = &job->params;
    bool looks_back = params->repeat_penalty != 1.0f || params->frequency_penalty != 0.0f ||
                      params->dry_multiplier > 0.0f;

    if (job->n_history > job->position || looks_back != (job->n_history > 0) ||
        (params->dry_multiplier > 0.0f && job->n_history != job->position))
        sim_fail(sim, "a sample with %u tokens of history", job->n_history);
    else if (job->n_history && job->history[job->n_history - 1] != pass->tokens[job->row])
        sim_fail(sim, "a sample with another history");
    for (uint32_t i = 0; i < params->n_biases; i++)
        if (params->biases[i].id != i % SIM_VOCAB || (uint32_t)params->biases[i].bias != i)
            sim_fail(sim, "a sample with another bias %u", i);
}

static void run_head(struct sim *sim, int index, struct control_action *action)
{
    struct sim_node *node = sim_node(sim, index);
    struct control_pass *pass = action->run.pass;
    struct control_event event = {.kind = EVENT_HEAD_DONE};
    struct sampled *sampled = MEM_NEW_N(struct sampled, pass->n_samples);

    assert(sampled);
    if (!shard_of(node, &action->run.instance) || !pass->message)
        sim_fail(sim, "%s runs a head that it does not have", node->name);
    for (uint32_t i = 0; i < pass->n_samples && !sim_fault(sim)[0]; i++) {
        const struct sample_job *job = &pass->samples[i];
        const uint8_t *row = pass->message->payload + (size_t)job->row * SIM_EMBD * sizeof(float);
        uint64_t state;

        if (job->row >= pass->message->pass.n_rows) {
            sim_fail(sim, "a sample of row %u", job->row);
            break;
        }
        check_job(sim, pass, job);
        memcpy(&state, row, sizeof state);
        sampled[i].sequence = job->sequence;
        sampled[i].token = sim_token_of(state, job->params.seed, job->position);
        sampled[i].ends = sampled[i].token == 0;
        sampled[i].text = sim_text_of(sampled[i].token);
        sampled[i].text_bytes = strlen(sampled[i].text);
    }
    event.head_done.pass = pass;
    event.head_done.n_sampled = pass->n_samples;
    event.head_done.sampled = sampled;
    sim_later(sim, work_time(sim, index, 500), index, &event);
}

/* ---------------------------------------------------------------- to the API */

static struct sim_request *request_of(struct sim *sim, int node, uint64_t handle)
{
    struct sim_request *r = handle >= 1 && handle <= sim_n_requests(sim)
                                ? sim_request(sim, (uint32_t)handle - 1)
                                : NULL;

    if (!r || r->node != node || r->done || r->lost) {
        sim_fail(sim, "n%d speaks of request %llu after its end", node, (unsigned long long)handle);
        return NULL;
    }
    return r;
}

static void api_text(struct sim *sim, int node, const struct control_action *action)
{
    struct sim_request *r = request_of(sim, node, action->text.handle);
    size_t ids = 4 * (size_t)action->text.n_tokens, n = action->text.payload_bytes - ids;

    if (!r)
        return;
    if (!r->started || ids > action->text.payload_bytes || r->text_bytes + n > sizeof r->text) {
        sim_fail(sim, "text of request %u makes no sense", (unsigned)r->handle);
        return;
    }
    memcpy(r->text + r->text_bytes, action->text.payload + ids, n);
    r->text_bytes += n;
    r->n_tokens += action->text.n_tokens;
}

static void api_done(struct sim *sim, int node, const struct control_action *action)
{
    struct sim_request *r = request_of(sim, node, action->done.handle);

    if (!r)
        return;
    r->done = true;
    r->end = action->done.done;
    sim_trace(sim, node, "request %u done end=%d status=%s stages=%u text=\"%s\"",
              (unsigned)r->handle, (int)r->end.end, status_name(r->end.status), r->end.n_stages,
              r->end.text);
    if (sim_now(sim) - r->begun_us > 260 * SIM_SECOND)
        sim_fail(sim, "request %u took %.1f s", (unsigned)r->handle,
                 (double)(sim_now(sim) - r->begun_us) / 1e6);
    if (r->cancelled != (r->end.end == REQUEST_END_CANCELLED))
        sim_fail(sim, "request %u: cancelled %d, end %d", (unsigned)r->handle, r->cancelled,
                 (int)r->end.end);
}

static void api_started(struct sim *sim, int node, const struct control_action *action)
{
    struct sim_request *r = request_of(sim, node, action->started.handle);

    if (!r)
        return;
    if (r->started || action->started.n_prompt != strlen(r->body) || action->started.seed == 0)
        sim_fail(sim, "request %u started wrongly", (unsigned)r->handle);
    r->started = true;
    r->seed = action->started.seed;
}

/* ---------------------------------------------------------------- actions */

static const char *const message_names[] = {
    "?",      "card",   "ping",    "pong",       "peers",       "prepare", "prepared",
    "load",   "loaded", "release", "pass",       "pass_failed", "submit",  "accepted",
    "tokens", "done",   "cancel",  "close_idle", "idle_closed"};

void sim_shell_act(struct sim *sim, int node, struct control_action *action)
{
    switch (action->kind) {
    case ACTION_DIAL:
        sim_trace(sim, node, "dial %s", action->dial.address.text);
        sim_net_dial(sim, node, action->dial.link, action->dial.address.text);
        break;
    case ACTION_CLOSE_LINK:
        sim_trace(sim, node, "close link %x", action->close_link);
        sim_net_close(sim, node, action->close_link);
        break;
    case ACTION_SEND:
        if (action->send.message->kind != MESSAGE_PING &&
            action->send.message->kind != MESSAGE_PONG)
            sim_trace(sim, node, "send %s on %x", message_names[action->send.message->kind],
                      action->send.link);
        sim_net_send(sim, node, action->send.link, action->send.message);
        break;
    case ACTION_OPEN_MODEL:
        sim_trace(sim, node, "open model");
        open_model(sim, node, action);
        break;
    case ACTION_LOAD_SHARD:
        sim_trace(sim, node, "load layers %u-%u", action->load_shard.spec.layer_begin,
                  action->load_shard.spec.layer_end);
        load_shard(sim, node, action);
        break;
    case ACTION_FREE_SHARD:
        sim_trace(sim, node, "free shard");
        free_shard(sim, node, &action->free_shard);
        break;
    case ACTION_TOKENIZE:
        sim_trace(sim, node, "tokenize");
        tokenize(sim, node, action);
        break;
    case ACTION_FREE_SEQUENCE:
        sim_node(sim, node)->n_texts--;
        break;
    case ACTION_RUN_STAGE:
        sim_trace(sim, node, "run pass %u rows=%u clears=%u",
                  (unsigned)action->run.pass->message->pass.pass,
                  action->run.pass->message->pass.n_rows, action->run.pass->message->pass.n_clears);
        run_stage(sim, node, action);
        break;
    case ACTION_RUN_HEAD:
        run_head(sim, node, action);
        break;
    case ACTION_STARTED:
        api_started(sim, node, action);
        break;
    case ACTION_TEXT:
        api_text(sim, node, action);
        mem_free(action->text.payload);
        break;
    case ACTION_DONE:
        api_done(sim, node, action);
        break;
    case ACTION_NOTICE:
        sim_trace(sim, node, "notice %s", action->notice);
        break;
    case ACTION_CARD:
    case ACTION_WAKE:
        break;
    }
}

void sim_shell_event_free(struct control_event *event)
{
    if (event->kind == EVENT_MODEL)
        control_model_free(&event->model.model);
    else if (event->kind == EVENT_PROMPT)
        mem_free((void *)event->prompt.tokens);
    else if (event->kind == EVENT_STAGE_DONE)
        control_pass_free(&event->stage_done.pass);
    else if (event->kind == EVENT_MESSAGE)
        message_free(&event->message.message);
    if (event->kind == EVENT_HEAD_DONE) {
        mem_free((void *)event->head_done.sampled);
        control_pass_free(&event->head_done.pass);
    }
}

void sim_shell_free(struct sim *sim, int index)
{
    struct sim_node *node = sim_node(sim, index);

    while (node->shards) {
        struct sim_shard *shard = node->shards;

        node->shards = shard->next;
        mem_free(shard);
    }
    control_free(&node->control);
    control_actions_free(&node->actions);
}
