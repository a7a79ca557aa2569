/* Stage threads with the demo model on a real loop: two halves give what the whole gives, passes
 * keep their order, dropping and closing amid work leave nothing behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "node/flow/stage.h"

enum { N_PROMPT = 7, MAX_DONE = 64 };

static const uint32_t prompt[N_PROMPT] = {300, 12, 700, 41, 1999, 5, 88};

struct fixture {
    uv_loop_t loop;
    struct stages *stages;
    struct model *model;
    const struct model_info *info;
    unsigned n_loaded, n_done, n_heads, n_freed;
    struct instance_ref freed;
    uint64_t order[MAX_DONE];
    struct control_pass *last;
    struct fault fault;
    bool closed;
};

static void on_loaded(void *owner, const struct instance_ref *instance, const struct fault *fault)
{
    struct fixture *f = owner;

    (void)instance;
    f->n_loaded++;
    f->fault = *fault;
}

static void keep(struct fixture *f, struct control_pass *pass, const struct fault *fault)
{
    control_pass_free(&f->last);
    f->last = pass;
    f->fault = *fault;
}

static void on_stage_done(void *owner, struct control_pass *pass, const struct fault *fault)
{
    struct fixture *f = owner;

    f->order[f->n_done++ % MAX_DONE] = pass->message->pass.pass;
    keep(f, pass, fault);
}

static void on_head_done(void *owner, const uint8_t hash[static PROTO_HASH_BYTES],
                         struct control_pass *pass, const struct fault *fault)
{
    struct fixture *f = owner;

    (void)hash;
    f->n_heads++;
    keep(f, pass, fault);
}

static void on_freed(void *owner, const struct instance_ref *instance,
                     const uint8_t hash[static PROTO_HASH_BYTES])
{
    (void)hash;
    ((struct fixture *)owner)->freed = *instance;
    ((struct fixture *)owner)->n_freed++;
}

static void on_closed(void *owner)
{
    ((struct fixture *)owner)->closed = true;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct stages_events events = {on_loaded, on_stage_done, on_head_done, on_freed, on_closed, f};
    const void *data;
    size_t size_bytes;

    model_demo(&data, &size_bytes);
    assert_int_equal(model_open_memory(data, size_bytes, "demo", &f->model, NULL), STATUS_OK);
    f->info = model_info(f->model);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(stages_new(&f->loop, &events, &f->stages), STATUS_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    stages_close(f->stages);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_true(f->closed);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    control_pass_free(&f->last);
    model_free(&f->model);
    free(f);
    return 0;
}

static void run_until(struct fixture *f, const unsigned *count, unsigned wanted)
{
    for (int i = 0; i < 4000 && *count < wanted; i++) {
        (void)uv_run(&f->loop, UV_RUN_NOWAIT);
        usleep(1000);
    }
    assert_int_equal(*count, wanted);
}

static struct shard_spec spec_of(uint32_t begin, uint32_t end, bool ends)
{
    return (struct shard_spec){.layer_begin = begin,
                               .layer_end = end,
                               .embed = ends,
                               .head = ends,
                               .n_slots = 2,
                               .n_ctx_tokens = 256,
                               .n_kv_blocks = 16,
                               .max_rows = 64,
                               .n_threads = 1};
}

static void load(struct fixture *f, uint64_t number, struct shard_spec spec)
{
    struct instance_ref instance = {.number = number};
    uint8_t hash[PROTO_HASH_BYTES] = {1};
    unsigned before = f->n_loaded;

    assert_int_equal(stages_load(f->stages, &instance, f->model, hash, &spec, NULL), STATUS_OK);
    run_until(f, &f->n_loaded, before + 1);
    assert_int_equal(f->fault.status, STATUS_OK);
}

/* Rows `from` … N_PROMPT of the prompt in slot 0; the last one is sampled, greedily. */
static struct control_pass *pass_of(const struct fixture *f, uint64_t number, uint32_t from)
{
    uint32_t n = N_PROMPT - from;
    struct control_pass *pass = MEM_NEW(struct control_pass);
    struct message *message = message_new(MESSAGE_PASS);

    message->pass.pass = number;
    message->pass.n_rows = n;
    for (uint32_t i = 0; i < n; i++)
        message->pass.rows[i] = (struct pass_row){.slot = 0, .pos = from + i};
    message->payload_bytes = (size_t)n * f->info->n_embd * sizeof(float);
    message->payload = mem_aligned(64, message->payload_bytes, 1);
    pass->message = message;
    pass->tokens = mem_copy(prompt + from, n * sizeof *prompt);
    pass->n_samples = 1;
    pass->samples = MEM_NEW(struct sample_job);
    pass->samples[0].row = n - 1;
    sample_defaults(&pass->samples[0].params);
    pass->samples[0].params.temperature = 0;
    pass->samples[0].position = N_PROMPT;
    return pass;
}

static struct control_pass *take_last(struct fixture *f)
{
    struct control_pass *pass = f->last;

    f->last = NULL;
    return pass;
}

static uint32_t greedy_whole(struct fixture *f)
{
    struct instance_ref instance = {.number = 1};

    load(f, 1, spec_of(0, f->info->n_layers, true));
    assert_int_equal(stages_run(f->stages, &instance, pass_of(f, 1, 0), false), STATUS_OK);
    run_until(f, &f->n_done, 1);
    assert_int_equal(f->fault.status, STATUS_OK);
    assert_int_equal(stages_run(f->stages, &instance, take_last(f), true), STATUS_OK);
    run_until(f, &f->n_heads, 1);
    assert_int_equal(f->fault.status, STATUS_OK);
    return f->last->samples[0].token;
}

static void test_two_halves_are_the_whole(void **state)
{
    struct fixture *f = *state;
    struct instance_ref first = {.number = 2}, second = {.number = 3};
    uint32_t whole = greedy_whole(f);
    struct control_pass *pass;

    load(f, 2, spec_of(0, 3, true));
    load(f, 3, spec_of(3, f->info->n_layers, false));
    assert_int_equal(stages_run(f->stages, &first, pass_of(f, 2, 0), false), STATUS_OK);
    run_until(f, &f->n_done, 2);
    pass = take_last(f);
    mem_free(pass->tokens); /* later stages embed nothing */
    pass->tokens = NULL;
    assert_int_equal(stages_run(f->stages, &second, pass, false), STATUS_OK);
    run_until(f, &f->n_done, 3);
    assert_int_equal(stages_run(f->stages, &first, take_last(f), true), STATUS_OK);
    run_until(f, &f->n_heads, 2);
    assert_int_equal(f->last->samples[0].token, whole);
}

static void test_passes_keep_their_order(void **state)
{
    struct fixture *f = *state;
    struct instance_ref instance = {.number = 1};

    load(f, 1, spec_of(0, f->info->n_layers, true));
    for (uint64_t i = 0; i < 40; i++) {
        struct control_pass *pass = pass_of(f, i, 0);

        pass->message->pass.n_clears = 1;
        assert_int_equal(stages_run(f->stages, &instance, pass, false), STATUS_OK);
    }
    run_until(f, &f->n_done, 40);
    for (uint64_t i = 0; i < 40; i++)
        assert_int_equal(f->order[i], i);
    assert_int_equal(f->fault.status, STATUS_OK);
}

static void test_a_gap_in_positions_fails_the_pass(void **state)
{
    struct fixture *f = *state;
    struct instance_ref instance = {.number = 1};

    load(f, 1, spec_of(0, f->info->n_layers, true));
    assert_int_equal(stages_run(f->stages, &instance, pass_of(f, 1, 3), false), STATUS_OK);
    run_until(f, &f->n_done, 1);
    assert_int_equal(f->fault.status, STATUS_INVALID);
}

static void test_a_pass_of_another_width_fails(void **state)
{
    struct fixture *f = *state;
    struct instance_ref instance = {.number = 1};
    struct control_pass *pass = pass_of(f, 1, 0);

    load(f, 1, spec_of(0, f->info->n_layers, true));
    pass->message->payload_bytes = N_PROMPT * sizeof(float); /* a head that says n_embd is 1 */
    assert_int_equal(stages_run(f->stages, &instance, pass, false), STATUS_OK);
    run_until(f, &f->n_done, 1);
    assert_int_equal(f->fault.status, STATUS_FORMAT);
}

static void test_a_shard_that_cannot_load_says_so(void **state)
{
    struct fixture *f = *state;
    struct instance_ref instance = {.number = 9};
    struct shard_spec spec = spec_of(5, 99, false);
    uint8_t hash[PROTO_HASH_BYTES] = {0};

    assert_int_equal(stages_load(f->stages, &instance, f->model, hash, &spec, NULL), STATUS_OK);
    run_until(f, &f->n_loaded, 1);
    assert_int_not_equal(f->fault.status, STATUS_OK);
    assert_true(stages_drop(f->stages, &instance));
    assert_false(stages_drop(f->stages, &instance)); /* nothing more will be reported */
    run_until(f, &f->n_freed, 1);
    assert_true(instance_ref_equal(&f->freed, &instance));
}

static void test_dropping_amid_work_reports_nothing_more(void **state)
{
    struct fixture *f = *state;
    struct instance_ref instance = {.number = 1};

    load(f, 1, spec_of(0, f->info->n_layers, true));
    for (uint64_t i = 0; i < 20; i++) {
        struct control_pass *pass = pass_of(f, i, 0);

        pass->message->pass.n_clears = 1;
        assert_int_equal(stages_run(f->stages, &instance, pass, false), STATUS_OK);
    }
    (void)stages_drop(f->stages, &instance);
    struct control_pass *late = pass_of(f, 1, 0);

    run_until(f, &f->n_freed, 1);
    assert_int_equal(f->n_done, 0);
    assert_int_equal(stages_run(f->stages, &instance, late, false), STATUS_NOT_FOUND);
    control_pass_free(&late); /* still ours */
}

static void test_closing_amid_work(void **state)
{
    struct fixture *f = *state;
    struct instance_ref instance = {.number = 1};

    load(f, 1, spec_of(0, f->info->n_layers, true));
    assert_int_equal(stages_run(f->stages, &instance, pass_of(f, 1, 0), false), STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_two_halves_are_the_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_passes_keep_their_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_gap_in_positions_fails_the_pass, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_pass_of_another_width_fails, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_shard_that_cannot_load_says_so, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_dropping_amid_work_reports_nothing_more, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_closing_amid_work, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
