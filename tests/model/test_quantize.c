/* Matrices turned into another type while a shard loads: the same bits as the file that
 * model_convert writes in that type, whole and split, from GGUF files and from folders; costs and
 * needs that are those of the file; nothing that grows; and a peak of memory that never holds the
 * model as it was stored, measured in a child process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/file/gguf_write.h"
#include "engine/kernels/encode.h"
#include "tests/model/stages.h"

/* Threads share out the rows of one type as of another, so ThreadSanitizer, under which encoding
 * takes minutes, sees one type of each kind of block. */
#ifdef __SANITIZE_THREAD__
enum { EVERY_TYPE = 0 };
#else
enum { EVERY_TYPE = 1 };
#endif

enum { N_TOKENS = 16 };

static char folder[] = "/tmp/skein-quantize-XXXXXX";

static const char *in_folder(const char *name, char out[static 256])
{
    snprintf(out, 256, "%s/%s", folder, name);
    return out;
}

static struct model *converted(const struct model *model, const char *type)
{
    char path[256];
    struct model_convert what = {.path = in_folder("made.gguf", path), .type = type};
    struct fault fault = {0};

    if (model_convert(model, &what, &fault))
        fail_msg("%s", fault.text);
    return model_at(path);
}

static struct model_form form_of(const char *type)
{
    struct model_form form;

    assert_int_equal(model_form_parse(NULL, type, &form, NULL), STATUS_OK);
    return form;
}

/* ---------------------------------------------------------------- the same bits */

static float *logits_of(const struct model *model, enum engine_kind engine, uint32_t n_stages,
                        struct model_form form)
{
    struct stages_config config = {.engine = engine,
                                   .n_stages = n_stages,
                                   .n_threads = n_stages,
                                   .n_ctx_tokens = 32,
                                   .form = form};

    return stages_logits(model, &config, N_TOKENS, 16);
}

static void same_bits(const struct model *model, const char *type, enum engine_kind engine)
{
    struct model *file = converted(model, type);
    size_t n_bytes = (size_t)N_TOKENS * model_info(model)->n_vocab * sizeof(float);
    float *wanted = logits_of(file, engine, 1, (struct model_form){0});

    for (uint32_t n_stages = 1; n_stages <= 2; n_stages++) {
        float *got = logits_of(model, engine, n_stages, form_of(type));

        if (memcmp(got, wanted, n_bytes) != 0)
            fail_msg("%s as %s differs from its converted file, %u stages", model_info(model)->name,
                     type, n_stages);
        free(got);
    }
    free(wanted);
    model_free(&file);
}

static void test_same_bits(void **state)
{
    struct model *demo = model_tiny(), *plain = converted(demo, "F32");
    char path[256], kept[256];

    (void)state;
    model_free(&plain);
    assert_int_equal(rename(in_folder("made.gguf", path), in_folder("plain.gguf", kept)), 0);
    plain = model_at(kept);
    for (uint32_t t = 1; t < TENSOR_TYPE_LIMIT; t++) {
        if (!tensor_encodes((enum tensor_type)t) || t == TENSOR_BF16_DOT) /* in no file */
            continue;
        if (!EVERY_TYPE && t != TENSOR_F16 && t != TENSOR_Q4_0 && t != TENSOR_Q4_K)
            continue;
        same_bits(plain, tensor_type_info(t)->name, ENGINE_NATIVE);
        /* no layout of its own: one type of plain blocks and one of super-blocks tell all */
        if (t == TENSOR_Q4_0 || t == TENSOR_Q4_K)
            same_bits(plain, tensor_type_info(t)->name, ENGINE_OPENBLAS);
    }
    model_free(&plain);
    model_free(&demo);
}

/* Experts, latent attention, delta nets, tied heads, folders with layouts of their own. */
static void test_same_bits_recorded(void **state)
{
    static const char *const names[] = {"arch/mixtral/model.gguf",
                                        "arch/deepseek2/model.gguf",
                                        "arch/qwen3next/model.gguf",
                                        "arch/gpt-oss/model.gguf",
                                        "arch/gpt2/model.gguf",
                                        "quant/llama-Q4_K_M/model.gguf",
                                        "hf/llama",
                                        "hf/mixtral",
                                        "hf/gemma3"};
    const char *root = getenv("SKEIN_CONFORMANCE");

    (void)state;
    if (!root || !*root)
        skip();
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char path[512];
        struct model *model;

        snprintf(path, sizeof path, "%s/%s", root, names[i]);
        model = model_at(path);
        same_bits(model, "Q8_0", ENGINE_NATIVE);
        if (EVERY_TYPE)
            same_bits(model, "Q4_0", ENGINE_NATIVE);
        model_free(&model);
    }
}

/* ---------------------------------------------------------------- costs */

static void test_costs(void **state)
{
    static const char *const types[] = {"F16", "Q8_0", "Q4_1"};
    struct model *demo = model_tiny(), *plain = converted(demo, "F32");

    (void)state;
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        struct model *file = converted(plain, types[i]);
        const struct model_info *info = model_info(file);
        struct shard_spec spec = {.layer_begin = 1,
                                  .layer_end = 2,
                                  .embed = true,
                                  .n_slots = 1,
                                  .n_ctx_tokens = 32,
                                  .n_kv_blocks = 1,
                                  .max_rows = 1,
                                  .n_threads = 1};
        struct model_form form = form_of(types[i]);
        struct model_costs costs;
        struct shard_need a, b, stored;

        assert_int_equal(model_costs(plain, &form, &costs), STATUS_OK);
        for (uint32_t il = 0; il < info->n_layers; il++) {
            assert_int_equal(costs.layer_bytes[il], info->layer_bytes[il]);
            assert_int_equal(costs.layer_active_bytes[il], info->layer_active_bytes[il]);
        }
        assert_int_equal(costs.embed_bytes, info->embed_bytes);
        assert_int_equal(costs.head_bytes, info->head_bytes);
        assert_int_equal(costs.head_active_bytes, info->head_active_bytes);
        model_costs_free(&costs);
        shard_need(file, &spec, &a);
        shard_need(plain, &spec, &stored);
        spec.form = form;
        shard_need(plain, &spec, &b);
        assert_int_equal(a.weight_bytes, b.weight_bytes);
        assert_true(b.weight_bytes < stored.weight_bytes);
        model_free(&file);
    }
    model_free(&plain);
    model_free(&demo);
}

/* A type with more bits than the tensors have leaves them, in the shard and in the file. */
static void test_never_grows(void **state)
{
    struct model *demo = model_tiny(), *small = converted(demo, "Q4_0"), *same;
    struct model_form form = form_of("Q8_0");
    struct model_costs costs;
    char path[256], kept[256];

    (void)state;
    model_free(&small);
    assert_int_equal(rename(in_folder("made.gguf", path), in_folder("small.gguf", kept)), 0);
    small = model_at(kept);
    assert_int_equal(model_costs(small, &form, &costs), STATUS_OK);
    assert_int_equal(costs.layer_bytes[0], model_info(small)->layer_bytes[0]);
    model_costs_free(&costs);
    same = converted(small, "Q8_0");
    assert_string_equal(model_info(same)->types, model_info(small)->types);
    assert_int_equal(model_info(same)->layer_bytes[0], model_info(small)->layer_bytes[0]);
    model_free(&same);
    model_free(&small);
    model_free(&demo);
}

static void test_refusals(void **state)
{
    struct model *demo = model_tiny();
    struct model_form form;
    struct fault fault = {0};
    struct stages_config config = {.n_stages = 1, .n_ctx_tokens = 32, .form.quantize = 4711};
    struct stages stages;
    char path[256];
    struct model_convert what = {.path = in_folder("made.gguf", path), .type = "BF16_DOT"};

    (void)state;
    assert_int_equal(model_form_parse(NULL, "Q9_9", &form, &fault), STATUS_INVALID);
    assert_non_null(strstr(fault.text, "Q9_9"));
    assert_non_null(strstr(fault.text, "Q4_0"));
    assert_null(strstr(fault.text, "F32"));
    assert_non_null(strstr(fault.text, "BF16_DOT"));
    assert_int_equal(model_form_parse(NULL, "F32", &form, &fault), STATUS_INVALID);
    assert_int_equal(stages_open(demo, &config, &stages, &fault), STATUS_INVALID);
    assert_non_null(strstr(fault.text, "4711"));
    assert_int_equal(model_convert(demo, &what, &fault), STATUS_INVALID);
    assert_non_null(strstr(fault.text, "writes F32"));
    assert_null(strstr(strstr(fault.text, "writes"), "BF16_DOT"));
    model_free(&demo);
}

/* ---------------------------------------------------------------- memory */

enum { WIDTH = 512, FF = 1408, LAYERS = 4, VOCAB = 4096 };

static void put_tensor(struct gguf_writer *w, const char *name, uint64_t d0, uint64_t d1)
{
    uint64_t dims[2] = {d0, d1};

    gguf_write_tensor(w, name, strlen(name), d1 > 1 ? 2 : 1, dims, TENSOR_F32, d0 * d1 * 4);
}

/* A llama of about 60 MB in F32. */
static void write_large(const char *path)
{
    static const struct {
        const char *name;
        uint64_t d0, d1;
    } parts[] = {{"attn_norm", WIDTH, 1},  {"ffn_norm", WIDTH, 1},        {"attn_q", WIDTH, WIDTH},
                 {"attn_k", WIDTH, WIDTH}, {"attn_v", WIDTH, WIDTH},      {"ffn_gate", WIDTH, FF},
                 {"ffn_up", WIDTH, FF},    {"attn_output", WIDTH, WIDTH}, {"ffn_down", FF, WIDTH}};
    struct gguf_writer w = {0};
    struct buffer header = {0};
    FILE *file = fopen(path, "wb");
    float values[256];

    gguf_write_text(&w, "general.architecture", "llama", 5);
    gguf_write_u32(&w, "llama.block_count", LAYERS);
    gguf_write_u32(&w, "llama.embedding_length", WIDTH);
    gguf_write_u32(&w, "llama.feed_forward_length", FF);
    gguf_write_u32(&w, "llama.context_length", 64);
    gguf_write_u32(&w, "llama.attention.head_count", 8);
    put_tensor(&w, "token_embd.weight", WIDTH, VOCAB);
    put_tensor(&w, "output_norm.weight", WIDTH, 1);
    for (unsigned il = 0; il < LAYERS; il++) {
        for (size_t i = 0; i < COUNT_OF(parts); i++) {
            char name[64];

            snprintf(name, sizeof name, "blk.%u.%s.weight", il, parts[i].name);
            put_tensor(&w, name, parts[i].d0, parts[i].d1);
        }
    }
    assert_int_equal(gguf_write_finish(&w, &header), STATUS_OK);
    assert_non_null(file);
    assert_int_equal(fwrite(header.data, 1, header.len, file), header.len);
    for (size_t at = 0; at < w.offset_bytes; at += sizeof values) {
        for (size_t i = 0; i < COUNT_OF(values); i++)
            values[i] = (float)((at / 4 + i) * 2654435761u % 1000) * 1e-3f - 0.5f;
        assert_int_equal(fwrite(values, 1, sizeof values, file), sizeof values);
    }
    assert_int_equal(fclose(file), 0);
    gguf_write_free(&w);
    buffer_free(&header);
}

static uint64_t peak_bytes(void)
{
    char line[128];
    FILE *file = fopen("/proc/self/status", "r");
    unsigned long long kb = 0;

    while (file && fgets(line, sizeof line, file))
        (void)sscanf(line, "VmHWM: %llu kB", &kb);
    if (file)
        fclose(file);
    return kb * 1024;
}

/* In a child, whose peak is its own. Exit code: 0 within the bound, 1 over it, 2 not measured. */
static int load_measured(const char *path, const char *type)
{
    struct model *model = NULL;
    struct shard_need need;
    struct shard *shard = NULL;
    struct shard_spec spec = {.layer_end = LAYERS,
                              .embed = true,
                              .head = true,
                              .n_slots = 1,
                              .n_ctx_tokens = 32,
                              .n_kv_blocks = 1,
                              .max_rows = 1,
                              .n_threads = 1};
    uint64_t before, grown, bound;

    if (model_form_parse(NULL, type, &spec.form, NULL) || model_open(path, &model, NULL))
        return 2;
    shard_need(model, &spec, &need);
    before = peak_bytes();
    if (shard_open(model, &spec, &shard, NULL))
        return 2;
    grown = peak_bytes() - before;
    bound = need.weight_bytes + need.kv_bytes + need.scratch_bytes +
            (uint64_t)WIDTH * VOCAB * sizeof(float);
    print_message("           %s: %llu KB, bound %llu KB\n", type, (unsigned long long)grown / 1024,
                  (unsigned long long)bound / 1024);
    shard_free(&shard);
    model_free(&model);
    return grown > bound ? 1 : grown < need.weight_bytes / 2 ? 2 : 0;
}

static void test_peak(void **state)
{
    static const char *const types[] = {"Q4_0", "Q5_0", "Q8_0"};
    char path[256];

    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* shadow memory is resident too */
#endif
    write_large(in_folder("large.gguf", path));
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        pid_t child;
        int how = 0;

        fflush(stdout);
        child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            how = load_measured(path, types[i]);
            fflush(stdout);
            _exit(how);
        }
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_true(WIFEXITED(how));
        assert_int_equal(WEXITSTATUS(how), 0);
    }
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    static const char *const names[] = {"made.gguf", "plain.gguf", "small.gguf", "large.gguf"};
    char path[256];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        (void)unlink(in_folder(names[i], path));
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_peak), /* first: before it the heap is small */
        cmocka_unit_test(test_same_bits), cmocka_unit_test(test_same_bits_recorded),
        cmocka_unit_test(test_costs),     cmocka_unit_test(test_never_grows),
        cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
