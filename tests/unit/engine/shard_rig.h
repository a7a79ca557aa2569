#ifndef SKEIN_TESTS_UNIT_ENGINE_SHARD_RIG_H
#define SKEIN_TESTS_UNIT_ENGINE_SHARD_RIG_H

/* The demo model and shards of it. */
#include "engine/engine.h"

/* Between rig_open and rig_close, which are a group's setup and teardown. */
extern struct model *model;
extern float *hidden; /* [65, n_embd] */
extern float *logits; /* [64, n_vocab] */
int rig_open(void **state);
int rig_close(void **state);

struct shard_spec whole(void);                /* all layers, one thread, 100 tokens */
struct shard *opened(struct shard_spec spec); /* the test fails where it cannot be opened */
/* n tokens of a slot from position pos: their states in `hidden`. */
enum status forward(struct shard *shard, uint32_t slot, uint32_t pos, uint32_t n);

#endif
