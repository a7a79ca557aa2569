/* A node that only discovers, for the tests in network namespaces (discovery_test.py). It announces
 * a card made from its arguments and prints one line per event, flushed at once, with the monotonic
 * clock in milliseconds, which all processes of a box share:
 *
 *   START ms
 *   IF ms name usable|unusable sentence
 *   PEER ms name port memory interface address,address…
 *   FOREIGN ms name version
 *   GONE ms first-four-bytes-of-id
 *   CLOSED ms
 *
 * The node's id is the number given, repeated, so a test knows it: `--id 7` is 07070707. It reads
 * commands from standard input, one a line: `memory N`, `doubt ID`, `quit`; the end of input and
 * SIGTERM are `quit` too. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "discovery/discovery.h"

struct node {
    uv_loop_t loop;
    uv_poll_t input;
    uv_signal_t term;
    struct discovery *discovery;
    struct discovery_card card;
    char line[256];
    size_t n_line;
};

static long long clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void print_addresses(const struct discovery_peer *peer)
{
    for (uint32_t i = 0; i < peer->n_addresses; i++) {
        char text[INET6_ADDRSTRLEN] = "?";
        const struct sockaddr_storage *a = &peer->addresses[i];
        if (a->ss_family == AF_INET)
            inet_ntop(AF_INET, &((const struct sockaddr_in *)a)->sin_addr, text, sizeof text);
        else
            inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)a)->sin6_addr, text, sizeof text);
        printf("%s%s", i ? "," : " ", text);
    }
    printf("\n");
}

static void on_peer(void *owner, const struct discovery_peer *peer)
{
    (void)owner;
    printf("PEER %lld %s %u %llu %s", clock_ms(), peer->card.name, peer->card.port,
           (unsigned long long)peer->card.memory_bytes, peer->interface);
    print_addresses(peer);
}

static void on_foreign(void *owner, const struct discovery_peer *peer)
{
    (void)owner;
    printf("FOREIGN %lld %s %u\n", clock_ms(), peer->card.name, peer->card.protocol_version);
}

static void on_gone(void *owner, const uint8_t node_id[static DISCOVERY_ID_BYTES])
{
    char hex[9];
    (void)owner;
    bytes_to_hex(node_id, 4, hex);
    printf("GONE %lld %s\n", clock_ms(), hex);
}

static void on_interface(void *owner, const char *interface, bool usable, const char *why)
{
    (void)owner;
    printf("IF %lld %s %s %s\n", clock_ms(), interface, usable ? "usable" : "unusable", why);
}

static void on_closed(void *owner)
{
    (void)owner;
    printf("CLOSED %lld\n", clock_ms());
}

static void quit(struct node *node)
{
    if (uv_is_closing((uv_handle_t *)&node->term))
        return;
    discovery_close(node->discovery);
    uv_close((uv_handle_t *)&node->input, NULL);
    uv_close((uv_handle_t *)&node->term, NULL);
}

static void on_term(uv_signal_t *handle, int number)
{
    (void)number;
    quit(handle->data);
}

static void command(struct node *node, const char *line)
{
    unsigned id = 0;
    unsigned long long memory = 0;
    uint8_t node_id[DISCOVERY_ID_BYTES];
    if (sscanf(line, "memory %llu", &memory) == 1) {
        node->card.memory_bytes = memory;
        discovery_update(node->discovery, &node->card);
    } else if (sscanf(line, "doubt %u", &id) == 1) {
        memset(node_id, (int)id, sizeof node_id);
        discovery_doubt(node->discovery, node_id);
    } else if (strcmp(line, "quit") == 0) {
        quit(node);
    }
}

static void on_input(uv_poll_t *poll, int status, int events)
{
    struct node *node = poll->data;
    (void)events;
    char bytes[256];
    ssize_t n = status < 0 ? 0 : read(STDIN_FILENO, bytes, sizeof bytes);
    if (n <= 0)
        quit(node);
    for (ssize_t i = 0; i < n; i++) {
        if (bytes[i] != '\n') {
            if (node->n_line < sizeof node->line - 1)
                node->line[node->n_line++] = bytes[i];
            continue;
        }
        node->line[node->n_line] = '\0';
        node->n_line = 0;
        command(node, node->line);
    }
}

static unsigned number(const char *text)
{
    return (unsigned)strtoul(text, NULL, 10);
}

static void take_option(struct node *node, const char *option, const char *value,
                        const char **interfaces, size_t *n_interfaces)
{
    struct discovery_card *card = &node->card;
    if (strcmp(option, "--name") == 0)
        snprintf(card->name, sizeof card->name, "%s", value);
    else if (strcmp(option, "--id") == 0)
        memset(card->node_id, (int)number(value), sizeof card->node_id);
    else if (strcmp(option, "--cluster") == 0)
        memset(card->fingerprint, (int)number(value), sizeof card->fingerprint);
    else if (strcmp(option, "--version") == 0)
        card->protocol_version = number(value);
    else if (strcmp(option, "--port") == 0)
        card->port = (uint16_t)number(value);
    else if (strcmp(option, "--interface") == 0 && *n_interfaces < DISCOVERY_MAX_INTERFACES)
        interfaces[(*n_interfaces)++] = value;
}

int main(int argc, char **argv)
{
    static struct node node = {
        .card = {.protocol_version = DISCOVERY_PROTOCOL_VERSION, .engine = "native", .port = 7333}};
    const char *interfaces[DISCOVERY_MAX_INTERFACES];
    size_t n_interfaces = 0;
    for (int i = 1; i + 1 < argc; i += 2)
        take_option(&node, argv[i], argv[i + 1], interfaces, &n_interfaces);
    setvbuf(stdout, NULL, _IOLBF, 0);

    uv_loop_init(&node.loop);
    struct discovery_options options = {
        .interfaces = interfaces, .n_interfaces = n_interfaces, .card = node.card};
    struct discovery_events events = {.on_peer = on_peer,
                                      .on_gone = on_gone,
                                      .on_foreign = on_foreign,
                                      .on_interface = on_interface,
                                      .on_closed = on_closed,
                                      .owner = &node};
    struct fault fault = {0};
    printf("START %lld\n", clock_ms());
    if (discovery_start(&node.loop, &options, &events, &node.discovery, &fault) != STATUS_OK) {
        printf("FAULT %s\n", fault.text);
        return status_exit_code(fault.status);
    }
    uv_signal_init(&node.loop, &node.term);
    node.term.data = &node;
    uv_signal_start(&node.term, on_term, SIGTERM);
    uv_poll_init(&node.loop, &node.input, STDIN_FILENO);
    node.input.data = &node;
    uv_poll_start(&node.input, UV_READABLE, on_input);
    uv_run(&node.loop, UV_RUN_DEFAULT);
    return uv_loop_close(&node.loop) == 0 ? 0 : 1;
}
