#ifndef SKEIN_ENGINE_TEXT_TEXT_H
#define SKEIN_ENGINE_TEXT_TEXT_H

/* Inside the engine: what a model file holds for text, built once when it is opened. The public
 * functions model_tokenize, detok_*, chat_render and their like are implemented in this folder over
 * model_text(). */
#include "engine/file/gguf.h"

struct text; /* vocabulary, merges, special tokens, pre-tokenizer, chat template */

/* Views into the gguf's bytes are kept: the gguf must outlive it. A tokenizer kind or pre-tokenizer
 * that is not known is not an error here: text_runnable says it. Errors: FORMAT, LIMIT, NO_MEMORY.
 */
enum status text_new(const struct gguf *gguf, struct text **out, struct fault *fault) MUST_USE;
void text_free(struct text **text);
/* UNSUPPORTED naming the tokenizer kind or pre-tokenizer; OK otherwise. */
enum status text_runnable(const struct text *text, struct fault *fault) MUST_USE;
uint32_t text_token_count(const struct text *text);
/* Tokens with a newline, colon, quotation mark or asterisk in them, ascending; the caller's. */
enum status text_breakers(const struct text *text, uint32_t **out, size_t *n) MUST_USE;

struct model;
const struct text *model_text(const struct model *model); /* in engine/model */

#endif
