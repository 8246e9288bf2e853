"""Effective receptive fields (Luo et al. 2016), as in Figure 3: how much each pixel influences an output.

The receptive field of an output is computed from its features at the central position.  Their sum is differentiated
with respect to the input.  The absolute values of this gradient are summed over the channels of the input and averaged
over images.  The paper leaves two details open:

- Only positive features are summed.  After a LayerNorm whose weights are equal, the sum of all features does not depend
  on the image at all, and after training it hardly does.  After a ReLU, no feature is negative, so the choice makes no
  difference.
- The central position of an h x w map is (h // 2, w // 2).  If h and w are even, four positions are equally central,
  and this is the lower right one.  If the kernels have odd sizes, this position is exactly over the central pixel
  (H // 2, W // 2); image sizes for which that is not true are refused.  If the encoder divides the image into patches
  that do not overlap, the patch of the central position begins at the central pixel.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segformer.arrays import Array
from segformer.errors import UserError

Outputs = Callable[[Tensor], Mapping[str, Tensor]]
"""A network that turns a normalized image into named feature maps.  (1, C, H, W) -> (1, C_i, h_i, w_i) for each name"""


@dataclass(frozen=True, eq=False)
class ReceptiveField:
    """How much each pixel of the input influences the central position of one output.

    The mass of a receptive field is the sum of its map.  A share is a number from 0 to 1.
    """

    map: Array
    """Influence of each pixel, 0 or more.  (H, W) float64"""
    stride: int
    """Distance in pixels between neighboring positions of the output."""

    def area(self, share: float) -> int:
        """Return the number of pixels in the smallest set that contains a share of the mass."""
        mass = np.cumsum(np.sort(self.map, axis=None)[::-1])
        return int(np.searchsorted(mass, share * mass[-1])) + 1

    def covered(self, share: float) -> float:
        """Return ``area(share)`` as a share of the number of pixels in the image."""
        return self.area(share) / self.map.size

    def side(self, share: float) -> float:
        """Return the side in pixels of a square that has as many pixels as ``area(share)``."""
        return float(np.sqrt(self.area(share)))

    def radius(self, share: float) -> float:
        """Return the radius in pixels of the smallest disc around the center that contains a share of the mass."""
        radii, mass = self._by_distance
        return float(radii[np.searchsorted(mass, share * mass[-1])])

    def within(self, radii: npt.ArrayLike) -> Array:
        """Return, for each radius in pixels, the share of the mass within this distance from the central pixel."""
        distances, mass = self._by_distance
        counts = np.searchsorted(distances, np.asarray(radii, dtype=np.float64), side="right")
        return np.asarray(np.concatenate([[0.0], mass])[counts] / mass[-1])

    def outside(self, side: int) -> float:
        """Return the share of the mass outside a square of ``side`` pixels around the central pixel."""
        height, width = self.map.shape
        top, left = (middle - side // 2 for middle in self.center)
        rows = slice(max(top, 0), min(top + side, height))
        columns = slice(max(left, 0), min(left + side, width))
        return float(1.0 - self.map[rows, columns].sum() / self.map.sum())

    @property
    def center(self) -> tuple[int, int]:
        """Row and column of the central pixel."""
        return self.map.shape[0] // 2, self.map.shape[1] // 2

    @cached_property
    def _by_distance(self) -> tuple[Array, Array]:
        """Distances of all pixels from the central pixel in ascending order, and the mass within each distance."""
        rows, columns = (np.arange(side, dtype=np.float64) - side // 2 for side in self.map.shape)
        distances = np.hypot(rows[:, None], columns[None]).ravel()
        order = np.argsort(distances, kind="stable")
        return distances[order], np.cumsum(self.map.ravel()[order])


@dataclass(frozen=True, eq=False)
class ReceptiveFields:
    """Receptive fields of all outputs of one network, summed over images in float64."""

    sums: Mapping[str, Array]
    """Sum of the maps of each output."""
    strides: Mapping[str, int]
    """Stride of each output in pixels."""
    count: int
    """Number of images in the sums."""

    def __getitem__(self, output: str) -> ReceptiveField:
        """Return the receptive field of an output, averaged over the images so far."""
        return ReceptiveField(self.sums[output] / self.count, self.strides[output])

    def plus(self, fields: Mapping[str, ReceptiveField]) -> "ReceptiveFields":
        """Return new sums, to which ``fields``, the receptive fields of one more image, are added."""
        sums = {name: self.sums[name] + field.map if self.count else field.map for name, field in fields.items()}
        return ReceptiveFields(sums, {name: field.stride for name, field in fields.items()}, self.count + 1)

    def check(self, label: str = "the network") -> None:
        """Raise a UserError if an output depends on no pixel of any image; the message starts with ``label``."""
        for name, total in self.sums.items():
            if not total.any():
                raise UserError(f"{label}: {name} depends on no pixel of any of {self.count} images; its gradient is 0")


Fields = Mapping[str, ReceptiveFields]
"""Receptive fields of several networks, by the labels of the networks."""
NO_IMAGES = ReceptiveFields({}, {}, 0)


def receptive_fields(outputs: Outputs, images: Iterable[Tensor]) -> ReceptiveFields:
    """Return the receptive fields of a network's outputs, averaged over images.

    The images must already be normalized, (1, C, H, W); each is processed alone.  The network must be in evaluation
    mode.  Raises a UserError for the same reasons as ``image_fields``, and if an output depends on no pixel.

    >>> blur = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
    >>> torch.nn.init.ones_(blur.weight).shape
    torch.Size([1, 1, 3, 3])
    >>> receptive_fields(lambda image: {"blur": blur(image)}, [torch.ones(1, 1, 8, 8)])["blur"].area(1.0)
    9
    """
    fields = NO_IMAGES
    for image in images:
        fields = fields.plus(image_fields(outputs, image))
    fields.check()
    return fields


def image_fields(outputs: Outputs, image: Tensor) -> dict[str, ReceptiveField]:
    """Return the receptive field of each output for one image.  (1, C, H, W) -> (H, W) for each output

    Takes one forward pass, and one backward pass for each output.  Raises a UserError if the central position of an
    output is not over the central pixel of the image, or if a gradient is missing or not finite.
    """
    image = image.detach().requires_grad_()
    with torch.enable_grad():
        maps = outputs(image)
        strides = {name: nominal_stride(name, features, image) for name, features in maps.items()}
        centers = {name: central_sum(features) for name, features in maps.items()}
    fields = {}
    for passes_left, name in zip(reversed(range(len(maps))), maps, strict=True):
        gradient = input_gradient(name, centers[name], image, keep_graph=passes_left > 0)
        field = gradient[0].abs().cpu().sum(dim=0, dtype=torch.float64).numpy()  # not every device has float64
        if not np.isfinite(field).all():
            raise UserError(f"the gradient of {name} is not finite; is the model damaged, or did its training diverge?")
        fields[name] = ReceptiveField(field, strides[name])
    return fields


def input_gradient(name: str, output: Tensor, image: Tensor, *, keep_graph: bool) -> Tensor:
    """Return the gradient of a scalar output with respect to the image; raises a UserError if no gradient exists."""
    gradient = None
    if output.requires_grad:
        (gradient,) = torch.autograd.grad(output, image, retain_graph=keep_graph, allow_unused=True)
    if gradient is None:
        raise UserError(
            f"{name} has no gradient with respect to the image, which is normal for an exported file; give the model "
            f"folder that was exported"
        )
    return gradient


def central_sum(features: Tensor) -> Tensor:
    """Sum the positive features at the central position.  (1, C, h, w) -> ()"""
    return features[0, :, features.shape[2] // 2, features.shape[3] // 2].relu().sum()


def nominal_stride(name: str, features: Tensor, image: Tensor) -> int:
    """Return the stride of a feature map in pixels of the image.

    Raises a UserError if the central position of the map is not over the central pixel of the image.
    """
    height, width = image.shape[2:]
    h, w = features.shape[2:]
    stride = height // h
    if (h * stride, w * stride) != (height, width) or (h // 2 * stride, w // 2 * stride) != (height // 2, width // 2):
        raise UserError(
            f"at the size {height} x {width}, the center of {name} ({h} x {w}) is not at the center of the image; "
            f"give multiples of {2 * stride}, or leave this network out if it does not pad its input"
        )
    return stride
