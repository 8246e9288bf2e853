"""NumPy arrays of pixels: the type that annotates them, and their two orders of axes."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]


def to_tensor(pixels: Array) -> "Tensor":
    """Copy an image as files hold it into the order that models take.  (H, W, C) -> (C, H, W)"""
    import torch

    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1)))


def to_pixels(image: "Tensor") -> Array:
    """View an image in the order of files.  (C, H, W) -> (H, W, C)"""
    return image.numpy().transpose(1, 2, 0)
