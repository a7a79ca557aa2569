/* Seeds: what a user writes behind --peer. HOST, HOST:PORT, IPv4, IPv4:PORT, [IPv6], [IPv6]:PORT,
 * and a bare IPv6 address, which cannot carry a port because its own colons could not be told from
 * it. The text is only split and checked here; names are resolved by who connects. Every refusal
 * names the text and what is wrong with it, because it is the first thing that a user with no
 * multicast types. */
#include <arpa/inet.h>
#include <string.h>

#include "discovery/discovery.h"

static enum status refuse(struct fault *fault, const char *text, const char *why)
{
    return fault_set(fault, STATUS_INVALID,
                     "peer '%.200s': %s (wanted: HOST, HOST:PORT, IPv4, [IPv6] or [IPv6]:PORT)",
                     text, why);
}

static bool read_port(const char *text, uint16_t *out)
{
    unsigned port = 0;
    size_t n = strlen(text);
    if (n == 0 || n > 5 || strspn(text, "0123456789") != n)
        return false;
    for (; *text; text++)
        port = port * 10 + (unsigned)(*text - '0');
    *out = (uint16_t)port;
    return port >= 1 && port <= UINT16_MAX;
}

/* An IPv6 address, with the interface of a link-local one behind '%'. */
static bool is_ipv6(const char *host)
{
    char address[INET6_ADDRSTRLEN];
    struct in6_addr parsed;
    size_t n = strcspn(host, "%");
    if (n >= sizeof address)
        return false;
    memcpy(address, host, n);
    address[n] = '\0';
    if (host[n] == '%' && (strlen(host + n + 1) == 0 || strlen(host + n + 1) >= IF_NAMESIZE ||
                           strpbrk(host + n + 1, "%/ \t[]")))
        return false;
    return inet_pton(AF_INET6, address, &parsed) == 1;
}

/* Host names as RFC 1123 has them, with '_' allowed, and no check of numbers that look like an IPv4
 * address except that they must be one. */
static const char *host_problem(const char *host)
{
    size_t n = strlen(host);
    if (n == 0)
        return "the host is missing";
    if (n > 253)
        return "the host name is longer than 253 characters";
    size_t label = 0;
    for (size_t i = 0; i < n; i++) {
        if (host[i] == '.') {
            if (label == 0)
                return "the host name has an empty part";
            label = 0;
            continue;
        }
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", host[i]))
            return "the host name has a character that host names cannot have";
        if (++label > 63)
            return "a part of the host name is longer than 63 characters";
    }
    struct in_addr parsed;
    if (strspn(host, "0123456789.") == n && inet_pton(AF_INET, host, &parsed) != 1)
        return "this is not an IPv4 address";
    return NULL;
}

static enum status parse_bracketed(const char *text, struct discovery_seed *out,
                                   struct fault *fault)
{
    const char *end = strchr(text, ']');
    if (!end)
        return refuse(fault, text, "the closing ']' is missing");
    size_t n = (size_t)(end - text) - 1;
    if (n >= sizeof out->host)
        return refuse(fault, text, "this is not an IPv6 address");
    memcpy(out->host, text + 1, n);
    out->host[n] = '\0';
    if (!is_ipv6(out->host))
        return refuse(fault, text, "what stands in brackets is not an IPv6 address");
    if (end[1] == '\0')
        return STATUS_OK;
    if (end[1] != ':' || !read_port(end + 2, &out->port))
        return refuse(fault, text, "the port must be a number from 1 to 65535");
    return STATUS_OK;
}

enum status discovery_seed_parse(const char *text, uint16_t default_port,
                                 struct discovery_seed *out, struct fault *fault)
{
    struct discovery_seed seed = {.port = default_port};
    if (text[0] == '[') {
        enum status status = parse_bracketed(text, &seed, fault);
        if (status == STATUS_OK)
            *out = seed;
        return status;
    }
    const char *colon = strchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : strlen(text);
    if (colon && strchr(colon + 1, ':')) {
        if (strlen(text) >= sizeof seed.host || !is_ipv6(text))
            return refuse(fault, text, "this is not an IPv6 address");
        n = strlen(text);
        colon = NULL;
        memcpy(seed.host, text, n + 1);
        *out = seed;
        return STATUS_OK;
    }
    if (n >= sizeof seed.host)
        return refuse(fault, text, "the host name is longer than 253 characters");
    memcpy(seed.host, text, n);
    const char *problem = host_problem(seed.host);
    if (problem)
        return refuse(fault, text, problem);
    if (colon && !read_port(colon + 1, &seed.port))
        return refuse(fault, text, "the port must be a number from 1 to 65535");
    *out = seed;
    return STATUS_OK;
}
