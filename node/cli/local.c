/* A node on a second thread of this process.
 *
 * It is the same node with the same API as `skein up` runs; only discovery, the listener and the
 * state folder are left out, so that it neither meets a cluster nor leaves anything behind. Signals
 * stay with the first thread: the second blocks them all. */
#include "node/cli/local.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "node/cli/serve_uv.h"

struct local {
    struct serve *serve;
    struct serve_options options;
    struct node_choice_places places;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    /* under the mutex: */
    bool ready, ended;
    uint16_t port;
    enum status status;
    struct fault fault;
};

static void on_ready(void *owner, struct node *node, uint16_t api_port)
{
    struct local *local = owner;

    (void)node;
    (void)pthread_mutex_lock(&local->mutex);
    local->ready = true;
    local->port = api_port;
    (void)pthread_cond_signal(&local->changed);
    (void)pthread_mutex_unlock(&local->mutex);
}

static void *local_main(void *owner)
{
    struct local *local = owner;
    struct serve_events events = {.on_ready = on_ready, .owner = local};
    struct fault fault = {0};
    enum status status = serve_run(local->serve, &local->options, &events, &fault);

    (void)pthread_mutex_lock(&local->mutex);
    local->ended = true;
    local->status = status;
    local->fault = fault;
    (void)pthread_cond_signal(&local->changed);
    (void)pthread_mutex_unlock(&local->mutex);
    return NULL;
}

static enum status local_spawn(struct local *local, struct fault *fault)
{
    sigset_t all, before;
    int rc;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&local->thread, NULL, local_main, local);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0)
        return fault_set(fault, status_from_errno(rc), "cannot start a thread: %s", strerror(rc));
    return STATUS_OK;
}

static enum status local_wait(struct local *local, struct fault *fault)
{
    enum status status = STATUS_OK;

    (void)pthread_mutex_lock(&local->mutex);
    while (!local->ready && !local->ended)
        (void)pthread_cond_wait(&local->changed, &local->mutex);
    if (!local->ready) {
        status = local->status == STATUS_OK ? STATUS_CLOSED : local->status;
        *fault = local->fault;
    }
    (void)pthread_mutex_unlock(&local->mutex);
    return status;
}

static void local_drop(struct local *local)
{
    serve_free(&local->serve);
    (void)pthread_mutex_destroy(&local->mutex);
    (void)pthread_cond_destroy(&local->changed);
    mem_free(local);
}

enum status local_start(const struct node_choice *choice, struct local **out, struct fault *fault)
{
    struct local *local = MEM_NEW(struct local);
    enum status status;

    if (!local)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory to start a node");
    (void)pthread_mutex_init(&local->mutex, NULL);
    (void)pthread_cond_init(&local->changed, NULL);
    (void)snprintf(local->options.node.name, sizeof local->options.node.name, "this box");
    local->options.node.no_discovery = true;
    local->options.api.address = "127.0.0.1";
    log_level_set(LOG_ERROR);
    status = node_choice_apply(choice, &local->places, &local->options.node, fault);
    if (status == STATUS_OK)
        status = serve_new(&local->serve, fault);
    if (status == STATUS_OK)
        status = local_spawn(local, fault);
    if (status != STATUS_OK) {
        local_drop(local);
        return status;
    }
    status = local_wait(local, fault);
    *out = local;
    if (status != STATUS_OK)
        local_stop(out);
    return status;
}

uint16_t local_port(const struct local *local)
{
    return local->port;
}

void local_stop(struct local **local)
{
    if (!*local)
        return;
    serve_stop((*local)->serve);
    (void)pthread_join((*local)->thread, NULL);
    local_drop(*local);
    *local = NULL;
}
