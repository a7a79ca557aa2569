/* The sampler: published vectors for its generator, exact filters against a plain sort, the law of
 * the draws, determinism, and what broken logits give. */
#include "engine/sample/sample.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

enum { SMALL = 64, LARGE = 151936 };

static struct sampler *sampler_of(uint32_t n_vocab)
{
    struct sampler *sampler = NULL;
    assert_int_equal(sampler_new(n_vocab, &sampler), STATUS_OK);
    return sampler;
}

static struct sample_params open_params(void)
{
    return (struct sample_params){
        .temperature = 1.0f, .top_p = 1.0f, .repeat_penalty = 1.0f, .seed = 7};
}

static void fill(float *logits, uint32_t n, uint64_t seed)
{
    for (uint32_t i = 0; i < n; i++) {
        double sum = 0.0;
        for (uint64_t j = 0; j < 4; j++) {
            sum += random_unit(seed, (uint64_t)i * 4 + j, RANDOM_DRAW);
        }
        logits[i] = (float)(floor((sum - 2.0) * 64.0) / 8.0); /* coarse, so that ties occur */
    }
}

static uint32_t once(struct sampler *sampler, const struct sample_params *params,
                     const float *logits, uint32_t n, uint64_t position)
{
    float *copy = mem_copy(logits, n * sizeof *logits);
    assert_non_null(copy);
    uint32_t id = sample_token(sampler, params, copy, NULL, 0, position);
    mem_free(copy);
    return id;
}

static void philox_gives_the_published_vectors(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < COUNT_OF(vectors); i++) {
        uint32_t out[4];
        random_philox(vectors[i].counter, vectors[i].key, out);
        assert_memory_equal(out, vectors[i].out, sizeof out);
    }
}

static void unit_numbers_are_uniform(void **state)
{
    (void)state;
    enum { BINS = 100, DRAWS = 200000 };
    static unsigned bins[BINS];
    double sum = 0.0, lag = 0.0, before = 0.5;
    for (uint64_t i = 0; i < DRAWS; i++) {
        double u = random_unit(42, i, RANDOM_DRAW);
        assert_true(u >= 0.0 && u < 1.0);
        bins[(int)(u * BINS)]++;
        sum += u;
        lag += (u - 0.5) * (before - 0.5);
        before = u;
    }
    double chi = 0.0;
    for (int i = 0; i < BINS; i++) {
        double expected = (double)DRAWS / BINS;
        chi += ((double)bins[i] - expected) * ((double)bins[i] - expected) / expected;
    }
    assert_true(chi > 50.0 && chi < 160.0); /* 99 degrees of freedom: 5 sigma around 99 */
    assert_true(fabs(sum / DRAWS - 0.5) < 0.004);
    assert_true(fabs(lag / DRAWS) < 0.001);
    assert_true(random_unit(1, 5, RANDOM_DRAW) != random_unit(2, 5, RANDOM_DRAW));
    assert_true(random_unit(1, 5, RANDOM_DRAW) != random_unit(1, 5, RANDOM_XTC));
}

static void exp_and_log_are_those_of_the_library(void **state)
{
    (void)state;
    for (int i = 0; i < 200000; i++) {
        double x = -700.0 * random_unit(3, (uint64_t)i, RANDOM_DRAW);
        x = i % 2 == 0 ? x : x / 500.0;
        assert_true(fabs(sample_exp(x) / exp(x) - 1.0) < 5e-16);
        double y = exp(x / 3.0);
        assert_true(fabs(sample_log(y) - log(y)) <= 4e-16 * fmax(1.0, fabs(log(y))));
    }
    assert_true(sample_exp(0.0) == 1.0);
    assert_true(sample_exp(-INFINITY) == 0.0);
    assert_true(sample_log(1.0) == 0.0);
}

static void greedy_takes_the_lowest_of_equals(void **state)
{
    (void)state;
    struct sampler *sampler = sampler_of(SMALL);
    struct sample_params params = open_params();
    params.temperature = 0.0f;
    float logits[SMALL] = {0};
    assert_int_equal(sample_token(sampler, &params, logits, NULL, 0, 0), 0);
    logits[9] = logits[5] = logits[40] = 3.0f;
    assert_int_equal(sample_token(sampler, &params, logits, NULL, 0, 0), 5);
    sampler_free(&sampler);
}

static void repetition_penalty_looks_back_as_far_as_told(void **state)
{
    (void)state;
    struct sampler *sampler = sampler_of(SMALL);
    struct sample_params params = open_params();
    params.temperature = 0.0f;
    params.repeat_penalty = 2.0f;
    params.repeat_last_n = 3;
    uint32_t history[] = {4, 1, 2, 2, 9999};
    float logits[SMALL] = {0};
    logits[2] = 5.0f; /* seen twice, penalised once: 2.5 */
    logits[4] = 4.0f; /* out of reach */
    logits[1] = -3.0f;
    assert_int_equal(sample_token(sampler, &params, logits, history, 5, 5), 4);
    assert_true(logits[2] == 2.5f && logits[4] == 4.0f && logits[1] == -3.0f);
    params.repeat_last_n = 4;
    assert_int_equal(sample_token(sampler, &params, logits, history, 5, 5), 4);
    assert_true(logits[1] == -6.0f);
    sampler_free(&sampler);
}

static int by_rank(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return candidate_before(*x, *y) ? -1 : 1;
}

/* The set of ids that may be drawn, by a full sort and the definitions. */
static size_t allowed_plain(const float *logits, uint32_t n, const struct sample_params *params,
                            struct candidate *list)
{
    for (uint32_t i = 0; i < n; i++) {
        list[i] = (struct candidate){logits[i], i};
    }
    qsort(list, n, sizeof *list, by_rank);
    size_t k = params->top_k != 0 && params->top_k < n ? params->top_k : n;
    double total = 0.0;
    for (size_t i = 0; i < k; i++) {
        total += exp((double)list[i].logit - (double)list[0].logit);
    }
    double sum = 0.0;
    for (size_t i = 0; i < k; i++) {
        double p = exp((double)list[i].logit - (double)list[0].logit);
        if (i > 0 && (sum / total >= (double)params->top_p || p < (double)params->min_p)) {
            return i;
        }
        sum += p;
    }
    return k;
}

static void filters_keep_what_a_full_sort_keeps(void **state)
{
    (void)state;
    enum { N = 300, ROUNDS = 300, DRAWS = 40 };
    struct sampler *sampler = sampler_of(N);
    static const uint32_t ks[] = {0, 1, 3, 40, 299, 300, 5000};
    static const float ps[] = {0.0f, 0.3f, 0.9f, 1.0f};
    static const float ms[] = {0.0f, 0.05f, 0.5f, 1.0f};
    for (uint64_t round = 0; round < ROUNDS; round++) {
        float logits[N];
        fill(logits, N, round);
        struct sample_params params = open_params();
        params.top_k = ks[round % COUNT_OF(ks)];
        params.top_p = ps[round / 7 % COUNT_OF(ps)];
        params.min_p = ms[round / 28 % COUNT_OF(ms)];
        params.temperature = 50.0f; /* nearly flat: every allowed one is drawn soon */
        struct candidate list[N];
        size_t n = allowed_plain(logits, N, &params, list);
        bool drawn[N] = {false};
        for (uint64_t i = 0; i < DRAWS * (n < 8 ? 8 : 1); i++) {
            drawn[once(sampler, &params, logits, N, round * 1000 + i)] = true;
        }
        size_t hits = 0;
        for (size_t i = 0; i < N; i++) {
            assert_true(i < n || !drawn[list[i].id]);
            hits += drawn[list[i].id];
        }
        assert_true(n >= 8 || hits == n);
    }
    sampler_free(&sampler);
}

static void biases_ban_and_force(void **state)
{
    (void)state;
    struct sampler *sampler = sampler_of(SMALL);
    struct sample_params params = open_params();
    struct sample_bias biases[] = {{3, -INFINITY}, {7, 50.0f}, {60000, 1.0f}};
    float logits[SMALL] = {0};
    params.biases = biases;
    params.n_biases = 1;
    for (uint64_t i = 0; i < 500; i++) {
        assert_true(once(sampler, &params, logits, SMALL, i) != 3);
    }
    params.n_biases = 3;
    for (uint64_t i = 0; i < 100; i++) {
        assert_int_equal(once(sampler, &params, logits, SMALL, i), 7);
    }
    sampler_free(&sampler);
}

static void frequency_and_presence_count_occurrences(void **state)
{
    (void)state;
    struct sampler *sampler = sampler_of(SMALL);
    struct sample_params params = open_params();
    params.temperature = 0.0f;
    params.repeat_last_n = 4;
    params.frequency_penalty = 0.5f;
    params.presence_penalty = 0.25f;
    uint32_t history[] = {9, 9, 1, 2, 2, 2};
    float logits[SMALL] = {0};
    (void)sample_token(sampler, &params, logits, history, 6, 6);
    assert_true(logits[2] == -1.75f && logits[1] == -0.75f && logits[9] == 0.0f);
    sampler_free(&sampler);
}

/* By the definition: the longest k such that the last k tokens also stand right before an earlier
 * t. */
static uint32_t repeat_length(const uint32_t *history, size_t n, uint32_t t)
{
    uint32_t best = 0;
    for (size_t at = 1; at < n; at++) {
        uint32_t k = 0;
        while (history[at] == t && k < at && history[at - 1 - k] == history[n - 1 - k]) {
            k++;
        }
        best = k > best ? k : best;
    }
    return best;
}

static void dry_finds_every_repetition(void **state)
{
    (void)state;
    enum { VOCAB = 4, LENGTH = 40 };
    struct sampler *sampler = sampler_of(VOCAB);
    struct sample_params params = open_params();
    params.temperature = 0.0f;
    params.dry_multiplier = 1.0f;
    params.dry_base = 2.0f;
    params.dry_allowed_length = 2;
    for (uint64_t round = 0; round < 2000; round++) {
        uint32_t history[LENGTH];
        size_t n = 1 + (size_t)(random_unit(round, 1000, RANDOM_DRAW) * (LENGTH - 1));
        for (size_t i = 0; i < n; i++) {
            history[i] = (uint32_t)(random_unit(round, i, RANDOM_DRAW) * (round % 2 ? 2 : VOCAB));
        }
        float logits[VOCAB] = {0};
        (void)sample_token(sampler, &params, logits, history, n, n);
        for (uint32_t t = 0; t < VOCAB; t++) {
            uint32_t length = repeat_length(history, n, t);
            double loss = length < 2 ? 0.0 : pow(2.0, length - 2);
            assert_true(fabs((double)logits[t] + loss) <= 1e-3 * loss);
        }
    }
    uint32_t history[] = {0, 1, 3, 2, 0, 1, 3};
    uint32_t breaker = 1;
    float logits[VOCAB] = {0};
    (void)sample_token(sampler, &params, logits, history, 7, 7);
    assert_true(logits[2] == -2.0f); /* three tokens repeat */
    params.dry_breakers = &breaker;
    params.n_dry_breakers = 1;
    logits[2] = 0.0f;
    (void)sample_token(sampler, &params, logits, history, 7, 7);
    assert_true(logits[2] == 0.0f); /* only one of them behind the breaker */
    sampler_free(&sampler);
}

static int by_value(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return x->logit < y->logit ? -1 : x->logit > y->logit ? 1 : x->id < y->id ? -1 : 1;
}

static void typical_keeps_the_least_surprising(void **state)
{
    (void)state;
    enum { N = 30 };
    struct sampler *sampler = sampler_of(N);
    for (uint64_t round = 0; round < 300; round++) {
        struct sample_params params = open_params();
        float logits[N];
        struct candidate list[N];
        double p[N], total = 0.0, entropy = 0.0, held = 0.0;
        fill(logits, N, round + 500);
        for (uint32_t i = 0; i < N; i++) {
            logits[i] += (float)random_unit(round, i, RANDOM_DRAW); /* no ties */
            total += exp((double)logits[i]);
        }
        for (int i = 0; i < N; i++) {
            p[i] = exp((double)logits[i]) / total;
            entropy -= p[i] * log(p[i]);
        }
        for (uint32_t i = 0; i < N; i++) {
            list[i] = (struct candidate){(float)fabs(-log(p[i]) - entropy), i};
        }
        qsort(list, N, sizeof *list, by_value);
        params.typical_p = 0.6f;
        params.temperature = 20.0f;
        bool allowed[N] = {false}, drawn[N] = {false};
        for (int i = 0; i < N && held < 0.6; i++) {
            allowed[list[i].id] = true;
            held += p[list[i].id];
        }
        params.top_k = round % 2 == 0 ? 0 : N - 1;
        for (uint64_t i = 0; i < 100; i++) {
            drawn[once(sampler, &params, logits, N, i)] = true;
        }
        for (int i = 0; i < N && params.top_k == 0; i++) {
            assert_true(allowed[i] || !drawn[i]);
        }
    }
    sampler_free(&sampler);
}

static void xtc_drops_all_but_the_least_of_the_likely(void **state)
{
    (void)state;
    enum { N = 6 };
    struct sampler *sampler = sampler_of(N);
    struct sample_params params = open_params();
    float logits[N] = {3.0f, 2.9f, 2.0f, -1.0f, -1.0f, 2.8f}; /* 0.32 0.29 0.12 .006 .006 0.26 */
    params.xtc_probability = 1.0f;
    params.xtc_threshold = 0.2f;
    for (int sorted = 0; sorted < 2; sorted++) {
        bool drawn[N] = {false};
        params.top_k = sorted == 1 ? N - 1 : 0;
        for (uint64_t i = 0; i < 3000; i++) {
            drawn[once(sampler, &params, logits, N, i)] = true;
        }
        assert_true(!drawn[0] && !drawn[1] && drawn[5] && drawn[2] && drawn[3]);
    }
    params.xtc_probability = 0.5f;
    unsigned top = 0;
    for (uint64_t i = 0; i < 10000; i++) {
        top += once(sampler, &params, logits, N, i) == 0;
    }
    assert_true(top > 1400 && top < 1800); /* half of 0.32 */
    params.xtc_threshold = 0.9f;           /* nothing is that likely */
    params.xtc_probability = 1.0f;
    bool any = false;
    for (uint64_t i = 0; i < 100; i++) {
        any = any || once(sampler, &params, logits, N, i) == 0;
    }
    assert_true(any);
    sampler_free(&sampler);
}

static void draws_follow_the_probabilities(void **state)
{
    (void)state;
    enum { N = 5, DRAWS = 100000 };
    struct sampler *sampler = sampler_of(N);
    struct sample_params params = open_params();
    params.temperature = 0.7f;
    float logits[N] = {1.0f, 0.0f, -1.0f, 2.0f, -40.0f};
    double expected[N], total = 0.0;
    unsigned counts[N] = {0};
    for (int i = 0; i < N; i++) {
        expected[i] = exp((double)logits[i] / 0.7);
        total += expected[i];
    }
    for (uint64_t i = 0; i < DRAWS; i++) {
        counts[once(sampler, &params, logits, N, i)]++;
    }
    for (int i = 0; i < N; i++) {
        double p = expected[i] / total;
        double sigma = sqrt(p * (1.0 - p) / DRAWS) + 1e-9;
        assert_true(fabs((double)counts[i] / DRAWS - p) < 5.0 * sigma);
    }
    sampler_free(&sampler);
}

static void a_token_depends_on_seed_and_position_only(void **state)
{
    (void)state;
    struct sampler *one = sampler_of(SMALL), *other = sampler_of(SMALL);
    struct sample_params params = open_params();
    float logits[SMALL];
    fill(logits, SMALL, 1);
    (void)once(other, &params, logits, SMALL, 99);
    bool moved = false;
    for (uint64_t i = 0; i < 200; i++) {
        uint32_t id = once(one, &params, logits, SMALL, i);
        assert_int_equal(id, once(other, &params, logits, SMALL, i));
        params.seed++;
        moved = moved || id != once(one, &params, logits, SMALL, i);
        params.seed--;
    }
    assert_true(moved);
    /* Recorded once: the same on every machine and in every later version. */
    static const uint32_t golden[] = {60, 26, 0, 26, 12, 12, 50, 12, 10, 36, 43, 50, 12, 0, 12, 10};
    for (uint64_t i = 0; i < COUNT_OF(golden); i++) {
        assert_int_equal(once(one, &params, logits, SMALL, i), golden[i]);
    }
    sampler_free(&one);
    sampler_free(&other);
}

static void broken_logits_have_a_defined_result(void **state)
{
    (void)state;
    struct sampler *sampler = sampler_of(SMALL);
    struct sample_params params = open_params();
    float logits[SMALL];
    for (int t = 0; t < 2; t++) {
        params.temperature = (float)t;
        for (int i = 0; i < SMALL; i++) {
            logits[i] = NAN;
        }
        logits[11] = -3.0f;
        assert_int_equal(once(sampler, &params, logits, SMALL, 3), 11);
        logits[12] = INFINITY;
        assert_int_equal(once(sampler, &params, logits, SMALL, 3), 12);
        logits[11] = logits[12] = -INFINITY;
        params.top_k = 4;
        assert_true(once(sampler, &params, logits, SMALL, 3) < 4);
        params.top_k = 0;
    }
    params.repeat_penalty = 0.01f;
    params.repeat_last_n = 8;
    for (int i = 0; i < SMALL; i++) {
        logits[i] = FLT_MAX;
    }
    assert_true(sample_token(sampler, &params, logits, (uint32_t[]){5}, 1, 1) < SMALL);
    sampler_free(&sampler);
}

static void bad_settings_are_named(void **state)
{
    (void)state;
    struct sample_params good;
    sample_defaults(&good);
    assert_int_equal(sample_check(&good, NULL), STATUS_OK);
    struct fault fault = {0};
    struct sample_params bad = good;
    bad.temperature = -1.0f;
    assert_int_equal(sample_check(&bad, &fault), STATUS_INVALID);
    assert_non_null(strstr(fault.text, "temperature"));
    bad = good;
    bad.top_p = NAN;
    assert_int_equal(sample_check(&bad, &fault), STATUS_INVALID);
    assert_non_null(strstr(fault.text, "top_p"));
    bad = good;
    bad.min_p = 1.5f;
    assert_int_equal(sample_check(&bad, &fault), STATUS_INVALID);
    bad = good;
    bad.repeat_penalty = 0.0f;
    assert_int_equal(sample_check(&bad, &fault), STATUS_INVALID);
}

static void a_failed_allocation_leaves_nothing(void **state)
{
    (void)state;
    for (unsigned long i = 1; i <= 6; i++) {
        struct sampler *sampler = NULL;
        mem_fail_after(i);
        assert_int_equal(sampler_new(SMALL, &sampler), STATUS_NO_MEMORY);
        assert_null(sampler);
    }
    mem_fail_after(0);
    struct sampler *none = NULL;
    assert_int_equal(sampler_new(0, &none), STATUS_INVALID);
}

static double microseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* Not a benchmark, but a full sort or an allocation per token would show. */
static void a_large_vocabulary_is_fast(void **state)
{
    (void)state;
    enum { ROUNDS = 20 };
    struct sampler *sampler = sampler_of(LARGE);
    float *logits = MEM_NEW_N(float, LARGE), *copy = MEM_NEW_N(float, LARGE);
    assert_non_null(logits);
    assert_non_null(copy);
    fill(logits, LARGE, 5);
    static const uint32_t ks[] = {40, 0, 0};
    static const char *const words[] = {"defaults", "without top-k", "nothing but temperature"};
    for (int c = 0; c < 3; c++) {
        struct sample_params params;
        sample_defaults(&params);
        params.top_k = ks[c];
        params.repeat_penalty = 1.1f;
        if (c == 2) {
            params.top_p = 1.0f;
            params.min_p = 0.0f;
        }
        double sum = 0.0;
        mem_fail_after(1);
        for (int i = 0; i < ROUNDS; i++) {
            memcpy(copy, logits, LARGE * sizeof *copy);
            double start = microseconds();
            (void)sample_token(sampler, &params, copy, (uint32_t[]){1, 2, 3}, 3, (uint64_t)i);
            sum += microseconds() - start;
        }
        mem_fail_after(0);
        print_message("%s: %.0f us\n", words[c], sum / ROUNDS);
        assert_true(sum / ROUNDS < 200000.0);
    }
    mem_free(logits);
    mem_free(copy);
    sampler_free(&sampler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_vectors),
        cmocka_unit_test(unit_numbers_are_uniform),
        cmocka_unit_test(exp_and_log_are_those_of_the_library),
        cmocka_unit_test(greedy_takes_the_lowest_of_equals),
        cmocka_unit_test(repetition_penalty_looks_back_as_far_as_told),
        cmocka_unit_test(filters_keep_what_a_full_sort_keeps),
        cmocka_unit_test(biases_ban_and_force),
        cmocka_unit_test(frequency_and_presence_count_occurrences),
        cmocka_unit_test(dry_finds_every_repetition),
        cmocka_unit_test(typical_keeps_the_least_surprising),
        cmocka_unit_test(xtc_drops_all_but_the_least_of_the_likely),
        cmocka_unit_test(draws_follow_the_probabilities),
        cmocka_unit_test(a_token_depends_on_seed_and_position_only),
        cmocka_unit_test(broken_logits_have_a_defined_result),
        cmocka_unit_test(bad_settings_are_named),
        cmocka_unit_test(a_failed_allocation_leaves_nothing),
        cmocka_unit_test(a_large_vocabulary_is_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
