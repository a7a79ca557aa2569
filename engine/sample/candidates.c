/* The best few of a large vocabulary, without sorting it.
 *
 * With top-k, one pass over the logits keeps the k best in a heap whose top is the worst of them:
 * nearly every logit is refused by one comparison. Without top-k, all candidates are made into a
 * heap in linear time and taken out best first until the filters have had enough, which for real
 * models is a few dozen. Both orders are total (candidate_before), so the result is unique. */
#include "engine/sample/sample.h"

static void sift_down_best(struct candidate *list, size_t n, size_t at)
{
    struct candidate moved = list[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= n) {
            break;
        }
        if (child + 1 < n && candidate_before(list[child + 1], list[child])) {
            child++;
        }
        if (!candidate_before(list[child], moved)) {
            break;
        }
        list[at] = list[child];
        at = child;
    }
    list[at] = moved;
}

static void sift_down_worst(struct candidate *list, size_t n, size_t at)
{
    struct candidate moved = list[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= n) {
            break;
        }
        if (child + 1 < n && candidate_before(list[child], list[child + 1])) {
            child++;
        }
        if (!candidate_before(moved, list[child])) {
            break;
        }
        list[at] = list[child];
        at = child;
    }
    list[at] = moved;
}

void candidates_heap(struct candidate *list, size_t n)
{
    for (size_t i = n / 2; i-- > 0;) {
        sift_down_best(list, n, i);
    }
}

struct candidate candidates_pop(struct candidate *list, size_t n)
{
    struct candidate best = list[0];
    list[0] = list[n - 1];
    if (n > 1) {
        sift_down_best(list, n - 1, 0);
    }
    return best;
}

size_t candidates_top(const float *logits, uint32_t n_vocab, size_t k, struct candidate *list)
{
    size_t n = k < n_vocab ? k : n_vocab;
    for (uint32_t i = 0; i < n; i++) {
        list[i] = (struct candidate){.logit = logits[i], .id = i};
    }
    for (size_t i = n / 2; i-- > 0;) {
        sift_down_worst(list, n, i);
    }
    for (uint32_t i = (uint32_t)n; i < n_vocab; i++) {
        if (logits[i] > list[0].logit) { /* an equal one has the higher id: not better */
            list[0] = (struct candidate){.logit = logits[i], .id = i};
            sift_down_worst(list, n, 0);
        }
    }
    for (size_t left = n; left > 1; left--) {
        struct candidate worst = list[0];
        list[0] = list[left - 1];
        sift_down_worst(list, left - 1, 0);
        list[left - 1] = worst;
    }
    return n;
}
