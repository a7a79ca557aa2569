/* skein engines: what this box is, what it can run models with, and how fast; skein version.
 *
 * The two numbers that the planner goes by are measured here as a node measures them, with one
 * thread and with all: bytes of weights read in a second, and operations of a matrix product. What
 * limits the process (an affinity mask, quotas of control groups) stands beside what the box has,
 * and each engine and instruction set that is not used has its reason. */
#include "engine/engine.h"
#include "node/cli/cli.h"

#include <string.h>

struct engines_options {
    bool json, quick;
};

#define ENGINES(field) offsetof(struct engines_options, field)
static const struct option options[] = {
    OPTION("json", OPTION_FLAG, ENGINES(json), NULL, "Print JSON instead of text",
           .flag_only = true),
    OPTION("quick", OPTION_FLAG, ENGINES(quick), NULL, "Do not measure", .flag_only = true),
};

const struct command_spec spec_engines = {
    "engines",
    "",
    "Show this box and the engines that can run models on it.",
    "The first available one is used unless --engine or SKEIN_ENGINE names another; one that is "
    "named is used or is an error. SKEIN_ISA names an instruction set for the kernels, in the same "
    "way. READS is memory bandwidth, measured in a second or so, with one thread and with all; "
    "MAPPED is what is left of it for one token where weights are used in their file (--mapped) "
    "and "
    "the page cache holds it. Where it does not, the disk's speed counts.",
    options,
    COUNT_OF(options),
    0,
    0};

const struct command_spec spec_version = {"version", "", "Show the version.", NULL, NULL, 0, 0, 0};

struct engines_view {
    struct engine_box box;
    struct engine_report reports[ENGINE_COUNT];
    struct engine_isa isas[ENGINE_MAX_ISAS];
    size_t n_isas;
    bool measured;
    struct engine_speed one[ENGINE_COUNT], all[ENGINE_COUNT]; /* threads; zero: not measured */
};

/* The best of a few, since others may be at work here; zero without memory for it. */
static struct engine_speed measure_best(enum engine_kind kind, uint32_t n_threads)
{
    struct engine_speed best = {0}, now;

    for (int i = 0; i < 3; i++) {
        if (engine_measure(kind, n_threads, &now) != STATUS_OK)
            continue;
        if (now.read_bytes_per_second > best.read_bytes_per_second)
            best.read_bytes_per_second = now.read_bytes_per_second;
        if (now.mapped_bytes_per_second > best.mapped_bytes_per_second)
            best.mapped_bytes_per_second = now.mapped_bytes_per_second;
        if (now.flops_per_second > best.flops_per_second)
            best.flops_per_second = now.flops_per_second;
    }
    return best;
}

static void view_fill(struct engines_view *view, bool measure)
{
    memset(view, 0, sizeof *view);
    engine_box(&view->box);
    engine_detect(view->reports);
    view->n_isas = engine_isas(view->isas);
    view->measured = measure;
    for (size_t i = 0; i < ENGINE_COUNT && measure; i++) {
        enum engine_kind kind = view->reports[i].kind;

        if (!view->reports[i].available)
            continue;
        view->one[i] = measure_best(kind, 1);
        view->all[i] = view->box.n_cores > 1 ? measure_best(kind, view->box.n_cores) : view->one[i];
    }
}

/* ---------------------------------------------------------------- JSON */

static json_t *measured(double value)
{
    return value > 0 ? json_real(value) : json_null();
}

static json_t *count_or_null(uint64_t value)
{
    return value ? json_integer((json_int_t)value) : json_null();
}

static json_t *speed_json(const struct engine_speed *speed, uint32_t n_threads)
{
    return json_pack("{s:I, s:o, s:o, s:o}", "threads", (json_int_t)n_threads,
                     "read_bytes_per_second", measured(speed->read_bytes_per_second),
                     "mapped_bytes_per_second", measured(speed->mapped_bytes_per_second),
                     "flops_per_second", measured(speed->flops_per_second));
}

static json_t *engines_json(const struct engines_view *view)
{
    const struct engine_box *box = &view->box;
    json_t *engines = json_array(), *isas = json_array();

    for (size_t i = 0; i < ENGINE_COUNT; i++)
        (void)json_array_append_new(
            engines,
            json_pack("{s:s, s:b, s:s, s:[o, o]}", "name", view->reports[i].name, "available",
                      view->reports[i].available, "detail", view->reports[i].detail, "speed",
                      speed_json(&view->one[i], 1), speed_json(&view->all[i], box->n_cores)));
    for (size_t i = 0; i < view->n_isas; i++)
        (void)json_array_append_new(isas,
                                    json_pack("{s:s, s:b, s:b, s:s}", "name", view->isas[i].name,
                                              "available", view->isas[i].available, "used",
                                              view->isas[i].used, "why", view->isas[i].why));
    return json_pack(
        "{s:{s:s, s:s, s:I, s:I, s:o, s:o, s:I, s:I, s:o, s:o}, s:o, s:o, s:{s:s, s:s}}", "box",
        "cpu", box->cpu, "isa", box->isa, "cores", (json_int_t)box->n_cores, "processors",
        (json_int_t)box->n_processors, "affinity_cores", count_or_null(box->n_affinity),
        "quota_cores", measured(box->core_quota), "memory_bytes", (json_int_t)box->memory_bytes,
        "memory_available_bytes", (json_int_t)box->memory_available_bytes, "memory_installed_bytes",
        count_or_null(box->memory_installed_bytes), "memory_limit_bytes",
        count_or_null(box->memory_limit_bytes), "engines", engines, "isas", isas, "openblas",
        "build", engine_blas_build(), "core", engine_blas_core());
}

/* ---------------------------------------------------------------- text */

static void box_print(const struct engine_box *box)
{
    char available[24], total[24], installed[24];

    (void)printf("%s\n", box->cpu);
    (void)printf("%u core%s to use, of %u", box->n_cores, box->n_cores == 1 ? "" : "s",
                 box->n_processors);
    if (box->n_affinity)
        (void)printf("; the affinity mask leaves %u", box->n_affinity);
    if (box->core_quota > 0)
        (void)printf("; the control group's quota is %.2f", box->core_quota);
    (void)printf("\n%s of %s memory available",
                 bytes_format_size(box->memory_available_bytes, available, sizeof available),
                 bytes_format_size(box->memory_bytes, total, sizeof total));
    if (box->memory_limit_bytes)
        (void)printf("; the control group's limit, the box has %s",
                     bytes_format_size(box->memory_installed_bytes, installed, sizeof installed));
    (void)fputs("\n\n", stdout);
}

/* "12.3 / 24.1", with one thread and with all. */
static void put_pair(struct cli_table *table, double one, double all)
{
    if (one > 0 && all > 0)
        cli_table_add(table, "%.1f / %.1f", one / 1e9, all / 1e9);
    else
        cli_table_add(table, "%s", "");
}

static void engines_print(const struct engines_view *view)
{
    static const char *const heads[] = {"ENGINE",      "",       "READS GB/s",
                                        "MAPPED GB/s", "GFLOPS", "DETAIL"};
    struct cli_table engines = {.n_columns = COUNT_OF(heads)}, isas = {.n_columns = 3};

    box_print(&view->box);
    for (size_t i = 0; i < COUNT_OF(heads); i++)
        cli_table_add(&engines, "%s", heads[i]);
    engines.right[2] = engines.right[3] = engines.right[4] = true;
    for (size_t i = 0; i < ENGINE_COUNT; i++) {
        cli_table_add(&engines, "%s", view->reports[i].name);
        cli_table_add(&engines, "%s", view->reports[i].available ? "available" : "not available");
        put_pair(&engines, view->one[i].read_bytes_per_second, view->all[i].read_bytes_per_second);
        put_pair(&engines, view->one[i].mapped_bytes_per_second,
                 view->all[i].mapped_bytes_per_second);
        put_pair(&engines, view->one[i].flops_per_second, view->all[i].flops_per_second);
        cli_table_add(&engines, "%s", view->reports[i].detail);
    }
    cli_table_print(&engines, stdout);
    if (view->measured)
        (void)printf("measured with 1 thread / with %u\n"
                     "copies of weights take up to %.1f GB of memory here; larger ones can be used "
                     "in their file (--mapped)\n",
                     view->box.n_cores, (double)view->box.memory_available_bytes / 1e9);
    (void)fputs("\n", stdout);
    for (size_t i = view->n_isas; i-- > 0;) {
        const struct engine_isa *isa = &view->isas[i];

        cli_table_add(&isas, "%s", isa->name);
        cli_table_add(&isas, "%s", isa->used ? "used" : isa->available ? "not used" : "not there");
        cli_table_add(&isas, "%s", isa->why);
    }
    cli_table_print(&isas, stdout);
    (void)printf("\n%s, running as %s\n", engine_blas_build(), engine_blas_core());
}

int engines_command(int argc, char **argv)
{
    struct engines_options values;
    struct engines_view view;
    struct config config;
    int exit_code;

    if (cli_start(&spec_engines, argc, argv, &values, sizeof values, &config, &exit_code)) {
        view_fill(&view, !values.quick);
        if (values.json) {
            exit_code = cli_print_json(engines_json(&view));
        } else {
            engines_print(&view);
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
