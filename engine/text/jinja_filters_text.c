/* Filters that give text or numbers. */
#include "engine/text/jinja_value.h"
#include "engine/text/utf8.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define FILTER(name)                                                                               \
    static enum status filter_##name(                                                              \
        __attribute__((unused)) struct jinja *j, __attribute__((unused)) struct jinja_value self,  \
        __attribute__((unused)) const struct jinja_value *args,                                    \
        __attribute__((unused)) const struct jinja_call *call, struct jinja_value *out)

FILTER(string)
{
    struct jinja_text text;
    JINJA_TRY(jinja_to_text(j, self, &text));
    *out = jinja_string(text.data, text.n);
    return STATUS_OK;
}

FILTER(default)
{
    bool by_truth = jinja_given(args[1]) && jinja_truth(args[1]);
    bool missing = self.kind == JINJA_UNDEFINED || (by_truth && !jinja_truth(self));
    *out = !missing ? self : jinja_given(args[0]) ? args[0] : jinja_string("", 0);
    return STATUS_OK;
}

FILTER(lower)
{
    struct jinja_text text;
    JINJA_TRY(jinja_to_text(j, self, &text));
    return jinja_lower(j, text, out);
}

FILTER(upper)
{
    struct jinja_text text;
    JINJA_TRY(jinja_to_text(j, self, &text));
    return jinja_upper(j, text, out);
}

/* The first character of every word up, the others down; words begin behind blanks, "-" and opening
 * brackets (this filter's rule, not that of the method of the same name). */
FILTER(title)
{
    struct jinja_text text;
    struct jinja_builder b = {0};
    bool start = true;
    JINJA_TRY(jinja_to_text(j, self, &text));
    for (size_t at = 0; at < text.n;) {
        uint32_t code;
        at += utf8_decode(text.data + at, text.n - at, &code);
        bool between = utf8_is_space(code) || (code < 0x80 && strchr("-({[<", (int)code) != NULL);
        utf8proc_int32_t letter = (utf8proc_int32_t)code;
        letter = start ? utf8proc_totitle(letter) : utf8proc_tolower(letter);
        JINJA_TRY(jinja_put_code(j, &b, (uint32_t)letter));
        JINJA_TRY(jinja_work(j, 1));
        start = between;
    }
    *out = jinja_built(&b);
    return STATUS_OK;
}

FILTER(capitalize)
{
    struct jinja_text text;
    struct jinja_value head, tail;
    struct jinja_builder b = {0};
    uint32_t code;
    JINJA_TRY(jinja_to_text(j, self, &text));
    size_t n = utf8_decode(text.data, text.n, &code);
    JINJA_TRY(jinja_upper(j, (struct jinja_text){text.data, n}, &head));
    JINJA_TRY(jinja_lower(j, (struct jinja_text){text.data + n, text.n - n}, &tail));
    JINJA_TRY(jinja_show(j, &b, head));
    JINJA_TRY(jinja_show(j, &b, tail));
    *out = jinja_built(&b);
    return STATUS_OK;
}

FILTER(trim)
{
    struct jinja_text text, set = {NULL, 0};
    JINJA_TRY(jinja_to_text(j, self, &text));
    if (jinja_given(args[0]) && args[0].kind != JINJA_NONE) {
        JINJA_TRY(jinja_want_text(j, args[0], "the argument of trim", &set));
    }
    JINJA_TRY(jinja_work(j, text.n / 64));
    text = jinja_strip(text, set, true, true);
    *out = jinja_string(text.data, text.n);
    return STATUS_OK;
}

FILTER(replace)
{
    struct jinja_text text, old, replacement;
    int64_t most = -1;
    JINJA_TRY(jinja_to_text(j, self, &text));
    JINJA_TRY(jinja_to_text(j, args[0], &old));
    JINJA_TRY(jinja_to_text(j, args[1], &replacement));
    if (jinja_given(args[2]) && args[2].kind != JINJA_NONE) {
        JINJA_TRY(jinja_want_int(j, args[2], "the count of replace", &most));
    }
    return jinja_replace(j, text, old, replacement, most, out);
}

FILTER(escape)
{
    static const struct {
        char c;
        const char *entity;
    } entities[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'\'', "&#39;"}, {'"', "&#34;"}};
    struct jinja_text text;
    struct jinja_builder b = {0};
    JINJA_TRY(jinja_to_text(j, self, &text));
    for (size_t i = 0; i < text.n; i++) {
        const char *entity = NULL;
        for (size_t k = 0; k < COUNT_OF(entities); k++) {
            entity = text.data[i] == entities[k].c ? entities[k].entity : entity;
        }
        JINJA_TRY(entity != NULL ? jinja_put_text(j, &b, entity)
                                 : jinja_put_c(j, &b, text.data[i]));
    }
    JINJA_TRY(jinja_work(j, text.n / 8));
    *out = jinja_built(&b);
    return STATUS_OK;
}

FILTER(format)
{
    struct jinja_text format;
    struct jinja_value values;
    JINJA_TRY(jinja_to_text(j, self, &format));
    if (call->n_named > 0) {
        JINJA_TRY(jinja_dict_new(j, &values));
        for (size_t i = 0; i < call->n_named; i++) {
            JINJA_TRY(
                jinja_dict_set(j, values.dict, jinja_string_c(call->names[i]), call->named[i]));
        }
    } else {
        JINJA_TRY(jinja_list_new(j, JINJA_TUPLE, call->n, &values));
        for (size_t i = 0; i < call->n; i++) {
            JINJA_TRY(jinja_list_add(j, values.list, call->args[i]));
        }
    }
    return jinja_percent(j, format, values, out);
}

/* Every line but the first is indented (that too with `first`), empty ones only with `blank`. */
FILTER(indent)
{
    struct jinja_text text, unit = {" ", 1};
    struct jinja_builder b = {0};
    int64_t width = 4;
    JINJA_TRY(jinja_want_text(j, self, "the value of indent", &text));
    if (jinja_given(args[0]) && args[0].kind == JINJA_STRING) {
        unit = args[0].text;
        width = 1;
    } else if (jinja_given(args[0])) {
        JINJA_TRY(jinja_want_int(j, args[0], "the width of indent", &width));
    }
    width = width < 0 ? 0 : width;
    bool first = jinja_given(args[1]) && jinja_truth(args[1]);
    bool blank = jinja_given(args[2]) && jinja_truth(args[2]);
    if (first) {
        JINJA_TRY(jinja_put_repeated(j, &b, unit, (size_t)width));
    }
    struct jinja_value lines;
    struct jinja_call none = {0};
    struct jinja_value keep = {.kind = JINJA_ABSENT};
    const struct jinja_builtin *split =
        jinja_builtin_find(jinja_methods_string, (struct jinja_text){"splitlines", 10});
    JINJA_TRY(split->run(j, jinja_string(text.data, text.n), &keep, &none, &lines));
    bool ends = text.n > 0 && text.data[text.n - 1] == '\n';
    for (size_t i = 0; i < lines.list->n + ends; i++) {
        struct jinja_text line =
            i < lines.list->n ? lines.list->items[i].text : (struct jinja_text){"", 0};
        if (i > 0) {
            JINJA_TRY(jinja_put_c(j, &b, '\n'));
            if (blank || line.n > 0) {
                JINJA_TRY(jinja_put_repeated(j, &b, unit, (size_t)width));
            }
        }
        JINJA_TRY(jinja_put(j, &b, line.data, line.n));
    }
    *out = jinja_built(&b);
    return STATUS_OK;
}

FILTER(center)
{
    struct jinja_text text;
    struct jinja_builder b = {0};
    int64_t width = 80;
    JINJA_TRY(jinja_to_text(j, self, &text));
    if (jinja_given(args[0])) {
        JINJA_TRY(jinja_want_int(j, args[0], "the width of center", &width));
    }
    int64_t pad = width - (int64_t)utf8_count(text.data, text.n);
    pad = pad < 0 ? 0 : pad;
    int64_t left = pad / 2 + (pad & width & 1); /* as Python splits an odd rest */
    JINJA_TRY(jinja_put_repeated(j, &b, (struct jinja_text){" ", 1}, (size_t)left));
    JINJA_TRY(jinja_put(j, &b, text.data, text.n));
    JINJA_TRY(jinja_put_repeated(j, &b, (struct jinja_text){" ", 1}, (size_t)(pad - left)));
    *out = jinja_built(&b);
    return STATUS_OK;
}

FILTER(truncate)
{
    struct jinja_text text, end = {"...", 3};
    int64_t length = 255, leeway = 5;
    if (jinja_given(args[0])) {
        JINJA_TRY(jinja_want_int(j, args[0], "the length of truncate", &length));
    }
    if (jinja_given(args[2])) {
        JINJA_TRY(jinja_want_text(j, args[2], "the end of truncate", &end));
    }
    if (jinja_given(args[3]) && args[3].kind != JINJA_NONE) {
        JINJA_TRY(jinja_want_int(j, args[3], "the leeway of truncate", &leeway));
    }
    int64_t n_end = (int64_t)utf8_count(end.data, end.n);
    if (length < n_end || length > INT32_MAX || leeway < 0 || leeway > INT32_MAX) {
        return jinja_fail(j, STATUS_INVALID, "truncate: length or leeway out of range");
    }
    size_t all;
    JINJA_TRY(jinja_length(j, self, &all));
    *out = self;
    if ((int64_t)all <= length + leeway) { /* also of a list that is short enough */
        return STATUS_OK;
    }
    JINJA_TRY(jinja_want_text(j, self, "the value of truncate", &text));
    text.n = utf8_offset(text.data, text.n, (size_t)(length - n_end));
    if (!(jinja_given(args[1]) && jinja_truth(args[1]))) {
        size_t space = jinja_find_last(text, (struct jinja_text){" ", 1});
        text.n = space != SIZE_MAX ? space : text.n;
    }
    struct jinja_builder b = {0};
    JINJA_TRY(jinja_put(j, &b, text.data, text.n));
    JINJA_TRY(jinja_put(j, &b, end.data, end.n));
    *out = jinja_built(&b);
    return STATUS_OK;
}

static bool word_character(uint32_t code)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)code);
    return code == '_' || (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO) ||
           (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO);
}

FILTER(wordcount)
{
    struct jinja_text text;
    int64_t count = 0;
    bool inside = false;
    JINJA_TRY(jinja_to_text(j, self, &text));
    JINJA_TRY(jinja_work(j, text.n / 8));
    for (size_t at = 0; at < text.n;) {
        uint32_t code;
        at += utf8_decode(text.data + at, text.n - at, &code);
        bool word = word_character(code);
        count += word && !inside;
        inside = word;
    }
    *out = jinja_int(count);
    return STATUS_OK;
}

static enum status percent_encode(struct jinja *j, struct jinja_builder *b, struct jinja_text text,
                                  const char *safe)
{
    for (size_t i = 0; i < text.n; i++) {
        uint8_t c = (uint8_t)text.data[i];
        bool plain = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
                     (c != 0 && strchr("_.-~", c) != NULL) || (c != 0 && strchr(safe, c) != NULL);
        char code[4];
        (void)snprintf(code, sizeof code, c == ' ' && safe[0] == '\0' ? "+" : "%%%02X", c);
        JINJA_TRY(plain ? jinja_put_c(j, b, (char)c) : jinja_put_text(j, b, code));
    }
    return jinja_work(j, text.n / 8);
}

FILTER(urlencode)
{
    struct jinja_builder b = {0};
    struct jinja_text text;
    if (self.kind != JINJA_DICT) {
        JINJA_TRY(jinja_to_text(j, self, &text));
        JINJA_TRY(percent_encode(j, &b, text, "/"));
    }
    for (size_t i = 0; self.kind == JINJA_DICT && i < self.dict->n; i++) {
        JINJA_TRY(jinja_put_text(j, &b, i > 0 ? "&" : ""));
        JINJA_TRY(jinja_to_text(j, self.dict->pairs[i].key, &text));
        JINJA_TRY(percent_encode(j, &b, text, ""));
        JINJA_TRY(jinja_put_c(j, &b, '='));
        JINJA_TRY(jinja_to_text(j, self.dict->pairs[i].value, &text));
        JINJA_TRY(percent_encode(j, &b, text, ""));
    }
    *out = jinja_built(&b);
    return STATUS_OK;
}

FILTER(abs)
{
    int64_t integer;
    if (jinja_as_int(self, &integer)) {
        if (integer == INT64_MIN) {
            return jinja_fail(j, STATUS_UNSUPPORTED, "an integer past 64 bits");
        }
        *out = jinja_int(integer < 0 ? -integer : integer);
        return STATUS_OK;
    }
    if (self.kind != JINJA_FLOAT) {
        return jinja_fail(j, STATUS_INVALID, "bad operand type for abs(): '%s'",
                          jinja_type_name(self));
    }
    *out = jinja_float(fabs(self.real));
    return STATUS_OK;
}

/* "common" rounds the exact binary value half to even at the decimal, as Python does: printf with
 * that many decimals is correctly rounded. */
static double round_common(double value, int64_t precision)
{
    char text[512];
    if (!isfinite(value) || precision > 300 || precision < -300) {
        return precision < -300 ? 0.0 : value;
    }
    if (precision >= 0) {
        (void)snprintf(text, sizeof text, "%.*f", (int)precision, value);
        return strtod(text, NULL);
    }
    double unit = pow(10.0, (double)-precision);
    return nearbyint(value / unit) * unit;
}

FILTER(round)
{
    int64_t precision = 0, integer;
    double value;
    struct jinja_text method = {"common", 6};
    if (jinja_given(args[0])) {
        JINJA_TRY(jinja_want_int(j, args[0], "the precision of round", &precision));
    }
    if (jinja_given(args[1])) {
        JINJA_TRY(jinja_want_text(j, args[1], "the method of round", &method));
    }
    if (!jinja_as_real(self, &value)) {
        return jinja_fail(j, STATUS_INVALID, "'%s' cannot be rounded", jinja_type_name(self));
    }
    if (jinja_text_is(method, "common")) {
        bool whole = jinja_as_int(self, &integer);
        *out = whole && precision >= 0 ? jinja_int(integer)
               : whole                 ? jinja_int((int64_t)round_common(value, precision))
                                       : jinja_float(round_common(value, precision));
        return STATUS_OK;
    }
    bool up = jinja_text_is(method, "ceil");
    if (!up && !jinja_text_is(method, "floor")) {
        return jinja_fail(j, STATUS_INVALID, "method must be common, ceil or floor");
    }
    double unit = pow(10.0, (double)precision);
    *out = jinja_float((up ? ceil(value * unit) : floor(value * unit)) / unit);
    return STATUS_OK;
}

/* A number from the whole of a string, as Python's int(s, base); false where it is none. */
static bool text_to_int(struct jinja_text text, int64_t base, int64_t *out)
{
    char copy[80];
    size_t n = 0;
    text = jinja_strip(text, (struct jinja_text){NULL, 0}, true, true);
    for (size_t i = 0; i < text.n; i++) {
        bool between = text.data[i] == '_' && i > 0 && i + 1 < text.n && text.data[i + 1] != '_';
        if (between) {
            continue;
        }
        if (n + 1 == sizeof copy || text.data[i] == '\0' || text.data[i] == ' ') {
            return false;
        }
        copy[n++] = text.data[i];
    }
    copy[n] = '\0';
    char *from = copy, *end;
    size_t sign = copy[0] == '-' || copy[0] == '+';
    char mark = n > sign + 2 && copy[sign] == '0' ? (char)(copy[sign + 1] | 0x20) : '\0';
    if ((base == 2 && mark == 'b') || (base == 8 && mark == 'o')) {
        memmove(copy + sign, copy + sign + 2, n - sign - 1);
    }
    errno = 0;
    *out = strtoll(from, &end, (int)base);
    return n > sign && *end == '\0' && errno == 0;
}

static bool text_to_real(struct jinja_text text, double *out)
{
    char copy[400], *end;
    text = jinja_strip(text, (struct jinja_text){NULL, 0}, true, true);
    if (text.n == 0 || text.n >= sizeof copy || memchr(text.data, '\0', text.n) != NULL ||
        memchr(text.data, 'x', text.n) != NULL || memchr(text.data, 'X', text.n) != NULL) {
        return false;
    }
    memcpy(copy, text.data, text.n);
    copy[text.n] = '\0';
    *out = strtod(copy, &end);
    return *end == '\0';
}

FILTER(int)
{
    int64_t base = 10, integer;
    double real = NAN;
    if (jinja_given(args[1])) {
        JINJA_TRY(jinja_want_int(j, args[1], "the base of int", &base));
    }
    if (base != 0 && (base < 2 || base > 36)) {
        return jinja_fail(j, STATUS_INVALID, "int() base must be >= 2 and <= 36, or 0");
    }
    *out = jinja_given(args[0]) ? args[0] : jinja_int(0);
    if (self.kind == JINJA_UNDEFINED) {
        return jinja_fail(j, STATUS_INVALID, "'%.*s' is undefined",
                          (int)(self.text.n < 80 ? self.text.n : 80), self.text.data);
    }
    if (jinja_as_int(self, &integer) ||
        (self.kind == JINJA_STRING && text_to_int(self.text, base, &integer))) {
        *out = jinja_int(integer);
        return STATUS_OK;
    }
    if (self.kind == JINJA_FLOAT || (self.kind == JINJA_STRING && text_to_real(self.text, &real))) {
        real = self.kind == JINJA_FLOAT ? self.real : real;
        if (fabs(real) < 0x1p63) { /* false for NaN */
            *out = jinja_int((int64_t)real);
        } else if (isfinite(real)) {
            return jinja_fail(j, STATUS_UNSUPPORTED, "an integer past 64 bits");
        }
    }
    return STATUS_OK;
}

FILTER(float)
{
    double real;
    if (self.kind == JINJA_UNDEFINED) {
        return jinja_fail(j, STATUS_INVALID, "'%.*s' is undefined",
                          (int)(self.text.n < 80 ? self.text.n : 80), self.text.data);
    }
    bool number =
        jinja_as_real(self, &real) || (self.kind == JINJA_STRING && text_to_real(self.text, &real));
    *out = number ? jinja_float(real) : jinja_given(args[0]) ? args[0] : jinja_float(0.0);
    return STATUS_OK;
}

static enum status separators_read(struct jinja *j, struct jinja_value given,
                                   struct jinja_json_style *style)
{
    struct jinja_list *pair;
    const char **targets[] = {&style->item_separator, &style->key_separator};
    JINJA_TRY(jinja_walk(j, given, &pair));
    if (pair->n != 2) {
        return jinja_fail(j, STATUS_INVALID, "tojson: separators must be a pair");
    }
    for (size_t i = 0; i < 2; i++) {
        struct jinja_text text;
        struct jinja_builder b = {0};
        JINJA_TRY(jinja_want_text(j, pair->items[i], "a separator of tojson", &text));
        JINJA_TRY(jinja_put(j, &b, text.data, text.n));
        JINJA_TRY(jinja_put_c(j, &b, '\0'));
        *targets[i] = b.data;
    }
    return STATUS_OK;
}

FILTER(tojson)
{
    struct jinja_json_style style = {.item_separator = ", ", .key_separator = ": "};
    struct jinja_builder b = {0}, indent = {0};
    int64_t width;
    style.ascii = jinja_given(args[0]) && jinja_truth(args[0]);
    style.sorted = jinja_given(args[3]) && jinja_truth(args[3]);
    if (jinja_given(args[1]) && args[1].kind != JINJA_NONE) {
        style.item_separator = ",";
        if (args[1].kind == JINJA_STRING) {
            style.indent = args[1].text;
        } else {
            JINJA_TRY(jinja_want_int(j, args[1], "the indent of tojson", &width));
            width = width < 0 ? 0 : width;
            JINJA_TRY(jinja_put_repeated(j, &indent, (struct jinja_text){" ", 1}, (size_t)width));
            style.indent = jinja_built(&indent).text;
        }
    }
    if (jinja_given(args[2]) && args[2].kind != JINJA_NONE) {
        JINJA_TRY(separators_read(j, args[2], &style));
    }
    JINJA_TRY(jinja_to_json(j, &b, self, &style));
    *out = jinja_built(&b);
    return STATUS_OK;
}

const struct jinja_builtin jinja_filters_text[] = {
    {"abs", "", filter_abs},
    {"capitalize", "", filter_capitalize},
    {"center", "?width", filter_center},
    {"d", "?default_value ?boolean", filter_default},
    {"default", "?default_value ?boolean", filter_default},
    {"e", "", filter_escape},
    {"escape", "", filter_escape},
    {"float", "?default", filter_float},
    {"forceescape", "", filter_escape},
    {"format", "*", filter_format},
    {"indent", "?width ?first ?blank", filter_indent},
    {"int", "?default ?base", filter_int},
    {"lower", "", filter_lower},
    {"replace", "old new ?count", filter_replace},
    {"round", "?precision ?method", filter_round},
    {"safe", "", filter_string},
    {"string", "", filter_string},
    {"title", "", filter_title},
    {"tojson", "?ensure_ascii ?indent ?separators ?sort_keys", filter_tojson},
    {"trim", "?chars", filter_trim},
    {"truncate", "?length ?killwords ?end ?leeway", filter_truncate},
    {"upper", "", filter_upper},
    {"urlencode", "", filter_urlencode},
    {"wordcount", "", filter_wordcount},
    {"filesizeformat", "*", NULL},
    {"pprint", "*", NULL},
    {"random", "*", NULL},
    {"striptags", "*", NULL},
    {"urlize", "*", NULL},
    {"wordwrap", "*", NULL},
    {"xmlattr", "*", NULL},
    {NULL, NULL, NULL},
};
