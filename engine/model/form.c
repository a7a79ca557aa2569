/* The form in which an instance holds a model, and what the model costs in it.
 *
 * Users name a form in words; everything else works with the numbers. Weights are
 * counted tensor by tensor as they will be held. */
#include "engine/model/quantize.h"

#include <string.h>
#include <strings.h>

static const char *const kv_types[KV_TYPE_COUNT] = {
    [KV_F32] = "f32",
    [KV_F16] = "f16",
    [KV_Q8_0] = "q8_0",
};

const char *kv_type_name(enum kv_type type)
{
    return kv_types[type];
}

const char *weight_type_name(uint32_t quantize)
{
    return quantize ? tensor_type_info(quantize)->name : NULL;
}

static enum status parse_kv(const char *name, enum kv_type *out, struct fault *fault)
{
    for (uint32_t i = 0; i < KV_TYPE_COUNT; i++) {
        if (strcasecmp(name, kv_types[i]) == 0) {
            *out = (enum kv_type)i;
            return STATUS_OK;
        }
    }
    return fault_set(fault, STATUS_INVALID,
                     "no type of keys and values is called '%s'; there are "
                     "f32, f16 and q8_0",
                     name);
}

enum status model_form_parse(const char *kv, const char *quantize, struct model_form *out,
                             struct fault *fault)
{
    enum tensor_type type;
    enum status status = STATUS_OK;
    char names[160];

    *out = (struct model_form){0};
    if (kv && *kv)
        status = parse_kv(kv, &out->kv_type, fault);
    if (status || !quantize || !*quantize)
        return status;
    if (!tensor_type_parse(quantize, &type) || type == TENSOR_F32)
        return fault_set(fault, STATUS_INVALID,
                         "no weights can be turned into '%.20s'; skein can make %s", quantize,
                         quantized_names(false, names, sizeof names));
    out->quantize = (uint32_t)type;
    return STATUS_OK;
}

static uint64_t *copied(const uint64_t *from, uint32_t n)
{
    uint64_t *to = MEM_NEW_N(uint64_t, n);

    if (to)
        memcpy(to, from, n * sizeof *from);
    return to;
}

enum status model_costs(const struct model *model, const struct model_form *form,
                        struct model_costs *out)
{
    const struct model_info *info = &model->info;

    *out = (struct model_costs){
        .layer_bytes = MEM_NEW_N(uint64_t, info->n_layers),
        .layer_active_bytes = MEM_NEW_N(uint64_t, info->n_layers),
        .layer_kv_bytes = copied(info->layer_kv_bytes, info->n_layers),
    };
    if (!out->layer_bytes || !out->layer_active_bytes || !out->layer_kv_bytes) {
        model_costs_free(out);
        return STATUS_NO_MEMORY;
    }
    costs_count(model, form, out);
    for (uint32_t il = 0; model->hparams.layers && il < info->n_layers; il++)
        out->layer_kv_bytes[il] = layer_kv_bytes(&model->hparams.layers[il], form->kv_type);
    return STATUS_OK;
}

void model_costs_free(struct model_costs *costs)
{
    mem_free(costs->layer_bytes);
    mem_free(costs->layer_active_bytes);
    mem_free(costs->layer_kv_bytes);
    *costs = (struct model_costs){0};
}
