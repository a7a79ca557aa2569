/* Which engines this box has, and what the box is.
 *
 * native is always there, at worst as generic C; openblas is linked in, and is taken by itself
 * where native would be generic C, which is said once. Either can still be unavailable where
 * SKEIN_ISA forces an instruction set that the processor lacks: then the reason is told, and
 * nothing else is taken instead. Cores and memory are those that this process may use: the affinity
 * mask and the quotas of control groups (version 2, then 1) count, since a container sees the whole
 * machine in /proc.
 *
 * Source: Linux cgroup-v1 and cgroup-v2 documentation, proc(5), sched_getaffinity(2). */
#include <cblas.h>
#include <limits.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/kernels/cpu.h"
#include "engine/kernels/kernels.h"
#include "proto/base/log.h"

static const char *const names[ENGINE_COUNT] = {
    [ENGINE_NATIVE] = "native",
    [ENGINE_OPENBLAS] = "openblas",
};

const char *engine_name(enum engine_kind kind)
{
    return (unsigned)kind < ENGINE_COUNT ? names[kind] : "unknown";
}

/* ---------------------------------------------------------------- the box */

/* The first line of a file; false where there is none. */
static bool line_read(const char *path, char *line, size_t size)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    bool ok = fgets(line, (int)size, file) != NULL;
    fclose(file);
    return ok;
}

static bool number_read(const char *path, unsigned long long *out)
{
    char line[128];
    return line_read(path, line, sizeof line) && sscanf(line, "%llu", out) == 1;
}

/* This process's group under `controller` ("" for version 2), as a path below the mount. */
static bool group_of(const char *controller, char *out, size_t size)
{
    FILE *file = fopen("/proc/self/cgroup", "re");
    char line[PATH_MAX];
    bool found = false;
    while (!found && file != NULL && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *first = strchr(line, ':'), *second = first ? strchr(first + 1, ':') : NULL;
        if (second == NULL)
            continue;
        *second = '\0';
        bool match = controller[0] == '\0' ? first[1] == '\0' : false;
        for (char *save, *word = strtok_r(first + 1, ",", &save); word != NULL && !match;
             word = strtok_r(NULL, ",", &save))
            match = strcmp(word, controller) == 0;
        if (match)
            found = snprintf(out, size, "%s", second + 1) < (int)size;
    }
    if (file != NULL)
        fclose(file);
    return found;
}

/* Goes from the group up to the root, since any level may set a limit. `visit` reads one folder. */
static void each_level(const char *mount, const char *controller,
                       void (*visit)(const char *folder, void *ctx), void *ctx)
{
    char group[PATH_MAX], folder[PATH_MAX + 64];
    if (!group_of(controller, group, sizeof group))
        return;
    for (;;) {
        snprintf(folder, sizeof folder, "%s%s", mount, strcmp(group, "/") == 0 ? "" : group);
        visit(folder, ctx);
        char *slash = strrchr(group, '/');
        if (slash == NULL || group[1] == '\0')
            return;
        slash[slash == group ? 1 : 0] = '\0';
    }
}

static void core_quota(const char *folder, void *ctx)
{
    double *cores = ctx;
    char path[PATH_MAX + 128], line[128];
    double quota = 0, period = 0;
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (line_read(path, line, sizeof line)) {
        if (sscanf(line, "%lf %lf", &quota, &period) != 2)
            return;
    } else {
        unsigned long long q, p;
        snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
        if (!number_read(path, &q) || q > LLONG_MAX)
            return;
        snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
        if (!number_read(path, &p))
            return;
        quota = (double)q;
        period = (double)p;
    }
    if (quota > 0 && period > 0 && quota / period < *cores)
        *cores = quota / period;
}

/* File pages that a group could give back, as MemAvailable counts them for the whole box. */
static unsigned long long cache_of(const char *folder)
{
    char path[PATH_MAX + 128], line[128];
    unsigned long long bytes, sum = 0, below = 0;
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "inactive_file %llu", &bytes) == 1 ||
            sscanf(line, "active_file %llu", &bytes) == 1)
            sum += bytes;
        if (sscanf(line, "total_inactive_file %llu", &bytes) == 1 ||
            sscanf(line, "total_active_file %llu", &bytes) == 1)
            below += bytes; /* version 1 counts the groups below apart */
    }
    if (file != NULL)
        fclose(file);
    return below > sum ? below : sum;
}

struct memory_limit {
    uint64_t limit, left;
};

static void memory_quota(const char *folder, void *ctx)
{
    static const char *const files[2][2] = {{"memory.max", "memory.current"},
                                            {"memory.limit_in_bytes", "memory.usage_in_bytes"}};
    struct memory_limit *m = ctx;
    char path[PATH_MAX + 128];
    for (size_t i = 0; i < 2; i++) {
        unsigned long long limit, used = 0;
        snprintf(path, sizeof path, "%s/%s", folder, files[i][0]);
        if (!number_read(path, &limit))
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, files[i][1]);
        if (!number_read(path, &used))
            used = 0;
        unsigned long long cache = cache_of(folder);
        used = used > cache ? used - cache : 0;
        uint64_t left = limit > used ? limit - used : 0;
        m->limit = limit < m->limit ? limit : m->limit;
        m->left = left < m->left ? left : m->left;
    }
}

static void cores_fill(struct engine_box *box)
{
    cpu_set_t set;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    double cores, most;

    box->n_processors = online > 0 ? (uint32_t)online : 1;
    most = sched_getaffinity(0, sizeof set, &set) == 0 ? (double)CPU_COUNT(&set)
                                                       : (double)box->n_processors;
    if (most < box->n_processors)
        box->n_affinity = (uint32_t)most;
    cores = most;
    each_level("/sys/fs/cgroup", "", core_quota, &cores);
    each_level("/sys/fs/cgroup/cpu", "cpu", core_quota, &cores);
    if (cores < most)
        box->core_quota = cores;
    box->n_cores = cores < 1 ? 1 : (uint32_t)(cores + 0.5);
}

static void memory_fill(struct engine_box *box)
{
    struct memory_limit m = {UINT64_MAX, UINT64_MAX};
    unsigned long long kib;
    char line[128];
    FILE *file = fopen("/proc/meminfo", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "MemTotal: %llu", &kib) == 1)
            m.limit = kib * 1024;
        if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
            m.left = kib * 1024;
    }
    if (file != NULL)
        fclose(file);
    box->memory_installed_bytes = m.limit == UINT64_MAX ? 0 : m.limit;
    each_level("/sys/fs/cgroup", "", memory_quota, &m);
    each_level("/sys/fs/cgroup/memory", "memory", memory_quota, &m);
    box->memory_bytes = m.limit == UINT64_MAX ? 0 : m.limit;
    box->memory_available_bytes = m.left < box->memory_bytes ? m.left : box->memory_bytes;
    if (box->memory_bytes < box->memory_installed_bytes)
        box->memory_limit_bytes = box->memory_bytes;
}

void engine_box(struct engine_box *out)
{
    memset(out, 0, sizeof *out);
    cpu_name(out->cpu, sizeof out->cpu);
    enum isa isa;
    struct fault fault;
    if (isa_choose(&isa, &fault) == STATUS_OK)
        snprintf(out->isa, sizeof out->isa, "%s", isa_name(isa));
    else
        snprintf(out->isa, sizeof out->isa, "none");
    cores_fill(out);
    memory_fill(out);
}

/* ---------------------------------------------------------------- engines */

const char *engine_blas_build(void)
{
    return openblas_get_config();
}

const char *engine_blas_core(void)
{
    return openblas_get_corename();
}

static bool isa_is_forced(void)
{
    const char *forced = getenv("SKEIN_ISA");

    return forced && *forced && strcmp(forced, "auto") != 0;
}

/* Kernels of the other family of processors are no news. */
static bool isa_is_ours(enum isa isa)
{
#if defined(__x86_64__)
    return strncmp(isa_name(isa), "neon", 4) != 0;
#elif defined(__aarch64__)
    return strncmp(isa_name(isa), "avx", 3) != 0;
#else
    return isa == ISA_GENERIC;
#endif
}

size_t engine_isas(struct engine_isa out[static ENGINE_MAX_ISAS])
{
    enum isa used = ISA_COUNT;
    bool is_forced = isa_is_forced();
    size_t n = 0;

    if (isa_choose(&used, NULL) != STATUS_OK)
        used = ISA_COUNT;
    for (int i = 0; i < ISA_COUNT && n < ENGINE_MAX_ISAS; i++) {
        enum isa isa = (enum isa)i;
        struct engine_isa *row = &out[n];

        if (!isa_is_ours(isa))
            continue;
        *row = (struct engine_isa){
            .name = isa_name(isa), .available = cpu_has(isa), .used = isa == used};
        if (!row->available)
            snprintf(row->why, sizeof row->why, "the processor lacks %s", isa_words(isa));
        else if (row->used)
            snprintf(row->why, sizeof row->why, "%s",
                     is_forced ? "SKEIN_ISA forces it" : "the best that the processor has");
        else if (is_forced)
            snprintf(row->why, sizeof row->why, "SKEIN_ISA forces another");
        else
            snprintf(row->why, sizeof row->why, "%s is there, too, and faster", isa_name(used));
        n++;
    }
    return n;
}

/* "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH …" gives "0.3.21". */
static void blas_version(char *out, size_t size)
{
    const char *config = openblas_get_config(), *at = strchr(config, ' ');
    at = at == NULL ? "" : at + 1;
    snprintf(out, size, "%.*s", (int)strcspn(at, " "), at);
}

void engine_detect(struct engine_report out[static ENGINE_COUNT])
{
    enum isa isa;
    struct fault fault = {0};
    bool usable = isa_choose(&isa, &fault) == STATUS_OK;
    struct engine_box box = {0};
    char version[32];
    uint32_t cores;

    cores_fill(&box);
    cores = box.n_cores;
    for (int i = 0; i < ENGINE_COUNT; i++) {
        out[i] = (struct engine_report){
            .kind = (enum engine_kind)i, .name = names[i], .available = usable};
        if (!usable)
            snprintf(out[i].detail, sizeof out[i].detail, "%.*s", (int)sizeof out[i].detail - 1,
                     fault.text);
    }
    if (!usable)
        return;
    snprintf(out[ENGINE_NATIVE].detail, sizeof out[ENGINE_NATIVE].detail, "%s, %u thread%s",
             isa_words(isa), cores, cores == 1 ? "" : "s");
    blas_version(version, sizeof version);
    snprintf(out[ENGINE_OPENBLAS].detail, sizeof out[ENGINE_OPENBLAS].detail,
             "OpenBLAS %s %s, 1 thread per call, %u call%s at once", version,
             openblas_get_corename(), cores, cores == 1 ? "" : "s");
}

/* Plain C is the last resort: where the processor has no instruction set that native's kernels
 * know, OpenBLAS, which knows older ones, is several times faster at prompts. */
static enum engine_kind first_choice(enum isa best, bool isa_is_forced)
{
    return best == ISA_GENERIC && !isa_is_forced ? ENGINE_OPENBLAS : ENGINE_NATIVE;
}

static enum status choose_automatically(const struct engine_report reports[static ENGINE_COUNT],
                                        enum engine_kind *out, struct fault *fault)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    enum engine_kind first = first_choice(cpu_best(), isa_is_forced());

    if (!reports[first].available)
        return fault_set(fault, STATUS_UNSUPPORTED, "no engine is available: %s",
                         reports[first].detail);
    *out = first;
    if (first != ENGINE_NATIVE && !atomic_flag_test_and_set(&told))
        log_event(LOG_WARN, "engine",
                  "this processor has none of the instruction sets that native is made for, so "
                  "openblas is taken; --engine native forces its plain C");
    return STATUS_OK;
}

enum status engine_choose(const char *forced, enum engine_kind *out, struct fault *fault)
{
    struct engine_report reports[ENGINE_COUNT];

    engine_detect(reports);
    if (forced == NULL || forced[0] == '\0' || strcmp(forced, "auto") == 0)
        return choose_automatically(reports, out, fault);
    for (int i = 0; i < ENGINE_COUNT; i++) {
        if (strcmp(forced, reports[i].name) != 0)
            continue;
        if (!reports[i].available)
            return fault_set(fault, STATUS_UNSUPPORTED, "engine %s is not available: %s", forced,
                             reports[i].detail);
        *out = reports[i].kind;
        return STATUS_OK;
    }
    return fault_set(fault, STATUS_NOT_FOUND,
                     "unknown engine \"%.64s\": the engines are native and openblas", forced);
}
