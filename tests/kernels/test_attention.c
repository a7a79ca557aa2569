/* Attention over pages of every instruction set against doubles: each type of keys and values, head
 * sizes that fill no register, windows, caps, slopes, keys that are values too. Pages end where a
 * forbidden page begins, and what lies behind the last token is not a number. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/mman.h>

#include "engine/kernels/encode.h"
#include "engine/kernels/table.h"

enum { PAGE = 4096, PAGES = 3, TOKENS = PAGES * ATTEND_TOKENS - 5, MOST_HEAD = 576 };

struct shape {
    uint32_t head_k, head_v, n_queries;
    uint32_t window; /* 0: all */
    bool latent;
    float cap, slope;
};

static const struct shape shapes[] = {
    {128, 128, 1, 0, false, 0, 0},   {128, 128, 2, 0, false, 0, 0},
    {64, 64, 32, 0, false, 0, 0},    {32, 96, 7, 0, false, 0, 0},
    {64, 32, 5, 40, false, 0, 0},    {256, 256, 4, 0, false, 50, 0},
    {96, 96, 3, 0, false, 0, 0.25f}, {20, 20, 3, 33, false, 3, 0.5f},
    {17, 5, 11, 1, false, 0, 0},     {MOST_HEAD, 512, 16, 0, true, 0, 0},
    {48, 32, 6, 50, true, 0, 0},     {13, 9, 2, 0, true, 0, 0},
};

struct page {
    uint8_t *map, *keys, *values;
};

static struct {
    float key[TOKENS][MOST_HEAD], value[TOKENS][MOST_HEAD], query[ATTEND_QUERIES][MOST_HEAD];
    float queries[ATTEND_QUERIES * MOST_HEAD], out[ATTEND_QUERIES * MOST_HEAD];
    float keys[ATTEND_TOKENS * MOST_HEAD], scales[ATTEND_TOKENS * MOST_HEAD / KV_BLOCK];
    float alone[ATTEND_QUERIES * MOST_HEAD];
} work;
static struct page pages[PAGES];
static const struct vector_ops *ops;

static float random_float(void)
{
    static uint32_t state = 99;

    state = state * 1664525u + 1013904223u;
    return (float)(int32_t)state * 0x1p-31f;
}

static size_t row_bytes(enum kv_type type, uint32_t n)
{
    return type == KV_F32 ? 4 * (size_t)n : type == KV_F16 ? 2 * (size_t)n : n / 32 * 34;
}

/* Keys, then values, up to the forbidden page; all bits set, so that no number is there yet. */
static void page_new(struct page *page, size_t key_bytes, size_t value_bytes)
{
    size_t body = (key_bytes + value_bytes + PAGE - 1) / PAGE * PAGE;

    page->map = mmap(NULL, body + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(page->map != MAP_FAILED);
    assert_int_equal(mprotect(page->map + body, PAGE, PROT_NONE), 0);
    memset(page->map, 0xff, body);
    page->keys = page->map + body - key_bytes - value_bytes;
    page->values = value_bytes ? page->keys + key_bytes : page->keys;
}

static void page_free(struct page *page, size_t key_bytes, size_t value_bytes)
{
    munmap(page->map, (key_bytes + value_bytes + PAGE - 1) / PAGE * PAGE + PAGE);
}

/* The rows as they are after rounding. */
static void rounded(enum kv_type type, float *x, uint32_t n)
{
    uint8_t blocks[MOST_HEAD * 2 + 64];
    uint16_t scale;

    if (type == KV_F16) {
        tensor_encode(TENSOR_F16, x, blocks, n);
        tensor_decode(TENSOR_F16, blocks, x, n);
    }
    for (uint32_t b = 0; type == KV_Q8_0 && b < n; b += 32) {
        float most = 0, step;

        for (uint32_t i = 0; i < 32; i++)
            most = fmaxf(most, fabsf(x[b + i]));
        step = most / 127.0f;
        tensor_encode(TENSOR_F16, &step, &scale, 1);
        tensor_decode(TENSOR_F16, &scale, &step, 1);
        for (uint32_t i = 0; i < 32; i++)
            x[b + i] = step * fmaxf(-127, fminf(127, nearbyintf(x[b + i] * (1.0f / step))));
    }
}

static void fill(const struct shape *s, enum kv_type type)
{
    for (uint32_t t = 0; t < TOKENS; t++) {
        struct page *page = &pages[t / ATTEND_TOKENS];

        for (uint32_t d = 0; d < s->head_k; d++)
            work.key[t][d] = random_float();
        for (uint32_t d = 0; d < s->head_v; d++)
            work.value[t][d] = random_float();
        ops->kv_store(type, s->latent, work.key[t], s->head_k, t % ATTEND_TOKENS, page->keys);
        if (!s->latent)
            ops->kv_store(type, true, work.value[t], s->head_v, t % ATTEND_TOKENS, page->values);
        rounded(type, work.key[t], s->head_k);
        rounded(type, work.value[t], s->head_v);
        if (s->latent)
            memcpy(work.value[t], work.key[t], s->head_v * sizeof(float));
    }
    for (uint32_t q = 0; q < s->n_queries; q++)
        for (uint32_t d = 0; d < s->head_k; d++)
            work.query[q][d] = random_float();
}

/* Queries [first, first + n): the last looks back from the end, each one before from a token
 * earlier. */
static void run(const struct shape *s, enum kv_type type, uint32_t first, uint32_t n, float *out)
{
    static struct attend_tile tile;

    tile = (struct attend_tile){.n_queries = n,
                                .head_k = s->head_k,
                                .head_v = s->head_v,
                                .key_type = type,
                                .value_type = type,
                                .keys_by_token = s->latent,
                                .value_cols = s->latent ? s->head_k : s->head_v,
                                .scale = 0.3f,
                                .cap = s->cap,
                                .queries = work.queries,
                                .out = out,
                                .keys = work.keys,
                                .value_scales = work.scales};
    memset(out, 0, (size_t)n * s->head_v * sizeof *out);
    for (uint32_t q = 0; q < n; q++) {
        tile.end[q] = TOKENS + 1 + first + q - s->n_queries;
        tile.begin[q] = s->window && tile.end[q] > s->window ? tile.end[q] - s->window : 0;
        tile.slope[q] = s->slope;
        tile.most[q] = -INFINITY;
        for (uint32_t d = 0; d < s->head_k; d++)
            work.queries[d * n + q] = work.query[first + q][d];
    }
    for (uint32_t p = 0; p < PAGES; p++)
        ops->attend_page(&tile, pages[p].keys, pages[p].values, p * ATTEND_TOKENS);
    for (uint32_t q = 0; q < n; q++) {
        float sum = 0;

        for (int i = 0; i < ATTEND_LANES; i++)
            sum += tile.sums[q][i];
        for (uint32_t d = 0; d < s->head_v; d++)
            out[q * s->head_v + d] /= sum;
    }
}

static void expected(const struct shape *s, uint32_t q, double *out)
{
    uint32_t end = TOKENS + 1 + q - s->n_queries;
    uint32_t begin = s->window && end > s->window ? end - s->window : 0;
    double sum = 0;

    memset(out, 0, s->head_v * sizeof *out);
    for (uint32_t t = begin; t < end; t++) {
        double score = 0, weight;

        for (uint32_t d = 0; d < s->head_k; d++)
            score += (double)work.query[q][d] * (double)work.key[t][d];
        score *= (double)0.3f;
        if (s->cap > 0)
            score = (double)s->cap * tanh(score / (double)s->cap);
        weight = exp(score - (double)s->slope * (end - 1 - t));
        sum += weight;
        for (uint32_t d = 0; d < s->head_v; d++)
            out[d] += weight * (double)work.value[t][d];
    }
    for (uint32_t d = 0; d < s->head_v; d++)
        out[d] /= sum;
}

static void check_shape(const struct shape *s, enum kv_type type)
{
    size_t key_bytes = row_bytes(type, s->head_k) * ATTEND_TOKENS;
    size_t value_bytes = s->latent ? 0 : row_bytes(type, s->head_v) * ATTEND_TOKENS;
    double out[MOST_HEAD];

    for (int p = 0; p < PAGES; p++)
        page_new(&pages[p], key_bytes, value_bytes);
    fill(s, type);
    run(s, type, 0, s->n_queries, work.out);
    for (uint32_t q = 0; q < s->n_queries; q++) {
        expected(s, q, out);
        for (uint32_t d = 0; d < s->head_v; d++)
            if (!(fabs((double)work.out[q * s->head_v + d] - out[d]) < 1e-6 + 1e-8 * s->head_k))
                fail_msg("head %u/%u, %s, query %u: %g, expected %g", s->head_k, s->head_v,
                         kv_type_name(type), q, (double)work.out[q * s->head_v + d], out[d]);
        run(s, type, q, 1, work.alone);
        assert_memory_equal(work.alone, work.out + q * s->head_v, s->head_v * sizeof(float));
    }
    for (int p = 0; p < PAGES; p++)
        page_free(&pages[p], key_bytes, value_bytes);
}

static void each_isa(void (*test)(void))
{
    for (int i = 0; i < ISA_COUNT; i++) {
        if (cpu_has((enum isa)i)) {
            ops = &kernel_table_of((enum isa)i)->ops;
            test();
        }
    }
}

static void check_shapes(void)
{
    for (size_t i = 0; i < COUNT_OF(shapes); i++)
        for (int type = 0; type < KV_TYPE_COUNT; type++)
            if (type != KV_Q8_0 || (shapes[i].head_k % 32 == 0 && shapes[i].head_v % 32 == 0))
                check_shape(&shapes[i], (enum kv_type)type);
}

static void attention_is_accurate(void **state)
{
    (void)state;
    each_isa(check_shapes);
}

/* What a page holds once a row with odd numbers was written, by value and by token. */
static void check_odd_rows(void)
{
    float row[64] = {0};
    uint8_t by_value[64 * ATTEND_TOKENS * 4], by_token[sizeof by_value];
    uint16_t half, scale;

    row[0] = 1e-41f;
    row[1] = 65519.0f;
    row[2] = 65520.0f;
    row[3] = -INFINITY;
    row[4] = NAN;
    for (uint32_t i = 0; i < 5; i++) {
        float back;

        ops->kv_store(KV_F16, false, row, 5, 3, by_value);
        ops->kv_store(KV_F16, true, row, 5, 3, by_token);
        memcpy(&half, by_value + 2 * (i * ATTEND_TOKENS + 3), 2);
        assert_memory_equal(&half, by_token + 2 * (size_t)(3 * 5 + i), 2);
        tensor_decode(TENSOR_F16, &half, &back, 1);
        tensor_encode(TENSOR_F16, &row[i], &scale, 1);
        assert_true(isnan(row[i]) ? isnan(back) : half == scale);
    }
    /* Not finite: all of the block is no number, the next one is as it was. */
    row[32] = 127.0f;
    ops->kv_store(KV_Q8_0, true, row, 64, 0, by_token);
    memcpy(&scale, by_token, 2);
    assert_int_equal(scale & 0x7c00, 0x7c00);
    assert_true((scale & 0x3ff) != 0);
    memcpy(&scale, by_token + 2, 2);
    assert_int_equal(scale, 0x3c00);
    assert_int_equal(by_token[4 * ATTEND_TOKENS + 32], 127);
    assert_int_equal(by_token[4 * ATTEND_TOKENS + 33], 0);
}

static void odd_rows(void **state)
{
    (void)state;
    each_isa(check_odd_rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_is_accurate),
        cmocka_unit_test(odd_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
