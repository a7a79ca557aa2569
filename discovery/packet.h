#ifndef SKEIN_DISCOVERY_PACKET_H
#define SKEIN_DISCOVERY_PACKET_H

/* Checks mDNS packets before libmdnsd's parser sees them. Pure. */
#include "discovery/discovery.h"

enum {
    PACKET_MAX_BYTES = 9000, /* RFC 6762 section 17 */
    PACKET_MAX_RECORDS = 256,
    PACKET_HEADER_BYTES = 12
};

/* OK only for a packet in which every name, pointer, count and length is sound and which fits what
 * libmdnsd's parser assumes. FORMAT, TRUNCATED or LIMIT otherwise. Bytes behind the last record are
 * allowed, and ignored. */
enum status packet_check(const uint8_t *data, size_t size_bytes) MUST_USE;
/* Sets the cache-flush bit (RFC 6762 section 10.2) of the answers that only one node can give: SRV,
 * TXT, A, AAAA. The packet must have passed packet_check. */
void packet_mark_unique(uint8_t *data, size_t size_bytes);

#endif
