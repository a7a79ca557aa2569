#ifndef SKEIN_ENGINE_HF_INNER_H
#define SKEIN_ENGINE_HF_INNER_H

/* Inside the hf folder: a folder on its way to become a GGUF. */
#include <jansson.h>

#include "engine/file/gguf_write.h"
#include "engine/file/safetensors.h"
#include "engine/file/source.h"
#include "engine/hf/hf.h"

enum {
    HF_MAX_FILES = 1024,
    HF_MAX_TENSORS = 1 << 18,
    HF_MAX_CONFIG_BYTES = 4 << 20,
    HF_MAX_INDEX_BYTES = 32 << 20,
    HF_MAX_TOKENIZER_BYTES = 64 << 20,
    HF_MAX_LAYERS = 1024,
    HF_MAX_EXPERTS = 4096,
    HF_MAX_HEADS = 4096,
    HF_MAX_PIECES = 1 << 21 /* of all tensors together: experts, heads, parts */
};

struct hf_file {
    struct file_map map;
    struct safetensors *tensors;
};

struct hf {
    struct hf_file *files; /* [n_files] */
    size_t n_files;
    const struct safetensor **tensors; /* [n_tensors] sorted by name */
    size_t n_tensors;
    struct buffer header;          /* the GGUF header that was made */
    struct tensor_source *sources; /* [tensors of the header] */
    struct source_piece *pieces;   /* of all sources */
    float **vectors;               /* [n_vectors] that no file has */
    size_t n_vectors;
};

/* What is particular to an architecture in its HF form. */
enum hf_flags {
    HF_PAIRS = 1,           /* query and key rows go from halves to pairs */
    HF_NORM_ONE = 2,        /* norms are kept without their 1 */
    HF_CONV1D = 4,          /* matrices of the layers are transposed */
    HF_WINDOW = 8,          /* the engine has sliding windows for it */
    HF_SUM_FREE = 16,       /* experts' weights are not divided by their sum */
    HF_SUM_ONE = 32,        /* they are */
    HF_TEXT_CONFIG = 64,    /* may be the text part of a model that also sees */
    HF_QUERY_SCALAR = 128,  /* query_pre_attn_scalar */
    HF_GRANITE = 256,       /* multipliers */
    HF_TIED = 512,          /* tied where config.json does not say */
    HF_MULTI_QUERY = 1024,  /* one KV head where multi_query says so */
    HF_LATENT = 2048,       /* multi-head latent attention */
    HF_DELTA = 4096,        /* layers with a gated delta net */
    HF_CONV = 8192,         /* layers with a short convolution */
    HF_DEPTH_SCALES = 16384 /* scale_emb, scale_depth, dim_model_base */
};

/* Which part of a stored tensor becomes which of GGUF's. */
enum hf_cut {
    HF_WHOLE,
    HF_FIRST_HALF, /* of the rows */
    HF_SECOND_HALF,
    HF_EVEN, /* rows */
    HF_ODD,
    HF_GROUPED, /* queries, key and value of each KV head lie together; GGUF has all queries first
                 */
    HF_GROUPED_Q,
    HF_GROUPED_K,
    HF_GROUPED_V,
    HF_JOIN_1, /* below one another they are one matrix */
    HF_JOIN_2,
    HF_JOIN_3,
    HF_STACK,    /* vectors that are a tensor each become rows */
    HF_LATENT_K, /* per head the rows of the key part, transposed */
    HF_LATENT_V,
    HF_DELTA_QKV, /* per key head query, key, values, gates */
    HF_DELTA_GATE,
    HF_SQUEEZE,   /* without dimensions of 1 */
    HF_MINUS_EXP, /* -exp(x) */
    HF_BARE,      /* without the 1 that HF_NORM_ONE adds */
    HF_CUTS,
    HF_TRANSPOSED = 64 /* and stored as [columns, rows] */
};

/* Of a tensor, after the layer's prefix and before ".weight" or ".bias"; or with that, where `to`
 * has it too. */
struct hf_name {
    const char *from, *to;
    unsigned cut;
};

struct hf_key { /* a member of config.json under GGUF's key */
    const char *from, *to;
    enum gguf_kind kind; /* U32, F32, BOOL */
};

struct hf_arch {
    const char *name;       /* in config.json's `architectures` */
    const char *arch;       /* GGUF's */
    const char *activation; /* hidden_act begins with it */
    unsigned flags;
    const struct hf_name *names; /* before the common ones; ended by NULL */
    const char *defaults;        /* JSON: members that such files leave out; NULL: none */
    const char *must;            /* JSON: what members must be where they are there; NULL: none */
    const struct hf_key *keys;   /* beside the common ones; ended by NULL; may be NULL */
};

struct hf_build {
    struct hf *hf;
    const char *folder;
    const struct hf_arch *row;
    json_t *root;   /* config.json */
    json_t *config; /* the part that describes the text model */
    struct gguf_writer writer;
    uint32_t n_layers, n_heads, n_kv_heads, head_dim, n_vocab;
    uint32_t nope_dim, value_dim;                                /* of a latent head */
    uint32_t delta_keys, delta_values, delta_k_dim, delta_v_dim; /* heads and their widths */
    uint64_t block_rows, block_cols;                             /* of 8-bit weights' scales */
    /* Divisors of the rotation's angles that become tensors; NULL: none. */
    float *rope_freqs, *rope_long, *rope_short; /* [n_rope_pairs], of hf->vectors */
    uint32_t n_rope_pairs;
    enum status status; /* the first failure */
    struct fault *fault;
};

/* ---- folder.c */
/* The folder's file as JSON; *out is NULL where it is optional and missing. */
enum status hf_read_json(const char *folder, const char *name, size_t max_bytes, bool optional,
                         json_t **out, struct fault *fault) MUST_USE;
/* The folder's file as text, likewise; out stays empty. */
enum status hf_read_text(const char *folder, const char *name, size_t max_bytes, bool optional,
                         struct buffer *out, struct fault *fault) MUST_USE;
const struct safetensor *hf_tensor_find(const struct hf *hf, const char *name);

/* ---- arch.c */
const struct hf_arch *hf_arch_find(const char *name);
const char *hf_arch_names(char *out, size_t out_size);

/* ---- names.c */
/* Entries for a tensor, in a list: *at is NULL for the first and is set to go on with. NULL: no
 * more. `part` is what stands after the layer's prefix, or all of it; *number is what stood in
 * place of a `*`, UINT32_MAX without one. */
const struct hf_name *hf_layer_name(const struct hf_arch *row, const char *part, size_t n_bytes,
                                    const struct hf_name **at, uint32_t *number);
const struct hf_name *hf_model_name(const char *name, size_t n_bytes);

/* ---- layout.c */
struct hf_item { /* a tensor of the folder, or a part of one, under GGUF's name */
    char name[128];
    uint32_t number; /* of an expert, a part or a head; UINT32_MAX: not one of several */
    unsigned cut;
    const struct safetensor *tensor;
};
/* Where items[0..n), which differ in the number only, have their values, and the shape and type
 * that GGUF gives them. pieces has room for hf_pieces(…) of them. */
uint64_t hf_pieces(const struct hf_build *build, const struct hf_item *items, uint32_t n);
struct hf_table_entry {
    enum tensor_type type;
    uint32_t n_dims;
    uint64_t dims[4];
};
void hf_describe(struct hf_build *build, const struct hf_item *items, uint32_t n,
                 struct source_piece *pieces, struct tensor_source *source,
                 struct hf_table_entry *entry);

/* ---- config.c, rope.c, tensors.c, tokenizer.c: parts of the header. Failures go to build->status
 * and build->fault. */
void hf_fail(struct hf_build *build, enum status status, const char *format, ...) PRINTF_LIKE(3, 4);
void hf_write_config(struct hf_build *build);
void hf_write_rope(struct hf_build *build);
void hf_write_tensors(struct hf_build *build);
void hf_write_tokenizer(struct hf_build *build);

/* Members of config.json under one of several names: "a|b.c", a dot leading into an object. null
 * counts as missing. */
json_t *hf_member(const json_t *object, const char *names);
/* false where it is missing; a value of another kind or range is a failure. */
bool hf_u32(struct hf_build *build, const json_t *object, const char *names, uint32_t *out);
bool hf_f32(struct hf_build *build, const json_t *object, const char *names, float *out);
bool hf_bool(const json_t *object, const char *names, bool fallback);
/* "<arch>.<suffix>" keys. */
void hf_key_u32(struct hf_build *build, const char *suffix, uint32_t v);
void hf_key_f32(struct hf_build *build, const char *suffix, float v);
void hf_key_text(struct hf_build *build, const char *suffix, const char *text);

#endif
