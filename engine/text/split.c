/* Cutting text by patterns: PCRE2 with UTF and Unicode properties, compiled to machine code where
 * it can.
 *
 * PCRE2 wants well-formed UTF-8 and a prompt is any bytes: the patterns run over a copy in which
 * each stray byte is a control character, which no class but negated ones takes; the pieces are
 * offsets, so the text itself is untouched.
 *
 * Patterns come from our table or from files, so a run has a budget of work in proportion to its
 * text; to overrun it is an error, not a wait. It is counted, not timed: the same text has the same
 * end on every box. PCRE2 says not what a call did, but takes bounds: of backtracking steps for
 * each start, of starts, and of text, for a call may be shown less than there is and says when it
 * came to the end of that (a hard partial match). So a search begins with a few starts over a few
 * bytes, and only the start at which that is not enough is tried again with more of what it
 * lacked, each time charged with all that it may use. A start that a match needs costs a few times
 * its length; what reads on and on from every start is charged for it and ends early.
 *
 * \G, the place where a search began, would be any place where a call begins: it is refused. */
#include "engine/text/utf8.h"
#include "engine/text/vocab.h"

#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum {
    MAX_PATTERNS = 16,
    HEAP_LIMIT_KIB = 256 << 10,
    JIT_STACK = 4 << 20,
    FIRST_BYTES = 64, /* shown to a call at first; it may start in the first half of them */
    FIRST_STEPS = 64,
    MORE_BYTES = 4, /* times as many, where they were not enough */
    MORE_STEPS = 8,
    STEP_COST = 4,     /* of a step of backtracking, in bytes looked at */
    BUDGET_BYTE = 256, /* for each pattern */
    BUDGET = 1 << 25   /* besides: short texts may be cut by quadratic patterns */
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
    if (strstr(pattern, "\\G") != NULL) {
        return fault_set(fault, STATUS_UNSUPPORTED, "a pattern of the tokenizer has \\G");
    }
    pcre2_compile_context *context = pcre2_compile_context_create(splitter->memory);
    if (context == NULL) {
        return STATUS_NO_MEMORY;
    }
    pcre2_set_parens_nest_limit(context, 100);
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT,
                      &error, &at, context);
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
    /* without it the interpreter runs */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
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
    uint64_t budget; /* bytes that may still be looked at */
};

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
    run->budget = BUDGET + (uint64_t)BUDGET_BYTE * splitter->n * n_bytes;
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

/* One call, that may start anywhere in [from, last] and sees subject [n]. */
static int match_call(const pcre2_code *code, struct run *run, const char *subject, size_t n,
                      size_t from, size_t last, uint32_t options)
{
    pcre2_set_offset_limit(run->context, last);
    options |= PCRE2_NO_UTF_CHECK;
    int rc = pcre2_match(code, (PCRE2_SPTR)subject, n, from, options, run->match, run->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
        rc = pcre2_match(code, (PCRE2_SPTR)subject, n, from, options | PCRE2_NO_JIT, run->match,
                         run->context);
    }
    return rc;
}

static bool within(const char *subject, size_t n, size_t at)
{
    return at < n && ((uint8_t)subject[at] & 0xc0) == 0x80; /* in the middle of a character */
}

/* The first match at or behind `from`. */
static int match_find(const pcre2_code *code, struct run *run, const char *subject, size_t n,
                      size_t from)
{
    size_t n_bytes = FIRST_BYTES;
    uint32_t steps = FIRST_STEPS;
    bool single = false; /* one start, at `from` */
    while (from <= n) {
        uint64_t cost = n_bytes + (steps > FIRST_STEPS ? (uint64_t)STEP_COST * steps : 0);
        size_t last = single ? from : from + FIRST_BYTES / 2;
        size_t end = n - from > n_bytes ? from + n_bytes : n;
        if (cost > run->budget) {
            return PCRE2_ERROR_MATCHLIMIT;
        }
        run->budget -= cost;
        while (within(subject, n, end)) {
            end--;
        }
        pcre2_set_match_limit(run->context, steps);
        int rc = match_call(code, run, subject, end, from, last, end < n ? PCRE2_PARTIAL_HARD : 0);
        if (rc == PCRE2_ERROR_PARTIAL) {
            from = pcre2_get_startchar(run->match);
            n_bytes *= MORE_BYTES;
            single = true;
        } else if (rc == PCRE2_ERROR_MATCHLIMIT && steps <= UINT32_MAX / MORE_STEPS) {
            steps *= single ? MORE_STEPS : 1;
            single = true;
        } else if (rc == PCRE2_ERROR_NOMATCH) {
            for (from = last + 1; within(subject, n, from); from++) {}
            n_bytes = FIRST_BYTES;
            steps = FIRST_STEPS;
            single = false;
        } else {
            return rc;
        }
    }
    return PCRE2_ERROR_NOMATCH;
}

/* Cuts one piece by one pattern. The pattern sees nothing outside of the piece. */
static enum status piece_cut(const pcre2_code *code, struct run *run, struct piece piece,
                             struct pieces *out)
{
    const char *subject = run->subject + piece.start;
    size_t n = piece.n_bytes, done = 0, from = 0;
    while (from <= n) {
        int rc = match_find(code, run, subject, n, from);
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
