/* Hugging Face folders in the store: what makes two of them the same model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "node/store/model_file.h"

static char root[] = "/tmp/skein-folder-XXXXXX";

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[256];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", root, folder);
    (void)mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/%s/%s", root, folder, name);
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    fclose(file);
}

static void drop_file(const char *folder, const char *name)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s/%s", root, folder, name);
    assert_int_equal(unlink(path), 0);
}

static void hash_of(const char *folder, uint8_t out[static PROTO_HASH_BYTES])
{
    static const _Atomic bool stop;
    struct fault fault = {0};
    char path[256];

    snprintf(path, sizeof path, "%s/%s", root, folder);
    if (model_file_hash(path, &stop, out, &fault) != STATUS_OK)
        fail_msg("%s", fault.text);
}

static void identity_of(const char *folder, struct file_identity *out)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s", root, folder);
    assert_int_equal(model_file_identity(path, out, NULL), STATUS_OK);
}

static int make(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(root));
    write_file("a", "config.json", "{}");
    write_file("a", "model.safetensors", "weights");
    write_file("a", "README.md", "words");
    write_file("b", "model.safetensors", "weights");
    write_file("b", "config.json", "{}");
    return 0;
}

static int drop(void **state)
{
    static const char *const files[] = {"a/config.json",
                                        "a/model.safetensors",
                                        "a/README.md",
                                        "b/model.safetensors",
                                        "b/config.json",
                                        "a",
                                        "b",
                                        ""};
    char path[256];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        snprintf(path, sizeof path, "%s/%s", root, files[i]);
        (void)remove(path);
    }
    return 0;
}

static void test_same_files_are_one_model(void **state)
{
    uint8_t a[PROTO_HASH_BYTES], b[PROTO_HASH_BYTES];

    (void)state;
    hash_of("a", a);
    hash_of("b", b);
    assert_memory_equal(a, b, PROTO_HASH_BYTES);
    hash_of("b/", b);
    assert_memory_equal(a, b, PROTO_HASH_BYTES);
}

static void test_changes_make_another(void **state)
{
    uint8_t a[PROTO_HASH_BYTES], b[PROTO_HASH_BYTES];

    (void)state;
    hash_of("a", a);
    write_file("b", "config.json", "{ }");
    hash_of("b", b);
    assert_memory_not_equal(a, b, PROTO_HASH_BYTES);
    write_file("b", "config.json", "{}");
    write_file("b", "tokenizer.json", "{}");
    hash_of("b", b);
    assert_memory_not_equal(a, b, PROTO_HASH_BYTES);
    drop_file("b", "tokenizer.json");
    drop_file("b", "model.safetensors");
    write_file("b", "other.safetensors", "weights");
    hash_of("b", b);
    assert_memory_not_equal(a, b, PROTO_HASH_BYTES);
    drop_file("b", "other.safetensors");
    write_file("b", "model.safetensors", "weights");
    hash_of("b", b);
    assert_memory_equal(a, b, PROTO_HASH_BYTES);
}

static void test_identity(void **state)
{
    struct file_identity before, after;

    (void)state;
    identity_of("a", &before);
    assert_int_equal(before.size_bytes, strlen("{}") + strlen("weights"));
    write_file("a", "README.md", "many more words");
    identity_of("a", &after);
    assert_memory_equal(&before, &after, sizeof before);
    write_file("a", "config.json", "{  }");
    identity_of("a", &after);
    assert_int_not_equal(before.size_bytes, after.size_bytes);
    write_file("a", "config.json", "{}");
}

static void test_stop_and_no_folder(void **state)
{
    static const _Atomic bool stop = true;
    uint8_t hash[PROTO_HASH_BYTES];
    struct file_identity identity;
    struct fault fault = {0};
    char path[256], name[PROTO_MAX_MODEL_NAME];

    (void)state;
    snprintf(path, sizeof path, "%s/a", root);
    assert_int_equal(model_file_hash(path, &stop, hash, &fault), STATUS_CANCELLED);
    assert_int_equal(model_file_identity(root, &identity, &fault), STATUS_INVALID);
    model_file_name("/models/Goose-7B/", name);
    assert_string_equal(name, "Goose-7B");
    model_file_name("/models/goose.gguf", name);
    assert_string_equal(name, "goose");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_files_are_one_model),
        cmocka_unit_test(test_changes_make_another),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_stop_and_no_folder),
    };

    return cmocka_run_group_tests(tests, make, drop);
}
