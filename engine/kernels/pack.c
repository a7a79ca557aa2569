/* Repacking: 16 rows side by side, in as many bytes as before.
 *
 * A kernel that computes 16 outputs at once wants the same few columns of 16 rows in one load. So a
 * type's block is described as segments of units (table.h), and packing is a plain permutation of
 * units: the same for every type, with no rounding and no growth, and it can be undone for a single
 * row.
 *
 * The copy lies in anonymous memory: 2 MB pages, which one thread reads a quarter faster than the
 * 4 KB pages of a file mapping. Nothing here fails but the allocation. */
#include "engine/kernels/pack.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

struct segment {
    uint8_t offset, unit, count; /* bytes, bytes, units */
};

enum { MAX_SEGMENTS = 4, HUGE_PAGE = 2 << 20, HUGE_FROM = 1 << 20 };

/* In the order of the block's bytes; they cover it. */
static const struct segment layouts[TENSOR_TYPE_LIMIT][MAX_SEGMENTS] = {
    [TENSOR_F32] = {{0, 4, 1}},
    [TENSOR_F16] = {{0, 2, 1}},
    [TENSOR_BF16] = {{0, 2, 1}},
    [TENSOR_Q4_0] = {{0, 2, 1}, {2, 4, 4}},
    [TENSOR_Q8_0] = {{0, 2, 1}, {2, 4, 8}},
    [TENSOR_Q4_K] = {{0, 2, 1}, {2, 2, 1}, {4, 1, 12}, {16, 4, 32}},
    [TENSOR_Q6_K] = {{0, 4, 32}, {128, 4, 16}, {192, 1, 16}, {208, 2, 1}},
};

static size_t blocks_of(const struct matrix *m)
{
    return m->n_cols / tensor_type_info((uint32_t)m->type)->block_values;
}

bool pack_has(enum tensor_type type)
{
    return layouts[type][0].unit != 0;
}

/* `packed` is at unit 0 of the segment's plane, at the row's place. */
static void scatter(const struct segment *s, const uint8_t *row, size_t n_blocks,
                    size_t block_bytes, uint8_t *packed)
{
    size_t step = (size_t)GROUP_ROWS * s->unit;
    for (size_t b = 0; b < n_blocks; b++) {
        const uint8_t *from = row + b * block_bytes + s->offset;
        for (int u = 0; u < s->count; u++, from += s->unit, packed += step) {
            if (s->unit == 4)
                memcpy(packed, from, 4);
            else if (s->unit == 2)
                memcpy(packed, from, 2);
            else
                *packed = *from;
        }
    }
}

void pack_group(const struct matrix *m, uint32_t group, uint8_t *out)
{
    size_t n_blocks = blocks_of(m);
    size_t block_bytes = tensor_type_info((uint32_t)m->type)->block_bytes;
    uint32_t first = group * GROUP_ROWS, left = m->n_rows - first;
    uint32_t rows = left < GROUP_ROWS ? left : GROUP_ROWS;
    if (rows < GROUP_ROWS)
        memset(out, 0, GROUP_ROWS * n_blocks * block_bytes);
    for (int i = 0; i < MAX_SEGMENTS && layouts[m->type][i].unit != 0; i++) {
        const struct segment *s = &layouts[m->type][i];
        uint8_t *plane = out + GROUP_ROWS * n_blocks * s->offset;
        for (uint32_t r = 0; r < rows; r++) {
            const uint8_t *row = (const uint8_t *)m->data + (size_t)(first + r) * m->row_bytes;
            scatter(s, row, n_blocks, block_bytes, plane + (size_t)r * s->unit);
        }
    }
}

void unpack_blocks(const struct matrix *m, const uint8_t *packed, uint32_t row, size_t first,
                   size_t count, uint8_t *out)
{
    size_t n_blocks = blocks_of(m);
    size_t block_bytes = tensor_type_info((uint32_t)m->type)->block_bytes;
    const uint8_t *group =
        packed + (size_t)(row / GROUP_ROWS) * GROUP_ROWS * n_blocks * block_bytes;
    for (int i = 0; i < MAX_SEGMENTS && layouts[m->type][i].unit != 0; i++) {
        const struct segment *s = &layouts[m->type][i];
        size_t step = (size_t)GROUP_ROWS * s->unit;
        const uint8_t *from = group + GROUP_ROWS * n_blocks * s->offset + first * s->count * step +
                              (size_t)(row % GROUP_ROWS) * s->unit;
        for (size_t b = 0; b < count; b++)
            for (size_t u = 0; u < s->count; u++, from += step)
                memcpy(out + b * block_bytes + s->offset + u * s->unit, from, s->unit);
    }
}

void decode_group(const struct matrix *m, uint32_t group, float *row, float *out)
{
    size_t first = (size_t)group * GROUP_ROWS;
    for (size_t r = 0; r < GROUP_ROWS; r++) {
        if (first + r < m->n_rows)
            tensor_decode(m->type, (const uint8_t *)m->data + (first + r) * m->row_bytes, row,
                          m->n_cols);
        else
            memset(row, 0, m->n_cols * sizeof *row);
        for (size_t k = 0; k < m->n_cols; k++)
            out[k * GROUP_ROWS + r] = row[k];
    }
}

/* Small ones come from the heap. Large ones start on a huge page's border; what is mapped too much
 * for that is given back at once. */
void *pages_new(size_t bytes)
{
    if (bytes < HUGE_FROM)
        return mem_aligned(64, bytes == 0 ? 1 : bytes, 1);
    size_t total;
    if (__builtin_add_overflow(bytes, (size_t)HUGE_PAGE, &total))
        return NULL;
    uint8_t *map = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return NULL;
    size_t page = 4096, before = (size_t)(-(uintptr_t)map & (HUGE_PAGE - 1));
    size_t kept = (bytes + page - 1) & ~(page - 1);
    if (before > 0)
        munmap(map, before);
    if (total - before > kept)
        munmap(map + before + kept, total - before - kept);
    madvise(map + before, kept, MADV_HUGEPAGE);
    return map + before;
}

void pages_free(void *pages, size_t bytes)
{
    if (pages == NULL)
        return;
    if (bytes < HUGE_FROM)
        mem_free(pages);
    else
        munmap(pages, (bytes + 4095) & ~(size_t)4095);
}
