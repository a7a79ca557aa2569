/* The model store.
 *
 * A model becomes known by being found in a folder, named by its path, or built in. A file is first
 * opened and checked (can the engine run it?), then hashed unless its hash is remembered; only then
 * is it offered to the cluster. One file at a time: two hashes at once would only fight for the
 * disk.
 *
 * Happy path: add → queue → work on the thread pool → entry → on_changed. open → work → uses = 1 →
 * … → release → uses = 0 → the mapping goes.
 * What fails: a file that cannot be read or run is a notice (or the adder's fault) and is not
 * offered; a file that changed since it was hashed is refused when it is opened. */
#include "node/store/store.h"

#include <dirent.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "node/store/hash_cache.h"
#include "node/store/model_file.h"

struct waiter { /* somebody who asked for an open model */
    struct waiter *next;
    store_on_open *on_open;
    void *owner;
};

struct entry {
    struct entry *next;
    struct store *store;
    struct model_card card;
    char *path; /* NULL: the demo model */
    struct file_identity file;
    struct model *model;
    struct model *opened; /* the thread pool's while `opening`; then it becomes model */
    unsigned n_uses;
    struct waiter *waiters;
    uv_work_t work; /* opening */
    bool opening;
    struct fault fault;
};

struct job { /* a file on its way to become an entry */
    struct job *next;
    char *path;
    store_on_added *on_added;
    void *owner;
    struct file_identity file;
    struct model_card card;
    bool hash_known;
    struct fault fault;
    char why[PROTO_MAX_WHY]; /* the engine's reason against it, without the name */
};

struct store {
    uv_loop_t *loop;
    struct store_events events;
    enum engine_kind engine;
    struct hash_cache *cache;
    struct entry *entries;
    struct refused_model refused[PROTO_MAX_REFUSED]; /* a ring: the oldest gives way */
    size_t n_refused;                                /* ever */
    struct job *jobs, **jobs_tail;                   /* the first one is under way while `busy` */
    uv_work_t work;
    uv_async_t settle; /* delivers outcomes that are known at once, and the end */
    bool busy;
    bool closing;
    _Atomic bool stop; /* read by the thread pool */
};

/* ---------------------------------------------------------------- entries */

static struct entry *store_find(const struct store *store, const uint8_t *hash)
{
    for (struct entry *e = store->entries; e; e = e->next)
        if (memcmp(e->card.hash, hash, PROTO_HASH_BYTES) == 0)
            return e;
    return NULL;
}

static enum status store_insert(struct store *store, const struct model_card *card,
                                const char *path, const struct file_identity *file)
{
    struct entry *entry = store_find(store, card->hash);

    if (entry)
        return STATUS_OK; /* the same bytes under another path: one is enough */
    entry = MEM_NEW(struct entry);
    if (!entry)
        return STATUS_NO_MEMORY;
    entry->path = path ? mem_text(path) : NULL;
    if (path && !entry->path) {
        mem_free(entry);
        return STATUS_NO_MEMORY;
    }
    entry->store = store;
    entry->card = *card;
    if (file)
        entry->file = *file;
    entry->next = store->entries;
    store->entries = entry;
    return STATUS_OK;
}

static void entry_free(struct entry *entry)
{
    model_free(&entry->model);
    mem_free(entry->path);
    mem_free(entry);
}

size_t store_cards(const struct store *store, struct model_card *out, size_t max)
{
    size_t n = 0;

    for (struct entry *e = store->entries; e && n < max; e = e->next)
        out[n++] = e->card;
    return n;
}

size_t store_pending(const struct store *store)
{
    size_t n = 0;

    for (struct job *j = store->jobs; j; j = j->next)
        n++;
    return n;
}

/* ---------------------------------------------------------------- adding files */

static void store_start_job(struct store *store);

static void job_free(struct job *job)
{
    mem_free(job->path);
    mem_free(job);
}

/* Found in a folder, and the engine said why it cannot be run. */
static void store_refuse(struct store *store, const struct job *job)
{
    struct refused_model *refused = &store->refused[store->n_refused % PROTO_MAX_REFUSED];

    if (!*job->why)
        return;
    for (size_t i = 0; i < store->n_refused && i < PROTO_MAX_REFUSED; i++)
        if (strcmp(store->refused[i].name, job->card.name) == 0)
            return;
    memset(refused, 0, sizeof *refused);
    memcpy(refused->name, job->card.name, sizeof refused->name);
    memcpy(refused->why, job->why, sizeof refused->why);
    refused->file_bytes = job->card.file_bytes;
    store->n_refused++;
    store->events.on_changed(store->events.owner);
}

size_t store_refused(const struct store *store, struct refused_model *out, size_t max)
{
    size_t n = store->n_refused < PROTO_MAX_REFUSED ? store->n_refused : PROTO_MAX_REFUSED;

    n = n < max ? n : max;
    memcpy(out, store->refused, n * sizeof *out);
    return n;
}

static void store_finish_job(struct store *store)
{
    struct job *job = store->jobs;
    struct fault *fault = &job->fault;

    store->jobs = job->next;
    if (!store->jobs)
        store->jobs_tail = &store->jobs;
    if (fault->status == STATUS_OK) {
        hash_cache_put(store->cache, &job->file, job->card.hash);
        if (store_insert(store, &job->card, job->path, &job->file) != STATUS_OK)
            (void)fault_set(fault, STATUS_NO_MEMORY, "no memory for a model");
        else
            store->events.on_changed(store->events.owner);
    }
    if (job->on_added) {
        job->on_added(job->owner, &job->card, fault);
    } else if (fault->status != STATUS_OK && fault->status != STATUS_CANCELLED) {
        store->events.on_notice(store->events.owner, fault->text);
        store_refuse(store, job);
    }
    job_free(job);
}

static void store_on_job_work(uv_work_t *work)
{
    struct store *store = work->data;
    struct job *job = store->jobs;
    struct fault *fault = &job->fault;

    if (model_file_check(job->path, store->engine, &job->card, fault) != STATUS_OK) {
        model_plain_text(fault->text, job->why, sizeof job->why);
        (void)fault_prefix(fault, "%s cannot be used", job->card.name);
    } else if (!job->hash_known)
        fault->status = model_file_hash(job->path, &store->stop, job->card.hash, fault);
}

static void store_settle_end(struct store *store);

static void store_on_job_done(uv_work_t *work, int status)
{
    struct store *store = work->data;

    if (status != 0)
        (void)fault_set(&store->jobs->fault, STATUS_CANCELLED, "stopped");
    store->busy = false;
    store_finish_job(store);
    store_start_job(store);
    store_settle_end(store);
}

static void store_start_job(struct store *store)
{
    struct job *job;

    while (!store->busy && (job = store->jobs) != NULL) {
        if (store->closing)
            (void)fault_set(&job->fault, STATUS_CANCELLED, "stopped");
        else if (model_file_identity(job->path, &job->file, &job->fault) == STATUS_OK) {
            job->card.file_bytes = job->file.size_bytes;
            job->hash_known = hash_cache_find(store->cache, &job->file, job->card.hash);
            store->busy =
                uv_queue_work(store->loop, &store->work, store_on_job_work, store_on_job_done) == 0;
            if (store->busy)
                return;
            (void)fault_set(&job->fault, STATUS_INTERNAL, "no thread to read %s", job->path);
        }
        store_finish_job(store);
    }
}

enum status store_add(struct store *store, const char *path, store_on_added *on_added, void *owner)
{
    struct job *job = MEM_NEW(struct job);

    if (!job)
        return STATUS_NO_MEMORY;
    job->path = mem_text(path);
    if (!job->path) {
        mem_free(job);
        return STATUS_NO_MEMORY;
    }
    model_file_name(path, job->card.name);
    job->on_added = on_added;
    job->owner = owner;
    *store->jobs_tail = job;
    store->jobs_tail = &job->next;
    (void)uv_async_send(&store->settle); /* starts it, so that on_added never comes from inside */
    return STATUS_OK;
}

/* Of a split model, the first file that is there stands for all. */
static bool store_skips(const char *path)
{
    uint32_t number;
    bool skips = false;

    (void)model_part_count(path, &number);
    for (uint32_t i = 1; i < number && !skips; i++) {
        char *earlier = model_part_path(path, i);

        skips = earlier && access(earlier, F_OK) == 0;
        mem_free(earlier);
    }
    return skips;
}

enum status store_scan(struct store *store, const char *folder)
{
    enum status status = STATUS_OK;
    DIR *dir = opendir(folder);
    struct dirent *item;

    while (dir && status == STATUS_OK && (item = readdir(dir)) != NULL) {
        size_t n = strlen(item->d_name);
        struct buffer path = {0};

        bool is_file = n > 5 && strcmp(item->d_name + n - 5, ".gguf") == 0;

        if (item->d_name[0] == '.' && !is_file)
            continue;
        status = buffer_printf(&path, "%s/%s", folder, item->d_name);
        if (status == STATUS_OK && (is_file ? !store_skips((const char *)path.data)
                                            : model_is_folder((const char *)path.data)))
            status = store_add(store, (const char *)path.data, NULL, NULL);
        buffer_free(&path);
    }
    if (dir)
        (void)closedir(dir);
    return status;
}

/* ---------------------------------------------------------------- opening */

static void entry_tell(struct entry *entry)
{
    struct waiter *waiter;

    while (!entry->opening && (waiter = entry->waiters) != NULL) { /* one may have asked anew */
        entry->waiters = waiter->next;
        if (entry->model)
            entry->n_uses++;
        waiter->on_open(waiter->owner, entry->card.hash, entry->model, &entry->fault);
        mem_free(waiter);
    }
}

static void entry_on_work(uv_work_t *work)
{
    struct entry *entry = work->data;
    struct file_identity now;

    entry->fault = (struct fault){0};
    if (!entry->path) {
        const void *data;
        size_t size_bytes;

        model_demo(&data, &size_bytes);
        entry->fault.status =
            model_open_memory(data, size_bytes, entry->card.name, &entry->opened, &entry->fault);
    } else if (model_file_identity(entry->path, &now, &entry->fault) == STATUS_OK) {
        if (now.size_bytes != entry->file.size_bytes ||
            now.modified_ns != entry->file.modified_ns || now.inode != entry->file.inode)
            (void)fault_set(&entry->fault, STATUS_FORMAT,
                            "%s changed since this node started; restart `skein up` here",
                            entry->path);
        else
            entry->fault.status = model_open(entry->path, &entry->opened, &entry->fault);
    }
}

static void entry_on_done(uv_work_t *work, int status)
{
    struct entry *entry = work->data;

    entry->opening = false;
    entry->model = entry->opened;
    entry->opened = NULL;
    if (status != 0)
        (void)fault_set(&entry->fault, STATUS_CANCELLED, "stopped");
    entry_tell(entry);
    store_settle_end(entry->store);
}

enum status store_open(struct store *store, const uint8_t hash[static PROTO_HASH_BYTES],
                       store_on_open *on_open, void *owner)
{
    struct entry *entry = store_find(store, hash);
    struct waiter *waiter;

    if (!entry || store->closing)
        return STATUS_NOT_FOUND;
    waiter = MEM_NEW(struct waiter);
    if (!waiter)
        return STATUS_NO_MEMORY;
    *waiter = (struct waiter){.next = entry->waiters, .on_open = on_open, .owner = owner};
    entry->waiters = waiter;
    if (entry->model) {
        (void)uv_async_send(&store->settle);
    } else if (!entry->opening) {
        entry->work.data = entry;
        entry->opening =
            uv_queue_work(store->loop, &entry->work, entry_on_work, entry_on_done) == 0;
        if (!entry->opening) {
            entry->waiters = waiter->next;
            mem_free(waiter);
            return STATUS_INTERNAL;
        }
    }
    return STATUS_OK;
}

const struct model *store_peek(struct store *store, const uint8_t hash[static PROTO_HASH_BYTES])
{
    struct entry *entry = store_find(store, hash);

    return entry ? entry->model : NULL;
}

void store_hold(struct store *store, const uint8_t hash[static PROTO_HASH_BYTES])
{
    struct entry *entry = store_find(store, hash);

    if (entry && entry->model)
        entry->n_uses++;
}

void store_release(struct store *store, const uint8_t hash[static PROTO_HASH_BYTES])
{
    struct entry *entry = store_find(store, hash);

    if (entry && entry->n_uses > 0 && --entry->n_uses == 0 && !entry->waiters)
        model_free(&entry->model);
}

/* ---------------------------------------------------------------- life */

static void store_on_closed(uv_handle_t *handle)
{
    struct store *store = handle->data;
    struct store_events events = store->events;
    struct entry *entry;

    while ((entry = store->entries) != NULL) {
        store->entries = entry->next;
        entry_free(entry);
    }
    hash_cache_free(&store->cache);
    mem_free(store);
    events.on_closed(events.owner);
}

static void store_settle_end(struct store *store)
{
    uv_handle_t *handle = (uv_handle_t *)&store->settle;

    if (!store->closing || store->busy || store->jobs || uv_is_closing(handle))
        return;
    for (struct entry *e = store->entries; e; e = e->next)
        if (e->opening || e->waiters)
            return;
    uv_close(handle, store_on_closed);
}

static void store_on_settle(uv_async_t *async)
{
    struct store *store = async->data;

    store_start_job(store);
    for (struct entry *e = store->entries; e; e = e->next)
        if (!e->opening && e->waiters)
            entry_tell(e);
    store_settle_end(store);
}

enum status store_new(struct uv_loop_s *loop, const char *cache_path, enum engine_kind engine,
                      const struct store_events *events, struct store **out)
{
    struct store *store = MEM_NEW(struct store);
    struct model_card card = {.name = "skein-tiny"};
    struct model *demo = NULL;
    const void *data;
    size_t size_bytes;
    enum status status = STATUS_NO_MEMORY;

    if (!store)
        return status;
    store->loop = loop;
    store->events = *events;
    store->engine = engine;
    store->jobs_tail = &store->jobs;
    store->work.data = store;
    model_demo(&data, &size_bytes);
    if (model_open_memory(data, size_bytes, card.name, &demo, NULL) == STATUS_OK)
        model_describe(demo, &card);
    model_free(&demo);
    card.file_bytes = size_bytes;
    model_bytes_hash(data, size_bytes, card.hash);
    status = hash_cache_new(cache_path, &store->cache);
    if (status == STATUS_OK)
        status = store_insert(store, &card, NULL, NULL);
    if (status == STATUS_OK && uv_async_init(loop, &store->settle, store_on_settle) != 0)
        status = STATUS_INTERNAL;
    if (status != STATUS_OK) {
        if (store->entries)
            entry_free(store->entries);
        hash_cache_free(&store->cache);
        mem_free(store);
        return status;
    }
    store->settle.data = store;
    *out = store;
    return STATUS_OK;
}

void store_close(struct store *store)
{
    store->closing = true;
    atomic_store(&store->stop, true);
    (void)uv_async_send(&store->settle);
}
