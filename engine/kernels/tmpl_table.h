/* Everything an instruction set has, as one table. Included last by a k_*.c, with KERNELS defined
 * as the table's name. The file of a set that others add to makes a second table of it. */
#include "engine/kernels/tmpl_quant.h"
#include "engine/kernels/tmpl_iq.h"
#include "engine/kernels/tmpl_float.h"
#include "engine/kernels/tmpl_vector.h"
#include "engine/kernels/tmpl_attention.h"

/* Two functions of BF16_DOT. */
#define TABLE(panel_dot, dot_records)                                                              \
    {                                                                                              \
        .quant_tile = QUANT_TILE, .float_tile = FLOAT_TILE, .quantize = quantize,                  \
        .copy = copy_records, .round = dot_records,                                                \
        .panel =                                                                                   \
            {                                                                                      \
                [TENSOR_F32] = panel_f32,         [TENSOR_F16] = panel_f16,                        \
                [TENSOR_BF16] = panel_bf16,       [TENSOR_Q4_0] = panel_q4_0,                      \
                [TENSOR_Q4_1] = panel_q4_1,       [TENSOR_Q5_0] = panel_q5_0,                      \
                [TENSOR_Q5_1] = panel_q5_1,       [TENSOR_Q8_0] = panel_q8_0,                      \
                [TENSOR_IQ4_NL] = panel_iq4_nl,   [TENSOR_MXFP4] = panel_mxfp4,                    \
                [TENSOR_Q2_K] = panel_q2_k,       [TENSOR_Q3_K] = panel_q3_k,                      \
                [TENSOR_Q4_K] = panel_q4_k,       [TENSOR_Q5_K] = panel_q5_k,                      \
                [TENSOR_Q6_K] = panel_q6_k,       [TENSOR_IQ4_XS] = panel_iq4_xs,                  \
                [TENSOR_IQ2_XXS] = panel_iq2_xxs, [TENSOR_IQ2_XS] = panel_iq2_xs,                  \
                [TENSOR_IQ2_S] = panel_iq2_s,     [TENSOR_IQ3_XXS] = panel_iq3_xxs,                \
                [TENSOR_IQ3_S] = panel_iq3_s,     [TENSOR_IQ1_S] = panel_iq1_s,                    \
                [TENSOR_IQ1_M] = panel_iq1_m,     [TENSOR_TQ1_0] = panel_tq1_0,                    \
                [TENSOR_TQ2_0] = panel_tq2_0,     [TENSOR_NVFP4] = panel_nvfp4,                    \
                [TENSOR_Q1_0] = panel_q1_0,       [TENSOR_Q2_0] = panel_q2_0,                      \
                [TENSOR_BF16_DOT] = panel_dot,                                                     \
            },                                                                                     \
        .ops = {                                                                                   \
            .dot = op_dot,                                                                         \
            .axpy = op_axpy,                                                                       \
            .scale = op_scale,                                                                     \
            .add = op_add,                                                                         \
            .rms_norm = op_rms_norm,                                                               \
            .silu_mul = op_silu_mul,                                                               \
            .softmax = op_softmax,                                                                 \
            .attend_page = op_attend_page,                                                         \
            .kv_store = op_kv_store,                                                               \
        },                                                                                         \
    }

const struct kernel_table KERNELS = TABLE(panel_bf16_dot, round_records);
