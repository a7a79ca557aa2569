#ifndef SKEIN_ENGINE_SHARD_KV_H
#define SKEIN_ENGINE_SHARD_KV_H

/* Keys and values of every sequence on this shard, in pages of SHARD_KV_BLOCK_TOKENS tokens.
 *
 * A page holds the keys and values of each KV head side by side, laid out as attend.h says, in the
 * type of shard_spec.form.kv_type. A layer's pages are one array, so that a sequence which got its
 * pages in order is read as one stream. A row is rounded once, when it is written. Q8_0 has blocks
 * of 32 values: heads of another width are kept in F16 (layer_key_type, layer_value_type). Where
 * keys are values too (MLA), there is one part for both, in one type. kv_bytes, model_costs and
 * shard_need count with the same layer_kv_bytes, so they agree to the byte, but where layers share
 * keys and values: there the costs count all of them, since any stage may be the one that keeps a
 * copy, and a shard takes less. */
#include "engine/kernels/kernels.h"
#include "engine/model/hparams.h"

struct kv_layer {             /* bytes unless said otherwise */
    size_t pages;             /* where the layer's pages begin in the pool */
    size_t page, head, value; /* bytes of a page, of a head in it, of the keys before values */
    enum kv_type key_type, value_type;
    bool latent; /* keys lie by token and are values too */
    bool stored; /* an earlier layer of the shard writes them */
    uint32_t head_k, head_v;
    uint32_t value_cols; /* values of a row, of which the first head_v count */
    size_t state;        /* where the layer's part of a slot's state begins, in floats */
};

struct kv {
    uint32_t n_slots, n_blocks, n_free, blocks_per_slot, n_ctx_tokens;
    uint32_t *table;         /* [n_slots, blocks_per_slot], page numbers */
    uint32_t *length;        /* [n_slots], tokens */
    uint32_t *ahead;         /* [n_slots], scratch of kv_extend */
    uint32_t *free;          /* [n_free], a stack */
    struct kv_layer *layers; /* [n_layers] */
    uint32_t n_layers;
    uint8_t *pool; /* [n_layers][n_blocks]; pages become resident when they are used */
    size_t pool_bytes;
    float *state; /* [n_slots, state_floats], zero where a sequence begins */
    size_t state_floats;
    bool rewinds;
};

uint64_t kv_bytes(const struct layer_shape *layers, uint32_t n_layers,
                  const struct shard_spec *spec);
enum status kv_new(const struct layer_shape *layers, uint32_t n_layers,
                   const struct shard_spec *spec, bool rewinds, struct kv **out) MUST_USE;
void kv_free(struct kv **kv);
/* Makes resident what the first n_tokens of a new pool take: a slot's first pages and its state. */
void kv_touch(struct kv *kv, uint32_t n_tokens);

/* Makes room for all rows and lengthens their slots, or changes nothing. Errors: INVALID (a slot or
 * position that is not next), CONTEXT, NO_ROOM. */
enum status kv_extend(struct kv *kv, const struct shard_row *rows, size_t n_rows) MUST_USE;
/* Where some layer of the model, here or on another stage, has a state, which has no past to go
 * back to, anything but the end is the beginning. */
void kv_truncate(struct kv *kv, uint32_t slot, uint32_t from);

/* Copies all layers' page that holds token `from` of a slot over the one that holds `to`. */
void kv_copy_page(const struct kv *kv, uint32_t slot, uint32_t from, uint32_t to);

/* A layer's page that holds token `pos` of a slot. */
static inline uint8_t *kv_page(const struct kv *kv, const struct kv_layer *layer, uint32_t slot,
                               uint32_t pos)
{
    uint32_t block = kv->table[(size_t)slot * kv->blocks_per_slot + pos / SHARD_KV_BLOCK_TOKENS];

    return kv->pool + layer->pages + block * layer->page;
}

/* One head's keys in a page, and its values. */
static inline uint8_t *kv_keys(const struct kv_layer *layer, uint8_t *page, uint32_t head)
{
    return page + head * layer->head;
}

static inline uint8_t *kv_values(const struct kv_layer *layer, uint8_t *page, uint32_t head)
{
    return page + head * layer->head + layer->value;
}

static inline float *kv_state(const struct kv *kv, uint32_t layer, uint32_t slot)
{
    return kv->state + (size_t)slot * kv->state_floats + kv->layers[layer].state;
}

#endif
