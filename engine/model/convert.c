/* A model as a GGUF file.
 *
 * Whatever was opened, a GGUF file or a folder, is metadata and a table of tensors here, so writing
 * is one way for all: keys are copied, tensors are named with their new types, then each is read a
 * few rows at a time, encoded and written. Rows that stay what they are go over as bytes. Memory is
 * a buffer of about a megabyte, whatever the size of the model.
 *
 * The file is written beside its place and renamed when it is whole, so that nobody ever opens half
 * a model. What fails: the disk, a type that has no encoder, a tensor of a type that cannot be
 * read.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/file/gguf_write.h"
#include "engine/file/source.h"
#include "engine/model/quantize.h"

enum { CHUNK_BYTES = 1 << 20 };

struct conversion {
    const struct model *model;
    const struct model_convert *what;
    enum tensor_type type;
    FILE *file;
    uint64_t at; /* bytes of tensor data written */
    uint8_t *chunk;
    float *row;
    struct fault *fault;
};

/* GGUF's number for a file that is mostly of this type. */
static uint32_t file_type(enum tensor_type type)
{
    switch (type) {
    case TENSOR_F16:
        return 1;
    case TENSOR_Q4_0:
        return 2;
    case TENSOR_Q4_1:
        return 3;
    case TENSOR_Q8_0:
        return 7;
    case TENSOR_Q5_0:
        return 8;
    case TENSOR_Q5_1:
        return 9;
    case TENSOR_Q4_K:
        return 14;
    case TENSOR_Q5_K:
        return 16;
    case TENSOR_Q6_K:
        return 18;
    case TENSOR_IQ4_NL:
        return 25;
    case TENSOR_BF16:
        return 32;
    default:
        return 0;
    }
}

static bool key_is_copied(const struct gguf_value *value)
{
    static const char *const left_out[] = {"general.file_type", "general.quantization_version",
                                           "general.alignment", "split."};

    for (size_t i = 0; i < COUNT_OF(left_out); i++) {
        size_t n = strlen(left_out[i]);

        if (value->key.n_bytes >= n && memcmp(value->key.data, left_out[i], n) == 0)
            return false;
    }
    return true;
}

static enum status make_header(const struct conversion *c, struct buffer *out)
{
    const struct gguf *gguf = c->model->gguf;
    struct gguf_writer w = {0};
    enum status status;

    for (size_t i = 0; i < gguf_value_count(gguf); i++) {
        if (key_is_copied(gguf_value_at(gguf, i)))
            gguf_write_copy(&w, gguf_value_at(gguf, i));
    }
    gguf_write_u32(&w, "general.file_type", file_type(c->type));
    gguf_write_u32(&w, "general.quantization_version", 2);
    for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        enum tensor_type type = quantized_type(tensor, c->type);

        gguf_write_tensor(&w, tensor->name.data, tensor->name.n_bytes, tensor->n_dims, tensor->dims,
                          type, type_bytes(type, tensor->n_values));
    }
    status = gguf_write_finish(&w, out);
    gguf_write_free(&w);
    return status ? fault_set(c->fault, status, "the header: %s", status_words(status)) : STATUS_OK;
}

/* ---------------------------------------------------------------- tensors */

static enum status put(struct conversion *c, const void *data, size_t n_bytes)
{
    if (n_bytes && fwrite(data, 1, n_bytes, c->file) != n_bytes)
        return fault_set(c->fault, status_from_errno(errno), "cannot write %s: %s", c->what->path,
                         strerror(errno));
    return STATUS_OK;
}

static enum status put_matrix(struct conversion *c, const struct gguf_tensor *tensor, uint64_t i,
                              enum tensor_type type)
{
    const void *bytes = tensor_matrix_bytes(tensor, i);
    size_t row_bytes = (size_t)type_bytes(type, tensor->dims[0]), used = 0;
    enum status status = STATUS_OK;

    if (bytes && (uint32_t)type == tensor->type)
        return put(c, bytes, (size_t)tensor_matrix_size(tensor));
    for (uint64_t r = 0; r < tensor->dims[1] && !status; r++) {
        tensor_row_as(tensor, i, r, type, c->row, c->chunk + used);
        used += row_bytes;
        if (used + row_bytes > CHUNK_BYTES || r + 1 == tensor->dims[1]) {
            status = put(c, c->chunk, used);
            used = 0;
        }
    }
    return status;
}

static void forget(void *ctx, const void *data, uint64_t n_bytes)
{
    size_t offset;
    const struct file_map *map = model_map_of(ctx, data, &offset);

    if (map)
        file_map_forget(map, offset, (size_t)n_bytes);
}

static enum status put_tensor(struct conversion *c, const struct gguf_tensor *tensor)
{
    static const uint8_t zeros[GGUF_WRITE_ALIGNMENT];
    enum tensor_type type = quantized_type(tensor, c->type);
    enum status status = STATUS_OK;
    size_t padding;

    for (uint64_t i = 0; i < tensor_matrix_count(tensor) && !status; i++)
        status = put_matrix(c, tensor, i, type);
    c->at += type_bytes(type, tensor->n_values);
    padding = (size_t)(-c->at % GGUF_WRITE_ALIGNMENT);
    c->at += padding;
    tensor_each_bytes(tensor, forget, (void *)(uintptr_t)c->model);
    return status ? status : put(c, zeros, padding);
}

static enum status put_all(struct conversion *c)
{
    const struct gguf *gguf = c->model->gguf;
    size_t n = gguf_tensor_count(gguf);
    struct buffer header = {0};
    enum status status = make_header(c, &header);

    if (!status)
        status = put(c, header.data, header.len);
    buffer_free(&header);
    for (size_t i = 0; i < n && !status; i++) {
        status = put_tensor(c, gguf_tensor_at(gguf, i));
        if (!status && c->what->on_tensor && !c->what->on_tensor(c->what->owner, i + 1, n))
            status = fault_set(c->fault, STATUS_CANCELLED, "stopped");
    }
    return status;
}

/* ---------------------------------------------------------------- the whole */

static enum status check_tensors(const struct conversion *c, uint64_t *max_cols)
{
    for (size_t i = 0; i < gguf_tensor_count(c->model->gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(c->model->gguf, i);
        bool kept = !tensor->source && (uint32_t)quantized_type(tensor, c->type) == tensor->type;

        if (!tensor_type_info(tensor->type)->name ||
            (!tensor_type_info(tensor->type)->runnable && !kept))
            return fault_set(c->fault, STATUS_UNSUPPORTED,
                             "tensor %.*s has a type that cannot be "
                             "converted",
                             (int)tensor->name.n_bytes, tensor->name.data);
        *max_cols = tensor->dims[0] > *max_cols ? tensor->dims[0] : *max_cols;
    }
    if (!c->model->info.has_tensors)
        return fault_set(c->fault, STATUS_UNSUPPORTED, "it holds a vocabulary only, no weights");
    return STATUS_OK;
}

static enum status type_fault(const char *type, struct fault *fault)
{
    char names[160];

    return fault_set(fault, STATUS_INVALID, "skein does not write the type `%.20s`; it writes %s",
                     type, quantized_names(true, names, sizeof names));
}

static enum status write_file(struct conversion *c)
{
    struct buffer beside = {0};
    enum status status = buffer_printf(&beside, "%s.part", c->what->path);
    const char *part = (const char *)beside.data;
    struct stat there;
    int fd;

    if (status)
        return fault_set(c->fault, status, "out of memory");
    /* A device, a pipe or a link under that name is not ours to replace; a .part of before is. */
    if (lstat(c->what->path, &there) == 0 && !S_ISREG(there.st_mode)) {
        buffer_free(&beside);
        return fault_set(c->fault, STATUS_INVALID, "%s is there and is not a regular file",
                         c->what->path);
    }
    (void)unlink(part);
    fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    c->file = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!c->file) {
        status = fault_set(c->fault, status_from_errno(errno), "cannot write %s: %s", part,
                           strerror(errno));
        buffer_free(&beside);
        return status;
    }
    status = put_all(c);
    if (!status && (fflush(c->file) != 0 || fsync(fileno(c->file)) != 0))
        status = fault_set(c->fault, status_from_errno(errno), "cannot write %s: %s", part,
                           strerror(errno));
    if (fclose(c->file) != 0 && !status)
        status = fault_set(c->fault, STATUS_IO, "cannot write %s", part);
    if (!status && rename(part, c->what->path) != 0)
        status = fault_set(c->fault, status_from_errno(errno), "cannot name %s: %s", c->what->path,
                           strerror(errno));
    if (status)
        (void)unlink(part);
    buffer_free(&beside);
    return status;
}

enum status model_convert(const struct model *model, const struct model_convert *what,
                          struct fault *fault)
{
    struct conversion c = {.model = model, .what = what, .fault = fault};
    uint64_t max_cols = 1;
    uint32_t part;
    enum status status;

    if (model_part_count(what->path, &part) > 1)
        return fault_set(fault, STATUS_INVALID,
                         "%s is a name for one file of several; skein writes one file", what->path);
    if (!what->type || !tensor_type_parse(what->type, &c.type) || c.type == TENSOR_BF16_DOT)
        return type_fault(what->type ? what->type : "", fault);
    status = check_tensors(&c, &max_cols);
    if (status)
        return status;
    c.row = MEM_NEW_N(float, (size_t)max_cols);
    c.chunk = mem_aligned(64, CHUNK_BYTES + (size_t)max_cols * sizeof(float), 1);
    status =
        c.row && c.chunk ? write_file(&c) : fault_set(fault, STATUS_NO_MEMORY, "out of memory");
    mem_free(c.row);
    mem_free(c.chunk);
    return status;
}
