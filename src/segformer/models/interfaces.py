"""The contracts of a model: what an encoder, a decoder and a network for prediction must offer."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from segformer.config import ModelCard
from segformer.errors import UserError


class Encoder(nn.Module):
    """Images to feature maps, finest first.  (B, C_in, H, W) -> (B, C_i, ceil(H / S_i), ceil(W / S_i)) for each i"""

    channels: tuple[int, ...]
    """Channels C_i of each map."""
    strides: tuple[int, ...]
    """Stride S_i of each map, in pixels of the image."""

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps of normalized images."""
        raise NotImplementedError

    @property
    def min_size(self) -> int:
        """Smallest height and width of an image, in pixels: one position of the coarsest map."""
        return max(self.strides)

    def named_stages(self) -> Mapping[str, nn.Module]:
        """Return the parts that run one after the other by their names in the module; the first one reads the image."""
        raise NotImplementedError

    def first_convolution(self) -> str:
        """Return the name in the module of the convolution that reads the channels of the image."""
        name, stage = next(iter(self.named_stages().items()))
        return next(f"{name}.{n}" if n else name for n, m in stage.named_modules() if isinstance(m, nn.Conv2d))

    def freeze(self, num_stages: int) -> None:
        """Keep the weights of the first stages unchanged during training."""
        stages = list(self.named_stages().values())
        if num_stages > len(stages):
            raise UserError(f"train.frozen_stages must be at most {len(stages)} for this encoder, got {num_stages}")
        for stage in stages[:num_stages]:
            stage.eval().requires_grad_(False)

    def recompute(self, on: bool) -> None:
        """Choose whether the backward pass computes activations again instead of keeping them, if the encoder can."""

    def norm_parameters(self) -> Iterable[nn.Parameter]:
        """Return the weights and biases of the norm layers, to which the released recipes apply no weight decay."""
        norms = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
        return [p for module in self.modules() if isinstance(module, norms) for p in module.parameters()]

    def named_attention(self) -> Mapping[str, nn.Module]:
        """Return the self-attention layers by their names in the module; a CNN has none."""
        return {}


class Decoder(nn.Module):
    """The maps of an encoder to logits (B, K, h, w) at the size of the finest map that it reads."""

    classifier: nn.Module
    """The last layer: it maps the features at each position to one logit per class."""
    auxiliary_weights: tuple[float, ...] = ()
    """Weight of each auxiliary output in the training loss."""

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute the input of the classifier.  -> (B, C, h, w)"""
        raise NotImplementedError

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute the logits."""
        return self.classifier(self.features(maps))  # type: ignore[no-any-return]  # nn.Module is untyped

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the outputs that training needs: the logits, then one output for each of ``auxiliary_weights``."""
        return (self(maps),)

    def literal(self) -> Callable[[Sequence[Tensor]], Tensor]:
        """Return the computation as the paper of this architecture prints it; published operation counts refer to it.

        A decoder that computes the same with fewer operations overrides this.
        """
        return self

    def reset_classes(self, num_classes: int) -> None:
        """Replace each layer whose size depends on the number of classes by a randomly initialized one."""
        raise NotImplementedError

    def freeze_norm(self) -> None:
        """Keep the statistics and weights of the batch norms unchanged during training."""
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval().requires_grad_(False)


class Network(Protocol):
    """What prediction needs of a model: a Segmenter and its fused form offer it, and so can a model of another kind."""

    card: ModelCard

    @property
    def device(self) -> torch.device:
        """Device that images must be on."""
        ...

    def normalize(self, pixels: Tensor) -> Tensor:
        """Turn raw pixel values (B, C_in, H, W) of any type into the input of the network."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Normalized images (B, C_in, H, W) -> logits (B, K, h, w)"""
        ...

    def predict_mask(self, pixels: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Raw pixel values (B, C_in, H, W) -> class of every pixel (B, H, W) int64, or of ``size`` = (height, width)"""
        ...

    def fingerprint(self) -> str:
        """Return a digest of the weights, which differs for any other weights."""
        ...
