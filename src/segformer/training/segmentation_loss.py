"""The loss of segmentation training, computed on the main logits and on the logits of auxiliary heads."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from segformer.config import IGNORE_INDEX, Recipe
from segformer.models.segmenter import Segmenter
from segformer.ops.losses import dice_loss, resolve_loss
from segformer.ops.upsample_cross_entropy import denominator


class TrainingModel(nn.Module):
    """A model whose forward pass also returns auxiliary logits.  (B, C_in, H, W) -> tuple of (B, K, h, w)"""

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the main logits, then those of the auxiliary heads of the decoder."""
        return self.model.outputs(images)


class SegmentationLoss:
    """The loss of a recipe, including its Dice term.

    The total is the loss of the main logits plus the loss of each auxiliary head times its loss weight.
    """

    def __init__(self, recipe: Recipe, class_weights: Tensor | None, auxiliary_weights: Sequence[float] = ()) -> None:
        self.row = resolve_loss(recipe.train.loss, recipe.train.loss_options)
        self.dice = recipe.train.dice
        self.average = recipe.train.loss_average
        self.class_weights = class_weights
        self.auxiliary_weights = tuple(auxiliary_weights)
        self.options: dict[str, Any] = {"ignore_index": IGNORE_INDEX, "align_corners": recipe.model.align_corners}

    def count(self, masks: Tensor) -> Tensor:
        """Return the divisor of a loss summed over the pixels of these masks; depends on ``train.loss_average``."""
        return denominator(masks, IGNORE_INDEX, self.class_weights, self.average)

    def __call__(self, outputs: Sequence[Tensor], masks: Tensor, *, count: Tensor, share: float) -> Tensor:
        """Return the contribution of a micro-batch to the loss of its batch.

        A loss that is a sum over pixels is divided by ``count``, the divisor for the whole batch.  OHEM and Dice are
        means over the micro-batch and are multiplied by ``share``, the micro-batch's share of the images of the batch.
        """
        loss = self._loss(outputs[0], masks, count, share)
        for weight, logits in zip(self.auxiliary_weights, outputs[1:], strict=True):
            loss = loss + weight * self._loss(logits, masks, count, share)
        return loss

    def _loss(self, logits: Tensor, masks: Tensor, count: Tensor, share: float) -> Tensor:
        loss = self.row.function(logits, masks, class_weights=self.class_weights, **self.options)
        loss = loss / count if self.row.reduction == "sum" else share * loss
        if self.dice:
            loss = loss + self.dice * share * dice_loss(logits, masks, **self.options)
        return loss
