/* The architectures by their Hugging Face names, one row each, with what is special about their
 * tensors and their config.json.
 *
 * What a row has to say about numbers is whether its tensors differ from GGUF's: rows of queries
 * and keys ordered for rotation by halves where the engine rotates pairs, norms without their 1,
 * matrices that are transposed, joined or cut otherwise (enum hf_cut). What its files leave out is
 * in `defaults`, as its authors' code fills it in; what they may ask for and the engine does not do
 * is in `must`.
 *
 * Sources: the families' published modelling code in the transformers library, for names and
 * layouts. */
#include "engine/hf/inner.h"

#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- tensors */

/* Norms around both branches. */
static const struct hf_name four_norms[] = {
    {"post_attention_layernorm", "post_attention_norm", 0},
    {"pre_feedforward_layernorm", "ffn_norm", 0},
    {"post_feedforward_layernorm", "post_ffw_norm", 0},
    {NULL, NULL, 0},
};
static const struct hf_name glm4[] = {
    {"post_self_attn_layernorm", "post_attention_norm", 0},
    {"post_mlp_layernorm", "post_ffw_norm", 0},
    {NULL, NULL, 0},
};
/* GGUF's name for the norm before the feed-forward is the other one here. */
static const struct hf_name second_norm[] = {
    {"post_attention_layernorm", "post_attention_norm", 0},
    {NULL, NULL, 0},
};
static const struct hf_name gpt2[] = {
    {"ln_1", "attn_norm", 0},
    {"attn.c_attn", "attn_qkv", HF_TRANSPOSED},
    {"attn.c_proj", "attn_output", HF_TRANSPOSED},
    {"attn.bias", "", 0},
    {"attn.masked_bias", "", 0},
    {"ln_2", "ffn_norm", 0},
    {"mlp.c_fc", "ffn_up", HF_TRANSPOSED},
    {"mlp.c_proj", "ffn_down", HF_TRANSPOSED},
    {NULL, NULL, 0},
};
static const struct hf_name bigcode[] = {
    {"ln_1", "attn_norm", 0},
    {"attn.c_attn", "attn_qkv", HF_GROUPED},
    {"attn.c_proj", "attn_output", 0},
    {"attn.bias", "", 0},
    {"attn.masked_bias", "", 0},
    {"ln_2", "ffn_norm", 0},
    {"mlp.c_fc", "ffn_up", 0},
    {"mlp.c_proj", "ffn_down", 0},
    {NULL, NULL, 0},
};
static const struct hf_name starcoder2[] = {
    {"mlp.c_fc", "ffn_up", 0},
    {"mlp.c_proj", "ffn_down", 0},
    {NULL, NULL, 0},
};
static const struct hf_name hunyuan[] = {
    {"self_attn.query_layernorm", "attn_q_norm", 0},
    {"self_attn.key_layernorm", "attn_k_norm", 0},
    {"mlp.gate.wg", "ffn_gate_inp", 0},
    {"mlp.shared_mlp.gate_proj", "ffn_gate_shexp", 0},
    {"mlp.shared_mlp.up_proj", "ffn_up_shexp", 0},
    {"mlp.shared_mlp.down_proj", "ffn_down_shexp", 0},
    {NULL, NULL, 0},
};
static const struct hf_name granitemoe[] = {
    {"block_sparse_moe.router.layer", "ffn_gate_inp", 0},
    {"block_sparse_moe.input_linear", "ffn_gate_exps", HF_FIRST_HALF},
    {"block_sparse_moe.input_linear", "ffn_up_exps", HF_SECOND_HALF},
    {"block_sparse_moe.output_linear", "ffn_down_exps", 0},
    {"shared_mlp.input_linear", "ffn_gate_shexp", HF_FIRST_HALF},
    {"shared_mlp.input_linear", "ffn_up_shexp", HF_SECOND_HALF},
    {"shared_mlp.output_linear", "ffn_down_shexp", 0},
    {NULL, NULL, 0},
};
static const struct hf_name deepseek[] = {
    {"self_attn.q_a_proj", "attn_q_a", 0},
    {"self_attn.q_a_layernorm", "attn_q_a_norm", 0},
    {"self_attn.q_b_proj", "attn_q_b", 0},
    {"self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa", 0},
    {"self_attn.kv_a_layernorm", "attn_kv_a_norm", 0},
    {"self_attn.kv_b_proj", "attn_k_b", HF_LATENT_K},
    {"self_attn.kv_b_proj", "attn_v_b", HF_LATENT_V},
    {NULL, NULL, 0},
};
static const struct hf_name gpt_oss[] = {
    {"self_attn.sinks", "attn_sinks.weight", 0},
    {"post_attention_layernorm", "post_attention_norm", 0},
    {"mlp.router", "ffn_gate_inp", 0},
    {"mlp.experts.gate_up_proj_blocks", "ffn_gate_exps.weight", HF_EVEN},
    {"mlp.experts.gate_up_proj_blocks", "ffn_up_exps.weight", HF_ODD},
    {"mlp.experts.gate_up_proj", "ffn_gate_exps.weight", HF_EVEN | HF_TRANSPOSED},
    {"mlp.experts.gate_up_proj", "ffn_up_exps.weight", HF_ODD | HF_TRANSPOSED},
    {"mlp.experts.gate_up_proj_bias", "ffn_gate_exps.bias", HF_EVEN},
    {"mlp.experts.gate_up_proj_bias", "ffn_up_exps.bias", HF_ODD},
    {"mlp.experts.down_proj_blocks", "ffn_down_exps.weight", 0},
    {"mlp.experts.down_proj", "ffn_down_exps.weight", HF_TRANSPOSED},
    {"mlp.experts.down_proj_bias", "ffn_down_exps.bias", 0},
    {NULL, NULL, 0},
};
static const struct hf_name phi2[] = {
    {"self_attn.q_proj", "attn_qkv", HF_JOIN_1},
    {"self_attn.k_proj", "attn_qkv", HF_JOIN_2},
    {"self_attn.v_proj", "attn_qkv", HF_JOIN_3},
    {"self_attn.dense", "attn_output", 0},
    {"mlp.fc1", "ffn_up", 0},
    {"mlp.fc2", "ffn_down", 0},
    {NULL, NULL, 0},
};
static const struct hf_name neox[] = {
    {"attention.query_key_value", "attn_qkv", HF_GROUPED},
    {"attention.dense", "attn_output", 0},
    {"attention.bias", "", 0},
    {"attention.masked_bias", "", 0},
    {"attention.rotary_emb.inv_freq", "", 0},
    {"mlp.dense_h_to_4h", "ffn_up", 0},
    {"mlp.dense_4h_to_h", "ffn_down", 0},
    {NULL, NULL, 0},
};
/* Falcon and Bloom. */
static const struct hf_name self_attention[] = {
    {"self_attention.query_key_value", "attn_qkv", HF_GROUPED},
    {"self_attention.dense", "attn_output", 0},
    {"self_attention.rotary_emb.inv_freq", "", 0},
    {"ln_mlp", "attn_norm", 0},
    {"ln_attn", "attn_norm_2", 0},
    {"mlp.dense_h_to_4h", "ffn_up", 0},
    {"mlp.dense_4h_to_h", "ffn_down", 0},
    {NULL, NULL, 0},
};
static const struct hf_name mpt[] = {
    {"norm_1", "attn_norm", 0},
    {"attn.Wqkv", "attn_qkv", 0},
    {"attn.out_proj", "attn_output", 0},
    {"norm_2", "ffn_norm", 0},
    {"ffn.up_proj", "ffn_up", 0},
    {"ffn.down_proj", "ffn_down", 0},
    {NULL, NULL, 0},
};
static const struct hf_name stablelm[] = {
    {"self_attn.q_layernorm.norms.*", "attn_q_norm", HF_STACK},
    {"self_attn.k_layernorm.norms.*", "attn_k_norm", HF_STACK},
    {NULL, NULL, 0},
};
static const struct hf_name internlm2[] = {
    {"attention.wqkv", "attn_q", HF_GROUPED_Q}, {"attention.wqkv", "attn_k", HF_GROUPED_K},
    {"attention.wqkv", "attn_v", HF_GROUPED_V}, {"attention.wo", "attn_output", 0},
    {"attention_norm", "attn_norm", 0},         {"ffn_norm", "ffn_norm", 0},
    {"feed_forward.w1", "ffn_gate", 0},         {"feed_forward.w2", "ffn_down", 0},
    {"feed_forward.w3", "ffn_up", 0},           {NULL, NULL, 0},
};
static const struct hf_name exaone[] = {
    {"ln_1", "attn_norm", 0},
    {"ln_2", "ffn_norm", 0},
    {"attn.attention.q_proj", "attn_q", 0},
    {"attn.attention.k_proj", "attn_k", 0},
    {"attn.attention.v_proj", "attn_v", 0},
    {"attn.attention.out_proj", "attn_output", 0},
    {"attn.attention.rotary.inv_freq", "", 0},
    {"mlp.c_fc_0", "ffn_gate", 0},
    {"mlp.c_fc_1", "ffn_up", 0},
    {"mlp.c_proj", "ffn_down", 0},
    {NULL, NULL, 0},
};
static const struct hf_name ernie_moe[] = {
    {"mlp.moe_statics.e_score_correction_bias", "exp_probs_b.bias", HF_SQUEEZE},
    {NULL, NULL, 0},
};
static const struct hf_name lfm2[] = {
    {"operator_norm", "attn_norm", 0},
    {"ffn_norm", "ffn_norm", 0},
    {"conv.conv", "shortconv.conv", HF_SQUEEZE},
    {"conv.in_proj", "shortconv.in_proj", 0},
    {"conv.out_proj", "shortconv.out_proj", 0},
    {"self_attn.q_layernorm", "attn_q_norm", 0},
    {"self_attn.k_layernorm", "attn_k_norm", 0},
    {"self_attn.out_proj", "attn_output", 0},
    {"feed_forward.w1", "ffn_gate", 0},
    {"feed_forward.w2", "ffn_down", 0},
    {"feed_forward.w3", "ffn_up", 0},
    {NULL, NULL, 0},
};
static const struct hf_name llama4[] = {
    {"feed_forward.gate_proj", "ffn_gate", 0},
    {"feed_forward.up_proj", "ffn_up", 0},
    {"feed_forward.down_proj", "ffn_down", 0},
    {"feed_forward.router", "ffn_gate_inp", 0},
    {"feed_forward.shared_expert.gate_proj", "ffn_gate_shexp", 0},
    {"feed_forward.shared_expert.up_proj", "ffn_up_shexp", 0},
    {"feed_forward.shared_expert.down_proj", "ffn_down_shexp", 0},
    {"feed_forward.experts.gate_up_proj", "ffn_gate_exps.weight", HF_FIRST_HALF | HF_TRANSPOSED},
    {"feed_forward.experts.gate_up_proj", "ffn_up_exps.weight", HF_SECOND_HALF | HF_TRANSPOSED},
    {"feed_forward.experts.down_proj", "ffn_down_exps.weight", HF_TRANSPOSED},
    {NULL, NULL, 0},
};
static const struct hf_name qwen3next[] = {
    {"post_attention_layernorm", "post_attention_norm", 0},
    {"linear_attn.in_proj_qkvz", "attn_qkv", HF_DELTA_QKV},
    {"linear_attn.in_proj_qkvz", "attn_gate", HF_DELTA_GATE},
    {"linear_attn.in_proj_ba", "ssm_ba", 0},
    {"linear_attn.conv1d", "ssm_conv1d", HF_SQUEEZE},
    {"linear_attn.dt_bias", "ssm_dt.bias", 0},
    {"linear_attn.A_log", "ssm_a", HF_MINUS_EXP},
    {"linear_attn.norm", "ssm_norm", HF_BARE},
    {"linear_attn.out_proj", "ssm_out", 0},
    {NULL, NULL, 0},
};
static const struct hf_name none[] = {{NULL, NULL, 0}};

/* ---------------------------------------------------------------- config.json */

static const struct hf_key granitemoe_keys[] = {
    {"shared_intermediate_size", "expert_shared_feed_forward_length", GGUF_U32},
    {NULL, NULL, 0},
};
static const struct hf_key neox_keys[] = {
    {"use_parallel_residual", "use_parallel_residual", GGUF_BOOL},
    {NULL, NULL, 0},
};
static const struct hf_key mpt_keys[] = {
    {"attn_config.clip_qkv", "attention.clamp_kqv", GGUF_F32},
    {"attn_config.alibi_bias_max", "attention.max_alibi_bias", GGUF_F32},
    {NULL, NULL, 0},
};
static const struct hf_key ernie_keys[] = {
    {"moe_num_experts", "expert_count", GGUF_U32},
    {"moe_k", "expert_used_count", GGUF_U32},
    {"moe_num_shared_experts", "expert_shared_count", GGUF_U32},
    {"moe_layer_start_index", "leading_dense_block_count", GGUF_U32},
    {"moe_layer_interval", "interleave_moe_layer_step", GGUF_U32},
    {NULL, NULL, 0},
};
static const struct hf_key hunyuan_moe_keys[] = {
    {"moe_topk", "expert_used_count", GGUF_U32},
    {"intermediate_size", "expert_shared_feed_forward_length", GGUF_U32},
    {NULL, NULL, 0},
};
static const struct hf_key lfm2_keys[] = {
    {"conv_L_cache", "shortconv.l_cache", GGUF_U32},
    {NULL, NULL, 0},
};
static const struct hf_key llama4_keys[] = {
    {"intermediate_size", "expert_feed_forward_length", GGUF_U32},
    {"interleave_moe_layer_step", "interleave_moe_layer_step", GGUF_U32},
    {NULL, NULL, 0},
};
static const struct hf_key delta_keys[] = {
    {"linear_conv_kernel_dim", "ssm.conv_kernel", GGUF_U32},
    {"linear_key_head_dim", "ssm.state_size", GGUF_U32},
    {"linear_num_key_heads", "ssm.group_count", GGUF_U32},
    {"linear_num_value_heads", "ssm.time_step_rank", GGUF_U32},
    {"full_attention_interval", "full_attention_interval", GGUF_U32},
    {NULL, NULL, 0},
};

#define GEMMA2                                                                                     \
    "{\"attn_logit_softcapping\":50.0,\"final_logit_softcapping\":30.0,"                           \
    "\"query_pre_attn_scalar\":256,\"sliding_window\":4096,\"head_dim\":256}"
#define GEMMA3                                                                                     \
    "{\"vocab_size\":262208,\"num_attention_heads\":8,\"num_key_value_heads\":4,"                  \
    "\"head_dim\":256,\"max_position_embeddings\":131072,\"rms_norm_eps\":1e-6,"                   \
    "\"rope_theta\":1000000.0,\"rope_local_base_freq\":10000.0,\"query_pre_attn_scalar\":256,"     \
    "\"sliding_window\":4096}"
#define LLAMA4                                                                                     \
    "{\"rope_theta\":500000.0,\"interleave_moe_layer_step\":1,\"max_position_embeddings\":131072," \
    "\"num_local_experts\":16,\"num_experts_per_tok\":1,\"rms_norm_eps\":1e-5,\"head_dim\":128}"

#define LLAMA4_MUST "{\"attention_chunk_size\":8192,\"no_rope_layer_interval\":4}"

/* ---------------------------------------------------------------- rows */

#define ROW(hf, gguf, act, flag, tensors, ...)                                                     \
    {                                                                                              \
        .name = (hf), .arch = (gguf), .activation = (act), .flags = (flag), .names = (tensors),    \
        __VA_ARGS__                                                                                \
    }

static const struct hf_arch rows[] = {
    ROW("LlamaForCausalLM", "llama", "silu", HF_PAIRS, none, .keys = NULL),
    ROW("MistralForCausalLM", "llama", "silu", HF_PAIRS, none, .keys = NULL),
    ROW("MixtralForCausalLM", "llama", "silu", HF_PAIRS | HF_SUM_ONE, none, .keys = NULL),
    ROW("Qwen2ForCausalLM", "qwen2", "silu", 0, none, .keys = NULL),
    ROW("Qwen2MoeForCausalLM", "qwen2moe", "silu", HF_SUM_FREE, none, .keys = NULL),
    ROW("Qwen3ForCausalLM", "qwen3", "silu", 0, none, .keys = NULL),
    ROW("Qwen3MoeForCausalLM", "qwen3moe", "silu", HF_SUM_ONE, none, .keys = NULL),
    ROW("Qwen3NextForCausalLM", "qwen3next", "silu", HF_SUM_ONE | HF_NORM_ONE | HF_DELTA, qwen3next,
        .keys = delta_keys, .defaults = "{\"full_attention_interval\":4,\"norm_topk_prob\":true}"),
    ROW("GemmaForCausalLM", "gemma", "gelu", HF_NORM_ONE | HF_TIED, none, .keys = NULL),
    ROW("Gemma2ForCausalLM", "gemma2", "gelu_pytorch_tanh",
        HF_NORM_ONE | HF_TIED | HF_WINDOW | HF_QUERY_SCALAR, four_norms, .defaults = GEMMA2),
    ROW("Gemma3ForCausalLM", "gemma3", "gelu_pytorch_tanh",
        HF_NORM_ONE | HF_TIED | HF_WINDOW | HF_QUERY_SCALAR, four_norms, .defaults = GEMMA3),
    ROW("Gemma3ForConditionalGeneration", "gemma3", "gelu_pytorch_tanh",
        HF_NORM_ONE | HF_TIED | HF_WINDOW | HF_QUERY_SCALAR | HF_TEXT_CONFIG, four_norms,
        .defaults = GEMMA3),
    ROW("Phi3ForCausalLM", "phi3", "silu", 0, none, .keys = NULL),
    ROW("PhiForCausalLM", "phi2", "gelu_new", 0, phi2, .must = "{\"qk_layernorm\":false}",
        .defaults = "{\"partial_rotary_factor\":0.5}"),
    ROW("GptOssForCausalLM", "gpt-oss", "silu", HF_WINDOW, gpt_oss, .keys = NULL),
    ROW("DeepseekV2ForCausalLM", "deepseek2", "silu", HF_LATENT, deepseek,
        .must = "{\"moe_layer_freq\":1}", .defaults = "{\"scoring_func\":\"softmax\"}"),
    ROW("DeepseekV3ForCausalLM", "deepseek2", "silu", HF_LATENT, deepseek,
        .must = "{\"moe_layer_freq\":1,\"rope_interleave\":true}",
        .defaults = "{\"scoring_func\":\"sigmoid\",\"norm_topk_prob\":true}"),
    ROW("GPT2LMHeadModel", "gpt2", "gelu_new", HF_TIED, gpt2, .keys = NULL),
    ROW("GPTBigCodeForCausalLM", "starcoder", "gelu_pytorch_tanh", HF_TIED | HF_MULTI_QUERY,
        bigcode, .defaults = "{\"multi_query\":true}"),
    ROW("SmolLM3ForCausalLM", "smollm3", "silu", HF_PAIRS | HF_TIED, none,
        .must = "{\"no_rope_layer_interval\":4}"),
    ROW("ArceeForCausalLM", "arcee", "relu2", HF_PAIRS, none, .keys = NULL),
    ROW("GraniteForCausalLM", "granite", "silu", HF_PAIRS | HF_GRANITE, none, .keys = NULL),
    ROW("GraniteMoeForCausalLM", "granitemoe", "silu", HF_PAIRS | HF_GRANITE, granitemoe,
        .keys = granitemoe_keys),
    ROW("GraniteMoeSharedForCausalLM", "granitemoe", "silu", HF_PAIRS | HF_GRANITE, granitemoe,
        .keys = granitemoe_keys),
    ROW("OlmoForCausalLM", "olmo", "silu", HF_PAIRS, none, .keys = NULL),
    ROW("Olmo2ForCausalLM", "olmo2", "silu", 0, four_norms, .keys = NULL),
    ROW("Olmo3ForCausalLM", "olmo2", "silu", HF_WINDOW, four_norms, .keys = NULL),
    ROW("OlmoeForCausalLM", "olmoe", "silu", HF_SUM_FREE, none, .keys = NULL),
    ROW("Starcoder2ForCausalLM", "starcoder2", "gelu_pytorch_tanh", HF_TIED, starcoder2,
        .keys = NULL),
    ROW("StableLmForCausalLM", "stablelm", "silu", 0, stablelm,
        .defaults = "{\"partial_rotary_factor\":0.25}"),
    ROW("GPTNeoXForCausalLM", "gptneox", "gelu", 0, neox, .keys = neox_keys,
        .defaults = "{\"use_parallel_residual\":true,\"rotary_pct\":0.25}"),
    ROW("FalconForCausalLM", "falcon", "gelu", HF_TIED | HF_MULTI_QUERY, self_attention,
        .must = "{\"alibi\":false,\"parallel_attn\":true}",
        .defaults = "{\"max_position_embeddings\":2048,\"multi_query\":true}"),
    ROW("BloomForCausalLM", "bloom", "gelu", HF_TIED, self_attention,
        .must = "{\"apply_residual_connection_post_layernorm\":false}",
        .defaults = "{\"max_position_embeddings\":2048}"),
    ROW("MPTForCausalLM", "mpt", "gelu", HF_TIED, mpt, .keys = mpt_keys,
        .must = "{\"attn_config.alibi\":true,\"attn_config.qk_ln\":false,\"no_bias\":true}",
        .defaults = "{\"layer_norm_epsilon\":1e-5}"),
    ROW("MptForCausalLM", "mpt", "gelu", HF_TIED, mpt, .keys = mpt_keys,
        .must = "{\"attn_config.alibi\":true,\"attn_config.qk_ln\":false,\"no_bias\":true}",
        .defaults = "{\"layer_norm_epsilon\":1e-5}"),
    ROW("CohereForCausalLM", "command-r", "silu", HF_TIED, none, .keys = NULL),
    ROW("Cohere2ForCausalLM", "cohere2", "silu", HF_WINDOW | HF_TIED, none, .keys = NULL),
    ROW("Glm4ForCausalLM", "glm4", "silu", 0, glm4, .keys = NULL),
    ROW("Glm4MoeForCausalLM", "glm4moe", "silu", 0, second_norm, .keys = NULL),
    ROW("SeedOssForCausalLM", "seed_oss", "silu", 0, second_norm, .keys = NULL),
    ROW("InternLM2ForCausalLM", "internlm2", "silu", HF_PAIRS, internlm2, .keys = NULL),
    ROW("ExaoneForCausalLM", "exaone", "silu", 0, exaone, .keys = NULL),
    ROW("Exaone4ForCausalLM", "exaone4", "silu", HF_WINDOW, four_norms, .keys = NULL),
    ROW("HunYuanDenseV1ForCausalLM", "hunyuan-dense", "silu", 0, hunyuan, .keys = NULL),
    ROW("HunYuanMoEV1ForCausalLM", "hunyuan-moe", "silu", 0, hunyuan, .keys = hunyuan_moe_keys),
    ROW("NemotronForCausalLM", "nemotron", "relu2", HF_NORM_ONE, none, .keys = NULL),
    ROW("MiniCPMForCausalLM", "minicpm", "silu", HF_PAIRS | HF_DEPTH_SCALES, none, .keys = NULL),
    ROW("MiniMaxM2ForCausalLM", "minimax-m2", "silu", 0, none,
        .must = "{\"scoring_func\":\"sigmoid\"}"),
    ROW("Ernie4_5ForCausalLM", "ernie4_5", "silu", 0, none, .keys = NULL),
    ROW("Ernie4_5_ForCausalLM", "ernie4_5", "silu", 0, none, .keys = NULL),
    ROW("Ernie4_5_MoeForCausalLM", "ernie4_5-moe", "silu", 0, ernie_moe, .keys = ernie_keys),
    ROW("Lfm2ForCausalLM", "lfm2", "silu", HF_CONV | HF_TIED, lfm2, .keys = lfm2_keys,
        .must = "{\"conv_bias\":false}", .defaults = "{\"rope_theta\":1000000.0}"),
    ROW("Llama4ForCausalLM", "llama4", "silu", HF_TEXT_CONFIG, llama4, .keys = llama4_keys,
        .defaults = LLAMA4, .must = LLAMA4_MUST),
    ROW("Llama4ForConditionalGeneration", "llama4", "silu", HF_TEXT_CONFIG, llama4,
        .keys = llama4_keys, .defaults = LLAMA4, .must = LLAMA4_MUST),
};

const struct hf_arch *hf_arch_find(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    }
    return NULL;
}

/* GGUF's names, each once: they are the shorter ones. */
const char *hf_arch_names(char *out, size_t out_size)
{
    size_t len = 0, more = 0;

    out[0] = '\0';
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        size_t n = strlen(rows[i].arch), before = 0;

        while (strcmp(rows[before].arch, rows[i].arch) != 0)
            before++;
        if (before == i && !more && len + n + sizeof ", and 100 more" < out_size)
            len +=
                (size_t)snprintf(out + len, out_size - len, "%s%s", len ? ", " : "", rows[i].arch);
        else if (before == i)
            more++;
    }
    if (more)
        (void)snprintf(out + len, out_size - len, ", and %zu more", more);
    return out;
}
