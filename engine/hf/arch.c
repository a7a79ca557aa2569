/* The architectures by their Hugging Face names, one row each, and the names of their tensors.
 *
 * Most families keep the names of the first Llama, so there is one common list; a row names only
 * what it has otherwise, which goes before. Tensors that are not weights (causal masks, tables of
 * frequencies that can be computed) map to "" and are left out; a name that is in no list is an
 * error later, because a weight that is not used makes every number wrong.
 *
 * What a row has to say about numbers is whether its tensors differ from GGUF's: rows of queries
 * and keys ordered for rotation by halves where the engine rotates pairs, norms without their 1,
 * matrices that are transposed. */
#include "engine/hf/inner.h"

#include <stdio.h>
#include <string.h>

/* `*` stands for the number of an expert. */
static const struct hf_name common[] = {
    {"input_layernorm", "attn_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.qkv_proj", "attn_qkv"},
    {"self_attn.o_proj", "attn_output"},
    {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"},
    {"self_attn.rotary_emb.inv_freq", ""},
    {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.gate_up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
    {"mlp.gate", "ffn_gate_inp"},
    {"mlp.experts.*.gate_proj", "ffn_gate_exps"},
    {"mlp.experts.*.up_proj", "ffn_up_exps"},
    {"mlp.experts.*.down_proj", "ffn_down_exps"},
    {"mlp.shared_expert.gate_proj", "ffn_gate_shexp"},
    {"mlp.shared_expert.up_proj", "ffn_up_shexp"},
    {"mlp.shared_expert.down_proj", "ffn_down_shexp"},
    {"mlp.shared_expert_gate", "ffn_gate_inp_shexp"},
    {"mlp.shared_experts.gate_proj", "ffn_gate_shexp"},
    {"mlp.shared_experts.up_proj", "ffn_up_shexp"},
    {"mlp.shared_experts.down_proj", "ffn_down_shexp"},
    {"block_sparse_moe.gate", "ffn_gate_inp"},
    {"block_sparse_moe.experts.*.w1", "ffn_gate_exps"},
    {"block_sparse_moe.experts.*.w2", "ffn_down_exps"},
    {"block_sparse_moe.experts.*.w3", "ffn_up_exps"},
    {NULL, NULL},
};

/* Norms around both branches. */
static const struct hf_name four_norms[] = {
    {"post_attention_layernorm", "post_attention_norm"},
    {"pre_feedforward_layernorm", "ffn_norm"},
    {"post_feedforward_layernorm", "post_ffw_norm"},
    {NULL, NULL},
};
static const struct hf_name glm4[] = {
    {"post_self_attn_layernorm", "post_attention_norm"},
    {"post_mlp_layernorm", "post_ffw_norm"},
    {NULL, NULL},
};
/* GGUF's name for the norm before the feed-forward is the other one here. */
static const struct hf_name second_norm[] = {
    {"post_attention_layernorm", "post_attention_norm"},
    {"mlp.gate.e_score_correction", "exp_probs_b"},
    {NULL, NULL},
};
static const struct hf_name gpt2[] = {
    {"ln_1", "attn_norm"},  {"attn.c_attn", "attn_qkv"}, {"attn.c_proj", "attn_output"},
    {"attn.bias", ""},      {"attn.masked_bias", ""},    {"ln_2", "ffn_norm"},
    {"mlp.c_fc", "ffn_up"}, {"mlp.c_proj", "ffn_down"},  {NULL, NULL},
};
static const struct hf_name starcoder2[] = {
    {"mlp.c_fc", "ffn_up"},
    {"mlp.c_proj", "ffn_down"},
    {NULL, NULL},
};
static const struct hf_name hunyuan[] = {
    {"self_attn.query_layernorm", "attn_q_norm"},
    {"self_attn.key_layernorm", "attn_k_norm"},
    {NULL, NULL},
};
static const struct hf_name none[] = {{NULL, NULL}};

static const struct hf_name whole[] = {
    {"model.embed_tokens", "token_embd"},
    {"model.norm", "output_norm"},
    {"lm_head", "output"},
    {"transformer.wte", "token_embd"},
    {"transformer.wpe", "position_embd"},
    {"transformer.ln_f", "output_norm"},
    {"wte", "token_embd"},
    {"wpe", "position_embd"},
    {"ln_f", "output_norm"},
    {"model.rotary_emb.inv_freq", ""},
    {NULL, NULL},
};

/* What the files of these families leave out, as their authors' code fills it in. */
#define GEMMA2                                                                                     \
    "{\"attn_logit_softcapping\":50.0,\"final_logit_softcapping\":30.0,"                           \
    "\"query_pre_attn_scalar\":256,\"sliding_window\":4096,\"head_dim\":256}"
#define GEMMA3                                                                                     \
    "{\"vocab_size\":262208,\"num_attention_heads\":8,\"num_key_value_heads\":4,"                  \
    "\"head_dim\":256,\"max_position_embeddings\":131072,\"rms_norm_eps\":1e-6,"                   \
    "\"rope_theta\":1000000.0,\"rope_local_base_freq\":10000.0,\"query_pre_attn_scalar\":256,"     \
    "\"sliding_window\":4096}"

static const struct hf_arch rows[] = {
    {"LlamaForCausalLM", "llama", "silu", HF_PAIRS, none, NULL},
    {"MistralForCausalLM", "llama", "silu", HF_PAIRS, none, NULL},
    {"MixtralForCausalLM", "llama", "silu", HF_PAIRS | HF_SUM_ONE, none, NULL},
    {"Qwen2ForCausalLM", "qwen2", "silu", 0, none, NULL},
    {"Qwen2MoeForCausalLM", "qwen2moe", "silu", HF_SUM_FREE, none, NULL},
    {"Qwen3ForCausalLM", "qwen3", "silu", 0, none, NULL},
    {"Qwen3MoeForCausalLM", "qwen3moe", "silu", HF_SUM_ONE, none, NULL},
    {"GemmaForCausalLM", "gemma", "gelu", HF_NORM_ONE | HF_TIED, none, NULL},
    {"Gemma2ForCausalLM", "gemma2", "gelu_pytorch_tanh",
     HF_NORM_ONE | HF_TIED | HF_WINDOW | HF_QUERY_SCALAR, four_norms, GEMMA2},
    {"Gemma3ForCausalLM", "gemma3", "gelu_pytorch_tanh",
     HF_NORM_ONE | HF_TIED | HF_WINDOW | HF_QUERY_SCALAR, four_norms, GEMMA3},
    {"Gemma3ForConditionalGeneration", "gemma3", "gelu_pytorch_tanh",
     HF_NORM_ONE | HF_TIED | HF_WINDOW | HF_QUERY_SCALAR | HF_TEXT_CONFIG, four_norms, GEMMA3},
    {"Phi3ForCausalLM", "phi3", "silu", 0, none, NULL},
    {"GPT2LMHeadModel", "gpt2", "gelu_new", HF_CONV1D | HF_TIED, gpt2, NULL},
    {"SmolLM3ForCausalLM", "smollm3", "silu", HF_PAIRS | HF_TIED, none, NULL},
    {"ArceeForCausalLM", "arcee", "relu2", HF_PAIRS, none, NULL},
    {"GraniteForCausalLM", "granite", "silu", HF_PAIRS | HF_GRANITE, none, NULL},
    {"OlmoForCausalLM", "olmo", "silu", HF_PAIRS, none, NULL},
    {"Olmo2ForCausalLM", "olmo2", "silu", 0, four_norms, NULL},
    {"Olmo3ForCausalLM", "olmo2", "silu", HF_WINDOW, four_norms, NULL},
    {"OlmoeForCausalLM", "olmoe", "silu", HF_SUM_FREE, none, NULL},
    {"Starcoder2ForCausalLM", "starcoder2", "gelu_pytorch_tanh", HF_TIED, starcoder2, NULL},
    {"StableLmForCausalLM", "stablelm", "silu", 0, none, NULL},
    {"CohereForCausalLM", "command-r", "silu", HF_TIED, none, NULL},
    {"Cohere2ForCausalLM", "cohere2", "silu", HF_WINDOW | HF_TIED, none, NULL},
    {"Glm4ForCausalLM", "glm4", "silu", 0, glm4, NULL},
    {"Glm4MoeForCausalLM", "glm4moe", "silu", 0, second_norm, NULL},
    {"SeedOssForCausalLM", "seed_oss", "silu", 0, second_norm, NULL},
    {"Exaone4ForCausalLM", "exaone4", "silu", HF_WINDOW, four_norms, NULL},
    {"HunYuanDenseV1ForCausalLM", "hunyuan-dense", "silu", 0, hunyuan, NULL},
    {"NemotronForCausalLM", "nemotron", "relu2", HF_NORM_ONE, none, NULL},
    {"Ernie4_5ForCausalLM", "ernie4_5", "silu", 0, none, NULL},
};

const struct hf_arch *hf_arch_find(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    }
    return NULL;
}

const char *hf_arch_names(char *out, size_t out_size)
{
    size_t len = 0;

    out[0] = '\0';
    for (size_t i = 0; i < COUNT_OF(rows) && len < out_size; i++) {
        int n = snprintf(out + len, out_size - len, "%s%s", i ? ", " : "", rows[i].name);

        len += n > 0 ? (size_t)n : 0;
    }
    return out;
}

static bool name_fits(const char *pattern, const char *part, size_t n_bytes)
{
    size_t at = 0;

    for (; *pattern; pattern++) {
        if (*pattern != '*') {
            if (at >= n_bytes || part[at++] != *pattern)
                return false;
            continue;
        }
        if (at >= n_bytes || part[at] < '0' || part[at] > '9')
            return false;
        while (at < n_bytes && part[at] >= '0' && part[at] <= '9')
            at++;
    }
    return at == n_bytes;
}

static const char *name_in(const struct hf_name *names, const char *part, size_t n_bytes)
{
    for (; names->from; names++) {
        if (name_fits(names->from, part, n_bytes))
            return names->to;
    }
    return NULL;
}

const char *hf_layer_name(const struct hf_arch *row, const char *part, size_t n_bytes)
{
    const char *own = name_in(row->names, part, n_bytes);

    return own ? own : name_in(common, part, n_bytes);
}

const char *hf_model_name(const char *name, size_t n_bytes)
{
    return name_in(whole, name, n_bytes);
}
