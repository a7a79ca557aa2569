/* Instances at their head: plan, prepare, refuse, load, probe, lose. Stages:
 * test_instance_worker.c. */
#include "tests/unit/node/rig.h"

#include <stdio.h>

/* What the model's file says of sampling. */
static struct sample_params made_sampling;
static unsigned made_settings;

static int setup(void **state)
{
    made_settings = 0;
    return rig_setup(state);
}

static void model_opens(struct rig *rig)
{
    struct control_model *model = rig_control_model(RIG_MODEL, RIG_LAYERS, RIG_LAYER);

    model->sampling = made_sampling;
    model->sampling_settings = made_settings;
    rig_model_opens(rig, RIG_MODEL, model);
}

static void outcome(struct rig *rig, uint32_t link, enum message_kind kind,
                    const struct instance_ref *ref, enum status status, uint64_t memory_free_bytes)
{
    struct message *message = message_new(kind);

    message->outcome.instance = *ref;
    message->outcome.status = status;
    message->outcome.memory_free_bytes = memory_free_bytes;
    if (status != STATUS_OK)
        strcpy(message->outcome.text, "because");
    rig_message(rig, link, message);
}

static void prompt_is_tokenized(struct rig *rig, uint64_t sequence, uint32_t n)
{
    struct control_event event = {.kind = EVENT_PROMPT};
    static uint32_t tokens[1000];

    event.prompt.sequence = sequence;
    event.prompt.tokens = tokens;
    event.prompt.n_tokens = n;
    rig_step(rig, &event);
}

static struct message *message_of(struct rig *rig, uint32_t link, enum message_kind kind)
{
    for (size_t i = 0; i < rig->actions.n; i++) {
        struct control_action *action = &rig->actions.items[i];

        if (action->kind == ACTION_SEND && action->send.link == link &&
            action->send.message->kind == kind) {
            struct message *message = action->send.message;

            action->send.message = NULL;
            return message;
        }
    }
    fail_msg("no message of kind %d", (int)kind);
    return NULL;
}

/* Up to the PREPAREs; returns the instance. */
static struct instance_ref prepare(struct rig *rig, uint32_t link)
{
    struct message *message;

    rig_request(rig, 1, "toy");
    assert_int_equal(rig_count(rig, ACTION_OPEN_MODEL), 1);
    model_opens(rig);
    message = rig_sent(rig, link, MESSAGE_PREPARE);
    assert_non_null(message);
    assert_int_equal(message->prepare.stage, 1);
    assert_int_equal(message->prepare.n_embd, 4);
    assert_int_equal(message->prepare.stages[0].layer_begin, 0);
    assert_int_equal(message->prepare.stages[1].layer_end, RIG_LAYERS);
    assert_true(message->prepare.need_bytes >= 2 * RIG_LAYER);
    return message->prepare.instance;
}

static void loaded(struct rig *rig, uint32_t link, const struct instance_ref *ref)
{
    outcome(rig, link, MESSAGE_PREPARED, ref, STATUS_OK, 0);
    assert_non_null(rig_sent(rig, link, MESSAGE_LOAD));
    assert_true(rig_action(rig, ACTION_LOAD_SHARD, 0)->load_shard.spec.embed);
    outcome(rig, link, MESSAGE_LOADED, ref, STATUS_OK, 0);
    assert_int_equal(rig_count(rig, ACTION_RUN_STAGE), 0);
    rig_shard_loads(rig, ref, STATUS_OK);
}

static struct instance_ref ready(struct rig *rig, uint32_t link)
{
    struct instance_ref ref = prepare(rig, link);
    struct message *message;

    loaded(rig, link, &ref);
    rig_stage_done(rig, rig_pass_of(rig, ACTION_RUN_STAGE)); /* the probe */
    message = message_of(rig, link, MESSAGE_PASS);
    assert_int_equal(message->pass.n_rows, 1);
    message->pass.stage = 0;
    rig_message(rig, link, message);
    return ref;
}

/* With the memory taken by the instance itself, a new plan would not fit. */
static void plan_shows_what_runs(struct rig *rig)
{
    struct control_model *model = rig_control_model(RIG_MODEL, RIG_LAYERS, RIG_LAYER);
    struct control_plan_view view;

    assert_int_equal(control_plan(rig->control, model, PLAN_LATENCY, &view, NULL), STATUS_OK);
    assert_true(view.running);
    assert_int_equal(view.plan.n_stages, 2);
    assert_string_equal(view.names[view.plan.stages[1].node], "other");
    control_model_free(&model);
}

static void a_model_for_two_is_prepared_loaded_probed_and_used(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);
    struct instance_view view;
    struct sampled sampled = {.token = 7, .text = "hi", .text_bytes = 2};
    struct control_event event = {.kind = EVENT_HEAD_DONE};
    struct message *message;
    struct control_pass *pass;

    (void)ready(rig, link);
    assert_int_equal(control_instances(rig->control, &view, 1), 1);
    assert_int_equal(view.state, INSTANCE_READY);
    assert_int_equal(view.plan.n_stages, 2);
    assert_string_equal(view.stage_names[1], "other");
    plan_shows_what_runs(rig);
    assert_true(control_reserved_bytes(rig->control) >= 2 * RIG_LAYER);
    prompt_is_tokenized(rig, 1, 5);
    assert_int_equal(rig_action(rig, ACTION_STARTED, 0)->started.n_prompt, 5);
    pass = rig_pass_of(rig, ACTION_RUN_STAGE);
    assert_int_equal(pass->message->pass.n_rows, 5);
    assert_int_equal(pass->message->pass.n_clears, 1); /* the probe's row is forgotten first */
    assert_int_equal(pass->n_samples, 1);
    rig_stage_done(rig, pass);
    message = message_of(rig, link, MESSAGE_PASS);
    assert_int_equal(message->pass.stage, 1);
    assert_int_equal(message->payload_bytes, 5 * 4 * sizeof(float));
    message->pass.stage = 0;
    rig_message(rig, link, message);
    pass = rig_pass_of(rig, ACTION_RUN_HEAD);
    sampled.sequence = pass->samples[0].sequence;
    event.head_done.pass = pass;
    event.head_done.n_sampled = 1;
    event.head_done.sampled = &sampled;
    rig_step(rig, &event);
    assert_int_equal(rig_action(rig, ACTION_TEXT, 0)->text.n_tokens, 1);
    assert_memory_equal(rig_action(rig, ACTION_TEXT, 0)->text.payload + 4, "hi", 2);
    assert_int_equal(rig_count(rig, ACTION_RUN_STAGE), 1); /* on with the next token */
}

/* Or another node would plan it anew until the next card. */
static void others_are_told_of_ready_before_anything_is_answered(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);
    struct message *card;

    rig_pass_time(rig, RIG_SECOND, &link, 1); /* what was dirty is told */
    (void)ready(rig, link);
    card = rig_sent(rig, link, MESSAGE_CARD);
    assert_non_null(card);
    assert_int_equal(card->card.n_holdings, 1);
    assert_true(card->card.holdings[0].ready);
}

static void request_with(struct rig *rig, uint64_t handle, const struct request_spec *spec)
{
    struct control_event event = {.kind = EVENT_REQUEST};

    event.request.handle = handle;
    event.request.spec = *spec;
    event.request.spec.kind = REQUEST_TEXT;
    event.request.spec.repeat_penalty = 1;
    (void)snprintf(event.request.spec.model, sizeof event.request.spec.model, "toy");
    event.request.body = "hello";
    event.request.body_bytes = 5;
    rig_step(rig, &event);
}

static void sampling_settings_reach_the_sampler(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);
    const struct request_spec spec = {.temperature = 0.5f,
                                      .top_p = 1,
                                      .repeat_last_n = 3,
                                      .typical_p = 0.25f,
                                      .frequency_penalty = -1,
                                      .presence_penalty = 2,
                                      .dry_multiplier = 3,
                                      .dry_base = 4,
                                      .dry_allowed_length = 5,
                                      .dry_last_n = 4,
                                      .xtc_probability = 0.5f,
                                      .xtc_threshold = 0.125f,
                                      .n_biases = 2,
                                      .biases = {{1, -100}, {99, 0.5f}}};
    const struct sample_params *params;
    struct control_pass *pass;

    (void)ready(rig, link);
    request_with(rig, 2, &spec);
    assert_int_equal(rig_count(rig, ACTION_TOKENIZE), 1);
    prompt_is_tokenized(rig, 2, 5);
    pass = rig_pass_of(rig, ACTION_RUN_STAGE);
    assert_int_equal(pass->n_samples, 1);
    assert_int_equal(pass->samples[0].n_history, 4);
    params = &pass->samples[0].params;
    rig_closed(rig, link, STATUS_CLOSED, "reset"); /* the request ends, the pass is still out */
    assert_int_equal(rig_action(rig, ACTION_DONE, 0)->done.done.status, STATUS_LOST);
    rig_tick(rig, 1);
    assert_int_equal((int)(params->typical_p * 1000), 250);
    assert_int_equal((int)params->frequency_penalty, -1);
    assert_int_equal((int)params->presence_penalty, 2);
    assert_int_equal((int)params->dry_multiplier, 3);
    assert_int_equal((int)params->dry_base, 4);
    assert_int_equal(params->dry_allowed_length, 5);
    assert_int_equal(params->dry_last_n, 4);
    assert_int_equal((int)(params->xtc_probability * 1000), 500);
    assert_int_equal((int)(params->xtc_threshold * 1000), 125);
    assert_int_equal(params->n_biases, 2);
    assert_int_equal(params->biases[0].id, 1);
    assert_int_equal((int)params->biases[0].bias, -100);
    assert_int_equal(params->biases[1].id, 99);
    control_pass_free(&pass);
}

/* The model's settings take the place of those that nobody asked for, and of no others. */
static void open_settings_are_the_models(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);
    const struct request_spec spec = {.temperature = 0.8f,
                                      .top_p = 0.95f,
                                      .top_k = 40,
                                      .min_p = 0.05f,
                                      .xtc_threshold = 0.1f,
                                      .open_settings = SAMPLE_SETTINGS & ~SAMPLE_TOP_P};
    const struct sample_params *params;
    struct control_pass *pass;

    made_sampling = (struct sample_params){.temperature = 0.25f,
                                           .top_p = 0.5f,
                                           .top_k = 7,
                                           .repeat_last_n = 2,
                                           .xtc_probability = 0.75f};
    made_settings =
        SAMPLE_TEMPERATURE | SAMPLE_TOP_P | SAMPLE_REPEAT_LAST_N | SAMPLE_XTC_PROBABILITY;
    (void)ready(rig, link);
    request_with(rig, 2, &spec);
    prompt_is_tokenized(rig, 2, 5);
    pass = rig_pass_of(rig, ACTION_RUN_STAGE);
    params = &pass->samples[0].params;
    assert_int_equal((int)(params->temperature * 1000), 250);
    assert_int_equal((int)(params->top_p * 1000), 950); /* the request's */
    assert_int_equal(params->top_k, 40);                /* the file does not say */
    assert_int_equal(params->repeat_last_n, 2);
    assert_int_equal((int)(params->xtc_probability * 1000), 750);
    rig_closed(rig, link, STATUS_CLOSED, "reset");
    rig_tick(rig, 1);
    control_pass_free(&pass);
}

static void a_bias_of_no_token_is_an_error(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);
    const struct request_spec spec = {.n_biases = 1, .biases = {{100, 1}}};

    (void)ready(rig, link);
    request_with(rig, 2, &spec);
    assert_int_equal(rig_count(rig, ACTION_TOKENIZE), 0);
    assert_int_equal(rig_action(rig, ACTION_DONE, 0)->done.done.status, STATUS_INVALID);
    assert_non_null(
        strstr(rig_action(rig, ACTION_DONE, 0)->done.done.text, "token 100; toy has 100"));
}

static void a_lost_worker_ends_everything_in_the_same_step(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);
    struct message_done *done;

    struct instance_ref ref = ready(rig, link);

    prompt_is_tokenized(rig, 1, 5);
    rig_closed(rig, link, STATUS_CLOSED, "reset");
    done = &rig_action(rig, ACTION_DONE, 0)->done.done;
    assert_int_equal(done->status, STATUS_LOST);
    assert_non_null(strstr(done->text, "node other was lost"));
    assert_int_equal(rig_count(rig, ACTION_FREE_SHARD), 1);
    assert_int_equal(rig_count(rig, ACTION_FREE_SEQUENCE), 1);
    assert_true(control_reserved_bytes(rig->control) > 0); /* the thread has not ended yet */
    assert_int_equal(control_open_requests(rig->control), 0);
    /* The next one is planned over who is left, and says what is missing. */
    rig_request(rig, 2, "toy");
    model_opens(rig);
    done = &rig_action(rig, ACTION_DONE, 0)->done.done;
    assert_int_equal(done->status, STATUS_NO_ROOM);
    assert_non_null(strstr(done->text, "MB"));
    rig_freed(rig, &ref);
    assert_int_equal(control_reserved_bytes(rig->control), 0);
}

static void a_refusal_counts_for_the_next_plan(void **state)
{
    struct rig *rig = *state;
    uint32_t a = rig_member(rig, 0x90, &rig_other), b;
    struct instance_ref ref;
    struct message *again;

    strcpy(rig_other.name, "third");
    rig_other.memory_bytes = rig_other.memory_free_bytes = 5 * RIG_LAYER / 2 - RIG_LAYER / 4;
    b = rig_member(rig, 0x91, &rig_other);
    ref = prepare(rig, a);
    assert_null(rig_sent(rig, b, MESSAGE_PREPARE));
    outcome(rig, a, MESSAGE_PREPARED, &ref, STATUS_NO_ROOM, RIG_LAYER / 2);
    assert_int_equal(rig_sent(rig, a, MESSAGE_RELEASE)->instance.epoch, ref.epoch);
    again = rig_sent(rig, b, MESSAGE_PREPARE);
    assert_non_null(again);
    assert_null(rig_sent(rig, a, MESSAGE_PREPARE));
    assert_int_equal(again->prepare.instance.number, ref.number);
    assert_int_equal(again->prepare.instance.epoch, ref.epoch + 1);
    /* A late answer to the first round says nothing about the second. */
    outcome(rig, b, MESSAGE_PREPARED, &ref, STATUS_OK, 0);
    assert_int_equal(rig_count(rig, ACTION_LOAD_SHARD), 0);
    ref.epoch++;
    outcome(rig, b, MESSAGE_PREPARED, &ref, STATUS_OK, 0);
    assert_int_equal(rig_count(rig, ACTION_LOAD_SHARD), 1);
}

static void who_does_not_answer_is_left_out(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);
    struct control_action *done = NULL;

    (void)prepare(rig, link);
    rig_pass_time(rig, 9 * RIG_SECOND / 2, &link, 1);
    for (int i = 0; i < 10 && !done; i++) {
        rig_pass_time(rig, RIG_SECOND / 10, NULL, 0);
        done = rig_action(rig, ACTION_DONE, 0);
    }
    assert_non_null(done);
    assert_int_equal(done->done.done.status, STATUS_NO_ROOM);
}

static void a_shard_that_does_not_load_releases_all(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);
    struct instance_ref ref = prepare(rig, link);
    struct message_done *done;

    outcome(rig, link, MESSAGE_PREPARED, &ref, STATUS_OK, 0);
    rig_shard_loads(rig, &ref, STATUS_NO_MEMORY);
    assert_non_null(rig_sent(rig, link, MESSAGE_RELEASE));
    assert_int_equal(rig_count(rig, ACTION_FREE_SHARD), 1);
    done = &rig_action(rig, ACTION_DONE, 0)->done.done;
    assert_int_equal(done->status, STATUS_NO_MEMORY);
    assert_string_equal(done->text, "node own could not load its layers: no memory for it");
    rig_freed(rig, &ref);
    assert_int_equal(control_reserved_bytes(rig->control), 0);
}

static void a_probe_that_does_not_come_back_closes(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);
    struct instance_ref ref = prepare(rig, link);
    bool done = false;

    outcome(rig, link, MESSAGE_PREPARED, &ref, STATUS_OK, 0);
    outcome(rig, link, MESSAGE_LOADED, &ref, STATUS_OK, 0);
    rig_shard_loads(rig, &ref, STATUS_OK);
    rig_stage_done(rig, rig_pass_of(rig, ACTION_RUN_STAGE));
    for (int i = 0; i < 105 && !done; i++) {
        struct message *pong = message_new(MESSAGE_PONG);

        rig_message(rig, link, pong);
        rig_tick(rig, RIG_SECOND / 10);
        done = rig_action(rig, ACTION_DONE, 0) != NULL;
    }
    assert_true(done);
    assert_int_equal(rig_action(rig, ACTION_DONE, 0)->done.done.status, STATUS_TIMEOUT);
}

static void a_pass_nobody_awaits_closes_the_instance(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);
    struct instance_ref ref = ready(rig, link);
    struct message *message = message_new(MESSAGE_PASS);

    message->pass.instance = ref;
    message->pass.instance.epoch--; /* an older epoch is only dropped */
    message->pass.pass = 1;
    rig_message(rig, link, message);
    assert_int_equal(rig_count(rig, ACTION_FREE_SHARD), 0);
    message = message_new(MESSAGE_PASS);
    message->pass.instance = ref;
    message->pass.pass = 99;
    rig_message(rig, link, message);
    assert_int_equal(rig_count(rig, ACTION_FREE_SHARD), 1);
    assert_int_equal(rig_action(rig, ACTION_DONE, 0)->done.done.status, STATUS_FORMAT);
}

static void nodes_that_cannot_take_part_get_a_sentence(void **state)
{
    struct rig *rig = *state;
    struct control_model *model = rig_control_model(RIG_MODEL, RIG_LAYERS, RIG_LAYER / 10);
    struct control_plan_view view;
    struct fault fault = {0};
    char all[400] = "";

    rig_other.read_bytes_per_second = 0;
    (void)rig_member(rig, 0x90, &rig_other);
    rig_other.read_bytes_per_second = 1e10;
    rig_other.n_models = 0;
    (void)rig_member(rig, 0x91, &rig_other);
    assert_int_equal(control_plan(rig->control, model, PLAN_LATENCY, &view, &fault), STATUS_OK);
    assert_int_equal(view.n_nodes, 3);
    assert_int_equal(view.plan.n_stages, 1);
    for (uint32_t i = 0; i < view.plan.n_left_out; i++)
        (void)snprintf(all + strlen(all), sizeof all - strlen(all), "%s\n",
                       view.plan.left_out[i].why);
    assert_non_null(strstr(all, "it has not measured its speed yet"));
    assert_non_null(strstr(all, "it does not have the model file"));
    control_model_free(&model);
}

static void an_idle_instance_makes_room(void **state)
{
    struct control_options options = {.n_ctx_tokens = 64, .n_slots = 1, .max_rows = 32};
    struct instance_ref ref;
    struct rig rig;

    (void)state;
    rig_card(&rig_own, "own", 5 * RIG_LAYER);
    rig_model(&rig_own, RIG_MODEL, "toy");
    rig_model(&rig_own, 0xbb, "next");
    rig_new(&rig, &rig_own, &options);
    ref = rig_ready_alone(&rig, rig_control_model(RIG_MODEL, RIG_LAYERS, RIG_LAYER));
    rig_cancel(&rig, 1);
    assert_int_equal(rig_action(&rig, ACTION_DONE, 0)->done.done.end, REQUEST_END_CANCELLED);
    rig_request(&rig, 2, "next");
    rig_model_opens(&rig, 0xbb, rig_control_model(0xbb, RIG_LAYERS, RIG_LAYER));
    assert_int_equal(rig_count(&rig, ACTION_FREE_SHARD), 1);
    assert_int_equal(rig_count(&rig, ACTION_DONE), 0);
    rig_pass_time(&rig, 20 * RIG_SECOND, NULL, 0); /* its last pass takes long */
    assert_int_equal(rig_count(&rig, ACTION_LOAD_SHARD), 0);
    rig_freed(&rig, &ref);
    rig_tick(&rig, RIG_SECOND / 2);
    assert_int_equal(rig_count(&rig, ACTION_LOAD_SHARD), 1);
    rig_free(&rig);
}

static void an_instance_nobody_uses_is_closed(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &rig_other);
    struct instance_ref ref = ready(rig, link);

    rig_cancel(rig, 1);
    rig_pass_time(rig, 590 * RIG_SECOND, &link, 1);
    assert_true(control_reserved_bytes(rig->control) > 0);
    rig_pass_time(rig, 20 * RIG_SECOND, &link, 1);
    rig_freed(rig, &ref);
    assert_int_equal(control_reserved_bytes(rig->control), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(test) cmocka_unit_test_setup_teardown(test, setup, rig_teardown)
        T(a_model_for_two_is_prepared_loaded_probed_and_used),
        T(others_are_told_of_ready_before_anything_is_answered),
        T(sampling_settings_reach_the_sampler),
        T(open_settings_are_the_models),
        T(a_bias_of_no_token_is_an_error),
        T(a_lost_worker_ends_everything_in_the_same_step),
        T(a_refusal_counts_for_the_next_plan),
        T(who_does_not_answer_is_left_out),
        T(a_shard_that_does_not_load_releases_all),
        T(a_probe_that_does_not_come_back_closes),
        T(a_pass_nobody_awaits_closes_the_instance),
        T(nodes_that_cannot_take_part_get_a_sentence),
        T(an_idle_instance_makes_room),
        T(an_instance_nobody_uses_is_closed),
    };

    log_level_set(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
