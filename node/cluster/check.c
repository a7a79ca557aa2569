/* Bounds of everything that a peer can put into a message.
 *
 * The codec has its limits too; this is the second lock on the same door, so that the machines
 * behind it may trust every count, every string's end and every number they compute with. A message
 * that breaks a bound closes its link: a node of our own version never sends one. */
#include "node/cluster/inner.h"

#include <math.h>
#include <string.h>

enum { MAX_TENSOR_TYPE = 255 };              /* the shard knows which there are */
#define MAX_MEMORY_BYTES (UINT64_C(1) << 56) /* sums of many do not overflow */
#define END(text)        ((text)[sizeof(text) - 1] = '\0')

static double positive(double v)
{
    return isfinite(v) && v > 0 ? v : 0;
}

static bool holding_is_sound(const struct holding *holding, uint64_t memory_bytes)
{
    return holding->bytes <= memory_bytes && holding->layer_begin <= holding->layer_end &&
           holding->layer_end <= PLAN_MAX_LAYERS && holding->n_ctx_tokens <= MAX_CTX_TOKENS;
}

enum status card_check(struct node_card *card)
{
    END(card->name);
    END(card->version);
    END(card->engine);
    END(card->isa);
    if (card->n_models > PROTO_MAX_MODELS || card->n_instances > PROTO_MAX_INSTANCES ||
        card->n_holdings > PROTO_MAX_HOLDINGS || card->n_refused > PROTO_MAX_REFUSED)
        return STATUS_LIMIT;
    for (uint32_t i = 0; i < card->n_models; i++) {
        END(card->models[i].name);
        END(card->models[i].architecture);
        END(card->models[i].types);
    }
    for (uint32_t i = 0; i < card->n_refused; i++) {
        END(card->refused[i].name);
        END(card->refused[i].why);
    }
    card->read_bytes_per_second = positive(card->read_bytes_per_second);
    card->flops_per_second = positive(card->flops_per_second);
    if (card->memory_bytes > MAX_MEMORY_BYTES)
        card->memory_bytes = MAX_MEMORY_BYTES;
    for (uint32_t i = 0; i < card->n_holdings; i++)
        if (!holding_is_sound(&card->holdings[i], card->memory_bytes))
            return STATUS_LIMIT;
    if (card->memory_free_bytes > card->memory_bytes)
        card->memory_free_bytes = card->memory_bytes;
    return STATUS_OK;
}

static enum status peers_check(struct message *m)
{
    if (m->peers.n > PROTO_MAX_PEERS)
        return STATUS_LIMIT;
    for (uint32_t i = 0; i < m->peers.n; i++) {
        struct peer_address *peer = &m->peers.items[i];

        if (peer->n_addresses > PROTO_MAX_ADDRESSES)
            return STATUS_LIMIT;
        for (uint32_t k = 0; k < peer->n_addresses; k++)
            END(peer->addresses[k]);
    }
    return STATUS_OK;
}

static enum status prepare_check(struct message_prepare *p)
{
    uint32_t at = 0;

    END(p->model_name);
    if (p->n_stages < 2 || p->n_stages > PROTO_MAX_STAGES || p->stage < 1 ||
        p->stage >= p->n_stages || p->n_layers < 1 || p->n_layers > PLAN_MAX_LAYERS)
        return STATUS_LIMIT;
    for (uint32_t i = 0; i < p->n_stages; i++) { /* a head may hold no layer, a stage must */
        if (p->stages[i].layer_begin != at || p->stages[i].layer_end < at + (i > 0) ||
            p->stages[i].layer_end > p->n_layers)
            return STATUS_LIMIT;
        at = p->stages[i].layer_end;
    }
    if (at != p->n_layers || p->n_slots < 1 || p->n_slots > SCHEDULER_MAX_SLOTS ||
        p->n_ctx_tokens < 1 || p->n_ctx_tokens > MAX_CTX_TOKENS || p->n_kv_blocks < 1 ||
        p->n_kv_blocks > MAX_CTX_TOKENS || p->max_rows < 1 || p->max_rows > PROTO_MAX_ROWS ||
        p->kv_type >= KV_TYPE_COUNT || p->quantize > MAX_TENSOR_TYPE || p->n_embd < 1 ||
        p->n_embd > PROTO_MAX_PAYLOAD_BYTES / sizeof(float) / p->max_rows)
        return STATUS_LIMIT;
    return STATUS_OK;
}

/* Of the fields that came later; their zero is always right. */
static enum status shaping_check(const struct request_spec *spec, struct fault *fault)
{
    const struct {
        const char *name;
        double value, low, high;
    } ranges[] = {
        {"typical_p", (double)spec->typical_p, 0, 1},
        {"frequency_penalty", (double)spec->frequency_penalty, -100, 100},
        {"presence_penalty", (double)spec->presence_penalty, -100, 100},
        {"dry_multiplier", (double)spec->dry_multiplier, 0, 100},
        {"dry_base", (double)spec->dry_base, 0, 100},
        {"dry_last_n", (double)spec->dry_last_n, 0, PROTO_MAX_HISTORY},
        {"xtc_probability", (double)spec->xtc_probability, 0, 1},
        {"xtc_threshold", (double)spec->xtc_threshold, 0, 1},
    };

    for (size_t i = 0; i < COUNT_OF(ranges); i++)
        if (!(ranges[i].value >= ranges[i].low && ranges[i].value <= ranges[i].high)) /* or NaN */
            return fault_set(fault, STATUS_INVALID, "%s must lie between %g and %g", ranges[i].name,
                             ranges[i].low, ranges[i].high);
    if (spec->n_biases > PROTO_MAX_BIASES)
        return fault_set(fault, STATUS_INVALID, "logit_bias names %u tokens, at most %d can be had",
                         spec->n_biases, PROTO_MAX_BIASES);
    for (uint32_t i = 0; i < spec->n_biases; i++)
        if (!(fabs((double)spec->biases[i].bias) <= 100))
            return fault_set(fault, STATUS_INVALID, "logit_bias must lie between -100 and 100");
    return STATUS_OK;
}

enum status spec_check(struct request_spec *spec, struct fault *fault)
{
    END(spec->model);
    if ((spec->kind != REQUEST_CHAT && spec->kind != REQUEST_TEXT) ||
        spec->n_stops > PROTO_MAX_STOPS)
        return fault_set(fault, STATUS_INVALID, "at most %d stop strings", PROTO_MAX_STOPS);
    for (uint32_t i = 0; i < spec->n_stops; i++)
        END(spec->stops[i]);
    if (!isfinite(spec->temperature) || spec->temperature < 0)
        return fault_set(fault, STATUS_INVALID, "temperature must be 0 or more");
    if (!isfinite(spec->top_p) || spec->top_p < 0 || spec->top_p > 1 || !isfinite(spec->min_p) ||
        spec->min_p < 0 || spec->min_p > 1)
        return fault_set(fault, STATUS_INVALID, "top_p and min_p must lie between 0 and 1");
    if (!isfinite(spec->repeat_penalty) || spec->repeat_penalty <= 0)
        return fault_set(fault, STATUS_INVALID, "repeat_penalty must be more than 0");
    if (spec->repeat_last_n > PROTO_MAX_HISTORY)
        return fault_set(fault, STATUS_INVALID, "repeat_last_n is %u, at most %d can be had",
                         spec->repeat_last_n, PROTO_MAX_HISTORY);
    return shaping_check(spec, fault);
}

static enum status ids_check(const struct message *m, uint32_t n)
{
    return m->payload_bytes / sizeof(uint32_t) >= n && (n == 0 || m->payload) ? STATUS_OK
                                                                              : STATUS_FORMAT;
}

enum status message_check(struct message *m)
{
    if (m->payload_bytes && !m->payload)
        return STATUS_FORMAT;
    switch (m->kind) {
    case MESSAGE_CARD:
        return card_check(&m->card);
    case MESSAGE_PEERS:
        return peers_check(m);
    case MESSAGE_PREPARE:
        return prepare_check(&m->prepare);
    case MESSAGE_PREPARED:
    case MESSAGE_LOADED:
    case MESSAGE_PASS_FAILED:
    case MESSAGE_IDLE_CLOSED:
        END(m->outcome.text);
        m->outcome.status = status_from_number((unsigned)m->outcome.status);
        return STATUS_OK;
    case MESSAGE_PASS:
        return m->pass.n_rows <= PROTO_MAX_ROWS && m->pass.n_clears <= PROTO_MAX_CLEARS
                   ? STATUS_OK
                   : STATUS_LIMIT;
    case MESSAGE_SUBMIT: /* values that a user chose are answered, not punished: see work_submit */
        return m->payload_bytes <= PROTO_MAX_PROMPT_BYTES ? STATUS_OK : STATUS_LIMIT;
    case MESSAGE_ACCEPTED:
        return ids_check(m, m->accepted.n_prompt);
    case MESSAGE_TOKENS:
        return ids_check(m, m->tokens.n_tokens);
    case MESSAGE_DONE:
        END(m->done.text);
        END(m->done.notice);
        m->done.status = status_from_number((unsigned)m->done.status);
        return m->done.end <= REQUEST_END_CANCELLED ? STATUS_OK : STATUS_LIMIT;
    case MESSAGE_CLOSE_IDLE:
        END(m->close_idle.for_model);
        return STATUS_OK;
    case MESSAGE_PING:
    case MESSAGE_PONG:
    case MESSAGE_LOAD:
    case MESSAGE_RELEASE:
    case MESSAGE_CANCEL:
        return STATUS_OK;
    default:
        return STATUS_UNSUPPORTED;
    }
}
