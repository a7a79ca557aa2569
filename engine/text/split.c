/* Cutting text by patterns: PCRE2 with UTF and Unicode properties, compiled to machine code where
 * it can.
 *
 * PCRE2 wants well-formed UTF-8 and a prompt is any bytes: the patterns run over a copy in which
 * each stray byte is a control character, which no class but negated ones takes; the pieces are
 * offsets, so the text itself is untouched. Patterns come from our table or from files, so every
 * match has limits on steps and memory, and running into one is an error, not a wait. */
#include "engine/text/utf8.h"
#include "engine/text/vocab.h"

#include <string.h>
#include <time.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum {
    MAX_PATTERNS = 16,
    MATCH_LIMIT = 1000000,
    MATCH_LIMIT_BYTE = 16,
    HEAP_LIMIT_KIB = 256 << 10,
    JIT_STACK = 4 << 20
};

struct splitter {
    pcre2_general_context *memory;
    pcre2_code *codes[MAX_PATTERNS];
    size_t n;
};

static void *memory_take(PCRE2_SIZE size, void *owner)
{
    (void)owner;
    return mem_zeroed(1, size);
}

static void memory_give(void *p, void *owner)
{
    (void)owner;
    mem_free(p);
}

static enum status pattern_add(struct splitter *splitter, const char *pattern, struct fault *fault)
{
    int error;
    PCRE2_SIZE at;
    pcre2_compile_context *context = pcre2_compile_context_create(splitter->memory);
    if (context == NULL) {
        return STATUS_NO_MEMORY;
    }
    pcre2_set_parens_nest_limit(context, 100);
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &at, context);
    pcre2_compile_context_free(context);
    if (code == NULL) {
        PCRE2_UCHAR words[160] = "";
        if (error == PCRE2_ERROR_HEAP_FAILED) {
            return STATUS_NO_MEMORY;
        }
        (void)pcre2_get_error_message(error, words, sizeof words);
        return fault_set(fault, STATUS_UNSUPPORTED, "a pattern of the tokenizer: %s at offset %zu",
                         (const char *)words, (size_t)at);
    }
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* without it the interpreter runs */
    splitter->codes[splitter->n++] = code;
    return STATUS_OK;
}

enum status splitter_new(const char *const *patterns, struct splitter **out, struct fault *fault)
{
    enum status status = STATUS_OK;
    *out = NULL;
    struct splitter *splitter = MEM_NEW(struct splitter);
    if (splitter == NULL) {
        return STATUS_NO_MEMORY;
    }
    splitter->memory = pcre2_general_context_create(memory_take, memory_give, NULL);
    if (splitter->memory == NULL) {
        status = STATUS_NO_MEMORY;
    }
    for (; status == STATUS_OK && *patterns != NULL; patterns++) {
        status = splitter->n == MAX_PATTERNS
                     ? fault_set(fault, STATUS_LIMIT, "the tokenizer has too many patterns")
                     : pattern_add(splitter, *patterns, fault);
    }
    if (status != STATUS_OK) {
        splitter_free(&splitter);
        return status;
    }
    *out = splitter;
    return STATUS_OK;
}

void splitter_free(struct splitter **splitter)
{
    struct splitter *s = *splitter;
    if (s == NULL) {
        return;
    }
    for (size_t i = 0; i < s->n; i++) {
        pcre2_code_free(s->codes[i]);
    }
    pcre2_general_context_free(s->memory);
    mem_free(s);
    *splitter = NULL;
}

void pieces_free(struct pieces *pieces)
{
    mem_free(pieces->items);
    *pieces = (struct pieces){0};
}

static enum status piece_add(struct pieces *pieces, size_t start, size_t end)
{
    if (start == end) {
        return STATUS_OK;
    }
    if (pieces->n == pieces->capacity) {
        size_t capacity = pieces->capacity == 0 ? 64 : 2 * pieces->capacity;
        struct piece *items = mem_resize(pieces->items, capacity, sizeof *items);
        if (items == NULL) {
            return STATUS_NO_MEMORY;
        }
        pieces->items = items;
        pieces->capacity = capacity;
    }
    pieces->items[pieces->n++] =
        (struct piece){.start = (uint32_t)start, .n_bytes = (uint32_t)(end - start)};
    return STATUS_OK;
}

/* What one run of a splitter needs beside the patterns. */
struct run {
    char *subject; /* well-formed */
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    unsigned n_matches;
    double deadline; /* of this thread's processor time, in seconds */
};

static double processor_seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static enum status run_new(const struct splitter *splitter, const char *text, size_t n_bytes,
                           struct run *run)
{
    run->subject = mem_zeroed(n_bytes + 1, 1);
    run->match = pcre2_match_data_create(1, splitter->memory);
    run->context = pcre2_match_context_create(splitter->memory);
    run->stack = pcre2_jit_stack_create(32 << 10, JIT_STACK, splitter->memory);
    if (run->subject == NULL || run->match == NULL || run->context == NULL || run->stack == NULL) {
        return STATUS_NO_MEMORY;
    }
    run->deadline = processor_seconds() + 0.5 + 8.0 * (double)n_bytes / 1048576.0;
    pcre2_set_match_limit(run->context, MATCH_LIMIT + MATCH_LIMIT_BYTE * (uint32_t)n_bytes);
    pcre2_set_heap_limit(run->context, HEAP_LIMIT_KIB);
    pcre2_jit_stack_assign(run->context, NULL, run->stack);
    memcpy(run->subject, text, n_bytes);
    for (size_t at = 0; at < n_bytes;) {
        uint32_t code;
        size_t length = utf8_decode(text + at, n_bytes - at, &code);
        if (length == 1 && (uint8_t)text[at] >= 0x80) {
            run->subject[at] = 1;
        }
        at += length;
    }
    return STATUS_OK;
}

static void run_free(struct run *run)
{
    mem_free(run->subject);
    pcre2_match_data_free(run->match);
    pcre2_match_context_free(run->context);
    pcre2_jit_stack_free(run->stack);
}

static int match_at(const pcre2_code *code, struct run *run, const char *subject, size_t n,
                    size_t from)
{
    if (++run->n_matches % 8 == 0 && processor_seconds() > run->deadline) {
        return PCRE2_ERROR_MATCHLIMIT;
    }
    int rc = pcre2_match(code, (PCRE2_SPTR)subject, n, from, PCRE2_NO_UTF_CHECK, run->match,
                         run->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
        rc = pcre2_match(code, (PCRE2_SPTR)subject, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         run->match, run->context);
    }
    return rc;
}

/* Cuts one piece by one pattern. The pattern sees nothing outside of the piece. */
static enum status piece_cut(const pcre2_code *code, struct run *run, struct piece piece,
                             struct pieces *out)
{
    const char *subject = run->subject + piece.start;
    size_t n = piece.n_bytes, done = 0, from = 0;
    while (from <= n) {
        int rc = match_at(code, run, subject, n, from);
        if (rc == PCRE2_ERROR_NOMATCH) {
            break;
        }
        if (rc < 0) {
            return rc == PCRE2_ERROR_NOMEMORY ? STATUS_NO_MEMORY : STATUS_LIMIT;
        }
        const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(run->match);
        enum status status = piece_add(out, piece.start + done, piece.start + ends[0]);
        if (status == STATUS_OK) {
            status = piece_add(out, piece.start + ends[0], piece.start + ends[1]);
        }
        if (status != STATUS_OK) {
            return status;
        }
        done = ends[1];
        from = ends[1];
        if (ends[0] == ends[1]) { /* a match of nothing: only a place to cut */
            uint32_t skipped;
            size_t step = utf8_decode(subject + from, n - from, &skipped);
            from += step == 0 ? 1 : step;
        }
    }
    return piece_add(out, piece.start + done, piece.start + n);
}

enum status splitter_run(const struct splitter *splitter, const char *text, size_t n_bytes,
                         struct pieces *out)
{
    struct run run = {0};
    struct pieces next = {0};
    enum status status = run_new(splitter, text, n_bytes, &run);
    out->n = 0;
    if (status == STATUS_OK) {
        status = piece_add(out, 0, n_bytes);
    }
    for (size_t p = 0; p < splitter->n && status == STATUS_OK; p++) {
        next.n = 0;
        for (size_t i = 0; i < out->n && status == STATUS_OK; i++) {
            status = piece_cut(splitter->codes[p], &run, out->items[i], &next);
        }
        struct pieces swap = *out;
        *out = next;
        next = swap;
    }
    pieces_free(&next);
    run_free(&run);
    return status;
}
