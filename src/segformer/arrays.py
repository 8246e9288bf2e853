"""The type of pixel arrays, and conversions between arrays (channels last) and tensors (channels first)."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]


def to_tensor(pixels: Array) -> "Tensor":
    """Copy a decoded image to a tensor.  (H, W, C) -> (C, H, W)

    The order of the values in memory does not change: the channels of a pixel stay adjacent.
    """
    import torch

    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1)))


def to_tensor_view(pixels: Array) -> "Tensor":
    """Convert an image to a tensor, without a copy if possible.  (H, W, C) -> (C, H, W)

    Do not write to the tensor, because its memory may be read-only.  A tensor with more than three channels is laid out
    channel by channel in memory; otherwise torch's resize would round the values differently, and results would not
    be reproducible.
    """
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        if pixels.shape[2] <= 3:
            return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def to_pixels(image: "Tensor") -> Array:
    """Convert a tensor to an array that shares its memory.  (C, H, W) -> (H, W, C)"""
    return image.numpy().transpose(1, 2, 0)
