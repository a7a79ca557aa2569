/* skein bench: how fast this box alone runs a model, beside what the box allows.
 *
 * One process, no node. --prompt, --context and --batch take lists; every prompt length is
 * prefilled, and every batch is decoded at every context. Without --context decode starts where
 * the first prompt ends. bench_run.c measures and says what a share is of, bench_print.c prints.
 *
 * What fails: a list that is none, the file, the engine, memory: one line, and the status's exit
 * code. */
#include "node/cli/bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/cli/bench_run.h"
#include "node/cli/inspect.h"

enum { BENCH_MAX_BATCH = 256 };

struct bench_options {
    uint32_t n_generate, n_threads, n_runs;
    const char *prompts, *contexts, *batches;
    const char *engine, *kv, *quantize;
    bool lock, mapped, json;
};

#define BENCH(field) offsetof(struct bench_options, field)
static const struct option options[] = {
    OPTION("prompt", OPTION_TEXT, BENCH(prompts), "N,…", "Tokens to prefill", .fallback = "512",
           .flag_only = true),
    OPTION("generate", OPTION_COUNT, BENCH(n_generate), "N", "Tokens to decode one by one",
           .fallback = "128", .min = 1, .max = BENCH_MAX_TOKENS, .flag_only = true),
    OPTION("context", OPTION_TEXT, BENCH(contexts), "N,…",
           "Tokens before those that are decoded; without it the first prompt", .flag_only = true),
    OPTION("batch", OPTION_TEXT, BENCH(batches), "N,…", "Sequences that are decoded at once",
           .fallback = "1", .flag_only = true),
    OPTION("threads", OPTION_COUNT, BENCH(n_threads), "N",
           "Compute threads; without it one per core", .min = 1, .max = 1024),
    OPTION("engine", OPTION_TEXT, BENCH(engine), "NAME",
           "Engine to use; without it the best one that works here"),
    OPTION("kv", OPTION_TEXT, BENCH(kv), "TYPE", "Keep keys and values in f32, f16 or q8_0",
           .flag_only = true),
    OPTION("quantize", OPTION_TEXT, BENCH(quantize), "TYPE",
           "Turn the weights into this type while loading, e.g. Q8_0", .flag_only = true),
    OPTION("lock", OPTION_FLAG, BENCH(lock), NULL, "Keep weights and KV from being swapped out",
           .flag_only = true),
    OPTION("mapped", OPTION_FLAG, BENCH(mapped), NULL,
           "Use weights in their file, without a copy in memory", .flag_only = true),
    OPTION("repeat", OPTION_COUNT, BENCH(n_runs), "N", "Runs, of which the median counts",
           .fallback = "3", .min = 1, .max = BENCH_MAX_RUNS, .flag_only = true),
    OPTION("json", OPTION_FLAG, BENCH(json), NULL, "Print JSON", .flag_only = true),
};

static const struct command_spec spec = {
    "bench",
    "FILE",
    "Measure prefill and decode speed of a model on this box.",
    "What a figure reached is its share of the limit that binds it: the bandwidth of memory, "
    "measured\nbefore and after, or the arithmetic peak of the processor.",
    options,
    COUNT_OF(options),
    1,
    1};

/* "128,512": up to BENCH_MAX_COUNTS numbers. */
static enum status counts_parse(const char *flag, const char *text, uint32_t min, uint32_t max,
                                struct bench_counts *out, struct fault *fault)
{
    const char *at = text;

    for (;;) {
        char *end;
        unsigned long value;

        errno = 0;
        value = strtoul(at, &end, 10);
        if (end == at || *at < '0' || *at > '9' || (*end && *end != ',') || errno || value < min ||
            value > max)
            return fault_set(fault, STATUS_INVALID,
                             "--%s takes numbers from %u to %u with commas between, not '%.40s'",
                             flag, min, max, text);
        if (out->n == BENCH_MAX_COUNTS)
            return fault_set(fault, STATUS_INVALID, "--%s takes at most %d numbers", flag,
                             BENCH_MAX_COUNTS);
        out->values[out->n++] = (uint32_t)value;
        if (!*end)
            return STATUS_OK;
        at = end + 1;
    }
}

static enum status plan_make(const struct bench_options *values, struct bench_plan *plan,
                             struct fault *fault)
{
    struct engine_box box;
    enum status status =
        counts_parse("prompt", values->prompts, 1, BENCH_MAX_TOKENS, &plan->prompts, fault);

    engine_box(&box);
    plan->n_generate = values->n_generate;
    plan->n_runs = values->n_runs;
    plan->n_threads = values->n_threads ? values->n_threads : box.n_cores;
    plan->lock = values->lock;
    plan->progress = !values->json && isatty(STDERR_FILENO) == 1;
    if (!status && values->contexts)
        status =
            counts_parse("context", values->contexts, 0, BENCH_MAX_TOKENS, &plan->contexts, fault);
    else if (!status)
        plan->contexts = (struct bench_counts){{plan->prompts.values[0]}, 1};
    if (!status)
        status = counts_parse("batch", values->batches, 1, BENCH_MAX_BATCH, &plan->batches, fault);
    if (!status && plan->prompts.n + plan->contexts.n * plan->batches.n > BENCH_MAX_TESTS)
        status = fault_set(fault, STATUS_INVALID, "more than %d tests in one go", BENCH_MAX_TESTS);
    if (!status)
        status = model_form_parse(values->kv, values->quantize, &plan->form, fault);
    plan->form.mapped = values->mapped;
    if (!status)
        status = engine_choose(values->engine, &plan->engine, fault);
    return status;
}

/* The longest sequence must fit the context the model was made for. */
static enum status check_model(const struct model *model, const struct bench_plan *plan,
                               struct fault *fault)
{
    const struct model_info *info = model_info(model);
    enum status status = STATUS_OK;

    if (!info->has_tensors)
        status = fault_set(fault, STATUS_UNSUPPORTED, "the file holds a vocabulary only");
    if (status == STATUS_OK)
        status = model_runnable(model, plan->engine, fault);
    for (uint32_t i = 0; i < plan->prompts.n && !status && info->n_ctx_train; i++) {
        if (plan->prompts.values[i] > info->n_ctx_train)
            status = fault_set(fault, STATUS_CONTEXT,
                               "%u tokens are longer than the model's context of %u: lower "
                               "--prompt",
                               plan->prompts.values[i], info->n_ctx_train);
    }
    for (uint32_t i = 0; i < plan->contexts.n && !status && info->n_ctx_train; i++) {
        if (plan->contexts.values[i] + plan->n_generate > info->n_ctx_train)
            status = fault_set(fault, STATUS_CONTEXT,
                               "%u + %u tokens are longer than the model's context of %u: lower "
                               "--prompt, --context or --generate",
                               plan->contexts.values[i], plan->n_generate, info->n_ctx_train);
    }
    return status;
}

static int bench(const struct bench_options *values, const char *file, struct fault *fault)
{
    struct bench *b = MEM_NEW(struct bench);
    struct bench_plan plan = {.n_runs = 0};
    struct model *model = NULL;
    int exit_code = 0;
    enum status status =
        b ? plan_make(values, &plan, fault) : fault_set(fault, STATUS_NO_MEMORY, "out of memory");

    if (status == STATUS_OK)
        status = inspect_open(file, &model, fault);
    if (status == STATUS_OK)
        status = check_model(model, &plan, fault);
    if (status == STATUS_OK)
        status = bench_open(b, model, &plan, fault);
    if (status == STATUS_OK)
        status = bench_run(b, fault);
    if (status == STATUS_OK)
        exit_code = values->json ? bench_print_json(b) : bench_print_text(b);
    else
        exit_code = cli_fail(fault);
    if (b)
        bench_close(b);
    mem_free(b);
    model_free(&model);
    return exit_code;
}

int bench_command(int argc, char **argv)
{
    struct bench_options values;
    struct config config;
    struct fault fault = {0};
    int exit_code;

    if (cli_start(&spec, argc, argv, &values, sizeof values, &config, &exit_code))
        exit_code = bench(&values, config.arguments[0], &fault);
    config_free(&config);
    return exit_code;
}
