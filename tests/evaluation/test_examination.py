import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import CLASSES, write_folder
from segformer.config import EvalConfig, Preprocessing
from segformer.data.dataset import DataSource
from segformer.data.sources.catalog import open_data
from segformer.errors import UserError
from segformer.evaluation.evaluate import evaluate, examine
from segformer.evaluation.page import write_comparison_page, write_evaluation_page
from segformer.evaluation.statistics import iou_of
from segformer.evaluation.tally import Tally, group_names, sampled_pixels
from segformer.inference.windows import predict_mask, predict_scores
from segformer.models.build import build_model
from segformer.models.segmenter import Segmenter

SLIDE = EvalConfig(crop=(64, 64), stride=(32, 32))
BOTH = EvalConfig(scales=(0.75, 1.0), flip=True)


@pytest.fixture
def source(tmp_path: Path) -> DataSource:
    return open_data(str(write_folder(tmp_path / "data", {"train": 1, "val": 6})))


@pytest.fixture
def model(source: DataSource) -> Segmenter:
    torch.manual_seed(0)
    fit = Preprocessing(long_side=96, short_side=72)
    model = build_model("mit_b0", num_classes=3, decoder_channels=32, preprocessing=fit).eval()
    torch.nn.init.normal_(model.decoder.classifier.weight, std=1.0)
    model.card = replace(model.card, classes=tuple(CLASSES), palette=source.palette)
    return model


@pytest.mark.parametrize("config", [EvalConfig(), SLIDE, BOTH], ids=["whole", "slide", "multiscale"])
def test_every_figure_comes_from_masks_and_probabilities(
    model: Segmenter, source: DataSource, config: EvalConfig
) -> None:
    found = examine(model, source, config=config, workers=0)
    np.testing.assert_array_equal(found.scores.confusion, evaluate(model, source, config=config, workers=0).confusion)
    assert found.tally.done.all()
    assert list(found.names) == [f"00{k}" for k in range(6)]
    right = 0.0
    for k, sample in enumerate(source.samples("val")):
        pixels, label = sample.read()
        image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        mask = predict_mask(model, image, config).numpy()
        valid = label != 255
        ious = [
            ((mask == c) & (label == c))[valid].sum() / ((mask == c) | (label == c))[valid].sum()
            for c in range(3)
            if ((mask == c) | (label == c))[valid].any()
        ]
        assert found.image_miou[k] == pytest.approx(np.mean(ious))
        right += np.log(
            np.take_along_axis(
                predict_scores(model, image, config).numpy(), np.where(valid, label, 0)[None].astype(int), 0
            )[0][valid]
        ).mean()
    nll = found.tally.nll[:, 20].sum() / found.tally.bins[:, 20, :, 0].sum()
    assert nll == pytest.approx(-right / 6, rel=0.05)  # of a sample of a few thousand pixels


def test_an_interrupted_examination_goes_on(model: Segmenter, source: DataSource, tmp_path: Path) -> None:
    expected, keep, seen = examine(model, source, workers=0), tmp_path / "counts.npz", []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine(model, source, workers=0, keep=keep, progress=stop)
    found = examine(model, source, workers=0, keep=keep, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == [1, 2, 3, 4, 5, 6]
    for name, array in expected.tally.to_arrays().items():
        np.testing.assert_allclose(found.tally.to_arrays()[name], array, rtol=1e-12)
    seen.clear()
    examine(model, source, workers=0, keep=keep, progress=lambda done, total: seen.append((done, total)))
    assert seen == []


def test_counts_of_something_else(model: Segmenter, source: DataSource, tmp_path: Path) -> None:
    keep = tmp_path / "counts.npz"

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine(model, source, workers=0, keep=keep, progress=stop)
    other = build_model("mit_b0", num_classes=3, decoder_channels=32, preprocessing=model.card.preprocessing)
    other.card = model.card
    with pytest.raises(UserError, match=r"unfinished evaluation of something else \(different: weights\)"):
        examine(other, source, workers=0, keep=keep)
    with pytest.raises(UserError, match=r"different: protocol, images"):
        examine(model, source, config=SLIDE, limit=3, workers=0, keep=keep)
    examine(model, source, workers=0, keep=keep)  # finished now: it may be replaced
    assert examine(other, source, workers=0, keep=keep).tally.done.all()
    keep.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"counts\.npz: expected the counts of an evaluation"):
        examine(model, source, workers=0, keep=keep)


def test_counts_are_additive() -> None:
    rng = np.random.default_rng(0)
    maps = [torch.from_numpy(rng.integers(0, 4, (40, 50), dtype=np.uint8)) for _ in range(6)]
    maps[1][:5] = 255
    whole, parts = Tally.empty(3, 4), [Tally.empty(3, 4) for _ in range(3)]
    for k in range(3):
        for tally in (whole, parts[k]):
            tally.add(k, maps[k].clamp(max=3).long(), maps[k + 3])
    for name, array in whole.to_arrays().items():
        np.testing.assert_array_equal(sum(part.to_arrays()[name] for part in parts), array)
    assert whole.images[:, 1].sum() == whole.confusion.sum()
    np.testing.assert_array_equal(
        iou_of(whole.images.sum(axis=0)),
        iou_of(np.stack([np.diag(whole.confusion), whole.confusion.sum(1), whole.confusion.sum(0)])),
    )


def test_ignored_pixels_count_nowhere() -> None:
    label, prediction = torch.zeros(40, 40, dtype=torch.uint8), torch.zeros(40, 40, dtype=torch.int64)
    label[:, 20:] = 255
    prediction[:, 20:] = 1
    tally = Tally.empty(1, 2)
    tally.add(0, prediction, label)
    assert tally.confusion.tolist() == [[800, 0], [0, 0]]
    assert tally.borders[0, 0].tolist() == tally.borders[0, 1].tolist() == tally.borders[0, 2].tolist()
    assert tally.borders[0, 2, 1] == 0


def test_pixels_for_the_calibration_are_labelled_ones() -> None:
    label = torch.full((50, 60), 255, dtype=torch.uint8)
    label[7, 5:9] = 1
    drawn = sampled_pixels(label, 10, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {7 * 60 + k for k in range(5, 9)}
    assert len(sampled_pixels(torch.zeros(9, 9), 10**6, torch.Generator())) == 64
    assert len(sampled_pixels(torch.full((9, 9), 255), 3, torch.Generator())) == 0


def test_sequences_are_told_apart_by_the_start_of_a_name() -> None:
    names = ["bonn/bonn_000001_000019", "bonn/bonn_000001_000020", "bonn/bonn_000002_000019", "x"]
    groups = group_names(names, r"[^/]+/[^_/]+_\d+")
    assert groups == ["bonn/bonn_000001", "bonn/bonn_000001", "bonn/bonn_000002", "x"]
    assert group_names(names, "") == names
    with pytest.raises(ValueError, match=r"sequence must be a regular expression, got '\['"):
        group_names(names, "[")


def test_few_sequences_are_no_sample(model: Segmenter, source: DataSource) -> None:
    found = examine(model, replace(source, sequence="00"), workers=0)
    assert found.unit == "6 images of only 1 sequences, too narrow"
    assert found.drawn == found.names
    assert examine(model, source, workers=0).unit == "6 images"


def test_json_and_pages(model: Segmenter, source: DataSource, tmp_path: Path) -> None:
    found = examine(model, source, workers=0)
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert values["mIoU"] == pytest.approx(found.scores.miou)
    assert values["mIoU interval"]["low"] < values["mIoU"] < values["mIoU interval"]["high"]
    assert set(values["images"]) == set(found.names)
    assert values["classes"]["disc"]["boundary IoU"] == pytest.approx(found.boundary_iou[1])
    html = write_evaluation_page(tmp_path, "a <b>", model, source, "val", EvalConfig(), found).read_text()
    assert "a &lt;b&gt;" in html
    assert html.count('<img src="data:image/') == 6 * 5
    worst = found.worst(6)
    assert found.image_miou[worst].tolist() == sorted(found.image_miou.tolist())
    assert html.index(f"{found.names[worst[0]]}:") < html.index(f"{found.names[worst[1]]}:")
    comparison = found.compare(found)
    html = write_comparison_page(tmp_path, ("one", "two"), found, comparison).read_text()
    assert html.count("no sure difference") == 4  # three classes and their mean


def test_only_the_same_images_can_be_compared(model: Segmenter, source: DataSource) -> None:
    with pytest.raises(ValueError, match="on the same images"):
        examine(model, source, workers=0).compare(examine(model, source, limit=2, workers=0))
