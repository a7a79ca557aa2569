/* Loading a shard: how far it is, what is left for the first pass, and weights that stay in their
 * file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <malloc.h>
#include <limits.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "engine/engine.h"
#include "engine/file/map.h"
#include "tests/unit/engine/shard_rig.h"

/* A sanitizer has memory of its own for all that is touched, which would be counted too. */
#if defined __SANITIZE_THREAD__ || defined __SANITIZE_ADDRESS__
enum { MEMORY_IS_OURS = false };
#else
enum { MEMORY_IS_OURS = true };
#endif

static long faults_so_far(void)
{
    struct rusage usage;

    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_minflt + usage.ru_majflt;
}

static long faults_of_first_pass(const struct shard_spec *spec)
{
    struct shard *shard;
    long faults;

    (void)malloc_trim(0);
    shard = opened(*spec);
    faults = faults_so_far();

    assert_int_equal(forward(shard, 0, 0, 64), STATUS_OK);
    assert_int_equal(shard_logits(shard, hidden, 64, logits), STATUS_OK);
    faults = faults_so_far() - faults;
    shard_free(&shard);
    return faults;
}

/* Of the program itself a page may still be touched for the first time, so a pass goes before; of
 * OpenBLAS a buffer, of which each thread takes any that is free, so it has one thread. What a
 * shard before had is given back to the system. A thread that was not let run during the load finds
 * a few pages of its stack. */
enum { STACK_FAULTS = 4 };

static void test_first_pass_takes_no_fault(void **state)
{
    static const enum engine_kind engines[] = {ENGINE_NATIVE, ENGINE_OPENBLAS};

    (void)state;
    memset(hidden, 0, 65 * 256 * sizeof(float));
    memset(logits, 0, 64 * 2048 * sizeof(float));
    for (size_t i = 0; i < COUNT_OF(engines); i++) {
        struct shard_spec spec = whole();

        spec.engine = engines[i];
        spec.n_threads = engines[i] == ENGINE_NATIVE ? 2 : 1;
        (void)faults_of_first_pass(&spec);
        assert_in_range(faults_of_first_pass(&spec), 0, MEMORY_IS_OURS ? STACK_FAULTS : LONG_MAX);
    }
}

/* Memory of this process that no file backs. */
static uint64_t private_bytes(void)
{
    FILE *file = fopen("/proc/self/status", "re");
    unsigned long long kib = 0;
    char line[128];

    assert_non_null(file);
    while (fgets(line, sizeof line, file) && sscanf(line, "RssAnon: %llu", &kib) != 1)
        continue;
    fclose(file);
    return kib * 1024;
}

/* Logits of the first 64 tokens; the private memory that the shard took, the pass included. */
static uint64_t run_measured(const struct shard_spec *spec)
{
    struct shard *shard;
    uint64_t before, took;

    (void)malloc_trim(0);
    before = private_bytes();
    shard = opened(*spec);
    assert_int_equal(forward(shard, 0, 0, 64), STATUS_OK);
    assert_int_equal(shard_logits(shard, hidden, 64, logits), STATUS_OK);
    took = private_bytes() - before;
    shard_free(&shard);
    return took;
}

static void test_mapped_weights(void **state)
{
    static const enum engine_kind engines[] = {ENGINE_NATIVE, ENGINE_OPENBLAS};
    size_t n_bytes = 64 * 2048 * sizeof(float);
    float *expected = malloc(n_bytes);

    (void)state;
    for (size_t i = 0; i < COUNT_OF(engines); i++) {
        struct shard_spec spec = whole();
        struct shard_need copied;
        struct shard_need mapped;
        uint64_t took;

        spec.engine = engines[i];
        spec.n_threads = 2;
        shard_need(model, &spec, &copied);
        took = run_measured(&spec);
        if (engines[i] == ENGINE_NATIVE)
            assert_true(took > copied.weight_bytes);
        memcpy(expected, logits, n_bytes);
        spec.form.mapped = true;
        shard_need(model, &spec, &mapped);
        assert_int_equal(mapped.weight_bytes + mapped.mapped_bytes, copied.weight_bytes);
        assert_true(mapped.weight_bytes < copied.weight_bytes / 50);
        assert_int_equal(mapped.kv_bytes, copied.kv_bytes);
        took = run_measured(&spec);
        assert_true(!MEMORY_IS_OURS ||
                    took < mapped.weight_bytes + mapped.kv_bytes + mapped.scratch_bytes);
        assert_memory_equal(logits, expected, n_bytes);
    }
    free(expected);
}

/* What the planner counts is what the shard takes, whichever layers it has. */
static void test_mapped_costs(void **state)
{
    const struct model_info *info = model_info(model);
    struct model_form form = {.mapped = true};
    struct shard_spec spec = whole();
    struct model_costs costs;
    struct shard_need need;

    (void)state;
    spec.form = form;
    spec.layer_begin = 2;
    spec.layer_end = 4;
    spec.embed = spec.head = false;
    shard_need(model, &spec, &need);
    assert_int_equal(model_costs(model, &form, &costs), STATUS_OK);
    assert_int_equal(need.weight_bytes, costs.layer_bytes[2] + costs.layer_bytes[3]);
    assert_int_equal(need.mapped_bytes + need.weight_bytes,
                     info->layer_bytes[2] + info->layer_bytes[3]);
    for (uint32_t il = 0; il < info->n_layers; il++)
        assert_int_equal(costs.layer_active_bytes[il], info->layer_active_bytes[il]);
    assert_int_equal(costs.head_active_bytes, info->head_active_bytes);
    model_costs_free(&costs);
}

/* What is made from the file is no part of it: it has its copy, and its price. */
static void test_mapped_and_quantized(void **state)
{
    struct shard_spec spec = whole();
    struct shard_need copied;
    struct shard_need mapped;
    struct shard *shard;

    (void)state;
    if (model_form_parse(NULL, "q4_0", &spec.form, NULL))
        fail();
    shard_need(model, &spec, &copied);
    spec.form.mapped = true;
    shard_need(model, &spec, &mapped);
    assert_int_equal(mapped.weight_bytes + mapped.mapped_bytes, copied.weight_bytes);
    assert_true(mapped.weight_bytes > copied.weight_bytes / 2);
    shard = opened(spec);
    assert_int_equal(forward(shard, 0, 0, 4), STATUS_OK);
    shard_free(&shard);
}

static void test_mapped_weights_are_not_locked(void **state)
{
    struct shard_spec spec = whole();
    struct shard *shard = NULL;
    struct fault fault = {0};

    (void)state;
    spec.form.mapped = spec.lock = true;
    assert_int_equal(shard_open(model, &spec, &shard, &fault), STATUS_INVALID);
    assert_null(shard);
    assert_non_null(strstr(fault.text, "--mapped"));
}

/* Pages of a mapping that the page cache has. */
static size_t cached_pages(const struct file_map *map)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = (map->size_bytes + page - 1) / page, sum = 0;
    unsigned char *in = malloc(n);

    assert_int_equal(mincore((void *)(uintptr_t)map->data, map->size_bytes, in), 0);
    for (size_t i = 0; i < n; i++)
        sum += in[i] & 1;
    free(in);
    return sum;
}

/* Where the folder is no disk's, the file has no other place than the cache. */
static void test_released_pages_leave_the_cache(void **state)
{
    enum { N_BYTES = 1 << 20 };
    char path[] = "test_load_XXXXXX";
    int fd = mkstemp(path);
    char *bytes = calloc(1, N_BYTES);
    struct file_map map = {0};
    struct statfs fs;
    size_t sum = 0, before;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, N_BYTES), N_BYTES);
    assert_int_equal(fsync(fd), 0);
    assert_int_equal(fstatfs(fd, &fs), 0);
    close(fd);
    free(bytes);
    assert_int_equal(file_map_open(path, &map, NULL), STATUS_OK);
    unlink(path);
    for (size_t i = 0; i < N_BYTES; i++)
        sum += map.data[i];
    before = cached_pages(&map);
    file_map_forget(&map, 0, N_BYTES);
    assert_int_equal(sum, 0);
    assert_int_equal(cached_pages(&map), before);
    file_map_release(&map, 1, N_BYTES); /* past the end: ignored */
    assert_int_equal(cached_pages(&map), before);
    file_map_release(&map, 0, N_BYTES);
    if (fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC)
        assert_true(cached_pages(&map) <= before / 4);
    assert_int_equal(map.data[N_BYTES - 1], 0);
    file_map_close(&map);
}

struct told {
    uint64_t done, total;
    unsigned n;
};

static void on_load(void *owner, uint64_t done, uint64_t total)
{
    struct told *told = owner;

    assert_true(done >= told->done && done <= total);
    assert_true(told->n == 0 || total == told->total);
    *told = (struct told){done, total, told->n + 1};
}

static void test_load_says_how_far_it_is(void **state)
{
    struct told told = {0};
    struct shard_spec spec = whole();
    struct shard_need need;
    struct shard *shard;

    (void)state;
    spec.layer_begin = 2;
    spec.layer_end = 7;
    spec.head = false;
    spec.on_load = on_load;
    spec.on_load_owner = &told;
    shard_need(model, &spec, &need);
    shard = opened(spec);
    assert_true(told.n > 5);
    assert_true(told.done == told.total && told.total == need.weight_bytes);
    shard_free(&shard);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load_says_how_far_it_is),
        cmocka_unit_test(test_first_pass_takes_no_fault),
        cmocka_unit_test(test_released_pages_leave_the_cache),
        cmocka_unit_test(test_mapped_weights),
        cmocka_unit_test(test_mapped_costs),
        cmocka_unit_test(test_mapped_and_quantized),
        cmocka_unit_test(test_mapped_weights_are_not_locked),
    };

    return cmocka_run_group_tests(tests, rig_open, rig_close);
}
