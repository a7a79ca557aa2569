/* A Hugging Face folder as one GGUF.
 *
 * The engine reads GGUF: metadata under known keys, and a table of tensors under known names. A
 * folder holds the same things in other words. So opening one means writing a GGUF header in memory
 * (config.c, rope.c, tokenizer.c, tensors.c) whose tensors are described by sources that point into
 * the mapped .safetensors files (engine/file/source.h). Everything behind model_open then knows one
 * kind of file, and all its checks hold for folders too.
 *
 * Happy path: config.json → architecture → the files named by the index, or model.safetensors → one
 * sorted list of tensors → header → gguf_parse_header. What fails: a file that is missing or
 * damaged, names that lead out of the folder, an architecture or a setting that is not known. Files
 * are untrusted: sizes are bounded before they are read, and links are followed, since the caches
 * of other programs consist of them. */
#include "engine/hf/inner.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static enum status no_memory(struct fault *fault)
{
    return fault_set(fault, STATUS_NO_MEMORY, "out of memory");
}

/* ---------------------------------------------------------------- files */

static char *path_join(const char *folder, const char *name)
{
    struct buffer path = {0};

    if (buffer_printf(&path, "%s/%s", folder, name)) {
        buffer_free(&path);
        return NULL;
    }
    return (char *)path.data;
}

static bool file_is_there(const char *folder, const char *name)
{
    char *path = path_join(folder, name);
    struct stat st;
    bool there = path && stat(path, &st) == 0;

    mem_free(path);
    return there;
}

bool model_is_folder(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode) && file_is_there(path, "config.json");
}

enum status hf_read_text(const char *folder, const char *name, size_t max_bytes, bool optional,
                         struct buffer *out, struct fault *fault)
{
    char *path = path_join(folder, name);
    struct file_map map = {0};
    enum status status;

    if (!path)
        return no_memory(fault);
    if (optional && !file_is_there(folder, name)) {
        mem_free(path);
        return STATUS_OK;
    }
    status = file_map_open(path, &map, fault);
    mem_free(path);
    if (status)
        return status;
    if (map.size_bytes > max_bytes)
        status = fault_set(fault, STATUS_LIMIT, "%s has %zu bytes, more than %zu", name,
                           map.size_bytes, max_bytes);
    else if (buffer_put(out, map.data, map.size_bytes))
        status = no_memory(fault);
    file_map_close(&map);
    return status;
}

enum status hf_read_json(const char *folder, const char *name, size_t max_bytes, bool optional,
                         json_t **out, struct fault *fault)
{
    struct buffer text = {0};
    json_error_t error;
    enum status status = hf_read_text(folder, name, max_bytes, optional, &text, fault);

    *out = NULL;
    if (!status && text.data) {
        *out = json_loadb((const char *)text.data, text.len, JSON_ALLOW_NUL, &error);
        if (!*out)
            status = fault_set(fault, STATUS_FORMAT, "%s is not valid JSON: line %d: %.160s", name,
                               error.line, error.text);
        else if (!json_is_object(*out))
            status = fault_set(fault, STATUS_FORMAT, "%s is not a JSON object", name);
    }
    buffer_free(&text);
    if (status) {
        json_decref(*out);
        *out = NULL;
    }
    return status;
}

/* A file name of the folder itself: no way out of it. */
static bool name_is_proper(const char *name)
{
    size_t n = strlen(name);

    return n > 0 && n < 256 && name[0] != '.' && !strchr(name, '/');
}

/* ---------------------------------------------------------------- tensors of all files */

static enum status map_file(struct hf *hf, const char *folder, const char *name,
                            struct fault *fault)
{
    struct hf_file *file = &hf->files[hf->n_files];
    char *path = path_join(folder, name);
    enum status status = path ? file_map_open(path, &file->map, fault) : no_memory(fault);

    mem_free(path);
    if (status)
        return status;
    hf->n_files++;
    status = safetensors_parse(file->map.data, file->map.size_bytes, &file->tensors, fault);
    return status ? fault_prefix(fault, "%.100s", name) : STATUS_OK;
}

static int by_name(const void *a, const void *b)
{
    const struct safetensor *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static enum status sort_tensors(struct hf *hf, struct fault *fault)
{
    size_t n = 0, at = 0;

    for (size_t i = 0; i < hf->n_files; i++)
        n += safetensors_count(hf->files[i].tensors);
    if (n > HF_MAX_TENSORS)
        return fault_set(fault, STATUS_LIMIT, "%zu tensors, more than %d", n, HF_MAX_TENSORS);
    hf->tensors = MEM_NEW_N(const struct safetensor *, n);
    if (!hf->tensors)
        return no_memory(fault);
    hf->n_tensors = n;
    for (size_t i = 0; i < hf->n_files; i++) {
        for (size_t k = 0; k < safetensors_count(hf->files[i].tensors); k++)
            hf->tensors[at++] = safetensors_at(hf->files[i].tensors, k);
    }
    if (n)
        qsort(hf->tensors, n, sizeof(void *), by_name);
    for (size_t i = 1; i < n; i++) {
        if (strcmp(hf->tensors[i - 1]->name, hf->tensors[i]->name) == 0)
            return fault_set(fault, STATUS_FORMAT, "tensor %.100s is in two files",
                             hf->tensors[i]->name);
    }
    return STATUS_OK;
}

/* The index's files, each once, in the order of their names. */
static enum status index_names(const json_t *index, json_t *names, struct fault *fault)
{
    json_t *map = json_object_get(index, "weight_map"), *value;
    const char *tensor;

    if (!json_is_object(map) || json_object_size(map) == 0)
        return fault_set(fault, STATUS_FORMAT, "model.safetensors.index.json has no weight_map");
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);

        if (!name || !name_is_proper(name))
            return fault_set(fault, STATUS_FORMAT,
                             "model.safetensors.index.json names `%.60s`, which is no file of the "
                             "folder",
                             name ? name : "(not a text)");
        if (json_object_set_new(names, name, json_true()))
            return no_memory(fault);
    }
    if (json_object_size(names) > HF_MAX_FILES)
        return fault_set(fault, STATUS_LIMIT, "the index names more than %d files", HF_MAX_FILES);
    return STATUS_OK;
}

const struct safetensor *hf_tensor_find(const struct hf *hf, const char *name)
{
    struct safetensor wanted = {.name = name};
    const struct safetensor *key = &wanted, *const * found;

    found =
        hf->n_tensors ? bsearch(&key, hf->tensors, hf->n_tensors, sizeof(void *), by_name) : NULL;
    return found ? *found : NULL;
}

/* What the index says is there must be there: a shard that was left out is found by its tensors. */
static enum status index_check(const struct hf *hf, const json_t *index, struct fault *fault)
{
    const char *tensor;
    json_t *value;

    json_object_foreach(json_object_get(index, "weight_map"), tensor, value)
    {
        if (!hf_tensor_find(hf, tensor))
            return fault_set(fault, STATUS_FORMAT,
                             "tensor %.100s is in the index, but not in %.100s", tensor,
                             json_string_value(value));
    }
    return STATUS_OK;
}

static enum status map_files(struct hf *hf, const char *folder, struct fault *fault)
{
    json_t *index = NULL, *names = json_object(), *value;
    const char *name;
    enum status status = names ? STATUS_OK : no_memory(fault);

    if (!status)
        status = hf_read_json(folder, "model.safetensors.index.json", HF_MAX_INDEX_BYTES, true,
                              &index, fault);
    if (!status && index)
        status = index_names(index, names, fault);
    else if (!status && json_object_set_new(names, "model.safetensors", json_true()))
        status = no_memory(fault);
    if (!status) {
        hf->files = MEM_NEW_N(struct hf_file, json_object_size(names));
        status = hf->files ? STATUS_OK : no_memory(fault);
    }
    json_object_foreach(names, name, value)
    {
        if (!status)
            status = map_file(hf, folder, name, fault);
    }
    if (!status)
        status = sort_tensors(hf, fault);
    if (!status && index)
        status = index_check(hf, index, fault);
    json_decref(index);
    json_decref(names);
    return status;
}

/* ---------------------------------------------------------------- the whole */

void hf_fail(struct hf_build *build, enum status status, const char *format, ...)
{
    struct fault *fault = build->fault;
    va_list args;

    if (build->status)
        return;
    build->status = status;
    fault->status = status;
    va_start(args, format);
    (void)vsnprintf(fault->text, sizeof fault->text, format, args);
    va_end(args);
}

static void add_defaults(struct hf_build *build)
{
    json_t *defaults = json_loads(build->row->defaults, 0, NULL);

    if (!defaults || json_object_update_missing(build->config, defaults))
        hf_fail(build, STATUS_NO_MEMORY, "out of memory");
    json_decref(defaults);
}

static void choose_arch(struct hf_build *build)
{
    const json_t *list = json_object_get(build->root, "architectures");
    const char *name = json_string_value(json_array_get(list, 0));
    json_t *text = json_object_get(build->root, "text_config");
    const char *type = json_string_value(json_object_get(build->root, "model_type"));
    char names[sizeof build->fault->text - 130];

    build->row = name ? hf_arch_find(name) : NULL;
    build->config = build->root;
    if (!name)
        hf_fail(build, STATUS_FORMAT, "config.json does not name an architecture");
    else if (!build->row)
        hf_fail(build, STATUS_UNSUPPORTED,
                "model type `%.30s` (%.40s) is not supported; skein runs %s", type ? type : "",
                name, hf_arch_names(names, sizeof names));
    else if ((build->row->flags & HF_TEXT_CONFIG) && json_is_object(text))
        build->config = text;
    if (build->row && build->row->defaults)
        add_defaults(build);
}

static void write_header(struct hf_build *build)
{
    void (*const parts[])(struct hf_build *) = {hf_write_config, hf_write_rope, hf_write_tokenizer,
                                                hf_write_tensors};

    for (size_t i = 0; i < COUNT_OF(parts) && !build->status; i++)
        parts[i](build);
    if (!build->status && gguf_write_finish(&build->writer, &build->hf->header))
        hf_fail(build, STATUS_NO_MEMORY, "out of memory");
}

static uint64_t files_bytes(const struct hf *hf)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < hf->n_files; i++)
        bytes += hf->files[i].map.size_bytes;
    return bytes;
}

enum status hf_open(const char *folder, struct hf **out, struct gguf **gguf, uint64_t *size_bytes,
                    struct fault *fault)
{
    struct fault spare = {0};
    struct hf_build build = {.folder = folder, .fault = fault ? fault : &spare};
    struct hf *hf = MEM_NEW(struct hf);
    enum status status;

    *out = NULL;
    *gguf = NULL;
    if (!hf)
        return no_memory(fault);
    build.hf = hf;
    status =
        hf_read_json(folder, "config.json", HF_MAX_CONFIG_BYTES, false, &build.root, build.fault);
    if (!status) {
        choose_arch(&build);
        status = build.status;
    }
    if (!status)
        status = map_files(hf, folder, build.fault);
    if (!status) {
        write_header(&build);
        status = build.status;
    }
    if (!status)
        status = gguf_parse_header(hf->header.data, hf->header.len, hf->sources, gguf, build.fault);
    gguf_write_free(&build.writer);
    json_decref(build.root);
    if (status) {
        hf_free(&hf);
        return status;
    }
    *size_bytes = files_bytes(hf);
    *out = hf;
    return STATUS_OK;
}

void hf_free(struct hf **hf_in)
{
    struct hf *hf = *hf_in;

    if (!hf)
        return;
    for (size_t i = 0; i < hf->n_files; i++) {
        safetensors_free(&hf->files[i].tensors);
        file_map_close(&hf->files[i].map);
    }
    for (size_t i = 0; i < hf->n_vectors; i++)
        mem_free(hf->vectors[i]);
    mem_free(hf->vectors);
    mem_free(hf->files);
    mem_free(hf->tensors);
    mem_free(hf->sources);
    mem_free(hf->pieces);
    buffer_free(&hf->header);
    mem_free(hf);
    *hf_in = NULL;
}

size_t hf_map_count(const struct hf *hf)
{
    return hf->n_files;
}

const struct file_map *hf_map_at(const struct hf *hf, size_t i)
{
    return &hf->files[i].map;
}
