/* skein up: runs a node until it is told to stop, and tells a person what happens.
 *
 * Standard output carries one line per piece of news; the log (warnings and worse, unless
 * --log-level says otherwise) goes to standard error. */
#include "node/cli/choice.h"
#include "node/cli/serve_uv.h"
#include "node/cli/watch.h"

#include <ctype.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "discovery/discovery.h"

enum { MESH_PORT = 8471 };

struct up {
    const char *name, *state, *cluster_key, *join, *listen, *api, *api_key_file, *log_level;
    uint32_t port;
    bool no_discovery;
    struct option_list interfaces, peers;
    struct node_choice node;
};

#define UP(field) offsetof(struct up, field)
static const struct option options[] = {
    OPTION("name", OPTION_TEXT, UP(name), "NAME", "Name of this node; without it the host's name"),
    OPTION("state", OPTION_TEXT, UP(state), "DIR",
           "Folder for keys and caches; without it $XDG_STATE_HOME/skein"),
    OPTION("cluster-key", OPTION_TEXT, UP(cluster_key), "FILE",
           "Cluster key file; without it cluster.key in the state folder"),
    OPTION("join", OPTION_TEXT, UP(join), "TEXT",
           "Join line of another node's cluster (skein key)"),
    OPTION("port", OPTION_COUNT, UP(port), "PORT",
           "Port for other nodes; 8471 or any free one where it is not given", .max = 65535),
    OPTION("listen", OPTION_TEXT, UP(listen), "ADDRESS", "Listen for nodes on this address only"),
    OPTION("interface", OPTION_LIST, UP(interfaces), "NAME",
           "Find nodes on this interface only; with lo alone, nodes connect on loopback only"),
    OPTION("peer", OPTION_LIST, UP(peers), "HOST[:PORT]", "A node to connect to without discovery"),
    OPTION("no-discovery", OPTION_FLAG, UP(no_discovery), NULL,
           "Neither announce this node nor look for others"),
    NODE_CHOICE_OPTIONS(struct up, node),
    OPTION("api", OPTION_TEXT, UP(api), "ADDRESS:PORT",
           "Where the HTTP API listens; port 0 is any free one", .fallback = "127.0.0.1:8470"),
    OPTION("api-key-file", OPTION_TEXT, UP(api_key_file), "FILE",
           "File with the API's bearer key; needed where --api is not loopback"),
    OPTION("log-level", OPTION_TEXT, UP(log_level), "LEVEL", "error, warn, info or debug",
           .fallback = "warn"),
};

const struct command_spec spec_up = {
    "up",
    "",
    "Run a node: find the others of its cluster and answer prompts.",
    "Nodes with the same cluster key find each other on the local network. To add a second box, "
    "run "
    "`skein key` on the first and `skein up --join TEXT` on the second. Ctrl-C stops the node.",
    options,
    COUNT_OF(options),
    0,
    0};

struct show {
    const struct serve_options *serve;
    struct watch *watch;
    struct member_view *members;
    struct node_notice *notices;
    struct instance_view *instances;
};

static void say(void *owner, const char *line)
{
    (void)owner;
    cli_put_safe(stdout, line, strlen(line));
    (void)fputc('\n', stdout);
    (void)fflush(stdout);
}

static void on_tick(void *owner, struct node *node)
{
    struct show *show = owner;
    struct watch_views views = {
        .members = show->members, .notices = show->notices, .instances = show->instances};

    views.n_members = node_members(node, show->members, WATCH_MAX_MEMBERS);
    views.n_notices = node_notices(node, show->notices, WATCH_MAX_NOTICES);
    views.n_instances = node_instances(node, show->instances, WATCH_MAX_INSTANCES);
    watch_step(show->watch, &views, say, NULL);
}

static const struct member_view *self_of(struct show *show, struct node *node)
{
    size_t n = node_members(node, show->members, WATCH_MAX_MEMBERS);

    for (size_t i = 0; i < n; i++)
        if (show->members[i].state == MEMBER_SELF)
            return &show->members[i];
    return NULL;
}

static void on_ready(void *owner, struct node *node, uint16_t api_port)
{
    struct show *show = owner;
    const struct member_view *self = self_of(show, node);
    const struct serve_options *serve = show->serve;
    bool six = strchr(serve->api.address, ':') != NULL;
    char line[512], join[PROTO_JOIN_TEXT], id[9], memory[24];
    bool made;

    bytes_to_hex(node_id(node), 4, id);
    (void)snprintf(line, sizeof line, "skein %s: node %s (%s)", SKEIN_VERSION, serve->node.name,
                   id);
    say(NULL, line);
    if (self) {
        const struct node_card *card = &self->card;
        (void)snprintf(line, sizeof line, "engine %s (%s), %u thread%s; memory for models %s",
                       card->engine, card->isa, card->n_threads, card->n_threads == 1 ? "" : "s",
                       bytes_format_size(card->memory_bytes, memory, sizeof memory));
        say(NULL, line);
    }
    node_join_text(node, join, &made);
    /* The key itself goes to a person only, not into a service's log. */
    (void)snprintf(line, sizeof line,
                   made && isatty(STDOUT_FILENO)
                       ? "new cluster; on the next box run: skein up --join %s"
                   : made ? "new cluster; `skein key` shows the line for the next box"
                          : "cluster key is kept; `skein key` shows its join line",
                   join);
    say(NULL, line);
    proto_wipe(join, sizeof join);
    proto_wipe(line, sizeof line);
    if (node_mesh_port(node)) {
        (void)snprintf(line, sizeof line, "nodes connect to port %u", node_mesh_port(node));
        say(NULL, line);
    }
    (void)snprintf(line, sizeof line, "API at http://%s%s%s:%u", six ? "[" : "", serve->api.address,
                   six ? "]" : "", api_port);
    say(NULL, line);
    say(NULL, "ready; Ctrl-C stops the node");
}

/* ---------------------------------------------------------------- options to a node */

struct up_places { /* borrowed by the node's options */
    struct node_choice_places node;
    char state[CONFIG_MAX_PATH];
    struct cli_address api;
    char api_key[256];
    struct discovery_seed seeds[CONFIG_MAX_LIST];
};

static enum status name_apply(const struct up *up, struct node_options *out, struct fault *fault)
{
    if (!up->name) {
        if (gethostname(out->name, sizeof out->name) != 0 || !out->name[0])
            (void)snprintf(out->name, sizeof out->name, "skein");
        out->name[sizeof out->name - 1] = '\0';
        out->name[strcspn(out->name, ".")] = '\0';
        return STATUS_OK;
    }
    if (strlen(up->name) >= sizeof out->name)
        return fault_set(fault, STATUS_INVALID, "--name: at most %zu bytes", sizeof out->name - 1);
    for (const char *c = up->name; *c; c++)
        if (iscntrl((unsigned char)*c))
            return fault_set(fault, STATUS_INVALID, "--name: control characters are not allowed");
    (void)snprintf(out->name, sizeof out->name, "%s", up->name);
    return STATUS_OK;
}

static enum status network_apply(const struct up *up, struct up_places *places, bool port_given,
                                 struct node_options *out, struct fault *fault)
{
    enum status status = STATUS_OK;

    for (size_t i = 0; i < up->peers.n && status == STATUS_OK; i++)
        status = discovery_seed_parse(up->peers.items[i], MESH_PORT, &places->seeds[i], fault);
    if (status != STATUS_OK) {
        (void)fault_prefix(fault, "--peer");
        return status;
    }
    out->mesh_port = port_given ? (uint16_t)up->port : MESH_PORT;
    out->mesh_port_fixed = port_given && up->port != 0;
    out->mesh_address = up->listen;
    out->interfaces = up->interfaces.items;
    out->n_interfaces = up->interfaces.n;
    out->no_discovery = up->no_discovery;
    out->seeds = places->seeds;
    out->n_seeds = up->peers.n;
    return STATUS_OK;
}

static enum status state_apply(const struct up *up, struct up_places *places,
                               struct node_options *out, struct fault *fault)
{
    char path[CONFIG_MAX_PATH];
    struct config_world world;
    enum status status;

    out->cluster_key_path = up->cluster_key;
    out->join = up->join;
    if (up->state) {
        (void)snprintf(places->state, sizeof places->state, "%s", up->state);
    } else {
        cli_world(&world, path);
        status = config_folder(&world, CONFIG_FOLDER_STATE, places->state, fault);
        if (status != STATUS_OK) {
            (void)fault_prefix(fault, "no place for the state folder, give --state DIR");
            return status;
        }
    }
    out->state_folder = places->state;
    return config_folder_make(places->state, fault);
}

static enum status api_apply(const struct up *up, struct up_places *places, struct api_options *out,
                             struct fault *fault)
{
    enum status status = cli_address_parse(up->api, &places->api, fault);

    if (status != STATUS_OK) {
        (void)fault_prefix(fault, "--api");
        return status;
    }
    if (up->api_key_file) {
        status = cli_read_secret(up->api_key_file, places->api_key, sizeof places->api_key, fault);
        if (status != STATUS_OK)
            return status;
        out->key = places->api_key;
    }
    out->address = places->api.host;
    out->port = places->api.port;
    return STATUS_OK;
}

static enum status up_apply(const struct up *up, const struct config *config,
                            struct up_places *places, struct serve_options *out,
                            struct fault *fault)
{
    enum log_level level;
    enum status status;

    if (!log_level_parse(up->log_level, &level))
        return fault_set(fault, STATUS_INVALID,
                         "--log-level: \"%.40s\" is not one of error, warn, info, debug",
                         up->log_level);
    log_level_set(level);
    status = name_apply(up, &out->node, fault);
    if (status == STATUS_OK)
        status = node_choice_apply(&up->node, &places->node, &out->node, fault);
    if (status == STATUS_OK)
        status =
            network_apply(up, places, config_given(&spec_up, config, "port"), &out->node, fault);
    if (status == STATUS_OK)
        status = api_apply(up, places, &out->api, fault);
    if (status == STATUS_OK)
        status = state_apply(up, places, &out->node, fault);
    return status;
}

static enum status show_new(struct show *show, struct fault *fault)
{
    show->members = MEM_NEW_N(struct member_view, WATCH_MAX_MEMBERS);
    show->notices = MEM_NEW_N(struct node_notice, WATCH_MAX_NOTICES);
    show->instances = MEM_NEW_N(struct instance_view, WATCH_MAX_INSTANCES);
    if (!show->members || !show->notices || !show->instances ||
        watch_new(&show->watch) != STATUS_OK)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory to start a node");
    return STATUS_OK;
}

static void show_free(struct show *show)
{
    watch_free(&show->watch);
    mem_free(show->members);
    mem_free(show->notices);
    mem_free(show->instances);
}

int up_command(int argc, char **argv)
{
    struct up_places *places = MEM_NEW(struct up_places);
    struct serve_options options_of = {.signals = true};
    struct show show = {.serve = &options_of};
    struct serve_events events = {on_ready, on_tick, &show};
    struct serve *serve = NULL;
    struct config config;
    struct fault fault = {0};
    enum status status;
    struct up up;
    int exit_code;

    if (!cli_start(&spec_up, argc, argv, &up, sizeof up, &config, &exit_code))
        goto out;
    (void)signal(SIGPIPE, SIG_IGN);
    status = places ? up_apply(&up, &config, places, &options_of, &fault)
                    : fault_set(&fault, STATUS_NO_MEMORY, "no memory to start a node");
    if (status == STATUS_OK)
        status = show_new(&show, &fault);
    if (status == STATUS_OK)
        status = serve_new(&serve, &fault);
    if (status == STATUS_OK)
        status = serve_run(serve, &options_of, &events, &fault);
    serve_free(&serve);
    show_free(&show);
    exit_code = status == STATUS_OK ? cli_finish(0) : cli_fail(&fault);
out:
    if (places)
        proto_wipe(places->api_key, sizeof places->api_key);
    mem_free(places);
    config_free(&config);
    return exit_code;
}
