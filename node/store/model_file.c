/* Model files: identity, content hash, and whether the engine can run them.
 *
 * A model is named by what is in it: BLAKE2b-256 over the whole file. Two boxes that hold the same
 * bytes under different names hold the same model, and two that hold different bytes under one name
 * can never be mixed in one pipeline. */
#include "node/store/model_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 20 };

void model_plain_text(const char *text, char *out, size_t size)
{
    size_t n = 0;

    for (; text[n] && n + 1 < size; n++)
        out[n] = (char)(text[n] >= 0x20 && text[n] < 0x7f ? text[n] : '?');
    out[n] = '\0';
}

void model_describe(const struct model *model, struct model_card *card)
{
    const struct model_info *info = model_info(model);

    model_plain_text(info->architecture, card->architecture, sizeof card->architecture);
    model_plain_text(info->types, card->types, sizeof card->types);
    card->n_layers = info->n_layers;
    card->n_ctx_train = info->n_ctx_train;
}

enum status model_file_check(const char *path, enum engine_kind engine, struct model_card *card,
                             struct fault *fault)
{
    struct model *model = NULL;
    enum status status = model_open(path, &model, fault);

    if (status == STATUS_OK && !model_info(model)->has_tensors)
        status = fault_set(fault, STATUS_UNSUPPORTED, "it holds a vocabulary only, no weights");
    if (status == STATUS_OK)
        status = model_runnable(model, engine, fault);
    if (model)
        model_describe(model, card);
    model_free(&model);
    return status;
}

enum status one_file_identity(const char *path, struct file_identity *out, struct fault *fault)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return fault_set(fault, status_from_errno(errno), "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return fault_set(fault, STATUS_INVALID, "%s is not a regular file", path);
    *out = (struct file_identity){
        .device = st.st_dev,
        .inode = st.st_ino,
        .size_bytes = (uint64_t)st.st_size,
        .modified_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec,
    };
    return STATUS_OK;
}

enum status model_file_identity(const char *path, struct file_identity *out, struct fault *fault)
{
    if (model_is_many_files(path))
        return many_files_identity(path, out, fault);
    return one_file_identity(path, out, fault);
}

enum status one_file_hash(const char *path, const _Atomic bool *stop,
                          uint8_t out[static PROTO_HASH_BYTES], struct fault *fault)
{
    crypto_generichash_state state;
    enum status status = STATUS_OK;
    uint8_t *bytes;
    ssize_t n = 0;
    int fd;

    bytes = mem_aligned(4096, READ_BYTES, 1);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (!bytes)
        status = fault_set(fault, STATUS_NO_MEMORY, "no memory to read %s", path);
    else if (fd < 0)
        status = fault_set(fault, status_from_errno(errno), "%s: %s", path, strerror(errno));
    (void)crypto_generichash_init(&state, NULL, 0, PROTO_HASH_BYTES);
    while (status == STATUS_OK && (n = read(fd, bytes, READ_BYTES)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            status = fault_set(fault, STATUS_IO, "%s: %s", path, strerror(errno));
        else if (atomic_load(stop))
            status = fault_set(fault, STATUS_CANCELLED, "%s: stopped", path);
        else
            (void)crypto_generichash_update(&state, bytes, (size_t)n);
    }
    (void)crypto_generichash_final(&state, out, PROTO_HASH_BYTES);
    if (fd >= 0)
        (void)close(fd);
    mem_free(bytes);
    return status;
}

enum status model_file_hash(const char *path, const _Atomic bool *stop,
                            uint8_t out[static PROTO_HASH_BYTES], struct fault *fault)
{
    if (model_is_many_files(path))
        return many_files_hash(path, stop, out, fault);
    return one_file_hash(path, stop, out, fault);
}

void model_bytes_hash(const void *data, size_t size_bytes, uint8_t out[static PROTO_HASH_BYTES])
{
    (void)crypto_generichash(out, PROTO_HASH_BYTES, data, size_bytes, NULL, 0);
}

void model_file_name(const char *path, char out[static PROTO_MAX_MODEL_NAME])
{
    const char *name;
    size_t n = model_part_stem(path), begin;

    while (n > 1 && path[n - 1] == '/')
        n--;
    for (begin = n; begin > 0 && path[begin - 1] != '/'; begin--)
        ;
    name = path + begin;
    n -= begin;
    if (n > 5 && strncmp(name + n - 5, ".gguf", 5) == 0)
        n -= 5;
    if (n >= PROTO_MAX_MODEL_NAME)
        n = PROTO_MAX_MODEL_NAME - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = (char)(name[i] > 0x20 && name[i] < 0x7f ? name[i] : '_');
    out[n] = 0;
}
