/* Special tokens in a text: "<|im_end|>" and its like are cut out before anything else happens.
 *
 * Which tokens: control and unknown ones where the caller wants them parsed, user-defined ones
 * always. The longest token text wins wherever it stands, then the next: that is the order in which
 * llama.cpp and its vocabularies have it, and it differs from "leftmost first" where texts overlap.
 * A vocabulary may have thousands of such tokens and a prompt a megabyte with all of them, so
 * nothing is done token by token: one walk over a trie finds the longest that starts at each byte,
 * a heap hands these places out in the order above, and one whose bytes are taken already goes back
 * with the longest of its shorter tokens that still has room. */
#include "engine/text/merge_heap.h"
#include "engine/text/vocab.h"

#include <stdlib.h>
#include <string.h>

struct trie_node {
    uint32_t child, sibling; /* 0: none; node 0 is the root */
    uint32_t order;          /* place in text->special + 1; 0: no token ends here */
    uint32_t shorter;        /* the last node on the way here at which a token ends; 0: none */
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

/* From the root down, whatever order the nodes were made in: a child is made after its parent. */
static void shorter_link(struct text *text)
{
    struct trie_node *trie = text->trie;
    for (uint32_t node = 0; node < text->n_trie; node++) {
        uint32_t shorter = trie[node].order != 0 ? node : trie[node].shorter;
        for (uint32_t child = trie[node].child; child != 0; child = trie[child].sibling) {
            trie[child].shorter = shorter;
        }
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
    shorter_link(text);
    return STATUS_OK;
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

/* One cutting. A place is {cost: order of the token, left: its first byte, right: its trie node}.
 */
struct cutting {
    const struct text *text;
    bool parse_special;
    const char *data;
    size_t n_bytes;
    struct merge_heap places;
    uint8_t *taken;     /* [n_bytes] by a token, or white space that one takes along */
    uint32_t *token_at; /* [n_bytes] of those that start there */
};

static const struct token *token_of(const struct cutting *c, uint32_t node)
{
    return &c->text->tokens[c->text->special[c->text->trie[node].order - 1]];
}

/* The longest wanted token at or above the node with at most `room` bytes; 0: none. */
static uint32_t node_wanted(const struct cutting *c, uint32_t node, size_t room)
{
    const struct trie_node *trie = c->text->trie;
    for (; node != 0; node = trie[node].shorter) {
        if (trie[node].order != 0) {
            const struct token *token = token_of(c, node);
            bool plain = (token->attr & (TOKEN_CONTROL | TOKEN_UNKNOWN)) == 0;
            if ((c->parse_special || plain) && token->n_bytes <= room) {
                break;
            }
        }
    }
    return node;
}

static enum status place_add(struct cutting *c, uint32_t at, uint32_t node, size_t room)
{
    node = node_wanted(c, node, room);
    if (node == 0) {
        return STATUS_OK;
    }
    struct merge_pair place = {
        .cost = (double)c->text->trie[node].order, .left = at, .right = node};
    return merge_heap_push(&c->places, &place);
}

static enum status places_find(struct cutting *c)
{
    enum status status = STATUS_OK;
    for (size_t at = 0; at < c->n_bytes && status == STATUS_OK; at++) {
        uint32_t node = 0, next;
        for (size_t i = at; i < c->n_bytes; i++) {
            next = child_find(c->text->trie, node, (uint8_t)c->data[i]);
            if (next == 0) {
                break;
            }
            node = next;
        }
        status = place_add(c, (uint32_t)at, node, c->n_bytes);
    }
    return status;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static enum status place_take(struct cutting *c, struct merge_pair place)
{
    const struct token *token = token_of(c, place.right);
    uint8_t *begin = c->taken + place.left;
    uint8_t *hit = memchr(begin, 1, token->n_bytes);
    if (hit != NULL) {
        return hit == begin ? STATUS_OK
                            : place_add(c, place.left, place.right, (size_t)(hit - begin));
    }
    memset(begin, 1, token->n_bytes);
    c->token_at[place.left] = (uint32_t)(token - c->text->tokens);
    if ((token->attr & TOKEN_RSTRIP) != 0) {
        for (size_t at = place.left + token->n_bytes;
             at < c->n_bytes && c->taken[at] == 0 && is_space(c->data[at]); at++) {
            c->taken[at] = 1;
        }
    }
    return STATUS_OK;
}

static enum status fragments_list(const struct cutting *c, struct fragments *out)
{
    enum status status = STATUS_OK;
    for (size_t at = 0, end; at < c->n_bytes && status == STATUS_OK; at = end) {
        uint32_t id = c->token_at[at];
        end = at + 1;
        if (id != TOKEN_NONE) {
            end = at + c->text->tokens[id].n_bytes;
            status = fragment_add(out, id, at, end);
        } else if (c->taken[at] == 0) {
            const uint8_t *next = memchr(c->taken + at, 1, c->n_bytes - at);
            end = next == NULL ? c->n_bytes : (size_t)(next - c->taken);
            status = fragment_add(out, TOKEN_NONE, at, end);
        }
    }
    return status;
}

enum status special_split(const struct text *text, const char *data, size_t n_bytes,
                          bool parse_special, struct fragments *out)
{
    struct cutting c = {
        .text = text, .parse_special = parse_special, .data = data, .n_bytes = n_bytes};
    enum status status = places_find(&c);
    out->n = 0;
    if (status == STATUS_OK && c.places.n == 0) {
        return fragment_add(out, TOKEN_NONE, 0, n_bytes);
    }
    if (status == STATUS_OK) {
        c.taken = MEM_NEW_N(uint8_t, n_bytes);
        c.token_at = MEM_NEW_N(uint32_t, n_bytes);
        status = c.taken == NULL || c.token_at == NULL ? STATUS_NO_MEMORY : STATUS_OK;
    }
    if (status == STATUS_OK) {
        memset(c.token_at, 0xff, n_bytes * sizeof *c.token_at);
    }
    while (status == STATUS_OK && c.places.n > 0) {
        status = place_take(&c, merge_heap_pop(&c.places));
    }
    if (status == STATUS_OK) {
        status = fragments_list(&c, out);
    }
    merge_heap_free(&c.places);
    mem_free(c.taken);
    mem_free(c.token_at);
    return status;
}
