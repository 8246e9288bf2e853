"""Optional losses of bilinearly upsampled logits; the upsampled logits of one image exist at a time, never a batch's.

All take logits (B, K, h, w) and labels (B, H, W), and give a scalar with a gradient, in float32 where the logits are
of reduced precision.  A batch with every label ignored has loss 0 and gradient 0.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from segformer.errors import UserError
from segformer.ops.upsample_argmax import check_size
from segformer.ops.upsample_cross_entropy import Average, denominator, upsample_cross_entropy


def ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    threshold: float = 0.7,
    min_kept: int = 100_000,
    align_corners: bool = False,
) -> Tensor:
    """Mean cross-entropy of the hard pixels: online hard example mining (Shrivastava et al. 2016), pixel by pixel.

    Hard are the pixels that give their true class a probability below ``threshold``, and in any case the ``min_kept``
    hardest of the batch (not of each image), or all that are valid if there are fewer.  Class weights do not change
    which pixels are hard; the mean is divided by the class-weighted number of those, as "valid" is elsewhere.
    """
    if min_kept < 0:
        raise UserError(f"min_kept must be at least 0, got {min_kept}")

    def pixel_losses(scores: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(scores, labels, ignore_index=ignore_index, reduction="none")

    with torch.no_grad():
        losses = _per_image(pixel_losses, logits, target, align_corners).flatten()
        losses[target.flatten() == ignore_index] = -1  # easier than a pixel that is certainly right, whose loss is 0
        kept = torch.exp(-losses) < threshold
        kept[losses.topk(min(min_kept, len(losses))).indices] = True
        hard = target.masked_fill(~kept.view(target.shape), ignore_index)
    return upsample_cross_entropy(logits, hard, ignore_index, class_weights, "valid", align_corners)


def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    gamma: float = 2.0,
    average: Average = "valid",
    align_corners: bool = False,
) -> Tensor:
    """Cross-entropy times (1 - p)^gamma, for p the probability of the true class (Lin et al. 2017, eq. 5).

    ``class_weights`` are the paper's alpha.  ``average`` is that of ``upsample_cross_entropy``, which this equals for
    gamma = 0; (1 - p)^gamma does not enter the denominator.
    """
    if gamma < 0:
        raise UserError(f"gamma must be at least 0, got {gamma}")
    weights = None if class_weights is None else class_weights.to(logits.device)

    def total(scores: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(scores, labels, ignore_index=ignore_index, reduction="none")
        missing = -torch.expm1(-loss)  # 1 - p; the power's slope at 0 is infinite for gamma < 1
        loss = missing.clamp(min=torch.finfo(loss.dtype).tiny) ** gamma * loss
        if weights is not None:
            loss = loss * weights[labels.masked_fill(labels == ignore_index, 0)].to(loss)
        return loss.sum()

    summed = _per_image(total, logits, target, align_corners).sum()
    return summed / denominator(target, ignore_index, class_weights, average).to(summed)


def dice_loss(
    logits: Tensor, target: Tensor, *, ignore_index: int = 255, smooth: float = 1.0, align_corners: bool = False
) -> Tensor:
    """Soft Dice loss: 1 - mean of (2 sum p y + smooth) / (sum p + sum y + smooth) over the classes in the labels.

    p are softmax probabilities, not squared as in Milletari et al. 2016 (Sec. 3), and y is 1 at the pixels of a class,
    else 0.  Sums run over the valid pixels of the whole batch; classes that label none of them are left out.
    """

    def sums(scores: Tensor, labels: Tensor) -> Tensor:
        valid = (labels != ignore_index).unsqueeze(1).to(scores)
        index = labels.masked_fill(labels == ignore_index, 0).unsqueeze(1)
        p, y = scores.softmax(dim=1) * valid, torch.zeros_like(scores).scatter_(1, index, valid)
        return torch.stack([(p * y).sum(dim=(0, 2, 3)), p.sum(dim=(0, 2, 3)), y.sum(dim=(0, 2, 3))])

    overlap, predicted, labelled = _per_image(sums, logits, target, align_corners).sum(dim=0)  # (K,) each
    occurs = labelled > 0  # selects before the division, whose gradient is NaN at 0 / 0
    overlap, predicted, labelled = overlap[occurs], predicted[occurs], labelled[occurs]
    losses: Tensor = 1 - (2 * overlap + smooth) / (predicted + labelled + smooth)
    return losses.sum() / max(len(losses), 1)


def binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    average: Average = "valid",
    align_corners: bool = False,
) -> Tensor:
    """Loss of a head with one logit (B, 1, h, w) for labels 0 and 1: the cross-entropy of the two logits 0 and x.

    That is the sigmoid's binary cross-entropy.  ``class_weights`` are two, of label 0 and of label 1; ``average`` is
    that of ``upsample_cross_entropy``.
    """
    if logits.ndim != 4 or logits.shape[1] != 1:
        raise UserError(f"logits must be (batch, 1, height, width), got {tuple(logits.shape)}")
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)  # upsampled zeros are zeros: exact
    return upsample_cross_entropy(both, target, ignore_index, class_weights, average, align_corners)


def _per_image(
    function: Callable[[Tensor, Tensor], Tensor], logits: Tensor, target: Tensor, align_corners: bool
) -> Tensor:
    """Stack of a function of every image's upsampled logits (1, K, H, W) and int64 labels (1, H, W).

    Upsampled logits are computed again for the gradient, not kept for it.
    """
    if target.ndim != 3 or target.shape[0] != logits.shape[0]:
        raise UserError(f"target must be ({logits.shape[0]}, height, width), got {tuple(target.shape)}")
    check_size(logits, (target.shape[1], target.shape[2]))

    def of_image(image: Tensor, labels: Tensor) -> Tensor:
        image = image if image.dtype == torch.float64 else image.float()
        scores = F.interpolate(image, size=labels.shape[-2:], mode="bilinear", align_corners=align_corners)
        return function(scores, labels.long())

    images = zip(torch.split(logits, 1), torch.split(target, 1), strict=True)
    return torch.stack([checkpoint(of_image, *pair, use_reentrant=False, preserve_rng_state=False) for pair in images])
