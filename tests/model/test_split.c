/* Models split over several GGUF files: one model whichever part is named, with the very same
 * logits, and a sentence for every way in which the parts can be wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "tests/harness/split_gguf.h"
#include "tests/model/stages.h"

enum { PARTS = 3, N_TOKENS = 20 };

struct split {
    char root[48];
    char stem[64];
    struct buffer parts[PARTS];
    float *expected; /* [N_TOKENS, n_vocab]: of the whole file */
};

static float *logits_of(const struct model *model, uint32_t n_stages)
{
    struct stages_config config = {
        .engine = ENGINE_NATIVE, .n_stages = n_stages, .n_threads = 1, .n_ctx_tokens = 64};

    return stages_logits(model, &config, N_TOKENS, 8);
}

static void check_logits(const struct split *s, const char *path, uint32_t n_stages)
{
    struct model *model = model_at(path);
    float *logits = logits_of(model, n_stages);

    assert_memory_equal(logits, s->expected,
                        (size_t)N_TOKENS * model_info(model)->n_vocab * sizeof(float));
    free(logits);
    model_free(&model);
}

static void split_demo(struct split *s, bool header_first)
{
    const void *data;
    size_t size;

    model_demo(&data, &size);
    gguf_split_free(s->parts, PARTS);
    gguf_split(data, size, PARTS, header_first, s->parts);
    gguf_split_write(s->parts, PARTS, s->stem);
}

static int set_up(void **state)
{
    struct split *s = calloc(1, sizeof *s);
    struct model *model = model_tiny();

    strcpy(s->root, "/tmp/skein-split-XXXXXX");
    if (!mkdtemp(s->root))
        return -1;
    (void)snprintf(s->stem, sizeof s->stem, "%s/goose", s->root);
    split_demo(s, false);
    s->expected = logits_of(model, 1);
    model_free(&model);
    *state = s;
    return 0;
}

static int tear_down(void **state)
{
    struct split *s = *state;
    char command[80];
    int rc;

    (void)snprintf(command, sizeof command, "rm -rf '%s'", s->root);
    rc = system(command);
    gguf_split_free(s->parts, PARTS);
    free(s->expected);
    free(s);
    return rc;
}

static void part_path(const struct split *s, uint32_t number, char out[static 128])
{
    gguf_split_path(s->stem, number, PARTS, out, 128);
}

static void test_any_part_is_the_model(void **state)
{
    struct split *s = *state;
    uint64_t total = 0;
    char path[128];

    for (uint32_t i = 0; i < PARTS; i++)
        total += s->parts[i].len;
    for (uint32_t i = 1; i <= PARTS; i++) {
        struct model *model;

        part_path(s, i, path);
        check_logits(s, path, i);
        model = model_at(path);
        assert_int_equal(model_info(model)->file_bytes, total);
        model_free(&model);
    }
}

static void test_the_first_part_may_have_no_tensors(void **state)
{
    struct split *s = *state;
    char path[128];

    split_demo(s, true);
    part_path(s, 2, path);
    check_logits(s, path, 1);
}

/* The caches of other programs are folders of links to files under other names. */
static void test_links(void **state)
{
    struct split *s = *state;
    char path[128], link[192];

    (void)snprintf(link, sizeof link, "%s/links", s->root);
    assert_int_equal(mkdir(link, 0700), 0);
    for (uint32_t i = 1; i <= PARTS; i++) {
        char blob[128];

        part_path(s, i, path);
        (void)snprintf(blob, sizeof blob, "%s/blob%u", s->root, i);
        assert_int_equal(rename(path, blob), 0);
        (void)snprintf(link, sizeof link, "%s/links/goose-%05u-of-%05u.gguf", s->root, i, PARTS);
        assert_int_equal(symlink(blob, link), 0);
    }
    check_logits(s, link, 1);
}

static void convert(const struct model *model, const char *path)
{
    struct model_convert what = {.path = path, .type = "Q8_0"};
    struct fault fault = {0};

    if (model_convert(model, &what, &fault))
        fail_msg("%s", fault.text);
}

static void test_convert_joins(void **state)
{
    struct split *s = *state;
    char part[128], joined[128], whole[128], command[300];
    struct model_convert what = {.path = part, .type = "Q8_0"};
    struct model *from_parts, *from_one = model_tiny(), *again;

    part_path(s, 2, part);
    (void)snprintf(joined, sizeof joined, "%s/joined.gguf", s->root);
    (void)snprintf(whole, sizeof whole, "%s/whole.gguf", s->root);
    from_parts = model_at(part);
    convert(from_one, whole);
    convert(from_parts, joined);
    (void)snprintf(command, sizeof command, "cmp '%s' '%s'", joined, whole);
    assert_int_equal(system(command), 0);
    again = model_at(joined);
    assert_int_equal(model_runnable(again, ENGINE_NATIVE, NULL), STATUS_OK);
    assert_int_equal(model_convert(from_one, &what, NULL), STATUS_INVALID); /* a part's name */
    model_free(&again);
    model_free(&from_parts);
    model_free(&from_one);
}

/* ---------------------------------------------------------------- what can be wrong */

static void check_refused(const char *path, enum status want, const char *words)
{
    struct model *model = NULL;
    struct fault fault = {0};

    assert_int_equal(model_open(path, &model, &fault), want);
    assert_null(model);
    if (!strstr(fault.text, words))
        fail_msg("\"%s\" does not say \"%s\"", fault.text, words);
}

static void test_a_missing_part_is_named(void **state)
{
    struct split *s = *state;
    char path[128], missing[128];

    for (uint32_t i = 1; i <= PARTS; i++) {
        part_path(s, i, missing);
        part_path(s, i % PARTS + 1, path);
        assert_int_equal(unlink(missing), 0);
        check_refused(path, STATUS_NOT_FOUND, missing);
        check_refused(path, STATUS_NOT_FOUND, "of 3 is missing");
        split_demo(s, false);
    }
}

static void test_wrong_counts(void **state)
{
    static const struct {
        uint32_t part;
        const char *key;
        uint32_t value;
        const char *words;
    } cases[] = {
        {1, "split.no", 2, "by its name it is part 2 of 3, but it says that it is part 3 of 3"},
        {1, "split.no", UINT32_MAX, "part 4294967296 of 3"},
        {0, "split.count", 2, "part 1 of 3"},
        {2, "split.count", 1, "part 3 of 1"},
        {0, "split.tensors.count", 1, "tensors instead of 1"},
        {0, "split.tensors.count", UINT32_MAX, "instead of 4294967295"},
    };
    struct split *s = *state;
    char path[128];

    part_path(s, 2, path);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        gguf_patch_u32(&s->parts[cases[i].part], cases[i].key, cases[i].value);
        gguf_split_write(s->parts, PARTS, s->stem);
        check_refused(path, STATUS_FORMAT, cases[i].words);
        check_refused(path, STATUS_FORMAT, path);
        split_demo(s, false);
    }
}

static void test_parts_that_do_not_belong_together(void **state)
{
    struct split *s = *state;
    char path[128], plain[128];

    part_path(s, 1, path);
    buffer_free(&s->parts[2]);
    assert_int_equal(buffer_put(&s->parts[2], s->parts[1].data, s->parts[1].len), STATUS_OK);
    gguf_patch_u32(&s->parts[2], "split.no", 2);
    gguf_split_write(s->parts, PARTS, s->stem);
    check_refused(path, STATUS_FORMAT, "is there twice");
    (void)snprintf(plain, sizeof plain, "%s/plain.gguf", s->root);
    assert_int_equal(rename(path, plain), 0);
    check_refused(plain, STATUS_FORMAT, "part 1 of a model split over 3 files");
}

static void test_damaged_part(void **state)
{
    struct split *s = *state;
    char path[128];

    s->parts[2].len -= 64;
    gguf_split_write(s->parts, PARTS, s->stem);
    part_path(s, 1, path);
    check_refused(path, STATUS_TRUNCATED, "part 3 of 3");
    s->parts[2].len += 64;
    s->parts[1].data[0] = 'X';
    gguf_split_write(s->parts, PARTS, s->stem);
    check_refused(path, STATUS_FORMAT, "part 2 of 3: this is not a GGUF file");
}

static void test_names(void **state)
{
    static const struct {
        const char *path;
        uint32_t count, number;
        size_t stem;
    } cases[] = {
        {"a-00001-of-00003.gguf", 3, 1, 1},
        {"/x/a-00003-of-00003.gguf", 3, 3, 4},
        {"a-99999-of-99999.gguf", 99999, 99999, 1},
        {"a-00004-of-00003.gguf", 1, 1, 21},
        {"a-00000-of-00003.gguf", 1, 1, 21},
        {"a-00001-of-00001.gguf", 1, 1, 21},
        {"a-0001-of-00003.gguf", 1, 1, 20},
        {"a-00001-of-0000x.gguf", 1, 1, 21},
        {"a-00001-of-00003.ggml", 1, 1, 21},
        {"/x/-00001-of-00003.gguf", 1, 1, 23},
        {"-00001-of-00003.gguf", 1, 1, 20},
        {"a.gguf", 1, 1, 6},
        {"", 1, 1, 0},
    };
    char *path;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint32_t number = 0;

        assert_int_equal(model_part_count(cases[i].path, &number), cases[i].count);
        assert_int_equal(number, cases[i].number);
        assert_int_equal(model_part_stem(cases[i].path), cases[i].stem);
    }
    path = model_part_path("/x/a-00003-of-12345.gguf", 12045);
    assert_string_equal(path, "/x/a-12045-of-12345.gguf");
    mem_free(path);
    check_refused("a-00003-of-12345.gguf", STATUS_LIMIT, "more than 1024");
}

static void test_no_memory(void **state)
{
    struct split *s = *state;
    struct model *model = NULL;
    enum status status = STATUS_NO_MEMORY;
    unsigned long n = 1;
    char path[128];

    part_path(s, 2, path);
    for (; status && n < 100000; n++) {
        mem_fail_after(n);
        status = model_open(path, &model, NULL);
        mem_fail_after(0);
        assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 10);
    model_free(&model);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(test_any_part_is_the_model),
        T(test_the_first_part_may_have_no_tensors),
        T(test_links),
        T(test_convert_joins),
        T(test_a_missing_part_is_named),
        T(test_wrong_counts),
        T(test_parts_that_do_not_belong_together),
        T(test_damaged_part),
        T(test_names),
        T(test_no_memory),
    };
#undef T

    return cmocka_run_group_tests(tests, NULL, NULL);
}
