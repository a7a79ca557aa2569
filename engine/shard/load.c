/* The weights of a shard.
 *
 * Matrices become weights, which the kernels repack into memory of their own, or read where the
 * file has them (openblas). Of repacked ones the file's pages are dropped from this process once a
 * tensor is done, so that the resident memory never holds a matrix twice and its peak is the shard
 * plus one tensor; the largest, the embedding and the head, come first, while there is little else.
 * Where memory has no room for both they leave the page cache as well; elsewhere they stay there,
 * and the next load is a warm one.
 * Pages that are read in place are touched instead. The next layer is read ahead while one is
 * prepared. Where the form asks for it nothing is copied and nothing read: pages come as they are
 * used, and go when the system needs them. Norms and biases are small and are decoded to float32
 * once. Of a tensor of experts every expert becomes a weight of its own, so that only those a token
 * uses are read. A tied head is the embedding's weight, once. What a file has in another layout is
 * made here, row by row (engine/file/source.c), and so is what the form wants in another type
 * (engine/model/quantize.h): rows go straight into the kernels' layout, never into a whole matrix,
 * and the pages they came from are dropped behind them. */
#include "engine/file/source.h"
#include "engine/kernels/pack.h"
#include "engine/model/quantize.h"
#include "engine/shard/shard.h"

#include <assert.h>

enum { PAGE_BYTES = 4096, /* the least there is */ CACHE_PIECE_BYTES = 2 << 20 };

/* Which slots are multiplied as matrices, however many rows a file gives them; all others are
 * vectors. */
static const bool slot_is_matrix[SLOT_COUNT] = {
#define X(id, name, d0, d1, d2)                                                                    \
    [SLOT_##id] = DIM_##d1 != DIM_ONE && DIM_##d1 != DIM_ANY && DIM_##d0 != DIM_KERNEL,
    LAYER_SLOTS(X)
#undef X
};

/* The page cache has a file in pieces of up to 2 MB and drops none in part, so the end of what was
 * released before goes along. */
static void forget_bytes(void *of, const void *data, uint64_t n_bytes)
{
    const struct shard *shard = of;
    size_t offset, before;
    const struct file_map *map = model_map_of(shard->model, data, &offset);

    if (map)
        file_map_forget(map, offset, (size_t)n_bytes);
    if (!map || !shard->releases)
        return;
    before = offset < CACHE_PIECE_BYTES ? offset : CACHE_PIECE_BYTES;
    file_map_release(map, offset - before, before + (size_t)n_bytes);
}

/* Whether memory cannot hold the weights twice, as copies and in the page cache. The system would
 * find out by itself, but only once it is short of memory, and then it may swap out copies. */
static bool memory_is_short(const struct shard *shard)
{
    struct shard_need need;
    struct engine_box box;

    engine_box(&box);
    shard_need(shard->model, &shard->spec, &need);
    return box.memory_available_bytes < 2 * need.weight_bytes + need.kv_bytes + need.scratch_bytes;
}

static void want_bytes(void *model, const void *data, uint64_t n_bytes)
{
    size_t offset;
    const struct file_map *map = model_map_of(model, data, &offset);

    if (map)
        file_map_willneed(map, offset, (size_t)n_bytes);
}

/* A page's table entry as well as the page: what is used in place costs no fault later. */
static void touch_bytes(const void *data, size_t n_bytes)
{
    const volatile uint8_t *at = data;

    for (size_t i = 0; i < n_bytes; i += PAGE_BYTES)
        (void)at[i];
    if (n_bytes)
        (void)at[n_bytes - 1];
}

static void forget_pages(struct shard *shard, const struct gguf_tensor *tensor)
{
    tensor_each_bytes(tensor, forget_bytes, shard);
}

static void want_pages(const struct model *model, const struct gguf_tensor *tensor)
{
    tensor_each_bytes(tensor, want_bytes, (void *)(uintptr_t)model);
}

static void read_ahead(const struct shard *shard, uint32_t il)
{
    const struct model *model = shard->model;

    for (uint32_t s = 0; il < model->hparams.n_layers && s < SLOT_COUNT; s++) {
        const struct gguf_tensor *tensor = model->tensors.layers[il].weight[s];

        if (tensor && !form_maps(tensor, &shard->spec.form))
            want_pages(model, tensor);
    }
}

/* A matrix whose rows are made: read by way of its source, in the type that the form wants. */
struct making {
    const struct gguf_tensor *tensor;
    uint64_t i;
    enum tensor_type type;
    struct matrix stored; /* data NULL: the rows do not lie in the file one after the other */
};

static void make_rows(void *ctx, uint32_t first, uint32_t n, float *scratch, void *out)
{
    const struct making *m = ctx;
    size_t row_bytes = (size_t)type_bytes(m->type, m->tensor->dims[0]);

    for (uint32_t r = 0; r < n; r++)
        tensor_row_as(m->tensor, m->i, first + r, m->type, scratch, (uint8_t *)out + r * row_bytes);
    if (m->stored.mapped)
        forget_rows(&m->stored, first, n);
}

/* Matrix i of a tensor as a weight: from the file's bytes, or made from them. */
static enum status make_one(struct shard *shard, const struct gguf_tensor *tensor, uint64_t i,
                            struct weight **out)
{
    struct matrix m = {.type = (enum tensor_type)tensor->type,
                       .n_rows = (uint32_t)tensor->dims[1],
                       .n_cols = (uint32_t)tensor->dims[0]};
    struct making making = {.tensor = tensor, .i = i};
    size_t offset;

    m.row_bytes = (size_t)tensor_matrix_size(tensor) / m.n_rows;
    m.data = tensor_matrix_bytes(tensor, i);
    m.mapped = m.data && model_map_of(shard->model, m.data, &offset);
    making.type = form_type(tensor, &shard->spec.form);
    if (form_maps(tensor, &shard->spec.form))
        return weight_borrow(shard->compute, &m, out);
    if (m.data && making.type == m.type)
        return weight_new(shard->compute, &m, out);
    making.stored = m;
    m.type = making.type;
    m.row_bytes = (size_t)type_bytes(m.type, m.n_cols);
    return weight_make(shard->compute, &m, make_rows, &making, out);
}

/* The same, and what its bytes in the file are to this process now. */
static enum status load_one(struct shard *shard, const struct gguf_tensor *tensor, uint64_t i,
                            struct weight **out)
{
    const void *stored = tensor_matrix_bytes(tensor, i);
    enum status status = make_one(shard, tensor, i, out);
    const void *used;
    size_t n_bytes;

    if (status || !stored)
        return status;
    weight_memory(*out, &used, &n_bytes);
    if (form_maps(tensor, &shard->spec.form))
        return STATUS_OK;
    if (used == stored)
        touch_bytes(stored, n_bytes);
    else
        forget_bytes(shard, stored, tensor_matrix_size(tensor));
    return STATUS_OK;
}

static enum status load_matrix(struct shard *shard, const struct gguf_tensor *tensor,
                               struct weight **out)
{
    enum status status;

    if (!form_maps(tensor, &shard->spec.form))
        want_pages(shard->model, tensor);
    status = load_one(shard, tensor, 0, out);
    if (!tensor_matrix_bytes(tensor, 0))
        forget_pages(shard, tensor);
    return status;
}

static enum status load_vector(const struct gguf_tensor *tensor, float **out)
{
    *out = MEM_NEW_N(float, (size_t)tensor->n_values);
    if (!*out)
        return STATUS_NO_MEMORY;
    tensor_values(tensor, *out);
    return STATUS_OK;
}

static enum status load_many(struct shard *shard, const struct gguf_tensor *tensor,
                             struct weight ***out)
{
    struct weight **weights = MEM_NEW_N(struct weight *, (size_t)tensor->dims[2]);
    enum status status = weights ? STATUS_OK : STATUS_NO_MEMORY;

    *out = weights;
    for (uint64_t e = 0; e < tensor->dims[2] && !status; e++)
        status = load_one(shard, tensor, e, &weights[e]);
    if (!tensor_matrix_bytes(tensor, 0))
        forget_pages(shard, tensor);
    return status;
}

/* Where the matrices of a tensor of several go: one per expert, or one per head. */
static struct weight ***many_of(struct layer_weights *layer, uint32_t slot)
{
    switch (slot) {
    case SLOT_EXPERT_GATE:
        return &layer->experts[EXPERT_MATRIX_GATE];
    case SLOT_EXPERT_UP:
        return &layer->experts[EXPERT_MATRIX_UP];
    case SLOT_EXPERT_DOWN:
        return &layer->experts[EXPERT_MATRIX_DOWN];
    case SLOT_LATENT_K_B:
        return &layer->heads[HEAD_MATRIX_K_B];
    case SLOT_LATENT_V_B:
        return &layer->heads[HEAD_MATRIX_V_B];
    default:
        return NULL;
    }
}

static enum status load_layer(struct shard *shard, const struct layer_tensors *tensors,
                              struct layer_weights *out)
{
    enum status status = STATUS_OK;

    for (uint32_t s = 0; s < SLOT_COUNT && !status; s++) {
        const struct gguf_tensor *tensor = tensors->weight[s];
        struct weight ***many = many_of(out, s);

        if (tensor && many)
            status = load_many(shard, tensor, many);
        else if (tensor && slot_is_matrix[s])
            status = load_matrix(shard, tensor, &out->matrix[s]);
        else if (tensor)
            status = load_vector(tensor, &out->vector[s]);
        if (!status && tensors->bias[s])
            status = load_vector(tensors->bias[s], &out->bias[s]);
    }
    return status;
}

/* Vectors of the model's ends: the input's with the embedding, the output's with the head. */
static enum status load_ends(struct shard *shard)
{
    const struct model_tensors *t = &shard->model->tensors;
    const struct shard_spec *spec = &shard->spec;
    const struct gguf_tensor *head = t->weight[MODEL_SLOT_OUTPUT];
    enum status status = STATUS_OK;

    if (spec->embed || (spec->head && !head))
        status = load_matrix(shard, t->weight[MODEL_SLOT_TOKEN_EMBD], &shard->token_embd);
    if (!status && spec->head && head)
        status = load_matrix(shard, head, &shard->separate_head);
    shard->embed = spec->embed ? shard->token_embd : NULL;
    if (spec->head)
        shard->output = head ? shard->separate_head : shard->token_embd;
    if (!status && spec->embed && t->weight[MODEL_SLOT_INPUT_EMBD])
        status = load_matrix(shard, t->weight[MODEL_SLOT_INPUT_EMBD], &shard->input_embd);
    if (!status && spec->embed && t->weight[MODEL_SLOT_INPUT_PROJECTION])
        status =
            load_matrix(shard, t->weight[MODEL_SLOT_INPUT_PROJECTION], &shard->input_projection);
    if (!status && spec->layer_begin == 0 && spec->layer_end > 0 &&
        t->weight[MODEL_SLOT_POSITION_EMBD])
        status = load_matrix(shard, t->weight[MODEL_SLOT_POSITION_EMBD], &shard->positions);
    for (uint32_t s = 0; s < MODEL_SLOT_COUNT && !status; s++) {
        bool wanted = (s == MODEL_SLOT_TOKEN_EMBD_NORM && (spec->embed || spec->head)) ||
                      (s == MODEL_SLOT_INPUT_EMBD_NORM && spec->embed) ||
                      (s == MODEL_SLOT_OUTPUT_NORM && spec->head);

        if (wanted && t->weight[s])
            status = load_vector(t->weight[s], &shard->model_vector[s]);
        if (!status && (wanted || (s == MODEL_SLOT_OUTPUT && spec->head)) && t->bias[s])
            status = load_vector(t->bias[s], &shard->model_bias[s]);
    }
    return status;
}

/* Divisors of the angles: the model's own, or those for long or short contexts. */
static const struct gguf_tensor *rope_divisors(const struct shard *shard)
{
    const struct gguf_tensor *const *weight = shard->model->tensors.weight;
    bool is_long = shard->spec.n_ctx_tokens > shard->model->hparams.rope[0].n_ctx_original;

    if (weight[MODEL_SLOT_ROPE_LONG] && is_long)
        return weight[MODEL_SLOT_ROPE_LONG];
    return weight[MODEL_SLOT_ROPE_SHORT] ? weight[MODEL_SLOT_ROPE_SHORT]
                                         : weight[MODEL_SLOT_ROPE_FREQS];
}

static enum status load_ropes(struct shard *shard)
{
    const struct hparams *hp = &shard->model->hparams;
    const struct gguf_tensor *tensor = rope_divisors(shard);
    float *divisors = NULL;
    enum status status = STATUS_OK;

    if (tensor)
        status = load_vector(tensor, &divisors);
    for (uint32_t i = 0; i < MODEL_MAX_ROPES && !status; i++) {
        if (hp->rope[i].n_values)
            status = rope_table_fill(&shard->rope[i], &hp->rope[i], i == 0 ? divisors : NULL);
    }
    mem_free(divisors);
    return status;
}

/* Says how far it is, in bytes of the file, after `n_layers` layers and the ends. */
static void tell_progress(const struct shard *shard, uint32_t n_layers)
{
    const struct shard_spec *spec = &shard->spec;
    struct shard_spec part = *spec;
    uint64_t done, all, done_mapped, all_mapped;

    if (!spec->on_load)
        return;
    part.layer_end = spec->layer_begin + n_layers;
    shard_weight_bytes(shard->model, &part, &done, &done_mapped);
    shard_weight_bytes(shard->model, spec, &all, &all_mapped);
    spec->on_load(spec->on_load_owner, done + done_mapped, all + all_mapped);
}

enum status shard_load(struct shard *shard)
{
    const struct shard_spec *spec = &shard->spec;
    uint32_t n = spec->layer_end - spec->layer_begin;
    enum status status = STATUS_OK;

    shard->layers = MEM_NEW_N(struct layer_weights, n);
    if (!shard->layers)
        return STATUS_NO_MEMORY;
    shard->releases = memory_is_short(shard);
    if (n)
        read_ahead(shard, spec->layer_begin);
    status = load_ends(shard);
    for (uint32_t i = 0; i < n && !status; i++) {
        tell_progress(shard, i);
        if (i + 1 < n)
            read_ahead(shard, spec->layer_begin + i + 1);
        status = load_layer(shard, &shard->model->tensors.layers[spec->layer_begin + i],
                            &shard->layers[i]);
    }
    if (!status)
        tell_progress(shard, n);
    return status ? status : load_ropes(shard);
}

static void unload_many(struct weight **weights, uint32_t n)
{
    for (uint32_t i = 0; weights && i < n; i++)
        weight_free(&weights[i]);
    mem_free(weights);
}

static void unload_layer(struct layer_weights *layer, const struct hparams *hp,
                         const struct layer_shape *shape)
{
    for (uint32_t s = 0; s < SLOT_COUNT; s++) {
        weight_free(&layer->matrix[s]);
        mem_free(layer->vector[s]);
        mem_free(layer->bias[s]);
    }
    for (int m = 0; m < EXPERT_MATRICES; m++)
        unload_many(layer->experts[m], hp->n_experts);
    for (int m = 0; m < HEAD_MATRICES; m++)
        unload_many(layer->heads[m], shape->n_heads);
}

void shard_unload(struct shard *shard)
{
    const struct hparams *hp = &shard->model->hparams;
    uint32_t n = shard->layers ? shard->spec.layer_end - shard->spec.layer_begin : 0;

    for (uint32_t i = 0; i < n; i++)
        unload_layer(&shard->layers[i], hp, &hp->layers[shard->spec.layer_begin + i]);
    mem_free(shard->layers);
    weight_free(&shard->token_embd);
    weight_free(&shard->separate_head);
    weight_free(&shard->positions);
    weight_free(&shard->input_embd);
    weight_free(&shard->input_projection);
    for (uint32_t s = 0; s < MODEL_SLOT_COUNT; s++) {
        mem_free(shard->model_vector[s]);
        mem_free(shard->model_bias[s]);
    }
    for (uint32_t i = 0; i < MODEL_MAX_ROPES; i++)
        rope_table_free(&shard->rope[i]);
}

void shard_weight_bytes(const struct model *model, const struct shard_spec *spec, uint64_t *own,
                        uint64_t *mapped)
{
    const struct model_info *info = model_info(model);
    const struct gguf_tensor *head = gguf_tensor_find(model->gguf, "output.weight");

    *own = *mapped = 0;
    for (size_t i = 0; i < gguf_tensor_count(model->gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(model->gguf, i);
        int64_t il = tensor_layer(tensor);
        bool wanted = tensor == head ? spec->head : spec->embed || (spec->head && info->tied);

        if (il >= 0)
            wanted = il >= spec->layer_begin && il < spec->layer_end && il < info->n_layers;
        if (wanted)
            *(form_maps(tensor, &spec->form) ? mapped : own) += form_bytes(tensor, &spec->form);
    }
}
