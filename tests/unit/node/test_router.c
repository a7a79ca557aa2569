/* Routes and guards: which handler, which refusal, with which status. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "node/api/http.h"

static enum status find(const char *method, const char *path, const struct route **route,
                        const char **argument, char allow[static 64], struct api_error *error)
{
    *route = NULL;
    return route_find(api_routes, api_n_routes, method, path, route, argument, allow, error);
}

static void test_every_route_finds_itself(void **state)
{
    const struct route *route;
    const char *argument;
    struct api_error error;
    char allow[64];

    (void)state;
    for (size_t i = 0; i < api_n_routes; i++) {
        const char *path =
            strchr(api_routes[i].path, '{') ? "/v1/models/some/name:q4" : api_routes[i].path;
        assert_int_equal(find(api_routes[i].method, path, &route, &argument, allow, &error),
                         STATUS_OK);
        assert_ptr_equal(route, &api_routes[i]);
        assert_non_null(route->handle);
    }
    assert_int_equal(find("GET", "/v1/models/a/b", &route, &argument, allow, &error), STATUS_OK);
    assert_string_equal(argument, "a/b");
    assert_int_equal(find("HEAD", "/health", &route, &argument, allow, &error), STATUS_OK);
}

static void test_unknown_path_is_404(void **state)
{
    static const char *const paths[] = {
        "/", "", "/v1", "/v1/models/", "/v1/chat/completions/", "/v1/../health", "/V1/models"};
    const struct route *route;
    const char *argument;
    struct api_error error;
    char allow[64];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        assert_int_equal(find("GET", paths[i], &route, &argument, allow, &error), STATUS_NOT_FOUND);
        assert_int_equal(api_error_http(&error), 404);
        assert_null(route);
    }
}

static void test_other_method_is_405_with_allow(void **state)
{
    const struct route *route;
    const char *argument;
    struct api_error error;
    char allow[64];

    (void)state;
    assert_int_not_equal(find("GET", "/v1/chat/completions", &route, &argument, allow, &error),
                         STATUS_OK);
    assert_int_equal(api_error_http(&error), 405);
    assert_string_equal(allow, "POST");
    assert_int_not_equal(find("DELETE", "/v1/models", &route, &argument, allow, &error), STATUS_OK);
    assert_string_equal(allow, "GET, HEAD");
    assert_int_not_equal(find("OPTIONS", "/skein/models", &route, &argument, allow, &error),
                         STATUS_OK);
    assert_int_equal(api_error_http(&error), 405);
}

/* ---------------------------------------------------------------- guards */

static const struct route with_body = {.method = "POST", .path = "/x", .body = true};
static const struct route open_route = {.method = "GET", .path = "/health", .open = true};
static const struct guard loopback = {.loopback = true, .address = "127.0.0.1"};
static const struct guard loopback6 = {.loopback = true, .address = "::1"};
static const struct guard public_key = {.address = "0.0.0.0", .key = "0123456789abcdef"};

static int http_of(const struct guard *guard, struct guard_headers headers,
                   const struct route *route)
{
    struct api_error error;

    if (guard_check(guard, &headers, route, 1000, &error) == STATUS_OK)
        return 200;
    assert_true(error.fault.text[0] != '\0');
    assert_non_null(error.code);
    return api_error_http(&error);
}

static void test_framing(void **state)
{
    static const struct guard_headers bad[] = {
        {.host = "localhost", .n_hosts = 2},
        {.content_length = "1", .n_lengths = 2},
        {.content_length = "1", .n_lengths = 1, .transfer_encoding = "chunked", .n_encodings = 1},
        {.transfer_encoding = "gzip", .n_encodings = 1},
        {.transfer_encoding = "chunked, identity", .n_encodings = 1},
        {.transfer_encoding = "chunked", .n_encodings = 2},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_int_equal(http_of(&loopback, bad[i], NULL), 400);
    assert_int_equal(http_of(&loopback,
                             (struct guard_headers){.host = "localhost",
                                                    .n_hosts = 1,
                                                    .transfer_encoding = "Chunked",
                                                    .n_encodings = 1},
                             NULL),
                     200);
}

static void test_host(void **state)
{
    static const char *const good[] = {"localhost",  "localhost:8470", "127.0.0.1",   "127.0.0.1:1",
                                       "[::1]:8470", "[::1]",          "LOCALHOST:80"};
    static const char *const bad[] = {"evil.example",
                                      "localhost.evil.example",
                                      "127.0.0.1.evil.example",
                                      "127.0.0.1:80@evil",
                                      "[::1]x",
                                      "[::1",
                                      "",
                                      "192.168.1.7:8470",
                                      "localhost:80:80"};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        assert_int_equal(http_of(&loopback, (struct guard_headers){.host = good[i]}, NULL), 200);
        assert_int_equal(http_of(&loopback6, (struct guard_headers){.host = good[i]}, NULL), 200);
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_int_equal(http_of(&loopback, (struct guard_headers){.host = bad[i]}, NULL), 403);
    /* HTTP/1.0 has no Host, and no browser speaks it */
    assert_int_equal(http_of(&loopback, (struct guard_headers){.host = NULL}, NULL), 200);
    /* elsewhere the key is the guard */
    assert_int_equal(http_of(&public_key,
                             (struct guard_headers){.host = "any.example",
                                                    .authorization = "Bearer 0123456789abcdef"},
                             NULL),
                     200);
}

static void test_origin(void **state)
{
    (void)state;
    assert_int_equal(
        http_of(&loopback, (struct guard_headers){.origin = "http://localhost:8470"}, NULL), 200);
    assert_int_equal(
        http_of(&loopback, (struct guard_headers){.origin = "https://evil.example"}, NULL), 403);
    assert_int_equal(http_of(&loopback, (struct guard_headers){.origin = "null"}, NULL), 403);
    assert_int_equal(http_of(&loopback, (struct guard_headers){.fetch_site = "cross-site"}, NULL),
                     403);
    assert_int_equal(http_of(&loopback, (struct guard_headers){.fetch_site = "same-origin"}, NULL),
                     200);
}

static void test_bearer(void **state)
{
    static const char *const bad[] = {"Bearer 0123456789abcdeg",
                                      "Bearer 0123456789abcde",
                                      "Basic 0123456789abcdef",
                                      "0123456789abcdef",
                                      "Bearer ",
                                      "Bearer 0123456789abcdef0"};

    (void)state;
    assert_int_equal(http_of(&public_key, (struct guard_headers){0}, &with_body), 401);
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_int_equal(
            http_of(&public_key, (struct guard_headers){.authorization = bad[i]}, &with_body), 401);
    assert_int_equal(http_of(&public_key,
                             (struct guard_headers){.authorization = "bearer 0123456789abcdef"},
                             &with_body),
                     200);
    assert_int_equal(http_of(&public_key, (struct guard_headers){0}, &open_route), 200);
    /* an unknown path is no way to learn anything without the key */
    assert_int_equal(http_of(&public_key, (struct guard_headers){0}, NULL), 401);
}

static void test_body_headers(void **state)
{
    static const char *const long_ones[] = {"1001", "99999999999999999999999999",
                                            "18446744073709551617"};

    (void)state;
    assert_int_equal(
        http_of(&loopback, (struct guard_headers){.content_length = "1000"}, &with_body), 200);
    for (size_t i = 0; i < COUNT_OF(long_ones); i++)
        assert_int_equal(
            http_of(&loopback, (struct guard_headers){.content_length = long_ones[i]}, &with_body),
            413);
    assert_int_equal(
        http_of(&loopback, (struct guard_headers){.content_type = "application/json"}, &with_body),
        200);
    assert_int_equal(
        http_of(&loopback,
                (struct guard_headers){.content_type = "Application/JSON; charset=utf-8"},
                &with_body),
        200);
    assert_int_equal(
        http_of(&loopback, (struct guard_headers){.content_type = "text/plain"}, &with_body), 415);
    /* curl's default passes; the same from a page does not. */
    struct guard_headers form = {.content_type = "application/x-www-form-urlencoded"};
    assert_int_equal(http_of(&loopback, form, &with_body), 200);
    form.origin = "http://localhost";
    assert_int_equal(http_of(&loopback, form, &with_body), 415);
    assert_int_equal(
        http_of(&loopback, (struct guard_headers){.content_type = "application/jsonx"}, &with_body),
        415);
    assert_int_equal(
        http_of(&loopback, (struct guard_headers){.content_type = "text/plain"}, &open_route), 200);
}

/* ---------------------------------------------------------------- errors */

static void test_error_objects(void **state)
{
    struct api_error error;
    json_t *root, *object;

    (void)state;
    for (unsigned s = 1; s < STATUS_COUNT; s++) {
        (void)api_error_set(&error, (enum status)s, "model", NULL, "words %u", s);
        root = api_error_json(&error);
        object = json_object_get(root, "error");
        assert_true(json_is_string(json_object_get(object, "message")));
        assert_true(json_is_string(json_object_get(object, "type")));
        assert_string_equal(json_string_value(json_object_get(object, "param")), "model");
        /* what the command line makes of it is the same status again */
        assert_int_equal(api_error_status(json_string_value(json_object_get(object, "code")),
                                          api_error_http(&error)),
                         s);
        json_decref(root);
    }
    (void)api_error_set(&error, STATUS_CONTEXT, NULL, NULL, "bad \xff byte");
    root = api_error_json(&error);
    object = json_object_get(root, "error");
    assert_true(json_is_null(json_object_get(object, "param")));
    assert_string_equal(json_string_value(json_object_get(object, "message")), "bad ? byte");
    assert_string_equal(json_string_value(json_object_get(object, "code")),
                        "context_length_exceeded");
    json_decref(root);
}

static void test_unknown_codes(void **state)
{
    (void)state;
    assert_int_equal(api_error_status(NULL, 401), STATUS_AUTH);
    assert_int_equal(api_error_status("what", 404), STATUS_NOT_FOUND);
    assert_int_equal(api_error_status("what", 418), STATUS_INVALID);
    assert_int_equal(api_error_status("what", 599), STATUS_INTERNAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_route_finds_itself),
        cmocka_unit_test(test_unknown_path_is_404),
        cmocka_unit_test(test_other_method_is_405_with_allow),
        cmocka_unit_test(test_framing),
        cmocka_unit_test(test_host),
        cmocka_unit_test(test_origin),
        cmocka_unit_test(test_bearer),
        cmocka_unit_test(test_body_headers),
        cmocka_unit_test(test_error_objects),
        cmocka_unit_test(test_unknown_codes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
