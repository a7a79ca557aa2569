/* Random histories of small clusters: crashes, cuts, failing dials and loads, requests anywhere,
 * cancels; then peace, in which everything must come right.
 *
 *   test_sim [--histories N] [--seed N] [--trace]
 *
 * A history that breaks an invariant prints its seed; --seed replays it with its trace. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

struct totals {
    unsigned long asked, well, failed, cancelled, lost;
};

static void random_spec(struct sim *sim, struct request_spec *spec)
{
    static const char *const stops[] = {"abc", "cab", "d", "eab", "bb", "\303\244a"};

    memset(spec, 0, sizeof *spec);
    spec->kind = REQUEST_TEXT;
    spec->repeat_penalty = sim_chance(sim, 0.3) ? 1.1f : 1.0f;
    spec->repeat_last_n = 64;
    spec->top_p = 1;
    spec->max_tokens = sim_chance(sim, 0.1) ? 0 : 1 + (uint32_t)sim_below(sim, 100);
    spec->seed = sim_chance(sim, 0.5) ? 0 : sim_random(sim);
    spec->ignore_end = sim_chance(sim, 0.6);
    spec->frequency_penalty = sim_chance(sim, 0.2) ? 0.5f : 0;
    spec->dry_multiplier = sim_chance(sim, 0.2) ? 0.8f : 0;
    spec->n_biases = sim_chance(sim, 0.3) ? 1 + (uint32_t)sim_below(sim, PROTO_MAX_BIASES) : 0;
    for (uint32_t i = 0; i < spec->n_biases; i++) /* as sim_shell.c expects them */
        spec->biases[i] = (struct token_bias){i % SIM_VOCAB, (float)i};
    for (int n = (int)sim_below(sim, 3); n > 0; n--)
        (void)snprintf(spec->stops[spec->n_stops++], PROTO_MAX_STOP_BYTES, "%s",
                       stops[sim_below(sim, 6)]);
}

static void random_body(struct sim *sim, char *body, size_t size)
{
    size_t n = 1 + sim_below(sim, sim_chance(sim, 0.1) ? 400 : 40);

    for (size_t i = 0; i < n && i + 1 < size; i++)
        body[i] = (char)('a' + sim_below(sim, 26));
    body[n < size ? n : size - 1] = '\0';
    if (sim_chance(sim, 0.02))
        body[0] = '!';
}

static struct sim_request *random_ask(struct sim *sim, int node)
{
    struct request_spec spec;
    char body[500];

    random_spec(sim, &spec);
    random_body(sim, body, sizeof body);
    return sim_ask(sim, node, (int)sim_below(sim, (uint64_t)sim_options_of(sim)->n_models), body,
                   &spec);
}

/* One that has not ended, if there is any. */
static void random_cancel(struct sim *sim)
{
    uint32_t n = sim_n_requests(sim), first = n ? (uint32_t)sim_below(sim, n) : 0;

    for (uint32_t i = 0; i < n; i++) {
        struct sim_request *r = sim_request(sim, (first + i) % n);

        if (!r->done && !r->lost) {
            sim_cancel(sim, r);
            return;
        }
    }
}

static void random_fault(struct sim *sim)
{
    int n = sim_n_nodes(sim), a = (int)sim_below(sim, (uint64_t)n),
        b = (int)sim_below(sim, (uint64_t)n);

    switch (sim_below(sim, 9)) {
    case 0:
        sim_crash(sim, a, sim_chance(sim, 0.5));
        break;
    case 1:
        if (!sim_node(sim, a)->alive)
            sim_start(sim, a);
        break;
    case 2:
        if (a != b)
            sim_cut(sim, a, b, sim_chance(sim, 0.5));
        break;
    case 3:
        if (a != b)
            sim_cut_link(sim, a, b);
        break;
    case 4:
        if (sim_node(sim, a)->alive && a != b)
            sim_see(sim, a, b);
        break;
    case 5:
        random_cancel(sim);
        break;
    default:
        for (uint64_t k = sim_below(sim, 5); k > 0 && sim_node(sim, a)->alive; k--)
            (void)random_ask(sim, a);
        break;
    }
}

/* What the cluster is made of: sizes such that one node, some, or all are needed for a model. */
static void random_cluster(struct sim *sim)
{
    for (int i = 0; i < sim_n_nodes(sim); i++) {
        struct sim_node *node = sim_node(sim, i);

        node->models = 1 | (uint32_t)sim_below(sim, 8);
        if (sim_chance(sim, 0.1))
            node->models &= ~1u;
        node->memory_bytes = 2500000 + sim_below(sim, sim_chance(sim, 0.5) ? 3 : 14) * 1000000;
        node->speed = 1 + (double)sim_below(sim, 30) / 10;
    }
    sim_node(sim, 0)->models |= 1;
}

static void introduce(struct sim *sim)
{
    bool seeds = sim_chance(sim, 0.3);

    for (int i = 0; i < sim_n_nodes(sim); i++) {
        sim_start(sim, i);
        if (seeds && i)
            sim_seed_at(sim, i, sim_node(sim, (int)sim_below(sim, (uint64_t)i))->address);
        if (seeds && sim_chance(sim, 0.2))
            sim_seed_at(sim, i, sim_node(sim, i)->address);
        (void)sim_run_until(sim, sim_now(sim) + sim_below(sim, SIM_SECOND / 2));
    }
    if (!seeds)
        sim_see_all(sim);
}

/* Surely enough memory for model-a: each node can hold so many layers beside embedding and KV. */
static bool there_is_room(struct sim *sim)
{
    uint64_t n_layers = 0;

    for (int i = 0; i < sim_n_nodes(sim); i++) {
        const struct sim_node *node = sim_node(sim, i);

        if (node->alive && node->models & 1)
            n_layers += (node->memory_bytes - 600000) / 1300000;
    }
    return n_layers >= sim_model(sim, 0)->n_layers;
}

/* No more faults: all must see each other, and a prompt at each node must be answered. */
static void peace(struct sim *sim)
{
    struct request_spec spec = {.kind = REQUEST_TEXT, .repeat_penalty = 1, .top_p = 1};

    sim_heal(sim);
    for (int i = 0; i < sim_n_nodes(sim); i++)
        if (!sim_node(sim, i)->alive && sim_chance(sim, 0.8))
            sim_start(sim, i);
    sim_see_all(sim);
    (void)sim_run_until(sim, sim_now(sim) + 45 * SIM_SECOND);
    (void)sim_check_members(sim);
    spec.max_tokens = 12;
    for (int i = 0; i < sim_n_nodes(sim) && !sim_fault(sim)[0]; i++) {
        struct sim_request *r = sim_node(sim, i)->alive ? sim_ask(sim, i, 0, "peace", &spec) : NULL;

        if (!r)
            continue;
        (void)sim_run_until(sim, sim_now(sim) + 4 * SIM_SECOND);
        if (!r->done)
            sim_fail(sim, "a prompt in peace is not answered within 4 s");
        else if (r->end.status != STATUS_OK && there_is_room(sim))
            sim_fail(sim, "a prompt in peace failed: %s", r->end.text);
    }
    (void)sim_run_until(sim, sim_now(sim) + 20 * SIM_SECOND);
    (void)sim_check_requests(sim);
    (void)sim_check_empty(sim);
}

static bool history(uint64_t seed, bool trace, struct totals *totals)
{
    struct sim_options options = {.seed = seed, .trace = trace, .n_models = 2};
    struct sim *sim;
    bool well;
    uint64_t war_us;

    options.n_nodes = 2 + (int)(sim_mix(seed, 1) % 5);
    if (sim_mix(seed, 2) % 20 == 0)
        options.n_nodes = 8;
    options.delay_us = sim_mix(seed, 3) % 3 == 0 ? 20000 : 1000;
    options.dial_fails = sim_mix(seed, 4) % 2 ? 0.2 : 0;
    options.load_fails = sim_mix(seed, 5) % 3 ? 0 : 0.1;
    options.stage_fails = sim_mix(seed, 6) % 4 ? 0 : 0.01;
    options.slow_loads = sim_mix(seed, 7) % 10 == 0;
    options.memory_fails = sim_mix(seed, 8) % 5 ? 0 : 0.03;
    sim = sim_new(&options);
    random_cluster(sim);
    introduce(sim);
    war_us = sim_now(sim) + (5 + sim_below(sim, 15)) * SIM_SECOND;
    while (sim_now(sim) < war_us && !sim_fault(sim)[0]) {
        random_fault(sim);
        (void)sim_run_until(
            sim,
            sim_now(sim) + sim_below(sim, sim_chance(sim, 0.5) ? SIM_SECOND / 20 : SIM_SECOND));
    }
    if (options.slow_loads)
        (void)sim_run_until(sim, sim_now(sim) + 200 * SIM_SECOND);
    if (!sim_fault(sim)[0])
        peace(sim);
    for (uint32_t i = 0; i < sim_n_requests(sim); i++) {
        const struct sim_request *r = sim_request(sim, i);

        totals->asked++;
        totals->lost += r->lost;
        totals->cancelled += r->cancelled;
        totals->well += r->done && r->end.status == STATUS_OK && !r->cancelled;
        totals->failed += r->done && r->end.status != STATUS_OK;
    }
    well = !sim_fault(sim)[0];
    if (!well)
        (void)printf("seed %llu: %s\n", (unsigned long long)seed, sim_fault(sim));
    sim_free(sim);
    return well;
}

int main(int argc, char **argv)
{
    unsigned long histories = 3000, seed = 1, n_bad = 0;
    bool one = false, trace = false;
    struct totals totals = {0};

    log_level_set(LOG_ERROR);
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--histories") && i + 1 < argc)
            histories = strtoul(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            seed = strtoul(argv[++i], NULL, 10), one = trace = true;
        else if (!strcmp(argv[i], "--from") && i + 1 < argc)
            seed = strtoul(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--trace"))
            trace = true;
    }
    for (unsigned long i = 0; i < (one ? 1 : histories) && n_bad < 10; i++)
        n_bad += !history(seed + i, trace, &totals);
    (void)printf("%lu histories: %lu requests, %lu answered, %lu failed, %lu cancelled, %lu with a "
                 "lost front; %lu histories broke an invariant\n",
                 one ? 1 : histories, totals.asked, totals.well, totals.failed, totals.cancelled,
                 totals.lost, n_bad);
    return n_bad != 0;
}
