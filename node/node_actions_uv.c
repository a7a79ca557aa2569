/* Carrying out what the control plane says.
 *
 * One switch, a few lines a case. Nothing here decides anything: a failure becomes an event, queued
 * for later so that control_step is never entered from inside itself. */
#include "node/node_uv.h"

#include <string.h>

static void act_send(struct node *node, uint32_t id, struct message *message)
{
    struct link *link = node_link(node, id);
    enum message_kind kind = message->kind;
    enum status status = STATUS_CLOSED;

    if (link)
        status = link_send(link, message);
    else
        message_free(&message);
    /* A link that cannot take a message is of no use: closing it is what makes both ends act. */
    if (link && status != STATUS_OK && status != STATUS_CLOSED) {
        log_event(LOG_WARN, "link", "send.failed link=%u kind=%u status=%s", id, (unsigned)kind,
                  status_name(status));
        link_close(link);
    }
}

/* A pass that cannot be queued comes back as failed: whoever waits for it must hear of it. */
static void act_run(struct node *node, struct control_action *action, bool head)
{
    struct control_pass *pass = action->run.pass;
    enum status status = stages_run(node->stages, &action->run.instance, pass, head);
    struct control_event event = {.kind = head ? EVENT_HEAD_DONE : EVENT_STAGE_DONE};
    struct fault *fault = head ? &event.head_done.fault : &event.stage_done.fault;

    if (status == STATUS_OK)
        return;
    (void)fault_set(fault, status, "a pass could not be queued: %s", status_words(status));
    if (head)
        event.head_done.pass = pass;
    else
        event.stage_done.pass = pass;
    if (node_later(node, &event, NULL) != STATUS_OK)
        control_pass_free(&pass);
}

static void act_announce(struct node *node)
{
    uint64_t reserved = control_reserved_bytes(node->control);

    node->announced.memory_bytes =
        node->card.memory_bytes > reserved ? node->card.memory_bytes - reserved : 0;
    if (node->discovery)
        discovery_update(node->discovery, &node->announced);
}

static void act_wake(struct node *node, uint64_t wake_us)
{
    uint64_t now_us = node_now_us();

    if (!node->closing)
        (void)uv_timer_start(&node->tick, node->tick.timer_cb,
                             wake_us > now_us ? (wake_us - now_us + 999) / 1000 : 0, 0);
}

void node_act(struct node *node, struct control_action *action)
{
    switch (action->kind) {
    case ACTION_DIAL:
        node_dial(node, action->dial.link, action->dial.address.text);
        break;
    case ACTION_CLOSE_LINK:
        if (node_link(node, action->close_link))
            link_close(node_link(node, action->close_link));
        break;
    case ACTION_SEND:
        act_send(node, action->send.link, action->send.message);
        break;
    case ACTION_OPEN_MODEL:
        node_open_model(node, action->open_model.hash);
        break;
    case ACTION_LOAD_SHARD:
        node_load_shard(node, &action->load_shard.instance, action->load_shard.hash,
                        &action->load_shard.spec);
        break;
    case ACTION_FREE_SHARD:
        node_free_shard(node, &action->free_shard);
        break;
    case ACTION_TOKENIZE:
        node_tokenize(node, action->tokenize.sequence, action->tokenize.hash, action->tokenize.kind,
                      action->tokenize.body, action->tokenize.body_bytes);
        break;
    case ACTION_FREE_SEQUENCE:
        node_free_sequence(node, action->free_sequence);
        break;
    case ACTION_RUN_STAGE:
    case ACTION_RUN_HEAD:
        act_run(node, action, action->kind == ACTION_RUN_HEAD);
        break;
    case ACTION_STARTED:
        node_request_started(node, action->started.handle, action->started.n_prompt,
                             action->started.seed);
        break;
    case ACTION_TEXT:
        node_request_text(node, action->text.handle, action->text.payload,
                          action->text.payload_bytes, action->text.n_tokens);
        mem_free(action->text.payload);
        break;
    case ACTION_DONE:
        node_request_done(node, action->done.handle, &action->done.done);
        break;
    case ACTION_NOTICE:
        node_notice(node, action->notice);
        break;
    case ACTION_CARD:
        act_announce(node);
        break;
    case ACTION_WAKE:
        act_wake(node, action->wake_us);
        break;
    }
}
