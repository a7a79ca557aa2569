/* The JSON of answers: chat.completion, text_completion, and their chunks.
 *
 * Field names and order as in OpenAI's API reference (chat/object, chat/streaming,
 * completions/object). Beside them stands one object of our own, "skein": how many stages computed
 * it, how long prefill and decode took, tokens per second of decode, and the seed that gives the
 * same answer again (digits in a string where it is above 2^63 - 1; a request may say it so). */
#include "node/api/openai.h"

#include <stdio.h>
#include <string.h>

static const char *finish_reason(const struct request_result *result)
{
    return result->end == REQUEST_END_LENGTH ? "length" : "stop";
}

/* As in a request: beyond what JSON readers hold exactly as a number, the digits are a string. */
static json_t *seed_json(uint64_t seed)
{
    char digits[24];

    if (seed == OPENAI_SEED_FOR_ZERO)
        return json_integer(0);
    if (seed <= INT64_MAX)
        return json_integer((json_int_t)seed);
    (void)snprintf(digits, sizeof digits, "%llu", (unsigned long long)seed);
    return json_string(digits);
}

static json_t *usage(const struct request_result *result)
{
    return json_pack("{s:I, s:I, s:I}", "prompt_tokens", (json_int_t)result->n_prompt,
                     "completion_tokens", (json_int_t)result->n_generated, "total_tokens",
                     (json_int_t)result->n_prompt + result->n_generated);
}

/* The first token comes out of prefill, so decode made one token less. */
static json_t *skein(const struct openai_answer *answer, const struct request_result *result)
{
    uint32_t n_decoded = result->n_generated > 1 ? result->n_generated - 1 : 0;
    double rate = result->decode_seconds > 0 ? n_decoded / result->decode_seconds : 0;

    json_t *own = json_pack("{s:I, s:f, s:f, s:f, s:o}", "stages", (json_int_t)result->n_stages,
                            "prefill_seconds", result->prefill_seconds, "decode_seconds",
                            result->decode_seconds, "tokens_per_second", rate, "seed",
                            seed_json(answer->seed));

    if (own && result->notice[0])
        (void)json_object_set_new(own, "notice", json_text(result->notice, strlen(result->notice)));
    return own;
}

static json_t *chunk(const struct openai_answer *answer, json_t *choices)
{
    return json_pack("{s:s, s:s, s:I, s:o, s:o}", "id", answer->id, "object",
                     answer->kind == REQUEST_CHAT ? "chat.completion.chunk" : "text_completion",
                     "created", (json_int_t)answer->created, "model",
                     json_text(answer->model, strlen(answer->model)), "choices", choices);
}

json_t *openai_chunk_start(const struct openai_answer *answer)
{
    if (answer->kind != REQUEST_CHAT)
        return NULL;
    return chunk(answer, json_pack("[{s:i, s:{s:s, s:s}, s:n, s:n}]", "index", 0, "delta", "role",
                                   "assistant", "content", "", "logprobs", "finish_reason"));
}

json_t *openai_chunk_text(const struct openai_answer *answer, const char *text, size_t n_bytes)
{
    json_t *content = json_text(text, n_bytes);

    if (answer->kind == REQUEST_CHAT)
        return chunk(answer, json_pack("[{s:i, s:{s:o}, s:n, s:n}]", "index", 0, "delta", "content",
                                       content, "logprobs", "finish_reason"));
    return chunk(answer, json_pack("[{s:i, s:o, s:n, s:n}]", "index", 0, "text", content,
                                   "logprobs", "finish_reason"));
}

json_t *openai_chunk_end(const struct openai_answer *answer, const struct request_result *result)
{
    json_t *choices = answer->kind == REQUEST_CHAT
                          ? json_pack("[{s:i, s:{}, s:n, s:s}]", "index", 0, "delta", "logprobs",
                                      "finish_reason", finish_reason(result))
                          : json_pack("[{s:i, s:s, s:n, s:s}]", "index", 0, "text", "", "logprobs",
                                      "finish_reason", finish_reason(result));
    json_t *value = chunk(answer, choices);

    if (value && json_object_set_new(value, "skein", skein(answer, result)) != 0) {
        json_decref(value);
        return NULL;
    }
    return value;
}

json_t *openai_chunk_usage(const struct openai_answer *answer, const struct request_result *result)
{
    json_t *value = chunk(answer, json_array());

    if (value && json_object_set_new(value, "usage", usage(result)) != 0) {
        json_decref(value);
        return NULL;
    }
    return value;
}

json_t *openai_reply(const struct openai_answer *answer, const char *text, size_t n_bytes,
                     const struct request_result *result)
{
    json_t *content = json_text(text, n_bytes);
    json_t *choices = answer->kind == REQUEST_CHAT
                          ? json_pack("[{s:i, s:{s:s, s:o, s:n}, s:n, s:s}]", "index", 0, "message",
                                      "role", "assistant", "content", content, "refusal",
                                      "logprobs", "finish_reason", finish_reason(result))
                          : json_pack("[{s:i, s:o, s:n, s:s}]", "index", 0, "text", content,
                                      "logprobs", "finish_reason", finish_reason(result));

    return json_pack("{s:s, s:s, s:I, s:o, s:o, s:o, s:o}", "id", answer->id, "object",
                     answer->kind == REQUEST_CHAT ? "chat.completion" : "text_completion",
                     "created", (json_int_t)answer->created, "model",
                     json_text(answer->model, strlen(answer->model)), "choices", choices, "usage",
                     usage(result), "skein", skein(answer, result));
}
