/* Weights one behind the other, in huge pages.
 *
 * A core reads 4 KB pages a fifth slower than 2 MB ones, and the kernel gives huge pages only where
 * a whole one fits into a mapping: the last part of a matrix with a mapping of its own, up to 2 MB,
 * is in small ones. A layer's matrices have 0.5 to 10 MB, so that is a sixth of a model, and all of
 * a small expert. So a shard's matrices share runs: address space is reserved a gigabyte at a time,
 * which costs nothing, and becomes memory as it is taken, in steps of a huge page.
 *
 * A run is given back when everything in it has been: a shard's weights come and go together.
 * Nothing here fails but the system's memory. */
#include "engine/kernels/arena.h"

#include <sys/mman.h>

#include "proto/base/base.h"

enum { HUGE_PAGE = 2 << 20, RUN_BYTES = 1 << 30, LINE = 64 };

struct arena_run {
    uint8_t
        *map; /* n_bytes from a huge page's border, readable up to `ready`, taken up to `used` */
    size_t n_bytes, used, ready;
    uint32_t n_users; /* what was taken of it, and the arena while it fills it */
};

static size_t round_up(size_t n, size_t unit)
{
    return (n + unit - 1) & ~(unit - 1);
}

static struct arena_run *run_new(size_t bytes)
{
    size_t n_bytes = bytes > RUN_BYTES ? round_up(bytes, HUGE_PAGE) : RUN_BYTES;
    size_t total = n_bytes + HUGE_PAGE;
    struct arena_run *run = MEM_NEW(struct arena_run);
    if (run == NULL)
        return NULL;
    uint8_t *map = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        mem_free(run);
        return NULL;
    }
    size_t before = (size_t)(-(uintptr_t)map & (HUGE_PAGE - 1));
    if (before > 0)
        munmap(map, before);
    if (before < HUGE_PAGE)
        munmap(map + before + n_bytes, HUGE_PAGE - before);
    *run = (struct arena_run){.map = map + before, .n_bytes = n_bytes, .n_users = 1};
    madvise(run->map, n_bytes, MADV_HUGEPAGE);
    return run;
}

/* False where the system has no memory for it. */
static bool run_extend(struct arena_run *run, size_t end)
{
    size_t ready = round_up(end, HUGE_PAGE);
    if (ready <= run->ready)
        return true;
    if (mprotect(run->map + run->ready, ready - run->ready, PROT_READ | PROT_WRITE) != 0)
        return false;
    run->ready = ready;
    return true;
}

void *arena_take(struct arena *arena, size_t bytes, struct arena_run **out)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    if (arena->run == NULL || bytes > arena->run->n_bytes - arena->run->used) {
        struct arena_run *run = run_new(bytes);
        if (run == NULL)
            return NULL;
        arena_give(arena->run);
        arena->run = run;
    }
    struct arena_run *run = arena->run;
    if (!run_extend(run, run->used + bytes))
        return NULL;
    void *taken = run->map + run->used;
    run->used += round_up(bytes, LINE);
    run->n_users++;
    *out = run;
    return taken;
}

void arena_give(struct arena_run *run)
{
    if (run == NULL || --run->n_users > 0)
        return;
    munmap(run->map, run->n_bytes);
    mem_free(run);
}

void arena_close(struct arena *arena)
{
    arena_give(arena->run);
    arena->run = NULL;
}
