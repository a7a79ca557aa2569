#ifndef SKEIN_ENGINE_KERNELS_CORES_H
#define SKEIN_ENGINE_KERNELS_CORES_H

/* Which processors threads should run on. */
#include <sched.h>

#include "proto/base/base.h"

/* What is known of a processor, for tests without such a box. */
struct core {
    uint32_t cpu;      /* its number */
    uint32_t sibling;  /* how many of its core come before it: 0 for the first thread of a core */
    uint64_t capacity; /* larger is faster; only the order counts */
};

/* The n_threads best of the cores, first threads of cores before second ones, fast before slow;
 * false where that is all of them. Sorts the cores. */
bool cores_pick(struct core *cores, size_t n_cores, uint32_t n_threads, cpu_set_t *out);
/* The same for the processors that this thread may run on. */
bool cores_choose(uint32_t n_threads, cpu_set_t *out);

#endif
