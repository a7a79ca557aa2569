/* Links: skein_engine PkgConfig::JANSSON.
 *
 * Any config.json with any table of tensors: names, shapes and types that a family cuts, joins and
 * transposes. The input is config.json, a zero byte, and the header of model.safetensors, whose
 * data are here. Of what opens every tensor is read to the last value, as a shard reads it.
 *
 * Memory: at most 256 MiB. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/file/source.h"
#include "engine/hf/hf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { DATA_BYTES = 16 << 10, MAX_VALUES = 1 << 20 };

static char folder[64];

static void write_file(const char *name, const void *a, size_t a_bytes, const void *b,
                       size_t b_bytes)
{
    char path[128];
    FILE *file;

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    file = fopen(path, "wb");
    if (!file || (a_bytes && fwrite(a, 1, a_bytes, file) != a_bytes) ||
        (b_bytes && fwrite(b, 1, b_bytes, file) != b_bytes))
        abort();
    (void)fclose(file);
}

static void drop_folder(void)
{
    static const char *const names[] = {"config.json", "model.safetensors"};
    char path[128];

    for (size_t i = 0; i < COUNT_OF(names); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(folder);
}

static void make_folder(void)
{
    (void)snprintf(folder, sizeof folder, "%s/fuzz-hft-XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(folder))
        abort();
    (void)atexit(drop_folder);
}

static void write_tensors(const uint8_t *header, size_t size)
{
    static uint8_t values[DATA_BYTES];
    uint64_t n = size;
    uint8_t *all = malloc(8 + size);

    if (!all)
        abort();
    for (size_t i = 0; i < sizeof values; i++)
        values[i] = (uint8_t)(i * 37 + i / 256);
    memcpy(all, &n, 8);
    memcpy(all + 8, header, size);
    write_file("model.safetensors", all, 8 + size, values, sizeof values);
    free(all);
}

static void read_all(const struct gguf *gguf)
{
    for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        float *values, sum = 0;

        if (tensor->n_values > MAX_VALUES)
            continue;
        values = malloc((size_t)tensor->n_values * sizeof *values);
        if (!values)
            abort();
        tensor_values(tensor, values);
        for (uint64_t k = 0; k < tensor->n_values; k++)
            sum += values[k];
        for (uint64_t m = 0; m < tensor_matrix_count(tensor); m++) {
            const uint8_t *bytes = tensor_matrix_bytes(tensor, m);

            for (uint64_t k = 0; bytes && k < tensor_matrix_size(tensor); k++)
                sum += (float)bytes[k];
        }
        *(volatile float *)values = sum;
        free(values);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size ? memchr(data, 0, size) : NULL;
    size_t n = end ? (size_t)(end - data) : size;
    struct hf *hf = NULL;
    struct gguf *gguf = NULL;
    struct fault fault = {0};
    uint64_t size_bytes;

    if (!folder[0])
        make_folder();
    write_file("config.json", data, n, NULL, 0);
    write_tensors(end ? end + 1 : data, end ? size - n - 1 : 0);
    if (hf_open(folder, &hf, &gguf, &size_bytes, &fault) == STATUS_OK)
        read_all(gguf);
    else if (hf || !fault.text[0])
        abort();
    gguf_free(&gguf);
    hf_free(&hf);
    return 0;
}
