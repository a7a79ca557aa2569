#ifndef SKEIN_ENGINE_TEXT_UTF8_H
#define SKEIN_ENGINE_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UTF8_BAD = 0xfffd };

/* Length of the well-formed character (RFC 3629) at the start of n bytes, its code point in *out. A
 * byte that begins none counts as one character UTF8_BAD. 0 only for n = 0. */
size_t utf8_decode(const char *text, size_t n_bytes, uint32_t *out);
/* As utf8_decode, but 0 where the bytes are the beginning of a character that may yet be completed.
 */
size_t utf8_decode_partial(const char *text, size_t n_bytes, uint32_t *out);
/* Number of bytes written, 1..4; what is no scalar value becomes U+FFFD. */
size_t utf8_encode(uint32_t code, char out[static 4]);
size_t utf8_count(const char *text, size_t n_bytes);
/* Byte offset of character i, n_bytes where there are fewer. */
size_t utf8_offset(const char *text, size_t n_bytes, size_t i);
bool utf8_is_space(uint32_t code); /* as Python's str.isspace */

#endif
