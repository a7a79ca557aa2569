/* skein peers and skein ls: what the cluster is and what it has, as tables or JSON. */
#include "node/cli/client.h"

#include <string.h>

struct view_options {
    struct client_options client;
    bool json;
};

static const struct option options[] = {
    OPTION("json", OPTION_FLAG, offsetof(struct view_options, json), NULL,
           "Print JSON instead of a table", .flag_only = true),
    CLIENT_OPTIONS(struct view_options, client),
};

const struct command_spec spec_peers = {
    "peers",
    "",
    "Show the nodes that the node here knows.",
    "FREE is the memory for models, READS how fast a node reads it. "
    "Below the table stand nodes of other clusters and network interfaces that cannot be used.",
    options,
    COUNT_OF(options),
    0,
    0};

const struct command_spec spec_models = {
    "ls",
    "",
    "Show the models that the nodes of the cluster have.",
    "Files that a node has and cannot run stand below the table, with the reason. "
    "`skein models` is the same. Any of the names can be given to `skein run` and `skein plan`, or "
    "as "
    "\"model\" to the API.",
    options,
    COUNT_OF(options),
    0,
    0};

/* ---------------------------------------------------------------- peers */

static void peer_row(struct cli_table *table, const json_t *node)
{
    double bandwidth = json_number_value(json_object_get(node, "read_bytes_per_second"));
    double rtt = json_number_value(json_object_get(node, "rtt_seconds"));
    char free_text[24], total_text[24];

    cli_table_add(table, "%s", answer_text(node, "name"));
    cli_table_add(table, "%.8s", answer_text(node, "id"));
    cli_table_add(table, "%s", answer_text(node, "state"));
    cli_table_add(table, "%s", answer_text(node, "address"));
    cli_table_add(table, "%s", answer_text(node, "engine"));
    cli_table_add(table, "%s", answer_text(node, "isa"));
    cli_table_add(table, "%s of %s", answer_size(node, "memory_free_bytes", free_text),
                  answer_size(node, "memory_bytes", total_text));
    if (bandwidth > 0)
        cli_table_add(table, "%.1f GB/s", bandwidth / 1e9);
    else
        cli_table_add(table, "%s", "");
    if (rtt > 0)
        cli_table_add(table, "%.2f ms", rtt * 1000);
    else
        cli_table_add(table, "%s", "");
    cli_table_add(table, "%zu", json_array_size(json_object_get(node, "models")));
    cli_table_add(table, "%s", answer_text(node, "note"));
}

static int peers_print(const json_t *answer)
{
    static const char *const heads[] = {"NAME", "ID",    "STATE", "ADDRESS", "ENGINE", "ISA",
                                        "FREE", "READS", "RTT",   "MODELS",  "NOTE"};
    struct cli_table table = {.n_columns = COUNT_OF(heads)};
    json_t *item;
    size_t i;

    for (i = 0; i < COUNT_OF(heads); i++)
        cli_table_add(&table, "%s", heads[i]);
    table.right[7] = table.right[8] = table.right[9] = true;
    json_array_foreach(json_object_get(answer, "nodes"), i, item) peer_row(&table, item);
    cli_table_print(&table, stdout);
    json_array_foreach(json_object_get(answer, "notices"), i, item)
    {
        cli_put_safe(stdout, json_string_value(item), json_string_length(item));
        (void)fputc('\n', stdout);
    }
    return cli_finish(0);
}

/* ---------------------------------------------------------------- models */

/* One line for each file that is there and cannot be run. */
static void refused_print(const json_t *list)
{
    json_t *item;
    size_t i;

    json_array_foreach(list, i, item)
    {
        const char *const parts[] = {answer_text(item, "id"), " on ", answer_text(item, "node"),
                                     " cannot be used: ", answer_text(item, "why")};

        for (size_t k = 0; k < COUNT_OF(parts); k++)
            cli_put_safe(stdout, parts[k], strlen(parts[k]));
        (void)fputc('\n', stdout);
    }
}

static int models_print(const json_t *answer)
{
    static const char *const heads[] = {"NAME",    "SIZE",  "TYPES", "LAYERS",
                                        "CONTEXT", "NODES", "HERE",  "HASH"};
    struct cli_table table = {.n_columns = COUNT_OF(heads)};
    char size[24];
    json_t *item;
    size_t i;

    for (i = 0; i < COUNT_OF(heads); i++)
        cli_table_add(&table, "%s", heads[i]);
    table.right[1] = table.right[3] = table.right[4] = table.right[5] = true;
    json_array_foreach(json_object_get(answer, "data"), i, item)
    {
        const json_t *own = json_object_get(item, "skein");
        cli_table_add(&table, "%s", answer_text(item, "id"));
        cli_table_add(&table, "%s", answer_size(own, "bytes", size));
        cli_table_add(&table, "%s", answer_text(own, "types"));
        cli_table_add(&table, "%lld",
                      (long long)json_integer_value(json_object_get(own, "layers")));
        cli_table_add(&table, "%lld",
                      (long long)json_integer_value(json_object_get(own, "context_length")));
        cli_table_add(&table, "%lld", (long long)json_integer_value(json_object_get(own, "nodes")));
        cli_table_add(&table, "%s", json_is_true(json_object_get(own, "here")) ? "yes" : "no");
        cli_table_add(&table, "%.12s", answer_text(own, "hash"));
    }
    cli_table_print(&table, stdout);
    refused_print(json_object_get(answer, "cannot_run"));
    return cli_finish(0);
}

/* ---------------------------------------------------------------- both */

static int view_command(const struct command_spec *spec, int argc, char **argv, const char *path,
                        int (*print)(const json_t *answer))
{
    struct view_options view;
    struct config config;
    struct caller caller;
    struct fault fault = {0};
    json_t *answer = NULL;
    enum status status;
    int exit_code;

    if (!cli_start(spec, argc, argv, &view, sizeof view, &config, &exit_code))
        goto out;
    status = caller_init(&caller, &view.client, &fault);
    if (status == STATUS_OK)
        status = caller_json(&caller, path, NULL, &answer, &fault);
    if (status != STATUS_OK)
        exit_code = cli_fail(&fault);
    else
        exit_code = view.json ? cli_print_json(json_incref(answer)) : print(answer);
    json_decref(answer);
out:
    config_free(&config);
    return exit_code;
}

int peers_command(int argc, char **argv)
{
    return view_command(&spec_peers, argc, argv, "/skein/peers", peers_print);
}

int models_command(int argc, char **argv)
{
    return view_command(&spec_models, argc, argv, "/v1/models", models_print);
}
