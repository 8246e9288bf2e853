"""One optimizer step: accumulates gradients over micro-batches and devices, then updates the weights."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from segformer.errors import UserError
from segformer.training.task import Batch, Task

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def optimizer_step(fabric: "Fabric", module: Any, optimizer: Any, batch: Batch, task: Task[Any]) -> Tensor:
    """Accumulate the gradient over the micro-batches of a batch, update the weights and return the loss.

    ``module`` and ``optimizer`` are the objects that ``fabric.setup`` returned.  The returned loss is the mean over the
    batches of all devices.
    """
    images, targets = batch
    size = task.plan.micro_batch_size or len(images)
    batch_loss = task.loss(batch, fabric)
    total = torch.zeros((), device=fabric.device)
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        with fabric.no_backward_sync(module, enabled=start + size < len(images)):
            loss = batch_loss(module(images[part]), images[part], targets[part])
            fabric.backward(loss)
        total += loss.detach()
    if task.plan.clip_grad is not None:
        fabric.clip_gradients(module, optimizer, max_norm=task.plan.clip_grad)
    optimizer.step()
    optimizer.zero_grad()
    return cast("Tensor", fabric.all_reduce(total, reduce_op="mean"))


def check_finite(loss: float, step: int, last: Path, advice: str) -> float:
    """Return the loss; if it is NaN or infinite, raises a UserError that contains ``advice``."""
    if not math.isfinite(loss):
        raise UserError(
            f"the loss became {loss} at step {step}; {advice}"
            + (f"; the last saved state is in {last}" if last.exists() else "")
        )
    return loss
