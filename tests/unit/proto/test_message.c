/* Messages as protobuf headers: every kind there and back, every bound of every field, and headers
 * that a broken or hostile peer could send. */
#include <math.h>

#include "messages.h"

static struct message_arena arena;

static struct message *there_and_back(const struct message *m)
{
    static uint8_t header[PROTO_MAX_HEADER_BYTES];
    struct message *out = NULL;
    struct fault fault = {0};
    size_t n = 0;

    assert_int_equal(message_pack(m, header, sizeof header, &n), STATUS_OK);
    assert_int_equal(message_unpack(header, n, m->payload_bytes, &arena, &out, &fault), STATUS_OK);
    return out;
}

static void test_every_kind_there_and_back(void **state)
{
    (void)state;
    for (int kind = 1; kind < MESSAGE_KIND_LIMIT; kind++) {
        for (int full = 0; full < 2; full++) {
            struct message *m = full ? message_full((enum message_kind)kind)
                                     : message_empty((enum message_kind)kind);
            struct message *back = there_and_back(m);

            assert_non_null(back);
            back->payload_bytes = m->payload_bytes; /* the payload is not message_unpack's */
            if (m->payload)
                back->payload = mem_copy(m->payload, m->payload_bytes);
            assert_same_message(m, back);
            message_free(&m);
            message_free(&back);
            assert_null(back);
        }
    }
}

static void test_every_truncation_of_a_header(void **state)
{
    static uint8_t header[PROTO_MAX_HEADER_BYTES];

    (void)state;
    for (int kind = 1; kind < MESSAGE_KIND_LIMIT; kind++) {
        struct message *m = message_full((enum message_kind)kind);
        size_t n;

        assert_int_equal(message_pack(m, header, sizeof header, &n), STATUS_OK);
        for (size_t cut = 0; cut < n; cut++) {
            uint8_t *exact = malloc(cut + 1);
            struct message *out = (struct message *)1;
            struct fault fault = {0};

            memcpy(exact, header, cut);
            assert_int_not_equal(message_unpack(exact, cut, m->payload_bytes, &arena, &out, &fault),
                                 STATUS_OK);
            assert_null(out);
            assert_true(fault.text[0] != 0);
            free(exact);
        }
        message_free(&m);
    }
}

/* No flip may crash or leak; whatever is taken must be within bounds, which packing checks. */
static void test_flipped_bits_stay_within_bounds(void **state)
{
    static uint8_t header[PROTO_MAX_HEADER_BYTES], again[PROTO_MAX_HEADER_BYTES];

    (void)state;
    for (int kind = 1; kind < MESSAGE_KIND_LIMIT; kind++) {
        struct message *m = message_full((enum message_kind)kind);
        size_t n, n_again, step;

        assert_int_equal(message_pack(m, header, sizeof header, &n), STATUS_OK);
        step = n > 2000 ? 7 : 1;
        for (size_t bit = 0; bit < 8 * n; bit += step) {
            struct message *out = NULL;

            header[bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (message_unpack(header, n, m->payload_bytes, &arena, &out, NULL) == STATUS_OK) {
                out->payload_bytes = m->payload_bytes;
                assert_int_equal(message_pack(out, again, sizeof again, &n_again), STATUS_OK);
            }
            message_free(&out);
            header[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        message_free(&m);
    }
}

/* ---------------------------------------------------------------- hand-made headers */

struct wire {
    uint8_t bytes[PROTO_MAX_HEADER_BYTES + 64];
    size_t n;
};

static void put_varint(struct wire *w, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        w->bytes[w->n++] = (uint8_t)(v | 0x80);
    w->bytes[w->n++] = (uint8_t)v;
}

static void put_number(struct wire *w, unsigned field, uint64_t v)
{
    put_varint(w, field << 3);
    put_varint(w, v);
}

static void put_blob(struct wire *w, unsigned field, const void *data, size_t n)
{
    put_varint(w, field << 3 | 2);
    put_varint(w, n);
    memcpy(w->bytes + w->n, data, n);
    w->n += n;
}

static void put_double(struct wire *w, unsigned field, double v)
{
    put_varint(w, field << 3 | 1);
    memcpy(w->bytes + w->n, &v, 8);
    w->n += 8;
}

/* What a header of one kind with this body is taken for. */
static enum status judge(enum message_kind kind, const struct wire *body, size_t payload_bytes,
                         const char *word)
{
    struct wire w = {.n = 0};
    struct message *out = NULL;
    struct fault fault = {0};
    enum status status;

    put_blob(&w, (unsigned)kind, body->bytes, body->n);
    status = message_unpack(w.bytes, w.n, payload_bytes, &arena, &out, &fault);
    message_free(&out);
    if (status != STATUS_OK && word && !strstr(fault.text, word))
        fail_msg("\"%s\" does not say \"%s\"", fault.text, word);
    return status;
}

static struct wire instance_wire(void)
{
    static const uint8_t id[32];
    struct wire w = {.n = 0};

    put_blob(&w, 1, id, 32);
    return w;
}

static void test_text_is_checked(void **state)
{
    static const struct {
        const char *text;
        size_t n;
        enum status status;
    } cases[] = {
        {"good", 4, STATUS_OK},
        {"", 0, STATUS_OK},
        {"with\0nul", 8, STATUS_FORMAT},
        {"\xff", 1, STATUS_FORMAT},
        {"\xc3", 1, STATUS_FORMAT},
        {"\xc0\x80", 2, STATUS_FORMAT},
        {"\xed\xa0\x80", 3, STATUS_FORMAT},
        {"\xf4\x90\x80\x80", 4, STATUS_FORMAT},
        {"\xe2\x82\xac", 3, STATUS_OK},
        {"\xf0\x9f\xa6\xa2", 4, STATUS_OK},
    };
    char longest[65];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct wire w = {.n = 0};

        put_blob(&w, 1, cases[i].text, cases[i].n);
        assert_int_equal(judge(MESSAGE_CARD, &w, 0, "name"), cases[i].status);
    }
    memset(longest, 'x', sizeof longest);
    for (size_t n = 63; n < 66; n++) {
        struct wire w = {.n = 0};

        put_blob(&w, 1, longest, n);
        assert_int_equal(judge(MESSAGE_CARD, &w, 0, "name"), n == 63 ? STATUS_OK : STATUS_LIMIT);
    }
}

static void test_counts_are_checked(void **state)
{
    static const uint8_t hash[33];
    static const struct {
        enum message_kind kind;
        unsigned field;
        size_t n_bytes, max;
    } cases[] = {
        {MESSAGE_CARD, 12, 32, PROTO_MAX_INSTANCES},
        {MESSAGE_CARD, 15, 0, PROTO_MAX_HOLDINGS},
        {MESSAGE_PEERS, 1, 0, PROTO_MAX_PEERS},
        {MESSAGE_PREPARE, 5, 0, PROTO_MAX_STAGES},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct wire w = {.n = 0};

        for (size_t k = 0; k < cases[i].max + 1; k++)
            put_blob(&w, cases[i].field, hash, cases[i].n_bytes);
        if (cases[i].kind == MESSAGE_PREPARE) {
            struct wire ref = instance_wire();

            put_blob(&w, 1, ref.bytes, ref.n);
            put_blob(&w, 2, hash, 32);
        }
        assert_int_equal(judge(cases[i].kind, &w, 0, "over its limit"), STATUS_LIMIT);
    }
    /* hashes of other lengths */
    for (size_t n = 31; n < 34; n++) {
        struct wire w = {.n = 0};

        put_blob(&w, 12, hash, n);
        assert_int_equal(judge(MESSAGE_CARD, &w, 0, "length"), n == 32 ? STATUS_OK : STATUS_FORMAT);
    }
}

static void test_numbers_are_checked(void **state)
{
    static const double bad[] = {(double)NAN, (double)INFINITY, -(double)INFINITY};
    struct wire w = {.n = 0};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        w.n = 0;
        put_double(&w, 7, bad[i]);
        assert_int_equal(judge(MESSAGE_CARD, &w, 0, "read_bytes_per_second"), STATUS_FORMAT);
        w.n = 0;
        put_double(&w, 9, bad[i]);
        assert_int_equal(judge(MESSAGE_DONE, &w, 0, "decode_seconds"), STATUS_FORMAT);
    }
    w.n = 0;
    put_number(&w, 10, 65536);
    assert_int_equal(judge(MESSAGE_CARD, &w, 0, "mesh_port"), STATUS_LIMIT);
    w.n = 0;
    put_number(&w, 2, 4);
    assert_int_equal(judge(MESSAGE_DONE, &w, 0, "end"), STATUS_LIMIT);
    w.n = 0;
    put_number(&w, 2, UINT64_MAX); /* -1 */
    assert_int_equal(judge(MESSAGE_DONE, &w, 0, "end"), STATUS_LIMIT);
    w.n = 0;
    put_number(&w, 3, 999); /* a status of a later version */
    assert_int_equal(judge(MESSAGE_DONE, &w, 0, NULL), STATUS_OK);
}

static void put_float(struct wire *w, unsigned field, float v)
{
    put_varint(w, field << 3 | 5);
    memcpy(w->bytes + w->n, &v, sizeof v);
    w->n += sizeof v;
}

static enum status judge_spec(const struct wire *spec, const char *expected)
{
    struct wire w = {.n = 0};

    put_number(&w, 1, 7);
    put_blob(&w, 2, spec->bytes, spec->n);
    return judge(MESSAGE_SUBMIT, &w, 0, expected);
}

static void test_sampling_settings_are_checked(void **state)
{
    static const struct {
        unsigned field;
        const char *name;
    } floats[] = {{13, "typical_p"},      {14, "frequency_penalty"}, {15, "presence_penalty"},
                  {16, "dry_multiplier"}, {17, "dry_base"},          {20, "xtc_probability"},
                  {21, "xtc_threshold"}};
    struct wire w = {.n = 0};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(floats); i++) {
        w.n = 0;
        put_float(&w, floats[i].field, NAN);
        assert_int_equal(judge_spec(&w, floats[i].name), STATUS_FORMAT);
        w.n = 0;
        put_float(&w, floats[i].field, 0.5f);
        assert_int_equal(judge_spec(&w, NULL), STATUS_OK);
    }
    for (unsigned n = PROTO_MAX_BIASES; n <= PROTO_MAX_BIASES + 1; n++) {
        w.n = 0;
        for (unsigned i = 0; i < n; i++) {
            put_number(&w, 22, i);
            put_float(&w, 23, 1.0f);
        }
        assert_int_equal(judge_spec(&w, "bias_ids"),
                         n == PROTO_MAX_BIASES ? STATUS_OK : STATUS_LIMIT);
    }
    w.n = 0;
    put_number(&w, 22, 5);
    assert_int_equal(judge_spec(&w, "bias_values"), STATUS_FORMAT);
    put_float(&w, 23, -INFINITY);
    assert_int_equal(judge_spec(&w, "bias_values"), STATUS_FORMAT);
}

static void test_missing_parts(void **state)
{
    static const enum message_kind kinds[] = {
        MESSAGE_PREPARE, MESSAGE_PREPARED, MESSAGE_PASS,       MESSAGE_SUBMIT,
        MESSAGE_LOAD,    MESSAGE_RELEASE,  MESSAGE_CLOSE_IDLE, MESSAGE_IDLE_CLOSED};
    struct wire nothing = {.n = 0}, w = {.n = 0};
    struct message *out = NULL;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        assert_int_equal(judge(kinds[i], &nothing, 0, NULL), STATUS_FORMAT);
    assert_int_equal(message_unpack(w.bytes, 0, 0, &arena, &out, NULL), STATUS_FORMAT);
    put_number(&w, 99, 1); /* an unknown kind */
    assert_int_equal(message_unpack(w.bytes, w.n, 0, &arena, &out, NULL), STATUS_FORMAT);
}

static void test_unknown_fields_are_passed_over(void **state)
{
    struct wire w = instance_wire();

    (void)state;
    put_blob(&w, 77, "later", 5);
    assert_int_equal(judge(MESSAGE_LOAD, &w, 0, NULL), STATUS_OK);
}

static void test_pass_rows_and_clears(void **state)
{
    uint32_t max = PROTO_MAX_ROWS;

    (void)state;
    for (uint32_t n = 2 * max - 1; n <= 2 * max + 2; n++) {
        struct wire w = {.n = 0}, ref = instance_wire();
        uint8_t packed[2 * PROTO_MAX_ROWS + 2] = {0};

        put_blob(&w, 1, ref.bytes, ref.n);
        put_blob(&w, 4, packed, n);
        assert_int_equal(judge(MESSAGE_PASS, &w, 4 * max, "rows"),
                         n % 2 ? STATUS_FORMAT : (n == 2 * max ? STATUS_OK : STATUS_LIMIT));
    }
}

static void test_headers_that_want_memory(void **state)
{
    static struct wire many, deep;

    (void)state;
    many.n = 0;
    while (many.n + 2 < PROTO_MAX_HEADER_BYTES - 8)
        put_blob(&many, 11, "", 0); /* 16,000 empty model cards */
    assert_int_equal(judge(MESSAGE_CARD, &many, 0, NULL), STATUS_LIMIT);
    deep.n = 0;
    while (deep.n + 4 < PROTO_MAX_HEADER_BYTES - 8)
        put_number(&deep, 2000, 1); /* 10,000 unknown fields */
    assert_int_not_equal(judge(MESSAGE_CARD, &deep, 0, NULL), STATUS_NO_MEMORY);
}

static void test_payload_must_fit_the_kind(void **state)
{
    static const struct {
        enum message_kind kind;
        size_t n_bytes;
        enum status status;
    } cases[] = {
        {MESSAGE_CARD, 1, STATUS_FORMAT},
        {MESSAGE_PING, 1, STATUS_FORMAT},
        {MESSAGE_DONE, 4, STATUS_FORMAT},
        {MESSAGE_PASS, 0, STATUS_FORMAT},
        {MESSAGE_PASS, 4 * PROTO_MAX_ROWS, STATUS_OK},
        {MESSAGE_PASS, 4 * PROTO_MAX_ROWS + 4, STATUS_FORMAT},
        {MESSAGE_PASS, PROTO_MAX_PAYLOAD_BYTES, STATUS_OK},
        {MESSAGE_PASS, PROTO_MAX_PAYLOAD_BYTES + 4 * PROTO_MAX_ROWS, STATUS_LIMIT},
        {MESSAGE_SUBMIT, PROTO_MAX_PROMPT_BYTES, STATUS_OK},
        {MESSAGE_SUBMIT, PROTO_MAX_PROMPT_BYTES + 1, STATUS_LIMIT},
        {MESSAGE_ACCEPTED, 280000, STATUS_OK},
        {MESSAGE_ACCEPTED, 280004, STATUS_FORMAT},
        {MESSAGE_ACCEPTED, 0, STATUS_FORMAT},
        {MESSAGE_TOKENS, 1200, STATUS_OK},
        {MESSAGE_TOKENS, 1199, STATUS_FORMAT},
        {MESSAGE_TOKENS, SIZE_MAX, STATUS_LIMIT},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct message *m = message_full(cases[i].kind);
        struct fault fault = {0};

        assert_int_equal(message_check_payload(m, cases[i].n_bytes, &fault), cases[i].status);
        message_free(&m);
    }
}

/* ---------------------------------------------------------------- packing */

static void test_packing_repairs_sentences_and_nothing_else(void **state)
{
    struct message *m = message_empty(MESSAGE_DONE), *back;
    uint8_t header[1024];
    size_t n;

    (void)state;
    (void)snprintf(m->done.text, sizeof m->done.text, "caf\xe9 \xe2\x82\xac \xc3");
    back = there_and_back(m);
    assert_string_equal(back->done.text, "caf? \xe2\x82\xac ?");
    message_free(&m);
    message_free(&back);
    m = message_empty(MESSAGE_SUBMIT);
    m->submit.spec.n_stops = 1;
    m->submit.spec.stops[0][0] = (char)0xe9;
    assert_int_equal(message_pack(m, header, sizeof header, &n), STATUS_FORMAT);
    message_free(&m);
}

static void test_packing_refuses_what_would_be_refused(void **state)
{
    static uint8_t header[PROTO_MAX_HEADER_BYTES];
    struct message *m = message_empty(MESSAGE_CARD);
    size_t n;

    (void)state;
    m->card.n_models = PROTO_MAX_MODELS + 1;
    assert_int_equal(message_pack(m, header, sizeof header, &n), STATUS_LIMIT);
    m->card.n_models = 0;
    memset(m->card.name, 'x', sizeof m->card.name); /* no NUL */
    assert_int_equal(message_pack(m, header, sizeof header, &n), STATUS_LIMIT);
    m->card.name[3] = 0;
    m->card.flops_per_second = (double)INFINITY;
    assert_int_equal(message_pack(m, header, sizeof header, &n), STATUS_FORMAT);
    m->card.flops_per_second = 0;
    assert_int_equal(message_pack(m, header, 2, &n), STATUS_LIMIT);
    assert_int_equal(message_pack(m, header, sizeof header, &n), STATUS_OK);
    m->payload_bytes = 1;
    assert_int_equal(message_pack(m, header, sizeof header, &n), STATUS_LIMIT);
    m->payload_bytes = 0;
    message_free(&m);
}

static void test_no_memory_for_a_message(void **state)
{
    struct message *m = message_empty(MESSAGE_PING), *out = NULL;
    uint8_t header[64];
    size_t n;

    (void)state;
    assert_int_equal(message_pack(m, header, sizeof header, &n), STATUS_OK);
    mem_fail_after(1);
    assert_int_equal(message_unpack(header, n, 0, &arena, &out, NULL), STATUS_NO_MEMORY);
    assert_null(out);
    message_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_there_and_back),
        cmocka_unit_test(test_every_truncation_of_a_header),
        cmocka_unit_test(test_flipped_bits_stay_within_bounds),
        cmocka_unit_test(test_text_is_checked),
        cmocka_unit_test(test_counts_are_checked),
        cmocka_unit_test(test_numbers_are_checked),
        cmocka_unit_test(test_sampling_settings_are_checked),
        cmocka_unit_test(test_missing_parts),
        cmocka_unit_test(test_unknown_fields_are_passed_over),
        cmocka_unit_test(test_pass_rows_and_clears),
        cmocka_unit_test(test_headers_that_want_memory),
        cmocka_unit_test(test_payload_must_fit_the_kind),
        cmocka_unit_test(test_packing_repairs_sentences_and_nothing_else),
        cmocka_unit_test(test_packing_refuses_what_would_be_refused),
        cmocka_unit_test(test_no_memory_for_a_message),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
