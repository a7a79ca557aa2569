#ifndef SKEIN_TESTS_UNIT_PROTO_MESSAGES_H
#define SKEIN_TESTS_UNIT_PROTO_MESSAGES_H

/* Messages of every kind for tests: filled to the brim, or almost empty. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/message.h"

static inline void fill_bytes(uint8_t *out, size_t n, unsigned salt)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)(salt + 7 * i);
}

/* As much text as fits, with a two-byte character at its end. */
static inline void fill_text(char *out, size_t size, unsigned salt)
{
    for (size_t i = 0; i + 1 < size; i++)
        out[i] = (char)('a' + (salt + i) % 26);
    out[size - 1] = 0;
    if (size > 3)
        memcpy(out + size - 3, "\xc3\xa9", 3);
}

static inline void fill_instance(struct instance_ref *ref)
{
    fill_bytes(ref->head, sizeof ref->head, 3);
    ref->number = UINT64_MAX;
    ref->epoch = UINT32_MAX;
}

static inline void fill_payload(struct message *m, size_t n_bytes)
{
    m->payload = mem_aligned(64, n_bytes, 1);
    assert_non_null(m->payload);
    m->payload_bytes = n_bytes;
    fill_bytes(m->payload, n_bytes, 11);
}

static inline void fill_card(struct node_card *card)
{
    fill_text(card->name, sizeof card->name, 1);
    fill_text(card->version, sizeof card->version, 2);
    fill_text(card->engine, sizeof card->engine, 3);
    fill_text(card->isa, sizeof card->isa, 4);
    card->memory_bytes = UINT64_MAX;
    card->memory_free_bytes = UINT64_MAX - 1;
    card->read_bytes_per_second = 1.5e300;
    card->flops_per_second = 4.9e-300;
    card->n_threads = UINT32_MAX;
    card->mesh_port = UINT16_MAX;
    card->n_models = PROTO_MAX_MODELS;
    for (unsigned i = 0; i < PROTO_MAX_MODELS; i++) {
        fill_bytes(card->models[i].hash, PROTO_HASH_BYTES, i);
        fill_text(card->models[i].name, PROTO_MAX_MODEL_NAME, i);
        card->models[i].file_bytes = UINT64_MAX - i;
        fill_text(card->models[i].architecture, sizeof card->models[i].architecture, i);
        fill_text(card->models[i].types, sizeof card->models[i].types, i);
        card->models[i].n_layers = UINT32_MAX - i;
        card->models[i].n_ctx_train = UINT32_MAX - 1 - i;
    }
    card->n_refused = PROTO_MAX_REFUSED;
    for (unsigned i = 0; i < PROTO_MAX_REFUSED; i++) {
        fill_text(card->refused[i].name, PROTO_MAX_MODEL_NAME, i);
        fill_text(card->refused[i].why, PROTO_MAX_WHY, i);
        card->refused[i].file_bytes = UINT64_MAX - i;
    }
    card->n_instances = PROTO_MAX_INSTANCES;
    for (unsigned i = 0; i < PROTO_MAX_INSTANCES; i++)
        fill_bytes(card->instances[i], PROTO_HASH_BYTES, 100 + i);
    card->memory_leaving_bytes = UINT64_MAX - 2;
    card->n_holdings = PROTO_MAX_HOLDINGS;
    for (unsigned i = 0; i < PROTO_MAX_HOLDINGS; i++) {
        struct holding *holding = &card->holdings[i];

        fill_instance(&holding->instance);
        fill_bytes(holding->model_hash, PROTO_HASH_BYTES, 50 + i);
        holding->bytes = UINT64_MAX - 3 * i;
        holding->layer_begin = UINT32_MAX - 2;
        holding->layer_end = UINT32_MAX - 1;
        holding->n_ctx_tokens = holding->idle_seconds = UINT32_MAX - i;
        holding->ready = true;
    }
}

static inline void fill_prepare(struct message_prepare *prepare)
{
    fill_instance(&prepare->instance);
    fill_bytes(prepare->model_hash, PROTO_HASH_BYTES, 9);
    fill_text(prepare->model_name, sizeof prepare->model_name, 5);
    prepare->stage = PROTO_MAX_STAGES - 1;
    prepare->n_stages = PROTO_MAX_STAGES;
    for (unsigned i = 0; i < PROTO_MAX_STAGES; i++) {
        fill_bytes(prepare->stages[i].node_id, PROTO_ID_BYTES, 40 + i);
        prepare->stages[i].layer_begin = UINT32_MAX - 1;
        prepare->stages[i].layer_end = UINT32_MAX;
    }
    prepare->n_slots = prepare->n_ctx_tokens = prepare->n_kv_blocks = UINT32_MAX;
    prepare->n_embd = PROTO_MAX_EMBD;
    prepare->n_layers = PROTO_MAX_LAYERS;
    prepare->max_rows = PROTO_MAX_ROWS;
    prepare->need_bytes = UINT64_MAX;
    prepare->kv_type = UINT32_MAX - 3;
    prepare->quantize = UINT32_MAX - 4;
    prepare->mapped = true;
}

static inline void fill_submit(struct message_submit *submit)
{
    struct request_spec *spec = &submit->spec;

    submit->request = UINT64_MAX;
    spec->kind = REQUEST_TEXT;
    fill_text(spec->model, sizeof spec->model, 6);
    spec->max_tokens = spec->top_k = spec->repeat_last_n = UINT32_MAX;
    spec->temperature = 0.7f;
    spec->top_p = 0.9f;
    spec->min_p = 3.0e-38f;
    spec->repeat_penalty = 3.0e38f;
    spec->seed = UINT64_MAX;
    spec->ignore_end = true;
    spec->n_stops = PROTO_MAX_STOPS;
    for (unsigned i = 0; i < PROTO_MAX_STOPS; i++)
        fill_text(spec->stops[i], PROTO_MAX_STOP_BYTES, i);
    spec->typical_p = 0.25f;
    spec->frequency_penalty = -1.5f;
    spec->presence_penalty = 1.25f;
    spec->dry_multiplier = 0.8f;
    spec->dry_base = 1.7f;
    spec->dry_allowed_length = UINT32_MAX - 1;
    spec->dry_last_n = UINT32_MAX - 2;
    spec->xtc_probability = 0.5f;
    spec->xtc_threshold = 0.1f;
    spec->open_settings = UINT32_MAX - 3;
    spec->n_biases = PROTO_MAX_BIASES;
    for (unsigned i = 0; i < PROTO_MAX_BIASES; i++)
        spec->biases[i] = (struct token_bias){UINT32_MAX - i, 1.0f / (float)(i + 1)};
}

static inline void fill_done(struct message_done *done)
{
    done->request = UINT64_MAX;
    done->end = REQUEST_END_CANCELLED;
    done->status = (enum status)(STATUS_COUNT - 1);
    fill_text(done->text, sizeof done->text, 8);
    done->n_prompt = done->n_generated = done->n_stages = UINT32_MAX;
    done->prefill_seconds = 1.0 / 3;
    done->decode_seconds = -2.0 / 3;
    fill_text(done->notice, sizeof done->notice, 12);
}

static inline void fill_pass(struct message_pass *pass)
{
    fill_instance(&pass->instance);
    pass->pass = UINT64_MAX;
    pass->stage = PROTO_MAX_STAGES - 1;
    pass->n_rows = PROTO_MAX_ROWS;
    pass->n_clears = PROTO_MAX_CLEARS;
    for (uint32_t i = 0; i < PROTO_MAX_ROWS; i++)
        pass->rows[i] = (struct pass_row){UINT32_MAX - i, UINT32_MAX - 2 * i};
    for (uint32_t i = 0; i < PROTO_MAX_CLEARS; i++)
        pass->clears[i] = (struct pass_clear){UINT32_MAX - 3 * i, UINT32_MAX - 4 * i};
}

static inline struct message *message_full(enum message_kind kind)
{
    struct message *m = message_new(kind);

    assert_non_null(m);
    if (kind == MESSAGE_CARD) {
        fill_card(&m->card);
    } else if (kind == MESSAGE_PING || kind == MESSAGE_PONG) {
        m->stamp_us = UINT64_MAX;
    } else if (kind == MESSAGE_PEERS) {
        m->peers.n = PROTO_MAX_PEERS;
        for (unsigned i = 0; i < PROTO_MAX_PEERS; i++) {
            fill_bytes(m->peers.items[i].node_id, PROTO_ID_BYTES, i);
            m->peers.items[i].n_addresses = PROTO_MAX_ADDRESSES;
            for (unsigned k = 0; k < PROTO_MAX_ADDRESSES; k++)
                fill_text(m->peers.items[i].addresses[k], 64, i + k);
        }
    } else if (kind == MESSAGE_PREPARE) {
        fill_prepare(&m->prepare);
    } else if (kind == MESSAGE_PREPARED || kind == MESSAGE_LOADED || kind == MESSAGE_PASS_FAILED ||
               kind == MESSAGE_IDLE_CLOSED) {
        fill_instance(&m->outcome.instance);
        m->outcome.pass = m->outcome.memory_free_bytes = UINT64_MAX;
        m->outcome.status = (enum status)(STATUS_COUNT - 1);
        fill_text(m->outcome.text, sizeof m->outcome.text, 7);
    } else if (kind == MESSAGE_LOAD || kind == MESSAGE_RELEASE) {
        fill_instance(&m->instance);
    } else if (kind == MESSAGE_PASS) {
        fill_pass(&m->pass);
        fill_payload(m, (size_t)PROTO_MAX_ROWS * 300 * sizeof(float));
    } else if (kind == MESSAGE_SUBMIT) {
        fill_submit(&m->submit);
        fill_payload(m, PROTO_MAX_PROMPT_BYTES);
    } else if (kind == MESSAGE_ACCEPTED) {
        m->accepted = (struct message_accepted){UINT64_MAX, 70000, UINT64_MAX};
        fill_payload(m, 4 * 70000);
    } else if (kind == MESSAGE_TOKENS) {
        m->tokens = (struct message_tokens){UINT64_MAX, UINT32_MAX, 300};
        fill_payload(m, 4 * 300 + 1000);
    } else if (kind == MESSAGE_DONE) {
        fill_done(&m->done);
    } else if (kind == MESSAGE_CLOSE_IDLE) {
        fill_instance(&m->close_idle.instance);
        m->close_idle.want_bytes = UINT64_MAX;
        fill_text(m->close_idle.for_model, sizeof m->close_idle.for_model, 13);
    } else {
        m->request = UINT64_MAX;
    }
    return m;
}

/* The same kind with nothing in it, where a kind needs something the least of it. */
static inline struct message *message_empty(enum message_kind kind)
{
    struct message *m = message_new(kind);

    assert_non_null(m);
    if (kind == MESSAGE_PREPARE)
        m->prepare.n_stages = 1;
    return m;
}

static inline void assert_same_message(const struct message *a, const struct message *b)
{
    struct message x = *a, y = *b;

    assert_int_equal(a->payload_bytes, b->payload_bytes);
    assert_int_equal(!a->payload_bytes, !b->payload);
    if (a->payload && b->payload)
        assert_true(memcmp(a->payload, b->payload, a->payload_bytes) == 0);
    x.payload = y.payload = NULL;
    assert_memory_equal(&x, &y, sizeof x);
}

#endif
