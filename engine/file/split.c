/* Models split over several GGUF files.
 *
 * Programs that publish models cut them into files of some gigabytes, whole tensors each. The name
 * says which part a file is (NAME-00002-of-00005.gguf), and so do keys inside: split.no counts from
 * 0, split.count, and split.tensors.count over all parts. The first part has the metadata; the
 * others have nothing but those keys and tensors. Any part's path stands for the whole model, and
 * what comes out is one GGUF whose tensors lie in several mappings: nothing behind model_open sees
 * a difference.
 *
 * The name decides where to look, the keys must agree. What fails: a part that is not there, is
 * damaged or belongs to another model, a part under a name from which the others cannot be found,
 * and a count of tensors that is not what the parts have. Source: the naming and the keys of
 * llama.cpp's gguf-split. */
#include "engine/file/split.h"

#include <stdio.h>
#include <string.h>

enum { NAME_END = sizeof "-00001-of-00001.gguf" - 1 };

static bool read_digits(const char *text, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < 5; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        *out = *out * 10 + (uint32_t)(text[i] - '0');
    }
    return true;
}

uint32_t model_part_count(const char *path, uint32_t *number)
{
    size_t n = strlen(path), end = NAME_END;
    const char *at = path + n - end;
    uint32_t count;

    *number = 1;
    if (n <= end || at[-1] == '/' || at[0] != '-' || memcmp(at + 6, "-of-", 4) != 0 ||
        strcmp(at + 15, ".gguf") != 0)
        return 1;
    if (!read_digits(at + 1, number) || !read_digits(at + 10, &count) || count < 2 || *number < 1 ||
        *number > count) {
        *number = 1;
        return 1;
    }
    return count;
}

size_t model_part_stem(const char *path)
{
    uint32_t number;
    size_t n = strlen(path);

    return model_part_count(path, &number) > 1 ? n - NAME_END : n;
}

char *model_part_path(const char *path, uint32_t number)
{
    char *copy = mem_text(path);
    size_t digits = model_part_stem(path) + 1;
    uint32_t own;

    if (!copy || model_part_count(path, &own) < 2)
        return copy;
    for (size_t i = 5; i-- > 0; number /= 10)
        copy[digits + i] = (char)('0' + number % 10);
    return copy;
}

/* ---------------------------------------------------------------- what the parts say */

static enum status check_part(const struct gguf *gguf, uint32_t i, uint32_t n_parts,
                              struct fault *fault)
{
    uint32_t number = 0, count = 1;

    (void)gguf_get_u32(gguf, "split.no", &number);
    (void)gguf_get_u32(gguf, "split.count", &count);
    if (count == n_parts && number == i)
        return STATUS_OK;
    if (n_parts == 1)
        return count < 2 ? STATUS_OK
                         : fault_set(fault, STATUS_FORMAT,
                                     "it is part %llu of a model split over %u files, but is not "
                                     "called NAME-%05llu-of-%05u.gguf, so the others cannot be "
                                     "found",
                                     (unsigned long long)number + 1, count,
                                     (unsigned long long)number + 1, count);
    return fault_set(fault, STATUS_FORMAT,
                     "by its name it is part %u of %u, but it says that it is part %llu of %u: the "
                     "files do not belong together",
                     i + 1, n_parts, (unsigned long long)number + 1, count);
}

static enum status check_total(const struct gguf *gguf, uint32_t n_parts, struct fault *fault)
{
    uint32_t wanted = 0;

    if (n_parts == 1)
        return STATUS_OK;
    if (!gguf_get_u32(gguf, "split.tensors.count", &wanted))
        return fault_set(fault, STATUS_FORMAT, "split.tensors.count is missing");
    if (wanted != gguf_tensor_count(gguf))
        return fault_set(fault, STATUS_FORMAT, "the %u parts have %zu tensors instead of %u",
                         n_parts, gguf_tensor_count(gguf), wanted);
    return STATUS_OK;
}

static enum status parse_part(const struct bytes_view *part, uint32_t i, uint32_t n_parts,
                              struct gguf **out, struct fault *fault)
{
    enum status status = gguf_parse(part->data, part->size_bytes, out, fault);

    if (!status)
        status = check_part(*out, i, n_parts, fault);
    if (status && n_parts > 1)
        (void)fault_prefix(fault, "part %u of %u", i + 1, n_parts);
    return status;
}

enum status split_parse(const struct bytes_view *parts, uint32_t n_parts, struct gguf **out,
                        struct fault *fault)
{
    struct gguf **list = MEM_NEW_N(struct gguf *, n_parts);
    enum status status =
        list ? STATUS_OK : fault_set(fault, STATUS_NO_MEMORY, "no memory for %u parts", n_parts);

    *out = NULL;
    for (uint32_t i = 0; i < n_parts && !status; i++)
        status = parse_part(&parts[i], i, n_parts, &list[i], fault);
    if (!status && n_parts > 1)
        status = gguf_join(list[0], list + 1, n_parts - 1, fault);
    if (!status)
        status = check_total(list[0], n_parts, fault);
    if (!status) {
        *out = list[0];
        list[0] = NULL;
    }
    for (uint32_t i = 0; list && i < n_parts; i++)
        gguf_free(&list[i]);
    mem_free(list);
    return status;
}

/* ---------------------------------------------------------------- files */

/* The sentence about part `number` that is not there; path is the missing file's. */
static enum status part_missing(const char *path, uint32_t number, struct fault *fault)
{
    uint32_t own, count = model_part_count(path, &own);

    return fault_set(fault, STATUS_NOT_FOUND, "part %u of %u is missing: there is no file %s",
                     number, count, path);
}

/* Maps part `number` (from 1) of the model that path is a part of. */
static enum status map_part(const char *path, uint32_t number, struct file_map *out,
                            struct fault *fault)
{
    char *part = model_part_path(path, number);
    enum status status = part ? file_map_open(part, out, fault)
                              : fault_set(fault, STATUS_NO_MEMORY, "no memory to open %s", path);

    if (part && status == STATUS_NOT_FOUND && strcmp(part, path) != 0)
        status = part_missing(part, number, fault);
    mem_free(part);
    return status;
}

static enum status map_and_parse(const char *path, struct file_map *maps, struct bytes_view *views,
                                 uint32_t n, struct gguf **gguf, struct fault *fault)
{
    enum status status = STATUS_OK;

    for (uint32_t i = 0; i < n && !status; i++) {
        status = map_part(path, i + 1, &maps[i], fault);
        views[i] = (struct bytes_view){maps[i].data, maps[i].size_bytes};
    }
    if (status)
        return status;
    status = split_parse(views, n, gguf, fault);
    if (status)
        (void)fault_prefix(fault, "%s", path);
    return status;
}

enum status split_open(const char *path, struct file_map **maps, uint32_t *n_maps,
                       struct gguf **gguf, struct fault *fault)
{
    uint32_t number, n = model_part_count(path, &number);
    struct bytes_view *views;
    enum status status;

    *gguf = NULL;
    *maps = NULL;
    *n_maps = 0;
    if (n > SPLIT_MAX_PARTS)
        return fault_set(fault, STATUS_LIMIT, "%s: a model of %u parts, more than %d", path, n,
                         SPLIT_MAX_PARTS);
    *maps = MEM_NEW_N(struct file_map, n);
    *n_maps = *maps ? n : 0;
    views = MEM_NEW_N(struct bytes_view, n);
    status = *maps && views ? map_and_parse(path, *maps, views, n, gguf, fault)
                            : fault_set(fault, STATUS_NO_MEMORY, "out of memory");
    mem_free(views);
    if (status)
        split_close(maps, n_maps);
    return status;
}

void split_close(struct file_map **maps, uint32_t *n_maps)
{
    for (uint32_t i = 0; i < *n_maps; i++)
        file_map_close(&(*maps)[i]);
    mem_free(*maps);
    *maps = NULL;
    *n_maps = 0;
}
