/* Beginning and end tokens, chat template and usual sampling of a folder.
 *
 * tokenizer_config.json names the special tokens by their texts; config.json and
 * generation_config.json have ids, the latter a list where several tokens end an answer. Whether a
 * beginning or end is added to a text is what the post-processor of tokenizer.json does; only where
 * that does not tell does add_bos_token count. A chat template is a file of its own in newer
 * folders, a member of tokenizer_config.json in older ones, there sometimes a list of named ones.
 */
#include "engine/hf/tokenizer.h"

#include <string.h>

enum { MAX_TEMPLATE_BYTES = 1 << 20, HF_PENALTY_TOKENS = 16384 };

/* ---------------------------------------------------------------- special tokens */

/* A token by its text ("x" or {"content": "x"}), or UINT32_MAX. */
static uint32_t named_token(const struct hf_tokens *t, const json_t *config, const char *name)
{
    const json_t *value = json_object_get(config, name);
    const char *text =
        json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);

    return text ? hf_token_find(t, text) : UINT32_MAX;
}

/* Number i of an id or of a list of ids, or UINT32_MAX. */
static uint32_t listed_id(const struct hf_tokens *t, const json_t *config, const char *name,
                          size_t i)
{
    const json_t *value = json_object_get(config, name);
    json_int_t id;

    if (json_is_array(value))
        value = json_array_get(value, i);
    else if (i > 0)
        return UINT32_MAX;
    id = json_is_integer(value) ? json_integer_value(value) : -1;
    return id >= 0 && (size_t)id < t->n ? (uint32_t)id : UINT32_MAX;
}

static void write_id(struct hf_build *build, const char *key, uint32_t id)
{
    if (id != UINT32_MAX)
        gguf_write_u32(&build->writer, key, id);
}

static uint32_t first_id(uint32_t a, uint32_t b)
{
    return a != UINT32_MAX ? a : b;
}

/* Further ends of an answer: GGUF has two keys for them. */
static void write_further_ends(struct hf_build *build, const struct hf_tokens *t,
                               const json_t *generation, uint32_t eos)
{
    static const char *const keys[] = {"tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    size_t n = 0;

    for (size_t i = 0; i < 8 && n < COUNT_OF(keys); i++) {
        uint32_t id = listed_id(t, generation, "eos_token_id", i);

        if (id != UINT32_MAX && id != eos)
            write_id(build, keys[n++], id);
    }
}

/* ---------------------------------------------------------------- what is added */

/* The TemplateProcessing step, alone or in a sequence. */
static const json_t *template_step(const json_t *processor)
{
    const char *kind = json_string_value(json_object_get(processor, "type"));
    json_t *inner;
    size_t i;

    if (kind && strcmp(kind, "TemplateProcessing") == 0)
        return processor;
    json_array_foreach(json_object_get(processor, "processors"), i, inner)
    {
        kind = json_string_value(json_object_get(inner, "type"));
        if (kind && strcmp(kind, "TemplateProcessing") == 0)
            return inner;
    }
    return NULL;
}

static bool is_token(const struct hf_tokens *t, const json_t *item, uint32_t id)
{
    const char *text =
        json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));

    return text && id != UINT32_MAX && hf_token_find(t, text) == id;
}

static void write_added(struct hf_build *build, const struct hf_tokens *t, const json_t *tokenizer,
                        const json_t *config, uint32_t bos, uint32_t eos)
{
    const json_t *step = template_step(json_object_get(tokenizer, "post_processor"));
    const json_t *single = json_object_get(step, "single");
    size_t n = json_array_size(single);
    bool add_bos = hf_bool(config, "add_bos_token", false);
    bool add_eos = hf_bool(config, "add_eos_token", false);

    if (step && n > 0) {
        add_bos = is_token(t, json_array_get(single, 0), bos);
        add_eos = n > 1 && is_token(t, json_array_get(single, n - 1), eos);
    }
    gguf_write_bool(&build->writer, "tokenizer.ggml.add_bos_token", add_bos);
    gguf_write_bool(&build->writer, "tokenizer.ggml.add_eos_token", add_eos);
    gguf_write_bool(&build->writer, "tokenizer.skein.clean",
                    hf_bool(config, "clean_up_tokenization_spaces", false));
}

/* ---------------------------------------------------------------- template and sampling */

static const json_t *template_of(const json_t *config)
{
    const json_t *value = json_object_get(config, "chat_template");
    json_t *item;
    size_t i;

    if (!json_is_array(value))
        return value;
    json_array_foreach(value, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));

        if (name && strcmp(name, "default") == 0)
            return json_object_get(item, "template");
    }
    return json_object_get(json_array_get(value, 0), "template");
}

static json_t *read_config(struct hf_build *build, const char *name)
{
    json_t *root = NULL;

    if (!build->status)
        build->status =
            hf_read_json(build->folder, name, HF_MAX_CONFIG_BYTES, true, &root, build->fault);
    return root;
}

void hf_write_template(struct hf_build *build)
{
    static const char *const files[] = {"tokenizer_config.json", "chat_template.json"};
    struct buffer text = {0};
    bool done = false;

    build->status = hf_read_text(build->folder, "chat_template.jinja", MAX_TEMPLATE_BYTES, true,
                                 &text, build->fault);
    if (!build->status && text.data) {
        gguf_write_text(&build->writer, "tokenizer.chat_template", (const char *)text.data,
                        text.len);
        done = true;
    }
    buffer_free(&text);
    for (size_t i = 0; i < COUNT_OF(files) && !done && !build->status; i++) {
        json_t *config = read_config(build, files[i]);
        const json_t *value = template_of(config);

        if (json_is_string(value)) {
            gguf_write_text(&build->writer, "tokenizer.chat_template", json_string_value(value),
                            json_string_length(value));
            done = true;
        }
        json_decref(config);
    }
}

static void write_sampling(struct hf_build *build, const json_t *generation)
{
    static const struct hf_name floats[] = {
        {"temperature", "general.sampling.temp", 0},
        {"top_p", "general.sampling.top_p", 0},
        {"min_p", "general.sampling.min_p", 0},
        {"typical_p", "general.sampling.typical_p", 0},
        {"repetition_penalty", "general.sampling.penalty_repeat", 0},
    };
    const json_t *top_k = hf_member(generation, "top_k");
    uint32_t n;
    float v;

    if (!hf_bool(generation, "do_sample", true)) { /* the likeliest token; the rest has no say */
        gguf_write_f32(&build->writer, "general.sampling.temp", 0);
        return;
    }
    for (size_t i = 0; i < COUNT_OF(floats); i++) {
        if (hf_f32(build, generation, floats[i].from, &v))
            gguf_write_f32(&build->writer, floats[i].to, v);
    }
    if (json_is_integer(top_k) && json_integer_value(top_k) < 0)
        gguf_write_u32(&build->writer, "general.sampling.top_k", 0);
    else if (hf_u32(build, generation, "top_k", &n))
        gguf_write_u32(&build->writer, "general.sampling.top_k", n);
    if (hf_member(generation, "repetition_penalty")) /* of everything so far */
        gguf_write_u32(&build->writer, "general.sampling.penalty_last_n", HF_PENALTY_TOKENS);
}

void hf_write_settings(struct hf_build *build, const struct hf_tokens *t, const json_t *tokenizer)
{
    json_t *config = read_config(build, "tokenizer_config.json");
    json_t *generation = read_config(build, "generation_config.json");
    uint32_t bos, eos, pad;

    if (!build->status) {
        bos = first_id(named_token(t, config, "bos_token"),
                       listed_id(t, build->config, "bos_token_id", 0));
        eos = first_id(named_token(t, config, "eos_token"),
                       listed_id(t, build->config, "eos_token_id", 0));
        pad = first_id(named_token(t, config, "pad_token"),
                       listed_id(t, build->config, "pad_token_id", 0));
        write_id(build, "tokenizer.ggml.bos_token_id", bos);
        write_id(build, "tokenizer.ggml.eos_token_id", eos);
        write_id(build, "tokenizer.ggml.padding_token_id", pad);
        write_id(build, "tokenizer.ggml.unknown_token_id", t->unknown);
        write_further_ends(build, t, generation ? generation : build->config, eos);
        write_added(build, t, tokenizer, config, bos, eos);
        write_sampling(build, generation);
        hf_write_template(build);
    }
    json_decref(config);
    json_decref(generation);
}
