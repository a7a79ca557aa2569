/* Messages: the plain struct that the program works with, its life, and what may follow it.
 *
 * protobuf-c's generated structs are full of pointers and optional parts. They stay inside
 * message_pack.c and message_unpack.c; everyone else sees one flat struct with fixed bounds, so a
 * message that exists is a message that was checked. This file holds what both directions share:
 * names, creation, and the rule for each kind's payload. */
#include "proto/message.h"

#include <assert.h>
#include <stddef.h>

static const char *const kind_names[MESSAGE_KIND_LIMIT] = {
    [MESSAGE_CARD] = "card",
    [MESSAGE_PING] = "ping",
    [MESSAGE_PONG] = "pong",
    [MESSAGE_PEERS] = "peers",
    [MESSAGE_PREPARE] = "prepare",
    [MESSAGE_PREPARED] = "prepared",
    [MESSAGE_LOAD] = "load",
    [MESSAGE_LOADED] = "loaded",
    [MESSAGE_RELEASE] = "release",
    [MESSAGE_PASS] = "pass",
    [MESSAGE_SUBMIT] = "submit",
    [MESSAGE_PASS_FAILED] = "pass_failed",
    [MESSAGE_TOKENS] = "tokens",
    [MESSAGE_ACCEPTED] = "accepted",
    [MESSAGE_DONE] = "done",
    [MESSAGE_CANCEL] = "cancel",
    [MESSAGE_CLOSE_IDLE] = "close_idle",
    [MESSAGE_IDLE_CLOSED] = "idle_closed",
};

const char *message_kind_name(enum message_kind kind)
{
    return kind > 0 && kind < MESSAGE_KIND_LIMIT ? kind_names[kind] : "?";
}

struct message *message_new(enum message_kind kind)
{
    struct message *message = MEM_NEW(struct message);

    assert(kind > 0 && kind < MESSAGE_KIND_LIMIT);
    if (message)
        message->kind = kind;
    return message;
}

void message_free(struct message **message)
{
    if (!*message)
        return;
    mem_free((*message)->payload);
    mem_free(*message);
    *message = NULL;
}

static enum status payload_fail(struct fault *fault, enum status status, const struct message *m,
                                size_t payload_bytes)
{
    return fault_set(fault, status, "a message \"%s\" came with a payload of %zu bytes",
                     message_kind_name(m->kind), payload_bytes);
}

enum status message_check_payload(const struct message *m, size_t payload_bytes,
                                  struct fault *fault)
{
    bool good = payload_bytes == 0;

    if (payload_bytes > PROTO_MAX_PAYLOAD_BYTES ||
        (m->kind == MESSAGE_SUBMIT && payload_bytes > PROTO_MAX_PROMPT_BYTES))
        return payload_fail(fault, STATUS_LIMIT, m, payload_bytes);
    if (m->kind == MESSAGE_PASS && m->pass.n_rows)
        good = payload_bytes && payload_bytes % (sizeof(float) * m->pass.n_rows) == 0;
    else if (m->kind == MESSAGE_SUBMIT)
        good = true;
    else if (m->kind == MESSAGE_ACCEPTED)
        good = payload_bytes == sizeof(uint32_t) * (uint64_t)m->accepted.n_prompt;
    else if (m->kind == MESSAGE_TOKENS)
        good = payload_bytes >= sizeof(uint32_t) * (uint64_t)m->tokens.n_tokens;
    return good ? STATUS_OK : payload_fail(fault, STATUS_FORMAT, m, payload_bytes);
}
