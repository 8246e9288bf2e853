"""Number of parameters and multiply-accumulates (the paper's "Flops") of a model, computed from shapes alone."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from segformer.config import ModelConfig, Size
from segformer.errors import UserError
from segformer.models.build import build_model
from segformer.models.fused.segmenter import fused_form

T = TypeVar("T")
WHOLE = "Global"  # torch's name for the sum over all modules


@dataclass(frozen=True, kw_only=True)
class StageComplexity:
    """Parameters and multiply-accumulates of one stage of the encoder."""

    parameters: int
    macs: int
    """Multiply-accumulates of the whole stage for one image."""
    attention_macs: int
    """The part of ``macs`` in self-attention; in MiT: reduction, projections and two products (Eq. 1 and 2)."""


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """Parameters of a model, and multiply-accumulates (MACs) for one image up to the logits.

    As in the paper's tables, matrix products, convolutions and the two products of attention are counted; norms,
    activations and bilinear upsampling are not.
    """

    stages: tuple[StageComplexity, ...]
    encoder_parameters: int
    encoder_macs: int
    decoder_parameters: int
    decoder_macs_literal: int
    """MACs of the decoder as printed in its own paper; for All-MLP: Equation 4, fusing 4C channels into C."""
    decoder_macs: int
    """MACs of the decoder as computed at inference; for All-MLP: with the projections merged into the fusion layer."""

    @property
    def parameters(self) -> int:
        """Number of parameters of encoder and decoder together, before any are merged for inference."""
        return self.encoder_parameters + self.decoder_parameters

    @property
    def macs_literal(self) -> int:
        """MACs of the whole model as the paper counts them; comparable with the "Flops" in its tables."""
        return self.encoder_macs + self.decoder_macs_literal

    @property
    def macs(self) -> int:
        """MACs of the whole model as computed at inference by this package."""
        return self.encoder_macs + self.decoder_macs

    @property
    def share_removed(self) -> float:
        """Share of ``macs_literal`` that this package does not compute at inference, from 0 to 1."""
        return 1.0 - self.macs / self.macs_literal


@dataclass(frozen=True, kw_only=True)
class EncoderComplexity:
    """Parameters and multiply-accumulates of an encoder, and its feature maps."""

    stages: tuple[StageComplexity, ...]
    parameters: int
    macs: int
    maps: tuple[Tensor, ...]
    """Feature maps without contents, on the ``meta`` device: only their shapes matter."""


@cache
def count_model(config: ModelConfig, num_classes: int, size: Size) -> Complexity:
    """Count the parameters of a model, and its multiply-accumulates for one image of ``size`` (height, width).

    This takes tenths of a second and a few MB, because tensors are on the ``meta`` device: they have shapes but no
    contents.  Raises a UserError if the size is too small for the encoder.

    >>> from segformer.models.build import model_config
    >>> b0 = count_model(model_config("mit_b0"), 150, (512, 512))
    >>> f"{b0.parameters:,} parameters, {b0.macs_literal / 1e9:.1f} G in the paper, {b0.macs / 1e9:.1f} G here"
    '3,752,694 parameters, 8.4 G in the paper, 4.1 G here'
    """
    encoder = count_encoder(config, size)
    with torch.device("meta"):
        decoder = build_model(config, num_classes=num_classes).eval().decoder
    return Complexity(
        stages=encoder.stages,
        encoder_parameters=encoder.parameters,
        encoder_macs=encoder.macs,
        decoder_parameters=num_parameters(decoder),
        decoder_macs_literal=count_macs(decoder.literal(), encoder.maps)[1][WHOLE],
        decoder_macs=count_macs(fused_form(decoder), encoder.maps)[1][WHOLE],
    )


@cache
def count_encoder(config: ModelConfig, size: Size) -> EncoderComplexity:
    """Count parameters and multiply-accumulates of the encoder alone; the number of classes does not matter."""
    with torch.device("meta"):
        encoder = build_model(config, num_classes=2).eval().encoder
        images = torch.empty(1, config.in_channels, *size)
    if min(size) < encoder.min_size:
        raise UserError(
            f"size must be at least {encoder.min_size} pixels high and wide, got {size[0]} x {size[1]} (height x width)"
        )
    maps, macs = count_macs(encoder, images)
    root = type(encoder).__name__
    attention = encoder.named_attention()
    stages = tuple(
        StageComplexity(
            parameters=num_parameters(stage),
            macs=macs[f"{root}.{name}"],
            attention_macs=sum(macs[f"{root}.{layer}"] for layer in attention if layer.startswith(f"{name}.")),
        )
        for name, stage in encoder.named_stages().items()
    )
    return EncoderComplexity(stages=stages, parameters=num_parameters(encoder), macs=macs[WHOLE], maps=tuple(maps))


def count_macs(function: Callable[[Any], T], inputs: Any) -> tuple[T, Counter[str]]:
    """Call ``function(inputs)``; return (its result, multiply-accumulates by module name).

    The name WHOLE stands for the sum over all modules.  Attention is computed as two matrix products, because some
    versions of torch's counter do not count a fused attention operation.
    """
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = function(inputs)
    counts = counter.get_flop_counts()
    return output, Counter({module: sum(operations.values()) // 2 for module, operations in counts.items()})


def num_parameters(module: nn.Module) -> int:
    """Count the parameters of a module; running statistics of norms do not count as parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def complexity_lines(config: ModelConfig, num_classes: int, size: Size) -> dict[str, str]:
    """Describe the parameters and multiply-accumulates of a model; returns a text for each heading.

    >>> from segformer.models.build import model_config
    >>> for heading, text in complexity_lines(model_config("mit_b0"), 150, (512, 512)).items():
    ...     print(f"{heading}: {text}")
    parameters: 3,752,694 (encoder 3,319,392, decoder 433,302)
    MACs at 512 x 512: 4.09 G (encoder stages 1.02 + 0.74 + 0.88 + 0.57, decoder 0.89)
    as the paper counts: 8.39 G (decoder as printed); 51 % of it is never computed here
    """
    found = count_model(config, num_classes, size)
    stages = " + ".join(f"{stage.macs / 1e9:.2f}" for stage in found.stages)
    lines = {
        "parameters": f"{found.parameters:,} "
        f"(encoder {found.encoder_parameters:,}, decoder {found.decoder_parameters:,})",
        f"MACs at {size[0]} x {size[1]}": f"{found.macs / 1e9:.2f} G "
        f"(encoder stages {stages}, decoder {found.decoder_macs / 1e9:.2f})",
    }
    if found.macs != found.macs_literal:
        lines["as the paper counts"] = (
            f"{found.macs_literal / 1e9:.2f} G (decoder as printed); "
            f"{100 * found.share_removed:.0f} % of it is never computed here"
        )
    return lines
