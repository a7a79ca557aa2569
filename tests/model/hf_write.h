#ifndef SKEIN_TESTS_MODEL_HF_WRITE_H
#define SKEIN_TESTS_MODEL_HF_WRITE_H

/* Writes a GGUF model as a Hugging Face folder: the way back from what engine/hf does, written
 * without it. A family is a table: which of GGUF's tensors become which of the folder's, and how.
 */
#include <jansson.h>

#include "engine/file/gguf.h"

enum hf_op {
    PLAIN,
    EXPERTS,      /* a matrix each; the name has a %u */
    FUSED,        /* three dimensions stay */
    FUSED_T,      /* likewise, each transposed */
    TRANSPOSE,    /* [columns, rows] */
    SPLIT_QKV,    /* the name has a % for q, k and v */
    GROUP_QKV,    /* of a fused tensor: by KV head */
    GROUP_APART,  /* of attn_q with attn_k and attn_v */
    HALVES,       /* ffn_gate… with ffn_up… below */
    HALVES_T,     /* and transposed */
    EVEN_ODD,     /* and rows of both in turn */
    EVEN_ODD_FP4, /* MXFP4 blocks */
    FUSED_FP4,
    LATENT,     /* attn_k_b with attn_v_b */
    DELTA,      /* attn_qkv with attn_gate */
    HEAD_ROWS,  /* a vector each; the name has a %u */
    MIDDLE_1,   /* a dimension of 1 between */
    FRONT_1,    /* or before */
    LOG_MINUS,  /* log(-x) */
    NOT_WRITTEN /* it came with another */
};

struct hf_rule {
    const char *from, *to; /* "attn_q" without suffix, or whole names with one */
    enum hf_op op;
};

struct hf_setting { /* a member of config.json from a key of the file; from NULL: none of the name
                     */
    const char *to, *from;
};

enum { HF_UNPAIR = 1, HF_MINUS_ONE = 2 };

struct hf_family {
    const char *data, *name; /* folder of the conformance data; in `architectures` */
    unsigned flags;
    const char *layers; /* "model.layers." */
    const struct hf_rule *rules;
    const struct hf_setting *settings;
    const char *more; /* JSON: further members */
};

/* ---- hf_layouts.c */
enum { HF_FAMILIES = 48 };
extern const struct hf_family hf_families[HF_FAMILIES];
const struct hf_family *hf_family_find(const char *data); /* NULL: none */

/* ---- hf_write.c */
/* Everything as F32, but MXFP4 where the op says so. */
void hf_write_folder(const struct gguf *gguf, const struct hf_family *family, const char *folder);
/* The safetensors file of tensors that were put. */
struct hf_file {
    json_t *header;
    struct buffer data;
};
/* dims[n_dims], the slowest first. Takes nothing over. */
void hf_put(struct hf_file *file, const char *name, const char *dtype, uint32_t n_dims,
            const uint64_t *dims, const void *bytes, size_t n_bytes);
void hf_close(struct hf_file *file, const char *path);

#endif
