/* Holds a test to its word that it has one thread (ONE_THREAD in its CMakeLists.txt), on which it
 * is left out under ThreadSanitizer: a thread started after main() began ends the program.
 *
 * The program's own pthread_create stands before the library's for everything that is linked to it.
 * Threads that libraries start as they are loaded, as OpenBLAS does, are not the test's. Not linked
 * under sanitizers, which have a pthread_create of their own. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool begun;

__attribute__((constructor)) static void begin(void)
{
    begun = true;
}

__attribute__((visibility("default"))) int pthread_create(pthread_t *thread,
                                                          const pthread_attr_t *attributes,
                                                          void *(*run)(void *), void *arg)
{
    int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    void *symbol = dlsym(RTLD_NEXT, "pthread_create");

    if (begun || symbol == NULL) {
        (void)fputs("a test that is said to have one thread starts another\n", stderr);
        abort();
    }
    memcpy(&next, &symbol, sizeof next);
    return next(thread, attributes, run, arg);
}
