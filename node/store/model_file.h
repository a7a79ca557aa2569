#ifndef SKEIN_NODE_STORE_MODEL_FILE_H
#define SKEIN_NODE_STORE_MODEL_FILE_H

/* One model file, or folder, on its way into the store. Blocking: for the thread pool. */
#include "engine/engine.h"
#include "node/store/hash_cache.h"

/* Opens the file, sees that the engine can run it, and describes it in the card (all but name and
 * hash); nothing stays open. */
enum status model_file_check(const char *path, enum engine_kind engine, struct model_card *card,
                             struct fault *fault) MUST_USE;
void model_describe(const struct model *model, struct model_card *card);
/* A text that fits, for people: what is not printable ASCII becomes '?'. */
void model_plain_text(const char *text, char *out, size_t size);
/* The file's identity; NOT_FOUND, PERMISSION, IO, INVALID (not a regular file). Of a folder, and of
 * a model split over several files, any of which may be named: the first file's inode, the sum of
 * all sizes and the latest of all times. */
enum status model_file_identity(const char *path, struct file_identity *out,
                                struct fault *fault) MUST_USE;
/* BLAKE2b-256 of all bytes; of a folder: over names and hashes of its files; of a split model: over
 * numbers and hashes of its parts, whatever they are called. CANCELLED soon after *stop becomes
 * true. */
enum status model_file_hash(const char *path, const _Atomic bool *stop,
                            uint8_t out[static PROTO_HASH_BYTES], struct fault *fault) MUST_USE;
/* The hash of bytes in memory. */
void model_bytes_hash(const void *data, size_t size_bytes, uint8_t out[static PROTO_HASH_BYTES]);
/* "skein-tiny" of "/a/skein-tiny.gguf", "x" of "x-00001-of-00003.gguf", cut to
 * PROTO_MAX_MODEL_NAME; what is not printable ASCII becomes '_', since names travel between nodes
 * and into terminals. */
void model_file_name(const char *path, char out[static PROTO_MAX_MODEL_NAME]);

/* The same of one file, whatever it is a part of. */
enum status one_file_identity(const char *path, struct file_identity *out,
                              struct fault *fault) MUST_USE;
enum status one_file_hash(const char *path, const _Atomic bool *stop,
                          uint8_t out[static PROTO_HASH_BYTES], struct fault *fault) MUST_USE;

/* ---- model_folder.c: the same for models of several files */
bool model_is_many_files(const char *path);
enum status many_files_identity(const char *path, struct file_identity *out,
                                struct fault *fault) MUST_USE;
enum status many_files_hash(const char *path, const _Atomic bool *stop,
                            uint8_t out[static PROTO_HASH_BYTES], struct fault *fault) MUST_USE;

#endif
