"""The pipelines that ``benchmarks.loader`` compares ours with: plain Pillow, and albumentations."""

from collections.abc import Sequence
from typing import Any

import albumentations as A  # the conventional name
import cv2
import numpy as np
import torch
from albumentations.augmentations.crops.transforms import BaseCrop
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from segformer.arrays import Array
from segformer.config import IGNORE_INDEX, Recipe, Size
from segformer.data.dataset import Pair
from segformer.data.label_table import LabelTable
from segformer.data.loading import generator_of
from segformer.data.transforms import (
    BRIGHTNESS,
    CONTRAST,
    CROP_TRIES,
    HUE,
    SATURATION,
    fitted_size,
    random_window,
    uniform,
)

Loader = Dataset[tuple[Tensor, Tensor]]
"""A training set whose items are requested by (epoch, index)."""


class PillowLoader(Loader):
    """A plain pipeline of Pillow and NumPy; its random numbers are the same as ours."""

    def __init__(self, samples: Sequence[Pair], table: LabelTable, recipe: Recipe) -> None:
        self.samples = samples
        self.data = recipe.data
        self.seed = recipe.train.seed
        self.table = to_8_bit_table(table)
        self.mean = np.array(recipe.preprocessing.mean, np.float32)
        self.std = np.array(recipe.preprocessing.std, np.float32)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = item
        generator = generator_of(self.seed, epoch, index)
        image, mask = self.read(self.samples[index])
        image, mask = self.resize(image, mask, generator)
        image, labels = self.crop(image, np.asarray(mask), generator)
        if uniform(generator) < self.data.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            labels = labels[:, ::-1]
        if self.data.photometric:
            image = distort(image, generator)
        normalized = (np.asarray(image, np.float32) - self.mean) / self.std
        bottom, right = (side - length for side, length in zip(self.data.crop, labels.shape, strict=True))
        if bottom or right:
            normalized = np.pad(normalized, ((0, bottom), (0, right), (0, 0)))
            labels = np.pad(labels, ((0, bottom), (0, right)), constant_values=IGNORE_INDEX)
        planes = np.ascontiguousarray(normalized.transpose(2, 0, 1))
        return torch.from_numpy(planes), torch.from_numpy(labels.copy())

    def read(self, sample: Pair) -> tuple[Image.Image, Image.Image]:
        image = Image.open(sample.image)
        mask = Image.open(sample.mask)
        ImageOps.exif_transpose(image, in_place=True)
        if mask.mode in ("L", "P"):
            return image.convert("RGB"), mask.point(self.table.tolist())
        return image.convert("RGB"), Image.fromarray(self.table[np.asarray(mask)])

    def resize(
        self, image: Image.Image, mask: Image.Image, generator: torch.Generator
    ) -> tuple[Image.Image, Image.Image]:
        factor = uniform(generator, *self.data.ratio)
        sides = (self.data.resize[0] * factor, self.data.resize[1] * factor)
        size = fitted_size((mask.height, mask.width), *sides)[::-1]
        return image.resize(size, Image.Resampling.BILINEAR), mask.resize(size, Image.Resampling.NEAREST)

    def crop(self, image: Image.Image, labels: Array, generator: torch.Generator) -> tuple[Image.Image, Array]:
        rows = columns = slice(None)
        for _ in range(CROP_TRIES):
            rows, columns = random_window((image.height, image.width), self.data.crop, generator)
            if largest_share(labels[rows, columns]) <= self.data.max_class_share:
                break
        right = min(columns.stop, image.width)
        bottom = min(rows.stop, image.height)
        return image.crop((columns.start, rows.start, right, bottom)), labels[rows, columns]


def distort(image: Image.Image, generator: torch.Generator) -> Image.Image:
    """Change brightness, contrast, saturation and hue as photometric_distortion does, with Pillow's operations."""
    if uniform(generator) < 0.5:
        shift = uniform(generator, -BRIGHTNESS, BRIGHTNESS)
        image = image.point([round(min(max(level + shift, 0), 255)) for level in range(256)] * 3)
    contrast_first = uniform(generator) < 0.5
    contrast = uniform(generator, *CONTRAST) if uniform(generator) < 0.5 else 1.0
    saturation = uniform(generator, *SATURATION) if uniform(generator) < 0.5 else 1.0
    hue = uniform(generator, -HUE, HUE) if uniform(generator) < 0.5 else 0.0
    if contrast_first and contrast != 1.0:
        image = ImageEnhance.Brightness(image).enhance(contrast)  # despite its name it multiplies all levels
    if saturation != 1.0 or hue != 0.0:
        hues = [round(level + 256 * hue) % 256 for level in range(256)]
        saturations = [min(round(level * saturation), 255) for level in range(256)]
        image = image.convert("HSV").point([*hues, *saturations, *range(256)]).convert("RGB")
    if not contrast_first and contrast != 1.0:
        image = ImageEnhance.Brightness(image).enhance(contrast)
    return image


class AlbumentationsLoader(Loader):
    """The same augmentation built from the transforms of albumentations."""

    def __init__(self, samples: Sequence[Pair], table: LabelTable, recipe: Recipe) -> None:
        self.samples = samples
        self.data = recipe.data
        self.seed = recipe.train.seed
        self.table = to_8_bit_table(table)
        self.palettes = {sample.mask for sample in samples if Image.open(sample.mask).mode == "P"}
        self.resize = A.Resize(1, 1)  # the size is set anew for each sample
        photometric = (
            A.RandomBrightnessContrast(brightness_limit=BRIGHTNESS / 255, contrast_limit=0, p=0.5),
            A.RandomOrder([contrast(), A.Sequential([saturation(), hue()], p=1)], n=2),
        )
        pixels = recipe.preprocessing
        mean, std = (tuple(value / 255 for value in values) for values in (pixels.mean, pixels.std))
        pad = {"position": "top_left", "fill": 0, "fill_mask": IGNORE_INDEX}
        self.transform = A.Compose(
            [
                self.resize,
                ClassShareCrop(self.data.crop, self.data.max_class_share),
                A.HorizontalFlip(p=self.data.flip),
                *(photometric if self.data.photometric else ()),
                A.Normalize(mean, std),
                A.PadIfNeeded(*self.data.crop, border_mode=cv2.BORDER_CONSTANT, **pad),
                A.ToTensorV2(),
            ],
            seed=0,
        )

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = item
        sample = self.samples[index]
        image: Any = cv2.imread(str(sample.image), cv2.IMREAD_COLOR_RGB)
        if sample.mask in self.palettes:
            mask: Any = np.asarray(Image.open(sample.mask))
        else:
            mask = cv2.imread(str(sample.mask), cv2.IMREAD_UNCHANGED)
        mask = cv2.LUT(mask, self.table[:256]) if mask.dtype == np.uint8 else self.table[mask]
        factor = uniform(generator_of(self.seed, epoch, index), *self.data.ratio)
        sides = (self.data.resize[0] * factor, self.data.resize[1] * factor)
        self.resize.height, self.resize.width = fitted_size(mask.shape, *sides)
        transformed = self.transform(image=image, mask=mask)
        return transformed["image"], transformed["mask"]


def contrast() -> A.RandomBrightnessContrast:
    return A.RandomBrightnessContrast(brightness_limit=0, contrast_limit=(CONTRAST[0] - 1, CONTRAST[1] - 1), p=0.5)


def saturation() -> A.ColorJitter:
    return A.ColorJitter(brightness=(1, 1), contrast=(1, 1), saturation=SATURATION, hue=(0, 0), p=0.5)


def hue() -> A.HueSaturationValue:
    return A.HueSaturationValue(hue_shift_limit=180 * HUE, sat_shift_limit=0, val_shift_limit=0, p=0.5)


class ClassShareCrop(BaseCrop):
    """A random crop that is drawn again while one class fills more than its share; albumentations has no such crop."""

    def __init__(self, crop: Size, max_class_share: float) -> None:
        super().__init__(p=1.0)
        self.crop, self.max_class_share = crop, max_class_share

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        height, width = params["shape"][:2]
        rows, columns = self.crop
        top = left = 0
        for _ in range(CROP_TRIES):
            top = self.py_random.randint(0, max(height - rows, 0))
            left = self.py_random.randint(0, max(width - columns, 0))
            if largest_share(data["mask"][top : top + rows, left : left + columns]) <= self.max_class_share:
                break
        return {"crop_coords": (left, top, min(left + columns, width), min(top + rows, height))}


def largest_share(labels: Array) -> float:
    """Return the share of the most frequent class among the labeled pixels, or 1 if fewer than two classes occur."""
    counts = np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    return 1.0 if np.count_nonzero(counts) < 2 else float(counts.max() / counts.sum())


def to_8_bit_table(table: LabelTable) -> Array:
    """Return a uint8 table of at least 256 entries, in which invalid ids become class 0."""
    values = np.full(max(256, len(table.values)), IGNORE_INDEX, np.uint8)
    values[: len(table.values)] = table.values.clip(0)
    return values
