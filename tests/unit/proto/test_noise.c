/* Noise against published vectors, and against everything that can be done to its messages.
 *
 * The published vectors (cacophony) are read from SKEIN_CONFORMANCE; our own recorded vector with
 * empty payloads, as links use it, is below. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <sodium.h>

#include "proto/noise.h"

enum { MAX_BYTES = 512 };

struct side {
    struct noise_handshake hs;
    struct proto_identity identity;
    uint8_t ephemeral[32];
    struct noise_cipher send, receive;
};

static void identity_of(const uint8_t secret[static 32], struct proto_identity *out)
{
    memcpy(out->secret_key, secret, 32);
    (void)crypto_scalarmult_curve25519_base(out->public_key, secret);
}

/* ---------------------------------------------------------------- published vectors */

static size_t hex_of(const json_t *object, const char *key, uint8_t *out)
{
    const char *hex = json_string_value(json_object_get(object, key));
    size_t n = hex ? strlen(hex) / 2 : 0;

    assert_true(n <= MAX_BYTES);
    if (hex)
        assert_true(bytes_from_hex(hex, out, n));
    return n;
}

static void start_side(struct side *side, const json_t *vector, bool initiator)
{
    const char *name = json_string_value(json_object_get(vector, "protocol_name"));
    uint8_t prologue[MAX_BYTES], psk[MAX_BYTES], secret[MAX_BYTES], remote[MAX_BYTES];
    json_t *psks = json_object_get(vector, initiator ? "init_psks" : "resp_psks");
    size_t n_prologue = hex_of(vector, initiator ? "init_prologue" : "resp_prologue", prologue);
    enum noise_pattern pattern = NOISE_PATTERN_COUNT;
    bool has_static, has_remote;

    for (unsigned i = 0; i < NOISE_PATTERN_COUNT; i++)
        if (strcmp(noise_pattern_name((enum noise_pattern)i), name) == 0)
            pattern = (enum noise_pattern)i;
    assert_true(pattern != NOISE_PATTERN_COUNT);
    has_static = hex_of(vector, initiator ? "init_static" : "resp_static", secret) == 32;
    if (has_static)
        identity_of(secret, &side->identity);
    has_remote = initiator && hex_of(vector, "init_remote_static", remote) == 32;
    if (psks)
        assert_true(bytes_from_hex(json_string_value(json_array_get(psks, 0)), psk, 32));
    assert_int_equal(
        hex_of(vector, initiator ? "init_ephemeral" : "resp_ephemeral", side->ephemeral), 32);
    noise_start(&side->hs, pattern, initiator, prologue, n_prologue,
                has_static ? &side->identity : NULL, has_remote ? remote : NULL, psks ? psk : NULL);
}

static void check_message(struct side *from, struct side *to, const json_t *message)
{
    uint8_t payload[MAX_BYTES], expected[MAX_BYTES], sealed[2 * MAX_BYTES], got[2 * MAX_BYTES];
    size_t n_payload = hex_of(message, "payload", payload);
    size_t n_expected = hex_of(message, "ciphertext", expected);

    if (!from->send.has_key) {
        assert_int_equal(n_expected, noise_overhead(&from->hs) + n_payload);
        assert_int_equal(noise_write(&from->hs, from->ephemeral, payload, n_payload, sealed),
                         STATUS_OK);
        assert_memory_equal(sealed, expected, n_expected);
        assert_int_equal(noise_read(&to->hs, sealed, n_expected, got), STATUS_OK);
    } else {
        assert_int_equal(n_expected, n_payload + NOISE_TAG_BYTES);
        assert_int_equal(noise_seal(&from->send, NULL, 0, payload, n_payload, sealed), STATUS_OK);
        assert_memory_equal(sealed, expected, n_expected);
        assert_int_equal(noise_unseal(&to->receive, NULL, 0, sealed, n_expected, got), STATUS_OK);
    }
    assert_memory_equal(got, payload, n_payload);
}

static void check_vector(const json_t *vector)
{
    struct side sides[2] = {0};
    uint8_t hash[MAX_BYTES];
    json_t *messages = json_object_get(vector, "messages"), *message;
    size_t i;

    start_side(&sides[0], vector, true);
    start_side(&sides[1], vector, false);
    json_array_foreach(messages, i, message)
    {
        check_message(&sides[i % 2], &sides[(i + 1) % 2], message);
        if (!noise_finished(&sides[0].hs))
            continue;
        assert_int_equal(hex_of(vector, "handshake_hash", hash), 64);
        for (int s = 0; s < 2; s++) {
            noise_split(&sides[s].hs, &sides[s].send, &sides[s].receive);
            assert_memory_equal(sides[s].hs.hash, hash, 64);
        }
    }
    assert_true(sides[0].send.has_key && sides[0].send.nonce > 0);
}

static void test_published_vectors(void **state)
{
    const char *folder = getenv("SKEIN_CONFORMANCE");
    char path[4096];
    json_t *root, *vector;
    size_t i, n = 0;

    (void)state;
    if (!folder || !*folder)
        skip();
    (void)snprintf(path, sizeof path, "%s/noise/noise_vectors.json", folder);
    root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    json_array_foreach(json_object_get(root, "vectors"), i, vector)
    {
        check_vector(vector);
        n++;
    }
    json_decref(root);
    assert_int_equal(n, 4);
}

/* ---------------------------------------------------------------- our own */

static const uint8_t key_a[32] = {1, 2, 3}, key_b[32] = {4, 5, 6}, cluster[32] = {7, 8, 9};
static const char prologue[] = "skein/1";

static void start_pair(struct side pair[2])
{
    memset(pair, 0, 2 * sizeof *pair);
    for (int i = 0; i < 2; i++) {
        identity_of(i ? key_b : key_a, &pair[i].identity);
        memset(pair[i].ephemeral, 0x40 + i, 32);
        noise_start(&pair[i].hs, NOISE_XX_PSK3, i == 0, prologue, sizeof prologue - 1,
                    &pair[i].identity, NULL, cluster);
    }
}

/* Runs message number `last` and those before; the last one is left in out, unread. */
static size_t run_until(struct side pair[2], unsigned last, uint8_t out[static MAX_BYTES])
{
    size_t n = 0;
    uint8_t nothing[1];

    for (unsigned i = 0; i <= last; i++) {
        struct side *from = &pair[i % 2];

        n = noise_overhead(&from->hs);
        assert_int_equal(noise_write(&from->hs, from->ephemeral, NULL, 0, out), STATUS_OK);
        if (i < last)
            assert_int_equal(noise_read(&pair[(i + 1) % 2].hs, out, n, nothing), STATUS_OK);
    }
    return n;
}

/* Recorded from this implementation on the day it first passed the published vectors: a change of
 * what links say is a change of PROTO_VERSION. */
static void test_recorded_transcript(void **state)
{
    static const char *const expected[3] = {
        "d7b5e81d336e578b13b8d706e82d061e3038c96bce66cdcf50d566b96ddbba10646182e23096fbb6"
        "b053baecfbc23054",
        "7a1a4e709bf085ac494aba0469b9b1eda0ab1f78b16aabb79ffeda90623e8522f1d1ee7829f0cf37"
        "1eb123169e4a2da27a75d1a98aba5141c4aac593598bd3000bb6f6c4eb1b4c6e1c16e310f0f0e017"
        "61792f249204e31fe1e0240d2e6f41b0",
        "cdec5618cc61920f94ad393dba8f8b9f6db84c0daeec18b98b9233f30f784cb7d6ae318c28543944"
        "99d8d8708758667886656da1a32380882dbff625403b8a10",
    };
    static const size_t lengths[3] = {48, 96, 64};

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct side pair[2];
        uint8_t out[MAX_BYTES];
        char hex[2 * MAX_BYTES + 1];
        size_t n;

        start_pair(pair);
        n = run_until(pair, i, out);
        assert_int_equal(n, lengths[i]);
        bytes_to_hex(out, n, hex);
        assert_string_equal(hex, expected[i]);
    }
}

static void wiped(const struct noise_handshake *hs)
{
    static const uint8_t zeros[NOISE_HASH_BYTES];

    assert_true(hs->failed);
    assert_memory_equal(hs->self.secret_key, zeros, 32);
    assert_memory_equal(hs->ephemeral.secret_key, zeros, 32);
    assert_memory_equal(hs->psk, zeros, 32);
    assert_memory_equal(hs->chain, zeros, NOISE_HASH_BYTES);
    assert_memory_equal(hs->cipher.key, zeros, 32);
}

static void test_every_flipped_bit_is_refused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct side pair[2], fresh[2];
        uint8_t out[MAX_BYTES], nothing[MAX_BYTES];
        size_t n;

        start_pair(pair);
        n = run_until(pair, i, out);
        memcpy(fresh, pair, sizeof fresh);
        for (size_t bit = 0; bit < 8 * n; bit++) {
            memcpy(pair, fresh, sizeof fresh);
            out[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(noise_read(&pair[(i + 1) % 2].hs, out, n, nothing), STATUS_AUTH);
            wiped(&pair[(i + 1) % 2].hs);
            out[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        memcpy(pair, fresh, sizeof fresh);
        assert_int_equal(noise_read(&pair[(i + 1) % 2].hs, out, n, nothing), STATUS_OK);
    }
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct side pair[2], fresh[2];
        uint8_t out[MAX_BYTES], nothing[MAX_BYTES];
        size_t n;

        start_pair(pair);
        n = run_until(pair, i, out);
        memcpy(fresh, pair, sizeof fresh);
        for (size_t cut = 0; cut < n; cut++) {
            uint8_t *exact = malloc(cut + 1); /* reads past the end are seen by ASan */

            memcpy(exact, out, cut);
            memcpy(pair, fresh, sizeof fresh);
            assert_int_not_equal(noise_read(&pair[(i + 1) % 2].hs, exact, cut, nothing), STATUS_OK);
            wiped(&pair[(i + 1) % 2].hs);
            free(exact);
        }
    }
}

static void test_other_key_fails_at_message_three_alone(void **state)
{
    struct side pair[2];
    uint8_t out[MAX_BYTES], nothing[1], other[32] = {1};
    size_t n;

    (void)state;
    start_pair(pair);
    noise_start(&pair[1].hs, NOISE_XX_PSK3, false, prologue, sizeof prologue - 1, &pair[1].identity,
                NULL, other);
    n = run_until(pair, 2, out); /* the first two are read without complaint */
    assert_int_equal(noise_read(&pair[1].hs, out, n, nothing), STATUS_AUTH);
}

static void test_other_prologue_fails_at_message_one(void **state)
{
    struct side pair[2];
    uint8_t out[MAX_BYTES], nothing[1];
    size_t n;

    (void)state;
    start_pair(pair);
    noise_start(&pair[1].hs, NOISE_XX_PSK3, false, "skein/2", 7, &pair[1].identity, NULL, cluster);
    n = run_until(pair, 0, out);
    assert_int_equal(noise_read(&pair[1].hs, out, n, nothing), STATUS_AUTH);
}

/* Points of small order (RFC 7748, section 6.1): the shared secret would be all zeros. */
static void test_degenerate_keys_are_refused(void **state)
{
    static const char *const points[] = {
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(points); i++) {
        struct noise_handshake hs;
        struct side self = {0};
        uint8_t message[32], payload[16], out[MAX_BYTES];

        identity_of(key_a, &self.identity);
        assert_true(bytes_from_hex(points[i], message, 32));
        /* XX without psk reads a bare "e"; the answer needs its ee. */
        noise_start(&hs, NOISE_XX, false, prologue, sizeof prologue - 1, &self.identity, NULL,
                    NULL);
        assert_int_equal(noise_read(&hs, message, 32, payload), STATUS_OK);
        assert_int_equal(noise_write(&hs, key_b, NULL, 0, out), STATUS_AUTH);
        wiped(&hs);
    }
}

static void test_nonces_run_out(void **state)
{
    struct noise_cipher cipher = {.key = {1}, .nonce = UINT64_MAX - 1, .has_key = true};
    struct noise_cipher other = cipher;
    uint8_t sealed[32], plain[16] = {0};

    (void)state;
    assert_int_equal(noise_seal(&cipher, NULL, 0, plain, 16, sealed), STATUS_OK);
    assert_int_equal(noise_unseal(&other, NULL, 0, sealed, 32, plain), STATUS_OK);
    assert_int_equal(noise_seal(&cipher, NULL, 0, plain, 16, sealed), STATUS_LIMIT);
    assert_int_equal(noise_unseal(&other, NULL, 0, sealed, 32, plain), STATUS_LIMIT);
}

static void test_bad_tag_gives_no_plain_text(void **state)
{
    struct noise_cipher cipher = {.key = {1}, .has_key = true}, other = cipher;
    uint8_t plain[16] = "sixteen letters", zeros[16] = {0}, sealed[32], out[16];

    (void)state;
    memset(out, 0xff, sizeof out);
    assert_int_equal(noise_seal(&cipher, NULL, 0, plain, 16, sealed), STATUS_OK);
    sealed[31] ^= 1;
    assert_int_equal(noise_unseal(&other, NULL, 0, sealed, 32, out), STATUS_AUTH);
    assert_memory_equal(out, zeros, 16);
    assert_int_equal(noise_unseal(&other, NULL, 0, sealed, 15, out), STATUS_TRUNCATED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_vectors),
        cmocka_unit_test(test_recorded_transcript),
        cmocka_unit_test(test_every_flipped_bit_is_refused),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_other_key_fails_at_message_three_alone),
        cmocka_unit_test(test_other_prologue_fails_at_message_one),
        cmocka_unit_test(test_degenerate_keys_are_refused),
        cmocka_unit_test(test_nonces_run_out),
        cmocka_unit_test(test_bad_tag_gives_no_plain_text),
    };

    if (proto_init() != STATUS_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
