"""Bilinear upsampling of parts of a map (single rows or points), and the neighbors and weights that it needs."""

from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

COLUMNS = 64  # target columns of a tile, few enough that the tile fits into the cache


def use_triton(tensor: Tensor) -> bool:
    """Whether to use the Triton kernels: Triton is installed, and the tensor is on a CUDA device and not float64."""
    return tensor.is_cuda and tensor.dtype != torch.float64 and find_spec("triton") is not None


def positions(source: int, target: int, align_corners: bool) -> Tensor:
    """Return the coordinate of each target pixel in units of source pixels.  -> (target,) float64

    Coordinates can be up to half a source pixel outside the range from 0 to source - 1.
    """
    targets = torch.arange(target, dtype=torch.float64, device="cpu")
    if align_corners:
        return targets * ((source - 1) / max(target - 1, 1))
    return (targets + 0.5) * (source / target) - 0.5


def axis(source: int, target: int, align_corners: bool, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two source neighbors of every target pixel and the weight of the second one.  -> 3 x (target,)

    Coordinates are computed in float64, on the CPU because some devices lack float64.  The weights are then rounded
    once to the type of ``like``.
    """
    return _axis(source, target, align_corners, like.dtype, like.device)


@lru_cache(maxsize=64)  # avoids copying the tensors to a GPU at each call
def _axis(
    source: int, target: int, align_corners: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.inference_mode(False):  # training can then use the cached tensors, too
        places = positions(source, target, align_corners).clamp(min=0.0)
        first = places.floor().long().clamp(max=source - 1)
        second = (first + 1).clamp(max=source - 1)
        return first.to(device), second.to(device), (places - first).to(device, dtype)


def tiles(
    source: int, target: int, align_corners: bool, like: Tensor, step: int = COLUMNS
) -> list[tuple[slice, slice, Tensor]]:
    """Divide an axis of the target into tiles, and return the source range, target range and weights of each tile.

    The weights of a tile are a matrix with one row per source pixel and one column per target pixel; each column has at
    most two nonzero weights.  Tiles are so narrow that a product with this matrix is faster than torch's own
    upsampling.  In the backward pass, a product with the transposed matrix is faster, too.
    """
    return _tiles(source, target, align_corners, step, like.dtype, like.device)


@lru_cache(maxsize=64)
def _tiles(
    source: int, target: int, align_corners: bool, step: int, dtype: torch.dtype, device: torch.device
) -> list[tuple[slice, slice, Tensor]]:
    divided = []
    with torch.inference_mode(False):  # training can then use the cached tensors, too
        like = torch.empty(0, dtype=dtype, device=device)
        left, right, u = axis(source, target, align_corners, like)
        for start in range(0, target, step):
            targets = slice(start, min(start + step, target))
            first = int(left[targets][0])
            last = int(right[targets][-1])
            matrix = like.new_zeros(last + 1 - first, targets.stop - start)
            column = torch.arange(targets.stop - start, device=device)
            matrix[left[targets] - first, column] += 1 - u[targets]
            matrix[right[targets] - first, column] += u[targets]
            divided.append((slice(first, last + 1), targets, matrix))
    return divided


def source_rows(height: int, target: int, rows: slice, align_corners: bool) -> slice:
    """Return which rows of a map are needed to compute ``rows`` of the map upsampled from ``height`` to ``target``."""
    top, bottom, _ = axis(height, target, align_corners, torch.empty(0))
    return slice(int(top[rows][0]), int(bottom[rows][-1]) + 1)


def upsample_rows(maps: Tensor, height: int, size: tuple[int, int], rows: slice, align_corners: bool = False) -> Tensor:
    """Compute only ``rows`` of ``F.interpolate(maps, size, mode="bilinear")``.  (B, K, n, w) -> (B, K, rows, W) float

    ``maps`` contains either all ``height`` rows of the map, or only the rows that ``source_rows`` returns.
    """
    maps = maps if maps.dtype == torch.float64 else maps.float()
    top, bottom, down = (part[rows] for part in axis(height, size[0], align_corners, maps))
    first = 0 if maps.shape[2] == height else int(top[0])
    tall = torch.lerp(maps[:, :, top - first], maps[:, :, bottom - first], down[:, None])
    wide = tall.new_empty(*tall.shape[:3], size[1])
    for sources, targets, matrix in tiles(maps.shape[3], size[1], align_corners, maps):
        wide[..., targets] = tall[..., sources] @ matrix
    return wide


def upsample_points(maps: Tensor, size: tuple[int, int], ys: Tensor, xs: Tensor, align_corners: bool = False) -> Tensor:
    """Compute only the pixels (ys, xs) of a map upsampled to ``size``.  (K, h, w), 2 x (N,) -> (N, K) float"""
    maps = maps if maps.dtype == torch.float64 else maps.float()
    top, bottom, down = (part[ys] for part in axis(maps.shape[1], size[0], align_corners, maps))
    left, right, across = (part[xs] for part in axis(maps.shape[2], size[1], align_corners, maps))
    above = torch.lerp(maps[:, top, left], maps[:, top, right], across)
    under = torch.lerp(maps[:, bottom, left], maps[:, bottom, right], across)
    return torch.lerp(above, under, down).T
