/* The table of all paths, and those that are about the cluster rather than a prompt.
 *
 * Views are copied out of the node in one call and turned into JSON. Two calls take time (a plan
 * and a new model open a file on the thread pool): their exchange waits, held by a `pending` that
 * outlives a client which leaves meanwhile. */
#include "node/api/views.h"

#include <stdio.h>
#include <string.h>

enum {
    ADMIN_MAX_MEMBERS = 64,
    ADMIN_MAX_MODELS = 256,
    ADMIN_MAX_NOTICES = 64,
    ADMIN_MAX_INSTANCES = 64,
    ADMIN_MAX_REFUSED = 64
};

struct pending {
    struct exchange *exchange; /* NULL: the client left */
    char model[PROTO_MAX_MODEL_NAME];
    const char *objective;
};

void pending_detach(struct pending *pending)
{
    pending->exchange->pending = NULL;
    pending->exchange = NULL;
}

static struct pending *pending_new(struct exchange *exchange)
{
    struct pending *pending = MEM_NEW(struct pending);

    if (pending) {
        pending->exchange = exchange;
        exchange->pending = pending;
    }
    return pending;
}

static void no_memory(struct exchange *exchange)
{
    struct fault fault;

    (void)fault_set(&fault, STATUS_NO_MEMORY, "out of memory");
    exchange_fail_with(exchange, &fault);
}

static void reply(struct exchange *exchange, json_t *value)
{
    if (value)
        exchange_reply_json(exchange, MHD_HTTP_OK, value);
    else
        no_memory(exchange);
}

/* ---------------------------------------------------------------- models */

static void models_list(struct exchange *exchange)
{
    struct node_model *models = MEM_NEW_N(struct node_model, ADMIN_MAX_MODELS);
    struct node_refused *refused = MEM_NEW_N(struct node_refused, ADMIN_MAX_REFUSED);
    json_t *list = json_array(), *others = json_array();
    size_t n = models ? node_models(exchange->http->node, models, ADMIN_MAX_MODELS) : 0;
    size_t n_refused = refused ? node_refused(exchange->http->node, refused, ADMIN_MAX_REFUSED) : 0;

    for (size_t i = 0; i < n && i < ADMIN_MAX_MODELS; i++)
        (void)json_array_append_new(list, view_model(&models[i]));
    for (size_t i = 0; i < n_refused && i < ADMIN_MAX_REFUSED; i++)
        (void)json_array_append_new(others, view_refused(&refused[i]));
    mem_free(models);
    mem_free(refused);
    reply(exchange,
          json_pack("{s:s, s:o, s:o}", "object", "list", "data", list, "cannot_run", others));
}

/* By any name that a request may give. */
static void models_one(struct exchange *exchange)
{
    struct node_model *models = MEM_NEW_N(struct node_model, ADMIN_MAX_MODELS);
    size_t i = 0, n = models ? node_models(exchange->http->node, models, ADMIN_MAX_MODELS) : 0;
    struct api_error error = {0};
    uint8_t hash[PROTO_HASH_BYTES];
    enum status status =
        node_find_model(exchange->http->node, exchange->argument, hash, &error.fault);

    while (status == STATUS_OK && i < n && memcmp(models[i].card.hash, hash, sizeof hash) != 0)
        i++;
    if (status == STATUS_OK && i < n) {
        reply(exchange, view_model(&models[i]));
    } else if (status == STATUS_OK) {
        no_memory(exchange);
    } else {
        if (status == STATUS_NOT_FOUND)
            api_error_no_model(&error);
        exchange_fail(exchange, &error);
    }
    mem_free(models);
}

static void on_added(void *owner, const struct model_card *card, const struct fault *fault)
{
    struct pending *pending = owner;
    struct exchange *exchange = pending->exchange;
    char hash[2 * PROTO_HASH_BYTES + 1];

    if (exchange) {
        pending_detach(pending);
        if (fault && fault->status != STATUS_OK) {
            exchange_fail_with(exchange, fault);
        } else {
            bytes_to_hex(card->hash, PROTO_HASH_BYTES, hash);
            reply(exchange,
                  json_pack("{s:o, s:s, s:I}", "model", json_text(card->name, strlen(card->name)),
                            "hash", hash, "bytes", (json_int_t)card->file_bytes));
        }
    }
    mem_free(pending);
}

/* The path out of {"path": "…"}, copied. */
static enum status added_path(struct exchange *exchange, char **out, struct api_error *error)
{
    json_t *root = NULL, *path;
    enum status status =
        json_parse((const char *)exchange->body.data, exchange->body.len, &root, error);

    if (status != STATUS_OK)
        return status;
    path = json_object_get(root, "path");
    if (!json_is_string(path) || json_string_value(path)[0] != '/') {
        status = api_error_set(error, STATUS_INVALID, "path", "invalid_value",
                               "path must be the absolute path of a model file on this box");
    } else {
        *out = mem_text(json_string_value(path));
        if (!*out)
            status = api_error_set(error, STATUS_NO_MEMORY, NULL, NULL, "out of memory");
    }
    json_decref(root);
    return status;
}

static void models_add(struct exchange *exchange)
{
    struct pending *pending = NULL;
    struct api_error error;
    enum status status;
    char *path = NULL;

    if (!exchange->http->guard.loopback) {
        (void)api_error_set(&error, STATUS_PERMISSION, NULL, "loopback_only",
                            "files can be named only where the API listens on loopback");
        exchange_fail(exchange, &error);
        return;
    }
    status = exchange->body.len ? added_path(exchange, &path, &error)
                                : api_error_set(&error, STATUS_INVALID, "path", "missing_parameter",
                                                "path is missing");
    if (status == STATUS_OK) {
        pending = pending_new(exchange);
        status = pending ? node_add_model(exchange->http->node, path, on_added, pending)
                         : STATUS_NO_MEMORY;
        if (status != STATUS_OK)
            (void)api_error_set(&error, status, NULL, NULL, "cannot open %.300s: %s", path,
                                status_words(status));
    }
    if (status != STATUS_OK) {
        if (pending)
            pending_detach(pending);
        mem_free(pending);
        exchange_fail(exchange, &error);
    }
    mem_free(path);
}

/* ---------------------------------------------------------------- the cluster */

static struct member_view *members_copy(struct node *node, size_t *n)
{
    struct member_view *members = MEM_NEW_N(struct member_view, ADMIN_MAX_MEMBERS);

    *n = members ? node_members(node, members, ADMIN_MAX_MEMBERS) : 0;
    if (*n > ADMIN_MAX_MEMBERS)
        *n = ADMIN_MAX_MEMBERS;
    return members;
}

static void peers(struct exchange *exchange)
{
    struct node_notice *notices = MEM_NEW_N(struct node_notice, ADMIN_MAX_NOTICES);
    struct node *node = exchange->http->node;
    size_t n, n_notices;
    struct member_view *members = members_copy(node, &n);
    json_t *nodes = json_array(), *texts = json_array();

    n_notices = notices ? node_notices(node, notices, ADMIN_MAX_NOTICES) : 0;
    for (size_t i = 0; i < n; i++)
        (void)json_array_append_new(nodes, view_member(&members[i]));
    for (size_t i = 0; i < n_notices && i < ADMIN_MAX_NOTICES; i++)
        (void)json_array_append_new(texts, json_text(notices[i].text, strlen(notices[i].text)));
    mem_free(members);
    mem_free(notices);
    reply(exchange, json_pack("{s:o, s:o}", "nodes", nodes, "notices", texts));
}

static void instances(struct exchange *exchange)
{
    struct instance_view *views = MEM_NEW_N(struct instance_view, ADMIN_MAX_INSTANCES);
    struct node *node = exchange->http->node;
    size_t n = views ? node_instances(node, views, ADMIN_MAX_INSTANCES) : 0;
    json_t *list = json_array();

    if (views)
        n += node_instances_elsewhere(node, views + n, ADMIN_MAX_INSTANCES - n);
    for (size_t i = 0; i < n && i < ADMIN_MAX_INSTANCES; i++)
        (void)json_array_append_new(list, view_instance(&views[i]));
    mem_free(views);
    reply(exchange, json_pack("{s:o}", "instances", list));
}

static void self(struct exchange *exchange)
{
    size_t n;
    struct member_view *members = members_copy(exchange->http->node, &n);
    json_t *value = NULL;

    for (size_t i = 0; i < n && !value; i++)
        if (members[i].state == MEMBER_SELF)
            value = view_member(&members[i]);
    mem_free(members);
    if (value)
        (void)json_object_set_new(value, "mesh_port",
                                  json_integer(node_mesh_port(exchange->http->node)));
    if (value)
        (void)json_object_set_new(value, "api_port", json_integer(exchange->http->port));
    reply(exchange, value);
}

static void health(struct exchange *exchange)
{
    struct fault fault;

    if (exchange->http->ready) {
        reply(exchange, json_pack("{s:s}", "status", "ok"));
        return;
    }
    (void)fault_set(&fault, STATUS_BUSY, "the node is still starting");
    exchange_fail_with(exchange, &fault);
}

/* ---------------------------------------------------------------- plans */

static void on_plan(void *owner, const struct control_plan_view *view,
                    const struct model_info *info, const struct fault *fault)
{
    struct pending *pending = owner;
    struct exchange *exchange = pending->exchange;
    struct member_view *members;
    size_t n;

    if (exchange) {
        pending_detach(pending);
        if (fault && fault->status != STATUS_OK) {
            exchange_fail_with(exchange, fault);
        } else if (!view) {
            no_memory(exchange);
        } else {
            members = members_copy(exchange->http->node, &n);
            reply(exchange, view_plan(pending->model, pending->objective, view, info, members, n));
            mem_free(members);
        }
    }
    mem_free(pending);
}

static void plan(struct exchange *exchange)
{
    const char *model = exchange_query(exchange, "model");
    const char *objective = exchange_query(exchange, "objective");
    enum plan_objective wanted = PLAN_LATENCY;
    struct pending *pending;
    struct api_error error = {0};
    enum status status;

    if (!model || !*model || strlen(model) >= PROTO_MAX_MODEL_NAME) {
        (void)api_error_set(&error, STATUS_INVALID, "model", "missing_parameter",
                            "say for which model: /skein/plan?model=NAME");
        exchange_fail(exchange, &error);
        return;
    }
    if (objective && strcmp(objective, "throughput") == 0) {
        wanted = PLAN_THROUGHPUT;
    } else if (objective && strcmp(objective, "latency") != 0) {
        (void)api_error_set(&error, STATUS_INVALID, "objective", "invalid_value",
                            "objective must be latency or throughput");
        exchange_fail(exchange, &error);
        return;
    }
    pending = pending_new(exchange);
    if (pending) {
        (void)snprintf(pending->model, sizeof pending->model, "%s", model);
        pending->objective = wanted == PLAN_LATENCY ? "latency" : "throughput";
    }
    status = pending
                 ? node_plan(exchange->http->node, model, wanted, on_plan, pending, &error.fault)
                 : fault_set(&error.fault, STATUS_NO_MEMORY, "no memory for a plan");
    if (status == STATUS_OK)
        return;
    if (pending)
        pending_detach(pending);
    mem_free(pending);
    if (status == STATUS_NOT_FOUND)
        api_error_no_model(&error);
    exchange_fail(exchange, &error);
}

/* ---------------------------------------------------------------- the table */

const struct route api_routes[] = {
    {.method = "POST", .path = "/v1/chat/completions", .handle = completion_chat, .body = true},
    {.method = "POST", .path = "/v1/completions", .handle = completion_text, .body = true},
    {.method = "GET", .path = "/v1/models", .handle = models_list},
    {.method = "GET", .path = "/v1/models/{id}", .handle = models_one},
    {.method = "GET", .path = "/health", .handle = health, .open = true, .starting = true},
    {.method = "GET", .path = "/skein/node", .handle = self},
    {.method = "GET", .path = "/skein/peers", .handle = peers},
    {.method = "GET", .path = "/skein/instances", .handle = instances},
    {.method = "GET", .path = "/skein/plan", .handle = plan},
    {.method = "POST", .path = "/skein/models", .handle = models_add, .body = true},
};
const size_t api_n_routes = COUNT_OF(api_routes);
