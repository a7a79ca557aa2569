/* Memory, limits and errors of one rendering.
 *
 * Everything a rendering makes lives in one arena and dies with it, so no value needs an owner and
 * no error path needs cleaning up. The arena's ceiling, the step counter and the depth counter are
 * what makes a template from a stranger's file harmless: a loop that never ends runs out of steps,
 * text that doubles itself runs out of memory, a macro that calls itself runs out of depth, each
 * with a sentence that names the limit. Steps are charged for work, not for nodes: an operation
 * over n bytes or elements costs in proportion. */
#include "engine/text/jinja_value.h"
#include "engine/text/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { BLOCK_BYTES = 64 * 1024, ALIGNMENT = 16 };

struct jinja_block {
    struct jinja_block *next;
    size_t at, size;
    _Alignas(ALIGNMENT) unsigned char data[];
};

void jinja_limits_default(struct jinja_limits *out)
{
    *out = (struct jinja_limits){.steps = 20000000,
                                 .memory_bytes = (size_t)256 << 20,
                                 .output_bytes = (size_t)64 << 20,
                                 .depth = 400};
}

static struct jinja_block *block_add(struct jinja *j, size_t at_least)
{
    size_t size = at_least > BLOCK_BYTES ? at_least : BLOCK_BYTES;
    if (size > j->limits.memory_bytes - j->used_bytes) {
        jinja_fault(j, STATUS_LIMIT, "the chat template needs more than %zu MiB",
                    j->limits.memory_bytes >> 20);
        return NULL;
    }
    struct jinja_block *block = mem_zeroed(1, sizeof *block + size);
    if (block == NULL) {
        (void)fault_set(&j->fault, STATUS_NO_MEMORY, "no memory to render the chat template");
        return NULL;
    }
    j->used_bytes += size;
    block->size = size;
    /* A block for one large thing goes behind the current one, which still has room. */
    if (j->blocks != NULL && size > BLOCK_BYTES) {
        block->next = j->blocks->next;
        j->blocks->next = block;
    } else {
        block->next = j->blocks;
        j->blocks = block;
    }
    return block;
}

void *jinja_take(struct jinja *j, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > SIZE_MAX / 2) {
        jinja_fault(j, STATUS_LIMIT, "the chat template needs more memory than there is");
        return NULL;
    }
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    bytes = bytes == 0 ? ALIGNMENT : bytes;
    struct jinja_block *block = j->blocks;
    if (block == NULL || block->size - block->at < bytes) {
        block = block_add(j, bytes);
        if (block == NULL) {
            return NULL;
        }
    }
    void *out = block->data + block->at;
    block->at += bytes;
    return out;
}

void jinja_release(struct jinja *j)
{
    while (j->blocks != NULL) {
        struct jinja_block *next = j->blocks->next;
        mem_free(j->blocks);
        j->blocks = next;
    }
}

enum status jinja_work(struct jinja *j, uint64_t steps)
{
    j->steps += steps;
    if (j->steps > j->limits.steps) {
        return jinja_fail(j, STATUS_LIMIT, "the chat template takes more than %llu steps",
                          (unsigned long long)j->limits.steps);
    }
    return STATUS_OK;
}

enum status jinja_enter(struct jinja *j)
{
    if (j->depth >= j->limits.depth) {
        return jinja_fail(j, STATUS_LIMIT, "the chat template is nested more than %u levels deep",
                          j->limits.depth);
    }
    j->depth++;
    return jinja_work(j, 1);
}

void jinja_leave(struct jinja *j)
{
    j->depth--;
}

void jinja_fault(struct jinja *j, enum status status, const char *format, ...)
{
    char text[sizeof j->fault.text];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)fault_set(&j->fault, status, "line %u: %s", j->line, text);
}

/* FNV-1a, enough for names of templates: names chosen to collide spend steps. */
static size_t hash_of(const char *text, size_t n)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ (uint8_t)text[i]) * 0x100000001b3u;
    }
    return (size_t)(hash ^ hash >> 32);
}

static const char **intern_slot(const char **names, size_t size, const char *text, size_t n,
                                uint64_t *probes)
{
    size_t at = hash_of(text, n) & (size - 1);
    while (names[at] != NULL &&
           (strnlen(names[at], n + 1) != n || memcmp(names[at], text, n) != 0)) {
        at = (at + 1) & (size - 1);
        *probes += 1;
    }
    return &names[at];
}

static enum status intern_grow(struct jinja *j)
{
    size_t size = j->names_size == 0 ? 128 : 2 * j->names_size;
    const char **names = jinja_take(j, size, sizeof *names);
    uint64_t probes = 0;
    if (names == NULL) {
        return jinja_failure(j);
    }
    for (size_t i = 0; i < j->names_size; i++) {
        if (j->names[i] != NULL) {
            *intern_slot(names, size, j->names[i], strlen(j->names[i]), &probes) = j->names[i];
        }
    }
    j->names = names;
    j->names_size = size;
    return jinja_work(j, probes / 16);
}

const char *jinja_intern(struct jinja *j, const char *text, size_t n)
{
    if (memchr(text, '\0', n) != NULL) { /* a keyword only: equal to no name, so never looked up */
        char *copy = jinja_take(j, n + 1, 1);
        return copy == NULL ? NULL : memcpy(copy, text, n);
    }
    if (2 * (j->n_names + 1) > j->names_size && intern_grow(j) != STATUS_OK) {
        return NULL;
    }
    uint64_t probes = 0;
    const char **slot = intern_slot(j->names, j->names_size, text, n, &probes);
    if (jinja_work(j, (probes + n / 4) / 16) != STATUS_OK) {
        return NULL;
    }
    if (*slot == NULL) {
        char *copy = jinja_take(j, n + 1, 1);
        if (copy == NULL) {
            return NULL;
        }
        memcpy(copy, text, n);
        *slot = copy;
        j->n_names++;
    }
    return *slot;
}

static enum status builder_grow(struct jinja *j, struct jinja_builder *b, size_t more)
{
    if (more > j->limits.output_bytes || b->n > j->limits.output_bytes - more) {
        return jinja_fail(j, STATUS_LIMIT, "the chat template writes more than %zu bytes",
                          j->limits.output_bytes);
    }
    if (b->n + more <= b->capacity) {
        return STATUS_OK;
    }
    size_t capacity = b->capacity < 64 ? 64 : 2 * b->capacity;
    capacity = capacity < b->n + more ? b->n + more : capacity;
    char *data = jinja_take(j, capacity, 1);
    if (data == NULL) {
        return jinja_failure(j);
    }
    if (b->n > 0) {
        memcpy(data, b->data, b->n);
    }
    b->data = data;
    b->capacity = capacity;
    return STATUS_OK;
}

enum status jinja_put(struct jinja *j, struct jinja_builder *b, const char *data, size_t n)
{
    if (n == 0) {
        return STATUS_OK;
    }
    JINJA_TRY(jinja_work(j, n / 64));
    JINJA_TRY(builder_grow(j, b, n));
    memcpy(b->data + b->n, data, n);
    b->n += n;
    return STATUS_OK;
}

enum status jinja_put_c(struct jinja *j, struct jinja_builder *b, char c)
{
    return jinja_put(j, b, &c, 1);
}

enum status jinja_put_text(struct jinja *j, struct jinja_builder *b, const char *text)
{
    return jinja_put(j, b, text, strlen(text));
}

enum status jinja_put_code(struct jinja *j, struct jinja_builder *b, uint32_t code)
{
    char bytes[4];
    return jinja_put(j, b, bytes, utf8_encode(code, bytes));
}

enum status jinja_put_repeated(struct jinja *j, struct jinja_builder *b, struct jinja_text unit,
                               size_t times)
{
    size_t total;
    if (__builtin_mul_overflow(unit.n, times, &total)) {
        total = SIZE_MAX;
    }
    if (total == 0) {
        return STATUS_OK;
    }
    JINJA_TRY(builder_grow(j, b, total));
    for (size_t i = 0; i < times; i++) {
        JINJA_TRY(jinja_put(j, b, unit.data, unit.n));
    }
    return jinja_work(j, times / 8);
}
