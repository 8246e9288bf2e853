"""Parameters and multiply-accumulates (the paper's "Flops") of a model, counted from shapes alone."""

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
    """Counts of one stage of the encoder."""

    parameters: int
    macs: int
    """Multiply-accumulates for one image."""
    attention_macs: int
    """Part of ``macs`` in self-attention; for MiT its reduction, projections and two products (Eq. 1 and 2)."""


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """Parameters of a model, and multiply-accumulates for one image up to the logits.

    Counted as in the paper's tables: matrix products, convolutions and attention's two products, without norms,
    activations and bilinear upsampling.
    """

    stages: tuple[StageComplexity, ...]
    encoder_parameters: int
    encoder_macs: int
    decoder_parameters: int
    decoder_macs_literal: int
    """With the decoder as its paper prints it; for All-MLP, Equation 4 with its C x 4C fusion."""
    decoder_macs: int
    """With the decoder as computed at inference; for All-MLP, with the projections merged into the fusion."""

    @property
    def parameters(self) -> int:
        """Parameters of encoder and decoder; they do not depend on how the decoder is computed."""
        return self.encoder_parameters + self.decoder_parameters

    @property
    def macs_literal(self) -> int:
        """Multiply-accumulates as the paper counts them, comparable with its "Flops"."""
        return self.encoder_macs + self.decoder_macs_literal

    @property
    def macs(self) -> int:
        """Multiply-accumulates as computed here."""
        return self.encoder_macs + self.decoder_macs

    @property
    def share_removed(self) -> float:
        """Share of ``macs_literal`` that is never computed here, 0 to 1."""
        return 1.0 - self.macs / self.macs_literal


@dataclass(frozen=True, kw_only=True)
class EncoderComplexity:
    """Counts of an encoder, and the shapes of its maps."""

    stages: tuple[StageComplexity, ...]
    parameters: int
    macs: int
    maps: tuple[Tensor, ...]
    """Maps without contents, on the ``meta`` device."""


@cache
def count_model(config: ModelConfig, num_classes: int, size: Size) -> Complexity:
    """Count a model for one image of ``size`` (height, width), in tenths of a second and a few MB.

    Tensors are on the ``meta`` device: they have shapes but no contents.  Raises a UserError if the size is too small.

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
    """Count the encoder, which is the same for any number of classes."""
    with torch.device("meta"):
        encoder = build_model(config, num_classes=2).eval().encoder
        images = torch.empty(1, config.in_channels, *size)
    if min(size) < encoder.min_size:
        raise UserError(f"size must be at least {encoder.min_size} pixels high and wide, got {size[0]} x {size[1]}")
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
    """Return what a function returns, and the multiply-accumulates of each module in it, with WHOLE for all of them.

    Attention is split into its two matrix products, because some versions of torch's counter leave it out when it is
    one fused operation.
    """
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = function(inputs)
    counts = counter.get_flop_counts()
    return output, Counter({module: sum(operations.values()) // 2 for module, operations in counts.items()})


def num_parameters(module: nn.Module) -> int:
    """Count the trainable parameters; running statistics are not among them."""
    return sum(parameter.numel() for parameter in module.parameters())


def complexity_lines(config: ModelConfig, num_classes: int, size: Size) -> dict[str, str]:
    """Return a model's complexity as text by heading.

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
