/* Every command's table, for the list of commands and for the config file, whose keys may be any
 * command's options. */
#include "node/cli/cli.h"

/* bench parses its own flags: it has no settings that belong into a config file. */
const struct command_spec spec_bench = {
    "bench", "FILE", "Measure prefill and decode speed of a model on this box.", NULL, NULL, 0,
    0,       0};

const struct command_spec *const cli_specs[] = {
    &spec_up,      &spec_run,    &spec_peers,   &spec_plan,
    &spec_engines, &spec_models, &spec_inspect, &spec_inspect_logits,
    &spec_convert, &spec_bench,  &spec_key,     &spec_version,
};
const size_t cli_n_specs = sizeof cli_specs / sizeof(void *);
