"""Cross-entropy of bilinearly upsampled logits, computed without storing all upsampled logits."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from segformer.errors import UserError
from segformer.ops.bilinear import COLUMNS, axis, tiles, use_triton
from segformer.ops.upsample_argmax import check_size

TILE = 1 << 19  # number of scores in memory at a time; they fit into the cache
Average = Literal["all", "valid", "sum"]


def upsample_cross_entropy(
    logits: Tensor,
    target: Tensor,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    average: Average = "valid",
    align_corners: bool = False,
) -> Tensor:
    """Return the cross-entropy of logits (B, K, h, w), upsampled bilinearly, for labels (B, H, W); differentiable.

    ``average`` chooses the divisor of the sum over pixels.  "valid" divides by the number of pixels that are not
    ignored, each weighted by its class weight, as torch does.  "all" divides by B * H * W, as the released recipes do.
    "sum" does not divide.  If all labels are ignored, the loss is 0.

    Loss and gradient are computed together, tile by tile, so B x K x H x W scores are never in memory.  Logits in
    bfloat16 or float16 are converted to float32 in each tile.
    """
    check_size(logits, (target.shape[-2], target.shape[-1]))
    if target.ndim != 3 or target.shape[0] != logits.shape[0]:
        raise UserError(f"target must be ({logits.shape[0]}, height, width), got {tuple(target.shape)}")
    weights = None if class_weights is None else class_weights.to(logits.device)
    total: Tensor = _TiledCrossEntropy.apply(logits, target, ignore_index, weights, align_corners)
    return total / denominator(target, ignore_index, class_weights, average).to(total)


def upsample_cross_entropy_reference(
    logits: Tensor,
    target: Tensor,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    average: Average = "valid",
    align_corners: bool = False,
) -> Tensor:
    """Compute the same as ``upsample_cross_entropy``, with all upsampled logits in memory."""
    upsampled = F.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=align_corners)
    weights = None if class_weights is None else class_weights.to(upsampled)
    total = F.cross_entropy(upsampled, target.long(), weight=weights, ignore_index=ignore_index, reduction="sum")
    return total / denominator(target, ignore_index, class_weights, average).to(total)


def denominator(target: Tensor, ignore_index: int, class_weights: Tensor | None, average: Average) -> Tensor:
    """Return the divisor of the summed loss.  It is always positive, so a batch without valid pixels has loss 0."""
    if average == "sum":
        return torch.ones((), device=target.device)
    if average == "all":
        return torch.tensor(float(target.numel()), device=target.device)
    valid = target[target != ignore_index].long()
    if class_weights is None:
        return torch.tensor(float(max(valid.numel(), 1)), device=target.device)
    return class_weights.to(target.device)[valid].sum().clamp(min=torch.finfo(torch.float32).tiny)


class _TiledCrossEntropy(torch.autograd.Function):
    """The summed loss; the forward pass also computes the gradient, while the scores of a tile are in the cache."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, ignore_index: int, weights: Tensor | None, align_corners: bool
    ) -> Tensor:
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        if use_triton(logits):
            from segformer.ops.triton.cross_entropy import cross_entropy_sums

            total, slopes = cross_entropy_sums(
                logits, target, ignore_index, weights, align_corners, ctx.needs_input_grad[0]
            )
            if slopes is not None:
                ctx.save_for_backward(slopes)
            return total
        logits = logits.contiguous()
        batch, num_classes, height, width = logits.shape
        rows, columns = target.shape[1:]
        like = logits.new_empty(0, dtype=dtype)
        top, bottom, down = axis(height, rows, align_corners, like)
        across = tiles(width, columns, align_corners, like)
        needs_gradient: bool = ctx.needs_input_grad[0]
        gradient = torch.zeros_like(logits, dtype=dtype) if needs_gradient else None
        total = torch.zeros((), dtype=dtype, device=logits.device)
        height_of_band = max(1, TILE // (batch * num_classes * min(COLUMNS, columns)))
        for band in torch.split(torch.arange(rows, device=logits.device), height_of_band):
            upper, lower, v = top[band], bottom[band], down[band][:, None]
            scores = torch.lerp(logits[:, :, upper].to(dtype), logits[:, :, lower].to(dtype), v)
            slopes = torch.zeros_like(scores) if needs_gradient else None
            for sources, targets, matrix in across:
                wide = scores[..., sources] @ matrix
                loss, slope = _cross_entropy(wide, target[:, band, targets], ignore_index, weights, needs_gradient)
                total += loss
                if slopes is not None and slope is not None:
                    slopes[..., sources] += slope @ matrix.T
            if gradient is not None and slopes is not None:
                gradient.index_add_(2, lower, slopes * v)
                gradient.index_add_(2, upper, slopes * (1 - v))
        if gradient is not None:
            ctx.save_for_backward(gradient.to(logits.dtype))
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0].to(gradient.dtype), None, None, None, None


def _cross_entropy(
    scores: Tensor, target: Tensor, ignore_index: int, weights: Tensor | None, needs_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the summed loss of scores (B, K, H, W), and its gradient if needed; the scores are overwritten."""
    valid = target != ignore_index
    labels = torch.where(valid, target, 0).long().unsqueeze(1)
    factor = (valid if weights is None else weights[labels.squeeze(1)] * valid).to(scores.dtype).unsqueeze(1)
    shifted = scores.sub_(scores.amax(dim=1, keepdim=True))
    picked = shifted.gather(1, labels)
    exponentials = shifted.exp_()
    normalizer = exponentials.sum(dim=1, keepdim=True)
    loss = ((normalizer.log() - picked) * factor).sum()
    if not needs_gradient:
        return loss, None
    return loss, exponentials.mul_(factor / normalizer).scatter_add_(1, labels, -factor)
