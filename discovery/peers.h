#ifndef SKEIN_DISCOVERY_PEERS_H
#define SKEIN_DISCOVERY_PEERS_H

/* The table of nodes that were heard, per interface: what is known of each, until when, what has to
 * be asked again, and what to tell the owner. Pure: no sockets, no clock. */
#include "discovery/names.h"

enum record_kind { RECORD_PTR, RECORD_SRV, RECORD_TXT, RECORD_ADDRESS };

/* A record as it came from the network, already checked for form. The texts live as long as the
 * packet. */
struct record {
    enum record_kind kind;
    uint32_t ttl_s;      /* 0: goodbye */
    const char *name;    /* PTR, SRV, TXT: the instance's label; address: the host's name */
    const char *host;    /* SRV */
    const uint8_t *text; /* TXT */
    size_t text_bytes;
    uint16_t port;      /* SRV */
    sa_family_t family; /* address: AF_INET or AF_INET6 */
    bool flush;         /* this packet has all records of this name and type */
    uint8_t address[16];
};

enum peers_event_kind { PEERS_FOUND, PEERS_FOREIGN, PEERS_GONE };

struct peers_event {
    enum peers_event_kind kind;
    struct discovery_peer peer; /* GONE: only card.node_id */
};

/* What to ask on an interface about one instance. `host` is empty while its SRV is not known. */
struct peers_question {
    char label[NAMES_LABEL_MAX];
    char host[NAMES_TEXT_MAX];
};

/* What is known already, to be told with the next question for all instances (known answers). */
struct peers_known {
    char label[NAMES_LABEL_MAX];
    uint32_t ttl_s; /* what is left of it */
};

/* When to ask an interface for all instances: at 0, 1, 3, 7, 15, 31 s and then every minute,
 * counted from peers_browse_start. */
struct peers_browse {
    uint64_t next_ms;
    uint32_t interval_ms;
};

struct peers;

/* NULL where memory is out. The card gives the own id, cluster and version. */
struct peers *peers_new(const struct discovery_card *own);
void peers_free(struct peers **peers);

/* One packet's records, as heard on an interface. */
void peers_hear(struct peers *peers, unsigned if_index, const char *if_name,
                const struct record *records, size_t n_records, uint64_t now_ms);
/* The interface is gone, and what was heard on it with it. */
void peers_drop_interface(struct peers *peers, unsigned if_index);
/* A link to this node failed: asks for it three times within two seconds, and drops it after three
 * where no answer came (RFC 6762 section 10.4). */
void peers_doubt(struct peers *peers, const uint8_t node_id[static DISCOVERY_ID_BYTES],
                 uint64_t now_ms);
/* Expires. */
void peers_tick(struct peers *peers, uint64_t now_ms);
/* When the next of tick or questions has something to do; UINT64_MAX for never. */
uint64_t peers_next_ms(const struct peers *peers);
/* Questions that are due on this interface; counts them as asked. At most `max`. */
size_t peers_questions(struct peers *peers, unsigned if_index, uint64_t now_ms,
                       struct peers_question *out, size_t max);
size_t peers_known(const struct peers *peers, unsigned if_index, uint64_t now_ms,
                   struct peers_known *out, size_t max);
/* The next thing to tell the owner; false when there is none. Drain it after every other call. */
bool peers_take(struct peers *peers, struct peers_event *out);
/* True once after another node was heard with our own id: two boxes share one identity. */
bool peers_take_twin(struct peers *peers, char label[static NAMES_LABEL_MAX]);

void peers_browse_start(struct peers_browse *browse, uint64_t now_ms);
bool peers_browse_due(struct peers_browse *browse, uint64_t now_ms); /* and counts it as asked */

#endif
