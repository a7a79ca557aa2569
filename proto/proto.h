#ifndef SKEIN_PROTO_PROTO_H
#define SKEIN_PROTO_PROTO_H

/* The language between nodes: identity and keys, the encrypted channel, messages. No I/O but for
 * reading and making key files; the sockets live in node/net. */
#include "proto/base/base.h"

enum {
    PROTO_VERSION = 1,
    PROTO_KEY_BYTES = 32,
    PROTO_ID_BYTES = 32, /* node id: X25519 public key */
    PROTO_FINGERPRINT_BYTES = 8,
    PROTO_HASH_BYTES = 32,              /* BLAKE2b-256 of a model file */
    PROTO_RECORD_BYTES = 65535,         /* a Noise transport message at most, tag included */
    PROTO_MAX_HEADER_BYTES = 32 * 1024, /* fits the first record of a message */
    PROTO_MAX_PAYLOAD_BYTES = 64 * 1024 * 1024,
    PROTO_MAX_NAME = 64,
    PROTO_MAX_MODEL_NAME = 128,
    PROTO_MAX_TEXT = 400,
    PROTO_MAX_MODELS = 64,  /* advertised by one node */
    PROTO_MAX_REFUSED = 16, /* that one node has and cannot run */
    PROTO_MAX_WHY = 200,
    PROTO_MAX_INSTANCES = 16, /* headed by one node */
    PROTO_MAX_HOLDINGS = 32,  /* stages and instances that one node's memory is given to */
    PROTO_MAX_PEERS = 16,     /* in one exchange */
    PROTO_MAX_ADDRESSES = 4,
    PROTO_MAX_STAGES = 16,
    PROTO_MAX_LAYERS = 1024,
    PROTO_MAX_EMBD = 65536,
    PROTO_MAX_ROWS = 512,
    PROTO_MAX_CLEARS = 64,
    PROTO_MAX_STOPS = 8,
    PROTO_MAX_STOP_BYTES = 128,
    PROTO_MAX_BIASES = 64,
    PROTO_MAX_HISTORY = 16384, /* tokens that penalties look back on */
    PROTO_MAX_PROMPT_BYTES = 8 * 1024 * 1024
};

/* ---------------------------------------------------------------- identity and cluster key */

struct proto_identity {
    uint8_t public_key[PROTO_KEY_BYTES]; /* the node id */
    uint8_t secret_key[PROTO_KEY_BYTES];
};

enum status proto_init(void) MUST_USE; /* sodium_init; once, before all else */

/* Reads the file, or makes it (0600, written beside and renamed, its folder 0700) where it does not
 * exist. Errors: PERMISSION where it cannot be read or others can read it (the sentence says
 * `chmod 600 PATH`), FORMAT for other content, IO. `made` may be NULL. */
enum status proto_identity_load(const char *path, struct proto_identity *out,
                                struct fault *fault) MUST_USE;
/* Fills public_key from secret_key; for nodes that have no file (tests, simulations). */
void proto_identity_complete(struct proto_identity *identity);
enum status proto_cluster_key_load(const char *path, uint8_t out[static PROTO_KEY_BYTES],
                                   bool *made, struct fault *fault) MUST_USE;
/* Writes a key that came by join line; IN_USE where another key is there already. */
enum status proto_cluster_key_store(const char *path, const uint8_t key[static PROTO_KEY_BYTES],
                                    struct fault *fault) MUST_USE;
/* "skein-" + 52 base32 characters + 4 of checksum; out holds PROTO_JOIN_TEXT bytes. Parsing
 * forgives case, spaces and dashes; a typing error is found by the checksum: INVALID. */
enum { PROTO_JOIN_TEXT = 80 };
void proto_cluster_key_to_text(const uint8_t key[static PROTO_KEY_BYTES],
                               char out[static PROTO_JOIN_TEXT]);
enum status proto_cluster_key_from_text(const char *text, uint8_t out[static PROTO_KEY_BYTES],
                                        struct fault *fault) MUST_USE;
void proto_fingerprint(const uint8_t key[static PROTO_KEY_BYTES],
                       uint8_t out[static PROTO_FINGERPRINT_BYTES]);
void proto_wipe(void *secret, size_t n_bytes);

/* ---------------------------------------------------------------- messages */

enum message_kind {
    MESSAGE_CARD = 1,
    MESSAGE_PING,
    MESSAGE_PONG,
    MESSAGE_PEERS,
    MESSAGE_PREPARE,
    MESSAGE_PREPARED,
    MESSAGE_LOAD,
    MESSAGE_LOADED,
    MESSAGE_RELEASE,
    MESSAGE_PASS,
    MESSAGE_PASS_FAILED,
    MESSAGE_SUBMIT,
    MESSAGE_ACCEPTED,
    MESSAGE_TOKENS,
    MESSAGE_DONE,
    MESSAGE_CANCEL,
    MESSAGE_CLOSE_IDLE,
    MESSAGE_IDLE_CLOSED,
    MESSAGE_KIND_LIMIT
};

struct model_card {
    uint8_t hash[PROTO_HASH_BYTES];
    char name[PROTO_MAX_MODEL_NAME];
    uint64_t file_bytes;
    char architecture[24], types[64]; /* for people; "" where a node does not say */
    uint32_t n_layers, n_ctx_train;
};

/* A model file that the node cannot run, told so that nobody wonders where it is. */
struct refused_model {
    char name[PROTO_MAX_MODEL_NAME];
    uint64_t file_bytes;
    char why[PROTO_MAX_WHY];
};

/* An instance is named by its head (the sender or, for passes, the ring's first node), a number
 * unique at that head, and an epoch. */
struct instance_ref {
    uint8_t head[PROTO_ID_BYTES];
    uint64_t number;
    uint32_t epoch;
};

/* What a node's memory is given to: one stage of one instance. */
struct holding {
    struct instance_ref instance;
    uint8_t model_hash[PROTO_HASH_BYTES];
    uint64_t bytes;
    uint32_t layer_begin, layer_end, n_ctx_tokens;
    uint32_t idle_seconds; /* said by the instance's head: without work for so long, at least 1; 0:
                            * at work, on the way, or not this node's instance */
    bool ready;
};

/* What a node says of itself: first message on every link, and again when something changes. */
struct node_card {
    char name[PROTO_MAX_NAME];
    char version[24];
    char engine[16];
    char isa[96];
    uint64_t memory_bytes;        /* what skein may use on the node */
    uint64_t memory_free_bytes;   /* of that, not reserved */
    double read_bytes_per_second; /* 0: not measured yet */
    double flops_per_second;
    uint32_t n_threads;
    uint16_t mesh_port;
    uint32_t n_models;
    struct model_card models[PROTO_MAX_MODELS];
    uint32_t n_instances; /* headed by this node and ready or on the way */
    uint8_t instances[PROTO_MAX_INSTANCES][PROTO_HASH_BYTES]; /* their models */
    uint64_t memory_leaving_bytes; /* not free yet, but on the way: of shards that are ending */
    uint32_t n_holdings;
    struct holding holdings[PROTO_MAX_HOLDINGS];
    uint32_t n_refused;
    struct refused_model refused[PROTO_MAX_REFUSED];
};

struct peer_address {
    uint8_t node_id[PROTO_ID_BYTES];
    uint32_t n_addresses;
    char addresses[PROTO_MAX_ADDRESSES][64]; /* numeric "192.168.1.7:8471", "[fe80::1]:8471" */
};

struct stage_card {
    uint8_t node_id[PROTO_ID_BYTES];
    uint32_t layer_begin, layer_end;
};

struct message_prepare {
    struct instance_ref instance;
    uint8_t model_hash[PROTO_HASH_BYTES];
    char model_name[PROTO_MAX_MODEL_NAME];
    uint32_t stage; /* of the receiver, ≥ 1 */
    uint32_t n_stages;
    struct stage_card stages[PROTO_MAX_STAGES]; /* the ring, head first */
    uint32_t n_slots, n_ctx_tokens, n_kv_blocks, max_rows;
    uint64_t need_bytes; /* what the head thinks the stage needs */
    uint32_t n_embd;     /* floats of a row between stages: fixes the size of a pass's payload */
    uint32_t n_layers;   /* of the whole model */
    uint32_t kv_type;    /* how the instance holds keys, values and matrices: engine.h's */
    uint32_t quantize;   /* struct model_form; a node that knows nothing of it reads zeroes */
    bool mapped;
};

/* To the head of an instance: another model wants its memory. Closed only while nobody uses it;
 * answered by IDLE_CLOSED (an outcome: OK, BUSY or NOT_FOUND). */
struct message_close_idle {
    struct instance_ref instance; /* any epoch */
    uint64_t want_bytes;
    char for_model[PROTO_MAX_MODEL_NAME];
};

struct message_outcome { /* PREPARED, LOADED, PASS_FAILED, IDLE_CLOSED */
    struct instance_ref instance;
    uint64_t pass; /* PASS_FAILED only */
    enum status status;
    char text[PROTO_MAX_TEXT]; /* the sentence where status is not OK */
    uint64_t memory_free_bytes;
};

struct pass_row {
    uint32_t slot, pos;
};

struct pass_clear { /* done before the rows: forget positions ≥ from of the slot */
    uint32_t slot, from;
};

/* Payload: hidden [n_rows, n_embd] float32 little endian, row-major. */
struct message_pass {
    struct instance_ref instance;
    uint64_t pass;
    uint32_t stage; /* of the receiver; 0: back at the head */
    uint32_t n_rows;
    uint32_t n_clears;
    struct pass_row rows[PROTO_MAX_ROWS];
    struct pass_clear clears[PROTO_MAX_CLEARS];
};

enum request_kind { REQUEST_CHAT, REQUEST_TEXT };

/* A prompt and how to go on with it. body: for CHAT a JSON object {"messages": […], "tools": […],
 * "kwargs": {…}}, for TEXT the prompt itself. */
struct token_bias {
    uint32_t id;
    float bias; /* added to the token's logit */
};

struct request_spec {
    enum request_kind kind;
    char model[PROTO_MAX_MODEL_NAME]; /* name or hash */
    uint32_t max_tokens;              /* 0: as many as the context holds */
    float temperature, top_p, min_p, repeat_penalty;
    uint32_t top_k, repeat_last_n;
    uint64_t seed;
    bool ignore_end; /* go on after end tokens; for benchmarks */
    uint32_t n_stops;
    char stops[PROTO_MAX_STOPS][PROTO_MAX_STOP_BYTES];
    /* Of all below zero is off, or the sampler's default where the feature is on (dry_*); a node
     * that knows nothing of them neither sends nor honours them. */
    float typical_p, frequency_penalty, presence_penalty;
    float dry_multiplier, dry_base;
    uint32_t dry_allowed_length, dry_last_n;
    float xtc_probability, xtc_threshold;
    uint32_t n_biases;
    struct token_bias biases[PROTO_MAX_BIASES];
    /* Settings that nobody asked for, a set of the engine's enum sample_setting: what stands above
     * for them is skein's default, and gives way to the model's own at the head. */
    uint32_t open_settings;
};

struct message_submit { /* payload: body */
    uint64_t request;   /* unique at the front */
    struct request_spec spec;
};

struct message_accepted { /* payload: n_prompt u32 token ids, little endian: the journal's start */
    uint64_t request;
    uint32_t n_prompt;
    uint64_t seed;
};

struct message_tokens { /* payload: n u32 token ids, then the text that became final, UTF-8 */
    uint64_t request;
    uint32_t index; /* of the first of them in the completion */
    uint32_t n_tokens;
};

enum request_end { REQUEST_END_STOP, REQUEST_END_LENGTH, REQUEST_END_ERROR, REQUEST_END_CANCELLED };

struct message_done {
    uint64_t request;
    enum request_end end;
    enum status status; /* OK unless REQUEST_END_ERROR */
    char text[PROTO_MAX_TEXT];
    uint32_t n_prompt, n_generated, n_stages;
    double prefill_seconds, decode_seconds;
    char notice[PROTO_MAX_TEXT]; /* what the client should know although all went well */
};

struct message {
    enum message_kind kind;
    union {
        struct node_card card;
        uint64_t stamp_us; /* PING, PONG */
        struct {
            uint32_t n;
            struct peer_address items[PROTO_MAX_PEERS];
        } peers;
        struct message_prepare prepare;
        struct message_outcome outcome;
        struct instance_ref instance; /* LOAD, RELEASE */
        struct message_pass pass;
        struct message_submit submit;
        struct message_accepted accepted;
        struct message_tokens tokens;
        struct message_done done;
        struct message_close_idle close_idle;
        uint64_t request; /* CANCEL */
    };
    uint8_t *payload; /* owned by the message, from mem_aligned(64); NULL where empty */
    size_t payload_bytes;
};

struct message *message_new(enum message_kind kind); /* zeroed; NULL without memory */
void message_free(struct message **message);

/* ---------------------------------------------------------------- channel */

/* One end of one link, without I/O: bytes from the socket go in, messages come out, and the other
 * way round. Noise_XXpsk3_25519_ChaChaPoly_BLAKE2b, prologue "skein/1"; then records of
 * u16 big-endian length + ciphertext. Nothing of the peer is parsed before the handshake has
 * authenticated it, beyond its fixed-size messages. */
struct channel;

/* What both ends say where the cluster keys differ. The responder's channel finds it in message 3;
 * the initiator only sees the socket close while channel_handshake_done and on_open never came. */
#define CHANNEL_OTHER_KEY "the other node has another cluster key (or another skein version)"

struct channel_events {
    /* The peer proved the cluster key and its id. The responder is sure at once, the initiator when
     * the first record arrives. Once. */
    void (*on_open)(void *owner, const uint8_t peer_id[static PROTO_ID_BYTES]);
    /* A whole message; the receiver owns it. */
    void (*on_message)(void *owner, struct message *message);
    void *owner;
};

/* random fills n bytes (randombytes_buf, or a seeded one in tests). */
enum status channel_new(bool initiator, const struct proto_identity *self,
                        const uint8_t cluster_key[static PROTO_KEY_BYTES],
                        void (*random)(void *owner, uint8_t *out, size_t n), void *random_owner,
                        struct channel **out) MUST_USE;
void channel_free(struct channel **channel); /* wipes all keys */
/* Feeds received bytes. Errors are final: AUTH (other cluster key, or bytes were changed), FORMAT,
 * LIMIT, NO_MEMORY; the caller closes the socket. Callbacks run inside. */
enum status channel_receive(struct channel *channel, const uint8_t *bytes, size_t n_bytes,
                            const struct channel_events *events, struct fault *fault) MUST_USE;
/* Encrypts a message into the output; CLOSED before the handshake's end. The message stays the
 * caller's. LIMIT for a message that breaks the limits above. */
enum status channel_send(struct channel *channel, const struct message *message) MUST_USE;
/* channel_send in slices, so that a large message does not hold the loop: begin, then more until
 * *done. Each call encrypts about max_bytes, a record at least. The message must stay as it is
 * until then, and nothing else can be sent between. Where begin fails, nothing was sent. */
enum status channel_send_begin(struct channel *channel, const struct message *message) MUST_USE;
enum status channel_send_more(struct channel *channel, size_t max_bytes, bool *done) MUST_USE;
/* Moves all bytes that wait to be written to `out` (appended, may be large). */
enum status channel_output(struct channel *channel, struct buffer *out) MUST_USE;
bool channel_handshake_done(const struct channel *channel);
/* After the handshake: the other end has our own key. */
bool channel_peer_is_self(const struct channel *channel);
/* Both ends show the same 32 bytes: the Noise handshake hash, cut. */
void channel_binding(const struct channel *channel, uint8_t out[static 32]);

#endif
