/* Rows over the pages of their sequences: which queries go together, and what comes out.
 *
 * Rows of a pass that follow each other in one slot form a tile with the query heads that share a
 * KV head, up to ATTEND_QUERIES queries: a page of keys and values is read once for all of them. At
 * decode a tile is one row, at prefill some rows. A tile and a KV head are a work item; items of
 * one head lie together, so that its pages stay near the core that reads them.
 *
 * A query passes over the pages it sees in ascending order, and its sums are its own (attend.h), so
 * a row's result is the same bits whatever its tile, the batch, the chunking, the threads and the
 * splits. Nothing can fail here: kv_extend has made the pages. */
#include "engine/shard/shard.h"

#include <math.h>
#include <string.h>

struct attend {
    const struct pass *pass;
    const float *queries;
    size_t ld_queries;
    float *out;
    size_t ld_out;
    uint32_t group;    /* query heads of a KV head */
    uint32_t heads;    /* of them in one item */
    uint32_t kv_heads; /* of one item */
    size_t parts;      /* items that share rows and KV heads */
    size_t n_tiles;    /* of rows */
};

struct item { /* one row of tiles: KV heads that go over the pages together */
    size_t first_row, n_rows;
    uint32_t kv_head, n_kv_heads;
    uint32_t first, n_heads; /* query heads of each */
};

/* The slope of a head's penalty for distance (ALiBi, Press et al., 2022). Head counts that are no
 * power of two take the odd slopes of the next one for the rest. */
static float alibi_slope(const struct pass *pass, uint32_t head)
{
    uint32_t whole = 1;
    float bias = pass->hparams->alibi_bias;

    if (!(bias > 0))
        return 0;
    while (whole * 2 <= pass->shape->n_heads)
        whole *= 2;
    return head < whole ? exp2f(-bias / (float)whole * (float)(head + 1))
                        : exp2f(-bias / 2 / (float)whole * (float)(2 * (head - whole) + 1));
}

/* The first position that a row at `pos` sees. */
static uint32_t first_seen(const struct layer_shape *shape, uint32_t pos)
{
    if (shape->window && pos + 1 > shape->window)
        return pos + 1 - shape->window;
    return shape->chunk ? pos - pos % shape->chunk : 0;
}

static void tile_start(const struct attend *a, const struct item *item, uint32_t kv_head,
                       struct attend_tile *tile)
{
    const struct pass *pass = a->pass;
    const struct kv_layer *layer = &pass->shard->kv->layers[pass->layer];
    uint32_t n = (uint32_t)item->n_rows * item->n_heads;

    tile->n_queries = n;
    tile->head_k = layer->head_k;
    tile->head_v = layer->head_v;
    tile->key_type = layer->key_type;
    tile->value_type = layer->value_type;
    tile->keys_by_token = layer->latent;
    tile->value_cols = layer->value_cols;
    tile->scale = pass->hparams->attention_scale;
    tile->cap = pass->hparams->attention_cap;
    for (uint32_t q = 0; q < n; q++) {
        size_t row = item->first_row + q / item->n_heads;
        uint32_t head = kv_head * a->group + item->first + q % item->n_heads;
        const float *query = a->queries + row * a->ld_queries + (size_t)head * layer->head_k;

        for (size_t d = 0; d < layer->head_k; d++)
            tile->queries[d * n + q] = query[d];
        tile->begin[q] = first_seen(pass->shape, pass->rows[row].pos);
        tile->end[q] = pass->rows[row].pos + 1;
        tile->slope[q] = alibi_slope(pass, head);
        tile->most[q] = -INFINITY;
    }
    memset(tile->sums, 0, n * sizeof tile->sums[0]);
    memset(tile->out, 0, (size_t)n * layer->head_v * sizeof *tile->out);
}

/* A sink is one more score, of no key: it takes part of the weight and adds nothing. */
static float weight_of(const struct attend_tile *tile, uint32_t q, const float *sink)
{
    float most = tile->most[q];
    float sum = 0;
    float largest;

    for (int i = 0; i < ATTEND_LANES; i++)
        sum += tile->sums[q][i];
    if (!sink)
        return 1 / sum;
    largest = *sink > most ? *sink : most;
    sum = sum * expf(most - largest) + expf(*sink - largest);
    return expf(most - largest) / sum;
}

static void tile_finish(const struct attend *a, const struct item *item, uint32_t kv_head,
                        struct attend_tile *tile)
{
    const float *sinks = a->pass->weights->vector[SLOT_ATTN_SINKS];
    size_t head_v = tile->head_v;

    for (uint32_t q = 0; q < tile->n_queries; q++) {
        size_t row = item->first_row + q / item->n_heads;
        uint32_t head = kv_head * a->group + item->first + q % item->n_heads;
        float *out = a->out + row * a->ld_out + head * head_v;

        memcpy(out, tile->out + q * head_v, head_v * sizeof *out);
        a->pass->shard->ops->scale(out, weight_of(tile, q, sinks ? &sinks[head] : NULL), head_v);
    }
}

static void attend_item(const struct attend *a, const struct item *item, struct attend_tile *tiles)
{
    const struct pass *pass = a->pass;
    const struct kv *kv = pass->shard->kv;
    const struct kv_layer *layer = &kv->layers[pass->layer];
    uint32_t slot = pass->rows[item->first_row].slot;
    uint32_t begin;
    uint32_t end;

    for (uint32_t h = 0; h < item->n_kv_heads; h++)
        tile_start(a, item, item->kv_head + h, &tiles[h]);
    begin = tiles->begin[0] - tiles->begin[0] % SHARD_KV_BLOCK_TOKENS;
    end = tiles->end[tiles->n_queries - 1];
    for (uint32_t pos = begin; pos < end; pos += SHARD_KV_BLOCK_TOKENS) {
        uint8_t *page = kv_page(kv, layer, slot, pos);

        for (uint32_t h = 0; h < item->n_kv_heads; h++)
            pass->shard->ops->attend_page(&tiles[h], kv_keys(layer, page, item->kv_head + h),
                                          kv_values(layer, page, item->kv_head + h), pos);
    }
    for (uint32_t h = 0; h < item->n_kv_heads; h++)
        tile_finish(a, item, item->kv_head + h, &tiles[h]);
}

/* Item: ((KV heads · parts) + part) · tiles + tile. */
static void attend_items(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct attend *a = ctx;
    const struct scratch *scratch = &a->pass->shard->scratch;
    uint32_t n_kv_heads = a->pass->shape->n_kv_heads;

    for (size_t i = begin; i < end; i++) {
        size_t tile = i % a->n_tiles;
        struct item item = {.first_row = scratch->tile_rows[tile],
                            .kv_head = (uint32_t)(i / a->n_tiles / a->parts) * a->kv_heads,
                            .first = (uint32_t)(i / a->n_tiles % a->parts) * a->heads};

        item.n_rows = scratch->tile_rows[tile + 1] - item.first_row;
        item.n_heads = a->group - item.first < a->heads ? a->group - item.first : a->heads;
        item.n_kv_heads =
            n_kv_heads - item.kv_head < a->kv_heads ? n_kv_heads - item.kv_head : a->kv_heads;
        attend_item(a, &item, &scratch->tiles[thread * TILE_KV_HEADS]);
    }
}

/* Runs of rows in one slot, cut into tiles. */
static size_t plan_tiles(const struct pass *pass, size_t most_rows, uint32_t *first_rows)
{
    size_t n_tiles = 0;

    for (size_t r = 0; r < pass->n_rows; r++) {
        if (r == 0 || pass->rows[r].slot != pass->rows[r - 1].slot ||
            r - first_rows[n_tiles - 1] == most_rows)
            first_rows[n_tiles++] = (uint32_t)r;
    }
    first_rows[n_tiles] = (uint32_t)pass->n_rows;
    return n_tiles;
}

/* Where there are fewer KV heads and tiles than threads, threads share the query heads of a KV
 * head: they read the same pages, from memory once and from the shared cache after that. */
static void share_heads(struct attend *a)
{
    size_t n_threads = compute_threads(a->pass->shard->compute);
    size_t items = a->n_tiles * a->pass->shape->n_kv_heads;
    size_t parts = (a->group + a->heads - 1) / a->heads;

    while (items * parts < n_threads && parts < a->group)
        parts++;
    a->heads = (uint32_t)((a->group + parts - 1) / parts);
    a->parts = (a->group + a->heads - 1) / a->heads;
}

/* How many KV heads go over the pages together. Where each row is a tile, memory sets the pace: the
 * more heads, the longer the stream, and two items for each thread are enough. Where tiles have
 * many queries, one head's pages stay in the cache for the next tile. */
static uint32_t heads_together(const struct attend *a)
{
    uint32_t n_threads = compute_threads(a->pass->shard->compute);
    uint32_t n_kv_heads = a->pass->shape->n_kv_heads;
    size_t items = n_threads > 1 ? 2 * (size_t)n_threads : 1;
    size_t most = a->n_tiles * a->parts * n_kv_heads / items;

    if (a->n_tiles < a->pass->n_rows || a->heads > ATTEND_QUERIES / 2 || most < 1)
        return 1;
    if (most > n_kv_heads)
        most = n_kv_heads;
    return most < TILE_KV_HEADS ? (uint32_t)most : TILE_KV_HEADS;
}

void attend(const struct pass *pass, const float *queries, size_t ld_queries, float *out,
            size_t ld_out)
{
    struct attend a = {.pass = pass,
                       .queries = queries,
                       .ld_queries = ld_queries,
                       .out = out,
                       .ld_out = ld_out,
                       .group = pass->shape->n_heads / pass->shape->n_kv_heads};

    a.heads = a.group < ATTEND_QUERIES ? a.group : ATTEND_QUERIES;
    a.n_tiles = plan_tiles(pass, ATTEND_QUERIES / a.heads, pass->shard->scratch.tile_rows);
    share_heads(&a);
    a.kv_heads = heads_together(&a);
    compute_parallel(pass->shard->compute,
                     a.n_tiles * a.parts *
                         ((pass->shape->n_kv_heads + a.kv_heads - 1) / a.kv_heads),
                     attend_items, &a);
}
