"""AdamW, its parameter groups, and the learning rate as a function of the step."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segformer.config import TrainConfig
from segformer.models.segmenter import Segmenter

BETAS = (0.9, 0.999)
Groups = list[dict[str, Any]]


def build_optimizer(groups: Groups, lr: float) -> torch.optim.Optimizer:
    """Return AdamW; ``lr`` is the learning rate of the groups that do not set one."""
    return torch.optim.AdamW(groups, lr=lr, betas=BETAS, fused=True)


def segmentation_groups(model: Segmenter, config: TrainConfig) -> Groups:
    """Return three groups, as in the released recipes: encoder, norm layers of the encoder, decoder.

    Weight decay applies to everything except the norm layers of the encoder, so also to biases and to the norm layer of
    the decoder.  Frozen parameters are left out, and so is a group that would be empty.
    """
    norms = {id(p) for p in model.encoder.norm_parameters()}
    encoder = list(model.encoder.parameters())
    rows = (
        ("encoder", [p for p in encoder if id(p) not in norms], 1.0, config.weight_decay),
        ("encoder norms", [p for p in encoder if id(p) in norms], 1.0, 0.0),
        ("decoder", list(model.decoder.parameters()), config.decoder_lr_factor, config.weight_decay),
    )
    groups = [(name, [p for p in group if p.requires_grad], factor, decay) for name, group, factor, decay in rows]
    return [
        {"name": name, "params": parameters, "lr": config.lr * factor, "lr_factor": factor, "weight_decay": decay}
        for name, parameters, factor, decay in groups
        if parameters
    ]


def classification_groups(model: nn.Module, weight_decay: float) -> Groups:
    """Return two groups, as in timm and PVT: weights, which are decayed, and norms and biases, which are not."""
    parameters = list(model.parameters())
    return [
        {"name": "weights", "params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"name": "norms and biases", "params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]


def polynomial_rate(step: int, config: TrainConfig) -> float:
    """Return the encoder's learning rate at a step counted from 0: polynomial decay times linear warm-up (Sec. 4.1)."""
    decayed: float = config.lr * (1 - step / config.steps) ** config.power
    if step >= config.warmup_steps:
        return decayed
    return decayed * (1 - (1 - step / config.warmup_steps) * (1 - config.warmup_ratio))


def cosine_rate(step: int, *, steps: int, warmup: int, first: float, peak: float, last: float) -> float:
    """Return the learning rate at a step counted from 0: linear warm-up, then cosine decay.

    The warm-up goes from ``first`` to ``peak``; the decay ends at ``last``.  The cosine starts at step 0 and not at
    the end of the warm-up, as in timm's schedule, which PVTv2 and DeiT apply once per epoch.
    """
    if step < warmup:
        return first + (peak - first) * step / warmup
    return last + (peak - last) * (1 + math.cos(math.pi * step / steps)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group to ``lr`` times the group's ``lr_factor``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)


def averaged(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """Return a model with an exponential moving average of the weights, or None if ``decay`` is None.

    The first update copies the weights.
    """
    if decay is None:
        return None
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch's
    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)
