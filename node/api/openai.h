#ifndef SKEIN_NODE_API_OPENAI_H
#define SKEIN_NODE_API_OPENAI_H

/* OpenAI's request and response bodies, without any HTTP. */
#include "node/api/http.h"

struct openai_request { /* zero-initialise; openai_request_free */
    struct request_spec spec;
    struct buffer body; /* for node_submit */
    bool stream, include_usage;
};

/* Checks the JSON of POST /v1/chat/completions (REQUEST_CHAT) or /v1/completions (REQUEST_TEXT).
 * Every field is honoured, known to be harmless, or refused by name. Errors: FORMAT, LIMIT for the
 * JSON; INVALID for a wrong type or value, UNSUPPORTED for what cannot be done, `param` set. */
enum status openai_request_parse(enum request_kind kind, const char *json, size_t n_bytes,
                                 struct openai_request *out, struct api_error *error) MUST_USE;
void openai_request_free(struct openai_request *request);

/* Seed 0 means "any" to a node; a client that says 0 wants the same answer each time, and gets the
 * one of this number. Answers say 0 again. */
#define OPENAI_SEED_FOR_ZERO 0x9e3779b97f4a7c15u
/* As json_parse, with one allowance: the whole numbers of the root's member "seed" go up to 2^64 -
 * 1, those above 2^63 - 1 come out as strings of digits. */
enum status openai_json_parse(const char *json, size_t n_bytes, json_t **out,
                              struct api_error *error) MUST_USE;

/* messages (an array) with every content a text or null and only roles that templates know, as a
 * new array. Errors: INVALID, UNSUPPORTED with the path of the field, NO_MEMORY. */
enum status openai_messages(const json_t *messages, json_t **out, struct api_error *error) MUST_USE;

/* What the bodies of one answer have in common. */
struct openai_answer {
    enum request_kind kind;
    char id[48];
    char model[PROTO_MAX_MODEL_NAME];
    int64_t created;
    uint64_t seed;
};
/* All return NULL without memory. */
json_t *openai_chunk_start(
    const struct openai_answer *answer); /* NULL too for TEXT: none is sent */
json_t *openai_chunk_text(const struct openai_answer *answer, const char *text, size_t n_bytes);
json_t *openai_chunk_end(const struct openai_answer *answer, const struct request_result *result);
json_t *openai_chunk_usage(const struct openai_answer *answer, const struct request_result *result);
json_t *openai_reply(const struct openai_answer *answer, const char *text, size_t n_bytes,
                     const struct request_result *result);

#endif
