/* Actions: what control wants done, in order, and who frees what is never done.
 *
 * Parts append to `pending`, whose room is grown ahead of each event; control_step hands the list
 * over at its end. So an allocation that fails does not tear a transition in two: the list keeps
 * what it has until a later step delivers it. Only where memory for one more slot cannot be had
 * although it was asked for twice is an action dropped, with what it owns. */
#include "node/cluster/inner.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { ROOM_AHEAD = 64 };

static bool actions_reserve(struct control_actions *list, size_t more)
{
    size_t capacity = list->capacity ? list->capacity : ROOM_AHEAD;
    struct control_action *items;

    while (capacity < list->n + more)
        capacity *= 2;
    if (capacity == list->capacity)
        return true;
    items = mem_resize(list->items, capacity, sizeof *items);
    if (!items)
        return false;
    list->items = items;
    list->capacity = capacity;
    return true;
}

bool actions_room(struct control *c)
{
    size_t more = ROOM_AHEAD + c->n_links + c->n_fronts + 2 * (size_t)c->n_works;

    return actions_reserve(&c->pending, more);
}

struct control_action *action_add(struct control *c, enum control_action_kind kind)
{
    struct control_action *action;

    if (!actions_reserve(&c->pending, 1)) {
        c->short_of_memory = true;
        return NULL;
    }
    action = &c->pending.items[c->pending.n++];
    memset(action, 0, sizeof *action);
    action->kind = kind;
    return action;
}

bool actions_deliver(struct control *c, struct control_actions *out)
{
    if (out->n == 0 && out->capacity < c->pending.n) { /* take the whole list over */
        struct control_actions swap = *out;

        *out = c->pending;
        c->pending = swap;
        return true;
    }
    if (!actions_reserve(out, c->pending.n))
        return false;
    if (c->pending.n)
        memcpy(out->items + out->n, c->pending.items, c->pending.n * sizeof *out->items);
    out->n += c->pending.n;
    c->pending.n = 0;
    return true;
}

void action_free(struct control_action *action)
{
    switch (action->kind) {
    case ACTION_SEND:
        message_free(&action->send.message);
        break;
    case ACTION_TOKENIZE:
        mem_free(action->tokenize.body);
        break;
    case ACTION_RUN_STAGE:
    case ACTION_RUN_HEAD:
        control_pass_free(&action->run.pass);
        break;
    case ACTION_TEXT:
        mem_free(action->text.payload);
        break;
    default:
        break;
    }
}

void control_actions_free(struct control_actions *actions)
{
    for (size_t i = 0; i < actions->n; i++)
        action_free(&actions->items[i]);
    mem_free(actions->items);
    memset(actions, 0, sizeof *actions);
}

bool act_pass(struct control *c, enum control_action_kind kind, const struct instance_ref *ref,
              struct control_pass *pass)
{
    struct control_action *action = action_add(c, kind);

    if (!action) {
        control_pass_free(&pass);
        return false;
    }
    action->run.instance = *ref;
    action->run.pass = pass;
    return true;
}

bool act_free_shard(struct control *c, const struct instance_ref *ref)
{
    struct control_action *action = action_add(c, ACTION_FREE_SHARD);

    if (action)
        action->free_shard = *ref;
    return action != NULL;
}

void act_notice(struct control *c, const char *format, ...)
{
    struct control_action *action = action_add(c, ACTION_NOTICE);
    va_list args;

    if (!action)
        return;
    va_start(args, format);
    (void)vsnprintf(action->notice, sizeof action->notice, format, args);
    va_end(args);
}
