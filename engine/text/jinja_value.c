/* Truth, equality, order and containers of the template engine's values, as Python has them. */
#include "engine/text/jinja_value.h"
#include "engine/text/utf8.h"

#include <math.h>
#include <string.h>

enum { SMALL_DICT = 8 };

struct jinja_value jinja_string_c(const char *text)
{
    return jinja_string(text, strlen(text));
}

bool jinja_text_is(struct jinja_text text, const char *word)
{
    return strlen(word) == text.n && memcmp(text.data, word, text.n) == 0;
}

bool jinja_truth(struct jinja_value value)
{
    switch (value.kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE:
    case JINJA_ABSENT:
        return false;
    case JINJA_BOOL:
        return value.truth;
    case JINJA_INT:
        return value.integer != 0;
    case JINJA_FLOAT:
        return value.real != 0.0;
    case JINJA_STRING:
        return value.text.n > 0;
    case JINJA_LIST:
    case JINJA_TUPLE:
        return value.list->n > 0;
    case JINJA_DICT:
        return value.dict->n > 0;
    default:
        return true;
    }
}

const char *jinja_type_name(struct jinja_value value)
{
    static const char *const names[] = {
        [JINJA_UNDEFINED] = "Undefined", [JINJA_NONE] = "NoneType",
        [JINJA_BOOL] = "bool",           [JINJA_INT] = "int",
        [JINJA_FLOAT] = "float",         [JINJA_STRING] = "str",
        [JINJA_LIST] = "list",           [JINJA_TUPLE] = "tuple",
        [JINJA_DICT] = "dict",           [JINJA_ITERATOR] = "generator",
        [JINJA_NAMESPACE] = "Namespace", [JINJA_LOOP] = "LoopContext",
        [JINJA_MACRO] = "Macro",         [JINJA_METHOD] = "method",
        [JINJA_FUNCTION] = "function",   [JINJA_CYCLER] = "Cycler",
        [JINJA_JOINER] = "Joiner",       [JINJA_ABSENT] = "nothing"};
    return names[value.kind];
}

bool jinja_as_int(struct jinja_value value, int64_t *out)
{
    if (value.kind == JINJA_BOOL) {
        *out = value.truth;
        return true;
    }
    *out = value.kind == JINJA_INT ? value.integer : 0;
    return value.kind == JINJA_INT;
}

bool jinja_as_real(struct jinja_value value, double *out)
{
    int64_t integer;
    if (jinja_as_int(value, &integer)) {
        *out = (double)integer;
        return true;
    }
    *out = value.kind == JINJA_FLOAT ? value.real : 0.0;
    return value.kind == JINJA_FLOAT;
}

static enum status lists_equal(struct jinja *j, const struct jinja_list *a,
                               const struct jinja_list *b, bool *out)
{
    *out = a->n == b->n;
    JINJA_TRY(jinja_enter(j));
    for (size_t i = 0; *out && i < a->n; i++) {
        JINJA_TRY(jinja_equal(j, a->items[i], b->items[i], out));
    }
    jinja_leave(j);
    return STATUS_OK;
}

static enum status dicts_equal(struct jinja *j, const struct jinja_dict *a,
                               const struct jinja_dict *b, bool *out)
{
    *out = a->n == b->n;
    JINJA_TRY(jinja_enter(j));
    for (size_t i = 0; *out && i < a->n; i++) {
        struct jinja_value *other;
        JINJA_TRY(jinja_dict_get(j, b, a->pairs[i].key, &other));
        *out = other != NULL;
        if (other != NULL) {
            JINJA_TRY(jinja_equal(j, a->pairs[i].value, *other, out));
        }
    }
    jinja_leave(j);
    return STATUS_OK;
}

enum status jinja_equal(struct jinja *j, struct jinja_value a, struct jinja_value b, bool *out)
{
    int64_t ia, ib;
    double ra, rb;
    JINJA_TRY(jinja_work(j, 1));
    if (jinja_as_int(a, &ia) && jinja_as_int(b, &ib)) {
        *out = ia == ib;
        return STATUS_OK;
    }
    if (jinja_as_real(a, &ra) && jinja_as_real(b, &rb)) {
        *out = ra == rb;
        return STATUS_OK;
    }
    *out = false;
    if (a.kind != b.kind) {
        return STATUS_OK;
    }
    switch (a.kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE:
        *out = true;
        return STATUS_OK;
    case JINJA_STRING:
        *out = a.text.n == b.text.n &&
               (a.text.n == 0 || memcmp(a.text.data, b.text.data, a.text.n) == 0);
        return jinja_work(j, *out ? a.text.n / 256 : 0);
    case JINJA_LIST:
    case JINJA_TUPLE:
        return lists_equal(j, a.list, b.list, out);
    case JINJA_DICT:
        return dicts_equal(j, a.dict, b.dict, out);
    default:
        *out = a.list == b.list; /* identity */
        return STATUS_OK;
    }
}

static int texts_compare(struct jinja_text a, struct jinja_text b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n == 0 ? 0 : memcmp(a.data, b.data, n);
    if (order == 0) {
        return a.n < b.n ? -1 : a.n > b.n;
    }
    return order < 0 ? -1 : 1;
}

static enum status lists_compare(struct jinja *j, const struct jinja_list *a,
                                 const struct jinja_list *b, int *out)
{
    size_t n = a->n < b->n ? a->n : b->n;
    *out = a->n < b->n ? -1 : a->n > b->n;
    JINJA_TRY(jinja_enter(j));
    for (size_t i = 0; i < n; i++) {
        bool same;
        JINJA_TRY(jinja_equal(j, a->items[i], b->items[i], &same));
        if (!same) {
            JINJA_TRY(jinja_compare(j, a->items[i], b->items[i], out));
            break;
        }
    }
    jinja_leave(j);
    return STATUS_OK;
}

enum status jinja_compare(struct jinja *j, struct jinja_value a, struct jinja_value b, int *out)
{
    int64_t ia, ib;
    double ra, rb;
    JINJA_TRY(jinja_work(j, 1));
    if (jinja_as_int(a, &ia) && jinja_as_int(b, &ib)) {
        *out = ia < ib ? -1 : ia > ib;
        return STATUS_OK;
    }
    if (jinja_as_real(a, &ra) && jinja_as_real(b, &rb)) {
        *out = isnan(ra) || isnan(rb) ? 2 : ra < rb ? -1 : ra > rb;
        return STATUS_OK;
    }
    if (a.kind == JINJA_STRING && b.kind == JINJA_STRING) {
        *out = texts_compare(a.text, b.text);
        return STATUS_OK;
    }
    if (a.kind == b.kind && jinja_is_listlike(a)) {
        return lists_compare(j, a.list, b.list, out);
    }
    if (a.kind == JINJA_UNDEFINED || b.kind == JINJA_UNDEFINED) {
        struct jinja_text name = a.kind == JINJA_UNDEFINED ? a.text : b.text;
        return jinja_fail(j, STATUS_INVALID, "'%.*s' is undefined and cannot be compared",
                          (int)(name.n < 80 ? name.n : 80), name.data);
    }
    return jinja_fail(j, STATUS_INVALID, "'%s' and '%s' cannot be ordered", jinja_type_name(a),
                      jinja_type_name(b));
}

enum status jinja_contains(struct jinja *j, struct jinja_value box, struct jinja_value item,
                           bool *out)
{
    *out = false;
    if (box.kind == JINJA_STRING) {
        struct jinja_text part;
        JINJA_TRY(jinja_want_text(j, item, "the left side of 'in'", &part));
        JINJA_TRY(jinja_work(j, box.text.n / 16));
        *out = jinja_find(box.text, part) != SIZE_MAX;
        return STATUS_OK;
    }
    if (box.kind == JINJA_DICT) {
        struct jinja_value *found;
        JINJA_TRY(jinja_dict_get(j, box.dict, item, &found));
        *out = found != NULL;
        return STATUS_OK;
    }
    struct jinja_list *list;
    JINJA_TRY(jinja_walk(j, box, &list));
    for (size_t i = 0; i < list->n && !*out; i++) {
        JINJA_TRY(jinja_equal(j, list->items[i], item, out));
    }
    return STATUS_OK;
}

enum status jinja_list_new(struct jinja *j, enum jinja_kind kind, size_t capacity,
                           struct jinja_value *out)
{
    struct jinja_list *list = jinja_take(j, 1, sizeof *list);
    if (list == NULL) {
        return jinja_failure(j);
    }
    if (capacity > 0) {
        list->items = jinja_take(j, capacity, sizeof *list->items);
        if (list->items == NULL) {
            return jinja_failure(j);
        }
        list->capacity = capacity;
    }
    *out = (struct jinja_value){.kind = kind, .list = list};
    return STATUS_OK;
}

enum status jinja_list_add(struct jinja *j, struct jinja_list *list, struct jinja_value item)
{
    JINJA_TRY(jinja_work(j, 1));
    if (list->n == list->capacity) {
        size_t capacity = list->capacity < 4 ? 4 : 2 * list->capacity;
        struct jinja_value *items = jinja_take(j, capacity, sizeof *items);
        if (items == NULL) {
            return jinja_failure(j);
        }
        if (list->n > 0) {
            memcpy(items, list->items, list->n * sizeof *items);
        }
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->n++] = item;
    return STATUS_OK;
}

enum status jinja_pair_new(struct jinja *j, struct jinja_value a, struct jinja_value b,
                           struct jinja_value *out)
{
    JINJA_TRY(jinja_list_new(j, JINJA_TUPLE, 2, out));
    JINJA_TRY(jinja_list_add(j, out->list, a));
    return jinja_list_add(j, out->list, b);
}

static enum status characters(struct jinja *j, struct jinja_text text, struct jinja_list *list)
{
    uint32_t code;
    for (size_t at = 0; at < text.n;) {
        size_t length = utf8_decode(text.data + at, text.n - at, &code);
        JINJA_TRY(jinja_list_add(j, list, jinja_string(text.data + at, length)));
        at += length;
    }
    return STATUS_OK;
}

enum status jinja_walk(struct jinja *j, struct jinja_value value, struct jinja_list **out)
{
    struct jinja_value list = jinja_none();
    if (jinja_is_listlike(value)) {
        *out = value.list;
        return STATUS_OK;
    }
    if (value.kind == JINJA_ITERATOR) {
        JINJA_TRY(jinja_list_new(j, JINJA_LIST, 0, &list));
        list.list->items = value.list->n > 0 ? value.list->items + value.list->at : NULL;
        list.list->n = value.list->n - value.list->at;
        list.list->capacity = list.list->n;
        value.list->at = value.list->n;
        *out = list.list;
        return STATUS_OK;
    }
    if (value.kind != JINJA_STRING && value.kind != JINJA_DICT && value.kind != JINJA_UNDEFINED) {
        return jinja_fail(j, STATUS_INVALID, "'%s' is not iterable", jinja_type_name(value));
    }
    size_t capacity = value.kind == JINJA_DICT ? value.dict->n : 0;
    JINJA_TRY(jinja_list_new(j, JINJA_LIST, capacity, &list));
    *out = list.list;
    if (value.kind == JINJA_STRING) {
        return characters(j, value.text, list.list);
    }
    for (size_t i = 0; i < capacity; i++) {
        JINJA_TRY(jinja_list_add(j, list.list, value.dict->pairs[i].key));
    }
    return STATUS_OK;
}

enum status jinja_length(struct jinja *j, struct jinja_value value, size_t *out)
{
    switch (value.kind) {
    case JINJA_STRING:
        JINJA_TRY(jinja_work(j, value.text.n / 64));
        *out = utf8_count(value.text.data, value.text.n);
        return STATUS_OK;
    case JINJA_LIST:
    case JINJA_TUPLE:
        *out = value.list->n;
        return STATUS_OK;
    case JINJA_DICT:
        *out = value.dict->n;
        return STATUS_OK;
    case JINJA_LOOP:
        *out = value.loop->list->n;
        return STATUS_OK;
    case JINJA_UNDEFINED:
        *out = 0;
        return STATUS_OK;
    default:
        return jinja_fail(j, STATUS_INVALID, "'%s' has no length", jinja_type_name(value));
    }
}

/* Equal keys hash alike, so 1, 1.0 and true do. */
static enum status key_hash(struct jinja *j, struct jinja_value key, uint64_t *out)
{
    uint64_t hash = 0xcbf29ce484222325u;
    double real;
    if (key.kind == JINJA_STRING) {
        for (size_t i = 0; i < key.text.n; i++) {
            hash = (hash ^ (uint8_t)key.text.data[i]) * 0x100000001b3u;
        }
        *out = hash;
        return jinja_work(j, key.text.n / 64);
    }
    if (jinja_as_real(key, &real)) {
        real = real == 0.0 ? 0.0 : real;
        memcpy(out, &real, sizeof real);
        *out = (*out ^ *out >> 29) * 0x9e3779b97f4a7c15u;
        return STATUS_OK;
    }
    *out = (uint64_t)key.kind;
    if (key.kind == JINJA_TUPLE) {
        JINJA_TRY(jinja_enter(j));
        for (size_t i = 0; i < key.list->n; i++) {
            uint64_t part;
            JINJA_TRY(key_hash(j, key.list->items[i], &part));
            *out = (*out ^ part) * 0x100000001b3u;
        }
        jinja_leave(j);
        return STATUS_OK;
    }
    if (key.kind == JINJA_LIST || key.kind == JINJA_DICT) {
        return jinja_fail(j, STATUS_INVALID, "unhashable type: '%s'", jinja_type_name(key));
    }
    return STATUS_OK;
}

static size_t slot_of(const struct jinja_dict *dict, uint64_t hash, size_t probe)
{
    return (size_t)((hash ^ hash >> 32) + probe) & (dict->table_size - 1);
}

static enum status dict_find(struct jinja *j, const struct jinja_dict *dict, struct jinja_value key,
                             uint64_t hash, struct jinja_pair **out)
{
    *out = NULL;
    size_t n = dict->table == NULL ? dict->n : dict->table_size;
    for (size_t i = 0; i < n; i++) {
        size_t at = i;
        if (dict->table != NULL) {
            uint32_t entry = dict->table[slot_of(dict, hash, i)];
            if (entry == 0) {
                return STATUS_OK;
            }
            at = entry - 1;
        }
        struct jinja_pair *pair = &dict->pairs[at];
        bool same = false;
        if (pair->hash == hash) {
            JINJA_TRY(jinja_equal(j, pair->key, key, &same));
        }
        if (same) {
            *out = pair;
            return STATUS_OK;
        }
        JINJA_TRY(jinja_work(j, i % 16 == 15));
    }
    return STATUS_OK;
}

static enum status dict_grow(struct jinja *j, struct jinja_dict *dict)
{
    size_t capacity = dict->capacity == 0 ? 4 : 2 * dict->capacity;
    struct jinja_pair *pairs = jinja_take(j, capacity, sizeof *pairs);
    if (pairs == NULL) {
        return jinja_failure(j);
    }
    if (dict->n > 0) {
        memcpy(pairs, dict->pairs, dict->n * sizeof *pairs);
    }
    dict->pairs = pairs;
    dict->capacity = capacity;
    if (capacity <= SMALL_DICT) {
        return STATUS_OK;
    }
    dict->table_size = 2 * capacity;
    dict->table = jinja_take(j, dict->table_size, sizeof *dict->table);
    if (dict->table == NULL) {
        return jinja_failure(j);
    }
    for (size_t i = 0; i < dict->n; i++) {
        size_t probe = 0;
        while (dict->table[slot_of(dict, pairs[i].hash, probe)] != 0) {
            probe++;
        }
        dict->table[slot_of(dict, pairs[i].hash, probe)] = (uint32_t)(i + 1);
    }
    return STATUS_OK;
}

enum status jinja_dict_new(struct jinja *j, struct jinja_value *out)
{
    struct jinja_dict *dict = jinja_take(j, 1, sizeof *dict);
    if (dict == NULL) {
        return jinja_failure(j);
    }
    *out = (struct jinja_value){.kind = JINJA_DICT, .dict = dict};
    return STATUS_OK;
}

enum status jinja_dict_set(struct jinja *j, struct jinja_dict *dict, struct jinja_value key,
                           struct jinja_value value)
{
    uint64_t hash;
    struct jinja_pair *pair;
    JINJA_TRY(jinja_work(j, 1));
    JINJA_TRY(key_hash(j, key, &hash));
    JINJA_TRY(dict_find(j, dict, key, hash, &pair));
    if (pair != NULL) {
        pair->value = value;
        return STATUS_OK;
    }
    if (dict->n == dict->capacity) {
        JINJA_TRY(dict_grow(j, dict));
    }
    if (dict->table != NULL) {
        size_t probe = 0;
        while (dict->table[slot_of(dict, hash, probe)] != 0) {
            probe++;
        }
        dict->table[slot_of(dict, hash, probe)] = (uint32_t)(dict->n + 1);
    }
    dict->pairs[dict->n++] = (struct jinja_pair){.key = key, .value = value, .hash = hash};
    return STATUS_OK;
}

enum status jinja_dict_get(struct jinja *j, const struct jinja_dict *dict, struct jinja_value key,
                           struct jinja_value **out)
{
    uint64_t hash;
    struct jinja_pair *pair;
    *out = NULL;
    JINJA_TRY(key_hash(j, key, &hash));
    JINJA_TRY(dict_find(j, dict, key, hash, &pair));
    *out = pair == NULL ? NULL : &pair->value;
    return STATUS_OK;
}
