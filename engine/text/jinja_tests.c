/* The tests behind `is`. */
#include "engine/text/jinja_value.h"
#include "engine/text/utf8.h"

#include <string.h>
#include <utf8proc.h>

#define UNUSED_CALL                                                                                \
    (void)j;                                                                                       \
    (void)args;                                                                                    \
    (void)call

/* A test of the value's kind alone. */
#define KIND_TEST(name, condition)                                                                 \
    static enum status test_##name(struct jinja *j, struct jinja_value self,                       \
                                   const struct jinja_value *args, const struct jinja_call *call,  \
                                   struct jinja_value *out)                                        \
    {                                                                                              \
        UNUSED_CALL;                                                                               \
        (void)self;                                                                                \
        *out = jinja_bool(condition);                                                              \
        return STATUS_OK;                                                                          \
    }

KIND_TEST(defined, self.kind != JINJA_UNDEFINED)
KIND_TEST(undefined, self.kind == JINJA_UNDEFINED)
KIND_TEST(none, self.kind == JINJA_NONE)
KIND_TEST(boolean, self.kind == JINJA_BOOL)
KIND_TEST(true, self.kind == JINJA_BOOL && self.truth)
KIND_TEST(false, self.kind == JINJA_BOOL && !self.truth)
KIND_TEST(integer, self.kind == JINJA_INT)
KIND_TEST(float, self.kind == JINJA_FLOAT)
KIND_TEST(number, self.kind == JINJA_INT || self.kind == JINJA_FLOAT || self.kind == JINJA_BOOL)
KIND_TEST(string, self.kind == JINJA_STRING)
KIND_TEST(mapping, self.kind == JINJA_DICT)
KIND_TEST(iterable, self.kind == JINJA_STRING || jinja_is_listlike(self) ||
                        self.kind == JINJA_DICT || self.kind == JINJA_ITERATOR ||
                        self.kind == JINJA_UNDEFINED || self.kind == JINJA_LOOP)
KIND_TEST(sequence, self.kind == JINJA_STRING || self.kind == JINJA_DICT ||
                        self.kind == JINJA_TUPLE || self.kind == JINJA_UNDEFINED ||
                        (self.kind == JINJA_LIST &&
                         (self.list->flavor == JINJA_PLAIN || self.list->flavor == JINJA_RANGE)))
KIND_TEST(callable, self.kind == JINJA_MACRO || self.kind == JINJA_METHOD ||
                        self.kind == JINJA_FUNCTION || self.kind == JINJA_JOINER ||
                        self.kind == JINJA_LOOP || self.kind == JINJA_UNDEFINED)
KIND_TEST(escaped, false)

static enum status test_same(struct jinja *j, struct jinja_value self,
                             const struct jinja_value *args, const struct jinja_call *call,
                             struct jinja_value *out)
{
    bool same = self.kind == args[0].kind;
    (void)call;
    switch (self.kind) {
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_DICT:
        same = same && self.list == args[0].list;
        break;
    default:
        if (same) {
            JINJA_TRY(jinja_equal(j, self, args[0], &same));
        }
        break;
    }
    *out = jinja_bool(same);
    return STATUS_OK;
}

static enum status test_in(struct jinja *j, struct jinja_value self, const struct jinja_value *args,
                           const struct jinja_call *call, struct jinja_value *out)
{
    bool found;
    (void)call;
    JINJA_TRY(jinja_contains(j, args[0], self, &found));
    *out = jinja_bool(found);
    return STATUS_OK;
}

static enum status test_equal(struct jinja *j, struct jinja_value self,
                              const struct jinja_value *args, const struct jinja_call *call,
                              struct jinja_value *out)
{
    bool same;
    (void)call;
    JINJA_TRY(jinja_equal(j, self, args[0], &same));
    *out = jinja_bool(same);
    return STATUS_OK;
}

static enum status test_unequal(struct jinja *j, struct jinja_value self,
                                const struct jinja_value *args, const struct jinja_call *call,
                                struct jinja_value *out)
{
    JINJA_TRY(test_equal(j, self, args, call, out));
    out->truth = !out->truth;
    return STATUS_OK;
}

#define ORDER_TEST(name, condition)                                                                \
    static enum status test_##name(struct jinja *j, struct jinja_value self,                       \
                                   const struct jinja_value *args, const struct jinja_call *call,  \
                                   struct jinja_value *out)                                        \
    {                                                                                              \
        int order;                                                                                 \
        (void)call;                                                                                \
        JINJA_TRY(jinja_compare(j, self, args[0], &order));                                        \
        *out = jinja_bool(condition);                                                              \
        return STATUS_OK;                                                                          \
    }

ORDER_TEST(less, order < 0)
ORDER_TEST(less_equal, order <= 0)
ORDER_TEST(greater, order > 0 && order != 2) /* 2: NaN */
ORDER_TEST(greater_equal, order >= 0 && order != 2)

static enum status test_divisible(struct jinja *j, struct jinja_value self,
                                  const struct jinja_value *args, const struct jinja_call *call,
                                  struct jinja_value *out)
{
    int64_t a, b;
    (void)call;
    JINJA_TRY(jinja_want_int(j, self, "the value of 'divisibleby'", &a));
    JINJA_TRY(jinja_want_int(j, args[0], "the argument of 'divisibleby'", &b));
    if (b == 0) {
        return jinja_fail(j, STATUS_INVALID, "division by zero");
    }
    *out = jinja_bool(b == -1 || a % b == 0);
    return STATUS_OK;
}

static enum status parity(struct jinja *j, struct jinja_value self, int64_t rest,
                          struct jinja_value *out)
{
    int64_t value;
    JINJA_TRY(jinja_want_int(j, self, "the value of 'odd' and 'even'", &value));
    *out = jinja_bool((value & 1) == rest);
    return STATUS_OK;
}

static enum status test_odd(struct jinja *j, struct jinja_value self,
                            const struct jinja_value *args, const struct jinja_call *call,
                            struct jinja_value *out)
{
    UNUSED_CALL;
    return parity(j, self, 1, out);
}

static enum status test_even(struct jinja *j, struct jinja_value self,
                             const struct jinja_value *args, const struct jinja_call *call,
                             struct jinja_value *out)
{
    UNUSED_CALL;
    return parity(j, self, 0, out);
}

/* All cased letters in one case, and at least one of them. */
static enum status cased(struct jinja *j, struct jinja_value self, bool upper,
                         struct jinja_value *out)
{
    struct jinja_text text;
    bool any = false;
    JINJA_TRY(jinja_to_text(j, self, &text));
    JINJA_TRY(jinja_work(j, text.n / 8));
    *out = jinja_bool(false);
    for (size_t at = 0; at < text.n;) {
        uint32_t code;
        at += utf8_decode(text.data + at, text.n - at, &code);
        utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
        if (category == UTF8PROC_CATEGORY_LT ||
            category == (upper ? UTF8PROC_CATEGORY_LL : UTF8PROC_CATEGORY_LU)) {
            return STATUS_OK;
        }
        any = any || category == (upper ? UTF8PROC_CATEGORY_LU : UTF8PROC_CATEGORY_LL);
    }
    *out = jinja_bool(any);
    return STATUS_OK;
}

static enum status test_lower(struct jinja *j, struct jinja_value self,
                              const struct jinja_value *args, const struct jinja_call *call,
                              struct jinja_value *out)
{
    UNUSED_CALL;
    return cased(j, self, false, out);
}

static enum status test_upper(struct jinja *j, struct jinja_value self,
                              const struct jinja_value *args, const struct jinja_call *call,
                              struct jinja_value *out)
{
    UNUSED_CALL;
    return cased(j, self, true, out);
}

const struct jinja_builtin jinja_tests[] = {
    {"defined", "", test_defined},
    {"undefined", "", test_undefined},
    {"none", "", test_none},
    {"boolean", "", test_boolean},
    {"true", "", test_true},
    {"false", "", test_false},
    {"integer", "", test_integer},
    {"float", "", test_float},
    {"number", "", test_number},
    {"string", "", test_string},
    {"mapping", "", test_mapping},
    {"iterable", "", test_iterable},
    {"sequence", "", test_sequence},
    {"callable", "", test_callable},
    {"escaped", "", test_escaped},
    {"sameas", "other", test_same},
    {"in", "seq", test_in},
    {"==", "b", test_equal},
    {"eq", "b", test_equal},
    {"equalto", "b", test_equal},
    {"!=", "b", test_unequal},
    {"ne", "b", test_unequal},
    {"<", "b", test_less},
    {"lt", "b", test_less},
    {"lessthan", "b", test_less},
    {"<=", "b", test_less_equal},
    {"le", "b", test_less_equal},
    {">", "b", test_greater},
    {"gt", "b", test_greater},
    {"greaterthan", "b", test_greater},
    {">=", "b", test_greater_equal},
    {"ge", "b", test_greater_equal},
    {"divisibleby", "num", test_divisible},
    {"odd", "", test_odd},
    {"even", "", test_even},
    {"lower", "", test_lower},
    {"upper", "", test_upper},
    {NULL, NULL, NULL},
};
