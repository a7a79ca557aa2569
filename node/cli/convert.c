/* skein convert: a model as a GGUF file in a type of one's choice, for skein and other programs.
 *
 * The engine does the work in one pass over the model; here are the command line, a line of
 * progress on a terminal, and the refusal to write over what is there. */
#include <stdio.h>
#include <unistd.h>

#include "engine/engine.h"
#include "node/cli/inspect.h"

struct convert_options {
    const char *type;
    bool force;
};

#define CONVERT(field) offsetof(struct convert_options, field)
static const struct option options[] = {
    OPTION("type", OPTION_TEXT, CONVERT(type), "TYPE",
           "Type of the matrices: F32, F16, BF16, Q8_0, Q6_K, Q5_K, Q5_1, Q5_0, Q4_K, IQ4_NL, "
           "Q4_1, Q4_0",
           .fallback = "F16", .flag_only = true),
    OPTION("force", OPTION_FLAG, CONVERT(force), NULL, "Write over a file that is there",
           .flag_only = true),
};

const struct command_spec spec_convert = {
    "convert",
    "IN OUT",
    "Write a model as a GGUF file.",
    "IN is a Hugging Face folder or a GGUF file, OUT the file to write. Norms, routers and biases "
    "stay as they are, and so does what the type would not make smaller, but for F32; rows that "
    "are no whole blocks of the type get one with shorter blocks.",
    options,
    COUNT_OF(options),
    2,
    2};

static bool on_tensor(void *owner, size_t n_done, size_t n_total)
{
    (void)owner;
    if (isatty(STDERR_FILENO))
        (void)fprintf(stderr, "\r%zu of %zu tensors%s", n_done, n_total,
                      n_done == n_total ? "\n" : "");
    return true;
}

static enum status convert_run(const struct convert_options *values, const char *in,
                               const char *out, struct fault *fault)
{
    struct model_convert what = {.path = out, .type = values->type, .on_tensor = on_tensor};
    struct model *model = NULL;
    enum status status;

    if (!values->force && access(out, F_OK) == 0)
        return fault_set(fault, STATUS_IN_USE, "%s is there already; --force writes over it", out);
    status = inspect_open(in, &model, fault);
    if (status == STATUS_OK)
        status = model_convert(model, &what, fault);
    model_free(&model);
    return status;
}

int convert_command(int argc, char **argv)
{
    struct convert_options values;
    struct config config;
    struct fault fault = {0};
    int exit_code;

    if (cli_start(&spec_convert, argc, argv, &values, sizeof values, &config, &exit_code))
        exit_code =
            convert_run(&values, config.arguments[0], config.arguments[1], &fault) == STATUS_OK
                ? cli_finish(0)
                : cli_fail(&fault);
    config_free(&config);
    return exit_code;
}
