/* A node: the control plane and everything that acts for it, on one libuv loop.
 *
 * Start: state folder and keys → the machine measured → control → store and stage threads →
 * listener → discovery → seeds; meanwhile the thread pool hashes model files. `ready` comes when
 * the files found are known, or after NODE_READY_MS for large ones.
 *
 * Events reach control_step one at a time. Whatever comes up while its actions are being carried
 * out waits in `later`. Closing goes outside in: requests get their last word, links say goodbye,
 * stage threads end, then the store unmaps, and on_closed comes when the last handle is gone.
 *
 * What fails at start is returned with its sentence and leaves nothing behind but handles that
 * close themselves: node_start then finishes through on_closed like a node that was running. */
#include "node/node_uv.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

uint64_t node_now_us(void)
{
    return uv_hrtime() / 1000;
}

void node_notice(struct node *node, const char *text)
{
    for (size_t i = 0; i < node->n_notices; i++)
        if (strcmp(node->notices[i].text, text) == 0)
            return;
    if (node->n_notices == NODE_MAX_NOTICES) {
        memmove(node->notices, node->notices + 1, (NODE_MAX_NOTICES - 1) * sizeof *node->notices);
        node->n_notices--;
    }
    (void)snprintf(node->notices[node->n_notices++].text, sizeof node->notices->text, "%s", text);
    log_event(LOG_INFO, "node", "notice %s", text); /* `up` says it to the person */
}

/* ---------------------------------------------------------------- events */

static void later_free(struct node_later *later)
{
    mem_free(later->body);
    mem_free(later);
}

static void node_step_one(struct node *node, struct control_event *event)
{
    enum status status = control_step(node->control, event, node_now_us(), &node->actions);

    if (status != STATUS_OK)
        log_event(LOG_ERROR, "node", "step.failed event=%u status=%s", (unsigned)event->kind,
                  status_name(status));
    for (size_t i = 0; i < node->actions.n; i++)
        node_act(node, &node->actions.items[i]);
    node->actions.n = 0;
}

void node_freed(struct node *node, const struct instance_ref *instance)
{
    if (node->closing)
        return;
    assert(node->n_freed < NODE_MAX_FREED);
    node->freed[node->n_freed++] = *instance;
    (void)uv_async_send(&node->wake);
}

static void node_drain(struct node *node)
{
    struct node_later *later;

    while (!node->closing && node->n_freed) {
        struct control_event event = {.kind = EVENT_FREED};

        event.freed = node->freed[--node->n_freed];
        node_step_one(node, &event);
    }
    while (!node->closing && (later = node->later) != NULL) {
        node->later = later->next;
        if (!node->later)
            node->later_tail = &node->later;
        node_step_one(node, &later->event);
        later_free(later);
    }
}

void node_step(struct node *node, struct control_event *event)
{
    node_step_one(node, event);
    node_drain(node);
}

enum status node_later(struct node *node, const struct control_event *event, char *body)
{
    struct node_later *later;

    if (node->closing)
        return STATUS_CLOSED;
    later = MEM_NEW(struct node_later);
    if (!later)
        return STATUS_NO_MEMORY;
    later->event = *event;
    later->body = body;
    *node->later_tail = later;
    node->later_tail = &later->next;
    (void)uv_async_send(&node->wake);
    return STATUS_OK;
}

static void node_maybe_ready(struct node *node, bool waited)
{
    if (node->closing || node->ready_told || (!waited && store_pending(node->store) > 0))
        return;
    node->ready_told = true;
    (void)uv_timer_stop(&node->ready_timer);
    if (store_pending(node->store) > 0)
        node_notice(node, "model files are still being read; they are offered once that is done");
    node->events.on_ready(node->events.owner);
}

static void node_on_wake(uv_async_t *async)
{
    node_drain(async->data);
    node_maybe_ready(async->data, false);
}

static void node_on_tick(uv_timer_t *timer)
{
    struct node *node = timer->data;
    struct control_event event;

    event.kind = EVENT_TICK;
    node_step(node, &event);
    node_maybe_ready(node, false);
}

static void node_on_ready_timer(uv_timer_t *timer)
{
    node_maybe_ready(timer->data, true);
}

/* ---------------------------------------------------------------- start */

static uint64_t node_default_memory(const struct engine_box *box)
{
    uint64_t reserve = box->memory_available_bytes / 10;

    if (reserve < (256u << 20))
        reserve = 256u << 20;
    return box->memory_available_bytes > 2 * reserve ? box->memory_available_bytes - reserve
                                                     : box->memory_available_bytes / 2;
}

static void node_fill_card(struct node *node, const struct node_options *options)
{
    struct engine_box box;

    engine_box(&box);
    (void)snprintf(node->card.name, sizeof node->card.name, "%s", options->name);
    (void)snprintf(node->card.version, sizeof node->card.version, "%s", SKEIN_VERSION);
    (void)snprintf(node->card.engine, sizeof node->card.engine, "%s", engine_name(options->engine));
    (void)snprintf(node->card.isa, sizeof node->card.isa, "%s", box.isa);
    node->n_threads = options->n_threads ? options->n_threads : box.n_cores;
    node->card.n_threads = node->n_threads;
    node->card.memory_bytes =
        options->memory_bytes ? options->memory_bytes : node_default_memory(&box);
    node->card.memory_free_bytes = node->card.memory_bytes;
}

static enum status node_start_control(struct node *node, const struct node_options *options,
                                      struct fault *fault)
{
    struct control_options control = {
        .card = node->card,
        .n_ctx_tokens = options->n_ctx_tokens,
        .n_slots = options->n_slots,
        .max_rows = options->max_rows,
        .max_queue = options->max_queue,
        .objective = options->objective,
        .form = options->form,
    };
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    memcpy(control.self_id, node->state.identity.public_key, sizeof control.self_id);
    for (size_t i = 0; i < sizeof control.seed; i++)
        control.seed = control.seed << 8 | node->state.identity.public_key[i];
    control.seed ^= (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    return control_new(&control, node_now_us(), &node->control) == STATUS_OK
               ? STATUS_OK
               : fault_set(fault, STATUS_NO_MEMORY, "no memory to start a node");
}

static enum status node_start_parts(struct node *node, const struct node_options *options,
                                    struct fault *fault)
{
    struct stages_events stages_events;
    struct store_events store_events;
    char *cache = node_state_path(&node->state, "models.cache");
    enum status status = store_new(node->loop, cache, node->engine,
                                   node_store_events(node, &store_events), &node->store);

    mem_free(cache);
    if (status != STATUS_OK)
        return fault_set(fault, status, "no memory to start the model store");
    node->n_open++;
    status = stages_new(node->loop, node_stages_events(node, &stages_events), &node->stages);
    if (status != STATUS_OK)
        return fault_set(fault, status, "no memory to start the stage threads");
    node->n_open++;
    for (size_t i = 0; status == STATUS_OK && i < options->n_model_files; i++)
        status = store_add(node->store, options->model_files[i], NULL, NULL);
    for (size_t i = 0; status == STATUS_OK && i < options->n_model_folders; i++)
        status = store_scan(node->store, options->model_folders[i]);
    return status == STATUS_OK ? STATUS_OK
                               : fault_set(fault, status, "no memory to list the models");
}

static enum status node_start_network(struct node *node, const struct node_options *options,
                                      struct fault *fault)
{
    enum status status;

    if (options->no_discovery && options->n_seeds == 0 && !options->mesh_port_fixed)
        return STATUS_OK;
    status = node_listen(node, options, fault);
    if (status == STATUS_OK && !options->no_discovery)
        status = node_discover(node, options, fault);
    if (status == STATUS_OK && node_seed_all(node, options) != STATUS_OK)
        status = fault_set(fault, STATUS_NO_MEMORY, "no memory for --peer");
    return status;
}

/* Before the node is seen: a card without speeds would be left out of the first plans. The loop
 * does not run yet, so nothing waits but the start itself. */
static void node_measure(struct node *node)
{
    struct engine_speed speed = {0};
    enum status status = engine_measure(node->engine, node->n_threads, &speed);

    if (status != STATUS_OK)
        log_event(LOG_WARN, "engine", "measure.failed status=%s", status_name(status));
    node->card.read_bytes_per_second =
        node->form.mapped ? speed.mapped_bytes_per_second : speed.read_bytes_per_second;
    node->card.flops_per_second = speed.flops_per_second;
}

enum status node_start(struct uv_loop_s *loop, const struct node_options *options,
                       const struct node_events *events, struct node **out, struct fault *fault)
{
    struct node *node = MEM_NEW(struct node);
    enum status status;

    if (!node)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory to start a node");
    node->loop = loop;
    node->events = *events;
    node->later_tail = &node->later;
    node->engine = options->engine;
    node->n_slots = options->n_slots;
    node->max_rows = options->max_rows;
    node->form = options->form;
    node->lock = options->lock;
    node->keys = (struct link_keys){.identity = &node->state.identity,
                                    .cluster_key = node->state.cluster_key};
    status = node_state_open(options->state_folder, options->cluster_key_path, options->join,
                             &node->state, fault);
    if (status == STATUS_OK) {
        node_fill_card(node, options);
        node_measure(node);
        status = node_start_control(node, options, fault);
    }
    if (status != STATUS_OK) {
        node_state_close(&node->state);
        mem_free(node);
        return status;
    }
    (void)uv_timer_init(loop, &node->tick);
    (void)uv_timer_init(loop, &node->ready_timer);
    (void)uv_async_init(loop, &node->wake, node_on_wake);
    node->tick.data = node->ready_timer.data = node->wake.data = node;
    node->tick.timer_cb = node_on_tick;
    node->n_open += 3;
    status = node_start_parts(node, options, fault);
    if (status == STATUS_OK)
        status = node_start_network(node, options, fault);
    if (status != STATUS_OK) {
        node->events.on_closed = NULL;
        node_close(node);
        return status;
    }
    node_refresh_card(node);
    (void)uv_timer_start(&node->ready_timer, node_on_ready_timer, NODE_READY_MS, NODE_READY_MS);
    (void)uv_timer_start(&node->tick, node_on_tick, 0, 0);
    *out = node;
    return STATUS_OK;
}

/* ---------------------------------------------------------------- end */

static void node_free(struct node *node)
{
    struct node_events events = node->events;
    struct node_later *later;

    while ((later = node->later) != NULL) {
        node->later = later->next;
        later_free(later);
    }
    control_free(&node->control);
    control_actions_free(&node->actions);
    node_state_close(&node->state);
    mem_free(node->links);
    mem_free(node->seeds);
    mem_free(node);
    if (events.on_closed)
        events.on_closed(events.owner);
}

void node_part_closed(struct node *node)
{
    node->n_open--;
    if (!node->closing)
        return;
    if (node->store && !node->store_closing && !node->stages && !node->sequences &&
        !node->loading) {
        node->store_closing = true;
        store_close(node->store);
    }
    if (node->n_open == 0)
        node_free(node);
}

static void node_on_handle_closed(uv_handle_t *handle)
{
    node_part_closed(handle->data);
}

void node_close(struct node *node)
{
    if (node->closing)
        return;
    node->closing = true;
    node_requests_end(node);
    node_close_links(node);
    node_free_sequences(node);
    if (node->stages)
        stages_close(node->stages);
    uv_close((uv_handle_t *)&node->tick, node_on_handle_closed);
    uv_close((uv_handle_t *)&node->ready_timer, node_on_handle_closed);
    uv_close((uv_handle_t *)&node->wake, node_on_handle_closed);
}
