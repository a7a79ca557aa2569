/* The node's views as JSON, for /skein/… and `skein … --json`. Names are whole words with their
 * unit, so that a script needs no manual: memory_free_bytes, rtt_seconds. */
#include "node/api/views.h"

#include <string.h>

static json_t *hex(const uint8_t *bytes, size_t n)
{
    char text[2 * PROTO_HASH_BYTES + 1];

    bytes_to_hex(bytes, n, text);
    return json_string(text);
}

static json_t *words(const char *text)
{
    return json_text(text, strlen(text));
}

static json_t *measured(double value)
{
    return value > 0 ? json_real(value) : json_null();
}

static json_t *count(uint64_t value)
{
    return json_integer((json_int_t)value);
}

/* Adds what was made; a NULL makes the whole NULL, so callers check once at the end. */
static void put(json_t **object, const char *name, json_t *value)
{
    if (!*object) {
        json_decref(value);
    } else if (!value || json_object_set_new(*object, name, value) != 0) {
        json_decref(*object);
        *object = NULL;
    }
}

static void add(json_t **array, json_t *value)
{
    if (!*array) {
        json_decref(value);
    } else if (!value || json_array_append_new(*array, value) != 0) {
        json_decref(*array);
        *array = NULL;
    }
}

const char *view_member_state(enum member_state state)
{
    static const char *const names[] = {
        [MEMBER_SELF] = "self", [MEMBER_DIALLING] = "dialling", [MEMBER_ALIVE] = "alive",
        [MEMBER_LOST] = "lost", [MEMBER_REFUSED] = "refused",
    };

    return (size_t)state < COUNT_OF(names) ? names[state] : "unknown";
}

const char *view_instance_state(enum instance_state state)
{
    static const char *const names[] = {
        [INSTANCE_OPENING] = "opening", [INSTANCE_PREPARING] = "preparing",
        [INSTANCE_LOADING] = "loading", [INSTANCE_PROBING] = "probing",
        [INSTANCE_READY] = "ready",     [INSTANCE_CLOSED] = "closed",
    };

    return (size_t)state < COUNT_OF(names) ? names[state] : "unknown";
}

static json_t *models_of(const struct node_card *card)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < card->n_models && i < PROTO_MAX_MODELS; i++) {
        json_t *model = json_object();
        put(&model, "name", words(card->models[i].name));
        put(&model, "hash", hex(card->models[i].hash, PROTO_HASH_BYTES));
        put(&model, "bytes", count(card->models[i].file_bytes));
        add(&list, model);
    }
    return list;
}

json_t *view_member(const struct member_view *member)
{
    const struct node_card *card = &member->card;
    json_t *out = json_object(), *instances = json_array();

    for (uint32_t i = 0; i < card->n_instances && i < PROTO_MAX_INSTANCES; i++)
        add(&instances, hex(card->instances[i], PROTO_HASH_BYTES));
    put(&out, "id", hex(member->node_id, PROTO_ID_BYTES));
    put(&out, "name", words(card->name));
    put(&out, "state", json_string(view_member_state(member->state)));
    put(&out, "address", words(member->address));
    put(&out, "version", words(card->version));
    put(&out, "engine", words(card->engine));
    put(&out, "isa", words(card->isa));
    put(&out, "threads", count(card->n_threads));
    put(&out, "memory_bytes", count(card->memory_bytes));
    put(&out, "memory_free_bytes", count(card->memory_free_bytes));
    put(&out, "read_bytes_per_second", measured(card->read_bytes_per_second));
    put(&out, "flops_per_second", measured(card->flops_per_second));
    put(&out, "rtt_seconds", measured((double)member->rtt_us / 1e6));
    put(&out, "models", models_of(card));
    put(&out, "instances", instances);
    put(&out, "note", words(member->note));
    return out;
}

static json_t *stage_view(const struct plan_stage *stage, const char *node)
{
    json_t *out = json_object();

    put(&out, "node", words(node));
    put(&out, "layer_begin", count(stage->layer_begin));
    put(&out, "layer_end", count(stage->layer_end));
    put(&out, "need_bytes", count(stage->need_bytes));
    put(&out, "decode_seconds", measured(stage->decode_seconds));
    return out;
}

/* How an instance holds the model; only its head knows. Weights: null as the file has them. */
static void put_form(json_t **out, const struct model_form *form)
{
    const char *type = form ? weight_type_name(form->quantize) : NULL;

    put(out, "kv", form ? json_string(kv_type_name(form->kv_type)) : json_null());
    put(out, "quantize", type ? json_string(type) : json_null());
    put(out, "mapped", form ? json_boolean(form->mapped) : json_null());
}

json_t *view_instance(const struct instance_view *instance)
{
    json_t *out = json_object(), *stages = json_array();

    for (uint32_t i = 0; i < instance->plan.n_stages && i < PROTO_MAX_STAGES; i++)
        add(&stages, stage_view(&instance->plan.stages[i], instance->stage_names[i]));
    put(&out, "model", words(instance->model));
    put(&out, "head", hex(instance->ref.head, PROTO_ID_BYTES));
    put(&out, "number", count(instance->ref.number));
    put(&out, "epoch", count(instance->ref.epoch));
    put(&out, "state", json_string(view_instance_state(instance->state)));
    put(&out, "context_tokens", count(instance->n_ctx_tokens));
    put(&out, "head_name", words(instance->head));
    put_form(&out, instance->elsewhere ? NULL : &instance->form);
    put(&out, "notice", words(instance->notice));
    put(&out, "running", count(instance->n_running));
    put(&out, "waiting", count(instance->n_waiting));
    put(&out, "stages", stages);
    return out;
}

/* What the node of this name offers; the plan's view has names only. */
static json_t *memory_free(const char *name, const struct member_view *members, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(members[i].card.name, name) == 0)
            return count(members[i].card.memory_free_bytes);
    return json_null();
}

static json_t *info_view(const struct model_info *info)
{
    json_t *out = json_object();

    put(&out, "name", words(info->name));
    put(&out, "architecture", words(info->architecture));
    put(&out, "types", words(info->types));
    put(&out, "layers", count(info->n_layers));
    put(&out, "parameters", count(info->n_parameters));
    put(&out, "file_bytes", count(info->file_bytes));
    return out;
}

static json_t *closing_view(const struct control_plan_view *view)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < view->n_closing && i < COUNT_OF(view->closing); i++) {
        json_t *one = json_object();
        put(&one, "model", words(view->closing[i].model));
        put(&one, "head", words(view->closing[i].head));
        put(&one, "bytes", count(view->closing[i].bytes));
        add(&list, one);
    }
    return list;
}

json_t *view_plan(const char *model, const char *objective, const struct control_plan_view *view,
                  const struct model_info *info, const struct member_view *members,
                  size_t n_members)
{
    json_t *out = json_object(), *stages = json_array(), *left_out = json_array();
    const struct plan *plan = &view->plan;

    for (uint32_t i = 0; i < plan->n_stages && i < PLAN_MAX_NODES; i++) {
        uint32_t node = plan->stages[i].node;
        const char *name = node < PLAN_MAX_NODES ? view->names[node] : "";
        json_t *stage = stage_view(&plan->stages[i], name);
        put(&stage, "memory_free_bytes", memory_free(name, members, n_members));
        add(&stages, stage);
    }
    for (uint32_t i = 0; i < plan->n_left_out && i < PLAN_MAX_NODES; i++) {
        uint32_t node = plan->left_out[i].node;
        json_t *one = json_object();
        put(&one, "node", words(node < PLAN_MAX_NODES ? view->names[node] : ""));
        put(&one, "why", words(plan->left_out[i].why));
        add(&left_out, one);
    }
    put(&out, "model", words(model));
    put(&out, "objective", words(objective));
    put(&out, "running", json_boolean(view->running));
    put(&out, "head_name", words(view->head));
    put_form(&out, view->elsewhere ? NULL : &view->form);
    put(&out, "notice", words(view->notice));
    put(&out, "after_closing", closing_view(view));
    put(&out, "context_tokens", count(view->n_ctx_tokens));
    put(&out, "stages", stages);
    put(&out, "left_out", left_out);
    put(&out, "latency_seconds", measured(plan->latency_seconds));
    put(&out, "slowest_stage_seconds", measured(plan->slowest_stage_seconds));
    put(&out, "tokens_per_second", measured(plan->tokens_per_second));
    put(&out, "first_token_seconds", measured(plan->first_token_seconds));
    put(&out, "file", info ? info_view(info) : json_null());
    return out;
}

json_t *view_model(const struct node_model *model)
{
    json_t *out = json_object(), *own = json_object();

    put(&own, "hash", hex(model->card.hash, PROTO_HASH_BYTES));
    put(&own, "bytes", count(model->card.file_bytes));
    put(&own, "here", json_boolean(model->here));
    put(&own, "nodes", count(model->n_nodes));
    put(&own, "architecture", words(model->card.architecture));
    put(&own, "types", words(model->card.types));
    put(&own, "layers", count(model->card.n_layers));
    put(&own, "context_length", count(model->card.n_ctx_train));
    put(&out, "id", words(model->card.name));
    put(&out, "object", json_string("model"));
    put(&out, "created", json_integer(0));
    put(&out, "owned_by", json_string("skein"));
    put(&out, "skein", own);
    return out;
}

json_t *view_refused(const struct node_refused *refused)
{
    json_t *out = json_object();

    put(&out, "id", words(refused->model.name));
    put(&out, "node", words(refused->node));
    put(&out, "bytes", count(refused->model.file_bytes));
    put(&out, "why", words(refused->model.why));
    return out;
}
