/* A binary heap of candidate merges, shared by byte pair encoding (cost = rank in the merge list)
 * and SentencePiece (cost = minus the score of the union). Nothing is ever removed from its middle:
 * a pair that has gone stale is recognised by the tokenizer when it comes out. */
#include "engine/text/merge_heap.h"

static bool pair_before(const struct merge_pair *a, const struct merge_pair *b)
{
    return a->cost < b->cost || (a->cost == b->cost && a->left < b->left);
}

enum status merge_heap_push(struct merge_heap *heap, const struct merge_pair *pair)
{
    size_t at = heap->n;

    if (heap->n == heap->capacity) {
        size_t capacity = heap->capacity == 0 ? 64 : 2 * heap->capacity;
        struct merge_pair *items = mem_resize(heap->items, capacity, sizeof *items);

        if (items == NULL)
            return STATUS_NO_MEMORY;
        heap->items = items;
        heap->capacity = capacity;
    }
    heap->n++;
    while (at > 0 && pair_before(pair, &heap->items[(at - 1) / 2])) {
        heap->items[at] = heap->items[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap->items[at] = *pair;
    return STATUS_OK;
}

struct merge_pair merge_heap_pop(struct merge_heap *heap)
{
    struct merge_pair best = heap->items[0];
    struct merge_pair moved = heap->items[--heap->n];
    size_t at = 0, child;

    while ((child = 2 * at + 1) < heap->n) {
        if (child + 1 < heap->n && pair_before(&heap->items[child + 1], &heap->items[child]))
            child++;
        if (!pair_before(&heap->items[child], &moved))
            break;
        heap->items[at] = heap->items[child];
        at = child;
    }
    heap->items[at] = moved;
    return best;
}

void merge_heap_free(struct merge_heap *heap)
{
    mem_free(heap->items);
    *heap = (struct merge_heap){0};
}
