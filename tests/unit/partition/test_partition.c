/* The planner against everything it promises.
 *
 * The oracle is brute force: every ordered choice of nodes with every cut, on thousands of small
 * random clusters whose times are whole milliseconds, so that ties are exact. Beside it stand the
 * worked example with its known answer, what a node more may do, the sentences, plans that are
 * none, and time at full size. */
#include "partition/partition.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

struct world {
    struct plan_node nodes[PLAN_MAX_NODES];
    uint32_t n_nodes;
    struct plan_model model;
    struct plan_request request;
    uint64_t bytes[PLAN_MAX_LAYERS], active[PLAN_MAX_LAYERS], kv[PLAN_MAX_LAYERS];
    double flops[PLAN_MAX_LAYERS];
};

static uint64_t random_state;

static uint32_t random_below(uint32_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 33) % n;
}

static void world_wire(struct world *w)
{
    w->model.layer_bytes = w->bytes;
    w->model.layer_active_bytes = w->active;
    w->model.layer_kv_bytes = w->kv;
    w->model.layer_flops = w->flops;
}

static struct plan_node *world_add(struct world *w, const char *name, uint64_t memory,
                                   double seconds_per_byte)
{
    struct plan_node *n = &w->nodes[w->n_nodes++];

    memset(n, 0, sizeof *n);
    (void)snprintf(n->name, sizeof n->name, "%s", name);
    n->memory_bytes = memory;
    n->decode_seconds_per_byte = seconds_per_byte;
    n->can_run = true;
    return n;
}

/* 32 layers of 10 bytes; three nodes of 3, 5 and 9 ms per layer with room for 18, 20 and 12; the
 * output head takes 12 ms on the first (40 bytes at its speed); a hop takes 0.5 ms. */
static struct world worked_example(void)
{
    struct world w = {.model = {.n_layers = 32, .n_embd = 1, .head_active_bytes = 40},
                      .request = {.n_ctx_tokens = 1, .n_prompt_rows = 1, .head = 0}};

    for (uint32_t l = 0; l < 32; l++)
        w.bytes[l] = w.active[l] = 10;
    world_add(&w, "desk", 180, 3e-4)->hop_seconds = 5e-4;
    world_add(&w, "laptop", 200, 5e-4)->hop_seconds = 5e-4;
    world_add(&w, "pi", 120, 9e-4)->hop_seconds = 5e-4;
    return w;
}

static enum status world_plan(struct world *w, struct plan *plan, struct fault *fault)
{
    enum status status;

    world_wire(w);
    status = plan_make(w->nodes, w->n_nodes, &w->model, &w->request, plan, fault);
    if (status == STATUS_OK)
        assert_int_equal(plan_check(plan, w->nodes, w->n_nodes, &w->model, &w->request, fault),
                         STATUS_OK);
    return status;
}

static void test_worked_example_latency(void **state)
{
    struct world w = worked_example();
    struct plan plan;

    (void)state;
    assert_int_equal(world_plan(&w, &plan, NULL), STATUS_OK);
    assert_int_equal(plan.n_stages, 2);
    assert_int_equal(plan.stages[0].layer_end, 18);
    assert_int_equal(plan.stages[1].layer_end, 32);
    assert_int_equal(plan.stages[1].node, 1);
    assert_true(fabs(plan.latency_seconds - 0.137) < 1e-12);
    assert_true(fabs(plan.slowest_stage_seconds - 0.070) < 1e-12);
    assert_true(fabs(plan.tokens_per_second - 1 / 0.137) < 1e-9);
    assert_int_equal(plan.n_left_out, 1);
    assert_int_equal(plan.left_out[0].node, 2);
    assert_string_equal(plan.left_out[0].why,
                        "pi is left out: with it a token would take 141.5 ms instead of 137 ms");
}

static void test_worked_example_throughput(void **state)
{
    struct world w = worked_example();
    struct plan plan;

    (void)state;
    w.request.objective = PLAN_THROUGHPUT;
    assert_int_equal(world_plan(&w, &plan, NULL), STATUS_OK);
    assert_int_equal(plan.n_stages, 3);
    assert_int_equal(plan.stages[0].layer_end, 15);
    assert_int_equal(plan.stages[1].layer_end, 26);
    assert_int_equal(plan.stages[2].layer_end, 32);
    assert_true(fabs(plan.slowest_stage_seconds - 0.057) < 1e-12);
    assert_true(fabs(plan.latency_seconds - 0.1675) < 1e-12);
    assert_int_equal(plan.n_left_out, 0);
}

/* Free choice of the head puts it on the fastest node by itself. */
static void test_worked_example_any_head(void **state)
{
    struct world w = worked_example();
    struct plan plan;

    (void)state;
    w.request.head = -1;
    assert_int_equal(world_plan(&w, &plan, NULL), STATUS_OK);
    assert_int_equal(plan.stages[0].node, 0);
    w.request.head = 1;
    assert_int_equal(world_plan(&w, &plan, NULL), STATUS_OK);
    assert_int_equal(plan.stages[0].node, 1);
}

struct oracle {
    struct world *w;
    double best;
    uint32_t best_stages;
    struct plan plan;
    bool used[PLAN_MAX_NODES];
};

static void oracle_judge(struct oracle *o)
{
    double value;

    plan_predict(&o->plan, o->w->nodes, &o->w->model, &o->w->request);
    value = o->w->request.objective == PLAN_LATENCY ? o->plan.latency_seconds
                                                    : o->plan.slowest_stage_seconds;
    if (value < o->best - 1e-9 || (value < o->best + 1e-9 && o->plan.n_stages < o->best_stages)) {
        o->best = value;
        o->best_stages = o->plan.n_stages;
    }
}

static void oracle_place(struct oracle *o, uint32_t begin)
{
    struct world *w = o->w;
    uint32_t stage = o->plan.n_stages;

    if (begin == w->model.n_layers && stage > 0)
        oracle_judge(o);
    for (uint32_t i = 0; i < w->n_nodes; i++) {
        uint64_t need = w->model.scratch_bytes;

        if (o->used[i] || (stage == 0 && w->request.head >= 0 && (uint32_t)w->request.head != i))
            continue;
        need += stage == 0 ? w->model.embed_bytes + w->model.head_bytes : 0;
        o->used[i] = true;
        for (uint32_t end = begin; end <= w->model.n_layers; end++) {
            if (end > begin)
                need += w->bytes[end - 1] + w->kv[end - 1] * w->request.n_ctx_tokens;
            if (need > w->nodes[i].memory_bytes)
                break;
            if (end == begin && stage > 0)
                continue;
            o->plan.stages[stage] = (struct plan_stage){.node = i, begin, end, need, 0};
            o->plan.n_stages = stage + 1;
            oracle_place(o, end);
            o->plan.n_stages = stage;
        }
        o->used[i] = false;
    }
}

static void random_world(struct world *w, bool uniform)
{
    memset(w, 0, sizeof *w);
    w->model.n_layers = 1 + random_below(7);
    w->model.n_embd = 1;
    w->model.embed_bytes = random_below(4);
    w->model.head_bytes = random_below(4);
    w->model.head_active_bytes = random_below(12);
    w->model.scratch_bytes = random_below(3);
    w->request.n_ctx_tokens = 1 + random_below(3);
    w->request.objective = random_below(2) ? PLAN_LATENCY : PLAN_THROUGHPUT;
    for (uint32_t l = 0; l < w->model.n_layers; l++) {
        bool same = uniform && l > 0;

        w->bytes[l] = same ? w->bytes[0] : 1 + random_below(6);
        w->kv[l] = same ? w->kv[0] : random_below(3);
        w->active[l] = same ? w->active[0] : 1 + random_below(5);
    }
    for (uint32_t i = 0, n = 1 + random_below(4); i < n; i++) {
        struct plan_node *node = world_add(w, "n", random_below(50), random_below(9) * 1e-3);

        node->pass_seconds = random_below(4) * 1e-3;
        node->hop_seconds = random_below(4) * 1e-3;
        node->hop_seconds_per_byte = random_below(2) * 0.25e-3;
    }
    w->request.head = random_below(3) ? -1 : (int32_t)random_below(w->n_nodes);
}

static void test_brute_force(void **state)
{
    uint32_t n_planned = 0;

    (void)state;
    random_state = 88172645463325252u;
    for (int round = 0; round < 8000; round++) {
        struct world w;
        struct oracle o = {.w = &w, .best = INFINITY, .best_stages = UINT32_MAX};
        struct plan plan;
        struct fault fault = {0};
        enum status status;

        random_world(&w, round % 2);
        world_wire(&w);
        oracle_place(&o, 0);
        status = world_plan(&w, &plan, &fault);
        if (o.best_stages == UINT32_MAX) {
            assert_int_equal(status, STATUS_NO_ROOM);
            assert_non_null(strstr(fault.text, "; "));
            continue;
        }
        n_planned++;
        assert_int_equal(status, STATUS_OK);
        assert_true(fabs(o.best - (w.request.objective == PLAN_LATENCY
                                       ? plan.latency_seconds
                                       : plan.slowest_stage_seconds)) < 1e-9);
        assert_int_equal(plan.n_stages, o.best_stages);
        assert_int_equal(plan.n_stages + plan.n_left_out, w.n_nodes);
    }
    assert_true(n_planned > 3000);
}

/* A big model on mixed nodes; kinds > 1 mixes layer sizes as real files do. */
static void big_world(struct world *w, uint32_t n_nodes, uint32_t n_layers, uint32_t kinds,
                      double room)
{
    uint64_t total = 0;

    memset(w, 0, sizeof *w);
    w->model = (struct plan_model){.n_layers = n_layers,
                                   .n_embd = 4096,
                                   .embed_bytes = 300u << 20,
                                   .head_bytes = 400u << 20,
                                   .head_active_bytes = 400u << 20,
                                   .head_flops = 1e9,
                                   .scratch_bytes = 64u << 20};
    w->request = (struct plan_request){.n_ctx_tokens = 8192, .n_prompt_rows = 512, .head = -1};
    for (uint32_t l = 0; l < n_layers; l++) {
        w->bytes[l] = (500u << 20) + (uint64_t)(l % 3 ? random_below(kinds) : 0) * (37u << 20);
        w->active[l] = w->bytes[l];
        w->kv[l] = 4096;
        w->flops[l] = 1e9;
        total += w->bytes[l] + w->kv[l] * 8192;
    }
    for (uint32_t i = 0; i < n_nodes; i++) {
        double share = room * (0.5 + random_below(1000) / 1000.0) / n_nodes;
        struct plan_node *n = world_add(w, "n", (uint64_t)((double)total * share) + (800u << 20),
                                        (1 + random_below(9)) * 1e-11);

        n->pass_seconds = random_below(500) * 1e-6;
        n->hop_seconds = random_below(500) * 1e-6;
        n->hop_seconds_per_byte = 1e-8;
        n->prefill_seconds_per_flop = 1e-11;
    }
}

static void test_node_more_never_worse(void **state)
{
    (void)state;
    random_state = 7;
    for (int round = 0; round < 60; round++) {
        struct world w;
        double before = INFINITY;

        big_world(&w, 8, 12 + random_below(30), 1 + (uint32_t)(round % 3) * 2, 2.5);
        w.request.objective = round % 2 ? PLAN_LATENCY : PLAN_THROUGHPUT;
        for (w.n_nodes = 1; w.n_nodes <= 8; w.n_nodes++) {
            struct plan plan;
            double value;

            if (world_plan(&w, &plan, NULL) != STATUS_OK) {
                assert_true(isinf(before));
                continue;
            }
            value = w.request.objective == PLAN_LATENCY ? plan.latency_seconds
                                                        : plan.slowest_stage_seconds;
            assert_true(value <= before * (1 + 1e-9));
            before = value;
        }
    }
}

static double seconds_now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The bound is generous: the figures of an idle machine stand in the folder's README. */
static void test_full_size_in_time(void **state)
{
    static const uint32_t layers[] = {80, 1024}, kinds[] = {1, 2, 40};
    static const double rooms[] = {1.02, 1.3, 2.5, 8};

    (void)state;
    random_state = 99;
    for (size_t i = 0; i < COUNT_OF(layers) * COUNT_OF(kinds) * COUNT_OF(rooms) * 2; i++) {
        size_t at = i / 2;
        struct world w;
        struct plan plan;
        double begin = seconds_now(), took;
        enum status status;

        big_world(&w, PLAN_MAX_NODES, layers[at % 2], kinds[at / 2 % 3], rooms[at / 6]);
        w.request.objective = i % 2 ? PLAN_LATENCY : PLAN_THROUGHPUT;
        status = world_plan(&w, &plan, NULL);
        assert_true(status == STATUS_OK || (status == STATUS_NO_ROOM && rooms[at / 6] < 2));
        took = seconds_now() - begin;
        print_message(
            "16 nodes, %u layers of %u kinds, %.2f times the room, %s: %u stages, %.1f ms\n",
            layers[at % 2], kinds[at / 2 % 3], rooms[at / 6], i % 2 ? "latency" : "throughput",
            plan.n_stages, took * 1e3);
        assert_true(took < 30);
    }
}

static void test_head_may_hold_no_layer(void **state)
{
    struct world w = worked_example();
    struct plan plan;

    (void)state;
    w.n_nodes = 0;
    world_add(&w, "small", 9, 1e-4);
    world_add(&w, "large", 320, 2e-4);
    w.model.embed_bytes = 9;
    w.request.head = 0;
    assert_int_equal(world_plan(&w, &plan, NULL), STATUS_OK);
    assert_int_equal(plan.n_stages, 2);
    assert_int_equal(plan.stages[0].node, 0);
    assert_int_equal(plan.stages[0].layer_end, 0);
    assert_int_equal(plan.stages[0].need_bytes, 9);
}

static void test_sentences(void **state)
{
    struct world w = worked_example();
    struct plan plan;

    (void)state;
    world_add(&w, "crumb", 5, 1e-4);
    world_add(&w, "ghost", 500, 1e-4)->can_run = false;
    (void)snprintf(w.nodes[4].why_not, sizeof w.nodes[4].why_not, "its engine lacks Q4_K");
    world_add(&w, "snail", 500, 1e9);
    w.model.scratch_bytes = 1;
    for (uint32_t i = 0; i < 3; i++)
        w.nodes[i].memory_bytes++;
    assert_int_equal(world_plan(&w, &plan, NULL), STATUS_OK);
    assert_int_equal(plan.n_left_out, 4);
    assert_string_equal(plan.left_out[1].why,
                        "crumb is left out: it does not have room for one layer (offers 5 B, a "
                        "layer with its KV takes 11 B)");
    assert_string_equal(plan.left_out[2].why, "ghost is left out: its engine lacks Q4_K");
    assert_non_null(strstr(plan.left_out[3].why, "snail is left out: at the speed it reports"));
}

static void test_throughput_leaves_out_what_cannot_help(void **state)
{
    struct world w = worked_example();
    struct plan plan;

    (void)state;
    w.request.objective = PLAN_THROUGHPUT;
    world_add(&w, "slug", 500, 1e-2);
    assert_int_equal(world_plan(&w, &plan, NULL), STATUS_OK);
    assert_int_equal(plan.n_stages, 3);
    assert_int_equal(plan.n_left_out, 1);
    assert_string_equal(plan.left_out[0].why,
                        "slug is left out: with it the slowest stage would not be below 57 ms");
}

static void test_no_room(void **state)
{
    struct world w = worked_example();
    struct plan plan;
    struct fault fault;

    (void)state;
    for (uint32_t l = 0; l < 32; l++)
        w.kv[l] = 1;
    w.request.n_ctx_tokens = 100;
    assert_int_equal(world_plan(&w, &plan, &fault), STATUS_NO_ROOM);
    assert_string_equal(
        fault.text,
        "the model needs 3.4 KB (weights 320 B, KV cache of 100 tokens 3.1 KB, "
        "working memory 0 B) and 3 nodes together offer 500 B; it fits with a context of 5 tokens");
    w.request.n_ctx_tokens = 5;
    assert_int_equal(world_plan(&w, &plan, &fault), STATUS_OK);
    w.request.n_ctx_tokens = 6;
    assert_int_equal(world_plan(&w, &plan, &fault), STATUS_NO_ROOM);
    w.bytes[7] = 1000;
    assert_int_equal(world_plan(&w, &plan, &fault), STATUS_NO_ROOM);
    assert_non_null(strstr(fault.text, "; add a node, raise --memory or take a smaller model"));
    w.bytes[7] = 190;
    w.request.n_ctx_tokens = 0;
    w.nodes[1].memory_bytes = 180;
    w.nodes[2].memory_bytes = 189;
    assert_int_equal(world_plan(&w, &plan, &fault), STATUS_NO_ROOM);
    assert_non_null(strstr(fault.text, "cut into whole layers it does not fit"));
    w.model.embed_bytes = 400;
    assert_int_equal(world_plan(&w, &plan, &fault), STATUS_NO_ROOM);
    assert_non_null(strstr(fault.text, "desk does not have room for the embedding"));
    w.request.head = -1;
    assert_int_equal(world_plan(&w, &plan, &fault), STATUS_NO_ROOM);
    assert_non_null(strstr(fault.text, "no node has room for the embedding"));
}

static void test_input_out_of_range(void **state)
{
    struct world w = worked_example();
    struct plan plan;
    struct fault fault;

    (void)state;
    w.nodes[1].pass_seconds = NAN;
    assert_int_equal(world_plan(&w, &plan, &fault), STATUS_INVALID);
    assert_non_null(strstr(fault.text, "laptop"));
    w.nodes[1].pass_seconds = -1;
    assert_int_equal(world_plan(&w, &plan, &fault), STATUS_INVALID);
    w = worked_example();
    w.request.head = 3;
    assert_int_equal(world_plan(&w, &plan, &fault), STATUS_INVALID);
    w = worked_example();
    w.model.n_layers = 0;
    assert_int_equal(world_plan(&w, &plan, &fault), STATUS_INVALID);
    w.model.n_layers = PLAN_MAX_LAYERS + 1;
    assert_int_equal(world_plan(&w, &plan, &fault), STATUS_INVALID);
    w = worked_example();
    w.bytes[3] = UINT64_MAX - 5;
    assert_int_equal(world_plan(&w, &plan, &fault), STATUS_INVALID);
    w = worked_example();
    w.kv[3] = UINT64_MAX / 2;
    w.request.n_ctx_tokens = 5;
    assert_int_equal(world_plan(&w, &plan, &fault), STATUS_INVALID);
    w = worked_example();
    w.n_nodes = 0;
    w.request.head = -1;
    assert_int_equal(world_plan(&w, &plan, &fault), STATUS_NOT_FOUND);
    world_add(&w, "ghost", 500, 1e-4)->can_run = false;
    assert_int_equal(world_plan(&w, &plan, &fault), STATUS_NOT_FOUND);
    assert_non_null(strstr(fault.text, "ghost"));
    world_wire(&w);
    assert_int_equal(plan_make(w.nodes, PLAN_MAX_NODES + 1, &w.model, &w.request, &plan, &fault),
                     STATUS_INVALID);
}

static void test_plan_check_refuses(void **state)
{
    static const struct {
        uint32_t stage;
        size_t field;
        uint32_t change;
    } edits[] = {
        {1, offsetof(struct plan_stage, node), 8},
        {1, offsetof(struct plan_stage, node), UINT32_MAX},
        {1, offsetof(struct plan_stage, layer_begin), 1},
        {1, offsetof(struct plan_stage, layer_begin), UINT32_MAX},
        {1, offsetof(struct plan_stage, layer_end), 1},
        {1, offsetof(struct plan_stage, layer_end), (uint32_t)-11},
        {2, offsetof(struct plan_stage, layer_end), 1},
        {0, offsetof(struct plan_stage, need_bytes), 1},
        {0, offsetof(struct plan_stage, layer_end), UINT32_MAX},
    };
    struct world w = worked_example();
    struct plan plan, changed;
    struct fault fault;

    (void)state;
    w.request.objective = PLAN_THROUGHPUT;
    assert_int_equal(world_plan(&w, &plan, &fault), STATUS_OK);
    for (size_t i = 0; i < COUNT_OF(edits) + 3; i++) {
        changed = plan;
        fault.text[0] = 0;
        if (i < COUNT_OF(edits))
            *(uint32_t *)(void *)((char *)&changed.stages[edits[i].stage] + edits[i].field) +=
                edits[i].change;
        else
            changed.n_stages = (const uint32_t[]){0, 2, PLAN_MAX_NODES + 1}[i - COUNT_OF(edits)];
        assert_int_not_equal(plan_check(&changed, w.nodes, w.n_nodes, &w.model, &w.request, &fault),
                             STATUS_OK);
        assert_true(fault.text[0] != 0);
    }
    w.request.head = 2;
    assert_int_equal(plan_check(&plan, w.nodes, w.n_nodes, &w.model, &w.request, &fault),
                     STATUS_INVALID);
    w.request.head = -1;
    w.nodes[1].memory_bytes = 100;
    assert_int_equal(plan_check(&plan, w.nodes, w.n_nodes, &w.model, &w.request, &fault),
                     STATUS_NO_ROOM);
    w.nodes[1].can_run = false;
    assert_int_equal(plan_check(&plan, w.nodes, w.n_nodes, &w.model, &w.request, &fault),
                     STATUS_INVALID);
}

/* Long prompts are bound by multiply-adds, short ones by reading the weights. */
static void test_first_token(void **state)
{
    struct world w = worked_example();
    struct plan plan;

    (void)state;
    for (uint32_t i = 0; i < w.n_nodes; i++)
        w.nodes[i].prefill_seconds_per_flop = 1e-3;
    for (uint32_t l = 0; l < 32; l++)
        w.flops[l] = 1;
    w.request.n_prompt_rows = 1;
    assert_int_equal(world_plan(&w, &plan, NULL), STATUS_OK);
    assert_true(fabs(plan.first_token_seconds - plan.latency_seconds) < 1e-12);
    w.request.n_prompt_rows = 1000;
    assert_int_equal(world_plan(&w, &plan, NULL), STATUS_OK);
    assert_true(fabs(plan.first_token_seconds - 32.001) < 1e-9);
}

static void test_no_memory_to_plan(void **state)
{
    (void)state;
    for (unsigned kinds = 1; kinds <= 2; kinds++) {
        enum status status = STATUS_NO_MEMORY;
        unsigned long n = 1;

        for (; status == STATUS_NO_MEMORY && n < 2000; n++) {
            struct world w;
            struct plan plan;
            struct fault fault;

            random_state = 5;
            big_world(&w, 4, 12, kinds * 2 - 1, 1.3);
            mem_fail_after(n);
            status = world_plan(&w, &plan, &fault);
            mem_fail_after(0);
        }
        assert_int_equal(status, STATUS_OK);
        assert_true(n > 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worked_example_latency),
        cmocka_unit_test(test_worked_example_throughput),
        cmocka_unit_test(test_worked_example_any_head),
        cmocka_unit_test(test_brute_force),
        cmocka_unit_test(test_node_more_never_worse),
        cmocka_unit_test(test_full_size_in_time),
        cmocka_unit_test(test_head_may_hold_no_layer),
        cmocka_unit_test(test_sentences),
        cmocka_unit_test(test_throughput_leaves_out_what_cannot_help),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_input_out_of_range),
        cmocka_unit_test(test_plan_check_refuses),
        cmocka_unit_test(test_first_token),
        cmocka_unit_test(test_no_memory_to_plan),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
