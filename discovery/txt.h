#ifndef SKEIN_DISCOVERY_TXT_H
#define SKEIN_DISCOVERY_TXT_H

/* The TXT record of a node (RFC 6763 section 6): id, cl, v, engine, mem, run. Pure. */
#include "discovery/discovery.h"

enum {
    TXT_WRITE_MAX_BYTES = 192, /* what txt_encode can need */
    TXT_READ_MAX_BYTES =
        1300, /* what is looked at; RFC 6763 6.2 wants a record to fit one packet */
    TXT_READ_MAX_STRINGS = 64
};

size_t txt_encode(const struct discovery_card *card, uint8_t out[static TXT_WRITE_MAX_BYTES]);
/* Fills node_id, fingerprint, protocol_version, run, engine and memory_bytes of the card; the rest
 * of it is left alone. Unknown keys are skipped, the first of two equal keys counts, key case does
 * not. FORMAT where id, cl or v is missing or malformed; LIMIT where the record is too large. The
 * others may be missing; malformed, they read as 0, "" and 0. */
enum status txt_decode(const uint8_t *data, size_t size_bytes,
                       struct discovery_card *card) MUST_USE;

#endif
