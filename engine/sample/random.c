/* Randomness of the sampler, and an exponential without libm.
 *
 * A sequence must go on with the very same tokens on another machine, after a restart or in another
 * batch. So there is no generator with a state: the number drawn for a position is a hash of (seed,
 * position, purpose). Philox is the counter-based generator with published test vectors and no
 * known failure in statistical tests; one call a token costs nothing.
 *
 * The probabilities that the number is compared with must agree in every bit as well. libm's exp
 * differs between C libraries and between their CPU-specific variants; the one below is made of
 * IEEE additions and multiplications in a fixed order (the build forbids contraction to FMA), which
 * every machine rounds alike.
 *
 * exp: x = k ln 2 + r with |r| <= ln 2 / 2, ln 2 in two parts (Cody and Waite), a Taylor polynomial
 * of degree 13 for e^r (truncation below 2^-58), the exponent set by bits. */
#include "engine/sample/sample.h"

#include <string.h>

static const double LN2_HIGH = 0x1.62e42fee00000p-1;
static const double LN2_LOW = 0x1.a39ef35793c76p-33;
static const double LOG2_E = 0x1.71547652b82fep+0;

static double double_of_bits(uint64_t bits)
{
    double out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

static uint64_t bits_of_double(double x)
{
    uint64_t out;
    memcpy(&out, &x, sizeof out);
    return out;
}

double sample_exp(double x)
{
    if (x < -708.0) {
        return 0.0;
    }
    static const double inverse_factorial[] = {1.0 / 6227020800.0,
                                               1.0 / 479001600.0,
                                               1.0 / 39916800.0,
                                               1.0 / 3628800.0,
                                               1.0 / 362880.0,
                                               1.0 / 40320.0,
                                               1.0 / 5040.0,
                                               1.0 / 720.0,
                                               1.0 / 120.0,
                                               1.0 / 24.0,
                                               1.0 / 6.0,
                                               0.5,
                                               1.0,
                                               1.0};
    int k = (int)(x * LOG2_E - 0.5);
    double r = (x - (double)k * LN2_HIGH) - (double)k * LN2_LOW;
    double sum = 0.0;
    for (size_t i = 0; i < COUNT_OF(inverse_factorial); i++) {
        sum = sum * r + inverse_factorial[i];
    }
    return sum * double_of_bits((uint64_t)(1023 + k) << 52);
}

/* log: x = 2^k m with m in [sqrt(1/2), sqrt 2), s = (m - 1) / (m + 1), log m = 2 (s + s^3/3 + ...)
 * with |s| < 0.1716; twelve terms leave less than 2^-60. */
double sample_log(double x)
{
    uint64_t bits = bits_of_double(x);
    int k = (int)(bits >> 52) - 1023;
    double m = double_of_bits((bits & 0xfffffffffffffULL) | (1023ULL << 52));
    if (m > 0x1.6a09e667f3bcdp+0) {
        m *= 0.5;
        k++;
    }
    double s = (m - 1.0) / (m + 1.0);
    double square = s * s;
    double sum = 0.0;
    for (int i = 23; i >= 1; i -= 2) {
        sum = sum * square + 1.0 / (double)i;
    }
    return (double)k * LN2_HIGH + (2.0 * s * sum + (double)k * LN2_LOW);
}

void random_philox(const uint32_t counter[static 4], const uint32_t key[static 2],
                   uint32_t out[static 4])
{
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]};
    uint32_t k[2] = {key[0], key[1]};
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xd2511f53u * c[0];
        uint64_t p1 = (uint64_t)0xcd9e8d57u * c[2];
        uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k[0], (uint32_t)p1,
                            (uint32_t)(p0 >> 32) ^ c[3] ^ k[1], (uint32_t)p0};
        memcpy(c, next, sizeof c);
        k[0] += 0x9e3779b9u;
        k[1] += 0xbb67ae85u;
    }
    memcpy(out, c, sizeof c);
}

double random_unit(uint64_t seed, uint64_t position, enum random_purpose purpose)
{
    uint32_t counter[4] = {(uint32_t)position, (uint32_t)(position >> 32), (uint32_t)purpose, 0};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t out[4];
    random_philox(counter, key, out);
    uint64_t bits = ((uint64_t)out[0] << 32 | out[1]) >> 11;
    return (double)bits * 0x1p-53;
}
