/* The pre-tokenizer of tokenizer.json as a list of patterns.
 *
 * The text side (engine/text/split.c) applies patterns one after the other; matches and the gaps
 * between them become pieces. That is what "Split" does with "Isolated", and what "ByteLevel",
 * "Digits" and "Punctuation" are special cases of. The patterns travel under a key of our own;
 * files that skein writes for other programs also need the name that those know the same patterns
 * by, which the table below has.
 *
 * Steps that throw text away or glue pieces together are not expressible and are named. */
#include "engine/hf/tokenizer.h"

#include <stdio.h>
#include <string.h>

enum { MAX_PATTERNS = 16, MAX_DEPTH = 8, MAX_PATTERN_BYTES = 1 << 14 };

#define TAIL   "\\s+(?!\\S)|\\s+"
#define GPT2   "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|" TAIL
#define SUFFIX "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define MARKS  "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|" TAIL
#define WORDS  SUFFIX "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define UPPER  "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER  "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define SLASH  "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|" TAIL
#define START  "[^\\r\\n\\p{L}\\p{N}]?"

/* Patterns of a file, joined by line feeds. */
static const struct {
    const char *name, *patterns;
} known[] = {
    {"gpt-2", GPT2},
    {"llama-bpe", WORDS "\\p{N}{1,3}" MARKS},
    {"qwen2", WORDS "\\p{N}" MARKS},
    {"starcoder", "\\p{N}\n" GPT2},
    {"gpt-4o",
     START UPPER "*" LOWER "+" SUFFIX "?|" START UPPER "+" LOWER "*" SUFFIX "?|\\p{N}{1,3}" SLASH},
    {"tekken", START UPPER "*" LOWER "+|" START UPPER "+" LOWER "*|\\p{N}" SLASH},
};

struct patterns {
    struct buffer texts[MAX_PATTERNS];
    size_t n;
    const char *not_possible; /* the step that cannot be expressed */
    bool nfc;
    bool no_memory;
};

static void pattern_add(struct patterns *p, const char *text, size_t n_bytes)
{
    if (p->n == MAX_PATTERNS || n_bytes > MAX_PATTERN_BYTES || memchr(text, 0, n_bytes)) {
        p->not_possible = "too many or too long patterns";
        return;
    }
    if (buffer_put(&p->texts[p->n++], text, n_bytes))
        p->no_memory = true;
}

static void text_add(struct patterns *p, const char *text)
{
    pattern_add(p, text, strlen(text));
}

/* A literal text as a pattern. */
static void literal_add(struct patterns *p, const char *text)
{
    struct buffer quoted = {0};

    for (; *text; text++) {
        if (strchr("\\^$.[|()?*+{}-]#", *text) && buffer_put_u8(&quoted, '\\'))
            p->no_memory = true;
        if (buffer_put_u8(&quoted, (uint8_t)*text))
            p->no_memory = true;
    }
    if (quoted.len)
        pattern_add(p, (const char *)quoted.data, quoted.len);
    buffer_free(&quoted);
}

static void add_split(struct patterns *p, const json_t *step)
{
    const json_t *pattern = json_object_get(step, "pattern");
    const char *behavior = json_string_value(json_object_get(step, "behavior"));
    const json_t *regex = json_object_get(pattern, "Regex");
    const json_t *text = json_object_get(pattern, "String");
    bool keeps_matches =
        behavior && strcmp(behavior, "Removed") == 0 && hf_bool(step, "invert", false);

    if (!behavior || (strcmp(behavior, "Isolated") != 0 && !keeps_matches))
        p->not_possible = "Split that removes or joins";
    else if (json_is_string(regex))
        pattern_add(p, json_string_value(regex), json_string_length(regex));
    else if (json_is_string(text))
        literal_add(p, json_string_value(text));
    else
        p->not_possible = "Split without a pattern";
}

static void add_punctuation(struct patterns *p, const json_t *step)
{
    const char *behavior = json_string_value(json_object_get(step, "behavior"));

    if (!behavior || strcmp(behavior, "Isolated") == 0)
        text_add(p, "[\\p{P}!-/:-@\\[-`{-~]");
    else if (strcmp(behavior, "Contiguous") == 0)
        text_add(p, "[\\p{P}!-/:-@\\[-`{-~]+");
    else
        p->not_possible = "Punctuation that removes or joins";
}

static void add_step(struct patterns *p, const json_t *step, int depth)
{
    const char *kind = json_string_value(json_object_get(step, "type"));
    json_t *inner;
    size_t i;

    if (!kind || depth > MAX_DEPTH) {
        p->not_possible = "a step without a type";
    } else if (strcmp(kind, "Sequence") == 0) {
        json_array_foreach(json_object_get(step, "pretokenizers"), i, inner)
        {
            add_step(p, inner, depth + 1);
        }
    } else if (strcmp(kind, "ByteLevel") == 0) {
        if (hf_bool(step, "add_prefix_space", true))
            p->not_possible = "ByteLevel with add_prefix_space";
        else if (hf_bool(step, "use_regex", true))
            text_add(p, GPT2);
    } else if (strcmp(kind, "Digits") == 0) {
        if (hf_bool(step, "individual_digits", false))
            text_add(p, "\\p{N}");
        else
            text_add(p, "\\p{N}+");
    } else if (strcmp(kind, "Punctuation") == 0) {
        add_punctuation(p, step);
    } else if (strcmp(kind, "Split") == 0) {
        add_split(p, step);
    } else {
        p->not_possible = kind;
    }
}

/* The step, or a step of the sequence, that has this type; else NULL. */
static const json_t *step_find(const json_t *step, const char *list, const char *wanted)
{
    const char *kind = json_string_value(json_object_get(step, "type"));
    json_t *inner;
    size_t i;

    if (kind && strcmp(kind, wanted) == 0)
        return step;
    json_array_foreach(json_object_get(step, list), i, inner)
    {
        const char *inner_kind = json_string_value(json_object_get(inner, "type"));

        if (inner_kind && strcmp(inner_kind, wanted) == 0)
            return inner;
    }
    return NULL;
}

/* Of byte-level kinds: NFC, or nothing. */
static void add_normalizer(struct patterns *p, const json_t *step, int depth)
{
    const char *kind = json_string_value(json_object_get(step, "type"));
    json_t *inner;
    size_t i;

    if (!kind || depth > MAX_DEPTH) {
        p->not_possible = "a normalizer without a type";
    } else if (strcmp(kind, "Sequence") == 0) {
        json_array_foreach(json_object_get(step, "normalizers"), i, inner)
        {
            add_normalizer(p, inner, depth + 1);
        }
    } else if (strcmp(kind, "NFC") == 0) {
        p->nfc = true;
    } else {
        p->not_possible = kind;
    }
}

bool hf_is_byte_level(const json_t *tokenizer)
{
    return step_find(json_object_get(tokenizer, "pre_tokenizer"), "pretokenizers", "ByteLevel") ||
           step_find(json_object_get(tokenizer, "decoder"), "decoders", "ByteLevel");
}

static const char *known_name(const struct patterns *p)
{
    struct buffer all = {0};
    const char *name = "default";

    for (size_t i = 0; i < p->n; i++) {
        if ((i && buffer_put_u8(&all, '\n')) || buffer_put(&all, p->texts[i].data, p->texts[i].len))
            break;
    }
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        if (all.data && strcmp(known[i].patterns, (const char *)all.data) == 0)
            name = known[i].name;
    }
    buffer_free(&all);
    return name;
}

static void write_list(struct hf_build *build, const struct patterns *p, const json_t *model)
{
    struct gguf_writer *w = &build->writer;
    const char *name = known_name(p);

    gguf_write_text(w, "tokenizer.ggml.pre", name, strlen(name));
    gguf_write_array(w, "tokenizer.skein.patterns", GGUF_STRING, p->n);
    for (size_t i = 0; i < p->n; i++)
        gguf_write_item_text(w, (const char *)p->texts[i].data, p->texts[i].len);
    gguf_write_bool(w, "tokenizer.skein.nfc", p->nfc);
    gguf_write_bool(w, "tokenizer.skein.ignore_merges", hf_bool(model, "ignore_merges", false));
}

void hf_write_patterns(struct hf_build *build, const json_t *tokenizer)
{
    const json_t *step = json_object_get(tokenizer, "pre_tokenizer");
    const json_t *normalizer = json_object_get(tokenizer, "normalizer");
    struct patterns p = {0};
    char words[96];

    if (normalizer && !json_is_null(normalizer))
        add_normalizer(&p, normalizer, 0);
    if (step && !json_is_null(step))
        add_step(&p, step, 0);
    if (p.no_memory) {
        hf_fail(build, STATUS_NO_MEMORY, "out of memory");
    } else if (p.not_possible) {
        (void)snprintf(words, sizeof words, "%.80s", p.not_possible);
        gguf_write_text(&build->writer, "tokenizer.ggml.pre", words, strlen(words));
    } else {
        write_list(build, &p, json_object_get(tokenizer, "model"));
    }
    for (size_t i = 0; i < p.n; i++)
        buffer_free(&p.texts[i]);
}

/* Base64 (RFC 4648); false for anything else. */
static bool base64_put(const char *text, struct buffer *out)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = 0;
    int n_bits = 0;

    for (; *text && *text != '='; text++) {
        const char *at = strchr(letters, *text);

        if (!at)
            return false;
        bits = bits << 6 | (uint32_t)(at - letters);
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            if (buffer_put_u8(out, (uint8_t)(bits >> n_bits)))
                return false;
        }
    }
    return true;
}

/* SentencePiece's table of replacements. */
static void write_charsmap(struct hf_build *build, const json_t *normalizer)
{
    const json_t *step = step_find(normalizer, "normalizers", "Precompiled");
    const char *text = json_string_value(json_object_get(step, "precompiled_charsmap"));
    struct buffer bytes = {0};

    if (text && !base64_put(text, &bytes))
        hf_fail(build, STATUS_FORMAT, "tokenizer.json: precompiled_charsmap is not base64");
    if (bytes.len) {
        gguf_write_array(&build->writer, "tokenizer.ggml.precompiled_charsmap", GGUF_U8, bytes.len);
        gguf_write_item_bytes(&build->writer, bytes.data, bytes.len);
    }
    buffer_free(&bytes);
}

void hf_write_blanks(struct hf_build *build, const json_t *tokenizer)
{
    const json_t *normalizer = json_object_get(tokenizer, "normalizer");
    const json_t *meta =
        step_find(json_object_get(tokenizer, "pre_tokenizer"), "pretokenizers", "Metaspace");
    const char *scheme = json_string_value(json_object_get(meta, "prepend_scheme"));
    bool prefix = step_find(normalizer, "normalizers", "Prepend") != NULL;

    if (meta)
        prefix = scheme ? strcmp(scheme, "never") != 0 : hf_bool(meta, "add_prefix_space", true);
    gguf_write_bool(&build->writer, "tokenizer.ggml.add_space_prefix", prefix);
    if (step_find(normalizer, "normalizers", "Strip") ||
        step_find(normalizer, "normalizers", "Precompiled"))
        gguf_write_bool(&build->writer, "tokenizer.ggml.remove_extra_whitespaces", true);
    write_charsmap(build, normalizer);
}
