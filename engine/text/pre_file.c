/* Keys of our own beside GGUF's: what a tokenizer.json says and GGUF has no words for.
 *
 * `tokenizer.skein.patterns` are the patterns by which text is cut, as the model's own tokenizer
 * has them; they go before the name in tokenizer.ggml.pre. `ignore_merges` and `clean` are flags of
 * the rows in pre.c; `rstrip` lists tokens that take the white space behind them along. All come
 * from files: a pattern that does not compile is a reason not to run, no error. */
#include "engine/text/vocab.h"

#include <string.h>

#include <utf8proc.h>

enum { MAX_PATTERNS = 16, MAX_PATTERN_BYTES = 1 << 14 };

static bool flag(const struct gguf *gguf, const char *key)
{
    bool v = false;
    return gguf_get_bool(gguf, key, &v) && v;
}

static enum status patterns_copy(const struct gguf_value *list, char *out[MAX_PATTERNS + 1])
{
    for (uint64_t i = 0; i < list->n; i++) {
        struct gguf_text pattern;
        if (!gguf_value_text(list, i, &pattern) || pattern.n_bytes > MAX_PATTERN_BYTES ||
            (pattern.n_bytes > 0 && memchr(pattern.data, 0, pattern.n_bytes) != NULL)) {
            return STATUS_FORMAT;
        }
        out[i] = mem_text_n(pattern.data, pattern.n_bytes);
        if (out[i] == NULL) {
            return STATUS_NO_MEMORY;
        }
    }
    return STATUS_OK;
}

enum status pre_file_load(struct text *text, const struct gguf *gguf, struct fault *fault)
{
    const struct gguf_value *list = gguf_find(gguf, "tokenizer.skein.patterns");
    char *patterns[MAX_PATTERNS + 1] = {NULL};
    struct fault why = {0};
    if (list == NULL) {
        return STATUS_OK;
    }
    enum status status = STATUS_FORMAT;
    if (list->is_array && list->kind == GGUF_STRING && list->n <= MAX_PATTERNS) {
        status = patterns_copy(list, patterns);
    }
    if (status == STATUS_OK) {
        status = splitter_new((const char *const *)patterns, &text->splitter, &why);
    }
    for (size_t i = 0; i < MAX_PATTERNS; i++) {
        mem_free(patterns[i]);
    }
    if (status == STATUS_NO_MEMORY) {
        return fault_set(fault, status, "no memory for the tokenizer's patterns");
    }
    if (status != STATUS_OK) {
        (void)fault_set(&text->why_not, STATUS_UNSUPPORTED, "%s",
                        why.status != STATUS_OK ? why.text
                                                : "the tokenizer's patterns are not usable");
        return splitter_new((const char *const[]){NULL}, &text->splitter, fault);
    }
    text->own_pre = (struct pre_tokenizer){.name = "the file's own"};
    text->own_pre.flags |= flag(gguf, "tokenizer.skein.ignore_merges") ? PRE_IGNORE_MERGES : 0;
    text->own_pre.flags |= flag(gguf, "tokenizer.skein.clean") ? PRE_CLEAN : 0;
    text->nfc = flag(gguf, "tokenizer.skein.nfc");
    text->pre = &text->own_pre;
    return STATUS_OK;
}

void pre_file_rstrip(struct text *text, const struct gguf *gguf)
{
    const struct gguf_value *list = gguf_find(gguf, "tokenizer.skein.rstrip");
    if (list == NULL || !list->is_array) {
        return;
    }
    for (uint32_t id = 0; id < text->n_tokens; id++) {
        text->tokens[id].attr &= (uint8_t)~TOKEN_RSTRIP;
    }
    for (uint64_t i = 0; i < list->n; i++) {
        uint32_t id;
        if (gguf_value_u32(list, i, &id) && id < text->n_tokens) {
            text->tokens[id].attr |= TOKEN_RSTRIP;
        }
    }
}

enum status pre_file_nfc(const char *data, size_t n_bytes, char **out, size_t *n_out)
{
    const utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    const utf8proc_uint8_t *text = (const utf8proc_uint8_t *)data;
    utf8proc_ssize_t n = (utf8proc_ssize_t)n_bytes, room;
    size_t plain = 0;
    *out = NULL;
    while (plain < n_bytes && text[plain] < 0x80) {
        plain++;
    }
    room = plain == n_bytes ? 0 : utf8proc_decompose(text, n, NULL, 0, options);
    if (room <= 0) {
        return STATUS_OK;
    }
    utf8proc_int32_t *points = MEM_NEW_N(utf8proc_int32_t, (size_t)room + 1);
    if (points == NULL) {
        return STATUS_NO_MEMORY;
    }
    if (utf8proc_decompose(text, n, points, room, options) == room) {
        room = utf8proc_reencode(points, room, options); /* in place */
    } else {
        room = -1;
    }
    if (room < 0) {
        mem_free(points);
        return STATUS_OK;
    }
    *out = (char *)points;
    *n_out = (size_t)room;
    return STATUS_OK;
}
