#ifndef SKEIN_PROTO_BASE_SM_H
#define SKEIN_PROTO_BASE_SM_H

#include <stdint.h>

/* A state machine whose transitions are a table: allowed[s] has the bit 1 << t set for every state
 * t that may follow s. At most 32 states. */
struct sm_table {
    const char *name;
    const char *const *states; /* names, n_states of them */
    const uint32_t *allowed;
    unsigned n_states;
};

#define SM_TO(state) (1u << (state))

/* Moves *state to next; a transition that is not in the table is our bug: it is printed with its
 * names and the process aborts, in every build. */
void sm_move(const struct sm_table *table, unsigned *state, unsigned next);

#endif
