#ifndef SKEIN_ENGINE_FILE_EXPERTS_H
#define SKEIN_ENGINE_FILE_EXPERTS_H

/* GGUF files of the time when every expert was a tensor of its own. */
#include "engine/file/source.h"

struct experts; /* what a table with gathered experts is made of */

/* Where *gguf has tensors blk.N.ffn_gate.E.weight (up, down), replaces it by one whose tensors
 * blk.N.ffn_gate_exps.weight have the experts as matrices, over the same bytes; *out must outlive
 * it. Else *out is NULL and nothing changes, as on failure. Errors: FORMAT (an expert is missing,
 * or differs from the others), NO_MEMORY, LIMIT. */
enum status experts_gather(struct gguf **gguf, struct experts **out, struct fault *fault) MUST_USE;
void experts_free(struct experts **experts);

#endif
