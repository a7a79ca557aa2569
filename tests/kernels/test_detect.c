/* What engines say about themselves, forced choices, and the measurements. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/kernels/cpu.h"

#include "engine/engine.h"

static void the_box_is_described(void **state)
{
    (void)state;
    struct engine_box box;
    engine_box(&box);
    assert_true(box.n_cores >= 1 && box.n_cores <= (uint32_t)sysconf(_SC_NPROCESSORS_CONF));
    assert_true(box.memory_bytes > 16u << 20);
    assert_true(box.memory_available_bytes > 0);
    assert_true(box.memory_available_bytes <= box.memory_bytes);
    assert_string_equal(box.isa, isa_name(cpu_best()));
    assert_true(strlen(box.cpu) > 0);
}

static void both_engines_are_there(void **state)
{
    (void)state;
    struct engine_report r[ENGINE_COUNT];
    engine_detect(r);
    assert_string_equal(r[0].name, "native");
    assert_string_equal(r[1].name, "openblas");
    assert_true(r[0].available && r[1].available);
    assert_non_null(strstr(r[0].detail, isa_words(cpu_best())));
    assert_non_null(strstr(r[1].detail, "OpenBLAS"));
}

static void choices(void **state)
{
    (void)state;
    static const char *const automatic[] = {NULL, "", "auto", "native"};
    enum engine_kind kind = ENGINE_OPENBLAS;
    struct fault fault = {0};
    for (size_t i = 0; i < COUNT_OF(automatic); i++) {
        assert_int_equal(engine_choose(automatic[i], &kind, &fault), STATUS_OK);
        assert_int_equal(kind, ENGINE_NATIVE);
    }
    assert_int_equal(engine_choose("openblas", &kind, &fault), STATUS_OK);
    assert_int_equal(kind, ENGINE_OPENBLAS);
    assert_int_equal(engine_choose("cuda", &kind, &fault), STATUS_NOT_FOUND);
    assert_non_null(strstr(fault.text, "cuda"));
    assert_non_null(strstr(fault.text, "native"));
    assert_non_null(strstr(fault.text, "openblas"));
}

static void a_missing_isa_makes_engines_unavailable(void **state)
{
    (void)state;
    enum engine_kind kind;
    struct fault fault = {0};
    struct engine_report r[ENGINE_COUNT];
#if defined(__x86_64__)
    setenv("SKEIN_ISA", "neon", 1);
#else
    setenv("SKEIN_ISA", "avx2", 1);
#endif
    engine_detect(r);
    assert_false(r[0].available);
    assert_non_null(strstr(r[0].detail, "SKEIN_ISA"));
    assert_int_equal(engine_choose("native", &kind, &fault), STATUS_UNSUPPORTED);
    assert_non_null(strstr(fault.text, "lacks"));
    assert_int_equal(engine_choose(NULL, &kind, &fault), STATUS_UNSUPPORTED);
    setenv("SKEIN_ISA", "generic", 1);
    engine_detect(r);
    assert_true(r[0].available);
    assert_non_null(strstr(r[0].detail, "generic"));
    unsetenv("SKEIN_ISA");
}

static void speeds_are_plausible(void **state)
{
    (void)state;
    for (int kind = 0; kind < ENGINE_COUNT; kind++) {
        struct engine_speed speed;
        assert_int_equal(engine_measure((enum engine_kind)kind, 2, &speed), STATUS_OK);
        assert_true(speed.read_bytes_per_second > 1e8 && speed.read_bytes_per_second < 1e13);
        assert_true(speed.flops_per_second > 1e7 && speed.flops_per_second < 1e15);
        assert_true(speed.mapped_bytes_per_second > 1e6 &&
                    speed.mapped_bytes_per_second <= speed.read_bytes_per_second);
    }
}

static void limits_are_plausible(void **state)
{
    (void)state;
    struct engine_peak peak;
    double read = 0;
    assert_int_equal(engine_measure_read(2, &read), STATUS_OK);
    assert_true(read > 1e8 && read < 1e13);
    assert_int_equal(engine_measure_peak(2, &peak), STATUS_OK);
    assert_true(peak.f32_per_second >= 0 && peak.f32_per_second < 1e14);
    assert_true(peak.bf16_per_second >= 0 && peak.bf16_per_second < 1e15);
    assert_true(peak.int8_per_second >= 0 && peak.int8_per_second < 1e15);
    enum status status = STATUS_NO_MEMORY;
    for (unsigned long at = 1; status != STATUS_OK; at++) {
        mem_fail_after(at);
        status = engine_measure_read(2, &read);
        mem_fail_after(0);
        assert_true(status == (read > 0 ? STATUS_OK : STATUS_NO_MEMORY));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_box_is_described),
        cmocka_unit_test(both_engines_are_there),
        cmocka_unit_test(choices),
        cmocka_unit_test(a_missing_isa_makes_engines_unavailable),
        cmocka_unit_test(speeds_are_plausible),
        cmocka_unit_test(limits_are_plausible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
