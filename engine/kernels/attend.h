#ifndef SKEIN_ENGINE_KERNELS_ATTEND_H
#define SKEIN_ENGINE_KERNELS_ATTEND_H

/* Attention of some queries over one page of keys and values of a KV head.
 *
 * A page part holds ATTEND_TOKENS tokens. Rows of it lie in one of two orders:
 *   by value: x[n][tokens], so that a vector register holds the same value of several tokens;
 *   by token: x[tokens][n].
 * In Q8_0 every 32 values of a token share a scale. By value, that is for each 32 of them
 *   half scale[tokens] · int8 x[32][tokens]; by token, half scale[tokens][n / 32] · int8
 *   x[tokens][n].
 * Keys lie by value, values by token; the latent of MLA, which is both, by token. */
#include "engine/engine.h"

enum {
    ATTEND_TOKENS = SHARD_KV_BLOCK_TOKENS,
    ATTEND_QUERIES = 32, /* most queries of a tile */
    ATTEND_LANES = 16,   /* most lanes of a register */
    KV_BLOCK = 32        /* values that share a scale */
};

/* Queries of one KV head, what they see, and what they have gathered so far. The pages that hold a
 * query's keys pass in ascending order; what a query gathers is a function of itself and of them,
 * whatever else is in the tile. */
struct attend_tile {
    uint32_t n_queries;
    uint32_t head_k, head_v;
    enum kv_type key_type, value_type;
    bool keys_by_token;
    uint32_t value_cols; /* n of a page's values; more than head_v where they are keys too */
    float scale;         /* of a score */
    float cap;           /* then cap · tanh(score / cap); 0: none */
    float *queries;      /* [head_k, n_queries] */
    float *out;          /* [n_queries, head_v]: sum of exp(score − most) · value */
    float *keys;         /* [head_k, ATTEND_TOKENS], scratch where keys lie by token */
    float *value_scales; /* [ATTEND_TOKENS, value_cols / KV_BLOCK], scratch of Q8_0 */
    float sums[ATTEND_QUERIES][ATTEND_LANES]; /* of exp(score − most), to be added up */
    float most[ATTEND_QUERIES];               /* largest score so far; −INFINITY at first */
    float slope[ATTEND_QUERIES];              /* score −= slope · distance */
    uint32_t begin[ATTEND_QUERIES];           /* positions that the query sees; the last is */
    uint32_t end[ATTEND_QUERIES];             /* its own */
    /* Scratch: */
    float scores[ATTEND_QUERIES][ATTEND_TOKENS];
    float factor[ATTEND_QUERIES];
    uint32_t from[ATTEND_QUERIES], to[ATTEND_QUERIES]; /* tokens of the page that are seen */
};

/* Adds the page whose first token has position `first`. */
typedef void attend_page(struct attend_tile *tile, const uint8_t *keys, const uint8_t *values,
                         uint32_t first);
/* Writes n values of one token into a page part, rounded to its type: to nearest, ties to even; in
 * Q8_0 (n a multiple of KV_BLOCK) with the scale of the largest. A block of it that holds what is
 * not finite becomes NaN. */
typedef void kv_store(enum kv_type type, bool by_token, const float *x, size_t n, uint32_t token,
                      uint8_t *part);

#endif
