import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from corruption_images import Picture
from networks import FakeNetwork
from segformer.config import EvalConfig, ModelCard, Preprocessing
from segformer.data.dataset import DataSource
from segformer.data.images import RGB, Decoding
from segformer.data.label_table import LabelTable
from segformer.data.loading import seed_of
from segformer.errors import UserError
from segformer.evaluation.evaluate import score
from segformer.evaluation.metrics import Scores
from segformer.inference.windows import whole_logits
from segformer.models.build import build_from_card, model_config
from segformer.models.segmenter import Segmenter
from segformer.robustness import cells as module
from segformer.robustness.cells import open_store, read_scores, robustness, setting_of
from segformer.robustness.corruptions import corrupt
from segformer.robustness.result import CLEAN, Robustness
from segformer.robustness.sample import digest_number
from segformer.robustness.weather import FROST_FILES

CLASSES = ("ground", "disc")


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


def test_cells_are_what_evaluate_gives_on_corrupted_images(model: Segmenter, source: DataSource) -> None:
    result = robustness(model, source, **FEW, seed=3)
    assert list(result.cells) == FEW_CELLS[1:]

    class Given(Picture):
        def read(self, decoding: Decoding = RGB) -> tuple[np.ndarray, np.ndarray]:
            image, mask = super().read()
            rng = np.random.default_rng(seed_of(3, 4, digest_number("shot_noise"), digest_number(self.name)))
            return corrupt(image, "shot_noise", 4, rng), mask

    by_hand = replace(source, splits={"val": [Given(sample.name) for sample in source.samples("val")]})
    expected = score(model, by_hand, workers=0)
    np.testing.assert_array_equal(result.cells["shot_noise", 4].confusion, expected.confusion)
    np.testing.assert_array_equal(result.clean.confusion, score(model, source, workers=0).confusion)
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
        return score(*arguments, **options)

    monkeypatch.setattr(module, "score", counted)
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
    assert notes == [f"5 of 5 measurements are already in {tmp_path} and are not repeated"]
    assert confusions(again) == confusions(first)
    assert again.to_json() == first.to_json()
    more = robustness(model, source, **{**FEW, "severities": (1, 2)}, out=tmp_path, note=notes.append)
    assert len(calls) == 7
    assert notes[-1] == f"3 of 5 measurements are already in {tmp_path} and are not repeated"
    assert more.severities == (1, 2)


def test_an_interrupted_run_is_resumed(
    model: Segmenter, source: DataSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_evaluations(monkeypatch, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        robustness(model, source, **FEW, out=tmp_path)
    assert {path.name for path in (tmp_path / "cells").iterdir()} == {
        "clean.json", "identity.json", "shot_noise_1.json",
    }  # fmt: skip
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
        ({"limit": 2}, "num_images"),
        ({"names": True}, "image_names"),
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
    store = open_store(tmp_path, setting_of(model, source, samples, "val", EvalConfig(), 0, None))
    store.save_json("contrast_1.json", Scores(np.eye(2, dtype=np.int64), CLASSES).to_json())
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
    with pytest.raises(
        UserError, match=rf"holds another robustness measurement: {key}\S* is .* there and .* here; give another"
    ):
        robustness(model, source, **few, **options)
    assert (tmp_path / "cells" / "contrast_1.json").read_bytes() == before


def test_damaged_cells_and_cells_of_unknown_origin(model: Segmenter, source: DataSource, tmp_path: Path) -> None:
    robustness(model, source, **FEW, out=tmp_path)
    cell = tmp_path / "cells" / "fog_4.json"
    cell.write_text("{}")
    with pytest.raises(
        UserError, match=r"fog_4\.json: expected the scores of one corruption and severity, got other JSON; remove"
    ):
        robustness(model, source, **FEW, out=tmp_path)
    cell.write_text("{")
    with pytest.raises(UserError, match=r"fog_4\.json: damaged"):
        robustness(model, source, **FEW, out=tmp_path)
    (tmp_path / "cells" / "identity.json").unlink()
    with pytest.raises(UserError, match=r"cells: expected an empty folder or one with an identity\.json"):
        robustness(model, source, **FEW, out=tmp_path)


def test_cells_of_version_0_1_are_refused_and_stay(model: Segmenter, source: DataSource, tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    for name in ("setting.json", "cells/clean.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(
        UserError, match=r"a measurement of version 0\.1 \(setting\.json\), which cannot be resumed; give"
    ):
        robustness(model, source, **FEW, out=tmp_path)
    assert (tmp_path / "cells" / "clean.json").read_text() == "{}"


def test_a_cell_is_what_scores_write(model: Segmenter, source: DataSource, tmp_path: Path) -> None:
    result = robustness(model, source, **FEW, out=tmp_path)
    path = tmp_path / "cells" / "fog_1.json"
    assert json.loads(path.read_text()) == json.loads(json.dumps(result.cells["fog", 1].to_json()))
    rebuilt = read_scores(open_store(tmp_path, dict(result.setting)), ("fog", 1))
    np.testing.assert_array_equal(rebuilt.iou, result.cells["fog", 1].iou)
    assert rebuilt.classes == CLASSES


def test_what_is_refused(model: Segmenter, source: DataSource, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'shot_noise'"):
        robustness(model, source, corruptions=("shot",), out=tmp_path)
    with pytest.raises(UserError, match="severities must be from 1 to 5, got 0"):
        robustness(model, source, severities=(0, 1), out=tmp_path)
    with pytest.raises(UserError, match="seed must be 0 or more, got -1"):
        robustness(model, source, seed=-1, out=tmp_path)
    with pytest.raises(UserError, match="limit must be at least 1, got 0"):
        robustness(model, source, limit=0, out=tmp_path, workers=0)
    with pytest.raises(UserError, match=r"has no frost1\.png"):
        robustness(model, source, frost=tmp_path, out=tmp_path)
    with pytest.raises(UserError, match="'disc' in the model, 'sky' in the data"):
        robustness(model, replace(source, classes=("ground", "sky")), out=tmp_path)
    raw = build()
    raw.card = replace(raw.card, preprocessing=replace(raw.card.preprocessing, pixels="raw"))
    with pytest.raises(UserError, match="defined for 8-bit RGB images, but this model takes 3 raw channels"):
        robustness(raw, source, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_limit_and_the_photographs_are_part_of_the_setting(
    model: Segmenter, source: DataSource, tmp_path: Path
) -> None:
    for name in FROST_FILES:
        Image.new("RGB", (40, 40), (90, 100, 200)).save(tmp_path / name)
    options: dict[str, Any] = {"corruptions": ("frost",), "severities": (5,), "workers": 0, "limit": 1}
    drawn = robustness(model, source, **options)
    given = robustness(model, source, **options, frost=tmp_path)
    assert drawn.setting["frost"] == "drawn"
    assert given.setting["frost"].startswith("photographs ")
    assert given.clean.confusion.sum() == 40 * 56
    assert drawn.setting["num_images"] == 1


def test_a_fused_model_scores_as_the_model_does(model: Segmenter, source: DataSource) -> None:
    found = robustness(model.fuse(), source, **FEW)
    assert confusions(found) == confusions(robustness(model, source, **FEW))


def test_any_network_is_measured(source: DataSource, tmp_path: Path) -> None:
    network = FakeNetwork(CLASSES)
    found = robustness(network, source, **FEW, out=tmp_path)
    assert found.setting["weights"] == network.fingerprint()
    np.testing.assert_array_equal(found.clean.confusion, score(network, source, workers=0).confusion)
    assert found.corruptions == ("shot_noise", "fog")
