/* Room for a model that others hold: asked for, waited for, or explained; plans that tell of it;
 * the form and the context of an instance. */
#include "tests/unit/node/rig.h"

enum { BIG = 0xbb };

static struct control_model *toy(void)
{
    return rig_control_model(RIG_MODEL, RIG_LAYERS, RIG_LAYER);
}

static void model_opens(struct rig *rig)
{
    rig_model_opens(rig, RIG_MODEL, toy());
}

/* "other" heads "big", which takes its whole memory. */
static void other_holds_big(struct node_card *card, uint32_t idle_seconds)
{
    struct holding *holding = &card->holdings[0];

    rig_model(card, BIG, "big");
    card->memory_free_bytes = 0;
    card->n_instances = card->n_holdings = 1;
    memset(card->instances[0], BIG, PROTO_HASH_BYTES);
    rig_id(holding->instance.head, 0x90);
    holding->instance.number = 77;
    memset(holding->model_hash, BIG, PROTO_HASH_BYTES);
    holding->bytes = card->memory_bytes;
    holding->layer_end = 9;
    holding->n_ctx_tokens = 2048;
    holding->idle_seconds = idle_seconds;
    holding->ready = true;
}

static void an_idle_model_elsewhere_is_asked_to_close(void **state)
{
    struct rig *rig = *state;
    uint32_t link;
    struct message *asked, *answer;

    other_holds_big(&rig_other, 5);
    link = rig_member(rig, 0x90, &rig_other);
    rig_request(rig, 1, "toy");
    model_opens(rig);
    asked = rig_sent(rig, link, MESSAGE_CLOSE_IDLE);
    assert_non_null(asked);
    assert_int_equal(asked->close_idle.instance.number, 77);
    assert_string_equal(asked->close_idle.for_model, "toy");
    assert_int_equal(asked->close_idle.want_bytes, rig_other.memory_bytes);
    answer = message_new(MESSAGE_IDLE_CLOSED);
    answer->outcome.instance = asked->close_idle.instance;
    rig_message(rig, link, answer);
    rig_other.n_holdings = rig_other.n_instances = 0;
    rig_other.memory_free_bytes = rig_other.memory_bytes;
    rig_send_card(rig, link, &rig_other);
    rig_tick(rig, RIG_SECOND / 2);
    assert_non_null(rig_sent(rig, link, MESSAGE_PREPARE));
}

static void a_busy_model_is_waited_for_and_then_named(void **state)
{
    struct rig *rig = *state;
    struct control_action *done = NULL;
    uint32_t link;

    other_holds_big(&rig_other, 0);
    link = rig_member(rig, 0x90, &rig_other);
    rig_request(rig, 1, "toy");
    model_opens(rig);
    assert_null(rig_sent(rig, link, MESSAGE_CLOSE_IDLE));
    rig_pass_time(rig, 55 * RIG_SECOND, &link, 1);
    assert_int_equal(control_open_requests(rig->control), 1);
    for (int i = 0; i < 100 && !done; i++) {
        struct message *pong = message_new(MESSAGE_PONG);

        rig_message(rig, link, pong);
        rig_tick(rig, RIG_SECOND / 10);
        done = rig_action(rig, ACTION_DONE, 0);
    }
    assert_non_null(done);
    assert_int_equal(done->done.done.status, STATUS_NO_ROOM);
    assert_non_null(strstr(done->done.done.text, "model big holds 2.4 MB on node other"));
    assert_non_null(strstr(done->done.done.text, "--memory"));
}

static enum status close_is_asked(struct rig *rig, uint32_t link, const struct instance_ref *ref)
{
    struct message *message = message_new(MESSAGE_CLOSE_IDLE);

    message->close_idle.instance = *ref;
    strcpy(message->close_idle.for_model, "big");
    rig_message(rig, link, message);
    assert_non_null(rig_sent(rig, link, MESSAGE_IDLE_CLOSED));
    return rig_sent(rig, link, MESSAGE_IDLE_CLOSED)->outcome.status;
}

static void an_instance_is_closed_for_others_only_while_nobody_uses_it(void **state)
{
    struct instance_ref ref, unknown;
    struct rig rig;
    uint32_t link;

    (void)state;
    rig_own.memory_bytes = rig_own.memory_free_bytes = 9 * RIG_LAYER;
    rig_new(&rig, &rig_own, NULL);
    ref = unknown = rig_ready_alone(&rig, toy());
    link = rig_member(&rig, 0x90, &rig_other);
    unknown.number++;
    assert_int_equal(close_is_asked(&rig, link, &unknown), STATUS_NOT_FOUND);
    assert_int_equal(close_is_asked(&rig, link, &ref), STATUS_BUSY);
    rig_cancel(&rig, 1);
    assert_int_equal(close_is_asked(&rig, link, &ref), STATUS_OK);
    assert_int_equal(rig_count(&rig, ACTION_FREE_SHARD), 1);
    rig_free(&rig);
}

static void a_plan_says_what_would_be_closed_for_it(void **state)
{
    struct rig *rig = *state;
    struct control_model *model = toy();
    struct control_plan_view view;
    struct fault fault = {0};

    other_holds_big(&rig_other, 5);
    (void)rig_member(rig, 0x90, &rig_other);
    assert_int_equal(control_plan(rig->control, model, PLAN_LATENCY, &view, &fault), STATUS_OK);
    assert_false(view.running);
    assert_int_equal(view.plan.n_stages, 2);
    assert_int_equal(view.n_closing, 1);
    assert_string_equal(view.closing[0].model, "big");
    assert_string_equal(view.closing[0].head, "other");
    control_model_free(&model);
}

static void a_plan_shows_what_another_node_heads(void **state)
{
    struct rig *rig = *state;
    struct instance_view instances[4];
    struct control_plan_view view;
    uint8_t hash[PROTO_HASH_BYTES];

    memset(hash, BIG, sizeof hash);
    other_holds_big(&rig_other, 0);
    (void)rig_member(rig, 0x90, &rig_other);
    assert_true(control_plan_running(rig->control, hash, &view));
    assert_string_equal(view.head, "other");
    assert_int_equal(view.plan.n_stages, 1);
    assert_int_equal(view.plan.stages[0].layer_end, 9);
    assert_int_equal(view.n_ctx_tokens, 2048);
    assert_int_equal(control_instances_elsewhere(rig->control, instances, 4), 1);
    assert_string_equal(instances[0].model, "big");
    assert_string_equal(instances[0].stage_names[0], "other");
    rig_other.holdings[0].layer_begin = 1; /* a stage whose card has not come */
    (void)rig_member(rig, 0x90, &rig_other);
    assert_false(control_plan_running(rig->control, hash, &view));
}

/* "own" alone with memory for about half of the context that it asks for. */
static void short_of_memory(struct rig *rig)
{
    struct control_options options = {.n_ctx_tokens = 8192, .n_slots = 4, .max_rows = 32};

    rig_card(&rig_own, "own", 4 * RIG_LAYER / 10 + 100000 + 1500 * 40);
    rig_model(&rig_own, RIG_MODEL, "toy");
    rig_new(rig, &rig_own, &options);
}

static struct control_model *model_with_savings(void)
{
    struct control_model *model = rig_control_model(RIG_MODEL, RIG_LAYERS, RIG_LAYER / 10);

    strcpy(model->name, "toy");
    model->n_savings = 2;
    model->savings[0] = (struct control_saving){"--kv f16", 1, 20.0 / 40};
    model->savings[1] = (struct control_saving){"--kv q8_0", 1, 11.0 / 40};
    return model;
}

static void a_short_context_is_told_with_what_would_help(void **state)
{
    struct control_model *model = model_with_savings();
    struct control_plan_view view;
    struct fault fault = {0};
    struct rig rig;

    (void)state;
    short_of_memory(&rig);
    assert_int_equal(control_plan(rig.control, model, PLAN_LATENCY, &view, &fault), STATUS_OK);
    assert_in_range(view.n_ctx_tokens, 2049, 4096); /* not merely the half that fits */
    assert_non_null(strstr(view.notice, "instead of 8192"));
    assert_non_null(strstr(view.notice, "--kv f16"));
    assert_non_null(strstr(view.notice, "--kv q8_0 (8192 tokens)"));
    assert_non_null(strstr(view.notice, "--memory"));
    control_model_free(&model);
    rig_free(&rig);
}

static void a_prompt_too_long_for_the_memory_is_told_with_what_would_help(void **state)
{
    static const uint32_t tokens[5000];
    struct control_event event = {.kind = EVENT_PROMPT};
    const struct message_done *done;
    struct rig rig;

    (void)state;
    short_of_memory(&rig);
    (void)rig_ready_alone(&rig, model_with_savings());
    event.prompt.sequence = 1;
    event.prompt.tokens = tokens;
    event.prompt.n_tokens = COUNT_OF(tokens);
    rig_step(&rig, &event);
    done = &rig_action(&rig, ACTION_DONE, 0)->done.done;
    assert_int_equal(done->status, STATUS_CONTEXT);
    assert_non_null(strstr(done->text, "5000 tokens"));
    assert_non_null(strstr(done->text, "instead of 8192"));
    assert_non_null(strstr(done->text, "--kv q8_0 (8192 tokens)"));
    rig_free(&rig);
}

static void smaller_forms_that_would_fit_are_told(void **state)
{
    struct rig *rig = *state;
    struct control_model *model = toy();
    struct control_plan_view view;
    struct control_action *done;
    struct fault fault = {0};

    model->n_savings = 3;
    model->savings[0] = (struct control_saving){"--kv f16", 1, 0.5};
    model->savings[1] = (struct control_saving){"--quantize q8_0", 0.9, 1};
    model->savings[2] = (struct control_saving){"--quantize q4_k", 0.25, 1};
    assert_int_equal(control_plan(rig->control, model, PLAN_LATENCY, &view, &fault),
                     STATUS_NO_ROOM);
    assert_non_null(strstr(fault.text, ", or run it with --quantize q4_k ("));
    assert_null(strstr(fault.text, "q8_0"));
    assert_null(strstr(fault.text, "--kv"));
    assert_null(strstr(fault.text, "--mapped"));
    rig_request(rig, 1, "toy");
    rig_model_opens(rig, RIG_MODEL, model);
    done = rig_action(rig, ACTION_DONE, 0);
    assert_non_null(done);
    assert_non_null(strstr(done->done.done.text, ", or run it with --quantize q4_k ("));
}

/* Weights in their file take no memory: the same model that there was no room for has a plan with
 * the longest context, and the books hold what is left. */
static void weights_in_their_file_need_no_room(void **state)
{
    struct rig *rig = *state;
    struct control_model *model = toy();
    struct control_plan_view view;
    struct fault fault = {0};

    model->n_savings = 1;
    model->savings[0] = (struct control_saving){"--mapped", 0, 1};
    assert_int_equal(control_plan(rig->control, model, PLAN_LATENCY, &view, &fault),
                     STATUS_NO_ROOM);
    assert_non_null(strstr(fault.text, ", or run it with --mapped ("));
    for (uint32_t i = 0; i < model->n_layers; i++)
        model->layer_bytes[i] = 0;
    model->embed_bytes = model->head_bytes = 0;
    assert_int_equal(control_plan(rig->control, model, PLAN_LATENCY, &view, &fault), STATUS_OK);
    assert_int_equal(view.plan.n_stages, 1);
    assert_true(view.plan.stages[0].decode_seconds > 0);
    rig_request(rig, 1, "toy");
    rig_model_opens(rig, RIG_MODEL, model);
    assert_non_null(rig_action(rig, ACTION_LOAD_SHARD, 0));
    assert_int_equal(control_reserved_bytes(rig->control), view.plan.stages[0].need_bytes);
}

static void the_form_of_the_head_goes_to_all_stages(void **state)
{
    struct control_options options = {.n_ctx_tokens = 128, .n_slots = 2, .max_rows = 32};
    const struct message_prepare *prepare;
    struct instance_view view;
    struct rig rig;
    uint32_t link;

    (void)state;
    options.form = (struct model_form){.kv_type = KV_F16, .quantize = 2, .mapped = true};
    rig_new(&rig, &rig_own, &options);
    link = rig_member(&rig, 0x90, &rig_other);
    rig_request(&rig, 1, "toy");
    model_opens(&rig);
    prepare = &rig_sent(&rig, link, MESSAGE_PREPARE)->prepare;
    assert_int_equal(prepare->kv_type, KV_F16);
    assert_int_equal(prepare->quantize, 2);
    assert_true(prepare->mapped);
    assert_int_equal(control_instances(rig.control, &view, 1), 1);
    assert_int_equal(view.form.kv_type, KV_F16);
    rig_free(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(test) cmocka_unit_test_setup_teardown(test, rig_setup, rig_teardown)
        T(an_idle_model_elsewhere_is_asked_to_close),
        T(a_busy_model_is_waited_for_and_then_named),
        T(an_instance_is_closed_for_others_only_while_nobody_uses_it),
        T(a_plan_says_what_would_be_closed_for_it),
        T(a_plan_shows_what_another_node_heads),
        T(a_short_context_is_told_with_what_would_help),
        T(a_prompt_too_long_for_the_memory_is_told_with_what_would_help),
        T(smaller_forms_that_would_fit_are_told),
        T(weights_in_their_file_need_no_room),
        T(the_form_of_the_head_goes_to_all_stages),
    };

    log_level_set(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
