/* Keys: the join text and its typing errors, files and their permissions, and two processes that
 * make the same file at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ctype.h>
#include <dirent.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/keyfile.h"
#include "proto/proto.h"

enum { PATH_BYTES = 256 };

static char folder[] = "/tmp/skein-test-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[PATH_BYTES];

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *path, const char *data, size_t n, mode_t mode)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
}

/* ---------------------------------------------------------------- join text */

static void test_join_text_there_and_back(void **state)
{
    uint8_t key[32], back[32];
    char text[PROTO_JOIN_TEXT];

    (void)state;
    for (unsigned round = 0; round < 200; round++) {
        for (unsigned i = 0; i < 32; i++)
            key[i] = (uint8_t)(round * 37 + i * (round + 3));
        if (round < 2)
            memset(key, round ? 0xff : 0, sizeof key);
        proto_cluster_key_to_text(key, text);
        assert_int_equal(strlen(text), 6 + 52 + 4);
        assert_int_equal(strncmp(text, "skein-", 6), 0);
        assert_int_equal(proto_cluster_key_from_text(text, back, NULL), STATUS_OK);
        assert_memory_equal(key, back, 32);
    }
}

/* A join line that once worked must always work. */
static void test_join_text_is_stable(void **state)
{
    static const char expected[] = "skein-000g40r40m30e209185gr38e1w8124gk2gahc5rr34d1p70x3rfg488p";
    uint8_t key[32];
    char text[PROTO_JOIN_TEXT];

    (void)state;
    for (unsigned i = 0; i < 32; i++)
        key[i] = (uint8_t)i;
    proto_cluster_key_to_text(key, text);
    assert_string_equal(text, expected);
}

static void test_join_text_forgives_spelling(void **state)
{
    uint8_t key[32] = {0, 0x10, 0x42, 0x08}, back[32];
    char text[PROTO_JOIN_TEXT], other[3 * PROTO_JOIN_TEXT];
    size_t n = 0;

    (void)state;
    proto_cluster_key_to_text(key, text);
    for (char *c = text; *c; c++)
        other[n++] = (char)toupper((unsigned char)*c);
    other[n] = 0;
    assert_int_equal(proto_cluster_key_from_text(other, back, NULL), STATUS_OK);
    n = 0;
    for (char *c = text; *c; c++) { /* dashes and blanks everywhere, o for 0, l and i for 1 */
        char letter = *c;

        if (c >= text + 6 && letter == '0')
            letter = 'O';
        if (c >= text + 6 && letter == '1')
            letter = (c - text) % 2 ? 'l' : 'I';
        other[n++] = letter;
        if (c >= text + 6 && (c - text) % 3 == 0)
            other[n++] = (c - text) % 2 ? '-' : ' ';
    }
    other[n++] = '\n';
    other[n] = 0;
    assert_int_equal(proto_cluster_key_from_text(other, back, NULL), STATUS_OK);
    assert_memory_equal(key, back, 32);
    assert_int_equal(proto_cluster_key_from_text(text + 6, back, NULL), STATUS_OK);
    assert_memory_equal(key, back, 32);
}

static void test_join_text_finds_typing_errors(void **state)
{
    static const char letters[] = "0123456789abcdefghjkmnpqrstvwxyz";
    uint8_t key[32] = {9, 8, 7}, back[32];
    char text[PROTO_JOIN_TEXT], bad[PROTO_JOIN_TEXT];
    unsigned n_passed = 0, n_all = 0;

    (void)state;
    proto_cluster_key_to_text(key, text);
    for (size_t i = 6; text[i]; i++) {
        for (const char *c = letters; *c; c++) {
            if (*c == text[i])
                continue;
            memcpy(bad, text, sizeof bad);
            bad[i] = *c;
            n_passed += proto_cluster_key_from_text(bad, back, NULL) == STATUS_OK;
            n_all++;
        }
        if (text[i + 1] && text[i] != text[i + 1]) { /* swapped neighbours */
            memcpy(bad, text, sizeof bad);
            bad[i] = text[i + 1];
            bad[i + 1] = text[i];
            assert_int_equal(proto_cluster_key_from_text(bad, back, NULL), STATUS_INVALID);
        }
    }
    assert_true(n_all > 1000 && n_passed == 0);
}

static void test_join_text_refuses_other_things(void **state)
{
    static const char *const bad[] = {
        "",      "skein-",  "skein",
        "hello", "skein-u", "skein-0000000000000000000000000000000000000000000000000000"};
    uint8_t key[32] = {9}, back[32], untouched[32] = {0};
    char text[PROTO_JOIN_TEXT + 2];
    struct fault fault = {0};

    (void)state;
    memset(back, 0, sizeof back);
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_int_equal(proto_cluster_key_from_text(bad[i], back, &fault), STATUS_INVALID);
    proto_cluster_key_to_text(key, text);
    memcpy(text + strlen(text), "0", 2);
    assert_int_equal(proto_cluster_key_from_text(text, back, &fault), STATUS_INVALID);
    text[strlen(text) - 1] = 0;
    text[20] = 'u';
    assert_int_equal(proto_cluster_key_from_text(text, back, &fault), STATUS_INVALID);
    text[20] = (char)0xc3;
    assert_int_equal(proto_cluster_key_from_text(text, back, &fault), STATUS_INVALID);
    assert_memory_equal(back, untouched, 32);
}

static void test_fingerprints(void **state)
{
    uint8_t key[32] = {1}, a[PROTO_FINGERPRINT_BYTES], b[PROTO_FINGERPRINT_BYTES];

    (void)state;
    proto_fingerprint(key, a);
    key[31] ^= 1;
    proto_fingerprint(key, b);
    assert_memory_not_equal(a, b, sizeof a);
    assert_memory_not_equal(a, key, sizeof a);
}

/* ---------------------------------------------------------------- files */

static void test_keys_are_made_once(void **state)
{
    const char *path = in_folder("new/deep/node.key");
    struct proto_identity first, again;
    struct stat st;
    uint8_t key[32], key_again[32];
    bool made;

    (void)state;
    assert_int_equal(proto_identity_load(path, &first, NULL), STATUS_OK);
    assert_int_equal(proto_identity_load(path, &again, NULL), STATUS_OK);
    assert_memory_equal(&first, &again, sizeof first);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(in_folder("new"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(stat(in_folder("new/deep"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    path = in_folder("new/cluster.key");
    assert_int_equal(proto_cluster_key_load(path, key, &made, NULL), STATUS_OK);
    assert_true(made);
    assert_int_equal(proto_cluster_key_load(path, key_again, &made, NULL), STATUS_OK);
    assert_false(made);
    assert_int_equal(proto_cluster_key_load(path, key_again, NULL, NULL), STATUS_OK);
    assert_memory_equal(key, key_again, 32);
    assert_memory_not_equal(key, first.secret_key, 32);
}

static void test_an_old_umask_does_not_open_a_key(void **state)
{
    struct proto_identity identity;
    struct stat st;
    mode_t old = umask(0);

    (void)state;
    assert_int_equal(proto_identity_load(in_folder("umask.key"), &identity, NULL), STATUS_OK);
    (void)umask(old);
    assert_int_equal(stat(in_folder("umask.key"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
}

static void test_loose_permissions_are_refused(void **state)
{
    static const mode_t loose[] = {0640, 0604, 0644, 0666, 0620, 0610, 0601};
    const char *path = in_folder("loose.key");
    struct proto_identity identity;
    struct fault fault = {0};
    char command[PATH_BYTES + 16];

    (void)state;
    assert_int_equal(proto_identity_load(path, &identity, NULL), STATUS_OK);
    (void)snprintf(command, sizeof command, "chmod 600 %s", path);
    for (size_t i = 0; i < COUNT_OF(loose); i++) {
        assert_int_equal(chmod(path, loose[i]), 0);
        assert_int_equal(proto_identity_load(path, &identity, &fault), STATUS_PERMISSION);
        assert_non_null(strstr(fault.text, command));
    }
    assert_int_equal(chmod(path, 0400), 0);
    assert_int_equal(proto_identity_load(path, &identity, &fault), STATUS_OK);
}

static void test_unreadable_files(void **state)
{
    const char *path = in_folder("unreadable.key");
    struct proto_identity identity;
    int code = 1;

    (void)state;
    assert_int_equal(proto_identity_load(path, &identity, NULL), STATUS_OK);
    assert_int_equal(chmod(path, 0), 0);
    if (fork() == 0) { /* root reads everything, so be someone else */
        struct fault fault = {0};

        if (geteuid() == 0 && setuid(65534) != 0)
            _exit(2);
        _exit(proto_identity_load(path, &identity, &fault) == STATUS_PERMISSION &&
                      strstr(fault.text, path)
                  ? 0
                  : 1);
    }
    assert_true(wait(&code) > 0);
    assert_int_equal(code, 0);
}

static void test_other_content_is_refused(void **state)
{
    static const struct {
        const char *text;
        size_t n;
    } cases[] = {
        {"", 0},
        {"\n", 1},
        {"hello\n", 6},
        {"skein-node-key-1 \n", 18},
        {"skein-node-key-1 0000000000000000000000000000000000000000000000000000000000000000x\n",
         83},
        {"skein-node-key-1 000000000000000000000000000000000000000000000000000000000000000\n", 81},
        {"skein-node-key-1 0000000000000000000000000000000000000000000000000000000000000000\0\n",
         83},
    };
    const char *path = in_folder("content.key");
    struct proto_identity identity;
    struct fault fault = {0};
    char big[4096];
    uint8_t key[32];

    (void)state;
    memset(big, 'a', sizeof big);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        write_file(path, cases[i].text, cases[i].n, 0600);
        assert_int_equal(proto_identity_load(path, &identity, &fault), STATUS_FORMAT);
        assert_non_null(strstr(fault.text, path));
        assert_int_equal(proto_cluster_key_load(path, key, NULL, &fault), STATUS_FORMAT);
    }
    write_file(path, big, sizeof big, 0600);
    assert_int_equal(proto_identity_load(path, &identity, &fault), STATUS_FORMAT);
    assert_int_equal(proto_identity_load(folder, &identity, &fault), STATUS_FORMAT);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0); /* must not hang */
    assert_int_equal(proto_identity_load(path, &identity, &fault), STATUS_FORMAT);
    assert_int_equal(unlink(path), 0);
}

static void test_places_where_no_key_can_be(void **state)
{
    struct proto_identity identity;
    struct fault fault = {0};
    char path[5000];

    (void)state;
    write_file(in_folder("plain"), "x", 1, 0600);
    assert_int_not_equal(proto_identity_load(in_folder("plain/node.key"), &identity, &fault),
                         STATUS_OK);
    assert_int_not_equal(proto_identity_load("/proc/no-such/node.key", &identity, &fault),
                         STATUS_OK);
    assert_true(fault.text[0] != 0);
    memset(path, 'a', sizeof path);
    path[sizeof path - 1] = 0;
    assert_int_not_equal(proto_identity_load(path, &identity, &fault), STATUS_OK);
}

static void test_storing_a_joined_key(void **state)
{
    const char *path = in_folder("join/cluster.key");
    uint8_t key[32] = {1, 2, 3}, other[32] = {4}, back[32];
    struct fault fault = {0};
    bool made;

    (void)state;
    assert_int_equal(proto_cluster_key_store(path, key, &fault), STATUS_OK);
    assert_int_equal(proto_cluster_key_store(path, key, &fault), STATUS_OK);
    assert_int_equal(proto_cluster_key_store(path, other, &fault), STATUS_IN_USE);
    assert_non_null(strstr(fault.text, path));
    assert_int_equal(proto_cluster_key_load(path, back, &made, &fault), STATUS_OK);
    assert_false(made);
    assert_memory_equal(key, back, 32);
}

/* Many processes at once end with one key, and leave nothing else behind. */
static void test_processes_that_start_at_once_agree(void **state)
{
    const char *path = in_folder("race/cluster.key");

    (void)state;
    for (int round = 0; round < 20; round++) {
        int results[2], n_made = 0, n_files = 0;
        uint8_t first[33], key[33];
        DIR *dir;

        assert_int_equal(pipe(results), 0);
        for (int i = 0; i < 8; i++) {
            if (fork() == 0) {
                bool made = false;
                enum status status = proto_cluster_key_load(path, key, &made, NULL);

                key[32] = (uint8_t)made;
                _exit(status == STATUS_OK && write(results[1], key, 33) == 33 ? 0 : 1);
            }
        }
        for (int i = 0; i < 8; i++) {
            int code = 1;

            assert_true(wait(&code) > 0);
            assert_int_equal(code, 0);
            assert_int_equal(read(results[0], key, 33), 33);
            n_made += key[32];
            if (i == 0)
                memcpy(first, key, 32);
            assert_memory_equal(first, key, 32);
        }
        assert_int_equal(n_made, 1);
        dir = opendir(in_folder("race"));
        while (readdir(dir))
            n_files++;
        (void)closedir(dir);
        assert_int_equal(n_files, 3); /* ".", ".." and the key */
        path = in_folder("race/cluster.key");
        assert_int_equal(unlink(path), 0);
        (void)close(results[0]);
        (void)close(results[1]);
    }
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL || proto_init() != STATUS_OK;
}

static int remove_folder(void **state)
{
    char command[PATH_BYTES];

    (void)state;
    (void)snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_join_text_there_and_back),
        cmocka_unit_test(test_join_text_is_stable),
        cmocka_unit_test(test_join_text_forgives_spelling),
        cmocka_unit_test(test_join_text_finds_typing_errors),
        cmocka_unit_test(test_join_text_refuses_other_things),
        cmocka_unit_test(test_fingerprints),
        cmocka_unit_test(test_keys_are_made_once),
        cmocka_unit_test(test_an_old_umask_does_not_open_a_key),
        cmocka_unit_test(test_loose_permissions_are_refused),
        cmocka_unit_test(test_unreadable_files),
        cmocka_unit_test(test_other_content_is_refused),
        cmocka_unit_test(test_places_where_no_key_can_be),
        cmocka_unit_test(test_storing_a_joined_key),
        cmocka_unit_test(test_processes_that_start_at_once_agree),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
