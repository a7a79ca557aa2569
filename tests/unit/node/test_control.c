/* Requests at their front and head, names, and a control that nothing can break. */
#include "tests/unit/node/rig.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MODEL = 0xaa };

static struct node_card own, other;

static int setup(void **state)
{
    static struct rig rig;

    rig_card(&own, "own", 100000000);
    rig_model(&own, MODEL, "skein-tiny");
    rig_model(&own, 0xab, "Big-Model-7B");
    rig_card(&other, "other", 100000000);
    rig_model(&other, 0xcc, "far-away");
    rig_new(&rig, &own, NULL);
    *state = &rig;
    return 0;
}

static int teardown(void **state)
{
    rig_free(*state);
    return 0;
}

static void step_kind(struct rig *rig, enum control_event_kind kind, struct control_event *event)
{
    event->kind = kind;
    rig_step(rig, event);
}

static struct message_done *done_of(struct rig *rig)
{
    struct control_action *action = rig_action(rig, ACTION_DONE, 0);

    assert_non_null(action);
    return &action->done.done;
}

/* A single node with the model READY and request 1 waiting for its tokens. */
static struct instance_ref ready(struct rig *rig)
{
    struct control_event event = {0};
    struct instance_ref ref;

    rig_request(rig, 1, "skein-tiny");
    memset(event.model.hash, MODEL, PROTO_HASH_BYTES);
    event.model.model = rig_control_model(MODEL, 2, 1000);
    step_kind(rig, EVENT_MODEL, &event);
    ref = rig_action(rig, ACTION_LOAD_SHARD, 0)->load_shard.instance;
    memset(&event, 0, sizeof event);
    event.shard.instance = ref;
    step_kind(rig, EVENT_SHARD, &event);
    memset(&event, 0, sizeof event);
    event.stage_done.pass = rig_action(rig, ACTION_RUN_STAGE, 0)->run.pass;
    rig_action(rig, ACTION_RUN_STAGE, 0)->run.pass = NULL;
    step_kind(rig, EVENT_STAGE_DONE, &event);
    return ref;
}

static void prompt(struct rig *rig, uint64_t sequence, uint32_t n)
{
    struct control_event event = {0};
    static uint32_t tokens[1000];

    event.prompt.sequence = sequence;
    event.prompt.tokens = tokens;
    event.prompt.n_tokens = n;
    step_kind(rig, EVENT_PROMPT, &event);
}

static void a_model_is_found_by_name_alias_prefix_and_hash(void **state)
{
    static const char *const names[] = {"skein-tiny", "SKEIN-Tiny",   "tiny",     "Tiny",
                                        "big",        "BIG-MODEL-7b", "aaaaaaaa", "abababababab"};
    struct rig *rig = *state;

    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct control_event event = {.cancel = i + 1};

        rig_request(rig, i + 1, names[i]);
        assert_int_equal(rig_count(rig, ACTION_DONE), 0);
        step_kind(rig, EVENT_CANCEL, &event);
    }
}

static void an_unknown_model_is_told_with_what_there_is(void **state)
{
    struct rig *rig = *state;

    (void)rig_member(rig, 0x90, &other);
    rig_request(rig, 1, "nope");
    assert_int_equal(done_of(rig)->status, STATUS_NOT_FOUND);
    assert_string_equal(done_of(rig)->text,
                        "no model 'nope'; there are: skein-tiny on own, Big-Model-7B on own, "
                        "far-away on other");
    {
        struct node_card card; /* a model that several have is told once */

        rig_card(&card, "third", 100000000);
        rig_model(&card, MODEL, "skein-tiny");
        (void)rig_member(rig, 0x91, &card);
    }
    rig_request(rig, 4, "nope");
    assert_non_null(strstr(done_of(rig)->text, "skein-tiny on own and third, Big-Model-7B on own, "
                                               "far-away on other"));
    rig_request(rig, 2, "aaaa"); /* too short for a hash */
    assert_int_equal(done_of(rig)->status, STATUS_NOT_FOUND);
    rig_request(rig, 3, "");
    assert_int_equal(done_of(rig)->status, STATUS_NOT_FOUND);
}

static void a_name_for_two_models_is_refused(void **state)
{
    struct rig *rig = *state;
    struct node_card card = other;

    rig_model(&card, 0xcd, "far-near");
    (void)rig_member(rig, 0x90, &card);
    rig_request(rig, 1, "far");
    assert_int_equal(done_of(rig)->status, STATUS_INVALID);
    rig_request(rig, 2, "far-n");
    assert_int_equal(rig_count(rig, ACTION_DONE), 0);
}

static void a_prompt_for_a_model_elsewhere_goes_there(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &other);
    struct message *submit, *message;
    uint64_t request, seed;

    rig_request(rig, 7, "far-away");
    submit = rig_sent(rig, link, MESSAGE_SUBMIT);
    assert_non_null(submit);
    assert_memory_equal(submit->payload, "hello", 5);
    request = submit->submit.request;
    seed = submit->submit.spec.seed;
    assert_int_not_equal(seed, 0);
    message = message_new(MESSAGE_ACCEPTED);
    message->accepted.request = request;
    message->accepted.n_prompt = 3;
    message->payload_bytes = 12;
    message->payload = mem_aligned(64, 12, 1);
    rig_message(rig, link, message);
    assert_int_equal(rig_action(rig, ACTION_STARTED, 0)->started.handle, 7);
    assert_true(rig_action(rig, ACTION_STARTED, 0)->started.seed == seed);
    for (uint32_t index = 0; index < 2; index++) {
        message = message_new(MESSAGE_TOKENS);
        message->tokens.request = request;
        message->tokens.index = index;
        message->tokens.n_tokens = 1;
        message->payload_bytes = 6;
        message->payload = mem_aligned(64, 6, 1);
        rig_message(rig, link, message);
        assert_int_equal(rig_action(rig, ACTION_TEXT, 0)->text.handle, 7);
    }
    message = message_new(MESSAGE_DONE);
    message->done.request = request;
    message->done.end = REQUEST_END_STOP;
    rig_message(rig, link, message);
    assert_int_equal(rig_count(rig, ACTION_DONE), 1);
    message = message_new(MESSAGE_DONE); /* once is enough */
    message->done.request = request;
    rig_message(rig, link, message);
    assert_int_equal(rig_count(rig, ACTION_DONE), 0);
    assert_int_equal(control_open_requests(rig->control), 0);
}

static void tokens_out_of_order_end_the_request(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &other);
    struct message *message;
    uint64_t request;

    rig_request(rig, 7, "far-away");
    request = rig_sent(rig, link, MESSAGE_SUBMIT)->submit.request;
    message = message_new(MESSAGE_ACCEPTED);
    message->accepted.request = request;
    rig_message(rig, link, message);
    message = message_new(MESSAGE_TOKENS);
    message->tokens.request = request;
    message->tokens.index = 1;
    rig_message(rig, link, message);
    assert_int_equal(done_of(rig)->status, STATUS_FORMAT);
    assert_non_null(rig_sent(rig, link, MESSAGE_CANCEL));
}

static void a_lost_head_ends_the_request_by_name(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &other);

    rig_request(rig, 7, "far-away");
    rig_closed(rig, link, STATUS_CLOSED, "");
    assert_int_equal(done_of(rig)->status, STATUS_LOST);
    assert_string_equal(done_of(rig)->text, "node other was lost while it answered; ask again");
}

static void who_heads_the_model_already_is_asked(void **state)
{
    struct rig *rig = *state;
    struct node_card card;
    uint32_t idle, heads;

    rig_card(&card, "idle", 900000000);
    rig_model(&card, MODEL, "skein-tiny");
    idle = rig_member(rig, 0x90, &card);
    strcpy(card.name, "heads");
    card.n_instances = 1;
    memset(card.instances[0], MODEL, PROTO_HASH_BYTES);
    heads = rig_member(rig, 0x91, &card);
    rig_request(rig, 1, "tiny");
    assert_non_null(rig_sent(rig, heads, MESSAGE_SUBMIT));
    assert_null(rig_sent(rig, idle, MESSAGE_SUBMIT));
}

static void a_cancelled_request_ends_at_once_and_frees_its_slot(void **state)
{
    struct rig *rig = *state;
    struct control_event event = {0};
    struct instance_view view;

    (void)ready(rig);
    prompt(rig, 1, 5);
    event.cancel = 1;
    step_kind(rig, EVENT_CANCEL, &event);
    assert_int_equal(done_of(rig)->end, REQUEST_END_CANCELLED);
    assert_int_equal(rig_count(rig, ACTION_FREE_SEQUENCE), 1);
    assert_int_equal(control_instances(rig->control, &view, 1), 1);
    assert_int_equal(view.n_running, 0);
    step_kind(rig, EVENT_CANCEL, &event);
    assert_int_equal(rig_count(rig, ACTION_DONE), 0);
}

static void a_prompt_as_long_as_the_context_is_told_the_numbers(void **state)
{
    struct rig *rig = *state;

    (void)ready(rig);
    prompt(rig, 1, 128);
    assert_int_equal(done_of(rig)->status, STATUS_CONTEXT);
    assert_non_null(strstr(done_of(rig)->text, "128 tokens"));
    assert_int_equal(rig_count(rig, ACTION_STARTED), 0);
    rig_request(rig, 2, "tiny");
    prompt(rig, 2, 127);
    assert_int_equal(rig_count(rig, ACTION_STARTED), 1);
}

static void past_the_queue_it_is_busy(void **state)
{
    struct rig *rig = *state;

    (void)ready(rig); /* two slots, two may wait */
    for (uint64_t handle = 2; handle <= 4; handle++) {
        rig_request(rig, handle, "tiny");
        assert_int_equal(rig_count(rig, ACTION_DONE), 0);
    }
    rig_request(rig, 5, "tiny");
    assert_int_equal(done_of(rig)->status, STATUS_BUSY);
    assert_non_null(strstr(done_of(rig)->text, "requests are waiting; try again"));
}

static void a_seed_that_is_given_stays(void **state)
{
    struct rig *rig = *state;
    struct control_event event = {0};

    event.request.handle = 1;
    event.request.spec = (struct request_spec){.seed = 99, .repeat_penalty = 1, .model = "tiny"};
    event.request.spec.kind = REQUEST_TEXT;
    event.request.body = "x";
    event.request.body_bytes = 1;
    rig_request(rig, 9, "tiny"); /* makes the instance */
    step_kind(rig, EVENT_REQUEST, &event);
    assert_int_equal(rig_count(rig, ACTION_DONE), 0);
    event.request.handle = 2;
    event.request.spec.temperature = -1;
    step_kind(rig, EVENT_REQUEST, &event);
    assert_int_equal(done_of(rig)->status, STATUS_INVALID);
    event.request.handle = 3;
    event.request.spec.temperature = 0;
    event.request.spec.repeat_last_n = 100000;
    step_kind(rig, EVENT_REQUEST, &event);
    assert_int_equal(done_of(rig)->status, STATUS_INVALID);
}

static void sampling_settings_out_of_bounds_are_answered(void **state)
{
    struct rig *rig = *state;
    const struct {
        struct request_spec spec;
        const char *word;
    } cases[] = {
        {{.typical_p = 1.5f}, "typical_p"},
        {{.frequency_penalty = NAN}, "frequency_penalty"},
        {{.presence_penalty = -INFINITY}, "presence_penalty"},
        {{.dry_multiplier = -1}, "dry_multiplier"},
        {{.dry_base = 1000}, "dry_base"},
        {{.dry_last_n = PROTO_MAX_HISTORY + 1}, "dry_last_n"},
        {{.xtc_probability = 2}, "xtc_probability"},
        {{.xtc_threshold = -0.5f}, "xtc_threshold"},
        {{.n_biases = PROTO_MAX_BIASES + 1}, "logit_bias"},
        {{.n_biases = 1, .biases = {{1, NAN}}}, "logit_bias"},
        {{.n_biases = 1, .biases = {{1, 101}}}, "logit_bias"},
    };

    rig_request(rig, 9, "tiny"); /* makes the instance */
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct control_event event = {0};

        event.request.handle = 20 + i;
        event.request.spec = cases[i].spec;
        event.request.spec.repeat_penalty = 1;
        event.request.spec.kind = REQUEST_TEXT;
        (void)snprintf(event.request.spec.model, sizeof event.request.spec.model, "tiny");
        event.request.body = "x";
        event.request.body_bytes = 1;
        step_kind(rig, EVENT_REQUEST, &event);
        assert_int_equal(done_of(rig)->status, STATUS_INVALID);
        assert_non_null(strstr(done_of(rig)->text, cases[i].word));
    }
}

static void a_head_that_forgets_is_given_up(void **state)
{
    struct rig *rig = *state;
    uint32_t link = rig_member(rig, 0x90, &other);

    rig_request(rig, 7, "far-away");
    rig_pass_time(rig, 1499 * RIG_SECOND, &link, 1);
    assert_int_equal(control_open_requests(rig->control), 1);
    rig_pass_time(rig, 2 * RIG_SECOND, &link, 1);
    assert_int_equal(control_open_requests(rig->control), 0);
}

static void a_front_too_small_to_head_asks_a_larger_node_once(void **state)
{
    struct rig *rig = *state;
    struct control_event event = {0};
    struct node_card card;
    struct message *message;
    uint32_t small, large;

    rig_card(&card, "small", 100000);
    rig_model(&card, MODEL, "skein-tiny");
    small = rig_member(rig, 0x90, &card);
    rig_card(&card, "large", 200000000);
    rig_model(&card, MODEL, "skein-tiny");
    large = rig_member(rig, 0x91, &card);
    rig_request(rig, 1, "tiny");
    assert_int_equal(rig_count(rig, ACTION_OPEN_MODEL), 1); /* this node tries first */
    memset(event.model.hash, MODEL, PROTO_HASH_BYTES);
    event.model.model = rig_control_model(MODEL, 2, 1000000000);
    step_kind(rig, EVENT_MODEL, &event);
    assert_int_equal(rig_count(rig, ACTION_DONE), 0);
    assert_null(rig_sent(rig, small, MESSAGE_SUBMIT));
    message = rig_sent(rig, large, MESSAGE_SUBMIT);
    assert_non_null(message);
    assert_memory_equal(message->payload, "hello", 5);
    message = message_new(MESSAGE_DONE);
    message->done.request = 1;
    message->done.end = REQUEST_END_ERROR;
    message->done.status = STATUS_NO_ROOM;
    rig_message(rig, large, message);
    assert_int_equal(done_of(rig)->status, STATUS_NO_ROOM);
    assert_int_equal(rig_count(rig, ACTION_DONE), 1);
}

static void a_model_file_that_does_not_open_is_told(void **state)
{
    struct rig *rig = *state;
    struct control_event event = {0};

    rig_request(rig, 1, "tiny");
    memset(event.model.hash, MODEL, PROTO_HASH_BYTES);
    event.model.fault.status = STATUS_TRUNCATED;
    strcpy(event.model.fault.text, "it ends early");
    step_kind(rig, EVENT_MODEL, &event);
    assert_int_equal(done_of(rig)->status, STATUS_TRUNCATED);
    assert_string_equal(done_of(rig)->text, "it ends early");
}

/* ---------------------------------------------------------------- hostile */

static void noise(void *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)out)[i] = (uint8_t)(rand() % 3 ? rand() % 4 : rand());
}

/* Any message of any kind, some with the right names in them. */
static struct message *hostile_message(struct rig *rig, uint8_t id, const struct instance_ref *ref)
{
    struct message *m = message_new(MESSAGE_PING);
    size_t union_bytes = offsetof(struct message, payload) - offsetof(struct message, card);

    m->kind = (enum message_kind)(rand() % (MESSAGE_KIND_LIMIT + 1));
    if (rand() % 2)
        noise(&m->card, rand() % 4 ? 200 : union_bytes);
    if (rand() % 2) {
        m->payload_bytes = (size_t)rand() % 100;
        m->payload = mem_aligned(64, m->payload_bytes, 1);
        noise(m->payload, m->payload_bytes);
    }
    if (m->kind == MESSAGE_SUBMIT)
        m->submit.spec.ignore_end = rand() % 2; /* the codec only makes true booleans */
    if (m->kind == MESSAGE_PREPARE && rand() % 2) {
        rig_id(m->prepare.instance.head, id);
        rig_id(m->prepare.stages[0].node_id, id);
        memcpy(m->prepare.stages[1].node_id, rig->self_id, PROTO_ID_BYTES);
        memset(m->prepare.model_hash, MODEL, PROTO_HASH_BYTES);
    } else if (m->kind != MESSAGE_PING && m->kind != MESSAGE_CARD && rand() % 2) {
        memcpy(&m->outcome.instance, ref, sizeof *ref); /* first in several kinds */
    }
    return m;
}

static void nothing_a_peer_sends_breaks_it(void **state)
{
    struct rig *rig = *state;
    struct instance_ref ref = ready(rig);
    uint32_t links[3] = {0};

    srand(11);
    for (int round = 0; round < 60000; round++) {
        uint32_t k = (uint32_t)rand() % 3;
        uint8_t id = (uint8_t)(0x90 + k);
        struct control_action *action;

        if (!links[k] || rand() % 50 == 0) {
            if (links[k])
                rig_closed(rig, links[k], STATUS_CLOSED, "");
            links[k] = rig_inbound(rig, id);
            rig_send_card(rig, links[k], &own);
        } else {
            rig_message(rig, links[k], hostile_message(rig, id, &ref));
        }
        action = rig_action(rig, ACTION_CLOSE_LINK, 0);
        if (action) {
            uint32_t closed = action->close_link;

            for (int i = 0; i < 3; i++)
                links[i] = links[i] == closed ? 0 : links[i];
            rig_closed(rig, closed, STATUS_CLOSED, "");
        }
        assert_true(control_reserved_bytes(rig->control) <= 100000000);
        rig->now_us += (uint64_t)rand() % 20000;
    }
    rig_request(rig, 77, "nope");
    assert_int_equal(done_of(rig)->status, STATUS_NOT_FOUND); /* it still works */
}

static void no_memory_for_a_request_is_told(void **state)
{
    struct rig *rig = *state;
    struct control_event event = {0};

    for (unsigned long at = 1; at < 12; at++) {
        bool told;

        event.kind = EVENT_REQUEST;
        event.request.handle = at;
        event.request.spec = (struct request_spec){.repeat_penalty = 1, .model = "tiny"};
        event.request.spec.kind = REQUEST_TEXT;
        event.request.body = "x";
        event.request.body_bytes = 1;
        control_actions_free(&rig->actions);
        mem_fail_after(at);
        told = control_step(rig->control, &event, rig->now_us, &rig->actions) == STATUS_OK;
        mem_fail_after(0);
        rig_tick(rig, 1); /* whatever could not be handed over comes now */
        told = control_open_requests(rig->control) == 0;
        event.kind = EVENT_CANCEL;
        event.cancel = at;
        rig_step(rig, &event);
        assert_int_equal(rig_count(rig, ACTION_DONE), told ? 0 : 1);
        assert_int_equal(control_open_requests(rig->control), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
        T(a_model_is_found_by_name_alias_prefix_and_hash),
        T(an_unknown_model_is_told_with_what_there_is),
        T(a_name_for_two_models_is_refused),
        T(a_prompt_for_a_model_elsewhere_goes_there),
        T(tokens_out_of_order_end_the_request),
        T(a_lost_head_ends_the_request_by_name),
        T(who_heads_the_model_already_is_asked),
        T(a_cancelled_request_ends_at_once_and_frees_its_slot),
        T(a_prompt_as_long_as_the_context_is_told_the_numbers),
        T(past_the_queue_it_is_busy),
        T(a_seed_that_is_given_stays),
        T(sampling_settings_out_of_bounds_are_answered),
        T(a_head_that_forgets_is_given_up),
        T(a_front_too_small_to_head_asks_a_larger_node_once),
        T(a_model_file_that_does_not_open_is_told),
        T(nothing_a_peer_sends_breaks_it),
        T(no_memory_for_a_request_is_told),
    };

    log_level_set(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
