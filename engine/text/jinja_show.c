/* Values as text, the way Python's str() and repr() write them: templates print numbers, booleans
 * and now and then a whole list or dictionary, and a model has seen exactly those characters. */
#include "engine/text/jinja_value.h"
#include "engine/text/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* The shortest decimal that reads back as the same double: the first precision at which the
 * correctly rounded one does. Fixed notation for exponents -4..15, as Python. */
void jinja_real_text(double real, char out[static JINJA_REAL_TEXT])
{
    if (!isfinite(real)) {
        (void)snprintf(out, JINJA_REAL_TEXT, "%s", isnan(real) ? "nan" : real > 0 ? "inf" : "-inf");
        return;
    }
    char digits[JINJA_REAL_TEXT];
    for (int precision = 0; precision <= 16; precision++) {
        (void)snprintf(digits, sizeof digits, "%.*e", precision, real);
        if (strtod(digits, NULL) == real) {
            break;
        }
    }
    char *mark = strchr(digits, 'e');
    int exponent = atoi(mark + 1);
    int precision = (int)(mark - digits) - (digits[0] == '-') - 1; /* digits after the first */
    precision = precision > 0 ? precision - 1 : 0;
    if (exponent < -4 || exponent >= 16) {
        *mark = '\0';
        (void)snprintf(out, JINJA_REAL_TEXT, "%.24se%c%02u", digits, exponent < 0 ? '-' : '+',
                       (unsigned)abs(exponent) % 1000);
        return;
    }
    int decimals = precision - exponent;
    (void)snprintf(out, JINJA_REAL_TEXT, "%.*f", decimals > 0 ? decimals : 1, real);
}

static bool printable(uint32_t code)
{
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    case UTF8PROC_CATEGORY_ZS:
        return code == ' ';
    default:
        return true;
    }
}

static enum status repr_code(struct jinja *j, struct jinja_builder *b, uint32_t code, char quote)
{
    char escape[16];
    if (code == '\n' || code == '\r' || code == '\t') {
        return jinja_put_text(j, b, code == '\n' ? "\\n" : code == '\r' ? "\\r" : "\\t");
    }
    if (code == '\\' || code == (uint32_t)quote) {
        JINJA_TRY(jinja_put_c(j, b, '\\'));
        return jinja_put_c(j, b, (char)code);
    }
    if (printable(code)) {
        return jinja_put_code(j, b, code);
    }
    const char *format = code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x";
    (void)snprintf(escape, sizeof escape, format, code);
    return jinja_put_text(j, b, escape);
}

static enum status repr_string(struct jinja *j, struct jinja_builder *b, struct jinja_text text)
{
    bool single = text.n > 0 && memchr(text.data, '\'', text.n) != NULL;
    bool twofold = text.n > 0 && memchr(text.data, '"', text.n) != NULL;
    char quote = single && !twofold ? '"' : '\'';
    JINJA_TRY(jinja_put_c(j, b, quote));
    for (size_t at = 0; at < text.n;) {
        uint32_t code;
        at += utf8_decode(text.data + at, text.n - at, &code);
        JINJA_TRY(jinja_work(j, at % 16 == 0));
        JINJA_TRY(repr_code(j, b, code, quote));
    }
    return jinja_put_c(j, b, quote);
}

static enum status repr_range(struct jinja *j, struct jinja_builder *b,
                              const struct jinja_list *list)
{
    char text[80];
    int64_t first = list->n > 0 ? list->items[0].integer : 0;
    int64_t step = list->n > 1 ? list->items[1].integer - first : 1;
    int64_t end = first + (int64_t)list->n * step;
    (void)snprintf(text, sizeof text, step == 1 ? "range(%lld, %lld)" : "range(%lld, %lld, %lld)",
                   (long long)first, (long long)end, (long long)step);
    return jinja_put_text(j, b, text);
}

static enum status repr_list(struct jinja *j, struct jinja_builder *b, struct jinja_value value)
{
    static const char *const open[] = {[JINJA_PLAIN] = "[",
                                       [JINJA_KEYS] = "dict_keys([",
                                       [JINJA_VALUES] = "dict_values([",
                                       [JINJA_ITEMS] = "dict_items(["};
    const struct jinja_list *list = value.list;
    bool tuple = value.kind == JINJA_TUPLE;
    if (!tuple && list->flavor == JINJA_RANGE) {
        return repr_range(j, b, list);
    }
    JINJA_TRY(jinja_put_text(j, b, tuple ? "(" : open[list->flavor]));
    for (size_t i = 0; i < list->n; i++) {
        JINJA_TRY(jinja_put_text(j, b, i > 0 ? ", " : ""));
        JINJA_TRY(jinja_repr(j, b, list->items[i]));
    }
    if (tuple) {
        return jinja_put_text(j, b, list->n == 1 ? ",)" : ")");
    }
    return jinja_put_text(j, b, list->flavor == JINJA_PLAIN ? "]" : "])");
}

static enum status repr_dict(struct jinja *j, struct jinja_builder *b,
                             const struct jinja_dict *dict)
{
    JINJA_TRY(jinja_put_c(j, b, '{'));
    for (size_t i = 0; i < dict->n; i++) {
        JINJA_TRY(jinja_put_text(j, b, i > 0 ? ", " : ""));
        JINJA_TRY(jinja_repr(j, b, dict->pairs[i].key));
        JINJA_TRY(jinja_put_text(j, b, ": "));
        JINJA_TRY(jinja_repr(j, b, dict->pairs[i].value));
    }
    return jinja_put_c(j, b, '}');
}

static enum status repr_scalar(struct jinja *j, struct jinja_builder *b, struct jinja_value value)
{
    char text[JINJA_REAL_TEXT];
    switch (value.kind) {
    case JINJA_NONE:
        return jinja_put_text(j, b, "None");
    case JINJA_BOOL:
        return jinja_put_text(j, b, value.truth ? "True" : "False");
    case JINJA_INT:
        (void)snprintf(text, sizeof text, "%lld", (long long)value.integer);
        return jinja_put_text(j, b, text);
    case JINJA_FLOAT:
        jinja_real_text(value.real, text);
        return jinja_put_text(j, b, text);
    case JINJA_UNDEFINED:
        return jinja_put_text(j, b, "Undefined");
    default:
        return jinja_fail(j, STATUS_UNSUPPORTED, "a '%s' cannot be printed",
                          jinja_type_name(value));
    }
}

enum status jinja_repr(struct jinja *j, struct jinja_builder *b, struct jinja_value value)
{
    JINJA_TRY(jinja_enter(j));
    enum status status;
    switch (value.kind) {
    case JINJA_STRING:
        status = repr_string(j, b, value.text);
        break;
    case JINJA_LIST:
    case JINJA_TUPLE:
        status = repr_list(j, b, value);
        break;
    case JINJA_DICT:
        status = repr_dict(j, b, value.dict);
        break;
    case JINJA_NAMESPACE:
        JINJA_TRY(jinja_put_text(j, b, "<Namespace "));
        JINJA_TRY(repr_dict(j, b, value.dict));
        status = jinja_put_c(j, b, '>');
        break;
    default:
        status = repr_scalar(j, b, value);
        break;
    }
    jinja_leave(j);
    return status;
}

enum status jinja_show(struct jinja *j, struct jinja_builder *b, struct jinja_value value)
{
    if (value.kind == JINJA_STRING) {
        return jinja_put(j, b, value.text.data, value.text.n);
    }
    return value.kind == JINJA_UNDEFINED ? STATUS_OK : jinja_repr(j, b, value);
}

enum status jinja_to_text(struct jinja *j, struct jinja_value value, struct jinja_text *out)
{
    struct jinja_builder b = {0};
    JINJA_TRY(jinja_show(j, &b, value));
    *out = value.kind == JINJA_STRING ? value.text : jinja_built(&b).text;
    return STATUS_OK;
}
