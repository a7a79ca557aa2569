/* tokenizer.json as GGUF's tokenizer keys.
 *
 * Byte-level BPE stays what it is (GGUF "gpt2"), with its patterns from the file (patterns.c). BPE
 * with byte fallback is SentencePiece's kind (GGUF "llama"): there the order of the merges becomes
 * the tokens' scores, which is where that order came from. Unigram is GGUF's "t5". Added tokens
 * come last and win: those that are special become control tokens, the others are found in any
 * text. Rows of the embedding without a token are filled up with unused ones.
 *
 * Without tokenizer.json there may be a tokenizer.model (sentencepiece.c); a folder with neither
 * has no vocabulary, which is no error here: token ids can be run. A model kind that is not known
 * is handed on by its name, and the engine says so when text is asked for. Ids come from the file:
 * they are bounded before anything is sized by them. */
#include "engine/hf/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 4 << 20, MAX_MERGES = 4 << 20 };

enum token_type {
    TYPE_NORMAL = 1,
    TYPE_UNKNOWN = 2,
    TYPE_CONTROL = 3,
    TYPE_USER = 4,
    TYPE_UNUSED = 5,
    TYPE_BYTE = 6
};

/* ---------------------------------------------------------------- the tokens */

static bool token_set(struct hf_build *build, struct hf_tokens *t, const char *text, size_t n_bytes,
                      json_int_t id, uint32_t type)
{
    if (!text || id < 0 || id >= MAX_TOKENS) {
        hf_fail(build, STATUS_FORMAT, "tokenizer.json: a token without a text or a usable id");
        return false;
    }
    if ((size_t)id < t->n) /* others lie past the embedding: they cannot be computed with */
        t->tokens[id] = (struct hf_token){.text = text, .n_bytes = n_bytes, .type = type};
    return true;
}

/* Rows of the embedding, or ids as far as they go. */
static size_t count_tokens(struct hf_build *build, const json_t *vocab, const json_t *added)
{
    json_int_t most = -1;
    const char *text;
    json_t *value;
    size_t i;

    if (build->n_vocab)
        return build->n_vocab;
    if (json_is_array(vocab))
        most = (json_int_t)json_array_size(vocab) - 1;
    json_object_foreach((json_t *)(uintptr_t)vocab, text, value)
    {
        most = json_integer_value(value) > most ? json_integer_value(value) : most;
    }
    json_array_foreach(added, i, value)
    {
        json_int_t id = json_integer_value(json_object_get(value, "id"));

        most = id > most ? id : most;
    }
    return most < 0 ? 0 : (size_t)most + 1;
}

static bool is_byte_name(const char *text)
{
    unsigned byte;
    char end;

    return strlen(text) == 6 && sscanf(text, "<0x%2X%c", &byte, &end) == 2 && end == '>';
}

static void read_vocab(struct hf_build *build, struct hf_tokens *t, json_t *model)
{
    json_t *vocab = json_object_get(model, "vocab"), *value;
    bool fallback = hf_bool(model, "byte_fallback", false);
    const char *text;
    double score;
    size_t i;

    json_object_foreach(vocab, text, value)
    {
        if (!token_set(build, t, text, strlen(text),
                       json_is_integer(value) ? json_integer_value(value) : -1,
                       fallback && is_byte_name(text) ? TYPE_BYTE : TYPE_NORMAL))
            return;
    }
    json_array_foreach(vocab, i, value)
    {
        const json_t *word = json_array_get(value, 0);
        const char *piece = json_string_value(word);

        if (!token_set(build, t, piece, json_string_length(word), (json_int_t)i,
                       piece && is_byte_name(piece) ? TYPE_BYTE : TYPE_NORMAL))
            return;
        score = json_number_value(json_array_get(value, 1));
        if (i < t->n)
            t->tokens[i].score = (float)(score > -1e30 && score < 1e30 ? score : -1e30);
    }
}

void hf_tokens_add(struct hf_build *build, struct hf_tokens *t, const json_t *added)
{
    json_t *value;
    size_t i;

    json_array_foreach(added, i, value)
    {
        const json_t *text = json_object_get(value, "content");
        json_int_t id = json_integer_value(json_object_get(value, "id"));
        bool special = hf_bool(value, "special", false);

        if (!json_is_integer(json_object_get(value, "id")) ||
            !token_set(build, t, json_string_value(text), json_string_length(text), id,
                       special ? TYPE_CONTROL : TYPE_USER)) {
            hf_fail(build, STATUS_FORMAT, "tokenizer.json: an added token is not usable");
            return;
        }
        if ((size_t)id < t->n)
            t->tokens[id].rstrip = hf_bool(value, "rstrip", false);
    }
}

static void mark_unknown(struct hf_tokens *t, const json_t *model)
{
    const char *text = json_string_value(json_object_get(model, "unk_token"));
    const json_t *id = json_object_get(model, "unk_id");
    uint32_t found = text ? hf_token_find(t, text) : UINT32_MAX;

    if (json_is_integer(id) && json_integer_value(id) >= 0 && (size_t)json_integer_value(id) < t->n)
        found = (uint32_t)json_integer_value(id);
    t->unknown = found;
    if (found != UINT32_MAX)
        t->tokens[found].type = TYPE_UNKNOWN;
}

static int by_text(const void *a, const void *b, void *tokens)
{
    const struct hf_token *list = tokens;
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    int order = strcmp(list[x].text, list[y].text);

    return order ? order : x < y ? -1 : x > y;
}

void hf_tokens_sort(struct hf_build *build, struct hf_tokens *t)
{
    t->sorted = MEM_NEW_N(uint32_t, t->n);
    if (!t->sorted) {
        hf_fail(build, STATUS_NO_MEMORY, "out of memory");
        return;
    }
    for (uint32_t i = 0; i < t->n; i++) {
        if (t->tokens[i].text)
            t->sorted[t->n_sorted++] = i;
    }
    if (t->n_sorted)
        qsort_r(t->sorted, t->n_sorted, sizeof *t->sorted, by_text, t->tokens);
}

uint32_t hf_token_find(const struct hf_tokens *t, const char *text)
{
    size_t low = 0, high = t->n_sorted;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (strcmp(t->tokens[t->sorted[middle]].text, text) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < t->n_sorted && strcmp(t->tokens[t->sorted[low]].text, text) == 0)
        return t->sorted[low];
    return UINT32_MAX;
}

/* ---------------------------------------------------------------- merges */

/* "a b", or ["a", "b"]. */
static bool merge_text(const json_t *merge, struct buffer *out)
{
    const char *left = json_string_value(json_array_get(merge, 0));
    const char *right = json_string_value(json_array_get(merge, 1));

    out->len = 0;
    if (json_is_string(merge))
        return !buffer_put(out, json_string_value(merge), json_string_length(merge));
    return left && right && !buffer_printf(out, "%s %s", left, right);
}

static void write_merges(struct hf_build *build, const json_t *merges)
{
    struct buffer text = {0};
    json_t *merge;
    size_t i;

    gguf_write_array(&build->writer, "tokenizer.ggml.merges", GGUF_STRING, json_array_size(merges));
    json_array_foreach(merges, i, merge)
    {
        if (!merge_text(merge, &text))
            hf_fail(build, STATUS_FORMAT, "tokenizer.json: merge %zu is not a pair", i);
        gguf_write_item_text(&build->writer, (const char *)text.data, text.len);
    }
    buffer_free(&text);
}

/* A token's score is minus the number of the first merge that makes it. */
static void score_by_merges(struct hf_build *build, struct hf_tokens *t, const json_t *merges)
{
    struct buffer text = {0};
    json_t *merge;
    size_t i;

    json_array_foreach(merges, i, merge)
    {
        char *blank;
        uint32_t id;

        if (!merge_text(merge, &text) || !text.data ||
            (blank = strchr((char *)text.data, ' ')) == NULL) {
            hf_fail(build, STATUS_FORMAT, "tokenizer.json: merge %zu is not a pair", i);
            break;
        }
        memmove(blank, blank + 1, strlen(blank + 1) + 1);
        id = hf_token_find(t, (const char *)text.data);
        if (id != UINT32_MAX && t->tokens[id].score == 0)
            t->tokens[id].score = -(float)(i + 1);
    }
    buffer_free(&text);
}

/* ---------------------------------------------------------------- the keys */

static void write_tokens(struct hf_build *build, const struct hf_tokens *t, bool scores)
{
    struct gguf_writer *w = &build->writer;
    char name[32];

    gguf_write_array(w, "tokenizer.ggml.tokens", GGUF_STRING, t->n);
    for (size_t i = 0; i < t->n; i++) {
        (void)snprintf(name, sizeof name, "[PAD%zu]", i);
        if (t->tokens[i].text)
            gguf_write_item_text(w, t->tokens[i].text, t->tokens[i].n_bytes);
        else
            gguf_write_item_text(w, name, strlen(name));
    }
    gguf_write_array(w, "tokenizer.ggml.token_type", GGUF_I32, t->n);
    for (size_t i = 0; i < t->n; i++)
        gguf_write_item_u32(w, t->tokens[i].text ? t->tokens[i].type : TYPE_UNUSED);
    if (!scores)
        return;
    gguf_write_array(w, "tokenizer.ggml.scores", GGUF_F32, t->n);
    for (size_t i = 0; i < t->n; i++)
        gguf_write_item_f32(w, t->tokens[i].score);
}

/* Tokens that take the white space behind them along: GGUF has no key for it. */
static void write_rstrip(struct hf_build *build, const struct hf_tokens *t)
{
    uint32_t n = 0;

    for (size_t i = 0; i < t->n; i++)
        n += t->tokens[i].rstrip;
    gguf_write_array(&build->writer, "tokenizer.skein.rstrip", GGUF_U32, n);
    for (uint32_t i = 0; i < t->n; i++) {
        if (t->tokens[i].rstrip)
            gguf_write_item_u32(&build->writer, i);
    }
}

void hf_tokens_write(struct hf_build *build, const struct hf_tokens *t, bool scores)
{
    write_tokens(build, t, scores);
    write_rstrip(build, t);
}

static void write_model(struct hf_build *build, struct hf_tokens *t, const json_t *root,
                        const json_t *model)
{
    const char *kind = json_string_value(json_object_get(model, "type"));
    const json_t *merges = json_object_get(model, "merges");
    bool bpe = kind ? strcmp(kind, "BPE") == 0 : json_is_array(merges);
    bool unigram = kind && strcmp(kind, "Unigram") == 0;
    bool bytes = hf_is_byte_level(root);
    const char *name = bpe ? bytes ? "gpt2" : "llama" : unigram ? "t5" : kind ? kind : "unknown";

    if (json_array_size(merges) > MAX_MERGES)
        hf_fail(build, STATUS_LIMIT, "tokenizer.json: more than %d merges", MAX_MERGES);
    if (build->status)
        return;
    gguf_write_text(&build->writer, "tokenizer.ggml.model", name, strlen(name));
    if (bpe && !bytes)
        score_by_merges(build, t, merges);
    hf_tokens_write(build, t, !bytes);
    if (bpe && bytes) {
        write_merges(build, merges);
        hf_write_patterns(build, root);
    } else {
        hf_write_blanks(build, root);
    }
}

static void write_all(struct hf_build *build, struct hf_tokens *t, json_t *root)
{
    json_t *model = json_object_get(root, "model");
    const json_t *added = json_object_get(root, "added_tokens");

    t->n = count_tokens(build, json_object_get(model, "vocab"), added);
    if (t->n == 0 || t->n > MAX_TOKENS) {
        hf_fail(build, STATUS_FORMAT, "tokenizer.json: a vocabulary of %zu tokens", t->n);
        return;
    }
    t->tokens = MEM_NEW_N(struct hf_token, t->n);
    if (!t->tokens) {
        hf_fail(build, STATUS_NO_MEMORY, "out of memory");
        return;
    }
    read_vocab(build, t, model);
    if (!build->status)
        hf_tokens_add(build, t, added);
    if (!build->status)
        hf_tokens_sort(build, t);
    if (build->status)
        return;
    mark_unknown(t, model);
    write_model(build, t, root, model);
    if (!build->status)
        hf_write_settings(build, t, root);
}

void hf_write_tokenizer(struct hf_build *build)
{
    struct hf_tokens tokens = {0};
    json_t *root = NULL;
    enum status status = hf_read_json(build->folder, "tokenizer.json", HF_MAX_TOKENIZER_BYTES, true,
                                      &root, build->fault);

    if (status)
        build->status = status;
    else if (root)
        write_all(build, &tokens, root);
    else
        hf_write_sentencepiece(build);
    mem_free(tokens.tokens);
    mem_free(tokens.sorted);
    json_decref(root);
}
