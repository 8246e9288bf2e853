"""NVIDIA TAO: the authors' names, with a bias on the fusion."""

from dataclasses import replace

from torch import Tensor

from segformer.checkpoints.formats.nvlabs import NVLABS
from segformer.checkpoints.key_table import State
from segformer.errors import UserError

BIAS = "decode_head.linear_fuse.conv.bias"
MEAN = "decode_head.linear_fuse.bn.running_mean"
TAO = replace(NVLABS, name="NVIDIA TAO", signature=(*NVLABS.signature, BIAS))


def fold_bias(state: State) -> dict[str, Tensor]:
    """Subtract the fusion's bias from the mean of the norm that follows: the same function, without the bias."""
    folded = dict(state)
    if MEAN not in state:
        raise UserError(f"tensor '{MEAN}' is missing from a checkpoint of {TAO.name}")
    if state[BIAS].shape != state[MEAN].shape:
        raise UserError(f"tensor '{BIAS}' must be {tuple(state[MEAN].shape)}, got {tuple(state[BIAS].shape)}")
    folded[MEAN] = folded[MEAN] - folded.pop(BIAS)
    return folded
