/* What this box could compute at most: the limit that figures of speed are set beside.
 *
 * Twelve independent sums in registers, nothing from memory, with the widest instruction that this
 * processor has for multiply-adds of float32, of bf16 pairs and of int8 fours. The instructions are
 * written out as assembler, since a compiler may neither drop nor fuse any of them and the file is
 * compiled for the oldest processor of its kind; each loop runs only where its feature was found.
 * The best of several runs counts: nothing makes them too fast.
 *
 * What fails: memory, and a thread that cannot be started.
 * Sources: Intel SDM volume 2 (VFMADD, VDPBF16PS, VPDPBUSD), Arm ARM (FMLA, BFMMLA, SDOT, SMMLA).
 */
#include <time.h>

#include "engine/engine.h"
#include "engine/kernels/cpu.h"
#include "engine/kernels/pool.h"

#if defined __aarch64__
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

enum { LOOPS = 30000, RUNS = 8, SUMS = 12 };

static double now_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Twelve times the instruction, each with a register of its own for the sum. */
#define TWELVE(instruction)                                                                        \
    instruction(0) instruction(1) instruction(2) instruction(3) instruction(4) instruction(5)      \
        instruction(6) instruction(7) instruction(8) instruction(9) instruction(10)                \
            instruction(11)

/* A function that runs LOOPS times twelve instructions. */
#if defined __x86_64__
#define LOOP(name, instruction, target_word)                                                       \
    __attribute__((target(target_word))) static void name(void)                                    \
    {                                                                                              \
        uint64_t left = LOOPS;                                                                     \
        __asm__ volatile("1:\n" TWELVE(instruction) "dec %0\n jnz 1b\n vzeroupper"                 \
                         : "+r"(left)                                                              \
                         :                                                                         \
                         : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",   \
                           "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");  \
    }
#define FMA_256(i)  "vfmadd231ps %%ymm14, %%ymm15, %%ymm" #i "\n"
#define FMA_512(i)  "vfmadd231ps %%zmm14, %%zmm15, %%zmm" #i "\n"
#define BF16_512(i) "vdpbf16ps %%zmm14, %%zmm15, %%zmm" #i "\n"
#define INT8_512(i) "vpdpbusd %%zmm14, %%zmm15, %%zmm" #i "\n"
#define INT8_256(i)                                                                                \
    "vpmaddubsw %%ymm14, %%ymm15, %%ymm12\n vpmaddwd %%ymm12, %%ymm15, %%ymm13\n"                  \
    "vpaddd %%ymm13, %%ymm" #i ", %%ymm" #i "\n"
LOOP(fma_256, FMA_256, "avx2,fma")
LOOP(fma_512, FMA_512, "avx512f")
LOOP(bf16_512, BF16_512, "avx512f,avx512bf16")
LOOP(int8_256, INT8_256, "avx2")
LOOP(int8_512, INT8_512, "avx512f,avx512vnni")
#elif defined __aarch64__
#define LOOP(name, instruction, target_word)                                                       \
    static void name(void)                                                                         \
    {                                                                                              \
        uint64_t left = LOOPS;                                                                     \
        __asm__ volatile(".arch " target_word                                                      \
                         "\n1:\n" TWELVE(instruction) "subs %0, %0, #1\n b.ne 1b"                  \
                         : "+r"(left)                                                              \
                         :                                                                         \
                         : "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9",       \
                           "v10", "v11", "v14", "v15");                                            \
    }
#define FMA_128(i)  "fmla v" #i ".4s, v14.4s, v15.4s\n"
#define BF16_128(i) "bfmmla v" #i ".4s, v14.8h, v15.8h\n"
#define DOT_128(i)  "sdot v" #i ".4s, v14.16b, v15.16b\n"
#define MMLA_128(i) "smmla v" #i ".4s, v14.16b, v15.16b\n"
LOOP(fma_128, FMA_128, "armv8-a")
LOOP(bf16_128, BF16_128, "armv8.2-a+bf16")
LOOP(dot_128, DOT_128, "armv8.2-a+dotprod")
LOOP(mmla_128, MMLA_128, "armv8.2-a+i8mm")
#endif

struct loop {
    void (*run)(void);
    double ops; /* of one instruction, 2 per multiply-add */
};

struct loops {
    struct loop f32, bf16, int8;
};

static struct loops loops_here(void)
{
    struct loops loops = {.f32 = {NULL, 0}};

#if defined __x86_64__
    if (cpu_has(ISA_AVX2)) {
        loops.f32 = (struct loop){fma_256, 16};
        loops.int8 = (struct loop){int8_256, 64};
    }
    if (cpu_has(ISA_AVX512))
        loops.f32 = (struct loop){fma_512, 32};
    if (cpu_has(ISA_AVX512) && __builtin_cpu_supports("avx512bf16"))
        loops.bf16 = (struct loop){bf16_512, 64};
    if (cpu_has(ISA_AVX512_VNNI))
        loops.int8 = (struct loop){int8_512, 128};
#elif defined __aarch64__
    loops.f32 = (struct loop){fma_128, 8};
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP)
        loops.int8 = (struct loop){dot_128, 32};
    if (getauxval(AT_HWCAP2) & HWCAP2_I8MM)
        loops.int8 = (struct loop){mmla_128, 64};
    if (getauxval(AT_HWCAP2) & HWCAP2_BF16)
        loops.bf16 = (struct loop){bf16_128, 32};
#endif
    return loops;
}

static void run_loop(void *ctx, size_t begin, size_t end, uint32_t thread)
{
    const struct loop *loop = ctx;

    (void)thread;
    for (size_t i = begin; i < end; i++)
        loop->run();
}

/* Four pieces a thread, so that one that comes late costs little. */
static double loop_rate(struct pool *pool, struct loop loop)
{
    size_t n = (size_t)pool_threads(pool) * 4;
    double best = 0;

    for (int i = 0; loop.run && i < RUNS; i++) {
        double start = now_seconds(), rate;

        pool_run(pool, n, 1, run_loop, &loop);
        rate = (double)n * LOOPS * SUMS * loop.ops / (now_seconds() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

enum status engine_measure_peak(uint32_t n_threads, struct engine_peak *out)
{
    struct loops loops = loops_here();
    struct pool *pool = NULL;
    enum status status = pool_new(n_threads, &pool);

    *out = (struct engine_peak){0};
    if (!status) {
        out->f32_per_second = loop_rate(pool, loops.f32);
        out->bf16_per_second = loop_rate(pool, loops.bf16);
        out->int8_per_second = loop_rate(pool, loops.int8);
    }
    pool_free(&pool);
    return status;
}
