"""A network of a stranger, for tests of what works with any ``Network``."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from segformer.config import ModelCard, Preprocessing, default_palette
from segformer.models.build import model_config
from segformer.ops.upsample_argmax import upsample_argmax


class FakeNetwork:
    """A network without parameters that is no ``nn.Module``: logits from fixed mixtures of averaged pixels.

    Its masks depend on the image only, and have regions of several classes.
    """

    def __init__(self, classes: int | Sequence[str] = 3, preprocessing: Preprocessing | None = None) -> None:
        names = tuple(f"class_{k}" for k in range(classes)) if isinstance(classes, int) else tuple(classes)
        preprocessing = preprocessing or Preprocessing(long_side=96, short_side=64)
        config = model_config("mit_b0", in_channels=len(preprocessing.mean))
        card = ModelCard.for_classes(config, len(names), preprocessing)
        self.card = ModelCard(**(vars(card) | {"classes": names, "palette": default_palette(len(names))}))
        generator = torch.Generator().manual_seed(0)
        self.mixture = torch.randn(len(names), config.in_channels, generator=generator)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def normalize(self, pixels: Tensor) -> Tensor:
        mean, std = (
            torch.tensor(x)[:, None, None] for x in (self.card.preprocessing.mean, self.card.preprocessing.std)
        )
        return (pixels.float() - mean) / std

    def __call__(self, images: Tensor) -> Tensor:
        pooled = F.avg_pool2d(images.float(), 4, ceil_mode=True)
        return 3 * torch.einsum("kc,bchw->bkhw", self.mixture, pooled)

    @torch.inference_mode()
    def predict_mask(self, pixels: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        height, width = size or (pixels.shape[2], pixels.shape[3])
        return upsample_argmax(self(self.normalize(pixels)), (height, width), self.card.model.align_corners)

    def fingerprint(self) -> str:
        return "fake"
