/* Links: skein_engine PkgConfig::JANSSON.
 *
 * Any texts as the JSON files of a Hugging Face folder beside a small weights file. The input is
 * config.json, tokenizer.json, tokenizer_config.json and generation_config.json with a zero byte
 * between each. The folder lies in memory-backed storage where there is some. What opens is asked
 * for its numbers and to tokenize.
 *
 * Memory: at most 64 MiB. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_FILES = 4, TENSOR_VALUES = 64 };

static char folder[64];

static void write_file(const char *name, const void *data, size_t size)
{
    char path[128];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    file = fopen(path, "wb");
    if (!file)
        abort();
    if (size && fwrite(data, 1, size, file) != size)
        abort();
    fclose(file);
}

static void drop_folder(void)
{
    static const char *const names[] = {"config.json", "tokenizer.json", "tokenizer_config.json",
                                        "generation_config.json", "model.safetensors"};
    char path[128];

    for (size_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

/* A few tensors of 8 x 8, so that small models bind. */
static void make_folder(void)
{
    static const char *const names[] = {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.self_attn.v_proj.weight",
        "model.layers.0.self_attn.o_proj.weight",
        "model.layers.0.mlp.gate_proj.weight",
        "model.layers.0.mlp.up_proj.weight",
        "model.layers.0.mlp.down_proj.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.post_attention_layernorm.weight",
    };
    struct buffer file = {0};
    char header[4096] = "{";
    size_t at = 1;
    uint64_t n;

    snprintf(folder, sizeof folder, "%s/fuzz-hf-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(folder))
        abort();
    atexit(drop_folder);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        int vector = strstr(names[i], "norm") != NULL;

        at += (size_t)snprintf(header + at, sizeof header - at,
                               "%s\"%s\":{\"dtype\":\"F16\",\"shape\":[8%s],"
                               "\"data_offsets\":[0,%d]}",
                               i ? "," : "", names[i], vector ? "" : ",8", vector ? 16 : 128);
    }
    header[at++] = '}';
    n = at;
    if (buffer_put(&file, &n, 8) || buffer_put(&file, header, at) ||
        buffer_put(&file, header, 2 * TENSOR_VALUES))
        abort();
    write_file("model.safetensors", file.data, file.len);
    buffer_free(&file);
}

static void ask(const struct model *model)
{
    const struct model_info *info = model_info(model);
    struct token_list ids = {0};
    struct fault fault = {0};
    uint64_t bytes = 0;

    for (uint32_t il = 0; il < info->n_layers; il++)
        bytes += info->layer_bytes[il];
    if (model_runnable(model, ENGINE_NATIVE, &fault) == STATUS_OK && bytes == 0)
        abort();
    if (model_tokenize(model, "a <0x41>\xe2\x96\x81 b1", 15, TOKENS_ADD_SPECIAL, &ids, &fault) ==
        STATUS_OK) {
        for (size_t i = 0; i < ids.n; i++) {
            if (ids.ids[i] >= model_token_count(model))
                abort();
        }
    }
    token_list_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[N_FILES] = {"config.json", "tokenizer.json",
                                               "tokenizer_config.json", "generation_config.json"};
    struct model *model = NULL;
    struct fault fault = {0};

    if (!folder[0])
        make_folder();
    for (int i = 0; i < N_FILES; i++) {
        const uint8_t *end = size ? memchr(data, 0, size) : NULL;
        size_t n = end && i + 1 < N_FILES ? (size_t)(end - data) : size;

        write_file(names[i], data, n);
        data += n + (n < size);
        size -= n + (n < size);
    }
    if (model_open(folder, &model, &fault) == STATUS_OK)
        ask(model);
    else if (model || !fault.text[0])
        abort();
    model_free(&model);
    return 0;
}
