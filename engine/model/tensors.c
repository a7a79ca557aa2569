/* Binding tensors by name.
 *
 * The architecture's row says which tensors a layer has; the metadata says how large they are. Here
 * both are compared with what the file holds: a tensor that is missing, has another shape, or is
 * there without being part of the architecture is an error that names it, because each of them
 * means that the result would be wrong. Only layers past the last one are ignored: files append
 * layers for multi-token prediction, which plain decoding does not use. */
#include "engine/model/tensors.h"

#include <stdio.h>
#include <string.h>

struct slot_info {
    const char *name;
    enum dim dims[3];
};

static const struct slot_info layer_slots[SLOT_COUNT] = {
#define X(id, name, d0, d1, d2) {name, {DIM_##d0, DIM_##d1, DIM_##d2}},
    LAYER_SLOTS(X)
#undef X
};

static const struct slot_info model_slots[MODEL_SLOT_COUNT] = {
#define X(id, name, d0, d1) {name, {DIM_##d0, DIM_##d1, DIM_ONE}},
    MODEL_SLOTS(X)
#undef X
};

struct binder {
    const struct gguf *gguf;
    const struct arch *arch;
    const struct hparams *hparams;
    const struct layer_shape *layer; /* NULL: a tensor of the whole model */
    bool *used;                      /* [tensors of the file] */
    struct fault *fault;
};

int64_t tensor_layer(const struct gguf_tensor *tensor)
{
    int64_t n = 0;
    size_t i = 4;

    if (tensor->name.n_bytes < 6 || memcmp(tensor->name.data, "blk.", 4) != 0)
        return -1;
    for (; i < tensor->name.n_bytes && tensor->name.data[i] >= '0' && tensor->name.data[i] <= '9';
         i++) {
        n = n * 10 + (tensor->name.data[i] - '0');
        if (n > MODEL_MAX_LAYERS)
            return n;
    }
    return i > 4 && i < tensor->name.n_bytes && tensor->name.data[i] == '.' ? n : -1;
}

/* A query or key norm covers one head, all heads alike, or each head with weights of its own. */
static bool norm_shape_fits(const struct gguf_tensor *tensor, uint64_t head, uint64_t n_heads)
{
    if (tensor->n_values != tensor->dims[0] * tensor->dims[1])
        return false;
    return (tensor->dims[0] == head && (tensor->dims[1] == 1 || tensor->dims[1] == n_heads)) ||
           (tensor->dims[0] == head * n_heads && tensor->dims[1] == 1);
}

static bool shape_fits(const struct binder *b, const struct gguf_tensor *tensor,
                       const enum dim dims[3])
{
    if (b->layer && dims[0] == DIM_Q_NORM)
        return norm_shape_fits(tensor, b->layer->head_k, b->layer->n_heads);
    if (b->layer && dims[0] == DIM_K_NORM)
        return norm_shape_fits(tensor, b->layer->head_k, b->layer->n_kv_heads);
    for (int d = 0; d < 3; d++) {
        uint64_t want = hparams_dim(b->hparams, b->layer, dims[d], b->arch->gate_in_up);

        if (tensor->dims[d] != want)
            return false;
    }
    return tensor->dims[3] == 1;
}

static enum status shape_fault(const struct binder *b, const struct gguf_tensor *tensor)
{
    return fault_set(
        b->fault, STATUS_FORMAT,
        "tensor %.*s has shape [%llu, %llu, %llu, %llu], which contradicts the metadata",
        (int)tensor->name.n_bytes, tensor->name.data, (unsigned long long)tensor->dims[0],
        (unsigned long long)tensor->dims[1], (unsigned long long)tensor->dims[2],
        (unsigned long long)tensor->dims[3]);
}

/* *out stays NULL where the tensor is optional and missing. */
static enum status bind_one(const struct binder *b, const char *name, const enum dim dims[3],
                            bool optional, const struct gguf_tensor **out)
{
    const struct gguf_tensor *tensor = gguf_tensor_find(b->gguf, name);

    if (!tensor && optional)
        return STATUS_OK;
    if (!tensor)
        return fault_set(b->fault, STATUS_UNSUPPORTED, "tensor %s is missing from the %s model",
                         name, b->arch->name);
    if (!shape_fits(b, tensor, dims))
        return shape_fault(b, tensor);
    b->used[tensor - gguf_tensor_at(b->gguf, 0)] = true;
    *out = tensor;
    return STATUS_OK;
}

static enum status bind_weight(const struct binder *b, const char *prefix,
                               const struct slot_info *slot, bool optional,
                               const struct gguf_tensor **out)
{
    char name[96];
    bool bare = slot >= layer_slots && slot < layer_slots + SLOT_COUNT &&
                (BARE_SLOTS >> (slot - layer_slots) & 1);

    snprintf(name, sizeof name, "%s%s%s", prefix, slot->name, bare ? "" : ".weight");
    return bind_one(b, name, slot->dims, optional, out);
}

static enum status bind_bias(const struct binder *b, const char *prefix,
                             const struct slot_info *slot, bool optional,
                             const struct gguf_tensor **out)
{
    bool is_vector = slot->dims[1] == DIM_ONE;
    enum dim dims[3] = {is_vector ? slot->dims[0] : slot->dims[1],
                        is_vector ? DIM_ONE : slot->dims[2], DIM_ONE};
    char name[96];

    snprintf(name, sizeof name, "%s%s.bias", prefix, slot->name);
    return bind_one(b, name, dims, optional, out);
}

/* A latent layer has its queries at once, or through a bottleneck. */
static uint64_t wanted_slots(const struct binder *b)
{
    const struct arch *arch = b->arch;
    uint64_t bottleneck = SLOT(LATENT_Q_A) | SLOT(LATENT_Q_A_NORM) | SLOT(LATENT_Q_B);
    uint64_t mixer = b->layer->kind == arch->kind ? arch->layer : arch->other_layer;

    if (b->layer->kind == LAYER_LATENT)
        mixer &= b->layer->q_rank ? ~SLOT(ATTN_Q) : ~bottleneck;
    if (!b->hparams->n_layer_input)
        mixer &= ~LAYER_INPUT_SLOTS;
    return mixer | (b->layer->experts ? arch->experts : arch->dense);
}

/* A shared expert is there with all its matrices or not at all. */
static enum status check_shared(const struct binder *b, uint32_t il, const struct layer_tensors *t)
{
    bool up = t->weight[SLOT_SHARED_UP] != NULL;

    if (up == (t->weight[SLOT_SHARED_GATE] != NULL) && up == (t->weight[SLOT_SHARED_DOWN] != NULL))
        return STATUS_OK;
    return fault_set(b->fault, STATUS_UNSUPPORTED, "tensors of blk.%u's shared expert are missing",
                     il);
}

static enum status bind_layer(const struct binder *b, uint32_t il, struct layer_tensors *out)
{
    uint64_t want = wanted_slots(b);
    uint64_t borrowed = b->layer->borrows ? SLOT(ATTN_K) | SLOT(ATTN_V) | SLOT(ATTN_K_NORM) : 0;
    uint64_t optional = b->arch->optional | borrowed;
    char prefix[24];

    snprintf(prefix, sizeof prefix, "blk.%u.", il);
    for (uint32_t s = 0; s < SLOT_COUNT; s++) {
        uint64_t bit = UINT64_C(1) << s;
        enum status status = STATUS_OK;

        if (want & bit & ~BIAS_ONLY_SLOTS)
            status = bind_weight(b, prefix, &layer_slots[s], optional & bit, &out->weight[s]);
        if (!status && (want & (b->arch->biases | b->arch->optional_biases) & bit))
            status = bind_bias(b, prefix, &layer_slots[s], b->arch->optional_biases & bit,
                               &out->bias[s]);
        if (status)
            return status;
        if (borrowed & bit) /* files have these matrices all the same */
            out->weight[s] = NULL;
    }
    return check_shared(b, il, out);
}

static enum status bind_model(const struct binder *b, struct model_tensors *out)
{
    uint32_t optional = b->arch->model_optional | MODEL_SLOT(OUTPUT);
    uint32_t want =
        (b->arch->model | optional) & ~(b->hparams->n_layer_input ? 0 : MODEL_INPUT_SLOTS);

    for (uint32_t s = 0; s < MODEL_SLOT_COUNT; s++) {
        uint32_t bit = 1u << s;
        enum status status = STATUS_OK;

        if (want & bit)
            status = bind_weight(b, "", &model_slots[s], optional & bit, &out->weight[s]);
        if (!status && (b->arch->model_biases & bit))
            status = bind_bias(b, "", &model_slots[s], false, &out->bias[s]);
        if (status)
            return status;
    }
    return STATUS_OK;
}

static enum status refuse_unknown(const struct binder *b)
{
    for (size_t i = 0; i < gguf_tensor_count(b->gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(b->gguf, i);

        if (!b->used[i] && tensor_layer(tensor) < b->hparams->n_layers)
            return fault_set(b->fault, STATUS_UNSUPPORTED,
                             "tensor %.*s is not part of architecture `%s` as skein knows it",
                             (int)tensor->name.n_bytes, tensor->name.data, b->arch->name);
    }
    return STATUS_OK;
}

enum status tensors_bind(const struct gguf *gguf, const struct arch *arch,
                         const struct hparams *hparams, struct model_tensors *out,
                         struct fault *fault)
{
    struct binder b = {.gguf = gguf, .arch = arch, .hparams = hparams, .fault = fault};
    enum status status;

    *out = (struct model_tensors){0};
    b.used = MEM_NEW_N(bool, gguf_tensor_count(gguf));
    out->layers = MEM_NEW_N(struct layer_tensors, hparams->n_layers);
    if (!b.used || !out->layers) {
        status = fault_set(fault, STATUS_NO_MEMORY, "out of memory");
        goto out;
    }
    status = bind_model(&b, out);
    for (uint32_t il = 0; il < hparams->n_layers && !status; il++) {
        b.layer = &hparams->layers[il];
        status = bind_layer(&b, il, &out->layers[il]);
    }
    if (!status)
        status = refuse_unknown(&b);
out:
    mem_free(b.used);
    if (status)
        tensors_free(out);
    return status;
}

void tensors_free(struct model_tensors *tensors)
{
    mem_free(tensors->layers);
    *tensors = (struct model_tensors){0};
}
