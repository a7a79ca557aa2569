#ifndef SKEIN_TESTS_UNIT_NODE_FAKE_NODE_H
#define SKEIN_TESTS_UNIT_NODE_FAKE_NODE_H

/* The node's public functions over a script, so that the HTTP server is tested by itself. What a
 * request does is said by its model's name:
 *   ok        starts, three pieces of text, stop
 *   silent    starts, says nothing until it is cancelled
 *   flood     starts and writes without end until it is cancelled
 *   late      starts, one piece of text, then a node is lost
 *   long      the prompt is longer than the context
 *   busy      the queue is full
 *   anything else is not found */
#include <stdatomic.h>

#include <uv.h>

#include "node/api/api.h"

extern atomic_int fake_n_submitted, fake_n_cancelled, fake_n_open;
extern uv_loop_t fake_loop;
void fake_body(char *out, size_t size); /* of the last request */

#endif
