/* Work memory of a shard.
 *
 * Everything that a pass writes has its place from the time the shard is opened, so that the path
 * of a token allocates nothing and its memory is known before; it is made resident then, so that no
 * page fault is left for a token. One walk over the fields serves twice: it measures, and it hands
 * out places. */
#include "engine/kernels/pack.h"
#include "engine/shard/shard.h"

struct places {
    uint8_t *memory; /* NULL while measuring */
    size_t at;
};

static void *place(struct places *places, size_t n_rows, size_t n_cols)
{
    size_t at = places->at;

    places->at = (at + n_rows * n_cols * sizeof(float) + 63) & ~(size_t)63;
    return places->memory ? places->memory + at : NULL;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t measure_qkv(const struct hparams *hp, const struct layer_shape *layer)
{
    size_t q = hparams_dim(hp, layer, DIM_Q, false);

    switch (layer->kind) {
    case LAYER_LATENT:
        return q + layer->head_k;
    case LAYER_CONV:
        return 3 * (size_t)hp->n_embd;
    case LAYER_DELTA: /* channels, gates, and two numbers per head */
        return delta_channels(hp) + hp->delta_value_heads * ((size_t)hp->delta_head + 2);
    case LAYER_ATTENTION:
        break;
    }
    return hparams_dim(hp, layer, DIM_QKV, false) + (hp->query_gate ? 2 * q : 0);
}

static size_t measure_attended(const struct hparams *hp, const struct layer_shape *layer)
{
    switch (layer->kind) {
    case LAYER_CONV:
        return hp->n_embd;
    case LAYER_DELTA:
        return hparams_dim(hp, layer, DIM_DELTA_V, false);
    case LAYER_LATENT:
    case LAYER_ATTENTION:
        break;
    }
    return hparams_dim(hp, layer, DIM_ATT, false);
}

static void measure_layer(const struct hparams *hp, const struct layer_shape *layer,
                          struct scratch *s)
{
    size_t ff = larger(layer->n_ff, larger(hp->n_expert_ff, hp->n_shared_ff));

    s->ld_qkv = larger(s->ld_qkv, measure_qkv(hp, layer));
    s->ld_attended = larger(s->ld_attended, measure_attended(hp, layer));
    s->ld_ff = larger(s->ld_ff, 2 * ff);
    if (layer->kind == LAYER_LATENT) {
        s->ld_latent = larger(s->ld_latent, (size_t)layer->n_heads * layer->head_k);
        s->ld_q_rank = larger(s->ld_q_rank, layer->q_rank);
    }
}

/* Each thread has a tile of queries. */
static void lay_out_tiles(const struct hparams *hp, const struct shard_spec *spec,
                          struct scratch *s, struct places *p)
{
    size_t head_k = 0;
    size_t head_v = 0;

    for (uint32_t il = spec->layer_begin; il < spec->layer_end; il++) {
        head_k = larger(head_k, hp->layers[il].head_k);
        head_v = larger(head_v, hp->layers[il].head_v);
    }
    s->tile_rows = place(p, (size_t)spec->max_rows + 1, 1);
    s->tiles = place(p, (size_t)spec->n_threads * TILE_KV_HEADS, sizeof *s->tiles / sizeof(float));
    for (uint32_t i = 0; i < spec->n_threads; i++) {
        float *keys = place(p, ATTEND_TOKENS, head_k);
        float *scales = place(p, ATTEND_TOKENS, larger(head_k, head_v) / KV_BLOCK);

        for (uint32_t h = 0; h < TILE_KV_HEADS; h++) {
            float *queries = place(p, ATTEND_QUERIES, head_k);
            float *out = place(p, ATTEND_QUERIES, head_v);

            if (s->tiles)
                s->tiles[i * TILE_KV_HEADS + h] = (struct attend_tile){
                    .queries = queries, .out = out, .keys = keys, .value_scales = scales};
        }
    }
}

size_t scratch_max_rows(const struct hparams *hparams, const struct shard_spec *spec)
{
    return hparams->n_experts ? larger(spec->max_rows, EXPERT_SLOTS) : spec->max_rows;
}

static void scratch_lay_out(const struct hparams *hp, const struct shard_spec *spec,
                            struct scratch *s, struct places *p)
{
    size_t rows = spec->max_rows;
    size_t slots = scratch_max_rows(hp, spec);

    for (uint32_t il = spec->layer_begin; il < spec->layer_end; il++)
        measure_layer(hp, &hp->layers[il], s);
    s->ld_ff = larger(s->ld_ff, hp->n_layer_input);
    s->normed = place(p, rows, hp->n_embd);
    s->qkv = place(p, rows, s->ld_qkv);
    s->attended = place(p, rows, s->ld_attended);
    s->branch = place(p, rows, hp->n_embd);
    s->ff = place(p, slots, s->ld_ff);
    s->latent = place(p, rows, s->ld_latent);
    s->latent_out = place(p, rows, s->ld_latent);
    s->q_rank = place(p, rows, s->ld_q_rank);
    lay_out_tiles(hp, spec, s, p);
    for (uint32_t i = 0; i < MODEL_MAX_ROPES; i++)
        s->angles[i] = place(p, rows, hp->rope[i].n_values);
    s->router = place(p, rows, hp->n_experts);
    s->chosen = place(p, rows, hp->n_experts_used);
    s->chosen_weights = place(p, rows, hp->n_experts_used);
    s->input_row = place(p, spec->embed, (size_t)hp->n_layer_input * hp->n_layers);
    s->chosen_slots = place(p, rows, hp->n_experts_used);
    if (hp->n_experts) {
        s->slots = place(p, slots, sizeof *s->slots / sizeof(float));
        s->expert_in = place(p, slots, hp->n_embd);
        s->expert_out = place(p, slots, hp->n_embd);
    }
}

uint64_t scratch_bytes(const struct hparams *hparams, const struct shard_spec *spec)
{
    struct scratch scratch = {0};
    struct places places = {0};

    scratch_lay_out(hparams, spec, &scratch, &places);
    return places.at;
}

enum status scratch_new(const struct hparams *hparams, const struct shard_spec *spec,
                        struct scratch *out)
{
    struct places places = {0};

    *out = (struct scratch){0};
    places.memory = mem_aligned(64, 1, scratch_bytes(hparams, spec));
    if (!places.memory)
        return STATUS_NO_MEMORY;
    pages_touch(places.memory, scratch_bytes(hparams, spec));
    scratch_lay_out(hparams, spec, out, &places);
    out->memory = places.memory;
    return STATUS_OK;
}

void scratch_free(struct scratch *scratch)
{
    mem_free(scratch->memory);
    *scratch = (struct scratch){0};
}

size_t scratch_max_cols(const struct hparams *hparams, const struct shard_spec *spec)
{
    struct scratch s = {0};
    struct places places = {0};

    scratch_lay_out(hparams, spec, &s, &places);
    return larger(larger(hparams->n_embd, s.ld_q_rank),
                  larger(s.ld_attended, larger(s.ld_qkv, s.ld_ff)));
}
