/* The two ways in which Python formats: "%05.1f" % x and "{:>8}".format(x). Conversions go through
 * printf with a checked specification, so width and precision are bounded. */
#include "engine/text/jinja_value.h"
#include "engine/text/utf8.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_WIDTH = 400, NUMBER_ROOM = 1200 };

struct spec {
    bool left, plus, space, zero, alternate, comma;
    char align; /* '<', '>', '^', '=' or 0 */
    char fill[4];
    size_t n_fill;
    int width, precision; /* -1: not given */
    char conversion;
};

static bool spec_number(struct jinja_text text, size_t *at, int *out)
{
    int value = 0;
    size_t start = *at;
    while (*at < text.n && text.data[*at] >= '0' && text.data[*at] <= '9') {
        value = value * 10 + (text.data[(*at)++] - '0');
        if (value > MAX_WIDTH) {
            return false;
        }
    }
    *out = *at > start ? value : *out;
    return true;
}

static enum status pad(struct jinja *j, struct jinja_builder *b, struct jinja_text text,
                       const struct spec *spec, char usual)
{
    int n = (int)utf8_count(text.data, text.n);
    int all = spec->width > n ? spec->width - n : 0;
    char align = spec->align != 0 ? spec->align : usual;
    int left = align == '<' ? 0 : align == '^' ? all / 2 : all;
    struct jinja_text fill = {spec->n_fill > 0 ? spec->fill : " ",
                              spec->n_fill > 0 ? spec->n_fill : 1};
    size_t sign = align == '=' && text.n > 0 && strchr("+- ", text.data[0]) != NULL ? 1 : 0;
    JINJA_TRY(jinja_put(j, b, text.data, sign));
    JINJA_TRY(jinja_put_repeated(j, b, fill, (size_t)left));
    JINJA_TRY(jinja_put(j, b, text.data + sign, text.n - sign));
    return jinja_put_repeated(j, b, fill, (size_t)(all - left));
}

/* "1234567.5" -> "1,234,567.5" in place; room for it is given. */
static void group_thousands(char *text)
{
    char *digits = text + strspn(text, "+- ");
    size_t n = strspn(digits, "0123456789");
    for (size_t at = n; at > 3;) {
        at -= 3;
        memmove(digits + at + 1, digits + at, strlen(digits + at) + 1);
        digits[at] = ',';
    }
}

static enum status number_text(struct jinja *j, struct jinja_value value, const struct spec *spec,
                               char out[static NUMBER_ROOM])
{
    char format[16];
    int64_t integer;
    double real = 0.0;
    const char *sign = spec->plus ? "+" : spec->space ? " " : "";
    bool whole = strchr("dioxXbcu", spec->conversion) != NULL;
    if (!jinja_as_real(value, &real) ||
        (whole && value.kind == JINJA_FLOAT && fabs(real) >= 0x1p63)) {
        return jinja_fail(j, STATUS_INVALID, "a number is required for '%%%c', not '%s'",
                          spec->conversion, jinja_type_name(value));
    }
    if (!whole) {
        int precision = spec->precision < 0 ? 6 : spec->precision;
        (void)snprintf(format, sizeof format, "%%%s%s.*%c", sign, spec->alternate ? "#" : "",
                       spec->conversion == '%' ? 'f' : spec->conversion);
        real = spec->conversion == '%' ? real * 100.0 : real;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        int n = snprintf(out, NUMBER_ROOM - 2, format, precision, real);
#pragma GCC diagnostic pop
        if (n < 0 || n >= NUMBER_ROOM - 2) {
            return jinja_fail(j, STATUS_LIMIT, "a formatted number is too long");
        }
        if (spec->conversion == '%') {
            memcpy(out + n, "%", 2);
        }
        return STATUS_OK;
    }
    integer = value.kind == JINJA_FLOAT ? (int64_t)real : (jinja_as_int(value, &integer), integer);
    uint64_t magnitude = integer < 0 ? 0 - (uint64_t)integer : (uint64_t)integer;
    char digits[80];
    if (spec->conversion == 'b') {
        size_t n = 0;
        char turned[80];
        for (; magnitude > 0 || n == 0; magnitude >>= 1) {
            turned[n++] = (char)('0' + (magnitude & 1));
        }
        for (size_t i = 0; i < n; i++) {
            digits[i] = turned[n - 1 - i];
        }
        digits[n] = '\0';
    } else if (strchr("xXo", spec->conversion) != NULL) {
        const char *formats[] = {"%llx", "%llX", "%llo"};
        int which = spec->conversion == 'x' ? 0 : spec->conversion == 'X' ? 1 : 2;
        (void)snprintf(digits, sizeof digits, formats[which], (unsigned long long)magnitude);
    } else {
        (void)snprintf(digits, sizeof digits, "%0*llu",
                       spec->precision > 0 && spec->precision < 60 ? spec->precision : 1,
                       (unsigned long long)magnitude);
    }
    const char *prefix = !spec->alternate          ? ""
                         : spec->conversion == 'x' ? "0x"
                         : spec->conversion == 'X' ? "0X"
                         : spec->conversion == 'o' ? "0o"
                         : spec->conversion == 'b' ? "0b"
                                                   : "";
    (void)snprintf(out, NUMBER_ROOM, "%s%s%s", integer < 0 ? "-" : sign, prefix, digits);
    return STATUS_OK;
}

static enum status put_number(struct jinja *j, struct jinja_builder *b, struct jinja_value value,
                              const struct spec *spec)
{
    char text[NUMBER_ROOM];
    JINJA_TRY(number_text(j, value, spec, text));
    if (spec->comma) {
        group_thousands(text);
    }
    return pad(j, b, (struct jinja_text){text, strlen(text)}, spec, '>');
}

static enum status put_text(struct jinja *j, struct jinja_builder *b, struct jinja_text text,
                            const struct spec *spec, char usual)
{
    if (spec->precision >= 0) {
        text.n = utf8_offset(text.data, text.n, (size_t)spec->precision);
    }
    return pad(j, b, text, spec, usual);
}

static enum status percent_put(struct jinja *j, struct jinja_builder *b, struct jinja_value value,
                               const struct spec *spec)
{
    struct jinja_builder text = {0};
    switch (spec->conversion) {
    case 's':
        JINJA_TRY(jinja_show(j, &text, value));
        return put_text(j, b, jinja_built(&text).text, spec, '>');
    case 'r':
        JINJA_TRY(jinja_repr(j, &text, value));
        return put_text(j, b, jinja_built(&text).text, spec, '>');
    case 'c':
        if (value.kind == JINJA_INT && value.integer >= 0 && value.integer <= 0x10ffff) {
            JINJA_TRY(jinja_put_code(j, &text, (uint32_t)value.integer));
        } else {
            struct jinja_text one;
            JINJA_TRY(jinja_want_text(j, value, "the value of %c", &one));
            JINJA_TRY(jinja_put(j, &text, one.data, one.n));
        }
        return put_text(j, b, jinja_built(&text).text, spec, '>');
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o':
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        return put_number(j, b, value, spec);
    default:
        return jinja_fail(j, STATUS_INVALID, "unsupported format character '%c'",
                          spec->conversion >= ' ' ? spec->conversion : '?');
    }
}

struct percent {
    struct jinja_text format;
    size_t at;
    struct jinja_value args;
    size_t used;
};

static enum status percent_next(struct jinja *j, struct percent *p, struct jinja_value *out)
{
    size_t n = p->args.kind == JINJA_TUPLE ? p->args.list->n : 1;
    if (p->used >= n) {
        return jinja_fail(j, STATUS_INVALID, "not enough arguments for format string");
    }
    *out = p->args.kind == JINJA_TUPLE ? p->args.list->items[p->used] : p->args;
    p->used++;
    return STATUS_OK;
}

static enum status percent_spec(struct jinja *j, struct percent *p, struct spec *spec)
{
    const struct jinja_text f = p->format;
    *spec = (struct spec){.width = -1, .precision = -1};
    for (; p->at < f.n; p->at++) {
        char c = f.data[p->at];
        bool known = c == '-' || c == '+' || c == ' ' || c == '0' || c == '#';
        if (!known) {
            break;
        }
        spec->left |= c == '-';
        spec->plus |= c == '+';
        spec->space |= c == ' ';
        spec->zero |= c == '0';
        spec->alternate |= c == '#';
    }
    bool good = spec_number(f, &p->at, &spec->width);
    if (good && p->at < f.n && f.data[p->at] == '.') {
        p->at++;
        spec->precision = 0;
        good = spec_number(f, &p->at, &spec->precision);
    }
    if (!good) {
        return jinja_fail(j, STATUS_LIMIT, "a width or precision past %d", MAX_WIDTH);
    }
    if (p->at >= f.n) {
        return jinja_fail(j, STATUS_INVALID, "incomplete format");
    }
    spec->conversion = f.data[p->at++];
    if (spec->left) {
        spec->align = '<';
    } else if (spec->zero && strchr("srac", spec->conversion) == NULL) {
        spec->align = '=';
        spec->fill[0] = '0';
        spec->n_fill = 1;
    }
    return STATUS_OK;
}

static enum status percent_key(struct jinja *j, struct percent *p, struct jinja_value *value,
                               bool *given)
{
    struct jinja_value *found;
    *given = p->at < p->format.n && p->format.data[p->at] == '(';
    if (!*given) {
        return STATUS_OK;
    }
    const char *start = p->format.data + p->at + 1;
    const char *end = memchr(start, ')', p->format.n - p->at - 1);
    if (end == NULL || p->args.kind != JINJA_DICT) {
        return jinja_fail(j, STATUS_INVALID, "format requires a mapping");
    }
    p->at = (size_t)(end - p->format.data) + 1;
    p->used = 1;
    JINJA_TRY(jinja_dict_get(j, p->args.dict, jinja_string(start, (size_t)(end - start)), &found));
    if (found == NULL) {
        return jinja_fail(j, STATUS_INVALID, "the format names a key that is missing");
    }
    *value = *found;
    return STATUS_OK;
}

enum status jinja_percent(struct jinja *j, struct jinja_text format, struct jinja_value args,
                          struct jinja_value *out)
{
    struct jinja_builder b = {0};
    struct percent p = {.format = format, .args = args};
    while (p.at < format.n) {
        const char *mark = memchr(format.data + p.at, '%', format.n - p.at);
        size_t end = mark == NULL ? format.n : (size_t)(mark - format.data);
        struct spec spec;
        struct jinja_value value = jinja_none();
        bool keyed;
        JINJA_TRY(jinja_put(j, &b, format.data + p.at, end - p.at));
        p.at = end + 1;
        if (mark == NULL) {
            break;
        }
        JINJA_TRY(percent_key(j, &p, &value, &keyed));
        JINJA_TRY(percent_spec(j, &p, &spec));
        if (spec.conversion == '%') {
            JINJA_TRY(jinja_put_c(j, &b, '%'));
            continue;
        }
        if (!keyed) {
            JINJA_TRY(percent_next(j, &p, &value));
        }
        JINJA_TRY(percent_put(j, &b, value, &spec));
    }
    bool keyless = args.kind != JINJA_DICT && args.kind != JINJA_LIST;
    size_t n = args.kind == JINJA_TUPLE ? args.list->n : keyless;
    if (p.used < n) {
        return jinja_fail(j, STATUS_INVALID,
                          "not all arguments converted during string formatting");
    }
    *out = jinja_built(&b);
    return STATUS_OK;
}

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static enum status brace_spec(struct jinja *j, struct jinja_text text, struct spec *spec)
{
    size_t at = 0;
    uint32_t code;
    *spec = (struct spec){.width = -1, .precision = -1};
    size_t first = utf8_decode(text.data, text.n, &code);
    if (first < text.n && strchr("<>^=", text.data[first]) != NULL) {
        memcpy(spec->fill, text.data, first);
        spec->n_fill = first;
        spec->align = text.data[first];
        at = first + 1;
    } else if (text.n > 0 && text.data[0] != '\0' && strchr("<>^=", text.data[0]) != NULL) {
        spec->align = text.data[at++];
    }
    if (at < text.n && (text.data[at] == '+' || text.data[at] == '-' || text.data[at] == ' ')) {
        spec->plus = text.data[at] == '+';
        spec->space = text.data[at] == ' ';
        at++;
    }
    if (at < text.n && text.data[at] == '#') {
        spec->alternate = true;
        at++;
    }
    if (at < text.n && text.data[at] == '0' && spec->align == 0) {
        spec->align = '=';
        spec->fill[0] = '0';
        spec->n_fill = 1;
        at++;
    }
    bool good = spec_number(text, &at, &spec->width);
    if (at < text.n && text.data[at] == ',') {
        spec->comma = true;
        at++;
    }
    if (good && at < text.n && text.data[at] == '.') {
        at++;
        good = spec_number(text, &at, &spec->precision);
    }
    spec->conversion = at < text.n ? text.data[at++] : '\0';
    if (!good || at < text.n) {
        return jinja_fail(j, STATUS_UNSUPPORTED, "the format '%.*s'",
                          (int)(text.n < 40 ? text.n : 40), text.data);
    }
    return STATUS_OK;
}

static enum status brace_put(struct jinja *j, struct jinja_builder *b, struct jinja_value value,
                             struct spec *spec)
{
    struct jinja_text text;
    bool number = value.kind == JINJA_INT || value.kind == JINJA_FLOAT ||
                  (value.kind == JINJA_BOOL && spec->conversion != '\0');
    bool plain = spec->conversion == '\0' && spec->precision < 0 && !spec->comma && !spec->plus;
    if (number && value.kind != JINJA_FLOAT && spec->conversion == '\0') {
        spec->conversion = 'd';
    } else if (number && !plain && spec->conversion == '\0') {
        spec->conversion = spec->precision < 0 ? 'f' : 'g';
    }
    if (number && spec->conversion != '\0' && strchr("dxXobeEfFgG%", spec->conversion) != NULL) {
        return put_number(j, b, value, spec);
    }
    JINJA_TRY(jinja_to_text(j, value, &text));
    if (spec->conversion != '\0' && spec->conversion != 's') {
        return jinja_fail(j, STATUS_INVALID, "Unknown format code '%c' for '%s'",
                          spec->conversion >= ' ' ? spec->conversion : '?', jinja_type_name(value));
    }
    return put_text(j, b, text, spec, number ? '>' : '<');
}

/* The value that "0", "name" or "" (the next one), with ".attribute" and "[key]" behind, stands
 * for. */
static enum status brace_value(struct jinja *j, struct jinja_text field,
                               const struct jinja_call *call, size_t *next, struct jinja_value *out)
{
    size_t n = 0;
    while (n < field.n && field.data[n] != '.' && field.data[n] != '[') {
        n++;
    }
    struct jinja_text name = {field.data, n};
    int index = -1;
    size_t at = 0;
    bool found = false;
    if (n > 0 && spec_number(name, &at, &index) && at == n) {
        found = (size_t)index < call->n;
        *out = found ? call->args[index] : jinja_none();
    } else if (n == 0) {
        found = *next < call->n;
        *out = found ? call->args[(*next)++] : jinja_none();
    }
    for (size_t i = 0; i < call->n_named && !found && n > 0; i++) {
        if (jinja_text_is(name, call->names[i])) {
            *out = call->named[i];
            found = true;
        }
    }
    if (!found) {
        return jinja_fail(j, STATUS_INVALID, "the format names an argument that is missing");
    }
    if (n < field.n && field.data[n] == '.') {
        return jinja_path(j, *out, jinja_string(field.data + n + 1, field.n - n - 1), out);
    }
    if (n < field.n && field.data[field.n - 1] == ']') {
        return jinja_path(j, *out, jinja_string(field.data + n + 1, field.n - n - 2), out);
    }
    return STATUS_OK;
}

static enum status brace_field(struct jinja *j, struct jinja_builder *b, struct jinja_text field,
                               const struct jinja_call *call, size_t *next)
{
    struct spec spec;
    struct jinja_value value;
    struct jinja_text text;
    const char *colon = field.n > 0 ? memchr(field.data, ':', field.n) : NULL;
    size_t n = colon == NULL ? field.n : (size_t)(colon - field.data);
    struct jinja_text rest = {colon == NULL ? "" : colon + 1, colon == NULL ? 0 : field.n - n - 1};
    char conversion = n >= 2 && field.data[n - 2] == '!' ? field.data[n - 1] : '\0';
    JINJA_TRY(brace_value(j, (struct jinja_text){field.data, conversion != '\0' ? n - 2 : n}, call,
                          next, &value));
    if (conversion == 'r') {
        struct jinja_builder shown = {0};
        JINJA_TRY(jinja_repr(j, &shown, value));
        value = jinja_built(&shown);
    } else if (conversion == 's') {
        JINJA_TRY(jinja_to_text(j, value, &text));
        value = jinja_string(text.data, text.n);
    }
    JINJA_TRY(brace_spec(j, rest, &spec));
    return brace_put(j, b, value, &spec);
}

enum status jinja_brace(struct jinja *j, struct jinja_text format, const struct jinja_call *call,
                        struct jinja_value *out)
{
    struct jinja_builder b = {0};
    size_t next = 0;
    for (size_t at = 0; at < format.n; at++) {
        char c = format.data[at];
        bool twice = at + 1 < format.n && format.data[at + 1] == c;
        if (c != '{' && c != '}') {
            JINJA_TRY(jinja_put_c(j, &b, c));
            continue;
        }
        if (twice) {
            JINJA_TRY(jinja_put_c(j, &b, c));
            at++;
            continue;
        }
        const char *end = c == '{' ? memchr(format.data + at, '}', format.n - at) : NULL;
        if (end == NULL) {
            return jinja_fail(j, STATUS_INVALID, "a single '%c' in a format string", c);
        }
        struct jinja_text field = {format.data + at + 1, (size_t)(end - format.data) - at - 1};
        JINJA_TRY(jinja_work(j, 1));
        JINJA_TRY(brace_field(j, &b, field, call, &next));
        at = (size_t)(end - format.data);
    }
    *out = jinja_built(&b);
    return STATUS_OK;
}
