#ifndef SKEIN_ENGINE_FILE_SPLIT_H
#define SKEIN_ENGINE_FILE_SPLIT_H

/* Models split over several GGUF files: NAME-00001-of-00003.gguf and its neighbours. */
#include "engine/file/gguf.h"
#include "engine/file/map.h"

enum { SPLIT_MAX_PARTS = 1024 };

struct bytes_view {
    const void *data;
    size_t size_bytes;
};

/* One GGUF of all parts, given in order: the first one's metadata, everybody's tensors. All bytes
 * must outlive it. Errors: those of gguf_parse; FORMAT for parts that do not belong together, by
 * their split.no, split.count and split.tensors.count. */
enum status split_parse(const struct bytes_view *parts, uint32_t n_parts, struct gguf **out,
                        struct fault *fault) MUST_USE;
/* Maps the file, or all files of the split model that it is a part of. *maps [*n_maps] is the
 * caller's: split_close, after the gguf. Errors: those of file_map_open and split_parse; NOT_FOUND
 * naming the part that is missing; FORMAT for a part whose name does not say so. The sentence names
 * the file. */
enum status split_open(const char *path, struct file_map **maps, uint32_t *n_maps,
                       struct gguf **gguf, struct fault *fault) MUST_USE;
void split_close(struct file_map **maps, uint32_t *n_maps);

#endif
