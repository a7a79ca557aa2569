/* Opening models: what a file is said to be, and the sentence a user gets where it cannot be used.
 */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/engine.h"
#include "tests/unit/engine/gguf_make.h"

static struct model *open_made(struct gguf_maker *m)
{
    struct gguf_text file = make_file(m, 3);
    struct fault fault = {0};
    struct model *model;

    if (model_open_memory(file.data, file.n_bytes, "made.gguf", &model, &fault))
        fail_msg("%s", fault.text);
    return model;
}

static void check_not_runnable(struct gguf_maker *m, enum status want, const char *words)
{
    struct model *model = open_made(m);
    struct fault fault = {0};

    assert_int_equal(model_runnable(model, ENGINE_NATIVE, &fault), want);
    if (!strstr(fault.text, words))
        fail_msg("\"%s\" does not say \"%s\"", fault.text, words);
    model_free(&model);
    assert_null(model);
    gguf_maker_free(m);
}

static void test_demo(void **state)
{
    const void *data;
    size_t size;
    struct model *model;
    const struct model_info *info;
    uint64_t layers = 0;

    (void)state;
    model_demo(&data, &size);
    assert_int_equal((uintptr_t)data % 64, 0);
    assert_int_equal(model_open_memory(data, size, "tiny", &model, NULL), STATUS_OK);
    assert_int_equal(model_runnable(model, ENGINE_NATIVE, NULL), STATUS_OK);
    assert_int_equal(model_runnable(model, ENGINE_OPENBLAS, NULL), STATUS_OK);
    info = model_info(model);
    assert_string_equal(info->architecture, "llama");
    assert_int_equal(info->n_layers, 8);
    assert_int_equal(info->n_embd, 256);
    assert_int_equal(info->n_vocab, 2048);
    assert_int_equal(info->n_ctx_train, 1024);
    assert_int_equal(info->n_heads, 8);
    assert_int_equal(info->n_kv_heads, 4);
    assert_int_equal(info->n_parameters, 6820096);
    assert_true(info->tied);
    assert_true(info->has_tensors);
    assert_int_equal(info->file_bytes, size);
    assert_int_equal(info->layer_kv_bytes[3], 2 * 4 * 32 * sizeof(float));
    for (uint32_t il = 0; il < info->n_layers; il++) {
        assert_int_equal(info->layer_active_bytes[il], info->layer_bytes[il]);
        layers += info->layer_bytes[il];
    }
    assert_int_equal(info->head_bytes, 0);
    assert_int_equal(info->head_active_bytes, 2048 * 256 * 2);
    assert_true(layers + info->embed_bytes < size);
    assert_true(layers + info->embed_bytes > size - 200000);
    assert_non_null(strstr(info->types, "F16"));
    model_free(&model);
}

static void test_made_model_runs(void **state)
{
    struct gguf_maker m = {0};
    struct model *model;

    (void)state;
    make_llama(&m);
    model = open_made(&m);
    assert_int_equal(model_runnable(model, ENGINE_NATIVE, NULL), STATUS_OK);
    assert_string_equal(model_info(model)->name, "test");
    model_free(&model);
    gguf_maker_free(&m);
}

/* The small llama with one number of its metadata set to something else. */
static void llama_with(struct gguf_maker *m, const char *key, uint32_t v)
{
    char encoded[128];
    size_t n = strlen(key);
    uint64_t n_bytes = n;
    uint8_t *at;

    make_llama(m);
    memcpy(encoded, &n_bytes, 8);
    memcpy(encoded + 8, key, n);
    at = memmem(m->values.data, m->values.len, encoded, n + 8);
    assert_non_null(at);
    memcpy(at + n + 8 + 4, &v, sizeof v);
}

/* Matrices of a single row are matrices. */
static void test_narrow_feed_forward(void **state)
{
    static const char *const names[] = {"ffn_gate", "ffn_up", "ffn_down"};
    struct shard_spec spec = {.layer_end = 2,
                              .embed = true,
                              .head = true,
                              .n_slots = 1,
                              .n_ctx_tokens = 32,
                              .n_kv_blocks = 1,
                              .max_rows = 4,
                              .n_threads = 1};
    struct shard_row row = {0, 0};
    struct gguf_maker m = {0};
    uint32_t token = 3;
    float hidden[32], logits[8];
    struct fault fault = {0};
    struct shard *shard;
    struct model *model;

    (void)state;
    llama_with(&m, "llama.feed_forward_length", 1);
    for (unsigned i = 0; i < 6; i++) {
        char name[40];
        uint8_t *at;

        snprintf(name, sizeof name, "blk.%u.%s.weight", i / 3, names[i % 3]);
        at = memmem(m.tensors.data, m.tensors.len, name, strlen(name));
        assert_non_null(at);
        at += strlen(name) + 4 + (i % 3 == 2 ? 0 : 8); /* the one of its dimensions that is n_ff */
        memcpy(at, &(uint64_t){1}, 8);
    }
    model = open_made(&m);
    for (spec.engine = 0; spec.engine < ENGINE_COUNT; spec.engine++) {
        if (shard_open(model, &spec, &shard, &fault))
            fail_msg("%s", fault.text);
        assert_int_equal(shard_embed(shard, &token, 1, hidden), STATUS_OK);
        assert_int_equal(shard_forward(shard, &row, 1, hidden), STATUS_OK);
        assert_int_equal(shard_logits(shard, hidden, 1, logits), STATUS_OK);
        shard_free(&shard);
    }
    model_free(&model);
    gguf_maker_free(&m);
}

static void test_unknown_architecture(void **state)
{
    struct gguf_maker m = {0};

    (void)state;
    make_text(&m, "general.architecture", "mamba");
    make_tensor(&m, "token_embd.weight", 32, 8);
    check_not_runnable(&m, STATUS_UNSUPPORTED,
                       "architecture `mamba` is not supported; skein runs llama");
}

static void test_no_architecture(void **state)
{
    struct gguf_maker m = {0};

    (void)state;
    check_not_runnable(&m, STATUS_FORMAT, "general.architecture");
}

static void test_unknown_architecture_is_described(void **state)
{
    struct gguf_maker m = {0};
    struct model *model;

    (void)state;
    make_text(&m, "general.architecture", "later");
    make_text(&m, "general.name", "bad\x1b[0m\xff name");
    make_u32(&m, "later.block_count", 1);
    make_tensor(&m, "blk.0.thing.weight", 32, 8);
    make_tensor(&m, "blk.77.thing.weight", 32, 8);
    model = open_made(&m);
    assert_string_equal(model_info(model)->name, "bad?[0m? name");
    assert_int_equal(model_info(model)->n_layers, 1);
    assert_int_equal(model_info(model)->layer_bytes[0], 32 * 8 * sizeof(float));
    model_free(&model);
    gguf_maker_free(&m);
}

static void test_vocabulary_only(void **state)
{
    struct gguf_maker m = {0};
    struct model *model;

    (void)state;
    make_llama(&m);
    m.n_tensors = 0;
    buffer_free(&m.tensors);
    model = open_made(&m);
    assert_false(model_info(model)->has_tensors);
    assert_int_equal(model_info(model)->n_vocab, 8);
    model_free(&model);
    check_not_runnable(&m, STATUS_UNSUPPORTED, "vocabulary");
}

static void test_numbers_out_of_range(void **state)
{
    static const struct {
        const char *key;
        uint32_t v;
        enum status want;
    } cases[] = {
        {"llama.block_count", 0, STATUS_FORMAT},
        {"llama.block_count", 1u << 30, STATUS_LIMIT},
        {"llama.block_count", 3, STATUS_UNSUPPORTED},
        {"llama.embedding_length", 0, STATUS_FORMAT},
        {"llama.embedding_length", UINT32_MAX, STATUS_LIMIT},
        {"llama.embedding_length", 64, STATUS_FORMAT},
        {"llama.context_length", 0, STATUS_FORMAT},
        {"llama.feed_forward_length", UINT32_MAX, STATUS_LIMIT},
        {"llama.attention.head_count", 0, STATUS_FORMAT},
        {"llama.attention.head_count", 3, STATUS_FORMAT},
        {"llama.attention.head_count", UINT32_MAX, STATUS_LIMIT},
        {"llama.attention.head_count_kv", 0, STATUS_FORMAT},
        {"llama.attention.head_count_kv", 5, STATUS_FORMAT},
        {"llama.attention.layer_norm_rms_epsilon", 0x7fc00000, STATUS_FORMAT}, /* NaN */
        {"llama.attention.layer_norm_rms_epsilon", 0x7f800000, STATUS_FORMAT}, /* infinity */
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct gguf_maker m = {0};

        llama_with(&m, cases[i].key, cases[i].v);
        check_not_runnable(&m, cases[i].want, cases[i].want == STATUS_UNSUPPORTED ? "missing" : "");
    }
}

static void test_missing_tensor(void **state)
{
    struct gguf_maker m = {0};
    uint8_t *at;

    (void)state;
    make_llama(&m);
    at = memmem(m.tensors.data, m.tensors.len, "blk.1.ffn_up", 12);
    assert_non_null(at);
    at[11] = 'q';
    check_not_runnable(&m, STATUS_UNSUPPORTED, "tensor blk.1.ffn_up.weight is missing");
}

static void test_unknown_tensor(void **state)
{
    struct gguf_maker m = {0};
    struct gguf_maker past = {0};
    struct model *model;

    (void)state;
    make_llama(&m);
    make_tensor(&m, "blk.1.attn_q_norm.weight", 16, 1);
    check_not_runnable(&m, STATUS_UNSUPPORTED, "blk.1.attn_q_norm.weight is not part of");
    make_llama(&past);
    make_tensor(&past, "blk.2.extra.weight", 16, 1);
    model = open_made(&past);
    assert_int_equal(model_runnable(model, ENGINE_NATIVE, NULL), STATUS_OK);
    model_free(&model);
    gguf_maker_free(&past);
}

static void test_wrong_shape(void **state)
{
    struct gguf_maker m = {0};

    (void)state;
    make_llama(&m);
    make_tensor(&m, "output.weight", 32, 9);
    check_not_runnable(&m, STATUS_FORMAT, "tensor output.weight has shape [32, 9");
}

static void test_types(void **state)
{
    struct gguf_maker known = {0};
    struct gguf_maker unknown = {0};
    uint64_t dims[2] = {32, 8};

    (void)state;
    make_llama(&known);
    make_tensor_at(&known, "output.weight", TENSOR_I32, 2, dims, 0);
    check_not_runnable(&known, STATUS_UNSUPPORTED,
                       "tensor output.weight has type I32, which the native engine cannot run");
    make_llama(&unknown);
    make_tensor_at(&unknown, "output.weight", 60, 2, dims, 0);
    check_not_runnable(&unknown, STATUS_UNSUPPORTED, "type number 60");
}

static void test_part_of_a_split_model(void **state)
{
    struct gguf_maker m = {0};
    struct gguf_text file;
    struct model *model;
    struct fault fault = {0};

    (void)state;
    make_llama(&m);
    make_u32(&m, "split.count", 3);
    make_u32(&m, "split.no", 0);
    file = make_file(&m, 3);
    assert_int_equal(model_open_memory(file.data, file.n_bytes, "part", &model, &fault),
                     STATUS_FORMAT);
    assert_non_null(strstr(fault.text, "part 1 of a model split over 3 files"));
    gguf_maker_free(&m);
}

/* Heads of one length are what scale and rotation are made for. */
static void test_heads_of_different_lengths(void **state)
{
    struct gguf_maker m = {0};
    uint8_t *at;

    (void)state;
    make_llama(&m);
    at = memmem(m.values.data, m.values.len, "llama.attention.head_count", 26);
    assert_non_null(at);
    at[25] = 'x';
    make_key(&m, "llama.attention.head_count", GGUF_ARRAY);
    assert_int_equal(buffer_put_u32(&m.values, GGUF_U32), STATUS_OK);
    assert_int_equal(buffer_put_u64(&m.values, 2), STATUS_OK);
    assert_int_equal(buffer_put_u32(&m.values, 2), STATUS_OK);
    assert_int_equal(buffer_put_u32(&m.values, 4), STATUS_OK);
    check_not_runnable(&m, STATUS_FORMAT, "heads of different lengths");
}

static void test_rope_scaling_of_unknown_kind(void **state)
{
    struct gguf_maker m = {0};

    (void)state;
    make_llama(&m);
    make_text(&m, "llama.rope.scaling.type", "spiral");
    check_not_runnable(&m, STATUS_UNSUPPORTED, "llama.rope.scaling.type");
}

/* ---------------------------------------------------------------- files */

static void write_file(const char *path, const void *data, size_t n)
{
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, n, file), n);
    fclose(file);
}

/* ---------------------------------------------------------------- sampling */

static unsigned sampling_of(struct gguf_maker *m, struct sample_params *out)
{
    struct model *model = NULL;
    struct gguf_text file;
    unsigned settings;

    make_llama(m);
    file = make_file(m, 3);
    assert_int_equal(model_open_memory(file.data, file.n_bytes, "m", &model, NULL), STATUS_OK);
    settings = model_sampling(model, out);
    model_free(&model);
    gguf_maker_free(m);
    memset(m, 0, sizeof *m);
    return settings;
}

static void test_sampling_of_the_file(void **state)
{
    struct gguf_maker m = {0};
    struct sample_params params;

    (void)state;
    sample_defaults(&params);
    assert_int_equal(sampling_of(&m, &params), 0);
    assert_true(params.temperature == 0.8f && params.top_k == 40); /* nothing was touched */

    make_f32(&m, "general.sampling.temp", 0.25f);
    make_f32(&m, "general.sampling.top_p", 0.5f);
    make_u32(&m, "general.sampling.top_k", 64);
    assert_int_equal(sampling_of(&m, &params), SAMPLE_TEMPERATURE | SAMPLE_TOP_P | SAMPLE_TOP_K);
    assert_true(params.temperature == 0.25f && params.top_p == 0.5f && params.top_k == 64);
    assert_true(params.min_p == 0.05f);
}

static void test_sampling_that_makes_no_sense(void **state)
{
    struct gguf_maker m = {0};
    struct sample_params params;

    (void)state;
    sample_defaults(&params);
    make_f32(&m, "general.sampling.temp", -1);
    make_f32(&m, "general.sampling.top_p", 1.5f);
    make_f32(&m, "general.sampling.min_p", (float)NAN);
    make_f32(&m, "general.sampling.penalty_repeat", 0);
    make_text(&m, "general.sampling.typical_p", "0.5");
    make_f32(&m, "general.sampling.top_k", 5);
    make_u32(&m, "general.sampling.penalty_last_n", UINT32_MAX);
    assert_int_equal(sampling_of(&m, &params), SAMPLE_REPEAT_LAST_N);
    assert_int_equal(params.repeat_last_n, 16384); /* as far back as the sampler looks */
    assert_true(params.temperature == 0.8f && params.top_p == 0.95f && params.top_k == 40);

    make_key(&m, "general.sampling.top_k", GGUF_I32);
    assert_int_equal(buffer_put_u32(&m.values, (uint32_t)-1), STATUS_OK);
    make_key(&m, "general.sampling.penalty_last_n", GGUF_I32);
    assert_int_equal(buffer_put_u32(&m.values, (uint32_t)-1), STATUS_OK);
    assert_int_equal(sampling_of(&m, &params), SAMPLE_REPEAT_LAST_N | SAMPLE_TOP_K);
    assert_int_equal(params.top_k, 0);
    assert_int_equal(params.repeat_last_n, 16384);
}

static void test_dry_breakers(void **state)
{
    const void *data;
    size_t size, n, n_newlines = 0;
    const uint32_t *breakers;
    struct model *model = NULL;

    (void)state;
    model_demo(&data, &size);
    assert_int_equal(model_open_memory(data, size, "tiny", &model, NULL), STATUS_OK);
    breakers = model_dry_breakers(model, &n);
    assert_true(n > 3 && n < model_token_count(model) / 4);
    for (uint32_t id = 0, i = 0; id < model_token_count(model); id++) {
        struct detok *detok = NULL;
        struct buffer text = {0};
        bool breaks;

        assert_int_equal(detok_new(model, DETOK_RAW, &detok), STATUS_OK);
        assert_int_equal(detok_push(detok, id, &text), STATUS_OK);
        assert_int_equal(detok_finish(detok, true, &text), STATUS_OK);
        breaks = text.len && strpbrk((const char *)text.data, "\n:\"*");
        n_newlines += text.len && strchr((const char *)text.data, '\n');
        assert_int_equal(i < n && breakers[i] == id, breaks);
        i += breaks;
        buffer_free(&text);
        detok_free(&detok);
    }
    assert_true(n_newlines > 0);
    model_free(&model);
}

static void check_open_fails(const char *path, enum status want, const char *words)
{
    struct fault fault = {0};
    struct model *model = NULL;

    assert_int_equal(model_open(path, &model, &fault), want);
    assert_null(model);
    if (!strstr(fault.text, words) || !strstr(fault.text, path))
        fail_msg("\"%s\" does not say \"%s\" and the path", fault.text, words);
}

static void test_files(void **state)
{
    char folder[] = "/tmp/skein-model-XXXXXX";
    char path[64];
    struct gguf_maker m = {0};
    struct gguf_text file;
    struct model *model;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/m.gguf", folder);
    check_open_fails(path, STATUS_NOT_FOUND, "");
    check_open_fails(folder, STATUS_INVALID, "folder");
    check_open_fails("/dev/null", STATUS_INVALID, "regular");
    write_file(path, "", 0);
    check_open_fails(path, STATUS_TRUNCATED, "empty");
    write_file(path, "hello, world", 12);
    check_open_fails(path, STATUS_FORMAT, "GGUF");
    make_llama(&m);
    file = make_file(&m, 3);
    write_file(path, file.data, file.n_bytes - 1);
    check_open_fails(path, STATUS_TRUNCATED, "cut off");
    write_file(path, file.data, file.n_bytes);
    assert_int_equal(model_open(path, &model, NULL), STATUS_OK);
    assert_int_equal(model_info(model)->file_bytes, file.n_bytes);
    model_free(&model);
    gguf_maker_free(&m);
    unlink(path);
    rmdir(folder);
}

static void test_allocation_failures(void **state)
{
    const void *data;
    size_t size;
    struct model *model = NULL;
    enum status status = STATUS_NO_MEMORY;
    unsigned long n = 1;

    (void)state;
    model_demo(&data, &size);
    for (; status && n < 100000; n++) {
        mem_fail_after(n);
        status = model_open_memory(data, size, "tiny", &model, NULL);
        mem_fail_after(0);
        assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
        if (status)
            assert_null(model);
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 10);
    model_free(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_demo),
        cmocka_unit_test(test_made_model_runs),
        cmocka_unit_test(test_narrow_feed_forward),
        cmocka_unit_test(test_unknown_architecture),
        cmocka_unit_test(test_no_architecture),
        cmocka_unit_test(test_unknown_architecture_is_described),
        cmocka_unit_test(test_vocabulary_only),
        cmocka_unit_test(test_numbers_out_of_range),
        cmocka_unit_test(test_missing_tensor),
        cmocka_unit_test(test_unknown_tensor),
        cmocka_unit_test(test_wrong_shape),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_part_of_a_split_model),
        cmocka_unit_test(test_heads_of_different_lengths),
        cmocka_unit_test(test_rope_scaling_of_unknown_kind),
        cmocka_unit_test(test_sampling_of_the_file),
        cmocka_unit_test(test_sampling_that_makes_no_sense),
        cmocka_unit_test(test_dry_breakers),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_allocation_failures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
