/* Measuring a model: what is run, and the limit it is held against.
 *
 * The whole model is one shard. Prefill runs pseudo-random tokens through it in passes as large as
 * the engine takes, logits of the last one included. Decode starts from a context whose first page
 * was computed and whose other pages repeat it (shard_repeat), and goes on token by token for every
 * sequence of the batch, logits of all of them included; sampling is not.
 *
 * The limit of a test is the longer of two times. Memory: every weight that the rows use once per
 * pass, and the KV of every sequence once per step, at the bandwidth that this process reads from
 * huge pages, taken right before and after. Arithmetic: the multiply-adds of the products at the
 * peak of the instruction that suits the model's types (int8 for quantised ones, float32 for
 * others); attention's own are left out. Of experts, b tokens that choose k of n at random use n (1
 * - (1 - k/n)^b).
 *
 * What fails: memory, a context the model does not have; the status of the pass that failed. */
#include "node/cli/bench_run.h"
#include "node/cli/choice.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define SHOW_SECONDS 0.2

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

static void samples_add(struct bench_samples *s, double value)
{
    s->values[s->n++] = value;
    qsort(s->values, s->n, sizeof *s->values, by_value);
}

double bench_median(const struct bench_samples *s)
{
    return (s->values[s->n / 2] + s->values[(s->n - 1) / 2]) / 2;
}

/* ---------------------------------------------------------------- what a test costs */

/* Weights that n tokens read in one pass. */
static double weight_bytes(const struct bench *b, const struct model_costs *costs, uint32_t n)
{
    const struct model_info *info = b->info;
    double share = info->n_experts ? (double)info->n_experts_used / info->n_experts : 1;
    double used = share < 1 ? (1 - pow(1 - share, n) - share) / (1 - share) : 0;
    double bytes = (double)costs->head_active_bytes;

    for (uint32_t il = 0; il < info->n_layers; il++) {
        double idle = (double)(costs->layer_bytes[il] - costs->layer_active_bytes[il]);

        bytes += (double)costs->layer_active_bytes[il] + idle * used;
    }
    return bytes;
}

static void count_test(const struct bench *b, const struct model_costs *costs,
                       struct bench_test *test)
{
    const struct model_info *info = b->info;
    double kv = 0, ops = 0, n = test->n_tokens, steps = b->plan.n_generate;

    for (uint32_t il = 0; il < info->n_layers; il++) {
        kv += (double)costs->layer_kv_bytes[il];
        ops += info->layer_flops[il];
    }
    if (test->prefill) {
        for (uint32_t at = 0; at < test->n_tokens; at += b->max_rows) {
            uint32_t left = test->n_tokens - at, rows = left < b->max_rows ? left : b->max_rows;

            test->bytes += weight_bytes(b, costs, rows) + kv * at;
        }
        test->ops = n * ops + info->head_flops;
    } else {
        test->bytes = steps * (weight_bytes(b, costs, test->batch) +
                               kv * (n + (steps - 1) / 2) * test->batch);
        test->ops = steps * test->batch * (ops + info->head_flops);
    }
}

static void choose_peak(struct bench *b)
{
    const char *type = b->info->types, *quantize = weight_type_name(b->plan.form.quantize);
    bool floats = type[0] == 'F' || type[0] == 'B';

    if (floats && quantize) { /* quantised ones never grow into floats */
        type = quantize;
        floats = type[0] == 'F' || type[0] == 'B';
    }
    floats |= b->plan.engine != ENGINE_NATIVE;

    b->peak_name = "f32";
    b->peak_ops = b->peak.f32_per_second;
    if (floats && strcmp(type, "BF16_DOT") == 0 && b->peak.bf16_per_second > 0) {
        b->peak_name = "bf16";
        b->peak_ops = b->peak.bf16_per_second;
    } else if (!floats && b->peak.int8_per_second > 0) {
        b->peak_name = "int8";
        b->peak_ops = b->peak.int8_per_second;
    }
}

static enum status list_tests(struct bench *b, const struct model *model)
{
    const struct bench_plan *plan = &b->plan;
    struct model_form form = plan->form;
    struct model_costs costs;
    enum status status;

    form.mapped = false; /* what is read counts, wherever it is */
    status = model_costs(model, &form, &costs);

    if (status)
        return status;
    for (uint32_t i = 0; i < plan->prompts.n; i++)
        b->tests[b->n_tests++] =
            (struct bench_test){.prefill = true, .n_tokens = plan->prompts.values[i], .batch = 1};
    for (uint32_t c = 0; c < plan->contexts.n && plan->n_generate; c++)
        for (uint32_t i = 0; i < plan->batches.n && b->n_tests < BENCH_MAX_TESTS; i++)
            b->tests[b->n_tests++] = (struct bench_test){.n_tokens = plan->contexts.values[c],
                                                         .batch = plan->batches.values[i]};
    for (size_t i = 0; i < b->n_tests; i++)
        count_test(b, &costs, &b->tests[i]);
    model_costs_free(&costs);
    return STATUS_OK;
}

/* ---------------------------------------------------------------- opening */

/* A line on the terminal that writes over itself. */
static void show_load(void *owner, uint64_t done_bytes, uint64_t total_bytes)
{
    struct bench *b = owner;
    double now = now_seconds();
    char done[32], total[32];

    if (!b->plan.progress || (now - b->shown_seconds < SHOW_SECONDS && done_bytes < total_bytes))
        return;
    b->shown_seconds = now;
    (void)fprintf(stderr, "\rloading %s of %s%s", bytes_format_size(done_bytes, done, sizeof done),
                  bytes_format_size(total_bytes, total, sizeof total),
                  done_bytes < total_bytes ? "  " : "\n");
}

static uint32_t most(const struct bench_counts *counts)
{
    uint32_t value = 0;

    for (uint32_t i = 0; i < counts->n; i++)
        value = counts->values[i] > value ? counts->values[i] : value;
    return value;
}

static struct shard_spec spec_of(struct bench *b)
{
    const struct bench_plan *plan = &b->plan;
    uint32_t longest = most(&plan->contexts) + plan->n_generate, prompt = most(&plan->prompts);
    uint32_t blocks = longest / SHARD_KV_BLOCK_TOKENS + 1;

    longest = longest > prompt ? longest : prompt;
    if (blocks * b->max_batch < longest / SHARD_KV_BLOCK_TOKENS + 1)
        blocks = longest / SHARD_KV_BLOCK_TOKENS + 1;
    else
        blocks *= b->max_batch;
    return (struct shard_spec){
        .layer_end = b->info->n_layers,
        .embed = true,
        .head = true,
        .n_slots = b->max_batch,
        .n_ctx_tokens = longest,
        .n_kv_blocks = blocks,
        .max_rows = b->max_rows,
        .n_threads = plan->n_threads,
        .engine = plan->engine,
        .form = plan->form,
        .lock = plan->lock,
        .on_load = show_load,
        .on_load_owner = b,
    };
}

static enum status take_buffers(struct bench *b, struct fault *fault)
{
    uint32_t n_logits = b->max_batch;

    b->tokens = MEM_NEW_N(uint32_t, b->max_rows);
    b->rows = MEM_NEW_N(struct shard_row, b->max_rows);
    b->hidden = mem_aligned(64, (size_t)b->max_rows * b->info->row_floats, sizeof *b->hidden);
    b->logits = mem_aligned(64, (size_t)n_logits * b->info->n_vocab, sizeof *b->logits);
    if (!b->tokens || !b->rows || !b->hidden || !b->logits)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory for %u rows", b->max_rows);
    memset(b->hidden, 0, (size_t)b->max_rows * b->info->row_floats * sizeof *b->hidden);
    memset(b->logits, 0, (size_t)n_logits * b->info->n_vocab * sizeof *b->logits);
    return STATUS_OK;
}

enum status bench_open(struct bench *b, const struct model *model, const struct bench_plan *plan,
                       struct fault *fault)
{
    uint32_t prompt = most(&plan->prompts), rows = SHARD_KV_BLOCK_TOKENS;
    double start = now_seconds();
    struct shard_spec spec;
    enum status status;

    b->plan = *plan;
    b->info = model_info(model);
    b->max_batch = most(&plan->batches);
    rows = prompt > rows ? prompt : rows;
    rows = b->max_batch > rows ? b->max_batch : rows;
    b->max_rows = rows < SHARD_MAX_ROWS ? rows : SHARD_MAX_ROWS;
    spec = spec_of(b);
    choice_fit(model, &spec);
    b->plan.form = spec.form;
    shard_need(model, &spec, &b->need);
    status = shard_open(model, &spec, &b->shard, fault);
    if (status != STATUS_OK)
        return status;
    b->load_seconds = now_seconds() - start;
    status = take_buffers(b, fault);
    if (status == STATUS_OK && list_tests(b, model) != STATUS_OK)
        status = fault_set(fault, STATUS_NO_MEMORY, "out of memory");
    return status;
}

void bench_close(struct bench *b)
{
    shard_free(&b->shard);
    mem_free(b->tokens);
    mem_free(b->rows);
    mem_free(b->hidden);
    mem_free(b->logits);
}

/* ---------------------------------------------------------------- passes */

/* The next n rows of each of n_slots sequences that are at `pos`, and the logits of the last. */
static enum status pass(struct bench *b, uint32_t n_slots, uint32_t n, uint32_t pos, bool logits)
{
    uint32_t n_rows = n_slots * n, first = n_slots == 1 ? n_rows - 1 : 0;
    enum status status;

    for (uint32_t i = 0; i < n_rows; i++) {
        uint32_t slot = n_slots == 1 ? 0 : i, at = n_slots == 1 ? pos + i : pos;

        b->rows[i] = (struct shard_row){.slot = slot, .pos = at};
        b->tokens[i] = (uint32_t)((((uint64_t)at << 8) + slot) * UINT64_C(2654435761) + 12345) %
                       b->info->n_vocab;
    }
    status = shard_embed(b->shard, b->tokens, n_rows, b->hidden);
    if (status == STATUS_OK)
        status = shard_forward(b->shard, b->rows, n_rows, b->hidden);
    if (status == STATUS_OK && logits)
        status = shard_logits(b->shard, b->hidden + (size_t)first * b->info->n_embd, n_rows - first,
                              b->logits);
    return status;
}

static enum status prefill(struct bench *b, uint32_t n_tokens)
{
    enum status status = STATUS_OK;

    for (uint32_t at = 0; at < n_tokens && status == STATUS_OK; at += b->max_rows) {
        uint32_t left = n_tokens - at, n = left < b->max_rows ? left : b->max_rows;

        status = pass(b, 1, n, at, at + n == n_tokens);
    }
    return status;
}

/* Every sequence of the batch gets the context; nothing of this is timed. */
static enum status fill_context(struct bench *b, uint32_t batch, uint32_t n_tokens)
{
    uint32_t computed = n_tokens < SHARD_KV_BLOCK_TOKENS ? n_tokens : SHARD_KV_BLOCK_TOKENS;
    enum status status = STATUS_OK;

    for (uint32_t at = 0; at < computed && status == STATUS_OK; at++)
        status = pass(b, batch, 1, at, false);
    for (uint32_t s = 0; s < batch && n_tokens > computed && status == STATUS_OK; s++)
        status = shard_repeat(b->shard, s, n_tokens);
    return status;
}

static enum status decode(struct bench *b, const struct bench_test *test)
{
    enum status status = STATUS_OK;

    for (uint32_t i = 0; i < b->plan.n_generate && status == STATUS_OK; i++)
        status = pass(b, test->batch, 1, test->n_tokens + i, true);
    return status;
}

static void forget_all(struct bench *b)
{
    for (uint32_t s = 0; s < b->max_batch; s++)
        shard_truncate(b->shard, s, 0);
}

static enum status run_test(struct bench *b, const struct bench_test *test, double *seconds)
{
    double start;
    enum status status = STATUS_OK;

    forget_all(b);
    if (!test->prefill)
        status = fill_context(b, test->batch, test->n_tokens);
    start = now_seconds();
    if (status == STATUS_OK)
        status = test->prefill ? prefill(b, test->n_tokens) : decode(b, test);
    *seconds = now_seconds() - start;
    return status;
}

/* ---------------------------------------------------------------- runs */

static long faults_so_far(void)
{
    struct rusage usage;

    return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_minflt + usage.ru_majflt : 0;
}

static uint64_t peak_resident_bytes(void)
{
    struct rusage usage;

    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

/* The first token after the load, then a pass of every size, before anything else takes memory. */
static enum status first_passes(struct bench *b)
{
    long faults = faults_so_far();
    double start = now_seconds();
    enum status status = pass(b, 1, 1, 0, true);

    b->first_pass_seconds = now_seconds() - start;
    b->first_pass_faults = faults_so_far() - faults;
    for (size_t i = 0; i < b->n_tests && status == STATUS_OK; i++) {
        const struct bench_test *test = &b->tests[i];

        forget_all(b);
        if (test->prefill)
            status = prefill(b, test->n_tokens < b->max_rows ? test->n_tokens : b->max_rows);
        else
            status = pass(b, test->batch, 1, 0, true);
    }
    b->peak_resident_bytes = peak_resident_bytes();
    return status;
}

static void keep(struct bench *b, struct bench_test *test, double seconds, double bandwidth)
{
    double n = test->prefill ? test->n_tokens : (double)test->batch * b->plan.n_generate;
    double memory = test->bytes / bandwidth;
    double arithmetic = b->peak_ops > 0 ? test->ops / b->peak_ops : 0;

    test->memory_binds = memory > arithmetic;
    samples_add(&test->rate, n / seconds);
    samples_add(&test->bandwidth, bandwidth);
    samples_add(&test->share, (memory > arithmetic ? memory : arithmetic) / seconds);
}

enum status bench_run(struct bench *b, struct fault *fault)
{
    double before = 0, after = 0, seconds = 0;
    enum status status = first_passes(b);

    if (status == STATUS_OK)
        status = engine_measure_peak(b->plan.n_threads, &b->peak);
    if (status == STATUS_OK)
        status = engine_measure_read(b->plan.n_threads, &before);
    choose_peak(b);
    for (uint32_t run = 0; run < b->plan.n_runs && status == STATUS_OK; run++) {
        for (size_t i = 0; i < b->n_tests && status == STATUS_OK; i++) {
            status = run_test(b, &b->tests[i], &seconds);
            if (status == STATUS_OK)
                status = engine_measure_read(b->plan.n_threads, &after);
            if (status == STATUS_OK)
                keep(b, &b->tests[i], seconds, (before + after) / 2);
            before = after;
        }
    }
    if (status != STATUS_OK)
        return fault_set(fault, status, "a pass failed: %s", status_words(status));
    return STATUS_OK;
}
