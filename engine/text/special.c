/* Special tokens in a text: "<|im_end|>" and its like are cut out before anything else happens.
 *
 * Which tokens: control and unknown ones where the caller wants them parsed, user-defined ones
 * always. The longest token text wins wherever it stands, then the next: that is the order in which
 * llama.cpp and its vocabularies have it, and it differs from "leftmost first" where texts overlap.
 * A vocabulary may have thousands of such tokens and a prompt a megabyte, so one walk over a trie
 * finds out which of them occur at all, and only those are searched for. */
#include "engine/text/vocab.h"

#include <stdlib.h>
#include <string.h>

struct trie_node {
    uint32_t child, sibling; /* 0: none; node 0 is the root */
    uint32_t order;          /* place in text->special + 1; 0: no token ends here */
    uint8_t byte;
};

static uint32_t child_find(const struct trie_node *trie, uint32_t node, uint8_t byte)
{
    uint32_t child = trie[node].child;
    while (child != 0 && trie[child].byte != byte) {
        child = trie[child].sibling;
    }
    return child;
}

static void trie_add(struct text *text, const struct token *token, uint32_t order)
{
    uint32_t node = 0;
    for (uint32_t i = 0; i < token->n_bytes; i++) {
        uint8_t byte = (uint8_t)token->data[i];
        uint32_t child = child_find(text->trie, node, byte);
        if (child == 0) {
            child = (uint32_t)text->n_trie++;
            text->trie[child] = (struct trie_node){.sibling = text->trie[node].child, .byte = byte};
            text->trie[node].child = child;
        }
        node = child;
    }
    if (text->trie[node].order == 0) {
        text->trie[node].order = order + 1;
    }
}

struct ranked {
    uint32_t id, n_bytes;
};

static int longest_first(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->n_bytes != y->n_bytes) {
        return x->n_bytes > y->n_bytes ? -1 : 1;
    }
    return x->id < y->id ? -1 : 1;
}

enum status special_build(struct text *text)
{
    const uint8_t wanted = TOKEN_CONTROL | TOKEN_USER | TOKEN_UNKNOWN;
    size_t n = 0, n_bytes = 0;
    for (uint32_t id = 0; id < text->n_tokens; id++) {
        bool special = (text->tokens[id].attr & wanted) != 0 && text->tokens[id].n_bytes > 0;
        n += special;
        n_bytes += special ? text->tokens[id].n_bytes : 0;
    }
    struct ranked *ranked = MEM_NEW_N(struct ranked, n + 1);
    text->special = MEM_NEW_N(uint32_t, n + 1);
    text->trie = MEM_NEW_N(struct trie_node, n_bytes + 1);
    if (ranked == NULL || text->special == NULL || text->trie == NULL) {
        mem_free(ranked);
        return STATUS_NO_MEMORY;
    }
    n = 0;
    for (uint32_t id = 0; id < text->n_tokens; id++) {
        if ((text->tokens[id].attr & wanted) != 0 && text->tokens[id].n_bytes > 0) {
            ranked[n++] = (struct ranked){.id = id, .n_bytes = text->tokens[id].n_bytes};
        }
    }
    qsort(ranked, n, sizeof *ranked, longest_first);
    text->n_special = n;
    text->n_trie = 1;
    for (size_t i = 0; i < n; i++) {
        text->special[i] = ranked[i].id;
        trie_add(text, &text->tokens[ranked[i].id], (uint32_t)i);
    }
    mem_free(ranked);
    return STATUS_OK;
}

/* present[i] for every special token whose text occurs somewhere. */
static void occurrences_mark(const struct text *text, const char *data, size_t n_bytes,
                             bool *present)
{
    for (size_t at = 0; at < n_bytes; at++) {
        uint32_t node = 0;
        for (size_t i = at; i < n_bytes; i++) {
            node = child_find(text->trie, node, (uint8_t)data[i]);
            if (node == 0) {
                break;
            }
            if (text->trie[node].order != 0) {
                present[text->trie[node].order - 1] = true;
            }
        }
    }
}

void fragments_free(struct fragments *fragments)
{
    mem_free(fragments->items);
    *fragments = (struct fragments){0};
}

static enum status fragment_add(struct fragments *list, uint32_t token, size_t start, size_t end)
{
    if (token == TOKEN_NONE && start == end) {
        return STATUS_OK;
    }
    if (list->n == list->capacity) {
        size_t capacity = list->capacity == 0 ? 16 : 2 * list->capacity;
        struct fragment *items = mem_resize(list->items, capacity, sizeof *items);
        if (items == NULL) {
            return STATUS_NO_MEMORY;
        }
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->n++] = (struct fragment){
        .token = token, .start = (uint32_t)start, .n_bytes = (uint32_t)(end - start)};
    return STATUS_OK;
}

/* One stretch of text, cut at every occurrence of the token. */
static enum status fragment_cut(const struct token *token, uint32_t id, const char *data,
                                struct fragment fragment, struct fragments *out)
{
    size_t at = fragment.start, end = fragment.start + fragment.n_bytes;
    while (at < end) {
        const char *found = memmem(data + at, end - at, token->data, token->n_bytes);
        if (found == NULL) {
            break;
        }
        size_t start = (size_t)(found - data);
        enum status status = fragment_add(out, TOKEN_NONE, at, start);
        if (status == STATUS_OK) {
            status = fragment_add(out, id, start, start + token->n_bytes);
        }
        if (status != STATUS_OK) {
            return status;
        }
        at = start + token->n_bytes;
        while ((token->attr & TOKEN_RSTRIP) != 0 && at < end &&
               (data[at] == ' ' || (data[at] >= '\t' && data[at] <= '\r'))) {
            at++;
        }
    }
    return fragment_add(out, TOKEN_NONE, at, end);
}

static enum status token_cut(const struct text *text, uint32_t id, const char *data,
                             struct fragments *list, struct fragments *spare)
{
    enum status status = STATUS_OK;
    spare->n = 0;
    for (size_t i = 0; i < list->n && status == STATUS_OK; i++) {
        struct fragment fragment = list->items[i];
        status = fragment.token != TOKEN_NONE
                     ? fragment_add(spare, fragment.token, fragment.start,
                                    fragment.start + fragment.n_bytes)
                     : fragment_cut(&text->tokens[id], id, data, fragment, spare);
    }
    struct fragments swap = *list;
    *list = *spare;
    *spare = swap;
    return status;
}

enum status special_split(const struct text *text, const char *data, size_t n_bytes,
                          bool parse_special, struct fragments *out)
{
    struct fragments spare = {0};
    bool *present = mem_zeroed(text->n_special + 1, sizeof *present);
    if (present == NULL) {
        return STATUS_NO_MEMORY;
    }
    out->n = 0;
    enum status status = fragment_add(out, TOKEN_NONE, 0, n_bytes);
    occurrences_mark(text, data, n_bytes, present);
    for (size_t i = 0; i < text->n_special && status == STATUS_OK; i++) {
        uint8_t attr = text->tokens[text->special[i]].attr;
        bool plain = (attr & (TOKEN_CONTROL | TOKEN_UNKNOWN)) == 0;
        if (present[i] && (parse_special || plain)) {
            status = token_cut(text, text->special[i], data, out, &spare);
        }
    }
    fragments_free(&spare);
    mem_free(present);
    return status;
}
