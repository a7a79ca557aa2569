/* Which processors a pool's workers may use: all, less those that only cost.
 *
 * Two threads of one core share its arithmetic, and the small cores of a mixed processor set the
 * pace of a step that everyone waits for. Where fewer threads are wanted than there are processors,
 * the best are taken: one thread of each core first, fast cores before slow ones. They are given to
 * the workers as a set. Nothing is nailed to a single processor: the system would not move a thread
 * away from a core that another program needs, and on a shared box that costs more than it saves.
 * What the process may not use (its own affinity mask) is never taken.
 *
 * Whatever cannot be read counts as equal. Source: Linux's documentation of sysfs (cpu topology,
 * cpu_capacity, cpufreq). */
#include "engine/kernels/cores.h"

#include <stdio.h>
#include <stdlib.h>

enum { MOST = CPU_SETSIZE };

static bool better_before(const struct core *a, const struct core *b)
{
    if (a->sibling != b->sibling)
        return a->sibling < b->sibling;
    return a->capacity != b->capacity ? a->capacity > b->capacity : a->cpu < b->cpu;
}

static int by_worth(const void *a, const void *b)
{
    return better_before(a, b) ? -1 : better_before(b, a);
}

bool cores_pick(struct core *cores, size_t n_cores, uint32_t n_threads, cpu_set_t *out)
{
    if (n_threads >= n_cores)
        return false;
    qsort(cores, n_cores, sizeof *cores, by_worth);
    CPU_ZERO(out);
    for (uint32_t i = 0; i < n_threads; i++)
        CPU_SET(cores[i].cpu, out);
    return true;
}

static uint64_t number_of(uint32_t cpu, const char *name)
{
    char path[128];
    unsigned long long value = 0;

    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/%s", cpu, name);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%llu", &value) != 1)
        value = 0;
    fclose(file);
    return value;
}

/* Processors of the same core and package that came before. */
static uint32_t siblings_before(const uint64_t *ids, size_t n)
{
    uint32_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += ids[i] == ids[n];
    return count;
}

bool cores_choose(uint32_t n_threads, cpu_set_t *out)
{
    cpu_set_t allowed;
    struct core cores[MOST];
    uint64_t ids[MOST];
    size_t n = 0;

    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 ||
        n_threads >= (uint32_t)CPU_COUNT(&allowed))
        return false;
    for (uint32_t cpu = 0; cpu < MOST; cpu++) {
        if (!CPU_ISSET(cpu, &allowed))
            continue;
        uint64_t capacity = number_of(cpu, "cpu_capacity");
        if (capacity == 0)
            capacity = number_of(cpu, "cpufreq/cpuinfo_max_freq");
        ids[n] = number_of(cpu, "topology/physical_package_id") << 32 |
                 number_of(cpu, "topology/core_id");
        cores[n] = (struct core){cpu, siblings_before(ids, n), capacity};
        n++;
    }
    return cores_pick(cores, n, n_threads, out);
}
