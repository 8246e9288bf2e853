"""Parameters and multiply-accumulates (the paper's "Flops") of a model, counted without computing anything."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from segformer.config import ModelConfig
from segformer.errors import UserError
from segformer.models.build import build_model
from segformer.models.fused.segmenter import fused_form
from segformer.models.layers import MIN_SIZE

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class StageComplexity:
    """One encoder stage: patch embedding, blocks, norm."""

    parameters: int
    macs: int
    """Multiply-accumulates for one image."""
    attention_macs: int
    """Part of ``macs`` in efficient self-attention (Eq. 1 and 2): its reduction, projections and two products."""


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """What a model holds (parameters) and computes for one image (multiply-accumulates, up to the logits).

    Counted as the paper's tables are: matrix products, convolutions and attention's two products; norms, activations
    and bilinear upsampling are left out.
    """

    stages: tuple[StageComplexity, ...]
    decoder_parameters: int
    decoder_macs_literal: int
    """Equation 4 as printed, with its C x 4C fusion: what the paper counts."""
    decoder_macs: int
    """As executed at inference: projections merged with the fusion, each at its own map's size."""

    @property
    def encoder_parameters(self) -> int:
        """Sum over the stages."""
        return sum(stage.parameters for stage in self.stages)

    @property
    def encoder_macs(self) -> int:
        """Sum over the stages."""
        return sum(stage.macs for stage in self.stages)

    @property
    def parameters(self) -> int:
        """Of encoder and decoder; merging changes the arithmetic, not the model."""
        return self.encoder_parameters + self.decoder_parameters

    @property
    def macs_literal(self) -> int:
        """Of encoder and decoder as the paper counts: comparable with its "Flops"."""
        return self.encoder_macs + self.decoder_macs_literal

    @property
    def macs(self) -> int:
        """Of encoder and decoder as executed here."""
        return self.encoder_macs + self.decoder_macs

    @property
    def share_removed(self) -> float:
        """Share of ``macs_literal`` that is never computed here, 0 to 1."""
        return 1.0 - self.macs / self.macs_literal


@cache
def measure(config: ModelConfig, num_classes: int, size: tuple[int, int]) -> Complexity:
    """Count a model for one image of ``size`` (height, width), in tenths of a second and a few MB.

    Tensors are on the ``meta`` device: they have shapes and no contents.  A UserError says which size is too small.

    >>> from segformer.config import ModelConfig
    >>> b0 = measure(model_config("mit_b0"), 150, (512, 512))
    >>> f"{b0.parameters:,} parameters, {b0.macs_literal / 1e9:.1f} G in the paper, {b0.macs / 1e9:.1f} G here"
    '3,752,694 parameters, 8.4 G in the paper, 4.1 G here'
    """
    stages, maps = measure_encoder(config, size)
    with torch.device("meta"):
        decoder = build_model(config, num_classes=num_classes).eval().decoder
    return Complexity(
        stages=stages,
        decoder_parameters=num_parameters(decoder),
        decoder_macs_literal=count_macs(decoder.literal(), maps)[1]["Global"],
        decoder_macs=count_macs(fused_form(decoder), maps)[1]["Global"],
    )


@cache
def measure_encoder(config: ModelConfig, size: tuple[int, int]) -> tuple[tuple[StageComplexity, ...], list[Tensor]]:
    """Count the encoder, which is the same for any number of classes; also its maps (shapes only), for a decoder."""
    if min(size) < MIN_SIZE:
        raise UserError(f"size must be at least {MIN_SIZE} pixels high and wide, got {size[0]} x {size[1]}")
    with torch.device("meta"):
        encoder = build_model(config, num_classes=1).eval().encoder
        images = torch.empty(1, config.in_channels, *size)
    maps, macs = count_macs(encoder, images)
    root, attention = type(encoder).__name__, encoder.named_attention()
    stages = tuple(
        StageComplexity(
            parameters=num_parameters(stage),
            macs=macs[f"{root}.{name}"],
            attention_macs=sum(macs[f"{root}.{layer}"] for layer in attention if layer.startswith(f"{name}.")),
        )
        for name, stage in encoder.named_stages().items()
    )
    return stages, maps


def count_macs(function: Callable[[Any], T], inputs: Any) -> tuple[T, dict[str, int]]:
    """Return what a function returns, and the multiply-accumulates of each module in it ("Global": of them all).

    Attention is taken apart into its two matrix products: torch's counter drops it, on some versions and devices,
    where it is one fused operation.
    """
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = function(inputs)
    counts = counter.get_flop_counts()
    return output, {module: sum(operations.values()) // 2 for module, operations in counts.items()}


def num_parameters(module: nn.Module) -> int:
    """Count trainable parameters; running statistics are none."""
    return sum(parameter.numel() for parameter in module.parameters())


def describe(config: ModelConfig, num_classes: int, size: tuple[int, int]) -> dict[str, str]:
    """Return a model's complexity for people: lines of text by their headings.

    >>> from segformer.config import ModelConfig
    >>> for heading, text in describe(model_config("mit_b0"), 150, (512, 512)).items():
    ...     print(f"{heading}: {text}")
    parameters: 3,752,694 (encoder 3,319,392, decoder 433,302)
    MACs at 512 x 512: 4.09 G (encoder stages 1.02 + 0.74 + 0.88 + 0.57, decoder 0.89)
    as the paper counts: 8.39 G (Equation 4 as printed); 51 % of it is never computed here
    """
    found = measure(config, num_classes, size)
    stages = " + ".join(f"{stage.macs / 1e9:.2f}" for stage in found.stages)
    return {
        "parameters": f"{found.parameters:,} "
        f"(encoder {found.encoder_parameters:,}, decoder {found.decoder_parameters:,})",
        f"MACs at {size[0]} x {size[1]}": f"{found.macs / 1e9:.2f} G "
        f"(encoder stages {stages}, decoder {found.decoder_macs / 1e9:.2f})",
        "as the paper counts": f"{found.macs_literal / 1e9:.2f} G (Equation 4 as printed); "
        f"{100 * found.share_removed:.0f} % of it is never computed here",
    }
