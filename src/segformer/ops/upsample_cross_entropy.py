"""Cross-entropy of bilinearly upsampled logits, without the upsampled logits."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from segformer.ops.upsample_argmax import axis, check_size

BAND = 1 << 23  # scores held at a time, in elements
Average = Literal["all", "valid", "sum"]


def upsample_cross_entropy(
    logits: Tensor,
    target: Tensor,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    average: Average = "valid",
    align_corners: bool = False,
) -> Tensor:
    """Loss of logits (B, K, h, w), upsampled bilinearly to the labels (B, H, W); a scalar with a gradient.

    ``average``: "valid" divides by the (class-weighted) number of pixels that are not ignored, as torch does; "all"
    by B * H * W, as the released recipes do; "sum" not at all.  Loss and gradient are computed together in bands of
    rows, so that B x K x H x W scores never exist.  A batch with every label ignored has loss 0.  Reduced-precision
    logits are upcast band by band.
    """
    check_size(logits, (target.shape[-2], target.shape[-1]))
    if target.ndim != 3 or target.shape[0] != logits.shape[0]:
        raise ValueError(f"target must be ({logits.shape[0]}, height, width), got {tuple(target.shape)}")
    weights = None if class_weights is None else class_weights.to(logits.device)
    total: Tensor = _BandedCrossEntropy.apply(logits, target, ignore_index, weights, align_corners)
    return total / denominator(target, ignore_index, class_weights, average).to(total)


def upsample_cross_entropy_reference(
    logits: Tensor,
    target: Tensor,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    average: Average = "valid",
    align_corners: bool = False,
) -> Tensor:
    """Compute the same with all upsampled logits in memory."""
    upsampled = F.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=align_corners)
    weights = None if class_weights is None else class_weights.to(upsampled)
    total = F.cross_entropy(upsampled, target.long(), weight=weights, ignore_index=ignore_index, reduction="sum")
    return total / denominator(target, ignore_index, class_weights, average).to(total)


def denominator(target: Tensor, ignore_index: int, class_weights: Tensor | None, average: Average) -> Tensor:
    """Number that the summed loss is divided by; at least a tiny one, so that nothing valid gives loss 0, not NaN."""
    if average == "sum":
        return torch.ones((), device=target.device)
    if average == "all":
        return torch.tensor(float(target.numel()), device=target.device)
    valid = target[target != ignore_index].long()
    if class_weights is None:
        return torch.tensor(float(max(valid.numel(), 1)), device=target.device)
    return class_weights.to(target.device)[valid].sum().clamp(min=torch.finfo(torch.float32).tiny)


class _BandedCrossEntropy(torch.autograd.Function):
    """Summed loss; the gradient is computed on the way forward, while a band is at hand."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, ignore_index: int, weights: Tensor | None, align_corners: bool
    ) -> Tensor:
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        batch, num_classes, height, width = logits.shape
        rows, columns = target.shape[1:]
        top, bottom, down = axis(height, rows, align_corners, logits.new_empty(0, dtype=dtype))
        needs_gradient = logits.requires_grad
        gradient = torch.zeros_like(logits, dtype=dtype) if needs_gradient else None
        total = torch.zeros((), dtype=dtype, device=logits.device)
        height_of_band = max(1, BAND // (batch * num_classes * columns))
        for band in torch.split(torch.arange(rows, device=logits.device), height_of_band):
            upper, lower, v = top[band], bottom[band], down[band][:, None]
            scores = torch.lerp(logits[:, :, upper].to(dtype), logits[:, :, lower].to(dtype), v)
            wide = F.interpolate(scores, size=(len(band), columns), mode="bilinear", align_corners=align_corners)
            loss, slope = _cross_entropy(wide, target[:, band], ignore_index, weights, needs_gradient)
            total += loss
            if gradient is not None and slope is not None:
                narrow = torch.ops.aten.upsample_bilinear2d_backward(
                    slope, [len(band), columns], [batch, num_classes, len(band), width], align_corners
                )
                gradient.index_add_(2, lower, narrow * v)
                gradient.index_add_(2, upper, narrow * (1 - v))
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
    """Summed loss of scores (B, K, H, W), and its gradient, which takes the scores' memory."""
    valid = target != ignore_index
    labels = torch.where(valid, target, 0).long().unsqueeze(1)
    factor = valid.to(scores.dtype) if weights is None else (weights[labels.squeeze(1)] * valid).to(scores.dtype)
    normalizer = scores.logsumexp(dim=1, keepdim=True)
    picked = scores.gather(1, labels)
    loss = ((normalizer - picked).squeeze(1) * factor).sum()
    if not needs_gradient:
        return loss, None
    probabilities = scores.sub_(normalizer).exp_()
    probabilities.scatter_add_(1, labels, torch.full_like(picked, -1.0))
    return loss, probabilities.mul_(factor.unsqueeze(1))
