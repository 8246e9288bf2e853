import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segformer.config import EvalConfig, ModelCard, Preprocessing
from segformer.data.dataset import DataSource, LabelTable, seed_of
from segformer.data.images import RGB, Decoding
from segformer.errors import UserError
from segformer.evaluation.evaluate import evaluate
from segformer.evaluation.metrics import Scores
from segformer.inference.windows import whole_logits
from segformer.models.build import build_from_card, model_config
from segformer.models.segmenter import Segmenter
from segformer.robustness import cells as module
from segformer.robustness.cells import (
    CLEAN,
    Corrupted,
    Robustness,
    Store,
    digest_number,
    read_scores,
    robustness,
    setting_of,
)
from segformer.robustness.corruptions import GROUPS, NAMES, corrupt

CLASSES = ("ground", "disc")


class Picture:
    """A sample in memory."""

    def __init__(self, name: str, size: tuple[int, int] = (40, 56)) -> None:
        self.name = name
        self.size = size

    def read(self, decoding: Decoding = RGB) -> tuple[np.ndarray, np.ndarray]:
        y, x = np.mgrid[: self.size[0], : self.size[1]]
        mask = ((y - 20) ** 2 + (x - 30) ** 2 < 150).astype(np.uint8)
        image = np.stack([120 + 100 * mask, 200 - 2 * y, 2 * x + 5 * len(self.name)], axis=-1).astype(np.uint8)
        image.setflags(write=False)
        return image, mask


@pytest.fixture
def source() -> DataSource:
    samples = [Picture(name) for name in ("one", "two", "three")]
    return DataSource("drawn", CLASSES, ((0, 0, 0), (255, 0, 0)), LabelTable.identity(2), {"val": samples})


@pytest.fixture
def model() -> Segmenter:
    return build()


def build(seed: int = 0) -> Segmenter:
    """An untrained model whose bias is such that it finds both classes."""
    torch.manual_seed(seed)
    card = ModelCard.for_classes(
        model_config("mit_b0", decoder_channels=16), 2, Preprocessing(long_side=64, short_side=32)
    )
    built = build_from_card(replace(card, classes=CLASSES)).eval()
    image = torch.from_numpy(Picture("one").read()[0].transpose(2, 0, 1).copy())
    with torch.no_grad():
        built.decoder.classifier.bias -= whole_logits(built, image).mean(dim=(0, 2, 3))
    return built


FEW: dict[str, Any] = {"corruptions": ("fog", "shot_noise"), "severities": (1, 4), "workers": 0}
FEW_CELLS = [CLEAN, ("shot_noise", 1), ("shot_noise", 4), ("fog", 1), ("fog", 4)]


def confusions(result: Robustness) -> list[list[list[int]]]:
    return [scores.confusion.tolist() for scores in (result.clean, *result.cells.values())]


def test_a_corrupted_sample_is_the_same_each_time_and_its_mask_untouched() -> None:
    sample = Picture("one")
    image, mask = Corrupted(sample, "gaussian_noise", 2, 7).read()
    again, same_mask = Corrupted(sample, "gaussian_noise", 2, 7).read()
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(mask, same_mask)
    np.testing.assert_array_equal(mask, sample.read()[1])
    assert Corrupted(sample, "gaussian_noise", 2, 7).name == "one"


def test_random_numbers_depend_on_seed_corruption_severity_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(module, "corrupt", lambda image, name, severity, rng, frost: drawn.append(rng.random()))
    for corruption, severity, seed, name in (
        ("fog", 1, 0, "one"),
        ("fog", 1, 1, "one"),
        ("snow", 1, 0, "one"),
        ("fog", 2, 0, "one"),
        ("fog", 1, 0, "two"),
    ):
        Corrupted(Picture(name), corruption, severity, seed).read()
    assert len(set(drawn)) == 5


def test_texts_become_the_same_numbers_in_every_process() -> None:
    assert digest_number("fog") == int.from_bytes(hashlib.blake2b(b"fog", digest_size=8).digest(), "big")


def test_an_image_too_small_is_named() -> None:
    with pytest.raises(ValueError, match="tiny: only images from 32 x 32 on can be corrupted, got 20 x 56"):
        Corrupted(Picture("tiny", (20, 56)), "fog", 1).read()


def test_cells_are_what_evaluate_gives_on_corrupted_images(model: Segmenter, source: DataSource) -> None:
    result = robustness(model, source, **FEW, seed=3)
    assert list(result.cells) == FEW_CELLS[1:]

    class Given(Picture):
        def read(self, decoding: Decoding = RGB) -> tuple[np.ndarray, np.ndarray]:
            image, mask = super().read()
            rng = np.random.default_rng(seed_of(3, 4, digest_number("shot_noise"), digest_number(self.name)))
            return corrupt(image, "shot_noise", 4, rng), mask

    by_hand = replace(source, splits={"val": [Given(sample.name) for sample in source.samples("val")]})
    expected = evaluate(model, by_hand, workers=0)
    np.testing.assert_array_equal(result.cells["shot_noise", 4].confusion, expected.confusion)
    np.testing.assert_array_equal(result.clean.confusion, evaluate(model, source, workers=0).confusion)
    assert len({json.dumps(confusion) for confusion in confusions(result)}) > 2


def test_workers_and_protocol(model: Segmenter, source: DataSource) -> None:
    alone = robustness(model, source, **FEW)
    assert confusions(robustness(model, source, **{**FEW, "workers": 1})) == confusions(alone)
    other = robustness(model, source, **FEW, config=EvalConfig(crop=(32, 32)))
    assert confusions(other) != confusions(alone)
    assert other.setting["protocol"]["crop"] == [32, 32]


def count_evaluations(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[int]:
    """A list that grows with each evaluation; the one after ``stop_after`` is interrupted."""
    calls: list[int] = []

    def counted(*arguments: Any, **options: Any) -> Scores:
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append(len(calls))
        return evaluate(*arguments, **options)

    monkeypatch.setattr(module, "evaluate", counted)
    return calls


def test_a_second_run_computes_nothing(
    model: Segmenter, source: DataSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    calls = count_evaluations(monkeypatch)
    first = robustness(model, source, **FEW, out=tmp_path, note=notes.append)
    assert (len(calls), notes) == (5, [])
    again = robustness(model, source, **FEW, out=tmp_path, note=notes.append)
    assert len(calls) == 5
    assert notes == [f"5 of 5 cells found in {tmp_path}"]
    assert confusions(again) == confusions(first)
    assert again.to_json() == first.to_json()
    more = robustness(model, source, **{**FEW, "severities": (1, 2)}, out=tmp_path, note=notes.append)
    assert len(calls) == 7
    assert notes[-1] == f"3 of 5 cells found in {tmp_path}"
    assert more.severities == (1, 2)


def test_an_interrupted_run_goes_on(
    model: Segmenter, source: DataSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_evaluations(monkeypatch, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        robustness(model, source, **FEW, out=tmp_path)
    assert {path.name for path in (tmp_path / "cells").iterdir()} == {"clean.json", "shot_noise_1.json"}
    calls = count_evaluations(monkeypatch)
    progress: list[tuple[int, int]] = []
    result = robustness(model, source, **FEW, out=tmp_path, progress=lambda *counts: progress.append(counts))
    assert len(calls) == 3
    assert progress == [(done, 9) for done in range(1, 10)]
    assert confusions(result) == confusions(robustness(model, source, **FEW))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"weight": 1e-6}, "weights"),
        ({"short_side": 48}, "preprocessing"),
        ({"config": EvalConfig(flip=True)}, "protocol"),
        ({"limit": 2}, "number of images"),
        ({"names": True}, "names of the images"),
        ({"name": "other"}, "data"),
        ({"seed": 1}, "seed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_run_in_the_folder_is_an_error_that_names_what_differs(
    source: DataSource, tmp_path: Path, change: Mapping[str, Any], key: str
) -> None:
    few = {"corruptions": ("contrast",), "severities": (1,), "workers": 0, "out": tmp_path}
    model = build()
    samples = source.samples("val")
    setting = setting_of(model, source, samples, "val", EvalConfig(), 0, None)
    Store(tmp_path, setting).write(("contrast", 1), Scores(np.eye(2, dtype=np.int64), CLASSES))
    options = {name: value for name, value in change.items() if name in ("config", "limit", "seed")}
    if "weight" in change:
        model.decoder.classifier.bias.data[0] += change["weight"]
    if "short_side" in change:
        model.card = replace(model.card, preprocessing=replace(model.card.preprocessing, **change))
    if "names" in change:
        source = replace(source, splits={"val": [*samples[:2], Picture("four")]})
    if "name" in change:
        source = replace(source, **change)
    before = (tmp_path / "cells" / "contrast_1.json").read_bytes()
    with pytest.raises(ValueError, match=rf"holds cells of another run: {key} is .* there and .* here; give another"):
        robustness(model, source, **few, **options)
    assert (tmp_path / "cells" / "contrast_1.json").read_bytes() == before


def test_cells_of_unknown_origin_and_damaged_cells(model: Segmenter, source: DataSource, tmp_path: Path) -> None:
    robustness(model, source, **FEW, out=tmp_path)
    cell = tmp_path / "cells" / "fog_4.json"
    cell.write_text("{}")
    with pytest.raises(ValueError, match=r"fog_4\.json: expected the scores of a cell, got other JSON; remove"):
        robustness(model, source, **FEW, out=tmp_path)
    (tmp_path / "setting.json").unlink()
    with pytest.raises(ValueError, match="format version is unknown there and 1 here"):
        robustness(model, source, **FEW, out=tmp_path)


def test_a_cell_is_what_scores_write(model: Segmenter, source: DataSource, tmp_path: Path) -> None:
    result = robustness(model, source, **FEW, out=tmp_path)
    path = tmp_path / "cells" / "fog_1.json"
    assert json.loads(path.read_text()) == json.loads(json.dumps(result.cells["fog", 1].to_json()))
    rebuilt = read_scores(path)
    np.testing.assert_array_equal(rebuilt.iou, result.cells["fog", 1].iou)
    assert rebuilt.classes == CLASSES


def test_what_is_refused(model: Segmenter, source: DataSource, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'shot_noise'"):
        robustness(model, source, corruptions=("shot",), out=tmp_path)
    with pytest.raises(ValueError, match="severities must be within 1 and 5, got 0"):
        robustness(model, source, severities=(0, 1), out=tmp_path)
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        robustness(model, source, seed=-1, out=tmp_path)
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        robustness(model, source, limit=0, out=tmp_path, workers=0)
    with pytest.raises(UserError, match=r"has no frost1\.png"):
        robustness(model, source, frost=tmp_path, out=tmp_path)
    with pytest.raises(ValueError, match="'disc' against 'sky'"):
        robustness(model, replace(source, classes=("ground", "sky")), out=tmp_path)
    raw = build()
    raw.card = replace(raw.card, preprocessing=replace(raw.card.preprocessing, pixels="raw"))
    with pytest.raises(ValueError, match="defined for 8-bit RGB images, and this model takes 3 raw channels"):
        robustness(raw, source, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_summary_by_hand() -> None:
    clean = Scores(np.diag([80, 100]), CLASSES)
    cells = {}
    for name in NAMES:
        for severity in range(1, 6):
            hit = 100 - 10 * severity if name in GROUPS["noise"] else 90
            cells[name, severity] = Scores(np.array([[hit, 100 - hit], [0, 0]]), CLASSES)
    result = Robustness(clean, cells, {})
    assert result.clean.miou == 1
    # One class has IoU `hit` %, the other, which is only predicted, 0: the mean is half of that.
    assert result.counted("gaussian_noise") == (1, 2, 3)
    assert result.miou("gaussian_noise") == pytest.approx((0.45 + 0.40 + 0.35) / 3)
    assert result.counted("fog") == (1, 2, 3, 4, 5)
    assert result.miou("fog") == pytest.approx(0.45)
    assert result.group_miou("noise") == pytest.approx(0.40)
    assert result.group_miou("blur") == pytest.approx(0.45)
    assert result.corrupted_miou == pytest.approx((12 * 0.45 + 4 * 0.40) / 16)
    assert result.retained(result.corrupted_miou) == pytest.approx(0.4375)
    np.testing.assert_allclose(result.retained_iou("shot_noise"), [0.8, 0.0])
    figures = result.to_json()
    assert figures["retained"] == 0.4375
    assert figures["groups"] == {"blur": 0.45, "noise": 0.4, "digital": 0.45, "weather": 0.45}
    assert figures["corruptions"]["shot_noise"]["severities"]["5"] == 0.25
    assert figures["corruptions"]["shot_noise"]["mean over severities"] == [1, 2, 3]
    json.dumps(figures, allow_nan=False)


def test_a_summary_of_parts_and_of_nothing_right() -> None:
    nothing = Scores(np.array([[0, 5], [5, 0]]), CLASSES)
    result = Robustness(nothing, {("shot_noise", 5): nothing, ("fog", 2): nothing}, {})
    assert np.isnan(result.miou("shot_noise"))  # severity 5 does not count
    assert result.miou("fog") == 0
    assert result.corrupted_miou == 0
    assert np.isnan(result.retained(0.0))
    assert np.isnan(result.retained_iou("fog")).all()
    assert np.isnan(result.group_miou("blur"))
    json.dumps(result.to_json(), allow_nan=False)


def test_the_limit_and_the_photographs_are_part_of_the_setting(
    model: Segmenter, source: DataSource, tmp_path: Path
) -> None:
    from PIL import Image

    from segformer.robustness.corruptions import FROST_FILES

    for name in FROST_FILES:
        Image.new("RGB", (40, 40), (90, 100, 200)).save(tmp_path / name)
    options: dict[str, Any] = {"corruptions": ("frost",), "severities": (5,), "workers": 0, "limit": 1}
    drawn = robustness(model, source, **options)
    given = robustness(model, source, **options, frost=tmp_path)
    assert drawn.setting["frost"] == "drawn"
    assert given.setting["frost"].startswith("photographs ")
    assert given.clean.confusion.sum() == 40 * 56
    assert drawn.setting["number of images"] == 1
