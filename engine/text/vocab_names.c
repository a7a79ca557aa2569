/* What the texts of tokens say where a file's metadata does not.
 *
 * Files often leave out which tokens end an answer, or mark them as ordinary. The texts of such
 * tokens are known; a token with one of them is a control token that ends generation. A few
 * families need exceptions, each with its reason. */
#include "engine/text/vocab.h"

#include <string.h>

/* DeepSeek's marks are full-width bars and U+2581. */
#define MARK(before, after) ("<\xef\xbd\x9c" before "\xe2\x96\x81" after "\xef\xbd\x9c>")

static const char *const ending[] = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    MARK("end", "of\xe2\x96\x81sentence"),
    "[e~[",
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
};

/* Marks of fill-in-the-middle prompts: control tokens, whatever the file says. */
static const char *const control[] = {
    "<|fim_prefix|>", "<fim-prefix>",      "<fim_prefix>",    MARK("fim", "begin"),
    "<PRE>",          "\xe2\x96\x81<PRE>", "<|code_prefix|>", "<|prefix|>",
    "<|fim_suffix|>", "<fim-suffix>",      "<fim_suffix>",    MARK("fim", "hole"),
    "<SUF>",          "\xe2\x96\x81<SUF>", "<|code_suffix|>", "<|suffix|>",
    "<|fim_middle|>", "<fim-middle>",      "<fim_middle>",    MARK("fim", "end"),
    "<MID>",          "\xe2\x96\x81<MID>", "<|code_middle|>", "<|middle|>",
};

/* Parts of an answer in the harmony format: they are written out, so that a reader can tell them.
 */
static const char *const shown[] = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"};

static struct token *named(struct text *text, const char *name)
{
    uint32_t id = string_map_find(&text->map, text->tokens, name, strlen(name));
    return id < text->n_tokens ? &text->tokens[id] : NULL;
}

static bool ends(struct text *text, const char *name)
{
    const struct token *token = named(text, name);
    return token != NULL && (token->attr & TOKEN_ENDS) != 0;
}

static void attr_replace(struct text *text, const char *name, uint8_t attr)
{
    struct token *token = named(text, name);
    if (token != NULL) {
        token->attr = attr;
    }
}

static bool name_contains(struct gguf_text name, const char *part)
{
    size_t n = strlen(part);
    for (size_t i = 0; n <= name.n_bytes && i <= name.n_bytes - n; i++) {
        size_t k = 0;
        while (k < n && (name.data[i + k] | 0x20) == (part[k] | 0x20)) {
            k++;
        }
        if (k == n) {
            return true;
        }
    }
    return false;
}

/* In Phi-3's own tokenizer most special tokens take the white space behind them along; GGUF has no
 * field for it, so the model's name tells. */
static void phi3_apply(struct text *text)
{
    static const char *const not [] = {"<unk>", "<s>", "<|endoftext|>"};
    const uint8_t special = TOKEN_CONTROL | TOKEN_USER | TOKEN_UNKNOWN;
    for (uint32_t id = 0; id < text->n_tokens; id++) {
        if ((text->tokens[id].attr & special) != 0) {
            text->tokens[id].attr |= TOKEN_RSTRIP;
        }
    }
    for (size_t i = 0; i < COUNT_OF(not ); i++) {
        struct token *token = named(text, not [i]);
        if (token != NULL) {
            token->attr &= (uint8_t)~TOKEN_RSTRIP;
        }
    }
}

void vocab_names_apply(struct text *text, struct gguf_text model_name)
{
    for (size_t i = 0; i < COUNT_OF(ending); i++) {
        struct token *token = named(text, ending[i]);
        if (token != NULL) {
            token->attr |= TOKEN_CONTROL | TOKEN_ENDS;
        }
    }
    for (size_t i = 0; i < COUNT_OF(control); i++) {
        struct token *token = named(text, control[i]);
        if (token != NULL) {
            token->attr |= TOKEN_CONTROL;
        }
    }
    for (size_t i = 0; i < COUNT_OF(shown); i++) {
        attr_replace(text, shown[i], TOKEN_USER);
    }
    /* In harmony "<|end|>" ends a message and the answer goes on with the next. */
    bool call = ends(text, "<|call|>") || ends(text, "<|calls|>");
    if (call && (ends(text, "<|return|>") || ends(text, "<|flush|>")) && ends(text, "<|end|>")) {
        attr_replace(text, "<|end|>", TOKEN_USER);
    }
    /* Gemma 4 has "</s>" as ordinary text. */
    if (ends(text, "<|tool_response>") && ends(text, "</s>")) {
        attr_replace(text, "</s>", TOKEN_NORMAL);
    }
    if (text->eos < text->n_tokens) {
        text->tokens[text->eos].attr |= TOKEN_ENDS;
    }
    if (name_contains(model_name, "phi-3") || name_contains(model_name, "phi3")) {
        phi3_apply(text);
    }
}
