from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import CLASSES, PALETTE, write_folder
from networks import FakeNetwork
from segformer.config import Preprocessing
from segformer.data.dataset import DataSource
from segformer.data.images import Decoding
from segformer.data.label_table import LabelTable
from segformer.data.sources.catalog import open_data
from segformer.inference.predictor import Predictor
from segformer.models.build import build_model
from segformer.models.segmenter import Segmenter
from segformer.report.predictions import WRONG, draw_errors, gallery, picture_grid, prediction_rows


@pytest.fixture
def source(tmp_path: Path) -> DataSource:
    return open_data(str(write_folder(tmp_path / "data", {"train": 1, "val": 9})))


@pytest.fixture
def model(source: DataSource) -> Segmenter:
    model = build_model(
        "mit_b0", num_classes=3, decoder_channels=32, preprocessing=Preprocessing(long_side=64, short_side=48)
    )
    model.card = replace(model.card, classes=tuple(CLASSES), palette=source.palette)
    return model


def test_predictions_are_those_of_the_predictor(model: Segmenter, source: DataSource) -> None:
    model.train()
    rows = prediction_rows(model, source, "val", count=3)
    assert model.training
    assert [caption.partition(":")[0] for caption, _ in rows] == ["000", "004", "008"]
    predictor = Predictor(model)
    for index, (caption, pictures) in zip((0, 4, 8), rows, strict=True):
        image, label = source.samples("val")[index].read()
        result = predictor(image)
        shown = dict(pictures)
        assert list(shown) == ["image", "label", "prediction", "overlay", "errors"]
        assert np.array_equal(shown["image"], image)
        assert np.array_equal(shown["prediction"], result.colors())
        assert np.array_equal(shown["overlay"], result.overlay())
        assert (shown["label"][label == 255] == 0).all()
        assert (shown["label"][label == 2] == PALETTE[2]).all()
        right = (result.mask == label)[label != 255].mean()
        assert caption.endswith(f": {100 * right:.1f} % of the labeled pixels are right")


@pytest.mark.parametrize("kind", ["fused", "fake"])
def test_any_network_is_drawn(model: Segmenter, source: DataSource, kind: str) -> None:
    network = model.fuse() if kind == "fused" else FakeNetwork(CLASSES, model.card.preprocessing)
    ((_, pictures),) = prediction_rows(network, source, "val", count=1)
    image, _ = source.samples("val")[0].read()
    assert np.array_equal(dict(pictures)["prediction"], Predictor(network)(image).colors())


def test_a_gallery_lists_the_colors_that_occur(source: DataSource) -> None:
    network = FakeNetwork(CLASSES)
    flat = np.full((4, 4, 3), network.card.palette[1], dtype=np.uint8)
    intro, legend, shown = gallery([("a", [("image", flat[:, :, ::-1]), ("prediction", flat)])], network.card, "Intro.")
    assert intro == "<p>Intro.</p>"
    assert legend.count("<li>") == 1
    assert "disc</li>" in legend
    assert shown.count("<img") == 2


@pytest.mark.parametrize(("count", "names"), [(1, ["000"]), (9, [f"00{k}" for k in range(9)]), (99, None)])
def test_there_are_as_many_predictions_as_asked_for_or_possible(
    model: Segmenter, source: DataSource, count: int, names: list[str] | None
) -> None:
    rows = prediction_rows(model, source, "val", count)
    assert [caption.partition(":")[0] for caption, _ in rows] == (names or [f"00{k}" for k in range(9)])


def test_predictions_want_data_of_the_models_classes(model: Segmenter, source: DataSource) -> None:
    with pytest.raises(ValueError, match=r"the model's classes are not those of"):
        prediction_rows(model, replace(source, classes=("ground", "disc", "cube")), "val")


class Drawn:
    """A large image of any number of channels, without a labeled pixel."""

    name = "drawn"

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def read(self, decoding: Decoding) -> tuple[np.ndarray, np.ndarray]:
        assert (decoding.pixels, decoding.channels) == ("raw", self.channels)
        image = np.random.default_rng(0).normal(5000, 900, (300, 1500, self.channels)).astype(np.float32)
        return image, np.full((300, 1500), 255, dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 5])
def test_raw_channels_are_shown_and_shrunk(channels: int) -> None:
    model = build_model("mit_b0", num_classes=2, decoder_channels=32, in_channels=channels)
    model.card = replace(
        model.card, preprocessing=replace(model.card.preprocessing, resize="squash", long_side=64, short_side=64)
    )
    card = model.card
    source = DataSource("drawn", card.classes, card.palette, LabelTable.identity(2), {"val": [Drawn(channels)]})
    ((caption, pictures),) = prediction_rows(model, source, "val")
    assert caption == "drawn: no pixel is labeled"
    assert {pixels.shape for _, pixels in pictures} == {(128, 640, 3)}
    assert dict(pictures)["image"].std() > 20  # stretched, not saturated
    assert not dict(pictures)["label"].any()
    assert {tuple(color) for color in dict(pictures)["prediction"].reshape(-1, 3)} <= set(card.palette)


def test_picture_grid_sets_every_picture_in_its_place() -> None:
    def flat(height: int, width: int, value: int) -> np.ndarray:
        return np.full((height, width, 3), value, dtype=np.uint8)

    rows = [
        ("a", [("x", flat(100, 640, 10)), ("y", flat(20, 30, 20))]),
        ("b", [("x", flat(60, 40, 30))]),
    ]
    grid = picture_grid(rows)
    assert (grid.shape, grid.dtype) == ((50 + 4 + 60, 320 + 4 + 320, 3), np.uint8)
    assert (grid[:50, :320] == 10).all()
    assert (grid[:20, 324:354] == 20).all()
    assert (grid[54:, :40] == 30).all()
    assert (grid[50:54] == 255).all()
    assert (grid[:, 320:324] == 255).all()


def test_errors_are_red_and_ignored_pixels_black() -> None:
    image = np.full((2, 2, 3), 100, dtype=np.uint8)
    picture = draw_errors(image, np.array([[0, 1], [255, 1]]), np.array([[0, 0], [0, 1]]))
    assert picture[0, 0].tolist() == picture[1, 1].tolist() == [150, 150, 150]
    assert picture[0, 1].tolist() == [round(0.3 * 150 + 0.7 * value) for value in WRONG]
    assert picture[1, 0].tolist() == [0, 0, 0]
