#ifndef SKEIN_ENGINE_ENGINE_H
#define SKEIN_ENGINE_ENGINE_H

/* Models, text, shards and sampling: everything that happens to a prompt inside one node. Knows no
 * network and no event loop. Nothing outside this folder may assume host pointers to weights or KV.
 */
#include "proto/base/base.h"

/* ---------------------------------------------------------------- detection */

enum engine_kind { ENGINE_NATIVE, ENGINE_OPENBLAS, ENGINE_COUNT };

struct engine_report {
    enum engine_kind kind;
    const char *name; /* "native", "openblas" */
    bool available;
    char detail[256]; /* what it uses, or why it is not available */
};

struct engine_box {
    char cpu[96];          /* model name */
    char isa[96];          /* what the kernels will use, e.g. "avx512 vnni bf16" */
    uint32_t n_cores;      /* usable by this process: affinity and cgroup quota counted */
    uint64_t memory_bytes; /* of the box or its cgroup, whichever is less */
    uint64_t memory_available_bytes;
    /* What makes these less than the box has; 0: nothing does. */
    uint32_t n_processors;           /* of the box */
    uint32_t n_affinity;             /* that this process may run on, where fewer */
    double core_quota;               /* of its control groups */
    uint64_t memory_installed_bytes; /* of the box */
    uint64_t memory_limit_bytes;     /* of its control groups, where less */
};

void engine_box(struct engine_box *out);

/* Instruction sets of this processor's family for which there are kernels, the least first. */
enum { ENGINE_MAX_ISAS = 24 };
struct engine_isa {
    const char *name; /* what SKEIN_ISA takes */
    bool available, used;
    char why[96]; /* why it is used or not */
};
size_t engine_isas(struct engine_isa out[static ENGINE_MAX_ISAS]);
/* OpenBLAS as it was built and the processor kind it took: "OpenBLAS 0.3.21 … Cooperlake". */
const char *engine_blas_build(void);
const char *engine_blas_core(void);
/* Fills ENGINE_COUNT reports, in the order of automatic choice. */
void engine_detect(struct engine_report out[static ENGINE_COUNT]);
/* forced: a name, or NULL / "" / "auto": native, or openblas where the processor has none of
 * native's instruction sets (told once in the log). A forced engine never falls back. Errors:
 * NOT_FOUND for an unknown name (the sentence lists the names), UNSUPPORTED with the reason. */
enum status engine_choose(const char *forced, enum engine_kind *out, struct fault *fault) MUST_USE;
const char *engine_name(enum engine_kind kind);

/* Measured now, with n_threads, in about 0.2 s: not for the loop thread. */
struct engine_speed {
    double read_bytes_per_second;   /* of weights-like memory */
    double mapped_bytes_per_second; /* of Q8_0 weights in their file that the page cache holds, in
                                     * the product of one row */
    double flops_per_second;        /* of prefill-like matrix products, 2 per multiply-add */
};
enum status engine_measure(enum engine_kind kind, uint32_t n_threads,
                           struct engine_speed *out) MUST_USE;
/* The limits that a benchmark sets its figures beside. Reads of memory in huge pages, bytes per
 * second: the median of sweeps over 256 MB that are taken for the time. About 0.2 s. */
enum status engine_measure_read(uint32_t n_threads, double *out) MUST_USE;
/* Multiply-adds in registers, 2 operations each; 0 where the processor has no instruction for them.
 * About 0.1 s. */
struct engine_peak {
    double f32_per_second, bf16_per_second, int8_per_second;
};
enum status engine_measure_peak(uint32_t n_threads, struct engine_peak *out) MUST_USE;

/* ---------------------------------------------------------------- models */

struct model; /* an open model file: metadata, tensors, vocabulary, template. Immutable; shareable
               * between threads. */

struct model_info {
    const char *name; /* general.name, or the file's name; borrowed from the model */
    const char *architecture;
    const char *types; /* tensor types by bytes, e.g. "Q4_K 78 %, Q6_K 22 %" */
    uint32_t n_layers, n_embd, n_vocab, n_ctx_train;
    uint32_t n_heads, n_kv_heads, n_ff;
    uint32_t n_experts, n_experts_used; /* 0: dense */
    uint64_t n_parameters;
    uint64_t file_bytes;
    bool has_tensors;    /* false: vocabulary only */
    uint32_t row_floats; /* of a row between stages: n_embd, and what later layers need besides */
    bool tied;           /* the output head is the embedding */
    bool rewinds; /* KV can be cut at any token; false: shard_truncate forgets the whole slot */
    /* [n_layers], owned by the model: */
    const uint64_t *layer_bytes;        /* weights */
    const uint64_t *layer_active_bytes; /* read per decoded token */
    const uint64_t *layer_kv_bytes;     /* KV per token, f32 as the KV cache stores it */
    const double *layer_flops;          /* per row */
    uint64_t embed_bytes, head_bytes, head_active_bytes; /* as struct plan_model has them */
    double head_flops;
};

/* Maps a GGUF file, all files of one that is split, or those of a Hugging Face folder (config.json
 * beside *.safetensors), and checks every length, offset and shape in it. Errors: NOT_FOUND,
 * PERMISSION, IO, FORMAT, TRUNCATED, LIMIT, UNSUPPORTED (a file version). An architecture or a
 * tensor type that cannot be run is not an error here: see model_runnable. Blocking: not for the
 * loop thread. */
enum status model_open(const char *path, struct model **out, struct fault *fault) MUST_USE;
/* A Hugging Face folder: a folder with a config.json in it. */
bool model_is_folder(const char *path);
/* A GGUF model may be split over files called NAME-00001-of-00003.gguf and so on; the path of any
 * of them opens all. The number of files that a path stands for by its name (1: not split), and
 * which of them it is, from 1. */
uint32_t model_part_count(const char *path, uint32_t *number);
/* The path of part `number`, the caller's (mem_free); NULL: no memory. */
char *model_part_path(const char *path, uint32_t number);
/* Length of the path without "-00001-of-00003.gguf"; all of it where it is not split. */
size_t model_part_stem(const char *path);
/* The same from memory that outlives the model. */
enum status model_open_memory(const void *data, size_t size_bytes, const char *name,
                              struct model **out, struct fault *fault) MUST_USE;
/* skein-tiny, built into the program. */
void model_demo(const void **data, size_t *size_bytes);
void model_free(struct model **model);
const struct model_info *model_info(const struct model *model);
/* OK, or UNSUPPORTED naming the architecture, tensor type, tokenizer or missing tensor, FORMAT for
 * shapes that contradict the metadata. Done before any work starts. */
enum status model_runnable(const struct model *model, enum engine_kind kind,
                           struct fault *fault) MUST_USE;
/* The same without the tokenizer: token ids can be run through the layers. */
enum status model_computable(const struct model *model, enum engine_kind kind,
                             struct fault *fault) MUST_USE;

/* How an instance holds a model: all its stages hold it alike. Zeroed: as the file has it, KV in
 * float32. */
enum kv_type { KV_F32, KV_F16, KV_Q8_0, KV_TYPE_COUNT };
struct model_form {
    enum kv_type kv_type;
    uint32_t quantize; /* GGUF number of the type that matrices are turned into; 0: as stored */
    /* Which they are and what they become is as in model_convert's files, to the bit: matrices that
     * the type makes smaller; any other tensor stays as it is. */
    bool mapped; /* matrices are used where the file has them: memory of the page cache, which the
                  * system takes back where it is short, instead of a private copy. Same results to
                  * the bit, and slower: engine_speed.mapped_bytes_per_second, or the disk. What is
                  * turned into another type or another layout has its copy all the same. */
};
/* kv: "f32", "f16", "q8_0"; quantize: a type that model_convert writes; case is no matter, NULL or
 * "" is the default. Errors: INVALID, with the names there are. */
enum status model_form_parse(const char *kv, const char *quantize, struct model_form *out,
                             struct fault *fault) MUST_USE;
const char *kv_type_name(enum kv_type type);
const char *weight_type_name(uint32_t quantize); /* "Q4_K"; NULL: as stored, or no type */
/* model_info's numbers for a form. Arrays are [n_layers] and owned: model_costs_free. Bytes that
 * are used in the file are active, but take no memory: those of layer, embedding and head leave
 * them out. */
struct model_costs {
    uint64_t *layer_bytes, *layer_active_bytes, *layer_kv_bytes;
    uint64_t embed_bytes, head_bytes, head_active_bytes;
};
enum status model_costs(const struct model *model, const struct model_form *form,
                        struct model_costs *out) MUST_USE;
void model_costs_free(struct model_costs *costs);

/* Writes the model as a GGUF v3 file, matrices in the type named ("Q8_0"; those whose rows are no
 * whole blocks in a type of shorter ones, F16 at last), vectors as they are. No tensor grows: one
 * that has as few bytes already keeps its type. Only "F32" decodes all there is. Streams: a few
 * rows in memory at a time. The file appears under its name once it is whole. Errors: INVALID (the
 * type; the sentence lists them), UNSUPPORTED (a tensor that cannot be read), IO, NO_MEMORY,
 * CANCELLED. Blocking, for minutes. */
struct model_convert {
    const char *path, *type;
    /* After each tensor; false: stop. May be NULL. */
    bool (*on_tensor)(void *owner, size_t n_done, size_t n_total);
    void *owner;
};
enum status model_convert(const struct model *model, const struct model_convert *what,
                          struct fault *fault) MUST_USE;

/* ---------------------------------------------------------------- text */

struct token_list { /* zero-initialise; token_list_free */
    uint32_t *ids;
    size_t n;
    size_t capacity;
};
enum status token_list_add(struct token_list *list, uint32_t id) MUST_USE;
void token_list_free(struct token_list *list);

enum token_flags {
    TOKENS_ADD_SPECIAL = 1,  /* BOS / EOS as the vocabulary asks */
    TOKENS_PARSE_SPECIAL = 2 /* "<|im_end|>" in the text becomes its token */
};

/* Appends to `out`. text is n_bytes of any bytes. Works for vocabulary-only files. Errors:
 * UNSUPPORTED (tokenizer kind or pre-tokenizer named), NO_MEMORY, LIMIT. */
enum status model_tokenize(const struct model *model, const char *text, size_t n_bytes,
                           unsigned flags, struct token_list *out, struct fault *fault) MUST_USE;
bool model_token_ends(const struct model *model, uint32_t id); /* EOS, EOT and their like */
uint32_t model_token_count(const struct model *model);

/* Streaming detokenizer: bytes come out as soon as they form whole UTF-8 characters. */
struct detok;
enum detok_flags {
    DETOK_SPECIAL = 1,   /* control tokens are written out */
    DETOK_CONTINUES = 2, /* the tokens go on a text: a leading blank of the first one stays */
    DETOK_CLEAN = 4,     /* blanks before punctuation go where the vocabulary's own decoder drops
                          * them; all text then comes out at detok_finish */
    DETOK_RAW = 8        /* bytes that form no character come out as they are, not as U+FFFD */
};
enum status detok_new(const struct model *model, unsigned flags, struct detok **out) MUST_USE;
enum status detok_push(struct detok *detok, uint32_t id, struct buffer *out) MUST_USE;
/* What is left at the end; incomplete characters come out as U+FFFD, or raw with `raw`. */
enum status detok_finish(struct detok *detok, bool raw, struct buffer *out) MUST_USE;
void detok_free(struct detok **detok);

struct chat_request {
    const char *messages_json; /* array of {role, content, …}; NUL-terminated UTF-8 */
    const char *tools_json;    /* array or NULL */
    const char *kwargs_json;   /* object of further template variables, or NULL */
    const char *template_text; /* NULL: the model's own */
    bool no_generation_prompt;
    int64_t now_unix_seconds; /* for strftime_now, shown as it is: see chat_local_seconds */
};
/* The box's local time (TZ) of a moment, as if its clock's digits were UTC: what strftime_now shows
 * in Python. */
int64_t chat_local_seconds(int64_t unix_seconds);
/* Renders the prompt text into `out`. model may be NULL when template_text is given. Errors:
 * INVALID (messages of a wrong shape, raise_exception's own words), UNSUPPORTED (no template in the
 * model, or a construct that the interpreter lacks, with its line), LIMIT (time, depth, output). */
enum status chat_render(const struct model *model, const struct chat_request *request,
                        struct buffer *out, struct fault *fault) MUST_USE;

/* ---------------------------------------------------------------- shards */

enum { SHARD_KV_BLOCK_TOKENS = 32, SHARD_MAX_ROWS = 512 };

/* Which part of a model this node runs and with what. A struct, so that tensor slices can join. */
struct shard_spec {
    uint32_t layer_begin, layer_end;
    bool embed;            /* holds the token embedding */
    bool head;             /* holds final norm and output head */
    uint32_t n_slots;      /* sequences at once; a slot is a sequence's KV */
    uint32_t n_ctx_tokens; /* most tokens of one sequence */
    uint32_t n_kv_blocks;  /* KV budget over all slots, in blocks of SHARD_KV_BLOCK_TOKENS */
    uint32_t max_rows;     /* most rows of one pass, ≤ SHARD_MAX_ROWS */
    uint32_t n_threads;    /* of the shard's own pool, calling thread included */
    enum engine_kind engine;
    struct model_form form;
    bool lock; /* weights and KV may not be swapped out; PERMISSION where the limit forbids it */
    /* Called by shard_open as it reads, on its thread: bytes of weights done, and in all. NULL:
     * nobody asks. */
    void (*on_load)(void *owner, uint64_t done_bytes, uint64_t total_bytes);
    void *on_load_owner;
};

struct shard_need {
    uint64_t weight_bytes, kv_bytes, scratch_bytes;
    uint64_t mapped_bytes; /* weights used in the file, beside the others; 0 but for form.mapped */
};

struct shard; /* weights, KV and threads of one stage. One caller at a time, any thread. */

void shard_need(const struct model *model, const struct shard_spec *spec, struct shard_need *out);
/* Touches only the shard's own tensors. The model must outlive the shard. Blocking. Errors:
 * NO_MEMORY, INVALID, UNSUPPORTED. */
enum status shard_open(const struct model *model, const struct shard_spec *spec, struct shard **out,
                       struct fault *fault) MUST_USE;
void shard_free(struct shard **shard);

/* One row of a pass: token position `pos` of the sequence in `slot`. Rows of a slot come in order
 * of pos without gaps, starting where the slot's KV ends. */
struct shard_row {
    uint32_t slot;
    uint32_t pos;
};

/* hidden is n_rows · row_floats float32 throughout: [n_rows, n_embd] row-major, and behind it,
 * where a model has them, [n_rows, row_floats - n_embd]: inputs of later layers that only the token
 * gives, keys and values that later layers share. shard_logits wants the first part alone. */
enum status shard_embed(struct shard *shard, const uint32_t *tokens, size_t n_rows,
                        float *hidden) MUST_USE;
/* Runs layers [layer_begin, layer_end) in place; n_rows ≤ max_rows. A row's result depends on its
 * own sequence only, bit for bit (native engine), whatever the other rows, the chunking and the
 * number of threads. Errors: INVALID for rows out of order or range; NO_ROOM where the KV budget is
 * used up; the KV is unchanged on failure. */
enum status shard_forward(struct shard *shard, const struct shard_row *rows, size_t n_rows,
                          float *hidden) MUST_USE;
/* logits [n_rows, n_vocab]; hidden is used as scratch. */
enum status shard_logits(struct shard *shard, float *hidden, size_t n_rows, float *logits) MUST_USE;
/* Forgets positions ≥ from of the slot (0: all) and returns its blocks to the budget. Layers with a
 * running state (convolutions, delta nets; model_info.rewinds is false) cannot go back: there the
 * slot is empty afterwards, whatever from is, unless nothing lay behind it. */
void shard_truncate(struct shard *shard, uint32_t slot, uint32_t from);
/* For benchmarks: lengthens the slot to n_tokens without computing them. Its KV so far, at least
 * one block, is repeated, so all pages are there and are read as those of a long text are; what the
 * layers then say means nothing. Errors: INVALID (less than a block to repeat, shorter than it is),
 * CONTEXT, NO_ROOM; the KV is unchanged on failure. */
enum status shard_repeat(struct shard *shard, uint32_t slot, uint32_t n_tokens) MUST_USE;

/* ---------------------------------------------------------------- sampling */

struct sample_bias {
    uint32_t id;
    float bias; /* added to the logit; -INFINITY bans the token */
};

/* Fields after the seed are off where they are zero. Order of the chain: biases -> repetition,
 * frequency and presence penalties -> DRY -> (temperature 0: arg max) -> top-k -> typical -> top-p
 * -> min-p -> XTC -> temperature -> draw. */
struct sample_params {
    float temperature;      /* 0: greedy */
    uint32_t top_k;         /* 0: off */
    float top_p;            /* 1: off */
    float min_p;            /* 0: off */
    float repeat_penalty;   /* 1: off */
    uint32_t repeat_last_n; /* tokens looked back on, by the three penalties */
    uint64_t seed;
    float typical_p;              /* 0 or 1: off */
    float frequency_penalty;      /* times the token's count is taken from its logit */
    float presence_penalty;       /* is taken from the logit of a token that occurs */
    float dry_multiplier;         /* what would repeat more than dry_allowed_length tokens loses */
    float dry_base;               /* multiplier x base ^ (length - allowed length); 0: 1.75 */
    uint32_t dry_allowed_length;  /* 0: 2 */
    uint32_t dry_last_n;          /* tokens looked back on; 0: as many as the sampler can (16384) */
    const uint32_t *dry_breakers; /* tokens that no repetition goes across, ascending; borrowed */
    size_t n_dry_breakers;
    float xtc_probability; /* how often all but the least of the tokens above the threshold go */
    float xtc_threshold;
    const struct sample_bias *biases; /* borrowed */
    size_t n_biases;
};
void sample_defaults(struct sample_params *out); /* 0.8, 40, 0.95, 0.05, 1.0, 64, seed 0 */

/* Where a setting comes from, the first that says it: the request (API field, flag, environment,
 * config file), the model (below), sample_defaults. The head resolves it, which has the model. */
enum sample_setting {
    SAMPLE_TEMPERATURE = 1,
    SAMPLE_TOP_K = 2,
    SAMPLE_TOP_P = 4,
    SAMPLE_MIN_P = 8,
    SAMPLE_TYPICAL_P = 16,
    SAMPLE_REPEAT_PENALTY = 32,
    SAMPLE_REPEAT_LAST_N = 64,
    SAMPLE_XTC_PROBABILITY = 128,
    SAMPLE_XTC_THRESHOLD = 256,
    SAMPLE_SETTINGS = 511 /* all of them */
};
/* Copies the settings named (a set of enum sample_setting) and nothing else. */
static inline void sample_take(struct sample_params *to, const struct sample_params *from,
                               unsigned settings)
{
    to->temperature = settings & SAMPLE_TEMPERATURE ? from->temperature : to->temperature;
    to->top_k = settings & SAMPLE_TOP_K ? from->top_k : to->top_k;
    to->top_p = settings & SAMPLE_TOP_P ? from->top_p : to->top_p;
    to->min_p = settings & SAMPLE_MIN_P ? from->min_p : to->min_p;
    to->typical_p = settings & SAMPLE_TYPICAL_P ? from->typical_p : to->typical_p;
    to->repeat_penalty =
        settings & SAMPLE_REPEAT_PENALTY ? from->repeat_penalty : to->repeat_penalty;
    to->repeat_last_n = settings & SAMPLE_REPEAT_LAST_N ? from->repeat_last_n : to->repeat_last_n;
    to->xtc_probability =
        settings & SAMPLE_XTC_PROBABILITY ? from->xtc_probability : to->xtc_probability;
    to->xtc_threshold = settings & SAMPLE_XTC_THRESHOLD ? from->xtc_threshold : to->xtc_threshold;
}
/* What the model's makers recommend (GGUF general.sampling.*, generation_config.json): overwrites
 * the settings that the file has, and returns which they are. */
unsigned model_sampling(const struct model *model, struct sample_params *out);
/* The tokens of the model that hold a newline, colon, quotation mark or asterisk: what dry_breakers
 * usually are. Ascending, the model's. */
const uint32_t *model_dry_breakers(const struct model *model, size_t *n);
enum status sample_check(const struct sample_params *params, struct fault *fault) MUST_USE;

/* Scratch for one vocabulary size; reused between calls, no allocation in sample_token. */
struct sampler;
enum status sampler_new(uint32_t n_vocab, struct sampler **out) MUST_USE;
void sampler_free(struct sampler **sampler);
/* The next token, a pure function of (logits, params, history, position): logits [n_vocab] is used
 * as scratch; history ends the sequence so far, of which position is the length, and is at least as
 * long as repeat_last_n and dry_last_n ask or the sequence is. Randomness is a
 * counter-based generator keyed by (seed, position), so a sequence that is taken up elsewhere goes
 * on with the very same tokens. */
uint32_t sample_token(struct sampler *sampler, const struct sample_params *params, float *logits,
                      const uint32_t *history, size_t n_history, uint64_t position);

#endif
