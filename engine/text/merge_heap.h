#ifndef SKEIN_ENGINE_TEXT_MERGE_HEAP_H
#define SKEIN_ENGINE_TEXT_MERGE_HEAP_H

/* The candidates of a tokenizer that merges neighbours, best first. */
#include "proto/base/base.h"

struct merge_pair {
    double cost;          /* the least is merged first, of equal ones the leftmost */
    uint32_t left, right; /* nodes of the tokenizer's linked list */
    uint32_t check[2];    /* what the tokenizer compares to see that the pair is not stale */
};

struct merge_heap { /* zero-initialise; merge_heap_free */
    struct merge_pair *items;
    size_t n, capacity;
};

enum status merge_heap_push(struct merge_heap *heap, const struct merge_pair *pair) MUST_USE;
struct merge_pair merge_heap_pop(struct merge_heap *heap); /* n > 0 */
void merge_heap_free(struct merge_heap *heap);

#endif
