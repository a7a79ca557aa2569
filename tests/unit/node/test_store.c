/* The model store on a real loop: what is offered, what is refused, what is remembered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "node/store/store.h"
#include "tests/harness/split_gguf.h"

struct fixture {
    char root[64];
    uv_loop_t loop;
    struct store *store;
    unsigned n_changed, n_notices, n_added, n_opened;
    char notice[512];
    struct fault fault;
    struct model_card card;
    const struct model *model;
    bool closed;
};

static void on_changed(void *owner)
{
    ((struct fixture *)owner)->n_changed++;
}

static void on_notice(void *owner, const char *text)
{
    struct fixture *f = owner;

    f->n_notices++;
    (void)snprintf(f->notice, sizeof f->notice, "%s", text);
}

static void on_closed(void *owner)
{
    ((struct fixture *)owner)->closed = true;
}

static void on_added(void *owner, const struct model_card *card, const struct fault *fault)
{
    struct fixture *f = owner;

    f->n_added++;
    f->card = *card;
    f->fault = *fault;
}

static void on_open(void *owner, const uint8_t hash[static PROTO_HASH_BYTES],
                    const struct model *model, const struct fault *fault)
{
    struct fixture *f = owner;

    (void)hash;
    f->n_opened++;
    f->model = model;
    f->fault = *fault;
}

static void open_store(struct fixture *f)
{
    struct store_events events = {on_changed, on_notice, on_closed, f};
    char cache[96];

    (void)snprintf(cache, sizeof cache, "%s/cache", f->root);
    f->closed = false;
    assert_int_equal(store_new(&f->loop, cache, ENGINE_NATIVE, &events, &f->store), STATUS_OK);
}

static void close_store(struct fixture *f)
{
    store_close(f->store);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_true(f->closed);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    strcpy(f->root, "/tmp/skein-store-XXXXXX");
    if (!mkdtemp(f->root) || uv_loop_init(&f->loop) != 0)
        return -1;
    open_store(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    char command[160];
    int rc;

    close_store(f);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    (void)snprintf(command, sizeof command, "rm -rf '%s'", f->root);
    free(f);
    rc = system(command);
    return rc;
}

/* Writes the demo model, or its first n bytes, with one byte of its last tensor changed by `mark`.
 */
static void write_model(const struct fixture *f, const char *name, size_t n_bytes, uint8_t mark,
                        char *path, size_t path_size)
{
    const void *data;
    size_t size_bytes;
    FILE *out;

    model_demo(&data, &size_bytes);
    if (n_bytes == 0)
        n_bytes = size_bytes;
    (void)snprintf(path, path_size, "%s/%s", f->root, name);
    out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(data, 1, n_bytes - 1, out), n_bytes - 1);
    (void)fputc(((const uint8_t *)data)[n_bytes - 1] ^ mark, out);
    assert_int_equal(fclose(out), 0);
}

static void run_until(struct fixture *f, const unsigned *count, unsigned wanted)
{
    for (int i = 0; i < 1000 && *count < wanted; i++) {
        (void)uv_run(&f->loop, UV_RUN_NOWAIT);
        usleep(5000);
    }
    assert_int_equal(*count, wanted);
}

static void test_the_demo_is_there_and_opens(void **state)
{
    struct fixture *f = *state;
    struct model_card cards[4];

    assert_int_equal(store_cards(f->store, cards, 4), 1);
    assert_string_equal(cards[0].name, "skein-tiny");
    assert_int_equal(store_open(f->store, cards[0].hash, on_open, f), STATUS_OK);
    assert_int_equal(f->n_opened, 0); /* never from inside */
    run_until(f, &f->n_opened, 1);
    assert_non_null(f->model);
    assert_ptr_equal(store_peek(f->store, cards[0].hash), f->model);
    assert_int_equal(store_open(f->store, cards[0].hash, on_open, f), STATUS_OK);
    run_until(f, &f->n_opened, 2);
    store_release(f->store, cards[0].hash);
    assert_non_null(store_peek(f->store, cards[0].hash));
    store_release(f->store, cards[0].hash);
    assert_null(store_peek(f->store, cards[0].hash));
}

static void on_open_release(void *owner, const uint8_t hash[static PROTO_HASH_BYTES],
                            const struct model *model, const struct fault *fault)
{
    struct fixture *f = owner;

    on_open(owner, hash, model, fault);
    if (model)
        store_release(f->store, hash);
}

static void test_one_that_releases_at_once_leaves_the_model_to_the_others(void **state)
{
    struct fixture *f = *state;
    struct model_card cards[4];

    assert_int_equal(store_cards(f->store, cards, 4), 1);
    assert_int_equal(store_open(f->store, cards[0].hash, on_open, f), STATUS_OK);
    for (int i = 0; i < 3; i++) /* told before it, since the last asker is told first */
        assert_int_equal(store_open(f->store, cards[0].hash, on_open_release, f), STATUS_OK);
    run_until(f, &f->n_opened, 4);
    assert_non_null(f->model);
    assert_ptr_equal(store_peek(f->store, cards[0].hash), f->model);
    store_release(f->store, cards[0].hash);
    assert_null(store_peek(f->store, cards[0].hash));
}

static void test_same_bytes_are_one_model(void **state)
{
    struct fixture *f = *state;
    struct model_card cards[4];
    char path[128];

    write_model(f, "renamed.gguf", 0, 0, path, sizeof path);
    assert_int_equal(store_add(f->store, path, on_added, f), STATUS_OK);
    run_until(f, &f->n_added, 1);
    assert_int_equal(f->fault.status, STATUS_OK);
    assert_int_equal(store_cards(f->store, cards, 4), 1);
    assert_memory_equal(cards[0].hash, f->card.hash, PROTO_HASH_BYTES);
}

static void test_other_bytes_are_another_model(void **state)
{
    struct fixture *f = *state;
    struct model_card cards[4];
    char path[128];

    write_model(f, "other.gguf", 0, 1, path, sizeof path);
    assert_int_equal(store_scan(f->store, f->root), STATUS_OK);
    run_until(f, &f->n_changed, 1);
    assert_int_equal(store_cards(f->store, cards, 4), 2);
    assert_string_equal(cards[0].name, "other");
    assert_memory_not_equal(cards[0].hash, cards[1].hash, PROTO_HASH_BYTES);
}

/* Writes the demo model in three parts. */
static void write_split(const struct fixture *f, const char *name)
{
    struct buffer parts[3] = {{0}};
    char stem[128];
    const void *data;
    size_t size_bytes;

    model_demo(&data, &size_bytes);
    gguf_split(data, size_bytes, 3, false, parts);
    (void)snprintf(stem, sizeof stem, "%s/%s", f->root, name);
    gguf_split_write(parts, 3, stem);
    gguf_split_free(parts, 3);
}

static void drop_part(const struct fixture *f, const char *name, uint32_t number)
{
    char stem[128], path[160];

    (void)snprintf(stem, sizeof stem, "%s/%s", f->root, name);
    gguf_split_path(stem, number, 3, path, sizeof path);
    assert_int_equal(unlink(path), 0);
}

static void test_a_split_model_is_one(void **state)
{
    struct fixture *f = *state;
    struct model_card cards[8];
    char path[128];

    write_split(f, "goose");
    assert_int_equal(store_scan(f->store, f->root), STATUS_OK);
    assert_int_equal(store_pending(f->store), 1);
    run_until(f, &f->n_changed, 1);
    assert_int_equal(store_cards(f->store, cards, 8), 2);
    assert_string_equal(cards[0].name, "goose");
    assert_true(cards[0].file_bytes > cards[1].file_bytes); /* all parts, each with a header */
    assert_int_equal(store_open(f->store, cards[0].hash, on_open, f), STATUS_OK);
    run_until(f, &f->n_opened, 1);
    assert_non_null(f->model);
    assert_int_equal(model_info(f->model)->file_bytes, cards[0].file_bytes);
    store_release(f->store, cards[0].hash);

    write_split(f, "gander"); /* another name, and named by another part: the same model */
    (void)snprintf(path, sizeof path, "%s/gander-00002-of-00003.gguf", f->root);
    assert_int_equal(store_add(f->store, path, on_added, f), STATUS_OK);
    run_until(f, &f->n_added, 1);
    assert_int_equal(f->fault.status, STATUS_OK);
    assert_memory_equal(f->card.hash, cards[0].hash, PROTO_HASH_BYTES);
    assert_int_equal(store_cards(f->store, cards, 8), 2);
}

static void test_a_part_that_is_not_there_is_told_once(void **state)
{
    struct fixture *f = *state;
    struct model_card cards[8];

    write_split(f, "goose");
    drop_part(f, "goose", 1);
    assert_int_equal(store_scan(f->store, f->root), STATUS_OK);
    assert_int_equal(store_pending(f->store), 1);
    run_until(f, &f->n_notices, 1);
    assert_non_null(strstr(f->notice, "part 1 of 3 is missing"));
    assert_non_null(strstr(f->notice, "goose-00001-of-00003.gguf"));
    assert_int_equal(store_cards(f->store, cards, 8), 1);
}

static void test_a_part_that_changed_is_another_model(void **state)
{
    struct fixture *f = *state;
    struct model_card first;
    char path[128];
    FILE *file;

    write_split(f, "goose");
    (void)snprintf(path, sizeof path, "%s/goose-00003-of-00003.gguf", f->root);
    assert_int_equal(store_add(f->store, path, on_added, f), STATUS_OK);
    run_until(f, &f->n_added, 1);
    first = f->card;
    usleep(20000);
    file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, -64, SEEK_END), 0);
    assert_int_equal(fwrite("\1\2\3\4", 1, 4, file), 4);
    fclose(file);
    assert_int_equal(store_add(f->store, path, on_added, f), STATUS_OK);
    run_until(f, &f->n_added, 2);
    assert_int_equal(f->fault.status, STATUS_OK);
    assert_memory_not_equal(f->card.hash, first.hash, PROTO_HASH_BYTES);
}

static void test_a_broken_file_is_told_and_not_offered(void **state)
{
    struct fixture *f = *state;
    struct model_card cards[4];
    char path[128];

    write_model(f, "cut.gguf", 100000, 0, path, sizeof path);
    assert_int_equal(store_scan(f->store, f->root), STATUS_OK);
    run_until(f, &f->n_notices, 1);
    assert_non_null(strstr(f->notice, "cut"));
    assert_int_equal(store_cards(f->store, cards, 4), 1);
    assert_int_equal(store_add(f->store, "/nowhere/x.gguf", on_added, f), STATUS_OK);
    run_until(f, &f->n_added, 1);
    assert_int_equal(f->fault.status, STATUS_NOT_FOUND);
}

static void test_a_file_that_changed_is_refused(void **state)
{
    struct fixture *f = *state;
    char path[128];

    write_model(f, "one.gguf", 0, 1, path, sizeof path);
    assert_int_equal(store_add(f->store, path, on_added, f), STATUS_OK);
    run_until(f, &f->n_added, 1);
    usleep(20000);
    write_model(f, "one.gguf", 0, 2, path, sizeof path);
    assert_int_equal(store_open(f->store, f->card.hash, on_open, f), STATUS_OK);
    run_until(f, &f->n_opened, 1);
    assert_null(f->model);
    assert_non_null(strstr(f->fault.text, "changed"));
}

static void test_hashes_are_remembered(void **state)
{
    struct fixture *f = *state;
    struct model_card first;
    char path[128], cache[96];

    write_model(f, "one.gguf", 0, 3, path, sizeof path);
    assert_int_equal(store_add(f->store, path, on_added, f), STATUS_OK);
    run_until(f, &f->n_added, 1);
    first = f->card;
    close_store(f);
    /* A hash that only the cache can have given: */
    (void)snprintf(cache, sizeof cache, "sed -i 's/[0-9a-f]$/%c/' '%s/cache'",
                   (first.hash[31] & 15) == 5 ? '6' : '5', f->root);
    assert_int_equal(system(cache), 0);
    open_store(f);
    assert_int_equal(store_add(f->store, path, on_added, f), STATUS_OK);
    run_until(f, &f->n_added, 2);
    assert_memory_equal(first.hash, f->card.hash, PROTO_HASH_BYTES - 1);
    assert_int_not_equal(first.hash[31], f->card.hash[31]);
}

static void test_closing_amid_work(void **state)
{
    struct fixture *f = *state;
    char path[128];

    write_model(f, "one.gguf", 0, 4, path, sizeof path);
    assert_int_equal(store_add(f->store, path, on_added, f), STATUS_OK);
    (void)uv_run(&f->loop, UV_RUN_NOWAIT); /* closed by tear_down while it is hashed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_demo_is_there_and_opens, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_one_that_releases_at_once_leaves_the_model_to_the_others, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_same_bytes_are_one_model, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_other_bytes_are_another_model, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_split_model_is_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_part_that_is_not_there_is_told_once, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_part_that_changed_is_another_model, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_broken_file_is_told_and_not_offered, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_file_that_changed_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hashes_are_remembered, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_closing_amid_work, set_up, tear_down),
    };

    if (proto_init() != STATUS_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
