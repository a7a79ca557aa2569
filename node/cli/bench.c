/* skein bench: how fast this box alone runs a model, beside what its memory allows.
 *
 * The whole model is one shard in this process. A run prefills a prompt of pseudo-random tokens in
 * passes as large as the engine takes, then decodes one token at a time, logits included; sampling
 * is not. Decode reads every active weight once per token and the KV cache so far, so tokens/s
 * times those bytes is a bandwidth, and its share of the one that engine_measure finds between the
 * runs is what there is to judge. Medians over the runs, with the least and the most.
 *
 * What fails: the file, the engine, memory: one line, and the status's exit code. */
#include "node/cli/bench.h"

#include <stdlib.h>
#include <time.h>

#include "node/cli/inspect.h"

enum { BENCH_MAX_RUNS = 99, BENCH_MAX_TOKENS = 1 << 20 };

struct bench_options {
    uint32_t n_prompt, n_generate, n_threads, n_runs;
    const char *engine, *kv, *quantize;
    bool json;
};

#define BENCH(field) offsetof(struct bench_options, field)
static const struct option options[] = {
    OPTION("prompt", OPTION_COUNT, BENCH(n_prompt), "N", "Tokens to prefill", .fallback = "512",
           .min = 1, .max = BENCH_MAX_TOKENS, .flag_only = true),
    OPTION("generate", OPTION_COUNT, BENCH(n_generate), "N", "Tokens to decode one by one",
           .fallback = "128", .min = 1, .max = BENCH_MAX_TOKENS, .flag_only = true),
    OPTION("threads", OPTION_COUNT, BENCH(n_threads), "N",
           "Compute threads; without it one per core", .min = 1, .max = 1024),
    OPTION("engine", OPTION_TEXT, BENCH(engine), "NAME",
           "Engine to use; without it the best one that works here"),
    OPTION("repeat", OPTION_COUNT, BENCH(n_runs), "N", "Runs, of which the median counts",
           .fallback = "3", .min = 1, .max = BENCH_MAX_RUNS, .flag_only = true),
    OPTION("kv", OPTION_TEXT, BENCH(kv), "TYPE", "Keep keys and values in f32, f16 or q8_0",
           .fallback = "f32", .flag_only = true),
    OPTION("quantize", OPTION_TEXT, BENCH(quantize), "TYPE",
           "Turn the matrices into TYPE while loading; without it they stay as stored",
           .flag_only = true),
    OPTION("json", OPTION_FLAG, BENCH(json), NULL, "Print JSON", .flag_only = true),
};

static const struct command_spec spec = {
    "bench",
    "FILE",
    "Measure prefill and decode speed of a model on this box.",
    "The share is of the memory bandwidth measured between the runs.",
    options,
    COUNT_OF(options),
    1,
    1};

struct samples {
    double values[BENCH_MAX_RUNS];
    uint32_t n;
};

struct bench {
    const struct model_info *info;
    struct shard *shard;
    enum engine_kind engine;
    struct model_form form;
    uint32_t n_threads, max_rows;
    uint64_t bytes_per_token;
    double load_seconds, flops_per_row;
    uint32_t *tokens;
    struct shard_row *rows;
    float *hidden, *logits;
    struct samples prefill, decode, bandwidth, share;
};

static double now_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void samples_add(struct samples *s, double value)
{
    s->values[s->n++] = value;
    qsort(s->values, s->n, sizeof *s->values, by_value);
}

static double samples_median(const struct samples *s)
{
    return (s->values[s->n / 2] + s->values[(s->n - 1) / 2]) / 2;
}

static void bench_close(struct bench *b)
{
    shard_free(&b->shard);
    mem_free(b->tokens);
    mem_free(b->rows);
    mem_free(b->hidden);
    mem_free(b->logits);
}

/* Weights that a token reads, and the KV of a sequence that is halfway through its answer. */
static enum status count_costs(struct bench *b, const struct model *model,
                               const struct bench_options *values)
{
    uint64_t kv_tokens = values->n_prompt + values->n_generate / 2;
    struct model_costs costs;

    if (model_costs(model, &b->form, &costs) != STATUS_OK)
        return STATUS_NO_MEMORY;
    b->bytes_per_token = costs.head_active_bytes;
    for (uint32_t i = 0; i < b->info->n_layers; i++) {
        b->bytes_per_token += costs.layer_active_bytes[i] + costs.layer_kv_bytes[i] * kv_tokens;
        b->flops_per_row += b->info->layer_flops[i];
    }
    model_costs_free(&costs);
    return STATUS_OK;
}

static enum status bench_open(struct bench *b, const struct model *model,
                              const struct bench_options *values, struct fault *fault)
{
    uint32_t n_tokens = values->n_prompt + values->n_generate;
    struct engine_box box;
    double start = now_seconds();
    enum status status;

    engine_box(&box);
    b->n_threads = values->n_threads ? values->n_threads : box.n_cores;
    b->max_rows = values->n_prompt < SHARD_MAX_ROWS ? values->n_prompt : SHARD_MAX_ROWS;
    struct shard_spec shard_spec = {
        .layer_end = b->info->n_layers,
        .embed = true,
        .head = true,
        .n_slots = 1,
        .n_ctx_tokens = n_tokens,
        .n_kv_blocks = n_tokens / SHARD_KV_BLOCK_TOKENS + 1,
        .max_rows = b->max_rows,
        .n_threads = b->n_threads,
        .engine = b->engine,
        .form = b->form,
    };
    status = shard_open(model, &shard_spec, &b->shard, fault);
    if (status != STATUS_OK)
        return status;
    b->load_seconds = now_seconds() - start;
    b->tokens = MEM_NEW_N(uint32_t, n_tokens);
    b->rows = MEM_NEW_N(struct shard_row, n_tokens);
    b->hidden = mem_aligned(64, (size_t)b->max_rows * b->info->n_embd, sizeof *b->hidden);
    b->logits = mem_aligned(64, b->info->n_vocab, sizeof *b->logits);
    if (!b->tokens || !b->rows || !b->hidden || !b->logits)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory for %u tokens", n_tokens);
    for (uint32_t i = 0; i < n_tokens; i++) {
        b->tokens[i] = (uint32_t)((i * UINT64_C(2654435761) + 12345) % b->info->n_vocab);
        b->rows[i] = (struct shard_row){.slot = 0, .pos = i};
    }
    return count_costs(b, model, values);
}

/* Tokens [at, at + n) through the model; the logits of the last one. */
static enum status bench_pass(struct bench *b, uint32_t at, uint32_t n, bool logits)
{
    enum status status = shard_embed(b->shard, b->tokens + at, n, b->hidden);

    if (status == STATUS_OK)
        status = shard_forward(b->shard, b->rows + at, n, b->hidden);
    if (status == STATUS_OK && logits)
        status =
            shard_logits(b->shard, b->hidden + (size_t)(n - 1) * b->info->n_embd, 1, b->logits);
    return status;
}

static enum status bench_run(struct bench *b, const struct bench_options *values)
{
    struct engine_speed before, after;
    enum status status = engine_measure(b->engine, b->n_threads, &before);
    double start = now_seconds(), middle, end;

    shard_truncate(b->shard, 0, 0);
    for (uint32_t at = 0; at < values->n_prompt && status == STATUS_OK; at += b->max_rows) {
        uint32_t left = values->n_prompt - at, n = left < b->max_rows ? left : b->max_rows;
        status = bench_pass(b, at, n, at + n == values->n_prompt);
    }
    middle = now_seconds();
    for (uint32_t i = 0; i < values->n_generate && status == STATUS_OK; i++)
        status = bench_pass(b, values->n_prompt + i, 1, true);
    end = now_seconds();
    if (status == STATUS_OK)
        status = engine_measure(b->engine, b->n_threads, &after);
    if (status != STATUS_OK)
        return status;
    double rate = values->n_generate / (end - middle);
    double bandwidth = (before.read_bytes_per_second + after.read_bytes_per_second) / 2;
    samples_add(&b->prefill, values->n_prompt / (middle - start));
    samples_add(&b->decode, rate);
    samples_add(&b->bandwidth, bandwidth);
    samples_add(&b->share, rate * (double)b->bytes_per_token / bandwidth);
    return STATUS_OK;
}

static json_t *samples_json(const struct samples *s, double unit)
{
    return json_pack("{s:f, s:f, s:f}", "median", samples_median(s) * unit, "min",
                     s->values[0] * unit, "max", s->values[s->n - 1] * unit);
}

static int print_json(const struct bench *b, const struct bench_options *values)
{
    return cli_print_json(json_pack(
        "{s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:f, s:o, s:o, s:I, s:o, s:o, s:f}", "model",
        b->info->name, "types", b->info->types, "engine", engine_name(b->engine), "threads",
        (int)b->n_threads, "prompt_tokens", (int)values->n_prompt, "generated_tokens",
        (int)values->n_generate, "runs", (int)values->n_runs, "load_seconds", b->load_seconds,
        "prefill_tokens_per_second", samples_json(&b->prefill, 1), "decode_tokens_per_second",
        samples_json(&b->decode, 1), "bytes_per_token", (json_int_t)b->bytes_per_token,
        "read_bytes_per_second", samples_json(&b->bandwidth, 1), "bandwidth_share",
        samples_json(&b->share, 1), "prefill_flops_per_second",
        samples_median(&b->prefill) * b->flops_per_row));
}

static int print_text(const struct bench *b, const struct bench_options *values)
{
    const struct samples *p = &b->prefill, *d = &b->decode;
    char bytes[32], bandwidth[32];

    (void)printf("%s (%s), engine %s, %u thread%s, loaded in %.2f s\n", b->info->name,
                 b->info->types, engine_name(b->engine), b->n_threads, b->n_threads == 1 ? "" : "s",
                 b->load_seconds);
    (void)printf("prefill %6u tokens  %9.1f tokens/s  (%.1f to %.1f)  %.0f Gflop/s\n",
                 values->n_prompt, samples_median(p), p->values[0], p->values[p->n - 1],
                 samples_median(p) * b->flops_per_row * 1e-9);
    (void)printf("decode  %6u tokens  %9.1f tokens/s  (%.1f to %.1f)\n", values->n_generate,
                 samples_median(d), d->values[0], d->values[d->n - 1]);
    (void)printf(
        "each token reads %s; memory reads %s/s; decode reached %.0f %% of it\n",
        bytes_format_size(b->bytes_per_token, bytes, sizeof bytes),
        bytes_format_size((uint64_t)samples_median(&b->bandwidth), bandwidth, sizeof bandwidth),
        samples_median(&b->share) * 100);
    return cli_finish(0);
}

static enum status bench_check(const struct model *model, const struct bench_options *values,
                               struct bench *b, struct fault *fault)
{
    const struct model_info *info = model_info(model);
    enum status status = engine_choose(values->engine, &b->engine, fault);

    if (status == STATUS_OK && !info->has_tensors)
        status = fault_set(fault, STATUS_UNSUPPORTED, "the file holds a vocabulary only");
    if (status == STATUS_OK)
        status = model_runnable(model, b->engine, fault);
    if (status == STATUS_OK)
        status = model_form_parse(values->kv, values->quantize, &b->form, fault);
    if (status == STATUS_OK && info->n_ctx_train &&
        values->n_prompt + values->n_generate > info->n_ctx_train)
        status = fault_set(fault, STATUS_CONTEXT,
                           "%u + %u tokens are longer than the model's context of %u: lower "
                           "--prompt or --generate",
                           values->n_prompt, values->n_generate, info->n_ctx_train);
    return status;
}

static int bench(const struct bench_options *values, const char *file, struct fault *fault)
{
    struct model *model = NULL;
    struct bench b = {0};
    int exit_code = 0;
    enum status status = inspect_open(file, &model, fault);

    if (status == STATUS_OK)
        status = bench_check(model, values, &b, fault);
    if (status == STATUS_OK) {
        b.info = model_info(model);
        status = bench_open(&b, model, values, fault);
    }
    if (status == STATUS_OK) {
        status = bench_pass(&b, 0, 1, true); /* warms up: caches, the BLAS library */
        for (uint32_t i = 0; i < values->n_runs && status == STATUS_OK; i++)
            status = bench_run(&b, values);
        if (status != STATUS_OK)
            (void)fault_set(fault, status, "a pass failed: %s", status_words(status));
    }
    if (status == STATUS_OK)
        exit_code = values->json ? print_json(&b, values) : print_text(&b, values);
    else
        exit_code = cli_fail(fault);
    bench_close(&b);
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
