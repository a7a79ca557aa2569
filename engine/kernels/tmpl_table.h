/* Everything an instruction set has, as one table. Included last by a k_*.c, with KERNELS defined
 * as the table's name. */
#include "engine/kernels/tmpl_quant.h"
#include "engine/kernels/tmpl_float.h"
#include "engine/kernels/tmpl_vector.h"
#include "engine/kernels/tmpl_attention.h"

const struct kernel_table KERNELS = {
    .quant_tile = QUANT_TILE,
    .float_tile = FLOAT_TILE,
    .quantize = quantize,
    .panel =
        {
            [TENSOR_F32] = panel_f32,
            [TENSOR_F16] = panel_f16,
            [TENSOR_BF16] = panel_bf16,
            [TENSOR_Q4_0] = panel_q4_0,
            [TENSOR_Q8_0] = panel_q8_0,
            [TENSOR_Q4_K] = panel_q4_k,
            [TENSOR_Q6_K] = panel_q6_k,
        },
    .ops =
        {
            .dot = op_dot,
            .axpy = op_axpy,
            .scale = op_scale,
            .add = op_add,
            .rms_norm = op_rms_norm,
            .silu_mul = op_silu_mul,
            .softmax = op_softmax,
            .max = op_max,
            .attend_page = op_attend_page,
            .kv_store = op_kv_store,
        },
};
