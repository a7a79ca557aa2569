/* A node's state folder.
 *
 * One folder, one node: the lock keeps a second `skein up` from taking the same identity, which
 * would make two nodes one to all others. The folder is made 0700; keys are made 0600 by proto.
 * Without a folder (a prompt answered by this box alone) the keys live in memory and die with it.
 */
#include "node/state.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

char *node_state_path(const struct node_state *state, const char *name)
{
    struct buffer path = {0};

    if (!state->folder)
        return NULL;
    if (buffer_printf(&path, "%s/%s", state->folder, name) != STATUS_OK)
        buffer_free(&path);
    return (char *)path.data;
}

/* mkdir -p with 0700 for what is new. */
static enum status state_make_folder(const char *folder, struct fault *fault)
{
    char path[4096];
    size_t n = strlen(folder);

    if (n == 0 || n >= sizeof path)
        return fault_set(fault, STATUS_INVALID, "the state folder's name is empty or too long");
    memcpy(path, folder, n + 1);
    for (char *c = path + 1;; c++) {
        char kept = *c;

        if (kept != '/' && kept != 0)
            continue;
        *c = 0;
        if (mkdir(path, 0700) != 0 && errno != EEXIST)
            return fault_set(fault, status_from_errno(errno),
                             "the state folder %s cannot be made: %s", path, strerror(errno));
        *c = kept;
        if (kept == 0)
            return STATUS_OK;
    }
}

static enum status state_lock(struct node_state *state, struct fault *fault)
{
    char *path = node_state_path(state, "lock");
    char pid[32] = {0};
    enum status status = STATUS_OK;

    if (!path)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory for a path");
    state->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (state->lock_fd < 0) {
        status = fault_set(fault, status_from_errno(errno), "%s: %s", path, strerror(errno));
    } else if (flock(state->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        if (read(state->lock_fd, pid, sizeof pid - 1) < 0)
            pid[0] = 0;
        status = fault_set(fault, STATUS_IN_USE,
                           "another skein (process %ld) uses the state folder %s; stop it, or give "
                           "this one its own with --state DIR",
                           strtol(pid, NULL, 10), state->folder);
    } else {
        int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());

        if (ftruncate(state->lock_fd, 0) != 0 ||
            pwrite(state->lock_fd, pid, (size_t)n, 0) != (ssize_t)n)
            status = fault_set(fault, STATUS_IO, "%s: %s", path, strerror(errno));
    }
    mem_free(path);
    return status;
}

static enum status state_load_key(struct node_state *state, const char *key_path, const char *join,
                                  struct fault *fault)
{
    char *own = key_path ? NULL : node_state_path(state, "cluster.key");
    const char *path = key_path ? key_path : own;
    uint8_t joined[PROTO_KEY_BYTES];
    enum status status = STATUS_OK;

    if (join)
        status = proto_cluster_key_from_text(join, joined, fault);
    if (status == STATUS_OK && join && path)
        status = proto_cluster_key_store(path, joined, fault);
    if (status != STATUS_OK)
        goto out;
    if (path)
        status = proto_cluster_key_load(path, state->cluster_key, &state->key_made, fault);
    else if (join)
        memcpy(state->cluster_key, joined, sizeof joined);
    else
        randombytes_buf(state->cluster_key, sizeof state->cluster_key);
out:
    proto_wipe(joined, sizeof joined);
    mem_free(own);
    return status;
}

enum status node_state_open(const char *folder, const char *key_path, const char *join,
                            struct node_state *out, struct fault *fault)
{
    enum status status = STATUS_OK;
    char *path;

    *out = (struct node_state){.lock_fd = -1};
    if (!folder) {
        randombytes_buf(out->identity.secret_key, sizeof out->identity.secret_key);
        (void)crypto_scalarmult_base(out->identity.public_key, out->identity.secret_key);
        return state_load_key(out, key_path, join, fault);
    }
    out->folder = mem_text(folder);
    if (!out->folder)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory for a path");
    status = state_make_folder(folder, fault);
    if (status == STATUS_OK)
        status = state_lock(out, fault);
    if (status != STATUS_OK)
        return status;
    path = node_state_path(out, "node.key");
    status = path ? proto_identity_load(path, &out->identity, fault)
                  : fault_set(fault, STATUS_NO_MEMORY, "no memory for a path");
    mem_free(path);
    return status == STATUS_OK ? state_load_key(out, key_path, join, fault) : status;
}

void node_state_close(struct node_state *state)
{
    if (state->lock_fd >= 0)
        (void)close(state->lock_fd);
    mem_free(state->folder);
    proto_wipe(state, sizeof *state);
    state->folder = NULL;
    state->lock_fd = -1;
}
