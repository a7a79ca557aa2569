/* From a GGUF file's metadata to a vocabulary ready for use.
 *
 * Tokens stay views into the file; what is built is the map from strings to ids, the merge table of
 * byte-level kinds, the compiled patterns and the trie of special tokens, once per opened
 * model, about a tenth of a second for the largest. A tokenizer that is not supported leaves a
 * vocabulary that can name its tokens and says why it cannot do more. */
#include "engine/text/vocab.h"

#include <stdio.h>
#include <string.h>

static bool text_is(struct gguf_text text, const char *word)
{
    return strlen(word) == text.n_bytes && memcmp(text.data, word, text.n_bytes) == 0;
}

static const char *clip(struct gguf_text text, char out[static 64])
{
    (void)snprintf(out, 64, "%.*s", (int)(text.n_bytes < 60 ? text.n_bytes : 60), text.data);
    return out;
}

static uint8_t attr_of_type(uint32_t type)
{
    static const uint8_t attrs[] = {0,          TOKEN_NORMAL, TOKEN_UNKNOWN, TOKEN_CONTROL,
                                    TOKEN_USER, TOKEN_UNUSED, TOKEN_BYTE};
    return type < COUNT_OF(attrs) ? attrs[type] : 0;
}

/* Of tokens with the same text the first counts. */
static enum status tokens_load(struct text *text, const struct gguf *gguf, struct fault *fault)
{
    const struct gguf_value *list = gguf_find(gguf, "tokenizer.ggml.tokens");
    const struct gguf_value *types = gguf_find(gguf, "tokenizer.ggml.token_type");
    const struct gguf_value *scores = gguf_find(gguf, "tokenizer.ggml.scores");
    const struct gguf_value *merges = gguf_find(gguf, "tokenizer.ggml.merges");
    if (list == NULL) {
        return STATUS_OK;
    }
    if (!list->is_array || list->kind != GGUF_STRING || list->n > TEXT_MAX_TOKENS) {
        return fault_set(fault, STATUS_FORMAT, "tokenizer.ggml.tokens is not a list of tokens");
    }
    if ((types != NULL && types->n < list->n) || (scores != NULL && scores->n < list->n)) {
        return fault_set(fault, STATUS_FORMAT,
                         "the tokenizer's types or scores are fewer than its tokens");
    }
    size_t n_merges = merges != NULL && merges->n <= TEXT_MAX_TOKENS ? (size_t)merges->n : 0;
    size_t room = (size_t)list->n + 3 * n_merges;
    text->tokens = MEM_NEW_N(struct token, room + 1);
    if (text->tokens == NULL || string_map_new(&text->map, room) != STATUS_OK) {
        return STATUS_NO_MEMORY;
    }
    text->n_tokens = (uint32_t)list->n;
    text->n_symbols = text->n_tokens;
    for (uint32_t i = 0; i < text->n_tokens; i++) {
        struct gguf_text word = {"", 0};
        uint32_t type = 1;
        struct token *token = &text->tokens[i];
        if (!gguf_value_text(list, i, &word) || word.n_bytes > UINT32_MAX / 2) {
            return fault_set(fault, STATUS_FORMAT, "token %u is unreadable", i);
        }
        token->data = word.data;
        token->n_bytes = (uint32_t)word.n_bytes;
        if (types != NULL && !gguf_value_u32(types, i, &type)) {
            type = 0;
        }
        token->attr = attr_of_type(type);
        if (scores != NULL && !gguf_value_f32(scores, i, &token->score)) {
            token->score = 0.0f;
        }
        if (token->n_bytes > text->max_token_bytes) {
            text->max_token_bytes = token->n_bytes;
        }
        if (token->n_bytes > 0) {
            (void)string_map_add(&text->map, text->tokens, i);
        }
    }
    return STATUS_OK;
}

static uint32_t id_read(const struct text *text, const struct gguf *gguf, const char *key,
                        uint32_t usual)
{
    uint32_t id;
    if (gguf_get_u32(gguf, key, &id) && id < text->n_tokens) {
        return id;
    }
    return usual < text->n_tokens ? usual : TOKEN_NONE;
}

static void ends_read(struct text *text, const struct gguf *gguf)
{
    static const char *const keys[] = {"tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        uint32_t id = id_read(text, gguf, keys[i], TOKEN_NONE);
        if (id != TOKEN_NONE) {
            text->tokens[id].attr |= TOKEN_CONTROL | TOKEN_ENDS;
        }
    }
}

static void rules_read(struct text *text, const struct gguf *gguf)
{
    bool bpe = text->kind == TEXT_BPE;
    uint32_t usual_bos = bpe ? 11 : text->kind == TEXT_SPM ? 1 : TOKEN_NONE;
    uint32_t usual_eos = bpe ? 11 : text->kind == TEXT_SPM ? 2 : 1;
    if (bpe && (text->pre->flags & (PRE_NO_BOS | PRE_RAW)) != 0) {
        usual_bos = TOKEN_NONE;
    }
    if (bpe && (text->pre->flags & PRE_RAW) != 0) {
        usual_eos = TOKEN_NONE;
    }
    text->bos = id_read(text, gguf, "tokenizer.ggml.bos_token_id", usual_bos);
    text->eos = id_read(text, gguf, "tokenizer.ggml.eos_token_id", usual_eos);
    text->unknown = id_read(text, gguf, "tokenizer.ggml.unknown_token_id",
                            bpe                      ? TOKEN_NONE
                            : text->kind == TEXT_SPM ? 0
                                                     : 2);
    text->add_bos = bpe ? (text->pre->flags & PRE_ADD_BOS) != 0 : text->kind == TEXT_SPM;
    text->add_eos = text->kind == TEXT_UNIGRAM;
    text->add_space_prefix = text->kind == TEXT_SPM;
    (void)gguf_get_bool(gguf, "tokenizer.ggml.add_bos_token", &text->add_bos);
    (void)gguf_get_bool(gguf, "tokenizer.ggml.add_eos_token", &text->add_eos);
    (void)gguf_get_bool(gguf, "tokenizer.ggml.add_space_prefix", &text->add_space_prefix);
    if (bpe && (text->pre->flags & PRE_NEWLINES) != 0) {
        text->add_bos = true; /* Gemma 4 cannot do without; its early files say otherwise */
    }
    ends_read(text, gguf);
}

static enum status bpe_prepare(struct text *text, const struct gguf *gguf, struct gguf_text kind,
                               struct fault *fault)
{
    char word[64];
    struct gguf_text name = {"default", 7};
    if (text_is(kind, "gemma4")) {
        name = kind;
    } else if (gguf_get_text(gguf, "tokenizer.ggml.pre", &name) && name.n_bytes == 0) {
        name = (struct gguf_text){"default", 7};
    }
    enum status status = pre_file_load(text, gguf, fault);
    if (status != STATUS_OK) {
        return status;
    }
    text->pre = text->pre != NULL ? text->pre : pre_find(name);
    if (text->pre == NULL) {
        (void)fault_set(&text->why_not, STATUS_UNSUPPORTED,
                        "the pre-tokenizer '%s' (tokenizer.ggml.pre) is not known to skein",
                        clip(name, word));
        return STATUS_OK;
    }
    if (text->splitter == NULL) {
        status = splitter_new(text->pre->patterns, &text->splitter, fault);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = bpe_load(text, gguf, fault);
    if (status == STATUS_OK) {
        text->kind = TEXT_BPE;
    }
    return status;
}

/* <0x00> ... <0xFF>, or the byte itself. */
static void byte_tokens_find(struct text *text)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char name[8];
        char raw = (char)byte;
        (void)snprintf(name, sizeof name, "<0x%02X>", byte);
        uint32_t id = string_map_find(&text->map, text->tokens, name, 6);
        text->byte_symbol[byte] =
            id != TOKEN_NONE ? id : string_map_find(&text->map, text->tokens, &raw, 1);
    }
}

static enum status kind_prepare(struct text *text, const struct gguf *gguf, struct fault *fault)
{
    char word[64];
    struct gguf_text kind = {"", 0};
    if (!gguf_get_text(gguf, "tokenizer.ggml.model", &kind) || text->n_tokens == 0) {
        (void)fault_set(&text->why_not, STATUS_UNSUPPORTED, "the file has no vocabulary");
        return STATUS_OK;
    }
    if (text_is(kind, "gpt2") || text_is(kind, "gemma4")) {
        return bpe_prepare(text, gguf, kind, fault);
    }
    if (text_is(kind, "llama")) {
        byte_tokens_find(text);
        text->kind = TEXT_SPM;
        return STATUS_OK;
    }
    if (text_is(kind, "t5")) {
        text->kind = TEXT_UNIGRAM;
        return unigram_load(text, gguf, fault);
    }
    (void)fault_set(&text->why_not, STATUS_UNSUPPORTED,
                    "the tokenizer kind '%s' (tokenizer.ggml.model) is not supported",
                    clip(kind, word));
    return STATUS_OK;
}

static enum status text_load(struct text *text, const struct gguf *gguf, struct fault *fault)
{
    struct gguf_text name = {"", 0};
    enum status status = tokens_load(text, gguf, fault);
    if (status == STATUS_OK) {
        status = kind_prepare(text, gguf, fault);
    }
    if (status != STATUS_OK || text->kind == TEXT_NONE) {
        return status;
    }
    rules_read(text, gguf);
    (void)gguf_get_text(gguf, "general.name", &name);
    vocab_names_apply(text, name);
    pre_file_rstrip(text, gguf);
    return special_build(text);
}

enum status text_new(const struct gguf *gguf, struct text **out, struct fault *fault)
{
    *out = NULL;
    struct text *text = MEM_NEW(struct text);
    if (text == NULL) {
        return fault_set(fault, STATUS_NO_MEMORY, "no memory for the vocabulary");
    }
    text->bos = text->eos = text->unknown = TOKEN_NONE;
    (void)gguf_get_text(gguf, "tokenizer.chat_template", &text->chat_template);
    enum status status = text_load(text, gguf, fault);
    if (status != STATUS_OK) {
        if (status == STATUS_NO_MEMORY) {
            (void)fault_set(fault, status, "no memory for the vocabulary");
        }
        text_free(&text);
        return status;
    }
    *out = text;
    return STATUS_OK;
}

void text_free(struct text **text)
{
    struct text *t = *text;
    if (t == NULL) {
        return;
    }
    splitter_free(&t->splitter);
    string_map_free(&t->map);
    mem_free(t->tokens);
    mem_free(t->merges);
    mem_free(t->joined);
    mem_free(t->special);
    mem_free(t->trie);
    mem_free(t->unigram);
    mem_free(t);
    *text = NULL;
}

enum status text_runnable(const struct text *text, struct fault *fault)
{
    if (text->why_not.status != STATUS_OK) {
        return fault_set(fault, text->why_not.status, "%s", text->why_not.text);
    }
    return STATUS_OK;
}

uint32_t text_token_count(const struct text *text)
{
    return text->n_tokens;
}
