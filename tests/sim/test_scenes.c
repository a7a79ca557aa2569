/* Scenes that chance alone seldom plays, each with many seeds: models that must take turns in one
 * memory, nodes that are lost while a model is loaded, layers that hang while their node lives.
 *
 *   test_scenes [--seeds N] [--seed N]
 *
 * A seed that breaks an invariant is printed; --seed replays it, all scenes with their trace. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#define IDLE_CLOSE_US (400 * SIM_SECOND) /* long: nobody makes room without being asked */

static struct sim *cluster(uint64_t seed, bool trace, int n_models, uint64_t memory_bytes)
{
    struct sim_options options = {.seed = seed,
                                  .trace = trace,
                                  .n_nodes = 3,
                                  .n_models = n_models,
                                  .delay_us = 1000,
                                  .idle_close_us = IDLE_CLOSE_US};
    struct sim *sim = sim_new(&options);

    for (int i = 0; i < 3; i++) {
        sim_node(sim, i)->memory_bytes = memory_bytes;
        sim_node(sim, i)->models = (1u << n_models) - 1;
        sim_node(sim, i)->speed = 1 + (double)sim_below(sim, 20) / 10;
        sim_start(sim, i);
    }
    sim_see_all(sim);
    (void)sim_run_until(sim, 3 * SIM_SECOND);
    return sim;
}

static struct sim_request *ask(struct sim *sim, int node, int model, uint32_t n_tokens)
{
    struct request_spec spec = {.kind = REQUEST_TEXT, .repeat_penalty = 1, .top_p = 1};

    spec.max_tokens = n_tokens;
    spec.ignore_end = true;
    return sim_ask(sim, node, model, "scene", &spec);
}

/* All is answered by then; later, with nothing to do, nothing is held. */
static void ends_well(struct sim *sim, uint64_t within_us)
{
    (void)sim_run_until(sim, sim_now(sim) + within_us);
    (void)sim_check_requests(sim);
    (void)sim_run_until(sim, sim_now(sim) + IDLE_CLOSE_US);
    (void)sim_check_empty(sim);
}

/* Two models, three heads, memory for one model at a time: whoever asks for the one that is not
 * there waits until the other is idle, has it closed wherever it is headed, and is answered. */
static void models_take_turns(struct sim *sim)
{
    for (int i = 0; i < 14 && !sim_fault(sim)[0]; i++) {
        struct sim_request *r = ask(sim, (int)sim_below(sim, 3), (int)sim_below(sim, 2), 10);

        r->must_succeed = true;
        (void)sim_run_until(sim, sim_now(sim) + sim_below(sim, 4 * SIM_SECOND));
    }
    ends_well(sim, 70 * SIM_SECOND);
}

/* Two nodes of three are enough: who waits for the model does not even notice. */
static void a_loss_before_ready_costs_time_only(struct sim *sim)
{
    struct sim_request *r = ask(sim, 0, 0, 10);

    r->must_succeed = true;
    (void)sim_run_until(sim, sim_now(sim) + sim_below(sim, 100000));
    sim_crash(sim, 1 + (int)sim_below(sim, 2), sim_chance(sim, 0.3));
    ends_well(sim, 10 * SIM_SECOND);
}

/* Its links live, so only the time that a pass takes can tell. */
static void layers_that_hang_are_given_up(struct sim *sim)
{
    struct sim_request *r = ask(sim, 0, 0, 200);
    uint64_t begun_us = sim_now(sim);

    (void)sim_run_until(sim, begun_us + 100000 + sim_below(sim, 3 * SIM_SECOND));
    for (int i = 0; i < 3; i++)
        sim_node(sim, i)->hangs = true;
    (void)sim_run_until(sim, sim_now(sim) + 90 * SIM_SECOND);
    if (!r->done)
        sim_fail(sim, "a request to layers that hang has not ended after 90 s");
    else if (r->end.status != STATUS_OK && r->end.status != STATUS_TIMEOUT)
        sim_fail(sim, "layers that hang end with %s: %s", status_name(r->end.status), r->end.text);
    for (int i = 0; i < 3; i++)
        sim_node(sim, i)->hangs = false;
    (void)sim_run_until(sim, sim_now(sim) + 600 * SIM_SECOND);
    (void)sim_check_empty(sim);
    r = ask(sim, 1, 0, 10);
    (void)sim_run_until(sim, sim_now(sim) + 10 * SIM_SECOND);
    if (!r->done || r->end.status != STATUS_OK)
        sim_fail(sim, "a request after that is not answered: %s", r->end.text);
}

static const struct {
    const char *name;
    void (*play)(struct sim *sim);
    int n_models;
    uint64_t memory_bytes;
} scenes[] = {
    {"models take turns", models_take_turns, 2, 4500000},
    {"a loss before ready costs time only", a_loss_before_ready_costs_time_only, 1, 7000000},
    {"layers that hang are given up", layers_that_hang_are_given_up, 1, 5000000},
};

int main(int argc, char **argv)
{
    unsigned long n_seeds = 100, first = 1, n_bad = 0;
    bool trace = false;

    log_level_set(LOG_ERROR);
    for (int i = 1; i + 1 < argc; i++) {
        if (!strcmp(argv[i], "--seeds"))
            n_seeds = strtoul(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--seed"))
            first = strtoul(argv[++i], NULL, 10), n_seeds = 1, trace = true;
    }
    for (size_t s = 0; s < COUNT_OF(scenes); s++)
        for (unsigned long i = 0; i < n_seeds && n_bad < 10; i++) {
            struct sim *sim = cluster(first + i, trace, scenes[s].n_models, scenes[s].memory_bytes);

            scenes[s].play(sim);
            if (sim_fault(sim)[0]) {
                (void)printf("%s, seed %lu: %s\n", scenes[s].name, first + i, sim_fault(sim));
                n_bad++;
            }
            sim_free(sim);
        }
    (void)printf("%zu scenes with %lu seeds, %lu bad\n", COUNT_OF(scenes), n_seeds, n_bad);
    return n_bad != 0;
}
