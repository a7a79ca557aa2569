#ifndef SKEIN_ENGINE_TEXT_JINJA_VALUE_H
#define SKEIN_ENGINE_TEXT_JINJA_VALUE_H

/* Values of the template engine and the machine that owns them. Values are small and passed by
 * copy; what they point to lies in the machine's arena and is freed with it, all at once. Strings,
 * lists and dictionaries never change once a template can see them (Hugging Face renders in a
 * sandbox without mutation), so they are shared freely, and a slice of a string is a view. */
#include "engine/text/jinja.h"

enum jinja_kind {
    JINJA_UNDEFINED, /* text: its name */
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_STRING,
    JINJA_LIST,
    JINJA_TUPLE,
    JINJA_DICT,
    JINJA_ITERATOR, /* what filters such as map give: always true, can be walked once */
    JINJA_NAMESPACE,
    JINJA_LOOP,
    JINJA_MACRO,
    JINJA_METHOD,   /* a built-in bound to a value: "x".strip */
    JINJA_FUNCTION, /* a built-in */
    JINJA_CYCLER,
    JINJA_JOINER,
    JINJA_ABSENT /* an argument that was not given; never seen by templates */
};

struct jinja_text {
    const char *data;
    size_t n;
};

struct jinja_value {
    enum jinja_kind kind;
    union {
        bool truth;
        int64_t integer;
        double real;
        struct jinja_text text;
        struct jinja_list *list; /* lists, tuples, iterators */
        struct jinja_dict *dict; /* dictionaries, namespaces */
        struct jinja_loop *loop;
        struct jinja_macro *macro;
        struct jinja_method *method;
        const struct jinja_builtin *function;
        struct jinja_cycler *cycler;
    };
};

enum jinja_flavor { /* how a list prints and what it can do */
                    JINJA_PLAIN,
                    JINJA_RANGE,
                    JINJA_KEYS,
                    JINJA_VALUES,
                    JINJA_ITEMS,
                    JINJA_GROUP /* the pair (grouper, list) of groupby */
};

struct jinja_list {
    struct jinja_value *items;
    size_t n, capacity;
    size_t at; /* iterators: what was taken */
    enum jinja_flavor flavor;
};

struct jinja_pair {
    struct jinja_value key, value;
    uint64_t hash;
};

struct jinja_dict { /* in order of insertion */
    struct jinja_pair *pairs;
    size_t n, capacity;
    uint32_t *table; /* [table_size] index + 1, open addressing; NULL while small */
    size_t table_size;
};

struct jinja_cycler { /* also a joiner: n = 1, position = whether it was used */
    struct jinja_value *items;
    size_t n, position;
};

struct jinja_call { /* evaluated arguments */
    const struct jinja_value *args;
    size_t n;
    const char *const *names; /* interned */
    const struct jinja_value *named;
    size_t n_named;
    unsigned line;
};

struct jinja;
/* self is the value that a filter, test or method is applied to; args are bound by the params of
 * the table row, those that are missing JINJA_ABSENT. */
typedef enum status jinja_function(struct jinja *j, struct jinja_value self,
                                   const struct jinja_value *args, const struct jinja_call *call,
                                   struct jinja_value *out);

enum { JINJA_MAX_PARAMS = 10 };

struct jinja_builtin {
    const char *name;
    /* Names in order of position, "?" before optional ones; "*": the call is passed as it is. */
    const char *params;
    jinja_function *run; /* NULL: known to Jinja, not supported here */
};

struct jinja_method {
    struct jinja_value self;
    const struct jinja_builtin *builtin;
};

struct jinja_variable_slot {
    const char *name; /* interned: compared by address */
    struct jinja_value value;
};

struct jinja_scope {
    struct jinja_scope *parent;
    struct jinja_variable_slot *slots;
    size_t n, capacity;
    bool captured; /* a macro may still look into it */
};

struct jinja_loop {
    struct jinja_list *list;
    size_t index;
    size_t depth;
    const struct jinja_node *node; /* of a recursive loop, else NULL */
    struct jinja_scope *scope;     /* where that stands */
    struct jinja_value changed;    /* the last arguments of loop.changed, or ABSENT */
};

struct jinja_macro {
    const struct jinja_node *node;
    struct jinja_scope *scope; /* where it was defined */
};

struct jinja_builder { /* text that grows in the arena */
    char *data;
    size_t n, capacity;
};

enum jinja_flow { JINJA_NEXT, JINJA_BREAK, JINJA_CONTINUE };

struct jinja {
    struct jinja_block *blocks; /* arena */
    size_t used_bytes;
    struct jinja_limits limits;
    uint64_t steps;
    unsigned depth;
    unsigned line; /* being evaluated */
    struct fault fault;
    struct jinja_builder *out; /* where the template writes now */
    enum jinja_flow flow;
    struct jinja_scope *root;
    const char **names; /* interning table, open addressing */
    size_t n_names, names_size;
    int64_t now_unix_seconds;
};

#define JINJA_TRY(call)                                                                            \
    do {                                                                                           \
        enum status jinja_try_ = (call);                                                           \
        if (jinja_try_ != STATUS_OK) {                                                             \
            return jinja_try_;                                                                     \
        }                                                                                          \
    } while (0)

/* ---- jinja_mem.c: memory, limits, faults, text building */

void *jinja_take(struct jinja *j, size_t n, size_t size); /* zeroed; NULL: j->fault says why */
void jinja_release(struct jinja *j);
/* Counts work done; LIMIT when a rendering has had its share. */
enum status jinja_work(struct jinja *j, uint64_t steps) MUST_USE;
enum status jinja_enter(struct jinja *j) MUST_USE; /* one level deeper; undone by jinja_leave */
void jinja_leave(struct jinja *j);
/* An error with "line N: " before it. */
void jinja_fault(struct jinja *j, enum status status, const char *format, ...) PRINTF_LIKE(3, 4);
/* The same as an expression: its value is the status, for a reader of one file too, who then knows
 * that what follows an OK is set. */
#define jinja_fail(j, status, ...) (jinja_fault((j), (status), __VA_ARGS__), (status))
/* What a function returns whose memory jinja_take or jinja_intern refused; never OK. */
#define jinja_failure(j) ((j)->fault.status != STATUS_OK ? (j)->fault.status : STATUS_INTERNAL)
const char *jinja_intern(struct jinja *j, const char *text, size_t n); /* NULL as jinja_take */
enum status jinja_put(struct jinja *j, struct jinja_builder *b, const char *data,
                      size_t n) MUST_USE;
enum status jinja_put_c(struct jinja *j, struct jinja_builder *b, char c) MUST_USE;
enum status jinja_put_text(struct jinja *j, struct jinja_builder *b, const char *text) MUST_USE;
enum status jinja_put_code(struct jinja *j, struct jinja_builder *b, uint32_t code) MUST_USE;
enum status jinja_put_repeated(struct jinja *j, struct jinja_builder *b, struct jinja_text unit,
                               size_t times) MUST_USE;

/* ---- jinja_value.c */

static inline struct jinja_value jinja_none(void)
{
    return (struct jinja_value){.kind = JINJA_NONE};
}
static inline struct jinja_value jinja_bool(bool truth)
{
    return (struct jinja_value){.kind = JINJA_BOOL, .truth = truth};
}
static inline struct jinja_value jinja_int(int64_t integer)
{
    return (struct jinja_value){.kind = JINJA_INT, .integer = integer};
}
static inline struct jinja_value jinja_float(double real)
{
    return (struct jinja_value){.kind = JINJA_FLOAT, .real = real};
}
static inline struct jinja_value jinja_string(const char *data, size_t n)
{
    return (struct jinja_value){.kind = JINJA_STRING, .text = {data, n}};
}
static inline struct jinja_value jinja_built(const struct jinja_builder *b)
{
    return jinja_string(b->n > 0 ? b->data : "", b->n);
}
static inline struct jinja_value jinja_undefined(const char *name, size_t n)
{
    return (struct jinja_value){.kind = JINJA_UNDEFINED, .text = {name, n}};
}
static inline bool jinja_given(struct jinja_value value)
{
    return value.kind != JINJA_ABSENT;
}
static inline bool jinja_is_listlike(struct jinja_value value)
{
    return value.kind == JINJA_LIST || value.kind == JINJA_TUPLE;
}

struct jinja_value jinja_string_c(const char *text); /* a literal or arena text */
bool jinja_text_is(struct jinja_text text, const char *word);
bool jinja_truth(struct jinja_value value);
const char *jinja_type_name(struct jinja_value value); /* as Python's type(x).__name__ */
/* false where it is no number; booleans are. */
bool jinja_as_int(struct jinja_value value, int64_t *out);
bool jinja_as_real(struct jinja_value value, double *out);
enum status jinja_equal(struct jinja *j, struct jinja_value a, struct jinja_value b,
                        bool *out) MUST_USE;
/* *out < 0, 0, > 0; INVALID for types without an order. NaN is told by *out = 2. */
enum status jinja_compare(struct jinja *j, struct jinja_value a, struct jinja_value b,
                          int *out) MUST_USE;
enum status jinja_contains(struct jinja *j, struct jinja_value box, struct jinja_value item,
                           bool *out) MUST_USE;

enum status jinja_list_new(struct jinja *j, enum jinja_kind kind, size_t capacity,
                           struct jinja_value *out) MUST_USE;
enum status jinja_list_add(struct jinja *j, struct jinja_list *list,
                           struct jinja_value item) MUST_USE;
enum status jinja_pair_new(struct jinja *j, struct jinja_value a, struct jinja_value b,
                           struct jinja_value *out) MUST_USE;
/* The elements of anything that can be walked; an iterator is used up. */
enum status jinja_walk(struct jinja *j, struct jinja_value value, struct jinja_list **out) MUST_USE;
enum status jinja_length(struct jinja *j, struct jinja_value value, size_t *out) MUST_USE;

enum status jinja_dict_new(struct jinja *j, struct jinja_value *out) MUST_USE;
enum status jinja_dict_set(struct jinja *j, struct jinja_dict *dict, struct jinja_value key,
                           struct jinja_value value) MUST_USE;
/* NULL in *out where the key is missing. */
enum status jinja_dict_get(struct jinja *j, const struct jinja_dict *dict, struct jinja_value key,
                           struct jinja_value **out) MUST_USE;

/* ---- jinja_show.c: as Python prints */

enum status jinja_show(struct jinja *j, struct jinja_builder *b, struct jinja_value value) MUST_USE;
enum status jinja_repr(struct jinja *j, struct jinja_builder *b, struct jinja_value value) MUST_USE;
/* The value itself where it is a string, else what jinja_show writes. */
enum status jinja_to_text(struct jinja *j, struct jinja_value value,
                          struct jinja_text *out) MUST_USE;
enum { JINJA_REAL_TEXT = 32 };
void jinja_real_text(double real, char out[static JINJA_REAL_TEXT]);

/* ---- jinja_json.c */

enum status jinja_from_json(struct jinja *j, const char *what, const char *json,
                            struct jinja_value *out) MUST_USE;
struct jinja_json_style {
    bool ascii, sorted;
    const char *item_separator, *key_separator;
    struct jinja_text indent; /* data NULL: on one line */
};
enum status jinja_to_json(struct jinja *j, struct jinja_builder *b, struct jinja_value value,
                          const struct jinja_json_style *style) MUST_USE;

/* ---- jinja_ops.c */

enum status jinja_binary(struct jinja *j, int op, struct jinja_value a, struct jinja_value b,
                         struct jinja_value *out) MUST_USE;
/* a[b] and a.name, undefined where there is no such thing. */
enum status jinja_item(struct jinja *j, struct jinja_value box, struct jinja_value key,
                       struct jinja_value *out) MUST_USE;
enum status jinja_attribute(struct jinja *j, struct jinja_value box, const char *name,
                            struct jinja_value *out) MUST_USE;
/* bounds: NONE where left out. */
enum status jinja_slice(struct jinja *j, struct jinja_value box,
                        const struct jinja_value bounds[static 3],
                        struct jinja_value *out) MUST_USE;

/* ---- jinja_call.c */

enum status jinja_call_value(struct jinja *j, struct jinja_value callee,
                             const struct jinja_call *call, struct jinja_value *out) MUST_USE;
enum status jinja_apply_filter(struct jinja *j, struct jinja_text name, struct jinja_value value,
                               const struct jinja_call *call, struct jinja_value *out) MUST_USE;
enum status jinja_apply_test(struct jinja *j, struct jinja_text name, struct jinja_value value,
                             const struct jinja_call *call, bool *out) MUST_USE;
/* The attribute "a.b.0" of filters such as map(attribute=...); an integer is an index. */
enum status jinja_path(struct jinja *j, struct jinja_value value, struct jinja_value path,
                       struct jinja_value *out) MUST_USE;

/* Tables, ended by a NULL name. */
extern const struct jinja_builtin jinja_filters_text[], jinja_filters_list[], jinja_filters_pick[],
    jinja_tests[], jinja_globals[], jinja_methods_string[], jinja_methods_case[],
    jinja_methods_dict[], jinja_methods_list[], jinja_methods_loop[], jinja_methods_cycler[];
const struct jinja_builtin *jinja_builtin_find(const struct jinja_builtin *table,
                                               struct jinja_text name);

/* ---- jinja_format.c: "%s" % x and "{}".format(x) */

enum status jinja_percent(struct jinja *j, struct jinja_text format, struct jinja_value args,
                          struct jinja_value *out) MUST_USE;
enum status jinja_brace(struct jinja *j, struct jinja_text format, const struct jinja_call *call,
                        struct jinja_value *out) MUST_USE;

/* ---- jinja_lib.c: what several built-ins share */

/* Stable; keys [n] are moved along with items [n]. */
enum status jinja_sort(struct jinja *j, struct jinja_value *keys, struct jinja_value *items,
                       size_t n, bool reverse) MUST_USE;
enum status jinja_want_text(struct jinja *j, struct jinja_value value, const char *what,
                            struct jinja_text *out) MUST_USE;
enum status jinja_want_int(struct jinja *j, struct jinja_value value, const char *what,
                           int64_t *out) MUST_USE;
enum status jinja_lower(struct jinja *j, struct jinja_text text, struct jinja_value *out) MUST_USE;
enum status jinja_upper(struct jinja *j, struct jinja_text text, struct jinja_value *out) MUST_USE;
/* set.data NULL: white space. */
struct jinja_text jinja_strip(struct jinja_text text, struct jinja_text set, bool left, bool right);
/* Byte offset of the first (or last) occurrence, SIZE_MAX where there is none. */
size_t jinja_find(struct jinja_text text, struct jinja_text part);
size_t jinja_find_last(struct jinja_text text, struct jinja_text part);
enum status jinja_replace(struct jinja *j, struct jinja_text text, struct jinja_text old,
                          struct jinja_text replacement, int64_t most,
                          struct jinja_value *out) MUST_USE;

#endif
