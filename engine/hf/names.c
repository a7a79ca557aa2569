/* Names of tensors.
 *
 * Most families keep the names of the first Llama, so there is one common list; a family's own list
 * (arch.c) goes before it: where that knows a name, the common one is not asked. Tensors that are
 * not weights (causal masks, tables of frequencies that can be computed) map to "" and are left
 * out; a name that is in no list is an error later, because a weight that is not used makes every
 * number wrong. */
#include "engine/hf/inner.h"

#include <string.h>

/* `*` stands for a number: of an expert, of a head. */
static const struct hf_name common[] = {
    {"input_layernorm", "attn_norm", 0},
    {"self_attn.q_proj", "attn_q", 0},
    {"self_attn.k_proj", "attn_k", 0},
    {"self_attn.v_proj", "attn_v", 0},
    {"self_attn.qkv_proj", "attn_qkv", 0},
    {"self_attn.o_proj", "attn_output", 0},
    {"self_attn.q_norm", "attn_q_norm", 0},
    {"self_attn.k_norm", "attn_k_norm", 0},
    {"self_attn.rotary_emb.inv_freq", "", 0},
    {"post_attention_layernorm", "ffn_norm", 0},
    {"mlp.gate_proj", "ffn_gate", 0},
    {"mlp.up_proj", "ffn_up", 0},
    {"mlp.gate_up_proj", "ffn_up", 0},
    {"mlp.down_proj", "ffn_down", 0},
    {"mlp.gate", "ffn_gate_inp", 0},
    {"mlp.gate.e_score_correction_bias", "exp_probs_b.bias", 0},
    {"mlp.experts.*.gate_proj", "ffn_gate_exps", 0},
    {"mlp.experts.*.up_proj", "ffn_up_exps", 0},
    {"mlp.experts.*.down_proj", "ffn_down_exps", 0},
    {"mlp.shared_expert.gate_proj", "ffn_gate_shexp", 0},
    {"mlp.shared_expert.up_proj", "ffn_up_shexp", 0},
    {"mlp.shared_expert.down_proj", "ffn_down_shexp", 0},
    {"mlp.shared_expert_gate", "ffn_gate_inp_shexp", 0},
    {"mlp.shared_experts.gate_proj", "ffn_gate_shexp", 0},
    {"mlp.shared_experts.up_proj", "ffn_up_shexp", 0},
    {"mlp.shared_experts.down_proj", "ffn_down_shexp", 0},
    {"block_sparse_moe.gate", "ffn_gate_inp", 0},
    {"block_sparse_moe.e_score_correction_bias", "exp_probs_b.bias", 0},
    {"block_sparse_moe.experts.*.w1", "ffn_gate_exps", 0},
    {"block_sparse_moe.experts.*.w2", "ffn_down_exps", 0},
    {"block_sparse_moe.experts.*.w3", "ffn_up_exps", 0},
    {NULL, NULL, 0},
};

static const struct hf_name whole[] = {
    {"model.embed_tokens", "token_embd", 0},
    {"model.norm", "output_norm", 0},
    {"lm_head", "output", 0},
    {"transformer.wte", "token_embd", 0},
    {"transformer.wpe", "position_embd", 0},
    {"transformer.ln_f", "output_norm", 0},
    {"transformer.norm_f", "output_norm", 0},
    {"wte", "token_embd", 0},
    {"wpe", "position_embd", 0},
    {"ln_f", "output_norm", 0},
    {"gpt_neox.embed_in", "token_embd", 0},
    {"gpt_neox.final_layer_norm", "output_norm", 0},
    {"embed_out", "output", 0},
    {"transformer.word_embeddings", "token_embd", 0},
    {"transformer.word_embeddings_layernorm", "token_embd_norm", 0},
    {"word_embeddings", "token_embd", 0},
    {"word_embeddings_layernorm", "token_embd_norm", 0},
    {"model.final_layernorm", "output_norm", 0},
    {"model.tok_embeddings", "token_embd", 0},
    {"output", "output", 0},
    {"model.embedding_norm", "token_embd_norm", 0},
    {"model.rotary_emb.inv_freq", "", 0},
    {NULL, NULL, 0},
};

static bool name_fits(const char *pattern, const char *part, size_t n_bytes, uint32_t *number)
{
    size_t at = 0;

    *number = UINT32_MAX;
    for (; *pattern; pattern++) {
        uint32_t n = 0;

        if (*pattern != '*') {
            if (at >= n_bytes || part[at++] != *pattern)
                return false;
            continue;
        }
        if (at >= n_bytes || part[at] < '0' || part[at] > '9')
            return false;
        for (; at < n_bytes && part[at] >= '0' && part[at] <= '9'; at++)
            n = n < HF_MAX_EXPERTS ? n * 10 + (uint32_t)(part[at] - '0') : HF_MAX_EXPERTS;
        *number = n;
    }
    return at == n_bytes;
}

static const struct hf_name *name_in(const struct hf_name *names, const char *part, size_t n_bytes,
                                     uint32_t *number)
{
    for (; names->from; names++) {
        if (name_fits(names->from, part, n_bytes, number))
            return names;
    }
    return NULL;
}

const struct hf_name *hf_layer_name(const struct hf_arch *row, const char *part, size_t n_bytes,
                                    const struct hf_name **at, uint32_t *number)
{
    const struct hf_name *found = name_in(*at ? *at : row->names, part, n_bytes, number);

    if (!found && !*at)
        found = name_in(common, part, n_bytes, number);
    *at = found ? found + 1 : NULL;
    return found;
}

const struct hf_name *hf_model_name(const char *name, size_t n_bytes)
{
    uint32_t number;

    return name_in(whole, name, n_bytes, &number);
}
