/* Checked state machines.
 *
 * A diagram above a table, and a table that is enforced: whatever path leads to a transition that
 * nobody drew stops the program with both names instead of going on in a state of no meaning. */
#include "proto/base/sm.h"

#include <stdio.h>
#include <stdlib.h>

void sm_move(const struct sm_table *table, unsigned *state, unsigned next)
{
    if (*state >= table->n_states || next >= table->n_states ||
        !(table->allowed[*state] & SM_TO(next))) {
        (void)fprintf(stderr, "skein bug: %s moves from %s to %s\n", table->name,
                      *state < table->n_states ? table->states[*state] : "?",
                      next < table->n_states ? table->states[next] : "?");
        abort();
    }
    *state = next;
}
