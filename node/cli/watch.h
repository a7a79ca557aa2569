#ifndef SKEIN_NODE_CLI_WATCH_H
#define SKEIN_NODE_CLI_WATCH_H

/* What changed in a node's views since the last look, as sentences for a person. */
#include "node/node.h"

enum { WATCH_MAX_MEMBERS = 64, WATCH_MAX_NOTICES = 64, WATCH_MAX_INSTANCES = 16 };

struct watch; /* remembers what was said */

enum status watch_new(struct watch **out) MUST_USE;
void watch_free(struct watch **watch);

struct watch_views {
    const struct member_view *members;
    size_t n_members;
    const struct node_notice *notices;
    size_t n_notices;
    const struct instance_view *instances;
    size_t n_instances;
};
/* One call of say per line, without newline. */
void watch_step(struct watch *watch, const struct watch_views *views,
                void (*say)(void *owner, const char *line), void *owner);

#endif
