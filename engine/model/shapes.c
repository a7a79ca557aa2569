/* The numbers behind the symbols of tensor shapes (arch_table.h).
 *
 * All factors are bounded by hparams.h, so no product here overflows. */
#include "engine/model/hparams.h"

uint32_t delta_channels(const struct hparams *hp)
{
    return (2 * hp->delta_key_heads + hp->delta_value_heads) * hp->delta_head;
}

uint32_t layer_key_floats(const struct layer_shape *layer)
{
    return layer->n_kv_heads * layer->head_k;
}

uint32_t layer_value_floats(const struct layer_shape *layer)
{
    return layer->kind == LAYER_LATENT ? 0 : layer->n_kv_heads * layer->head_v;
}

static bool fits_blocks(uint32_t n)
{
    return n % 32 == 0;
}

enum kv_type layer_key_type(const struct layer_shape *layer, enum kv_type wanted)
{
    bool fits =
        fits_blocks(layer->head_k) && (layer->kind != LAYER_LATENT || fits_blocks(layer->head_v));

    return wanted == KV_Q8_0 && !fits ? KV_F16 : wanted;
}

enum kv_type layer_value_type(const struct layer_shape *layer, enum kv_type wanted)
{
    if (layer->kind == LAYER_LATENT)
        return layer_key_type(layer, wanted);
    return wanted == KV_Q8_0 && !fits_blocks(layer->head_v) ? KV_F16 : wanted;
}

uint64_t kv_row_bytes(enum kv_type type, uint32_t n)
{
    switch (type) {
    case KV_F16:
        return 2 * (uint64_t)n;
    case KV_Q8_0:
        return (uint64_t)n / 32 * 34;
    default:
        return 4 * (uint64_t)n;
    }
}

uint64_t layer_kv_bytes(const struct layer_shape *layer, enum kv_type wanted)
{
    uint64_t value = layer_value_floats(layer)
                         ? kv_row_bytes(layer_value_type(layer, wanted), layer->head_v)
                         : 0;

    return layer->n_kv_heads * (kv_row_bytes(layer_key_type(layer, wanted), layer->head_k) + value);
}

static uint64_t layer_dim(const struct hparams *hp, const struct layer_shape *layer, enum dim dim,
                          bool gate_in_up)
{
    uint64_t q = (uint64_t)layer->n_heads * layer->head_q;

    switch (dim) {
    case DIM_Q:
        return q;
    case DIM_Q_PROJECTION:
        return q * (hp->query_gate ? 2 : 1);
    case DIM_Q_RANK:
        return layer->q_rank;
    case DIM_KV_RANK:
        return layer->kv_rank;
    case DIM_NOPE:
        return layer->head_q - (layer->head_k - layer->kv_rank);
    case DIM_HEAD_OUT:
        return layer->head_out;
    case DIM_K:
        return layer_key_floats(layer);
    case DIM_V:
        return layer_value_floats(layer);
    case DIM_QKV:
        if (layer->kind == LAYER_DELTA)
            return delta_channels(hp);
        return q + layer_key_floats(layer) + layer_value_floats(layer);
    case DIM_ATT:
        return (uint64_t)layer->n_heads * layer->head_out;
    case DIM_HEADS:
        return layer->n_heads;
    case DIM_FF:
        return layer->n_ff;
    case DIM_UP:
        return gate_in_up ? 2 * (uint64_t)layer->n_ff : layer->n_ff;
    case DIM_EXPERTS:
        return hp->n_experts;
    case DIM_EXPERT_FF:
        return hp->n_expert_ff;
    case DIM_SHARED_FF:
        return hp->n_shared_ff;
    default:
        return 0;
    }
}

uint64_t hparams_dim(const struct hparams *hparams, const struct layer_shape *layer, enum dim dim,
                     bool gate_in_up)
{
    switch (dim) {
    case DIM_ONE:
        return 1;
    case DIM_EMBD:
        return hparams->n_embd;
    case DIM_VOCAB:
        return hparams->n_vocab;
    case DIM_CONTEXT:
        return hparams->n_ctx_train;
    case DIM_EMBD_3:
        return 3 * (uint64_t)hparams->n_embd;
    case DIM_KERNEL:
        return hparams->conv_taps;
    case DIM_DELTA_V:
        return (uint64_t)hparams->delta_value_heads * hparams->delta_head;
    case DIM_DELTA_HEADS:
        return hparams->delta_value_heads;
    case DIM_DELTA_HEADS_2:
        return 2 * (uint64_t)hparams->delta_value_heads;
    case DIM_DELTA_HEAD:
        return hparams->delta_head;
    case DIM_LAYER_INPUT:
        return hparams->n_layer_input;
    case DIM_LAYER_INPUTS:
        return (uint64_t)hparams->n_layer_input * hparams->n_layers;
    case DIM_ROPE_PAIRS:
        return hparams->rope[0].n_values / 2;
    default:
        return layer ? layer_dim(hparams, layer, dim, gate_in_up) : 0;
    }
}
