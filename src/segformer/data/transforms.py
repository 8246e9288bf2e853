"""The paper's augmentation, in the released order, and the test transform (Sec. 4.1).

Images are (C, H, W) uint8 (raw channels also float32), masks (H, W) uint8 class indices.  Every random number comes
from the given generator.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as T  # the field's name for it

from segformer.config import IGNORE_INDEX, DataConfig, Preprocessing

CROP_TRIES = 10
BRIGHTNESS, CONTRAST, SATURATION, HUE = 32.0, (0.5, 1.5), (0.5, 1.5), 0.1  # of 255, factors, of a full turn
RAW_BRIGHTNESS = 32.0 / 57.4  # of a channel's standard deviation: what 32 is of ImageNet's


class TrainTransform:
    """Resize, crop, flip, distort, normalise, pad.  -> image (C, *crop) float, mask (*crop) uint8"""

    def __init__(self, data: DataConfig, preprocessing: Preprocessing) -> None:
        self.data = data
        self.pixels = preprocessing.pixels
        self.mean = torch.tensor(preprocessing.mean).view(-1, 1, 1)
        self.std = torch.tensor(preprocessing.std).view(-1, 1, 1)

    def __call__(self, image: Tensor, mask: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Apply the transform with the random numbers of ``generator``."""
        image, mask = random_resize(image, mask, self.data.resize, self.data.ratio, generator)
        if self.data.rare_crop and uniform(generator) < self.data.rare_crop:
            image, mask = rare_crop(image, mask, self.data.crop, generator)
        else:
            image, mask = random_crop(image, mask, self.data.crop, self.data.max_class_share, generator)
        if uniform(generator) < self.data.flip:
            image, mask = image.flip(-1), mask.flip(-1)
        if self.data.photometric and self.pixels == "rgb":
            image = photometric_distortion(image, generator)
        elif self.data.photometric:
            image = raw_distortion(image, self.std, generator)
        normalized = (image.float() - self.mean) / self.std
        return pad(normalized, self.data.crop, 0.0), pad(mask, self.data.crop, IGNORE_INDEX)


def uniform(generator: Generator, low: float = 0.0, high: float = 1.0) -> float:
    """Draw one number."""
    return low + (high - low) * torch.rand((), generator=generator).item()


def random_resize(
    image: Tensor, mask: Tensor, sides: tuple[int, int], ratio: tuple[float, float], generator: Generator
) -> tuple[Tensor, Tensor]:
    """Fit into (long, short) ``sides`` times a random factor, keeping the mask's aspect; an image may come reduced."""
    factor = uniform(generator, *ratio)
    size = fitted_size((mask.shape[-2], mask.shape[-1]), sides[0] * factor, sides[1] * factor)
    return resize_image(image, size), resize_mask(mask, size)


def random_crop(
    image: Tensor, mask: Tensor, crop: tuple[int, int], max_class_share: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Cut a random crop, trying again while one class fills more than its share of the labelled pixels."""
    window = (slice(None), slice(None))
    for _ in range(CROP_TRIES):
        window = random_window((image.shape[-2], image.shape[-1]), crop, generator)
        if max_class_share >= 1.0 or largest_share(mask[window]) <= max_class_share:
            break
    return image[:, window[0], window[1]], mask[window]


def rare_crop(image: Tensor, mask: Tensor, crop: tuple[int, int], generator: Generator) -> tuple[Tensor, Tensor]:
    """Cut a crop that holds a random pixel of a class, drawn from those in the mask with equal chances."""
    counts = torch.bincount(mask.flatten().int(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    present = counts.nonzero().flatten().tolist()
    if not present:
        return random_crop(image, mask, crop, 1.0, generator)
    chosen = present[int(uniform(generator, 0, len(present)))]
    position = (mask == chosen).flatten().nonzero()[int(uniform(generator, 0, int(counts[chosen])))].item()
    window = []
    for place, side, length in zip(divmod(int(position), mask.shape[1]), mask.shape, crop, strict=True):
        first, last = max(place - length + 1, 0), max(min(place, side - length), 0)
        start = int(uniform(generator, min(first, last), last + 1))
        window.append(slice(start, start + length))
    return image[:, window[0], window[1]], mask[window[0], window[1]]


def random_window(size: tuple[int, int], crop: tuple[int, int], generator: Generator) -> tuple[slice, slice]:
    """Place a crop uniformly inside an image; where the image is smaller, its whole side is taken."""
    tops = [int(uniform(generator, 0, max(side - length, 0) + 1)) for side, length in zip(size, crop, strict=True)]
    rows, columns = (slice(top, top + length) for top, length in zip(tops, crop, strict=True))
    return rows, columns


def largest_share(mask: Tensor) -> float:
    """Share of the most frequent class among the labelled pixels; 1 where fewer than two classes occur."""
    counts = torch.bincount(mask.flatten().int(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    return 1.0 if int((counts > 0).sum()) < 2 else float(counts.max() / counts.sum())


def photometric_distortion(image: Tensor, generator: Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue, each with probability 1/2.  (C, H, W) uint8 -> the same

    Contrast comes before or after the saturation and hue, at random.  Values are clipped and rounded after each
    step, as when every step is an 8-bit image.
    """
    pixels = image.float()
    if uniform(generator) < 0.5:
        pixels = to_8_bits(pixels + uniform(generator, -BRIGHTNESS, BRIGHTNESS))
    contrast_first = uniform(generator) < 0.5
    contrast = uniform(generator, *CONTRAST) if uniform(generator) < 0.5 else 1.0
    saturation = uniform(generator, *SATURATION) if uniform(generator) < 0.5 else 1.0
    hue = uniform(generator, -HUE, HUE) if uniform(generator) < 0.5 else 0.0
    if contrast_first:
        pixels = to_8_bits(pixels * contrast)
    if image.shape[0] == 3 and (saturation != 1.0 or hue != 0.0):
        pixels = to_8_bits(shift_saturation_and_hue(pixels, saturation, hue))
    if not contrast_first:
        pixels = to_8_bits(pixels * contrast)
    return pixels.to(torch.uint8)


def raw_distortion(image: Tensor, std: Tensor, generator: Generator) -> Tensor:
    """Change brightness and contrast, each with probability 1/2, of channels in any units.  (C, H, W) -> float"""
    pixels = image.float()
    if uniform(generator) < 0.5:
        pixels = pixels + std * uniform(generator, -RAW_BRIGHTNESS, RAW_BRIGHTNESS)
    if uniform(generator) < 0.5:
        pixels = pixels * uniform(generator, *CONTRAST)
    return pixels


def to_8_bits(pixels: Tensor) -> Tensor:
    """Clip to 0-255 and round; the type stays float."""
    return pixels.clamp(0, 255).round()


def shift_saturation_and_hue(pixels: Tensor, saturation: float, hue: float) -> Tensor:
    """Scale S and shift H (in turns) of the HSV form.  (3, H, W) float 0-255 -> the same"""
    red, green, blue = pixels
    value, low = pixels.amax(0), pixels.amin(0)
    chroma = value - low
    safe = chroma.clamp(min=1e-6)
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    # S = chroma / value is at most 1, so the scaled chroma is at most the value.
    chroma = torch.minimum(chroma * saturation, value)
    sector = sector + 6 * hue
    offsets = torch.tensor([5.0, 3.0, 1.0], device=pixels.device).view(3, 1, 1)
    position = (sector + offsets) % 6
    return value - chroma * torch.minimum(position, 4 - position).clamp(0, 1)


def pad(tensor: Tensor, size: tuple[int, int], value: float) -> Tensor:
    """Fill up at the bottom and on the right."""
    bottom, right = size[0] - tensor.shape[-2], size[1] - tensor.shape[-1]
    return F.pad(tensor, (0, right, 0, bottom), value=value) if bottom or right else tensor.contiguous()


def resize_image(image: Tensor, size: tuple[int, int], antialias: bool = False) -> Tensor:
    """Resize bilinearly.  (C, H, W) -> (C, *size)"""
    resized: Tensor = T.resize(image, list(size), InterpolationMode.BILINEAR, antialias=antialias)
    return resized


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Take the nearest label (NEAREST; NEAREST_EXACT gives another mask).  (H, W) -> size"""
    resized: Tensor = T.resize(mask[None], list(size), InterpolationMode.NEAREST)
    return resized[0]


def fitted_size(size: tuple[int, int], long_side: float, short_side: float) -> tuple[int, int]:
    """Largest (height, width) of the same aspect within a long and a short side.

    >>> fitted_size((480, 640), 2048, 512)
    (512, 683)
    """
    scale = min(long_side / max(size), short_side / min(size))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


def sizes_at_test(size: tuple[int, int], preprocessing: Preprocessing, scale: float = 1.0) -> list[tuple[int, int]]:
    """(height, width) after each of the test transform's resizes, which come one after the other.

    >>> sizes_at_test((480, 640), Preprocessing())
    [(512, 683), (512, 704)]
    """
    long_side, short_side = preprocessing.long_side * scale, preprocessing.short_side * scale
    if preprocessing.resize == "fit":
        sizes = [fitted_size(size, long_side, short_side)]
    elif preprocessing.resize == "squash":
        sizes = [(int(short_side + 0.5), int(long_side + 0.5))]
    else:
        sizes = [(max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5)))]
    height, width = (-(-side // preprocessing.multiple) * preprocessing.multiple for side in sizes[0])
    return [*sizes, (height, width)]


def preprocess(image: Tensor, preprocessing: Preprocessing, scale: float = 1.0) -> Tensor:
    """Apply the test transform's resizes.  (C, H, W) uint8 -> (C, H', W') uint8"""
    for size in sizes_at_test((image.shape[-2], image.shape[-1]), preprocessing, scale):
        if size != tuple(image.shape[-2:]):
            image = resize_image(image, size, preprocessing.antialias)
    return image


def stack(samples: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Batch transformed samples: images channels-last, as the encoder wants them."""
    images, masks = zip(*samples, strict=True)
    return torch.stack(images).contiguous(memory_format=torch.channels_last), torch.stack(masks)
