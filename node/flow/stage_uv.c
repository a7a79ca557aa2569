/* Stage threads.
 *
 * Every instance on this node has one thread. It opens the shard, then takes passes from a queue,
 * runs them and puts them on the list of finished ones; one uv_async wakes the loop, which hands
 * them to the control plane. A queue carries, the async only wakes: libuv merges wake-ups.
 *
 * Why a thread and not the loop's thread pool: a shard owns its compute threads and its KV cache,
 * wants the same caller each time, and must never wait behind a file that is being hashed.
 *
 * Output heads overtake stages. A pass that has come back around the ring holds tokens that people
 * wait for, while a pass that sets out is the next one's work.
 *
 * Happy path: load → (run …) → drop → thread ends → joined on the loop → on_freed.
 * What can fail: opening the shard (reported by on_loaded; the thread then waits to be dropped), a
 * pass (reported with it), the thread's start (returned at once). A pass that is still queued when
 * its instance is dropped is freed and not reported: the control plane forgot it already. */
#include "node/flow/stage.h"

#include <string.h>
#include <uv.h>

#define LOAD_TELL_NS UINT64_C(2000000000)

struct pass_queue { /* a ring of pointers that grows */
    struct control_pass **items;
    size_t first, n, capacity;
};

struct stage {
    struct stage *next;
    struct stages *owner;
    struct instance_ref instance;
    uint8_t hash[PROTO_HASH_BYTES];
    const struct model *model;
    struct shard_spec spec;
    uv_thread_t thread;
    uv_mutex_t mutex;
    uv_cond_t wake;
    struct pass_queue stage_queue, head_queue; /* guarded by mutex, as quit */
    bool quit;
    bool dropped; /* loop thread's own: results are of no use any more */
    /* the stage thread's own: */
    uint64_t told_ns; /* when the log last heard of the load */
    struct shard *shard;
    struct sampler *sampler;
    float *gather; /* [n_slots, n_embd] rows that want logits */
    float *logits; /* [n_slots, n_vocab] */
};

enum done_kind { DONE_LOADED, DONE_STAGE, DONE_HEAD, DONE_EXIT };

struct done {
    enum done_kind kind;
    struct stage *stage;
    struct control_pass *pass;
    struct fault fault;
};

struct stages {
    uv_async_t async;
    uv_mutex_t mutex;
    struct done *done; /* guarded by mutex, as n_done and capacity */
    size_t n_done, capacity;
    struct done *taken; /* the loop's half of the double buffer */
    size_t taken_capacity;
    struct stage *list;
    struct stages_events events;
    bool closing;
};

bool instance_ref_equal(const struct instance_ref *a, const struct instance_ref *b)
{
    return a->number == b->number && a->epoch == b->epoch &&
           memcmp(a->head, b->head, sizeof a->head) == 0;
}

/* ---------------------------------------------------------------- queues */

static bool pass_queue_put(struct pass_queue *q, struct control_pass *pass)
{
    if (q->n == q->capacity) {
        size_t capacity = q->capacity ? 2 * q->capacity : 16;
        /* An array of pointers, which is what the check takes for a slip.
         * NOLINTNEXTLINE(bugprone-sizeof-expression) */
        struct control_pass **items = mem_zeroed(capacity, sizeof(*items));

        if (!items)
            return false;
        for (size_t i = 0; i < q->n; i++)
            items[i] = q->items[(q->first + i) % q->capacity];
        mem_free(q->items);
        *q = (struct pass_queue){.items = items, .n = q->n, .capacity = capacity};
    }
    q->items[(q->first + q->n++) % q->capacity] = pass;
    return true;
}

static struct control_pass *pass_queue_take(struct pass_queue *q)
{
    struct control_pass *pass;

    if (q->n == 0)
        return NULL;
    pass = q->items[q->first];
    q->first = (q->first + 1) % q->capacity;
    q->n--;
    return pass;
}

static void pass_queue_free(struct pass_queue *q)
{
    struct control_pass *pass;

    while ((pass = pass_queue_take(q)) != NULL)
        control_pass_free(&pass);
    mem_free(q->items);
    *q = (struct pass_queue){0};
}

/* Under the mutex: the loop swaps the lists, so making room and using it must not be parted. */
static bool stages_room(struct stages *stages)
{
    struct done *done;

    if (stages->n_done < stages->capacity)
        return true;
    done = mem_resize(stages->done, stages->capacity + 128, sizeof(*done));
    if (!done)
        return false;
    stages->done = done;
    stages->capacity += 128;
    return true;
}

static void stage_report(struct stage *stage, enum done_kind kind, struct control_pass *pass,
                         const struct fault *fault)
{
    struct stages *stages = stage->owner;

    uv_mutex_lock(&stages->mutex);
    while (!stages_room(stages)) { /* the loop frees memory in time, or nothing helps */
        uv_mutex_unlock(&stages->mutex);
        uv_sleep(1);
        uv_mutex_lock(&stages->mutex);
    }
    stages->done[stages->n_done++] =
        (struct done){.kind = kind, .stage = stage, .pass = pass, .fault = *fault};
    uv_mutex_unlock(&stages->mutex);
    (void)uv_async_send(&stages->async);
}

/* ---------------------------------------------------------------- the stage's thread */

/* A line every LOAD_TELL_NS while a shard is read; one that is there sooner is not spoken of. */
static void stage_loading(void *owner, uint64_t done_bytes, uint64_t total_bytes)
{
    struct stage *stage = owner;
    uint64_t now = uv_hrtime();

    if (now - stage->told_ns < LOAD_TELL_NS || total_bytes == 0)
        return;
    stage->told_ns = now;
    log_event(LOG_INFO, "stage", "loading layers=%u-%u percent=%u mb=%llu of_mb=%llu",
              stage->spec.layer_begin, stage->spec.layer_end,
              (unsigned)(100.0 * (double)done_bytes / (double)total_bytes),
              (unsigned long long)(done_bytes >> 20), (unsigned long long)(total_bytes >> 20));
}

static enum status stage_open(struct stage *stage, struct fault *fault)
{
    const struct model_info *info = model_info(stage->model);
    enum status status;

    stage->told_ns = uv_hrtime();
    stage->spec.on_load = stage_loading;
    stage->spec.on_load_owner = stage;
    status = shard_open(stage->model, &stage->spec, &stage->shard, fault);
    if (status != STATUS_OK || !stage->spec.head)
        return status;
    stage->gather = mem_aligned(64, (size_t)stage->spec.n_slots * info->n_embd, sizeof(float));
    stage->logits = mem_aligned(64, (size_t)stage->spec.n_slots * info->n_vocab, sizeof(float));
    if (!stage->gather || !stage->logits ||
        sampler_new(info->n_vocab, &stage->sampler) != STATUS_OK)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory for the sampler");
    return STATUS_OK;
}

static enum status stage_run_layers(struct stage *stage, struct control_pass *pass)
{
    struct message_pass *m = &pass->message->pass;
    float *hidden = (float *)(void *)pass->message->payload;
    struct shard_row rows[PROTO_MAX_ROWS];
    enum status status = STATUS_OK;

    for (uint32_t i = 0; i < m->n_clears; i++)
        shard_truncate(stage->shard, m->clears[i].slot, m->clears[i].from);
    if (m->n_rows == 0)
        return STATUS_OK;
    /* Control knows the width by the head's word only. */
    if (pass->message->payload_bytes !=
        (size_t)m->n_rows * model_info(stage->model)->row_floats * sizeof(float))
        return STATUS_FORMAT;
    for (uint32_t i = 0; i < m->n_rows; i++)
        rows[i] = (struct shard_row){.slot = m->rows[i].slot, .pos = m->rows[i].pos};
    if (pass->tokens)
        status = shard_embed(stage->shard, pass->tokens, m->n_rows, hidden);
    if (status == STATUS_OK)
        status = shard_forward(stage->shard, rows, m->n_rows, hidden);
    return status;
}

static enum status stage_run_head(struct stage *stage, struct control_pass *pass)
{
    const struct model_info *info = model_info(stage->model);
    const float *hidden = (const float *)(const void *)pass->message->payload;
    enum status status;

    if (pass->n_samples == 0)
        return STATUS_OK;
    if (pass->n_samples > stage->spec.n_slots)
        return STATUS_INVALID;
    for (uint32_t i = 0; i < pass->n_samples; i++)
        memcpy(stage->gather + (size_t)i * info->n_embd,
               hidden + (size_t)pass->samples[i].row * info->n_embd, info->n_embd * sizeof(float));
    status = shard_logits(stage->shard, stage->gather, pass->n_samples, stage->logits);
    for (uint32_t i = 0; status == STATUS_OK && i < pass->n_samples; i++) {
        struct sample_job *job = &pass->samples[i];

        job->params.dry_breakers = model_dry_breakers(stage->model, &job->params.n_dry_breakers);
        job->token =
            sample_token(stage->sampler, &job->params, stage->logits + (size_t)i * info->n_vocab,
                         job->history, job->n_history, job->position);
    }
    return status;
}

static void stage_run_pass(struct stage *stage, struct control_pass *pass, bool head)
{
    struct fault fault = {0};
    enum status status = head ? stage_run_head(stage, pass) : stage_run_layers(stage, pass);

    if (status != STATUS_OK)
        (void)fault_set(&fault, status, "a pass of %u rows failed: %s", pass->message->pass.n_rows,
                        status_words(status));
    stage_report(stage, head ? DONE_HEAD : DONE_STAGE, pass, &fault);
}

static void stage_main(void *arg)
{
    struct stage *stage = arg;
    struct fault fault = {0};

    (void)stage_open(stage, &fault);
    stage_report(stage, DONE_LOADED, NULL, &fault);
    uv_mutex_lock(&stage->mutex);
    while (!stage->quit) {
        bool head = stage->head_queue.n > 0;
        struct control_pass *pass =
            pass_queue_take(head ? &stage->head_queue : &stage->stage_queue);

        if (!pass) {
            uv_cond_wait(&stage->wake, &stage->mutex);
            continue;
        }
        uv_mutex_unlock(&stage->mutex);
        stage_run_pass(stage, pass, head);
        uv_mutex_lock(&stage->mutex);
    }
    uv_mutex_unlock(&stage->mutex);
    shard_free(&stage->shard);
    sampler_free(&stage->sampler);
    mem_free(stage->gather);
    mem_free(stage->logits);
    stage_report(stage, DONE_EXIT, NULL, &(struct fault){0});
}

/* ---------------------------------------------------------------- the loop's side */

static void stages_finish_close(uv_handle_t *handle)
{
    struct stages *stages = handle->data;
    struct stages_events events = stages->events;

    uv_mutex_destroy(&stages->mutex);
    mem_free(stages->done);
    mem_free(stages->taken);
    mem_free(stages);
    events.on_closed(events.owner);
}

static void stages_maybe_close(struct stages *stages)
{
    uv_handle_t *handle = (uv_handle_t *)&stages->async;

    if (stages->closing && !stages->list && !uv_is_closing(handle))
        uv_close(handle, stages_finish_close);
}

static void stage_free(struct stage *stage)
{
    struct stage **link = &stage->owner->list;

    while (*link != stage)
        link = &(*link)->next;
    *link = stage->next;
    pass_queue_free(&stage->stage_queue);
    pass_queue_free(&stage->head_queue);
    uv_mutex_destroy(&stage->mutex);
    uv_cond_destroy(&stage->wake);
    mem_free(stage);
}

static void stages_deliver(struct stages *stages, struct done *done)
{
    const struct stages_events *events = &stages->events;
    struct stage *stage = done->stage;
    struct instance_ref instance;
    uint8_t hash[PROTO_HASH_BYTES];

    if (done->kind == DONE_EXIT) {
        (void)uv_thread_join(&stage->thread);
        instance = stage->instance;
        memcpy(hash, stage->hash, sizeof hash);
        stage_free(stage);
        events->on_freed(events->owner, &instance, hash);
    } else if (stage->dropped) {
        control_pass_free(&done->pass);
    } else if (done->kind == DONE_LOADED) {
        events->on_loaded(events->owner, &stage->instance, &done->fault);
    } else if (done->kind == DONE_STAGE) {
        events->on_stage_done(events->owner, done->pass, &done->fault);
    } else {
        events->on_head_done(events->owner, stage->hash, done->pass, &done->fault);
    }
}

static void stages_on_async(uv_async_t *async)
{
    struct stages *stages = async->data;
    struct done *done;
    size_t n, capacity;

    uv_mutex_lock(&stages->mutex);
    done = stages->done;
    n = stages->n_done;
    capacity = stages->capacity;
    stages->done = stages->taken;
    stages->capacity = stages->taken_capacity;
    stages->n_done = 0;
    stages->taken = done;
    stages->taken_capacity = capacity;
    uv_mutex_unlock(&stages->mutex);
    for (size_t i = 0; i < n; i++)
        stages_deliver(stages, &done[i]);
    stages_maybe_close(stages);
}

enum status stages_new(struct uv_loop_s *loop, const struct stages_events *events,
                       struct stages **out)
{
    struct stages *stages = MEM_NEW(struct stages);

    if (!stages)
        return STATUS_NO_MEMORY;
    stages->events = *events;
    if (uv_mutex_init(&stages->mutex) != 0) {
        mem_free(stages);
        return STATUS_NO_MEMORY;
    }
    if (uv_async_init(loop, &stages->async, stages_on_async) != 0) {
        uv_mutex_destroy(&stages->mutex);
        mem_free(stages);
        return STATUS_INTERNAL;
    }
    stages->async.data = stages;
    *out = stages;
    return STATUS_OK;
}

static struct stage *stages_find(struct stages *stages, const struct instance_ref *instance)
{
    for (struct stage *s = stages->list; s; s = s->next)
        if (!s->dropped && instance_ref_equal(&s->instance, instance))
            return s;
    return NULL;
}

enum status stages_load(struct stages *stages, const struct instance_ref *instance,
                        const struct model *model, const uint8_t hash[static PROTO_HASH_BYTES],
                        const struct shard_spec *spec, struct fault *fault)
{
    struct stage *stage;

    if (stages_find(stages, instance))
        return fault_set(fault, STATUS_INVALID, "this stage is loaded already");
    stage = MEM_NEW(struct stage);
    if (!stage)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory for a stage");
    stage->owner = stages;
    stage->instance = *instance;
    memcpy(stage->hash, hash, sizeof stage->hash);
    stage->model = model;
    stage->spec = *spec;
    if (uv_mutex_init(&stage->mutex) != 0) {
        mem_free(stage);
        return fault_set(fault, STATUS_NO_MEMORY, "no memory for a stage");
    }
    if (uv_cond_init(&stage->wake) != 0)
        goto no_condition;
    if (uv_thread_create(&stage->thread, stage_main, stage) != 0)
        goto no_thread;
    stage->next = stages->list;
    stages->list = stage;
    return STATUS_OK;
no_thread:
    uv_cond_destroy(&stage->wake);
no_condition:
    uv_mutex_destroy(&stage->mutex);
    mem_free(stage);
    return fault_set(fault, STATUS_NO_MEMORY, "no thread for a stage");
}

enum status stages_run(struct stages *stages, const struct instance_ref *instance,
                       struct control_pass *pass, bool head)
{
    struct stage *stage = stages_find(stages, instance);
    bool queued = false;

    if (stage) {
        uv_mutex_lock(&stage->mutex);
        queued = pass_queue_put(head ? &stage->head_queue : &stage->stage_queue, pass);
        uv_cond_signal(&stage->wake);
        uv_mutex_unlock(&stage->mutex);
    }
    return queued ? STATUS_OK : stage ? STATUS_NO_MEMORY : STATUS_NOT_FOUND;
}

static void stage_drop(struct stage *stage)
{
    stage->dropped = true;
    uv_mutex_lock(&stage->mutex);
    stage->quit = true;
    uv_cond_signal(&stage->wake);
    uv_mutex_unlock(&stage->mutex);
}

bool stages_drop(struct stages *stages, const struct instance_ref *instance)
{
    struct stage *stage = stages_find(stages, instance);

    if (stage)
        stage_drop(stage);
    return stage != NULL;
}

void stages_close(struct stages *stages)
{
    stages->closing = true;
    for (struct stage *s = stages->list; s; s = s->next)
        if (!s->dropped)
            stage_drop(s);
    stages_maybe_close(stages);
}
