/* The kernel table of generic C, for every processor. Compiled with the flags of that instruction
 * set and reached only through dispatch.c, after cpu.c has found the processor to have it. */
#include <math.h>

#include "engine/kernels/simd_generic.h"

#define KERNELS kernels_generic
#include "engine/kernels/tmpl_table.h"
