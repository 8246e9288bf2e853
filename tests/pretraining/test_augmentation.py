import pickle
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from segformer.config import IMAGENET_MEAN, IMAGENET_STD
from segformer.data.loading import generator_of
from segformer.pretraining.augmentation import CenterCrop, Mixing, RandomAugmentation
from segformer.pretraining.recipes import PRETRAIN_RECIPES

PAPER = PRETRAIN_RECIPES["imagenet_b0"]


@pytest.fixture
def image() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 60, 80), np.uint8))


def test_augmentation_is_a_function_of_its_generator_alone(image: Tensor) -> None:
    transform = RandomAugmentation(replace(PAPER, size=48, erasing=0.5))
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
    first = [transform(image, generator_of(0, epoch, 7)) for epoch in range(6)]
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
    random.seed(2)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(2)
    again = pickle.loads(pickle.dumps(transform))  # as a worker may get it
    for epoch, sample in enumerate(first):
        assert (sample.shape, sample.dtype) == ((3, 48, 48), torch.float32)
        assert torch.equal(again(image, generator_of(0, epoch, 7)), sample)
        assert not torch.equal(first[epoch - 1], sample)


def test_with_everything_off_only_a_crop_and_a_flip_remain(image: Tensor) -> None:
    recipe = replace(PAPER, size=48, randaug=None, erasing=0.0, min_area=1.0)
    flat = image * 0 + torch.tensor([10, 100, 200], dtype=torch.uint8).view(3, 1, 1)
    expected = (torch.tensor([10.0, 100.0, 200.0]) - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    for transform in (RandomAugmentation(recipe), CenterCrop(recipe)):
        result = transform(flat, generator_of(0))
        torch.testing.assert_close(result, expected.view(3, 1, 1).expand(3, 48, 48))
    assert (RandomAugmentation(replace(recipe, erasing=1.0))(flat, generator_of(0)) != expected.view(3, 1, 1)).any()


def test_at_test_the_center_of_a_larger_size_is_taken(image: Tensor) -> None:
    result = CenterCrop(replace(PAPER, size=42))(image, generator_of(0))
    pixels = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((64, 48), Image.Resampling.BICUBIC)
    center = torch.from_numpy(np.array(pixels))[3:45, 11:53].permute(2, 0, 1)  # 42 / 0.875 = 48
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    assert ((result * std + mean) - center.float()).abs().max() <= 1.01  # Pillow rounds between its two passes


@pytest.mark.parametrize(
    ("change", "off"),
    [
        ({}, 0.1 / 5),
        ({"cutmix": 0.0}, 0.1 / 5),
        ({"mixup": 0.0}, 0.1 / 5),
        ({"mixup": 0.0, "cutmix": 0.0}, 0.1 / 5),
        ({"mixup_prob": 0.0, "label_smoothing": 0.0}, 0.0),
    ],
)
def test_targets_sum_to_1_and_are_smooth(change: dict[str, Any], off: float) -> None:
    mixing, labels = Mixing(replace(PAPER, **change), 5), torch.tensor([0, 1, 1, 4])
    for seed in range(8):
        images, targets = mixing(torch.randn(4, 3, 32, 32), labels, seed)
        assert (images.shape, targets.shape) == ((4, 3, 32, 32), (4, 5))
        torch.testing.assert_close(targets.sum(1), torch.ones(4))
        torch.testing.assert_close(targets[:, 2:4], torch.full((4, 2), off))
        assert (targets[1, 1] - targets[2, 1]).abs() < 1e-6  # each the other's partner, of the same class


def test_mixing_is_a_function_of_its_seed() -> None:
    mixing, pictures, labels = Mixing(PAPER, 5), torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    first = [mixing(pictures.clone(), labels, seed) for seed in range(4)]
    for seed, (images, targets) in enumerate(first):
        again_images, again_targets = mixing(pictures.clone(), labels, seed)
        assert torch.equal(again_images, images)
        assert torch.equal(again_targets, targets)
    assert len({tuple(targets.flatten().tolist()) for _, targets in first}) == 4


def test_unmixed_targets_are_label_smoothing_by_the_book() -> None:
    mixing = Mixing(replace(PAPER, mixup_prob=0.0), 5)
    logits, labels = torch.randn(4, 5), torch.tensor([0, 1, 1, 4])
    _, targets = mixing(torch.zeros(4, 3, 32, 32), labels, 0)
    expected = F.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(F.cross_entropy(logits, targets), expected)
