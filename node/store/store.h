#ifndef SKEIN_NODE_STORE_STORE_H
#define SKEIN_NODE_STORE_STORE_H

/* The models that this node has: files found or named, their content hashes, and those that are
 * open. Loop thread only; disk and hashing run on the loop's thread pool, one file at a time. */
#include "engine/engine.h"
#include "proto/proto.h"

struct uv_loop_s;
struct store;

struct store_events {
    void (*on_changed)(void *owner); /* store_cards would answer differently */
    /* A file that cannot be offered, once, in a sentence. */
    void (*on_notice)(void *owner, const char *text);
    void (*on_closed)(void *owner);
    void *owner;
};

typedef void store_on_added(void *owner, const struct model_card *card, const struct fault *fault);
/* model is NULL on failure; else one use of it is the caller's: store_release. */
typedef void store_on_open(void *owner, const uint8_t hash[static PROTO_HASH_BYTES],
                           const struct model *model, const struct fault *fault);

/* cache_path: where hashes are remembered by file identity, or NULL. The demo model is always
 * there. */
enum status store_new(struct uv_loop_s *loop, const char *cache_path, enum engine_kind engine,
                      const struct store_events *events, struct store **out) MUST_USE;
/* Looks for *.gguf and for Hugging Face folders in a folder (not below those); the files of a split
 * model are one. A folder that is not there is fine. */
enum status store_scan(struct store *store, const char *folder) MUST_USE;
/* on_added (may be NULL) comes once, later; errors of the file are in its fault. */
enum status store_add(struct store *store, const char *path, store_on_added *on_added,
                      void *owner) MUST_USE;
size_t store_cards(const struct store *store, struct model_card *out, size_t max);
/* Files that were found and cannot be offered, with the reason; the latest ones. */
size_t store_refused(const struct store *store, struct refused_model *out, size_t max);
/* Number of files whose hash is still being taken. */
size_t store_pending(const struct store *store);
enum status store_open(struct store *store, const uint8_t hash[static PROTO_HASH_BYTES],
                       store_on_open *on_open, void *owner) MUST_USE;
/* An open model, or NULL; not a use of its own. */
const struct model *store_peek(struct store *store, const uint8_t hash[static PROTO_HASH_BYTES]);
/* One use more of an open model. */
void store_hold(struct store *store, const uint8_t hash[static PROTO_HASH_BYTES]);
void store_release(struct store *store, const uint8_t hash[static PROTO_HASH_BYTES]);
void store_close(struct store *store); /* all uses released by then; on_closed */

#endif
