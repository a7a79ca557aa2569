/* Weights and KV that may not be swapped out.
 *
 * mlock works on ranges: each matrix, in memory of its own or in the file's mapping, and the pool
 * of pages, which so becomes resident at once. Norms and biases, some kilobytes of a layer, are
 * left out. Nothing counts who locked what: pages of a file that two shards of a process share are
 * free again when one of them goes.
 *
 * What fails: the limit of locked memory, which is 8 MB or less for ordinary users (PERMISSION, and
 * how to raise it), or memory that is not there (NO_MEMORY). What was locked by then is freed with
 * the shard. */
#include "engine/shard/shard.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { N_WHOLE = 5 }; /* matrices that belong to no layer */

typedef int range_call(const void *data, size_t n_bytes);

struct range_walk {
    range_call *call;
    int error; /* the first one's errno */
};

/* Whole pages: the call takes any start, but its length is counted from the page's. */
static void walk_range(struct range_walk *walk, const void *data, size_t n_bytes)
{
    if (n_bytes && !walk->error && walk->call(data, n_bytes) != 0)
        walk->error = errno;
}

static void walk_weights(struct range_walk *walk, struct weight *const *weights, size_t n)
{
    for (size_t i = 0; weights && i < n; i++) {
        const void *data;
        size_t n_bytes;

        if (!weights[i])
            continue;
        weight_memory(weights[i], &data, &n_bytes);
        walk_range(walk, data, n_bytes);
    }
}

static void walk_shard(struct range_walk *walk, const struct shard *shard)
{
    const struct hparams *hp = &shard->model->hparams;
    struct weight *const whole[N_WHOLE] = {shard->token_embd, shard->separate_head,
                                           shard->positions, shard->input_embd,
                                           shard->input_projection};

    walk_weights(walk, whole, N_WHOLE);
    for (uint32_t i = 0; shard->layers && i < shard->spec.layer_end - shard->spec.layer_begin;
         i++) {
        const struct layer_weights *layer = &shard->layers[i];
        uint32_t n_heads = hp->layers[shard->spec.layer_begin + i].n_heads;

        walk_weights(walk, layer->matrix, SLOT_COUNT);
        for (int m = 0; m < EXPERT_MATRICES; m++)
            walk_weights(walk, layer->experts[m], hp->n_experts);
        for (int m = 0; m < HEAD_MATRICES; m++)
            walk_weights(walk, layer->heads[m], n_heads);
    }
    if (shard->kv && shard->kv->pool)
        walk_range(walk, shard->kv->pool, shard->kv->pool_bytes);
}

enum status shard_lock(struct shard *shard, struct fault *fault)
{
    struct range_walk walk = {.call = mlock};
    struct rlimit limit = {0};
    struct shard_need need;
    char wanted[32];
    char allowed[32];

    walk_shard(&walk, shard);
    if (!walk.error)
        return STATUS_OK;
    shard_need(shard->model, &shard->spec, &need);
    (void)bytes_format_size(need.weight_bytes + need.kv_bytes, wanted, sizeof wanted);
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        limit.rlim_cur < need.weight_bytes + need.kv_bytes)
        return fault_set(fault, STATUS_PERMISSION,
                         "%s of weights and KV cannot be locked in memory: this user may lock %s; "
                         "raise the limit (ulimit -l, or LimitMEMLOCK= in the service's unit), or "
                         "do without --lock",
                         wanted, bytes_format_size(limit.rlim_cur, allowed, sizeof allowed));
    return fault_set(fault, walk.error == EPERM ? STATUS_PERMISSION : STATUS_NO_MEMORY,
                     "%s of weights and KV cannot be locked in memory: %s; do without --lock, or "
                     "give this box more memory",
                     wanted, status_words(status_from_errno(walk.error)));
}

void shard_unlock(struct shard *shard)
{
    struct range_walk walk = {.call = munlock};

    walk_shard(&walk, shard);
}
