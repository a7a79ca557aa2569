/* From a peer's header bytes to struct message.
 *
 * protobuf-c unpacks into an arena of fixed size, so repeated fields, deep nesting or unknown
 * fields can use up the arena and nothing else; then every field is checked against the bounds of
 * proto.h while it is copied into the flat struct. The first thing that is wrong is named in the
 * fault and nothing of the message is used. Whether the content makes sense (is that my stage? do I
 * know that model?) is for node/cluster to judge. */
#include "proto/message.h"

#include <math.h>
#include <string.h>

#include "mesh.pb-c.h"

#define CHECK_KIND(kind, name)                                                                     \
    _Static_assert((int)MESSAGE_##kind == (int)MESH__HEADER__BODY_##kind,                          \
                   "mesh.proto and enum message_kind number " name " differently")
CHECK_KIND(CARD, "card");
CHECK_KIND(PING, "ping");
CHECK_KIND(PONG, "pong");
CHECK_KIND(PEERS, "peers");
CHECK_KIND(PREPARE, "prepare");
CHECK_KIND(PREPARED, "prepared");
CHECK_KIND(LOAD, "load");
CHECK_KIND(LOADED, "loaded");
CHECK_KIND(RELEASE, "release");
CHECK_KIND(PASS, "pass");
CHECK_KIND(PASS_FAILED, "pass_failed");
CHECK_KIND(SUBMIT, "submit");
CHECK_KIND(ACCEPTED, "accepted");
CHECK_KIND(TOKENS, "tokens");
CHECK_KIND(DONE, "done");
CHECK_KIND(CANCEL, "cancel");
CHECK_KIND(CLOSE_IDLE, "close_idle");
CHECK_KIND(IDLE_CLOSED, "idle_closed");

/* ---------------------------------------------------------------- the arena */

static void *arena_take(void *owner, size_t n_bytes)
{
    struct message_arena *arena = owner;
    size_t rounded;
    void *p;

    if (__builtin_add_overflow(n_bytes, 15, &rounded) ||
        (rounded &= ~(size_t)15) > sizeof arena->bytes - arena->used_bytes) {
        arena->full = true;
        return NULL;
    }
    p = arena->bytes + arena->used_bytes;
    arena->used_bytes += rounded;
    return p;
}

static void arena_give_back(void *owner, void *p)
{
    (void)owner;
    (void)p;
}

/* ---------------------------------------------------------------- checked fields */

struct unpacker {
    const char *kind;
    enum status status; /* the first failure */
    struct fault *fault;
};

static void unpack_fail(struct unpacker *u, enum status status, const char *field,
                        const char *problem)
{
    if (u->status != STATUS_OK)
        return;
    u->status = fault_set(u->fault, status, "a message \"%s\" came with a bad field: %s %s",
                          u->kind, field, problem);
}

static void get_text(struct unpacker *u, const char *field, const ProtobufCBinaryData *in,
                     char *out, size_t size)
{
    if (in->len >= size)
        unpack_fail(u, STATUS_LIMIT, field, "is too long");
    else if (!bytes_are_text(in->data, in->len))
        unpack_fail(u, STATUS_FORMAT, field, "is not UTF-8 text");
    else if (in->len)
        memcpy(out, in->data, in->len);
}

static void get_bytes(struct unpacker *u, const char *field, const ProtobufCBinaryData *in,
                      uint8_t *out, size_t n_bytes)
{
    if (in->len != n_bytes)
        unpack_fail(u, STATUS_FORMAT, field, "has the wrong length");
    else
        memcpy(out, in->data, n_bytes);
}

static double get_finite(struct unpacker *u, const char *field, double value)
{
    if (isfinite(value))
        return value;
    unpack_fail(u, STATUS_FORMAT, field, "is not a number");
    return 0;
}

/* A count or an enum's number: 0 … max. */
static uint32_t get_bounded(struct unpacker *u, const char *field, size_t value, uint32_t max)
{
    if (value <= max)
        return (uint32_t)value;
    unpack_fail(u, STATUS_LIMIT, field, "is over its limit");
    return 0;
}

static void get_instance(struct unpacker *u, const Mesh__InstanceRef *in, struct instance_ref *out)
{
    if (!in) {
        unpack_fail(u, STATUS_FORMAT, "instance", "is missing");
        return;
    }
    get_bytes(u, "instance.head", &in->head, out->head, sizeof out->head);
    out->number = in->number;
    out->epoch = in->epoch;
}

/* ---------------------------------------------------------------- one function a kind */

static void get_holding(struct unpacker *u, const Mesh__Holding *in, struct holding *out)
{
    get_instance(u, in->instance, &out->instance);
    get_bytes(u, "holding.model_hash", &in->model_hash, out->model_hash, sizeof out->model_hash);
    out->bytes = in->bytes;
    out->layer_begin = in->layer_begin;
    out->layer_end = in->layer_end;
    if (out->layer_begin > out->layer_end)
        unpack_fail(u, STATUS_FORMAT, "holding.layer_end", "lies before its beginning");
    out->n_ctx_tokens = in->n_ctx_tokens;
    out->idle_seconds = in->idle_seconds;
    out->ready = in->ready;
}

static void get_model(struct unpacker *u, const Mesh__ModelCard *in, struct model_card *out)
{
    get_bytes(u, "model.hash", &in->hash, out->hash, sizeof out->hash);
    get_text(u, "model.name", &in->name, out->name, sizeof out->name);
    out->file_bytes = in->file_bytes;
    get_text(u, "model.architecture", &in->architecture, out->architecture,
             sizeof out->architecture);
    get_text(u, "model.types", &in->types, out->types, sizeof out->types);
    out->n_layers = in->n_layers;
    out->n_ctx_train = in->n_ctx_train;
}

static void get_refused(struct unpacker *u, const Mesh__NodeCard *in, struct node_card *out)
{
    out->n_refused = get_bounded(u, "refused", in->n_refused, PROTO_MAX_REFUSED);
    for (uint32_t i = 0; i < out->n_refused; i++) {
        struct refused_model *to = &out->refused[i];

        get_text(u, "refused.name", &in->refused[i]->name, to->name, sizeof to->name);
        get_text(u, "refused.why", &in->refused[i]->why, to->why, sizeof to->why);
        to->file_bytes = in->refused[i]->file_bytes;
    }
}

static void unpack_card(struct unpacker *u, const Mesh__NodeCard *in, struct node_card *out)
{
    get_text(u, "name", &in->name, out->name, sizeof out->name);
    get_text(u, "version", &in->version, out->version, sizeof out->version);
    get_text(u, "engine", &in->engine, out->engine, sizeof out->engine);
    get_text(u, "isa", &in->isa, out->isa, sizeof out->isa);
    out->memory_bytes = in->memory_bytes;
    out->memory_free_bytes = in->memory_free_bytes;
    out->read_bytes_per_second = get_finite(u, "read_bytes_per_second", in->read_bytes_per_second);
    out->flops_per_second = get_finite(u, "flops_per_second", in->flops_per_second);
    out->n_threads = in->n_threads;
    out->mesh_port = (uint16_t)get_bounded(u, "mesh_port", in->mesh_port, UINT16_MAX);
    out->n_models = get_bounded(u, "models", in->n_models, PROTO_MAX_MODELS);
    for (uint32_t i = 0; i < out->n_models; i++)
        get_model(u, in->models[i], &out->models[i]);
    get_refused(u, in, out);
    out->n_instances = get_bounded(u, "instances", in->n_instances, PROTO_MAX_INSTANCES);
    for (uint32_t i = 0; i < out->n_instances; i++)
        get_bytes(u, "instances", &in->instances[i], out->instances[i], sizeof out->instances[i]);
    out->memory_leaving_bytes = in->memory_leaving_bytes;
    out->n_holdings = get_bounded(u, "holdings", in->n_holdings, PROTO_MAX_HOLDINGS);
    for (uint32_t i = 0; i < out->n_holdings; i++)
        get_holding(u, in->holdings[i], &out->holdings[i]);
}

static void unpack_peers(struct unpacker *u, const Mesh__Peers *in, struct message *out)
{
    out->peers.n = get_bounded(u, "peers", in->n_peers, PROTO_MAX_PEERS);
    for (uint32_t i = 0; i < out->peers.n; i++) {
        const Mesh__PeerAddress *from = in->peers[i];
        struct peer_address *to = &out->peers.items[i];

        get_bytes(u, "node_id", &from->node_id, to->node_id, sizeof to->node_id);
        to->n_addresses = get_bounded(u, "addresses", from->n_addresses, PROTO_MAX_ADDRESSES);
        for (uint32_t k = 0; k < to->n_addresses; k++)
            get_text(u, "address", &from->addresses[k], to->addresses[k], sizeof to->addresses[k]);
    }
}

static void unpack_prepare(struct unpacker *u, const Mesh__Prepare *in, struct message_prepare *out)
{
    get_instance(u, in->instance, &out->instance);
    get_bytes(u, "model_hash", &in->model_hash, out->model_hash, sizeof out->model_hash);
    get_text(u, "model_name", &in->model_name, out->model_name, sizeof out->model_name);
    out->n_stages = get_bounded(u, "stages", in->n_stages, PROTO_MAX_STAGES);
    for (uint32_t i = 0; i < out->n_stages; i++) {
        const Mesh__StageCard *from = in->stages[i];
        struct stage_card *to = &out->stages[i];

        get_bytes(u, "stage.node_id", &from->node_id, to->node_id, sizeof to->node_id);
        to->layer_begin = from->layer_begin;
        to->layer_end = from->layer_end;
        if (to->layer_begin > to->layer_end)
            unpack_fail(u, STATUS_FORMAT, "stage.layer_end", "lies before its beginning");
    }
    out->stage = in->stage;
    if (out->stage >= out->n_stages)
        unpack_fail(u, STATUS_FORMAT, "stage", "is not one of the stages");
    out->n_slots = in->n_slots;
    out->n_ctx_tokens = in->n_ctx_tokens;
    out->n_kv_blocks = in->n_kv_blocks;
    out->max_rows = get_bounded(u, "max_rows", in->max_rows, PROTO_MAX_ROWS);
    out->need_bytes = in->need_bytes;
    out->n_embd = get_bounded(u, "n_embd", in->n_embd, PROTO_MAX_EMBD);
    out->n_layers = get_bounded(u, "n_layers", in->n_layers, PROTO_MAX_LAYERS);
    out->kv_type = in->kv_type;
    out->quantize = in->quantize;
    out->mapped = in->mapped;
}

static void unpack_outcome(struct unpacker *u, const Mesh__Outcome *in, struct message_outcome *out)
{
    get_instance(u, in->instance, &out->instance);
    out->pass = in->pass;
    out->status = status_from_number(in->status);
    get_text(u, "text", &in->text, out->text, sizeof out->text);
    out->memory_free_bytes = in->memory_free_bytes;
}

/* Pairs of numbers, flat on the wire; returns how many pairs. */
static uint32_t get_pairs(struct unpacker *u, const char *field, size_t n, const uint32_t *in,
                          uint32_t max, void *out)
{
    if (n % 2)
        unpack_fail(u, STATUS_FORMAT, field, "lacks half of a pair");
    n = get_bounded(u, field, n / 2, max);
    if (n)
        memcpy(out, in, n * 2 * sizeof *in);
    return (uint32_t)n;
}

static void unpack_pass(struct unpacker *u, const Mesh__Pass *in, struct message_pass *out)
{
    get_instance(u, in->instance, &out->instance);
    out->pass = in->pass;
    out->stage = get_bounded(u, "stage", in->stage, PROTO_MAX_STAGES - 1);
    out->n_rows = get_pairs(u, "rows", in->n_rows, in->rows, PROTO_MAX_ROWS, out->rows);
    out->n_clears = get_pairs(u, "clears", in->n_clears, in->clears, PROTO_MAX_CLEARS, out->clears);
}

static void get_shaping(struct unpacker *u, const Mesh__RequestSpec *from, struct request_spec *to)
{
    to->typical_p = (float)get_finite(u, "typical_p", (double)from->typical_p);
    to->frequency_penalty =
        (float)get_finite(u, "frequency_penalty", (double)from->frequency_penalty);
    to->presence_penalty = (float)get_finite(u, "presence_penalty", (double)from->presence_penalty);
    to->dry_multiplier = (float)get_finite(u, "dry_multiplier", (double)from->dry_multiplier);
    to->dry_base = (float)get_finite(u, "dry_base", (double)from->dry_base);
    to->dry_allowed_length = from->dry_allowed_length;
    to->dry_last_n = from->dry_last_n;
    to->xtc_probability = (float)get_finite(u, "xtc_probability", (double)from->xtc_probability);
    to->xtc_threshold = (float)get_finite(u, "xtc_threshold", (double)from->xtc_threshold);
    to->open_settings = from->open_settings;
    if (from->n_bias_ids != from->n_bias_values) {
        unpack_fail(u, STATUS_FORMAT, "bias_values", "are not as many as bias_ids");
        return;
    }
    to->n_biases = get_bounded(u, "bias_ids", from->n_bias_ids, PROTO_MAX_BIASES);
    for (uint32_t i = 0; i < to->n_biases; i++) {
        to->biases[i].id = from->bias_ids[i];
        to->biases[i].bias = (float)get_finite(u, "bias_values", (double)from->bias_values[i]);
    }
}

static void unpack_submit(struct unpacker *u, const Mesh__Submit *in, struct message_submit *out)
{
    const Mesh__RequestSpec *from = in->spec;
    struct request_spec *to = &out->spec;

    out->request = in->request;
    if (!from) {
        unpack_fail(u, STATUS_FORMAT, "spec", "is missing");
        return;
    }
    to->kind = (enum request_kind)get_bounded(u, "kind", (size_t)from->kind, REQUEST_TEXT);
    get_text(u, "model", &from->model, to->model, sizeof to->model);
    to->max_tokens = from->max_tokens;
    to->temperature = (float)get_finite(u, "temperature", (double)from->temperature);
    to->top_p = (float)get_finite(u, "top_p", (double)from->top_p);
    to->min_p = (float)get_finite(u, "min_p", (double)from->min_p);
    to->repeat_penalty = (float)get_finite(u, "repeat_penalty", (double)from->repeat_penalty);
    to->top_k = from->top_k;
    to->repeat_last_n = from->repeat_last_n;
    to->seed = from->seed;
    to->ignore_end = from->ignore_end != 0;
    to->n_stops = get_bounded(u, "stops", from->n_stops, PROTO_MAX_STOPS);
    for (uint32_t i = 0; i < to->n_stops; i++)
        get_text(u, "stop", &from->stops[i], to->stops[i], sizeof to->stops[i]);
    get_shaping(u, from, to);
}

static void unpack_done(struct unpacker *u, const Mesh__Done *in, struct message_done *out)
{
    out->request = in->request;
    out->end = (enum request_end)get_bounded(u, "end", (size_t)in->end, REQUEST_END_CANCELLED);
    out->status = status_from_number(in->status);
    get_text(u, "text", &in->text, out->text, sizeof out->text);
    out->n_prompt = in->n_prompt;
    out->n_generated = in->n_generated;
    out->n_stages = in->n_stages;
    out->prefill_seconds = get_finite(u, "prefill_seconds", in->prefill_seconds);
    out->decode_seconds = get_finite(u, "decode_seconds", in->decode_seconds);
    get_text(u, "notice", &in->notice, out->notice, sizeof out->notice);
}

static void unpack_body(struct unpacker *u, const Mesh__Header *in, struct message *out)
{
    switch (out->kind) {
    case MESSAGE_CARD:
        return unpack_card(u, in->card, &out->card);
    case MESSAGE_PING:
        out->stamp_us = in->ping;
        return;
    case MESSAGE_PONG:
        out->stamp_us = in->pong;
        return;
    case MESSAGE_PEERS:
        return unpack_peers(u, in->peers, out);
    case MESSAGE_PREPARE:
        return unpack_prepare(u, in->prepare, &out->prepare);
    case MESSAGE_PREPARED:
        return unpack_outcome(u, in->prepared, &out->outcome);
    case MESSAGE_LOADED:
        return unpack_outcome(u, in->loaded, &out->outcome);
    case MESSAGE_PASS_FAILED:
        return unpack_outcome(u, in->pass_failed, &out->outcome);
    case MESSAGE_IDLE_CLOSED:
        return unpack_outcome(u, in->idle_closed, &out->outcome);
    case MESSAGE_CLOSE_IDLE:
        get_instance(u, in->close_idle->instance, &out->close_idle.instance);
        out->close_idle.want_bytes = in->close_idle->want_bytes;
        get_text(u, "for_model", &in->close_idle->for_model, out->close_idle.for_model,
                 sizeof out->close_idle.for_model);
        return;
    case MESSAGE_LOAD:
        return get_instance(u, in->load, &out->instance);
    case MESSAGE_RELEASE:
        return get_instance(u, in->release, &out->instance);
    case MESSAGE_PASS:
        return unpack_pass(u, in->pass, &out->pass);
    case MESSAGE_SUBMIT:
        return unpack_submit(u, in->submit, &out->submit);
    case MESSAGE_ACCEPTED:
        out->accepted = (struct message_accepted){in->accepted->request, in->accepted->n_prompt,
                                                  in->accepted->seed};
        return;
    case MESSAGE_TOKENS:
        out->tokens =
            (struct message_tokens){in->tokens->request, in->tokens->index, in->tokens->n_tokens};
        return;
    case MESSAGE_DONE:
        return unpack_done(u, in->done, &out->done);
    case MESSAGE_CANCEL:
        out->request = in->cancel;
        return;
    case MESSAGE_KIND_LIMIT:
        return;
    }
}

enum status message_unpack(const uint8_t *header, size_t n_bytes, size_t payload_bytes,
                           struct message_arena *arena, struct message **out, struct fault *fault)
{
    ProtobufCAllocator allocator = {arena_take, arena_give_back, arena};
    struct unpacker u = {.fault = fault};
    Mesh__Header *in;
    struct message *message;

    *out = NULL;
    arena->used_bytes = 0;
    arena->full = false;
    if (n_bytes > PROTO_MAX_HEADER_BYTES)
        return fault_set(fault, STATUS_LIMIT, "a message came with a header of %zu bytes", n_bytes);
    in = mesh__header__unpack(&allocator, n_bytes, header);
    if (!in)
        return arena->full ? fault_set(fault, STATUS_LIMIT,
                                       "a message came with more fields than a node can take")
                           : fault_set(fault, STATUS_FORMAT, "a message's header is malformed");
    if (in->body_case == MESH__HEADER__BODY__NOT_SET)
        return fault_set(fault, STATUS_FORMAT, "a message came of a kind that is not known here");
    message = message_new((enum message_kind)in->body_case);
    if (!message)
        return fault_set(fault, STATUS_NO_MEMORY, "out of memory for a message");
    u.kind = message_kind_name(message->kind);
    unpack_body(&u, in, message);
    if (u.status == STATUS_OK)
        u.status = message_check_payload(message, payload_bytes, fault);
    if (u.status != STATUS_OK)
        message_free(&message);
    *out = message;
    return u.status;
}
