#ifndef SKEIN_PROTO_BASE_BYTES_H
#define SKEIN_PROTO_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/status.h"

/* A bounded cursor over bytes that someone else owns. A read past the end sets `bad`, returns 0 or
 * NULL and stays bad, so a parser checks once at the end of a group of reads. Little endian. */
struct reader {
    const uint8_t *data;
    size_t size_bytes;
    size_t at;
    bool bad;
};

struct reader reader_of(const void *data, size_t size_bytes);
size_t reader_left(const struct reader *r);
uint8_t reader_u8(struct reader *r);
uint16_t reader_u16(struct reader *r);
uint32_t reader_u32(struct reader *r);
uint64_t reader_u64(struct reader *r);
const uint8_t *reader_take(struct reader *r, size_t n_bytes); /* NULL where fewer are left */

/* A growing byte buffer with a ceiling. Zero-initialise, set max_bytes (0 = SIZE_MAX / 2). Always
 * NUL-terminated behind len when data is not NULL, so text can be read as a C string. */
struct buffer {
    uint8_t *data;
    size_t len;
    size_t capacity;
    size_t max_bytes;
};

/* NO_MEMORY, or LIMIT past max_bytes; the buffer is unchanged on failure. */
enum status buffer_reserve(struct buffer *b, size_t more_bytes) MUST_USE;
enum status buffer_put(struct buffer *b, const void *data, size_t n_bytes) MUST_USE;
enum status buffer_put_text(struct buffer *b, const char *text) MUST_USE;
enum status buffer_put_u8(struct buffer *b, uint8_t v) MUST_USE;
enum status buffer_put_u32(struct buffer *b, uint32_t v) MUST_USE; /* little endian */
enum status buffer_put_u64(struct buffer *b, uint64_t v) MUST_USE;
enum status buffer_printf(struct buffer *b, const char *format, ...) MUST_USE PRINTF_LIKE(2, 3);
void buffer_drop_front(struct buffer *b, size_t n_bytes); /* n_bytes <= len */
void buffer_free(struct buffer *b);

void bytes_put_u32(uint8_t out[static 4], uint32_t v);
uint32_t bytes_get_u32(const uint8_t in[static 4]);

/* Lower-case hexadecimal; out holds 2 n + 1 characters. */
void bytes_to_hex(const uint8_t *in, size_t n, char *out);
/* Exactly n bytes from 2 n digits of either case and then the end of the string. */
bool bytes_from_hex(const char *hex, uint8_t *out, size_t n);

/* Whole UTF-8 without NUL, as RFC 3629 has it: no surrogates, nothing overlong, no more than
 * U+10FFFF. */
bool bytes_are_text(const uint8_t *data, size_t n_bytes);
/* Length of the UTF-8 sequence that data starts with, 0 where it starts with none; n_bytes > 0. */
size_t bytes_utf8_sequence(const uint8_t *data, size_t n_bytes);

/* "512", "64K", "1.5G", "16GiB" (powers of 1024, suffix in either case). */
bool bytes_parse_size(const char *text, uint64_t *out_bytes);
/* "1.5 GB"-like words with powers of 1024 into out (at least 16 characters); returns out. */
const char *bytes_format_size(uint64_t bytes, char *out, size_t out_size);

#endif
