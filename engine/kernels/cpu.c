/* The processor's features, read at run time.
 *
 * x86-64 asks cpuid, and xgetbv for what the system saves on a context switch (AVX registers that
 * are not saved must not be used). aarch64 asks the auxiliary vector. SKEIN_ISA forces a lower set,
 * for tests and comparisons; forcing one that is not there is an error and never a fall-back.
 *
 * Source: Intel SDM volume 2 (CPUID), AMD APM volume 3, Linux hwcap documentation. */
#include "engine/kernels/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

static const struct {
    const char *name, *words;
} isas[ISA_COUNT] = {
    [ISA_GENERIC] = {"generic", "generic C"},
    [ISA_AVX2] = {"avx2", "AVX2"},
    [ISA_AVX_VNNI] = {"avx-vnni", "AVX-VNNI"},
    [ISA_AVX512] = {"avx512", "AVX-512"},
    [ISA_AVX512_VNNI] = {"avx512-vnni", "AVX-512 VNNI"},
    [ISA_AVX512_BF16] = {"avx512-bf16", "AVX-512 VNNI and BF16"},
    [ISA_NEON] = {"neon", "NEON"},
    [ISA_NEON_DOT] = {"neon-dotprod", "NEON dotprod"},
    [ISA_NEON_I8MM] = {"neon-i8mm", "NEON i8mm"},
};

#if defined(__x86_64__)
static uint64_t saved_registers(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool bits_set(uint32_t word, uint32_t mask)
{
    return (word & mask) == mask;
}

bool cpu_has(enum isa isa)
{
    if (isa == ISA_GENERIC)
        return true;
    uint32_t a, b, c, d, b7, c7;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !bits_set(c, bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C))
        return false;
    uint64_t saved = saved_registers();
    if ((saved & 0x6) != 0x6 || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d))
        return false;
    bool avx512 = (saved & 0xe6) == 0xe6 &&
                  bits_set(b7, bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ);
    switch (isa) {
    case ISA_AVX2:
        return bits_set(b7, bit_AVX2);
    case ISA_AVX_VNNI: /* leaf 7, subleaf 1: eax bit 4 */
        return bits_set(b7, bit_AVX2) && __get_cpuid_count(7, 1, &a, &b, &c, &d) &&
               bits_set(a, 1u << 4);
    case ISA_AVX512:
        return avx512;
    case ISA_AVX512_VNNI:
        return avx512 && bits_set(c7, bit_AVX512VNNI);
    case ISA_AVX512_BF16: /* leaf 7, subleaf 1: eax bit 5 */
        return avx512 && bits_set(c7, bit_AVX512VNNI) && __get_cpuid_count(7, 1, &a, &b, &c, &d) &&
               bits_set(a, 1u << 5);
    default:
        return false;
    }
}
#elif defined(__aarch64__)
bool cpu_has(enum isa isa)
{
    unsigned long caps = getauxval(AT_HWCAP);
    switch (isa) {
    case ISA_GENERIC:
        return true;
    case ISA_NEON:
        return (caps & HWCAP_ASIMD) != 0;
    case ISA_NEON_DOT:
        return (caps & HWCAP_ASIMD) != 0 && (caps & HWCAP_ASIMDDP) != 0;
    case ISA_NEON_I8MM:
        return (caps & HWCAP_ASIMD) != 0 && (caps & HWCAP_ASIMDDP) != 0 &&
               (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
    default:
        return false;
    }
}
#else
bool cpu_has(enum isa isa)
{
    return isa == ISA_GENERIC;
}
#endif

enum isa cpu_best(void)
{
    for (int i = ISA_COUNT - 1; i > ISA_GENERIC; i--)
        if (cpu_has((enum isa)i))
            return (enum isa)i;
    return ISA_GENERIC;
}

const char *isa_name(enum isa isa)
{
    return isas[isa].name;
}

const char *isa_words(enum isa isa)
{
    return isas[isa].words;
}

enum status isa_choose(enum isa *out, struct fault *fault)
{
    const char *forced = getenv("SKEIN_ISA");
    *out = cpu_best();
    if (forced == NULL || forced[0] == '\0' || strcmp(forced, "auto") == 0)
        return STATUS_OK;
    for (int i = 0; i < ISA_COUNT; i++) {
        if (strcmp(forced, isas[i].name) != 0)
            continue;
        if (!cpu_has((enum isa)i))
            return fault_set(fault, STATUS_UNSUPPORTED,
                             "SKEIN_ISA asks for %s, which this processor lacks (it has %s)",
                             isas[i].name, isas[*out].name);
        *out = (enum isa)i;
        return STATUS_OK;
    }
    return fault_set(fault, STATUS_INVALID,
                     "SKEIN_ISA=%.32s is not one of generic, avx2, avx-vnni, avx512, avx512-vnni, "
                     "avx512-bf16, neon, neon-dotprod, neon-i8mm",
                     forced);
}

/* x86 names the model in /proc/cpuinfo; boards name themselves in the device tree. */
void cpu_name(char *out, size_t size)
{
    snprintf(out, size, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[256];
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        char *colon = strchr(line, ':');
        if (colon == NULL || strncmp(line, "model name", 10) != 0)
            continue;
        snprintf(out, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        fclose(file);
        return;
    }
    if (file != NULL)
        fclose(file);
    file = fopen("/proc/device-tree/model", "re");
    if (file != NULL && fgets(line, sizeof line, file) != NULL)
        snprintf(out, size, "%s", line);
    if (file != NULL)
        fclose(file);
}
