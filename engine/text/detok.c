/* Tokens to text, one at a time.
 *
 * A token's bytes may end in the middle of a character (byte-level vocabularies cut anywhere, byte
 * fallback tokens are single bytes), so what is not yet a whole character is held back, at most
 * three bytes. SentencePiece vocabularies mark the beginning of a word with a blank, also that of
 * the first word: the blank before the very first visible token is dropped, unless the tokens go on
 * a text.
 *
 * DETOK_CLEAN does what some byte-level vocabularies ask of a decoder: no blank before "?", "!",
 * "." and ",", nor before contractions. It loses information, so it is off unless asked for; the
 * whole text is needed for it and comes out at the end. */
#include "engine/text/utf8.h"
#include "engine/text/vocab.h"

#include <string.h>

struct detok {
    const struct text *text;
    unsigned flags;
    bool begun;
    char held[4];
    size_t n_held;
    struct buffer all; /* DETOK_CLEAN */
};

static enum status put_letters(const struct token *token, struct buffer *out)
{
    enum status status = STATUS_OK;
    for (size_t at = 0; at < token->n_bytes && status == STATUS_OK;) {
        uint32_t code;
        size_t length = utf8_decode(token->data + at, token->n_bytes - at, &code);
        int byte = letter_byte(code);
        status = byte >= 0 ? buffer_put_u8(out, (uint8_t)byte)
                           : buffer_put(out, token->data + at, length);
        at += length;
    }
    return status;
}

static enum status put_unescaped(const struct token *token, struct buffer *out)
{
    enum status status = STATUS_OK;
    for (size_t at = 0; at < token->n_bytes && status == STATUS_OK;) {
        bool blank = token->n_bytes - at >= 3 && memcmp(token->data + at, "\xe2\x96\x81", 3) == 0;
        status = buffer_put_u8(out, blank ? ' ' : (uint8_t)token->data[at]);
        at += blank ? 3 : 1;
    }
    return status;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static enum status put_byte(const struct token *token, struct buffer *out)
{
    if (token->n_bytes != 6 || hex_digit(token->data[3]) < 0 || hex_digit(token->data[4]) < 0) {
        return STATUS_OK;
    }
    return buffer_put_u8(out,
                         (uint8_t)(hex_digit(token->data[3]) << 4 | hex_digit(token->data[4])));
}

/* The bytes of one token, special ones as written. */
static enum status token_put(const struct text *text, uint32_t id, struct buffer *out)
{
    if (id >= text->n_tokens) {
        return STATUS_INVALID;
    }
    const struct token *token = &text->tokens[id];
    if ((token->attr & (TOKEN_CONTROL | TOKEN_UNKNOWN | TOKEN_USER)) != 0) {
        return buffer_put(out, token->data, token->n_bytes);
    }
    if ((token->attr & TOKEN_NORMAL) != 0) {
        bool letters = text->kind == TEXT_BPE && (text->pre->flags & PRE_RAW) == 0;
        return letters ? put_letters(token, out) : put_unescaped(token, out);
    }
    return (token->attr & TOKEN_BYTE) != 0 ? put_byte(token, out) : STATUS_OK;
}

enum status text_detok_new(const struct text *text, unsigned flags, struct detok **out)
{
    *out = NULL;
    if (text->kind == TEXT_NONE) {
        return STATUS_UNSUPPORTED;
    }
    struct detok *detok = MEM_NEW(struct detok);
    if (detok == NULL) {
        return STATUS_NO_MEMORY;
    }
    bool cleans = text->pre != NULL && (text->pre->flags & PRE_CLEAN) != 0;
    detok->text = text;
    detok->flags = cleans ? flags : flags & ~(unsigned)DETOK_CLEAN;
    detok->begun = (flags & DETOK_CONTINUES) != 0 || !text->add_space_prefix;
    *out = detok;
    return STATUS_OK;
}

enum status detok_new(const struct model *model, unsigned flags, struct detok **out)
{
    return text_detok_new(model_text(model), flags, out);
}

/* bytes = what was held back and what came: whole characters go out, the beginning of one is held.
 */
static enum status characters_put(struct detok *detok, const char *bytes, size_t n,
                                  struct buffer *out)
{
    enum status status = STATUS_OK;
    bool raw = (detok->flags & DETOK_RAW) != 0;
    size_t at = 0;
    while (at < n && status == STATUS_OK) {
        uint32_t code;
        size_t length = utf8_decode_partial(bytes + at, n - at, &code);
        if (length == 0) {
            break;
        }
        bool stray = length == 1 && (uint8_t)bytes[at] >= 0x80;
        status = stray && !raw ? buffer_put(out, "\xef\xbf\xbd", 3)
                               : buffer_put(out, bytes + at, length);
        at += length;
    }
    if (status == STATUS_OK) {
        detok->n_held = n - at;
        memcpy(detok->held, bytes + at, detok->n_held);
    }
    return status;
}

enum status detok_push(struct detok *detok, uint32_t id, struct buffer *out)
{
    const uint8_t hidden = TOKEN_CONTROL | TOKEN_UNKNOWN;
    const struct text *text = detok->text;
    if (id >= text->n_tokens) {
        return STATUS_INVALID;
    }
    if ((detok->flags & DETOK_SPECIAL) == 0 && (text->tokens[id].attr & hidden) != 0) {
        return STATUS_OK;
    }
    struct buffer piece = {0};
    enum status status = buffer_put(&piece, detok->held, detok->n_held);
    if (status == STATUS_OK) {
        status = token_put(text, id, &piece);
    }
    if (status == STATUS_OK && piece.len > 0) {
        if (!detok->begun && piece.data[0] == ' ') {
            buffer_drop_front(&piece, 1);
        }
        bool clean = (detok->flags & DETOK_CLEAN) != 0;
        status = characters_put(detok, piece.data == NULL ? "" : (const char *)piece.data,
                                piece.len, clean ? &detok->all : out);
        detok->begun = detok->begun || status == STATUS_OK;
    }
    buffer_free(&piece);
    return status;
}

/* The decoder's cleaning, three walks over the text in place: blanks before punctuation, an
 * apostrophe between blanks, blanks before 's, 'm, 're and 've. */
static size_t clean_punctuation(char *text, size_t n)
{
    size_t to = n > 0 ? 1 : 0;
    for (size_t i = 1; i < n; i++) {
        to -= text[i - 1] == ' ' && text[i] != '\0' && strchr("?!.,", text[i]) != NULL;
        text[to++] = text[i];
    }
    return to;
}

static size_t clean_apostrophes(char *text, size_t n)
{
    size_t to = n > 0 ? 1 : 0;
    for (size_t i = 1; i < n; i++) {
        char c = text[i];
        if (c == '\'' && i + 1 < n && text[i - 1] == ' ' && text[i + 1] == ' ') {
            to--;
            text[++i] = '\0';
        }
        text[to++] = c;
    }
    return to;
}

static size_t clean_contractions(char *text, size_t n)
{
    size_t to = n > 0 ? 1 : 0;
    for (size_t i = 1; i < n; i++) {
        char c = text[i], next = i + 1 < n ? text[i + 1] : '\0';
        if (c == '\'' && text[i - 1] == ' ') {
            bool two = i + 2 < n && text[i + 2] == 'e' && (next == 'r' || next == 'v');
            to -= next == 's' || next == 'm' || two;
        }
        text[to++] = c;
    }
    return to;
}

enum status detok_finish(struct detok *detok, bool raw, struct buffer *out)
{
    struct buffer *target = (detok->flags & DETOK_CLEAN) != 0 ? &detok->all : out;
    enum status status = STATUS_OK;
    if (detok->n_held > 0) {
        status = raw ? buffer_put(target, detok->held, detok->n_held)
                     : buffer_put(target, "\xef\xbf\xbd", 3);
        detok->n_held = 0;
    }
    if (status == STATUS_OK && detok->all.len > 0) {
        char *text = (char *)detok->all.data;
        size_t n = clean_punctuation(text, detok->all.len);
        n = clean_apostrophes(text, n);
        n = clean_contractions(text, n);
        status = buffer_put(out, text, n);
        detok->all.len = 0;
    }
    return status;
}

void detok_free(struct detok **detok)
{
    if (*detok == NULL) {
        return;
    }
    buffer_free(&(*detok)->all);
    mem_free(*detok);
    *detok = NULL;
}
