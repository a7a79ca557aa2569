/* A splitter for GGUF files.
 *
 * The first part has all metadata, every part has split.no, split.count and split.tensors.count,
 * tensors are dealt out in file order. For tests only: what goes wrong here aborts. */
#include "tests/harness/split_gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/file/gguf_write.h"

static void must(bool good)
{
    if (!good)
        abort();
}

static void write_keys(struct gguf_writer *w, const struct gguf *gguf, uint32_t i, uint32_t n_parts)
{
    for (size_t k = 0; i == 0 && k < gguf_value_count(gguf); k++)
        gguf_write_copy(w, gguf_value_at(gguf, k));
    gguf_write_u32(w, "split.no", i);
    gguf_write_u32(w, "split.count", n_parts);
    gguf_write_u32(w, "split.tensors.count", (uint32_t)gguf_tensor_count(gguf));
}

static void write_part(const struct gguf *gguf, size_t begin, size_t end, uint32_t i,
                       uint32_t n_parts, struct buffer *out)
{
    static const uint8_t zeros[GGUF_WRITE_ALIGNMENT];
    struct gguf_writer w = {0};

    write_keys(&w, gguf, i, n_parts);
    for (size_t t = begin; t < end; t++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, t);

        gguf_write_tensor(&w, tensor->name.data, tensor->name.n_bytes, tensor->n_dims, tensor->dims,
                          (enum tensor_type)tensor->type, tensor->n_bytes);
    }
    must(gguf_write_finish(&w, out) == STATUS_OK);
    for (size_t t = begin; t < end; t++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, t);

        must(buffer_put(out, tensor->data, (size_t)tensor->n_bytes) == STATUS_OK);
        must(buffer_put(out, zeros, (size_t)(-tensor->n_bytes % GGUF_WRITE_ALIGNMENT)) ==
             STATUS_OK);
    }
    gguf_write_free(&w);
}

void gguf_split(const void *data, size_t size_bytes, uint32_t n_parts, bool header_first,
                struct buffer *parts)
{
    struct gguf *gguf;
    uint32_t skip = header_first;
    size_t n, begin = 0;

    must(gguf_parse(data, size_bytes, &gguf, NULL) == STATUS_OK);
    n = gguf_tensor_count(gguf);
    for (uint32_t i = 0; i < n_parts; i++) {
        size_t end = i < skip ? 0 : n * (i + 1 - skip) / (n_parts - skip);

        write_part(gguf, begin, end, i, n_parts, &parts[i]);
        begin = end;
    }
    gguf_free(&gguf);
}

void gguf_split_free(struct buffer *parts, uint32_t n_parts)
{
    for (uint32_t i = 0; i < n_parts; i++)
        buffer_free(&parts[i]);
}

void gguf_patch_u32(struct buffer *part, const char *key, uint32_t v)
{
    uint8_t *at = memmem(part->data, part->len, key, strlen(key));

    must(at != NULL);
    at += strlen(key) + sizeof(uint32_t);
    for (int b = 0; b < 4; b++)
        at[b] = (uint8_t)(v >> 8 * b);
}

void gguf_split_path(const char *stem, uint32_t number, uint32_t n_parts, char *out, size_t size)
{
    must((size_t)snprintf(out, size, "%s-%05u-of-%05u.gguf", stem, number, n_parts) < size);
}

void gguf_split_write(const struct buffer *parts, uint32_t n_parts, const char *stem)
{
    for (uint32_t i = 0; i < n_parts; i++) {
        char path[256];
        FILE *file;

        gguf_split_path(stem, i + 1, n_parts, path, sizeof path);
        file = fopen(path, "wb");
        must(file != NULL);
        must(fwrite(parts[i].data, 1, parts[i].len, file) == parts[i].len && fclose(file) == 0);
    }
}
