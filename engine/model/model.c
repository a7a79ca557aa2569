/* Opening a model.
 *
 * Map, parse, take the vocabulary, find the architecture's row, read the numbers, bind the tensors.
 * Damage to the file itself fails here. What the file asks for and skein cannot do (an
 * architecture, a kind of scaling, a tensor that is missing) is kept as a sentence in `why_not`:
 * such a model can be listed and its vocabulary used, and model_runnable gives the sentence before
 * any work starts. */
#include "engine/model/model.h"

#include <stdio.h>
#include <string.h>

static enum status no_memory(struct fault *fault)
{
    return fault_set(fault, STATUS_NO_MEMORY, "out of memory");
}

/* Architecture, numbers and tensors, or why not. Fails only for want of memory. */
static enum status model_bind(struct model *model, struct fault *fault)
{
    struct gguf_text name = {0};
    char names[sizeof model->why_not.text - 80];
    enum status status;

    if (!gguf_get_text(model->gguf, "general.architecture", &name)) {
        fault_set(&model->why_not, STATUS_FORMAT, "general.architecture is missing");
        return STATUS_OK;
    }
    model->arch = arch_find(name);
    if (!model->arch) {
        fault_set(&model->why_not, STATUS_UNSUPPORTED,
                  "architecture `%.*s` is not supported; skein runs %s",
                  (int)(name.n_bytes < 64 ? name.n_bytes : 64), name.data,
                  arch_names(names, sizeof names));
        return STATUS_OK;
    }
    if (gguf_tensor_count(model->gguf) == 0) {
        fault_set(&model->why_not, STATUS_UNSUPPORTED,
                  "the file holds a vocabulary but no tensors");
        return STATUS_OK;
    }
    status = hparams_read(model->gguf, model->arch, &model->hparams, &model->why_not);
    if (!status)
        status = tensors_bind(model->gguf, model->arch, &model->hparams, &model->tensors,
                              &model->why_not);
    return status == STATUS_NO_MEMORY ? no_memory(fault) : STATUS_OK;
}

/* Takes over `model`, whose gguf is there: on failure it is freed. */
static enum status model_load(struct model *model, uint64_t size_bytes, const char *name,
                              struct model **out, struct fault *fault)
{
    enum status status = experts_gather(&model->gguf, &model->experts, fault);

    if (!status)
        status = text_new(model->gguf, &model->text, fault);

    if (!status && text_breakers(model->text, &model->dry_breakers, &model->n_dry_breakers))
        status = no_memory(fault);
    sampling_read(model->gguf, &model->sampling, &model->sampling_settings);
    if (!status)
        status = model_bind(model, fault);
    if (!status && info_fill(model, name, size_bytes))
        status = no_memory(fault);
    if (status) {
        model_free(&model);
        return status;
    }
    *out = model;
    return STATUS_OK;
}

/* The last part of a path, without slashes at its end; out holds 256 characters. */
static const char *path_name(const char *path, char out[static 256])
{
    size_t end = model_part_stem(path), begin;

    while (end > 1 && path[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && path[begin - 1] != '/'; begin--)
        ;
    (void)snprintf(out, 256, "%.*s", (int)(end - begin < 255 ? end - begin : 255), path + begin);
    return out;
}

enum status model_open(const char *path, struct model **out, struct fault *fault)
{
    char name[256];
    struct model *model;
    uint64_t size_bytes = 0;
    enum status status;

    *out = NULL;
    model = MEM_NEW(struct model);
    if (!model)
        return no_memory(fault);
    if (model_is_folder(path)) {
        status = hf_open(path, &model->hf, &model->gguf, &size_bytes, fault);
    } else {
        status = split_open(path, &model->maps, &model->n_maps, &model->gguf, fault);
        if (status) {
            model_free(&model);
            return status;
        }
        for (uint32_t i = 0; i < model->n_maps; i++)
            size_bytes += model->maps[i].size_bytes;
    }
    if (status)
        model_free(&model);
    else
        status = model_load(model, size_bytes, path_name(path, name), out, fault);
    if (status && fault && status != STATUS_NO_MEMORY)
        fault_prefix(fault, "%s", path);
    return status;
}

enum status model_open_memory(const void *data, size_t size_bytes, const char *name,
                              struct model **out, struct fault *fault)
{
    struct model *model;
    enum status status;

    *out = NULL;
    model = MEM_NEW(struct model);
    if (!model)
        return no_memory(fault);
    status = split_parse(&(struct bytes_view){data, size_bytes}, 1, &model->gguf, fault);
    if (status) {
        model_free(&model);
        return status;
    }
    return model_load(model, size_bytes, name, out, fault);
}

static const struct file_map *map_having(const struct file_map *map, const void *data,
                                         size_t *offset)
{
    uintptr_t at = (uintptr_t)data, begin = (uintptr_t)map->data;

    if (!map->data || at < begin || at - begin >= map->size_bytes)
        return NULL;
    *offset = at - begin;
    return map;
}

const struct file_map *model_map_of(const struct model *model, const void *data, size_t *offset)
{
    const struct file_map *found = NULL;
    size_t n = model->hf ? hf_map_count(model->hf) : 0;

    for (uint32_t i = 0; !found && i < model->n_maps; i++)
        found = map_having(&model->maps[i], data, offset);
    for (size_t i = 0; !found && i < n; i++)
        found = map_having(hf_map_at(model->hf, i), data, offset);
    return found;
}

void model_free(struct model **model)
{
    struct model *m = *model;

    if (!m)
        return;
    info_free(m);
    mem_free(m->dry_breakers);
    tensors_free(&m->tensors);
    hparams_free(&m->hparams);
    text_free(&m->text);
    gguf_free(&m->gguf);
    experts_free(&m->experts);
    hf_free(&m->hf);
    split_close(&m->maps, &m->n_maps);
    mem_free(m);
    *model = NULL;
}

const struct model_info *model_info(const struct model *model)
{
    return &model->info;
}

const struct text *model_text(const struct model *model)
{
    return model->text;
}

static enum status types_runnable(const struct model *model, enum engine_kind kind,
                                  struct fault *fault)
{
    for (size_t i = 0; i < gguf_tensor_count(model->gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(model->gguf, i);
        const struct tensor_type_info *type = tensor_type_info(tensor->type);

        if (type->runnable || tensor_layer(tensor) >= model->hparams.n_layers)
            continue;
        if (!type->name)
            return fault_set(fault, STATUS_UNSUPPORTED,
                             "tensor %.*s has type number %u, which skein does not know",
                             (int)tensor->name.n_bytes, tensor->name.data, tensor->type);
        return fault_set(
            fault, STATUS_UNSUPPORTED, "tensor %.*s has type %s, which the %s engine cannot run",
            (int)tensor->name.n_bytes, tensor->name.data, type->name, engine_name(kind));
    }
    return STATUS_OK;
}

enum status model_computable(const struct model *model, enum engine_kind kind, struct fault *fault)
{
    if (model->why_not.status)
        return fault_set(fault, model->why_not.status, "%s", model->why_not.text);
    return types_runnable(model, kind, fault);
}

enum status model_runnable(const struct model *model, enum engine_kind kind, struct fault *fault)
{
    enum status status = model_computable(model, kind, fault);

    return status ? status : text_runnable(model->text, fault);
}
