#ifndef SKEIN_ENGINE_KERNELS_PACK_H
#define SKEIN_ENGINE_KERNELS_PACK_H

/* Rows of a file's matrix into interleaved groups (table.h) and back. */
#include "engine/kernels/table.h"

/* Every type that is run has an interleaved form (or keeps its blocks whole, side by side).
 * Writes group `group` of the matrix, GROUP_ROWS · row_bytes bytes; rows past the end become zeros.
 */
void pack_group(const struct matrix *matrix, uint32_t group, uint8_t *out);
/* Block `block` of row `row` as it was in the file. */
void unpack_block(const struct matrix *matrix, const uint8_t *packed, uint32_t row, size_t block,
                  uint8_t *out);

/* Drops the whole pages within the rows [first, first + count) of a matrix in a file mapping: they
 * come back from the file when they are touched. */
void forget_rows(const struct matrix *matrix, size_t first, size_t count);

/* Anonymous memory in huge pages where the system gives them; bytes is what to pass to pages_free.
 */
void *pages_new(size_t bytes);
void pages_free(void *pages, size_t bytes);
/* Makes memory that holds nothing yet resident, so that nobody waits for it later. */
void pages_touch(void *pages, size_t bytes);

#endif
