/* What is checked of a request's headers before a byte of its body is read.
 *
 * A web page that the user visits can send requests to 127.0.0.1. Three checks keep it out: Host
 * must be a name of this box (a page that rebinds its own name sends that name), Origin, which
 * browsers add to what pages send, must be one, too, and a body must be declared as JSON, which a
 * page may not do across origins without asking first; and no CORS header ever says yes. On other
 * addresses the bearer key takes this part.
 *
 * What two readers could understand differently (two hosts, two lengths, a length beside an
 * encoding) is refused, so that no proxy before us takes for one request what we take for two.
 *
 * Sources: RFC 9112 6.3 (length of a body), RFC 9110 (Host, Content-Type, Content-Length), RFC 6750
 * (bearer), the Fetch standard. */
#include "node/api/http.h"

#include <ctype.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Whether "host", "host:port" or "[v6]:port" names this box. */
static bool host_is_ours(const struct guard *guard, const char *host)
{
    const char *ours[] = {"localhost", "127.0.0.1", "[::1]", guard->address, NULL, NULL};
    size_t n = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    char bracketed[80];

    if (n > strlen(host) || (host[n] != '\0' && host[n] != ':'))
        return false;
    for (const char *c = host + n + (host[n] == ':'); *c; c++)
        if (!isdigit((unsigned char)*c))
            return false;
    if (strchr(guard->address, ':')) {
        (void)snprintf(bracketed, sizeof bracketed, "[%s]", guard->address);
        ours[4] = bracketed;
    }
    for (size_t i = 0; ours[i]; i++)
        if (strlen(ours[i]) == n && strncasecmp(ours[i], host, n) == 0)
            return true;
    return false;
}

static bool origin_is_ours(const struct guard *guard, const char *origin)
{
    const char *host = strstr(origin, "://");

    return host && host_is_ours(guard, host + 3);
}

static bool key_matches(const char *key, const char *authorization)
{
    size_t n = strlen(key);

    if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0)
        return false;
    authorization += 7;
    authorization += strspn(authorization, " ");
    return strlen(authorization) == n && sodium_memcmp(authorization, key, n) == 0;
}

static bool type_is(const char *type, const char *wanted)
{
    size_t n = strcspn(type, "; \t");

    return n == strlen(wanted) && strncasecmp(type, wanted, n) == 0;
}

/* curl -d says "form" of every body; without an Origin no page sent it, so it is taken as JSON. */
static bool type_fits(const struct guard_headers *headers)
{
    const char *type = headers->content_type;

    return !type || type_is(type, "application/json") ||
           (!headers->origin && type_is(type, "application/x-www-form-urlencoded"));
}

/* A Content-Length that is no number is libmicrohttpd's to refuse. */
static bool length_is_over(const char *length, size_t max)
{
    size_t n = 0;

    for (; length && isdigit((unsigned char)*length); length++)
        if (__builtin_mul_overflow(n, (size_t)10, &n) ||
            __builtin_add_overflow(n, (size_t)(*length - '0'), &n))
            return true;
    return n > max;
}

static enum status framing_check(const struct guard_headers *headers, struct api_error *error)
{
    const char *problem = NULL;

    if (headers->wants_host && headers->n_hosts == 0)
        problem = "the header Host is missing";
    else if (headers->n_hosts > 1)
        problem = "Host is there more than once";
    else if (headers->n_lengths > 1)
        problem = "Content-Length is there more than once";
    else if (headers->n_lengths && headers->n_encodings)
        problem = "Content-Length and Transfer-Encoding exclude each other";
    else if (headers->n_encodings > 1 ||
             (headers->transfer_encoding && strcasecmp(headers->transfer_encoding, "chunked") != 0))
        problem = "the only Transfer-Encoding is chunked";
    if (!problem)
        return STATUS_OK;
    return api_error_set(error, STATUS_FORMAT, NULL, "invalid_request", "%s", problem);
}

enum status guard_check(const struct guard *guard, const struct guard_headers *headers,
                        const struct route *route, size_t max_body_bytes, struct api_error *error)
{
    enum status status = framing_check(headers, error);

    if (status != STATUS_OK)
        return status;
    if (guard->loopback && headers->host && !host_is_ours(guard, headers->host))
        return api_error_set(
            error, STATUS_PERMISSION, NULL, "host_not_allowed",
            "Host \"%.100s\" is not a name of this box; use localhost or 127.0.0.1", headers->host);
    if (guard->loopback && headers->origin && !origin_is_ours(guard, headers->origin))
        return api_error_set(error, STATUS_PERMISSION, NULL, "origin_not_allowed",
                             "pages of %.100s may not use this API", headers->origin);
    /* An image or a script that a page names is a GET without Origin; browsers say so here. */
    if (guard->loopback && headers->fetch_site && strcmp(headers->fetch_site, "cross-site") == 0)
        return api_error_set(error, STATUS_PERMISSION, NULL, "origin_not_allowed",
                             "pages of other sites may not use this API");
    if (guard->key && !(route && route->open) && !key_matches(guard->key, headers->authorization))
        return api_error_set(error, STATUS_AUTH, NULL, "invalid_api_key",
                             "this API wants its key in the header Authorization: Bearer KEY");
    if (length_is_over(headers->content_length, max_body_bytes))
        return api_error_set(error, STATUS_LIMIT, NULL, "body_too_large",
                             "the body has more than %zu bytes", max_body_bytes);
    if (route && route->body && !type_fits(headers)) {
        (void)api_error_set(error, STATUS_UNSUPPORTED, NULL, "unsupported_media_type",
                            "Content-Type \"%.100s\" is not application/json",
                            headers->content_type);
        error->http = MHD_HTTP_UNSUPPORTED_MEDIA_TYPE;
        return STATUS_UNSUPPORTED;
    }
    return STATUS_OK;
}
