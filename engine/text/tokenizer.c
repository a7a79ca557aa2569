/* Text to tokens: special tokens are cut out first (special.c), what lies between goes to the
 * vocabulary's own kind (bpe.c, spm.c, unigram.c), beginning and end tokens are added as the
 * vocabulary asks.
 */
#include "engine/text/vocab.h"

enum status token_list_add(struct token_list *list, uint32_t id)
{
    if (list->n == list->capacity) {
        size_t capacity = list->capacity == 0 ? 64 : 2 * list->capacity;
        uint32_t *ids = mem_resize(list->ids, capacity, sizeof *ids);
        if (ids == NULL) {
            return STATUS_NO_MEMORY;
        }
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->n++] = id;
    return STATUS_OK;
}

void token_list_free(struct token_list *list)
{
    mem_free(list->ids);
    *list = (struct token_list){0};
}

static enum status composed_encode(const struct text *text, const char *data, size_t n_bytes,
                                   struct token_list *out)
{
    char *composed = NULL;
    size_t n_composed = 0;
    enum status status =
        text->nfc ? pre_file_nfc(data, n_bytes, &composed, &n_composed) : STATUS_OK;
    if (status == STATUS_OK) {
        status = composed != NULL ? bpe_encode(text, composed, n_composed, out)
                                  : bpe_encode(text, data, n_bytes, out);
    }
    mem_free(composed);
    return status;
}

static enum status fragments_encode(const struct text *text, const char *data,
                                    const struct fragments *fragments, struct token_list *out)
{
    enum status status = STATUS_OK;
    bool behind_special = true; /* the beginning counts as such */
    for (size_t i = 0; i < fragments->n && status == STATUS_OK; i++) {
        struct fragment fragment = fragments->items[i];
        if (fragment.token != TOKEN_NONE) {
            status = token_list_add(out, fragment.token);
            behind_special = true;
            continue;
        }
        const char *part = data + fragment.start;
        switch (text->kind) {
        case TEXT_BPE:
            status = composed_encode(text, part, fragment.n_bytes, out);
            break;
        case TEXT_UNIGRAM:
            status = unigram_encode(text, part, fragment.n_bytes, out);
            break;
        default:
            status = spm_encode(text, part, fragment.n_bytes,
                                text->add_space_prefix && behind_special, out);
            break;
        }
        behind_special = false;
    }
    return status;
}

enum status text_tokenize(const struct text *text, const char *data, size_t n_bytes, unsigned flags,
                          struct token_list *out, struct fault *fault)
{
    struct fragments fragments = {0};
    size_t before = out->n;
    enum status status = text_runnable(text, fault);
    if (status != STATUS_OK) {
        return status;
    }
    if (n_bytes > TEXT_MAX_BYTES) {
        return fault_set(fault, STATUS_LIMIT, "a text of %zu bytes; the most is %d", n_bytes,
                         TEXT_MAX_BYTES);
    }
    bool frame = (flags & TOKENS_ADD_SPECIAL) != 0;
    if (frame && text->add_bos && text->bos != TOKEN_NONE) {
        status = token_list_add(out, text->bos);
    }
    if (status == STATUS_OK && n_bytes > 0) {
        status =
            special_split(text, data, n_bytes, (flags & TOKENS_PARSE_SPECIAL) != 0, &fragments);
    }
    if (status == STATUS_OK) {
        status = fragments_encode(text, data, &fragments, out);
    }
    if (status == STATUS_OK && frame && text->add_eos && text->eos != TOKEN_NONE) {
        status = token_list_add(out, text->eos);
    }
    fragments_free(&fragments);
    if (status != STATUS_OK) {
        out->n = before;
        return fault_set(fault, status,
                         status == STATUS_LIMIT ? "the text takes too long to cut into pieces"
                                                : "no memory to tokenize the text");
    }
    return STATUS_OK;
}

bool text_token_ends(const struct text *text, uint32_t id)
{
    return id < text->n_tokens && (text->tokens[id].attr & TOKEN_ENDS) != 0;
}

enum status model_tokenize(const struct model *model, const char *text, size_t n_bytes,
                           unsigned flags, struct token_list *out, struct fault *fault)
{
    return text_tokenize(model_text(model), text, n_bytes, flags, out, fault);
}

bool model_token_ends(const struct model *model, uint32_t id)
{
    return text_token_ends(model_text(model), id);
}

uint32_t model_token_count(const struct model *model)
{
    return text_token_count(model_text(model));
}
