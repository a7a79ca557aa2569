/* Names of a node in DNS. A node's instance label is its host name and the first four bytes of its
 * id, so that several nodes on one box differ and no name has to be probed for (RFC 6762
 * section 8.1: a name that is known to be unique by other means needs no probing). The target of
 * its SRV record is a host name of its own, `label.local`: the box's own name belongs to avahi
 * where that runs.
 *
 * Only a-z, 0-9 and '-' survive in a label, because libmdnsd keeps names as dotted text in which a
 * dot inside a label cannot be told from one between labels. What came from outside and has other
 * characters cannot be one of ours, and is not. */
#include "discovery/names.h"

#include <stdio.h>
#include <string.h>

enum { SUFFIX_ID_BYTES = 4, SUFFIX_CHARS = 1 + 2 * SUFFIX_ID_BYTES };

void names_lower(char *text)
{
    for (; *text; text++) {
        if (*text >= 'A' && *text <= 'Z')
            *text = (char)(*text - 'A' + 'a');
    }
}

static bool is_label_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

/* The part of a host name before its first dot, with one '-' for every run of other characters. */
static void host_part(const char *name, char out[static NAMES_LABEL_MAX])
{
    char copy[NAMES_LABEL_MAX];
    snprintf(copy, sizeof copy, "%.*s", (int)strcspn(name, "."), name);
    names_lower(copy);
    size_t n = 0;
    for (const char *c = copy; *c; c++) {
        char kept = is_label_char(*c) ? *c : '-';
        if (kept == '-' && (n == 0 || out[n - 1] == '-'))
            continue;
        out[n++] = kept;
    }
    while (n > 0 && out[n - 1] == '-')
        n--;
    out[n] = '\0';
    if (n == 0)
        memcpy(out, "node", sizeof "node");
}

void names_make(const struct discovery_card *card, struct names *out)
{
    char hex[2 * SUFFIX_ID_BYTES + 1];
    bytes_to_hex(card->node_id, SUFFIX_ID_BYTES, hex);
    char host[NAMES_LABEL_MAX];
    host_part(card->name, host);
    size_t n = strlen(host);
    if (n > SUFFIX_CHARS && host[n - SUFFIX_CHARS] == '-' &&
        strcmp(host + n - SUFFIX_CHARS + 1, hex) == 0)
        host[n - SUFFIX_CHARS] = '\0';
    snprintf(out->label, sizeof out->label, "%.*s-%s", NAMES_LABEL_MAX - 1 - SUFFIX_CHARS, host,
             hex);
    names_instance_of(out->label, out->instance);
    snprintf(out->host, sizeof out->host, "%s.local.", out->label);
}

bool names_label_of(const char *instance, char label[static NAMES_LABEL_MAX])
{
    size_t n = strcspn(instance, ".");
    if (n == 0 || n >= NAMES_LABEL_MAX || strcmp(instance + n, "." NAMES_SERVICE) != 0)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!is_label_char(instance[i]))
            return false;
    }
    memcpy(label, instance, n);
    label[n] = '\0';
    return true;
}

void names_instance_of(const char *label, char out[static NAMES_TEXT_MAX])
{
    snprintf(out, NAMES_TEXT_MAX, "%.*s.%s", NAMES_LABEL_MAX - 1, label, NAMES_SERVICE);
}
