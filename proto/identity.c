/* Who a node is and which cluster it belongs to.
 *
 * A node's id is the X25519 public key of its static Noise key; the secret lies in node.key as one
 * line, "skein-node-key-1 " and 64 hexadecimal digits. A cluster is 32 random bytes; they lie in
 * cluster.key in the same form in which people carry them to the next machine, the join text:
 * "skein-", 52 characters of Crockford's base 32 (no i, l, o, u; the first three are read as 1, 1
 * and 0), and 4 characters of checksum, so that a typing error is told from a wrong key.
 *
 * Both files are made on first use. Two processes that start at once end with the same key, because
 * whoever loses the race reads the winner's file (keyfile.c). */
#include <assert.h>
#include <ctype.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "proto/keyfile.h"
#include "proto/proto.h"

#define NODE_KEY_PREFIX "skein-node-key-1 "
#define JOIN_PREFIX     "skein"

enum { KEY_SYMBOLS = 52, CHECK_SYMBOLS = 4, SYMBOLS = KEY_SYMBOLS + CHECK_SYMBOLS };

static const char alphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";

enum status proto_init(void)
{
    return sodium_init() < 0 ? STATUS_INTERNAL : STATUS_OK;
}

void proto_wipe(void *secret, size_t n_bytes)
{
    sodium_memzero(secret, n_bytes);
}

/* BLAKE2b of a label and the cluster key: 32 bytes that tell nothing of the key. */
static void key_digest(const char *label, const uint8_t key[static PROTO_KEY_BYTES],
                       uint8_t out[static 32])
{
    crypto_generichash_blake2b_state state;

    (void)crypto_generichash_blake2b_init(&state, NULL, 0, 32);
    (void)crypto_generichash_blake2b_update(&state, (const uint8_t *)label, strlen(label));
    (void)crypto_generichash_blake2b_update(&state, key, PROTO_KEY_BYTES);
    (void)crypto_generichash_blake2b_final(&state, out, 32);
    sodium_memzero(&state, sizeof state);
}

void proto_fingerprint(const uint8_t key[static PROTO_KEY_BYTES],
                       uint8_t out[static PROTO_FINGERPRINT_BYTES])
{
    uint8_t digest[32];

    key_digest("skein cluster fingerprint", key, digest);
    memcpy(out, digest, PROTO_FINGERPRINT_BYTES);
}

/* ---------------------------------------------------------------- join text */

/* 5 bits a symbol, most significant first, zero bits behind the end. */
static void symbols_of(const uint8_t *in, size_t n_bytes, size_t n_symbols, char *out)
{
    for (size_t i = 0; i < n_symbols; i++) {
        size_t bit = 5 * i, byte = bit / 8;
        unsigned two = (unsigned)in[byte] << 8 | (byte + 1 < n_bytes ? in[byte + 1] : 0u);

        out[i] = alphabet[two >> (11 - bit % 8) & 31];
    }
}

static int symbol_value(char c)
{
    const char *at;

    c = (char)tolower((unsigned char)c);
    if (c == 'o')
        c = '0';
    if (c == 'i' || c == 'l')
        c = '1';
    at = c ? strchr(alphabet, c) : NULL;
    return at ? (int)(at - alphabet) : -1;
}

static void check_symbols(const uint8_t key[static PROTO_KEY_BYTES], char out[static CHECK_SYMBOLS])
{
    uint8_t digest[32];

    key_digest("skein join text", key, digest);
    symbols_of(digest, sizeof digest, CHECK_SYMBOLS, out);
}

void proto_cluster_key_to_text(const uint8_t key[static PROTO_KEY_BYTES],
                               char out[static PROTO_JOIN_TEXT])
{
    char *symbols = out + sizeof JOIN_PREFIX;

    memcpy(out, JOIN_PREFIX "-", sizeof JOIN_PREFIX);
    symbols_of(key, PROTO_KEY_BYTES, KEY_SYMBOLS, symbols);
    check_symbols(key, symbols + KEY_SYMBOLS);
    symbols[SYMBOLS] = 0;
}

/* What is left of text without spaces, dashes and the prefix; its length, SYMBOLS + 1 for more. */
static size_t join_symbols(const char *text, char out[static SYMBOLS])
{
    size_t n = 0;
    const char *p = text;

    while (isspace((unsigned char)*p) || *p == '-')
        p++;
    if (strncasecmp(p, JOIN_PREFIX, sizeof JOIN_PREFIX - 1) == 0)
        p += sizeof JOIN_PREFIX - 1;
    for (; *p; p++) {
        if (isspace((unsigned char)*p) || *p == '-')
            continue;
        if (n == SYMBOLS)
            return SYMBOLS + 1;
        out[n++] = *p;
    }
    return n;
}

static enum status decode_symbols(const char symbols[static SYMBOLS],
                                  uint8_t key[static PROTO_KEY_BYTES], struct fault *fault)
{
    unsigned bits = 0, n_bits = 0;
    size_t n = 0;

    for (size_t i = 0; i < KEY_SYMBOLS; i++) {
        int value = symbol_value(symbols[i]);

        if (value < 0)
            return fault_set(fault, STATUS_INVALID,
                             "the join text has a character that does not belong there, at place "
                             "%zu behind \"" JOIN_PREFIX "-\"",
                             i + 1);
        bits = bits << 5 | (unsigned)value;
        n_bits += 5;
        if (n_bits >= 8 && n < PROTO_KEY_BYTES) {
            n_bits -= 8;
            key[n++] = (uint8_t)(bits >> n_bits);
            bits &= (1u << n_bits) - 1;
        }
    }
    if (bits) /* the four bits behind the key */
        return fault_set(fault, STATUS_INVALID, "the join text has a typing error");
    return STATUS_OK;
}

enum status proto_cluster_key_from_text(const char *text, uint8_t out[static PROTO_KEY_BYTES],
                                        struct fault *fault)
{
    char symbols[SYMBOLS], check[CHECK_SYMBOLS];
    uint8_t key[PROTO_KEY_BYTES];
    size_t n = join_symbols(text, symbols);
    enum status status = STATUS_OK;

    if (n != SYMBOLS)
        return fault_set(fault, STATUS_INVALID,
                         "the join text has too %s characters: \"" JOIN_PREFIX
                         "-\" and %d more make one",
                         n < SYMBOLS ? "few" : "many", SYMBOLS);
    status = decode_symbols(symbols, key, fault);
    if (status == STATUS_OK) {
        check_symbols(key, check);
        for (size_t i = 0; i < CHECK_SYMBOLS; i++)
            if (symbol_value(symbols[KEY_SYMBOLS + i]) != symbol_value(check[i]))
                status = fault_set(fault, STATUS_INVALID,
                                   "the join text has a typing error: its last four characters do "
                                   "not fit the rest");
    }
    if (status == STATUS_OK)
        memcpy(out, key, PROTO_KEY_BYTES);
    sodium_memzero(key, sizeof key);
    sodium_memzero(symbols, sizeof symbols);
    return status;
}

/* ---------------------------------------------------------------- files */

static enum status parse_node_key(const char *text, uint8_t out[static PROTO_KEY_BYTES])
{
    size_t n = sizeof NODE_KEY_PREFIX - 1;

    if (strncmp(text, NODE_KEY_PREFIX, n) != 0 || !bytes_from_hex(text + n, out, PROTO_KEY_BYTES))
        return STATUS_FORMAT;
    return STATUS_OK;
}

static void format_node_key(const uint8_t key[static PROTO_KEY_BYTES],
                            char out[static KEYFILE_BYTES])
{
    memcpy(out, NODE_KEY_PREFIX, sizeof NODE_KEY_PREFIX);
    bytes_to_hex(key, PROTO_KEY_BYTES, out + sizeof NODE_KEY_PREFIX - 1);
}

static enum status parse_cluster_key(const char *text, uint8_t out[static PROTO_KEY_BYTES])
{
    return proto_cluster_key_from_text(text, out, NULL) == STATUS_OK ? STATUS_OK : STATUS_FORMAT;
}

static void format_cluster_key(const uint8_t key[static PROTO_KEY_BYTES],
                               char out[static KEYFILE_BYTES])
{
    proto_cluster_key_to_text(key, out);
}

static const struct key_form {
    const char *what;
    enum status (*parse)(const char *text, uint8_t out[static PROTO_KEY_BYTES]);
    void (*format)(const uint8_t key[static PROTO_KEY_BYTES], char out[static KEYFILE_BYTES]);
} node_form = {"a skein node key", parse_node_key, format_node_key},
  cluster_form = {"a skein cluster key", parse_cluster_key, format_cluster_key};

static enum status key_read(const struct key_form *form, const char *path,
                            uint8_t out[static PROTO_KEY_BYTES], struct fault *fault)
{
    char text[KEYFILE_BYTES];
    enum status status = keyfile_read(path, text, fault);

    if (status == STATUS_OK && form->parse(text, out) != STATUS_OK)
        status = fault_set(fault, STATUS_FORMAT, "%s does not hold %s", path, form->what);
    sodium_memzero(text, sizeof text);
    return status;
}

static enum status key_make(const struct key_form *form, const char *path,
                            const uint8_t key[static PROTO_KEY_BYTES], bool *made,
                            struct fault *fault)
{
    char text[KEYFILE_BYTES];
    enum status status;

    form->format(key, text);
    status = keyfile_make(path, text, made, fault);
    sodium_memzero(text, sizeof text);
    return status;
}

/* Reads the key or makes one; what lies in the file afterwards is what counts. */
static enum status key_load(const struct key_form *form, const char *path,
                            uint8_t out[static PROTO_KEY_BYTES], bool *made, struct fault *fault)
{
    uint8_t fresh[PROTO_KEY_BYTES];
    enum status status = key_read(form, path, out, fault);

    *made = false;
    if (status != STATUS_NOT_FOUND)
        return status;
    randombytes_buf(fresh, sizeof fresh);
    status = key_make(form, path, fresh, made, fault);
    sodium_memzero(fresh, sizeof fresh);
    return status == STATUS_OK ? key_read(form, path, out, fault) : status;
}

void proto_identity_complete(struct proto_identity *identity)
{
    (void)crypto_scalarmult_curve25519_base(identity->public_key, identity->secret_key);
}

enum status proto_identity_load(const char *path, struct proto_identity *out, struct fault *fault)
{
    bool made;
    enum status status = key_load(&node_form, path, out->secret_key, &made, fault);

    if (status == STATUS_OK)
        proto_identity_complete(out);
    return status;
}

enum status proto_cluster_key_load(const char *path, uint8_t out[static PROTO_KEY_BYTES],
                                   bool *made, struct fault *fault)
{
    bool ignored;

    return key_load(&cluster_form, path, out, made ? made : &ignored, fault);
}

enum status proto_cluster_key_store(const char *path, const uint8_t key[static PROTO_KEY_BYTES],
                                    struct fault *fault)
{
    uint8_t there[PROTO_KEY_BYTES];
    bool made;
    enum status status = key_make(&cluster_form, path, key, &made, fault);

    if (status != STATUS_OK || made)
        return status;
    status = key_read(&cluster_form, path, there, fault);
    if (status == STATUS_OK && sodium_memcmp(there, key, sizeof there) != 0)
        status =
            fault_set(fault, STATUS_IN_USE,
                      "this node belongs to another cluster already; to join the new one, move "
                      "%s away first",
                      path);
    sodium_memzero(there, sizeof there);
    return status;
}
