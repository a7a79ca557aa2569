/* tokenizer.json: what each of its parts does to ids. Folders of a few small tensors are made on
 * the fly; the model itself is never run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/engine.h"

static char folder[] = "/tmp/skein-hf-text-XXXXXX";

static const char *path_of(const char *name)
{
    static char path[128];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, const void *data, size_t n_bytes)
{
    FILE *file = fopen(path_of(name), "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, n_bytes, file), n_bytes);
    fclose(file);
}

static void write_text(const char *name, const char *text)
{
    write_file(name, text, strlen(text));
}

static int make_folder(void **state)
{
    static const char header[] =
        "{\"model.embed_tokens.weight\":{\"dtype\":\"F32\",\"shape\":[16,2],"
        "\"data_offsets\":[0,128]}}";
    uint8_t bytes[8 + sizeof header - 1 + 128] = {sizeof header - 1};

    (void)state;
    assert_non_null(mkdtemp(folder));
    memcpy(bytes + 8, header, sizeof header - 1);
    write_file("model.safetensors", bytes, sizeof bytes);
    write_text("config.json", "{\"architectures\":[\"LlamaForCausalLM\"],\"vocab_size\":16,"
                              "\"hidden_size\":2,\"num_hidden_layers\":1,"
                              "\"num_attention_heads\":1,\"intermediate_size\":2,"
                              "\"max_position_embeddings\":8,\"eos_token_id\":[15,14]}");
    return 0;
}

static int drop_folder(void **state)
{
    static const char *const names[] = {"model.safetensors",   "config.json",
                                        "tokenizer.json",      "tokenizer_config.json",
                                        "chat_template.jinja", "generation_config.json"};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        (void)unlink(path_of(names[i]));
    return rmdir(folder);
}

static struct model *open_with(const char *tokenizer)
{
    struct model *model = NULL;
    struct fault fault = {0};

    write_text("tokenizer.json", tokenizer);
    if (model_open(folder, &model, &fault))
        fail_msg("%s", fault.text);
    return model;
}

/* `wanted` lists the ids, -1 ends it. */
static void ids_are(const struct model *model, const char *text, unsigned flags, const int *wanted)
{
    struct token_list ids = {0};
    struct fault fault = {0};

    if (model_tokenize(model, text, strlen(text), flags, &ids, &fault))
        fail_msg("%s", fault.text);
    for (size_t i = 0; i < ids.n; i++) {
        if (wanted[i] != (int)ids.ids[i])
            fail_msg("`%s`: id %zu is %u, not %d", text, i, ids.ids[i], wanted[i]);
    }
    assert_int_equal(wanted[ids.n], -1);
    token_list_free(&ids);
}

#define IDS(...) ((const int[]){__VA_ARGS__, -1})
#define BYTES(before, pre, vocab, merges)                                                          \
    "{" before "\"pre_tokenizer\":" pre                                                            \
    ",\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{" vocab          \
    "},\"merges\":[" merges "]}}"
#define LETTERS                                                                                    \
    "\"a\":0,\"b\":1,\"1\":2,\"11\":3,\"ab\":4,\"\xc4\xa0\":5,\"\xc4\xa0"                          \
    "a\":6"
#define LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"

static void test_patterns(void **state)
{
    struct model *model;

    (void)state;
    model = open_with(BYTES("", LEVEL, LETTERS, "\"a b\",\"1 1\",[\"\xc4\xa0\",\"a\"]"));
    ids_are(model, "ab a11", 0, IDS(4, 6, 3));
    model_free(&model);
    model = open_with(BYTES("",
                            "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\","
                            "\"individual_digits\":true}," LEVEL "]}",
                            LETTERS, "\"a b\",\"1 1\",\"\xc4\xa0 a\""));
    ids_are(model, "ab a11", 0, IDS(4, 6, 2, 2));
    model_free(&model);
    model = open_with(BYTES("",
                            "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"b|1\"},\"behavior\":"
                            "\"Isolated\",\"invert\":false}",
                            LETTERS, "\"a b\",\"1 1\",\"\xc4\xa0 a\""));
    ids_are(model, "ab a11", 0, IDS(0, 1, 6, 2, 2));
    model_free(&model);
    model = open_with(BYTES("",
                            "{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":"
                            "\"Isolated\",\"invert\":false}",
                            LETTERS, "\"a b\",\"1 1\",\"\xc4\xa0 a\""));
    ids_are(model, "ab11", 0, IDS(0, 1, 3));
    model_free(&model);
}

/* Runs of marks together, or each mark alone. */
static void test_punctuation(void **state)
{
    struct model *model;

    (void)state;
    model = open_with(BYTES("", "{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}",
                            "\"a\":0,\"!\":1,\"!!\":2,\"a!\":3", "\"! !\",\"a !\""));
    ids_are(model, "a!!a", 0, IDS(0, 2, 0));
    model_free(&model);
    model = open_with(BYTES("", "{\"type\":\"Punctuation\"}", "\"a\":0,\"!\":1,\"!!\":2,\"a!\":3",
                            "\"! !\",\"a !\""));
    ids_are(model, "a!!a", 0, IDS(0, 1, 1, 0));
    model_free(&model);
}

static void test_not_possible(void **state)
{
    static const char *const steps[][2] = {
        {"{\"type\":\"WhitespaceSplit\"}", "WhitespaceSplit"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"MergedWithNext\"}",
         "Split that removes or joins"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\Ga\"},\"behavior\":\"Isolated\"}",
         "\\G"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", "add_prefix_space"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}", "pattern"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        struct token_list ids = {0};
        struct fault fault = {0};
        char text[512];
        struct model *model;

        snprintf(text, sizeof text,
                 "{\"pre_tokenizer\":%s,\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":"
                 "\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
                 steps[i][0]);
        model = open_with(text);
        assert_int_equal(model_tokenize(model, "a", 1, 0, &ids, &fault), STATUS_UNSUPPORTED);
        if (!strstr(fault.text, steps[i][1]))
            fail_msg("`%s` does not say `%s`", fault.text, steps[i][1]);
        token_list_free(&ids);
        model_free(&model);
    }
}

/* Patterns that try every way to cut a run before they give up: an end comes soon, in words. */
static void test_catastrophic_patterns(void **state)
{
    static const char *const patterns[] = {"(a+)+[bc]", "(a|a)*[bc]", "(a*)*[bc]", "(?=(a+)+[bc])a",
                                           "(.*)(.*)(.*)(.*)(.*)(.*)[bc]"};
    static char letters[30001];
    size_t n_limits = 0;

    (void)state;
    memset(letters, 'a', sizeof letters - 1);
    for (size_t i = 0; i < COUNT_OF(patterns); i++) {
        char pre[200];
        char text[512];
        struct token_list ids = {0};
        struct fault fault = {0};
        struct model *model;
        clock_t begin;

        snprintf(pre, sizeof pre,
                 "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},\"behavior\":\"Isolated\","
                 "\"invert\":false}",
                 patterns[i]);
        snprintf(text, sizeof text, BYTES("", "%s", LETTERS, ""), pre);
        model = open_with(text);
        begin = clock();
        if (model_tokenize(model, letters, sizeof letters - 1, 0, &ids, &fault)) {
            assert_int_equal(fault.status, STATUS_LIMIT);
            assert_string_not_equal(fault.text, "");
            n_limits++;
        }
        if ((double)(clock() - begin) / CLOCKS_PER_SEC > 1)
            fail_msg("%s takes %.1f s", patterns[i], (double)(clock() - begin) / CLOCKS_PER_SEC);
        token_list_free(&ids);
        model_free(&model);
    }
    assert_true(n_limits > 0);
}

/* e and a combining acute become one letter of two bytes. */
static void test_nfc(void **state)
{
    const char vocab[] = "\"e\":0,\"\xc3\x83\":1,\"\xc2\xa9\":2,\"\xc3\x8c\":3,\"\xc4\xa3\":4";
    char text[512];
    struct model *model;

    (void)state;
    snprintf(text, sizeof text,
             "{\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":%s,\"model\":{\"type\":\"BPE\","
             "\"vocab\":{%s},\"merges\":[]}}",
             LEVEL, vocab);
    model = open_with(text);
    ids_are(model, "e\xcc\x81", 0, IDS(1, 2));
    ids_are(model, "e", 0, IDS(0));
    model_free(&model);
}

static void test_special(void **state)
{
    struct model *model;

    (void)state;
    write_text("tokenizer_config.json",
               "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"},"
               "\"chat_template\":[{\"name\":\"tools\",\"template\":\"no\"},"
               "{\"name\":\"default\",\"template\":\"{{ bos_token }}!\"}]}");
    model = open_with(BYTES(
        "\"added_tokens\":[{\"id\":13,\"content\":\"<s>\",\"special\":true},{\"id\":15,"
        "\"content\":\"</s>\",\"special\":true},{\"id\":12,\"content\":\"<think>\",\"special\":"
        "false},{\"id\":11,\"content\":\"<|user|>\",\"special\":true,\"rstrip\":true},"
        "{\"id\":99,\"content\":\"past\",\"special\":true}],"
        "\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},"
        "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},"
        "{\"Sequence\":{\"id\":\"A\"}}]}]},",
        LEVEL, LETTERS, "\"a b\""));
    ids_are(model, "ab", TOKENS_ADD_SPECIAL, IDS(13, 4));
    ids_are(model, "a<think>b", 0, IDS(0, 12, 1));
    ids_are(model, "a</s>b", TOKENS_PARSE_SPECIAL, IDS(0, 15, 1));
    ids_are(model, "<|user|>  \nab", TOKENS_PARSE_SPECIAL, IDS(11, 4));
    assert_true(model_token_ends(model, 15));
    assert_true(model_token_ends(model, 14)); /* the second of config.json's list */
    assert_false(model_token_ends(model, 12));
    assert_int_equal(model_token_count(model), 16);
    model_free(&model);
}

static void test_template(void **state)
{
    struct chat_request chat = {.messages_json = "[{\"role\":\"user\",\"content\":\"x\"}]"};
    struct buffer out = {0};
    struct model *model;

    (void)state;
    model = open_with(BYTES("\"added_tokens\":[{\"id\":13,\"content\":\"<s>\",\"special\":true}],",
                            LEVEL, LETTERS, ""));
    assert_int_equal(chat_render(model, &chat, &out, NULL), STATUS_OK);
    assert_string_equal((const char *)out.data, "<s>!");
    model_free(&model);
    write_text("chat_template.jinja", "{{ messages[0].content }}");
    model = open_with(BYTES("", LEVEL, LETTERS, ""));
    out.len = 0;
    assert_int_equal(chat_render(model, &chat, &out, NULL), STATUS_OK);
    assert_string_equal((const char *)out.data, "x");
    model_free(&model);
    buffer_free(&out);
}

#define BLANK "\xe2\x96\x81"

static void test_sentencepiece(void **state)
{
    static const char vocab[] =
        "\"vocab\":{\"<unk>\":0,\"<0x41>\":1,\"" BLANK "\":2,\"a\":3,\"b\":4,\"" BLANK "a\":5,"
        "\"ab\":6,\"" BLANK "ab\":7},\"merges\":[\"a b\",\"" BLANK " ab\",[\"" BLANK "\",\"a\"]]}}";
    char text[1024];
    struct model *model;

    (void)state;
    snprintf(text, sizeof text,
             "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\","
             "\"prepend\":\"" BLANK "\"},{\"type\":\"Replace\"}]},\"model\":{\"type\":\"BPE\","
             "\"unk_token\":\"<unk>\",\"byte_fallback\":true,%s",
             vocab);
    model = open_with(text);
    ids_are(model, "ab aAb", 0, IDS(7, 5, 1, 4));
    model_free(&model);
    snprintf(text, sizeof text,
             "{\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"byte_fallback\":true,%s",
             vocab);
    model = open_with(text);
    ids_are(model, "ab a", 0, IDS(6, 5));
    model_free(&model);
}

static void test_unigram(void **state)
{
    struct model *model =
        open_with("{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"always\"},"
                  "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"" BLANK
                  "\",-3],[\"a\",-2],[\"" BLANK "a\",-2.5],[\"b\",-2],[\"ab\",-3]]}}");

    (void)state;
    ids_are(model, "ab", 0, IDS(3, 4));
    model_free(&model);
}

/* Whichever allocation fails, opening fails with words or does without. */
static void test_no_memory(void **state)
{
    enum status status = STATUS_NO_MEMORY;

    (void)state;
    model_free(&(struct model *){open_with(BYTES("", LEVEL, LETTERS, "\"a b\""))});
    for (unsigned long n = 1; n < 2000 && status != STATUS_OK; n++) {
        struct model *model = NULL;
        struct fault fault = {0};

        mem_fail_after(n);
        status = model_open(folder, &model, &fault);
        mem_fail_after(0);
        if (status != STATUS_OK && (model || !fault.text[0]))
            fail_msg("allocation %lu: %s without words", n, status_name(status));
        model_free(&model);
    }
    assert_int_equal(status, STATUS_OK);
}

/* A piece of a SentencePiece model: field 1 with text, score and type. */
static void put_piece(struct buffer *out, const char *text, float score, uint8_t type)
{
    size_t n = strlen(text);
    uint32_t bits;

    memcpy(&bits, &score, 4);
    assert_int_equal(buffer_put_u8(out, 10) | buffer_put_u8(out, (uint8_t)(n + 9)) |
                         buffer_put_u8(out, 10) | buffer_put_u8(out, (uint8_t)n) |
                         buffer_put_text(out, text) | buffer_put_u8(out, 2 << 3 | 5) |
                         buffer_put_u32(out, bits) | buffer_put_u8(out, 3 << 3) |
                         buffer_put_u8(out, type),
                     STATUS_OK);
}

static void test_tokenizer_model(void **state)
{
    static const uint8_t trainer[] = {2 << 3 | 2, 2, 3 << 3, 2}; /* model_type: BPE */
    struct buffer file = {0};
    struct fault fault = {0};
    struct model *model = NULL;

    (void)state;
    (void)unlink(path_of("tokenizer.json"));
    write_text("tokenizer_config.json",
               "{\"bos_token\":\"<s>\",\"add_bos_token\":true,\"added_tokens_decoder\":{"
               "\"9\":{\"content\":\"<|go|>\",\"special\":true}}}");
    put_piece(&file, "<unk>", 0, 2);
    put_piece(&file, "<s>", 0, 3);
    put_piece(&file, "<0x41>", 0, 6);
    put_piece(&file, BLANK "a", -1, 1);
    put_piece(&file, "ab", -2, 1);
    put_piece(&file, BLANK, -3, 1);
    put_piece(&file, "a", -4, 1);
    put_piece(&file, "b", -5, 1);
    assert_int_equal(buffer_put(&file, trainer, sizeof trainer), STATUS_OK);
    write_file("tokenizer.model", file.data, file.len);
    if (model_open(folder, &model, &fault))
        fail_msg("%s", fault.text);
    ids_are(model, "ab", 0, IDS(3, 7));
    ids_are(model, "bab<|go|>A", TOKENS_ADD_SPECIAL | TOKENS_PARSE_SPECIAL,
            IDS(1, 5, 7, 4, 9, 5, 2));
    model_free(&model);
    for (size_t n = 1; n < file.len; n++) { /* cut anywhere: whole pieces, or an error */
        write_file("tokenizer.model", file.data, n);
        if (model_open(folder, &model, &fault))
            assert_non_null(strstr(fault.text, "tokenizer.model"));
        model_free(&model);
    }
    buffer_free(&file);
    (void)unlink(path_of("tokenizer.model"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns),     cmocka_unit_test(test_punctuation),
        cmocka_unit_test(test_not_possible), cmocka_unit_test(test_catastrophic_patterns),
        cmocka_unit_test(test_nfc),          cmocka_unit_test(test_special),
        cmocka_unit_test(test_template),     cmocka_unit_test(test_sentencepiece),
        cmocka_unit_test(test_unigram),      cmocka_unit_test(test_tokenizer_model),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
