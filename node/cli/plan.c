/* skein plan MODEL: how a model would be spread over the nodes now, and how fast that would be. */
#include "node/cli/session.h"

#include <string.h>

#include "node/node.h"

struct plan_options {
    bool json, alone;
    struct client_options client;
    struct node_choice node;
};

static const struct option options[] = {
    OPTION("json", OPTION_FLAG, offsetof(struct plan_options, json), NULL,
           "Print JSON instead of a table", .flag_only = true),
    OPTION("alone", OPTION_FLAG, offsetof(struct plan_options, alone), NULL,
           "This box alone, in this process, whatever nodes are running", .flag_only = true),
    CLIENT_OPTIONS(struct plan_options, client),
    NODE_CHOICE_OPTIONS(struct plan_options, node),
};

const struct command_spec spec_plan = {"plan",
                                       "MODEL",
                                       "Show which node would run which layers of a model.",
                                       "Where no node is running, the plan is for this box alone.",
                                       options,
                                       COUNT_OF(options),
                                       1,
                                       1};

static void stage_row(struct cli_table *table, const json_t *stage, json_int_t n_layers)
{
    json_int_t begin = json_integer_value(json_object_get(stage, "layer_begin"));
    json_int_t end = json_integer_value(json_object_get(stage, "layer_end"));
    double seconds = json_number_value(json_object_get(stage, "decode_seconds"));
    char need[24], free_text[24];

    cli_table_add(table, "%s", answer_text(stage, "node"));
    if (end > begin)
        cli_table_add(table, "%lld-%lld", (long long)begin, (long long)end - 1);
    else
        cli_table_add(table, "%s", "none");
    cli_table_add(table, "%.0f %%",
                  n_layers > 0 ? 100.0 * (double)(end - begin) / (double)n_layers : 0);
    cli_table_add(table, "%s", answer_size(stage, "need_bytes", need));
    cli_table_add(table, "%s", answer_size(stage, "memory_free_bytes", free_text));
    cli_table_add(table, "%.2f ms", seconds * 1000);
}

/* Text of nodes goes through cli_put_safe. */
static void say_line(const char *before, const char *text)
{
    (void)fputs(before, stdout);
    cli_put_safe(stdout, text, strlen(text));
    (void)fputc('\n', stdout);
}

/* A ring that another node heads may be known without its speeds. */
static void say_speed(const json_t *answer)
{
    double rate = json_number_value(json_object_get(answer, "tokens_per_second"));
    long long n_ctx = (long long)json_integer_value(json_object_get(answer, "context_tokens"));

    if (rate > 0)
        (void)printf("%.1f tokens/s for one stream, first token after %.0f ms, context %lld "
                     "tokens, planned for %s\n",
                     rate, 1000 * json_number_value(json_object_get(answer, "first_token_seconds")),
                     n_ctx, answer_text(answer, "objective"));
    else
        (void)printf("context %lld tokens\n", n_ctx);
}

static void say_form(const json_t *answer)
{
    const char *quantize = json_string_value(json_object_get(answer, "quantize"));

    (void)printf("KV %s, weights %s%s\n", answer_text(answer, "kv"),
                 quantize ? quantize : "as stored", quantize ? " on load" : "");
    if (json_is_true(json_object_get(answer, "mapped")))
        (void)fputs("weights are used in their files: they need no memory, are read as fast as "
                    "planned where the page cache\nholds them, and as fast as the disk where it "
                    "does not\n",
                    stdout);
}

static void say_closing(const json_t *closing)
{
    char bytes[24];

    (void)printf("after closing %s on %s, which holds %s and is not in use\n",
                 answer_text(closing, "model"), answer_text(closing, "head"),
                 answer_size(closing, "bytes", bytes));
}

static int plan_print(const json_t *answer)
{
    static const char *const heads[] = {"NODE", "LAYERS", "SHARE", "NEEDS", "FREE", "PER TOKEN"};
    struct cli_table table = {.n_columns = COUNT_OF(heads)};
    const json_t *stages = json_object_get(answer, "stages"), *last;
    json_t *item;
    size_t i;

    for (i = 0; i < COUNT_OF(heads); i++) {
        cli_table_add(&table, "%s", heads[i]);
        table.right[i] = i > 0;
    }
    last = json_array_get(stages, json_array_size(stages) ? json_array_size(stages) - 1 : 0);
    json_array_foreach((json_t *)(uintptr_t)stages, i, item)
        stage_row(&table, item, json_integer_value(json_object_get(last, "layer_end")));
    cli_table_print(&table, stdout);
    say_speed(answer);
    if (json_is_true(json_object_get(answer, "running")))
        say_line("this is how it runs now, headed by ", answer_text(answer, "head_name"));
    if (json_is_string(json_object_get(answer, "kv")))
        say_form(answer);
    json_array_foreach(json_object_get(answer, "after_closing"), i, item) say_closing(item);
    if (*answer_text(answer, "notice"))
        say_line("", answer_text(answer, "notice"));
    json_array_foreach(json_object_get(answer, "left_out"), i, item)
    {
        const char *why = answer_text(item, "why");
        cli_put_safe(stdout, why, strlen(why));
        (void)fputc('\n', stdout);
    }
    return cli_finish(0);
}

static enum status plan_ask(struct session *session, const struct plan_options *plan,
                            const char *model, json_t **out, struct fault *fault)
{
    char name[PROTO_MAX_MODEL_NAME], after[64], path[1024];
    enum status status = session_model(session, model, name, sizeof name, fault);

    if (status != STATUS_OK)
        return status;
    (void)snprintf(after, sizeof after, "&objective=%s", choice_objectives[plan->node.objective]);
    status = caller_path("/skein/plan?model=", name, after, path, sizeof path, fault);
    return status == STATUS_OK ? caller_json(&session->caller, path, NULL, out, fault) : status;
}

int plan_command(int argc, char **argv)
{
    struct session session = {0};
    struct plan_options plan;
    enum session_node wanted;
    struct config config;
    struct fault fault = {0};
    json_t *answer = NULL;
    enum status status;
    int exit_code;

    if (!cli_start(&spec_plan, argc, argv, &plan, sizeof plan, &config, &exit_code))
        goto out;
    wanted = plan.alone                                 ? SESSION_NODE_INSIDE
             : config_given(&spec_plan, &config, "api") ? SESSION_NODE_NAMED
                                                        : SESSION_NODE_ANY;
    status = session_open(&session, &plan.client, wanted, &plan.node, &fault);
    if (status == STATUS_OK)
        status = plan_ask(&session, &plan, config.arguments[0], &answer, &fault);
    session_close(&session);
    if (status != STATUS_OK)
        exit_code = cli_fail(&fault);
    else
        exit_code = plan.json ? cli_print_json(json_incref(answer)) : plan_print(answer);
    json_decref(answer);
out:
    config_free(&config);
    return exit_code;
}
