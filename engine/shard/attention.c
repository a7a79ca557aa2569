/* Multi-head attention over the paged KV cache, for any number of rows.
 *
 * Queries, keys and values are computed for all rows; each row is then finished on its own (bias,
 * norm, rotation) and its key and value are written to its page. Only then do the rows attend
 * (attend.c), each up to its own position, so rows of one pass see each other exactly as if they
 * had come one by one. */
#include "engine/shard/shard.h"

#include <math.h>
#include <string.h>

struct attention {
    struct pass *pass;
    float *qkv;
    size_t ld_qkv;
    size_t n_query; /* columns of qkv that are queries, and where the others begin */
    size_t key_at;
    size_t value_at;
    size_t gate_at;
    bool value_is_key; /* there is no matrix for values: keys before their norm are values */
};

static void norm_heads(const struct attention *a, uint32_t slot, float *x, uint32_t n_heads)
{
    const struct pass *pass = a->pass;
    const struct layer_tensors *tensors =
        &pass->shard->model->tensors.layers[pass->shard->spec.layer_begin + pass->layer];
    const struct gguf_tensor *tensor = tensors->weight[slot];
    const float *weight = pass->weights->vector[slot];
    uint32_t head = pass->shape->head_k;

    if (!tensor)
        return;
    if (tensor->dims[0] != head) {
        norm_row(pass->shard, x, x, weight, NULL, (size_t)n_heads * head);
        return;
    }
    for (uint32_t h = 0; h < n_heads; h++)
        norm_row(pass->shard, x + (size_t)h * head, x + (size_t)h * head,
                 weight + (tensor->dims[1] > 1 ? (size_t)h * head : 0), NULL, head);
}

static void add_bias(const struct pass *pass, uint32_t slot, float *x, size_t n)
{
    if (pass->weights->bias[slot])
        pass->shard->ops->add(x, pass->weights->bias[slot], n);
}

static void turn_heads(const struct attention *a, size_t row, float *x, uint32_t n_heads)
{
    const struct pass *pass = a->pass;
    const struct rope_table *table = &pass->shard->rope[pass->shape->rope];
    const float *angles = pass->shard->scratch.angles[pass->shape->rope] + row * table->n_values;

    if (!pass->shape->has_rope)
        return;
    for (uint32_t h = 0; h < n_heads; h++)
        rope_turn(pass->arch->rope, x + (size_t)h * pass->shape->head_k, angles, table->n_values);
}

static void norm_bare(const struct attention *a, float *x, uint32_t n_heads)
{
    uint32_t head = a->pass->shape->head_k;

    for (uint32_t h = 0; h < n_heads; h++)
        norm_row(a->pass->shard, x + (size_t)h * head, x + (size_t)h * head, NULL, NULL, head);
}

static void norm_queries_and_keys(const struct attention *a, float *query, float *key)
{
    if (a->pass->hparams->qk_bare_norm && a->pass->shape->has_rope) {
        norm_bare(a, query, a->pass->shape->n_heads);
        norm_bare(a, key, a->pass->shape->n_kv_heads);
    }
    norm_heads(a, SLOT_ATTN_Q_NORM, query, a->pass->shape->n_heads);
    norm_heads(a, SLOT_ATTN_K_NORM, key, a->pass->shape->n_kv_heads);
}

static void clamp(const struct pass *pass, float *x, size_t n)
{
    float most = pass->hparams->qkv_clamp;

    for (size_t i = 0; most > 0 && i < n; i++)
        x[i] = fmaxf(-most, fminf(most, x[i]));
}

/* Far positions look at more keys; their scores are spread wider. */
void heat_query(const struct pass *pass, float *query, size_t n, uint32_t pos)
{
    const struct hparams *hp = pass->hparams;
    float step = floorf(((float)pos + hp->temperature_offset) / (float)hp->temperature_floor);

    if (hp->temperature > 0 && pass->shape->temperature)
        pass->shard->ops->scale(query, logf(step + 1) * hp->temperature + 1, n);
}

static void store_row(const struct attention *a, const struct shard_row *row, const float *key,
                      const float *value)
{
    const struct kv *kv = a->pass->shard->kv;
    const struct kv_layer *layer = &kv->layers[a->pass->layer];
    kv_store *store = a->pass->shard->ops->kv_store;
    uint8_t *page = kv_page(kv, layer, row->slot, row->pos);
    uint32_t at = row->pos % SHARD_KV_BLOCK_TOKENS;

    for (uint32_t h = 0; !layer->stored && h < a->pass->shape->n_kv_heads; h++) {
        store(layer->key_type, false, key + (size_t)h * layer->head_k, layer->head_k, at,
              kv_keys(layer, page, h));
        store(layer->value_type, true, value + (size_t)h * layer->head_v, layer->head_v, at,
              kv_values(layer, page, h));
    }
}

/* Queries that bring gates come head by head: query, gate. Gates are moved behind the values. */
static void split_gates(const struct attention *a, float *query)
{
    size_t head = a->pass->shape->head_q;
    float *gate = query + a->gate_at;

    for (size_t h = 0; h < a->pass->shape->n_heads; h++) {
        memcpy(gate + h * head, query + (2 * h + 1) * head, head * sizeof *gate);
        memmove(query + h * head, query + 2 * h * head, head * sizeof *query);
    }
}

static void gate_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct attention *a = ctx;
    const struct scratch *scratch = &a->pass->shard->scratch;
    size_t n = a->n_query;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        const float *gate = a->qkv + r * a->ld_qkv + a->gate_at;
        float *out = scratch->attended + r * scratch->ld_attended;

        for (size_t i = 0; i < n; i++)
            out[i] /= 1 + expf(-gate[i]);
    }
}

/* Keys and values of one row, made ready to be kept. */
static void finish_kv(const struct attention *a, size_t row, float *key, float *value)
{
    const struct pass *pass = a->pass;
    const struct layer_shape *shape = pass->shape;
    uint32_t head = shape->head_v;

    turn_heads(a, row, key, shape->n_kv_heads);
    for (uint32_t h = 0; pass->arch->value_bare_norm && h < shape->n_kv_heads; h++)
        norm_row(pass->shard, value + (size_t)h * head, value + (size_t)h * head, NULL, NULL, head);
}

/* Keys and values that other layers use travel with the row, whichever stage those are on. */
static void lend_or_borrow(const struct attention *a, size_t row, float **key, float **value)
{
    const struct pass *pass = a->pass;
    const struct layer_shape *shape = pass->shape;
    size_t n_key = layer_key_floats(shape), n_value = layer_value_floats(shape);
    float *extra = pass->extra + row * pass->hparams->n_extra + shape->kv_at;

    if (shape->lends) {
        memcpy(extra, *key, n_key * sizeof(float));
        memcpy(extra + n_key, *value, n_value * sizeof(float));
    }
    if (shape->borrows) {
        *key = extra;
        *value = extra + n_key;
    }
}

static void finish_rows(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct attention *a = ctx;
    const struct pass *pass = a->pass;
    const struct layer_shape *shape = pass->shape;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        float *query = a->qkv + r * a->ld_qkv;
        float *key = query + a->key_at;
        float *value = query + a->value_at;

        if (pass->hparams->query_gate)
            split_gates(a, query);
        add_bias(pass, SLOT_ATTN_QKV, query, a->value_at + layer_value_floats(shape));
        add_bias(pass, SLOT_ATTN_Q, query, (size_t)shape->n_heads * shape->head_k);
        add_bias(pass, SLOT_ATTN_K, key, layer_key_floats(shape));
        add_bias(pass, SLOT_ATTN_V, value, layer_value_floats(shape));
        clamp(pass, query, a->value_at + layer_value_floats(shape));
        if (a->value_is_key)
            memcpy(value, key, layer_value_floats(shape) * sizeof(float));
        if (!pass->arch->qk_norm_after_rope)
            norm_queries_and_keys(a, query, key);
        turn_heads(a, r, query, shape->n_heads);
        if (!shape->borrows)
            finish_kv(a, r, key, value);
        if (pass->arch->qk_norm_after_rope)
            norm_queries_and_keys(a, query, key);
        lend_or_borrow(a, r, &key, &value);
        heat_query(pass, query, a->n_query, pass->rows[r].pos);
        store_row(a, &pass->rows[r], key, value);
    }
}

static void project(const struct attention *a, const float *in)
{
    const struct pass *pass = a->pass;
    struct weight *const *m = pass->weights->matrix;
    size_t n_embd = pass->hparams->n_embd;

    if (m[SLOT_ATTN_QKV]) {
        compute_matmul(pass->shard->compute, m[SLOT_ATTN_QKV], in, n_embd, pass->n_rows, a->qkv,
                       a->ld_qkv);
    } else {
        const struct weight *w[3] = {m[SLOT_ATTN_Q], m[SLOT_ATTN_K], m[SLOT_ATTN_V]};
        float *y[3] = {a->qkv, a->qkv + a->key_at, a->qkv + a->value_at};
        size_t ldy[3] = {a->ld_qkv, a->ld_qkv, a->ld_qkv};
        size_t n = !w[1] ? 1 : !w[2] ? 2 : 3;

        compute_matmul_many(pass->shard->compute, w, n, in, n_embd, pass->n_rows, y, ldy);
    }
}

void attention_run(struct pass *pass, const float *in, float *branch)
{
    const struct scratch *scratch = &pass->shard->scratch;
    struct attention a = {.pass = pass, .qkv = scratch->qkv, .ld_qkv = scratch->ld_qkv};

    a.n_query = (size_t)pass->shape->n_heads * pass->shape->head_q;
    a.key_at = a.n_query * (pass->hparams->query_gate ? 2 : 1);
    a.value_at = a.key_at + layer_key_floats(pass->shape);
    a.gate_at = a.value_at + layer_value_floats(pass->shape);
    a.value_is_key = pass->weights->matrix[SLOT_ATTN_K] && !pass->weights->matrix[SLOT_ATTN_V];
    project(&a, in);
    compute_parallel(pass->shard->compute, pass->n_rows, finish_rows, &a);
    attend(pass, a.qkv, a.ld_qkv, scratch->attended, scratch->ld_attended);
    if (pass->hparams->query_gate)
        compute_parallel(pass->shard->compute, pass->n_rows, gate_rows, &a);
    compute_matmul(pass->shard->compute, pass->weights->matrix[SLOT_ATTN_OUT], scratch->attended,
                   scratch->ld_attended, pass->n_rows, branch, pass->hparams->n_embd);
}
