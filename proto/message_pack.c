/* From struct message to protobuf header bytes.
 *
 * Each kind has one function that builds the generated structs on its stack, pointing into the
 * message, and packs them into the caller's buffer; nothing is allocated. The bounds that a
 * receiver would check are checked here first, so our own mistake is an error at its cause and not
 * a link that the other side closes.
 *
 * Sentences get cut to their field's size by whoever fills them, sometimes in the middle of a
 * character, and file names need not be UTF-8: such text is repaired with '?'. A stop string or the
 * name of a wanted model must not change, so there it is an error. */
#include "proto/message.h"

#include <math.h>
#include <string.h>

#include "mesh.pb-c.h"

enum { REPAIR_BYTES = 16 * 1024 }; /* more than all text of any message */

struct packer {
    uint8_t *out;
    size_t max_bytes, n_bytes;
    enum status status; /* the first failure */
    size_t repaired_bytes;
    char repaired[REPAIR_BYTES];
};

static void pack_fail(struct packer *p, enum status status)
{
    if (p->status == STATUS_OK)
        p->status = status;
}

static ProtobufCBinaryData put_bytes(const void *data, size_t n_bytes)
{
    return (ProtobufCBinaryData){.len = n_bytes, .data = (uint8_t *)(uintptr_t)data};
}

/* Text in a field of size bytes that must go as it is. */
static ProtobufCBinaryData put_exact(struct packer *p, const char *text, size_t size)
{
    size_t n = strnlen(text, size);

    if (n == size)
        pack_fail(p, STATUS_LIMIT);
    else if (!bytes_are_text((const uint8_t *)text, n))
        pack_fail(p, STATUS_FORMAT);
    return put_bytes(text, n < size ? n : 0);
}

/* Text for people. */
static ProtobufCBinaryData put_text(struct packer *p, const char *text, size_t size)
{
    const uint8_t *bytes = (const uint8_t *)text;
    size_t n = strnlen(text, size);
    char *copy = p->repaired + p->repaired_bytes;

    if (n == size || n > sizeof p->repaired - p->repaired_bytes) {
        pack_fail(p, STATUS_LIMIT);
        return put_bytes(NULL, 0);
    }
    if (bytes_are_text(bytes, n))
        return put_bytes(text, n);
    for (size_t i = 0; i < n;) {
        size_t sequence = bytes_utf8_sequence(bytes + i, n - i);

        memcpy(copy + i, sequence ? text + i : "?", sequence ? sequence : 1);
        i += sequence ? sequence : 1;
    }
    p->repaired_bytes += n;
    return put_bytes(copy, n);
}

static double put_finite(struct packer *p, double value)
{
    if (!isfinite(value))
        pack_fail(p, STATUS_FORMAT);
    return value;
}

static uint32_t put_count(struct packer *p, uint32_t n, uint32_t max)
{
    if (n > max)
        pack_fail(p, STATUS_LIMIT);
    return n > max ? 0 : n;
}

static Mesh__InstanceRef put_instance(const struct instance_ref *instance)
{
    Mesh__InstanceRef ref = MESH__INSTANCE_REF__INIT;

    ref.head = put_bytes(instance->head, sizeof instance->head);
    ref.number = instance->number;
    ref.epoch = instance->epoch;
    return ref;
}

static void pack_header(struct packer *p, Mesh__Header *header)
{
    size_t n;

    if (p->status != STATUS_OK)
        return;
    n = mesh__header__get_packed_size(header);
    if (n > p->max_bytes || n > PROTO_MAX_HEADER_BYTES)
        pack_fail(p, STATUS_LIMIT);
    else
        p->n_bytes = mesh__header__pack(header, p->out);
}

/* ---------------------------------------------------------------- one function a kind */

static Mesh__Holding put_holding(const struct holding *holding, Mesh__InstanceRef *ref)
{
    Mesh__Holding out = MESH__HOLDING__INIT;

    out.instance = ref;
    out.model_hash = put_bytes(holding->model_hash, sizeof holding->model_hash);
    out.bytes = holding->bytes;
    out.layer_begin = holding->layer_begin;
    out.layer_end = holding->layer_end;
    out.n_ctx_tokens = holding->n_ctx_tokens;
    out.idle_seconds = holding->idle_seconds;
    out.ready = holding->ready;
    return out;
}

static Mesh__ModelCard pack_model(struct packer *p, const struct model_card *model)
{
    Mesh__ModelCard out = MESH__MODEL_CARD__INIT;

    out.hash = put_bytes(model->hash, sizeof model->hash);
    out.name = put_text(p, model->name, sizeof model->name);
    out.file_bytes = model->file_bytes;
    out.architecture = put_text(p, model->architecture, sizeof model->architecture);
    out.types = put_text(p, model->types, sizeof model->types);
    out.n_layers = model->n_layers;
    out.n_ctx_train = model->n_ctx_train;
    return out;
}

static Mesh__RefusedModel pack_refused(struct packer *p, const struct refused_model *model)
{
    Mesh__RefusedModel out = MESH__REFUSED_MODEL__INIT;

    out.name = put_text(p, model->name, sizeof model->name);
    out.file_bytes = model->file_bytes;
    out.why = put_text(p, model->why, sizeof model->why);
    return out;
}

static void pack_card(struct packer *p, const struct node_card *card, Mesh__Header header)
{
    Mesh__NodeCard out = MESH__NODE_CARD__INIT;
    Mesh__ModelCard models[PROTO_MAX_MODELS], *model_list[PROTO_MAX_MODELS];
    Mesh__RefusedModel refused[PROTO_MAX_REFUSED], *refused_list[PROTO_MAX_REFUSED];
    ProtobufCBinaryData instances[PROTO_MAX_INSTANCES];
    Mesh__Holding holdings[PROTO_MAX_HOLDINGS], *holding_list[PROTO_MAX_HOLDINGS];
    Mesh__InstanceRef refs[PROTO_MAX_HOLDINGS];

    out.name = put_text(p, card->name, sizeof card->name);
    out.version = put_text(p, card->version, sizeof card->version);
    out.engine = put_text(p, card->engine, sizeof card->engine);
    out.isa = put_text(p, card->isa, sizeof card->isa);
    out.memory_bytes = card->memory_bytes;
    out.memory_free_bytes = card->memory_free_bytes;
    out.read_bytes_per_second = put_finite(p, card->read_bytes_per_second);
    out.flops_per_second = put_finite(p, card->flops_per_second);
    out.n_threads = card->n_threads;
    out.mesh_port = card->mesh_port;
    out.n_models = put_count(p, card->n_models, PROTO_MAX_MODELS);
    for (size_t i = 0; i < out.n_models; i++) {
        models[i] = pack_model(p, &card->models[i]);
        model_list[i] = &models[i];
    }
    out.models = model_list;
    out.n_instances = put_count(p, card->n_instances, PROTO_MAX_INSTANCES);
    for (size_t i = 0; i < out.n_instances; i++)
        instances[i] = put_bytes(card->instances[i], sizeof card->instances[i]);
    out.instances = instances;
    out.memory_leaving_bytes = card->memory_leaving_bytes;
    out.n_holdings = put_count(p, card->n_holdings, PROTO_MAX_HOLDINGS);
    for (size_t i = 0; i < out.n_holdings; i++) {
        refs[i] = put_instance(&card->holdings[i].instance);
        holdings[i] = put_holding(&card->holdings[i], &refs[i]);
        holding_list[i] = &holdings[i];
    }
    out.holdings = holding_list;
    out.n_refused = put_count(p, card->n_refused, PROTO_MAX_REFUSED);
    for (size_t i = 0; i < out.n_refused; i++) {
        refused[i] = pack_refused(p, &card->refused[i]);
        refused_list[i] = &refused[i];
    }
    out.refused = refused_list;
    header.card = &out;
    pack_header(p, &header);
}

static void pack_peers(struct packer *p, const struct message *m, Mesh__Header header)
{
    Mesh__Peers out = MESH__PEERS__INIT;
    Mesh__PeerAddress peers[PROTO_MAX_PEERS], *list[PROTO_MAX_PEERS];
    ProtobufCBinaryData addresses[PROTO_MAX_PEERS][PROTO_MAX_ADDRESSES];

    out.n_peers = put_count(p, m->peers.n, PROTO_MAX_PEERS);
    for (size_t i = 0; i < out.n_peers; i++) {
        const struct peer_address *item = &m->peers.items[i];

        peers[i] = (Mesh__PeerAddress)MESH__PEER_ADDRESS__INIT;
        peers[i].node_id = put_bytes(item->node_id, sizeof item->node_id);
        peers[i].n_addresses = put_count(p, item->n_addresses, PROTO_MAX_ADDRESSES);
        for (size_t k = 0; k < peers[i].n_addresses; k++)
            addresses[i][k] = put_exact(p, item->addresses[k], sizeof item->addresses[k]);
        peers[i].addresses = addresses[i];
        list[i] = &peers[i];
    }
    out.peers = list;
    header.peers = &out;
    pack_header(p, &header);
}

static void pack_prepare(struct packer *p, const struct message_prepare *prepare,
                         Mesh__Header header)
{
    Mesh__Prepare out = MESH__PREPARE__INIT;
    Mesh__InstanceRef instance = put_instance(&prepare->instance);
    Mesh__StageCard stages[PROTO_MAX_STAGES], *list[PROTO_MAX_STAGES];

    out.instance = &instance;
    out.model_hash = put_bytes(prepare->model_hash, sizeof prepare->model_hash);
    out.model_name = put_text(p, prepare->model_name, sizeof prepare->model_name);
    out.stage = prepare->stage;
    out.n_stages = put_count(p, prepare->n_stages, PROTO_MAX_STAGES);
    for (size_t i = 0; i < out.n_stages; i++) {
        const struct stage_card *stage = &prepare->stages[i];

        stages[i] = (Mesh__StageCard)MESH__STAGE_CARD__INIT;
        stages[i].node_id = put_bytes(stage->node_id, sizeof stage->node_id);
        stages[i].layer_begin = stage->layer_begin;
        stages[i].layer_end = stage->layer_end;
        list[i] = &stages[i];
    }
    out.stages = list;
    out.n_slots = prepare->n_slots;
    out.n_ctx_tokens = prepare->n_ctx_tokens;
    out.n_kv_blocks = prepare->n_kv_blocks;
    out.max_rows = put_count(p, prepare->max_rows, PROTO_MAX_ROWS);
    out.need_bytes = prepare->need_bytes;
    out.n_embd = put_count(p, prepare->n_embd, PROTO_MAX_EMBD);
    out.n_layers = put_count(p, prepare->n_layers, PROTO_MAX_LAYERS);
    out.kv_type = prepare->kv_type;
    out.quantize = prepare->quantize;
    out.mapped = prepare->mapped;
    header.prepare = &out;
    pack_header(p, &header);
}

static void pack_outcome(struct packer *p, const struct message_outcome *outcome,
                         Mesh__Header header)
{
    Mesh__Outcome out = MESH__OUTCOME__INIT;
    Mesh__InstanceRef instance = put_instance(&outcome->instance);

    out.instance = &instance;
    out.pass = outcome->pass;
    out.status = (uint32_t)outcome->status;
    out.text = put_text(p, outcome->text, sizeof outcome->text);
    out.memory_free_bytes = outcome->memory_free_bytes;
    /* These kinds share one C type, and the oneof is a union of pointers. */
    header.prepared = &out;
    pack_header(p, &header);
}

static void pack_close_idle(struct packer *p, const struct message_close_idle *m,
                            Mesh__Header header)
{
    Mesh__CloseIdle out = MESH__CLOSE_IDLE__INIT;
    Mesh__InstanceRef instance = put_instance(&m->instance);

    out.instance = &instance;
    out.want_bytes = m->want_bytes;
    out.for_model = put_text(p, m->for_model, sizeof m->for_model);
    header.close_idle = &out;
    pack_header(p, &header);
}

static void pack_instance(struct packer *p, const struct instance_ref *instance,
                          Mesh__Header header)
{
    Mesh__InstanceRef out = put_instance(instance);

    header.load = &out; /* or release: the same place */
    pack_header(p, &header);
}

_Static_assert(sizeof(struct pass_row) == 8 && sizeof(struct pass_clear) == 8,
               "rows and clears are packed as pairs of uint32");

static void pack_pass(struct packer *p, const struct message_pass *pass, Mesh__Header header)
{
    Mesh__Pass out = MESH__PASS__INIT;
    Mesh__InstanceRef instance = put_instance(&pass->instance);

    out.instance = &instance;
    out.pass = pass->pass;
    out.stage = pass->stage;
    out.n_rows = 2 * (size_t)put_count(p, pass->n_rows, PROTO_MAX_ROWS);
    out.rows = (uint32_t *)(uintptr_t)pass->rows;
    out.n_clears = 2 * (size_t)put_count(p, pass->n_clears, PROTO_MAX_CLEARS);
    out.clears = (uint32_t *)(uintptr_t)pass->clears;
    header.pass = &out;
    pack_header(p, &header);
}

/* What the sampler does to logits; the arrays are the caller's and hold PROTO_MAX_BIASES. */
static void put_shaping(struct packer *p, const struct request_spec *spec, Mesh__RequestSpec *to,
                        uint32_t *bias_ids, float *bias_values)
{
    to->typical_p = (float)put_finite(p, (double)spec->typical_p);
    to->frequency_penalty = (float)put_finite(p, (double)spec->frequency_penalty);
    to->presence_penalty = (float)put_finite(p, (double)spec->presence_penalty);
    to->dry_multiplier = (float)put_finite(p, (double)spec->dry_multiplier);
    to->dry_base = (float)put_finite(p, (double)spec->dry_base);
    to->dry_allowed_length = spec->dry_allowed_length;
    to->dry_last_n = spec->dry_last_n;
    to->xtc_probability = (float)put_finite(p, (double)spec->xtc_probability);
    to->xtc_threshold = (float)put_finite(p, (double)spec->xtc_threshold);
    to->open_settings = spec->open_settings;
    to->n_bias_ids = to->n_bias_values = put_count(p, spec->n_biases, PROTO_MAX_BIASES);
    for (size_t i = 0; i < to->n_bias_ids; i++) {
        bias_ids[i] = spec->biases[i].id;
        bias_values[i] = (float)put_finite(p, (double)spec->biases[i].bias);
    }
    to->bias_ids = bias_ids;
    to->bias_values = bias_values;
}

static void pack_submit(struct packer *p, const struct message_submit *submit, Mesh__Header header)
{
    const struct request_spec *spec = &submit->spec;
    Mesh__Submit out = MESH__SUBMIT__INIT;
    Mesh__RequestSpec to = MESH__REQUEST_SPEC__INIT;
    ProtobufCBinaryData stops[PROTO_MAX_STOPS];
    uint32_t bias_ids[PROTO_MAX_BIASES];
    float bias_values[PROTO_MAX_BIASES];

    to.kind = (Mesh__RequestKind)put_count(p, (uint32_t)spec->kind, REQUEST_TEXT);
    to.model = put_exact(p, spec->model, sizeof spec->model);
    to.max_tokens = spec->max_tokens;
    to.temperature = (float)put_finite(p, (double)spec->temperature);
    to.top_p = (float)put_finite(p, (double)spec->top_p);
    to.min_p = (float)put_finite(p, (double)spec->min_p);
    to.repeat_penalty = (float)put_finite(p, (double)spec->repeat_penalty);
    to.top_k = spec->top_k;
    to.repeat_last_n = spec->repeat_last_n;
    to.seed = spec->seed;
    to.ignore_end = spec->ignore_end;
    to.n_stops = put_count(p, spec->n_stops, PROTO_MAX_STOPS);
    for (size_t i = 0; i < to.n_stops; i++)
        stops[i] = put_exact(p, spec->stops[i], sizeof spec->stops[i]);
    to.stops = stops;
    put_shaping(p, spec, &to, bias_ids, bias_values);
    out.request = submit->request;
    out.spec = &to;
    header.submit = &out;
    pack_header(p, &header);
}

static void pack_accepted(struct packer *p, const struct message_accepted *accepted,
                          Mesh__Header header)
{
    Mesh__Accepted out = MESH__ACCEPTED__INIT;

    out.request = accepted->request;
    out.n_prompt = accepted->n_prompt;
    out.seed = accepted->seed;
    header.accepted = &out;
    pack_header(p, &header);
}

static void pack_tokens(struct packer *p, const struct message_tokens *tokens, Mesh__Header header)
{
    Mesh__Tokens out = MESH__TOKENS__INIT;

    out.request = tokens->request;
    out.index = tokens->index;
    out.n_tokens = tokens->n_tokens;
    header.tokens = &out;
    pack_header(p, &header);
}

static void pack_done(struct packer *p, const struct message_done *done, Mesh__Header header)
{
    Mesh__Done out = MESH__DONE__INIT;

    out.request = done->request;
    out.end = (Mesh__RequestEnd)put_count(p, (uint32_t)done->end, REQUEST_END_CANCELLED);
    out.status = (uint32_t)done->status;
    out.text = put_text(p, done->text, sizeof done->text);
    out.n_prompt = done->n_prompt;
    out.n_generated = done->n_generated;
    out.n_stages = done->n_stages;
    out.prefill_seconds = put_finite(p, done->prefill_seconds);
    out.decode_seconds = put_finite(p, done->decode_seconds);
    out.notice = put_text(p, done->notice, sizeof done->notice);
    header.done = &out;
    pack_header(p, &header);
}

static void pack_number(struct packer *p, uint64_t number, Mesh__Header header)
{
    header.ping = number; /* or pong, or cancel: the same place */
    pack_header(p, &header);
}

static void pack_body(struct packer *p, const struct message *m)
{
    Mesh__Header header = MESH__HEADER__INIT;

    header.body_case = (Mesh__Header__BodyCase)m->kind; /* the same numbers: mesh.proto */
    switch (m->kind) {
    case MESSAGE_CARD:
        return pack_card(p, &m->card, header);
    case MESSAGE_PING:
    case MESSAGE_PONG:
        return pack_number(p, m->stamp_us, header);
    case MESSAGE_PEERS:
        return pack_peers(p, m, header);
    case MESSAGE_PREPARE:
        return pack_prepare(p, &m->prepare, header);
    case MESSAGE_PREPARED:
    case MESSAGE_LOADED:
    case MESSAGE_PASS_FAILED:
    case MESSAGE_IDLE_CLOSED:
        return pack_outcome(p, &m->outcome, header);
    case MESSAGE_LOAD:
    case MESSAGE_RELEASE:
        return pack_instance(p, &m->instance, header);
    case MESSAGE_PASS:
        return pack_pass(p, &m->pass, header);
    case MESSAGE_SUBMIT:
        return pack_submit(p, &m->submit, header);
    case MESSAGE_ACCEPTED:
        return pack_accepted(p, &m->accepted, header);
    case MESSAGE_TOKENS:
        return pack_tokens(p, &m->tokens, header);
    case MESSAGE_DONE:
        return pack_done(p, &m->done, header);
    case MESSAGE_CANCEL:
        return pack_number(p, m->request, header);
    case MESSAGE_CLOSE_IDLE:
        return pack_close_idle(p, &m->close_idle, header);
    case MESSAGE_KIND_LIMIT:
        break;
    }
    pack_fail(p, STATUS_LIMIT);
}

enum status message_pack(const struct message *m, uint8_t *out, size_t max_bytes, size_t *out_bytes)
{
    struct packer p; /* most of it is scratch, not worth zeroing for every message */

    p.out = out;
    p.max_bytes = max_bytes;
    p.n_bytes = p.repaired_bytes = 0;
    p.status = STATUS_OK;
    if (message_check_payload(m, m->payload_bytes, NULL) != STATUS_OK)
        return STATUS_LIMIT;
    pack_body(&p, m);
    *out_bytes = p.n_bytes;
    return p.status;
}
