/* Bounded bytes: the reader that every parser of untrusted input goes through, the growing buffer
 * with a ceiling, hexadecimal, and sizes as people write them.
 *
 * A reader never moves past its end and never reads a length that it has not compared with what is
 * left; it turns bad instead and stays bad. A buffer refuses to grow over its limit, so whatever
 * fills it from a peer is bounded at one place. */
#include "proto/base/bytes.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/mem.h"

struct reader reader_of(const void *data, size_t size_bytes)
{
    return (struct reader){.data = data, .size_bytes = size_bytes};
}

size_t reader_left(const struct reader *r)
{
    return r->bad ? 0 : r->size_bytes - r->at;
}

const uint8_t *reader_take(struct reader *r, size_t n_bytes)
{
    const uint8_t *p;

    if (r->bad || n_bytes > r->size_bytes - r->at) {
        r->bad = true;
        return NULL;
    }
    p = r->data + r->at;
    r->at += n_bytes;
    return p;
}

static uint64_t reader_little(struct reader *r, size_t n_bytes)
{
    const uint8_t *p = reader_take(r, n_bytes);
    uint64_t v = 0;

    for (size_t i = 0; p && i < n_bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

uint8_t reader_u8(struct reader *r)
{
    return (uint8_t)reader_little(r, 1);
}

uint16_t reader_u16(struct reader *r)
{
    return (uint16_t)reader_little(r, 2);
}

uint32_t reader_u32(struct reader *r)
{
    return (uint32_t)reader_little(r, 4);
}

uint64_t reader_u64(struct reader *r)
{
    return reader_little(r, 8);
}

enum status buffer_reserve(struct buffer *b, size_t more_bytes)
{
    size_t max = b->max_bytes ? b->max_bytes : SIZE_MAX / 2;
    size_t need, capacity;
    uint8_t *data;

    if (__builtin_add_overflow(b->len, more_bytes, &need) || need > max)
        return STATUS_LIMIT;
    if (b->data && need < b->capacity)
        return STATUS_OK;
    capacity = b->capacity ? b->capacity : 64;
    while (capacity <= need)
        capacity *= 2;
    data = mem_resize(b->data, capacity, 1);
    if (!data)
        return STATUS_NO_MEMORY;
    b->data = data;
    b->capacity = capacity;
    b->data[b->len] = 0;
    return STATUS_OK;
}

enum status buffer_put(struct buffer *b, const void *data, size_t n_bytes)
{
    enum status status = buffer_reserve(b, n_bytes);

    if (status != STATUS_OK)
        return status;
    if (n_bytes)
        memcpy(b->data + b->len, data, n_bytes);
    b->len += n_bytes;
    b->data[b->len] = 0;
    return STATUS_OK;
}

enum status buffer_put_text(struct buffer *b, const char *text)
{
    return buffer_put(b, text, strlen(text));
}

enum status buffer_put_u8(struct buffer *b, uint8_t v)
{
    return buffer_put(b, &v, 1);
}

enum status buffer_put_u32(struct buffer *b, uint32_t v)
{
    uint8_t bytes[4];

    bytes_put_u32(bytes, v);
    return buffer_put(b, bytes, sizeof bytes);
}

enum status buffer_put_u64(struct buffer *b, uint64_t v)
{
    uint8_t bytes[8];

    bytes_put_u32(bytes, (uint32_t)v);
    bytes_put_u32(bytes + 4, (uint32_t)(v >> 32));
    return buffer_put(b, bytes, sizeof bytes);
}

enum status buffer_printf(struct buffer *b, const char *format, ...)
{
    va_list args, again;
    enum status status;
    int n;

    va_start(args, format);
    va_copy(again, args);
    n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    status = n < 0 ? STATUS_INVALID : buffer_reserve(b, (size_t)n);
    if (status == STATUS_OK) {
        (void)vsnprintf((char *)b->data + b->len, (size_t)n + 1, format, again);
        b->len += (size_t)n;
    }
    va_end(again);
    return status;
}

void buffer_drop_front(struct buffer *b, size_t n_bytes)
{
    assert(n_bytes <= b->len);
    if (n_bytes == 0)
        return;
    memmove(b->data, b->data + n_bytes, b->len - n_bytes + 1);
    b->len -= n_bytes;
}

void buffer_free(struct buffer *b)
{
    mem_free(b->data);
    b->data = NULL;
    b->len = b->capacity = 0;
}

void bytes_put_u32(uint8_t out[static 4], uint32_t v)
{
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(v >> (8 * i));
}

uint32_t bytes_get_u32(const uint8_t in[static 4])
{
    return (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

void bytes_to_hex(const uint8_t *in, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[in[i] >> 4];
        out[2 * i + 1] = digits[in[i] & 15];
    }
    out[2 * n] = 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool bytes_from_hex(const char *hex, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int high = hex_digit(hex[2 * i]);
        int low = high < 0 ? -1 : hex_digit(hex[2 * i + 1]);

        if (low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return hex[2 * n] == 0;
}

size_t bytes_utf8_sequence(const uint8_t *data, size_t n_bytes)
{
    uint8_t first = data[0];
    size_t n = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;

    if (n == 0 || n > n_bytes || first > 0xf4)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((data[i] & 0xc0) != 0x80)
            return 0;
    if ((first == 0xe0 && data[1] < 0xa0) || (first == 0xed && data[1] > 0x9f) ||
        (first == 0xf0 && data[1] < 0x90) || (first == 0xf4 && data[1] > 0x8f))
        return 0;
    return n;
}

bool bytes_are_text(const uint8_t *data, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes;) {
        size_t n = bytes_utf8_sequence(data + i, n_bytes - i);

        if (n == 0 || data[i] == 0)
            return false;
        i += n;
    }
    return true;
}

bool bytes_parse_size(const char *text, uint64_t *out_bytes)
{
    static const char suffixes[] = "KMGT";
    char *end;
    double v;

    errno = 0;
    if (!((*text >= '0' && *text <= '9') || *text == '.'))
        return false;
    v = strtod(text, &end);
    if (errno || end == text)
        return false;
    if (*end) {
        const char *suffix = strchr(suffixes, *end & ~0x20);

        if (suffix && *suffix) {
            for (const char *s = suffixes; s <= suffix; s++)
                v *= 1024;
            end++;
            if (*end == 'i' && (end[1] & ~0x20) == 'B')
                end++;
        }
        if ((*end & ~0x20) == 'B')
            end++;
    }
    if (*end || v >= 9.2e18)
        return false;
    *out_bytes = (uint64_t)v;
    return true;
}

const char *bytes_format_size(uint64_t bytes, char *out, size_t out_size)
{
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
    double v = (double)bytes;
    unsigned unit = 0;

    while (v >= 1000 && unit + 1 < sizeof units / sizeof *units) {
        v /= 1024;
        unit++;
    }
    (void)snprintf(out, out_size, unit == 0 || v >= 100 ? "%.0f %s" : "%.1f %s", v, units[unit]);
    return out;
}
