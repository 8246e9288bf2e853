"""AdamW, its parameter groups, and the learning rate as a function of the step (Sec. 4.1 and the released recipes)."""

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segformer.config import TrainConfig
from segformer.models.segmenter import Segmenter

BETAS = (0.9, 0.999)


def parameter_groups(model: Segmenter, config: TrainConfig) -> list[dict[str, Any]]:
    """Three groups: encoder, the encoder's norm layers (no weight decay), decoder (learning rate times a factor).

    What is frozen is in none.
    Biases of linear layers and convolutions and the decoder's norm are decayed, as in the released recipes.
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


def averaged(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """Return the exponential moving average of a model's weights, which starts from its first update."""
    if decay is None:
        return None
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch's
    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def build_optimizer(model: Segmenter, config: TrainConfig) -> torch.optim.Optimizer:
    """Return AdamW over the model's parameter groups."""
    return torch.optim.AdamW(parameter_groups(model, config), lr=config.lr, betas=BETAS, fused=True)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Encoder's learning rate at a step counted from 0: polynomial decay times linear warm-up."""
    decayed: float = config.lr * (1 - step / config.steps) ** config.power
    if step >= config.warmup_steps:
        return decayed
    return decayed * (1 - (1 - step / config.warmup_steps) * (1 - config.warmup_ratio))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its learning rate, from the encoder's."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
