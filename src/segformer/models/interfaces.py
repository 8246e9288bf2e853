"""The three contracts of a model: encoder, decoder, and what prediction asks of a network."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from segformer.config import ModelCard


class Encoder(nn.Module):
    """Images to feature maps, finest first.  (B, C_in, H, W) -> (B, C_i, ceil(H / S_i), ceil(W / S_i)) for each i"""

    channels: tuple[int, ...]
    """Channels C_i of the maps."""
    strides: tuple[int, ...]
    """Strides S_i of the maps."""

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps of normalised images."""
        raise NotImplementedError

    def named_stages(self) -> Mapping[str, nn.Module]:
        """The parts that run one after the other, by their names in the module; the first one sees the image."""
        raise NotImplementedError

    def first_convolution(self) -> str:
        """Return the name in the module of the convolution that reads the channels of the image."""
        name, stage = next(iter(self.named_stages().items()))
        return next(f"{name}.{n}" if n else name for n, m in stage.named_modules() if isinstance(m, nn.Conv2d))

    def freeze(self, num_stages: int) -> None:
        """Keep the weights of the first stages as they are during training."""
        for stage in list(self.named_stages().values())[:num_stages]:
            stage.eval().requires_grad_(False)

    def recompute(self, on: bool) -> None:
        """Compute activations again in the backward pass instead of keeping them, where the encoder can."""

    def norm_parameters(self) -> Iterable[nn.Parameter]:
        """Weights and biases of the norm layers, which the released recipes do not decay."""
        norms = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
        return [p for module in self.modules() if isinstance(module, norms) for p in module.parameters()]

    def named_attention(self) -> Mapping[str, nn.Module]:
        """The self-attention layers by their names in the module; none for a CNN."""
        return {}


class Decoder(nn.Module):
    """Feature maps of an encoder to logits.  -> (B, K, h, w), the size of the finest map that it reads"""

    classifier: nn.Module
    """The last layer: it maps features to the logits of each class, position by position."""
    auxiliary_weights: tuple[float, ...] = ()
    """Weight in the training loss of each auxiliary output."""

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute what the classifier reads.  -> (B, C, h, w)"""
        raise NotImplementedError

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute the logits."""
        return self.classifier(self.features(maps))  # type: ignore[no-any-return]  # nn.Module is untyped

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute what training needs: the logits, then one output for each of ``auxiliary_weights``."""
        return (self(maps),)

    def literal(self) -> Callable[[Sequence[Tensor]], Tensor]:
        """Return the architecture as its paper prints it: the arithmetic that published counts are of."""
        return self

    def reset_classes(self, num_classes: int) -> None:
        """Replace every layer that depends on the number of classes by a random one."""
        raise NotImplementedError

    def freeze_norm(self) -> None:
        """Keep statistics and weights of the batch norms as they are during training."""
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval().requires_grad_(False)


class Network(Protocol):
    """What prediction needs of a model, and no more: a Segmenter, its fused form or an exported file."""

    card: ModelCard

    @property
    def device(self) -> torch.device:
        """Where images have to lie."""
        ...

    def normalize(self, pixels: Tensor) -> Tensor:
        """Turn raw pixel values (B, C_in, H, W) of any type into what the network is called with."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Normalised images (B, C_in, H, W) -> logits (B, K, h, w)."""
        ...

    def predict_mask(self, pixels: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Raw pixel values (B, C_in, H, W) -> class of every pixel (B, H, W) int64; ``size``: another (H, W)."""
        ...

    def fingerprint(self) -> str:
        """Return a digest that tells these weights from others."""
        ...
