"""The paper's augmentation, in the order of the released code, and the test transform (Sec. 4.1).

Images are (C, H, W) uint8, or float32 for raw channels; masks are (H, W) uint8 class indices.  Every random number
comes from the given generator.  Only functions whose name ends in an underscore change their arguments.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as T  # the usual name for it

from segformer.config import IGNORE_INDEX, DataConfig, Preprocessing

CROP_TRIES = 10
BRIGHTNESS = 32.0  # of 255
CONTRAST = (0.5, 1.5)  # factors
SATURATION = (0.5, 1.5)  # factors
HUE = 0.1  # as a fraction of a full turn
RAW_BRIGHTNESS = 32.0 / 57.4  # in standard deviations of a channel; ImageNet's is 57.4
BAND = 1 << 16  # pixels processed at once, few enough to stay in the processor's cache


class SegmentationTransform:
    """For training: resize, crop, flip, distort, normalize and pad.  -> image (C, *crop) float, mask (*crop) uint8"""

    def __init__(self, data: DataConfig, preprocessing: Preprocessing) -> None:
        self.data = data
        self.pixels = preprocessing.pixels
        self.mean = torch.tensor(preprocessing.mean).view(-1, 1, 1)
        self.std = torch.tensor(preprocessing.std).view(-1, 1, 1)

    def __call__(self, image: Tensor, mask: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Transform an image and its mask; all random numbers come from ``generator``."""
        image, mask = random_resize(image, mask, self.data.resize, self.data.ratio, generator)
        if self.data.rare_crop and uniform(generator) < self.data.rare_crop:
            image, mask = rare_crop(image, mask, self.data.crop, generator)
        else:
            image, mask = random_crop(image, mask, self.data.crop, self.data.max_class_share, generator)
        image = image.contiguous()  # until here, the memory may have the decoder's order (H, W, C)
        if uniform(generator) < self.data.flip:
            image, mask = image.flip(-1), mask.flip(-1)
        if self.data.photometric and self.pixels == "rgb":
            image = photometric_distortion(image, generator)
        elif self.data.photometric:
            image = raw_distortion(image, self.std, generator)
        normalized = normalize_and_pad(image, self.mean, self.std, self.data.crop)
        return normalized, pad(mask, self.data.crop, IGNORE_INDEX)


def uniform(generator: Generator, low: float = 0.0, high: float = 1.0) -> float:
    """Draw one number uniformly between ``low`` and ``high``."""
    return low + (high - low) * torch.rand((), generator=generator).item()


def random_resize(
    image: Tensor, mask: Tensor, sides: tuple[int, int], ratio: tuple[float, float], generator: Generator
) -> tuple[Tensor, Tensor]:
    """Resize image and mask to fit within (long, short) ``sides`` times a random factor from the range ``ratio``.

    The aspect ratio is taken from the mask, because the image may have been decoded at a reduced size.
    """
    factor = uniform(generator, *ratio)
    size = fitted_size((mask.shape[-2], mask.shape[-1]), sides[0] * factor, sides[1] * factor)
    return resize_image(image, size), resize_mask(mask, size)


def random_crop(
    image: Tensor, mask: Tensor, crop: tuple[int, int], max_class_share: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Cut a random crop; try again while one class covers more than ``max_class_share`` of the crop's labeled pixels.

    The last of CROP_TRIES crops is taken in any case.
    """
    window = (slice(None), slice(None))
    for _ in range(CROP_TRIES):
        window = random_window((image.shape[-2], image.shape[-1]), crop, generator)
        if max_class_share >= 1.0 or largest_share(mask[window]) <= max_class_share:
            break
    return image[:, window[0], window[1]], mask[window]


def rare_crop(image: Tensor, mask: Tensor, crop: tuple[int, int], generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw one of the classes in the mask, with equal chances, and cut a crop with a random pixel of this class.

    A mask without labeled pixels gets a random crop.
    """
    counts = torch.bincount(mask.flatten(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    present = counts.nonzero().flatten().tolist()
    if not present:
        return random_crop(image, mask, crop, 1.0, generator)
    chosen = present[int(uniform(generator, 0, len(present)))]
    position = (mask == chosen).flatten().nonzero()[int(uniform(generator, 0, int(counts[chosen])))].item()
    window = []
    for coordinate, side, length in zip(divmod(int(position), mask.shape[1]), mask.shape, crop, strict=True):
        first, last = max(coordinate - length + 1, 0), max(min(coordinate, side - length), 0)
        start = int(uniform(generator, min(first, last), last + 1))
        window.append(slice(start, start + length))
    return image[:, window[0], window[1]], mask[window[0], window[1]]


def random_window(size: tuple[int, int], crop: tuple[int, int], generator: Generator) -> tuple[slice, slice]:
    """Return the rows and columns of a crop at a random position; a side shorter than the crop is taken whole."""
    tops = [int(uniform(generator, 0, max(side - length, 0) + 1)) for side, length in zip(size, crop, strict=True)]
    rows, columns = (slice(top, top + length) for top, length in zip(tops, crop, strict=True))
    return rows, columns


def largest_share(mask: Tensor) -> float:
    """Return the most frequent class's share of the labeled pixels; 1 if fewer than two classes occur."""
    counts = torch.bincount(mask.flatten(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    return 1.0 if int((counts > 0).sum()) < 2 else float(counts.max() / counts.sum())


def photometric_distortion(image: Tensor, generator: Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue, each with probability 1/2.  (C, H, W) uint8 -> the same

    Contrast is changed before or after saturation and hue, at random.  Values are clipped and rounded after each step,
    as in an 8-bit image.
    """
    brightness = uniform(generator, -BRIGHTNESS, BRIGHTNESS) if uniform(generator) < 0.5 else 0.0
    contrast_first = uniform(generator) < 0.5
    contrast = uniform(generator, *CONTRAST) if uniform(generator) < 0.5 else 1.0
    saturation = uniform(generator, *SATURATION) if uniform(generator) < 0.5 else 1.0
    hue = uniform(generator, -HUE, HUE) if uniform(generator) < 0.5 else 0.0
    distorted = torch.empty_like(image, dtype=torch.uint8)
    for rows in bands(image):
        pixels = image[:, rows].to(torch.float32, copy=True)
        if brightness != 0.0:
            to_8_bits_(pixels.add_(brightness))
        if contrast_first and contrast != 1.0:
            to_8_bits_(pixels.mul_(contrast))
        if image.shape[0] == 3 and (saturation != 1.0 or hue != 0.0):
            pixels = to_8_bits_(shift_saturation_and_hue(pixels, saturation, hue))
        if not contrast_first and contrast != 1.0:
            to_8_bits_(pixels.mul_(contrast))
        distorted[:, rows] = pixels.int()  # faster than converting float to uint8 directly
    return distorted


def raw_distortion(image: Tensor, std: Tensor, generator: Generator) -> Tensor:
    """Change brightness and contrast of raw channels, each with probability 1/2.  (C, H, W) -> float

    ``std`` is the standard deviation of each channel, by which the change of brightness is scaled.
    """
    pixels = image.float()
    if uniform(generator) < 0.5:
        pixels = pixels + std * uniform(generator, -RAW_BRIGHTNESS, RAW_BRIGHTNESS)
    if uniform(generator) < 0.5:
        pixels = pixels * uniform(generator, *CONTRAST)
    return pixels


def bands(image: Tensor) -> Iterator[slice]:
    """Yield slices of rows that divide an image into bands of about BAND pixels.  (C, H, W)"""
    height = max(1, BAND // image.shape[-1])
    for top in range(0, image.shape[-2], height):
        yield slice(top, min(top + height, image.shape[-2]))


def to_8_bits_(pixels: Tensor) -> Tensor:
    """Clip to the range from 0 to 255 and round, in place; the result is still float."""
    return pixels.clamp_(0, 255).round_()


def shift_saturation_and_hue(pixels: Tensor, saturation: float, hue: float) -> Tensor:
    """Scale the saturation and shift the hue in HSV.  (3, H, W) float with whole values from 0 to 255 -> float

    ``hue`` is the shift in full turns, at most 1/3.  With value V = max(R, G, B), chroma C = V - min(R, G, B) and
    saturation S = C / V, the hue in sixths of a turn (sectors) is

        H = (G - B) / C if V = R,  else 2 + (B - R) / C if V = G,  else 4 + (R - G) / C

    The inverse is (R, G, B) = V - C clip(min(k, 4 - k), 0, 1) with k = (H + 5, H + 3, H + 1) mod 6.
    """
    red, green, blue = pixels
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    # Masks of 0.0 and 1.0: a lerp by them selects one of two values in a third of torch.where's time.
    most_red = torch.eq(value, red, out=torch.empty_like(value))
    most_green = torch.eq(value, green, out=torch.empty_like(value))
    rise = torch.lerp(red - green, blue - red, most_green).lerp_(green - blue, most_red)
    start = (4 - 2 * most_green).mul_(1 - most_red)
    sector = rise.div_(chroma.clamp(min=1)).add_(start).add_(6 * hue)  # for gray: 0 / 1
    # S = chroma / value is at most 1, so the scaled chroma is at most the value.
    chroma = torch.minimum(chroma.mul_(saturation), value)
    position = sector + torch.tensor([5.0, 3.0, 1.0], device=pixels.device).view(3, 1, 1)
    # Subtracting 6 is mod 6 for values up to 12.  Values from -2 to 0 stay, although mod would move them to 4 to 6:
    # either way, the clip below gives 0.
    position.sub_(torch.ge(position, 6, out=torch.empty_like(position)), alpha=6)
    return value - torch.minimum(position, 4 - position).clamp_(0, 1).mul_(chroma)


def normalize_and_pad(image: Tensor, mean: Tensor, std: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute (image - mean) / std, and pad with 0 at the bottom and on the right.  (C, H, W) -> (C, *size) float"""
    normalized = torch.zeros(image.shape[0], *size, dtype=torch.float32)
    for rows in bands(image):
        normalized[:, rows, : image.shape[2]].copy_(image[:, rows]).sub_(mean).div_(std)
    return normalized


def pad(tensor: Tensor, size: tuple[int, int], value: float) -> Tensor:
    """Pad with ``value`` at the bottom and on the right.  (..., H, W) -> (..., *size)"""
    bottom, right = size[0] - tensor.shape[-2], size[1] - tensor.shape[-1]
    return F.pad(tensor, (0, right, 0, bottom), value=value) if bottom or right else tensor.contiguous()


def resize_image(image: Tensor, size: tuple[int, int], antialias: bool = False) -> Tensor:
    """Resize bilinearly.  (C, H, W) -> (C, *size)"""
    resized: Tensor = T.resize(image, list(size), InterpolationMode.BILINEAR, antialias=antialias)
    return resized


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize like torch's NEAREST mode (NEAREST_EXACT would give a different mask).  (H, W) -> size"""
    rows, columns = (nearest(side, length) for side, length in zip(mask.shape, size, strict=True))
    return torch.from_numpy(mask.numpy().take(rows, axis=0).take(columns, axis=1))


def nearest(side: int, length: int) -> NDArray[np.intp]:
    """Return the source index of each pixel of a ``side`` resized to ``length``, like torch's NEAREST in float32.

    >>> nearest(4, 6)
    array([0, 0, 1, 2, 2, 3])
    """
    indices = np.arange(length, dtype=np.float32) * (np.float32(side) / np.float32(length))
    return indices.astype(np.intp)


def fitted_size(size: tuple[int, int], long_side: float, short_side: float) -> tuple[int, int]:
    """Return the largest (height, width) with the aspect ratio of ``size`` that fits within a long and a short side.

    >>> fitted_size((480, 640), 2048, 512)
    (512, 683)
    """
    scale = min(long_side / max(size), short_side / min(size))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


def sizes_at_test(size: tuple[int, int], preprocessing: Preprocessing, scale: float = 1.0) -> list[tuple[int, int]]:
    """Return (height, width) after each resize of the test transform, in order.

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
    """Apply the resizes of the test transform.  (C, H, W) uint8 or float32 -> (C, H', W') of the same type"""
    for size in sizes_at_test((image.shape[-2], image.shape[-1]), preprocessing, scale):
        if size != tuple(image.shape[-2:]):
            image = resize_image(image, size, preprocessing.antialias)
    return image


def stack(samples: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Stack transformed samples into a batch of images, stored channels-last for the encoder, and a batch of masks."""
    images, masks = zip(*samples, strict=True)
    shape = (len(images), *images[0].shape)
    batch = torch.empty(shape, dtype=images[0].dtype, memory_format=torch.channels_last)
    for target, image in zip(batch, images, strict=True):  # twice as fast as stacking and then rearranging
        target.copy_(image)
    return batch, torch.stack(masks)
