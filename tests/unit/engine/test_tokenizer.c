/* Tokenizers: the reference ids of whole vocabularies and of every pre-tokenizer name, decoding as
 * the inverse of encoding, special tokens, long and broken input, hostile vocabularies. */
#include "tests/unit/engine/text_load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void decoding_undoes_encoding(void **state)
{
    struct loaded l;
    (void)state;
    loaded_demo(&l);
    identity_check(l.text, 2000);
    loaded_free(&l);
}

static void any_bytes_come_back(void **state)
{
    struct loaded l;
    uint64_t random = 9;
    (void)state;
    loaded_demo(&l);
    for (int i = 0; i < 500; i++) {
        char data[200];
        size_t n = random_below(&random, sizeof data);
        for (size_t k = 0; k < n; k++) {
            data[k] = (char)random_below(&random, 256);
        }
        struct token_list ids = {0};
        assert_int_equal(text_tokenize(l.text, data, n, 0, &ids, NULL), STATUS_OK);
        assert_true(decodes_to(l.text, &ids, DETOK_RAW, data, n));
        token_list_free(&ids);
    }
    loaded_free(&l);
}

static void special_tokens_are_parsed_where_wanted(void **state)
{
    struct loaded l;
    struct token_list ids = {0};
    static const char text[] = "<|im_start|>user\nhi<|im_end|>";
    (void)state;
    loaded_demo(&l);
    assert_int_equal(text_tokenize(l.text, text, strlen(text), TOKENS_PARSE_SPECIAL, &ids, NULL),
                     STATUS_OK);
    assert_int_equal(ids.ids[0], 2045);
    assert_int_equal(ids.ids[ids.n - 1], 2046);
    size_t before = ids.n;
    assert_int_equal(text_tokenize(l.text, text, strlen(text), 0, &ids, NULL), STATUS_OK);
    for (size_t i = before; i < ids.n; i++) {
        assert_true(ids.ids[i] < 2044);
    }
    assert_true(text_token_ends(l.text, 2046)); /* <|im_end|> */
    assert_true(text_token_ends(l.text, 2044)); /* <|endoftext|> */
    assert_false(text_token_ends(l.text, 2045));
    assert_false(text_token_ends(l.text, 5));
    assert_false(text_token_ends(l.text, 1u << 30));
    token_list_free(&ids);
    loaded_free(&l);
}

static double tokenize_seconds(const struct text *text, const char *data, size_t n)
{
    struct token_list ids = {0};
    double begin = processor_seconds();
    assert_int_equal(text_tokenize(text, data, n, 0, &ids, NULL), STATUS_OK);
    token_list_free(&ids);
    return processor_seconds() - begin;
}

/* Work grows with the length and not with its square: eight times the text may take sixteen times
 * as long (and what the clock is unsure of), where a square would take 64 times. */
static void long_check(const struct text *text, const char *what)
{
    enum { SIZE = 1 << 20 };
    static const char *const units[] = {"a",  " ",    "7", "\n",           "!",
                                        "a ", "\xff", "<", "\xe4\xb8\xad", "<|im_start|>"};
    char *data = mem_zeroed(SIZE, 1);
    assert_non_null(data);
    for (size_t i = 0; i < COUNT_OF(units); i++) {
        size_t unit = strlen(units[i]);
        for (size_t at = 0; at < SIZE; at++) {
            data[at] = units[i][at % unit];
        }
        double part = tokenize_seconds(text, data, SIZE / 8);
        double whole = tokenize_seconds(text, data, SIZE);
        if (whole > 16 * part + 0.1) {
            fail_msg("%s: 1 MB of '%s' took %.3f s, an eighth of it %.3f s", what, units[i], whole,
                     part);
        }
    }
    mem_free(data);
}

static void long_texts_take_time_in_proportion(void **state)
{
    static const char *const names[] = {"gpt-2",    "llama-bpe", "deepseek-v3", "gpt-4o",
                                        "superbpe", "afmoe",     "exaone-moe",  "kimi-k2"};
    struct loaded l;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        loaded_demo(&l);
        pre_replace(l.text, names[i]);
        long_check(l.text, names[i]);
        loaded_free(&l);
    }
}

enum { LONG_TEXT = 1 << 20 };

static double split_seconds(const char *const *patterns, const char *data, size_t n,
                            enum status *status)
{
    struct splitter *splitter;
    struct pieces pieces = {0};
    assert_int_equal(splitter_new(patterns, &splitter, NULL), STATUS_OK);
    double begin = processor_seconds();
    *status = splitter_run(splitter, data, n, &pieces);
    double took = processor_seconds() - begin;
    pieces_free(&pieces);
    splitter_free(&splitter);
    return took;
}

/* A megabyte of one character, with another at its end or not, is cut by every published list. */
static void published_patterns_end(void **state)
{
    static const char *const names[] = {"default", "deepseek-llm", "jais-2", "superbpe",
                                        "falcon",  "tiny_aya",     "qwen2"};
    char *data = mem_zeroed(LONG_TEXT, 1);
    (void)state;
    assert_non_null(data);
    for (size_t i = 0; i < 6 * COUNT_OF(names); i++) {
        struct gguf_text name = {.data = names[i / 6], .n_bytes = strlen(names[i / 6])};
        enum status status;
        memset(data, " 7a"[i % 6 / 2], LONG_TEXT);
        data[LONG_TEXT - 1] = i % 2 ? '1' : ' ';
        (void)split_seconds(pre_find(name)->patterns, data, LONG_TEXT, &status);
        if (status != STATUS_OK) {
            fail_msg("%s: a megabyte of '%c' is too much", names[i / 6], data[0]);
        }
    }
    mem_free(data);
}

/* Patterns that try every way to cut a run, or read on from every byte of it, are stopped: after
 * no more than a few times what the dearest of the honest ones takes. */
static void catastrophic_patterns_end(void **state)
{
    static const char *const patterns[] = {
        "(a+)+[bc]",        "(a|a)*[bc]",        "(a*)*[bc]",     "(?=(a+)+[bc])a",
        "(.*)(.*)(.*)[bc]", "a++[bc]",           "a+[bc]",        "[ab]++\\z",
        "(?=.*x)|a++[bc]",  "(?<=a)a++(?=[bc])", "(?:a|aa)+[bc]", "\\w+\\s+\\d"};
    static const char *const honest[] = {"[\\p{P}$+<=>^~|]+", "\\p{N}+", "[0-9]{3}", "!", NULL};
    char *data = mem_zeroed(LONG_TEXT, 1);
    enum status status;
    (void)state;
    assert_non_null(data);
    memset(data, '!', LONG_TEXT);
    double unit = split_seconds(honest, data, LONG_TEXT, &status);
    assert_int_equal(status, STATUS_OK);
    memset(data, 'a', LONG_TEXT);
    data[LONG_TEXT - 1] = '-';
    for (size_t i = 0; i < COUNT_OF(patterns); i++) {
        double took = split_seconds((const char *[]){patterns[i], NULL}, data, LONG_TEXT, &status);
        if (status != STATUS_LIMIT || took > 40 * unit) {
            fail_msg("%s: %s after %.3f s; honest ones took %.3f s", patterns[i],
                     status_name(status), took, unit);
        }
    }
    mem_free(data);
}

/* The longest of those that overlap, wherever it stands; then what is left beside it. */
static void the_longest_special_token_wins(void **state)
{
    struct token tokens[] = {
        {.data = "ab", .n_bytes = 2, .attr = TOKEN_USER},
        {.data = "a", .n_bytes = 1, .attr = TOKEN_USER},
        {.data = "bcd", .n_bytes = 3, .attr = TOKEN_CONTROL},
        {.data = "d", .n_bytes = 1, .attr = TOKEN_USER | TOKEN_RSTRIP},
    };
    static const struct fragment wanted[2][6] = {
        {{0, 0, 2}, {TOKEN_NONE, 2, 1}, {3, 3, 1}, {TOKEN_NONE, 6, 1}, {0, 7, 2}},
        {{1, 0, 1}, {2, 1, 3}, {TOKEN_NONE, 4, 3}, {0, 7, 2}}};
    static const size_t n[] = {5, 4};
    struct text text = {.tokens = tokens, .n_tokens = COUNT_OF(tokens)};
    struct fragments got = {0};
    (void)state;
    assert_int_equal(special_build(&text), STATUS_OK);
    for (int parse = 0; parse < 2; parse++) {
        assert_int_equal(special_split(&text, "abcd  xab", 9, parse, &got), STATUS_OK);
        assert_int_equal(got.n, n[parse]);
        assert_memory_equal(got.items, wanted[parse], n[parse] * sizeof *got.items);
    }
    fragments_free(&got);
    mem_free(text.special);
    mem_free(text.trie);
}

/* A text of n special tokens, no two the same. */
static double special_seconds(uint32_t n)
{
    struct token *tokens = mem_zeroed(n, sizeof *tokens);
    char *data = mem_zeroed(n, 16);
    struct text text = {.tokens = tokens, .n_tokens = n};
    struct fragments fragments = {0};
    size_t at = 0;
    assert_non_null(tokens);
    assert_non_null(data);
    for (uint32_t i = 0; i < n; i++) {
        tokens[i] = (struct token){.data = data + at, .attr = TOKEN_CONTROL};
        tokens[i].n_bytes = (uint32_t)snprintf(data + at, 16, "<|%u|>", i);
        at += tokens[i].n_bytes;
    }
    assert_int_equal(special_build(&text), STATUS_OK);
    double begin = processor_seconds();
    assert_int_equal(special_split(&text, data, at, true, &fragments), STATUS_OK);
    double took = processor_seconds() - begin;
    assert_int_equal(fragments.n, n);
    fragments_free(&fragments);
    mem_free(text.special);
    mem_free(text.trie);
    mem_free(data);
    mem_free(tokens);
    return took;
}

static void many_special_tokens_take_time_in_proportion(void **state)
{
    (void)state;
    double part = special_seconds(4000), whole = special_seconds(32000);
    if (whole > 16 * part + 0.1) {
        fail_msg("32000 special tokens took %.3f s, an eighth of them %.3f s", whole, part);
    }
}

static void spm_make(struct loaded *l)
{
    static const char *const words[] = {"\342\226\201", "a", "b", "\342\226\201a", "ab", "aa"};
    static const float scores[] = {-1, -2, -3, -4, -5, -6};
    *l = (struct loaded){0};
    make_spm(&l->maker, words, scores, COUNT_OF(words));
}

static void spm_merges_by_score_and_falls_back_to_bytes(void **state)
{
    struct loaded l;
    (void)state;
    spm_make(&l);
    assert_int_equal(loaded_from_maker(&l, NULL), STATUS_OK);
    struct token_list wanted = {.ids = (uint32_t[]){262, 261}, .n = 2};
    assert_true(encodes_to(l.text, "ab", 2, 0, &wanted));
    wanted = (struct token_list){.ids = (uint32_t[]){1, 262, 3 + 0xc3, 3 + 0xa9}, .n = 4};
    assert_true(encodes_to(l.text, "a\xc3\xa9", 3, TOKENS_ADD_SPECIAL, &wanted));
    wanted = (struct token_list){.ids = (uint32_t[]){1, 262, 2, 262}, .n = 4};
    assert_true(encodes_to(l.text, "<s>a</s>a", 9, TOKENS_PARSE_SPECIAL, &wanted));
    loaded_free(&l);
}

/* The best sum of scores over all ways to write text [n], by trying them all. */
static double best_way(const struct text *text, const char *data, size_t n, double unknown)
{
    double best = n == 0 ? 0.0 : -1e9;
    for (size_t length = 1; length <= n; length++) {
        uint32_t id = string_map_find(&text->map, text->tokens, data, length);
        double score = id != TOKEN_NONE && id > 2 ? (double)text->tokens[id].score
                       : length == 1              ? unknown
                                                  : -1e9;
        score += best_way(text, data + length, n - length, unknown);
        best = score > best ? score : best;
    }
    return best;
}

static void unigram_make(struct loaded *l)
{
    enum { N = 10 };
    static const char *const words[N] = {"<pad>", "</s>", "<unk>", "a",   "b",
                                         "ab",    "ba",   "aab",   "bab", "\xe2\x96\x81"};
    static const int32_t types[N] = {3, 3, 2, 1, 1, 1, 1, 1, 1, 1};
    static const float scores[N] = {0, 0, 0, -2.0f, -2.5f, -3.1f, -3.0f, -4.6f, -5.2f, -1.0f};
    *l = (struct loaded){0};
    make_text(&l->maker, "tokenizer.ggml.model", "t5");
    make_texts(&l->maker, "tokenizer.ggml.tokens", words, N);
    make_i32s(&l->maker, "tokenizer.ggml.token_type", types, N);
    make_f32s(&l->maker, "tokenizer.ggml.scores", scores, N);
}

static void unigram_finds_the_best_way(void **state)
{
    struct loaded l;
    uint64_t random = 4;
    (void)state;
    unigram_make(&l);
    assert_int_equal(loaded_from_maker(&l, NULL), STATUS_OK);
    for (int round = 0; round < 300; round++) {
        char data[12];
        size_t n = random_below(&random, sizeof data);
        for (size_t i = 0; i < n; i++) {
            data[i] = "ab"[random_below(&random, 2)];
        }
        struct token_list ids = {0};
        double sum = 0.0;
        assert_int_equal(text_tokenize(l.text, data, n, 0, &ids, NULL), STATUS_OK);
        for (size_t i = 0; i < ids.n; i++) {
            sum += (double)l.text->tokens[ids.ids[i]].score;
        }
        double wanted = best_way(l.text, data, n, -15.2);
        assert_true(sum > wanted - 1e-5 && sum < wanted + 1e-5);
        assert_true(decodes_to(l.text, &ids, 0, data, n));
        token_list_free(&ids);
    }
    struct token_list wanted = {.ids = (uint32_t[]){3, 2, 4, 1}, .n = 4}; /* one <unk> for two */
    assert_true(encodes_to(l.text, "axyb", 4, TOKENS_ADD_SPECIAL, &wanted));
    loaded_free(&l);
}

/* A table that replaces "A" by "a" and "BB" by "b": nodes at base ^ byte, values behind them. */
static void charsmap_make(struct gguf_maker *m, uint32_t value_b)
{
    enum { NODES = 0x400 };
    static uint8_t map[4 + 4 * NODES + 4];
    memset(map, 0, sizeof map);
    bytes_put_u32(map, 4 * NODES);
    bytes_put_u32(map + 4 + 4 * 'A', 'A' | 0x100u | 0x100u << 10);
    bytes_put_u32(map + 4 + 4 * ('A' ^ 0x100), 0x80000000u);
    bytes_put_u32(map + 4 + 4 * 'B', 'B' | 0x200u << 10);
    bytes_put_u32(map + 4 + 4 * 0x200, 'B' | 0x100u | 0x100u << 10); /* 'B' ^ 0x200 ^ 'B' */
    bytes_put_u32(map + 4 + 4 * 0x300, value_b | 0x80000000u);
    memcpy(map + 4 + 4 * NODES, "a\0b", 4);
    make_key(m, "tokenizer.ggml.precompiled_charsmap", GGUF_ARRAY);
    assert_int_equal(buffer_put_u32(&m->values, GGUF_U8), STATUS_OK);
    assert_int_equal(buffer_put_u64(&m->values, sizeof map), STATUS_OK);
    assert_int_equal(buffer_put(&m->values, map, sizeof map), STATUS_OK);
}

static void unigram_normalises_as_the_table_says(void **state)
{
    struct loaded l;
    (void)state;
    unigram_make(&l);
    charsmap_make(&l.maker, 2);
    make_bool(&l.maker, "tokenizer.ggml.add_space_prefix", true);
    make_bool(&l.maker, "tokenizer.ggml.remove_extra_whitespaces", true);
    assert_int_equal(loaded_from_maker(&l, NULL), STATUS_OK);
    struct token_list wanted = {.ids = (uint32_t[]){9, 5, 9, 3}, .n = 4}; /* _ ab _ a */
    assert_true(encodes_to(l.text, "  ABB   A ", 10, 0, &wanted));
    loaded_free(&l);
    unigram_make(&l);
    charsmap_make(&l.maker, 500); /* a replacement outside of the table: as if there were none */
    assert_int_equal(loaded_from_maker(&l, NULL), STATUS_OK);
    wanted = (struct token_list){.ids = (uint32_t[]){3, 2}, .n = 2};
    assert_true(encodes_to(l.text, "ABB", 3, 0, &wanted));
    loaded_free(&l);
}

static void what_is_not_supported_is_named(void **state)
{
    static const char *const tokens[] = {"a", "b"};
    struct loaded l = {0};
    struct fault fault = {0};
    (void)state;
    make_text(&l.maker, "tokenizer.ggml.model", "bert");
    make_texts(&l.maker, "tokenizer.ggml.tokens", tokens, 2);
    assert_int_equal(loaded_from_maker(&l, &fault), STATUS_OK);
    assert_int_equal(text_runnable(l.text, &fault), STATUS_UNSUPPORTED);
    assert_non_null(strstr(fault.text, "bert"));
    struct token_list ids = {0};
    assert_int_equal(text_tokenize(l.text, "a", 1, 0, &ids, &fault), STATUS_UNSUPPORTED);
    loaded_free(&l);
    l = (struct loaded){0};
    make_text(&l.maker, "tokenizer.ggml.model", "gpt2");
    make_text(&l.maker, "tokenizer.ggml.pre", "never-heard-of");
    make_texts(&l.maker, "tokenizer.ggml.tokens", tokens, 2);
    assert_int_equal(loaded_from_maker(&l, &fault), STATUS_OK);
    assert_int_equal(text_runnable(l.text, &fault), STATUS_UNSUPPORTED);
    assert_non_null(strstr(fault.text, "never-heard-of"));
    loaded_free(&l);
    l = (struct loaded){0};
    make_u32(&l.maker, "general.alignment", 32);
    assert_int_equal(loaded_from_maker(&l, &fault), STATUS_OK);
    assert_int_equal(text_runnable(l.text, &fault), STATUS_UNSUPPORTED);
    assert_int_equal(text_token_count(l.text), 0);
    loaded_free(&l);
}

static void hostile_vocabularies_are_survived(void **state)
{
    static const char *const tokens[] = {"", "a", "a", "b", "ab", "\xff\xfe", "<s>", "<s>"};
    static const char *const merges[] = {"",    " ",     "a",   "a ",   " b",
                                         "a b", "ab ab", "x y", "a  b", "abab abab"};
    static const int32_t types[] = {3, 1, 4, -7, 99, 1, 3, 3};
    struct loaded l = {0};
    struct fault fault = {0};
    struct token_list ids = {0};
    (void)state;
    make_text(&l.maker, "tokenizer.ggml.model", "gpt2");
    make_text(&l.maker, "tokenizer.ggml.pre", "gpt-2");
    make_texts(&l.maker, "tokenizer.ggml.tokens", tokens, COUNT_OF(tokens));
    make_texts(&l.maker, "tokenizer.ggml.merges", merges, COUNT_OF(merges));
    make_i32s(&l.maker, "tokenizer.ggml.token_type", types, COUNT_OF(types));
    make_u32(&l.maker, "tokenizer.ggml.bos_token_id", 4000000000u);
    make_bool(&l.maker, "tokenizer.ggml.add_bos_token", true);
    assert_int_equal(loaded_from_maker(&l, &fault), STATUS_OK);
    assert_int_equal(text_tokenize(l.text, "ababab<s>xyz\xff", 13, 3, &ids, NULL), STATUS_OK);
    assert_true(ids.n > 0);
    token_list_free(&ids);
    loaded_free(&l);
    l = (struct loaded){0};
    make_text(&l.maker, "tokenizer.ggml.model", "gpt2");
    make_texts(&l.maker, "tokenizer.ggml.tokens", tokens, COUNT_OF(tokens));
    make_i32s(&l.maker, "tokenizer.ggml.token_type", types, 3); /* fewer than tokens */
    assert_int_equal(loaded_from_maker(&l, &fault), STATUS_FORMAT);
    assert_null(l.text);
    loaded_free(&l);
    l = (struct loaded){0};
    make_text(&l.maker, "tokenizer.ggml.model", "gpt2");
    make_u32(&l.maker, "tokenizer.ggml.tokens", 7);
    assert_int_equal(loaded_from_maker(&l, &fault), STATUS_FORMAT);
    loaded_free(&l);
}

static void running_out_of_memory_is_an_error(void **state)
{
    struct loaded l;
    (void)state;
    spm_make(&l);
    struct gguf_text file = make_file(&l.maker, 3);
    assert_int_equal(gguf_parse(file.data, file.n_bytes, &l.gguf, NULL), STATUS_OK);
    enum status status = STATUS_NO_MEMORY;
    unsigned long n = 0;
    while (status == STATUS_NO_MEMORY) {
        mem_fail_after(++n);
        status = text_new(l.gguf, &l.text, NULL);
        mem_fail_after(0);
        assert_true((status == STATUS_OK) == (l.text != NULL));
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 4);
    status = STATUS_NO_MEMORY;
    for (n = 1; status == STATUS_NO_MEMORY; n++) {
        struct token_list ids = {0};
        mem_fail_after(n);
        status = text_tokenize(l.text, "ab<s>ab", 7, TOKENS_PARSE_SPECIAL, &ids, NULL);
        mem_fail_after(0);
        assert_true(status == STATUS_OK || ids.n == 0);
        token_list_free(&ids);
    }
    assert_int_equal(status, STATUS_OK);
    loaded_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoding_undoes_encoding),
        cmocka_unit_test(any_bytes_come_back),
        cmocka_unit_test(special_tokens_are_parsed_where_wanted),
        cmocka_unit_test(long_texts_take_time_in_proportion),
        cmocka_unit_test(published_patterns_end),
        cmocka_unit_test(catastrophic_patterns_end),
        cmocka_unit_test(the_longest_special_token_wins),
        cmocka_unit_test(many_special_tokens_take_time_in_proportion),
        cmocka_unit_test(spm_merges_by_score_and_falls_back_to_bytes),
        cmocka_unit_test(unigram_finds_the_best_way),
        cmocka_unit_test(unigram_normalises_as_the_table_says),
        cmocka_unit_test(what_is_not_supported_is_named),
        cmocka_unit_test(hostile_vocabularies_are_survived),
        cmocka_unit_test(running_out_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
