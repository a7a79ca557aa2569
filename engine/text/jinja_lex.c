/* The template's text as tokens.
 *
 * Outside of tags there is data up to the next "{{", "{%" or "{#". Which white space around a tag
 * goes away is decided here, with Hugging Face's settings: trim_blocks (the first newline behind a
 * block or comment), lstrip_blocks (blanks before a block or comment that begins its line), "-" at
 * either end of any tag (all white space on that side), "+" (none). One newline at the template's
 * end is dropped and every line end counts as "\n".
 *
 * Inside of a tag a closing mark only counts where all brackets are closed, so that
 * {{ {"a": {}} }} works. Reference: jinja.palletsprojects.com, "Whitespace Control" and
 * "Expressions". */
#include "engine/text/jinja_ast.h"
#include "engine/text/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BRACKETS = 256 };

struct lexer {
    struct jinja *j;
    const char *text;
    size_t n, at;
    unsigned line;
    struct jinja_token *tokens;
    size_t n_tokens, capacity;
    char brackets[MAX_BRACKETS]; /* the closing ones that are awaited */
    size_t n_brackets;
};

static enum status lex_fail(struct lexer *x, enum status status, const char *words)
{
    x->j->line = x->line;
    return jinja_fail(x->j, status, "%s", words);
}

static char peek(const struct lexer *x, size_t ahead)
{
    return ahead < x->n - x->at ? x->text[x->at + ahead] : '\0';
}

static bool starts(const struct lexer *x, size_t at, const char *word)
{
    size_t n = strlen(word);
    return at <= x->n && n <= x->n - at && memcmp(x->text + at, word, n) == 0;
}

static enum status token_add(struct lexer *x, enum jinja_token_kind kind, struct jinja_text text,
                             struct jinja_value value)
{
    JINJA_TRY(jinja_work(x->j, 1));
    if (x->n_tokens == x->capacity) {
        size_t capacity = x->capacity == 0 ? 256 : 2 * x->capacity;
        struct jinja_token *tokens = jinja_take(x->j, capacity, sizeof *tokens);
        if (tokens == NULL) {
            return jinja_failure(x->j);
        }
        if (x->n_tokens > 0) {
            memcpy(tokens, x->tokens, x->n_tokens * sizeof *tokens);
        }
        x->tokens = tokens;
        x->capacity = capacity;
    }
    x->tokens[x->n_tokens++] =
        (struct jinja_token){.kind = kind, .line = x->line, .text = text, .value = value};
    return STATUS_OK;
}

/* Moves on by n bytes, counting lines. */
static void advance(struct lexer *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x->line += x->text[x->at + i] == '\n';
    }
    x->at += n;
}

static void skip_space(struct lexer *x)
{
    uint32_t code;
    for (;;) {
        size_t length = utf8_decode(x->text + x->at, x->n - x->at, &code);
        if (length == 0 || !utf8_is_space(code)) {
            return;
        }
        advance(x, length);
    }
}

/* The data [x->at, end) before a tag whose opening mark is followed by `sign`. */
static enum status data_add(struct lexer *x, size_t end, char sign, bool may_strip)
{
    struct jinja_text text = {x->text + x->at, end - x->at};
    if (sign == '-') {
        text = jinja_strip(text, (struct jinja_text){NULL, 0}, false, true);
    } else if (sign != '+' && may_strip) {
        size_t line_start = text.n;
        while (line_start > 0 && text.data[line_start - 1] != '\n') {
            line_start--;
        }
        bool line_starting = x->at == 0 || x->text[x->at - 1] == '\n';
        struct jinja_text tail = {text.data + line_start, text.n - line_start};
        if ((line_start > 0 || line_starting) &&
            jinja_strip(tail, (struct jinja_text){NULL, 0}, true, false).n == 0) {
            text.n = line_start;
        }
    }
    if (text.n > 0) {
        JINJA_TRY(token_add(x, JT_DATA, text, jinja_none()));
    }
    advance(x, end - x->at);
    return STATUS_OK;
}

/* Length of the closing mark of a block or comment at `at`, 0 where there is none; *strip: it takes
 * all white space behind it along. */
static size_t closing(const struct lexer *x, size_t at, const char *mark, bool *strip)
{
    *strip = false;
    if (at < x->n && (x->text[at] == '-' || x->text[at] == '+') && starts(x, at + 1, mark)) {
        *strip = x->text[at] == '-';
        return 3;
    }
    if (starts(x, at, mark)) {
        bool newline = at + 2 < x->n && x->text[at + 2] == '\n' && mark[0] != '}';
        return newline ? 3 : 2;
    }
    return 0;
}

static enum status comment_lex(struct lexer *x)
{
    bool strip;
    for (size_t at = x->at + 2; at < x->n; at++) {
        size_t length = closing(x, at, "#}", &strip);
        if (length > 0) {
            advance(x, at + length - x->at);
            if (strip) {
                skip_space(x);
            }
            return STATUS_OK;
        }
    }
    return lex_fail(x, STATUS_FORMAT, "missing end of comment tag");
}

/* Length of "{% word %}" at `at` without what its end strips, 0 where something else stands there.
 */
static size_t word_tag(const struct lexer *x, size_t at, const char *word, char *sign,
                       char *end_sign)
{
    size_t from = at + 2;
    *sign = from < x->n ? x->text[from] : '\0';
    *sign = *sign == '-' || *sign == '+' ? *sign : '\0';
    from += *sign != '\0';
    while (from < x->n && utf8_is_space((uint8_t)x->text[from])) {
        from++;
    }
    if (!starts(x, from, word)) {
        return 0;
    }
    from += strlen(word);
    while (from < x->n && utf8_is_space((uint8_t)x->text[from])) {
        from++;
    }
    *end_sign =
        from < x->n && (x->text[from] == '-' || x->text[from] == '+') ? x->text[from] : '\0';
    from += *end_sign != '\0';
    return starts(x, from, "%}") ? from + 2 - at : 0;
}

static enum status raw_lex(struct lexer *x, size_t tag_length, char end_sign)
{
    char sign;
    advance(x, tag_length);
    if (end_sign == '-') {
        skip_space(x);
    }
    for (size_t at = x->at; at < x->n; at++) {
        size_t length = starts(x, at, "{%") ? word_tag(x, at, "endraw", &sign, &end_sign) : 0;
        if (length > 0) {
            JINJA_TRY(data_add(x, at, sign, true));
            advance(x, length);
            if (end_sign == '-') {
                skip_space(x);
            } else if (end_sign == '\0' && peek(x, 0) == '\n') {
                advance(x, 1);
            }
            return STATUS_OK;
        }
    }
    return lex_fail(x, STATUS_FORMAT, "missing end of raw directive");
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One backslash escape of a string literal, as Python's. Returns the bytes read behind the
 * backslash, 0 where it is none and the backslash stays. */
static size_t escape_read(const char *p, size_t n, uint32_t *code)
{
    static const char names[] = "abfnrtv\\'\"";
    static const char values[] = "\a\b\f\n\r\t\v\\'\"";
    const char *found = n > 0 && p[0] != '\0' ? strchr(names, p[0]) : NULL;
    if (found != NULL) {
        *code = (uint8_t)values[found - names];
        return 1;
    }
    if (n > 0 && p[0] >= '0' && p[0] <= '7') {
        size_t i = 0;
        for (*code = 0; i < 3 && i < n && p[i] >= '0' && p[i] <= '7'; i++) {
            *code = *code * 8 + (uint32_t)(p[i] - '0');
        }
        return i;
    }
    size_t digits = n == 0 ? 0 : p[0] == 'x' ? 2 : p[0] == 'u' ? 4 : p[0] == 'U' ? 8 : 0;
    if (digits == 0 || n < digits + 1) {
        return 0;
    }
    *code = 0;
    for (size_t i = 1; i <= digits; i++) {
        int digit = hex_digit(p[i]);
        if (digit < 0) {
            return 0;
        }
        *code = *code << 4 | (uint32_t)digit;
    }
    return digits + 1;
}

static enum status unescape(struct lexer *x, struct jinja_text raw, struct jinja_text *out)
{
    if (memchr(raw.data, '\\', raw.n) == NULL) {
        *out = raw;
        return STATUS_OK;
    }
    struct jinja_builder b = {0};
    for (size_t i = 0; i < raw.n;) {
        uint32_t code;
        if (raw.data[i] != '\\') {
            JINJA_TRY(jinja_put_c(x->j, &b, raw.data[i++]));
        } else if (i + 1 < raw.n && raw.data[i + 1] == '\n') {
            i += 2;
        } else {
            size_t length = escape_read(raw.data + i + 1, raw.n - i - 1, &code);
            JINJA_TRY(length > 0 ? jinja_put_code(x->j, &b, code) : jinja_put_c(x->j, &b, '\\'));
            i += 1 + length;
        }
    }
    *out = jinja_built(&b).text;
    return STATUS_OK;
}

static enum status string_lex(struct lexer *x)
{
    char quote = peek(x, 0);
    size_t end = x->at + 1;
    while (end < x->n && x->text[end] != quote) {
        end += x->text[end] == '\\' ? 2 : 1;
    }
    if (end >= x->n) {
        return lex_fail(x, STATUS_FORMAT, "a string literal does not end");
    }
    struct jinja_text text = {x->text + x->at + 1, end - x->at - 1};
    if (text.n > 0) {
        JINJA_TRY(unescape(x, text, &text));
    }
    JINJA_TRY(token_add(x, JT_STRING, text, jinja_none()));
    advance(x, end + 1 - x->at);
    return STATUS_OK;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Digits with single underscores between them, copied without these. */
static size_t digits_read(const char *p, size_t n, bool hex, char *copy, size_t *n_copy,
                          size_t room)
{
    size_t i = 0;
    while (i < n) {
        size_t digit = p[i] == '_' && i > 0 && i + 1 < n ? i + 1 : i;
        if (!(is_digit(p[digit]) || (hex && hex_digit(p[digit]) >= 0)) || *n_copy + 1 >= room) {
            break;
        }
        copy[(*n_copy)++] = p[digit];
        i = digit + 1;
    }
    copy[*n_copy] = '\0';
    return i;
}

static enum status number_lex(struct lexer *x)
{
    char copy[400];
    size_t n_copy = 0;
    const char *p = x->text + x->at;
    size_t left = x->n - x->at;
    char prefix = left > 2 && p[0] == '0' ? (char)(p[1] | 0x20) : '\0';
    int base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 10;
    size_t skipped = base == 10 ? 0 : 2;
    size_t length =
        skipped + digits_read(p + skipped, left - skipped, base == 16, copy, &n_copy, sizeof copy);
    bool real = false;
    bool behind_dot = x->at > 0 && p[-1] == '.';
    if (base == 10 && !behind_dot) {
        if (length + 1 < left && p[length] == '.' && is_digit(p[length + 1]) && n_copy < 200) {
            copy[n_copy++] = '.';
            length++;
            length +=
                digits_read(p + length, left - length, false, copy, &n_copy, sizeof copy - 40);
            real = true;
        }
        size_t mark = length < left && (p[length] | 0x20) == 'e' ? length + 1 : 0;
        mark += mark > 0 && mark < left && (p[mark] == '+' || p[mark] == '-');
        if (mark > 0 && mark < left && is_digit(p[mark])) {
            for (; length < mark; length++) {
                copy[n_copy++] = p[length];
            }
            length += digits_read(p + length, left - length, false, copy, &n_copy, sizeof copy);
            real = true;
        }
    }
    errno = 0;
    struct jinja_value value =
        real ? jinja_float(strtod(copy, NULL)) : jinja_int(strtoll(copy, NULL, base));
    if (!real && errno != 0) {
        return lex_fail(x, STATUS_UNSUPPORTED, "an integer past 64 bits");
    }
    JINJA_TRY(token_add(x, real ? JT_FLOAT : JT_INTEGER, (struct jinja_text){p, length}, value));
    advance(x, length);
    return STATUS_OK;
}

static enum status bracket_check(struct lexer *x, char c)
{
    static const char opening[] = "([{", ending[] = ")]}";
    const char *open = strchr(opening, c), *end = strchr(ending, c);
    if (open != NULL) {
        if (x->n_brackets == MAX_BRACKETS) {
            return lex_fail(x, STATUS_LIMIT, "brackets are nested too deep");
        }
        x->brackets[x->n_brackets++] = ending[open - opening];
    } else if (end != NULL) {
        if (x->n_brackets == 0 || x->brackets[x->n_brackets - 1] != c) {
            return lex_fail(x, STATUS_FORMAT, "a closing bracket that closes nothing");
        }
        x->n_brackets--;
    }
    return STATUS_OK;
}

static enum status operator_lex(struct lexer *x)
{
    static const struct {
        const char *text;
        enum jinja_token_kind kind;
    } operators[] = {{"//", JT_FLOORDIV}, {"**", JT_POW},     {"==", JT_EQ},    {"!=", JT_NE},
                     {">=", JT_GE},       {"<=", JT_LE},      {"+", JT_ADD},    {"-", JT_SUB},
                     {"/", JT_DIV},       {"*", JT_MUL},      {"%", JT_MOD},    {"~", JT_TILDE},
                     {"[", JT_LBRACKET},  {"]", JT_RBRACKET}, {"(", JT_LPAREN}, {")", JT_RPAREN},
                     {"{", JT_LBRACE},    {"}", JT_RBRACE},   {">", JT_GT},     {"<", JT_LT},
                     {"=", JT_ASSIGN},    {".", JT_DOT},      {":", JT_COLON},  {"|", JT_PIPE},
                     {",", JT_COMMA},     {";", JT_SEMICOLON}};
    for (size_t i = 0; i < COUNT_OF(operators); i++) {
        if (starts(x, x->at, operators[i].text)) {
            size_t length = strlen(operators[i].text);
            if (length == 1) {
                JINJA_TRY(bracket_check(x, operators[i].text[0]));
            }
            struct jinja_text text = {x->text + x->at, length};
            JINJA_TRY(token_add(x, operators[i].kind, text, jinja_none()));
            x->at += length;
            return STATUS_OK;
        }
    }
    return lex_fail(x, STATUS_FORMAT, "an unexpected character in a tag");
}

static bool is_name_byte(char c)
{
    return c == '_' || is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (c & 0x80) != 0;
}

/* From behind the opening mark to behind the closing one. */
static enum status tag_lex(struct lexer *x, bool block)
{
    bool strip;
    x->n_brackets = 0;
    for (;;) {
        skip_space(x);
        if (x->at >= x->n) {
            return lex_fail(x, STATUS_FORMAT, "a tag does not end");
        }
        size_t length = x->n_brackets == 0 ? closing(x, x->at, block ? "%}" : "}}", &strip) : 0;
        if (length == 3 && !block && peek(x, 0) == '+') {
            length = 0;
        }
        if (length > 0) {
            struct jinja_text text = {x->text + x->at, 2};
            JINJA_TRY(token_add(x, block ? JT_BLOCK_END : JT_VARIABLE_END, text, jinja_none()));
            advance(x, length);
            if (strip) {
                skip_space(x);
            }
            return STATUS_OK;
        }
        char c = peek(x, 0);
        if (c == '"' || c == '\'') {
            JINJA_TRY(string_lex(x));
        } else if (is_digit(c)) {
            JINJA_TRY(number_lex(x));
        } else if (is_name_byte(c)) {
            size_t end = x->at;
            while (end < x->n && is_name_byte(x->text[end])) {
                end++;
            }
            struct jinja_text text = {x->text + x->at, end - x->at};
            JINJA_TRY(token_add(x, JT_NAME, text, jinja_none()));
            x->at = end;
        } else {
            JINJA_TRY(operator_lex(x));
        }
    }
}

static size_t tag_find(const struct lexer *x)
{
    size_t at = x->at;
    while (at < x->n) {
        const char *found = memchr(x->text + at, '{', x->n - at);
        if (found == NULL) {
            return x->n;
        }
        at = (size_t)(found - x->text);
        char next = at + 1 < x->n ? x->text[at + 1] : '\0';
        if (next == '{' || next == '%' || next == '#') {
            return at;
        }
        at++;
    }
    return x->n;
}

/* The text with "\n" for every line end and without the last one. */
static enum status text_normalise(struct lexer *x, const char *text, size_t n)
{
    char *copy = jinja_take(x->j, n + 1, 1);
    if (copy == NULL) {
        return jinja_failure(x->j);
    }
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        bool pair = text[i] == '\r' && i + 1 < n && text[i + 1] == '\n';
        copy[out++] = text[i] == '\r' ? '\n' : text[i];
        i += pair;
    }
    x->text = copy;
    x->n = out > 0 && copy[out - 1] == '\n' ? out - 1 : out;
    return jinja_work(x->j, n / 16);
}

enum status jinja_lex(struct jinja *j, const char *text, size_t n_bytes, struct jinja_token **out)
{
    struct lexer x = {.j = j, .line = 1};
    JINJA_TRY(text_normalise(&x, text, n_bytes));
    while (x.at < x.n) {
        size_t tag = tag_find(&x);
        char kind = tag < x.n ? x.text[tag + 1] : '\0';
        char sign = tag + 2 < x.n ? x.text[tag + 2] : '\0';
        if (tag == x.n) {
            JINJA_TRY(data_add(&x, tag, '+', false));
            break;
        }
        JINJA_TRY(data_add(&x, tag, sign, kind != '{'));
        char raw_sign, end_sign;
        size_t raw = kind == '%' ? word_tag(&x, tag, "raw", &raw_sign, &end_sign) : 0;
        if (raw > 0 && end_sign != '+') {
            JINJA_TRY(raw_lex(&x, raw, end_sign));
        } else if (kind == '#') {
            JINJA_TRY(comment_lex(&x));
        } else {
            struct jinja_text mark = {x.text + tag, 2};
            JINJA_TRY(token_add(&x, kind == '%' ? JT_BLOCK_BEGIN : JT_VARIABLE_BEGIN, mark,
                                jinja_none()));
            x.at += sign == '-' || sign == '+' ? 3 : 2;
            JINJA_TRY(tag_lex(&x, kind == '%'));
        }
    }
    JINJA_TRY(token_add(&x, JT_END, (struct jinja_text){"", 0}, jinja_none()));
    *out = x.tokens;
    return STATUS_OK;
}
