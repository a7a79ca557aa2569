#ifndef SKEIN_TESTS_UNIT_ENGINE_TEXT_LOAD_H
#define SKEIN_TESTS_UNIT_ENGINE_TEXT_LOAD_H

/* Vocabularies for tests: from files, from the built-in model, or made on the spot. */
#include "engine/text/vocab.h"
#include "tests/unit/engine/gguf_make.h"

struct loaded {
    void *bytes; /* owned where it was read from a file */
    struct gguf *gguf;
    struct text *text;
    struct gguf_maker maker;
};

/* Folder of the reference data; NULL where SKEIN_CONFORMANCE is not set: the test is skipped. */
const char *conformance_folder(void);
double processor_seconds(void);                     /* of this thread */
char *file_read(const char *path, size_t *n_bytes); /* NULL where it is missing; mem_free */
void loaded_from_file(struct loaded *l, const char *path);
void loaded_demo(struct loaded *l);
/* From what maker holds. Returns the status of text_new. */
enum status loaded_from_maker(struct loaded *l, struct fault *fault);
void loaded_free(struct loaded *l);

/* The same ids; the same bytes. flags: enum token_flags, enum detok_flags. */
bool encodes_to(const struct text *text, const char *data, size_t n, unsigned flags,
                const struct token_list *wanted);
bool decodes_to(const struct text *text, const struct token_list *ids, unsigned flags,
                const char *data, size_t n);
/* Random texts through the vocabulary and back, specials parsed and not; what has come out after
 * each token is the text up to the end of a character. */
void identity_check(const struct text *text, int rounds);
/* Random token ids: whatever they are, only whole characters come out. */
void stream_check(const struct text *text, int rounds);
/* Well-formed UTF-8 of all lengths, at most room - 16 bytes. */
size_t random_text(uint64_t *state, char *out, size_t room);
uint32_t random_below(uint64_t *state, uint32_t n);
/* Another pre-tokenizer for a vocabulary that is not PRE_RAW. */
void pre_replace(struct text *text, const char *name);

void make_bool(struct gguf_maker *m, const char *key, bool v);
void make_texts(struct gguf_maker *m, const char *key, const char *const *texts, size_t n);
void make_i32s(struct gguf_maker *m, const char *key, const int32_t *values, size_t n);
void make_f32s(struct gguf_maker *m, const char *key, const float *values, size_t n);
/* A SentencePiece vocabulary: <unk> <s> </s>, 256 byte tokens, then those given with their scores.
 */
void make_spm(struct gguf_maker *m, const char *const *words, const float *scores, size_t n);

#endif
