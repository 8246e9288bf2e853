from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import CLASSES
from networks import FakeNetwork
from segformer.data.dataset import DataSource
from segformer.data.sources.catalog import open_data
from segformer.errors import UserError
from segformer.inference.samples import check_classes, load_whole, samples_of


@pytest.fixture
def source(small_data: Path) -> DataSource:
    return open_data(str(small_data))


def test_the_first_samples_of_a_split(source: DataSource) -> None:
    network = FakeNetwork(CLASSES)
    assert [sample.name for sample in samples_of(network, source, "val", None)] == ["000", "001", "002", "003"]
    assert [sample.name for sample in samples_of(network, source, "val", 2)] == ["000", "001"]
    with pytest.raises(UserError, match="limit must be at least 1, got 0"):
        samples_of(network, source, "val", 0)
    with pytest.raises(UserError, match="no images in the split 'val'"):
        samples_of(network, replace(source, splits={"val": []}), "val", None)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_and_masks_come_at_their_own_size_in_order(source: DataSource, workers: int) -> None:
    samples = source.samples("val")
    pairs = list(load_whole(source, samples, workers))
    assert len(pairs) == len(samples)
    for sample, (image, mask) in zip(samples, pairs, strict=True):
        pixels, label = sample.read()
        np.testing.assert_array_equal(image.numpy(), pixels.transpose(2, 0, 1))
        np.testing.assert_array_equal(mask.numpy(), label)


def test_other_classes_are_an_error_that_names_them(source: DataSource) -> None:
    check_classes(FakeNetwork(CLASSES), source)
    with pytest.raises(UserError, match=r"the model has 5 classes \(class_0, .*, \.\.\.\), but .* has 3 \(ground,"):
        check_classes(FakeNetwork(5), source)
    with pytest.raises(UserError, match="'disc' in the model, 'cube' in the data"):
        check_classes(FakeNetwork(CLASSES), replace(source, classes=("ground", "cube", "square")))
