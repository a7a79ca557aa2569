/* A compute: an engine kind, its threads, its scratch, and the products.
 *
 * native: weights are repacked once (pack.c); for a product the rows of x become tiles (int8
 * records for quantised weights, transposed floats for float ones), then the groups of all weights
 * of the call are one list that the threads share. openblas: gemm_blas.c. The per-token path
 * allocates nothing: compute_reserve did.
 *
 * What can fail: memory, and a forced instruction set that is not there. */
#include "engine/kernels/compute.h"

#include <assert.h>
#include <string.h>

enum { PIECE_BYTES = 1 << 17, FLOAT_GROUPS = 4 };

enum status compute_new(enum engine_kind kind, uint32_t n_threads, struct compute **out,
                        struct fault *fault)
{
    *out = NULL;
    enum isa isa;
    enum status status = isa_choose(&isa, fault);
    if (status != STATUS_OK)
        return status;
    struct compute *c = MEM_NEW(struct compute);
    if (c == NULL)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory for the engine");
    *c = (struct compute){.kind = kind, .isa = isa, .table = kernel_table_of(isa)};
    status = pool_new(n_threads, &c->pool);
    if (status != STATUS_OK) {
        mem_free(c);
        return fault_set(fault, status, "cannot start %u threads", n_threads);
    }
    if (kind == ENGINE_OPENBLAS)
        blas_start();
    *out = c;
    return STATUS_OK;
}

static void scratch_free(struct compute *c)
{
    mem_free(c->quants);
    mem_free(c->floats);
    mem_free(c->panels);
    c->quants = NULL;
    c->floats = c->panels = NULL;
    c->max_rows = c->max_cols = 0;
}

void compute_free(struct compute **compute)
{
    struct compute *c = *compute;
    if (c == NULL)
        return;
    pool_free(&c->pool);
    arena_close(&c->arena);
    scratch_free(c);
    mem_free(c);
    *compute = NULL;
}

uint32_t compute_threads(const struct compute *compute)
{
    return pool_threads(compute->pool);
}

const struct vector_ops *compute_ops(const struct compute *compute)
{
    return &compute->table->ops;
}

static uint64_t quant_scratch(size_t rows, size_t cols)
{
    return ((uint64_t)cols + ACT_BLOCK - 1) / ACT_BLOCK * ACT_BYTES * rows;
}

static size_t panel_rows(enum engine_kind kind)
{
    return kind == ENGINE_NATIVE ? NATIVE_PANEL_ROWS : BLAS_PANEL_ROWS;
}

uint64_t compute_scratch_bytes(enum engine_kind kind, size_t max_rows, size_t max_cols)
{
    enum { ASSUMED_THREADS = 16 };
    uint64_t panels = (uint64_t)panel_rows(kind) * ASSUMED_THREADS * max_cols * sizeof(float);
    if (kind != ENGINE_NATIVE)
        return panels;
    return panels + (uint64_t)max_rows * float_row(max_cols) * sizeof(float) +
           quant_scratch(max_rows, max_cols);
}

/* Untouched parts cost nothing: a model without float matrices never touches `floats`
 * (compute_touch). */
enum status compute_reserve(struct compute *c, size_t max_rows, size_t max_cols)
{
    if (max_rows <= c->max_rows && max_cols <= c->max_cols)
        return STATUS_OK;
    size_t rows = max_rows > c->max_rows ? max_rows : c->max_rows;
    size_t cols = max_cols > c->max_cols ? max_cols : c->max_cols;
    size_t n_floats, n_panels = panel_rows(c->kind) * pool_threads(c->pool);
    if (__builtin_mul_overflow(rows, float_row(cols), &n_floats) ||
        __builtin_mul_overflow(n_panels, cols, &n_panels))
        return STATUS_NO_MEMORY;
    scratch_free(c);
    bool native = c->kind == ENGINE_NATIVE;
    c->panels = mem_aligned(64, n_panels, sizeof(float));
    c->floats = native ? mem_aligned(64, n_floats, sizeof(float)) : NULL;
    c->quants = native ? mem_aligned(64, (size_t)quant_scratch(rows, cols), 1) : NULL;
    if (c->panels == NULL || (native && (c->floats == NULL || c->quants == NULL))) {
        scratch_free(c);
        return STATUS_NO_MEMORY;
    }
    c->max_rows = rows;
    c->max_cols = cols;
    return STATUS_OK;
}

static void note_weight(struct compute *c, const struct weight *w)
{
    size_t *cols = type_is_quantised(w->matrix.type) ? &c->quant_cols : &c->float_cols;
    if (w->matrix.n_cols > *cols)
        *cols = w->matrix.n_cols;
    c->uses_panels |= w->packed == NULL;
}

static void touch_share(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    struct compute *c = ctx;
    size_t panel = panel_rows(c->kind) * c->max_cols;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        pages_touch(c->panels + i * panel, panel * sizeof(float));
}

void compute_touch(struct compute *c)
{
    size_t rows = c->max_rows, cols = c->max_cols;
    if (c->kind == ENGINE_NATIVE) {
        size_t floats = c->float_cols < cols ? c->float_cols : cols;
        size_t quants = c->quant_cols < cols ? c->quant_cols : cols;
        pages_touch(c->floats, rows * float_row(floats) * sizeof(float));
        pages_touch(c->quants, (size_t)quant_scratch(rows, quants));
    }
    if (c->uses_panels)
        pool_run(c->pool, pool_threads(c->pool), 1, touch_share, c);
}

/* ---------------------------------------------------------------- weights */

static void pack_groups(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    struct weight *w = ctx;
    (void)thread;
    size_t group_bytes = GROUP_ROWS * w->matrix.row_bytes;
    for (size_t g = begin; g < end; g++)
        pack_group(&w->matrix, (uint32_t)g, w->packed + g * group_bytes);
    size_t first = begin * GROUP_ROWS, last = end * GROUP_ROWS;
    if (w->matrix.mapped)
        forget_rows(&w->matrix, first, (last < w->matrix.n_rows ? last : w->matrix.n_rows) - first);
}

enum status weight_new(struct compute *compute, const struct matrix *matrix, struct weight **out)
{
    *out = NULL;
    struct weight *w = MEM_NEW(struct weight);
    if (w == NULL)
        return STATUS_NO_MEMORY;
    w->matrix = *matrix;
    assert(matrix->n_cols % tensor_type_info((uint32_t)matrix->type)->block_values == 0);
    if (compute->kind == ENGINE_NATIVE) {
        size_t n_groups = ((size_t)matrix->n_rows + GROUP_ROWS - 1) / GROUP_ROWS;
        w->packed_bytes = n_groups * GROUP_ROWS * matrix->row_bytes;
        w->packed = arena_take(&compute->arena, w->packed_bytes, &w->run);
        if (w->packed == NULL) {
            mem_free(w);
            return STATUS_NO_MEMORY;
        }
        pool_run(compute->pool, n_groups, 8, pack_groups, w);
    }
    note_weight(compute, w);
    *out = w;
    return STATUS_OK;
}

enum status weight_borrow(struct compute *compute, const struct matrix *matrix, struct weight **out)
{
    struct weight *w = MEM_NEW(struct weight);
    *out = w;
    if (w == NULL)
        return STATUS_NO_MEMORY;
    assert(matrix->n_cols % tensor_type_info((uint32_t)matrix->type)->block_values == 0);
    w->matrix = *matrix;
    note_weight(compute, w);
    return STATUS_OK;
}

struct making {
    struct compute *compute;
    struct weight *w;
    weight_rows *rows;
    void *ctx;
    uint8_t *made; /* the rows as they are, for openblas */
};

/* A thread's panel has room for a group of rows in any type, and one of floats. */
static void make_groups(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct making *making = ctx;
    const struct compute *c = making->compute;
    struct weight *w = making->w;
    float *scratch = c->panels + (size_t)thread * panel_rows(c->kind) * c->max_cols;
    struct matrix group = w->matrix;
    size_t group_bytes = GROUP_ROWS * group.row_bytes;
    group.data = scratch + c->max_cols;
    for (size_t g = begin; g < end; g++) {
        uint32_t first = (uint32_t)(g * GROUP_ROWS), left = w->matrix.n_rows - first;
        group.n_rows = left < GROUP_ROWS ? left : GROUP_ROWS;
        if (w->packed == NULL) {
            making->rows(making->ctx, first, group.n_rows, scratch, making->made + g * group_bytes);
            continue;
        }
        making->rows(making->ctx, first, group.n_rows, scratch, scratch + c->max_cols);
        pack_group(&group, 0, w->packed + g * group_bytes);
    }
}

enum status weight_make(struct compute *compute, const struct matrix *matrix, weight_rows *rows,
                        void *ctx, struct weight **out)
{
    *out = NULL;
    assert(matrix->n_cols % tensor_type_info((uint32_t)matrix->type)->block_values == 0);
    if (compute_reserve(compute, 1, matrix->n_cols) != STATUS_OK)
        return STATUS_NO_MEMORY;
    struct weight *w = MEM_NEW(struct weight);
    if (w == NULL)
        return STATUS_NO_MEMORY;
    w->matrix = *matrix;
    w->matrix.data = NULL;
    uint8_t *made = NULL;
    size_t n_groups = ((size_t)matrix->n_rows + GROUP_ROWS - 1) / GROUP_ROWS;
    if (compute->kind == ENGINE_NATIVE) {
        w->packed_bytes = n_groups * GROUP_ROWS * matrix->row_bytes;
        w->packed = arena_take(&compute->arena, w->packed_bytes, &w->run);
    } else {
        size_t made_bytes = matrix->n_rows * matrix->row_bytes;
        w->matrix.data = made = arena_take(&compute->arena, made_bytes, &w->run);
    }
    if (w->run == NULL) {
        mem_free(w);
        return STATUS_NO_MEMORY;
    }
    struct making making = {compute, w, rows, ctx, made};
    pool_run(compute->pool, n_groups, 8, make_groups, &making);
    note_weight(compute, w);
    *out = w;
    return STATUS_OK;
}

void weight_free(struct weight **weight)
{
    if (*weight == NULL)
        return;
    arena_give((*weight)->run);
    mem_free(*weight);
    *weight = NULL;
}

void weight_memory(const struct weight *w, const void **data, size_t *n_bytes)
{
    *data = w->packed ? w->packed : w->matrix.data;
    *n_bytes = w->packed ? w->packed_bytes : w->matrix.n_rows * w->matrix.row_bytes;
}

void weight_row(const struct weight *w, uint32_t row, float *out)
{
    assert(row < w->matrix.n_rows);
    const struct matrix *m = &w->matrix;
    if (w->packed == NULL) {
        tensor_decode(m->type, (const uint8_t *)m->data + row * m->row_bytes, out, m->n_cols);
        return;
    }
    const struct tensor_type_info *info = tensor_type_info((uint32_t)m->type);
    uint8_t block[512];
    assert(info->block_bytes <= sizeof block);
    for (size_t b = 0; b < m->n_cols / info->block_values; b++, out += info->block_values) {
        unpack_block(m, w->packed, row, b, block);
        tensor_decode(m->type, block, out, info->block_values);
    }
}

/* ---------------------------------------------------------------- products */

/* Rows of x that one or more products share, and their place in the scratch. */
struct source {
    const float *x;
    size_t ldx, n, first_row;
    size_t first_piece;           /* pieces of TILE_PIECE rows, which tiles never straddle */
    bool quants, floats, rounded; /* the last two never together */
};

struct job {
    struct compute *c;
    const struct product *products;
    size_t n_products, n_sources, n_cols;
    size_t starts[COMPUTE_MAX_PRODUCTS + 1]; /* units before each product, of FLOAT_GROUPS groups */
    uint8_t source_of[COMPUTE_MAX_PRODUCTS];
    struct source sources[COMPUTE_MAX_PRODUCTS];
};

static void prepare_rows(const struct job *job, const struct source *s, size_t first, size_t last)
{
    const struct kernel_table *table = job->c->table;
    size_t nt;
    for (size_t r = first; s->quants && r < last; r += nt) {
        nt = tile_rows(s->n - r, table->quant_tile);
        table->quantize(s->x + r * s->ldx, s->ldx, nt, job->n_cols,
                        job->c->quants + quant_scratch(s->first_row + r, job->n_cols));
    }
    float_records *records = s->rounded ? table->round : table->copy;
    for (size_t r = first; (s->floats || s->rounded) && r < last; r += nt) {
        nt = tile_rows(s->n - r, table->float_tile);
        records(s->x + r * s->ldx, s->ldx, nt, job->n_cols,
                job->c->floats + (s->first_row + r) * float_row(job->n_cols));
    }
}

static void prepare_pieces(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct job *job = ctx;
    size_t i = 0;
    (void)thread;
    for (size_t piece = begin; piece < end; piece++) {
        while (i + 1 < job->n_sources && piece >= job->sources[i + 1].first_piece)
            i++;
        const struct source *s = &job->sources[i];
        size_t first = (piece - s->first_piece) * TILE_PIECE, last = first + TILE_PIECE;
        prepare_rows(job, s, first, last < s->n ? last : s->n);
    }
}

static const void *acts_of(const struct job *job, enum tensor_type type, size_t row)
{
    if (!type_is_quantised(type))
        return job->c->floats + row * float_row(job->n_cols);
    return job->c->quants + quant_scratch(row, job->n_cols);
}

/* One group by way of a buffer: the last one, where it has fewer than 16 rows, and those of weights
 * that lie as in the file. Such a group is packed here as weight_new does it, so that the same
 * kernel sees the same bytes. */
static void buffered_group(const struct job *job, const struct product *p, size_t first_row,
                           size_t group, uint32_t thread)
{
    const struct matrix *m = &p->w->matrix;
    float out[TILE_PIECE * GROUP_ROWS];
    size_t first = group * GROUP_ROWS, left = m->n_rows - first;
    size_t rows = left < GROUP_ROWS ? left : GROUP_ROWS;
    const void *weights = p->w->packed + first * m->row_bytes;
    enum tensor_type type = m->type;
    if (p->w->packed == NULL) {
        float *panel = job->c->panels + (size_t)thread * NATIVE_PANEL_ROWS * job->c->max_cols;
        weights = panel;
        pack_group(m, (uint32_t)group, (uint8_t *)panel);
    }
    for (size_t r = 0; r < p->n; r += TILE_PIECE) {
        size_t n = p->n - r < TILE_PIECE ? p->n - r : TILE_PIECE;
        job->c->table->panel[type](weights, 1, m->n_cols, acts_of(job, type, first_row + r), n, out,
                                   GROUP_ROWS);
        for (size_t t = 0; t < n; t++)
            memcpy(p->y + (r + t) * p->ldy + first, out + t * GROUP_ROWS, rows * sizeof *out);
    }
}

static void run_groups(const struct job *job, size_t product, size_t begin, size_t end,
                       uint32_t thread)
{
    const struct product *p = &job->products[product];
    const struct matrix *m = &p->w->matrix;
    size_t whole = m->n_rows / GROUP_ROWS, n_groups = whole + (m->n_rows % GROUP_ROWS != 0);
    size_t first_row = job->sources[job->source_of[product]].first_row;
    if (p->w->packed == NULL)
        whole = 0;
    end = end < n_groups ? end : n_groups;
    size_t last = end < whole ? end : whole;
    if (begin < last) {
        job->c->table->panel[m->type](p->w->packed + begin * GROUP_ROWS * m->row_bytes,
                                      last - begin, m->n_cols, acts_of(job, m->type, first_row),
                                      p->n, p->y + begin * GROUP_ROWS, p->ldy);
        begin = last;
    }
    for (; begin < end; begin++)
        buffered_group(job, p, first_row, begin, thread);
}

static void run_units(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct job *job = ctx;
    for (size_t i = 0; i < job->n_products; i++) {
        size_t from = begin > job->starts[i] ? begin : job->starts[i];
        size_t to = end < job->starts[i + 1] ? end : job->starts[i + 1];
        if (from < to)
            run_groups(job, i, (from - job->starts[i]) * FLOAT_GROUPS,
                       (to - job->starts[i]) * FLOAT_GROUPS, thread);
    }
}

static bool same_rows(const struct source *s, const struct product *p)
{
    return s->x == p->x && s->ldx == p->ldx && s->n == p->n;
}

/* The rows of each product; those of the one before count once. Returns the pieces in all. */
static size_t find_sources(struct job *job)
{
    size_t rows = 0, pieces = 0;
    for (size_t i = 0; i < job->n_products; i++) {
        const struct product *p = &job->products[i];
        assert(p->w->matrix.n_cols == job->n_cols);
        if (job->n_sources == 0 || !same_rows(&job->sources[job->n_sources - 1], p)) {
            job->sources[job->n_sources++] = (struct source){
                .x = p->x, .ldx = p->ldx, .n = p->n, .first_row = rows, .first_piece = pieces};
            rows += p->n;
            pieces += (p->n + TILE_PIECE - 1) / TILE_PIECE;
        }
        struct source *s = &job->sources[job->n_sources - 1];
        enum tensor_type type = p->w->matrix.type;
        s->floats |= type_is_float(type);
        s->rounded |= type == TENSOR_BF16_DOT;
        s->quants |= type_is_quantised(type);
        assert(!s->floats || !s->rounded);
        job->source_of[i] = (uint8_t)(job->n_sources - 1);
    }
    assert(rows <= job->c->max_rows && job->n_cols <= job->c->max_cols);
    return pieces;
}

static void native_products(struct compute *c, const struct product *products, size_t n_products)
{
    struct job job = {.c = c,
                      .products = products,
                      .n_products = n_products,
                      .n_cols = products[0].w->matrix.n_cols};
    size_t bytes = 0, pieces = find_sources(&job);
    for (size_t i = 0; i < n_products; i++) {
        const struct matrix *m = &products[i].w->matrix;
        size_t unit_rows = (size_t)GROUP_ROWS * FLOAT_GROUPS;
        job.starts[i + 1] = job.starts[i] + (m->n_rows + unit_rows - 1) / unit_rows;
        bytes += m->n_rows * m->row_bytes;
    }
    size_t units = job.starts[n_products], threads = pool_threads(c->pool);
    pool_run(c->pool, pieces, 1, prepare_pieces, &job);
    /* Pieces are short, so that threads end together; those of a thread follow one another. */
    size_t chunk = PIECE_BYTES / (bytes / units + 1), fair = units / (threads * 4);
    chunk = chunk < fair ? chunk : fair;
    pool_run(c->pool, units, threads == 1 ? units : (chunk > 0 ? chunk : 1), run_units, &job);
}

/* Floats as they are and rounded ones lie in the same scratch. */
static bool floats_differ(const struct product *products, size_t n_products)
{
    bool floats = false, rounded = false;
    for (size_t i = 0; i < n_products; i++) {
        floats |= type_is_float(products[i].w->matrix.type);
        rounded |= products[i].w->matrix.type == TENSOR_BF16_DOT;
    }
    return floats && rounded;
}

void compute_matmul_each(struct compute *c, const struct product *products, size_t n_products)
{
    assert(n_products <= COMPUTE_MAX_PRODUCTS);
    if (n_products == 0)
        return;
    if (c->kind == ENGINE_NATIVE && !floats_differ(products, n_products)) {
        native_products(c, products, n_products);
        return;
    }
    for (size_t i = 0; i < n_products; i++) {
        if (c->kind == ENGINE_NATIVE)
            native_products(c, &products[i], 1);
        else
            blas_product(c, &products[i]);
    }
}

void compute_matmul_many(struct compute *c, const struct weight *const *w, size_t n_weights,
                         const float *x, size_t ldx, size_t n, float *const *y, const size_t *ldy)
{
    struct product products[COMPUTE_MAX_PRODUCTS];
    assert(n_weights <= COMPUTE_MAX_PRODUCTS);
    for (size_t i = 0; i < n_weights; i++)
        products[i] = (struct product){w[i], x, ldx, n, y[i], ldy[i]};
    compute_matmul_each(c, products, n == 0 ? 0 : n_weights);
}

void compute_matmul(struct compute *compute, const struct weight *w, const float *x, size_t ldx,
                    size_t n, float *y, size_t ldy)
{
    compute_matmul_many(compute, &w, 1, x, ldx, n, &y, &ldy);
}

void compute_parallel(struct compute *compute, size_t n_items,
                      void (*fn)(void *ctx, size_t begin, size_t end, uint32_t thread), void *ctx)
{
    size_t pieces = (size_t)pool_threads(compute->pool) * 4;
    pool_run(compute->pool, n_items, (n_items + pieces - 1) / pieces + (n_items == 0), fn, ctx);
}
