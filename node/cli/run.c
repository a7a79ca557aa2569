/* skein run MODEL [PROMPT]: asks a node and streams the answer.
 *
 * Standard output carries the answer and nothing else; statistics and remarks go to standard error,
 * so that `skein run tiny "…" > story.txt` is the story. The node is the one at --api, else the one
 * that runs here, else one inside this process. Without a prompt it is read from standard input,
 * or, on a terminal, line by line as a chat. */
#include "node/cli/run.h"

#include <string.h>
#include <unistd.h>

enum { RUN_MAX_PROMPT_BYTES = 8 * 1024 * 1024 };

#define RUN(field) offsetof(struct run, field)
static const struct option options[] = {
    OPTION("system", OPTION_TEXT, RUN(system), "TEXT", "System message of the chat"),
    OPTION("max-tokens", OPTION_COUNT, RUN(max_tokens), "N",
           "Most tokens to generate; without it what the context holds", .min = 1, .max = 1 << 30),
    OPTION("temperature", OPTION_NUMBER, RUN(temperature), "X",
           "0 always takes the likeliest token", .max = 2),
    OPTION("top-k", OPTION_COUNT, RUN(top_k), "N", "Only the N likeliest tokens; 0 is all",
           .max = 1 << 20),
    OPTION("top-p", OPTION_NUMBER, RUN(top_p), "X",
           "Only the likeliest tokens that make up X of the chance", .max = 1),
    OPTION("min-p", OPTION_NUMBER, RUN(min_p), "X",
           "Only tokens with X of the likeliest one's chance", .max = 1),
    OPTION("repeat-penalty", OPTION_NUMBER, RUN(repeat_penalty), "X",
           "Make repeated tokens less likely; 1 is off", .min = 0.01, .max = 10),
    OPTION("repeat-last-n", OPTION_COUNT, RUN(repeat_last_n), "N",
           "The last N tokens count as repeated, for all three penalties", .max = 16384),
    OPTION("frequency-penalty", OPTION_NUMBER, RUN(frequency_penalty), "X",
           "Make tokens less likely by X for each time they occur; 0 is off", .min = -2, .max = 2),
    OPTION("presence-penalty", OPTION_NUMBER, RUN(presence_penalty), "X",
           "Make tokens that occur less likely by X; 0 is off", .min = -2, .max = 2),
    OPTION("typical-p", OPTION_NUMBER, RUN(typical_p), "X",
           "Only the most typical tokens that make up X of the chance; 1 is off", .max = 1),
    OPTION("dry-multiplier", OPTION_NUMBER, RUN(dry_multiplier), "X",
           "Make going on as the text once did less likely; 0 is off", .max = 100),
    OPTION("dry-base", OPTION_NUMBER, RUN(dry_base), "X",
           "How steeply that grows with the length that repeats; without it 1.75", .max = 100),
    OPTION("dry-allowed-length", OPTION_COUNT, RUN(dry_allowed_length), "N",
           "Tokens that may repeat freely; without it 2", .max = 1 << 20),
    OPTION("dry-last-n", OPTION_COUNT, RUN(dry_last_n), "N",
           "Tokens that are looked back on for it; 0 is as many as can be", .max = 16384),
    OPTION("xtc-probability", OPTION_NUMBER, RUN(xtc_probability), "X",
           "How often the likeliest tokens are left out; 0 is off", .max = 1),
    OPTION("xtc-threshold", OPTION_NUMBER, RUN(xtc_threshold), "X",
           "Chance from which a token is one of the likeliest; without it 0.1", .max = 1),
    OPTION("logit-bias", OPTION_LIST, RUN(biases), "ID=X",
           "Make the token with this number likelier by X, from -100 to 100; see skein inspect "
           "tokens"),
    OPTION("seed", OPTION_SEED, RUN(seed), "N", "The same seed gives the same answer"),
    OPTION("stop", OPTION_LIST, RUN(stops), "TEXT", "End the answer before this text"),
    OPTION("raw", OPTION_FLAG, RUN(raw), NULL,
           "Go on with the prompt as it is, without the chat template", .flag_only = true),
    OPTION("ignore-end", OPTION_FLAG, RUN(ignore_end), NULL,
           "Go on after the model's end token, for measurements", .flag_only = true),
    OPTION("plan", OPTION_FLAG, RUN(plan), NULL, "Show which node runs which layers",
           .flag_only = true),
    OPTION("quiet", OPTION_FLAG, RUN(quiet), NULL, "Nothing but the answer", .letter = 'q',
           .flag_only = true),
    OPTION("alone", OPTION_FLAG, offsetof(struct run, alone), NULL,
           "This box alone, in this process, whatever nodes are running", .flag_only = true),
    CLIENT_OPTIONS(struct run, client),
    NODE_CHOICE_OPTIONS(struct run, node),
};

const struct command_spec spec_run = {
    "run",
    "MODEL [PROMPT]",
    "Ask a model; the answer is streamed.",
    "MODEL is a name from `skein ls`, or the path of a GGUF "
    "file or a Hugging Face folder on this box. Without PROMPT it is "
    "read from standard input; on a terminal you chat: /clear starts again, /bye or "
    "Ctrl-D ends, Ctrl-C stops an answer.\n"
    "What no option says of sampling is as the model's makers recommend "
    "(`skein inspect model` shows it), else temperature 0.8, top-k 40, top-p 0.95, min-p 0.05.\n"
    "Where no node is running, this box answers alone; --engine, "
    "--memory, --threads, --context and "
    "their like then describe it.",
    options,
    COUNT_OF(options),
    1,
    2};

volatile sig_atomic_t run_stop;

static void on_interrupt(int number)
{
    (void)number;
    run_stop = 1;
}

/* No SA_RESTART: Ctrl-C also ends a wait for a line. */
static void catch_interrupt(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};

    (void)sigaction(SIGINT, &action, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}

static enum status prompt_from_stdin(struct buffer *out, struct fault *fault)
{
    enum status status = cli_read(NULL, RUN_MAX_PROMPT_BYTES, out, fault);

    if (status == STATUS_OK && out->len > 0 && out->data[out->len - 1] == '\n')
        out->data[--out->len] = '\0';
    return status;
}

static enum status ask_once(struct ask *ask, const char *prompt, size_t n_bytes,
                            struct fault *fault)
{
    json_t *messages = NULL, *text = json_stringn(prompt, n_bytes);
    enum status status;

    if (n_bytes == 0) {
        json_decref(text);
        return fault_set(fault, STATUS_INVALID, "the prompt is empty");
    }
    if (!text || memchr(prompt, '\0', n_bytes)) {
        json_decref(text);
        return fault_set(fault, STATUS_FORMAT, "the prompt is not text in UTF-8");
    }
    if (ask->run->raw) {
        json_decref(text);
        return ask_stream(ask, NULL, prompt, NULL, fault);
    }
    messages = ask->run->system ? json_pack("[{s:s, s:s}, {s:s, s:o}]", "role", "system", "content",
                                            ask->run->system, "role", "user", "content", text)
                                : json_pack("[{s:s, s:o}]", "role", "user", "content", text);
    status = messages ? ask_stream(ask, messages, NULL, NULL, fault)
                      : fault_set(fault, STATUS_FORMAT, "--system is not text in UTF-8");
    json_decref(messages);
    return status;
}

static enum status ask_all(struct ask *ask, const struct config *config, struct fault *fault)
{
    bool has_prompt = config->n_arguments == 2;
    struct buffer input = {0};
    enum status status;

    if (!has_prompt && isatty(STDIN_FILENO) && !ask->run->raw) {
        status = session_model(&ask->session, config->arguments[0], ask->model, sizeof ask->model,
                               fault);
        return status == STATUS_OK ? ask_chat(ask, fault) : status;
    }
    status = has_prompt ? STATUS_OK : prompt_from_stdin(&input, fault);
    if (status == STATUS_OK)
        status = session_model(&ask->session, config->arguments[0], ask->model, sizeof ask->model,
                               fault);
    if (status == STATUS_OK)
        status = has_prompt
                     ? ask_once(ask, config->arguments[1], strlen(config->arguments[1]), fault)
                     : ask_once(ask, (const char *)input.data, input.len, fault);
    buffer_free(&input);
    return status;
}

int run_command(int argc, char **argv)
{
    enum session_node wanted;
    struct config config;
    struct fault fault = {0};
    struct ask ask = {0};
    enum status status;
    struct run run;
    int exit_code;

    if (!cli_start(&spec_run, argc, argv, &run, sizeof run, &config, &exit_code))
        goto out;
    catch_interrupt();
    ask.run = &run;
    ask.config = &config;
    status = ask_biases(&run, &ask.biases, &fault);
    if (status != STATUS_OK) {
        exit_code = cli_fail(&fault);
        goto out;
    }
    wanted = run.alone                                 ? SESSION_NODE_INSIDE
             : config_given(&spec_run, &config, "api") ? SESSION_NODE_NAMED
                                                       : SESSION_NODE_ANY;
    status = session_open(&ask.session, &run.client, wanted, &run.node, &fault);
    ask.session.caller.stop = &run_stop;
    if (status == STATUS_OK)
        status = ask_all(&ask, &config, &fault);
    session_close(&ask.session);
    if (status == STATUS_OK)
        exit_code = cli_finish(0);
    else if (run_stop)
        exit_code = 130; /* as a shell names a command that Ctrl-C ended */
    else
        exit_code = cli_fail(&fault);
out:
    json_decref(ask.biases);
    config_free(&config);
    return exit_code;
}
