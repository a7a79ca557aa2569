#ifndef SKEIN_DISCOVERY_NAMES_H
#define SKEIN_DISCOVERY_NAMES_H

/* The DNS names of a node, and back. Text form: labels followed by dots, lower case. */
#include "discovery/discovery.h"

#define NAMES_SERVICE     "_skein._tcp.local."
#define NAMES_ENUMERATION "_services._dns-sd._udp.local."

enum { NAMES_LABEL_MAX = 64, NAMES_TEXT_MAX = 256 };

struct names {
    char label[NAMES_LABEL_MAX];   /* box1-0a1b2c3d */
    char instance[NAMES_TEXT_MAX]; /* box1-0a1b2c3d._skein._tcp.local. */
    char host[NAMES_TEXT_MAX];     /* box1-0a1b2c3d.local., the target of our SRV */
};

/* From the card's name (made a host name: a-z, 0-9 and '-') and the first four bytes of its id,
 * which are added unless the name ends with them already. */
void names_make(const struct discovery_card *card, struct names *out);
/* The label of one of our instances; false for every other name, and for labels that names_make
 * cannot have made. */
bool names_label_of(const char *instance, char label[static NAMES_LABEL_MAX]);
void names_instance_of(const char *label, char out[static NAMES_TEXT_MAX]);
/* ASCII only, as DNS compares. */
void names_lower(char *text);

#endif
