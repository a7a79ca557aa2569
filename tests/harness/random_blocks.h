#ifndef SKEIN_TESTS_RANDOM_BLOCKS_H
#define SKEIN_TESTS_RANDOM_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Tensor types by their number in GGUF files. */
struct block_type {
    const char *name;
    uint32_t number;
    uint32_t values; /* per block */
    uint32_t bytes;  /* per block */
};

struct random {
    uint64_t state;
};

uint64_t random_next(struct random *random);
/* NULL for a name that is not known. */
const struct block_type *block_type_find(const char *name);
/* n_values (a multiple of the block) of the given mean (single-value types only; 0 for the others)
 * and standard deviation to the file. False on a write error or without memory. */
bool random_blocks_write(FILE *out, const struct block_type *type, uint64_t n_values, float mean,
                         float deviation, struct random *random);

#endif
