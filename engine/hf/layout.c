/* From a folder's tensors to a source: which rows, in which order, in which coding.
 *
 * A family may keep one matrix per expert or one for all, projections joined or apart, queries and
 * keys by KV head, matrices transposed, weights as 8-bit floats with scales in a tensor beside
 * them. All of that is said in numbers here (struct tensor_source), from the name's cut (enum
 * hf_cut) and the sizes in config.json, and every shape is compared with them: what reads through a
 * source checks nothing.
 *
 * 8-bit floats times a scale are exact in bfloat16 where the scales are powers of two or close to
 * it, and in float32 otherwise: scales are looked at once, they are few.
 *
 * What fails: shapes that contradict the sizes, parts that are missing or differ, scales that are
 * missing, of another shape, or beside weights that are not 8-bit floats. */
#include "engine/hf/inner.h"

#include <stdio.h>
#include <string.h>

/* A tensor as stored, in matrices; vectors are one row of matrices, of one matrix. */
struct stored {
    uint64_t n_matrices, n_rows, n_cols;
    bool vector;
};

static enum hf_cut cut_of(const struct hf_item *item)
{
    return (enum hf_cut)(item->cut & (HF_TRANSPOSED - 1));
}

static bool name_ends(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);

    return n >= m && strcmp(name + n - m, end) == 0;
}

static bool name_has(const char *name, const char *part)
{
    return strstr(name, part) != NULL;
}

static bool is_several(const struct hf_item *item)
{
    return item->number != UINT32_MAX;
}

static bool is_joined(const struct hf_item *item)
{
    enum hf_cut cut = cut_of(item);

    return cut == HF_STACK || (cut >= HF_JOIN_1 && cut <= HF_JOIN_3);
}

static bool is_fp4(const struct hf_item *item)
{
    return strcmp(item->tensor->dtype, "U8") == 0 && name_ends(item->tensor->name, "_blocks");
}

static bool is_eighths(const struct hf_item *item)
{
    return strcmp(item->tensor->dtype, "F8_E4M3") == 0 ||
           strcmp(item->tensor->dtype, "F8_E5M2") == 0;
}

static void shape_fault(struct hf_build *build, const struct hf_item *item)
{
    hf_fail(build, STATUS_FORMAT, "tensor %.100s has a shape that config.json does not allow for",
            item->tensor->name);
}

/* ---------------------------------------------------------------- shapes */

static struct stored stored_of(struct hf_build *build, const struct hf_item *item)
{
    const struct safetensor *t = item->tensor;
    struct stored s = {1, 1, t->dims[0], true};
    uint64_t dims[SAFETENSORS_MAX_DIMS];
    uint32_t n = 0;

    for (uint32_t d = 0; d < t->n_dims; d++) {
        if (cut_of(item) != HF_SQUEEZE || t->dims[d] != 1)
            dims[n++] = t->dims[d];
    }
    if (is_fp4(item)) {
        if (n != 4 || dims[3] != 16 || dims[2] > UINT32_MAX)
            shape_fault(build, item);
        return (struct stored){dims[0], dims[1], n == 4 ? 32 * dims[2] : 1, false};
    }
    if (n == 1)
        s.n_cols = dims[0];
    else if (n == 2 && name_ends(item->name, ".bias"))
        s = (struct stored){1, dims[0], dims[1], true};
    else if (n == 2)
        s = (struct stored){1, dims[0], dims[1], false};
    else if (n == 3 && !is_several(item) && name_has(item->name, "_exps."))
        s = (struct stored){dims[0], dims[1], dims[2], false};
    else if (n > 2)
        hf_fail(build, STATUS_UNSUPPORTED, "tensor %.100s has %u dimensions", t->name, t->n_dims);
    return s;
}

uint64_t hf_pieces(const struct hf_build *build, const struct hf_item *items, uint32_t n)
{
    enum hf_cut cut = cut_of(&items[0]);
    uint64_t wanted = n;

    if (cut == HF_LATENT_K || cut == HF_LATENT_V)
        wanted = build->n_heads;
    else if (n == 1 && items[0].tensor->n_dims >= 3)
        wanted = items[0].tensor->dims[0];
    return wanted < 1                ? 1
           : wanted < HF_MAX_EXPERTS ? wanted
           : n > HF_MAX_EXPERTS      ? n
                                     : HF_MAX_EXPERTS;
}

/* ---------------------------------------------------------------- cuts */

/* Rows that come in groups; the sections of one are wanted. */
static void set_groups(struct tensor_source *source, uint64_t group_rows, uint64_t n_groups,
                       uint32_t n_sections, const struct source_section *sections)
{
    source->group_rows = group_rows;
    source->n_groups = n_groups;
    source->n_sections = n_sections;
    memcpy(source->sections, sections, n_sections * sizeof *sections);
}

/* Sets what is wanted of n_all rows, in groups that config.json gives; how many that are, or 0
 * where they do not add up. */
static uint64_t cut_groups(const struct hf_build *build, enum hf_cut cut, uint64_t n_all,
                           struct tensor_source *source)
{
    uint64_t head = build->head_dim, queries = build->n_heads / build->n_kv_heads * head;
    uint64_t key = build->delta_k_dim, values = 0;
    const struct source_section qkv[3] = {{0, queries}, {queries, head}, {queries + head, head}};
    uint64_t group = queries + 2 * head, n_groups = build->n_kv_heads;
    struct source_section delta[3];
    uint32_t n = 1;
    const struct source_section *sections = qkv;

    if (cut == HF_DELTA_QKV || cut == HF_DELTA_GATE) {
        if (build->delta_keys == 0)
            return 0;
        values = build->delta_values / build->delta_keys * (uint64_t)build->delta_v_dim;
        delta[0] = (struct source_section){0, key};
        delta[1] = (struct source_section){key, key};
        delta[2] = (struct source_section){2 * key, values};
        if (cut == HF_DELTA_GATE)
            delta[0] = (struct source_section){2 * key + values, values};
        sections = delta;
        group = 2 * key + 2 * values;
        n_groups = build->delta_keys;
    }
    if (cut == HF_GROUPED || cut == HF_DELTA_QKV)
        n = 3;
    else if (cut == HF_GROUPED_K || cut == HF_GROUPED_V)
        sections += cut == HF_GROUPED_K ? 1 : 2;
    if (group * n_groups != n_all)
        return 0;
    set_groups(source, group, n_groups, n, sections);
    n_all = 0;
    for (uint32_t k = 0; k < n; k++)
        n_all += n_groups * sections[k].rows;
    return n_all;
}

/* Of n_all rows (of a vector: values) those of a cut, and how many they are. */
static uint64_t cut_rows(struct hf_build *build, const struct hf_item *item, uint64_t n_all,
                         struct tensor_source *source)
{
    enum hf_cut cut = cut_of(item);
    uint64_t half = n_all / 2, n = n_all;

    switch (cut) {
    case HF_FIRST_HALF:
    case HF_SECOND_HALF:
        n = n_all % 2 ? 0 : half;
        set_groups(source, n_all, 1, 1,
                   &(struct source_section){cut == HF_SECOND_HALF ? half : 0, half});
        break;
    case HF_EVEN:
    case HF_ODD:
        n = n_all % 2 ? 0 : half;
        set_groups(source, 2, half, 1, &(struct source_section){cut == HF_ODD, 1});
        break;
    case HF_GROUPED:
    case HF_GROUPED_Q:
    case HF_GROUPED_K:
    case HF_GROUPED_V:
    case HF_DELTA_QKV:
    case HF_DELTA_GATE:
        n = cut_groups(build, cut, n_all, source);
        break;
    default:
        break;
    }
    if (n == 0)
        shape_fault(build, item);
    return n;
}

/* One section of one group is where it is: matrices are then used in place. */
static void settle_groups(struct tensor_source *source, struct source_piece *pieces, uint64_t n)
{
    if (source->n_groups != 1 || source->n_sections != 1 || source->transposed)
        return;
    for (uint64_t i = 0; i < n; i++)
        pieces[i].first += source->sections[0].offset;
    source->n_groups = 0;
}

/* ---------------------------------------------------------------- scales */

/* A scale times an 8-bit float fits a bfloat16 where it has few digits and is neither huge nor
 * tiny. */
static bool scales_are_short(const struct safetensor *scales)
{
    uint64_t n = scales->n_bytes / tensor_type_info(scales->type)->block_bytes;
    uint64_t bytes = tensor_type_info(scales->type)->block_bytes;

    for (uint64_t i = 0; i < n; i++) {
        uint32_t bits;
        float scale;

        tensor_decode((enum tensor_type)scales->type, scales->data + i * bytes, &scale, 1);
        memcpy(&bits, &scale, sizeof bits);
        if ((bits & 0xfffff) || !(scale > 0x1p-90f && scale < 0x1p90f))
            return false;
    }
    return true;
}

static const struct safetensor *scales_of(const struct hf_build *build, const struct hf_item *item)
{
    static const char *const ends[] = {"_scale_inv", "_scale"};
    const char *name = item->tensor->name;
    const struct safetensor *found = NULL;
    char wanted[320];

    for (size_t i = 0; i < COUNT_OF(ends) && !found; i++) {
        (void)snprintf(wanted, sizeof wanted, "%s%s", name, ends[i]);
        found = hf_tensor_find(build->hf, wanted);
    }
    if (!found && is_fp4(item)) {
        (void)snprintf(wanted, sizeof wanted, "%.*s_scales",
                       (int)(strlen(name) - strlen("_blocks")), name);
        found = hf_tensor_find(build->hf, wanted);
    }
    return found;
}

/* One scale for all, one per row, or one per block. */
static void set_scales(struct hf_build *build, const struct hf_item *item,
                       const struct safetensor *scales, const struct stored *s,
                       struct tensor_source *source)
{
    uint64_t n = 1, rows, cols;

    for (uint32_t d = 0; d < scales->n_dims; d++)
        n *= scales->dims[d];
    rows = (s->n_rows + build->block_rows - 1) / build->block_rows;
    cols = (s->n_cols + build->block_cols - 1) / build->block_cols;
    source->scale_type = (enum tensor_type)scales->type;
    source->scale_cols = s->n_cols;
    if (scales->type >= TENSOR_TYPE_LIMIT)
        hf_fail(build, STATUS_UNSUPPORTED, "tensor %.100s has type %s", scales->name,
                scales->dtype);
    else if (scales->n_dims == 2 && scales->dims[0] == rows && scales->dims[1] == cols && n > 1) {
        source->scale_rows = build->block_rows;
        source->scale_cols = build->block_cols;
        source->scales_per_row = cols;
    } else if (n == s->n_rows && scales->dims[0] == n) {
        source->scale_rows = source->scales_per_row = 1;
    } else if (n != 1) {
        shape_fault(build, &(struct hf_item){.tensor = scales});
    }
    (void)item;
}

/* Coding, scales, and the type in which the values are exact. */
static void set_coding(struct hf_build *build, const struct hf_item *item, const struct stored *s,
                       struct tensor_source *source, struct hf_table_entry *entry)
{
    const struct safetensor *t = item->tensor, *scales = scales_of(build, item);

    source->type = entry->type = (enum tensor_type)t->type;
    if (is_fp4(item)) {
        source->code = SOURCE_FP4;
        entry->type = TENSOR_MXFP4;
        if (!scales || scales->n_bytes * 16 != t->n_bytes || strcmp(scales->dtype, "U8") != 0)
            hf_fail(build, STATUS_FORMAT, "tensor %.100s has no scales", t->name);
    } else if (is_eighths(item)) {
        source->code = strcmp(t->dtype, "F8_E4M3") == 0 ? SOURCE_E4M3 : SOURCE_E5M2;
        entry->type = TENSOR_BF16;
        if (s->n_matrices != 1 || s->vector)
            hf_fail(build, STATUS_UNSUPPORTED, "tensor %.100s is FP8 and no matrix", t->name);
        else if (scales)
            set_scales(build, item, scales, s, source);
        if (scales && !build->status && !scales_are_short(scales))
            entry->type = TENSOR_F32;
    } else if (t->type >= TENSOR_TYPE_LIMIT) {
        hf_fail(build, STATUS_UNSUPPORTED,
                "tensor %.100s has type %s; skein reads folders of F32, F16, BF16, FP8 and MXFP4",
                t->name, t->dtype);
    } else if (scales) {
        hf_fail(build, STATUS_UNSUPPORTED, "tensor %.100s has a scale and is no 8-bit float",
                t->name);
    }
}

/* ---------------------------------------------------------------- pieces */

static struct source_piece piece_of(const struct hf_build *build, const struct hf_item *item)
{
    const struct safetensor *scales = scales_of(build, item);

    return (struct source_piece){.data = item->tensor->data,
                                 .n_bytes = item->tensor->n_bytes,
                                 .scales = scales ? scales->data : NULL};
}

static void check_same(struct hf_build *build, const struct hf_item *items, uint32_t i)
{
    const struct safetensor *first = items[0].tensor, *t = items[i].tensor;
    const struct safetensor *a = scales_of(build, &items[0]), *b = scales_of(build, &items[i]);
    bool sizes = is_joined(&items[0]) && cut_of(&items[0]) != HF_STACK
                     ? t->dims[t->n_dims > 1] == first->dims[t->n_dims > 1] || t->n_dims == 1
                     : t->n_bytes == first->n_bytes && t->dims[0] == first->dims[0];

    if (t->n_dims != first->n_dims || (t->n_dims > 1 && name_ends(items[0].name, ".bias")) ||
        strcmp(t->dtype, first->dtype) != 0 || !sizes || !a != !b ||
        (a && (a->type != b->type || a->n_bytes != b->n_bytes)))
        hf_fail(build, STATUS_FORMAT, "tensor %.100s differs in shape or type from %.100s", t->name,
                first->name);
    if (items[i].number != i)
        hf_fail(build, STATUS_FORMAT, "number %u of %.60s is missing", i, items[0].name);
}

/* Pieces of a tensor that is stored whole, with its matrices one behind the other. */
static void add_matrices(const struct hf_build *build, const struct hf_item *item,
                         const struct stored *s, uint64_t n_rows, struct source_piece *pieces)
{
    const struct source_piece all = piece_of(build, item);
    uint64_t n_bytes = item->tensor->n_bytes / s->n_matrices;

    for (uint64_t i = 0; i < s->n_matrices; i++) {
        pieces[i] = all;
        pieces[i].data += i * n_bytes;
        pieces[i].n_bytes = n_bytes;
        pieces[i].n_rows = n_rows;
        if (is_fp4(item))
            pieces[i].scales += i * (n_bytes / 16);
    }
}

/* The two parts of a latent layer's second matrix, which has both of them for each head. */
static void add_heads(struct hf_build *build, const struct hf_item *item, struct stored *s,
                      struct tensor_source *source, struct source_piece *pieces)
{
    uint64_t group = (uint64_t)build->nope_dim + build->value_dim;
    bool is_key = cut_of(item) == HF_LATENT_K;

    if (s->vector || s->n_matrices != 1 || s->n_rows != group * build->n_heads) {
        shape_fault(build, item);
        return;
    }
    for (uint32_t h = 0; h < build->n_heads; h++) {
        pieces[h] = piece_of(build, item);
        pieces[h].first = h * group + (is_key ? 0 : build->nope_dim);
        pieces[h].n_rows = is_key ? s->n_cols : build->value_dim;
    }
    source->transposed = is_key;
    s->n_matrices = build->n_heads;
    s->n_rows = is_key ? build->nope_dim : build->value_dim;
}

static void describe_values(const struct hf_build *build, const struct hf_item *item,
                            struct tensor_source *source)
{
    unsigned flags = build->row->flags;
    bool query_or_key = name_has(item->name, ".attn_q.") || name_has(item->name, ".attn_k.");

    if ((flags & HF_PAIRS) && query_or_key)
        source->half_rows = build->head_dim / 2;
    if ((flags & HF_NORM_ONE) && name_ends(item->name, "norm.weight") && cut_of(item) != HF_BARE)
        source->add = 1;
    source->minus_exponent = cut_of(item) == HF_MINUS_EXP;
}

/* Vectors and small tables are F32 in every GGUF file. */
static bool is_small(const struct hf_item *item, const struct tensor_source *source)
{
    return source->vector || name_has(item->name, "ffn_gate_inp") || source->add != 0 ||
           name_has(item->name, "position_embd") || name_has(item->name, "conv.weight") ||
           name_has(item->name, "conv1d.weight") || cut_of(item) == HF_STACK;
}

/* One tensor from several of the same kind. */
static uint64_t add_several(struct hf_build *build, const struct hf_item *items, uint32_t n,
                            struct stored *s, struct tensor_source *source,
                            struct source_piece *pieces)
{
    bool joined = is_joined(&items[0]);
    uint64_t n_rows = 0;

    for (uint32_t i = 0; i < n; i++) {
        struct stored one = stored_of(build, &items[i]);

        check_same(build, items, i);
        pieces[i] = piece_of(build, &items[i]);
        pieces[i].n_rows = cut_of(&items[0]) == HF_STACK ? 1 : one.vector ? one.n_cols : one.n_rows;
        n_rows += pieces[i].n_rows;
    }
    if (joined) {
        source->n_joined = n;
        if (cut_of(&items[0]) == HF_STACK) {
            s->vector = false;
            s->n_rows = n_rows;
        } else {
            *(s->vector ? &s->n_cols : &s->n_rows) = n_rows;
        }
        return n_rows;
    }
    s->n_matrices = n;
    return s->n_rows;
}

void hf_describe(struct hf_build *build, const struct hf_item *items, uint32_t n,
                 struct source_piece *pieces, struct tensor_source *source,
                 struct hf_table_entry *entry)
{
    const struct hf_item *first = &items[0];
    struct stored s = stored_of(build, first);
    uint64_t room = hf_pieces(build, items, n);
    bool several = is_several(first);
    uint64_t n_rows, n_cols;

    *source = (struct tensor_source){
        .pieces = pieces, .n_joined = 1, .vector = s.vector, .stored_cols = s.n_cols};
    source->transposed = (first->cut & HF_TRANSPOSED) && !s.vector;
    if (s.n_matrices - 1 >= room || s.n_rows == 0 || s.n_cols == 0)
        shape_fault(build, first);
    if (!build->status)
        set_coding(build, first, &s, source, entry);
    if (build->status)
        return;
    if (cut_of(first) == HF_LATENT_K || cut_of(first) == HF_LATENT_V)
        add_heads(build, first, &s, source, pieces);
    else if (several)
        (void)add_several(build, items, n, &s, source, pieces);
    else
        add_matrices(build, first, &s, s.vector ? s.n_cols : s.n_rows, pieces);
    if (build->status)
        return;
    source->vector = s.vector;
    n_rows = source->transposed || s.vector ? s.n_cols : s.n_rows;
    n_cols = source->transposed || s.vector ? s.n_rows : s.n_cols;
    n_rows = cut_rows(build, first, n_rows, source);
    describe_values(build, first, source);
    if (source->half_rows && n_rows % (2 * (uint64_t)source->half_rows))
        hf_fail(build, STATUS_FORMAT, "tensor %.100s does not consist of whole heads",
                first->tensor->name);
    source->n_matrices = (uint32_t)s.n_matrices;
    for (uint64_t i = 0; i < s.n_matrices * source->n_joined && source->n_joined == 1; i++)
        pieces[i].n_rows = n_rows;
    settle_groups(source, pieces, s.n_matrices * source->n_joined);
    entry->dims[0] = s.vector ? n_rows : n_cols;
    entry->dims[1] = s.vector ? n_cols : n_rows;
    entry->dims[2] = s.n_matrices;
    entry->n_dims = s.n_matrices > 1 || name_has(first->name, "_exps.weight") ||
                            cut_of(first) == HF_LATENT_K || cut_of(first) == HF_LATENT_V
                        ? 3
                    : s.vector && n_cols == 1 && !name_has(first->name, "_exps.") ? 1
                                                                                  : 2;
    if (is_small(first, source))
        entry->type = TENSOR_F32;
}
