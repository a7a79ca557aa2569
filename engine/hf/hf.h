#ifndef SKEIN_ENGINE_HF_HF_H
#define SKEIN_ENGINE_HF_HF_H

/* Hugging Face folders: config.json, *.safetensors, tokenizer.json and their neighbours, shown to
 * the rest of the engine as one GGUF. */
#include "engine/file/gguf.h"
#include "engine/file/map.h"

struct hf; /* the open files and what was made of them */

/* Maps the folder's files and describes them: *gguf is metadata and a tensor table whose values lie
 * in the mapped files; it must be freed before *hf. Errors: NOT_FOUND and IO (a file of the
 * folder), FORMAT, TRUNCATED, LIMIT (a size), UNSUPPORTED (an architecture by its name, a tensor
 * type, a setting that changes the numbers and that skein does not have), NO_MEMORY. Nothing is
 * held on failure. Blocking. */
enum status hf_open(const char *folder, struct hf **out, struct gguf **gguf, uint64_t *size_bytes,
                    struct fault *fault) MUST_USE;
void hf_free(struct hf **hf);
size_t hf_map_count(const struct hf *hf);
const struct file_map *hf_map_at(const struct hf *hf, size_t i);

#endif
