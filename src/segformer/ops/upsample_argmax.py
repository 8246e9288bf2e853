"""Arg-max of bilinearly upsampled scores, without the upsampled scores."""

import torch
import torch.nn.functional as F
from torch import Tensor

from segformer.ops.bilinear import axis

CHUNK = 1 << 22  # scores held at a time, in elements


def upsample_argmax(logits: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Class of every pixel after bilinear upsampling.  (B, K, h, w) -> (B, H, W) int64 for ``size`` = (H, W)

    A bilinearly interpolated score is a convex combination of four neighbours.  Where one class wins at all four, it
    wins everywhere between them.  Only pixels between neighbours that disagree need their scores interpolated;
    memory is O(B * H * W), never B * K * H * W.  Exact: equal to float64 arithmetic wherever the two best scores of
    a pixel differ by more than float32's rounding.  Reduced-precision logits are upcast first.
    """
    check_size(logits, size)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    _, num_classes, height, width = logits.shape
    top, bottom, down = axis(height, size[0], align_corners, logits)
    left, right, across = axis(width, size[1], align_corners, logits)

    winners = logits.argmax(dim=1)  # (B, h, w)
    rows = torch.arange(height, device=logits.device)
    columns = torch.arange(width, device=logits.device)
    below, beside = (rows + 1).clamp(max=height - 1), (columns + 1).clamp(max=width - 1)
    mixed = (winners != winners[:, below]) | (winners != winners[:, :, beside])
    mixed |= winners != winners[:, below][:, :, beside]

    mask = winners[:, top[:, None], left]
    batches, ys, xs = mixed[:, top[:, None], left].nonzero(as_tuple=True)
    scores = logits.permute(0, 2, 3, 1).reshape(-1, num_classes)  # channels-last: a pixel's scores lie together
    for part in torch.split(torch.arange(len(ys), device=logits.device), max(1, CHUNK // num_classes)):
        b, y, x = batches[part], ys[part], xs[part]
        upper, lower = (b * height + top[y]) * width, (b * height + bottom[y]) * width
        v, u = down[y, None], across[x, None]
        above = torch.lerp(scores[upper + left[x]], scores[upper + right[x]], u)
        under = torch.lerp(scores[lower + left[x]], scores[lower + right[x]], u)
        mask[b, y, x] = torch.lerp(above, under, v).argmax(dim=1)
    return mask


def upsample_argmax_reference(logits: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Compute the same by interpolating all B x K x H x W scores first."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners).argmax(dim=1)


def check_size(logits: Tensor, size: tuple[int, int]) -> None:
    """Raise a ValueError where logits are not (B, K, h, w) or a target size is not positive."""
    if logits.ndim != 4 or 0 in logits.shape[1:]:
        raise ValueError(f"logits must be (batch, classes, height, width), got {tuple(logits.shape)}")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be a positive (height, width), got {tuple(size)}")
