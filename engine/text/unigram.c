/* Unigram vocabularies (GGUF "t5"): of all ways to write the text as tokens, the one with the
 * largest sum of scores (log probabilities), found by Viterbi's algorithm over the bytes. Kudo,
 * "Subword regularization", 2018.
 *
 * Before that the text is normalised as SentencePiece does: the longest match in the vocabulary's
 * own table of replacements (an XOR-compressed double array, "precompiled_charsmap"), blanks as
 * U+2581, one in front and runs of them as one where the vocabulary asks for it. A character that
 * no token covers is unknown, at a price of ten below the least score; neighbouring unknown ones
 * are one token.
 *
 * The table comes from the file: every index into it is checked. */
#include "engine/text/utf8.h"
#include "engine/text/vocab.h"

#include <float.h>
#include <string.h>

enum { LONGEST_MATCH = 512 };

struct unigram {
    const uint8_t *nodes; /* [n_nodes] little-endian 32-bit words */
    size_t n_nodes;
    const char *replacements; /* NUL-terminated strings, one after the other */
    size_t n_replacements;
    bool merge_spaces;
    double unknown_score;
    bool length_used[LONGEST_MATCH + 1]; /* of tokens, in bytes */
};

static enum status charsmap_load(struct unigram *u, const struct gguf *gguf, struct fault *fault)
{
    const struct gguf_value *map = gguf_find(gguf, "tokenizer.ggml.precompiled_charsmap");
    if (map == NULL || map->n == 0) {
        return STATUS_OK;
    }
    if (!map->is_array || (map->kind != GGUF_I8 && map->kind != GGUF_U8) || map->data_bytes < 4) {
        return fault_set(fault, STATUS_FORMAT, "the tokenizer's precompiled_charsmap is malformed");
    }
    size_t n = bytes_get_u32(map->data);
    if (n % 4 != 0 || n > map->data_bytes - 4) {
        return fault_set(fault, STATUS_FORMAT, "the tokenizer's precompiled_charsmap is truncated");
    }
    u->nodes = map->data + 4;
    u->n_nodes = n / 4;
    u->replacements = (const char *)map->data + 4 + n;
    u->n_replacements = map->data_bytes - 4 - n;
    return STATUS_OK;
}

enum status unigram_load(struct text *text, const struct gguf *gguf, struct fault *fault)
{
    struct unigram *u = MEM_NEW(struct unigram);
    if (u == NULL) {
        return STATUS_NO_MEMORY;
    }
    text->unigram = u;
    double least = 0.0;
    for (uint32_t id = 0; id < text->n_tokens; id++) {
        const struct token *token = &text->tokens[id];
        if (token->n_bytes <= LONGEST_MATCH) {
            u->length_used[token->n_bytes] = true;
        }
        if ((token->attr & TOKEN_NORMAL) != 0 && (double)token->score < least) {
            least = (double)token->score;
        }
    }
    u->unknown_score = least - 10.0;
    (void)gguf_get_bool(gguf, "tokenizer.ggml.remove_extra_whitespaces", &u->merge_spaces);
    return charsmap_load(u, gguf, fault);
}

static bool node_get(const struct unigram *u, size_t index, uint32_t *out)
{
    if (index >= u->n_nodes) {
        return false;
    }
    *out = bytes_get_u32(u->nodes + 4 * index);
    return true;
}

static size_t node_base(uint32_t node)
{
    return (size_t)(node >> 10) << ((node & 0x200u) >> 6);
}

/* The longest replacement that the table has for the beginning of the text. Returns how many bytes
 * of the text it stands for; 0: none. */
static size_t replacement_find(const struct unigram *u, const char *text, size_t n,
                               struct gguf_text *out)
{
    size_t longest = 0;
    uint32_t node;
    if (!node_get(u, 0, &node)) {
        return 0;
    }
    size_t index = node_base(node);
    for (size_t i = 0; i < n && text[i] != '\0'; i++) {
        uint8_t c = (uint8_t)text[i];
        index ^= c;
        if (!node_get(u, index, &node) || (node & 0x800000ffu) != c) {
            break;
        }
        index ^= node_base(node);
        uint32_t value;
        if ((node & 0x100u) == 0 || !node_get(u, index, &value)) {
            continue;
        }
        value &= 0x7fffffffu;
        if (value < u->n_replacements) {
            const char *start = u->replacements + value;
            const char *end = memchr(start, '\0', u->n_replacements - value);
            if (end != NULL) {
                *out = (struct gguf_text){start, (size_t)(end - start)};
                longest = i + 1;
            }
        }
    }
    return longest;
}

struct spaces {
    bool prefix, merge; /* what the vocabulary asks for */
    bool begun, in_word;
};

static enum status byte_put(struct spaces *s, char c, struct buffer *out)
{
    static const char blank[] = "\xe2\x96\x81";
    enum status status = STATUS_OK;
    if (c == ' ') {
        s->in_word = false;
        return s->merge ? STATUS_OK : buffer_put(out, blank, 3);
    }
    if (!s->in_word && ((s->prefix && !s->begun) || s->merge)) {
        status = buffer_put(out, blank, 3);
        s->begun = true;
    }
    s->in_word = true;
    return status == STATUS_OK ? buffer_put_u8(out, (uint8_t)c) : status;
}

static enum status normalise(const struct text *text, const char *data, size_t n_bytes,
                             struct buffer *out)
{
    struct spaces spaces = {.prefix = text->add_space_prefix, .merge = text->unigram->merge_spaces};
    enum status status = buffer_reserve(out, n_bytes + 4);
    for (size_t at = 0; at < n_bytes && status == STATUS_OK;) {
        uint32_t code;
        struct gguf_text part = {data + at, 0};
        size_t taken = replacement_find(text->unigram, data + at, n_bytes - at, &part);
        if (taken == 0) {
            taken = utf8_decode(data + at, n_bytes - at, &code);
            bool stray = taken == 1 && (uint8_t)data[at] >= 0x80;
            part = stray ? (struct gguf_text){"\xef\xbf\xbd", 3}
                         : (struct gguf_text){data + at, taken};
        }
        for (size_t i = 0; i < part.n_bytes && status == STATUS_OK; i++) {
            status = byte_put(&spaces, part.data[i], out);
        }
        at += taken;
    }
    return status;
}

struct best { /* way to write the text up to here */
    double score;
    uint32_t id, from;
};

static void best_offer(struct best *best, double score, uint32_t id, size_t from)
{
    if (score > best->score) {
        *best = (struct best){.score = score, .id = id, .from = (uint32_t)from};
    }
}

/* All tokens that begin at `at`. */
static void matches_offer(const struct text *text, const char *data, size_t n, size_t at,
                          struct best *best)
{
    const struct unigram *u = text->unigram;
    uint32_t code;
    size_t character = utf8_decode(data + at, n - at, &code);
    bool covered = false;
    size_t most = n - at < LONGEST_MATCH ? n - at : LONGEST_MATCH;
    for (size_t length = 1; length <= most; length++) {
        if (!u->length_used[length]) {
            continue;
        }
        uint32_t id = string_map_find(&text->map, text->tokens, data + at, length);
        if (id == TOKEN_NONE) {
            continue;
        }
        const struct token *token = &text->tokens[id];
        bool user = (token->attr & TOKEN_USER) != 0;
        if (user || (token->attr & (TOKEN_NORMAL | TOKEN_UNUSED)) != 0) {
            covered = covered || length == character;
            best_offer(&best[at + length], best[at].score + (user ? 0.0 : (double)token->score), id,
                       at);
        }
    }
    if (!covered) {
        best_offer(&best[at + character], best[at].score + u->unknown_score, text->unknown, at);
    }
}

static enum status way_emit(const struct text *text, const struct best *best, size_t n,
                            struct token_list *out)
{
    enum status status = STATUS_OK;
    size_t begin = out->n;
    bool unknown_behind = false;
    for (size_t at = n; at > 0 && status == STATUS_OK; at = best[at].from) {
        bool unknown = best[at].id == text->unknown;
        if (best[at].id != TOKEN_NONE && !(unknown && unknown_behind)) {
            status = token_list_add(out, best[at].id);
        }
        unknown_behind = unknown;
    }
    for (size_t i = begin, k = out->n; i + 1 < k; i++) {
        uint32_t swap = out->ids[i];
        out->ids[i] = out->ids[--k];
        out->ids[k] = swap;
    }
    return status;
}

enum status unigram_encode(const struct text *text, const char *data, size_t n_bytes,
                           struct token_list *out)
{
    struct buffer normal = {0};
    struct best *best = NULL;
    enum status status = normalise(text, data, n_bytes, &normal);
    if (status == STATUS_OK && normal.len > 0) {
        best = MEM_NEW_N(struct best, normal.len + 1);
        status = best == NULL ? STATUS_NO_MEMORY : STATUS_OK;
    }
    if (status == STATUS_OK && normal.len > 0) {
        const char *bytes = (const char *)normal.data;
        for (size_t i = 1; i <= normal.len; i++) {
            best[i].score = -DBL_MAX;
        }
        for (size_t at = 0; at < normal.len;) {
            uint32_t code;
            matches_offer(text, bytes, normal.len, at, best);
            at += utf8_decode(bytes + at, normal.len - at, &code);
        }
        status = way_emit(text, best, normal.len, out);
    }
    mem_free(best);
    buffer_free(&normal);
    return status;
}
