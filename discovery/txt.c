/* TXT records. A record is a row of strings, each with its length in one byte before it, each
 * `key=value` (RFC 6763 section 6). Ours, in this order:
 *
 *   id=<64 hex digits>  cl=<16 hex digits>  v=<decimal>  engine=<word>  mem=<bytes>  run=<decimal>
 *
 * `run` is another number at each start of a node: one that died and came back without a goodbye,
 * with all else as it was, is told anew by it.
 *
 * A record of another protocol version must still be readable as far as id, cl and v, so that its
 * node can be named as foreign instead of being passed over in silence: the other keys are
 * optional.
 *
 * What fails: a string that runs past the end, a missing or malformed id, cl or v. The bytes come
 * from anyone on the network, so every length is checked before use, and a value is copied to a
 * bounded buffer before it is looked at as text. */
#include "discovery/txt.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { VALUE_MAX = 2 * DISCOVERY_ID_BYTES + 1 };

static size_t put(uint8_t *out, size_t at, const char *key, const char *value)
{
    int n = snprintf((char *)out + at + 1, TXT_WRITE_MAX_BYTES - at - 1, "%s=%s", key, value);
    out[at] = (uint8_t)n;
    return at + 1 + (size_t)n;
}

static bool is_engine_word(const char *word)
{
    for (; *word; word++) {
        if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789_.-", *word))
            return false;
    }
    return true;
}

size_t txt_encode(const struct discovery_card *card, uint8_t out[static TXT_WRITE_MAX_BYTES])
{
    char value[VALUE_MAX];
    size_t at = 0;
    bytes_to_hex(card->node_id, sizeof card->node_id, value);
    at = put(out, at, "id", value);
    bytes_to_hex(card->fingerprint, sizeof card->fingerprint, value);
    at = put(out, at, "cl", value);
    snprintf(value, sizeof value, "%u", card->protocol_version);
    at = put(out, at, "v", value);
    snprintf(value, sizeof value, "%.*s", (int)sizeof card->engine - 1, card->engine);
    at = put(out, at, "engine", value);
    snprintf(value, sizeof value, "%llu", (unsigned long long)card->memory_bytes);
    at = put(out, at, "mem", value);
    snprintf(value, sizeof value, "%u", card->run);
    return put(out, at, "run", value);
}

static bool read_decimal(const char *text, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;
    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*text - '0'), &v))
            return false;
    }
    *out = v;
    return v <= max;
}

enum key { KEY_ID, KEY_CL, KEY_V, KEY_RUN, KEY_ENGINE, KEY_MEM, KEY_COUNT };
static const char *const key_names[KEY_COUNT] = {"id", "cl", "v", "run", "engine", "mem"};

/* False where a key that identifies the node has a value that cannot be its. */
static bool take_value(struct discovery_card *card, enum key key, const char *value)
{
    uint64_t number = 0;
    switch (key) {
    case KEY_ID:
        return bytes_from_hex(value, card->node_id, sizeof card->node_id);
    case KEY_CL:
        return bytes_from_hex(value, card->fingerprint, sizeof card->fingerprint);
    case KEY_V:
        if (!read_decimal(value, UINT32_MAX, &number))
            return false;
        card->protocol_version = (uint32_t)number;
        return true;
    case KEY_RUN:
        if (read_decimal(value, UINT32_MAX, &number))
            card->run = (uint32_t)number;
        return true;
    case KEY_ENGINE:
        if (strlen(value) < sizeof card->engine && is_engine_word(value))
            memcpy(card->engine, value, strlen(value) + 1);
        return true;
    case KEY_MEM:
        if (read_decimal(value, UINT64_MAX, &number))
            card->memory_bytes = number;
        return true;
    case KEY_COUNT:
        break;
    }
    return true;
}

/* The key of `key=value`, and the value as text; KEY_COUNT for strings that are not ours. */
static enum key split(const uint8_t *string, size_t n, char value[static VALUE_MAX])
{
    const uint8_t *equals = memchr(string, '=', n);
    if (!equals)
        return KEY_COUNT;
    size_t key_len = (size_t)(equals - string);
    size_t value_len = n - key_len - 1;
    for (unsigned k = 0; k < KEY_COUNT; k++) {
        if (strlen(key_names[k]) != key_len ||
            strncasecmp(key_names[k], (const char *)string, key_len) != 0)
            continue;
        if (value_len >= VALUE_MAX || memchr(equals + 1, 0, value_len))
            value_len = 0;
        memcpy(value, equals + 1, value_len);
        value[value_len] = '\0';
        return (enum key)k;
    }
    return KEY_COUNT;
}

enum status txt_decode(const uint8_t *data, size_t size_bytes, struct discovery_card *card)
{
    if (size_bytes > TXT_READ_MAX_BYTES)
        return STATUS_LIMIT;
    struct discovery_card read = *card;
    read.engine[0] = '\0';
    read.memory_bytes = 0;
    read.run = 0;
    bool seen[KEY_COUNT] = {false};
    struct reader r = reader_of(data, size_bytes);
    for (unsigned n_strings = 0; reader_left(&r) > 0; n_strings++) {
        if (n_strings == TXT_READ_MAX_STRINGS)
            return STATUS_LIMIT;
        size_t n = reader_u8(&r);
        const uint8_t *string = reader_take(&r, n);
        if (!string)
            return STATUS_TRUNCATED;
        char value[VALUE_MAX];
        enum key key = split(string, n, value);
        if (key == KEY_COUNT || seen[key])
            continue;
        seen[key] = true;
        if (!take_value(&read, key, value))
            return STATUS_FORMAT;
    }
    if (!seen[KEY_ID] || !seen[KEY_CL] || !seen[KEY_V])
        return STATUS_FORMAT;
    *card = read;
    return STATUS_OK;
}
