#ifndef SKEIN_PROTO_BASE_MEM_H
#define SKEIN_PROTO_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

/* All heap memory of the program comes from here, so that tests can make the n-th call fail.
 * Every function returns NULL on failure or where n * size overflows; contents as calloc/realloc.
 * A size of 0 gives a unique pointer. Thread-safe. */
void *mem_zeroed(size_t n, size_t size);
void *mem_resize(void *p, size_t n, size_t size); /* as reallocarray: p stays valid on failure */
void *mem_aligned(size_t alignment, size_t n, size_t size); /* not zeroed; alignment a power of 2 */
char *mem_text(const char *text);                           /* copy of a C string */
char *mem_text_n(const char *text, size_t n);               /* copy of n bytes plus a NUL */
void *mem_copy(const void *p, size_t size);
void mem_free(void *p);

#define MEM_NEW(type)      ((type *)mem_zeroed(1, sizeof(type)))
#define MEM_NEW_N(type, n) ((type *)mem_zeroed((n), sizeof(type)))

/* For tests: the call number `countdown` from now (1 = the next) fails once; 0 turns it off. */
void mem_fail_after(unsigned long countdown);

#endif
