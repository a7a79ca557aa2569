/* skein key: shows the cluster's join line, making the key where there is none; `skein key join
 * TEXT` takes another cluster's. Works while a node runs: it only reads or makes the key's file. */
#include "node/cli/cli.h"

#include <string.h>

#include "proto/proto.h"

struct key_options {
    const char *state, *cluster_key;
};

static const struct option options[] = {
    OPTION("state", OPTION_TEXT, offsetof(struct key_options, state), "DIR",
           "Folder for keys and caches; without it $XDG_STATE_HOME/skein"),
    OPTION("cluster-key", OPTION_TEXT, offsetof(struct key_options, cluster_key), "FILE",
           "Cluster key file; without it cluster.key in the state folder"),
};

const struct command_spec spec_key = {
    "key",
    "[join TEXT]",
    "Show the line that lets another box join, or join another box's cluster.",
    "Whoever has this line can read and run everything in the cluster. A key that is there already "
    "is "
    "never replaced: move its file away first.",
    options,
    COUNT_OF(options),
    0,
    2};

/* The key's file; its folder is made where it is missing. */
static enum status key_path(const struct key_options *key, char out[static CONFIG_MAX_PATH],
                            struct fault *fault)
{
    char path[CONFIG_MAX_PATH], folder[CONFIG_MAX_PATH];
    struct config_world world;
    enum status status = STATUS_OK;

    if (key->cluster_key) {
        (void)snprintf(out, CONFIG_MAX_PATH, "%s", key->cluster_key);
        return STATUS_OK;
    }
    cli_world(&world, path);
    if (key->state)
        (void)snprintf(folder, sizeof folder, "%s", key->state);
    else
        status = config_folder(&world, CONFIG_FOLDER_STATE, folder, fault);
    if (status == STATUS_OK)
        status = config_folder_make(folder, fault);
    if (status == STATUS_OK && strlen(folder) + sizeof "/cluster.key" > CONFIG_MAX_PATH)
        status = fault_set(fault, STATUS_LIMIT, "the state folder's path is too long");
    if (status == STATUS_OK) {
        memcpy(out, folder, strlen(folder));
        memcpy(out + strlen(folder), "/cluster.key", sizeof "/cluster.key");
    }
    return status;
}

static enum status key_run(const struct key_options *key, const struct config *config,
                           struct fault *fault)
{
    uint8_t secret[PROTO_KEY_BYTES] = {0};
    char path[CONFIG_MAX_PATH], text[PROTO_JOIN_TEXT] = "";
    bool made = false;
    enum status status;

    if (config->n_arguments > 0 &&
        (config->n_arguments != 2 || strcmp(config->arguments[0], "join") != 0))
        return fault_set(fault, STATUS_INVALID, "usage: skein key, or skein key join TEXT");
    status = key_path(key, path, fault);
    if (status == STATUS_OK && config->n_arguments == 2) {
        status = proto_cluster_key_from_text(config->arguments[1], secret, fault);
        if (status == STATUS_OK)
            status = proto_cluster_key_store(path, secret, fault);
        if (status == STATUS_OK)
            (void)printf("the key is in %s; start the node with `skein up`\n", path);
    } else if (status == STATUS_OK) {
        status = proto_cluster_key_load(path, secret, &made, fault);
        if (status == STATUS_OK) {
            proto_cluster_key_to_text(secret, text);
            (void)printf("%s\n", text);
        }
        if (status == STATUS_OK && made)
            (void)fprintf(stderr, "a new cluster key was made in %s\n", path);
    }
    proto_wipe(secret, sizeof secret);
    proto_wipe(text, sizeof text);
    return status;
}

int key_command(int argc, char **argv)
{
    struct key_options key;
    struct config config;
    struct fault fault = {0};
    int exit_code;

    if (cli_start(&spec_key, argc, argv, &key, sizeof key, &config, &exit_code))
        exit_code = key_run(&key, &config, &fault) == STATUS_OK ? cli_finish(0) : cli_fail(&fault);
    config_free(&config);
    return exit_code;
}
