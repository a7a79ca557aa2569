/* The tensor table: names, shapes and sources.
 *
 * The folder's tensors are visited in the order of their names. Each is given GGUF's name; experts,
 * which are a tensor each here, are gathered under one name and become the matrices of a tensor of
 * three dimensions. GGUF names dimensions from the fastest on, so shapes are reversed. A tensor
 * whose name is not known goes into the table as it is: the binder (engine/model/tensors.c) refuses
 * it by name. Layers past the last one (multi-token prediction) and the other senses of a model
 * that also sees are left out.
 *
 * What fails: types that the engine cannot compute with, experts that are missing or differ in type
 * or shape. Memory is a small multiple of the number of tensors. */
#include "engine/hf/inner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 128 };

struct item { /* a tensor of the folder under GGUF's name */
    char name[NAME_BYTES];
    uint32_t expert; /* UINT32_MAX: not one of several */
    const struct safetensor *tensor;
};

struct items {
    struct item *list;
    size_t n;
};

/* ---------------------------------------------------------------- names */

static const char *after(const char *text, const char *prefix)
{
    size_t n = strlen(prefix);

    return strncmp(text, prefix, n) == 0 ? text + n : NULL;
}

/* Parts of a model that sees or hears. */
static bool is_other_sense(const char *name)
{
    static const char *const prefixes[] = {"vision_tower.",
                                           "multi_modal_projector.",
                                           "model.vision_tower.",
                                           "model.multi_modal_projector.",
                                           "visual.",
                                           "model.visual."};

    for (size_t i = 0; i < COUNT_OF(prefixes); i++) {
        if (after(name, prefixes[i]))
            return true;
    }
    return false;
}

/* The name as the language model alone would have it: "model.language_model.x" → "model.x". */
static const char *plain_name(const struct hf_build *build, const char *name,
                              char out[static NAME_BYTES])
{
    const char *rest;

    if (!(build->row->flags & HF_TEXT_CONFIG))
        return name;
    rest = after(name, "model.language_model.");
    if (rest) {
        (void)snprintf(out, NAME_BYTES, "model.%s", rest);
        return out;
    }
    rest = after(name, "language_model.");
    return rest ? rest : name;
}

/* What follows "model.layers.N."; NULL: not of a layer. */
static const char *layer_part(const char *name, uint32_t *layer)
{
    static const char *const prefixes[] = {"model.layers.", "transformer.h.", "h."};
    const char *rest = NULL;
    char *end;
    unsigned long n;

    for (size_t i = 0; i < COUNT_OF(prefixes) && !rest; i++)
        rest = after(name, prefixes[i]);
    if (!rest || *rest < '0' || *rest > '9')
        return NULL;
    n = strtoul(rest, &end, 10);
    if (*end != '.' || n >= UINT32_MAX)
        return NULL;
    *layer = (uint32_t)n;
    return end + 1;
}

static uint32_t expert_of(const char *part)
{
    const char *at = strstr(part, "experts.");
    unsigned long n;

    if (!at || at[8] < '0' || at[8] > '9')
        return UINT32_MAX;
    n = strtoul(at + 8, NULL, 10);
    return n < HF_MAX_EXPERTS ? (uint32_t)n : HF_MAX_EXPERTS;
}

/* false: the tensor is left out. */
static bool name_item(const struct hf_build *build, const struct safetensor *tensor,
                      struct item *out)
{
    char plain[NAME_BYTES];
    const char *name = plain_name(build, tensor->name, plain);
    uint32_t layer = 0;
    const char *part = layer_part(name, &layer);
    const char *whole = part ? part : name;
    const char *suffix = strrchr(whole, '.');
    size_t n = suffix ? (size_t)(suffix - whole) : strlen(whole);
    bool is_weight = suffix && (strcmp(suffix, ".weight") == 0 || strcmp(suffix, ".bias") == 0);
    bool is_pick = suffix && strcmp(suffix, ".e_score_correction_bias") == 0;
    const char *known;

    if ((part && layer >= build->n_layers) || is_other_sense(name))
        return false;
    if (is_pick)
        n = strlen(whole) - strlen("_bias");
    known = part ? hf_layer_name(build->row, whole, n) : hf_model_name(whole, n);
    if (!known || (!is_weight && !is_pick)) { /* a name without ".weight", such as a buffer */
        const char *buffer = part ? hf_layer_name(build->row, whole, strlen(whole))
                                  : hf_model_name(whole, strlen(whole));

        known = buffer && !*buffer ? buffer : known && (is_weight || is_pick) ? known : NULL;
    }
    if (known && !*known)
        return false;
    out->tensor = tensor;
    out->expert = known && part ? expert_of(part) : UINT32_MAX;
    if (!known)
        (void)snprintf(out->name, NAME_BYTES, "%.120s", tensor->name);
    else if (part)
        (void)snprintf(out->name, NAME_BYTES, "blk.%u.%s%s", layer, known,
                       is_pick ? ".bias" : suffix);
    else
        (void)snprintf(out->name, NAME_BYTES, "%s%s", known, suffix);
    return true;
}

static int by_name_and_expert(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int order = strcmp(x->name, y->name);

    if (order)
        return order;
    return x->expert < y->expert ? -1 : x->expert > y->expert;
}

/* A tied head may be in the file a second time. */
static bool is_tied_copy(const struct hf_build *build, const struct item *item)
{
    bool tied = hf_bool(build->config, "tie_word_embeddings",
                        hf_bool(build->root, "tie_word_embeddings", build->row->flags & HF_TIED));

    return tied && strcmp(item->name, "output.weight") == 0;
}

static void gather(struct hf_build *build, struct items *items)
{
    items->list = MEM_NEW_N(struct item, build->hf->n_tensors);
    if (!items->list) {
        hf_fail(build, STATUS_NO_MEMORY, "out of memory");
        return;
    }
    for (size_t i = 0; i < build->hf->n_tensors; i++) {
        struct item *item = &items->list[items->n];

        if (name_item(build, build->hf->tensors[i], item) && !is_tied_copy(build, item))
            items->n++;
    }
    if (items->n)
        qsort(items->list, items->n, sizeof *items->list, by_name_and_expert);
}

/* ---------------------------------------------------------------- sources */

static bool name_ends(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);

    return n >= m && strcmp(name + n - m, end) == 0;
}

static bool name_has(const char *name, const char *part)
{
    return strstr(name, part) != NULL;
}

/* Where the folder's layout differs from GGUF's. */
static void describe(const struct hf_build *build, const struct item *item,
                     struct tensor_source *source)
{
    unsigned flags = build->row->flags;
    bool query_or_key = name_has(item->name, ".attn_q.") || name_has(item->name, ".attn_k.");

    if ((flags & HF_PAIRS) && query_or_key)
        source->half_rows = build->head_dim / 2;
    if ((flags & HF_NORM_ONE) && name_ends(item->name, "norm.weight"))
        source->add = 1;
    if ((flags & HF_CONV1D) && item->tensor->n_dims == 2 && strncmp(item->name, "blk.", 4) == 0)
        source->transposed = true;
}

/* The type in the table: vectors and small tables are F32 in every GGUF file. */
static enum tensor_type table_type(const struct item *item, const struct tensor_source *source)
{
    bool vector = item->tensor->n_dims < 2 || name_has(item->name, "ffn_gate_inp") ||
                  name_has(item->name, "position_embd");

    return vector || source->add != 0 ? TENSOR_F32 : source->type;
}

/* One tensor of the table from items[0..n), which differ in the expert only. */
static void add_tensor(struct hf_build *build, const struct item *items, uint32_t n,
                       struct tensor_source *source, const uint8_t **parts)
{
    const struct safetensor *first = items[0].tensor;
    uint64_t dims[4], n_values = 1;
    uint32_t n_dims = first->n_dims ? first->n_dims : 1;
    enum tensor_type type;

    source->type = (enum tensor_type)first->type;
    source->parts = parts;
    source->n_parts = n;
    describe(build, &items[0], source);
    if (n_dims > 2 || (items[0].expert != UINT32_MAX && n_dims != 2)) {
        hf_fail(build, STATUS_UNSUPPORTED, "tensor %.100s has %u dimensions", first->name, n_dims);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        parts[i] = items[i].tensor->data;
        if (items[i].tensor->type != first->type || items[i].tensor->n_bytes != first->n_bytes ||
            items[i].tensor->dims[0] != first->dims[0])
            hf_fail(build, STATUS_FORMAT, "tensor %.100s differs in shape or type from %.100s",
                    items[i].tensor->name, first->name);
        if (items[i].expert != UINT32_MAX && items[i].expert != i)
            hf_fail(build, STATUS_FORMAT, "expert %u of %.60s is missing", i, items[0].name);
    }
    for (uint32_t d = 0; d < n_dims; d++)
        dims[d] = first->dims[source->transposed ? d : n_dims - 1 - d];
    if (source->half_rows && dims[n_dims - 1] % (2 * (uint64_t)source->half_rows))
        hf_fail(build, STATUS_FORMAT, "tensor %.100s does not consist of whole heads", first->name);
    if (items[0].expert != UINT32_MAX)
        dims[n_dims++] = n;
    type = table_type(&items[0], source);
    for (uint32_t d = 0; d < n_dims; d++) {
        if (__builtin_mul_overflow(n_values, dims[d], &n_values) || n_values > INT64_MAX / 8)
            hf_fail(build, STATUS_LIMIT, "tensor %.100s is too large", first->name);
    }
    gguf_write_tensor(&build->writer, items[0].name, strlen(items[0].name), n_dims, dims, type,
                      n_values * tensor_type_info((uint32_t)type)->block_bytes);
}

static void add_vector(struct hf_build *build, const char *name, float *values,
                       struct tensor_source *source, const uint8_t **part)
{
    uint64_t n = build->n_rope_pairs;

    *part = (const uint8_t *)values;
    *source = (struct tensor_source){.type = TENSOR_F32, .n_parts = 1, .parts = part};
    gguf_write_tensor(&build->writer, name, strlen(name), 1, &n, TENSOR_F32, n * sizeof(float));
}

static void add_items(struct hf_build *build, const struct items *items)
{
    struct hf *hf = build->hf;
    size_t at = 0, n_sources = 0;

    for (size_t end; at < items->n && !build->status; at = end) {
        for (end = at + 1;
             end < items->n && strcmp(items->list[at].name, items->list[end].name) == 0; end++)
            ;
        if (items->list[at].tensor->type >= TENSOR_TYPE_LIMIT)
            hf_fail(build, STATUS_UNSUPPORTED,
                    "tensor %.100s has type %s; skein reads folders of F32, F16 and BF16",
                    items->list[at].tensor->name, items->list[at].tensor->dtype);
        else if (end - at > 1 && items->list[at].expert == UINT32_MAX)
            hf_fail(build, STATUS_FORMAT, "tensors %.100s and %.100s are the same",
                    items->list[at].tensor->name, items->list[at + 1].tensor->name);
        else
            add_tensor(build, &items->list[at], (uint32_t)(end - at), &hf->sources[n_sources++],
                       &hf->parts[at]);
    }
    if (build->rope_freqs)
        add_vector(build, "rope_freqs.weight", build->rope_freqs, &hf->sources[n_sources++],
                   &hf->parts[at++]);
    if (build->rope_long)
        add_vector(build, "rope_factors_long.weight", build->rope_long, &hf->sources[n_sources++],
                   &hf->parts[at++]);
    if (build->rope_short)
        add_vector(build, "rope_factors_short.weight", build->rope_short, &hf->sources[n_sources++],
                   &hf->parts[at++]);
}

void hf_write_tensors(struct hf_build *build)
{
    enum { MADE = 3 }; /* divisors of angles */
    struct items items = {0};

    gather(build, &items);
    build->hf->sources = MEM_NEW_N(struct tensor_source, items.n + MADE);
    build->hf->parts = MEM_NEW_N(const uint8_t *, items.n + MADE);
    if (!build->hf->sources || !build->hf->parts)
        hf_fail(build, STATUS_NO_MEMORY, "out of memory");
    if (!build->status)
        add_items(build, &items);
    mem_free(items.list);
}
