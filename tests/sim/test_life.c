/* The main life of a small cluster, event for event: two nodes meet, a third joins, a model for two
 * is made and answers, its worker is lost, and who is left goes on.
 *
 * The trace is compared with the text below. When it changes on purpose, run `test_life --print`
 * and read the difference before pasting it: every line is something that a node did. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

static const char golden[] =
#include "life.inc"
    ;

static void life(struct sim *sim)
{
    struct request_spec spec = {
        .kind = REQUEST_TEXT, .repeat_penalty = 1, .top_p = 1, .max_tokens = 3, .seed = 5};
    uint64_t us = 10000;

    spec.ignore_end = true;
    for (int i = 0; i < 3; i++) {
        sim_node(sim, i)->memory_bytes = 6500000;
        memset(sim_node(sim, i)->id, 0x10 * (i + 1), PROTO_ID_BYTES);
    }
    sim_start(sim, 0);
    sim_start(sim, 1);
    sim_see(sim, 0, 1);
    sim_see(sim, 1, 0);
    (void)sim_run_until(sim, us += 500000);
    sim_start(sim, 2); /* knows one of them and learns of the other */
    sim_seed_at(sim, 2, sim_node(sim, 0)->address);
    (void)sim_run_until(sim, us += 800000);
    (void)sim_ask(sim, 1, 0, "one", &spec);
    (void)sim_run_until(sim, us += 1000000);
    (void)sim_ask(sim, 0, 0, "two", &spec);
    (void)sim_run_until(sim, us += 5000);
    sim_crash(sim, 2, false);
    (void)sim_run_until(sim, us += 100000);
    (void)sim_ask(sim, 0, 0, "three", &spec);
    (void)sim_run_until(sim, us += 2000000);
    (void)sim_check_requests(sim);
}

static const char *end_of_line(const char *text)
{
    const char *end = strchr(text, '\n');

    return end ? end : text + strlen(text);
}

static int compare(const char *want, const char *got)
{
    for (int line = 1; *want || *got; line++) {
        const char *want_end = end_of_line(want), *got_end = end_of_line(got);

        if (want_end - want != got_end - got || memcmp(want, got, (size_t)(want_end - want)) != 0) {
            (void)printf("line %d\n  was: %.*s\n  is:  %.*s\n", line, (int)(want_end - want), want,
                         (int)(got_end - got), got);
            return 1;
        }
        want = want_end + (*want_end == '\n');
        got = got_end + (*got_end == '\n');
    }
    return 0;
}

int main(int argc, char **argv)
{
    char *trace = NULL;
    size_t trace_bytes = 0;
    struct sim_options options = {.seed = 1, .n_nodes = 3, .n_models = 1, .trace = true};
    struct sim *sim;
    int result;

    log_level_set(LOG_ERROR);
    options.trace_to = open_memstream(&trace, &trace_bytes);
    if (!options.trace_to)
        return 1;
    sim = sim_new(&options);
    life(sim);
    sim_free(sim);
    (void)fclose(options.trace_to);
    if (argc > 1 && strcmp(argv[1], "--print") == 0) {
        for (char *line = strtok(trace, "\n"); line; line = strtok(NULL, "\n")) {
            (void)fputs("    \"", stdout);
            for (const char *c = line; *c; c++)
                (void)printf(*c == '"' ? "\\%c" : "%c", *c);
            (void)fputs("\\n\"\n", stdout);
        }
        result = 0;
    } else {
        result = compare(golden, trace);
        (void)printf("the trace: %s\n", result ? "differs" : "as it was");
    }
    free(trace);
    return result;
}
