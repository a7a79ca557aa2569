#ifndef SKEIN_NODE_CLI_CHOICE_H
#define SKEIN_NODE_CLI_CHOICE_H

/* The options that describe a node, shared by `up` and by the commands that may start a node inside
 * their own process. */
#include "node/cli/cli.h"
#include "node/node.h"

struct node_choice {
    const char *engine;
    uint64_t memory_bytes;
    uint32_t n_threads, n_ctx_tokens, n_slots;
    int objective;
    const char *kv, *quantize;
    bool lock, mapped;
    struct option_list folders, files;
};

extern const char *const choice_objectives[]; /* in the order of enum plan_objective */

#define NODE_CHOICE_OPTIONS(type, field)                                                           \
    OPTION("engine", OPTION_TEXT, offsetof(type, field.engine), "NAME",                            \
           "Engine to use; without it the best one that works here"),                              \
        OPTION("memory", OPTION_SIZE, offsetof(type, field.memory_bytes), "SIZE",                  \
               "Memory that models may use; without it what is free, less a reserve"),             \
        OPTION("threads", OPTION_COUNT, offsetof(type, field.n_threads), "N",                      \
               "Compute threads; without it one per core", .min = 1, .max = 1024),                 \
        OPTION("context", OPTION_COUNT, offsetof(type, field.n_ctx_tokens), "TOKENS",              \
               "Context to provide where the model and the memory allow it", .fallback = "4096",   \
               .min = 32, .max = 4194304),                                                         \
        OPTION("parallel", OPTION_COUNT, offsetof(type, field.n_slots), "N",                       \
               "Answers worked on at once", .fallback = "4", .min = 1, .max = 256),                \
        OPTION("objective", OPTION_CHOICE, offsetof(type, field.objective), "WORD",                \
               "Plan for one fast stream or for many streams", .fallback = "latency",              \
               .choices = choice_objectives),                                                      \
        OPTION("kv", OPTION_TEXT, offsetof(type, field.kv), "TYPE",                                \
               "Keys and values as f32, f16 or q8_0 in the models that this node heads",           \
               .fallback = "f32"),                                                                 \
        OPTION("quantize", OPTION_TEXT, offsetof(type, field.quantize), "TYPE",                    \
               "Turn weights into this type on load, such as Q8_0, Q4_0 or BF16_DOT"),             \
        OPTION("lock", OPTION_FLAG, offsetof(type, field.lock), NULL,                              \
               "Keep weights, keys and values from being swapped out"),                            \
        OPTION("mapped", OPTION_FLAG, offsetof(type, field.mapped), NULL,                          \
               "Use weights in their file, without a copy in memory: slower, for models that are " \
               "too large"),                                                                       \
        OPTION("models", OPTION_LIST, offsetof(type, field.folders), "DIR",                        \
               "Folder with model files, beside $XDG_DATA_HOME/skein/models"),                     \
        OPTION("model", OPTION_LIST, offsetof(type, field.files), "FILE", "Model file to offer")

struct node_choice_places { /* what node_options borrows; keep it as long as they are used */
    char data_folder[CONFIG_MAX_PATH + 8];
    const char *folders[CONFIG_MAX_LIST + 1];
};
/* Fills the model, engine, memory and scheduling parts of `out`. Errors: those of engine_choose. */
enum status node_choice_apply(const struct node_choice *choice, struct node_choice_places *places,
                              struct node_options *out, struct fault *fault) MUST_USE;
/* Weights of which memory has no room for a copy stay in their file (form.mapped); says so. */
void choice_fit(const struct model *model, struct shard_spec *spec);

#endif
