/* Heap memory behind one door.
 *
 * malloc's family with overflow-checked sizes and a countdown that lets tests fail any single
 * allocation and see that the caller reports STATUS_NO_MEMORY and leaks nothing. */
#include "proto/base/mem.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static _Atomic unsigned long fail_countdown;

static bool mem_must_fail(void)
{
    unsigned long left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);

    if (left == 0)
        return false;
    return atomic_fetch_sub(&fail_countdown, 1) == 1;
}

void mem_fail_after(unsigned long countdown)
{
    atomic_store(&fail_countdown, countdown);
}

void *mem_zeroed(size_t n, size_t size)
{
    size_t total;

    if (__builtin_mul_overflow(n, size, &total) || mem_must_fail())
        return NULL;
    return calloc(1, total ? total : 1);
}

void *mem_resize(void *p, size_t n, size_t size)
{
    size_t total;

    if (__builtin_mul_overflow(n, size, &total) || mem_must_fail())
        return NULL;
    return realloc(p, total ? total : 1);
}

void *mem_aligned(size_t alignment, size_t n, size_t size)
{
    size_t total;

    if (__builtin_mul_overflow(n, size, &total) ||
        __builtin_add_overflow(total, alignment - 1, &total) || mem_must_fail())
        return NULL;
    total &= ~(alignment - 1);
    return aligned_alloc(alignment, total ? total : alignment);
}

char *mem_text(const char *text)
{
    return mem_text_n(text, strlen(text));
}

char *mem_text_n(const char *text, size_t n)
{
    char *copy = n == SIZE_MAX ? NULL : mem_zeroed(n + 1, 1);

    if (copy && n)
        memcpy(copy, text, n);
    return copy;
}

void *mem_copy(const void *p, size_t size)
{
    void *copy = mem_zeroed(size, 1);

    if (copy && size)
        memcpy(copy, p, size);
    return copy;
}

void mem_free(void *p)
{
    free(p);
}
