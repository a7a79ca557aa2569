/* UTF-8 (RFC 3629). Decoding is lenient in one way only: a byte that belongs to no well-formed
 * character is a character of its own, so that any byte string has a length and can be walked. */
#include "engine/text/utf8.h"

/* Bytes that the lead byte asks for, and the range of the second byte, which excludes overlong
 * forms, surrogates and values past U+10FFFF. */
static size_t lead_length(uint8_t lead, uint8_t *low, uint8_t *high)
{
    *low = 0x80;
    *high = 0xbf;
    if (lead < 0x80) {
        return 1;
    }
    if (lead >= 0xc2 && lead <= 0xdf) {
        return 2;
    }
    if (lead >= 0xe0 && lead <= 0xef) {
        *low = lead == 0xe0 ? 0xa0 : 0x80;
        *high = lead == 0xed ? 0x9f : 0xbf;
        return 3;
    }
    if (lead >= 0xf0 && lead <= 0xf4) {
        *low = lead == 0xf0 ? 0x90 : 0x80;
        *high = lead == 0xf4 ? 0x8f : 0xbf;
        return 4;
    }
    return 0;
}

size_t utf8_decode_partial(const char *text, size_t n_bytes, uint32_t *out)
{
    const uint8_t *p = (const uint8_t *)text;
    *out = UTF8_BAD;
    if (n_bytes == 0) {
        return 0;
    }
    uint8_t low, high;
    size_t length = lead_length(p[0], &low, &high);
    if (length <= 1) {
        *out = length == 1 ? p[0] : UTF8_BAD;
        return 1;
    }
    static const uint8_t lead_mask[] = {0, 0, 0x1f, 0x0f, 0x07};
    uint32_t code = p[0] & lead_mask[length];
    for (size_t i = 1; i < length; i++) {
        if (i == n_bytes) {
            return 0;
        }
        if (p[i] < low || p[i] > high) {
            return 1;
        }
        code = code << 6 | (p[i] & 0x3f);
        low = 0x80;
        high = 0xbf;
    }
    *out = code;
    return length;
}

size_t utf8_decode(const char *text, size_t n_bytes, uint32_t *out)
{
    size_t length = utf8_decode_partial(text, n_bytes, out);
    return length == 0 && n_bytes > 0 ? 1 : length;
}

size_t utf8_encode(uint32_t code, char out[static 4])
{
    if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
        code = UTF8_BAD;
    }
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = length; i-- > 1;) {
        out[i] = (char)(0x80 | (code & 0x3f));
        code >>= 6;
    }
    out[0] = (char)(lead[length] | code);
    return length;
}

size_t utf8_count(const char *text, size_t n_bytes)
{
    size_t count = 0;
    uint32_t code;
    for (size_t at = 0; at < n_bytes; count++) {
        at += (uint8_t)text[at] < 0x80 ? 1 : utf8_decode(text + at, n_bytes - at, &code);
    }
    return count;
}

size_t utf8_offset(const char *text, size_t n_bytes, size_t i)
{
    size_t at = 0;
    uint32_t code;
    for (; i > 0 && at < n_bytes; i--) {
        at += (uint8_t)text[at] < 0x80 ? 1 : utf8_decode(text + at, n_bytes - at, &code);
    }
    return at;
}

bool utf8_is_space(uint32_t code)
{
    if (code < 0x80) {
        return code == ' ' || (code >= 0x09 && code <= 0x0d) || (code >= 0x1c && code <= 0x1f);
    }
    return code == 0x85 || code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) ||
           code == 0x2028 || code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}
