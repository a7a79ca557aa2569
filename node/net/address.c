/* Numeric addresses: text to sockaddr and back.
 *
 * Everything that is dialled or shown goes through here, so that one host has one spelling: IPv4
 * that arrives inside IPv6 (a dual-stack socket's view) is turned back into IPv4, and a scope is
 * shown as the interface's index, which survives a rename. What fails: anything that is not a
 * numeric address with an optional port of 1 to 65535; the sentence quotes the text. */
#include "node/net/address.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

enum { HOST_BYTES = 64 }; /* INET6_ADDRSTRLEN, '%', IF_NAMESIZE */

static enum status address_fail(struct fault *fault, const char *text, const char *why)
{
    return fault_set(fault, STATUS_INVALID, "\"%.80s\" is not an address: %s", text, why);
}

static bool parse_number(const char *text, uint32_t max, uint32_t *out)
{
    uint32_t value = 0;

    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || value > max / 10)
            return false;
        value = value * 10 + (uint32_t)(*text - '0');
    }
    *out = value;
    return value <= max;
}

/* Splits into host without brackets and the port's text, NULL where there is none. */
static bool split(const char *text, char host[static HOST_BYTES], const char **port)
{
    const char *colon = strchr(text, ':'), *end;
    size_t n;

    *port = NULL;
    if (*text == '[') {
        text++;
        end = strchr(text, ']');
        if (!end || (end[1] && end[1] != ':'))
            return false;
        *port = end[1] ? end + 2 : NULL;
    } else if (colon && !strchr(colon + 1, ':')) {
        end = colon;
        *port = colon + 1;
    } else {
        end = text + strlen(text);
    }
    n = (size_t)(end - text);
    if (n == 0 || n >= HOST_BYTES)
        return false;
    memcpy(host, text, n);
    host[n] = 0;
    return true;
}

static bool parse_scope(const char *scope, uint32_t *out)
{
    *out = 0;
    if (parse_number(scope, INT32_MAX, out))
        return *out != 0;
    *out = if_nametoindex(scope);
    return *out != 0;
}

/* IPv4 inside IPv6 becomes IPv4. */
static void address_unmap(struct net_address *address)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = address->v6.sin6_port};

    if (!IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr))
        return;
    memcpy(&v4.sin_addr, address->v6.sin6_addr.s6_addr + 12, 4);
    memset(address, 0, sizeof *address);
    address->v4 = v4;
}

enum status net_address_parse(const char *text, uint16_t default_port, struct net_address *out,
                              struct fault *fault)
{
    char host[HOST_BYTES], *percent;
    const char *port_text;
    uint32_t port = default_port, scope = 0;
    struct net_address address = {0};

    if (!split(text, host, &port_text))
        return address_fail(fault, text, "write it as 192.168.1.7:8471 or [fe80::1%eth0]:8471");
    if (port_text && (!parse_number(port_text, UINT16_MAX, &port) || port == 0))
        return address_fail(fault, text, "its port is not a number from 1 to 65535");
    percent = strchr(host, '%');
    if (percent)
        *percent = 0;
    if (!percent && *text != '[' && inet_pton(AF_INET, host, &address.v4.sin_addr) == 1) {
        address.v4.sin_family = AF_INET;
        address.v4.sin_port = htons((uint16_t)port);
    } else if (inet_pton(AF_INET6, host, &address.v6.sin6_addr) == 1) {
        if (percent && !parse_scope(percent + 1, &scope))
            return address_fail(fault, text, "there is no such network interface");
        address.v6.sin6_family = AF_INET6;
        address.v6.sin6_port = htons((uint16_t)port);
        address.v6.sin6_scope_id = scope;
        address_unmap(&address);
    } else {
        return address_fail(fault, text, "its host is not a numeric IPv4 or IPv6 address");
    }
    *out = address;
    return STATUS_OK;
}

enum status net_address_from(const struct sockaddr *sockaddr, struct net_address *out)
{
    memset(out, 0, sizeof *out);
    if (sockaddr->sa_family == AF_INET) {
        memcpy(&out->v4, sockaddr, sizeof out->v4);
    } else if (sockaddr->sa_family == AF_INET6) {
        memcpy(&out->v6, sockaddr, sizeof out->v6);
        out->v6.sin6_flowinfo = 0;
        address_unmap(out);
    } else {
        return STATUS_INVALID;
    }
    return STATUS_OK;
}

void net_address_format(const struct net_address *address, char out[static NET_ADDRESS_TEXT])
{
    char host[INET6_ADDRSTRLEN] = "?", scope[16] = "";

    if (address->any.sa_family == AF_INET) {
        (void)inet_ntop(AF_INET, &address->v4.sin_addr, host, sizeof host);
        (void)snprintf(out, NET_ADDRESS_TEXT, "%s:%u", host, net_address_port(address));
        return;
    }
    (void)inet_ntop(AF_INET6, &address->v6.sin6_addr, host, sizeof host);
    if (address->v6.sin6_scope_id)
        (void)snprintf(scope, sizeof scope, "%%%u", address->v6.sin6_scope_id);
    (void)snprintf(out, NET_ADDRESS_TEXT, "[%.39s%.11s]:%u", host, scope,
                   net_address_port(address));
}

uint16_t net_address_port(const struct net_address *address)
{
    return ntohs(address->any.sa_family == AF_INET ? address->v4.sin_port : address->v6.sin6_port);
}

bool net_address_is_loopback(const struct net_address *address)
{
    if (address->any.sa_family == AF_INET)
        return ntohl(address->v4.sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&address->v6.sin6_addr);
}

bool net_address_is_any(const struct net_address *address)
{
    if (address->any.sa_family == AF_INET)
        return address->v4.sin_addr.s_addr == htonl(INADDR_ANY);
    return IN6_IS_ADDR_UNSPECIFIED(&address->v6.sin6_addr);
}

bool net_address_same_host(const struct net_address *a, const struct net_address *b)
{
    if (a->any.sa_family != b->any.sa_family)
        return false;
    if (a->any.sa_family == AF_INET)
        return a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
    return memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof a->v6.sin6_addr) == 0 &&
           a->v6.sin6_scope_id == b->v6.sin6_scope_id;
}
