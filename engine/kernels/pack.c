/* Repacking: 16 rows side by side, in as many bytes as before.
 *
 * A kernel that computes 16 outputs at once wants the same few columns of 16 rows in one load. So a
 * type's block is described as segments of units (table.h), and packing is a plain permutation of
 * units (of bits, where a word holds one or two for each column): the same for every type, with no
 * rounding and no growth, and it can be undone for a single row.
 *
 * The copy lies in anonymous memory: 2 MB pages, which one thread reads a quarter faster than the
 * 4 KB pages of a file mapping. Nothing here fails but the allocation. */
#include "engine/kernels/pack.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/kernels/quant_ref.h"

/* `count` units of `unit` bytes at `offset` of the block. In a group, the heads of all blocks of a
 * strip come first, one plane for each segment; then block by block the bodies. */
struct segment {
    uint8_t offset, unit, count, kind;
};

enum { MAX_SEGMENTS = 50, HUGE_PAGE = 2 << 20, HUGE_FROM = 1 << 20 };
/* A body's kind is odd. BITS are 32-bit words, a bit for each column: they are sorted so that bit u
 * of byte j is that of column 4u + j, as a kernel wants them (register u holds those columns).
 * PAIRS are the same with two bits for each of 16 columns. NO_NAN is a head of which 0x7f, which
 * counts as 0, becomes 0. */
enum { HEAD, BODY, NO_NAN, BITS, PAIRS = 5 };

/* Heads and bodies in the order in which a kernel reads them; a unit of 0 ends. Q6_K's codes are
 * cut into single units: the two of low bits and the one of high bits that make up four times 4
 * columns. */
#define Q6_UNIT(half, u)                                                                           \
    {64 * (half) + 4 * (u), 4, 1, BODY}, {64 * (half) + 4 * (u) + 32, 4, 1, BODY},                 \
    {                                                                                              \
        128 + 32 * (half) + 4 * (u), 4, 1, BODY                                                    \
    }
#define Q6_HALF(half)                                                                              \
    Q6_UNIT(half, 0), Q6_UNIT(half, 1), Q6_UNIT(half, 2), Q6_UNIT(half, 3), Q6_UNIT(half, 4),      \
        Q6_UNIT(half, 5), Q6_UNIT(half, 6), Q6_UNIT(half, 7)
static const struct segment float_4[] = {{0, 4, 1, BODY}, {0}};
static const struct segment float_2[] = {{0, 2, 1, BODY}, {0}};
static const struct segment pairs_2[] = {{0, 4, 1, BODY}, {0}};
static const struct segment q4_0[] = {{0, 2, 1, HEAD}, {2, 4, 4, BODY}, {0}};
static const struct segment q4_1[] = {{0, 2, 1, HEAD}, {2, 2, 1, HEAD}, {4, 4, 4, BODY}, {0}};
static const struct segment q5_0[] = {{0, 2, 1, HEAD}, {2, 4, 1, BITS}, {6, 4, 4, BODY}, {0}};
static const struct segment q5_1[] = {
    {0, 2, 1, HEAD}, {2, 2, 1, HEAD}, {4, 4, 1, BITS}, {8, 4, 4, BODY}, {0}};
static const struct segment mxfp4[] = {{0, 1, 1, HEAD}, {1, 4, 4, BODY}, {0}};
static const struct segment nvfp4[] = {{0, 1, 4, NO_NAN}, {4, 4, 8, BODY}, {0}};
static const struct segment q1_0[] = {{0, 2, 1, HEAD}, {2, 4, 4, BITS}, {0}};
static const struct segment q2_0[] = {{0, 2, 1, HEAD}, {2, 4, 4, PAIRS}, {0}};
static const struct segment tq1_0[] = {{52, 2, 1, HEAD}, {0, 4, 13, BODY}, {0}};
static const struct segment tq2_0[] = {{64, 2, 1, HEAD}, {0, 4, 16, BODY}, {0}};
static const struct segment q8_0[] = {{0, 2, 1, HEAD}, {2, 4, 8, BODY}, {0}};
static const struct segment q4_k[] = {
    {0, 2, 1, HEAD}, {2, 2, 1, HEAD}, {4, 1, 12, HEAD}, {16, 4, 32, BODY}, {0}};
static const struct segment q2_k[] = {
    {80, 2, 1, HEAD}, {82, 2, 1, HEAD}, {0, 1, 16, HEAD}, {16, 4, 16, BODY}, {0}};
static const struct segment q3_k[] = {
    {96, 1, 12, HEAD}, {108, 2, 1, HEAD}, {0, 4, 8, BODY}, {32, 4, 16, BODY}, {0}};
static const struct segment q5_k[] = {{0, 2, 1, HEAD},  {2, 2, 1, HEAD},   {4, 1, 12, HEAD},
                                      {16, 4, 8, BODY}, {48, 4, 32, BODY}, {0}};
static const struct segment iq4_xs[] = {
    {0, 2, 1, HEAD}, {2, 1, 2, HEAD}, {4, 1, 4, HEAD}, {8, 4, 32, BODY}, {0}};
static const struct segment q6_k[] = {
    {192, 1, 16, HEAD}, {208, 2, 1, HEAD}, Q6_HALF(0), Q6_HALF(1), {0}};

/* Blocks that are unpacked before a product (iq_block.c) stay whole, 16 rows' side by side. */
static const struct segment iq2_xxs[] = {{0, 66, 1, BODY}, {0}};
static const struct segment iq2_xs[] = {{0, 74, 1, BODY}, {0}};
static const struct segment iq2_s[] = {{0, 82, 1, BODY}, {0}};
static const struct segment iq3_xxs[] = {{0, 98, 1, BODY}, {0}};
static const struct segment iq3_s[] = {{0, 110, 1, BODY}, {0}};
static const struct segment iq1_s[] = {{0, 50, 1, BODY}, {0}};
static const struct segment iq1_m[] = {{0, 56, 1, BODY}, {0}};

static const struct segment *const layouts[TENSOR_TYPE_LIMIT] = {
    [TENSOR_F32] = float_4,     [TENSOR_F16] = float_2,      [TENSOR_BF16] = float_2,
    [TENSOR_Q4_0] = q4_0,       [TENSOR_Q4_1] = q4_1,        [TENSOR_Q5_0] = q5_0,
    [TENSOR_Q5_1] = q5_1,       [TENSOR_Q8_0] = q8_0,        [TENSOR_IQ4_NL] = q4_0,
    [TENSOR_MXFP4] = mxfp4,     [TENSOR_Q2_K] = q2_k,        [TENSOR_Q3_K] = q3_k,
    [TENSOR_Q4_K] = q4_k,       [TENSOR_Q5_K] = q5_k,        [TENSOR_Q6_K] = q6_k,
    [TENSOR_IQ4_XS] = iq4_xs,   [TENSOR_TQ1_0] = tq1_0,      [TENSOR_TQ2_0] = tq2_0,
    [TENSOR_NVFP4] = nvfp4,     [TENSOR_Q1_0] = q1_0,        [TENSOR_Q2_0] = q2_0,
    [TENSOR_IQ2_XXS] = iq2_xxs, [TENSOR_IQ2_XS] = iq2_xs,    [TENSOR_IQ2_S] = iq2_s,
    [TENSOR_IQ3_XXS] = iq3_xxs, [TENSOR_IQ3_S] = iq3_s,      [TENSOR_IQ1_S] = iq1_s,
    [TENSOR_IQ1_M] = iq1_m,     [TENSOR_BF16_DOT] = pairs_2,
};

static size_t blocks_of(const struct matrix *m)
{
    return m->n_cols / tensor_type_info((uint32_t)m->type)->block_values;
}

/* Two blocks of 256 columns where a single one would leave the next off the cache lines. */
static size_t blocks_of_strip(const struct matrix *m)
{
    const struct tensor_type_info *info = tensor_type_info((uint32_t)m->type);
    if (info->block_values < STRIP_COLS)
        return STRIP_COLS / info->block_values;
    return info->block_bytes * GROUP_ROWS % 64 == 0 ? 1 : 2;
}

struct strip {
    size_t head_bytes, body_bytes; /* of a block and row */
};

static struct strip strip_of(const struct segment *segments)
{
    struct strip strip = {0, 0};
    for (int i = 0; segments[i].unit != 0; i++)
        *(segments[i].kind % 2 != 0 ? &strip.body_bytes : &strip.head_bytes) +=
            (size_t)segments[i].unit * segments[i].count;
    return strip;
}

/* Where a segment's first unit lies in a strip, for its first block and row 0, and how far it is
 * from block to block. */
struct place {
    const struct segment *segment;
    size_t at, block_step;
};

static size_t places_of(enum tensor_type type, size_t n_blocks, struct place out[MAX_SEGMENTS])
{
    const struct segment *segments = layouts[type];
    assert(segments != NULL);
    struct strip strip = strip_of(segments);
    size_t head = 0, body = GROUP_ROWS * strip.head_bytes * n_blocks, n = 0;
    for (; segments[n].unit != 0; n++) {
        const struct segment *s = &segments[n];
        size_t bytes = (size_t)GROUP_ROWS * s->unit * s->count;
        if (s->kind % 2 != 0) {
            out[n] = (struct place){s, body, GROUP_ROWS * strip.body_bytes};
            body += bytes;
        } else {
            out[n] = (struct place){s, head, bytes};
            head += bytes * n_blocks;
        }
    }
    return n;
}

/* Every fourth bit of a word, as a byte, and back. */
static uint32_t gather_fourths(uint32_t word)
{
    word &= 0x11111111;
    word = (word | word >> 3) & 0x03030303;
    word = (word | word >> 6) & 0x000f000f;
    return (word | word >> 12) & 0xff;
}

static uint32_t spread_fourths(uint32_t byte)
{
    byte = (byte | byte << 12) & 0x000f000f;
    byte = (byte | byte << 6) & 0x03030303;
    return (byte | byte << 3) & 0x11111111;
}

static uint32_t sort_bits(uint32_t word)
{
    uint32_t sorted = 0;
    for (int j = 0; j < 4; j++)
        sorted |= gather_fourths(word >> j) << 8 * j;
    return sorted;
}

static uint32_t unsort_bits(uint32_t sorted)
{
    uint32_t word = 0;
    for (int j = 0; j < 4; j++)
        word |= spread_fourths(sorted >> 8 * j & 0xff) << j;
    return word;
}

/* Four bytes of four pairs, transposed; its own inverse. */
static uint32_t transpose_pairs(uint32_t word)
{
    uint32_t change = (word ^ word >> 6) & 0x00cc00cc;
    word ^= change | change << 6;
    change = (word ^ word >> 12) & 0x0000f0f0;
    return word ^ (change | change << 12);
}

static void store_u32(uint8_t *to, uint32_t word)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(word >> 8 * i);
}

static void sort_unit(int kind, const uint8_t *from, uint8_t *to)
{
    if (kind == NO_NAN)
        *to = *from == 0x7f ? 0 : *from;
    else
        store_u32(to, kind == BITS ? sort_bits(load_u32(from)) : transpose_pairs(load_u32(from)));
}

static void unsort_unit(const struct segment *s, const uint8_t *from, uint8_t *to)
{
    if (s->kind == BITS)
        store_u32(to, unsort_bits(load_u32(from)));
    else if (s->kind == PAIRS)
        store_u32(to, transpose_pairs(load_u32(from)));
    else
        memcpy(to, from, s->unit);
}

/* A row's units of one segment, of n_blocks blocks; packed is at the row's place in the first. */
static inline __attribute__((always_inline)) void scatter_units(const struct place *place,
                                                                size_t unit, int kind,
                                                                const uint8_t *row,
                                                                size_t block_bytes, size_t n_blocks,
                                                                uint8_t *packed)
{
    size_t count = place->segment->count, offset = place->segment->offset;
    for (size_t b = 0; b < n_blocks; b++) {
        const uint8_t *from = row + b * block_bytes + offset;
        uint8_t *to = packed + b * place->block_step;
        for (size_t u = 0; u < count; u++)
            if (kind <= BODY)
                memcpy(to + u * GROUP_ROWS * unit, from + u * unit, unit);
            else
                sort_unit(kind, from + u * unit, to + u * GROUP_ROWS * unit);
    }
}

static void scatter(const struct place *place, const uint8_t *row, size_t block_bytes,
                    size_t n_blocks, uint8_t *packed)
{
    const struct segment *s = place->segment;
    if (s->kind > BODY)
        scatter_units(place, s->unit, s->kind, row, block_bytes, n_blocks, packed);
    else if (s->unit == 4)
        scatter_units(place, 4, BODY, row, block_bytes, n_blocks, packed);
    else if (s->unit == 2)
        scatter_units(place, 2, BODY, row, block_bytes, n_blocks, packed);
    else if (s->unit == 1)
        scatter_units(place, 1, BODY, row, block_bytes, n_blocks, packed);
    else
        scatter_units(place, s->unit, BODY, row, block_bytes, n_blocks, packed);
}

void pack_group(const struct matrix *m, uint32_t group, uint8_t *out)
{
    size_t n_blocks = blocks_of(m), most = blocks_of_strip(m), count;
    size_t block_bytes = tensor_type_info((uint32_t)m->type)->block_bytes;
    uint32_t first = group * GROUP_ROWS, left = m->n_rows - first;
    uint32_t rows = left < GROUP_ROWS ? left : GROUP_ROWS;
    const uint8_t *data = (const uint8_t *)m->data + first * m->row_bytes;
    if (rows < GROUP_ROWS)
        memset(out, 0, GROUP_ROWS * n_blocks * block_bytes);
    for (size_t b = 0; b < n_blocks; b += count, out += GROUP_ROWS * count * block_bytes) {
        struct place places[MAX_SEGMENTS];
        count = n_blocks - b < most ? n_blocks - b : most;
        size_t n = places_of(m->type, count, places);
        for (uint32_t r = 0; r < rows; r++) {
            const uint8_t *row = data + r * m->row_bytes + b * block_bytes;
            for (size_t i = 0; i < n; i++)
                scatter(&places[i], row, block_bytes, count,
                        out + places[i].at + (size_t)r * places[i].segment->unit);
        }
    }
}

void unpack_block(const struct matrix *m, const uint8_t *packed, uint32_t row, size_t block,
                  uint8_t *out)
{
    struct place places[MAX_SEGMENTS];
    size_t n_blocks = blocks_of(m), most = blocks_of_strip(m);
    size_t block_bytes = tensor_type_info((uint32_t)m->type)->block_bytes;
    size_t first = block / most * most, count = n_blocks - first < most ? n_blocks - first : most;
    const uint8_t *strip =
        packed + ((size_t)(row / GROUP_ROWS) * n_blocks + first) * GROUP_ROWS * block_bytes;
    size_t n = places_of(m->type, count, places);
    for (size_t i = 0; i < n; i++) {
        const struct segment *s = places[i].segment;
        const uint8_t *from = strip + places[i].at + (block - first) * places[i].block_step +
                              (size_t)(row % GROUP_ROWS) * s->unit;
        for (size_t u = 0; u < s->count; u++, from += (size_t)GROUP_ROWS * s->unit)
            unsort_unit(s, from, out + s->offset + u * s->unit);
    }
}

void forget_rows(const struct matrix *m, size_t first, size_t count)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), base = (uintptr_t)m->data;
    uintptr_t begin = (base + first * m->row_bytes + page - 1) & ~(page - 1);
    uintptr_t end = (base + (first + count) * m->row_bytes) & ~(page - 1);
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
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

void pages_touch(void *pages, size_t bytes)
{
    volatile uint8_t *at = pages;
    for (size_t i = 0; i < bytes; i += 4096)
        at[i] = 0;
    if (bytes > 0)
        at[bytes - 1] = 0;
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
