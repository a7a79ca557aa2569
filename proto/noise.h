#ifndef SKEIN_PROTO_NOISE_H
#define SKEIN_PROTO_NOISE_H

/* Private to proto and its tests: the Noise protocol framework, revision 34, for
 * 25519_ChaChaPoly_BLAKE2b. */
#include "proto/proto.h"

enum {
    NOISE_HASH_BYTES = 64,
    NOISE_TAG_BYTES = 16,
    NOISE_MAX_MESSAGE_BYTES = 65535,
};

enum noise_pattern { NOISE_XX, NOISE_NN_PSK0, NOISE_XX_PSK3, NOISE_IK_PSK2, NOISE_PATTERN_COUNT };

/* One direction: a key and the number of messages it has sealed. */
struct noise_cipher {
    uint8_t key[PROTO_KEY_BYTES];
    uint64_t nonce;
    bool has_key;
};

struct noise_handshake {
    enum noise_pattern pattern;
    bool initiator;
    unsigned step; /* messages done, of either side */
    bool failed;   /* secrets are gone; nothing more is possible */
    struct noise_cipher cipher;
    uint8_t chain[NOISE_HASH_BYTES];
    uint8_t hash[NOISE_HASH_BYTES];
    uint8_t psk[PROTO_KEY_BYTES];
    struct proto_identity self;      /* s */
    struct proto_identity ephemeral; /* e */
    uint8_t remote[PROTO_KEY_BYTES]; /* rs, good once its message was read */
    uint8_t remote_ephemeral[PROTO_KEY_BYTES];
};

const char *noise_pattern_name(enum noise_pattern pattern);

/* self may be NULL for NN; remote (the responder's static key) is for an IK initiator alone; psk is
 * NULL where the pattern has none. */
void noise_start(struct noise_handshake *hs, enum noise_pattern pattern, bool initiator,
                 const void *prologue, size_t prologue_bytes, const struct proto_identity *self,
                 const uint8_t *remote, const uint8_t *psk);
bool noise_my_turn(const struct noise_handshake *hs);
bool noise_finished(const struct noise_handshake *hs); /* all messages done: noise_split next */
/* Length of the next message beyond its payload. */
size_t noise_overhead(const struct noise_handshake *hs);

/* The next message into out [noise_overhead + payload_bytes]. ephemeral_secret is 32 fresh random
 * bytes, used where the message carries "e". AUTH for a degenerate key of the peer. */
enum status noise_write(struct noise_handshake *hs,
                        const uint8_t ephemeral_secret[static PROTO_KEY_BYTES],
                        const uint8_t *payload, size_t payload_bytes, uint8_t *out) MUST_USE;
/* The peer's next message; its payload into `payload` [n_bytes - noise_overhead]. TRUNCATED, or
 * AUTH where a tag or a key is bad; both end the handshake. */
enum status noise_read(struct noise_handshake *hs, const uint8_t *message, size_t n_bytes,
                       uint8_t *payload) MUST_USE;
/* The two directions, once finished; wipes everything else but `hash` and `remote`. */
void noise_split(struct noise_handshake *hs, struct noise_cipher *send,
                 struct noise_cipher *receive);
void noise_wipe(struct noise_handshake *hs);

/* out [n_bytes + NOISE_TAG_BYTES]; in and out may be the same place. LIMIT when the key's nonces
 * are used up. */
enum status noise_seal(struct noise_cipher *cipher, const uint8_t *ad, size_t ad_bytes,
                       const uint8_t *in, size_t n_bytes, uint8_t *out) MUST_USE;
/* n_bytes counts the tag; out [n_bytes - NOISE_TAG_BYTES]. AUTH for a bad tag: out is zeroed then
 * and the nonce stays. */
enum status noise_unseal(struct noise_cipher *cipher, const uint8_t *ad, size_t ad_bytes,
                         const uint8_t *in, size_t n_bytes, uint8_t *out) MUST_USE;

#endif
