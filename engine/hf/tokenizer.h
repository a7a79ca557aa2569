#ifndef SKEIN_ENGINE_HF_TOKENIZER_H
#define SKEIN_ENGINE_HF_TOKENIZER_H

/* Inside the hf folder: tokenizer.json and what belongs to it. */
#include "engine/hf/inner.h"

struct hf_token {
    const char *text; /* of the JSON; NULL: no token has this id */
    size_t n_bytes;
    float score;
    uint32_t type; /* GGUF's token types */
    bool rstrip;
};

struct hf_tokens {
    struct hf_token *tokens; /* [n] */
    size_t n;
    uint32_t *sorted; /* [n_sorted] ids by text */
    size_t n_sorted;
    uint32_t unknown; /* UINT32_MAX: none */
};

/* The id of a token's text, or UINT32_MAX. */
uint32_t hf_token_find(const struct hf_tokens *tokens, const char *text);

/* Added tokens, a list of {id, content, special, rstrip}, over what is there. */
void hf_tokens_add(struct hf_build *build, struct hf_tokens *tokens, const json_t *added);
void hf_tokens_sort(struct hf_build *build, struct hf_tokens *tokens); /* for hf_token_find */
void hf_tokens_write(struct hf_build *build, const struct hf_tokens *tokens, bool scores);

/* ---- sentencepiece.c */
/* tokenizer.model, where there is no tokenizer.json; nothing where that is missing too. */
void hf_write_sentencepiece(struct hf_build *build);

/* ---- patterns.c */
bool hf_is_byte_level(const json_t *tokenizer);
/* How text is cut before merging: the patterns, and the name that other programs know them by. What
 * cannot be expressed is named as a pre-tokenizer that nobody knows. */
void hf_write_patterns(struct hf_build *build, const json_t *tokenizer);
/* Of the other kinds: whether a blank goes before the text. */
void hf_write_blanks(struct hf_build *build, const json_t *tokenizer);

/* ---- settings.c */
/* Beginning and end tokens, the chat template, usual sampling. */
void hf_write_settings(struct hf_build *build, const struct hf_tokens *tokens,
                       const json_t *tokenizer);
void hf_write_template(struct hf_build *build);

#endif
