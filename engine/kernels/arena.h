#ifndef SKEIN_ENGINE_KERNELS_ARENA_H
#define SKEIN_ENGINE_KERNELS_ARENA_H

/* Memory of weights, taken piece by piece and given back whole. */
#include <stddef.h>
#include <stdint.h>

struct arena_run;

/* All zero is empty. */
struct arena {
    struct arena_run *run; /* the one that is being filled */
};

/* `bytes` of zeroed memory on a cache line's border; NULL without memory. *run is what to pass to
 * arena_give, once. */
void *arena_take(struct arena *arena, size_t bytes, struct arena_run **run);
void arena_give(struct arena_run *run); /* NULL does nothing */
/* What was taken stays until it is given back. */
void arena_close(struct arena *arena);

#endif
