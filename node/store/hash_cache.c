/* Remembered content hashes.
 *
 * A small text file, one model a line: device inode size mtime hash. It is read once, written anew
 * on every change through a temporary file and a rename, and never trusted further than this: a
 * line that does not parse is dropped, at most MAX_ENTRIES are kept (the oldest go), and a file
 * whose size or time differs is hashed again. Losing the cache costs time only, so its errors are
 * not reported. */
#include "node/store/hash_cache.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_ENTRIES = 512 };

struct entry {
    struct file_identity file;
    uint8_t hash[PROTO_HASH_BYTES];
};

struct hash_cache {
    char *path;
    size_t n;
    struct entry entries[MAX_ENTRIES];
};

static void hash_cache_read(struct hash_cache *cache)
{
    FILE *in = fopen(cache->path, "re");
    char line[256];

    while (in && cache->n < MAX_ENTRIES && fgets(line, sizeof line, in)) {
        struct entry *e = &cache->entries[cache->n];
        char hex[2 * PROTO_HASH_BYTES + 2];

        if (sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNd64 " %65s", &e->file.device,
                   &e->file.inode, &e->file.size_bytes, &e->file.modified_ns, hex) == 5 &&
            bytes_from_hex(hex, e->hash, PROTO_HASH_BYTES))
            cache->n++;
    }
    if (in)
        (void)fclose(in);
}

enum status hash_cache_new(const char *path, struct hash_cache **out)
{
    struct hash_cache *cache = MEM_NEW(struct hash_cache);

    if (!cache)
        return STATUS_NO_MEMORY;
    if (path) {
        cache->path = mem_text(path);
        if (!cache->path) {
            mem_free(cache);
            return STATUS_NO_MEMORY;
        }
        hash_cache_read(cache);
    }
    *out = cache;
    return STATUS_OK;
}

void hash_cache_free(struct hash_cache **cache)
{
    if (!*cache)
        return;
    mem_free((*cache)->path);
    mem_free(*cache);
    *cache = NULL;
}

static bool file_identity_equal(const struct file_identity *a, const struct file_identity *b)
{
    return a->device == b->device && a->inode == b->inode && a->size_bytes == b->size_bytes &&
           a->modified_ns == b->modified_ns;
}

bool hash_cache_find(const struct hash_cache *cache, const struct file_identity *file,
                     uint8_t out[static PROTO_HASH_BYTES])
{
    for (size_t i = 0; i < cache->n; i++)
        if (file_identity_equal(&cache->entries[i].file, file)) {
            memcpy(out, cache->entries[i].hash, PROTO_HASH_BYTES);
            return true;
        }
    return false;
}

static void hash_cache_write(const struct hash_cache *cache)
{
    char temporary[4096];
    char hex[2 * PROTO_HASH_BYTES + 1];
    FILE *out;
    int n = snprintf(temporary, sizeof temporary, "%s.%ld", cache->path, (long)getpid());

    if (n < 0 || (size_t)n >= sizeof temporary)
        return;
    out = fopen(temporary, "we");
    if (!out)
        return;
    for (size_t i = 0; i < cache->n; i++) {
        const struct entry *e = &cache->entries[i];

        bytes_to_hex(e->hash, PROTO_HASH_BYTES, hex);
        (void)fprintf(out, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRId64 " %s\n", e->file.device,
                      e->file.inode, e->file.size_bytes, e->file.modified_ns, hex);
    }
    if (fclose(out) != 0 || rename(temporary, cache->path) != 0)
        (void)unlink(temporary);
}

void hash_cache_put(struct hash_cache *cache, const struct file_identity *file,
                    const uint8_t hash[static PROTO_HASH_BYTES])
{
    size_t i = 0;

    while (i < cache->n && !(cache->entries[i].file.device == file->device &&
                             cache->entries[i].file.inode == file->inode))
        i++;
    if (i == MAX_ENTRIES) {
        memmove(cache->entries, cache->entries + 1, (MAX_ENTRIES - 1) * sizeof(struct entry));
        i = MAX_ENTRIES - 1;
    } else if (i == cache->n) {
        cache->n++;
    }
    cache->entries[i].file = *file;
    memcpy(cache->entries[i].hash, hash, PROTO_HASH_BYTES);
    if (cache->path)
        hash_cache_write(cache);
}
