/* Stages at a worker: reserved, loaded, run, released, and not to be fooled. */
#include "tests/unit/node/rig.h"

static struct message *prepare_message(struct rig *rig, uint8_t head, uint64_t need_bytes)
{
    struct message *message = message_new(MESSAGE_PREPARE);
    struct message_prepare *p = &message->prepare;

    rig_id(p->instance.head, head);
    p->instance.number = 5;
    p->instance.epoch = 3;
    memset(p->model_hash, RIG_MODEL, PROTO_HASH_BYTES);
    p->stage = 1;
    p->n_stages = 2;
    rig_id(p->stages[0].node_id, head);
    memcpy(p->stages[1].node_id, rig->self_id, PROTO_ID_BYTES);
    p->stages[0].layer_end = p->stages[1].layer_begin = 2;
    p->stages[1].layer_end = p->n_layers = 4;
    p->n_slots = 2;
    p->n_ctx_tokens = 64;
    p->n_kv_blocks = 4;
    p->max_rows = 16;
    p->n_embd = 4;
    p->need_bytes = need_bytes;
    return message;
}

static void sends(struct rig *rig, uint32_t link, enum message_kind kind,
                  const struct instance_ref *ref) /* LOAD or RELEASE */
{
    struct message *message = message_new(kind);

    message->instance = *ref;
    rig_message(rig, link, message);
}

static struct message *pass_message(const struct instance_ref *ref, uint32_t n_rows)
{
    struct message *message = message_new(MESSAGE_PASS);

    message->pass.instance = *ref;
    message->pass.pass = 1;
    message->pass.stage = 1;
    message->pass.n_rows = n_rows;
    message->payload_bytes = n_rows * 4 * sizeof(float);
    message->payload = mem_aligned(64, message->payload_bytes, 1);
    return message;
}

static void a_stage_is_reserved_loaded_run_and_released(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);
    struct message *message = prepare_message(rig, 0x90, RIG_LAYER);
    struct instance_ref ref = message->prepare.instance;
    struct message *answer;

    rig_message(rig, link, message);
    assert_int_equal(rig_sent(rig, link, MESSAGE_PREPARED)->outcome.status, STATUS_OK);
    assert_int_equal(control_reserved_bytes(rig->control), RIG_LAYER);
    sends(rig, link, MESSAGE_LOAD, &ref);
    assert_int_equal(rig_action(rig, ACTION_LOAD_SHARD, 0)->load_shard.spec.layer_begin, 2);
    assert_false(rig_action(rig, ACTION_LOAD_SHARD, 0)->load_shard.spec.embed);
    rig_shard_loads(rig, &ref, STATUS_OK);
    assert_int_equal(rig_sent(rig, link, MESSAGE_LOADED)->outcome.status, STATUS_OK);
    rig_message(rig, link, pass_message(&ref, 3));
    rig_stage_done(rig, rig_pass_of(rig, ACTION_RUN_STAGE));
    answer = rig_sent(rig, link, MESSAGE_PASS);
    assert_int_equal(answer->pass.stage, 0);
    assert_int_equal(answer->pass.n_rows, 3);
    sends(rig, link, MESSAGE_RELEASE, &ref);
    assert_int_equal(rig_count(rig, ACTION_FREE_SHARD), 1);
    assert_int_equal(control_reserved_bytes(rig->control),
                     RIG_LAYER); /* until its thread has ended */
    rig_freed(rig, &ref);
    assert_int_equal(control_reserved_bytes(rig->control), 0);
}

static void a_stage_that_does_not_fit_is_refused_with_the_true_number(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);
    struct message *answer;

    rig_message(rig, link, prepare_message(rig, 0x90, 3 * RIG_LAYER));
    answer = rig_sent(rig, link, MESSAGE_PREPARED);
    assert_int_equal(answer->outcome.status, STATUS_NO_ROOM);
    assert_int_equal(answer->outcome.memory_free_bytes, 3 * RIG_LAYER - RIG_LAYER / 2);
    assert_int_equal(control_reserved_bytes(rig->control), 0);
}

static void a_reservation_ends_with_its_head_or_after_30_s(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);

    rig_message(rig, link, prepare_message(rig, 0x90, RIG_LAYER));
    rig_pass_time(rig, 29 * RIG_SECOND, &link, 1);
    assert_int_equal(control_reserved_bytes(rig->control), RIG_LAYER);
    rig_pass_time(rig, 2 * RIG_SECOND, &link, 1);
    assert_int_equal(control_reserved_bytes(rig->control), 0);
    rig_message(rig, link, prepare_message(rig, 0x90, RIG_LAYER));
    assert_int_equal(control_reserved_bytes(rig->control), RIG_LAYER);
    rig_closed(rig, link, STATUS_CLOSED, "");
    assert_int_equal(control_reserved_bytes(rig->control), 0);
}

/* PREPARE of a stage, LOAD, and PREPARE of its next epoch, for which there is no memory besides.
 * Returns the old one. */
static struct instance_ref new_epoch_while_loading(struct rig *rig, uint32_t link)
{
    struct message *message = prepare_message(rig, 0x90, 2 * RIG_LAYER);
    struct instance_ref ref = message->prepare.instance;

    rig_message(rig, link, message);
    sends(rig, link, MESSAGE_LOAD, &ref);
    message = prepare_message(rig, 0x90, 2 * RIG_LAYER);
    message->prepare.instance.epoch++;
    rig_message(rig, link, message);
    return ref;
}

/* The old epoch's shard is still loading: the new one waits for its memory instead of being told
 * that there is none, and gets it when it is there, not before. */
static void a_new_epoch_waits_for_the_memory_of_the_old(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);
    struct instance_ref ref = new_epoch_while_loading(rig, link);

    assert_int_equal(rig_count(rig, ACTION_FREE_SHARD), 1);
    assert_null(rig_sent(rig, link, MESSAGE_PREPARED));
    assert_int_equal(control_reserved_bytes(rig->control), 2 * RIG_LAYER);
    rig_pass_time(rig, RIG_SECOND, &link, 1);
    assert_null(rig_sent(rig, link, MESSAGE_PREPARED));
    rig_freed(rig, &ref);
    assert_int_equal(rig_sent(rig, link, MESSAGE_PREPARED)->outcome.status, STATUS_OK);
    assert_int_equal(control_reserved_bytes(rig->control), 2 * RIG_LAYER);
}

static void who_waits_too_long_for_memory_is_told_the_true_number(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);
    struct message *answer = NULL;

    (void)new_epoch_while_loading(rig, link);
    for (int i = 0; i < 45 && !answer; i++) {
        rig_message(rig, link, message_new(MESSAGE_PONG));
        rig_tick(rig, RIG_SECOND / 10);
        answer = rig_sent(rig, link, MESSAGE_PREPARED);
    }
    assert_non_null(answer);
    assert_int_equal(answer->outcome.status, STATUS_NO_ROOM);
    assert_int_equal(answer->outcome.memory_free_bytes, RIG_LAYER / 2);
}

static void the_heads_form_is_the_stages(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);
    struct message *message = prepare_message(rig, 0x90, RIG_LAYER);
    struct instance_ref ref = message->prepare.instance;
    const struct shard_spec *spec;

    message->prepare.kv_type = KV_Q8_0;
    message->prepare.quantize = 8;
    message->prepare.mapped = true;
    rig_message(rig, link, message);
    sends(rig, link, MESSAGE_LOAD, &ref);
    spec = &rig_action(rig, ACTION_LOAD_SHARD, 0)->load_shard.spec;
    assert_int_equal(spec->form.kv_type, KV_Q8_0);
    assert_int_equal(spec->form.quantize, 8);
    assert_true(spec->form.mapped);
    message = prepare_message(rig, 0x90, RIG_LAYER);
    message->prepare.instance.number++;
    message->prepare.kv_type = KV_TYPE_COUNT;
    rig_message(rig, link, message);
    assert_int_equal(rig_action(rig, ACTION_CLOSE_LINK, 0)->close_link, link);
}

/* A stage that is ready, of a newer epoch each time. */
static struct instance_ref ready_stage(struct rig *rig, uint32_t link, uint32_t epoch)
{
    struct message *message = prepare_message(rig, 0x90, RIG_LAYER);
    struct instance_ref ref;

    message->prepare.instance.epoch = epoch;
    ref = message->prepare.instance;
    rig_message(rig, link, message);
    sends(rig, link, MESSAGE_LOAD, &ref);
    rig_message(rig, link, pass_message(&ref, 1)); /* too early */
    assert_int_equal(rig_count(rig, ACTION_RUN_STAGE), 0);
    rig_shard_loads(rig, &ref, STATUS_OK);
    if (epoch > 10) { /* that of the epoch before has ended meanwhile */
        struct instance_ref old = ref;

        old.epoch--;
        rig_freed(rig, &old);
    }
    return ref;
}

static void a_pass_is_checked_before_it_is_run(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other), stranger;
    struct instance_ref ref;
    struct message *message;

    strcpy(rig_other.name, "stranger");
    stranger = rig_member(rig, 0x91, &rig_other);
    for (uint32_t fault = 0; fault < 5; fault++) {
        ref = ready_stage(rig, link, 10 + fault);
        rig_message(rig, stranger, pass_message(&ref, 1)); /* not from the previous stage */
        assert_int_equal(rig_count(rig, ACTION_RUN_STAGE), 0);
        message = pass_message(&ref, 3);
        if (fault == 0)
            message->pass.rows[1].slot = 2;
        else if (fault == 1)
            message->pass.rows[2].pos = 64;
        else if (fault == 2)
            message->payload_bytes -= 4;
        else if (fault == 3)
            message->pass.n_rows = 17;
        else
            message->pass.n_clears = 1, message->pass.clears[0].slot = 9;
        rig_message(rig, link, message);
        assert_int_equal(rig_count(rig, ACTION_RUN_STAGE), 0);
        assert_int_equal(rig_sent(rig, link, MESSAGE_PASS_FAILED)->outcome.status, STATUS_FORMAT);
        rig_message(rig, link, pass_message(&ref, 3)); /* what follows a lost pass is not run */
        assert_int_equal(rig_count(rig, ACTION_RUN_STAGE), 0);
    }
    ref = ready_stage(rig, link, 20);
    ref.epoch--;
    rig_message(rig, link, pass_message(&ref, 1)); /* an older epoch */
    assert_int_equal(rig->actions.n, 0);
    ref.epoch++;
    rig_message(rig, link, pass_message(&ref, 1));
    assert_int_equal(rig_count(rig, ACTION_RUN_STAGE), 1);
}

static void a_stage_for_somebody_else_is_an_attack(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);

    rig_message(rig, link, prepare_message(rig, 0x91, RIG_LAYER));
    assert_int_equal(rig_action(rig, ACTION_CLOSE_LINK, 0)->close_link, link);
    assert_int_equal(control_reserved_bytes(rig->control), 0);
}

static void a_stage_waits_for_a_link_to_its_neighbour(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);
    struct message *message = prepare_message(rig, 0x90, RIG_LAYER);

    message->prepare.n_stages = 3;
    message->prepare.stages[1].layer_end = message->prepare.stages[2].layer_begin = 3;
    message->prepare.stages[2].layer_end = 4;
    rig_id(message->prepare.stages[2].node_id, 0x91);
    rig_message(rig, link, message);
    assert_null(rig_sent(rig, link, MESSAGE_PREPARED));
    strcpy(rig_other.name, "third");
    (void)rig_member(rig, 0x91, &rig_other);
    assert_int_equal(rig_sent(rig, link, MESSAGE_PREPARED)->outcome.status, STATUS_OK);

    message = prepare_message(rig, 0x90, RIG_LAYER);
    message->prepare.instance.epoch++;
    message->prepare.n_stages = 3;
    message->prepare.stages[1].layer_end = message->prepare.stages[2].layer_begin = 3;
    message->prepare.stages[2].layer_end = 4;
    rig_id(message->prepare.stages[2].node_id, 0x92);
    rig_message(rig, link, message);
    rig_tick(rig, 2 * RIG_SECOND);
    assert_int_equal(rig_sent(rig, link, MESSAGE_PREPARED)->outcome.status, STATUS_UNREACHABLE);
    assert_int_equal(control_reserved_bytes(rig->control), 0);
}

/* Its head's card may come later than the next prompt here. */
static void a_prompt_goes_to_the_head_of_a_stage_held_here(void **state)
{
    struct rig *rig = *state;
    uint32_t far = rig_member(rig, 0x10, &rig_other);
    uint32_t link = rig_member(rig, 0x90, &rig_other);

    (void)far;
    rig_message(rig, link, prepare_message(rig, 0x90, RIG_LAYER));
    rig_request(rig, 1, "toy");
    assert_non_null(rig_sent(rig, link, MESSAGE_SUBMIT));
    assert_int_equal(control_instances(rig->control, NULL, 0), 0);
    rig_closed(rig, link, STATUS_CLOSED, "gone");
    rig_request(rig, 2, "toy");
    assert_int_equal(rig_count(rig, ACTION_OPEN_MODEL), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(test) cmocka_unit_test_setup_teardown(test, rig_setup, rig_teardown)
        T(a_stage_is_reserved_loaded_run_and_released),
        T(a_stage_that_does_not_fit_is_refused_with_the_true_number),
        T(a_new_epoch_waits_for_the_memory_of_the_old),
        T(who_waits_too_long_for_memory_is_told_the_true_number),
        T(the_heads_form_is_the_stages),
        T(a_reservation_ends_with_its_head_or_after_30_s),
        T(a_pass_is_checked_before_it_is_run),
        T(a_stage_for_somebody_else_is_an_attack),
        T(a_stage_waits_for_a_link_to_its_neighbour),
        T(a_prompt_goes_to_the_head_of_a_stage_held_here),
    };

    log_level_set(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
