#ifndef SKEIN_NODE_FLOW_SCHEDULER_H
#define SKEIN_NODE_FLOW_SCHEDULER_H

/* Continuous batching at the head: which rows go into the next pass. Pure; knows no links, no
 * instances and no clock but the `now_us` it is given. */
#include "node/cluster/control.h"

enum { SCHEDULER_MAX_SLOTS = PROTO_MAX_CLEARS };

enum sequence_state {
    SEQUENCE_NEW,      /* not known to a scheduler */
    SEQUENCE_WAITING,  /* for a slot and KV blocks */
    SEQUENCE_PREFILL,  /* rows of the prompt are still to be placed */
    SEQUENCE_DECODE,   /* one row per token */
    SEQUENCE_DRAINING, /* ended; passes with its rows are still on their way */
    SEQUENCE_ENDED
};

/* What the scheduler knows of a prompt and its growing completion. */
struct sequence {
    uint64_t key; /* names it in sample jobs */
    unsigned state;
    struct sample_params params; /* repeat_last_n, dry_last_n ≤ PROTO_MAX_HISTORY, n_biases ≤
                                  * PROTO_MAX_BIASES; the biases are the caller's */
    uint32_t *tokens;            /* [capacity], owned: the prompt, then what was sampled */
    uint32_t n_prompt, n_tokens, capacity;
    uint32_t n_placed;  /* positions [0, n_placed) were put into passes */
    uint32_t n_flights; /* passes on their way that hold rows of it */
    uint32_t slot, n_blocks;
    struct sequence *next; /* in the waiting line */
};

struct scheduler_options {
    uint32_t n_slots;        /* ≤ SCHEDULER_MAX_SLOTS */
    uint32_t n_kv_blocks;    /* over all slots */
    uint32_t max_rows;       /* ≤ PROTO_MAX_ROWS */
    uint32_t n_stages;       /* passes on their way at once */
    uint64_t clear_after_us; /* a freed slot waits so long for a pass to ride in */
};

struct scheduler;

enum status scheduler_new(const struct scheduler_options *options, struct scheduler **out) MUST_USE;
void scheduler_free(struct scheduler **scheduler); /* the sequences stay the caller's */
/* Lines up a sequence whose tokens are there; capacity is the most tokens that it will ever have.
 * NO_ROOM where that is more than the whole KV budget. */
enum status scheduler_add(struct scheduler *scheduler, struct sequence *sequence) MUST_USE;
/* The sequence ends now. True: it is ENDED and may be freed. False: it is DRAINING, and a later
 * scheduler_pass_done will end it. */
bool scheduler_remove(struct scheduler *scheduler, struct sequence *sequence, uint64_t now_us);
/* Appends a sampled token: the sequence is ready for its next row. The capacity is the caller's to
 * check before. */
void scheduler_push(struct scheduler *scheduler, struct sequence *sequence, uint32_t token);
/* A slot whose KV on the stages must be forgotten (the probe's). */
void scheduler_clear_slot(struct scheduler *scheduler, uint32_t slot, uint64_t now_us);

/* Puts the next pass together: rows, clears, tokens and sample jobs of `pass`, whose message exists
 * with `number` set and whose arrays have room for max_rows and n_slots. False: nothing to do now.
 */
bool scheduler_fill(struct scheduler *scheduler, uint64_t now_us, struct control_pass *pass);
/* The pass came back whole. Sequences that were DRAINING and have no other pass are ENDED by it. */
void scheduler_pass_done(struct scheduler *scheduler, uint64_t number, uint64_t now_us);
/* When scheduler_fill will have something to do only because time passed; UINT64_MAX: never. */
uint64_t scheduler_wake_us(const struct scheduler *scheduler);

uint32_t scheduler_n_waiting(const struct scheduler *scheduler);
uint32_t scheduler_n_running(const struct scheduler *scheduler); /* with a slot */
uint32_t scheduler_free_blocks(const struct scheduler *scheduler);
uint32_t scheduler_n_flights(const struct scheduler *scheduler);
bool scheduler_idle(const struct scheduler *scheduler); /* no sequence, no pass, no clear */

#endif
