/* Every product kernel of every instruction set that this processor has, against sums in double
 * over the reference decoding; and DESIGN's I2: an output's bits depend on its own two rows only.
 *
 * x and y end at a page that must not be touched, so a read or write too far is a crash. Weights
 * are random bytes (all codes, all scales) with the block scales replaced by moderate ones, worst
 * cases included. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "engine/kernels/cpu.h"
#include "engine/kernels/quant_ref.h"
#include "engine/kernels/table.h"

enum { PAGE = 4096, MAX_N = 64 };

/* Where halves of a block's scales stand; −1 ends. */
static const struct {
    enum tensor_type type;
    int halves[3];
} kinds[] = {
    {TENSOR_F32, {-1}},        {TENSOR_F16, {-1}},        {TENSOR_BF16, {-1}},
    {TENSOR_Q4_0, {0, -1}},    {TENSOR_Q4_1, {0, 2, -1}}, {TENSOR_Q5_0, {0, -1}},
    {TENSOR_Q5_1, {0, 2, -1}}, {TENSOR_Q8_0, {0, -1}},    {TENSOR_Q2_K, {80, 82, -1}},
    {TENSOR_Q3_K, {108, -1}},  {TENSOR_Q4_K, {0, 2, -1}}, {TENSOR_Q5_K, {0, 2, -1}},
    {TENSOR_Q6_K, {208, -1}},  {TENSOR_IQ4_NL, {0, -1}},  {TENSOR_IQ4_XS, {0, -1}},
    {TENSOR_IQ2_XXS, {0, -1}}, {TENSOR_IQ2_XS, {0, -1}},  {TENSOR_IQ2_S, {0, -1}},
    {TENSOR_IQ3_XXS, {0, -1}}, {TENSOR_IQ3_S, {0, -1}},   {TENSOR_IQ1_S, {0, -1}},
    {TENSOR_IQ1_M, {-1}},      {TENSOR_TQ1_0, {52, -1}},  {TENSOR_TQ2_0, {64, -1}},
    {TENSOR_MXFP4, {-1}},      {TENSOR_NVFP4, {-1}},      {TENSOR_Q1_0, {0, -1}},
    {TENSOR_Q2_0, {0, -1}},    {TENSOR_BF16_DOT, {-1}},
};

struct guarded {
    uint8_t *map;
    size_t map_bytes;
    void *data;
};

/* `bytes` bytes that end where a forbidden page begins (32-byte steps away for `align`). */
static struct guarded guarded_new(size_t bytes)
{
    size_t body = (bytes + PAGE - 1) / PAGE * PAGE;
    struct guarded g = {.map_bytes = body + 2 * PAGE};
    g.map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g.map != MAP_FAILED);
    assert_int_equal(mprotect(g.map, PAGE, PROT_NONE), 0);
    assert_int_equal(mprotect(g.map + PAGE + body, PAGE, PROT_NONE), 0);
    g.data = g.map + PAGE + body - bytes;
    return g;
}

static void guarded_free(struct guarded *g)
{
    munmap(g->map, g->map_bytes);
}

static uint32_t random_state = 12345;

static uint32_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

static float random_float(void)
{
    return (float)(random_next() >> 8) * 0x1p-23f - 1.0f;
}

enum fill { FILL_RANDOM, FILL_ONES, FILL_ZEROS, FILL_COUNT };

static void fill_weights(size_t kind, uint8_t *data, size_t n_values, enum fill fill)
{
    enum tensor_type type = kinds[kind].type;
    const struct tensor_type_info *info = tensor_type_info(type);
    size_t n_blocks = n_values / info->block_values;
    for (size_t b = 0; b < n_blocks; b++) {
        uint8_t *block = data + b * info->block_bytes;
        for (size_t i = 0; i < info->block_bytes; i++)
            block[i] = fill == FILL_RANDOM ? (uint8_t)random_next() : fill == FILL_ONES ? 255 : 0;
        for (const int *h = kinds[kind].halves; *h >= 0; h++) {
            block[*h] = (uint8_t)random_next();
            block[*h + 1] = (uint8_t)(0x20 + (random_next() & 0x87)); /* ±2^-7 … 2^-5 */
        }
        float value = random_float();
        uint32_t bits;
        memcpy(&bits, &value, 4);
        if (type == TENSOR_F32)
            memcpy(block, &value, 4);
        if (type == TENSOR_BF16 || type == TENSOR_BF16_DOT)
            memcpy(block, (uint8_t *)&bits + 2, 2);
        if (type == TENSOR_BF16_DOT)
            block[3] = (uint8_t)(0x3c + (random_next() & 0x83)); /* ±2^-7 … 2 */
        if (type == TENSOR_F16)
            block[1] = (uint8_t)(0x30 + (random_next() & 0x8b));
        if (type == TENSOR_MXFP4)
            block[0] = (uint8_t)(118 + random_next() % 8);
        if (type == TENSOR_IQ1_M) /* the top nibbles of four words are the half */
            for (int i = 0; i < 4; i++)
                block[49 + 2 * i] = (uint8_t)((block[49 + 2 * i] & 15) | (i == 3 ? 0x20 : 0x50));
    }
}

struct fixture {
    size_t kind;
    uint32_t m, k;
    struct matrix matrix;
    uint8_t *data;
    float *decoded; /* [m][k] */
};

static void fixture_make(struct fixture *f, size_t kind, uint32_t m, uint32_t k, enum fill fill)
{
    const struct tensor_type_info *info = tensor_type_info(kinds[kind].type);
    size_t row_bytes = k / info->block_values * info->block_bytes;
    *f = (struct fixture){.kind = kind, .m = m, .k = k};
    f->data = mem_zeroed(m, row_bytes);
    f->decoded = MEM_NEW_N(float, (size_t)m *k);
    assert_non_null(f->data);
    assert_non_null(f->decoded);
    fill_weights(kind, f->data, (size_t)m * k, fill);
    f->matrix = (struct matrix){.type = kinds[kind].type,
                                .n_rows = m,
                                .n_cols = k,
                                .data = f->data,
                                .row_bytes = row_bytes};
    tensor_decode(kinds[kind].type, f->data, f->decoded, (size_t)m * k);
}

static void fixture_free(struct fixture *f)
{
    mem_free(f->data);
    mem_free(f->decoded);
}

static void fill_x(float *x, size_t n, enum fill fill)
{
    for (size_t i = 0; i < n; i++)
        x[i] = fill == FILL_RANDOM ? random_float() * (i % 97 == 0 ? 30.0f : 1.0f)
               : fill == FILL_ONES ? (i % 3 == 0 ? -127.0f : 127.0f)
                                   : 0.0f;
}

/* What the product of a weight and an activation is to be. */
static double term_of(enum tensor_type type, float w, float x)
{
    return (double)w * (double)(type == TENSOR_BF16_DOT ? bfloat_to_float(bfloat_of(x)) : x);
}

/* The error that int8 activations may cause: half a step of every block of 32, times the weights.
 */
static void check_product(const struct fixture *f, const float *x, size_t ldx, size_t n,
                          const float *y, size_t ldy, const char *what, bool rounds)
{
    enum tensor_type type = kinds[f->kind].type;
    for (size_t t = 0; t < n; t++) {
        for (size_t r = 0; r < f->m; r++) {
            const float *w = f->decoded + r * f->k, *row = x + t * ldx;
            double sum = 0, size = 0, allowed = 0;
            for (size_t b = 0; b < f->k; b += 32) {
                double most = 0, weights = 0;
                for (size_t k = b; k < b + 32; k++) {
                    sum += term_of(rounds ? type : TENSOR_F32, w[k], row[k]);
                    size += fabs((double)w[k] * (double)row[k]);
                    weights += fabs((double)w[k]);
                    most = fmax(most, fabs((double)row[k]));
                }
                allowed += weights * most / 127.0 * 0.5;
            }
            double limit = (!type_is_quantised(type) ? 0.0 : allowed * 1.001) + 2e-6 * size + 1e-30;
            double error = fabs(sum - (double)y[t * ldy + r]);
            if (!(error <= limit))
                fail_msg("%s %s m=%u k=%u n=%zu: y[%zu][%zu] = %.9g, expected %.9g, limit %.3g",
                         what, tensor_type_info(kinds[f->kind].type)->name, f->m, f->k, n, t, r,
                         (double)y[t * ldy + r], sum, limit);
        }
    }
}

/* Read where the matrix lies, without a copy: the same bits. */
static void check_borrowed(struct compute *c, const struct matrix *matrix, const float *x,
                           size_t ldx, size_t n, const float *expected, size_t ldy,
                           const char *what)
{
    float *y = MEM_NEW_N(float, n *ldy);
    struct weight *w = NULL;
    assert_non_null(y);
    assert_int_equal(weight_borrow(c, matrix, &w), STATUS_OK);
    compute_matmul(c, w, x, ldx, n, y, ldy);
    for (size_t t = 0; t < n; t++)
        if (memcmp(y + t * ldy, expected + t * ldy, matrix->n_rows * sizeof *y) != 0)
            fail_msg("%s %s m=%u k=%u n=%zu: another product without a copy", what,
                     tensor_type_info(matrix->type)->name, matrix->n_rows, matrix->n_cols, n);
    weight_free(&w);
    mem_free(y);
}

static void check_shape(struct compute *c, size_t kind, uint32_t m, uint32_t k, size_t n,
                        enum fill fill, const char *what)
{
    struct fixture f;
    fixture_make(&f, kind, m, k, fill);
    size_t ldx = k + (n > 1 ? 3 : 0), ldy = m + (n > 1 ? 5 : 0);
    size_t x_count = (n - 1) * ldx + k, y_count = (n - 1) * ldy + m;
    struct guarded gx = guarded_new(x_count * 4), gy = guarded_new(y_count * 4);
    float *x = gx.data, *y = gy.data;
    fill_x(x, x_count, fill);
    for (size_t i = 0; i < y_count; i++)
        y[i] = 777.0f;
    struct weight *w = NULL;
    assert_int_equal(weight_new(c, &f.matrix, &w), STATUS_OK);
    compute_matmul(c, w, x, ldx, n, y, ldy);
    check_product(&f, x, ldx, n, y, ldy, what, strcmp(what, "openblas") != 0);
    for (size_t t = 0; t + 1 < n; t++)
        for (size_t r = m; r < ldy; r++)
            assert_true(y[t * ldy + r] == 777.0f); /* nothing is written between rows */
    check_borrowed(c, &f.matrix, x, ldx, n, y, ldy, what);
    weight_free(&w);
    guarded_free(&gx);
    guarded_free(&gy);
    fixture_free(&f);
}

/* Whether the forced instruction set has kernels for the type that none of those before has. */
static bool is_new(enum tensor_type type)
{
    enum isa forced = ISA_GENERIC;
    assert_int_equal(isa_choose(&forced, NULL), STATUS_OK);
    for (int i = 0; getenv("SKEIN_ISA") != NULL && i < (int)forced; i++) {
        const struct kernel_table *a = kernel_table_of((enum isa)i);
        const struct kernel_table *b = kernel_table_of(forced);
        if (cpu_has((enum isa)i) && a->panel[type] == b->panel[type])
            return false;
    }
    return true;
}

static void every_shape(enum engine_kind engine, uint32_t threads, const char *what)
{
    struct compute *c = NULL;
    assert_int_equal(compute_new(engine, threads, &c, NULL), STATUS_OK);
    assert_int_equal(compute_reserve(c, MAX_N, 1024), STATUS_OK);
    for (size_t kind = 0; kind < COUNT_OF(kinds); kind++) {
        if (!is_new(kinds[kind].type))
            continue;
        uint32_t block = tensor_type_info(kinds[kind].type)->block_values;
        uint32_t k = block < 32 ? 32 : block;
        for (size_t n = 1; n <= 17; n++)
            check_shape(c, kind, 16 + (uint32_t)n * 3, k * (1 + (uint32_t)n % 3), n, FILL_RANDOM,
                        what);
        check_shape(c, kind, 70, k * 2, MAX_N, FILL_RANDOM, what);
        check_shape(c, kind, 1, k, 1, FILL_RANDOM, what);
        check_shape(c, kind, 15, k, 5, FILL_ONES, what);
        check_shape(c, kind, 33, k * 2, 16, FILL_ONES, what);
        check_shape(c, kind, 33, k, 3, FILL_ZEROS, what);
    }
    compute_free(&c);
}

/* Runs `test` with each instruction set forced in turn. */
static void each_isa(void (*test)(const char *isa))
{
    for (int i = 0; i < ISA_COUNT; i++) {
        if (!cpu_has((enum isa)i))
            continue;
        setenv("SKEIN_ISA", isa_name((enum isa)i), 1);
        test(isa_name((enum isa)i));
    }
    unsetenv("SKEIN_ISA");
}

static void native_shapes(const char *isa)
{
    every_shape(ENGINE_NATIVE, 1, isa);
}

static void products_agree_with_the_reference(void **state)
{
    (void)state;
    each_isa(native_shapes);
}

static void products_on_threads(void **state)
{
    (void)state;
    every_shape(ENGINE_NATIVE, 3, "3 threads");
}

static void openblas_agrees_with_the_reference(void **state)
{
    (void)state;
    every_shape(ENGINE_OPENBLAS, 2, "openblas");
}

/* One by one, together, in every tile size, on 1 and 3 threads, two weights at once: the same bits.
 */
static void rows_are_independent_of(const char *isa)
{
    enum { M = 53, M2 = 16, N = 41 };
    struct compute *one = NULL, *three = NULL;
    assert_int_equal(compute_new(ENGINE_NATIVE, 1, &one, NULL), STATUS_OK);
    assert_int_equal(compute_new(ENGINE_NATIVE, 3, &three, NULL), STATUS_OK);
    assert_int_equal(compute_reserve(one, N, 1024), STATUS_OK);
    assert_int_equal(compute_reserve(three, N, 1024), STATUS_OK);
    for (size_t kind = 0; kind < COUNT_OF(kinds); kind++) {
        if (!is_new(kinds[kind].type))
            continue;
        struct fixture f, f2;
        enum { K = 512 };
        fixture_make(&f, kind, M, K, FILL_RANDOM);
        fixture_make(&f2, (kind + 1) % COUNT_OF(kinds), M2, K, FILL_RANDOM);
        static float x[N * K], alone[N * M], together[N * M], second[N * M2];
        fill_x(x, COUNT_OF(x), FILL_RANDOM);
        struct weight *w = NULL, *w2 = NULL;
        assert_int_equal(weight_new(one, &f.matrix, &w), STATUS_OK);
        assert_int_equal(weight_new(three, &f2.matrix, &w2), STATUS_OK);
        for (size_t t = 0; t < N; t++)
            compute_matmul(one, w, x + t * K, K, 1, alone + t * M, M);
        for (size_t n = 1; n <= N; n++) {
            memset(together, 0, sizeof together);
            compute_matmul(n % 2 ? one : three, w, x + (N - n) * K, K, n, together, M);
            if (memcmp(together, alone + (N - n) * M, n * M * sizeof(float)) != 0)
                fail_msg("%s %s: %zu rows together differ from one by one", isa,
                         tensor_type_info(kinds[kind].type)->name, n);
        }
        const struct weight *both[] = {w2, w};
        compute_matmul_many(three, both, 2, x, K, N, (float *[]){second, together},
                            (size_t[]){M2, M});
        assert_memory_equal(together, alone, sizeof alone);
        check_product(&f2, x, K, N, second, M2, "second weight", true);
        weight_free(&w);
        weight_free(&w2);
        fixture_free(&f);
        fixture_free(&f2);
    }
    compute_free(&one);
    compute_free(&three);
}

static void rows_are_independent(void **state)
{
    (void)state;
    each_isa(rows_are_independent_of);
}

/* Products with rows of their own, as experts have: shared rows, other rows, tiles of every size,
 * types of every kind in one list. */
static void a_list_of_products_of(const char *isa)
{
    enum { K = 512, M = 52, N = 70, COUNT = 10 };
    static const size_t kind_of[COUNT] = {3, 3, 11, 1, 12, 19, 7, 3, 0, COUNT_OF(kinds) - 1};
    static const size_t first_of[COUNT] = {0, 0, 0, 1, 4, 20, 20, 21, 0, 0};
    static const size_t n_of[COUNT] = {1, 1, 1, 3, 17, 1, 1, 49, 2, 2};
    static float x[N * K], y[COUNT][N * M], alone[N * M];
    struct fixture f[COUNT];
    struct weight *w[COUNT] = {NULL};
    struct product products[COUNT];
    struct compute *c = NULL;
    assert_int_equal(compute_new(ENGINE_NATIVE, 3, &c, NULL), STATUS_OK);
    assert_int_equal(compute_reserve(c, N + 10, K), STATUS_OK);
    fill_x(x, COUNT_OF(x), FILL_RANDOM);
    for (size_t i = 0; i < COUNT; i++) {
        fixture_make(&f[i], kind_of[i], M - (uint32_t)i, K, FILL_RANDOM);
        assert_int_equal(weight_new(c, &f[i].matrix, &w[i]), STATUS_OK);
        products[i] = (struct product){w[i], x + first_of[i] * K, K, n_of[i], y[i], M};
    }
    compute_matmul_each(c, products, 0);
    compute_matmul_each(c, products, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        compute_matmul(c, w[i], products[i].x, K, n_of[i], alone, M);
        for (size_t t = 0; t < n_of[i]; t++)
            if (memcmp(alone + t * M, y[i] + t * M, f[i].m * sizeof *alone) != 0)
                fail_msg("%s: product %zu of the list differs from the same one alone", isa, i);
        weight_free(&w[i]);
        fixture_free(&f[i]);
    }
    compute_free(&c);
}

static void a_list_of_products(void **state)
{
    (void)state;
    each_isa(a_list_of_products_of);
}

static void a_row_comes_back_exactly(void **state)
{
    (void)state;
    struct compute *c = NULL;
    assert_int_equal(compute_new(ENGINE_NATIVE, 1, &c, NULL), STATUS_OK);
    for (size_t kind = 0; kind < COUNT_OF(kinds); kind++) {
        struct fixture f;
        fixture_make(&f, kind, 37, 5120, FILL_RANDOM);
        struct weight *w = NULL;
        assert_int_equal(weight_new(c, &f.matrix, &w), STATUS_OK);
        struct guarded row = guarded_new(f.k * sizeof(float));
        for (uint32_t r = 0; r < f.m; r++) {
            weight_row(w, r, row.data);
            assert_memory_equal(row.data, f.decoded + (size_t)r * f.k, f.k * sizeof(float));
        }
        guarded_free(&row);
        weight_free(&w);
        fixture_free(&f);
    }
    compute_free(&c);
}

static void openblas_repeats_itself(void **state)
{
    (void)state;
    struct compute *c = NULL;
    assert_int_equal(compute_new(ENGINE_OPENBLAS, 2, &c, NULL), STATUS_OK);
    assert_int_equal(compute_reserve(c, 9, 512), STATUS_OK);
    struct fixture f;
    fixture_make(&f, 3, 200, 512, FILL_RANDOM);
    static float x[9 * 512], first[9 * 200], again[9 * 200];
    fill_x(x, COUNT_OF(x), FILL_RANDOM);
    struct weight *w = NULL;
    assert_int_equal(weight_new(c, &f.matrix, &w), STATUS_OK);
    compute_matmul(c, w, x, 512, 9, first, 200);
    for (int i = 0; i < 20; i++) {
        compute_matmul(c, w, x, 512, 9, again, 200);
        assert_memory_equal(first, again, sizeof first);
    }
    weight_free(&w);
    fixture_free(&f);
    compute_free(&c);
}

static void a_forced_isa_never_falls_back(void **state)
{
    (void)state;
    struct compute *c = NULL;
    struct fault fault = {0};
    setenv("SKEIN_ISA", "mmx", 1);
    assert_int_equal(compute_new(ENGINE_NATIVE, 1, &c, &fault), STATUS_INVALID);
    assert_non_null(strstr(fault.text, "mmx"));
    assert_null(c);
    const char *missing = NULL;
    for (int i = 0; i < ISA_COUNT; i++)
        if (!cpu_has((enum isa)i))
            missing = isa_name((enum isa)i);
    if (missing != NULL) {
        setenv("SKEIN_ISA", missing, 1);
        assert_int_equal(compute_new(ENGINE_NATIVE, 1, &c, &fault), STATUS_UNSUPPORTED);
        assert_non_null(strstr(fault.text, missing));
    }
    unsetenv("SKEIN_ISA");
}

static void memory_may_run_out(void **state)
{
    (void)state;
    struct fixture f;
    fixture_make(&f, 3, 40, 64, FILL_RANDOM);
    for (unsigned long at = 1; at < 12; at++) {
        struct compute *c = NULL;
        struct weight *w = NULL;
        mem_fail_after(at);
        enum status status = compute_new(ENGINE_NATIVE, 2, &c, NULL);
        if (status == STATUS_OK)
            status = compute_reserve(c, 4, 64);
        if (status == STATUS_OK)
            status = weight_new(c, &f.matrix, &w);
        mem_fail_after(0);
        assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
        assert_true(at > 3 || status == STATUS_NO_MEMORY);
        weight_free(&w);
        compute_free(&c);
    }
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_agree_with_the_reference),
        cmocka_unit_test(products_on_threads),
        cmocka_unit_test(openblas_agrees_with_the_reference),
        cmocka_unit_test(rows_are_independent),
        cmocka_unit_test(a_list_of_products),
        cmocka_unit_test(a_row_comes_back_exactly),
        cmocka_unit_test(openblas_repeats_itself),
        cmocka_unit_test(a_forced_isa_never_falls_back),
        cmocka_unit_test(memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
