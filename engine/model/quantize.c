/* Turning matrices into a smaller type.
 *
 * A file can be written in another type (model_convert), or a shard can turn its tensors as it
 * loads them (shard_spec.form); both ask here, so a model loaded with a type computes bit for bit
 * what its converted file does. Matrices are turned; small tables that decide much (norms, routers,
 * positions, convolutions) stay, as other programs leave them and expect. Rows that are no whole
 * blocks get the next type whose blocks fit. Nothing ever grows, since that would add bytes and no
 * information: a tensor that has as few bytes already keeps its type. There are two exceptions:
 * F32, by which a user asks for plain numbers, and BF16_DOT, which F16 and BF16 become in as many
 * bytes for the sake of its products.
 *
 * Nothing here fails. */
#include "engine/model/quantize.h"
#include "engine/file/source.h"

#include <stdio.h>
#include <string.h>

static bool name_has(const struct gguf_tensor *tensor, const char *part)
{
    return memmem(tensor->name.data, tensor->name.n_bytes, part, strlen(part)) != NULL;
}

static bool is_converted(const struct gguf_tensor *tensor)
{
    static const char *const kept[] = {"norm",  "ffn_gate_inp", "position_embd", "conv", "ssm_conv",
                                       "rope_", "sinks",        ".bias",         "ssm_a"};

    for (size_t i = 0; i < COUNT_OF(kept); i++) {
        if (name_has(tensor, kept[i]))
            return false;
    }
    return tensor->dims[1] > 1 || tensor->dims[2] > 1;
}

/* For rows that are no whole blocks of the type: about as many bits in shorter blocks. */
static enum tensor_type shorter_blocks(enum tensor_type type)
{
    switch (type) {
    case TENSOR_Q4_K:
        return TENSOR_Q5_0;
    case TENSOR_Q5_K:
        return TENSOR_Q5_1;
    case TENSOR_Q6_K:
        return TENSOR_Q8_0;
    default:
        return TENSOR_F16;
    }
}

uint64_t type_bytes(enum tensor_type type, uint64_t n_values)
{
    const struct tensor_type_info *info = tensor_type_info((uint32_t)type);

    return n_values / info->block_values * info->block_bytes;
}

enum tensor_type quantized_type(const struct gguf_tensor *tensor, enum tensor_type type)
{
    enum tensor_type own = (enum tensor_type)tensor->type;

    if (!is_converted(tensor) || !tensor_type_info(tensor->type)->runnable)
        return own;
    while (tensor->dims[0] % tensor_type_info((uint32_t)type)->block_values)
        type = shorter_blocks(type);
    if (type == TENSOR_BF16_DOT && (own == TENSOR_F16 || own == TENSOR_BF16))
        return type;
    return type == TENSOR_F32 || type_bytes(type, tensor->n_values) < tensor->n_bytes ? type : own;
}

enum tensor_type form_type(const struct gguf_tensor *tensor, const struct model_form *form)
{
    return form->quantize ? quantized_type(tensor, (enum tensor_type)form->quantize)
                          : (enum tensor_type)tensor->type;
}

uint64_t form_bytes(const struct gguf_tensor *tensor, const struct model_form *form)
{
    enum tensor_type type = form_type(tensor, form);

    return (uint32_t)type == tensor->type ? tensor->n_bytes : type_bytes(type, tensor->n_values);
}

/* Small tables are copied all the same: they are decoded at load, or not worth the difference. */
bool form_maps(const struct gguf_tensor *tensor, const struct model_form *form)
{
    return form->mapped && is_converted(tensor) && tensor_matrix_bytes(tensor, 0) &&
           (uint32_t)form_type(tensor, form) == tensor->type;
}

/* ---------------------------------------------------------------- costs */

static uint64_t own_bytes(const struct gguf_tensor *tensor, const struct model_form *form)
{
    return form_maps(tensor, form) ? 0 : form_bytes(tensor, form);
}

double tensor_active_share(const struct model *model, const struct gguf_tensor *tensor)
{
    char key[192];
    uint32_t n = 0, used = 0;

    (void)snprintf(key, sizeof key, "%s.expert_count", model->architecture);
    (void)gguf_value_u32(gguf_find(model->gguf, key), 0, &n);
    (void)snprintf(key, sizeof key, "%s.expert_used_count", model->architecture);
    (void)gguf_value_u32(gguf_find(model->gguf, key), 0, &used);
    return n && n <= MODEL_MAX_EXPERTS && used && used <= n && name_has(tensor, "_exps.")
               ? (double)used / n
               : 1.0;
}

void costs_count(const struct model *model, const struct model_form *form, struct model_costs *out)
{
    const struct gguf_tensor *head = gguf_tensor_find(model->gguf, "output.weight");
    const struct gguf_tensor *embd = gguf_tensor_find(model->gguf, "token_embd.weight");

    out->head_bytes = head ? own_bytes(head, form) : 0;
    out->head_active_bytes = head ? form_bytes(head, form) : embd ? form_bytes(embd, form) : 0;
    for (size_t i = 0; i < gguf_tensor_count(model->gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(model->gguf, i);
        uint64_t bytes = form_bytes(tensor, form);
        int64_t il = tensor_layer(tensor);

        if (il >= 0 && il < model->info.n_layers) {
            out->layer_bytes[il] += own_bytes(tensor, form);
            out->layer_active_bytes[il] +=
                (uint64_t)((double)bytes * tensor_active_share(model, tensor));
        } else if (il < 0 && tensor != head) {
            out->embed_bytes += own_bytes(tensor, form);
        }
    }
}

const char *quantized_names(bool in_file, char *out, size_t out_size)
{
    size_t len = 0;

    out[0] = '\0';
    for (uint32_t t = 0; t < TENSOR_TYPE_LIMIT; t++) {
        if (t == (uint32_t)(in_file ? TENSOR_BF16_DOT : TENSOR_F32))
            continue;
        if (tensor_encodes((enum tensor_type)t) && len < out_size)
            len += (size_t)snprintf(out + len, out_size - len, "%s%s", len ? ", " : "",
                                    tensor_type_info(t)->name);
    }
    return out;
}
