/* The functions and objects that every template sees: Jinja's own and the two of Hugging Face. */
#include "engine/text/jinja_value.h"

#include <string.h>
#include <time.h>

enum { MAX_RANGE = 100000 }; /* as Jinja's sandbox */

static enum status run_range(struct jinja *j, struct jinja_value self,
                             const struct jinja_value *args, const struct jinja_call *call,
                             struct jinja_value *out)
{
    int64_t given[3] = {0, 0, 1};
    (void)self;
    (void)call;
    for (int i = 0; i < 3; i++) {
        if (jinja_given(args[i])) {
            JINJA_TRY(jinja_want_int(j, args[i], "the argument of range", &given[i]));
        }
    }
    int64_t from = jinja_given(args[1]) ? given[0] : 0;
    int64_t to = jinja_given(args[1]) ? given[1] : given[0];
    int64_t step = given[2];
    if (step == 0) {
        return jinja_fail(j, STATUS_INVALID, "range() arg 3 must not be zero");
    }
    JINJA_TRY(jinja_list_new(j, JINJA_LIST, 0, out));
    out->list->flavor = JINJA_RANGE;
    for (int64_t at = from; step > 0 ? at < to : at > to;) {
        if (out->list->n == MAX_RANGE) {
            return jinja_fail(j, STATUS_LIMIT, "a range with more than %d elements", MAX_RANGE);
        }
        JINJA_TRY(jinja_list_add(j, out->list, jinja_int(at)));
        if (__builtin_add_overflow(at, step, &at)) {
            break;
        }
    }
    return STATUS_OK;
}

/* dict(a=1), namespace({...}, b=2). */
static enum status dict_fill(struct jinja *j, const struct jinja_call *call,
                             struct jinja_value *out)
{
    JINJA_TRY(jinja_dict_new(j, out));
    if (call->n > 1) {
        return jinja_fail(j, STATUS_INVALID, "expected at most 1 argument, got %zu", call->n);
    }
    bool copied = call->n == 1 && call->args[0].kind == JINJA_DICT;
    for (size_t i = 0; copied && i < call->args[0].dict->n; i++) {
        const struct jinja_pair *pair = &call->args[0].dict->pairs[i];
        JINJA_TRY(jinja_dict_set(j, out->dict, pair->key, pair->value));
    }
    struct jinja_list *pairs = NULL;
    if (call->n == 1 && !copied) {
        JINJA_TRY(jinja_walk(j, call->args[0], &pairs));
    }
    for (size_t i = 0; pairs != NULL && i < pairs->n; i++) {
        struct jinja_list *pair;
        JINJA_TRY(jinja_walk(j, pairs->items[i], &pair));
        if (pair->n != 2) {
            return jinja_fail(j, STATUS_INVALID, "a dict is made of pairs");
        }
        JINJA_TRY(jinja_dict_set(j, out->dict, pair->items[0], pair->items[1]));
    }
    for (size_t i = 0; i < call->n_named; i++) {
        JINJA_TRY(jinja_dict_set(j, out->dict, jinja_string_c(call->names[i]), call->named[i]));
    }
    return STATUS_OK;
}

static enum status run_dict(struct jinja *j, struct jinja_value self,
                            const struct jinja_value *args, const struct jinja_call *call,
                            struct jinja_value *out)
{
    (void)self;
    (void)args;
    return dict_fill(j, call, out);
}

static enum status run_namespace(struct jinja *j, struct jinja_value self,
                                 const struct jinja_value *args, const struct jinja_call *call,
                                 struct jinja_value *out)
{
    (void)self;
    (void)args;
    JINJA_TRY(dict_fill(j, call, out));
    out->kind = JINJA_NAMESPACE;
    return STATUS_OK;
}

static enum status cycler_new(struct jinja *j, enum jinja_kind kind,
                              const struct jinja_value *items, size_t n, struct jinja_value *out)
{
    struct jinja_cycler *cycler = jinja_take(j, 1, sizeof *cycler);
    if (cycler == NULL) {
        return jinja_failure(j);
    }
    cycler->items = jinja_take(j, n, sizeof *items);
    if (cycler->items == NULL) {
        return jinja_failure(j);
    }
    memcpy(cycler->items, items, n * sizeof *items);
    cycler->n = n;
    *out = (struct jinja_value){.kind = kind, .cycler = cycler};
    return STATUS_OK;
}

static enum status run_cycler(struct jinja *j, struct jinja_value self,
                              const struct jinja_value *args, const struct jinja_call *call,
                              struct jinja_value *out)
{
    (void)self;
    (void)args;
    if (call->n == 0) {
        return jinja_fail(j, STATUS_INVALID, "cycler needs at least one item");
    }
    return cycler_new(j, JINJA_CYCLER, call->args, call->n, out);
}

static enum status run_joiner(struct jinja *j, struct jinja_value self,
                              const struct jinja_value *args, const struct jinja_call *call,
                              struct jinja_value *out)
{
    (void)self;
    (void)call;
    struct jinja_value separator = jinja_given(args[0]) ? args[0] : jinja_string(", ", 2);
    return cycler_new(j, JINJA_JOINER, &separator, 1, out);
}

static enum status run_raise(struct jinja *j, struct jinja_value self,
                             const struct jinja_value *args, const struct jinja_call *call,
                             struct jinja_value *out)
{
    struct jinja_text text;
    (void)self;
    (void)call;
    (void)out;
    JINJA_TRY(jinja_to_text(j, args[0], &text));
    (void)fault_set(&j->fault, STATUS_INVALID, "%.*s", (int)(text.n < 500 ? text.n : 500),
                    text.data);
    return STATUS_INVALID;
}

/* The time is UTC, so that every node renders the same prompt. A Python time without a zone prints
 * nothing for %z and %Z. */
static enum status run_strftime(struct jinja *j, struct jinja_value self,
                                const struct jinja_value *args, const struct jinja_call *call,
                                struct jinja_value *out)
{
    struct jinja_text format;
    struct jinja_value text;
    struct tm parts;
    (void)self;
    (void)call;
    JINJA_TRY(jinja_want_text(j, args[0], "the argument of strftime_now", &format));
    const struct {
        struct jinja_text old, replacement;
    } changes[] = {{{"%f", 2}, {"000000", 6}}, {{"%z", 2}, {"", 0}}, {{"%Z", 2}, {"", 0}}};
    text = args[0];
    for (size_t i = 0; i < COUNT_OF(changes); i++) {
        JINJA_TRY(jinja_replace(j, text.text, changes[i].old, changes[i].replacement, -1, &text));
    }
    time_t now = (time_t)j->now_unix_seconds;
    if (text.text.n > 1000 || gmtime_r(&now, &parts) == NULL) {
        return jinja_fail(j, STATUS_LIMIT, "strftime_now: the format or the time is out of range");
    }
    struct jinja_builder b = {0};
    char plain[1001], result[4096];
    memcpy(plain, text.text.data, text.text.n);
    plain[text.text.n] = '\0';
    size_t n = plain[0] == '\0' ? 0 : strftime(result, sizeof result, plain, &parts);
    JINJA_TRY(jinja_put(j, &b, result, n));
    *out = jinja_built(&b);
    return STATUS_OK;
}

static enum status cycler_next(struct jinja *j, struct jinja_value self,
                               const struct jinja_value *args, const struct jinja_call *call,
                               struct jinja_value *out)
{
    (void)j;
    (void)args;
    (void)call;
    struct jinja_cycler *cycler = self.cycler;
    *out = cycler->items[cycler->position];
    cycler->position = (cycler->position + 1) % cycler->n;
    return STATUS_OK;
}

static enum status cycler_reset(struct jinja *j, struct jinja_value self,
                                const struct jinja_value *args, const struct jinja_call *call,
                                struct jinja_value *out)
{
    (void)j;
    (void)args;
    (void)call;
    self.cycler->position = 0;
    *out = jinja_none();
    return STATUS_OK;
}

static enum status loop_cycle(struct jinja *j, struct jinja_value self,
                              const struct jinja_value *args, const struct jinja_call *call,
                              struct jinja_value *out)
{
    (void)args;
    if (call->n == 0) {
        return jinja_fail(j, STATUS_INVALID, "no items for cycling given");
    }
    *out = call->args[self.loop->index % call->n];
    return STATUS_OK;
}

static enum status loop_changed(struct jinja *j, struct jinja_value self,
                                const struct jinja_value *args, const struct jinja_call *call,
                                struct jinja_value *out)
{
    struct jinja_value now;
    bool same = false;
    (void)args;
    JINJA_TRY(jinja_list_new(j, JINJA_TUPLE, call->n, &now));
    for (size_t i = 0; i < call->n; i++) {
        JINJA_TRY(jinja_list_add(j, now.list, call->args[i]));
    }
    if (jinja_given(self.loop->changed)) {
        JINJA_TRY(jinja_equal(j, now, self.loop->changed, &same));
    }
    self.loop->changed = now;
    *out = jinja_bool(!same);
    return STATUS_OK;
}

const struct jinja_builtin jinja_methods_loop[] = {
    {"cycle", "*", loop_cycle},
    {"changed", "*", loop_changed},
    {NULL, NULL, NULL},
};

const struct jinja_builtin jinja_methods_cycler[] = {
    {"next", "", cycler_next},
    {"reset", "", cycler_reset},
    {NULL, NULL, NULL},
};

const struct jinja_builtin jinja_globals[] = {
    {"range", "start ?stop ?step", run_range},
    {"dict", "*", run_dict},
    {"namespace", "*", run_namespace},
    {"cycler", "*", run_cycler},
    {"joiner", "?sep", run_joiner},
    {"raise_exception", "message", run_raise},
    {"strftime_now", "format", run_strftime},
    {"lipsum", "*", NULL},
    {NULL, NULL, NULL},
};
