/* What one input may cost a fuzzed program: one second of processor time, and as much memory as its
 * fuzzer's first lines say ("Memory: at most N MiB").
 *
 * The linker puts itself between: every call of mem_* and of the fuzz target goes through the
 * functions below (--wrap), so the program's own sources are as they ship. Counted is what is held
 * at once through mem_*, which is also where PCRE2 and jansson get theirs. A target that goes past
 * its memory ends at that allocation, one that does not come back ends by a signal, and either way
 * the input is kept as for any crash. Time is the processor's, so a busy machine changes nothing;
 * sanitizers, which make the same work several times as long, have more of it. The largest figures
 * seen are printed at the end. */
#include <malloc.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/mem.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

enum { MOST_SECONDS = SANITIZED ? 4 : 1 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __real_LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __wrap_LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void *__real_mem_zeroed(size_t n, size_t size);
void *__wrap_mem_zeroed(size_t n, size_t size);
void *__real_mem_resize(void *p, size_t n, size_t size);
void *__wrap_mem_resize(void *p, size_t n, size_t size);
void *__real_mem_aligned(size_t alignment, size_t n, size_t size);
void *__wrap_mem_aligned(size_t alignment, size_t n, size_t size);
char *__real_mem_text(const char *text);
char *__wrap_mem_text(const char *text);
char *__real_mem_text_n(const char *text, size_t n);
char *__wrap_mem_text_n(const char *text, size_t n);
void *__real_mem_copy(const void *p, size_t size);
void *__wrap_mem_copy(const void *p, size_t size);
void __real_mem_free(void *p);
void __wrap_mem_free(void *p);
/* jansson, in the programs that have it. */
void json_set_alloc_funcs(void *(*take)(size_t), void (*give)(void *)) __attribute__((weak));

static size_t held, most_held;
static double most_seconds;

static void *counted(void *p)
{
    static const char words[] = "fuzz: more memory at once than this fuzzer's first lines allow\n";

    held += p ? malloc_usable_size(p) : 0;
    most_held = held > most_held ? held : most_held;
    if (held > (size_t)FUZZ_MEMORY_MIB << 20) {
        (void)!write(STDERR_FILENO, words, sizeof words - 1);
        abort();
    }
    return p;
}

void *__wrap_mem_zeroed(size_t n, size_t size)
{
    return counted(__real_mem_zeroed(n, size));
}

void *__wrap_mem_resize(void *p, size_t n, size_t size)
{
    size_t before = p ? malloc_usable_size(p) : 0;
    void *moved = __real_mem_resize(p, n, size);

    held -= moved ? before : 0;
    return counted(moved);
}

void *__wrap_mem_aligned(size_t alignment, size_t n, size_t size)
{
    return counted(__real_mem_aligned(alignment, n, size));
}

char *__wrap_mem_text(const char *text)
{
    return counted(__real_mem_text(text));
}

char *__wrap_mem_text_n(const char *text, size_t n)
{
    return counted(__real_mem_text_n(text, n));
}

void *__wrap_mem_copy(const void *p, size_t size)
{
    return counted(__real_mem_copy(p, size));
}

void __wrap_mem_free(void *p)
{
    held -= p ? malloc_usable_size(p) : 0;
    __real_mem_free(p);
}

static void *json_take(size_t size)
{
    return __wrap_mem_zeroed(1, size);
}

static void too_long(int signal)
{
    static const char words[] = "fuzz: this input takes longer than a second\n";

    (void)signal;
    (void)!write(STDERR_FILENO, words, sizeof words - 1);
    abort();
}

static void tell(void)
{
    (void)fprintf(stderr, "fuzz: at most %.0f ms and %zu KiB for one input; allowed are %d MiB\n",
                  most_seconds * 1e3, most_held >> 10, FUZZ_MEMORY_MIB);
}

static double processor_seconds(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void begin(void)
{
    static int begun;

    if (begun++)
        return;
    (void)signal(SIGPROF, too_long);
    (void)atexit(tell);
    if (json_set_alloc_funcs)
        json_set_alloc_funcs(json_take, __wrap_mem_free);
}

int __wrap_LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct itimerval limit = {.it_value.tv_sec = MOST_SECONDS}, off = {0};

    begin();
    double start = processor_seconds();
    (void)setitimer(ITIMER_PROF, &limit, NULL);
    int result = __real_LLVMFuzzerTestOneInput(data, size);
    (void)setitimer(ITIMER_PROF, &off, NULL);
    double took = processor_seconds() - start;
    most_seconds = took > most_seconds ? took : most_seconds;
    return result;
}
