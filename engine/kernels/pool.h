#ifndef SKEIN_ENGINE_KERNELS_POOL_H
#define SKEIN_ENGINE_KERNELS_POOL_H

/* Threads that do one job at a time together with the caller. */
#include "proto/base/base.h"

struct pool;

/* n_threads ≥ 1, the caller counted: a pool of 1 has no thread of its own. */
enum status pool_new(uint32_t n_threads, struct pool **out) MUST_USE;
void pool_free(struct pool **pool);
uint32_t pool_threads(const struct pool *pool);

typedef void pool_work(void *ctx, size_t begin, size_t end, uint32_t thread);

/* Calls work for pieces of [0, n_items), each of at most `chunk` items, on all threads at once, and
 * returns when all are done. Which thread gets which piece is left to chance, so the work of a
 * piece must not depend on it. One caller at a time. */
void pool_run(struct pool *pool, size_t n_items, size_t chunk, pool_work *work, void *ctx);

#endif
