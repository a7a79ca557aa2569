/* From method and path to a handler: a table, searched in order.
 *
 * What fails: an unknown path is 404; a known path with another method is 405, with the methods
 * that would do in Allow (RFC 9110, 15.5.6). HEAD is answered where GET is. */
#include "node/api/http.h"

#include <stdio.h>
#include <string.h>

static bool path_matches(const char *pattern, const char *path, const char **argument)
{
    const char *brace = strchr(pattern, '{');
    size_t n = brace ? (size_t)(brace - pattern) : 0;

    *argument = NULL;
    if (!brace)
        return strcmp(pattern, path) == 0;
    if (strncmp(pattern, path, n) != 0 || !path[n])
        return false;
    *argument = path + n;
    return true;
}

static bool method_matches(const char *wanted, const char *method)
{
    return strcmp(wanted, method) == 0 ||
           (strcmp(wanted, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

enum status route_find(const struct route *routes, size_t n, const char *method, const char *path,
                       const struct route **out, const char **argument, char allow[static 64],
                       struct api_error *error)
{
    bool known = false;

    allow[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        size_t at = strlen(allow);

        if (!path_matches(routes[i].path, path, argument))
            continue;
        known = true;
        if (method_matches(routes[i].method, method)) {
            *out = &routes[i];
            return STATUS_OK;
        }
        (void)snprintf(allow + at, 64 - at, "%s%s%s", at ? ", " : "", routes[i].method,
                       strcmp(routes[i].method, "GET") == 0 ? ", HEAD" : "");
    }
    if (!known)
        return api_error_set(error, STATUS_NOT_FOUND, NULL, "unknown_url",
                             "no such path: %s %.200s", method, path);
    (void)api_error_set(error, STATUS_UNSUPPORTED, NULL, "method_not_allowed",
                        "%.200s does not answer %.20s, only %s", path, method, allow);
    error->http = MHD_HTTP_METHOD_NOT_ALLOWED;
    return STATUS_UNSUPPORTED;
}
