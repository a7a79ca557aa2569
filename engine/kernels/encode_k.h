#ifndef SKEIN_ENGINE_KERNELS_ENCODE_K_H
#define SKEIN_ENGINE_KERNELS_ENCODE_K_H

/* Encoders that encode.c's table names; a block of values each. */
#include <stdint.h>

void encode_q4_k(const float *values, uint8_t *out);
void encode_q5_k(const float *values, uint8_t *out);
void encode_q6_k(const float *values, uint8_t *out);
void encode_iq4_nl(const float *values, uint8_t *out);

#endif
