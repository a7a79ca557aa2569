/* A long context without the hour it takes to compute one.
 *
 * What decode costs at position 16,384 depends on how much KV it reads, not on what that KV says.
 * So the first page of a sequence, which a real pass filled, is copied to every page up to the
 * wanted length: each page is memory of its own, resident, and in the layout and type that
 * attention reads, whatever these are. Only benchmarks ask for this; no state that layers keep
 * beside the pages is moved on.
 *
 * What fails: nothing to copy yet, or a length that the slot or the budget has no room for; then
 * nothing has changed. */
#include "engine/shard/shard.h"

#include <string.h>

struct repeat {
    const struct kv *kv;
    uint32_t slot, first; /* page */
};

static void copy_pages(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct repeat *repeat = ctx;
    const struct kv *kv = repeat->kv;

    (void)thread;
    for (size_t page = repeat->first + begin; page < repeat->first + end; page++)
        kv_copy_page(kv, repeat->slot, 0, (uint32_t)page * SHARD_KV_BLOCK_TOKENS);
}

enum status shard_repeat(struct shard *shard, uint32_t slot, uint32_t n_tokens)
{
    struct kv *kv = shard->kv;
    uint32_t length = slot < kv->n_slots ? kv->length[slot] : 0;
    uint32_t n_pages = (n_tokens + SHARD_KV_BLOCK_TOKENS - 1) / SHARD_KV_BLOCK_TOKENS;
    struct repeat repeat = {kv, slot, length / SHARD_KV_BLOCK_TOKENS};
    struct shard_row *rows;
    enum status status;

    if (length < SHARD_KV_BLOCK_TOKENS || n_tokens < length)
        return STATUS_INVALID;
    rows = MEM_NEW_N(struct shard_row, n_tokens - length);
    if (!rows)
        return STATUS_NO_MEMORY;
    for (uint32_t i = length; i < n_tokens; i++)
        rows[i - length] = (struct shard_row){.slot = slot, .pos = i};
    status = kv_extend(kv, rows, n_tokens - length);
    mem_free(rows);
    if (!status)
        compute_parallel(shard->compute, n_pages - repeat.first, copy_pages, &repeat);
    return status;
}
