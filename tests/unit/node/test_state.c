/* The state folder: one node a folder, keys that stay, keys that are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/state.h"

struct place {
    char root[64];
    char folder[96]; /* below root, not there yet */
};

static int set_up(void **state)
{
    static struct place place;

    strcpy(place.root, "/tmp/skein-state-XXXXXX");
    if (!mkdtemp(place.root))
        return -1;
    (void)snprintf(place.folder, sizeof place.folder, "%s/a/b", place.root);
    *state = &place;
    return 0;
}

static int tear_down(void **state)
{
    struct place *place = *state;
    char command[160];

    (void)snprintf(command, sizeof command, "rm -rf '%s'", place->root);
    return system(command);
}

static void test_keys_stay(void **state)
{
    struct place *place = *state;
    struct node_state first, second;
    struct stat st;

    assert_int_equal(node_state_open(place->folder, NULL, NULL, &first, NULL), STATUS_OK);
    assert_true(first.key_made);
    assert_int_equal(stat(place->folder, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    struct node_state copy = first;
    node_state_close(&first);
    assert_int_equal(node_state_open(place->folder, NULL, NULL, &second, NULL), STATUS_OK);
    assert_false(second.key_made);
    assert_memory_equal(copy.identity.public_key, second.identity.public_key, PROTO_ID_BYTES);
    assert_memory_equal(copy.cluster_key, second.cluster_key, PROTO_KEY_BYTES);
    node_state_close(&second);
}

static void test_one_node_a_folder(void **state)
{
    struct place *place = *state;
    struct node_state first, second;
    struct fault fault = {0};
    char pid[32];

    assert_int_equal(node_state_open(place->folder, NULL, NULL, &first, NULL), STATUS_OK);
    assert_int_equal(node_state_open(place->folder, NULL, NULL, &second, &fault), STATUS_IN_USE);
    (void)snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    assert_non_null(strstr(fault.text, pid));
    assert_non_null(strstr(fault.text, "--state"));
    node_state_close(&second);
    node_state_close(&first);
    assert_int_equal(node_state_open(place->folder, NULL, NULL, &second, NULL), STATUS_OK);
    node_state_close(&second);
}

static void test_join_becomes_the_key(void **state)
{
    struct place *place = *state;
    struct node_state first, second;
    char join[PROTO_JOIN_TEXT];
    char folder[128];
    struct fault fault = {0};

    assert_int_equal(node_state_open(place->folder, NULL, NULL, &first, NULL), STATUS_OK);
    proto_cluster_key_to_text(first.cluster_key, join);
    (void)snprintf(folder, sizeof folder, "%s/other", place->root);
    assert_int_equal(node_state_open(folder, NULL, join, &second, NULL), STATUS_OK);
    assert_memory_equal(first.cluster_key, second.cluster_key, PROTO_KEY_BYTES);
    node_state_close(&second);
    join[10] = join[10] == 'a' ? 'b' : 'a';
    assert_int_equal(node_state_open(folder, NULL, join, &second, &fault), STATUS_INVALID);
    node_state_close(&second);
    node_state_close(&first);
}

static void test_loose_permissions_are_refused(void **state)
{
    struct place *place = *state;
    struct node_state node;
    struct fault fault = {0};
    char path[160];

    assert_int_equal(node_state_open(place->folder, NULL, NULL, &node, NULL), STATUS_OK);
    node_state_close(&node);
    (void)snprintf(path, sizeof path, "%s/cluster.key", place->folder);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(node_state_open(place->folder, NULL, NULL, &node, &fault), STATUS_PERMISSION);
    assert_non_null(strstr(fault.text, "chmod 600"));
    node_state_close(&node);
}

static void test_without_a_folder_nothing_is_kept(void **state)
{
    struct node_state first, second;

    (void)state;
    assert_int_equal(node_state_open(NULL, NULL, NULL, &first, NULL), STATUS_OK);
    assert_int_equal(node_state_open(NULL, NULL, NULL, &second, NULL), STATUS_OK);
    assert_memory_not_equal(first.cluster_key, second.cluster_key, PROTO_KEY_BYTES);
    assert_memory_not_equal(first.identity.public_key, second.identity.public_key, PROTO_ID_BYTES);
    node_state_close(&first);
    node_state_close(&second);
}

static void test_a_folder_that_cannot_be_made(void **state)
{
    struct node_state node;
    struct fault fault = {0};

    (void)state;
    assert_int_not_equal(node_state_open("/dev/null/x", NULL, NULL, &node, &fault), STATUS_OK);
    assert_non_null(strstr(fault.text, "/dev/null"));
    node_state_close(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_keys_stay, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_one_node_a_folder, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_join_becomes_the_key, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_loose_permissions_are_refused, set_up, tear_down),
        cmocka_unit_test(test_without_a_folder_nothing_is_kept),
        cmocka_unit_test(test_a_folder_that_cannot_be_made),
    };

    if (proto_init() != STATUS_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
