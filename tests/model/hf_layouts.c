/* The layouts of Hugging Face folders, family by family, as their published code has them: where
 * each tensor of a GGUF goes and what config.json calls its numbers. A family is named after a
 * folder of the conformance data that it can be written from. */
#include "tests/model/hf_write.h"

#include <string.h>

#define END                                                                                        \
    {                                                                                              \
        NULL, NULL, PLAIN                                                                          \
    }
#define LAYERS "model.layers."

static const struct hf_rule four_norms[] = {
    {"post_attention_norm", "post_attention_layernorm", PLAIN},
    {"ffn_norm", "pre_feedforward_layernorm", PLAIN},
    {"post_ffw_norm", "post_feedforward_layernorm", PLAIN},
    END};
static const struct hf_rule glm4[] = {{"post_attention_norm", "post_self_attn_layernorm", PLAIN},
                                      {"post_ffw_norm", "post_mlp_layernorm", PLAIN},
                                      {"ffn_up", "mlp.gate_up_proj", PLAIN},
                                      END};
static const struct hf_rule second_norm[] = {
    {"post_attention_norm", "post_attention_layernorm", PLAIN}, END};
static const struct hf_rule qwen2moe[] = {{"ffn_gate_inp_shexp", "mlp.shared_expert_gate", FRONT_1},
                                          {"ffn_gate_shexp", "mlp.shared_expert.gate_proj", PLAIN},
                                          {"ffn_up_shexp", "mlp.shared_expert.up_proj", PLAIN},
                                          {"ffn_down_shexp", "mlp.shared_expert.down_proj", PLAIN},
                                          END};
static const struct hf_rule granitemoe[] = {
    {"ffn_gate_inp", "block_sparse_moe.router.layer", PLAIN},
    {"ffn_gate_exps", "block_sparse_moe.input_linear", HALVES},
    {"ffn_up_exps", NULL, NOT_WRITTEN},
    {"ffn_down_exps", "block_sparse_moe.output_linear", FUSED},
    {"ffn_gate_shexp", "shared_mlp.input_linear", HALVES},
    {"ffn_up_shexp", NULL, NOT_WRITTEN},
    {"ffn_down_shexp", "shared_mlp.output_linear", PLAIN},
    END};
static const struct hf_rule deepseek[] = {{"attn_q_a", "self_attn.q_a_proj", PLAIN},
                                          {"attn_q_a_norm", "self_attn.q_a_layernorm", PLAIN},
                                          {"attn_q_b", "self_attn.q_b_proj", PLAIN},
                                          {"attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa", PLAIN},
                                          {"attn_kv_a_norm", "self_attn.kv_a_layernorm", PLAIN},
                                          {"attn_k_b", "self_attn.kv_b_proj", LATENT},
                                          {"attn_v_b", NULL, NOT_WRITTEN},
                                          END};
static const struct hf_rule gpt_oss[] = {
    {"post_attention_norm", "post_attention_layernorm", PLAIN},
    {"attn_sinks.weight", "self_attn.sinks", PLAIN},
    {"ffn_gate_inp", "mlp.router", PLAIN},
    {"ffn_gate_exps.weight", "mlp.experts.gate_up_proj", EVEN_ODD_FP4},
    {"ffn_gate_exps.bias", "mlp.experts.gate_up_proj_bias", EVEN_ODD},
    {"ffn_up_exps", NULL, NOT_WRITTEN},
    {"ffn_down_exps.weight", "mlp.experts.down_proj", FUSED_FP4},
    {"ffn_down_exps.bias", "mlp.experts.down_proj_bias", PLAIN},
    END};
static const struct hf_rule phi2[] = {{"attn_qkv", "self_attn.%_proj", SPLIT_QKV},
                                      {"attn_output", "self_attn.dense", PLAIN},
                                      {"ffn_up", "mlp.fc1", PLAIN},
                                      {"ffn_down", "mlp.fc2", PLAIN},
                                      {"output_norm", "model.final_layernorm", PLAIN},
                                      END};
static const struct hf_rule gpt2[] = {{"token_embd", "transformer.wte", PLAIN},
                                      {"position_embd", "transformer.wpe", PLAIN},
                                      {"output_norm", "transformer.ln_f", PLAIN},
                                      {"attn_norm", "ln_1", PLAIN},
                                      {"ffn_norm", "ln_2", PLAIN},
                                      {"attn_qkv.weight", "attn.c_attn.weight", TRANSPOSE},
                                      {"attn_qkv", "attn.c_attn", PLAIN},
                                      {"attn_output.weight", "attn.c_proj.weight", TRANSPOSE},
                                      {"attn_output", "attn.c_proj", PLAIN},
                                      {"ffn_up.weight", "mlp.c_fc.weight", TRANSPOSE},
                                      {"ffn_up", "mlp.c_fc", PLAIN},
                                      {"ffn_down.weight", "mlp.c_proj.weight", TRANSPOSE},
                                      {"ffn_down", "mlp.c_proj", PLAIN},
                                      END};
static const struct hf_rule bigcode[] = {{"token_embd", "transformer.wte", PLAIN},
                                         {"position_embd", "transformer.wpe", PLAIN},
                                         {"output_norm", "transformer.ln_f", PLAIN},
                                         {"attn_norm", "ln_1", PLAIN},
                                         {"ffn_norm", "ln_2", PLAIN},
                                         {"attn_qkv", "attn.c_attn", PLAIN},
                                         {"attn_output", "attn.c_proj", PLAIN},
                                         {"ffn_up", "mlp.c_fc", PLAIN},
                                         {"ffn_down", "mlp.c_proj", PLAIN},
                                         END};
static const struct hf_rule neox[] = {{"token_embd", "gpt_neox.embed_in", PLAIN},
                                      {"output_norm", "gpt_neox.final_layer_norm", PLAIN},
                                      {"output", "embed_out", PLAIN},
                                      {"attn_qkv", "attention.query_key_value", GROUP_QKV},
                                      {"attn_output", "attention.dense", PLAIN},
                                      {"ffn_up", "mlp.dense_h_to_4h", PLAIN},
                                      {"ffn_down", "mlp.dense_4h_to_h", PLAIN},
                                      END};
static const struct hf_rule falcon40[] = {{"token_embd", "transformer.word_embeddings", PLAIN},
                                          {"output_norm", "transformer.ln_f", PLAIN},
                                          {"attn_norm", "ln_mlp", PLAIN},
                                          {"attn_norm_2", "ln_attn", PLAIN},
                                          {"attn_qkv", "self_attention.query_key_value", GROUP_QKV},
                                          {"attn_output", "self_attention.dense", PLAIN},
                                          {"ffn_up", "mlp.dense_h_to_4h", PLAIN},
                                          {"ffn_down", "mlp.dense_4h_to_h", PLAIN},
                                          END};
/* Falcon 7B, and Bloom, which has one tensor more. */
static const struct hf_rule bloom[] = {
    {"token_embd", "transformer.word_embeddings", PLAIN},
    {"token_embd_norm", "transformer.word_embeddings_layernorm", PLAIN},
    {"output_norm", "transformer.ln_f", PLAIN},
    {"attn_qkv", "self_attention.query_key_value", GROUP_QKV},
    {"attn_output", "self_attention.dense", PLAIN},
    {"ffn_up", "mlp.dense_h_to_4h", PLAIN},
    {"ffn_down", "mlp.dense_4h_to_h", PLAIN},
    END};
static const struct hf_rule mpt[] = {{"token_embd", "transformer.wte", PLAIN},
                                     {"output_norm", "transformer.norm_f", PLAIN},
                                     {"attn_norm", "norm_1", PLAIN},
                                     {"ffn_norm", "norm_2", PLAIN},
                                     {"attn_qkv", "attn.Wqkv", PLAIN},
                                     {"attn_output", "attn.out_proj", PLAIN},
                                     {"ffn_up", "ffn.up_proj", PLAIN},
                                     {"ffn_down", "ffn.down_proj", PLAIN},
                                     END};
static const struct hf_rule starcoder2[] = {
    {"ffn_up", "mlp.c_fc", PLAIN}, {"ffn_down", "mlp.c_proj", PLAIN}, END};
static const struct hf_rule stablelm12[] = {
    {"attn_q_norm", "self_attn.q_layernorm.norms.%u", HEAD_ROWS},
    {"attn_k_norm", "self_attn.k_layernorm.norms.%u", HEAD_ROWS},
    END};
static const struct hf_rule internlm2[] = {{"token_embd", "model.tok_embeddings", PLAIN},
                                           {"output", "output", PLAIN},
                                           {"attn_norm", "attention_norm", PLAIN},
                                           {"ffn_norm", "ffn_norm", PLAIN},
                                           {"attn_q", "attention.wqkv", GROUP_APART},
                                           {"attn_k", NULL, NOT_WRITTEN},
                                           {"attn_v", NULL, NOT_WRITTEN},
                                           {"attn_output", "attention.wo", PLAIN},
                                           {"ffn_gate", "feed_forward.w1", PLAIN},
                                           {"ffn_down", "feed_forward.w2", PLAIN},
                                           {"ffn_up", "feed_forward.w3", PLAIN},
                                           END};
static const struct hf_rule exaone[] = {{"token_embd", "transformer.wte", PLAIN},
                                        {"output_norm", "transformer.ln_f", PLAIN},
                                        {"attn_norm", "ln_1", PLAIN},
                                        {"ffn_norm", "ln_2", PLAIN},
                                        {"attn_q", "attn.attention.q_proj", PLAIN},
                                        {"attn_k", "attn.attention.k_proj", PLAIN},
                                        {"attn_v", "attn.attention.v_proj", PLAIN},
                                        {"attn_output", "attn.attention.out_proj", PLAIN},
                                        {"ffn_gate", "mlp.c_fc_0", PLAIN},
                                        {"ffn_up", "mlp.c_fc_1", PLAIN},
                                        {"ffn_down", "mlp.c_proj", PLAIN},
                                        END};
static const struct hf_rule ernie_moe[] = {
    {"exp_probs_b.bias", "mlp.moe_statics.e_score_correction_bias", FRONT_1}, END};
static const struct hf_rule hunyuan[] = {{"attn_q_norm", "self_attn.query_layernorm", PLAIN},
                                         {"attn_k_norm", "self_attn.key_layernorm", PLAIN},
                                         {"ffn_gate_inp", "mlp.gate.wg", PLAIN},
                                         {"ffn_gate_shexp", "mlp.shared_mlp.gate_proj", PLAIN},
                                         {"ffn_up_shexp", "mlp.shared_mlp.up_proj", PLAIN},
                                         {"ffn_down_shexp", "mlp.shared_mlp.down_proj", PLAIN},
                                         END};
static const struct hf_rule minimax[] = {
    {"ffn_gate_inp", "block_sparse_moe.gate", PLAIN},
    {"exp_probs_b.bias", "block_sparse_moe.e_score_correction_bias", PLAIN},
    {"ffn_gate_exps", "block_sparse_moe.experts.%u.w1", EXPERTS},
    {"ffn_down_exps", "block_sparse_moe.experts.%u.w2", EXPERTS},
    {"ffn_up_exps", "block_sparse_moe.experts.%u.w3", EXPERTS},
    END};
static const struct hf_rule lfm2[] = {{"token_embd_norm", "model.embedding_norm", PLAIN},
                                      {"attn_norm", "operator_norm", PLAIN},
                                      {"ffn_norm", "ffn_norm", PLAIN},
                                      {"shortconv.conv", "conv.conv", MIDDLE_1},
                                      {"shortconv.in_proj", "conv.in_proj", PLAIN},
                                      {"shortconv.out_proj", "conv.out_proj", PLAIN},
                                      {"attn_q_norm", "self_attn.q_layernorm", PLAIN},
                                      {"attn_k_norm", "self_attn.k_layernorm", PLAIN},
                                      {"attn_output", "self_attn.out_proj", PLAIN},
                                      {"ffn_gate", "feed_forward.w1", PLAIN},
                                      {"ffn_down", "feed_forward.w2", PLAIN},
                                      {"ffn_up", "feed_forward.w3", PLAIN},
                                      END};
static const struct hf_rule llama4[] = {
    {"ffn_gate", "feed_forward.gate_proj", PLAIN},
    {"ffn_up", "feed_forward.up_proj", PLAIN},
    {"ffn_down", "feed_forward.down_proj", PLAIN},
    {"ffn_gate_inp", "feed_forward.router", PLAIN},
    {"ffn_gate_shexp", "feed_forward.shared_expert.gate_proj", PLAIN},
    {"ffn_up_shexp", "feed_forward.shared_expert.up_proj", PLAIN},
    {"ffn_down_shexp", "feed_forward.shared_expert.down_proj", PLAIN},
    {"ffn_gate_exps.weight", "feed_forward.experts.gate_up_proj", HALVES_T},
    {"ffn_up_exps", NULL, NOT_WRITTEN},
    {"ffn_down_exps.weight", "feed_forward.experts.down_proj", FUSED_T},
    END};
static const struct hf_rule qwen3next[] = {
    {"post_attention_norm", "post_attention_layernorm", PLAIN},
    {"attn_qkv", "linear_attn.in_proj_qkvz", DELTA},
    {"attn_gate", NULL, NOT_WRITTEN},
    {"ssm_conv1d", "linear_attn.conv1d", MIDDLE_1},
    {"ssm_dt.bias", "linear_attn.dt_bias", PLAIN},
    {"ssm_a", "linear_attn.A_log", LOG_MINUS},
    {"ssm_ba", "linear_attn.in_proj_ba", PLAIN},
    {"ssm_norm", "linear_attn.norm", PLAIN},
    {"ssm_out", "linear_attn.out_proj", PLAIN},
    {"ffn_gate_inp_shexp", "mlp.shared_expert_gate", FRONT_1},
    {"ffn_gate_shexp", "mlp.shared_expert.gate_proj", PLAIN},
    {"ffn_up_shexp", "mlp.shared_expert.up_proj", PLAIN},
    {"ffn_down_shexp", "mlp.shared_expert.down_proj", PLAIN},
    END};

#define NO_MORE                                                                                    \
    {                                                                                              \
        NULL, NULL                                                                                 \
    }
static const struct hf_setting shared_ff[] = {
    {"shared_expert_intermediate_size", "expert_shared_feed_forward_length"}, NO_MORE};
static const struct hf_setting granite_set[] = {
    {"embedding_multiplier", "embedding_scale"},
    {"residual_multiplier", "residual_scale"},
    {"attention_multiplier", "attention.scale"},
    {"logits_scaling", "logit_scale"},
    {"num_experts", NULL},
    {"num_local_experts", "expert_count"},
    {"shared_intermediate_size", "expert_shared_feed_forward_length"},
    NO_MORE};
static const struct hf_setting deepseek_set[] = {
    {"num_experts", NULL},
    {"head_dim", NULL},
    {"partial_rotary_factor", NULL},
    {"num_key_value_heads", "attention.head_count"},
    {"n_routed_experts", "expert_count"},
    {"n_shared_experts", "expert_shared_count"},
    {"first_k_dense_replace", "leading_dense_block_count"},
    {"routed_scaling_factor", "expert_weights_scale"},
    {"norm_topk_prob", "expert_weights_norm"},
    {"n_group", "expert_group_count"},
    {"topk_group", "expert_group_used_count"},
    {"kv_lora_rank", "attention.kv_lora_rank"},
    {"q_lora_rank", "attention.q_lora_rank"},
    {"qk_rope_head_dim", "rope.dimension_count"},
    {"v_head_dim", "attention.value_length_mla"},
    NO_MORE};
static const struct hf_setting gpt_oss_set[] = {
    {"num_experts", NULL}, {"num_local_experts", "expert_count"}, NO_MORE};
static const struct hf_setting cap_set[] = {{"attn_logit_softcapping", "attn_logit_softcapping"},
                                            {"final_logit_softcapping", "final_logit_softcapping"},
                                            NO_MORE};
static const struct hf_setting scale_set[] = {{"logit_scale", "logit_scale"}, NO_MORE};
static const struct hf_setting clip_set[] = {{"clip_qkv", "attention.clamp_kqv"}, NO_MORE};
static const struct hf_setting gpt2_set[] = {
    {"n_embd", "embedding_length"},     {"hidden_size", NULL},
    {"n_layer", "block_count"},         {"num_hidden_layers", NULL},
    {"n_head", "attention.head_count"}, {"num_attention_heads", NULL},
    {"num_key_value_heads", NULL},      {"n_positions", "context_length"},
    {"max_position_embeddings", NULL},  {"n_inner", "feed_forward_length"},
    {"intermediate_size", NULL},        {"layer_norm_epsilon", "attention.layer_norm_epsilon"},
    {"layer_norm_eps", NULL},           NO_MORE};
static const struct hf_setting neox_set[] = {{"rotary_emb_base", "rope.freq_base"},
                                             {"rope_theta", NULL},
                                             {"use_parallel_residual", "use_parallel_residual"},
                                             NO_MORE};
static const struct hf_setting falcon_set[] = {
    {"num_key_value_heads", NULL},
    {"num_kv_heads", "attention.head_count_kv"},
    {"ffn_hidden_size", "feed_forward_length"},
    {"intermediate_size", NULL},
    {"layer_norm_epsilon", "attention.layer_norm_epsilon"},
    {"layer_norm_eps", NULL},
    NO_MORE};
static const struct hf_setting bloom_set[] = {
    {"n_layer", "block_count"},
    {"num_hidden_layers", NULL},
    {"n_head", "attention.head_count"},
    {"num_attention_heads", NULL},
    {"num_key_value_heads", NULL},
    {"max_position_embeddings", NULL},
    {"layer_norm_epsilon", "attention.layer_norm_epsilon"},
    {"layer_norm_eps", NULL},
    NO_MORE};
static const struct hf_setting mpt_set[] = {{"d_model", "embedding_length"},
                                            {"hidden_size", NULL},
                                            {"n_layers", "block_count"},
                                            {"num_hidden_layers", NULL},
                                            {"n_heads", "attention.head_count"},
                                            {"num_attention_heads", NULL},
                                            {"num_key_value_heads", NULL},
                                            {"max_seq_len", "context_length"},
                                            {"max_position_embeddings", NULL},
                                            {"intermediate_size", NULL},
                                            {"layer_norm_eps", NULL},
                                            NO_MORE};
static const struct hf_setting starcoder2_set[] = {
    {"norm_epsilon", "attention.layer_norm_epsilon"}, {"layer_norm_eps", NULL}, NO_MORE};
static const struct hf_setting exaone_set[] = {
    {"num_layers", "block_count"},
    {"num_hidden_layers", NULL},
    {"layer_norm_epsilon", "attention.layer_norm_rms_epsilon"},
    {"rms_norm_eps", NULL},
    NO_MORE};
static const struct hf_setting minicpm_set[] = {{"scale_emb", "embedding_scale"}, NO_MORE};
static const struct hf_setting ernie_set[] = {
    {"num_experts", NULL},
    {"num_experts_per_tok", NULL},
    {"moe_num_experts", "expert_count"},
    {"moe_k", "expert_used_count"},
    {"moe_layer_start_index", "leading_dense_block_count"},
    {"moe_layer_interval", "interleave_moe_layer_step"},
    NO_MORE};
static const struct hf_setting glm_set[] = {{"num_experts", NULL},
                                            {"n_routed_experts", "expert_count"},
                                            {"n_shared_experts", "expert_shared_count"},
                                            {"first_k_dense_replace", "leading_dense_block_count"},
                                            {"routed_scaling_factor", "expert_weights_scale"},
                                            {"norm_topk_prob", "expert_weights_norm"},
                                            NO_MORE};
static const struct hf_setting hunyuan_set[] = {{"num_experts_per_tok", NULL}, NO_MORE};
static const struct hf_setting minimax_set[] = {{"num_experts", NULL},
                                                {"num_local_experts", "expert_count"},
                                                {"moe_intermediate_size", NULL},
                                                {"intermediate_size", "expert_feed_forward_length"},
                                                {"rotary_dim", "rope.dimension_count"},
                                                {"partial_rotary_factor", NULL},
                                                NO_MORE};
static const struct hf_setting lfm2_set[] = {{"norm_eps", "attention.layer_norm_rms_epsilon"},
                                             {"rms_norm_eps", NULL},
                                             {"conv_L_cache", "shortconv.l_cache"},
                                             NO_MORE};
static const struct hf_setting llama4_set[] = {
    {"num_experts", NULL},
    {"num_local_experts", "expert_count"},
    {"moe_intermediate_size", NULL},
    {"intermediate_size_mlp", "feed_forward_length"},
    {"intermediate_size", "expert_feed_forward_length"},
    {"interleave_moe_layer_step", "interleave_moe_layer_step"},
    NO_MORE};
static const struct hf_setting next_set[] = {
    {"shared_expert_intermediate_size", "expert_shared_feed_forward_length"},
    {"linear_conv_kernel_dim", "ssm.conv_kernel"},
    {"linear_key_head_dim", "ssm.state_size"},
    {"linear_value_head_dim", "ssm.state_size"},
    {"linear_num_key_heads", "ssm.group_count"},
    {"linear_num_value_heads", "ssm.time_step_rank"},
    NO_MORE};

#define YARN40                                                                                     \
    "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":40,\"original_max_position_embeddings\":4096," \
    "\"mscale\":1.0,\"mscale_all_dim\":1.0,\"beta_fast\":32,\"beta_slow\":1}"
#define YARN32                                                                                     \
    "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":32.0,\"beta_fast\":32.0,\"beta_slow\":"   \
    "1.0,\"original_max_position_embeddings\":4096,\"truncate\":false}"

const struct hf_family hf_families[HF_FAMILIES] = {
    {"llama", "LlamaForCausalLM", HF_UNPAIR, LAYERS, NULL, NULL, NULL},
    {"llama-headdim", "MistralForCausalLM", HF_UNPAIR, LAYERS, NULL, NULL, NULL},
    {"mixtral", "MixtralForCausalLM", HF_UNPAIR, LAYERS, minimax,
     (const struct hf_setting[]){{"moe_intermediate_size", NULL}, NO_MORE}, NULL},
    {"qwen2moe", "Qwen2MoeForCausalLM", 0, LAYERS, qwen2moe, shared_ff, NULL},
    {"qwen3next", "Qwen3NextForCausalLM", HF_MINUS_ONE, LAYERS, qwen3next, next_set, NULL},
    {"gemma", "GemmaForCausalLM", HF_MINUS_ONE, LAYERS, NULL, NULL, NULL},
    {"gemma2", "Gemma2ForCausalLM", HF_MINUS_ONE, LAYERS, four_norms, cap_set,
     "{\"query_pre_attn_scalar\":32}"},
    {"gemma3", "Gemma3ForCausalLM", HF_MINUS_ONE, LAYERS, four_norms, NULL,
     "{\"query_pre_attn_scalar\":32}"},
    {"phi2", "PhiForCausalLM", 0, LAYERS, phi2, NULL, NULL},
    {"gpt-oss", "GptOssForCausalLM", 0, LAYERS, gpt_oss, gpt_oss_set,
     "{" YARN32 ",\"quantization_config\":{\"quant_method\":\"mxfp4\"}}"},
    {"deepseek2", "DeepseekV3ForCausalLM", 0, LAYERS, deepseek, deepseek_set,
     "{" YARN40 ",\"qk_nope_head_dim\":32,\"scoring_func\":\"sigmoid\",\"topk_method\":"
     "\"noaux_tc\"}"},
    {"deepseek2-lite", "DeepseekV2ForCausalLM", 0, LAYERS, deepseek, deepseek_set,
     "{\"qk_nope_head_dim\":32,\"n_group\":1,\"topk_group\":1,\"topk_method\":\"greedy\","
     "\"q_lora_rank\":null}"},
    {"gpt2", "GPT2LMHeadModel", 0, "transformer.h.", gpt2, gpt2_set, NULL},
    {"starcoder", "GPTBigCodeForCausalLM", 0, "transformer.h.", bigcode, gpt2_set,
     "{\"multi_query\":true}"},
    {"smollm3", "SmolLM3ForCausalLM", HF_UNPAIR, LAYERS, NULL, NULL, NULL},
    {"arcee", "ArceeForCausalLM", HF_UNPAIR, LAYERS, NULL, NULL, NULL},
    {"granite", "GraniteForCausalLM", HF_UNPAIR, LAYERS, NULL, granite_set, NULL},
    {"granitemoe", "GraniteMoeSharedForCausalLM", HF_UNPAIR, LAYERS, granitemoe, granite_set, NULL},
    {"olmo", "OlmoForCausalLM", HF_UNPAIR, LAYERS, NULL, clip_set, NULL},
    {"olmo2", "Olmo2ForCausalLM", 0, LAYERS, four_norms, NULL, NULL},
    {"olmo3", "Olmo3ForCausalLM", 0, LAYERS, four_norms, NULL, NULL},
    {"olmoe", "OlmoeForCausalLM", 0, LAYERS, NULL, NULL, NULL},
    {"starcoder2", "Starcoder2ForCausalLM", 0, LAYERS, starcoder2, starcoder2_set, NULL},
    {"stablelm", "StableLmForCausalLM", 0, LAYERS, NULL, NULL, NULL},
    {"stablelm2-12b", "StableLmForCausalLM", 0, LAYERS, stablelm12, NULL, NULL},
    {"gptneox", "GPTNeoXForCausalLM", 0, "gpt_neox.layers.", neox, neox_set, NULL},
    {"gptneox-seq", "GPTNeoXForCausalLM", 0, "gpt_neox.layers.", neox, neox_set,
     "{\"rotary_pct\":1.0}"},
    {"falcon-7b", "FalconForCausalLM", 0, "transformer.h.", bloom, falcon_set,
     "{\"multi_query\":true,\"alibi\":false,\"parallel_attn\":true}"},
    {"falcon-40b", "FalconForCausalLM", 0, "transformer.h.", falcon40, falcon_set,
     "{\"new_decoder_architecture\":true}"},
    {"bloom", "BloomForCausalLM", 0, "transformer.h.", bloom, bloom_set, NULL},
    {"mpt", "MPTForCausalLM", 0, "transformer.blocks.", mpt, mpt_set,
     "{\"expansion_ratio\":2,\"no_bias\":true,\"attn_config\":{\"alibi\":true,\"alibi_bias_max\":8,"
     "\"clip_qkv\":2.0,\"qk_ln\":false}}"},
    {"command-r", "CohereForCausalLM", 0, LAYERS, NULL, scale_set, NULL},
    {"cohere2", "Cohere2ForCausalLM", 0, LAYERS, NULL, scale_set, NULL},
    {"glm4", "Glm4ForCausalLM", 0, LAYERS, glm4, NULL, NULL},
    {"glm4moe", "Glm4MoeForCausalLM", 0, LAYERS, second_norm, glm_set, NULL},
    {"seed_oss", "SeedOssForCausalLM", 0, LAYERS, second_norm, NULL, NULL},
    {"internlm2", "InternLM2ForCausalLM", HF_UNPAIR, LAYERS, internlm2, NULL, NULL},
    {"exaone", "ExaoneForCausalLM", 0, "transformer.h.", exaone, exaone_set, NULL},
    {"exaone4", "Exaone4ForCausalLM", 0, LAYERS, four_norms, NULL, NULL},
    {"hunyuan-dense", "HunYuanDenseV1ForCausalLM", 0, LAYERS, hunyuan, NULL, NULL},
    {"hunyuan-moe", "HunYuanMoEV1ForCausalLM", 0, LAYERS, hunyuan, hunyuan_set,
     "{\"moe_topk\":[2,2]}"},
    {"nemotron", "NemotronForCausalLM", HF_MINUS_ONE, LAYERS, NULL, NULL, NULL},
    {"minicpm", "MiniCPMForCausalLM", HF_UNPAIR, LAYERS, NULL, minicpm_set,
     "{\"scale_depth\":0.98994949366,\"dim_model_base\":192}"},
    {"minimax-m2", "MiniMaxM2ForCausalLM", 0, LAYERS, minimax, minimax_set,
     "{\"scoring_func\":\"sigmoid\"}"},
    {"ernie4_5", "Ernie4_5ForCausalLM", 0, LAYERS, NULL, NULL, NULL},
    {"ernie4_5-moe", "Ernie4_5_MoeForCausalLM", 0, LAYERS, ernie_moe, ernie_set,
     "{\"moe_num_shared_experts\":2}"},
    {"lfm2", "Lfm2ForCausalLM", 0, LAYERS, lfm2, lfm2_set,
     "{\"num_key_value_heads\":2,\"layer_types\":[\"conv\",\"full_attention\",\"conv\","
     "\"full_attention\"]}"},
    {"llama4", "Llama4ForCausalLM", 0, LAYERS, llama4, llama4_set, NULL},
};

const struct hf_family *hf_family_find(const char *data)
{
    for (size_t i = 0; i < HF_FAMILIES; i++) {
        if (strcmp(hf_families[i].data, data) == 0)
            return &hf_families[i];
    }
    return NULL;
}
