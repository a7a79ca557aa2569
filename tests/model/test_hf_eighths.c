/* Folders with 8-bit float weights, in the ways in which they are published: a scale per block
 * (weight_scale_inv), per tensor and per row (weight_scale), in both codings. Such a folder must
 * give the logits, to the bit, of a folder that has the products of code and scale as float32,
 * which are computed here from the formats' definition. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/file/map.h"
#include "engine/file/safetensors.h"
#include "tests/model/hf_write.h"
#include "tests/model/stages.h"

enum { N_TOKENS = 16, BLOCK_ROWS = 48, BLOCK_COLS = 40 };
enum scaling { BY_BLOCK, BY_BLOCK_SHORT, BY_TENSOR, BY_ROW, NO_SCALE };

static char root[] = "/tmp/skein-eighths-XXXXXX";

static const char *in(const char *folder, const char *name, char out[static 256])
{
    snprintf(out, 256, "%s/%s/%s", root, folder, name);
    return out;
}

static uint32_t mix(uint32_t x)
{
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

/* ---------------------------------------------------------------- the formats, as defined */

static float value_of(uint8_t code, bool e5m2)
{
    int mantissa_bits = e5m2 ? 2 : 3, bias = e5m2 ? 15 : 7;
    int exponent = (code & 127) >> mantissa_bits, mantissa = code & ((1 << mantissa_bits) - 1);
    double v = exponent ? (1 + ldexp(mantissa, -mantissa_bits)) * ldexp(1, exponent - bias)
                        : ldexp(mantissa, 1 - bias - mantissa_bits);

    return (float)(code & 128 ? -v : v);
}

static bool is_number(uint8_t code, bool e5m2)
{
    return e5m2 ? (code & 127) < 0x7c : (code & 127) != 127;
}

static float scale_at(enum scaling scaling, uint64_t row, uint64_t col, uint32_t seed)
{
    uint32_t at = scaling == BY_ROW      ? (uint32_t)row
                  : scaling == BY_TENSOR ? 0
                                         : (uint32_t)(row / BLOCK_ROWS * 1000 + col / BLOCK_COLS);
    float v = 1e-4f * (float)(mix(at + seed) % 1000 + 1);

    if (scaling == NO_SCALE)
        return 1;
    return scaling == BY_BLOCK_SHORT ? ldexpf(1, -(int)(mix(at + seed) % 4) - 6) : v * 0.01f;
}

/* ---------------------------------------------------------------- folders */

static void put_scales(struct hf_file *file, const char *name, const struct safetensor *t,
                       enum scaling scaling, uint32_t seed)
{
    uint64_t rows = scaling == BY_ROW ? t->dims[0] : (t->dims[0] + BLOCK_ROWS - 1) / BLOCK_ROWS;
    uint64_t cols = scaling == BY_ROW ? 1 : (t->dims[1] + BLOCK_COLS - 1) / BLOCK_COLS;
    uint64_t dims[2];
    float *scales;
    char scale_name[200];

    if (scaling == NO_SCALE)
        return;
    if (scaling == BY_TENSOR)
        rows = cols = 1;
    scales = malloc(rows * cols * sizeof(float));
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < cols; c++)
            scales[r * cols + c] =
                scale_at(scaling, scaling == BY_ROW ? r : r * BLOCK_ROWS, c * BLOCK_COLS, seed);
    dims[0] = rows;
    dims[1] = cols;
    snprintf(scale_name, sizeof scale_name, "%s_scale%s", name,
             scaling <= BY_BLOCK_SHORT ? "_inv" : "");
    hf_put(file, scale_name, "F32", scaling == BY_TENSOR ? 1 : 2, dims, scales,
           rows * cols * sizeof(float));
    free(scales);
}

/* One matrix as codes with scales into `eighths` and multiplied into `plain`. */
static void put_both(struct hf_file *eighths, struct hf_file *plain, const struct safetensor *t,
                     enum scaling scaling, bool e5m2, uint32_t seed)
{
    uint64_t n = t->dims[0] * t->dims[1];
    uint8_t *codes = malloc(n);
    float *values = malloc(n * sizeof(float));

    for (uint64_t i = 0; i < n; i++) {
        uint8_t code = (uint8_t)mix((uint32_t)i + seed);

        codes[i] = is_number(code, e5m2) && fabsf(value_of(code, e5m2)) < 64 ? code : 3;
        values[i] =
            value_of(codes[i], e5m2) * scale_at(scaling, i / t->dims[1], i % t->dims[1], seed);
    }
    hf_put(eighths, t->name, e5m2 ? "F8_E5M2" : "F8_E4M3", 2, t->dims, codes, n);
    put_scales(eighths, t->name, t, scaling, seed);
    hf_put(plain, t->name, "F32", 2, t->dims, values, n * sizeof(float));
    free(codes);
    free(values);
}

static void write_config(enum scaling scaling)
{
    char path[256];
    json_t *config = json_load_file(in("from", "config.json", path), 0, NULL);

    assert_non_null(config);
    assert_int_equal(json_dump_file(config, in("plain", "config.json", path), 0), 0);
    json_object_set_new(config, "quantization_config",
                        json_pack("{s:s,s:s}", "quant_method", "fp8", "fmt", "e4m3"));
    if (scaling <= BY_BLOCK_SHORT)
        json_object_set_new(json_object_get(config, "quantization_config"), "weight_block_size",
                            json_pack("[i,i]", BLOCK_ROWS, BLOCK_COLS));
    assert_int_equal(json_dump_file(config, in("eighths", "config.json", path), 0), 0);
    json_decref(config);
}

static void write_folders(enum scaling scaling, bool e5m2)
{
    struct file_map map = {0};
    struct safetensors *from;
    struct hf_file eighths = {0}, plain = {0};
    char path[256];

    write_config(scaling);
    assert_int_equal(file_map_open(in("from", "model.safetensors", path), &map, NULL), STATUS_OK);
    assert_int_equal(safetensors_parse(map.data, map.size_bytes, &from, NULL), STATUS_OK);
    for (size_t i = 0; i < safetensors_count(from); i++) {
        const struct safetensor *t = safetensors_at(from, i);

        if (t->n_dims == 2 && strstr(t->name, "_proj")) {
            put_both(&eighths, &plain, t, scaling, e5m2, (uint32_t)i * 7919);
            continue;
        }
        hf_put(&eighths, t->name, "F32", t->n_dims, t->dims, t->data, t->n_bytes);
        hf_put(&plain, t->name, "F32", t->n_dims, t->dims, t->data, t->n_bytes);
    }
    hf_close(&eighths, in("eighths", "model.safetensors", path));
    hf_close(&plain, in("plain", "model.safetensors", path));
    safetensors_free(&from);
    file_map_close(&map);
}

/* ---------------------------------------------------------------- comparing */

static struct model *open_folder(const char *name)
{
    struct fault fault = {0};
    char path[256];
    struct model *model = model_at(in(name, "", path));

    if (model_computable(model, ENGINE_NATIVE, &fault))
        fail_msg("%s", fault.text);
    return model;
}

static float *logits_of(const char *name, enum engine_kind engine, const char *quantize,
                        size_t *n_bytes)
{
    struct model *model = open_folder(name);
    struct stages_config config = {
        .engine = engine, .n_stages = 2, .n_threads = 1, .n_ctx_tokens = 32};
    float *logits;

    assert_int_equal(model_form_parse(NULL, quantize, &config.form, NULL), STATUS_OK);
    *n_bytes = (size_t)N_TOKENS * model_info(model)->n_vocab * sizeof(float);
    logits = stages_logits(model, &config, N_TOKENS, 16);
    model_free(&model);
    return logits;
}

static void same(enum engine_kind engine, const char *quantize)
{
    size_t n_bytes;
    float *a = logits_of("eighths", engine, quantize, &n_bytes);
    float *b = logits_of("plain", engine, quantize, &n_bytes);

    for (size_t i = 0; i < n_bytes / sizeof(float); i++)
        assert_true(isfinite(a[i]));
    if (memcmp(a, b, n_bytes) != 0)
        fail_msg("logits differ, %s, quantize %s", engine_name(engine), quantize);
    free(a);
    free(b);
}

static void write_from(const void *data, size_t size_bytes, const struct hf_family *family)
{
    struct gguf *gguf;
    char path[256];

    assert_int_equal(gguf_parse(data, size_bytes, &gguf, NULL), STATUS_OK);
    hf_write_folder(gguf, family, in("from", "", path));
    gguf_free(&gguf);
}

static void test_scalings(void **state)
{
    const void *data;
    size_t size_bytes;

    (void)state;
    model_demo(&data, &size_bytes);
    write_from(data, size_bytes, hf_family_find("llama"));
    for (int scaling = BY_BLOCK; scaling <= NO_SCALE; scaling++) {
        for (int e5m2 = 0; e5m2 < 2; e5m2++) {
            struct model *model;
            bool exact = scaling == BY_BLOCK_SHORT || scaling == NO_SCALE;

            write_folders((enum scaling)scaling, e5m2);
            same(ENGINE_OPENBLAS, NULL);
            same(ENGINE_NATIVE, "Q8_0");
            model = open_folder("eighths");
            if (!!strstr(model_info(model)->types, "BF16") != exact)
                fail_msg("scaling %d: held as %s", scaling, model_info(model)->types);
            model_free(&model);
        }
    }
}

/* Experts, and the matrix of latent attention that is cut by head and partly transposed. */
static void test_recorded(void **state)
{
    const char *conformance = getenv("SKEIN_CONFORMANCE");
    struct file_map map = {0};
    char path[512];

    (void)state;
    if (!conformance || !*conformance)
        skip();
    snprintf(path, sizeof path, "%s/arch/deepseek2/model.gguf", conformance);
    assert_int_equal(file_map_open(path, &map, NULL), STATUS_OK);
    write_from(map.data, map.size_bytes, hf_family_find("deepseek2"));
    file_map_close(&map);
    write_folders(BY_BLOCK, false);
    same(ENGINE_OPENBLAS, NULL);
    write_folders(BY_ROW, false);
    same(ENGINE_OPENBLAS, NULL);
    same(ENGINE_NATIVE, "Q4_0");
}

/* ---------------------------------------------------------------- refusals */

static void refuses(const char *dtype, size_t value_bytes, uint64_t scale_rows, const char *words)
{
    static const float scale[64] = {0};
    static const uint8_t zeros[64 * 64 * 4];
    const char *name = "model.layers.0.self_attn.q_proj.weight";
    struct hf_file file = {0};
    struct model *model = NULL;
    struct fault fault = {0};
    uint64_t dims[2] = {64, 64}, scale_dims[2] = {scale_rows, 1};
    char path[256];
    json_t *config =
        json_pack("{s:[s],s:i,s:i,s:i,s:i,s:i,s:i}", "architectures", "LlamaForCausalLM",
                  "hidden_size", 64, "num_hidden_layers", 1, "num_attention_heads", 2,
                  "intermediate_size", 64, "max_position_embeddings", 64, "vocab_size", 64);

    assert_int_equal(json_dump_file(config, in("eighths", "config.json", path), 0), 0);
    json_decref(config);
    hf_put(&file, name, dtype, 2, dims, zeros, 64 * 64 * value_bytes);
    hf_put(&file, "model.layers.0.self_attn.q_proj.weight_scale", "F32", 2, scale_dims, scale,
           scale_rows * sizeof(float));
    hf_close(&file, in("eighths", "model.safetensors", path));
    assert_int_not_equal(model_open(in("eighths", "", path), &model, &fault), STATUS_OK);
    assert_null(model);
    if (!strstr(fault.text, words) || !strstr(fault.text, "q_proj"))
        fail_msg("`%s` does not say `%s`", fault.text, words);
}

static void test_refusals(void **state)
{
    (void)state;
    refuses("F8_E4M3", 1, 3, "shape");
    refuses("F16", 2, 64, "scale");
    refuses("I8", 1, 64, "I8");
}

static int make_folders(void **state)
{
    static const char *const names[] = {"from", "eighths", "plain"};
    char path[256];

    (void)state;
    if (!mkdtemp(root))
        return -1;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        if (mkdir(in(names[i], "", path), 0700) != 0)
            return -1;
    }
    return 0;
}

static int drop_folders(void **state)
{
    static const char *const names[] = {"from", "eighths", "plain"};
    char path[256];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        (void)unlink(in(names[i], "config.json", path));
        (void)unlink(in(names[i], "model.safetensors", path));
        (void)rmdir(in(names[i], "", path));
    }
    return rmdir(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalings),
        cmocka_unit_test(test_recorded),
        cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests(tests, make_folders, drop_folders);
}
