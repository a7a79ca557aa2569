/* skein inspect logits: the logits after every position of a token sequence, as float32
 * [n_tokens, n_vocab], little endian: what the conformance checks compare.
 *
 * The same shards run here that a node runs, all in this process: --stages cuts the layers into
 * that many, so that "N stages equal one" can be checked from outside. Rows go through in the pass
 * size that nodes use; logits are written as they come, so only one pass of them is in memory. */
#include "node/cli/choice.h"
#include "node/cli/inspect.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { LOGITS_PASS_ROWS = 128, LOGITS_HEAD_ROWS = 32, LOGITS_MAX_STAGES = 64 };

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "float32 is written as it lies in memory");

struct logits_options {
    const char *tokens, *out, *engine, *kv, *quantize;
    uint32_t n_threads, n_stages;
    bool lock, mapped;
};

#define LOGITS(field) offsetof(struct logits_options, field)
static const struct option options[] = {
    OPTION("tokens", OPTION_TEXT, LOGITS(tokens), "FILE", "Token ids, a JSON array",
           .flag_only = true),
    OPTION("out", OPTION_TEXT, LOGITS(out), "FILE", "Where the logits go", .flag_only = true),
    OPTION("engine", OPTION_TEXT, LOGITS(engine), "NAME",
           "Engine to use; without it the best one that works here"),
    OPTION("threads", OPTION_COUNT, LOGITS(n_threads), "N",
           "Compute threads; without it one per core", .min = 1, .max = 1024),
    OPTION("stages", OPTION_COUNT, LOGITS(n_stages), "N", "Cut the layers into so many stages",
           .fallback = "1", .min = 1, .max = LOGITS_MAX_STAGES, .flag_only = true),
    OPTION("kv", OPTION_TEXT, LOGITS(kv), "TYPE", "Keep keys and values in f32, f16 or q8_0",
           .fallback = "f32", .flag_only = true),
    OPTION("quantize", OPTION_TEXT, LOGITS(quantize), "TYPE",
           "Turn the matrices into TYPE while loading; without it they stay as stored",
           .flag_only = true),
    OPTION("lock", OPTION_FLAG, LOGITS(lock), NULL, "Keep weights and KV from being swapped out",
           .flag_only = true),
    OPTION("mapped", OPTION_FLAG, LOGITS(mapped), NULL,
           "Use weights in their file, without a copy in memory", .flag_only = true),
};

const struct command_spec spec_inspect_logits = {
    "inspect logits",
    "FILE",
    "Write the logits after every token of a sequence.",
    "The output is float32 [tokens, vocabulary], little endian, without a header. No token is "
    "added.",
    options,
    COUNT_OF(options),
    1,
    1};

struct pipeline {
    const struct model_info *info;
    struct shard *stages[LOGITS_MAX_STAGES];
    uint32_t n_stages;
    float *hidden, *logits; /* [LOGITS_PASS_ROWS, row_floats], [LOGITS_HEAD_ROWS, n_vocab] */
    int fd;
};

static void pipeline_close(struct pipeline *p)
{
    for (uint32_t i = 0; i < p->n_stages; i++)
        shard_free(&p->stages[i]);
    mem_free(p->hidden);
    mem_free(p->logits);
    if (p->fd >= 0)
        (void)close(p->fd);
}

static enum status pipeline_open(struct pipeline *p, const struct model *model,
                                 enum engine_kind engine, const struct logits_options *values,
                                 size_t n_tokens, struct fault *fault)
{
    uint32_t n_layers = p->info->n_layers;
    uint32_t n_stages = values->n_stages;
    struct engine_box box;
    struct model_form form;
    enum status status = model_form_parse(values->kv, values->quantize, &form, fault);

    if (status != STATUS_OK)
        return status;
    form.mapped = values->mapped;
    engine_box(&box);
    p->hidden = mem_aligned(64, (size_t)LOGITS_PASS_ROWS * p->info->row_floats, sizeof *p->hidden);
    p->logits = mem_aligned(64, (size_t)LOGITS_HEAD_ROWS * p->info->n_vocab, sizeof *p->logits);
    if (!p->hidden || !p->logits)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory for the logits");
    for (uint32_t i = 0; i < n_stages && status == STATUS_OK; i++) {
        struct shard_spec spec = {
            .layer_begin = (uint32_t)((uint64_t)n_layers * i / n_stages),
            .layer_end = (uint32_t)((uint64_t)n_layers * (i + 1) / n_stages),
            .embed = i == 0,
            .head = i == 0,
            .n_slots = 1,
            .n_ctx_tokens = (uint32_t)n_tokens,
            .n_kv_blocks = (uint32_t)(n_tokens / SHARD_KV_BLOCK_TOKENS + 1),
            .max_rows = LOGITS_PASS_ROWS,
            .n_threads = values->n_threads ? values->n_threads : box.n_cores,
            .engine = engine,
            .form = form,
            .lock = values->lock,
        };
        choice_fit(model, &spec);
        status = shard_open(model, &spec, &p->stages[i], fault);
        if (status == STATUS_OK)
            p->n_stages++;
    }
    return status;
}

static enum status write_all(int fd, const void *data, size_t n_bytes, const char *path,
                             struct fault *fault)
{
    const char *at = data;

    while (n_bytes > 0) {
        ssize_t n = write(fd, at, n_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return fault_set(fault, status_from_errno(errno), "cannot write %s: %s", path,
                             strerror(errno));
        at += n;
        n_bytes -= (size_t)n;
    }
    return STATUS_OK;
}

/* Rows [at, at + n_rows) of the sequence through all stages and out. */
static enum status pipeline_pass(struct pipeline *p, const struct token_list *ids, size_t at,
                                 size_t n_rows, const char *path, struct fault *fault)
{
    struct shard_row rows[LOGITS_PASS_ROWS];
    enum status status;

    for (size_t i = 0; i < n_rows; i++)
        rows[i] = (struct shard_row){.slot = 0, .pos = (uint32_t)(at + i)};
    status = shard_embed(p->stages[0], ids->ids + at, n_rows, p->hidden);
    for (uint32_t i = 0; i < p->n_stages && status == STATUS_OK; i++)
        status = shard_forward(p->stages[i], rows, n_rows, p->hidden);
    for (size_t i = 0; i < n_rows && status == STATUS_OK; i += LOGITS_HEAD_ROWS) {
        size_t n = n_rows - i < LOGITS_HEAD_ROWS ? n_rows - i : LOGITS_HEAD_ROWS;
        status = shard_logits(p->stages[0], p->hidden + i * p->info->n_embd, n, p->logits);
        if (status != STATUS_OK)
            break;
        status = write_all(p->fd, p->logits, n * p->info->n_vocab * sizeof *p->logits, path, fault);
        if (status != STATUS_OK)
            return status;
    }
    if (status != STATUS_OK)
        return fault_set(fault, status, "tokens %zu to %zu: %s", at, at + n_rows - 1,
                         status_words(status));
    return STATUS_OK;
}

static enum status logits_check(const struct model *model, const struct logits_options *values,
                                enum engine_kind *engine, struct token_list *ids,
                                struct fault *fault)
{
    const struct model_info *info = model_info(model);
    enum status status = engine_choose(values->engine, engine, fault);

    if (status == STATUS_OK && !info->has_tensors)
        status = fault_set(fault, STATUS_UNSUPPORTED, "the file holds a vocabulary only");
    if (status == STATUS_OK)
        status = model_computable(model, *engine, fault);
    if (status == STATUS_OK && values->n_stages > info->n_layers)
        status = fault_set(fault, STATUS_INVALID, "--stages %u is more than the model's %u layers",
                           values->n_stages, info->n_layers);
    if (status == STATUS_OK)
        status = inspect_ids(values->tokens, info->n_vocab, ids, fault);
    if (status == STATUS_OK && ids->n == 0)
        status = fault_set(fault, STATUS_INVALID, "there are no token ids in %s", values->tokens);
    if (status == STATUS_OK && info->n_ctx_train && ids->n > info->n_ctx_train)
        status =
            fault_set(fault, STATUS_CONTEXT, "%zu tokens are longer than the model's context of %u",
                      ids->n, info->n_ctx_train);
    return status;
}

static enum status logits_run(const struct logits_options *values, const char *file,
                              struct fault *fault)
{
    struct pipeline pipeline = {.fd = -1};
    struct token_list ids = {0};
    struct model *model = NULL;
    enum engine_kind engine;
    enum status status;

    if (!values->tokens || !values->out)
        return fault_set(fault, STATUS_INVALID, "--tokens FILE and --out FILE are needed");
    status = inspect_open(file, &model, fault);
    if (status == STATUS_OK)
        status = logits_check(model, values, &engine, &ids, fault);
    if (status == STATUS_OK) {
        pipeline.info = model_info(model);
        status = pipeline_open(&pipeline, model, engine, values, ids.n, fault);
    }
    if (status == STATUS_OK) {
        pipeline.fd = open(values->out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (pipeline.fd < 0)
            status = fault_set(fault, status_from_errno(errno), "cannot write %s: %s", values->out,
                               strerror(errno));
    }
    for (size_t at = 0; at < ids.n && status == STATUS_OK; at += LOGITS_PASS_ROWS)
        status = pipeline_pass(&pipeline, &ids, at,
                               ids.n - at < LOGITS_PASS_ROWS ? ids.n - at : LOGITS_PASS_ROWS,
                               values->out, fault);
    pipeline_close(&pipeline);
    token_list_free(&ids);
    model_free(&model);
    return status;
}

int inspect_logits_command(int argc, char **argv)
{
    struct logits_options values;
    struct config config;
    struct fault fault = {0};
    int exit_code;

    if (cli_start(&spec_inspect_logits, argc, argv, &values, sizeof values, &config, &exit_code))
        exit_code = logits_run(&values, config.arguments[0], &fault) == STATUS_OK
                        ? cli_finish(0)
                        : cli_fail(&fault);
    config_free(&config);
    return exit_code;
}
