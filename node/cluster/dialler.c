/* Diallers: the addresses of one node, or of a --peer, tried in turn.
 *
 * 250 ms apart and at most two at once (as RFC 8305 has it); after the last one it rests: 0.25 s,
 * doubled each round up to 10 s, with jitter so that nodes do not meet in step; at least 10 s where
 * the other end holds another cluster key. Full of addresses, the oldest goes, but never the one at
 * which the node was met: that one comes first, and forged records cannot push it out. */
#include "node/cluster/inner.h"

#include <string.h>

#define BACKOFF_MAX_US   (10 * SECOND_US)
#define REFUSED_RESTS_US (15 * SECOND_US)

bool dialler_add(struct dialler *d, const char *text)
{
    for (uint32_t i = 0; i < d->n_addresses; i++)
        if (strcmp(d->addresses[i].text, text) == 0)
            return false;
    if (d->n_addresses == MAX_ADDRESSES) { /* the oldest goes, but not the one that is proven */
        uint32_t oldest = d->proven;

        memmove(d->addresses + oldest, d->addresses + oldest + 1,
                (MAX_ADDRESSES - 1 - oldest) * sizeof d->addresses[0]);
        d->n_addresses--;
        d->at -= d->at > oldest;
    }
    text_set(d->addresses[d->n_addresses++].text, sizeof d->addresses[0].text, "%s", text);
    return true;
}

/* The node was met there: the address comes first from now on. */
void dialler_prove(struct dialler *d, const char *text)
{
    struct control_address address;
    uint32_t i = 0;

    d->proven = false;
    (void)dialler_add(d, text);
    while (strcmp(d->addresses[i].text, text) != 0)
        i++;
    address = d->addresses[i];
    memmove(d->addresses + 1, d->addresses, i * sizeof d->addresses[0]);
    d->addresses[0] = address;
    d->proven = true;
}

void dialler_reset(struct dialler *d)
{
    d->at = 0;
    d->n_tries = 0;
    d->next_us = 0;
    d->backoff_us = BACKOFF_MIN_US;
    d->refused = d->backed_off = false;
}

uint64_t jittered(struct control *c, uint64_t us)
{
    return us * 3 / 4 + control_random(c) % (us / 2 + 1);
}

void dialler_failed(struct control *c, struct dialler *d)
{
    if (d->at < d->n_addresses) {
        d->next_us = c->now_us;
    } else if (d->n_dials == 0) {
        d->next_us = c->now_us + jittered(c, d->refused ? REFUSED_RESTS_US : d->backoff_us);
        d->backed_off = true;
        d->backoff_us = 2 * d->backoff_us < BACKOFF_MAX_US ? 2 * d->backoff_us : BACKOFF_MAX_US;
        d->at = 0;
        d->refused = false;
    }
}

bool dialler_due(const struct control *c, const struct dialler *d)
{
    return d->n_dials < 2 && d->at < d->n_addresses && c->now_us >= d->next_us;
}

uint64_t dialler_wake(const struct dialler *d)
{
    return d->n_dials < 2 && d->at < d->n_addresses ? d->next_us : NEVER_US;
}
