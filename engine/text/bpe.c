/* Byte pair encoding: pieces of text into tokens by a ranked list of merges.
 *
 * A piece starts as one symbol a byte (a character where the vocabulary works on raw UTF-8). The
 * pair whose merge stands first in the list is replaced by its merger, again and again; of equal
 * ones the leftmost. The symbols are a linked list over the piece and the candidate pairs a heap,
 * so a piece of n bytes takes n log n steps however long it is; a heap entry that has gone
 * stale is recognised by its symbols and dropped.
 *
 * Strings are compared as numbers: every string that the merge list can make has one (its token,
 * or a number past the vocabulary for those that are no tokens). Sennrich et al., "Neural machine
 * translation of rare words with subword units", 2016; byte-level form: GPT-2. */
#include "engine/text/merge_heap.h"
#include "engine/text/utf8.h"
#include "engine/text/vocab.h"

#include <string.h>

struct node {
    uint32_t symbol; /* TOKEN_NONE: text that is no known string */
    uint32_t start, n_bytes;
    uint32_t previous, next; /* TOKEN_NONE: none */
};

struct work {
    struct node *nodes;
    size_t nodes_capacity;
    struct merge_heap heap;
};

static const struct merge *merge_find(const struct text *text, uint32_t left, uint32_t right)
{
    if (left == TOKEN_NONE || right == TOKEN_NONE || text->merges_size == 0) {
        return NULL;
    }
    uint64_t key = (uint64_t)left << 32 | right;
    size_t at = (size_t)((key * 0x9e3779b97f4a7c15u) >> 20) & (text->merges_size - 1);
    while (text->merges[at].key != UINT64_MAX) {
        if (text->merges[at].key == key) {
            return &text->merges[at];
        }
        at = (at + 1) & (text->merges_size - 1);
    }
    return NULL;
}

static void merge_add(struct text *text, uint32_t left, uint32_t right, uint32_t rank,
                      uint32_t symbol)
{
    uint64_t key = (uint64_t)left << 32 | right;
    size_t at = (size_t)((key * 0x9e3779b97f4a7c15u) >> 20) & (text->merges_size - 1);
    while (text->merges[at].key != UINT64_MAX) {
        if (text->merges[at].key == key) {
            return; /* the first of equal ones counts */
        }
        at = (at + 1) & (text->merges_size - 1);
    }
    text->merges[at] = (struct merge){.key = key, .rank = rank, .symbol = symbol};
}

static enum status pair_try(const struct text *text, struct work *work, uint32_t left,
                            uint32_t right)
{
    if (left == TOKEN_NONE || right == TOKEN_NONE) {
        return STATUS_OK;
    }
    uint32_t a = work->nodes[left].symbol, b = work->nodes[right].symbol;
    const struct merge *merge = merge_find(text, a, b);
    if (merge == NULL) {
        return STATUS_OK;
    }
    return merge_heap_push(&work->heap, &(struct merge_pair){merge->rank, left, right, {a, b}});
}

static enum status nodes_fill(const struct text *text, struct work *work, const char *data,
                              size_t n_bytes, uint32_t *n_nodes)
{
    if (work->nodes_capacity < n_bytes) {
        struct node *nodes = mem_resize(work->nodes, n_bytes + 64, sizeof *nodes);
        if (nodes == NULL) {
            return STATUS_NO_MEMORY;
        }
        work->nodes = nodes;
        work->nodes_capacity = n_bytes + 64;
    }
    uint32_t n = 0;
    for (size_t at = 0; at < n_bytes; n++) {
        uint32_t code, symbol;
        size_t length = 1;
        if ((text->pre->flags & PRE_RAW) != 0) {
            length = utf8_decode(data + at, n_bytes - at, &code);
            symbol = string_map_find(&text->map, text->tokens, data + at, length);
        } else {
            symbol = text->byte_symbol[(uint8_t)data[at]];
        }
        work->nodes[n] = (struct node){.symbol = symbol,
                                       .start = (uint32_t)at,
                                       .n_bytes = (uint32_t)length,
                                       .previous = n == 0 ? TOKEN_NONE : n - 1,
                                       .next = n + 1};
        at += length;
    }
    if (n > 0) {
        work->nodes[n - 1].next = TOKEN_NONE;
    }
    *n_nodes = n;
    return STATUS_OK;
}

static enum status merge_all(const struct text *text, struct work *work, uint32_t n_nodes)
{
    enum status status = STATUS_OK;
    work->heap.n = 0;
    for (uint32_t i = 1; i < n_nodes && status == STATUS_OK; i++) {
        status = pair_try(text, work, i - 1, i);
    }
    while (work->heap.n > 0 && status == STATUS_OK) {
        struct merge_pair pair = merge_heap_pop(&work->heap);
        struct node *left = &work->nodes[pair.left], *right = &work->nodes[pair.right];
        if (left->n_bytes == 0 || right->n_bytes == 0 || left->symbol != pair.check[0] ||
            right->symbol != pair.check[1] || left->next != pair.right) {
            continue;
        }
        left->symbol = merge_find(text, pair.check[0], pair.check[1])->symbol;
        left->n_bytes += right->n_bytes;
        right->n_bytes = 0;
        left->next = right->next;
        if (right->next != TOKEN_NONE) {
            work->nodes[right->next].previous = pair.left;
        }
        status = pair_try(text, work, left->previous, pair.left);
        if (status == STATUS_OK) {
            status = pair_try(text, work, pair.left, left->next);
        }
    }
    return status;
}

static enum status node_emit(const struct text *text, const struct node *node, const char *data,
                             struct token_list *out)
{
    enum status status = STATUS_OK;
    if (node->symbol < text->n_tokens) {
        return token_list_add(out, node->symbol);
    }
    for (uint32_t i = 0; i < node->n_bytes && status == STATUS_OK; i++) {
        uint32_t id = text->byte_symbol[(uint8_t)data[node->start + i]];
        if (id < text->n_tokens) {
            status = token_list_add(out, id);
        } else if (text->unknown < text->n_tokens) {
            status = token_list_add(out, text->unknown);
        }
    }
    return status;
}

/* The token that is the whole piece, or TOKEN_NONE. */
static uint32_t whole_token(const struct text *text, const char *data, size_t n_bytes)
{
    bool newlines = (text->pre->flags & PRE_NEWLINES) != 0 && data[0] == '\n';
    if ((text->pre->flags & PRE_IGNORE_MERGES) == 0 && !newlines) {
        return TOKEN_NONE;
    }
    char letters[512];
    size_t n = 0;
    if ((text->pre->flags & PRE_RAW) != 0) {
        return string_map_find(&text->map, text->tokens, data, n_bytes);
    }
    if (n_bytes > sizeof letters / 2) {
        return TOKEN_NONE;
    }
    for (size_t i = 0; i < n_bytes; i++) {
        n += byte_letter((uint8_t)data[i], letters + n);
    }
    return string_map_find(&text->map, text->tokens, letters, n);
}

static enum status piece_encode(const struct text *text, struct work *work, const char *data,
                                size_t n_bytes, struct token_list *out)
{
    uint32_t n_nodes = 0;
    uint32_t whole = whole_token(text, data, n_bytes);
    if (whole < text->n_tokens) {
        return token_list_add(out, whole);
    }
    enum status status = nodes_fill(text, work, data, n_bytes, &n_nodes);
    if (status == STATUS_OK) {
        status = merge_all(text, work, n_nodes);
    }
    uint32_t first = n_nodes > 0 ? 0 : TOKEN_NONE;
    for (uint32_t i = first; i != TOKEN_NONE && status == STATUS_OK; i = work->nodes[i].next) {
        status = node_emit(text, &work->nodes[i], data, out);
    }
    return status;
}

/* Blanks become U+2581. */
static enum status blanks_escape(const char *data, size_t n_bytes, struct buffer *out)
{
    enum status status = buffer_reserve(out, n_bytes + 1);
    for (size_t i = 0; i < n_bytes && status == STATUS_OK; i++) {
        status = data[i] == ' ' ? buffer_put(out, "\xe2\x96\x81", 3)
                                : buffer_put_u8(out, (uint8_t)data[i]);
    }
    return status;
}

enum status bpe_encode(const struct text *text, const char *data, size_t n_bytes,
                       struct token_list *out)
{
    struct work work = {0};
    struct pieces pieces = {0};
    struct buffer escaped = {0};
    enum status status = STATUS_OK;
    if ((text->pre->flags & PRE_RAW) != 0) {
        status = blanks_escape(data, n_bytes, &escaped);
        data = (const char *)escaped.data;
        n_bytes = escaped.len;
    }
    if (status == STATUS_OK) {
        status = splitter_run(text->splitter, data, n_bytes, &pieces);
    }
    for (size_t i = 0; i < pieces.n && status == STATUS_OK; i++) {
        status =
            piece_encode(text, &work, data + pieces.items[i].start, pieces.items[i].n_bytes, out);
    }
    buffer_free(&escaped);
    pieces_free(&pieces);
    mem_free(work.nodes);
    merge_heap_free(&work.heap);
    return status;
}

/* The number of a string of the merge list, a new one where it is no token. */
static uint32_t symbol_of(struct text *text, const char *data, size_t n_bytes)
{
    uint32_t found = string_map_find(&text->map, text->tokens, data, n_bytes);
    if (found != TOKEN_NONE) {
        return found;
    }
    text->tokens[text->n_symbols] = (struct token){.data = data, .n_bytes = (uint32_t)n_bytes};
    return string_map_add(&text->map, text->tokens, text->n_symbols++);
}

/* "left right" with the two as one string, for which `joined` has room. */
static void merge_line(struct text *text, struct gguf_text line, uint32_t rank, char *joined)
{
    const char *space = line.n_bytes < 3 ? NULL : memchr(line.data + 1, ' ', line.n_bytes - 1);
    if (space == NULL) {
        return;
    }
    size_t n_left = (size_t)(space - line.data), n_right = line.n_bytes - n_left - 1;
    if (n_right == 0) {
        return;
    }
    uint32_t left = symbol_of(text, line.data, n_left);
    uint32_t right = symbol_of(text, space + 1, n_right);
    memcpy(joined, line.data, n_left);
    memcpy(joined + n_left, space + 1, n_right);
    uint32_t both = string_map_find(&text->map, text->tokens, joined, n_left + n_right);
    if (both == TOKEN_NONE) {
        both = symbol_of(text, joined, n_left + n_right);
    }
    merge_add(text, left, right, rank, both);
}

enum status bpe_load(struct text *text, const struct gguf *gguf, struct fault *fault)
{
    const struct gguf_value *list = gguf_find(gguf, "tokenizer.ggml.merges");
    uint64_t n = list == NULL ? 0 : list->n;
    if (list != NULL && (!list->is_array || list->kind != GGUF_STRING || n > TEXT_MAX_TOKENS)) {
        return fault_set(fault, STATUS_FORMAT, "tokenizer.ggml.merges is not a list of merges");
    }
    text->merges_size = 64;
    while (text->merges_size < 2 * n) {
        text->merges_size *= 2;
    }
    text->merges = MEM_NEW_N(struct merge, text->merges_size);
    size_t bytes = list == NULL ? 0 : list->data_bytes;
    text->joined = mem_zeroed(bytes + 1, 1);
    if (text->merges == NULL || text->joined == NULL) {
        return STATUS_NO_MEMORY;
    }
    for (size_t i = 0; i < text->merges_size; i++) {
        text->merges[i].key = UINT64_MAX;
    }
    char *joined = text->joined;
    for (uint64_t i = 0; i < n; i++) {
        struct gguf_text line;
        if (gguf_value_text(list, i, &line)) {
            merge_line(text, line, (uint32_t)i, joined);
            joined += line.n_bytes;
        }
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        char name[8] = {0};
        size_t length = byte_letter((uint8_t)byte, name);
        if ((text->pre->flags & PRE_RAW) != 0) {
            static const char digits[] = "0123456789ABCDEF";
            memcpy(name, "<0x", 3);
            name[3] = digits[byte >> 4];
            name[4] = digits[byte & 15];
            name[5] = '>';
            length = 6;
        }
        text->byte_symbol[byte] = string_map_find(&text->map, text->tokens, name, length);
    }
    return STATUS_OK;
}
