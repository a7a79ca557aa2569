/* Methods of strings that look at letters: case, classes of characters, padding. */
#include "engine/text/jinja_value.h"
#include "engine/text/utf8.h"

#include <string.h>
#include <utf8proc.h>

#define METHOD(name)                                                                               \
    static enum status method_##name(                                                              \
        __attribute__((unused)) struct jinja *j, __attribute__((unused)) struct jinja_value self,  \
        __attribute__((unused)) const struct jinja_value *args,                                    \
        __attribute__((unused)) const struct jinja_call *call, struct jinja_value *out)

static utf8proc_category_t category_of(uint32_t code)
{
    return utf8proc_category((utf8proc_int32_t)code);
}

static bool is_alpha(uint32_t code)
{
    utf8proc_category_t c = category_of(code);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

static bool is_cased(uint32_t code)
{
    utf8proc_category_t c = category_of(code);
    return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT;
}

static bool is_decimal(uint32_t code)
{
    return category_of(code) == UTF8PROC_CATEGORY_ND;
}

static bool is_numeric(uint32_t code)
{
    utf8proc_category_t c = category_of(code);
    return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO;
}

static bool is_alnum(uint32_t code)
{
    return is_alpha(code) || is_numeric(code);
}

static bool is_ascii(uint32_t code)
{
    return code < 0x80;
}

/* Whether every character has the property; of an empty text: `empty`. */
static enum status every(struct jinja *j, struct jinja_value self, bool (*property)(uint32_t code),
                         bool empty, struct jinja_value *out)
{
    bool all = self.text.n > 0 || empty;
    JINJA_TRY(jinja_work(j, self.text.n / 16));
    for (size_t at = 0; at < self.text.n && all;) {
        uint32_t code;
        at += utf8_decode(self.text.data + at, self.text.n - at, &code);
        all = property(code);
    }
    *out = jinja_bool(all);
    return STATUS_OK;
}

METHOD(isalpha)
{
    return every(j, self, is_alpha, false, out);
}

METHOD(isdecimal)
{
    return every(j, self, is_decimal, false, out);
}

METHOD(isnumeric)
{
    return every(j, self, is_numeric, false, out);
}

METHOD(isalnum)
{
    return every(j, self, is_alnum, false, out);
}

METHOD(isascii)
{
    return every(j, self, is_ascii, true, out);
}

METHOD(isspace)
{
    return every(j, self, utf8_is_space, false, out);
}

static enum status cased_alike(struct jinja *j, struct jinja_value self, utf8proc_category_t wanted,
                               struct jinja_value *out)
{
    bool any = false;
    JINJA_TRY(jinja_work(j, self.text.n / 16));
    *out = jinja_bool(false);
    for (size_t at = 0; at < self.text.n;) {
        uint32_t code;
        at += utf8_decode(self.text.data + at, self.text.n - at, &code);
        if (is_cased(code) && category_of(code) != wanted) {
            return STATUS_OK;
        }
        any = any || is_cased(code);
    }
    *out = jinja_bool(any);
    return STATUS_OK;
}

METHOD(islower)
{
    return cased_alike(j, self, UTF8PROC_CATEGORY_LL, out);
}

METHOD(isupper)
{
    return cased_alike(j, self, UTF8PROC_CATEGORY_LU, out);
}

METHOD(istitle)
{
    bool any = false, inside = false, good = true;
    for (size_t at = 0; at < self.text.n && good;) {
        uint32_t code;
        at += utf8_decode(self.text.data + at, self.text.n - at, &code);
        bool cased = is_cased(code);
        good = !cased || (category_of(code) == UTF8PROC_CATEGORY_LL) == inside;
        any = any || cased;
        inside = cased;
    }
    *out = jinja_bool(any && good);
    return jinja_work(j, self.text.n / 16);
}

METHOD(lower)
{
    return jinja_lower(j, self.text, out);
}

METHOD(upper)
{
    return jinja_upper(j, self.text, out);
}

enum letter_rule { CAPITALIZE, TITLE, SWAP };

static enum status letters(struct jinja *j, struct jinja_value self, enum letter_rule rule,
                           struct jinja_value *out)
{
    struct jinja_builder b = {0};
    bool inside = false;
    for (size_t at = 0; at < self.text.n;) {
        uint32_t code;
        at += utf8_decode(self.text.data + at, self.text.n - at, &code);
        utf8proc_int32_t letter = (utf8proc_int32_t)code;
        bool up = rule == SWAP ? category_of(code) == UTF8PROC_CATEGORY_LL : !inside;
        letter = up ? (rule == SWAP ? utf8proc_toupper(letter) : utf8proc_totitle(letter))
                    : utf8proc_tolower(letter);
        JINJA_TRY(jinja_put_code(j, &b, (uint32_t)letter));
        JINJA_TRY(jinja_work(j, 1));
        inside = rule == CAPITALIZE || is_cased(code);
    }
    *out = jinja_built(&b);
    return STATUS_OK;
}

METHOD(capitalize)
{
    return letters(j, self, CAPITALIZE, out);
}

METHOD(title)
{
    return letters(j, self, TITLE, out);
}

METHOD(swapcase)
{
    return letters(j, self, SWAP, out);
}

static enum status pad(struct jinja *j, struct jinja_value self, const struct jinja_value *args,
                       int side, struct jinja_value *out)
{
    int64_t width;
    struct jinja_text fill = {" ", 1};
    struct jinja_builder b = {0};
    JINJA_TRY(jinja_want_int(j, args[0], "the width", &width));
    if (jinja_given(args[1])) {
        JINJA_TRY(jinja_want_text(j, args[1], "the fill character", &fill));
    }
    if (utf8_count(fill.data, fill.n) != 1) {
        return jinja_fail(j, STATUS_INVALID,
                          "The fill character must be exactly one character "
                          "long");
    }
    int64_t all = width - (int64_t)utf8_count(self.text.data, self.text.n);
    all = all < 0 ? 0 : all;
    int64_t left = side < 0 ? 0 : side > 0 ? all : all / 2 + (all & width & 1);
    JINJA_TRY(jinja_put_repeated(j, &b, fill, (size_t)left));
    JINJA_TRY(jinja_put(j, &b, self.text.data, self.text.n));
    JINJA_TRY(jinja_put_repeated(j, &b, fill, (size_t)(all - left)));
    *out = jinja_built(&b);
    return STATUS_OK;
}

METHOD(ljust)
{
    return pad(j, self, args, -1, out);
}

METHOD(rjust)
{
    return pad(j, self, args, 1, out);
}

METHOD(center)
{
    return pad(j, self, args, 0, out);
}

METHOD(zfill)
{
    int64_t width;
    struct jinja_builder b = {0};
    JINJA_TRY(jinja_want_int(j, args[0], "the width", &width));
    int64_t n = width - (int64_t)utf8_count(self.text.data, self.text.n);
    size_t sign = self.text.n > 0 && (self.text.data[0] == '-' || self.text.data[0] == '+');
    JINJA_TRY(jinja_put(j, &b, self.text.data, sign));
    JINJA_TRY(jinja_put_repeated(j, &b, (struct jinja_text){"0", 1}, n < 0 ? 0 : (size_t)n));
    JINJA_TRY(jinja_put(j, &b, self.text.data + sign, self.text.n - sign));
    *out = jinja_built(&b);
    return STATUS_OK;
}

METHOD(expandtabs)
{
    int64_t size = 8;
    size_t column = 0;
    struct jinja_builder b = {0};
    if (jinja_given(args[0])) {
        JINJA_TRY(jinja_want_int(j, args[0], "the tab size", &size));
    }
    for (size_t at = 0; at < self.text.n;) {
        uint32_t code;
        size_t length = utf8_decode(self.text.data + at, self.text.n - at, &code);
        if (code == '\t') {
            size_t n = size <= 0 ? 0 : (size_t)size - column % (size_t)size;
            JINJA_TRY(jinja_put_repeated(j, &b, (struct jinja_text){" ", 1}, n));
            column += n;
        } else {
            JINJA_TRY(jinja_put(j, &b, self.text.data + at, length));
            column = code == '\n' || code == '\r' ? 0 : column + 1;
        }
        JINJA_TRY(jinja_work(j, 1));
        at += length;
    }
    *out = jinja_built(&b);
    return STATUS_OK;
}

const struct jinja_builtin jinja_methods_case[] = {
    {"capitalize", "", method_capitalize},
    {"casefold", "", method_lower},
    {"center", "width ?fillchar", method_center},
    {"expandtabs", "?tabsize", method_expandtabs},
    {"isalnum", "", method_isalnum},
    {"isalpha", "", method_isalpha},
    {"isascii", "", method_isascii},
    {"isdecimal", "", method_isdecimal},
    {"isdigit", "", method_isdecimal},
    {"islower", "", method_islower},
    {"isnumeric", "", method_isnumeric},
    {"isspace", "", method_isspace},
    {"istitle", "", method_istitle},
    {"isupper", "", method_isupper},
    {"ljust", "width ?fillchar", method_ljust},
    {"lower", "", method_lower},
    {"rjust", "width ?fillchar", method_rjust},
    {"swapcase", "", method_swapcase},
    {"title", "", method_title},
    {"upper", "", method_upper},
    {"zfill", "width", method_zfill},
    {NULL, NULL, NULL},
};
