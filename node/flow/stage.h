#ifndef SKEIN_NODE_FLOW_STAGE_H
#define SKEIN_NODE_FLOW_STAGE_H

/* The compute side of a node: one thread per instance that owns its shard, takes passes in order
 * and hands them back on the loop. All functions and callbacks: loop thread only. */
#include "node/cluster/control.h"

struct uv_loop_s;
struct stages;

struct stages_events {
    void (*on_loaded)(void *owner, const struct instance_ref *instance, const struct fault *fault);
    /* The pass goes back to its sender's owner; fault->status OK when it went well. */
    void (*on_stage_done)(void *owner, struct control_pass *pass, const struct fault *fault);
    void (*on_head_done)(void *owner, const uint8_t hash[static PROTO_HASH_BYTES],
                         struct control_pass *pass, const struct fault *fault);
    /* The thread has ended and the shard is gone: its reference to the model ends. */
    void (*on_freed)(void *owner, const struct instance_ref *instance,
                     const uint8_t hash[static PROTO_HASH_BYTES]);
    void (*on_closed)(void *owner); /* after stages_close, when every thread has ended */
    void *owner;
};

enum status stages_new(struct uv_loop_s *loop, const struct stages_events *events,
                       struct stages **out) MUST_USE;
/* Starts the instance's thread, which opens the shard; on_loaded reports. The model must stay open
 * until on_freed. On failure to start nothing is reported. */
enum status stages_load(struct stages *stages, const struct instance_ref *instance,
                        const struct model *model, const uint8_t hash[static PROTO_HASH_BYTES],
                        const struct shard_spec *spec, struct fault *fault) MUST_USE;
/* Queues a pass; passes of one instance run in order, output heads before stages. Takes the pass on
 * success only. NOT_FOUND where the instance has no shard here. */
enum status stages_run(struct stages *stages, const struct instance_ref *instance,
                       struct control_pass *pass, bool head) MUST_USE;
/* The pass under way is finished and dropped, queued ones too; then on_freed. False: there is no
 * such stage, and nothing will be reported. */
bool stages_drop(struct stages *stages, const struct instance_ref *instance);
void stages_close(struct stages *stages); /* drops all; on_closed; then the memory is gone */

bool instance_ref_equal(const struct instance_ref *a, const struct instance_ref *b);

#endif
