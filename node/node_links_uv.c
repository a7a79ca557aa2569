/* The node's network side: its listener, its links by number, discovery and seeds. All of it turns
 * callbacks into events for the control plane and holds no opinion of its own.
 *
 * Numbers: control names the links that it dials, the listener's are numbered here, below
 * LINK_OUTBOUND. A dial that fails at once is reported like one that fails later. A seed's host
 * name is looked up until it resolves; from then on control tries its addresses for ever. */
#include "node/node_uv.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- links */

struct link *node_link(const struct node *node, uint32_t id)
{
    for (size_t i = 0; i < node->n_links; i++)
        if (link_number(node->links[i]) == id)
            return node->links[i];
    return NULL;
}

static bool links_add(struct node *node, struct link *link)
{
    if (node->n_links == node->links_capacity) {
        size_t capacity = node->links_capacity ? 2 * node->links_capacity : 16;
        /* An array of pointers, which is what the check takes for a slip.
         * NOLINTNEXTLINE(bugprone-sizeof-expression) */
        struct link **links = mem_resize(node->links, capacity, sizeof(*links));

        if (!links)
            return false;
        node->links = links;
        node->links_capacity = capacity;
    }
    node->links[node->n_links++] = link;
    return true;
}

static void links_remove(struct node *node, const struct link *link)
{
    for (size_t i = 0; i < node->n_links; i++)
        if (node->links[i] == link) {
            node->links[i] = node->links[--node->n_links];
            return;
        }
}

static void links_on_open(void *owner, struct link *link,
                          const uint8_t peer_id[static PROTO_ID_BYTES])
{
    struct node *node = owner;
    struct control_event event;

    if (node->closing) {
        link_close(link);
        return;
    }
    if (!link_is_outbound(link)) {
        node->last_inbound = (node->last_inbound + 1) % LINK_OUTBOUND;
        link_set_id(link, node->last_inbound);
        node->n_open++;
        if (!links_add(node, link)) {
            link_close(link);
            return;
        }
    }
    event.kind = EVENT_LINK_OPEN;
    event.link_open.link = link_number(link);
    memcpy(event.link_open.node_id, peer_id, PROTO_ID_BYTES);
    event.link_open.outbound = link_is_outbound(link);
    (void)snprintf(event.link_open.remote.text, sizeof event.link_open.remote.text, "%s",
                   link_remote(link));
    node_step(node, &event);
}

static void links_on_message(void *owner, struct link *link, struct message *message)
{
    struct node *node = owner;
    struct control_event event;

    if (node->closing) {
        message_free(&message);
        return;
    }
    event.kind = EVENT_MESSAGE;
    event.message.link = link_number(link);
    event.message.message = message;
    node_step(node, &event);
}

static void links_on_closed(void *owner, struct link *link, enum status status,
                            const char *sentence)
{
    struct node *node = owner;
    struct control_event event;
    uint32_t id = link_number(link);
    char text[PROTO_MAX_TEXT];

    if (id == 0) { /* an inbound one that never proved itself */
        if (status == STATUS_AUTH && !node->closing) {
            const char *colon = strrchr(link_remote(link), ':'); /* each try has another port */

            (void)snprintf(text, sizeof text, "refused %.*s: %s",
                           colon ? (int)(colon - link_remote(link)) : NET_ADDRESS_TEXT,
                           link_remote(link), sentence);
            node_notice(node, text);
        }
        return;
    }
    if (status == STATUS_AUTH && link_is_outbound(link) && !node->closing) {
        (void)snprintf(text, sizeof text, "%s refused: %s", link_remote(link), sentence);
        node_notice(node, text);
    }
    links_remove(node, link);
    if (node->discovery && !node->closing && status != STATUS_OK &&
        !sodium_is_zero(link_peer_id(link), PROTO_ID_BYTES))
        discovery_doubt(node->discovery, link_peer_id(link));
    if (!node->closing) {
        event.kind = EVENT_LINK_CLOSED;
        event.link_closed.link = id;
        event.link_closed.status = status;
        (void)snprintf(event.link_closed.text, sizeof event.link_closed.text, "%s", sentence);
        node_step(node, &event);
    }
    node_part_closed(node);
}

static void links_on_heard(void *owner, struct link *link)
{
    struct node *node = owner;
    struct control_event event;

    event.kind = EVENT_HEARD;
    event.heard = link_number(link);
    if (!node->closing)
        node_step(node, &event);
}

static struct link_events links_events(struct node *node)
{
    return (struct link_events){.on_open = links_on_open,
                                .on_message = links_on_message,
                                .on_heard = links_on_heard,
                                .on_closed = links_on_closed,
                                .owner = node};
}

void node_dial(struct node *node, uint32_t id, const char *address)
{
    struct link_events events = links_events(node);
    struct control_event event = {.kind = EVENT_LINK_CLOSED};
    struct link *link = NULL;
    struct fault fault = {0};

    if (link_dial(node->loop, id, address, &node->keys, &events, &link, &fault) == STATUS_OK) {
        node->n_open++;
        if (!links_add(node, link))
            link_close(link);
        return;
    }
    event.link_closed.link = id;
    event.link_closed.status = fault.status;
    (void)snprintf(event.link_closed.text, sizeof event.link_closed.text, "%.*s",
                   PROTO_MAX_TEXT - 1, fault.text);
    if (node_later(node, &event, NULL) != STATUS_OK)
        log_event(LOG_WARN, "link", "dial.failed reason=memory");
}

enum status node_listen(struct node *node, const struct node_options *options, struct fault *fault)
{
    bool lo_only = options->n_interfaces == 1 && strcmp(options->interfaces[0], "lo") == 0;
    struct listener_options listen = {
        .address = options->mesh_address ? options->mesh_address
                   : lo_only             ? "127.0.0.1"
                                         : NULL,
        .port = options->mesh_port ? options->mesh_port : NODE_DEFAULT_PORT,
        .fixed = options->mesh_port_fixed,
    };
    struct link_events events = links_events(node);
    enum status status =
        listener_start(node->loop, &listen, &node->keys, &events, &node->listener, fault);

    if (status == STATUS_OK) {
        node->n_open++;
        node->card.mesh_port = listener_port(node->listener);
    }
    return status;
}

static void listener_on_closed(void *owner)
{
    node_part_closed(owner);
}

/* ---------------------------------------------------------------- discovery */

static void discovery_on_peer(void *owner, const struct discovery_peer *peer)
{
    struct node *node = owner;
    struct control_event event = {.kind = EVENT_SEEN};

    if (node->closing)
        return;
    memcpy(event.seen.node_id, peer->card.node_id, PROTO_ID_BYTES);
    for (uint32_t i = 0; i < peer->n_addresses; i++) {
        struct net_address address;
        struct control_address *out = &event.seen.addresses[event.seen.n_addresses];

        if (event.seen.n_addresses < COUNT_OF(event.seen.addresses) &&
            net_address_from((const struct sockaddr *)&peer->addresses[i], &address) == STATUS_OK) {
            net_address_format(&address, out->text);
            event.seen.n_addresses++;
        }
    }
    if (event.seen.n_addresses > 0)
        node_step(node, &event);
}

static void discovery_on_gone(void *owner, const uint8_t id[static DISCOVERY_ID_BYTES])
{
    char hex[9];

    (void)owner;
    bytes_to_hex(id, 4, hex);
    log_event(LOG_DEBUG, "discovery", "gone node=%s", hex);
}

static void discovery_on_foreign(void *owner, const struct discovery_peer *peer)
{
    char text[PROTO_MAX_TEXT];

    (void)snprintf(text, sizeof text,
                   peer->card.protocol_version != DISCOVERY_PROTOCOL_VERSION
                       ? "%s on %s speaks another protocol version; update skein there or here"
                       : "%s on %s belongs to another cluster (its key differs); `skein key` there "
                         "shows the line for `skein key join` here",
                   peer->card.name, peer->interface);
    node_notice(owner, text);
}

static void discovery_on_interface(void *owner, const char *interface, bool usable, const char *why)
{
    char text[PROTO_MAX_TEXT];

    if (usable) {
        log_event(LOG_INFO, "discovery", "interface.up name=%s", interface);
        return;
    }
    (void)snprintf(text, sizeof text, "interface %s is not used for discovery: %s", interface, why);
    node_notice(owner, text);
}

static void discovery_on_closed(void *owner)
{
    struct node *node = owner;

    node->discovery = NULL;
    node_part_closed(node);
}

enum status node_discover(struct node *node, const struct node_options *options,
                          struct fault *fault)
{
    struct discovery_options discover = {
        .interfaces = options->interfaces,
        .n_interfaces = options->n_interfaces,
        .card = {.protocol_version = DISCOVERY_PROTOCOL_VERSION,
                 .memory_bytes = node->card.memory_bytes,
                 .port = node->card.mesh_port},
    };
    struct discovery_events events = {
        .on_peer = discovery_on_peer,
        .on_gone = discovery_on_gone,
        .on_foreign = discovery_on_foreign,
        .on_interface = discovery_on_interface,
        .on_closed = discovery_on_closed,
        .owner = node,
    };
    enum status status;

    memcpy(discover.card.node_id, node->state.identity.public_key, DISCOVERY_ID_BYTES);
    proto_fingerprint(node->state.cluster_key, discover.card.fingerprint);
    (void)snprintf(discover.card.name, sizeof discover.card.name, "%s", node->card.name);
    (void)snprintf(discover.card.engine, sizeof discover.card.engine, "%s", node->card.engine);
    node->announced = discover.card;
    status = discovery_start(node->loop, &discover, &events, &node->discovery, fault);
    if (status == STATUS_OK)
        node->n_open++;
    return status;
}

/* ---------------------------------------------------------------- seeds */

static void seed_look_up(struct node_seed *seed);

static void seed_on_retry(uv_timer_t *timer)
{
    seed_look_up(timer->data);
}

static void seed_again(struct node_seed *seed, const char *why)
{
    char text[PROTO_MAX_TEXT];

    if (!seed->told) {
        (void)snprintf(text, sizeof text, "--peer %s cannot be looked up: %s; trying again",
                       seed->seed.host, why);
        node_notice(seed->node, text);
    }
    seed->told = true;
    if (!seed->node->closing)
        (void)uv_timer_start(&seed->retry, seed_on_retry, NODE_SEED_RETRY_MS, 0);
}

static void seed_on_address(uv_getaddrinfo_t *lookup, int status, struct addrinfo *found)
{
    struct node_seed *seed = lookup->data;
    struct node *node = seed->node;

    seed->looking = false;
    if (node->closing) {
        uv_freeaddrinfo(found);
    } else if (status != 0) {
        seed_again(seed, uv_strerror(status));
    } else {
        for (struct addrinfo *a = found; a; a = a->ai_next) {
            struct control_event event = {.kind = EVENT_SEED};
            struct net_address address;

            if (net_address_from(a->ai_addr, &address) == STATUS_OK) {
                net_address_format(&address, event.seed.text);
                node_step(node, &event);
            }
        }
        uv_freeaddrinfo(found);
    }
    node_part_closed(node);
}

static void seed_look_up(struct node_seed *seed)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    char port[8];
    int error;

    (void)snprintf(port, sizeof port, "%u", seed->seed.port);
    seed->lookup.data = seed;
    error = uv_getaddrinfo(seed->node->loop, &seed->lookup, seed_on_address, seed->seed.host, port,
                           &hints);
    if (error != 0) {
        seed_again(seed, uv_strerror(error));
        return;
    }
    seed->looking = true;
    seed->node->n_open++;
}

enum status node_seed_all(struct node *node, const struct node_options *options)
{
    if (options->n_seeds == 0)
        return STATUS_OK;
    node->seeds = mem_zeroed(options->n_seeds, sizeof(*node->seeds));
    if (!node->seeds)
        return STATUS_NO_MEMORY;
    for (size_t i = 0; i < options->n_seeds; i++) {
        struct node_seed *seed = &node->seeds[node->n_seeds++];

        seed->node = node;
        seed->seed = options->seeds[i];
        (void)uv_timer_init(node->loop, &seed->retry);
        seed->retry.data = seed;
        seed_look_up(seed);
    }
    return STATUS_OK;
}

static void seed_on_closed(uv_handle_t *handle)
{
    node_part_closed(((struct node_seed *)handle->data)->node);
}

/* ---------------------------------------------------------------- end */

void node_close_links(struct node *node)
{
    if (node->discovery)
        discovery_close(node->discovery);
    if (node->listener) {
        listener_close(node->listener, listener_on_closed, node);
        node->listener = NULL;
    }
    for (size_t i = 0; i < node->n_links; i++)
        link_finish(node->links[i], NODE_FLUSH_MS);
    for (size_t i = 0; i < node->n_seeds; i++) {
        struct node_seed *seed = &node->seeds[i];

        if (seed->looking)
            (void)uv_cancel((uv_req_t *)&seed->lookup);
        node->n_open++;
        uv_close((uv_handle_t *)&seed->retry, seed_on_closed);
    }
}
