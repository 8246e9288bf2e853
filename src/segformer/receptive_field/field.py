"""Effective receptive fields (Luo et al. 2016), as in Figure 3: where in the image an output looks, and how far.

The field of an output is the gradient of its features at the central position with respect to the input: absolute
values, summed over the input's channels and averaged over images.  The paper leaves two things open:

- Only positive features are summed.  The plain sum of a layer-normed map does not depend on the image at all as long
  as the norm's weights are equal, and hardly does after training.  After a ReLU the two sums are the same.
- The central position of an h x w map is (h // 2, w // 2), one of four where both are even.  With convolutions of odd
  kernels it lies exactly over the central pixel (H // 2, W // 2), and sizes where it does not are refused.  A patch
  that does not overlap with others begins at that pixel.
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
"""A network: normalized images (1, C, H, W) -> named maps (1, C_i, h_i, w_i)."""


@dataclass(frozen=True, eq=False)
class ReceptiveField:
    """How much each pixel of the input matters for the central position of one output.

    A share is a number from 0 to 1; the mass of a field is the sum of its map.
    """

    map: Array
    """(H, W) float64, 0 or more."""
    stride: int
    """Pixels from one position of the output to the next."""

    def area(self, share: float) -> int:
        """Number of pixels in the smallest set that holds a share of the mass."""
        mass = np.cumsum(np.sort(self.map, axis=None)[::-1])
        return int(np.searchsorted(mass, share * mass[-1])) + 1

    def covered(self, share: float) -> float:
        """``area`` as a share of the image."""
        return self.area(share) / self.map.size

    def side(self, share: float) -> float:
        """Side in pixels of a square with this ``area``."""
        return float(np.sqrt(self.area(share)))

    def radius(self, share: float) -> float:
        """Smallest distance from the central pixel, in pixels, within which a share of the mass lies."""
        radii, mass = self._by_distance
        return float(radii[np.searchsorted(mass, share * mass[-1])])

    def within(self, radii: npt.ArrayLike) -> Array:
        """Share of the mass within each of some distances from the central pixel, in pixels."""
        distances, mass = self._by_distance
        counts = np.searchsorted(distances, np.asarray(radii, dtype=np.float64), side="right")
        return np.asarray(np.concatenate([[0.0], mass])[counts] / mass[-1])

    def outside(self, side: int) -> float:
        """Share of the mass outside a square of ``side`` pixels around the central one."""
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
        """Distances of all pixels from the central one in ascending order, and the mass up to each."""
        rows, columns = (np.arange(side, dtype=np.float64) - side // 2 for side in self.map.shape)
        distances = np.hypot(rows[:, None], columns[None]).ravel()
        order = np.argsort(distances, kind="stable")
        return distances[order], np.cumsum(self.map.ravel()[order])


@dataclass(frozen=True, eq=False)
class ReceptiveFields:
    """Fields of all outputs of one network, summed over images in float64."""

    sums: Mapping[str, Array]
    strides: Mapping[str, int]
    count: int
    """Number of images in the sums."""

    def __getitem__(self, output: str) -> ReceptiveField:
        """Return the mean field of an output over the images so far."""
        return ReceptiveField(self.sums[output] / self.count, self.strides[output])

    def plus(self, fields: Mapping[str, ReceptiveField]) -> "ReceptiveFields":
        """Return new sums that include one more image."""
        sums = {name: self.sums[name] + field.map if self.count else field.map for name, field in fields.items()}
        return ReceptiveFields(sums, {name: field.stride for name, field in fields.items()}, self.count + 1)

    def check(self, label: str = "the network") -> None:
        """Raise a UserError where an output does not depend on any pixel of any image."""
        for name, total in self.sums.items():
            if not total.any():
                raise UserError(f"{label}: {name} depends on no pixel of {self.count} images, its gradient is 0")


Fields = Mapping[str, ReceptiveFields]
"""The fields of several networks by their labels."""
NO_IMAGES = ReceptiveFields({}, {}, 0)


def receptive_fields(outputs: Outputs, images: Iterable[Tensor]) -> ReceptiveFields:
    """Average the fields of a network's outputs over images (1, C, H, W), normalized, one at a time.

    The network must be in evaluation mode.  Raises a UserError as ``image_fields`` does.

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
    """Return the field of each output for one image (1, C, H, W): one forward pass, and a backward pass per output.

    Raises a UserError where a central position is not over the central pixel, or where a gradient is missing or not
    finite.
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
    """Return the gradient of a number with respect to the image; raises a UserError where it has none."""
    gradient = None
    if output.requires_grad:
        (gradient,) = torch.autograd.grad(output, image, retain_graph=keep_graph, allow_unused=True)
    if gradient is None:
        raise UserError(
            f"{name} has no gradient with respect to the image, as of an exported file; give the model folder that it "
            f"was made from"
        )
    return gradient


def central_sum(features: Tensor) -> Tensor:
    """Sum the positive features at the central position.  (1, C, h, w) -> ()"""
    return features[0, :, features.shape[2] // 2, features.shape[3] // 2].relu().sum()


def nominal_stride(name: str, features: Tensor, image: Tensor) -> int:
    """Return the pixels from one position to the next; raises a UserError where the central one is off center."""
    height, width = image.shape[2:]
    h, w = features.shape[2:]
    stride = height // h
    if (h * stride, w * stride) != (height, width) or (h // 2 * stride, w // 2 * stride) != (height // 2, width // 2):
        raise UserError(
            f"the size must put the central position of {name} ({h} x {w}) over the central pixel, got {height} x "
            f"{width}; give multiples of {2 * stride}, or leave out a network that does not pad its input"
        )
    return stride
