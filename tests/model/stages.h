#ifndef SKEIN_TESTS_MODEL_STAGES_H
#define SKEIN_TESTS_MODEL_STAGES_H

/* A model cut into stages that hand the hidden rows on, as nodes do, in one process. */
#include "engine/engine.h"

enum { STAGES_MAX = 8 };

struct stages {
    const struct model *model;
    struct shard *shard[STAGES_MAX];
    uint32_t n;
    uint32_t max_rows;
    float *hidden; /* [max_rows, row_floats] */
};

struct stages_config {
    enum engine_kind engine;
    uint32_t n_stages;
    uint32_t n_threads;
    uint32_t n_ctx_tokens;
    uint32_t n_slots;
    struct model_form form;
};

/* Layers are cut as evenly as they go; the first stage embeds and has the head. */
enum status stages_open(const struct model *model, const struct stages_config *config,
                        struct stages *out, struct fault *fault) MUST_USE;
void stages_close(struct stages *stages);

/* Runs n tokens of the sequence in `slot` from position `pos` in passes of at most `chunk` rows.
 * logits [n, n_vocab]. */
enum status stages_run(struct stages *stages, uint32_t slot, uint32_t pos, const uint32_t *tokens,
                       size_t n, size_t chunk, float *logits) MUST_USE;
/* One pass of any rows. logits [n, n_vocab]; n <= 64. */
enum status stages_pass(struct stages *stages, const struct shard_row *rows, const uint32_t *tokens,
                        size_t n, float *logits) MUST_USE;
void stages_forget(struct stages *stages, uint32_t slot, uint32_t from);

/* What cannot be opened or run below fails the test that asks for it. */
struct model *model_at(const char *path);
struct model *model_tiny(void); /* the built-in one */
/* Logits [n_tokens, n_vocab] of tokens that are the same for every model of a vocabulary, in passes
 * of `chunk` rows; the caller's, free(). */
float *stages_logits(const struct model *model, const struct stages_config *config, size_t n_tokens,
                     size_t chunk);
/* Of a against b [n]: the squares of the differences over those of b. */
double logits_nmse(const float *a, const float *b, size_t n);

uint32_t best_token(const float *logits, uint32_t n_vocab);

#endif
