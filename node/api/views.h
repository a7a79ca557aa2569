#ifndef SKEIN_NODE_API_VIEWS_H
#define SKEIN_NODE_API_VIEWS_H

/* The node's views as JSON: what /skein/… answers and `skein peers --json` prints. All return NULL
 * without memory. Sizes are bytes, times seconds; unknown measurements are null. */
#include "node/api/http.h"

json_t *view_member(const struct member_view *member);
json_t *view_instance(const struct instance_view *instance);
json_t *view_plan(const char *model, const char *objective, const struct control_plan_view *plan,
                  const struct model_info *info, const struct member_view *members,
                  size_t n_members);
json_t *view_model(const struct node_model *model); /* as in GET /v1/models */
json_t *view_refused(const struct node_refused *refused);
const char *view_member_state(enum member_state state);
const char *view_instance_state(enum instance_state state);

#endif
