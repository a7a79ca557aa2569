/* Requests of this node's API: handles on one side, the control plane on the other.
 *
 * Submitting and cancelling only queue an event, so a callback of the API never comes from inside a
 * call of the API. Every request that was taken gets on_done exactly once: from the control plane,
 * or from node_requests_end when the node stops first. */
#include "node/node_uv.h"

#include <stdio.h>
#include <string.h>

static struct node_request *request_find(const struct node *node, uint64_t handle)
{
    for (struct node_request *r = node->requests; r; r = r->next)
        if (r->handle == handle)
            return r;
    return NULL;
}

static void request_end(struct node *node, struct node_request *request,
                        const struct request_result *result)
{
    struct node_request **link = &node->requests;
    struct node_request ended = *request;

    while (*link != request)
        link = &(*link)->next;
    *link = request->next;
    mem_free(request);
    ended.events.on_done(ended.owner, result);
}

enum status node_submit(struct node *node, const struct request_spec *spec, const char *body,
                        size_t body_bytes, const struct request_events *events, void *owner,
                        uint64_t *out_handle)
{
    struct node_request *request;
    struct control_event event = {.kind = EVENT_REQUEST};
    char *copy;

    if (node->closing)
        return STATUS_CLOSED;
    if (body_bytes > PROTO_MAX_PROMPT_BYTES)
        return STATUS_LIMIT;
    request = MEM_NEW(struct node_request);
    copy = mem_text_n(body, body_bytes);
    if (!request || !copy)
        goto no_memory;
    *request = (struct node_request){
        .handle = ++node->last_handle, .events = *events, .owner = owner, .next = node->requests};
    event.request.handle = request->handle;
    event.request.spec = *spec;
    event.request.body = copy;
    event.request.body_bytes = body_bytes;
    if (node_later(node, &event, copy) != STATUS_OK)
        goto no_memory;
    node->requests = request;
    *out_handle = request->handle;
    return STATUS_OK;
no_memory:
    mem_free(request);
    mem_free(copy);
    return STATUS_NO_MEMORY;
}

void node_cancel(struct node *node, uint64_t handle)
{
    struct control_event event = {.kind = EVENT_CANCEL};

    event.cancel = handle;
    if (!node->closing && request_find(node, handle) && node_later(node, &event, NULL) != STATUS_OK)
        log_event(LOG_WARN, "node", "cancel.failed reason=memory");
}

void node_request_started(struct node *node, uint64_t handle, uint32_t n_prompt, uint64_t seed)
{
    struct node_request *request = request_find(node, handle);

    if (request)
        request->events.on_started(request->owner, n_prompt, seed);
}

void node_request_text(struct node *node, uint64_t handle, const uint8_t *payload,
                       size_t payload_bytes, uint32_t n_tokens)
{
    struct node_request *request = request_find(node, handle);
    size_t ids_bytes = (size_t)n_tokens * sizeof(uint32_t);

    if (request && payload_bytes >= ids_bytes)
        request->events.on_text(request->owner, (const char *)payload + ids_bytes,
                                payload_bytes - ids_bytes, n_tokens);
}

void node_request_done(struct node *node, uint64_t handle, const struct message_done *done)
{
    struct node_request *request = request_find(node, handle);
    struct request_result result = {
        .end = done->end,
        .n_prompt = done->n_prompt,
        .n_generated = done->n_generated,
        .n_stages = done->n_stages,
        .prefill_seconds = done->prefill_seconds,
        .decode_seconds = done->decode_seconds,
    };

    if (!request)
        return;
    (void)snprintf(result.notice, sizeof result.notice, "%s", done->notice);
    if (done->end == REQUEST_END_ERROR)
        (void)fault_set(&result.fault, done->status, "%s",
                        done->text[0] ? done->text : status_words(done->status));
    request_end(node, request, &result);
}

void node_requests_end(struct node *node)
{
    struct request_result result = {.end = REQUEST_END_ERROR};

    (void)fault_set(&result.fault, STATUS_CLOSED, "this node is being stopped");
    while (node->requests)
        request_end(node, node->requests, &result);
}
