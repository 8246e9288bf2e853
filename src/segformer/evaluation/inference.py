"""From an image to class scores or a mask: whole image, sliding window, several scales (Sec. 4.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from segformer.config import EvalConfig
from segformer.data.transforms import preprocess
from segformer.models.segmenter import Segmenter
from segformer.ops.upsample_argmax import upsample_argmax


@torch.inference_mode()
def predict_mask(model: Segmenter, image: Tensor, config: EvalConfig) -> Tensor:
    """Class of every pixel of one image at its own size.  (C, H, W) uint8 -> (H, W) int64"""
    if config.crop is None and config.scales == (1.0,) and not config.flip:
        return upsample_argmax(whole_logits(model, image), size_of(image), model.card.model.align_corners)[0]
    return predict_scores(model, image, config).argmax(dim=0)


@torch.inference_mode()
def predict_scores(model: Segmenter, image: Tensor, config: EvalConfig) -> Tensor:
    """Class probabilities of one image at its own size, averaged over scales and flips.  (C, H, W) -> (K, H, W)"""
    views = [(scale, mirrored) for scale in config.scales for mirrored in ((False, True) if config.flip else (False,))]
    total: Tensor | None = None
    for scale, mirrored in views:
        view = image.flip(-1) if mirrored else image
        logits = whole_logits(model, view, scale) if config.crop is None else slide_logits(model, view, config, scale)
        full = F.interpolate(
            logits.float(), size_of(image), mode="bilinear", align_corners=model.card.model.align_corners
        )
        scores = full.softmax(dim=1)[0]
        scores = scores.flip(-1) if mirrored else scores
        total = scores if total is None else total.add_(scores)
    assert total is not None
    return total / len(views)


def whole_logits(model: Segmenter, image: Tensor, scale: float = 1.0) -> Tensor:
    """Logits of the whole image at a quarter of its preprocessed size.  (C, H, W) uint8 -> (1, K, h, w)"""
    pixels = preprocess(image, model.card.preprocessing, scale).to(model.mean.device)
    logits: Tensor = model(model.normalize(pixels[None]))
    return logits


def slide_logits(model: Segmenter, image: Tensor, config: EvalConfig, scale: float = 1.0) -> Tensor:
    """Logits at the preprocessed size, averaged where windows overlap.  (C, H, W) uint8 -> (1, K, H', W')"""
    assert config.crop is not None
    pixels = preprocess(image, model.card.preprocessing, scale).to(model.mean.device)
    images = model.normalize(pixels[None])
    stride = config.stride or (max(1, config.crop[0] * 3 // 4), max(1, config.crop[1] * 3 // 4))
    total = images.new_zeros(1, len(model.card.classes), *images.shape[2:])
    count = images.new_zeros(1, 1, *images.shape[2:])
    rows, columns = (
        window_starts(side, crop, step) for side, crop, step in zip(images.shape[2:], config.crop, stride, strict=True)
    )
    for top in rows:
        for left in columns:
            window = (..., slice(top, top + config.crop[0]), slice(left, left + config.crop[1]))
            part = images[window]
            total[window] += F.interpolate(
                model(part).float(), part.shape[2:], mode="bilinear", align_corners=model.card.model.align_corners
            )
            count[window] += 1
    return total / count


def window_starts(side: int, crop: int, stride: int) -> list[int]:
    """Where windows begin along one side; the last one is shifted back inside.

    >>> window_starts(2048, 1024, 768)
    [0, 768, 1024]
    """
    number = max(side - crop + stride - 1, 0) // stride + 1
    return [max(min(i * stride, side - crop), 0) for i in range(number)]


def size_of(image: Tensor) -> tuple[int, int]:
    """(height, width) of an image or a batch."""
    return image.shape[-2], image.shape[-1]
