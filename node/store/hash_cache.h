#ifndef SKEIN_NODE_STORE_HASH_CACHE_H
#define SKEIN_NODE_STORE_HASH_CACHE_H

/* Content hashes remembered between runs, keyed by what a file is to the system (device, inode,
 * size, modification time), so that a model of many gigabytes is read for its hash only once. */
#include "proto/proto.h"

struct hash_cache;

struct file_identity {
    uint64_t device, inode, size_bytes;
    int64_t modified_ns;
};

/* path NULL: remembers for this run only. A file that cannot be read or parsed is an empty cache.
 */
enum status hash_cache_new(const char *path, struct hash_cache **out) MUST_USE;
void hash_cache_free(struct hash_cache **cache);
bool hash_cache_find(const struct hash_cache *cache, const struct file_identity *file,
                     uint8_t out[static PROTO_HASH_BYTES]);
/* Remembers and writes the file anew (beside it, then renamed); failures to write are ignored. */
void hash_cache_put(struct hash_cache *cache, const struct file_identity *file,
                    const uint8_t hash[static PROTO_HASH_BYTES]);

#endif
