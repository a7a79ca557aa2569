/* The node that the HTTP server's tests talk to. It keeps the contract of node.h: callbacks come
 * later, on the loop's thread, and on_done comes exactly once, after node_cancel, too. */
#include "fake_node.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct node {
    int unused;
};

struct fake_request {
    uv_timer_t timer;
    struct fake_request *next;
    uint64_t handle;
    const struct request_events *events;
    void *owner;
    char model[PROTO_MAX_MODEL_NAME];
    uint64_t seed;
    int step;
    bool cancelled;
};

atomic_int fake_n_submitted, fake_n_cancelled, fake_n_open;
uv_loop_t fake_loop;
static char last_body[65536]; /* guarded */
static pthread_mutex_t body_mutex = PTHREAD_MUTEX_INITIALIZER;

void fake_body(char *out, size_t size)
{
    (void)pthread_mutex_lock(&body_mutex);
    (void)snprintf(out, size, "%s", last_body);
    (void)pthread_mutex_unlock(&body_mutex);
}
static struct fake_request *requests;
static uint64_t last_handle;

static void on_closed(uv_handle_t *handle)
{
    mem_free(handle->data);
}

static void finish(struct fake_request *request, enum request_end end, enum status status,
                   const char *text)
{
    struct request_result result = {.end = end,
                                    .n_prompt = 3,
                                    .n_generated = 5,
                                    .n_stages = 2,
                                    .prefill_seconds = 0.5,
                                    .decode_seconds = 2};
    struct fake_request **link = &requests;

    while (*link != request)
        link = &(*link)->next;
    *link = request->next;
    if (end == REQUEST_END_ERROR)
        (void)fault_set(&result.fault, status, "%s", text);
    (void)atomic_fetch_sub(&fake_n_open, 1);
    request->events->on_done(request->owner, &result);
    uv_close((uv_handle_t *)&request->timer, on_closed);
}

static void flood(struct fake_request *request)
{
    static char piece[8192];

    memset(piece, 'x', sizeof piece);
    request->events->on_text(request->owner, piece, sizeof piece, 1);
}

static bool is(const struct fake_request *request, const char *model)
{
    return strcmp(request->model, model) == 0;
}

static bool starts(const struct fake_request *request)
{
    return is(request, "ok") || is(request, "silent") || is(request, "flood") ||
           is(request, "late");
}

static void on_timer(uv_timer_t *timer)
{
    struct fake_request *request = timer->data;
    int step = request->step++;

    if (request->cancelled) {
        finish(request, REQUEST_END_CANCELLED, STATUS_OK, "");
    } else if (!starts(request)) {
        if (is(request, "long"))
            finish(request, REQUEST_END_ERROR, STATUS_CONTEXT, "9 tokens are longer than 8");
        else if (is(request, "busy"))
            finish(request, REQUEST_END_ERROR, STATUS_BUSY, "too many requests wait");
        else
            finish(request, REQUEST_END_ERROR, STATUS_NOT_FOUND, "no such model");
    } else if (step == 0) {
        request->events->on_started(request->owner, 3, request->seed);
    } else if (is(request, "flood")) {
        flood(request);
    } else if (is(request, "late")) {
        if (step == 1)
            request->events->on_text(request->owner, "one", 3, 1);
        else
            finish(request, REQUEST_END_ERROR, STATUS_LOST, "node attic was lost");
    } else if (is(request, "ok")) {
        static const char *const pieces[] = {"Hel", "lo \xc3\xa9", "\"\n"};
        if (step <= 3)
            request->events->on_text(request->owner, pieces[step - 1], strlen(pieces[step - 1]), 1);
        else
            finish(request, REQUEST_END_STOP, STATUS_OK, "");
    }
}

enum status node_submit(struct node *node, const struct request_spec *spec, const char *body,
                        size_t body_bytes, const struct request_events *events, void *owner,
                        uint64_t *out_handle)
{
    struct fake_request *request = MEM_NEW(struct fake_request);

    (void)node;
    if (!request)
        return STATUS_NO_MEMORY;
    (void)pthread_mutex_lock(&body_mutex);
    (void)snprintf(last_body, sizeof last_body, "%.*s",
                   (int)(body_bytes < 65535 ? body_bytes : 65535), body);
    (void)pthread_mutex_unlock(&body_mutex);
    *request = (struct fake_request){.handle = ++last_handle,
                                     .events = events,
                                     .owner = owner,
                                     .seed = spec->seed,
                                     .next = requests};
    memcpy(request->model, spec->model, sizeof request->model);
    requests = request;
    (void)uv_timer_init(&fake_loop, &request->timer);
    request->timer.data = request;
    (void)uv_timer_start(&request->timer, on_timer, 0, 1);
    (void)atomic_fetch_add(&fake_n_submitted, 1);
    (void)atomic_fetch_add(&fake_n_open, 1);
    *out_handle = request->handle;
    return STATUS_OK;
}

void node_cancel(struct node *node, uint64_t handle)
{
    (void)node;
    for (struct fake_request *request = requests; request; request = request->next)
        if (request->handle == handle && !request->cancelled) {
            request->cancelled = true;
            (void)atomic_fetch_add(&fake_n_cancelled, 1);
        }
}

/* ---------------------------------------------------------------- views */

static void card_fill(struct node_card *card, const char *name)
{
    (void)snprintf(card->name, sizeof card->name, "%s", name);
    (void)snprintf(card->engine, sizeof card->engine, "native");
    card->memory_bytes = 1u << 30;
    card->memory_free_bytes = 1u << 29;
    card->n_models = 1;
    (void)snprintf(card->models[0].name, sizeof card->models[0].name, "tiny");
    card->models[0].file_bytes = 77;
    card->models[0].hash[0] = 0xab;
}

size_t node_members(const struct node *node, struct member_view *out, size_t max)
{
    (void)node;
    (void)max;
    assert(max >= 2);
    memset(out, 0, 2 * sizeof *out);
    out[0].state = MEMBER_SELF;
    card_fill(&out[0].card, "bridge");
    out[1].state = MEMBER_REFUSED;
    card_fill(&out[1].card, "att\xffic"); /* not UTF-8 */
    (void)snprintf(out[1].note, sizeof out[1].note, "other cluster key");
    return 2;
}

size_t node_instances(const struct node *node, struct instance_view *out, size_t max)
{
    (void)node;
    (void)max;
    assert(max >= 1);
    memset(out, 0, sizeof *out);
    out->state = INSTANCE_READY;
    (void)snprintf(out->model, sizeof out->model, "tiny");
    out->form = (struct model_form){.kv_type = KV_F16, .quantize = 12, .mapped = true};
    out->plan.n_stages = 1;
    out->plan.stages[0].layer_end = 6;
    (void)snprintf(out->stage_names[0], sizeof out->stage_names[0], "bridge");
    return 1;
}

size_t node_instances_elsewhere(const struct node *node, struct instance_view *out, size_t max)
{
    (void)node;
    (void)out;
    (void)max;
    return 0;
}

size_t node_models(const struct node *node, struct node_model *out, size_t max)
{
    struct node_card card = {.n_models = 0};

    (void)node;
    (void)max;
    assert(max >= 1);
    card_fill(&card, "");
    *out = (struct node_model){.card = card.models[0], .here = true, .n_nodes = 2};
    return 1;
}

size_t node_refused(const struct node *node, struct node_refused *out, size_t max)
{
    (void)node;
    (void)max;
    assert(max >= 1);
    *out = (struct node_refused){.node = "bridge", .model = {"odd", 5, "its type is not known"}};
    return 1;
}

enum status node_find_model(const struct node *node, const char *name,
                            uint8_t out[static PROTO_HASH_BYTES], struct fault *fault)
{
    (void)node;
    if (strcmp(name, "tiny") != 0 && strcmp(name, "TINY") != 0 && strncmp(name, "ab000000", 8) != 0)
        return fault_set(fault, STATUS_NOT_FOUND, "no model '%s'", name);
    memset(out, 0, PROTO_HASH_BYTES);
    out[0] = 0xab;
    return STATUS_OK;
}

size_t node_notices(const struct node *node, struct node_notice *out, size_t max)
{
    (void)node;
    (void)max;
    assert(max >= 1);
    (void)snprintf(out->text, sizeof out->text, "eth1 cannot be used");
    return 1;
}

uint16_t node_mesh_port(const struct node *node)
{
    (void)node;
    return 8471;
}

struct later {
    uv_timer_t timer;
    node_on_plan *on_plan;
    node_on_added *on_added;
    void *owner;
};

static void on_later(uv_timer_t *timer)
{
    struct later *later = timer->data;
    struct fault fine = {.status = STATUS_OK};
    struct model_card card = {.name = "added", .file_bytes = 5};
    static struct control_plan_view view;

    view.plan.n_stages = 1;
    view.plan.stages[0].layer_end = 6;
    view.plan.tokens_per_second = 10;
    (void)snprintf(view.names[0], sizeof view.names[0], "bridge");
    if (later->on_plan)
        later->on_plan(later->owner, &view, NULL, &fine);
    else
        later->on_added(later->owner, &card, &fine);
    uv_close((uv_handle_t *)timer, on_closed);
}

static enum status do_later(struct later what)
{
    struct later *later = mem_copy(&what, sizeof what);

    if (!later)
        return STATUS_NO_MEMORY;
    (void)uv_timer_init(&fake_loop, &later->timer);
    later->timer.data = later;
    (void)uv_timer_start(&later->timer, on_later, 20, 0);
    return STATUS_OK;
}

enum status node_plan(struct node *node, const char *model, enum plan_objective objective,
                      node_on_plan *on_plan, void *owner, struct fault *fault)
{
    (void)node;
    (void)objective;
    if (strcmp(model, "tiny") != 0)
        return fault_set(fault, STATUS_NOT_FOUND, "no model %s", model);
    return do_later((struct later){.on_plan = on_plan, .owner = owner});
}

enum status node_add_model(struct node *node, const char *path, node_on_added *on_added,
                           void *owner)
{
    (void)node;
    (void)path;
    return do_later((struct later){.on_added = on_added, .owner = owner});
}
