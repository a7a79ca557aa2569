/* Stop strings over pieces: whatever the cuts, what comes out is the text before the first stop,
 * and never a byte of a stop string that became whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "node/flow/stream.h"

static void spec_with(struct request_spec *spec, const char *a, const char *b)
{
    memset(spec, 0, sizeof *spec);
    for (int i = 0; i < 2; i++) {
        const char *stop = i ? b : a;

        if (stop)
            strcpy(spec->stops[spec->n_stops++], stop);
    }
}

/* Pushes the text in the given pieces; returns what came out, NUL-terminated. */
static char *run(const struct request_spec *spec, const char *const *pieces, size_t n,
                 bool *stopped)
{
    struct stream stream;
    struct buffer out = {0};

    stream_init(&stream, spec);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(stream_push(&stream, pieces[i], strlen(pieces[i]), &out), STATUS_OK);
    *stopped = stream.stopped;
    if (!stream.stopped)
        assert_int_equal(stream_flush(&stream, &out), STATUS_OK);
    stream_free(&stream);
    assert_int_equal(buffer_put(&out, "", 1), STATUS_OK);
    return (char *)out.data;
}

static void split_stop_never_leaks(void **state)
{
    const char *pieces[] = {"Hello #", "#", "# world"};
    struct request_spec spec;
    struct stream stream;
    struct buffer out = {0};
    bool stopped;
    char *text;

    (void)state;
    spec_with(&spec, "###", NULL);
    stream_init(&stream, &spec);
    assert_int_equal(stream_push(&stream, pieces[0], 7, &out), STATUS_OK);
    assert_int_equal(out.len, 6); /* "Hello ", the # is held */
    assert_int_equal(stream_push(&stream, pieces[1], 1, &out), STATUS_OK);
    assert_int_equal(out.len, 6);
    buffer_free(&out);
    stream_free(&stream);
    text = run(&spec, pieces, 3, &stopped);
    assert_true(stopped);
    assert_string_equal(text, "Hello ");
    mem_free(text);
}

static void held_text_comes_out_when_it_is_no_stop(void **state)
{
    const char *pieces[] = {"a#", "#", "b", "#"};
    struct request_spec spec;
    bool stopped;
    char *text;

    (void)state;
    spec_with(&spec, "###", NULL);
    text = run(&spec, pieces, 4, &stopped);
    assert_false(stopped);
    assert_string_equal(text, "a##b#");
    mem_free(text);
}

static void the_earliest_of_several_stops_wins(void **state)
{
    const char *pieces[] = {"xxab", "cyy"};
    struct request_spec spec;
    bool stopped;
    char *text;

    (void)state;
    spec_with(&spec, "cy", "abc");
    text = run(&spec, pieces, 2, &stopped);
    assert_true(stopped);
    assert_string_equal(text, "xx");
    mem_free(text);
}

static void without_stops_text_passes_at_once(void **state)
{
    struct request_spec spec;
    struct stream stream;
    struct buffer out = {0};

    (void)state;
    spec_with(&spec, "", NULL); /* an empty one counts as none */
    stream_init(&stream, &spec);
    assert_int_equal(stream.n_stops, 0);
    assert_int_equal(stream_push(&stream, "abc", 3, &out), STATUS_OK);
    assert_int_equal(out.len, 3);
    assert_int_equal(stream.held.len, 0);
    buffer_free(&out);
    stream_free(&stream);
}

static void any_cut_gives_the_same(void **state)
{
    static const char *const stops[] = {"ab", "aab", "bb", "abab", "b", "aaaa"};

    (void)state;
    srand(7);
    for (int round = 0; round < 20000; round++) {
        char text[24], storage[24][24], *got;
        const char *pieces[24], *hit_a, *hit_b;
        size_t len = (size_t)rand() % 20, n = 0, at = 0, want = len;
        struct request_spec spec;
        bool stopped;

        spec_with(&spec, stops[rand() % 6], rand() % 2 ? stops[rand() % 6] : NULL);
        for (size_t i = 0; i < len; i++)
            text[i] = rand() % 3 ? 'a' : 'b';
        text[len] = '\0';
        while (at < len) {
            size_t k = 1 + (size_t)rand() % 4;

            k = k < len - at ? k : len - at;
            memcpy(storage[n], text + at, k);
            storage[n][k] = '\0';
            pieces[n] = storage[n];
            n++;
            at += k;
        }
        got = run(&spec, pieces, n, &stopped);
        /* Piece by piece, the first piece with a whole stop decides; within it the earliest. */
        for (size_t end = 0, i = 0; i < n && want == len; i++) {
            char upto[24];

            end += strlen(pieces[i]);
            memcpy(upto, text, end);
            upto[end] = '\0';
            hit_a = strstr(upto, spec.stops[0]);
            hit_b = spec.n_stops > 1 ? strstr(upto, spec.stops[1]) : NULL;
            if (hit_a || hit_b) {
                want = hit_a ? (size_t)(hit_a - upto) : len;
                if (hit_b && (size_t)(hit_b - upto) < want)
                    want = (size_t)(hit_b - upto);
                break;
            }
        }
        assert_int_equal(strlen(got), want);
        assert_memory_equal(got, text, want);
        assert_int_equal(stopped, want != len);
        mem_free(got);
    }
}

static void no_memory_takes_nothing(void **state)
{
    struct request_spec spec;

    (void)state;
    spec_with(&spec, "###", NULL);
    for (unsigned long at = 1; at <= 2; at++) {
        struct stream stream;
        struct buffer out = {0};

        stream_init(&stream, &spec);
        mem_fail_after(at);
        assert_int_equal(stream_push(&stream, "ab#", 3, &out), STATUS_NO_MEMORY);
        mem_fail_after(0);
        assert_int_equal(stream_push(&stream, "ab#", 3, &out), STATUS_OK);
        assert_int_equal(out.len, 2);
        assert_memory_equal(out.data, "ab", 2);
        buffer_free(&out);
        stream_free(&stream);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(split_stop_never_leaks),
        cmocka_unit_test(held_text_comes_out_when_it_is_no_stop),
        cmocka_unit_test(the_earliest_of_several_stops_wins),
        cmocka_unit_test(without_stops_text_passes_at_once),
        cmocka_unit_test(any_cut_gives_the_same),
        cmocka_unit_test(no_memory_takes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
