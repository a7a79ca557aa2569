/* tokenizer.model: a SentencePiece model, which older folders have instead of tokenizer.json.
 *
 * The file is a protocol-buffers message: pieces with text, score and type, what kind of model they
 * are for, and how texts are normalised. Only these few fields are read, with a bounded cursor;
 * others are skipped by their wire type. The numbers of token types are GGUF's own, which took them
 * from here. Tokens that were added to the model later are in tokenizer_config.json.
 *
 * Source: sentencepiece_model.proto of the SentencePiece project; the protocol-buffers encoding. */
#include "engine/hf/tokenizer.h"

#include <string.h>

enum { MAX_MODEL_BYTES = 64 << 20, MAX_PIECES = 4 << 20, TYPE_NORMAL = 1 };
enum { WIRE_VARINT, WIRE_64, WIRE_BYTES, WIRE_32 = 5 };
enum model_kind { KIND_UNIGRAM = 1, KIND_BPE = 2 };

struct field {
    uint32_t number, wire;
    uint64_t value;      /* of a varint, or the bits of a fixed one */
    struct reader bytes; /* of a field of bytes */
};

struct piece_model {
    struct hf_tokens tokens;
    char *texts; /* of all pieces, each with a NUL */
    size_t n_texts;
    json_t *later; /* has the texts of the tokens that were added later */
    enum model_kind kind;
    struct reader charsmap;
    bool prefix, merge_spaces;
};

static uint64_t read_varint(struct reader *r)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = reader_u8(r);

        v |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return v;
    }
    r->bad = true;
    return 0;
}

/* false at the end, and for what is not a field (r->bad). */
static bool field_next(struct reader *r, struct field *out)
{
    uint64_t tag, n;

    if (r->bad || reader_left(r) == 0)
        return false;
    tag = read_varint(r);
    *out = (struct field){.number = (uint32_t)(tag >> 3), .wire = tag & 7};
    switch (out->wire) {
    case WIRE_VARINT:
        out->value = read_varint(r);
        break;
    case WIRE_64:
        out->value = reader_u64(r);
        break;
    case WIRE_32:
        out->value = reader_u32(r);
        break;
    case WIRE_BYTES:
        n = read_varint(r);
        if (n > reader_left(r))
            r->bad = true;
        else
            out->bytes = reader_of(reader_take(r, (size_t)n), (size_t)n);
        break;
    default:
        r->bad = true;
    }
    return !r->bad;
}

static size_t count_pieces(struct reader r)
{
    struct field field;
    size_t n = 0;

    while (field_next(&r, &field))
        n += field.number == 1 && field.wire == WIRE_BYTES;
    return n;
}

static bool read_piece(struct piece_model *m, struct reader r, struct hf_token *out)
{
    struct field field;

    *out = (struct hf_token){.text = "", .type = TYPE_NORMAL};
    while (field_next(&r, &field)) {
        if (field.number == 1 && field.wire == WIRE_BYTES) {
            char *text = m->texts + m->n_texts;

            if (field.bytes.size_bytes)
                memcpy(text, field.bytes.data, field.bytes.size_bytes);
            m->n_texts += field.bytes.size_bytes + 1;
            out->text = text;
            out->n_bytes = field.bytes.size_bytes;
        } else if (field.number == 2 && field.wire == WIRE_32) {
            uint32_t bits = (uint32_t)field.value;

            memcpy(&out->score, &bits, sizeof bits);
        } else if (field.number == 3 && field.wire == WIRE_VARINT) {
            out->type = field.value >= 1 && field.value <= 6 ? (uint32_t)field.value : TYPE_NORMAL;
        }
    }
    return !r.bad;
}

static bool read_normalizer(struct piece_model *m, struct reader r)
{
    struct field field;

    while (field_next(&r, &field)) {
        if (field.number == 2 && field.wire == WIRE_BYTES)
            m->charsmap = field.bytes;
        else if (field.number == 3 && field.wire == WIRE_VARINT)
            m->prefix = field.value != 0;
        else if (field.number == 4 && field.wire == WIRE_VARINT)
            m->merge_spaces = field.value != 0;
    }
    return !r.bad;
}

static bool read_trainer(struct piece_model *m, struct reader r)
{
    struct field field;

    while (field_next(&r, &field)) {
        if (field.number == 3 && field.wire == WIRE_VARINT)
            m->kind = (enum model_kind)(field.value & 15);
    }
    return !r.bad;
}

static bool read_model(struct piece_model *m, struct reader r)
{
    struct field field;
    size_t n = 0;
    bool good = true;

    while (good && field_next(&r, &field)) {
        if (field.wire != WIRE_BYTES)
            continue;
        if (field.number == 1) {
            struct hf_token spare;

            good = read_piece(m, field.bytes, n < m->tokens.n ? &m->tokens.tokens[n] : &spare);
            n++;
        } else if (field.number == 2) {
            good = read_trainer(m, field.bytes);
        } else if (field.number == 3) {
            good = read_normalizer(m, field.bytes);
        }
    }
    return good && !r.bad;
}

/* {"32000": {content, …}} as a list with ids. */
static void add_later_tokens(struct hf_build *build, struct piece_model *m)
{
    json_t *config = NULL, *list = json_array(), *value;
    const char *id;

    build->status = hf_read_json(build->folder, "tokenizer_config.json", HF_MAX_CONFIG_BYTES, true,
                                 &config, build->fault);
    json_object_foreach(json_object_get(config, "added_tokens_decoder"), id, value)
    {
        json_int_t number = 0;

        for (const char *c = id; *c >= '0' && *c <= '9' && number < MAX_PIECES; c++)
            number = 10 * number + (*c - '0');
        if (json_is_object(value) && !json_object_set_new(value, "id", json_integer(number)))
            (void)json_array_append(list, value);
    }
    if (!build->status)
        hf_tokens_add(build, &m->tokens, list);
    m->later = list;
    json_decref(config);
}

static void write_model(struct hf_build *build, struct piece_model *m)
{
    struct gguf_writer *w = &build->writer;
    struct hf_tokens *t = &m->tokens;
    const char *name = m->kind == KIND_BPE ? "llama" : m->kind == KIND_UNIGRAM ? "t5" : "unknown";

    add_later_tokens(build, m);
    if (!build->status)
        hf_tokens_sort(build, t);
    if (build->status)
        return;
    t->unknown = UINT32_MAX;
    for (uint32_t i = 0; i < t->n && t->unknown == UINT32_MAX; i++)
        t->unknown = t->tokens[i].type == 2 ? i : UINT32_MAX;
    gguf_write_text(w, "tokenizer.ggml.model", name, strlen(name));
    hf_tokens_write(build, t, true);
    gguf_write_bool(w, "tokenizer.ggml.add_space_prefix", m->prefix);
    gguf_write_bool(w, "tokenizer.ggml.remove_extra_whitespaces", m->merge_spaces);
    if (m->charsmap.size_bytes && m->kind == KIND_UNIGRAM) {
        gguf_write_array(w, "tokenizer.ggml.precompiled_charsmap", GGUF_U8, m->charsmap.size_bytes);
        gguf_write_item_bytes(w, m->charsmap.data, m->charsmap.size_bytes);
    }
    hf_write_settings(build, t, NULL);
}

static void convert(struct hf_build *build, const struct buffer *bytes)
{
    struct piece_model m = {.kind = KIND_UNIGRAM, .prefix = true, .merge_spaces = true};
    struct reader r = reader_of(bytes->data, bytes->len);

    m.tokens.n = build->n_vocab ? build->n_vocab : count_pieces(r);
    if (m.tokens.n == 0 || m.tokens.n > MAX_PIECES) {
        hf_fail(build, STATUS_FORMAT, "tokenizer.model: a vocabulary of %zu pieces", m.tokens.n);
        return;
    }
    m.tokens.tokens = MEM_NEW_N(struct hf_token, m.tokens.n);
    m.texts = mem_zeroed(bytes->len + 1, 1); /* a piece's tag and length make room for its NUL */
    if (!m.tokens.tokens || !m.texts)
        hf_fail(build, STATUS_NO_MEMORY, "out of memory");
    else if (!read_model(&m, r))
        hf_fail(build, STATUS_FORMAT, "tokenizer.model is damaged or no SentencePiece model");
    else
        write_model(build, &m);
    mem_free(m.tokens.tokens);
    mem_free(m.tokens.sorted);
    mem_free(m.texts);
    json_decref(m.later);
}

void hf_write_sentencepiece(struct hf_build *build)
{
    struct buffer bytes = {0};

    build->status =
        hf_read_text(build->folder, "tokenizer.model", MAX_MODEL_BYTES, true, &bytes, build->fault);
    if (!build->status && bytes.len)
        convert(build, &bytes);
    else if (!build->status)
        hf_write_template(build);
    buffer_free(&bytes);
}
