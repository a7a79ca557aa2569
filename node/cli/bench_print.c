/* The figures of skein bench as a table, or as JSON whose names stay as they are.
 *
 * The JSON has every test in `tests`; beside them stand the names of the first form of the command,
 * which speak of the first prompt and the first decode. A share is that of the limit of the test:
 * the bandwidth of memory, or the arithmetic peak that is named. */
#include <string.h>

#include "node/cli/bench_run.h"
#include "node/cli/cli.h"

static json_t *samples_json(const struct bench_samples *s)
{
    return json_pack("{s:f, s:f, s:f}", "median", bench_median(s), "min", s->values[0], "max",
                     s->values[s->n - 1]);
}

static const char *limit_name(const struct bench *b, const struct bench_test *test)
{
    return test->memory_binds ? "memory" : b->peak_name;
}

static json_t *test_json(const struct bench *b, const struct bench_test *test)
{
    return json_pack("{s:s, s:i, s:i, s:o, s:s, s:o, s:o, s:f, s:f}", "test",
                     test->prefill ? "prefill" : "decode", test->prefill ? "tokens" : "context",
                     (int)test->n_tokens, "batch", (int)test->batch, "tokens_per_second",
                     samples_json(&test->rate), "limit", limit_name(b, test), "share",
                     samples_json(&test->share), "read_bytes_per_second",
                     samples_json(&test->bandwidth), "bytes", test->bytes, "operations", test->ops);
}

static const struct bench_test *first_test(const struct bench *b, bool prefill)
{
    for (size_t i = 0; i < b->n_tests; i++) {
        if (b->tests[i].prefill == prefill)
            return &b->tests[i];
    }
    return NULL;
}

/* The names of `skein bench FILE --prompt N --generate N`. */
static void add_first_tests(const struct bench *b, json_t *object)
{
    const struct bench_test *p = first_test(b, true), *d = first_test(b, false);
    uint32_t n = b->plan.n_generate;

    if (p) {
        json_object_set_new(object, "prompt_tokens", json_integer(p->n_tokens));
        json_object_set_new(object, "prefill_tokens_per_second", samples_json(&p->rate));
        json_object_set_new(object, "prefill_flops_per_second",
                            json_real(bench_median(&p->rate) * p->ops / p->n_tokens));
    }
    json_object_set_new(object, "generated_tokens", json_integer(n));
    if (d) {
        json_object_set_new(object, "decode_tokens_per_second", samples_json(&d->rate));
        json_object_set_new(object, "bytes_per_token",
                            json_integer((json_int_t)(d->bytes / n / d->batch)));
        json_object_set_new(object, "read_bytes_per_second", samples_json(&d->bandwidth));
        json_object_set_new(object, "bandwidth_share",
                            json_pack("{s:f}", "median",
                                      bench_median(&d->rate) * d->bytes / n / d->batch /
                                          bench_median(&d->bandwidth)));
    }
}

int bench_print_json(const struct bench *b)
{
    const struct engine_peak *peak = &b->peak;
    json_t *tests = json_array();
    json_t *object = json_pack("{s:s, s:s, s:s, s:i, s:i, s:s, s:b, s:b}", "model", b->info->name,
                               "types", b->info->types, "engine", engine_name(b->plan.engine),
                               "threads", (int)b->plan.n_threads, "runs", (int)b->plan.n_runs, "kv",
                               kv_type_name(b->plan.form.kv_type), "lock", (int)b->plan.lock,
                               "mapped", (int)b->plan.form.mapped);

    add_first_tests(b, object);
    for (size_t i = 0; i < b->n_tests; i++)
        json_array_append_new(tests, test_json(b, &b->tests[i]));
    json_object_set_new(object, "tests", tests);
    json_object_set_new(object, "peak_operations_per_second",
                        json_pack("{s:f, s:f, s:f}", "f32", peak->f32_per_second, "bf16",
                                  peak->bf16_per_second, "int8", peak->int8_per_second));
    json_object_set_new(object, "load_seconds", json_real(b->load_seconds));
    json_object_set_new(object, "first_pass_seconds", json_real(b->first_pass_seconds));
    json_object_set_new(object, "first_pass_page_faults", json_integer(b->first_pass_faults));
    json_object_set_new(object, "weight_bytes", json_integer((json_int_t)b->need.weight_bytes));
    json_object_set_new(object, "mapped_bytes", json_integer((json_int_t)b->need.mapped_bytes));
    json_object_set_new(object, "kv_bytes", json_integer((json_int_t)b->need.kv_bytes));
    json_object_set_new(object, "peak_resident_bytes",
                        json_integer((json_int_t)b->peak_resident_bytes));
    return cli_print_json(object);
}

static void print_test(const struct bench *b, struct cli_table *table,
                       const struct bench_test *test)
{
    const struct bench_samples *r = &test->rate;
    const char *limit = limit_name(b, test);

    cli_table_add(table, "%s", test->prefill ? "prefill" : "decode");
    if (test->prefill)
        cli_table_add(table, "%u tokens", test->n_tokens);
    else
        cli_table_add(table, "%u x %u at %u", test->batch, b->plan.n_generate, test->n_tokens);
    cli_table_add(table, "%.1f", bench_median(r));
    cli_table_add(table, "%.1f to %.1f", r->values[0], r->values[r->n - 1]);
    cli_table_add(table, "%.0f",
                  bench_median(r) * test->ops / 1e9 /
                      (test->prefill ? test->n_tokens : (double)test->batch * b->plan.n_generate));
    cli_table_add(table, "%.1f", bench_median(&test->bandwidth) / 1e9);
    cli_table_add(table, "%.0f %% of %s", bench_median(&test->share) * 100, limit);
}

int bench_print_text(const struct bench *b)
{
    static const char *const heads[] = {"test",  "size",        "tokens/s", "least to most",
                                        "Gop/s", "memory GB/s", "reached"};
    struct cli_table table = {.n_columns = COUNT_OF(heads),
                              .right = {false, false, true, true, true, true, true}};
    char weights[32], kv[32], resident[32], mapped[32];

    (void)printf("%s (%s), engine %s, %u thread%s, KV %s; loaded in %.2f s (%.1f GB/s), first "
                 "token %.3f s\n",
                 b->info->name, b->info->types, engine_name(b->plan.engine), b->plan.n_threads,
                 b->plan.n_threads == 1 ? "" : "s", kv_type_name(b->plan.form.kv_type),
                 b->load_seconds,
                 (double)(b->need.weight_bytes + b->need.mapped_bytes) / 1e9 / b->load_seconds,
                 b->first_pass_seconds);
    if (b->need.mapped_bytes)
        (void)printf("%s of weights are used in their file\n",
                     bytes_format_size(b->need.mapped_bytes, mapped, sizeof mapped));
    (void)printf("peak memory %s: weights %s, KV %s\n",
                 bytes_format_size(b->peak_resident_bytes, resident, sizeof resident),
                 bytes_format_size(b->need.weight_bytes, weights, sizeof weights),
                 bytes_format_size(b->need.kv_bytes, kv, sizeof kv));
    (void)printf("arithmetic peaks: f32 %.0f, bf16 %.0f, int8 %.0f Gop/s\n",
                 b->peak.f32_per_second / 1e9, b->peak.bf16_per_second / 1e9,
                 b->peak.int8_per_second / 1e9);
    for (size_t i = 0; i < COUNT_OF(heads); i++)
        cli_table_add(&table, "%s", heads[i]);
    for (size_t i = 0; i < b->n_tests; i++)
        print_test(b, &table, &b->tests[i]);
    cli_table_print(&table, stdout);
    return cli_finish(0);
}
