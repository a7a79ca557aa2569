/* Finding the node, and naming the model to it. A file's path means the same to a node only on the
 * same box, so paths are given to nodes on loopback only. */
#include "node/cli/session.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum status session_open(struct session *session, const struct client_options *options,
                         enum session_node wanted, const struct node_choice *choice,
                         struct fault *fault)
{
    enum status status = caller_init(&session->caller, options, fault);
    json_t *self = NULL;

    if (status != STATUS_OK)
        return status;
    if (wanted != SESSION_NODE_INSIDE) {
        status = caller_json(&session->caller, "/skein/node", NULL, &self, fault);
        json_decref(self);
        if (status != STATUS_UNREACHABLE || wanted == SESSION_NODE_NAMED)
            return status;
    }
    status = local_start(choice, &session->local, fault);
    if (status != STATUS_OK)
        return status;
    if (wanted != SESSION_NODE_INSIDE)
        (void)fputs("no node is running here, so this box answers alone\n", stderr);
    (void)snprintf(session->caller.address.host, sizeof session->caller.address.host, "127.0.0.1");
    session->caller.address.port = local_port(session->local);
    session->caller.key[0] = '\0';
    return STATUS_OK;
}

void session_close(struct session *session)
{
    local_stop(&session->local);
    explicit_bzero(session->caller.key, sizeof session->caller.key);
}

static bool looks_like_a_path(const char *model)
{
    size_t n = strlen(model);

    if (strchr(model, '/') || model_is_folder(model))
        return true;
    return n > 5 && strcmp(model + n - 5, ".gguf") == 0 && access(model, F_OK) == 0;
}

/* The path for a node, whose working folder is another. Links are followed, but not those of a
 * split model's part: its neighbours stand beside the link. */
static bool path_resolve(const char *model, char out[static PATH_MAX])
{
    uint32_t number;
    char folder[PATH_MAX];
    const char *slash = strrchr(model, '/');
    int n;

    if (model_part_count(model, &number) < 2)
        return realpath(model, out) != NULL;
    n = snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - model + 1) : 1,
                 slash ? model : ".");
    if (access(model, F_OK) != 0 || n >= PATH_MAX || !realpath(folder, out))
        return false;
    (void)snprintf(folder, sizeof folder, "%s", out);
    n = snprintf(out, PATH_MAX, "%s/%s", folder, slash ? slash + 1 : model);
    return n < PATH_MAX;
}

enum status session_model(const struct session *session, const char *model, char *out, size_t size,
                          struct fault *fault)
{
    json_t *body, *answer = NULL;
    char path[PATH_MAX];
    enum status status;

    if (!looks_like_a_path(model)) {
        if (strlen(model) >= size)
            return fault_set(fault, STATUS_INVALID, "the model's name is longer than %zu bytes",
                             size - 1);
        memcpy(out, model, strlen(model) + 1);
        return STATUS_OK;
    }
    if (!path_resolve(model, path))
        return fault_set(fault, STATUS_NOT_FOUND, "there is no file %s", model);
    if (!cli_address_is_loopback(session->caller.address.host))
        return fault_set(fault, STATUS_PERMISSION,
                         "a file can be named only to a node on this box; put %s into the other "
                         "node's model folder and name the model",
                         model);
    body = json_pack("{s:o}", "path", json_string(path));
    status = body ? caller_json(&session->caller, "/skein/models", body, &answer, fault)
                  : fault_set(fault, STATUS_FORMAT, "the path %s is not UTF-8", model);
    if (status == STATUS_OK) {
        const char *hash = json_string_value(json_object_get(answer, "hash"));
        if (hash && strlen(hash) < size)
            memcpy(out, hash, strlen(hash) + 1);
        else
            status = fault_set(fault, STATUS_FORMAT, "the node did not name the model's hash");
    }
    json_decref(body);
    json_decref(answer);
    return status;
}
