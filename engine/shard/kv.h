#ifndef SKEIN_ENGINE_SHARD_KV_H
#define SKEIN_ENGINE_SHARD_KV_H

/* Keys and values of every sequence on this shard, in pages of SHARD_KV_BLOCK_TOKENS tokens. */
#include "engine/model/hparams.h"

struct kv_layer { /* where a layer's part of a page begins, in floats */
    size_t key;   /* [n_kv_heads, SHARD_KV_BLOCK_TOKENS, head_k] */
    size_t value; /* [n_kv_heads, SHARD_KV_BLOCK_TOKENS, head_v] */
    uint32_t head_k, head_v;
    uint32_t value_step; /* floats from one token's value to the next */
    size_t state;        /* where the layer's part of a slot's state begins */
};

struct kv {
    uint32_t n_slots, n_blocks, n_free, blocks_per_slot, n_ctx_tokens;
    uint32_t *table;  /* [n_slots, blocks_per_slot], page numbers */
    uint32_t *length; /* [n_slots], tokens */
    uint32_t *ahead;  /* [n_slots], scratch of kv_extend */
    uint32_t *free;   /* [n_free], a stack */
    struct kv_layer *layers;
    float *pool; /* [n_blocks, block_floats]; pages become resident when they are used */
    size_t block_floats;
    float *state; /* [n_slots, state_floats], zero where a sequence begins */
    size_t state_floats;
    bool rewinds;
};

uint64_t kv_bytes(const struct layer_shape *layers, uint32_t n_layers,
                  const struct shard_spec *spec);
enum status kv_new(const struct layer_shape *layers, uint32_t n_layers,
                   const struct shard_spec *spec, bool rewinds, struct kv **out) MUST_USE;
void kv_free(struct kv **kv);

/* Makes room for all rows and lengthens their slots, or changes nothing. Errors: INVALID (a slot or
 * position that is not next), CONTEXT, NO_ROOM. */
enum status kv_extend(struct kv *kv, const struct shard_row *rows, size_t n_rows) MUST_USE;
/* Where some layer of the model, here or on another stage, has a state, which has no past to go
 * back to, anything but the end is the beginning. */
void kv_truncate(struct kv *kv, uint32_t slot, uint32_t from);

/* The page that holds token `pos` of a slot. */
static inline float *kv_block(const struct kv *kv, uint32_t slot, uint32_t pos)
{
    uint32_t block = kv->table[(size_t)slot * kv->blocks_per_slot + pos / SHARD_KV_BLOCK_TOKENS];

    return kv->pool + (size_t)block * kv->block_floats;
}

/* Keys of one head in a page: [SHARD_KV_BLOCK_TOKENS, head_k]; values value_step apart. */
static inline float *kv_keys(const struct kv_layer *layer, float *block, uint32_t head)
{
    return block + layer->key + (size_t)head * SHARD_KV_BLOCK_TOKENS * layer->head_k;
}

static inline float *kv_values(const struct kv_layer *layer, float *block, uint32_t head)
{
    return block + layer->value + (size_t)head * SHARD_KV_BLOCK_TOKENS * layer->value_step;
}

static inline float *kv_state(const struct kv *kv, uint32_t layer, uint32_t slot)
{
    return kv->state + (size_t)slot * kv->state_floats + kv->layers[layer].state;
}

#endif
