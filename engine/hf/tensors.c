/* The tensor table: names, shapes and sources.
 *
 * The folder's tensors are visited in the order of their names. Each is given GGUF's name, or
 * several where it is cut; experts and other parts that are a tensor each are gathered under one.
 * What becomes of their values is layout.c's matter. A tensor
 * whose name is not known goes into the table as it is: the binder (engine/model/tensors.c) refuses
 * it by name. Layers past the last one (multi-token prediction) and the other senses of a model
 * that also sees are left out.
 *
 * What fails: two tensors of one name, and what layout.c refuses. Memory is a small multiple of the
 * number of tensors. */
#include "engine/hf/inner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = sizeof(((struct hf_item *)0)->name) };

struct items {
    struct hf_item *list;
    size_t n, capacity;
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
    static const char *const prefixes[] = {"model.layers.", "transformer.h.", "gpt_neox.layers.",
                                           "transformer.blocks.", "h."};
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

/* What goes along with a weight and is found from there, or is not used. */
static bool is_companion(const char *name)
{
    static const char *const ends[] = {".weight_scale", ".weight_scale_inv", ".input_scale",
                                       "_proj_scales",  ".activation_scale", ".k_scale",
                                       ".v_scale"};
    size_t n = strlen(name);

    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        size_t m = strlen(ends[i]);

        if (n > m && strcmp(name + n - m, ends[i]) == 0)
            return true;
    }
    return false;
}

static struct hf_item *item_new(struct hf_build *build, struct items *items,
                                const struct safetensor *tensor)
{
    if (items->n == items->capacity) {
        size_t more = items->capacity + items->capacity / 2 + 64;
        struct hf_item *grown = mem_resize(items->list, more, sizeof *grown);

        if (!grown) {
            hf_fail(build, STATUS_NO_MEMORY, "out of memory");
            return NULL;
        }
        items->list = grown;
        items->capacity = more;
    }
    items->list[items->n] = (struct hf_item){.tensor = tensor, .number = UINT32_MAX};
    return &items->list[items->n++];
}

/* Number of a part where the name does not have it. */
static uint32_t number_of(unsigned cut, uint32_t number)
{
    cut &= HF_TRANSPOSED - 1;
    return cut >= HF_JOIN_1 && cut <= HF_JOIN_3 ? cut - HF_JOIN_1 : number;
}

/* Adds what a tensor of a layer becomes, under the entries for its name up to n bytes; false: there
 * are none. `suffix` is what GGUF's name ends with, unless the entry has it. */
static bool add_layer_items(struct hf_build *build, struct items *items,
                            const struct safetensor *tensor, uint32_t layer, const char *part,
                            size_t n, const char *suffix)
{
    const struct hf_name *at = NULL, *found;
    uint32_t number;
    bool known = false;

    while ((found = hf_layer_name(build->row, part, n, &at, &number)) != NULL) {
        struct hf_item *item;

        known = true;
        if (!*found->to)
            continue;
        item = item_new(build, items, tensor);
        if (!item)
            return true;
        item->cut = found->cut;
        item->number = number_of(found->cut, number);
        (void)snprintf(item->name, NAME_BYTES, "blk.%u.%s%s", layer, found->to, suffix);
    }
    return known;
}

static bool has_weight_suffix(const char *suffix)
{
    return suffix && (strcmp(suffix, ".weight") == 0 || strcmp(suffix, ".bias") == 0);
}

static void add_item(struct hf_build *build, struct items *items, const struct safetensor *tensor)
{
    char plain[NAME_BYTES];
    const char *name = plain_name(build, tensor->name, plain);
    uint32_t layer = 0;
    const char *part = layer_part(name, &layer);
    const char *whole = part ? part : name;
    const char *suffix = strrchr(whole, '.');
    size_t n = has_weight_suffix(suffix) ? (size_t)(suffix - whole) : strlen(whole);
    const struct hf_name *found;
    struct hf_item *item;

    if ((part && layer >= build->n_layers) || is_other_sense(name) || is_companion(name))
        return;
    if (part && has_weight_suffix(suffix) &&
        add_layer_items(build, items, tensor, layer, part, n, suffix))
        return;
    if (part && add_layer_items(build, items, tensor, layer, part, strlen(part), ""))
        return;
    found = part ? NULL : hf_model_name(whole, n);
    if (found && !*found->to)
        return;
    item = item_new(build, items, tensor);
    if (!item)
        return;
    if (found && has_weight_suffix(suffix))
        (void)snprintf(item->name, NAME_BYTES, "%s%s", found->to, suffix);
    else
        (void)snprintf(item->name, NAME_BYTES, "%.120s", tensor->name);
}

static int by_name_and_number(const void *a, const void *b)
{
    const struct hf_item *x = a, *y = b;
    int order = strcmp(x->name, y->name);

    if (order)
        return order;
    return x->number < y->number ? -1 : x->number > y->number;
}

/* A tied head may be in the file a second time. */
static bool head_is_tied(const struct hf_build *build)
{
    return hf_bool(build->config, "tie_word_embeddings",
                   hf_bool(build->root, "tie_word_embeddings", build->row->flags & HF_TIED));
}

static void gather(struct hf_build *build, struct items *items)
{
    bool tied = head_is_tied(build);

    for (size_t i = 0; i < build->hf->n_tensors && !build->status; i++) {
        size_t before = items->n;

        add_item(build, items, build->hf->tensors[i]);
        if (tied && items->n > before &&
            strcmp(items->list[items->n - 1].name, "output.weight") == 0)
            items->n--;
    }
    if (items->n)
        qsort(items->list, items->n, sizeof *items->list, by_name_and_number);
}

/* ---------------------------------------------------------------- the table */

/* One tensor of the table from items[0..n), which differ in the number only. */
static void add_tensor(struct hf_build *build, const struct hf_item *items, uint32_t n,
                       struct tensor_source *source, struct source_piece *pieces)
{
    struct hf_table_entry entry = {0};
    uint64_t n_values = 1;
    const struct tensor_type_info *info;

    hf_describe(build, items, n, pieces, source, &entry);
    info = tensor_type_info((uint32_t)entry.type);
    for (uint32_t d = 0; d < entry.n_dims && !build->status; d++) {
        if (__builtin_mul_overflow(n_values, entry.dims[d], &n_values) || n_values > INT64_MAX / 8)
            hf_fail(build, STATUS_LIMIT, "tensor %.100s is too large", items[0].tensor->name);
    }
    if (!build->status)
        gguf_write_tensor(&build->writer, items[0].name, strlen(items[0].name), entry.n_dims,
                          entry.dims, entry.type,
                          n_values / info->block_values * info->block_bytes);
}

static void add_vector(struct hf_build *build, const char *name, const float *values,
                       struct tensor_source *source, struct source_piece *piece)
{
    uint64_t n = build->n_rope_pairs;

    if (!values)
        return;
    *piece = (struct source_piece){
        .data = (const uint8_t *)values, .n_bytes = n * sizeof(float), .n_rows = n};
    *source = (struct tensor_source){.type = TENSOR_F32,
                                     .n_matrices = 1,
                                     .n_joined = 1,
                                     .pieces = piece,
                                     .stored_cols = n,
                                     .vector = true};
    gguf_write_tensor(&build->writer, name, strlen(name), 1, &n, TENSOR_F32, n * sizeof(float));
}

/* Items of the same name from `at` on. */
static size_t same_name(const struct items *items, size_t at)
{
    size_t end = at + 1;

    while (end < items->n && strcmp(items->list[at].name, items->list[end].name) == 0)
        end++;
    return end - at;
}

static void add_items(struct hf_build *build, const struct items *items)
{
    struct hf *hf = build->hf;
    struct tensor_source *source = hf->sources;
    struct source_piece *piece = hf->pieces;

    for (size_t at = 0, n; at < items->n && !build->status; at += n) {
        const struct hf_item *item = &items->list[at];

        n = same_name(items, at);
        if (n > 1 && item->number == UINT32_MAX) {
            hf_fail(build, STATUS_FORMAT, "tensors %.100s and %.100s are the same",
                    item->tensor->name, item[1].tensor->name);
            return;
        }
        add_tensor(build, item, (uint32_t)n, source++, piece);
        piece += hf_pieces(build, item, (uint32_t)n);
    }
    if (build->status)
        return;
    add_vector(build, "rope_freqs.weight", build->rope_freqs, source, piece);
    source += build->rope_freqs != NULL;
    piece += build->rope_freqs != NULL;
    add_vector(build, "rope_factors_long.weight", build->rope_long, source, piece);
    source += build->rope_long != NULL;
    piece += build->rope_long != NULL;
    add_vector(build, "rope_factors_short.weight", build->rope_short, source, piece);
}

void hf_write_tensors(struct hf_build *build)
{
    enum { MADE = 3 }; /* divisors of angles */
    struct items items = {0};
    size_t n_pieces = MADE;

    gather(build, &items);
    for (size_t at = 0, n; at < items.n; at += n) {
        n = same_name(&items, at);
        n_pieces += hf_pieces(build, &items.list[at], (uint32_t)n);
    }
    if (n_pieces > HF_MAX_PIECES)
        hf_fail(build, STATUS_LIMIT, "the tensors have more than %d parts", HF_MAX_PIECES);
    if (!build->status) {
        build->hf->sources = MEM_NEW_N(struct tensor_source, items.n + MADE);
        build->hf->pieces = MEM_NEW_N(struct source_piece, n_pieces);
        if (!build->hf->sources || !build->hf->pieces)
            hf_fail(build, STATUS_NO_MEMORY, "out of memory");
    }
    if (!build->status)
        add_items(build, &items);
    mem_free(items.list);
}
