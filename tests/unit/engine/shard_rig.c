/* The demo model, and shards of it, for tests of what a shard's callers see. */
#include "tests/unit/engine/shard_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct model *model;
float *hidden;
float *logits;

struct shard_spec whole(void)
{
    return (struct shard_spec){.layer_end = 8,
                               .embed = true,
                               .head = true,
                               .n_slots = 2,
                               .n_ctx_tokens = 100,
                               .n_kv_blocks = 5,
                               .max_rows = 64,
                               .n_threads = 1,
                               .engine = ENGINE_NATIVE};
}

struct shard *opened(struct shard_spec spec)
{
    struct shard *shard = NULL;
    struct fault fault = {0};

    if (shard_open(model, &spec, &shard, &fault))
        fail_msg("%s", fault.text);
    return shard;
}

enum status forward(struct shard *shard, uint32_t slot, uint32_t pos, uint32_t n)
{
    struct shard_row rows[64];
    uint32_t tokens[64];

    for (uint32_t i = 0; i < n; i++) {
        rows[i] = (struct shard_row){slot, pos + i};
        tokens[i] = (pos + i) * 11 % 2048;
    }
    assert_int_equal(shard_embed(shard, tokens, n, hidden), STATUS_OK);
    return shard_forward(shard, rows, n, hidden);
}

int rig_open(void **state)
{
    const void *data;
    size_t size;

    (void)state;
    model_demo(&data, &size);
    hidden = malloc(65 * 256 * sizeof(float));
    logits = malloc(64 * 2048 * sizeof(float));
    return model_open_memory(data, size, "tiny", &model, NULL) ? -1 : 0;
}

int rig_close(void **state)
{
    (void)state;
    model_free(&model);
    free(hidden);
    free(logits);
    return 0;
}
