"""Augmentation for classification pre-training, with timm's RandAugment, random erasing, Mixup and CutMix."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL.Image import Resampling
from torch import Generator, Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as T  # its usual name

from segformer.config import IMAGENET_MEAN, IMAGENET_STD
from segformer.pretraining.recipes import PretrainRecipe

ASPECTS = (3 / 4, 4 / 3)  # aspect ratios of a training crop


class RandomAugmentation:
    """Training transform: crop, flip, RandAugment, normalization, erasing.  (C, H, W) uint8 -> (C, size, size) float"""

    def __init__(self, recipe: PretrainRecipe) -> None:
        from timm.data.auto_augment import rand_augment_transform
        from timm.data.random_erasing import RandomErasing

        area = (recipe.min_area, 1.0)
        bicubic = v2.InterpolationMode.BICUBIC
        self.crop = v2.RandomResizedCrop(recipe.size, area, ASPECTS, interpolation=bicubic, antialias=True)
        self.flip = v2.RandomHorizontalFlip(0.5)
        options = {
            "translate_const": int(0.45 * recipe.size),
            "img_mean": tuple(round(value) for value in IMAGENET_MEAN),  # color of the borders that a shift uncovers
            "interpolation": Resampling.BICUBIC,
        }
        self.rand_augment = None if recipe.randaug is None else rand_augment_transform(recipe.randaug, options)
        self.erase: Any = RandomErasing(recipe.erasing, mode="pixel", device="cpu")  # type: ignore[no-untyped-call]

    def __call__(self, image: Tensor, generator: Generator) -> Tensor:
        """Augment an image; ``generator`` makes the result reproducible."""
        with random_state(int(torch.randint(2**62, (), generator=generator))):
            image = self.flip(self.crop(image))
            if self.rand_augment is not None:
                image = T.pil_to_tensor(self.rand_augment(T.to_pil_image(image)))
            return cast("Tensor", self.erase(normalize_imagenet(image)))


class CenterCrop:
    """Evaluation transform: resize, crop the center, normalize.  (C, H, W) uint8 -> (C, size, size) float"""

    def __init__(self, recipe: PretrainRecipe) -> None:
        side = int(recipe.size / recipe.resize_ratio)
        self.resize = v2.Resize(side, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
        self.crop = v2.CenterCrop(recipe.size)

    def __call__(self, image: Tensor, _: Generator) -> Tensor:
        """Return the resized, cropped and normalized image; the generator is not used."""
        return normalize_imagenet(self.crop(self.resize(image)))


def normalize_imagenet(image: Tensor) -> Tensor:
    """Normalize by the mean and standard deviation of ImageNet.  (C, H, W) uint8 -> float"""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (image.float() - mean) / std


@contextmanager
def random_state(seed: int) -> Iterator[None]:
    """Seed the global random generators that timm and torchvision use, and restore their states after the block."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  # timm uses it
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


class Mixing:
    """Mixup or CutMix of a batch with itself in reverse order, and label smoothing.  labels (B,) -> targets (B, K)"""

    def __init__(self, recipe: PretrainRecipe, num_classes: int) -> None:
        self.smoothing = recipe.label_smoothing
        self.num_classes = num_classes
        self.mixup: Any = None
        if recipe.mixes:
            from timm.data.mixup import Mixup

            self.mixup = Mixup(  # type: ignore[no-untyped-call]  # timm's
                recipe.mixup,
                recipe.cutmix,
                prob=recipe.mixup_prob,
                label_smoothing=recipe.label_smoothing,
                num_classes=num_classes,
            )

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Mix the images of a batch and return them with soft targets; ``seed`` makes the result reproducible."""
        if self.mixup is None:
            targets = F.one_hot(labels, self.num_classes).float()
            return images, targets * (1 - self.smoothing) + self.smoothing / self.num_classes
        with random_state(seed):
            mixed: tuple[Tensor, Tensor] = self.mixup(images, labels)
        return mixed
