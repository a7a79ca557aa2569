/* Paged keys and values.
 *
 * A page holds SHARD_KV_BLOCK_TOKENS tokens of one sequence for all layers of the shard, so that
 * the budget is one number and sequences of any length share it. Free pages are a stack: the page
 * that was used last is used first, and memory that has never been needed never becomes resident.
 * Within a page, the keys of one head lie together, then its values, then the next head, which is
 * the order in which attention reads them; pages in use follow each other, layer by layer, in huge
 * pages where the system gives them. So a long context is read as weights are: a core's prefetcher
 * follows one straight stream.
 *
 * Layers that share keys and values have one part; the first of them in the shard writes it.
 *
 * Layers that keep a state instead (convolutions, delta nets) have a fixed number of floats per
 * slot. A state knows only the present: a sequence that is cut is begun again.
 *
 * kv_extend first walks the rows without changing anything, then takes the pages: a pass that does
 * not fit leaves every sequence as it was. */
#include "engine/shard/kv.h"
#include "engine/kernels/pack.h"

#include <assert.h>
#include <string.h>

/* The layer before it whose keys and values layer i uses too; i where there is none in the shard.
 */
static uint32_t kv_owner(const struct layer_shape *layers, uint32_t i)
{
    for (uint32_t j = 0; layers[i].borrows && j < i; j++) {
        if (layers[j].owner == layers[i].owner)
            return j;
    }
    return i;
}

static uint64_t page_bytes(const struct layer_shape *layers, uint32_t n_layers, enum kv_type type)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < n_layers; i++)
        bytes +=
            kv_owner(layers, i) < i ? 0 : layer_kv_bytes(&layers[i], type) * SHARD_KV_BLOCK_TOKENS;
    return bytes;
}

static size_t slot_floats(const struct layer_shape *layers, uint32_t n_layers)
{
    size_t floats = 0;

    for (uint32_t i = 0; i < n_layers; i++)
        floats += layers[i].state_floats;
    return floats;
}

uint64_t kv_bytes(const struct layer_shape *layers, uint32_t n_layers,
                  const struct shard_spec *spec)
{
    return page_bytes(layers, n_layers, spec->form.kv_type) * spec->n_kv_blocks +
           (uint64_t)slot_floats(layers, n_layers) * spec->n_slots * sizeof(float);
}

/* False where the pool would be larger than memory can be. */
static bool kv_lay_out(struct kv *kv, const struct layer_shape *layers, enum kv_type wanted)
{
    for (uint32_t i = 0; i < kv->n_layers; i++) {
        const struct layer_shape *shape = &layers[i];
        struct kv_layer *layer = &kv->layers[i];
        size_t bytes;

        if (kv_owner(layers, i) < i) {
            *layer = kv->layers[kv_owner(layers, i)];
            layer->stored = true;
            continue;
        }
        *layer = (struct kv_layer){.head_k = shape->head_k,
                                   .head_v = shape->head_v,
                                   .latent = shape->kind == LAYER_LATENT,
                                   .key_type = layer_key_type(shape, wanted),
                                   .value_type = layer_value_type(shape, wanted),
                                   .pages = kv->pool_bytes,
                                   .state = kv->state_floats};
        layer->value_cols = layer->latent ? shape->head_k : shape->head_v;
        layer->page = layer_kv_bytes(shape, wanted) * SHARD_KV_BLOCK_TOKENS;
        layer->head = shape->n_kv_heads ? layer->page / shape->n_kv_heads : 0;
        if (!layer->latent)
            layer->value = kv_row_bytes(layer->key_type, shape->head_k) * SHARD_KV_BLOCK_TOKENS;
        kv->state_floats += shape->state_floats;
        if (__builtin_mul_overflow(layer->page, (size_t)kv->n_blocks, &bytes) ||
            __builtin_add_overflow(kv->pool_bytes, bytes, &kv->pool_bytes))
            return false;
    }
    return true;
}

enum status kv_new(const struct layer_shape *layers, uint32_t n_layers,
                   const struct shard_spec *spec, bool rewinds, struct kv **out)
{
    struct kv *kv = MEM_NEW(struct kv);

    *out = NULL;
    if (!kv)
        return STATUS_NO_MEMORY;
    kv->n_slots = spec->n_slots;
    kv->n_blocks = spec->n_kv_blocks;
    kv->n_ctx_tokens = spec->n_ctx_tokens;
    kv->rewinds = rewinds;
    kv->blocks_per_slot = (spec->n_ctx_tokens + SHARD_KV_BLOCK_TOKENS - 1) / SHARD_KV_BLOCK_TOKENS;
    kv->table = MEM_NEW_N(uint32_t, (size_t)kv->n_slots * kv->blocks_per_slot);
    kv->length = MEM_NEW_N(uint32_t, kv->n_slots);
    kv->ahead = MEM_NEW_N(uint32_t, kv->n_slots);
    kv->free = MEM_NEW_N(uint32_t, kv->n_blocks);
    kv->layers = MEM_NEW_N(struct kv_layer, n_layers);
    kv->n_layers = n_layers;
    if (kv->layers && kv_lay_out(kv, layers, spec->form.kv_type) && kv->pool_bytes)
        kv->pool = pages_new(kv->pool_bytes);
    if (kv->state_floats)
        kv->state = MEM_NEW_N(float, kv->n_slots * kv->state_floats);
    if ((kv->state_floats && !kv->state) || !kv->table || !kv->length || !kv->ahead || !kv->free ||
        !kv->layers || (kv->pool_bytes && !kv->pool)) {
        kv_free(&kv);
        return STATUS_NO_MEMORY;
    }
    for (uint32_t i = 0; i < kv->n_blocks; i++)
        kv->free[i] = kv->n_blocks - 1 - i;
    kv->n_free = kv->n_blocks;
    *out = kv;
    return STATUS_OK;
}

/* The first pages taken are those at the beginning of each layer's part. */
void kv_touch(struct kv *kv, uint32_t n_tokens)
{
    uint32_t n_blocks = (n_tokens + SHARD_KV_BLOCK_TOKENS - 1) / SHARD_KV_BLOCK_TOKENS;

    assert(kv->n_free == kv->n_blocks);
    if (n_blocks > kv->n_blocks)
        n_blocks = kv->n_blocks;
    for (uint32_t i = 0; i < kv->n_layers; i++) {
        if (!kv->layers[i].stored && kv->layers[i].page)
            pages_touch(kv->pool + kv->layers[i].pages, kv->layers[i].page * n_blocks);
    }
    if (kv->state)
        pages_touch(kv->state, kv->state_floats * sizeof(float));
}

void kv_free(struct kv **kv)
{
    if (!*kv)
        return;
    mem_free((*kv)->table);
    mem_free((*kv)->length);
    mem_free((*kv)->ahead);
    mem_free((*kv)->free);
    mem_free((*kv)->layers);
    if ((*kv)->pool)
        pages_free((*kv)->pool, (*kv)->pool_bytes);
    mem_free((*kv)->state);
    mem_free(*kv);
    *kv = NULL;
}

void kv_copy_page(const struct kv *kv, uint32_t slot, uint32_t from, uint32_t to)
{
    for (uint32_t i = 0; i < kv->n_layers; i++) {
        const struct kv_layer *layer = &kv->layers[i];

        if (!layer->stored)
            memcpy(kv_page(kv, layer, slot, to), kv_page(kv, layer, slot, from), layer->page);
    }
}

/* How many pages the rows need beyond those their slots have. */
static enum status kv_check(struct kv *kv, const struct shard_row *rows, size_t n_rows,
                            uint32_t *n_pages)
{
    *n_pages = 0;
    for (size_t i = 0; i < n_rows; i++) {
        if (rows[i].slot >= kv->n_slots)
            return STATUS_INVALID;
        kv->ahead[rows[i].slot] = kv->length[rows[i].slot];
    }
    for (size_t i = 0; i < n_rows; i++) {
        uint32_t *next = &kv->ahead[rows[i].slot];

        if (rows[i].pos != *next)
            return STATUS_INVALID;
        if (*next >= kv->n_ctx_tokens)
            return STATUS_CONTEXT;
        *n_pages += *next % SHARD_KV_BLOCK_TOKENS == 0;
        (*next)++;
    }
    return STATUS_OK;
}

enum status kv_extend(struct kv *kv, const struct shard_row *rows, size_t n_rows)
{
    uint32_t n_pages;
    enum status status = kv_check(kv, rows, n_rows, &n_pages);

    if (status)
        return status;
    if (n_pages > kv->n_free)
        return STATUS_NO_ROOM;
    for (size_t i = 0; i < n_rows; i++) {
        uint32_t slot = rows[i].slot;

        if (rows[i].pos % SHARD_KV_BLOCK_TOKENS == 0)
            kv->table[(size_t)slot * kv->blocks_per_slot + rows[i].pos / SHARD_KV_BLOCK_TOKENS] =
                kv->free[--kv->n_free];
        if (rows[i].pos == 0 && kv->state)
            memset(kv->state + (size_t)slot * kv->state_floats, 0,
                   kv->state_floats * sizeof(float));
        kv->length[slot] = rows[i].pos + 1;
    }
    return STATUS_OK;
}

void kv_truncate(struct kv *kv, uint32_t slot, uint32_t from)
{
    uint32_t keep;
    uint32_t have;

    assert(slot < kv->n_slots);
    if (from >= kv->length[slot])
        return;
    from = kv->rewinds ? from : 0;
    keep = (from + SHARD_KV_BLOCK_TOKENS - 1) / SHARD_KV_BLOCK_TOKENS;
    have = (kv->length[slot] + SHARD_KV_BLOCK_TOKENS - 1) / SHARD_KV_BLOCK_TOKENS;
    for (uint32_t b = have; b > keep; b--)
        kv->free[kv->n_free++] = kv->table[(size_t)slot * kv->blocks_per_slot + b - 1];
    kv->length[slot] = from;
}
