/* The node's models and shards: between the control plane's ACTION_OPEN_MODEL / LOAD_SHARD /
 * RUN_* and the store and stage threads.
 *
 * A shard needs its model mapped, so LOAD_SHARD first asks the store, then starts a stage thread,
 * which holds one use of the model until it has ended. The use that OPEN_MODEL takes is kept until
 * the shard has its own, so that a vocabulary is not built twice. */
#include "node/node_uv.h"

#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- what control must know */

static bool model_card_of(const struct node *node, const uint8_t *hash, struct model_card *out)
{
    for (uint32_t i = 0; i < node->card.n_models; i++)
        if (memcmp(node->card.models[i].hash, hash, PROTO_HASH_BYTES) == 0) {
            *out = node->card.models[i];
            return true;
        }
    return false;
}

static double costs_weights(const struct model_costs *costs, uint32_t n_layers)
{
    double sum = (double)costs->embed_bytes + (double)costs->head_bytes;

    for (uint32_t i = 0; i < n_layers; i++)
        sum += (double)costs->layer_bytes[i];
    return sum;
}

static double costs_kv(const struct model_costs *costs, uint32_t n_layers)
{
    double sum = 0;

    for (uint32_t i = 0; i < n_layers; i++)
        sum += (double)costs->layer_kv_bytes[i];
    return sum;
}

static double part_left(double other, double own)
{
    return own > 0 ? other / own : 1;
}

/* Forms of which a node that is short of memory may be told, where they are smaller than its own.
 */
static void savings_of(const struct model *model, const struct model_form *own_form,
                       const struct model_costs *own, struct control_model *out)
{
    static const struct {
        const char *option, *kv, *quantize;
        bool mapped;
    } options[CONTROL_MAX_SAVINGS] = {{"--kv f16", "f16", NULL, false},
                                      {"--kv q8_0", "q8_0", NULL, false},
                                      {"--quantize q8_0", NULL, "q8_0", false},
                                      {"--quantize q4_k", NULL, "q4_k", false},
                                      {"--mapped", NULL, NULL, true}};
    uint32_t n_layers = model_info(model)->n_layers;

    for (size_t i = 0; i < COUNT_OF(options); i++) {
        struct control_saving saving;
        struct model_costs costs;
        struct model_form form;

        if (model_form_parse(options[i].kv, options[i].quantize, &form, NULL))
            continue;
        if (!options[i].quantize)
            form.quantize = own_form->quantize;
        if (!options[i].kv)
            form.kv_type = own_form->kv_type;
        form.mapped = own_form->mapped || options[i].mapped;
        if (model_costs(model, &form, &costs) != STATUS_OK)
            continue;
        saving.weights = part_left(costs_weights(&costs, n_layers), costs_weights(own, n_layers));
        saving.kv = part_left(costs_kv(&costs, n_layers), costs_kv(own, n_layers));
        model_costs_free(&costs);
        (void)snprintf(saving.option, sizeof saving.option, "%s", options[i].option);
        if (saving.weights <= 1 && saving.kv <= 1 && saving.weights + saving.kv < 2)
            out->savings[out->n_savings++] = saving;
    }
}

struct control_model *node_control_model(const struct node *node, const struct model *model,
                                         const uint8_t *hash)
{
    const struct model_info *info = model_info(model);
    struct control_model *out = MEM_NEW(struct control_model);
    struct shard_spec spec = {
        .layer_end = info->n_layers,
        .embed = true,
        .head = true,
        .n_slots = node->n_slots,
        .n_ctx_tokens = SHARD_KV_BLOCK_TOKENS,
        .n_kv_blocks = node->n_slots,
        .max_rows = node->max_rows,
        .n_threads = node->n_threads,
        .engine = node->engine,
        .form = node->form,
    };
    struct model_costs costs = {0};
    struct shard_need need;
    struct model_card card;

    if (!out || !model_card_of(node, hash, &card) ||
        model_costs(model, &node->form, &costs) != STATUS_OK) {
        mem_free(out);
        return NULL;
    }
    shard_need(model, &spec, &need);
    memcpy(out->hash, card.hash, sizeof out->hash);
    memcpy(out->name, card.name, sizeof out->name);
    out->n_layers = info->n_layers;
    out->n_embd = info->row_floats;
    out->n_vocab = info->n_vocab;
    out->n_ctx_train = info->n_ctx_train;
    out->layer_bytes = costs.layer_bytes;
    out->layer_active_bytes = costs.layer_active_bytes;
    out->layer_kv_bytes = costs.layer_kv_bytes;
    out->layer_flops =
        info->layer_flops ? mem_copy(info->layer_flops, info->n_layers * sizeof(double)) : NULL;
    out->embed_bytes = costs.embed_bytes;
    out->head_bytes = costs.head_bytes;
    out->head_active_bytes = costs.head_active_bytes;
    savings_of(model, &node->form, &costs, out);
    out->head_flops = info->head_flops;
    out->scratch_bytes = need.scratch_bytes;
    out->sampling_settings = model_sampling(model, &out->sampling);
    if (!out->layer_bytes || !out->layer_active_bytes || !out->layer_kv_bytes || !out->layer_flops)
        control_model_free(&out);
    return out;
}

void node_refresh_card(struct node *node)
{
    struct control_event event = {.kind = EVENT_SELF};

    node->card.n_models =
        (uint32_t)store_cards(node->store, node->card.models, COUNT_OF(node->card.models));
    node->card.n_refused =
        (uint32_t)store_refused(node->store, node->card.refused, COUNT_OF(node->card.refused));
    event.self = node->card;
    if (node_later(node, &event, NULL) != STATUS_OK)
        log_event(LOG_WARN, "node", "card.failed reason=memory");
}

/* ---------------------------------------------------------------- opening */

void node_release_opened(struct node *node)
{
    if (node->opened)
        store_release(node->store, node->opened_hash);
    node->opened = false;
}

static void models_on_open(void *owner, const uint8_t hash[static PROTO_HASH_BYTES],
                           const struct model *model, const struct fault *fault)
{
    struct node *node = owner;
    struct control_event event = {.kind = EVENT_MODEL};

    if (model) {
        node_release_opened(node);
        node->opened = true;
        memcpy(node->opened_hash, hash, sizeof node->opened_hash);
    }
    if (node->closing)
        return;
    memcpy(event.model.hash, hash, PROTO_HASH_BYTES);
    event.model.fault = *fault;
    if (model)
        event.model.model = node_control_model(node, model, hash);
    if (model && !event.model.model)
        (void)fault_set(&event.model.fault, STATUS_NO_MEMORY, "no memory for the model's table");
    node_step(node, &event);
}

void node_open_model(struct node *node, const uint8_t *hash)
{
    struct control_event event = {.kind = EVENT_MODEL};
    enum status status = store_open(node->store, hash, models_on_open, node);

    if (status == STATUS_OK)
        return;
    memcpy(event.model.hash, hash, PROTO_HASH_BYTES);
    (void)fault_set(&event.model.fault, status, "this node cannot open the model: %s",
                    status_words(status));
    if (node_later(node, &event, NULL) != STATUS_OK)
        log_event(LOG_WARN, "node", "open.failed reason=memory");
}

/* ---------------------------------------------------------------- shards */

static void shard_failed(struct node *node, const struct instance_ref *instance,
                         const struct fault *fault)
{
    struct control_event event = {.kind = EVENT_SHARD};

    event.shard.instance = *instance;
    event.shard.fault = *fault;
    if (node_later(node, &event, NULL) != STATUS_OK)
        log_event(LOG_WARN, "node", "load.failed reason=memory");
}

/* What the head reserved here is its word; what the shard takes is this node's to know. */
static enum status loading_check(const struct node *node, const struct node_loading *loading,
                                 const struct model *model, struct fault *fault)
{
    struct shard_need need;
    uint64_t bytes;
    char needs[24], offered[24];

    shard_need(model, &loading->spec, &need);
    if (!__builtin_add_overflow(need.weight_bytes, need.kv_bytes, &bytes) &&
        !__builtin_add_overflow(bytes, need.scratch_bytes, &bytes) &&
        bytes <= node->card.memory_bytes)
        return STATUS_OK;
    return fault_set(fault, STATUS_NO_ROOM, "the stage takes %s here, more than the %s offered",
                     bytes_format_size(need.weight_bytes + need.kv_bytes, needs, sizeof needs),
                     bytes_format_size(node->card.memory_bytes, offered, sizeof offered));
}

static void loading_on_open(void *owner, const uint8_t hash[static PROTO_HASH_BYTES],
                            const struct model *model, const struct fault *fault)
{
    struct node_loading *loading = owner;
    struct node *node = loading->node;
    struct node_loading **link = &node->loading;
    struct fault failed = *fault;

    while (*link != loading)
        link = &(*link)->next;
    *link = loading->next;
    if (loading->dropped || node->closing) {
        if (model)
            store_release(node->store, hash);
        node_freed(node, &loading->instance);
    } else if (!model || loading_check(node, loading, model, &failed) != STATUS_OK ||
               stages_load(node->stages, &loading->instance, model, hash, &loading->spec,
                           &failed) != STATUS_OK) {
        if (failed.status == STATUS_OK)
            (void)fault_set(&failed, STATUS_INTERNAL, "the model is not open");
        if (model)
            store_release(node->store, hash);
        shard_failed(node, &loading->instance, &failed);
    } else if (node->opened && memcmp(node->opened_hash, hash, PROTO_HASH_BYTES) == 0) {
        node_release_opened(node);
    }
    mem_free(loading);
    node_part_closed(node);
}

void node_load_shard(struct node *node, const struct instance_ref *instance, const uint8_t *hash,
                     const struct shard_spec *spec)
{
    struct node_loading *loading = MEM_NEW(struct node_loading);
    struct fault fault = {0};
    enum status status = STATUS_NO_MEMORY;

    if (loading) {
        loading->node = node;
        loading->instance = *instance;
        loading->spec = *spec;
        loading->spec.n_threads = node->n_threads;
        loading->spec.engine = node->engine;
        loading->spec.lock = node->lock;
        memcpy(loading->hash, hash, sizeof loading->hash);
        status = store_open(node->store, hash, loading_on_open, loading);
    }
    if (status != STATUS_OK) {
        mem_free(loading);
        (void)fault_set(&fault, status, "the model cannot be opened: %s", status_words(status));
        shard_failed(node, instance, &fault);
        return;
    }
    loading->next = node->loading;
    node->loading = loading;
    node->n_open++;
}

void node_free_shard(struct node *node, const struct instance_ref *instance)
{
    for (struct node_loading *l = node->loading; l; l = l->next)
        if (instance_ref_equal(&l->instance, instance) && !l->dropped) {
            l->dropped = true;
            return;
        }
    if (!stages_drop(node->stages, instance))
        node_freed(node, instance); /* it failed before it had a thread */
}

/* ---------------------------------------------------------------- what the stages say */

static void stages_on_loaded(void *owner, const struct instance_ref *instance,
                             const struct fault *fault)
{
    struct node *node = owner;
    struct control_event event = {.kind = EVENT_SHARD};

    if (node->closing)
        return;
    event.shard.instance = *instance;
    event.shard.fault = *fault;
    node_step(node, &event);
}

static void stages_on_stage_done(void *owner, struct control_pass *pass, const struct fault *fault)
{
    struct node *node = owner;
    struct control_event event;

    if (node->closing) {
        control_pass_free(&pass);
        return;
    }
    event.kind = EVENT_STAGE_DONE;
    event.stage_done.pass = pass;
    event.stage_done.fault = *fault;
    node_step(node, &event);
}

/* Text comes from the sequence's detokenizer, on the loop: a few microseconds a token. */
static void head_sampled(struct node *node, const uint8_t *hash, const struct sample_job *job,
                         struct buffer *text, struct sampled *out)
{
    const struct model *model = store_peek(node->store, hash);
    struct node_sequence *sequence = node_find_sequence(node, job->sequence);
    size_t before = text->len;

    *out = (struct sampled){.sequence = job->sequence, .token = job->token};
    out->ends = model && model_token_ends(model, job->token);
    if (!out->ends && sequence && sequence->detok &&
        detok_push(sequence->detok, job->token, text) != STATUS_OK)
        log_event(LOG_WARN, "node", "detok.failed reason=memory");
    out->text_bytes = text->len - before;
}

static void stages_on_head_done(void *owner, const uint8_t hash[static PROTO_HASH_BYTES],
                                struct control_pass *pass, const struct fault *fault)
{
    struct node *node = owner;
    struct sampled sampled[PROTO_MAX_ROWS];
    struct buffer text = {0};
    struct control_event event;
    size_t at = 0;

    if (node->closing) {
        control_pass_free(&pass);
        return;
    }
    event.kind = EVENT_HEAD_DONE;
    event.head_done.pass = pass;
    event.head_done.fault = *fault;
    event.head_done.n_sampled =
        fault->status == STATUS_OK && pass->n_samples <= PROTO_MAX_ROWS ? pass->n_samples : 0;
    for (uint32_t i = 0; i < event.head_done.n_sampled; i++)
        head_sampled(node, hash, &pass->samples[i], &text, &sampled[i]);
    for (uint32_t i = 0; i < event.head_done.n_sampled; i++) {
        sampled[i].text = text.data ? (const char *)text.data + at : "";
        at += sampled[i].text_bytes;
    }
    event.head_done.sampled = sampled;
    node_step(node, &event);
    buffer_free(&text);
}

static void stages_on_freed(void *owner, const struct instance_ref *instance,
                            const uint8_t hash[static PROTO_HASH_BYTES])
{
    struct node *node = owner;

    store_release(node->store, hash);
    node_freed(node, instance);
}

static void stages_on_closed(void *owner)
{
    struct node *node = owner;

    node->stages = NULL;
    node_release_opened(node);
    node_part_closed(node);
}

const struct stages_events *node_stages_events(struct node *node, struct stages_events *out)
{
    *out = (struct stages_events){.on_loaded = stages_on_loaded,
                                  .on_stage_done = stages_on_stage_done,
                                  .on_head_done = stages_on_head_done,
                                  .on_freed = stages_on_freed,
                                  .on_closed = stages_on_closed,
                                  .owner = node};
    return out;
}

/* ---------------------------------------------------------------- what the store says */

static void store_on_changed(void *owner)
{
    struct node *node = owner;

    if (!node->closing && node->control)
        node_refresh_card(node);
}

static void store_on_notice(void *owner, const char *text)
{
    node_notice(owner, text);
}

static void store_on_closed(void *owner)
{
    struct node *node = owner;

    node->store = NULL;
    node_part_closed(node);
}

const struct store_events *node_store_events(struct node *node, struct store_events *out)
{
    *out = (struct store_events){.on_changed = store_on_changed,
                                 .on_notice = store_on_notice,
                                 .on_closed = store_on_closed,
                                 .owner = node};
    return out;
}
