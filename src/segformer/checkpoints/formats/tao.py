"""The format of NVIDIA TAO: NVlabs' tensor names, plus a bias of the fusion layer.  It can be read but not written."""

from dataclasses import replace

from torch import Tensor

from segformer.checkpoints.format import Format
from segformer.checkpoints.formats.nvlabs import SEGMENTATION
from segformer.checkpoints.key_table import State, take
from segformer.errors import UserError

BIAS = "decode_head.linear_fuse.conv.bias"
MEAN = "decode_head.linear_fuse.bn.running_mean"
TABLE = replace(SEGMENTATION, name="NVIDIA TAO", signature=(*SEGMENTATION.signature, BIAS))


def fold_bias(state: State) -> tuple[dict[str, Tensor], list[str]]:
    """Subtract the bias of the fusion layer from the mean of the batch norm after it, which gives the same output."""
    mean = take(TABLE, state, MEAN)
    bias = state[BIAS]
    if bias.shape != mean.shape:
        raise UserError(f"tensor '{BIAS}' must be {tuple(mean.shape)}, got {tuple(bias.shape)}")
    folded = {name: tensor for name, tensor in state.items() if name != BIAS} | {MEAN: mean - bias}
    return folded, ["folded the bias of the fusion layer into the batch norm: the same function"]


TAO = Format(tables=(TABLE,), prepare=fold_bias)
