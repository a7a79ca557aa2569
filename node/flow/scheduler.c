/* Continuous batching at the head.
 *
 * Every pass first takes the sequences that are ready for their next token, one row each, then
 * fills up with chunks of prompts. Up to one pass per stage is on its way, so that all stages work
 * at once: the ready sequences are therefore dealt over n_stages groups instead of all going into
 * one pass, while the chunks of one long prompt follow each other down the line. While others
 * decode, prompts get at most CHUNK_ROWS rows of a pass, so that one long prompt freezes nobody.
 *
 *   WAITING ──slot and KV blocks free──► PREFILL ──last chunk placed──► DECODE ⟲ push
 *      │                                   │                              │
 *      └───────────── scheduler_remove ────┴───────────┬──────────────────┘
 *                                    passes under way? ┤
 *                                     DRAINING ◄──yes──┴──no──► ENDED
 *
 * KV memory is counted in blocks, and a sequence is let in only when the blocks for the longest
 * that it can become are free: it can never run out half way. The line is first come, first served,
 * so that a big prompt is not starved by small ones.
 *
 * A freed slot must be forgotten by every stage before its next use. The order to do so rides in
 * the next pass, ahead of the rows; passes keep their order along the line, so slot and blocks can
 * be given away at once. If no pass comes within clear_after_us, one without rows carries it.
 *
 * Only the last row of a prompt and every decode row are sampled. Nothing here allocates after
 * scheduler_new. What can fail: a sequence that is longer than the whole KV budget (NO_ROOM). */
#include "node/flow/scheduler.h"

#include <assert.h>
#include <string.h>

enum { CHUNK_ROWS = 128 };

static const char *const sequence_names[] = {"new",    "waiting",  "prefill",
                                             "decode", "draining", "ended"};
static const uint32_t sequence_allowed[] = {
    [SEQUENCE_NEW] = SM_TO(SEQUENCE_WAITING),
    [SEQUENCE_WAITING] = SM_TO(SEQUENCE_PREFILL) | SM_TO(SEQUENCE_ENDED),
    [SEQUENCE_PREFILL] = SM_TO(SEQUENCE_DECODE) | SM_TO(SEQUENCE_DRAINING) | SM_TO(SEQUENCE_ENDED),
    [SEQUENCE_DECODE] = SM_TO(SEQUENCE_DRAINING) | SM_TO(SEQUENCE_ENDED),
    [SEQUENCE_DRAINING] = SM_TO(SEQUENCE_ENDED),
    [SEQUENCE_ENDED] = 0,
};
static const struct sm_table sequence_table = {"sequence", sequence_names, sequence_allowed,
                                               COUNT_OF(sequence_names)};

struct flight {
    uint64_t number; /* 0: free */
    uint32_t n_parts;
    struct sequence *parts[SCHEDULER_MAX_SLOTS];
};

struct scheduler {
    struct scheduler_options options;
    struct sequence *slots[SCHEDULER_MAX_SLOTS];
    struct sequence *waiting, **waiting_end;
    uint32_t n_waiting, n_running, n_free_blocks, n_flights;
    uint32_t turn;   /* the slot that comes first in the next pass */
    uint64_t clears; /* bit per slot */
    uint64_t clear_due_us;
    struct flight flights[PROTO_MAX_STAGES];
};

enum status scheduler_new(const struct scheduler_options *options, struct scheduler **out)
{
    struct scheduler *s = MEM_NEW(struct scheduler);

    if (!s)
        return STATUS_NO_MEMORY;
    assert(options->n_slots >= 1 && options->n_slots <= SCHEDULER_MAX_SLOTS);
    assert(options->max_rows >= 1 && options->max_rows <= PROTO_MAX_ROWS);
    assert(options->n_stages >= 1 && options->n_stages <= PROTO_MAX_STAGES);
    s->options = *options;
    s->n_free_blocks = options->n_kv_blocks;
    s->waiting_end = &s->waiting;
    s->clear_due_us = UINT64_MAX;
    *out = s;
    return STATUS_OK;
}

void scheduler_free(struct scheduler **scheduler)
{
    mem_free(*scheduler);
    *scheduler = NULL;
}

static uint32_t blocks_of(uint32_t n_tokens)
{
    return n_tokens / SHARD_KV_BLOCK_TOKENS + (n_tokens % SHARD_KV_BLOCK_TOKENS != 0);
}

enum status scheduler_add(struct scheduler *s, struct sequence *q)
{
    q->n_blocks = blocks_of(q->capacity);
    if (q->n_blocks > s->options.n_kv_blocks)
        return STATUS_NO_ROOM;
    assert(q->n_prompt >= 1 && q->n_prompt == q->n_tokens && q->n_prompt <= q->capacity);
    sm_move(&sequence_table, &q->state, SEQUENCE_WAITING);
    q->next = NULL;
    *s->waiting_end = q;
    s->waiting_end = &q->next;
    s->n_waiting++;
    return STATUS_OK;
}

static void unlink_waiting(struct scheduler *s, struct sequence *q)
{
    struct sequence **at = &s->waiting;

    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
    if (!*at)
        s->waiting_end = at;
    q->next = NULL;
    s->n_waiting--;
}

void scheduler_clear_slot(struct scheduler *s, uint32_t slot, uint64_t now_us)
{
    if (!s->clears)
        s->clear_due_us = now_us + s->options.clear_after_us;
    s->clears |= UINT64_C(1) << slot;
}

static void give_slot_back(struct scheduler *s, struct sequence *q, uint64_t now_us)
{
    s->slots[q->slot] = NULL;
    s->n_free_blocks += q->n_blocks;
    s->n_running--;
    if (q->n_placed)
        scheduler_clear_slot(s, q->slot, now_us);
    sm_move(&sequence_table, &q->state, SEQUENCE_ENDED);
}

bool scheduler_remove(struct scheduler *s, struct sequence *q, uint64_t now_us)
{
    if (q->state == SEQUENCE_WAITING) {
        unlink_waiting(s, q);
        sm_move(&sequence_table, &q->state, SEQUENCE_ENDED);
    } else if (q->state == SEQUENCE_PREFILL || q->state == SEQUENCE_DECODE) {
        if (q->n_flights)
            sm_move(&sequence_table, &q->state, SEQUENCE_DRAINING);
        else
            give_slot_back(s, q, now_us);
    }
    return q->state != SEQUENCE_DRAINING;
}

void scheduler_push(struct scheduler *s, struct sequence *q, uint32_t token)
{
    (void)s;
    assert(q->state == SEQUENCE_DECODE && q->n_tokens < q->capacity);
    q->tokens[q->n_tokens++] = token;
}

static void admit(struct scheduler *s)
{
    struct sequence *q = s->waiting;
    uint32_t slot = 0;

    while (q && q->n_blocks <= s->n_free_blocks) {
        while (slot < s->options.n_slots && s->slots[slot])
            slot++;
        if (slot == s->options.n_slots)
            return;
        unlink_waiting(s, q);
        q->slot = slot;
        s->slots[slot] = q;
        s->n_free_blocks -= q->n_blocks;
        s->n_running++;
        sm_move(&sequence_table, &q->state, SEQUENCE_PREFILL);
        q = s->waiting;
    }
}

/* ---------------------------------------------------------------- one pass */

/* How many of the last tokens the sampler will look at. */
static uint32_t history_of(const struct sequence *q)
{
    const struct sample_params *params = &q->params;
    uint32_t n = 0;

    if (params->repeat_penalty != 1.0f || params->frequency_penalty != 0.0f ||
        params->presence_penalty != 0.0f)
        n = params->repeat_last_n;
    if (params->dry_multiplier > 0.0f && (!params->dry_last_n || params->dry_last_n > n))
        n = params->dry_last_n ? params->dry_last_n : PROTO_MAX_HISTORY;
    n = n < PROTO_MAX_HISTORY ? n : PROTO_MAX_HISTORY;
    return n < q->n_tokens ? n : q->n_tokens;
}

/* Everything is copied: the sequence may be gone before the pass is. */
static void add_sample(struct control_pass *pass, const struct sequence *q, uint32_t row)
{
    struct sample_job *job = &pass->samples[pass->n_samples++];
    uint32_t n = history_of(q);

    job->row = row;
    job->sequence = q->key;
    job->params = q->params;
    job->position = q->n_tokens;
    job->n_history = n;
    if (n)
        memcpy(job->history, q->tokens + (q->n_tokens - n), n * sizeof *job->history);
    job->params.biases = job->biases;
    if (q->params.n_biases)
        memcpy(job->biases, q->params.biases, q->params.n_biases * sizeof *job->biases);
}

/* The next n rows of a sequence; the last known token's row is sampled. */
static void add_rows(struct control_pass *pass, struct flight *flight, struct sequence *q,
                     uint32_t n)
{
    struct message_pass *m = &pass->message->pass;

    for (uint32_t i = 0; i < n; i++) {
        pass->tokens[m->n_rows] = q->tokens[q->n_placed];
        m->rows[m->n_rows++] = (struct pass_row){.slot = q->slot, .pos = q->n_placed++};
    }
    if (q->n_placed == q->n_tokens)
        add_sample(pass, q, m->n_rows - 1);
    flight->parts[flight->n_parts++] = q;
    q->n_flights++;
}

static struct sequence *slot_in_turn(const struct scheduler *s, uint32_t i)
{
    return s->slots[(s->turn + i) % s->options.n_slots];
}

static bool is_ready(const struct sequence *q)
{
    return q && q->state == SEQUENCE_DECODE && q->n_placed < q->n_tokens;
}

/* One row for each ready sequence, at most its group's share. Returns how many sequences decode. */
static uint32_t add_decodes(struct scheduler *s, struct control_pass *pass, struct flight *flight)
{
    uint32_t n_decoding = 0, share, last = s->turn;

    for (uint32_t i = 0; i < s->options.n_slots; i++)
        n_decoding += s->slots[i] && s->slots[i]->state == SEQUENCE_DECODE;
    share = (n_decoding + s->options.n_stages - 1) / s->options.n_stages;
    for (uint32_t i = 0; i < s->options.n_slots && share; i++) {
        struct sequence *q = slot_in_turn(s, i);

        if (!is_ready(q) || pass->message->pass.n_rows == s->options.max_rows)
            continue;
        add_rows(pass, flight, q, 1);
        last = q->slot + 1;
        share--;
    }
    s->turn = last < s->options.n_slots ? last : 0;
    return n_decoding;
}

static void add_prefills(struct scheduler *s, struct control_pass *pass, struct flight *flight,
                         uint32_t n_decoding)
{
    uint32_t budget = s->options.max_rows - pass->message->pass.n_rows;

    if (n_decoding && budget > CHUNK_ROWS)
        budget = CHUNK_ROWS;
    for (uint32_t i = 0; i < s->options.n_slots && budget; i++) {
        struct sequence *q = slot_in_turn(s, i);
        uint32_t n;

        if (!q || q->state != SEQUENCE_PREFILL)
            continue;
        n = q->n_prompt - q->n_placed;
        n = n < budget ? n : budget;
        add_rows(pass, flight, q, n);
        budget -= n;
        if (q->n_placed == q->n_prompt)
            sm_move(&sequence_table, &q->state, SEQUENCE_DECODE);
    }
}

static void add_clears(struct scheduler *s, struct message_pass *m)
{
    for (uint32_t slot = 0; slot < s->options.n_slots; slot++)
        if (s->clears >> slot & 1)
            m->clears[m->n_clears++] = (struct pass_clear){.slot = slot, .from = 0};
    s->clears = 0;
    s->clear_due_us = UINT64_MAX;
}

bool scheduler_fill(struct scheduler *s, uint64_t now_us, struct control_pass *pass)
{
    struct message_pass *m = &pass->message->pass;
    struct flight *flight = s->flights;

    if (s->n_flights == s->options.n_stages)
        return false;
    while (flight->number)
        flight++;
    flight->n_parts = 0;
    m->n_rows = m->n_clears = pass->n_samples = 0;
    admit(s);
    add_prefills(s, pass, flight, add_decodes(s, pass, flight));
    if (m->n_rows || now_us >= s->clear_due_us)
        add_clears(s, m);
    if (!m->n_rows && !m->n_clears)
        return false;
    assert(m->pass != 0);
    flight->number = m->pass;
    s->n_flights++;
    return true;
}

void scheduler_pass_done(struct scheduler *s, uint64_t number, uint64_t now_us)
{
    for (uint32_t i = 0; i < s->options.n_stages; i++) {
        struct flight *flight = &s->flights[i];

        if (flight->number != number)
            continue;
        flight->number = 0;
        s->n_flights--;
        for (uint32_t k = 0; k < flight->n_parts; k++) {
            struct sequence *q = flight->parts[k];

            if (--q->n_flights == 0 && q->state == SEQUENCE_DRAINING)
                give_slot_back(s, q, now_us);
        }
        return;
    }
}

/* ---------------------------------------------------------------- questions */

uint64_t scheduler_wake_us(const struct scheduler *s)
{
    return s->n_flights < s->options.n_stages ? s->clear_due_us : UINT64_MAX;
}

uint32_t scheduler_n_waiting(const struct scheduler *s)
{
    return s->n_waiting;
}

uint32_t scheduler_n_running(const struct scheduler *s)
{
    return s->n_running;
}

uint32_t scheduler_free_blocks(const struct scheduler *s)
{
    return s->n_free_blocks;
}

uint32_t scheduler_n_flights(const struct scheduler *s)
{
    return s->n_flights;
}

bool scheduler_idle(const struct scheduler *s)
{
    return !s->n_running && !s->n_waiting && !s->n_flights && !s->clears;
}
