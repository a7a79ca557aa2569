#ifndef SKEIN_NODE_NET_ADDRESS_H
#define SKEIN_NODE_NET_ADDRESS_H

/* Numeric addresses as text and back: "192.168.1.7:8471", "[fe80::1%eth0]:8471". No names are
 * resolved here. */
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/base/base.h"

enum { NET_ADDRESS_TEXT = 64 }; /* fits every formatted address with its NUL */

struct net_address {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    };
};

/* Takes "ip", "ip:port", "[ip6]:port", "[ip6%scope]:port", "ip6"; a scope is an interface's name or
 * index. default_port stands in where the text has no port. IPv4 inside IPv6 (::ffff:1.2.3.4)
 * becomes IPv4. INVALID with a sentence. */
enum status net_address_parse(const char *text, uint16_t default_port, struct net_address *out,
                              struct fault *fault) MUST_USE;
/* From what accept() or getpeername() gave; INVALID for other families. */
enum status net_address_from(const struct sockaddr *sockaddr, struct net_address *out) MUST_USE;
/* "ip:port" or "[ip6%index]:port"; parses back to the same address. */
void net_address_format(const struct net_address *address, char out[static NET_ADDRESS_TEXT]);
uint16_t net_address_port(const struct net_address *address);
bool net_address_is_loopback(const struct net_address *address);
bool net_address_is_any(const struct net_address *address);
/* The same host: ports are not compared. */
bool net_address_same_host(const struct net_address *a, const struct net_address *b);

#endif
