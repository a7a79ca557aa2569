/* Links: skein_engine.
 *
 * First byte odd: the rest, up to a NUL, is a pattern from a tokenizer file, and what is behind is
 * cut by it: the pieces must be the text, in order. First byte even: it chooses one of the
 * pre-tokenizers, and the rest is a text, which must come back byte for byte.
 *
 * Memory: at most 64 MiB. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"gpt-2",        "llama-bpe", "deepseek-v3", "gpt-4o",
                                    "deepseek-llm", "afmoe",     "exaone-moe",  "kimi-k2",
                                    "superbpe",     "tekken",    "youtu",       "chameleon"};

static void pattern_run(const char *pattern, const char *text, size_t n)
{
    struct splitter *splitter;
    struct pieces pieces = {0};
    const char *patterns[] = {pattern, NULL};
    size_t at = 0;

    if (splitter_new(patterns, &splitter, NULL) != STATUS_OK)
        return;
    if (splitter_run(splitter, text, n, &pieces) == STATUS_OK) {
        for (size_t i = 0; i < pieces.n; i++) {
            if (pieces.items[i].start != at)
                abort();
            at += pieces.items[i].n_bytes;
        }
        if (at != n)
            abort();
    }
    pieces_free(&pieces);
    splitter_free(&splitter);
}

static void text_run(const struct text *text, const char *data, size_t n, unsigned flags)
{
    struct token_list ids = {0};
    struct buffer out = {0};
    struct detok *detok = NULL;

    if (text_tokenize(text, data, n, flags, &ids, NULL) != STATUS_OK)
        abort();
    if (text_detok_new(text, DETOK_SPECIAL | DETOK_RAW, &detok) != STATUS_OK)
        abort();
    for (size_t i = 0; i < ids.n; i++)
        if (detok_push(detok, ids.ids[i], &out) != STATUS_OK)
            abort();
    if (detok_finish(detok, true, &out) != STATUS_OK || out.len != n ||
        (n > 0 && memcmp(out.data, data, n) != 0))
        abort();
    detok_free(&detok);
    buffer_free(&out);
    token_list_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct gguf *gguf;
    static struct text *text;
    const void *demo;
    size_t n_demo;

    if (!text) {
        model_demo(&demo, &n_demo);
        if (gguf_parse(demo, n_demo, &gguf, NULL) || text_new(gguf, &text, NULL))
            abort();
    }
    if (size < 1)
        return 0;
    char *copy = malloc(size);
    if (!copy)
        return 0;
    memcpy(copy, data + 1, size - 1);
    copy[size - 1] = '\0';
    if (data[0] & 1) {
        size_t n = strlen(copy);
        if (n + 1 < size)
            pattern_run(copy, copy + n + 1, size - n - 2);
    } else {
        const char *name = names[data[0] / 2 % COUNT_OF(names)];
        text->pre = pre_find((struct gguf_text){name, strlen(name)});
        splitter_free(&text->splitter);
        if (splitter_new(text->pre->patterns, &text->splitter, NULL) != STATUS_OK)
            abort();
        text_run(text, copy, size - 1, 0);
        text_run(text, copy, size - 1, TOKENS_PARSE_SPECIAL);
    }
    free(copy);
    return 0;
}
