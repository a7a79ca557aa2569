/* Hugging Face folders: the demo model written as one (rows of queries and keys in halves, experts
 * none, names and JSON as such folders have them) gives the same ids, prompts and logits as its
 * GGUF; what is converted gives the same logits again; and broken folders are refused with a
 * sentence that names what is wrong. The folder is made here from the GGUF, so no weights need to
 * be at hand; the recorded folders of the conformance data are in test_conformance. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>
#include <sys/stat.h>

#include "engine/file/source.h"
#include "tests/model/stages.h"

enum { N_TOKENS = 24 };

static char folder[] = "/tmp/skein-hf-XXXXXX";
static char path_buffer[512];

static const char *in_folder(const char *name)
{
    snprintf(path_buffer, sizeof path_buffer, "%s/%s", folder, name);
    return path_buffer;
}

static void write_text(const char *name, const char *text)
{
    FILE *file = fopen(in_folder(name), "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

static void write_json(const char *name, json_t *json)
{
    assert_non_null(json);
    assert_int_equal(json_dump_file(json, in_folder(name), 0), 0);
    json_decref(json);
}

/* ---------------------------------------------------------------- the folder */

static uint32_t number(const struct gguf *gguf, const char *key)
{
    uint32_t v = 0;

    assert_true(gguf_get_u32(gguf, key, &v));
    return v;
}

static void write_config(const struct gguf *gguf)
{
    float eps = 0, base = 0;

    assert_true(gguf_get_f32(gguf, "llama.attention.layer_norm_rms_epsilon", &eps));
    assert_true(gguf_get_f32(gguf, "llama.rope.freq_base", &base));
    write_json("config.json",
               json_pack("{s:[s],s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:f,s:f,s:n,s:b,s:s,s:i,s:i}",
                         "architectures", "LlamaForCausalLM", "vocab_size",
                         (int)gguf_tensor_find(gguf, "token_embd.weight")->dims[1], "hidden_size",
                         number(gguf, "llama.embedding_length"), "intermediate_size",
                         number(gguf, "llama.feed_forward_length"), "num_hidden_layers",
                         number(gguf, "llama.block_count"), "num_attention_heads",
                         number(gguf, "llama.attention.head_count"), "num_key_value_heads",
                         number(gguf, "llama.attention.head_count_kv"), "max_position_embeddings",
                         number(gguf, "llama.context_length"), "rms_norm_eps", (double)eps,
                         "rope_theta", (double)base, "rope_scaling", "tie_word_embeddings", 1,
                         "hidden_act", "silu", "bos_token_id",
                         number(gguf, "tokenizer.ggml.bos_token_id"), "eos_token_id",
                         number(gguf, "tokenizer.ggml.eos_token_id")));
}

static json_t *text_at(const struct gguf_value *list, uint64_t i)
{
    struct gguf_text text;

    assert_true(gguf_value_text(list, i, &text));
    return json_stringn(text.data, text.n_bytes);
}

static void write_tokenizer(const struct gguf *gguf)
{
    const struct gguf_value *tokens = gguf_find(gguf, "tokenizer.ggml.tokens");
    const struct gguf_value *types = gguf_find(gguf, "tokenizer.ggml.token_type");
    const struct gguf_value *merges = gguf_find(gguf, "tokenizer.ggml.merges");
    json_t *vocab = json_object(), *added = json_array(), *list = json_array();

    for (uint64_t i = 0; i < tokens->n; i++) {
        json_t *text = text_at(tokens, i);
        uint32_t type = 1;

        assert_true(gguf_value_u32(types, i, &type));
        if (type == 1)
            json_object_set_new(vocab, json_string_value(text), json_integer((json_int_t)i));
        else
            json_array_append_new(added, json_pack("{s:i,s:O,s:b}", "id", (int)i, "content", text,
                                                   "special", type == 3));
        json_decref(text);
    }
    for (uint64_t i = 0; i < merges->n; i++)
        json_array_append_new(list, text_at(merges, i));
    write_json("tokenizer.json",
               json_pack("{s:o,s:n,s:{s:s,s:b,s:b},s:{s:s,s:o,s:o}}", "added_tokens", added,
                         "normalizer", "pre_tokenizer", "type", "ByteLevel", "add_prefix_space", 0,
                         "use_regex", 1, "model", "type", "BPE", "vocab", vocab, "merges", list));
}

static void write_settings(const struct gguf *gguf)
{
    struct gguf_text template;
    const struct gguf_value *tokens = gguf_find(gguf, "tokenizer.ggml.tokens");
    json_t *text;

    assert_true(gguf_get_text(gguf, "tokenizer.chat_template", &template));
    text = json_stringn(template.data, template.n_bytes);
    write_json("tokenizer_config.json",
               json_pack("{s:o,s:{s:o},s:o,s:b}", "bos_token",
                         text_at(tokens, number(gguf, "tokenizer.ggml.bos_token_id")), "eos_token",
                         "content", text_at(tokens, number(gguf, "tokenizer.ggml.eos_token_id")),
                         "chat_template", text, "add_bos_token", 0));
}

/* "blk.3.attn_q.weight" → "model.layers.3.self_attn.q_proj.weight". */
static void hf_name_of(const char *name, char out[static 128])
{
    static const char *const pairs[][2] = {
        {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
        {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
        {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
        {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
        {"ffn_down", "mlp.down_proj"}};
    char part[64];
    unsigned layer;

    if (sscanf(name, "blk.%u.%63[a-z_].weight", &layer, part) != 2) {
        snprintf(out, 128, "%s",
                 strcmp(name, "token_embd.weight") == 0 ? "model.embed_tokens.weight"
                                                        : "model.norm.weight");
        return;
    }
    for (size_t i = 0; i < COUNT_OF(pairs); i++) {
        if (strcmp(pairs[i][0], part) == 0)
            snprintf(out, 128, "model.layers.%u.%s.weight", layer, pairs[i][1]);
    }
}

/* Row `row` of the folder's matrix is row … of the GGUF's. */
static uint64_t gguf_row(const char *name, uint64_t row, uint32_t head)
{
    uint64_t in_head = row % head;

    if (!strstr(name, "attn_q.") && !strstr(name, "attn_k."))
        return row;
    return row - in_head + (in_head < head / 2 ? 2 * in_head : 2 * (in_head - head / 2) + 1);
}

static void write_weights(const struct gguf *gguf)
{
    uint32_t head = number(gguf, "llama.rope.dimension_count");
    json_t *header = json_object();
    FILE *file = fopen(in_folder("model.safetensors"), "wb");
    uint64_t at = 0, length;
    char *text;

    for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(gguf, i);
        json_t *shape = t->n_dims == 1
                            ? json_pack("[I]", (json_int_t)t->dims[0])
                            : json_pack("[I,I]", (json_int_t)t->dims[1], (json_int_t)t->dims[0]);
        char name[96], hf[128];

        snprintf(name, sizeof name, "%.*s", (int)t->name.n_bytes, t->name.data);
        hf_name_of(name, hf);
        json_object_set_new(header, hf,
                            json_pack("{s:s,s:o,s:[I,I]}", "dtype", "F32", "shape", shape,
                                      "data_offsets", (json_int_t)at,
                                      (json_int_t)(at + t->n_values * 4)));
        at += t->n_values * 4;
    }
    text = json_dumps(header, JSON_COMPACT);
    length = strlen(text);
    assert_non_null(file);
    fwrite(&length, 8, 1, file);
    fwrite(text, 1, length, file);
    for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(gguf, i);
        float *row = malloc(t->dims[0] * sizeof(float));
        char name[96];

        snprintf(name, sizeof name, "%.*s", (int)t->name.n_bytes, t->name.data);
        for (uint64_t r = 0; r < t->dims[1]; r++) {
            tensor_row(t, 0, gguf_row(name, r, head), row);
            fwrite(row, sizeof(float), t->dims[0], file);
        }
        free(row);
    }
    assert_int_equal(fclose(file), 0);
    free(text);
    json_decref(header);
}

static int make_folder(void **state)
{
    const void *data;
    size_t size_bytes;
    struct gguf *gguf;
    struct fault fault = {0};

    (void)state;
    assert_non_null(mkdtemp(folder));
    model_demo(&data, &size_bytes);
    assert_int_equal(gguf_parse(data, size_bytes, &gguf, &fault), STATUS_OK);
    write_config(gguf);
    write_tokenizer(gguf);
    write_settings(gguf);
    write_weights(gguf);
    gguf_free(&gguf);
    return 0;
}

static int drop_folder(void **state)
{
    static const char *const names[] = {
        "config.json", "tokenizer.json", "model.safetensors", "tokenizer_config.json",
        "f32.gguf",    "q8.gguf",        "from.gguf",         "model.safetensors.index.json"};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        (void)unlink(in_folder(names[i]));
    return rmdir(folder);
}

/* ---------------------------------------------------------------- comparing */

static void convert(const struct model *model, const char *name, const char *type)
{
    struct model_convert what = {.path = in_folder(name), .type = type};
    struct fault fault = {0};

    if (model_convert(model, &what, &fault))
        fail_msg("%s", fault.text);
}

static float *logits_of(const struct model *model, enum engine_kind engine)
{
    struct stages_config config = {
        .engine = engine, .n_stages = 2, .n_threads = 1, .n_ctx_tokens = 64};

    return stages_logits(model, &config, N_TOKENS, 16);
}

static void same_logits(const struct model *a, const struct model *b, enum engine_kind engine,
                        double limit)
{
    float *x = logits_of(a, engine), *y = logits_of(b, engine);
    double nmse = logits_nmse(x, y, (size_t)N_TOKENS * model_info(a)->n_vocab);

    if (!(nmse <= limit))
        fail_msg("nmse %g, limit %g", nmse, limit);
    free(x);
    free(y);
}

/* ---------------------------------------------------------------- tests */

static void test_folder_equals_gguf(void **state)
{
    struct model *demo = model_tiny(), *hf = model_at(folder), *gguf;
    struct fault fault = {0};

    (void)state;
    if (model_runnable(hf, ENGINE_NATIVE, &fault))
        fail_msg("%s", fault.text);
    assert_string_equal(model_info(hf)->architecture, "llama");
    assert_int_equal(model_info(hf)->n_parameters, model_info(demo)->n_parameters);
    assert_true(model_info(hf)->tied);
    convert(demo, "f32.gguf", "F32");
    gguf = model_at(in_folder("f32.gguf"));
    same_logits(hf, gguf, ENGINE_NATIVE, 0);
    same_logits(hf, gguf, ENGINE_OPENBLAS, 0);
    model_free(&gguf);
    model_free(&hf);
    model_free(&demo);
}

static void test_same_text(void **state)
{
    static const char *const texts[] = {
        "Once upon a time, there was a goose.", "  don't  123 4567 caf\xc3\xa9\n\n\t x",
        "<|im_start|>user\nHi<|im_end|>\n", "\xff\xfe\xf0\x9f\x98\x80 mixed"};
    struct chat_request chat = {.messages_json = "[{\"role\":\"user\",\"content\":\"Hi\"}]"};
    struct model *demo = model_tiny(), *hf = model_at(folder);
    struct buffer a = {0}, b = {0};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(texts) * 4; i++) {
        struct token_list x = {0}, y = {0};
        const char *text = texts[i / 4];

        assert_int_equal(model_tokenize(demo, text, strlen(text), i % 4, &x, NULL), STATUS_OK);
        assert_int_equal(model_tokenize(hf, text, strlen(text), i % 4, &y, NULL), STATUS_OK);
        assert_int_equal(x.n, y.n);
        assert_memory_equal(x.ids, y.ids, x.n * sizeof *x.ids);
        token_list_free(&x);
        token_list_free(&y);
    }
    for (uint32_t id = 0; id < model_token_count(demo); id++)
        assert_int_equal(model_token_ends(demo, id), model_token_ends(hf, id));
    assert_int_equal(chat_render(demo, &chat, &a, NULL), STATUS_OK);
    assert_int_equal(chat_render(hf, &chat, &b, NULL), STATUS_OK);
    assert_string_equal((const char *)a.data, (const char *)b.data);
    buffer_free(&a);
    buffer_free(&b);
    model_free(&hf);
    model_free(&demo);
}

static void test_convert(void **state)
{
    static const struct {
        const char *type;
        double limit;
    } cases[] = {{"F16", 1e-5},  {"BF16", 1e-3}, {"q8_0", 1e-3}, {"Q5_1", 1e-1},
                 {"Q5_0", 1e-1}, {"Q4_1", 3e-1}, {"Q4_0", 3e-1}};
    struct model *hf = model_at(folder);
    struct fault fault = {0};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct model *made;

        convert(hf, "from.gguf", cases[i].type);
        made = model_at(in_folder("from.gguf"));
        assert_int_equal(model_runnable(made, ENGINE_OPENBLAS, &fault), STATUS_OK);
        same_logits(made, hf, ENGINE_OPENBLAS, cases[i].limit);
        model_free(&made);
    }
    assert_int_equal(
        model_convert(hf, &(struct model_convert){.path = in_folder("q8.gguf"), .type = "Q9_9"},
                      &fault),
        STATUS_INVALID);
    assert_non_null(strstr(fault.text, "Q8_0"));
    assert_int_not_equal(access(in_folder("q8.gguf"), F_OK), 0);
    model_free(&hf);
}

/* Every recorded folder, converted, against itself: experts, norms, divisors of angles. */
static void test_convert_recorded(void **state)
{
    static const char *const names[] = {"llama",    "llama3-ropefreqs", "mixtral",
                                        "qwen3moe", "gemma3",           "phi3",
                                        "qwen2",    "llama-bias"};
    const char *root = getenv("SKEIN_CONFORMANCE");

    (void)state;
    if (!root || !*root)
        skip();
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct model *hf, *made;
        char path[512];

        snprintf(path, sizeof path, "%s/hf/%s", root, names[i]);
        hf = model_at(path);
        convert(hf, "from.gguf", "F16");
        made = model_at(in_folder("from.gguf"));
        same_logits(made, hf, ENGINE_NATIVE, 0);
        model_free(&made);
        model_free(&hf);
    }
}

/* The folder with one file replaced must not open, and the sentence must say `words`. */
static void refuses(const char *name, const char *text, const char *words)
{
    struct model *model = NULL;
    struct fault fault = {0};
    char kept[600];

    snprintf(kept, sizeof kept, "%s.kept", in_folder(name));
    (void)rename(in_folder(name), kept);
    if (text)
        write_text(name, text);
    assert_int_not_equal(model_open(folder, &model, &fault), STATUS_OK);
    assert_null(model);
    if (!strstr(fault.text, words))
        fail_msg("`%s` does not say `%s`", fault.text, words);
    (void)unlink(in_folder(name));
    (void)rename(kept, in_folder(name));
}

static void test_refusals(void **state)
{
    (void)state;
    refuses("config.json", "{", "config.json is not valid JSON");
    refuses("config.json", "[]", "not a JSON object");
    refuses("config.json", "{}", "architecture");
    refuses("config.json", "{\"architectures\":[\"GooseForCausalLM\"]}", "GooseForCausalLM");
    refuses("config.json", "{\"architectures\":[\"LlamaForCausalLM\"]}", "hidden_size");
    refuses("config.json",
            "{\"architectures\":[\"LlamaForCausalLM\"],\"quantization_config\":{\"quant_method\":"
            "\"awq\"}}",
            "awq");
    refuses("config.json",
            "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":256,\"hidden_act\":\"tan\"}",
            "tan");
    refuses("config.json",
            "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":256,"
            "\"num_hidden_layers\":4000000000}",
            "layers");
    refuses("model.safetensors", NULL, "model.safetensors");
    refuses("model.safetensors", "xx", "ends within its header");
    refuses("tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1}}}", "token");
    refuses("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"../config.json\"}}",
            "no file of the folder");
    refuses("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"/etc/passwd\"}}",
            "no file of the folder");
    refuses("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"model.safetensors\"}}",
            "tensor a is in the index");
    refuses("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"gone.safetensors\"}}",
            "gone.safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_folder_equals_gguf),
        cmocka_unit_test(test_same_text),
        cmocka_unit_test(test_convert),
        cmocka_unit_test(test_convert_recorded),
        cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
