"""One optimizer step: loss, gradients accumulated over micro-batches and devices, update."""

import math
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from segformer.config import IGNORE_INDEX, Recipe
from segformer.errors import UserError
from segformer.ops.losses import dice_loss, focal_loss, ohem_cross_entropy
from segformer.ops.upsample_cross_entropy import denominator, upsample_cross_entropy


def optimizer_step(
    fabric: Fabric,
    model: Any,
    optimizer: Any,
    batch: tuple[Tensor, Tensor],
    recipe: Recipe,
    class_weights: Tensor | None,
) -> Tensor:
    """Accumulate the gradient over micro-batches and update; returns the loss, averaged over the global batch."""
    images, masks = batch
    config = recipe.train
    size = config.micro_batch_size or len(images)
    # Mean over devices of the local counts: together with the mean of the gradients, a mean over the global batch.
    local = denominator(masks, IGNORE_INDEX, class_weights, config.loss_average)
    count = cast("Tensor", fabric.all_reduce(local, reduce_op="mean"))
    total = torch.zeros((), device=fabric.device)
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        with fabric.no_backward_sync(model, enabled=start + size < len(images)):
            logits, target = model(images[part]), masks[part]
            loss = loss_of(recipe, logits, target, class_weights, count=count, share=len(target) / len(images))
            fabric.backward(loss)
        total += loss.detach()
    optimizer.step()
    optimizer.zero_grad()
    return cast("Tensor", fabric.all_reduce(total, reduce_op="mean"))


def loss_of(
    recipe: Recipe, logits: Tensor, target: Tensor, class_weights: Tensor | None, *, count: Tensor, share: float
) -> Tensor:
    """Part of a step's loss that a micro-batch has.

    Cross-entropy and focal loss: the sum over its pixels by ``count``, those of the device's share of the batch.
    OHEM and Dice are no sums over pixels: theirs are means over the micro-batch, weighted by its ``share``.
    """
    config = recipe.train
    options: dict[str, Any] = {"ignore_index": IGNORE_INDEX, "align_corners": recipe.model.align_corners}
    if config.loss == "ohem":
        loss = share * ohem_cross_entropy(logits, target, class_weights=class_weights, **options)
    elif config.loss == "focal":
        loss = focal_loss(logits, target, class_weights=class_weights, average="sum", **options) / count
    else:
        loss = upsample_cross_entropy(logits, target, class_weights=class_weights, average="sum", **options) / count
    if config.dice:
        loss = loss + config.dice * share * dice_loss(logits, target, **options)
    return loss


def check_finite(loss: float, step: int, last: Path) -> float:
    """Return the loss; raises a UserError that says what to do where it is NaN or infinite."""
    if not math.isfinite(loss):
        raise UserError(
            f"the loss became {loss} at step {step}; lower train.lr, or use train.precision fp32 if it is another"
            + (f"; {last} holds the last save before" if last.exists() else "")
        )
    return loss


def out_of_memory(error: RuntimeError, recipe: Recipe, step: int) -> UserError:
    """Return an error that says how to get by with less; raises the error itself where it is another."""
    if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
        raise error
    config = recipe.train
    now = config.micro_batch_size or config.batch_size
    hints = [f"set train.micro_batch_size below {now} (the step stays the same)"] if now > 1 else []
    hints += [] if config.checkpointing else ["set train.checkpointing"]
    hints += ["train.precision bf16"] if config.precision == "fp32" else []
    return UserError(f"out of memory at step {step}; {', or '.join([*hints, 'lower data.crop'])}")
