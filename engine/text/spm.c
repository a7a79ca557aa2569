/* SentencePiece vocabularies of BPE kind (GGUF "llama"): pairs are merged whose union is a token,
 * the best score first, of equal ones the leftmost; what is no token in the end falls back to
 * bytes. The same heap over a linked list as in bpe.c, but a pair is looked up by its text, which
 * is always one stretch of the input, and nothing longer than the longest token is looked up at
 * all. Kudo and Richardson, "SentencePiece", 2018. */
#include "engine/text/merge_heap.h"
#include "engine/text/utf8.h"
#include "engine/text/vocab.h"

#include <string.h>

struct node {
    uint32_t start, n_bytes;
    uint32_t previous, next;
};

struct work {
    const char *data;
    struct node *nodes;
    struct merge_heap heap;
};

static enum status pair_try(const struct text *text, struct work *work, uint32_t left,
                            uint32_t right)
{
    if (left == TOKEN_NONE || right == TOKEN_NONE) {
        return STATUS_OK;
    }
    const struct node *a = &work->nodes[left], *b = &work->nodes[right];
    uint32_t n_bytes = a->n_bytes + b->n_bytes;
    if (n_bytes > text->max_token_bytes) {
        return STATUS_OK;
    }
    uint32_t id = string_map_find(&text->map, text->tokens, work->data + a->start, n_bytes);
    if (id == TOKEN_NONE) {
        return STATUS_OK;
    }
    return merge_heap_push(
        &work->heap,
        &(struct merge_pair){-(double)text->tokens[id].score, left, right, {n_bytes, 0}});
}

static uint32_t nodes_fill(struct work *work, size_t n_bytes)
{
    uint32_t n = 0;
    for (size_t at = 0; at < n_bytes; n++) {
        uint32_t code;
        size_t length = utf8_decode(work->data + at, n_bytes - at, &code);
        work->nodes[n] = (struct node){.start = (uint32_t)at,
                                       .n_bytes = (uint32_t)length,
                                       .previous = n == 0 ? TOKEN_NONE : n - 1,
                                       .next = n + 1};
        at += length;
    }
    work->nodes[n - 1].next = TOKEN_NONE;
    return n;
}

static enum status merge_all(const struct text *text, struct work *work, uint32_t n_nodes)
{
    enum status status = STATUS_OK;
    for (uint32_t i = 1; i < n_nodes && status == STATUS_OK; i++) {
        status = pair_try(text, work, i - 1, i);
    }
    while (work->heap.n > 0 && status == STATUS_OK) {
        struct merge_pair pair = merge_heap_pop(&work->heap);
        struct node *left = &work->nodes[pair.left], *right = &work->nodes[pair.right];
        if (left->n_bytes == 0 || right->n_bytes == 0 ||
            left->n_bytes + right->n_bytes != pair.check[0] || left->next != pair.right) {
            continue;
        }
        left->n_bytes = pair.check[0];
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

static enum status node_emit(const struct text *text, const char *data, uint32_t n_bytes,
                             struct token_list *out)
{
    enum status status = STATUS_OK;
    uint32_t id = string_map_find(&text->map, text->tokens, data, n_bytes);
    if (id != TOKEN_NONE) {
        return token_list_add(out, id);
    }
    for (uint32_t i = 0; i < n_bytes && status == STATUS_OK; i++) {
        id = text->byte_symbol[(uint8_t)data[i]];
        if (id == TOKEN_NONE) { /* no byte tokens: the character is unknown, once */
            return text->unknown == TOKEN_NONE ? STATUS_OK : token_list_add(out, text->unknown);
        }
        status = token_list_add(out, id);
    }
    return status;
}

enum status spm_encode(const struct text *text, const char *data, size_t n_bytes, bool space_before,
                       struct token_list *out)
{
    struct buffer escaped = {0};
    struct work work = {0};
    enum status status = buffer_reserve(&escaped, n_bytes + 4);
    if (status == STATUS_OK && space_before) {
        status = buffer_put(&escaped, "\xe2\x96\x81", 3);
    }
    for (size_t i = 0; i < n_bytes && status == STATUS_OK; i++) {
        status = data[i] == ' ' ? buffer_put(&escaped, "\xe2\x96\x81", 3)
                                : buffer_put_u8(&escaped, (uint8_t)data[i]);
    }
    if (status == STATUS_OK && escaped.len > 0) {
        work.data = (const char *)escaped.data;
        work.nodes = MEM_NEW_N(struct node, escaped.len);
        status = work.nodes == NULL ? STATUS_NO_MEMORY
                                    : merge_all(text, &work, nodes_fill(&work, escaped.len));
        for (uint32_t i = 0; i != TOKEN_NONE && status == STATUS_OK; i = work.nodes[i].next) {
            status = node_emit(text, work.data + work.nodes[i].start, work.nodes[i].n_bytes, out);
        }
    }
    mem_free(work.nodes);
    merge_heap_free(&work.heap);
    buffer_free(&escaped);
    return status;
}
