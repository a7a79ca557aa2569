/* What a model is and what it costs, for people and for the planner.
 *
 * Bytes are counted over the tensor table by layer number, so that a model which cannot be run is
 * still described. Of expert tensors, a token reads the share of the experts it uses. Operations
 * are two per weight that is read; attention itself is left out, it depends on the context. */
#include "engine/model/quantize.h"

#include <stdio.h>
#include <string.h>

#include <utf8proc.h>

/* A copy fit for messages and JSON: valid UTF-8 without control characters. */
static char *clean_text(struct gguf_text text)
{
    char *copy = mem_text_n(text.data, text.n_bytes);

    for (size_t i = 0; copy && i < text.n_bytes;) {
        utf8proc_int32_t point;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)copy + i,
                                              (utf8proc_ssize_t)(text.n_bytes - i), &point);

        if (n < 1 || point < 0x20 || point == 0x7f) {
            copy[i] = '?';
            n = 1;
        }
        i += (size_t)n;
    }
    return copy;
}

static uint32_t number(const struct model *model, const char *suffix, uint32_t max)
{
    char key[192];
    uint32_t v = 0;

    snprintf(key, sizeof key, "%s.%s", model->architecture, suffix);
    return gguf_value_u32(gguf_find(model->gguf, key), 0, &v) && v <= max ? v : 0;
}

static void count_tensors(struct model *model, struct model_costs *costs, double *flops)
{
    struct model_info *info = &model->info;
    const struct gguf_tensor *embd = gguf_tensor_find(model->gguf, "token_embd.weight");
    const struct gguf_tensor *head = gguf_tensor_find(model->gguf, "output.weight");

    info->has_tensors = gguf_tensor_count(model->gguf) > 0;
    info->tied = embd && !head;
    info->head_flops = head   ? 2.0 * (double)head->n_values
                       : embd ? 2.0 * (double)embd->n_values
                              : 0;
    costs_count(model, &(struct model_form){0}, costs);
    info->embed_bytes = costs->embed_bytes;
    info->head_bytes = costs->head_bytes;
    info->head_active_bytes = costs->head_active_bytes;
    for (size_t i = 0; i < gguf_tensor_count(model->gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(model->gguf, i);
        int64_t il = tensor_layer(tensor);

        info->n_parameters += tensor->n_values;
        if (il >= 0 && il < info->n_layers && tensor->n_dims > 1)
            flops[il] += 2.0 * (double)tensor->n_values * tensor_active_share(model, tensor);
    }
}

/* "Q4_K 78 %, Q6_K 22 %", the largest share first. */
static void describe_types(struct model *model)
{
    uint64_t bytes[TENSOR_TYPE_LIMIT] = {0};
    uint64_t total = 0;
    size_t len = 0;

    for (size_t i = 0; i < gguf_tensor_count(model->gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(model->gguf, i);

        if (tensor->type < TENSOR_TYPE_LIMIT) {
            bytes[tensor->type] += tensor->n_bytes;
            total += tensor->n_bytes;
        }
    }
    while (total && len < sizeof model->types - 32) {
        uint32_t best = 0;

        for (uint32_t t = 1; t < TENSOR_TYPE_LIMIT; t++)
            best = bytes[t] > bytes[best] ? t : best;
        if (bytes[best] == 0)
            break;
        len += (size_t)snprintf(model->types + len, sizeof model->types - len, "%s%s %.0f %%",
                                len ? ", " : "", tensor_type_info(best)->name,
                                100.0 * (double)bytes[best] / (double)total);
        bytes[best] = 0;
    }
}

static void count_kv(const struct model *model, uint64_t *kv)
{
    const struct model_info *info = &model->info;
    uint64_t head = info->n_heads ? info->n_embd / info->n_heads : 0;

    for (uint32_t il = 0; il < info->n_layers; il++) {
        uint64_t floats = 2 * info->n_kv_heads * head;

        if (model->hparams.layers)
            floats = (uint64_t)layer_key_floats(&model->hparams.layers[il]) +
                     layer_value_floats(&model->hparams.layers[il]);
        kv[il] = floats * sizeof(float);
    }
}

static void fill_numbers(struct model *model)
{
    struct model_info *info = &model->info;
    const struct gguf_value *tokens = gguf_find(model->gguf, "tokenizer.ggml.tokens");

    info->n_layers = model->hparams.layers ? model->hparams.n_layers
                                           : number(model, "block_count", MODEL_MAX_LAYERS);
    info->n_embd = number(model, "embedding_length", MODEL_MAX_EMBD);
    info->n_ctx_train = number(model, "context_length", MODEL_MAX_CONTEXT);
    info->n_heads = number(model, "attention.head_count", MODEL_MAX_HEADS);
    info->n_kv_heads = number(model, "attention.head_count_kv", MODEL_MAX_HEADS);
    info->n_kv_heads = info->n_kv_heads ? info->n_kv_heads : info->n_heads;
    info->n_ff = number(model, "feed_forward_length", MODEL_MAX_FF);
    info->n_experts = model->hparams.layers ? model->hparams.n_experts : 0;
    info->n_experts_used = model->hparams.layers ? model->hparams.n_experts_used : 0;
    info->n_vocab = model->hparams.n_vocab;
    if (!info->n_vocab && tokens && tokens->n <= MODEL_MAX_VOCAB)
        info->n_vocab = (uint32_t)tokens->n;
}

static enum status fill_names(struct model *model, const char *fallback_name)
{
    struct gguf_text text = {fallback_name, strlen(fallback_name)};

    (void)gguf_get_text(model->gguf, "general.name", &text);
    if (text.n_bytes == 0)
        text = (struct gguf_text){fallback_name, strlen(fallback_name)};
    text.n_bytes = text.n_bytes < 256 ? text.n_bytes : 256;
    model->name = clean_text(text);
    text = (struct gguf_text){"", 0};
    (void)gguf_get_text(model->gguf, "general.architecture", &text);
    text.n_bytes = text.n_bytes < 64 ? text.n_bytes : 64;
    model->architecture = clean_text(text);
    return model->name && model->architecture ? STATUS_OK : STATUS_NO_MEMORY;
}

enum status info_fill(struct model *model, const char *fallback_name, uint64_t file_bytes)
{
    struct model_info *info = &model->info;
    uint64_t *bytes;
    uint64_t *active;
    uint64_t *kv;
    double *flops;

    if (fill_names(model, fallback_name))
        return STATUS_NO_MEMORY;
    fill_numbers(model);
    bytes = MEM_NEW_N(uint64_t, info->n_layers);
    active = MEM_NEW_N(uint64_t, info->n_layers);
    kv = MEM_NEW_N(uint64_t, info->n_layers);
    flops = MEM_NEW_N(double, info->n_layers);
    info->layer_bytes = bytes;
    info->layer_active_bytes = active;
    info->layer_kv_bytes = kv;
    info->layer_flops = flops;
    if (!bytes || !active || !kv || !flops)
        return STATUS_NO_MEMORY;
    count_tensors(model, &(struct model_costs){.layer_bytes = bytes, .layer_active_bytes = active},
                  flops);
    count_kv(model, kv);
    describe_types(model);
    info->row_floats = info->n_embd + model->hparams.n_extra;
    info->rewinds = true;
    for (uint32_t il = 0; il < model->hparams.n_layers; il++)
        info->rewinds = info->rewinds && model->hparams.layers[il].state_floats == 0;
    info->name = model->name;
    info->architecture = model->architecture;
    info->types = model->types;
    info->file_bytes = file_bytes;
    return STATUS_OK;
}

void info_free(struct model *model)
{
    mem_free((void *)(uintptr_t)model->info.layer_bytes);
    mem_free((void *)(uintptr_t)model->info.layer_active_bytes);
    mem_free((void *)(uintptr_t)model->info.layer_kv_bytes);
    mem_free((void *)(uintptr_t)model->info.layer_flops);
    mem_free(model->name);
    mem_free(model->architecture);
}
