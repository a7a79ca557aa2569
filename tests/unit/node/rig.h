#ifndef SKEIN_TESTS_RIG_H
#define SKEIN_TESTS_RIG_H

/* One control on a bench: events go in by hand, the actions of each step are kept to be looked at.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "node/cluster/control.h"

#define RIG_SECOND 1000000ull

struct rig {
    struct control *control;
    struct control_actions actions; /* of the last step */
    uint64_t now_us;
    uint8_t self_id[PROTO_ID_BYTES];
    uint32_t last_inbound;
};

/* What tests of instances begin with: "own" on the bench and "other" to be its member, both with
 * the model "toy", of which a little more than half fits on each. Tests may change the cards. */
enum { RIG_MODEL = 0xaa, RIG_LAYERS = 4, RIG_LAYER = 1000000 };
extern struct node_card rig_own, rig_other;
int rig_setup(void **state); /* cmocka's; *state is the struct rig */
int rig_teardown(void **state);

/* A node id whose first byte decides which of two is smaller. */
void rig_id(uint8_t id[static PROTO_ID_BYTES], uint8_t first);
void rig_card(struct node_card *card, const char *name, uint64_t memory_bytes);
void rig_model(struct node_card *card, uint8_t hash, const char *name);
/* self's id begins with 0x50. */
void rig_new(struct rig *rig, const struct node_card *card, const struct control_options *options);
void rig_free(struct rig *rig);
void rig_step(struct rig *rig, struct control_event *event);
void rig_tick(struct rig *rig, uint64_t by_us); /* time passes, then a tick */
void rig_seen(struct rig *rig, uint8_t id, const char *address);
uint32_t rig_inbound(struct rig *rig, uint8_t id);
void rig_opened(struct rig *rig, uint32_t link, uint8_t id); /* a dial */
void rig_closed(struct rig *rig, uint32_t link, enum status status, const char *text);
void rig_message(struct rig *rig, uint32_t link, struct message *message);
void rig_send_card(struct rig *rig, uint32_t link, const struct node_card *card);
/* An inbound link with its card: a living member. */
uint32_t rig_member(struct rig *rig, uint8_t id, const struct node_card *card);
/* The nth (from 0) action of that kind in the last step; NULL where there are fewer. */
struct control_action *rig_action(struct rig *rig, enum control_action_kind kind, int nth);
int rig_count(struct rig *rig, enum control_action_kind kind);
/* A message of that kind sent on link in the last step, or NULL. */
struct message *rig_sent(struct rig *rig, uint32_t link, enum message_kind kind);
bool rig_view(struct rig *rig, uint8_t id, struct member_view *out);
/* Keeps all links alive through the time: a PONG from each of them every second. */
void rig_pass_time(struct rig *rig, uint64_t us, const uint32_t *links, size_t n);
struct control_model *rig_control_model(uint8_t hash, uint32_t n_layers, uint64_t layer_bytes);
/* The file of this hash is open, as if asked for; the model is control's. */
void rig_model_opens(struct rig *rig, uint8_t hash, struct control_model *model);
void rig_shard_loads(struct rig *rig, const struct instance_ref *ref, enum status status);
void rig_freed(struct rig *rig, const struct instance_ref *ref);
void rig_stage_done(struct rig *rig, struct control_pass *pass);
/* Takes the pass out of the last step's action. */
struct control_pass *rig_pass_of(struct rig *rig, enum control_action_kind kind);
void rig_request(struct rig *rig, uint64_t handle, const char *model);
void rig_cancel(struct rig *rig, uint64_t handle);
/* Alone with the model "toy" READY: request 1 still runs. */
struct instance_ref rig_ready_alone(struct rig *rig, struct control_model *model);

#endif
