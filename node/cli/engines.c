/* skein engines: what this box can compute with, and why not where it cannot. And skein version. */
#include "node/cli/cli.h"

#include "engine/engine.h"

struct engines_options {
    bool json;
};

static const struct option options[] = {
    OPTION("json", OPTION_FLAG, offsetof(struct engines_options, json), NULL,
           "Print JSON instead of a table", .flag_only = true),
};

const struct command_spec spec_engines = {
    "engines",
    "",
    "Show this box and the engines that can run models on it.",
    "The first available one is used unless --engine or SKEIN_ENGINE names another.",
    options,
    COUNT_OF(options),
    0,
    0};

const struct command_spec spec_version = {"version", "", "Show the version.", NULL, NULL, 0, 0, 0};

static json_t *engines_json(const struct engine_box *box, const struct engine_report *reports)
{
    json_t *list = json_array();

    for (size_t i = 0; i < ENGINE_COUNT; i++)
        (void)json_array_append_new(list, json_pack("{s:s, s:b, s:s}", "name", reports[i].name,
                                                    "available", reports[i].available, "detail",
                                                    reports[i].detail));
    return json_pack("{s:{s:s, s:s, s:I, s:I, s:I}, s:o}", "box", "cpu", box->cpu, "isa", box->isa,
                     "cores", (json_int_t)box->n_cores, "memory_bytes",
                     (json_int_t)box->memory_bytes, "memory_available_bytes",
                     (json_int_t)box->memory_available_bytes, "engines", list);
}

static void engines_print(const struct engine_box *box, const struct engine_report *reports)
{
    struct cli_table table = {.n_columns = 3};
    char total[24], available[24];

    (void)printf("%s, %u cores, %s; %s of %s memory available\n", box->cpu, box->n_cores, box->isa,
                 bytes_format_size(box->memory_available_bytes, available, sizeof available),
                 bytes_format_size(box->memory_bytes, total, sizeof total));
    for (size_t i = 0; i < ENGINE_COUNT; i++) {
        cli_table_add(&table, "%s", reports[i].name);
        cli_table_add(&table, "%s", reports[i].available ? "available" : "not available");
        cli_table_add(&table, "%s", reports[i].detail);
    }
    cli_table_print(&table, stdout);
}

int engines_command(int argc, char **argv)
{
    struct engine_report reports[ENGINE_COUNT];
    struct engines_options values;
    struct engine_box box;
    struct config config;
    int exit_code;

    if (cli_start(&spec_engines, argc, argv, &values, sizeof values, &config, &exit_code)) {
        engine_box(&box);
        engine_detect(reports);
        if (values.json) {
            exit_code = cli_print_json(engines_json(&box, reports));
        } else {
            engines_print(&box, reports);
            exit_code = cli_finish(0);
        }
    }
    config_free(&config);
    return exit_code;
}

int version_command(int argc, char **argv)
{
    struct config config;
    char nothing;
    int exit_code;

    if (cli_start(&spec_version, argc, argv, &nothing, sizeof nothing, &config, &exit_code)) {
        (void)printf("skein %s\n", SKEIN_VERSION);
        exit_code = cli_finish(0);
    }
    config_free(&config);
    return exit_code;
}
