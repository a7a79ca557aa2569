/* The text side of a sequence at the head: from the request's body to token ids on the thread pool,
 * and the detokenizer that turns sampled ids into text as they come.
 *
 * A chat body is {"messages": […], "tools": […], "kwargs": {…}}; its parts go to the template as
 * JSON. A template that writes the begin token itself and a vocabulary that adds one would give
 * two: the second is dropped. Control owns the life of a sequence (TOKENIZE … FREE_SEQUENCE); a
 * sequence that is freed while the thread pool has it goes when the work is done. */
#include "node/node_uv.h"

#include <jansson.h>
#include <string.h>
#include <time.h>

/* A template that has no place for tools renders the same without them; the model would never hear
 * of them, and the client would not know. */
static enum status tools_check(const struct node_sequence *sequence,
                               const struct chat_request *chat, const struct buffer *with,
                               struct fault *fault)
{
    struct buffer without = {.max_bytes = with->max_bytes};
    struct chat_request plain = *chat;
    enum status status;

    plain.tools_json = NULL;
    status = chat_render(sequence->model, &plain, &without, fault);
    if (status == STATUS_OK && without.len == with->len &&
        (with->len == 0 || memcmp(without.data, with->data, with->len) == 0))
        status = fault_set(fault, STATUS_UNSUPPORTED,
                           "tools: the chat template of %s has no place for tools; leave them out",
                           model_info(sequence->model)->name);
    else
        status = fault->status = STATUS_OK; /* it may well refuse to go without */
    buffer_free(&without);
    return status;
}

static enum status sequence_render(struct node_sequence *sequence, struct buffer *out)
{
    struct fault *fault = &sequence->fault;
    json_error_t error;
    json_t *body = json_loadb(sequence->body, sequence->body_bytes, JSON_REJECT_DUPLICATES, &error);
    json_t *tools = json_object_get(body, "tools");
    json_t *kwargs = json_object_get(body, "kwargs");
    struct chat_request chat = {.now_unix_seconds = chat_local_seconds((int64_t)time(NULL))};
    char *texts[3] = {0};
    enum status status;

    if (!json_is_array(json_object_get(body, "messages"))) {
        json_decref(body);
        return fault_set(fault, STATUS_INVALID, "the request has no array `messages`");
    }
    texts[0] = json_dumps(json_object_get(body, "messages"), 0);
    texts[1] = json_is_array(tools) ? json_dumps(tools, 0) : NULL;
    texts[2] = json_is_object(kwargs) ? json_dumps(kwargs, 0) : NULL;
    chat.messages_json = texts[0];
    chat.tools_json = texts[1];
    chat.kwargs_json = texts[2];
    status = texts[0] ? chat_render(sequence->model, &chat, out, fault)
                      : fault_set(fault, STATUS_NO_MEMORY, "no memory for the messages");
    if (status == STATUS_OK && texts[1])
        status = tools_check(sequence, &chat, out, fault);
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        free(texts[i]);
    json_decref(body);
    return status;
}

/* Drops the second of two begin tokens. */
static enum status sequence_fix_begin(struct node_sequence *sequence)
{
    struct token_list alone = {0};
    struct token_list *ids = &sequence->tokens;
    enum status status =
        model_tokenize(sequence->model, "", 0, TOKENS_ADD_SPECIAL, &alone, &sequence->fault);

    if (status == STATUS_OK && alone.n > 0 && ids->n > 1 && ids->ids[0] == alone.ids[0] &&
        ids->ids[1] == alone.ids[0]) {
        memmove(ids->ids, ids->ids + 1, (ids->n - 1) * sizeof *ids->ids);
        ids->n--;
    }
    token_list_free(&alone);
    return status;
}

static void sequence_on_work(uv_work_t *work)
{
    struct node_sequence *sequence = work->data;
    struct buffer prompt = {.max_bytes = 2 * (size_t)PROTO_MAX_PROMPT_BYTES};
    const char *text = sequence->body;
    size_t n_bytes = sequence->body_bytes;
    enum status status = STATUS_OK;

    if (sequence->kind == REQUEST_CHAT) {
        status = sequence_render(sequence, &prompt);
        text = prompt.data ? (const char *)prompt.data : "";
        n_bytes = prompt.len;
    }
    if (status == STATUS_OK)
        status = model_tokenize(sequence->model, text, n_bytes,
                                TOKENS_ADD_SPECIAL | TOKENS_PARSE_SPECIAL, &sequence->tokens,
                                &sequence->fault);
    if (status == STATUS_OK && sequence->kind == REQUEST_CHAT)
        status = sequence_fix_begin(sequence);
    if (status == STATUS_OK && sequence->tokens.n == 0)
        status = fault_set(&sequence->fault, STATUS_INVALID, "the prompt is empty");
    if (status == STATUS_OK &&
        detok_new(sequence->model, sequence->kind == REQUEST_TEXT ? DETOK_CONTINUES : 0,
                  &sequence->detok) != STATUS_OK)
        status = fault_set(&sequence->fault, STATUS_NO_MEMORY, "no memory for a detokenizer");
    sequence->fault.status = status;
    buffer_free(&prompt);
}

static void sequence_drop(struct node_sequence *sequence)
{
    struct node_sequence **link = &sequence->node->sequences;

    while (*link != sequence)
        link = &(*link)->next;
    *link = sequence->next;
    if (sequence->model)
        store_release(sequence->node->store, sequence->hash);
    detok_free(&sequence->detok);
    token_list_free(&sequence->tokens);
    mem_free(sequence->body);
    mem_free(sequence);
}

static void sequence_on_done(uv_work_t *work, int status)
{
    struct node_sequence *sequence = work->data;
    struct node *node = sequence->node;
    struct control_event event = {.kind = EVENT_PROMPT};

    sequence->working = false;
    if (sequence->freed) {
        sequence_drop(sequence);
        node_part_closed(node);
        return;
    }
    if (status != 0)
        (void)fault_set(&sequence->fault, STATUS_CANCELLED, "stopped");
    mem_free(sequence->body);
    sequence->body = NULL;
    event.prompt.sequence = sequence->sequence;
    event.prompt.n_tokens = (uint32_t)sequence->tokens.n;
    event.prompt.tokens = sequence->tokens.ids;
    event.prompt.fault = sequence->fault;
    node_step(node, &event);
    sequence = node_find_sequence(node, event.prompt.sequence);
    if (sequence)
        token_list_free(&sequence->tokens);
    node_part_closed(node);
}

static void tokenize_failed(struct node *node, uint64_t id, enum status status, const char *text)
{
    struct control_event event = {.kind = EVENT_PROMPT};

    event.prompt.sequence = id;
    (void)fault_set(&event.prompt.fault, status, "%s", text);
    if (node_later(node, &event, NULL) != STATUS_OK)
        log_event(LOG_WARN, "node", "prompt.failed reason=memory");
}

static void sequence_start(struct node_sequence *sequence)
{
    struct node *node = sequence->node;
    uint64_t id = sequence->sequence;

    if (uv_queue_work(node->loop, &sequence->work, sequence_on_work, sequence_on_done) != 0) {
        sequence_drop(sequence);
        tokenize_failed(node, id, STATUS_INTERNAL, "no thread for the tokenizer");
        return;
    }
    sequence->working = true;
    node->n_open++;
}

static void sequence_on_open(void *owner, const uint8_t hash[static PROTO_HASH_BYTES],
                             const struct model *model, const struct fault *fault)
{
    struct node_sequence *sequence = owner;
    struct node *node = sequence->node;
    uint64_t id = sequence->sequence;

    (void)hash;
    sequence->working = false;
    sequence->model = model;
    if (sequence->freed) {
        sequence_drop(sequence);
    } else if (!model) {
        sequence_drop(sequence);
        tokenize_failed(node, id, fault->status, fault->text);
    } else {
        sequence_start(sequence);
    }
    node_part_closed(node);
}

/* The model is open as a rule; not while its instance waits for room, or begins again. */
void node_tokenize(struct node *node, uint64_t id, const uint8_t *hash, enum request_kind kind,
                   char *body, size_t body_bytes)
{
    struct node_sequence *sequence = MEM_NEW(struct node_sequence);
    enum status status;

    if (!sequence) {
        mem_free(body);
        tokenize_failed(node, id, STATUS_NO_MEMORY, "no memory for a sequence");
        return;
    }
    sequence->node = node;
    sequence->sequence = id;
    memcpy(sequence->hash, hash, sizeof sequence->hash);
    sequence->model = store_peek(node->store, hash);
    sequence->kind = kind;
    sequence->body = body;
    sequence->body_bytes = body_bytes;
    sequence->work.data = sequence;
    sequence->next = node->sequences;
    node->sequences = sequence;
    if (sequence->model) {
        store_hold(node->store, hash);
        sequence_start(sequence);
        return;
    }
    status = store_open(node->store, hash, sequence_on_open, sequence);
    if (status != STATUS_OK) {
        sequence_drop(sequence);
        tokenize_failed(node, id, status, "the model cannot be opened on its head");
        return;
    }
    sequence->working = true;
    node->n_open++;
}

struct node_sequence *node_find_sequence(struct node *node, uint64_t id)
{
    for (struct node_sequence *s = node->sequences; s; s = s->next)
        if (s->sequence == id && !s->freed)
            return s;
    return NULL;
}

static void sequence_free(struct node_sequence *sequence)
{
    if (sequence->working)
        sequence->freed = true;
    else
        sequence_drop(sequence);
}

void node_free_sequence(struct node *node, uint64_t id)
{
    struct node_sequence *sequence = node_find_sequence(node, id);

    if (sequence)
        sequence_free(sequence);
}

void node_free_sequences(struct node *node)
{
    struct node_sequence *next;

    for (struct node_sequence *s = node->sequences; s; s = next) {
        next = s->next;
        sequence_free(s);
    }
}
