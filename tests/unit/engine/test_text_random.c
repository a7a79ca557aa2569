/* Tokenizers of random vocabularies: byte-level ones give every text back, whatever was merged and
 * whichever pre-tokenizer cuts, specials parsed and not; so do SentencePiece ones with bytes to
 * fall back to; and no vocabulary ever lets half a character out. Whole vocabularies of real
 * models: test_tokenizer_ref.c. */
#include "tests/unit/engine/text_load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

enum { MOST_MERGES = 300, N_SPECIAL = 7, MOST_TOKENS = 256 + MOST_MERGES + N_SPECIAL, ROOM = 48 };

static char words[MOST_TOKENS][ROOM], merges[MOST_MERGES][2 * ROOM];

static const struct {
    const char *text;
    int32_t type;
} specials[N_SPECIAL] = {{"<|im_start|>", 3}, {"<|endoftext|>", 3}, {"<|", 4}, {" the", 4},
                         {"\r\n", 4},         {"\xe2\x82\xac", 4},  {"12", 4}};

/* Bytes first, then random joins of what is there, then the special ones. */
static void byte_level_make(struct loaded *l, uint64_t *random, const char *pre)
{
    static const char *texts[MOST_TOKENS], *pairs[MOST_MERGES];
    static int32_t types[MOST_TOKENS];
    size_t n = 0, n_merges = 0;
    for (; n < 256; n++) {
        char letter[2];
        size_t length = byte_letter((uint8_t)n, letter);
        memcpy(words[n], letter, length);
        words[n][length] = '\0';
    }
    for (uint32_t left = random_below(random, MOST_MERGES); left > 0; left--) {
        const char *a = words[random_below(random, (uint32_t)n)];
        const char *b = words[random_below(random, (uint32_t)n)];
        if (strlen(a) + strlen(b) < ROOM) {
            (void)snprintf(merges[n_merges], sizeof *merges, "%s %s", a, b);
            (void)stpcpy(stpcpy(words[n++], a), b);
            n_merges++;
        }
    }
    for (size_t i = 0; i < n; i++) {
        texts[i] = words[i];
        types[i] = 1;
    }
    for (size_t i = 0; i < N_SPECIAL; i++) {
        texts[n] = specials[i].text;
        types[n++] = specials[i].type;
    }
    for (size_t i = 0; i < n_merges; i++) {
        pairs[i] = merges[i];
    }
    *l = (struct loaded){0};
    make_text(&l->maker, "tokenizer.ggml.model", "gpt2");
    make_text(&l->maker, "tokenizer.ggml.pre", pre);
    make_texts(&l->maker, "tokenizer.ggml.tokens", texts, n);
    make_i32s(&l->maker, "tokenizer.ggml.token_type", types, n);
    make_texts(&l->maker, "tokenizer.ggml.merges", pairs, n_merges);
    assert_int_equal(loaded_from_maker(l, NULL), STATUS_OK);
}

/* One of each table of patterns. */
static const char *const pres[] = {
    "default", "llama-bpe",  "deepseek-llm", "deepseek-coder", "falcon",    "gpt-2",    "starcoder",
    "qwen2",   "gpt-4o",     "tekken",       "deepseek-v3",    "chameleon", "superbpe", "kimi-k2",
    "afmoe",   "exaone-moe", "bloom",        "viking",         "youtu",     "laguna"};

static void byte_level_vocabularies_give_every_text_back(void **state)
{
    uint64_t random = 31;
    (void)state;
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < COUNT_OF(pres); i++) {
            struct loaded l;
            byte_level_make(&l, &random, pres[i]);
            identity_check(l.text, 40);
            loaded_free(&l);
        }
    }
}

/* A vocabulary of characters, pieces of them joined, and the 256 bytes. */
static void spm_make(struct loaded *l, uint64_t *random)
{
    enum { N = 60 };
    static const char *const seeds[] = {
        "\xe2\x96\x81", "a", "e", "\xc3\xa9", "\xf0\x9f\x98\x80", "t", "h", "7", "\n", "<"};
    static const char *texts[N];
    static float scores[N];
    for (size_t i = 0; i < N; i++) {
        if (i < COUNT_OF(seeds)) {
            (void)snprintf(words[i], ROOM, "%s", seeds[i]);
        } else {
            const char *a = words[random_below(random, (uint32_t)i)];
            const char *b = words[random_below(random, (uint32_t)i)];
            (void)stpcpy(stpcpy(words[i], a), strlen(a) + strlen(b) < ROOM ? b : "");
        }
        texts[i] = words[i];
        scores[i] = -(float)random_below(random, 50);
    }
    *l = (struct loaded){0};
    make_spm(&l->maker, texts, scores, N);
    assert_int_equal(loaded_from_maker(l, NULL), STATUS_OK);
}

static void bytes_to_fall_back_to_give_every_text_back(void **state)
{
    uint64_t random = 32;
    (void)state;
    for (int round = 0; round < 40; round++) {
        struct loaded l;
        spm_make(&l, &random);
        for (int i = 0; i < 40; i++) {
            char data[512];
            size_t n = random_text(&random, data, sizeof data);
            if (memmem(data, n, "\xe2\x96\x81", 3) != NULL) {
                continue; /* this kind's own letter for the blank */
            }
            struct token_list ids = {0};
            assert_int_equal(text_tokenize(l.text, data, n, 0, &ids, NULL), STATUS_OK);
            assert_true(decodes_to(l.text, &ids, 0, data, n));
            token_list_free(&ids);
        }
        loaded_free(&l);
    }
}

static void only_whole_characters_come_out(void **state)
{
    uint64_t random = 33;
    struct loaded l;
    (void)state;
    loaded_demo(&l);
    stream_check(l.text, 2000);
    loaded_free(&l);
    for (int round = 0; round < 20; round++) {
        byte_level_make(&l, &random, "gpt-2");
        stream_check(l.text, 50);
        loaded_free(&l);
        spm_make(&l, &random);
        stream_check(l.text, 50);
        loaded_free(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(byte_level_vocabularies_give_every_text_back),
        cmocka_unit_test(bytes_to_fall_back_to_give_every_text_back),
        cmocka_unit_test(only_whole_characters_come_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
