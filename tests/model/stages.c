/* Stages in one process: the pipeline without its network. What goes from shard to shard is the
 * array of hidden rows, as between nodes, so a test that passes here says that splitting changes
 * nothing. */
#include "tests/model/stages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { ROWS = 64 };

static uint32_t cut(uint32_t n_layers, uint32_t i, uint32_t n)
{
    return n_layers * i / n;
}

enum status stages_open(const struct model *model, const struct stages_config *config,
                        struct stages *out, struct fault *fault)
{
    const struct model_info *info = model_info(model);
    struct shard_spec spec = {
        .n_slots = config->n_slots ? config->n_slots : 1,
        .n_ctx_tokens = config->n_ctx_tokens,
        .max_rows = ROWS,
        .n_threads = config->n_threads ? config->n_threads : 1,
        .engine = config->engine,
        .form = config->form,
    };
    enum status status = STATUS_OK;

    *out = (struct stages){.model = model, .max_rows = ROWS};
    spec.n_kv_blocks = spec.n_slots * (config->n_ctx_tokens / SHARD_KV_BLOCK_TOKENS + 1);
    out->hidden = MEM_NEW_N(float, (size_t)ROWS * info->row_floats);
    if (!out->hidden)
        return STATUS_NO_MEMORY;
    for (uint32_t i = 0; i < config->n_stages && !status; i++) {
        spec.layer_begin = cut(info->n_layers, i, config->n_stages);
        spec.layer_end = cut(info->n_layers, i + 1, config->n_stages);
        spec.embed = spec.head = i == 0;
        status = shard_open(model, &spec, &out->shard[i], fault);
        out->n += !status;
    }
    if (status)
        stages_close(out);
    return status;
}

void stages_close(struct stages *stages)
{
    for (uint32_t i = 0; i < stages->n; i++)
        shard_free(&stages->shard[i]);
    mem_free(stages->hidden);
    *stages = (struct stages){0};
}

enum status stages_pass(struct stages *stages, const struct shard_row *rows, const uint32_t *tokens,
                        size_t n, float *logits)
{
    enum status status = shard_embed(stages->shard[0], tokens, n, stages->hidden);

    for (uint32_t i = 0; i < stages->n && !status; i++)
        status = shard_forward(stages->shard[i], rows, n, stages->hidden);
    return status ? status : shard_logits(stages->shard[0], stages->hidden, n, logits);
}

enum status stages_run(struct stages *stages, uint32_t slot, uint32_t pos, const uint32_t *tokens,
                       size_t n, size_t chunk, float *logits)
{
    size_t n_vocab = model_info(stages->model)->n_vocab;
    struct shard_row rows[ROWS];

    for (size_t done = 0; done < n;) {
        size_t take = n - done < chunk ? n - done : chunk;
        enum status status;

        take = take < ROWS ? take : ROWS;
        for (size_t i = 0; i < take; i++)
            rows[i] = (struct shard_row){slot, pos + (uint32_t)(done + i)};
        status = stages_pass(stages, rows, tokens + done, take, logits + done * n_vocab);
        if (status)
            return status;
        done += take;
    }
    return STATUS_OK;
}

void stages_forget(struct stages *stages, uint32_t slot, uint32_t from)
{
    for (uint32_t i = 0; i < stages->n; i++)
        shard_truncate(stages->shard[i], slot, from);
}

struct model *model_at(const char *path)
{
    struct model *model = NULL;
    struct fault fault = {0};

    if (model_open(path, &model, &fault))
        fail_msg("%s: %s", path, fault.text);
    return model;
}

struct model *model_tiny(void)
{
    struct model *model = NULL;
    const void *data;
    size_t size_bytes;

    model_demo(&data, &size_bytes);
    assert_int_equal(model_open_memory(data, size_bytes, "tiny", &model, NULL), STATUS_OK);
    return model;
}

float *stages_logits(const struct model *model, const struct stages_config *config, size_t n_tokens,
                     size_t chunk)
{
    uint32_t n_vocab = model_info(model)->n_vocab;
    uint32_t *tokens = malloc(n_tokens * sizeof *tokens);
    float *logits = calloc(n_tokens * n_vocab, sizeof *logits);
    struct stages stages;
    struct fault fault = {0};

    assert_non_null(tokens);
    assert_non_null(logits);
    for (size_t i = 0; i < n_tokens; i++)
        tokens[i] = (uint32_t)((i * 97 + 5) % n_vocab);
    if (stages_open(model, config, &stages, &fault))
        fail_msg("%s: %s", model_info(model)->name, fault.text);
    assert_int_equal(stages_run(&stages, 0, 0, tokens, n_tokens, chunk, logits), STATUS_OK);
    stages_close(&stages);
    free(tokens);
    return logits;
}

double logits_nmse(const float *a, const float *b, size_t n)
{
    double error = 0, power = 0;

    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];

        error += d * d;
        power += (double)b[i] * (double)b[i];
    }
    return error / power;
}

uint32_t best_token(const float *logits, uint32_t n_vocab)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n_vocab; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}
