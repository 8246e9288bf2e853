"""Arrays of pixels: their type, and the conversion between the axis orders of files and of models."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]


def to_tensor(pixels: Array) -> "Tensor":
    """Copy a decoded image to a tensor with its channels first.  (H, W, C) -> (C, H, W)

    The memory order stays: the channels of a pixel still lie together.
    """
    import torch

    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1)))


def to_tensor_view(pixels: Array) -> "Tensor":
    """Convert an image without a copy where possible.  (H, W, C) -> (C, H, W)

    The memory may be read-only, so nothing may write to the tensor.  More than three channels become planes:
    torch's resize would otherwise round them, and runs must be repeatable.
    """
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        if pixels.shape[2] <= 3:
            return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def to_pixels(image: "Tensor") -> Array:
    """Return a view of an image with its channels last.  (C, H, W) -> (H, W, C)"""
    return image.numpy().transpose(1, 2, 0)
