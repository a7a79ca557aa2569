/* A stage's part of a model: opening it, and the way of rows through it.
 *
 * Opening checks the request against the model, then takes everything a pass will need: threads,
 * weights, work memory, KV pages. After that no call allocates, and what the first pass writes is
 * resident: of the KV so much as a pass of the most rows takes, no more, since what sequences may
 * need one day is better used for files until then. A pass first
 * makes room in the KV of every row (all or nothing), computes the rotation angles of its positions
 * once, and runs the layers in place on the hidden rows.
 *
 * What fails: a request that does not fit the model (INVALID), a model that cannot be run
 * (UNSUPPORTED), memory (NO_MEMORY), and in a pass rows out of order (INVALID), a sequence longer
 * than the context (CONTEXT) or no pages left (NO_ROOM); a failed pass leaves the KV as it was. */
#include "engine/kernels/encode.h"
#include "engine/shard/shard.h"

#include <math.h>

enum { SHARD_MAX_THREADS = 1024, SHARD_MAX_SLOTS = 1 << 16 };

static enum status check_spec(const struct model *model, const struct shard_spec *spec,
                              struct fault *fault)
{
    uint32_t n_layers = model->hparams.n_layers;

    if (spec->layer_begin > spec->layer_end || spec->layer_end > n_layers)
        return fault_set(fault, STATUS_INVALID, "layers %u to %u of a model with %u layers",
                         spec->layer_begin, spec->layer_end, n_layers);
    if (spec->max_rows < 1 || spec->max_rows > SHARD_MAX_ROWS)
        return fault_set(fault, STATUS_INVALID, "%u rows per pass; 1 to %d are possible",
                         spec->max_rows, SHARD_MAX_ROWS);
    if (spec->n_threads < 1 || spec->n_threads > SHARD_MAX_THREADS)
        return fault_set(fault, STATUS_INVALID, "%u threads; 1 to %d are possible", spec->n_threads,
                         SHARD_MAX_THREADS);
    if (spec->n_slots < 1 || spec->n_slots > SHARD_MAX_SLOTS || spec->n_ctx_tokens < 1 ||
        spec->n_ctx_tokens > MODEL_MAX_CONTEXT || spec->n_kv_blocks < 1)
        return fault_set(fault, STATUS_INVALID,
                         "%u sequences of %u tokens with %u KV blocks are out of range",
                         spec->n_slots, spec->n_ctx_tokens, spec->n_kv_blocks);
    if (spec->form.quantize && !tensor_encodes((enum tensor_type)spec->form.quantize))
        return fault_set(fault, STATUS_INVALID, "weights cannot be turned into type number %u",
                         spec->form.quantize);
    if (spec->form.mapped && spec->lock)
        return fault_set(fault, STATUS_INVALID,
                         "weights that are used in their file (--mapped) cannot be locked in "
                         "memory (--lock): choose one");
    if (model->tensors.weight[MODEL_SLOT_POSITION_EMBD] &&
        spec->n_ctx_tokens > model->hparams.n_ctx_train)
        return fault_set(fault, STATUS_CONTEXT,
                         "a context of %u tokens; the model has positions for %u",
                         spec->n_ctx_tokens, model->hparams.n_ctx_train);
    return STATUS_OK;
}

void shard_need(const struct model *model, const struct shard_spec *spec, struct shard_need *out)
{
    const struct hparams *hp = &model->hparams;

    *out = (struct shard_need){0};
    shard_weight_bytes(model, spec, &out->weight_bytes, &out->mapped_bytes);
    if (!hp->layers || spec->layer_begin > spec->layer_end || spec->layer_end > hp->n_layers)
        return;
    out->kv_bytes =
        kv_bytes(hp->layers + spec->layer_begin, spec->layer_end - spec->layer_begin, spec);
    out->scratch_bytes =
        scratch_bytes(hp, spec) +
        compute_scratch_bytes(spec->engine, scratch_max_rows(hp, spec), scratch_max_cols(hp, spec));
}

static enum status open_parts(struct shard *shard, struct fault *fault)
{
    const struct hparams *hp = &shard->model->hparams;
    const struct shard_spec *spec = &shard->spec;
    enum status status = compute_new(spec->engine, spec->n_threads, &shard->compute, fault);

    if (status)
        return status;
    shard->ops = compute_ops(shard->compute);
    status =
        compute_reserve(shard->compute, scratch_max_rows(hp, spec), scratch_max_cols(hp, spec));
    if (!status)
        status = scratch_new(hp, spec, &shard->scratch);
    if (!status)
        status = kv_new(hp->layers + spec->layer_begin, spec->layer_end - spec->layer_begin, spec,
                        model_info(shard->model)->rewinds, &shard->kv);
    if (!status)
        status = shard_load(shard);
    if (!status) {
        compute_touch(shard->compute);
        kv_touch(shard->kv, spec->max_rows);
    }
    if (!status && spec->lock)
        return shard_lock(shard, fault);
    return status ? fault_set(fault, status, "the shard does not fit: %s", status_words(status))
                  : STATUS_OK;
}

enum status shard_open(const struct model *model, const struct shard_spec *spec, struct shard **out,
                       struct fault *fault)
{
    struct shard *shard;
    enum status status = model_computable(model, spec->engine, fault);

    *out = NULL;
    if (!status)
        status = check_spec(model, spec, fault);
    if (status)
        return status;
    shard = MEM_NEW(struct shard);
    if (!shard)
        return fault_set(fault, STATUS_NO_MEMORY, "out of memory");
    shard->model = model;
    shard->spec = *spec;
    status = open_parts(shard, fault);
    if (status) {
        shard_free(&shard);
        return status;
    }
    *out = shard;
    return STATUS_OK;
}

void shard_free(struct shard **shard)
{
    if (!*shard)
        return;
    if ((*shard)->spec.lock)
        shard_unlock(*shard);
    shard_unload(*shard);
    kv_free(&(*shard)->kv);
    scratch_free(&(*shard)->scratch);
    compute_free(&(*shard)->compute);
    mem_free(*shard);
    *shard = NULL;
}

enum status shard_embed(struct shard *shard, const uint32_t *tokens, size_t n_rows, float *hidden)
{
    const struct hparams *hp = &shard->model->hparams;
    const float *norm = shard->model_vector[MODEL_SLOT_TOKEN_EMBD_NORM];

    if (shard->model->arch->final_norm_is_token_embd_norm)
        norm = NULL;
    if (!shard->embed || n_rows > shard->spec.max_rows)
        return STATUS_INVALID;
    for (size_t r = 0; r < n_rows; r++) {
        if (tokens[r] >= hp->n_vocab)
            return STATUS_INVALID;
    }
    for (size_t r = 0; r < n_rows; r++) {
        float *row = hidden + r * hp->n_embd;

        weight_row(shard->embed, tokens[r], row);
        if (hp->embedding_scale != 1)
            shard->ops->scale(row, hp->embedding_scale, hp->n_embd);
        if (norm)
            norm_row(shard, row, row, norm, shard->model_bias[MODEL_SLOT_TOKEN_EMBD_NORM],
                     hp->n_embd);
    }
    if (hp->n_extra && n_rows)
        layer_inputs_make(shard, tokens, n_rows, hidden, hidden + n_rows * hp->n_embd);
    return STATUS_OK;
}

static void angle_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct pass *pass = ctx;
    struct shard *shard = pass->shard;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        for (uint32_t i = 0; i < MODEL_MAX_ROPES; i++) {
            const struct rope_table *table = &shard->rope[i];

            if (table->n_values)
                rope_angles(table, pass->rows[r].pos,
                            shard->scratch.angles[i] + r * table->n_values);
        }
    }
}

/* Learned positions belong to the stage that has the first layer: it knows the rows' positions. */
static void add_positions(const struct pass *pass)
{
    size_t n = pass->hparams->n_embd;
    float *row = pass->shard->scratch.branch;

    for (size_t r = 0; r < pass->n_rows; r++) {
        weight_row(pass->shard->positions, pass->rows[r].pos, row);
        pass->shard->ops->add(pass->hidden + r * n, row, n);
    }
}

enum status shard_forward(struct shard *shard, const struct shard_row *rows, size_t n_rows,
                          float *hidden)
{
    const struct hparams *hp = &shard->model->hparams;
    struct pass pass = {.shard = shard,
                        .arch = shard->model->arch,
                        .hparams = hp,
                        .rows = rows,
                        .n_rows = n_rows,
                        .hidden = hidden,
                        .extra = hidden + n_rows * hp->n_embd};
    enum status status;

    if (n_rows == 0)
        return STATUS_OK;
    if (n_rows > shard->spec.max_rows)
        return STATUS_INVALID;
    status = kv_extend(shard->kv, rows, n_rows);
    if (status)
        return status;
    if (shard->positions)
        add_positions(&pass);
    compute_parallel(shard->compute, n_rows, angle_rows, &pass);
    for (uint32_t i = 0; i < shard->spec.layer_end - shard->spec.layer_begin; i++) {
        pass.layer = i;
        pass.shape = &hp->layers[shard->spec.layer_begin + i];
        pass.weights = &shard->layers[i];
        block_run(&pass);
    }
    return STATUS_OK;
}

static void finish_logits(const struct shard *shard, float *logits)
{
    const struct hparams *hp = &shard->model->hparams;

    if (shard->model_bias[MODEL_SLOT_OUTPUT])
        shard->ops->add(logits, shard->model_bias[MODEL_SLOT_OUTPUT], hp->n_vocab);
    if (hp->logit_scale != 1)
        shard->ops->scale(logits, hp->logit_scale, hp->n_vocab);
    for (size_t i = 0; hp->logit_cap > 0 && i < hp->n_vocab; i++)
        logits[i] = hp->logit_cap * tanhf(logits[i] / hp->logit_cap);
}

enum status shard_logits(struct shard *shard, float *hidden, size_t n_rows, float *logits)
{
    const struct hparams *hp = &shard->model->hparams;
    uint32_t norm = shard->model->arch->final_norm_is_token_embd_norm ? MODEL_SLOT_TOKEN_EMBD_NORM
                                                                      : MODEL_SLOT_OUTPUT_NORM;

    if (!shard->output || n_rows > shard->spec.max_rows)
        return STATUS_INVALID;
    if (n_rows == 0)
        return STATUS_OK;
    for (size_t r = 0; r < n_rows; r++)
        norm_row(shard, hidden + r * hp->n_embd, hidden + r * hp->n_embd, shard->model_vector[norm],
                 shard->model_bias[norm], hp->n_embd);
    compute_matmul(shard->compute, shard->output, hidden, hp->n_embd, n_rows, logits, hp->n_vocab);
    for (size_t r = 0; r < n_rows; r++)
        finish_logits(shard, logits + r * hp->n_vocab);
    return STATUS_OK;
}

void shard_truncate(struct shard *shard, uint32_t slot, uint32_t from)
{
    if (slot < shard->spec.n_slots)
        kv_truncate(shard->kv, slot, from);
}
