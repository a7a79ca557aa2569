/* Stages in one process: the pipeline without its network. What goes from shard to shard is the
 * array of hidden rows, as between nodes, so a test that passes here says that splitting changes
 * nothing. */
#include "tests/model/stages.h"

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

uint32_t best_token(const float *logits, uint32_t n_vocab)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n_vocab; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}
