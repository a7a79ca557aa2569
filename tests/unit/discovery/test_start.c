/* The public calls on a loop, with an interface that does not exist, so that nothing is ever sent.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>
#include <uv.h>

#include "discovery/discovery.h"

struct seen {
    struct discovery *discovery;
    unsigned n_interface;
    unsigned n_closed;
    bool close_within;
    char why[256];
};

static void on_interface(void *owner, const char *interface, bool usable, const char *why)
{
    struct seen *seen = owner;
    assert_string_equal(interface, "nosuch0");
    assert_false(usable);
    strncpy(seen->why, why, sizeof seen->why - 1);
    seen->n_interface++;
    if (seen->close_within)
        discovery_close(seen->discovery);
}

static void on_peer(void *owner, const struct discovery_peer *peer)
{
    (void)owner;
    (void)peer;
    fail();
}

static void on_gone(void *owner, const uint8_t node_id[static DISCOVERY_ID_BYTES])
{
    (void)owner;
    (void)node_id;
    fail();
}

static void on_closed(void *owner)
{
    ((struct seen *)owner)->n_closed++;
}

static const char *const missing[] = {"nosuch0", "nosuch0"};

static enum status start(uv_loop_t *loop, struct seen *seen, struct fault *fault)
{
    struct discovery_options options = {.interfaces = missing, .n_interfaces = 2};
    struct discovery_events events = {.on_peer = on_peer,
                                      .on_gone = on_gone,
                                      .on_foreign = on_peer,
                                      .on_interface = on_interface,
                                      .on_closed = on_closed,
                                      .owner = seen};
    return discovery_start(loop, &options, &events, &seen->discovery, fault);
}

static void on_time(uv_timer_t *timer)
{
    struct seen *seen = timer->data;
    discovery_close(seen->discovery);
    discovery_close(seen->discovery); /* twice does no harm */
    uv_close((uv_handle_t *)timer, NULL);
}

static void missing_interface_is_told_once(void **state)
{
    (void)state;
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct seen seen = {0};
    struct discovery_card card = {0};
    assert_int_equal(start(&loop, &seen, NULL), STATUS_OK);
    assert_int_equal(seen.n_interface, 0); /* no callback from within the call */
    discovery_update(seen.discovery, &card);
    discovery_doubt(seen.discovery, card.node_id);
    uv_timer_t timer;
    uv_timer_init(&loop, &timer);
    timer.data = &seen;
    uv_timer_start(&timer, on_time, 3500, 0); /* past the second look at the interfaces */
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(seen.n_interface, 1);
    assert_non_null(strstr(seen.why, "no such interface"));
    assert_int_equal(seen.n_closed, 1);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void close_from_a_callback(void **state)
{
    (void)state;
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct seen seen = {.close_within = true};
    assert_int_equal(start(&loop, &seen, NULL), STATUS_OK);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(seen.n_interface, 1);
    assert_int_equal(seen.n_closed, 1);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void close_before_the_loop_ran(void **state)
{
    (void)state;
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct seen seen = {0};
    assert_int_equal(start(&loop, &seen, NULL), STATUS_OK);
    discovery_close(seen.discovery);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(seen.n_interface, 0);
    assert_int_equal(seen.n_closed, 1);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void every_failed_allocation_is_clean(void **state)
{
    (void)state;
    uv_loop_t loop;
    uv_loop_init(&loop);
    unsigned long n = 1;
    for (;; n++) {
        struct seen seen = {.close_within = true};
        struct fault fault = {0};
        mem_fail_after(n);
        enum status status = start(&loop, &seen, &fault);
        mem_fail_after(0);
        if (status == STATUS_OK) {
            discovery_close(seen.discovery);
            uv_run(&loop, UV_RUN_DEFAULT);
            break;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_true(fault.text[0] != '\0');
        uv_run(&loop, UV_RUN_DEFAULT);
        assert_int_equal(seen.n_closed, 0);
    }
    assert_true(n > 2);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void bad_names_are_refused(void **state)
{
    (void)state;
    uv_loop_t loop;
    uv_loop_init(&loop);
    static const char *const bad[] = {"", "a-name-that-is-too-long"};
    struct discovery_events events = {.on_closed = on_closed};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct discovery_options options = {.interfaces = &bad[i], .n_interfaces = 1};
        struct discovery *discovery = NULL;
        struct fault fault = {0};
        assert_int_equal(discovery_start(&loop, &options, &events, &discovery, &fault),
                         STATUS_INVALID);
        assert_non_null(strstr(fault.text, bad[i]));
    }
    const char *many[DISCOVERY_MAX_INTERFACES + 1];
    for (size_t i = 0; i < COUNT_OF(many); i++)
        many[i] = "eth0";
    struct discovery_options options = {.interfaces = many, .n_interfaces = COUNT_OF(many)};
    struct discovery *discovery = NULL;
    assert_int_equal(discovery_start(&loop, &options, &events, &discovery, NULL), STATUS_LIMIT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_interface_is_told_once),
        cmocka_unit_test(close_from_a_callback),
        cmocka_unit_test(close_before_the_loop_ran),
        cmocka_unit_test(every_failed_allocation_is_clean),
        cmocka_unit_test(bad_names_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
