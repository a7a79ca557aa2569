/* The scheduler's promises: who goes first, how much, what is sampled, what is forgotten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "node/flow/scheduler.h"

enum { ROWS = 256, SLOTS = 8 };

struct pass { /* room for one pass */
    struct message message;
    uint32_t tokens[ROWS], history[SLOTS][64];
    struct sample_job samples[SLOTS];
    struct sample_bias biases[SLOTS][PROTO_MAX_BIASES];
    struct control_pass pass;
};

static struct scheduler *make(uint32_t n_slots, uint32_t n_blocks, uint32_t max_rows,
                              uint32_t n_stages)
{
    struct scheduler_options options = {.n_slots = n_slots,
                                        .n_kv_blocks = n_blocks,
                                        .max_rows = max_rows,
                                        .n_stages = n_stages,
                                        .clear_after_us = 100000};
    struct scheduler *s = NULL;

    assert_int_equal(scheduler_new(&options, &s), STATUS_OK);
    return s;
}

static void sequence_make(struct sequence *q, uint64_t key, uint32_t n_prompt, uint32_t capacity)
{
    memset(q, 0, sizeof *q);
    q->key = key;
    q->tokens = MEM_NEW_N(uint32_t, capacity);
    q->n_prompt = q->n_tokens = n_prompt;
    q->capacity = capacity;
    q->params.repeat_penalty = 1;
    for (uint32_t i = 0; i < n_prompt; i++)
        q->tokens[i] = 100 * (uint32_t)key + i;
}

static bool fill(struct scheduler *s, struct pass *p, uint64_t number, uint64_t now_us)
{
    memset(p, 0, sizeof *p);
    p->message.kind = MESSAGE_PASS;
    p->message.pass.pass = number;
    p->pass.message = &p->message;
    p->pass.tokens = p->tokens;
    p->pass.samples = p->samples;
    for (int i = 0; i < SLOTS; i++) {
        p->samples[i].history = p->history[i];
        p->samples[i].biases = p->biases[i];
    }
    return scheduler_fill(s, now_us, &p->pass);
}

static void a_prompt_is_cut_into_chunks_and_its_last_row_sampled(void **state)
{
    struct scheduler *s = make(2, 100, 64, 3);
    struct sequence q;
    struct pass p;

    (void)state;
    sequence_make(&q, 7, 150, 200);
    assert_int_equal(scheduler_add(s, &q), STATUS_OK);
    assert_true(fill(s, &p, 1, 0));
    assert_int_equal(p.message.pass.n_rows, 64);
    assert_int_equal(p.pass.n_samples, 0);
    assert_true(fill(s, &p, 2, 0)); /* chunks follow each other down the line */
    assert_int_equal(p.message.pass.rows[0].pos, 64);
    assert_true(fill(s, &p, 3, 0));
    assert_int_equal(p.message.pass.n_rows, 22);
    assert_int_equal(p.pass.n_samples, 1);
    assert_int_equal(p.samples[0].row, 21);
    assert_int_equal(p.samples[0].sequence, 7);
    assert_int_equal(p.samples[0].position, 150);
    assert_int_equal(p.tokens[21], 849);
    assert_false(fill(s, &p, 4, 0)); /* one pass per stage is under way */
    scheduler_pass_done(s, 1, 0);
    assert_false(fill(s, &p, 4, 0)); /* and nothing is ready before the sample */
    scheduler_pass_done(s, 2, 0);
    scheduler_pass_done(s, 3, 0);
    scheduler_push(s, &q, 5);
    assert_true(fill(s, &p, 4, 0));
    assert_int_equal(p.message.pass.n_rows, 1);
    assert_int_equal(p.message.pass.rows[0].pos, 150);
    assert_int_equal(p.tokens[0], 5);
    assert_int_equal(p.samples[0].position, 151);
    assert_false(fill(s, &p, 5, 0)); /* one decode row of a sequence at a time */
    scheduler_free(&s);
    mem_free(q.tokens);
}

static void others_decode_while_a_long_prompt_is_read(void **state)
{
    struct scheduler *s = make(2, 100, 256, 1);
    struct sequence a, b;
    struct pass p;

    (void)state;
    sequence_make(&a, 1, 4, 20);
    sequence_make(&b, 2, 400, 420);
    assert_int_equal(scheduler_add(s, &a), STATUS_OK);
    assert_true(fill(s, &p, 1, 0));
    scheduler_pass_done(s, 1, 0);
    scheduler_push(s, &a, 9);
    assert_int_equal(scheduler_add(s, &b), STATUS_OK);
    for (uint64_t number = 2; number < 6; number++) {
        assert_true(fill(s, &p, number, 0));
        assert_int_equal(p.message.pass.rows[0].slot, a.slot); /* tokens first */
        assert_true(p.message.pass.n_rows <= 1 + 128);         /* and not too much behind them */
        scheduler_pass_done(s, number, 0);
        scheduler_push(s, &a, 9);
    }
    assert_int_equal(b.state, SEQUENCE_DECODE);
    scheduler_free(&s);
    mem_free(a.tokens);
    mem_free(b.tokens);
}

static void ready_sequences_are_dealt_over_the_stages(void **state)
{
    struct scheduler *s = make(6, 100, 64, 3);
    struct sequence q[6];
    struct pass p;
    uint32_t seen = 0;

    (void)state;
    for (uint64_t i = 0; i < 6; i++) {
        sequence_make(&q[i], i + 1, 2, 20);
        assert_int_equal(scheduler_add(s, &q[i]), STATUS_OK);
    }
    assert_true(fill(s, &p, 1, 0));
    assert_int_equal(p.pass.n_samples, 6);
    scheduler_pass_done(s, 1, 0);
    for (int i = 0; i < 6; i++)
        scheduler_push(s, &q[i], 1);
    for (uint64_t number = 2; number < 5; number++) {
        assert_true(fill(s, &p, number, 0));
        assert_int_equal(p.message.pass.n_rows, 2);
        for (int i = 0; i < 2; i++)
            seen |= 1u << p.message.pass.rows[i].slot;
    }
    assert_int_equal(seen, 63);
    scheduler_free(&s);
    for (int i = 0; i < 6; i++)
        mem_free(q[i].tokens);
}

static void blocks_are_for_the_longest_and_first_come_first_served(void **state)
{
    struct scheduler *s = make(4, 8, 64, 1); /* 256 tokens */
    struct sequence a, big, small, never;
    struct pass p;

    (void)state;
    sequence_make(&a, 1, 10, 130); /* 5 blocks */
    sequence_make(&big, 2, 10, 128);
    sequence_make(&small, 3, 10, 20);
    sequence_make(&never, 4, 10, 257);
    assert_int_equal(scheduler_add(s, &never), STATUS_NO_ROOM);
    assert_int_equal(scheduler_add(s, &a), STATUS_OK);
    assert_int_equal(scheduler_add(s, &big), STATUS_OK);
    assert_int_equal(scheduler_add(s, &small), STATUS_OK);
    assert_true(fill(s, &p, 1, 0));
    assert_int_equal(scheduler_free_blocks(s), 3);
    assert_int_equal(p.pass.n_samples, 1); /* small would fit, but does not overtake big */
    assert_int_equal(scheduler_n_waiting(s), 2);
    scheduler_pass_done(s, 1, 0);
    assert_true(scheduler_remove(s, &a, 0));
    assert_true(fill(s, &p, 2, 0));
    assert_int_equal(p.pass.n_samples, 2);
    assert_int_equal(p.message.pass.n_clears, 1); /* a's slot is forgotten ahead of its reuse */
    assert_int_equal(p.message.pass.clears[0].slot, a.slot);
    scheduler_free(&s);
    mem_free(a.tokens);
    mem_free(big.tokens);
    mem_free(small.tokens);
    mem_free(never.tokens);
}

static void an_ended_sequence_waits_for_its_passes(void **state)
{
    struct scheduler *s = make(1, 100, 16, 2);
    struct sequence a, b;
    struct pass p;

    (void)state;
    sequence_make(&a, 1, 20, 40);
    sequence_make(&b, 2, 3, 10);
    assert_int_equal(scheduler_add(s, &a), STATUS_OK);
    assert_int_equal(scheduler_add(s, &b), STATUS_OK);
    assert_true(fill(s, &p, 1, 0));
    assert_false(scheduler_remove(s, &a, 0));
    assert_int_equal(a.state, SEQUENCE_DRAINING);
    assert_false(scheduler_remove(s, &a, 0)); /* twice is the same */
    assert_false(fill(s, &p, 2, 0)); /* its rows go no further, its slot is not given away */
    scheduler_pass_done(s, 1, 0);
    assert_int_equal(a.state, SEQUENCE_ENDED);
    assert_true(fill(s, &p, 2, 0));
    assert_int_equal(p.message.pass.rows[0].slot, a.slot);
    assert_int_equal(p.samples[0].sequence, 2);
    assert_int_equal(p.message.pass.n_clears, 1);
    scheduler_free(&s);
    mem_free(a.tokens);
    mem_free(b.tokens);
}

static void a_freed_slot_is_cleared_soon_even_when_nothing_runs(void **state)
{
    struct scheduler *s = make(2, 100, 16, 1);
    struct sequence a;
    struct pass p;

    (void)state;
    sequence_make(&a, 1, 3, 10);
    assert_int_equal(scheduler_add(s, &a), STATUS_OK);
    assert_true(fill(s, &p, 1, 1000));
    scheduler_pass_done(s, 1, 1000);
    assert_true(scheduler_remove(s, &a, 1000));
    assert_false(scheduler_idle(s));
    assert_int_equal(scheduler_wake_us(s), 101000);
    assert_false(fill(s, &p, 2, 100999));
    assert_true(fill(s, &p, 2, 101000));
    assert_int_equal(p.message.pass.n_rows, 0);
    assert_int_equal(p.message.pass.n_clears, 1);
    scheduler_pass_done(s, 2, 101000);
    assert_true(scheduler_idle(s));
    scheduler_free(&s);
    mem_free(a.tokens);
}

static void a_sequence_that_never_ran_needs_no_clear(void **state)
{
    struct scheduler *s = make(1, 100, 16, 1);
    struct sequence a;

    (void)state;
    sequence_make(&a, 1, 3, 10);
    assert_int_equal(scheduler_add(s, &a), STATUS_OK);
    assert_true(scheduler_remove(s, &a, 0));
    assert_true(scheduler_idle(s));
    assert_int_equal(scheduler_free_blocks(s), 100);
    scheduler_free(&s);
    mem_free(a.tokens);
}

static void history_is_given_only_where_a_penalty_asks(void **state)
{
    struct scheduler *s = make(2, 100, 16, 1);
    struct sequence a, b;
    struct pass p;

    (void)state;
    sequence_make(&a, 1, 5, 10);
    sequence_make(&b, 2, 5, 10);
    b.params.repeat_penalty = 1.1f;
    b.params.repeat_last_n = 3;
    assert_int_equal(scheduler_add(s, &a), STATUS_OK);
    assert_int_equal(scheduler_add(s, &b), STATUS_OK);
    assert_true(fill(s, &p, 1, 0));
    assert_int_equal(p.samples[0].n_history, 0);
    assert_int_equal(p.samples[1].n_history, 3);
    assert_int_equal(p.samples[1].history[0], 202);
    assert_int_equal(p.samples[1].history[2], 204);
    scheduler_free(&s);
    mem_free(a.tokens);
    mem_free(b.tokens);
}

/* How many tokens, and that they are the last ones. */
static uint32_t history_with(const struct sample_params *params, uint32_t n_prompt)
{
    struct scheduler *s = make(2, 100, 64, 1);
    struct sequence q;
    struct pass p;
    uint32_t n;

    sequence_make(&q, 1, n_prompt, n_prompt + 1);
    q.params = *params;
    assert_int_equal(scheduler_add(s, &q), STATUS_OK);
    assert_true(fill(s, &p, 1, 0));
    assert_int_equal(p.pass.n_samples, 1);
    n = p.samples[0].n_history;
    assert_true(n <= n_prompt);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(p.samples[0].history[i], q.tokens[n_prompt - n + i]);
    scheduler_free(&s);
    mem_free(q.tokens);
    return n;
}

static void each_penalty_gets_the_history_that_it_looks_back_on(void **state)
{
    struct sample_params off = {.repeat_penalty = 1, .repeat_last_n = 4, .dry_last_n = 9};
    struct sample_params params = off;

    (void)state;
    assert_int_equal(history_with(&off, 12), 0);
    params.frequency_penalty = -0.5f;
    assert_int_equal(history_with(&params, 12), 4);
    params = off;
    params.presence_penalty = 0.5f;
    assert_int_equal(history_with(&params, 12), 4);
    assert_int_equal(history_with(&params, 3), 3);
    params.dry_multiplier = 0.8f;
    assert_int_equal(history_with(&params, 12), 9); /* the longer of the two */
    params.repeat_last_n = 10;
    assert_int_equal(history_with(&params, 12), 10);
    params.dry_last_n = 0; /* as many as there are */
    assert_int_equal(history_with(&params, 12), 12);
    params.presence_penalty = 0;
    assert_int_equal(history_with(&params, 12), 12);
}

static void biases_travel_as_a_copy(void **state)
{
    struct scheduler *s = make(2, 100, 64, 1);
    struct sample_bias biases[2] = {{5, -1.0f}, {7, 2.0f}};
    struct sequence q;
    struct pass p;

    (void)state;
    sequence_make(&q, 1, 3, 5);
    q.params.biases = biases;
    q.params.n_biases = 2;
    assert_int_equal(scheduler_add(s, &q), STATUS_OK);
    assert_true(fill(s, &p, 1, 0));
    memset(biases, 0, sizeof biases); /* the request is gone */
    assert_ptr_equal(p.samples[0].params.biases, p.biases[0]);
    assert_int_equal(p.samples[0].params.n_biases, 2);
    assert_int_equal(p.biases[0][1].id, 7);
    assert_true(p.biases[0][1].bias > 1.9f && p.biases[0][0].bias < -0.9f);
    scheduler_free(&s);
    mem_free(q.tokens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_is_cut_into_chunks_and_its_last_row_sampled),
        cmocka_unit_test(others_decode_while_a_long_prompt_is_read),
        cmocka_unit_test(ready_sequences_are_dealt_over_the_stages),
        cmocka_unit_test(blocks_are_for_the_longest_and_first_come_first_served),
        cmocka_unit_test(an_ended_sequence_waits_for_its_passes),
        cmocka_unit_test(a_freed_slot_is_cleared_soon_even_when_nothing_runs),
        cmocka_unit_test(a_sequence_that_never_ran_needs_no_clear),
        cmocka_unit_test(history_is_given_only_where_a_penalty_asks),
        cmocka_unit_test(each_penalty_gets_the_history_that_it_looks_back_on),
        cmocka_unit_test(biases_travel_as_a_copy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
