#ifndef SKEIN_PROTO_BASE_BASE_H
#define SKEIN_PROTO_BASE_BASE_H

/* What every layer stands on: status, faults, log, memory, bounded bytes, state machines. */
#include "proto/base/bytes.h"
#include "proto/base/log.h"
#include "proto/base/mem.h"
#include "proto/base/sm.h"
#include "proto/base/status.h"

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

#endif
