/* Models by name: which files the live nodes have, as their cards tell.
 *
 * A name is taken as, in this order: the exact name, the name in any case, "skein-" and the name
 * (so that `tiny` is skein-tiny), the beginning of exactly one name, or eight or more digits that
 * begin exactly one hash. A name that could mean two files means the one that is here, if it is;
 * otherwise it is an error that says so. What fails: NOT_FOUND with the list of what there is. */
#include "node/cluster/inner.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { MIN_HASH_DIGITS = 8 };

enum match { MATCH_EXACT, MATCH_CASE, MATCH_SKEIN, MATCH_PREFIX, MATCH_HASH, MATCH_COUNT };

static bool card_matches(const struct model_card *model, const char *name, enum match match)
{
    char hex[2 * PROTO_HASH_BYTES + 1];
    size_t n = strlen(name);

    switch (match) {
    case MATCH_EXACT:
        return strcmp(model->name, name) == 0;
    case MATCH_CASE:
        return strcasecmp(model->name, name) == 0;
    case MATCH_SKEIN:
        return strncasecmp(model->name, "skein-", 6) == 0 && strcasecmp(model->name + 6, name) == 0;
    case MATCH_PREFIX:
        return strncasecmp(model->name, name, n) == 0;
    case MATCH_HASH:
        bytes_to_hex(model->hash, PROTO_HASH_BYTES, hex);
        return n >= MIN_HASH_DIGITS && strncasecmp(hex, name, n) == 0;
    default:
        return false;
    }
}

/* The cards that count: the own one, then those of the living. NULL after the last. */
static const struct node_card *card_at(const struct control *c, uint32_t *at)
{
    if (*at == 0) {
        (*at)++;
        return &c->card;
    }
    while (*at - 1 < c->n_members) {
        const struct member *m = c->members[(*at)++ - 1];

        if (mesh_is_up(m->link))
            return &m->card;
    }
    return NULL;
}

/* How many different files match; the first found (the own card's first) goes into hash. */
static uint32_t count_matches(struct control *c, const char *name, enum match match, bool here_only,
                              uint8_t *hash, bool *here)
{
    const struct node_card *card;
    uint32_t n = 0, at = 0;

    *here = false;
    while ((card = card_at(c, &at)) && !(here_only && at > 1)) {
        for (uint32_t i = 0; i < card->n_models; i++) {
            if (!card_matches(&card->models[i], name, match) ||
                (n && hash_equal(hash, card->models[i].hash)))
                continue;
            if (n++ == 0) {
                memcpy(hash, card->models[i].hash, PROTO_HASH_BYTES);
                *here = at == 1;
            }
        }
    }
    return n;
}

static bool text_add(char *out, size_t size, size_t *len, const char *lead, const char *text)
{
    int n = snprintf(out + *len, size - *len, "%s%s", lead, text);

    if (n < 0 || (size_t)n >= size - *len) {
        out[*len] = '\0';
        return false;
    }
    *len += (size_t)n;
    return true;
}

/* Whether a card before place `end` has the model: then it is listed already. */
static bool listed_before(struct control *c, uint32_t end,
                          const uint8_t hash[static PROTO_HASH_BYTES])
{
    const struct node_card *card;
    uint32_t at = 0;

    while ((card = card_at(c, &at)) && at < end)
        if (card_has(card, hash))
            return true;
    return false;
}

/* "tiny on a and b, big on c": each model once, as far as it fits. */
static void list_models(struct control *c, char *out, size_t size)
{
    const struct node_card *card, *other;
    uint32_t at = 0;
    size_t len = 0;

    out[0] = '\0';
    while ((card = card_at(c, &at))) {
        for (uint32_t i = 0; i < card->n_models; i++) {
            const struct model_card *model = &card->models[i];
            uint32_t next = at;
            size_t before = len;
            bool fits;

            if (listed_before(c, at, model->hash))
                continue;
            fits = text_add(out, size, &len, len ? ", " : "", model->name) &&
                   text_add(out, size, &len, " on ", card->name);
            while (fits && (other = card_at(c, &next)))
                if (card_has(other, model->hash))
                    fits = text_add(out, size, &len, " and ", other->name);
            if (!fits) {
                out[before] = '\0';
                return;
            }
        }
    }
}

/* A model that somebody has and cannot run, by its name in any case. */
static bool refused_find(struct control *c, const char *name, bool here_only, struct fault *fault)
{
    const struct node_card *card;
    uint32_t at = 0;

    while ((card = card_at(c, &at)) && !(here_only && at > 1))
        for (uint32_t i = 0; i < card->n_refused; i++)
            if (strcasecmp(card->refused[i].name, name) == 0) {
                (void)fault_set(fault, STATUS_UNSUPPORTED, "%s on %s cannot be used: %s",
                                card->refused[i].name, card->name, card->refused[i].why);
                return true;
            }
    return false;
}

enum status model_resolve(struct control *c, const char *name, bool here_only,
                          uint8_t hash[static PROTO_HASH_BYTES], struct fault *fault)
{
    char list[300];

    for (unsigned match = MATCH_EXACT; match < MATCH_COUNT && name[0]; match++) {
        bool here;
        uint32_t n = count_matches(c, name, match, here_only, hash, &here);

        if (n == 1 || (n > 1 && here && match <= MATCH_SKEIN))
            return STATUS_OK;
        if (n > 1)
            return fault_set(fault, STATUS_INVALID,
                             "%u models are meant by '%s'; give the whole name, or the hash that "
                             "`skein ls` shows",
                             n, name);
    }
    if (refused_find(c, name, here_only, fault))
        return STATUS_UNSUPPORTED;
    list_models(c, list, sizeof list);
    if (!list[0])
        return fault_set(fault, STATUS_NOT_FOUND,
                         "no model '%s': none of the nodes has any model file", name);
    return fault_set(fault, STATUS_NOT_FOUND, "no model '%s'; there are: %s", name, list);
}

const char *model_name_of(struct control *c, const uint8_t hash[static PROTO_HASH_BYTES])
{
    const struct node_card *card;
    uint32_t at = 0;

    while ((card = card_at(c, &at)))
        for (uint32_t i = 0; i < card->n_models; i++)
            if (hash_equal(card->models[i].hash, hash))
                return card->models[i].name;
    return "?";
}

enum status control_find_model(struct control *control, const char *name,
                               uint8_t out[static PROTO_HASH_BYTES], struct fault *fault)
{
    return model_resolve(control, name, false, out, fault);
}
