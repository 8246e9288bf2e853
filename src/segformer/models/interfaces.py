"""Interfaces that every encoder, every decoder and every network used for prediction must implement."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from segformer.config import ModelCard
from segformer.errors import UserError


class Encoder(nn.Module):
    """Computes feature maps of images, finest map first.  (B, C_in, H, W) -> (B, C_i, ceil(H / S_i), ceil(W / S_i))"""

    channels: tuple[int, ...]
    """Number of channels C_i of each map."""
    strides: tuple[int, ...]
    """Stride S_i of each map, in pixels of the image."""

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the feature maps of normalized images, finest map first."""
        raise NotImplementedError

    @property
    def min_size(self) -> int:
        """Smallest allowed height and width of an image, in pixels: the largest stride."""
        return max(self.strides)

    def named_stages(self) -> Mapping[str, nn.Module]:
        """Return the stages in the order in which they run, by submodule name; the first one reads the image."""
        raise NotImplementedError

    def first_convolution(self) -> str:
        """Return the submodule name of the convolution that reads the image."""
        name, stage = next(iter(self.named_stages().items()))
        return next(f"{name}.{n}" if n else name for n, m in stage.named_modules() if isinstance(m, nn.Conv2d))

    def freeze(self, num_stages: int) -> None:
        """Freeze the first ``num_stages`` stages: training does not change their weights."""
        stages = list(self.named_stages().values())
        if num_stages > len(stages):
            raise UserError(f"train.frozen_stages must be at most {len(stages)} for this encoder, got {num_stages}")
        for stage in stages[:num_stages]:
            stage.eval().requires_grad_(False)

    def recompute(self, on: bool) -> None:
        """Switch activation checkpointing on or off; an encoder without it ignores the call."""

    def norm_parameters(self) -> Iterable[nn.Parameter]:
        """Return the weights and biases of all norm layers; the released recipes apply no weight decay to them."""
        norms = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
        return [p for module in self.modules() if isinstance(module, norms) for p in module.parameters()]

    def named_attention(self) -> Mapping[str, nn.Module]:
        """Return the self-attention layers by submodule name; the result is empty for a CNN."""
        return {}


class Decoder(nn.Module):
    """Computes logits from the maps of an encoder, at the size of the finest map that it uses.  maps -> (B, K, h, w)"""

    classifier: nn.Module
    """The last layer, which computes one logit per class at each position."""
    auxiliary_weights: tuple[float, ...] = ()
    """Weight of each auxiliary output in the training loss."""

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute the features that the classifier reads.  maps -> (B, C, h, w)"""
        raise NotImplementedError

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute the logits.  maps -> (B, K, h, w)"""
        return self.classifier(self.features(maps))  # type: ignore[no-any-return]  # nn.Module is untyped

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the outputs for the training loss: the logits, then one output for each of ``auxiliary_weights``."""
        return (self(maps),)

    def literal(self) -> Callable[[Sequence[Tensor]], Tensor]:
        """Return a function that computes the logits exactly as the architecture's paper describes.

        Published operation counts refer to this computation.  A decoder whose ``forward`` needs fewer operations
        overrides this method.
        """
        return self

    def reset_classes(self, num_classes: int) -> None:
        """Replace each layer whose size depends on the number of classes by a new, random one."""
        raise NotImplementedError

    def freeze_norm(self) -> None:
        """Freeze all batch norms: training changes neither their statistics nor their weights."""
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval().requires_grad_(False)


class Network(Protocol):
    """Interface of networks for prediction: Segmenter, FusedSegmenter, and any other class with these methods."""

    card: ModelCard

    @property
    def device(self) -> torch.device:
        """The device on which images are expected."""
        ...

    def normalize(self, pixels: Tensor) -> Tensor:
        """Convert raw pixel values of any type to the input of the network.  (B, C_in, H, W)"""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Compute the logits of normalized images.  (B, C_in, H, W) -> (B, K, h, w)"""
        ...

    def predict_mask(self, pixels: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Predict the class of every pixel from raw pixel values.  (B, C_in, H, W) -> (B, H, W) int64

        The mask has the size of the images, or ``size`` = (height, width) if it is given.
        """
        ...

    def fingerprint(self) -> str:
        """Return a digest of the weights; networks with different weights have different digests."""
        ...
