/* JSON in and out. In: jansson parses, keeping the order of keys, and its tree is copied into the
 * arena. Out: the bytes of Python's json.dumps as Hugging Face's `tojson` calls it, that is without
 * ASCII escapes and without HTML escapes unless asked. */
#include "engine/text/jinja_value.h"
#include "engine/text/utf8.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum status value_of(struct jinja *j, const json_t *json, struct jinja_value *out);

static enum status string_of(struct jinja *j, const char *data, size_t n, struct jinja_value *out)
{
    char *copy = jinja_take(j, n + 1, 1);
    if (copy == NULL) {
        return jinja_failure(j);
    }
    memcpy(copy, data, n);
    *out = jinja_string(copy, n);
    return STATUS_OK;
}

static enum status list_of(struct jinja *j, const json_t *json, struct jinja_value *out)
{
    size_t n = json_array_size(json);
    JINJA_TRY(jinja_list_new(j, JINJA_LIST, n, out));
    for (size_t i = 0; i < n; i++) {
        struct jinja_value item;
        JINJA_TRY(value_of(j, json_array_get(json, i), &item));
        JINJA_TRY(jinja_list_add(j, out->list, item));
    }
    return STATUS_OK;
}

static enum status dict_of(struct jinja *j, json_t *json, struct jinja_value *out)
{
    JINJA_TRY(jinja_dict_new(j, out));
    for (void *at = json_object_iter(json); at != NULL; at = json_object_iter_next(json, at)) {
        struct jinja_value key, item;
        const char *name = json_object_iter_key(at);
        JINJA_TRY(string_of(j, name, strlen(name), &key));
        JINJA_TRY(value_of(j, json_object_iter_value(at), &item));
        JINJA_TRY(jinja_dict_set(j, out->dict, key, item));
    }
    return STATUS_OK;
}

static enum status value_of(struct jinja *j, const json_t *json, struct jinja_value *out)
{
    enum status status = STATUS_OK;
    JINJA_TRY(jinja_enter(j));
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        status = dict_of(j, (json_t *)(uintptr_t)json, out);
        break;
    case JSON_ARRAY:
        status = list_of(j, json, out);
        break;
    case JSON_STRING:
        status = string_of(j, json_string_value(json), json_string_length(json), out);
        break;
    case JSON_INTEGER:
        *out = jinja_int(json_integer_value(json));
        break;
    case JSON_REAL:
        *out = jinja_float(json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = jinja_bool(json_typeof(json) == JSON_TRUE);
        break;
    default:
        *out = jinja_none();
        break;
    }
    jinja_leave(j);
    return status;
}

enum status jinja_from_json(struct jinja *j, const char *what, const char *json,
                            struct jinja_value *out)
{
    json_error_t error;
    json_t *tree = json_loads(json, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (tree == NULL) {
        (void)fault_set(&j->fault, STATUS_INVALID, "%s: not valid JSON: line %d: %.200s", what,
                        error.line, error.text);
        return STATUS_INVALID;
    }
    enum status status = value_of(j, tree, out);
    json_decref(tree);
    return status;
}

static enum status put_escape(struct jinja *j, struct jinja_builder *b, uint32_t code)
{
    char text[16];
    if (code >= 0x10000) {
        code -= 0x10000;
        (void)snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd800 + (code >> 10),
                       0xdc00 + (code & 0x3ff));
    } else {
        (void)snprintf(text, sizeof text, "\\u%04x", code);
    }
    return jinja_put_text(j, b, text);
}

static enum status put_string(struct jinja *j, struct jinja_builder *b, struct jinja_text text,
                              bool ascii)
{
    static const char escapes[][3] = {
        ['\b'] = "\\b", ['\t'] = "\\t", ['\n'] = "\\n", ['\f'] = "\\f",
        ['\r'] = "\\r", ['"'] = "\\\"", ['\\'] = "\\\\"};
    JINJA_TRY(jinja_put_c(j, b, '"'));
    size_t start = 0;
    for (size_t at = 0; at < text.n;) {
        uint32_t code;
        size_t length = utf8_decode(text.data + at, text.n - at, &code);
        bool named = code < COUNT_OF(escapes) && escapes[code][0] != '\0';
        if (named || code < 0x20 || (ascii && code >= 0x7f && code != 0x7f)) {
            JINJA_TRY(jinja_put(j, b, text.data + start, at - start));
            JINJA_TRY(named ? jinja_put_text(j, b, escapes[code]) : put_escape(j, b, code));
            start = at + length;
        }
        at += length;
    }
    JINJA_TRY(jinja_work(j, text.n / 16));
    JINJA_TRY(jinja_put(j, b, text.data + start, text.n - start));
    return jinja_put_c(j, b, '"');
}

static enum status put_real(struct jinja *j, struct jinja_builder *b, double real)
{
    char text[JINJA_REAL_TEXT];
    if (!isfinite(real)) {
        return jinja_put_text(j, b, isnan(real) ? "NaN" : real > 0 ? "Infinity" : "-Infinity");
    }
    jinja_real_text(real, text);
    return jinja_put_text(j, b, text);
}

static enum status put_value(struct jinja *j, struct jinja_builder *b, struct jinja_value value,
                             const struct jinja_json_style *style, size_t level);

static enum status put_break(struct jinja *j, struct jinja_builder *b,
                             const struct jinja_json_style *style, size_t level)
{
    if (style->indent.data == NULL) {
        return STATUS_OK;
    }
    JINJA_TRY(jinja_put_c(j, b, '\n'));
    return jinja_put_repeated(j, b, style->indent, level);
}

static enum status put_list(struct jinja *j, struct jinja_builder *b, const struct jinja_list *list,
                            const struct jinja_json_style *style, size_t level)
{
    if (list->n == 0) {
        return jinja_put_text(j, b, "[]");
    }
    JINJA_TRY(jinja_put_c(j, b, '['));
    for (size_t i = 0; i < list->n; i++) {
        JINJA_TRY(jinja_put_text(j, b, i > 0 ? style->item_separator : ""));
        JINJA_TRY(put_break(j, b, style, level + 1));
        JINJA_TRY(put_value(j, b, list->items[i], style, level + 1));
    }
    JINJA_TRY(put_break(j, b, style, level));
    return jinja_put_c(j, b, ']');
}

static enum status put_key(struct jinja *j, struct jinja_builder *b, struct jinja_value key,
                           bool ascii)
{
    struct jinja_builder text = {0};
    switch (key.kind) {
    case JINJA_STRING:
        return put_string(j, b, key.text, ascii);
    case JINJA_NONE:
    case JINJA_BOOL:
    case JINJA_INT:
    case JINJA_FLOAT:
        JINJA_TRY(jinja_to_json(j, &text, key, &(struct jinja_json_style){.ascii = ascii}));
        return put_string(j, b, jinja_built(&text).text, ascii);
    default:
        return jinja_fail(j, STATUS_INVALID, "a '%s' cannot be a key in JSON",
                          jinja_type_name(key));
    }
}

static int by_key(const void *a, const void *b)
{
    const struct jinja_pair *x = *(const struct jinja_pair *const *)a;
    const struct jinja_pair *y = *(const struct jinja_pair *const *)b;
    size_t n = x->key.text.n < y->key.text.n ? x->key.text.n : y->key.text.n;
    int order = n == 0 ? 0 : memcmp(x->key.text.data, y->key.text.data, n);
    return order != 0 ? order : x->key.text.n < y->key.text.n ? -1 : 1;
}

static enum status put_dict(struct jinja *j, struct jinja_builder *b, const struct jinja_dict *dict,
                            const struct jinja_json_style *style, size_t level)
{
    if (dict->n == 0) {
        return jinja_put_text(j, b, "{}");
    }
    /* An array of pointers, which is what the check takes for a slip.
     * NOLINTNEXTLINE(bugprone-sizeof-expression) */
    const struct jinja_pair **order = jinja_take(j, dict->n, sizeof *order);
    if (order == NULL) {
        return jinja_failure(j);
    }
    bool all_text = true;
    for (size_t i = 0; i < dict->n; i++) {
        order[i] = &dict->pairs[i];
        all_text = all_text && dict->pairs[i].key.kind == JINJA_STRING;
    }
    if (style->sorted && all_text) {
        qsort(order, dict->n, sizeof *order, by_key); /* NOLINT(bugprone-sizeof-expression) */
    }
    JINJA_TRY(jinja_put_c(j, b, '{'));
    for (size_t i = 0; i < dict->n; i++) {
        JINJA_TRY(jinja_put_text(j, b, i > 0 ? style->item_separator : ""));
        JINJA_TRY(put_break(j, b, style, level + 1));
        JINJA_TRY(put_key(j, b, order[i]->key, style->ascii));
        JINJA_TRY(jinja_put_text(j, b, style->key_separator));
        JINJA_TRY(put_value(j, b, order[i]->value, style, level + 1));
    }
    JINJA_TRY(put_break(j, b, style, level));
    return jinja_put_c(j, b, '}');
}

static enum status put_value(struct jinja *j, struct jinja_builder *b, struct jinja_value value,
                             const struct jinja_json_style *style, size_t level)
{
    enum status status;
    JINJA_TRY(jinja_enter(j));
    switch (value.kind) {
    case JINJA_NONE:
        status = jinja_put_text(j, b, "null");
        break;
    case JINJA_BOOL:
        status = jinja_put_text(j, b, value.truth ? "true" : "false");
        break;
    case JINJA_INT:
        status = jinja_show(j, b, value);
        break;
    case JINJA_FLOAT:
        status = put_real(j, b, value.real);
        break;
    case JINJA_STRING:
        status = put_string(j, b, value.text, style->ascii);
        break;
    case JINJA_LIST:
    case JINJA_TUPLE:
        if (value.list->flavor != JINJA_PLAIN && value.list->flavor != JINJA_GROUP) {
            return jinja_fail(j, STATUS_INVALID, "a view of a dict is not JSON serializable");
        }
        status = put_list(j, b, value.list, style, level);
        break;
    case JINJA_DICT:
        status = put_dict(j, b, value.dict, style, level);
        break;
    default:
        status = jinja_fail(j, STATUS_INVALID, "Object of type %s is not JSON serializable",
                            jinja_type_name(value));
        break;
    }
    jinja_leave(j);
    return status;
}

enum status jinja_to_json(struct jinja *j, struct jinja_builder *b, struct jinja_value value,
                          const struct jinja_json_style *style)
{
    return put_value(j, b, value, style, 0);
}
