/* Operators, subscripts and slices, with Python's rules for numbers and negative indices. Integers
 * have 64 bits; what would need more is refused rather than rounded. */
#include "engine/text/jinja_ast.h"
#include "engine/text/utf8.h"

#include <math.h>
#include <string.h>

static enum status operand_fail(struct jinja *j, int op, struct jinja_value a, struct jinja_value b)
{
    static const char *const signs[] = {
        [JT_ADD] = "+",       [JT_SUB] = "-", [JT_MUL] = "*", [JT_DIV] = "/",
        [JT_FLOORDIV] = "//", [JT_MOD] = "%", [JT_POW] = "**"};
    if (a.kind == JINJA_UNDEFINED || b.kind == JINJA_UNDEFINED) {
        struct jinja_text name = a.kind == JINJA_UNDEFINED ? a.text : b.text;
        return jinja_fail(j, STATUS_INVALID, "'%.*s' is undefined",
                          (int)(name.n < 80 ? name.n : 80), name.data);
    }
    return jinja_fail(j, STATUS_INVALID, "unsupported operand types for %s: '%s' and '%s'",
                      signs[op], jinja_type_name(a), jinja_type_name(b));
}

static enum status too_large(struct jinja *j)
{
    return jinja_fail(j, STATUS_UNSUPPORTED, "an integer past 64 bits");
}

static enum status power_int(struct jinja *j, int64_t base, int64_t exponent,
                             struct jinja_value *out)
{
    if (exponent < 0) {
        if (base == 0) {
            return jinja_fail(j, STATUS_INVALID, "0 cannot be raised to a negative power");
        }
        *out = jinja_float(pow((double)base, (double)exponent));
        return STATUS_OK;
    }
    int64_t result = 1;
    for (; exponent > 0; exponent >>= 1) {
        if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) {
            return too_large(j);
        }
        if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) {
            return too_large(j);
        }
    }
    *out = jinja_int(result);
    return STATUS_OK;
}

static enum status binary_int(struct jinja *j, int op, int64_t a, int64_t b,
                              struct jinja_value *out)
{
    int64_t result = 0;
    bool over = false;
    switch (op) {
    case JT_ADD:
        over = __builtin_add_overflow(a, b, &result);
        break;
    case JT_SUB:
        over = __builtin_sub_overflow(a, b, &result);
        break;
    case JT_MUL:
        over = __builtin_mul_overflow(a, b, &result);
        break;
    case JT_POW:
        return power_int(j, a, b, out);
    default:
        if (b == 0) {
            return jinja_fail(j, STATUS_INVALID, "division by zero");
        }
        if (op == JT_DIV) {
            *out = jinja_float((double)a / (double)b);
            return STATUS_OK;
        }
        over = a == INT64_MIN && b == -1;
        if (!over) {
            int64_t rest = a % b;
            bool apart = rest != 0 && (rest < 0) != (b < 0);
            result = op == JT_MOD ? (apart ? rest + b : rest) : a / b - apart;
        } else if (op == JT_MOD) {
            over = false;
        }
        break;
    }
    *out = jinja_int(result);
    return over ? too_large(j) : STATUS_OK;
}

static enum status binary_real(struct jinja *j, int op, double a, double b, struct jinja_value *out)
{
    double rest;
    if (op >= JT_DIV && op <= JT_MOD && b == 0.0) {
        return jinja_fail(j, STATUS_INVALID, "division by zero");
    }
    switch (op) {
    case JT_ADD:
        *out = jinja_float(a + b);
        break;
    case JT_SUB:
        *out = jinja_float(a - b);
        break;
    case JT_MUL:
        *out = jinja_float(a * b);
        break;
    case JT_DIV:
        *out = jinja_float(a / b);
        break;
    case JT_FLOORDIV:
        *out = jinja_float(floor(a / b));
        break;
    case JT_MOD:
        rest = fmod(a, b);
        *out = jinja_float(rest != 0.0 && (rest < 0.0) != (b < 0.0) ? rest + b : rest);
        break;
    default:
        *out = jinja_float(pow(a, b));
        break;
    }
    return STATUS_OK;
}

static enum status repeat(struct jinja *j, struct jinja_value what, int64_t times,
                          struct jinja_value *out)
{
    times = times < 0 ? 0 : times;
    if (what.kind == JINJA_STRING) {
        struct jinja_builder b = {0};
        JINJA_TRY(jinja_put_repeated(j, &b, what.text, (size_t)times));
        *out = jinja_built(&b);
        return STATUS_OK;
    }
    JINJA_TRY(jinja_list_new(j, what.kind, 0, out));
    for (int64_t i = 0; i < times && what.list->n > 0; i++) {
        for (size_t k = 0; k < what.list->n; k++) {
            JINJA_TRY(jinja_list_add(j, out->list, what.list->items[k]));
        }
    }
    return STATUS_OK;
}

static enum status join_two(struct jinja *j, struct jinja_value a, struct jinja_value b,
                            struct jinja_value *out)
{
    if (a.kind == JINJA_STRING) {
        struct jinja_builder text = {0};
        JINJA_TRY(jinja_put(j, &text, a.text.data, a.text.n));
        JINJA_TRY(jinja_put(j, &text, b.text.data, b.text.n));
        *out = jinja_built(&text);
        return STATUS_OK;
    }
    JINJA_TRY(jinja_list_new(j, a.kind, a.list->n + b.list->n, out));
    for (size_t i = 0; i < a.list->n + b.list->n; i++) {
        struct jinja_value item = i < a.list->n ? a.list->items[i] : b.list->items[i - a.list->n];
        JINJA_TRY(jinja_list_add(j, out->list, item));
    }
    return STATUS_OK;
}

enum status jinja_binary(struct jinja *j, int op, struct jinja_value a, struct jinja_value b,
                         struct jinja_value *out)
{
    int64_t ia, ib;
    double ra, rb;
    bool int_a = jinja_as_int(a, &ia), int_b = jinja_as_int(b, &ib);
    if (int_a && int_b) {
        return binary_int(j, op, ia, ib, out);
    }
    if (jinja_as_real(a, &ra) && jinja_as_real(b, &rb)) {
        return binary_real(j, op, ra, rb, out);
    }
    bool sequence_a = a.kind == JINJA_STRING || jinja_is_listlike(a);
    bool sequence_b = b.kind == JINJA_STRING || jinja_is_listlike(b);
    if (op == JT_ADD && sequence_a && a.kind == b.kind) {
        return join_two(j, a, b, out);
    }
    if (op == JT_MUL && sequence_a && int_b) {
        return repeat(j, a, ib, out);
    }
    if (op == JT_MUL && sequence_b && int_a) {
        return repeat(j, b, ia, out);
    }
    if (op == JT_MOD && a.kind == JINJA_STRING) {
        return jinja_percent(j, a.text, b, out);
    }
    return operand_fail(j, op, a, b);
}

static const struct jinja_builtin *method_find(struct jinja_value box, struct jinja_text name)
{
    const struct jinja_builtin *found = NULL;
    switch (box.kind) {
    case JINJA_STRING:
        found = jinja_builtin_find(jinja_methods_string, name);
        return found != NULL ? found : jinja_builtin_find(jinja_methods_case, name);
    case JINJA_DICT:
        return jinja_builtin_find(jinja_methods_dict, name);
    case JINJA_LIST:
    case JINJA_TUPLE:
        return jinja_builtin_find(jinja_methods_list, name);
    case JINJA_LOOP:
        return jinja_builtin_find(jinja_methods_loop, name);
    case JINJA_CYCLER:
        return jinja_builtin_find(jinja_methods_cycler, name);
    default:
        return NULL;
    }
}

static enum status method_new(struct jinja *j, struct jinja_value self,
                              const struct jinja_builtin *builtin, struct jinja_value *out)
{
    if (builtin->run == NULL) { /* it would change the value: not in a sandbox */
        *out = jinja_undefined(builtin->name, strlen(builtin->name));
        return STATUS_OK;
    }
    struct jinja_method *method = jinja_take(j, 1, sizeof *method);
    if (method == NULL) {
        return jinja_failure(j);
    }
    *method = (struct jinja_method){.self = self, .builtin = builtin};
    *out = (struct jinja_value){.kind = JINJA_METHOD, .method = method};
    return STATUS_OK;
}

static bool loop_attribute(const struct jinja_loop *loop, struct jinja_text name,
                           struct jinja_value *out)
{
    int64_t index = (int64_t)loop->index, length = (int64_t)loop->list->n;
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {{"index", index + 1},
                   {"index0", index},
                   {"revindex", length - index},
                   {"revindex0", length - index - 1},
                   {"length", length},
                   {"depth", (int64_t)loop->depth + 1},
                   {"depth0", (int64_t)loop->depth}};
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        if (jinja_text_is(name, numbers[i].name)) {
            *out = jinja_int(numbers[i].value);
            return true;
        }
    }
    bool before = jinja_text_is(name, "previtem"), after = jinja_text_is(name, "nextitem");
    if (jinja_text_is(name, "first") || jinja_text_is(name, "last")) {
        *out = jinja_bool(jinja_text_is(name, "first") ? index == 0 : index == length - 1);
    } else if (before && index > 0) {
        *out = loop->list->items[index - 1];
    } else if (after && index + 1 < length) {
        *out = loop->list->items[index + 1];
    } else {
        return false;
    }
    return true;
}

static bool special_attribute(struct jinja_value box, struct jinja_text name,
                              struct jinja_value *out)
{
    if (box.kind == JINJA_LOOP) {
        return loop_attribute(box.loop, name, out);
    }
    if (box.kind == JINJA_MACRO && jinja_text_is(name, "name")) {
        *out = jinja_string_c(box.macro->node->name);
        return true;
    }
    if (box.kind == JINJA_CYCLER && jinja_text_is(name, "current")) {
        *out = box.cycler->items[box.cycler->position];
        return true;
    }
    if (box.kind == JINJA_TUPLE && box.list->flavor == JINJA_GROUP) {
        bool key = jinja_text_is(name, "grouper");
        *out = box.list->items[key ? 0 : 1];
        return key || jinja_text_is(name, "list");
    }
    return false;
}

/* What Python's getattr finds; *found false where it finds nothing. */
static enum status attribute_find(struct jinja *j, struct jinja_value box, struct jinja_text name,
                                  bool *found, struct jinja_value *out)
{
    *found = true;
    if (special_attribute(box, name, out)) {
        return STATUS_OK;
    }
    const struct jinja_builtin *method = method_find(box, name);
    if (method != NULL) {
        return method_new(j, box, method, out);
    }
    struct jinja_value *member = NULL;
    if (box.kind == JINJA_NAMESPACE) {
        JINJA_TRY(jinja_dict_get(j, box.dict, jinja_string(name.data, name.n), &member));
    }
    *found = member != NULL;
    if (member != NULL) {
        *out = *member;
    }
    return STATUS_OK;
}

/* What box[key] finds. */
static enum status item_find(struct jinja *j, struct jinja_value box, struct jinja_value key,
                             bool *found, struct jinja_value *out)
{
    int64_t index;
    *found = false;
    if (box.kind == JINJA_DICT) {
        struct jinja_value *member = NULL;
        if (key.kind != JINJA_LIST && key.kind != JINJA_DICT) {
            JINJA_TRY(jinja_dict_get(j, box.dict, key, &member));
        }
        *found = member != NULL;
        *out = member != NULL ? *member : jinja_none();
        return STATUS_OK;
    }
    bool listlike = jinja_is_listlike(box);
    if ((!listlike && box.kind != JINJA_STRING) || !jinja_as_int(key, &index)) {
        return STATUS_OK;
    }
    size_t length;
    JINJA_TRY(jinja_length(j, box, &length));
    index += index < 0 ? (int64_t)length : 0;
    if (index < 0 || (uint64_t)index >= length) {
        return STATUS_OK;
    }
    *found = true;
    if (listlike) {
        *out = box.list->items[index];
        return STATUS_OK;
    }
    size_t at = length == box.text.n ? (size_t)index
                                     : utf8_offset(box.text.data, box.text.n, (size_t)index);
    uint32_t code;
    *out =
        jinja_string(box.text.data + at, utf8_decode(box.text.data + at, box.text.n - at, &code));
    return STATUS_OK;
}

static enum status undefined_fail(struct jinja *j, struct jinja_value box)
{
    return jinja_fail(j, STATUS_INVALID, "'%.*s' is undefined",
                      (int)(box.text.n < 80 ? box.text.n : 80), box.text.data);
}

enum status jinja_attribute(struct jinja *j, struct jinja_value box, const char *name,
                            struct jinja_value *out)
{
    bool found;
    struct jinja_text text = {name, strlen(name)};
    if (box.kind == JINJA_UNDEFINED) {
        return undefined_fail(j, box);
    }
    JINJA_TRY(attribute_find(j, box, text, &found, out));
    if (!found) {
        JINJA_TRY(item_find(j, box, jinja_string(name, text.n), &found, out));
    }
    if (!found) {
        *out = jinja_undefined(name, text.n);
    }
    return STATUS_OK;
}

enum status jinja_item(struct jinja *j, struct jinja_value box, struct jinja_value key,
                       struct jinja_value *out)
{
    bool found;
    if (box.kind == JINJA_UNDEFINED) {
        return undefined_fail(j, box);
    }
    JINJA_TRY(item_find(j, box, key, &found, out));
    if (!found && key.kind == JINJA_STRING) {
        JINJA_TRY(attribute_find(j, box, key.text, &found, out));
    }
    if (!found) {
        *out = key.kind == JINJA_STRING ? jinja_undefined(key.text.data, key.text.n)
                                        : jinja_undefined("element", 7);
    }
    return STATUS_OK;
}

/* Python's rule: bounds past the ends are clipped; the default depends on the direction. */
static enum status bounds_resolve(struct jinja *j, const struct jinja_value bounds[static 3],
                                  int64_t length, int64_t *from, int64_t *to, int64_t *step)
{
    int64_t given[3] = {0, 0, 1};
    for (int i = 0; i < 3; i++) {
        if (bounds[i].kind != JINJA_NONE && !jinja_as_int(bounds[i], &given[i])) {
            return jinja_fail(j, STATUS_INVALID, "slice indices must be integers or None, not '%s'",
                              jinja_type_name(bounds[i]));
        }
    }
    *step = given[2];
    if (*step == 0) {
        return jinja_fail(j, STATUS_INVALID, "slice step cannot be zero");
    }
    int64_t low = *step > 0 ? 0 : -1, high = *step > 0 ? length : length - 1;
    int64_t *ends[2] = {from, to};
    for (int i = 0; i < 2; i++) {
        int64_t value = given[i] < 0 ? given[i] + length : given[i];
        value = value < low ? low : value > high ? high : value;
        bool start = (i == 0) == (*step > 0);
        *ends[i] = bounds[i].kind != JINJA_NONE ? value : start ? low : high;
    }
    return STATUS_OK;
}

static size_t slice_count(int64_t from, int64_t to, int64_t step)
{
    if (step > 0) {
        return from < to ? (size_t)((to - from - 1) / step + 1) : 0;
    }
    if (step == INT64_MIN) {
        return from > to;
    }
    return from > to ? (size_t)((from - to - 1) / -step + 1) : 0;
}

static enum status slice_text(struct jinja *j, struct jinja_text text, int64_t from, size_t n,
                              int64_t step, struct jinja_value *out)
{
    size_t length = utf8_count(text.data, text.n);
    if (step == 1) {
        bool ascii = length == text.n;
        size_t begin = ascii ? (size_t)from : utf8_offset(text.data, text.n, (size_t)from);
        size_t size = ascii ? n : utf8_offset(text.data + begin, text.n - begin, n);
        *out = jinja_string(text.data + begin, size);
        return STATUS_OK;
    }
    struct jinja_list *all;
    struct jinja_builder b = {0};
    JINJA_TRY(jinja_walk(j, jinja_string(text.data, text.n), &all));
    for (size_t i = 0; i < n; i++) {
        struct jinja_text part = all->items[(size_t)(from + (int64_t)i * step)].text;
        JINJA_TRY(jinja_put(j, &b, part.data, part.n));
    }
    *out = jinja_built(&b);
    return STATUS_OK;
}

enum status jinja_slice(struct jinja *j, struct jinja_value box,
                        const struct jinja_value bounds[static 3], struct jinja_value *out)
{
    size_t length;
    int64_t from = 0, to = 0, step = 1;
    if (box.kind == JINJA_UNDEFINED) {
        return undefined_fail(j, box);
    }
    bool view = box.kind == JINJA_LIST && box.list->flavor >= JINJA_KEYS;
    if ((box.kind != JINJA_STRING && !jinja_is_listlike(box)) || view) {
        return jinja_fail(j, STATUS_INVALID, "a '%s' cannot be sliced",
                          view ? "dict view" : jinja_type_name(box));
    }
    JINJA_TRY(jinja_length(j, box, &length));
    JINJA_TRY(bounds_resolve(j, bounds, (int64_t)length, &from, &to, &step));
    size_t n = slice_count(from, to, step);
    JINJA_TRY(jinja_work(j, n / 16));
    if (box.kind == JINJA_STRING) {
        *out = jinja_string("", 0);
        return n == 0 ? STATUS_OK : slice_text(j, box.text, from, n, step, out);
    }
    JINJA_TRY(jinja_list_new(j, box.kind, n, out));
    for (size_t i = 0; i < n; i++) {
        JINJA_TRY(
            jinja_list_add(j, out->list, box.list->items[(size_t)(from + (int64_t)i * step)]));
    }
    return STATUS_OK;
}
