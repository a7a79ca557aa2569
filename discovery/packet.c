/* The guard in front of libmdnsd's parser, which is C of 2003 and trusts a packet more than anyone
 * on a network deserves: it takes no length, follows compression pointers by rules of its own,
 * reads four bytes of an A record whatever the record's length says, and writes what it finds into
 * one block of 64 KiB. So every packet is walked here first (RFC 1035 section 4.1, RFC 6762 section
 * 18), and what is not sound is dropped:
 *
 *   - at most 9000 bytes, 256 records; opcode 0, as mDNS demands;
 *   - labels of 1 to 63 bytes without NUL (names become C strings); at most 255 characters in all;
 *   - a pointer goes back to before the name it is part of, never into the header, never onto an
 *     empty name, and never past byte 4095, which is as far as the parser decodes;
 *   - A has 4 bytes, AAAA 16; names inside PTR, NS, CNAME and SRV end exactly where the record
 * ends;
 *   - the sum of what the parser will store stays well inside its block.
 *
 * The cursor here is big endian and knows names, which base's reader does not. */
#include "discovery/packet.h"

enum {
    TYPE_A = 1,
    TYPE_NS = 2,
    TYPE_CNAME = 5,
    TYPE_PTR = 12,
    TYPE_TXT = 16,
    TYPE_AAAA = 28,
    TYPE_SRV = 33,
    NAME_MAX_CHARS = 255,
    POINTER_MAX = 4095,
    /* The parser's block is 65,535 bytes; its own structures per question and record are at most 24
     * and 96 bytes on 64-bit machines, and an address is stored a second time as text. */
    STORE_MAX = 60000,
    STORE_QUESTION = 32,
    STORE_RECORD = 112,
    STORE_ADDRESS_TEXT = 48,
    CLASS_FLUSH_BIT = 0x80
};

struct walk {
    const uint8_t *data;
    size_t size;
    size_t at;
    size_t store; /* bytes of the parser's block that are spoken for */
};

static uint16_t u16_at(const uint8_t *data, size_t at)
{
    return (uint16_t)(data[at] << 8 | data[at + 1]);
}

/* One label at *at: adds to *chars and moves on. */
static enum status label_check(const struct walk *w, size_t *at, size_t *chars)
{
    size_t n = w->data[*at];
    if (n > 63)
        return STATUS_FORMAT;
    if (w->size - *at - 1 < n)
        return STATUS_TRUNCATED;
    for (size_t i = 0; i < n; i++) {
        if (w->data[*at + 1 + i] == 0)
            return STATUS_FORMAT;
    }
    *chars += n + 1;
    *at += n + 1;
    return *chars > NAME_MAX_CHARS ? STATUS_LIMIT : STATUS_OK;
}

/* The name at w->at, which then stands behind it. Each pointer goes to before the start of the run
 * of labels that it ends, so the walk comes to an end. */
static enum status name_check(struct walk *w)
{
    size_t at = w->at;
    size_t start = at;
    size_t chars = 0;
    bool jumped = false;
    while (true) {
        if (at >= w->size)
            return STATUS_TRUNCATED;
        uint8_t byte = w->data[at];
        if (byte == 0)
            break;
        if ((byte & 0xc0) != 0xc0) {
            enum status status = label_check(w, &at, &chars);
            if (status != STATUS_OK)
                return status;
            continue;
        }
        if (w->size - at < 2)
            return STATUS_TRUNCATED;
        size_t target = u16_at(w->data, at) & 0x3fffu;
        if (!jumped)
            w->at = at + 2;
        jumped = true;
        if (target < PACKET_HEADER_BYTES || target >= start || w->data[target] == 0)
            return STATUS_FORMAT;
        if (target > POINTER_MAX)
            return STATUS_LIMIT;
        at = start = target;
    }
    if (!jumped)
        w->at = at + 1;
    w->store += chars + 1;
    return STATUS_OK;
}

/* A record's name and fixed part; leaves w at its data. */
static enum status record_head(struct walk *w, uint16_t *type, size_t *n_data)
{
    enum status status = name_check(w);
    if (status != STATUS_OK)
        return status;
    if (w->size - w->at < 10)
        return STATUS_TRUNCATED;
    *type = u16_at(w->data, w->at);
    *n_data = u16_at(w->data, w->at + 8);
    w->at += 10;
    return w->size - w->at < *n_data ? STATUS_TRUNCATED : STATUS_OK;
}

static enum status record_check(struct walk *w)
{
    uint16_t type = 0;
    size_t n_data = 0;
    enum status status = record_head(w, &type, &n_data);
    if (status != STATUS_OK)
        return status;
    size_t end = w->at + n_data;
    switch (type) {
    case TYPE_A:
    case TYPE_AAAA:
        if (n_data != (type == TYPE_A ? 4 : 16))
            return STATUS_FORMAT;
        w->store += STORE_ADDRESS_TEXT;
        break;
    case TYPE_SRV:
        if (n_data < 7)
            return STATUS_FORMAT;
        w->at += 6;
        status = name_check(w);
        break;
    case TYPE_NS:
    case TYPE_CNAME:
    case TYPE_PTR:
        status = name_check(w);
        break;
    default:
        w->at = end;
        break;
    }
    if (type == TYPE_A || type == TYPE_AAAA)
        w->at = end;
    if (status == STATUS_OK && w->at != end)
        status = STATUS_FORMAT;
    w->store += STORE_RECORD + n_data;
    return status;
}

static enum status question_check(struct walk *w)
{
    enum status status = name_check(w);
    if (status != STATUS_OK)
        return status;
    if (w->size - w->at < 4)
        return STATUS_TRUNCATED;
    w->at += 4;
    w->store += STORE_QUESTION;
    return STATUS_OK;
}

enum status packet_check(const uint8_t *data, size_t size_bytes)
{
    if (size_bytes > PACKET_MAX_BYTES)
        return STATUS_LIMIT;
    if (size_bytes < PACKET_HEADER_BYTES)
        return STATUS_TRUNCATED;
    if (data[2] & 0x78)
        return STATUS_FORMAT;
    size_t n_questions = u16_at(data, 4);
    size_t n_records = (size_t)u16_at(data, 6) + u16_at(data, 8) + u16_at(data, 10);
    if (n_questions > PACKET_MAX_RECORDS || n_records > PACKET_MAX_RECORDS)
        return STATUS_LIMIT;
    struct walk w = {.data = data, .size = size_bytes, .at = PACKET_HEADER_BYTES};
    for (size_t i = 0; i < n_questions + n_records; i++) {
        enum status status = i < n_questions ? question_check(&w) : record_check(&w);
        if (status != STATUS_OK)
            return status;
        if (w.store > STORE_MAX)
            return STATUS_LIMIT;
    }
    return STATUS_OK;
}

void packet_mark_unique(uint8_t *data, size_t size_bytes)
{
    struct walk w = {.data = data, .size = size_bytes, .at = PACKET_HEADER_BYTES};
    for (size_t i = u16_at(data, 4); i > 0; i--) {
        if (question_check(&w) != STATUS_OK)
            return;
    }
    for (size_t i = u16_at(data, 6); i > 0; i--) {
        uint16_t type = 0;
        size_t n_data = 0;
        if (record_head(&w, &type, &n_data) != STATUS_OK)
            return;
        if (type == TYPE_SRV || type == TYPE_TXT || type == TYPE_A || type == TYPE_AAAA)
            data[w.at - 8] |= CLASS_FLUSH_BIT;
        w.at += n_data;
    }
}
