/* Experts that are tensors of their own, gathered.
 *
 * The first files of mixtures had a tensor per expert, blk.3.ffn_gate.5.weight; since then the
 * experts of a layer are the matrices of one tensor, blk.3.ffn_gate_exps.weight, and that is the
 * only form that the rest of the engine knows. So a file of the old form is given a header of the
 * new one, made here, whose tensors have their values from sources that point to where the bytes
 * lie. Nothing is copied, and what is computed is the same to the bit.
 *
 * What fails: experts of one layer that differ in type or shape, or whose numbers have a gap. */
#include "engine/file/experts.h"

#include <stdio.h>
#include <string.h>

#include "engine/file/gguf_write.h"

struct experts {
    struct buffer header;
    struct tensor_source *sources;
    struct source_piece *pieces;
};

struct gathering {
    const struct gguf *gguf;
    struct experts *experts;
    struct gguf_writer writer;
    size_t n_sources, n_pieces;
    size_t n_gathered; /* tensors of single experts that found their place */
    struct fault *fault;
};

/* The number of digits at `at`, not more than six. */
static size_t digits(struct gguf_text name, size_t at)
{
    size_t n = 0;

    while (at + n < name.n_bytes && n < 6 && name.data[at + n] >= '0' && name.data[at + n] <= '9')
        n++;
    return n;
}

static bool text_at(struct gguf_text name, size_t at, const char *text)
{
    size_t n = strlen(text);

    return at + n <= name.n_bytes && memcmp(name.data + at, text, n) == 0;
}

/* Length of "blk.N.ffn_gate" in "blk.N.ffn_gate.E.weight"; 0: not an expert's tensor. */
static size_t expert_stem(struct gguf_text name)
{
    static const char *const kinds[] = {".ffn_gate", ".ffn_up", ".ffn_down"};
    size_t layer = text_at(name, 0, "blk.") ? digits(name, 4) : 0;

    for (size_t i = 0; layer && i < COUNT_OF(kinds); i++) {
        size_t stem = 4 + layer + strlen(kinds[i]);
        size_t expert = text_at(name, 4 + layer, kinds[i]) && text_at(name, stem, ".")
                            ? digits(name, stem + 1)
                            : 0;

        if (expert && text_at(name, stem + 1 + expert, ".weight") &&
            stem + 1 + expert + strlen(".weight") == name.n_bytes)
            return stem;
    }
    return 0;
}

static const struct gguf_tensor *expert_find(const struct gguf *gguf, struct gguf_text first,
                                             size_t stem, uint32_t i)
{
    char name[64];

    (void)snprintf(name, sizeof name, "%.*s.%u.weight", (int)stem, first.data, i);
    return gguf_tensor_find(gguf, name);
}

static void add_piece(struct gathering *g, const struct gguf_tensor *tensor, uint64_t matrix)
{
    uint64_t size = tensor_matrix_size(tensor);

    g->experts->pieces[g->n_pieces++] = (struct source_piece){
        .data = tensor->data ? (const uint8_t *)tensor->data + matrix * size : NULL,
        .n_bytes = size,
        .n_rows = tensor->dims[1]};
}

static void add_source(struct gathering *g, const struct gguf_tensor *tensor, uint32_t n_matrices)
{
    g->experts->sources[g->n_sources++] =
        (struct tensor_source){.type = (enum tensor_type)tensor->type,
                               .n_matrices = n_matrices,
                               .n_joined = 1,
                               .pieces = &g->experts->pieces[g->n_pieces],
                               .stored_cols = tensor->dims[0]};
}

/* Expert 0 stands for all: the others follow it by number. */
static enum status gather(struct gathering *g, const struct gguf_tensor *first, size_t stem)
{
    uint64_t dims[3] = {first->dims[0], first->dims[1], 0};
    const struct gguf_tensor *tensor = first;
    char name[64];

    add_source(g, first, 0);
    for (uint32_t i = 0; tensor; tensor = expert_find(g->gguf, first->name, stem, ++i)) {
        if (tensor->type != first->type || tensor->dims[0] != dims[0] ||
            tensor->dims[1] != dims[1] || tensor->n_values != dims[0] * dims[1])
            return fault_set(g->fault, STATUS_FORMAT, "tensor %.*s is not like expert 0's",
                             (int)tensor->name.n_bytes, tensor->name.data);
        add_piece(g, tensor, 0);
        dims[2]++;
    }
    g->experts->sources[g->n_sources - 1].n_matrices = (uint32_t)dims[2];
    g->n_gathered += (size_t)dims[2];
    (void)snprintf(name, sizeof name, "%.*s_exps.weight", (int)stem, first->name.data);
    gguf_write_tensor(&g->writer, name, strlen(name), 3, dims, (enum tensor_type)first->type,
                      first->n_bytes * dims[2]);
    return STATUS_OK;
}

static void keep(struct gathering *g, const struct gguf_tensor *tensor)
{
    add_source(g, tensor, (uint32_t)tensor_matrix_count(tensor));
    for (uint64_t i = 0; i < tensor_matrix_count(tensor); i++)
        add_piece(g, tensor, i);
    gguf_write_tensor(&g->writer, tensor->name.data, tensor->name.n_bytes, tensor->n_dims,
                      tensor->dims, (enum tensor_type)tensor->type, tensor->n_bytes);
}

static enum status write_header(struct gathering *g, size_t n_experts)
{
    enum status status = STATUS_OK;

    for (size_t i = 0; i < gguf_value_count(g->gguf); i++)
        gguf_write_copy(&g->writer, gguf_value_at(g->gguf, i));
    for (size_t i = 0; i < gguf_tensor_count(g->gguf) && !status; i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(g->gguf, i);
        size_t stem = expert_stem(tensor->name);

        if (!stem)
            keep(g, tensor);
        else if (expert_find(g->gguf, tensor->name, stem, 0) == tensor)
            status = gather(g, tensor, stem);
    }
    if (!status && g->n_gathered != n_experts)
        status = fault_set(g->fault, STATUS_FORMAT, "experts are missing: %zu of %zu have a place",
                           g->n_gathered, n_experts);
    if (!status && gguf_write_finish(&g->writer, &g->experts->header))
        status = fault_set(g->fault, STATUS_NO_MEMORY, "no memory for a table of tensors");
    return status;
}

/* Tensors of single experts, and matrices in all; false: there are none of the former. */
static bool count(const struct gguf *gguf, size_t *n_experts, size_t *n_pieces)
{
    *n_experts = *n_pieces = 0;
    for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        uint64_t n = 0;

        *n_experts += expert_stem(tensor->name) != 0;
        /* A tensor of a known type has a byte in the file for every matrix, one of another type is
         * never run: leave such a file to the checks behind. */
        if (!tensor_type_info(tensor->type)->name ||
            __builtin_mul_overflow(tensor->dims[2], tensor->dims[3], &n) ||
            __builtin_add_overflow(*n_pieces, (size_t)n, n_pieces))
            return false;
    }
    return *n_experts > 0;
}

enum status experts_gather(struct gguf **gguf, struct experts **out, struct fault *fault)
{
    struct gathering g = {.gguf = *gguf, .fault = fault};
    struct gguf *gathered = NULL;
    size_t n_experts, n_pieces;
    enum status status;

    *out = NULL;
    if (!count(*gguf, &n_experts, &n_pieces))
        return STATUS_OK;
    g.experts = MEM_NEW(struct experts);
    if (!g.experts)
        return fault_set(fault, STATUS_NO_MEMORY, "no memory for a table of tensors");
    g.experts->sources = MEM_NEW_N(struct tensor_source, gguf_tensor_count(*gguf));
    g.experts->pieces = MEM_NEW_N(struct source_piece, n_pieces);
    status = g.experts->sources && g.experts->pieces
                 ? write_header(&g, n_experts)
                 : fault_set(fault, STATUS_NO_MEMORY, "no memory for a table of tensors");
    gguf_write_free(&g.writer);
    if (!status)
        status = gguf_parse_header(g.experts->header.data, g.experts->header.len,
                                   g.experts->sources, &gathered, fault);
    if (status) {
        experts_free(&g.experts);
        return status;
    }
    gguf_free(gguf);
    *gguf = gathered;
    *out = g.experts;
    return STATUS_OK;
}

void experts_free(struct experts **experts)
{
    if (!*experts)
        return;
    buffer_free(&(*experts)->header);
    mem_free((*experts)->sources);
    mem_free((*experts)->pieces);
    mem_free(*experts);
    *experts = NULL;
}
