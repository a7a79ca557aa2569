/* Models of several files in the store, Hugging Face folders and split GGUF files: identity and
 * content hash.
 *
 * In a folder, the files that make the model are those whose names end as the engine reads them;
 * what else lies in the folder (readme, images) does not change the model. They are taken in the
 * order of their names, and the hash covers every name and every file's own hash, so that equal
 * folders have equal hashes on every box, and a file that is added, lost or renamed makes another
 * model. The parts of a split file are found by their names, and their numbers stand in the hash in
 * place of the names, so that such a model may be called anything, as one in a single file.
 * Blocking: for the thread pool.
 */
#include <dirent.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/store/model_file.h"

enum { MAX_FILES = 4096 };

struct names {
    char *list[MAX_FILES];
    size_t n;
};

static bool is_part(const char *name)
{
    static const char *const ends[] = {".json", ".safetensors", ".jinja", ".model"};
    size_t n = strlen(name);

    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        size_t m = strlen(ends[i]);

        if (n > m && name[0] != '.' && strcmp(name + n - m, ends[i]) == 0)
            return true;
    }
    return false;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_free(struct names *names)
{
    for (size_t i = 0; names && i < names->n; i++)
        mem_free(names->list[i]);
    mem_free(names);
}

static enum status names_read(const char *path, struct names **out, struct fault *fault)
{
    struct names *names = MEM_NEW(struct names);
    enum status status = names ? STATUS_OK : STATUS_NO_MEMORY;
    DIR *dir = opendir(path);
    struct dirent *item;

    *out = names;
    if (!dir)
        return fault_set(fault, status_from_errno(errno), "%s: %s", path, strerror(errno));
    while (status == STATUS_OK && (item = readdir(dir)) != NULL) {
        if (!is_part(item->d_name))
            continue;
        if (names->n == MAX_FILES) {
            status = STATUS_LIMIT;
            break;
        }
        names->list[names->n] = mem_text(item->d_name);
        if (names->list[names->n])
            names->n++;
        else
            status = STATUS_NO_MEMORY;
    }
    (void)closedir(dir);
    if (status != STATUS_OK)
        return fault_set(fault, status, "%s: %s", path, status_words(status));
    if (names->n)
        qsort(names->list, names->n, sizeof *names->list, by_text);
    return STATUS_OK;
}

typedef enum status on_file(void *ctx, const char *name, const char *file, struct fault *fault);

static enum status each_part(const char *path, on_file *fn, void *ctx, struct fault *fault)
{
    uint32_t number, count = model_part_count(path, &number);
    enum status status = STATUS_OK;

    for (uint32_t i = 1; i <= count && status == STATUS_OK; i++) {
        char *file = model_part_path(path, i);
        char name[16];

        (void)snprintf(name, sizeof name, "%u", i);
        if (!file)
            status = fault_set(fault, STATUS_NO_MEMORY, "no memory to read %s", path);
        else if (access(file, F_OK) != 0 && errno == ENOENT)
            status = fault_set(fault, STATUS_NOT_FOUND,
                               "part %u of %u is missing: there is no file %s", i, count, file);
        else
            status = fn(ctx, name, file, fault);
        mem_free(file);
    }
    return status;
}

/* Calls fn for every file with its name and path. */
static enum status each_file(const char *path, on_file *fn, void *ctx, struct fault *fault)
{
    struct names *names = NULL;
    enum status status;

    if (!model_is_folder(path))
        return each_part(path, fn, ctx, fault);
    status = names_read(path, &names, fault);
    for (size_t i = 0; status == STATUS_OK && i < names->n; i++) {
        struct buffer file = {0};

        if (buffer_printf(&file, "%s/%s", path, names->list[i]) != STATUS_OK)
            status = fault_set(fault, STATUS_NO_MEMORY, "no memory to read %s", path);
        else
            status = fn(ctx, names->list[i], (const char *)file.data, fault);
        buffer_free(&file);
    }
    names_free(names);
    return status;
}

bool model_is_many_files(const char *path)
{
    uint32_t number;

    return model_is_folder(path) || model_part_count(path, &number) > 1;
}

static enum status identity_add(void *ctx, const char *name, const char *file, struct fault *fault)
{
    struct file_identity *sum = ctx, one;
    enum status status = one_file_identity(file, &one, fault);

    (void)name;
    if (status != STATUS_OK)
        return status;
    if (sum->size_bytes == 0) { /* the first: a folder's own inode says nothing about its files */
        sum->device = one.device;
        sum->inode = one.inode;
    }
    sum->size_bytes += one.size_bytes;
    sum->modified_ns = one.modified_ns > sum->modified_ns ? one.modified_ns : sum->modified_ns;
    return STATUS_OK;
}

enum status many_files_identity(const char *path, struct file_identity *out, struct fault *fault)
{
    *out = (struct file_identity){0};
    return each_file(path, identity_add, out, fault);
}

struct hashing {
    crypto_generichash_state state;
    const _Atomic bool *stop;
};

static enum status hash_add(void *ctx, const char *name, const char *file, struct fault *fault)
{
    struct hashing *hashing = ctx;
    uint8_t hash[PROTO_HASH_BYTES];
    enum status status = one_file_hash(file, hashing->stop, hash, fault);

    /* The NUL ends the name, which has none inside. */
    (void)crypto_generichash_update(&hashing->state, (const uint8_t *)name, strlen(name) + 1);
    (void)crypto_generichash_update(&hashing->state, hash, sizeof hash);
    return status;
}

enum status many_files_hash(const char *path, const _Atomic bool *stop,
                            uint8_t out[static PROTO_HASH_BYTES], struct fault *fault)
{
    struct hashing *hashing = mem_aligned(64, 1, sizeof *hashing); /* as its state wants it */
    enum status status;

    if (!hashing)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory to read %s", path);
    hashing->stop = stop;
    (void)crypto_generichash_init(&hashing->state, NULL, 0, PROTO_HASH_BYTES);
    status = each_file(path, hash_add, hashing, fault);
    (void)crypto_generichash_final(&hashing->state, out, PROTO_HASH_BYTES);
    mem_free(hashing);
    return status;
}
