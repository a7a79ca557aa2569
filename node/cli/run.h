#ifndef SKEIN_NODE_CLI_RUN_H
#define SKEIN_NODE_CLI_RUN_H

/* skein run: one answer, or a chat. */
#include "node/cli/session.h"

struct run {
    const char *system;
    uint32_t max_tokens, top_k, repeat_last_n;
    double temperature, top_p, min_p, typical_p, repeat_penalty;
    double frequency_penalty, presence_penalty, dry_multiplier, xtc_probability, xtc_threshold;
    double dry_base;
    uint32_t dry_allowed_length, dry_last_n;
    struct option_list biases; /* "ID=X" */
    uint64_t seed;
    struct option_list stops;
    bool raw, quiet, plan, ignore_end, alone;
    struct client_options client;
    struct node_choice node;
};

struct ask {
    struct session session;
    const struct run *run;
    const struct config *config;
    char model[256];
    json_t *biases; /* {"ID": X}; NULL: none */
    bool plan_shown;
};

/* Streams the answer to `messages` (chat) or `prompt` (raw) to standard output, statistics to
 * standard error. `text` (may be NULL) gathers the answer. CANCELLED after Ctrl-C. */
enum status ask_stream(struct ask *ask, json_t *messages, const char *prompt, struct buffer *text,
                       struct fault *fault) MUST_USE;
/* run->biases as JSON into *out, NULL where there are none. Errors: INVALID. */
enum status ask_biases(const struct run *run, json_t **out, struct fault *fault) MUST_USE;
/* Lines from the terminal until /bye or Ctrl-D. */
enum status ask_chat(struct ask *ask, struct fault *fault) MUST_USE;

extern const struct command_spec spec_run;
extern volatile sig_atomic_t run_stop; /* set by Ctrl-C */

#endif
