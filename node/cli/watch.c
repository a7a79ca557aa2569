/* The news of `skein up`: nodes that were found, lost or refused, notices, models that are ready.
 *
 * A node shows what is, not what happened; so the last state of every member and instance is kept
 * and compared. Pure: the caller takes the views and prints the lines. */
#include "node/cli/watch.h"

#include <stdio.h>
#include <string.h>

struct seen_member {
    uint8_t node_id[PROTO_ID_BYTES];
    enum member_state state;
    char note[PROTO_MAX_TEXT];
    bool told; /* that it is there */
};

struct seen_instance {
    struct instance_ref ref;
    enum instance_state state;
    bool present;
    char model[PROTO_MAX_MODEL_NAME];
};

struct watch {
    size_t n_members, n_notices, n_instances;
    struct seen_member members[WATCH_MAX_MEMBERS];
    struct node_notice notices[WATCH_MAX_NOTICES];
    struct seen_instance instances[WATCH_MAX_INSTANCES];
};

struct speaker {
    void (*say)(void *owner, const char *line);
    void *owner;
};

enum status watch_new(struct watch **out)
{
    *out = MEM_NEW(struct watch);
    return *out ? STATUS_OK : STATUS_NO_MEMORY;
}

void watch_free(struct watch **watch)
{
    mem_free(*watch);
    *watch = NULL;
}

static const char *member_name(const struct member_view *member)
{
    if (member->card.name[0])
        return member->card.name;
    return member->address[0] ? member->address : "a node";
}

static void say_member(const struct member_view *now, struct seen_member *then,
                       const struct speaker *speaker)
{
    char line[900], memory[24];

    if (now->state == MEMBER_ALIVE && now->card.name[0]) {
        (void)snprintf(line, sizeof line, "found %s at %s: %s, %s free", now->card.name,
                       now->address, now->card.engine,
                       bytes_format_size(now->card.memory_free_bytes, memory, sizeof memory));
        speaker->say(speaker->owner, line);
        then->told = true;
    } else if (now->state == MEMBER_LOST && then->told) {
        (void)snprintf(line, sizeof line, "lost %s%s%s", member_name(now), now->note[0] ? ": " : "",
                       now->note);
        speaker->say(speaker->owner, line);
        then->told = false;
    } else if (now->state == MEMBER_REFUSED) {
        (void)snprintf(line, sizeof line, "refused %s%s%s", member_name(now),
                       now->note[0] ? ": " : "", now->note);
        speaker->say(speaker->owner, line);
    }
}

static void watch_member(struct watch *watch, const struct member_view *now,
                         const struct speaker *speaker)
{
    struct seen_member *then = NULL;

    for (size_t i = 0; i < watch->n_members && !then; i++)
        if (memcmp(watch->members[i].node_id, now->node_id, PROTO_ID_BYTES) == 0)
            then = &watch->members[i];
    if (!then) {
        if (watch->n_members == WATCH_MAX_MEMBERS)
            return;
        then = &watch->members[watch->n_members++];
        memcpy(then->node_id, now->node_id, PROTO_ID_BYTES);
        then->state = MEMBER_DIALLING;
    }
    /* a link can be up a moment before the card with the name has come */
    if (now->state == then->state && strcmp(now->note, then->note) == 0 &&
        (now->state != MEMBER_ALIVE || then->told))
        return;
    if (now->state != MEMBER_ALIVE || !then->told)
        say_member(now, then, speaker);
    then->state = now->state;
    (void)snprintf(then->note, sizeof then->note, "%s", now->note);
}

static void watch_notice(struct watch *watch, const struct node_notice *notice,
                         const struct speaker *speaker)
{
    for (size_t i = 0; i < watch->n_notices; i++)
        if (strcmp(watch->notices[i].text, notice->text) == 0)
            return;
    speaker->say(speaker->owner, notice->text);
    if (watch->n_notices == WATCH_MAX_NOTICES) {
        watch->n_notices--;
        memmove(watch->notices, watch->notices + 1, watch->n_notices * sizeof *watch->notices);
    }
    watch->notices[watch->n_notices++] = *notice;
}

static void say_ready(const struct instance_view *instance, const struct speaker *speaker)
{
    char line[900];
    int n = snprintf(line, sizeof line, "%s is ready:", instance->model);

    for (uint32_t i = 0; i < instance->plan.n_stages && i < PROTO_MAX_STAGES; i++) {
        const struct plan_stage *stage = &instance->plan.stages[i];
        if (n < 0 || (size_t)n >= sizeof line - 1)
            break;
        n += snprintf(line + n, sizeof line - (size_t)n, "%s %s layers %u-%u", i ? "," : "",
                      instance->stage_names[i], stage->layer_begin,
                      stage->layer_end > stage->layer_begin ? stage->layer_end - 1
                                                            : stage->layer_end);
    }
    speaker->say(speaker->owner, line);
}

static bool ref_equal(const struct instance_ref *a, const struct instance_ref *b)
{
    return memcmp(a->head, b->head, PROTO_ID_BYTES) == 0 && a->number == b->number;
}

static void watch_instance(struct watch *watch, const struct instance_view *now,
                           const struct speaker *speaker)
{
    struct seen_instance *then = NULL;

    for (size_t i = 0; i < watch->n_instances && !then; i++)
        if (ref_equal(&watch->instances[i].ref, &now->ref))
            then = &watch->instances[i];
    if (!then) {
        if (watch->n_instances == WATCH_MAX_INSTANCES)
            return;
        then = &watch->instances[watch->n_instances++];
        *then = (struct seen_instance){.ref = now->ref, .state = INSTANCE_CLOSED};
        (void)snprintf(then->model, sizeof then->model, "%s", now->model);
    }
    then->present = true;
    if (now->state == INSTANCE_READY &&
        (then->state != INSTANCE_READY || then->ref.epoch != now->ref.epoch))
        say_ready(now, speaker);
    then->state = now->state;
    then->ref = now->ref;
}

/* Instances that are gone make room. */
static void watch_gone(struct watch *watch, const struct speaker *speaker)
{
    size_t kept = 0;
    char line[200];

    for (size_t i = 0; i < watch->n_instances; i++) {
        if (watch->instances[i].present) {
            watch->instances[kept++] = watch->instances[i];
            continue;
        }
        if (watch->instances[i].state != INSTANCE_READY)
            continue;
        (void)snprintf(line, sizeof line, "%s was closed", watch->instances[i].model);
        speaker->say(speaker->owner, line);
    }
    watch->n_instances = kept;
}

void watch_step(struct watch *watch, const struct watch_views *views,
                void (*say)(void *owner, const char *line), void *owner)
{
    struct speaker speaker = {say, owner};

    for (size_t i = 0; i < views->n_members; i++)
        if (views->members[i].state != MEMBER_SELF)
            watch_member(watch, &views->members[i], &speaker);
    for (size_t i = 0; i < views->n_notices; i++)
        watch_notice(watch, &views->notices[i], &speaker);
    for (size_t i = 0; i < watch->n_instances; i++)
        watch->instances[i].present = false;
    for (size_t i = 0; i < views->n_instances; i++)
        watch_instance(watch, &views->instances[i], &speaker);
    watch_gone(watch, &speaker);
}
