/* skein: the commands are a table; each parses its own options and returns the exit code. */
#include <stdio.h>
#include <string.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "node/cli/bench.h"
#include "node/cli/cli.h"
#include "proto/proto.h"

static const struct {
    const struct command_spec *spec;
    int (*run)(int argc, char **argv);
    const char *alias;
} commands[] = {
    {&spec_up, up_command, NULL},
    {&spec_run, run_command, NULL},
    {&spec_peers, peers_command, NULL},
    {&spec_plan, plan_command, NULL},
    {&spec_models, models_command, "models"},
    {&spec_key, key_command, NULL},
    {&spec_engines, engines_command, NULL},
    {&spec_inspect, inspect_command, NULL},
    {&spec_convert, convert_command, NULL},
    {&spec_bench, bench_command, NULL},
    {&spec_version, version_command, "--version"},
};

static int help(void)
{
    (void)puts("usage: skein COMMAND …\n\n"
               "Several Linux boxes run one language model: each holds some of its layers.\n\n"
               "Commands:");
    for (size_t i = 0; i < COUNT_OF(commands); i++)
        (void)printf("  %-10s%s\n", commands[i].spec->name, commands[i].spec->summary);
    (void)puts("\nBegin with `skein run tiny \"Once upon a time\"`, then `skein up` on every box.\n"
               "`skein COMMAND --help` shows a command's options.");
    return cli_finish(0);
}

static void *json_malloc(size_t size)
{
    return mem_zeroed(1, size);
}

static int unknown(const char *word)
{
    const char *names[COUNT_OF(commands)], *near;

    for (size_t i = 0; i < COUNT_OF(commands); i++)
        names[i] = commands[i].spec->name;
    near = config_nearest(word, names, COUNT_OF(names));
    return cli_fail_with(STATUS_INVALID, "unknown command \"%.60s\"%s%s%s", word,
                         near ? "; did you mean " : "; see skein --help", near ? near : "",
                         near ? "?" : "");
}

/* A socket that got number 0, 1 or 2 would be taken for the terminal. */
static void standard_files(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            _exit(EXIT_FAILURE);
}

int main(int argc, char **argv)
{
    standard_files();
    json_set_alloc_funcs(json_malloc, mem_free);
    if (proto_init() != STATUS_OK)
        return cli_fail_with(STATUS_INTERNAL, "libsodium cannot start");
    if (argc < 2)
        return cli_fail_with(STATUS_INVALID, "say what to do: skein up, skein run tiny \"…\", or "
                                             "skein --help");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0)
        return help();
    for (size_t i = 0; i < COUNT_OF(commands); i++)
        if (strcmp(argv[1], commands[i].spec->name) == 0 ||
            (commands[i].alias && strcmp(argv[1], commands[i].alias) == 0))
            return commands[i].run(argc - 1, argv + 1);
    return unknown(argv[1]);
}
