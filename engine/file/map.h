#ifndef SKEIN_ENGINE_FILE_MAP_H
#define SKEIN_ENGINE_FILE_MAP_H

/* A whole file, mapped read-only. */
#include "proto/base/base.h"

struct file_map { /* zero-initialise; file_map_close */
    const uint8_t *data;
    size_t size_bytes;
    int fd; /* open as long as data is mapped */
};

/* Errors: NOT_FOUND, PERMISSION, IO, INVALID (not a regular file), TRUNCATED (empty). Nothing is
 * held on failure. Blocking. */
enum status file_map_open(const char *path, struct file_map *out, struct fault *fault) MUST_USE;
void file_map_close(struct file_map *map);

/* Hints about [offset, offset + n_bytes), rounded to pages; wrong ranges are ignored. `willneed`
 * starts reading ahead, `forget` drops clean pages from this process, `release` drops what is whole
 * pages, and in no process, from the page cache. */
void file_map_willneed(const struct file_map *map, size_t offset, size_t n_bytes);
void file_map_forget(const struct file_map *map, size_t offset, size_t n_bytes);
void file_map_release(const struct file_map *map, size_t offset, size_t n_bytes);

#endif
