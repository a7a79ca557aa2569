/* The Noise protocol framework, revision 34, for 25519_ChaChaPoly_BLAKE2b (noiseprotocol.org).
 *
 * libsodium has every primitive but not Noise, so this file is the framework over them: the chain
 * of hashes and keys (SymmetricState), and handshake patterns as tables of tokens that one
 * interpreter executes for both sides. skein's links use XXpsk3; the other rows are the patterns of
 * the published vectors, which keep the interpreter honest.
 *
 * Happy path: noise_start, then noise_write and noise_read in turn until noise_finished, then
 * noise_split gives one cipher a direction. What fails: a tag that does not verify, a message that
 * is too short, a Diffie-Hellman result of all zeros (a degenerate key; RFC 7748 section 6.1, and
 * libsodium refuses it). Any failure is final: the secrets are wiped on the spot and the handshake
 * answers nothing more. HMAC is RFC 2104 over BLAKE2b with its block of 128 bytes; the cipher is
 * RFC 8439 with a nonce of four zero bytes and a little-endian counter. */
#include "proto/noise.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

enum { HMAC_BLOCK_BYTES = 128, MAX_TOKENS = 6, MAX_MESSAGES = 3 };

enum token { TOKEN_END, TOKEN_E, TOKEN_S, TOKEN_EE, TOKEN_ES, TOKEN_SE, TOKEN_SS, TOKEN_PSK };

static const struct pattern {
    const char *name;
    bool has_psk;
    bool knows_responder; /* pre-message "<- s" */
    unsigned n_messages;  /* the initiator sends the even ones */
    enum token messages[MAX_MESSAGES][MAX_TOKENS];
} patterns[NOISE_PATTERN_COUNT] = {
    [NOISE_XX] = {"Noise_XX_25519_ChaChaPoly_BLAKE2b",
                  false,
                  false,
                  3,
                  {{TOKEN_E}, {TOKEN_E, TOKEN_EE, TOKEN_S, TOKEN_ES}, {TOKEN_S, TOKEN_SE}}},
    [NOISE_NN_PSK0] = {"Noise_NNpsk0_25519_ChaChaPoly_BLAKE2b",
                       true,
                       false,
                       2,
                       {{TOKEN_PSK, TOKEN_E}, {TOKEN_E, TOKEN_EE}}},
    [NOISE_XX_PSK3] = {"Noise_XXpsk3_25519_ChaChaPoly_BLAKE2b",
                       true,
                       false,
                       3,
                       {{TOKEN_E},
                        {TOKEN_E, TOKEN_EE, TOKEN_S, TOKEN_ES},
                        {TOKEN_S, TOKEN_SE, TOKEN_PSK}}},
    [NOISE_IK_PSK2] = {"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2b",
                       true,
                       true,
                       2,
                       {{TOKEN_E, TOKEN_ES, TOKEN_S, TOKEN_SS},
                        {TOKEN_E, TOKEN_EE, TOKEN_SE, TOKEN_PSK}}},
};

const char *noise_pattern_name(enum noise_pattern pattern)
{
    return patterns[pattern].name;
}

/* ---------------------------------------------------------------- hashes and keys */

static void hash_two(uint8_t out[static NOISE_HASH_BYTES], const void *a, size_t a_bytes,
                     const void *b, size_t b_bytes)
{
    crypto_generichash_blake2b_state state;

    (void)crypto_generichash_blake2b_init(&state, NULL, 0, NOISE_HASH_BYTES);
    (void)crypto_generichash_blake2b_update(&state, a, a_bytes);
    (void)crypto_generichash_blake2b_update(&state, b, b_bytes);
    (void)crypto_generichash_blake2b_final(&state, out, NOISE_HASH_BYTES);
    sodium_memzero(&state, sizeof state);
}

/* HMAC-BLAKE2b-512 of a then one byte (none where last is 0) under a key of one hash. */
static void hmac(uint8_t out[static NOISE_HASH_BYTES], const uint8_t key[static NOISE_HASH_BYTES],
                 const void *a, size_t a_bytes, uint8_t last)
{
    crypto_generichash_blake2b_state state;
    uint8_t pad[HMAC_BLOCK_BYTES], inner[NOISE_HASH_BYTES];

    for (size_t i = 0; i < sizeof pad; i++)
        pad[i] = (uint8_t)((i < NOISE_HASH_BYTES ? key[i] : 0) ^ 0x36);
    (void)crypto_generichash_blake2b_init(&state, NULL, 0, NOISE_HASH_BYTES);
    (void)crypto_generichash_blake2b_update(&state, pad, sizeof pad);
    (void)crypto_generichash_blake2b_update(&state, a, a_bytes);
    if (last)
        (void)crypto_generichash_blake2b_update(&state, &last, 1);
    (void)crypto_generichash_blake2b_final(&state, inner, sizeof inner);
    for (size_t i = 0; i < sizeof pad; i++)
        pad[i] ^= 0x36 ^ 0x5c;
    hash_two(out, pad, sizeof pad, inner, sizeof inner);
    sodium_memzero(&state, sizeof state);
    sodium_memzero(pad, sizeof pad);
    sodium_memzero(inner, sizeof inner);
}

/* HKDF of the specification, section 4.3: n outputs of one hash each, n 2 or 3. The chain may be
 * the first output. */
static void hkdf(const uint8_t chain[static NOISE_HASH_BYTES], const uint8_t *input, size_t n_bytes,
                 unsigned n, uint8_t out[][NOISE_HASH_BYTES])
{
    uint8_t key[NOISE_HASH_BYTES], previous[NOISE_HASH_BYTES + 1];

    hmac(key, chain, input, n_bytes, 0);
    hmac(out[0], key, "", 0, 1);
    for (unsigned i = 1; i < n; i++) {
        memcpy(previous, out[i - 1], NOISE_HASH_BYTES);
        hmac(out[i], key, previous, NOISE_HASH_BYTES, (uint8_t)(i + 1));
    }
    sodium_memzero(key, sizeof key);
    sodium_memzero(previous, sizeof previous);
}

static void cipher_key(struct noise_cipher *cipher, const uint8_t *key)
{
    memcpy(cipher->key, key, sizeof cipher->key);
    cipher->nonce = 0;
    cipher->has_key = true;
}

static void mix_hash(struct noise_handshake *hs, const void *data, size_t n_bytes)
{
    uint8_t before[NOISE_HASH_BYTES];

    memcpy(before, hs->hash, sizeof before);
    hash_two(hs->hash, before, sizeof before, data, n_bytes);
}

static void mix_key(struct noise_handshake *hs, const uint8_t *input, size_t n_bytes)
{
    uint8_t out[2][NOISE_HASH_BYTES];

    hkdf(hs->chain, input, n_bytes, 2, out);
    memcpy(hs->chain, out[0], sizeof hs->chain);
    cipher_key(&hs->cipher, out[1]);
    sodium_memzero(out, sizeof out);
}

static void mix_key_and_hash(struct noise_handshake *hs, const uint8_t psk[static PROTO_KEY_BYTES])
{
    uint8_t out[3][NOISE_HASH_BYTES];

    hkdf(hs->chain, psk, PROTO_KEY_BYTES, 3, out);
    memcpy(hs->chain, out[0], sizeof hs->chain);
    mix_hash(hs, out[1], NOISE_HASH_BYTES);
    cipher_key(&hs->cipher, out[2]);
    sodium_memzero(out, sizeof out);
}

/* ---------------------------------------------------------------- the cipher */

static void nonce_bytes(uint64_t nonce, uint8_t out[static 12])
{
    memset(out, 0, 4);
    bytes_put_u32(out + 4, (uint32_t)nonce);
    bytes_put_u32(out + 8, (uint32_t)(nonce >> 32));
}

enum status noise_seal(struct noise_cipher *cipher, const uint8_t *ad, size_t ad_bytes,
                       const uint8_t *in, size_t n_bytes, uint8_t *out)
{
    uint8_t nonce[12];

    if (cipher->nonce == UINT64_MAX)
        return STATUS_LIMIT;
    nonce_bytes(cipher->nonce++, nonce);
    (void)crypto_aead_chacha20poly1305_ietf_encrypt(out, NULL, in, n_bytes, ad, ad_bytes, NULL,
                                                    nonce, cipher->key);
    return STATUS_OK;
}

enum status noise_unseal(struct noise_cipher *cipher, const uint8_t *ad, size_t ad_bytes,
                         const uint8_t *in, size_t n_bytes, uint8_t *out)
{
    uint8_t nonce[12];

    if (n_bytes < NOISE_TAG_BYTES)
        return STATUS_TRUNCATED;
    if (cipher->nonce == UINT64_MAX)
        return STATUS_LIMIT;
    nonce_bytes(cipher->nonce, nonce);
    if (crypto_aead_chacha20poly1305_ietf_decrypt(out, NULL, NULL, in, n_bytes, ad, ad_bytes, nonce,
                                                  cipher->key) != 0)
        return STATUS_AUTH;
    cipher->nonce++;
    return STATUS_OK;
}

static enum status seal_and_hash(struct noise_handshake *hs, const uint8_t *in, size_t n_bytes,
                                 uint8_t *out)
{
    size_t total = n_bytes;
    enum status status = STATUS_OK;

    if (hs->cipher.has_key) {
        status = noise_seal(&hs->cipher, hs->hash, sizeof hs->hash, in, n_bytes, out);
        total += NOISE_TAG_BYTES;
    } else if (n_bytes) {
        memmove(out, in, n_bytes);
    }
    if (status == STATUS_OK)
        mix_hash(hs, out, total);
    return status;
}

static enum status unseal_and_hash(struct noise_handshake *hs, const uint8_t *in, size_t n_bytes,
                                   uint8_t *out)
{
    enum status status = STATUS_OK;

    if (hs->cipher.has_key)
        status = noise_unseal(&hs->cipher, hs->hash, sizeof hs->hash, in, n_bytes, out);
    else if (n_bytes)
        memcpy(out, in, n_bytes);
    if (status == STATUS_OK)
        mix_hash(hs, in, n_bytes);
    return status;
}

/* ---------------------------------------------------------------- handshake */

void noise_start(struct noise_handshake *hs, enum noise_pattern pattern, bool initiator,
                 const void *prologue, size_t prologue_bytes, const struct proto_identity *self,
                 const uint8_t *remote, const uint8_t *psk)
{
    const struct pattern *p = &patterns[pattern];
    size_t n = strlen(p->name);

    assert(n <= NOISE_HASH_BYTES && p->has_psk == (psk != NULL));
    memset(hs, 0, sizeof *hs);
    hs->pattern = pattern;
    hs->initiator = initiator;
    memcpy(hs->hash, p->name, n);
    memcpy(hs->chain, hs->hash, sizeof hs->chain);
    mix_hash(hs, prologue, prologue_bytes);
    if (self)
        hs->self = *self;
    if (psk)
        memcpy(hs->psk, psk, sizeof hs->psk);
    if (!p->knows_responder)
        return;
    assert(initiator ? remote != NULL : self != NULL);
    if (initiator)
        memcpy(hs->remote, remote, sizeof hs->remote);
    mix_hash(hs, initiator ? hs->remote : hs->self.public_key, PROTO_KEY_BYTES);
}

bool noise_finished(const struct noise_handshake *hs)
{
    return !hs->failed && hs->step == patterns[hs->pattern].n_messages;
}

bool noise_my_turn(const struct noise_handshake *hs)
{
    return !hs->failed && !noise_finished(hs) && (hs->step % 2 == 0) == hs->initiator;
}

void noise_wipe(struct noise_handshake *hs)
{
    sodium_memzero(hs, sizeof *hs);
    hs->failed = true;
}

/* Walks the next message's tokens as the cipher will change, without touching it. */
size_t noise_overhead(const struct noise_handshake *hs)
{
    const struct pattern *p = &patterns[hs->pattern];
    bool sealed = hs->cipher.has_key;
    size_t n = 0;

    assert(!noise_finished(hs));
    for (const enum token *t = p->messages[hs->step]; *t != TOKEN_END; t++) {
        if (*t == TOKEN_E)
            n += PROTO_KEY_BYTES;
        else if (*t == TOKEN_S)
            n += sealed ? PROTO_KEY_BYTES + NOISE_TAG_BYTES : PROTO_KEY_BYTES;
        if (*t != TOKEN_S && (*t != TOKEN_E || p->has_psk))
            sealed = true;
    }
    return n + (sealed ? NOISE_TAG_BYTES : 0);
}

static enum status mix_dh(struct noise_handshake *hs, const struct proto_identity *own,
                          const uint8_t theirs[static PROTO_KEY_BYTES])
{
    uint8_t shared[PROTO_KEY_BYTES];
    enum status status = STATUS_OK;

    if (crypto_scalarmult_curve25519(shared, own->secret_key, theirs) != 0)
        status = STATUS_AUTH;
    else
        mix_key(hs, shared, sizeof shared);
    sodium_memzero(shared, sizeof shared);
    return status;
}

/* The tokens that move no bytes, which are the same for writer and reader. */
static enum status mix_token(struct noise_handshake *hs, enum token token)
{
    switch (token) {
    case TOKEN_EE:
        return mix_dh(hs, &hs->ephemeral, hs->remote_ephemeral);
    case TOKEN_ES:
        return hs->initiator ? mix_dh(hs, &hs->ephemeral, hs->remote)
                             : mix_dh(hs, &hs->self, hs->remote_ephemeral);
    case TOKEN_SE:
        return hs->initiator ? mix_dh(hs, &hs->self, hs->remote_ephemeral)
                             : mix_dh(hs, &hs->ephemeral, hs->remote);
    case TOKEN_SS:
        return mix_dh(hs, &hs->self, hs->remote);
    case TOKEN_PSK:
        mix_key_and_hash(hs, hs->psk);
        return STATUS_OK;
    case TOKEN_END:
    case TOKEN_E:
    case TOKEN_S:
        break;
    }
    return STATUS_INTERNAL;
}

/* An ephemeral key enters the hash, and the key chain too where a psk is in play (section 9.2). */
static void mix_ephemeral(struct noise_handshake *hs, const uint8_t key[static PROTO_KEY_BYTES])
{
    mix_hash(hs, key, PROTO_KEY_BYTES);
    if (patterns[hs->pattern].has_psk)
        mix_key(hs, key, PROTO_KEY_BYTES);
}

static enum status write_tokens(struct noise_handshake *hs, const uint8_t *ephemeral_secret,
                                uint8_t **out)
{
    enum status status = STATUS_OK;

    for (const enum token *t = patterns[hs->pattern].messages[hs->step];
         *t != TOKEN_END && status == STATUS_OK; t++) {
        if (*t == TOKEN_E) {
            memcpy(hs->ephemeral.secret_key, ephemeral_secret, PROTO_KEY_BYTES);
            (void)crypto_scalarmult_curve25519_base(hs->ephemeral.public_key,
                                                    hs->ephemeral.secret_key);
            memcpy(*out, hs->ephemeral.public_key, PROTO_KEY_BYTES);
            *out += PROTO_KEY_BYTES;
            mix_ephemeral(hs, hs->ephemeral.public_key);
        } else if (*t == TOKEN_S) {
            size_t n = PROTO_KEY_BYTES + (hs->cipher.has_key ? NOISE_TAG_BYTES : 0);

            status = seal_and_hash(hs, hs->self.public_key, PROTO_KEY_BYTES, *out);
            *out += n;
        } else {
            status = mix_token(hs, *t);
        }
    }
    return status;
}

enum status noise_write(struct noise_handshake *hs,
                        const uint8_t ephemeral_secret[static PROTO_KEY_BYTES],
                        const uint8_t *payload, size_t payload_bytes, uint8_t *out)
{
    enum status status;

    assert(noise_my_turn(hs));
    status = write_tokens(hs, ephemeral_secret, &out);
    if (status == STATUS_OK)
        status = seal_and_hash(hs, payload, payload_bytes, out);
    if (status == STATUS_OK)
        hs->step++;
    else
        noise_wipe(hs);
    return status;
}

static enum status read_tokens(struct noise_handshake *hs, struct reader *in)
{
    enum status status = STATUS_OK;

    for (const enum token *t = patterns[hs->pattern].messages[hs->step];
         *t != TOKEN_END && status == STATUS_OK; t++) {
        if (*t == TOKEN_E) {
            const uint8_t *key = reader_take(in, PROTO_KEY_BYTES);

            if (!key)
                return STATUS_TRUNCATED;
            memcpy(hs->remote_ephemeral, key, PROTO_KEY_BYTES);
            mix_ephemeral(hs, key);
        } else if (*t == TOKEN_S) {
            size_t n = PROTO_KEY_BYTES + (hs->cipher.has_key ? NOISE_TAG_BYTES : 0);
            const uint8_t *sealed = reader_take(in, n);

            status = sealed ? unseal_and_hash(hs, sealed, n, hs->remote) : STATUS_TRUNCATED;
        } else {
            status = mix_token(hs, *t);
        }
    }
    return status;
}

enum status noise_read(struct noise_handshake *hs, const uint8_t *message, size_t n_bytes,
                       uint8_t *payload)
{
    struct reader in = reader_of(message, n_bytes);
    enum status status;
    size_t left;

    assert(!hs->failed && !noise_finished(hs) && !noise_my_turn(hs));
    status = read_tokens(hs, &in);
    left = reader_left(&in);
    if (status == STATUS_OK && hs->cipher.has_key && left < NOISE_TAG_BYTES)
        status = STATUS_TRUNCATED;
    if (status == STATUS_OK)
        status = unseal_and_hash(hs, message + in.at, left, payload);
    if (status == STATUS_OK)
        hs->step++;
    else
        noise_wipe(hs);
    return status;
}

void noise_split(struct noise_handshake *hs, struct noise_cipher *send,
                 struct noise_cipher *receive)
{
    uint8_t out[2][NOISE_HASH_BYTES], hash[NOISE_HASH_BYTES], remote[PROTO_KEY_BYTES];

    assert(noise_finished(hs));
    hkdf(hs->chain, (const uint8_t *)"", 0, 2, out);
    cipher_key(send, out[hs->initiator ? 0 : 1]);
    cipher_key(receive, out[hs->initiator ? 1 : 0]);
    sodium_memzero(out, sizeof out);
    memcpy(hash, hs->hash, sizeof hash);
    memcpy(remote, hs->remote, sizeof remote);
    noise_wipe(hs);
    memcpy(hs->hash, hash, sizeof hash);
    memcpy(hs->remote, remote, sizeof remote);
}
