// The table of a kernel set. A file that includes this one has chosen an instruction set, has
// defined what vector.h asks for, and has defined KERNEL_SET, the table's name.

#include "attention.h"
#include "product.h"
#include "quant.h"
#include "rowwise.h"

const kernel_set KERNEL_SET = {
    .products =
        {
            .block_rows = MR,
            .depth = 1,
            .panel_columns = NR,
            .share_panels = 64 / VL,
            .scratch_floats = NR * KB,
            .pack = pack,
            .product = product,
            .few_rows = few_rows,
        },
    .floats = floats,
    .attend = attend,
    .attend_back = attend_back,
    .rms_norm = rms_norm,
    .rms_norm_back = rms_norm_back,
    .layer_norm = layer_norm,
    .layer_norm_back = layer_norm_back,
    .act = act,
    .act_back = act_back,
    .gated = gated,
    .gated_back = gated_back,
    .add = add,
    .rotate = rotate,
    .softmax_part = softmax_part,
    .peak = peak,
    .peak_flops = PEAK_FLOPS,
};
