#ifndef SKEIN_NODE_CLI_BENCH_RUN_H
#define SKEIN_NODE_CLI_BENCH_RUN_H

/* The measurements behind skein bench, and how they are printed. */
#include "engine/engine.h"

enum {
    BENCH_MAX_RUNS = 99,
    BENCH_MAX_TOKENS = 1 << 20,
    BENCH_MAX_COUNTS = 16,
    BENCH_MAX_TESTS = 80
};

struct bench_counts {
    uint32_t values[BENCH_MAX_COUNTS];
    uint32_t n;
};

/* What to measure: a prefill of every prompt length, a decode of n_generate tokens of every batch
 * of sequences at every context. */
struct bench_plan {
    struct bench_counts prompts, contexts, batches;
    uint32_t n_generate, n_threads, n_runs;
    enum engine_kind engine;
    struct model_form form;
    bool lock, progress;
};

struct bench_samples { /* ascending */
    double values[BENCH_MAX_RUNS];
    uint32_t n;
};

struct bench_test {
    bool prefill;
    uint32_t n_tokens; /* of the prompt, or the context that decode starts from */
    uint32_t batch;    /* sequences */
    double bytes, ops; /* of the whole test: read from memory at least, 2 per multiply-add */
    bool memory_binds; /* of the two limits, the one that leaves less */
    struct bench_samples rate, share,
        bandwidth; /* tokens/s of all sequences; of the limit; bytes/s */
};

struct bench {
    struct bench_plan plan;
    const struct model_info *info;
    struct shard *shard;
    uint32_t max_rows, max_batch;
    struct shard_need need;
    struct bench_test tests[BENCH_MAX_TESTS];
    size_t n_tests;
    struct engine_peak peak;
    const char *peak_name; /* which of the peaks the products of this model could reach */
    double peak_ops;
    double load_seconds, first_pass_seconds; /* the first token after the load */
    long first_pass_faults;
    double shown_seconds;         /* when the load was last spoken of */
    uint64_t peak_resident_bytes; /* load and one pass of every kind, measuring not counted */
    uint32_t *tokens;             /* [max_rows] */
    struct shard_row *rows;       /* [max_rows] */
    float *hidden, *logits;
};

enum status bench_open(struct bench *b, const struct model *model, const struct bench_plan *plan,
                       struct fault *fault) MUST_USE;
/* All tests, plan.n_runs times, one after the other so that each meets the same hours. */
enum status bench_run(struct bench *b, struct fault *fault) MUST_USE;
void bench_close(struct bench *b);

double bench_median(const struct bench_samples *samples);
int bench_print_json(const struct bench *b);
int bench_print_text(const struct bench *b);

#endif
