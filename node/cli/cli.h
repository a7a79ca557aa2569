#ifndef SKEIN_NODE_CLI_CLI_H
#define SKEIN_NODE_CLI_CLI_H

/* What the commands share: starting up from the option table, one-line errors, files and tables.
 * Every command returns the process's exit code. */
#include <jansson.h>
#include <stdio.h>

#include "node/config.h"

/* All commands' tables: what main lists and what a config file may hold. */
extern const struct command_spec *const cli_specs[];
extern const size_t cli_n_specs;

extern const struct command_spec spec_up, spec_run, spec_peers, spec_plan, spec_engines,
    spec_models, spec_inspect, spec_convert, spec_bench, spec_key, spec_version;

int up_command(int argc, char **argv);
int run_command(int argc, char **argv);
int peers_command(int argc, char **argv);
int plan_command(int argc, char **argv);
int engines_command(int argc, char **argv);
int models_command(int argc, char **argv);
int inspect_command(int argc, char **argv);
int inspect_logits_command(int argc, char **argv); /* argv[0] is "logits" */
int convert_command(int argc, char **argv);
int key_command(int argc, char **argv);
int version_command(int argc, char **argv);

extern const struct command_spec spec_inspect_logits;

/* Parses argv[1..] from the real environment and the user's config file. True: go on. False: help
 * was shown or an error printed, and *exit_code is set. Call config_free in every case. */
bool cli_start(const struct command_spec *spec, int argc, char **argv, void *values,
               size_t values_size, struct config *config, int *exit_code) MUST_USE;
void cli_world(struct config_world *out, char path[static CONFIG_MAX_PATH]);

/* "skein: …" as exactly one line on standard error; returns the status's exit code. */
int cli_fail(const struct fault *fault);
int cli_fail_with(enum status status, const char *format, ...) PRINTF_LIKE(2, 3);
/* Flushes standard output; its failure becomes the exit code where `exit_code` is 0. */
int cli_finish(int exit_code);

/* Bytes of a file, or of standard input where path is NULL. Errors: LIMIT, IO, NOT_FOUND, … */
enum status cli_read(const char *path, size_t max_bytes, struct buffer *out,
                     struct fault *fault) MUST_USE;
/* A secret of one line in a file that only its owner may read. */
enum status cli_read_secret(const char *path, char *out, size_t size, struct fault *fault) MUST_USE;
/* JSON of a file or standard input with the position of an error. The caller owns *out. */
enum status cli_read_json(const char *path, json_t **out, struct fault *fault) MUST_USE;
int cli_print_json(json_t *value); /* takes the reference; indented, one newline */

/* "127.0.0.1:8470", "[::1]:80", "host:1". INVALID for anything else. */
struct cli_address {
    char host[256];
    uint16_t port;
};
enum status cli_address_parse(const char *text, struct cli_address *out,
                              struct fault *fault) MUST_USE;
bool cli_address_is_loopback(const char *host);

/* A table with aligned columns on a stream; widths in characters, not bytes. */
enum { CLI_MAX_COLUMNS = 12 };
struct cli_table {
    size_t n_columns;
    bool right[CLI_MAX_COLUMNS]; /* numbers */
    char **cells;                /* [n_rows * n_columns], owned */
    size_t n_cells;
    bool failed;
};
void cli_table_add(struct cli_table *table, const char *format, ...) PRINTF_LIKE(2, 3);
void cli_table_print(struct cli_table *table, FILE *out); /* and frees it */

/* Text of others for a terminal: control bytes become '?'. */
void cli_put_safe(FILE *out, const char *text, size_t n_bytes);

#endif
