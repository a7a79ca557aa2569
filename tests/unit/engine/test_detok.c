/* The streaming detokenizer: never half a character, the blank at the beginning, special tokens. */
#include "tests/unit/engine/text_load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void spm_load(struct loaded *l)
{
    static const char *const words[] = {"\xe2\x96\x81"
                                        "a",
                                        "b", "\xe2\x96\x81"};
    static const float scores[] = {-1, -2, -3};
    *l = (struct loaded){0};
    make_spm(&l->maker, words, scores, COUNT_OF(words));
    assert_int_equal(loaded_from_maker(l, NULL), STATUS_OK);
}

enum { BYTES = 3, WORD_A = 259, WORD_B = 260, BLANK = 261 };

static void push(struct detok *detok, uint32_t id, const char *expected)
{
    struct buffer out = {0};
    assert_int_equal(detok_push(detok, id, &out), STATUS_OK);
    assert_int_equal(out.len, strlen(expected));
    assert_true(out.len == 0 || memcmp(out.data, expected, out.len) == 0);
    buffer_free(&out);
}

static void finish(struct detok **detok, bool raw, const char *expected)
{
    struct buffer out = {0};
    assert_int_equal(detok_finish(*detok, raw, &out), STATUS_OK);
    assert_int_equal(out.len, strlen(expected));
    assert_true(out.len == 0 || memcmp(out.data, expected, out.len) == 0);
    buffer_free(&out);
    detok_free(detok);
}

static struct detok *detok_of(const struct text *text, unsigned flags)
{
    struct detok *detok = NULL;
    assert_int_equal(text_detok_new(text, flags, &detok), STATUS_OK);
    return detok;
}

static void characters_come_out_whole(void **state)
{
    struct loaded l;
    (void)state;
    spm_load(&l);
    struct detok *detok = detok_of(l.text, 0);
    push(detok, WORD_B, "b");
    push(detok, BYTES + 0xf0, ""); /* U+1F600, byte by byte */
    push(detok, BYTES + 0x9f, "");
    push(detok, BYTES + 0x98, "");
    push(detok, BYTES + 0x80, "\xf0\x9f\x98\x80");
    push(detok, BYTES + 0xc3, "");
    push(detok, WORD_B,
         "\xef\xbf\xbd"
         "b"); /* it will never be whole */
    push(detok, BYTES + 0xe2, "");
    push(detok, BYTES + 0x82, "");
    finish(&detok, false, "\xef\xbf\xbd");
    detok = detok_of(l.text, DETOK_RAW);
    push(detok, BYTES + 0xc3, "");
    push(detok, WORD_B,
         "\xc3"
         "b");
    push(detok, BYTES + 0xe2, "");
    finish(&detok, true, "\xe2");
    loaded_free(&l);
}

static void the_first_blank_is_dropped_once(void **state)
{
    struct loaded l;
    (void)state;
    spm_load(&l);
    struct detok *detok = detok_of(l.text, 0);
    push(detok, 1, ""); /* <s>, hidden: the text has not begun */
    push(detok, WORD_A, "a");
    push(detok, WORD_A, " a");
    finish(&detok, false, "");
    detok = detok_of(l.text, 0);
    push(detok, BLANK, "");
    push(detok, WORD_A, " a");
    finish(&detok, false, "");
    detok = detok_of(l.text, DETOK_CONTINUES);
    push(detok, WORD_A, " a");
    finish(&detok, false, "");
    loaded_free(&l);
}

static void special_tokens_are_written_where_wanted(void **state)
{
    struct loaded l;
    (void)state;
    spm_load(&l);
    struct detok *detok = detok_of(l.text, DETOK_SPECIAL);
    push(detok, 1, "<s>");
    push(detok, WORD_A, " a");
    push(detok, 0, "<unk>");
    push(detok, 2, "</s>");
    finish(&detok, false, "");
    detok = detok_of(l.text, 0);
    push(detok, 0, "");
    push(detok, 2, "");
    struct buffer out = {0};
    assert_int_equal(detok_push(detok, 100000, &out), STATUS_INVALID);
    finish(&detok, false, "");
    loaded_free(&l);
}

static void running_out_of_memory_is_an_error(void **state)
{
    struct loaded l;
    (void)state;
    spm_load(&l);
    struct detok *detok = NULL;
    mem_fail_after(1);
    assert_int_equal(text_detok_new(l.text, 0, &detok), STATUS_NO_MEMORY);
    mem_fail_after(0);
    detok = detok_of(l.text, 0);
    struct buffer out = {0};
    mem_fail_after(1);
    assert_int_equal(detok_push(detok, WORD_A, &out), STATUS_NO_MEMORY);
    mem_fail_after(0);
    push(detok, WORD_A, "a"); /* as if the failed call had not been */
    finish(&detok, false, "");
    loaded_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(characters_come_out_whole),
        cmocka_unit_test(the_first_blank_is_dropped_once),
        cmocka_unit_test(special_tokens_are_written_where_wanted),
        cmocka_unit_test(running_out_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
