/* Where a text begins anew for the eyes of DRY: tokens that hold a newline, a colon, a quotation
 * mark or an asterisk.
 *
 * These four are what the sampler's inventor named and what other programs use by default: behind
 * them a chat's turns, names and lists repeat lawfully. A token counts if one of the characters is
 * anywhere in it. Byte-level vocabularies write a newline as a letter of their own alphabet. */
#include "engine/text/vocab.h"

#include <string.h>

static bool holds(const struct text *text, uint32_t id, const char *newline)
{
    const struct token *token = &text->tokens[id];

    for (uint32_t i = 0; i < token->n_bytes; i++) {
        char c = token->data[i];

        if (c == '\n' || c == ':' || c == '"' || c == '*') {
            return true;
        }
    }
    return newline[0] && memmem(token->data, token->n_bytes, newline, strlen(newline)) != NULL;
}

static bool is_byte_of(const struct text *text, uint32_t id)
{
    static const char bytes[] = "\n:\"*";

    for (size_t i = 0; bytes[i]; i++) {
        if (text->byte_symbol[(unsigned char)bytes[i]] == id) {
            return true;
        }
    }
    return false;
}

enum status text_breakers(const struct text *text, uint32_t **out, size_t *n)
{
    struct token_list list = {0};
    char newline[3] = "";
    enum status status = STATUS_OK;

    *out = NULL;
    *n = 0;
    if (text == NULL) {
        return STATUS_OK;
    }
    if (text->kind == TEXT_BPE && !(text->pre != NULL && (text->pre->flags & PRE_RAW))) {
        newline[byte_letter('\n', newline)] = '\0';
    }
    for (uint32_t id = 0; id < text->n_tokens && status == STATUS_OK; id++) {
        if (!(text->tokens[id].attr & TOKEN_CONTROL) &&
            (is_byte_of(text, id) || holds(text, id, newline))) {
            status = token_list_add(&list, id);
        }
    }
    if (status != STATUS_OK) {
        token_list_free(&list);
        return status;
    }
    *out = list.ids;
    *n = list.n;
    return STATUS_OK;
}
