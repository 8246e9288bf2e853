"""Encoder + decoder: the trainable model, and its fused inference form."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from segformer.config import ENCODERS, ModelCard, ModelConfig, Preprocessing
from segformer.models.decoders.all_mlp import AllMLPDecoder
from segformer.models.encoders.mit import MIT_SIZES, MixTransformer
from segformer.models.layers import is_eager_on_cpu
from segformer.ops.upsample_argmax import upsample_argmax

MIN_SIZE = 32
MAX_COMPILED = 8  # shapes; each has kernels of its own


class Encoder(Protocol):
    """(B, C_in, H, W) -> maps of ``channels`` at strides 4, 8, 16, 32."""

    channels: tuple[int, ...]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Compute the maps, finest first."""
        ...

    def fused(self) -> nn.Module:
        """Return the inference form, which shares the parameters."""
        ...


class Decoder(Protocol):
    """Maps of an encoder -> (B, K, ceil(H/4), ceil(W/4)) logits."""

    def __call__(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute the logits."""
        ...

    def fused(self) -> nn.Module:
        """Return the inference form."""
        ...


class Segmenter(nn.Module):
    """Encoder and decoder with the normalisation of their input.

    Calling it takes normalised floats (B, C_in, H, W) of any height and width from 32 up and gives logits
    (B, K, ceil(H/4), ceil(W/4)).  ``predict_mask`` takes raw pixel values and gives class indices at full size.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: nn.Module, decoder: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.head = AgainstZero() if card.model.binary else nn.Identity()
        self.card = card
        self.dtype: torch.dtype | None = None
        """What a fused model computes in, if not in float32."""
        self.compiled: Callable[[Tensor], Tensor] | None = None
        self.compiled_shapes: set[torch.Size] = set()
        for name, values in (("mean", card.preprocessing.mean), ("std", card.preprocessing.std)):
            self.register_buffer(name, torch.tensor(values, device="cpu").view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised floats (B, C_in, H, W) -> logits (B, K, ceil(H/4), ceil(W/4))."""
        check_images(images, self.mean.shape[1])
        images = images if self.dtype is None else images.to(self.dtype)
        if self.compiled is not None and self._is_compiled_for(images):
            logits = self.compiled(images)
            return logits.clone() if logits.is_cuda else logits  # a CUDA graph writes its next result over its last
        return self._logits(images)

    def _logits(self, images: Tensor) -> Tensor:
        return self.head(self.decoder(self.encoder(images)))  # type: ignore[no-any-return]  # nn.Module is untyped

    def _is_compiled_for(self, images: Tensor) -> bool:
        if len(self.compiled_shapes) < MAX_COMPILED:
            self.compiled_shapes.add(images.shape)
        return images.shape in self.compiled_shapes

    def normalize(self, images: Tensor) -> Tensor:
        """Raw pixel values 0-255 -> what ``forward`` takes."""
        dtype, pixels = self.mean.dtype, images.permute(0, 2, 3, 1)
        if pixels.is_contiguous() and not images.is_contiguous() and is_eager_on_cpu(images):
            # As decoded, a pixel's channels together: a row is then one long line, which processors prefer.
            mean, std = (part.flatten().repeat(pixels.shape[2]) for part in (self.mean, self.std))
            rows = pixels.flatten(2).to(dtype, copy=True).sub_(mean).div_(std)
            return rows.view(pixels.shape).permute(0, 3, 1, 2)
        return images.to(dtype, copy=True).sub_(self.mean).div_(self.std)

    @torch.inference_mode()
    def predict_mask(self, images: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Class of every pixel.  (B, C_in, H, W) uint8 or float 0-255 -> (B, H, W) int64; ``size``: another (H, W)"""
        logits = self(self.normalize(images))
        height, width = size or (images.shape[2], images.shape[3])
        return upsample_argmax(logits, (height, width), align_corners=self.card.model.align_corners)

    def fuse(self, dtype: torch.dtype | None = None, *, compile: bool = False) -> "Segmenter":
        """Return a separate, inference-only module that computes the same with less and shares the parameters.

        With ``dtype`` torch.bfloat16 or torch.float16 it has weights of its own and computes in that; images are
        normalised, and masks chosen, in float32 as ever.  With ``compile`` the first eight shapes of a batch are
        compiled (each takes seconds to a minute when it first comes; on a GPU as CUDA graphs), later ones are not.
        """
        encoder, decoder = self.encoder.fused(), self.decoder.fused()  # type: ignore[operator]  # the protocols are hidden
        if dtype is not None:
            encoder, decoder = (copy.deepcopy(part).to(dtype) for part in (encoder, decoder))
        fused = Segmenter(encoder, decoder, self.card).to(self.mean.device).eval()
        fused.dtype = dtype
        if compile:
            mode = "reduce-overhead" if self.mean.is_cuda else "default"
            fused.compiled = torch.compile(fused._logits, dynamic=False, mode=mode)
        return fused


class AgainstZero(nn.Module):
    """One logit of a binary head as those of two classes: 0 and itself.  (B, 1, h, w) -> (B, 2, h, w)

    Their softmax is the logit's sigmoid, and their cross-entropy its binary one.
    """

    def forward(self, logit: Tensor) -> Tensor:
        """Put zeros before it."""
        return torch.cat([torch.zeros_like(logit), logit], dim=1)


def check_images(images: Tensor, in_channels: int) -> None:
    """Raise a ValueError where the model can not take this batch."""
    if images.ndim != 4 or images.shape[1] != in_channels:
        raise ValueError(f"images must be (batch, {in_channels}, height, width), got {tuple(images.shape)}")
    if min(images.shape[2:]) < MIN_SIZE:
        raise ValueError(
            f"images must be at least {MIN_SIZE} pixels high and wide, got {images.shape[2]} x {images.shape[3]}; "
            f"enlarge them first"
        )


def build_model(
    encoder: str | ModelConfig,
    decoder: str = "all_mlp",
    *,
    num_classes: int,
    preprocessing: Preprocessing | None = None,
    **options: Any,
) -> Segmenter:
    """Return a randomly initialised model.

    ``encoder`` is a name, with ``options`` being further fields of :class:`segformer.config.ModelConfig`, or a
    whole ModelConfig.  Without ``preprocessing`` the model normalises with the mean and std of ImageNet.

    >>> build_model("mit_b0", num_classes=19)(torch.zeros(1, 3, 64, 96)).shape
    torch.Size([1, 19, 16, 24])
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    config = encoder if isinstance(encoder, ModelConfig) else ModelConfig.of(encoder, decoder=decoder, **options)
    pixels = preprocessing or Preprocessing.for_channels(config.in_channels)
    return build_from_card(ModelCard.of(config, num_classes, pixels))


def build_from_card(card: ModelCard) -> Segmenter:
    """Return the randomly initialised model that a card describes."""
    check_channels(card)
    config = card.model
    if config.binary and len(card.classes) != 2:
        raise ValueError(f"model.binary is for two classes, got {len(card.classes)}; leave it out")
    encoder = MixTransformer(
        MIT_SIZES[config.encoder],
        in_channels=config.in_channels,
        drop_path=config.drop_path,
        norm_eps=config.norm_eps,
        embed_norm_eps=config.embed_norm_eps,
    )
    decoder = AllMLPDecoder(
        encoder.channels,
        1 if config.binary else len(card.classes),
        channels=config.decoder_channels,
        dropout=config.dropout,
    )
    return Segmenter(encoder, decoder, card)


def check_channels(card: ModelCard) -> None:
    """Raise a ValueError where the statistics of the pixels are not those of the model's channels."""
    channels, pixels = card.model.in_channels, card.preprocessing
    if not len(pixels.mean) == len(pixels.std) == channels:
        raise ValueError(
            f"preprocessing.mean and .std must have model.in_channels = {channels} values, "
            f"got {len(pixels.mean)} and {len(pixels.std)}"
        )


assert set(MIT_SIZES) == set(ENCODERS)
