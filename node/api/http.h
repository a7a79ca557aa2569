#ifndef SKEIN_NODE_API_HTTP_H
#define SKEIN_NODE_API_HTTP_H

/* Inside the API. An exchange is one HTTP request and its answer; a handler either fills the
 * exchange's reply at once, or keeps the exchange waiting (exchange_wait) and finishes it later. */
#include <jansson.h>
#include <microhttpd.h>

#include "node/api/api.h"

enum {
    HTTP_MAX_CONNECTIONS = 256,
    HTTP_MAX_PER_HOST = 64,                 /* where the API is open to other boxes */
    HTTP_MEMORY_PER_CONNECTION = 64 * 1024, /* request line and headers fit in half of it */
    HTTP_SPARE_CONNECTIONS = 16,            /* kept free: the longest idle ones go for them */
    HTTP_IDLE_SECONDS = 30,                 /* without a byte either way */
    HTTP_HEADER_SECONDS = 10,               /* for the headers of a request to come */
    HTTP_REQUEST_SECONDS = 60,              /* for a whole request to arrive */
    HTTP_DRAIN_BYTES = 64 * 1024 * 1024,    /* of a refused body, so that the refusal can be read */
    HTTP_BODY_BYTES = 8 * 1024 * 1024,      /* default limit */
    HTTP_STREAM_BYTES = 256 * 1024,         /* waiting for a client that reads slowly */
    HTTP_TEXT_BYTES = 16 * 1024 * 1024,     /* of an answer that is sent as one piece */
    HTTP_COMMENT_SECONDS = 5,
    JSON_MAX_DEPTH = 32,
    JSON_MAX_VALUES = 200000
};

/* An error as OpenAI's clients expect it. */
struct api_error {
    struct fault fault;
    int http;         /* 0: as the status says */
    char param[96];   /* the field, "" for none */
    const char *code; /* static text, NULL for none */
};
/* Fills all; returns status. param and code may be NULL. */
enum status api_error_set(struct api_error *error, enum status status, const char *param,
                          const char *code, const char *format, ...) PRINTF_LIKE(5, 6);
/* Says that the fault, NOT_FOUND, is about the field `model`. */
void api_error_no_model(struct api_error *error);
/* Says which field of a completion's request the fault of a node is about, where it is known. */
void api_error_place(struct api_error *error, bool chat);
/* The status that `code` of an error object came from, or else what the HTTP status is nearest to.
 */
enum status api_error_status(const char *code, int http);
int api_error_http(const struct api_error *error);
/* {"error": {message, type, param, code}}; NULL without memory. */
json_t *api_error_json(const struct api_error *error);
/* A JSON string of any bytes: what is not UTF-8 becomes '?'. */
json_t *json_text(const char *text, size_t n_bytes);
/* Parses one JSON value with bounds on depth and number of values, checked before anything is
 * allocated for them. Errors: FORMAT with the position, LIMIT. */
enum status json_parse(const char *text, size_t n_bytes, json_t **out,
                       struct api_error *error) MUST_USE;
/* Compact text of a value, appended. */
enum status json_write(const json_t *value, struct buffer *out) MUST_USE;

/* ---------------------------------------------------------------- routes */

struct exchange;
enum { ROUTE_MAX_METHODS = 2 };
struct route {
    const char *method;
    const char *path; /* a last part of "{id}" matches the rest of the path */
    void (*handle)(struct exchange *exchange);
    bool body;     /* wants JSON */
    bool open;     /* answered without the bearer key */
    bool starting; /* answered before the node is ready */
};

/* NOT_FOUND, or UNSUPPORTED with http 405 and `allow` filled ("GET, HEAD"). *argument points into
 * path, at what stands for {id}, or is NULL. */
enum status route_find(const struct route *routes, size_t n, const char *method, const char *path,
                       const struct route **out, const char **argument, char allow[static 64],
                       struct api_error *error) MUST_USE;

/* ---------------------------------------------------------------- guards */

/* What a request's headers must satisfy before its body is read. */
struct guard {
    bool loopback;    /* Host and Origin are checked, against web pages that reach for us */
    char address[64]; /* as bound, numeric */
    const char *key;  /* bearer key or NULL */
};
struct guard_headers { /* NULL where absent */
    const char *host, *origin, *fetch_site, *authorization, *content_type, *content_length;
    const char *transfer_encoding;
    unsigned n_hosts, n_lengths, n_encodings; /* how often they were sent */
    bool wants_host;                          /* HTTP/1.1 */
};
enum status guard_check(const struct guard *guard, const struct guard_headers *headers,
                        const struct route *route, size_t max_body_bytes,
                        struct api_error *error) MUST_USE;

/* ---------------------------------------------------------------- event streams */

struct sse { /* zero-initialise, set out.max_bytes */
    struct buffer out;
    size_t taken; /* of out, already with the client */
    uint64_t last_us;
};
/* LIMIT where the client is too far behind. */
enum status sse_event(struct sse *sse, const json_t *value) MUST_USE;
enum status sse_text(struct sse *sse, const char *line) MUST_USE; /* "data: LINE" */
enum status sse_comment(struct sse *sse) MUST_USE;
size_t sse_waiting(const struct sse *sse);
size_t sse_take(struct sse *sse, char *out, size_t max);
void sse_free(struct sse *sse);

/* ---------------------------------------------------------------- server */

struct client { /* one TCP connection */
    struct client *next, *previous;
    int fd;
    bool busy;         /* a whole request is here and being answered */
    bool in_request;   /* its headers are here */
    bool shut;         /* by us; libmicrohttpd is about to see it */
    uint64_t since_us; /* when it became idle */
};

struct http {
    struct node *node;
    struct MHD_Daemon *daemon;
    const struct route *routes;
    size_t n_routes;
    struct guard guard;
    char *key; /* owned copy */
    size_t max_body_bytes;
    uint64_t now_us;                 /* set by the shell before it calls in */
    void (*wake)(struct http *http); /* the shell's: run libmicrohttpd soon */
    uint16_t port;
    bool ready, closing;
    uint64_t id_high, n_ids;
    struct client *clients;
    unsigned n_clients;
    struct exchange *exchanges;
};

struct reply {
    int http;
    const char *type; /* NULL: application/json */
    struct buffer body;
    char allow[64];
    unsigned retry_after_seconds;
    bool close; /* the connection ends with this answer */
};

struct completion;
struct pending;

struct exchange {
    struct exchange *next, *previous;
    struct http *http;
    struct MHD_Connection *connection;
    struct client *client;
    const struct route *route;
    const char *argument; /* of {id}; into url */
    char *url;
    struct buffer body;
    size_t discarded_bytes;
    bool refused;    /* reply holds why; the body is thrown away */
    bool dispatched; /* the handler was called */
    bool suspended;  /* MHD does not look at the connection */
    bool gone;       /* the client left: close, say nothing */
    struct reply reply;
    struct completion *completion; /* of a streaming or waiting completion */
    struct pending *pending;       /* of a waiting admin call */
};

/* libmicrohttpd's callbacks, for MHD_start_daemon. cls is struct http. */
enum MHD_Result http_on_access(void *cls, struct MHD_Connection *connection, const char *url,
                               const char *method, const char *version, const char *upload,
                               size_t *upload_bytes, void **context);
void http_on_completed(void *cls, struct MHD_Connection *connection, void **context,
                       enum MHD_RequestTerminationCode code);
void http_on_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
                        enum MHD_ConnectionNotificationCode code);
/* Twice a second: clients that left or never finish their request, comments on silent streams. */
void http_tick(struct http *http);
/* Ends whatever waits, with an error; the connections close once it is sent. */
void http_end_all(struct http *http);

const char *exchange_query(const struct exchange *exchange, const char *name);
void exchange_reply_json(struct exchange *exchange, int http, json_t *value); /* takes value */
void exchange_fail(struct exchange *exchange, const struct api_error *error);
void exchange_fail_with(struct exchange *exchange, const struct fault *fault);
void exchange_suspend(struct exchange *exchange);
void exchange_resume(struct exchange *exchange);

/* completion.c: the exchange's own reply where a completion has one (a stream). */
void completion_chat(struct exchange *exchange);
void completion_text(struct exchange *exchange);
bool completion_streams(const struct completion *completion); /* and has begun */
struct MHD_Response *completion_response(struct completion *completion);
void completion_detach(struct completion *completion); /* the exchange is over */
void completion_tick(struct completion *completion);
void completion_end(struct completion *completion, const struct fault *fault);

/* admin.c */
extern const struct route api_routes[];
extern const size_t api_n_routes;
void pending_detach(struct pending *pending);

#endif
