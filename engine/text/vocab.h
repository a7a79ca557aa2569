#ifndef SKEIN_ENGINE_TEXT_VOCAB_H
#define SKEIN_ENGINE_TEXT_VOCAB_H

/* Inside the text folder: a vocabulary ready for use. */
#include "engine/engine.h"
#include "engine/text/text.h"

enum text_kind { TEXT_NONE, TEXT_BPE, TEXT_SPM, TEXT_UNIGRAM };

enum token_attr { /* a set */
                  TOKEN_NORMAL = 1,
                  TOKEN_UNKNOWN = 2,
                  TOKEN_CONTROL = 4,
                  TOKEN_USER = 8, /* always found in the text, before anything else */
                  TOKEN_UNUSED = 16,
                  TOKEN_BYTE = 32,
                  TOKEN_RSTRIP = 64, /* takes the white space behind it along */
                  TOKEN_ENDS = 128   /* generation stops */
};

enum { TOKEN_NONE = UINT32_MAX, TEXT_MAX_BYTES = 64 << 20, TEXT_MAX_TOKENS = 4 << 20 };

struct token {
    const char *data; /* as the file has it: byte-level kinds in their own alphabet */
    uint32_t n_bytes;
    uint8_t attr;
    float score;
};

/* From strings to numbers below n: open addressing, the strings stay with their owner. */
struct string_map {
    uint32_t *slots; /* [size] number + 1 */
    size_t size;
};

struct merge {
    uint64_t key; /* left << 32 | right; UINT64_MAX: empty */
    uint32_t rank, symbol;
};

struct pre_tokenizer { /* a row of pre.c's table, or a file's own */
    const char *name;
    const char *const *patterns; /* ended by NULL */
    unsigned flags;
};
struct splitter; /* its compiled patterns */

/* Symbols are the strings that merging can meet: numbers below n_tokens are the tokens, those above
 * are strings that only the merge list names. */
struct text {
    enum text_kind kind;
    struct fault why_not; /* status OK: runnable */
    uint32_t n_tokens, n_symbols;
    struct token *tokens; /* [n_symbols] */
    struct string_map map;
    struct merge *merges; /* [merges_size] hash table */
    size_t merges_size;
    char *joined;              /* the merged strings that are no tokens */
    uint32_t byte_symbol[256]; /* byte-level kinds: its letter; others: its <0xXX>; or TOKEN_NONE */
    uint32_t max_token_bytes;
    const struct pre_tokenizer *pre;
    struct pre_tokenizer own_pre; /* what pre points to where the file has its own patterns */
    struct splitter *splitter;
    uint32_t bos, eos, unknown;
    bool add_bos, add_eos, add_space_prefix;
    bool nfc;          /* texts are composed first */
    uint32_t *special; /* [n_special] longest first */
    size_t n_special;
    struct trie_node *trie; /* over the texts of the special ones: special.c */
    size_t n_trie;
    struct gguf_text chat_template; /* data NULL: none */
    struct unigram *unigram;        /* of its kind, else NULL */
};

enum pre_flags {
    PRE_IGNORE_MERGES = 1, /* a piece that is a token is taken whole */
    PRE_ADD_BOS = 2,       /* unless the file says otherwise */
    PRE_RAW = 4,           /* merges work on UTF-8 with U+2581 for blanks, not on bytes */
    PRE_CLEAN = 8,         /* decoding removes blanks before punctuation where asked */
    PRE_NO_BOS = 16,
    PRE_NEWLINES = 32 /* a piece of newlines that is a token is taken whole */
};
const struct pre_tokenizer *pre_find(struct gguf_text name);

/* ---- pre_file.c: keys of our own, from files whose tokenizer says more than GGUF's keys can */
/* text->pre and the splitter from the file's patterns, where it has some; else nothing happens. */
enum status pre_file_load(struct text *text, const struct gguf *gguf, struct fault *fault) MUST_USE;
/* Which tokens take the white space behind them along. */
void pre_file_rstrip(struct text *text, const struct gguf *gguf);
/* The text in Unicode's composed form, owned by the caller; NULL where it is so already, or is not
 * UTF-8. */
enum status pre_file_nfc(const char *data, size_t n_bytes, char **out, size_t *n_out) MUST_USE;

/* ---- split.c */
struct piece {
    uint32_t start, n_bytes;
};
struct pieces { /* zero-initialise */
    struct piece *items;
    size_t n, capacity;
};
enum status splitter_new(const char *const *patterns, struct splitter **out,
                         struct fault *fault) MUST_USE;
void splitter_free(struct splitter **splitter);
/* Cuts text [n_bytes] into pieces that together are the text. Errors: NO_MEMORY, LIMIT (a pattern
 * that backtracks without end). */
enum status splitter_run(const struct splitter *splitter, const char *text, size_t n_bytes,
                         struct pieces *out) MUST_USE;
void pieces_free(struct pieces *pieces);

/* ---- string_map.c */
enum status string_map_new(struct string_map *map, size_t n) MUST_USE; /* room for n */
void string_map_free(struct string_map *map);
/* The number of the string, or TOKEN_NONE. */
uint32_t string_map_find(const struct string_map *map, const struct token *tokens, const char *data,
                         size_t n_bytes);
/* Adds tokens[number] unless there is an equal one; returns the number that stands there. */
uint32_t string_map_add(struct string_map *map, const struct token *tokens, uint32_t number);

/* ---- bytes_alphabet.c: GPT-2's letters for bytes */
size_t byte_letter(uint8_t byte, char out[static 2]); /* its UTF-8, 1 or 2 bytes */
int letter_byte(uint32_t code);                       /* -1: not in the alphabet */

/* ---- special.c */
enum status special_build(struct text *text) MUST_USE;
struct fragment {
    uint32_t token; /* TOKEN_NONE: text */
    uint32_t start, n_bytes;
};
struct fragments {
    struct fragment *items;
    size_t n, capacity;
};
enum status special_split(const struct text *text, const char *data, size_t n_bytes,
                          bool parse_special, struct fragments *out) MUST_USE;
void fragments_free(struct fragments *fragments);

/* ---- bpe.c, spm.c, unigram.c: one stretch of plain text, appended to out */
enum status bpe_load(struct text *text, const struct gguf *gguf, struct fault *fault) MUST_USE;
enum status bpe_encode(const struct text *text, const char *data, size_t n_bytes,
                       struct token_list *out) MUST_USE;
enum status spm_encode(const struct text *text, const char *data, size_t n_bytes, bool space_before,
                       struct token_list *out) MUST_USE;

/* text->unigram is freed with mem_free. */
enum status unigram_load(struct text *text, const struct gguf *gguf, struct fault *fault) MUST_USE;
enum status unigram_encode(const struct text *text, const char *data, size_t n_bytes,
                           struct token_list *out) MUST_USE;

/* ---- vocab_names.c: what follows from the texts of tokens */
void vocab_names_apply(struct text *text, struct gguf_text model_name);

/* ---- tokenizer.c, detok.c, chat.c over a vocabulary alone */
enum status text_tokenize(const struct text *text, const char *data, size_t n_bytes, unsigned flags,
                          struct token_list *out, struct fault *fault) MUST_USE;
bool text_token_ends(const struct text *text, uint32_t id);
enum status text_detok_new(const struct text *text, unsigned flags, struct detok **out) MUST_USE;
enum status text_chat_render(const struct text *text, const struct chat_request *request,
                             struct buffer *out, struct fault *fault) MUST_USE;

#endif
