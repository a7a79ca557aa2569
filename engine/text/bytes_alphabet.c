/* The alphabet of byte-level vocabularies (GPT-2): every byte is written as one printable
 * character, so that merges and vocabularies are plain text. Printable Latin-1 bytes stand for
 * themselves; the other 68 take the code points from U+0100 on, in order. */
#include "engine/text/utf8.h"
#include "engine/text/vocab.h"

static bool stands_for_itself(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

size_t byte_letter(uint8_t byte, char out[static 2])
{
    uint32_t code = byte;
    if (!stands_for_itself(byte)) {
        code = 0x100;
        for (unsigned b = 0; b < byte; b++) {
            code += !stands_for_itself(b);
        }
    }
    char bytes[4];
    size_t n = utf8_encode(code, bytes);
    out[0] = bytes[0];
    out[1] = n > 1 ? bytes[1] : '\0';
    return n;
}

int letter_byte(uint32_t code)
{
    if (code < 0x100) {
        return stands_for_itself(code) ? (int)code : -1;
    }
    uint32_t next = 0x100;
    for (int byte = 0; byte < 256; byte++) {
        if (!stands_for_itself((unsigned)byte) && next++ == code) {
            return byte;
        }
    }
    return -1;
}
