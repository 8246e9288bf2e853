"""The table of training losses, with one row for each name that ``train.loss`` accepts, and the Dice loss.

Every loss takes logits (B, K, h, w) and labels (B, H, W), upsamples the logits bilinearly to the size of the labels,
and returns a differentiable scalar.  Logits in bfloat16 or float16 are converted to float32.  If all labels of a batch
are ignored, loss and gradient are 0.  The OHEM, focal and Dice losses save memory by upsampling one image at a time.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from segformer.errors import UserError
from segformer.ops.upsample_argmax import check_size
from segformer.ops.upsample_cross_entropy import Average, denominator, upsample_cross_entropy
from segformer.validation import check_choice


@dataclass(frozen=True, kw_only=True)
class LossRow:
    """One training loss: its function, reduction, description and options."""

    function: Callable[..., Tensor]
    """The loss, called as function(logits, target, *, ignore_index, class_weights, align_corners, **options)."""
    reduction: Literal["sum", "mean"]
    """What ``function`` returns for a micro-batch: the sum or the mean over its pixels.

    Training divides a sum by the number of pixels in the whole batch, weighted by class if there are class weights.
    It multiplies a mean by the fraction of the batch's images that are in the micro-batch.
    """
    description: str
    """One line about what the loss does."""
    options: Mapping[str, float] = field(default_factory=dict)
    """Default value of each option by name; an int means that only whole numbers are allowed."""


def resolve_loss(name: str, options: Iterable[tuple[str, float]] = ()) -> LossRow:
    """Return the row of the loss called ``name``, with the options already set in its ``function``.

    Raises a UserError if the loss or an option is unknown; the message suggests the closest known name.
    """
    check_choice("train.loss", name, LOSSES)
    row = LOSSES[name]
    values = dict(row.options)
    for option, value in options:
        if not row.options:
            raise UserError(f"train.loss_options must be empty for the loss {name}, got '{option}'")
        check_choice(f"an option in train.loss_options of the loss {name}", option, row.options)
        if isinstance(row.options[option], int) and not float(value).is_integer():
            raise UserError(f"{option} in train.loss_options must be a whole number, got {value}")
        values[option] = type(row.options[option])(value)
    return replace(row, function=partial(row.function, **values), options=values)


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
    """Return the mean cross-entropy of the hard pixels only (online hard example mining, Shrivastava et al. 2016).

    A pixel is hard if the probability of its true class is below ``threshold``, or if it is among the ``min_kept``
    hardest valid pixels of the batch.  Class weights do not change which pixels are hard.  With class weights the
    result is a weighted mean.
    """
    if min_kept < 0:
        raise UserError(f"min_kept must be at least 0, got {min_kept}")

    def pixel_losses(scores: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(scores, labels, ignore_index=ignore_index, reduction="none")

    with torch.no_grad():
        losses = _per_image(pixel_losses, logits, target, align_corners).flatten()
        losses[target.flatten() == ignore_index] = -1  # below the loss of every valid pixel, which is at least 0
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
    """Return the cross-entropy times (1 - p)^gamma; p is the probability of the true class (Lin et al. 2017, Eq. 5).

    ``class_weights`` correspond to alpha in that paper.  ``average`` chooses the divisor of the sum as in
    ``upsample_cross_entropy``, which this loss equals for gamma = 0.
    """
    if gamma < 0:
        raise UserError(f"gamma must be at least 0, got {gamma}")
    weights = None if class_weights is None else class_weights.to(logits.device)

    def total(scores: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(scores, labels, ignore_index=ignore_index, reduction="none")
        missing = -torch.expm1(-loss)  # 1 - p; the slope of the power at 0 is infinite for gamma < 1
        loss = missing.clamp(min=torch.finfo(loss.dtype).tiny) ** gamma * loss
        if weights is not None:
            loss = loss * weights[labels.masked_fill(labels == ignore_index, 0)].to(loss)
        return loss.sum()

    summed = _per_image(total, logits, target, align_corners).sum()
    return summed / denominator(target, ignore_index, class_weights, average).to(summed)


def dice_loss(
    logits: Tensor, target: Tensor, *, ignore_index: int = 255, smooth: float = 1.0, align_corners: bool = False
) -> Tensor:
    """Return the soft Dice loss: 1 - the mean of (2 sum p y + smooth) / (sum p + sum y + smooth) over classes.

    p is the softmax probability of a class at a pixel; y is 1 if the pixel is labeled with the class, and 0 otherwise.
    The sums run over the valid pixels of the batch.  Only classes that occur in the labels count.  Unlike in Milletari
    et al. 2016 (Sec. 3), the terms in the denominator are not squared.
    """

    def sums(scores: Tensor, labels: Tensor) -> Tensor:
        valid = (labels != ignore_index).unsqueeze(1).to(scores)
        index = labels.masked_fill(labels == ignore_index, 0).unsqueeze(1)
        p = scores.softmax(dim=1) * valid
        y = torch.zeros_like(scores).scatter_(1, index, valid)
        return torch.stack([(p * y).sum(dim=(0, 2, 3)), p.sum(dim=(0, 2, 3)), y.sum(dim=(0, 2, 3))])

    overlap, predicted, labeled = _per_image(sums, logits, target, align_corners).sum(dim=0)  # (K,) each
    occurs = labeled > 0  # selected before the division, because the gradient of 0 / 0 is NaN
    ratios = (2 * overlap[occurs] + smooth) / (predicted[occurs] + labeled[occurs] + smooth)
    losses: Tensor = 1 - ratios
    return losses.sum() / max(len(losses), 1)


def _per_image(
    function: Callable[[Tensor, Tensor], Tensor], logits: Tensor, target: Tensor, align_corners: bool
) -> Tensor:
    """Call a function for each image of a batch, and stack the results.

    The arguments of the function are the upsampled logits (1, K, H, W) and the labels (1, H, W) int64 of the image.
    The backward pass recomputes the upsampled logits, which saves memory.
    """
    if target.ndim != 3 or target.shape[0] != logits.shape[0]:
        raise UserError(f"target must be ({logits.shape[0]}, height, width), got {tuple(target.shape)}")
    check_size(logits, (target.shape[1], target.shape[2]))

    def upsampled(image: Tensor, labels: Tensor) -> Tensor:
        image = image if image.dtype == torch.float64 else image.float()
        scores = F.interpolate(image, size=labels.shape[-2:], mode="bilinear", align_corners=align_corners)
        return function(scores, labels.long())

    images = zip(torch.split(logits, 1), torch.split(target, 1), strict=True)
    return torch.stack([checkpoint(upsampled, *pair, use_reentrant=False, preserve_rng_state=False) for pair in images])


LOSSES: dict[str, LossRow] = {
    "cross_entropy": LossRow(
        function=partial(upsample_cross_entropy, average="sum"),
        reduction="sum",
        description="cross-entropy of every pixel",
    ),
    "ohem": LossRow(
        function=ohem_cross_entropy,
        reduction="mean",
        options={"threshold": 0.7, "min_kept": 100_000},
        description="cross-entropy of only the hardest pixels of each micro-batch",
    ),
    "focal": LossRow(
        function=partial(focal_loss, average="sum"),
        reduction="sum",
        options={"gamma": 2.0},
        description="cross-entropy in which easy pixels count less",
    ),
}
