/* skein inspect: the engine's parts, each on its own, in formats that other programs can read.
 *
 *   model FILE → JSON · tokens FILE < text → JSON ids · text FILE < ids → bytes
 *   prompt FILE < messages.json → the rendered prompt · logits: inspect_logits.c
 *
 * Nothing here needs a node. Standard output carries the result and nothing else; input is read as
 * bytes, zeros included. */
#include "node/cli/inspect.h"

#include <math.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { INSPECT_MAX_BYTES = 256 * 1024 * 1024 };

struct inspect_options {
    bool no_special, no_bos, special, no_generation_prompt;
    const char *template_path, *messages, *tools, *kwargs, *now;
};

#define INSPECT(field) offsetof(struct inspect_options, field)
static const struct option token_options[] = {
    OPTION("no-special", OPTION_FLAG, INSPECT(no_special), NULL,
           "Take text like <|im_end|> as plain text, not as its token", .flag_only = true),
    OPTION("no-bos", OPTION_FLAG, INSPECT(no_bos), NULL,
           "Do not add the tokens that the vocabulary asks for at the ends", .flag_only = true),
};
static const struct option text_options[] = {
    OPTION("special", OPTION_FLAG, INSPECT(special), NULL, "Write control tokens out",
           .flag_only = true),
};
static const struct option prompt_options[] = {
    OPTION("template", OPTION_TEXT, INSPECT(template_path), "FILE",
           "Chat template instead of the model's own", .flag_only = true),
    OPTION("messages", OPTION_TEXT, INSPECT(messages), "FILE",
           "Messages; without it standard input", .flag_only = true),
    OPTION("tools", OPTION_TEXT, INSPECT(tools), "FILE", "Tools for the template",
           .flag_only = true),
    OPTION("kwargs", OPTION_TEXT, INSPECT(kwargs), "FILE",
           "Further template variables, a JSON object", .flag_only = true),
    OPTION("no-generation-prompt", OPTION_FLAG, INSPECT(no_generation_prompt), NULL,
           "Do not open the assistant's turn", .flag_only = true),
    OPTION("now", OPTION_TEXT, INSPECT(now), "TIME",
           "Time for the template, e.g. 2026-01-31T12:00:00; without it the local time",
           .flag_only = true),
};

static const struct command_spec spec_model = {
    "inspect model", "FILE", "Print what a model file holds, as JSON.", NULL, NULL, 0, 1, 1};
static const struct command_spec spec_tokens = {
    "inspect tokens",
    "FILE",
    "Print the token ids of the text on standard input, as a JSON array.",
    "Works with files that hold a vocabulary only.",
    token_options,
    COUNT_OF(token_options),
    1,
    1};
static const struct command_spec spec_text = {
    "inspect text",
    "FILE",
    "Print the bytes of the token ids on standard input (a JSON array).",
    NULL,
    text_options,
    COUNT_OF(text_options),
    1,
    1};
static const struct command_spec spec_prompt = {
    "inspect prompt",
    "[FILE]",
    "Print the prompt that the chat template makes of messages (JSON).",
    "FILE may be left out where --template is given.",
    prompt_options,
    COUNT_OF(prompt_options),
    0,
    1};

const struct command_spec spec_inspect = {
    "inspect",
    "model|tokens|text|prompt|logits …",
    "Look at the parts of a model and of the engine.",
    " skein inspect model FILE\n"
    " skein inspect tokens FILE [--no-special] [--no-bos] < text\n"
    " skein inspect text FILE [--special] < ids.json\n"
    " skein inspect prompt FILE < messages.json\n"
    " skein inspect logits FILE --tokens ids.json --out F\n"
    "Each has its own --help. FILE is a GGUF file, a Hugging Face folder, or `tiny`, the model in "
    "the program.",
    NULL,
    0,
    0,
    0};

enum status inspect_open(const char *path, struct model **out, struct fault *fault)
{
    const void *data;
    size_t size_bytes;

    if (strcmp(path, "tiny") != 0 || access(path, F_OK) == 0)
        return model_open(path, out, fault);
    model_demo(&data, &size_bytes);
    return model_open_memory(data, size_bytes, "tiny", out, fault);
}

enum status inspect_ids(const char *path, uint32_t n_vocab, struct token_list *out,
                        struct fault *fault)
{
    json_t *root = NULL, *list, *item;
    enum status status = cli_read_json(path, &root, fault);
    size_t i;

    if (status != STATUS_OK)
        return status;
    list = json_is_object(root) ? json_object_get(root, "tokens") : root;
    if (!json_is_array(list))
        status = fault_set(fault, STATUS_FORMAT, "token ids must be a JSON array of whole numbers");
    json_array_foreach(list, i, item)
    {
        json_int_t id = json_integer_value(item);
        if (status != STATUS_OK)
            break;
        if (!json_is_integer(item) || id < 0 || id >= n_vocab)
            status = fault_set(fault, STATUS_INVALID,
                               "entry %zu of the token ids is not a whole number from 0 to %u", i,
                               n_vocab - 1);
        else if (token_list_add(out, (uint32_t)id) != STATUS_OK)
            status = fault_set(fault, STATUS_NO_MEMORY, "no memory for the token ids");
    }
    json_decref(root);
    return status;
}

/* ---------------------------------------------------------------- model */

static json_t *runnable_json(const struct model *model, enum engine_kind kind)
{
    struct fault fault = {0};
    bool can = model_runnable(model, kind, &fault) == STATUS_OK;

    return json_pack("{s:b, s:s?}", "runnable", can, "why_not", can ? NULL : fault.text);
}

/* What the model's makers recommend; null where they say nothing. */
static json_t *sampling_json(const struct model *model)
{
    struct sample_params p = {0};
    unsigned settings = model_sampling(model, &p);
    const struct {
        enum sample_setting setting;
        const char *name;
        double value;
    } rows[] = {
        {SAMPLE_TEMPERATURE, "temperature", (double)p.temperature},
        {SAMPLE_TOP_P, "top_p", (double)p.top_p},
        {SAMPLE_MIN_P, "min_p", (double)p.min_p},
        {SAMPLE_TYPICAL_P, "typical_p", (double)p.typical_p},
        {SAMPLE_REPEAT_PENALTY, "repeat_penalty", (double)p.repeat_penalty},
        {SAMPLE_XTC_PROBABILITY, "xtc_probability", (double)p.xtc_probability},
        {SAMPLE_XTC_THRESHOLD, "xtc_threshold", (double)p.xtc_threshold},
    };
    json_t *out = settings ? json_object() : json_null();

    for (size_t i = 0; i < COUNT_OF(rows); i++) /* seven digits are all that a float has */
        if (settings & rows[i].setting)
            (void)json_object_set_new(out, rows[i].name,
                                      json_real(round(rows[i].value * 1e7) / 1e7));
    if (settings & SAMPLE_TOP_K)
        (void)json_object_set_new(out, "top_k", json_integer(p.top_k));
    if (settings & SAMPLE_REPEAT_LAST_N)
        (void)json_object_set_new(out, "repeat_last_n", json_integer(p.repeat_last_n));
    return out;
}

static json_t *model_json(const struct model *model)
{
    const struct model_info *info = model_info(model);
    json_t *engines = json_object();

    for (int kind = 0; kind < ENGINE_COUNT; kind++)
        (void)json_object_set_new(engines, engine_name((enum engine_kind)kind),
                                  runnable_json(model, (enum engine_kind)kind));
    return json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:I, s:I, s:o, "
        "s:o}",
        "name", info->name, "architecture", info->architecture, "types", info->types, "layers",
        (json_int_t)info->n_layers, "embedding_length", (json_int_t)info->n_embd, "vocabulary_size",
        (json_int_t)(info->n_vocab ? info->n_vocab : model_token_count(model)), "context_length",
        (json_int_t)info->n_ctx_train, "heads", (json_int_t)info->n_heads, "kv_heads",
        (json_int_t)info->n_kv_heads, "feed_forward_length", (json_int_t)info->n_ff, "parameters",
        (json_int_t)info->n_parameters, "file_bytes", (json_int_t)info->file_bytes, "has_tensors",
        info->has_tensors, "tied_embeddings", info->tied, "embedding_bytes",
        (json_int_t)info->embed_bytes, "head_bytes", (json_int_t)info->head_bytes, "sampling",
        sampling_json(model), "engines", engines);
}

static enum status inspect_model(const struct model *model, struct fault *fault)
{
    json_t *json = model_json(model);

    if (!json)
        return fault_set(fault, STATUS_FORMAT, "the file's names are not UTF-8");
    return cli_print_json(json) == 0
               ? STATUS_OK
               : fault_set(fault, STATUS_IO, "the description could not be written");
}

/* ---------------------------------------------------------------- tokens and text */

static enum status inspect_tokens(const struct model *model, const struct inspect_options *options,
                                  struct fault *fault)
{
    unsigned flags = (options->no_bos ? 0u : TOKENS_ADD_SPECIAL) |
                     (options->no_special ? 0u : TOKENS_PARSE_SPECIAL);
    struct token_list ids = {0};
    struct buffer text = {0};
    enum status status = cli_read(NULL, INSPECT_MAX_BYTES, &text, fault);

    if (status == STATUS_OK)
        status = model_tokenize(model, (const char *)text.data, text.len, flags, &ids, fault);
    if (status == STATUS_OK) {
        (void)fputc('[', stdout);
        for (size_t i = 0; i < ids.n; i++)
            (void)printf("%s%u", i ? ", " : "", ids.ids[i]);
        (void)fputs("]\n", stdout);
    }
    buffer_free(&text);
    token_list_free(&ids);
    return status;
}

static enum status inspect_text(const struct model *model, const struct inspect_options *options,
                                struct fault *fault)
{
    struct token_list ids = {0};
    struct detok *detok = NULL;
    struct buffer text = {0};
    enum status status = inspect_ids(NULL, model_token_count(model), &ids, fault);

    if (status != STATUS_OK)
        goto out;
    status =
        detok_new(model, DETOK_CLEAN | DETOK_RAW | (options->special ? DETOK_SPECIAL : 0), &detok);
    for (size_t i = 0; i < ids.n && status == STATUS_OK; i++)
        status = detok_push(detok, ids.ids[i], &text);
    if (status == STATUS_OK)
        status = detok_finish(detok, true, &text);
    if (status == STATUS_OK)
        (void)fwrite(text.data, 1, text.len, stdout);
    else
        (void)fault_set(fault, status, "the ids cannot be turned into text: %s",
                        status_words(status));
out:
    detok_free(&detok);
    buffer_free(&text);
    token_list_free(&ids);
    return status;
}

/* ---------------------------------------------------------------- prompt */

static enum status time_parse(const char *text, int64_t *out, struct fault *fault)
{
    struct tm tm = {0};
    const char *end = strptime(text, "%Y-%m-%d", &tm);

    if (end && *end)
        end = strptime(end, "T%H:%M:%S", &tm);
    if (end && *end == 'Z')
        end++;
    if (!end || *end)
        return fault_set(fault, STATUS_INVALID, "--now: \"%.60s\" is not like 2026-01-31T12:00:00Z",
                         text);
    *out = timegm(&tm);
    return STATUS_OK;
}

/* A file as text that ends in a zero byte. */
static enum status text_read(const char *path, struct buffer *out, struct fault *fault)
{
    enum status status = cli_read(path, INSPECT_MAX_BYTES, out, fault);

    if (status == STATUS_OK && memchr(out->data, 0, out->len))
        return fault_set(fault, STATUS_FORMAT, "%s holds a zero byte",
                         path ? path : "standard input");
    return status;
}

static enum status inspect_prompt(const struct model *model, const struct inspect_options *options,
                                  struct fault *fault)
{
    struct buffer messages = {0}, tools = {0}, kwargs = {0}, template = {0}, prompt = {0};
    struct chat_request request = {.no_generation_prompt = options->no_generation_prompt,
                                   .now_unix_seconds = chat_local_seconds((int64_t)time(NULL))};
    enum status status = text_read(options->messages, &messages, fault);

    if (status == STATUS_OK && options->tools)
        status = text_read(options->tools, &tools, fault);
    if (status == STATUS_OK && options->kwargs)
        status = text_read(options->kwargs, &kwargs, fault);
    if (status == STATUS_OK && options->template_path)
        status = text_read(options->template_path, &template, fault);
    if (status == STATUS_OK && options->now)
        status = time_parse(options->now, &request.now_unix_seconds, fault);
    request.messages_json = (const char *)messages.data;
    request.tools_json = (const char *)tools.data;
    request.kwargs_json = (const char *)kwargs.data;
    request.template_text = (const char *)template.data;
    if (status == STATUS_OK)
        status = chat_render(model, &request, &prompt, fault);
    if (status == STATUS_OK)
        (void)fwrite(prompt.data, 1, prompt.len, stdout);
    buffer_free(&messages);
    buffer_free(&tools);
    buffer_free(&kwargs);
    buffer_free(&template);
    buffer_free(&prompt);
    return status;
}

/* ---------------------------------------------------------------- the command */

static enum status inspect_part(const struct command_spec *spec, const struct config *config,
                                const struct inspect_options *options, struct fault *fault)
{
    struct model *model = NULL;
    enum status status = STATUS_OK;

    if (config->n_arguments > 0)
        status = inspect_open(config->arguments[0], &model, fault);
    else if (!options->template_path)
        return fault_set(fault, STATUS_INVALID, "give a model FILE or --template FILE");
    if (status != STATUS_OK)
        return status;
    if (spec == &spec_model)
        status = inspect_model(model, fault);
    else if (spec == &spec_tokens)
        status = inspect_tokens(model, options, fault);
    else if (spec == &spec_text)
        status = inspect_text(model, options, fault);
    else
        status = inspect_prompt(model, options, fault);
    model_free(&model);
    return status;
}

static int part_command(const struct command_spec *spec, int argc, char **argv)
{
    struct inspect_options options;
    struct config config;
    struct fault fault = {0};
    int exit_code;

    if (cli_start(spec, argc, argv, &options, sizeof options, &config, &exit_code))
        exit_code = inspect_part(spec, &config, &options, &fault) == STATUS_OK ? cli_finish(0)
                                                                               : cli_fail(&fault);
    config_free(&config);
    return exit_code;
}

int inspect_command(int argc, char **argv)
{
    static const struct {
        const struct command_spec *spec;
    } parts[] = {{&spec_model}, {&spec_tokens}, {&spec_text}, {&spec_prompt}};
    static const char *const names[] = {"model", "tokens", "text", "prompt", "logits"};
    struct config config = {0};
    const char *near;
    char nothing;
    int exit_code;

    if (argc < 2 || argv[1][0] == '-') {
        if (cli_start(&spec_inspect, argc, argv, &nothing, sizeof nothing, &config, &exit_code))
            exit_code = cli_fail_with(STATUS_INVALID, "inspect what? one of model, tokens, text, "
                                                      "prompt, logits; see skein inspect --help");
        config_free(&config);
        return exit_code;
    }
    for (size_t i = 0; i < COUNT_OF(parts); i++)
        if (strcmp(argv[1], names[i]) == 0)
            return part_command(parts[i].spec, argc - 1, argv + 1);
    if (strcmp(argv[1], "logits") == 0)
        return inspect_logits_command(argc - 1, argv + 1);
    near = config_nearest(argv[1], names, COUNT_OF(names));
    return cli_fail_with(STATUS_INVALID, "cannot inspect \"%.60s\"%s%s%s", argv[1],
                         near ? "; did you mean " : "; one of model, tokens, text, prompt, logits",
                         near ? near : "", near ? "?" : "");
}
