#ifndef SKEIN_ENGINE_MODEL_MODEL_H
#define SKEIN_ENGINE_MODEL_MODEL_H

/* Inside the engine: an open model. Immutable once model_open has returned. */
#include "engine/file/experts.h"
#include "engine/file/split.h"
#include "engine/hf/hf.h"
#include "engine/model/tensors.h"
#include "engine/text/text.h"

struct model {
    struct file_map *maps; /* [n_maps] a file, or its parts; none where bytes are somebody else's */
    uint32_t n_maps;
    struct hf *hf; /* a folder instead of a file: its files; NULL otherwise */
    struct gguf *gguf;
    struct experts *experts; /* of an old file: what gguf is made of */
    struct text *text;
    const struct arch *arch; /* NULL: not known */
    struct hparams hparams;
    struct model_tensors tensors;
    struct fault why_not; /* status OK: architecture, metadata and tensors are as they must be */
    struct model_info info;
    char *name;
    char *architecture;
    char types[256];
    struct sample_params sampling; /* of the file; only what `sampling_settings` names */
    unsigned sampling_settings;
    uint32_t *dry_breakers; /* [n_dry_breakers] ascending */
    size_t n_dry_breakers;
};

/* The mapped file that bytes of a tensor lie in, and where; NULL for bytes that no file has. */
const struct file_map *model_map_of(const struct model *model, const void *data,
                                    size_t *offset) MUST_USE;

/* What general.sampling.* says, and which settings that are (enum sample_setting). */
void sampling_read(const struct gguf *gguf, struct sample_params *out, unsigned *settings);

/* Fills model->info and the arrays it points to; works for unknown architectures too. */
enum status info_fill(struct model *model, const char *fallback_name, uint64_t file_bytes) MUST_USE;
void info_free(struct model *model);

#endif
